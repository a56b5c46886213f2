//! `Range` of a download and `Content-Range` of an upload's chunk, understood.
//!
//! Pure. Source: RFC 9110 section 14; the upload protocol of Cloud Storage's JSON API.

/// What of an object's bytes a download is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of them: no `Range`, or one that is not understood, which RFC 9110 says to ignore.
    All,
    /// `first..=last`; never empty.
    Part { first: u64, last: u64 },
    /// Nothing that the object has: 416.
    Unsatisfiable,
}

/// Reads a `Range` header against an object of `size` bytes. Several ranges at once are answered with all bytes, as Google does.
pub(crate) fn range_parse(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Wanted::All };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::All };
    match (digits(first), digits(last)) {
        (Some(first), Some(last)) if last < first => Wanted::All,
        (Some(first), _) if first >= size && (last.is_empty() || digits(last).is_some()) => Wanted::Unsatisfiable,
        (Some(first), Some(last)) => Wanted::Part { first, last: last.min(size - 1) },
        (Some(first), None) if last.is_empty() => Wanted::Part { first, last: size - 1 },
        (None, Some(0)) if first.is_empty() => Wanted::Unsatisfiable,
        (None, Some(_)) if first.is_empty() && size == 0 => Wanted::Unsatisfiable,
        (None, Some(tail)) if first.is_empty() => Wanted::Part { first: size.saturating_sub(tail), last: size - 1 },
        _ => Wanted::All,
    }
}

/// What a request to an upload session brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Bytes `first..=last` of an object whose size is `total`, when it is known. Without `last` those from `first` to the end of the object,
    /// which is the body's.
    Bytes { first: u64, last: Option<u64>, total: Option<u64> },
    /// No bytes: how much has arrived? With `total`, and when all of it has, the object is finished.
    Status { total: Option<u64> },
}

/// Reads `Content-Range`: `bytes 0-524287/2000000`, `bytes 0-524287/*`, `bytes 0-*/*`, `bytes */2000000`, `bytes */*`.
pub(crate) fn content_range_parse(header: &str) -> Option<Chunk> {
    let (range, total) = header.trim().strip_prefix("bytes")?.trim_start_matches([' ', '=']).split_once('/')?;
    let total = if total == "*" { None } else { Some(digits(total)?) };
    if range == "*" {
        return Some(Chunk::Status { total });
    }
    let (first, last) = range.split_once('-')?;
    let first = digits(first)?;
    let last = if last == "*" { None } else { Some(digits(last)?) };
    let is_within = last.is_none_or(|last| first <= last) && total.is_none_or(|total| last.unwrap_or(first) < total);
    is_within.then_some(Chunk::Bytes { first, last, total })
}

/// A number of ASCII digits only: `u64::from_str` would take a sign.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges() {
        let check = |header: &str, size: u64, expect: Wanted| assert_eq!(range_parse(Some(header), size), expect, "{header} of {size}");
        check("bytes=0-9", 100, Wanted::Part { first: 0, last: 9 });
        check("bytes=0-", 100, Wanted::Part { first: 0, last: 99 });
        check("bytes=90-500", 100, Wanted::Part { first: 90, last: 99 });
        check("bytes=-10", 100, Wanted::Part { first: 90, last: 99 });
        check("bytes=-500", 100, Wanted::Part { first: 0, last: 99 });
        check("bytes=100-", 100, Wanted::Unsatisfiable);
        check("bytes=100-200", 100, Wanted::Unsatisfiable);
        check("bytes=0-", 0, Wanted::Unsatisfiable);
        check("bytes=-1", 0, Wanted::Unsatisfiable);
        check("bytes=-0", 100, Wanted::Unsatisfiable);
        for ignored in ["bytes=9-0", "bytes=a-b", "bytes=0-1,3-4", "bytes=-", "bytes", "lines=0-1", "bytes=+1-2", ""] {
            check(ignored, 100, Wanted::All);
        }
        assert_eq!(range_parse(None, 0), Wanted::All);
    }

    #[test]
    fn content_ranges() {
        let check = |header: &str, expect: Option<Chunk>| assert_eq!(content_range_parse(header), expect, "{header}");
        check("bytes 0-9/10", Some(Chunk::Bytes { first: 0, last: Some(9), total: Some(10) }));
        check("bytes 0-9/*", Some(Chunk::Bytes { first: 0, last: Some(9), total: None }));
        check("bytes 5-*/10", Some(Chunk::Bytes { first: 5, last: None, total: Some(10) }));
        check("bytes 0-*/*", Some(Chunk::Bytes { first: 0, last: None, total: None }));
        check("bytes */10", Some(Chunk::Status { total: Some(10) }));
        check("bytes */*", Some(Chunk::Status { total: None }));
        check("bytes */0", Some(Chunk::Status { total: Some(0) }));
        for bad in [
            "bytes 0-10/10",
            "bytes 9-0/10",
            "bytes 0-9",
            "0-9/10",
            "bytes -9/10",
            "bytes 10-*/10",
            "bytes *-9/10",
            "bytes 0-9/+10",
            "bytes 0-18446744073709551616/*",
            "",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_object(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in any::<u64>()) {
            if let Wanted::Part { first, last } = range_parse(Some(&header), size) {
                prop_assert!(first <= last && last < size);
            }
        }

        #[test]
        fn nothing_panics(header in ".*", size in any::<u64>()) {
            let _ = (range_parse(Some(&header), size), content_range_parse(&header));
        }
    }
}
