//! package.json, as far as a build asks it.

use serde_json::Value;

use super::{Manager, strings};
use crate::{
    Error,
    plan::{read, user},
    tree::TreeReader,
};

pub(super) struct Package(Value);

impl Package {
    /// `None` when the source has none.
    /// # Errors
    /// `User` when it is no JSON object.
    pub(super) fn read(source: &TreeReader) -> Result<Option<Self>, Error> {
        let Some(text) = read(source, "package.json")? else { return Ok(None) };
        let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|e| user(format!("unmarshalling package.json: {e}. Mend package.json, then deploy again.")))?;
        if !value.is_object() {
            return Err(user("unmarshalling package.json: it is no JSON object. Mend package.json, then deploy again."));
        }
        let wrong = |what: &str| user(format!("unmarshalling package.json: {what}. Mend package.json, then deploy again."));
        for name in ["name", "main", "type", "version", "packageManager"] {
            if value.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
                return Err(wrong(&format!("{name} is no text")));
            }
        }
        for name in ["scripts", "engines", "dependencies", "devDependencies"] {
            let is_texts = |value: &Value| value.as_object().is_some_and(|values| values.values().all(Value::is_string));
            if value.get(name).is_some_and(|value| !value.is_null() && !is_texts(value)) {
                return Err(wrong(&format!("{name} is no object of texts")));
            }
        }
        Ok(Some(Self(value)))
    }

    pub(super) fn value(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.0, |value, name| value.get(name))
    }

    pub(super) fn text(&self, path: &[&str]) -> Option<String> {
        self.value(path)?.as_str().map(str::to_owned)
    }

    /// Whether a dependency is a folder or an archive of the source.
    pub(super) fn is_local(&self) -> bool {
        ["dependencies", "devDependencies", "optionalDependencies"].iter().filter_map(|kind| self.value(&[kind])).flat_map(strings).any(|(_, wish)| {
            ["file:", "link:", "portal:", "workspace:", "patch:", "./", "../", "/"].iter().any(|start| wish.starts_with(start)) || wish.ends_with(".tgz")
        })
    }

    /// Whether every dependency is a version or a tag of the registry: no address, no repository, no folder.
    pub(super) fn is_of_registry(&self) -> bool {
        ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"]
            .iter()
            .filter_map(|kind| self.value(&[kind]))
            .flat_map(strings)
            .all(|(_, wish)| !wish.contains(['/', ':']) || wish.strip_prefix("npm:").is_some_and(|alias| !alias.contains(':')))
            && self.value(&["overrides"]).is_none()
    }

    pub(super) fn has_development(&self) -> bool {
        self.value(&["devDependencies"]).and_then(Value::as_object).is_some_and(|packages| !packages.is_empty())
    }

    /// Refuses a packageManager that names another one than the lock file. npm's is never asked.
    pub(super) fn manager_check(&self, manager: Manager) -> Result<(), Error> {
        let named =
            self.text(&["packageManager"]).filter(|text| !text.is_empty() && self.text(&["engines", manager.name()]).is_none_or(|text| text.is_empty()));
        let Some(named) = named else { return Ok(()) };
        match named.split('@').collect::<Vec<_>>()[..] {
            [name, _] if name == manager.name() => Ok(()),
            [name, _] => {
                let stop = if manager == Manager::Bun { "" } else { "." };
                Err(user(format!("{} was detected but {name} is set in the packageManager package.json field{stop}", manager.name())))
            }
            _ => Err(user(format!("parsing packageManager package.json field: {named:?} is not NAME@VERSION"))),
        }
    }

    /// `packageManager: pnpm@9.1.0+sha512...`, else `engines.pnpm` where it names one version.
    pub(super) fn manager_version(&self, manager: Manager) -> Option<String> {
        // npm's is asked for by engines alone.
        let named = self.text(&["packageManager"]).filter(|_| manager != Manager::Npm).and_then(|text| {
            let version = text.strip_prefix(manager.name())?.strip_prefix('@')?.split('+').next()?.to_owned();
            is_version(&version).then_some(version)
        });
        named.or_else(|| self.text(&["engines", manager.name()]).filter(|text| is_version(text)))
    }
}

/// One version, as `9.1.0`: no range, and nothing that a registry could take for something else.
fn is_version(text: &str) -> bool {
    nodejs_semver::Version::parse(text).is_ok() && text.starts_with(|c: char| c.is_ascii_digit())
}
