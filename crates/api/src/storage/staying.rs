//! What a bucket's owner says about how long things stay: versioning, soft deletion, retention, holds, lifecycle rules; as JSON.
//!
//! What follows from it: `model::storage`. Source: the discovery document `storage:v1`; the limits are of
//! cloud.google.com/storage/docs/{soft-delete,bucket-lock,lifecycle}.

use events::storage::time;
use model::{
    Timestamp,
    limits::{LIFECYCLE_AFFIXES_MAX, LIFECYCLE_RULES_MAX, RETENTION_MAX_S, SOFT_DELETE_DEFAULT_S, SOFT_DELETE_MAX_S, SOFT_DELETE_MIN_S},
    storage::{
        Bucket, Retention,
        lifecycle::{Action, Condition, Rule},
    },
};
use serde_json::{Map, Value, json};

use super::{bucket::storage_class, error::Error};

/// What of it a bucket resource has.
pub(crate) fn write(bucket: &Bucket, json: &mut Value) {
    let mut soft = json!({ "retentionDurationSeconds": bucket.soft_delete.retention_s.to_string() });
    if let Some(effective) = bucket.soft_delete.effective {
        soft["effectiveTime"] = time(effective).into();
    }
    json["softDeletePolicy"] = soft;
    if bucket.versioning {
        json["versioning"] = json!({ "enabled": true });
    }
    if let Some(retention) = &bucket.retention {
        let mut policy = json!({ "retentionPeriod": retention.period_s.to_string(), "effectiveTime": time(retention.effective) });
        if retention.locked {
            policy["isLocked"] = true.into();
        }
        json["retentionPolicy"] = policy;
    }
    if bucket.object_retention {
        json["objectRetention"] = json!({ "mode": "Enabled" });
    }
    if bucket.default_event_based_hold {
        json["defaultEventBasedHold"] = true.into();
    }
    if !bucket.lifecycle.is_empty() {
        json["lifecycle"] = json!({ "rule": bucket.lifecycle.iter().map(rule_json).collect::<Vec<_>>() });
    }
}

/// As in a bucket that says nothing of it.
pub(crate) fn clear(bucket: &mut Bucket) {
    (bucket.versioning, bucket.retention, bucket.default_event_based_hold) = (false, None, false);
    bucket.lifecycle.clear();
    bucket.soft_delete.retention_s = SOFT_DELETE_DEFAULT_S;
}

