//! Known holes in dependencies, for which Google's builder refuses a source: CVE-2025-55182.
//!
//! Source: buildpacks, pkg/nodejs/vulnerability.go. Reads lock files; what no lock file names is not refused.

use serde_json::Value;

use crate::{Error, plan::user};

const NEXT: [&str; 10] = [
    ">=15.0.0-0 <15.0.5",
    ">=15.1.0-0 <15.1.9",
    ">=15.2.0-0 <15.2.6",
    ">=15.3.0-0 <15.3.6",
    ">=15.4.0-0 <15.4.8",
    ">=15.5.0-0 <15.5.7",
    ">=16.0.0-0 <16.0.7",
    ">=15.6.0-canary.0 <15.6.0-canary.58",
    ">=16.1.0-canary.0 <16.1.0-canary.12",
    ">=14.3.0-canary.77 <15.0.0",
];
const REACT: [&str; 3] = [">=19.0.0-0 <19.0.1", ">=19.1.0-0 <19.1.2", ">=19.2.0-0 <19.2.1"];
const REACT_PACKAGES: [&str; 3] = ["react-server-dom-webpack", "react-server-dom-parcel", "react-server-dom-turbopack"];

/// # Errors
/// `User`, naming the package, its version and the advice.
pub(super) fn check(files: &[(String, Vec<u8>)]) -> Result<(), Error> {
    let locks = ["pnpm-lock.yaml", "yarn.lock", "npm-shrinkwrap.json", "package-lock.json"];
    let Some((name, text)) = locks.iter().find_map(|lock| files.iter().find(|(name, text)| name == lock && !text.is_empty())) else { return Ok(()) };
    let text = String::from_utf8_lossy(text);
    let version = |package: &str| if name.ends_with(".json") { of_json(&text, package) } else { of_text(&text, package) };
    if let Some(version) = version("next").filter(|version| is_in(version, &NEXT)) {
        return Err(user(format!(
            "vulnerable Next.js version {version} detected due to CVE-2025-55182. Please upgrade to a patched version (e.g., 15.0.5, 15.1.9, 15.5.7, 16.0.7). \
             See https://github.com/vercel/next.js/security/advisories/GHSA-9qr9-h5gf-34mp for details."
        )));
    }
    for package in REACT_PACKAGES {
        if let Some(version) = version(package).filter(|version| is_in(version, &REACT)) {
            return Err(user(format!(
                "vulnerable {package} version {version} detected due to CVE-2025-55182. Please upgrade to a patched version (e.g., 19.0.1, 19.1.2, 19.2.1). \
                 See https://react.dev/blog/2025/12/03/critical-security-vulnerability-in-react-server-components for details."
            )));
        }
    }
    Ok(())
}

fn is_in(version: &str, ranges: &[&str]) -> bool {
    let Ok(version) = nodejs_semver::Version::parse(version) else { return false };
    let plain = nodejs_semver::Version::parse(version.to_string().split(['-', '+']).next().unwrap_or_default());
    ranges.iter().any(|text| {
        let Ok(range) = nodejs_semver::Range::parse(text) else { return false };
        // `-0` is there to say that pre-releases of later patches count too.
        let counts = text.contains("-0 ") && !version.pre_release().is_empty();
        range.satisfies(&version) || (counts && plain.as_ref().is_ok_and(|plain| range.satisfies(plain)))
    })
}

/// Of package-lock.json, in any of its versions.
fn of_json(text: &str, package: &str) -> Option<String> {
    let lock: Value = serde_json::from_str(text).ok()?;
    let found = lock.pointer(&format!("/packages/node_modules~1{package}/version")).or_else(|| lock.pointer(&format!("/dependencies/{package}/version")))?;
    found.as_str().map(str::to_owned)
}

/// Of yarn.lock (`next@^15:` and below it `version "15.1.0"`) and pnpm-lock.yaml (`next@15.1.0:`).
fn of_text(text: &str, package: &str) -> Option<String> {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim().trim_start_matches(['\'', '"', '/']);
        let Some(rest) = line.strip_prefix(package).and_then(|rest| rest.strip_prefix('@')) else { continue };
        let exact = rest.trim_end_matches(':').trim_end_matches(['\'', '"']).split('(').next().unwrap_or_default();
        if nodejs_semver::Version::parse(exact).is_ok() {
            return Some(exact.to_owned());
        }
        let version = lines.next()?.trim().strip_prefix("version")?.trim_start_matches(':').trim().trim_matches('"').to_owned();
        return Some(version);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_lock_file_is_looked_at() {
        fn refused(name: &str, text: &str) -> bool {
            check(&[(name.to_owned(), text.as_bytes().to_vec())]).is_err()
        }
        let npm = |version: &str| format!(r#"{{"packages":{{"node_modules/next":{{"version":"{version}"}}}}}}"#);
        for (version, expect) in [
            ("15.1.8", true),
            ("15.1.9", false),
            ("14.2.0", false),
            ("16.0.6", true),
            ("16.0.7", false),
            ("15.1.1-canary.3", true),
            ("15.6.0-canary.57", true),
            ("15.6.0-canary.58", false),
        ] {
            assert_eq!(refused("package-lock.json", &npm(version)), expect, "{version}");
        }
        assert!(refused("yarn.lock", "\nnext@^15.1.0:\n  version \"15.1.0\"\n"));
        assert!(!refused("yarn.lock", "\nnext-auth@^4:\n  version \"15.1.0\"\n"));
        assert!(refused("pnpm-lock.yaml", "packages:\n\n  next@15.5.6(react@19.0.0):\n    resolution: {}\n"));
        assert!(refused("pnpm-lock.yaml", "packages:\n\n  react-server-dom-webpack@19.1.0:\n    resolution: {}\n"));
        assert!(!refused("package.json", &npm("15.1.0")));
        assert!(!refused("package-lock.json", "{"));
    }
}
