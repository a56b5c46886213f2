//! What a caller needs for a method, and whether they have it.
//!
//! Every method that is served has a [`Need`]: neither an endpoint ([`crate::surface`]) nor a method of a proto
//! ([`crate::grpc`]) can be registered without one. Whether a need is met is `iam`'s to say; this file finds the resource.

use std::collections::BTreeMap;

use http::HeaderMap;
use iam::{About, Identity, Question};
use model::{
    ProjectId, Region, Status,
    secret::{SecretId, SecretKey},
};

use crate::Deps;

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing, not even credentials: token endpoints, sign-in pages, published keys.
    Public,
    /// Good credentials of anyone: what the answer holds is the caller's own or nobody's.
    SignedIn,
    /// Good credentials; the method itself asks for `permission` on each resource that its body names.
    Inside {
        /// Named here for the reader of the table.
        permission: &'static str,
    },
    /// The permission on the resource, a template such as `projects/{project}/locations/{location}/services/{service}`
    /// or `buckets/{bucket}`. `{name}` is a variable of the path, `{?name}` one of the query.
    On {
        /// Such as `run.services.get`.
        permission: &'static str,
        /// The template.
        resource: &'static str,
    },
}

impl Need {
    /// Empty for what asks for none.
    pub(crate) fn permission(self) -> &'static str {
        match self {
            Self::Public | Self::SignedIn => "",
            Self::Inside { permission } | Self::On { permission, .. } => permission,
        }
    }
}

impl From<Need> for crate::Needs {
    fn from(need: Need) -> Self {
        match need {
            Need::Public => Self::Nothing,
            Need::SignedIn => Self::Credentials,
            Need::Inside { permission } => Self::PermissionInside(permission),
            Need::On { permission, .. } => Self::Permission(permission),
        }
    }
}

/// Short for [`Need::On`].
pub(crate) const fn on(permission: &'static str, resource: &'static str) -> Need {
    Need::On { permission, resource }
}

/// The variables of a request, by name. `project` is an id after [`check`], whatever the client wrote.
pub(crate) type Vars = BTreeMap<String, String>;

/// What is known of a request that passed: an extension of it, beside [`iam::Identity`].
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// `None` only for [`Need::Public`].
    pub who: Option<Identity>,
    /// Variables of the path.
    pub vars: Vars,
    /// The region of the host, or the default when the host names none.
    pub region: Region,
    /// Which row of the surface.
    pub row: usize,
}

/// Lets `who` pass or says why not. Replaces project numbers in `vars` by ids and accounts' unique ids by e-mails.
///
/// # Errors
/// `UNAUTHENTICATED` without credentials, `PERMISSION_DENIED` without the permission or for a project that does not
/// exist (Google does not tell these apart), `NOT_FOUND` for a bucket that does not exist (their names are global).
pub(crate) fn check(deps: &Deps, who: Option<&Identity>, need: Need, vars: &mut Vars, query: &Vars) -> Result<(), Status> {
    let (permission, template) = match need {
        Need::Public => return Ok(()),
        Need::SignedIn | Need::Inside { .. } => {
            who.ok_or_else(Status::unauthenticated)?;
            let permission = if let Need::Inside { permission } = need { permission } else { "resourcemanager.projects.get" };
            let written = format!("projects/{}", vars.get("project").map_or("", String::as_str));
            project_resolve(deps, vars, &|| Status::permission_denied(permission, &written))?;
            return Ok(());
        }
        Need::On { permission, resource } => (permission, resource),
    };
    // Without credentials not even the form of a request is discussed, except where they may not be needed.
    if !template.starts_with("buckets/") {
        who.ok_or_else(Status::unauthenticated)?;
    }
    let asked = fill(template, vars, query)?;
    version_resolve(deps, template, vars);
    let part = part_of(template, vars, query);
    let about = About { part: part.as_deref(), list_prefix: query.get("prefix").map(String::as_str), ..About::default() };
    let may = |who: Option<&Identity>, resource: &str, project: &ProjectId| {
        let question = Question { who, permission, resource, project: project.as_str(), about };
        // An object that is named in the body alone: conditions on its name are asked when it has been read (`storage::object::write_check`).
        if permission == "storage.objects.create" && part.is_none() { deps.iam.might(&question) } else { deps.iam.may_about(&question) }
    };
    let denied = || Status::permission_denied(permission, &asked);

    if let Some(name) = asked.strip_prefix("buckets/") {
        // A bucket may be open to everyone. To who brings no credentials, one that does not exist looks like one that is not.
        let refused = || who.map_or_else(Status::unauthenticated, |_| denied());
        let project = match deps.control.bucket_get(name) {
            Err(absent) => return Err(if who.is_some() { absent } else { refused() }),
            Ok(bucket) => bucket.value.project,
        };
        return if may(who, &asked, &project) { Ok(()) } else { Err(refused()) };
    }
    let who = who.ok_or_else(Status::unauthenticated)?;
    if template.contains("{?project}") {
        let mut query = query.clone();
        let project = project_resolve(deps, &mut query, &denied)?.ok_or_else(denied)?;
        let resource = fill(template, vars, &query)?;
        return if may(Some(who), &resource, &project) { Ok(()) } else { Err(denied()) };
    }
    account_resolve(deps, vars);
    let project = project_resolve(deps, vars, &denied)?.ok_or_else(denied)?;
    let resource = fill(template, vars, query)?;
    if may(Some(who), &resource, &project) { Ok(()) } else { Err(denied()) }
}

