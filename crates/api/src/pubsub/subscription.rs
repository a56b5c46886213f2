//! The methods of subscriptions as resources; those that deliver are in `delivery`.

use std::time::Duration;

use events::{
    pubsub::{Kind, Name, Oidc, Push, Subscription, SubscriptionNew, SubscriptionView, Wrapper},
    subscription::{ACK_DEADLINE_DEFAULT_S, BACKOFF_MAXIMUM_DEFAULT, BACKOFF_MINIMUM_DEFAULT, DELIVERY_ATTEMPTS_DEFAULT, RETENTION_DEFAULT, Retry, Settings},
};
use iam::Identity;
use model::{Code, Status};
use proto::google::pubsub::v1::{self as pb, push_config};

use super::{PageOf, duration_read, duration_write, mask_read, may, name_read, page_of, scope};
use crate::{
    app::App,
    convert::{count, int, refuse},
    grpc::Context,
    mask::masked,
};

/// The one attribute that a push endpoint can have, and its one value.
const VERSION: (&str, &str) = ("x-goog-version", "v1");
/// Fields of an update mask that cannot be changed.
const IMMUTABLE: [&str; 5] = ["name", "topic", "filter", "enable_message_ordering", "enableMessageOrdering"];

pub(super) async fn create(app: App, context: Context, request: pb::Subscription) -> Result<pb::Subscription, Status> {
    let name = context.event_name(Kind::Subscriptions)?;
    let topic = name_read(&app, "topic", Kind::Topics, &request.topic)?;
    may(&app, &context, "pubsub.topics.attachSubscription", &topic)?;
    let wish = read(&app, &context.who, request)?;
    dead_letter_check(&app, &context, wish.dead_letter_topic.as_ref())?;
    let new = SubscriptionNew {
        name,
        topic,
        settings: wish.settings,
        filter: wish.filter,
        push: wish.push,
        dead_letter_topic: wish.dead_letter_topic,
        ttl: wish.ttl,
        labels: wish.labels,
    };
    Ok(write(&app.pubsub.subscription_create(new).await?))
}

pub(super) async fn get(app: App, context: Context, _: pb::GetSubscriptionRequest) -> Result<pb::Subscription, Status> {
    Ok(write(&app.pubsub.subscription_get(&context.event_name(Kind::Subscriptions)?)?))
}

pub(super) async fn list(app: App, context: Context, request: pb::ListSubscriptionsRequest) -> Result<pb::ListSubscriptionsResponse, Status> {
    let project = context.project()?;
    let find = |after: Option<&str>, limit| Ok(app.pubsub.subscription_list(&project, after, limit));
    let key = |view: &SubscriptionView| view.record.name.id.clone();
    let PageOf { items, next } = page_of(&app, &scope("subscriptions", &project), &request.page_token, request.page_size, find, key).await?;
    Ok(pb::ListSubscriptionsResponse { subscriptions: items.iter().map(write).collect(), next_page_token: next })
}

pub(super) async fn update(app: App, context: Context, request: pb::UpdateSubscriptionRequest) -> Result<pb::Subscription, Status> {
    let name = context.event_name(Kind::Subscriptions)?;
    let paths = mask_read("UpdateSubscriptionRequest", request.update_mask)?;
    if let Some(path) = paths.iter().find(|path| IMMUTABLE.contains(&path.as_str()) || *path == "*") {
        return Err(Status::invalid(format!(
            "Invalid update_mask provided in the UpdateSubscriptionRequest: the '{path}' field in the Subscription is not mutable."
        )));
    }
    let wanted = request.subscription.unwrap_or_default();
    change(app, context, name, move |current| masked(&current, wanted, &paths)).await
}

pub(super) async fn push_modify(app: App, context: Context, request: pb::ModifyPushConfigRequest) -> Result<(), Status> {
    let name = context.event_name(Kind::Subscriptions)?;
    let push_config = request.push_config;
    change(app, context, name, move |current| Ok(pb::Subscription { push_config, ..current })).await.map(drop)
}

/// Reads the subscription, lets `edit` change what clients see of it, and stores what that means.
async fn change(
    app: App,
    context: Context,
    name: Name,
    edit: impl FnOnce(pb::Subscription) -> Result<pb::Subscription, Status> + Send + 'static,
) -> Result<pb::Subscription, Status> {
    let (pubsub, view) = (app.pubsub.clone(), app.pubsub.subscription_get(&name)?);
    let changed = pubsub.subscription_update(name, move |old| {
        let current = SubscriptionView { record: std::sync::Arc::new(old.clone()), ..view };
        let wish = read(&app, &context.who, edit(write(&current))?)?;
        if wish.dead_letter_topic != old.dead_letter_topic {
            dead_letter_check(&app, &context, wish.dead_letter_topic.as_ref())?;
        }
        let push = wish.push.map(|push| push_kept(&old, push));
        Ok(Subscription { settings: wish.settings, push, dead_letter_topic: wish.dead_letter_topic, ttl: wish.ttl, labels: wish.labels, ..old })
    });
    Ok(write(&changed.await?))
}

