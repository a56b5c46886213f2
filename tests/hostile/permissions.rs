//! Every method of the APIs, called without credentials, by a guest, in another's project, and by the owner.
//!
//! The table is written by hand. What `crates/api` registers and the table does not name fails the test, so that a method that is added needs a row.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{PROJECT, REGION, Tanebi, eventually, http1, repository};
use regex::Regex;
use serde_json::{Value, json};

use super::{Client, Faults, GUEST, OWNER};

/// Host, verb, path, body, and the method's name in its proto (empty when no proto has it).
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const RUN: &str = "run.googleapis.com";
const RUN_REGION: &str = "asia-northeast1-run.googleapis.com";
const BUILD: &str = "cloudbuild.googleapis.com";
const ARTIFACTS: &str = "artifactregistry.googleapis.com";
const USAGE: &str = "serviceusage.googleapis.com";
const PROJECTS: &str = "cloudresourcemanager.googleapis.com";
const IAM: &str = "iam.googleapis.com";
const CREDENTIALS: &str = "iamcredentials.googleapis.com";
const STORAGE: &str = "storage.googleapis.com";
const FUNCTIONS: &str = "cloudfunctions.googleapis.com";
const LOGGING: &str = "logging.googleapis.com";
const SCHEDULER: &str = "cloudscheduler.googleapis.com";
const EVENTARC: &str = "eventarc.googleapis.com";
const MONITORING: &str = "monitoring.googleapis.com";
const PUBSUB: &str = "pubsub.googleapis.com";
const SECRETS: &str = "secretmanager.googleapis.com";
const IDENTITY: &str = "cloudidentity.googleapis.com";
const TROUBLE: &str = "policytroubleshooter.googleapis.com";

/// What nobody may set: whoever may set a policy is told so, and nothing changes.
const BAD_POLICY: &str = r#"{"policy":{"bindings":[{"role":"roles/no.such","members":["user:x@example.com"]}]}}"#;

