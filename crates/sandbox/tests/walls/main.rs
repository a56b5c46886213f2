//! The walls, tried from inside: real programs, real probes, real bombs; as root and as nobody.
//!
//! No test harness of Rust's: the keeper must be forked by a process with one thread. Each suite is a fork of this process, with
//! a keeper of its own. A word on the command line, or several with | between, selects the checks whose name holds it.

mod bombs;
mod building;
mod clone_ends;
mod clone_hostile;
mod clone_refusals;
mod clone_runtimes;
mod clone_state;
mod clone_walls;
mod clones;
mod ending;
mod mutations;
mod network;
mod programs;
mod suite;
mod walls;

use suite::{Suite, as_fork};

fn main() {
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let mut total = (0, 0);
    let mut add = |(passed, failed): (u32, u32)| {
        total.0 += passed;
        total.1 += failed;
    };
    let root = rustix::process::geteuid().is_root();
    // Whoever starts a daemon may ignore signals, even those of the C library's threads; a command must not inherit that.
    for signal in [libc::SIGINT, libc::SIGTERM, 32, 64] {
        suite::signal_ignore(signal);
    }
    if root {
        add(as_fork("root", || Suite::new("root", filter.clone()).run(checks)));
        add(as_fork("left", || Suite::new("left", filter.clone()).run(clone_ends::left_running)));
        add(as_fork("mutations", || mutations::run(filter.as_deref())));
    }
    add(as_fork("rootless", || {
        if root {
            suite::become_nobody();
        }
        Suite::new("rootless", filter.clone()).run(checks)
    }));
    println!("{} passed, {} failed", total.0, total.1);
    std::process::exit(i32::from(total.1 > 0));
}

/// Every check, in an order that goes from the plain to the hostile.
fn checks(suite: &mut Suite) {
    programs::checks(suite);
    building::checks(suite);
    network::checks(suite);
    walls::checks(suite);
    clones::checks(suite);
    clone_state::checks(suite);
    clone_refusals::checks(suite);
    clone_walls::checks(suite);
    clone_hostile::checks(suite);
    clone_ends::checks(suite);
    clone_runtimes::checks(suite);
    bombs::checks(suite);
    ending::checks(suite);
}
