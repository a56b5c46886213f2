//! Why somebody was not let in, and who would be: for `tanebi iam` and the console. Google has no method for it.
//!
//! It asks what the request path asks: whether a service's ingress lets a caller near ([`control::admission`]), and `iam` for the rules
//! and bindings that decide ([`iam::Iam::explain`]). Nothing is decided here. What to type to mend it is in [`mend`].
//! Whoever may read a project's policy may ask.

mod mend;
mod resource;

use control::admission::{self, CallOrigin, DeniedRequest, Stopped};
use http::{Method as Verb, StatusCode};
use iam::{About, Bound, Identity, Kind, Question, Standing, TokenClaims, TokenError};
use model::{Code, Region, ServiceKey, ServiceName, Status, policy::Member, service::Ingress};
use serde_json::{Value as Json, json};

use self::resource::Resource;
use crate::{
    Response,
    app::App,
    error,
    permission::{on, project_checked},
    surface::{Call, Endpoints, Surface},
};

/// Google's API for the same question lives there; this server's own paths do not meet its.
const HOSTS: &[&str] = &["policytroubleshooter.googleapis.com"];
const READ: &str = "resourcemanager.projects.getIamPolicy";
const PROJECT: &str = "projects/{project}";
const INVOKE: &str = "run.routes.invoke";
/// Rows of an answer to who can.
const ROWS_MAX: usize = 1000;

pub(crate) fn surface(app: &App) -> Surface {
    Endpoints::new(app.clone())
        .on(Verb::GET, "/tanebi/v1/projects/{project}:whyDenied", on(READ, PROJECT), why_denied)
        .on(Verb::GET, "/tanebi/v1/projects/{project}:whoCan", on(READ, PROJECT), who_can)
        .surface("tanebi v1", HOSTS)
}

/// One thing that stands in the way.
struct Reason {
    /// For programs.
    kind: &'static str,
    message: String,
    /// What to type to mend it; empty when there is no such line.
    fix: String,
}

impl Reason {
    fn new(kind: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { kind, message: message.into(), fix: fix.into() }
    }

    fn json(&self) -> Json {
        let mut json = json!({ "kind": self.kind, "message": self.message });
        if !self.fix.is_empty() {
            json["fix"] = json!(self.fix);
        }
        json
    }
}

/// `?request=TRACE`, or `?principal=P` with `service=S&region=R` or `resource=NAME`, `permission=X` and `from=outside|inside`.
async fn why_denied(app: App, call: Call) -> Result<Response, Status> {
    let answer = match call.query("request") {
        Some(request) => by_request(&app, &call, &request)?,
        None => by_principal(&app, &call)?,
    };
    Ok(error::json_response(StatusCode::OK, &answer))
}

/// What became of a request, and whether it would be the same now.
fn by_request(app: &App, call: &Call, request: &str) -> Result<Json, Status> {
    // As logs write it: projects/P/traces/ID, ID, or ID/SPAN.
    let trace = request.rsplit_once("/traces/").map_or(request, |(_, trace)| trace).split('/').next().unwrap_or_default().to_ascii_lowercase();
    let found = app.control.denied_request(&trace).filter(|denied| denied.service.project.as_str() == call.vars["project"]);
    let denied = found.ok_or_else(|| {
        Status::not_found(format!(
            "No request of trace {trace:?} is among the last that were not let in; a request's log entry has its trace, and the last 1,000 since the start are remembered."
        ))
    })?;
    let resource = Resource::service(app, &denied.service)?;
    let (who, mut reasons, now_allowed) = stopped_reasons(app, &denied, &resource);
    if now_allowed {
        reasons.push(Reason::new("CHANGED", "It was refused then; settings have changed since, and it would not be refused now.", ""));
    }
    Ok(json!({
        "allowed": false,
        "allowedNow": now_allowed,
        // Empty for somebody who was refused before they were recognised.
        "principal": match (&who, &denied.stopped) {
            (Some(who), _) => member_of(who),
            (None, Stopped::NoToken) => "allUsers".to_owned(),
            (None, _) => String::new(),
        },
        "permission": INVOKE,
        "resource": resource.name,
        "time": denied.time.to_string(),
        "host": denied.host,
        "reasons": reasons.iter().map(Reason::json).collect::<Vec<_>>(),
    }))
}

