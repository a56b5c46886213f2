//! Who may do what, and how policies change.

use model::{
    Code, Status,
    policy::{Binding, Member, Policy, VersionedPolicy},
};

use super::*;
use crate::Role;

pub(crate) fn policy(bindings: &[(&str, &[&str])]) -> Policy {
    let bindings = bindings.iter().map(|(role, members)| Binding::new(*role, members.iter().map(|m| Member::parse(m).unwrap()).collect())).collect();
    Policy { bindings }
}

fn text(policy: &Policy) -> Vec<(String, Vec<String>)> {
    policy.bindings.iter().map(|b| (b.role.clone(), b.members.iter().map(Member::to_string).collect())).collect()
}

const SERVICE: &str = "projects/local-project/locations/asia-northeast1/services/f";
const OTHER_SERVICE: &str = "projects/local-project/locations/asia-northeast1/services/g";
const BUCKET: &str = "buckets/b";
const ACCOUNT: &str = "projects/local-project/serviceAccounts/9000000000001-compute@developer.gserviceaccount.com";

#[tokio::test]
async fn the_first_policy_is_the_owners_and_the_compute_accounts() {
    let world = World::new().await;
    let got = world.iam.policy_get("projects/local-project").unwrap();
    assert_eq!(got.policy, policy(&[("roles/owner", &["user:owner@example.com"]), ("roles/editor", &[&format!("serviceAccount:{COMPUTE}")])]));
    let none = world.iam.policy_get(SERVICE).unwrap();
    assert_eq!(none, VersionedPolicy { policy: Policy::default(), etag: "ACAB".to_owned() });
    assert_eq!(world.iam.policy_get("projects/local-project/queues/q").unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn may_is_no_unless_a_binding_says_yes() {
    let world = World::new().await;
    let iam = &world.iam;
    for email in ["alice@example.com", "bob@corp.example", "eve@evil.example"] {
        iam.user_create(email).await.unwrap();
    }
    let worker = iam.service_account_create(&project(), "worker", "", "").await.unwrap().email;
    let set = async |resource: &str, bindings: &[(&str, &[&str])]| iam.policy_set(resource, policy(bindings), "").await.unwrap();
    set(
        "projects/local-project",
        &[
            ("roles/owner", &["user:owner@example.com"]),
            ("roles/editor", &[&format!("serviceAccount:{COMPUTE}")]),
            ("roles/run.viewer", &["domain:corp.example"]),
            ("roles/run.admin", &["group:admins@example.com"]),
        ],
    )
    .await;
    set(SERVICE, &[("roles/run.invoker", &["user:alice@example.com", &format!("serviceAccount:{worker}")])]).await;
    set(OTHER_SERVICE, &[("roles/run.invoker", &["allUsers"]), ("roles/run.viewer", &["allAuthenticatedUsers"])]).await;
    set(BUCKET, &[("roles/storage.objectViewer", &["user:alice@example.com"])]).await;
    set(
        ACCOUNT,
        &[("roles/iam.serviceAccountUser", &["user:alice@example.com"]), ("roles/iam.serviceAccountTokenCreator", &[&format!("serviceAccount:{worker}")])],
    )
    .await;

    let [owner, alice, bob, eve] = [OWNER, "alice@example.com", "bob@corp.example", "eve@evil.example"].map(|email| Some(iam.identity(email)));
    let [compute, worker] = [COMPUTE, &worker].map(|email| Some(iam.identity(email)));
    let admins = Some(iam.identity("admins@example.com"));
    // Someone else's kind with the same address.
    let imposter = alice.clone().map(|who| Identity { kind: crate::Kind::ServiceAccount, ..who });
    let none: Option<Identity> = None;
    let (invoke, get, create, act) = ("run.routes.invoke", "run.services.get", "run.services.create", "iam.serviceAccounts.actAs");
    let (project, r) = ("projects/local-project", PROJECT);
    /// Name, who, permission, resource, project, answer.
    type Row<'a> = (&'a str, &'a Option<Identity>, &'a str, &'a str, &'a str, bool);
    let table: &[Row] = &[
        ("invoker", &alice, invoke, SERVICE, r, true),
        ("invoker, no project said", &alice, invoke, SERVICE, "", true),
        ("invoker account", &worker, invoke, SERVICE, r, true),
        ("invoker reads nothing", &alice, get, SERVICE, r, false),
        ("not on the project", &alice, invoke, project, r, false),
        ("stranger", &eve, invoke, SERVICE, r, false),
        ("anonymous", &none, invoke, SERVICE, r, false),
        ("other kind, same address", &imposter, invoke, SERVICE, r, false),
        ("everyone: anonymous", &none, invoke, OTHER_SERVICE, r, true),
        ("everyone: stranger", &eve, invoke, OTHER_SERVICE, r, true),
        ("whoever signed in: stranger", &eve, get, OTHER_SERVICE, r, true),
        ("whoever signed in: account", &worker, get, OTHER_SERVICE, r, true),
        ("whoever signed in: not anonymous", &none, get, OTHER_SERVICE, r, false),
        ("owner by inheritance", &owner, invoke, SERVICE, r, true),
        ("owner creates", &owner, create, project, r, true),
        ("owner sets the project's policy", &owner, "resourcemanager.projects.setIamPolicy", project, r, true),
        ("owner, project not said", &owner, invoke, SERVICE, "", false),
        ("owner, elsewhere", &owner, invoke, "projects/other-project/locations/r/services/f", "other-project", false),
        ("owner, elsewhere, project lied about", &owner, invoke, "projects/other-project/locations/r/services/f", r, false),
        ("owner, name that begins alike", &owner, invoke, "projects/local-project-2/locations/r/services/f", r, false),
        ("owner in a bucket", &owner, "storage.objects.create", BUCKET, r, true),
        ("owner in a bucket of nobody", &owner, "storage.objects.create", BUCKET, "", false),
        ("owner makes no tokens", &owner, "iam.serviceAccounts.getAccessToken", ACCOUNT, r, false),
        ("editor", &compute, create, project, r, true),
        ("editor sets no policy", &compute, "run.services.setIamPolicy", SERVICE, r, false),
        ("domain", &bob, get, SERVICE, r, true),
        ("domain, not more", &bob, invoke, SERVICE, r, false),
        ("domain, not others", &eve, get, SERVICE, r, false),
        ("group has nobody", &admins, get, SERVICE, r, false),
        ("bucket reader", &alice, "storage.objects.get", BUCKET, r, true),
        ("bucket reader writes not", &alice, "storage.objects.create", BUCKET, r, false),
        ("other bucket", &alice, "storage.objects.get", "buckets/c", r, false),
        ("acts as", &alice, act, ACCOUNT, r, true),
        ("acts as, not another", &alice, act, "projects/local-project/serviceAccounts/x@y", r, false),
        ("makes tokens", &worker, "iam.serviceAccounts.getOpenIdToken", ACCOUNT, r, true),
        ("makes tokens, acts not", &worker, act, ACCOUNT, r, false),
        ("unknown permission", &owner, "run.services.fly", SERVICE, r, false),
        ("no permission", &owner, "", SERVICE, r, false),
        ("long project", &owner, invoke, "buckets/b", &"p".repeat(300), false),
        ("no resource", &owner, invoke, "", "", false),
    ];
    for (name, who, permission, resource, project, expect) in table {
        assert_eq!(iam.may(who.as_ref(), permission, resource, project), *expect, "{name}");
        let asked = [(*permission).to_owned()];
        assert_eq!(iam.test_permissions(who.as_ref(), &asked, resource, project).len(), usize::from(*expect), "{name}");
    }
    let asked = [invoke, get, "run.services.fly", create].map(str::to_owned);
    assert_eq!(iam.test_permissions(alice.as_ref(), &asked, SERVICE, r), [invoke]);
}

/// Every role against every permission: what the table says, on the resource and by inheritance, and nothing else.
#[tokio::test]
async fn roles_give_their_permissions_and_no_others() {
    let world = World::new().await;
    let iam = &world.iam;
    let alice = iam.identity("alice@example.com");
    for role in Role::all() {
        for (resource, project) in [(SERVICE, ""), ("projects/local-project", PROJECT)] {
            let bindings: &[(&str, &[&str])] = &[("roles/owner", &["user:owner@example.com"]), (role.name, &["user:alice@example.com"])];
            iam.policy_set(resource, policy(bindings), "").await.unwrap();
            let held: Vec<_> = role.permissions().collect();
            for other in Role::all() {
                for permission in other.permissions() {
                    assert_eq!(iam.may(Some(&alice), permission, SERVICE, project), held.contains(&permission), "{} {permission}", role.name);
                }
            }
            if resource == SERVICE {
                iam.policy_delete(SERVICE).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn revocation_is_effective_at_once() {
    let world = World::new().await;
    let iam = &world.iam;
    let alice = iam.identity("alice@example.com");
    for _ in 0..20 {
        iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["user:alice@example.com"])]), "").await.unwrap();
        assert!(iam.may(Some(&alice), "run.routes.invoke", SERVICE, PROJECT));
        iam.policy_set(SERVICE, Policy::default(), "").await.unwrap();
        assert!(!iam.may(Some(&alice), "run.routes.invoke", SERVICE, PROJECT));
    }
    iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["allUsers"])]), "").await.unwrap();
    iam.policy_delete(SERVICE).await.unwrap();
    assert!(!iam.may(None, "run.routes.invoke", SERVICE, PROJECT));
    assert_eq!(iam.policy_get(SERVICE).unwrap().etag, "ACAB");
}

