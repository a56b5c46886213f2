//! Defaults and limits of Cloud Storage, one a row: what is at the limit is taken, what is past it is refused.
//!
//! The numbers are Google's (cloud.google.com/storage/quotas and the pages of each feature), but those that COMPATIBILITY.md calls this server's own.

use serde_json::{Value as Json, json};

use crate::{
    http::{Answer, JSON, send},
    storage::{bucket, object},
    world::{PROJECT, World},
};

const HOST: &str = "https://storage.googleapis.com";
const B: &str = "/storage/v1/b";

async fn ask(world: &World, method: &str, path: &str, body: Json) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(&world.api, Some(&world.owner), method, &format!("{HOST}{path}"), &[JSON], body).await
}

pub async fn every_default(world: &World) {
    bucket(world, "defaults-1").await;
    object(world, "defaults-1", "o", "x").await;
    let made = ask(world, "GET", &format!("{B}/defaults-1"), Json::Null).await.good().json();
    let put = ask(world, "GET", &format!("{B}/defaults-1/o/o"), Json::Null).await.good().json();
    for (what, found, expect) in [
        ("location", &made["location"], json!("US")),
        ("kind of location", &made["locationType"], json!("multi-region")),
        ("storage class", &made["storageClass"], json!("STANDARD")),
        ("soft deletion, seconds", &made["softDeletePolicy"]["retentionDurationSeconds"], json!("604800")),
        ("uniform access", &made["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"], json!(true)),
        ("public access prevention", &made["iamConfiguration"]["publicAccessPrevention"], json!("inherited")),
        ("versioning", &made["versioning"], Json::Null),
        ("retention", &made["retentionPolicy"], Json::Null),
        ("lifecycle", &made["lifecycle"], Json::Null),
        ("CORS", &made["cors"], Json::Null),
        ("labels", &made["labels"], Json::Null),
        ("hold of new objects", &made["defaultEventBasedHold"], Json::Null),
        ("metageneration of a bucket", &made["metageneration"], json!("1")),
        ("metageneration of an object", &put["metageneration"], json!("1")),
        ("storage class of an object", &put["storageClass"], json!("STANDARD")),
        ("hold of an object", &put["temporaryHold"], Json::Null),
    ] {
        assert_eq!(*found, expect, "{what}: {made} {put}");
    }
}

