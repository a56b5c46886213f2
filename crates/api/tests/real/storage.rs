//! Storage JSON v1: buckets and objects, as the Google Cloud CLI and Google's libraries ask for them.

use serde_json::{Value as Json, json};

use crate::{
    http::{Answer, JSON, send},
    world::{PROJECT, World},
};

const HOST: &str = "https://storage.googleapis.com";

async fn call(world: &World, method: &str, path: &str, body: Json) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(&world.api, Some(&world.owner), method, &format!("{HOST}{path}"), &[JSON], body).await
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(&world.api, Some(&world.owner), "GET", &format!("{HOST}{path}"), headers, "").await
}

pub async fn bucket(world: &World, name: &str) {
    call(world, "POST", &format!("/storage/v1/b?project={PROJECT}"), json!({ "name": name })).await.good();
}

/// An object by a simple upload.
pub async fn object(world: &World, bucket: &str, name: &str, bytes: &str) -> Json {
    let path = format!("{HOST}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}");
    send(&world.api, Some(&world.owner), "POST", &path, &[("content-type", "text/plain")], bytes.to_owned()).await.good().json()
}

pub async fn java_packs_bodies_and_names_methods(world: &World) {
    let packed = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let owner = Some(world.owner.as_str());
    let gzip = ("content-encoding", "gzip");
    let name = json!({ "name": "packed" }).to_string();
    send(&world.api, owner, "POST", &format!("{HOST}/storage/v1/b?project={PROJECT}"), &[JSON, gzip], packed(&name)).await.good();
    let parts = "--b\r\ncontent-type: application/json\r\n\r\n{\"name\":\"o\"}\r\n--b\r\ncontent-type: text/plain\r\n\r\nhello\r\n--b--\r\n";
    let multipart = ("content-type", "multipart/related; boundary=b");
    let upload = format!("{HOST}/upload/storage/v1/b/packed/o?uploadType=multipart");
    let made = send(&world.api, owner, "POST", &upload, &[multipart, gzip], packed(parts)).await.good().json();
    assert_eq!((&made["size"], &made["contentEncoding"]), (&json!("5"), &Json::Null));
    assert_eq!(send(&world.api, owner, "POST", &upload, &[multipart, ("content-encoding", "br")], parts.to_owned()).await.status, 400);
    let patch = ("x-http-method-override", "PATCH");
    let labels = json!({ "labels": { "by": "java" } }).to_string();
    let patched = send(&world.api, owner, "POST", &format!("{HOST}/storage/v1/b/packed"), &[JSON, patch, gzip], packed(&labels)).await.good().json();
    assert_eq!(patched["labels"]["by"], "java");
    // The method that is meant is the one that is allowed.
    assert_eq!(send(&world.api, None, "POST", &format!("{HOST}/storage/v1/b/packed"), &[("x-http-method-override", "DELETE")], "").await.status, 401);
    // No bomb: what is unpacked is bounded as what comes plain is.
    let bomb = packed(&format!("{{\"name\":\"{}\"}}", "x".repeat(64 << 20)));
    let refused = send(&world.api, owner, "POST", &format!("{HOST}/storage/v1/b?project={PROJECT}"), &[JSON, gzip], bomb).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("Request payload size exceeds the limit"), "{}", refused.text());
}

/// The requests of `gcloud run deploy --source`, in order.
pub async fn a_source_deploy_uploads_its_archive(world: &World) {
    let bucket = format!("run-sources-{PROJECT}-asia-northeast1");
    let name = "services/sample-function-1/1795501213.369317-224437a1bb94496e9e13df50810e6b78.zip";
    let absent = get(world, &format!("/storage/v1/b/{bucket}?alt=json"), &[]).await;
    assert_eq!(absent.reason(), (404, "notFound".to_owned()));
    let body = json!({
        "cors": [{ "method": ["GET"], "origin": ["https://*.cloud.google.com"] }],
        "iamConfiguration": { "uniformBucketLevelAccess": { "enabled": true } }, "location": "asia-northeast1", "name": bucket,
    });
    let made = call(world, "POST", &format!("/storage/v1/b?alt=json&enableObjectRetention=False&project={PROJECT}"), body.clone()).await.good().json();
    assert_eq!((&made["cors"], &made["location"], &made["metageneration"]), (&body["cors"], &json!("ASIA-NORTHEAST1"), &json!("1")));
    assert_eq!(call(world, "POST", &format!("/storage/v1/b?project={PROJECT}"), body).await.reason(), (409, "conflict".to_owned()));
    // The ownership check of the second deploy.
    let listed = get(world, &format!("/storage/v1/b?prefix={bucket}&project={PROJECT}"), &[]).await.good().json();
    assert_eq!(listed["items"][0]["name"], bucket);

    let archive = b"PK\x03\x04 not\r\n--=a zip\n\r".to_vec();
    let mut body = b"--===1==\nContent-Type: application/json\nMIME-Version: 1.0\n\n{\"size\": \"22\"}\n--===1==\nContent-Type: application/zip\nMIME-Version: 1.0\nContent-Transfer-Encoding: binary\n\n".to_vec();
    body.extend_from_slice(&archive);
    body.extend_from_slice(b"\n--===1==--\n");
    let path = format!("{HOST}/upload/storage/v1/b/{bucket}/o?alt=json&name={}&uploadType=multipart", name.replace('/', "%2F"));
    let kind = ("content-type", "multipart/related; boundary='===1=='");
    let object = send(&world.api, Some(&world.owner), "POST", &path, &[kind], body).await.good().json();
    assert_eq!((&object["name"], &object["bucket"], &object["contentType"]), (&json!(name), &json!(bucket), &json!("application/zip")));
    let media = get(world, object["mediaLink"].as_str().unwrap().strip_prefix(HOST).unwrap(), &[]).await.good();
    assert_eq!(media.body, archive);
    assert_eq!(media.header("content-type"), "application/zip");
    assert_eq!(media.header("x-goog-generation"), object["generation"].as_str().unwrap());
}

