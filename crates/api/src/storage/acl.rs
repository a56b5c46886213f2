//! Access control lists, which no bucket here has: access is by IAM, as at Google where uniform bucket-level access is on.
//!
//! Google's own words, which its clients know.

use super::error::Error;
use crate::{Response, surface::Call};

pub(crate) async fn of_bucket(_: Call) -> Result<Response, Error> {
    Err(none("a bucket"))
}

pub(crate) async fn of_object(_: Call) -> Result<Response, Error> {
    Err(none("an object"))
}

fn none(of: &str) -> Error {
    Error::invalid(format!(
        "Cannot use ACL API to update or read ACL of {of} when uniform bucket-level access is enabled. Read more at https://cloud.google.com/storage/docs/uniform-bucket-level-access"
    ))
}
