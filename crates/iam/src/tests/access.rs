//! Roles of a project's own, conditions, deny policies and groups; and that an explanation says what a check says.

use model::{
    Code,
    policy::{Binding, Condition, Member, Policy},
};

use super::{policy::policy, *};
use crate::{About, DenyPolicy, DenyRule, Question, RoleChange, Stage, Standing};

const SERVICE: &str = "projects/local-project/locations/asia-northeast1/services/f";
const OTHER: &str = "projects/local-project/locations/asia-northeast1/services/g";
const INVOKE: &str = "run.routes.invoke";

fn conditional(role: &str, member: &str, expression: &str) -> Binding {
    let condition = Condition { title: "t".to_owned(), expression: expression.to_owned(), ..Default::default() };
    Binding { condition: Some(condition), ..Binding::new(role, vec![Member::parse(member).unwrap()]) }
}

fn role(permissions: &[&str]) -> RoleChange {
    RoleChange { title: Some("t".to_owned()), permissions: Some(permissions.iter().map(|name| (*name).to_owned()).collect()), ..Default::default() }
}

fn deny(id: &str, principals: &[&str], permissions: &[&str]) -> DenyPolicy {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let rule = DenyRule { denied_principals: own(principals), denied_permissions: own(permissions), ..Default::default() };
    DenyPolicy { id: id.to_owned(), rules: vec![rule], ..Default::default() }
}

/// What a check says, which an explanation must say too.
fn may(world: &World, email: Option<&str>, permission: &str, resource: &str) -> bool {
    let who = email.map(|email| world.iam.identity(email));
    let question = Question { who: who.as_ref(), permission, resource, project: PROJECT, about: About::default() };
    let checked = world.iam.may_about(&question);
    assert_eq!(world.iam.explain(&question).allowed, checked, "{question:?}");
    checked
}

#[tokio::test]
async fn a_projects_own_role_grants_what_it_holds_and_nothing_once_it_is_deleted() {
    let world = World::new().await;
    let iam = &world.iam;
    let (made, etag) = iam.custom_role_create(&project(), "Caller", role(&[INVOKE, "run.services.get", INVOKE])).await.unwrap();
    assert_eq!((made.name.as_str(), made.permissions.len()), ("projects/local-project/roles/Caller", 2));
    iam.policy_set(SERVICE, policy(&[("projects/local-project/roles/Caller", &["user:a@x.y"])]), "").await.unwrap();
    let holds = |permission: &str| may(&world, Some("a@x.y"), permission, SERVICE);
    assert!(holds(INVOKE) && holds("run.services.get") && !holds("run.services.update"));
    assert!(!may(&world, Some("b@x.y"), INVOKE, SERVICE) && !may(&world, Some("a@x.y"), INVOKE, OTHER));

    let name = "projects/local-project/roles/Caller";
    let (_, second) = iam.custom_role_update(name, role(&["run.services.update"]), &etag).await.unwrap();
    assert!(!holds(INVOKE) && holds("run.services.update"));
    assert_eq!(iam.custom_role_update(name, role(&[INVOKE]), &etag).await.unwrap_err().code, Code::Aborted);
    iam.custom_role_update(name, RoleChange { stage: Some(Stage::Disabled), ..Default::default() }, &second).await.unwrap();
    assert!(!holds("run.services.update"));
    iam.custom_role_update(name, RoleChange { stage: Some(Stage::Ga), ..Default::default() }, "").await.unwrap();
    assert!(holds("run.services.update"));

    iam.custom_role_delete(name, "").await.unwrap();
    assert!(!holds("run.services.update"));
    let who = iam.identity("a@x.y");
    let told = iam.explain(&Question { who: Some(&who), permission: "run.services.update", resource: SERVICE, project: PROJECT, about: About::default() });
    assert_eq!(told.bindings.iter().map(|bound| bound.standing).collect::<Vec<_>>(), [Standing::RoleGone]);
    assert_eq!((iam.custom_role_list(&project(), false).len(), iam.custom_role_list(&project(), true).len()), (0, 1));
    // It stays bound, and cannot be bound anew.
    let kept = iam.policy_get(SERVICE).unwrap();
    iam.policy_set(SERVICE, kept.policy.clone(), &kept.etag).await.unwrap();
    let refused = iam.policy_set(OTHER, kept.policy, "").await.unwrap_err();
    assert_eq!(refused.fields[0].description, "Role (projects/local-project/roles/Caller) does not exist in the resource's hierarchy.");
    let taken = iam.custom_role_create(&project(), "Caller", role(&[])).await.unwrap_err();
    assert_eq!(taken.code, Code::FailedPrecondition);
    iam.custom_role_undelete(name, "").await.unwrap();
    assert!(holds("run.services.update"));
    assert_eq!(iam.custom_role_undelete(name, "").await.unwrap_err().code, Code::FailedPrecondition);
    iam.custom_role_delete(name, "").await.unwrap();
    world.clock.advance(Duration::from_secs(8 * 24 * 3600));
    assert_eq!(iam.custom_role_undelete(name, "").await.unwrap_err().code, Code::NotFound);
    assert!(!holds("run.services.update"));
}