pub async fn bytes_are_read_whole_and_in_part(world: &World) {
    bucket(world, "read-1").await;
    let object = object(world, "read-1", "a%20b%2Fc", "0123456789").await;
    let path = "/storage/v1/b/read-1/o/a%20b%2Fc";
    let metadata = get(world, &format!("{path}?fields=bucket,name,size,generation&projection=noAcl"), &[]).await.good().json();
    assert_eq!(metadata, json!({ "bucket": "read-1", "name": "a b/c", "size": "10", "generation": object["generation"] }));
    let check = async |range: &str, status: u16, body: &str, content_range: &str| {
        let answer = get(world, &format!("{path}?alt=media"), &[("range", range)]).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-range")), (status, content_range), "{range}");
        if status != 416 {
            assert_eq!((answer.text().as_str(), answer.header("content-length")), (body, body.len().to_string().as_str()), "{range}");
        }
    };
    check("bytes=0-3", 206, "0123", "bytes 0-3/10").await;
    check("bytes=7-", 206, "789", "bytes 7-9/10").await;
    check("bytes=-2", 206, "89", "bytes 8-9/10").await;
    check("bytes=0-1,3-4", 200, "0123456789", "").await;
    check("bytes=10-", 416, "", "bytes */10").await;
    let whole = get(world, &format!("/download{path}?alt=media"), &[]).await.good();
    assert_eq!(whole.header("x-goog-hash"), format!("crc32c={},md5={}", object["crc32c"].as_str().unwrap(), object["md5Hash"].as_str().unwrap()));
    // Known values of "0123456789".
    assert_eq!((&object["crc32c"], &object["md5Hash"]), (&json!("KAwGng=="), &json!("eB5eJF1ptWaXm4bijSPyxw==")));
}

pub async fn links_begin_as_the_request_came(world: &World) {
    bucket(world, "links-1").await;
    for base in ["https://storage.googleapis.com", "https://127.0.0.1:8443", "http://127.0.0.1:8080", "http://storage.googleapis.com"] {
        let upload = format!("{base}/upload/storage/v1/b/links-1/o?name=o&uploadType=");
        let made = send(&world.api, Some(&world.owner), "POST", &format!("{upload}media"), &[("content-type", "text/plain")], "x").await.good().json();
        let session = send(&world.api, Some(&world.owner), "POST", &format!("{upload}resumable"), &[JSON], "{}").await.good();
        for link in [made["mediaLink"].as_str().unwrap(), session.header("location")] {
            assert!(link.starts_with(&format!("{base}/")), "{base}: {link}");
        }
        // Google's own name, whoever asks.
        assert!(made["selfLink"].as_str().unwrap().starts_with("https://www.googleapis.com/storage/v1/b/links-1/o/o"), "{made:#}");
    }
}

