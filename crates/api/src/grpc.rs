//! The methods that Google's protos describe: one function each, called by gRPC and, through [`crate::transcode`], by REST.
//!
//! A method and what it needs are registered in one call; a method that is not registered answers `UNIMPLEMENTED`.
//! Messages arrive encoded, so that both ways share one path: read the caller, decode, check, call, encode.

use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, StreamExt as _};
use http::{Extensions, HeaderMap};
use iam::Identity;
use model::{Hops, ProjectId, Region, ServiceKey, ServiceName, Status};
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::{
    Deps, Request, Response, audit,
    caller::caller_check,
    error, iam_policy,
    permission::{self, Need, Vars},
    surface::BODY_MAX_BYTES,
};

/// Who calls, and the names that stand in the request's resource name.
pub(crate) struct Context {
    pub who: Identity,
    /// Of the method's pattern; `project` is an id.
    pub vars: Vars,
    /// What lies behind the call.
    pub hops: Hops,
    /// What a REST caller wrote null for.
    pub removed: Vec<Removed>,
}

/// An entry of a map that is to go: messages have no such thing, and the methods that know it are few ([`crate::transcode`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Of the request, such as `job.http_target.headers`.
    pub map: String,
    pub key: String,
}

impl Context {
    /// A variable of the method's pattern.
    pub(crate) fn var(&self, name: &str) -> Result<&str, Status> {
        self.vars.get(name).map(String::as_str).ok_or_else(|| Status::internal(format!("no variable {name} in the method's pattern")))
    }

    pub(crate) fn project(&self) -> Result<ProjectId, Status> {
        ProjectId::parse(self.var("project")?)
    }

    pub(crate) fn region(&self) -> Result<Region, Status> {
        Region::parse(self.var("location")?)
    }

    /// A region, `global` or a multi-region.
    pub(crate) fn location(&self) -> Result<Region, Status> {
        Region::parse_location(self.var("location")?)
    }

    /// The region, or `None` for the wildcard `-`.
    pub(crate) fn region_or_all(&self) -> Result<Option<Region>, Status> {
        if self.var("location")? == "-" { Ok(None) } else { self.region().map(Some) }
    }

    /// The location, or `None` for the wildcard `-`.
    pub(crate) fn location_or_all(&self) -> Result<Option<Region>, Status> {
        if self.var("location")? == "-" { Ok(None) } else { self.location().map(Some) }
    }

    pub(crate) fn service(&self) -> Result<ServiceKey, Status> {
        Ok(ServiceKey { project: self.project()?, region: self.region()?, service: ServiceName::parse(self.var("service")?)? })
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;
/// A reply, and what the request was about.
type Told = Pin<Box<dyn Future<Output = (Result<Bytes, Status>, Option<Seen>)> + Send>>;
/// Encoded messages of one direction of a stream; ends with the first error.
type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Who calls a method of one request, and what comes with the call beside its message.
struct Caller {
    who: Identity,
    hops: Hops,
    removed: Vec<Removed>,
}

/// From the caller and what is asked to what is answered, both encoded.
enum Call {
    Unary(Box<dyn Fn(Deps, Caller, Bytes) -> Told + Send + Sync>),
    /// Both ways at once; gRPC only.
    Stream(Box<dyn Fn(Deps, Identity, Messages) -> Answer<Messages> + Send + Sync>),
}

/// The requests of a stream after the first.
pub(crate) type Requests<Q> = Pin<Box<dyn Stream<Item = Result<Q, Status>> + Send>>;

/// What a request was about.
struct Seen {
    /// As the client wrote it.
    resource: String,
    /// An id, once it is known which; empty when the name holds none.
    project: String,
    /// Whether its permission was there.
    granted: bool,
}

/// One method.
pub(crate) struct Method {
    /// Such as `google.cloud.run.v2.Services/GetService`.
    pub name: &'static str,
    /// The hosts on which its REST form is found.
    pub hosts: &'static [&'static str],
    /// What its caller needs.
    pub need: Need,
    /// The field with the resource's name, and the form of its value.
    pub resource: (&'static str, &'static str),
    call: Call,
}

/// Every registered method.
pub(crate) struct Methods {
    deps: Deps,
    by_name: HashMap<&'static str, Arc<Method>>,
}

/// Collects the methods of one API.
pub(crate) struct Group<S> {
    state: S,
    hosts: &'static [&'static str],
    methods: Vec<Method>,
}

