//! A service's URLs: which hosts are its own, and back.

use crate::name::{ProjectNumber, ServiceName};

/// Google's regions of Cloud Run and the two letters that stand for each in the hash form of a URL.
///
/// Source: `asia-northeast1` = `an` and others by URLs seen in public; those not seen follow the same pattern
/// and need only be distinct here.
pub const REGIONS: &[(&str, &str)] = &[
    ("africa-south1", "bq"),
    ("asia-east1", "de"),
    ("asia-east2", "df"),
    ("asia-northeast1", "an"),
    ("asia-northeast2", "dt"),
    ("asia-northeast3", "du"),
    ("asia-south1", "el"),
    ("asia-south2", "em"),
    ("asia-southeast1", "as"),
    ("asia-southeast2", "et"),
    ("asia-southeast3", "ev"),
    ("australia-southeast1", "ts"),
    ("australia-southeast2", "km"),
    ("europe-central2", "lm"),
    ("europe-north1", "lz"),
    ("europe-north2", "ma"),
    ("europe-southwest1", "no"),
    ("europe-west1", "ew"),
    ("europe-west10", "oe"),
    ("europe-west12", "og"),
    ("europe-west2", "nw"),
    ("europe-west3", "ey"),
    ("europe-west4", "ez"),
    ("europe-west6", "oa"),
    ("europe-west8", "oc"),
    ("europe-west9", "od"),
    ("me-central1", "ww"),
    ("me-central2", "wx"),
    ("me-west1", "zf"),
    ("northamerica-northeast1", "nn"),
    ("northamerica-northeast2", "pd"),
    ("northamerica-south1", "pv"),
    ("southamerica-east1", "rj"),
    ("southamerica-west1", "tl"),
    ("us-central1", "uc"),
    ("us-east1", "ue"),
    ("us-east4", "uk"),
    ("us-east5", "ul"),
    ("us-south1", "vp"),
    ("us-west1", "uw"),
    ("us-west2", "wl"),
    ("us-west3", "wm"),
    ("us-west4", "wn"),
];

/// Locations that are no regions: everywhere, multi-regions and dual-regions of buckets and triggers.
pub const LOCATIONS: &[&str] = &["global", "us", "eu", "asia", "asia1", "eur4", "eur5", "eur7", "eur8", "nam4"];

/// The two letters of `region`; `None` for what is no region.
pub fn region_code(region: &str) -> Option<&'static str> {
    REGIONS.iter().find(|(name, _)| *name == region).map(|(_, code)| *code)
}

/// The host of a project's functions in a region: a function's URL is this with its name as path.
pub fn host_of_functions(project: &str, region: &str) -> String {
    format!("{region}-{project}.cloudfunctions.net")
}

/// The region and the project's id of such a host (lower case, no port).
pub fn functions_at(host: &str) -> Option<(&'static str, &str)> {
    let name = host.strip_suffix(".cloudfunctions.net")?;
    let at = |region: &'static str| Some((region, name.strip_prefix(region)?.strip_prefix('-').filter(|project| !project.is_empty())?));
    REGIONS.iter().find_map(|(region, _)| at(region))
}

/// `SERVICE-PROJECTNUMBER.REGION`, before the domain.
pub fn host_deterministic(service: &ServiceName, number: ProjectNumber, region: &str) -> String {
    format!("{service}-{number}.{region}")
}

/// `SERVICE-HASH-CODE.a`, before the domain. `None` for an unknown region.
pub fn host_hashed(service: &ServiceName, number: ProjectNumber, region: &str) -> Option<String> {
    Some(format!("{service}-{}-{}.a", project_hash(number), region_code(region)?))
}

/// Ten of a-z0-9 that stand for a project in the hash form. Google's own function is not public; this one only has to
/// be stable and to differ between projects.
pub fn project_hash(number: ProjectNumber) -> String {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // SplitMix64's finaliser: a bijection, so that two numbers share a hash only where 36^10 wraps.
    let mut x = number.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (0..10)
        .map(|_| {
            let digit = DIGITS[(x % 36) as usize];
            x /= 36;
            digit as char
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_a_host_of_their_own() {
        assert_eq!(functions_at(&host_of_functions("my-project", "europe-west10")), Some(("europe-west10", "my-project")));
        assert_eq!(functions_at("europe-west1-p.cloudfunctions.net"), Some(("europe-west1", "p")));
        for other in ["cloudfunctions.net", "p.cloudfunctions.net", "nowhere1-p.cloudfunctions.net", "us-central1-.cloudfunctions.net", "us-central1-p.run.app"]
        {
            assert_eq!(functions_at(other), None, "{other}");
        }
    }

    #[test]
    fn codes_are_distinct() {
        let mut codes: Vec<_> = REGIONS.iter().map(|(_, code)| code).collect();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), REGIONS.len());
    }

    #[test]
    fn hosts() {
        let name = ServiceName::parse("sample-function-1").unwrap();
        let number = ProjectNumber(9_123_456_789_012);
        assert_eq!(host_deterministic(&name, number, "asia-northeast1"), "sample-function-1-9123456789012.asia-northeast1");
        let hashed = host_hashed(&name, number, "asia-northeast1").unwrap();
        assert!(hashed.ends_with("-an.a") && hashed.len() == "sample-function-1-".len() + 10 + "-an.a".len(), "{hashed}");
    }
}
