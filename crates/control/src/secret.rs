//! Secrets: the rules by which owners make, change and read them. Payloads are sealed by `iam::Vault` before they are stored.
//!
//! A secret's record counts its versions, and whoever adds one or deletes the secret writes it: neither can miss the other.
//! What is due at an instant (an end, a destruction) is done by `reconcile::secret`; until then it is as if it were done.
//! Source of the rules and limits: google/cloud/secretmanager/v1/{resources,service}.proto; etags: Secret Manager's guide "Etags".

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use iam::Payload;
use model::{
    Code, ProjectId, Region, Service, Status, Timestamp, key,
    secret::{
        ALIASES_MAX, ANNOTATIONS_MAX_BYTES, DESTROY_TTL_MAX_S, DESTROY_TTL_MIN_S, EXPIRY_MAX_S, LABELS_MAX, PAYLOAD_MAX_BYTES, Replication, Secret, SecretId,
        SecretKey, SecretVersion, VersionState, alias_check,
    },
};
use store::{Expect, Write};

use crate::{Context, Control, Versioned, records};

/// Secrets of one project, at most.
const SECRETS_MAX: usize = 25_000;

impl Control {
    /// Makes a secret without versions; times, etag and count are set here.
    /// # Errors
    /// `ALREADY_EXISTS`; `INVALID_ARGUMENT` naming the field; `RESOURCE_EXHAUSTED` past 25000 secrets in the project.
    pub async fn secret_create(&self, secret: Secret) -> Result<Secret, Status> {
        let cx = &self.context;
        let now = cx.instant_next();
        let secret = Secret { created: now, etag: now.as_microsecond(), versions: 0, ..secret };
        fields_check(&secret, now)?;
        if let Replication::UserManaged(locations) = &secret.replication {
            locations_check(locations)?;
        }
        if !secret.aliases.is_empty() {
            return Err(Status::invalid_field("secret.version_aliases", "a secret that is being made has no versions to name"));
        }
        let name = cx.secret_name(&secret.key)?;
        let exists = || Status::already_exists(format!("Secret [{name}] already exists."));
        loop {
            let key = key::secret(&secret.key);
            match records::read::<Secret>(&cx.store, &key)? {
                Some(found) if has_expired(&found.value, now) => cx.secret_remove(&found).await?,
                Some(_) => return Err(exists()),
                None => {}
            }
            if records::keys(&cx.store, &key::secrets_of(&secret.key.project))?.len() >= SECRETS_MAX {
                return Err(Status::new(Code::ResourceExhausted, format!("There are already {SECRETS_MAX} secrets in the project.")));
            }
            let resource = secret.key.resource();
            cx.accounts.policy_remove(&resource).await?;
            if records::commit(&cx.store, vec![Write::put(key, Expect::Absent, &secret), Write::delete(key::policy(&resource), Expect::Any)]).await?.is_some() {
                return Ok(secret);
            }
        }
    }

    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn secret_get(&self, key: &SecretKey) -> Result<Secret, Status> {
        Ok(self.context.secret_get(key)?.value)
    }

