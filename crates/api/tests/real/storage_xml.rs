//! Storage's XML API: signed URLs, forms, multipart uploads; and batches of the JSON one.

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    http::{Answer, send},
    storage::{bucket, object},
    world::World,
};

const HOST: &str = "https://storage.googleapis.com";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn stamp(shift_s: i64) -> String {
    let at = model::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(shift_s)).unwrap();
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A URL signed as Google's libraries sign it (version 4), by the account that is there from the start.
///
/// A header `x-goog-content-sha256` is signed as what the body must be.
async fn signed(world: &World, method: &str, host: &str, path: &str, headers: &[(&str, &str)], query: &[(&str, &str)], shift_s: i64) -> String {
    let (email, date) = (world.compute(), stamp(shift_s));
    let scope = format!("{}/auto/storage/goog4_request", &date[..8]);
    let mut signed: Vec<(String, String)> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    signed.push(("host".to_owned(), host.to_owned()));
    signed.sort();
    let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let credential = format!("{email}/{scope}");
    let mut pairs: Vec<(&str, &str)> = vec![
        ("X-Goog-Algorithm", "GOOG4-RSA-SHA256"),
        ("X-Goog-Credential", &credential),
        ("X-Goog-Date", &date),
        ("X-Goog-Expires", "600"),
        ("X-Goog-SignedHeaders", &names),
    ];
    pairs.extend(query);
    let escape = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let mut pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.sort();
    let query = pairs.join("&");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let payload = headers.iter().find(|(name, _)| *name == "x-goog-content-sha256").map_or("UNSIGNED-PAYLOAD", |(_, hash)| hash);
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
    let text = format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let signature = world.iam.blob_sign(&email, text.as_bytes()).await.unwrap().value;
    format!("https://{host}{path}?{query}&X-Goog-Signature={}", hex::encode(signature))
}

async fn ask(world: &World, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    send(&world.api, None, method, url, headers, body.to_owned()).await
}

/// Status and code of an XML error.
fn refused(answer: Answer) -> (u16, String) {
    let text = answer.text();
    let code = text.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next()).unwrap_or_default().to_owned();
    (answer.status.as_u16(), code)
}

