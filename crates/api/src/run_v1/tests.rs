//! The bodies that gcloud sends, and that mapping there and back changes nothing.

use control::Project;
use model::{ProjectNumber, Service, Timestamp, service::Ingress};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{service, types};
use crate::arbitrary;

fn project() -> Project {
    Project { id: arbitrary::key().project, number: ProjectNumber(9_000_000_000_001), name: String::new(), created: Timestamp::UNIX_EPOCH }
}

fn read(body: Json) -> Result<Service, model::Status> {
    service::read(arbitrary::key(), types::Service::read(body)?)
}

fn write(service: &Service) -> Json {
    let urls = ["https://sample-function-1-9000000000001.asia-northeast1.run.app".to_owned()];
    serde_json::to_value(service::write(service, &project(), &urls, Some("op-1"))).unwrap()
}

/// What `gcloud run deploy --source` sends for a new service, less what is said many times.
fn deploy() -> Json {
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "annotations": {
                "run.googleapis.com/build-base-image": "r.dev/runtimes/python312",
                "run.googleapis.com/build-enable-automatic-updates": "true",
                "run.googleapis.com/build-function-target": "hello_http",
                "run.googleapis.com/build-id": "b-1",
                "run.googleapis.com/build-image-uri": "r.dev/p/s",
                "run.googleapis.com/build-name": "projects/9/locations/asia-northeast1/builds/b-1",
                "run.googleapis.com/build-source-location": "gs://b/o.zip#1",
                "run.googleapis.com/client-name": "gcloud",
                "run.googleapis.com/client-version": "528.0.0",
                "run.googleapis.com/invoker-iam-disabled": "True",
            },
            "labels": {},
            "name": "sample-function-1",
            "namespace": "local-project",
        },
        "spec": { "template": {
            "metadata": {
                "annotations": {
                    "run.googleapis.com/base-images": "{\"\":\"r.dev/runtimes/python312\"}",
                    "run.googleapis.com/client-name": "gcloud",
                    "run.googleapis.com/client-version": "528.0.0",
                    "run.googleapis.com/startup-cpu-boost": "True",
                },
                "labels": { "client.knative.dev/nonce": "rkpuaxvpjw" },
            },
            "spec": {
                "containers": [{ "image": "r.dev/p/s@sha256:ab", "name": "" }],
                "nodeSelector": {},
                "runtimeClassName": "run.googleapis.com/linux-base-image-update",
            },
        }},
        "status": { "address": {} },
    })
}

#[test]
fn a_deploy_is_understood() {
    let service = read(deploy()).unwrap();
    let build = service.build_config.as_ref().unwrap();
    assert_eq!((build.function_target.as_str(), build.id.as_str(), build.enable_automatic_updates), ("hello_http", "b-1", true));
    assert_eq!((service.client.as_str(), service.client_version.as_str()), ("gcloud", "528.0.0"));
    assert!(service.invoker_iam_disabled && service.annotations.is_empty());
    assert_eq!(service.ingress, Ingress::All);
    let container = &service.template.container;
    assert_eq!((container.image.as_str(), container.base_image.as_str()), ("r.dev/p/s@sha256:ab", "r.dev/runtimes/python312"));
    assert!(container.startup_cpu_boost);
    assert_eq!(service.template.labels["client.knative.dev/nonce"], "rkpuaxvpjw");
    assert_eq!(service.traffic, crate::run_v2::service::traffic_default());
}

#[test]
fn a_reply_has_what_gcloud_reads() {
    let reply = write(&read(deploy()).unwrap());
    let check = |pointer: &str, expect: Json| assert_eq!(reply.pointer(pointer), Some(&expect), "{pointer} in {reply:#}");
    check("/metadata/namespace", json!("9000000000001"));
    check("/metadata/labels/cloud.googleapis.com~1location", json!("asia-northeast1"));
    check("/metadata/annotations/run.googleapis.com~1ingress", json!("all"));
    check("/metadata/annotations/run.googleapis.com~1ingress-status", json!("all"));
    check("/metadata/annotations/run.googleapis.com~1operation-id", json!("op-1"));
    check("/metadata/annotations/run.googleapis.com~1urls", json!("[\"https://sample-function-1-9000000000001.asia-northeast1.run.app\"]"));
    check("/spec/template/spec/containers/0/name", json!(""));
    check("/spec/template/spec/runtimeClassName", json!("run.googleapis.com/linux-base-image-update"));
    check("/spec/traffic/0", json!({ "latestRevision": true, "percent": 100 }));
    check("/status/url", json!("https://sample-function-1-9000000000001.asia-northeast1.run.app"));
    check("/status/address/url", json!("https://sample-function-1-9000000000001.asia-northeast1.run.app"));
}

#[test]
fn an_update_changes_what_it_changes() {
    // `services update --ingress internal`: what the server gave, with one annotation changed.
    let before = read(deploy()).unwrap();
    let mut body = write(&before);
    body["metadata"]["annotations"]["run.googleapis.com/ingress"] = json!("internal");
    let after = read(body).unwrap();
    assert_eq!(after, Service { ingress: Ingress::Internal, ..before });
}