/// Who called, what stood in the way, and whether it still does.
fn stopped_reasons(app: &App, denied: &DeniedRequest, resource: &Resource) -> (Option<Identity>, Vec<Reason>, bool) {
    match &denied.stopped {
        Stopped::Ingress(from) => {
            let now = resource.ingress.is_some_and(|ingress| admission::admits(ingress, &resource.project, from));
            (None, if now { Vec::new() } else { vec![ingress_reason(resource, from)] }, now)
        }
        Stopped::NoToken => {
            let now = resource.invoker_iam_disabled || decided(app, None, resource, INVOKE).allowed;
            (None, if now { Vec::new() } else { vec![nobody_reason(resource)] }, now)
        }
        Stopped::BadToken(error, claims) => (None, vec![token_reason(app, *error, claims.as_ref(), resource)], false),
        Stopped::NotPermitted(who) => {
            let now = decided(app, Some(who), resource, INVOKE);
            (Some(who.clone()), now.reasons, resource.invoker_iam_disabled || now.allowed)
        }
    }
}

fn ingress_reason(resource: &Resource, from: &CallOrigin) -> Reason {
    let setting = match resource.ingress {
        Some(Ingress::Internal) => "internal",
        Some(Ingress::InternalAndLoadBalancer) => "internal-and-cloud-load-balancing",
        Some(Ingress::None) => "none",
        _ => "all",
    };
    let from = match from {
        CallOrigin::Outside => "from outside".to_owned(),
        CallOrigin::Inside(project) => format!("from inside project {project}"),
    };
    Reason::new(
        "INGRESS",
        format!("The ingress setting of the service is {setting}; the call came {from}, and was answered 404 before anyone asked who called."),
        mend::ingress(resource),
    )
}

fn nobody_reason(resource: &Resource) -> Reason {
    Reason::new(
        "NO_TOKEN",
        "The call had no token, and nobody without one has the permission. Send Authorization: Bearer with what the line below prints, or give allUsers roles/run.invoker.",
        if resource.is_service() { "gcloud auth print-identity-token" } else { "gcloud auth print-access-token" },
    )
}

fn token_reason(app: &App, error: TokenError, claims: Option<&TokenClaims>, resource: &Resource) -> Reason {
    let said = claims.filter(|claims| !claims.email.is_empty()).map_or_else(String::new, |claims| format!(" It says that it is {}'s.", claims.email));
    match error {
        TokenError::Audience => {
            let audience = claims.map_or("", |claims| claims.audience.as_str());
            let message = format!("The token is for the audience {audience:?}, and the service takes its own URLs and custom audiences.{said}");
            Reason::new("AUDIENCE", message, mend::audience(resource, claims.map_or("", |claims| claims.email.as_str()), audience))
        }
        TokenError::Time => {
            let until = claims.and_then(|claims| claims.expires).map_or_else(String::new, |at| format!(" It was good until {at}."));
            Reason::new("EXPIRED_TOKEN", format!("The token has expired, or is not valid yet.{until}{said}"), "gcloud auth print-identity-token")
        }
        TokenError::Subject => {
            let email = claims.map_or("", |claims| claims.email.as_str());
            match app.iam.service_account_get(None, email) {
                Ok(account) if account.disabled => disabled_reason(email),
                _ => Reason::new(
                    "PRINCIPAL_GONE",
                    format!("Whom the token names is not here any more, or is another of the same name.{said}"),
                    "gcloud auth print-identity-token",
                ),
            }
        }
        TokenError::Malformed | TokenError::Signature | TokenError::Store => Reason::new(
            "BAD_TOKEN",
            format!("The token is no ID token of this server: {error}. An access token or another issuer's token is none.{said}"),
            "gcloud auth print-identity-token",
        ),
    }
}

