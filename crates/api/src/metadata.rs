//! The metadata server of one identity: who an instance (or a shell) is, and its tokens.
//!
//! The identity is the caller's only by where it asked: nothing in the request chooses it. What Compute Engine has beside this (disks,
//! networks, attributes to be set, waiting for changes) does not exist here. Source: cloud.google.com/compute/docs/metadata,
//! cloud.google.com/run/docs/container-contract#metadata-server, and what gcloud 528 and google-auth were seen to ask.

use std::time::Duration;

use axum::response::IntoResponse;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use iam::Identity;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{Deps, MetadataIdentity, Request, Response};

const ROOT: &str = "/computeMetadata/v1";
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// What tokens are for when the request names no scopes: all that IAM allows.
const SCOPES: [&str; 2] = ["https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/userinfo.email"];
const AUDIENCE_MAX_BYTES: usize = 2 << 10;
/// Parameters that would make an answer wait.
const WAITING: [&str; 3] = ["wait_for_change", "last_etag", "timeout_sec"];

/// What is found at a path.
enum Node {
    Folder(Vec<(String, Node)>),
    Text(String),
    /// A number in JSON.
    Number(u64),
    Lines(Vec<String>),
    /// Made for each request; not part of a recursive answer.
    Token,
    Identity,
}

/// An answer that is no success: its status and what is wrong.
struct Refused(StatusCode, String);

/// Answers one request.
pub(crate) fn answer(deps: &Deps, identity: &MetadataIdentity, request: &Request) -> Response {
    let path = request.uri().path();
    let result = check(request).and_then(|()| match path {
        "/" => Ok(text("computeMetadata/\n")),
        "/computeMetadata" | "/computeMetadata/" => Ok(text("v1/\n")),
        _ => under_root(deps, identity, request),
    });
    let mut response = result.unwrap_or_else(|Refused(status, why)| {
        let title = status.canonical_reason().unwrap_or("Error");
        let page = format!(
            "<!DOCTYPE html>\n<html lang=en>\n<title>Error {} ({title})</title>\n<p><b>{}.</b> {}\n",
            status.as_u16(),
            status.as_u16(),
            why.replace('&', "&amp;").replace('<', "&lt;")
        );
        (status, [(header::CONTENT_TYPE, "text/html; charset=UTF-8")], page).into_response()
    });
    for (name, value) in [
        (HeaderName::from_static("metadata-flavor"), "Google"),
        (header::SERVER, "Metadata Server for VM"),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A request that a browser or a proxy can be made to send for someone else is refused.
fn check(request: &Request) -> Result<(), Refused> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, format!("The request method {} is inappropriate for the URL.", request.method())));
    }
    if request.headers().contains_key("x-forwarded-for") {
        return Err(Refused(StatusCode::FORBIDDEN, "Your client does not have permission to get this URL: X-Forwarded-For is set.".to_owned()));
    }
    let flavor = request.headers().get("metadata-flavor").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"google"));
    if !flavor && !matches!(request.uri().path(), "/" | "/computeMetadata" | "/computeMetadata/") {
        return Err(Refused(StatusCode::FORBIDDEN, "Missing Metadata-Flavor:Google header.".to_owned()));
    }
    Ok(())
}

fn under_root(deps: &Deps, identity: &MetadataIdentity, request: &Request) -> Result<Response, Refused> {
    let not_found = || Refused(StatusCode::NOT_FOUND, format!("The requested URL {} was not found on this server.", request.uri().path()));
    let query: Vec<(String, String)> = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    if let Some((name, _)) = query.iter().find(|(name, _)| WAITING.contains(&name.as_str())) {
        return Err(Refused(StatusCode::BAD_REQUEST, format!("{name} is not supported: nothing here changes while an instance lives.")));
    }
    let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let below = request.uri().path().strip_prefix(ROOT).ok_or_else(not_found)?;
    if !below.is_empty() && !below.starts_with('/') {
        return Err(not_found());
    }
    let below = percent_encoding::percent_decode_str(below).decode_utf8().map_err(|_| not_found())?;
    let number = deps.control.project_get(&identity.project).map_err(|_| not_found())?.number.0;
    let root = tree(identity, number);
    let node = root.find(&below).ok_or_else(not_found)?;
    let recursive = get("recursive").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match node {
        Node::Token => token(deps, identity, get("scopes")),
        Node::Identity => id_token(deps, identity, &get),
        Node::Folder(_) if !below.ends_with('/') && !recursive => {
            let location = HeaderValue::from_str(&format!("{}/", request.uri().path())).map_err(|_| not_found())?;
            Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response())
        }
        _ => match (get("alt"), recursive) {
            (Some("json"), _) | (None, true) => Ok(json_answer(&node.json())),
            (Some("text") | None, false) => Ok(text(&node.text())),
            (Some("text"), true) => {
                let mut lines = String::new();
                node.lines("", &mut lines);
                Ok(text(&lines))
            }
            (Some(other), _) => Err(Refused(StatusCode::BAD_REQUEST, format!("alt={other} is neither json nor text."))),
        },
    }
}

