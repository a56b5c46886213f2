//! Users: people with an e-mail address, and their passwords.
//!
//! A user's number (`sub`) follows from the address, so that it is the same in every store. There is no directory behind: a
//! user exists when the operator made them, and belongs to the domain of the address.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use model::{Code, Status, Timestamp, key, policy::Member};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::{Expect, Write};

use crate::{Iam, Identity, Kind, TokenError, keys, table::Table};

/// A password's length in bytes.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;
/// As many users as one store takes.
const USERS_MAX: usize = 10_000;
/// RFC 5321, section 4.5.3.1.
const EMAIL_MAX_BYTES: usize = 254;
/// The domain of service accounts' addresses; nobody else has one there.
const ACCOUNTS_DOMAIN: &str = "gserviceaccount.com";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) email: String,
    pub(crate) subject: String,
    pub(crate) created: Timestamp,
    /// A PHC text; none: this user cannot sign in by password.
    #[serde(default)]
    password_hash: Option<String>,
}

pub(crate) fn table() -> Table<User> {
    Table::new(key::USERS, |rest| rest, |bytes| Ok(serde_json::from_slice(bytes)?))
}

/// One password at a time: a hash takes 19 MiB, and whoever tries passwords must not take more of the machine than that.
static HASHING: Mutex<()> = Mutex::new(());

/// Compared against when there is no user or no password, so that the answer takes as long: today's parameters, a salt and
/// a hash of zeros. Nobody knows a password that hashes to it, and it would not let in who did.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Iam {
    /// The identity of an e-mail: a service account when its record exists or its domain is gserviceaccount.com, else a user.
    ///
    /// That it has an identity does not mean that it exists.
    pub fn identity(&self, email: &str) -> Identity {
        let email = email.to_ascii_lowercase();
        if let Some(account) = self.inner.tables.accounts.get(&email) {
            return Identity { kind: Kind::ServiceAccount, email, subject: account.unique_id.clone() };
        }
        let kind = if is_account_email(&email) { Kind::ServiceAccount } else { Kind::User };
        let subject = subject_of(&email);
        Identity { kind, email, subject }
    }

    pub fn user_exists(&self, email: &str) -> bool {
        self.inner.tables.users.contains(&email.to_ascii_lowercase())
    }

    /// Makes a user without a password: they sign in by link until one is set.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what is no address of a person, `ALREADY_EXISTS`, `RESOURCE_EXHAUSTED` at 10,000 users.
    pub async fn user_create(&self, email: &str) -> Result<(), Status> {
        let email = user_email(email)?;
        let _one_at_a_time = self.inner.changes.lock().await;
        if self.inner.tables.users.count(|_, _| true) >= USERS_MAX {
            return Err(Status::new(Code::ResourceExhausted, format!("There are {USERS_MAX} users already, as many as there can be.")));
        }
        let user = User { subject: subject_of(&email), created: self.inner.clock.now(), password_hash: None, email };
        let write = Write::put(key::user(&user.email), Expect::Absent, &user);
        self.commit(vec![write]).await.map_err(|error| match error {
            store::CommitError::Conflict { .. } => Status::already_exists(format!("User {} already exists.", user.email)),
            error => Status::internal(error),
        })
    }

    /// Argon2id; 8 to 1024 bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another length, `NOT_FOUND` for no such user.
    pub async fn password_set(&self, email: &str, password: &str) -> Result<(), Status> {
        let email = email.to_ascii_lowercase();
        if !PASSWORD_BYTES.contains(&password.len()) {
            return Err(Status::invalid_field("password", "a password has 8 to 1024 bytes"));
        }
        let bytes = password.as_bytes().to_vec();
        let hash = tokio::task::spawn_blocking(move || password_hash(&bytes)).await.map_err(Status::internal)?.map_err(Status::internal)?;
        loop {
            let (user, revision) = self.inner.tables.users.get_revision(&email).ok_or_else(|| Status::not_found(format!("User {email} does not exist.")))?;
            let user = User { password_hash: Some(hash.clone()), ..(*user).clone() };
            match self.commit(vec![Write::put(key::user(&email), Expect::Revision(revision), &user)]).await {
                Ok(()) => return Ok(()),
                Err(store::CommitError::Conflict { .. }) => self.inner.tables.users.load(&self.inner.store)?,
                Err(error) => return Err(Status::internal(error)),
            }
        }
    }

    /// Slow by design: call from a blocking thread. Same time for an unknown user. One check at a time runs.
    pub fn password_check(&self, email: &str, password: &str) -> bool {
        if password.len() > *PASSWORD_BYTES.end() {
            return false;
        }
        let user = self.inner.tables.users.get(&email.to_ascii_lowercase());
        let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
        let parsed = PasswordHash::new(hash.unwrap_or(NOBODYS_HASH));
        let _one_at_a_time = HASHING.lock();
        let is_equal = parsed.is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok());
        is_equal && hash.is_some()
    }

    /// The subject of a good token, if it is still there: the same account (by its number) and not disabled.
    pub(crate) fn subject_check(&self, email: Option<&str>, subject: &str) -> Result<Identity, TokenError> {
        let tables = &self.inner.tables;
        let account = match email {
            Some(email) => tables.accounts.get(email),
            None => tables.accounts.select(|_, account| account.unique_id == subject).pop(),
        };
        if let Some(account) = account {
            if account.disabled || account.unique_id != subject {
                return Err(TokenError::Subject);
            }
            return Ok(Identity { kind: Kind::ServiceAccount, email: account.email.clone(), subject: subject.to_owned() });
        }
        let user = match email {
            Some(email) => tables.users.get(email),
            None => tables.users.select(|_, user| user.subject == subject).pop(),
        };
        let user = user.filter(|user| user.subject == subject).ok_or(TokenError::Subject)?;
        Ok(Identity { kind: Kind::User, email: user.email.clone(), subject: subject.to_owned() })
    }
}

