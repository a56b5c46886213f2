//! `tanebi run deploy|list|describe|delete|call`: for people without gcloud, with gcloud's flags and by the same APIs.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    env::{Environment, IdentityArgs},
    source,
};

mod shadow;

#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(subcommand)]
    command: RunCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum RunCommand {
    /// Build a folder's source and serve it
    Deploy(Box<DeployArgs>),
    /// List the services
    List,
    /// Show one service as JSON
    Describe(NameArgs),
    /// Delete a service
    Delete(NameArgs),
    /// Call a service as this identity and print its reply
    Call(CallArgs),
    /// Send copies of recent requests to a revision and compare its answers with those of the one that serves
    Shadow(shadow::ShadowArgs),
}

#[derive(clap::Args, Clone, Debug)]
struct NameArgs {
    /// Name of the service
    name: String,
    #[arg(long)]
    region: Option<String>,
}

#[derive(clap::Args, Clone, Debug)]
struct DeployArgs {
    #[command(flatten)]
    service: NameArgs,
    /// Folder of the source
    #[arg(long, default_value = ".")]
    source: PathBuf,
    /// Entry point: the function's name
    #[arg(long)]
    function: Option<String>,
    /// Runtime, such as python312
    #[arg(long)]
    base_image: Option<String>,
    /// Let anyone call it
    #[arg(long, conflicts_with = "no_allow_unauthenticated")]
    allow_unauthenticated: bool,
    #[arg(long)]
    no_allow_unauthenticated: bool,
    /// Ask no caller for a permission
    #[arg(long, conflicts_with = "invoker_iam_check")]
    no_invoker_iam_check: bool,
    #[arg(long)]
    invoker_iam_check: bool,
    /// all, internal or internal-and-cloud-load-balancing
    #[arg(long)]
    ingress: Option<String>,
    /// KEY=VALUE,...: the whole environment
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["update_env_vars", "remove_env_vars"])]
    set_env_vars: Vec<String>,
    /// KEY=VALUE,...: these, and the others as they are
    #[arg(long, value_delimiter = ',')]
    update_env_vars: Vec<String>,
    /// KEY,...: all but these
    #[arg(long, value_delimiter = ',')]
    remove_env_vars: Vec<String>,
    /// KEY=VALUE,...: for the build alone
    #[arg(long, value_delimiter = ',')]
    set_build_env_vars: Vec<String>,
    /// KEY=VALUE,...: these, and the others as they are
    #[arg(long, value_delimiter = ',', visible_alias = "update-labels")]
    labels: Vec<String>,
    /// Such as 512Mi
    #[arg(long)]
    memory: Option<String>,
    /// Such as 1
    #[arg(long)]
    cpu: Option<String>,
    /// CPU only while a request is served: billing by requests
    #[arg(long, conflicts_with = "no_cpu_throttling")]
    cpu_throttling: bool,
    /// CPU always: billing by instances
    #[arg(long)]
    no_cpu_throttling: bool,
    /// More CPU while an instance starts
    #[arg(long, conflicts_with = "no_cpu_boost")]
    cpu_boost: bool,
    #[arg(long)]
    no_cpu_boost: bool,
    /// Requests of one instance at a time
    #[arg(long)]
    concurrency: Option<u32>,
    /// How instances come to be: revision (clones of one that has loaded the code), runtime (clones of one that has loaded the framework) or off
    #[arg(long)]
    start: Option<String>,
    /// Seconds
    #[arg(long)]
    timeout: Option<u32>,
    #[arg(long)]
    min_instances: Option<u32>,
    #[arg(long)]
    max_instances: Option<u32>,
    #[arg(long)]
    service_account: Option<String>,
    /// Compare its answers to copies of recent requests first; what served before keeps the traffic when the new revision fails
    #[arg(long)]
    shadow: bool,
}

