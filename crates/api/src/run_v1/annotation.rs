//! Annotations that are fields: what run v1 says in text, read into `model` and written out of it.
//!
//! An annotation of the system that is not understood is refused by name: it asks for something that would not happen.
//! Annotations of others survive. Source: googlecloudsdk/api_lib/run/{service,revision,k8s_object}.py.

use std::collections::BTreeMap;

use model::{
    Service, Status,
    revision::{ExecutionEnvironment, RevisionTemplate},
    service::{BuildConfig, Ingress},
};

use crate::{convert::unsupported, run_v2::is_system};

const RUN: &str = "run.googleapis.com/";
const AUTOSCALING: &str = "autoscaling.knative.dev/";

/// Written by the server; a client sends them back as it read them, and they mean nothing then.
const OUTPUT: [&str; 7] = [
    "run.googleapis.com/ingress-status",
    "run.googleapis.com/operation-id",
    "run.googleapis.com/urls",
    "run.googleapis.com/satisfies-pzs",
    "run.googleapis.com/minScale-status",
    "serving.knative.dev/creator",
    "serving.knative.dev/lastModifier",
];
/// Kept as they are: they say who wrote, and have no effect at Google either.
const KEPT: [&str; 4] =
    ["run.googleapis.com/client-name", "run.googleapis.com/client-version", "run.googleapis.com/launch-stage", "client.knative.dev/user-image"];
/// Not supported; `false` asks for nothing.
const OFF: [&str; 3] = ["run.googleapis.com/gpu-zonal-redundancy-disabled", "run.googleapis.com/iap-enabled", "run.googleapis.com/threat-detection"];

type Map = BTreeMap<String, String>;

/// One object's annotations while they are being understood.
struct Reader<'a> {
    /// Path of the map, for errors.
    at: &'a str,
    left: Map,
}

