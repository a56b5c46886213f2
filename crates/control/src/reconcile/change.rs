//! What happened to objects, told to whom it concerns, in order: the topics of a bucket's notifications.
//!
//! A change is a record that was committed with the change itself; it is deleted when everyone has been told, so that a crash
//! between tells it once more and loses nothing. A topic that is gone is passed over, and the log says so.

use std::sync::Arc;

use model::{
    Code, Status, key,
    storage::{Bucket, Notification},
};
use store::{Expect, Write};

use super::Reconciler;
use crate::{Context, records};

/// Changes that are told before their records are deleted.
const BATCH: usize = 100;
/// The one key.
const TELL: &str = "tell";

pub(crate) struct Changes(pub Arc<Context>);

impl Reconciler for Changes {
    const NAME: &'static str = "change";
    const PREFIXES: &'static [&'static str] = &[key::OBJECT_CHANGES];

    /// One, for the order.
    fn parallel(&self) -> usize {
        1
    }

    fn concerned(&self, change: &store::Change) -> Vec<String> {
        change.value.iter().map(|_| TELL.to_owned()).collect()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        Ok(vec![TELL.to_owned()])
    }

    async fn step(&self, _: &str) -> Result<(), Status> {
        let cx = &self.0;
        loop {
            // From the beginning each time: of two commits at once the later one may have the smaller number.
            let records = cx.store.scan(key::OBJECT_CHANGES, None, BATCH).map_err(Status::internal)?;
            if records.is_empty() {
                return Ok(());
            }
            let mut told = Vec::new();
            let mut failed = None;
            for record in &records {
                match record.json() {
                    Ok(change) => {
                        if let Err(error) = tell(cx, &change).await {
                            failed = Some(error);
                            break;
                        }
                    }
                    // It would hold up all others for ever.
                    Err(error) => tracing::error!(%error, "a change of an object cannot be read and is told to nobody"),
                }
                told.push(Write::delete(record.key.as_str(), Expect::Any));
            }
            if !told.is_empty() {
                let keys: Vec<String> = told.iter().map(|write| write.key.clone()).collect();
                records::commit(&cx.store, told).await?;
                let mut untold = cx.untold.lock();
                keys.iter().for_each(|key| drop(untold.remove(key)));
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }
}

async fn tell(cx: &Context, change: &model::storage::Change) -> Result<(), Status> {
    for notification in wanting(cx, change)? {
        let message = events::storage::notification_message(change, &notification);
        match cx.topics.publish(&notification.topic, message).await {
            Ok(()) => {}
            Err(status) if matches!(status.code, Code::NotFound | Code::InvalidArgument | Code::PermissionDenied) => {
                tracing::warn!(bucket = change.object.bucket, topic = notification.topic, %status, "a notification could not be published and is dropped");
            }
            Err(status) => return Err(status),
        }
    }
    Ok(())
}

/// The notifications of the bucket, if it is still the one in which the change happened.
fn wanting(cx: &Context, change: &model::storage::Change) -> Result<Vec<Notification>, Status> {
    let Some(bucket) = records::read::<Bucket>(&cx.store, &key::bucket(&change.object.bucket))? else { return Ok(Vec::new()) };
    if bucket.value.created != change.bucket_created {
        return Ok(Vec::new());
    }
    let mut found = cx.notifications(&bucket.value)?;
    found.retain(|notification| notification.wants(change));
    Ok(found)
}
