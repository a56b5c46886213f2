//! What was counted, in the Prometheus text format (version 0.0.4).

use std::{
    fmt::{Display, Write as _},
    sync::Arc,
};

use crate::{
    histogram::Counts,
    meter::{Meter, MeterKey, Snapshot},
};

/// Ends of the buckets shown: powers of two of microseconds, from 0.5 ms to 69 min, where the histogram counts exactly.
const BUCKET_POWERS: std::ops::RangeInclusive<u32> = 9..=32;

pub(crate) struct LogCounts {
    pub(crate) written: u64,
    pub(crate) dropped: u64,
}

pub(crate) fn text(meters: &[(MeterKey, Arc<Meter>)], logs: LogCounts) -> String {
    let meters: Vec<Revision<'_>> = meters.iter().map(|(key, meter)| Revision { labels: labels(key), snapshot: meter.snapshot(), meter }).collect();
    let mut page = Page::default();

    page.family("tanebi_requests_total", "counter", "Requests by class of status; class none had no answer.");
    for Revision { labels, snapshot, .. } in &meters {
        for (class, count) in snapshot.requests_by_class.iter().enumerate() {
            let class = if class == 0 { "none".to_owned() } else { format!("{class}xx") };
            page.sample("tanebi_requests_total", &format!("{labels},class=\"{class}\""), count);
        }
    }
    page.histograms("tanebi_request_latency_seconds", "From a request's head to the end of its answer.", &meters, Meter::latencies);
    page.histograms("tanebi_startup_latency_seconds", "From the wish for an instance to its being ready.", &meters, Meter::startups);
    page.family("tanebi_cold_start_seconds", "histogram", "From a request that found no instance to its answer's first byte, by how the instance was started.");
    for Revision { labels, meter, .. } in &meters {
        for (rung, counts) in meter.cold_starts() {
            page.histogram("tanebi_cold_start_seconds", &format!("{labels},rung=\"{rung}\""), &counts);
        }
    }

    page.family("tanebi_instances", "gauge", "Instances now, with a request (active) or without (idle).");
    for Revision { labels, snapshot, .. } in &meters {
        page.sample("tanebi_instances", &format!("{labels},state=\"active\""), snapshot.instances_active);
        page.sample("tanebi_instances", &format!("{labels},state=\"idle\""), snapshot.instances_idle);
    }
    page.sums("tanebi_billable_seconds_total", "Billable instance time, each stretch rounded up to 100 ms.", &meters, |sums| {
        sums.billable_ms_total as f64 / 1e3
    });
    page.sums("tanebi_billable_vcpu_seconds_total", "Billable instance time times vCPUs.", &meters, |sums| sums.cpu_millis_ms_total as f64 / 1e6);
    page.sums("tanebi_billable_gib_seconds_total", "Billable instance time times GiB of memory.", &meters, |sums| {
        sums.memory_byte_ms_total as f64 / 1e3 / f64::from(1 << 30)
    });

    page.family("tanebi_log_entries_total", "counter", "Log entries written.");
    page.sample("tanebi_log_entries_total", "", logs.written);
    page.family("tanebi_log_entries_dropped_total", "counter", "Log entries lost: too many at once, or the disk did not take them.");
    page.sample("tanebi_log_entries_dropped_total", "", logs.dropped);
    page.text
}

struct Revision<'a> {
    labels: String,
    snapshot: Snapshot,
    meter: &'a Meter,
}

fn labels(key: &MeterKey) -> String {
    [("project", &key.project), ("region", &key.region), ("service", &key.service), ("revision", &key.revision)]
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .join(",")
}

/// Of a label's value: backslash, quote, line feed.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn sums(&mut self, name: &str, help: &str, meters: &[Revision<'_>], sum: impl Fn(&Snapshot) -> f64) {
        self.family(name, "counter", help);
        for Revision { labels, snapshot, .. } in meters {
            self.sample(name, labels, sum(snapshot));
        }
    }

    fn histograms(&mut self, name: &str, help: &str, meters: &[Revision<'_>], counts: impl Fn(&Meter) -> Counts) {
        self.family(name, "histogram", help);
        for Revision { labels, meter, .. } in meters {
            self.histogram(name, labels, &counts(meter));
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, counts: &Counts) {
        for power in BUCKET_POWERS {
            let us = 1_u64 << power;
            self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{}\"", us as f64 / 1e6), counts.up_to(us));
        }
        self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), counts.total());
        self.sample(&format!("{name}_sum"), labels, counts.sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), labels, counts.total());
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a String takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_has_what_was_counted() {
        let key = MeterKey { project: "p".into(), region: "r".into(), service: "odd\"\\\n".into(), revision: "s-1".into() };
        let meter = Arc::new(Meter::default());
        meter.request(200, Duration::from_micros(1024));
        meter.request(500, Duration::from_secs(3));
        meter.instances(1, 2);
        meter.cold_start("armed", Duration::from_micros(2048));
        meter.billable(Duration::from_millis(1), 500, 1 << 30);
        let text = text(&[(key, meter)], LogCounts { written: 7, dropped: 2 });
        let labels = r#"project="p",region="r",service="odd\"\\\n",revision="s-1""#;
        for line in [
            "# TYPE tanebi_requests_total counter",
            &format!("tanebi_requests_total{{{labels},class=\"2xx\"}} 1"),
            &format!("tanebi_requests_total{{{labels},class=\"4xx\"}} 0"),
            &format!("tanebi_requests_total{{{labels},class=\"5xx\"}} 1"),
            &format!("tanebi_request_latency_seconds_bucket{{{labels},le=\"0.000512\"}} 0"),
            &format!("tanebi_request_latency_seconds_bucket{{{labels},le=\"0.001024\"}} 1"),
            &format!("tanebi_request_latency_seconds_bucket{{{labels},le=\"4.194304\"}} 2"),
            &format!("tanebi_request_latency_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
            &format!("tanebi_request_latency_seconds_sum{{{labels}}} 3.001024"),
            &format!("tanebi_request_latency_seconds_count{{{labels}}} 2"),
            &format!("tanebi_cold_start_seconds_bucket{{{labels},rung=\"armed\",le=\"0.002048\"}} 1"),
            &format!("tanebi_cold_start_seconds_count{{{labels},rung=\"armed\"}} 1"),
            &format!("tanebi_instances{{{labels},state=\"active\"}} 1"),
            &format!("tanebi_instances{{{labels},state=\"idle\"}} 2"),
            &format!("tanebi_billable_seconds_total{{{labels}}} 0.1"),
            &format!("tanebi_billable_vcpu_seconds_total{{{labels}}} 0.05"),
            &format!("tanebi_billable_gib_seconds_total{{{labels}}} 0.1"),
            "tanebi_log_entries_total 7",
            "tanebi_log_entries_dropped_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        // Each line is a comment or `name{labels} number`.
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
