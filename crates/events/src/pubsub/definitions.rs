//! Parsed schemas in memory: those that were used last.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::schema::Definition;

/// Bytes of their texts, in all: what was parsed takes some twenty times as many.
const KEPT_MAX_BYTES: usize = 4 << 20;

#[derive(Default)]
pub(super) struct Definitions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// By uid of the schema and id of the revision.
    by_revision: HashMap<(String, String), One>,
    bytes: usize,
    uses: u64,
}

struct One {
    definition: Arc<Definition>,
    bytes: usize,
    used: u64,
}

impl Definitions {
    pub(super) fn get(&self, uid: &str, revision: &str) -> Option<Arc<Definition>> {
        let mut kept = self.0.lock();
        kept.uses += 1;
        let used = kept.uses;
        let one = kept.by_revision.get_mut(&(uid.to_owned(), revision.to_owned()))?;
        one.used = used;
        Some(one.definition.clone())
    }

    pub(super) fn keep(&self, uid: &str, revision: &str, bytes: usize, definition: Arc<Definition>) -> Arc<Definition> {
        self.forget(uid, revision);
        let mut kept = self.0.lock();
        kept.uses += 1;
        let used = kept.uses;
        kept.by_revision.insert((uid.to_owned(), revision.to_owned()), One { definition: definition.clone(), bytes, used });
        kept.bytes += bytes;
        while kept.bytes > KEPT_MAX_BYTES {
            let Some(oldest) = kept.by_revision.iter().min_by_key(|(_, one)| one.used).map(|(key, _)| key.clone()) else { break };
            kept.bytes -= kept.by_revision.remove(&oldest).map_or(0, |one| one.bytes);
        }
        definition
    }

    pub(super) fn forget(&self, uid: &str, revision: &str) {
        let mut kept = self.0.lock();
        if let Some(one) = kept.by_revision.remove(&(uid.to_owned(), revision.to_owned())) {
            kept.bytes -= one.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Language;

    #[test]
    fn those_that_were_used_last_are_kept() {
        let definitions = Definitions::default();
        let parsed = Arc::new(Definition::parse(Language::Avro, r#""string""#).unwrap());
        for revision in ["a", "b", "c", "d"] {
            definitions.keep("uid", revision, KEPT_MAX_BYTES / 3, parsed.clone());
            assert!(definitions.get("uid", "a").is_some(), "{revision}");
        }
        let found = ["a", "b", "c", "d"].map(|revision| definitions.get("uid", revision).is_some());
        assert_eq!(found, [true, false, true, true]);
        definitions.forget("uid", "a");
        assert!(definitions.get("uid", "a").is_none());
        assert_eq!(definitions.0.lock().bytes, KEPT_MAX_BYTES / 3 * 2);
    }
}
