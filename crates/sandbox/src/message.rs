//! What daemon and keeper say to each other, and how it lies on the socket.
//!
//! One call is one message of the daemon on the shared socket: a JSON [`Request`] and, as first descriptor, a socket of this
//! call's own that the one [`Reply`] comes back on. So calls need no numbers, never wait for each other, and a caller learns of
//! the keeper's end by its own socket closing. What is long or not text (the files of a spec) lies in a memfd beside it.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};

use crate::{
    descriptor::{self, Received},
    error::{Error, Failure},
    spec::{Limits, Network, Spec, Usage},
};

/// What the daemon asks for; each is one method of [`crate::Keeper`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The contents of `spec.files` are empty here and lie in the memfd, one after the other, with these sizes.
    Start {
        spec: Box<Spec>,
        file_sizes: Vec<usize>,
        /// Instead of the command: look at the walls from inside and write what was seen to stdout.
        look: bool,
    },
    Connect {
        id: String,
        port: u16,
    },
    Signal {
        id: String,
        signal: i32,
    },
    Freeze {
        id: String,
        frozen: bool,
    },
    CpuLimit {
        id: String,
        cpu_millis: u32,
    },
    Usage {
        id: String,
    },
    Unaccepted {
        id: String,
        port: u16,
    },
    End {
        id: String,
    },
    /// What its launcher has said.
    Said {
        id: String,
    },
    Template {
        id: String,
    },
    Clone {
        template: String,
        id: String,
        limits: Limits,
        network: Network,
        ahead: bool,
    },
    /// A clone has answered a request.
    Learn {
        id: String,
    },
    Discard {
        path: PathBuf,
    },
}

/// What the keeper answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// With the descriptors of [`crate::Sandbox`] in the order of its fields.
    Started(Ends),
    /// With the connected socket.
    Connected,
    Usage(Usage),
    Unaccepted(u32),
    Said(Vec<String>),
    Failed(Failure),
    Refused(String),
    NoSandbox(String),
}

/// Which of the optional descriptors come, and which limits the host's cgroups gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ends {
    pub outbound: bool,
    pub dns_udp: bool,
    pub dns_tcp: bool,
    pub metadata: bool,
    pub release: bool,
    pub changing: usize,
    pub host: HostWalls,
}

/// What only the keeper knows of the walls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HostWalls {
    pub root: bool,
    pub cgroup_version: u8,
    pub memory_limit: bool,
    pub cpu_limit: bool,
    pub pids_limit: bool,
    pub freezer: bool,
    pub own_uid: bool,
    pub missing: Vec<String>,
}

impl Reply {
    pub fn failed(step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Failed(Failure::new(step, error))
    }

    /// The error that this reply is, if it is one.
    pub fn into_result(self) -> Result<Self, Error> {
        match self {
            Self::Failed(failure) => Err(failure.into()),
            Self::Refused(why) => Err(Error::Refused(why)),
            Self::NoSandbox(id) => Err(Error::NoSandbox(id)),
            good => Ok(good),
        }
    }
}

/// The text of one message on a socket.
const INLINE_MAX: usize = 48 << 10;
/// All of a request that does not fit there.
const LONG_MAX: usize = 64 << 20;

/// How a request lies on the socket.
#[derive(Serialize, Deserialize)]
enum Envelope {
    Here(Request),
    /// In the second descriptor: `text` bytes of JSON, then the files.
    Beside {
        text: usize,
        files: usize,
    },
}

/// Sends a request; `files` are the contents taken out of its spec.
pub(crate) fn request_send(socket: impl AsFd, reply: BorrowedFd<'_>, request: Request, files: &[Vec<u8>]) -> Result<(), Error> {
    let files_size: usize = files.iter().map(Vec::len).sum();
    let text = serde_json::to_vec(&request).map_err(|error| Error::Refused(format!("not expressible: {error}")))?;
    if text.len() + files_size > LONG_MAX {
        return Err(Error::Refused(format!("files: more than {LONG_MAX} bytes in all")));
    }
    let mut passed = vec![reply];
    let beside;
    let envelope = if files_size == 0 && text.len() < INLINE_MAX {
        Envelope::Here(request)
    } else {
        let parts = std::iter::once(text.as_slice()).chain(files.iter().map(Vec::as_slice));
        beside = memfd(parts).map_err(|error| Error::step("write the request to a memfd", error))?;
        passed.push(beside.as_fd());
        Envelope::Beside { text: text.len(), files: files_size }
    };
    let bytes = serde_json::to_vec(&envelope).expect("it was expressible a moment ago");
    match descriptor::send(socket, &bytes, &passed, true) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Err(Error::Gone),
        Err(error) => Err(Error::step("send to the keeper", error)),
    }
}

