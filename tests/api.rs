//! Google's APIs by hand, as the owner of the project.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Tanebi, eventually, http1};

/// Calls of the developer whose server it is.
pub struct Client<'a> {
    pub tanebi: &'a Tanebi,
    pub token: String,
}

impl<'a> Client<'a> {
    pub fn new(tanebi: &'a Tanebi) -> Result<Self> {
        let secret = std::fs::read_to_string(tanebi.data.path().join("client/secret"))?;
        let session = eventually("a session", || {
            let address = tanebi.listen.to_string();
            let answer = http1::call(
                tanebi.listen,
                "POST",
                "/_tanebi/v1/sessions",
                &address,
                &[&format!("Authorization: Bearer {secret}")],
                br#"{"email":"developer@tanebi.local"}"#,
            );
            Ok(answer.ok().filter(|a| a.status == 200))
        })?;
        let session: Value = serde_json::from_slice(&session.body)?;
        Ok(Self { tanebi, token: session["accessToken"].as_str().context("a token")?.to_owned() })
    }

    /// # Errors
    /// What is not answered with 200.
    pub fn call(&self, method: &str, host: &str, target: &str, body: &[u8]) -> Result<Value> {
        let authorization = format!("Authorization: Bearer {}", self.token);
        let answer = http1::call(self.tanebi.listen, method, target, host, &[&authorization, "Content-Type: application/json"], body)?;
        if answer.status != 200 {
            bail!("{method} {target}: {} {}", answer.status, answer.text());
        }
        Ok(if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).unwrap_or(Value::Null) })
    }
}
