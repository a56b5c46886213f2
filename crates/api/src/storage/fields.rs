//! `fields=`: which parts of an answer are wanted, such as `items(name,owner/email),nextPageToken`.
//!
//! Source: cloud.google.com/storage/docs/json_api#partial-response. A name that the answer does not have selects nothing.

use std::iter::Peekable;

use serde_json::{Map, Value};

/// How deep a selection may be.
const DEPTH_MAX: usize = 16;

/// A selection: names with what is wanted of each; an empty selection wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, Fields)>);

impl Fields {
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut chars = text.chars().peekable();
        let fields = Self::list(&mut chars, 0)?;
        match chars.next() {
            None => Ok(fields),
            Some(_) => Err("a closing bracket has no opening one"),
        }
    }

    fn list(chars: &mut Peekable<impl Iterator<Item = char>>, depth: usize) -> Result<Self, &'static str> {
        if depth > DEPTH_MAX {
            return Err("it is too deep");
        }
        let mut fields = Self::default();
        loop {
            let (name, of) = Self::item(chars, depth)?;
            fields.add(name, of);
            if chars.next_if_eq(&',').is_none() {
                return Ok(fields);
            }
        }
    }

    fn item(chars: &mut Peekable<impl Iterator<Item = char>>, depth: usize) -> Result<(String, Self), &'static str> {
        if depth > DEPTH_MAX {
            return Err("it is too deep");
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| !matches!(c, ',' | '/' | '(' | ')')) {
            name.push(c);
        }
        let name = name.trim().to_owned();
        if name.is_empty() {
            return Err("a name is missing");
        }
        let of = if chars.next_if_eq(&'/').is_some() {
            let (name, of) = Self::item(chars, depth + 1)?;
            Self(vec![(name, of)])
        } else if chars.next_if_eq(&'(').is_some() {
            let of = Self::list(chars, depth + 1)?;
            chars.next_if_eq(&')').ok_or("an opening bracket has no closing one")?;
            of
        } else {
            Self::default()
        };
        Ok((name, of))
    }

    /// `items/name,items/size` is `items(name,size)`; `items,items/name` is `items`.
    fn add(&mut self, name: String, of: Self) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            None => self.0.push((name, of)),
            Some((_, known)) if known.0.is_empty() || of.0.is_empty() => known.0.clear(),
            Some((_, known)) => of.0.into_iter().for_each(|(name, of)| known.add(name, of)),
        }
    }

    /// What is wanted of `value`.
    pub(crate) fn of(&self, value: Value) -> Value {
        match value {
            _ if self.0.is_empty() => value,
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.of(item)).collect()),
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .filter_map(|(name, value)| {
                        let (_, of) = self.0.iter().find(|(wanted, _)| *wanted == name || wanted == "*")?;
                        Some((name, of.of(value)))
                    })
                    .collect::<Map<_, _>>(),
            ),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_selected() {
        let body = json!({"kind": "k", "items": [{"name": "a", "size": "1", "owner": {"email": "e", "id": 1}}], "nextPageToken": "t"});
        let check = |text: &str, expect: Value| assert_eq!(Fields::parse(text).unwrap().of(body.clone()), expect, "{text}");
        check("*", body.clone());
        check("kind,nextPageToken", json!({"kind": "k", "nextPageToken": "t"}));
        check("prefixes,items/name,items/size,nextPageToken", json!({"items": [{"name": "a", "size": "1"}], "nextPageToken": "t"}));
        check("items(name,owner/email)", json!({"items": [{"name": "a", "owner": {"email": "e"}}]}));
        check("items/owner(id), kind", json!({"items": [{"owner": {"id": 1}}], "kind": "k"}));
        check("items/name,items", json!({"items": [{"name": "a", "size": "1", "owner": {"email": "e", "id": 1}}]}));
        check("absent/x", json!({}));
    }

    #[test]
    fn malformed_selections_are_refused() {
        for text in ["", ",", "a,", "a(", "a(b", "a)", "a//b", "a/", &"a/".repeat(40)] {
            assert!(Fields::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a,/()*]{0,60}") {
            let _ = Fields::parse(&text);
        }
    }
}
