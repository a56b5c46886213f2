//! The nouns: a record, and a change of one with what it expects to find.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, invalid};

/// The longest key, in bytes of UTF-8. An object's name at Google has at most 1024.
pub const KEY_MAX_BYTES: usize = 4096;
/// The most that all keys and values of one commit hold. What is larger belongs into a blob.
pub const COMMIT_MAX_BYTES: usize = 16 << 20;

/// A stored value and the revision (of the whole store) that wrote it last: its etag and resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub value: Arc<[u8]>,
    pub revision: u64,
}

impl Record {
    /// The value as what it was written from.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the key.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.value).map_err(|error| Error::Shape { key: self.key.clone(), reason: error.to_string() })
    }
}

/// One change of a commit. All changes of one commit happen or none.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    /// `None` deletes.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// Puts `value` as JSON.
    ///
    /// # Panics
    /// When `T` has no JSON: a map whose keys are no text, or a `Serialize` of its own that fails. The nouns of `model` have one.
    pub fn put<T: Serialize>(key: impl Into<String>, expect: Expect, value: &T) -> Self {
        let value = serde_json::to_vec(value).expect("what is stored is made of structs, lists and maps with text as keys");
        Self { key: key.into(), expect, value: Some(value) }
    }

    /// Deletes the record, if it is there and `expect` holds.
    pub fn delete(key: impl Into<String>, expect: Expect) -> Self {
        Self { key: key.into(), expect, value: None }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// A record that a commit needs as it is, and does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub key: String,
    pub revision: u64,
}

impl Guard {
    /// The record as it was read.
    pub fn of(record: &Record) -> Self {
        Self { key: record.key.clone(), revision: record.revision }
    }
}

/// What a write expects to find under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there, even a damaged record.
    Any,
    /// Nothing.
    Absent,
    /// The record as this revision wrote it.
    Revision(u64),
}

/// Refuses what no back end should take: keys empty or too long, a key twice, too much.
pub(crate) fn writes_check(writes: &[Write]) -> Result<(), Error> {
    let bytes: usize = writes.iter().map(Write::bytes).sum();
    if bytes > COMMIT_MAX_BYTES {
        return Err(invalid(format_args!("a commit of {bytes} bytes is too large; at most {COMMIT_MAX_BYTES} fit, larger values belong into a blob")));
    }
    let mut keys: Vec<&str> = writes.iter().map(|write| write.key.as_str()).collect();
    keys.sort_unstable();
    for key in &keys {
        if key.is_empty() || key.len() > KEY_MAX_BYTES {
            return Err(invalid(format_args!("a key must have 1 to {KEY_MAX_BYTES} bytes; this one has {}", key.len())));
        }
    }
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid(format_args!("the key {:?} is twice in one commit", pair[0]))),
        None => Ok(()),
    }
}

/// The first text after all those that begin with `prefix`, in the order of their bytes; `None` when there is none.
///
/// The order of UTF-8 bytes is that of code points, so the last character is replaced by the next one.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefix_ends() {
        let check = |prefix: &str, expect: Option<&str>| assert_eq!(prefix_end(prefix).as_deref(), expect, "{prefix:?}");
        check("", None);
        check("service/", Some("service0"));
        check("a", Some("b"));
        check("\u{7f}", Some("\u{80}"));
        check("\u{D7FF}", Some("\u{E000}"));
        check("a\u{10FFFF}", Some("b"));
        check("\u{10FFFF}\u{10FFFF}", None);
    }

    proptest! {
        #[test]
        fn a_prefix_ends_after_its_keys_and_before_all_others(prefix in any::<String>(), rest in any::<String>(), other in any::<String>()) {
            let end = prefix_end(&prefix);
            let inside = |key: &str| key >= prefix.as_str() && end.as_deref().is_none_or(|end| key < end);
            let key = format!("{prefix}{rest}");
            prop_assert!(inside(&key));
            prop_assert_eq!(inside(&other), other.starts_with(&prefix));
        }
    }

    #[test]
    fn commits_that_cannot_be_one_are_refused() {
        let put = |key: &str, bytes: usize| Write { key: key.into(), expect: Expect::Any, value: Some(vec![0; bytes]) };
        let check = |writes: &[Write], expect: Option<&str>| {
            let text = writes_check(writes).err().map(|error| error.to_string());
            match expect {
                None => assert_eq!(text, None),
                Some(part) => assert!(text.as_deref().is_some_and(|text| text.contains(part)), "{text:?}"),
            }
        };
        check(&[], None);
        check(&[put("a", 0), put("b", 9)], None);
        check(&[put("", 0)], Some("1 to 4096"));
        check(&[put(&"k".repeat(KEY_MAX_BYTES + 1), 0)], Some("1 to 4096"));
        check(&[put("a", 0), put("b", 0), put("a", 0)], Some("\"a\" is twice"));
        check(&[put("a", COMMIT_MAX_BYTES)], Some("too large"));
    }
}
