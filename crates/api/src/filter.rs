//! List filters (AIP-160) over messages: the grammar is Logging's, of `telemetry`, the subject any message as JSON.
//!
//! Field names may be the proto's or JSON's. Texts are compared whatever their case; `:` asks whether a text contains another, a map has a key,
//! a list an element; times and numbers compare as such. A field that is missing matches nothing.

use std::cmp::Ordering;

use model::{Status, Timestamp};
use serde_json::Value as Json;
use telemetry::syntax::{self, Comparison, Expression, Operator, Value};

/// A filter, ready to be asked. An empty one matches everything.
pub(crate) struct Filter(Expression);

impl Filter {
    /// # Errors
    /// `INVALID_ARGUMENT` with the place of what is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        let expression = syntax::parse(text).map_err(|error| Status::invalid_field("filter", error.to_string()))?;
        supported(&expression)?;
        Ok(Self(expression))
    }

    pub(crate) fn matches(&self, message: &Json) -> bool {
        matches(&self.0, message)
    }
}

fn supported(expression: &Expression) -> Result<(), Status> {
    match expression {
        Expression::And(parts) | Expression::Or(parts) => parts.iter().try_for_each(supported),
        Expression::Not(part) => supported(part),
        Expression::Compare(Comparison { operator: Operator::Matches | Operator::NotMatches, .. }) => {
            Err(Status::invalid_field("filter", "regular expressions (=~, !~) are not supported; use = or :"))
        }
        Expression::Compare(_) | Expression::Global(_) => Ok(()),
        Expression::Call(call) => Err(Status::invalid_field("filter", format!("function {:?} is not supported", call.function))),
    }
}

fn matches(expression: &Expression, message: &Json) -> bool {
    match expression {
        Expression::And(parts) => parts.iter().all(|part| matches(part, message)),
        Expression::Or(parts) => parts.iter().any(|part| matches(part, message)),
        Expression::Not(part) => !matches(part, message),
        Expression::Compare(comparison) => field(message, &comparison.field).is_some_and(|found| compare(found, comparison)),
        Expression::Global(text) => any_contains(message, &text.to_lowercase()),
        // `supported` lets none through.
        Expression::Call(_) => false,
    }
}

/// The value at a path whose parts may be in the proto's spelling.
fn field<'a>(message: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(message, |at, part| at.get(part.as_str()).or_else(|| at.get(camel(part))))
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

fn compare(found: &Json, comparison: &Comparison) -> bool {
    let Value::Text(text) = &comparison.value else {
        return !found.is_null();
    };
    let test = |ordering: Ordering| match comparison.operator {
        Operator::Equal => ordering.is_eq(),
        Operator::NotEqual => ordering.is_ne(),
        Operator::Less => ordering.is_lt(),
        Operator::LessEqual => ordering.is_le(),
        Operator::Greater => ordering.is_gt(),
        Operator::GreaterEqual => ordering.is_ge(),
        Operator::Has | Operator::Matches | Operator::NotMatches => false,
    };
    match found {
        Json::Array(elements) => elements.iter().any(|element| compare(element, comparison)),
        Json::Object(members) => comparison.operator == Operator::Has && (members.contains_key(text) || members.contains_key(&camel(text))),
        Json::String(found) if comparison.operator == Operator::Has => found.to_lowercase().contains(&text.to_lowercase()),
        Json::String(found) => match (found.parse::<Timestamp>(), text.parse::<Timestamp>()) {
            (Ok(found), Ok(text)) => test(found.cmp(&text)),
            _ => test(number_or_text(found, text)),
        },
        Json::Number(_) | Json::Bool(_) if comparison.operator == Operator::Has => is_written(found, &text.to_lowercase()),
        Json::Number(_) | Json::Bool(_) => test(number_or_text(&found.to_string(), text)),
        Json::Null => false,
    }
}

/// 64-bit numbers are texts in JSON, durations end in `s`.
fn number_or_text(found: &str, text: &str) -> Ordering {
    let number = |text: &str| text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok();
    match (number(found), number(text)) {
        (Some(found), Some(text)) => found.total_cmp(&text),
        _ => found.to_lowercase().cmp(&text.to_lowercase()),
    }
}

/// Whether a number or a truth value is written so.
fn is_written(value: &Json, text: &str) -> bool {
    let written = value.to_string();
    written == text
}

fn any_contains(value: &Json, text: &str) -> bool {
    match value {
        Json::Object(members) => members.values().any(|value| any_contains(value, text)),
        Json::Array(elements) => elements.iter().any(|value| any_contains(value, text)),
        Json::String(value) => value.to_lowercase().contains(text),
        other => is_written(other, text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filters_match_messages() {
        let message = json!({
            "name": "projects/9/secrets/my-secret", "labels": { "env": "Prod", "cost_center": "7" }, "createTime": "2026-11-28T00:00:00Z", "state": "ENABLED",
            "topics": [{ "name": "projects/p/topics/t" }], "versionDestroyTtl": "86400s", "versionAliases": { "prod": "3" }, "flag": true,
        });
        let check = |filter: &str, expect: bool| assert_eq!(Filter::parse(filter).unwrap().matches(&message), expect, "{filter}");
        for filter in [
            "",
            "name:my-sec",
            "name:none OR name:MY",
            "labels.env=prod",
            "labels.env:*",
            "labels:env",
            "labels.cost_center=7",
            "NOT labels.none:*",
            "-labels.none:x",
            "create_time>2026-11-27T23:59:59Z",
            "createTime<=2026-11-28T00:00:00Z",
            "create_time=\"2026-11-28T09:00:00+09:00\"",
            "state:(enabled OR disabled)",
            "state=ENABLED AND labels.env=prod",
            "version_destroy_ttl>=3600s",
            "version_aliases.prod>2",
            "topics.name:*  OR my-secret",
            "flag=true",
        ] {
            check(filter, true);
        }
        for filter in [
            "name:other",
            "labels.env=test",
            "labels.none!=x",
            "labels:none",
            "create_time<2026-01-01T00:00:00Z",
            "state:destroyed",
            "NOT state:enabled",
            "nothing",
            "version_destroy_ttl<100s",
        ] {
            check(filter, false);
        }
        for bad in ["name=~x", "f(x)", "name=", "(", "a AND"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
