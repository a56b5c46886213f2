//! Cloud Storage's XML API, as far as signed URLs, forms of web pages and Google's clients use it: objects by `/BUCKET/OBJECT`
//! (GET, HEAD, PUT, DELETE), POST policies, multipart uploads, listing.
//!
//! What it does not have: buckets made or changed, ACLs, HMAC keys. Each is refused by name. Hosts are `storage.googleapis.com`,
//! `BUCKET.storage.googleapis.com`, and this server's own, where every other API goes first.
//! Source: cloud.google.com/storage/docs/xml-api.

mod form;
mod listing;
mod multipart;
mod object;
mod policy_form;

use axum::{body::Body, response::IntoResponse};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use serde_json::Value;

use super::error::{self, Error};
use crate::{
    Deps, Response,
    permission::{Need, on},
    surface::{Call, Endpoints, Surface},
};

const HOSTS: &[&str] = &["storage.googleapis.com"];
/// A bucket in front of this has a host of its own.
pub(crate) const BUCKET_HOSTS: &str = ".storage.googleapis.com";

/// Every method that is served.
pub(crate) fn surface(deps: Deps) -> Surface {
    use Method as M;
    const BUCKET: &str = "buckets/{bucket}";
    Endpoints::new(deps)
        .behind(Deps::behind)
        .on(M::GET, "/{bucket}/{object=**}", on("storage.objects.get", BUCKET), |d, c| done(object::get(d, c)))
        .on(M::HEAD, "/{bucket}/{object=**}", on("storage.objects.get", BUCKET), |d, c| done(object::get(d, c)))
        .on(M::PUT, "/{bucket}/{object=**}", on("storage.objects.create", BUCKET), |d, c| done(object::put(d, c)))
        .on(M::POST, "/{bucket}/{object=**}", on("storage.objects.create", BUCKET), |d, c| done(object::post(d, c)))
        .on(M::DELETE, "/{bucket}/{object=**}", on("storage.objects.delete", BUCKET), |d, c| done(object::delete(d, c)))
        .on(M::GET, "/{bucket}", on("storage.objects.list", BUCKET), |d, c| done(listing::list(d, c)))
        .on(M::HEAD, "/{bucket}", on("storage.objects.list", BUCKET), |d, c| done(listing::head(d, c)))
        // The form's policy is signed by who lets it be sent.
        .on(M::POST, "/{bucket}", Need::Public, |d, c| done(policy_form::post(d, c)))
        .surface_with("storage XML", HOSTS, error::front_xml)
}

/// This surface's errors are written here, not by the front.
async fn done(answer: impl Future<Output = Result<Response, Error>>) -> Result<Response, model::Status> {
    Ok(answer.await.unwrap_or_else(Error::into_xml))
}

/// Where the JSON API lives: what it does not serve there is no bucket's.
const JSON_API: &[&str] = &["/storage/v1/", "/upload/storage/v1/", "/resumable/upload/storage/v1/", "/download/storage/v1/", "/batch/"];

/// The path of a request to this API, with the bucket in front when `host` names it; `None` for another host of Google's.
pub(crate) fn path(host: &str, is_google: bool, path: &str) -> Option<String> {
    let whole = match host.strip_suffix(BUCKET_HOSTS) {
        Some(bucket) if !bucket.is_empty() => format!("/{bucket}{path}"),
        _ if JSON_API.iter().any(|begin| path.starts_with(begin)) => return None,
        _ if !is_google || HOSTS.contains(&host) => path.to_owned(),
        _ => return None,
    };
    // A bucket is named with or without a slash behind.
    match whole.strip_suffix('/') {
        Some(bucket) if bucket.len() > 1 && !bucket[1..].contains('/') => Some(bucket.to_owned()),
        _ => Some(whole),
    }
}

/// The bucket that a path begins with, if there is one of that name.
pub(crate) fn bucket_of<'a>(deps: &Deps, path: &'a str) -> Option<&'a str> {
    let bucket = path.strip_prefix('/')?.split('/').next()?;
    deps.control.bucket_get(bucket).ok().map(|_| bucket)
}

/// Who signed the request's URL: an extension of it from here on. The refusal, if the signature is not good.
///
/// `path` begins with the bucket, whatever the host.
pub(crate) fn signed(deps: &Deps, path: &str, request: &mut Request<Body>) -> Option<Response> {
    match super::signed::caller(deps, request.method(), request.uri(), path, request.headers()) {
        Ok(None) => None,
        Ok(Some(who)) => {
            request.extensions_mut().insert(super::signed::SignedBy(who));
            let body = std::mem::take(request.body_mut());
            match super::signed::payload_checked(request.headers(), body) {
                Ok(body) => {
                    *request.body_mut() = body;
                    None
                }
                Err(error) => Some(error.into_xml()),
            }
        }
        Err(error) => Some(error.into_xml()),
    }
}

