//! When a job runs: a state machine over its record. Pure: time and outcomes come in, the record changes.
//!
//! A tick is an instant of the schedule. Each begins at most one execution, whose first attempt is recorded before it is made: after a crash
//! it is known to have begun and is not begun again. A crash counts as a failed attempt. A tick that comes while an attempt is under way waits
//! for its end; of several that came meanwhile, or while nothing ran, the first is the one that runs (decision 0014).

use jiff::SignedDuration;
use model::{Hops, Status, Timestamp};
use serde::{Deserialize, Serialize};

use super::job::{Ended, Job, Settings};

/// What a tick, or a forced run, led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The tick, or when it was forced.
    pub tick: Timestamp,
    /// When its first attempt began.
    pub begun: Timestamp,
    /// Attempts that have begun.
    pub attempts: u32,
    /// When the next one is made; none while one is under way.
    pub retry: Option<Timestamp>,
    /// What lies behind it; nothing lies behind a tick.
    #[serde(default, skip_serializing_if = "Hops::is_none")]
    pub hops: Hops,
}

/// One attempt that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub tick: Timestamp,
    /// From 1; 0 for one that was forced beside another.
    pub number: u32,
    pub hops: Hops,
}

impl Job {
    /// When something is to be done: a tick or an attempt more. None while an attempt is under way, or for good.
    pub fn due(&self) -> Option<Timestamp> {
        match &self.execution {
            Some(execution) => Some(execution.retry?.min(self.next.unwrap_or(Timestamp::MAX))),
            None => self.next,
        }
    }

    /// What clients are told: the next attempt or tick, whether or not one is under way.
    pub fn scheduled(&self) -> Option<Timestamp> {
        let retry = self.execution.as_ref().and_then(|execution| execution.retry);
        [retry, self.next].into_iter().flatten().min()
    }

    /// Begins the attempt that is due at `now`; `None` when none is.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a schedule that this version does not read.
    pub fn begin(&mut self, now: Timestamp) -> Result<Option<Attempt>, Status> {
        if self.due().is_none_or(|due| due > now) {
            return Ok(None);
        }
        match (self.next, &mut self.execution) {
            // A tick ends what was tried until then.
            (Some(tick), _) if tick <= now => {
                // Counted from the tick when the clock was set back behind it.
                self.next = self.settings.schedule()?.next(now.max(tick));
                self.execution = Some(Execution { tick, begun: now, attempts: 1, retry: None, hops: Hops::default() });
            }
            (_, Some(execution)) => {
                execution.attempts += 1;
                execution.retry = None;
            }
            (_, None) => return Ok(None),
        }
        self.attempted = Some(now);
        Ok(self.under_way())
    }

    /// Begins an attempt that nobody waited for: an execution of its own, or, while an attempt is under way, one beside it.
    pub fn force(&mut self, now: Timestamp, hops: Hops) -> Attempt {
        self.attempted = Some(now);
        if self.under_way().is_some() {
            return Attempt { tick: now, number: 0, hops };
        }
        self.execution = Some(Execution { tick: now, begun: now, attempts: 1, retry: None, hops: hops.clone() });
        Attempt { tick: now, number: 1, hops }
    }

    /// The attempt that is under way.
    pub fn under_way(&self) -> Option<Attempt> {
        let execution = self.execution.as_ref().filter(|execution| execution.retry.is_none())?;
        Some(Attempt { tick: execution.tick, number: execution.attempts, hops: execution.hops.clone() })
    }

    /// An attempt ended.
    pub fn finish(&mut self, attempt: &Attempt, ended: Ended, now: Timestamp) {
        if self.under_way().as_ref() == Some(attempt)
            && let Some(mut execution) = self.execution.take()
            && ended.code != 0
            && !self.is_paused
            && let Some(retry) = self.retry_next(&execution, now)
        {
            execution.retry = Some(retry);
            self.execution = Some(execution);
        }
        self.ended = Some(ended);
    }

    /// When a failed execution is tried again: until the count and the duration are both used up, and never past the next tick.
    fn retry_next(&self, execution: &Execution, now: Timestamp) -> Option<Timestamp> {
        let retry = &self.settings.retry;
        let since = SignedDuration::try_from(retry.duration_max).unwrap_or(SignedDuration::MAX);
        let is_counted = execution.attempts <= retry.count;
        let is_timely = !retry.duration_max.is_zero() && now.duration_since(execution.begun) < since;
        if retry.count == 0 || !(is_counted || is_timely) {
            return None;
        }
        let at = now.checked_add(retry.backoff(execution.attempts)).ok()?;
        self.next.is_none_or(|next| at < next).then_some(at)
    }

