//! Schemas: made, revised, deleted; and the messages of a topic held against them.
//!
//! A schema is a record with the list of its revisions, each revision's text a record beside it. What was parsed is kept for a while
//! (`definitions`). Source of the rules: google/pubsub/v1/schema.proto; of the texts: answers of Google that users have published.

use std::sync::{Arc, LazyLock};

use model::{
    Code, ProjectId, Status, key,
    limits::{PUBLISH_BYTES_MAX, SCHEMA_DEFINITION_BYTES_MAX, SCHEMA_REVISIONS_MAX, SCHEMAS_MAX},
    status::ErrorInfo,
};
use store::{Expect, Write};
use tokio::sync::Semaphore;

use super::{
    Inner, PubSub,
    message::Message,
    name::{Kind, Name, quota_check},
    record::{Revision, Schema, SchemaSettings, uid_new},
    topics::{page, run},
};
use crate::schema::{Definition, Encoding, Language, reason};

/// What a deleted schema is called by topics that had it.
pub const DELETED_SCHEMA: &str = "_deleted-schema_";

/// So many bytes of messages are checked at the same time by all publishers together: a text can take forty times its size then.
const CHECKED_AT_ONCE_BYTES: usize = 2 * PUBLISH_BYTES_MAX;
/// What is larger is checked where it holds up no other task.
const CHECKED_INLINE_BYTES: usize = 16 << 10;

static CHECKED: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(CHECKED_AT_ONCE_BYTES));

/// A revision of a schema, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaView {
    pub name: Name,
    uid: String,
    pub language: Language,
    pub revision: Revision,
}

/// What an owner sets of a topic's schema.
#[derive(Clone, Debug)]
pub struct SchemaChoice {
    pub schema: Name,
    pub encoding: Encoding,
    pub first: Option<String>,
    pub last: Option<String>,
}

