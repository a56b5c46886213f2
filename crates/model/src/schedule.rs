//! When a job is due: unix-cron and App Engine schedules in a time zone.
//!
//! Two notations. Five fields of unix-cron are in `cron`; English-like ones ("every monday 09:00") in `groc`, after the name
//! that Google's own parser has. Nothing here knows what a job does or when it last ran.
//! Source: cloud.google.com/scheduler/docs/configuring/cron-job-schedules.

mod cron;
mod groc;

use jiff::{
    Timestamp,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::Status;

/// What a job without a zone is in.
pub const ZONE_DEFAULT: &str = "Etc/UTC";
/// The longest schedule, in bytes. Ours: the longest that lists every value of every field is far below it.
const TEXT_MAX_BYTES: usize = 1000;

/// A schedule that was understood, in its zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    rule: Rule,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Rule {
    Cron(Box<cron::Cron>),
    Groc(groc::Groc),
}

impl Schedule {
    /// Reads a schedule; an empty zone is [`ZONE_DEFAULT`].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `schedule` or `time_zone`: of neither notation, with a sign that unix-cron does not have (`L # W ? @`), with six
    /// fields, or of a day that never comes (30 February).
    pub fn parse(text: &str, zone: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::invalid_field("schedule", format!("Schedule or time zone is invalid. {why}"));
        let zone = zone_parse(zone)?;
        if text.len() > TEXT_MAX_BYTES {
            return Err(bad(&format!("It has {} bytes; at most {TEXT_MAX_BYTES} are read.", text.len())));
        }
        // Only groc begins with a word; "1 of jan 00:00" has one in second place.
        let is_groc = text.split_whitespace().any(|word| word == "of") || text.trim_start().starts_with(|c: char| c.is_ascii_alphabetic()) || ordinal(text);
        let rule = if is_groc {
            Rule::Groc(groc::Groc::parse(text).map_err(|why| bad(&why))?)
        } else {
            Rule::Cron(Box::new(cron::Cron::parse(text).map_err(|why| bad(&why))?))
        };
        Ok(Self { rule, zone })
    }

    /// The first instant after `after` at which the schedule is due; whole minutes. `None` past the year 9999.
    ///
    /// An interval ("every 5 minutes") is counted from `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Cron(cron) => cron.next(after, &self.zone),
            Rule::Groc(groc) => groc.next(after, &self.zone),
        }
    }

    /// An instant as the zone's clocks show it: RFC 3339 in whole seconds, with `Z` for UTC.
    pub fn local(&self, at: Timestamp) -> String {
        let offset_s = self.zone.to_offset(at).seconds();
        let time = self.zone.to_datetime(at).strftime("%Y-%m-%dT%H:%M:%S");
        if offset_s == 0 {
            return format!("{time}Z");
        }
        let (sign, minutes) = (if offset_s < 0 { '-' } else { '+' }, offset_s.abs() / 60);
        format!("{time}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }

    /// Whether it is in unix-cron: only such jobs tell their time in `X-CloudScheduler-ScheduleTime`.
    pub fn is_cron(&self) -> bool {
        matches!(self.rule, Rule::Cron(_))
    }
}

/// "1st,third mon ..." begins with a digit.
fn ordinal(text: &str) -> bool {
    ["1st", "2nd", "3rd", "4th", "5th"].iter().any(|word| text.trim_start().starts_with(word))
}

/// An IANA zone by its name; `utc` is Google's own spelling of the default.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `time_zone`.
fn zone_parse(name: &str) -> Result<TimeZone, Status> {
    if name.is_empty() || name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| {
        Status::invalid_field("time_zone", format!("Schedule or time zone is invalid. There is no time zone {name:?}; an example of one is Asia/Tokyo."))
    })
}

/// What becomes of a local time on the days when clocks change.
enum Local {
    Once(Timestamp),
    /// Clocks were put forward over it; they show the next time from this instant on.
    Skipped(Timestamp),
    /// Clocks were put back: first and second time.
    Twice(Timestamp, Timestamp),
}

