//! Schemas with their revisions, and topics that have one.

use super::*;
use crate::schema::{Encoding, Language};

fn schema(id: &str) -> Name {
    name(Kind::Schemas, id)
}

const SCHEMA_A: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
const SCHEMA_B: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"string","default":""}]}"#;

#[tokio::test]
async fn schemas_have_revisions() {
    let mut world = World::start().await;
    let create = async |world: &World, text: &str| world.pubsub.schema_create(schema("s-1"), Language::Avro, text.to_owned()).await;
    let bad = create(&world, "{").await.unwrap_err();
    assert!(bad.outer.starts_with("schema.definition: Could not parse schema definition: "), "{bad}");
    assert_eq!(create(&world, &" ".repeat(300_001)).await.unwrap_err().outer, "schema.definition: it has 300001 bytes; at most 300000 are allowed");
    let first = create(&world, SCHEMA_A).await.unwrap().revision.id;
    assert!(first.len() == 8 && first.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
    assert_eq!(create(&world, SCHEMA_A).await.unwrap_err().code, Code::AlreadyExists);
    let commit = async |world: &World, text: &str| world.pubsub.schema_commit(schema("s-1"), Language::Avro, text.to_owned()).await;
    let refused = commit(&world, r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#).await.unwrap_err();
    assert!(refused.outer.contains("not compatible with the one before it: field \"a\" of R: int cannot be read as string"), "{refused}");
    let second = commit(&world, SCHEMA_B).await.unwrap().revision.id;
    let third = world.pubsub.schema_rollback(schema("s-1"), first.clone()).await.unwrap();
    assert_eq!(world.pubsub.schema_text(&third).unwrap(), SCHEMA_A);
    world.restart().await;
    let ids = |world: &World| world.pubsub.schema_revisions(&schema("s-1"), None, 100).unwrap().into_iter().map(|view| view.revision.id).collect::<Vec<_>>();
    assert_eq!(ids(&world), [first.clone(), second.clone(), third.revision.id.clone()]);
    assert_eq!(world.pubsub.schema_revisions(&schema("s-1"), Some(&first), 1).unwrap()[0].revision.id, second);
    assert_eq!(world.pubsub.schema_get(&schema("s-1"), None).unwrap(), third);
    assert_eq!(world.pubsub.schema_text(&world.pubsub.schema_get(&schema("s-1"), Some(&second)).unwrap()).unwrap(), SCHEMA_B);
    assert_eq!(world.pubsub.schema_get(&schema("s-1"), Some("00000000")).unwrap_err().outer, "Resource not found (resource=s-1@00000000).");
    let delete = async |world: &World, id: &str| world.pubsub.schema_revision_delete(schema("s-1"), id.to_owned()).await;
    assert_eq!(delete(&world, &third.revision.id).await.unwrap().revision.id, second);
    delete(&world, &first).await.unwrap();
    assert_eq!(delete(&world, &second).await.unwrap_err().code, Code::FailedPrecondition);
    for _ in 1..20 {
        commit(&world, SCHEMA_B).await.unwrap();
    }
    let full = commit(&world, SCHEMA_B).await.unwrap_err();
    assert_eq!((full.code, full.outer.contains("maximum=20")), (Code::ResourceExhausted, true), "{full}");
    world.pubsub.schema_delete(schema("s-1")).await.unwrap();
    assert_eq!(world.pubsub.schema_get(&schema("s-1"), None).unwrap_err().code, Code::NotFound);
    assert_eq!(world.outside.forgotten.lock().last().map(String::as_str), Some("projects/local-project/schemas/s-1"));
    assert!(world.store.scan(model::key::SCHEMA_DEFINITIONS, None, 10).unwrap().is_empty());
}

#[tokio::test]
async fn messages_follow_the_schema_of_their_topic() {
    let world = World::start().await;
    let pubsub = &world.pubsub;
    let first = pubsub.schema_create(schema("s-1"), Language::Avro, SCHEMA_A.to_owned()).await.unwrap().revision.id;
    let second = pubsub.schema_commit(schema("s-1"), Language::Avro, SCHEMA_B.to_owned()).await.unwrap().revision.id;
    let choose = |first: Option<&str>, last: Option<&str>| {
        pubsub.schema_choose(SchemaChoice { schema: schema("s-1"), encoding: Encoding::Json, first: first.map(str::to_owned), last: last.map(str::to_owned) })
    };
    let set = async |settings: SchemaSettings| pubsub.topic_update(topic("top"), move |old| Ok(Topic { schema: Some(settings), ..old })).await.unwrap();
    set(choose(None, None).unwrap()).await;
    let stamped = async |data: &str| {
        let published = pubsub.publish(&topic("top"), vec![message(data)]).await;
        published.map(drop)?;
        let received = world.pull("sub", LONG).await;
        pubsub.ack(&sub("sub"), &ids(&received)).await.unwrap();
        Ok::<_, Status>(received[0].message.attributes.clone())
    };
    let attributes = |revision: &str| {
        let pairs = [("encoding", "JSON"), ("name", "projects/local-project/schemas/s-1"), ("revisionid", revision)];
        pairs.map(|(key, value)| (format!("googclient_schema{key}"), value.to_owned())).into()
    };
    // The newest that it follows.
    let (a, b) = (r#"{"a":1}"#, r#"{"a":1,"b":"x"}"#);
    assert_eq!(stamped(a).await.unwrap(), attributes(&first));
    assert_eq!(stamped(b).await.unwrap(), attributes(&second));
    let refused = stamped("{}").await.unwrap_err();
    let info = refused.info.unwrap();
    assert_eq!((refused.outer.as_str(), info.reason.as_str()), ("Invalid data in message: Message failed schema validation.", "INVALID_JSON_AVRO_MESSAGE"));
    assert_eq!(info.metadata["message"], "Message failed schema validation");
    let why = format!(
        "Could not validate message with any schema revision for schema: projects/local-project/schemas/s-1, last checked revision: revision_id={first} failed with status: Field was not found in JSON object: a"
    );
    assert_eq!(info.metadata["revisionInfo"], why);
    // One that does not follow it keeps the others of its batch out.
    assert!(pubsub.publish(&topic("top"), vec![message(a), message("{}")]).await.is_err());
    // A range.
    set(choose(Some(&second), None).unwrap()).await;
    assert!(stamped(a).await.is_err());
    set(choose(None, Some(&first)).unwrap()).await;
    assert_eq!(stamped(b).await.unwrap(), attributes(&first));
    assert_eq!(choose(Some(&second), Some(&first)).unwrap_err().code, Code::InvalidArgument);
    assert_eq!(choose(Some("00000000"), None).unwrap_err().code, Code::NotFound);
    assert_eq!(pubsub.schema_revision_delete(schema("s-1"), first.clone()).await.unwrap_err().code, Code::FailedPrecondition);
    // By a method of its own.
    let validate = async |revision: Option<&str>, data: &str| {
        pubsub.message_validate_by(&schema("s-1"), revision.map(str::to_owned), Encoding::Json, data.as_bytes().to_vec()).await.is_ok()
    };
    assert_eq!([validate(None, a).await, validate(Some(&second), a).await, validate(Some(&second), b).await], [true, false, true]);
    assert!(pubsub.message_validate(Language::Avro, SCHEMA_A.to_owned(), Encoding::Binary, b"\x02".to_vec()).await.is_ok());
    // Deleted, and made again: another schema.
    pubsub.schema_delete(schema("s-1")).await.unwrap();
    pubsub.schema_create(schema("s-1"), Language::Avro, SCHEMA_A.to_owned()).await.unwrap();
    let refused = stamped(a).await.unwrap_err();
    assert_eq!((refused.code, refused.outer.as_str()), (Code::NotFound, "Schema associated with topic deleted."));
    assert_eq!(pubsub.schema_name(&pubsub.topic_get(&topic("top")).unwrap().schema.unwrap()), DELETED_SCHEMA);
    pubsub.topic_update(topic("top"), |old| Ok(Topic { schema: None, ..old })).await.unwrap();
    assert!(stamped("{}").await.unwrap().is_empty());
}
