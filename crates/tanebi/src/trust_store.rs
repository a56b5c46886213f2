//! Trusted certificates as Java reads them: its own key store format (JKS), which it believes without a password.
//!
//! Java's other format, PKCS #12, would have to be encrypted to hold certificates, and be decrypted at the start of each
//! virtual machine. Format: the source of OpenJDK, sun.security.provider.JavaKeyStore.

use aws_lc_rs::digest;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
/// For whoever asks for one; all of Java's own stores have it.
pub const PASSWORD: &str = "changeit";

/// The certificates of a PEM bundle. What is no certificate in it is passed over.
pub fn java(pem: &[u8]) -> Vec<u8> {
    let certificates: Vec<_> = rustls_pemfile::certs(&mut &*pem).filter_map(Result::ok).collect();
    let mut store = Vec::with_capacity(pem.len());
    let number = |store: &mut Vec<u8>, number: u32| store.extend(number.to_be_bytes());
    let text = |store: &mut Vec<u8>, text: &str| {
        store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        store.extend(text.as_bytes());
    };
    number(&mut store, MAGIC);
    number(&mut store, VERSION);
    number(&mut store, u32::try_from(certificates.len()).unwrap_or(u32::MAX));
    for (at, certificate) in certificates.iter().enumerate() {
        number(&mut store, TRUSTED_CERTIFICATE);
        text(&mut store, &format!("root-{at}"));
        // When it was added: at no time, so that the same certificates give the same store.
        store.extend(0_u64.to_be_bytes());
        text(&mut store, "X.509");
        number(&mut store, u32::try_from(certificate.len()).unwrap_or(u32::MAX));
        store.extend_from_slice(certificate);
    }
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(&PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>());
    hash.update(b"Mighty Aphrodite");
    hash.update(&store);
    store.extend_from_slice(hash.finish().as_ref());
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_lists_what_was_put_in() {
        let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap().cert.pem();
        let pem = format!("# roots\n{}\n-----BEGIN NOTHING-----\nAAAA\n-----END NOTHING-----\n{}", made("a.example"), made("b.example"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cacerts");
        std::fs::write(&path, java(pem.as_bytes())).unwrap();
        let Ok(listed) = std::process::Command::new("keytool").args(["-list", "-storepass", PASSWORD, "-keystore"]).arg(&path).output() else {
            // No JDK here.
            return;
        };
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success(), "{text}");
        assert_eq!(text.matches("trustedCertEntry").count(), 2, "{text}");
    }
}
