//! Buckets: their JSON, and the methods on them.
//!
//! Fields that would have an effect here are kept (labels, storage class, CORS, access configuration) or refused by name; those
//! that only the server writes are passed over, as Google does.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use control::Versioned;
use events::storage::{etag, time};
use model::{
    Code, ProjectNumber, Timestamp,
    limits::SOFT_DELETE_DEFAULT_S,
    policy::Member,
    storage::{Bucket, SoftDelete},
};
use serde_json::{Map, Value, json};

use super::{error::Error, policy, query::Query, staying};
use crate::{Deps, Response, surface::Call};

/// Buckets on a page, unless fewer are asked for.
const PAGE_MAX: usize = 1000;
const LABELS_MAX: usize = 64;
/// Kept as they are written: [`Bucket::kept`].
pub(crate) const CORS: &str = "cors";
const IAM_CONFIGURATION: &str = "iamConfiguration";
/// Written by the server only.
const OUTPUT: &[&str] = &[
    "kind",
    "id",
    "selfLink",
    "projectNumber",
    "metageneration",
    "generation",
    "etag",
    "timeCreated",
    "updated",
    "locationType",
    "owner",
    "satisfiesPZS",
    "satisfiesPZI",
    "softDeleteTime",
    "hardDeleteTime",
    "objectRetention",
];
/// Accepted as long as they ask for nothing, with what this server does instead.
const OFF: &[(&str, &str)] = &[
    ("acl", "access is by IAM only"),
    ("defaultObjectAcl", "access is by IAM only"),
    ("encryption", "objects are not encrypted with keys of Cloud KMS"),
    ("website", "buckets are not web sites"),
    ("logging", "access logs are not written"),
    ("billing", "nobody pays"),
    ("autoclass", "storage classes have no effect"),
    ("hierarchicalNamespace", "folders are prefixes of names"),
    ("customPlacementConfig", "there is one place"),
    ("ipFilter", "requests are not filtered by address"),
];
const CLASSES: &[&str] = &["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY"];
/// Locations that are no region.
const MULTI_REGIONS: &[&str] = &["US", "EU", "ASIA"];
const DUAL_REGIONS: &[&str] = &["ASIA1", "EUR4", "EUR5", "EUR7", "EUR8", "NAM4"];

/// What a body may do to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Makes it.
    Insert,
    /// Changes what it names.
    Patch,
    /// Replaces all that can be written.
    Update,
}

pub(crate) async fn get(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["ifMetagenerationMatch", "ifMetagenerationNotMatch", "generation"]])?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?;
    if query.integer("ifMetagenerationMatch")?.is_some_and(|wanted| wanted != bucket.value.metageneration) {
        return Err(Error::condition_not_met());
    }
    if query.integer("ifMetagenerationNotMatch")? == Some(bucket.value.metageneration) {
        return Err(Error::not_modified());
    }
    if query.integer("generation")?.is_some_and(|wanted| wanted != generation(&bucket.value)) {
        return Err(Error::not_found("The specified bucket does not exist."));
    }
    query.answer(bucket_json(&bucket.value, number(&deps, &bucket.value)?))
}

pub(crate) async fn list(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["project", "prefix", "maxResults", "pageToken"]])?;
    let project = deps.control.project_get(query.required("project")?)?;
    let limit = limit(&query, PAGE_MAX)?;
    let token = match query.get("pageToken") {
        Some(text) => String::from_utf8(STANDARD.decode(text).unwrap_or_default())
            .ok()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Error::invalid("Invalid value for pageToken"))?,
        None => String::new(),
    };
    let mut found = deps.control.bucket_list(&project.id, query.get("prefix").unwrap_or_default())?;
    found.retain(|bucket| bucket.value.name > token);
    let more = found.len() > limit;
    found.truncate(limit);
    let mut body = json!({ "kind": "storage#buckets", "items": found.iter().map(|bucket| bucket_json(&bucket.value, project.number)).collect::<Vec<_>>() });
    if let (true, Some(last)) = (more, found.last()) {
        body["nextPageToken"] = STANDARD.encode(&last.value.name).into();
    }
    query.answer(body)
}

