//! An Avro schema, read from its JSON into a list of types that name each other by number.
//!
//! Not by the Avro library of Rust: its parser copies a type for each of its aliases and for each level that it lies under, so that a
//! definition of 300 KB can take all memory (`docs/decisions/0019-schemas-audiences-and-upkeep.md`). Logical types and aliases are
//! not looked at: neither changes how a value is written.

pub(super) mod binary;
pub(super) mod json;
pub(super) mod resolution;

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

/// The place of a type in [`Avro::types`].
pub(super) type Id = usize;

/// A schema.
#[derive(Debug)]
pub(crate) struct Avro {
    types: Vec<Type>,
    root: Id,
}

#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(Id),
    Map(Id),
    Union { branches: Vec<Id>, by_name: HashMap<String, Id> },
    Record { name: String, fields: Vec<Field>, by_name: HashMap<String, usize> },
    Enum { name: String, symbols: Vec<String>, by_symbol: HashMap<String, usize>, has_default: bool },
    Fixed { name: String, bytes: usize },
}

#[derive(Debug)]
struct Field {
    name: String,
    kind: Id,
    has_default: bool,
}

/// The first types of every schema, in the order in which [`primitives`] makes them.
const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

fn primitives() -> Vec<Type> {
    vec![Type::Null, Type::Boolean, Type::Int, Type::Long, Type::Float, Type::Double, Type::Bytes, Type::String]
}

/// Parts of defaults that are looked at, in all: what is above it is meant to cost time.
const DEFAULTS_MAX: usize = 1_000_000;

impl Avro {
    /// # Errors
    /// What is wrong with `text`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        if json.is_array() {
            return Err("a union cannot be the type of a message: there must be one top-level type".to_owned());
        }
        let mut parser = Parser { types: primitives(), named: HashMap::new(), defaults: Vec::new() };
        let root = parser.parse(&json, "")?;
        let Parser { types, defaults, .. } = parser;
        let avro = Self { types, root };
        let mut left = DEFAULTS_MAX;
        for (kind, value, field) in defaults {
            avro.default_check(kind, value, &mut left).map_err(|why| format!("the default of field {field:?}: {why}"))?;
        }
        Ok(avro)
    }

    fn kind(&self, id: Id) -> &Type {
        &self.types[id]
    }

    /// The name by which a union tells its branches apart: of a type with a name its full one.
    fn name(&self, id: Id) -> &str {
        match self.kind(id) {
            Type::Array(_) => "array",
            Type::Map(_) => "map",
            Type::Union { .. } => "union",
            Type::Record { name, .. } | Type::Enum { name, .. } | Type::Fixed { name, .. } => name,
            _ => PRIMITIVES[id],
        }
    }

    /// A default is plain JSON, and that of a union is of its first branch.
    fn default_check(&self, id: Id, value: &Json, left: &mut usize) -> Result<(), String> {
        *left = left.checked_sub(1).ok_or("it and the others before it have too many parts")?;
        let is_good = match (self.kind(id), value) {
            (Type::Null, value) => value.is_null(),
            (Type::Boolean, value) => value.is_boolean(),
            (Type::Int, value) => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            (Type::Long, value) => value.as_i64().is_some(),
            (Type::Float | Type::Double, value) => value.is_number(),
            (Type::String, value) => value.is_string(),
            (Type::Bytes, Json::String(text)) => text.chars().all(is_byte),
            (Type::Fixed { bytes, .. }, Json::String(text)) => text.chars().all(is_byte) && text.chars().count() == *bytes,
            (Type::Enum { by_symbol, .. }, Json::String(text)) => by_symbol.contains_key(text),
            (Type::Array(items), Json::Array(values)) => return values.iter().try_for_each(|value| self.default_check(*items, value, left)),
            (Type::Map(values), Json::Object(map)) => return map.values().try_for_each(|value| self.default_check(*values, value, left)),
            (Type::Union { branches, .. }, value) => return self.default_check(branches[0], value, left),
            (Type::Record { fields, .. }, Json::Object(map)) => {
                for field in fields {
                    match map.get(&field.name) {
                        Some(value) => self.default_check(field.kind, value, left)?,
                        None if field.has_default => *left = left.checked_sub(1).ok_or("it has too many parts")?,
                        None => return Err(format!("it lacks {:?}", field.name)),
                    }
                }
                true
            }
            _ => false,
        };
        if is_good { Ok(()) } else { Err(format!("it is no {}", self.name(id))) }
    }
}

