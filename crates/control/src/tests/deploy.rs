//! Deploys: from an intent to traffic, and what happens when something is in the way.

use model::{Code, condition};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_created_service_becomes_ready() {
    let plane = Plane::new().await;
    let (created, operation) = plane.control.service_create(&owner(), service("f"), false).await.unwrap();
    assert_eq!((created.value.generation, created.value.creator.as_str()), (1, "dev@example.com"));
    assert_eq!(state(&created.value, "Ready"), State::Unknown);

    let done = plane.control.operation_wait(&project(), &region(), &operation.id, LONG).await.unwrap();
    assert_eq!((done.finished.is_some(), done.error), (true, None));
    let service = plane.settled("f").await;
    for kind in ["Ready", "ConfigurationsReady", "RoutesReady"] {
        assert_eq!(state(&service, kind), State::True, "{kind}");
    }
    let latest = service.status.latest_ready.clone().unwrap();
    let suffix = latest.as_str().strip_prefix("f-00001-").unwrap();
    assert!(suffix.len() == 3 && suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{latest}");
    assert_eq!(service.status.latest_created, Some(latest.clone()));
    assert_eq!(served(&service), [(latest.to_string(), 100, None)]);
    assert_eq!(service.traffic, [target(None, 100, None)]);
    assert_eq!(plane.world.proofs_of(&latest), 1);
    let revision = plane.control.revision_get(&project(), &region(), &latest).unwrap().value;
    assert_eq!(revision.template.timeout_s, Some(300));
    assert_eq!(revision.image, Some(plane.world.digest()));

    let urls = plane.control.service_urls(&service);
    let number = plane.control.project_get("local-project").unwrap().number;
    assert_eq!(urls[0], format!("https://f-{number}.asia-northeast1.run.app"));
    assert!(urls[1].ends_with("-an.a.run.app"), "{urls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_fails_leaves_the_old_one_serving() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    let first = plane.settled("f").await;

    let bad = with_env(service("f"), "FAIL", "ModuleNotFoundError: No module named 'flask'");
    let (_, operation) = plane.control.service_replace(&owner(), bad, None, false).await.unwrap();
    let second = plane.settled("f").await;
    assert_eq!((state(&second, "Ready"), state(&second, "ConfigurationsReady"), state(&second, "RoutesReady")), (State::False, State::False, State::True));
    let created = second.status.latest_created.clone().unwrap();
    assert!(created.as_str().starts_with("f-00002-"));
    assert_eq!(second.status.latest_ready, first.status.latest_ready);
    assert_eq!(served(&second), served(&first));
    let text = message(&second, "Ready");
    assert!(text.starts_with(&format!("Revision '{created}' is not ready and cannot serve traffic. The user-provided container failed to start and listen on the port defined provided by the PORT=8080 environment variable")), "{text}");
    assert!(text.contains("\n\nLogs URL: https://") && text.ends_with("ModuleNotFoundError: No module named 'flask'"), "{text}");

    let done = plane.control.operation_wait(&project(), &region(), &operation.id, LONG).await.unwrap();
    let error = done.error.unwrap();
    assert_eq!((error.code, error.outer), (Code::FailedPrecondition, text));

    // The next good one takes over.
    plane.replace(service("f")).await;
    let third = plane.settled("f").await;
    assert_eq!(state(&third, "Ready"), State::True);
    assert!(third.status.latest_ready.as_ref().unwrap().as_str().starts_with("f-00003-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_health_check_a_revision_is_ready_unseen() {
    let plane = Plane::new().await;
    let mut blind = with_env(service("f"), "FAIL", "never asked");
    blind.template.health_check_disabled = true;
    plane.create(blind.clone()).await;
    let settled = plane.settled("f").await;
    assert_eq!(state(&settled, "Ready"), State::True);
    assert_eq!(plane.world.proofs_of(&settled.status.latest_ready.clone().unwrap()), 0);

    // With it again, what fails is found out, and what served goes on.
    plane.replace(with_env(service("f"), "FAIL", "asked")).await;
    let failed = plane.settled("f").await;
    assert_eq!((state(&failed, "Ready"), served(&failed)), (State::False, served(&settled)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_revision_that_fails_serves_nothing() {
    let plane = Plane::new().await;
    plane.create(with_env(service("f"), "FAIL", "")).await;
    let service = plane.settled("f").await;
    assert_eq!((state(&service, "Ready"), state(&service, "RoutesReady")), (State::False, State::False));
    assert_eq!((served(&service), service.status.latest_ready.clone()), (vec![], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_changed_template_makes_a_revision() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    let first = plane.settled("f").await;

    // Nothing at all, and a default that is written out.
    plane.replace(service("f")).await;
    assert_eq!(plane.settled("f").await.generation, 1);
    let mut same = service("f");
    same.template.timeout_s = Some(300);
    plane.replace(same).await;
    assert_eq!(plane.settled("f").await.generation, 1);
    // What is kept has the defaults, and is the same wish.
    plane.replace(Service { template: first.template.clone(), ..service("f") }).await;
    assert_eq!(plane.settled("f").await.generation, 1);
    assert_eq!(plane.revisions("f").len(), 1);

    // Something beside the template.
    let mut closed = service("f");
    closed.ingress = model::service::Ingress::Internal;
    plane.replace(closed.clone()).await;
    let third = plane.settled("f").await;
    assert_eq!((third.generation, third.status.latest_created.clone()), (2, first.status.latest_created.clone()));
    assert_eq!(plane.world.proofs_of(first.status.latest_ready.as_ref().unwrap()), 1);

    // A label counts: gcloud's nonce makes a revision of an equal template.
    closed.template.labels.insert("client.knative.dev/nonce".into(), "abcdefghij".into());
    plane.replace(closed).await;
    let fourth = plane.settled("f").await;
    assert!(fourth.status.latest_ready.unwrap().as_str().starts_with("f-00002-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_revision_that_comes_later_does_not_take_over() {
    let plane = Plane::new().await;
    plane.create(with_env(service("f"), "GATE", "slow")).await;
    plane.until("the first proof begins", || plane.revisions("f").first().is_some_and(|r| plane.world.proofs_of(&r.name) == 1)).await;
    plane.replace(service("f")).await;
    let second = plane.settled("f").await;
    assert_eq!(state(&second, "Ready"), State::True);
    let latest = second.status.latest_ready.clone().unwrap();
    assert!(latest.as_str().starts_with("f-00002-"), "{latest}");

    plane.world.open("slow");
    plane
        .until("the first revision is retired", || {
            plane.revisions("f")[0].conditions.iter().any(|c| c.kind == "Active" && c.state == State::False && c.reason == "Retired")
        })
        .await;
    let after = plane.settled("f").await;
    assert_eq!((after.status.latest_ready.clone(), served(&after)), (Some(latest.clone()), vec![(latest.to_string(), 100, None)]));
    plane
        .until("the second revision is active", || {
            condition::find(&plane.revisions("f")[1].conditions, "Active").is_some_and(|active| active.state == State::True)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_revision_starts_the_old_one_serves() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    let first = plane.settled("f").await;
    plane.replace(with_env(service("f"), "GATE", "slow")).await;
    plane.until("the second proof begins", || plane.revisions("f").len() == 2 && plane.world.proofs_of(&plane.revisions("f")[1].name) == 1).await;
    plane.until("the status follows", || plane.control.service_get(&key("f")).unwrap().value.status.revisions_created == 2).await;
    let now = plane.control.service_get(&key("f")).unwrap().value;
    assert!(!now.is_settled());
    assert_eq!(served(&now), served(&first));
    plane.world.open("slow");
    let second = plane.settled("f").await;
    assert_eq!(served(&second)[0].0, plane.revisions("f")[1].name.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_where_its_owner_sends_it() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    let first = plane.settled("f").await.status.latest_ready.unwrap();

    // The new revision gets a tag and no traffic.
    let mut quiet = with_env(service("f"), "V", "2");
    quiet.template.revision = Some(name("f-two"));
    quiet.traffic = vec![target(Some(&first), 100, None), target(Some(&name("f-two")), 0, Some("next"))];
    plane.replace(quiet.clone()).await;
    let split = plane.settled("f").await;
    assert_eq!(state(&split, "Ready"), State::True);
    assert_eq!(served(&split), [(first.to_string(), 100, None), ("f-two".into(), 0, Some("next".into()))]);

    // A share for it, then all of it.
    quiet.traffic = vec![target(Some(&first), 90, None), target(Some(&name("f-two")), 10, None)];
    plane.replace(quiet.clone()).await;
    assert_eq!(served(&plane.settled("f").await), [(first.to_string(), 90, None), ("f-two".into(), 10, None)]);
    quiet.traffic = vec![target(None, 100, None)];
    plane.replace(quiet.clone()).await;
    assert_eq!(served(&plane.settled("f").await), [("f-two".into(), 100, None)]);
    assert_eq!(plane.revisions("f").len(), 2);

    // The name belongs to its template for ever.
    quiet.template.timeout_s = Some(5);
    let taken = plane.control.service_replace(&owner(), quiet, None, false).await.unwrap_err();
    assert_eq!((taken.code, taken.outer.as_str()), (Code::AlreadyExists, "Revision named 'f-two' with different configuration already exists."));
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_to_a_revision_that_fails_changes_nothing() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    let first = plane.settled("f").await;
    let mut bad = with_env(service("f"), "FAIL", "boom");
    bad.template.revision = Some(name("f-bad"));
    bad.traffic = vec![target(None, 50, None), target(Some(&name("f-bad")), 50, None)];
    plane.replace(bad).await;
    let after = plane.settled("f").await;
    assert_eq!((state(&after, "Ready"), state(&after, "RoutesReady")), (State::False, State::False));
    assert_eq!(served(&after), served(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_who_comes_second_is_told() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    plane.settled("f").await;
    let read = plane.control.service_get(&key("f")).unwrap().revision;
    let (first, second) = (with_env(service("f"), "V", "1"), with_env(service("f"), "V", "2"));
    let owner = owner();
    let (a, b) =
        tokio::join!(plane.control.service_replace(&owner, first, Some(read), false), plane.control.service_replace(&owner, second, Some(read), false));
    let (won, lost) = match (a, b) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("one of two must win: {other:?}"),
    };
    assert_eq!(won.0.value.generation, 2);
    assert_eq!(lost.code, Code::Aborted);
    assert!(lost.outer.starts_with(&format!("Conflict for resource 'f': version '{read}' was specified but current version is '")), "{lost}");
    // Writers who name no version all go through, one after the other.
    let writers: Vec<_> = (0..8).map(|n| plane.control.service_replace(&owner, with_env(service("f"), "V", &format!("w{n}")), None, false)).collect();
    let mut generations: Vec<u64> = futures_util::future::join_all(writers).await.into_iter().map(|done| done.unwrap().0.value.generation).collect();
    generations.sort_unstable();
    assert_eq!(generations, (3..=10).collect::<Vec<u64>>());
    assert_eq!(state(&plane.settled("f").await, "Ready"), State::True);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_made_again_is_another_one() {
    let plane = Plane::new().await;
    let first = plane.create(service("f")).await;
    let old = plane.settled("f").await.status.latest_ready.unwrap();
    let (marked, operation) = plane.control.service_delete(&owner(), &key("f"), None).await.unwrap();
    assert!(marked.value.deleted.is_some());
    let done = plane.control.operation_wait(&project(), &region(), &operation.id, LONG).await.unwrap();
    assert_eq!((done.finished.is_some(), done.error), (true, None));
    assert_eq!(
        plane.control.service_get(&key("f")).unwrap_err().outer,
        "Resource 'f' of kind 'SERVICE' in region 'asia-northeast1' in project 'local-project' does not exist."
    );
    assert_eq!(plane.control.revision_get(&project(), &region(), &old).unwrap_err().code, Code::NotFound);
    assert_eq!(*plane.world.stopped.lock(), ["f"]);
    // When it was made, and when it went.
    assert_eq!(*plane.world.policies_removed.lock(), ["projects/local-project/locations/asia-northeast1/services/f"; 2]);

    let second = plane.create(service("f")).await;
    assert_ne!(first.uid, second.uid);
    let revisions = plane.settled("f").await.status.revisions_created;
    assert_eq!((revisions, plane.revisions("f").len()), (1, 1));
    assert_eq!(plane.revisions("f")[0].service_uid, second.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_can_be_deleted_while_its_revision_starts() {
    let plane = Plane::new().await;
    let (_, created) = plane.control.service_create(&owner(), with_env(service("f"), "GATE", "slow"), false).await.unwrap();
    plane.until("the proof begins", || plane.revisions("f").first().is_some_and(|r| plane.world.proofs_of(&r.name) == 1)).await;
    plane.control.service_delete(&owner(), &key("f"), None).await.unwrap();
    plane.gone("f").await;
    let done = plane.control.operation_wait(&project(), &region(), &created.id, LONG).await.unwrap();
    assert_eq!(done.error.unwrap().code, Code::Aborted);
    plane.world.open("slow");
    // What the proof started is ended.
    plane.until("its instances are ended again", || plane.world.stopped.lock().len() == 2).await;
    assert_eq!(plane.revisions("f"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_in_use_cannot_be_deleted() {
    let plane = Plane::new().await;
    for value in ["1", "2", "3"] {
        let next = with_env(service("f"), "V", value);
        if value == "1" {
            plane.create(next).await
        } else {
            plane.replace(next).await
        };
        plane.settled("f").await;
    }
    let [first, second, third] = <[Revision; 3]>::try_from(plane.revisions("f")).unwrap().map(|revision| revision.name);
    let mut split = with_env(service("f"), "V", "3");
    split.traffic = vec![target(None, 100, None), target(Some(&second), 0, Some("old"))];
    plane.replace(split).await;
    plane.settled("f").await;

    let delete = |revision| {
        let control = plane.control.clone();
        async move { control.revision_delete(&owner(), &project(), &region(), &revision).await }
    };
    assert_eq!(delete(third).await.unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(delete(second.clone()).await.unwrap_err().code, Code::FailedPrecondition);
    let (_, operation) = delete(first.clone()).await.unwrap();
    assert!(operation.finished.is_some());
    assert_eq!(delete(first.clone()).await.unwrap_err().code, Code::NotFound);
    assert_eq!(plane.revisions("f").len(), 2);
    // Traffic cannot be sent to it any more.
    let mut gone = with_env(service("f"), "V", "3");
    gone.traffic = vec![target(Some(&first), 100, None)];
    let refused = plane.control.service_replace(&owner(), gone, None, false).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "spec.traffic[0].revisionName");
}

#[tokio::test(flavor = "multi_thread")]
async fn surplus_revisions_are_removed_but_not_those_in_use() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    let first = plane.settled("f").await.status.latest_ready.unwrap();
    let mut pinned = service("f");
    pinned.traffic = vec![target(Some(&first), 100, None)];
    plane.replace(pinned.clone()).await;
    plane.settled("f").await;
    // Many generations later.
    let template = plane.revisions("f")[0].clone();
    let writes = (0..1000u64).map(|n| {
        let mut revision = template.clone();
        revision.name = name(&format!("f-r{n}"));
        revision.uid = format!("{n}");
        revision.generation = 1 + n;
        revision.template.timeout_s = Some(1);
        store::Write::put(model::key::revision(&revision.service, &revision.name), store::Expect::Absent, &revision)
    });
    plane.store.commit(writes.collect()).await.unwrap();
    plane.until("only 1000 are left", || plane.revisions("f").len() == 1000).await;
    let left: HashSet<String> = plane.revisions("f").iter().map(|revision| revision.name.to_string()).collect();
    assert!(left.contains(first.as_str()) && left.contains("f-r999"));
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_are_repeated_after_a_restart_only_when_they_had_not_ended() {
    let mut plane = Plane::new().await;
    plane.create(service("done")).await;
    plane.create(with_env(service("open"), "GATE", "slow")).await;
    let done = plane.settled("done").await.status.latest_ready.unwrap();
    plane.until("the proof begins", || plane.revisions("open").first().is_some_and(|r| plane.world.proofs_of(&r.name) == 1)).await;
    plane.restart().await;
    let open = plane.revisions("open")[0].name.clone();
    plane.until("the proof begins again", || plane.world.proofs_of(&open) == 2).await;
    plane.world.open("slow");
    assert_eq!(plane.settled("open").await.status.latest_ready, Some(open));
    assert_eq!(plane.world.proofs_of(&done), 1);
}
