//! google.cloud.location: the regions, for every API that has them.

use model::{Region, Status, address::REGIONS};
use proto::google::cloud::location as pb;

use crate::{
    app::App,
    grpc::{Context, Group, Method},
    permission::on,
};

const HOSTS: &[&str] = &[
    "run.googleapis.com",
    "cloudbuild.googleapis.com",
    "artifactregistry.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudscheduler.googleapis.com",
    "eventarc.googleapis.com",
];

pub(crate) fn methods(app: &App) -> Vec<Method> {
    const PROJECT: &str = "projects/{project}";
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.location.Locations/ListLocations",
            on("run.locations.list", PROJECT),
            |r: &pb::ListLocationsRequest| r.name.clone(),
            ("name", PROJECT),
            location_list,
        )
        .unary(
            "google.cloud.location.Locations/GetLocation",
            on("run.locations.list", PROJECT),
            |r: &pb::GetLocationRequest| r.name.clone(),
            ("name", "projects/{project}/locations/{location}"),
            location_get,
        )
        .into_methods()
}

async fn location_list(app: App, context: Context, request: pb::ListLocationsRequest) -> Result<pb::ListLocationsResponse, Status> {
    if !request.filter.is_empty() {
        return Err(Status::invalid_field("filter", "filters of locations are not supported by this server; leave it out"));
    }
    let project = context.var("project")?;
    let scope = format!("locations/{project}");
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let mut rest = REGIONS.iter().map(|(region, _)| *region).filter(|region| asked.after.as_deref().is_none_or(|after| *region > after));
    let page: Vec<&str> = rest.by_ref().take(asked.size).collect();
    let next_page_token = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => app.pages.token(&scope, last).await?,
        _ => String::new(),
    };
    Ok(pb::ListLocationsResponse { locations: page.into_iter().map(|region| write(project, region)).collect(), next_page_token })
}

async fn location_get(_: App, context: Context, _: pb::GetLocationRequest) -> Result<pb::Location, Status> {
    let region = Region::parse(context.var("location")?).map_err(|error| Status::not_found(error.outer))?;
    Ok(write(context.var("project")?, region.as_str()))
}

fn write(project: &str, region: &str) -> pb::Location {
    pb::Location {
        name: format!("projects/{project}/locations/{region}"),
        location_id: region.to_owned(),
        display_name: region.to_owned(),
        labels: [("cloud.googleapis.com/region".to_owned(), region.to_owned())].into(),
        metadata: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_in_the_order_in_which_pages_go_on() {
        assert!(REGIONS.is_sorted_by_key(|(region, _)| *region));
    }
}
