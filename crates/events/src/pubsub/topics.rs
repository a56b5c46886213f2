//! Topics: made, changed, deleted, published to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{ProjectId, Status, key, limits::TOPICS_MAX};
use store::{Expect, Write};

use super::{
    Inner, PubSub,
    message::{Message, publish_check},
    name::{Kind, Name, quota_check},
    record::{SchemaSettings, Topic, uid_new},
    stream::Stream,
};

pub(crate) struct RunningTopic {
    pub(crate) record: Topic,
    pub(crate) stream: Arc<Stream>,
}

/// What an owner sets of a topic that is made.
#[derive(Clone, Debug, Default)]
pub struct TopicNew {
    pub labels: BTreeMap<String, String>,
    pub retention: Option<Duration>,
    /// From [`PubSub::schema_choose`].
    pub schema: Option<SchemaSettings>,
}

impl PubSub {
    /// # Errors
    /// `ALREADY_EXISTS`; `INVALID_ARGUMENT` naming the field at fault; `RESOURCE_EXHAUSTED`.
    pub async fn topic_create(&self, name: Name, new: TopicNew) -> Result<Topic, Status> {
        let inner = self.inner.clone();
        let TopicNew { labels, retention, schema } = new;
        let record = Topic { name, uid: uid_new(), labels, retention, schema, created: inner.clock.now() };
        record.check()?;
        // On a task of its own: a caller who hangs up does not leave half of it.
        run(async move {
            let _changes = inner.changes.lock().await;
            {
                let tables = inner.tables.read();
                if tables.topics.contains_key(&record.name) {
                    return Err(record.name.taken());
                }
                let of_project = tables.topics.keys().filter(|name| name.project == record.name.project).count();
                quota_check(Kind::Topics, of_project, TOPICS_MAX)?;
            }
            let stream = Stream::open(inner.store.clone(), &record.uid, &inner.memory)?;
            inner.commit(Write::put(key::topic(&record.name.project, &record.name.id), Expect::Absent, &record)).await?;
            let mut tables = inner.tables.write();
            tables.streams.insert(record.uid.clone(), stream.clone());
            tables.topics.insert(record.name.clone(), Arc::new(RunningTopic { record: record.clone(), stream }));
            Ok(record)
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub fn topic_get(&self, name: &Name) -> Result<Topic, Status> {
        Ok(self.inner.topic(name)?.record.clone())
    }

    /// The topics of a project by id, after `after`, at most `limit`.
    pub fn topic_list(&self, project: &ProjectId, after: Option<&str>, limit: usize) -> Vec<Topic> {
        page(&self.inner.tables.read().topics, Kind::Topics, project, after, limit, |topic| topic.record.clone())
    }

    /// Lets `change` make another topic of it; name and uid stay.
    ///
    /// # Errors
    /// `NOT_FOUND`; those of `change`; `INVALID_ARGUMENT` naming the field at fault.
    pub async fn topic_update(&self, name: Name, change: impl FnOnce(Topic) -> Result<Topic, Status> + Send + 'static) -> Result<Topic, Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let found = inner.topic(&name)?;
            let old = found.record.clone();
            let record = Topic { name: old.name.clone(), uid: old.uid.clone(), created: old.created, ..change(old)? };
            record.check()?;
            inner.commit(Write::put(key::topic(&name.project, &name.id), Expect::Any, &record)).await?;
            let topic = Arc::new(RunningTopic { record: record.clone(), stream: found.stream.clone() });
            inner.tables.write().topics.insert(name, topic);
            Ok(record)
        })
        .await
    }

    /// Deletes a topic; its subscriptions keep what was published.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn topic_delete(&self, name: Name) -> Result<(), Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let topic = inner.topic(&name)?;
            inner.outside.policy_forget(name.to_string()).await?;
            inner.commit(Write::delete(key::topic(&name.project, &name.id), Expect::Any)).await?;
            inner.tables.write().topics.remove(&name);
            inner.stream_release(&topic.record.uid).await
        })
        .await
    }

    /// The names of a topic's subscriptions, by name, after `after`, at most `limit`. Detached ones are not its own any more.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn topic_subscriptions(&self, name: &Name, after: Option<&str>, limit: usize) -> Result<Vec<Name>, Status> {
        let uid = self.inner.topic(name)?.record.uid.clone();
        let tables = self.inner.tables.read();
        let records = tables.subscriptions.values().map(|running| running.record()).filter(|record| record.topic_uid == uid && !record.is_detached);
        Ok(records.map(|record| record.name.clone()).filter(|name| after.is_none_or(|after| name.to_string().as_str() > after)).take(limit).collect())
    }

    /// The names of a topic's snapshots, by name, after `after`, at most `limit`.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn topic_snapshots(&self, name: &Name, after: Option<&str>, limit: usize) -> Result<Vec<Name>, Status> {
        let uid = self.inner.topic(name)?.record.uid.clone();
        let tables = self.inner.tables.read();
        let snapshots = tables.snapshots.values().filter(|snapshot| snapshot.topic_uid == uid);
        Ok(snapshots.map(|snapshot| snapshot.name.clone()).filter(|name| after.is_none_or(|after| name.to_string().as_str() > after)).take(limit).collect())
    }

    /// Publishes a batch, all or none; the messages' ids, once all lie on disk.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for what is over a limit or does not follow the topic's schema; `UNAVAILABLE` when the disk does not take
    /// it: then it may be there or not.
    pub async fn publish(&self, name: &Name, messages: Vec<Message>) -> Result<Vec<String>, Status> {
        let topic = self.inner.topic(name)?;
        publish_check(&messages)?;
        let messages = match &topic.record.schema {
            Some(settings) => self.inner.clone().schema_apply(settings, messages).await?,
            None => messages,
        };
        let count = messages.len() as u64;
        let first = topic.stream.publish(messages, self.inner.clock.now()).await?;
        Ok((first..first + count).map(|sequence| topic.stream.message_id(sequence)).collect())
    }
}

/// The part of a table that one list asks for.
pub(super) fn page<T, R>(table: &BTreeMap<Name, Arc<T>>, kind: Kind, project: &ProjectId, after: Option<&str>, limit: usize, read: impl Fn(&T) -> R) -> Vec<R> {
    let from = Name { kind, project: project.clone(), id: after.unwrap_or_default().to_owned() };
    let of_project = table.range(from..).take_while(|(name, _)| name.project == *project);
    of_project.filter(|(name, _)| after != Some(name.id.as_str())).take(limit).map(|(_, value)| read(value)).collect()
}

/// Runs a change to its end, whatever becomes of who asked for it.
pub(super) async fn run<T: Send + 'static>(change: impl Future<Output = Result<T, Status>> + Send + 'static) -> Result<T, Status> {
    tokio::spawn(change).await.unwrap_or_else(|error| Err(Status::internal(error)))
}

impl Inner {
    /// The topic of this uid, unless it is deleted.
    pub(crate) fn topic_of(&self, name: &Name, uid: &str) -> Option<Arc<RunningTopic>> {
        self.topic(name).ok().filter(|topic| topic.record.uid == uid)
    }
}
