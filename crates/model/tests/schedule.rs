//! unix-cron against an independent reading of it: croniter's fields, Python's zones (`schedule/vectors.py`).
//!
//! A sample is beside this file. `TANEBI_TIER=full` makes all of it anew, with the `python3` of the path (`make schedules` gives it croniter).

use std::process::Command;

use model::{Timestamp, schedule::Schedule};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    expressions: Vec<String>,
    /// What windows share: for each expression the minutes after the start.
    tables: Vec<Vec<Vec<i64>>>,
    windows: Vec<Window>,
}

/// 48 hours around a change of clocks.
#[derive(Deserialize)]
struct Window {
    zone: String,
    start: Timestamp,
    table: usize,
}

#[test]
fn unix_cron_is_due_when_the_reference_says() {
    let text = if std::env::var("TANEBI_TIER").is_ok_and(|tier| tier == "full") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schedule/vectors.py");
        let output = Command::new("python3").args([script, "--all"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    } else {
        include_str!("schedule/vectors.json").to_owned()
    };
    let vectors: Vectors = serde_json::from_str(&text).unwrap();
    let (mut compared, mut wrong, mut unknown) = (0, Vec::new(), Vec::new());
    for window in &vectors.windows {
        for (expression, due) in vectors.expressions.iter().zip(&vectors.tables[window.table]) {
            let Ok(schedule) = Schedule::parse(expression, &window.zone) else {
                unknown.push(format!("{expression} in {}", window.zone));
                continue;
            };
            let end = window.start.as_second() + 48 * 3600;
            let (mut at, mut seen) = (window.start, Vec::new());
            while let Some(next) = schedule.next(at).filter(|next| next.as_second() < end) {
                seen.push((next.as_second() - window.start.as_second()) / 60);
                at = next;
            }
            compared += 1;
            if seen != *due {
                let differs = seen.iter().zip(due).find(|(a, b)| a != b);
                wrong.push(format!(
                    "{expression} in {} from {}: {} times, expected {}, first other {differs:?}",
                    window.zone,
                    window.start,
                    seen.len(),
                    due.len()
                ));
            }
        }
    }
    assert!(unknown.is_empty(), "{} not read: {:#?}", unknown.len(), &unknown[..unknown.len().min(20)]);
    assert!(wrong.is_empty(), "{} of {compared} differ: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    println!("{compared} schedules compared in {} windows", vectors.windows.len());
}