#[tokio::test]
async fn policies_are_kept_tidy() {
    let world = World::new().await;
    let set = world.iam.policy_set(
        SERVICE,
        policy(&[
            ("roles/run.viewer", &["user:b@x.y", "user:a@x.y", "user:B@X.Y"]),
            ("roles/run.invoker", &[]),
            ("roles/run.viewer", &["user:a@x.y", "allUsers"]),
        ]),
        "",
    );
    let set = set.await.unwrap();
    let expect = [("roles/run.viewer".to_owned(), vec!["user:b@x.y".to_owned(), "user:a@x.y".to_owned(), "allUsers".to_owned()])];
    assert_eq!(text(&set.policy), expect);
    assert_eq!(world.iam.policy_get(SERVICE).unwrap(), set);
    assert!(set.etag.starts_with("Bw") && set.etag.len() == 12, "{}", set.etag);
}

#[tokio::test]
async fn policies_that_cannot_be_are_refused() {
    let world = World::new().await;
    let iam = &world.iam;
    let owner: (&str, &[&str]) = ("roles/owner", &["user:owner@example.com"]);
    let check = async |resource: &str, policy: Policy, expect: Code, word: &str| {
        let before = iam.policy_get(resource).ok();
        let refused = iam.policy_set(resource, policy, "").await.unwrap_err();
        assert_eq!(refused.code, expect, "{refused}");
        assert!(refused.outer.contains(word), "{refused}");
        assert_eq!(iam.policy_get(resource).ok(), before);
    };
    check(SERVICE, policy(&[("roles/run.flyer", &["allUsers"])]), Code::InvalidArgument, "roles/run.flyer").await;
    check(SERVICE, policy(&[("run.invoker", &["allUsers"])]), Code::InvalidArgument, "run.invoker").await;
    check(SERVICE, policy(&[("roles/run.invoker", &["serviceAccount:gone@local-project.iam.gserviceaccount.com"])]), Code::InvalidArgument, "gone@").await;
    check(SERVICE, policy(&[("roles/run.invoker", &["serviceAccount:someone@example.com"])]), Code::InvalidArgument, "someone@").await;
    for everyone in ["allUsers", "allAuthenticatedUsers"] {
        check("projects/local-project", policy(&[owner, ("roles/run.invoker", &[everyone])]), Code::InvalidArgument, "allUsers").await;
    }
    check("projects/local-project", Policy::default(), Code::FailedPrecondition, "owner").await;
    check("projects/local-project", policy(&[("roles/owner", &[&format!("serviceAccount:{COMPUTE}")])]), Code::FailedPrecondition, "owner").await;
    check("topics/t", Policy::default(), Code::InvalidArgument, "topics/t").await;
    let members: Vec<_> = (0..1501).map(|at| Member::User(format!("u{at}@x.y"))).collect();
    let many = |members: &[Member]| Policy { bindings: vec![Binding::new("roles/run.invoker", members.to_vec())] };
    check(SERVICE, many(&members), Code::InvalidArgument, "1500").await;
    iam.policy_set(SERVICE, many(&members[..1500]), "").await.unwrap();
    check(SERVICE, many(&[Member::User("no address".to_owned())]), Code::InvalidArgument, "no address").await;
    // Google's agents are named by its tools.
    let agents = policy(&[(
        "roles/iam.serviceAccountTokenCreator",
        &["serviceAccount:service-1@gcp-sa-pubsub.iam.gserviceaccount.com", "serviceAccount:1@cloudbuild.gserviceaccount.com"],
    )]);
    iam.policy_set(SERVICE, agents, "").await.unwrap();
}

