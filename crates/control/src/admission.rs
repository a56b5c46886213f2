//! Who was not let in at a service, and whether a caller would be let near it: what the data plane knows, for whoever asks why.

use iam::{Identity, TokenClaims, TokenError};
use model::{ServiceKey, Timestamp, service::Ingress};
use serving::{Caller, Origin, Refusal};

use crate::Control;

/// A request that was not let in.
#[derive(Clone, Debug)]
pub struct DeniedRequest {
    pub time: Timestamp,
    pub service: ServiceKey,
    /// That the caller named.
    pub host: String,
    pub stopped: Stopped,
}

/// By what.
#[derive(Clone, Debug)]
pub enum Stopped {
    /// The service's ingress setting, before anyone asked who calls.
    Ingress(CallOrigin),
    /// There was no token, and the service is not public.
    NoToken,
    /// What it says of itself is its bearer's word only.
    BadToken(TokenError, Option<TokenClaims>),
    /// Somebody known, who has not the permission.
    NotPermitted(Identity),
}

/// Where a call comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOrigin {
    Outside,
    /// An instance of a project, or one of the platform's own senders.
    Inside(String),
}

impl Control {
    /// A request that was not let in, by its trace (32 hexadecimal digits); the last 1,000 since the start are remembered.
    pub fn denied_request(&self, trace: &str) -> Option<DeniedRequest> {
        let denial = self.serving().denial(trace)?;
        let stopped = match (denial.refusal, denial.caller) {
            (Refusal::Ingress, _) => Stopped::Ingress(match denial.origin {
                Origin::Outside { .. } => CallOrigin::Outside,
                Origin::Inside { project } => CallOrigin::Inside(project),
            }),
            (_, Caller::Known(who)) => Stopped::NotPermitted(who),
            (_, Caller::Unknown(error, claims)) => Stopped::BadToken(error, claims),
            (_, Caller::Nobody | Caller::NotAsked) => Stopped::NoToken,
        };
        Some(DeniedRequest { time: denial.time, service: denial.service, host: denial.host, stopped })
    }
}

/// Whether `ingress` of a service of `project` lets a call near it.
pub fn admits(ingress: Ingress, project: &str, from: &CallOrigin) -> bool {
    let origin = match from {
        CallOrigin::Outside => Origin::Outside { remote: ([192, 0, 2, 1], 443).into(), tls: true },
        CallOrigin::Inside(project) => Origin::Inside { project: project.clone() },
    };
    serving::admits(ingress, project, &origin)
}
