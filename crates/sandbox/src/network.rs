//! A sandbox's network: a loopback, and where asked a way out that ends at the daemon's listeners.
//!
//! No cable leads out of the namespace. A local default route makes every address local, the rules of `nft` lead TCP and DNS to
//! listeners that init opens before the command runs and that only the daemon holds afterwards; UDP to anywhere else meets a
//! closed port. Made by init with the capabilities of its own namespace, which the command does not get.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with, sockopt};

use crate::{
    error::{Failure, Step},
    mutation::{Layer, without},
    netlink::{CREATE, Messages},
    nft::{self, Redirect},
    spec::Network,
};

/// What the daemon accepts on; which of them it is, is the identity of who connects.
#[derive(Default)]
pub(crate) struct Listeners {
    pub outbound: Option<OwnedFd>,
    pub dns_udp: Option<OwnedFd>,
    pub dns_tcp: Option<OwnedFd>,
    pub metadata: Option<OwnedFd>,
}

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const BACKLOG: i32 = 1024;

/// Builds the network of the current, fresh network namespace.
pub(crate) fn build(network: &Network) -> Result<Listeners, Failure> {
    let mut listeners = Listeners::default();
    if without(Layer::Network) {
        return Ok(listeners);
    }
    let any = any_address();
    links_and_routes(network, any.is_ipv6())?;
    if network.metadata {
        listeners.metadata = Some(listener("metadata", SocketAddrV4::new(METADATA, 80).into())?);
    }
    if network.redirected {
        let any = SocketAddr::new(any, 0);
        let outbound = listener("outbound", any)?;
        let dns_tcp = listener("DNS over TCP", any)?;
        let dns_udp = bound("DNS over UDP", SocketType::DGRAM, any)?;
        let redirect = Redirect { dns_udp: port(&dns_udp)?, dns_tcp: port(&dns_tcp)?, outbound: port(&outbound)?, metadata: network.metadata };
        nft::redirect(&redirect)?;
        listeners.outbound = Some(outbound);
        listeners.dns_udp = Some(dns_udp);
        listeners.dns_tcp = Some(dns_tcp);
    }
    Ok(listeners)
}

/// The address that listeners bind to: one socket takes both families, where the kernel has IPv6.
fn any_address() -> IpAddr {
    match socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn listener(what: &str, address: SocketAddr) -> Result<OwnedFd, Failure> {
    let socket = bound(what, SocketType::STREAM, address)?;
    listen(&socket, BACKLOG).step(|| format!("listen for {what}"))?;
    Ok(socket)
}

fn bound(what: &str, kind: SocketType, address: SocketAddr) -> Result<OwnedFd, Failure> {
    let step = || format!("bind the {what} listener to {address}");
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).step(step)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false).step(step)?;
    }
    bind(&socket, &address).step(step)?;
    Ok(socket)
}

fn port(socket: &OwnedFd) -> Result<u16, Failure> {
    let address = getsockname(socket).step(|| "read a listener's port")?;
    Ok(SocketAddr::try_from(address).map_err(io::Error::from).step(|| "read a listener's port")?.port())
}

/// Loopback up; the metadata address on it; everything else local too when it is to be redirected.
fn links_and_routes(network: &Network, ipv6: bool) -> Result<(), Failure> {
    const RTM_NEWLINK: u16 = 16;
    const RTM_NEWADDR: u16 = 20;
    const IFLA_UP: u32 = libc::IFF_UP as u32;
    const IFA_LOCAL: u16 = 2;
    const LOOPBACK: u32 = 1;

    let mut messages = Messages::default();
    messages.push("bring the loopback up", RTM_NEWLINK, 0, |body| {
        // struct ifinfomsg: family, padding, type, index, flags, which flags change.
        body.fixed(&[0; 4]);
        for number in [LOOPBACK, IFLA_UP, IFLA_UP] {
            body.fixed(&number.to_ne_bytes());
        }
    });
    // With the default route below, the address is a local one already. As an address of the loopback it would moreover become
    // the source of what is sent to it, and the answers of the DNS listener, sent from 127.0.0.1, would not be taken for answers.
    if network.metadata && !network.redirected {
        messages.push("add 169.254.169.254 to the loopback", RTM_NEWADDR, CREATE, |body| {
            // struct ifaddrmsg: family, prefix length, flags, scope, index.
            body.fixed(&[libc::AF_INET as u8, 32, 0, libc::RT_SCOPE_HOST]);
            body.fixed(&LOOPBACK.to_ne_bytes());
            body.bytes(IFA_LOCAL, &METADATA.octets());
        });
    }
    if network.redirected {
        local_default(&mut messages, "route all of IPv4 to the loopback", libc::AF_INET, &Ipv4Addr::LOCALHOST.octets());
        if ipv6 {
            local_default(&mut messages, "route all of IPv6 to the loopback", libc::AF_INET6, &Ipv6Addr::LOCALHOST.octets());
        }
    }
    messages.send(None).map_err(|(step, error)| Failure::new(step, error))
}

