//! Resumable uploads: in one request, in chunks, over broken connections.

use axum::body::Body;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::{
    http::{Answer, JSON, send},
    storage::{bucket, object},
    world::World,
};

const HOST: &str = "https://storage.googleapis.com";
const QUANTUM: usize = 256 << 10;

/// Begins an upload as the Google Cloud CLI does; gives the session's URI.
async fn start(world: &World, bucket: &str, query: &str, body: Json, headers: &[(&str, &str)]) -> String {
    let url = format!("{HOST}/resumable/upload/storage/v1/b/{bucket}/o?alt=json&uploadType=resumable{query}");
    let headers = [&[JSON, ("x-upload-content-type", "application/octet-stream")], headers].concat();
    let answer = send(&world.api, Some(&world.owner), "POST", &url, &headers, body.to_string()).await.good();
    assert!(
        answer.header("location").starts_with(&format!("{HOST}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id=")),
        "{}",
        answer.header("location")
    );
    answer.header("location").to_owned()
}

/// Sends bytes to a session, without credentials.
async fn put(world: &World, url: &str, range: &str, body: impl Into<Body>) -> Answer {
    send(&world.api, None, "PUT", url, &[("content-range", range)], body).await
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

async fn read(world: &World, bucket: &str, name: &str) -> Vec<u8> {
    send(&world.api, Some(&world.owner), "GET", &format!("{HOST}/storage/v1/b/{bucket}/o/{name}?alt=media"), &[], "").await.good().body
}

pub async fn a_large_object_comes_in_one_request(world: &World) {
    bucket(world, "resume-1").await;
    let data = bytes(3 * QUANTUM + 17);
    let length = data.len().to_string();
    let url =
        start(world, "resume-1", "", json!({ "bucket": "resume-1", "contentType": "image/png", "name": "big.bin" }), &[("x-upload-content-length", &length)])
            .await;
    let done = put(world, &url, &format!("bytes 0-{}/{length}", data.len() - 1), data.clone()).await.good().json();
    assert_eq!((&done["size"], &done["contentType"], &done["name"]), (&json!(length), &json!("image/png"), &json!("big.bin")));
    assert!(read(world, "resume-1", "big.bin").await == data);
    // Whose answer was lost asks again and gets the same object.
    let again = put(world, &url, "bytes */*", "").await.good().json();
    assert_eq!(again["generation"], done["generation"]);
}

pub async fn chunks_are_put_together(world: &World) {
    bucket(world, "resume-2").await;
    let data = bytes(2 * QUANTUM + 100);
    let total = data.len();
    let url = start(world, "resume-2", "&name=chunks", json!({}), &[("x-upload-content-length", &total.to_string())]).await;
    assert_eq!(put(world, &url, "bytes */*", "").await.status, 308);
    let first = put(world, &url, &format!("bytes 0-{}/*", QUANTUM - 1), data[..QUANTUM].to_vec()).await;
    assert_eq!((first.status.as_u16(), first.header("range")), (308, format!("bytes=0-{}", QUANTUM - 1).as_str()));
    // Past what has come: refused. Within it: only what is new is taken. Not a whole quantum: the rest is forgotten.
    let ahead = put(world, &url, &format!("bytes {}-{}/{total}", 2 * QUANTUM, total - 1), data[2 * QUANTUM..].to_vec()).await;
    assert_eq!(ahead.reason(), (400, "invalid".to_owned()));
    let overlap = put(world, &url, &format!("bytes {}-{}/*", QUANTUM / 2, 2 * QUANTUM + 9), data[QUANTUM / 2..2 * QUANTUM + 10].to_vec()).await;
    assert_eq!((overlap.status.as_u16(), overlap.header("range")), (308, format!("bytes=0-{}", 2 * QUANTUM - 1).as_str()));
    let asked = put(world, &url, &format!("bytes */{total}"), "").await;
    assert_eq!((asked.status.as_u16(), asked.header("range")), (308, format!("bytes=0-{}", 2 * QUANTUM - 1).as_str()));
    let other = put(world, &url, &format!("bytes {}-{}/{}", 2 * QUANTUM, total, total + 1), vec![0; 101]).await;
    assert_eq!(other.reason(), (400, "invalid".to_owned()));
    let done = put(world, &url, &format!("bytes {}-{}/{total}", 2 * QUANTUM, total - 1), data[2 * QUANTUM..].to_vec()).await.good().json();
    assert_eq!(done["size"], total.to_string());
    assert!(read(world, "resume-2", "chunks").await == data);
}

pub async fn a_broken_connection_loses_less_than_a_quantum(world: &World) {
    bucket(world, "resume-3").await;
    let data = bytes(3 * QUANTUM);
    let total = data.len();
    let url = start(world, "resume-3", "&name=broken", json!({}), &[("x-upload-content-length", &total.to_string())]).await;
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        data[..QUANTUM + 1000].chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).chain([Err(std::io::ErrorKind::ConnectionReset.into())]).collect();
    let broken = put(world, &url, &format!("bytes 0-{}/{total}", total - 1), Body::from_stream(futures_util::stream::iter(pieces))).await;
    assert_eq!(broken.status, 400);
    let asked = put(world, &url, "bytes */*", "").await;
    assert_eq!((asked.status.as_u16(), asked.header("range")), (308, format!("bytes=0-{}", QUANTUM - 1).as_str()));
    put(world, &url, &format!("bytes {QUANTUM}-{}/{total}", total - 1), data[QUANTUM..].to_vec()).await.good();
    assert!(read(world, "resume-3", "broken").await == data);
}

