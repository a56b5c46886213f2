//! Builds: accepted, run, kept, run again after a crash.

use std::collections::BTreeMap;

use ::build::{Built, Error, LogLine, Request};
use model::{
    Code,
    build::{Build, BuildState, StorageSource},
    log::{LogName, Payload},
    storage::Object,
};

use super::*;
use crate::{BuildRequest, seam};

/// A build that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub id: String,
    pub archive: String,
}

/// A builder whose builds do what their variables say: GATE waits, FAIL is at fault with its value.
pub(crate) struct Images {
    pub world: Arc<World>,
}

impl seam::Images for Images {
    fn runtimes(&self) -> Vec<::build::Runtime> {
        Vec::new()
    }

    fn base_image_uri(&self, base_image: &str, region: &str) -> Result<String, Error> {
        match base_image {
            "python312" => Ok(format!("{region}-docker.pkg.dev/serverless-runtimes/google-22/runtimes/python312")),
            other => Err(Error::User(format!("{other:?} is no base image"))),
        }
    }

    fn build(&self, request: Request, log: Arc<dyn Fn(LogLine) + Send + Sync>) -> BoxFuture<'_, Result<Built, Error>> {
        async move {
            self.world.builds.lock().push(Started { id: request.id.clone(), archive: request.archive.clone() });
            log("Step 1".to_owned());
            if let Some(gate) = request.env.get("GATE") {
                self.world.pass(gate).await;
            }
            match request.env.get("FAIL") {
                Some(text) => Err(Error::User(text.clone())),
                None => Ok(Built { digest: self.world.digest(), image: self.world.manifest.clone() }),
            }
        }
        .boxed()
    }

    fn image_get(&self, digest: &ImageDigest) -> Result<Option<Image>, store::Error> {
        Ok((*digest == self.world.digest()).then(|| self.world.manifest.clone()))
    }

    fn layers_cached(&self) -> Result<HashSet<String>, Error> {
        Ok(self.world.cached.lock().clone())
    }
}

type Edit = fn(&mut BuildRequest);

const URI: &str = "asia-northeast1-docker.pkg.dev/local-project/cloud-run-source-deploy/g";

/// A plane with a repository, and an object that is a source.
pub(crate) async fn plane() -> (Plane, StorageSource) {
    let plane = Plane::new().await;
    plane.control.repository_create(&project(), &region(), "cloud-run-source-deploy", "DOCKER", "").await.unwrap();
    plane.control.bucket_create(storage::bucket("sources")).await.unwrap();
    let object = plane.control.object_put(storage::object(&plane, "sources", "f.zip", b"source"), &Default::default()).await.unwrap().value;
    let source = StorageSource { bucket: object.bucket, object: object.name, generation: object.generation };
    (plane, source)
}

pub(crate) fn request(source: &StorageSource, env: &[(&str, &str)]) -> BuildRequest {
    BuildRequest {
        project: project(),
        region: region(),
        source: source.clone(),
        image_uri: URI.into(),
        base_image: "python312".into(),
        function_target: "hello_http".into(),
        enable_automatic_updates: true,
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>(),
        tags: vec!["service_g".into()],
        service_account: String::new(),
    }
}