/// Everything there is, but for tokens.
fn tree(identity: &MetadataIdentity, number: u64) -> Node {
    let folder = |entries: Vec<(&str, Node)>| Node::Folder(entries.into_iter().map(|(name, node)| (name.to_owned(), node)).collect());
    let account = || {
        folder(vec![
            ("aliases", Node::Lines(vec!["default".to_owned()])),
            ("email", Node::Text(identity.service_account.clone())),
            ("identity", Node::Identity),
            ("scopes", Node::Lines(SCOPES.map(str::to_owned).to_vec())),
            ("token", Node::Token),
        ])
    };
    let mut instance = vec![
        ("region", Node::Text(format!("projects/{number}/regions/{}", identity.region))),
        ("service-accounts", folder(vec![("default", account()), (&identity.service_account, account())])),
        ("zone", Node::Text(format!("projects/{number}/zones/{}-1", identity.region))),
    ];
    if !identity.instance.is_empty() {
        instance.insert(0, ("id", Node::Text(identity.instance.clone())));
    }
    folder(vec![
        ("instance", folder(instance)),
        (
            "project",
            folder(vec![("attributes", folder(vec![])), ("numeric-project-id", Node::Number(number)), ("project-id", Node::Text(identity.project.clone()))]),
        ),
        // The second is what older libraries ask for.
        ("universe", folder(vec![("universe-domain", Node::Text("googleapis.com".to_owned())), ("universe_domain", Node::Text("googleapis.com".to_owned()))])),
    ])
}

impl Node {
    /// What lies at `path`, such as `/instance/region` or `/instance/`.
    fn find(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for name in path.strip_suffix('/').unwrap_or(path).split('/').skip(1) {
            let Self::Folder(entries) = node else { return None };
            node = &entries.iter().find(|(entry, _)| entry == name)?.1;
        }
        // A slash ends folders only.
        (matches!(node, Self::Folder(_)) || !path.ends_with('/')).then_some(node)
    }

