//! Callers that were not let in, the last of them: so that somebody can be told why.
//!
//! In memory only, and bounded. Of a token only what it says of itself is kept, never the token.

use std::collections::VecDeque;

use iam::{Identity, TokenClaims, TokenError};
use model::{ServiceKey, Timestamp};
use parking_lot::Mutex;

use crate::{Origin, Refusal};

/// As many are remembered.
const DENIALS_MAX: usize = 1000;
/// Of a host.
const TEXT_MAX_BYTES: usize = 255;

/// A request that was not let in.
#[derive(Clone, Debug)]
pub struct Denial {
    /// 32 hexadecimal digits; the request's log entry has it too.
    pub trace: String,
    pub time: Timestamp,
    pub service: ServiceKey,
    /// `Ingress`, `NoToken`, `NotPermitted` or `BadToken`.
    pub refusal: Refusal,
    pub caller: Caller,
    pub origin: Origin,
    /// That the caller named.
    pub host: String,
}

/// Who called, as far as anybody asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Refused before anyone asked.
    NotAsked,
    /// Without a token.
    Nobody,
    Known(Identity),
    /// With a token that is not good; what it says of itself is the caller's word only.
    Unknown(TokenError, Option<TokenClaims>),
}

/// A refusal and whom it met.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) refusal: Refusal,
    pub(crate) caller: Caller,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, caller: Caller::NotAsked }
    }
}

#[derive(Default)]
pub(crate) struct Denials(Mutex<VecDeque<Denial>>);

impl Denials {
    pub(crate) fn push(&self, mut denial: Denial) {
        if !matches!(denial.refusal, Refusal::Ingress | Refusal::NoToken | Refusal::NotPermitted | Refusal::BadToken) {
            return;
        }
        let end = denial.host.floor_char_boundary(TEXT_MAX_BYTES);
        denial.host.truncate(end);
        let mut denials = self.0.lock();
        if denials.len() >= DENIALS_MAX {
            denials.pop_front();
        }
        denials.push_back(denial);
    }

    /// The last one of a trace.
    pub(crate) fn find(&self, trace: &str) -> Option<Denial> {
        self.0.lock().iter().rev().find(|denial| denial.trace == trace).cloned()
    }
}

#[cfg(test)]
mod tests {
    use model::{ProjectId, Region, ServiceName};

    use super::*;

    fn denial(trace: usize, refusal: Refusal) -> Denial {
        let service = ServiceKey {
            project: ProjectId::parse("local-project").unwrap(),
            region: Region::parse("asia-northeast1").unwrap(),
            service: ServiceName::parse("f").unwrap(),
        };
        let origin = Origin::Inside { project: "local-project".to_owned() };
        Denial { trace: trace.to_string(), time: Timestamp::UNIX_EPOCH, service, refusal, caller: Caller::Nobody, origin, host: "é".repeat(300) }
    }

    #[test]
    fn the_last_are_remembered_and_only_callers_that_were_not_let_in() {
        let denials = Denials::default();
        for at in 0..DENIALS_MAX + 10 {
            denials.push(denial(at, Refusal::NoToken));
        }
        denials.push(denial(5000, Refusal::QueueFull { retry_after_s: 1 }));
        assert!(denials.find("9").is_none() && denials.find("5000").is_none());
        assert_eq!(denials.find("10").unwrap().host.len(), 254);
        assert_eq!(denials.0.lock().len(), DENIALS_MAX);
    }
}
