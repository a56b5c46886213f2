//! The host uids that sandboxes run as, one each, and which of them are free.
//!
//! A slot is given back only after the last process of its sandbox is gone. The range avoids what `/etc/subuid` gives to people
//! (rootless containers) and lies inside what this user namespace maps.

use std::collections::BTreeSet;

/// How many sandboxes there can be at once.
const SLOTS: u32 = 4096;
/// Above what distributions hand out to people and services.
const LOWEST: u32 = 200_000;
const HIGHEST: u32 = u32::MAX - 2 * SLOTS;

/// Free and taken slots.
pub(crate) struct Slots {
    free: BTreeSet<u32>,
    base: Option<u32>,
}

impl Slots {
    /// Without uids of their own: slots only count sandboxes.
    pub fn shared() -> Self {
        Self { free: (0..SLOTS).collect(), base: None }
    }

    /// With the first range of host ids that is mapped here (texts of `/proc/self/{uid,gid}_map`) and delegated to nobody
    /// (texts of `/etc/subuid` and `/etc/subgid`); `None` when there is none.
    pub fn own(maps: [&str; 2], delegated: [&str; 2]) -> Option<Self> {
        let mapped = maps.map(|map| map.lines().filter_map(|line| range(line, char::is_whitespace, 0, 2)).collect::<Vec<_>>());
        let delegated: Vec<_> = delegated.iter().flat_map(|text| text.lines()).filter_map(|line| range(line, |c| c == ':', 1, 2)).collect();
        let fits = |base: u32| {
            let end = base + SLOTS;
            mapped.iter().all(|ranges| ranges.iter().any(|(from, to)| *from <= base.into() && u64::from(end) <= *to))
                && delegated.iter().all(|(from, to)| u64::from(end) <= *from || *to <= base.into())
        };
        // A range that fits starts at the lowest id or where one that does not fit ends.
        let starts = delegated.iter().map(|(_, to)| *to).chain(mapped.iter().flatten().map(|(from, _)| *from));
        let mut starts: Vec<u32> = starts.filter_map(|start| u32::try_from(start).ok()).filter(|start| (LOWEST..HIGHEST).contains(start)).collect();
        starts.push(LOWEST);
        starts.sort_unstable();
        let base = starts.into_iter().find(|base| fits(*base))?;
        Some(Self { free: (0..SLOTS).collect(), base: Some(base) })
    }

    /// Takes the lowest free slot.
    pub fn take(&mut self) -> Option<Slot> {
        let number = self.free.pop_first()?;
        Some(Slot { number, uid: self.base.map(|base| base + number) })
    }

    pub fn give_back(&mut self, slot: &Slot) {
        self.free.insert(slot.number);
    }

    pub fn are_own(&self) -> bool {
        self.base.is_some()
    }
}

/// One sandbox's.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u32,
    /// The uid and gid on the host; none when the sandbox runs as the keeper's own.
    pub uid: Option<u32>,
}

/// `[from, to)` of a line with fields, of which `from` and `length` are the numbers of two.
fn range(line: &str, separator: impl Fn(char) -> bool, from: usize, length: usize) -> Option<(u64, u64)> {
    let fields: Vec<&str> = line.split(separator).filter(|field| !field.is_empty()).collect();
    let from: u64 = fields.get(from)?.parse().ok()?;
    let length: u64 = fields.get(length)?.parse().ok()?;
    Some((from, from.checked_add(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    #[test]
    fn a_range_is_mapped_and_nobody_elses() {
        #[track_caller]
        fn check(map: &str, subuid: &str, expect: Option<u32>) {
            let base = Slots::own([map, map], [subuid, subuid]).map(|mut slots| slots.take().unwrap().uid.unwrap());
            assert_eq!(base, expect);
        }
        check(WHOLE, "", Some(200_000));
        check(WHOLE, "ann:100000:65536\n", Some(200_000));
        check(WHOLE, "ann:100000:65536\nbob:165536:65536\n", Some(231_072));
        check(WHOLE, "ann:100000:65536\nbob:165536:65536\ncid:231072:65536\n", Some(296_608));
        check(WHOLE, "containers:2147483647:2147483648\n", Some(200_000));
        check("0 1000 1\n1 100000 65536\n", "", None);
        check("0 0 300000\n", "ann:199000:100000\n", None);
        check("0 0 310000\n", "ann:199000:100000\n", Some(299_000));
        check("nonsense\n", "", None);
    }

    #[test]
    fn a_slot_is_one_sandboxs_until_given_back() {
        let mut slots = Slots::own([WHOLE, WHOLE], ["", ""]).unwrap();
        let all: Vec<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all.len(), SLOTS as usize);
        assert_eq!(all.iter().map(|slot| slot.uid).collect::<BTreeSet<_>>().len(), SLOTS as usize);
        assert!(slots.take().is_none());
        slots.give_back(&all[7]);
        assert_eq!(slots.take().unwrap().uid, all[7].uid);
    }
}
