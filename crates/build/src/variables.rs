//! Build environment variables: what each of Google's means here.
//!
//! One that starts with `GOOGLE_` is honoured or refused, never passed over. The others are the user's own and are seen by
//! package managers inside the sandbox. Source: buildpacks, pkg/env.

use std::collections::BTreeMap;

use model::limits;

use crate::Error;

/// The variables of one build, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    /// Not empty when the source is a function.
    pub(crate) function_target: Option<String>,
    pub(crate) function_source: Option<String>,
    pub(crate) function_signature_type: Option<String>,
    /// `python` or `python312`.
    pub(crate) runtime: Option<String>,
    /// The variable that asked for a version, and the version.
    pub(crate) version: Option<(&'static str, String)>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) skip_framework_injection: bool,
    /// Folder of wheels in the source; no index is asked then.
    pub(crate) vendored: Option<String>,
    /// All that are not Google's.
    pub(crate) own: Vec<(String, String)>,
}

const HONOURED: &str = "GOOGLE_FUNCTION_TARGET, GOOGLE_FUNCTION_SOURCE, GOOGLE_FUNCTION_SIGNATURE_TYPE, GOOGLE_RUNTIME, \
    GOOGLE_PYTHON_VERSION, GOOGLE_RUNTIME_VERSION, GOOGLE_ENTRYPOINT, GOOGLE_SKIP_FRAMEWORK_INJECTION, \
    GOOGLE_VENDOR_PIP_DEPENDENCIES, GOOGLE_PYTHON_PACKAGE_MANAGER=uv";

impl Variables {
    /// # Errors
    /// `User`, naming the variable.
    pub(crate) fn parse(function_target: &str, env: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut found = Self::default();
        if env.len() > limits::ENV_COUNT_MAX {
            return Err(user(format!("There are more than {} build environment variables.", limits::ENV_COUNT_MAX)));
        }
        for (name, value) in env {
            if !name_is_plain(name) {
                return Err(user(format!("The build environment variable {name:?} is no name: letters, digits and underscores.")));
            }
            if value.contains('\0') || name.len() + value.len() > limits::ENV_BYTES_MAX {
                return Err(user(format!("The build environment variable {name} has a NUL in it or is too long (32 KiB).")));
            }
            found.one(name, value)?;
        }
        if let Some(python) = env.get("GOOGLE_PYTHON_VERSION") {
            found.version = Some(("GOOGLE_PYTHON_VERSION", python.clone()));
        }
        found.target_merge(function_target)?;
        if let (Some(_), Some(_)) = (&found.function_target, &found.entrypoint) {
            return Err(user(
                "GOOGLE_ENTRYPOINT has no meaning for a function: the functions framework is what runs. \
                 Remove it, or deploy without --function.",
            ));
        }
        if found.function_target.is_none() {
            for (name, value) in [("GOOGLE_FUNCTION_SOURCE", &found.function_source), ("GOOGLE_FUNCTION_SIGNATURE_TYPE", &found.function_signature_type)] {
                if value.is_some() {
                    return Err(user(format!("{name} is set, but there is no function: give --function ENTRY_POINT.")));
                }
            }
        }
        Ok(found)
    }

