//! What a proxy passes on untouched: connections to hosts that this server does not play.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderName, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serving::{Body, Request, Response, egress::UpstreamProxy};
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The way out of a user's own shell: as that user would go, so that any address of the host's network is allowed.
pub struct Tunnel {
    /// Refuse all (`--offline`).
    pub offline: bool,
    pub upstream: Option<UpstreamProxy>,
    /// The server's own ports: a tunnel to them would lead in a circle.
    pub own: Vec<std::net::SocketAddr>,
}

impl Tunnel {
    /// Answers CONNECT for a host that is not played here.
    pub async fn connect(&self, host: &str, port: u16, request: Request) -> Response {
        let onward = match self.open(host, port).await {
            Ok(onward) => onward,
            Err(refusal) => return refusal,
        };
        tokio::spawn(async move {
            let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
            let (mut client, mut onward) = (TokioIo::new(upgraded), onward);
            // Whichever side ends it, there is nobody left to tell.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut onward).await;
        });
        http::Response::new(empty())
    }

    /// Answers an absolute-form request (`GET http://host/...`) for a host that is not played here.
    pub async fn forward(&self, host: &str, port: u16, mut request: Request) -> Response {
        let onward = match self.open(host, port).await {
            Ok(onward) => onward,
            Err(refusal) => return refusal,
        };
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let Ok(uri) = path.parse::<Uri>() else { return said(StatusCode::BAD_REQUEST, "the request's target is not understood") };
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_11;
        for name in [header::PROXY_AUTHORIZATION, header::CONNECTION, HeaderName::from_static("proxy-connection")] {
            request.headers_mut().remove(name);
        }
        let sent = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(onward)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        match sent.await {
            Ok(response) => response.map(|body| body.map_err(Into::into).boxed()),
            Err(error) => said(StatusCode::BAD_GATEWAY, &format!("{host} did not answer: {error}")),
        }
    }

    async fn open(&self, host: &str, port: u16) -> Result<TcpStream, Response> {
        if self.offline {
            return Err(said(StatusCode::FORBIDDEN, &format!("tanebi runs with --offline: {host} is not one of the hosts that it plays")));
        }
        if self.own.iter().any(|own| own.port() == port) && is_loopback(host) {
            return Err(said(StatusCode::LOOP_DETECTED, "this is the proxy itself: call it without a proxy"));
        }
        let connecting = async {
            match &self.upstream {
                Some(proxy) if !proxy.bypasses(host) => proxy.connect(host, port).await,
                _ => TcpStream::connect((host, port)).await,
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => {
                // Pieces must not wait for acknowledgements of those before them.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(said(StatusCode::BAD_GATEWAY, &format!("{host}:{port} cannot be reached: {error}"))),
            Err(_) => Err(said(StatusCode::GATEWAY_TIMEOUT, &format!("{host}:{port} did not answer in {CONNECT_TIMEOUT:?}"))),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

pub fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

/// A plain text answer of the proxy's own.
pub fn said(status: StatusCode, text: &str) -> Response {
    let mut response = http::Response::new(Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}
