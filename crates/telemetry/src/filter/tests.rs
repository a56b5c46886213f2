//! Filters as gcloud sends and as users write them, against entries.

use std::{collections::BTreeMap, sync::Arc};

use model::log::{HttpRequest, Payload};
use proptest::prelude::*;

use super::{
    syntax::{Call, Comparison, Expression, Operator, Value},
    *,
};
use crate::shape::tests::{entry, source};

/// A request of `sample`.
fn request() -> Entry {
    Entry {
        log: LogName::Requests,
        time: "2026-11-24T06:21:38.5Z".parse().unwrap(),
        severity: Severity::Info,
        payload: Payload::None,
        http: Some(HttpRequest {
            method: "POST".into(),
            url: "https://sample-9000000000000.asia-northeast1.run.app/path".into(),
            request_bytes: 20,
            status: 200,
            response_bytes: 16,
            user_agent: "curl/8".into(),
            remote_ip: "10.1.2.3".into(),
            referer: String::new(),
            latency_us: 4500,
            protocol: "HTTP/1.1".into(),
        }),
        trace: "projects/local-project/traces/0af7".into(),
        labels: BTreeMap::from([("goog-managed-by".into(), "cloudfunctions".into()), ("a.b".into(), "dotted".into())]),
        ..entry("")
    }
}

/// A structured line of `sample`.
fn structured() -> Entry {
    Entry {
        time: "2026-11-24T06:21:39Z".parse().unwrap(),
        severity: Severity::Error,
        payload: Payload::Json(
            r#"{"message":"Order FAILED","order":{"id":42,"items":[{"sku":"A-1"},{"sku":"B-2"}]},"ok":false,"none":null,"dotted.key":"d","ratio":0.5}"#.into(),
        ),
        ..entry("")
    }
}

fn text() -> Entry {
    Entry { time: "2026-11-24T06:21:37Z".parse().unwrap(), ..entry("hello from stdout, ΟΔΟΣ \"quoted\" back\\slash") }
}

fn build() -> Entry {
    let source = Source { build: "b-1".into(), service: String::new(), revision: String::new(), instance: String::new(), ..source("") };
    Entry { source: Arc::new(source), log: LogName::Build, payload: Payload::Text("Step 1: hello".into()), ..entry("") }
}

/// The answer by the head alone, and by all of the entry; they never contradict.
fn matches(filter: &Filter, entry: &Entry) -> bool {
    let head_source = Source { instance: String::new(), ..(*entry.source).clone() };
    let mut subject =
        Subject { id: 0x1234, time: entry.time, severity: entry.severity, log: entry.log, source: &head_source, body: None, json: OnceCell::new() };
    let by_head = filter.matches(&subject);
    subject.body = Some(entry);
    let by_all = filter.matches(&subject).expect("with a body everything is known");
    assert!(by_head.is_none_or(|by_head| by_head == by_all));
    let range = filter.time_range();
    assert!(!by_all || (range.from..=range.to).contains(&entry.time), "the range of times hides a match");
    by_all
}

/// Which of text, request, structured, build the filter matches, as `trsb` or less.
#[track_caller]
fn check(filter: &str, expect: &str) {
    let parsed = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let found: String = [('t', text()), ('r', request()), ('s', structured()), ('b', build())]
        .iter()
        .filter(|(_, entry)| matches(&parsed, entry))
        .map(|(letter, _)| *letter)
        .collect();
    assert_eq!(found, expect, "{filter}");
}

#[track_caller]
fn check_error(filter: &str, expect: &str) {
    let error = Filter::parse(filter).err().unwrap_or_else(|| panic!("{filter} is understood"));
    assert!(error.to_string().contains(expect), "{filter}: {error}");
}

