//! Builds: accepted, stored, read and waited for. `reconcile::build` runs them.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Code, ProjectId, Region, Status,
    build::{Build, BuildState, StorageSource},
    key,
};
use serde::{Deserialize, Serialize};
use store::{Expect, Write};

use crate::{Context, Control, image, records, template};

/// Builds of a region that wait or run, at most.
const QUEUE_MAX: usize = 100;
const TAGS_MAX: usize = 64;
const TAG_MAX_BYTES: usize = 128;
const TARGET_MAX_BYTES: usize = 256;

/// What a client asks a build for.
pub struct BuildRequest {
    pub project: ProjectId,
    pub region: Region,
    pub source: StorageSource,
    /// `REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME`, with or without a tag.
    pub image_uri: String,
    /// As the client wrote it, such as `python312`; empty for the builder's choice.
    pub base_image: String,
    /// Empty: not a function.
    pub function_target: String,
    pub enable_automatic_updates: bool,
    pub env: BTreeMap<String, String>,
    pub tags: Vec<String>,
    /// E-mail; the project's default compute account when empty.
    pub service_account: String,
}

/// A build's record: what the world sees, and the blob that its source was when it was accepted. An object that is written
/// over meanwhile does not change the build.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BuildRecord {
    #[serde(flatten)]
    pub build: Build,
    pub archive: String,
}

pub(crate) fn key_of(build: &Build) -> String {
    key::build(&build.project, &build.region, &build.id)
}

impl Control {
    /// Every base image that Google has, and what of it is on this host.
    pub fn runtimes(&self) -> Vec<::build::Runtime> {
        self.context.images.runtimes()
    }

