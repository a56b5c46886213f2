//! RSA keys: making, signing, verifying, and the forms in which they are written down.
//!
//! The arithmetic is aws-lc-rs. Which key signs what, and for how long, is in `signing` and `service_account_key`.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

/// All keys here have 2048 bits, as Google's.
pub(crate) const SIGNATURE_BYTES: usize = 256;

/// A key that signs.
pub(crate) struct PrivateKey(RsaKeyPair);

/// A key that verifies; parsed once, because that is dearer than a verification.
pub(crate) struct PublicKey {
    parsed: ParsedPublicKey,
    /// SubjectPublicKeyInfo.
    der: Vec<u8>,
}

/// The key is not one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not an RSA key of 2048 bits")]
pub(crate) struct NotAKey;

impl PrivateKey {
    /// Takes tens to hundreds of milliseconds of one core.
    pub(crate) fn generate() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).expect("key generation fails only without memory or randomness"))
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, NotAKey> {
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| NotAKey)?;
        if pair.public_modulus_len() == SIGNATURE_BYTES { Ok(Self(pair)) } else { Err(NotAKey) }
    }

    pub(crate) fn to_pkcs8(&self) -> Vec<u8> {
        self.0.as_der().expect("a parsed key has a DER form").as_ref().to_vec()
    }

    pub(crate) fn public(&self) -> PublicKey {
        let der = self.0.public_key().as_der().expect("a parsed key has a DER form");
        PublicKey::from_der(der.as_ref()).expect("its own DER form is a key")
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("the buffer has the modulus' length");
        signature
    }

    /// The public modulus and exponent in base64url, as a JWK writes them (RFC 7518, section 6.3.1).
    pub(crate) fn jwk_parts(&self) -> (String, String) {
        let key = self.0.public_key();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        (text(key.modulus().big_endian_without_leading_zero()), text(key.exponent().big_endian_without_leading_zero()))
    }
}

impl PublicKey {
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, NotAKey> {
        let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).map_err(|_| NotAKey)?;
        Ok(Self { parsed, der: der.to_vec() })
    }

    pub(crate) fn from_pem(pem: &str) -> Result<Self, NotAKey> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        Self::from_der(&STANDARD.decode(body).map_err(|_| NotAKey)?)
    }

    pub(crate) fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.der)
    }

    /// SubjectPublicKeyInfo.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

/// SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The textual form of RFC 7468.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for at in (0..body.len()).step_by(64) {
        text.push_str(&body[at..body.len().min(at + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_written_forms() {
        let key = PrivateKey::generate();
        let again = PrivateKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        let signature = again.sign(b"message");
        let public = PublicKey::from_pem(&key.public().to_pem()).unwrap();
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"messagf", &signature));
        assert!(!public.verify(b"message", &signature[1..]));
        assert_eq!(public.der(), key.public().der());
        assert_eq!(key.jwk_parts(), again.jwk_parts());
        assert!(PrivateKey::from_pkcs8(b"no key").is_err());
        assert!(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").is_err());
    }
}
