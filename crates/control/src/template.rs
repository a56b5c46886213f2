//! The rules of a revision template: what each field may be, and what an unset one means.
//!
//! Pure, and about the template alone: whether its image and its service account are there is asked in `service`.
//! Limits are Google's, from its API protos and its documentation of memory and CPU limits; the texts follow Google's
//! where they are known. Fields are named as clients of the Knative shape write them.

use std::collections::{BTreeMap, HashSet};

use model::{
    ServiceName, Status,
    limits::{
        CHANGING_SECRETS_MAX, CONCURRENCY_MAX, ENV_BYTES_MAX, ENV_COUNT_MAX, ENV_RESERVED, MEMORY_MAX_BYTES, MEMORY_MIN_BYTES, PROBE_MAX_S, STARTUP_MAX_S,
        TIMEOUT_MAX_S, VOLUMES_MAX,
    },
    revision::{Check, Container, ExecutionEnvironment, Probe, RevisionTemplate, START, Start},
};

/// Instances of one revision, or of a service, at most.
pub(crate) const INSTANCES_MAX: u32 = 1000;
/// All environment variables together, in bytes: half of what Linux takes with `execve`.
const ENV_TOTAL_MAX_BYTES: usize = 1 << 20;
/// Command and arguments together, in bytes and in number.
const COMMAND_MAX_BYTES: usize = 64 << 10;
const COMMAND_COUNT_MAX: usize = 1000;
/// Labels of one resource.
const LABELS_MAX: usize = 64;
/// Annotations of one resource, in bytes: Kubernetes' limit.
const ANNOTATIONS_MAX_BYTES: usize = 256 << 10;

/// The least size of a volume in memory.
const VOLUME_MIN_BYTES: u64 = 1 << 20;

const CPU: &str = "spec.template.spec.containers[0].resources.limits.cpu";
const MEMORY: &str = "spec.template.spec.containers[0].resources.limits.memory";
const ENV: &str = "spec.template.spec.containers[0].env";
const MOUNTS: &str = "spec.template.spec.containers[0].volumeMounts";
const VOLUMES: &str = "spec.template.spec.volumes";

/// Checks all that can be told from the template alone.
/// # Errors
/// `INVALID_ARGUMENT` that names the first field at fault, its limit and its value.
pub(crate) fn template_check(template: &RevisionTemplate, service: &ServiceName) -> Result<(), Status> {
    if let Some(name) = &template.revision {
        let suffix = name.as_str().strip_prefix(service.as_str()).and_then(|rest| rest.strip_prefix('-'));
        if suffix.is_none_or(str::is_empty) {
            return Err(Status::invalid_field(
                "spec.template.metadata.name",
                format!(
                    "Revision name {name:?} must be prefixed by the name of the enclosing Service or Configuration with a trailing -",
                    name = name.as_str()
                ),
            ));
        }
    }
    labels_check("spec.template.metadata.labels", &template.labels)?;
    annotations_check("spec.template.metadata.annotations", &template.annotations)?;
    if let Some(word) = template.annotations.get(START)
        && Start::parse(word).is_none()
    {
        return Err(Status::invalid_field(
            format!("spec.template.metadata.annotations[{START}]"),
            format!(
                "Invalid value {word:?}: must be \"revision\" (instances are clones of one that has loaded), \"runtime\" (clones of one that has loaded the framework only) or \"off\" (each loads by itself)"
            ),
        ));
    }
    container_check(&template.container)?;
    resources_check(template)?;
    at_most("spec.template.spec.containerConcurrency", template.concurrency.unwrap_or(0), CONCURRENCY_MAX)?;
    at_most("spec.template.spec.timeoutSeconds", template.timeout_s.unwrap_or(0), TIMEOUT_MAX_S)?;
    instances_check(
        ("spec.template.metadata.annotations[autoscaling.knative.dev/minScale]", template.min_instances),
        ("spec.template.metadata.annotations[autoscaling.knative.dev/maxScale]", Some(template.max_instances())),
    )?;
    let Container { startup_probe, liveness_probe, readiness_probe, .. } = &template.container;
    for (which, probe) in [(Which::Startup, startup_probe), (Which::Liveness, liveness_probe), (Which::Readiness, readiness_probe)] {
        probe.as_ref().map_or(Ok(()), |probe| probe_check(which, probe))?;
    }
    volumes_check(template)?;
    if template.service_account.len() > 320 {
        return Err(Status::invalid_field("spec.template.spec.serviceAccountName", "must be an e-mail address of at most 320 bytes"));
    }
    Ok(())
}

