//! App Engine schedules: "every 5 minutes", "1st,third mon of month 12:00".
//!
//! Source: the grammar and the time arithmetic that Google publishes with App Engine's SDK (Groc.g, groctimespecification.py): what
//! it does on days when clocks change is done here too. A time that clocks skip is passed over, one that they repeat is due twice.

use std::collections::BTreeSet;

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};

use super::{Local, local};

const DAY_S: i64 = 24 * 3600;
/// Years of days that are looked through: 29 February comes again within eight.
const YEARS_MAX: i16 = 9;

#[derive(Clone, Debug)]
pub(super) enum Groc {
    /// Counted from the last time.
    Interval {
        seconds: i64,
    },
    /// Counted from `from` each day, until `to`.
    Range {
        seconds: i64,
        from: civil::Time,
        to: civil::Time,
    },
    Days {
        days: Days,
        months: BTreeSet<i8>,
        time: civil::Time,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Days {
    /// Weekdays, Sunday first, and which of a month's they are, from 1.
    Week {
        ordinals: BTreeSet<i8>,
        weekdays: BTreeSet<i8>,
    },
    Month(BTreeSet<i8>),
}

impl Groc {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut words = Words::of(text);
        let parsed = if words.rest.starts_with(&["every".to_owned()]) && words.rest.get(1).is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit())) {
            interval(&mut words)
        } else {
            days(&mut words)
        };
        let groc = parsed.map_err(|why| format!("{text:?}: {why}."))?;
        match words.take() {
            None => Ok(groc),
            Some(word) => Err(format!("{text:?}: {word:?} is too much.")),
        }
    }

    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Interval { seconds } => {
                let at = after.as_second().checked_add(*seconds)?;
                Timestamp::from_second(at - at.rem_euclid(60)).ok()
            }
            Self::Range { seconds, from, to } => range_next(after, zone, *seconds, *from, *to),
            Self::Days { days, months, time } => days_next(after, zone, days, months, *time),
        }
    }
}

/// Words, numbers, times and commas.
struct Words {
    rest: Vec<String>,
}

impl Words {
    fn of(text: &str) -> Self {
        Self { rest: text.replace(',', " , ").split_whitespace().map(str::to_owned).collect() }
    }

    fn take(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| self.rest.remove(0))
    }

    fn is(&self, word: &str) -> bool {
        self.rest.first().is_some_and(|next| next == word)
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        match self.take() {
            Some(found) if found == word => Ok(()),
            Some(found) => Err(format!("{found:?} where {word:?} is expected")),
            None => Err(format!("{word:?} is missing at its end")),
        }
    }

    /// One or more with commas between.
    fn list(&mut self, what: &str, of: impl Fn(&str) -> Option<i8>) -> Result<BTreeSet<i8>, String> {
        let mut found = BTreeSet::new();
        loop {
            let word = self.take().ok_or_else(|| format!("{what} is missing at its end"))?;
            found.insert(of(&word).ok_or_else(|| format!("{word:?} is no {what}"))?);
            if !self.is(",") {
                return Ok(found);
            }
            self.take();
        }
    }

    /// H:MM or HH:MM.
    fn time(&mut self) -> Result<civil::Time, String> {
        let word = self.take().ok_or("a time such as 09:00 is missing at its end")?;
        let parts = word.split_once(':').filter(|(hour, minute)| (1..=2).contains(&hour.len()) && minute.len() == 2);
        parts
            .filter(|(hour, minute)| hour.bytes().chain(minute.bytes()).all(|b| b.is_ascii_digit()))
            .and_then(|(hour, minute)| civil::Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok())
            .ok_or_else(|| format!("{word:?} is no time; an example of one is 09:00"))
    }
}

fn interval(words: &mut Words) -> Result<Groc, String> {
    words.expect("every")?;
    let number = words.take().unwrap_or_default();
    let count: i64 = number.parse().ok().filter(|count| (1..=99_999).contains(count)).ok_or_else(|| format!("{number:?} is not within 1 and 99999"))?;
    let seconds = match words.take().as_deref() {
        Some("hours") => count * 3600,
        Some("mins" | "minutes") => count * 60,
        _ => return Err("an interval is in hours, mins or minutes".to_owned()),
    };
    if words.is("synchronized") {
        words.take();
        if DAY_S % seconds != 0 {
            return Err("only intervals that divide 24 hours evenly can be synchronized".to_owned());
        }
        return Ok(Groc::Range { seconds, from: civil::Time::midnight(), to: civil::time(23, 59, 0, 0) });
    }
    if !words.is("from") {
        return Ok(Groc::Interval { seconds });
    }
    words.take();
    let from = words.time()?;
    words.expect("to")?;
    Ok(Groc::Range { seconds, from, to: words.time()? })
}

fn days(words: &mut Words) -> Result<Groc, String> {
    let is_number = |word: &String| word.bytes().all(|b| b.is_ascii_digit());
    let days = if words.rest.first().is_some_and(is_number) {
        Days::Month(words.list("day of a month", |word| word.parse().ok().filter(|day| (1..=31).contains(day)))?)
    } else {
        let ordinals = if words.is("every") {
            words.take();
            None
        } else {
            Some(words.list("ordinal", ordinal)?)
        };
        match (words.is("day"), ordinals) {
            (true, ordinals) => {
                words.take();
                match ordinals {
                    // "1st day" is the first of the month, not each day of its first week.
                    Some(ordinals) => Days::Month(ordinals),
                    None => Days::Week { ordinals: (1..=5).collect(), weekdays: (0..=6).collect() },
                }
            }
            (false, ordinals) => Days::Week { ordinals: ordinals.unwrap_or_else(|| (1..=5).collect()), weekdays: words.list("day of the week", weekday)? },
        }
    };
    let months = if words.is("of") {
        words.take();
        months(words)?
    } else if matches!(days, Days::Month(_)) {
        return Err("days of a month need \"of\" and which months".to_owned());
    } else {
        (1..=12).collect()
    };
    if let Days::Month(days) = &days {
        let first = days.first().copied().unwrap_or(1);
        if !months.iter().any(|month| civil::date(2000, *month, 1).days_in_month() >= first) {
            return Err("it is a day that never comes".to_owned());
        }
    }
    Ok(Groc::Days { days, months, time: words.time()? })
}