/// Whether the address is in the domain of service accounts.
pub(crate) fn is_account_email(email: &str) -> bool {
    let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
    domain == ACCOUNTS_DOMAIN || domain.strip_suffix(ACCOUNTS_DOMAIN).is_some_and(|rest| rest.ends_with('.'))
}

/// 21 digits that follow from the address, as long as Google's and, like theirs, beginning with 1.
pub(crate) fn subject_of(email: &str) -> String {
    digits_21(u128::from_be_bytes(keys::digest(email.as_bytes())[..16].try_into().expect("16 of 32 bytes")))
}

pub(crate) fn digits_21(number: u128) -> String {
    format!("1{:020}", number % 10u128.pow(20))
}

/// # Errors
/// `INVALID_ARGUMENT` for what is no address of a person.
pub(crate) fn user_email(email: &str) -> Result<String, Status> {
    let bad = |why: &str| Status::invalid_field("email", format!("{email:?} {why}"));
    let Ok(Member::User(address)) = Member::parse(&format!("user:{email}")) else {
        return Err(bad("is no e-mail address"));
    };
    if address.len() > EMAIL_MAX_BYTES || !address.bytes().all(|b| b.is_ascii_graphic()) || address.contains(['/', '"', '\\', ',', ':']) {
        return Err(bad("is no e-mail address of at most 254 printable ASCII characters"));
    }
    if is_account_email(&address) {
        return Err(bad("is a service account's address, not a user's"));
    }
    Ok(address)
}

fn password_hash(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    let _one_at_a_time = HASHING.lock();
    Ok(Argon2::default().hash_password(password)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_people() {
        assert_eq!(user_email("Alice@Example.COM").unwrap(), "alice@example.com");
        for bad in [
            "",
            "alice",
            "@x",
            "a@",
            "a b@x.y",
            "a@b@c",
            "a/b@x.y",
            "ü@x.y",
            "x@gserviceaccount.com",
            "x@p.iam.gserviceaccount.com",
            &format!("{}@x.y", "a".repeat(254)),
        ] {
            assert!(user_email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobodys_hash_costs_what_a_users_does() {
        let (nobody, user) = (PasswordHash::new(NOBODYS_HASH).unwrap(), password_hash(b"password").unwrap());
        let user = PasswordHash::new(&user).unwrap();
        assert_eq!((&nobody.algorithm, nobody.version, &nobody.params), (&user.algorithm, user.version, &user.params));
        let lengths = |hash: &PasswordHash| (hash.salt.as_ref().map(|s| s.len()), hash.hash.as_ref().map(|h| h.len()));
        assert_eq!(lengths(&nobody), lengths(&user));
    }

    #[test]
    fn subjects_are_stable_and_have_21_digits() {
        // A change of this number would make everyone someone else.
        assert_eq!(subject_of("alice@example.com"), subject_of("alice@example.com"));
        assert_ne!(subject_of("alice@example.com"), subject_of("bob@example.com"));
        for email in ["", "a", "alice@example.com"] {
            let subject = subject_of(email);
            assert!(subject.len() == 21 && subject.starts_with('1') && subject.bytes().all(|b| b.is_ascii_digit()), "{subject}");
        }
    }

    #[test]
    fn service_accounts_are_told_by_their_domain() {
        for yes in ["a@p.iam.gserviceaccount.com", "1-compute@developer.gserviceaccount.com", "1@cloudbuild.gserviceaccount.com", "x@gserviceaccount.com"] {
            assert!(is_account_email(yes), "{yes}");
        }
        for no in ["", "a", "a@x.com", "a@notgserviceaccount.com", "gserviceaccount.com", "a@gserviceaccount.com.evil"] {
            assert!(!is_account_email(no), "{no}");
        }
    }
}
