//! RevisionTemplate and Container of run v2, both ways.
//!
//! What is not supported is refused with its path; nothing is added here (defaults are `control`'s), so that a template that is
//! read and written back is the same template. Source: google/cloud/run/v2/{revision_template,k8s.min}.proto.

use std::collections::BTreeMap;

use model::{
    RevisionName, Status,
    revision::{Check, Container, ExecutionEnvironment, MemoryMount, Probe, RevisionTemplate, SecretMount, SecretRef},
};
use proto::google::cloud::run::v2 as pb;

use crate::{
    convert::{count, int, port, refuse, unsupported},
    quantity::{cpu_parse, cpu_print, memory_parse, memory_print},
};

/// Annotations under these prefixes are run v1's form of fields; run v2 does not show them and does not take them.
const SYSTEM: [&str; 5] = ["run.googleapis.com/", "autoscaling.knative.dev/", "serving.knative.dev/", "cloud.googleapis.com/", "client.knative.dev/"];

/// Whether an annotation is one of run v1's own.
pub(crate) fn is_system(annotation: &str) -> bool {
    SYSTEM.iter().any(|prefix| annotation.starts_with(prefix))
}

/// # Errors
/// `INVALID_ARGUMENT` naming an annotation under a system's prefix.
pub(super) fn annotations_read(field: &str, annotations: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>, Status> {
    annotations
        .into_iter()
        .map(|(key, value)| {
            if is_system(&key) {
                return Err(Status::invalid_field(
                    format!("{field}[{key}]"),
                    "annotations of the system are not allowed in v2; use the field that has the same meaning",
                ));
            }
            Ok((key, value))
        })
        .collect()
}

/// The annotations that run v2 shows.
pub(super) fn annotations_write(annotations: &BTreeMap<String, String>) -> std::collections::HashMap<String, String> {
    annotations.iter().filter(|(key, _)| !is_system(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// # Errors
/// `INVALID_ARGUMENT` naming the field at fault.
pub(super) fn read(template: pb::RevisionTemplate) -> Result<RevisionTemplate, Status> {
    refuse(template.vpc_access.is_some(), "template.vpc_access")?;
    refuse(!template.encryption_key.is_empty(), "template.encryption_key")?;
    refuse(template.encryption_key_revocation_action != 0, "template.encryption_key_revocation_action")?;
    refuse(template.encryption_key_shutdown_duration.is_some(), "template.encryption_key_shutdown_duration")?;
    refuse(template.service_mesh.is_some_and(|mesh| !mesh.mesh.is_empty()), "template.service_mesh")?;
    refuse(template.node_selector.is_some_and(|selector| !selector.accelerator.is_empty()), "template.node_selector")?;
    refuse(template.gpu_zonal_redundancy_disabled.is_some(), "template.gpu_zonal_redundancy_disabled")?;
    let scaling = template.scaling.unwrap_or_default();
    Ok(RevisionTemplate {
        revision: if template.revision.is_empty() { None } else { Some(RevisionName::parse(&template.revision)?) },
        labels: template.labels.into_iter().collect(),
        annotations: annotations_read("template.annotations", template.annotations)?,
        container: container_one(template.containers, template.volumes)?,
        min_instances: count("template.scaling.min_instance_count", scaling.min_instance_count)?,
        max_instances: set(count("template.scaling.max_instance_count", scaling.max_instance_count)?),
        concurrency: set(count("template.max_instance_request_concurrency", template.max_instance_request_concurrency)?),
        timeout_s: template.timeout.map(timeout_read).transpose()?.and_then(set),
        service_account: template.service_account,
        execution_environment: match template.execution_environment {
            0 => ExecutionEnvironment::Unset,
            1 => ExecutionEnvironment::Gen1,
            2 => ExecutionEnvironment::Gen2,
            other => return Err(Status::invalid_field("template.execution_environment", format!("{other} is none of its values"))),
        },
        session_affinity: template.session_affinity,
        health_check_disabled: template.health_check_disabled,
    })
}

pub(super) fn write(template: &RevisionTemplate) -> pb::RevisionTemplate {
    pb::RevisionTemplate {
        revision: template.revision.as_ref().map(RevisionName::to_string).unwrap_or_default(),
        labels: template.labels.clone().into_iter().collect(),
        annotations: annotations_write(&template.annotations),
        scaling: scaling_write(template),
        timeout: timeout_write(template),
        service_account: template.service_account.clone(),
        containers: vec![container_write(&template.container)],
        volumes: volumes_write(&template.container),
        execution_environment: environment_write(template.execution_environment),
        max_instance_request_concurrency: int(template.concurrency.unwrap_or(0)),
        session_affinity: template.session_affinity,
        health_check_disabled: template.health_check_disabled,
        ..Default::default()
    }
}

pub(super) fn scaling_write(template: &RevisionTemplate) -> Option<pb::RevisionScaling> {
    let scaling = pb::RevisionScaling { min_instance_count: int(template.min_instances), max_instance_count: int(template.max_instances.unwrap_or(0)) };
    (scaling != pb::RevisionScaling::default()).then_some(scaling)
}

pub(super) fn timeout_write(template: &RevisionTemplate) -> Option<prost_types::Duration> {
    template.timeout_s.map(|seconds| prost_types::Duration { seconds: i64::from(seconds), nanos: 0 })
}

pub(super) fn environment_write(environment: ExecutionEnvironment) -> i32 {
    match environment {
        ExecutionEnvironment::Unset => 0,
        ExecutionEnvironment::Gen1 => 1,
        ExecutionEnvironment::Gen2 => 2,
    }
}

fn timeout_read(timeout: prost_types::Duration) -> Result<u32, Status> {
    match (u32::try_from(timeout.seconds), timeout.nanos) {
        (Ok(seconds), 0) => Ok(seconds),
        _ => Err(Status::invalid_field("template.timeout", "it must be a whole number of seconds, 1 to 3600")),
    }
}

/// Zero is "unset" in a proto without presence.
fn set(value: u32) -> Option<u32> {
    (value != 0).then_some(value)
}

fn container_one(mut containers: Vec<pb::Container>, volumes: Vec<pb::Volume>) -> Result<Container, Status> {
    match (containers.pop(), containers.is_empty()) {
        (Some(container), true) => container_read(container, volumes),
        (None, _) => Err(Status::invalid_field("template.containers", "a container with an image is required")),
        (Some(_), false) => {
            Err(Status::invalid_field("template.containers", "more than one container is not supported by this server; leave the sidecars out"))
        }
    }
}

fn container_read(container: pb::Container, volumes: Vec<pb::Volume>) -> Result<Container, Status> {
    let at = |field: &str| format!("template.containers[0].{field}");
    refuse(!container.working_dir.is_empty(), &at("working_dir"))?;
    refuse(!container.depends_on.is_empty(), &at("depends_on"))?;
    refuse(container.source_code.is_some(), &at("source_code"))?;
    let mut out = Container {
        name: container.name,
        image: container.image,
        base_image: container.base_image_uri,
        command: container.command,
        args: container.args,
        startup_probe: container.startup_probe.map(|probe| probe_read("startup_probe", probe)).transpose()?,
        liveness_probe: container.liveness_probe.map(|probe| probe_read("liveness_probe", probe)).transpose()?,
        readiness_probe: container.readiness_probe.map(|probe| probe_read("readiness_probe", probe)).transpose()?,
        ..Default::default()
    };
    for (i, variable) in container.env.into_iter().enumerate() {
        match variable.values {
            Some(pb::env_var::Values::Value(value)) => out.env.push((variable.name, value)),
            None => out.env.push((variable.name, String::new())),
            Some(pb::env_var::Values::ValueSource(source)) => {
                let source = source.secret_key_ref.ok_or_else(|| unsupported(at(&format!("env[{i}].value_source"))))?;
                out.secret_env.push((variable.name, SecretRef { secret: source.secret, version: source.version }));
            }
        }
    }
    (out.secret_mounts, out.memory_mounts) = mounts_read(container.volume_mounts, volumes)?;
    if let Some(resources) = container.resources {
        for (name, value) in resources.limits {
            let field = at(&format!("resources.limits[{name}]"));
            match name.as_str() {
                "cpu" => out.cpu_millis = Some(cpu_parse(&field, &value)?),
                "memory" => out.memory_bytes = Some(memory_parse(&field, &value)?),
                _ => return Err(unsupported(field)),
            }
        }
        // True is what is meant without `resources`; only the other one needs a record.
        out.cpu_idle = (!resources.cpu_idle).then_some(false);
        out.startup_cpu_boost = resources.startup_cpu_boost;
    }
    if container.ports.len() > 1 {
        return Err(Status::invalid_field(at("ports"), "a service has one port"));
    }
    if let Some(written) = container.ports.into_iter().next() {
        let number = port(&at("ports[0].container_port"), written.container_port)?;
        out.port = (number != 0).then_some(number);
        out.h2c = match written.name.as_str() {
            "" | "http1" => false,
            "h2c" => true,
            other => return Err(Status::invalid_field(at("ports[0].name"), format!("{other:?} is neither http1 nor h2c"))),
        };
    }
    Ok(out)
}

pub(super) fn container_write(container: &Container) -> pb::Container {
    let mut limits = std::collections::HashMap::new();
    limits.extend(container.cpu_millis.map(|millis| ("cpu".to_owned(), cpu_print(millis))));
    limits.extend(container.memory_bytes.map(|bytes| ("memory".to_owned(), memory_print(bytes))));
    let cpu_idle = container.cpu_idle.unwrap_or(true);
    let resources = (!limits.is_empty() || !cpu_idle || container.startup_cpu_boost).then_some(pb::ResourceRequirements {
        limits,
        cpu_idle,
        startup_cpu_boost: container.startup_cpu_boost,
    });
    let name = if container.h2c { "h2c" } else { "http1" };
    let ports = (container.port.is_some() || container.h2c)
        .then(|| pb::ContainerPort { name: name.to_owned(), container_port: i32::from(container.port.unwrap_or(0)) });
    pb::Container {
        name: container.name.clone(),
        image: container.image.clone(),
        base_image_uri: container.base_image.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        env: env_write(container),
        volume_mounts: mounts_write(container),
        resources,
        ports: ports.into_iter().collect(),
        startup_probe: container.startup_probe.as_ref().map(probe_write),
        liveness_probe: container.liveness_probe.as_ref().map(probe_write),
        readiness_probe: container.readiness_probe.as_ref().map(probe_write),
        ..Default::default()
    }
}

/// Those with values, then those with secrets.
fn env_write(container: &Container) -> Vec<pb::EnvVar> {
    use pb::env_var::Values;
    let plain = container.env.iter().map(|(name, value)| pb::EnvVar { name: name.clone(), values: Some(Values::Value(value.clone())) });
    let secret = container.secret_env.iter().map(|(name, source)| {
        let secret_key_ref = pb::SecretKeySelector { secret: source.secret.clone(), version: source.version.clone() };
        pb::EnvVar { name: name.clone(), values: Some(Values::ValueSource(pb::EnvVarSource { secret_key_ref: Some(secret_key_ref) })) }
    });
    plain.chain(secret).collect()
}

/// Volumes and where they are mounted: each once, of secrets or in memory.
fn mounts_read(mounts: Vec<pb::VolumeMount>, volumes: Vec<pb::Volume>) -> Result<(Vec<SecretMount>, Vec<MemoryMount>), Status> {
    use pb::volume::VolumeType;
    const MOUNTS: &str = "template.containers[0].volume_mounts";
    if let Some(spare) = volumes.iter().find(|volume| !mounts.iter().any(|mount| mount.name == volume.name)) {
        return Err(Status::invalid_field("template.volumes", format!("the volume {:?} is not mounted", spare.name)));
    }
    let (mut secrets, mut in_memory) = (Vec::new(), Vec::new());
    for mount in mounts {
        refuse(!mount.sub_path.is_empty(), &format!("{MOUNTS}.sub_path"))?;
        let mut named = volumes.iter().filter(|volume| volume.name == mount.name);
        let (Some(volume), None) = (named.next(), named.next()) else {
            return Err(Status::invalid_field(MOUNTS, format!("there is not exactly one volume {:?}", mount.name)));
        };
        match &volume.volume_type {
            Some(VolumeType::Secret(secret)) => {
                let has_modes = secret.default_mode != 0 || secret.items.iter().any(|item| item.mode != 0);
                refuse(has_modes, "template.volumes.secret.default_mode")?;
                let items = secret.items.iter().map(|item| (item.version.clone(), item.path.clone())).collect();
                secrets.push(SecretMount { name: mount.name, path: mount.mount_path, secret: secret.secret.clone(), items });
            }
            Some(VolumeType::EmptyDir(folder)) => {
                if !matches!(folder.medium, 0 | 1) {
                    return Err(Status::invalid_field("template.volumes.empty_dir.medium", format!("{} is not supported; use MEMORY", folder.medium)));
                }
                let size = (!folder.size_limit.is_empty()).then(|| memory_parse("template.volumes.empty_dir.size_limit", &folder.size_limit));
                in_memory.push(MemoryMount { name: mount.name, path: mount.mount_path, size_bytes: size.transpose()? });
            }
            _ => return Err(Status::invalid_field("template.volumes", "only volumes of secrets and in memory are supported by this server")),
        }
    }
    Ok((secrets, in_memory))
}

/// Those of secrets, then those in memory.
pub(super) fn volumes_write(container: &Container) -> Vec<pb::Volume> {
    use pb::volume::VolumeType;
    let secret = |mount: &SecretMount| {
        let items = mount.items.iter().map(|(version, file)| pb::VersionToPath { version: version.clone(), path: file.clone(), mode: 0 }).collect();
        let secret = pb::SecretVolumeSource { secret: mount.secret.clone(), items, default_mode: 0 };
        pb::Volume { name: mount.name.clone(), volume_type: Some(VolumeType::Secret(secret)) }
    };
    let in_memory = |mount: &MemoryMount| {
        let folder = pb::EmptyDirVolumeSource {
            medium: pb::empty_dir_volume_source::Medium::Memory as i32,
            size_limit: mount.size_bytes.map(memory_print).unwrap_or_default(),
        };
        pb::Volume { name: mount.name.clone(), volume_type: Some(VolumeType::EmptyDir(folder)) }
    };
    container.secret_mounts.iter().map(secret).chain(container.memory_mounts.iter().map(in_memory)).collect()
}

fn mounts_write(container: &Container) -> Vec<pb::VolumeMount> {
    let secrets = container.secret_mounts.iter().map(|mount| (&mount.name, &mount.path));
    let all = secrets.chain(container.memory_mounts.iter().map(|mount| (&mount.name, &mount.path)));
    all.map(|(name, path)| pb::VolumeMount { name: name.clone(), mount_path: path.clone(), ..Default::default() }).collect()
}

/// `which` is the probe's field in its container.
fn probe_read(which: &str, probe: pb::Probe) -> Result<Probe, Status> {
    use pb::probe::ProbeType;
    let at = |field: &str| format!("template.containers[0].{which}.{field}");
    let check = match probe.probe_type {
        None => return Err(Status::invalid_field(at("probe_type"), "one of http_get, tcp_socket and grpc is required")),
        Some(ProbeType::TcpSocket(tcp)) => Check::Tcp { port: port(&at("tcp_socket.port"), tcp.port)? },
        Some(ProbeType::HttpGet(get)) => {
            refuse(!get.http_headers.is_empty(), &at("http_get.http_headers"))?;
            Check::Http { path: get.path, port: port(&at("http_get.port"), get.port)? }
        }
        Some(ProbeType::Grpc(grpc)) => Check::Grpc { port: port(&at("grpc.port"), grpc.port)?, service: grpc.service },
    };
    Ok(Probe {
        initial_delay_s: count(&at("initial_delay_seconds"), probe.initial_delay_seconds)?,
        timeout_s: count(&at("timeout_seconds"), probe.timeout_seconds)?,
        period_s: count(&at("period_seconds"), probe.period_seconds)?,
        failure_threshold: count(&at("failure_threshold"), probe.failure_threshold)?,
        // Run v2 has no field for it: what run v1 set is kept by `hidden_keep`.
        success_threshold: 0,
        check,
    })
}

fn probe_write(probe: &Probe) -> pb::Probe {
    use pb::probe::ProbeType;
    pb::Probe {
        initial_delay_seconds: int(probe.initial_delay_s),
        timeout_seconds: int(probe.timeout_s),
        period_seconds: int(probe.period_s),
        failure_threshold: int(probe.failure_threshold),
        probe_type: Some(match &probe.check {
            Check::Tcp { port } => ProbeType::TcpSocket(pb::TcpSocketAction { port: i32::from(*port) }),
            Check::Http { path, port } => ProbeType::HttpGet(pb::HttpGetAction { path: path.clone(), port: i32::from(*port), ..Default::default() }),
            Check::Grpc { port, service } => ProbeType::Grpc(pb::GrpcAction { port: i32::from(*port), service: service.clone() }),
        }),
    }
}

/// Puts back what of `old` run v2 does not show, the system's annotations above all: a client that reads a template through v2
/// and writes it back has not changed it.
pub(super) fn hidden_keep(new: &mut RevisionTemplate, old: &RevisionTemplate) {
    for (key, value) in old.annotations.iter().filter(|(key, _)| is_system(key)) {
        new.annotations.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if let (Some(new), Some(old)) = (&mut new.container.readiness_probe, &old.container.readiness_probe) {
        new.success_threshold = old.success_threshold;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    proptest! {
        #[test]
        fn templates_come_back(template in arbitrary::template()) {
            let mut back = read(write(&template)).unwrap();
            hidden_keep(&mut back, &template);
            prop_assert_eq!(back, template);
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let check = |change: fn(&mut pb::RevisionTemplate), field: &str| {
            let mut template = pb::RevisionTemplate { containers: vec![pb::Container { image: "i".to_owned(), ..Default::default() }], ..Default::default() };
            assert!(read(template.clone()).is_ok());
            change(&mut template);
            assert_eq!(read(template).unwrap_err().fields[0].field, field);
        };
        check(|t| t.vpc_access = Some(Default::default()), "template.vpc_access");
        check(|t| t.volumes.push(Default::default()), "template.volumes");
        check(|t| t.encryption_key = "k".to_owned(), "template.encryption_key");
        check(|t| t.service_mesh = Some(pb::ServiceMesh { mesh: "m".to_owned() }), "template.service_mesh");
        check(|t| t.node_selector = Some(pb::NodeSelector { accelerator: "nvidia-l4".to_owned() }), "template.node_selector");
        check(|t| t.execution_environment = 9, "template.execution_environment");
        check(|t| t.timeout = Some(prost_types::Duration { seconds: 1, nanos: 1 }), "template.timeout");
        check(|t| t.annotations.extend([("run.googleapis.com/x".to_owned(), String::new())]), "template.annotations[run.googleapis.com/x]");
        check(|t| t.containers.clear(), "template.containers");
        check(|t| t.containers.push(Default::default()), "template.containers");
        check(|t| t.containers[0].volume_mounts.push(Default::default()), "template.containers[0].volume_mounts");
        check(|t| t.containers[0].working_dir = "/x".to_owned(), "template.containers[0].working_dir");
        check(|t| t.containers[0].liveness_probe = Some(Default::default()), "template.containers[0].liveness_probe.probe_type");
        check(|t| t.containers[0].readiness_probe = Some(Default::default()), "template.containers[0].readiness_probe.probe_type");
        check(|t| t.containers[0].depends_on.push("x".to_owned()), "template.containers[0].depends_on");
        check(|t| t.containers[0].source_code = Some(Default::default()), "template.containers[0].source_code");
        check(|t| t.containers[0].startup_probe = Some(Default::default()), "template.containers[0].startup_probe.probe_type");
        check(
            |t| t.containers[0].env.push(pb::EnvVar { name: "S".to_owned(), values: Some(pb::env_var::Values::ValueSource(Default::default())) }),
            "template.containers[0].env[0].value_source",
        );
        check(
            |t| {
                t.containers[0].resources =
                    Some(pb::ResourceRequirements { limits: [("nvidia.com/gpu".to_owned(), "1".to_owned())].into(), ..Default::default() })
            },
            "template.containers[0].resources.limits[nvidia.com/gpu]",
        );
        check(|t| t.containers[0].ports.extend([Default::default(), Default::default()]), "template.containers[0].ports");
    }
}
