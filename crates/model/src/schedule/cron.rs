//! unix-cron: five fields. croner reads them and finds dates on a calendar without zones; what clocks that change mean is decided here.
//!
//! Google says that jobs run on wall-clock time and that times that clocks skip or repeat "may observe execution anomalies". This
//! is cron's own rule (Vixie's, since 3.0): a job with `*` at the begin of its minute or hour is due whenever a clock on the wall
//! shows the time; any other is due once a day, at the end of the gap that clocks were put forward over and at the first of two.

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, civil, tz::TimeZone};

use super::{Local, local};

#[derive(Clone, Debug)]
pub(super) struct Cron {
    dates: croner::Cron,
    /// As a clock on the wall shows it, however often.
    is_repeated: bool,
}

impl Cron {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != 5 {
            return Err(format!("{text:?} has {} fields and not the five of unix-cron: minute, hour, day of month, month, day of week.", fields.len()));
        }
        for (at, field) in fields.iter().enumerate() {
            // Signs of other crons, which the library would take.
            if let Some(sign) = field.chars().find(|c| !(c.is_ascii_digit() || matches!(c, '*' | ',' | '-' | '/') || (at >= 3 && c.is_ascii_alphabetic()))) {
                return Err(format!("{sign:?} in {field:?} is not of unix-cron."));
            }
            // `5L` is the last Friday to the library; names have three letters.
            let words = field.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.contains(|c: char| c.is_ascii_alphabetic()));
            if let Some(word) = words.into_iter().find(|word| word.len() != 3 || word.contains(|c: char| c.is_ascii_digit())) {
                return Err(format!("{word:?} in {field:?} is no name of a month or day; they have three letters."));
            }
        }
        let dates =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(text).map_err(|error| format!("{text:?}: {error}."))?;
        let cron = Self { dates, is_repeated: fields[0].starts_with('*') || fields[1].starts_with('*') };
        // 400 years hold every combination of date and weekday.
        match cron.date(civil::date(2000, 1, 1).at(0, 0, 0, 0), true) {
            Some(_) => Ok(cron),
            None => Err(format!("{text:?} is a day that never comes.")),
        }
    }

    /// Goes from one change of clocks to the next; between two of them local time is as even as any other.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut offset = zone.to_offset(after);
        let (mut at, mut inclusive) = (offset.to_datetime(after), false);
        let mut changes = zone.following(after);
        loop {
            let change = changes.next();
            let end = change.as_ref().map(|change| change.timestamp());
            loop {
                let date = self.date(at, inclusive)?;
                let due = offset.to_timestamp(date).ok()?;
                if end.is_some_and(|end| due >= end) {
                    break;
                }
                if self.is_repeated || !is_second(date, due, zone) {
                    return Some(due);
                }
                (at, inclusive) = (date, false);
            }
            let (change, end) = (change?, end?);
            let (before, shown) = (offset.to_datetime(end), change.offset().to_datetime(end));
            if !self.is_repeated && shown > before && self.date(before, true)? < shown {
                return Some(end);
            }
            (offset, at, inclusive) = (change.offset(), shown, true);
        }
    }

    /// The next date that the fields say, on a calendar without zones.
    fn date(&self, after: civil::DateTime, inclusive: bool) -> Option<civil::DateTime> {
        let naive = NaiveDate::from_ymd_opt(after.year().into(), after.month().cast_unsigned().into(), after.day().cast_unsigned().into())?.and_hms_opt(
            after.hour().cast_unsigned().into(),
            after.minute().cast_unsigned().into(),
            after.second().cast_unsigned().into(),
        )?;
        let found: DateTime<Utc> = self.dates.find_next_occurrence(&naive.and_utc(), inclusive).ok()?;
        let part = |value: u32| i8::try_from(value).ok();
        let (year, month, day) = (i16::try_from(found.year()).ok()?, part(found.month())?, part(found.day())?);
        civil::DateTime::new(year, month, day, part(found.hour())?, part(found.minute())?, 0, 0).ok()
    }
}

/// Whether `due` is the second time at which a clock shows `date`.
fn is_second(date: civil::DateTime, due: Timestamp, zone: &TimeZone) -> bool {
    matches!(local(date, zone), Some(Local::Twice(_, second)) if second == due)
}