/// The push of a trigger stays one while its endpoint, which says what it is, does.
fn push_kept(old: &Subscription, push: Push) -> Push {
    let same = old.push.as_ref().filter(|old| old.endpoint == push.endpoint && push.wrapper == Wrapper::Unset);
    Push { trigger: same.and_then(|old| old.trigger.clone()), ..push }
}

/// Google asks whether its agent may publish there; there is none here, so whoever names the topic must be allowed to send to it.
fn dead_letter_check(app: &App, context: &Context, topic: Option<&Name>) -> Result<(), Status> {
    topic.map_or(Ok(()), |topic| may(app, context, "pubsub.topics.publish", topic))
}

pub(super) async fn delete(app: App, context: Context, _: pb::DeleteSubscriptionRequest) -> Result<(), Status> {
    app.pubsub.subscription_delete(context.event_name(Kind::Subscriptions)?).await
}

pub(super) async fn detach(app: App, context: Context, _: pb::DetachSubscriptionRequest) -> Result<pb::DetachSubscriptionResponse, Status> {
    const PERMISSION: &str = "pubsub.topics.detachSubscription";
    let name = context.event_name(Kind::Subscriptions)?;
    match app.pubsub.subscription_get(&name) {
        Ok(view) => may(&app, &context, PERMISSION, &view.record.topic)?,
        // Who may not detach here does not learn which subscriptions there are.
        Err(absent) => {
            let may = app.iam.may(Some(&context.who), PERMISSION, &format!("projects/{}", name.project), name.project.as_str());
            return Err(if may { absent } else { Status::permission_denied(PERMISSION, &name.to_string()) });
        }
    }
    app.pubsub.subscription_detach(name).await?;
    Ok(pb::DetachSubscriptionResponse {})
}

/// What a client asks for, apart from the names.
struct Wish {
    settings: Settings,
    filter: String,
    push: Option<Push>,
    dead_letter_topic: Option<Name>,
    ttl: Option<Duration>,
    labels: std::collections::BTreeMap<String, String>,
}

fn read(app: &App, who: &Identity, wanted: pb::Subscription) -> Result<Wish, Status> {
    refuse(wanted.bigquery_config.is_some_and(|config| !config.table.is_empty()), "bigquery_config")?;
    refuse(wanted.bigtable_config.is_some_and(|config| !config.table.is_empty()), "bigtable_config")?;
    refuse(wanted.cloud_storage_config.is_some_and(|config| !config.bucket.is_empty()), "cloud_storage_config")?;
    refuse(!wanted.message_transforms.is_empty(), "message_transforms")?;
    refuse(!wanted.tags.is_empty(), "tags")?;
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let retry = match wanted.retry_policy {
        None => None,
        Some(policy) => Some(Retry {
            minimum_backoff: policy.minimum_backoff.map_or(Ok(BACKOFF_MINIMUM_DEFAULT), |backoff| duration_read("retry_policy.minimum_backoff", backoff))?,
            maximum_backoff: policy.maximum_backoff.map_or(Ok(BACKOFF_MAXIMUM_DEFAULT), |backoff| duration_read("retry_policy.maximum_backoff", backoff))?,
        }),
    };
    let dead_letter = wanted.dead_letter_policy.filter(|policy| *policy != pb::DeadLetterPolicy::default());
    let dead_letter_topic = match &dead_letter {
        Some(policy) => Some(name_read(app, "dead_letter_policy.dead_letter_topic", Kind::Topics, &policy.dead_letter_topic)?),
        None => None,
    };
    let delivery_attempts_max = match &dead_letter {
        Some(policy) => Some(or(count("dead_letter_policy.max_delivery_attempts", policy.max_delivery_attempts)?, DELIVERY_ATTEMPTS_DEFAULT)),
        None => None,
    };
    let settings = Settings {
        ack_deadline_s: or(count("ack_deadline_seconds", wanted.ack_deadline_seconds)?, ACK_DEADLINE_DEFAULT_S),
        is_ordered: wanted.enable_message_ordering,
        is_exactly_once: wanted.enable_exactly_once_delivery,
        retention: wanted.message_retention_duration.map_or(Ok(RETENTION_DEFAULT), |retention| duration_read("message_retention_duration", retention))?,
        retain_acked: wanted.retain_acked_messages,
        retry,
        delivery_attempts_max,
    };
    let ttl = match wanted.expiration_policy {
        None => Some(Subscription::TTL_DEFAULT),
        Some(policy) => policy.ttl.map(|ttl| duration_read("expiration_policy.ttl", ttl)).transpose()?,
    };
    let push = push_read(app, who, wanted.push_config.unwrap_or_default())?;
    Ok(Wish { settings, filter: wanted.filter, push, dead_letter_topic, ttl, labels: wanted.labels.into_iter().collect() })
}

