//! Eventarc v1: triggers, and the providers of events that there are. The rules are `control`'s.
//!
//! There are no channels of third parties, and nothing of Eventarc Advanced. Source: google/cloud/eventarc/v1/eventarc.proto.

mod provider;
mod shape;

use control::Versioned;
use model::{
    Code, ProjectId, Status,
    operation::{Operation, Verb},
    trigger::{Trigger, TriggerKey},
};
use prost::{Message, Name};
use proto::google::{cloud::eventarc::v1 as pb, longrunning as lro};

use crate::{
    Deps,
    app::App,
    convert::{refuse, time},
    error,
    filter::Filter,
    grpc::{Context, Group, Method},
    mask,
    permission::on,
    transcode,
};

pub(crate) use shape::{filter_operator, filters_read};

const HOSTS: &[&str] = &["eventarc.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const LOCATION: &str = "projects/{project}/locations/{location}";
const TRIGGER: &str = "projects/{project}/locations/{location}/triggers/{trigger}";
const PROVIDER: &str = "projects/{project}/locations/{location}/providers/{provider}";
const CHANNEL: &str = "projects/{project}/locations/{location}/channels/{channel}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.eventarc.v1.Eventarc/GetTrigger",
            on("eventarc.triggers.get", TRIGGER),
            |r: &pb::GetTriggerRequest| r.name.clone(),
            ("name", TRIGGER),
            trigger_get,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/ListTriggers",
            on("eventarc.triggers.list", PROJECT),
            |r: &pb::ListTriggersRequest| r.parent.clone(),
            ("parent", LOCATION),
            trigger_list,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/CreateTrigger",
            on("eventarc.triggers.create", PROJECT),
            |r: &pb::CreateTriggerRequest| r.parent.clone(),
            ("parent", LOCATION),
            trigger_create,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/UpdateTrigger",
            on("eventarc.triggers.update", TRIGGER),
            |r: &pb::UpdateTriggerRequest| r.trigger.as_ref().map(|trigger| trigger.name.clone()).unwrap_or_default(),
            ("trigger.name", TRIGGER),
            trigger_update,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/DeleteTrigger",
            on("eventarc.triggers.delete", TRIGGER),
            |r: &pb::DeleteTriggerRequest| r.name.clone(),
            ("name", TRIGGER),
            trigger_delete,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/GetProvider",
            on("eventarc.providers.get", PROJECT),
            |r: &pb::GetProviderRequest| r.name.clone(),
            ("name", PROVIDER),
            provider::get,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/ListProviders",
            on("eventarc.providers.list", PROJECT),
            |r: &pb::ListProvidersRequest| r.parent.clone(),
            ("parent", LOCATION),
            provider::list,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/GetChannel",
            on("eventarc.channels.get", PROJECT),
            |r: &pb::GetChannelRequest| r.name.clone(),
            ("name", CHANNEL),
            channel_get,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/ListChannels",
            on("eventarc.channels.list", PROJECT),
            |r: &pb::ListChannelsRequest| r.parent.clone(),
            ("parent", LOCATION),
            channel_list,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/CreateChannel",
            on("eventarc.channels.create", PROJECT),
            |r: &pb::CreateChannelRequest| r.parent.clone(),
            ("parent", LOCATION),
            channel_create,
        )
        .unary(
            "google.cloud.eventarc.v1.Eventarc/GetGoogleChannelConfig",
            on("eventarc.googleChannelConfigs.get", PROJECT),
            |r: &pb::GetGoogleChannelConfigRequest| r.name.clone(),
            ("name", "projects/{project}/locations/{location}/googleChannelConfig"),
            google_channel_config_get,
        )
        .into_methods()
}

fn key(context: &Context) -> Result<TriggerKey, Status> {
    TriggerKey::new(context.project()?, context.location()?, context.var("trigger")?)
}

async fn trigger_get(app: App, context: Context, _: pb::GetTriggerRequest) -> Result<pb::Trigger, Status> {
    Ok(shape::write(&app.control.trigger_get(&key(&context)?)?.value))
}

