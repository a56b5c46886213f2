//! RevisionTemplate and RevisionSpec of run v1, both ways. Nothing is added here, defaults are `control`'s: gcloud writes back
//! what it reads, and a template that nobody changed must not make a revision.

use model::{
    RevisionName, Status,
    revision::{Check, Container, MemoryMount, Probe, RevisionTemplate, SecretMount, SecretRef},
};

use super::{
    annotation,
    types::{self as v1, refuse_rest},
};
use crate::{
    convert::{count, int, port},
    quantity::{cpu_parse, cpu_print, memory_parse, memory_print},
};

/// The runtime class that goes with a base image whose updates are wanted.
const BASE_IMAGE_UPDATE: &str = "run.googleapis.com/linux-base-image-update";

/// # Errors
/// `INVALID_ARGUMENT` naming the field at fault.
pub(super) fn read(template: v1::RevisionTemplate) -> Result<RevisionTemplate, Status> {
    refuse_rest("spec.template", &template.rest)?;
    refuse_rest("spec.template.metadata", &template.metadata.rest)?;
    let spec = template.spec;
    refuse_rest("spec.template.spec", &spec.rest)?;
    let mut out = RevisionTemplate {
        revision: if template.metadata.name.is_empty() { None } else { Some(RevisionName::parse(&template.metadata.name)?) },
        labels: template.metadata.labels,
        annotations: Default::default(),
        container: container_one(spec.containers, spec.volumes)?,
        min_instances: 0,
        max_instances: None,
        concurrency: spec.container_concurrency.map(|n| count("spec.template.spec.containerConcurrency", n)).transpose()?.filter(|n| *n > 0),
        timeout_s: spec.timeout_seconds.map(|n| count("spec.template.spec.timeoutSeconds", n)).transpose()?.filter(|n| *n > 0),
        service_account: spec.service_account_name,
        execution_environment: Default::default(),
        session_affinity: false,
        health_check_disabled: false,
    };
    annotation::template_read(template.metadata.annotations, &mut out)?;
    match spec.runtime_class_name.as_str() {
        "" => {}
        BASE_IMAGE_UPDATE if !out.container.base_image.is_empty() => {}
        BASE_IMAGE_UPDATE => {
            return Err(Status::invalid_field(
                "spec.template.spec.runtimeClassName",
                "it needs the annotation run.googleapis.com/base-images, which names the base image",
            ));
        }
        other => return Err(Status::invalid_field("spec.template.spec.runtimeClassName", format!("{other:?} is not supported; use {BASE_IMAGE_UPDATE}"))),
    }
    Ok(out)
}

pub(super) fn write(template: &RevisionTemplate) -> v1::RevisionTemplate {
    v1::RevisionTemplate {
        metadata: v1::ObjectMeta {
            name: template.revision.as_ref().map(RevisionName::to_string).unwrap_or_default(),
            labels: template.labels.clone(),
            annotations: annotation::template_write(template),
            ..Default::default()
        },
        spec: spec_write(template),
        rest: Default::default(),
    }
}

/// The part that a template shares with a revision.
pub(super) fn spec_write(template: &RevisionTemplate) -> v1::RevisionSpec {
    v1::RevisionSpec {
        container_concurrency: template.concurrency.map(int),
        timeout_seconds: template.timeout_s.map(int),
        service_account_name: template.service_account.clone(),
        runtime_class_name: if template.container.base_image.is_empty() { String::new() } else { BASE_IMAGE_UPDATE.to_owned() },
        containers: vec![container_write(&template.container)],
        volumes: volumes_write(&template.container),
        rest: Default::default(),
    }
}

fn container_one(mut containers: Vec<v1::Container>, volumes: Vec<v1::Volume>) -> Result<Container, Status> {
    const AT: &str = "spec.template.spec.containers";
    match (containers.pop(), containers.is_empty()) {
        (Some(container), true) => container_read(container, volumes),
        (None, _) => Err(Status::invalid_field(AT, "a container with an image is required")),
        (Some(_), false) => Err(Status::invalid_field(AT, "more than one container is not supported by this server; leave the sidecars out")),
    }
}