/// Reads the field `name`; `false` when it is none of these.
pub(crate) fn read(bucket: &mut Bucket, name: &str, value: &Value, now: Timestamp) -> Result<bool, Error> {
    match name {
        "versioning" => {
            if let Some(enabled) = member(name, value, &["enabled"], "enabled")? {
                bucket.versioning = enabled.as_bool().ok_or_else(|| bad("versioning.enabled", "it is no boolean"))?;
            } else {
                bucket.versioning &= !value.is_null();
            }
        }
        "defaultEventBasedHold" => match value {
            Value::Null => bucket.default_event_based_hold = false,
            Value::Bool(on) => bucket.default_event_based_hold = *on,
            _ => return Err(bad(name, "it is no boolean")),
        },
        "softDeletePolicy" => {
            const FIELD: &str = "retentionDurationSeconds";
            match member(name, value, &[FIELD, "effectiveTime"], FIELD)? {
                Some(seconds) => {
                    let seconds = whole(seconds).ok_or_else(|| bad("softDeletePolicy.retentionDurationSeconds", "it is no whole number"))?;
                    if seconds != 0 && !(SOFT_DELETE_MIN_S..=SOFT_DELETE_MAX_S).contains(&seconds) {
                        return Err(bad(
                            "softDeletePolicy.retentionDurationSeconds",
                            &format!("{seconds} is neither 0 nor from {SOFT_DELETE_MIN_S} to {SOFT_DELETE_MAX_S}"),
                        ));
                    }
                    bucket.soft_delete.retention_s = seconds;
                }
                None if value.is_null() => bucket.soft_delete.retention_s = SOFT_DELETE_DEFAULT_S,
                None => {}
            }
        }
        "retentionPolicy" => {
            const FIELD: &str = "retentionPeriod";
            match member(name, value, &[FIELD, "effectiveTime", "isLocked"], FIELD)? {
                Some(seconds) => {
                    let seconds = whole(seconds).filter(|seconds| (1..=RETENTION_MAX_S).contains(seconds));
                    let period_s =
                        seconds.ok_or_else(|| bad("retentionPolicy.retentionPeriod", &format!("it is no whole number from 1 to {RETENTION_MAX_S}")))?;
                    let before = bucket.retention.unwrap_or(Retention { period_s, effective: now, locked: false });
                    bucket.retention = Some(Retention { period_s, ..before });
                }
                None if value.is_null() => bucket.retention = None,
                None => return Err(bad("retentionPolicy.retentionPeriod", "it is missing")),
            }
        }
        "lifecycle" => bucket.lifecycle = lifecycle(value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The member `wanted` of the object `value`, all of whose members are `known`.
fn member<'a>(name: &str, value: &'a Value, known: &[&str], wanted: &str) -> Result<Option<&'a Value>, Error> {
    let members = match value {
        Value::Null => return Ok(None),
        Value::Object(members) => members,
        _ => return Err(bad(name, "it is no object")),
    };
    if let Some(unknown) = members.keys().find(|member| !known.contains(&member.as_str())) {
        return Err(Error::not_served(&format!("{name}.{unknown}"), "no field that it knows has this name"));
    }
    Ok(members.get(wanted).filter(|member| !member.is_null()))
}

/// A 64-bit number is a string in JSON; some clients write a number.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn lifecycle(value: &Value) -> Result<Vec<Rule>, Error> {
    let Some(rules) = member("lifecycle", value, &["rule"], "rule")? else { return Ok(Vec::new()) };
    let rules = rules.as_array().ok_or_else(|| bad("lifecycle.rule", "it is no array"))?;
    let rules: Vec<Rule> = rules.iter().map(rule).collect::<Result<_, _>>()?;
    let affixes: usize = rules.iter().map(|rule| rule.condition.prefixes.len() + rule.condition.suffixes.len()).sum();
    if rules.len() > LIFECYCLE_RULES_MAX || affixes > LIFECYCLE_AFFIXES_MAX {
        return Err(bad("lifecycle.rule", &format!("at most {LIFECYCLE_RULES_MAX} rules with {LIFECYCLE_AFFIXES_MAX} prefixes and suffixes are kept")));
    }
    Ok(rules)
}

fn rule(value: &Value) -> Result<Rule, Error> {
    let action_value = member("lifecycle.rule", value, &["action", "condition"], "action")?.ok_or_else(|| bad("lifecycle.rule.action", "it is missing"))?;
    let kind = member("lifecycle.rule.action", action_value, &["type", "storageClass"], "type")?;
    let class = action_value.get("storageClass").filter(|class| !class.is_null());
    let action = match (kind.and_then(Value::as_str), class) {
        (Some("Delete"), None) => Action::Delete,
        (Some("AbortIncompleteMultipartUpload"), None) => Action::AbortIncompleteMultipartUpload,
        (Some("SetStorageClass"), Some(class)) => Action::SetStorageClass(storage_class(class)?),
        _ => return Err(bad("lifecycle.rule.action", "it is none of Delete, AbortIncompleteMultipartUpload, and SetStorageClass with a storageClass")),
    };
    let condition = match value.get("condition") {
        None | Some(Value::Null) => Condition::default(),
        Some(Value::Object(members)) => condition(members)?,
        Some(_) => return Err(bad("lifecycle.rule.condition", "it is no object")),
    };
    if condition.is_empty() {
        return Err(bad("lifecycle.rule.condition", "a rule has at least one condition"));
    }
    let only_age = Condition { age_days: None, prefixes: Vec::new(), suffixes: Vec::new(), ..condition.clone() };
    if action == Action::AbortIncompleteMultipartUpload && !only_age.is_empty() {
        return Err(bad("lifecycle.rule.condition", "AbortIncompleteMultipartUpload takes age, matchesPrefix and matchesSuffix only"));
    }
    Ok(Rule { action, condition })
}

