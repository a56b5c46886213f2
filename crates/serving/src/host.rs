//! Which host a request names, and which hosts a service has.
//!
//! A host is taken from the request's target and its Host header, which must agree; nothing else names a service. The table of
//! hosts is `table.rs`. Forms of a service's hosts: `model::address`.

use std::borrow::Cow;

use http::{HeaderMap, Uri, Version, header, request::Parts, uri::Authority};
use model::{ProjectNumber, ServiceKey, address};

use crate::refusal::Refusal;

/// The authority of a request, `host` or `host:port`. `None` when it names none, which only HTTP/1.0 may.
///
/// # Errors
/// `MalformedRequest` when target and Host header disagree, when there are two Host headers, when either holds user
/// information or a character that no host has, and when HTTP/1.1 comes without one.
pub fn authority(parts: &Parts) -> Result<Option<&str>, Refusal> {
    authority_of(&parts.uri, &parts.headers, parts.version)
}

/// [`authority`] of a head that is not in one piece.
///
/// # Errors
/// As there.
pub fn authority_of<'a>(uri: &'a Uri, headers: &'a HeaderMap, version: Version) -> Result<Option<&'a str>, Refusal> {
    let mut named = headers.get_all(header::HOST).iter();
    let header = match (named.next(), named.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().map_err(|_| Refusal::MalformedRequest)?),
        (Some(_), Some(_)) => return Err(Refusal::MalformedRequest),
    };
    let target = uri.authority().map(Authority::as_str);
    for text in [header, target].into_iter().flatten() {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']')) {
            return Err(Refusal::MalformedRequest);
        }
        // RFC 9110 allows an empty port; a number above 65535 is none.
        if port_text(text).is_some_and(|port| !port.is_empty() && port.parse::<u16>().is_err()) {
            return Err(Refusal::MalformedRequest);
        }
    }
    match (target, header) {
        (Some(target), Some(header)) if !same(target, header) => Err(Refusal::MalformedRequest),
        (Some(target), _) => Ok(Some(target)),
        (None, Some(header)) => Ok(Some(header)),
        (None, None) if version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(Refusal::MalformedRequest),
    }
}

fn same(a: &str, b: &str) -> bool {
    let default = |text: &str| matches!(port_text(text), None | Some("80" | "443"));
    a.eq_ignore_ascii_case(b) || (host(a).eq_ignore_ascii_case(host(b)) && default(a) && default(b))
}

/// `authority` without its port.
pub fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && (host.starts_with('[') || !host.contains(':')) => host,
        _ => authority,
    }
}

/// The port of `authority`, when it names one.
pub fn port(authority: &str) -> Option<u16> {
    port_text(authority)?.parse().ok()
}

fn port_text(authority: &str) -> Option<&str> {
    authority.strip_prefix(host(authority))?.strip_prefix(':')
}

/// `host` as the table spells it.
pub(crate) fn lowered(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) }
}

/// Whether `host` lies below one of `domains`.
pub(crate) fn below(host: &str, domains: &[String]) -> bool {
    domains.iter().any(|domain| {
        let Some(cut) = host.len().checked_sub(domain.len()) else { return false };
        cut > 1 && host.is_char_boundary(cut) && host[cut..].eq_ignore_ascii_case(domain) && host.as_bytes()[cut - 1] == b'.'
    })
}

/// Every host of a service, with those of `tag` when one is given.
pub(crate) fn names(service: &ServiceKey, number: ProjectNumber, domains: &[String], tag: Option<&str>) -> Vec<String> {
    let forms = [
        Some(address::host_deterministic(&service.service, number, service.region.as_str())),
        address::host_hashed(&service.service, number, service.region.as_str()),
    ];
    let prefix = tag.map(|tag| format!("{tag}---")).unwrap_or_default();
    let mut names = Vec::with_capacity(2 * domains.len());
    for domain in domains {
        for form in forms.iter().flatten() {
            names.push(format!("{prefix}{form}.{}", domain.to_ascii_lowercase()));
        }
    }
    names
}

/// The host of an audience such as `https://HOST`, `https://HOST:8080` or `https://HOST/path`; `None` when it is no such URL. A query or a
/// fragment makes it none, as at Google (`docs/decisions/0019-schemas-audiences-and-upkeep.md`).
pub(crate) fn of_audience(audience: &str) -> Option<&str> {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"))?;
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    (!authority.is_empty() && !rest.contains(['?', '#'])).then(|| host(authority))
}

/// The function that a path begins with, and the URI without it.
pub(crate) fn function_path(uri: &http::Uri) -> Option<(String, http::Uri)> {
    let path = uri.path_and_query()?.as_str().strip_prefix('/')?;
    let end = path.find(['/', '?']).unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest.parse().ok()?);
    Some((name.to_owned(), http::Uri::from_parts(parts).ok()?))
}

