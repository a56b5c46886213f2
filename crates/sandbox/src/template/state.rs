//! What a frozen process has open and mapped, as far as a clone needs it made anew; everything that could not be is a [`Refusal`].
//!
//! The process is a stranger's: what is read here is bounded, and what is not known is refused. The table of every kind of state is
//! docs/internals/sandbox.md.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::{
    fs::{FileType, StatVfsMountFlags},
    net::{
        AddressFamily, SocketType, getpeername, getsockname,
        sockopt::{ipv6_v6only, socket_acceptconn, socket_domain, socket_keepalive, socket_protocol, socket_reuseport, socket_type, tcp_nodelay},
    },
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    frozen::{Frozen, numbers, range},
    refusal::{Read, Refusal, refuse},
};
use crate::mutation::{Layer, without};

const DESCRIPTORS_MAX: usize = 1024;
const TEXT_MAX_BYTES: u64 = 16 << 20;
/// In its pid namespace.
const INIT: i32 = 1;
const MEMORY_DEVICES: u32 = 1;

/// The pipes every template is started with: read and write end of the wake pipe, then of the said pipe.
pub(crate) const WAKE: (i32, i32) = (3, 4);
pub(crate) const SAID: (i32, i32) = (5, 6);

pub(super) struct State {
    /// In the order of their numbers.
    pub descriptors: Vec<Descriptor>,
    /// Anonymous memory that is shared, to be copied.
    pub shared: Vec<Shared>,
    /// Memory that says of itself that a fork has none of it.
    pub not_forked: Vec<(u64, u64)>,
    /// By which, value and interval as setitimer(2) takes them.
    pub timers: Vec<(u64, [u8; 32])>,
    /// The disposition of SIGCHLD and the like is copied by clone3; nothing else is left.
    pub said: Vec<String>,
}

pub(super) struct Shared {
    pub from: u64,
    pub bytes: u64,
    /// PROT_*.
    pub protection: u64,
}

pub(super) struct Descriptor {
    pub number: i32,
    /// O_*.
    pub flags: i32,
    pub kind: Kind,
}

pub(super) enum Kind {
    /// The same open file as that descriptor's.
    Twin(i32),
    /// Standard output or error.
    Output,
    /// Shared with the template and all clones: no state, or none that matters.
    Shared,
    /// Opened by its name.
    Folder {
        path: String,
        offset: u64,
    },
    /// Opened again, at this offset.
    File {
        offset: u64,
    },
    Events {
        count: u64,
        semaphore: bool,
    },
    Timer {
        clock: i32,
        flags: i32,
        value: [i64; 4],
    },
    Signals {
        mask: u64,
    },
    Poll(Vec<Polled>),
    /// The reading end of a pipe whose writing end is that descriptor, and what is in it.
    PipeReader {
        writer: i32,
        content: Vec<u8>,
    },
    /// Made with its reader.
    PipeWriter,
    Listener {
        domain: i32,
        kind: i32,
        address: Vec<u8>,
        reuse_port: bool,
        v6_only: bool,
        no_delay: bool,
        keep_alive: bool,
    },
    /// Not bound and not connected.
    Socket {
        domain: i32,
        kind: i32,
        protocol: i32,
    },
    /// A socket pair made with that descriptor, or with one that is closed.
    Pair {
        other: Option<i32>,
        kind: i32,
    },
    /// Made with its other end.
    PairOther,
}

pub(super) struct Polled {
    pub descriptor: i32,
    pub events: u32,
    pub data: u64,
}

