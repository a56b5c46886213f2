//! What an owner sets of a subscription's delivery, with Google's limits.
//!
//! Source: google.pubsub.v1 `Subscription`, `RetryPolicy` and `DeadLetterPolicy`. Where messages go (push, pull) is not here.

use std::time::Duration;

use model::Status;
use serde::{Deserialize, Serialize};

/// Seconds of a lease, as set or as asked for by modifyAckDeadline (where 0 is a nack).
pub const ACK_DEADLINE_MIN_S: u32 = 10;
pub const ACK_DEADLINE_MAX_S: u32 = 600;
pub const ACK_DEADLINE_DEFAULT_S: u32 = 10;
pub const RETENTION_MIN: Duration = Duration::from_secs(10 * 60);
pub const RETENTION_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
pub const DELIVERY_ATTEMPTS_MIN: u32 = 5;
pub const DELIVERY_ATTEMPTS_MAX: u32 = 100;
pub const DELIVERY_ATTEMPTS_DEFAULT: u32 = 5;
pub const BACKOFF_MAX: Duration = Duration::from_secs(600);
pub const BACKOFF_MINIMUM_DEFAULT: Duration = Duration::from_secs(10);
pub const BACKOFF_MAXIMUM_DEFAULT: Duration = Duration::from_secs(600);

/// How a subscription delivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How long a lease lasts at first, in seconds; 10..=600.
    pub ack_deadline_s: u32,
    /// Whether messages with an ordering key keep their order. Immutable.
    pub is_ordered: bool,
    /// Whether only the id of a lease that still runs acknowledges, so that a confirmed acknowledgement is final.
    pub is_exactly_once: bool,
    /// How long an unacknowledged message is kept; 10 minutes..=31 days.
    pub retention: Duration,
    /// Whether acknowledged messages are kept as long, to be replayed by a seek.
    pub retain_acked: bool,
    /// Without one, what was not acknowledged is redelivered at once.
    pub retry: Option<Retry>,
    /// After how many deliveries a message goes to the dead-letter topic; 5..=100. Without one, never.
    pub delivery_attempts_max: Option<u32>,
}

/// Exponential backoff between a message's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub minimum_backoff: Duration,
    pub maximum_backoff: Duration,
}

impl Default for Settings {
    /// What Google gives a subscription whose owner sets nothing.
    fn default() -> Self {
        Self {
            ack_deadline_s: ACK_DEADLINE_DEFAULT_S,
            is_ordered: false,
            is_exactly_once: false,
            retention: RETENTION_DEFAULT,
            retain_acked: false,
            retry: None,
            delivery_attempts_max: None,
        }
    }
}

impl Settings {
    /// # Errors
    /// `INVALID_ARGUMENT` naming the first field that is out of its range.
    pub fn check(&self) -> Result<(), Status> {
        let out_of = |field: &str, range: String, value: String| Err(Status::invalid_field(field, format!("must be {range}, and is {value}")));
        if !(ACK_DEADLINE_MIN_S..=ACK_DEADLINE_MAX_S).contains(&self.ack_deadline_s) {
            let range = format!("from {ACK_DEADLINE_MIN_S} to {ACK_DEADLINE_MAX_S} seconds");
            return out_of("ack_deadline_seconds", range, self.ack_deadline_s.to_string());
        }
        if !(RETENTION_MIN..=RETENTION_MAX).contains(&self.retention) {
            return out_of("message_retention_duration", "from 10 minutes to 31 days".to_owned(), format!("{:?}", self.retention));
        }
        if let Some(attempts) = self.delivery_attempts_max
            && !(DELIVERY_ATTEMPTS_MIN..=DELIVERY_ATTEMPTS_MAX).contains(&attempts)
        {
            let range = format!("from {DELIVERY_ATTEMPTS_MIN} to {DELIVERY_ATTEMPTS_MAX}");
            return out_of("dead_letter_policy.max_delivery_attempts", range, attempts.to_string());
        }
        if let Some(retry) = self.retry {
            if retry.maximum_backoff > BACKOFF_MAX {
                return out_of("retry_policy.maximum_backoff", "at most 600 seconds".to_owned(), format!("{:?}", retry.maximum_backoff));
            }
            if retry.minimum_backoff > retry.maximum_backoff {
                let range = format!("at most maximum_backoff ({:?})", retry.maximum_backoff);
                return out_of("retry_policy.minimum_backoff", range, format!("{:?}", retry.minimum_backoff));
            }
        }
        Ok(())
    }
}

impl Retry {
    /// How long to wait after the failure number `failures`, which begins at 1: the minimum, doubled for each further one.
    pub fn backoff(self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.minimum_backoff.saturating_mul(factor).min(self.maximum_backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_googles() {
        let check = |change: fn(&mut Settings), field: &str| {
            let mut settings = Settings::default();
            change(&mut settings);
            let found = settings.check().err().map(|status| status.fields[0].field.clone()).unwrap_or_default();
            assert_eq!(found, field, "{settings:?}");
        };
        check(|_| (), "");
        check(|s| s.ack_deadline_s = 9, "ack_deadline_seconds");
        check(|s| s.ack_deadline_s = 600, "");
        check(|s| s.ack_deadline_s = 601, "ack_deadline_seconds");
        check(|s| s.retention = Duration::from_secs(600), "");
        check(|s| s.retention = Duration::from_secs(599), "message_retention_duration");
        check(|s| s.retention = Duration::from_secs(31 * 86400), "");
        check(|s| s.retention = Duration::from_secs(31 * 86400 + 1), "message_retention_duration");
        check(|s| s.delivery_attempts_max = Some(4), "dead_letter_policy.max_delivery_attempts");
        check(|s| s.delivery_attempts_max = Some(5), "");
        check(|s| s.delivery_attempts_max = Some(100), "");
        check(|s| s.delivery_attempts_max = Some(101), "dead_letter_policy.max_delivery_attempts");
        let retry = |minimum: u64, maximum: u64| Some(Retry { minimum_backoff: Duration::from_secs(minimum), maximum_backoff: Duration::from_secs(maximum) });
        for (minimum, maximum, field) in [(0, 600, ""), (10, 601, "retry_policy.maximum_backoff"), (600, 600, ""), (11, 10, "retry_policy.minimum_backoff")] {
            let settings = Settings { retry: retry(minimum, maximum), ..Settings::default() };
            let found = settings.check().err().map(|status| status.fields[0].field.clone()).unwrap_or_default();
            assert_eq!(found, field, "{minimum} {maximum}");
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let retry = Retry { minimum_backoff: Duration::from_secs(10), maximum_backoff: Duration::from_secs(600) };
        for (failures, seconds) in [(1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (8, 600), (1000, 600)] {
            assert_eq!(retry.backoff(failures), Duration::from_secs(seconds), "{failures}");
        }
    }
}