pub(crate) async fn insert(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["project", "enableObjectRetention"]])?;
    let project = deps.control.project_get(query.required("project")?)?;
    let body: Map<String, Value> = call.json().await?;
    let now = deps.clock.now();
    let mut bucket = Bucket {
        name: String::new(),
        project: project.id,
        location: "US".to_owned(),
        created: now,
        updated: now,
        metageneration: 1,
        storage_class: "STANDARD".to_owned(),
        labels: BTreeMap::new(),
        kept: BTreeMap::new(),
        versioning: false,
        soft_delete: SoftDelete { retention_s: SOFT_DELETE_DEFAULT_S, effective: None },
        retention: None,
        object_retention: query.flag("enableObjectRetention")?,
        default_event_based_hold: false,
        lifecycle: Vec::new(),
    };
    bucket_apply(&mut bucket, &body, Body::Insert, now)?;
    if bucket.name.is_empty() {
        return Err(Error::invalid("Required field: name"));
    }
    let made = deps.control.bucket_create(bucket).await.map_err(|status| match status.code {
        Code::AlreadyExists => Error::conflict(status.outer),
        _ => status.into(),
    })?;
    query.answer(bucket_json(&made.value, project.number))
}

pub(crate) async fn patch(deps: Deps, call: Call) -> Result<Response, Error> {
    change(deps, call, Body::Patch).await
}

pub(crate) async fn update(deps: Deps, call: Call) -> Result<Response, Error> {
    change(deps, call, Body::Update).await
}

async fn change(deps: Deps, mut call: Call, how: Body) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["ifMetagenerationMatch", "ifMetagenerationNotMatch"]])?;
    let body: Map<String, Value> = call.json().await?;
    let Versioned { value: mut bucket, revision } = deps.control.bucket_get(call.var("bucket")?)?;
    conditions(&query, &bucket)?;
    bucket_apply(&mut bucket, &body, how, deps.clock.now())?;
    if public_access_prevented(&bucket) && policy::is_public(&deps.iam.policy_get(&policy::resource(&bucket.name))?.policy) {
        return Err(Error::condition(
            "The bucket's policy has bindings for allUsers or allAuthenticatedUsers: remove them before public access prevention is enforced.",
        ));
    }
    let number = number(&deps, &bucket)?;
    let changed = deps.control.bucket_update(bucket, revision).await.map_err(|status| match status.code {
        // Someone else wrote between our reading and writing.
        Code::Aborted | Code::FailedPrecondition => Error::conflict("The metadata of the bucket was changed at the same time. Please try again."),
        _ => status.into(),
    })?;
    query.answer(bucket_json(&changed.value, number))
}

pub(crate) async fn delete(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["ifMetagenerationMatch", "ifMetagenerationNotMatch"]])?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    conditions(&query, &bucket)?;
    deps.control.bucket_delete(&bucket.name).await.map_err(|status| match status.code {
        Code::FailedPrecondition | Code::Aborted => Error::conflict("The bucket you tried to delete is not empty."),
        _ => status.into(),
    })?;
    Ok(super::no_content())
}

/// Locks the retention, for ever.
pub(crate) async fn retention_lock(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["ifMetagenerationMatch"]])?;
    let metageneration = query.integer("ifMetagenerationMatch")?.ok_or_else(|| Error::invalid("Required parameter: ifMetagenerationMatch"))?;
    let number = number(&deps, &deps.control.bucket_get(call.var("bucket")?)?.value)?;
    let locked = deps.control.bucket_retention_lock(call.var("bucket")?, metageneration).await.map_err(Error::of_write)?;
    query.answer(bucket_json(&locked.value, number))
}

/// How the bucket lays out its objects: flat.
pub(crate) async fn layout(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["prefix"]])?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    query.answer(json!({
        "kind": "storage#storageLayout", "bucket": bucket.name, "location": bucket.location, "locationType": location_type(&bucket.location),
        "hierarchicalNamespace": { "enabled": false },
    }))
}