#[derive(clap::Args, Clone, Debug)]
struct CallArgs {
    #[command(flatten)]
    service: NameArgs,
    /// Body of a POST; without it the call is a GET
    #[arg(long)]
    data: Option<String>,
    /// Path and query
    #[arg(long, default_value = "/")]
    path: String,
}

pub async fn run(args: &RunArgs) -> Result<ExitCode> {
    let caller = Caller { environment: Environment::make(&args.identity).await? };
    match &args.command {
        RunCommand::Deploy(deploy) => caller.deploy(deploy).await,
        RunCommand::List => caller.list().await,
        RunCommand::Describe(name) => caller.describe(name).await,
        RunCommand::Delete(name) => caller.delete(name).await,
        RunCommand::Call(call) => caller.call(call).await,
        RunCommand::Shadow(shadow) => caller.shadow(shadow).await,
    }
}

struct Caller {
    environment: Environment,
}

const RUN: &str = "run.googleapis.com";
const STORAGE: &str = "storage.googleapis.com";
const ARTIFACTS: &str = "artifactregistry.googleapis.com";
/// Where gcloud puts what it builds from source.
pub const REPOSITORY: &str = "cloud-run-source-deploy";

impl Caller {
    fn project(&self) -> &str {
        &self.environment.client.server.project
    }

    fn region<'a>(&'a self, name: &'a NameArgs) -> &'a str {
        name.region.as_deref().unwrap_or(&self.environment.client.server.region)
    }

    fn service_path(&self, name: &NameArgs) -> String {
        format!("/v2/projects/{}/locations/{}/services/{}", self.project(), self.region(name), name.name)
    }

    async fn api(&self, method: Method, host: &str, path: &str, body: Option<Value>) -> Result<Value> {
        self.environment.client.api(&self.environment.access_token, method, host, path, body).await
    }

    /// The service, or `None` when there is none.
    async fn get(&self, name: &NameArgs) -> Result<Option<Value>> {
        let filter =
            self.api(Method::GET, RUN, &format!("/v2/projects/{}/locations/{}/services?pageSize=1000", self.project(), self.region(name)), None).await?;
        let suffix = format!("/services/{}", name.name);
        let found = filter
            .get("services")
            .and_then(Value::as_array)
            .and_then(|services| services.iter().find(|s| s["name"].as_str().is_some_and(|n| n.ends_with(&suffix))).cloned());
        Ok(found)
    }