#[tokio::test]
async fn roles_that_cannot_be_are_refused() {
    let world = World::new().await;
    let iam = &world.iam;
    for bad in ["", "ab", "a-b", "a/b", "a b", &"x".repeat(65)] {
        assert_eq!(iam.custom_role_create(&project(), bad, role(&[])).await.unwrap_err().code, Code::InvalidArgument, "{bad}");
    }
    let permission = iam.custom_role_create(&project(), "one", role(&["run.services.fly"])).await.unwrap_err();
    assert_eq!(permission.fields[0].description, "Permission run.services.fly is not valid.");
    assert!(iam.custom_role_create(&project(), "one", role(&["resourcemanager.projects.list"])).await.is_err());
    let long = RoleChange { title: Some("x".repeat(101)), ..Default::default() };
    assert!(iam.custom_role_create(&project(), "one", long).await.is_err());
    iam.custom_role_create(&project(), "one", role(&[])).await.unwrap();
    assert_eq!(iam.custom_role_create(&project(), "one", role(&[])).await.unwrap_err().code, Code::AlreadyExists);
    for name in ["projects/local-project/roles/two", "projects/other-project/roles/one", "projects/local-project/roles/", "organizations/1/roles/one"] {
        let refused = iam.policy_set(SERVICE, policy(&[(name, &["user:a@x.y"])]), "").await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument, "{name}");
    }
}

