//! Taking one wall away, so that a test can show that a probe notices its absence.
//!
//! With the cargo feature `mutation` off (every build for use) [`without`] is the constant `false` and the walls are whole.

/// A layer that can be left out. What each one is: where it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layer {
    Capabilities,
    Cgroup,
    Descriptors,
    Environment,
    HideProcesses,
    Ipc,
    Landlock,
    Limits,
    Network,
    ReadOnly,
    Seccomp,
    Uts,
}

/// Whether this layer is to be left out.
#[cfg(not(feature = "mutation"))]
pub(crate) const fn without(_layer: Layer) -> bool {
    false
}

#[cfg(feature = "mutation")]
pub(crate) fn without(layer: Layer) -> bool {
    let name = match layer {
        Layer::Capabilities => "capabilities",
        Layer::Cgroup => "cgroup",
        Layer::Descriptors => "descriptors",
        Layer::Environment => "environment",
        Layer::HideProcesses => "hide-processes",
        Layer::Ipc => "ipc",
        Layer::Landlock => "landlock",
        Layer::Limits => "limits",
        Layer::Network => "network",
        Layer::ReadOnly => "read-only",
        Layer::Seccomp => "seccomp",
        Layer::Uts => "uts",
    };
    std::env::var("TANEBI_MUTATION").is_ok_and(|layers| layers.split(',').any(|layer| layer == name))
}
