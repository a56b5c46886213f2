//! Which memory a request touches: learnt from one clone, given to the next ones before they go on.
//!
//! A clone begins with its template's anonymous pages, shared until they are written, and without any of a file's. Each first touch is
//! a fault, some hundreds of them in the first request. A clone that waits armed can have them behind it.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{
    frozen::range,
    routine::{self, Operation},
    state::text,
};

/// Ranges of memory in use, by what has to be done to have them.
#[derive(Default)]
pub(super) struct Touched {
    written: Vec<(u64, u64)>,
    read: Vec<(u64, u64)>,
}

const PAGE: u64 = 4096;
/// Ranges that are this near to each other are one: a call costs more than a few pages.
const NEAR: u64 = 64 << 10;
/// Of a process this large, the rest is not looked at.
const PAGES_MAX: u64 = 1 << 20;
/// What a clone that waits may hold; one request that needed much is no reason for all to have it.
const BYTES_MAX: u64 = 32 << 20;

impl Touched {
    /// Of a clone that has answered a request. `except`: the region.
    pub fn read(pid: i32, except: (u64, u64)) -> io::Result<Self> {
        let maps = text(&format!("/proc/{pid}/maps")).map_err(|refusal| io::Error::other(refusal.to_string()))?;
        let pages = File::open(format!("/proc/{pid}/pagemap"))?;
        let mut touched = Self::default();
        let mut left = PAGES_MAX;
        for line in maps.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some((from, to)), Some(rights)) = (words.next().and_then(range), words.next()) else { continue };
            let rights = rights.as_bytes();
            let name = words.nth(3).unwrap_or_default();
            let is_ours = from < except.1 && to > except.0;
            if is_ours || name.starts_with("[v") || rights[0] != b'r' || rights[3] == b's' {
                continue;
            }
            let count = ((to - from) / PAGE).min(left);
            left -= count;
            let mut entries = vec![0u8; (count * 8) as usize];
            let length = pages.read_at(&mut entries, from / PAGE * 8)?;
            for (index, entry) in entries[..length].chunks_exact(8).enumerate() {
                let entry = u64::from_ne_bytes(entry.try_into().expect("8 bytes"));
                touched.page(from, from + index as u64 * PAGE, entry, rights[1] == b'w');
            }
        }
        Ok(touched)
    }

    /// One entry of pagemap (proc_pid_pagemap(5)).
    fn page(&mut self, area: u64, at: u64, entry: u64, writable: bool) {
        let bit = |number: u32| entry >> number & 1 == 1;
        let (is_present, is_of_a_file, is_own) = (bit(63), bit(61), bit(56));
        if !is_present {
            return;
        }
        if is_of_a_file {
            match self.read.last_mut() {
                Some((from, to)) if *from >= area && at - *to <= NEAR => *to = at + PAGE,
                _ => self.read.push((at, at + PAGE)),
            }
        } else if is_own && writable {
            match self.written.last_mut() {
                Some((from, to)) if *from >= area && at == *to => *to = at + PAGE,
                _ => self.written.push((at, at + PAGE)),
            }
        }
    }

    /// What the routine does to have it, at most `most` operations, the last of which goes on at `then`.
    pub fn operations(&self, most: usize, then: u64) -> Vec<Operation> {
        let mut left = BYTES_MAX;
        let mut fits = |range: &&(u64, u64)| {
            let bytes = range.1 - range.0;
            let fits = bytes <= left;
            left -= if fits { bytes } else { 0 };
            fits
        };
        let written: Vec<&(u64, u64)> = self.written.iter().filter(&mut fits).collect();
        let read: Vec<&(u64, u64)> = self.read.iter().filter(&mut fits).collect();
        let populate = |(from, to): &(u64, u64), how: i32| Operation {
            kind: routine::CALL,
            number: libc::SYS_madvise as u64,
            arguments: [*from, to - from, how as u64, 0, 0, 0],
            ..Operation::default()
        };
        let written = written.into_iter().map(|range| populate(range, libc::MADV_POPULATE_WRITE));
        let read = read.into_iter().map(|range| populate(range, libc::MADV_POPULATE_READ));
        let mut operations: Vec<Operation> = written.chain(read).take(most - 1).collect();
        operations.push(Operation { kind: routine::GOTO, arguments: [then, 0, 0, 0, 0, 0], ..Operation::default() });
        operations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_ranges_within_their_area() {
        const PRESENT: u64 = 1 << 63;
        const FILE: u64 = 1 << 61;
        const OWN: u64 = 1 << 56;
        let mut touched = Touched::default();
        for (area, at, entry, writable) in [
            (0x1000, 0x1000, PRESENT | OWN, true),
            (0x1000, 0x2000, PRESENT | OWN, true),
            (0x1000, 0x4000, PRESENT | OWN, true),
            (0x1000, 0x5000, PRESENT, true),
            (0x1000, 0x6000, 0, true),
            (0x7000, 0x7000, PRESENT | FILE, false),
            (0x7000, 0x9000, PRESENT | FILE, false),
            (0xa000, 0xa000, PRESENT | FILE, false),
        ] {
            touched.page(area, at, entry, writable);
        }
        assert_eq!(touched.written, [(0x1000, 0x3000), (0x4000, 0x5000)]);
        assert_eq!(touched.read, [(0x7000, 0xa000), (0xa000, 0xb000)]);
        assert_eq!(touched.operations(3, 0x10).len(), 3);
    }
}