/// A byte, as a character of JSON stands for it.
fn is_byte(character: char) -> bool {
    u32::from(character) <= 0xff
}

struct Parser<'j> {
    types: Vec<Type>,
    /// By full name.
    named: HashMap<String, Id>,
    /// Looked at when all types are known.
    defaults: Vec<(Id, &'j Json, &'j str)>,
}

impl<'j> Parser<'j> {
    /// Its depth is that of the JSON, which `serde_json` bounds.
    fn parse(&mut self, json: &'j Json, namespace: &str) -> Result<Id, String> {
        match json {
            Json::String(name) => self.known(name, namespace),
            Json::Array(branches) => self.union(branches, namespace),
            Json::Object(object) => match object.get("type") {
                Some(Json::String(kind)) => match kind.as_str() {
                    "record" | "error" => self.record(object, namespace),
                    "enum" => self.enumeration(object, namespace),
                    "fixed" => self.fixed(object, namespace),
                    "array" => {
                        let items = self.parse(object.get("items").ok_or("an array lacks \"items\"")?, namespace)?;
                        Ok(self.add(Type::Array(items)))
                    }
                    "map" => {
                        let values = self.parse(object.get("values").ok_or("a map lacks \"values\"")?, namespace)?;
                        Ok(self.add(Type::Map(values)))
                    }
                    name => self.known(name, namespace),
                },
                Some(inner @ (Json::Object(_) | Json::Array(_))) => self.parse(inner, namespace),
                Some(other) => Err(format!("{other} is no type")),
                None => Err("a type lacks \"type\"".to_owned()),
            },
            other => Err(format!("{other} is no type")),
        }
    }

    fn add(&mut self, kind: Type) -> Id {
        self.types.push(kind);
        self.types.len() - 1
    }

    fn known(&self, name: &str, namespace: &str) -> Result<Id, String> {
        if let Some(primitive) = PRIMITIVES.iter().position(|known| *known == name) {
            return Ok(primitive);
        }
        self.named.get(&full(name, namespace)).copied().ok_or_else(|| format!("{name:?} is no type that was defined before"))
    }

    fn union(&mut self, branches: &'j [Json], namespace: &str) -> Result<Id, String> {
        let (mut ids, mut by_name) = (Vec::with_capacity(branches.len()), HashMap::new());
        for branch in branches {
            let id = self.parse(branch, namespace)?;
            if matches!(self.types[id], Type::Union { .. }) {
                return Err("a union cannot hold another one".to_owned());
            }
            let name = self.branch_name(id);
            if by_name.insert(name.clone(), id).is_some() {
                return Err(format!("a union has {name:?} twice"));
            }
            ids.push(id);
        }
        if ids.is_empty() {
            return Err("a union has no branches".to_owned());
        }
        Ok(self.add(Type::Union { branches: ids, by_name }))
    }

    fn branch_name(&self, id: Id) -> String {
        match &self.types[id] {
            Type::Array(_) => "array".to_owned(),
            Type::Map(_) => "map".to_owned(),
            Type::Record { name, .. } | Type::Enum { name, .. } | Type::Fixed { name, .. } => name.clone(),
            _ => PRIMITIVES[id].to_owned(),
        }
    }