#[test]
fn what_is_not_supported_is_named() {
    let check = |pointer: &str, value: Json, field: &str| {
        let mut body = deploy();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/");
        match body.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}")) {
            Json::Object(object) => drop(object.insert(name, value)),
            Json::Array(list) => list.push(value),
            other => panic!("{other}"),
        }
        let error = read(body).expect_err(field);
        assert_eq!(error.fields[0].field, field);
    };
    const CONTAINER: &str = "/spec/template/spec/containers/0";
    check("/spec/template/spec/volumes", json!([{ "name": "v" }]), "spec.template.spec.volumes");
    check("/spec/template/spec/containers/0/volumeMounts", json!([{ "name": "v", "mountPath": "/v" }]), "spec.template.spec.containers[0].volumeMounts");
    check("/spec/template/spec/nodeSelector", json!({ "run.googleapis.com/accelerator": "nvidia-l4" }), "spec.template.spec.nodeSelector");
    check("/spec/template/spec/runtimeClassName", json!("gvisor"), "spec.template.spec.runtimeClassName");
    check("/spec/template/spec/containers/-", json!({ "image": "sidecar" }), "spec.template.spec.containers");
    check("/spec/template/spec/containerConcurrency", json!(-1), "spec.template.spec.containerConcurrency");
    check("/spec/traffic", json!([{ "configurationName": "c", "percent": 100 }]), "spec.traffic[0].configurationName");
    check("/spec/surprise", json!(1), "spec.surprise");
    check("/metadata/generateName", json!("x-"), "metadata.generateName");
    for (field, value) in [
        ("lifecycle", json!({ "preStop": { "exec": { "command": ["x"] } } })),
        ("workingDir", json!("/x")),
        ("envFrom", json!([{ "secretRef": { "name": "s" } }])),
        ("securityContext", json!({ "runAsUser": 1 })),
    ] {
        check(&format!("{CONTAINER}/{field}"), value, &format!("spec.template.spec.containers[0].{field}"));
    }
    check(
        &format!("{CONTAINER}/env"),
        json!([{ "name": "S", "valueFrom": { "configMapKeyRef": { "name": "s", "key": "1" } } }]),
        "spec.template.spec.containers[0].env[0].valueFrom.configMapKeyRef",
    );
    check(
        &format!("{CONTAINER}/resources"),
        json!({ "limits": { "nvidia.com/gpu": "1" } }),
        "spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]",
    );
    for annotation in ["vpc-access-connector", "network-interfaces", "cloudsql-instances", "secrets", "container-dependencies", "encryption-key"] {
        check(
            &format!("/spec/template/metadata/annotations/run.googleapis.com~1{annotation}"),
            json!("x"),
            &format!("spec.template.metadata.annotations[run.googleapis.com/{annotation}]"),
        );
    }
    check("/metadata/annotations/run.googleapis.com~1iap-enabled", json!("true"), "metadata.annotations[run.googleapis.com/iap-enabled]");
    check("/metadata/annotations/run.googleapis.com~1binary-authorization", json!("default"), "metadata.annotations[run.googleapis.com/binary-authorization]");
    check("/metadata/annotations/run.googleapis.com~1ingress", json!("everyone"), "metadata.annotations[run.googleapis.com/ingress]");
    check("/metadata/annotations/run.googleapis.com~1invoker-iam-disabled", json!("maybe"), "metadata.annotations[run.googleapis.com/invoker-iam-disabled]");
}

#[test]
fn what_says_nothing_is_passed_over() {
    let mut body = deploy();
    body["metadata"]["annotations"]["run.googleapis.com/iap-enabled"] = json!("false");
    body["spec"]["template"]["spec"]["volumes"] = json!([]);
    body["spec"]["template"]["metadata"]["creationTimestamp"] = json!(null);
    body["spec"]["traffic"] = json!(null);
    body["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({});
    assert_eq!(read(body).unwrap(), read(deploy()).unwrap());
}

#[test]
fn annotations_of_others_survive() {
    let mut body = deploy();
    body["metadata"]["annotations"]["example.com/owner"] = json!("me");
    body["spec"]["template"]["metadata"]["annotations"]["client.knative.dev/user-image"] = json!("gcr.io/x");
    let service = read(body).unwrap();
    assert_eq!(service.annotations["example.com/owner"], "me");
    assert_eq!(read(write(&service)).unwrap(), service);
}

proptest! {
    #[test]
    fn services_come_back(service in arbitrary::service()) {
        let back = read(write(&service)).unwrap();
        prop_assert_eq!(back, arbitrary::owner_part(service));
    }

    #[test]
    fn templates_come_back(template in arbitrary::template()) {
        let written: types::RevisionTemplate = serde_json::from_value(serde_json::to_value(super::template::write(&template)).unwrap()).unwrap();
        prop_assert_eq!(super::template::read(written).unwrap(), template);
    }
}