/// `None` past the year 9999.
fn local(at: jiff::civil::DateTime, zone: &TimeZone) -> Option<Local> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    Some(match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => Local::Once(offset.to_timestamp(at).ok()?),
        AmbiguousOffset::Fold { before, after } => Local::Twice(before.to_timestamp(at).ok()?, after.to_timestamp(at).ok()?),
        // Read with the offset after the change it is an instant before the change: the change is the next one.
        AmbiguousOffset::Gap { after, .. } => Local::Skipped(zone.following(after.to_timestamp(at).ok()?).next()?.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instants after `after`, as they are in the zone.
    fn check(text: &str, zone: &str, after: &str, expect: &[&str]) {
        let schedule = Schedule::parse(text, zone).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut at: Timestamp = after.parse().unwrap();
        let mut seen = Vec::new();
        for _ in expect {
            at = schedule.next(at).unwrap_or_else(|| panic!("{text} is never due after {at}"));
            let (at, minutes) = (schedule.zone.to_datetime(at), schedule.zone.to_offset(at).seconds() / 60);
            seen.push(format!("{} {:+03}:{:02}", at.strftime("%Y-%m-%d %H:%M"), minutes / 60, minutes % 60));
        }
        assert_eq!(seen, expect, "{text} in {zone} after {after}");
    }

    #[test]
    fn unix_cron() {
        let after = "2026-11-28T03:00:30Z";
        check("0 9 * * *", "Asia/Tokyo", after, &["2026-11-29 09:00 +09:00", "2026-11-30 09:00 +09:00"]);
        check("*/20 * * * *", "", after, &["2026-11-28 03:20 +00:00", "2026-11-28 03:40 +00:00", "2026-11-28 04:00 +00:00"]);
        check("* * * * *", "utc", "2026-11-28T03:00:00Z", &["2026-11-28 03:01 +00:00"]);
        check("45 23 * * 6", "", after, &["2026-11-28 23:45 +00:00", "2026-12-05 23:45 +00:00"]);
        check("0 0 * * 7", "", after, &["2026-11-29 00:00 +00:00"]);
        check("0 0 * * 5-7", "", after, &["2026-11-29 00:00 +00:00", "2026-12-04 00:00 +00:00"]);
        check("0 0 1 JAN,JUL *", "", after, &["2027-01-01 00:00 +00:00", "2027-07-01 00:00 +00:00"]);
        check("0 9-17/4 * * mon-fri", "", after, &["2026-11-30 09:00 +00:00", "2026-11-30 13:00 +00:00", "2026-11-30 17:00 +00:00"]);
        // Either of the two days is enough when both are said.
        check("0 0 1 * SAT", "", after, &["2026-12-01 00:00 +00:00", "2026-12-05 00:00 +00:00"]);
        check("0 0 29 2 *", "", after, &["2028-02-29 00:00 +00:00"]);
    }

    #[test]
    fn clocks_that_change() {
        // Put forward at 02:00: a fixed time is due when the clocks have changed, a repeated one is passed over.
        check("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", &["2026-03-08 03:00 -04:00", "2026-03-09 02:30 -04:00"]);
        check("*/30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", &["2026-03-09 02:00 -04:00"]);
        check("0 * * * *", "America/New_York", "2026-03-08T06:30:00Z", &["2026-03-08 03:00 -04:00", "2026-03-08 04:00 -04:00"]);
        // Put back at 02:00: a fixed time is due once, a repeated one both times.
        check("30 1 * * *", "America/New_York", "2026-11-01T04:30:00Z", &["2026-11-01 01:30 -04:00", "2026-11-02 01:30 -05:00"]);
        check("0,30 * * * *", "America/New_York", "2026-11-01T05:00:00Z", &["2026-11-01 01:30 -04:00", "2026-11-01 01:00 -05:00", "2026-11-01 01:30 -05:00"]);
        check("0 9 * * *", "America/New_York", "2026-10-31T12:00:00Z", &["2026-10-31 09:00 -04:00", "2026-11-01 09:00 -05:00"]);
        // Half an hour.
        check("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", &["2026-10-04 02:30 +11:00", "2026-10-05 02:15 +11:00"]);
        // Two fixed times in one gap are one run.
        check("10,40 2 * * *", "America/New_York", "2026-03-08T06:30:00Z", &["2026-03-08 03:00 -04:00", "2026-03-09 02:10 -04:00"]);
        check("every day 02:30", "America/New_York", "2026-03-07T12:00:00Z", &["2026-03-09 02:30 -04:00"]);
        check(
            "every day 01:30",
            "America/New_York",
            "2026-11-01T04:30:00Z",
            &["2026-11-01 01:30 -04:00", "2026-11-01 01:30 -05:00", "2026-11-02 01:30 -05:00"],
        );
    }

    #[test]
    fn app_engine() {
        let after = "2026-11-28T03:00:30Z";
        check("every 5 minutes", "", after, &["2026-11-28 03:05 +00:00", "2026-11-28 03:10 +00:00"]);
        check("every 12 hours", "Asia/Tokyo", after, &["2026-11-29 00:00 +09:00"]);
        check("every 12 hours synchronized", "Asia/Tokyo", after, &["2026-11-29 00:00 +09:00", "2026-11-29 12:00 +09:00"]);
        check("every 90 mins synchronized", "", after, &["2026-11-28 04:30 +00:00"]);
        check("every day 09:00", "Asia/Tokyo", after, &["2026-11-29 09:00 +09:00"]);
        check("every day 9:00", "", after, &["2026-11-28 09:00 +00:00"]);
        check("every monday 09:00", "", after, &["2026-11-30 09:00 +00:00", "2026-12-07 09:00 +00:00"]);
        check("1st,third mon of month 12:00", "", after, &["2026-12-07 12:00 +00:00", "2026-12-21 12:00 +00:00", "2027-01-04 12:00 +00:00"]);
        check("2nd,third mon,wed,thu of march 17:00", "", after, &["2027-03-08 17:00 +00:00", "2027-03-10 17:00 +00:00", "2027-03-11 17:00 +00:00"]);
        check("1 of jan,april,july,oct 00:00", "", after, &["2027-01-01 00:00 +00:00", "2027-04-01 00:00 +00:00"]);
        check("1st day of month 00:00", "", after, &["2026-12-01 00:00 +00:00"]);
        check("first sunday of quarter 00:00", "", after, &["2027-01-03 00:00 +00:00", "2027-04-04 00:00 +00:00"]);
        check("1st monday of third month of quarter 15:30", "", after, &["2026-12-07 15:30 +00:00", "2027-03-01 15:30 +00:00"]);
        check("every wed,fri of jan,jun 13:15", "", after, &["2027-01-01 13:15 +00:00", "2027-01-06 13:15 +00:00"]);
        check("29 of feb 08:00", "", after, &["2028-02-29 08:00 +00:00"]);
        check(
            "every 2 hours from 10:00 to 14:00",
            "",
            after,
            &["2026-11-28 10:00 +00:00", "2026-11-28 12:00 +00:00", "2026-11-28 14:00 +00:00", "2026-11-29 10:00 +00:00"],
        );
        check("every 5 minutes from 10:00 to 14:00", "", "2026-11-28T11:02:00Z", &["2026-11-28 11:05 +00:00"]);
        check(
            "every 60 mins from 23:00 to 01:00",
            "",
            after,
            &["2026-11-28 23:00 +00:00", "2026-11-29 00:00 +00:00", "2026-11-29 01:00 +00:00", "2026-11-29 23:00 +00:00"],
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in [
            "",
            "*",
            "* * * *",
            "* * * * * *",
            "0 0 0 * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "0 0 L * *",
            "0 0 1W * *",
            "0 0 ? * *",
            "0 0 * * 5#2",
            "0 0 * * 5L",
            "@daily",
            "*/0 * * * *",
            "0 0 30 2 *",
            "5-1 * * * *",
            "a * * * *",
            "+1 * * * *",
            "every",
            "every day",
            "every 0 minutes",
            "every 5 seconds",
            "every 7 hours synchronized",
            "every 5 minutes from 10:00",
            "every 5 minutes 10:00",
            "every day 25:00",
            "every day 09:60",
            "32 of month 00:00",
            "30 of feb 00:00",
            "6th monday 00:00",
            "every monday of someday 00:00",
            "every day 09:00 and more",
        ] {
            let error = Schedule::parse(bad, "").map(|_| ()).expect_err(bad);
            assert_eq!(error.fields[0].field, "schedule", "{bad}");
        }
        for bad in ["Asia/Edo", "JST+9", "../etc/passwd", "Asia/Tokyo "] {
            assert_eq!(Schedule::parse("* * * * *", bad).map(|_| ()).expect_err(bad).fields[0].field, "time_zone");
        }
    }
}
