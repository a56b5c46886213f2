//! Instances: more, fewer, none; frozen; ended.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use model::log::LogName;
use serving::StartFailure;

use crate::world::{Check, World, host, text, until};

pub const CHECKS: &[Check] = &[
    ("a second request gets a second instance when one serves one", |world| second_instance(world).boxed()),
    ("a burst from zero starts what it needs at once", |world| burst(world).boxed()),
    ("one instance serves many requests at a time", |world| concurrency(world).boxed()),
    ("an instance between requests uses no CPU", |world| frozen(world).boxed()),
    ("instance-based billing leaves an instance running", |world| not_frozen(world).boxed()),
    ("an instance that is ended gets SIGTERM", |world| terminated(world).boxed()),
    ("an idle instance ends after its time, a minimum one stays", |world| idle(world).boxed()),
    ("minimum instances are there before a request", |world| minimum(world).boxed()),
    ("what crashes on its own is started again ever more slowly", |world| backoff(world).boxed()),
    ("a proven instance serves its revision's first request", |world| proven(world).boxed()),
    ("a start that fails is told with its last words", |world| not_proven(world).boxed()),
    ("an HTTP startup probe is heeded", |world| probes(world).boxed()),
    ("ending instances waits for their requests, but not for ever", |world| graceful(world).boxed()),
    ("time is billed while a request is served, in stretches of 100 ms", |world| billed(world).boxed()),
];

async fn second_instance(world: &World) {
    let service = world.service().template(|template| template.concurrency = Some(1)).deploy().await;
    let host = host(&service);
    // A waiting request holds until the other has answered: only two instances can answer both.
    let (a, b) = tokio::join!(world.get(&host, "/sleep?3"), world.get(&host, "/sleep?3"));
    assert_eq!((a.status, b.status), (200, 200));
    assert_ne!(a.body, b.body);
    assert_eq!(world.instances(&service).len(), 2);
}

async fn burst(world: &World) {
    let change = |template: &mut model::revision::RevisionTemplate| (template.concurrency, template.max_instances) = (Some(2), Some(3));
    let service = world.service().template(change).deploy().await;
    let host = host(&service);
    let calls: Vec<_> = (0..20).map(|_| world.get(&host, "/sleep?0.1")).collect();
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.instances(&service).len(), 3);
    let starts = world.log(&service).await.iter().filter(|entry| text(entry).starts_with("Starting new instance.")).count();
    assert_eq!(starts, 3);
}

async fn concurrency(world: &World) {
    let service = world.service().template(|template| template.max_instances = Some(1)).deploy().await;
    let host = host(&service);
    let begun = Instant::now();
    let calls: Vec<_> = (0..40).map(|_| world.get(&host, "/sleep?2")).collect();
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert!(begun.elapsed() < Duration::from_secs(40), "they did not run at the same time: {:?}", begun.elapsed());
}

fn sandbox_of(id: &str) -> String {
    format!("i-{}", &id[..24])
}

async fn frozen(world: &World) {
    let service = world.service().deploy().await;
    assert_eq!(world.get(&host(&service), "/spin").await.status, 200);
    until("it is frozen", || async { world.instances(&service)[0].state == "frozen" }).await;
    let sandbox = sandbox_of(&world.instances(&service)[0].id);
    // The mark is set just before the processes stop.
    until("it uses no CPU", || async {
        let before = world.keeper.usage(&sandbox).unwrap().cpu;
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.keeper.usage(&sandbox).unwrap().cpu == before
    })
    .await;
    let before = world.keeper.usage(&sandbox).unwrap().cpu;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    assert!(world.keeper.usage(&sandbox).unwrap().cpu > before, "it ran for the request");
    assert_eq!(world.instances(&service).len(), 1);
}

async fn not_frozen(world: &World) {
    let service = world.service().template(|template| template.container.cpu_idle = Some(false)).deploy().await;
    assert_eq!(world.get(&host(&service), "/spin").await.status, 200);
    let sandbox = sandbox_of(&world.instances(&service)[0].id);
    let before = world.keeper.usage(&sandbox).unwrap().cpu;
    until("it goes on", || async { world.keeper.usage(&sandbox).unwrap().cpu > before + Duration::from_millis(300) }).await;
    assert_eq!(world.instances(&service)[0].state, "ready");
}

async fn terminated(world: &World) {
    let service = world.service().deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    // What is frozen hears it too.
    until("it is frozen", || async { world.instances(&service)[0].state == "frozen" }).await;
    assert_eq!(world.serving.stop_instances(Some(&service), Duration::from_secs(20)).await, 1);
    assert!(world.instances(&service).is_empty());
    world.log_until(&service, "got SIGTERM", |entry| entry.log == LogName::Stdout && text(entry) == "got SIGTERM").await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
}

async fn idle(world: &World) {
    let mut deployment = world.service();
    let service = deployment.deploy().await;
    let serving = world.second(Duration::from_secs(1));
    let call = |path: &str| {
        let call = crate::world::request("GET", &host(&service), path).body(crate::world::full("")).unwrap();
        let serving = serving.clone();
        async move { crate::world::whole(serving.handle(crate::world::outside(), call).await).await.status }
    };
    let count = || serving.instances().iter().filter(|instance| instance.service == service).count();
    // A request of more than the time is no idleness.
    assert_eq!(call("/sleep?1.5").await, 200);
    assert_eq!(count(), 1);
    until("none is left", || async { count() == 0 }).await;
    deployment.service.scaling.min_instances = 1;
    deployment.deploy().await;
    until("one is there", || async { count() == 1 }).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count(), 1);
    serving.shutdown(Duration::from_secs(2)).await;
    assert_eq!((count(), call("/").await), (0, 503));
}

