//! What a request's check costs, printed: `cargo test -p iam --release -- --nocapture speed`. It only fails when a known token
//! costs as much as an unknown one, that is when nothing is remembered.

use std::time::Instant;

use super::*;

fn per_call(count: u32, mut call: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..count {
            call();
        }
        best = best.min(start.elapsed() / count);
    }
    best
}

#[tokio::test]
async fn a_known_token_costs_less_than_an_unknown_one() {
    let world = World::new().await;
    let iam = &world.iam;
    let audience = "https://f-9000000000001.asia-northeast1.run.app";
    let service = format!("projects/{PROJECT}/locations/asia-northeast1/services/f");
    let who = world.owner();
    let token = iam.id_token_issue(&who, audience, true);
    let fresh: Vec<_> = (0..200).map(|at| iam.id_token_issue(&who, &format!("{audience}/{at}"), true)).collect();
    let start = Instant::now();
    for token in &fresh {
        iam.id_token_check(token, &|_| true).unwrap();
    }
    let unknown = start.elapsed() / 200;
    let known = per_call(2000, || drop(iam.id_token_check(&token, &|aud| aud == audience).unwrap()));
    let own = per_call(2000, || assert!(iam.is_own(&token)));
    let may = per_call(2000, || assert!(iam.may(Some(&who), "run.routes.invoke", &service, PROJECT)));
    println!("unknown token {unknown:?}, known token {known:?}, is_own {own:?}, may (by the project) {may:?}");
    assert!(known < unknown, "{known:?} {unknown:?}");
}
