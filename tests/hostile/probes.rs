//! Code that looks for ways out of its sandbox: as a function, in clones of each kind, and as what a package manager runs in a build.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use e2e::{Tanebi, eventually, http1, is_full};
use serde_json::json;

use super::{OWNER, answers, daemon, here, host};

/// Fewer would mean that the script has lost some.
const PROBES_MIN: usize = 200;

pub(super) fn probes_from_a_function_and_a_build_step() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let bait = Bait::lay(&tanebi)?;
    let source = tempfile::tempdir()?;
    let at = |name: &str| source.path().join(name);
    let probe = std::fs::read(here().join("probe.py"))?;
    std::fs::create_dir(at("evil"))?;
    for (name, content) in [
        ("main.py", std::fs::read(here().join("probed/main.py"))?),
        ("requirements.txt", b"functions-framework==3.*\n./evil\n".to_vec()),
        ("probe.py", probe.clone()),
        ("host.json", bait.host.to_string().into_bytes()),
        ("evil/setup.py", std::fs::read(here().join("probed/setup.py"))?),
        ("evil/probe.py", probe),
        ("evil/host.json", bait.host.to_string().into_bytes()),
    ] {
        std::fs::write(at(name), content)?;
    }
    tanebi.deploy("neighbour", &e2e::repository().join("examples/python/hello_http"), "--function hello_http --allow-unauthenticated")?;
    answers(&tanebi, "neighbour")?;
    tanebi.deploy("probed", source.path(), "--function function --allow-unauthenticated")?;
    let call = |target: &str| http1::call(tanebi.listen, "GET", target, &host(&tanebi, "probed"), &[], b"");

    for (place, target) in [("a build step", "/build"), ("a function", "/probe")] {
        all_denied(place, &call(target)?)?;
    }
    bait.is_untouched()?;

    // A signal to everybody reaches the function's own processes and nobody else's.
    let before = daemon(&tanebi)?;
    let killed = call("/kill-all")?;
    // The framework's parent process is one of them: its worker may end before it has answered.
    ensure!(killed.text() == "-9" || killed.status == 503, "{killed:?}");
    answers(&tanebi, "neighbour")?;
    answers(&tanebi, "probed")?;
    ensure!(daemon(&tanebi)? == before, "the daemon was started again");
    bait.is_untouched()
}

/// What deploys the functions that run the probes: folder, files that come from elsewhere, flags, and whether its runtime can be cloned alone.
const LANGUAGES: [(&str, &str, &str, bool); 4] = [
    ("python", ".", "--function function --base-image python312", true),
    ("nodejs", ".", "--function function --base-image nodejs20", true),
    ("go", ".", "--function Function --base-image go126", false),
    ("java", "src/main/resources", "--function Probed --base-image java17 --memory 1Gi", true),
];

/// Each way in which an instance comes to be, in one language (all four in the full tier); two at a time do not see each other.
pub(super) fn probes_from_clones() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let bait = Bait::lay(&tanebi)?;
    let count = if is_full() { LANGUAGES.len() } else { 1 };
    for (language, scripts, flags, has_runtime) in &LANGUAGES[..count] {
        let source = tempfile::tempdir()?;
        let own = here().join("probed").join(language);
        let own = if own.is_dir() { own } else { here().join("probed") };
        tanebi.script(&format!("cp -r '{}/.' '{}'", own.display(), source.path().display()))?;
        let scripts = source.path().join(scripts);
        std::fs::create_dir_all(&scripts)?;
        std::fs::write(scripts.join("host.json"), bait.host.to_string())?;
        for script in ["probe.py", "meet.py"] {
            std::fs::copy(here().join(script), scripts.join(script))?;
        }
        if *language == "python" {
            std::fs::write(source.path().join("requirements.txt"), "functions-framework==3.*\n")?;
        }
        let service = format!("probed-{language}");
        let deploy = |start: &str| {
            let flags = format!("{flags} --concurrency 1 --allow-unauthenticated --start {start}");
            tanebi.script(&format!("tanebi run deploy {service} --source '{}' {flags}", source.path().display()))
        };
        let call = |target: &str| http1::call(tanebi.listen, "GET", target, &host(&tanebi, &service), &[], b"");

        deploy("revision")?;
        all_denied(&format!("{language}, an ordinary start"), &call("/probe")?)?;
        armed(&tanebi, &service)?;
        // One clone waits; who comes at the same moment gets one that is made for it.
        tanebi.script(&format!("tanebi instances stop {service}"))?;
        let met = std::thread::scope(|scope| [scope.spawn(|| call("/meet")), scope.spawn(|| call("/meet"))].map(|thread| thread.join().expect("no panic")));
        let mut hosts = BTreeSet::new();
        for answer in met {
            let answer = answer?;
            ensure!(answer.status == 200, "{language}: {answer:?}");
            let seen: serde_json::Value = serde_json::from_slice(&answer.body)?;
            ensure!(seen["port"] == "own" && seen["abstract"] == "own" && seen["marks"] == 1 && seen["processes"] == 1, "{language}: {seen}");
            hosts.insert(seen["host"].to_string());
        }
        ensure!(hosts.len() == 2 && rungs(&tanebi, &service)? == ["armed", "template"], "{language}: {hosts:?}, {:?}", rungs(&tanebi, &service)?);
        let found = std::thread::scope(|scope| {
            [scope.spawn(|| call("/probe.clone")), scope.spawn(|| call("/probe.clone"))].map(|thread| thread.join().expect("no panic"))
        });
        for answer in found {
            all_denied(&format!("{language}, a clone"), &answer?)?;
        }
        ensure!(rungs(&tanebi, &service)? == ["armed", "template"], "{language}: {:?}", rungs(&tanebi, &service)?);
        if *has_runtime {
            deploy("runtime")?;
            armed(&tanebi, &service)?;
            tanebi.script(&format!("tanebi instances stop {service}"))?;
            all_denied(&format!("{language}, a clone of the runtime"), &call("/probe.clone")?)?;
            ensure!(rungs(&tanebi, &service)? == ["runtime"], "{language}: {:?}", rungs(&tanebi, &service)?);
        }
        tanebi.script(&format!("tanebi run delete {service}"))?;
    }
    bait.is_untouched()
}

