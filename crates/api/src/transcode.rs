//! REST in front of the methods of [`crate::grpc`], by the rules of google.api.http.
//!
//! A request's path variables, query and body become one JSON object, that becomes a message, and the reply comes back
//! the same way. Source of the rules: google/api/http.proto; of the words of errors: Google's public front ends.

mod build;
mod fields;
mod json;

use bytes::Bytes;
use http::{Method as Verb, StatusCode};
use model::Status;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::{Map, Value as Json};

use crate::{
    Request, Response, error,
    grpc::{Methods, Removed},
    surface::body_read,
    template::Template,
};

/// Methods that take null in a map for "remove this", as Google's command line writes it; to all others it is no value.
const REMOVING: [&str; 1] = ["google.cloud.scheduler.v1.CloudScheduler/UpdateJob"];

/// The REST routes of all registered methods.
pub(crate) struct Transcoder {
    routes: Vec<Route>,
}

/// One binding of one method.
struct Route {
    verb: Verb,
    template: Template,
    hosts: &'static [&'static str],
    /// `google.cloud.run.v2.Services/GetService`.
    name: String,
    method: MethodDescriptor,
    /// The field that the body is; `*` for the whole request, empty for none.
    body: String,
}

/// A route that a request has taken.
pub(crate) struct Found<'a> {
    route: &'a Route,
    vars: Vec<(String, String)>,
}

impl Transcoder {
    /// Verb, hosts, path and method of every route.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Verb, &'static [&'static str], &Template, &str)> {
        self.routes.iter().map(|route| (&route.verb, route.hosts, &route.template, route.name.as_str()))
    }

    /// The first route of `verb` and `path` that `serves` (asked with the hosts of a method).
    pub(crate) fn find(&self, verb: &Verb, path: &str, serves: impl Fn(&[&str]) -> bool) -> Option<Found<'_>> {
        self.routes.iter().find_map(|route| {
            if route.verb != *verb || !serves(route.hosts) {
                return None;
            }
            Some(Found { route, vars: route.template.matches(path)? })
        })
    }
}

impl Found<'_> {
    /// Reads the request, calls the method, writes the answer.
    pub(crate) async fn call(self, methods: &Methods, request: Request) -> Response {
        self.answer(methods, request).await.unwrap_or_else(|status| error::rest(&status))
    }

    async fn answer(self, methods: &Methods, request: Request) -> Result<Response, Status> {
        let (parts, body) = request.into_parts();
        let mut admitted = methods.admit(&self.route.name, &parts.headers, &parts.extensions, parts.uri.query())?;
        let asked = &Asked::read(parts.uri.query().unwrap_or_default())?;
        let (message, removed) = self.message(asked, body_read(body).await?)?;
        admitted.removed = removed;
        let reply = admitted.call(message.encode_to_vec().into()).await?;
        let reply = DynamicMessage::decode(self.route.method.output(), reply).map_err(Status::internal)?;
        let options = SerializeOptions::new().use_enum_numbers(asked.enum_numbers);
        Ok(asked.response(reply.serialize_with_options(serde_json::value::Serializer, &options).map_err(Status::internal)?))
    }

    fn message(&self, asked: &Asked, body: Bytes) -> Result<(DynamicMessage, Vec<Removed>), Status> {
        let input = self.route.method.input();
        let mut object = self.body(&input, &body)?;
        for (name, value) in &asked.query {
            json::put(&input, &mut object, name, value)?;
        }
        for (name, value) in &self.vars {
            json::put(&input, &mut object, name, value)?;
        }
        let removed = if REMOVING.contains(&self.route.name.as_str()) { json::removed_take(&input, &mut object) } else { Vec::new() };
        let object = Json::Object(object);
        json::check(&input, &object)?;
        let message = DynamicMessage::deserialize_with_options(input, object, &DeserializeOptions::new())
            .map_err(|why| Status::invalid(format!("Invalid JSON payload received. {why}")))?;
        Ok((message, removed))
    }

    fn body(&self, input: &MessageDescriptor, body: &Bytes) -> Result<Map<String, Json>, Status> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        // What Google does too: a body where none belongs is an error, not a thing to pass over.
        let not_here = || Status::invalid("Invalid JSON payload received. A request of this method has no body.");
        let value: Json = serde_json::from_slice(body).map_err(|why| Status::invalid(format!("Invalid JSON payload received. {why}")))?;
        match (self.route.body.as_str(), value) {
            ("", Json::Object(object)) if object.is_empty() => Ok(object),
            ("", _) => Err(not_here()),
            ("*", Json::Object(object)) => Ok(object),
            ("*", _) => Err(Status::invalid("Invalid JSON payload received. Root element must be a message.")),
            (field, value) => {
                let field = input.get_field_by_name(field).ok_or_else(|| Status::internal(format!("{} has no field {field}", input.full_name())))?;
                Ok(Map::from_iter([(field.json_name().to_owned(), value)]))
            }
        }
    }
}

