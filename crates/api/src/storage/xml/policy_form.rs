//! POST policies: an object from a web page's form, under conditions that an account has signed.
//!
//! Source: cloud.google.com/storage/docs/xml-api/post-object-forms, and .../authentication/signatures#policy-document.

use std::collections::HashSet;

use axum::{body::Body, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use iam::Identity;
use model::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        error::Error,
        ingest::{Ingest, drain, frame},
        object::write_check,
        signed,
    },
    NAMESPACE, Query, element,
    form::Form,
    header_text,
    object::{draft_of, etag, form_fields, store, written},
    xml,
};
use crate::{Deps, Response, surface::Call};

/// Fields that no condition speaks of.
const FREE: &[&str] = &["policy", "x-goog-signature", "signature", "googleaccessid", "file"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    expiration: String,
    conditions: Vec<Value>,
}

pub(super) async fn post(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let mut body = std::mem::replace(&mut call.body, Body::empty());
    let answer = posted(deps, call, &mut body).await;
    if answer.is_err() {
        // A browser that still writes would not read why it was refused.
        drain(&mut body).await;
    }
    answer
}

async fn posted(deps: Deps, call: Call, body: &mut Body) -> Result<Response, Error> {
    Query::of(&call.uri, &[])?;
    let malformed = |why: super::form::FormError| Error::invalid(format!("The form is malformed: {why}."));
    let mut form = Form::new(header_text(&call, "content-type").unwrap_or_default()).map_err(malformed)?;
    let mut first = None;
    while !form.at_file() {
        let Some(bytes) = frame(body).await? else { break };
        first = form.push(&bytes).map_err(malformed)?;
    }
    if !form.at_file() {
        form.finish().map_err(malformed)?;
    }
    let fields = Fields::read(form.fields.clone())?;
    let bucket_name = call.var("bucket")?;
    let (who, (least, most)) = fields.signer(&deps, bucket_name)?;
    let key = fields.needed("key")?.replace("${filename}", &form.filename);
    let bucket = match deps.control.bucket_get(bucket_name) {
        Ok(bucket) => bucket.value,
        Err(_) if who.is_none() => return Err(model::Status::unauthenticated().into()),
        Err(absent) => return Err(absent.into()),
    };
    let mut resource = form_fields(fields.0.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if !form.content_type.is_empty() {
        resource.entry("contentType").or_insert_with(|| form.content_type.clone().into());
    }
    let draft = draft_of(resource, &bucket, &key)?;
    let conditions = control::Preconditions::default();
    write_check(&deps, who.as_ref(), &bucket, &draft.name, &conditions)?;
    let mut ingest = Ingest::new(deps.control.store()).await?;
    let mut next = first;
    loop {
        if let Some(bytes) = next.take() {
            ingest.push(bytes).await?;
        }
        if ingest.size() > most {
            break;
        }
        let Some(bytes) = frame(body).await? else { break };
        next = form.push(&bytes).map_err(malformed)?;
    }
    if !(least..=most).contains(&ingest.size()) {
        return Err(Error::policy(format!("The file's size is not within content-length-range: {least} to {most}.")));
    }
    form.finish().map_err(malformed)?;
    let object = store(&deps, draft, ingest.finish().await?, &conditions).await?;
    answer(&call, &fields, &object)
}

fn answer(call: &Call, fields: &Fields, object: &model::storage::Object) -> Result<Response, Error> {
    let headers = written(object)?;
    if let Some(redirect) = fields.get("success_action_redirect").filter(|url| url.starts_with("https://") || url.starts_with("http://")) {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("bucket", object.bucket.as_str()), ("key", &object.name), ("etag", &etag(object))])
            .finish();
        let location = format!("{redirect}{}{query}", if redirect.contains('?') { '&' } else { '?' });
        let location = HeaderValue::from_str(&location).map_err(|_| Error::invalid("success_action_redirect is no URL."))?;
        return Ok((StatusCode::SEE_OTHER, with(headers, header::LOCATION, location)).into_response());
    }
    match fields.get("success_action_status") {
        Some("200") => Ok((StatusCode::OK, headers).into_response()),
        Some("201") => {
            let location = format!("{}/{}/{}", super::super::base(call), object.bucket, object.name);
            let content = element("Location", &location) + &element("Bucket", &object.bucket) + &element("Key", &object.name) + &element("ETag", &etag(object));
            let mut response = xml("PostResponse", NAMESPACE, &content);
            *response.status_mut() = StatusCode::CREATED;
            response.headers_mut().extend(headers);
            Ok(response)
        }
        _ => Ok((StatusCode::NO_CONTENT, headers).into_response()),
    }
}

fn with(mut headers: HeaderMap, name: header::HeaderName, value: HeaderValue) -> HeaderMap {
    headers.insert(name, value);
    headers
}

/// The fields of a form before its file.
struct Fields(Vec<(String, String)>);