pub async fn the_last_request_may_only_say_that_it_is_all(world: &World) {
    bucket(world, "resume-4").await;
    let data = bytes(QUANTUM);
    let url = start(world, "resume-4", "&name=exact", json!({}), &[]).await;
    assert_eq!(put(world, &url, &format!("bytes 0-{}/*", QUANTUM - 1), data.clone()).await.status, 308);
    put(world, &url, &format!("bytes */{QUANTUM}"), "").await.good();
    assert!(read(world, "resume-4", "exact").await == data);
    let empty = start(world, "resume-4", "&name=empty", json!({}), &[]).await;
    assert_eq!(put(world, &empty, "bytes */0", "").await.good().json()["size"], "0");
    // Without Content-Range the body is all of it.
    let plain = start(world, "resume-4", "&name=plain", json!({}), &[]).await;
    send(&world.api, None, "PUT", &plain, &[("content-length", "5")], "hello").await.good();
    assert_eq!(read(world, "resume-4", "plain").await, b"hello");
}

/// As the Node.js library sends what it does not know the size of.
pub async fn an_end_may_be_open(world: &World) {
    bucket(world, "resume-7").await;
    let data = bytes(QUANTUM + 100);
    let total = data.len();
    let url = start(world, "resume-7", "&name=open", json!({}), &[]).await;
    put(world, &url, "bytes 0-*/*", data.clone()).await.good();
    assert!(read(world, "resume-7", "open").await == data);
    // Broken off, then the rest; what has come before is passed over.
    let url = start(world, "resume-7", "&name=rest", json!({}), &[]).await;
    let pieces = [Ok(Bytes::copy_from_slice(&data[..QUANTUM])), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    assert_eq!(put(world, &url, "bytes 0-*/*", Body::from_stream(futures_util::stream::iter(pieces))).await.status, 400);
    let asked = put(world, &url, "bytes */*", "").await;
    assert_eq!((asked.status.as_u16(), asked.header("range")), (308, format!("bytes=0-{}", QUANTUM - 1).as_str()));
    // Shorter than what has come already: no end of the object.
    assert_eq!(put(world, &url, "bytes 0-*/*", data[..10].to_vec()).await.status, 308);
    put(world, &url, "bytes 10-*/*", data[10..].to_vec()).await.good();
    assert!(read(world, "resume-7", "rest").await == data);
    // Nothing more.
    let url = start(world, "resume-7", "&name=none", json!({}), &[]).await;
    assert_eq!(put(world, &url, &format!("bytes 0-{}/*", QUANTUM - 1), data[..QUANTUM].to_vec()).await.status, 308);
    put(world, &url, &format!("bytes {QUANTUM}-*/*"), "").await.good();
    assert!(read(world, "resume-7", "none").await == data[..QUANTUM]);
    // With a size, it must be that.
    let url = start(world, "resume-7", "&name=sized", json!({}), &[]).await;
    assert_eq!(put(world, &url, &format!("bytes 0-*/{}", total - 1), data.clone()).await.reason(), (400, "invalid".to_owned()));
    assert_eq!(put(world, &url, &format!("bytes 0-*/{}", total + 1), data.clone()).await.status, 308);
    assert_eq!(put(world, &url, &format!("bytes {QUANTUM}-*/{total}"), data[QUANTUM..].to_vec()).await.status, 400);
}

pub async fn go_continues_by_post_and_hides_308(world: &World) {
    bucket(world, "resume-8").await;
    let data = bytes(QUANTUM + 1);
    let url = start(world, "resume-8", "&name=o", json!({}), &[]).await;
    let post = async |range: String, body: Vec<u8>| {
        send(&world.api, Some(&world.owner), "POST", &url, &[("content-range", &range), ("x-guploader-no-308", "yes")], body).await
    };
    let first = post(format!("bytes 0-{}/*", QUANTUM - 1), data[..QUANTUM].to_vec()).await;
    assert_eq!((first.status.as_u16(), first.header("x-http-status-code-override")), (200, "308"));
    assert_eq!(first.header("range"), format!("bytes=0-{}", QUANTUM - 1));
    let done = post(format!("bytes {QUANTUM}-{QUANTUM}/{}", QUANTUM + 1), data[QUANTUM..].to_vec()).await.good();
    assert_eq!((done.header("x-http-status-code-override"), &done.json()["size"]), ("", &json!((QUANTUM + 1).to_string())));
    assert!(read(world, "resume-8", "o").await == data);
}

pub async fn an_upload_can_fail_at_its_end(world: &World) {
    bucket(world, "resume-5").await;
    // Wrong hash: the session is over.
    let url = start(world, "resume-5", "&name=o", json!({ "md5Hash": "AAAAAAAAAAAAAAAAAAAAAA==" }), &[]).await;
    assert_eq!(put(world, &url, "bytes 0-4/5", "hello").await.reason(), (400, "invalid".to_owned()));
    assert_eq!(put(world, &url, "bytes */*", "").await.reason(), (404, "notFound".to_owned()));
    // Someone else was faster.
    let url = start(world, "resume-5", "&name=o&ifGenerationMatch=0", json!({}), &[]).await;
    object(world, "resume-5", "o", "first").await;
    assert_eq!(put(world, &url, "bytes 0-4/5", "hello").await.reason(), (412, "conditionNotMet".to_owned()));
    assert_eq!(read(world, "resume-5", "o").await, b"first");
    // Longer than it said.
    let url = start(world, "resume-5", "&name=p", json!({}), &[]).await;
    assert_eq!(put(world, &url, "bytes 0-4/5", "hello world").await.reason(), (400, "invalid".to_owned()));
}

pub async fn a_session_is_cancelled_or_never_was(world: &World) {
    bucket(world, "resume-6").await;
    let url = start(world, "resume-6", "&name=o", json!({}), &[]).await;
    assert_eq!(put(world, &url, &format!("bytes 0-{}/*", QUANTUM - 1), bytes(QUANTUM)).await.status, 308);
    assert_eq!(send(&world.api, None, "DELETE", &url, &[], "").await.status.as_u16(), 499);
    assert_eq!(put(world, &url, "bytes */*", "").await.reason(), (404, "notFound".to_owned()));
    for id in ["", "x", &"0".repeat(64), "..%2F..%2Fsession"] {
        let url = format!("{HOST}/upload/storage/v1/b/resume-6/o?uploadType=resumable&upload_id={id}");
        let status = put(world, &url, "bytes */*", "").await.status.as_u16();
        assert!(matches!(status, 400 | 404), "{id}: {status}");
    }
    let other = start(world, "resume-6", "&name=o", json!({}), &[]).await.replace("/b/resume-6/", "/b/resume-5/");
    assert_eq!(put(world, &other, "bytes */*", "").await.reason(), (404, "notFound".to_owned()));
}

/// A later bucket of the name is another one.
pub async fn a_session_ends_with_its_bucket(world: &World) {
    bucket(world, "resume-gone").await;
    let url = start(world, "resume-gone", "", json!({ "name": "o" }), &[]).await;
    let at = format!("{HOST}/storage/v1/b/resume-gone");
    send(&world.api, Some(&world.owner), "DELETE", &at, &[], "").await.good();
    assert_eq!(put(world, &url, "bytes 0-0/1", "x").await.status, 404);
    bucket(world, "resume-gone").await;
    assert_eq!(put(world, &url, "bytes 0-0/1", "x").await.status, 404);
    let listed = send(&world.api, Some(&world.owner), "GET", &format!("{at}/o"), &[], "").await.good().json();
    assert_eq!(listed["items"], Json::Null);
}
