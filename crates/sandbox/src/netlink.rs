//! Netlink messages: writing them with their attributes, sending them, reading the kernel's acknowledgements.
//!
//! Just the encoding (netlink(7)); what is said with it is in `network` and `nft`. The crates for it are asynchronous or wrap a
//! C library; the few messages needed here are acknowledged before `sendmsg` returns.

use std::{io, os::fd::OwnedFd};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Make it; an error when it is there already.
pub(crate) const CREATE: u16 = 0x400 | 0x200;
const NLA_F_NESTED: u16 = 1 << 15;
const HEADER: usize = 16;

/// Messages that are sent together.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// What each message that is acknowledged was for.
    steps: Vec<&'static str>,
}

impl Messages {
    /// Appends a message; `step` names it in an error. `body` writes what follows the header.
    pub fn push(&mut self, step: &'static str, kind: u16, flags: u16, body: impl FnOnce(&mut Body<'_>)) {
        self.steps.push(step);
        self.raw(kind, flags | NLM_F_ACK, self.steps.len() as u32, body);
    }

    /// Appends a message that is not acknowledged (the brackets of a batch).
    pub fn bracket(&mut self, kind: u16, body: impl FnOnce(&mut Body<'_>)) {
        self.raw(kind, 0, 0, body);
    }

    fn raw(&mut self, kind: u16, flags: u16, number: u32, body: impl FnOnce(&mut Body<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(number.to_ne_bytes());
        self.bytes.extend([0; 4]);
        body(&mut Body(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sends them all and reads every acknowledgement. The error names the step.
    pub fn send(&self, protocol: Option<Protocol>) -> Result<(), (&'static str, io::Error)> {
        let first = self.steps.first().copied().unwrap_or("netlink");
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol).map_err(|error| (first, error.into()))?;
        send(&socket, &self.bytes, SendFlags::empty()).map_err(|error| (first, error.into()))?;
        self.acknowledged(&socket)
    }

    fn acknowledged(&self, socket: &OwnedFd) -> Result<(), (&'static str, io::Error)> {
        let mut outstanding = self.steps.len();
        let mut buffer = vec![0u8; 16 << 10];
        while outstanding > 0 {
            let (length, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT).map_err(|error| ("netlink acknowledgement", error.into()))?;
            let mut rest = &buffer[..length];
            while let Some(message) = Message::split(&mut rest) {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                if message.errno != 0 {
                    let step = self.steps.get((message.number as usize).wrapping_sub(1)).copied().unwrap_or("netlink batch");
                    return Err((step, io::Error::from_raw_os_error(message.errno)));
                }
                outstanding = outstanding.saturating_sub(1);
            }
        }
        Ok(())
    }
}

/// The head of a received message.
struct Message {
    kind: u16,
    number: u32,
    /// Of an NLMSG_ERROR; 0 acknowledges.
    errno: i32,
}

impl Message {
    fn split(rest: &mut &[u8]) -> Option<Self> {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let message = rest.get(..length)?;
        let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
        let number = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
        let errno = message.get(HEADER..HEADER + 4).map_or(0, |code| -i32::from_ne_bytes(code.try_into().expect("4 bytes")));
        *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Self { kind, number, errno })
    }
}

/// What follows a message's header: a fixed part, then attributes.
pub(crate) struct Body<'a>(&'a mut Vec<u8>);

impl Body<'_> {
    /// The fixed part, its size a multiple of 4.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub fn bytes(&mut self, attribute: u16, value: &[u8]) {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(attribute.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Text with its end mark.
    pub fn text(&mut self, attribute: u16, value: &str) {
        self.bytes(attribute, &[value.as_bytes(), &[0]].concat());
    }

    /// A number in network byte order.
    pub fn number(&mut self, attribute: u16, value: u32) {
        self.bytes(attribute, &value.to_be_bytes());
    }

    pub fn nested(&mut self, attribute: u16, inner: impl FnOnce(&mut Body<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((attribute | NLA_F_NESTED).to_ne_bytes());
        inner(&mut Body(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_padding_are_as_the_kernel_reads_them() {
        let mut messages = Messages::default();
        messages.push("x", 7, 0, |body| {
            body.fixed(&[1, 2, 3, 4]);
            body.nested(5, |inner| inner.text(6, "ab"));
        });
        let bytes = &messages.bytes;
        assert_eq!(bytes.len(), 16 + 4 + 4 + 8);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), 32);
        assert_eq!(u16::from_ne_bytes(bytes[20..22].try_into().unwrap()), 12, "the nest holds its padding");
        assert_eq!(u16::from_ne_bytes(bytes[24..26].try_into().unwrap()), 7, "the text does not");
    }
}