impl State {
    pub fn read(frozen: &Frozen) -> Result<Self, Refusal> {
        let pid = frozen.pid;
        if !text(&format!("/proc/{pid}/timers"))?.trim().is_empty() {
            return refuse("it has a POSIX timer (timer_create)");
        }
        // Its own children are refused by now; an orphan of one, or one made with CLONE_PARENT, is a child of its init. Such a one would
        // go on running, and may even have the template's memory.
        let own = frozen.threads[0].inner;
        for other in numbers(&format!("/proc/{pid}/root/proc").into()).read("its /proc")? {
            if other != INIT && other != own {
                return refuse(format!("another process than its own runs in it (pid {other})"));
            }
        }
        for folder in ["tmp", "dev/shm"] {
            let path = format!("/proc/{pid}/root/{folder}");
            if let Some(entry) = fs::read_dir(&path).read("its /tmp")?.next() {
                let name = entry.read("its /tmp")?.file_name();
                return refuse(format!("it has made /{folder}/{}", name.to_string_lossy()));
            }
        }
        system_v(pid)?;
        let own = OwnFolders::of(pid)?;
        if own.is_in(&format!("/proc/{pid}/cwd"))? {
            return refuse("its working folder is in /tmp or /proc");
        }
        let (shared, not_forked) = memory(pid)?;
        let (descriptors, said) = Descriptors::open(pid, own)?.read()?;
        Ok(Self { descriptors, shared, not_forked, timers: Vec::new(), said })
    }
}

/// System V memory, semaphores and messages live in the IPC namespace, of which each clone has its own. Enters that of the process.
fn system_v(pid: i32) -> Result<(), Refusal> {
    if without(Layer::Ipc) {
        return Ok(());
    }
    let what = "the IPC namespace";
    let namespace = fs::File::open(format!("/proc/{pid}/ns/ipc")).read(what)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::InterProcessCommunication)).map_err(io::Error::from).read(what)?;
    for (kind, words) in [("shm", "memory"), ("sem", "semaphores"), ("msg", "message queues")] {
        match text(&format!("/proc/sysvipc/{kind}")) {
            // A line of names, then one for each.
            Ok(table) if table.lines().count() > 1 => return refuse(format!("it has System V {words}")),
            Ok(_) => {}
            // A kernel without any.
            Err(Refusal::Failed(failure)) if failure.errno == libc::ENOENT => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(())
}

pub(super) fn text(path: &str) -> Result<String, Refusal> {
    let mut content = String::new();
    let file = fs::File::open(path).read(path)?;
    let length = file.take(TEXT_MAX_BYTES).read_to_string(&mut content).read(path)?;
    if length as u64 == TEXT_MAX_BYTES { refuse(format!("{path} is too long")) } else { Ok(content) }
}

type Ranges = Vec<(u64, u64)>;

/// Shared anonymous memory, and memory that is not copied by a fork.
fn memory(pid: i32) -> Result<(Vec<Shared>, Ranges), Refusal> {
    let (mut shared, mut not_forked) = (Vec::new(), Vec::new());
    let text = text(&format!("/proc/{pid}/smaps"))?;
    let mut area: Option<(u64, u64, &[u8], &str)> = None;
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let Some((from, to, rights, name)) = area.take() else { return refuse("its memory map cannot be read") };
            let has = |flag: &str| flags.split_ascii_whitespace().any(|other| other == flag);
            if has("um") || has("uw") || has("ui") {
                return refuse("it handles its own page faults (userfaultfd)");
            }
            if has("dc") && !has("io") && !has("pf") {
                not_forked.push((from, to - from));
            }
            if rights.get(3) != Some(&b's') {
                continue;
            }
            match name {
                _ if name == "/dev/zero (deleted)" || name.starts_with("[anon_shmem:") => {
                    let all = [(b'r', libc::PROT_READ), (b'w', libc::PROT_WRITE), (b'x', libc::PROT_EXEC)];
                    let protection = all.iter().zip(rights).filter(|((letter, _), right)| letter == *right).map(|((_, flag), _)| *flag as u64).sum();
                    shared.push(Shared { from, bytes: to - from, protection });
                }
                _ if name.starts_with("/memfd:") || name.starts_with("/SYSV") || name.starts_with("anon_inode:") => {
                    return refuse(format!("it shares memory: {name}"));
                }
                // Also what it may make writable again: then clones would share it.
                _ if has("wr") || has("mw") => return refuse(format!("it has a file mapped that it can write to: {name}")),
                _ => {}
            }
        } else if let Some((first, rest)) = line.split_once(' ')
            && let Some((from, to)) = range(first)
        {
            let name = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim_start();
            area = Some((from, to, rest.as_bytes(), name));
        }
    }
    Ok((shared, not_forked))
}

/// The file systems of which each sandbox has its own: what is open there would be the template's, and its siblings'.
struct OwnFolders {
    own: Vec<u64>,
    /// Of the folder that the others are mounted on.
    root: u64,
}

