//! Definitions, messages and revisions, as tables; and what is meant to cost memory or time.

use std::time::{Duration, Instant};

use super::*;

/// Of Google's documentation.
const STOCK: &str = r#"{"type":"record","name":"Avro","fields":[{"name":"ProductName","type":"string","default":""},{"name":"SKU","type":"int","default":0},{"name":"InStock","type":"boolean","default":false}]}"#;
const TREE: &str = r#"{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}"#;
const ALL: &str = r#"{"type":"record","name":"All","namespace":"n","fields":[
    {"name":"l","type":"long"},{"name":"d","type":"double"},{"name":"b","type":"bytes"},{"name":"f","type":{"type":"fixed","name":"F","size":2}},
    {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},{"name":"a","type":{"type":"array","items":"int"}},
    {"name":"m","type":{"type":"map","values":"string"}},{"name":"u","type":["null","string","n.F"],"default":null}]}"#;
const PROTO: &str = "syntax = 'proto3'; message Stock { string name = 1; int32 sku = 2; bool in_stock = 3; repeated Part parts = 4; map<string, int64> counts = 5; message Part { double weight = 1; repeated sint32 sizes = 2; } }";
const PROTO2: &str = "syntax = 'proto2'; message Old { required string name = 1; optional group Inner = 2 { required int32 x = 3; } optional Kind kind = 4; enum Kind { A = 0; } }";