async fn done(plane: &Plane, id: &str) -> Build {
    let build = plane.control.build_wait(&project(), &region(), id, LONG).await.unwrap();
    assert!(build.state.is_done(), "{build:?}");
    build
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_leaves_an_image_that_can_be_deployed() {
    let (plane, source) = plane().await;
    let (build, base_image_uri) = plane.control.build_submit(&owner(), request(&source, &[])).await.unwrap();
    assert_eq!(build.state, BuildState::Queued);
    assert_eq!(base_image_uri, "asia-northeast1-docker.pkg.dev/serverless-runtimes/google-22/runtimes/python312");
    let build = done(&plane, &build.id).await;
    assert_eq!((build.state, build.image.clone()), (BuildState::Success, Some(plane.world.digest())));
    assert!(build.started.unwrap() <= build.finished.unwrap());
    assert_eq!(plane.control.build_list(&project(), &region(), 10).unwrap(), std::slice::from_ref(&build));
    let entry = plane.world.log.lock()[0].clone();
    assert_eq!((entry.log, entry.source.build.as_str(), entry.payload), (LogName::Build, build.id.as_str(), Payload::Text("Step 1".into())));

    let mut deployed = service("g");
    deployed.template.container.image = format!("{URI}@{}", plane.world.digest());
    plane.create(deployed).await;
    assert_eq!(state(&plane.settled("g").await, "Ready"), State::True);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_at_fault_says_why() {
    let (plane, source) = plane().await;
    let (build, _) = plane.control.build_submit(&owner(), request(&source, &[("FAIL", "requirements.txt: no such package")])).await.unwrap();
    let build = done(&plane, &build.id).await;
    assert_eq!((build.state, build.image, build.failure.as_str()), (BuildState::Failure, None, "requirements.txt: no such package"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_build_runs_again_with_the_source_it_was_given() {
    let (mut plane, source) = plane().await;
    let blob = plane.control.object_get("sources", "f.zip").unwrap().value.blob;
    let (build, _) = plane.control.build_submit(&owner(), request(&source, &[("GATE", "slow")])).await.unwrap();
    plane.until("the build begins", || plane.world.builds.lock().len() == 1).await;
    // Its source is written over meanwhile.
    plane.control.object_put(storage::object(&plane, "sources", "f.zip", b"other"), &Default::default()).await.unwrap();
    plane.restart().await;
    plane.until("the build begins again", || plane.world.builds.lock().len() == 2).await;
    plane.world.open("slow");
    assert_eq!(done(&plane, &build.id).await.state, BuildState::Success);
    let begun = Started { id: build.id.clone(), archive: blob };
    assert_eq!(*plane.world.builds.lock(), [begun.clone(), begun]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_against_the_rules_are_refused_by_field() {
    let (plane, source) = plane().await;
    let edits: Vec<(Edit, Code, &str)> = vec![
        (|r| r.source.bucket = "nowhere".into(), Code::NotFound, "The specified bucket does not exist."),
        (|r| r.source.object = "none.zip".into(), Code::NotFound, "No such object: sources/none.zip"),
        (|r| r.source.generation += 1, Code::NotFound, "storage_source.generation"),
        (|r| r.base_image = "python27".into(), Code::InvalidArgument, "buildpack_build.base_image: \"python27\" is no base image"),
        (|r| r.image_uri = "docker.io/library/f".into(), Code::InvalidArgument, "image_uri"),
        (|r| r.image_uri = URI.replace("local-project", "elsewhere-1"), Code::InvalidArgument, "in another project"),
        (|r| r.image_uri = URI.replace("/g", "/../g"), Code::InvalidArgument, "image_uri"),
        (|r| r.image_uri = URI.replace("cloud-run-source-deploy", "none"), Code::NotFound, "repositories/none"),
        (|r| r.function_target = "a b".into(), Code::InvalidArgument, "buildpack_build.function_target"),
        (|r| r.tags = vec!["a b".into()], Code::InvalidArgument, "tags[0]"),
        (|r| r.service_account = STRANGER_ACCOUNT.into(), Code::PermissionDenied, "actAs"),
        (|r| drop(r.env.insert("PORT".into(), "1".into())), Code::InvalidArgument, "buildpack_build.environment_variables"),
    ];
    for (edit, code, text) in edits {
        let mut wish = request(&source, &[]);
        edit(&mut wish);
        let status: Status = plane.control.build_submit(&owner(), wish).await.expect_err(text);
        assert_eq!(status.code, code, "{status}");
        assert!(status.outer.contains(text), "{text:?} is not in {status}");
    }
    assert_eq!(plane.control.build_list(&project(), &region(), 10).unwrap(), []);
}

/// Of another project's bucket a build reads only what its caller may read.
#[tokio::test(flavor = "multi_thread")]
async fn another_projects_source_is_read_by_who_may_read_it() {
    let (plane, source) = plane().await;
    let blob = plane.control.object_get(&source.bucket, &source.object).unwrap().value.blob;
    for (name, expect) in [("open-bucket", None), (CLOSED_BUCKET, Some(Code::PermissionDenied))] {
        let made = plane.control.bucket_create(storage::bucket(name)).await.unwrap().value;
        let object = Object { blob: blob.clone(), ..storage::object(&plane, name, "f.zip", b"source") };
        plane.control.object_put(object, &Default::default()).await.unwrap();
        // Its project is not the build's from here on.
        let elsewhere = model::storage::Bucket { project: ProjectId::parse("elsewhere-1").unwrap(), ..made };
        plane.store.commit(vec![store::Write::put(model::key::bucket(name), store::Expect::Any, &elsewhere)]).await.unwrap();
        let wish = request(&StorageSource { bucket: name.into(), generation: 0, ..source.clone() }, &[]);
        let code = plane.control.build_submit(&owner(), wish).await.err().map(|status| status.code);
        assert_eq!(code, expect, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_has_an_end() {
    let (plane, source) = plane().await;
    for _ in 0..100 {
        plane.control.build_submit(&owner(), request(&source, &[("GATE", "never")])).await.unwrap();
    }
    let refused = plane.control.build_submit(&owner(), request(&source, &[])).await.unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_builds_are_forgotten() {
    let (mut plane, source) = plane().await;
    let (build, _) = plane.control.build_submit(&owner(), request(&source, &[])).await.unwrap();
    let first = done(&plane, &build.id).await;
    let later = |n: i64| Build { id: format!("b{n}"), created: model::Timestamp::from_second(first.created.as_second() + n).unwrap(), ..first.clone() };
    let writes = (1..=1000).map(|n| store::Write::put(crate::build::key_of(&later(n)), store::Expect::Absent, &later(n)));
    plane.store.commit(writes.collect()).await.unwrap();
    plane.restart().await;
    plane.until("1000 are left", || plane.control.build_list(&project(), &region(), 5000).unwrap().len() == 1000).await;
    assert_eq!(plane.control.build_get(&project(), &region(), &first.id).unwrap_err().code, Code::NotFound);
}
