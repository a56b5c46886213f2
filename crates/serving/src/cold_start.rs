//! Where the time of a cold start went: from a request that found no instance to the first byte of its answer.
//!
//! The moments are taken by whoever passes them; each part lies between two that follow each other, so that the parts add up to the
//! whole. Only the first request that an instance was started for is told about: the others wait for a part of it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use model::Timestamp;
use tokio::time::Instant;

use crate::{clones::Rung, instances::Instance, stream::Stream};

/// What a caller who may see the service gets with the answer to a request that an instance was started for.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("tanebi-cold-start");
/// Kept of each revision.
pub(crate) const KEPT_MAX: usize = 100;

/// The parts, in their order.
pub const PARTS: [&str; 7] = ["queue", "rung", "clone", "repair", "unlock", "user_code", "first_byte"];

/// One cold start.
#[derive(Clone, Debug)]
pub struct ColdStart {
    /// When the request arrived.
    pub time: Timestamp,
    pub instance: String,
    /// armed, template, ordinary.
    pub rung: &'static str,
    /// By [`PARTS`]: the request's way to the start of an instance; the choice of how; the making of its processes; until its
    /// generators differ from its siblings'; until it has the request's connection, which of an ordinary start is all its loading; until
    /// the head of its answer; until that is on its way to the caller.
    pub parts: [Duration; PARTS.len()],
}

impl ColdStart {
    pub fn whole(&self) -> Duration {
        self.parts.iter().sum()
    }
}

/// When a start got how far.
#[derive(Default)]
pub(crate) struct Moments {
    /// Its task runs.
    pub(crate) begun: Moment,
    /// It is known how it will start.
    pub(crate) chosen: Moment,
    /// Its processes are there.
    pub(crate) made: Moment,
    /// It may be spoken to, as far as its launcher is concerned.
    pub(crate) repaired: Moment,
}

#[derive(Default)]
pub(crate) struct Moment(OnceLock<Instant>);

impl Moment {
    /// Now, unless it was before: a start that fell to a lower rung has spent that time too.
    pub(crate) fn pass(&self) {
        let _ = self.0.set(Instant::now());
    }
}

/// A request that an instance was started for, until its answer is on its way.
pub(crate) struct Cold {
    time: Timestamp,
    arrived: Instant,
    /// It got its place.
    placed: Instant,
    /// Whether its caller is told.
    is_told: bool,
}

impl Cold {
    pub(crate) fn new(time: Timestamp, arrived: Instant, is_told: bool) -> Self {
        Self { time, arrived, placed: Instant::now(), is_told }
    }

    /// `instance` has answered: tells the caller, and writes it down once the answer has gone out.
    pub(crate) fn answered(self, instance: &Arc<Instance>, headers: &mut HeaderMap) {
        let answered = Instant::now();
        let Moments { begun, chosen, made, repaired } = &instance.moments;
        let mut last = self.arrived;
        // What an instance did before the request came is no part of the request's wait.
        let mut part = |until: Option<&Instant>| {
            let until = until.map_or(last, |until| last.max(*until));
            let part = until - last;
            last = until;
            part
        };
        let mut parts = [begun.0.get(), chosen.0.get(), made.0.get(), repaired.0.get(), Some(&self.placed), Some(&answered), None].map(&mut part);
        let rung = instance.rung.get().copied().unwrap_or(Rung::Ordinary);
        if self.is_told {
            headers.insert(HEADER, header(rung, &parts[..PARTS.len() - 1]));
        }
        let (instance, time) = (instance.clone(), self.time);
        let mut written = move || {
            parts[PARTS.len() - 1] = answered.elapsed();
            let cold_start = ColdStart { time, instance: instance.id.clone(), rung: rung.name(), parts };
            let whole = cold_start.whole();
            span(&instance, &cold_start);
            instance.pool.meter().cold_start(rung.name(), whole);
            instance.pool.cold_start(cold_start);
        };
        match Stream::current() {
            Some(stream) => stream.after(written),
            None => written(),
        }
    }
}

/// `armed;dur=2.31, queue;dur=0.05, ...` in milliseconds: as Server-Timing is written. Until the head of the answer.
fn header(rung: Rung, parts: &[Duration]) -> HeaderValue {
    let ms = |part: Duration| part.as_secs_f64() * 1e3;
    let mut text = format!("{};dur={:.3}", rung.name(), ms(parts.iter().sum()));
    for (name, part) in PARTS.iter().zip(parts) {
        text += &format!(", {name};dur={:.3}", ms(*part));
    }
    HeaderValue::from_str(&text).expect("names and numbers are ASCII")
}

fn span(instance: &Instance, cold_start: &ColdStart) {
    let us = |at: usize| u64::try_from(cold_start.parts[at].as_micros()).unwrap_or(u64::MAX);
    tracing::debug_span!(
        "cold_start",
        revision = %instance.pool.revision,
        instance = %instance.sandbox,
        rung = cold_start.rung,
        queue_us = us(0),
        rung_us = us(1),
        clone_us = us(2),
        repair_us = us(3),
        unlock_us = us(4),
        user_code_us = us(5),
        first_byte_us = us(6),
    )
    .in_scope(|| tracing::debug!(whole = ?cold_start.whole(), "answered"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_rung_the_whole_and_each_part() {
        let parts = [1, 2, 3, 4, 5, 6].map(Duration::from_millis);
        let value = header(Rung::Template, &parts);
        assert_eq!(
            value.to_str().unwrap(),
            "template;dur=21.000, queue;dur=1.000, rung;dur=2.000, clone;dur=3.000, repair;dur=4.000, unlock;dur=5.000, user_code;dur=6.000"
        );
    }
}
