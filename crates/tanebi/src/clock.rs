//! The clocks: the system's, and one that stands until it is moved ([`manual`]). The one place that asks the system for the time.

pub mod manual;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use model::{
    clock::{Timestamp, Until},
    key,
};
use store::Store;

use crate::config::ClockKind;
use manual::ManualClock;

/// The system's wall clock.
pub struct SystemClock;

/// The runtime's time stands still while a machine sleeps, and does not follow when its clock is set: so often is looked again.
const LOOK: Duration = Duration::from_secs(30);

impl model::Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn until(&self, at: Timestamp) -> Until {
        Box::pin(async move {
            while let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now()))
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(LOOK)).await;
            }
        })
    }
}

/// The clock that the server goes by; `None` beside it when it is the system's.
///
/// # Errors
/// A folder whose clock stands in the future cannot go by the system's: what lies in it is not yet. One that was begun after the first
/// instant of a manual clock cannot go by that. A store that cannot be read or written.
pub async fn open(kind: ClockKind, store: &Store) -> Result<(Arc<dyn model::Clock>, Option<Arc<ManualClock>>)> {
    let stood: Option<Timestamp> = store.get(key::CLOCK)?.map(|record| record.json()).transpose()?;
    let real = Timestamp::now();
    match kind {
        ClockKind::System => {
            if let Some(stood) = stood.filter(|stood| *stood > real) {
                bail!("the clock of this data folder was moved to {stood}, which is yet to come: start with --clock manual, or with another --data-dir");
            }
            Ok((Arc::new(SystemClock), None))
        }
        ClockKind::Manual(first) => {
            let at = stood.or(first).unwrap_or(real);
            if stood.is_none()
                && let Some(begun) = begun(store)?.filter(|begun| at < *begun)
            {
                bail!("this data folder was begun at {begun}: its clock cannot stand at {at}, before that");
            }
            let clock = Arc::new(ManualClock::open(store.clone(), at).await?);
            Ok((clock.clone(), Some(clock)))
        }
    }
}

/// When the first project of the folder was made.
fn begun(store: &Store) -> Result<Option<Timestamp>> {
    #[derive(serde::Deserialize)]
    struct Project {
        created: Timestamp,
    }
    let mut first = None;
    for record in store.scan(key::PROJECTS, None, 1000)? {
        let created = record.json::<Project>()?.created;
        first = Some(first.map_or(created, |first: Timestamp| first.min(created)));
    }
    Ok(first)
}
