//! Who may call, from where, and what the function gets to see of a token.

use futures_util::FutureExt;
use model::{
    policy::{Binding, Member, Policy},
    service::Ingress,
};
use serving::Origin;

use crate::world::{Answer, Check, OWNER, PROJECT, World, full, host, request, text, until, whole};

pub const CHECKS: &[Check] = &[
    ("who may not call gets Google's pages, and nothing is started", |world| refused(world).boxed()),
    ("who may call does, and the function sees no usable token", |world| admitted(world).boxed()),
    ("all forms of the URL are audiences", |world| audiences(world).boxed()),
    ("a public service lets foreign tokens through and refuses bad ones of our own", |world| public(world).boxed()),
    ("ingress comes before everything", |world| ingress(world).boxed()),
    ("traffic follows the split and the tags", |world| traffic(world).boxed()),
    ("a deleted service has no hosts", |world| deleted(world).boxed()),
];

async fn call(world: &World, host: &str, path: &str, tokens: &[(&str, &str)]) -> Answer {
    let mut call = request("GET", host, path);
    for (name, token) in tokens {
        call = call.header(*name, format!("bearer {token}"));
    }
    world.send(call.body(full("")).unwrap()).await
}

async fn refused(world: &World) {
    let service = world.service().service(|service| service.invoker_iam_disabled = false).deploy().await;
    let host = host(&service);
    let answer = call(world, &host, "/a&b?c", &[]).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("Your client does not have permission to get URL <code>/a&amp;b</code> from this server."), "{}", answer.body);
    let owner = world.iam.identity(OWNER);
    world.iam.user_create("stranger@example.com").await.unwrap();
    let stranger = world.iam.identity("stranger@example.com");
    let url = format!("https://{host}");
    let foreign = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln";
    for (token, expect) in [
        (world.iam.id_token_issue(&stranger, &url, true), 403),
        (world.iam.id_token_issue(&owner, "https://other.run.app", true), 401),
        (foreign.to_owned(), 401),
        ("nonsense".to_owned(), 401),
    ] {
        let answer = call(world, &host, "/", &[("authorization", &token)]).await;
        assert_eq!(answer.status, expect, "{token}");
        assert_eq!(answer.header("www-authenticate").is_empty(), expect == 403);
    }
    let entry = world.request_log_until(&service, 401).await;
    assert!(text(&entry).starts_with("The request was not authorized to invoke this service. The access token could not be verified"));
    assert!(world.instances(&service).is_empty());
}

async fn admitted(world: &World) {
    let service = world.service().service(|service| service.invoker_iam_disabled = false).deploy().await;
    let host = host(&service);
    world.iam.user_create("caller@example.com").await.unwrap();
    let caller = world.iam.identity("caller@example.com");
    let policy = Policy { bindings: vec![Binding::new("roles/run.invoker", vec![Member::parse("user:caller@example.com").unwrap()])] };
    let token = world.iam.id_token_issue(&caller, &format!("https://{host}"), true);
    assert_eq!(call(world, &host, "/", &[("authorization", &token)]).await.status, 403);
    world.iam.policy_set(&service.resource(), policy, "").await.unwrap();
    assert_eq!(call(world, &host, "/", &[("authorization", &token)]).await.status, 200);
    // The serverless header comes first and leaves the other to the application; neither arrives usable.
    let own = "app-token";
    assert_eq!(call(world, &host, "/", &[("authorization", own)]).await.status, 401);
    for tokens in [[("authorization", token.as_str()), ("x-other", "x")], [("authorization", own), ("x-serverless-authorization", token.as_str())]] {
        let answer = call(world, &host, "/headers", &tokens).await;
        assert_eq!(answer.status, 200);
        let signature = token.rsplit('.').next().unwrap();
        assert!(!answer.body.contains(signature) && answer.body.contains("SIGNATURE_REMOVED_BY_GOOGLE"), "{}", answer.body);
        let claims = token.rsplit_once('.').unwrap().0;
        assert!(answer.body.contains(&format!("bearer {claims}.SIGNATURE_REMOVED_BY_GOOGLE")));
        assert_eq!(answer.body.contains("bearer app-token"), tokens[1].0 == "x-serverless-authorization");
    }
    // Gone as soon as it is taken away.
    let etag = world.iam.policy_get(&service.resource()).unwrap().etag;
    world.iam.policy_set(&service.resource(), Policy::default(), &etag).await.unwrap();
    assert_eq!(call(world, &host, "/", &[("authorization", &token)]).await.status, 403);
}