impl Reader<'_> {
    fn text(&mut self, key: &str) -> Option<String> {
        self.left.remove(key)
    }

    fn parsed<T>(&mut self, key: &str, what: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Status> {
        let Some(text) = self.left.remove(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(Status::invalid_field(self.path(key), format!("{text:?} is not {what}"))),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, Status> {
        self.parsed(key, "true or false", flag_parse)
    }

    fn number(&mut self, key: &str) -> Result<Option<u32>, Status> {
        self.parsed(key, "a number of instances", |text| text.parse().ok())
    }

    fn path(&self, key: &str) -> String {
        format!("{}[{key}]", self.at)
    }

    /// What nobody here understands, for keeping.
    fn rest(mut self) -> Result<Map, Status> {
        self.left.retain(|key, value| {
            // Asks for nothing, as gcloud's --clear-cloudsql-instances.
            if is_system(key) && value.is_empty() {
                return false;
            }
            let off = OFF.contains(&key.as_str()) && flag_parse(value) == Some(false);
            !OUTPUT.contains(&key.as_str()) && !off
        });
        match self.left.keys().find(|key| is_system(key) && !KEPT.contains(&key.as_str())) {
            Some(key) => Err(unsupported(self.path(key))),
            None => Ok(self.left),
        }
    }
}

fn flag_parse(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Reads a service's annotations into it.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the annotation.
pub(super) fn service_read(annotations: Map, service: &mut Service) -> Result<(), Status> {
    let run = |name: &str| format!("{RUN}{name}");
    let mut reader = Reader { at: "metadata.annotations", left: annotations };
    service.client = reader.text(&run("client-name")).unwrap_or_default();
    service.client_version = reader.text(&run("client-version")).unwrap_or_default();
    service.description = reader.text(&run("description")).unwrap_or_default();
    service.invoker_iam_disabled = reader.flag(&run("invoker-iam-disabled"))?.unwrap_or(false);
    service.default_uri_disabled = reader.flag(&run("default-url-disabled"))?.unwrap_or(false);
    service.ingress = reader.parsed(&run("ingress"), "all, internal, internal-and-cloud-load-balancing or none", ingress_parse)?.unwrap_or_default();
    service.custom_audiences = reader.parsed(&run("custom-audiences"), "a JSON list of strings", |text| serde_json::from_str(text).ok())?.unwrap_or_default();
    service.scaling.min_instances = reader.number(&run("minScale"))?.unwrap_or(0);
    service.scaling.max_instances = reader.number(&run("maxScale"))?.filter(|max| *max > 0);
    let manual = reader.parsed(&run("scalingMode"), "automatic or manual", |text| match text {
        "automatic" => Some(false),
        "manual" => Some(true),
        _ => None,
    })?;
    let count = reader.number(&run("manualInstanceCount"))?;
    service.scaling.manual_instances = match (manual.unwrap_or(false), count) {
        (true, Some(count)) => Some(count),
        (true, None) => return Err(Status::invalid_field(reader.path(&run("manualInstanceCount")), "it is required with scalingMode manual")),
        // gcloud leaves the number standing when it goes back to automatic.
        (false, _) => None,
    };
    service.build_config = build_read(&mut reader)?;
    service.annotations = reader.rest()?;
    Ok(())
}

fn build_read(reader: &mut Reader<'_>) -> Result<Option<BuildConfig>, Status> {
    let run = |name: &str| format!("{RUN}build-{name}");
    let mut text = |name: &str| reader.text(&run(name)).unwrap_or_default();
    let config = BuildConfig {
        name: text("name"),
        id: text("id"),
        source_location: text("source-location"),
        function_target: text("function-target"),
        image_uri: text("image-uri"),
        base_image: text("base-image"),
        service_account: text("service-account"),
        worker_pool: text("worker-pool"),
        enable_automatic_updates: reader.flag(&run("enable-automatic-updates"))?.unwrap_or(false),
        environment_variables: reader
            .parsed(&run("environment-variables"), "a JSON object of strings", |text| serde_json::from_str(text).ok())?
            .unwrap_or_default(),
    };
    Ok((config != BuildConfig::default()).then_some(config))
}

/// A service's annotations; what only the server writes is added by the caller.
pub(super) fn service_write(service: &Service) -> Map {
    let mut out = service.annotations.clone();
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            out.insert(format!("{RUN}{name}"), value);
        }
    };
    put("client-name", service.client.clone());
    put("client-version", service.client_version.clone());
    put("description", service.description.clone());
    put("invoker-iam-disabled", flag_print(service.invoker_iam_disabled));
    put("default-url-disabled", flag_print(service.default_uri_disabled));
    put("ingress", ingress_print(service.ingress).to_owned());
    put("ingress-status", ingress_print(service.ingress).to_owned());
    if !service.custom_audiences.is_empty() {
        put("custom-audiences", serde_json::json!(service.custom_audiences).to_string());
    }
    let scaling = &service.scaling;
    put("minScale", if scaling.min_instances > 0 { scaling.min_instances.to_string() } else { String::new() });
    put("maxScale", scaling.max_instances.map(|n| n.to_string()).unwrap_or_default());
    if let Some(count) = scaling.manual_instances {
        put("scalingMode", "manual".to_owned());
        put("manualInstanceCount", count.to_string());
    }
    if let Some(config) = &service.build_config {
        put("build-name", config.name.clone());
        put("build-id", config.id.clone());
        put("build-source-location", config.source_location.clone());
        put("build-function-target", config.function_target.clone());
        put("build-image-uri", config.image_uri.clone());
        put("build-base-image", config.base_image.clone());
        put("build-service-account", config.service_account.clone());
        put("build-worker-pool", config.worker_pool.clone());
        put("build-enable-automatic-updates", flag_print(config.enable_automatic_updates));
        if !config.environment_variables.is_empty() {
            put("build-environment-variables", serde_json::json!(config.environment_variables).to_string());
        }
    }
    out
}

/// Reads a template's annotations into it. The container must have its name already.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the annotation.
pub(super) fn template_read(annotations: Map, template: &mut RevisionTemplate) -> Result<(), Status> {
    let run = |name: &str| format!("{RUN}{name}");
    let mut reader = Reader { at: "spec.template.metadata.annotations", left: annotations };
    template.min_instances = reader.number(&format!("{AUTOSCALING}minScale"))?.unwrap_or(0);
    template.max_instances = reader.number(&format!("{AUTOSCALING}maxScale"))?.filter(|max| *max > 0);
    template.session_affinity = reader.flag(&run("sessionAffinity"))?.unwrap_or(false);
    template.health_check_disabled = reader.flag(&run("health-check-disabled"))?.unwrap_or(false);
    template.execution_environment = reader
        .parsed(&run("execution-environment"), "gen1 or gen2", |text| match text {
            "gen1" => Some(ExecutionEnvironment::Gen1),
            "gen2" => Some(ExecutionEnvironment::Gen2),
            _ => None,
        })?
        .unwrap_or_default();
    template.container.startup_cpu_boost = reader.flag(&run("startup-cpu-boost"))?.unwrap_or(false);
    // True is what is meant without it; only the other one needs a record.
    template.container.cpu_idle = reader.flag(&run("cpu-throttling"))?.filter(|throttled| !throttled);
    let images: Option<Map> = reader.parsed(&run("base-images"), "a JSON object of base images by container name", |text| serde_json::from_str(text).ok())?;
    for (name, image) in images.unwrap_or_default() {
        if name != template.container.name {
            return Err(Status::invalid_field(reader.path(&run("base-images")), format!("there is no container {name:?}")));
        }
        template.container.base_image = image;
    }
    template.annotations = reader.rest()?;
    Ok(())
}

/// A template's annotations.
pub(super) fn template_write(template: &RevisionTemplate) -> Map {
    let mut out = template.annotations.clone();
    let mut put = |name: String, value: String| {
        if !value.is_empty() {
            out.insert(name, value);
        }
    };
    let run = |name: &str| format!("{RUN}{name}");
    put(format!("{AUTOSCALING}minScale"), if template.min_instances > 0 { template.min_instances.to_string() } else { String::new() });
    put(format!("{AUTOSCALING}maxScale"), template.max_instances.map(|n| n.to_string()).unwrap_or_default());
    put(run("sessionAffinity"), flag_print(template.session_affinity));
    put(run("health-check-disabled"), flag_print(template.health_check_disabled));
    put(
        run("execution-environment"),
        match template.execution_environment {
            ExecutionEnvironment::Unset => "",
            ExecutionEnvironment::Gen1 => "gen1",
            ExecutionEnvironment::Gen2 => "gen2",
        }
        .to_owned(),
    );
    put(run("startup-cpu-boost"), flag_print(template.container.startup_cpu_boost));
    if template.container.cpu_idle == Some(false) {
        put(run("cpu-throttling"), "false".to_owned());
    }
    if !template.container.base_image.is_empty() {
        let images = Map::from([(template.container.name.clone(), template.container.base_image.clone())]);
        put(run("base-images"), serde_json::json!(images).to_string());
    }
    out
}

/// Empty, and so not written, when it is false.
fn flag_print(value: bool) -> String {
    if value { "true".to_owned() } else { String::new() }
}

fn ingress_parse(text: &str) -> Option<Ingress> {
    Some(match text {
        "all" => Ingress::All,
        "internal" => Ingress::Internal,
        "internal-and-cloud-load-balancing" => Ingress::InternalAndLoadBalancer,
        "none" => Ingress::None,
        _ => return None,
    })
}

fn ingress_print(ingress: Ingress) -> &'static str {
    match ingress {
        Ingress::All => "all",
        Ingress::Internal => "internal",
        Ingress::InternalAndLoadBalancer => "internal-and-cloud-load-balancing",
        Ingress::None => "none",
    }
}
