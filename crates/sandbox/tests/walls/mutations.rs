//! One wall taken away at a time: a probe must notice, or the wall was never tried. Only in a build with the feature `mutation`.

#[cfg(not(feature = "mutation"))]
pub fn run(_filter: Option<&str>) -> (u32, u32) {
    (0, 0)
}

#[cfg(feature = "mutation")]
pub fn run(filter: Option<&str>) -> (u32, u32) {
    use crate::{
        suite::{Suite, as_fork},
        walls::probe,
    };

    /// The layer, and a probe that must turn red without it.
    const LAYERS: [(&str, &str); 11] = [
        ("capabilities", "capabilities_bounding"),
        ("descriptors", "inherited_descriptors"),
        ("environment", "environment_of_the_host"),
        ("hide-processes", "see_init"),
        ("ipc", "shared_memory_of_the_host"),
        ("landlock", "signal_init"),
        ("limits", "core_dumps"),
        ("network", "loopback_of_the_host"),
        ("read-only", "root_is_writable"),
        ("seccomp", "io_uring_setup"),
        ("uts", "name_of_the_host"),
    ];
    let mut total = (0, 0);
    for (layer, red) in LAYERS {
        if filter.is_some_and(|word| !"mutation".contains(word) && !layer.contains(word)) {
            continue;
        }
        let (passed, failed) = as_fork(layer, || {
            // SAFETY: this fork has one thread.
            unsafe { std::env::set_var("TANEBI_MUTATION", layer) };
            let mut counted = (0, 0);
            let mut suite = Suite::new("mutations", None);
            suite.check(&format!("without {layer} a probe turns red"), |suite| {
                let allowed = probe(suite).allowed;
                println!("  red: {}", allowed.len());
                for line in allowed.iter().take(6) {
                    println!("    {line}");
                }
                assert!(allowed.iter().any(|line| line.starts_with(&format!("ALLOWED {red}:"))), "{red} is not red: {allowed:#?}");
            });
            let ended = suite.run(|_| {});
            counted.0 += ended.0;
            counted.1 += ended.1;
            counted
        });
        total.0 += passed;
        total.1 += failed;
    }
    total
}