#[test]
fn what_gcloud_sends() {
    check(
        "resource.type = cloud_run_revision \n AND resource.labels.service_name = sample \n AND resource.labels.location = asia-northeast1 \n AND severity >= DEFAULT \n AND timestamp>=\"2026-11-23T06:21:38.540082Z\"",
        "trs",
    );
    check(
        "resource.type=\"cloud_run_revision\" resource.labels.location=\"asia-northeast1\" logName:\"run.googleapis.com\" labels.\"goog-managed-by\"=\"cloudfunctions\" resource.labels.service_name=\"sample\" timestamp>=\"2026-11-17T06:37:59.552343Z\"",
        "r",
    );
    check("resource.type = cloud_run_revision AND resource.labels.service_name = other", "");
    check("resource.type=\"build\" resource.labels.build_id=\"b-1\"", "b");
}

#[test]
fn empty_filters_match_everything() {
    check("", "trsb");
    check("  \n ", "trsb");
    check("-- only a comment", "trsb");
    check("\"\"", "trsb");
}

#[test]
fn fields_and_operators() {
    check("logName=\"projects/local-project/logs/run.googleapis.com%2Frequests\"", "r");
    check("logName=projects/local-project/logs/cloudbuild", "b");
    check("log_id(\"run.googleapis.com/stdout\")", "ts");
    check("log_name:requests", "r");
    check("severity=ERROR", "s");
    check("severity>=info", "rs");
    check("severity>=200", "rs");
    check("severity<INFO", "tb");
    check("severity!=DEFAULT", "rs");
    check("severity=(INFO OR ERROR)", "rs");
    check("textPayload:hello", "tb");
    check("textPayload=\"step 1: HELLO\"", "b");
    check("textPayload!=\"Step 1: hello\"", "t");
    check("textPayload>\"hello\"", "tb");
    check("httpRequest.status=200", "r");
    check("httpRequest.status>=400", "");
    check("httpRequest.status:200", "r");
    check("httpRequest.latency>=\"0.0045s\"", "r");
    check("httpRequest.latency<4.6ms", "r");
    check("httpRequest.latency>5ms", "");
    check("httpRequest.requestMethod=post", "r");
    check("http_request.user_agent:CURL", "r");
    check("httpRequest.remoteIp=\"10.1.2.3\"", "r");
    check("httpRequest.referer:*", "");
    check("httpRequest:*", "r");
    check("httpRequest.cacheHit=true", "");
    check("trace=\"projects/local-project/traces/0af7\"", "r");
    check("traceSampled=true", "");
    check("insertId=\"0000000000001234\"", "trsb");
    check("labels.instanceId=i1", "trs");
    check("labels.\"a.b\"=dotted", "r");
    check("labels.a.b=dotted", "r");
    check("labels:cloudfunctions", "r");
    check("resource.labels.revision_name=\"sample-00001-abc\"", "trs");
    check("resource:asia-northeast1", "trs");
    check("protoPayload.methodName=\"x\"", "");
    check("timestamp>\"2026-11-24T06:21:38Z\" timestamp<\"2026-11-24T06:21:39Z\"", "r");
    check("timestamp>=2026-11-24T06:21:39Z", "s");
    check("timestamp<2026-11-24", "b");
    check("timestamp=\"2026-11-24T15:21:39+09:00\"", "s");
}

#[test]
fn json_payloads() {
    check("jsonPayload.message=\"order failed\"", "s");
    check("jsonPayload.order.id=42", "s");
    check("jsonPayload.order.id>41.5", "s");
    check("jsonPayload.order.id:42", "s");
    check("jsonPayload.order.id=\"42\"", "s");
    check("jsonPayload.order.id=many", "");
    check("jsonPayload.order.items.sku=\"b-2\"", "s");
    check("jsonPayload.ok=false", "s");
    check("jsonPayload.ok=true", "");
    check("jsonPayload.none=NULL_VALUE", "s");
    check("jsonPayload.dotted.key=d", "s");
    check("jsonPayload.\"dotted.key\"=d", "s");
    check("jsonPayload.ratio=0.5", "s");
    check("jsonPayload:failed", "s");
    check("jsonPayload:*", "s");
    check("jsonPayload.order:*", "s");
    check("jsonPayload.missing:*", "");
    check("NOT jsonPayload.missing=1", "trsb");
    check("jsonPayload.missing!=1", "");
}