pub async fn a_signed_url_is_good_for_one_request_only(world: &World) {
    bucket(world, "signed-1").await;
    object(world, "signed-1", "a%20b", "hello").await;
    let google = "storage.googleapis.com";
    let url = signed(world, "GET", google, "/signed-1/a%20b", &[], &[("response-content-disposition", "attachment; filename=\"x\"")], 0).await;
    let read = ask(world, "GET", &url, &[], "").await.good();
    assert_eq!((read.text().as_str(), read.header("content-disposition")), ("hello", "attachment; filename=\"x\""));
    assert_eq!(ask(world, "GET", &url, &[("range", "bytes=1-2")], "").await.good().text(), "el");
    let denied = |code: &str| (403, code.to_owned());
    for (method, other) in [
        ("DELETE", url.clone()),
        ("GET", url.replace("a%20b", "a%20c")),
        ("GET", url.replace("filename", "filenamf")),
        ("GET", url.replace("X-Goog-Expires=600", "X-Goog-Expires=601")),
        ("GET", url.replace(google, "signed-1.storage.googleapis.com")),
    ] {
        assert_eq!(refused(ask(world, method, &other, &[], "").await), denied("SignatureDoesNotMatch"), "{method} {other}");
    }
    let bare = ask(world, "GET", &format!("{HOST}/signed-1/a%20b"), &[], "").await;
    assert_eq!(refused(bare), (401, "AuthenticationRequired".to_owned()));
    let late = signed(world, "GET", google, "/signed-1/a%20b", &[], &[], -601).await;
    assert_eq!(refused(ask(world, "GET", &late, &[], "").await), (400, "ExpiredToken".to_owned()));
    let early = signed(world, "GET", google, "/signed-1/a%20b", &[], &[], 3600).await;
    assert_eq!(refused(ask(world, "GET", &early, &[], "").await), (400, "InvalidArgument".to_owned()));
    // The bucket's own host, and this server's.
    let own = signed(world, "GET", "signed-1.storage.googleapis.com", "/a%20b", &[], &[], 0).await;
    assert_eq!(ask(world, "GET", &own, &[], "").await.good().text(), "hello");
    let direct = signed(world, "GET", "127.0.0.1:8443", "/signed-1/a%20b", &[], &[], 0).await;
    assert_eq!(ask(world, "GET", &direct, &[], "").await.good().text(), "hello");
    let absent = signed(world, "GET", google, "/signed-1/absent", &[], &[], 0).await;
    assert_eq!(refused(ask(world, "GET", &absent, &[], "").await), (404, "NoSuchKey".to_owned()));

    let put = signed(world, "PUT", google, "/signed-1/new", &[("content-type", "text/plain"), ("x-goog-meta-k", "v")], &[], 0).await;
    let written = ask(world, "PUT", &put, &[("content-type", "text/plain"), ("x-goog-meta-k", "v")], "0123456789").await.good();
    assert_eq!(
        (written.header("etag"), written.header("x-goog-hash")),
        ("\"781e5e245d69b566979b86e28d23f2c7\"", "crc32c=KAwGng==,md5=eB5eJF1ptWaXm4bijSPyxw==")
    );
    assert_eq!(refused(ask(world, "PUT", &put, &[("content-type", "text/html"), ("x-goog-meta-k", "v")], "x").await), denied("SignatureDoesNotMatch"));
    let more = [("content-type", "text/plain"), ("x-goog-meta-k", "v"), ("x-goog-meta-l", "w")];
    assert_eq!(refused(ask(world, "PUT", &put, &more, "x").await).0, 400, "a header that was not signed");
    let wrong = [("content-type", "text/plain"), ("x-goog-meta-k", "v"), ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")];
    assert_eq!(refused(ask(world, "PUT", &put, &wrong, "x").await), (400, "BadDigest".to_owned()));
    let head = signed(world, "HEAD", google, "/signed-1/new", &[], &[], 0).await;
    let told = ask(world, "HEAD", &head, &[], "").await.good();
    assert_eq!((told.header("x-goog-meta-k"), told.header("content-length")), ("v", "10"));
    assert_eq!(ask(world, "HEAD", &head, &[("if-none-match", told.header("etag"))], "").await.status, 304);

    let start = signed(world, "POST", google, "/signed-1/resumed", &[("x-goog-resumable", "start")], &[], 0).await;
    let session = ask(world, "POST", &start, &[("x-goog-resumable", "start")], "").await.good();
    assert_eq!(session.status, 201);
    ask(world, "PUT", session.header("location"), &[("content-length", "3")], "abc").await.good();
    let delete = signed(world, "DELETE", google, "/signed-1/resumed", &[], &[], 0).await;
    assert_eq!(ask(world, "DELETE", &delete, &[], "").await.status, 204);
}

pub async fn objects_are_read_and_written_by_their_paths(world: &World) {
    bucket(world, "xml-1").await;
    for name in ["a", "d%2F1", "d%2F2"] {
        object(world, "xml-1", name, "x").await;
    }
    let call = async |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        send(&world.api, Some(&world.owner), method, &format!("{HOST}/xml-1{path}"), headers, body.to_owned()).await
    };
    let listed = call("GET", "?delimiter=/", &[], "").await.good().text();
    assert!(listed.contains("<Key>a</Key>") && listed.contains("<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>"), "{listed}");
    let page = call("GET", "?list-type=2&max-keys=1&prefix=d/", &[], "").await.good().text();
    assert!(page.contains("<Key>d/1</Key>") && page.contains("<IsTruncated>true</IsTruncated>") && !page.contains("d/2"), "{page}");
    assert!(call("GET", "/?marker=d/1", &[], "").await.good().text().contains("<Key>d/2</Key>"));
    assert_eq!(call("GET", "/d/1", &[], "").await.good().text(), "x");
    assert_eq!(refused(call("PUT", "/n", &[("x-goog-content-length-range", "2,3")], "x").await), (400, "InvalidArgument".to_owned()));
    assert_eq!(refused(call("PUT", "/a", &[("x-goog-if-generation-match", "0")], "x").await), (412, "PreconditionFailed".to_owned()));
    assert_eq!(refused(call("PUT", "/a", &[("x-goog-acl", "public-read")], "x").await), (400, "InvalidArgument".to_owned()));
    assert_eq!(refused(call("GET", "?acl", &[], "").await), (400, "InvalidArgument".to_owned()));
    let stranger = send(&world.api, Some(&world.stranger), "GET", &format!("{HOST}/xml-1/a"), &[], "").await;
    assert_eq!(refused(stranger), (403, "AccessDenied".to_owned()));
    assert_eq!(refused(send(&world.api, Some(&world.owner), "GET", &format!("{HOST}/no-such-bucket/a"), &[], "").await), (404, "NoSuchBucket".to_owned()));

    // A multipart upload, as transfer managers make it.
    let begun = call("POST", "/big?uploads", &[("content-type", "text/x-big")], "").await.good().text();
    let id = begun.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let first = "a".repeat(5 << 20);
    let part = async |number: u32, body: &str| call("PUT", &format!("/big?partNumber={number}&uploadId={id}"), &[], body).await;
    let second_tag = part(2, "end").await.good().header("etag").to_owned();
    let first_tag = part(1, &first).await.good().header("etag").to_owned();
    assert!(call("GET", &format!("/big?uploadId={id}"), &[], "").await.good().text().contains("<PartNumber>2</PartNumber>"));
    let list = |parts: &[(u32, &str)]| {
        let parts: String = parts.iter().map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>")).collect();
        format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
    };
    let complete = async |body: String| call("POST", &format!("/big?uploadId={id}"), &[], &body).await;
    assert_eq!(complete(list(&[(1, &second_tag)])).await.status, 400);
    assert_eq!(complete(list(&[(2, &second_tag), (3, "x")])).await.status, 400);
    complete(list(&[(1, &first_tag), (2, &second_tag)])).await.good();
    let read = call("GET", "/big", &[], "").await.good();
    assert_eq!((read.text() == format!("{first}end"), read.header("content-type")), (true, "text/x-big"));
    assert_eq!(refused(part(3, "late").await), (404, "NoSuchUpload".to_owned()));
    let begun = call("POST", "/gone?uploads", &[], "").await.good().text();
    let id = begun.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap();
    assert_eq!(call("DELETE", &format!("/gone?uploadId={id}"), &[], "").await.status, 204);

    // What pages of other origins may do.
    let cors = json!({ "cors": [{ "origin": ["https://*.example.com"], "method": ["GET"], "responseHeader": ["x-a"], "maxAgeSeconds": 60 }] });
    send(&world.api, Some(&world.owner), "PATCH", &format!("{HOST}/storage/v1/b/xml-1"), &[crate::http::JSON], cors.to_string()).await.good();
    let origin = ("origin", "https://www.example.com");
    assert_eq!(call("GET", "/a", &[origin], "").await.header("access-control-allow-origin"), "https://www.example.com");
    assert_eq!(call("GET", "/a", &[("origin", "https://example.org")], "").await.header("access-control-allow-origin"), "");
    let preflight = ask(world, "OPTIONS", &format!("{HOST}/xml-1/a"), &[origin, ("access-control-request-method", "GET")], "").await;
    assert_eq!((preflight.header("access-control-allow-methods"), preflight.header("access-control-max-age")), ("GET", "60"));
    let put = ask(world, "OPTIONS", &format!("{HOST}/xml-1/a"), &[origin, ("access-control-request-method", "PUT")], "").await;
    assert_eq!(put.header("access-control-allow-methods"), "");
}

