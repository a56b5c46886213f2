//! Kubernetes quantities: `1000m` and `0.5` of processors, `512Mi` and `1G` of memory.
//!
//! Source of the syntax: k8s.io/apimachinery's resource.Quantity; exponents (`1e3`) are not taken.

use model::Status;

/// Thousandths of a processor.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub(crate) fn cpu_parse(field: &str, text: &str) -> Result<u32, Status> {
    let bad = || Status::invalid_field(field, format!("{text:?} is no number of processors; examples are 1, 0.5 and 500m"));
    let millis = match text.strip_suffix('m') {
        Some(number) => decimal(number, 0),
        None => decimal(text, 3),
    };
    millis.and_then(|millis| u32::try_from(millis).ok()).filter(|millis| *millis > 0).ok_or_else(bad)
}

/// As Google prints it: one processor is `1000m`, more are whole numbers where they can be.
pub(crate) fn cpu_print(millis: u32) -> String {
    if millis > 1000 && millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// Bytes.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub(crate) fn memory_parse(field: &str, text: &str) -> Result<u64, Status> {
    const UNITS: [(&str, u64); 8] =
        [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];
    let bad = || Status::invalid_field(field, format!("{text:?} is no amount of memory; examples are 512Mi and 2Gi"));
    let (number, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
    let thousandths = decimal(number, 3).ok_or_else(bad)?;
    let bytes = u128::from(thousandths) * u128::from(unit);
    if bytes == 0 || !bytes.is_multiple_of(1000) {
        return Err(bad());
    }
    u64::try_from(bytes / 1000).map_err(|_| bad())
}

/// In the largest binary unit that divides it.
pub(crate) fn memory_print(bytes: u64) -> String {
    for (shift, unit) in [(30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// `text` times ten to the `places`; `None` when that is no whole number or too large.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > places || (text.contains('.') && part.is_empty()) {
        return None;
    }
    format!("{whole}{part:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpus() {
        let check = |text: &str, expect: Option<u32>| assert_eq!(cpu_parse("cpu", text).ok(), expect, "{text}");
        check("1", Some(1000));
        check("1000m", Some(1000));
        check("0.08", Some(80));
        check("0.5", Some(500));
        check("8", Some(8000));
        for bad in ["", "0", "m", "-1", "1.", ".5", "0.0001", "1e3", "1Gi", "99999999999"] {
            check(bad, None);
        }
        assert_eq!((cpu_print(1000).as_str(), cpu_print(2000).as_str(), cpu_print(80).as_str()), ("1000m", "2", "80m"));
    }

    #[test]
    fn memories() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(memory_parse("memory", text).ok(), expect, "{text}");
        check("512Mi", Some(512 << 20));
        check("1Gi", Some(1 << 30));
        check("1.5Gi", Some(3 << 29));
        check("1G", Some(1_000_000_000));
        check("1048576", Some(1 << 20));
        for bad in ["", "0", "Mi", "-1Mi", "1.0001", "512MB", "1e9", "99999999999Ti"] {
            check(bad, None);
        }
        assert_eq!((memory_print(512 << 20).as_str(), memory_print(1 << 30).as_str(), memory_print(1000).as_str()), ("512Mi", "1Gi", "1000"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(millis in 1u32.., bytes in 1u64..u64::MAX >> 12) {
            prop_assert_eq!(cpu_parse("cpu", &cpu_print(millis)).unwrap(), millis);
            prop_assert_eq!(memory_parse("memory", &memory_print(bytes)).unwrap(), bytes);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = (cpu_parse("cpu", &text), memory_parse("memory", &text));
        }
    }
}