/// A bucket's parts that do not exist here, listed as what they are: none.
pub(crate) async fn none_of(call: Call, kind: &'static str, known: &'static [&'static str]) -> Result<Response, Error> {
    Query::of(&call, &[known])?.answer(json!({ "kind": kind }))
}

fn conditions(query: &Query, bucket: &Bucket) -> Result<(), Error> {
    let fails = query.integer("ifMetagenerationMatch")?.is_some_and(|wanted| wanted != bucket.metageneration)
        || query.integer("ifMetagenerationNotMatch")? == Some(bucket.metageneration);
    if fails { Err(Error::condition_not_met()) } else { Ok(()) }
}

/// `maxResults`, at most `max`.
pub(crate) fn limit(query: &Query, max: usize) -> Result<usize, Error> {
    match query.integer("maxResults")? {
        None | Some(0) => Ok(max),
        Some(asked) if asked > 0 => Ok(usize::try_from(asked).unwrap_or(max).min(max)),
        Some(asked) => Err(Error::invalid(format!("Invalid value for maxResults: {asked} is negative."))),
    }
}

fn number(deps: &Deps, bucket: &Bucket) -> Result<ProjectNumber, Error> {
    Ok(deps.control.project_get(bucket.project.as_str())?.number)
}

fn generation(bucket: &Bucket) -> i64 {
    bucket.created.as_microsecond()
}

/// The resource `storage#bucket`.
pub(crate) fn bucket_json(bucket: &Bucket, project: ProjectNumber) -> Value {
    let kept = |name: &str| bucket.kept.get(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut json = json!({
        "kind": "storage#bucket",
        "id": bucket.name,
        "selfLink": format!("https://www.googleapis.com/storage/v1/b/{}", bucket.name),
        "projectNumber": project.to_string(),
        "name": bucket.name,
        "timeCreated": time(bucket.created),
        "updated": time(bucket.updated),
        "generation": generation(bucket).to_string(),
        "metageneration": bucket.metageneration.to_string(),
        "etag": etag(&[bucket.metageneration]),
        "location": bucket.location,
        "locationType": location_type(&bucket.location),
        "storageClass": bucket.storage_class,
        "iamConfiguration": kept(IAM_CONFIGURATION).unwrap_or_else(|| json!({ "uniformBucketLevelAccess": { "enabled": true }, "publicAccessPrevention": "inherited" })),
    });
    staying::write(bucket, &mut json);
    if let Some(cors) = kept(CORS) {
        json["cors"] = cors;
    }
    if !bucket.labels.is_empty() {
        json["labels"] = json!(bucket.labels);
    }
    json
}

/// Whether nobody unknown may be let in.
pub(crate) fn public_access_prevented(bucket: &Bucket) -> bool {
    let kept = bucket.kept.get(IAM_CONFIGURATION).and_then(|text| serde_json::from_str::<Value>(text).ok());
    kept.is_some_and(|configuration| configuration["publicAccessPrevention"] == "enforced")
}

/// Reads a body into `bucket`.
pub(crate) fn bucket_apply(bucket: &mut Bucket, body: &Map<String, Value>, how: Body, now: Timestamp) -> Result<(), Error> {
    if how == Body::Update {
        staying::clear(bucket);
        bucket.labels.clear();
        bucket.kept.clear();
        bucket.storage_class = "STANDARD".to_owned();
    }
    for (name, value) in body {
        match name.as_str() {
            "name" if how == Body::Insert => bucket.name = text(name, value)?,
            "name" if value.is_null() || value == &bucket.name => {}
            "name" => return Err(Error::invalid("The field name cannot be changed.")),
            "location" if how == Body::Insert => bucket.location = location(&text(name, value)?)?,
            "location" if value.is_null() || value.as_str().is_some_and(|l| l.eq_ignore_ascii_case(&bucket.location)) => {}
            "location" => return Err(Error::invalid("The field location cannot be changed.")),
            "storageClass" => bucket.storage_class = storage_class(value)?,
            "labels" => labels(&mut bucket.labels, value, how)?,
            CORS => cors(&mut bucket.kept, value)?,
            IAM_CONFIGURATION => iam_configuration(&mut bucket.kept, value)?,
            "rpo" if value.is_null() || value == "DEFAULT" => {}
            output if OUTPUT.contains(&output) => {}
            other if staying::read(bucket, other, value, now)? => {}
            other => off(other, value, OFF)?,
        }
    }
    Ok(())
}

/// Refuses a field that asks for something this server does not have, or that is not known at all.
pub(crate) fn off(name: &str, value: &Value, table: &[(&str, &str)]) -> Result<(), Error> {
    match table.iter().find(|(off, _)| *off == name) {
        None => Err(Error::not_served(name, "no field that it knows has this name")),
        Some(_) if asks_nothing(value) => Ok(()),
        Some((_, instead)) => Err(Error::not_served(name, &format!("{instead}; leave the field out"))),
    }
}

/// `null`, `false`, zero, empty, or made of these only.
fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(asks_nothing),
    }
}

fn text(name: &str, value: &Value) -> Result<String, Error> {
    value.as_str().map(str::to_owned).ok_or_else(|| Error::invalid(format!("Invalid value for field {name}: it is no string.")))
}

