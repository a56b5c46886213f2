//! Services and templates at random, for the tests that map them to Google's shapes and back.
//!
//! They are in the form in which the surfaces store them: what a shape cannot tell from "unset" is unset.

use std::collections::BTreeMap;

use model::{
    ProjectId, Region, RevisionName, Service, ServiceKey, ServiceName,
    revision::{Check, Container, ExecutionEnvironment, MemoryMount, Probe, RevisionTemplate, SecretMount, SecretRef},
    service::{BuildConfig, Ingress, ServiceScaling, TrafficTarget},
};
use proptest::{collection::vec, option, prelude::*};

use crate::run_v2::service::blank;

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let flags = (any::<bool>(), any::<bool>(), ingress(), "[a-z]{0,8}");
    let texts = (map(), map(), "[ -~]{0,20}", vec("https://[a-z]{1,8}", 0..3));
    let rest = (scaling(), option::of(build_config()), template(), traffic());
    (flags, texts, rest).prop_map(
        |(
            (invoker_iam_disabled, default_uri_disabled, ingress, client),
            (labels, annotations, description, custom_audiences),
            (scaling, build_config, template, traffic),
        )| Service {
            labels,
            annotations,
            client_version: if client.is_empty() { String::new() } else { "528.0.0".to_owned() },
            client,
            description,
            ingress,
            invoker_iam_disabled,
            default_uri_disabled,
            custom_audiences,
            scaling,
            build_config,
            traffic,
            ..blank(key(), template)
        },
    )
}

pub(crate) fn key() -> ServiceKey {
    ServiceKey {
        project: ProjectId::parse("local-project").unwrap(),
        region: Region::parse("asia-northeast1").unwrap(),
        service: ServiceName::parse("sample-function-1").unwrap(),
    }
}

/// What an owner can write: the rest is `control`'s.
pub(crate) fn owner_part(service: Service) -> Service {
    Service { status: Default::default(), ..service }
}

pub(crate) fn template() -> impl Strategy<Value = RevisionTemplate> {
    let numbers = (0u32..10, option::of(1u32..1000), option::of(1u32..=1000), option::of(1u32..=3600));
    let environment = prop_oneof![Just(ExecutionEnvironment::Unset), Just(ExecutionEnvironment::Gen1), Just(ExecutionEnvironment::Gen2)];
    let texts = (option::of("sample-function-1-[a-z]{3}"), map(), map(), "[a-z]{0,5}", option::of("[a-z]{1,5}"));
    (numbers, environment, texts, container(), any::<(bool, bool)>()).prop_map(
        |(
            (min_instances, max_instances, concurrency, timeout_s),
            execution_environment,
            (revision, labels, mut annotations, account, client),
            container,
            (session_affinity, health_check_disabled),
        )| {
            // As gcloud writes them through run v1.
            annotations.extend(client.map(|client| ("run.googleapis.com/client-name".to_owned(), client)));
            RevisionTemplate {
                revision: revision.map(|name| RevisionName::parse(&name).unwrap()),
                labels,
                annotations,
                container,
                min_instances,
                max_instances,
                concurrency,
                timeout_s,
                service_account: account,
                execution_environment,
                session_affinity,
                health_check_disabled,
            }
        },
    )
}

