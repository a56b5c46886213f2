//! The commands' own HTTP client: plain HTTP/1.1 to the running server, nothing else.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;

use crate::running::Running;

/// A client of one running server.
pub struct Client {
    pub running: Running,
    pub server: Server,
    secret: String,
}

/// What the server says of itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    pub project: String,
    pub project_number: u64,
    pub region: String,
    pub owner: String,
}

impl Client {
    /// # Errors
    /// When no server runs with this data folder, or the caller may not read its secret.
    pub async fn find(data_dir: &Path) -> Result<Self> {
        let (running, secret) = (Running::find(data_dir)?, Running::secret(data_dir)?);
        let answer = json(running.listen, Method::GET, &running.listen.to_string(), "/_tanebi/v1/server", &secret, None).await?;
        Ok(Self { running, server: serde_json::from_value(answer).context("what the server says of itself")?, secret })
    }

    /// A call of tanebi's own methods (`/_tanebi/v1/...`), which the operator's secret opens.
    pub async fn own(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        json(self.running.listen, method, &self.running.listen.to_string(), path, &self.secret, body).await
    }

    /// As [`Client::own`] with POST, for an answer that comes in parts.
    pub async fn own_stream(&self, path: &str, body: &Value) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", self.running.listen.to_string())
            .header("authorization", format!("Bearer {}", self.secret))
            .header("content-type", "application/json");
        let response = send(self.running.listen, request.body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?).await?;
        if !response.status().is_success() {
            let status = response.status();
            let bytes = response.into_body().collect().await.context("reading the answer")?.to_bytes();
            let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            bail!("{}", value.pointer("/error/message").and_then(Value::as_str).unwrap_or(status.as_str()));
        }
        Ok(response)
    }

    /// A call of one of Google's APIs as the owner.
    pub async fn api(&self, token: &str, method: Method, host: &str, path: &str, body: Option<Value>) -> Result<Value> {
        json(self.running.listen, method, host, path, token, body).await
    }

    /// Any request, on a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        send(self.running.listen, request).await
    }
}

pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
    let stream = tokio::net::TcpStream::connect(address).await.with_context(|| format!("connecting to tanebi on {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

async fn json(address: SocketAddr, method: Method, host: &str, path: &str, token: &str, body: Option<Value>) -> Result<Value> {
    let mut request = Request::builder().method(method).uri(path).header("host", host).header("authorization", format!("Bearer {token}"));
    let bytes = match body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            serde_json::to_vec(&body)?
        }
        None => Vec::new(),
    };
    let response = send(address, request.body(Full::new(Bytes::from(bytes)))?).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await.context("reading the answer")?.to_bytes();
    let value: Value =
        if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).with_context(|| format!("the answer to {path} ({status}) is not JSON"))? };
    if !status.is_success() {
        let message = value.pointer("/error/message").and_then(Value::as_str).unwrap_or(status.as_str());
        bail!("{message}");
    }
    Ok(value)
}