fn condition(members: &Map<String, Value>) -> Result<Condition, Error> {
    let mut condition = Condition::default();
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |what: &str| bad(&format!("lifecycle.rule.condition.{name}"), what);
        let days = || whole(value).and_then(|days| u32::try_from(days).ok()).map(Some).ok_or_else(|| wrong("it is no whole number"));
        let date = || value.as_str().and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| wrong("it is no date such as 2026-01-31"));
        let texts = || {
            let items = value.as_array().into_iter().flatten().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            items.filter(|_| value.is_array()).ok_or_else(|| wrong("it is no array of strings"))
        };
        match name.as_str() {
            "age" => condition.age_days = days()?,
            "createdBefore" => condition.created_before = date()?,
            "customTimeBefore" => condition.custom_time_before = date()?,
            "daysSinceCustomTime" => condition.days_since_custom_time = days()?,
            "daysSinceNoncurrentTime" => condition.days_since_noncurrent = days()?,
            "noncurrentTimeBefore" => condition.noncurrent_before = date()?,
            "isLive" => condition.is_live = Some(value.as_bool().ok_or_else(|| wrong("it is no boolean"))?),
            "matchesStorageClass" => condition.classes = texts()?,
            "numNewerVersions" => condition.newer_versions = days()?,
            "matchesPrefix" => condition.prefixes = texts()?,
            "matchesSuffix" => condition.suffixes = texts()?,
            other => return Err(Error::not_served(&format!("lifecycle.rule.condition.{other}"), "no field that it knows has this name")),
        }
    }
    Ok(condition)
}

fn rule_json(rule: &Rule) -> Value {
    let action = match &rule.action {
        Action::Delete => json!({ "type": "Delete" }),
        Action::SetStorageClass(class) => json!({ "type": "SetStorageClass", "storageClass": class }),
        Action::AbortIncompleteMultipartUpload => json!({ "type": "AbortIncompleteMultipartUpload" }),
    };
    let condition = &rule.condition;
    let texts = |texts: &Vec<String>| if texts.is_empty() { Value::Null } else { json!(texts) };
    let mut members = json!({
        "age": condition.age_days,
        "createdBefore": condition.created_before.map(|day| day.to_string()),
        "customTimeBefore": condition.custom_time_before.map(|day| day.to_string()),
        "daysSinceCustomTime": condition.days_since_custom_time,
        "daysSinceNoncurrentTime": condition.days_since_noncurrent,
        "noncurrentTimeBefore": condition.noncurrent_before.map(|day| day.to_string()),
        "isLive": condition.is_live,
        "matchesStorageClass": texts(&condition.classes),
        "numNewerVersions": condition.newer_versions,
        "matchesPrefix": texts(&condition.prefixes),
        "matchesSuffix": texts(&condition.suffixes),
    });
    if let Value::Object(members) = &mut members {
        members.retain(|_, value| !value.is_null());
    }
    json!({ "action": action, "condition": members })
}