impl OwnFolders {
    fn of(pid: i32) -> Result<Self, Refusal> {
        let folders = ["proc", "tmp", "dev/shm"].map(|folder| format!("/proc/{pid}/root/{folder}"));
        let device = |folder: &str| -> io::Result<u64> { Ok(rustix::fs::stat(folder)?.st_dev) };
        let own = folders.iter().map(|folder| device(folder)).collect::<io::Result<_>>().read("its folders")?;
        Ok(Self { own, root: device(&format!("/proc/{pid}/root/")).read("its root")? })
    }

    fn is_in(&self, path: &str) -> Result<bool, Refusal> {
        let stat = rustix::fs::stat(path).map_err(io::Error::from).read(path)?;
        Ok(self.own.contains(&stat.st_dev))
    }
}

/// The descriptors of a process while they are looked at.
struct Descriptors {
    pid: i32,
    own: OwnFolders,
    pidfd: OwnedFd,
    all: Vec<Seen>,
}

struct Seen {
    number: i32,
    link: String,
    info: String,
    flags: i32,
}

impl Seen {
    /// Of /proc/PID/fdinfo.
    fn field(&self, name: &str) -> Option<&str> {
        self.info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }

    fn decimal(&self, name: &str) -> u64 {
        self.field(name).and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    fn hexadecimal(&self, name: &str) -> u64 {
        self.field(name).and_then(|number| u64::from_str_radix(number, 16).ok()).unwrap_or(0)
    }

    fn access(&self) -> i32 {
        self.flags & libc::O_ACCMODE
    }
}

impl Descriptors {
    fn open(pid: i32, own: OwnFolders) -> Result<Self, Refusal> {
        let known = Pid::from_raw(pid).ok_or_else(|| Refusal::State("it has no pid".to_owned()))?;
        let pidfd = pidfd_open(known, PidfdFlags::empty()).map_err(io::Error::from).read("the process")?;
        let mut open = numbers(&format!("/proc/{pid}/fd").into()).read("the descriptors")?;
        open.sort_unstable();
        if open.len() > DESCRIPTORS_MAX {
            return refuse(format!("it has more than {DESCRIPTORS_MAX} descriptors"));
        }
        let mut all = Vec::new();
        for number in open {
            let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).read("a descriptor")?.to_string_lossy().into_owned();
            let info = text(&format!("/proc/{pid}/fdinfo/{number}"))?;
            if info.lines().any(|line| line.starts_with("lock:")) {
                return refuse(format!("it holds a lock on {link}"));
            }
            let mut seen = Seen { number, link, info, flags: 0 };
            seen.flags = seen.field("flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok()).unwrap_or(0);
            all.push(seen);
        }
        Ok(Self { pid, own, pidfd, all })
    }

    fn read(&self) -> Result<(Vec<Descriptor>, Vec<String>), Refusal> {
        let mut descriptors: Vec<Descriptor> = Vec::new();
        let mut said = Vec::new();
        let mut first_of: HashMap<&str, Vec<i32>> = HashMap::new();
        for seen in &self.all {
            let same = first_of.entry(&seen.link).or_default();
            let twin = same.iter().copied().find(|first| self.is_same_file(*first, seen.number));
            let kind = match twin {
                Some(first) => Kind::Twin(first),
                None => {
                    same.push(seen.number);
                    self.kind(seen, &mut said)?
                }
            };
            descriptors.push(Descriptor { number: seen.number, flags: seen.flags, kind });
        }
        Ok((descriptors, said))
    }

    /// Whether two descriptors are one open file, with one offset and one set of flags.
    fn is_same_file(&self, one: i32, other: i32) -> bool {
        const KCMP_FILE: i32 = 0;
        // SAFETY: kcmp(2) with KCMP_FILE takes numbers only.
        unsafe { libc::syscall(libc::SYS_kcmp, self.pid, self.pid, KCMP_FILE, i64::from(one), i64::from(other)) == 0 }
    }

