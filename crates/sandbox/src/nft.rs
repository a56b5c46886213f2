//! The nftables rules of a sandbox's network namespace: what leaves it is led to the daemon's listeners.
//!
//! ```text
//! table inet tanebi {
//!   chain out { type nat hook output priority -100; policy accept;
//!     udp dport 53 redirect to :DNS_UDP
//!     tcp dport 53 redirect to :DNS_TCP
//!     ip daddr 127.0.0.0/8 accept
//!     ip6 daddr ::1 accept
//!     ip daddr 169.254.169.254 tcp dport 80 accept      (with a metadata server)
//!     meta l4proto tcp redirect to :OUTBOUND
//!   }
//! }
//! ```
//! DNS comes first: a resolver that asks 127.0.0.1 (the C library without a resolv.conf does) is answered too, and nobody in
//! there can have that port. Written from linux/netfilter/nf_tables.h; the `nft` command is not needed.

use rustix::net::netlink;

use crate::{
    error::Failure,
    netlink::{Body, CREATE, Messages},
};

/// The ports of the daemon's listeners in the namespace.
pub(crate) struct Redirect {
    pub dns_udp: u16,
    pub dns_tcp: u16,
    pub outbound: u16,
    pub metadata: bool,
}

const TABLE: &str = "tanebi";
const CHAIN: &str = "out";

const NFPROTO_INET: u8 = 1;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
/// Append, for rules.
const NLM_F_APPEND: u16 = 0x800;

/// Makes table, chain and rules in one transaction, in the current network namespace.
pub(crate) fn redirect(to: &Redirect) -> Result<(), Failure> {
    let mut batch = Messages::default();
    batch.bracket(NFNL_MSG_BATCH_BEGIN, |body| header(body, 0, NFNL_SUBSYS_NFTABLES));
    table_and_chain(&mut batch);
    rule(&mut batch, "nftables rule: DNS over UDP", |rule| rule.protocol(libc::IPPROTO_UDP).port(53).redirect(to.dns_udp));
    rule(&mut batch, "nftables rule: DNS over TCP", |rule| rule.protocol(libc::IPPROTO_TCP).port(53).redirect(to.dns_tcp));
    rule(&mut batch, "nftables rule: IPv4 loopback", |rule| rule.family(libc::NFPROTO_IPV4).destination(16, &[127]).accept());
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
    rule(&mut batch, "nftables rule: IPv6 loopback", |rule| rule.family(libc::NFPROTO_IPV6).destination(24, &loopback).accept());
    if to.metadata {
        rule(&mut batch, "nftables rule: metadata", |rule| {
            let rule = rule.family(libc::NFPROTO_IPV4).destination(16, &[169, 254, 169, 254]);
            rule.protocol(libc::IPPROTO_TCP).port(80).accept();
        });
    }
    rule(&mut batch, "nftables rule: outbound TCP", |rule| rule.protocol(libc::IPPROTO_TCP).redirect(to.outbound));
    batch.bracket(NFNL_MSG_BATCH_END, |body| header(body, 0, NFNL_SUBSYS_NFTABLES));
    batch.send(Some(netlink::NETFILTER)).map_err(|(step, error)| {
        let hint = "the kernel needs nf_tables with nat and redirect: modprobe nf_tables nft_chain_nat nft_redir";
        Failure::new(step, error).hint_on(&[libc::ENOENT, libc::EPROTONOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL], hint)
    })
}

/// `struct nfgenmsg`.
fn header(body: &mut Body<'_>, family: u8, resource: u16) {
    let [high, low] = resource.to_be_bytes();
    body.fixed(&[family, 0, high, low]);
}

const fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | message
}

fn table_and_chain(batch: &mut Messages) {
    const NFTA_TABLE_NAME: u16 = 1;
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    const NFTA_HOOK_PRIORITY: u16 = 2;
    const NF_INET_LOCAL_OUT: u32 = 3;
    const NF_IP_PRI_NAT_DST: i32 = -100;

    batch.push("nftables table", kind(NFT_MSG_NEWTABLE), CREATE, |body| {
        header(body, NFPROTO_INET, 0);
        body.text(NFTA_TABLE_NAME, TABLE);
    });
    batch.push("nftables chain", kind(NFT_MSG_NEWCHAIN), CREATE, |body| {
        header(body, NFPROTO_INET, 0);
        body.text(NFTA_CHAIN_TABLE, TABLE);
        body.text(NFTA_CHAIN_NAME, CHAIN);
        body.nested(NFTA_CHAIN_HOOK, |hook| {
            hook.number(NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_OUT);
            hook.number(NFTA_HOOK_PRIORITY, NF_IP_PRI_NAT_DST as u32);
        });
        body.text(NFTA_CHAIN_TYPE, "nat");
    });
}