pub async fn preconditions_are_kept(world: &World) {
    bucket(world, "conditions-1").await;
    let first = object(world, "conditions-1", "o", "one").await;
    let generation = first["generation"].as_str().unwrap();
    let path = "/storage/v1/b/conditions-1/o/o";
    let upload = async |query: &str| {
        let url = format!("{HOST}/upload/storage/v1/b/conditions-1/o?uploadType=media&name=o&{query}");
        send(&world.api, Some(&world.owner), "POST", &url, &[], "two").await
    };
    assert_eq!(upload("ifGenerationMatch=0").await.reason(), (412, "conditionNotMet".to_owned()));
    assert_eq!(upload("ifGenerationMatch=1").await.reason(), (412, "conditionNotMet".to_owned()));
    assert_eq!(get(world, &format!("{path}?ifGenerationNotMatch={generation}"), &[]).await.reason(), (304, String::new()));
    assert_eq!(get(world, &format!("{path}?alt=media&ifMetagenerationMatch=7"), &[]).await.reason().0, 412);
    assert_eq!(get(world, &format!("{path}?generation=1"), &[]).await.reason(), (404, "notFound".to_owned()));
    assert_eq!(call(world, "DELETE", &format!("{path}?ifGenerationMatch=1"), Json::Null).await.reason().0, 412);
    let second = upload(&format!("ifGenerationMatch={generation}")).await.good().json();
    assert!(second["generation"].as_str().unwrap().parse::<i64>().unwrap() > generation.parse::<i64>().unwrap());
    assert_eq!(get(world, &format!("{path}?alt=media"), &[]).await.good().text(), "two");
    assert_eq!(call(world, "DELETE", path, Json::Null).await.status, 204);
    assert_eq!(call(world, "DELETE", path, Json::Null).await.reason(), (404, "notFound".to_owned()));
}

pub async fn claimed_hashes_must_be_right(world: &World) {
    bucket(world, "hashes-1").await;
    let upload = async |name: &str, value: &str| {
        let url = format!("{HOST}/upload/storage/v1/b/hashes-1/o?uploadType=media&name=o");
        send(&world.api, Some(&world.owner), "POST", &url, &[(name, value)], "0123456789").await
    };
    upload("x-goog-hash", "crc32c=KAwGng==,md5=eB5eJF1ptWaXm4bijSPyxw==").await.good();
    assert_eq!(upload("x-goog-hash", "crc32c=AAAAAA==").await.reason(), (400, "invalid".to_owned()));
    assert_eq!(upload("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==").await.reason(), (400, "invalid".to_owned()));
    assert_eq!(upload("x-goog-encryption-key", "k").await.reason(), (400, "invalidParameter".to_owned()));
    assert_eq!(upload("content-encoding", "br").await.reason(), (400, "invalidParameter".to_owned()));
    // Said to be packed, and it is not.
    assert_eq!(upload("content-encoding", "gzip").await.reason(), (400, "invalid".to_owned()));
}

pub async fn objects_are_listed(world: &World) {
    bucket(world, "list-1").await;
    for name in ["a", "d%2F1", "d%2F2", "e"] {
        object(world, "list-1", name, "x").await;
    }
    let list = async |query: &str| get(world, &format!("/storage/v1/b/list-1/o?{query}"), &[]).await.good().json();
    let asked = "alt=json&fields=prefixes,items/name,items/size,nextPageToken&delimiter=/&includeFoldersAsPrefixes=True&maxResults=1000&projection=noAcl";
    assert_eq!(list(asked).await, json!({ "prefixes": ["d/"], "items": [{ "name": "a", "size": "1" }, { "name": "e", "size": "1" }] }));
    assert_eq!(list("fields=items/name&prefix=d/").await, json!({ "items": [{ "name": "d/1" }, { "name": "d/2" }] }));
    let first = list("maxResults=2&fields=items/name,nextPageToken").await;
    let second = list(&format!("maxResults=2&fields=items/name,nextPageToken&pageToken={}", first["nextPageToken"].as_str().unwrap())).await;
    assert_eq!((&first["items"], second), (&json!([{ "name": "a" }, { "name": "d/1" }]), json!({ "items": [{ "name": "d/2" }, { "name": "e" }] })));
    assert_eq!(list("matchGlob=**%2F%5B1-2%5D&fields=items/name&maxResults=1").await, json!({ "items": [{ "name": "d/1" }] }));
    assert_eq!(list("prefix=nothing").await, json!({ "kind": "storage#objects" }));
    for refused in ["versions=maybe", "softDeleted=true&versions=true", "matchGlob=%7Ba", "pageToken=!"] {
        assert_eq!(get(world, &format!("/storage/v1/b/list-1/o?{refused}"), &[]).await.status, 400, "{refused}");
    }
}