#[tokio::test]
async fn etags_guard_read_modify_write() {
    let world = World::new().await;
    let iam = &world.iam;
    let (a, b) = (policy(&[("roles/run.invoker", &["user:a@x.y"])]), policy(&[("roles/run.invoker", &["user:b@x.y"])]));
    let lost = |result: Result<VersionedPolicy, Status>| {
        let status = result.unwrap_err();
        assert_eq!(status.code, Code::Aborted);
        assert_eq!(status.outer, "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.");
    };
    let first = iam.policy_set(SERVICE, a.clone(), "ACAB").await.unwrap();
    lost(iam.policy_set(SERVICE, b.clone(), "ACAB").await);
    let second = iam.policy_set(SERVICE, b.clone(), &first.etag).await.unwrap();
    assert_ne!(first.etag, second.etag);
    lost(iam.policy_set(SERVICE, a.clone(), &first.etag).await);
    for odd in ["x", "BwXhqDVYvL8=", "BwAAAAAAAAA=", "AAAAAAAAAAE="] {
        lost(iam.policy_set(SERVICE, a.clone(), odd).await);
    }
    assert_eq!(iam.policy_get(SERVICE).unwrap(), second);
    iam.policy_set(SERVICE, a, "").await.unwrap();
    lost(iam.policy_set(SERVICE, b, &second.etag).await);
}