fn container_read(container: v1::Container, volumes: Vec<v1::Volume>) -> Result<Container, Status> {
    const AT: &str = "spec.template.spec.containers[0]";
    refuse_rest(AT, &container.rest)?;
    let mut out = Container {
        name: container.name,
        image: container.image,
        command: container.command,
        args: container.args,
        startup_probe: container.startup_probe.map(|probe| probe_read("startupProbe", probe)).transpose()?,
        liveness_probe: container.liveness_probe.map(|probe| probe_read("livenessProbe", probe)).transpose()?,
        readiness_probe: container.readiness_probe.map(|probe| probe_read("readinessProbe", probe)).transpose()?,
        ..Default::default()
    };
    for (i, variable) in container.env.into_iter().enumerate() {
        refuse_rest(&format!("{AT}.env[{i}]"), &variable.rest)?;
        match variable.value_from {
            None => out.env.push((variable.name, variable.value.unwrap_or_default())),
            Some(from) => {
                let at = format!("{AT}.env[{i}].valueFrom");
                refuse_rest(&at, &from.rest)?;
                refuse_rest(&format!("{at}.secretKeyRef"), &from.secret_key_ref.rest)?;
                if variable.value.is_some_and(|value| !value.is_empty()) {
                    return Err(Status::invalid_field(at, "a variable has a value or a secret, not both"));
                }
                out.secret_env.push((variable.name, SecretRef { secret: from.secret_key_ref.name, version: from.secret_key_ref.key }));
            }
        }
    }
    (out.secret_mounts, out.memory_mounts) = mounts_read(container.volume_mounts, volumes)?;
    if let Some(resources) = container.resources {
        refuse_rest(&format!("{AT}.resources"), &resources.rest)?;
        for (name, value) in resources.limits {
            let field = format!("{AT}.resources.limits[{name}]");
            match name.as_str() {
                "cpu" => out.cpu_millis = Some(cpu_parse(&field, &value.text())?),
                "memory" => out.memory_bytes = Some(memory_parse(&field, &value.text())?),
                _ => return Err(crate::convert::unsupported(field)),
            }
        }
    }
    if container.ports.len() > 1 {
        return Err(Status::invalid_field(format!("{AT}.ports"), "a service has one port"));
    }
    if let Some(written) = container.ports.into_iter().next() {
        refuse_rest(&format!("{AT}.ports[0]"), &written.rest)?;
        out.port = port_read(&format!("{AT}.ports[0].containerPort"), written.container_port)?;
        out.h2c = match written.name.as_str() {
            "" | "http1" => false,
            "h2c" => true,
            other => return Err(Status::invalid_field(format!("{AT}.ports[0].name"), format!("{other:?} is neither http1 nor h2c"))),
        };
    }
    Ok(out)
}