/// What a page of `origin` may do with the bucket, by its CORS configuration: the rule that lets it, if there is one.
fn cors_rule(deps: &Deps, bucket: &str, origin: &str, method: &str) -> Option<Value> {
    let bucket = deps.control.bucket_get(bucket).ok()?.value;
    let rules: Vec<Value> = serde_json::from_str(bucket.kept.get(super::bucket::CORS)?).ok()?;
    let has = |rule: &Value, name: &str, is: &dyn Fn(&str) -> bool| rule[name].as_array().into_iter().flatten().filter_map(Value::as_str).any(is);
    rules.into_iter().find(|rule| {
        has(rule, "origin", &|allowed| match allowed.split_once('*') {
            _ if allowed == "*" => true,
            Some((begin, end)) => origin.len() >= begin.len() + end.len() && origin.starts_with(begin) && origin.ends_with(end),
            None => allowed.eq_ignore_ascii_case(origin),
        }) && has(rule, "method", &|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(method))
    })
}

/// Tells a browser what the bucket's CORS configuration lets the page that asks read.
pub(crate) fn cors(deps: &Deps, bucket: &str, method: &str, asked: &HeaderMap, response: &mut Response) {
    let Some(origin) = asked.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) else { return };
    let Some(rule) = cors_rule(deps, bucket, origin, method) else { return };
    let exposed: Vec<&str> = rule["responseHeader"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let any = rule["origin"].as_array().is_some_and(|origins| origins.iter().any(|origin| origin == "*"));
    let texts = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, if any { "*".to_owned() } else { origin.to_owned() }),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.join(", ")),
        (header::VARY, "Origin".to_owned()),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
}

/// Answers a browser that asks beforehand. Without a rule that fits, the answer lets nothing.
pub(crate) fn preflight(deps: &Deps, bucket: &str, asked: &HeaderMap) -> Response {
    let text = |name: header::HeaderName| asked.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = StatusCode::OK.into_response();
    let method = text(header::ACCESS_CONTROL_REQUEST_METHOD);
    let Some(rule) = cors_rule(deps, bucket, text(header::ORIGIN), method) else { return response };
    cors(deps, bucket, method, asked, &mut response);
    let list = |name: &str| rule[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let age = rule["maxAgeSeconds"].as_u64().unwrap_or(0).to_string();
    for (name, text) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, list("method")),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, list("responseHeader")),
        (header::ACCESS_CONTROL_MAX_AGE, age),
    ] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A call's query: each parameter is known or refused by name.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri, known: &[&str]) -> Result<Self, Error> {
        const COMMON: &[&str] = &["userProject", "prettyPrint", "alt"];
        let pairs: Vec<(String, String)> = uri.query().map(|query| form_urlencoded::parse(query.as_bytes()).into_owned().collect()).unwrap_or_default();
        for (at, (name, _)) in pairs.iter().enumerate() {
            let name = name.as_str();
            // Permissions were asked for one of them.
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("The parameter {name} is written twice.")));
            }
            if !COMMON.contains(&name) && !known.contains(&name) && !super::signed::is_parameter(name) {
                return Err(Error::not_served(name, "no parameter of this method that it knows has this name"));
            }
        }
        Ok(Self(pairs))
    }

    /// A parameter that is there, with or without a value.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let parse = |text: &str| text.parse().map_err(|_| Error::invalid(format!("Invalid value for {name}: {text:?} is no whole number.")));
        self.get(name).map(parse).transpose()
    }
}

/// The namespace of lists and forms, and that of multipart uploads, which Google's libraries look for.
const NAMESPACE: &str = "http://doc.s3.amazonaws.com/2006-03-01";
const MULTIPART_NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// An XML answer; `content` is escaped already.
fn xml(root: &str, namespace: &str, content: &str) -> Response {
    let body = format!("<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='{namespace}'>{content}</{root}>");
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/xml; charset=UTF-8")], body).into_response()
}

fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escaped(text))
}

/// Text within an element. Characters that XML 1.0 has not are left out.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out
}

/// The value of a header as text.
fn header_text<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_the_bucket() {
        let check = |host: &str, is_google: bool, text: &str, expect: Option<&str>| assert_eq!(path(host, is_google, text).as_deref(), expect, "{host} {text}");
        check("storage.googleapis.com", true, "/b/o/x", Some("/b/o/x"));
        check("storage.googleapis.com", true, "/b/", Some("/b"));
        check("storage.googleapis.com", true, "/b/o/", Some("/b/o/"));
        check("b.storage.googleapis.com", true, "/o", Some("/b/o"));
        check("b.storage.googleapis.com", true, "/", Some("/b"));
        check("a.b.storage.googleapis.com", true, "/o", Some("/a.b/o"));
        check("run.googleapis.com", true, "/b/o", None);
        check("storage.googleapis.com", true, "/storage/v1/b/x/unknown", None);
        check("127.0.0.1", false, "/b/o", Some("/b/o"));
    }

    #[test]
    fn a_parameter_is_written_once() {
        let check = |uri: &str, good: bool| assert_eq!(Query::of(&uri.parse().unwrap(), &["prefix", "marker"]).is_ok(), good, "{uri}");
        check("/b?prefix=a&marker=a", true);
        check("/b?prefix=secret&prefix=open", false);
        check("/b?prefix=secret&pre%66ix=open", false);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(element("Key", "a<b>&\"\u{1}関数"), "<Key>a&lt;b&gt;&amp;&quot;関数</Key>");
    }
}
