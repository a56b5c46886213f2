//! Crashes: the loops are stopped after each commit in turn and started again on the same store. In the end there is always the same.

use model::{Code, operation::Operation};

use super::*;

/// What an owner wants, whatever happens: a service with two revisions, one whose last revision fails, one that is deleted.
/// Each call is repeated like a client would that got no answer.
async fn wishes(control: &Control) {
    let done = |result: Result<(), Status>| match result {
        Ok(()) => {}
        Err(error) if matches!(error.code, Code::AlreadyExists | Code::NotFound | Code::Aborted) => {}
        Err(error) => panic!("{error}"),
    };
    let create = async |wish: Service| done(control.service_create(&owner(), wish, false).await.map(drop));
    let replace = async |wish: Service| done(control.service_replace(&owner(), wish, None, false).await.map(drop));
    if control.service_get(&key("good")).is_err() {
        create(with_env(service("good"), "V", "1")).await;
    }
    replace(with_env(service("good"), "V", "2")).await;
    create(service("bad")).await;
    // Its first revision must have been there for the second to leave it serving.
    control.service_wait(&key("bad"), 1, LONG).await.unwrap();
    replace(with_env(service("bad"), "FAIL", "boom")).await;
    if control.service_list(&project(), None, None, 10).unwrap().iter().all(|s| s.value.key.service.as_str() != "marker") {
        create(service("gone")).await;
        done(control.service_delete(&owner(), &key("gone"), None).await.map(drop));
        create(service("marker")).await;
    }
}

/// Waits for the end and says what is there, without names and times that differ between runs.
async fn end(store: &Store, control: &Control) -> String {
    let mut found = Vec::new();
    for name in ["good", "bad", "marker"] {
        let generation = control.service_get(&key(name)).unwrap().value.generation;
        let service = control.service_wait(&key(name), generation, LONG).await.unwrap().value;
        assert!(service.is_settled(), "{name}: {:?}", service.status);
        let revisions: Vec<Revision> =
            control.revision_list(&project(), None, Some(&key(name).service), None, 100).unwrap().into_iter().map(|r| r.value).collect();
        let by_name = |name: &RevisionName| revisions.iter().find(|revision| revision.name == *name).expect("named revisions are there");
        let env = |name: &RevisionName| format!("{:?}", by_name(name).template.container.env);
        let latest = by_name(service.status.latest_created.as_ref().unwrap());
        assert!(revisions.iter().all(|revision| revision.service_uid == service.uid && revision.generation <= latest.generation));
        found.push(format!(
            "{name}: ready {:?}, created {}, ready {:?}, serves {:?}",
            state(&service, "Ready"),
            env(&latest.name),
            service.status.latest_ready.as_ref().map(env),
            service.status.traffic.iter().map(|t| (env(&t.revision), t.percent)).collect::<Vec<_>>(),
        ));
    }
    let gone = crate::records::wait::<Service>(store, &model::key::service(&key("gone")), LONG, |found| found.is_none()).await.unwrap();
    assert!(gone.is_none());
    assert_eq!(control.revision_list(&project(), None, Some(&key("gone").service), None, 9).unwrap().len(), 0);
    for operation in control.operation_list(&project(), &region()).unwrap() {
        let done: Operation = control.operation_wait(&project(), &region(), &operation.id, LONG).await.unwrap();
        assert!(done.finished.is_some(), "{done:?}");
    }
    found.join("\n")
}

/// Runs the wishes and stops everything after `commits` commits, once. Whether there were so many.
async fn run(commits: usize) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let world = World::new();
    let mut watch = store.watch("");
    let control = start(&store, &world).await;
    let all = tokio::spawn({
        let (store, control) = (store.clone(), control.clone());
        async move {
            wishes(&control).await;
            end(&store, &control).await
        }
    });
    let mut count = 0;
    while count < commits && !all.is_finished() {
        let next = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
        count += usize::from(next.is_ok());
    }
    let crashed = !all.is_finished();
    all.abort();
    let _ = all.await;
    super::crash(&control, &store).await;

    let control = start(&store, &world).await;
    wishes(&control).await;
    (crashed, end(&store, &control).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_any_commit_changes_nothing_in_the_end() {
    let (_, expected) = run(usize::MAX).await;
    let mut crashes = 0;
    // As many places as there are, in steps that are no multiple of anything.
    for commits in (1..).step_by(3).take(40) {
        let (crashed, found) = run(commits).await;
        assert_eq!(found, expected, "after {commits} commits");
        if !crashed {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 5, "{crashes}");
}
