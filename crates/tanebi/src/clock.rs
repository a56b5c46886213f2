//! The clocks: the system's, and one that stands until it is moved ([`manual`]). The one place that asks the system for the time.

pub mod manual;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use model::{
    clock::{Timestamp, Until},
    key,
};
use store::{Expect, Store, Write};

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

/// The clock that the server goes by; beside it the same when it is one that is moved by hand.
///
/// # Errors
/// A folder whose manual clock stands in the future cannot go by the system's: what lies in it is not yet. One that went by the system's cannot go
/// by a manual one that stands in the past. A store that cannot be read or written.
pub async fn open(kind: ClockKind, store: &Store) -> Result<(Arc<dyn model::Clock>, Option<Arc<ManualClock>>)> {
    let stood: Option<Timestamp> = store.get(key::CLOCK)?.map(|record| record.json()).transpose()?;
    let real = Timestamp::now();
    match kind {
        ClockKind::System => {
            if let Some(stood) = stood {
                if stood > real {
                    bail!("the clock of this data folder was moved to {stood}, which is yet to come: start with --clock manual, or with another --data-dir");
                }
                // From now on records are dated by the system's clock: a manual one must not go on before them.
                store.commit(vec![Write::delete(key::CLOCK, Expect::Any)]).await?;
            }
            Ok((Arc::new(SystemClock), None))
        }
        ClockKind::Manual(first) => {
            let at = stood.or(first).unwrap_or(real);
            let is_used = stood.is_none() && !store.scan(key::PROJECTS, None, 1)?.is_empty();
            if is_used && at < real {
                bail!("this data folder went by the system's clock until now: a manual clock cannot stand at {at}, before that; take another --data-dir");
            }
            let clock = Arc::new(ManualClock::open(store.clone(), at).await?);
            Ok((clock.clone(), Some(clock)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_never_goes_back_in_a_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let now = async |kind| open(kind, &store).await.map(|(clock, _)| clock.now()).map_err(|error| error.to_string());
        let (past, future) = (at("2001-01-01T00:00:00Z"), at("2901-01-01T00:00:00Z"));
        // Where it stood wins.
        assert_eq!(now(ClockKind::Manual(Some(past))).await, Ok(past));
        assert_eq!(now(ClockKind::Manual(Some(future))).await, Ok(past));
        assert_eq!(now(ClockKind::Manual(None)).await, Ok(past));
        // The system's clock takes a folder over, and what it dates is not to come later.
        store.commit(vec![Write::put(format!("{}p", key::PROJECTS), Expect::Any, &())]).await.unwrap();
        assert!(now(ClockKind::System).await.unwrap() > past);
        assert!(now(ClockKind::Manual(Some(past))).await.unwrap_err().contains("went by the system's clock"));
        assert_eq!(now(ClockKind::Manual(Some(future))).await, Ok(future));
        assert!(now(ClockKind::System).await.unwrap_err().contains("yet to come"));
    }
}
