//! Build environment variables: what each of Google's means here.
//!
//! One that starts with `GOOGLE_` is honoured or refused, never passed over. The others are the user's own and are seen by
//! package managers inside the sandbox. Source: buildpacks, pkg/env.

use std::collections::BTreeMap;

use model::limits;

use crate::{Error, Language};

/// The variables of one build, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    /// Not empty when the source is a function.
    pub(crate) function_target: Option<String>,
    pub(crate) function_source: Option<String>,
    pub(crate) function_signature_type: Option<String>,
    /// `python` or `python312`.
    pub(crate) runtime: Option<String>,
    /// Of any language.
    pub(crate) runtime_version: Option<String>,
    pub(crate) python_version: Option<String>,
    pub(crate) nodejs_version: Option<String>,
    pub(crate) go_version: Option<String>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) skip_framework_injection: bool,
    /// Package or module to build: Go and Java.
    pub(crate) buildable: Option<String>,
    /// Python: folder of wheels in the source; no index is asked then.
    pub(crate) vendored: Option<String>,
    /// Python: `pip` for a pyproject.toml.
    pub(crate) python_package_manager: Option<String>,
    /// Node.js: the manager of a source without a lock file.
    pub(crate) package_manager: Option<String>,
    /// Node.js: node_modules comes with the source.
    pub(crate) vendored_npm: bool,
    /// Node.js: scripts to run instead of the usual ones; empty for none.
    pub(crate) node_run_scripts: Option<String>,
    /// Node.js: MiB of an instance, by which its heap is set.
    pub(crate) memory_hint: Option<u32>,
    /// Node.js: known holes in dependencies are no reason to refuse.
    pub(crate) allow_vulnerable: bool,
    pub(crate) go_gcflags: Option<String>,
    pub(crate) go_ldflags: Option<String>,
    /// Java: further arguments, or all of them.
    pub(crate) build_args: Option<String>,
    pub(crate) maven_build_args: Option<String>,
    pub(crate) gradle_build_args: Option<String>,
    /// All that are not Google's.
    pub(crate) own: Vec<(String, String)>,
}

