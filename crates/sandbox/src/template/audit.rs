//! Whether an armed clone is what its template is: the same threads, memory map and descriptors, nothing shared that must not be, no privilege.
//!
//! The script makes a clone so; this looks at the result with other eyes, by what the kernel says of both processes in `/proc`. It costs about as
//! much as making the clone, so it is done for each clone in a debug build and for one of [`EVERY`] in a release.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use super::{
    clone::memory_number,
    frozen::Frozen,
    refusal::{Refusal, refuse},
    script::Script,
    state::{self, State},
};
use crate::{
    error::Step,
    mutation::{Layer, without},
};

/// The first clone of a template is looked at, and then each of as many.
pub(super) const EVERY: u64 = if cfg!(debug_assertions) { 1 } else { 64 };

/// Compares the armed clone `pid` with the template.
///
/// # Errors
/// The first difference, in words.
pub(super) fn check(frozen: &Frozen, state: &State, script: &Script, region: (u64, u64), pid: i32) -> Result<(), Refusal> {
    threads(frozen, pid)?;
    memory(frozen.pid, state, region, pid)?;
    // The reading ends of its output are closed when it goes on.
    let [stdout, stderr] = script.outputs;
    descriptors(frozen.pid, state, pid, &[memory_number(pid, stdout)?, memory_number(pid, stderr)?])
}

fn threads(frozen: &Frozen, pid: i32) -> Result<(), Refusal> {
    // The template's main thread is its init's first child, the clone's the first process of its own namespace.
    let wanted: BTreeMap<i32, &[u8]> =
        frozen.threads.iter().map(|thread| (if thread.tid == frozen.pid { 1 } else { thread.inner }, thread.name.as_slice())).collect();
    let mut found = BTreeMap::new();
    for tid in names(&format!("/proc/{pid}/task"))? {
        let status = fs::read(format!("/proc/{pid}/task/{tid}/status")).step(|| "read a clone's thread")?;
        let status = String::from_utf8_lossy(&status);
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
        let inner: i32 = field("NSpid:").split_ascii_whitespace().next_back().and_then(|number| number.parse().ok()).unwrap_or(0);
        let capabilities = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
        if !without(Layer::Capabilities) && capabilities.iter().any(|set| field(set).chars().any(|digit| digit != '0')) {
            return refuse(format!("the clone's thread {inner} has a capability"));
        }
        if field("NoNewPrivs:") != "1" || field("Seccomp:") != "2" && !without(Layer::Seccomp) {
            return refuse(format!("the clone's thread {inner} is not behind the system call filter"));
        }
        let mut name = fs::read(format!("/proc/{pid}/task/{tid}/comm")).step(|| "read a clone's thread")?;
        name.pop();
        found.insert(inner, name);
    }
    if !found.iter().map(|(inner, name)| (*inner, name.as_slice())).eq(wanted.iter().map(|(inner, name)| (*inner, *name))) {
        let ids = |map: &mut dyn Iterator<Item = &i32>| map.map(i32::to_string).collect::<Vec<_>>().join(" ");
        return refuse(format!("the clone has the threads {} and not {}, or others' names", ids(&mut found.keys()), ids(&mut wanted.keys())));
    }
    Ok(())
}

/// What is mapped at an address: rights, offset, device, inode.
#[derive(PartialEq, Eq)]
struct Area<'a> {
    from: u64,
    to: u64,
    backing: (&'a str, u64, &'a str, &'a str),
}

fn memory(template: i32, state: &State, region: (u64, u64), pid: i32) -> Result<(), Refusal> {
    let (wanted, found) = (state::text(&format!("/proc/{template}/maps"))?, state::text(&format!("/proc/{pid}/maps"))?);
    let shared: BTreeSet<u64> = state.shared.iter().map(|shared| shared.from).collect();
    let (wanted, found) = (areas(&wanted, region, &shared), areas(&found, region, &shared));
    match wanted.iter().zip(&found).find(|(wanted, found)| wanted != found) {
        Some((wanted, found)) => refuse(format!(
            "the clone's memory differs: {:x}-{:x} {} and not {:x}-{:x} {}",
            found.from, found.to, found.backing.0, wanted.from, wanted.to, wanted.backing.0
        )),
        None if wanted.len() != found.len() => refuse(format!("the clone has {} areas of memory and not {}", found.len(), wanted.len())),
        None => Ok(()),
    }
}

