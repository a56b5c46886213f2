//! Names, for a sandbox: the hosts that this server plays, and those of the world that its policy allows.
//!
//! Answers A and AAAA; any other type of a name that is there has no records. Look-ups of the world use the host's own resolver.
//! Where that knows no name but a proxy would (a host without DNS), a stand-in address is given out that later leads to the proxy by name.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::{Owner, Policy, Shared, Way, is_public};
use crate::instances::Instance;

/// What every played host resolves to inside a sandbox: of a documentation network, so that it can be no one's.
pub const PLAYED_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const PLAYED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

pub(super) const LOOKUPS_PER_SANDBOX: usize = 8;
pub(super) const LOOKUPS_MAX: usize = 64;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Seconds that an answer may be kept: short, since policies and played hosts change.
const TTL_S: u32 = 30;
/// A DNS message over TCP; a question needs far less.
const MESSAGE_MAX_BYTES: usize = 4096;
/// Names remembered for one sandbox; the oldest is forgotten.
const NAMES_MAX: usize = 4096;

/// Which addresses were given out for which names.
#[derive(Default)]
pub(super) struct Names {
    by_stand_in: HashMap<u16, String>,
    stand_ins: HashMap<String, u16>,
    stand_in_next: u16,
    given: HashMap<String, Vec<IpAddr>>,
    order: VecDeque<String>,
}

/// Stand-in addresses are 198.18.0.0/16, of the benchmarking network.
pub(super) fn is_stand_in(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.octets()[..2] == [198, 18])
}

impl Names {
    fn stand_in(&mut self, name: &str) -> Ipv4Addr {
        let number = match self.stand_ins.get(name) {
            Some(number) => *number,
            None => {
                let number = self.stand_in_next;
                self.stand_in_next = self.stand_in_next.wrapping_add(1);
                if let Some(old) = self.by_stand_in.insert(number, name.to_owned()) {
                    self.stand_ins.remove(&old);
                }
                self.stand_ins.insert(name.to_owned(), number);
                number
            }
        };
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(198, 18, high, low)
    }

    pub(super) fn of_stand_in(&self, ip: IpAddr) -> Option<String> {
        let IpAddr::V4(v4) = ip else { return None };
        let [_, _, high, low] = v4.octets();
        self.by_stand_in.get(&u16::from_be_bytes([high, low])).cloned()
    }

    fn remember(&mut self, name: &str, ips: &[IpAddr]) {
        if !self.given.contains_key(name) {
            if self.order.len() == NAMES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.given.remove(&oldest);
            }
            self.order.push_back(name.to_owned());
        }
        let known = self.given.entry(name.to_owned()).or_default();
        for ip in ips {
            if !known.contains(ip) {
                known.push(*ip);
            }
        }
        // A name behind ever-changing addresses: the latest matter.
        let excess = known.len().saturating_sub(64);
        known.drain(..excess);
    }

    /// Whether `ip` was given out for `exact` or for a name that `matches`.
    pub(super) fn gave(&self, exact: &str, ip: IpAddr, matches: impl Fn(&str) -> bool) -> bool {
        match self.given.get(exact) {
            Some(ips) if ips.contains(&ip) => true,
            _ => exact.starts_with("*.") && self.given.iter().any(|(name, ips)| ips.contains(&ip) && matches(name)),
        }
    }
}

