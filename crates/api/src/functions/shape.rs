//! A function, and an operation on one, from Google's shape and into it.

use std::collections::BTreeMap;

use model::{
    ProjectNumber, ServiceKey, Status, Timestamp, address,
    build::{BuildState, StorageSource},
    function::{self, Deployer, Function, FunctionBuild},
    operation::{Operation, Verb},
    revision::{Container, ExecutionEnvironment, RevisionTemplate, SecretMount, SecretRef},
    service::{Ingress, Service, ServiceScaling},
};
use prost::{Message, Name};
use proto::google::{cloud::functions::v2 as pb, longrunning as lro};

use super::trigger;
use crate::{
    Deps,
    convert::{count, int, refuse, time, unsupported},
    error, quantity,
};

/// What a function has that says nothing. Source: the proto, and what Google's API answers.
const MEMORY_DEFAULT: &str = "256M";
const TIMEOUT_DEFAULT_S: i32 = 60;
const INSTANCES_DEFAULT: i32 = 100;
/// Memory in MiB, at most, and the processors that come with it. Source: "Memory limits" of Cloud Run functions' documentation.
const CPUS: [(u64, &str); 9] =
    [(128, "0.083"), (256, "0.1666"), (512, "0.3333"), (1024, "0.5833"), (2048, "1"), (8192, "2"), (16_384, "4"), (32_768, "8"), (u64::MAX, "8")];

/// What a client writes, less what is only shown. Names, times and state are the control plane's; `number` is the project's.
pub(crate) fn function_from(key: &ServiceKey, number: ProjectNumber, written: pb::Function, now: Timestamp) -> Result<Function, Status> {
    let pb::Function { description, build_config, service_config, event_trigger, labels, environment, kms_key_name, .. } = written;
    let trigger = event_trigger.map(|written| trigger::from(key, number, written)).transpose()?;
    refuse(!kms_key_name.is_empty(), "function.kms_key_name")?;
    if environment == pb::Environment::Gen1 as i32 {
        return Err(Status::invalid_field("function.environment", "functions of the first generation are not served; deploy with --gen2"));
    }
    let build = build_from(key, build_config.unwrap_or_default())?;
    let config = service_config.unwrap_or_default();
    let memory = if config.available_memory.is_empty() { MEMORY_DEFAULT.to_owned() } else { config.available_memory.clone() };
    let memory_bytes = quantity::memory_parse("function.service_config.available_memory", &memory)?;
    let cpu = if config.available_cpu.is_empty() { cpu_of(memory_bytes).to_owned() } else { config.available_cpu.clone() };
    // Google writes four places; the fourth is less than what can be told apart.
    let rounded = cpu.split_once('.').map_or(cpu.clone(), |(whole, part)| format!("{whole}.{}", part.get(..3).unwrap_or(part)));
    let cpu_millis = quantity::cpu_parse("function.service_config.available_cpu", &rounded)?;
    Ok(Function {
        key: key.clone(),
        uid: String::new(),
        generation: 0,
        created: now,
        updated: now,
        deleted: None,
        deployer: Deployer { email: String::new(), subject: String::new(), is_service_account: false },
        description,
        labels: labels.into_iter().collect(),
        build,
        service: service_from(key, number, config, memory_bytes, cpu_millis, now)?,
        trigger,
        triggers_past: Vec::new(),
        memory,
        cpu,
        status: Default::default(),
    })
}

fn cpu_of(memory_bytes: u64) -> &'static str {
    let mebibytes = memory_bytes.div_ceil(1 << 20);
    CPUS.iter().find(|(most, _)| mebibytes <= *most).map_or("8", |(_, cpu)| cpu)
}