    fn text(&self) -> String {
        match self {
            Self::Folder(entries) => entries.iter().map(|(name, node)| format!("{name}{}\n", if matches!(node, Self::Folder(_)) { "/" } else { "" })).collect(),
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Lines(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
            Self::Token | Self::Identity => String::new(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Folder(entries) => {
                let made = |node: &Self| matches!(node, Self::Token | Self::Identity);
                // Names of accounts stay as they are; those of fields become lowerCamelCase.
                let name = |name: &str| if name.contains('@') { name.to_owned() } else { camel(name) };
                Value::Object(entries.iter().filter(|(_, node)| !made(node)).map(|(entry, node)| (name(entry), node.json())).collect::<Map<_, _>>())
            }
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Lines(lines) => json!(lines),
            Self::Token | Self::Identity => Value::Null,
        }
    }

    /// `alt=text` of a recursive request: a line for each value.
    fn lines(&self, path: &str, out: &mut String) {
        match self {
            Self::Folder(entries) => {
                entries.iter().for_each(|(name, node)| node.lines(&if path.is_empty() { name.clone() } else { format!("{path}/{name}") }, out))
            }
            Self::Token | Self::Identity => {}
            Self::Lines(lines) => lines.iter().for_each(|line| out.push_str(&format!("{path} {line}\n"))),
            Self::Text(_) | Self::Number(_) => out.push_str(&format!("{path} {}\n", self.text())),
        }
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut out, word| {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
        out
    })
}

/// The account, while it may have tokens.
fn account(deps: &Deps, identity: &MetadataIdentity) -> Result<Identity, Refused> {
    let who = deps.iam.identity(&identity.service_account);
    let good = match who.kind {
        iam::Kind::ServiceAccount => deps.iam.service_account_get(None, &who.email).is_ok_and(|account| !account.disabled),
        iam::Kind::User => deps.iam.user_exists(&who.email),
    };
    if good { Ok(who) } else { Err(Refused(StatusCode::FORBIDDEN, format!("The account {} does not exist or is disabled.", who.email))) }
}

fn token(deps: &Deps, identity: &MetadataIdentity, scopes: Option<&str>) -> Result<Response, Refused> {
    let who = account(deps, identity)?;
    let scopes = match scopes.filter(|scopes| !scopes.is_empty()) {
        Some(scopes) => scopes.split(',').map(str::trim).collect::<Vec<_>>().join(" "),
        None => SCOPES.join(" "),
    };
    let token = deps.iam.access_token_issue(&who, &scopes, TOKEN_LIFE);
    let left = token.expires.duration_since(deps.clock.now()).as_secs().max(0);
    Ok(json_answer(&json!({ "access_token": token.token, "expires_in": left, "token_type": "Bearer" })))
}

fn id_token<'a>(deps: &Deps, identity: &MetadataIdentity, get: &dyn Fn(&str) -> Option<&'a str>) -> Result<Response, Refused> {
    let bad = |why: &str| Err(Refused(StatusCode::BAD_REQUEST, why.to_owned()));
    let Some(audience) = get("audience").filter(|audience| !audience.is_empty()) else { return bad("non-empty audience parameter required") };
    if audience.len() > AUDIENCE_MAX_BYTES {
        return bad("the audience has more than 2048 bytes");
    }
    // On Cloud Run the full format has nothing that the standard one has not: there is no virtual machine to speak of.
    if !matches!(get("format"), None | Some("" | "standard" | "full")) {
        return bad("format is neither standard nor full");
    }
    if !get("licenses").is_none_or(|licenses| licenses.eq_ignore_ascii_case("false") || licenses.eq_ignore_ascii_case("true")) {
        return bad("licenses is neither TRUE nor FALSE");
    }
    let who = account(deps, identity)?;
    let token = deps.iam.id_token_issue(&who, audience, true);
    Ok(([(header::CONTENT_TYPE, "text/html")], token).into_response())
}

fn text(body: &str) -> Response {
    with_etag("application/text", body.to_owned())
}

fn json_answer(body: &Value) -> Response {
    with_etag("application/json", body.to_string())
}

fn with_etag(content_type: &'static str, body: String) -> Response {
    let etag = hex::encode(&Sha256::digest(body.as_bytes())[..8]);
    ([(header::CONTENT_TYPE, content_type), (header::ETAG, etag.as_str())], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(instance: &str) -> MetadataIdentity {
        MetadataIdentity {
            project: "local-project".to_owned(),
            region: "asia-northeast1".to_owned(),
            instance: instance.to_owned(),
            service_account: "dev@local-project.iam.gserviceaccount.com".to_owned(),
        }
    }

    #[test]
    fn paths_have_the_values_that_clients_ask_for() {
        let root = tree(&identity("00abc"), 9_123_456_789_012);
        let check = |path: &str, expect: Option<&str>| assert_eq!(root.find(path).map(Node::text).as_deref(), expect, "{path}");
        check("", Some("instance/\nproject/\nuniverse/\n"));
        check("/", Some("instance/\nproject/\nuniverse/\n"));
        check("/project/project-id", Some("local-project"));
        check("/project/numeric-project-id", Some("9123456789012"));
        check("/instance/id", Some("00abc"));
        check("/instance/region", Some("projects/9123456789012/regions/asia-northeast1"));
        check("/instance/zone", Some("projects/9123456789012/zones/asia-northeast1-1"));
        check("/instance/service-accounts/", Some("default/\ndev@local-project.iam.gserviceaccount.com/\n"));
        check("/instance/service-accounts/default/email", Some("dev@local-project.iam.gserviceaccount.com"));
        check("/instance/service-accounts/default/", Some("aliases\nemail\nidentity\nscopes\ntoken\n"));
        check("/universe/universe-domain", Some("googleapis.com"));
        for absent in ["/project/project-id/", "/instance/disks", "/instance/service-accounts/other@x", "//instance", "/project/project-id/x"] {
            check(absent, None);
        }
        assert!(tree(&identity(""), 1).find("/instance/id").is_none());
    }

    #[test]
    fn recursive_answers() {
        let root = tree(&identity("00abc"), 12);
        let account = root.find("/instance/service-accounts/default/").unwrap();
        assert_eq!(account.json(), json!({ "aliases": ["default"], "email": "dev@local-project.iam.gserviceaccount.com", "scopes": SCOPES }));
        let project = root.find("/project").unwrap();
        assert_eq!(project.json(), json!({ "attributes": {}, "numericProjectId": 12, "projectId": "local-project" }));
        let mut lines = String::new();
        project.lines("", &mut lines);
        assert_eq!(lines, "numeric-project-id 12\nproject-id local-project\n");
    }

    #[test]
    fn requests_that_others_can_be_made_to_send_are_refused() {
        let check = |method: Method, path: &str, headers: &[(&str, &str)], expect: Option<u16>| {
            let mut request = http::Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(axum::body::Body::empty()).unwrap();
            assert_eq!(super::check(&request).err().map(|refused| refused.0.as_u16()), expect, "{path} {headers:?}");
        };
        let flavor = ("Metadata-Flavor", "Google");
        check(Method::GET, "/computeMetadata/v1/project/project-id", &[flavor], None);
        check(Method::GET, "/", &[], None);
        check(Method::GET, "/computeMetadata/v1/project/project-id", &[], Some(403));
        check(Method::GET, "/computeMetadata/v1/project/project-id", &[("Metadata-Flavor", "Other")], Some(403));
        check(Method::GET, "/computeMetadata/v1/project/project-id", &[flavor, ("X-Forwarded-For", "1.2.3.4")], Some(403));
        check(Method::POST, "/computeMetadata/v1/project/project-id", &[flavor], Some(405));
    }
}