    /// Checks source, names and base image, stores the build, and returns it with the base image's full URI. It runs by itself.
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field; `NOT_FOUND` for bucket, object or repository; `PERMISSION_DENIED` without actAs on
    /// the service account, and for a source that lies in another project's bucket and may not be read; `RESOURCE_EXHAUSTED` when 100 builds of the region are not done.
    pub async fn build_submit(&self, who: &iam::Identity, request: BuildRequest) -> Result<(Build, String), Status> {
        let cx = &self.context;
        let (project, region) = (&request.project, &request.region);
        cx.project_get(project.as_str())?;
        request_check(&request)?;
        repository_check(cx, &request)?;
        // A build's is named by its resource, projects/PROJECT/serviceAccounts/EMAIL.
        let account = request.service_account.rsplit_once("/serviceAccounts/").map_or(request.service_account.as_str(), |(_, email)| email);
        cx.account_check(who, project, account)?;
        let base_image_uri = cx.images.base_image_uri(&request.base_image, region.as_str()).map_err(|error| match error {
            build::Error::User(text) => Status::invalid_field("buildpack_build.base_image", text),
            other => Status::internal(other),
        })?;
        source_check(cx, who, &request)?;
        let source = self.object_get(&request.source.bucket, &request.source.object)?.value;
        if request.source.generation != 0 && request.source.generation != source.generation {
            return Err(Status::not_found(format!(
                "storage_source.generation: object gs://{}/{} has generation {}, not {}",
                source.bucket, source.name, source.generation, request.source.generation
            )));
        }
        let builds: Vec<BuildRecord> = records::all(&cx.store, &key::build(project, region, ""))?.into_iter().map(|build| build.value).collect();
        if builds.iter().filter(|build| !build.build.state.is_done()).count() >= QUEUE_MAX {
            return Err(Status::new(Code::ResourceExhausted, format!("{QUEUE_MAX} builds in {region} are not done yet; wait until one is.")));
        }

        let record = BuildRecord {
            build: Build {
                project: project.clone(),
                region: region.clone(),
                id: uuid::Uuid::new_v4().to_string(),
                created: cx.clock.now(),
                started: None,
                finished: None,
                source: StorageSource { bucket: source.bucket, object: source.name, generation: source.generation },
                image_uri: request.image_uri,
                base_image: request.base_image,
                function_target: request.function_target,
                enable_automatic_updates: request.enable_automatic_updates,
                env: request.env,
                tags: request.tags,
                service_account: request.service_account,
                state: BuildState::Queued,
                image: None,
                failure: String::new(),
            },
            archive: source.blob,
        };
        self.blob_touch(&record.archive).await?;
        match records::commit(&cx.store, vec![Write::put(key_of(&record.build), Expect::Absent, &record)]).await? {
            Some(_) => Ok((record.build, base_image_uri)),
            None => Err(Status::internal("a build of that id is there already")),
        }
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub fn build_get(&self, project: &ProjectId, region: &Region, id: &str) -> Result<Build, Status> {
        records::read::<Build>(&self.context.store, &key::build(project, region, id))?.map(|build| build.value).ok_or_else(|| missing(project, region, id))
    }

    /// The builds of a region, newest first, at most `limit`.
    pub fn build_list(&self, project: &ProjectId, region: &Region, limit: usize) -> Result<Vec<Build>, Status> {
        let mut builds: Vec<Build> = records::all(&self.context.store, &key::build(project, region, ""))?.into_iter().map(|build| build.value).collect();
        builds.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        builds.truncate(limit);
        Ok(builds)
    }

    /// The build when it is done, or as it is after `timeout`.
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn build_wait(&self, project: &ProjectId, region: &Region, id: &str, timeout: Duration) -> Result<Build, Status> {
        let key = key::build(project, region, id);
        records::wait::<Build>(&self.context.store, &key, timeout, |found| found.is_none_or(|build| build.value.state.is_done()))
            .await?
            .map(|build| build.value)
            .ok_or_else(|| missing(project, region, id))
    }
}

fn missing(project: &ProjectId, region: &Region, id: &str) -> Status {
    Status::not_found(format!("Build 'projects/{project}/locations/{region}/builds/{id}' not found."))
}

/// Who may build in a project may read the sources that lie in it; of another project's buckets, what they may read there.
fn source_check(cx: &Context, who: &iam::Identity, request: &BuildRequest) -> Result<(), Status> {
    let bucket = cx.bucket_get(&request.source.bucket)?.value;
    if bucket.project == request.project || cx.accounts.may_read_objects(who, &bucket.name, &bucket.project) {
        return Ok(());
    }
    let text = format!(
        "{} does not have storage.objects.get access to the Google Cloud Storage object. Permission 'storage.objects.get' denied on resource (or it may not exist).",
        who.email
    );
    Err(Status::new(Code::PermissionDenied, text))
}

fn request_check(request: &BuildRequest) -> Result<(), Status> {
    let env: Vec<(String, String)> = request.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    template::env_check("buildpack_build.environment_variables", &env)?;
    let target = &request.function_target;
    if target.len() > TARGET_MAX_BYTES || target.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(Status::invalid_field("buildpack_build.function_target", format!("must have at most {TARGET_MAX_BYTES} bytes without white space")));
    }
    if request.base_image.len() > image::REFERENCE_MAX_BYTES {
        return Err(Status::invalid_field("buildpack_build.base_image", "is too long for the name of a base image"));
    }
    if request.tags.len() > TAGS_MAX {
        return Err(Status::invalid_field("tags", format!("at most {TAGS_MAX} tags can be given; there are {}", request.tags.len())));
    }
    let is_bad =
        |tag: &String| tag.is_empty() || tag.len() > TAG_MAX_BYTES || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if let Some(index) = request.tags.iter().position(is_bad) {
        return Err(Status::invalid_field(
            format!("tags[{index}]"),
            format!("must have 1 to {TAG_MAX_BYTES} characters, only letters, digits, '_', '-' and '.'"),
        ));
    }
    Ok(())
}

/// The image must go to a repository of the project: `REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME`.
fn repository_check(cx: &Context, request: &BuildRequest) -> Result<(), Status> {
    let bad = |why: String| Status::invalid_field("image_uri", format!("{:?} {why}; write REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME", request.image_uri));
    let uri = &request.image_uri;
    if uri.len() > image::REFERENCE_MAX_BYTES {
        return Err(Status::invalid_field("image_uri", format!("must have at most {} bytes; it has {}", image::REFERENCE_MAX_BYTES, uri.len())));
    }
    let mut parts = uri.splitn(4, '/');
    let (Some(host), Some(project), Some(repository), Some(name)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(bad("is no image of Artifact Registry".to_owned()));
    };
    let region = host.strip_suffix("-docker.pkg.dev").and_then(|region| Region::parse(region).ok());
    let Some(region) = region else {
        return Err(bad("does not begin with a region's registry".to_owned()));
    };
    if project != request.project.as_str() {
        return Err(bad(format!("is in another project than {}", request.project)));
    }
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/');
    let (path, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let is_path = path.starts_with(|c: char| c.is_ascii_alphanumeric()) && path.chars().all(good) && !path.contains("//") && !path.ends_with('/');
    let is_tag = (1..=128).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !is_path || !is_tag {
        return Err(bad("is no name of an image".to_owned()));
    }
    cx.repository_get(&request.project, &region, repository).map(drop)
}
