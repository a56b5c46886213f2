//! A function's way out, tried against a network namespace that plays the internet and everything beside it.
//!
//! The server itself lives in a second namespace whose only way leads to the first: what a function reaches there, it would reach outside.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use e2e::{REGION, Tanebi, text};

use super::function;

/// Public addresses: reached.
const PUBLIC: [&str; 3] = ["93.184.215.14", "172.32.0.1", "2606:2800:21f:cb07::1"];
/// Routed there too, with a server that would answer; a function must not get at them.
const PRIVATE: [&str; 16] = [
    "10.9.9.9",
    "172.16.5.5",
    "192.168.7.7",
    "100.64.1.1",
    "169.254.7.7",
    "168.63.129.16",
    "192.0.0.8",
    "198.18.0.1",
    "203.0.113.7",
    "240.1.2.3",
    "fd00::7",
    "fec0::7",
    "2001:db8::7",
    "64:ff9b::a09:909",
    "2002:a09:909::1",
    "3fff::7",
];
/// The server's own address towards the internet, public as it looks; and the gateway.
const OWN: [&str; 2] = ["51.15.0.2", "2a00:1450:5::2"];
const GATEWAY: [&str; 2] = ["51.15.0.1", "2a00:1450:5::1"];

pub(super) fn the_way_out() -> Result<()> {
    // Built where there are registries; then started again where there is only the namespace.
    let tanebi = Tanebi::start()?;
    tanebi.deploy("f", &function(), "--function function --allow-unauthenticated")?;
    let data = tanebi.stop()?;
    let network = Network::make()?;
    let log = data.path().join("internet.log");
    let script = e2e::repository().join("tests/serving/internet.py");
    let _internet = network.play(&network.internet, &[&script, &log])?;
    let own_log = data.path().join("own.log");
    let _own = network.play(&network.server, &[&script, &own_log])?;
    let tanebi = Tanebi::start_under(&["nsenter", &format!("--net=/run/netns/{}", network.server)], data, &[])?;

    let connect = |target: &str| -> Result<String> {
        let url = format!("http://{}/connect?host={target}&port=80", tanebi.listen);
        let host = format!("Host: f-{}.{REGION}.run.localhost", tanebi.number);
        let output = network.within(&network.server, "curl").args(["-sS", "--noproxy", "*", "--max-time", "60", "-H", &host, &url]).output()?;
        text(output, "curl")
    };
    for target in PUBLIC {
        let answer = connect(target)?;
        ensure!(answer.starts_with("connected: b'"), "{target}: {answer}");
    }
    for target in PRIVATE.iter().chain(&OWN).chain(&["127.0.0.1", "::1", "::ffff:10.9.9.9"]) {
        let answer = connect(target)?;
        ensure!(answer.starts_with("refused"), "{target}: {answer}");
    }
    let reached = std::fs::read_to_string(&log)?;
    ensure!(reached.lines().collect::<Vec<_>>() == PUBLIC, "reached: {reached}");
    let reached = std::fs::read_to_string(&own_log)?;
    ensure!(reached.is_empty(), "reached on the server's own machine: {reached}");
    println!("  {} public addresses reached, {} others not", PUBLIC.len(), PRIVATE.len() + OWN.len() + 3);
    Ok(())
}

/// Two namespaces and the wire between them; gone when dropped.
pub(super) struct Network {
    pub internet: String,
    pub server: String,
}

impl Network {
    pub(super) fn make() -> Result<Self> {
        // Two tests may have one at the same time.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let network = Self { internet: format!("internet-{own}"), server: format!("server-{own}") };
        let (internet, server) = (&network.internet, &network.server);
        ip(&format!("netns add {internet}"))?;
        ip(&format!("netns add {server}"))?;
        ip(&format!("-n {internet} link add wire type veth peer name wire netns {server}"))?;
        for (namespace, addresses) in [(internet, GATEWAY), (server, OWN)] {
            for link in ["lo", "wire"] {
                ip(&format!("-n {namespace} link set {link} up"))?;
            }
            ip(&format!("-n {namespace} address add {}/24 dev wire", addresses[0]))?;
            ip(&format!("-n {namespace} address add {}/64 dev wire nodad", addresses[1]))?;
        }
        for (family, gateway) in [("-4", GATEWAY[0]), ("-6", GATEWAY[1])] {
            ip(&format!("-n {server} {family} route add default via {gateway}"))?;
        }
        for address in PUBLIC.iter().chain(&PRIVATE) {
            ip(&format!("-n {internet} address add {address} dev lo"))?;
        }
        Ok(network)
    }

    fn within(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
        command
    }

    /// A shell as `Tanebi::shell` is one, beside a server that lives in the second namespace.
    pub(super) fn shell(&self, tanebi: &Tanebi, script: &str) -> Result<Output> {
        let folder = e2e::program().parent().context("a folder")?.to_owned();
        let script = format!("PATH='{}':$PATH\neval \"$(tanebi env --data-dir '{}')\"\n{script}", folder.display(), tanebi.data.path().display());
        let mut command = self.within(&self.server, "timeout");
        for name in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_ascii_uppercase());
        }
        Ok(command.args(["-k", "5", "300", "bash", "-c", &script]).stdin(Stdio::null()).output()?)
    }

    /// Runs a script of Python's that answers on all addresses of `namespace`.
    pub(super) fn play(&self, namespace: &str, words: &[&std::path::PathBuf]) -> Result<Player> {
        let mut player = Player(self.within(namespace, "python3").args(words).stdout(Stdio::piped()).spawn()?);
        let mut lines = BufReader::new(player.0.stdout.take().context("stdout")?).lines();
        for _ in 0..2 {
            ensure!(lines.next().context("the internet did not start")?? == "listening");
        }
        Ok(player)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.internet, &self.server] {
            // What a failed start did not make is not there to be removed.
            let _ = ip(&format!("netns delete {namespace}"));
        }
    }
}

pub(super) struct Player(Child);

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("ip: apt-get install iproute2; this test needs root")?;
    text(output, &format!("ip {arguments}"))
}