fn build_from(key: &ServiceKey, build: pb::BuildConfig) -> Result<FunctionBuild, Status> {
    use pb::source::Source;
    const FIELD: &str = "function.build_config";
    refuse(!build.worker_pool.is_empty(), "function.build_config.worker_pool")?;
    // What is shown may be written back.
    if !build.docker_repository.is_empty() && build.docker_repository != repository(key) {
        return Err(unsupported(format!("{FIELD}.docker_repository")));
    }
    refuse(build.runtime_update_policy.is_some(), "function.build_config.runtime_update_policy")?;
    if build.runtime.is_empty() {
        return Err(Status::invalid_field(format!("{FIELD}.runtime"), "it is required, such as python312"));
    }
    if build.entry_point.is_empty() {
        return Err(Status::invalid_field(format!("{FIELD}.entry_point"), "it is required: the name of the function in the source"));
    }
    let source = match build.source.and_then(|source| source.source) {
        Some(Source::StorageSource(source)) => {
            refuse(!source.source_upload_url.is_empty(), "function.build_config.source.storage_source.source_upload_url")?;
            StorageSource { bucket: source.bucket, object: source.object, generation: source.generation }
        }
        Some(Source::RepoSource(_)) => return Err(unsupported(format!("{FIELD}.source.repo_source"))),
        Some(Source::GitUri(_)) => return Err(unsupported(format!("{FIELD}.source.git_uri"))),
        None => return Err(Status::invalid_field(format!("{FIELD}.source"), "it is required: a storage_source")),
    };
    // `projects/P/serviceAccounts/EMAIL`, or the e-mail alone.
    let service_account = build.service_account.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(FunctionBuild {
        runtime: build.runtime,
        entry_point: build.entry_point,
        source,
        env: build.environment_variables.into_iter().collect(),
        service_account,
        is_for_events: false,
        id: String::new(),
        image_uri: String::new(),
    })
}

fn service_from(
    key: &ServiceKey,
    number: ProjectNumber,
    config: pb::ServiceConfig,
    memory_bytes: u64,
    cpu_millis: u32,
    now: Timestamp,
) -> Result<Service, Status> {
    refuse(!config.vpc_connector.is_empty() || config.vpc_connector_egress_settings != 0, "function.service_config.vpc_connector")?;
    let (secret_env, secret_mounts) = secrets_from(key, number, &config)?;
    refuse(!config.binary_authorization_policy.is_empty(), "function.service_config.binary_authorization_policy")?;
    refuse(config.security_level == pb::service_config::SecurityLevel::SecureAlways as i32, "function.service_config.security_level")?;
    let or = |value: i32, default: i32| if value == 0 { default } else { value };
    let ingress = match pb::service_config::IngressSettings::try_from(config.ingress_settings) {
        Ok(pb::service_config::IngressSettings::Unspecified | pb::service_config::IngressSettings::AllowAll) => Ingress::All,
        Ok(pb::service_config::IngressSettings::AllowInternalOnly) => Ingress::Internal,
        Ok(pb::service_config::IngressSettings::AllowInternalAndGclb) => Ingress::InternalAndLoadBalancer,
        Err(_) => return Err(Status::invalid_field("function.service_config.ingress_settings", format!("{} is none", config.ingress_settings))),
    };
    let env: BTreeMap<String, String> = config.environment_variables.into_iter().collect();
    let template = RevisionTemplate {
        revision: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        container: Container {
            env: env.into_iter().collect(),
            cpu_millis: Some(cpu_millis),
            memory_bytes: Some(memory_bytes),
            secret_env,
            secret_mounts,
            ..Container::default()
        },
        min_instances: count("function.service_config.min_instance_count", config.min_instance_count)?,
        max_instances: Some(count("function.service_config.max_instance_count", or(config.max_instance_count, INSTANCES_DEFAULT))?),
        concurrency: Some(count("function.service_config.max_instance_request_concurrency", or(config.max_instance_request_concurrency, 1))?),
        timeout_s: Some(count("function.service_config.timeout_seconds", or(config.timeout_seconds, TIMEOUT_DEFAULT_S))?),
        service_account: config.service_account_email,
        // The second one asks for 512 MiB, and functions have less.
        execution_environment: ExecutionEnvironment::Unset,
        session_affinity: false,
        health_check_disabled: false,
    };
    Ok(Service {
        key: key.clone(),
        uid: String::new(),
        generation: 0,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        created: now,
        updated: now,
        deleted: None,
        creator: String::new(),
        last_modifier: String::new(),
        client: "cloudfunctions".to_owned(),
        client_version: String::new(),
        description: String::new(),
        ingress,
        invoker_iam_disabled: false,
        default_uri_disabled: false,
        custom_audiences: Vec::new(),
        scaling: ServiceScaling::default(),
        build_config: None,
        template,
        traffic: Vec::new(),
        status: Default::default(),
    })
}

/// What of secrets becomes a variable, and what a file.
type Secrets = (Vec<(String, SecretRef)>, Vec<SecretMount>);

