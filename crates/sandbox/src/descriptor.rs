//! Descriptors: passing them between processes, closing what is not named, pipes and polls.
//!
//! Every descriptor here is close-on-exec from its first moment.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, UCred, recvmsg, sendmsg, socketpair,
    },
    pipe::{PipeFlags, pipe_with},
};

/// The most descriptors in one message: a sandbox's ends and its files that change, of which control lets there be 200. The kernel passes
/// up to 253.
const PASSED_MAX: usize = 216;

/// A pair of connected sockets that keep messages apart.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A pipe: (read end, write end).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

pub(crate) fn nonblocking(descriptor: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&descriptor)?;
    Ok(fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?)
}

/// Sends one message with descriptors. Never raises SIGPIPE.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    let sent = rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EMSGSIZE)) }
}

/// One message as it came.
pub(crate) struct Received {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
    /// Of the sender, vouched for by the kernel, when the socket asks for it (SO_PASSCRED).
    pub sender: Option<UCred>,
}

/// Receives one message of at most `size_max` bytes. `None`: the other end is closed.
pub(crate) fn receive(socket: impl AsFd, size_max: usize, wait: bool) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; size_max];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED_MAX), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = if wait { RecvFlags::CMSG_CLOEXEC } else { RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT };
    let message = rustix::io::retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
    let mut received = Received { bytes: Vec::new(), descriptors: Vec::new(), sender: None };
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(descriptors) => received.descriptors.extend(descriptors),
            RecvAncillaryMessage::ScmCredentials(sender) => received.sender = Some(sender),
            _ => {}
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    // No message here is empty: nothing means that the other end is closed.
    if message.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(message.bytes);
    received.bytes = bytes;
    Ok(Some(received))
}

/// Waits until the descriptor is readable (or closed by the other side). False: `limit` passed.
pub(crate) fn readable(descriptor: impl AsFd, limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.map(|limit| Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos().into() });
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref()))? > 0)
}

/// Closes every descriptor of this process from 3 on that is not in `kept`.
///
/// The owners of the others must never be used or dropped again: only for a fresh child that ends by `_exit`.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|descriptor| descriptor.as_raw_fd() as u32).filter(|number| *number > 2).collect();
    kept.sort_unstable();
    let mut from = 3;
    for number in kept {
        if number > from {
            close_range(from, number - 1, 0)?;
        }
        from = number + 1;
    }
    close_range(from, u32::MAX, 0)
}

/// Makes every descriptor from 3 on close at exec.
pub(crate) fn close_rest_on_exec() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// The pid behind a pidfd, as this process sees it.
pub(crate) fn pid_of(pidfd: &OwnedFd) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Duplicates it to a number of this process, whatever was there. Only for a fresh child that ends by exec or `_exit`.
pub(crate) fn put(descriptor: impl AsFd, number: i32) -> io::Result<()> {
    // SAFETY: dup3(2) touches no memory. Replacing a number that an OwnedFd holds is what the callers document.
    match unsafe { libc::dup3(descriptor.as_fd().as_raw_fd(), number, libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Lets a descriptor of this process be there after exec.
pub(crate) fn keep_on_exec(number: i32) -> io::Result<()> {
    // SAFETY: fcntl(2) with F_SETFD takes a number and touches no memory.
    match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: close_range(2) touches no memory. Closing numbers that an OwnedFd holds is what the callers document.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_edges_and_its_descriptors() {
        let (left, right) = message_pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        send(&left, b"first", &[writer.as_fd()], false).unwrap();
        send(&left, b"second", &[], false).unwrap();
        drop(writer);
        let first = receive(&right, 100, false).unwrap().unwrap();
        assert_eq!(first.bytes, b"first");
        assert_eq!(first.descriptors.len(), 1);
        rustix::io::write(&first.descriptors[0], b"x").unwrap();
        assert!(readable(&reader, Some(Duration::ZERO)).unwrap());
        let second = receive(&right, 3, false);
        assert_eq!(second.err().and_then(|error| error.raw_os_error()), Some(libc::EMSGSIZE));
        drop(left);
        assert!(receive(&right, 100, false).unwrap().is_none());
    }
}