impl<S: Clone + Send + Sync + 'static> Group<S> {
    /// Methods whose functions share `state`, found on `hosts`.
    pub(crate) fn new(state: S, hosts: &'static [&'static str]) -> Self {
        Self { state, hosts, methods: Vec::new() }
    }

    /// Adds a method. `resource` gives the request's resource name, of the form `pattern`, in the field called `field`
    /// by the proto; `handler` is an `async fn(S, Context, Request) -> Result<Reply, Status>`.
    pub(crate) fn unary<Q, A, R, H, F>(
        mut self,
        name: &'static str,
        need: Need,
        resource: R,
        (field, pattern): (&'static str, &'static str),
        handler: H,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message,
        R: Fn(&Q) -> String + Send + Sync + 'static,
        H: Fn(S, Context, Q) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let state = self.state.clone();
        let (resource, handler) = (Arc::new(resource), Arc::new(handler));
        let call = Call::Unary(Box::new(move |deps, Caller { who, hops, removed }, bytes| {
            let (state, resource, handler) = (state.clone(), resource.clone(), handler.clone());
            Box::pin(async move {
                let mut seen = None;
                let reply = async {
                    let request: Q = decode(bytes)?;
                    let written = resource(&request);
                    let mut vars = permission::name_read(pattern, &written)
                        .ok_or_else(|| Status::invalid_field(field, format!("Invalid resource name {written:?}: expected the form {pattern}")))?;
                    let checked = permission::check(&deps, Some(&who), need, &mut vars, &Vars::new());
                    seen = Some(Seen { resource: written, project: vars.get("project").cloned().unwrap_or_default(), granted: checked.is_ok() });
                    checked?;
                    let reply = handler(state, Context { who, vars, hops, removed }, request).await?;
                    Ok(reply.encode_to_vec().into())
                }
                .await;
                (reply, seen)
            })
        }));
        self.methods.push(Method { name, hosts: self.hosts, need, resource: (field, pattern), call });
        self
    }

    /// Adds a method that streams both ways. Its first request names the resource; `handler` is an
    /// `async fn(S, Context, Request, Requests<Request>) -> Result<impl Stream<Item = Result<Reply, Status>>, Status>`.
    pub(crate) fn stream<Q, A, R, H, F, O>(
        mut self,
        name: &'static str,
        need: Need,
        resource: R,
        (field, pattern): (&'static str, &'static str),
        handler: H,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message,
        R: Fn(&Q) -> String + Send + Sync + 'static,
        H: Fn(S, Context, Q, Requests<Q>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O, Status>> + Send + 'static,
        O: Stream<Item = Result<A, Status>> + Send + 'static,
    {
        let state = self.state.clone();
        let (resource, handler) = (Arc::new(resource), Arc::new(handler));
        let call = Call::Stream(Box::new(move |deps, who, messages| {
            let (state, resource, handler) = (state.clone(), resource.clone(), handler.clone());
            Box::pin(async move {
                let mut requests: Requests<Q> = Box::pin(messages.map(|message| message.and_then(decode)));
                let first = requests.next().await.unwrap_or_else(|| Err(Status::invalid("The stream ended before its first request.")))?;
                let context = context(&deps, who, need, &resource(&first), field, pattern)?;
                let replies = handler(state, context, first, requests).await?;
                let encoded: Messages = Box::pin(replies.map(|reply| Ok(reply?.encode_to_vec().into())));
                Ok(encoded)
            })
        }));
        self.methods.push(Method { name, hosts: self.hosts, need, resource: (field, pattern), call });
        self
    }

    /// Adds a method that needs good credentials only and names no resource.
    pub(crate) fn anyones<Q, A, H, F>(self, name: &'static str, handler: H) -> Self
    where
        Q: Message + Default + 'static,
        A: Message,
        H: Fn(S, Context, Q) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        // The pattern is a word that the name is always equal to.
        self.unary(name, Need::SignedIn, |_: &Q| "-".to_owned(), ("name", "-"), handler)
    }

    /// What was collected.
    pub(crate) fn into_methods(self) -> Vec<Method> {
        self.methods
    }
}

fn decode<Q: Message + Default>(bytes: Bytes) -> Result<Q, Status> {
    Q::decode(bytes).map_err(|why| Status::invalid(format!("The request is not a well-formed message: {why}")))
}

/// Reads the resource's name and asks whether the caller may.
fn context(deps: &Deps, who: Identity, need: Need, written: &str, field: &str, pattern: &str) -> Result<Context, Status> {
    let mut vars = permission::name_read(pattern, written)
        .ok_or_else(|| Status::invalid_field(field, format!("Invalid resource name {written:?}: expected the form {pattern}")))?;
    permission::check(deps, Some(&who), need, &mut vars, &Vars::new())?;
    Ok(Context { who, vars, hops: Hops::default(), removed: Vec::new() })
}

/// A call whose caller is known.
pub(crate) struct Admitted {
    deps: Deps,
    method: Arc<Method>,
    who: Identity,
    from: audit::Client,
    /// See [`Context::removed`].
    pub removed: Vec<Removed>,
}

impl Admitted {
    /// Calls the method with an encoded request.
    ///
    /// # Errors
    /// Those of the method; `UNIMPLEMENTED` for one that streams.
    pub(crate) async fn call(self, request: Bytes) -> Result<Bytes, Status> {
        match audit::method_of(self.method.name).filter(|_| self.method.need != Need::SignedIn) {
            // On a task of its own: a caller who hangs up does not leave a change that nobody wrote down.
            Some(name) => tokio::spawn(self.audited(name, request)).await.map_err(Status::internal)?,
            None => self.told(request).await.0,
        }
    }

    async fn audited(self, name: String, request: Bytes) -> Result<Bytes, Status> {
        let (deps, method, who, from) = (self.deps.clone(), self.method.clone(), self.who.clone(), self.from.clone());
        let (reply, seen) = self.told(request).await;
        if let Some(Seen { resource, project, granted }) = seen {
            let permission = method.need.permission();
            let service = if method.name.starts_with("google.iam.v1.IAMPolicy/") { iam_policy::host_of(&resource) } else { method.hosts[0] };
            let status = reply.as_ref().err();
            let location = audit::location_of(&deps, &resource);
            audit::write(&deps, &audit::Call { service, method: &name, resource, location, project, permission, who: &who, granted, status, from: &from })
                .await;
        }
        reply
    }

    fn told(self, request: Bytes) -> Told {
        match &self.method.call {
            Call::Unary(call) => call(self.deps, Caller { who: self.who, hops: self.from.hops, removed: self.removed }, request),
            Call::Stream(_) => {
                let streams = Status::unimplemented(format!("Method {} streams; it is served over gRPC only.", self.method.name));
                Box::pin(async { (Err(streams), None) })
            }
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self.method.call, Call::Stream(_))
    }

    async fn stream(self, requests: Messages) -> Result<Messages, Status> {
        match &self.method.call {
            Call::Stream(call) => call(self.deps, self.who, requests).await,
            Call::Unary(_) => Err(Status::internal(format!("{} does not stream", self.method.name))),
        }
    }
}

impl Methods {
    /// # Panics
    /// When a method is registered twice.
    pub(crate) fn new(deps: Deps, list: Vec<Method>) -> Self {
        let mut by_name = HashMap::new();
        for method in list {
            let name = method.name;
            assert!(by_name.insert(name, Arc::new(method)).is_none(), "{name} is registered twice");
        }
        Self { deps, by_name }
    }

    /// All methods, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Method> {
        self.by_name.values().map(Arc::as_ref)
    }

    /// The method of a name, and who calls it.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for a name that is not registered; `UNAUTHENTICATED` without good credentials, before anything of the request is read;
    /// `PERMISSION_DENIED` when the quota is to be that of a project that does not exist.
    pub(crate) fn admit(&self, name: &str, headers: &HeaderMap, extensions: &Extensions, query: Option<&str>) -> Result<Admitted, Status> {
        let method = self.by_name.get(name).ok_or_else(|| Status::unimplemented(format!("Method {name} is not served by this server.")))?;
        let who = caller_check(&self.deps.iam, headers)?.ok_or_else(Status::unauthenticated)?;
        permission::quota_project_check(&self.deps, headers, query)?;
        Ok(Admitted { deps: self.deps.clone(), method: method.clone(), who, from: audit::Client::of(headers, extensions), removed: Vec::new() })
    }

    /// A gRPC call. The status is in the trailers.
    pub(crate) async fn serve(&self, request: Request) -> Response {
        let name = request.uri().path().trim_start_matches('/').to_owned();
        if request.headers().get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-")) {
            return tonic::Status::unimplemented("gRPC-Web is not served; use gRPC or REST").into_http();
        }
        let admitted = match self.admit(&name, request.headers(), request.extensions(), None) {
            Ok(admitted) => admitted,
            Err(status) => return error::grpc(&status).into_http(),
        };
        let mut grpc = tonic::server::Grpc::new(Encoded).apply_max_message_size_config(Some(BODY_MAX_BYTES), None);
        if admitted.is_stream() {
            let mut admitted = Some(admitted);
            let stream = tower::service_fn(move |request: tonic::Request<tonic::Streaming<Bytes>>| {
                let admitted = admitted.take();
                async move {
                    let admitted = admitted.ok_or_else(|| tonic::Status::internal("a call is one call"))?;
                    // What breaks the stream is the client's end or the network's.
                    let requests = request.into_inner().map(|message| message.map_err(|status| Status::new(model::Code::Cancelled, status.message())));
                    let replies = admitted.stream(Box::pin(requests)).await.map_err(|status| error::grpc(&status))?;
                    Ok::<_, tonic::Status>(tonic::Response::new(replies.map(|reply| reply.map_err(|status| error::grpc(&status)))))
                }
            });
            return grpc.streaming(stream, request).await.map(axum::body::Body::new);
        }
        let mut admitted = Some(admitted);
        let unary = tower::service_fn(move |request: tonic::Request<Bytes>| {
            let admitted = admitted.take();
            async move {
                let admitted = admitted.ok_or_else(|| tonic::Status::internal("a unary call has one request"))?;
                admitted.call(request.into_inner()).await.map(tonic::Response::new).map_err(|status| error::grpc(&status))
            }
        });
        grpc.unary(unary, request).await.map(axum::body::Body::new)
    }
}

/// Whether a request is a gRPC call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A codec that leaves messages encoded.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
