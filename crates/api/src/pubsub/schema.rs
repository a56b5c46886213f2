//! The methods of schemas, and a topic's settings of one.
//!
//! A name may hold a revision, `projects/P/schemas/S@R`; a policy is the schema's, and says nothing of revisions.

use events::{
    pubsub::{Kind, Name, SchemaChoice, SchemaSettings, SchemaView},
    schema::{Encoding, Language},
};
use model::{Code, Status};
use proto::google::pubsub::v1 as pb;

use super::{PageOf, may, name_read, page_of, scope};
use crate::{app::App, convert::time, grpc::Context};

pub(super) async fn create(app: App, context: Context, request: pb::CreateSchemaRequest) -> Result<pb::Schema, Status> {
    let name = Name::new(Kind::Schemas, context.project()?, &request.schema_id)?;
    let (language, text) = read(request.schema)?;
    full(&app, &app.pubsub.schema_create(name, language, text).await?)
}

pub(super) async fn get(app: App, context: Context, request: pb::GetSchemaRequest) -> Result<pb::Schema, Status> {
    let (name, revision) = revised(&context)?;
    may(&app, &context, "pubsub.schemas.get", &name)?;
    let view = app.pubsub.schema_get(&name, revision.as_deref())?;
    if request.view == pb::SchemaView::Basic as i32 { Ok(basic(&view)) } else { full(&app, &view) }
}

pub(super) async fn list(app: App, context: Context, request: pb::ListSchemasRequest) -> Result<pb::ListSchemasResponse, Status> {
    let project = context.project()?;
    let find = |after: Option<&str>, limit| Ok(app.pubsub.schema_list(&project, after, limit));
    let key = |schema: &SchemaView| schema.name.id.clone();
    let PageOf { items, next } = page_of(&app, &scope("schemas", &project), &request.page_token, request.page_size, find, key).await?;
    Ok(pb::ListSchemasResponse { schemas: written(&app, &items, request.view)?, next_page_token: next })
}

pub(super) async fn revisions(app: App, context: Context, request: pb::ListSchemaRevisionsRequest) -> Result<pb::ListSchemaRevisionsResponse, Status> {
    let name = context.event_name(Kind::Schemas)?;
    let find = |after: Option<&str>, limit| app.pubsub.schema_revisions(&name, after, limit);
    let key = |schema: &SchemaView| schema.revision.id.clone();
    let PageOf { items, next } = page_of(&app, &format!("revisions of {name}"), &request.page_token, request.page_size, find, key).await?;
    Ok(pb::ListSchemaRevisionsResponse { schemas: written(&app, &items, request.view)?, next_page_token: next })
}

pub(super) async fn commit(app: App, context: Context, request: pb::CommitSchemaRequest) -> Result<pb::Schema, Status> {
    let name = context.event_name(Kind::Schemas)?;
    let (language, text) = read(request.schema)?;
    full(&app, &app.pubsub.schema_commit(name, language, text).await?)
}

pub(super) async fn rollback(app: App, context: Context, request: pb::RollbackSchemaRequest) -> Result<pb::Schema, Status> {
    if request.revision_id.is_empty() {
        return Err(Status::invalid_field("revision_id", "it is required"));
    }
    full(&app, &app.pubsub.schema_rollback(context.event_name(Kind::Schemas)?, request.revision_id).await?)
}

#[expect(deprecated, reason = "who sends it is told that it says nothing")]
pub(super) async fn revision_delete(app: App, context: Context, request: pb::DeleteSchemaRevisionRequest) -> Result<pb::Schema, Status> {
    let (name, revision) = revised(&context)?;
    may(&app, &context, "pubsub.schemas.delete", &name)?;
    if !request.revision_id.is_empty() && revision.as_ref() != Some(&request.revision_id) {
        return Err(Status::invalid_field("revision_id", "the revision is named by name, as projects/PROJECT/schemas/SCHEMA@REVISION"));
    }
    let revision = revision.ok_or_else(|| Status::invalid_field("name", "it must name a revision: projects/PROJECT/schemas/SCHEMA@REVISION"))?;
    full(&app, &app.pubsub.schema_revision_delete(name, revision).await?)
}

pub(super) async fn delete(app: App, context: Context, _: pb::DeleteSchemaRequest) -> Result<(), Status> {
    app.pubsub.schema_delete(context.event_name(Kind::Schemas)?).await
}

pub(super) async fn validate(app: App, _: Context, request: pb::ValidateSchemaRequest) -> Result<pb::ValidateSchemaResponse, Status> {
    let (language, text) = read(request.schema)?;
    app.pubsub.schema_validate(language, text).await?;
    Ok(pb::ValidateSchemaResponse {})
}