pub async fn every_limit_of_a_bucket(world: &World) {
    let create = format!("{B}?project={PROJECT}");
    for (length, status) in [(2, 400), (3, 200), (63, 200), (64, 400)] {
        assert_eq!(ask(world, "POST", &create, json!({ "name": "l".repeat(length) })).await.status, status, "a name of {length}");
    }
    for (length, status) in [(222, 200), (223, 400)] {
        let mut name = ["m".repeat(63), "m".repeat(63), "m".repeat(63)].join(".");
        name.push('.');
        name.push_str(&"m".repeat(length - name.len()));
        assert_eq!(ask(world, "POST", &create, json!({ "name": name })).await.status, status, "a name with dots of {length}");
    }
    bucket(world, "limits-1").await;
    let labels = |count: usize| json!({ "labels": (0..count).map(|n| (format!("l{n}"), "v".into())).collect::<serde_json::Map<_, Json>>() });
    let rules = |count: usize| json!({ "lifecycle": { "rule": vec![json!({ "action": { "type": "Delete" }, "condition": { "age": 1 } }); count] } });
    let affixes = |count: usize| {
        let prefixes: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
        json!({ "lifecycle": { "rule": [{ "action": { "type": "Delete" }, "condition": { "age": 1, "matchesPrefix": prefixes } }] } })
    };
    let soft = |seconds: u64| json!({ "softDeletePolicy": { "retentionDurationSeconds": seconds.to_string() } });
    let retention = |seconds: u64| json!({ "retentionPolicy": { "retentionPeriod": seconds.to_string() } });
    for (what, body, status) in [
        ("64 labels", labels(64), 200),
        ("65 labels", labels(65), 400),
        ("100 rules", rules(100), 200),
        ("101 rules", rules(101), 400),
        ("1,000 prefixes", affixes(1000), 200),
        ("1,001 prefixes", affixes(1001), 400),
        ("no soft deletion", soft(0), 200),
        ("a second of it", soft(1), 400),
        ("a second less than 7 days", soft(604_799), 400),
        ("7 days", soft(604_800), 200),
        ("90 days", soft(7_776_000), 200),
        ("a second more", soft(7_776_001), 400),
        ("no time of retention", retention(0), 400),
        ("a second of retention", retention(1), 200),
        ("100 years", retention(3_155_760_000), 200),
        ("a second more", retention(3_155_760_001), 400),
        ("none again", json!({ "retentionPolicy": null, "lifecycle": null }), 200),
        ("a class", json!({ "storageClass": "ARCHIVE" }), 200),
        ("no class", json!({ "storageClass": "LUKEWARM" }), 400),
    ] {
        let answer = ask(world, "PATCH", &format!("{B}/limits-1"), body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
    let topic = format!("projects/{PROJECT}/topics/limits");
    send(&world.api, Some(&world.owner), "PUT", &format!("https://pubsub.googleapis.com/v1/{topic}"), &[JSON], "{}").await.good();
    for count in 1..=101 {
        let config = json!({ "topic": format!("//pubsub.googleapis.com/{topic}"), "payload_format": "NONE" });
        let status = ask(world, "POST", &format!("{B}/limits-1/notificationConfigs"), config).await.status;
        assert_eq!(status, if count <= 100 { 200 } else { 429 }, "notification {count}");
    }
}

pub async fn every_limit_of_an_object(world: &World) {
    bucket(world, "limits-2").await;
    let upload = async |query: &str| {
        let url = format!("{HOST}/upload/storage/v1/b/limits-2/o?uploadType=media{query}");
        send(&world.api, Some(&world.owner), "POST", &url, &[("content-type", "text/plain")], "x").await.status
    };
    for (length, status) in [(0, 400), (1, 200), (1024, 200), (1025, 400)] {
        assert_eq!(upload(&format!("&name={}", "n".repeat(length))).await, status, "a name of {length}");
    }
    // Bytes count, not characters.
    assert_eq!(upload(&format!("&name={}", "%E9%96%A2".repeat(342))).await, 400);
    object(world, "limits-2", "o", "x").await;
    for (bytes, status) in [(8192, 200), (8193, 400)] {
        let body = json!({ "contentType": "", "metadata": { "k": "v".repeat(bytes - 1) } });
        assert_eq!(ask(world, "PATCH", &format!("{B}/limits-2/o/o"), body).await.status, status, "metadata of {bytes}");
    }
    for (count, status) in [(0, 400), (1, 200), (32, 200), (33, 400)] {
        let body = json!({ "sourceObjects": vec![json!({ "name": "o" }); count] });
        assert_eq!(ask(world, "POST", &format!("{B}/limits-2/o/composed/compose"), body).await.status, status, "{count} sources");
    }
    for (asked, expect) in [("", 3), ("&maxResults=0", 3), ("&maxResults=2", 2), ("&maxResults=1000", 3), ("&maxResults=5000", 3)] {
        let page = ask(world, "GET", &format!("{B}/limits-2/o?prefix=&fields=items/name{asked}"), Json::Null).await.good().json();
        // `o`, `composed` and the two names at their limits.
        assert_eq!(page["items"].as_array().unwrap().len(), expect.min(4) + usize::from(expect == 3), "{asked}");
    }
    assert_eq!(ask(world, "GET", &format!("{B}/limits-2/o?maxResults=-1"), Json::Null).await.status, 400);
    for (count, status) in [(100, 200), (101, 400)] {
        let call = "--x\r\nContent-Type: application/http\r\n\r\nGET /storage/v1/b/limits-2/o/o HTTP/1.1\r\n\r\n\r\n".repeat(count);
        let kind = ("content-type", "multipart/mixed; boundary=x");
        let answer = send(&world.api, Some(&world.owner), "POST", &format!("{HOST}/batch/storage/v1"), &[kind], format!("{call}--x--")).await;
        assert_eq!(answer.status, status, "{count} calls");
    }
}

pub async fn every_limit_of_an_upload(world: &World) {
    bucket(world, "limits-3").await;
    let owner = Some(world.owner.as_str());
    let begin = async |size: &str| {
        let url = format!("{HOST}/upload/storage/v1/b/limits-3/o?uploadType=resumable&name=r");
        send(&world.api, owner, "POST", &url, &[("x-upload-content-length", size)], "").await
    };
    // Of this server: 10 GiB.
    assert_eq!((begin("10737418240").await.status.as_u16(), begin("10737418241").await.status.as_u16()), (200, 400));
    // What is no multiple of 256 KiB is kept up to the last one.
    let session = begin("1000000").await.header("location").to_owned();
    for (sent, kept) in [(262_143, ""), (262_144, "bytes=0-262143"), (300_000, "bytes=0-262143")] {
        let first = if kept.is_empty() || sent == 262_144 { 0 } else { 262_144 };
        let range = format!("bytes {first}-{}/1000000", first + sent - 1);
        let answer = send(&world.api, None, "PUT", &session, &[("content-range", &range)], vec![b'x'; sent]).await;
        let expect = if first == 0 { kept.to_owned() } else { "bytes=0-524287".to_owned() };
        assert_eq!((answer.status.as_u16(), answer.header("range")), (308, expect.as_str()), "{sent}");
    }
    let started = send(&world.api, owner, "POST", &format!("{HOST}/limits-3/m?uploads"), &[], "").await.good().text();
    let id = started.split("<UploadId>").nth(1).and_then(|rest| rest.split('<').next()).unwrap().to_owned();
    let part = async |number: u32, size: usize| {
        let url = format!("{HOST}/limits-3/m?partNumber={number}&uploadId={id}");
        send(&world.api, owner, "PUT", &url, &[], vec![b'x'; size]).await
    };
    let mut etags = Vec::new();
    for (number, status) in [(0, 400), (1, 200), (10_000, 200), (10_001, 400)] {
        let answer = part(number, if number == 1 { 5_242_880 } else { 1 }).await;
        assert_eq!(answer.status, status, "part {number}");
        etags.push((number, answer.header("etag").to_owned()));
    }
    let complete = async |parts: &[(u32, String)]| {
        let parts: String = parts.iter().map(|(n, etag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>")).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        send(&world.api, owner, "POST", &format!("{HOST}/limits-3/m?uploadId={id}"), &[], body).await.status
    };
    let small = part(1, 5_242_879).await.header("etag").to_owned();
    assert_eq!(complete(&[(1, small), etags[2].clone()]).await, 400, "a part below 5 MiB that is not the last");
    part(1, 5_242_880).await.good();
    assert_eq!(complete(&[etags[1].clone(), etags[2].clone()]).await, 200);
}

/// How long a signed URL may live; its other rules are in `storage_xml`.
pub async fn a_signed_url_lives_seven_days_at_most(world: &World) {
    for (seconds, reason) in [("0", "no number from 1 to 604800"), ("604800", "X-Goog-Date has not the form"), ("604801", "no number from 1 to 604800")] {
        let query = format!(
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%2F20260101%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20260101&X-Goog-Expires={seconds}&X-Goog-SignedHeaders=host&X-Goog-Signature=ab"
        );
        let answer = send(&world.api, None, "GET", &format!("{HOST}/limits-9/o?{query}"), &[], "").await;
        assert!(answer.status == 400 && answer.text().contains(reason), "{seconds}: {} {}", answer.status, answer.text());
    }
}