#[tokio::test]
async fn a_policy_is_set_on_the_resource_that_was_asked_about_and_on_no_other_of_its_name() {
    let world = World::new().await;
    let (iam, store, record) = (&world.iam, &world.store, model::key::policied(SERVICE).unwrap());
    let put = async |value: serde_json::Value| store.commit(vec![store::Write::put(&record, store::Expect::Any, &value)]).await.map(drop).unwrap();
    let delete = async || store.commit(vec![store::Write::delete(&record, store::Expect::Any)]).await.map(drop).unwrap();
    let wanted = || policy(&[("roles/run.invoker", &["user:a@x.y"])]);
    let code = |result: Result<VersionedPolicy, Status>| result.err().map(|status| status.code);
    assert_eq!(iam.policied(SERVICE).unwrap_err().code, Code::NotFound);
    put(serde_json::json!({ "uid": "1", "created": "2026-01-01T00:00:00Z", "generation": 1 })).await;
    let of = iam.policied(SERVICE).unwrap();
    // Changed, and still the same.
    put(serde_json::json!({ "uid": "1", "created": "2026-01-01T00:00:00Z", "generation": 2 })).await;
    let set = iam.policy_set_on(&of, wanted(), "").await.unwrap();
    assert_eq!(code(iam.policy_set_on(&of, wanted(), "ACAB").await), Some(Code::Aborted));
    assert_eq!(code(iam.policy_set_on(&of, wanted(), &set.etag).await), None);
    // Gone, then another.
    delete().await;
    iam.policy_delete(SERVICE).await.unwrap();
    assert_eq!(code(iam.policy_set_on(&of, wanted(), "").await), Some(Code::NotFound));
    put(serde_json::json!({ "uid": "2", "created": "2026-01-01T00:00:00Z", "generation": 1 })).await;
    for etag in ["", "ACAB"] {
        assert_eq!(code(iam.policy_set_on(&of, wanted(), etag).await), Some(Code::Aborted), "{etag:?}");
    }
    assert_eq!(iam.policy_get(SERVICE).unwrap().policy, Policy::default());
    // What has no uid is told by when it was made; an account by its number.
    for (one, other) in [("created", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000001Z"]), ("unique_id", ["1", "2"])] {
        put(serde_json::json!({ one: other[0] })).await;
        let of = iam.policied(SERVICE).unwrap();
        put(serde_json::json!({ one: other[1] })).await;
        assert_eq!(code(iam.policy_set_on(&of, wanted(), "").await), Some(Code::Aborted), "{one}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_writers_with_one_etag_one_wins() {
    let world = World::new().await;
    for round in 0..10 {
        let etag = world.iam.policy_get(SERVICE).unwrap().etag;
        let writers = (0..8).map(|at| {
            let (iam, etag) = (world.iam.clone(), etag.clone());
            tokio::spawn(async move {
                let member = format!("user:w{at}@x.y");
                iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &[&member])]), &etag).await
            })
        });
        let mut won = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            match writer.await.unwrap() {
                Ok(set) => won.push(set),
                Err(status) => assert_eq!(status.code, Code::Aborted),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(world.iam.policy_get(SERVICE).unwrap(), won[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_binding_is_lost_when_many_add_one_each() {
    let world = World::new().await;
    let writers = (0..8).map(|at| {
        let iam = world.iam.clone();
        tokio::spawn(async move {
            loop {
                let VersionedPolicy { mut policy, etag } = iam.policy_get(SERVICE).unwrap();
                policy.bindings.extend(super::policy::policy(&[("roles/run.invoker", &[&format!("user:w{at}@x.y")])]).bindings);
                match iam.policy_set(SERVICE, policy, &etag).await {
                    Ok(_) => return,
                    Err(status) => assert_eq!(status.code, Code::Aborted),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let bindings = text(&world.iam.policy_get(SERVICE).unwrap().policy);
    assert_eq!(bindings.len(), 1);
    assert_eq!(bindings[0].1.len(), 8);
}

#[tokio::test]
async fn a_deleted_account_leaves_no_grant_behind() {
    let world = World::new().await;
    let iam = &world.iam;
    let email = iam.service_account_create(&project(), "worker", "", "").await.unwrap().email;
    let member = format!("serviceAccount:{email}");
    let own = format!("projects/{PROJECT}/serviceAccounts/{email}");
    iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &[&member, "user:a@x.y"]), ("roles/run.viewer", &[&member])]), "").await.unwrap();
    iam.policy_set(&own, policy(&[("roles/iam.serviceAccountUser", &["user:a@x.y"])]), "").await.unwrap();
    iam.service_account_delete(&email).await.unwrap();
    assert_eq!(iam.policy_get(SERVICE).unwrap().policy, policy(&[("roles/run.invoker", &["user:a@x.y"])]));
    assert_eq!(iam.policy_get(&own).unwrap().etag, "ACAB");
    iam.service_account_create(&project(), "worker", "", "").await.unwrap();
    assert!(!iam.may(Some(&iam.identity(&email)), "run.routes.invoke", SERVICE, PROJECT));
}
