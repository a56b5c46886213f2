//! The pools of all revisions, by uid: made when a revision is first routed or proven, gone with the revision.
//!
//! Not in a request's path: the table leads to its pools directly.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use model::Revision;
use parking_lot::Mutex;

use crate::{Shared, instances::StopOrder, pool::Pool};

/// The pools of all revisions, by uid.
#[derive(Clone)]
pub(crate) struct Pools {
    shared: Arc<Shared>,
    all: Arc<Mutex<HashMap<String, Arc<Pool>>>>,
    /// Revisions that the store holds.
    recorded: Arc<Mutex<HashSet<String>>>,
}

impl Pools {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, all: Arc::default(), recorded: Arc::default() }
    }

    /// The pool of `revision`, made when there is none.
    pub(crate) fn of(&self, revision: &Revision) -> Arc<Pool> {
        self.all.lock().entry(revision.uid.clone()).or_insert_with(|| Pool::new(self.shared.clone(), revision)).clone()
    }

    pub(crate) fn find(&self, uid: &str) -> Option<Arc<Pool>> {
        self.all.lock().get(uid).cloned()
    }

    pub(crate) fn recorded(&self, uid: &str) {
        let mut recorded = self.recorded.lock();
        if !recorded.contains(uid) {
            recorded.insert(uid.to_owned());
        }
    }

    pub(crate) fn is_recorded(&self, uid: &str) -> bool {
        self.recorded.lock().contains(uid)
    }

    /// The revision is gone: its instances end once their requests have.
    pub(crate) fn retire(&self, uid: &str) {
        self.recorded.lock().remove(uid);
        let pool = self.all.lock().remove(uid);
        if let Some(pool) = pool {
            pool.retire();
            self.shared.telemetry.meter_forget(&pool.meter_key());
            let finish = pool.template.timeout();
            pool.drain_all(StopOrder::after(finish));
        }
    }

    /// No pool takes another request.
    pub(crate) fn close(&self) {
        self.all().iter().for_each(|pool| pool.retire());
    }

    pub(crate) fn all(&self) -> Vec<Arc<Pool>> {
        self.all.lock().values().cloned().collect()
    }
}