/// What of the resource a request is about, for conditions: an object of its bucket, a version of its secret.
fn part_of(template: &str, vars: &Vars, query: &Vars) -> Option<String> {
    if template.starts_with("buckets/") {
        // An upload names its object in the query.
        return vars.get("object").or_else(|| query.get("name")).filter(|name| !name.is_empty()).map(|name| format!("objects/{name}"));
    }
    if template.ends_with("/secrets/{secret}") {
        return vars.get("version").map(|version| format!("versions/{version}"));
    }
    None
}

/// The number of a secret's version that is named by `latest`, an alias or with zeros in front: conditions are asked about the number, and
/// the method is told no other.
fn version_resolve(deps: &Deps, template: &str, vars: &mut Vars) {
    let (Some(project), Some(secret), Some(version)) = (vars.get("project"), vars.get("secret"), vars.get("version")) else { return };
    if !template.ends_with("/secrets/{secret}") {
        return;
    }
    let number = (|| {
        let key = SecretKey { project: deps.control.project_get(project)?.id, secret: SecretId::parse(secret)? };
        deps.control.secret_get(&key)?.version_named("", version)
    })();
    // What is not there is for the method to refuse.
    if let Ok(number) = number {
        vars.insert("version".to_owned(), number.to_string());
    }
}

/// Reads `value`, a resource's name as a client wrote it, by `pattern`, such as `projects/{project}/locations/{location}`, or the first
/// that fits of several with `|` between. `None` when it has another form or an empty part.
pub(crate) fn name_read(pattern: &str, value: &str) -> Option<Vars> {
    pattern.split('|').find_map(|pattern| name_read_one(pattern, value))
}