    async fn deploy(&self, args: &DeployArgs) -> Result<ExitCode> {
        let progress = Progress::start("Packing sources");
        let (archive, files) = tokio::task::spawn_blocking({
            let folder = args.source.clone();
            move || source::pack(&folder)
        })
        .await??;
        progress.stage(&format!("Uploading sources ({files} files, {} bytes)", archive.len()));
        let name = &args.service;
        let (region, project) = (self.region(name), self.project());
        let (bucket, object, generation) = self.upload(name, archive).await?;

        progress.stage("Building Container");
        self.repository_ensure(region).await?;
        let image_uri = format!("{region}-docker.pkg.dev/{project}/{REPOSITORY}/{}", name.name);
        let mut buildpack = json!({ "enableAutomaticUpdates": args.base_image.is_some() });
        if let Some(base_image) = &args.base_image {
            buildpack["baseImage"] = json!(base_image);
        }
        if let Some(function) = &args.function {
            buildpack["functionTarget"] = json!(function);
        }
        if !args.set_build_env_vars.is_empty() {
            buildpack["environmentVariables"] = json!(build_variables(&args.set_build_env_vars)?);
        }
        let submitted = self
            .api(
                Method::POST,
                RUN,
                &format!("/v2/projects/{project}/locations/{region}/builds:submit"),
                Some(json!({
                    "storageSource": { "bucket": bucket, "object": object, "generation": generation },
                    "imageUri": image_uri, "buildpackBuild": buildpack, "tags": [format!("service_{}", name.name)],
                })),
            )
            .await?;
        let build = &submitted["buildOperation"]["metadata"]["build"];
        let build_id = build["id"].as_str().context("the build has no id")?.to_owned();
        let build_name = build["name"].as_str().unwrap_or_default().to_owned();
        let digest = self.build_wait(region, &build_id).await?;
        let base_image_uri = submitted["baseImageUri"].as_str().unwrap_or_default().to_owned();

        progress.stage("Creating Revision and routing traffic");
        let before = self.get(name).await?;
        let mut service = before.clone().unwrap_or_else(|| json!({ "template": { "containers": [{}] } }));
        let template = &mut service["template"];
        if let Some(template) = template.as_object_mut() {
            // A revision's name is used once.
            template.remove("revision");
        }
        let container = &mut template["containers"][0];
        container["image"] = json!(format!("{image_uri}@{digest}"));
        if !base_image_uri.is_empty() {
            container["baseImageUri"] = json!(base_image_uri);
        }
        env_apply(args, &mut container["env"])?;
        if let Some(memory) = &args.memory {
            container["resources"]["limits"]["memory"] = json!(memory);
        }
        if let Some(cpu) = &args.cpu {
            container["resources"]["limits"]["cpu"] = json!(cpu);
        }
        if before.is_none() || args.cpu_boost || args.no_cpu_boost {
            container["resources"]["startupCpuBoost"] = json!(!args.no_cpu_boost);
        }
        if before.is_none() || args.cpu_throttling || args.no_cpu_throttling {
            container["resources"]["cpuIdle"] = json!(!args.no_cpu_throttling);
        }
        if let Some(start) = &args.start {
            template["annotations"]["tanebi.dev/start"] = json!(start);
        }
        if let Some(concurrency) = args.concurrency {
            template["maxInstanceRequestConcurrency"] = json!(concurrency);
        }
        if let Some(timeout) = args.timeout {
            template["timeout"] = json!(format!("{timeout}s"));
        }
        if let Some(min) = args.min_instances {
            template["scaling"]["minInstanceCount"] = json!(min);
        }
        if let Some(max) = args.max_instances {
            template["scaling"]["maxInstanceCount"] = json!(max);
        }
        if let Some(account) = &args.service_account {
            template["serviceAccount"] = json!(account);
        }
        for label in &args.labels {
            let (key, value) = label.split_once('=').with_context(|| format!("--labels {label:?}: KEY=VALUE is wanted"))?;
            service["labels"][key] = json!(value);
        }
        service["client"] = json!("tanebi");
        service["clientVersion"] = json!(env!("CARGO_PKG_VERSION"));
        if let Some(ingress) = &args.ingress {
            service["ingress"] = json!(match ingress.as_str() {
                "all" => "INGRESS_TRAFFIC_ALL",
                "internal" => "INGRESS_TRAFFIC_INTERNAL_ONLY",
                "internal-and-cloud-load-balancing" => "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
                other => bail!("--ingress {other:?}: use all, internal or internal-and-cloud-load-balancing"),
            });
        }
        if args.no_invoker_iam_check || args.invoker_iam_check {
            service["invokerIamDisabled"] = json!(args.no_invoker_iam_check);
        }
        let mut config = json!({
            "name": build_name, "sourceLocation": format!("gs://{bucket}/{object}#{generation}"),
            "imageUri": image_uri, "enableAutomaticUpdates": args.base_image.is_some(),
        });
        if let Some(function) = &args.function {
            config["functionTarget"] = json!(function);
        }
        if !base_image_uri.is_empty() {
            config["baseImage"] = json!(base_image_uri);
        }
        service["buildConfig"] = config;
        // Without a request to copy nothing is held: there is nothing to wait for. What is held already is not let go by that.
        let is_comparable = args.shadow && before.is_some() && (shadow::is_held(&service) || self.shadow_count(name).await? > 0);
        let is_held = is_comparable && shadow::hold(&mut service);
        if args.shadow && !is_held {
            progress.stage("No recorded requests, or traffic that does not follow the latest revision: nothing to compare");
        }
        let operation = match &before {
            None => self.api(Method::POST, RUN, &format!("/v2/projects/{project}/locations/{region}/services?serviceId={}", name.name), Some(service)).await,
            Some(_) => self.api(Method::PATCH, RUN, &self.service_path(name), Some(service)).await,
        }?;
        self.operation_wait(&operation).await?;
        if args.allow_unauthenticated || args.no_allow_unauthenticated {
            self.public_set(name, args.allow_unauthenticated).await?;
        }
        let mut service = self.get(name).await?.context("the service is gone")?;
        if is_held {
            progress.stage("Comparing answers to copies of recent requests");
            let revision = shadow::short(&service["latestReadyRevision"]).to_owned();
            let is_promoted = self.shadow_promote(name, &revision).await?;
            service = self.get(name).await?.context("the service is gone")?;
            // Unless its owner has moved traffic to it meanwhile.
            if !is_promoted && percent_of(&service, &revision) == 0 {
                progress.done();
                eprintln!("Service [{}] revision [{revision}] has been deployed and takes no traffic: what served before still does.", name.name);
                eprintln!("To send it traffic all the same: gcloud run services update-traffic {} --region {region} --to-latest", name.name);
                return Ok(ExitCode::FAILURE);
            }
        }
        progress.done();
        let revision = shadow::short(&service["latestReadyRevision"]);
        let percent = percent_of(&service, revision);
        eprintln!("Service [{}] revision [{revision}] has been deployed and is serving {percent} percent of traffic.", name.name);
        eprintln!("Service URL: {}", service["uri"].as_str().unwrap_or_default());
        println!("{}", self.browser_url(name, &service));
        Ok(ExitCode::SUCCESS)
    }