fn container() -> impl Strategy<Value = Container> {
    let texts = ("[a-z]{0,5}", "[a-z./]{1,20}", "[a-z./]{0,20}");
    let lists = (vec("[a-z]{1,5}", 0..3), vec("[ -~]{0,5}", 0..3), vec(("[A-Z]{1,5}", "[ -~]{0,8}"), 0..4));
    let secret_env = vec(("[A-Z]{1,5}", "[a-z]{1,5}", "[0-9]{1,3}"), 0..3);
    let mounts = vec(("/[a-z]{1,5}", "[a-z]{1,5}", vec(("[0-9]{1,3}", "[a-z]{1,5}"), 0..3)), 0..3);
    let in_memory = vec(("/[a-z]{1,5}", option::of((1u64 << 20)..(1 << 35))), 0..3);
    let numbers = (option::of(80u32..8000), option::of((1u64 << 20)..(1 << 35)), option::of(1u16..));
    let flags = (any::<bool>(), option::of(Just(false)), any::<bool>(), (option::of(probe()), option::of(probe()), option::of(readiness_probe())));
    (texts, lists, (secret_env, mounts, in_memory), numbers, flags).prop_map(
        |(
            (name, image, base_image),
            (command, args, env),
            (secret_env, mounts, in_memory),
            (cpu_millis, memory_bytes, port),
            (h2c, cpu_idle, startup_cpu_boost, (startup_probe, liveness_probe, readiness_probe)),
        )| Container {
            name,
            image,
            base_image,
            command,
            args,
            env,
            secret_env: secret_env.into_iter().map(|(name, secret, version)| (name, SecretRef { secret, version })).collect(),
            secret_mounts: (0..).zip(mounts).map(|(n, (path, secret, items))| SecretMount { name: format!("v{n}"), path, secret, items }).collect(),
            memory_mounts: (0..).zip(in_memory).map(|(n, (path, size_bytes))| MemoryMount { name: format!("m{n}"), path, size_bytes }).collect(),
            cpu_millis,
            memory_bytes,
            port,
            h2c,
            cpu_idle,
            startup_cpu_boost,
            startup_probe,
            liveness_probe,
            readiness_probe,
        },
    )
}

fn probe() -> impl Strategy<Value = Probe> {
    let check = prop_oneof![
        (0u16..).prop_map(|port| Check::Tcp { port }),
        ("/[a-z]{0,5}", 0u16..).prop_map(|(path, port)| Check::Http { path, port }),
        ("[a-z]{0,5}", 0u16..).prop_map(|(service, port)| Check::Grpc { port, service }),
    ];
    (0u32..240, 0u32..240, 0u32..240, 0u32..10, check).prop_map(|(initial_delay_s, timeout_s, period_s, failure_threshold, check)| Probe {
        initial_delay_s,
        timeout_s,
        period_s,
        failure_threshold,
        success_threshold: 0,
        check,
    })
}

fn readiness_probe() -> impl Strategy<Value = Probe> {
    (probe(), 0u32..5).prop_map(|(probe, success_threshold)| Probe { success_threshold, ..probe })
}

fn ingress() -> impl Strategy<Value = Ingress> {
    prop_oneof![Just(Ingress::All), Just(Ingress::Internal), Just(Ingress::InternalAndLoadBalancer), Just(Ingress::None)]
}

fn scaling() -> impl Strategy<Value = ServiceScaling> {
    (0u32..10, option::of(1u32..100), option::of(0u32..10)).prop_map(|(min_instances, max_instances, manual_instances)| ServiceScaling {
        min_instances,
        max_instances,
        manual_instances,
    })
}

fn build_config() -> impl Strategy<Value = BuildConfig> {
    ("[a-f0-9]{8}", "[a-z./#]{0,20}", "[a-z_]{0,8}", "[a-z./]{1,20}", any::<bool>(), map()).prop_map(
        |(id, source_location, function_target, image_uri, enable_automatic_updates, environment_variables)| BuildConfig {
            name: format!("projects/9/locations/asia-northeast1/builds/{id}"),
            id,
            source_location,
            function_target,
            base_image: format!("{image_uri}-base"),
            image_uri,
            enable_automatic_updates,
            environment_variables,
            service_account: String::new(),
            worker_pool: String::new(),
        },
    )
}

fn traffic() -> impl Strategy<Value = Vec<TrafficTarget>> {
    let target = (option::of("sample-function-1-[a-z]{3}"), 0u32..=100, option::of("[a-z]{1,5}")).prop_map(|(revision, percent, tag)| TrafficTarget {
        revision: revision.map(|name| RevisionName::parse(&name).unwrap()),
        percent,
        tag,
    });
    vec(target, 1..4)
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-z]{1,8}", "[ -~]{0,8}", 0..3)
}
