//! Cloud Functions v2: functions, and the runtimes that they can be deployed with. The rules are `control`'s.
//!
//! A function is a build, a service and perhaps a trigger: these are seen through run and Eventarc too. Connectors and the like are refused by
//! name, and there are no functions of the first generation. Source: google/cloud/functions/v2/functions.proto.

mod runtime;
mod shape;
mod trigger;

use axum::{body::Body, response::IntoResponse};
use http::Method as Verb;
use model::{ServiceKey, ServiceName, Status, function::Function, operation::Operation};
use proto::google::{cloud::functions::v2 as pb, longrunning as lro};

use crate::{
    Response,
    app::App,
    convert::refuse,
    filter::Filter,
    grpc::{Context, Group, Method},
    mask, operation,
    permission::on,
    storage,
    surface::{Call, Endpoints, Surface},
    transcode,
};

pub(crate) use shape::{function_to, operation_to};

const HOSTS: &[&str] = &["cloudfunctions.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const LOCATION: &str = "projects/{project}/locations/{location}";
const FUNCTION: &str = "projects/{project}/locations/{location}/functions/{function}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.functions.v2.FunctionService/ListRuntimes",
            on("cloudfunctions.runtimes.list", PROJECT),
            |r: &pb::ListRuntimesRequest| r.parent.clone(),
            ("parent", LOCATION),
            runtime::list,
        )
        .unary(
            "google.cloud.functions.v2.FunctionService/GetFunction",
            on("cloudfunctions.functions.get", FUNCTION),
            |r: &pb::GetFunctionRequest| r.name.clone(),
            ("name", FUNCTION),
            function_get,
        )
        .unary(
            "google.cloud.functions.v2.FunctionService/ListFunctions",
            on("cloudfunctions.functions.list", PROJECT),
            |r: &pb::ListFunctionsRequest| r.parent.clone(),
            ("parent", LOCATION),
            function_list,
        )
        .unary(
            "google.cloud.functions.v2.FunctionService/CreateFunction",
            on("cloudfunctions.functions.create", PROJECT),
            |r: &pb::CreateFunctionRequest| r.parent.clone(),
            ("parent", LOCATION),
            function_create,
        )
        .unary(
            "google.cloud.functions.v2.FunctionService/UpdateFunction",
            on("cloudfunctions.functions.update", FUNCTION),
            |r: &pb::UpdateFunctionRequest| r.function.as_ref().map(|f| f.name.clone()).unwrap_or_default(),
            ("function.name", FUNCTION),
            function_update,
        )
        .unary(
            "google.cloud.functions.v2.FunctionService/DeleteFunction",
            on("cloudfunctions.functions.delete", FUNCTION),
            |r: &pb::DeleteFunctionRequest| r.name.clone(),
            ("name", FUNCTION),
            function_delete,
        )
        .unary(
            "google.cloud.functions.v2.FunctionService/GenerateUploadUrl",
            on("cloudfunctions.functions.sourceCodeSet", PROJECT),
            |r: &pb::GenerateUploadUrlRequest| r.parent.clone(),
            ("parent", LOCATION),
            upload_url_generate,
        )
        .unary(
            "google.cloud.functions.v2.FunctionService/GenerateDownloadUrl",
            on("cloudfunctions.functions.sourceCodeGet", FUNCTION),
            |r: &pb::GenerateDownloadUrlRequest| r.name.clone(),
            ("name", FUNCTION),
            download_url_generate,
        )
        .into_methods()
}

/// What gcloud asks of the API's first version beside: which functions of the first generation there are.
pub(crate) fn surface(app: &App) -> Surface {
    Endpoints::new(app.clone())
        .on(Verb::GET, "/v1/projects/{project}/locations/{location}/functions", on("cloudfunctions.functions.list", PROJECT), first_generation_list)
        .surface("functions v1", HOSTS)
}

async fn first_generation_list(_: App, _: Call) -> Result<Response, Status> {
    Ok(([(http::header::CONTENT_TYPE, "application/json; charset=UTF-8")], Body::from("{}\n")).into_response())
}

fn key(context: &Context) -> Result<ServiceKey, Status> {
    Ok(ServiceKey { project: context.project()?, region: context.region()?, service: ServiceName::parse(context.var("function")?)? })
}

async fn function_get(app: App, context: Context, _: pb::GetFunctionRequest) -> Result<pb::Function, Status> {
    Ok(function_to(&app, &app.control.function_get(&key(&context)?)?.value))
}

