//! Monitoring v3: what revisions' instances use of CPU and memory and how many there are, as time series. Of a minute each, of the last day.
//!
//! One method of one service: series to list. They are not aligned or reduced here; descriptors, own metrics, alerts and dashboards do not exist.
//! Source: google/monitoring/v3/metric_service.proto; names and units of cloud.google.com/monitoring/api/metrics_gcp (run).

use std::collections::HashMap;

use model::{Status, Timestamp};
use proto::google::{
    api::{self, Distribution, MonitoredResource, distribution::BucketOptions, metric_descriptor as descriptor},
    monitoring::v3::{self as pb, list_time_series_request::TimeSeriesView as View},
};
use telemetry::{
    BUCKETS, MeterKey, Minute, Spread,
    syntax::{Comparison, Expression, Operator, Value, parse},
};

use crate::{
    app::App,
    convert::{refuse, time, unsupported},
    grpc::{Context, Group, Method},
    permission::on,
};

const HOSTS: &[&str] = &["monitoring.googleapis.com"];
const RESOURCE: &str = "cloud_run_revision";
/// Points of a page when the client does not say, and at most. Source: the proto.
const POINTS_MAX: usize = 100_000;

pub(crate) fn methods(app: &App) -> Vec<Method> {
    const PROJECT: &str = "projects/{project}";
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.monitoring.v3.MetricService/ListTimeSeries",
            on("monitoring.timeSeries.list", PROJECT),
            |r: &pb::ListTimeSeriesRequest| r.name.clone(),
            ("name", PROJECT),
            series_list,
        )
        .into_methods()
}

/// What is measured.
struct Metric {
    name: &'static str,
    kind: descriptor::ValueType,
    unit: &'static str,
    /// The value of the label `state`, for each series; one without a label when there is none.
    states: &'static [&'static str],
    value: fn(&Minute, &str) -> Option<pb::typed_value::Value>,
}

static METRICS: [Metric; 3] = [
    Metric {
        name: "run.googleapis.com/container/cpu/utilizations",
        kind: descriptor::ValueType::Distribution,
        unit: "10^2.%",
        states: &[""],
        value: |minute, _| distribution(&minute.cpu),
    },
    Metric {
        name: "run.googleapis.com/container/memory/utilizations",
        kind: descriptor::ValueType::Distribution,
        unit: "10^2.%",
        states: &[""],
        value: |minute, _| distribution(&minute.memory),
    },
    Metric {
        name: "run.googleapis.com/container/instance_count",
        kind: descriptor::ValueType::Int64,
        unit: "1",
        states: &["active", "idle"],
        value: |minute, state| Some(pb::typed_value::Value::Int64Value(i64::from(if state == "active" { minute.active } else { minute.idle }))),
    },
];

/// `None` when nothing was sampled.
fn distribution(spread: &Spread) -> Option<pb::typed_value::Value> {
    use api::distribution::bucket_options::{Linear, Options};
    let linear = Linear { num_finite_buckets: BUCKETS as i32, width: 1.0 / BUCKETS as f64, offset: 0.0 };
    let distribution = Distribution {
        count: i64::from(spread.count),
        mean: f64::from(spread.mean),
        sum_of_squared_deviation: f64::from(spread.deviation_squares),
        bucket_options: Some(BucketOptions { options: Some(Options::LinearBuckets(linear)) }),
        // The first is of what is below the offset: nothing.
        bucket_counts: std::iter::once(0).chain(spread.buckets.iter().map(|count| i64::from(*count))).collect(),
        ..Distribution::default()
    };
    (spread.count > 0).then_some(pb::typed_value::Value::DistributionValue(distribution))
}