/// The requests of `gcloud storage rm -r gs://BUCKET`, in order.
pub async fn a_bucket_goes_with_all_that_is_in_it(world: &World) {
    bucket(world, "rm-1").await;
    for name in ["top", "d%2F1", "d%2F2"] {
        object(world, "rm-1", name, "x").await;
    }
    let fields = "fields=prefixes%2Citems%2Fname%2Citems%2Fsize%2Citems%2Fgeneration%2CnextPageToken";
    let versions = format!("/storage/v1/b/rm-1/o?alt=json&{fields}&maxResults=2&projection=noAcl&versions=True");
    let mut path = versions.clone();
    let mut removed = Vec::new();
    // Deleted while the list is still read, as gcloud does.
    loop {
        let page = get(world, &path, &[]).await.good().json();
        for item in page["items"].as_array().unwrap() {
            let (name, generation) = (item["name"].as_str().unwrap(), item["generation"].as_str().unwrap());
            let object = format!("/storage/v1/b/rm-1/o/{}?alt=json&generation={generation}", name.replace('/', "%2F"));
            assert_eq!(call(world, "DELETE", &object, Json::Null).await.status, 204, "{object}");
            removed.push(name.to_owned());
        }
        match page["nextPageToken"].as_str() {
            Some(next) => path = format!("{versions}&pageToken={next}"),
            None => break,
        }
    }
    assert_eq!(removed, ["d/1", "d/2", "top"]);
    let layout = get(world, "/storage/v1/b/rm-1/storageLayout?alt=json", &[]).await.good().json();
    assert_eq!(layout["hierarchicalNamespace"]["enabled"], false);
    let rest = get(world, "/storage/v1/b/rm-1/o?alt=json&maxResults=1000&projection=noAcl", &[]).await.good().json();
    assert_eq!(rest, json!({ "kind": "storage#objects" }));
    // Google's default: what is deleted can be restored for seven days.
    let deleted = get(world, "/storage/v1/b/rm-1/o?softDeleted=true&fields=items/name", &[]).await.good().json();
    assert_eq!(deleted, json!({ "items": [{ "name": "d/1" }, { "name": "d/2" }, { "name": "top" }] }));
    get(world, "/storage/v1/b/rm-1/managedFolders?alt=json&pageSize=1000", &[]).await.good();
    assert_eq!(call(world, "DELETE", "/storage/v1/b/rm-1?alt=json", Json::Null).await.status, 204);
    assert_eq!(get(world, "/storage/v1/b/rm-1?alt=json", &[]).await.status, 404);
}

pub async fn metadata_changes_and_bytes_stay(world: &World) {
    bucket(world, "patch-1").await;
    object(world, "patch-1", "o", "x").await;
    let path = "/storage/v1/b/patch-1/o/o";
    let patched = call(world, "PATCH", path, json!({ "contentType": "text/html", "metadata": { "a": "1", "b": "2" } })).await.good().json();
    assert_eq!((&patched["contentType"], &patched["metageneration"], &patched["metadata"]), (&json!("text/html"), &json!("2"), &json!({ "a": "1", "b": "2" })));
    let patched = call(world, "PATCH", path, json!({ "metadata": { "a": null }, "cacheControl": "no-store" })).await.good().json();
    assert_eq!((&patched["metadata"], &patched["contentType"]), (&json!({ "b": "2" }), &json!("text/html")));
    assert_eq!(call(world, "PATCH", &format!("{path}?ifMetagenerationMatch=1"), json!({})).await.reason().0, 412);
    assert_eq!(call(world, "PATCH", path, json!({ "kmsKeyName": "k" })).await.reason(), (400, "invalidParameter".to_owned()));
    let updated = call(world, "PUT", path, json!({ "contentType": "text/plain" })).await.good().json();
    assert_eq!((updated.get("metadata"), updated.get("cacheControl")), (None, None));
    let media = get(world, &format!("{path}?alt=media"), &[]).await.good();
    assert_eq!(
        (media.text().as_str(), media.header("content-type"), media.header("content-security-policy")),
        ("x", "text/plain", "sandbox; default-src 'none'")
    );
}

pub async fn objects_are_made_of_objects(world: &World) {
    bucket(world, "copy-1").await;
    bucket(world, "copy-2").await;
    object(world, "copy-1", "one", "Hello ").await;
    object(world, "copy-1", "two", "World").await;
    let read = async |path: &str| get(world, &format!("{path}?alt=media"), &[]).await.good().text();
    let rewritten =
        call(world, "POST", "/storage/v1/b/copy-1/o/one/rewriteTo/b/copy-2/o/x%2Fy?maxBytesRewrittenPerCall=1048576", json!({})).await.good().json();
    assert_eq!(
        (&rewritten["done"], &rewritten["totalBytesRewritten"], &rewritten["resource"]["contentType"]),
        (&json!(true), &json!("6"), &json!("text/plain"))
    );
    assert_eq!(read("/storage/v1/b/copy-2/o/x%2Fy").await, "Hello ");
    let copied = call(world, "POST", "/storage/v1/b/copy-1/o/one/copyTo/b/copy-2/o/z", json!({ "contentType": "text/html" })).await.good().json();
    assert_eq!((&copied["name"], &copied["contentType"]), (&json!("z"), &json!("text/html")));
    let compose = json!({ "sourceObjects": [{ "name": "one" }, { "name": "two" }], "destination": { "contentType": "text/plain" } });
    let composed = call(world, "POST", "/storage/v1/b/copy-1/o/both/compose", compose).await.good().json();
    assert_eq!((&composed["size"], read("/storage/v1/b/copy-1/o/both").await.as_str()), (&json!("11"), "Hello World"));
    for (path, body, status) in [
        ("/storage/v1/b/copy-1/o/both/compose", json!({ "sourceObjects": [] }), 400),
        ("/storage/v1/b/copy-1/o/both/compose", json!({ "sourceObjects": [{ "name": "absent" }] }), 404),
        ("/storage/v1/b/copy-1/o/absent/rewriteTo/b/copy-2/o/q", json!({}), 404),
        ("/storage/v1/b/copy-1/o/one/rewriteTo/b/copy-2/o/q?rewriteToken=x", json!({}), 400),
        ("/storage/v1/b/copy-1/o/one/rewriteTo/b/copy-2/o/q?ifSourceGenerationMatch=1", json!({}), 412),
    ] {
        assert_eq!(call(world, "POST", path, body).await.status.as_u16(), status, "{path}");
    }
}