    /// The secrets of a project, newest first.
    pub fn secret_list(&self, project: &ProjectId) -> Result<Vec<Secret>, Status> {
        let now = self.context.clock.now();
        let found = records::all::<Secret>(&self.context.store, &key::secrets_of(project))?;
        let mut secrets: Vec<Secret> = found.into_iter().map(|secret| secret.value).filter(|secret| !has_expired(secret, now)).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.created));
        Ok(secrets)
    }

    /// Lets `change` change what the owner may: labels, annotations, end, delay of destruction, aliases. `etag`: what the writer has read, or `None`.
    /// # Errors
    /// Those of `change`; `NOT_FOUND`; `FAILED_PRECONDITION` when `etag` is not the current one; `INVALID_ARGUMENT` naming the field.
    pub async fn secret_update(&self, key: &SecretKey, etag: Option<i64>, change: impl Fn(&mut Secret) -> Result<(), Status>) -> Result<Secret, Status> {
        let cx = &self.context;
        loop {
            let found = cx.secret_get(key)?;
            etag_check(&cx.secret_name(key)?, found.value.etag, etag)?;
            let mut next = found.value.clone();
            change(&mut next)?;
            let now = cx.instant_next();
            fields_check(&next, if next.expires == found.value.expires { Timestamp::MIN } else { now })?;
            next.etag = now.as_microsecond();
            if records::commit(&cx.store, vec![Write::put(key::secret(key), Expect::Revision(found.revision), &next)]).await?.is_some() {
                return Ok(next);
            }
        }
    }

    /// Deletes a secret with all its versions and its policy.
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` when `etag` is not the current one.
    pub async fn secret_delete(&self, key: &SecretKey, etag: Option<i64>) -> Result<(), Status> {
        let cx = &self.context;
        let found = cx.secret_get(key)?;
        etag_check(&cx.secret_name(key)?, found.value.etag, etag)?;
        cx.secret_remove(&found).await
    }

    /// Adds a version. `checksum`: the CRC-32C that its maker gave with it.
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` above 64 KiB or for a checksum that is not the payload's.
    pub async fn secret_version_add(&self, key: &SecretKey, payload: &Payload, checksum: Option<i64>) -> Result<SecretVersion, Status> {
        let cx = &self.context;
        let bytes = payload.as_bytes();
        if bytes.len() > PAYLOAD_MAX_BYTES {
            return Err(Status::invalid_field("payload.data", format!("the payload has {} bytes; at most {PAYLOAD_MAX_BYTES} are allowed", bytes.len())));
        }
        if checksum.is_some_and(|given| given != i64::from(crc32c::crc32c(bytes))) {
            return Err(Status::invalid_field("payload.data_crc32c", "the checksum is not that of the data: the payload was damaged on its way"));
        }
        loop {
            let found = cx.secret_get(key)?;
            let now = cx.instant_next();
            let secret = Secret { versions: found.value.versions + 1, ..found.value };
            let version = SecretVersion {
                secret: key.clone(),
                number: secret.versions,
                created: now,
                etag: now.as_microsecond(),
                state: VersionState::Enabled,
                destroyed: None,
                destroys: None,
                checksum_given: checksum.is_some(),
            };
            let sealed = cx.vault.seal(&secret.sealed_name(version.number), payload);
            let writes = vec![
                Write::put(key::secret(key), Expect::Revision(found.revision), &secret),
                Write::put(key::secret_version(key, version.number), Expect::Absent, &version),
                Write { key: key::secret_payload(key, version.number), expect: Expect::Absent, value: Some(sealed) },
            ];
            if records::commit(&cx.store, writes).await?.is_some() {
                return Ok(version);
            }
        }
    }

    /// The versions of a secret, newest first.
    /// # Errors
    /// `NOT_FOUND`.
    pub fn secret_version_list(&self, key: &SecretKey) -> Result<Vec<SecretVersion>, Status> {
        let cx = &self.context;
        cx.secret_get(key)?;
        let now = cx.clock.now();
        let versions = records::all::<SecretVersion>(&cx.store, &key::secret_versions_of(key))?;
        Ok(versions.into_iter().rev().map(|version| as_of(version.value, now)).collect())
    }

    /// The version that `text` (a number, `latest` or an alias) names.
    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn secret_version_get(&self, key: &SecretKey, text: &str) -> Result<SecretVersion, Status> {
        let (_, version) = self.context.secret_version_get(key, text)?;
        Ok(version.value)
    }

    /// A version with its payload.
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` unless it is enabled; `DATA_LOSS` when what is stored does not open.
    pub fn secret_version_access(&self, key: &SecretKey, text: &str) -> Result<(SecretVersion, Payload), Status> {
        let cx = &self.context;
        let (secret, version) = cx.secret_version_get(key, text)?;
        let version = version.value;
        version.enabled_check(&cx.secret_name(key)?)?;
        let sealed = cx.store.get(&key::secret_payload(key, version.number)).map_err(Status::internal)?;
        let sealed = sealed.ok_or_else(|| Status::internal(format!("{} version {} is enabled and has no payload", key.resource(), version.number)))?;
        let payload = cx.vault.unseal(&secret.sealed_name(version.number), &sealed.value).map_err(|error| {
            tracing::error!(secret = key.resource(), version = version.number, %error, "a payload is lost");
            Status::new(Code::DataLoss, format!("The payload of version {} is damaged.", version.number))
        })?;
        Ok((version, payload))
    }

    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` once it is destroyed or when `etag` is not the current one.
    pub async fn secret_version_enable(&self, key: &SecretKey, number: &str, etag: Option<i64>) -> Result<SecretVersion, Status> {
        self.context.secret_version_set(key, number, etag, VersionState::Enabled).await
    }

    /// # Errors
    /// As [`Control::secret_version_enable`].
    pub async fn secret_version_disable(&self, key: &SecretKey, number: &str, etag: Option<i64>) -> Result<SecretVersion, Status> {
        self.context.secret_version_set(key, number, etag, VersionState::Disabled).await
    }

    /// Destroys a version's payload: at once, or after the secret's delay, until when it is disabled and can be enabled again.
    /// # Errors
    /// As [`Control::secret_version_enable`].
    pub async fn secret_version_destroy(&self, key: &SecretKey, number: &str, etag: Option<i64>) -> Result<SecretVersion, Status> {
        self.context.secret_version_set(key, number, etag, VersionState::Destroyed).await
    }
}

