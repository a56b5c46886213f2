//! Which revision answers: the split, or a tag's.
//!
//! A random number between 0 and the sum of the shares is drawn for each request; no request remembers the last one.

use std::sync::Arc;

use crate::pool::Pool;

/// A revision and where its share ends.
pub(crate) struct Share {
    /// The sum of the shares up to and with this one.
    pub(crate) end: u32,
    pub(crate) pool: Arc<Pool>,
}

/// The revision for one request; `None` when no revision has a share.
pub(crate) fn pick(shares: &[Share]) -> Option<&Arc<Pool>> {
    match shares {
        [] => None,
        [only] => Some(&only.pool),
        [.., last] => index(shares.iter().map(|share| share.end), rand::random_range(0..last.end)).map(|index| &shares[index].pool),
    }
}

/// The first share that ends after `drawn`.
fn index(ends: impl Iterator<Item = u32>, drawn: u32) -> Option<usize> {
    let mut ends = ends;
    ends.position(|end| drawn < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_falls_into_its_share() {
        let ends = [10, 10, 100];
        let mut counts = [0; 3];
        for drawn in 0..100 {
            counts[index(ends.into_iter(), drawn).unwrap()] += 1;
        }
        // The second has no share of its own.
        assert_eq!(counts, [10, 0, 90]);
        assert_eq!(index(ends.into_iter(), 100), None);
    }
}