    /// Takes the name of a type, under which it is known from here on; its namespace.
    fn name(&mut self, object: &'j Map<String, Json>, namespace: &str) -> Result<(String, String), String> {
        let name = object.get("name").and_then(Json::as_str).ok_or("a record, enum or fixed lacks \"name\"")?;
        let own = match object.get("namespace") {
            None => namespace,
            Some(own) => own.as_str().ok_or("a namespace is no string")?,
        };
        let full = full(name, own);
        if !full.split('.').all(is_name) {
            return Err(format!("{full:?} is no name: its parts must begin with a letter or underscore and hold only these and digits"));
        }
        if PRIMITIVES.contains(&full.as_str()) {
            return Err(format!("{full:?} is the name of a primitive type"));
        }
        if self.named.contains_key(&full) {
            return Err(format!("{full:?} is defined twice"));
        }
        self.named.insert(full.clone(), self.types.len());
        let within = full.rsplit_once('.').map_or_else(String::new, |(namespace, _)| namespace.to_owned());
        Ok((full, within))
    }

    fn record(&mut self, object: &'j Map<String, Json>, namespace: &str) -> Result<Id, String> {
        let (name, within) = self.name(object, namespace)?;
        // Its place is taken before its fields, which may name it.
        let id = self.add(Type::Record { name: name.clone(), fields: Vec::new(), by_name: HashMap::new() });
        let written = object.get("fields").and_then(Json::as_array).ok_or_else(|| format!("record {name:?} lacks \"fields\""))?;
        let (mut fields, mut by_name) = (Vec::with_capacity(written.len()), HashMap::new());
        for (at, field) in written.iter().enumerate() {
            let field_name =
                field.get("name").and_then(Json::as_str).filter(|name| is_name(name)).ok_or_else(|| format!("field {at} of {name:?} has no good name"))?;
            let kind = field.get("type").ok_or_else(|| format!("field {field_name:?} of {name:?} lacks \"type\""))?;
            let kind = self.parse(kind, &within)?;
            if by_name.insert(field_name.to_owned(), at).is_some() {
                return Err(format!("{name:?} has the field {field_name:?} twice"));
            }
            let default = field.get("default");
            self.defaults.extend(default.map(|default| (kind, default, field_name)));
            fields.push(Field { name: field_name.to_owned(), kind, has_default: default.is_some() });
        }
        self.types[id] = Type::Record { name, fields, by_name };
        Ok(id)
    }

    fn enumeration(&mut self, object: &'j Map<String, Json>, namespace: &str) -> Result<Id, String> {
        let (name, _) = self.name(object, namespace)?;
        let written = object.get("symbols").and_then(Json::as_array).ok_or_else(|| format!("enum {name:?} lacks \"symbols\""))?;
        let (mut symbols, mut by_symbol) = (Vec::with_capacity(written.len()), HashMap::new());
        for (at, symbol) in written.iter().enumerate() {
            let symbol = symbol.as_str().filter(|symbol| is_name(symbol)).ok_or_else(|| format!("symbol {at} of {name:?} is no name"))?;
            if by_symbol.insert(symbol.to_owned(), at).is_some() {
                return Err(format!("{name:?} has the symbol {symbol:?} twice"));
            }
            symbols.push(symbol.to_owned());
        }
        let default = object.get("default");
        if default.is_some_and(|default| !default.as_str().is_some_and(|default| by_symbol.contains_key(default))) {
            return Err(format!("the default of {name:?} is none of its symbols"));
        }
        Ok(self.add(Type::Enum { name, symbols, by_symbol, has_default: default.is_some() }))
    }

    fn fixed(&mut self, object: &'j Map<String, Json>, namespace: &str) -> Result<Id, String> {
        let (name, _) = self.name(object, namespace)?;
        let bytes = object.get("size").and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok());
        let bytes = bytes.ok_or_else(|| format!("fixed {name:?} lacks a \"size\""))?;
        Ok(self.add(Type::Fixed { name, bytes }))
    }
}

fn full(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn is_name(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