fn at_most(field: &str, value: u32, max: u32) -> Result<(), Status> {
    if value <= max {
        return Ok(());
    }
    let min = max.min(1);
    Err(Status::invalid_field(field, format!("Invalid value {value}: must be between {min} and {max}")))
}

/// A minimum and a maximum number of instances, each with its field.
pub(crate) fn instances_check(min: (&str, u32), max: (&str, Option<u32>)) -> Result<(), Status> {
    at_most(max.0, max.1.unwrap_or(0), INSTANCES_MAX)?;
    let limit = max.1.unwrap_or(INSTANCES_MAX);
    if min.1 > limit {
        return Err(Status::invalid_field(min.0, format!("Invalid value {}: the minimum number of instances must not exceed the maximum, {limit}", min.1)));
    }
    Ok(())
}

fn container_check(container: &Container) -> Result<(), Status> {
    let name = &container.name;
    if name.len() > 63 || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(Status::invalid_field(
            "spec.template.spec.containers[0].name",
            format!("{name:?} must have at most 63 lower-case letters, digits and hyphens"),
        ));
    }
    let words = || container.command.iter().chain(&container.args);
    if words().count() > COMMAND_COUNT_MAX || words().map(String::len).sum::<usize>() > COMMAND_MAX_BYTES || words().any(|word| word.contains('\0')) {
        return Err(Status::invalid_field(
            "spec.template.spec.containers[0].command",
            format!("command and args must have at most {COMMAND_COUNT_MAX} words and {COMMAND_MAX_BYTES} bytes together, none with a NUL"),
        ));
    }
    if container.base_image.len() > crate::image::REFERENCE_MAX_BYTES {
        return Err(Status::invalid_field("spec.template.metadata.annotations[run.googleapis.com/base-images]", "is too long for the name of an image"));
    }
    if container.port == Some(0) {
        return Err(Status::invalid_field("spec.template.spec.containers[0].ports[0].containerPort", "Invalid value 0: must be between 1 and 65535"));
    }
    env_check(ENV, &container.env)?;
    secrets_check(container)
}

/// Names of variables that hold secrets, and the files that secrets become.
fn secrets_check(container: &Container) -> Result<(), Status> {
    let named = container.env.iter().cloned().chain(container.secret_env.iter().map(|(name, _)| (name.clone(), String::new())));
    env_check(ENV, &named.collect::<Vec<_>>())?;
    let changing = container.changing_secrets().len();
    if changing > CHANGING_SECRETS_MAX {
        let text = format!("at most {CHANGING_SECRETS_MAX} files can have a version that is latest or an alias; there are {changing}: name versions by number");
        return Err(Status::invalid_field(VOLUMES, text));
    }
    let mut paths = HashSet::new();
    for mount in &container.secret_mounts {
        let bad = |text: &str| text.split('/').any(|part| matches!(part, "" | "." | ".."));
        let path = mount.path.strip_prefix('/').map(|path| path.trim_end_matches('/'));
        let is_taken = ["proc", "dev", "sys", "tmp"].iter().any(|taken| path.and_then(|path| path.split('/').next()) == Some(taken));
        if path.is_none_or(bad) || is_taken || mount.path.len() > 1024 {
            return Err(Status::invalid_field(MOUNTS, format!("{:?} is no absolute path at which secrets can be mounted", mount.path)));
        }
        for (file, _) in mount.files() {
            if bad(file.trim_start_matches('/')) || file.len() > 1024 || !paths.insert(file.clone()) {
                return Err(Status::invalid_field(MOUNTS, format!("the file {file:?} is not a path of its own below the mount")));
            }
        }
    }
    Ok(())
}

