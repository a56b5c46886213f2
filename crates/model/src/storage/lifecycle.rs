//! Lifecycle rules: what happens to an object with time.
//!
//! Pure: a rule, an object and an instant in, an answer out. Of several rules that apply, deletion goes before a change of class,
//! and of two changes the colder class. Source: Cloud Storage's documentation, "Object Lifecycle Management".

use serde::{Deserialize, Serialize};

use super::Object;
use crate::clock::Timestamp;

const DAY_S: i64 = 24 * 3600;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub action: Action,
    pub condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Delete,
    SetStorageClass(String),
    AbortIncompleteMultipartUpload,
}

/// All that are set must hold. Times of day are UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub age_days: Option<u32>,
    /// At midnight that begins this day.
    pub created_before: Option<jiff::civil::Date>,
    pub custom_time_before: Option<jiff::civil::Date>,
    pub days_since_custom_time: Option<u32>,
    pub days_since_noncurrent: Option<u32>,
    pub noncurrent_before: Option<jiff::civil::Date>,
    pub is_live: Option<bool>,
    /// Empty for any.
    #[serde(default)]
    pub classes: Vec<String>,
    pub newer_versions: Option<u32>,
    #[serde(default)]
    pub prefixes: Vec<String>,
    #[serde(default)]
    pub suffixes: Vec<String>,
}

impl Condition {
    /// Whether it asks nothing, which no rule may.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all hold. `newer` is how many newer versions of the object there are, `class` the class that it has.
    pub fn holds(&self, object: &Object, class: &str, newer: u32, now: Timestamp) -> bool {
        let days = |from: Option<Timestamp>, least: u32| from.is_some_and(|from| now.as_second() - from.as_second() >= i64::from(least) * DAY_S);
        let before = |at: Option<Timestamp>, day: jiff::civil::Date| at.is_some_and(|at| midnight(day).is_none_or(|midnight| at < midnight));
        self.age_days.is_none_or(|least| days(Some(object.created), least))
            && self.created_before.is_none_or(|day| before(Some(object.created), day))
            && self.custom_time_before.is_none_or(|day| before(object.custom_time, day))
            && self.days_since_custom_time.is_none_or(|least| days(object.custom_time, least))
            && self.days_since_noncurrent.is_none_or(|least| days(object.noncurrent, least))
            && self.noncurrent_before.is_none_or(|day| before(object.noncurrent, day))
            && self.is_live.is_none_or(|live| live == object.noncurrent.is_none())
            && (self.classes.is_empty() || self.classes.iter().any(|wanted| wanted == class))
            && self.newer_versions.is_none_or(|least| newer >= least)
            && (self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| object.name.starts_with(prefix.as_str())))
            && (self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| object.name.ends_with(suffix.as_str())))
    }
}

fn midnight(day: jiff::civil::Date) -> Option<Timestamp> {
    jiff::tz::TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()
}

/// What is due for an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Delete,
    SetStorageClass(String),
}

/// What the rules want of `object`, whose class is `class`, `now`.
pub fn due(rules: &[Rule], object: &Object, class: &str, newer: u32, now: Timestamp) -> Option<Due> {
    let mut to: Option<&str> = None;
    for rule in rules.iter().filter(|rule| rule.action != Action::AbortIncompleteMultipartUpload) {
        if !rule.condition.holds(object, class, newer, now) {
            continue;
        }
        match &rule.action {
            Action::Delete => return Some(Due::Delete),
            // Only ever to a colder one.
            Action::SetStorageClass(colder) if cold(colder) > cold(to.unwrap_or(class)) => to = Some(colder),
            Action::SetStorageClass(_) | Action::AbortIncompleteMultipartUpload => {}
        }
    }
    to.map(|to| Due::SetStorageClass(to.to_owned()))
}

/// Whether an upload that was begun at `begun` is to be given up.
pub fn upload_due(rules: &[Rule], name: &str, begun: Timestamp, now: Timestamp) -> bool {
    rules.iter().filter(|rule| rule.action == Action::AbortIncompleteMultipartUpload).any(|rule| {
        let Condition { age_days, prefixes, suffixes, .. } = &rule.condition;
        age_days.is_none_or(|least| now.as_second() - begun.as_second() >= i64::from(least) * DAY_S)
            && (prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())))
            && (suffixes.is_empty() || suffixes.iter().any(|suffix| name.ends_with(suffix.as_str())))
    })
}

