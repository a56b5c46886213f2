//! What happens to headers on the way to a function and back.
//!
//! What is about one connection only is taken off in both directions; what says who the caller is and how it came is set anew,
//! whatever the caller claimed. Source: Cloud Run's container contract and RFC 9110.

use std::io::{self, Cursor, Write};

use crate::Origin;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response};

const TRACE_CONTEXT: HeaderName = HeaderName::from_static("x-cloud-trace-context");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that speak of one connection, besides those that `Connection` names. `Trailer` is not one of them.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The trace that a request belongs to: the caller's, or a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Not zero.
    pub(crate) id: u128,
    /// Not zero.
    pub(crate) span: u64,
    pub(crate) sampled: bool,
}

impl Trace {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self::sent(headers).unwrap_or_else(|| Self { id: rand::random::<u128>() | 1, span: rand::random::<u64>() | 1, sampled: false })
    }

    /// The one that the sender names.
    pub(crate) fn sent(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        text(&TRACEPARENT).and_then(Self::from_traceparent).or_else(|| text(&TRACE_CONTEXT).and_then(Self::from_context))
    }

    fn from_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let good = is_hex(version, 2) && version != "ff" && is_hex(id, 32) && is_hex(span, 16) && is_hex(flags, 2);
        if !good || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let (id, span) = (u128::from_str_radix(id, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
        (id != 0 && span != 0).then(|| Self { id, span, sampled: u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1) })
    }

    /// `TRACE/SPAN;o=1`; the span is a decimal number.
    fn from_context(text: &str) -> Option<Self> {
        let (ids, options) = text.split_once(';').unwrap_or((text, ""));
        let (id, span) = ids.split_once('/').unwrap_or((ids, ""));
        let id = id.to_ascii_lowercase();
        let span = match span {
            "" | "0" => rand::random::<u64>() | 1,
            span => span.parse().ok()?,
        };
        let id = if is_hex(&id, 32) { u128::from_str_radix(&id, 16).ok()? } else { 0 };
        (id != 0 && span != 0).then_some(Self { id, span, sampled: options == "o=1" })
    }

    /// The value of `X-Cloud-Trace-Context`.
    fn context(&self) -> HeaderValue {
        let id = self.id_hex();
        value(|text| {
            text.write_all(&id)?;
            write!(text, "/{};o={}", self.span, u8::from(self.sampled))
        })
    }

    /// The value of `traceparent`.
    fn parent(&self) -> HeaderValue {
        let (id, span) = (self.id_hex(), self.span_hex());
        value(|text| {
            for part in [b"00-", &id[..], b"-", &span, if self.sampled { b"-01" } else { b"-00" }] {
                text.write_all(part)?;
            }
            Ok(())
        })
    }

    /// 32 hexadecimal digits.
    pub(crate) fn id_hex(&self) -> [u8; 32] {
        let mut digits = [0; 32];
        hex::encode_to_slice(self.id.to_be_bytes(), &mut digits).expect("two digits a byte");
        digits
    }

    /// 16 hexadecimal digits.
    pub(crate) fn span_hex(&self) -> [u8; 16] {
        let mut digits = [0; 16];
        hex::encode_to_slice(self.span.to_be_bytes(), &mut digits).expect("two digits a byte");
        digits
    }
}

/// A short value, written without a buffer on the heap beside its own.
fn value(write: impl FnOnce(&mut Cursor<[u8; VALUE_MAX_BYTES]>) -> io::Result<()>) -> HeaderValue {
    let mut text = Cursor::new([0; VALUE_MAX_BYTES]);
    let written = write(&mut text);
    debug_assert!(written.is_ok(), "a longer value than any of ours");
    let end = usize::try_from(text.position()).unwrap_or(VALUE_MAX_BYTES);
    HeaderValue::from_bytes(&text.into_inner()[..end]).unwrap_or(HeaderValue::from_static(""))
}

/// `for="[IPv6]";proto=https` and the two headers of traces fit.
const VALUE_MAX_BYTES: usize = 96;

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The address that stands for a caller inside the platform.
pub(crate) const INSIDE: &str = "169.254.1.1";

/// The protocol that the caller asked to switch to, when it did so as RFC 9110 wants it.
pub(crate) fn upgrade_wanted(parts: &request::Parts) -> Option<HeaderValue> {
    let named = parts.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let upgrades = parts.version == Version::HTTP_11 && named.into_iter().any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
    // h2c by upgrade is a matter of our own listener, and it does not offer it.
    parts.headers.get(header::UPGRADE).filter(|value| upgrades && !value.as_bytes().eq_ignore_ascii_case(b"h2c")).cloned()
}