pub async fn an_object_is_moved(world: &World) {
    bucket(world, "move-1").await;
    object(world, "move-1", "one", "1").await;
    object(world, "move-1", "two", "2").await;
    let at = |from: &str, to: &str, query: &str| format!("/storage/v1/b/move-1/o/{from}/moveTo/o/{to}{query}");
    let before = get(world, "/storage/v1/b/move-1/o/one", &[]).await.good().json();
    for (path, body, status) in [
        (at("one", "one", ""), json!({}), 400),
        (at("one", "three", "?sourceGeneration=1"), json!({}), 400),
        (at("one", "three", ""), json!({ "contentType": "a/b" }), 400),
        (at("absent", "three", ""), json!({}), 404),
        (at("one", "two", "?ifGenerationMatch=0"), json!({}), 412),
        (at("one", "three", "?ifGenerationNotMatch=0"), json!({}), 412),
        (at("one", "three", "?ifSourceGenerationMatch=1"), json!({}), 412),
        (at("one", "three", "?ifSourceMetagenerationNotMatch=1"), json!({}), 412),
    ] {
        assert_eq!(call(world, "POST", &path, body).await.status.as_u16(), status, "{path}");
    }
    let query = format!("?ifSourceGenerationMatch={}&ifGenerationMatch=0", before["generation"].as_str().unwrap());
    let moved = call(world, "POST", &at("one", "a%2Fthree", &query), json!({})).await.good().json();
    assert_eq!((&moved["name"], &moved["md5Hash"], &moved["metageneration"]), (&json!("a/three"), &before["md5Hash"], &json!("1")));
    assert_ne!(moved["generation"], before["generation"]);
    assert_eq!(get(world, "/storage/v1/b/move-1/o/one", &[]).await.status, 404);
    call(world, "POST", &at("a%2Fthree", "two", ""), json!({})).await.good();
    assert_eq!(get(world, "/storage/v1/b/move-1/o/two?alt=media", &[]).await.good().text(), "1");
    let listed = get(world, "/storage/v1/b/move-1/o?fields=items(name)", &[]).await.good().json();
    assert_eq!(listed, json!({ "items": [{ "name": "two" }] }));
}

pub async fn a_bucket_is_changed_and_goes(world: &World) {
    bucket(world, "bucket-1").await;
    let path = "/storage/v1/b/bucket-1";
    let patched = call(world, "PATCH", path, json!({ "labels": { "a": "1" }, "versioning": { "enabled": false } })).await.good().json();
    assert_eq!((&patched["labels"], &patched["metageneration"]), (&json!({ "a": "1" }), &json!("2")));
    assert_eq!(
        call(world, "PATCH", path, json!({ "lifecycle": { "rule": [{ "action": { "type": "Delete" } }] } })).await.reason(),
        (400, "invalid".to_owned())
    );
    assert_eq!(call(world, "PATCH", &format!("{path}?predefinedAcl=private"), json!({})).await.reason(), (400, "invalidParameter".to_owned()));
    let layout = get(world, &format!("{path}/storageLayout"), &[]).await.good().json();
    assert_eq!(layout["hierarchicalNamespace"], json!({ "enabled": false }));
    object(world, "bucket-1", "o", "x").await;
    assert_eq!(call(world, "DELETE", path, Json::Null).await.reason(), (409, "conflict".to_owned()));
    call(world, "DELETE", &format!("{path}/o/o"), Json::Null).await.good();
    assert_eq!(call(world, "DELETE", &format!("{path}?ifMetagenerationMatch=9"), Json::Null).await.reason().0, 412);
    assert_eq!(call(world, "DELETE", path, Json::Null).await.status, 204);
    assert_eq!(get(world, path, &[]).await.reason(), (404, "notFound".to_owned()));
    for name in ["a", "Upper", "goog-1", "192.168.1.1"] {
        assert_eq!(call(world, "POST", &format!("/storage/v1/b?project={PROJECT}"), json!({ "name": name })).await.status, 400, "{name}");
    }
}