fn location(text: &str) -> Result<String, Error> {
    let upper = text.to_ascii_uppercase();
    let known = MULTI_REGIONS.contains(&upper.as_str()) || DUAL_REGIONS.contains(&upper.as_str()) || model::Region::parse(&upper.to_ascii_lowercase()).is_ok();
    if known {
        Ok(upper)
    } else {
        Err(Error::invalid(format!("The specified location constraint is not valid: {text:?}. An example of one that is: asia-northeast1.")))
    }
}

fn location_type(location: &str) -> &'static str {
    match location {
        multi if MULTI_REGIONS.contains(&multi) => "multi-region",
        dual if DUAL_REGIONS.contains(&dual) => "dual-region",
        _ => "region",
    }
}

pub(crate) fn storage_class(value: &Value) -> Result<String, Error> {
    match value {
        Value::Null => Ok("STANDARD".to_owned()),
        Value::String(class) if CLASSES.contains(&class.to_ascii_uppercase().as_str()) => Ok(class.to_ascii_uppercase()),
        other => Err(Error::invalid(format!("Invalid argument: storageClass {other} is none of {}.", CLASSES.join(", ")))),
    }
}

fn labels(labels: &mut BTreeMap<String, String>, value: &Value, how: Body) -> Result<(), Error> {
    let members = match value {
        Value::Null => {
            labels.clear();
            return Ok(());
        }
        Value::Object(members) => members,
        _ => return Err(Error::invalid("Invalid value for field labels: it is no object.")),
    };
    for (key, value) in members {
        match value {
            Value::Null if how == Body::Patch => {
                labels.remove(key);
            }
            Value::String(value) if label(key, false) && label(value, true) => {
                labels.insert(key.clone(), value.clone());
            }
            _ => {
                return Err(Error::invalid(format!(
                    "Invalid label {key:?}: keys and values have at most 63 lower-case letters, digits, - and _; a key begins with a letter."
                )));
            }
        }
    }
    if labels.len() > LABELS_MAX { Err(Error::invalid(format!("More than {LABELS_MAX} labels."))) } else { Ok(()) }
}

fn label(text: &str, may_be_empty: bool) -> bool {
    let chars_fit = text.chars().all(|c| c == '-' || c == '_' || (c.is_alphanumeric() && !c.is_uppercase()));
    let begins = may_be_empty || text.chars().next().is_some_and(char::is_alphabetic);
    text.chars().count() <= 63 && chars_fit && begins
}

/// What pages of other origins may do: `xml::cors`.
fn cors(kept: &mut BTreeMap<String, String>, value: &Value) -> Result<(), Error> {
    const MEMBERS: [&str; 4] = ["origin", "method", "responseHeader", "maxAgeSeconds"];
    match value {
        Value::Null => {
            kept.remove(CORS);
        }
        Value::Array(rules) if rules.is_empty() => {
            kept.remove(CORS);
        }
        Value::Array(rules) => {
            for rule in rules {
                let members = rule.as_object().ok_or_else(|| Error::invalid("Invalid value for field cors: a rule is no object."))?;
                if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
                    return Err(Error::not_served(&format!("cors.{unknown}"), "no field that it knows has this name"));
                }
            }
            kept.insert(CORS.to_owned(), value.to_string());
        }
        _ => return Err(Error::invalid("Invalid value for field cors: it is no array.")),
    }
    Ok(())
}

fn iam_configuration(kept: &mut BTreeMap<String, String>, value: &Value) -> Result<(), Error> {
    let Some(members) = value.as_object() else {
        return if value.is_null() { Ok(()) } else { Err(Error::invalid("Invalid value for field iamConfiguration: it is no object.")) };
    };
    let mut configuration: Value = kept
        .get(IAM_CONFIGURATION)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| json!({ "uniformBucketLevelAccess": { "enabled": true }, "publicAccessPrevention": "inherited" }));
    for (name, value) in members {
        match name.as_str() {
            // The older name of the same; what it says is said below too.
            "bucketPolicyOnly" => {}
            "uniformBucketLevelAccess" => match &value["enabled"] {
                Value::Bool(enabled) => configuration[name] = json!({ "enabled": enabled }),
                Value::Null => {}
                _ => return Err(Error::invalid("Invalid value for field iamConfiguration.uniformBucketLevelAccess.enabled: it is no boolean.")),
            },
            "publicAccessPrevention" => match value.as_str() {
                Some(text @ ("enforced" | "inherited")) => configuration[name] = text.into(),
                Some("unspecified") => configuration[name] = "inherited".into(),
                _ if value.is_null() => configuration[name] = "inherited".into(),
                _ => {
                    return Err(Error::invalid(format!(
                        "Invalid value for field iamConfiguration.publicAccessPrevention: {value} is neither enforced nor inherited."
                    )));
                }
            },
            other => return Err(Error::not_served(&format!("iamConfiguration.{other}"), "no field that it knows has this name")),
        }
    }
    kept.insert(IAM_CONFIGURATION.to_owned(), configuration.to_string());
    Ok(())
}