/// Methods that need a permission on what they name. The owner's calls are made in this order.
const ROWS: &[Row] = &[
    // Run v1, by region and by location.
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/services", "", ""),
    (RUN_REGION, "POST", "/apis/serving.knative.dev/v1/namespaces/{project}/services", "{}", ""),
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/services/{service}", "", ""),
    (RUN_REGION, "PUT", "/apis/serving.knative.dev/v1/namespaces/{project}/services/{service}", "{}", ""),
    (RUN_REGION, "DELETE", "/apis/serving.knative.dev/v1/namespaces/{project}/services/{service}", "", ""),
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/revisions", "", ""),
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/revisions/{revision}", "", ""),
    (RUN_REGION, "DELETE", "/apis/serving.knative.dev/v1/namespaces/{project}/revisions/{revision}", "", ""),
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/configurations", "", ""),
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/configurations/{service}", "", ""),
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/routes", "", ""),
    (RUN_REGION, "GET", "/apis/serving.knative.dev/v1/namespaces/{project}/routes/{service}", "", ""),
    (RUN, "GET", "/v1/projects/{project}/locations/{location}/services", "", ""),
    (RUN, "POST", "/v1/projects/{project}/locations/{location}/services", "{}", ""),
    (RUN, "GET", "/v1/projects/{project}/locations/{location}/services/{service}", "", ""),
    (RUN, "PUT", "/v1/projects/{project}/locations/{location}/services/{service}", "{}", ""),
    (RUN, "DELETE", "/v1/projects/{project}/locations/{location}/services/{service}", "", ""),
    (RUN, "GET", "/v1/projects/{project}/locations/{location}/services/{service}:getIamPolicy", "", ""),
    (RUN, "POST", "/v1/projects/{project}/locations/{location}/services/{service}:setIamPolicy", BAD_POLICY, ""),
    (RUN, "GET", "/v1/projects/{project}/locations/{location}/revisions", "", ""),
    (RUN, "GET", "/v1/projects/{project}/locations/{location}/revisions/{revision}", "", ""),
    (RUN, "DELETE", "/v1/projects/{project}/locations/{location}/revisions/{revision}", "", ""),
    (RUN, "GET", "/v1/projects/{project}/locations/{location}/operations/{operation}", "", ""),
    (RUN, "POST", "/v1/projects/{project}/locations/{location}/operations/{operation}:wait", "{}", ""),
    (RUN, "GET", "/v1/projects/{project}/locations", "", "google.cloud.location.Locations/ListLocations"),
    (RUN, "GET", "/v1/projects/{project}/locations/{location}", "", "google.cloud.location.Locations/GetLocation"),
    // tanebi's own.
    (RUN, "GET", "/tanebi/v1/projects/{project}/locations/{location}/services/{service}/scalingDecisions", "", ""),
    // Time series.
    (
        MONITORING,
        "GET",
        "/v3/projects/{project}/timeSeries?interval.endTime=2026-01-01T00:00:00Z&filter=metric.type%3D%22run.googleapis.com%2Fcontainer%2Finstance_count%22",
        "",
        "google.monitoring.v3.MetricService/ListTimeSeries",
    ),
    // Functions v2.
    (FUNCTIONS, "GET", "/v2/projects/{project}/locations/{location}/runtimes", "", "google.cloud.functions.v2.FunctionService/ListRuntimes"),
    // Eventarc.
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/triggers", "", "google.cloud.eventarc.v1.Eventarc/ListTriggers"),
    (EVENTARC, "POST", "/v1/projects/{project}/locations/{location}/triggers?triggerId=x", "{}", "google.cloud.eventarc.v1.Eventarc/CreateTrigger"),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/triggers/{service}", "", "google.cloud.eventarc.v1.Eventarc/GetTrigger"),
    (EVENTARC, "PATCH", "/v1/projects/{project}/locations/{location}/triggers/{service}", "{}", "google.cloud.eventarc.v1.Eventarc/UpdateTrigger"),
    (
        EVENTARC,
        "PATCH",
        "/v1/projects/{project}/locations/{location}/triggers/{service}?allowMissing=true",
        "{}",
        "google.cloud.eventarc.v1.Eventarc/UpdateTrigger",
    ),
    (EVENTARC, "DELETE", "/v1/projects/{project}/locations/{location}/triggers/{service}", "", "google.cloud.eventarc.v1.Eventarc/DeleteTrigger"),
    (
        EVENTARC,
        "DELETE",
        "/v1/projects/{project}/locations/{location}/triggers/{service}?allowMissing=true",
        "",
        "google.cloud.eventarc.v1.Eventarc/DeleteTrigger",
    ),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/providers", "", "google.cloud.eventarc.v1.Eventarc/ListProviders"),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/providers/{service}", "", "google.cloud.eventarc.v1.Eventarc/GetProvider"),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/channels", "", "google.cloud.eventarc.v1.Eventarc/ListChannels"),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/channels/{service}", "", "google.cloud.eventarc.v1.Eventarc/GetChannel"),
    (EVENTARC, "POST", "/v1/projects/{project}/locations/{location}/channels?channelId=c", "{}", "google.cloud.eventarc.v1.Eventarc/CreateChannel"),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/googleChannelConfig", "", "google.cloud.eventarc.v1.Eventarc/GetGoogleChannelConfig"),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/triggers/{service}:getIamPolicy", "", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (EVENTARC, "POST", "/v1/projects/{project}/locations/{location}/triggers/{service}:setIamPolicy", BAD_POLICY, "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (EVENTARC, "GET", "/v1/projects/{project}/locations/{location}/operations/{operation}", "", "google.longrunning.Operations/GetOperation"),
    (
        FUNCTIONS,
        "POST",
        "/v2/projects/{project}/locations/{location}/functions/{service}:generateDownloadUrl",
        "{}",
        "google.cloud.functions.v2.FunctionService/GenerateDownloadUrl",
    ),
    (FUNCTIONS, "GET", "/v2/projects/{project}/locations/{location}/functions/{service}:getIamPolicy", "", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (FUNCTIONS, "POST", "/v2/projects/{project}/locations/{location}/functions/{service}:setIamPolicy", BAD_POLICY, "google.iam.v1.IAMPolicy/SetIamPolicy"),
    // Jobs.
    (SCHEDULER, "GET", "/v1/projects/{project}/locations/{location}/jobs", "", "google.cloud.scheduler.v1.CloudScheduler/ListJobs"),
    (SCHEDULER, "POST", "/v1/projects/{project}/locations/{location}/jobs", "{}", "google.cloud.scheduler.v1.CloudScheduler/CreateJob"),
    (SCHEDULER, "GET", "/v1/projects/{project}/locations/{location}/jobs/j", "", "google.cloud.scheduler.v1.CloudScheduler/GetJob"),
    (SCHEDULER, "PATCH", "/v1/projects/{project}/locations/{location}/jobs/j", "{}", "google.cloud.scheduler.v1.CloudScheduler/UpdateJob"),
    (SCHEDULER, "POST", "/v1/projects/{project}/locations/{location}/jobs/j:pause", "{}", "google.cloud.scheduler.v1.CloudScheduler/PauseJob"),
    (SCHEDULER, "POST", "/v1/projects/{project}/locations/{location}/jobs/j:resume", "{}", "google.cloud.scheduler.v1.CloudScheduler/ResumeJob"),
    (SCHEDULER, "POST", "/v1/projects/{project}/locations/{location}/jobs/j:run", "{}", "google.cloud.scheduler.v1.CloudScheduler/RunJob"),
    (SCHEDULER, "DELETE", "/v1/projects/{project}/locations/{location}/jobs/j", "", "google.cloud.scheduler.v1.CloudScheduler/DeleteJob"),
    // Run v2.
    (RUN, "GET", "/v2/projects/{project}/locations/{location}/services", "", "google.cloud.run.v2.Services/ListServices"),
    (RUN, "POST", "/v2/projects/{project}/locations/{location}/services?serviceId=x", "{}", "google.cloud.run.v2.Services/CreateService"),
    (RUN, "GET", "/v2/projects/{project}/locations/{location}/services/{service}", "", "google.cloud.run.v2.Services/GetService"),
    (RUN, "PATCH", "/v2/projects/{project}/locations/{location}/services/{service}", "{}", "google.cloud.run.v2.Services/UpdateService"),
    (RUN, "PATCH", "/v2/projects/{project}/locations/{location}/services/{service}?allowMissing=true", "{}", "google.cloud.run.v2.Services/UpdateService"),
    (RUN, "DELETE", "/v2/projects/{project}/locations/{location}/services/{service}", "", "google.cloud.run.v2.Services/DeleteService"),
    (RUN, "GET", "/v2/projects/{project}/locations/{location}/services/{service}:getIamPolicy", "", "google.cloud.run.v2.Services/GetIamPolicy"),
    (RUN, "POST", "/v2/projects/{project}/locations/{location}/services/{service}:setIamPolicy", BAD_POLICY, "google.cloud.run.v2.Services/SetIamPolicy"),
    (RUN, "GET", "/v2/projects/{project}/locations/{location}/services/{service}/revisions", "", "google.cloud.run.v2.Revisions/ListRevisions"),
    (RUN, "GET", "/v2/projects/{project}/locations/{location}/services/{service}/revisions/{revision}", "", "google.cloud.run.v2.Revisions/GetRevision"),
    (RUN, "DELETE", "/v2/projects/{project}/locations/{location}/services/{service}/revisions/{revision}", "", "google.cloud.run.v2.Revisions/DeleteRevision"),
    (RUN, "POST", "/v2/projects/{project}/locations/{location}/builds:submit", "{}", "google.cloud.run.v2.Builds/SubmitBuild"),
    (RUN, "GET", "/v2/projects/{project}/locations/{location}/operations", "", "google.longrunning.Operations/ListOperations"),
    (RUN, "GET", "/v2/projects/{project}/locations/{location}/operations/{operation}", "", "google.longrunning.Operations/GetOperation"),
    (RUN, "POST", "/v2/projects/{project}/locations/{location}/operations/{operation}:wait", "{}", "google.longrunning.Operations/WaitOperation"),
    // Builds and images.
    (BUILD, "GET", "/v1/projects/{project}/locations/{location}/builds", "", "google.devtools.cloudbuild.v1.CloudBuild/ListBuilds"),
    (BUILD, "GET", "/v1/projects/{project}/builds", "", "google.devtools.cloudbuild.v1.CloudBuild/ListBuilds"),
    (BUILD, "GET", "/v1/projects/{project}/locations/{location}/builds/{operation}", "", "google.devtools.cloudbuild.v1.CloudBuild/GetBuild"),
    (BUILD, "GET", "/v1/projects/{project}/builds/{operation}", "", "google.devtools.cloudbuild.v1.CloudBuild/GetBuild"),
    (
        BUILD,
        "GET",
        "/v1/projects/{project}/locations/{location}/defaultServiceAccount",
        "",
        "google.devtools.cloudbuild.v1.CloudBuild/GetDefaultServiceAccount",
    ),
    (BUILD, "GET", "/v1/projects/{project}/locations/{location}/operations/{operation}", "", "google.longrunning.Operations/GetOperation"),
    (ARTIFACTS, "GET", "/v1/projects/{project}/locations/{location}/repositories", "", "google.devtools.artifactregistry.v1.ArtifactRegistry/ListRepositories"),
    (
        ARTIFACTS,
        "GET",
        "/v1/projects/{project}/locations/{location}/repositories/{service}",
        "",
        "google.devtools.artifactregistry.v1.ArtifactRegistry/GetRepository",
    ),
    (
        ARTIFACTS,
        "POST",
        "/v1/projects/{project}/locations/{location}/repositories?repositoryId=r",
        r#"{"format":"DOCKER"}"#,
        "google.devtools.artifactregistry.v1.ArtifactRegistry/CreateRepository",
    ),
    // Services that are enabled.
    (USAGE, "GET", "/v1/projects/{project}/services", "", "google.api.serviceusage.v1.ServiceUsage/ListServices"),
    (USAGE, "GET", "/v1/projects/{project}/services/run.googleapis.com", "", "google.api.serviceusage.v1.ServiceUsage/GetService"),
    (USAGE, "GET", "/v1/projects/{project}/services:batchGet", "", "google.api.serviceusage.v1.ServiceUsage/BatchGetServices"),
    (USAGE, "POST", "/v1/projects/{project}/services/run.googleapis.com:enable", "{}", "google.api.serviceusage.v1.ServiceUsage/EnableService"),
    (USAGE, "POST", "/v1/projects/{project}/services:batchEnable", "{}", "google.api.serviceusage.v1.ServiceUsage/BatchEnableServices"),
    // Projects.
    (PROJECTS, "GET", "/v3/projects/{project}", "", "google.cloud.resourcemanager.v3.Projects/GetProject"),
    (PROJECTS, "POST", "/v3/projects/{project}:getIamPolicy", "{}", "google.cloud.resourcemanager.v3.Projects/GetIamPolicy"),
    (PROJECTS, "POST", "/v3/projects/{project}:setIamPolicy", BAD_POLICY, "google.cloud.resourcemanager.v3.Projects/SetIamPolicy"),
    (PROJECTS, "GET", "/v1/projects/{project}", "", ""),
    (PROJECTS, "POST", "/v1/projects/{project}:getIamPolicy", "{}", ""),
    (PROJECTS, "POST", "/v1/projects/{project}:setIamPolicy", BAD_POLICY, ""),
    // Tokens of accounts, before the accounts are gone.
    (
        CREDENTIALS,
        "POST",
        "/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
        r#"{"scope":["https://www.googleapis.com/auth/cloud-platform"]}"#,
        "google.iam.credentials.v1.IAMCredentials/GenerateAccessToken",
    ),
    (
        CREDENTIALS,
        "POST",
        "/v1/projects/-/serviceAccounts/{account}:generateIdToken",
        r#"{"audience":"x"}"#,
        "google.iam.credentials.v1.IAMCredentials/GenerateIdToken",
    ),
    (CREDENTIALS, "POST", "/v1/projects/-/serviceAccounts/{account}:signBlob", r#"{"payload":"eA=="}"#, "google.iam.credentials.v1.IAMCredentials/SignBlob"),
    (CREDENTIALS, "POST", "/v1/projects/-/serviceAccounts/{account}:signJwt", r#"{"payload":"{}"}"#, "google.iam.credentials.v1.IAMCredentials/SignJwt"),
    // Accounts.
    (IAM, "POST", "/v1/projects/{project}/serviceAccounts", r#"{"accountId":"made-by-a-row"}"#, "google.iam.admin.v1.IAM/CreateServiceAccount"),
    (IAM, "GET", "/v1/projects/{project}/serviceAccounts", "", "google.iam.admin.v1.IAM/ListServiceAccounts"),
    (IAM, "GET", "/v1/projects/{project}/serviceAccounts/{account}", "", "google.iam.admin.v1.IAM/GetServiceAccount"),
    (IAM, "PUT", "/v1/projects/{project}/serviceAccounts/{account}", r#"{"displayName":"x"}"#, "google.iam.admin.v1.IAM/UpdateServiceAccount"),
    (
        IAM,
        "PATCH",
        "/v1/projects/{project}/serviceAccounts/{account}",
        r#"{"serviceAccount":{"displayName":"y"},"updateMask":"displayName"}"#,
        "google.iam.admin.v1.IAM/PatchServiceAccount",
    ),
    (IAM, "POST", "/v1/projects/{project}/serviceAccounts/{account}:getIamPolicy", "{}", "google.iam.admin.v1.IAM/GetIamPolicy"),
    (IAM, "POST", "/v1/projects/{project}/serviceAccounts/{account}:setIamPolicy", BAD_POLICY, "google.iam.admin.v1.IAM/SetIamPolicy"),
    (IAM, "POST", "/v1/projects/{project}/serviceAccounts/{account}:disable", "{}", "google.iam.admin.v1.IAM/DisableServiceAccount"),
    (IAM, "POST", "/v1/projects/{project}/serviceAccounts/{account}:enable", "{}", "google.iam.admin.v1.IAM/EnableServiceAccount"),
    (IAM, "POST", "/v1/projects/{project}/serviceAccounts/{account}/keys", "{}", "google.iam.admin.v1.IAM/CreateServiceAccountKey"),
    (IAM, "GET", "/v1/projects/{project}/serviceAccounts/{account}/keys", "", "google.iam.admin.v1.IAM/ListServiceAccountKeys"),
    (IAM, "GET", "/v1/projects/{project}/serviceAccounts/{account}/keys/{operation}", "", "google.iam.admin.v1.IAM/GetServiceAccountKey"),
    (IAM, "DELETE", "/v1/projects/{project}/serviceAccounts/{account}/keys/{operation}", "", "google.iam.admin.v1.IAM/DeleteServiceAccountKey"),
    (IAM, "DELETE", "/v1/projects/{project}/serviceAccounts/{account}", "", "google.iam.admin.v1.IAM/DeleteServiceAccount"),
    // Logs.
    (LOGGING, "POST", "/v2/entries:list", r#"{"resourceNames":["projects/{project}"]}"#, "google.logging.v2.LoggingServiceV2/ListLogEntries"),
    (
        LOGGING,
        "POST",
        "/v2/entries:write",
        r#"{"logName":"projects/{project}/logs/run.googleapis.com%2Fstdout","resource":{"type":"cloud_run_revision","labels":{"location":"asia-northeast1","service_name":"s","revision_name":"s-1"}},"entries":[{"textPayload":"x"}]}"#,
        "google.logging.v2.LoggingServiceV2/WriteLogEntries",
    ),
    (LOGGING, "GET", "/v2/projects/{project}/logs", "", "google.logging.v2.LoggingServiceV2/ListLogs"),
    (
        IAM,
        "POST",
        "/v1/roles:queryGrantableRoles",
        r#"{"fullResourceName":"//run.googleapis.com/projects/{project}"}"#,
        "google.iam.admin.v1.IAM/QueryGrantableRoles",
    ),
    (
        IAM,
        "POST",
        "/v1/permissions:queryTestablePermissions",
        r#"{"fullResourceName":"//cloudresourcemanager.googleapis.com/projects/{project}"}"#,
        "google.iam.admin.v1.IAM/QueryTestablePermissions",
    ),
    (IAM, "GET", "/v1/projects/{project}/roles", "", "google.iam.admin.v1.IAM/ListRoles"),
    (IAM, "POST", "/v1/projects/{project}/roles", r#"{"roleId":"row_1","role":{"title":"x"}}"#, "google.iam.admin.v1.IAM/CreateRole"),
    (IAM, "GET", "/v1/projects/{project}/roles/row_1", "", "google.iam.admin.v1.IAM/GetRole"),
    (IAM, "PATCH", "/v1/projects/{project}/roles/row_1?updateMask=title", r#"{"title":"y"}"#, "google.iam.admin.v1.IAM/UpdateRole"),
    (IAM, "DELETE", "/v1/projects/{project}/roles/row_1", "", "google.iam.admin.v1.IAM/DeleteRole"),
    (IAM, "POST", "/v1/projects/{project}/roles/row_1:undelete", "{}", "google.iam.admin.v1.IAM/UndeleteRole"),
    // Deny policies: the owner was given the role for them.
    (IAM, "GET", "/v2/policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{project}/denypolicies", "", "google.iam.v2.Policies/ListPolicies"),
    (
        IAM,
        "POST",
        "/v2/policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{project}/denypolicies?policyId=row-1",
        r#"{"rules":[{"denyRule":{"deniedPrincipals":["principal://goog/subject/x@example.com"],"deniedPermissions":["run.googleapis.com/routes.invoke"]}}]}"#,
        "google.iam.v2.Policies/CreatePolicy",
    ),
    (IAM, "GET", "/v2/policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{project}/denypolicies/row-1", "", "google.iam.v2.Policies/GetPolicy"),
    (
        IAM,
        "PUT",
        "/v2/policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{project}/denypolicies/row-1",
        r#"{"rules":[]}"#,
        "google.iam.v2.Policies/UpdatePolicy",
    ),
    (IAM, "DELETE", "/v2/policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{project}/denypolicies/row-1", "", "google.iam.v2.Policies/DeletePolicy"),
    // Groups: the default project's policy is asked, whose changes theirs are.
    (IDENTITY, "POST", "/v1/groups", r#"{"groupKey":{"id":"row-1@example.com"},"parent":"customers/C0"}"#, ""),
    (IDENTITY, "GET", "/v1/groups:lookup?groupKey.id=row-1@example.com", "", ""),
    (IDENTITY, "GET", "/v1/groups:search?query=%22cloudidentity.googleapis.com%2Fgroups.discussion_forum%22%20in%20labels", "", ""),
    (IDENTITY, "GET", "/v1/groups/{group}", "", ""),
    (IDENTITY, "POST", "/v1/groups/{group}/memberships", r#"{"preferredMemberKey":{"id":"x@example.com"}}"#, ""),
    (IDENTITY, "GET", "/v1/groups/{group}/memberships", "", ""),
    (IDENTITY, "GET", "/v1/groups/{group}/memberships:lookup?memberKey.id=x@example.com", "", ""),
    (IDENTITY, "GET", "/v1/groups/{group}/memberships/{member}", "", ""),
    (IDENTITY, "DELETE", "/v1/groups/{group}/memberships/{member}", "", ""),
    (IDENTITY, "DELETE", "/v1/groups/{group}", "", ""),
    // Why, and who.
    (TROUBLE, "GET", "/tanebi/v1/projects/{project}:whyDenied?principal=x@example.com", "", ""),
    (TROUBLE, "GET", "/tanebi/v1/projects/{project}:whoCan?permission=run.routes.invoke", "", ""),
    // Topics, subscriptions, snapshots.
    (PUBSUB, "PUT", "/v1/projects/{project}/topics/{service}", "{}", "google.pubsub.v1.Publisher/CreateTopic"),
    (PUBSUB, "GET", "/v1/projects/{project}/topics/{service}", "", "google.pubsub.v1.Publisher/GetTopic"),
    (PUBSUB, "PATCH", "/v1/projects/{project}/topics/{service}", "{}", "google.pubsub.v1.Publisher/UpdateTopic"),
    (PUBSUB, "GET", "/v1/projects/{project}/topics", "", "google.pubsub.v1.Publisher/ListTopics"),
    (PUBSUB, "POST", "/v1/projects/{project}/topics/{service}:publish", "{}", "google.pubsub.v1.Publisher/Publish"),
    (PUBSUB, "GET", "/v1/projects/{project}/topics/{service}/subscriptions", "", "google.pubsub.v1.Publisher/ListTopicSubscriptions"),
    (PUBSUB, "GET", "/v1/projects/{project}/topics/{service}/snapshots", "", "google.pubsub.v1.Publisher/ListTopicSnapshots"),
    (
        PUBSUB,
        "PUT",
        "/v1/projects/{project}/subscriptions/{service}",
        r#"{"topic":"projects/{project}/topics/no-such"}"#,
        "google.pubsub.v1.Subscriber/CreateSubscription",
    ),
    (PUBSUB, "GET", "/v1/projects/{project}/subscriptions/{service}", "", "google.pubsub.v1.Subscriber/GetSubscription"),
    (PUBSUB, "PATCH", "/v1/projects/{project}/subscriptions/{service}", "{}", "google.pubsub.v1.Subscriber/UpdateSubscription"),
    (PUBSUB, "GET", "/v1/projects/{project}/subscriptions", "", "google.pubsub.v1.Subscriber/ListSubscriptions"),
    (PUBSUB, "POST", "/v1/projects/{project}/subscriptions/{service}:modifyPushConfig", "{}", "google.pubsub.v1.Subscriber/ModifyPushConfig"),
    (
        PUBSUB,
        "POST",
        "/v1/projects/{project}/subscriptions/{service}:pull",
        r#"{"maxMessages":1,"returnImmediately":true}"#,
        "google.pubsub.v1.Subscriber/Pull",
    ),
    (PUBSUB, "POST", "/v1/projects/{project}/subscriptions/{service}:acknowledge", "{}", "google.pubsub.v1.Subscriber/Acknowledge"),
    (PUBSUB, "POST", "/v1/projects/{project}/subscriptions/{service}:modifyAckDeadline", "{}", "google.pubsub.v1.Subscriber/ModifyAckDeadline"),
    (PUBSUB, "POST", "/v1/projects/{project}/subscriptions/{service}:seek", "{}", "google.pubsub.v1.Subscriber/Seek"),
    (
        PUBSUB,
        "PUT",
        "/v1/projects/{project}/snapshots/{service}",
        r#"{"subscription":"projects/{project}/subscriptions/no-such"}"#,
        "google.pubsub.v1.Subscriber/CreateSnapshot",
    ),
    (PUBSUB, "GET", "/v1/projects/{project}/snapshots/{service}", "", "google.pubsub.v1.Subscriber/GetSnapshot"),
    (PUBSUB, "PATCH", "/v1/projects/{project}/snapshots/{service}", "{}", "google.pubsub.v1.Subscriber/UpdateSnapshot"),
    (PUBSUB, "GET", "/v1/projects/{project}/snapshots", "", "google.pubsub.v1.Subscriber/ListSnapshots"),
    (
        PUBSUB,
        "POST",
        "/v1/projects/{project}/schemas?schemaId=made-by-a-row",
        r#"{"type":"AVRO","definition":"\"string\""}"#,
        "google.pubsub.v1.SchemaService/CreateSchema",
    ),
    (PUBSUB, "GET", "/v1/projects/{project}/schemas/{service}", "", "google.pubsub.v1.SchemaService/GetSchema"),
    (PUBSUB, "GET", "/v1/projects/{project}/schemas/{service}@0a0b0c0d", "", ""),
    (PUBSUB, "GET", "/v1/projects/{project}/schemas", "", "google.pubsub.v1.SchemaService/ListSchemas"),
    (PUBSUB, "GET", "/v1/projects/{project}/schemas/{service}:listRevisions", "", "google.pubsub.v1.SchemaService/ListSchemaRevisions"),
    (PUBSUB, "POST", "/v1/projects/{project}/schemas/{service}:commit", "{}", "google.pubsub.v1.SchemaService/CommitSchema"),
    (PUBSUB, "POST", "/v1/projects/{project}/schemas/{service}:rollback", "{}", "google.pubsub.v1.SchemaService/RollbackSchema"),
    (PUBSUB, "DELETE", "/v1/projects/{project}/schemas/{service}@0a0b0c0d:deleteRevision", "", "google.pubsub.v1.SchemaService/DeleteSchemaRevision"),
    (PUBSUB, "POST", "/v1/projects/{project}/schemas:validate", "{}", "google.pubsub.v1.SchemaService/ValidateSchema"),
    (PUBSUB, "POST", "/v1/projects/{project}/schemas:validateMessage", r#"{"encoding":"JSON"}"#, "google.pubsub.v1.SchemaService/ValidateMessage"),
    (PUBSUB, "GET", "/v1/projects/{project}/schemas/{service}:getIamPolicy", "", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (PUBSUB, "POST", "/v1/projects/{project}/schemas/{service}:setIamPolicy", BAD_POLICY, "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (PUBSUB, "DELETE", "/v1/projects/{project}/schemas/{service}", "", "google.pubsub.v1.SchemaService/DeleteSchema"),
    (PUBSUB, "GET", "/v1/projects/{project}/topics/{service}:getIamPolicy", "", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (PUBSUB, "POST", "/v1/projects/{project}/topics/{service}:setIamPolicy", BAD_POLICY, "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (PUBSUB, "GET", "/v1/projects/{project}/subscriptions/{service}:getIamPolicy", "", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (PUBSUB, "POST", "/v1/projects/{project}/subscriptions/{service}:setIamPolicy", BAD_POLICY, "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (PUBSUB, "GET", "/v1/projects/{project}/snapshots/{service}:getIamPolicy", "", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (PUBSUB, "POST", "/v1/projects/{project}/snapshots/{service}:setIamPolicy", BAD_POLICY, "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (PUBSUB, "POST", "/v1/projects/{project}/subscriptions/{service}:detach", "", "google.pubsub.v1.Publisher/DetachSubscription"),
    (PUBSUB, "DELETE", "/v1/projects/{project}/snapshots/{service}", "", "google.pubsub.v1.Subscriber/DeleteSnapshot"),
    (PUBSUB, "DELETE", "/v1/projects/{project}/subscriptions/{service}", "", "google.pubsub.v1.Subscriber/DeleteSubscription"),
    (PUBSUB, "DELETE", "/v1/projects/{project}/topics/{service}", "", "google.pubsub.v1.Publisher/DeleteTopic"),
    // Functions.
    (
        FUNCTIONS,
        "POST",
        "/v2/projects/{project}/locations/{location}/functions?functionId=made-by-a-row",
        r#"{"buildConfig":{"runtime":"python312","entryPoint":"f","source":{"storageSource":{"bucket":"rows-of-tanebi-e2e","object":"none"}}}}"#,
        "google.cloud.functions.v2.FunctionService/CreateFunction",
    ),
    (FUNCTIONS, "GET", "/v2/projects/{project}/locations/{location}/functions", "", "google.cloud.functions.v2.FunctionService/ListFunctions"),
    (FUNCTIONS, "GET", "/v2/projects/{project}/locations/{location}/functions/{service}", "", "google.cloud.functions.v2.FunctionService/GetFunction"),
    (
        FUNCTIONS,
        "PATCH",
        "/v2/projects/{project}/locations/{location}/functions/{service}?updateMask=labels",
        "{}",
        "google.cloud.functions.v2.FunctionService/UpdateFunction",
    ),
    (
        FUNCTIONS,
        "POST",
        "/v2/projects/{project}/locations/{location}/functions:generateUploadUrl",
        "{}",
        "google.cloud.functions.v2.FunctionService/GenerateUploadUrl",
    ),
    (FUNCTIONS, "DELETE", "/v2/projects/{project}/locations/{location}/functions/{service}", "", "google.cloud.functions.v2.FunctionService/DeleteFunction"),
    (FUNCTIONS, "GET", "/v1/projects/{project}/locations/{location}/functions", "", ""),
    // Secrets.
    (
        SECRETS,
        "POST",
        "/v1/projects/{project}/secrets?secretId=made-by-a-row",
        r#"{"replication":{"automatic":{}}}"#,
        "google.cloud.secretmanager.v1.SecretManagerService/CreateSecret",
    ),
    (SECRETS, "GET", "/v1/projects/{project}/secrets", "", "google.cloud.secretmanager.v1.SecretManagerService/ListSecrets"),
    (SECRETS, "GET", "/v1/projects/{project}/secrets/{secret}", "", "google.cloud.secretmanager.v1.SecretManagerService/GetSecret"),
    (
        SECRETS,
        "PATCH",
        "/v1/projects/{project}/secrets/{secret}?updateMask=labels",
        r#"{"labels":{"a":"b"}}"#,
        "google.cloud.secretmanager.v1.SecretManagerService/UpdateSecret",
    ),
    (SECRETS, "GET", "/v1/projects/{project}/secrets/{secret}:getIamPolicy", "", "google.cloud.secretmanager.v1.SecretManagerService/GetIamPolicy"),
    (SECRETS, "POST", "/v1/projects/{project}/secrets/{secret}:setIamPolicy", BAD_POLICY, "google.cloud.secretmanager.v1.SecretManagerService/SetIamPolicy"),
    (
        SECRETS,
        "POST",
        "/v1/projects/{project}/secrets/{secret}:addVersion",
        r#"{"payload":{"data":"eA=="}}"#,
        "google.cloud.secretmanager.v1.SecretManagerService/AddSecretVersion",
    ),
    (SECRETS, "GET", "/v1/projects/{project}/secrets/{secret}/versions", "", "google.cloud.secretmanager.v1.SecretManagerService/ListSecretVersions"),
    (SECRETS, "GET", "/v1/projects/{project}/secrets/{secret}/versions/1", "", "google.cloud.secretmanager.v1.SecretManagerService/GetSecretVersion"),
    (SECRETS, "GET", "/v1/projects/{project}/secrets/{secret}/versions/1:access", "", "google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion"),
    (
        SECRETS,
        "POST",
        "/v1/projects/{project}/secrets/{secret}/versions/1:disable",
        "{}",
        "google.cloud.secretmanager.v1.SecretManagerService/DisableSecretVersion",
    ),
    (
        SECRETS,
        "POST",
        "/v1/projects/{project}/secrets/{secret}/versions/1:enable",
        "{}",
        "google.cloud.secretmanager.v1.SecretManagerService/EnableSecretVersion",
    ),
    (
        SECRETS,
        "POST",
        "/v1/projects/{project}/secrets/{secret}/versions/1:destroy",
        "{}",
        "google.cloud.secretmanager.v1.SecretManagerService/DestroySecretVersion",
    ),
    (SECRETS, "DELETE", "/v1/projects/{project}/secrets/{secret}", "", "google.cloud.secretmanager.v1.SecretManagerService/DeleteSecret"),
    // Buckets and objects.
    (STORAGE, "GET", "/storage/v1/b?project={project}", "", ""),
    (STORAGE, "POST", "/storage/v1/b?project={project}", r#"{"name":"made-by-a-row-of-tanebi"}"#, ""),
    (STORAGE, "GET", "/storage/v1/projects/{project}/serviceAccount", "", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}", "", ""),
    (STORAGE, "PATCH", "/storage/v1/b/{bucket}", "{}", ""),
    (STORAGE, "PUT", "/storage/v1/b/{bucket}", "{}", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/storageLayout", "", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/iam", "", ""),
    (STORAGE, "PUT", "/storage/v1/b/{bucket}/iam", r#"{"bindings":[{"role":"roles/no.such","members":["user:x@example.com"]}]}"#, ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/managedFolders", "", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/notificationConfigs", "", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/notificationConfigs", "{}", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/notificationConfigs/{notification}", "", ""),
    (STORAGE, "DELETE", "/storage/v1/b/{bucket}/notificationConfigs/{notification}", "", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/lockRetentionPolicy?ifMetagenerationMatch=1", "", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/acl", "", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/acl", "{}", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/defaultObjectAcl", "", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/defaultObjectAcl", "{}", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/o/{object}/acl", "", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/o/{object}/acl", "{}", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/o/{object}/restore?generation=1", "{}", ""),
    (STORAGE, "GET", "/{bucket}", "", ""),
    (STORAGE, "HEAD", "/{bucket}", "", ""),
    (STORAGE, "PUT", "/{bucket}/{object=**}", "x", ""),
    (STORAGE, "GET", "/{bucket}/{object=**}", "", ""),
    (STORAGE, "HEAD", "/{bucket}/{object=**}", "", ""),
    (STORAGE, "POST", "/{bucket}/{object=**}", "", ""),
    (STORAGE, "DELETE", "/{bucket}/{object=**}", "", ""),
    (STORAGE, "POST", "/upload/storage/v1/b/{bucket}/o?uploadType=media&name=object", "x", ""),
    (STORAGE, "POST", "/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name=object", "{}", ""),
    (STORAGE, "POST", "/resumable/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name=object", "{}", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/o", "", ""),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/o/{object=**}", "", ""),
    (STORAGE, "GET", "/download/storage/v1/b/{bucket}/o/{object=**}?alt=media", "", ""),
    (STORAGE, "PATCH", "/storage/v1/b/{bucket}/o/{object=**}", "{}", ""),
    (STORAGE, "PUT", "/storage/v1/b/{bucket}/o/{object=**}", "{}", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/o/{object}/compose", r#"{"sourceObjects":[{"name":"object"}]}"#, ""),
    (STORAGE, "POST", "/storage/v1/b/{sourceBucket}/o/{sourceObject}/copyTo/b/{bucket}/o/{object=**}", "", ""),
    (STORAGE, "POST", "/storage/v1/b/{sourceBucket}/o/{sourceObject}/rewriteTo/b/{bucket}/o/{object=**}", "", ""),
    (STORAGE, "POST", "/storage/v1/b/{bucket}/o/{sourceObject}/moveTo/o/{object=**}", "", ""),
    (STORAGE, "DELETE", "/storage/v1/b/{bucket}/o/{object=**}", "", ""),
    (STORAGE, "DELETE", "/storage/v1/b/{bucket}", "", ""),
];

/// Methods for everyone with good credentials: what they tell is the caller's own or nobody's.
const SIGNED_IN: &[Row] = &[
    (RUN, "POST", "/v2/projects/{project}/locations/{location}/services/{service}:testIamPermissions", TEST, "google.cloud.run.v2.Services/TestIamPermissions"),
    (RUN, "POST", "/v1/projects/{project}/locations/{location}/services/{service}:testIamPermissions", TEST, ""),
    (PROJECTS, "POST", "/v3/projects/{project}:testIamPermissions", TEST, "google.cloud.resourcemanager.v3.Projects/TestIamPermissions"),
    (PROJECTS, "POST", "/v1/projects/{project}:testIamPermissions", TEST, ""),
    (IAM, "POST", "/v1/projects/{project}/serviceAccounts/{account}:testIamPermissions", TEST, "google.iam.admin.v1.IAM/TestIamPermissions"),
    (PUBSUB, "POST", "/v1/projects/{project}/topics/{service}:testIamPermissions", TEST, "google.iam.v1.IAMPolicy/TestIamPermissions"),
    (EVENTARC, "POST", "/v1/projects/{project}/locations/{location}/triggers/{service}:testIamPermissions", TEST, ""),
    (FUNCTIONS, "POST", "/v2/projects/{project}/locations/{location}/functions/{service}:testIamPermissions", TEST, ""),
    (PUBSUB, "POST", "/v1/projects/{project}/subscriptions/{service}:testIamPermissions", TEST, ""),
    (PUBSUB, "POST", "/v1/projects/{project}/snapshots/{service}:testIamPermissions", TEST, ""),
    (PUBSUB, "POST", "/v1/projects/{project}/schemas/{service}:testIamPermissions", TEST, ""),
    (
        SECRETS,
        "POST",
        "/v1/projects/{project}/secrets/{secret}:testIamPermissions",
        TEST,
        "google.cloud.secretmanager.v1.SecretManagerService/TestIamPermissions",
    ),
    (STORAGE, "GET", "/storage/v1/b/{bucket}/iam/testPermissions?permissions=storage.objects.get", "", ""),
    (PROJECTS, "GET", "/v1/projects", "", ""),
    (PROJECTS, "GET", "/v3/projects:search", "", "google.cloud.resourcemanager.v3.Projects/SearchProjects"),
    (IAM, "GET", "/v1/roles", "", "google.iam.admin.v1.IAM/ListRoles"),
    (IAM, "GET", "/v1/roles/run.invoker", "", "google.iam.admin.v1.IAM/GetRole"),
    (IAM, "POST", "/v1/iamPolicies:lintPolicy", r#"{"condition":{"expression":"true"}}"#, "google.iam.admin.v1.IAM/LintPolicy"),
    ("openidconnect.googleapis.com", "GET", "/v1/userinfo", "", ""),
    ("www.googleapis.com", "GET", "/oauth2/v3/userinfo", "", ""),
    ("www.googleapis.com", "GET", "/oauth2/v1/userinfo", "", ""),
    ("www.googleapis.com", "GET", "/oauth2/v2/userinfo", "", ""),
];

/// Methods that stream, by gRPC only: host and name.
const STREAMS: &[(&str, &str)] = &[(PUBSUB, "google.pubsub.v1.Subscriber/StreamingPull")];

const TEST: &str = r#"{"permissions":["run.services.get","iam.serviceAccounts.get","resourcemanager.projects.get"]}"#;

/// Registered paths that need no credentials: published keys, token endpoints, sign-in, and uploads whose address is the credential.
const PUBLIC: &[&str] = &[
    "/oauth2/v3/certs",
    "/oauth2/v1/certs",
    "/robot/v1/metadata/x509/{account}",
    "/robot/v1/metadata/jwk/{account}",
    "/service_accounts/v1/metadata/x509/{account}",
    "/service_accounts/v1/jwk/{account}",
    "/.well-known/openid-configuration",
    "/sign-in",
    "PUT /upload/storage/v1/b/{bucket}/o",
    "PUT /resumable/upload/storage/v1/b/{bucket}/o",
    "DELETE /upload/storage/v1/b/{bucket}/o",
    "DELETE /resumable/upload/storage/v1/b/{bucket}/o",
    // Its form names who signed it.
    "POST /{bucket}",
];

const BUCKET: &str = "rows-of-tanebi-e2e";

pub(super) fn api_methods_need_permission() -> Result<()> {
    the_table_is_whole()?;
    let tanebi = Tanebi::start()?;
    let account = format!("robot-1@{PROJECT}.iam.gserviceaccount.com");
    let owner = Client::new(&tanebi, OWNER)?;
    let guest = Client::new(&tanebi, GUEST)?;
    let nobody = Client { address: tanebi.listen, token: None };
    owner.json("POST", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts"), &json!({ "accountId": "robot-1" }))?;
    owner.json("POST", STORAGE, &format!("/storage/v1/b?project={PROJECT}"), &json!({ "name": BUCKET }))?;
    owner.json("POST", SECRETS, &format!("/v1/projects/{PROJECT}/secrets?secretId=row-1"), &json!({ "replication": { "automatic": {} } }))?;
    let policy = json!({ "policy": { "bindings": [{ "role": "roles/iam.serviceAccountTokenCreator", "members": [format!("user:{OWNER}")] }] } });
    owner.json("POST", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts/{account}:setIamPolicy"), &policy)?;
    let mut policy = owner.json("POST", PROJECTS, &format!("/v1/projects/{PROJECT}:getIamPolicy"), &json!({}))?;
    let bindings = policy["bindings"].as_array_mut().context("bindings")?;
    bindings.push(json!({ "role": "roles/iam.denyAdmin", "members": [format!("user:{OWNER}")] }));
    owner.json("POST", PROJECTS, &format!("/v1/projects/{PROJECT}:setIamPolicy"), &json!({ "policy": policy }))?;
    let blob = format!("/v1/projects/-/serviceAccounts/{account}:generateIdToken");
    eventually("the owner may make tokens", || Ok((owner.call("POST", CREDENTIALS, &blob, br#"{"audience":"x"}"#)?.status == 200).then_some(())))?;

    let fill = |text: &str, project: &str| {
        [
            ("{project}", project),
            ("{location}", REGION),
            ("{service}", "no-such"),
            ("{revision}", "no-such-00001-abc"),
            ("{operation}", "no-such"),
            ("{account}", &account),
            ("{secret}", "row-1"),
            ("{group}", "row-1@example.com"),
            ("{member}", "no-such"),
        ]
        .iter()
        .chain(&[("{bucket}", BUCKET), ("{sourceBucket}", BUCKET), ("{object=**}", "object"), ("{object}", "object"), ("{sourceObject}", "object")])
        .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    };
    let call = |client: &Client, row: &Row, project: &str| -> Result<http1::Answer> {
        let (host, verb, path, body, _) = row;
        client.call(verb, host, &fill(path, project), fill(body, project).as_bytes()).with_context(|| format!("{verb} {host}{path}"))
    };
    let forged = Client { address: tanebi.listen, token: Some("ya29.forged".to_owned()) };
    let faults = Faults::default();
    let mut calls = 0;
    for row in ROWS.iter().chain(SIGNED_IN) {
        for (who, client) in [("nobody", &nobody), ("a forger", &forged)] {
            let answer = call(client, row, PROJECT)?;
            let is_mute = !answer.text().contains("no-such") && !answer.text().contains(&account);
            faults.row(who, row, &answer, answer.status == 401 && is_mute);
            calls += 1;
        }
    }
    for row in ROWS {
        let answer = call(&guest, row, PROJECT)?;
        faults.row("a guest", row, &answer, answer.status == 403);
        calls += 1;
        // A project that is nobody's looks like one that is another's: to the owner of this one too.
        if row.2.contains("{project}") || row.3.contains("{project}") {
            for (who, client) in [("the owner", &owner), ("a guest", &guest)] {
                for project in ["another-project-1", "999999999999"] {
                    let answer = call(client, row, project)?;
                    faults.row(&format!("{who} in {project}"), row, &answer, matches!(answer.status, 403 | 404));
                    calls += 1;
                }
            }
        }
    }
    // What is there and what is not look the same to a guest.
    let (there, absent) = (account.as_str(), "nobody@tanebi-local.iam.gserviceaccount.com");
    let path = |account: &str| format!("/v1/projects/{PROJECT}/serviceAccounts/{account}");
    let (first, second) = (guest.call("GET", IAM, &path(there), b"")?, guest.call("GET", IAM, &path(absent), b"")?);
    ensure!(first.status == second.status && first.text().replace(there, "X") == second.text().replace(absent, "X"), "{} and {}", first.text(), second.text());
    for row in SIGNED_IN {
        let answer = call(&guest, row, PROJECT)?;
        let told: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
        let is_nothing = ["permissions", "projects"].iter().all(|list| told[list].as_array().is_none_or(Vec::is_empty));
        faults.row("a guest", row, &answer, is_nothing && !matches!(answer.status, 401 | 403 | 500..));
        calls += 1;
    }
    for row in ROWS.iter().chain(SIGNED_IN) {
        let answer = call(&owner, row, PROJECT)?;
        faults.row("the owner", row, &answer, !matches!(answer.status, 401 | 403 | 500..) && !answer.text().contains("Method not found"));
        calls += 1;
    }
    faults.none()?;
    let grpc = grpc_without_credentials(&tanebi)?;
    println!("  {} methods, {calls} calls, {grpc} by gRPC", ROWS.len() + SIGNED_IN.len());
    ensure!(ROWS.len() >= 100 && grpc >= 40, "{} rows and {grpc} by gRPC are fewer than there were", ROWS.len());
    Ok(())
}

impl Faults {
    fn row(&self, who: &str, row: &Row, answer: &http1::Answer, is_right: bool) {
        self.check(&format!("{who}, {} {}{}", row.1, row.0, row.2), if is_right { Ok(()) } else { Err(anyhow!("{} {}", answer.status, answer.text())) });
    }
}

/// gRPC has the same door: without credentials each method answers UNAUTHENTICATED, which is 16.
fn grpc_without_credentials(tanebi: &Tanebi) -> Result<usize> {
    let names = ROWS.iter().chain(SIGNED_IN).map(|row| (row.4, row.0)).filter(|(name, _)| !name.is_empty());
    let names: BTreeSet<_> = names.chain(STREAMS.iter().map(|(host, name)| (*name, *host))).collect();
    for (name, host) in &names {
        let output = Command::new("curl")
            .args(["-sS", "-i", "--http2-prior-knowledge", "--noproxy", "*", "--max-time", "60", "--connect-to", &format!("::{}", tanebi.listen)])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "", "-X", "POST", &format!("http://{host}/{name}")])
            .output()?;
        let answer = e2e::text(output, name)?;
        ensure!(answer.lines().any(|line| line.trim() == "grpc-status: 16"), "{name} by gRPC: {answer}");
    }
    Ok(names.len())
}

/// Every method that `crates/api` registers has a row.
fn the_table_is_whole() -> Result<()> {
    let rows: BTreeSet<String> =
        ROWS.iter().chain(SIGNED_IN).map(|(_, verb, path, _, _)| format!("{verb} {}", path.split('?').next().unwrap_or_default())).collect();
    let names: BTreeSet<&str> = ROWS.iter().chain(SIGNED_IN).map(|row| row.4).chain(STREAMS.iter().map(|(_, name)| *name)).collect();
    let endpoint = Regex::new(r#"(?:\.on|Row::new)\(\s*(?:M|Verb|Method)::([A-Z]+),\s*"(/[^"]*)""#)?;
    let method = Regex::new(r#"\.(?:unary|anyones|stream)\(\s*"(google\.[A-Za-z0-9_.]+/[A-Za-z]+)""#)?;
    let (mut found, mut missing) = (0, Vec::new());
    let mut folders = vec![repository().join("crates/api/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            for captured in endpoint.captures_iter(&text) {
                found += 1;
                let row = format!("{} {}", &captured[1], &captured[2]);
                if !rows.contains(&row) && !PUBLIC.contains(&row.as_str()) && !PUBLIC.contains(&&captured[2]) {
                    missing.push(row);
                }
            }
            for captured in method.captures_iter(&text) {
                found += 1;
                if !names.contains(&captured[1]) {
                    missing.push(captured[1].to_owned());
                }
            }
        }
    }
    ensure!(missing.is_empty(), "methods without a row here: {missing:#?}");
    ensure!(found >= 90, "only {found} registrations were read: is the form of the code another one?");
    Ok(())
}