/// Volumes and where they are mounted: each once, of secrets or in memory.
fn mounts_read(mounts: Vec<v1::VolumeMount>, volumes: Vec<v1::Volume>) -> Result<(Vec<SecretMount>, Vec<MemoryMount>), Status> {
    const MOUNTS: &str = "spec.template.spec.containers[0].volumeMounts";
    const VOLUMES: &str = "spec.template.spec.volumes";
    if let Some(spare) = volumes.iter().find(|volume| !mounts.iter().any(|mount| mount.name == volume.name)) {
        return Err(Status::invalid_field(VOLUMES, format!("the volume {:?} is not mounted", spare.name)));
    }
    let (mut secrets, mut in_memory) = (Vec::new(), Vec::new());
    for (i, mount) in mounts.into_iter().enumerate() {
        refuse_rest(&format!("{MOUNTS}[{i}]"), &mount.rest)?;
        let mut named = volumes.iter().enumerate().filter(|(_, volume)| volume.name == mount.name);
        let (Some((at, volume)), None) = (named.next(), named.next()) else {
            return Err(Status::invalid_field(MOUNTS, format!("there is not exactly one volume {:?}", mount.name)));
        };
        let at = format!("{VOLUMES}[{at}]");
        refuse_rest(&at, &volume.rest)?;
        match (&volume.secret, &volume.empty_dir) {
            (Some(secret), None) => {
                refuse_rest(&format!("{at}.secret"), &secret.rest)?;
                let items = secret.items.iter().enumerate().map(|(i, item)| {
                    refuse_rest(&format!("{at}.secret.items[{i}]"), &item.rest)?;
                    Ok((item.key.clone(), item.path.clone()))
                });
                let items = items.collect::<Result<_, Status>>()?;
                secrets.push(SecretMount { name: mount.name, path: mount.mount_path, secret: secret.secret_name.clone(), items });
            }
            (None, Some(folder)) => {
                refuse_rest(&format!("{at}.emptyDir"), &folder.rest)?;
                if !matches!(folder.medium.as_str(), "" | "Memory") {
                    return Err(Status::invalid_field(format!("{at}.emptyDir.medium"), format!("{:?} is not supported; use Memory", folder.medium)));
                }
                let size = folder.size_limit.as_ref().map(|size| memory_parse(&format!("{at}.emptyDir.sizeLimit"), &size.text())).transpose()?;
                in_memory.push(MemoryMount { name: mount.name, path: mount.mount_path, size_bytes: size });
            }
            _ => return Err(Status::invalid_field(at, "only volumes of secrets and in memory are supported by this server")),
        }
    }
    Ok((secrets, in_memory))
}

/// Those of secrets, then those in memory.
fn volumes_write(container: &Container) -> Vec<v1::Volume> {
    let secret = |mount: &SecretMount| {
        let items = mount.items.iter().map(|(version, file)| v1::KeyToPath { key: version.clone(), path: file.clone(), rest: Default::default() });
        let secret = v1::SecretVolumeSource { secret_name: mount.secret.clone(), items: items.collect(), rest: Default::default() };
        v1::Volume { name: mount.name.clone(), secret: Some(secret), ..Default::default() }
    };
    let in_memory = |mount: &MemoryMount| {
        let size_limit = mount.size_bytes.map(|bytes| v1::Quantity::Text(memory_print(bytes)));
        let folder = v1::EmptyDirVolumeSource { medium: "Memory".to_owned(), size_limit, rest: Default::default() };
        v1::Volume { name: mount.name.clone(), empty_dir: Some(folder), ..Default::default() }
    };
    container.secret_mounts.iter().map(secret).chain(container.memory_mounts.iter().map(in_memory)).collect()
}

fn mounts_write(container: &Container) -> Vec<v1::VolumeMount> {
    let secrets = container.secret_mounts.iter().map(|mount| (&mount.name, &mount.path));
    let all = secrets.chain(container.memory_mounts.iter().map(|mount| (&mount.name, &mount.path)));
    all.map(|(name, path)| v1::VolumeMount { name: name.clone(), mount_path: path.clone(), rest: Default::default() }).collect()
}

/// 0 and nothing are the same: unset.
fn port_read(field: &str, value: Option<i32>) -> Result<Option<u16>, Status> {
    Ok(value.map(|value| port(field, value)).transpose()?.filter(|port| *port != 0))
}

fn container_write(container: &Container) -> v1::Container {
    let mut limits = std::collections::BTreeMap::new();
    limits.extend(container.cpu_millis.map(|millis| ("cpu".to_owned(), v1::Quantity::Text(cpu_print(millis)))));
    limits.extend(container.memory_bytes.map(|bytes| ("memory".to_owned(), v1::Quantity::Text(memory_print(bytes)))));
    let name = if container.h2c { "h2c" } else { "http1" };
    let ports = (container.port.is_some() || container.h2c).then(|| v1::ContainerPort {
        name: name.to_owned(),
        container_port: container.port.map(i32::from),
        rest: Default::default(),
    });
    v1::Container {
        name: container.name.clone(),
        image: container.image.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        env: env_write(container),
        volume_mounts: mounts_write(container),
        ports: ports.into_iter().collect(),
        resources: (!limits.is_empty()).then(|| v1::Resources { limits, rest: Default::default() }),
        startup_probe: container.startup_probe.as_ref().map(probe_write),
        liveness_probe: container.liveness_probe.as_ref().map(probe_write),
        readiness_probe: container.readiness_probe.as_ref().map(probe_write),
        rest: Default::default(),
    }
}