impl Context {
    /// Whether the secrets that a template names are there, and its service account may read them.
    pub(crate) fn secrets_check(&self, service: &Service) -> Result<(), Status> {
        const FIELD: &str = "spec.template.spec.containers[0].env.value_from.secret_key_ref.name";
        let (project, account) = (&service.key.project, &service.template.service_account);
        for source in service.template.container.secrets() {
            let key = SecretKey { project: project.clone(), secret: SecretId::parse(&source.secret)? };
            let name = self.secret_name(&key)?;
            // Whether it is there is told to who may read it only.
            if !self.accounts.may_read(account, &key) {
                let text = format!(
                    "Permission denied on secret: {name}/versions/{} for Revision service account {account}. The service account used must be granted the \
                     'Secret Manager Secret Accessor' role (roles/secretmanager.secretAccessor) at the secret, project or higher level.",
                    source.version
                );
                return Err(Status::invalid_field(FIELD, text));
            }
            let found = self.secret_version_get(&key, &source.version).and_then(|(_, version)| version.value.enabled_check(&name));
            found.map_err(|error| Status::invalid_field(FIELD, error.outer))?;
        }
        Ok(())
    }

    /// `projects/NUMBER/secrets/S`: the name as Google shows it.
    pub(crate) fn secret_name(&self, key: &SecretKey) -> Result<String, Status> {
        Ok(format!("projects/{}/secrets/{}", self.project_get(key.project.as_str())?.number, key.secret))
    }

    fn secret_get(&self, key: &SecretKey) -> Result<Versioned<Secret>, Status> {
        let found = records::read::<Secret>(&self.store, &key::secret(key))?.filter(|found| !has_expired(&found.value, self.clock.now()));
        match found {
            Some(found) => Ok(found),
            None => Err(Status::not_found(format!("Secret [{}] not found.", self.secret_name(key)?))),
        }
    }

    fn secret_version_get(&self, key: &SecretKey, text: &str) -> Result<(Secret, Versioned<SecretVersion>), Status> {
        let secret = self.secret_get(key)?.value;
        let name = self.secret_name(key)?;
        let number = secret.version_named(&name, text)?;
        let found = records::read::<SecretVersion>(&self.store, &key::secret_version(key, number))?;
        let Versioned { value, revision } = found.ok_or_else(|| Status::not_found(format!("Secret Version [{name}/versions/{text}] not found.")))?;
        Ok((secret, Versioned { value: as_of(value, self.clock.now()), revision }))
    }