fn rule(batch: &mut Messages, step: &'static str, expressions: impl FnOnce(&mut Rule<'_, '_>)) {
    const NFTA_RULE_TABLE: u16 = 1;
    const NFTA_RULE_CHAIN: u16 = 2;
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    batch.push(step, kind(NFT_MSG_NEWRULE), CREATE | NLM_F_APPEND, |body| {
        header(body, NFPROTO_INET, 0);
        body.text(NFTA_RULE_TABLE, TABLE);
        body.text(NFTA_RULE_CHAIN, CHAIN);
        body.nested(NFTA_RULE_EXPRESSIONS, |list| expressions(&mut Rule(list)));
    });
}

/// A rule's expressions, in order: each compares and goes on only when equal, the last one acts.
struct Rule<'a, 'b>(&'a mut Body<'b>);

/// The register every value passes through.
const NFT_REG_1: u32 = 1;
const NFTA_DATA_VALUE: u16 = 1;

impl Rule<'_, '_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Body<'_>)) {
        const NFTA_LIST_ELEM: u16 = 1;
        const NFTA_EXPR_NAME: u16 = 1;
        const NFTA_EXPR_DATA: u16 = 2;
        self.0.nested(NFTA_LIST_ELEM, |element| {
            element.text(NFTA_EXPR_NAME, name);
            element.nested(NFTA_EXPR_DATA, data);
        });
    }

    /// `meta nfproto`
    fn family(&mut self, family: i32) -> &mut Self {
        const NFT_META_NFPROTO: u32 = 15;
        self.meta(NFT_META_NFPROTO, family as u8)
    }

    /// `meta l4proto`
    fn protocol(&mut self, protocol: i32) -> &mut Self {
        const NFT_META_L4PROTO: u32 = 16;
        self.meta(NFT_META_L4PROTO, protocol as u8)
    }

    fn meta(&mut self, key: u32, value: u8) -> &mut Self {
        const NFTA_META_DREG: u16 = 1;
        const NFTA_META_KEY: u16 = 2;
        self.expression("meta", |data| {
            data.number(NFTA_META_DREG, NFT_REG_1);
            data.number(NFTA_META_KEY, key);
        });
        self.equal(&[value])
    }

    /// The first bytes of the destination address, which lies at `offset` in the IP header.
    fn destination(&mut self, offset: u32, prefix: &[u8]) -> &mut Self {
        const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, prefix)
    }

    /// The destination port of TCP or UDP.
    fn port(&mut self, port: u16) -> &mut Self {
        const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
        self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, &port.to_be_bytes())
    }

    fn payload(&mut self, base: u32, offset: u32, value: &[u8]) -> &mut Self {
        const NFTA_PAYLOAD_DREG: u16 = 1;
        const NFTA_PAYLOAD_BASE: u16 = 2;
        const NFTA_PAYLOAD_OFFSET: u16 = 3;
        const NFTA_PAYLOAD_LEN: u16 = 4;
        self.expression("payload", |data| {
            data.number(NFTA_PAYLOAD_DREG, NFT_REG_1);
            data.number(NFTA_PAYLOAD_BASE, base);
            data.number(NFTA_PAYLOAD_OFFSET, offset);
            data.number(NFTA_PAYLOAD_LEN, value.len() as u32);
        });
        self.equal(value)
    }

    fn equal(&mut self, value: &[u8]) -> &mut Self {
        const NFTA_CMP_SREG: u16 = 1;
        const NFTA_CMP_OP: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        const NFT_CMP_EQ: u32 = 0;
        self.expression("cmp", |data| {
            data.number(NFTA_CMP_SREG, NFT_REG_1);
            data.number(NFTA_CMP_OP, NFT_CMP_EQ);
            data.nested(NFTA_CMP_DATA, |inner| inner.bytes(NFTA_DATA_VALUE, value));
        });
        self
    }

    fn immediate(&mut self, register: u32, value: impl FnOnce(&mut Body<'_>)) {
        const NFTA_IMMEDIATE_DREG: u16 = 1;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        self.expression("immediate", |data| {
            data.number(NFTA_IMMEDIATE_DREG, register);
            data.nested(NFTA_IMMEDIATE_DATA, value);
        });
    }

    fn accept(&mut self) {
        const NFT_REG_VERDICT: u32 = 0;
        const NFTA_DATA_VERDICT: u16 = 2;
        const NFTA_VERDICT_CODE: u16 = 1;
        const NF_ACCEPT: u32 = 1;
        self.immediate(NFT_REG_VERDICT, |value| value.nested(NFTA_DATA_VERDICT, |verdict| verdict.number(NFTA_VERDICT_CODE, NF_ACCEPT)));
    }

    fn redirect(&mut self, port: u16) {
        const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
        self.immediate(NFT_REG_1, |value| value.bytes(NFTA_DATA_VALUE, &port.to_be_bytes()));
        self.expression("redir", |data| data.number(NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1));
    }
}
