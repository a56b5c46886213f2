//! What to type to mend it: lines of gcloud.

use super::resource::Resource;
use crate::app::App;

/// Gives `member` `role` at `place`, the resource's policy or its project's.
pub(super) fn binding(app: &App, resource: &Resource, place: &str, member: &str, role: &str) -> String {
    let is_project_only = role.starts_with("roles/") && !role.contains('.') || place == format!("projects/{}", resource.project);
    let place = if is_project_only { format!("projects/{}", resource.project) } else { place.to_owned() };
    let parts: Vec<&str> = place.split('/').collect();
    let (command, takes_conditions) = match parts[..] {
        ["projects", _, "locations", region, "services", service] => (format!("run services add-iam-policy-binding {service} --region={region}"), true),
        ["projects", _, "locations", region, "functions", function] => (format!("functions add-iam-policy-binding {function} --region={region}"), false),
        ["projects", _, "secrets", secret] => (format!("secrets add-iam-policy-binding {secret}"), true),
        ["projects", _, "serviceAccounts", email] => (format!("iam service-accounts add-iam-policy-binding {email}"), true),
        ["projects", _, "topics", topic] => (format!("pubsub topics add-iam-policy-binding {topic}"), false),
        ["projects", _, "subscriptions", subscription] => (format!("pubsub subscriptions add-iam-policy-binding {subscription}"), false),
        ["buckets", bucket] => (format!("storage buckets add-iam-policy-binding gs://{bucket}"), true),
        _ => (format!("projects add-iam-policy-binding {}", resource.project), true),
    };
    // gcloud asks, where a policy has conditions, whether the new binding has one.
    let has_conditions = app.iam.policy_get(&place).is_ok_and(|policy| policy.policy.version() == crate::policy::CONDITIONS);
    let none = if takes_conditions && has_conditions { " --condition=None" } else { "" };
    format!("gcloud {command} --member={member} --role={role}{none}")
}

pub(super) fn deny_policy(project: &str, policy: &str) -> String {
    format!(
        "gcloud iam policies update {policy} --attachment-point=cloudresourcemanager.googleapis.com/projects/{project} --kind=denypolicies --policy-file=FILE"
    )
}

/// `role` is `projects/P/roles/R`.
pub(super) fn role(verb: &str, role: &str, flags: &str) -> String {
    let mut parts = role.split('/');
    let (project, id) = (parts.nth(1).unwrap_or_default(), parts.nth(1).unwrap_or_default());
    format!("gcloud iam roles {verb} {id} --project={project}{flags}")
}

pub(super) fn ingress(resource: &Resource) -> String {
    match place(resource) {
        Some((region, service)) => format!("gcloud run services update {service} --region={region} --ingress=all"),
        None => String::new(),
    }
}

/// A token for the service itself, where its bearer can have one for any audience; else the service takes the audience.
pub(super) fn audience(resource: &Resource, email: &str, audience: &str) -> String {
    match place(resource) {
        Some((region, service)) if email.ends_with("gserviceaccount.com") => format!(
            "gcloud auth print-identity-token --impersonate-service-account={email} --audiences=$(gcloud run services describe {service} --region={region} --format='value(status.url)')"
        ),
        Some((region, service)) if !audience.is_empty() => {
            format!("gcloud run services update {service} --region={region} --add-custom-audiences='{}'", audience.replace('\'', ""))
        }
        _ => "gcloud auth print-identity-token".to_owned(),
    }
}

/// Region and name of a service.
fn place(resource: &Resource) -> Option<(&str, &str)> {
    let parts: Vec<&str> = resource.name.split('/').collect();
    match parts[..] {
        ["projects", _, "locations", region, "services", service] => Some((region, service)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_of_a_project_is_named_as_gcloud_names_it() {
        assert_eq!(role("undelete", "projects/p/roles/One", ""), "gcloud iam roles undelete One --project=p");
        assert_eq!(role("update", "projects/p/roles/One", " --stage=GA"), "gcloud iam roles update One --project=p --stage=GA");
    }
}