fn months(words: &mut Words) -> Result<BTreeSet<i8>, String> {
    let of_quarter = |offset: i8| [1, 4, 7, 10].map(|month| month + offset - 1);
    if words.is("month") {
        words.take();
        return Ok((1..=12).collect());
    }
    if words.is("quarter") {
        words.take();
        return Ok(of_quarter(1).into());
    }
    if words.rest.first().is_some_and(|word| ordinal(word).is_some()) {
        let offsets = words.list("month of a quarter", |word| ordinal(word).filter(|offset| *offset <= 3))?;
        for word in ["month", "of", "quarter"] {
            words.expect(word)?;
        }
        return Ok(offsets.into_iter().flat_map(of_quarter).collect());
    }
    words.list("month", month)
}

fn ordinal(word: &str) -> Option<i8> {
    place(&[&["1st", "first"], &["2nd", "second"], &["3rd", "third"], &["4th", "fourth"], &["5th", "fifth"]], word).map(|place| place + 1)
}

/// From Sunday, 0.
fn weekday(word: &str) -> Option<i8> {
    place(
        &[&["sun", "sunday"], &["mon", "monday"], &["tue", "tuesday"], &["wed", "wednesday"], &["thu", "thursday"], &["fri", "friday"], &["sat", "saturday"]],
        word,
    )
}

/// From January, 1.
fn month(word: &str) -> Option<i8> {
    const NAMES: [&str; 12] = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
    NAMES.iter().position(|name| *name == word || name[..3] == *word).and_then(|place| i8::try_from(place + 1).ok())
}

fn place(names: &[&[&str]], word: &str) -> Option<i8> {
    names.iter().position(|spellings| spellings.contains(&word)).and_then(|place| i8::try_from(place).ok())
}

/// The instant at which a day's clock shows `time`: the first of two, the end of a gap.
fn instant(date: civil::Date, time: civil::Time, zone: &TimeZone) -> Option<Timestamp> {
    Some(match local(date.to_datetime(time), zone)? {
        Local::Once(at) | Local::Twice(at, _) | Local::Skipped(at) => at,
    })
}

/// The last instant of `time` at or before `at`.
fn previous(at: Timestamp, time: civil::Time, zone: &TimeZone) -> Option<Timestamp> {
    let today = zone.to_datetime(at).date();
    // A day may be missing altogether (Samoa, 2011).
    (-1..=2).find_map(|back: i32| instant(today.checked_sub(back.days()).ok()?, time, zone).filter(|found| *found <= at))
}

/// The first instant of `time` after `at`.
fn following(at: Timestamp, time: civil::Time, zone: &TimeZone) -> Option<Timestamp> {
    let today = zone.to_datetime(at).date();
    (-1..=2).find_map(|on: i32| instant(today.checked_add(on.days()).ok()?, time, zone).filter(|found| *found > at))
}

fn range_next(after: Timestamp, zone: &TimeZone, seconds: i64, from: civil::Time, to: civil::Time) -> Option<Timestamp> {
    let start = previous(after, from, zone)?;
    let past = after.as_second() - start.as_second();
    let next = Timestamp::from_second(start.as_second() + (past + seconds) / seconds * seconds).ok()?;
    let start_next = following(after, from, zone)?;
    let is_within = |at: Timestamp| {
        let (start, end) = (previous(at, from, zone), previous(at, to, zone));
        start > end || Some(at) == end
    };
    Some(if is_within(after) && is_within(next) && next < start_next { next } else { start_next })
}

fn days_next(after: Timestamp, zone: &TimeZone, days: &Days, months: &BTreeSet<i8>, time: civil::Time) -> Option<Timestamp> {
    let now = zone.to_datetime(after).date();
    let mut first = now.first_of_month();
    while first.year() <= now.year() + YEARS_MAX {
        if months.contains(&first.month()) {
            for day in matching(first, days).into_iter().filter(|day| first.month() != now.month() || first.year() != now.year() || *day >= now.day()) {
                let due = match local(civil::date(first.year(), first.month(), day).to_datetime(time), zone)? {
                    Local::Once(at) => Some(at),
                    Local::Twice(one, two) => Some(if after < one { one } else { two }),
                    Local::Skipped(_) => None,
                };
                if let Some(due) = due.filter(|due| *due > after) {
                    return Some(due);
                }
            }
        }
        first = first.checked_add(1.month()).ok()?;
    }
    None
}

/// The days of the month that begins at `first`, in order.
fn matching(first: civil::Date, days: &Days) -> BTreeSet<i8> {
    let last = first.days_in_month();
    match days {
        Days::Month(days) => days.iter().copied().filter(|day| *day <= last).collect(),
        Days::Week { ordinals, weekdays } => {
            let begins = first.weekday().to_sunday_zero_offset();
            let all = ordinals.iter().flat_map(|ordinal| weekdays.iter().map(move |weekday| (weekday - begins).rem_euclid(7) + 1 + 7 * (ordinal - 1)));
            all.filter(|day| *day <= last).collect()
        }
    }
}
