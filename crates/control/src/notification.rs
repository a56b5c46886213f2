//! Configurations of notifications: which topic is told of a bucket's changes.
//!
//! Source: cloud.google.com/storage/docs/pubsub-notifications.

use model::{
    Code, Status, Timestamp, key,
    limits::NOTIFICATIONS_MAX,
    storage::{Bucket, Notification},
};
use store::{Expect, Write};

use crate::{Context, Control, Versioned, records};

impl Control {
    /// Those of a bucket, by id.
    /// # Errors
    /// `NOT_FOUND` for the bucket.
    pub fn notification_list(&self, bucket: &str) -> Result<Vec<Notification>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        self.context.notifications(&bucket)
    }

    /// # Errors
    /// `NOT_FOUND` for bucket or configuration.
    pub fn notification_get(&self, bucket: &str, id: &str) -> Result<Notification, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        Ok(self.context.notification(&bucket, id)?.value)
    }

    /// Adds one; its id is set here.
    /// # Errors
    /// `NOT_FOUND` for the bucket; `INVALID_ARGUMENT` for a topic that is not there; `RESOURCE_EXHAUSTED` past a hundred.
    pub async fn notification_create(&self, bucket: &str, notification: Notification) -> Result<Notification, Status> {
        self.context.notification_create(bucket, notification).await
    }

    /// # Errors
    /// `NOT_FOUND` for bucket or configuration.
    pub async fn notification_delete(&self, bucket: &str, id: &str) -> Result<(), Status> {
        let cx = &self.context;
        let bucket = cx.bucket_get(bucket)?.value;
        cx.notification(&bucket, id)?;
        records::commit(&cx.store, vec![Write::delete(notification_key(&bucket, id), Expect::Any)]).await?;
        Ok(())
    }
}

impl Context {
    pub(crate) async fn notification_create(&self, bucket: &str, notification: Notification) -> Result<Notification, Status> {
        let bucket = self.bucket_get(bucket)?.value;
        if !self.topics.is_there(&notification.topic)? {
            return Err(Status::invalid(format!("No such topic: //pubsub.googleapis.com/{}", notification.topic)));
        }
        loop {
            let found = self.notifications(&bucket)?;
            if found.len() >= NOTIFICATIONS_MAX {
                return Err(Status::new(
                    Code::ResourceExhausted,
                    format!("The bucket {} has {NOTIFICATIONS_MAX} notification configurations already.", bucket.name),
                ));
            }
            let last = found.iter().filter_map(|notification| notification.id.parse::<u64>().ok()).max().unwrap_or(0);
            let notification = Notification { id: (last + 1).to_string(), ..notification.clone() };
            if records::commit(&self.store, vec![Write::put(notification_key(&bucket, &notification.id), Expect::Absent, &notification)]).await?.is_some() {
                return Ok(notification);
            }
        }
    }

    pub(crate) fn notifications(&self, bucket: &Bucket) -> Result<Vec<Notification>, Status> {
        self.notifications_of(&bucket.name, bucket.created)
    }

    /// Those of the bucket that was made at `created`; when it is gone, until the last of its changes was told.
    pub(crate) fn notifications_of(&self, bucket: &str, created: Timestamp) -> Result<Vec<Notification>, Status> {
        let found: Vec<Versioned<Notification>> = records::all(&self.store, &key::notifications_of(bucket, created.as_microsecond()))?;
        Ok(found.into_iter().map(|found| found.value).collect())
    }

    fn notification(&self, bucket: &Bucket, id: &str) -> Result<Versioned<Notification>, Status> {
        let gone = || Status::not_found(format!("Notification {id} not found for bucket {}.", bucket.name));
        records::read(&self.store, &notification_key(bucket, id))?.ok_or_else(gone)
    }
}

pub(crate) fn notification_key(bucket: &Bucket, id: &str) -> String {
    format!("{}{id}", key::notifications_of(&bucket.name, bucket.created.as_microsecond()))
}