async fn minimum(world: &World) {
    let service = world.service().template(|template| template.min_instances = 2).deploy().await;
    let ready = || async { world.instances(&service).iter().filter(|instance| instance.state != "starting").count() == 2 };
    until("two instances", ready).await;
    world.system_log_until(&service, "Reason: MANUAL_OR_CUSTOMER_MIN_INSTANCE - ").await;
    assert_eq!(world.get(&host(&service), "/crash").await.status, 503);
    until("two again", ready).await;
}

async fn backoff(world: &World) {
    let service = world.service().mode("exit").template(|template| template.min_instances = 1).deploy().await;
    let exits = || async { world.log(&service).await.iter().filter(|entry| text(entry) == "Container called exit(7).").count() };
    until("two starts", || async { exits().await >= 2 }).await;
    // The third comes 4 s after the second; a loop without a pause would make hundreds.
    let before = exits().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(exits().await <= before + 1);
}

async fn proven(world: &World) {
    let mut deployment = world.service();
    let revision = deployment.revision();
    world.serving.prove(&revision, &world.image).await.unwrap();
    let service = deployment.service.key.clone();
    world.system_log_until(&service, "Reason: DEPLOYMENT_ROLLOUT - ").await;
    let proven = world.instances(&service)[0].id.clone();
    assert_eq!(world.get(&host(&service), "/").await.status, 404);
    // Done twice is done once.
    world.serving.prove(&revision, &world.image).await.unwrap();
    deployment.deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    assert_eq!(world.instances(&service).into_iter().map(|instance| instance.id).collect::<Vec<_>>(), [proven]);
}

async fn not_proven(world: &World) {
    let revision = world.service().mode("exit").revision();
    match world.serving.prove(&revision, &world.image).await {
        Err(StartFailure::Exited { code: 7, last_output }) => assert_eq!(last_output, "cannot go on"),
        other => panic!("{other:?}"),
    }
    let probe = model::revision::Probe {
        initial_delay_s: 0,
        timeout_s: 1,
        period_s: 1,
        failure_threshold: 2,
        success_threshold: 0,
        check: model::revision::Check::Tcp { port: 0 },
    };
    let revision = world.service().mode("deaf").template(|template| template.container.startup_probe = Some(probe)).revision();
    match world.serving.prove(&revision, &world.image).await {
        Err(StartFailure::NotListening { port: 8080, last_output }) => assert_eq!(last_output, "not listening"),
        other => panic!("{other:?}"),
    }
    assert!(world.serving.instances().is_empty());
}

async fn probes(world: &World) {
    let probe = |path: &str| {
        let check = model::revision::Check::Http { path: path.to_owned(), port: 0 };
        Some(model::revision::Probe { initial_delay_s: 0, timeout_s: 5, period_s: 5, failure_threshold: 4, success_threshold: 0, check })
    };
    let service = world.service().template(|template| template.container.startup_probe = probe("/healthy")).deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    world.system_log_until(&service, "STARTUP HTTP probe succeeded after 1 attempt for container").await;
    let revision = world
        .service()
        .template(|template| {
            template.container.startup_probe = probe("/early").map(|probe| model::revision::Probe { period_s: 1, ..probe });
        })
        .revision();
    assert!(matches!(world.serving.prove(&revision, &world.image).await, Err(StartFailure::NotListening { .. })));
}

async fn graceful(world: &World) {
    let service = world.service().deploy().await;
    let host = host(&service);
    assert_eq!(world.get(&host, "/").await.status, 200);
    let (answer, stopped) = tokio::join!(world.get(&host, "/sleep?2"), async {
        until("in flight", || async { world.instances(&service)[0].in_flight == 1 }).await;
        world.serving.stop_instances(Some(&service), Duration::from_secs(30)).await
    });
    assert_eq!((answer.status, stopped), (200, 1));
    assert_eq!(world.get(&host, "/").await.status, 200);
    let begun = Instant::now();
    let (answer, _) = tokio::join!(world.get(&host, "/sleep?50"), async {
        until("in flight", || async { world.instances(&service)[0].in_flight == 1 }).await;
        world.serving.stop_instances(Some(&service), Duration::from_secs(1)).await
    });
    assert_eq!(answer.status, 503);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

async fn billed(world: &World) {
    let service = world.service().deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    let meter = || {
        let (_, meter) = world.telemetry.meters().into_iter().find(|(key, _)| key.service == service.service.as_str()).expect("a meter");
        meter.snapshot()
    };
    let before = meter();
    assert!(before.billable_ms_total > 0 && before.billable_ms_total % 100 == 0, "the start is billed: {before:?}");
    assert_eq!((before.requests_by_class[2], before.starts), (1, 1));
    assert_eq!(world.get(&host(&service), "/sleep?0.25").await.status, 200);
    let stretch = meter().billable_ms_total - before.billable_ms_total;
    assert!(stretch >= 300 && stretch % 100 == 0, "{stretch}");
    until("nothing more is billed", || async {
        let before = meter().billable_ms_total;
        tokio::time::sleep(Duration::from_millis(300)).await;
        meter().billable_ms_total == before
    })
    .await;
}