pub async fn who_may_read_and_write(world: &World) {
    bucket(world, "access-1").await;
    object(world, "access-1", "o", "secret").await;
    let read = async |token: Option<&str>| send(&world.api, token, "GET", &format!("{HOST}/storage/v1/b/access-1/o/o?alt=media"), &[], "").await;
    let write = async |token: Option<&str>| {
        send(&world.api, token, "POST", &format!("{HOST}/upload/storage/v1/b/access-1/o?uploadType=media&name=new"), &[], "x").await
    };
    assert_eq!(read(None).await.reason(), (401, "required".to_owned()));
    assert_eq!(read(Some(&world.stranger)).await.reason(), (403, "forbidden".to_owned()));
    assert_eq!(read(Some(&world.viewer)).await.status, 200);
    assert_eq!(write(Some(&world.viewer)).await.reason(), (403, "forbidden".to_owned()));

    // A policy lets strangers read, then everyone.
    let policy = "/storage/v1/b/access-1/iam";
    let bind = async |role: &str, member: &str| call(world, "PUT", policy, json!({ "bindings": [{ "role": role, "members": [member] }] })).await;
    bind("roles/storage.objectCreator", "user:stranger@example.com").await.good();
    assert_eq!(write(Some(&world.stranger)).await.status, 200);
    // Who may create may not overwrite, and not know what is there.
    assert_eq!(write(Some(&world.stranger)).await.reason(), (403, "forbidden".to_owned()));
    bind("roles/storage.objectViewer", "allUsers").await.good();
    assert_eq!(read(None).await.text(), "secret");
    assert_eq!(get(world, policy, &[]).await.good().json()["bindings"], json!([{ "role": "roles/storage.objectViewer", "members": ["allUsers"] }]));
    let tested = send(
        &world.api,
        Some(&world.stranger),
        "GET",
        &format!("{HOST}{policy}/testPermissions?permissions=storage.objects.get&permissions=storage.objects.create"),
        &[],
        "",
    )
    .await;
    assert_eq!(tested.good().json()["permissions"], json!(["storage.objects.get"]));

    // Public access prevention.
    let enforce = json!({ "iamConfiguration": { "publicAccessPrevention": "enforced" } });
    assert_eq!(call(world, "PATCH", "/storage/v1/b/access-1", enforce.clone()).await.reason(), (412, "conditionNotMet".to_owned()));
    bind("roles/storage.objectViewer", "user:viewer@example.com").await.good();
    call(world, "PATCH", "/storage/v1/b/access-1", enforce).await.good();
    assert_eq!(bind("roles/storage.objectViewer", "allUsers").await.reason(), (412, "conditionNotMet".to_owned()));
    assert_eq!(read(None).await.reason().0, 401);
}

pub async fn a_packed_object_is_unpacked_for_who_cannot(world: &World) {
    bucket(world, "gzip-1").await;
    let text = "line of text\n".repeat(50_000);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, text.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let url = format!("{HOST}/upload/storage/v1/b/gzip-1/o?uploadType=media&name=o&contentEncoding=gzip");
    send(&world.api, Some(&world.owner), "POST", &url, &[], packed.clone()).await.good();
    let path = "/storage/v1/b/gzip-1/o/o?alt=media";
    let plain = get(world, path, &[]).await.good();
    assert_eq!((plain.text() == text, plain.header("content-encoding")), (true, ""));
    let as_stored = get(world, path, &[("accept-encoding", "gzip")]).await.good();
    assert_eq!((as_stored.body == packed, as_stored.header("content-encoding")), (true, "gzip"));
}

