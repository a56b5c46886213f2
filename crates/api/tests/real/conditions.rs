//! What conditions are asked about is what is meant, wherever a request names it; and nobody gets at another project by a group's name.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    ProjectId,
    policy::{Binding, Condition, Member, Policy},
};
use serde_json::{Value as Json, json};

use crate::{
    http::{Answer, JSON, send},
    storage::{bucket, object},
    world::{Clock, PROJECT, World},
};

const STORAGE: &str = "https://storage.googleapis.com";
const SECRETS: &str = "secretmanager.googleapis.com";
const GROUPS: &str = "cloudidentity.googleapis.com";
const TROUBLE: &str = "policytroubleshooter.googleapis.com";
const STRANGER: &str = "user:stranger@example.com";

fn when(role: &str, member: &str, expression: &str) -> Binding {
    let condition = Condition { title: "t".to_owned(), expression: expression.to_owned(), ..Default::default() };
    Binding { condition: Some(condition), ..Binding::new(role, vec![Member::parse(member).unwrap()]) }
}

async fn set(world: &World, resource: &str, bindings: Vec<Binding>) {
    world.iam.policy_set(resource, Policy { bindings }, "").await.unwrap();
}

pub async fn an_objects_name_counts_wherever_it_stands(world: &World) {
    bucket(world, "named-1").await;
    bucket(world, "named-2").await;
    let open = "resource.name.startsWith('projects/_/buckets/named-1/objects/open/')";
    let writer = world.iam.service_account_create(&ProjectId::parse(PROJECT).unwrap(), "writer-1", "", "").await.unwrap().email;
    let by_writer = when("roles/storage.objectCreator", &format!("serviceAccount:{writer}"), open);
    set(world, "buckets/named-1", vec![when("roles/storage.objectAdmin", STRANGER, open), by_writer]).await;
    let ask = async |path: &str, kind: &str, body: String| -> Answer {
        send(&world.api, Some(&world.stranger), "POST", &format!("{STORAGE}{path}"), &[("content-type", kind)], body).await
    };
    let upload = "/upload/storage/v1/b/named-1/o?uploadType=";
    let multipart = |name: &str| {
        format!("--b\r\ncontent-type: application/json\r\n\r\n{}\r\n--b\r\ncontent-type: text/plain\r\n\r\nhello\r\n--b--\r\n", json!({ "name": name }))
    };
    let related = "multipart/related; boundary=b";
    for (folder, status) in [("open", 200), ("closed", 403)] {
        let name = format!("{folder}/a");
        let told = |answer: Answer, what: &str| assert_eq!(answer.status, status, "{what} {name}: {}", answer.text());
        told(ask(&format!("{upload}resumable"), JSON.1, json!({ "name": name }).to_string()).await, "resumable");
        told(ask(&format!("{upload}multipart"), related, multipart(&name)).await, "multipart");
        told(ask(&format!("{upload}media&name={name}x"), "text/plain", "hello".to_owned()).await, "media");
        // The query's name counts, whatever the body says.
        told(ask(&format!("{upload}multipart&name={name}y"), related, multipart("open/z")).await, "both");
        told(ask(&format!("/named-1/{name}?uploads"), "text/plain", String::new()).await, "xml");
        let answer = send(&world.api, None, "POST", &format!("{STORAGE}/named-1"), &FORM, form(world, &writer, &format!("{name}f")).await).await;
        assert_eq!(answer.status, if folder == "open" { 204 } else { 403 }, "form {name}: {}", answer.text());
    }
    // Nor is a name chosen by a copy, a move or a composition.
    let path = |method: &str, name: &str| format!("/storage/v1/b/named-1/o/open%2Fa/{method}{}", name.replace('/', "%2F"));
    for (folder, status) in [("open", 200), ("closed", 403)] {
        let told = |answer: Answer, what: &str| assert_eq!(answer.status, status, "{what} {folder}: {}", answer.text());
        told(ask(&path("rewriteTo/b/named-1/o/", &format!("{folder}/r")), JSON.1, "{}".to_owned()).await, "rewrite");
        told(ask(&path("copyTo/b/named-1/o/", &format!("{folder}/c")), JSON.1, "{}".to_owned()).await, "copy");
        let sources = json!({ "sourceObjects": [{ "name": "open/a" }] }).to_string();
        told(ask(&format!("/storage/v1/b/named-1/o/{folder}%2Fd/compose"), JSON.1, sources).await, "compose");
        told(ask(&path("moveTo/o/", &format!("{folder}/m")), JSON.1, "{}".to_owned()).await, "move");
        ask(&format!("{upload}media&name=open/a"), "text/plain", "hello".to_owned()).await.good();
    }
    // A bucket with no such binding refuses before anything is read.
    let elsewhere = ask("/upload/storage/v1/b/named-2/o?uploadType=multipart", related, "no multipart".to_owned()).await;
    assert_eq!(elsewhere.status, 403, "{}", elsewhere.text());
}

