//! What instances asked of hosts of Google's that no API is played on: told in the log of the service, as nothing goes to the real one.

use std::{collections::VecDeque, sync::Arc};

use model::{
    Clock,
    log::{Entry, LogName, Payload, Severity, Source},
};
use parking_lot::Mutex;
use serving::InstanceIdentity;

/// Pairs of instance and host that are remembered, so that a loop says it once.
const TOLD_MAX: usize = 256;

/// Tells of each host once an instance.
pub struct Refused {
    telemetry: telemetry::Telemetry,
    clock: Arc<dyn Clock>,
    told: Mutex<VecDeque<(String, String)>>,
}

impl Refused {
    pub fn new(telemetry: telemetry::Telemetry, clock: Arc<dyn Clock>) -> Self {
        Self { telemetry, clock, told: Mutex::new(VecDeque::new()) }
    }

    pub fn tell(&self, identity: &InstanceIdentity, host: &str) {
        {
            let mut told = self.told.lock();
            if told.iter().any(|(instance, known)| *instance == identity.instance && known == host) {
                return;
            }
            if told.len() == TOLD_MAX {
                told.pop_front();
            }
            told.push_back((identity.instance.clone(), host.to_owned()));
        }
        let text = format!("A request to {host} was refused. {}", api::not_played(host));
        self.telemetry.log(entry(identity, text, self.clock.now()));
    }
}

/// A warning in the log of an instance's service.
pub fn entry(identity: &InstanceIdentity, text: String, time: model::Timestamp) -> Entry {
    let source = Source {
        project: identity.project.clone(),
        region: identity.region.clone(),
        service: identity.service.clone(),
        revision: identity.revision.clone(),
        instance: identity.instance.clone(),
        build: String::new(),
        job: String::new(),
        managed_by: String::new(),
    };
    Entry {
        source: Arc::new(source),
        log: LogName::System,
        time,
        severity: Severity::Warning,
        payload: Payload::Text(text),
        http: None,
        trace: String::new(),
        span: String::new(),
        trace_sampled: false,
        labels: std::collections::BTreeMap::new(),
    }
}
