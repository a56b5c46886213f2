//! A network for build steps: DNS by the host's resolver, TCP to public addresses on 80 and 443.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use build::BuildEgress;
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use sandbox::Sandbox;

/// Serves, counts, and can be cut.
#[derive(Default)]
pub struct Egress {
    pub is_cut: AtomicBool,
    pub connections: AtomicUsize,
    pub refused: AtomicUsize,
    /// Steps whose network is served now.
    pub open: AtomicUsize,
}

/// So that the test keeps one end.
pub struct Shared(pub Arc<Egress>);

impl BuildEgress for Shared {
    fn serve(&self, sandbox: &mut Sandbox, _: &[&str]) -> Box<dyn Send> {
        let served = Served { egress: self.0.clone(), is_over: Arc::default() };
        served.egress.open.fetch_add(1, Ordering::SeqCst);
        if let Some(fd) = sandbox.outbound.take() {
            let listener = TcpListener::from(fd);
            let (egress, is_over) = (self.0.clone(), served.is_over.clone());
            thread::spawn(move || egress.outbound(&listener, &is_over));
        }
        let egress = self.0.clone();
        if let Some(fd) = sandbox.dns_udp.take() {
            let socket = UdpSocket::from(fd);
            thread::spawn(move || egress.dns(&socket));
        }
        // Answers are small: nothing comes here.
        drop(sandbox.dns_tcp.take());
        Box::new(served)
    }
}

/// Of one step, until it has ended.
struct Served {
    egress: Arc<Egress>,
    is_over: Arc<AtomicBool>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.egress.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Egress {
    fn outbound(self: Arc<Self>, listener: &TcpListener, is_over: &AtomicBool) {
        listener.set_nonblocking(false).unwrap();
        for connection in listener.incoming() {
            let Ok(connection) = connection else { return };
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            let egress = self.clone();
            thread::spawn(move || egress.tunnel(connection));
        }
    }

    fn tunnel(&self, inside: TcpStream) -> Option<()> {
        let to = sandbox::original_destination(inside.as_fd()).ok()?;
        if self.is_cut.load(Ordering::SeqCst) || !is_allowed(to) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        let outside = TcpStream::connect(to).ok()?;
        let (inside_2, outside_2) = (inside.try_clone().ok()?, outside.try_clone().ok()?);
        let back = thread::spawn(move || pump(outside_2, inside_2));
        pump(inside, outside);
        back.join().ok()
    }

    fn dns(&self, socket: &UdpSocket) {
        socket.set_nonblocking(false).unwrap();
        let mut buffer = [0; 1500];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = self.answer(&buffer[..n]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name().to_ascii();
        let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let found = if self.is_cut.load(Ordering::SeqCst) { None } else { (name.trim_end_matches('.'), 443).to_socket_addrs().ok() };
        match found {
            Some(found) if query.query_type() == RecordType::A => {
                for address in found {
                    if let IpAddr::V4(v4) = address.ip() {
                        answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A(v4))));
                    }
                }
            }
            Some(_) => {}
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer.to_vec().ok()
    }
}

fn is_allowed(to: SocketAddr) -> bool {
    let is_public = match to.ip() {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()),
        IpAddr::V6(_) => false,
    };
    is_public && [80, 443].contains(&to.port())
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(n) if n > 0 && to.write_all(&buffer[..n]).is_ok() => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