    /// The link for a browser on this machine.
    fn browser_url(&self, name: &NameArgs, service: &Value) -> String {
        let (running, server) = (&self.environment.client.running, &self.environment.client.server);
        let host = service["uri"].as_str().and_then(|u| u.strip_prefix("https://")).and_then(|h| h.strip_suffix(".run.app"));
        match host {
            Some(_) => format!("http://{}-{}.{}.run.localhost:{}", name.name, server.project_number, self.region(name), running.listen.port()),
            None => String::new(),
        }
    }

    async fn upload(&self, name: &NameArgs, archive: Vec<u8>) -> Result<(String, String, String)> {
        let bucket = format!("run-sources-{}-{}", self.project(), self.region(name));
        let list = self.api(Method::GET, STORAGE, &format!("/storage/v1/b?project={}&prefix={bucket}", self.project()), None).await?;
        if list["items"].as_array().is_none_or(|items| !items.iter().any(|b| b["name"] == json!(bucket))) {
            let created = self
                .api(
                    Method::POST,
                    STORAGE,
                    &format!("/storage/v1/b?project={}", self.project()),
                    Some(json!({ "name": bucket, "location": self.region(name) })),
                )
                .await;
            if let Err(error) = created
                && !format!("{error:#}").contains("already")
            {
                return Err(error.context("the bucket of sources"));
            }
        }
        let object = format!("services/{}/{}.zip", name.name, uuid::Uuid::new_v4());
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={}", object.replace('/', "%2F")))
            .header("host", STORAGE)
            .header("authorization", format!("Bearer {}", self.environment.access_token))
            .header("content-type", "application/zip")
            .body(Full::new(Bytes::from(archive)))?;
        let response = self.environment.client.send(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let value: Value = serde_json::from_slice(&body).context("the upload's answer")?;
        if !status.is_success() {
            bail!("upload of the source: {}", value["error"]["message"].as_str().unwrap_or(status.as_str()));
        }
        Ok((bucket, object, value["generation"].as_str().unwrap_or("0").to_owned()))
    }

    /// Images belong to a repository; gcloud makes the same one.
    async fn repository_ensure(&self, region: &str) -> Result<()> {
        let repositories = format!("/v1/projects/{}/locations/{region}/repositories", self.project());
        let list = self.api(Method::GET, ARTIFACTS, &repositories, None).await?;
        let suffix = format!("/{REPOSITORY}");
        if list["repositories"].as_array().is_some_and(|all| all.iter().any(|r| r["name"].as_str().is_some_and(|n| n.ends_with(&suffix)))) {
            return Ok(());
        }
        let made = self.api(Method::POST, ARTIFACTS, &format!("{repositories}?repositoryId={REPOSITORY}"), Some(json!({ "format": "DOCKER" }))).await;
        match made {
            Err(error) if !format!("{error:#}").contains("already exists") => Err(error.context("the repository of images")),
            _ => Ok(()),
        }
    }

    /// The image's digest.
    async fn build_wait(&self, region: &str, id: &str) -> Result<String> {
        let path = format!("/v1/projects/{}/locations/{region}/builds/{id}", self.project());
        loop {
            // The operation's answer waits for the build; the build's does not.
            self.api(Method::GET, "cloudbuild.googleapis.com", &format!("/v1/projects/{}/locations/{region}/operations/{id}", self.project()), None).await?;
            let build = self.api(Method::GET, "cloudbuild.googleapis.com", &path, None).await?;
            match build["status"].as_str().unwrap_or_default() {
                "QUEUED" | "WORKING" | "PENDING" => tokio::time::sleep(Duration::from_millis(100)).await,
                "SUCCESS" => return Ok(build["results"]["images"][0]["digest"].as_str().context("the build has no image")?.to_owned()),
                status => {
                    let detail = build["failureInfo"]["detail"].as_str().or(build["statusDetail"].as_str()).unwrap_or(status);
                    bail!("Container build failed: {detail}");
                }
            }
        }
    }

    async fn operation_wait(&self, operation: &Value) -> Result<()> {
        let mut operation = operation.clone();
        while operation["done"] != json!(true) {
            let name = operation["name"].as_str().context("the operation has no name")?.to_owned();
            operation = self.api(Method::POST, RUN, &format!("/v2/{name}:wait"), Some(json!({ "timeout": "30s" }))).await?;
        }
        match operation.pointer("/error/message").and_then(Value::as_str) {
            Some(message) => bail!("{message}"),
            None => Ok(()),
        }
    }

    async fn public_set(&self, name: &NameArgs, public: bool) -> Result<()> {
        let path = self.service_path(name);
        let mut policy = self.api(Method::GET, RUN, &format!("{path}:getIamPolicy"), None).await?;
        let bindings = policy["bindings"].as_array().cloned().unwrap_or_default();
        let mut roles: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &bindings {
            let members = binding["members"].as_array().into_iter().flatten().filter_map(|m| m.as_str().map(str::to_owned));
            roles.entry(binding["role"].as_str().unwrap_or_default().to_owned()).or_default().extend(members);
        }
        let invokers = roles.entry("roles/run.invoker".to_owned()).or_default();
        invokers.retain(|m| m != "allUsers");
        if public {
            invokers.push("allUsers".to_owned());
        }
        policy["bindings"] =
            roles.into_iter().filter(|(_, members)| !members.is_empty()).map(|(role, members)| json!({ "role": role, "members": members })).collect();
        self.api(Method::POST, RUN, &format!("{path}:setIamPolicy"), Some(json!({ "policy": policy }))).await?;
        Ok(())
    }

    async fn list(&self) -> Result<ExitCode> {
        let answer = self.api(Method::GET, RUN, &format!("/v2/projects/{}/locations/-/services?pageSize=1000", self.project()), None).await?;
        for service in answer["services"].as_array().into_iter().flatten() {
            let mut parts = service["name"].as_str().unwrap_or_default().split('/').skip(3);
            let (region, name) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
            let state = match service["terminalCondition"]["state"].as_str() {
                Some("CONDITION_SUCCEEDED") => "ready",
                Some("CONDITION_FAILED") => "failed",
                _ => "deploying",
            };
            println!("{name}\t{region}\t{state}\t{}", service["uri"].as_str().unwrap_or_default());
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn describe(&self, name: &NameArgs) -> Result<ExitCode> {
        let service = self.api(Method::GET, RUN, &self.service_path(name), None).await?;
        println!("{}", serde_json::to_string_pretty(&service)?);
        Ok(ExitCode::SUCCESS)
    }

    async fn delete(&self, name: &NameArgs) -> Result<ExitCode> {
        let operation = self.api(Method::DELETE, RUN, &self.service_path(name), None).await?;
        self.operation_wait(&operation).await?;
        eprintln!("Deleted service [{}].", name.name);
        Ok(ExitCode::SUCCESS)
    }

    async fn call(&self, args: &CallArgs) -> Result<ExitCode> {
        let name = &args.service;
        let server = &self.environment.client.server;
        let host = format!("{}-{}.{}.run.app", name.name, server.project_number, self.region(name));
        let token = self
            .environment
            .client
            .own(Method::POST, "/_tanebi/v1/idTokens", Some(json!({ "email": self.environment.email, "audience": format!("https://{host}") })))
            .await?;
        let token = token["idToken"].as_str().context("no ID token")?.to_owned();
        let mut request = Request::builder().uri(&args.path).header("host", &host).header("authorization", format!("Bearer {token}"));
        let body = match &args.data {
            Some(data) => {
                request = request.method(Method::POST).header("content-type", "application/json");
                Bytes::from(data.clone())
            }
            None => Bytes::new(),
        };
        let response = self.environment.client.send(request.body(Full::new(body))?).await?;
        let status = response.status();
        let mut stdout = tokio::io::stdout();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                stdout.write_all(&data).await?;
            }
        }
        stdout.write_all(b"\n").await?;
        stdout.flush().await?;
        if status.is_success() {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("error: {host} answered {status}");
        Ok(ExitCode::FAILURE)
    }
}

/// The variables of a build, by name.
fn build_variables(pairs: &[String]) -> Result<BTreeMap<&str, &str>> {
    pairs.iter().map(|pair| pair.split_once('=').with_context(|| format!("--set-build-env-vars {pair:?}: use NAME=VALUE"))).collect()
}

/// Makes a container's environment what the flags say.
fn env_apply(args: &DeployArgs, env: &mut Value) -> Result<()> {
    let mut kept = match env.take() {
        Value::Array(kept) if args.set_env_vars.is_empty() => kept,
        _ => Vec::new(),
    };
    for (flag, pairs) in [("--set-env-vars", &args.set_env_vars), ("--update-env-vars", &args.update_env_vars)] {
        for pair in pairs {
            let (name, value) = pair.split_once('=').with_context(|| format!("{flag} {pair:?}: use NAME=VALUE"))?;
            kept.retain(|variable| variable["name"] != name);
            kept.push(json!({ "name": name, "value": value }));
        }
    }
    kept.retain(|variable| !args.remove_env_vars.iter().any(|name| variable["name"] == *name));
    *env = Value::Array(kept);
    Ok(())
}

/// The share of requests that a revision gets.
fn percent_of(service: &Value, revision: &str) -> i64 {
    let targets = service["trafficStatuses"].as_array().into_iter().flatten().filter(|target| target["revision"] == revision);
    targets.filter_map(|target| target["percent"].as_i64()).sum()
}

/// What happens now, on stderr; one line a stage where it is no terminal.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn start(stage: &str) -> Self {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a constant template"));
        bar.enable_steady_tick(Duration::from_millis(100));
        let progress = Self { bar };
        progress.stage(stage);
        progress
    }

    fn stage(&self, stage: &str) {
        if self.bar.is_hidden() {
            eprintln!("{stage}...");
        } else {
            self.bar.set_message(format!("{stage}..."));
        }
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
