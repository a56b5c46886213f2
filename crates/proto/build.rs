//! Makes the messages, server traits and descriptors of Google's public APIs.
//!
//! The `.proto` files come from the npm package `google-proto-files`, pinned with its hash in
//! `web/package-lock.json`; none is committed. `GOOGLE_PROTO_FILES` names another folder of them.

use std::{env, error::Error, fs, path::PathBuf};

#[path = "../../web/packages.rs"]
mod packages;

use packages::packages;

/// The root files; what they import follows.
const FILES: &[&str] = &[
    "google/cloud/run/v2/service.proto",
    "google/cloud/run/v2/revision.proto",
    "google/cloud/run/v2/build.proto",
    "google/cloud/functions/v2/functions.proto",
    "google/cloud/eventarc/v1/eventarc.proto",
    "google/cloud/scheduler/v1/cloudscheduler.proto",
    "google/cloud/secretmanager/v1/service.proto",
    "google/cloud/audit/audit_log.proto",
    "google/longrunning/operations.proto",
    "google/iam/v1/iam_policy.proto",
    "google/cloud/location/locations.proto",
    "google/iam/admin/v1/iam.proto",
    "google/iam/v2/policy.proto",
    "google/iam/credentials/v1/iamcredentials.proto",
    "google/logging/v2/logging.proto",
    "google/monitoring/v3/metric_service.proto",
    "google/devtools/cloudbuild/v1/cloudbuild.proto",
    "google/devtools/artifactregistry/v1/service.proto",
    "google/api/serviceusage/v1/serviceusage.proto",
    "google/cloud/resourcemanager/v3/projects.proto",
    "google/pubsub/v1/pubsub.proto",
    "google/pubsub/v1/schema.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=GOOGLE_PROTO_FILES");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../web/packages.rs");
    let root = protos()?;
    println!("cargo::rerun-if-changed={}", root.join("package.json").display());

    let mut resolver = protox::file::ChainFileResolver::new();
    // google/protobuf/*: the copies inside protox, since the package's own descriptor.proto is in editions syntax.
    resolver.add(protox::file::GoogleFileResolver::new());
    resolver.add(protox::file::IncludeFileResolver::new(root));
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(false);
    for file in FILES {
        compiler.open_file(file)?;
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The descriptors keep their extensions (google.api.http), which prost's own types would drop.
    fs::write(out.join("google.fds"), compiler.encode_file_descriptor_set())?;

    let mut config = prost_build::Config::new();
    config.include_file("mod.rs").disable_comments(["."]).enable_type_names().type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        .build_transport(false)
        .compile_well_known_types(false)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

/// The folder of the protos.
fn protos() -> Result<PathBuf, Box<dyn Error>> {
    if let Ok(root) = env::var("GOOGLE_PROTO_FILES") {
        return Ok(root.into());
    }
    let web = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../web");
    Ok(packages(&web)?.join("google-proto-files"))
}