pub async fn versions_and_what_was_deleted_are_there(world: &World) {
    let made = call(world, "POST", &format!("/storage/v1/b?project={PROJECT}"), json!({ "name": "versions-1", "versioning": { "enabled": true } })).await;
    let made = made.good().json();
    assert_eq!((&made["softDeletePolicy"]["retentionDurationSeconds"], &made["versioning"]["enabled"]), (&json!("604800"), &json!(true)));
    let first = object(world, "versions-1", "o", "one").await;
    let second = object(world, "versions-1", "o", "two").await;
    let generation = |object: &Json| object["generation"].as_str().unwrap().to_owned();
    let path = "/storage/v1/b/versions-1/o/o";
    let old = format!("{path}?generation={}", generation(&first));
    assert_eq!(get(world, &format!("{old}&alt=media"), &[]).await.good().text(), "one");
    assert!(get(world, &old, &[]).await.good().json()["timeDeleted"].is_string());
    let list = async |query: &str| {
        let items = get(world, &format!("/storage/v1/b/versions-1/o?fields=items(generation)&{query}"), &[]).await.good().json();
        items["items"].as_array().into_iter().flatten().map(generation).collect::<Vec<_>>()
    };
    assert_eq!(list("versions=true").await, [generation(&first), generation(&second)]);
    assert_eq!(list("").await, [generation(&second)]);
    assert_eq!(call(world, "DELETE", path, Json::Null).await.status, 204);
    assert_eq!((list("").await.len(), list("versions=true").await.len()), (0, 2));
    // A noncurrent version is made live by a copy, as at Google.
    let source = format!("{path}/rewriteTo/b/versions-1/o/o?sourceGeneration={}", generation(&first));
    call(world, "POST", &source, json!({})).await.good();
    assert_eq!(get(world, &format!("{path}?alt=media"), &[]).await.good().text(), "one");
    assert_eq!(call(world, "DELETE", &old, Json::Null).await.status, 204);
    assert_eq!(get(world, &old, &[]).await.status, 404);
    assert_eq!(list("softDeleted=true").await, [generation(&first)]);
    let deleted = get(world, &format!("{old}&softDeleted=true"), &[]).await.good().json();
    assert!(deleted["softDeleteTime"].is_string() && deleted["hardDeleteTime"].is_string());
    let restored = call(world, "POST", &format!("{path}/restore?generation={}", generation(&first)), json!({})).await.good().json();
    assert_eq!((&restored["metageneration"], restored.get("softDeleteTime")), (&json!("1"), None));
}

pub async fn what_is_held_stays(world: &World) {
    let body = json!({ "name": "held-1", "retentionPolicy": { "retentionPeriod": "3600" } });
    call(world, "POST", &format!("/storage/v1/b?project={PROJECT}&enableObjectRetention=true"), body).await.good();
    let made = object(world, "held-1", "o", "x").await;
    assert!(made["retentionExpirationTime"].is_string());
    let path = "/storage/v1/b/held-1/o/o";
    assert_eq!(call(world, "DELETE", path, Json::Null).await.reason(), (403, "retentionPolicyNotMet".to_owned()));
    let held = call(world, "PATCH", path, json!({ "temporaryHold": true })).await.good().json();
    assert_eq!(held["temporaryHold"], true);
    assert_eq!(call(world, "DELETE", path, Json::Null).await.reason(), (403, "objectUnderActiveHold".to_owned()));
    let locked = call(world, "POST", "/storage/v1/b/held-1/lockRetentionPolicy?ifMetagenerationMatch=1", Json::Null).await.good().json();
    assert_eq!((&locked["retentionPolicy"]["isLocked"], &locked["objectRetention"]["mode"]), (&json!(true), &json!("Enabled")));
    assert_eq!(call(world, "PATCH", "/storage/v1/b/held-1", json!({ "retentionPolicy": null })).await.reason(), (403, "forbidden".to_owned()));
    let retention = json!({ "retention": { "mode": "Unlocked", "retainUntilTime": "2999-01-01T00:00:00Z" } });
    assert_eq!(call(world, "PATCH", path, retention.clone()).await.good().json()["retention"]["mode"], "Unlocked");
    assert_eq!(call(world, "PATCH", path, json!({ "retention": null })).await.reason().0, 403);
    call(world, "PATCH", &format!("{path}?overrideUnlockedRetention=true"), json!({ "retention": null })).await.good();
    bucket(world, "held-2").await;
    object(world, "held-2", "o", "x").await;
    assert_eq!(call(world, "PATCH", "/storage/v1/b/held-2/o/o", retention).await.reason(), (400, "invalid".to_owned()));
    assert_eq!(call(world, "GET", "/storage/v1/b/held-2/acl", Json::Null).await.reason(), (400, "invalid".to_owned()));
    assert_eq!(get(world, "/storage/v1/b/held-2/notificationConfigs", &[]).await.good().json(), json!({ "kind": "storage#notifications" }));
}

pub async fn a_rewrite_to_another_class_takes_steps(world: &World) {
    for name in ["steps-1", "steps-2"] {
        bucket(world, name).await;
    }
    let bytes = "x".repeat(5 << 19);
    object(world, "steps-1", "o", &bytes).await;
    let path = "/storage/v1/b/steps-1/o/o/rewriteTo/b/steps-2/o/o?maxBytesRewrittenPerCall=1048576";
    let body = json!({ "storageClass": "NEARLINE" });
    assert_eq!(call(world, "POST", "/storage/v1/b/steps-1/o/o/rewriteTo/b/steps-2/o/o?maxBytesRewrittenPerCall=1", body.clone()).await.status, 400);
    let (mut answer, mut calls) = (call(world, "POST", path, body.clone()).await.good().json(), 1);
    while answer["done"] == false {
        let token = answer["rewriteToken"].as_str().unwrap().to_owned();
        assert_eq!(call(world, "POST", &format!("{path}x&rewriteToken={token}"), body.clone()).await.status, 400);
        answer = call(world, "POST", &format!("{path}&rewriteToken={token}"), body.clone()).await.good().json();
        calls += 1;
    }
    assert_eq!((calls, &answer["totalBytesRewritten"], &answer["resource"]["storageClass"]), (3, &json!("2621440"), &json!("NEARLINE")));
    let composed = call(world, "POST", "/storage/v1/b/steps-1/o/c/compose", json!({ "sourceObjects": [{ "name": "o" }, { "name": "o" }] })).await.good().json();
    assert_eq!((&composed["componentCount"], composed.get("md5Hash")), (&json!(2), None));
}