    fn one(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let text = || Some(value.to_owned());
        match name {
            "GOOGLE_FUNCTION_TARGET" if value.is_empty() => {
                return Err(user("required env var GOOGLE_FUNCTION_TARGET has an empty value"));
            }
            "GOOGLE_FUNCTION_TARGET" => self.function_target = text(),
            "GOOGLE_FUNCTION_SOURCE" => self.function_source = text(),
            "GOOGLE_FUNCTION_SIGNATURE_TYPE" => match value {
                "http" | "event" | "cloudevent" | "typed" => self.function_signature_type = text(),
                _ => {
                    return Err(user(format!("GOOGLE_FUNCTION_SIGNATURE_TYPE={value:?} is none of http, event, cloudevent, typed.")));
                }
            },
            "GOOGLE_RUNTIME" => self.runtime = text(),
            // The first one wins, see `parse`.
            "GOOGLE_PYTHON_VERSION" => {}
            "GOOGLE_RUNTIME_VERSION" => self.version = Some(("GOOGLE_RUNTIME_VERSION", value.to_owned())),
            "GOOGLE_ENTRYPOINT" if value.trim().is_empty() => {
                return Err(user("GOOGLE_ENTRYPOINT is empty."));
            }
            "GOOGLE_ENTRYPOINT" => self.entrypoint = text(),
            "GOOGLE_SKIP_FRAMEWORK_INJECTION" => self.skip_framework_injection = boolean(name, value)?,
            "GOOGLE_VENDOR_PIP_DEPENDENCIES" if value.is_empty() => {
                return Err(user("GOOGLE_VENDOR_PIP_DEPENDENCIES is empty: name the folder of the source that holds the wheels."));
            }
            "GOOGLE_VENDOR_PIP_DEPENDENCIES" => self.vendored = text(),
            "GOOGLE_PYTHON_PACKAGE_MANAGER" if value == "uv" => {}
            "GOOGLE_PYTHON_PACKAGE_MANAGER" => {
                return Err(user(format!(
                    "GOOGLE_PYTHON_PACKAGE_MANAGER={value:?} is not supported on this host: dependencies are installed with uv. \
                     Remove the variable or set it to uv."
                )));
            }
            name if name.starts_with("GOOGLE_") => {
                return Err(user(format!("The build environment variable {name} is not supported on this host. Remove it. Supported: {HONOURED}.")));
            }
            name => self.own.push((name.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    fn target_merge(&mut self, given: &str) -> Result<(), Error> {
        if !given.is_empty() {
            if let Some(other) = self.function_target.as_deref().filter(|other| *other != given) {
                return Err(user(format!("GOOGLE_FUNCTION_TARGET={other:?} is not the function target {given:?}. Remove one of them.")));
            }
            self.function_target = Some(given.to_owned());
        }
        match &self.function_target {
            Some(target) if target.len() > 256 || target.chars().any(|c| c.is_control() || c.is_whitespace()) => {
                Err(user(format!("The function target {target:?} is no name of a function.")))
            }
            _ => Ok(()),
        }
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(user(format!("{name}={value:?} is neither true nor false."))),
    }
}

fn name_is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn user(text: impl Into<String>) -> Error {
    Error::User(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &str, env: &[(&str, &str)]) -> Result<Variables, Error> {
        Variables::parse(target, &env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_variable_of_googles_is_honoured_or_refused() {
        fn check(target: &str, env: &[(&str, &str)], expect: &str) {
            let got = parse(target, env);
            match &got {
                Ok(_) => assert_eq!(expect, "", "{env:?} was taken"),
                Err(error) => assert!(!expect.is_empty() && error.to_string().contains(expect), "{env:?}: {error}"),
            }
        }
        check("f", &[], "");
        check("", &[("GOOGLE_FUNCTION_TARGET", "f")], "");
        check("f", &[("GOOGLE_FUNCTION_TARGET", "f")], "");
        check("f", &[("GOOGLE_FUNCTION_TARGET", "g")], "is not the function target");
        check("f", &[("GOOGLE_FUNCTION_TARGET", "")], "required env var GOOGLE_FUNCTION_TARGET has an empty value");
        check("a b", &[], "no name of a function");
        check("f", &[("GOOGLE_FUNCTION_SIGNATURE_TYPE", "cloudevent")], "");
        check("f", &[("GOOGLE_FUNCTION_SIGNATURE_TYPE", "grpc")], "none of http");
        check("f", &[("GOOGLE_ENTRYPOINT", "x")], "no meaning for a function");
        check("", &[("GOOGLE_ENTRYPOINT", "python main.py")], "");
        check("", &[("GOOGLE_ENTRYPOINT", " ")], "is empty");
        check("", &[("GOOGLE_FUNCTION_SOURCE", "x.py")], "there is no function");
        check("f", &[("GOOGLE_PYTHON_PACKAGE_MANAGER", "uv")], "");
        check("f", &[("GOOGLE_PYTHON_PACKAGE_MANAGER", "pip")], "installed with uv");
        check("f", &[("GOOGLE_PYTHON_PACKAGE_MANAGER", "poetry")], "installed with uv");
        check("f", &[("GOOGLE_SKIP_FRAMEWORK_INJECTION", "TRUE")], "");
        check("f", &[("GOOGLE_SKIP_FRAMEWORK_INJECTION", "yes")], "neither true nor false");
        check("f", &[("GOOGLE_BUILDABLE", "./x")], "GOOGLE_BUILDABLE is not supported");
        check("f", &[("GOOGLE_WHATEVER", "")], "GOOGLE_WHATEVER is not supported");
        check("f", &[("MY_TOKEN", "x")], "");
        check("f", &[("A=B", "x")], "is no name");
        check("f", &[("1A", "x")], "is no name");
        check("f", &[("A", "x\0")], "NUL");
    }

    #[test]
    fn own_variables_are_kept_and_the_first_version_wins() {
        let got = parse("f", &[("GOOGLE_RUNTIME_VERSION", "3.11"), ("GOOGLE_PYTHON_VERSION", "3.12"), ("X", "1")]).unwrap();
        assert_eq!(got.version, Some(("GOOGLE_PYTHON_VERSION", "3.12".to_owned())));
        assert_eq!(got.own, [("X".to_owned(), "1".to_owned())]);
        let got = parse("f", &[("GOOGLE_RUNTIME_VERSION", "3.11")]).unwrap();
        assert_eq!(got.version, Some(("GOOGLE_RUNTIME_VERSION", "3.11".to_owned())));
    }
}
