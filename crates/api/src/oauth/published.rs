//! What everyone may know: keys that tokens are signed with, as JWKS and as certificates, and the discovery document.

use axum::response::IntoResponse;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderValue, StatusCode, header};
use model::{Status, Timestamp};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, PublicKeyData, SerialNumber};
use serde_json::{Map, Value, json};

use crate::{Deps, Response, error::json_response, surface::Call};

/// Google's certificates name this.
const SIGNER: &str = "federated-signon.system.gserviceaccount.com";

pub(super) async fn jwks(deps: Deps, _: Call) -> Result<Response, Status> {
    let mut response = ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], deps.iam.jwks()).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, FRESH);
    Ok(response)
}

/// A key rotates daily and is published an hour before it signs: clients may keep the list for less than that.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=1800, must-revalidate, no-transform");

pub(super) async fn certificates(deps: Deps, _: Call) -> Result<Response, Status> {
    let keys: Map<String, Value> = serde_json::from_str(&deps.iam.public_keys_pem()).map_err(Status::internal)?;
    let now = deps.clock.now();
    let keys = keys.iter().filter_map(|(id, pem)| Some((id.as_str(), pem.as_str()?)));
    answer(keys.map(|(id, pem)| Ok((id.to_owned(), certificate(pem, SIGNER, now)?.into()))).collect::<Result<_, Status>>()?)
}

pub(super) async fn account_certificates(deps: Deps, call: Call) -> Result<Response, Status> {
    let email = call.var("account")?;
    let now = deps.clock.now();
    let keys = deps.iam.key_list(email)?;
    answer(keys.iter().map(|key| Ok((key.id.clone(), certificate(&key.public_key_pem, email, now)?.into()))).collect::<Result<_, Status>>()?)
}

pub(super) async fn account_jwks(deps: Deps, call: Call) -> Result<Response, Status> {
    let keys = deps.iam.key_list(call.var("account")?)?;
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| {
            let key_parts = RsaPublicKey::from_pem(&key.public_key_pem)?;
            Ok(json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": key.id, "n": key_parts.n, "e": key_parts.e }))
        })
        .collect::<Result<_, Status>>()?;
    answer(Map::from_iter([("keys".to_owned(), keys.into())]))
}

fn answer(body: Map<String, Value>) -> Result<Response, Status> {
    let mut response = json_response(StatusCode::OK, &Value::Object(body));
    response.headers_mut().insert(header::CACHE_CONTROL, FRESH);
    Ok(response)
}

/// Source: `https://accounts.google.com/.well-known/openid-configuration`, without what this server does not have.
pub(super) fn discovery() -> Response {
    json_response(
        StatusCode::OK,
        &json!({
            "issuer": iam::ISSUER,
            "authorization_endpoint": "https://accounts.google.com/o/oauth2/v2/auth",
            "token_endpoint": "https://oauth2.googleapis.com/token",
            "userinfo_endpoint": "https://openidconnect.googleapis.com/v1/userinfo",
            "revocation_endpoint": "https://oauth2.googleapis.com/revoke",
            "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "email"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "none"],
            "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "sub"],
            "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
        }),
    )
}

/// An X.509 certificate for a public key. Clients take the key out of it and look at nothing else: the issuer's key is forgotten at once.
pub(crate) fn certificate(public_key_pem: &str, name: &str, now: Timestamp) -> Result<String, Status> {
    let key = RsaPublicKey::from_pem(public_key_pem)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let day = |days: i64| {
        let at = now.checked_add(jiff::SignedDuration::from_hours(24 * days)).unwrap_or(now);
        let date = jiff::tz::Offset::UTC.to_datetime(at).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (day(-1), day(16));
    params.serial_number = Some(SerialNumber::from(rand::random::<u64>() >> 1));
    let issuer = Issuer::new(params.clone(), KeyPair::generate().map_err(Status::internal)?);
    Ok(params.signed_by(&key, &issuer).map_err(Status::internal)?.pem())
}

/// The parts of an RSA public key.
struct RsaPublicKey {
    /// RSAPublicKey (RFC 8017, A.1.1).
    der: Vec<u8>,
    /// Modulus and exponent as JWK has them.
    n: String,
    e: String,
}

impl RsaPublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM.
    fn from_pem(pem: &str) -> Result<Self, Status> {
        Self::read(pem).ok_or_else(|| Status::internal("a stored public key is no RSA key in PEM"))
    }

    fn read(pem: &str) -> Option<Self> {
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let spki = STANDARD.decode(text).ok()?;
        let (info, _) = element(0x30, &spki)?;
        let (_, rest) = element(0x30, info)?;
        let (bits, _) = element(0x03, rest)?;
        let der = bits.strip_prefix(&[0])?;
        let (numbers, _) = element(0x30, der)?;
        let (n, rest) = element(0x02, numbers)?;
        let (e, _) = element(0x02, rest)?;
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes.strip_prefix(&[0]).unwrap_or(bytes));
        Some(Self { der: der.to_vec(), n: number(n), e: number(e) })
    }
}

impl PublicKeyData for RsaPublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.der
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

/// The content of a DER element with this tag, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ ..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:512`; of no use but here.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAOm09ZnChjOdF6eaTkrGiE4KltzwlLtp\nQMZjoDNvdmUJXqGn0R2UCEnB/33eKu8NoNl051P0m7HWS/SNykpSwPUCAwEAAQ==\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_certificate_holds_the_key() {
        let key = RsaPublicKey::from_pem(PEM).unwrap();
        assert_eq!((key.e.as_str(), URL_SAFE_NO_PAD.decode(&key.n).unwrap().len()), ("AQAB", 64));
        let pem = certificate(PEM, SIGNER, "2026-11-27T00:00:00Z".parse().unwrap()).unwrap();
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(text).unwrap();
        assert!(der.windows(key.der.len()).any(|window| window == key.der));
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
            assert!(RsaPublicKey::from_pem(text).is_err(), "{text}");
        }
    }
}