/// A query: the system's parameters understood, the method's left.
struct Asked {
    query: Vec<(String, String)>,
    pretty: bool,
    enum_numbers: bool,
    fields: Option<fields::Fields>,
}

impl Asked {
    /// Source: cloud.google.com/apis/docs/system-parameters.
    fn read(query: &str) -> Result<Self, Status> {
        let mut asked = Self { query: Vec::new(), pretty: true, enum_numbers: false, fields: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "alt" | "$alt" => match value.as_ref() {
                    "json" => {}
                    "json;enum-encoding=int" => asked.enum_numbers = true,
                    other => {
                        return Err(Status::invalid_field(name, format!("{other:?} is not served; use json")));
                    }
                },
                "prettyPrint" | "$prettyPrint" => asked.pretty = value != "false",
                "fields" | "$fields" => asked.fields = Some(fields::Fields::parse(&value)?),
                "callback" | "$callback" => {
                    return Err(Status::invalid_field(name, "JSONP is not served"));
                }
                // Keys and quotas are counted nowhere here; tokens are taken from the header alone.
                "key" | "$key" | "quotaUser" | "$quotaUser" | "userIp" | "access_token" | "$access_token" | "oauth_token" | "uploadType"
                | "upload_protocol" | "$.xgafv" | "$xgafv" | "$userProject" => {}
                _ => asked.query.push((name.into_owned(), value.into_owned())),
            }
        }
        Ok(asked)
    }

    fn response(&self, mut json: Json) -> Response {
        if let Some(fields) = &self.fields {
            json = fields.apply(json);
        }
        if self.pretty {
            return error::json_response(StatusCode::OK, &json);
        }
        let mut response = Response::new(json.to_string().into());
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json; charset=UTF-8"));
        response
    }
}

/// The descriptors of everything in `proto`, decoded (some milliseconds) when first asked for.
pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: std::sync::OnceLock<DescriptorPool> = std::sync::OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("the descriptors that the compiler wrote"))
}

/// A message as JSON, for surfaces that are not made of protos.
pub(crate) fn to_json<T: Message + prost::Name>(message: &T) -> Result<Json, Status> {
    let dynamic = DynamicMessage::decode(descriptor::<T>(), message.encode_to_vec().as_slice()).map_err(Status::internal)?;
    dynamic.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new()).map_err(Status::internal)
}

/// A message of JSON, for surfaces that are not made of protos.
///
/// # Errors
/// `INVALID_ARGUMENT` in Google's words.
pub(crate) fn from_json<T: Message + prost::Name + Default>(value: Json) -> Result<T, Status> {
    let descriptor = descriptor::<T>();
    json::check(&descriptor, &value)?;
    let dynamic = DynamicMessage::deserialize_with_options(descriptor, value, &DeserializeOptions::new())
        .map_err(|why| Status::invalid(format!("Invalid JSON payload received. {why}")))?;
    dynamic.transcode_to().map_err(Status::internal)
}

/// The descriptor of a message of `proto`.
pub(crate) fn descriptor<T: prost::Name>() -> MessageDescriptor {
    pool().get_message_by_name(&T::full_name()).expect("every message of `proto` is in its descriptors")
}