/// Where volumes in memory are, and how large they may grow.
fn volumes_check(template: &RevisionTemplate) -> Result<(), Status> {
    let Container { secret_mounts, memory_mounts, .. } = &template.container;
    if secret_mounts.len() + memory_mounts.len() > VOLUMES_MAX {
        return Err(Status::invalid_field(
            VOLUMES,
            format!("at most {VOLUMES_MAX} volumes can be mounted; there are {}", secret_mounts.len() + memory_mounts.len()),
        ));
    }
    let taken: Vec<&str> = secret_mounts.iter().map(|mount| mount.path.as_str()).collect();
    for (index, mount) in memory_mounts.iter().enumerate() {
        let path = mount.path.strip_prefix('/').map(|path| path.trim_end_matches('/'));
        let first = path.and_then(|path| path.split('/').next());
        if path.is_none_or(|path| path.split('/').any(|part| matches!(part, "" | "." | ".."))) || mount.path.contains([':', '\0']) || mount.path.len() > 1024 {
            return Err(Status::invalid_field(MOUNTS, format!("{:?} is no absolute path at which a volume can be mounted", mount.path)));
        }
        if ["proc", "dev", "sys", "etc", "tmp"].iter().any(|system| first == Some(system)) {
            return Err(Status::invalid_field(
                MOUNTS,
                format!("no volume can be mounted at {:?}: every instance has its own (/tmp is in memory already)", mount.path),
            ));
        }
        let inside = |one: &str, other: &str| std::path::Path::new(one).starts_with(other);
        let others = taken.iter().copied().chain(memory_mounts[..index].iter().map(|mount| mount.path.as_str()));
        if let Some(other) = others.into_iter().find(|other| inside(other, &mount.path) || inside(&mount.path, other)) {
            return Err(Status::invalid_field(MOUNTS, format!("the mounts at {:?} and {other:?} lie in each other", mount.path)));
        }
        if mount.size_bytes.is_some_and(|bytes| bytes < VOLUME_MIN_BYTES) {
            return Err(Status::invalid_field(VOLUMES, format!("the size limit of {:?} must be at least {}", mount.name, memory_text(VOLUME_MIN_BYTES))));
        }
    }
    Ok(())
}

/// Checks environment variables; `field` is where they are written.
pub(crate) fn env_check(field: &str, env: &[(String, String)]) -> Result<(), Status> {
    if env.len() > ENV_COUNT_MAX {
        return Err(Status::invalid_field(field, format!("at most {ENV_COUNT_MAX} environment variables can be set; there are {}", env.len())));
    }
    let reserved: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).filter(|name| ENV_RESERVED.contains(name)).collect();
    if !reserved.is_empty() {
        return Err(Status::invalid_field(
            field,
            format!("The following reserved env names were provided: {}. These values are automatically set by the system.", reserved.join(", ")),
        ));
    }
    let mut seen = HashSet::new();
    let mut total = 0;
    for (index, (name, value)) in env.iter().enumerate() {
        let at = || format!("{field}[{index}]");
        if name.is_empty() {
            return Err(Status::invalid_field(format!("{}.name", at()), "should not be empty"));
        }
        if name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Status::invalid_field(at(), format!("the name {name:?} must not contain '=' and neither name nor value a NUL")));
        }
        let bytes = name.len() + value.len();
        if bytes > ENV_BYTES_MAX {
            return Err(Status::invalid_field(at(), format!("name and value of {name:?} must have at most {ENV_BYTES_MAX} bytes together; they have {bytes}")));
        }
        if !seen.insert(name) {
            return Err(Status::invalid_field(at(), format!("the variable {name:?} is set more than once")));
        }
        total += bytes;
    }
    if total > ENV_TOTAL_MAX_BYTES {
        return Err(Status::invalid_field(
            field,
            format!("all environment variables together must have at most {ENV_TOTAL_MAX_BYTES} bytes; they have {total}"),
        ));
    }
    Ok(())
}

