//! The methods of snapshots.

use events::pubsub::{Kind, Snapshot};
use model::{Status, Timestamp};
use proto::google::pubsub::v1 as pb;

use super::{PageOf, mask_read, may, name_read, page_of, scope};
use crate::{
    app::App,
    convert::{refuse, time},
    grpc::Context,
    mask::masked,
};

pub(super) async fn create(app: App, context: Context, request: pb::CreateSnapshotRequest) -> Result<pb::Snapshot, Status> {
    refuse(!request.tags.is_empty(), "tags")?;
    let subscription = name_read(&app, "subscription", Kind::Subscriptions, &request.subscription)?;
    may(&app, &context, "pubsub.subscriptions.consume", &subscription)?;
    let snapshot = app.pubsub.snapshot_create(context.event_name(Kind::Snapshots)?, subscription, request.labels.into_iter().collect()).await?;
    Ok(write(&app, &snapshot))
}

pub(super) async fn get(app: App, context: Context, _: pb::GetSnapshotRequest) -> Result<pb::Snapshot, Status> {
    Ok(write(&app, &*app.pubsub.snapshot_get(&context.event_name(Kind::Snapshots)?)?))
}

pub(super) async fn list(app: App, context: Context, request: pb::ListSnapshotsRequest) -> Result<pb::ListSnapshotsResponse, Status> {
    let project = context.project()?;
    let find = |after: Option<&str>, limit| Ok(app.pubsub.snapshot_list(&project, after, limit));
    let key = |snapshot: &Snapshot| snapshot.name.id.clone();
    let PageOf { items, next } = page_of(&app, &scope("snapshots", &project), &request.page_token, request.page_size, find, key).await?;
    Ok(pb::ListSnapshotsResponse { snapshots: items.iter().map(|snapshot| write(&app, snapshot)).collect(), next_page_token: next })
}

pub(super) async fn update(app: App, context: Context, request: pb::UpdateSnapshotRequest) -> Result<pb::Snapshot, Status> {
    let name = context.event_name(Kind::Snapshots)?;
    let paths = mask_read("UpdateSnapshotRequest", request.update_mask)?;
    if let Some(path) = paths.iter().find(|path| matches!(path.as_str(), "name" | "topic" | "*")) {
        return Err(Status::invalid(format!("Invalid update_mask provided in the UpdateSnapshotRequest: the '{path}' field in the Snapshot is not mutable.")));
    }
    let current = write(&app, &*app.pubsub.snapshot_get(&name)?);
    let wanted = request.snapshot.unwrap_or_default();
    let snapshot = app.pubsub.snapshot_update(name, move |old| {
        let current = pb::Snapshot { labels: old.labels.clone().into_iter().collect(), expire_time: Some(time(old.expires)), ..current };
        let new = masked(&current, wanted, &paths)?;
        let expires = new.expire_time.ok_or_else(|| Status::invalid_field("snapshot.expire_time", "it is missing"))?;
        let expires = Timestamp::new(expires.seconds, expires.nanos).map_err(|_| Status::invalid_field("snapshot.expire_time", "it is no time"))?;
        Ok(Snapshot { labels: new.labels.into_iter().collect(), expires, ..old })
    });
    Ok(write(&app, &snapshot.await?))
}

pub(super) async fn delete(app: App, context: Context, _: pb::DeleteSnapshotRequest) -> Result<(), Status> {
    app.pubsub.snapshot_delete(context.event_name(Kind::Snapshots)?).await
}

fn write(app: &App, snapshot: &Snapshot) -> pb::Snapshot {
    pb::Snapshot {
        name: snapshot.name.to_string(),
        topic: app.pubsub.snapshot_topic(snapshot),
        expire_time: Some(time(snapshot.expires)),
        labels: snapshot.labels.clone().into_iter().collect(),
    }
}
