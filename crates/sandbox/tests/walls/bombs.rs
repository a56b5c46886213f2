//! Programs that take what they can: each meets its limit, and all of it is gone soon after.

use std::time::{Duration, Instant};

use crate::suite::{Suite, collect, processes_with, until, wait_for};
use sandbox::Spec;

pub fn checks(suite: &mut Suite) {
    suite.check("a fork bomb meets the limit of processes and is gone at once", |suite| {
        let program = "import os, time, sys\nn = 0\nwhile True:\n try:\n  if os.fork() == 0: time.sleep(1000)\n  n += 1\n except OSError: break\nprint('forked', n, flush=True); time.sleep(1000)";
        let mut spec = suite.python("bomb-fork", program);
        spec.files[0].0 = "/app/bomb-fork.py".into();
        spec.command[2] = "/app/bomb-fork.py".to_owned();
        let sandbox = suite.keeper().start(&spec).unwrap();
        let said = wait_for(&sandbox.stdout, "\n");
        let forked: u32 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!((40..=65).contains(&forked), "{said}");
        ended_soon(suite, "bomb-fork");
        assert!(processes_with("bomb-fork.py").is_empty());
        drop(sandbox);
    });
    suite.check("a shell's fork bomb is ended from outside", |suite| {
        let spec = suite.shell("bomb-shell", "echo begun; f() { f | f & }; f; sleep 1000 # bomb-shell");
        let sandbox = suite.keeper().start(&spec).unwrap();
        wait_for(&sandbox.stdout, "begun");
        std::thread::sleep(Duration::from_millis(300));
        ended_soon(suite, "bomb-shell");
        assert!(processes_with("bomb-shell").is_empty());
        drop(sandbox);
    });
    suite.check("memory meets its limit and that is told", |suite| {
        let program = "held = []\nwhile True: held.append(bytearray(8 << 20))";
        let outcome = suite.run_to_end(&small(suite.python("bomb-memory", program)));
        if suite.walls().memory_limit {
            assert!(outcome.ended.out_of_memory && outcome.ended.signal == Some(9), "{outcome:?}");
            assert!((60 << 20..=64 << 20).contains(&outcome.ended.memory_peak_bytes), "{outcome:?}");
        } else {
            assert!(outcome.stderr.contains("MemoryError"), "{outcome:?}");
        }
    });
    suite.check("ending for another reason is not taken for lack of memory", |suite| {
        let outcome = suite.run_to_end(&small(suite.shell("no-bomb", "kill -9 $$")));
        assert_eq!((outcome.ended.signal, outcome.ended.out_of_memory), (Some(9), false));
        assert!(!suite.walls().memory_limit || outcome.ended.memory_peak_bytes > 0);
    });
    suite.check("what is in tmpfs, memfd and System V memory counts as memory", |suite| {
        let fill = |path: &str| format!("with open('{path}', 'wb') as f:\n while True: f.write(bytes(1 << 20))");
        let memfd = "import os\nf = os.memfd_create('x')\nwhile True: os.write(f, bytes(1 << 20))".to_owned();
        let shm = "import ctypes\nl = ctypes.CDLL(None); l.shmat.restype = ctypes.c_void_p\nwhile True:\n p = l.shmat(l.shmget(0, ctypes.c_size_t(8 << 20), 0o1600), None, 0); ctypes.memset(p, 1, 8 << 20)".to_owned();
        for program in [fill("/tmp/x"), fill("/dev/shm/x"), memfd, shm] {
            if suite.walls().memory_limit {
                let mut spec = small(suite.python("bomb-tmp", &program));
                spec.limits.tmp_bytes = 1 << 30;
                let outcome = suite.run_to_end(&spec);
                assert!(outcome.ended.out_of_memory && outcome.ended.signal == Some(9), "{program}: {outcome:?}");
            }
        }
    });
    suite.check("/tmp and /dev/shm meet their size and their number of files", |suite| {
        let program = "import os, errno\n\
            for top in ('/tmp', '/dev/shm'):\n\
            \x20n = 0\n\
            \x20try:\n\
            \x20\x20with open(top + '/x', 'wb', 0) as f:\n\
            \x20\x20\x20while True: n += f.write(bytes(65536))\n\
            \x20except OSError as e: assert e.errno == errno.ENOSPC\n\
            \x20assert n == 4 << 20, n\n\
            \x20os.unlink(top + '/x')\n\
            \x20try:\n\
            \x20\x20for i in range(100000): os.close(os.open(f'{top}/{i}', os.O_CREAT))\n\
            \x20except OSError as e: assert e.errno == errno.ENOSPC\n\
            \x20assert i < 4000, i\n\
            print('full')";
        let mut spec = suite.python("bomb-files", program);
        spec.limits.tmp_bytes = 4 << 20;
        assert_eq!(suite.run_to_end(&spec).expect_code(0).stdout, "full\n");
    });
    suite.check("descriptors meet their limit", |suite| {
        let program = "import os\nn = 0\ntry:\n while True: os.dup(0); n += 1\nexcept OSError: print(n)";
        let outcome = suite.run_to_end(&suite.python("bomb-fds", program)).expect_code(0);
        assert_eq!(outcome.stdout, "253\n");
    });
    suite.check("threads meet the limit of processes", |suite| {
        let program = "import threading, time\nn = 0\ntry:\n while True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(); n += 1\nexcept RuntimeError: print(n, flush=True)\nimport os; os._exit(0)";
        let outcome = suite.run_to_end(&suite.python("bomb-threads", program)).expect_code(0);
        assert!((40..=65).contains(&outcome.stdout.trim().parse::<u32>().unwrap()), "{outcome:?}");
    });
    suite.check("a share of the CPU is no more than that, and can be changed", |suite| {
        if !suite.walls().cpu_limit {
            return;
        }
        let mut spec = suite.shell("bomb-cpu", "for i in 1 2 3 4; do (while :; do :; done) & done; echo begun; wait");
        spec.limits.cpu_millis = 200;
        let sandbox = suite.keeper().start(&spec).unwrap();
        wait_for(&sandbox.stdout, "begun");
        let share = |millis: u64| {
            let (before, begun) = (suite.keeper().usage("bomb-cpu").unwrap().cpu, Instant::now());
            std::thread::sleep(Duration::from_millis(millis));
            let used = suite.keeper().usage("bomb-cpu").unwrap().cpu - before;
            used.as_secs_f64() / begun.elapsed().as_secs_f64()
        };
        // A quota is per 100 ms, so over a second it is met closely; a busy machine only ever gives less.
        let small = share(1000);
        assert!(small < 0.3, "{small}");
        suite.keeper().cpu_limit("bomb-cpu", 50).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let smaller = share(1000);
        assert!(smaller < 0.1, "{smaller}");
        println!("  shares {small:.2} of 0.20, {smaller:.2} of 0.05");
        ended_soon(suite, "bomb-cpu");
        drop(sandbox);
    });
    suite.check("usage is counted", |suite| {
        let sandbox =
            suite.keeper().start(&suite.python("usage-1", "x = bytearray(32 << 20)\nprint('up', flush=True)\nimport time; time.sleep(1000)")).unwrap();
        wait_for(&sandbox.stdout, "up");
        let usage = suite.keeper().usage("usage-1").unwrap();
        if suite.walls().memory_limit {
            assert!(usage.memory_bytes > 32 << 20 && usage.pids == 2 && usage.cpu > Duration::ZERO, "{usage:?}");
        }
        suite.keeper().end("usage-1").unwrap();
        drop(sandbox);
    });
    suite.check("output that nobody reads holds its writer, not the keeper", |suite| {
        let sandbox = suite.keeper().start(&suite.shell("bomb-output", "yes")).unwrap();
        until("the pipe is full", || suite.keeper().usage("bomb-output").is_ok());
        ended_soon(suite, "bomb-output");
        assert!(collect(&sandbox).stdout.len() <= 1 << 20);
    });
}

fn small(mut spec: Spec) -> Spec {
    spec.limits.memory_bytes = 64 << 20;
    spec
}

fn ended_soon(suite: &Suite, id: &str) {
    let begun = Instant::now();
    suite.keeper().end(id).unwrap();
    let took = begun.elapsed();
    println!("  ended in {took:?}");
    assert!(took < Duration::from_secs(5));
}