impl PubSub {
    /// # Errors
    /// `ALREADY_EXISTS`; `INVALID_ARGUMENT` for a definition that cannot be; `RESOURCE_EXHAUSTED`.
    pub async fn schema_create(&self, name: Name, language: Language, text: String) -> Result<SchemaView, Status> {
        let definition = definition_parse(language, text.clone()).await?;
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            {
                let tables = inner.tables.read();
                if tables.schemas.contains_key(&name) {
                    return Err(name.taken());
                }
                quota_check(Kind::Schemas, tables.schemas.keys().filter(|other| other.project == name.project).count(), SCHEMAS_MAX)?;
            }
            let schema = Schema { name, uid: uid_new(), language, revisions: Vec::new() };
            inner.revision_add(schema, &text, definition).await
        })
        .await
    }

    /// A revision; the newest one without an id.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn schema_get(&self, name: &Name, revision: Option<&str>) -> Result<SchemaView, Status> {
        view(&*self.inner.schema(name)?, revision)
    }

    /// The newest revisions of a project's schemas by id, after `after`, at most `limit`.
    pub fn schema_list(&self, project: &ProjectId, after: Option<&str>, limit: usize) -> Vec<SchemaView> {
        page(&self.inner.tables.read().schemas, Kind::Schemas, project, after, limit, |schema| view(schema, None)).into_iter().flatten().collect()
    }

    /// The revisions of a schema, the oldest first, after the one with the id `after`, at most `limit`.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn schema_revisions(&self, name: &Name, after: Option<&str>, limit: usize) -> Result<Vec<SchemaView>, Status> {
        let schema = self.inner.schema(name)?;
        let from = after.map_or(Ok(0), |after| at(&schema, after).map(|at| at + 1))?;
        schema.revisions.iter().skip(from).take(limit).map(|revision| view(&schema, Some(&revision.id))).collect()
    }

    /// The text of a revision.
    ///
    /// # Errors
    /// `NOT_FOUND` when it was deleted meanwhile.
    pub fn schema_text(&self, view: &SchemaView) -> Result<String, Status> {
        self.inner.text(&view.uid, &view.revision.id)?.ok_or_else(|| view.name.missing())
    }

    /// Adds a revision.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for a definition that cannot be, or not after the newest one; `RESOURCE_EXHAUSTED`.
    pub async fn schema_commit(&self, name: Name, language: Language, text: String) -> Result<SchemaView, Status> {
        let definition = definition_parse(language, text.clone()).await?;
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let schema = inner.schema(&name)?;
            let newest = inner.definition(&schema, &newest(&schema).id)?;
            let (new, old) = (definition.clone(), newest);
            let follows = tokio::task::spawn_blocking(move || new.follows(&old)).await.map_err(Status::internal)?;
            follows.map_err(|why| {
                Status::invalid_field("schema.definition", format!("Could not commit the revision: it is not compatible with the one before it: {why}"))
            })?;
            inner.revision_add((*schema).clone(), &text, definition).await
        })
        .await
    }

    /// Adds a revision with the text of an earlier one.
    ///
    /// # Errors
    /// `NOT_FOUND`; `RESOURCE_EXHAUSTED`.
    pub async fn schema_rollback(&self, name: Name, revision: String) -> Result<SchemaView, Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let schema = inner.schema(&name)?;
            at(&schema, &revision)?;
            let definition = inner.definition(&schema, &revision)?;
            let text = inner.text(&schema.uid, &revision)?.ok_or_else(|| name.missing())?;
            inner.revision_add((*schema).clone(), &text, definition).await
        })
        .await
    }

    /// Deletes a revision; the newest one that is left.
    ///
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` for the only one, and for one at which the range of a topic begins or ends.
    pub async fn schema_revision_delete(&self, name: Name, revision: String) -> Result<SchemaView, Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let mut schema = (*inner.schema(&name)?).clone();
            let at = at(&schema, &revision)?;
            if schema.revisions.len() == 1 {
                return Err(Status::failed_precondition(format!("Cannot delete the only revision of the schema {name}. Delete the schema instead.")));
            }
            let names = |settings: &SchemaSettings| {
                settings.schema_uid == schema.uid && [&settings.first, &settings.last].iter().any(|id| id.as_ref() == Some(&revision))
            };
            if let Some(topic) = inner.tables.read().topics.values().find(|topic| topic.record.schema.as_ref().is_some_and(names)) {
                return Err(Status::failed_precondition(format!("The revision {revision} is the first or the last one of the topic {}.", topic.record.name)));
            }
            schema.revisions.remove(at);
            inner.commit_all(vec![schema_put(&schema), Write::delete(key::schema_definition(&schema.uid, &revision), Expect::Any)]).await?;
            inner.definitions.forget(&schema.uid, &revision);
            let left = view(&schema, None);
            inner.tables.write().schemas.insert(name, Arc::new(schema));
            left
        })
        .await
    }

    /// Deletes a schema. To topics that have it nothing can be published until they are given another one, or none.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn schema_delete(&self, name: Name) -> Result<(), Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let schema = inner.schema(&name)?;
            inner.outside.policy_forget(name.to_string()).await?;
            let texts = schema.revisions.iter().map(|revision| Write::delete(key::schema_definition(&schema.uid, &revision.id), Expect::Any));
            inner.commit_all([Write::delete(key::schema(&name.project, &name.id), Expect::Any)].into_iter().chain(texts).collect()).await?;
            inner.tables.write().schemas.remove(&name);
            schema.revisions.iter().for_each(|revision| inner.definitions.forget(&schema.uid, &revision.id));
            Ok(())
        })
        .await
    }

    /// # Errors
    /// `INVALID_ARGUMENT` for a definition that cannot be.
    pub async fn schema_validate(&self, language: Language, text: String) -> Result<(), Status> {
        definition_parse(language, text).await.map(drop)
    }

    /// Whether a message follows a definition that nothing keeps.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a definition that cannot be, or a message that does not follow it.
    pub async fn message_validate(&self, language: Language, text: String, encoding: Encoding, data: Vec<u8>) -> Result<(), Status> {
        let definition = definition_parse(language, text).await?;
        checked(data.len(), true, move || definition.check(encoding, &data).map_err(|why| refusal(language, encoding, None, why))).await
    }

    /// Whether a message follows a schema, by any of its revisions, or by the one that is named.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for a message that does not follow it.
    pub async fn message_validate_by(&self, name: &Name, revision: Option<String>, encoding: Encoding, data: Vec<u8>) -> Result<(), Status> {
        let schema = self.inner.schema(name)?;
        if let Some(revision) = &revision {
            at(&schema, revision)?;
        }
        let settings = SchemaSettings { schema: name.clone(), schema_uid: schema.uid.clone(), encoding, first: revision.clone(), last: revision };
        self.inner.clone().schema_apply(&settings, vec![Message { data: data.into(), ..Message::default() }]).await.map(drop)
    }

    /// The settings of a topic with this schema.
    ///
    /// # Errors
    /// `NOT_FOUND` for the schema or a revision; `INVALID_ARGUMENT` when the first is after the last.
    pub fn schema_choose(&self, choice: SchemaChoice) -> Result<SchemaSettings, Status> {
        let schema = self.inner.schema(&choice.schema)?;
        range(&schema, choice.first.as_deref(), choice.last.as_deref())?;
        Ok(SchemaSettings { schema: choice.schema, schema_uid: schema.uid.clone(), encoding: choice.encoding, first: choice.first, last: choice.last })
    }

    /// The name of a topic's schema, or [`DELETED_SCHEMA`].
    pub fn schema_name(&self, settings: &SchemaSettings) -> String {
        self.inner.schema_of(settings).map_or_else(|| DELETED_SCHEMA.to_owned(), |schema| schema.name.to_string())
    }
}

impl Inner {
    fn schema(&self, name: &Name) -> Result<Arc<Schema>, Status> {
        self.tables.read().schemas.get(name).cloned().ok_or_else(|| name.missing())
    }

    fn schema_of(&self, settings: &SchemaSettings) -> Option<Arc<Schema>> {
        self.schema(&settings.schema).ok().filter(|schema| schema.uid == settings.schema_uid)
    }

    fn text(&self, uid: &str, revision: &str) -> Result<Option<String>, Status> {
        let record = self.store.get(&key::schema_definition(uid, revision)).map_err(Status::internal)?;
        record.map(|record| record.json().map_err(Status::internal)).transpose()
    }

    /// Parsed, from memory or from the store. Blocks.
    fn definition(&self, schema: &Schema, revision: &str) -> Result<Arc<Definition>, Status> {
        if let Some(kept) = self.definitions.get(&schema.uid, revision) {
            return Ok(kept);
        }
        let text = self.text(&schema.uid, revision)?.ok_or_else(|| schema.name.missing())?;
        let parsed = Definition::parse(schema.language, &text).map_err(|why| Status::internal(format!("a stored schema cannot be read: {why}")))?;
        Ok(self.definitions.keep(&schema.uid, revision, text.len(), Arc::new(parsed)))
    }

    /// Stores another revision of `schema`. The lock of changes is held.
    async fn revision_add(&self, mut schema: Schema, text: &str, definition: Arc<Definition>) -> Result<SchemaView, Status> {
        if schema.revisions.len() >= SCHEMA_REVISIONS_MAX {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!(
                    "The schema has exceeded a limit: (type=\"num-schema-revisions\", current={}, maximum={SCHEMA_REVISIONS_MAX}). Delete a revision first.",
                    schema.revisions.len()
                ),
            ));
        }
        let id = loop {
            let id = format!("{:08x}", rand::random::<u32>());
            if !schema.revisions.iter().any(|revision| revision.id == id) {
                break id;
            }
        };
        schema.revisions.push(Revision { id: id.clone(), created: self.clock.now() });
        let writes = vec![schema_put(&schema), Write::put(key::schema_definition(&schema.uid, &id), Expect::Absent, &text)];
        if schema.revisions.len() == 1 {
            self.commit_new(&schema.name, writes).await?
        } else {
            self.commit_all(writes).await?
        }
        self.definitions.keep(&schema.uid, &id, text.len(), definition);
        let added = view(&schema, None);
        self.tables.write().schemas.insert(schema.name.clone(), Arc::new(schema));
        added
    }

    /// The messages with the attributes that name the revision which each follows: of those in the topic's range, the newest.
    ///
    /// # Errors
    /// `NOT_FOUND` when the schema is deleted; `INVALID_ARGUMENT` when a message follows none.
    pub(super) async fn schema_apply(self: Arc<Self>, settings: &SchemaSettings, messages: Vec<Message>) -> Result<Vec<Message>, Status> {
        let schema = self.schema_of(settings).ok_or_else(|| Status::not_found("Schema associated with topic deleted."))?;
        let revisions = range(&schema, settings.first.as_deref(), settings.last.as_deref())?.to_vec();
        let bytes = messages.iter().map(|message| message.data.len()).sum();
        let is_parsed = revisions.iter().all(|revision| self.definitions.get(&schema.uid, &revision.id).is_some());
        let encoding = settings.encoding;
        checked(bytes, !is_parsed, move || messages.into_iter().map(|message| self.stamp(&schema, &revisions, encoding, message)).collect()).await
    }

    fn stamp(&self, schema: &Schema, revisions: &[Revision], encoding: Encoding, mut message: Message) -> Result<Message, Status> {
        let mut refused = None;
        for revision in revisions.iter().rev() {
            match self.definition(schema, &revision.id)?.check(encoding, &message.data) {
                Ok(()) => {
                    let stamps =
                        [("schemaencoding", encoding.name().to_owned()), ("schemaname", schema.name.to_string()), ("schemarevisionid", revision.id.clone())];
                    message.attributes.extend(stamps.map(|(key, value)| (format!("googclient_{key}"), value)));
                    return Ok(message);
                }
                Err(why) => refused = Some((revision, why)),
            }
        }
        let (revision, why) = refused.ok_or_else(|| schema.name.missing())?;
        Err(refusal(schema.language, encoding, Some((&schema.name, &revision.id)), why))
    }
}

/// Runs a check of `bytes` of messages, here or beside, when its turn has come.
async fn checked<T: Send + 'static>(bytes: usize, is_costly: bool, check: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    if bytes > PUBLISH_BYTES_MAX {
        return Err(Status::invalid(format!("The message has {bytes} bytes; the maximum is {PUBLISH_BYTES_MAX}.")));
    }
    let turn = u32::try_from(bytes).unwrap_or(u32::MAX);
    let _turn = CHECKED.acquire_many(turn).await.map_err(Status::internal)?;
    if bytes <= CHECKED_INLINE_BYTES && !is_costly {
        return check();
    }
    tokio::task::spawn_blocking(check).await.unwrap_or_else(|error| Err(Status::internal(error)))
}

async fn definition_parse(language: Language, text: String) -> Result<Arc<Definition>, Status> {
    const FIELD: &str = "schema.definition";
    if text.is_empty() {
        return Err(Status::invalid_field(FIELD, "it is required"));
    }
    if text.len() > SCHEMA_DEFINITION_BYTES_MAX {
        return Err(Status::invalid_field(FIELD, format!("it has {} bytes; at most {SCHEMA_DEFINITION_BYTES_MAX} are allowed", text.len())));
    }
    let parsed = tokio::task::spawn_blocking(move || Definition::parse(language, &text)).await.map_err(Status::internal)?;
    parsed.map(Arc::new).map_err(|why| Status::invalid_field(FIELD, format!("Could not parse schema definition: {why}")))
}

/// In Google's words.
fn refusal(language: Language, encoding: Encoding, last: Option<(&Name, &str)>, why: String) -> Status {
    let (message, revision) = match last {
        Some((name, revision)) => (
            "Message failed schema validation".to_owned(),
            Some(format!(
                "Could not validate message with any schema revision for schema: {name}, last checked revision: revision_id={revision} failed with status: {why}"
            )),
        ),
        None => (format!("Message failed schema validation: {why}"), None),
    };
    let metadata = [("message".to_owned(), message)].into_iter().chain(revision.map(|revision| ("revisionInfo".to_owned(), revision))).collect();
    let mut status = Status::invalid("Invalid data in message: Message failed schema validation.");
    status.info = Some(Box::new(ErrorInfo { reason: reason(language, encoding).to_owned(), domain: "pubsub.googleapis.com".to_owned(), metadata }));
    status
}

fn schema_put(schema: &Schema) -> Write {
    Write::put(key::schema(&schema.name.project, &schema.name.id), Expect::Any, schema)
}

fn newest(schema: &Schema) -> &Revision {
    schema.revisions.last().expect("a schema is stored with a revision, and its only one is never deleted")
}

fn view(schema: &Schema, revision: Option<&str>) -> Result<SchemaView, Status> {
    let revision = revision.map_or(Ok(newest(schema)), |id| at(schema, id).map(|at| &schema.revisions[at]))?;
    Ok(SchemaView { name: schema.name.clone(), uid: schema.uid.clone(), language: schema.language, revision: revision.clone() })
}

/// The place of a revision.
fn at(schema: &Schema, id: &str) -> Result<usize, Status> {
    let missing = || Status::not_found(format!("Resource not found (resource={}@{id}).", schema.name.id));
    schema.revisions.iter().position(|revision| revision.id == id).ok_or_else(missing)
}

fn range<'s>(schema: &'s Schema, first: Option<&str>, last: Option<&str>) -> Result<&'s [Revision], Status> {
    let from = first.map_or(Ok(0), |first| at(schema, first))?;
    let to = last.map_or(Ok(schema.revisions.len() - 1), |last| at(schema, last))?;
    schema
        .revisions
        .get(from..=to)
        .filter(|revisions| !revisions.is_empty())
        .ok_or_else(|| Status::invalid_field("schema_settings.first_revision_id", "it must not have been created after schema_settings.last_revision_id"))
}
