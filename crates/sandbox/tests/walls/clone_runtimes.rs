//! Node.js, Go and the Java machine as templates: each with what it makes by itself (event loops, workers, garbage collectors, compilers).

use std::{fs, path::Path, process::Command};

use sandbox::Spec;

use crate::{
    clone_hostile::end,
    clone_state::stopped,
    clones::{cloned, get},
    suite::{Suite, mount},
};

pub fn checks(suite: &mut Suite) {
    if !suite.root {
        return;
    }
    suite.check("a Node.js server with a worker and a timer is cloned", |suite| {
        let mut spec = suite.spec("t-node", &["/usr/bin/node", "/app/main.js"]);
        spec.files.push(("/app/main.js".into(), NODE.as_bytes().to_vec()));
        spec.env.push(("UV_USE_IO_URING".to_owned(), "0".to_owned()));
        spec.limits.memory_bytes = 512 << 20;
        answers(suite, spec);
    });
    suite.check("a Go server is cloned", |suite| {
        let go = Path::new("/usr/local/go/bin/go");
        if !go.exists() {
            return println!("  (no Go on this machine)");
        }
        let folder = suite.dir.join("go");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("main.go"), GO).unwrap();
        let cache = Path::new("/var/tmp/tanebi-walls-go");
        let built = Command::new(go)
            .current_dir(&folder)
            .args(["build", "-o", "server", "main.go"])
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", cache)
            .env("GOFLAGS", "-mod=mod")
            .env("GO111MODULE", "off")
            .env("HOME", &folder)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "go build");
        let mut spec = suite.spec("t-go", &["/app/server"]);
        spec.mounts.push(mount(&folder, "/app"));
        answers(suite, spec);
    });
    suite.check("a Java server is cloned", |suite| {
        let home = Path::new("/usr/lib/jvm/java-17-openjdk-amd64");
        if !home.exists() {
            return println!("  (no Java on this machine)");
        }
        let folder = suite.dir.join("java");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("Main.java"), JAVA).unwrap();
        let built = Command::new(home.join("bin/javac")).current_dir(&folder).arg("Main.java").status();
        assert!(built.is_ok_and(|status| status.success()), "javac");
        let java = home.join("bin/java");
        let words =
            [&java.display().to_string(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xmx128m", "-Xshare:auto", "-cp", "/app", "Main"];
        let mut spec = suite.spec("t-java", &words);
        spec.mounts.extend([mount("/etc/java-17-openjdk", "/etc/java-17-openjdk"), mount(&folder, "/app")]);
        spec.limits.memory_bytes = 1 << 30;
        answers(suite, spec);
    });
}

/// Three clones at the same time, each with a count of its own, asked by several at once; one made after they have answered.
fn answers(suite: &Suite, mut spec: Spec) {
    spec.template = true;
    spec.working_dir = "/".into();
    let id = spec.id.clone();
    let _template = stopped(suite, &id, &spec);
    let mut clones = Vec::new();
    for number in 1..=4 {
        let name = format!("{id}-{number}");
        clones.push(cloned(suite, &id, &name));
        if number == 3 {
            for number in 1..=3 {
                check(suite, &format!("{id}-{number}"));
            }
        }
    }
    check(suite, &format!("{id}-4"));
    drop(clones);
    for number in 1..=4 {
        end(suite, &[&format!("{id}-{number}")]);
    }
    end(suite, &[&id]);
}

/// Its answer: `count host ok`.
fn check(suite: &Suite, id: &str) {
    for count in 1..=3 {
        assert_eq!(get(suite, id, "/"), format!("{count} {id} ok"));
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(get(suite, id, "/").ends_with(&format!(" {id} ok"))));
        }
    });
    assert_eq!(get(suite, id, "/"), format!("12 {id} ok"));
}

const NODE: &str = r#"
const http = require('http'), crypto = require('crypto'), os = require('os'), fs = require('fs');
const { Worker } = require('worker_threads');
const worker = new Worker(`
const { parentPort } = require('worker_threads');
let count = 0;
parentPort.on('message', n => parentPort.postMessage(n + 1));
setInterval(() => count++, 10);
`, { eval: true });
let ticks = 0, count = 0;
setInterval(() => ticks++, 5);
const later = ms => new Promise(done => setTimeout(done, ms));
const asked = n => new Promise(done => { worker.once('message', done); worker.postMessage(n); });
let turn = Promise.resolve();
const server = http.createServer(async (request, response) => {
  const own = ++count, before = ticks;
  turn = turn.then(async () => {
    const answer = await asked(41);
    await later(20);
    const key = await new Promise(done => crypto.pbkdf2('a', 'b', 1000, 32, 'sha256', (e, k) => done(k)));
    const file = await fs.promises.readFile('/app/main.js', 'utf8');
    const ok = answer === 42 && ticks > before && crypto.randomBytes(8).length === 8 && key.length === 32 && file.length > 100;
    response.end(`${own} ${os.hostname()} ${ok ? 'ok' : [answer, ticks, before]}`);
  });
});
server.keepAliveTimeout = 1;
asked(1).then(() => crypto.pbkdf2('a', 'b', 1, 32, 'sha256', () => server.listen(8080, () => console.log('ready'))));
"#;

const GO: &str = r#"
package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

func main() {
	jobs, done := make(chan int), make(chan int)
	for n := 0; n < 8; n++ {
		go func() {
			for job := range jobs {
				done <- job + 1
			}
		}()
	}
	var count, ticks atomic.Int64
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			ticks.Add(1)
		}
	}()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		own, before := count.Add(1), ticks.Load()
		jobs <- 41
		answer := <-done
		time.Sleep(20 * time.Millisecond)
		runtime.GC()
		rand.Read(make([]byte, 8))
		host, _ := os.Hostname()
		if answer == 42 && ticks.Load() > before {
			fmt.Fprintf(w, "%d %s ok", own, host)
		} else {
			fmt.Fprintf(w, "%d %s %d %d %d", own, host, answer, ticks.Load(), before)
		}
	})
	go func() {
		time.Sleep(50 * time.Millisecond)
		fmt.Println("ready")
	}()
	panic(http.ListenAndServe(":8080", nil))
}
"#;

const JAVA: &str = r#"
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.file.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicInteger;

public class Main {
    public static void main(String[] arguments) throws Exception {
        var count = new AtomicInteger();
        var ticks = new AtomicInteger();
        var pool = Executors.newFixedThreadPool(4);
        var timer = Executors.newScheduledThreadPool(1);
        timer.scheduleAtFixedRate(ticks::incrementAndGet, 5, 5, TimeUnit.MILLISECONDS);
        pool.submit(() -> 1).get();
        var server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.setExecutor(pool);
        server.createContext("/", exchange -> {
            try {
                int own = count.incrementAndGet(), before = ticks.get();
                int answer = timer.schedule(() -> 42, 10, TimeUnit.MILLISECONDS).get();
                Thread.sleep(20);
                System.gc();
                new java.security.SecureRandom().nextBytes(new byte[8]);
                var host = Files.readString(Path.of("/proc/sys/kernel/hostname")).trim();
                var text = own + " " + host + " " + (answer == 42 && ticks.get() > before ? "ok" : answer + " " + ticks.get() + " " + before);
                exchange.sendResponseHeaders(200, text.length());
                exchange.getResponseBody().write(text.getBytes());
            } catch (Exception error) {
                error.printStackTrace();
            }
            exchange.close();
        });
        server.start();
        System.out.println("ready");
    }
}
"#;