pub(super) async fn message_validate(app: App, context: Context, request: pb::ValidateMessageRequest) -> Result<pb::ValidateMessageResponse, Status> {
    use pb::validate_message_request::SchemaSpec;
    let encoding = encoding_read("encoding", request.encoding)?;
    match request.schema_spec {
        Some(SchemaSpec::Name(written)) => {
            let (written, revision) = match written.split_once('@') {
                Some((name, revision)) => (name, Some(revision.to_owned())),
                None => (written.as_str(), None),
            };
            let name = name_read(&app, "name", Kind::Schemas, written)?;
            may(&app, &context, "pubsub.schemas.get", &name)?;
            app.pubsub.message_validate_by(&name, revision, encoding, request.message).await?;
        }
        Some(SchemaSpec::Schema(schema)) => {
            let (language, text) = read(Some(schema))?;
            app.pubsub.message_validate(language, text, encoding, request.message).await?;
        }
        None => return Err(Status::invalid_field("schema_spec", "one of name and schema is required")),
    }
    Ok(pb::ValidateMessageResponse {})
}

/// What a topic is to have, as its owner wrote it; `old` is what it has.
///
/// # Errors
/// `NOT_FOUND` for the schema or a revision; `PERMISSION_DENIED` when the caller may not attach it.
pub(super) fn settings_read(
    app: &App,
    context: &Context,
    written: Option<pb::SchemaSettings>,
    old: Option<&SchemaSettings>,
) -> Result<Option<SchemaSettings>, Status> {
    let Some(written) = written else { return Ok(None) };
    // What is not changed stays, also when its schema was deleted.
    if let Some(old) = old.filter(|old| settings_write(app, old) == written) {
        return Ok(Some(old.clone()));
    }
    let schema = name_read(app, "schema_settings.schema", Kind::Schemas, &written.schema)?;
    may(app, context, "pubsub.schemas.attach", &schema)?;
    let named = |revision: String| Some(revision).filter(|revision| !revision.is_empty());
    let choice = SchemaChoice {
        schema,
        encoding: encoding_read("schema_settings.encoding", written.encoding)?,
        first: named(written.first_revision_id),
        last: named(written.last_revision_id),
    };
    app.pubsub.schema_choose(choice).map(Some)
}

pub(super) fn settings_write(app: &App, settings: &SchemaSettings) -> pb::SchemaSettings {
    pb::SchemaSettings {
        schema: app.pubsub.schema_name(settings),
        encoding: match settings.encoding {
            Encoding::Json => pb::Encoding::Json,
            Encoding::Binary => pb::Encoding::Binary,
        } as i32,
        first_revision_id: settings.first.clone().unwrap_or_default(),
        last_revision_id: settings.last.clone().unwrap_or_default(),
    }
}

/// The schema of a name that may hold a revision, and that revision.
fn revised(context: &Context) -> Result<(Name, Option<String>), Status> {
    let (id, revision) = match context.var("schema")?.split_once('@') {
        Some((id, revision)) => (id, Some(revision.to_owned())),
        None => (context.var("schema")?, None),
    };
    Ok((Name::new(Kind::Schemas, context.project()?, id)?, revision))
}

fn read(schema: Option<pb::Schema>) -> Result<(Language, String), Status> {
    let schema = schema.ok_or_else(|| Status::invalid_field("schema", "it is required"))?;
    let language = match pb::schema::Type::try_from(schema.r#type) {
        Ok(pb::schema::Type::Avro) => Language::Avro,
        Ok(pb::schema::Type::ProtocolBuffer) => Language::ProtocolBuffer,
        _ => return Err(Status::invalid_field("schema.type", "Invalid schema type: it must be AVRO or PROTOCOL_BUFFER")),
    };
    Ok((language, schema.definition))
}

fn encoding_read(field: &str, encoding: i32) -> Result<Encoding, Status> {
    match pb::Encoding::try_from(encoding) {
        Ok(pb::Encoding::Json) => Ok(Encoding::Json),
        Ok(pb::Encoding::Binary) => Ok(Encoding::Binary),
        _ => Err(Status::invalid_field(field, "it must be JSON or BINARY")),
    }
}

fn basic(view: &SchemaView) -> pb::Schema {
    pb::Schema {
        name: view.name.to_string(),
        r#type: match view.language {
            Language::Avro => pb::schema::Type::Avro,
            Language::ProtocolBuffer => pb::schema::Type::ProtocolBuffer,
        } as i32,
        definition: String::new(),
        revision_id: view.revision.id.clone(),
        revision_create_time: Some(time(view.revision.created)),
    }
}

fn full(app: &App, view: &SchemaView) -> Result<pb::Schema, Status> {
    Ok(pb::Schema { definition: app.pubsub.schema_text(view)?, ..basic(view) })
}

/// Those of a list; what was deleted while it was made is left out of it.
fn written(app: &App, views: &[SchemaView], view: i32) -> Result<Vec<pb::Schema>, Status> {
    if view != pb::SchemaView::Full as i32 {
        return Ok(views.iter().map(basic).collect());
    }
    let texts = views.iter().map(|view| full(app, view)).filter(|read| !matches!(read, Err(gone) if gone.code == Code::NotFound));
    texts.collect()
}