/// How cold a class is.
fn cold(class: &str) -> u8 {
    match class {
        "NEARLINE" => 1,
        "COLDLINE" => 2,
        "ARCHIVE" => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + day * DAY_S).unwrap()
    }

    fn object() -> Object {
        serde_json::from_value(serde_json::json!({
            "bucket": "b", "name": "logs/a.txt", "generation": 7, "metageneration": 2, "created": at(0), "updated": at(0), "size": 0, "blob": "", "crc32c": "", "md5": "",
        }))
        .unwrap()
    }

    #[test]
    fn conditions_hold_together() {
        let any = Condition::default;
        let date = |text: &str| Some(text.parse().unwrap());
        let live = object();
        let mut old = object();
        (old.noncurrent, old.custom_time) = (Some(at(5)), Some(at(2)));
        for (condition, object, now, expect) in [
            (any(), &live, 0, true),
            (Condition { age_days: Some(3), ..any() }, &live, 2, false),
            (Condition { age_days: Some(3), ..any() }, &live, 3, true),
            (Condition { created_before: date("2026-01-01"), ..any() }, &live, 9, false),
            (Condition { created_before: date("2026-01-02"), ..any() }, &live, 9, true),
            (Condition { days_since_custom_time: Some(0), ..any() }, &live, 9, false),
            (Condition { days_since_custom_time: Some(7), ..any() }, &old, 9, true),
            (Condition { custom_time_before: date("2026-01-03"), ..any() }, &old, 9, false),
            (Condition { days_since_noncurrent: Some(4), ..any() }, &old, 8, false),
            (Condition { days_since_noncurrent: Some(4), ..any() }, &old, 9, true),
            (Condition { noncurrent_before: date("2026-01-07"), ..any() }, &old, 9, true),
            (Condition { is_live: Some(true), ..any() }, &old, 9, false),
            (Condition { is_live: Some(false), ..any() }, &old, 9, true),
            (Condition { classes: vec!["NEARLINE".into()], ..any() }, &live, 9, false),
            (Condition { newer_versions: Some(2), ..any() }, &old, 9, false),
            (Condition { prefixes: vec!["x".into(), "logs/".into()], suffixes: vec![".txt".into()], ..any() }, &live, 9, true),
            (Condition { suffixes: vec![".csv".into()], ..any() }, &live, 9, false),
            (Condition { age_days: Some(3), is_live: Some(false), ..any() }, &live, 9, false),
        ] {
            assert_eq!(condition.holds(object, "STANDARD", 1, at(now)), expect, "{condition:?} on day {now}");
        }
    }

    #[test]
    fn deletion_goes_before_a_change_of_class_and_the_colder_class_wins() {
        let rule = |action: Action, days: u32| Rule { action, condition: Condition { age_days: Some(days), ..Condition::default() } };
        let set = |class: &str| Action::SetStorageClass(class.to_owned());
        let rules = [rule(set("NEARLINE"), 1), rule(set("COLDLINE"), 1), rule(set("STANDARD"), 2), rule(Action::Delete, 3)];
        let check = |class: &str, day: i64, expect: Option<Due>| assert_eq!(due(&rules, &object(), class, 0, at(day)), expect, "{class} on day {day}");
        check("STANDARD", 0, None);
        check("STANDARD", 1, Some(Due::SetStorageClass("COLDLINE".to_owned())));
        check("ARCHIVE", 2, None);
        check("ARCHIVE", 3, Some(Due::Delete));
        let abort = [rule(Action::AbortIncompleteMultipartUpload, 2)];
        assert_eq!(due(&abort, &object(), "STANDARD", 0, at(9)), None);
        assert!(!upload_due(&abort, "x", at(0), at(1)) && upload_due(&abort, "x", at(0), at(2)) && !upload_due(&rules, "x", at(0), at(9)));
    }
}
