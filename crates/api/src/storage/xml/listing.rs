//! A bucket: `/BUCKET`. Its objects, in either form of the list, and its multipart uploads.

use axum::response::IntoResponse;
use http::StatusCode;

use super::{
    super::{
        error::Error,
        listing::{Ask, token_after_prefix},
        object::{Of, page_read},
    },
    NAMESPACE, Query, element,
    object::etag,
    xml,
};
use crate::{Deps, Response, surface::Call};

const PAGE_MAX: usize = 1000;

pub(super) async fn head(deps: Deps, call: Call) -> Result<Response, Error> {
    Query::of(&call.uri, &[])?;
    deps.control.bucket_get(call.var("bucket")?)?;
    Ok(StatusCode::OK.into_response())
}

pub(super) async fn list(deps: Deps, call: Call) -> Result<Response, Error> {
    const KNOWN: &[&str] = &["prefix", "delimiter", "marker", "max-keys", "list-type", "continuation-token", "start-after", "versions", "uploads"];
    let query = Query::of(&call.uri, KNOWN)?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let text = |name: &str| query.get(name).unwrap_or_default();
    if query.get("uploads").is_some() || query.get("versions").is_some() {
        return Err(Error::not_served("the list of uploads or versions", "the JSON API lists versions; an upload is known by its id"));
    }
    let second = match text("list-type") {
        "" => false,
        "2" => true,
        _ => return Err(Error::invalid("list-type is not 2.")),
    };
    let limit = query.number("max-keys")?.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    // A marker was the last of what was seen: what comes after it is the first that is not it.
    let after = if second { text("start-after") } else { text("marker") };
    let (prefix, delimiter) = (text("prefix"), text("delimiter"));
    // A common prefix that is the marker was told already, with all that is below it.
    let past_prefix = if second { None } else { token_after_prefix(after, prefix, delimiter) };
    let start = if after.is_empty() || past_prefix.is_some() { String::new() } else { format!("{after}\u{1}") };
    let token = past_prefix.as_deref().unwrap_or(if second { text("continuation-token") } else { "" });
    let ask = Ask { prefix, delimiter, start: &start, end: "", trailing_delimiter: false, token, limit };
    let found = page_read(&deps, &bucket.name, Of::Live, None, &ask).await?;
    let mut content = element("Name", &bucket.name) + &element("Prefix", ask.prefix);
    if !ask.delimiter.is_empty() {
        content += &element("Delimiter", ask.delimiter);
    }
    if second {
        content += &element("KeyCount", &(found.items.len() + found.prefixes.len()).to_string());
    } else {
        content += &element("Marker", after);
    }
    content += &element("IsTruncated", &found.next.is_some().to_string());
    if let Some(next) = &found.next {
        // The marker of the older form is a name; a common prefix is one too.
        let last = found.items.last().map(|object| object.name.as_str()).max(found.prefixes.last().map(String::as_str)).unwrap_or_default();
        content += &if second { element("NextContinuationToken", next) } else { element("NextMarker", last) };
    }
    for object in &found.items {
        let lines = element("Key", &object.name)
            + &element("Generation", &object.generation.to_string())
            + &element("MetaGeneration", &object.metageneration.to_string())
            + &element("LastModified", &events::storage::time(object.created))
            + &element("ETag", &etag(object))
            + &element("Size", &object.size.to_string());
        content += &format!("<Contents>{lines}</Contents>");
    }
    for prefix in &found.prefixes {
        content += &format!("<CommonPrefixes>{}</CommonPrefixes>", element("Prefix", prefix));
    }
    Ok(xml("ListBucketResult", NAMESPACE, &content))
}