fn push_read(app: &App, who: &Identity, config: pb::PushConfig) -> Result<Option<Push>, Status> {
    for (name, value) in &config.attributes {
        if (name.as_str(), value.as_str()) != VERSION {
            return Err(Status::invalid_field(
                format!("push_config.attributes[{name}]"),
                format!("{value:?} is not served; {} can be {}", VERSION.0, VERSION.1),
            ));
        }
    }
    if config.push_endpoint.is_empty() {
        let is_set = config.authentication_method.is_some() || config.wrapper.is_some();
        return if is_set { Err(Status::invalid_field("push_config.push_endpoint", "it is missing")) } else { Ok(None) };
    }
    let oidc = match config.authentication_method {
        None => None,
        Some(push_config::AuthenticationMethod::OidcToken(token)) => {
            account_check(app, who, &token.service_account_email)?;
            Some(Oidc { email: token.service_account_email, audience: token.audience })
        }
    };
    let wrapper = match config.wrapper {
        None => Wrapper::Unset,
        Some(push_config::Wrapper::PubsubWrapper(_)) => Wrapper::Wrapped,
        Some(push_config::Wrapper::NoWrapper(wrapper)) => Wrapper::Unwrapped { write_metadata: wrapper.write_metadata },
    };
    Ok(Some(Push { endpoint: config.push_endpoint, oidc, wrapper, trigger: None }))
}

/// Who lets an account call must be allowed to act as it.
fn account_check(app: &App, who: &Identity, email: &str) -> Result<(), Status> {
    let denied =
        || Status::new(Code::PermissionDenied, format!("Permission 'iam.serviceAccounts.actAs' denied on service account {email} (or it may not exist)."));
    let account = app.iam.service_account_get(None, email).map_err(|_| denied())?;
    let resource = format!("projects/{}/serviceAccounts/{}", account.project, account.email);
    if app.iam.may(Some(who), "iam.serviceAccounts.actAs", &resource, account.project.as_str()) { Ok(()) } else { Err(denied()) }
}

fn write(view: &SubscriptionView) -> pb::Subscription {
    let record = &*view.record;
    let settings = &record.settings;
    pb::Subscription {
        name: record.name.to_string(),
        topic: view.topic.clone(),
        push_config: Some(record.push.as_ref().map(push_write).unwrap_or_default()),
        ack_deadline_seconds: int(settings.ack_deadline_s),
        retain_acked_messages: settings.retain_acked,
        message_retention_duration: Some(duration_write(settings.retention)),
        labels: record.labels.clone().into_iter().collect(),
        enable_message_ordering: settings.is_ordered,
        expiration_policy: Some(pb::ExpirationPolicy { ttl: record.ttl.map(duration_write) }),
        filter: record.filter.clone(),
        dead_letter_policy: record.dead_letter_topic.as_ref().map(|topic| pb::DeadLetterPolicy {
            dead_letter_topic: topic.to_string(),
            max_delivery_attempts: int(settings.delivery_attempts_max.unwrap_or(DELIVERY_ATTEMPTS_DEFAULT)),
        }),
        retry_policy: settings.retry.map(|retry| pb::RetryPolicy {
            minimum_backoff: Some(duration_write(retry.minimum_backoff)),
            maximum_backoff: Some(duration_write(retry.maximum_backoff)),
        }),
        detached: record.is_detached,
        enable_exactly_once_delivery: settings.is_exactly_once,
        topic_message_retention_duration: view.topic_retention.map(duration_write),
        state: pb::subscription::State::Active.into(),
        ..Default::default()
    }
}

fn push_write(push: &Push) -> pb::PushConfig {
    pb::PushConfig {
        push_endpoint: push.endpoint.clone(),
        attributes: [(VERSION.0.to_owned(), VERSION.1.to_owned())].into(),
        authentication_method: push.oidc.as_ref().map(|oidc| {
            push_config::AuthenticationMethod::OidcToken(push_config::OidcToken { service_account_email: oidc.email.clone(), audience: oidc.audience.clone() })
        }),
        wrapper: match push.wrapper {
            Wrapper::Unset => None,
            Wrapper::Wrapped => Some(push_config::Wrapper::PubsubWrapper(push_config::PubsubWrapper {})),
            Wrapper::Unwrapped { write_metadata } => Some(push_config::Wrapper::NoWrapper(push_config::NoWrapper { write_metadata })),
        },
    }
}
