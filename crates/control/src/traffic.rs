//! The rules of traffic targets, as their owner asks for them.
//!
//! Which revisions serve in the end is `reconcile::traffic`'s. Source: run.v2 `TrafficTarget` and Cloud Run's documentation of
//! rollouts and tags.

use std::collections::HashSet;

use model::{RevisionName, ServiceName, Status, service::TrafficTarget};

/// Targets of one service.
const TARGETS_MAX: usize = 1000;
/// A tag and its service's name together: what is left of a DNS label's 63 characters in `TAG---SERVICE-PROJECTNUMBER`.
const TAG_AND_SERVICE_MAX: usize = 46;

/// Checks `traffic`; `exists` says whether a revision of this service has a name.
/// # Errors
/// `INVALID_ARGUMENT` naming the target.
pub(crate) fn traffic_check(service: &ServiceName, traffic: &[TrafficTarget], exists: impl Fn(&RevisionName) -> Result<bool, Status>) -> Result<(), Status> {
    if traffic.len() > TARGETS_MAX {
        return Err(Status::invalid_field("spec.traffic", format!("at most {TARGETS_MAX} targets can be set; there are {}", traffic.len())));
    }
    let mut tags = HashSet::new();
    for (index, target) in traffic.iter().enumerate() {
        let field = |name: &str| format!("spec.traffic[{index}].{name}");
        if target.percent > 100 {
            return Err(Status::invalid_field(field("percent"), format!("Invalid value {}: must be between 0 and 100", target.percent)));
        }
        if let Some(tag) = &target.tag {
            tag_check(service, tag).map_err(|why| Status::invalid_field(field("tag"), why))?;
            if !tags.insert(tag) {
                return Err(Status::invalid_field(field("tag"), format!("the tag {tag:?} is given to more than one target")));
            }
        }
        if let Some(revision) = &target.revision
            && !exists(revision)?
        {
            return Err(Status::invalid_field(field("revisionName"), format!("Revision '{revision}' of service '{service}' does not exist.")));
        }
    }
    let sum: u32 = traffic.iter().map(|target| target.percent).sum();
    if sum != 100 {
        return Err(Status::invalid_field("spec.traffic", format!("Traffic targets must sum to 100 percent; they sum to {sum}.")));
    }
    Ok(())
}

fn tag_check(service: &ServiceName, tag: &str) -> Result<(), String> {
    let is_label = tag.starts_with(|c: char| c.is_ascii_lowercase())
        && !tag.ends_with('-')
        && tag.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_label || tag.contains("---") {
        return Err(format!("Tag {tag:?} must use only lowercase alphanumeric characters and -, begin with a letter, not end with - and not contain ---"));
    }
    let length = tag.len() + service.as_str().len();
    if length > TAG_AND_SERVICE_MAX {
        return Err(format!("Tag {tag:?} and the service's name must have at most {TAG_AND_SERVICE_MAX} characters together; they have {length}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(revision: &str, percent: u32, tag: &str) -> TrafficTarget {
        TrafficTarget {
            revision: (!revision.is_empty()).then(|| RevisionName::parse(revision).unwrap()),
            percent,
            tag: (!tag.is_empty()).then(|| tag.to_owned()),
        }
    }

    fn check(traffic: &[TrafficTarget]) -> Result<(), Status> {
        let service = ServiceName::parse("f").unwrap();
        traffic_check(&service, traffic, |name| Ok(name.as_str().starts_with("f-")))
    }

    #[test]
    fn targets_that_are_good() {
        for traffic in [
            vec![target("", 100, "")],
            vec![target("f-1", 90, ""), target("", 10, "next")],
            vec![target("f-1", 100, ""), target("f-1", 0, "old"), target("f-1", 0, &"t".repeat(45))],
        ] {
            assert_eq!(check(&traffic), Ok(()));
        }
    }

    #[test]
    fn targets_that_are_refused() {
        for (traffic, field, text) in [
            (vec![], "spec.traffic", "sum to 0"),
            (vec![target("", 99, "")], "spec.traffic", "sum to 99"),
            (vec![target("", 101, "")], "spec.traffic[0].percent", "101"),
            (vec![target("", 60, ""), target("f-1", 50, "")], "spec.traffic", "sum to 110"),
            (vec![target("g-1", 100, "")], "spec.traffic[0].revisionName", "'g-1'"),
            (vec![target("", 100, "a"), target("f-1", 0, "a")], "spec.traffic[1].tag", "more than one"),
            (vec![target("", 100, "A")], "spec.traffic[0].tag", "lowercase"),
            (vec![target("", 100, "a---b")], "spec.traffic[0].tag", "---"),
            (vec![target("", 100, &"t".repeat(46))], "spec.traffic[0].tag", "47"),
            (vec![target("", 0, ""); 1001], "spec.traffic", "1001"),
        ] {
            let status = check(&traffic).expect_err(field);
            assert_eq!(status.fields[0].field, field, "{status}");
            assert!(status.outer.contains(text), "{text:?} is not in {status}");
        }
    }
}