#[tokio::test]
async fn a_binding_holds_where_its_condition_is_true() {
    let world = World::new().await;
    let iam = &world.iam;
    let project_policy = iam.policy_get("projects/local-project").unwrap().policy;
    let set = async |bindings: Vec<Binding>| {
        let bindings = project_policy.bindings.iter().cloned().chain(bindings).collect();
        iam.policy_set("projects/local-project", Policy { bindings }, "").await
    };
    let invoker = |expression: &str| conditional("roles/run.invoker", "user:a@x.y", expression);
    // 2026-11-01T00:00:00Z is now.
    set(vec![invoker("request.time < timestamp('2026-11-01T00:01:00Z')")]).await.unwrap();
    assert!(may(&world, Some("a@x.y"), INVOKE, SERVICE));
    world.clock.advance(Duration::from_secs(59));
    assert!(may(&world, Some("a@x.y"), INVOKE, SERVICE));
    world.clock.advance(Duration::from_secs(1));
    assert!(!may(&world, Some("a@x.y"), INVOKE, SERVICE));

    set(vec![invoker("resource.name.endsWith('/services/f') && resource.type == 'run.googleapis.com/Service'")]).await.unwrap();
    assert!(may(&world, Some("a@x.y"), INVOKE, SERVICE) && !may(&world, Some("a@x.y"), INVOKE, OTHER));
    set(vec![invoker("request.path == '/'")]).await.unwrap();
    assert!(!may(&world, Some("a@x.y"), INVOKE, SERVICE));
    let who = iam.identity("a@x.y");
    let told = iam.explain(&Question { who: Some(&who), permission: INVOKE, resource: SERVICE, project: PROJECT, about: About::default() });
    assert_eq!(told.bindings[0].standing, Standing::ConditionFailed);

    // A part of the resource: an object of a bucket.
    iam.policy_set(
        "buckets/b",
        Policy { bindings: vec![conditional("roles/storage.objectViewer", "user:a@x.y", "resource.name.startsWith('projects/_/buckets/b/objects/open/')")] },
        "",
    )
    .await
    .unwrap();
    for (part, expect) in [(Some("objects/open/a"), true), (Some("objects/closed/a"), false), (None, false)] {
        let about = About { part, ..Default::default() };
        let question = Question { who: Some(&who), permission: "storage.objects.get", resource: "buckets/b", project: PROJECT, about };
        assert_eq!(iam.may_about(&question), expect, "{part:?}");
    }

    // What is kept is what was set, and the same role under two conditions is two bindings.
    let twice = vec![invoker("true"), invoker("false"), invoker("true")];
    let kept = set(twice).await.unwrap();
    assert_eq!((kept.policy.bindings.len(), kept.policy.version()), (4, 3));
    let reopened = iam.policy_get("projects/local-project").unwrap();
    assert_eq!(reopened, kept);
}

#[tokio::test]
async fn conditions_that_cannot_be_are_refused_by_field() {
    let world = World::new().await;
    let check = async |binding: Binding, field: &str, word: &str| {
        let refused = world.iam.policy_set(SERVICE, Policy { bindings: vec![binding] }, "").await.unwrap_err();
        assert_eq!((refused.code, refused.fields[0].field.as_str()), (Code::InvalidArgument, field), "{refused}");
        assert!(refused.fields[0].description.contains(word), "{refused}");
    };
    let expression = "policy.bindings[0].condition.expression";
    check(conditional("roles/run.invoker", "user:a@x.y", "1 <"), expression, "LintValidationUnits/ConditionCompileCheck Error: ERROR: Parse expression").await;
    check(conditional("roles/run.invoker", "user:a@x.y", "user == 'a'"), expression, "undeclared reference to 'user'").await;
    check(conditional("roles/owner", "user:a@x.y", "true"), "policy.bindings[0].condition", "basic role").await;
    check(conditional("roles/run.invoker", "allUsers", "true"), "policy.bindings[0].condition", "allUsers").await;
    let untitled = Binding { condition: Some(Condition { expression: "true".to_owned(), ..Default::default() }), ..Binding::new("roles/run.invoker", vec![]) };
    check(untitled, "policy.bindings[0].condition.title", "title").await;
    let many = (0..21).map(|at| conditional("roles/run.invoker", "user:a@x.y", &format!("{at} < 100"))).collect();
    assert!(world.iam.policy_set(SERVICE, Policy { bindings: many }, "").await.unwrap_err().outer.contains("20"));
}

