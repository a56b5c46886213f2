//! Functions: a build, then a service; what becomes of both is the function's state.

use model::{
    Code,
    build::StorageSource,
    function::{Deployer, EventTrigger, Function, FunctionBuild, is_managed},
    operation::Operation,
    trigger::{EventFilter, TriggerKey},
};

use super::*;

fn function(source: &StorageSource, env: &[(&str, &str)]) -> Function {
    Function {
        key: key("f"),
        uid: String::new(),
        generation: 0,
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
        deleted: None,
        deployer: Deployer { email: String::new(), subject: String::new(), is_service_account: false },
        description: String::new(),
        labels: Default::default(),
        build: FunctionBuild {
            runtime: "python312".into(),
            entry_point: "hello".into(),
            source: source.clone(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            service_account: String::new(),
            is_for_events: false,
            id: String::new(),
            image_uri: String::new(),
        },
        service: service("f"),
        trigger: None,
        triggers_past: Vec::new(),
        memory: "256M".into(),
        cpu: "0.1666".into(),
        status: Default::default(),
    }
}

async fn done(plane: &Plane, operation: &Operation) -> Result<(), Status> {
    let operation = plane.control.operation_wait(&project(), &region(), &operation.id, LONG).await.unwrap();
    assert!(operation.finished.is_some(), "{operation:?}");
    operation.error.map_or(Ok(()), Err)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_built_served_and_deleted() {
    let (plane, source) = build::plane().await;
    let (made, operation) = plane.control.function_create(&owner(), function(&source, &[])).await.unwrap();
    assert!(!made.is_settled());
    done(&plane, &operation).await.unwrap();
    let found = plane.control.function_get(&key("f")).unwrap();
    assert!(found.value.is_settled() && found.value.status.failure.is_empty(), "{:?}", found.value.status);
    let served = plane.control.service_get(&key("f")).unwrap().value;
    assert!(is_managed(&served));
    assert_eq!(state(&served, "Ready"), State::True);
    assert!(served.template.container.image.contains("/gcf-artifacts/local--project__asia--northeast1__f@sha256:"), "{}", served.template.container.image);

    // Another configuration of the same build: another revision, and no other build.
    let mut wish = found.value.clone();
    wish.service.template.container.env.push(("A".into(), "1".into()));
    let (_, operation) = plane.control.function_replace(&owner(), &found, wish).await.unwrap();
    done(&plane, &operation).await.unwrap();
    assert_eq!(plane.world.builds.lock().len(), 1);
    assert_eq!(plane.revisions("f").len(), 2);

    let operation = plane.control.function_delete(&owner(), &key("f")).await.unwrap();
    done(&plane, &operation).await.unwrap();
    assert_eq!(plane.control.function_get(&key("f")).unwrap_err().code, Code::NotFound);
    assert_eq!(plane.control.service_get(&key("f")).unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_and_leaves_what_served() {
    let (plane, source) = build::plane().await;
    let (_, operation) = plane.control.function_create(&owner(), function(&source, &[])).await.unwrap();
    done(&plane, &operation).await.unwrap();
    let replace = async |env: &[(&str, &str)], variable: Option<&str>| {
        let found = plane.control.function_get(&key("f")).unwrap();
        let mut wish = function(&source, env);
        if let Some(text) = variable {
            wish.service.template.container.env.push(("FAIL".into(), text.into()));
        }
        let (_, operation) = plane.control.function_replace(&owner(), &found, wish).await.unwrap();
        done(&plane, &operation).await
    };
    let failed = replace(&[("FAIL", "no such package")], None).await.unwrap_err();
    assert_eq!(failed.outer, "Build failed with status: FAILURE and message: no such package");
    assert_eq!(plane.control.service_get(&key("f")).unwrap().value.generation, 1);
    let failed = replace(&[], Some("it fell over")).await.unwrap_err();
    assert!(failed.outer.starts_with("Could not create or update Cloud Run service f, ") && failed.outer.contains("it fell over"), "{failed}");
    replace(&[], None).await.unwrap();
    assert!(plane.control.function_get(&key("f")).unwrap().value.status.failure.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_it_is_built() {
    let (plane, source) = build::plane().await;
    let refused = async |edit: &dyn Fn(&mut Function), code: Code, text: &str| {
        let mut wish = function(&source, &[]);
        edit(&mut wish);
        let error = plane.control.function_create(&owner(), wish).await.expect_err(text);
        assert!(error.code == code && error.outer.contains(text), "{error}");
    };
    refused(&|f| f.build.runtime = "python27".into(), Code::InvalidArgument, "is no base image").await;
    refused(&|f| f.build.source.object = "none".into(), Code::NotFound, "No such object").await;
    refused(&|f| f.service.template.service_account = STRANGER_ACCOUNT.into(), Code::PermissionDenied, "actAs").await;
    refused(&|f| f.service.template.concurrency = Some(1001), Code::InvalidArgument, "containerConcurrency").await;
    plane.create(service("f")).await;
    refused(&|_| {}, Code::AlreadyExists, "A Cloud Run service with this name already exists").await;
    assert!(plane.world.builds.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_goes_on_after_a_crash() {
    let (mut plane, source) = build::plane().await;
    let (_, operation) = plane.control.function_create(&owner(), function(&source, &[("GATE", "build")])).await.unwrap();
    plane.until("the build begins", || plane.world.builds.lock().len() == 1).await;
    plane.restart().await;
    plane.world.open("build");
    done(&plane, &operation).await.unwrap();
    assert_eq!(plane.revisions("f").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_events_has_a_trigger_that_goes_with_it() {
    let (mut plane, source) = build::plane().await;
    let with = |function: Function, topic: &str, is_retried: bool| Function {
        trigger: Some(EventTrigger {
            key: TriggerKey { project: project(), location: region(), id: String::new() },
            filters: vec![EventFilter { attribute: "type".into(), value: "google.cloud.pubsub.topic.v1.messagePublished".into(), is_pattern: false }],
            topic: Some(format!("projects/local-project/topics/{topic}")),
            service_account: "123-compute@developer.gserviceaccount.com".into(),
            is_retried,
        }),
        ..function
    };
    let (_, operation) = plane.control.function_create(&owner(), with(function(&source, &[]), "new-topic", false)).await.unwrap();
    done(&plane, &operation).await.unwrap();
    let found = plane.control.function_get(&key("f")).unwrap();
    let first = found.value.trigger.clone().unwrap().key;
    assert!(first.id.starts_with("f-") && first.id.len() == 8, "{first:?}");
    let trigger = plane.control.trigger_get(&first).unwrap().value;
    assert!(trigger.is_settled() && trigger.is_tried_once && trigger.destination.is_function && !trigger.transport.is_own_topic, "{trigger:?}");
    assert!(plane.world.topics.lock().contains("projects/local-project/topics/new-topic"));
    assert_eq!(
        plane.control.build_list(&project(), &region(), 10).unwrap()[0].env.get("GOOGLE_FUNCTION_SIGNATURE_TYPE").map(String::as_str),
        Some("cloudevent")
    );

    // Deployed again with retries: the same trigger. For another topic: another one, and the first goes.
    let (_, operation) = plane.control.function_replace(&owner(), &found, with(found.value.clone(), "new-topic", true)).await.unwrap();
    done(&plane, &operation).await.unwrap();
    assert!(!plane.control.trigger_get(&first).unwrap().value.is_tried_once);
    let found = plane.control.function_get(&key("f")).unwrap();
    let (_, operation) = plane.control.function_replace(&owner(), &found, with(found.value.clone(), "t", true)).await.unwrap();
    done(&plane, &operation).await.unwrap();
    let second = plane.control.function_get(&key("f")).unwrap().value.trigger.unwrap().key;
    assert_ne!(first, second);
    assert_eq!(plane.control.trigger_get(&first).unwrap_err().code, Code::NotFound);
    assert_eq!(plane.world.builds.lock().len(), 1, "nothing of it is built again");

    plane.restart().await;
    let operation = plane.control.function_delete(&owner(), &key("f")).await.unwrap();
    done(&plane, &operation).await.unwrap();
    assert_eq!(plane.control.trigger_get(&second).unwrap_err().code, Code::NotFound);
    assert!(plane.world.transports.lock().is_empty());
    assert!(plane.world.topics.lock().contains("projects/local-project/topics/new-topic"), "a topic that was named stays");

    // What its trigger cannot be is told before it is built.
    let mut wish = with(function(&source, &[]), "t", false);
    wish.trigger.as_mut().unwrap().filters.push(EventFilter { attribute: "bucket".into(), value: "b".into(), is_pattern: false });
    let refused = plane.control.function_create(&owner(), wish).await.unwrap_err();
    assert!(refused.outer.starts_with("Validation failed for trigger projects/local-project/locations/asia-northeast1/triggers/f-"), "{refused}");
}
