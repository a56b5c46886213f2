//! The proxy that the host itself uses: what is tunnelled goes through it.

use std::time::Duration;

use base64::Engine;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A proxy's answer to CONNECT: a status line and a few fields.
const ANSWER_MAX_BYTES: usize = 16 << 10;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An HTTP proxy, from the environment in which `serve` was started.
#[derive(Clone)]
pub struct UpstreamProxy {
    host: String,
    port: u16,
    /// `user:password`, for Proxy-Authorization; never logged.
    credentials: Option<String>,
    /// Of `no_proxy`: names, `.suffixes`, addresses, `*`.
    bypass: Vec<String>,
}

impl std::fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl UpstreamProxy {
    /// Reads `http://[user:password@]host[:port]` and a `no_proxy` list.
    ///
    /// # Errors
    /// A text saying what is not understood; it never repeats the credentials.
    pub fn parse(url: &str, no_proxy: &str) -> Result<Self, String> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(format!("proxies of kind {scheme}:// are not supported, only http://")),
            None => url,
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let uri: http::uri::Authority = address.parse().map_err(|_| "the proxy's address is not understood".to_owned())?;
        let host = uri.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err("the proxy's address has no host".into());
        }
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(80),
            credentials: credentials.map(percent_decoded),
            bypass: no_proxy.split([',', ' ']).map(|s| s.trim().to_ascii_lowercase()).filter(|s| !s.is_empty()).collect(),
        })
    }

    /// Whether `host` is to be reached without the proxy.
    pub fn bypasses(&self, host: &str) -> bool {
        self.bypass.iter().any(|rule| {
            let bare = rule.trim_start_matches('*').trim_start_matches('.');
            rule == "*" || host == bare || (host.len() > bare.len() && host.ends_with(bare) && host.as_bytes()[host.len() - bare.len() - 1] == b'.')
        })
    }

    /// A tunnel to `host:port`.
    ///
    /// # Errors
    /// When the proxy cannot be reached, answers late, or refuses; the text holds its status line.
    pub async fn connect(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(credentials) = &self.credentials {
            request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(credentials)));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = tokio::time::timeout(ANSWER_TIMEOUT, answer_read(&mut stream)).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1).is_some_and(|code| code.len() == 3 && code.starts_with('2')) {
            return Ok(stream);
        }
        Err(std::io::Error::other(format!("the upstream proxy answered {status:?}")))
    }
}

/// Reads up to the empty line, byte by byte: what follows belongs to the tunnel.
async fn answer_read(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == ANSWER_MAX_BYTES {
            return Err(std::io::Error::other("the upstream proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_environment() {
        let proxy = UpstreamProxy::parse("http://us%40er:p%3Aw@proxy.example:3128/", "localhost,.corp.example, 10.0.0.1").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port, proxy.credentials.as_deref()), ("proxy.example", 3128, Some("us@er:p:w")));
        assert_eq!(format!("{proxy:?}"), "proxy.example:3128");
        for (host, expect) in
            [("localhost", true), ("a.corp.example", true), ("corp.example", true), ("xcorp.example", false), ("10.0.0.1", true), ("pypi.org", false)]
        {
            assert_eq!(proxy.bypasses(host), expect, "{host}");
        }
        assert!(UpstreamProxy::parse("socks5://p:1", "").is_err());
        assert!(UpstreamProxy::parse("http://", "").is_err());
        assert_eq!(UpstreamProxy::parse("p:8080", "").unwrap().port, 8080);
    }
}