#[cfg(test)]
mod tests {
    use model::{ProjectId, Region, ServiceName};

    use super::*;

    fn parts(target: &str, hosts: &[&str], version: Version) -> Parts {
        let mut request = http::Request::builder().uri(target).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn target_and_host_must_agree() {
        fn check(target: &str, hosts: &[&str], expect: Option<&str>) {
            assert_eq!(authority(&parts(target, hosts, Version::HTTP_11)).ok().flatten(), expect, "{target} {hosts:?}");
        }
        check("/", &["a.run.app"], Some("a.run.app"));
        check("/", &["a.run.app:8080"], Some("a.run.app:8080"));
        check("http://a.run.app/x", &["a.run.app"], Some("a.run.app"));
        check("http://a.run.app/x", &["A.RUN.APP"], Some("a.run.app"));
        check("http://a.run.app:80/x", &["a.run.app"], Some("a.run.app:80"));
        check("http://a.run.app/x", &["b.run.app"], None);
        check("http://a.run.app:81/x", &["a.run.app"], None);
        check("http://b.run.app@a.run.app/x", &["a.run.app"], None);
        check("/", &["b.run.app@a.run.app"], None);
        check("/", &["a.run.app", "a.run.app"], None);
        check("/", &["a.run.app, b.run.app"], None);
        check("/", &["a.run.app/"], None);
        check("/", &[""], None);
        check("/", &["a.run.app:65536"], None);
        check("/", &["a.run.app:x"], None);
        check("/", &["a.run.app:"], Some("a.run.app:"));
        check("/", &[], None);
        assert_eq!(authority(&parts("/", &[], Version::HTTP_10)), Ok(None));
    }

    #[test]
    fn ports_are_cut_off() {
        for (text, expect) in [("a.b", "a.b"), ("a.b:1", "a.b"), ("[::1]", "[::1]"), ("[::1]:8080", "[::1]"), ("::1", "::1")] {
            assert_eq!(host(text), expect);
        }
    }

    #[test]
    fn domains_own_what_is_below_them() {
        let domains = ["run.app".to_owned(), "run.localhost".to_owned()];
        for (host, expect) in [
            ("a.run.app", true),
            ("A.Run.App", true),
            ("x.y.run.localhost", true),
            ("run.app", false),
            (".run.app", false),
            ("arun.app", false),
            ("a.run.app.evil", false),
            ("é", false),
        ] {
            assert_eq!(below(host, &domains), expect, "{host}");
        }
    }

    #[test]
    fn a_service_has_two_forms_in_each_domain() {
        let key = ServiceKey {
            project: ProjectId::parse("my-project").unwrap(),
            region: Region::parse("asia-northeast1").unwrap(),
            service: ServiceName::parse("hello").unwrap(),
        };
        let domains = ["run.app".to_owned(), "Run.Localhost".to_owned()];
        let number = ProjectNumber(9_000_000_000_001);
        let hash = address::project_hash(number);
        assert_eq!(
            names(&key, number, &domains, None),
            [
                "hello-9000000000001.asia-northeast1.run.app".to_owned(),
                format!("hello-{hash}-an.a.run.app"),
                "hello-9000000000001.asia-northeast1.run.localhost".to_owned(),
                format!("hello-{hash}-an.a.run.localhost"),
            ]
        );
        assert_eq!(names(&key, number, &domains, Some("green"))[0], "green---hello-9000000000001.asia-northeast1.run.app");
    }

    #[test]
    fn audiences() {
        for (audience, expect) in [
            ("https://a.run.app", Some("a.run.app")),
            ("https://a.run.app/", Some("a.run.app")),
            ("http://a.run.localhost:8080", Some("a.run.localhost")),
            ("https://a.run.app/path/more", Some("a.run.app")),
            ("https://a.run.app/path?x=1", None),
            ("https://a.run.app?x", None),
            ("https://a.run.app/#x", None),
            ("https://b@a.run.app/", Some("b@a.run.app")),
            ("https:///path", None),
            ("a.run.app", None),
            ("https://", None),
        ] {
            assert_eq!(of_audience(audience), expect, "{audience}");
        }
    }

    #[test]
    fn a_functions_name_is_cut_off_its_path() {
        for (uri, name, rest) in [
            ("/f", "f", "/"),
            ("/f/", "f", "/"),
            ("/f/a/b?c=d", "f", "/a/b?c=d"),
            ("/f?c=d", "f", "/?c=d"),
            ("http://us-central1-p.cloudfunctions.net/f//x", "f", "http://us-central1-p.cloudfunctions.net//x"),
        ] {
            let (found, left) = function_path(&uri.parse().unwrap()).unwrap();
            assert_eq!((found.as_str(), left.to_string().as_str()), (name, rest), "{uri}");
        }
    }
}