/// CPU, memory and what they allow. Source: "Configure memory limits" and "Configure CPU limits" of Cloud Run's documentation.
fn resources_check(template: &RevisionTemplate) -> Result<(), Status> {
    let cpu = template.cpu_millis();
    let memory = template.memory_bytes();
    if !matches!(cpu, 80..=1000 | 2000 | 4000 | 6000 | 8000) {
        return Err(Status::invalid_field(
            CPU,
            format!("Invalid value specified for cpu: {}. Supported values are 1, 2, 4, 6, 8, and fractions from 0.08 to 1", cpu_text(cpu)),
        ));
    }
    let (min, max) = memory_range(template);
    if !(min..=max).contains(&memory) {
        return Err(Status::invalid_field(
            MEMORY,
            format!(
                "Invalid value specified for memory: {}. For {} CPU, memory must be between {} and {} inclusive. For more troubleshooting guidance, see https://cloud.google.com/run/docs/configuring/memory-limits",
                memory_text(memory),
                cpu_text(cpu),
                memory_text(min),
                memory_text(max)
            ),
        ));
    }
    if cpu < 1000 && template.concurrency() > 1 {
        return Err(Status::invalid_field(
            CPU,
            format!(
                "Invalid value specified for cpu. Total cpu < 1 is not supported with concurrency > 1; cpu is {} and concurrency {}",
                cpu_text(cpu),
                template.concurrency()
            ),
        ));
    }
    if cpu < 1000 && !template.cpu_idle() {
        return Err(Status::invalid_field(
            CPU,
            format!("Invalid value specified for cpu. Total cpu < 1 is not supported with cpu always allocated (unthrottled); cpu is {}", cpu_text(cpu)),
        ));
    }
    if cpu < 1000 && template.execution_environment == ExecutionEnvironment::Gen2 {
        return Err(Status::invalid_field(CPU, format!("Invalid value specified for cpu. Total cpu < 1 is not supported with gen2; cpu is {}", cpu_text(cpu))));
    }
    Ok(())
}

/// The least and the most memory, in bytes, that goes with the template's CPU, generation and billing.
fn memory_range(template: &RevisionTemplate) -> (u64, u64) {
    let (min, max) = match template.cpu_millis() {
        0..500 => (MEMORY_MIN_BYTES, 512 << 20),
        500..1000 => (MEMORY_MIN_BYTES, 1 << 30),
        1000 => (MEMORY_MIN_BYTES, 4 << 30),
        2000 => (MEMORY_MIN_BYTES, 8 << 30),
        4000 => (2 << 30, 16 << 30),
        6000 => (4 << 30, 24 << 30),
        _ => (4 << 30, MEMORY_MAX_BYTES),
    };
    let at_least_512 = template.execution_environment == ExecutionEnvironment::Gen2 || !template.cpu_idle();
    (if at_least_512 { min.max(512 << 20) } else { min }, max)
}

fn cpu_text(millis: u32) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{}", f64::from(millis) / 1000.0) }
}

fn memory_text(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{}Gi", b >> 30),
        b if b.is_multiple_of(1 << 20) => format!("{}Mi", b >> 20),
        b => b.to_string(),
    }
}

/// The probes of a container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Startup,
    Liveness,
    Readiness,
}

impl Which {
    fn field(self) -> &'static str {
        match self {
            Self::Startup => "startupProbe",
            Self::Liveness => "livenessProbe",
            Self::Readiness => "readinessProbe",
        }
    }
}

/// Zero means unset, as on the wire.
fn probe_check(which: Which, probe: &Probe) -> Result<(), Status> {
    let field = |name: &str| format!("spec.template.spec.containers[0].{}.{name}", which.field());
    let max_s = if which == Which::Startup { STARTUP_MAX_S } else { PROBE_MAX_S };
    at_most(&field("initialDelaySeconds"), probe.initial_delay_s, if which == Which::Readiness { 0 } else { max_s })?;
    at_most(&field("periodSeconds"), probe.period_s, max_s)?;
    at_most(&field("timeoutSeconds"), probe.timeout_s, max_s)?;
    at_most(&field("successThreshold"), probe.success_threshold, if which == Which::Readiness { max_s } else { 1 })?;
    if which != Which::Startup && matches!(probe.check, Check::Tcp { .. }) {
        return Err(Status::invalid_field(field("tcpSocket"), "only startup probes can be TCP probes; use httpGet or grpc"));
    }
    let resolved = probe_resolve(probe.clone(), 0);
    if resolved.timeout_s > resolved.period_s {
        return Err(Status::invalid_field(
            field("timeoutSeconds"),
            format!("Invalid value {}: must not exceed periodSeconds, {}", resolved.timeout_s, resolved.period_s),
        ));
    }
    let longest_s = u64::from(resolved.failure_threshold) * u64::from(resolved.period_s);
    if which == Which::Startup && longest_s > u64::from(STARTUP_MAX_S) {
        return Err(Status::invalid_field(
            field("failureThreshold"),
            format!("failureThreshold x periodSeconds must be at most {STARTUP_MAX_S} seconds; it is {longest_s}"),
        ));
    }
    let text_is_bad = |text: &str| text.len() > 2048 || text.contains(char::is_control);
    match &probe.check {
        Check::Http { path, .. } if text_is_bad(path) || !(path.is_empty() || path.starts_with('/')) => {
            Err(Status::invalid_field(field("httpGet.path"), "must begin with / and have at most 2048 bytes without control characters"))
        }
        Check::Grpc { service, .. } if text_is_bad(service) => {
            Err(Status::invalid_field(field("grpc.service"), "must have at most 2048 bytes without control characters"))
        }
        _ => Ok(()),
    }
}

