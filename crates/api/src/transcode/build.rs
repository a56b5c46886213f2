//! Reads the routes out of the descriptors.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, MethodDescriptor};

use super::{Route, Transcoder, pool};
use crate::{grpc::Methods, template::Template};

/// Bindings that Google keeps in each API's service configuration rather than in a proto: method, verb, template, body.
const MIXINS: &[(&str, &str, &str, &str)] = &[
    ("google.longrunning.Operations/GetOperation", "GET", "/v2/{name=projects/*/locations/*/operations/*}", ""),
    ("google.longrunning.Operations/ListOperations", "GET", "/v2/{name=projects/*/locations/*}/operations", ""),
    ("google.longrunning.Operations/WaitOperation", "POST", "/v2/{name=projects/*/locations/*/operations/*}:wait", "*"),
    ("google.longrunning.Operations/GetOperation", "GET", "/v1/{name=projects/*/locations/*/operations/*}", ""),
    ("google.cloud.run.v2.Services/GetIamPolicy", "GET", "/v1/{resource=projects/*/locations/*/services/*}:getIamPolicy", ""),
    ("google.cloud.run.v2.Services/SetIamPolicy", "POST", "/v1/{resource=projects/*/locations/*/services/*}:setIamPolicy", "*"),
    ("google.cloud.run.v2.Services/TestIamPermissions", "POST", "/v1/{resource=projects/*/locations/*/services/*}:testIamPermissions", "*"),
    ("google.iam.v1.IAMPolicy/GetIamPolicy", "GET", "/v1/{resource=projects/*/topics/*}:getIamPolicy", ""),
    ("google.iam.v1.IAMPolicy/GetIamPolicy", "GET", "/v1/{resource=projects/*/subscriptions/*}:getIamPolicy", ""),
    ("google.iam.v1.IAMPolicy/GetIamPolicy", "GET", "/v1/{resource=projects/*/snapshots/*}:getIamPolicy", ""),
    ("google.iam.v1.IAMPolicy/GetIamPolicy", "GET", "/v1/{resource=projects/*/schemas/*}:getIamPolicy", ""),
    ("google.iam.v1.IAMPolicy/SetIamPolicy", "POST", "/v1/{resource=projects/*/topics/*}:setIamPolicy", "*"),
    ("google.iam.v1.IAMPolicy/SetIamPolicy", "POST", "/v1/{resource=projects/*/subscriptions/*}:setIamPolicy", "*"),
    ("google.iam.v1.IAMPolicy/SetIamPolicy", "POST", "/v1/{resource=projects/*/snapshots/*}:setIamPolicy", "*"),
    ("google.iam.v1.IAMPolicy/SetIamPolicy", "POST", "/v1/{resource=projects/*/schemas/*}:setIamPolicy", "*"),
    ("google.iam.v1.IAMPolicy/TestIamPermissions", "POST", "/v1/{resource=projects/*/topics/*}:testIamPermissions", "*"),
    ("google.iam.v1.IAMPolicy/TestIamPermissions", "POST", "/v1/{resource=projects/*/subscriptions/*}:testIamPermissions", "*"),
    ("google.iam.v1.IAMPolicy/TestIamPermissions", "POST", "/v1/{resource=projects/*/snapshots/*}:testIamPermissions", "*"),
    ("google.iam.v1.IAMPolicy/TestIamPermissions", "POST", "/v1/{resource=projects/*/schemas/*}:testIamPermissions", "*"),
    ("google.cloud.location.Locations/ListLocations", "GET", "/v2/{name=projects/*}/locations", ""),
    ("google.cloud.location.Locations/GetLocation", "GET", "/v2/{name=projects/*/locations/*}", ""),
];

impl Transcoder {
    /// The routes of `methods`.
    ///
    /// # Panics
    /// When a method is not in the protos, a template is malformed, or two methods of one host claim the same path.
    pub(crate) fn new(methods: &Methods) -> Self {
        let http = pool().get_extension_by_name("google.api.http").expect("the protos have google/api/http.proto");
        let mut routes = Vec::new();
        for registered in methods.iter() {
            let method = descriptor(registered.name);
            let mut bind = |verb: &str, path: &str, body: &str| {
                let template = Template::parse(path).expect("a template of Google's");
                // Google binds some methods to resources that are not served here, such as revisions of worker pools.
                if !template.can_be(registered.resource.0, registered.resource.1) {
                    return;
                }
                routes.push(Route {
                    verb: verb.parse().expect("a verb of google.api.http"),
                    template,
                    hosts: registered.hosts,
                    name: registered.name.to_owned(),
                    method: method.clone(),
                    body: body.to_owned(),
                });
            };
            for (_, verb, path, body) in MIXINS.iter().filter(|(name, ..)| *name == registered.name) {
                bind(verb, path, body);
            }
            let options = method.options();
            if !options.has_extension(&http) {
                continue;
            }
            let rule = options.get_extension(&http);
            let rule = rule.as_message().expect("google.api.http is a message");
            for (verb, path, body) in bindings(rule) {
                bind(&verb, &path, &body);
            }
        }
        routes.sort_by_key(|route| route.template.rank());
        if let Some(twice) = ambiguity(&routes) {
            panic!("two methods claim {twice}");
        }
        Self { routes }
    }
}

fn descriptor(name: &str) -> MethodDescriptor {
    let (service, method) = name.split_once('/').expect("a method's name has a slash");
    let service = pool().get_service_by_name(service).unwrap_or_else(|| panic!("the protos have no service {service}"));
    service.methods().find(|m| m.name() == method).unwrap_or_else(|| panic!("the protos have no method {name}"))
}

/// Verb, path and body of a rule and of its additional bindings.
fn bindings(rule: &DynamicMessage) -> Vec<(String, String, String)> {
    let text = |rule: &DynamicMessage, name: &str| rule.get_field_by_name(name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let one = |rule: &DynamicMessage| {
        let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| rule.has_field_by_name(verb))?;
        Some((verb.to_uppercase(), text(rule, verb), text(rule, "body")))
    };
    let more = rule.get_field_by_name("additional_bindings");
    let more = more.iter().flat_map(|list| list.as_list().unwrap_or_default()).filter_map(|rule| one(rule.as_message()?));
    one(rule).into_iter().chain(more).collect()
}

fn ambiguity(routes: &[Route]) -> Option<String> {
    let mut seen = BTreeSet::new();
    for route in routes {
        for host in route.hosts {
            let claim = format!("{} {host}{}", route.verb, route.template.shape());
            if !seen.insert(claim.clone()) {
                return Some(claim);
            }
        }
    }
    None
}
