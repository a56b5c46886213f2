//! How many instances lie behind an event or a request: what tells a loop from a chain.
//!
//! An instance that publishes, writes an object, makes an audited call, runs a job or calls a service makes something that is one hop further
//! than what it is handling. What people and clocks begin has none. How many are too many is the operator's to say.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many services the trail names, the last ones.
const TRAIL_MAX: usize = 8;

/// The hops of one event or request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hops {
    /// Instances that lie behind it.
    pub count: u32,
    /// The services of the last of them, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trail: Vec<String>,
}

impl Hops {
    /// Whether none lies behind it.
    pub fn is_none(&self) -> bool {
        self.count == 0
    }

    /// What `by`, a service's name, makes while it handles this.
    #[must_use]
    pub fn next(&self, by: &str) -> Self {
        let older = self.trail.len().saturating_sub(TRAIL_MAX - 1);
        let trail = self.trail[older..].iter().cloned().chain([by.to_owned()]).collect();
        Self { count: self.count.saturating_add(1), trail }
    }
}

/// `3 hops: a > b > a`, with an ellipsis for what the trail does not name.
impl fmt::Display for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = if self.trail.len() < self.count as usize { "... > " } else { "" };
        write!(f, "{} hops: {cut}{}", self.count, self.trail.join(" > "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_is_a_hop_and_the_last_ones_are_named() {
        let mut hops = Hops::default();
        assert!(hops.is_none());
        for by in ["a", "b", "a"] {
            hops = hops.next(by);
        }
        assert_eq!(hops.to_string(), "3 hops: a > b > a");
        for n in 0..10 {
            hops = hops.next(&format!("f{n}"));
        }
        assert_eq!((hops.count, hops.trail.len()), (13, TRAIL_MAX));
        assert_eq!(hops.to_string(), "13 hops: ... > f2 > f3 > f4 > f5 > f6 > f7 > f8 > f9");
    }

    #[test]
    fn a_record_without_a_trail_is_read() {
        assert_eq!(serde_json::from_str::<Hops>("{\"count\":2}").unwrap(), Hops { count: 2, trail: Vec::new() });
    }
}