async fn series_list(app: App, context: Context, request: pb::ListTimeSeriesRequest) -> Result<pb::ListTimeSeriesResponse, Status> {
    refuse(request.aggregation.is_some_and(|aggregation| aggregation != pb::Aggregation::default()), "aggregation")?;
    refuse(request.secondary_aggregation.is_some_and(|aggregation| aggregation != pb::Aggregation::default()), "secondary_aggregation")?;
    refuse(!request.order_by.is_empty(), "order_by")?;
    let view = View::try_from(request.view).map_err(|_| Status::invalid_field("view", "it is neither FULL nor HEADERS"))?;
    let interval = request.interval.unwrap_or_default();
    let instant = |written: Option<prost_types::Timestamp>, field: &str| {
        written.map(|at| Timestamp::new(at.seconds, at.nanos).map_err(|error| Status::invalid_field(field, error.to_string()))).transpose()
    };
    let until = instant(interval.end_time, "interval.end_time")?.ok_or_else(|| Status::invalid_field("interval.end_time", "it is required"))?;
    let from = instant(interval.start_time, "interval.start_time")?.unwrap_or(until);
    if from > until {
        return Err(Status::invalid_field("interval", "its start is after its end"));
    }
    let filter = parse(&request.filter).map_err(|error| Status::invalid_field("filter", error.to_string()))?;
    if !names_metric(&filter) {
        return Err(Status::invalid_field("filter", "it must name one metric: metric.type = \"...\""));
    }
    let project = context.project()?.to_string();
    // What it says is understood, also where there is nothing to choose from.
    let nothing = MeterKey { project: project.clone(), region: String::new(), service: String::new(), revision: String::new() };
    Series { key: &nothing, metric: &METRICS[0], state: "" }.is_chosen(&filter)?;
    let scope = format!("monitoring.timeSeries/{project}/{from}/{until}/{}/{}", request.view, request.filter);
    let size = if request.page_size <= 0 { POINTS_MAX } else { (request.page_size as usize).min(POINTS_MAX) };
    let after = app.pages.read(&scope, &request.page_token, 0).await?.after;

    let meters = app.telemetry.meters();
    let mut chosen = Vec::new();
    for (key, meter) in meters.iter().filter(|(key, _)| key.project == project) {
        for metric in &METRICS {
            for &state in metric.states {
                let series = Series { key, metric, state };
                if series.is_chosen(&filter)? {
                    chosen.push((format!("{}/{}/{}/{}/{state}", key.region, key.service, key.revision, metric.name), meter, series));
                }
            }
        }
    }
    // In the order of pages.
    chosen.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let mut reply = pb::ListTimeSeriesResponse::default();
    let (mut points, mut last) = (0, String::new());
    for (name, meter, series) in chosen.into_iter().filter(|(name, ..)| after.as_ref().is_none_or(|after| name > after)) {
        // Those in which the interval has a part.
        let minutes = meter.minutes(moved(from, -59), moved(until, 1));
        let written = series.write(&minutes, view);
        if points > 0 && points + written.points.len() > size {
            reply.next_page_token = app.pages.token(&scope, &last).await?;
            break;
        }
        if !minutes.is_empty() {
            (points, last) = (points + written.points.len(), name);
            reply.time_series.push(written);
        }
    }
    Ok(reply)
}

fn moved(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(at)
}

/// One series: a metric of a revision, in one state when it has states.
struct Series<'a> {
    key: &'a MeterKey,
    metric: &'a Metric,
    state: &'static str,
}