fn disabled_reason(email: &str) -> Reason {
    Reason::new(
        "ACCOUNT_DISABLED",
        format!("The service account {email} is disabled: its tokens and keys are refused."),
        format!("gcloud iam service-accounts enable {email}"),
    )
}

/// What would become of a call.
fn by_principal(app: &App, call: &Call) -> Result<Json, Status> {
    let required = |name: &str| call.query(name).filter(|value| !value.is_empty());
    let principal = required("principal")
        .ok_or_else(|| Status::invalid_field("principal", "an address, user:ADDRESS, serviceAccount:ADDRESS or allUsers is wanted; or name a request"))?;
    let resource = asked_resource(app, call)?;
    let permission = required("permission").unwrap_or_else(|| INVOKE.to_owned());
    let from = match call.query("from").as_deref() {
        None | Some("" | "outside") => CallOrigin::Outside,
        Some("inside") => CallOrigin::Inside(resource.project.clone()),
        Some(other) => return Err(Status::invalid_field("from", format!("{other:?} is neither outside nor inside"))),
    };
    let who = principal_read(app, &principal)?;
    let mut reasons = Vec::new();
    if permission == INVOKE && resource.ingress.is_some_and(|ingress| !admission::admits(ingress, &resource.project, &from)) {
        reasons.push(ingress_reason(&resource, &from));
    }
    let is_open = permission == INVOKE && resource.invoker_iam_disabled;
    let mut grants = Vec::new();
    if !is_open {
        reasons.extend(who.as_ref().and_then(|who| principal_reason(app, who)));
        let decided = decided(app, who.as_ref(), &resource, &permission);
        reasons.extend(decided.reasons);
        grants = decided.grants;
    }
    Ok(json!({
        "allowed": reasons.is_empty(),
        "principal": who.as_ref().map_or_else(|| "allUsers".to_owned(), member_of),
        "permission": permission,
        "resource": resource.name,
        "invokerIamDisabled": is_open,
        "grants": grants.iter().map(bound_json).collect::<Vec<_>>(),
        "reasons": reasons.iter().map(Reason::json).collect::<Vec<_>>(),
    }))
}

/// The resource that a call names, of the call's project.
fn asked_resource(app: &App, call: &Call) -> Result<Resource, Status> {
    let project = call.vars["project"].as_str();
    let resource = match (call.query("service").filter(|service| !service.is_empty()), call.query("resource")) {
        (Some(service), _) => {
            let region = call.query("region").filter(|region| !region.is_empty()).map_or_else(|| Ok(call.region.clone()), |region| Region::parse(&region))?;
            Resource::service(app, &ServiceKey { project: model::ProjectId::parse(project)?, region, service: ServiceName::parse(&service)? })?
        }
        (None, Some(name)) => Resource::find(app, &name, project)?,
        (None, None) => Resource::find(app, &format!("projects/{project}"), project)?,
    };
    if resource.project == project {
        return Ok(resource);
    }
    Err(Status::permission_denied(READ, &format!("projects/{}", resource.project)))
}

fn principal_read(app: &App, text: &str) -> Result<Option<Identity>, Status> {
    if matches!(text, "allUsers" | "anonymous") {
        return Ok(None);
    }
    let member = if text.contains(':') { text.to_owned() } else { format!("user:{text}") };
    match Member::parse(&member)
        .map_err(|_| Status::invalid_field("principal", format!("{text:?} is no address, user:ADDRESS, serviceAccount:ADDRESS or allUsers")))?
    {
        Member::User(email) | Member::ServiceAccount(email) => Ok(Some(app.iam.identity(&email))),
        _ => Err(Status::invalid_field("principal", format!("{text:?} is not one that calls: name a user, a service account or allUsers"))),
    }
}