    /// Whether what an epoll has under a number (the nth such) is what is open there.
    fn is_polled(&self, epoll: i32, number: i32, nth: usize) -> bool {
        const KCMP_EPOLL_TFD: i32 = 7;
        // struct kcmp_epoll_slot: epoll, number, which of them.
        let slot = [epoll as u32, number as u32, nth as u32];
        // SAFETY: kcmp(2) with KCMP_EPOLL_TFD reads the 12 bytes of `slot`, which lives across the call.
        unsafe { libc::syscall(libc::SYS_kcmp, self.pid, self.pid, KCMP_EPOLL_TFD, i64::from(number), slot.as_ptr()) == 0 }
    }

    fn kind(&self, seen: &Seen, said: &mut Vec<String>) -> Result<Kind, Refusal> {
        let link = seen.link.as_str();
        if seen.number == 1 || seen.number == 2 {
            return if link.starts_with("pipe:") { Ok(Kind::Output) } else { refuse(format!("descriptor {} is {link}", seen.number)) };
        }
        Ok(match link {
            "anon_inode:[eventpoll]" => Kind::Poll(self.polled(seen)?),
            _ if link.starts_with("anon_inode:[eventfd") => {
                Kind::Events { count: seen.hexadecimal("eventfd-count:"), semaphore: seen.decimal("eventfd-semaphore:") == 1 }
            }
            "anon_inode:[timerfd]" => timer(seen)?,
            "anon_inode:[signalfd]" => Kind::Signals { mask: seen.hexadecimal("sigmask:") },
            _ if link.starts_with("pipe:") => self.pipe(seen, said)?,
            _ if link.starts_with("socket:") => self.socket(seen)?,
            _ if link.starts_with("/memfd:") => return refuse(format!("it has memory of its own open as a file: {link}")),
            _ if link.starts_with('/') => self.file(seen)?,
            other => return refuse(format!("it has {other} open")),
        })
    }

    fn polled(&self, seen: &Seen) -> Result<Vec<Polled>, Refusal> {
        let mut all: Vec<Polled> = Vec::new();
        for line in seen.info.lines().filter(|line| line.starts_with("tfd:")) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let after = |name: &str| {
                let at = words.iter().position(|word| word.starts_with(name))?;
                // `ino:1f` and `events:       19` are both to be found.
                words[at].strip_prefix(name).filter(|rest| !rest.is_empty()).or_else(|| words.get(at + 1).copied())
            };
            let hexadecimal = |name: &str| after(name).and_then(|number| u64::from_str_radix(number, 16).ok());
            let (Some(descriptor), Some(events), Some(data)) =
                (after("tfd:").and_then(|number| number.parse::<i32>().ok()), hexadecimal("events:"), hexadecimal("data:"))
            else {
                return refuse("an epoll of it cannot be read");
            };
            // What was polled may be closed by now, and its number another file's.
            let before = all.iter().filter(|other| other.descriptor == descriptor).count();
            if !self.is_polled(seen.number, descriptor, before) {
                return refuse("it polls something that it has closed");
            }
            all.push(Polled { descriptor, events: events as u32, data });
        }
        Ok(all)
    }