#[test]
fn booleans() {
    check("textPayload:hello AND severity=DEFAULT", "tb");
    check("severity=ERROR OR severity=INFO", "rs");
    check("NOT severity=ERROR", "trb");
    check("-severity=ERROR", "trb");
    check("- severity=ERROR", "trb");
    check("NOT -severity=ERROR", "s");
    // OR binds tighter than AND.
    check("severity=ERROR OR severity=INFO AND resource.type=build", "");
    check("severity=ERROR OR (severity=INFO AND httpRequest.status=200)", "rs");
    check("hello OR failed severity=ERROR", "s");
    check("(hello)", "tb");
    check("((severity=ERROR))", "s");
    check("textPayload:(hello AND stdout)", "t");
    check("textPayload:(hello stdout)", "t");
    check("textPayload:(hello AND NOT stdout)", "b");
    check("textPayload:(hello -stdout)", "b");
    check("severity!=(ERROR OR INFO)", "tb");
    check("jsonPayload.order.id=(-1 OR 42)", "s");
    check("severity=ERROR -- the worst\n OR severity=INFO", "rs");
}

#[test]
fn texts_anywhere() {
    check("hello", "tb");
    check("HELLO", "tb");
    check("\"hello from\"", "t");
    check("οδο", "t");
    check("ΟΔΟΣ", "t");
    check("\"quoted\"", "t");
    check(r#""\"quoted\"""#, "t");
    check(r#""back\\slash""#, "t");
    check("B-2", "s");
    check("42", "s");
    check("sample-9000000000000.asia-northeast1.run.app/path", "r");
    check("cloudfunctions", "r");
    check("'hello from'", "t");
    check("\"hell\\u006f\"", "tb");
    check("nowhere", "");
}

#[test]
fn regular_expressions() {
    check(r#"textPayload=~"^hello.*stdout""#, "t");
    check(r#"textPayload=~"Step \d:""#, "b");
    check(r#"textPayload=~"step""#, "");
    check(r#"textPayload=~"(?i)STEP""#, "b");
    check(r#"textPayload!~"stdout""#, "b");
    check(r#"jsonPayload.order.items.sku=~"^[AB]-\d$""#, "s");
    check(r#"httpRequest.status=~"^2""#, "r");
    check(r#"textPayload=~("stdout" OR "Step")"#, "tb");
    check_error("textPayload=~\"(\"", "invalid regular expression");
    check_error(&format!("textPayload=~\"{}\"", "(a{1000}){1000}"), "invalid regular expression");
}

#[test]
fn errors_name_line_and_column() {
    check_error("severity=", "expected a value, found the end at line 1, column 10");
    check_error("severity=ERROR)", "expected a comparison, found ')' at line 1, column 15");
    check_error("(severity=ERROR", "expected a closing parenthesis, found the end at line 1, column 16");
    check_error("severity=ERROR\n  AND AND x", "expected a comparison, found 'AND' at line 2, column 7");
    check_error("OR a", "found 'OR' at line 1, column 1");
    check_error("a AND", "found the end at line 1, column 6");
    check_error("\n\nfoo=1", "unknown field 'foo'");
    check_error("\n\nfoo=1", "line 3, column 1");
    check_error("severity>=LOUD", "'LOUD' is no severity");
    check_error("severity>=LOUD", "line 1, column 11");
    check_error("timestamp>yesterday", "'yesterday' is no time");
    check_error("httpRequest.latency>fast", "'fast' is no duration");
    check_error("httpRequest.speed=1", "has no field speed");
    check_error("resource.name=1", "it has type and labels");
    check_error("severity.x=1", "field severity has no field x");
    check_error("textPayload:\"open", "unterminated string");
    check_error("日本 textPayload:\"open", "line 1, column 16");
    check_error("sample(insertId, 0.1)", "expected a closing parenthesis, found ','");
    check_error("SEARCH(\"x\")", "function 'SEARCH' is not supported");
    check_error("labels..a=1", "invalid field name");
    check_error("=1", "expected a comparison, found '='");
    check_error("a,b", "found ','");
    check_error(&"(".repeat(5000), "nest deeper than 60");
    check_error(&"NOT ".repeat(3000), "nest deeper than 60");
    check_error(&"-".repeat(3).replace('-', "- ").repeat(1000), "nest deeper than 60");
    check_error(&format!("jsonPayload{}=1", ".a".repeat(1000)), "at most 32 parts");
}

#[test]
fn times_bound_the_walk() {
    let range = |filter: &str| {
        let range = Filter::parse(filter).unwrap().time_range();
        let text = |time: Timestamp| {
            if time == Timestamp::MIN || time == Timestamp::MAX { "-".to_owned() } else { time.to_string() }
        };
        format!("{} {}", text(range.from), text(range.to))
    };
    assert_eq!(range("timestamp>=\"2026-01-01T00:00:00Z\" AND timestamp<\"2026-01-02T00:00:00Z\" hello"), "2026-01-01T00:00:00Z 2026-01-02T00:00:00Z");
    assert_eq!(range("timestamp>2026-01-01 OR timestamp>2026-01-03"), "2026-01-01T00:00:00Z -");
    assert_eq!(range("timestamp>2026-01-01 OR hello"), "- -");
    assert_eq!(range("NOT timestamp>2026-01-01"), "- -");
    assert_eq!(range("timestamp=2026-01-01"), "2026-01-01T00:00:00Z 2026-01-01T00:00:00Z");
}

fn expressions() -> impl Strategy<Value = Expression> {
    let text = prop_oneof!["[a-zA-Z0-9 _.\"'\\\\()=:,~-]{0,8}", any::<String>()];
    let value = prop_oneof![text.clone().prop_map(Value::Text), Just(Value::Any)];
    let operator = proptest::sample::select(vec![
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::LessEqual,
        Operator::Greater,
        Operator::GreaterEqual,
        Operator::Has,
        Operator::Matches,
        Operator::NotMatches,
    ]);
    let segment = prop_oneof!["[a-z-]{1,6}", any::<String>()].prop_filter("a name is not empty", |name| !name.is_empty());
    let comparison = (proptest::collection::vec(segment, 1..4), operator, value).prop_map(|(field, operator, value)| {
        // Only `:` has a star.
        let operator = if value == Value::Any { Operator::Has } else { operator };
        Expression::Compare(Comparison { field, operator, value, field_at: 0, value_at: 0 })
    });
    let call = text.clone().prop_map(|argument| Expression::Call(Call { function: "log_id".into(), argument, at: 0 }));
    let leaf = prop_oneof![comparison, text.prop_map(Expression::Global), call];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expression::Or),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn printed_expressions_parse_to_themselves(expression in expressions()) {
        let text = expression.to_string();
        prop_assert_eq!(syntax::parse(&text), Ok(expression), "{}", text);
    }

    #[test]
    fn no_text_panics_the_parser(text in any::<String>()) {
        let _ = Filter::parse(&text);
    }

    #[test]
    fn no_soup_of_tokens_panics_or_contradicts(
        tokens in proptest::collection::vec(proptest::sample::select(vec![
            "severity", "textPayload", "jsonPayload.order.id", "labels.\"a\"", "=", ">=", ":", "!=", "=~", "(", ")", "AND", "OR", "NOT",
            "-", "\"x\"", "*", "hello", "ERROR", "\n", "--", ",", "\"", "'", ".", "timestamp", "2026-11-24", "log_id", "日本",
        ]), 0..12),
        space in any::<bool>(),
    ) {
        let text = tokens.join(if space { " " } else { "" });
        if let Ok(filter) = Filter::parse(&text) {
            for entry in [super::tests::text(), request(), structured(), build()] {
                matches(&filter, &entry);
            }
        }
    }
}