impl Shared {
    /// The addresses of a name by the host's own resolver; none when there is no such name.
    ///
    /// # Errors
    /// When the resolver is late.
    pub(super) async fn look_up(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        let _all = self.lookups.acquire().await.map_err(std::io::Error::other)?;
        match tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, 0))).await {
            Ok(Ok(addresses)) => Ok(addresses.map(|a| a.ip().to_canonical()).collect()),
            Ok(Err(_)) => Ok(Vec::new()),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

/// What a question's name is for this sandbox.
enum Found {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    Failed,
}

impl Way {
    pub(super) async fn dns_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0u8; 1500];
        loop {
            let received = tokio::select! {
                () = self.ended.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let Ok((length, from)) = received else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (way, socket, question) = (self.clone(), socket.clone(), buffer[..length].to_vec());
            let Some(permits) = self.permits_take() else { continue };
            tokio::spawn(async move {
                let _permits = permits;
                let answering = async {
                    if let Some(answer) = way.answer(&question).await {
                        let _ = socket.send_to(&answer, from as SocketAddr).await;
                    }
                };
                tokio::select! { () = way.ended.cancelled() => {}, () = answering => {} }
            });
        }
    }

    pub(super) async fn dns_stream(self: Arc<Self>, mut stream: TcpStream) {
        loop {
            let exchange = async {
                let length = usize::from(stream.read_u16().await?);
                if length > MESSAGE_MAX_BYTES {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                let mut question = vec![0; length];
                stream.read_exact(&mut question).await?;
                let answer = self.answer(&question).await.ok_or(std::io::ErrorKind::InvalidData)?;
                stream.write_u16(u16::try_from(answer.len()).map_err(|_| std::io::ErrorKind::InvalidData)?).await?;
                stream.write_all(&answer).await
            };
            match tokio::time::timeout(Duration::from_secs(30), exchange).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }

    /// The answer to a message; `None` for what is no question.
    async fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(message).ok()?;
        if question.metadata.message_type != MessageType::Query || question.queries.len() != 1 {
            return None;
        }
        let query = question.queries[0].clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        if question.metadata.op_code != OpCode::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer.to_vec().ok();
        }
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        match self.resolve(&name).await {
            Found::Addresses(ips) => {
                for ip in ips {
                    if let Some(data) = record(ip, query.query_type()) {
                        answer.add_answer(Record::from_rdata(Name::clone(query.name()), TTL_S, data));
                    }
                }
            }
            Found::NoSuchName => answer.metadata.response_code = ResponseCode::NXDomain,
            Found::Failed => answer.metadata.response_code = ResponseCode::ServFail,
        }
        answer.to_vec().ok()
    }

    async fn resolve(&self, name: &str) -> Found {
        if let Policy::Public = self.policy {
            if name == "metadata.google.internal" || name == "metadata" {
                return Found::Addresses(vec![METADATA.into()]);
            }
            if self.shared.inward.plays(name) {
                return Found::Addresses(vec![PLAYED_V4.into(), PLAYED_V6.into()]);
            }
        }
        // A clone's /etc/hosts is its template's and does not know its name.
        let is_own = matches!(&*self.owner, Owner::Instance(identity) if Instance::sandbox_name(&identity.instance) == name);
        if is_own || name == "localhost" || name.ends_with(".localhost") {
            return Found::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Policy::Hosts(hosts) = &self.policy
            && !hosts.iter().any(|host| host.matches(name))
        {
            return Found::NoSuchName;
        }
        self.look_up(name).await
    }

    async fn look_up(&self, name: &str) -> Found {
        let Ok(_own) = self.lookups.acquire().await else { return Found::Failed };
        let Ok(found) = self.shared.look_up(name).await else { return Found::Failed };
        if found.is_empty() {
            return match &self.shared.upstream {
                Some(proxy) if is_outside_name(name) && !proxy.bypasses(name) => Found::Addresses(vec![self.names.write().stand_in(name).into()]),
                _ => Found::NoSuchName,
            };
        }
        let allowed: Vec<IpAddr> = match self.policy {
            // A public name that points at a private address is how rebinding begins.
            Policy::Public => found.into_iter().filter(|ip| is_public(*ip)).collect(),
            Policy::Hosts(_) => {
                self.names.write().remember(name, &found);
                found
            }
        };
        if allowed.is_empty() {
            self.tell(|| format!("{name} was not resolved: it has no public address, and a function reaches no others."));
            return Found::NoSuchName;
        }
        Found::Addresses(allowed)
    }
}

/// Whether a proxy may be asked for `name`: a name of the world, no address in disguise and no name of the host's own network.
pub(super) fn is_outside_name(name: &str) -> bool {
    let labels: Vec<_> = name.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    labels.len() >= 2
        && last.chars().any(|c| c.is_ascii_alphabetic())
        && !last.starts_with("0x")
        && !["localhost", "local", "internal", "home", "lan", "corp", "arpa", "intranet", "private", "test", "invalid", "onion"].contains(&last)
        && labels.iter().all(|l| !l.is_empty() && l.len() <= 63 && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
}

fn record(ip: IpAddr, kind: RecordType) -> Option<RData> {
    match (ip, kind) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(v4.into())),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(v6.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_world_go_to_a_proxy() {
        for name in ["pypi.org", "files.pythonhosted.org", "a-b.example.com"] {
            assert!(is_outside_name(name), "{name}");
        }
        for name in ["localhost", "db", "db.internal", "x.local", "127.0.0.1", "0x7f.1", "1.0x7f", "a..b", "", "host.lan", "a b.com"] {
            assert!(!is_outside_name(name), "{name}");
        }
    }

    #[test]
    fn stand_ins_lead_back_to_their_names() {
        let mut names = Names::default();
        let a = names.stand_in("a.example");
        let b = names.stand_in("b.example");
        assert_ne!(a, b);
        assert_eq!(names.stand_in("a.example"), a);
        assert!(is_stand_in(a.into()));
        assert_eq!(names.of_stand_in(b.into()).as_deref(), Some("b.example"));
        // After 65,536 names the first stand-in has another owner and the first name another stand-in.
        for n in 0..65_536 {
            names.stand_in(&format!("n{n}.example"));
        }
        assert_ne!(names.of_stand_in(a.into()).as_deref(), Some("a.example"));
    }
}