    fn stat(&self, number: i32) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::stat(format!("/proc/{}/fd/{number}", self.pid))?)
    }

    /// The same open file, in this process.
    fn taken(&self, number: i32) -> Result<OwnedFd, Refusal> {
        taken(&self.pidfd, number).read("a descriptor (pidfd_getfd)")
    }

    fn pipe(&self, seen: &Seen, said: &mut Vec<String>) -> Result<Kind, Refusal> {
        if seen.access() == libc::O_RDWR {
            return refuse("it has a pipe with a name open");
        }
        let other = self.all.iter().find(|other| other.link == seen.link && other.access() != seen.access());
        let Some(other) = other.filter(|other| other.number > 2) else {
            return refuse(format!("descriptor {} is one end of a pipe whose other end is not its own", seen.number));
        };
        // Two open files at one end would be two readers of it.
        let ends = self.all.iter().filter(|end| end.link == seen.link && end.access() == seen.access());
        if ends.into_iter().any(|end| !self.is_same_file(end.number, seen.number)) {
            return refuse("a pipe of it is opened twice");
        }
        if seen.access() == libc::O_WRONLY {
            return Ok(Kind::PipeWriter);
        }
        let content = pipe_content(&self.taken(seen.number)?).read("what is in a pipe")?;
        let Some(mut content) = content else { return refuse(format!("descriptor {} is a pipe with much in it", seen.number)) };
        if seen.number == SAID.0 {
            said.extend(String::from_utf8_lossy(&content).lines().map(str::to_owned));
            content.clear();
        }
        Ok(Kind::PipeReader { writer: other.number, content })
    }

    fn file(&self, seen: &Seen) -> Result<Kind, Refusal> {
        let stat = self.stat(seen.number).read("an open file")?;
        if self.own.own.contains(&stat.st_dev) {
            return refuse(format!("it has {} open", seen.link));
        }
        if is_message_queue(self.pid, seen.number).read("an open file")? {
            return refuse(format!("it has a message queue open: {}", seen.link));
        }
        let path = format!("/proc/{}/fd/{}", self.pid, seen.number);
        let is_read_only = || rustix::fs::statvfs(&path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if self.own.root == stat.st_dev => refuse(format!("it has the folder {} open", seen.link)),
            // From a folder the ones above, and with them the template's own, can be walked to: a clone opens it by its name, in its own mounts.
            FileType::Directory if is_read_only() => Ok(Kind::Folder { path: seen.link.clone(), offset: seen.decimal("pos:") }),
            FileType::RegularFile if seen.flags & libc::O_PATH != 0 && is_read_only() => Ok(Kind::File { offset: 0 }),
            _ if seen.flags & libc::O_PATH != 0 => refuse(format!("it has {} open as a path", seen.link)),
            FileType::CharacterDevice if rustix::fs::major(stat.st_rdev) == MEMORY_DEVICES => Ok(Kind::Shared),
            FileType::RegularFile if seen.access() == libc::O_RDONLY && is_read_only() => Ok(Kind::File { offset: seen.decimal("pos:") }),
            FileType::RegularFile => refuse(format!("it has {} open for writing", seen.link)),
            _ => refuse(format!("it has {} open", seen.link)),
        }
    }

    fn socket(&self, seen: &Seen) -> Result<Kind, Refusal> {
        let socket = self.taken(seen.number)?;
        let what = "a socket";
        let domain = socket_domain(&socket).map_err(io::Error::from).read(what)?;
        let kind = socket_type(&socket).map_err(io::Error::from).read(what)?;
        let listens = socket_acceptconn(&socket).map_err(io::Error::from).read(what)?;
        let raw = (i32::from(domain.as_raw()), kind.as_raw() as i32);
        if listens {
            let is_internet = domain == AddressFamily::INET || domain == AddressFamily::INET6;
            if !is_internet || kind != SocketType::STREAM {
                return refuse("it listens on a unix socket");
            }
            return Ok(Kind::Listener {
                domain: raw.0,
                kind: raw.1,
                address: own_address(&socket).read(what)?,
                reuse_port: socket_reuseport(&socket).unwrap_or(false),
                // What accepted connections inherit.
                no_delay: tcp_nodelay(&socket).unwrap_or(false),
                keep_alive: socket_keepalive(&socket).unwrap_or(false),
                v6_only: domain == AddressFamily::INET6 && ipv6_v6only(&socket).unwrap_or(false),
            });
        }
        if domain == AddressFamily::UNIX {
            return self.pair(seen, &socket, raw.1);
        }
        if getpeername(&socket).is_ok_and(|peer| peer.is_some()) {
            return refuse(format!("it has a connection open (descriptor {})", seen.number));
        }
        let bound = getsockname(&socket).map_err(io::Error::from).read(what)?;
        let port = std::net::SocketAddr::try_from(bound).map_or(0, |address| address.port());
        if port != 0 {
            return refuse(format!("it has a socket bound to port {port}"));
        }
        let protocol = socket_protocol(&socket).map_err(io::Error::from).read(what)?;
        Ok(Kind::Socket { domain: raw.0, kind: raw.1, protocol: protocol.map_or(0, |protocol| protocol.as_raw().get() as i32) })
    }

    /// A unix socket that is half of a pair inside the process. Which is whose the kernel says by the other's inode.
    fn pair(&self, seen: &Seen, socket: &OwnedFd, kind: i32) -> Result<Kind, Refusal> {
        let inode = |seen: &Seen| seen.link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).and_then(|inode| inode.parse::<u32>().ok());
        let Some(own) = inode(seen) else { return refuse("a socket of it cannot be named") };
        if getsockname(socket).is_ok_and(|name| unix_has_name(&name)) {
            return refuse("it has a unix socket with a name");
        }
        if readable_bytes(socket).read("a socket")? > 0 {
            return refuse("something waits in a socket pair of it");
        }
        // A closed half still counts as connected.
        if getpeername(socket).is_err() {
            return Ok(Kind::Socket { domain: libc::AF_UNIX, kind, protocol: 0 });
        }
        let peer = super::diagnosis::unix_peer(self.pid, own).read("the peer of a socket")?;
        if peer.inode.is_some() && peer.shut != 0 {
            return refuse("a socket pair of it is shut down one way");
        }
        match peer.inode {
            None => Ok(Kind::Pair { other: None, kind }),
            Some(peer) => match self.all.iter().find(|other| inode(other) == Some(peer) && other.link.starts_with("socket:")) {
                Some(other) if other.number > seen.number => Ok(Kind::Pair { other: Some(other.number), kind }),
                Some(_) => Ok(Kind::PairOther),
                None => refuse(format!("it has a connection open (descriptor {})", seen.number)),
            },
        }
    }
}