async fn trigger_list(app: App, context: Context, request: pb::ListTriggersRequest) -> Result<pb::ListTriggersResponse, Status> {
    refuse(!request.order_by.is_empty(), "order_by")?;
    let (project, location) = (context.project()?, context.location_or_all()?);
    let filter = Filter::parse(&request.filter)?;
    let scope = format!("triggers/{project}/{}/{}", context.var("location")?, request.filter);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let (mut triggers, mut after) = (Vec::new(), asked.after.clone());
    loop {
        let found = app.control.trigger_list(&project, location.as_ref(), after.as_deref(), asked.size + 1)?;
        for trigger in &found {
            if triggers.len() == asked.size {
                let next_page_token = app.pages.token(&scope, after.as_deref().unwrap_or_default()).await?;
                return Ok(pb::ListTriggersResponse { triggers, next_page_token, ..Default::default() });
            }
            let written = shape::write(&trigger.value);
            if request.filter.is_empty() || filter.matches(&transcode::to_json(&written)?) {
                triggers.push(written);
            }
            after = Some(model::key::trigger(&trigger.value.key));
        }
        if found.len() <= asked.size {
            return Ok(pb::ListTriggersResponse { triggers, ..Default::default() });
        }
    }
}

async fn trigger_create(app: App, context: Context, request: pb::CreateTriggerRequest) -> Result<lro::Operation, Status> {
    let key = TriggerKey::new(context.project()?, context.location()?, &request.trigger_id)?;
    let written = request.trigger.ok_or_else(|| Status::invalid_field("trigger", "it is required"))?;
    let wish = shape::read(&app, &key, written, None)?;
    let (trigger, operation) = app.control.trigger_create(&context.who, wish, request.validate_only).await?;
    answer(&app, &operation, request.validate_only.then_some(&trigger))
}

async fn trigger_update(app: App, context: Context, request: pb::UpdateTriggerRequest) -> Result<lro::Operation, Status> {
    let key = key(&context)?;
    let written = request.trigger.ok_or_else(|| Status::invalid_field("trigger", "it is required"))?;
    let found = match app.control.trigger_get(&key) {
        Err(absent) if absent.code == Code::NotFound && request.allow_missing => {
            let may = app.iam.may(Some(&context.who), "eventarc.triggers.create", &format!("projects/{}", key.project), key.project.as_str());
            if !may {
                return Err(Status::permission_denied("eventarc.triggers.create", &key.resource()));
            }
            let wish = shape::read(&app, &key, written, None)?;
            let (trigger, operation) = app.control.trigger_create(&context.who, wish, request.validate_only).await?;
            return answer(&app, &operation, request.validate_only.then_some(&trigger));
        }
        found => found?,
    };
    etag_check(&found, &written.etag)?;
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    let merged = mask::masked(&shape::write(&found.value), written, &paths)?;
    let wish = shape::read(&app, &key, merged, Some(&found.value))?;
    let (trigger, operation) = app.control.trigger_replace(&context.who, &found, wish, request.validate_only).await?;
    answer(&app, &operation, request.validate_only.then_some(&trigger))
}

async fn trigger_delete(app: App, context: Context, request: pb::DeleteTriggerRequest) -> Result<lro::Operation, Status> {
    let key = key(&context)?;
    let found = match app.control.trigger_get(&key) {
        // Nothing was to be done, and it is done.
        Err(absent) if absent.code == Code::NotFound && request.allow_missing => {
            let name = format!("projects/{}/locations/{}/operations/{}", key.project, key.location, uuid::Uuid::new_v4());
            let gone = any(&pb::Trigger { name: key.resource(), ..Default::default() });
            return Ok(lro::Operation { name, metadata: None, done: true, result: Some(lro::operation::Result::Response(gone)) });
        }
        found => found?,
    };
    etag_check(&found, &request.etag)?;
    let operation = app.control.trigger_delete(&found, request.validate_only).await?;
    answer(&app, &operation, request.validate_only.then_some(&found.value))
}

/// The operation; of a request that was only checked, one that is done and kept nowhere.
fn answer(deps: &Deps, operation: &Operation, checked: Option<&Trigger>) -> Result<lro::Operation, Status> {
    let TriggerOf { key, uid, verb } = trigger_in(operation)?;
    let written = operation_to(deps, operation, key, uid, verb)?;
    Ok(match checked {
        Some(trigger) => lro::Operation { done: true, result: Some(lro::operation::Result::Response(any(&shape::write(trigger)))), ..written },
        None => written,
    })
}