/// Checks labels: at most 64, keys with an optional DNS prefix, key and value of at most 63 characters.
pub(crate) fn labels_check(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
    if labels.len() > LABELS_MAX {
        return Err(Status::invalid_field(field, format!("at most {LABELS_MAX} labels can be set; there are {}", labels.len())));
    }
    for (key, value) in labels {
        key_check(field, key)?;
        // Letters of any script: Google's rule for labels.
        let good = value.chars().count() <= 63 && value.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !good {
            return Err(Status::invalid_field(
                format!("{field}[{key}]"),
                format!("{value:?} must have at most 63 characters, only letters, digits, '-', '_' and '.'"),
            ));
        }
    }
    Ok(())
}

/// Checks annotations: keys as those of labels, any text as value, 256 KiB together.
pub(crate) fn annotations_check(field: &str, annotations: &BTreeMap<String, String>) -> Result<(), Status> {
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ANNOTATIONS_MAX_BYTES {
        return Err(Status::invalid_field(field, format!("must have at most {ANNOTATIONS_MAX_BYTES} bytes together; they have {bytes}")));
    }
    annotations.keys().try_for_each(|key| key_check(field, key))
}

/// Kubernetes' rule for keys of labels and annotations.
fn key_check(field: &str, key: &str) -> Result<(), Status> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_good = prefix.is_none_or(|prefix| {
        (1..=253).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
    });
    let name_good = (1..=63).contains(&name.chars().count()) && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if prefix_good && name_good {
        return Ok(());
    }
    Err(Status::invalid_field(
        field,
        format!("the key {key:?} must have 1 to 63 characters, only letters, digits, '-', '_' and '.', after an optional prefix such as example.com/"),
    ))
}

/// The template as a revision has it: every default filled in, no name.
pub(crate) fn template_resolve(template: &RevisionTemplate, service_account_default: &str) -> RevisionTemplate {
    let mut resolved = template_fill(template, service_account_default);
    resolved.revision = None;
    resolved.max_instances = Some(template.max_instances());
    resolved.container.cpu_idle = Some(template.cpu_idle());
    resolved
}

/// The template as a service keeps and shows it: with the defaults that Google shows. What shows the same writes the same.
pub(crate) fn template_fill(template: &RevisionTemplate, service_account_default: &str) -> RevisionTemplate {
    let mut resolved = template.clone();
    resolved.concurrency = Some(template.concurrency());
    resolved.timeout_s = Some(u32::try_from(template.timeout().as_secs()).expect("made from a u32"));
    if resolved.service_account.is_empty() {
        resolved.service_account = service_account_default.to_owned();
    }
    resolved.container.cpu_millis = Some(template.cpu_millis());
    resolved.container.memory_bytes = Some(template.memory_bytes());
    resolved.container.port = Some(template.port());
    // Google's default: one TCP probe that may take the whole time.
    let probe = template.container.startup_probe.clone().map(|probe| probe_resolve(probe, template.port())).unwrap_or(Probe {
        initial_delay_s: 0,
        timeout_s: STARTUP_MAX_S,
        period_s: STARTUP_MAX_S,
        failure_threshold: 1,
        success_threshold: 0,
        check: Check::Tcp { port: template.port() },
    });
    resolved.container.startup_probe = Some(probe);
    let fill = |probe: &mut Option<Probe>| *probe = probe.take().map(|probe| probe_resolve(probe, template.port()));
    fill(&mut resolved.container.liveness_probe);
    fill(&mut resolved.container.readiness_probe);
    if let Some(probe) = &mut resolved.container.readiness_probe
        && probe.success_threshold == 0
    {
        probe.success_threshold = 2;
    }
    resolved
}

