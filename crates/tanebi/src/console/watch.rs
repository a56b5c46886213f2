//! What the console shows and Google has no method for in one call: meters now, cold starts, delivered events. Each for those who may see
//! the service that it is about.

use model::{ServiceKey, Status};
use serde_json::{Value, json};
use serving::COLD_START_PARTS;

use crate::{front::Front, own};

/// To see what a service does.
const SEE: &str = "run.services.get";
/// Of a list: it is asked for again and again.
const EVENTS_MAX: usize = 200;
const BODY_MAX_BYTES: usize = 4 << 10;
/// To see what it was sent, and to send it again.
const INVOKE: &str = "run.routes.invoke";

/// What only owners may do.
const OWN: &str = "resourcemanager.projects.setIamPolicy";

impl Front {
    fn may(&self, who: &iam::Identity, permission: &str, service: &ServiceKey) -> bool {
        self.console.iam.may(Some(who), permission, &service.resource(), service.project.as_str())
    }

    /// What this host gives: for the project's owners, as it names folders of the host.
    pub(super) fn doctor_seen(&self, who: &iam::Identity) -> Result<Value, Status> {
        let project = &self.console.project;
        let resource = format!("projects/{}", project.id);
        match self.console.iam.may(Some(who), OWN, &resource, project.id.as_str()) {
            true => self.own.doctor(),
            false => Err(Status::permission_denied(OWN, &resource)),
        }
    }

    /// The counts of every revision that has run since the start.
    pub(super) fn meters(&self, who: &iam::Identity) -> Value {
        let meters: Vec<_> = self
            .own
            .telemetry
            .meters()
            .into_iter()
            .filter_map(|(key, meter)| {
                let service = ServiceKey {
                    project: model::ProjectId::parse(&key.project).ok()?,
                    region: model::Region::parse(&key.region).ok()?,
                    service: model::ServiceName::parse(&key.service).ok()?,
                };
                let now = self.may(who, SEE, &service).then(|| meter.snapshot())?;
                Some(json!({
                    "region": key.region, "service": key.service, "revision": key.revision, "requestsByClass": now.requests_by_class,
                    "latencyMsP50": now.latency_ms_p50, "latencyMsP99": now.latency_ms_p99, "instancesActive": now.instances_active,
                    "instancesIdle": now.instances_idle, "starts": now.starts, "billableSeconds": now.billable_ms_total as f64 / 1e3,
                    "vcpuSeconds": now.cpu_millis_ms_total as f64 / 1e6, "gibSeconds": now.memory_byte_ms_total as f64 / 1e3 / f64::from(1 << 30),
                }))
            })
            .collect();
        json!({ "meters": meters })
    }

    pub(super) fn cold_starts_seen(&self, who: &iam::Identity) -> Value {
        let mut all = Vec::new();
        for (service, revision, cold_starts) in self.serving.cold_starts() {
            if !self.may(who, SEE, &service) {
                continue;
            }
            for one in cold_starts {
                let parts: Vec<_> = COLD_START_PARTS.iter().zip(one.parts).map(|(name, part)| json!([name, own::micros(part)])).collect();
                all.push(json!({
                    "time": one.time.to_string(), "service": service.service, "region": service.region, "revision": revision,
                    "rung": one.rung, "wholeUs": own::micros(one.whole()), "partsUs": parts,
                }));
            }
        }
        json!({ "coldStarts": all })
    }

    /// Those that went to services; the newest first.
    pub(super) fn events_seen(&self, who: &iam::Identity) -> Value {
        let events = self.own.deliverer.history().list(usize::MAX);
        let seen: Vec<_> = events.iter().rev().filter(|event| self.may_see_event(who, event)).take(EVENTS_MAX).map(shown).collect();
        json!({ "events": seen })
    }

    pub(super) async fn event_again(&self, who: &iam::Identity, written: &Value) -> Result<Value, Status> {
        let id = written.get("id").and_then(Value::as_u64).ok_or_else(|| Status::invalid_field("id", "is required: the number of an event"))?;
        match self.own.deliverer.history().get(id) {
            Some(event) if self.may_see_event(who, &event) => {}
            _ => return Err(Status::not_found(format!("Event {id} is not kept."))),
        }
        Ok(own::event_json(&self.own.deliverer.replay(id, self.console.clock.now(), None).await?))
    }

    fn may_see_event(&self, who: &iam::Identity, event: &events::history::Event) -> bool {
        use events::deliver::Target;
        let service = match &event.call.target {
            Target::Service(service, _) | Target::Revision(service, _, _) => Some(service.clone()),
            Target::Url(url) => url.host().and_then(|host| self.serving.service_of(host)),
        };
        service.is_some_and(|service| self.may(who, SEE, &service) && self.may(who, INVOKE, &service))
    }
}

/// An event with the beginning of its body.
fn shown(event: &events::history::Event) -> Value {
    let mut written = own::event_json(event);
    if let Some(Value::String(body)) = written.get_mut("body") {
        body.truncate(body.floor_char_boundary(BODY_MAX_BYTES));
    }
    written
}
