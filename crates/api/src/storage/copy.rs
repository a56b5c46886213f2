//! Objects made of objects: `copyTo`, `rewriteTo`, `moveTo`, `compose`.
//!
//! A copy shares the bytes of its source, so that a rewrite of any size is done at the first call.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use control::Preconditions;
use model::{
    limits::COMPOSE_SOURCES_MAX,
    storage::{Bucket, Object},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    error::Error,
    ingest::{Stored, concatenate},
    object::{Draft, denied, may_object, object_find, object_json, read_check, retention_check, write_check},
    query::{CONDITIONS, Query},
};
use crate::{Deps, Response, surface::Call};

const SOURCE_CONDITIONS: &[&str] =
    &["sourceGeneration", "ifSourceGenerationMatch", "ifSourceGenerationNotMatch", "ifSourceMetagenerationMatch", "ifSourceMetagenerationNotMatch"];
/// Source: cloud.google.com/storage/docs/json_api/v1/objects/rewrite.
const REWRITE_QUANTUM_BYTES: i64 = 1 << 20;
/// Fields of a body that say something of the copy; without one it is described as its source.
const DESCRIBES: &[&str] = &["contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl", "metadata"];

pub(crate) async fn copy(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[CONDITIONS, SOURCE_CONDITIONS])?;
    let prepared = prepare(&deps, &mut call, &query).await?;
    let bucket = prepared.bucket.clone();
    let object = prepared.finish(&deps).await?;
    query.answer(object_json(&object, &bucket, &super::base(&call)))
}

pub(crate) async fn rewrite(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[CONDITIONS, SOURCE_CONDITIONS, &["rewriteToken", "maxBytesRewrittenPerCall"]])?;
    let per_call = match query.integer("maxBytesRewrittenPerCall")? {
        None | Some(0) => None,
        Some(bytes) if bytes > 0 && bytes % REWRITE_QUANTUM_BYTES == 0 => Some(bytes as u64),
        Some(bytes) => {
            return Err(Error::invalid(format!("Invalid value for maxBytesRewrittenPerCall: {bytes} is no positive multiple of {REWRITE_QUANTUM_BYTES}.")));
        }
    };
    let prepared = prepare(&deps, &mut call, &query).await?;
    let size = prepared.source.size;
    let before = match query.get("rewriteToken") {
        Some(token) => Token::read(token, &prepared)?,
        None => 0,
    };
    // The bytes are shared, whatever the answer says: who asks for small steps where Google makes them gets them.
    let done = before.saturating_add(per_call.filter(|_| prepared.moves()).unwrap_or(u64::MAX));
    if done < size {
        return query.answer(json!({
            "kind": "storage#rewriteResponse", "done": false, "objectSize": size.to_string(), "totalBytesRewritten": done.to_string(),
            "rewriteToken": Token::write(&prepared, done),
        }));
    }
    let bucket = prepared.bucket.clone();
    let object = prepared.finish(&deps).await?;
    query.answer(json!({
        "kind": "storage#rewriteResponse", "done": true, "objectSize": size.to_string(), "totalBytesRewritten": size.to_string(),
        "resource": object_json(&object, &bucket, &super::base(&call)),
    }))
}

/// A copy that may be made.
struct Prepared {
    source: Object,
    source_bucket: Bucket,
    bucket: Bucket,
    draft: Draft,
    conditions: Preconditions,
}

impl Prepared {
    /// Whether the bytes would go elsewhere at Google: to another location or class. Only then does a rewrite take several calls.
    fn moves(&self) -> bool {
        let class = |class: &str, bucket: &Bucket| if class.is_empty() { bucket.storage_class.clone() } else { class.to_owned() };
        self.source_bucket.location != self.bucket.location
            || class(&self.source.storage_class, &self.source_bucket) != class(&self.draft.storage_class, &self.bucket)
    }

    async fn finish(self, deps: &Deps) -> Result<Object, Error> {
        let Self { source, draft, conditions, .. } = self;
        let stored = Stored { blob: source.blob, size: source.size, crc32c: source.crc32c, md5: source.md5 };
        draft.verify(&stored)?;
        let object = Object { components: source.components, ..draft.object(stored, deps.clock.now()) };
        Ok(deps.control.object_put(object, &conditions).await.map_err(Error::of_write)?.value)
    }
}

/// How far a rewrite has come: bytes, and what it is of. Not sealed: it grants nothing that each call does not ask for again.
struct Token;

impl Token {
    fn write(prepared: &Prepared, done: u64) -> String {
        URL_SAFE_NO_PAD.encode(format!("{done} {}", Self::of(prepared)))
    }

    fn read(token: &str, prepared: &Prepared) -> Result<u64, Error> {
        let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        match text.split_once(' ') {
            Some((done, of)) if of == Self::of(prepared) => done.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| Error::invalid("Invalid value for rewriteToken: it is not one that this rewrite was given."))
    }

    fn of(prepared: &Prepared) -> String {
        let Prepared { source, bucket, draft, .. } = prepared;
        format!("{} {}/{} {}/{}", source.generation, source.bucket, source.name, bucket.name, draft.name)
    }
}

async fn prepare(deps: &Deps, call: &mut Call, query: &Query) -> Result<Prepared, Error> {
    super::encryption_refuse(&call.headers)?;
    let body: Map<String, Value> = call.json().await?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let source_bucket = deps.control.bucket_get(call.var("sourceBucket")?)?.value;
    let source = source(deps, call, &source_bucket.name, call.var("sourceObject")?, query.integer("sourceGeneration")?)?;
    read_check(&source, &query.source_preconditions()?).map_err(|_| Error::condition_not_met())?;
    let describes = body.keys().any(|name| DESCRIBES.contains(&name.as_str()));
    let mut draft = if describes { Draft::default() } else { Draft::of(&source).copied() };
    draft.apply(&body)?;
    let name = call.var("object")?;
    draft.place(&bucket.name, Some(name), &body)?;
    let conditions = query.preconditions()?;
    write_check(deps, call.who.as_ref(), &bucket, name, &conditions)?;
    retention_check(deps, call.who.as_ref(), &bucket, &draft)?;
    Ok(Prepared { source, source_bucket, bucket, draft, conditions })
}