fn secrets_from(key: &ServiceKey, number: ProjectNumber, config: &pb::ServiceConfig) -> Result<Secrets, Status> {
    let own = |field: &str, project: &str| {
        let is_own = project.is_empty() || project == key.project.as_str() || project == number.to_string();
        if is_own {
            Ok(())
        } else {
            Err(Status::invalid_field(format!("function.service_config.{field}.project_id"), "only secrets of the function's own project can be given to it"))
        }
    };
    let variable = |variable: &pb::SecretEnvVar| {
        own("secret_environment_variables", &variable.project_id)?;
        Ok((variable.key.clone(), SecretRef { secret: variable.secret.clone(), version: variable.version.clone() }))
    };
    let mount = |(at, volume): (usize, &pb::SecretVolume)| {
        own("secret_volumes", &volume.project_id)?;
        // The file's path may begin with a slash, which is that of the mount.
        let items = volume.versions.iter().map(|version| (version.version.clone(), version.path.trim_start_matches('/').to_owned()));
        Ok(SecretMount { name: format!("secret-{at}"), path: volume.mount_path.clone(), secret: volume.secret.clone(), items: items.collect() })
    };
    let variables = config.secret_environment_variables.iter().map(variable).collect::<Result<_, Status>>()?;
    Ok((variables, config.secret_volumes.iter().enumerate().map(mount).collect::<Result<_, Status>>()?))
}

fn secrets_to(function: &Function) -> (Vec<pb::SecretEnvVar>, Vec<pb::SecretVolume>) {
    let (project_id, container) = (function.key.project.to_string(), &function.service.template.container);
    let variable = |(key, source): &(String, SecretRef)| pb::SecretEnvVar {
        key: key.clone(),
        project_id: project_id.clone(),
        secret: source.secret.clone(),
        version: source.version.clone(),
    };
    let volume = |mount: &SecretMount| pb::SecretVolume {
        mount_path: mount.path.clone(),
        project_id: project_id.clone(),
        secret: mount.secret.clone(),
        versions: mount.items.iter().map(|(version, path)| pb::secret_volume::SecretVersion { version: version.clone(), path: path.clone() }).collect(),
    };
    (container.secret_env.iter().map(variable).collect(), container.secret_mounts.iter().map(volume).collect())
}

fn repository(key: &ServiceKey) -> String {
    format!("projects/{}/locations/{}/repositories/gcf-artifacts", key.project, key.region)
}

/// The function as clients see it.
pub(crate) fn function_to(deps: &Deps, function: &Function) -> pb::Function {
    use pb::function::State;
    let ServiceKey { project, region, .. } = &function.key;
    let (build, status) = (&function.build, &function.status);
    let number = deps.control.project_get(project.as_str()).map(|project| project.number.to_string()).unwrap_or_else(|_| project.to_string());
    let state = match () {
        () if function.deleted.is_some() => State::Deleting,
        () if !function.is_settled() => State::Deploying,
        () if !status.failure.is_empty() => State::Failed,
        () => State::Active,
    };
    let failure = (state == State::Failed).then(|| message(&status.failure));
    let source = pb::StorageSource {
        bucket: build.source.bucket.clone(),
        object: build.source.object.clone(),
        generation: build.source.generation,
        ..Default::default()
    };
    pb::Function {
        name: function.resource(),
        description: function.description.clone(),
        build_config: Some(pb::BuildConfig {
            build: format!("projects/{number}/locations/{region}/builds/{}", build.id),
            runtime: build.runtime.clone(),
            entry_point: build.entry_point.clone(),
            source: Some(pb::Source { source: Some(pb::source::Source::StorageSource(source)) }),
            environment_variables: build.env.clone().into_iter().collect(),
            docker_repository: repository(&function.key),
            service_account: if build.service_account.is_empty() {
                String::new()
            } else {
                format!("projects/{project}/serviceAccounts/{}", build.service_account)
            },
            ..Default::default()
        }),
        service_config: Some(service_to(deps, function)),
        event_trigger: function.trigger.as_ref().map(|trigger| trigger::to(deps, trigger)),
        state: state as i32,
        update_time: Some(time(function.updated)),
        create_time: Some(time(function.created)),
        labels: function.labels.clone().into_iter().collect(),
        state_messages: failure.into_iter().collect(),
        environment: pb::Environment::Gen2 as i32,
        url: format!("https://{}/{}", address::host_of_functions(project.as_str(), region.as_str()), function.key.service),
        ..Default::default()
    }
}

/// How the failures of a build and of a trigger begin.
const STARTS: [&str; 2] = ["Build failed", "Could not create or update Eventarc trigger"];