#[tokio::test]
async fn a_deny_policy_goes_before_every_grant() {
    let world = World::new().await;
    let iam = &world.iam;
    iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["allUsers", "user:a@x.y"])]), "").await.unwrap();
    let made = iam.deny_policy_create(&project(), deny("no-a", &["principal://goog/subject/a@x.y"], &["run.googleapis.com/routes.invoke"])).await.unwrap();
    let who = |email| may(&world, Some(email), INVOKE, SERVICE);
    assert!(!who("a@x.y") && who("b@x.y") && may(&world, None, INVOKE, SERVICE));
    let identity = iam.identity("a@x.y");
    let told = iam.explain(&Question { who: Some(&identity), permission: INVOKE, resource: SERVICE, project: PROJECT, about: About::default() });
    assert_eq!(told.denied, [("no-a".to_owned(), 1)]);
    assert!(told.bindings.iter().any(|bound| bound.standing == Standing::Grants));

    // Everyone but one, and all of a service but one permission.
    let mut all = deny("no-a", &["principalSet://goog/public:all"], &["run.googleapis.com/*"]);
    all.rules[0].exception_principals = vec!["principal://goog/subject/owner@example.com".to_owned()];
    all.rules[0].exception_permissions = vec!["run.googleapis.com/services.list".to_owned()];
    assert_eq!(iam.deny_policy_update(&project(), DenyPolicy { etag: "old".to_owned(), ..all.clone() }).await.unwrap_err().code, Code::Aborted);
    let changed = iam.deny_policy_update(&project(), DenyPolicy { etag: made.etag.clone(), ..all.clone() }).await.unwrap();
    assert_ne!(changed.etag, made.etag);
    assert!(!who("b@x.y") && !may(&world, None, INVOKE, SERVICE) && who(OWNER));
    assert!(
        may(&world, Some(COMPUTE), "run.services.list", "projects/local-project")
            && !may(&world, Some(COMPUTE), "run.services.create", "projects/local-project")
    );
    assert!(may(&world, Some(COMPUTE), "storage.objects.get", "buckets/b"));

    // A condition of tags, of which no resource here has any.
    let tagged = Condition { title: "t".to_owned(), expression: "resource.matchTag('1/env', 'prod')".to_owned(), ..Default::default() };
    all.rules[0].condition = Some(tagged);
    iam.deny_policy_update(&project(), all.clone()).await.unwrap();
    assert!(who("b@x.y"));
    all.rules[0].condition.as_mut().unwrap().expression = "!resource.matchTag('1/env', 'prod')".to_owned();
    iam.deny_policy_update(&project(), all).await.unwrap();
    assert!(!who("b@x.y"));
    iam.deny_policy_delete(&project(), "no-a", &made.etag).await.unwrap_err();
    iam.deny_policy_delete(&project(), "no-a", "").await.unwrap();
    assert!(who("a@x.y") && may(&world, None, INVOKE, SERVICE));
    assert_eq!(iam.deny_policy_get(&project(), "no-a").unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn deny_policies_that_cannot_be_are_refused() {
    let world = World::new().await;
    let iam = &world.iam;
    let everyone: &[&str] = &["principalSet://goog/public:all"];
    let invoke: &[&str] = &["run.googleapis.com/routes.invoke"];
    for bad in [
        deny("ab", everyone, invoke),
        deny("Abc", everyone, invoke),
        deny("1abc", everyone, invoke),
        deny("good", &["allUsers"], invoke),
        deny("good", everyone, &["run.routes.invoke"]),
        deny("good", everyone, &["iam.googleapis.com/denypolicies.delete"]),
        deny("good", &[], invoke),
        deny("good", everyone, &[]),
        DenyPolicy { display_name: "x".repeat(64), ..deny("good", everyone, invoke) },
    ] {
        assert_eq!(iam.deny_policy_create(&project(), bad.clone()).await.unwrap_err().code, Code::InvalidArgument, "{bad:?}");
    }
    let timed = Condition { title: "t".to_owned(), expression: "request.time < timestamp('2030-01-01T00:00:00Z')".to_owned(), ..Default::default() };
    let mut rule = deny("good", everyone, invoke);
    rule.rules[0].condition = Some(timed);
    assert!(iam.deny_policy_create(&project(), rule).await.is_err());
    assert!(iam.deny_policy_list(&project()).is_empty());
    iam.deny_policy_create(&project(), deny("good", everyone, invoke)).await.unwrap();
    assert_eq!(iam.deny_policy_create(&project(), deny("good", everyone, invoke)).await.unwrap_err().code, Code::AlreadyExists);
}

#[tokio::test]
async fn members_of_a_group_have_what_it_is_given() {
    let world = World::new().await;
    let iam = &world.iam;
    iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["group:team@x.y"])]), "").await.unwrap();
    let who = |email| may(&world, Some(email), INVOKE, SERVICE);
    assert!(!who("a@x.y"));
    iam.group_create("Team@x.y", "Team", "").await.unwrap();
    iam.group_member_add("team@x.y", "A@x.y").await.unwrap();
    iam.group_member_add("team@x.y", COMPUTE).await.unwrap();
    assert!(who("a@x.y") && who(COMPUTE) && !who("b@x.y") && !may(&world, None, INVOKE, SERVICE));
    // A group in a group, and a circle.
    iam.group_create("inner@x.y", "", "").await.unwrap();
    iam.group_member_add("team@x.y", "inner@x.y").await.unwrap();
    iam.group_member_add("inner@x.y", "team@x.y").await.unwrap();
    assert!(!who("b@x.y"));
    iam.group_member_add("inner@x.y", "b@x.y").await.unwrap();
    assert!(who("b@x.y"));
    let banned = deny("no-team", &["principalSet://goog/group/inner@x.y"], &["run.googleapis.com/routes.invoke"]);
    iam.deny_policy_create(&project(), banned).await.unwrap();
    assert!(!who("b@x.y") && !who("a@x.y"), "the circle makes each a member of the other");
    iam.deny_policy_delete(&project(), "no-team", "").await.unwrap();
    iam.group_member_remove("inner@x.y", "b@x.y").await.unwrap();
    assert!(!who("b@x.y"));
    iam.group_delete("team@x.y").await.unwrap();
    assert!(!who("a@x.y"));
    assert_eq!(iam.group_member_add("team@x.y", "a@x.y").await.unwrap_err().code, Code::NotFound);
    assert!(iam.group_create("no address", "", "").await.is_err());
}