fn source(deps: &Deps, call: &Call, bucket: &str, name: &str, generation: Option<i64>) -> Result<Object, Error> {
    let bucket = deps.control.bucket_get(bucket)?.value;
    let who = call.who.as_ref();
    if !may_object(deps, who, "storage.objects.get", &bucket, name) {
        return Err(denied(who, "storage.objects.get", &bucket).into());
    }
    object_find(deps, who, &bucket, name, generation)
}

/// Another name for an object, within its bucket.
pub(crate) async fn rename(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[CONDITIONS, SOURCE_CONDITIONS])?;
    super::encryption_refuse(&call.headers)?;
    if query.get("sourceGeneration").is_some() {
        return Err(Error::not_served("sourceGeneration", "the live generation is moved; ask for it by ifSourceGenerationMatch"));
    }
    if !call.json::<Map<String, Value>>().await?.is_empty() {
        return Err(Error::invalid("A move takes the object's metadata with it: the body must be empty."));
    }
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let (from, to, who) = (call.var("sourceObject")?, call.var("object")?, call.who.as_ref());
    // Who may move need not be one who may read.
    if !may_object(&deps, who, "storage.objects.move", &bucket, from) {
        for permission in ["storage.objects.get", "storage.objects.delete"] {
            if !may_object(&deps, who, permission, &bucket, from) {
                return Err(denied(who, permission, &bucket).into());
            }
        }
    }
    object_find(&deps, who, &bucket, from, None)?;
    let conditions = query.preconditions()?;
    write_check(&deps, who, &bucket, to, &conditions)?;
    let moved = deps.control.object_move(&bucket.name, from, to, &query.source_preconditions()?, &conditions).await.map_err(Error::of_write)?.value;
    query.answer(object_json(&moved, &bucket, &super::base(&call)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Compose {
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    destination: Map<String, Value>,
    source_objects: Vec<Source>,
    #[serde(default)]
    delete_source_objects: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Source {
    name: String,
    #[serde(default)]
    generation: Option<Number>,
    #[serde(default)]
    object_preconditions: SourceConditions,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SourceConditions {
    #[serde(default)]
    if_generation_match: Option<Number>,
}

/// A 64-bit number is a string in JSON; some clients write a number.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Value")]
struct Number(i64);

impl TryFrom<Value> for Number {
    type Error = String;
    fn try_from(value: Value) -> Result<Self, String> {
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        number.map(Self).ok_or_else(|| format!("{value} is no whole number"))
    }
}

pub(crate) async fn compose(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[CONDITIONS])?;
    super::encryption_refuse(&call.headers)?;
    let asked: Compose = call.json().await?;
    if asked.delete_source_objects {
        return Err(Error::not_served("deleteSourceObjects", "delete the sources after composing"));
    }
    if !(1..=COMPOSE_SOURCES_MAX).contains(&asked.source_objects.len()) {
        return Err(Error::invalid(format!("sourceObjects has {} objects; from 1 to {COMPOSE_SOURCES_MAX} are composed.", asked.source_objects.len())));
    }
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let name = call.var("object")?;
    let mut draft = Draft::default();
    draft.apply(&asked.destination)?;
    draft.place(&bucket.name, Some(name), &asked.destination)?;
    let conditions = query.preconditions()?;
    write_check(&deps, call.who.as_ref(), &bucket, name, &conditions)?;
    retention_check(&deps, call.who.as_ref(), &bucket, &draft)?;
    let (mut parts, mut components) = (Vec::new(), 0u32);
    for wanted in &asked.source_objects {
        let found = source(&deps, &call, &bucket.name, &wanted.name, wanted.generation.map(|number| number.0))?;
        if wanted.object_preconditions.if_generation_match.is_some_and(|number| number.0 != found.generation) {
            return Err(Error::condition_not_met());
        }
        components = components.saturating_add(found.components.max(1));
        parts.push((found.blob, found.size));
    }
    // A composite object has no MD5 at Google, and clients copy the first source's claims: neither speaks of the whole.
    (draft.md5, draft.crc32c) = (String::new(), String::new());
    let stored = concatenate(deps.control.store(), parts).await?;
    let object = Object { md5: String::new(), components, ..draft.object(stored, deps.clock.now()) };
    let object = deps.control.object_put(object, &conditions).await.map_err(Error::of_write)?.value;
    query.answer(object_json(&object, &bucket, &super::base(&call)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_bodies_are_read_strictly() {
        let check = |body: Value, good: bool| assert_eq!(serde_json::from_value::<Compose>(body.clone()).is_ok(), good, "{body}");
        check(json!({ "sourceObjects": [{ "name": "a" }, { "name": "b", "generation": "12" }], "destination": { "contentType": "text/plain" } }), true);
        check(json!({ "kind": "storage#composeRequest", "sourceObjects": [{ "name": "a", "objectPreconditions": { "ifGenerationMatch": 3 } }] }), true);
        check(json!({ "sourceObjects": [{ "name": "a", "bucket": "other" }] }), false);
        check(json!({ "sourceObjects": [{ "name": "a", "generation": "x" }] }), false);
        check(json!({ "destination": {} }), false);
    }
}