/// One of the IPC namespace: looks like a file, and each clone would have the template's.
fn is_message_queue(pid: i32, number: i32) -> io::Result<bool> {
    const MQUEUE_MAGIC: u64 = 0x1980_0202;
    Ok(rustix::fs::statfs(format!("/proc/{pid}/fd/{number}"))?.f_type as u64 == MQUEUE_MAGIC)
}

/// Takes a descriptor of another process.
pub(super) fn taken(pidfd: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    Ok(pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())?)
}

fn unix_has_name(name: &rustix::net::SocketAddrAny) -> bool {
    name.addr_len() as usize > size_of::<libc::sa_family_t>()
}

fn readable_bytes(descriptor: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(descriptor)?)
}

/// The lines that a launcher has written so far, at the reader of its said pipe.
pub(crate) fn said_so_far(reader: &OwnedFd) -> io::Result<Vec<String>> {
    let content = pipe_content(reader)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&content).lines().map(str::to_owned).collect())
}

/// What waits in a pipe, without taking it. `None`: more than is copied.
fn pipe_content(reader: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    const CONTENT_MAX: usize = 64 << 10;
    let waiting = readable_bytes(reader)? as usize;
    if waiting == 0 {
        return Ok(Some(Vec::new()));
    }
    let (copy, into) = crate::descriptor::pipe()?;
    let copied = rustix::pipe::tee(reader, &into, CONTENT_MAX, rustix::pipe::SpliceFlags::NONBLOCK)?;
    drop(into);
    let mut content = vec![0; copied];
    fs::File::from(copy).read_exact(&mut content)?;
    Ok((copied == waiting).then_some(content))
}

/// As bind(2) takes it.
fn own_address(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: getsockname(2) writes at most `length` bytes to `storage`, both of which live across the call.
    if unsafe { libc::getsockname(socket.as_raw_fd(), storage.as_mut_ptr().cast(), &raw mut length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed from the start, so every byte of it is initialised; `length` is at most its size.
    let bytes = unsafe { std::slice::from_raw_parts(storage.as_ptr().cast::<u8>(), (length as usize).min(size_of::<libc::sockaddr_storage>())) };
    Ok(bytes.to_vec())
}

fn timer(seen: &Seen) -> Result<Kind, Refusal> {
    // `it_value: (1, 999)`.
    let pair = |name: &str| {
        let text = seen.field(name)?.trim_start_matches('(').trim_end_matches(')');
        let (seconds, nanoseconds) = text.split_once(',')?;
        Some([seconds.trim().parse::<i64>().ok()?, nanoseconds.trim().parse::<i64>().ok()?])
    };
    let (Some([value_s, value_ns]), Some([interval_s, interval_ns])) = (pair("it_value:"), pair("it_interval:")) else {
        return refuse("a timer of it cannot be read");
    };
    if seen.decimal("ticks:") != 0 {
        return refuse("a timer of it has run out and was not read");
    }
    Ok(Kind::Timer { clock: seen.decimal("clockid:") as i32, flags: 0, value: [interval_s, interval_ns, value_s, value_ns] })
}