    async fn secret_version_set(&self, key: &SecretKey, text: &str, etag: Option<i64>, wish: VersionState) -> Result<SecretVersion, Status> {
        if text != "latest" && !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Status::invalid_field("name", format!("{text:?} is no version's number; aliases are for reading only")));
        }
        loop {
            let (secret, found) = self.secret_version_get(key, text)?;
            let name = format!("{}/versions/{}", self.secret_name(key)?, found.value.number);
            etag_check(&name, found.value.etag, etag)?;
            let now = self.instant_next();
            let mut next = found.value.clone();
            match (found.value.state, wish) {
                (VersionState::Destroyed, VersionState::Destroyed) => return Ok(found.value),
                (VersionState::Destroyed, _) => {
                    return Err(Status::new(Code::FailedPrecondition, format!("Secret Version [{name}] is in DESTROYED state.")));
                }
                // The destruction that was asked for stays where it is.
                (VersionState::Disabled, VersionState::Destroyed) if found.value.destroys.is_some() => return Ok(found.value),
                (_, VersionState::Destroyed) if secret.destroy_ttl_s > 0 => {
                    next.state = VersionState::Disabled;
                    next.destroys = Some(later(now, secret.destroy_ttl_s)?);
                }
                (_, VersionState::Destroyed) => {
                    next.state = VersionState::Destroyed;
                    next.destroyed = Some(now);
                }
                (now, wish) if now == wish => return Ok(found.value),
                (_, wish) => {
                    next.state = wish;
                    next.destroys = None;
                }
            }
            next.etag = now.as_microsecond();
            if self.secret_version_put(&next, found.revision).await? {
                return Ok(next);
            }
        }
    }

    /// Writes a version, and takes its payload away when it is destroyed. Whether nobody was faster.
    pub(crate) async fn secret_version_put(&self, version: &SecretVersion, expected: u64) -> Result<bool, Status> {
        let mut writes = vec![Write::put(key::secret_version(&version.secret, version.number), Expect::Revision(expected), version)];
        if version.state == VersionState::Destroyed {
            writes.push(Write::delete(key::secret_payload(&version.secret, version.number), Expect::Any));
        }
        Ok(records::commit(&self.store, writes).await?.is_some())
    }

    /// Takes a secret away with all that belongs to it, unless another writer changed it since it was read; then it is read again.
    pub(crate) async fn secret_remove(&self, found: &Versioned<Secret>) -> Result<(), Status> {
        let (key, mut revision, mut versions) = (&found.value.key, found.revision, found.value.versions);
        // Before the secret is gone, so that a later one of its name starts with none.
        self.accounts.policy_remove(&key.resource()).await?;
        loop {
            let mut writes = vec![Write::delete(key::secret(key), Expect::Revision(revision))];
            for number in 1..=versions {
                writes.push(Write::delete(key::secret_version(key, number), Expect::Any));
                writes.push(Write::delete(key::secret_payload(key, number), Expect::Any));
            }
            if records::commit(&self.store, writes).await?.is_some() {
                return Ok(());
            }
            match records::read::<Secret>(&self.store, &key::secret(key))? {
                Some(again) if again.value.created == found.value.created => (revision, versions) = (again.revision, again.value.versions),
                // Somebody else deleted it.
                _ => return Ok(()),
            }
        }
    }
}

/// Whether its owner wanted it gone by now.
pub(crate) fn has_expired(secret: &Secret, now: Timestamp) -> bool {
    secret.expires.is_some_and(|at| at <= now)
}

/// A version as it is at `now`: whose destruction is due has been destroyed, whether or not the loop was there already.
pub(crate) fn as_of(version: SecretVersion, now: Timestamp) -> SecretVersion {
    match version.destroys {
        Some(at) if at <= now && version.state == VersionState::Disabled => {
            SecretVersion { state: VersionState::Destroyed, destroyed: Some(at), destroys: None, etag: version.etag + 1, ..version }
        }
        _ => version,
    }
}

fn later(now: Timestamp, seconds: u64) -> Result<Timestamp, Status> {
    now.checked_add(Duration::from_secs(seconds)).map_err(Status::internal)
}

fn etag_check(name: &str, current: i64, written: Option<i64>) -> Result<(), Status> {
    if written.is_none_or(|written| written == current) {
        return Ok(());
    }
    Err(Status::failed_precondition(format!("The etag that was given is not the current etag of [{name}]: it was changed since. Read it again.")))
}