impl Fields {
    /// Each name once: the field that the policy was asked about must be the one that is used.
    fn read(fields: Vec<(String, String)>) -> Result<Self, Error> {
        let mut names = HashSet::new();
        match fields.iter().find(|(name, _)| !names.insert(name.to_ascii_lowercase())) {
            Some((name, _)) => Err(Error::invalid(format!("The form has the field {name} twice."))),
            None => Ok(Self(fields)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn needed(&self, name: &str) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| Error::invalid(format!("The form lacks the field {name}.")))
    }

    /// Who signed the form's policy, and the sizes that it allows; nobody for a form without a policy.
    fn signer(&self, deps: &Deps, bucket: &str) -> Result<(Option<Identity>, (u64, u64)), Error> {
        let Some(policy) = self.get("policy") else { return Ok((None, (0, u64::MAX))) };
        let (email, signature) = match self.get("x-goog-signature") {
            Some(signature) => {
                let (email, _) = signed::credential(self.needed("x-goog-credential")?, self.needed("x-goog-algorithm")?, self.needed("x-goog-date")?)?;
                (email, hex::decode(signature).map_err(|_| Error::invalid("x-goog-signature is not hexadecimal."))?)
            }
            None => {
                (self.needed("GoogleAccessId")?.to_owned(), STANDARD.decode(self.needed("signature")?).map_err(|_| Error::invalid("signature is no Base64."))?)
            }
        };
        let who = signed::verified(deps, &email, policy, &signature, None)?;
        let range = self.allowed(bucket, policy, deps.clock.now())?;
        Ok((Some(who), range))
    }

    /// Whether the policy allows the form; the sizes that it allows.
    fn allowed(&self, bucket: &str, policy: &str, now: Timestamp) -> Result<(u64, u64), Error> {
        let bad = |why: &str| Error::policy(format!("The policy is malformed: {why}."));
        let text = STANDARD.decode(policy).map_err(|_| bad("it is no Base64"))?;
        let policy: Policy = serde_json::from_slice(&text).map_err(|why| bad(&why.to_string()))?;
        let end: Timestamp = policy.expiration.parse().map_err(|_| bad("expiration is no time of RFC 3339"))?;
        if end <= now {
            return Err(Error::policy(format!("The policy expired at {end}.")));
        }
        let value = |name: &str| if name.eq_ignore_ascii_case("bucket") { Some(bucket) } else { self.get(name) };
        let (mut range, mut spoken) = ((0, u64::MAX), Vec::new());
        for condition in &policy.conditions {
            let (kind, name, wanted) = match condition {
                Value::Object(members) if members.len() == 1 => {
                    let (name, wanted) = members.iter().next().ok_or_else(|| bad("an empty condition"))?;
                    ("eq", name.as_str(), wanted)
                }
                Value::Array(items) => match items.as_slice() {
                    [Value::String(kind), least, most] if kind == "content-length-range" => {
                        let bounds = least.as_u64().zip(most.as_u64()).ok_or_else(|| bad("content-length-range has two whole numbers"))?;
                        range = bounds;
                        continue;
                    }
                    [Value::String(kind), Value::String(name), wanted] => {
                        (kind.as_str(), name.strip_prefix('$').ok_or_else(|| bad("a field begins with $"))?, wanted)
                    }
                    _ => return Err(bad("a condition has three parts")),
                },
                _ => return Err(bad("a condition is an object of one member or an array")),
            };
            let wanted = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
            let found = value(name).unwrap_or_default();
            let holds = match kind {
                "eq" => found == wanted,
                "starts-with" => found.starts_with(&wanted),
                other => return Err(bad(&format!("{other:?} is no condition"))),
            };
            if !holds {
                return Err(Error::policy(format!("The field {name} does not satisfy the condition {condition}.")));
            }
            spoken.push(name.to_ascii_lowercase());
        }
        let silent = self
            .0
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .find(|name| !FREE.contains(&name.as_str()) && !name.starts_with("x-ignore-") && !spoken.contains(name));
        match silent {
            Some(name) => Err(Error::policy(format!("The policy does not speak of the field {name}."))),
            None => Ok(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_there_once() {
        let fields = |names: [&str; 2]| Fields::read(names.map(|name| (name.to_owned(), String::new())).to_vec());
        assert!(fields(["Content-Type", "content-type"]).is_err());
        assert!(fields(["Content-Type", "key"]).is_ok());
    }

    #[test]
    fn a_form_must_be_what_the_policy_allows() {
        let now: Timestamp = "2026-11-24T06:36:45Z".parse().unwrap();
        let check = |conditions: Value, fields: &[(&str, &str)], part: Option<&str>| {
            let policy = STANDARD.encode(json!({ "expiration": "2026-11-24T07:00:00Z", "conditions": conditions }).to_string());
            let fields = Fields(fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect());
            match (fields.allowed("b", &policy, now), part) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => assert!(format!("{error:?}").contains(part), "{conditions}: {error:?}"),
                (result, _) => panic!("{conditions}: {result:?}"),
            }
        };
        let key = [("key", "user/a.txt"), ("policy", "x"), ("x-goog-signature", "y")];
        check(json!([{ "bucket": "b" }, ["starts-with", "$key", "user/"]]), &key, None);
        check(json!([{ "bucket": "b" }, ["eq", "$key", "user/a.txt"], ["content-length-range", 0, 9]]), &key, None);
        check(json!([{ "bucket": "other" }, { "key": "user/a.txt" }]), &key, Some("bucket"));
        check(json!([["starts-with", "$key", "admin/"]]), &key, Some("key"));
        check(json!([{ "bucket": "b" }]), &key, Some("does not speak of the field key"));
        check(json!([["matches", "$key", "x"]]), &key, Some("no condition"));
        check(json!([["eq", "key", "x"]]), &key, Some("begins with $"));
        check(json!([{ "key": "user/a.txt" }, { "x-goog-meta-a": "1" }]), &key, Some("x-goog-meta-a"));
        let late = STANDARD.encode(json!({ "expiration": "2026-11-24T06:00:00Z", "conditions": [] }).to_string());
        assert!(Fields(Vec::new()).allowed("b", &late, now).is_err());
    }
}
