//! What a page from elsewhere can make a developer's browser send: it gets nothing, and may read nothing.

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, Tanebi, http1, program};

use super::{bearer, host};

pub(super) fn pages_from_elsewhere_get_nothing() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let secret = std::fs::read_to_string(tanebi.data.path().join("client/secret"))?;
    let port = tanebi.listen.port();
    let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let mut tried = 0;
    let mut send = |method: &str, target: &str, host: &str, fields: &[&str], body: &[u8]| -> Result<http1::Answer> {
        tried += 1;
        let answer = http1::call(tanebi.listen, method, target, host, fields, body).with_context(|| format!("{method} {target} at {host} with {fields:?}"))?;
        // Whatever it says: no page of another origin may read it.
        ensure!(!answer.head.to_ascii_lowercase().contains("access-control-"), "{method} {target} at {host}: {}", answer.head);
        Ok(answer)
    };

    // A name that was rebound to this machine: not found, with the secret too.
    let with_secret = bearer(secret.trim());
    let rebound = [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example.localhost",
        "0.0.0.0",
        "[::]",
        "127.0.0.2",
        "2130706433",
        "run.app",
        "googleapis.com.evil.example",
        "xgoogleapis.com",
    ];
    for name in rebound.iter().flat_map(|name| [(*name).to_owned(), format!("{name}:{port}")]) {
        for target in ["/", "/_tanebi/v1/server", "/metrics", "/sign-in", "/v2/projects", "/_run/asia-northeast1/f/"] {
            let answer = send("GET", target, &name, &[&with_secret], b"")?;
            ensure!(answer.status == 404, "GET {target} at {name}: {answer:?}");
        }
    }
    for name in ["localhost:1", "127.0.0.1:1"] {
        ensure!(send("GET", "/_tanebi/v1/server", name, &[&with_secret], b"")?.status == 404, "another port than ours");
    }

    // A page that knows the right name: no credentials, no answer.
    let services = format!("/v2/projects/{PROJECT}/locations/{REGION}/services");
    let closed = [
        ("GET", "/_tanebi/v1/server"),
        ("POST", "/_tanebi/v1/sessions"),
        ("POST", "/_tanebi/v1/idTokens"),
        ("GET", "/_tanebi/v1/instances"),
        ("GET", "/_tanebi/v1/templates"),
        ("POST", "/_tanebi/v1/instances:stop"),
        ("GET", "/_tanebi/v1/nothing"),
        ("GET", "/metrics"),
        ("GET", services.as_str()),
        ("POST", services.as_str()),
        ("GET", "/storage/v1/b?project=tanebi-local"),
        ("POST", "/v2/entries:list"),
    ];
    let origins: [&[&str]; 5] = [
        &["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Content-Type: text/plain"],
        &["Origin: null", "Sec-Fetch-Site: cross-site", "Content-Type: application/json"],
        &["Origin: http://f.localhost", "Sec-Fetch-Site: same-site", "Content-Type: application/x-www-form-urlencoded"],
        &["Referer: https://evil.example/", "Cookie: tanebi=1; session=1", "Content-Type: application/json"],
        &[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Origin: https://evil.example",
        ],
    ];
    for name in &names {
        for (method, target) in closed {
            for fields in origins {
                let body: &[u8] = if method == "POST" { br#"{"email":"developer@tanebi.local","audience":"x"}"# } else { b"" };
                let answer = send(method, target, name, fields, body)?;
                ensure!(answer.status == 401, "{method} {target} at {name} with {fields:?}: {answer:?}");
            }
            let asked = [
                "Origin: https://evil.example",
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: authorization,content-type",
                "Access-Control-Request-Private-Network: true",
            ];
            let preflight = send("OPTIONS", target, name, &asked, b"")?;
            ensure!(preflight.status >= 400, "a preflight of {target} at {name}: {preflight:?}");
        }
    }

    // The sign-in page: not in a frame, and its form is not sent by others.
    for name in &names[..1] {
        let page = send("GET", "/sign-in", name, &[], b"")?;
        let policy = page.field("content-security-policy").context("a page has a policy")?;
        ensure!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        for fields in [
            &["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Content-Type: application/x-www-form-urlencoded"][..],
            &["Origin: null", "Content-Type: application/x-www-form-urlencoded"],
            &["Sec-Fetch-Site: same-site", "Content-Type: application/x-www-form-urlencoded"],
        ] {
            let answer = send("POST", "/sign-in", name, fields, b"email=developer@tanebi.local&password=x&new_password=stolen-by-a-page")?;
            ensure!((400..500).contains(&answer.status) && answer.field("set-cookie").is_none(), "POST /sign-in with {fields:?}: {answer:?}");
        }
    }
    // Metadata servers by path want the secret's mark in it.
    for target in [
        "/_metadata/",
        "/_metadata/developer@tanebi.local/",
        "/_metadata/developer@tanebi.local/0000000000000000000000000000000000000000000000000000000000000000/computeMetadata/v1/",
    ] {
        let answer = send("GET", target, &names[0], &["Metadata-Flavor: Google"], b"")?;
        ensure!(answer.status == 404, "{target}: {answer:?}");
    }
    // Functions by path and pages that sign in share no origin (docs/decisions/0003).
    for target in ["/sign-in", "/sign-in?link=x", "/o/oauth2/auth?client_id=x", "/o/oauth2/v2/auth"] {
        let answer = send("GET", target, &names[1], &[], b"")?;
        ensure!(answer.status == 404, "{target} at {}: {answer:?}", names[1]);
    }
    ensure!(send("GET", "/_run/asia-northeast1/f/", &names[0], &[], b"")?.status == 404, "services by path are below localhost only");
    ensure!(send("GET", "/", &host(&tanebi, "f"), &[], b"")?.status == 404);

    // Beyond loopback only for who asks for it.
    let refused = std::process::Command::new(program()).args(["serve", "--listen", "0.0.0.0:0", "--data-dir"]).arg(tempfile::tempdir()?.path()).output()?;
    ensure!(!refused.status.success(), "an open port needs more than a flag: {refused:?}");
    println!("  {tried} requests of pages from elsewhere");
    ensure!(tried >= 200, "only {tried} requests");
    Ok(())
}
