//! One row for each flag of `gcloud run deploy`, `services update`, `update-traffic`, `replace`, `list`, `describe`, `delete` and
//! `revisions list`, `describe`, `delete`, in the tracks GA, beta and alpha of gcloud 528. `COMPATIBILITY.md` has the same rows.

/// What becomes of a flag.
pub enum Row {
    /// It works: what `settings::flags` sees of it, from inside the function or from outside.
    Works(&'static str),
    /// It works, as another part of the tests sees.
    Elsewhere(&'static str),
    /// It is refused: flags to try, and what the refusal must say.
    Refused(&'static str, &'static str),
}
use Row::{Elsewhere, Refused, Works};

/// `--[no-]NAME` stands for both.
pub const ROWS: &[(&str, Row)] = &[
    // Source and build.
    ("--source", Works("the deployed function answers")),
    ("--function", Elsewhere("`seed`")),
    ("--base-image", Works("the deployed function answers")),
    ("--clear-base-image", Works("the base image is Google's default for the source; the annotation is gone")),
    (
        "--[no-]automatic-updates",
        Works("kept and shown, and without effect: a runtime is the host's, and changes with it under each function, asked for or not"),
    ),
    ("--image", Refused("--image gcr.io/x/y", "Image 'gcr.io/x/y' not found")),
    ("--set-build-env-vars", Works("the build's script sees them")),
    ("--update-build-env-vars", Works("the build's script sees them")),
    ("--remove-build-env-vars", Works("the build's script sees it no more")),
    ("--clear-build-env-vars", Works("the build's script sees them no more")),
    ("--build-env-vars-file", Works("the build's script sees them")),
    ("--build-service-account", Works("kept with the build; who deploys must be allowed to act as it")),
    ("--clear-build-service-account", Works("nothing is left of it")),
    ("--build-worker-pool", Refused("BUILD --build-worker-pool projects/p/locations/l/workerPools/w", "worker_pool")),
    ("--clear-build-worker-pool", Works("there is none to clear")),
    ("--allow-unencrypted-build", Works("as builds are without CMEK it changes nothing, as at Google")),
    ("--delegate-builds", Works("(alpha) builds are Cloud Run's in any case")),
    // The container.
    ("--command", Works("the process is the command, found along PATH; what cannot be run is told in Google's words, by gcloud and in the log")),
    ("--args", Works("the process has the arguments")),
    ("--set-env-vars", Works("the process has exactly them")),
    ("--update-env-vars", Works("the process has them beside those of before")),
    ("--remove-env-vars", Works("the process has it no more")),
    ("--clear-env-vars", Works("the process has none of them")),
    ("--env-vars-file", Works("the process has them")),
    ("--set-secrets", Works("a variable and a file have the payloads; a file of `latest` has a new version as soon as it is there")),
    ("--update-secrets", Works("a variable has another version")),
    ("--remove-secrets", Works("the process has it no more")),
    ("--clear-secrets", Works("the process has none; a secret of another project is refused")),
    ("--port", Works("PORT, where requests arrive")),
    ("--[no-]use-http2", Works("the function is spoken to by HTTP/2 without TLS, or by HTTP/1.1; gRPC comes as HTTP/2 in any case")),
    ("--container", Works("one container, by that name; more are refused")),
    ("--depends-on", Refused("--container one --image x --depends-on two --container two --image y", "more than one container is not supported")),
    ("--remove-containers", Works("there are none to remove")),
    ("--startup-probe", Works("HTTP, TCP and gRPC: what fails it is not deployed, and the old revision goes on serving")),
    ("--liveness-probe", Works("the instance that fails it is ended; the log says so in Google's words; another one serves")),
    ("--readiness-probe", Works("(alpha) the instance that fails it gets no requests, is not ended, and gets them again when it passes")),
    ("--[no-]deploy-health-check", Works("(beta) a revision whose container never listens is ready, or is not")),
    ("--add-volume", Works("in memory, with its size limit enforced; other types are refused (`csi`, `nfs`)")),
    ("--add-volume-mount", Works("the folder is there and writable")),
    ("--remove-volume", Works("it is gone; with its mount, as a volume that is not mounted is refused")),
    ("--remove-volume-mount", Works("the folder is gone")),
    ("--clear-volumes", Works("they are gone")),
    ("--clear-volume-mounts", Works("the folders are gone")),
    // Size and scaling.
    ("--cpu", Works("a busy loop gets half a CPU of 0.5; above 1 only 2, 4, 6 and 8")),
    ("--memory", Works("what takes more is ended, the request is a 503 and the log has Google's text; Node.js and Java size their heaps by it")),
    ("--concurrency", Works("as many requests at once in one instance, not more")),
    ("--timeout", Works("504 `upstream request timeout` after it; Node.js, Go and gRPC tell the function that its caller has gone")),
    ("--min-instances", Works("an instance is there without a request")),
    ("--max-instances", Works("more requests wait, and are served by the one instance; beyond the queue they are 429")),
    ("--min", Works("an instance is there without a request and without a new revision")),
    ("--max", Works("(beta) instances beyond it end, without a new revision")),
    ("--scaling", Works("(beta) so many instances are there, neither more nor fewer")),
    ("--[no-]cpu-throttling", Works("an idle instance's timers stand still, or go on")),
    ("--[no-]cpu-boost", Works("a busy loop gets a whole CPU of 0.5 while it starts, or half of one")),
    ("--execution-environment", Works("gen2 has at least 512 MiB and a whole CPU; both are the same sandbox, with the kernel of the host")),
    ("--[no-]session-affinity", Works("who brings the cookie back comes to the same instance, although others would be chosen")),
    ("--gpu", Refused("--gpu 1", "resources.limits[nvidia.com/gpu]")),
    ("--gpu-type", Refused("--gpu-type nvidia-l4", "nodeSelector")),
    ("--[no-]gpu-zonal-redundancy", Refused("--no-gpu-zonal-redundancy", "gpu-zonal-redundancy-disabled")),
    // Network.
    ("--ingress", Works("from outside the 404 page, or the answer")),
    ("--[no-]default-url", Works("(beta) the URL is the 404 page, or the answer")),
    ("--vpc-connector", Refused("--vpc-connector c", "run.googleapis.com/vpc-access-connector")),
    ("--clear-vpc-connector", Works("there is none to clear")),
    ("--vpc-egress", Refused("--vpc-egress all-traffic", "run.googleapis.com/vpc-access-egress")),
    ("--network", Refused("--network n --subnet s", "run.googleapis.com/network-interfaces")),
    ("--subnet", Refused("--subnet s", "run.googleapis.com/network-interfaces")),
    ("--network-tags", Refused("--network-tags t", "run.googleapis.com/network-interfaces")),
    ("--clear-network", Works("there is none to clear")),
    ("--clear-network-tags", Works("there are none to clear")),
    ("--mesh", Refused("beta --mesh projects/p/locations/global/meshes/m", "run.googleapis.com/mesh")),
    ("--add-cloudsql-instances", Refused("--add-cloudsql-instances p:r:i", "run.googleapis.com/cloudsql-instances")),
    ("--set-cloudsql-instances", Refused("--set-cloudsql-instances p:r:i", "run.googleapis.com/cloudsql-instances")),
    ("--remove-cloudsql-instances", Works("there are none to remove")),
    ("--clear-cloudsql-instances", Works("there are none to clear")),
    // Who may.
    ("--[no-]allow-unauthenticated", Elsewhere("`seed`, `gcloud`")),
    ("--[no-]invoker-iam-check", Works("403 without a token, or the answer")),
    ("--service-account", Works("the metadata server's; refused without the right to act as it")),
    ("--set-custom-audiences", Works("a token for it is let in, others are not")),
    ("--add-custom-audiences", Works("a token for it is let in")),
    ("--remove-custom-audiences", Works("a token for it is let in no more")),
    ("--clear-custom-audiences", Works("a token for it is let in no more")),
    ("--[no-]iap", Refused("beta --iap", "run.googleapis.com/iap-enabled")),
    ("--binary-authorization", Refused("--binary-authorization default", "run.googleapis.com/binary-authorization")),
    ("--clear-binary-authorization", Works("there is none to clear")),
    ("--breakglass", Refused("--breakglass because", "run.googleapis.com/binary-authorization-breakglass")),
    ("--key", Refused("--key projects/p/locations/l/keyRings/r/cryptoKeys/k", "run.googleapis.com/encryption-key")),
    ("--clear-key", Works("there is none to clear")),
    ("--post-key-revocation-action-type", Refused("--post-key-revocation-action-type prevent-new", "post-key-revocation-action-type")),
    ("--clear-post-key-revocation-action-type", Works("there is none to clear")),
    ("--encryption-key-shutdown-hours", Refused("--encryption-key-shutdown-hours 5", "encryption-key-shutdown-hours")),
    ("--clear-encryption-key-shutdown-hours", Works("there is none to clear")),
    // Rollout.
    ("--no-traffic", Works("the old revision goes on serving")),
    ("--tag", Works("the revision has a URL of its own, `https://TAG---SERVICE-NUMBER.REGION.run.app`")),
    ("--revision-suffix", Works("K_REVISION; the same name again with another template is refused")),
    ("--to-revisions", Works("requests go to them by percent; a rollback")),
    ("--to-tags", Works("requests go to the tagged revision")),
    ("--to-latest", Works("requests go to the latest, also to the next one")),
    ("--set-tags", Works("exactly these tags' URLs answer")),
    ("--update-tags", Works("a tag's URL answers with another revision")),
    ("--remove-tags", Works("the tag's URL is the 404 page")),
    ("--clear-tags", Works("no tag's URL answers")),
    ("--async", Works("the command ends before the change is made, and it is made")),
    ("--dry-run", Works("`services replace` checks everything and changes nothing")),
    ("--description", Works("shown by `describe`, at most 512 characters")),
    ("--labels", Works("at the service and its revisions")),
    ("--update-labels", Works("at the service and its revisions")),
    ("--remove-labels", Works("gone from both")),
    ("--clear-labels", Works("gone from both")),
    // Where, and what of it.
    ("--region", Works("the service is there")),
    ("--regions", Refused("DEPLOY-BETA --regions asia-northeast1,us-central1", "run.googleapis.com/regions")),
    ("--namespace", Refused("--namespace x", "flag is not supported on the fully managed version of Cloud Run")),
    ("--service", Works("the revisions of that service")),
    ("--filter", Works("by gcloud, of what is listed")),
    ("--limit", Works("so many at most")),
    ("--page-size", Works("all of them, by pages")),
    ("--sort-by", Works("by gcloud, of what is listed")),
    ("--uri", Works("URIs instead of a table")),
];

/// The forms of a row's flag as they are typed.
pub fn forms(flag: &str) -> Vec<String> {
    match flag.strip_prefix("--[no-]") {
        Some(name) => vec![format!("--{name}"), format!("--no-{name}")],
        None => vec![flag.to_owned()],
    }
}

/// The rows as `COMPATIBILITY.md` has them.
pub fn markdown() -> String {
    let mut out = String::from("| flag | status | what is seen, or what the refusal says |\n|---|---|---|\n");
    for (flag, row) in ROWS {
        let (status, text) = match row {
            Works(seen) => ("yes", (*seen).to_owned()),
            Elsewhere(test) => ("yes", format!("seen by {test}")),
            Refused(_, text) => ("refused", format!("`{text}`")),
        };
        out.push_str(&format!("| `{flag}` | {status} | {text} |\n"));
    }
    out
}
