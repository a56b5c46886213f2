//! The OAuth clients that exist: Google's own command line tools. Their secrets are public, so that they prove nothing and are not asked for;
//! a code is bound to who began its flow by PKCE, and to this machine by its redirect.

/// `gcloud auth application-default login`.
const ADC: &str = "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com";

/// Pages that show the code to be copied: `gcloud auth login --no-launch-browser`. This server plays their host.
const REMOTE: [&str; 2] = ["https://sdk.cloud.google.com/authcode.html", "https://sdk.cloud.google.com/applicationdefaultauthcode.html"];

/// Whether a client has this id.
pub(crate) fn is_known(id: &str) -> bool {
    id == iam::GCLOUD_CLIENT_ID || id == ADC
}

/// The origin of a redirect that is allowed: a port of the browser's own machine, or a page that shows the code.
///
/// Nothing else, so that this server redirects nobody elsewhere. A fragment, user information and line ends are refused.
pub(crate) fn redirect_origin(uri: &str) -> Option<&str> {
    if let Some(page) = REMOTE.iter().find(|page| **page == uri) {
        return page.find(".com/").map(|at| &page[..at + 4]);
    }
    if uri.len() > 512 || !uri.bytes().all(|b| b.is_ascii_graphic()) || uri.contains(['#', '\\', '"', '<', '>', ';', ',', '\'']) {
        return None;
    }
    let authority = uri.strip_prefix("http://")?;
    let end = authority.find(['/', '?']).unwrap_or(authority.len());
    let (host, port) = authority[..end].rsplit_once(':')?;
    let port_fits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    (matches!(host, "localhost" | "127.0.0.1" | "[::1]") && port_fits).then(|| &uri[..7 + end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_this_machine_is_redirected_to() {
        let check = |uri: &str, origin: Option<&str>| assert_eq!(redirect_origin(uri), origin, "{uri}");
        check("http://localhost:8085/", Some("http://localhost:8085"));
        check("http://localhost:8085", Some("http://localhost:8085"));
        check("http://127.0.0.1:1/a?b=c", Some("http://127.0.0.1:1"));
        check("http://[::1]:65535/", Some("http://[::1]:65535"));
        check("https://sdk.cloud.google.com/authcode.html", Some("https://sdk.cloud.google.com"));
        for bad in [
            "",
            "http://localhost/",
            "http://localhost:0/",
            "http://localhost:65536/",
            "http://localhost:+80/",
            "https://localhost:8085/",
            "http://evil.com:8085/",
            "http://localhost:8085@evil.com/",
            "http://localhost:80:80@evil.com/",
            "http://localhost.evil.com:80/",
            "http://evil.com/?http://localhost:8085/",
            "http://localhost:8085/#x",
            "http://localhost:8085\\@evil.com/",
            "http://LOCALHOST:8085/",
            "http://localhost:8085/\r\nx",
            "javascript:alert(1)",
            "//localhost:8085/",
            "https://sdk.cloud.google.com/authcode.html?x",
            "urn:ietf:wg:oauth:2.0:oob",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn an_origin_is_of_this_machine(uri in "http://[a-z0-9.:@/?\\[\\]]{0,40}") {
            if let Some(origin) = redirect_origin(&uri) {
                prop_assert!(uri.starts_with(origin));
                let rest = &uri[origin.len()..];
                prop_assert!(rest.is_empty() || rest.starts_with(['/', '?']));
                prop_assert!(["http://localhost:", "http://127.0.0.1:", "http://[::1]:"].iter().any(|begin| origin.strip_prefix(begin).is_some_and(|port| port.parse::<u16>().is_ok())));
            }
        }
    }
}