/// Whether the request is native gRPC, which HTTP/1 cannot carry: it comes to the container as HTTP/2 whatever the name of its port.
///
/// Source: Cloud Run's documentation of HTTP/2 ("with the exception of native gRPC traffic"). gRPC-Web is made for HTTP/1.
pub(crate) fn is_grpc(parts: &request::Parts) -> bool {
    let kind = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let rest = kind.strip_prefix(b"application/grpc");
    parts.version == Version::HTTP_2 && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Makes a request's head the one that the function sees. `authority` is the host that the caller named, with its port; `ip` its address.
pub(crate) fn request(parts: &mut request::Parts, authority: &str, origin: &Origin, ip: &str, trace: &Trace, h2c: bool) {
    let upgrade = upgrade_wanted(parts).filter(|_| !h2c);
    let trailers =
        parts.headers.get(header::TE).is_some_and(|value| value.to_str().is_ok_and(|te| te.split(',').any(|te| te.trim().eq_ignore_ascii_case("trailers"))));
    hop_by_hop_remove(&mut parts.headers);
    let headers = &mut parts.headers;
    // The caller's wish to be asked first is met by our own listener, once the function's connection takes the body.
    if headers.keys().any(|name| *name == header::EXPECT || *name == FORWARDED_HOST) {
        headers.remove(header::EXPECT);
        headers.remove(FORWARDED_HOST);
    }
    let proto = match origin {
        Origin::Outside { tls: false, .. } => "http",
        _ => "https",
    };
    let forwarded = value(|text| if ip.contains(':') { write!(text, "for=\"[{ip}]\";proto={proto}") } else { write!(text, "for=\"{ip}\";proto={proto}") });
    headers.insert(header::FORWARDED, forwarded);
    set(headers, FORWARDED_FOR, ip);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.append(header::VIA, HeaderValue::from_static(if parts.version == Version::HTTP_2 { "2 google" } else { "1.1 google" }));
    headers.insert(TRACE_CONTEXT, trace.context());
    headers.insert(TRACEPARENT, trace.parent());
    let path = || parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if h2c {
        headers.remove(header::HOST);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        parts.uri = Uri::builder().scheme(proto).authority(authority).path_and_query(path()).build().unwrap_or_default();
        parts.version = Version::HTTP_2;
    } else {
        cookies_join(headers);
        if headers.get(header::HOST).is_none_or(|host| host != authority) {
            set(headers, header::HOST, authority);
        }
        if let Some(protocol) = upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        if parts.uri.authority().is_some() || parts.uri.scheme().is_some() {
            parts.uri = path().parse().unwrap_or_default();
        }
        parts.version = Version::HTTP_11;
    }
}

/// HTTP/2 may send cookies as many fields, HTTP/1 as one (RFC 9113, 8.2.3).
fn cookies_join(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let joined = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// Makes the head of a function's answer the one that the caller sees. `upgraded` keeps what a switch of protocols needs.
pub(crate) fn response(parts: &mut response::Parts, method: &Method, trace: &Trace, upgraded: bool) {
    let protocol = parts.headers.get(header::UPGRADE).filter(|_| upgraded).cloned();
    hop_by_hop_remove(&mut parts.headers);
    let headers = &mut parts.headers;
    if let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers.insert(header::SERVER, HeaderValue::from_static("Google Frontend"));
    headers.insert(TRACE_CONTEXT, trace.context());
    if headers.contains_key(header::SET_COOKIE) && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    // RFC 9110, 8.6: these have no content, whatever was said of its length.
    if parts.status == StatusCode::NO_CONTENT || (parts.status.is_informational() && !upgraded) || (*method == Method::CONNECT && parts.status.is_success()) {
        headers.remove(header::CONTENT_LENGTH);
    }
    // The listener speaks its own version; the instance's was between us and it.
    parts.version = Version::HTTP_11;
}

fn hop_by_hop_remove(headers: &mut HeaderMap) {
    // Most have none: one look at each name costs less than looking for each of these.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside() -> Origin {
        Origin::Outside { remote: "192.0.2.7:4000".parse().unwrap(), tls: true }
    }

    fn seen(list: &[(&'static str, &'static str)], version: Version, h2c: bool) -> request::Parts {
        let mut request = http::Request::builder().method("GET").uri("http://a.run.app/x?y=1").version(version);
        for (name, value) in list {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let trace = Trace::of(&parts.headers);
        super::request(&mut parts, "a.run.app", &outside(), "192.0.2.7", &trace, h2c);
        parts
    }

    #[test]
    fn what_is_about_one_connection_does_not_pass() {
        let parts = seen(
            &[
                ("host", "a.run.app"),
                ("connection", "keep-alive, X-Mine, close, host"),
                ("x-mine", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic x"),
                ("te", "trailers"),
                ("upgrade", "websocket"),
                ("expect", "100-continue"),
                ("x-other", "2"),
            ],
            Version::HTTP_11,
            false,
        );
        for gone in ["connection", "x-mine", "keep-alive", "proxy-authorization", "te", "upgrade", "expect"] {
            assert!(!parts.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(parts.headers["x-other"], "2");
        assert_eq!(parts.headers["host"], "a.run.app");
        assert_eq!(parts.uri, "/x?y=1");
    }

    #[test]
    fn a_caller_cannot_say_where_it_comes_from() {
        let parts = seen(
            &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "gopher"), ("forwarded", "for=me"), ("x-forwarded-host", "evil")],
            Version::HTTP_11,
            false,
        );
        assert_eq!(parts.headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(parts.headers["x-forwarded-proto"], "https");
        assert_eq!(parts.headers["forwarded"], "for=\"192.0.2.7\";proto=https");
        assert_eq!(parts.headers["via"], "1.1 google");
        assert!(!parts.headers.contains_key("x-forwarded-host"));
    }

    #[test]
    fn upgrades_pass_when_asked_for_properly() {
        let asked = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let parts = seen(&asked, Version::HTTP_11, false);
        assert_eq!((&parts.headers["connection"], &parts.headers["upgrade"]), (&HeaderValue::from_static("Upgrade"), &HeaderValue::from_static("websocket")));
        assert!(!seen(&asked, Version::HTTP_11, true).headers.contains_key("upgrade"));
        assert!(!seen(&asked, Version::HTTP_2, false).headers.contains_key("upgrade"));
        assert!(!seen(&[("connection", "upgrade"), ("upgrade", "h2c")], Version::HTTP_11, false).headers.contains_key("upgrade"));
    }

    #[test]
    fn grpc_is_known_by_its_kind_of_content() {
        let check = |kind: &'static str, version, expect| {
            let parts = http::Request::builder().version(version).header("content-type", kind).body(()).unwrap().into_parts().0;
            assert_eq!(is_grpc(&parts), expect, "{kind}");
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=1"] {
            check(kind, Version::HTTP_2, true);
            check(kind, Version::HTTP_11, false);
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            check(kind, Version::HTTP_2, false);
        }
    }

    #[test]
    fn h2c_has_the_host_as_its_authority() {
        let parts = seen(&[("host", "a.run.app"), ("te", "trailers")], Version::HTTP_2, true);
        assert_eq!(parts.uri, "https://a.run.app/x?y=1");
        assert!(!parts.headers.contains_key("host"));
        assert_eq!(parts.headers["te"], "trailers");
    }

    #[test]
    fn traces_are_kept_or_made() {
        fn check(list: &[(&'static str, &'static str)], expect: Option<(&str, &str)>) {
            let parts = seen(list, Version::HTTP_11, false);
            let text = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
            let (context, parent) = (text("x-cloud-trace-context"), text("traceparent"));
            match expect {
                Some(expect) => assert_eq!((context.as_str(), parent.as_str()), expect),
                None => {
                    assert!(Trace::from_traceparent(&parent).is_some() && Trace::from_context(&context).is_some(), "{context} {parent}");
                    assert!(!parent.contains("beef"), "{parent}");
                }
            }
        }
        let (id, parent) = ("105445aa7843bc8bf206b12000100000", "00-105445aa7843bc8bf206b12000100000-00000000000000ff-01");
        check(&[("x-cloud-trace-context", "105445aa7843bc8bf206b12000100000/255;o=1")], Some((&format!("{id}/255;o=1"), parent)));
        check(&[("traceparent", parent)], Some((&format!("{id}/255;o=1"), parent)));
        check(&[], None);
        check(&[("traceparent", "00-beef-1-01")], None);
        check(&[("traceparent", "00-00000000000000000000000000000000-00000000000000ff-01")], None);
        check(&[("x-cloud-trace-context", "beef/1")], None);
    }

    #[test]
    fn answers_are_googles() {
        let head = http::Response::builder()
            .version(Version::HTTP_10)
            .header("server", "BaseHTTP/0.6")
            .header("connection", "close, x-mine")
            .header("x-mine", "1")
            .header("set-cookie", "a=1")
            .header("upgrade", "websocket");
        let mut parts = head.body(()).unwrap().into_parts().0;
        response(&mut parts, &Method::GET, &Trace::of(&HeaderMap::new()), false);
        assert_eq!(parts.version, Version::HTTP_11);
        assert_eq!(parts.headers["server"], "Google Frontend");
        assert_eq!(parts.headers["cache-control"], "private");
        for gone in ["connection", "x-mine", "upgrade"] {
            assert!(!parts.headers.contains_key(gone), "{gone}");
        }
    }
}