struct TriggerOf<'a> {
    key: &'a TriggerKey,
    uid: &'a str,
    verb: Verb,
}

fn trigger_in(operation: &Operation) -> Result<TriggerOf<'_>, Status> {
    match &operation.subject {
        model::operation::Subject::Trigger { key, uid, verb, .. } => Ok(TriggerOf { key, uid, verb: *verb }),
        _ => Err(Status::internal("an operation of a trigger is about something else")),
    }
}

fn etag_check(found: &Versioned<Trigger>, written: &str) -> Result<(), Status> {
    if written.is_empty() || written == shape::etag(&found.value) {
        return Ok(());
    }
    Err(Status::new(Code::Aborted, format!("The etag of {} is not {written:?}: it was changed meanwhile. Read it again.", found.value.key.resource())))
}

async fn channel_get(_: App, context: Context, request: pb::GetChannelRequest) -> Result<pb::Channel, Status> {
    context.location()?;
    Err(Status::not_found(format!("Resource '{}' was not found", request.name)))
}

async fn channel_list(app: App, context: Context, request: pb::ListChannelsRequest) -> Result<pb::ListChannelsResponse, Status> {
    refuse(!request.order_by.is_empty(), "order_by")?;
    let (project, _): (ProjectId, _) = (context.project()?, context.location_or_all()?);
    app.pages.read(&format!("channels/{project}/{}", context.var("location")?), &request.page_token, i64::from(request.page_size)).await?;
    Ok(pb::ListChannelsResponse::default())
}

async fn channel_create(_: App, _: Context, _: pb::CreateChannelRequest) -> Result<lro::Operation, Status> {
    Err(Status::invalid_field("channel", "channels carry events of third parties and of custom sources, which are not served by this server"))
}

async fn google_channel_config_get(_: App, context: Context, request: pb::GetGoogleChannelConfigRequest) -> Result<pb::GoogleChannelConfig, Status> {
    context.location()?;
    Ok(pb::GoogleChannelConfig { name: request.name, ..Default::default() })
}

/// The trigger of an operation, as it is now; its name alone once it is gone, or when it is another one of the name.
pub(crate) fn trigger_of(deps: &Deps, key: &TriggerKey, uid: &str) -> Result<pb::Trigger, Status> {
    match deps.control.trigger_get(key) {
        Ok(found) if found.value.uid == uid => Ok(shape::write(&found.value)),
        Ok(_) => Ok(pb::Trigger { name: key.resource(), ..Default::default() }),
        Err(error) if error.code == Code::NotFound => Ok(pb::Trigger { name: key.resource(), uid: uid.to_owned(), ..Default::default() }),
        Err(error) => Err(error),
    }
}

/// An operation on a trigger, as clients see it.
pub(crate) fn operation_to(deps: &Deps, operation: &Operation, key: &TriggerKey, uid: &str, verb: Verb) -> Result<lro::Operation, Status> {
    let metadata = pb::OperationMetadata {
        create_time: Some(time(operation.created)),
        end_time: operation.finished.map(time),
        target: key.resource(),
        verb: match verb {
            Verb::Create => "create",
            Verb::Replace => "update",
            Verb::Delete => "delete",
        }
        .to_owned(),
        api_version: "v1".to_owned(),
        ..Default::default()
    };
    let result = match (&operation.error, operation.finished) {
        (_, None) => None,
        (Some(why), _) => Some(lro::operation::Result::Error(error::rpc_status(why))),
        (None, _) => Some(lro::operation::Result::Response(any(&trigger_of(deps, key, uid)?))),
    };
    Ok(lro::Operation {
        name: format!("projects/{}/locations/{}/operations/{}", operation.project, operation.region, operation.id),
        metadata: Some(any(&metadata)),
        done: operation.finished.is_some(),
        result,
    })
}

fn any<T: Message + Name>(message: &T) -> prost_types::Any {
    prost_types::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}
