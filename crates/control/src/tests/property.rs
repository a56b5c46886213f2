//! Random wishes in random orders: what must hold holds after each of them.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Wish {
    Create {
        service: u8,
        fails: bool,
    },
    Replace {
        service: u8,
        value: u8,
        fails: bool,
    },
    /// Traffic to the nth revision that is there, the rest to the latest.
    Split {
        service: u8,
        revision: u8,
        percent: u32,
        tag: bool,
    },
    DeleteRevision {
        service: u8,
        revision: u8,
    },
    Delete {
        service: u8,
    },
    Settle {
        service: u8,
    },
    Crash,
}

fn wish() -> impl Strategy<Value = Wish> {
    let service = || 0..2u8;
    prop_oneof![
        3 => (service(), any::<bool>()).prop_map(|(service, fails)| Wish::Create { service, fails }),
        5 => (service(), 0..3u8, any::<bool>()).prop_map(|(service, value, fails)| Wish::Replace { service, value, fails }),
        3 => (service(), 0..4u8, 0..=100u32, any::<bool>()).prop_map(|(service, revision, percent, tag)| Wish::Split { service, revision, percent, tag }),
        2 => (service(), 0..4u8).prop_map(|(service, revision)| Wish::DeleteRevision { service, revision }),
        1 => service().prop_map(|service| Wish::Delete { service }),
        4 => service().prop_map(|service| Wish::Settle { service }),
        1 => Just(Wish::Crash),
    ]
}

fn template(name: &str, value: u8, fails: bool) -> Service {
    let wish = with_env(service(name), "V", &value.to_string());
    if fails { with_env(wish, "FAIL", "boom") } else { wish }
}

/// Does one wish; refusals are answers like others.
async fn act(plane: &mut Plane, wish: &Wish) {
    let name = |service: u8| format!("s{service}");
    match *wish {
        Wish::Create { service, fails } => drop(plane.control.service_create(&owner(), template(&name(service), 0, fails), false).await),
        Wish::Replace { service, value, fails } => {
            let Ok(old) = plane.control.service_get(&key(&name(service))) else {
                return;
            };
            let next = Service { traffic: old.value.traffic, ..template(&name(service), value, fails) };
            drop(plane.control.service_replace(&owner(), next, None, false).await);
        }
        Wish::Split { service, revision, percent, tag } => {
            let Ok(mut next) = plane.control.service_get(&key(&name(service))) else {
                return;
            };
            let revisions = plane.revisions(&name(service));
            let Some(to) = revisions.get(usize::from(revision)) else {
                return;
            };
            next.value.traffic = vec![target(Some(&to.name), percent, tag.then_some("t")), target(None, 100 - percent, None)];
            drop(plane.control.service_replace(&owner(), next.value, None, false).await);
        }
        Wish::DeleteRevision { service, revision } => {
            if let Some(revision) = plane.revisions(&name(service)).get(usize::from(revision)) {
                drop(plane.control.revision_delete(&owner(), &project(), &region(), &revision.name).await);
            }
        }
        Wish::Delete { service } => drop(plane.control.service_delete(&owner(), &key(&name(service)), None).await),
        Wish::Settle { service } => drop(plane.control.service_wait(&key(&name(service)), 0, LONG).await),
        Wish::Crash => plane.restart().await,
    }
}

/// What holds at every moment.
fn always(plane: &Plane) {
    for service in plane.control.service_list(&project(), None, None, 10).unwrap() {
        let service = service.value;
        let sum = |percents: Vec<u32>| percents.iter().sum::<u32>();
        assert_eq!(sum(service.traffic.iter().map(|target| target.percent).collect()), 100);
        if !service.status.traffic.is_empty() {
            assert_eq!(sum(service.status.traffic.iter().map(|target| target.percent).collect()), 100, "{:?}", service.status);
        }
        assert!(service.status.observed_generation <= service.generation);
    }
}

/// What holds when everything has come to rest.
async fn at_rest(plane: &Plane) {
    let names: Vec<String> = plane.control.service_list(&project(), None, None, 10).unwrap().iter().map(|s| s.value.key.service.to_string()).collect();
    for name in names {
        if plane.control.service_get(&key(&name)).is_ok_and(|service| service.value.deleted.is_none()) {
            at_rest_one(plane, &name).await;
        } else {
            plane.gone(&name).await;
        }
    }
    // No revision without its service.
    for revision in plane.control.revision_list(&project(), None, None, None, 1000).unwrap() {
        let owner = plane.control.service_get(&revision.value.service).expect("a revision's service is there").value;
        assert_eq!(revision.value.service_uid, owner.uid);
    }
}

async fn at_rest_one(plane: &Plane, name: &str) {
    let service = plane.settled(name).await;
    let revisions = plane.revisions(name);
    let is_there = |wanted: &RevisionName| revisions.iter().any(|revision| revision.name == *wanted && revision.service_uid == service.uid);
    let named = service.status.traffic.iter().map(|target| &target.revision).chain(&service.status.latest_ready).chain(&service.status.latest_created);
    for revision in named {
        assert!(is_there(revision), "{revision} is gone: {:?}", service.status);
    }
    let latest = revisions.last().expect("a settled service has a revision");
    assert_eq!(service.status.latest_created.as_ref(), Some(&latest.name));
    let resolved = crate::template::template_resolve(&service.template, &latest.template.service_account);
    assert_eq!(latest.template, resolved, "the latest revision is what was asked for");
    let fails = resolved.container.env.iter().any(|(name, _)| name == "FAIL");
    let is_ready = |name: &RevisionName| revisions.iter().any(|revision| revision.name == *name && crate::reconcile::traffic::is_ready(revision));
    let all_ready = service.traffic.iter().filter_map(|target| target.revision.as_ref()).all(is_ready);
    assert_eq!(state(&service, "Ready") == State::True, !fails && all_ready, "{:?}", service.status);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wishes_in_any_order_keep_the_invariants(wishes in proptest::collection::vec(wish(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut plane = Plane::new().await;
            for wish in &wishes {
                act(&mut plane, wish).await;
                always(&plane);
            }
            at_rest(&plane).await;
        });
    }
}