fn all_denied(place: &str, answer: &http1::Answer) -> Result<()> {
    ensure!(answer.status == 200, "{place}: {} {}", answer.status, answer.text());
    let found: BTreeMap<String, String> = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
    let allowed: Vec<_> = found.iter().filter(|(_, seen)| *seen != "denied").collect();
    println!("  {place}: {} probes, {} allowed", found.len(), allowed.len());
    ensure!(found.len() >= PROBES_MIN, "only {} probes ran in {place}", found.len());
    ensure!(allowed.is_empty(), "allowed in {place}: {allowed:#?}");
    Ok(())
}

/// Waits until a clone of the newest revision is armed.
fn armed(tanebi: &Tanebi, service: &str) -> Result<()> {
    eventually("a clone waits", || {
        let listed = tanebi.script("tanebi instances templates")?;
        let newest = listed.lines().rfind(|line| line.starts_with(&format!("{service}\t"))).map(str::to_owned);
        Ok(newest.is_some_and(|line| line.contains("\tready\t1 armed")).then_some(()))
    })
}

/// How the instances came to be that are there, in order of the words.
fn rungs(tanebi: &Tanebi, service: &str) -> Result<Vec<String>> {
    let listed = tanebi.script("tanebi instances list")?;
    let lines = listed.lines().filter(|line| line.starts_with(&format!("{service}\t")));
    let mut rungs: Vec<_> = lines.map(|line| line.split('\t').nth(5).unwrap_or_default().to_owned()).collect();
    rungs.sort();
    Ok(rungs)
}

/// What the host has that a sandbox must not reach.
struct Bait {
    host: serde_json::Value,
    listener: TcpListener,
    datagram: UdpSocket,
    local: Vec<UnixListener>,
    process: std::process::Child,
    _files: tempfile::TempDir,
}

impl Bait {
    fn lay(tanebi: &Tanebi) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let file = files.path().join("secret-of-the-host");
        std::fs::write(&file, "secret")?;
        for path in [files.path(), &file] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        }
        let listener = TcpListener::bind("0.0.0.0:0")?;
        listener.set_nonblocking(true)?;
        let datagram = UdpSocket::bind("0.0.0.0:0")?;
        datagram.set_nonblocking(true)?;
        let name = format!("tanebi-hostile-{}", std::process::id());
        let socket = files.path().join("socket");
        let local = vec![UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?, UnixListener::bind(&socket)?];
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        for listener in &local {
            listener.set_nonblocking(true)?;
        }
        // Connecting UDP sends nothing: it only picks the address that would be used.
        let outward = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
        // Seconds that no other sleep has.
        let mark = format!("1000.{}", std::process::id());
        let process = Command::new("sleep").arg(&mark).stdin(Stdio::null()).spawn()?;
        let host = json!({
            "data": tanebi.data.path(),
            "file": file,
            "secret": std::fs::read_to_string(tanebi.data.path().join("client/secret"))?.trim(),
            "owner": OWNER,
            "listener": listener.local_addr()?.port(),
            "datagram": datagram.local_addr()?.port(),
            "plain": tanebi.listen.port(),
            "tls": tanebi.tls_listen.port(),
            "abstract": name,
            "socket": socket,
            "address": outward.map_or("127.0.0.1".to_owned(), |address| address.ip().to_string()),
            "name": std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim(),
            "mark": mark,
        });
        Ok(Self { host, listener, datagram, local, process, _files: files })
    }

    /// Nobody came in, nobody was killed.
    fn is_untouched(&self) -> Result<()> {
        let nothing = |kind: std::io::ErrorKind| kind == std::io::ErrorKind::WouldBlock;
        ensure!(self.listener.accept().is_err_and(|e| nothing(e.kind())), "somebody connected to the host's listener");
        ensure!(self.datagram.recv(&mut [0; 8]).is_err_and(|e| nothing(e.kind())), "a datagram came to the host");
        for listener in &self.local {
            ensure!(listener.accept().is_err_and(|e| nothing(e.kind())), "somebody connected to a local socket of the host");
        }
        ensure!(std::path::Path::new(&format!("/proc/{}", self.process.id())).exists(), "a process of the host was killed");
        Ok(())
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        // Gone already is what the test tells.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