async fn function_list(app: App, context: Context, request: pb::ListFunctionsRequest) -> Result<pb::ListFunctionsResponse, Status> {
    refuse(!request.order_by.is_empty(), "order_by")?;
    let (project, region) = (context.project()?, context.region_or_all()?);
    let filter = Filter::parse(&request.filter)?;
    let scope = format!("functions/{project}/{}/{}", context.var("location")?, request.filter);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let mut functions = Vec::new();
    let mut after = asked.after.clone();
    loop {
        let found = app.control.function_list(&project, region.as_ref(), after.as_deref(), asked.size + 1)?;
        for function in &found {
            if functions.len() == asked.size {
                let next_page_token = app.pages.token(&scope, after.as_deref().unwrap_or_default()).await?;
                return Ok(pb::ListFunctionsResponse { functions, next_page_token, ..Default::default() });
            }
            let written = function_to(&app, &function.value);
            if request.filter.is_empty() || filter.matches(&transcode::to_json(&written)?) {
                functions.push(written);
            }
            after = Some(model::key::function(&function.value.key));
        }
        if found.len() <= asked.size {
            return Ok(pb::ListFunctionsResponse { functions, ..Default::default() });
        }
    }
}

async fn function_create(app: App, context: Context, request: pb::CreateFunctionRequest) -> Result<lro::Operation, Status> {
    let key = ServiceKey { project: context.project()?, region: context.region()?, service: ServiceName::parse(&request.function_id)? };
    let written = request.function.ok_or_else(|| Status::invalid_field("function", "it is required"))?;
    let wish = shape::function_from(&key, app.control.project_get(key.project.as_str())?.number, written, app.clock.now())?;
    let (_, operation) = app.control.function_create(&context.who, wish).await?;
    answer(&app, &operation)
}

async fn function_update(app: App, context: Context, request: pb::UpdateFunctionRequest) -> Result<lro::Operation, Status> {
    let key = key(&context)?;
    let written = request.function.ok_or_else(|| Status::invalid_field("function", "it is required"))?;
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    let found = app.control.function_get(&key)?;
    let merged = mask::masked(&function_to(&app, &found.value), written, &paths)?;
    let wish = shape::function_from(&key, app.control.project_get(key.project.as_str())?.number, merged, app.clock.now())?;
    let (_, operation) = app.control.function_replace(&context.who, &found, wish).await?;
    answer(&app, &operation)
}

async fn function_delete(app: App, context: Context, _: pb::DeleteFunctionRequest) -> Result<lro::Operation, Status> {
    let operation = app.control.function_delete(&context.who, &key(&context)?).await?;
    answer(&app, &operation)
}

/// An address that takes one PUT of an archive, and where it will lie.
async fn upload_url_generate(app: App, context: Context, request: pb::GenerateUploadUrlRequest) -> Result<pb::GenerateUploadUrlResponse, Status> {
    refuse(!request.kms_key_name.is_empty(), "kms_key_name")?;
    refuse(request.environment == pb::Environment::Gen1 as i32, "environment")?;
    let bucket = app.control.function_upload_bucket(&context.project()?, &context.region()?).await?;
    let object = format!("{}.zip", uuid::Uuid::new_v4());
    let path = storage::upload_begin(&app, &bucket, &object, "application/zip").await?;
    let storage_source = pb::StorageSource { bucket, object, ..Default::default() };
    Ok(pb::GenerateUploadUrlResponse { upload_url: format!("https://storage.googleapis.com{path}"), storage_source: Some(storage_source) })
}

/// How long an address of a source is good for, in seconds. Source: functions.proto, GenerateDownloadUrl.
const DOWNLOAD_S: i64 = 1800;

async fn download_url_generate(app: App, context: Context, _: pb::GenerateDownloadUrlRequest) -> Result<pb::GenerateDownloadUrlResponse, Status> {
    let function = app.control.function_get(&key(&context)?)?.value;
    let account = format!("{}-compute@developer.gserviceaccount.com", app.control.project_get(function.key.project.as_str())?.number);
    let source = &function.build.source;
    let download_url = storage::signed::download_url(&app, &account, &source.bucket, &source.object, DOWNLOAD_S).await?;
    Ok(pb::GenerateDownloadUrlResponse { download_url })
}

fn answer(app: &App, operation: &Operation) -> Result<lro::Operation, Status> {
    operation::write(app, operation)
}

/// The function of an operation, as it is now; `None` once it is gone, or when it is another one of the name.
pub(crate) fn function_of(app: &crate::Deps, key: &ServiceKey, uid: &str) -> Result<Option<Function>, Status> {
    match app.control.function_get(key) {
        Ok(found) => Ok(Some(found.value).filter(|function| function.uid == uid)),
        Err(error) if error.code == model::Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
