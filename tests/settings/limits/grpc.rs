//! gRPC of all four kinds, by grpc-go as a user writes it, to servers of Python's grpcio and, in the full tier, of Node.js's and of grpc-go.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Tanebi, holds, is_full, program, repository};

/// A language and how its server is deployed.
const SERVERS: [(&str, &str); 3] = [("python", "python312"), ("nodejs", "nodejs20"), ("go", "go126")];

/// Without `--use-http2` and with it: gRPC comes as HTTP/2 in any case, as at Google.
pub fn grpc_of_all_kinds() -> Result<()> {
    let folder = repository().join("tests/settings/limits/grpc");
    let client = program().parent().context("a folder")?.join("grpc-client");
    let tanebi = Tanebi::start()?;
    let servers = &SERVERS[..if is_full() { SERVERS.len() } else { 1 }];
    std::thread::scope(|scope| {
        let built = scope.spawn(|| {
            let output = Command::new("go").args(["build", "-o"]).arg(&client).arg("./client").current_dir(folder.join("go")).output()?;
            e2e::text(output, "go build ./client")
        });
        for (name, base_image) in servers {
            let source = folder.join(name);
            tanebi.script_all(&format!(
                "tanebi run deploy {name} --source '{}' --base-image {base_image} --no-invoker-iam-check --timeout 3 --max-instances 1",
                source.display()
            ))?;
        }
        built.join().expect("no panic")
    })?;
    let ask =
        |service: &str, what: &str| tanebi.script_all(&format!("tanebi exec -- '{}' {} {what}", client.display(), &tanebi.url(service)["https://".len()..]));
    for (name, _) in servers {
        holds(&ask(name, "check").with_context(|| format!("{name}, port http1"))?, "12 checks passed")?;
        let more = "--use-http2 --startup-probe grpc.port=8080,periodSeconds=1";
        tanebi.script_all(&format!("gcloud --quiet run services update {name} --region {} {more}", e2e::REGION))?;
        holds(&ask(name, "check").with_context(|| format!("{name}, port h2c"))?, "12 checks passed")?;
        holds(&tanebi.script(&format!("tanebi logs {name} --limit 1000"))?, "STARTUP GRPC probe succeeded after")?;
    }

    // What is refused has a status that every library of gRPC makes of HTTP's.
    let plain = repository().join("examples/python/hello_http");
    tanebi.deploy("plain", &plain, "--function hello_http --no-invoker-iam-check")?;
    tanebi.deploy("closed", &plain, "--function hello_http")?;
    for (service, code) in [("plain", "Unavailable "), ("closed", "PermissionDenied "), ("absent", "Unimplemented ")] {
        let told = ask(service, "code")?;
        ensure!(told.starts_with(code), "{service}: {told}");
    }
    println!("  {} servers, 12 checks each with both names of its port", servers.len());
    Ok(())
}