fn message(failure: &str) -> pb::StateMessage {
    let kind = match STARTS.iter().position(|start| failure.starts_with(start)) {
        Some(0) => "CloudBuildFailed",
        Some(_) => "EventarcTriggerFailed",
        None => "CloudRunServiceFailed",
    };
    pb::StateMessage { severity: pb::state_message::Severity::Error as i32, r#type: kind.to_owned(), message: failure.to_owned() }
}

fn service_to(deps: &Deps, function: &Function) -> pb::ServiceConfig {
    use pb::service_config::IngressSettings;
    let template = &function.service.template;
    let service = deps.control.service_get(&function.key).ok().map(|service| service.value);
    let account = service.as_ref().map_or(&template.service_account, |service| &service.template.service_account);
    let ingress = match function.service.ingress {
        Ingress::All => IngressSettings::AllowAll,
        Ingress::Internal | Ingress::None => IngressSettings::AllowInternalOnly,
        Ingress::InternalAndLoadBalancer => IngressSettings::AllowInternalAndGclb,
    };
    let (secret_environment_variables, secret_volumes) = secrets_to(function);
    pb::ServiceConfig {
        secret_environment_variables,
        secret_volumes,
        service: function.key.resource(),
        timeout_seconds: int(template.timeout_s.unwrap_or_default()),
        available_memory: function.memory.clone(),
        available_cpu: function.cpu.clone(),
        environment_variables: template.container.env.iter().cloned().collect(),
        max_instance_count: int(template.max_instances.unwrap_or_default()),
        min_instance_count: int(template.min_instances),
        ingress_settings: ingress as i32,
        uri: service.as_ref().and_then(|service| deps.control.service_urls(service).into_iter().next()).unwrap_or_default(),
        service_account_email: account.clone(),
        all_traffic_on_latest_revision: true,
        revision: service.and_then(|service| service.status.latest_ready).map(|name| name.to_string()).unwrap_or_default(),
        max_instance_request_concurrency: int(template.concurrency.unwrap_or_default()),
        ..Default::default()
    }
}

/// An operation on a function: with how far its stages are.
pub(crate) fn operation_to(deps: &Deps, operation: &Operation, key: &ServiceKey, uid: &str, verb: Verb) -> Result<lro::Operation, Status> {
    let function = super::function_of(deps, key, uid)?;
    let (verb_name, kind) = match verb {
        Verb::Create => ("create", pb::OperationType::CreateFunction),
        Verb::Replace => ("update", pb::OperationType::UpdateFunction),
        Verb::Delete => ("delete", pb::OperationType::DeleteFunction),
    };
    let metadata = pb::OperationMetadata {
        create_time: Some(time(operation.created)),
        end_time: operation.finished.map(time),
        target: function::resource(key),
        verb: verb_name.to_owned(),
        api_version: "v2".to_owned(),
        stages: stages(deps, operation, function.as_ref(), verb),
        operation_type: kind as i32,
        build_name: function.as_ref().map(|f| format!("projects/{}/locations/{}/builds/{}", key.project, key.region, f.build.id)).unwrap_or_default(),
        ..Default::default()
    };
    let result = match (&operation.error, operation.finished, &function) {
        (_, None, _) => None,
        (Some(why), ..) => Some(lro::operation::Result::Error(error::rpc_status(why))),
        (None, _, Some(function)) if verb != Verb::Delete => Some(lro::operation::Result::Response(any(&function_to(deps, function)))),
        _ => Some(lro::operation::Result::Response(prost_types::Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: Vec::new() })),
    };
    Ok(lro::Operation {
        name: format!("projects/{}/locations/{}/operations/{}", operation.project, operation.region, operation.id),
        metadata: Some(any(&metadata)),
        done: operation.finished.is_some(),
        result,
    })
}

