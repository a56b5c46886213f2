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
use store::{Event, Watch};

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
        let secret = key::secret(&key);
        Some([(store.watch(&key::secret_versions_of(&key)), None), (store.watch(&secret), Some(secret))])
    });
    let mut watches: Vec<Watched> = watches.flatten().collect();
    if watches.is_empty() {
        return;
    }
    let files: Arc<Vec<_>> = Arc::new(named.into_iter().zip(files.into_iter().map(File::from)).collect());
    let instance = instance.clone();
    instance.shared().supervisor.clone().spawn("secrets", async move {
        // Of each file why it stays as it is, once it was said.
        let mut told = vec![None; files.len()];
        loop {
            // First for what came while it started.
            let (instance, files) = (instance.clone(), files.clone());
            let gone = instance.gone.clone();
            let replace_all = move || {
                for (((path, source), file), told) in files.iter().zip(&mut told) {
                    let why = replace(&instance, source, file).err();
                    if let Some(why) = why.as_ref().filter(|_| why != *told) {
                        instance.system_log(Severity::Warning, format!("{path} stays as it is: {why}"));
                    }
                    *told = why;
                }
                told
            };
            told = instances::blocking(replace_all).await;
            tokio::select! {
                is_open = changed(&mut watches) => if !is_open { return },
                () = gone.cancelled() => return,
            }
        }
    });
}

/// A watch goes by the beginning of a key, which other secrets' keys may have too: the one that is meant, where it is one record.
type Watched = (Watch, Option<String>);

/// Waits for the next change of what is watched. `false` when the store is closed.
async fn changed(watches: &mut [Watched]) -> bool {
    loop {
        let next = select_all(watches.iter_mut().map(|(watch, key)| Box::pin(async move { (watch.next().await, key) })));
        match next.await.0 {
            (None, _) => return false,
            (Some(Event::Change(change)), Some(key)) if change.key != *key => {}
            (Some(_), _) => return true,
        }
    }
}

/// Reads the secret anew. Where that is refused now, the file stays as it is.
fn replace(instance: &Arc<Instance>, source: &SecretRef, file: &File) -> Result<(), String> {
    let payload = read(&instance.pool, source)?;
    let content = payload.as_bytes();
    if content_of(file).is_ok_and(|now| now.as_bytes() == content) {
        return Ok(());
    }
    // Nothing inside runs meanwhile, so that nobody reads half of it.
    instances::while_frozen(instance, || file.write_all_at(content, 0).and_then(|()| file.set_len(content.len() as u64))).map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use store::{Expect, Store, Write};

    use super::*;

    #[tokio::test]
    async fn another_secret_with_a_longer_name_wakes_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut watches = [(store.watch("secret/p/s"), Some("secret/p/s".to_owned())), (store.watch("secretversion/p/s/"), None)];
        let put = async |key: &str| _ = store.commit(vec![Write::put(key, Expect::Any, &1)]).await.unwrap();
        let mut last = store.watch("other/");
        put("secret/p/s-2").await;
        put("secretversion/p/s-2/1").await;
        put("other/1").await;
        // Changes are told in their order.
        assert!(last.next().await.is_some());
        assert_eq!(changed(&mut watches).now_or_never(), None);
        put("secret/p/s").await;
        assert!(changed(&mut watches).await);
        put("secretversion/p/s/1").await;
        assert!(changed(&mut watches).await);
    }
}