    /// Its owner stops it: no tick and no further attempt. One that is under way goes on.
    pub(super) fn pause(&mut self) {
        self.is_paused = true;
        self.next = None;
        self.execution.take_if(|execution| execution.retry.is_some());
    }

    /// Its owner lets it go on, with the first tick from now: those that came meanwhile are not made up for.
    pub(super) fn resume(&mut self, now: Timestamp) -> Result<(), Status> {
        self.next = self.settings.schedule()?.next(now);
        self.is_paused = false;
        Ok(())
    }

    /// Its owner changes it. A new schedule counts from now.
    pub(super) fn change(&mut self, settings: Settings, now: Timestamp) -> Result<(), Status> {
        let is_rescheduled = (&settings.schedule, &settings.time_zone) != (&self.settings.schedule, &self.settings.time_zone);
        self.settings = settings;
        self.updated = now;
        if is_rescheduled && !self.is_paused {
            self.next = self.settings.schedule()?.next(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{ProjectId, Region};

    use super::*;
    use crate::scheduler::job::{JobKey, Retry, tests::settings};

    fn at(text: &str) -> Timestamp {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    fn job(schedule: &str, retry: Retry) -> Job {
        let key = JobKey::new(ProjectId::parse("demo-1").unwrap(), Region::parse("asia-northeast1").unwrap(), "j").unwrap();
        let settings = Settings { schedule: schedule.to_owned(), retry, ..settings() };
        let next = settings.schedule().unwrap().next(at("00:00:00"));
        Job { key, uid: String::new(), settings, is_paused: false, updated: at("00:00:00"), next, execution: None, attempted: None, ended: None }
    }

    fn ended(code: i32) -> Ended {
        Ended { code, message: String::new() }
    }

    fn retry(count: u32) -> Retry {
        Retry { count, ..Retry::default() }
    }

    fn begun(job: &mut Job, now: &str, tick: &str, number: u32) -> Attempt {
        let attempt = job.begin(at(now)).unwrap().unwrap_or_else(|| panic!("nothing is due at {now}"));
        assert_eq!(attempt, Attempt { tick: at(tick), number, hops: Hops::default() }, "at {now}");
        attempt
    }

    #[test]
    fn each_tick_runs_once() {
        let mut job = job("0 9 * * *", retry(0));
        assert_eq!(job.begin(at("08:59:59")).unwrap(), None);
        let attempt = begun(&mut job, "09:00:00", "09:00:00", 1);
        assert_eq!((job.due(), job.begin(at("09:00:00")).unwrap()), (None, None), "one at a time");
        job.finish(&attempt, ended(0), at("09:00:01"));
        assert_eq!((job.due(), &job.execution, &job.ended), (Some("2026-01-02T09:00:00Z".parse().unwrap()), &None, &Some(ended(0))));
    }

    #[test]
    fn a_failed_attempt_is_made_again_until_the_count_is_used_up() {
        let mut job = job("0 9 * * *", retry(3));
        let mut attempt = begun(&mut job, "09:00:00", "09:00:00", 1);
        for (number, failed, again) in [(2, "09:00:01", "09:00:06"), (3, "09:00:06", "09:00:16"), (4, "09:00:16", "09:00:36")] {
            job.finish(&attempt, ended(14), at(failed));
            assert_eq!((job.due(), job.scheduled()), (Some(at(again)), Some(at(again))));
            attempt = begun(&mut job, again, "09:00:00", number);
        }
        job.finish(&attempt, ended(14), at("09:00:36"));
        assert_eq!((job.due(), job.execution), (Some("2026-01-02T09:00:00Z".parse().unwrap()), None));
    }

    #[test]
    fn a_duration_prolongs_the_count_and_shortens_nothing() {
        let mut job = job("0 9 * * *", Retry { duration_max: Duration::from_secs(30), backoff_max: Duration::from_secs(5), ..retry(1) });
        let mut now = at("09:00:00");
        let mut attempts = 0;
        while let Some(attempt) = job.begin(now).unwrap() {
            attempts += 1;
            job.finish(&attempt, ended(14), now);
            now = job.due().unwrap().min(at("10:00:00"));
        }
        // At 0, 5, ... 30 s: at 30 s the duration is used up, and the count was before.
        assert_eq!(attempts, 7);
    }

    #[test]
    fn nothing_is_tried_past_the_next_tick() {
        let mut job = job("* * * * *", Retry { backoff_min: Duration::from_secs(59), ..retry(5) });
        let attempt = begun(&mut job, "00:01:00", "00:01:00", 1);
        job.finish(&attempt, ended(14), at("00:01:02"));
        assert_eq!((&job.execution, job.due()), (&None, Some(at("00:02:00"))));
        // One that is planned before a tick which comes first gives way to it.
        let attempt = begun(&mut job, "00:02:00", "00:02:00", 1);
        job.finish(&attempt, ended(14), at("00:02:00"));
        assert_eq!(job.due(), Some(at("00:02:59")));
        begun(&mut job, "00:03:10", "00:03:00", 1);
        assert_eq!(job.next, Some(at("00:04:00")));
    }

    #[test]
    fn ticks_that_came_while_one_ran_or_nothing_did_are_one_late_run() {
        let mut job = job("* * * * *", retry(5));
        let attempt = begun(&mut job, "00:01:00", "00:01:00", 1);
        assert_eq!(job.begin(at("00:02:00")).unwrap(), None);
        job.finish(&attempt, ended(14), at("00:04:30"));
        assert_eq!((&job.execution, job.due()), (&None, Some(at("00:02:00"))), "a failed one is not tried past the tick that waits");
        let attempt = begun(&mut job, "00:04:30", "00:02:00", 1);
        job.finish(&attempt, ended(0), at("00:04:31"));
        assert_eq!(job.due(), Some(at("00:05:00")));
        begun(&mut job, "08:00:10", "00:05:00", 1);
        assert_eq!(job.next, Some(at("08:01:00")));
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_no_tick() {
        let mut job = job("0 * * * *", retry(0));
        let attempt = begun(&mut job, "01:00:00", "01:00:00", 1);
        job.finish(&attempt, ended(0), at("00:10:00"));
        assert_eq!((job.begin(at("01:00:00")).unwrap(), job.due()), (None, Some(at("02:00:00"))));
        begun(&mut job, "03:30:00", "02:00:00", 1);
        assert_eq!(job.next, Some(at("04:00:00")), "a clock that was put forward makes one late run");
    }

    #[test]
    fn a_crash_is_a_failed_attempt() {
        for (count, due) in [(0, "2026-01-02T09:00:00Z".parse().unwrap()), (1, at("09:00:08"))] {
            let mut job = job("0 9 * * *", retry(count));
            begun(&mut job, "09:00:00", "09:00:00", 1);
            let interrupted = job.under_way().unwrap();
            job.finish(&interrupted, ended(10), at("09:00:03"));
            assert_eq!(job.due(), Some(due));
        }
    }

    #[test]
    fn a_forced_run_is_an_execution_or_one_attempt_beside_it() {
        let mut job = job("0 9 * * *", retry(1));
        job.pause();
        let forced = job.force(at("00:00:10"), Hops::default().next("f"));
        assert_eq!(forced, Attempt { tick: at("00:00:10"), number: 1, hops: Hops::default().next("f") });
        let beside = job.force(at("00:00:11"), Hops::default());
        assert_eq!(beside.number, 0);
        job.finish(&beside, ended(0), at("00:00:12"));
        assert_eq!(job.under_way(), Some(forced.clone()), "the one beside it changes nothing of it");
        job.finish(&forced, ended(14), at("00:00:13"));
        assert_eq!((job.due(), &job.ended), (None, &Some(ended(14))), "a paused job is not tried again");
        job.resume(at("00:00:14")).unwrap();
        let forced = job.force(at("00:00:15"), Hops::default().next("f"));
        job.finish(&forced, ended(14), at("00:00:15"));
        assert_eq!(job.due(), Some(at("00:00:20")));
        assert_eq!(job.begin(at("00:00:20")).unwrap().map(|again| (again.number, again.hops.count)), Some((2, 1)), "what lay behind it still does");
    }

    #[test]
    fn pausing_ends_what_waits_and_resuming_makes_up_for_nothing() {
        let mut job = job("* * * * *", retry(5));
        let attempt = begun(&mut job, "00:01:00", "00:01:00", 1);
        job.finish(&attempt, ended(14), at("00:01:00"));
        job.pause();
        assert_eq!((job.due(), job.scheduled(), job.begin(at("05:00:00")).unwrap()), (None, None, None));
        job.resume(at("05:00:30")).unwrap();
        assert_eq!(job.due(), Some(at("05:01:00")));
    }

    #[test]
    fn a_change_of_schedule_counts_from_now_and_any_other_changes_no_tick() {
        let mut job = job("0 9 * * *", retry(0));
        job.change(Settings { description: "x".to_owned(), ..job.settings.clone() }, at("08:00:00")).unwrap();
        assert_eq!((job.next, job.updated), (Some(at("09:00:00")), at("08:00:00")));
        job.change(Settings { schedule: "0 10 * * *".to_owned(), ..job.settings.clone() }, at("09:30:00")).unwrap();
        assert_eq!(job.next, Some(at("10:00:00")));
        job.pause();
        job.change(Settings { schedule: "0 11 * * *".to_owned(), ..job.settings.clone() }, at("09:30:00")).unwrap();
        assert_eq!(job.next, None);
    }
}
