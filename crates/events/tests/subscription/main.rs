//! The state machine of a subscription from outside: its rules one by one, against a naive model, and under a seeded simulation.
//!
//! ```sh
//! cargo test -p events --test subscription                                # 10,000 messages a simulation
//! TANEBI_TIER=full cargo test --release -p events --test subscription    # a million
//! ```

mod model_check;
mod naive;
mod rules;
mod simulation;

use events::subscription::{Facts, Subscription};
use model::Timestamp;

/// `seconds` after the beginning of the tests' time.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
}

fn feed(subscription: &mut Subscription, sequence: u64, published: Timestamp, ordering_key: &str) {
    subscription.feed(Facts { sequence, published, ordering_key, attribute: &|_| None });
}