fn stages(deps: &Deps, operation: &Operation, function: Option<&Function>, verb: Verb) -> Vec<pb::Stage> {
    use pb::stage::{Name as Stage, State};
    let done = operation.finished.is_some();
    let stage = |name: Stage, state: State, resource: String| pb::Stage { name: name as i32, state: state as i32, resource, ..Default::default() };
    let Some(function) = function.filter(|_| verb != Verb::Delete) else {
        let state = if done { State::Complete } else { State::InProgress };
        return vec![stage(Stage::Service, state, String::new())];
    };
    let ServiceKey { project, region, .. } = &function.key;
    let build = match deps.control.build_get(project, region, &function.build.id).map(|build| build.state) {
        _ if done => State::Complete,
        Ok(BuildState::Queued) => State::NotStarted,
        Ok(BuildState::Working) => State::InProgress,
        _ => State::Complete,
    };
    let service = match (done, build) {
        (true, _) => State::Complete,
        (false, State::Complete) => State::InProgress,
        _ => State::NotStarted,
    };
    let mut stages = vec![
        stage(Stage::Build, build, format!("projects/{project}/locations/{region}/builds/{}", function.build.id)),
        stage(Stage::Service, service, function.key.resource()),
    ];
    if let Some(trigger) = &function.trigger {
        let state = match () {
            () if done => State::Complete,
            () if function.status.triggered_generation == function.generation => State::InProgress,
            () => State::NotStarted,
        };
        stages.push(stage(Stage::Trigger, state, trigger.key.resource()));
    }
    if let (Some(why), true) = (&operation.error, done) {
        let failed = match STARTS.iter().position(|start| why.outer.starts_with(start)) {
            Some(0) => 0,
            Some(_) => stages.len() - 1,
            None => 1,
        };
        stages[failed].state_messages.push(message(&why.outer));
    }
    stages
}

fn any<T: Message + Name>(message: &T) -> prost_types::Any {
    prost_types::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ServiceKey {
        serde_json::from_value(serde_json::json!({ "project": "local-project", "region": "asia-northeast1", "service": "f" })).unwrap()
    }

    fn written() -> pb::Function {
        let source = pb::StorageSource { bucket: "b".into(), object: "o".into(), ..Default::default() };
        pb::Function {
            build_config: Some(pb::BuildConfig {
                runtime: "python312".into(),
                entry_point: "hello".into(),
                source: Some(pb::Source { source: Some(pb::source::Source::StorageSource(source)) }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_left_out_is_googles_default() {
        let function = function_from(&key(), ProjectNumber(9), written(), Timestamp::UNIX_EPOCH).unwrap();
        let template = &function.service.template;
        assert_eq!((function.memory.as_str(), function.cpu.as_str()), ("256M", "0.1666"));
        assert_eq!((template.container.memory_bytes, template.container.cpu_millis), (Some(256_000_000), Some(166)));
        assert_eq!((template.timeout_s, template.concurrency, template.max_instances), (Some(60), Some(1), Some(100)));
    }

    #[test]
    fn processors_come_with_memory() {
        for (memory, cpu) in
            [("128Mi", "0.083"), ("256Mi", "0.1666"), ("257Mi", "0.3333"), ("1Gi", "0.5833"), ("2Gi", "1"), ("4Gi", "2"), ("8Gi", "2"), ("32Gi", "8")]
        {
            assert_eq!(cpu_of(quantity::memory_parse("m", memory).unwrap()), cpu, "{memory}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let check = |change: fn(&mut pb::Function), field: &str| {
            let mut function = written();
            change(&mut function);
            let error = function_from(&key(), ProjectNumber(9), function, Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(error.fields[0].field, field);
        };
        check(|f| f.event_trigger = Some(Default::default()), "function.event_trigger.event_type");
        check(|f| f.event_trigger = Some(pb::EventTrigger { channel: "c".into(), ..Default::default() }), "function.event_trigger.channel");
        check(|f| f.environment = pb::Environment::Gen1 as i32, "function.environment");
        check(|f| f.kms_key_name = "k".into(), "function.kms_key_name");
        check(|f| f.build_config.as_mut().unwrap().runtime.clear(), "function.build_config.runtime");
        check(|f| f.build_config.as_mut().unwrap().entry_point.clear(), "function.build_config.entry_point");
        check(|f| f.build_config.as_mut().unwrap().source = None, "function.build_config.source");
        check(|f| f.build_config.as_mut().unwrap().worker_pool = "w".into(), "function.build_config.worker_pool");
        check(
            |f| {
                let of_another = pb::SecretVolume { project_id: "other-project".into(), ..Default::default() };
                f.service_config = Some(pb::ServiceConfig { secret_volumes: vec![of_another], ..Default::default() });
            },
            "function.service_config.secret_volumes.project_id",
        );
        check(|f| f.service_config = Some(pb::ServiceConfig { vpc_connector: "c".into(), ..Default::default() }), "function.service_config.vpc_connector");
        check(
            |f| f.service_config = Some(pb::ServiceConfig { available_memory: "lots".into(), ..Default::default() }),
            "function.service_config.available_memory",
        );
    }
}