/// Each has all others for members: a look into every path would not end.
#[tokio::test]
async fn groups_that_name_each_other_are_looked_into_once() {
    let world = World::new().await;
    let names: Vec<String> = (0..60).map(|number| format!("g{number:02}@x.y")).collect();
    let group = |at: usize| crate::Group {
        email: names[at].clone(),
        id: format!("{at:015}"),
        display_name: String::new(),
        description: String::new(),
        created: world.clock.now(),
        members: names.iter().filter(|name| **name != names[at]).map(|name| (name.clone(), world.clock.now())).collect(),
    };
    let writes = (0..names.len()).map(|at| store::Write::put(model::key::group(&names[at]), store::Expect::Any, &group(at))).collect();
    world.iam.commit(writes).await.unwrap();
    world.iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["group:g00@x.y"])]), "").await.unwrap();
    let begun = std::time::Instant::now();
    assert!(!may(&world, Some("a@x.y"), INVOKE, SERVICE));
    world.iam.group_member_add("g59@x.y", "a@x.y").await.unwrap();
    assert!(may(&world, Some("a@x.y"), INVOKE, SERVICE));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Six in each other are as deep as it goes.
#[tokio::test]
async fn groups_in_groups_end_at_five() {
    let world = World::new().await;
    let iam = &world.iam;
    for number in 0..7 {
        iam.group_create(&format!("g{number}@x.y"), "", "").await.unwrap();
        if number > 0 {
            iam.group_member_add(&format!("g{}@x.y", number - 1), &format!("g{number}@x.y")).await.unwrap();
        }
        iam.group_member_add(&format!("g{number}@x.y"), &format!("p{number}@x.y")).await.unwrap();
    }
    iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["group:g0@x.y"])]), "").await.unwrap();
    let who = |number: usize| may(&world, Some(&format!("p{number}@x.y")), INVOKE, SERVICE);
    assert!((0..=5).all(who) && !who(6));
}

