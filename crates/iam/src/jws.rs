//! Signed tokens in compact form (RFC 7515), the one kind that is made and taken here: RS256, no extension.
//!
//! The reader is narrower than the RFC. The algorithm is pinned; a header may hold `alg`, `kid` and `typ` only, so
//! `crit`, `jku`, `jwk`, `x5u`, `zip` and every key that a token would bring along are refused before anything is looked up;
//! base64 must be the canonical unpadded form and JSON objects may not name a field twice, so that a token has one spelling.
//! General JWT libraries take several of these, therefore the reading is done here and only the arithmetic is a library's.
//!
//! It knows no key and no claim: who may have signed, and what the claims must say, is the callers' part.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};

use crate::{TokenError, keys};

/// A longer token is refused unread, in bytes. Headers of requests have room for little more.
pub(crate) const TOKEN_MAX_BYTES: usize = 16 << 10;

/// A token taken apart; nothing about it is verified yet.
pub(crate) struct Jws<'a> {
    pub(crate) header: Header,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) typ: Option<String>,
}

impl<'a> Jws<'a> {
    /// # Errors
    /// `Malformed` for anything but the narrow form, before any cryptography.
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header: Header = object(&decode(header)?)?;
        if header.alg != "RS256" {
            return Err(TokenError::Malformed);
        }
        let jws = Self { header, signed, payload: decode(payload)?, signature: decode(signature)? };
        if jws.signature.len() != keys::SIGNATURE_BYTES {
            return Err(TokenError::Malformed);
        }
        Ok(jws)
    }

    /// # Errors
    /// `Signature` when `key` did not sign this.
    pub(crate) fn verify(&self, key: &keys::PublicKey) -> Result<(), TokenError> {
        if key.verify(self.signed.as_bytes(), &self.signature) { Ok(()) } else { Err(TokenError::Signature) }
    }

    /// The claims. To be believed only after [`Jws::verify`].
    ///
    /// # Errors
    /// `Malformed` when they are no JSON object of this form or name a claim twice.
    pub(crate) fn claims<T: DeserializeOwned>(&self) -> Result<T, TokenError> {
        object(&self.payload)
    }
}

/// Signs `claims`; `typ` tells kinds of tokens apart.
pub(crate) fn sign(key: &keys::PrivateKey, kid: &str, typ: &str, claims: &impl Serialize) -> String {
    sign_text(key, kid, typ, &serde_json::to_vec(claims).expect("strings and numbers are always JSON"))
}

/// Signs a payload as it is.
pub(crate) fn sign_text(key: &keys::PrivateKey, kid: &str, typ: &str, payload: &[u8]) -> String {
    let header = Header { alg: "RS256".to_owned(), kid: Some(kid.to_owned()), typ: Some(typ.to_owned()) };
    let header = serde_json::to_vec(&header).expect("strings are always JSON");
    let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(token.as_bytes()));
    token.push('.');
    token.push_str(&signature);
    token
}

/// Canonical unpadded base64url: the engine refuses padding and set trailing bits.
fn decode(text: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)
}

/// A JSON object that names no field twice.
pub(crate) fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, TokenError> {
    let UniqueFields(fields) = serde_json::from_slice(json).map_err(|_| TokenError::Malformed)?;
    serde_json::from_value(serde_json::Value::Object(fields)).map_err(|_| TokenError::Malformed)
}

/// An object that names no field twice. Of two equal names, readers take the first or the last: a signer and a verifier
/// may then have read different claims.
struct UniqueFields(serde_json::Map<String, serde_json::Value>);

impl<'de> Deserialize<'de> for UniqueFields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = UniqueFields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = serde_json::Map::new();
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field twice"));
                    }
                }
                Ok(UniqueFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
            let _ = Jws::parse(&text);
        }

        #[test]
        fn any_three_parts_are_read_without_panic(header in proptest::collection::vec(any::<u8>(), 0..60), payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let token = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode([0; 256]));
            if let Ok(jws) = Jws::parse(&token) {
                let _ = jws.claims::<serde_json::Value>();
            }
        }
    }

    #[test]
    fn objects_name_each_field_once() {
        assert!(object::<serde_json::Value>(br#"{"a":1,"b":2}"#).is_ok());
        for bad in [&br#"{"a":1,"a":1}"#[..], br#"{"a":1,"\u0061":2}"#, b"[]", b"1", b"", br#"{"a":1}x"#, br#"{"a":1}{}"#, b"{\"a\":\"\xff\"}", br#"{"a":1,}"#]
        {
            assert!(object::<serde_json::Value>(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
