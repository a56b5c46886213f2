//! The permissions that exist here, and sets of them.
//!
//! Names are Google's. One that no part of tanebi asks for is not listed: it would promise something that is not there.
//! Which role holds which is in `role`.

use std::{collections::BTreeMap, sync::LazyLock};

/// Permissions as `SERVICE.KIND` and the verbs of that kind.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("run.services", "create delete get getIamPolicy list setIamPolicy update"),
    ("run.revisions", "delete get list"),
    ("run.configurations", "get list"),
    ("run.routes", "get invoke list"),
    ("run.operations", "delete get list"),
    ("run.locations", "list uploadSource"),
    ("cloudbuild.builds", "create get list update"),
    ("cloudbuild.operations", "get list"),
    ("cloudbuild.locations", "get list"),
    ("artifactregistry.repositories", "create delete deleteArtifacts downloadArtifacts get getIamPolicy list setIamPolicy update uploadArtifacts"),
    ("artifactregistry.dockerimages", "get list"),
    ("artifactregistry.locations", "get list"),
    ("cloudfunctions.functions", "create delete get getIamPolicy list setIamPolicy sourceCodeGet sourceCodeSet update"),
    ("cloudfunctions.runtimes", "list"),
    ("eventarc.triggers", "create delete get getIamPolicy list setIamPolicy update"),
    ("eventarc.events", "receiveEvent"),
    ("eventarc.providers", "get list"),
    ("eventarc.channels", "create get list"),
    ("eventarc.googleChannelConfigs", "get"),
    ("cloudscheduler.jobs", "create delete enable get list pause run update"),
    ("secretmanager.secrets", "create delete get getIamPolicy list setIamPolicy update"),
    ("secretmanager.versions", "access add destroy disable enable get list"),
    ("serviceusage.services", "disable enable get list use"),
    ("serviceusage.operations", "get"),
    ("resourcemanager.projects", "get getIamPolicy list setIamPolicy update"),
    (
        "iam.serviceAccounts",
        "actAs create delete disable enable get getAccessToken getIamPolicy getOpenIdToken implicitDelegation list setIamPolicy signBlob signJwt update",
    ),
    ("iam.serviceAccountKeys", "create delete disable enable get list"),
    ("iam.roles", "create delete get list undelete update"),
    ("iam.denypolicies", "create delete get list update"),
    ("storage.buckets", "create delete get getIamPolicy list setIamPolicy update"),
    ("storage.objects", "create delete get getIamPolicy list move overrideUnlockedRetention restore setIamPolicy setRetention update"),
    ("storage.multipartUploads", "abort create list listParts"),
    ("logging.logEntries", "create list"),
    ("logging.logs", "delete list"),
    ("logging.privateLogEntries", "list"),
    ("logging.logServices", "list"),
    ("monitoring.timeSeries", "list"),
    ("pubsub.topics", "attachSubscription create delete detachSubscription get getIamPolicy list publish setIamPolicy update"),
    ("pubsub.subscriptions", "consume create delete get getIamPolicy list setIamPolicy update"),
    ("pubsub.snapshots", "create delete get getIamPolicy list seek setIamPolicy update"),
    ("pubsub.schemas", "attach commit create delete get getIamPolicy list listRevisions rollback setIamPolicy validate"),
];

/// How many permissions a set has room for.
const CAPACITY: usize = 256;

/// Full names, sorted; a permission's place here is its bit in a set.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut names: Vec<String> = GROUPS.iter().flat_map(|(kind, verbs)| verbs.split(' ').map(move |verb| format!("{kind}.{verb}"))).collect();
    names.sort_unstable();
    assert!(names.len() <= CAPACITY, "{} permissions in a set for {CAPACITY}", names.len());
    names
});

/// A permission that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permission(usize);

impl Permission {
    /// `None` for a name that is not in the table. Allocates nothing.
    pub(crate) fn find(name: &str) -> Option<Self> {
        NAMES.binary_search_by(|known| known.as_str().cmp(name)).ok().map(Self)
    }

    pub(crate) fn name(self) -> &'static str {
        &NAMES[self.0]
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len()).map(Self)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PermissionSet([u64; CAPACITY / 64]);

impl PermissionSet {
    pub(crate) fn insert(&mut self, permission: Permission) {
        self.0[permission.0 / 64] |= 1 << (permission.0 % 64);
    }

    pub(crate) fn remove(&mut self, permission: Permission) {
        self.0[permission.0 / 64] &= !(1 << (permission.0 % 64));
    }

    pub(crate) fn contains(&self, permission: Permission) -> bool {
        self.0[permission.0 / 64] & (1 << (permission.0 % 64)) != 0
    }

    /// The set of a table's rows: kinds with their verbs, `*` for every verb of the kind.
    ///
    /// # Panics
    /// When a row names what is not in [`GROUPS`]; a test builds all sets.
    pub(crate) fn of(rows: &[(&str, &str)]) -> Self {
        let kinds: BTreeMap<&str, &str> = GROUPS.iter().copied().collect();
        let mut set = Self::default();
        for (kind, verbs) in rows {
            let verbs = if *verbs == "*" { kinds.get(kind).expect("a kind of the table") } else { verbs };
            for verb in verbs.split(' ') {
                set.insert(Permission::find(&format!("{kind}.{verb}")).expect("a permission of the table"));
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_unknown_ones_are_not() {
        let all: Vec<_> = Permission::all().collect();
        assert!(all.len() > 90);
        for permission in all {
            assert_eq!(Permission::find(permission.name()), Some(permission));
        }
        for unknown in ["", "run", "run.services", "run.services.", "run.services.gets", "run.*", "RUN.services.get", "zzz"] {
            assert_eq!(Permission::find(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn no_kind_and_no_permission_is_listed_twice() {
        let mut names: Vec<_> = Permission::all().map(Permission::name).collect();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        let kinds: BTreeMap<&str, &str> = GROUPS.iter().copied().collect();
        assert_eq!(kinds.len(), GROUPS.len());
    }

    #[test]
    fn sets_hold_what_was_put_in_and_nothing_else() {
        let set = PermissionSet::of(&[("run.routes", "invoke"), ("storage.objects", "*")]);
        let held: Vec<_> = Permission::all().filter(|p| set.contains(*p)).map(Permission::name).collect();
        assert_eq!(held.len(), 12);
        assert!(held.iter().all(|name| *name == "run.routes.invoke" || name.starts_with("storage.objects.")), "{held:?}");
        let mut less = set;
        less.remove(Permission::find("run.routes.invoke").unwrap());
        less.remove(Permission::find("run.routes.get").unwrap());
        assert_eq!(Permission::all().filter(|p| less.contains(*p)).count(), 11);
    }
}