/// Whose policies a group bears on, also by one that it is in.
#[tokio::test]
async fn a_group_is_named_by_policies_and_deny_policies() {
    let world = World::new().await;
    let iam = &world.iam;
    for group in ["team@x.y", "inner@x.y"] {
        iam.group_create(group, "", "").await.unwrap();
    }
    assert_eq!(iam.group_named_by("inner@x.y"), [""; 0]);
    iam.group_member_add("team@x.y", "inner@x.y").await.unwrap();
    iam.group_member_add("inner@x.y", "team@x.y").await.unwrap();
    iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["group:team@x.y"])]), "").await.unwrap();
    assert_eq!(iam.group_named_by("Inner@x.y"), [SERVICE]);
    iam.policy_set(SERVICE, policy(&[]), "").await.unwrap();
    let mut rule = deny("no-one", &["principalSet://goog/public:all"], &["run.googleapis.com/routes.invoke"]);
    rule.rules[0].exception_principals = vec!["principalSet://goog/group/team@x.y".to_owned()];
    iam.deny_policy_create(&project(), rule).await.unwrap();
    assert_eq!(iam.group_named_by("inner@x.y"), ["projects/local-project"]);
    // One that is not made yet, too: whoever makes it says who is in it.
    iam.policy_set(OTHER, policy(&[("roles/run.invoker", &["group:later@x.y"])]), "").await.unwrap();
    assert_eq!(iam.group_named_by("later@x.y"), [OTHER]);
}

/// An account made again under its address has nothing of the first one's.
#[tokio::test]
async fn a_deleted_account_leaves_groups_and_exceptions() {
    let world = World::new().await;
    let iam = &world.iam;
    let email = iam.service_account_create(&project(), "worker", "", "").await.unwrap().email;
    let principal = format!("principal://iam.googleapis.com/projects/-/serviceAccounts/{email}");
    iam.group_create("team@x.y", "", "").await.unwrap();
    iam.group_member_add("team@x.y", &email).await.unwrap();
    iam.group_member_add("team@x.y", "a@x.y").await.unwrap();
    iam.policy_set(SERVICE, policy(&[("roles/run.invoker", &["group:team@x.y", "allUsers"])]), "").await.unwrap();
    let mut rule = deny("no-one", &["principalSet://goog/public:all"], &["run.googleapis.com/routes.invoke"]);
    rule.rules[0].exception_principals = vec![principal.clone(), "principal://goog/subject/a@x.y".to_owned()];
    let made = iam.deny_policy_create(&project(), rule).await.unwrap();
    let banned = deny("no-worker", &[&principal], &["run.googleapis.com/services.get"]);
    iam.deny_policy_create(&project(), banned).await.unwrap();
    assert!(may(&world, Some(&email), INVOKE, SERVICE));

    iam.service_account_delete(&email).await.unwrap();
    iam.service_account_create(&project(), "worker", "", "").await.unwrap();
    assert!(!may(&world, Some(&email), INVOKE, SERVICE) && may(&world, Some("a@x.y"), INVOKE, SERVICE));
    assert_eq!(iam.group_get("team@x.y").unwrap().members.iter().map(|(email, _)| email.as_str()).collect::<Vec<_>>(), ["a@x.y"]);
    let kept = iam.deny_policy_get(&project(), "no-one").unwrap();
    assert_eq!(kept.rules[0].exception_principals, ["principal://goog/subject/a@x.y"]);
    assert_ne!(kept.etag, made.etag);
    assert_eq!(iam.deny_policy_get(&project(), "no-worker").unwrap().rules[0].denied_principals, [principal]);
}

