//! One comparison: an operator, what it is compared with, and the rules of the types.
//!
//! Texts are compared whatever their case, regular expressions with it. A field that is missing matches nothing, `!=`
//! included, as at Google.

use std::cmp::Ordering;

use model::Timestamp;
use regex::Regex;

use super::{
    Subject,
    field::{Field, Scalar, any, any_of_all, with_text},
    syntax::{Call, Comparison, Misfit, Operator, Value},
};
use crate::shape::{log_name_of, severity_parse};

/// A regular expression's program, in bytes. Matching takes time linear in the text whatever it is.
const REGEX_MAX_BYTES: usize = 1 << 20;

pub(super) enum Test {
    Compare {
        field: Field,
        operator: Operator,
        literal: Literal,
    },
    /// The field is there.
    Present {
        field: Field,
    },
    /// Any value of the entry contains the text, which is in lower case.
    Global {
        text: String,
    },
    /// The log's id as it stands in `logName`.
    LogId {
        name: String,
    },
}

/// A value, in every type that it can be read as.
pub(super) struct Literal {
    /// In lower case, but for regular expressions.
    text: String,
    number: Option<f64>,
    time: Option<Timestamp>,
    duration_us: Option<u64>,
    severity: Option<model::log::Severity>,
    regex: Option<Regex>,
}

impl Test {
    pub(super) fn compare(comparison: &Comparison) -> Result<Self, Misfit> {
        let field = Field::parse(&comparison.field).map_err(|message| Misfit { at: comparison.field_at, message })?;
        let Value::Text(text) = &comparison.value else {
            return Ok(Test::Present { field });
        };
        let literal = Literal::parse(&field, comparison.operator, text).map_err(|message| Misfit { at: comparison.value_at, message })?;
        Ok(Test::Compare { field, operator: comparison.operator, literal })
    }

    pub(super) fn global(text: &str) -> Self {
        Test::Global { text: lower(text) }
    }

    pub(super) fn call(call: &Call) -> Result<Self, Misfit> {
        match call.function.as_str() {
            "log_id" => Ok(Test::LogId { name: call.argument.replace('/', "%2F") }),
            other => Err(Misfit { at: call.at, message: format!("function '{other}' is not supported; log_id is, and a quoted text searches all fields") }),
        }
    }

    pub(super) fn matches(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Test::Compare { field, operator, literal } => any(subject, field, &mut |scalar| literal.compare(*operator, scalar)),
            Test::Present { field } => any(subject, field, &mut |_| true),
            Test::Global { text } => any_of_all(subject, &mut |scalar| with_text(scalar, |value| contains(value, text))),
            Test::LogId { name } => {
                let full = log_name_of("", subject.log);
                Some(full.strip_prefix("projects//logs/").is_some_and(|id| id.eq_ignore_ascii_case(name)))
            }
        }
    }

    pub(super) fn time_range(&self) -> TimeRange {
        let Test::Compare { field: Field::Timestamp, operator, literal: Literal { time: Some(time), .. } } = self else {
            return TimeRange::ALL;
        };
        match operator {
            Operator::Equal | Operator::Has => TimeRange { from: *time, to: *time },
            // With its end: one entry more to look at, and no way to be wrong by one.
            Operator::Greater | Operator::GreaterEqual => TimeRange { from: *time, ..TimeRange::ALL },
            Operator::Less | Operator::LessEqual => TimeRange { to: *time, ..TimeRange::ALL },
            Operator::NotEqual | Operator::Matches | Operator::NotMatches => TimeRange::ALL,
        }
    }
}

/// From and to with both ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TimeRange {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl TimeRange {
    pub(super) const ALL: TimeRange = TimeRange { from: Timestamp::MIN, to: Timestamp::MAX };

    pub(super) fn intersection(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    pub(super) fn hull(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }
}

