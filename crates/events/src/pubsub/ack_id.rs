//! Ack ids as clients see them: opaque text that names one lease of one subscription.
//!
//! They grant nothing: who may acknowledge is decided by the subscription's policy before one is read.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::record::uid_half;
use crate::subscription::AckId;

/// The text of an ack id of the subscription `uid`.
pub(crate) fn write(uid: &str, id: AckId) -> String {
    let parts = [uid_half(uid), id.sequence, id.epoch, id.lease];
    let bytes: Vec<u8> = parts.into_iter().flat_map(u64::to_be_bytes).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `None` for a text that is no ack id of the subscription `uid`.
pub(crate) fn read(uid: &str, text: &str) -> Option<AckId> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == 32)?;
    let mut parts = bytes.chunks_exact(8).map(|part| part.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)));
    let (half, sequence, epoch, lease) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (half == uid_half(uid)).then_some(AckId { sequence, epoch, lease })
}

#[cfg(test)]
mod tests {
    use super::{super::record::uid_new, *};

    #[test]
    fn an_ack_id_is_of_one_subscription() {
        let (one, other) = (uid_new(), uid_new());
        let id = AckId { sequence: 7, epoch: u64::MAX, lease: 3 };
        let text = write(&one, id);
        assert_eq!(read(&one, &text), Some(id));
        assert_eq!(read(&other, &text), None);
        for bad in ["", "x", "ユ", &text[1..], &format!("{text}A")] {
            assert_eq!(read(&one, bad), None, "{bad}");
        }
    }
}