/// Who does not know yet which object is meant asks whether a condition alone is in the way.
#[tokio::test]
async fn what_might_be_waits_for_the_name_alone() {
    let world = World::new().await;
    let iam = &world.iam;
    let bucket = "buckets/b";
    let to = |email| conditional("roles/storage.objectCreator", email, "resource.name.startsWith('projects/_/buckets/b/objects/open/')");
    iam.policy_set(bucket, Policy { bindings: vec![to("user:a@x.y")] }, "").await.unwrap();
    let ask = |email: &str, permission: &str, part: Option<&str>| {
        let who = iam.identity(email);
        let question = Question { who: Some(&who), permission, resource: bucket, project: PROJECT, about: About { part, ..About::default() } };
        (iam.might(&question), iam.may_about(&question))
    };
    assert_eq!(ask("a@x.y", "storage.objects.create", None), (true, false));
    assert_eq!(ask("a@x.y", "storage.objects.create", Some("objects/open/a")), (true, true));
    assert_eq!(ask("a@x.y", "storage.objects.create", Some("objects/closed/a")), (true, false));
    assert_eq!(ask("a@x.y", "storage.objects.delete", None), (false, false));
    assert_eq!(ask("b@x.y", "storage.objects.create", None), (false, false));
    iam.deny_policy_create(&project(), deny("no-a", &["principal://goog/subject/a@x.y"], &["storage.googleapis.com/objects.create"])).await.unwrap();
    assert_eq!(ask("a@x.y", "storage.objects.create", None), (false, false));
}

/// What was set holds for a server that is started again.
#[tokio::test]
async fn roles_groups_and_deny_policies_outlive_a_restart() {
    let World { iam, clock, store, dir } = World::new().await;
    iam.custom_role_create(&project(), "Caller", role(&[INVOKE])).await.unwrap();
    iam.group_create("team@x.y", "", "").await.unwrap();
    iam.group_member_add("team@x.y", "a@x.y").await.unwrap();
    iam.policy_set(
        SERVICE,
        Policy { bindings: vec![conditional("projects/local-project/roles/Caller", "group:team@x.y", "resource.name.endsWith('/f')")] },
        "",
    )
    .await
    .unwrap();
    iam.deny_policy_create(
        &project(),
        deny("no-compute", &[&format!("principal://iam.googleapis.com/projects/-/serviceAccounts/{COMPUTE}")], &["run.googleapis.com/*"]),
    )
    .await
    .unwrap();
    drop(iam);
    drop(store);
    let store = store_open(&dir.path().join("data")).await;
    let world = World { iam: iam_open(&store, &clock).await, clock, store, dir };
    assert!(may(&world, Some("a@x.y"), INVOKE, SERVICE));
    assert!(!may(&world, Some(COMPUTE), "run.services.get", SERVICE) && may(&world, Some(COMPUTE), "storage.objects.get", "buckets/b"));
}

/// Who can, by the same rules.
#[tokio::test]
async fn who_can_names_whom_bindings_name() {
    let world = World::new().await;
    let iam = &world.iam;
    iam.policy_set(SERVICE, Policy { bindings: vec![conditional("roles/run.invoker", "user:a@x.y", "false")] }, "").await.unwrap();
    let found: Vec<_> = iam.who_can(INVOKE, SERVICE, PROJECT).unwrap().into_iter().map(|bound| (bound.resource, bound.role, bound.standing)).collect();
    let own = |role: &str| ("projects/local-project".to_owned(), role.to_owned(), Standing::Grants);
    assert_eq!(found, [(SERVICE.to_owned(), "roles/run.invoker".to_owned(), Standing::ConditionFalse), own("roles/owner"), own("roles/editor")]);
    assert!(iam.who_can("run.services.fly", SERVICE, PROJECT).is_err() && iam.who_can(INVOKE, "queues/q", PROJECT).is_err());
    assert_eq!(iam.roles_with(INVOKE, PROJECT)[0], "roles/run.invoker");
    assert_eq!(iam.roles_with(INVOKE, PROJECT).last().unwrap(), "roles/owner");
}
