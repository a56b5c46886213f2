//! The secrets that an instance is given: read from the store when it starts, with the rights of its service account.
//!
//! Nothing is kept: a later instance reads again, so that `latest` is what it is then, and a right that was taken away is gone.

use iam::{About, Payload, Question};
use model::{
    key,
    revision::SecretRef,
    secret::{Secret, SecretId, SecretKey, SecretVersion},
};
use serde::de::DeserializeOwned;

use crate::pool::Pool;

/// # Errors
/// Why the instance cannot have it, in words for its log.
pub(crate) fn read(pool: &Pool, source: &SecretRef) -> Result<Payload, String> {
    let (shared, project) = (&pool.shared, &pool.service.project);
    let secret = SecretId::parse(&source.secret).map_err(|error| error.outer)?;
    let key = SecretKey { project: project.clone(), secret };
    let name = key.resource();
    let account = shared.iam.identity(&pool.template.service_account);
    let version = format!("versions/{}", source.version);
    let question = Question {
        who: Some(&account),
        permission: "secretmanager.versions.access",
        resource: &name,
        project: project.as_str(),
        about: About { part: Some(&version), ..About::default() },
    };
    if !shared.iam.may_about(&question) {
        return Err(format!("Permission denied on secret: {name}/versions/{} for Revision service account {}.", source.version, account.email));
    }
    let secret: Secret = record(pool, &key::secret(&key))?.ok_or_else(|| format!("Secret [{name}] not found."))?;
    if secret.expires.is_some_and(|at| at <= shared.clock.now()) {
        return Err(format!("Secret [{name}] not found."));
    }
    let number = secret.version_named(&name, &source.version).map_err(|error| error.outer)?;
    let version: SecretVersion =
        record(pool, &key::secret_version(&key, number))?.ok_or_else(|| format!("Secret Version [{name}/versions/{number}] not found."))?;
    version.enabled_check(&name).map_err(|error| error.outer)?;
    let sealed = shared.store.get(&key::secret_payload(&key, number)).map_err(|error| error.to_string())?;
    let sealed = sealed.ok_or_else(|| format!("Secret Version [{name}/versions/{number}] has no payload."))?;
    shared.config.vault.unseal(&secret.sealed_name(number), &sealed.value).map_err(|error| error.to_string())
}

fn record<T: DeserializeOwned>(pool: &Pool, key: &str) -> Result<Option<T>, String> {
    let found = pool.shared.store.get(key).map_err(|error| error.to_string())?;
    found.map(|record| record.json()).transpose().map_err(|error| error.to_string())
}