/// Neighbours of one kind are one area, as the kernel may have it either way. Shared memory is a copy: another inode.
fn areas<'a>(text: &'a str, region: (u64, u64), shared: &BTreeSet<u64>) -> Vec<Area<'a>> {
    let mut areas: Vec<Area<'a>> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(offset), Some(device), Some(inode)) = (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some((from, to)) = super::frozen::range(range) else { continue };
        if from >= region.0 && to <= region.1 {
            continue;
        }
        let is_anonymous = inode == "0";
        let (offset, inode) = match (is_anonymous, shared.contains(&from)) {
            (true, _) => (0, "0"),
            (false, true) => (0, "shared"),
            (false, false) => (u64::from_str_radix(offset, 16).unwrap_or(0), inode),
        };
        let device = if inode == "shared" { "" } else { device };
        match areas.last_mut() {
            Some(last) if is_anonymous && last.to == from && last.backing == (rights, 0, device, inode) => last.to = to,
            _ => areas.push(Area { from, to, backing: (rights, offset, device, inode) }),
        }
    }
    areas
}

fn descriptors(template: i32, state: &State, pid: i32, passing: &[i32]) -> Result<(), Refusal> {
    let (wanted, mut found) = (links(template)?, links(pid)?);
    found.retain(|number, _| !passing.contains(number));
    if !wanted.keys().eq(found.keys()) {
        let list = |map: &BTreeMap<i32, String>| map.keys().map(i32::to_string).collect::<Vec<_>>().join(" ");
        return refuse(format!("the clone has the descriptors {} and not {}", list(&found), list(&wanted)));
    }
    for (number, link) in &found {
        let (kind, other) = (kind_of(link), &wanted[number]);
        let is_own = matches!(kind, "pipe:" | "socket:");
        // Standard output and error are pipes of the clone's own, whatever the template's are.
        if *number > 2 && kind_of(other) != kind || is_own && link == other {
            return refuse(format!("the clone's descriptor {number} is {link} where the template has {other}"));
        }
    }
    // One that is another's twin is so in the clone.
    for twin in state.descriptors.iter().filter_map(|descriptor| match descriptor.kind {
        state::Kind::Twin(of) => Some((descriptor.number, of)),
        _ => None,
    }) {
        if found.get(&twin.0) != found.get(&twin.1) {
            return refuse(format!("the clone's descriptors {} and {} are not the same", twin.0, twin.1));
        }
    }
    Ok(())
}

/// The part that is the same in both: all of it but a number that each has of its own.
fn kind_of(link: &str) -> &str {
    ["pipe:", "socket:"].into_iter().find(|kind| link.starts_with(kind)).unwrap_or(link)
}

fn links(pid: i32) -> Result<BTreeMap<i32, String>, Refusal> {
    let folder = format!("/proc/{pid}/fd");
    let link = |number| Ok((number, fs::read_link(format!("{folder}/{number}")).map(|link| link.to_string_lossy().into_owned())?));
    Ok(names(&folder)?.into_iter().map(link).collect::<io::Result<_>>().step(|| "read a clone's descriptors")?)
}

fn names(folder: &str) -> Result<Vec<i32>, Refusal> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>());
    Ok(entries.step(|| format!("read {folder}"))?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_differs_is_seen() {
        let same = |one: &str, other: &str| {
            let shared = BTreeSet::from([0x9000]);
            areas(one, (0x7000, 0x8000), &shared) == areas(other, (0x7000, 0x8000), &shared)
        };
        let map = "1000-2000 r-xp 00001000 fe:00 12 /bin/x\n3000-4000 rw-p 00000000 00:00 0 [heap]\n";
        assert!(same(map, map));
        // Cut in two, moved in name, the engine's own region, a copy of shared memory.
        assert!(same(map, "1000-2000 r-xp 00001000 fe:00 12 /bin/y\n3000-3800 rw-p 00000000 00:00 0\n3800-4000 rw-p 00000000 00:00 0\n"));
        assert!(same(map, &format!("{map}7000-8000 rw-p 00000000 00:00 0\n")));
        assert!(same("9000-a000 rw-s 00000000 00:01 7 /dev/zero (deleted)", "9000-a000 rw-s 00000000 00:01 8 /dev/zero (deleted)"));
        for other in [
            "1000-2000 rwxp 00001000 fe:00 12 /bin/x\n3000-4000 rw-p 00000000 00:00 0\n",
            "1000-2000 r-xp 00002000 fe:00 12 /bin/x\n3000-4000 rw-p 00000000 00:00 0\n",
            "1000-2000 r-xp 00001000 fe:00 13 /bin/x\n3000-4000 rw-p 00000000 00:00 0\n",
            "1000-2000 r-xp 00001000 fe:00 12 /bin/x\n3000-4000 rw-p 00000000 00:00 0\n5000-6000 rw-p 00000000 00:00 0\n",
            "1000-2000 r-xp 00001000 fe:00 12 /bin/x\n",
        ] {
            assert!(!same(map, other), "{other}");
        }
    }

    #[test]
    fn links_are_of_a_kind() {
        let check = |link: &str, expect: &str| assert_eq!(kind_of(link), expect);
        check("pipe:[123]", "pipe:");
        check("socket:[123]", "socket:");
        check("anon_inode:[eventpoll]", "anon_inode:[eventpoll]");
        check("/dev/null", "/dev/null");
    }
}
