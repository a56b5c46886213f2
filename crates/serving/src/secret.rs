//! The secrets that an instance is given: read from the store when it starts, with the rights of its service account.
//!
//! Nothing is kept: a later instance reads again, so that `latest` is what it is then, and a right that was taken away is gone. A file
//! whose version is `latest` or an alias has the new payload as soon as there is one, also in instances that run
//! (docs/decisions/0025-limits-as-they-are-seen.md); a variable never changes.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use futures_util::future::select_all;
use iam::{About, Payload, Question};
use model::{
    key,
    log::Severity,
    revision::SecretRef,
    secret::{Secret, SecretId, SecretKey, SecretVersion},
};
use serde::de::DeserializeOwned;
use store::Watch;

use crate::{
    instances::{self, Instance},
    pool::Pool,
};

/// Writes what changes of the instance's secrets into its files, until it is gone. `files` are those of [`sandbox::Sandbox::changing`].
pub(crate) fn follow(instance: &Arc<Instance>, files: Vec<OwnedFd>) {
    let named = instance.pool.template.container.changing_secrets();
    let project = &instance.pool.service.project;
    let watches = named.iter().filter_map(|(_, source)| {
        let key = SecretKey { project: project.clone(), secret: SecretId::parse(&source.secret).ok()? };
        let store = &instance.shared().store;
        // A new version, or one that is enabled no more; and what an alias means.
        Some([store.watch(&key::secret_versions_of(&key)), store.watch(&key::secret(&key))])
    });
    let mut watches: Vec<Watch> = watches.flatten().collect();
    if watches.is_empty() {
        return;
    }
    let files: Arc<Vec<_>> = Arc::new(named.into_iter().zip(files.into_iter().map(File::from)).collect());
    let instance = instance.clone();
    instance.shared().supervisor.clone().spawn("secrets", async move {
        loop {
            // First for what came while it started.
            let (instance, files) = (instance.clone(), files.clone());
            let gone = instance.gone.clone();
            instances::blocking(move || files.iter().for_each(|((path, source), file)| replace(&instance, path, source, file))).await;
            let changed = select_all(watches.iter_mut().map(|watch| Box::pin(watch.next())));
            tokio::select! {
                (event, ..) = changed => if event.is_none() { return },
                () = gone.cancelled() => return,
            }
        }
    });
}

/// Reads the secret anew. Where that is refused now, the file stays as it is.
fn replace(instance: &Arc<Instance>, path: &str, source: &SecretRef, file: &File) {
    let written = read(&instance.pool, source).and_then(|payload| {
        let content = payload.as_bytes();
        if content_of(file).is_ok_and(|now| now.as_bytes() == content) {
            return Ok(());
        }
        // Nothing inside runs meanwhile, so that nobody reads half of it.
        instances::while_frozen(instance, || file.write_all_at(content, 0).and_then(|()| file.set_len(content.len() as u64))).map_err(|error| error.to_string())
    });
    if let Err(why) = written {
        instance.system_log(Severity::Warning, format!("{path} stays as it is: {why}"));
    }
}

fn content_of(file: &File) -> std::io::Result<Payload> {
    let mut content = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    file.read_exact_at(&mut content, 0)?;
    Ok(Payload::new(content))
}

/// # Errors
/// Why the instance cannot have it, in words for its log.
pub(crate) fn read(pool: &Pool, source: &SecretRef) -> Result<Payload, String> {
    let (shared, project) = (&pool.shared, &pool.service.project);
    let secret = SecretId::parse(&source.secret).map_err(|error| error.outer)?;
    let key = SecretKey { project: project.clone(), secret };
    let name = key.resource();
    let account = shared.iam.identity(&pool.template.service_account);
    let secret = record::<Secret>(pool, &key::secret(&key))?.filter(|secret| secret.expires.is_none_or(|at| at > shared.clock.now()));
    // Conditions are asked about the number, whatever it is called.
    let number = secret.as_ref().map(|secret| secret.version_named(&name, &source.version));
    let version = match &number {
        Some(Ok(number)) => format!("versions/{number}"),
        _ => format!("versions/{}", source.version),
    };
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
    let (Some(secret), Some(number)) = (secret, number) else { return Err(format!("Secret [{name}] not found.")) };
    let number = number.map_err(|error| error.outer)?;
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