fn memfd<'a>(parts: impl Iterator<Item = &'a [u8]>) -> io::Result<OwnedFd> {
    let file = memfd_create("request", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    for part in parts {
        io::Write::write_all(&mut file, part)?;
    }
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// A request as the keeper has it: with the files' contents back in the spec.
pub(crate) struct Incoming {
    pub request: Request,
    pub reply: OwnedFd,
}

/// Reads a received message. `Err`: it is not one of ours, and nobody can be answered.
pub(crate) fn request_read(received: Received) -> Result<Incoming, String> {
    let mut descriptors = received.descriptors.into_iter();
    let reply = descriptors.next().ok_or("no reply socket")?;
    let envelope: Envelope = serde_json::from_slice(&received.bytes).map_err(|error| error.to_string())?;
    let (mut request, files) = match envelope {
        Envelope::Here(request) => (request, Vec::new()),
        Envelope::Beside { text, files } => {
            let beside = descriptors.next().ok_or("no memfd")?;
            // Sealed against shrinking, a read cannot stop half way; anything but a memfd refuses the seal.
            fcntl_add_seals(&beside, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE).map_err(|error| format!("not a memfd: {error}"))?;
            if text.saturating_add(files) > LONG_MAX {
                return Err("too long".to_owned());
            }
            let mut content = vec![0; text + files];
            std::fs::File::from(beside).read_exact(&mut content).map_err(|error| error.to_string())?;
            let files = content.split_off(text);
            (serde_json::from_slice(&content).map_err(|error| error.to_string())?, files)
        }
    };
    if let Request::Start { spec, file_sizes, .. } = &mut request {
        files_restore(spec, file_sizes, files).ok_or("files: sizes do not fit")?;
    }
    Ok(Incoming { request, reply })
}

fn files_restore(spec: &mut Spec, sizes: &[usize], content: Vec<u8>) -> Option<()> {
    let mut rest = content.as_slice();
    if sizes.len() != spec.files.len() {
        return None;
    }
    for ((_, file), size) in spec.files.iter_mut().zip(sizes) {
        let (head, tail) = rest.split_at_checked(*size)?;
        *file = head.to_vec();
        rest = tail;
    }
    rest.is_empty().then_some(())
}

/// Answers a call. False: the caller is gone.
pub(crate) fn reply_send(socket: impl AsFd, reply: &Reply, descriptors: &[BorrowedFd<'_>]) -> bool {
    let bytes = serde_json::to_vec(reply).expect("a reply holds only text and numbers");
    descriptor::send(socket, &bytes, descriptors, false).is_ok()
}

/// Answers a call without descriptors; a caller that is gone does not want to know.
pub(crate) fn answer(socket: impl AsFd, reply: &Reply) {
    reply_send(socket, reply, &[]);
}

/// Waits for the answer to a call.
pub(crate) fn reply_receive(socket: impl AsFd) -> Result<(Reply, Vec<OwnedFd>), Error> {
    let received = match descriptor::receive(socket, INLINE_MAX, true) {
        Ok(Some(received)) => received,
        Ok(None) => return Err(Error::Gone),
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => return Err(Error::Gone),
        Err(error) => return Err(Error::step("receive from the keeper", error)),
    };
    let reply = serde_json::from_slice(&received.bytes).map_err(|error| Error::step("read the keeper's reply", error))?;
    Ok((Reply::into_result(reply)?, received.descriptors))
}

/// The longest message that may arrive on the keeper's socket.
pub(crate) const REQUEST_MAX: usize = INLINE_MAX + 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn travelled(request: Request, files: &[Vec<u8>]) -> Result<Request, String> {
        let (daemon, keeper) = descriptor::message_pair().unwrap();
        let (reply, _) = descriptor::message_pair().unwrap();
        request_send(&daemon, reply.as_fd(), request, files).unwrap();
        let received = descriptor::receive(&keeper, REQUEST_MAX, true).unwrap().unwrap();
        request_read(received).map(|incoming| incoming.request)
    }

    fn spec(paths: &[&str]) -> Box<Spec> {
        Box::new(Spec {
            id: "a".to_owned(),
            mounts: Vec::new(),
            files: paths.iter().map(|path| (PathBuf::from(path), Vec::new())).collect(),
            command: vec!["/bin/true".to_owned()],
            env: Vec::new(),
            working_dir: "/".into(),
            limits: crate::Limits { memory_bytes: 0, cpu_millis: 0, pids: 0, files_open: 0, tmp_bytes: 0 },
            network: crate::Network { redirected: false, metadata: false },
            volumes: Vec::new(),
            changing: Vec::new(),
            template: false,
        })
    }

    #[test]
    fn files_travel_beside_the_text_and_come_back_whole() {
        let files = [vec![0xff; 300_000], Vec::new(), b"nameserver 169.254.169.254\n".to_vec()];
        let start = Request::Start { spec: spec(&["/a", "/b", "/c"]), file_sizes: files.iter().map(Vec::len).collect(), look: false };
        let Request::Start { spec, .. } = travelled(start, &files).unwrap() else { panic!() };
        let contents: Vec<_> = spec.files.into_iter().map(|(_, content)| content).collect();
        assert_eq!(contents, files);
    }

    #[test]
    fn a_long_text_without_files_travels_too() {
        let mut spec = spec(&[]);
        spec.env = (0..5000).map(|n| (format!("NAME_{n}"), "x".repeat(20))).collect();
        let Request::Start { spec: back, .. } = travelled(Request::Start { spec: spec.clone(), file_sizes: Vec::new(), look: false }, &[]).unwrap() else {
            panic!()
        };
        assert_eq!(back.env, spec.env);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        #[track_caller]
        fn check(sizes: &[usize], files: &[Vec<u8>]) {
            let start = Request::Start { spec: spec(&["/a"]), file_sizes: sizes.to_vec(), look: false };
            assert!(travelled(start, files).is_err());
        }
        check(&[5], &[b"four".to_vec()]);
        check(&[3], &[b"four".to_vec()]);
        check(&[], &[b"four".to_vec()]);
        check(&[2, 2], &[b"four".to_vec()]);
        check(&[usize::MAX], &[b"four".to_vec()]);
    }
}
