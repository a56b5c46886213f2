//! Which unix sockets are pairs: the kernel's socket diagnosis (sock_diag(7)), asked inside the process's network namespace.

use std::{fs::File, io, os::fd::AsFd};

use rustix::{
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// What a unix socket is connected to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Peer {
    /// `None` when that is closed.
    pub inode: Option<u32>,
    /// Which ways are shut down, from the socket's own side: 1 to it, 2 from it.
    pub shut: u8,
}

/// The peer of the socket with that inode.
pub(super) fn unix_peer(pid: i32, inode: u32) -> io::Result<Peer> {
    let (own, theirs) = (File::open("/proc/thread-self/ns/net")?, File::open(format!("/proc/{pid}/ns/net"))?);
    move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Network))?;
    let answer = asked(inode);
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))?;
    peer_read(&answer?)
}

fn asked(inode: u32) -> io::Result<Vec<u8>> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const UDIAG_SHOW_PEER: u32 = 4;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let mut message = Vec::new();
    // struct nlmsghdr, struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie (any).
    message.extend(40u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for number in [u32::MAX, inode, UDIAG_SHOW_PEER, u32::MAX, u32::MAX] {
        message.extend(number.to_ne_bytes());
    }
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = vec![0; 4096];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::DONTWAIT)?;
    answer.truncate(length);
    Ok(answer)
}

fn peer_read(answer: &[u8]) -> io::Result<Peer> {
    const NLMSG_ERROR: u16 = 2;
    const UNIX_DIAG_PEER: u16 = 2;
    const UNIX_DIAG_SHUTDOWN: u16 = 6;
    let mut read = Peer::default();
    let word = |at: usize| answer.get(at..at + 4).map(|bytes| u32::from_ne_bytes(bytes.try_into().expect("4 bytes")));
    let half = |at: usize| answer.get(at..at + 2).map(|bytes| u16::from_ne_bytes(bytes.try_into().expect("2 bytes")));
    let length = word(0).unwrap_or(0) as usize;
    if half(4) == Some(NLMSG_ERROR) {
        return Err(io::Error::from_raw_os_error(-(word(16).unwrap_or(0) as i32)));
    }
    // struct unix_diag_msg has 16 bytes; attributes follow.
    let mut at = 32;
    while at + 4 <= length.min(answer.len()) {
        let (size, kind) = (half(at).unwrap_or(0) as usize, half(at + 2).unwrap_or(0));
        if size < 4 {
            break;
        }
        match kind {
            UNIX_DIAG_PEER => read.inode = word(at + 4).filter(|peer| *peer != 0),
            UNIX_DIAG_SHUTDOWN => read.shut = answer.get(at + 4).copied().unwrap_or(0),
            _ => {}
        }
        at += size.next_multiple_of(4);
    }
    Ok(read)
}