fn parsed(language: Language, text: &str) -> Definition {
    Definition::parse(language, text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn definitions_are_checked() {
    let check = |language: Language, text: &str, expect: &str| match Definition::parse(language, text) {
        Ok(_) => assert_eq!(expect, "", "{text}"),
        Err(why) => assert!(!expect.is_empty() && why.contains(expect), "{text}: {why}"),
    };
    let avro = |text: &str, expect: &str| check(Language::Avro, text, expect);
    for good in [STOCK, TREE, ALL, r#""string""#, r#"{"type":"array","items":["null","long"]}"#, r#"{"type":"int","logicalType":"date"}"#] {
        avro(good, "");
    }
    avro("", "it is not JSON");
    avro("{'type':'string'}", "it is not JSON");
    avro(r#"["null","string"]"#, "one top-level type");
    avro(r#"{"type":"text"}"#, "no type that was defined before");
    avro(r#"{"name":"x"}"#, "lacks \"type\"");
    avro(r#"{"type":"record","name":"R"}"#, "lacks \"fields\"");
    avro(r#"{"type":"record","name":"1R","fields":[]}"#, "is no name");
    avro(r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#, "twice");
    avro(r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}"#, "it is no int");
    avro(r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"],"default":1}]}"#, "it is no null");
    avro(r#"{"type":"record","name":"R","fields":[{"name":"a","type":["int",["null"]]}]}"#, "cannot hold another one");
    avro(r#"{"type":"record","name":"R","fields":[{"name":"a","type":["int","int"]}]}"#, "twice");
    avro(r#"{"type":"enum","name":"E","symbols":["A","A"]}"#, "twice");
    avro(r#"{"type":"enum","name":"E","symbols":["A"],"default":"B"}"#, "none of its symbols");
    avro(r#"{"type":"fixed","name":"F","size":-1}"#, "lacks a \"size\"");
    let proto = |text: &str, expect: &str| check(Language::ProtocolBuffer, text, expect);
    for good in [PROTO, PROTO2, "message NoSyntax { optional string a = 1; }", "syntax = 'proto3'; option java_package = 'x'; package p; message M {}"] {
        proto(good, "");
    }
    proto("", "one top-level message");
    proto("syntax = 'proto3'; message A {} message B {}", "2 messages and 0 enums");
    proto("syntax = 'proto3'; message A {} enum E { X = 0; }", "1 messages and 1 enums");
    proto("syntax = 'proto3'; import 'google/protobuf/timestamp.proto'; message A { google.protobuf.Timestamp t = 1; }", "imports are not supported");
    proto("syntax = 'proto3'; message A { Missing m = 1; }", "Missing");
    proto("syntax = 'proto3'; message A { string a = 1; string b = 1; }", "already used");
    proto("message {", "expected");
}

#[test]
fn json_messages_of_avro() {
    let check = |schema: &str, data: &str, expect: &str| {
        let found = parsed(Language::Avro, schema).check(Encoding::Json, data.as_bytes());
        assert_eq!(found.err().unwrap_or_default(), expect, "{schema} {data}");
    };
    check(STOCK, r#"{"ProductName":"x","SKU":1,"InStock":true}"#, "");
    check(STOCK, r#"{"ProductName":"x","SKU":1,"InStock":true,"more":[{}]}"#, "");
    check(STOCK, r#"{"ProductName":"x","SKU":1}"#, "Field was not found in JSON object: InStock");
    check(STOCK, r#"{"ProductName":"x","SKU":"1","InStock":true}"#, "JSON object with type string does not match schema which expected number_integer");
    check(STOCK, r#"{"ProductName":"x","SKU":1.5,"InStock":true}"#, "JSON object with type number_float does not match schema which expected number_integer");
    check(STOCK, r#"{"ProductName":"x","SKU":2147483648,"InStock":true}"#, "2147483648 is out of the range of an int");
    check(STOCK, "[]", "JSON object with type array does not match schema which expected object");
    let all = |change: &str, value: &str| {
        let mut message: serde_json::Value =
            serde_json::from_str(r#"{"l":-9223372036854775808,"d":1,"b":"\u00ff","f":"ab","e":"B","a":[1,2],"m":{"k":"v"},"u":{"string":"x"}}"#).unwrap();
        if !change.is_empty() {
            message[change] = serde_json::from_str(value).unwrap();
        }
        message.to_string()
    };
    check(ALL, &all("", ""), "");
    check(ALL, &all("u", "null"), "");
    check(ALL, &all("u", r#"{"n.F":"ab"}"#), "");
    check(ALL, &all("u", r#"{"int":1}"#), "\"int\" is no branch of the union");
    check(ALL, &all("u", "{}"), "an object for a union names no branch of it");
    check(ALL, &all("u", r#"{"string":"x","n.F":"ab"}"#), "an object for a union names more than one branch of it");
    check(ALL, &all("u", r#""x""#), "JSON object with type string does not match schema which expected object");
    check(ALL, &all("b", r#""\u0100""#), "a string for bytes has a character above U+00FF");
    check(ALL, &all("f", r#""abc""#), "a string for n.F does not stand for 2 bytes");
    check(ALL, &all("e", r#""C""#), "Invalid enum index without default value: n.E");
    check(ALL, &all("a", r#"[1,"x"]"#), "JSON object with type string does not match schema which expected number_integer");
    check(ALL, &all("m", r#"{"k":1}"#), "JSON object with type number_integer does not match schema which expected string");
    check(r#"{"type":"enum","name":"E","symbols":["A"],"default":"A"}"#, r#""other""#, "");
    check(TREE, r#"{"next":{"Node":{"next":null}}}"#, "");
    let found = parsed(Language::Avro, STOCK).check(Encoding::Json, b"{").unwrap_err();
    assert!(found.starts_with("JSON could not be parsed: "), "{found}");
    let found = parsed(Language::Avro, STOCK).check(Encoding::Json, br#"{"ProductName":"x","SKU":1,"InStock":true} x"#).unwrap_err();
    assert!(found.starts_with("JSON could not be parsed: "), "{found}");
}

#[test]
fn binary_messages_of_avro() {
    let check = |schema: &str, data: &[u8], expect: &str| {
        let found = parsed(Language::Avro, schema).check(Encoding::Binary, data);
        assert_eq!(found.err().unwrap_or_default(), expect, "{schema} {data:?}");
    };
    check(STOCK, b"\x02x\x02\x01", "");
    check(STOCK, b"\x02x\x02\x02", "A boolean is neither 0 nor 1.");
    check(STOCK, b"\x02x\x02", "Not enough data to parse for schema.");
    check(STOCK, b"\x02x\x02\x01\x00", "Too much data to parse for schema.");
    check(STOCK, b"\x02\xff\x02\x01", "A string is not UTF-8.");
    check(STOCK, b"\x01x\x02\x01", "-1 is no length.");
    check(STOCK, b"\x02x\x80\x80\x80\x80\x10\x01", "2147483648 is out of the range of an int.");
    check(STOCK, b"\x02x\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "A number is longer than 64 bits.");
    // -2^63, 1.0, one byte, two, B, a block of two with its size, one pair, the third branch.
    let all: [&[u8]; 8] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\0\0\0\0\0\0\xf0\x3f",
        b"\x02\xff",
        b"ab",
        b"\x02",
        b"\x03\x04\x02\x04\0",
        b"\x02\x02k\x02v\0",
        b"\x04ab",
    ];
    check(ALL, &all.concat(), "");
    let with = |at: usize, part: &'static [u8]| {
        let mut parts = all;
        parts[at] = part;
        parts.concat()
    };
    check(ALL, &with(4, b"\x04"), "Invalid enum index without default value: n.E");
    check(ALL, &with(7, b"\x06"), "3 is no branch of a union.");
    check(TREE, b"\x02\x02\x00", "");
}

#[test]
fn messages_of_protocol_buffers() {
    let json = |schema: &str, data: &str, expect: &str| match parsed(Language::ProtocolBuffer, schema).check(Encoding::Json, data.as_bytes()) {
        Ok(()) => assert_eq!(expect, "", "{data}"),
        Err(why) => assert!(!expect.is_empty() && why.contains(expect), "{data}: {why}"),
    };
    json(PROTO, r#"{"name":"x","sku":1,"inStock":true,"parts":[{"weight":1.5,"sizes":[-1]}],"counts":{"a":"1"}}"#, "");
    json(PROTO, "{}", "");
    json(PROTO, r#"{"other":1}"#, "other");
    json(PROTO, r#"{"sku":"x"}"#, "invalid digit");
    json(PROTO, "[]", "expected");
    json(PROTO2, r#"{"name":"x","inner":{"x":1},"kind":"A"}"#, "");
    json(PROTO2, "{}", "Old.name is required and missing");
    json(PROTO2, r#"{"name":"x","inner":{}}"#, "Old.Inner.x is required and missing");
    let binary = |schema: &str, data: &[u8], expect: &str| match parsed(Language::ProtocolBuffer, schema).check(Encoding::Binary, data) {
        Ok(()) => assert_eq!(expect, "", "{data:?}"),
        Err(why) => assert!(!expect.is_empty() && why.contains(expect), "{data:?}: {why}"),
    };
    binary(PROTO, b"", "");
    // Name, number, bool; a part with packed and unpacked sizes; a pair of the map.
    binary(PROTO, b"\x0a\x01x\x10\x01\x18\x01\x22\x0f\x09\0\0\0\0\0\0\xf0\x3f\x12\x02\x01\x02\x10\x05\x2a\x05\x0a\x01a\x10\x01", "");
    binary(PROTO, b"\x0a\x01\xff", "Stock.name is not UTF-8");
    binary(PROTO, b"\x32\x01x", "Stock has no field with the number 6");
    binary(PROTO, b"\x08\x01", "Stock.name is not written as its type");
    binary(PROTO, b"\x0a\x05x", "the message ends inside of a field");
    binary(PROTO2, b"\x0a\x01x\x13\x18\x01\x14", "");
    binary(PROTO2, b"\x13\x18\x01\x14", "Old.name is required and missing");
    binary(PROTO2, b"\x0a\x01x\x13\x18\x01", "a group does not end");
}

#[test]
fn a_revision_follows_the_one_before_it_or_is_refused() {
    let check = |language: Language, old: &str, new: &str, expect: &str| match parsed(language, new).follows(&parsed(language, old)) {
        Ok(()) => assert_eq!(expect, "", "{new} after {old}"),
        Err(why) => assert!(!expect.is_empty() && why.contains(expect), "{new} after {old}: {why}"),
    };
    let avro = |old: &str, new: &str, expect: &str| {
        let of = |fields: &str| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
        check(Language::Avro, &of(old), &of(new), expect);
    };
    let a = r#"{"name":"a","type":"int"}"#;
    avro(a, a, "");
    avro(a, &format!(r#"{a},{{"name":"b","type":"string","default":""}}"#), "");
    avro(a, &format!(r#"{a},{{"name":"b","type":"string"}}"#), "field \"b\" of R is not in the other revision and has no default");
    avro(&format!(r#"{a},{{"name":"b","type":"string"}}"#), a, "field \"b\" of R");
    avro(a, r#"{"name":"a","type":"long"}"#, "long cannot be read as int");
    avro(a, r#"{"name":"a","type":"string"}"#, "int cannot be read as string");
    avro(r#"{"name":"a","type":"bytes"}"#, r#"{"name":"a","type":"string"}"#, "");
    avro(r#"{"name":"a","type":["null","R"]}"#, r#"{"name":"a","type":["R","null"]}"#, "");
    avro(r#"{"name":"a","type":["null","int"]}"#, r#"{"name":"a","type":["null","int","string"]}"#, "no branch of a union reads string");
    let symbols = |symbols: &str, default: &str| format!(r#"{{"name":"a","type":{{"type":"enum","name":"E","symbols":[{symbols}]{default}}}}}"#);
    avro(&symbols(r#""A""#, ""), &symbols(r#""A","B""#, ""), "lacks the symbol \"B\"");
    avro(&symbols(r#""A""#, r#","default":"A""#), &symbols(r#""A","B""#, r#","default":"A""#), "");
    let proto = |old: &str, new: &str, expect: &str| {
        let of = |fields: &str| format!("syntax = 'proto2'; message M {{ {fields} message N {{ optional int32 x = 1; }} }}");
        check(Language::ProtocolBuffer, &of(old), &of(new), expect);
    };
    proto("optional int32 a = 1;", "optional int32 a = 1; optional N b = 2;", "");
    proto("optional int32 a = 1; repeated N b = 2;", "optional int32 a = 1;", "");
    proto("optional int32 a = 1;", "required int32 b = 2;", "M.b is required and was added");
    proto("required int32 a = 1;", "", "M.a is required and was removed");
    for edited in ["optional int64 a = 1;", "optional int32 b = 1;", "repeated int32 a = 1;"] {
        proto("optional int32 a = 1;", edited, "was changed");
    }
    let both = parsed(Language::Avro, STOCK).follows(&parsed(Language::ProtocolBuffer, PROTO)).unwrap_err();
    assert_eq!(both, "the type of a schema cannot be changed");
}

#[test]
fn what_is_meant_to_cost_is_refused_at_once() {
    let begun = Instant::now();
    let deep = |open: &str, close: &str, count: usize| format!("{}{}", open.repeat(count), close.repeat(count));
    // Recursion of parsers.
    assert!(Definition::parse(Language::Avro, &deep("[", "]", 100_000)).is_err());
    assert!(Definition::parse(Language::Avro, &deep(r#"{"type":"array","items":"#, "}", 10_000)).is_err());
    let nested = format!("syntax = 'proto3'; {}", deep("message M { ", "}", 20_000));
    assert!(Definition::parse(Language::ProtocolBuffer, &nested).unwrap_err().contains("nested deeper than 32"));
    assert!(Definition::parse(Language::ProtocolBuffer, &format!("message M {{ option (x) = {}; }}", deep("{a:", "}", 20_000))).is_err());
    // Aliases, each of which the library's parser pays for with a copy.
    let aliases: Vec<String> = (0..15_000).map(|n| format!("\"a{n}\"")).collect();
    let fields: Vec<String> = (0..3_000).map(|n| format!(r#"{{"name":"f{n}","type":"int"}}"#)).collect();
    let text = format!(r#"{{"type":"record","name":"R","aliases":[{}],"fields":[{}]}}"#, aliases.join(","), fields.join(","));
    assert!(text.len() < 300_000);
    parsed(Language::Avro, &text);
    // Defaults that multiply.
    let defaulted: Vec<String> = (0..4_000).map(|n| format!(r#"{{"name":"f{n}","type":"int","default":0}}"#)).collect();
    let users: Vec<String> = (0..4_000).map(|n| format!(r#"{{"name":"u{n}","type":"R","default":{{}}}}"#)).collect();
    let first = format!(r#"{{"name":"r","type":{{"type":"record","name":"R","fields":[{}]}}}}"#, defaulted.join(","));
    let text = format!(r#"{{"type":"record","name":"S","fields":[{first},{}]}}"#, users.join(","));
    assert!(Definition::parse(Language::Avro, &text).unwrap_err().contains("too many parts"));
    // Values of no bytes, and more of them by each level.
    let nulls = parsed(Language::Avro, r#"{"type":"array","items":"null"}"#);
    assert!(nulls.check(Encoding::Binary, b"\x0a\0").is_ok());
    assert!(nulls.check(Encoding::Binary, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\0").unwrap_err().contains("without any bytes"));
    let mut doubling = r#"{"name":"f0","type":{"type":"record","name":"R0","fields":[]}}"#.to_owned();
    for n in 1..60 {
        let twice = format!(r#"{{"name":"a","type":"R{0}"}},{{"name":"b","type":"R{0}"}}"#, n - 1);
        doubling.push_str(&format!(r#",{{"name":"f{n}","type":{{"type":"record","name":"R{n}","fields":[{twice}]}}}}"#));
    }
    let doubling = parsed(Language::Avro, &format!(r#"{{"type":"record","name":"Top","fields":[{doubling}]}}"#));
    assert!(doubling.check(Encoding::Binary, b"").unwrap_err().contains("without any bytes"));
    doubling.follows(&doubling).unwrap();
    // Recursion of messages.
    let tree = parsed(Language::Avro, TREE);
    assert!(tree.check(Encoding::Binary, &vec![2; 10_000_000]).unwrap_err().contains("nested deeper"));
    assert!(tree.check(Encoding::Json, deep(r#"{"next":{"Node":"#, "}}", 100_000).as_bytes()).is_err());
    let tree = parsed(Language::ProtocolBuffer, "syntax = 'proto3'; message Node { Node next = 1; repeated Node all = 2; }");
    let mut message = Vec::new();
    for _ in 0..1_000 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(message.len() as u64, &mut outer);
        outer.append(&mut message);
        message = outer;
    }
    assert!(tree.check(Encoding::Binary, &message).unwrap_err().contains("nested deeper than 100"));
    assert!(tree.check(Encoding::Json, deep(r#"{"next":"#, "}", 100_000).as_bytes()).is_err());
    assert!(tree.check(Encoding::Binary, &[0x12, 0].repeat(5_000_000)).is_ok());
    // Generous: a machine that is busy with other things is slower, not a hundred times.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