/// Whether a member is anyone.
pub(crate) fn anyone(member: &Member) -> bool {
    matches!(member, Member::AllUsers | Member::AllAuthenticatedUsers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Bucket {
        let at = "2026-11-24T06:20:13.316566Z";
        serde_json::from_value(json!({
            "name": "", "project": "local-project", "location": "US", "created": at, "updated": at, "metageneration": 1, "storage_class": "STANDARD",
        }))
        .unwrap()
    }

    fn apply(bucket: &mut Bucket, body: Value, how: Body) -> Result<(), Error> {
        bucket_apply(bucket, body.as_object().unwrap(), how, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_bucket_of_a_source_deploy_is_kept_and_given_back() {
        let cors = json!([{ "method": ["GET"], "origin": ["https://*.cloud.google.com"] }]);
        let body = json!({ "cors": cors, "iamConfiguration": { "uniformBucketLevelAccess": { "enabled": true } }, "location": "asia-northeast1", "name": "run-sources-local-project-asia-northeast1" });
        let mut bucket = empty();
        apply(&mut bucket, body, Body::Insert).unwrap();
        let json = bucket_json(&bucket, ProjectNumber(123456789012));
        assert_eq!(json["cors"], cors);
        assert_eq!(json["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"], true);
        assert_eq!((&json["location"], &json["locationType"]), (&json!("ASIA-NORTHEAST1"), &json!("region")));
        assert_eq!((&json["etag"], &json["timeCreated"], &json["projectNumber"]), (&json!("CAE="), &json!("2026-11-24T06:20:13.316Z"), &json!("123456789012")));
    }

    #[test]
    fn fields_have_an_effect_or_are_refused_by_name() {
        let check = |body: Value, refused: Option<&str>| match (apply(&mut empty(), body.clone(), Body::Insert), refused) {
            (Ok(()), None) => {}
            (Err(error), Some(name)) => assert!(format!("{error:?}").contains(name), "{body}: {error:?}"),
            (result, _) => panic!("{body}: {result:?}"),
        };
        check(
            json!({ "versioning": { "enabled": false }, "lifecycle": { "rule": [] }, "softDeletePolicy": { "retentionDurationSeconds": "0" }, "acl": [] }),
            None,
        );
        check(json!({ "kind": "storage#bucket", "etag": "CAE=", "rpo": "DEFAULT", "storageClass": "nearline", "labels": { "a": "b" } }), None);
        check(json!({ "encryption": { "defaultKmsKeyName": "k" } }), Some("encryption"));
        check(json!({ "nonsense": 1 }), Some("nonsense"));
        check(json!({ "location": "moon" }), Some("moon"));
        check(json!({ "storageClass": "FAST" }), Some("FAST"));
        check(json!({ "labels": { "A": "b" } }), Some("A"));
        check(json!({ "cors": [{ "x": 1 }] }), Some("cors.x"));
        check(json!({ "iamConfiguration": { "publicAccessPrevention": "maybe" } }), Some("publicAccessPrevention"));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_an_update_the_rest_too() {
        let mut bucket = empty();
        apply(&mut bucket, json!({ "name": "b-1", "labels": { "a": "1", "b": "2" }, "storageClass": "COLDLINE", "cors": [{ "origin": ["*"] }] }), Body::Insert)
            .unwrap();
        apply(&mut bucket, json!({ "labels": { "a": null, "c": "3" } }), Body::Patch).unwrap();
        assert_eq!(bucket.labels.keys().map(String::as_str).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!((bucket.storage_class.as_str(), bucket.kept.len()), ("COLDLINE", 1));
        assert!(apply(&mut bucket.clone(), json!({ "location": "EU" }), Body::Patch).is_err());
        apply(&mut bucket, json!({ "name": "b-1", "location": "us" }), Body::Update).unwrap();
        assert_eq!((bucket.labels.len(), bucket.storage_class.as_str(), bucket.kept.len()), (0, "STANDARD", 0));
    }
}