/// `since`: the earliest end that can be asked for is behind it.
fn fields_check(secret: &Secret, since: Timestamp) -> Result<(), Status> {
    labels_check(&secret.labels)?;
    annotations_check(&secret.annotations)?;
    if let Some(at) = secret.expires {
        if at <= since {
            return Err(Status::invalid_field("secret.expire_time", format!("{at} is not in the future")));
        }
        if since != Timestamp::MIN && at.as_second() - since.as_second() > EXPIRY_MAX_S {
            return Err(Status::invalid_field("secret.expire_time", format!("{at} is more than 100 years in the future")));
        }
    }
    if secret.destroy_ttl_s != 0 && !(DESTROY_TTL_MIN_S..=DESTROY_TTL_MAX_S).contains(&secret.destroy_ttl_s) {
        return Err(Status::invalid_field(
            "secret.version_destroy_ttl",
            format!("{}s must be between {DESTROY_TTL_MIN_S}s (a day) and {DESTROY_TTL_MAX_S}s (1000 days)", secret.destroy_ttl_s),
        ));
    }
    if secret.aliases.len() > ALIASES_MAX {
        return Err(Status::invalid_field("secret.version_aliases", format!("at most {ALIASES_MAX} aliases can be set; there are {}", secret.aliases.len())));
    }
    for (alias, number) in &secret.aliases {
        alias_check(alias)?;
        if !(1..=secret.versions).contains(number) {
            return Err(Status::invalid_field("secret.version_aliases", format!("{alias:?} names version {number}, which is not there")));
        }
    }
    Ok(())
}

fn labels_check(labels: &BTreeMap<String, String>) -> Result<(), Status> {
    const FIELD: &str = "secret.labels";
    if labels.len() > LABELS_MAX {
        return Err(Status::invalid_field(FIELD, format!("at most {LABELS_MAX} labels can be set; there are {}", labels.len())));
    }
    // Small letters, and those of scripts that have no capital ones.
    let is_letter = |c: char| c.is_alphabetic() && !c.is_uppercase();
    let is_part = |text: &str| text.chars().count() <= 63 && text.len() <= 128 && text.chars().all(|c| is_letter(c) || c.is_numeric() || c == '_' || c == '-');
    for (key, value) in labels {
        if !(key.starts_with(is_letter) && is_part(key)) {
            return Err(Status::invalid_field(FIELD, format!("the key {key:?} must have 1 to 63 small letters, digits, '_' and '-', and begin with a letter")));
        }
        if !is_part(value) {
            return Err(Status::invalid_field(format!("{FIELD}[{key}]"), format!("{value:?} must have at most 63 small letters, digits, '_' and '-'")));
        }
    }
    Ok(())
}

fn annotations_check(annotations: &BTreeMap<String, String>) -> Result<(), Status> {
    const FIELD: &str = "secret.annotations";
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes >= ANNOTATIONS_MAX_BYTES {
        return Err(Status::invalid_field(FIELD, format!("keys and values must have less than {ANNOTATIONS_MAX_BYTES} bytes together; they have {bytes}")));
    }
    for key in annotations.keys() {
        let is_edge = |c: char| c.is_ascii_alphanumeric();
        let is_good = (1..=63).contains(&key.len())
            && key.starts_with(is_edge)
            && key.ends_with(is_edge)
            && key.chars().all(|c| is_edge(c) || matches!(c, '-' | '_' | '.'));
        if !is_good {
            return Err(Status::invalid_field(
                FIELD,
                format!("the key {key:?} must have 1 to 63 letters, digits, '-', '_' and '.', and begin and end with a letter or a digit"),
            ));
        }
    }
    Ok(())
}

fn locations_check(locations: &[String]) -> Result<(), Status> {
    const FIELD: &str = "secret.replication.user_managed.replicas";
    if locations.is_empty() {
        return Err(Status::invalid_field(FIELD, "at least one location must be given"));
    }
    let mut seen = HashSet::new();
    for location in locations {
        Region::parse(location).map_err(|_| Status::invalid_field(FIELD, format!("{location:?} is no location of Secret Manager")))?;
        if !seen.insert(location) {
            return Err(Status::invalid_field(FIELD, format!("{location:?} is given twice")));
        }
    }
    Ok(())
}