/// Defaults of a probe that the owner gave: 1 s, every 10 s, 3 failures, the container's port.
fn probe_resolve(mut probe: Probe, container_port: u16) -> Probe {
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    probe.timeout_s = or(probe.timeout_s, 1);
    probe.period_s = or(probe.period_s, 10);
    probe.failure_threshold = or(probe.failure_threshold, 3);
    match &mut probe.check {
        Check::Tcp { port } | Check::Http { port, .. } | Check::Grpc { port, .. } if *port == 0 => *port = container_port,
        _ => {}
    }
    if let Check::Http { path, .. } = &mut probe.check
        && path.is_empty()
    {
        "/".clone_into(path);
    }
    probe
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        RevisionName,
        revision::{MemoryMount, SecretMount},
    };

    type Edit = fn(&mut RevisionTemplate);

    fn template() -> RevisionTemplate {
        serde_json::from_value(serde_json::json!({ "container": { "image": "r-docker.pkg.dev/p/repo/f" } })).unwrap()
    }

    fn tcp(period_s: u32) -> Probe {
        Probe { initial_delay_s: 0, timeout_s: 1, period_s, failure_threshold: 3, success_threshold: 0, check: Check::Tcp { port: 0 } }
    }

    fn volumes(mounts: &[(&str, Option<u64>)]) -> Vec<MemoryMount> {
        mounts.iter().map(|(path, size_bytes)| MemoryMount { name: "v".into(), path: (*path).to_owned(), size_bytes: *size_bytes }).collect()
    }

    fn secret_files(version: &str, count: usize) -> Vec<SecretMount> {
        let items = (0..count).map(|n| (version.to_owned(), format!("f{n}"))).collect();
        vec![SecretMount { name: "v".into(), path: "/secrets".into(), secret: "s".into(), items }]
    }

    fn checked(edit: Edit) -> Result<(), Status> {
        let mut template = template();
        edit(&mut template);
        template_check(&template, &ServiceName::parse("f").unwrap())
    }

    #[test]
    fn values_at_the_limit_pass() {
        let cases: &[(&str, Edit)] = &[
            ("nothing set", |_| {}),
            ("name", |t| t.revision = Some(RevisionName::parse("f-one").unwrap())),
            ("1000 variables", |t| t.container.env = (0..1000).map(|n| (format!("V{n}"), String::new())).collect()),
            ("a variable of 32 KiB", |t| t.container.env = vec![("V".into(), "x".repeat((32 << 10) - 1))]),
            ("the least CPU", |t| t.container.cpu_millis = Some(80)),
            ("8 CPU and 32 GiB", |t| {
                t.container.cpu_millis = Some(8000);
                t.container.memory_bytes = Some(32 << 30);
            }),
            ("4 CPU and 2 GiB", |t| {
                t.container.cpu_millis = Some(4000);
                t.container.memory_bytes = Some(2 << 30);
            }),
            ("128 MiB", |t| t.container.memory_bytes = Some(128 << 20)),
            ("concurrency 1000", |t| t.concurrency = Some(1000)),
            ("half a CPU, one request", |t| {
                t.container.cpu_millis = Some(500);
                t.concurrency = Some(1);
            }),
            ("an hour", |t| t.timeout_s = Some(3600)),
            ("a start of its own", |t| t.annotations = [("tanebi.dev/start".to_owned(), "off".to_owned())].into()),
            ("min = max", |t| {
                t.min_instances = 7;
                t.max_instances = Some(7);
            }),
            ("session affinity", |t| t.session_affinity = true),
            ("volumes in memory", |t| t.container.memory_mounts = volumes(&[("/cache", None), ("/cache-2", Some(1 << 30))])),
            ("200 files that change", |t| t.container.secret_mounts = secret_files("latest", 200)),
            ("more that do not", |t| t.container.secret_mounts = secret_files("7", 300)),
            ("a liveness probe of an hour", |t| {
                t.container.liveness_probe = Some(Probe { check: Check::Http { path: "/live".into(), port: 0 }, failure_threshold: 100, ..tcp(3600) })
            }),
            ("label of 63", |t| drop(t.labels.insert("client.knative.dev/nonce".into(), "x".repeat(63)))),
            ("probe of 240 s", |t| {
                t.container.startup_probe = Some(Probe {
                    initial_delay_s: 240,
                    timeout_s: 24,
                    period_s: 24,
                    failure_threshold: 10,
                    success_threshold: 0,
                    check: Check::Http { path: "/up".into(), port: 0 },
                })
            }),
        ];
        for (name, edit) in cases {
            assert_eq!(checked(*edit), Ok(()), "{name}");
        }
    }

    #[test]
    fn values_past_the_limit_are_refused_by_field() {
        let cases: &[(Edit, &str, &str)] = &[
            (|t| t.revision = Some(RevisionName::parse("g-one").unwrap()), "spec.template.metadata.name", "prefixed by the name"),
            (|t| t.revision = Some(RevisionName::parse("f").unwrap()), "spec.template.metadata.name", "prefixed by the name"),
            (|t| t.container.env = (0..1001).map(|n| (format!("V{n}"), String::new())).collect(), ENV, "1001"),
            (|t| t.container.env = vec![("V".into(), "x".repeat(32 << 10))], "spec.template.spec.containers[0].env[0]", "32769"),
            (|t| t.container.env = (0..40).map(|n| (format!("V{n}"), "x".repeat(30 << 10))).collect(), ENV, "1048576 bytes"),
            (|t| t.container.env = vec![("PORT".into(), "1".into())], ENV, "reserved env names were provided: PORT"),
            (|t| t.container.env = vec![("K_SERVICE".into(), "1".into())], ENV, "K_SERVICE"),
            (|t| t.container.env = vec![("A".into(), "1".into()), ("A".into(), "2".into())], "spec.template.spec.containers[0].env[1]", "more than once"),
            (|t| t.container.env = vec![(String::new(), "1".into())], "spec.template.spec.containers[0].env[0].name", "empty"),
            (|t| t.container.env = vec![("A=B".into(), "1".into())], "spec.template.spec.containers[0].env[0]", "'='"),
            (|t| t.annotations = [(START.to_owned(), "warm".to_owned())].into(), "spec.template.metadata.annotations[tanebi.dev/start]", "\"warm\""),
            (|t| t.container.cpu_millis = Some(79), CPU, "0.079"),
            (|t| t.container.cpu_millis = Some(1500), CPU, "1.5"),
            (|t| t.container.cpu_millis = Some(3000), CPU, "3"),
            (|t| t.container.cpu_millis = Some(16000), CPU, "16"),
            (|t| t.container.cpu_millis = Some(4000), MEMORY, "For 4 CPU, memory must be between 2Gi and 16Gi"),
            (
                |t| {
                    t.container.cpu_millis = Some(6000);
                    t.container.memory_bytes = Some(2 << 30);
                },
                MEMORY,
                "between 4Gi and 24Gi",
            ),
            (|t| t.container.memory_bytes = Some((128 << 20) - 1), MEMORY, "134217727"),
            (|t| t.container.memory_bytes = Some(33 << 30), MEMORY, "33Gi"),
            (
                |t| {
                    t.execution_environment = ExecutionEnvironment::Gen2;
                    t.container.memory_bytes = Some(256 << 20);
                },
                MEMORY,
                "between 512Mi",
            ),
            (
                |t| {
                    t.container.cpu_millis = Some(500);
                    t.concurrency = Some(2);
                },
                CPU,
                "concurrency > 1",
            ),
            (
                |t| {
                    t.container.cpu_millis = Some(500);
                    t.container.cpu_idle = Some(false);
                },
                CPU,
                "always allocated (unthrottled)",
            ),
            (
                |t| {
                    t.container.cpu_millis = Some(500);
                    t.execution_environment = ExecutionEnvironment::Gen2;
                },
                CPU,
                "with gen2",
            ),
            (|t| t.concurrency = Some(1001), "spec.template.spec.containerConcurrency", "1001"),
            (|t| t.timeout_s = Some(3601), "spec.template.spec.timeoutSeconds", "3601"),
            (|t| t.container.port = Some(0), "spec.template.spec.containers[0].ports[0].containerPort", "65535"),
            (
                |t| {
                    t.min_instances = 8;
                    t.max_instances = Some(7);
                },
                "spec.template.metadata.annotations[autoscaling.knative.dev/minScale]",
                "7",
            ),
            (|t| t.max_instances = Some(1001), "spec.template.metadata.annotations[autoscaling.knative.dev/maxScale]", "1001"),
            (|t| drop(t.labels.insert("a".into(), "x".repeat(64))), "spec.template.metadata.labels[a]", "63"),
            (|t| drop(t.labels.insert("a b".into(), String::new())), "spec.template.metadata.labels", "\"a b\""),
            (|t| t.labels = (0..65).map(|n| (format!("l{n}"), String::new())).collect(), "spec.template.metadata.labels", "65"),
            (|t| drop(t.annotations.insert("a".into(), "x".repeat(256 << 10))), "spec.template.metadata.annotations", "262144"),
            (|t| t.container.memory_mounts = volumes(&[("/tmp/x", None)]), MOUNTS, "/tmp is in memory already"),
            (|t| t.container.memory_mounts = volumes(&[("cache", None)]), MOUNTS, "no absolute path"),
            (|t| t.container.memory_mounts = volumes(&[("/cache", None), ("/cache/x", None)]), MOUNTS, "in each other"),
            (|t| t.container.memory_mounts = volumes(&[("/cache", Some(1))]), VOLUMES, "at least 1Mi"),
            (
                |t| t.container.secret_mounts = secret_files("latest", 201),
                VOLUMES,
                "at most 200 files can have a version that is latest or an alias; there are 201",
            ),
            (|t| t.container.liveness_probe = Some(tcp(10)), "spec.template.spec.containers[0].livenessProbe.tcpSocket", "only startup probes"),
            (|t| t.container.liveness_probe = Some(tcp(3601)), "spec.template.spec.containers[0].livenessProbe.periodSeconds", "3600"),
            (
                |t| t.container.readiness_probe = Some(Probe { initial_delay_s: 1, ..tcp(10) }),
                "spec.template.spec.containers[0].readinessProbe.initialDelaySeconds",
                "between 0 and 0",
            ),
            (|t| t.container.name = "A".into(), "spec.template.spec.containers[0].name", "63"),
            (|t| t.container.args = vec!["x".repeat(65 << 10)], "spec.template.spec.containers[0].command", "65536"),
            (
                |t| {
                    t.container.startup_probe = Some(Probe {
                        initial_delay_s: 0,
                        timeout_s: 11,
                        period_s: 10,
                        failure_threshold: 1,
                        success_threshold: 0,
                        check: Check::Tcp { port: 1 },
                    })
                },
                "spec.template.spec.containers[0].startupProbe.timeoutSeconds",
                "periodSeconds, 10",
            ),
            (
                |t| {
                    t.container.startup_probe = Some(Probe {
                        initial_delay_s: 0,
                        timeout_s: 1,
                        period_s: 10,
                        failure_threshold: 25,
                        success_threshold: 0,
                        check: Check::Tcp { port: 1 },
                    })
                },
                "spec.template.spec.containers[0].startupProbe.failureThreshold",
                "it is 250",
            ),
        ];
        for (edit, field, text) in cases {
            let status = checked(*edit).expect_err(field);
            assert_eq!(status.code, model::Code::InvalidArgument);
            assert_eq!(status.fields[0].field, *field, "{status}");
            assert!(status.outer.contains(text), "{text:?} is not in {status}");
        }
    }

    #[test]
    fn defaults_are_resolved_once() {
        let resolved = template_resolve(&template(), "sa@p");
        assert_eq!((resolved.concurrency, resolved.timeout_s, resolved.max_instances), (Some(80), Some(300), Some(100)));
        assert_eq!((resolved.container.port, resolved.container.cpu_millis, resolved.container.memory_bytes), (Some(8080), Some(1000), Some(512 << 20)));
        assert_eq!(resolved.service_account, "sa@p");
        assert_eq!(template_resolve(&resolved, "other@p"), resolved);
    }
}