impl Series<'_> {
    fn write(&self, minutes: &[Minute], view: View) -> pb::TimeSeries {
        let text =
            |pairs: &[(&str, &str)]| pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let labels: HashMap<_, _> = text(&LABELS.map(|name| (name, self.label(name).unwrap_or_default())));
        // The newest first.
        let point = |minute: &Minute| {
            let interval = pb::TimeInterval { start_time: Some(time(minute.start)), end_time: Some(time(minute.start)) };
            let value = (self.metric.value)(minute, self.state)?;
            Some(pb::Point { interval: Some(interval), value: Some(pb::TypedValue { value: Some(value) }) })
        };
        pb::TimeSeries {
            metric: Some(api::Metric { r#type: self.metric.name.to_owned(), labels: text(&[("state", self.state)]) }),
            resource: Some(MonitoredResource { r#type: RESOURCE.to_owned(), labels }),
            metric_kind: descriptor::MetricKind::Gauge as i32,
            value_type: self.metric.kind as i32,
            points: if view == View::Headers { Vec::new() } else { minutes.iter().rev().filter_map(point).collect() },
            unit: self.metric.unit.to_owned(),
            ..Default::default()
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        Some(match name {
            "project_id" => &self.key.project,
            "location" => &self.key.region,
            // A configuration has the name of its service.
            "service_name" | "configuration_name" => &self.key.service,
            "revision_name" => &self.key.revision,
            _ => return None,
        })
    }

    fn is_chosen(&self, filter: &Expression) -> Result<bool, Status> {
        Ok(match filter {
            Expression::And(all) => all.iter().map(|one| self.is_chosen(one)).collect::<Result<Vec<_>, _>>()?.into_iter().all(|one| one),
            Expression::Or(any) => any.iter().map(|one| self.is_chosen(one)).collect::<Result<Vec<_>, _>>()?.into_iter().any(|one| one),
            Expression::Not(inner) => !self.is_chosen(inner)?,
            Expression::Compare(comparison) => self.compare(comparison)?,
            Expression::Global(text) => return Err(Status::invalid_field("filter", format!("{text:?} compares nothing"))),
            Expression::Call(call) => return Err(unsupported(format!("filter: the function {}", call.function))),
        })
    }

    fn compare(&self, Comparison { field, operator, value, .. }: &Comparison) -> Result<bool, Status> {
        let path: Vec<&str> = field.iter().map(String::as_str).collect();
        let found = match path.as_slice() {
            ["metric", "type"] => Some(self.metric.name),
            ["resource", "type"] => Some(RESOURCE),
            ["project"] => Some(self.key.project.as_str()),
            ["metric", "label" | "labels", "state"] => Some(self.state),
            ["resource", "label" | "labels", name] => self.label(name),
            _ => None,
        };
        let unknown = || Status::invalid_field("filter", format!("{} is no field of these series", field.join(".")));
        match (operator, value) {
            (Operator::Equal, Value::Text(text)) => Ok(found.ok_or_else(unknown)? == text),
            (Operator::NotEqual, Value::Text(text)) => Ok(found.ok_or_else(unknown)? != text),
            (Operator::Has, Value::Text(text)) => Ok(found.ok_or_else(unknown)?.contains(text.as_str())),
            _ => Err(Status::invalid_field("filter", format!("{} is compared by =, != and : with a text here", field.join(".")))),
        }
    }
}

const LABELS: [&str; 5] = ["project_id", "location", "service_name", "revision_name", "configuration_name"];

/// Whether one metric is named, as Google asks for.
fn names_metric(filter: &Expression) -> bool {
    match filter {
        Expression::And(all) => all.iter().any(names_metric),
        Expression::Compare(Comparison { field, operator: Operator::Equal, .. }) => field == &["metric", "type"],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_series() {
        let key = MeterKey { project: "p-1".into(), region: "asia-northeast1".into(), service: "hello".into(), revision: "hello-00001-abc".into() };
        let check = |metric: usize, state: &'static str, filter: &str, expect: Option<bool>| {
            let series = Series { key: &key, metric: &METRICS[metric], state };
            let filter = parse(filter).unwrap();
            assert_eq!(names_metric(&filter).then(|| series.is_chosen(&filter).ok()).flatten(), expect, "{filter:?}");
        };
        let cpu = "metric.type = \"run.googleapis.com/container/cpu/utilizations\"";
        let count = "metric.type = \"run.googleapis.com/container/instance_count\"";
        check(0, "", cpu, Some(true));
        check(1, "", cpu, Some(false));
        check(0, "", &format!("{cpu} AND resource.labels.service_name = \"hello\" AND resource.type = \"cloud_run_revision\""), Some(true));
        check(0, "", &format!("{cpu} AND resource.label.service_name = \"other\""), Some(false));
        check(0, "", &format!("{cpu} AND (resource.labels.revision_name = \"x\" OR resource.labels.location : \"northeast\")"), Some(true));
        check(2, "idle", &format!("{count} AND metric.labels.state = \"idle\""), Some(true));
        check(2, "active", &format!("{count} AND metric.labels.state != \"active\""), Some(false));
        for refused in [
            "",
            "resource.labels.service_name = \"hello\"",
            "metric.type : \"run\"",
            &format!("{cpu} AND resource.labels.zone = \"a\""),
            &format!("{cpu} AND hello"),
        ] {
            check(0, "", refused, None);
        }
    }

    #[test]
    fn a_spread_is_a_distribution() {
        let mut spread = Spread { count: 2, mean: 0.5, max: 1.0, deviation_squares: 0.5, ..Spread::default() };
        (spread.buckets[0], spread.buckets[BUCKETS]) = (1, 1);
        let Some(pb::typed_value::Value::DistributionValue(written)) = distribution(&spread) else { panic!() };
        assert_eq!((written.count, written.mean, written.sum_of_squared_deviation), (2, 0.5, 0.5));
        // Underflow, ten tenths, overflow.
        assert_eq!(written.bucket_counts, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(distribution(&Spread::default()).is_none());
    }
}