/// Those with values, then those with secrets.
fn env_write(container: &Container) -> Vec<v1::EnvVar> {
    let plain = container.env.iter().map(|(name, value)| v1::EnvVar { name: name.clone(), value: Some(value.clone()), ..Default::default() });
    let secret = container.secret_env.iter().map(|(name, source)| {
        let secret_key_ref = v1::SecretKeySelector { name: source.secret.clone(), key: source.version.clone(), rest: Default::default() };
        v1::EnvVar { name: name.clone(), value_from: Some(v1::EnvVarSource { secret_key_ref, rest: Default::default() }), ..Default::default() }
    });
    plain.chain(secret).collect()
}

/// `field` is the probe's in its container.
fn probe_read(field: &str, probe: v1::Probe) -> Result<Probe, Status> {
    let at = format!("spec.template.spec.containers[0].{field}");
    refuse_rest(&at, &probe.rest)?;
    let port = |kind: &str, value| Ok::<_, Status>(port_read(&format!("{at}.{kind}.port"), value)?.unwrap_or(0));
    let check = match (probe.tcp_socket, probe.http_get, probe.grpc) {
        (Some(tcp), None, None) => {
            refuse_rest(&format!("{at}.tcpSocket"), &tcp.rest)?;
            Check::Tcp { port: port("tcpSocket", tcp.port)? }
        }
        (None, Some(get), None) => {
            refuse_rest(&format!("{at}.httpGet"), &get.rest)?;
            Check::Http { path: get.path, port: port("httpGet", get.port)? }
        }
        (None, None, Some(grpc)) => {
            refuse_rest(&format!("{at}.grpc"), &grpc.rest)?;
            Check::Grpc { port: port("grpc", grpc.port)?, service: grpc.service }
        }
        _ => return Err(Status::invalid_field(at, "exactly one of tcpSocket, httpGet and grpc is required")),
    };
    let seconds = |field: &str, value: Option<i32>| count(&format!("{at}.{field}"), value.unwrap_or(0));
    Ok(Probe {
        initial_delay_s: seconds("initialDelaySeconds", probe.initial_delay_seconds)?,
        timeout_s: seconds("timeoutSeconds", probe.timeout_seconds)?,
        period_s: seconds("periodSeconds", probe.period_seconds)?,
        failure_threshold: seconds("failureThreshold", probe.failure_threshold)?,
        success_threshold: seconds("successThreshold", probe.success_threshold)?,
        check,
    })
}

fn probe_write(probe: &Probe) -> v1::Probe {
    let set = |value: u32| (value != 0).then(|| int(value));
    let port = |value: u16| (value != 0).then(|| i32::from(value));
    let mut out = v1::Probe {
        initial_delay_seconds: set(probe.initial_delay_s),
        timeout_seconds: set(probe.timeout_s),
        period_seconds: set(probe.period_s),
        failure_threshold: set(probe.failure_threshold),
        success_threshold: set(probe.success_threshold),
        ..Default::default()
    };
    match &probe.check {
        Check::Tcp { port: at } => out.tcp_socket = Some(v1::TcpSocket { port: port(*at), rest: Default::default() }),
        Check::Http { path, port: at } => out.http_get = Some(v1::HttpGet { path: path.clone(), port: port(*at), rest: Default::default() }),
        Check::Grpc { port: at, service } => out.grpc = Some(v1::Grpc { port: port(*at), service: service.clone(), rest: Default::default() }),
    }
    out
}