fn bad(name: &str, why: &str) -> Error {
    Error::invalid(format!("Invalid value for field {name}: {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> Bucket {
        let at = "2026-11-24T06:20:13.316566Z";
        serde_json::from_value(json!({ "name": "b", "project": "local-project", "location": "US", "created": at, "updated": at, "metageneration": 1 })).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let lifecycle = json!({ "rule": [
            { "action": { "type": "Delete" }, "condition": { "age": 30, "isLive": true, "matchesPrefix": ["a/"], "matchesSuffix": [".log"] } },
            { "action": { "type": "SetStorageClass", "storageClass": "NEARLINE" }, "condition": { "matchesStorageClass": ["STANDARD"], "createdBefore": "2026-01-31" } },
            { "action": { "type": "Delete" }, "condition": { "numNewerVersions": 3, "daysSinceNoncurrentTime": 0 } },
            { "action": { "type": "AbortIncompleteMultipartUpload" }, "condition": { "age": 7 } },
        ] });
        let mut bucket = bucket();
        for (name, value) in [
            ("versioning", json!({ "enabled": true })),
            ("lifecycle", lifecycle.clone()),
            ("softDeletePolicy", json!({ "retentionDurationSeconds": "604800" })),
            ("retentionPolicy", json!({ "retentionPeriod": 100 })),
            ("defaultEventBasedHold", json!(true)),
        ] {
            assert!(read(&mut bucket, name, &value, Timestamp::UNIX_EPOCH).unwrap(), "{name}");
        }
        let mut json = json!({});
        write(&bucket, &mut json);
        assert_eq!(json["lifecycle"], lifecycle);
        assert_eq!((&json["versioning"]["enabled"], &json["softDeletePolicy"]["retentionDurationSeconds"]), (&json!(true), &json!("604800")));
        assert_eq!((&json["retentionPolicy"]["retentionPeriod"], &json["defaultEventBasedHold"]), (&json!("100"), &json!(true)));
        for (name, value) in [("lifecycle", json!({})), ("versioning", Value::Null), ("retentionPolicy", Value::Null), ("defaultEventBasedHold", json!(false))]
        {
            assert!(read(&mut bucket, name, &value, Timestamp::UNIX_EPOCH).unwrap(), "{name}");
        }
        assert_eq!((bucket.lifecycle.len(), bucket.versioning, bucket.retention, bucket.default_event_based_hold), (0, false, None, false));
    }

    #[test]
    fn limits_and_forms_are_kept() {
        let check = |name: &str, value: Value, part: &str| {
            let refused = read(&mut bucket(), name, &value, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(format!("{refused:?}").contains(part), "{name} {value}: {refused:?}");
        };
        check("softDeletePolicy", json!({ "retentionDurationSeconds": "604799" }), "604800 to 7776000");
        check("softDeletePolicy", json!({ "retentionDurationSeconds": "7776001" }), "604800 to 7776000");
        check("retentionPolicy", json!({ "retentionPeriod": "0" }), "1 to 3155760000");
        check("retentionPolicy", json!({ "retentionPeriod": "3155760001" }), "1 to 3155760000");
        check("retentionPolicy", json!({}), "missing");
        check("versioning", json!({ "enabled": "yes" }), "no boolean");
        check("versioning", json!({ "x": true }), "versioning.x");
        let rule = |action: Value, condition: Value| json!({ "rule": [{ "action": action, "condition": condition }] });
        let delete = json!({ "type": "Delete" });
        check("lifecycle", rule(delete.clone(), json!({})), "at least one");
        check("lifecycle", rule(delete.clone(), json!({ "age": "x" })), "condition.age");
        check("lifecycle", rule(delete.clone(), json!({ "color": 1 })), "condition.color");
        check("lifecycle", rule(json!({ "type": "SetStorageClass" }), json!({ "age": 1 })), "rule.action");
        check("lifecycle", rule(json!({ "type": "SetStorageClass", "storageClass": "FAST" }), json!({ "age": 1 })), "FAST");
        check("lifecycle", rule(json!({ "type": "AbortIncompleteMultipartUpload" }), json!({ "isLive": true })), "matchesSuffix only");
        check("lifecycle", json!({ "rule": vec![json!({ "action": delete, "condition": { "age": 1 } }); 101] }), "at most 100");
    }
}