pub async fn a_topic_is_told_of_what_happens(world: &World) {
    bucket(world, "told-1").await;
    let pubsub = async |method: &str, path: &str, body: Json| {
        let url = format!("https://pubsub.googleapis.com/v1/projects/{PROJECT}/{path}");
        send(&world.api, Some(&world.owner), method, &url, &[JSON], body.to_string()).await
    };
    pubsub("PUT", "topics/told", json!({})).await.good();
    pubsub("PUT", "subscriptions/told", json!({ "topic": format!("projects/{PROJECT}/topics/told") })).await.good();
    let configs = "/storage/v1/b/told-1/notificationConfigs";
    let config = |topic: &str| json!({ "topic": format!("//pubsub.googleapis.com/projects/{PROJECT}/topics/{topic}"), "payload_format": "JSON_API_V1" });
    assert_eq!(call(world, "POST", configs, config("absent")).await.status, 400);
    let made = call(world, "POST", configs, config("told")).await.good().json();
    assert_eq!((&made["id"], &made["kind"]), (&json!("1"), &json!("storage#notification")));
    assert_eq!(get(world, &format!("{configs}/1"), &[]).await.good().json(), made);
    let first = object(world, "told-1", "a%2Fb", "hello").await;
    call(world, "PATCH", "/storage/v1/b/told-1/o/a%2Fb", json!({ "metadata": { "k": "v" } })).await.good();
    call(world, "DELETE", "/storage/v1/b/told-1/o/a%2Fb", Json::Null).await.good();
    let mut told = Vec::new();
    while told.len() < 3 {
        let pulled = pubsub("POST", "subscriptions/told:pull", json!({ "maxMessages": 10 })).await.good().json();
        let received = pulled["receivedMessages"].as_array().cloned().unwrap_or_default();
        let acks: Vec<&Json> = received.iter().map(|received| &received["ackId"]).collect();
        if !acks.is_empty() {
            pubsub("POST", "subscriptions/told:acknowledge", json!({ "ackIds": acks })).await.good();
        }
        told.extend(received.iter().map(|received| received["message"].clone()));
    }
    let kinds: Vec<&str> = told.iter().filter_map(|message| message["attributes"]["eventType"].as_str()).collect();
    assert_eq!(kinds, ["OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE", "OBJECT_DELETE"]);
    assert_eq!((&told[0]["attributes"]["objectId"], &told[0]["attributes"]["objectGeneration"]), (&json!("a/b"), &first["generation"]));
    assert_eq!(call(world, "DELETE", &format!("{configs}/1"), Json::Null).await.status, 204);
    assert_eq!(get(world, &format!("{configs}/1"), &[]).await.status, 404);
}

/// Somebody sets a policy while the bucket is being deleted: who makes the next bucket of the name does not let them in.
pub async fn a_policy_of_a_deleted_bucket_is_not_the_next_ones(world: &World) {
    bucket(world, "late-1").await;
    call(world, "DELETE", "/storage/v1/b/late-1", Json::Null).await.good();
    let member = model::policy::Member::User("stranger@example.com".to_owned());
    let binding = model::policy::Binding::new("roles/storage.objectViewer", vec![member]);
    let late = model::policy::Policy { bindings: vec![binding] };
    world.iam.policy_set("buckets/late-1", late.clone(), "").await.unwrap();
    bucket(world, "late-1").await;
    object(world, "late-1", "o", "x").await;
    assert_eq!(world.iam.policy_get("buckets/late-1").unwrap().policy.bindings, []);
    let read = send(&world.api, Some(&world.stranger), "GET", &format!("{HOST}/storage/v1/b/late-1/o/o"), &[], "").await;
    assert_eq!(read.status, 403);
    // The same of topics.
    let topic = format!("projects/{PROJECT}/topics/late");
    world.iam.policy_set(&topic, late, "").await.unwrap();
    send(&world.api, Some(&world.owner), "PUT", &format!("https://pubsub.googleapis.com/v1/{topic}"), &[JSON], "{}").await.good();
    assert_eq!(world.iam.policy_get(&topic).unwrap().policy.bindings, []);
}
