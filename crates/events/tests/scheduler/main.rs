//! The scheduler from outside, on a real store: killed at random moments under a false clock, and with many jobs at rest.
//!
//! ```sh
//! cargo test -p events --test scheduler                        # 30 lives
//! TANEBI_TIER=full cargo test -p events --test scheduler       # 1,000
//! ```

mod crashes;
mod many;
mod world;