async fn audiences(world: &World) {
    let change = |service: &mut model::Service| {
        service.invoker_iam_disabled = false;
        service.custom_audiences = vec!["my-audience".to_owned()];
    };
    let service = world.service().service(change).deploy().await;
    let other = host(&world.service().deploy().await);
    let hashed = model::address::host_hashed(&service.service, crate::world::NUMBER, service.region.as_str()).unwrap();
    let owner = world.iam.identity(OWNER);
    let host = host(&service);
    for (audience, expect) in [
        (format!("https://{host}"), 200),
        (format!("https://{host}/"), 200),
        (format!("https://{hashed}.run.app"), 200),
        (format!("http://{hashed}.run.localhost:8080/"), 200),
        ("my-audience".to_owned(), 200),
        (iam::GCLOUD_CLIENT_ID.to_owned(), 200),
        (format!("https://{other}"), 401),
        (format!("https://{host}/path"), 200),
        (format!("https://{host}/path?a=1"), 401),
        (host.clone(), 401),
    ] {
        let token = world.iam.id_token_issue(&owner, &audience, true);
        assert_eq!(call(world, &format!("{hashed}.run.app:8080").to_uppercase(), "/", &[("authorization", &token)]).await.status, expect, "{audience}");
    }
}

async fn public(world: &World) {
    let service = world.service().service(|service| service.invoker_iam_disabled = false).deploy().await;
    let policy = Policy { bindings: vec![Binding::new("roles/run.invoker", vec![Member::AllUsers])] };
    world.iam.policy_set(&service.resource(), policy, "").await.unwrap();
    let host = host(&service);
    let owner = world.iam.identity(OWNER);
    assert_eq!(call(world, &host, "/", &[]).await.status, 200);
    assert_eq!(call(world, &host, "/", &[("authorization", "session-4711")]).await.status, 200);
    let elsewhere = world.iam.id_token_issue(&owner, "https://other.run.app", true);
    assert_eq!(call(world, &host, "/", &[("authorization", &elsewhere)]).await.status, 401);
}

async fn ingress(world: &World) {
    let mut deployment = world.service();
    let service = deployment.deploy().await;
    let host = host(&service);
    let from = |project: &str| {
        let call = request("GET", &host, "/").body(full("")).unwrap();
        let serving = world.serving.clone();
        let origin = Origin::Inside { project: project.to_owned() };
        async move { whole(serving.handle(origin, call).await).await.status }
    };
    assert_eq!((world.get(&host, "/").await.status, from(PROJECT).await, from("other-project").await), (200, 200, 200));
    deployment.service.ingress = Ingress::Internal;
    deployment.deploy().await;
    let answer = world.get(&host, "/").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("<h1>Error: Page not found</h1>\n<h2>The requested URL was not found on this server.</h2>"));
    assert_eq!((from(PROJECT).await, from("other-project").await), (200, 404));
    deployment.service.default_uri_disabled = true;
    deployment.deploy().await;
    assert_eq!(from(PROJECT).await, 404);
}

async fn traffic(world: &World) {
    let mut deployment = world.service().template(|template| template.container.env = vec![("WHICH".to_owned(), "one".to_owned())]);
    let one = deployment.revision().name;
    deployment.service.template.container.env[0].1 = "two".to_owned();
    let two = deployment.revision().name;
    let service = deployment.traffic(&[(&one, 50, None), (&two, 50, Some("green"))]).await;
    let host = host(&service);
    let which = |host: String| async move {
        let env: std::collections::BTreeMap<String, String> = serde_json::from_str(&world.get(&host, "/env").await.body).unwrap();
        env["WHICH"].clone()
    };
    let mut ones = 0;
    for _ in 0..100 {
        ones += u32::from(which(host.clone()).await == "one");
    }
    // Outside of this only once in a hundred million times.
    assert!((22..=78).contains(&ones), "{ones}");
    for _ in 0..10 {
        assert_eq!(which(format!("green---{host}")).await, "two");
    }
    deployment.traffic(&[(&one, 100, None)]).await;
    assert_eq!(which(host.clone()).await, "one");
    assert_eq!(world.get(&format!("green---{host}"), "/").await.status, 404);
}

async fn deleted(world: &World) {
    let mut deployment = world.service();
    let service = deployment.deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    deployment.service.deleted = Some(model::Timestamp::UNIX_EPOCH);
    deployment.deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 404);
    until("its instances have ended", || async { world.instances(&service).is_empty() && world.serving.instances().is_empty() }).await;
}