/// Whether there is somebody of that name whose tokens are good.
fn principal_reason(app: &App, who: &Identity) -> Option<Reason> {
    let email = &who.email;
    match who.kind {
        Kind::User => (!app.iam.user_exists(email)).then(|| {
            Reason::new(
                "PRINCIPAL_UNKNOWN",
                format!("There is no user {email} here, and so no token of theirs; whoever is named to tanebi is made."),
                format!("tanebi exec --as {email} -- true"),
            )
        }),
        Kind::ServiceAccount => match app.iam.service_account_get(None, email) {
            Ok(account) => account.disabled.then(|| disabled_reason(email)),
            Err(_) => Some(Reason::new(
                "PRINCIPAL_UNKNOWN",
                format!("There is no service account {email} here, and so no token of its."),
                format!("gcloud iam service-accounts create {}", email.split('@').next().unwrap_or_default()),
            )),
        },
    }
}

struct Decided {
    allowed: bool,
    reasons: Vec<Reason>,
    grants: Vec<Bound>,
}

/// What `iam` says, in words.
fn decided(app: &App, who: Option<&Identity>, resource: &Resource, permission: &str) -> Decided {
    let question = Question { who, permission, resource: &resource.name, project: &resource.project, about: About::default() };
    let told = app.iam.explain(&question);
    let mut reasons = Vec::new();
    if told.is_unknown {
        reasons.push(Reason::new("UNKNOWN_PERMISSION", format!("No part of this server asks for the permission {permission:?}: nobody has it."), ""));
        return Decided { allowed: false, reasons, grants: Vec::new() };
    }
    for (policy, rule) in &told.denied {
        reasons.push(Reason::new(
            "DENY_POLICY",
            format!("Rule {rule} of the deny policy {policy} of project {} forbids it, whatever roles give; take the caller out of its principals or into its exceptions.", resource.project),
            mend::deny_policy(&resource.project, policy),
        ));
    }
    let is_granted = told.bindings.iter().any(|bound| bound.standing == Standing::Grants);
    if !is_granted {
        reasons.extend(told.bindings.iter().map(|bound| bound_reason(app, who, resource, bound)));
    }
    if !is_granted && told.bindings.is_empty() {
        reasons.push(match who {
            None if permission == INVOKE => nobody_reason(resource),
            who => missing_reason(app, who, resource, permission),
        });
    }
    let grants = told.bindings.into_iter().filter(|bound| bound.standing == Standing::Grants).collect();
    Decided { allowed: told.allowed, reasons, grants }
}

fn missing_reason(app: &App, who: Option<&Identity>, resource: &Resource, permission: &str) -> Reason {
    let member = who.map_or_else(|| "allUsers".to_owned(), member_of);
    let roles = app.iam.roles_with(permission, &resource.project);
    let role = roles.first().map_or("roles/owner", String::as_str);
    let places = if resource.is_project() {
        format!("the policy of {}", resource.name)
    } else {
        format!("the policies of {} and projects/{}", resource.name, resource.project)
    };
    Reason::new(
        "MISSING_BINDING",
        format!(
            "No binding in {places} gives {member} a role with {permission}. Roles that have it: {}.",
            roles.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        ),
        mend::binding(app, resource, &resource.name, &member, role),
    )
}

/// A binding that names the caller and gives nothing.
fn bound_reason(app: &App, who: Option<&Identity>, resource: &Resource, bound: &Bound) -> Reason {
    let member = who.map_or_else(|| "allUsers".to_owned(), member_of);
    let (role, at) = (&bound.role, &bound.resource);
    match bound.standing {
        Standing::RoleGone => Reason::new(
            "ROLE_DELETED",
            format!("{at} binds {role}, which was deleted, or is another project's, and grants nothing."),
            mend::role("undelete", role, ""),
        ),
        Standing::RoleDisabled => {
            Reason::new("ROLE_DISABLED", format!("{at} binds {role}, whose stage is DISABLED: it grants nothing."), mend::role("update", role, " --stage=GA"))
        }
        _ => {
            let condition = bound.condition.clone().unwrap_or_default();
            let outcome = if bound.standing == Standing::ConditionFailed { "asks for what this request does not have" } else { "is not true now" };
            Reason::new(
                "CONDITION",
                format!(
                    "{at} binds {role} to the caller under the condition {:?}, which {outcome}: {} (time {}).",
                    condition.title,
                    condition.expression,
                    app.clock.now()
                ),
                mend::binding(app, resource, at, &member, role),
            )
        }
    }
}

