//! Secrets: names, versions, states, etags, ends, and that nothing of a payload is left where it can be read.

use iam::Payload;
use model::{
    Code,
    revision::{SecretMount, SecretRef},
    secret::{Replication, Secret, SecretId, SecretKey, VersionState},
};

use super::*;

fn secret_key(id: &str) -> SecretKey {
    SecretKey { project: project(), secret: SecretId::parse(id).unwrap() }
}

fn secret(id: &str) -> Secret {
    serde_json::from_value(serde_json::json!({ "key": secret_key(id), "created": "2026-01-01T00:00:00Z", "etag": 0, "replication": "Automatic" })).unwrap()
}

async fn add(plane: &Plane, id: &str, bytes: &[u8]) -> u64 {
    plane.control.secret_version_add(&secret_key(id), &Payload::new(bytes.to_vec()), None).await.unwrap().number
}

fn access(plane: &Plane, id: &str, version: &str) -> Result<Vec<u8>, (Code, String)> {
    let read = plane.control.secret_version_access(&secret_key(id), version);
    read.map(|(_, payload)| payload.as_bytes().to_vec()).map_err(|error| (error.code, error.outer))
}

fn name(plane: &Plane, rest: &str) -> String {
    format!("projects/{}/secrets/{rest}", plane.control.project_get("local-project").unwrap().number)
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_read_by_number_alias_and_latest() {
    let plane = Plane::new().await;
    plane.control.secret_create(secret("s")).await.unwrap();
    assert_eq!(access(&plane, "s", "latest"), Err((Code::NotFound, format!("Secret [{}] not found or has no versions.", name(&plane, "s")))));
    assert_eq!(access(&plane, "none", "1"), Err((Code::NotFound, format!("Secret [{}] not found.", name(&plane, "none")))));
    assert_eq!((add(&plane, "s", b"one").await, add(&plane, "s", b"two").await), (1, 2));
    plane
        .control
        .secret_update(&secret_key("s"), None, |secret| {
            secret.aliases.insert("prod".into(), 1);
            Ok(())
        })
        .await
        .unwrap();
    for (version, expect) in [("1", b"one"), ("2", b"two"), ("latest", b"two"), ("prod", b"one")] {
        assert_eq!(access(&plane, "s", version), Ok(expect.to_vec()), "{version}");
    }
    let listed: Vec<u64> = plane.control.secret_version_list(&secret_key("s")).unwrap().iter().map(|version| version.number).collect();
    assert_eq!(listed, [2, 1]);
    // Many at once: each has a number of its own.
    let added = futures_util::future::join_all((0..20).map(|_| add(&plane, "s", b"x"))).await;
    let mut numbers = added.clone();
    numbers.sort_unstable();
    assert_eq!(numbers, (3..23).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_disabled_enabled_and_destroyed() {
    let plane = Plane::new().await;
    let key = secret_key("s");
    plane.control.secret_create(secret("s")).await.unwrap();
    add(&plane, "s", b"canary-1").await;
    let disabled = plane.control.secret_version_disable(&key, "1", None).await.unwrap();
    let in_state = |state: &str| Err((Code::FailedPrecondition, format!("Secret Version [{}] is in {state} state.", name(&plane, "s/versions/1"))));
    assert_eq!(access(&plane, "s", "1"), in_state("DISABLED"));
    let stale = plane.control.secret_version_enable(&key, "1", Some(disabled.etag - 1)).await.unwrap_err();
    assert_eq!(stale.code, Code::FailedPrecondition);
    plane.control.secret_version_enable(&key, "latest", Some(disabled.etag)).await.unwrap();
    assert_eq!(access(&plane, "s", "1"), Ok(b"canary-1".to_vec()));
    let destroyed = plane.control.secret_version_destroy(&key, "1", None).await.unwrap();
    assert!(destroyed.state == VersionState::Destroyed && destroyed.destroyed.is_some());
    assert_eq!(access(&plane, "s", "1"), in_state("DESTROYED"));
    assert_eq!(plane.control.secret_version_enable(&key, "1", None).await.unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(plane.store.get(&model::key::secret_payload(&key, 1)).unwrap(), None);
    // An alias is for reading only.
    assert_eq!(plane.control.secret_version_destroy(&key, "prod", None).await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_and_checksums_have_their_limits() {
    let plane = Plane::new().await;
    plane.control.secret_create(secret("s")).await.unwrap();
    let check = async |bytes: usize, checksum: Option<i64>, field: Option<&str>| {
        let payload = Payload::new(vec![b'x'; bytes]);
        let added = plane.control.secret_version_add(&secret_key("s"), &payload, checksum).await;
        assert_eq!(added.err().map(|error| error.fields[0].field.clone()).as_deref(), field, "{bytes} {checksum:?}");
    };
    check(64 << 10, None, None).await;
    check((64 << 10) + 1, None, Some("payload.data")).await;
    check(0, Some(0), None).await;
    check(1, Some(i64::from(crc32c::crc32c(b"x"))), None).await;
    check(1, Some(1), Some("payload.data_crc32c")).await;
    check(1, Some(i64::from(crc32c::crc32c(b"x")) + (1 << 32)), Some("payload.data_crc32c")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_sets_has_its_limits() {
    let plane = Plane::new().await;
    let now = plane.world.clock.now();
    let check = async |change: &dyn Fn(&mut Secret), field: Option<&str>| {
        let mut wish = secret(&format!("s{}", uuid::Uuid::new_v4().simple()));
        change(&mut wish);
        let made = plane.control.secret_create(wish).await;
        assert_eq!(made.err().map(|error| error.fields[0].field.clone()).as_deref(), field);
    };
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    check(&|s| s.labels = (0..64).map(|n| label(&format!("k{n}"), "v")).collect(), None).await;
    check(&|s| s.labels = (0..65).map(|n| label(&format!("k{n}"), "v")).collect(), Some("secret.labels")).await;
    check(&|s| s.labels = [label("環境", "本番_1-x")].into(), None).await;
    for key in ["", "1a", "A", "a.b", &"a".repeat(64)] {
        check(&|s| s.labels = [label(key, "v")].into(), Some("secret.labels")).await;
    }
    check(&|s| s.labels = [label("k", "V")].into(), Some("secret.labels[k]")).await;
    check(&|s| s.annotations = [label("a.B-c_1", "any text: ü")].into(), None).await;
    check(&|s| s.annotations = [label("a", &"x".repeat((16 << 10) - 2))].into(), None).await;
    check(&|s| s.annotations = [label("a", &"x".repeat((16 << 10) - 1))].into(), Some("secret.annotations")).await;
    for key in ["", ".a", "a-", "a/b", &"a".repeat(64)] {
        check(&|s| s.annotations = [label(key, "v")].into(), Some("secret.annotations")).await;
    }
    check(&|s| s.expires = Some(now), Some("secret.expire_time")).await;
    check(&|s| s.expires = Some(now + Duration::from_secs(3_153_600_000 + 9000)), Some("secret.expire_time")).await;
    check(&|s| s.expires = Some(now + Duration::from_secs(3_153_600_000)), None).await;
    for (ttl_s, is_good) in [(1, false), (86_399, false), (86_400, true), (86_400_000, true), (86_400_001, false)] {
        check(&|s| s.destroy_ttl_s = ttl_s, (!is_good).then_some("secret.version_destroy_ttl")).await;
    }
    check(&|s| s.aliases = [("a".to_owned(), 1)].into(), Some("secret.version_aliases")).await;
    let replicas = Some("secret.replication.user_managed.replicas");
    let managed = |locations: &[&str]| Replication::UserManaged(locations.iter().map(|l| l.to_string()).collect());
    check(&|s| s.replication = managed(&["asia-northeast1", "us-central1"]), None).await;
    check(&|s| s.replication = managed(&[]), replicas).await;
    check(&|s| s.replication = managed(&["asia-northeast1", "asia-northeast1"]), replicas).await;
    check(&|s| s.replication = managed(&["moon"]), replicas).await;

    plane.control.secret_create(secret("s")).await.unwrap();
    assert_eq!(plane.control.secret_create(secret("s")).await.unwrap_err().outer, format!("Secret [{}] already exists.", name(&plane, "s")));
    add(&plane, "s", b"x").await;
    let alias = async |count: usize, number: u64| {
        let names: Vec<(String, u64)> = (0..count).map(|n| (format!("a{n}"), number)).collect();
        let set = |secret: &mut Secret| {
            secret.aliases = names.iter().cloned().collect();
            Ok(())
        };
        plane.control.secret_update(&secret_key("s"), None, set).await.is_ok()
    };
    assert!(alias(50, 1).await);
    assert!(!alias(51, 1).await);
    assert!(!alias(1, 2).await);
    assert!(!alias(1, 0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_was_read_before_another_is_refused() {
    let plane = Plane::new().await;
    let made = plane.control.secret_create(secret("s")).await.unwrap();
    let label = |secret: &mut Secret| {
        secret.labels.insert("a".into(), "b".into());
        Ok(())
    };
    let changed = plane.control.secret_update(&secret_key("s"), Some(made.etag), label).await.unwrap();
    // A version more is no change of the secret.
    add(&plane, "s", b"x").await;
    assert_eq!(plane.control.secret_get(&secret_key("s")).unwrap().etag, changed.etag);
    let stale = plane.control.secret_update(&secret_key("s"), Some(made.etag), label).await.unwrap_err();
    assert_eq!(stale.code, Code::FailedPrecondition);
    assert_eq!(plane.control.secret_delete(&secret_key("s"), Some(made.etag)).await.unwrap_err().code, Code::FailedPrecondition);
    plane.control.secret_delete(&secret_key("s"), Some(changed.etag)).await.unwrap();
    assert_eq!(plane.control.secret_delete(&secret_key("s"), None).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_leaves_nothing_to_a_later_one_of_its_name() {
    let plane = Plane::new().await;
    plane.control.secret_create(secret("s")).await.unwrap();
    add(&plane, "s", b"old").await;
    let sealed = plane.store.get(&model::key::secret_payload(&secret_key("s"), 1)).unwrap().unwrap();
    plane.control.secret_delete(&secret_key("s"), None).await.unwrap();
    for prefix in [model::key::SECRETS, model::key::SECRET_VERSIONS, model::key::SECRET_PAYLOADS] {
        assert!(plane.store.scan(prefix, None, 10).unwrap().is_empty(), "{prefix}");
    }
    // When it was made, and when it went.
    assert_eq!(*plane.world.policies_removed.lock(), ["projects/local-project/secrets/s"; 2]);
    plane.control.secret_create(secret("s")).await.unwrap();
    add(&plane, "s", b"new").await;
    // What was sealed for the old one does not open as the new one's.
    let old = store::Write { key: sealed.key, expect: store::Expect::Any, value: Some(sealed.value.to_vec()) };
    plane.store.commit(vec![old]).await.unwrap();
    assert_eq!(access(&plane, "s", "1").unwrap_err().0, Code::DataLoss);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_and_delayed_destructions_come_by_the_clock_and_after_a_restart() {
    let mut plane = Plane::new().await;
    let now = plane.world.clock.now();
    let day = |n: u64| now + Duration::from_secs(n * 86_400);
    plane.control.secret_create(Secret { expires: Some(day(3)), ..secret("ends") }).await.unwrap();
    plane.control.secret_create(Secret { destroy_ttl_s: 86_400, ..secret("delayed") }).await.unwrap();
    add(&plane, "ends", b"x").await;
    for _ in 0..2 {
        add(&plane, "delayed", b"x").await;
    }
    let key = secret_key("delayed");
    for number in ["1", "2"] {
        let version = plane.control.secret_version_destroy(&key, number, None).await.unwrap();
        assert!(version.state == VersionState::Disabled && version.destroys.unwrap() >= day(1));
    }
    // Taken back in time.
    assert_eq!(plane.control.secret_version_enable(&key, "2", None).await.unwrap().destroys, None);

    plane.world.clock.advance(2 * 86_400);
    assert_eq!(plane.control.secret_version_get(&key, "1").unwrap().state, VersionState::Destroyed);
    let payload = |id: &str, number| plane.store.get(&model::key::secret_payload(&secret_key(id), number)).unwrap().is_some();
    plane.until("the first version's payload is gone", || !payload("delayed", 1)).await;
    assert_eq!(access(&plane, "delayed", "2"), Ok(b"x".to_vec()));
    assert!(payload("ends", 1));

    crash(&plane.control, &plane.store).await;
    plane.world.clock.advance(2 * 86_400);
    assert_eq!(access(&plane, "ends", "1").unwrap_err().0, Code::NotFound, "it is gone for readers before the loop came to it");
    assert_eq!(plane.control.secret_list(&project()).unwrap().len(), 1);
    plane.restart().await;
    let left = || plane.store.scan(&model::key::secret(&secret_key("ends")), None, 1).unwrap().len();
    plane.until("the secret is gone", || left() == 0).await;
    assert!(plane.store.get(&model::key::secret_payload(&secret_key("ends"), 1)).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_of_the_store_holds_a_payload() {
    const CANARY: &[u8] = b"canary-5f1d7b0c9e";
    let dir = tempfile::tempdir().unwrap();
    let (store, world) = (open(dir.path()), World::new());
    let control = start(&store, &world).await;
    control.secret_create(secret("s")).await.unwrap();
    for _ in 0..3 {
        control.secret_version_add(&secret_key("s"), &Payload::new(CANARY.to_vec()), None).await.unwrap();
    }
    let sealed = store.get(&model::key::secret_payload(&secret_key("s"), 2)).unwrap().unwrap().value.to_vec();
    control.secret_version_destroy(&secret_key("s"), "2", None).await.unwrap();
    assert_eq!(control.secret_version_access(&secret_key("s"), "3").unwrap().1.as_bytes(), CANARY);
    // At rest: with the store closed, so that its write-ahead log is in the file.
    crash(&control, &store).await;
    drop((control, store));
    // Its threads end a little later.
    let wal = dir.path().join("state.db-wal");
    for _ in 0..500 {
        if !wal.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut folders = vec![dir.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY), "{}", entry.path().display());
            assert!(!bytes.windows(sealed.len()).any(|part| part == sealed), "{}", entry.path().display());
            files += 1;
        }
    }
    assert!(files >= 1, "{files}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_given_what_its_account_may_read_and_what_is_there() {
    let plane = Plane::new().await;
    plane.control.secret_create(secret("s")).await.unwrap();
    add(&plane, "s", b"x").await;
    add(&plane, "s", b"y").await;
    plane.control.secret_version_disable(&secret_key("s"), "1", None).await.unwrap();
    let check = async |id: &str, version: &str, account: &str, expect: Option<&str>| {
        let mut wish = service("f");
        account.clone_into(&mut wish.template.service_account);
        wish.template.container.secret_env.push(("V".into(), SecretRef { secret: id.into(), version: version.into() }));
        let error = plane.control.service_create(&owner(), wish, true).await.err().map(|error| (error.code, error.outer));
        match (error, expect) {
            (None, None) => {}
            (Some((Code::InvalidArgument, text)), Some(part)) => assert!(text.contains(part), "{text}"),
            (error, _) => panic!("{id}:{version}: {error:?}"),
        }
    };
    check("s", "latest", "", None).await;
    check("s", "2", "", None).await;
    check("s", "1", "", Some("is in DISABLED state")).await;
    check("s", "3", "", Some("not found")).await;
    check("none", "1", "", Some("not found")).await;
    check("a.b", "1", "", Some("does not match the expected format")).await;
    // Whether it is there is not told.
    for id in ["s", "none"] {
        check(id, "latest", BLIND_ACCOUNT, Some("for Revision service account blind@local-project.iam.gserviceaccount.com")).await;
    }
    let mount = async |path: &str, items: &[(&str, &str)], env: &[&str]| {
        let mut wish = service("f");
        let items = items.iter().map(|(version, file)| (version.to_string(), file.to_string())).collect();
        wish.template.container.secret_mounts.push(SecretMount { name: "v".into(), path: path.into(), secret: "s".into(), items });
        wish.template.container.env.push(("A".into(), "1".into()));
        wish.template.container.secret_env.extend(env.iter().map(|name| ((*name).to_owned(), SecretRef { secret: "s".into(), version: "2".into() })));
        plane.control.service_create(&owner(), wish, true).await.is_ok()
    };
    assert!(mount("/secrets", &[("2", "api"), ("latest", "deep/er")], &["B"]).await);
    assert!(mount("/secrets/", &[], &[]).await);
    for path in ["", "secrets", "/", "/../etc", "/a/../b", "/proc/x", "/dev", "/tmp/x", "/sys"] {
        assert!(!mount(path, &[], &[]).await, "{path:?}");
    }
    for file in ["", "../x", "a//b", "a/.."] {
        assert!(!mount("/secrets", &[("2", file)], &[]).await, "{file:?}");
    }
    assert!(!mount("/secrets", &[("2", "a"), ("latest", "a")], &[]).await);
    for name in ["A", "PORT", ""] {
        assert!(!mount("/secrets", &[], &[name]).await, "{name:?}");
    }
}
