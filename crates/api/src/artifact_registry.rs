//! Artifact Registry v1: repositories as names. Images are not pushed or pulled here; builds leave them in the store.
//!
//! Source: google/devtools/artifactregistry/v1/{service,repository}.proto.

use control::Repository;
use model::Status;
use proto::google::{devtools::artifactregistry::v1 as pb, longrunning as lro};

use crate::{
    app::App,
    convert::{refuse, time},
    grpc::{Context, Group, Method},
    operation,
    permission::on,
};

const HOSTS: &[&str] = &["artifactregistry.googleapis.com"];

pub(crate) fn methods(app: &App) -> Vec<Method> {
    const PROJECT: &str = "projects/{project}";
    const LOCATION: &str = "projects/{project}/locations/{location}";
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.devtools.artifactregistry.v1.ArtifactRegistry/GetRepository",
            on("artifactregistry.repositories.get", PROJECT),
            |r: &pb::GetRepositoryRequest| r.name.clone(),
            ("name", "projects/{project}/locations/{location}/repositories/{repository}"),
            repository_get,
        )
        .unary(
            "google.devtools.artifactregistry.v1.ArtifactRegistry/ListRepositories",
            on("artifactregistry.repositories.list", PROJECT),
            |r: &pb::ListRepositoriesRequest| r.parent.clone(),
            ("parent", LOCATION),
            repository_list,
        )
        .unary(
            "google.devtools.artifactregistry.v1.ArtifactRegistry/CreateRepository",
            on("artifactregistry.repositories.create", PROJECT),
            |r: &pb::CreateRepositoryRequest| r.parent.clone(),
            ("parent", LOCATION),
            repository_create,
        )
        .into_methods()
}

async fn repository_get(app: App, context: Context, _: pb::GetRepositoryRequest) -> Result<pb::Repository, Status> {
    Ok(write(&app.control.repository_get(&context.project()?, &context.region()?, context.var("repository")?)?))
}

async fn repository_list(app: App, context: Context, request: pb::ListRepositoriesRequest) -> Result<pb::ListRepositoriesResponse, Status> {
    refuse(!request.filter.is_empty(), "filter")?;
    refuse(!request.order_by.is_empty(), "order_by")?;
    let (project, region) = (context.project()?, context.region()?);
    let mut list = app.control.repository_list(&project, &region)?;
    list.sort_by(|a, b| a.id.cmp(&b.id));
    let scope = format!("repositories/{project}/{region}");
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let mut rest = list.iter().filter(|found| asked.after.as_deref().is_none_or(|after| found.id.as_str() > after));
    let page: Vec<_> = rest.by_ref().take(asked.size).collect();
    let next_page_token = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => app.pages.token(&scope, &last.id).await?,
        _ => String::new(),
    };
    Ok(pb::ListRepositoriesResponse { repositories: page.into_iter().map(write).collect(), next_page_token })
}

async fn repository_create(app: App, context: Context, request: pb::CreateRepositoryRequest) -> Result<lro::Operation, Status> {
    let asked = request.repository.unwrap_or_default();
    if asked.format != pb::repository::Format::Docker as i32 {
        return Err(Status::invalid_field("repository.format", "only DOCKER is supported by this server"));
    }
    if !matches!(asked.mode, 0 | 1) {
        return Err(Status::invalid_field("repository.mode", "only STANDARD_REPOSITORY is supported by this server"));
    }
    refuse(!asked.kms_key_name.is_empty(), "repository.kms_key_name")?;
    refuse(!asked.labels.is_empty(), "repository.labels")?;
    refuse(!asked.cleanup_policies.is_empty(), "repository.cleanup_policies")?;
    refuse(asked.format_config.is_some(), "repository.docker_config")?;
    let (_, started) = app.control.repository_create(&context.project()?, &context.region()?, &request.repository_id, "DOCKER", &asked.description).await?;
    operation::write(&app, &started)
}

/// The repository as clients see it.
pub(crate) fn write(repository: &Repository) -> pb::Repository {
    pb::Repository {
        name: format!("projects/{}/locations/{}/repositories/{}", repository.project, repository.region, repository.id),
        format: pb::repository::Format::from_str_name(&repository.format).unwrap_or_default() as i32,
        description: repository.description.clone(),
        create_time: Some(time(repository.created)),
        update_time: Some(time(repository.updated)),
        mode: pb::repository::Mode::StandardRepository as i32,
        ..Default::default()
    }
}