const FORM: [(&str, &str); 1] = [("content-type", "multipart/form-data; boundary=b")];

/// A form whose policy `email` signed, that lets any key be.
async fn form(world: &World, email: &str, key: &str) -> String {
    let date = model::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let credential = format!("{email}/{}/auto/storage/goog4_request", &date[..8]);
    let algorithm = "GOOG4-RSA-SHA256";
    let conditions = json!([
        { "bucket": "named-1" }, ["starts-with", "$key", ""], { "x-goog-algorithm": algorithm }, { "x-goog-credential": credential }, { "x-goog-date": date },
    ]);
    let policy = STANDARD.encode(json!({ "expiration": "2999-01-01T00:00:00Z", "conditions": conditions }).to_string());
    let signature = hex::encode(world.iam.blob_sign(email, policy.as_bytes()).await.unwrap().value);
    let fields = [
        ("key", key),
        ("x-goog-algorithm", algorithm),
        ("x-goog-credential", &credential),
        ("x-goog-date", &date),
        ("policy", &policy),
        ("x-goog-signature", &signature),
    ];
    let fields: String = fields.iter().map(|(name, value)| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")).collect();
    fields + "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nhello\r\n--b--\r\n"
}

pub async fn a_list_has_one_prefix(world: &World) {
    bucket(world, "listed-1").await;
    object(world, "listed-1", "closed/a", "x").await;
    let prefix = "api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('open/')";
    set(world, "buckets/listed-1", vec![when("roles/storage.objectViewer", STRANGER, prefix)]).await;
    for (query, status) in [
        ("prefix=open/", 200),
        ("prefix=closed/", 403),
        ("prefix=closed/&prefix=open/", 400),
        ("prefix=closed/&pre%66ix=open/", 400),
        ("prefix=open/&prefix=closed/", 403),
    ] {
        for path in ["/listed-1", "/storage/v1/b/listed-1/o"] {
            let answer = send(&world.api, Some(&world.stranger), "GET", &format!("{STORAGE}{path}?{query}"), &[], "").await;
            assert_eq!(answer.status, status, "{path}?{query}: {}", answer.text());
            assert!(!answer.text().contains("closed/a"), "{}", answer.text());
        }
    }
}

pub async fn a_secrets_version_is_meant_by_its_number(world: &World) {
    let path = format!("/v1/projects/{PROJECT}/secrets");
    world.good("POST", SECRETS, &format!("{path}?secretId=numbered"), Some(json!({ "replication": { "automatic": {} } }))).await;
    for bytes in ["one", "two"] {
        world.good("POST", SECRETS, &format!("{path}/numbered:addVersion"), Some(json!({ "payload": { "data": STANDARD.encode(bytes) } }))).await;
    }
    let aliases = json!({ "versionAliases": { "old": "1", "new": "2" } });
    world.good("PATCH", SECRETS, &format!("{path}/numbered?updateMask=versionAliases"), Some(aliases)).await;
    let resource = format!("projects/{PROJECT}/secrets/numbered");
    for expression in ["resource.name.endsWith('/versions/1')", "!resource.name.endsWith('/versions/2')"] {
        set(world, &resource, vec![when("roles/secretmanager.secretAccessor", STRANGER, expression)]).await;
        for (version, status) in [("1", 200), ("01", 200), ("old", 200), ("2", 403), ("02", 403), ("new", 403), ("latest", 403)] {
            let (got, answer) = world.call(Some(&world.stranger), "GET", SECRETS, &format!("{path}/numbered/versions/{version}:access"), None).await;
            assert_eq!(got, status, "{expression} {version}: {answer}");
            if status == 200 {
                assert!(answer["name"].as_str().unwrap().ends_with("/versions/1"), "{answer}");
            }
        }
    }
    world.good("DELETE", SECRETS, &format!("{path}/numbered"), None).await;
}

/// A project beside the default one, with an owner of its own; the default one's owner has nothing there.
async fn other_project(world: &World, id: &str) -> (String, String) {
    let project = control::project_ensure(&world.store, &Clock, &ProjectId::parse(id).unwrap()).await.unwrap();
    let boss = format!("boss@{id}.example");
    world.iam.user_create(&boss).await.unwrap();
    let token = world.iam.access_token_issue(&world.iam.identity(&boss), "", Duration::from_secs(3600)).token;
    set(world, &format!("projects/{}", project.id), vec![Binding::new("roles/owner", vec![Member::User(boss.clone())])]).await;
    (boss, token)
}

pub async fn a_group_that_another_project_names_is_changed_by_who_may_set_its_policy(world: &World) {
    let (boss, _) = other_project(world, "groups-project").await;
    let owner = || Member::User(boss.clone());
    let create = async |email: &str| {
        world.call(Some(&world.owner), "POST", GROUPS, "/v1/groups", Some(json!({ "parent": "customers/x", "groupKey": { "id": email } }))).await
    };
    let id = async |email: &str| {
        let (status, made) = create(email).await;
        assert_eq!(status, 200, "{made}");
        made["response"]["name"].as_str().unwrap().to_owned()
    };
    let (team, inner, free) = (id("team@groups.example").await, id("inner@groups.example").await, id("free@groups.example").await);
    let add = async |group: &str, email: &str| {
        let body = json!({ "preferredMemberKey": { "id": email }, "roles": [{ "name": "MEMBER" }] });
        world.call(Some(&world.owner), "POST", GROUPS, &format!("/v1/{group}/memberships"), Some(body)).await
    };
    let (status, member) = add(&team, "inner@groups.example").await;
    assert_eq!(status, 200, "{member}");
    let member = member["response"]["name"].as_str().unwrap().to_owned();
    let named = ["team@groups.example", "later@groups.example"].map(|email| Member::Group(email.to_owned()));
    set(world, "projects/groups-project", vec![Binding::new("roles/owner", [owner()].into_iter().chain(named).collect())]).await;

    let refused = |(status, answer): (http::StatusCode, Json)| {
        assert_eq!(status, 403, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("resourcemanager.projects.setIamPolicy"), "{answer}");
    };
    refused(add(&team, "owner@example.com").await);
    refused(add(&inner, "owner@example.com").await);
    refused(create("later@groups.example").await);
    refused(world.call(Some(&world.owner), "DELETE", GROUPS, &format!("/v1/{member}"), None).await);
    refused(world.call(Some(&world.owner), "DELETE", GROUPS, &format!("/v1/{team}"), None).await);
    assert_eq!(add(&free, "a@x.y").await.0, 200);

    let both = vec![owner(), Member::User("owner@example.com".to_owned()), Member::Group("team@groups.example".to_owned())];
    set(world, "projects/groups-project", vec![Binding::new("roles/owner", both)]).await;
    assert_eq!(add(&inner, "b@x.y").await.0, 200);
    for group in [team, inner, free] {
        world.good("DELETE", GROUPS, &format!("/v1/{group}"), None).await;
    }
}

pub async fn the_simulator_tells_of_the_named_project_alone(world: &World) {
    let (boss, token) = other_project(world, "asked-project").await;
    let ask = async |token: &str, project: &str, question: &str| {
        world.call(Some(token), "GET", TROUBLE, &format!("/tanebi/v1/projects/{project}:{question}"), None).await
    };
    // What is there and what is not look the same from another project.
    world.good("POST", SECRETS, &format!("/v1/projects/{PROJECT}/secrets?secretId=asked"), Some(json!({ "replication": { "automatic": {} } }))).await;
    let account = world.compute();
    for (there, absent) in [
        (format!("projects/{PROJECT}/secrets/asked"), format!("projects/{PROJECT}/secrets/absent")),
        (format!("projects/{PROJECT}"), "projects/absent-project".to_owned()),
        (format!("projects/-/serviceAccounts/{account}"), "projects/-/serviceAccounts/absent@x.iam.gserviceaccount.com".to_owned()),
        (format!("projects/{PROJECT}/serviceAccounts/{account}"), format!("projects/{PROJECT}/serviceAccounts/absent@x.iam.gserviceaccount.com")),
    ] {
        for method in ["whyDenied?principal=a@x.y&permission=secretmanager.versions.access", "whoCan?permission=secretmanager.versions.access"] {
            let of = async |name: &str| {
                let (status, answer) = ask(&token, "asked-project", &format!("{method}&resource={name}")).await;
                assert!(matches!(status.as_u16(), 403 | 404), "{name}: {answer}");
                let message = answer["error"]["message"].as_str().unwrap();
                (status, message.replace(name, "X").replace(name.split("/secrets").next().unwrap(), "P").replace(&account, "A"))
            };
            let (there, absent) = (of(&there).await, of(&absent).await);
            assert_eq!(there.0, absent.0);
            if !there.1.contains('X') {
                assert_eq!(there.1.split('\'').next(), absent.1.split('\'').next());
            }
        }
    }
    world.good("DELETE", SECRETS, &format!("/v1/projects/{PROJECT}/secrets/asked"), None).await;

    // Who is in a group is told to who may read groups.
    world.iam.group_create("asked@groups.example", "", "").await.unwrap();
    world.iam.group_member_add("asked@groups.example", "hidden@example.com").await.unwrap();
    let members = vec![Member::User(boss), Member::User("owner@example.com".to_owned()), Member::Group("asked@groups.example".to_owned())];
    set(world, "projects/asked-project", vec![Binding::new("roles/owner", members)]).await;
    let question = "whoCan?permission=resourcemanager.projects.get&resource=projects/asked-project";
    let (status, by_boss) = ask(&token, "asked-project", question).await;
    assert_eq!(status, 200, "{by_boss}");
    assert!(!by_boss.to_string().contains("hidden@example.com") && by_boss.to_string().contains("group:asked@groups.example"), "{by_boss:#}");
    let (_, by_owner) = ask(&world.owner, "asked-project", question).await;
    assert!(by_owner.to_string().contains("hidden@example.com"), "{by_owner:#}");
    // And never more than a thousand.
    for number in 0..20 {
        world.iam.group_member_add("asked@groups.example", &format!("m{number}@example.com")).await.unwrap();
    }
    let mut members: Vec<Member> = (0..990).map(|number| Member::User(format!("u{number}@example.com"))).collect();
    members.extend([Member::User("owner@example.com".to_owned()), Member::Group("asked@groups.example".to_owned())]);
    set(world, "projects/asked-project", vec![Binding::new("roles/owner", members)]).await;
    let (_, many) = ask(&world.owner, "asked-project", question).await;
    assert_eq!((many["principals"].as_array().unwrap().len(), &many["truncated"]), (1000, &json!(true)));
    world.iam.group_delete("asked@groups.example").await.unwrap();
}