impl Literal {
    /// # Errors
    /// For what cannot be a value of the field: a time, a severity, a duration or a regular expression that is none.
    fn parse(field: &Field, operator: Operator, text: &str) -> Result<Self, String> {
        let is_regex = matches!(operator, Operator::Matches | Operator::NotMatches);
        let mut literal = Literal {
            text: if is_regex { text.to_owned() } else { lower(text) },
            number: text.parse().ok().filter(|number: &f64| number.is_finite()),
            time: None,
            duration_us: None,
            severity: None,
            regex: None,
        };
        if is_regex {
            let regex = regex::RegexBuilder::new(text).size_limit(REGEX_MAX_BYTES).build();
            literal.regex = Some(regex.map_err(|error| format!("invalid regular expression: {}", one_line(&error.to_string())))?);
            return Ok(literal);
        }
        match field {
            Field::Timestamp => {
                literal.time = Some(time_parse(text).ok_or_else(|| format!("'{text}' is no time such as \"2026-11-23T06:21:38Z\" or \"2026-11-23\""))?);
            }
            Field::Severity => {
                let severity = severity_parse(text)
                    .ok_or_else(|| format!("'{text}' is no severity; they are DEFAULT, DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL, ALERT and EMERGENCY"))?;
                literal.severity = Some(severity);
            }
            Field::HttpField(super::field::HttpField::Latency) => {
                let duration = duration_parse(text).ok_or_else(|| format!("'{text}' is no duration such as \"0.5s\" or \"20ms\""))?;
                literal.duration_us = Some(duration);
            }
            _ => {}
        }
        Ok(literal)
    }

    fn compare(&self, operator: Operator, scalar: Scalar<'_>) -> bool {
        match operator {
            Operator::Matches => self.is_match(scalar),
            Operator::NotMatches => !self.is_match(scalar),
            Operator::Has => match scalar {
                Scalar::Text(text) => contains(text, &self.text),
                other => self.order(other) == Some(Ordering::Equal),
            },
            Operator::Equal => self.order(scalar) == Some(Ordering::Equal),
            Operator::NotEqual => self.order(scalar) != Some(Ordering::Equal),
            Operator::Less => self.order(scalar) == Some(Ordering::Less),
            Operator::LessEqual => {
                matches!(self.order(scalar), Some(Ordering::Less | Ordering::Equal))
            }
            Operator::Greater => self.order(scalar) == Some(Ordering::Greater),
            Operator::GreaterEqual => matches!(self.order(scalar), Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    fn is_match(&self, scalar: Scalar<'_>) -> bool {
        self.regex.as_ref().is_some_and(|regex| with_text(scalar, |text| regex.is_match(text)))
    }

    /// How the value stands to this literal; `None` when they are not of one kind.
    fn order(&self, scalar: Scalar<'_>) -> Option<Ordering> {
        match scalar {
            Scalar::Text(text) => Some(text.chars().flat_map(char::to_lowercase).cmp(self.text.chars())),
            Scalar::Number(number) => number.partial_cmp(&self.number?),
            Scalar::Bool(value) => match self.text.as_str() {
                "true" => Some(value.cmp(&true)),
                "false" => Some(value.cmp(&false)),
                _ => None,
            },
            Scalar::Null => (self.text == "null_value" || self.text == "null").then_some(Ordering::Equal),
            Scalar::Time(time) => Some(time.cmp(&self.time?)),
            Scalar::Duration(us) => Some(us.cmp(&self.duration_us?)),
            Scalar::Severity(severity) => Some(severity.cmp(&self.severity?)),
        }
    }
}

/// One character at a time, as texts are compared: the lower case of a whole text would depend on what stands beside.
fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Whether `text` contains `part`, which is in lower case.
fn contains(text: &str, part: &str) -> bool {
    // Without a copy where each place is cheap to try; else in time linear in the text.
    if part.len() <= 64 && text.is_ascii() && part.is_ascii() {
        return part.is_empty() || text.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()));
    }
    lower(text).contains(part)
}

/// RFC 3339, or a date alone, which is its first moment in UTC.
fn time_parse(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()
}

/// Seconds, with or without their unit, or another unit: `0.5s`, `0.5`, `20ms`, `1m`.
fn duration_parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let us_per_unit = match unit {
        "ns" => 1e-3,
        "us" => 1.0,
        "ms" => 1e3,
        "s" | "" => 1e6,
        "m" => 60e6,
        "h" => 3600e6,
        _ => return None,
    };
    let us = number.parse::<f64>().ok()? * us_per_unit;
    (us.is_finite() && us >= 0.0).then(|| us.round() as u64)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
