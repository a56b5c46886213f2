//! What is refused before anything is stored, and what a dry run leaves.

use model::Code;

use super::*;

type Edit = Box<dyn Fn(&mut Service)>;

#[tokio::test(flavor = "multi_thread")]
async fn wishes_against_the_rules_are_refused_by_field() {
    let plane = Plane::new().await;
    plane.create(service("other")).await;
    let other = plane.settled("other").await.status.latest_ready.unwrap();
    let foreign_project = ServiceKey { project: ProjectId::parse("elsewhere-1").unwrap(), ..key("f") };
    let hex = "b".repeat(64);
    let edits: Vec<(Edit, Code, &str)> = vec![
        (Box::new(move |s| s.key = foreign_project.clone()), Code::NotFound, "Project 'elsewhere-1' not found"),
        (Box::new(|s| s.template.container.image.clear()), Code::InvalidArgument, "spec.template.spec.containers[0].image: should not be empty"),
        (
            Box::new(|s| s.template.container.image = "docker.io/library/nginx".into()),
            Code::InvalidArgument,
            "spec.template.spec.containers[0].image: Image 'docker.io/library/nginx' not found. tanebi runs functions deployed from source; deploy with --source . --function",
        ),
        (Box::new(move |s| s.template.container.image = format!("{IMAGE}@sha256:{hex}")), Code::InvalidArgument, "not found"),
        (
            Box::new(|s| s.template.service_account = STRANGER_ACCOUNT.into()),
            Code::PermissionDenied,
            "Permission 'iam.serviceaccounts.actAs' denied on service account not-mine@local-project.iam.gserviceaccount.com (or it may not exist).",
        ),
        (Box::new(|s| s.description = "x".repeat(513)), Code::InvalidArgument, "513"),
        (Box::new(|s| s.custom_audiences = vec!["a b".into()]), Code::InvalidArgument, "custom-audiences"),
        (Box::new(|s| s.custom_audiences = vec!["a".into(); 101]), Code::InvalidArgument, "101"),
        (
            Box::new(|s| {
                s.scaling.min_instances = 4;
                s.scaling.max_instances = Some(3);
            }),
            Code::InvalidArgument,
            "metadata.annotations[run.googleapis.com/minScale]",
        ),
        (Box::new(|s| s.scaling.manual_instances = Some(1001)), Code::InvalidArgument, "manualInstanceCount"),
        (Box::new(|s| s.traffic = vec![target(None, 99, None)]), Code::InvalidArgument, "sum to 99"),
        (Box::new(move |s| s.traffic = vec![target(Some(&other), 100, None)]), Code::InvalidArgument, "spec.traffic[0].revisionName"),
        (Box::new(|s| s.template.timeout_s = Some(3601)), Code::InvalidArgument, "spec.template.spec.timeoutSeconds"),
        (Box::new(|s| s.client = "x".repeat(257)), Code::InvalidArgument, "client-name"),
    ];
    for (edit, code, text) in edits {
        let mut wish = service("f");
        edit(&mut wish);
        let status = plane.control.service_create(&owner(), wish, false).await.expect_err(text);
        assert_eq!(status.code, code, "{status}");
        assert!(status.outer.contains(text), "{text:?} is not in {status}");
    }
    assert_eq!(plane.control.service_get(&key("f")).unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_known_by_every_name_a_build_gave_them() {
    let plane = Plane::new().await;
    for (n, image) in [IMAGE.to_owned(), format!("{IMAGE}:latest"), format!("{IMAGE}@{}", plane.world.digest())].into_iter().enumerate() {
        let mut wish = service(&format!("f{n}"));
        wish.template.container.image = image;
        plane.create(wish).await;
        assert_eq!(state(&plane.settled(&format!("f{n}")).await, "Ready"), State::True);
    }
    // A manifest that somebody uploaded is no image, though its digest is right.
    let uploaded = serde_json::to_vec(&plane.world.manifest).unwrap();
    let id = plane.store.blobs().put(&uploaded).unwrap();
    let mut wish = service("f");
    wish.template.container.image = format!("{IMAGE}@sha256:{id}");
    assert_eq!(plane.control.service_create(&owner(), wish, false).await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_leaves_nothing() {
    let plane = Plane::new().await;
    let before = plane.store.scan("", None, 1000).unwrap();
    let (would, _) = plane.control.service_create(&owner(), service("f"), true).await.unwrap();
    assert_eq!(would.value.generation, 1);
    assert_eq!(plane.store.scan("", None, 1000).unwrap(), before);

    plane.create(service("f")).await;
    let now = plane.settled("f").await;
    let (would, _) = plane.control.service_replace(&owner(), with_env(service("f"), "V", "2"), None, true).await.unwrap();
    assert_eq!(would.value.generation, 2);
    assert_eq!(plane.control.service_get(&key("f")).unwrap().value.template, now.template);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_comes_before_the_build() {
    let plane = Plane::new().await;
    let unbuilt = |name: &str| {
        let mut wish = service(name);
        wish.template.container.image = format!("{IMAGE}-unbuilt");
        wish
    };
    plane.control.service_create(&owner(), unbuilt("f"), true).await.unwrap();
    plane.create(service("g")).await;
    plane.control.service_replace(&owner(), unbuilt("g"), None, true).await.unwrap();
    assert_eq!(plane.control.service_create(&owner(), unbuilt("f"), false).await.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(plane.control.service_replace(&owner(), unbuilt("g"), None, false).await.unwrap_err().code, Code::InvalidArgument);
    // Every other rule holds.
    let mut wish = unbuilt("f");
    wish.template.timeout_s = Some(3601);
    assert!(plane.control.service_create(&owner(), wish, true).await.unwrap_err().outer.contains("timeoutSeconds"));
    let mut wish = unbuilt("f");
    wish.template.container.image.clear();
    assert!(plane.control.service_create(&owner(), wish, true).await.unwrap_err().outer.contains("should not be empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_taken_once() {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    let again = plane.control.service_create(&owner(), service("f"), false).await.unwrap_err();
    assert_eq!((again.code, again.outer.as_str()), (Code::AlreadyExists, "Resource 'f' already exists."));
    // Over services: f-x with the suffix 1 has the name of f with the suffix x-1.
    let mut first = service("f-x");
    first.template.revision = Some(name("f-x-1"));
    plane.create(first).await;
    plane.settled("f-x").await;
    let mut second = service("f");
    second.template.revision = Some(name("f-x-1"));
    assert_eq!(plane.control.service_replace(&owner(), second, None, false).await.unwrap_err().code, Code::AlreadyExists);
    let missing = plane.control.service_replace(&owner(), service("nobody"), None, false).await.unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_keeps_its_number() {
    let mut plane = Plane::new().await;
    let first = plane.control.project_get("local-project").unwrap();
    assert!((model::ProjectNumber::FIRST..model::ProjectNumber::END).contains(&first.number.0));
    plane.restart().await;
    assert_eq!(plane.control.project_get(&first.number.to_string()).unwrap(), first);
    assert_eq!(plane.control.project_list().unwrap(), [first]);
    assert_eq!(plane.control.project_get("another-one").unwrap_err().code, Code::NotFound);
    assert_eq!(plane.control.project_get("123456").unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let plane = Plane::new().await;
    for n in 0..5 {
        plane.create(service(&format!("f{n}"))).await;
    }
    let first = plane.control.service_list(&project(), None, None, 3).unwrap();
    let after = model::key::service(&first[2].value.key);
    let second = plane.control.service_list(&project(), None, Some(&after), 3).unwrap();
    let names: Vec<String> = first.iter().chain(&second).map(|s| s.value.key.service.to_string()).collect();
    assert_eq!(names, ["f0", "f1", "f2", "f3", "f4"]);
    assert_eq!(plane.control.service_list(&project(), Some(&Region::parse("us-central1").unwrap()), None, 3).unwrap().len(), 0);
    assert_eq!(plane.control.operation_list(&project(), &region()).unwrap().len(), 5);
}