/// `ip route add local default dev lo src SOURCE`
fn local_default(messages: &mut Messages, step: &'static str, family: i32, source: &[u8]) {
    const RTM_NEWROUTE: u16 = 24;
    const RTPROT_BOOT: u8 = 3;
    const RTA_OIF: u16 = 4;
    const RTA_PREFSRC: u16 = 7;
    const LOOPBACK: u32 = 1;
    messages.push(step, RTM_NEWROUTE, CREATE, |body| {
        // struct rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags.
        body.fixed(&[family as u8, 0, 0, 0, libc::RT_TABLE_LOCAL, RTPROT_BOOT, libc::RT_SCOPE_HOST, libc::RTN_LOCAL, 0, 0, 0, 0]);
        body.bytes(RTA_OIF, &LOOPBACK.to_ne_bytes());
        body.bytes(RTA_PREFSRC, source);
    });
}

/// Starts connecting to 127.0.0.1:port in the current network namespace. The socket is non-blocking and may not be connected yet.
pub(crate) fn connection(port: u16) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Connections to `port` in the current network namespace that are made and not accepted.
pub(crate) fn unaccepted(port: u16) -> io::Result<u32> {
    let mut count = 0;
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let mut head = Vec::new();
        match std::fs::File::open(table).and_then(|file| file.take(TABLE_MAX_BYTES).read_to_end(&mut head)) {
            Ok(_) => count += String::from_utf8_lossy(&head).lines().filter_map(|line| unaccepted_of(line, port)).sum::<u32>(),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Listeners come first in it, 400 of them in this; a sandbox may hold more connections than anyone wants to read.
const TABLE_MAX_BYTES: u64 = 64 << 10;

/// The queue of one line of proc(5)'s `net/tcp`, when it is of a listener on `port`: `sl local rem st tx_queue:rx_queue ...`, hexadecimal.
fn unaccepted_of(line: &str, port: u16) -> Option<u32> {
    const LISTEN: &str = "0A";
    let mut columns = line.split_ascii_whitespace().skip(1);
    let (local, _, state, queues) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    let waiting = u32::from_str_radix(queues.split_once(':')?.1, 16).ok()?;
    (at == port && state == LISTEN).then_some(waiting)
}

/// How far a connection is: `None` while it is on its way.
pub(crate) fn connection_state(socket: impl AsFd) -> Option<io::Result<()>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) => None,
        Ok(_) => Some(match sockopt::socket_error(&socket) {
            Ok(outcome) => outcome.map_err(io::Error::from),
            Err(error) => Err(error.into()),
        }),
        Err(error) => Some(Err(error.into())),
    }
}

/// Where a redirected connection was going (SO_ORIGINAL_DST).
///
/// # Errors
/// `PermissionDenied` when it was not redirected at all but made straight to the listener: there is nowhere it was going, and
/// what looks like a loopback address must not be taken for the host's. Else what the kernel answers.
pub fn original_destination(connection: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    use nix::sys::socket::{getsockopt, sockopt::Ip6tOriginalDst, sockopt::OriginalDst};
    let local = SocketAddr::try_from(getsockname(connection)?).map_err(io::Error::from)?;
    // A dual-stack listener's IPv4 connections are IPv4 to the connection tracker.
    let ipv4 = local.ip().to_canonical().is_ipv4();
    let destination: SocketAddr = if ipv4 {
        let found = getsockopt(&connection, OriginalDst)?;
        SocketAddrV4::new(Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr)), u16::from_be(found.sin_port)).into()
    } else {
        let found = getsockopt(&connection, Ip6tOriginalDst)?;
        SocketAddrV6::new(Ipv6Addr::from(found.sin6_addr.s6_addr), u16::from_be(found.sin6_port), 0, 0).into()
    };
    // The rules never redirect TCP that goes to the loopback, but for DNS, which has a listener of its own.
    if destination.ip().is_loopback() && destination.port() == local.port() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "made to the listener itself"));
    }
    Ok(destination)
}
