//! `gcloud pubsub schemas`, and messages that follow a schema or are refused.

use anyhow::{Result, ensure};
use e2e::Tanebi;

const AVRO: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}"#;
const AVRO_NEXT: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"},{"name":"note","type":["null","string"],"default":null}]}"#;
const PROTO: &str = r#"syntax = "proto3"; message Order { int32 id = 1; string note = 2; }"#;

pub(super) fn schemas() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let script = |script: &str| format!("export CLOUDSDK_CORE_DISABLE_PROMPTS=1\ngcloud pubsub {script}");
    let check = |command: &str, expect: &[&str]| -> Result<String> {
        let told = tanebi.script_all(&script(command))?;
        for part in expect {
            ensure!(in_one_line(&told).contains(part), "gcloud pubsub {command}: {part:?} is not in\n{told}");
        }
        Ok(told)
    };
    let fail = |command: &str, part: &str| -> Result<()> {
        let told = tanebi.script_failing(&script(command))?;
        ensure!(in_one_line(&told).contains(part), "gcloud pubsub {command}: {part:?} is not in\n{told}");
        Ok(())
    };
    check(&format!("schemas validate-schema --type avro --definition '{AVRO}'"), &["Schema is valid"])?;
    fail("schemas validate-schema --type avro --definition '{}'", "Could not parse schema definition")?;
    fail("schemas validate-schema --type protocol-buffer --definition 'message {'", "Could not parse schema definition")?;
    check(&format!("schemas create order --type avro --definition '{AVRO}'"), &["Created schema [order]."])?;
    fail(&format!("schemas create order --type avro --definition '{AVRO}'"), "Resource already exists in the project (resource=order).")?;
    check("schemas describe order", &["definition:", "name: projects/tanebi-local/schemas/order", "type: AVRO", "revisionCreateTime:"])?;
    let first = check("schemas describe order --format 'value(revisionId)'", &[])?.trim().to_owned();
    check(&format!("schemas commit order --type avro --definition '{AVRO_NEXT}'"), &["Created schema revision ["])?;
    // What is refused of a revision gcloud tells and ends well.
    check(&format!("schemas commit order --type avro --definition '{}'", AVRO.replace("int", "string")), &["not compatible with the one before it"])?;
    let listed = check("schemas list-revisions order --format 'value(revisionId)'", &[&first])?;
    ensure!(listed.split_whitespace().count() == 2, "{listed}");
    let second = listed.split_whitespace().nth(1).unwrap_or_default().to_owned();
    check("schemas list --view full", &["order", "AVRO", "Order"])?;
    check(&format!("schemas create proto --type protocol-buffer --definition '{PROTO}'"), &["Created schema [proto]."])?;

    let validate = |flags: &str, message: &str| format!("schemas validate-message --message-encoding json --message '{message}' {flags}");
    check(&validate("--schema-name order", r#"{"id":1}"#), &["Message is valid"])?;
    fail(&validate("--schema-name order", r#"{"id":"x"}"#), "JSON object with type string does not match schema which expected number_integer")?;
    fail(&validate(&format!("--type avro --definition '{AVRO}'"), "{}"), "INVALID_JSON_AVRO_MESSAGE")?;
    check(&validate("--schema-name proto", r#"{"id":1,"note":"x"}"#), &["Message is valid"])?;
    fail(&validate("--schema-name proto", r#"{"other":1}"#), "Message failed schema validation")?;

    check("topics create orders --schema order --message-encoding json", &["Created topic"])?;
    check("topics describe orders", &["encoding: JSON", "schema: projects/tanebi-local/schemas/order"])?;
    check("subscriptions create readers --topic orders", &["Created subscription"])?;
    check(r#"topics publish orders --message '{"id":1,"note":{"string":"x"}}'"#, &["messageIds:"])?;
    fail(r#"topics publish orders --message '{"note":null}'"#, "Field was not found in JSON object: id")?;
    let pulled = check("subscriptions pull readers --auto-ack --format json", &[])?;
    for part in [r#""googclient_schemaencoding": "JSON""#, r#""googclient_schemaname": "projects/tanebi-local/schemas/order""#, &second] {
        ensure!(pulled.contains(part), "{part} is not in\n{pulled}");
    }
    check(&format!("topics update orders --schema order --message-encoding json --last-revision-id {first}"), &["Updated topic"])?;
    check(&format!("schemas delete-revision order@{first}"), &["is the first or the last one of the topic projects/tanebi-local/topics/orders"])?;
    check("topics update orders --clear-schema-settings", &["Updated topic"])?;
    check("topics publish orders --message anything", &["messageIds:"])?;

    check(&format!("schemas rollback order --revision-id {first}"), &["Created schema revision ["])?;
    check(&format!("schemas delete-revision order@{first}"), &["Deleted schema revision ["])?;
    fail(&format!("schemas describe order@{first}"), &format!("Resource not found (resource=order@{first})."))?;
    check(&format!("schemas describe order@{second}"), &["note"])?;
    check("topics update orders --schema proto --message-encoding binary", &["Updated topic"])?;
    check("schemas delete proto", &["Deleted schema [proto]."])?;
    check("topics describe orders", &["schema: _deleted-schema_"])?;
    fail("topics publish orders --message x", "Schema associated with topic deleted.")?;
    check("topics update orders --update-labels a=b", &["Updated topic"])?;
    check("schemas delete order", &["Deleted schema [order]."])?;
    Ok(())
}

/// gcloud breaks what it tells of an error into lines.
fn in_one_line(told: &str) -> String {
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}
