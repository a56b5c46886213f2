//! What is due of secrets: those whose end has come, versions whose delay before destruction is over.
//!
//! One loop, which knows the instants of all of them and waits for the next by the clock. It takes no input but the store: after a
//! start it reads everything, then it follows the changes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use model::{
    Status, Timestamp, key,
    secret::{Secret, SecretVersion},
};
use serde::de::DeserializeOwned;
use store::Event;
use tokio::sync::watch::Receiver;

use crate::{Context, records, secret};

/// After a failure of the store.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until `stop` says so or its sender is gone, or the store is closed.
pub(crate) async fn run(cx: Arc<Context>, mut stop: Receiver<bool>) {
    // Before the first look at everything, so that no change falls between.
    let (mut secrets, mut versions) = (cx.store.watch(key::SECRETS), cx.store.watch(key::SECRET_VERSIONS));
    let mut dues = None;
    loop {
        let known = match &mut dues {
            Some(known) => known,
            None => match Dues::read(&cx) {
                Ok(read) => dues.insert(read),
                Err(error) => {
                    tracing::error!(%error, "cannot tell which secrets end");
                    if rested(&mut stop).await { continue } else { return }
                }
            },
        };
        let next = known.first().map(|(at, key)| (at, key.to_owned()));
        let woken = tokio::select! {
            event = secrets.next() => Woken::By(event),
            event = versions.next() => Woken::By(event),
            due = come(&cx, next) => Woken::Due(due),
            // An error means that the sender is gone.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match woken {
            Woken::By(Some(Event::Change(change))) => known.set(&change.key, change.value.as_deref()),
            Woken::By(Some(Event::Resync)) => dues = None,
            Woken::By(None) => return,
            Woken::Due((at, key)) => match step(&cx, &key).await {
                Ok(()) => known.forget(at, &key),
                Err(error) => {
                    tracing::error!(key, %error, "what is due of a secret was not done");
                    if !rested(&mut stop).await {
                        return;
                    }
                }
            },
        }
    }
}

enum Woken {
    By(Option<Event>),
    /// Instant and key.
    Due((Timestamp, String)),
}

/// Whether to go on after a rest.
async fn rested(stop: &mut Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(RETRY) => true,
        _ = stop.wait_for(|stop| *stop) => false,
    }
}

/// Waits for the instant of what is due next; for ever when there is nothing.
async fn come(cx: &Context, next: Option<(Timestamp, String)>) -> (Timestamp, String) {
    let Some((at, key)) = next else { return std::future::pending().await };
    cx.clock.until(at).await;
    (at, key)
}

/// Does what is due of one record, if it still is.
async fn step(cx: &Context, key: &str) -> Result<(), Status> {
    let now = cx.clock.now();
    if key.starts_with(key::SECRETS) {
        return match records::read::<Secret>(&cx.store, key)? {
            Some(found) if secret::has_expired(&found.value, now) => {
                tracing::info!(secret = found.value.key.resource(), "a secret's end has come");
                cx.secret_remove(&found).await
            }
            _ => Ok(()),
        };
    }
    while let Some(found) = records::read::<SecretVersion>(&cx.store, key)? {
        let next = secret::as_of(found.value.clone(), now);
        if next == found.value || cx.secret_version_put(&next, found.revision).await? {
            break;
        }
    }
    Ok(())
}

/// Records by the instant at which something is to be done.
#[derive(Default)]
struct Dues {
    in_order: BTreeSet<(Timestamp, String)>,
    by_key: HashMap<String, Timestamp>,
}

impl Dues {
    fn read(cx: &Context) -> Result<Self, Status> {
        let mut dues = Self::default();
        for prefix in [key::SECRETS, key::SECRET_VERSIONS] {
            records::each(&cx.store, prefix, |record| {
                dues.set(&record.key, Some(&record.value));
                Ok(())
            })?;
        }
        Ok(dues)
    }

    fn first(&self) -> Option<(Timestamp, &str)> {
        self.in_order.first().map(|(at, key)| (*at, key.as_str()))
    }

    /// A record as it is now; `None` when it is gone.
    fn set(&mut self, key: &str, value: Option<&[u8]>) {
        if let Some(before) = self.by_key.remove(key) {
            self.in_order.remove(&(before, key.to_owned()));
        }
        let due = match value {
            None => None,
            Some(value) if key.starts_with(key::SECRETS) => parsed::<Secret>(key, value).and_then(|secret| secret.expires),
            Some(value) => parsed::<SecretVersion>(key, value).and_then(|version| version.destroys),
        };
        if let Some(at) = due {
            self.by_key.insert(key.to_owned(), at);
            self.in_order.insert((at, key.to_owned()));
        }
    }

    fn forget(&mut self, at: Timestamp, key: &str) {
        self.in_order.remove(&(at, key.to_owned()));
        self.by_key.remove(key);
    }
}

fn parsed<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).inspect_err(|error| tracing::error!(key, %error, "a record of a secret cannot be read")).ok()
}