fn name_read_one(pattern: &str, value: &str) -> Option<Vars> {
    let mut vars = Vars::new();
    let mut parts = value.split('/');
    for expected in pattern.split('/') {
        let part = parts.next().filter(|part| !part.is_empty())?;
        match expected.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => {
                vars.insert(name.to_owned(), part.to_owned());
            }
            None if expected == part => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some(vars)
}

/// Puts the variables in the places of `template`.
pub(crate) fn fill(template: &str, vars: &Vars, query: &Vars) -> Result<String, Status> {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}').expect("templates are literals of this crate with closed braces");
        out.push_str(&rest[..open]);
        let name = &rest[open + 1..close];
        let value = match name.strip_prefix('?') {
            Some(name) => query.get(name).ok_or_else(|| Status::invalid_field(name, "Required parameter: it is missing"))?,
            None => vars.get(name).ok_or_else(|| Status::internal(format!("{template} names {name}, which the path does not have")))?,
        };
        // A slash in a variable would make another resource of it.
        if value.is_empty() || value.contains('/') {
            return Err(Status::invalid_field(name.trim_start_matches('?'), format!("{value:?} is no name")));
        }
        out.push_str(value);
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The project that the variable `project` names by id or number, which becomes its id.
///
/// # Errors
/// `absent` for a project that does not exist.
fn project_resolve(deps: &Deps, vars: &mut Vars, absent: &dyn Fn() -> Status) -> Result<Option<ProjectId>, Status> {
    let Some(written) = vars.get("project").filter(|written| *written != "-") else {
        return Ok(None);
    };
    match deps.control.project_get(written) {
        Ok(project) => {
            vars.insert("project".to_owned(), project.id.to_string());
            Ok(Some(project.id))
        }
        Err(error) if error.code == model::Code::NotFound => Err(absent()),
        Err(error) => Err(error),
    }
}

/// The project of this id or number, when `who` has `permission` on it: for projects that a request names in its body.
///
/// # Errors
/// `PERMISSION_DENIED`, also for a project that does not exist.
pub(crate) fn project_checked(deps: &Deps, who: &Identity, written: &str, permission: &str) -> Result<ProjectId, Status> {
    let denied = || Status::permission_denied(permission, &format!("projects/{written}"));
    let project = deps.control.project_get(written).map_err(|_| denied())?.id;
    if deps.iam.may(Some(who), permission, &format!("projects/{project}"), project.as_str()) { Ok(project) } else { Err(denied()) }
}

/// The project whose quota a call counts against, by header or query. Nothing is counted here; one that does not exist is
/// refused all the same.
///
/// # Errors
/// `PERMISSION_DENIED` in Google's words. Source: cloud.google.com/apis/docs/system-parameters.
pub(crate) fn quota_project_check(deps: &Deps, headers: &HeaderMap, query: Option<&str>) -> Result<(), Status> {
    let header = headers.get_all("x-goog-user-project").iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let query = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).filter(|(name, _)| matches!(&**name, "userProject" | "$userProject"));
    for project in header.chain(query.map(|(_, value)| value.into_owned())).filter(|project| !project.is_empty()) {
        match deps.control.project_get(&project) {
            Ok(_) => {}
            Err(error) if error.code == model::Code::NotFound => {
                return Err(Status::new(
                    model::Code::PermissionDenied,
                    format!(
                        "Caller does not have required permission to use project {project}. Grant the caller the roles/serviceusage.serviceUsageConsumer role, \
                         or a custom role with the serviceusage.services.use permission, by visiting \
                         https://console.developers.google.com/iam-admin/iam/project?project={project} and then retry. Propagation of the new permission may take a few minutes."
                    ),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Finds the project of an account under the wildcard project `-`, and the e-mail of one named by its unique id.
fn account_resolve(deps: &Deps, vars: &mut Vars) {
    let Some(account) = vars.get("account") else {
        return;
    };
    let within = match vars.get("project").filter(|written| *written != "-").map(|written| deps.control.project_get(written)) {
        None => None,
        Some(Ok(project)) => Some(project.id),
        // A project that does not exist is no wildcard.
        Some(Err(_)) => return,
    };
    if let Ok(found) = deps.iam.service_account_get(within.as_ref(), account) {
        vars.insert("project".to_owned(), found.project.to_string());
        vars.insert("account".to_owned(), found.email);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn resources_are_filled_in() {
        let path = vars(&[("project", "demo-1"), ("service", "s")]);
        let query = vars(&[("project", "other-1")]);
        let check = |template: &str, expect: Option<&str>| assert_eq!(fill(template, &path, &query).ok().as_deref(), expect, "{template}");
        check("projects/{project}/services/{service}", Some("projects/demo-1/services/s"));
        check("projects/{?project}", Some("projects/other-1"));
        check("projects/{?missing}", None);
    }

    #[test]
    fn names_are_read() {
        let check = |pattern: &str, value: &str, expect: Option<&[(&str, &str)]>| {
            assert_eq!(name_read(pattern, value), expect.map(vars), "{pattern} {value}");
        };
        let pattern = "projects/{project}/locations/{location}";
        check(pattern, "projects/p/locations/l", Some(&[("project", "p"), ("location", "l")]));
        for bad in
            ["projects/p", "projects/p/locations/", "projects/p/locations/l/x", "/projects/p/locations/l", "projects//locations/l", "folders/p/locations/l"]
        {
            check(pattern, bad, None);
        }
        check("a/{x}|b/{y}/c", "b/1/c", Some(&[("y", "1")]));
        check("a/{x}|b/{y}/c", "b/1", None);
    }

    #[test]
    fn a_name_cannot_lead_to_another_resource() {
        for bad in ["", "a/b", "../x"] {
            assert!(fill("buckets/{bucket}", &vars(&[("bucket", bad)]), &Vars::new()).is_err(), "{bad}");
        }
    }
}