pub async fn a_form_uploads_what_its_policy_allows(world: &World) {
    bucket(world, "form-1").await;
    let (email, date) = (world.compute(), stamp(0));
    let credential = format!("{email}/{}/auto/storage/goog4_request", &date[..8]);
    let post = async |key: &str, file: &str, change: &str| {
        let conditions = json!([
            { "bucket": "form-1" }, ["starts-with", "$key", "in/"], ["content-length-range", 1, 10], { "success_action_status": "201" },
            { "x-goog-algorithm": "GOOG4-RSA-SHA256" }, { "x-goog-credential": credential }, { "x-goog-date": date },
        ]);
        let policy = STANDARD.encode(json!({ "expiration": "2999-01-01T00:00:00Z", "conditions": conditions }).to_string());
        let signature = hex::encode(world.iam.blob_sign(&email, policy.as_bytes()).await.unwrap().value);
        let fields = [
            ("key", key),
            ("success_action_status", "201"),
            ("x-goog-algorithm", "GOOG4-RSA-SHA256"),
            ("x-goog-credential", &credential),
            ("x-goog-date", &date),
            ("policy", &format!("{policy}{change}")),
            ("x-goog-signature", &signature),
        ];
        let mut body: String =
            fields.iter().map(|(name, value)| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")).collect();
        body += &format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\n{file}\r\n--b--\r\n");
        ask(world, "POST", &format!("{HOST}/form-1/"), &[("content-type", "multipart/form-data; boundary=b")], &body).await
    };
    let made = post("in/${filename}", "hello", "").await;
    assert_eq!((made.status.as_u16(), made.text().contains("<Key>in/f.txt</Key>")), (201, true), "{}", made.text());
    let read = send(&world.api, Some(&world.owner), "GET", &format!("{HOST}/form-1/in/f.txt"), &[], "").await.good();
    assert_eq!((read.text().as_str(), read.header("content-type")), ("hello", "text/plain"));
    for (key, file, change, code) in [
        ("out/x", "hello", "", (400, "InvalidPolicyDocument")),
        ("in/x", "hello, world", "", (400, "InvalidPolicyDocument")),
        ("in/x", "", "", (400, "InvalidPolicyDocument")),
        ("in/x", "hello", "AA", (403, "SignatureDoesNotMatch")),
    ] {
        assert_eq!(refused(post(key, file, change).await), (code.0, code.1.to_owned()), "{key} {file}");
    }
    // Without a policy it is nobody who asks.
    let bare = "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nx\r\n--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n";
    for bucket in ["form-1", "no-such-bucket"] {
        let answer = ask(world, "POST", &format!("{HOST}/{bucket}"), &[("content-type", "multipart/form-data; boundary=b")], bare).await;
        assert_eq!(refused(answer), (401, "AuthenticationRequired".to_owned()), "{bucket}");
    }
}

pub async fn a_signed_payload_is_the_one_that_is_stored(world: &World) {
    bucket(world, "payload-1").await;
    let put = async |claimed: &str, body: &str| {
        let headers = [("x-goog-content-sha256", claimed)];
        let url = signed(world, "PUT", "storage.googleapis.com", "/payload-1/o", &headers, &[], 0).await;
        ask(world, "PUT", &url, &headers, body).await
    };
    let hello = hex::encode(Sha256::digest("hello"));
    let other = put(&hello, "hellO").await;
    assert!(other.status == 400 && other.text().contains("'x-goog-content-sha256' header does not match"), "{} {}", other.status, other.text());
    assert_eq!(send(&world.api, Some(&world.owner), "GET", &format!("{HOST}/payload-1/o"), &[], "").await.status, 404);
    assert_eq!(put("no-hash", "hello").await.status, 400);
    put("UNSIGNED-PAYLOAD", "hellO").await.good();
    put(&hello.to_uppercase(), "hello").await.good();
    put(&hello, "hello").await.good();
    assert_eq!(send(&world.api, Some(&world.owner), "GET", &format!("{HOST}/payload-1/o"), &[], "").await.good().text(), "hello");
}

/// The marker of the older list is the last of what was told, which may be a common prefix.
pub async fn a_list_by_markers_ends(world: &World) {
    bucket(world, "marker-1").await;
    for name in ["a%2F1", "a%2F2", "b", "c%2F", "c%2Fd%2Fe", "d%2F1", "e"] {
        object(world, "marker-1", name, "x").await;
    }
    let all = async |prefix: &str, limit: usize| {
        let (mut told, mut marker) = (Vec::new(), String::new());
        for _ in 0..20 {
            let url = format!("{HOST}/marker-1?delimiter=%2F&prefix={prefix}&max-keys={limit}&marker={marker}");
            let page = send(&world.api, Some(&world.owner), "GET", &url, &[], "").await.good().text();
            let texts = |begin: &str, end: &str| page.split(begin).skip(1).map(|rest| rest.split(end).next().unwrap().to_owned()).collect::<Vec<_>>();
            let mut found = texts("<Key>", "</Key>");
            found.extend(texts("<CommonPrefixes><Prefix>", "</Prefix>"));
            found.sort();
            told.extend(found);
            match texts("<NextMarker>", "</NextMarker>").pop() {
                Some(next) => marker = next.replace('/', "%2F"),
                None => return told,
            }
        }
        panic!("no end: {told:?}");
    };
    for limit in [1, 2, 3, 1000] {
        assert_eq!(all("", limit).await, ["a/", "b", "c/", "d/", "e"], "{limit}");
        assert_eq!(all("c%2F", limit).await, ["c/", "c/d/"], "{limit}");
    }
}

pub async fn uploads_of_a_bucket_are_counted_and_end_with_it(world: &World) {
    for name in ["many-1", "many-2"] {
        bucket(world, name).await;
    }
    let start = async |bucket: &str| send(&world.api, Some(&world.owner), "POST", &format!("{HOST}/{bucket}/o?uploads"), &[], "").await;
    let first = start("many-1").await.good().text();
    for _ in 1..1000 {
        start("many-1").await.good();
    }
    assert_eq!(start("many-1").await.status, 429);
    start("many-2").await.good();
    let id = first.split("<UploadId>").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
    let part = async || send(&world.api, Some(&world.owner), "PUT", &format!("{HOST}/many-1/o?partNumber=1&uploadId={id}"), &[], "x").await.status;
    assert_eq!(part().await, 200);
    send(&world.api, Some(&world.owner), "DELETE", &format!("{HOST}/storage/v1/b/many-1"), &[], "").await.good();
    bucket(world, "many-1").await;
    assert_eq!(part().await, 404);
}

pub async fn a_batch_is_many_calls(world: &World) {
    bucket(world, "batch-1").await;
    for name in ["a", "b"] {
        object(world, "batch-1", name, "x").await;
    }
    let part = |id: &str, call: &str| format!("--x\r\nContent-Type: application/http\r\nContent-ID: <{id}>\r\n\r\n{call}\r\n");
    let patch = "PATCH /storage/v1/b/batch-1/o/a HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{\"contentType\":\"text/html\"}";
    let body = part("u+1", patch)
        + &part("u+2", "DELETE /storage/v1/b/batch-1/o/b HTTP/1.1\r\n\r\n")
        + &part("u+3", "GET /storage/v1/b/batch-1/o/b HTTP/1.1\r\n\r\n")
        + "--x--";
    let batch = async |token: Option<&str>| {
        let headers = [("content-type", "multipart/mixed; boundary=\"x\"")];
        send(&world.api, token, "POST", &format!("{HOST}/batch/storage/v1"), &headers, body.clone()).await.good().text()
    };
    let statuses = |text: &str| text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse::<u16>().ok()).collect::<Vec<_>>();
    // Each call is asked who makes it.
    assert_eq!(statuses(&batch(None).await), [401, 401, 401]);
    assert_eq!(statuses(&batch(Some(&world.stranger)).await), [403, 403, 403]);
    let answers = batch(Some(&world.owner)).await;
    assert_eq!(statuses(&answers), [200, 204, 404]);
    assert!(answers.contains("Content-ID: <response-u+1>") && answers.contains("\"contentType\": \"text/html\""), "{answers}");
}