/// Google's variables that mean something, and for which language only.
const HONOURED: [(&str, Option<Language>); 23] = [
    ("GOOGLE_FUNCTION_TARGET", None),
    ("GOOGLE_FUNCTION_SOURCE", None),
    ("GOOGLE_FUNCTION_SIGNATURE_TYPE", None),
    ("GOOGLE_RUNTIME", None),
    ("GOOGLE_RUNTIME_VERSION", None),
    ("GOOGLE_ENTRYPOINT", None),
    ("GOOGLE_SKIP_FRAMEWORK_INJECTION", None),
    ("GOOGLE_BUILDABLE", None),
    ("GOOGLE_PYTHON_VERSION", Some(Language::Python)),
    ("GOOGLE_PYTHON_PACKAGE_MANAGER", Some(Language::Python)),
    ("GOOGLE_VENDOR_PIP_DEPENDENCIES", Some(Language::Python)),
    ("GOOGLE_NODEJS_VERSION", Some(Language::Nodejs)),
    ("GOOGLE_PACKAGE_MANAGER", Some(Language::Nodejs)),
    ("GOOGLE_VENDOR_NPM_DEPENDENCIES", Some(Language::Nodejs)),
    ("GOOGLE_NODE_RUN_SCRIPTS", Some(Language::Nodejs)),
    ("GOOGLE_CONTAINER_MEMORY_HINT_MB", Some(Language::Nodejs)),
    ("GOOGLE_ALLOW_VULNERABLE_DEPENDENCIES", Some(Language::Nodejs)),
    ("GOOGLE_GO_VERSION", Some(Language::Go)),
    ("GOOGLE_GOGCFLAGS", Some(Language::Go)),
    ("GOOGLE_GOLDFLAGS", Some(Language::Go)),
    ("GOOGLE_BUILD_ARGS", Some(Language::Java)),
    ("GOOGLE_MAVEN_BUILD_ARGS", Some(Language::Java)),
    ("GOOGLE_GRADLE_BUILD_ARGS", Some(Language::Java)),
];

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

    /// Refuses those that mean something for another language only.
    /// # Errors
    /// `User`, naming the variable.
    pub(crate) fn fit(&self, language: Language) -> Result<(), Error> {
        let set = |name: &str, is_set: bool| is_set.then(|| name.to_owned());
        let given = [
            set("GOOGLE_PYTHON_VERSION", self.python_version.is_some()),
            set("GOOGLE_PYTHON_PACKAGE_MANAGER", self.python_package_manager.is_some()),
            set("GOOGLE_VENDOR_PIP_DEPENDENCIES", self.vendored.is_some()),
            set("GOOGLE_NODEJS_VERSION", self.nodejs_version.is_some()),
            set("GOOGLE_PACKAGE_MANAGER", self.package_manager.is_some()),
            set("GOOGLE_VENDOR_NPM_DEPENDENCIES", self.vendored_npm),
            set("GOOGLE_NODE_RUN_SCRIPTS", self.node_run_scripts.is_some()),
            set("GOOGLE_CONTAINER_MEMORY_HINT_MB", self.memory_hint.is_some()),
            set("GOOGLE_ALLOW_VULNERABLE_DEPENDENCIES", self.allow_vulnerable),
            set("GOOGLE_GO_VERSION", self.go_version.is_some()),
            set("GOOGLE_GOGCFLAGS", self.go_gcflags.is_some()),
            set("GOOGLE_GOLDFLAGS", self.go_ldflags.is_some()),
            set("GOOGLE_BUILD_ARGS", self.build_args.is_some()),
            set("GOOGLE_MAVEN_BUILD_ARGS", self.maven_build_args.is_some()),
            set("GOOGLE_GRADLE_BUILD_ARGS", self.gradle_build_args.is_some()),
        ];
        for name in given.into_iter().flatten() {
            let own = HONOURED.iter().find(|(known, _)| *known == name).and_then(|(_, language)| *language);
            if let Some(own) = own.filter(|own| *own != language) {
                return Err(user(format!("{name} is for {}, and this source is built for {}. Remove it.", own.name(), language.name())));
            }
        }
        if self.buildable.is_some() && !matches!(language, Language::Go | Language::Java) {
            return Err(user(format!("GOOGLE_BUILDABLE is for Go and Java, and this source is built for {}. Remove it.", language.name())));
        }
        Ok(())
    }

    fn one(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let text = || Some(value.to_owned());
        let lower = value.to_ascii_lowercase();
        let plain = |what: &str| {
            let is_flag = name == "GOOGLE_BUILDABLE" && value.trim_start().starts_with('-');
            let is_plain = !value.trim().is_empty() && !value.contains(['\n', '\r']) && !is_flag;
            if is_plain { Ok(Some(value.to_owned())) } else { Err(user(format!("{name} is no {what}: {value:?}."))) }
        };
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
            "GOOGLE_RUNTIME_VERSION" => self.runtime_version = text(),
            "GOOGLE_PYTHON_VERSION" => self.python_version = text(),
            "GOOGLE_NODEJS_VERSION" => self.nodejs_version = text(),
            "GOOGLE_GO_VERSION" => self.go_version = text(),
            // None at all, as at Google.
            "GOOGLE_ENTRYPOINT" if value.trim().is_empty() => {}
            "GOOGLE_ENTRYPOINT" => self.entrypoint = text(),
            "GOOGLE_SKIP_FRAMEWORK_INJECTION" => self.skip_framework_injection = boolean(name, value)?,
            "GOOGLE_VENDOR_PIP_DEPENDENCIES" if value.is_empty() => {
                return Err(user("GOOGLE_VENDOR_PIP_DEPENDENCIES is empty: name the folder of the source that holds the wheels."));
            }
            "GOOGLE_VENDOR_PIP_DEPENDENCIES" => self.vendored = text(),
            "GOOGLE_PYTHON_PACKAGE_MANAGER" if ["pip", "uv"].contains(&lower.as_str()) => self.python_package_manager = Some(lower),
            "GOOGLE_PYTHON_PACKAGE_MANAGER" => return Err(user(format!("GOOGLE_PYTHON_PACKAGE_MANAGER={value:?} is neither pip nor uv."))),
            "GOOGLE_PACKAGE_MANAGER" if ["npm", "yarn", "pnpm", "bun"].contains(&lower.as_str()) => self.package_manager = Some(lower),
            "GOOGLE_PACKAGE_MANAGER" => return Err(user(format!("GOOGLE_PACKAGE_MANAGER={value:?} is none of npm, yarn, pnpm, bun."))),
            "GOOGLE_VENDOR_NPM_DEPENDENCIES" => self.vendored_npm = boolean(name, value)?,
            "GOOGLE_NODE_RUN_SCRIPTS" => self.node_run_scripts = text(),
            "GOOGLE_ALLOW_VULNERABLE_DEPENDENCIES" => self.allow_vulnerable = boolean(name, value)?,
            "GOOGLE_CONTAINER_MEMORY_HINT_MB" => match value.parse::<u32>() {
                Err(e) => return Err(user(format!("{name}={value:?} must be an integer: {e}"))),
                Ok(..=64) => return Err(user(format!("{name}={value:?} must be greater than 64"))),
                Ok(mib) => self.memory_hint = Some(mib),
            },
            "GOOGLE_BUILDABLE" => self.buildable = plain("package or module")?,
            "GOOGLE_GOGCFLAGS" => self.go_gcflags = plain("flags of the compiler")?,
            "GOOGLE_GOLDFLAGS" => self.go_ldflags = plain("flags of the linker")?,
            "GOOGLE_BUILD_ARGS" => self.build_args = plain("list of arguments")?,
            "GOOGLE_MAVEN_BUILD_ARGS" => self.maven_build_args = plain("list of arguments")?,
            "GOOGLE_GRADLE_BUILD_ARGS" => self.gradle_build_args = plain("list of arguments")?,
            name if name.starts_with("GOOGLE_") => {
                let known: Vec<&str> = HONOURED.iter().map(|(name, _)| *name).collect();
                return Err(user(format!("The build environment variable {name} is not supported on this host. Remove it. Supported: {}.", known.join(", "))));
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
        _ => Err(user(format!("parsing {name}: {value:?} is neither true nor false."))),
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
        check("", &[("GOOGLE_ENTRYPOINT", " ")], "");
        check("", &[("GOOGLE_FUNCTION_SOURCE", "x.py")], "there is no function");
        check("f", &[("GOOGLE_PYTHON_PACKAGE_MANAGER", "uv")], "");
        check("f", &[("GOOGLE_PYTHON_PACKAGE_MANAGER", "pip")], "");
        check("f", &[("GOOGLE_PYTHON_PACKAGE_MANAGER", "poetry")], "neither pip nor uv");
        check("f", &[("GOOGLE_PACKAGE_MANAGER", "cargo")], "none of npm");
        check("f", &[("GOOGLE_MAVEN_BUILD_ARGS", "")], "no list of arguments");
        check("f", &[("GOOGLE_SKIP_FRAMEWORK_INJECTION", "TRUE")], "");
        check("f", &[("GOOGLE_SKIP_FRAMEWORK_INJECTION", "yes")], "neither true nor false");
        check("f", &[("GOOGLE_BUILDABLE", "./x")], "");
        check("f", &[("GOOGLE_WHATEVER", "")], "GOOGLE_WHATEVER is not supported");
        check("f", &[("MY_TOKEN", "x")], "");
        check("f", &[("A=B", "x")], "is no name");
        check("f", &[("1A", "x")], "is no name");
        check("f", &[("A", "x\0")], "NUL");
    }

    #[test]
    fn a_variable_of_another_language_is_refused() {
        let fit = |name: &str, value: &str, language| parse("f", &[(name, value)]).unwrap().fit(language).map_err(|e| e.to_string());
        assert_eq!(fit("GOOGLE_GOLDFLAGS", "-s", Language::Go), Ok(()));
        assert_eq!(fit("GOOGLE_GOLDFLAGS", "-s", Language::Java).unwrap_err(), "GOOGLE_GOLDFLAGS is for Go, and this source is built for Java. Remove it.");
        assert_eq!(fit("GOOGLE_BUILDABLE", "./x", Language::Java), Ok(()));
        assert!(fit("GOOGLE_BUILDABLE", "./x", Language::Python).is_err());
        assert_eq!(fit("GOOGLE_VENDOR_NPM_DEPENDENCIES", "false", Language::Python), Ok(()));
        for (name, _) in HONOURED {
            assert!(parse("f", &[(name, "1")]).is_ok_and(|found| found.own.is_empty()) || parse("f", &[(name, "1")]).is_err(), "{name}");
        }
    }

    #[test]
    fn own_variables_are_kept() {
        let got = parse("f", &[("GOOGLE_RUNTIME_VERSION", "3.11"), ("GOOGLE_PYTHON_VERSION", "3.12"), ("X", "1")]).unwrap();
        assert_eq!((got.python_version.as_deref(), got.runtime_version.as_deref()), (Some("3.12"), Some("3.11")));
        assert_eq!(got.own, [("X".to_owned(), "1".to_owned())]);
    }
}