/// `?permission=X` and `service=S&region=R` or `resource=NAME`.
async fn who_can(app: App, call: Call) -> Result<Response, Status> {
    let resource = asked_resource(&app, &call)?;
    let permission = call.query("permission").filter(|permission| !permission.is_empty()).unwrap_or_else(|| INVOKE.to_owned());
    let bound = app.iam.who_can(&permission, &resource.name, &resource.project)?;
    // Who is in a group is told to whom it is told elsewhere: see `groups`.
    let may_read_groups = project_checked(&app, call.who()?, app.config.default_project.as_str(), READ).is_ok();
    let mut principals = Vec::new();
    for (bound, member) in bound.iter().flat_map(|bound| bound.members.iter().map(move |member| (bound, member))) {
        // One more than are told, to know that there are more.
        let room = ROWS_MAX + 1 - principals.len();
        principals.extend(holders(&app, &resource, &permission, (bound, member), may_read_groups, room));
    }
    let is_cut = principals.len() > ROWS_MAX;
    principals.truncate(ROWS_MAX);
    Ok(error::json_response(
        StatusCode::OK,
        &json!({
            "permission": permission,
            "resource": resource.name,
            "invokerIamDisabled": permission == INVOKE && resource.invoker_iam_disabled,
            "principals": principals,
            // Whether there are more than these.
            "truncated": is_cut,
        }),
    ))
}

/// A member of a binding, and those of a group one by one, `room` at most.
fn holders(app: &App, resource: &Resource, permission: &str, (bound, member): (&Bound, &Member), may_read_groups: bool, room: usize) -> Vec<Json> {
    if room == 0 {
        return Vec::new();
    }
    let row = |member: String, via: Option<String>, may: bool, why: String| {
        let mut row = bound_json(bound);
        row["member"] = json!(member);
        row["may"] = json!(may);
        if let Some(via) = via {
            row["via"] = json!(via);
        }
        if !why.is_empty() {
            row["why"] = json!(why);
        }
        row
    };
    let person = |email: &str, via: Option<String>| {
        let who = app.iam.identity(email);
        let decided = decided(app, Some(&who), resource, permission);
        let unknown = principal_reason(app, &who);
        let why = unknown.iter().chain(&decided.reasons).map(|reason| reason.kind).collect::<Vec<_>>().join(", ");
        row(member_of(&who), via, decided.allowed && unknown.is_none(), why)
    };
    match member {
        Member::User(email) | Member::ServiceAccount(email) => vec![person(email, None)],
        Member::Group(_) if !may_read_groups => {
            vec![row(member.to_string(), None, bound.standing == Standing::Grants, "whoever is in it; you may not read who".to_owned())]
        }
        Member::Group(email) => match app.iam.group_get(email) {
            Ok(group) => group.members.iter().take(room).map(|(one, _)| person(one, Some(member.to_string()))).collect(),
            Err(_) => vec![row(member.to_string(), None, false, "there is no such group, or it has no members".to_owned())],
        },
        Member::AllUsers => {
            let decided = decided(app, None, resource, permission);
            vec![row(member.to_string(), None, decided.allowed, String::new())]
        }
        Member::AllAuthenticatedUsers | Member::Domain(_) => {
            let may = bound.standing == Standing::Grants;
            vec![row(member.to_string(), None, may, "deny policies may still forbid it to some".to_owned())]
        }
    }
}

fn bound_json(bound: &Bound) -> Json {
    let mut json = json!({ "policy": bound.resource, "role": bound.role });
    if let Some(condition) = &bound.condition {
        json["condition"] = json!(condition);
    }
    json
}

fn member_of(who: &Identity) -> String {
    match who.kind {
        Kind::User => format!("user:{}", who.email),
        Kind::ServiceAccount => format!("serviceAccount:{}", who.email),
    }
}

/// Google does not tell what is not there from what one may not see; who asks here may read the project's policy.
fn absent(status: Status, name: &str) -> Status {
    if status.code == Code::NotFound { Status::not_found(format!("{name} does not exist")) } else { status }
}
