"""What programs use, each once, inside a sandbox."""

import asyncio, ctypes, hashlib, json, multiprocessing, os, random, resource, select, signal, socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time, uuid
assert sys.version_info[:2] == (3, 12)
assert os.getpid() == 2 and os.getppid() == 1
ssl.create_default_context()
assert [a[4][0] for a in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)]
assert subprocess.run(["/bin/echo", "x"], capture_output=True).stdout == b"x\n"
with tempfile.TemporaryDirectory() as folder:
    db = sqlite3.connect(os.path.join(folder, "db")); db.execute("create table t (n)"); db.execute("insert into t values (1)"); db.commit(); db.close()
    script = os.path.join(folder, "x"); open(script, "w").write("#!/bin/sh\nexit 5\n"); os.chmod(script, 0o755)
    assert subprocess.run([script]).returncode == 5
    os.mkfifo(os.path.join(folder, "fifo"))
with multiprocessing.Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
async def served():
    async def handle(r, w):
        w.write(await r.readline()); await w.drain(); w.close()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())
    w.write(b"hi\n")
    assert await r.readline() == b"hi\n"
    p = await asyncio.create_subprocess_exec("/bin/true"); assert await p.wait() == 0
asyncio.run(served())
left, right = socket.socketpair(); left.send(b"x"); assert right.recv(1) == b"x"
threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
import mmap; m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC); m.write(b"\xc3")
os.memfd_create("x")
open("/dev/null", "w").write("x"); assert len(open("/dev/urandom", "rb").read(8)) == 8; assert open("/dev/zero", "rb").read(2) == b"\0\0"
assert os.listdir("/proc/self/task") and open("/proc/meminfo").read() and open("/proc/cpuinfo").read() and os.cpu_count()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
assert os.readlink("/proc/self/exe").endswith("python3.12")
ignored = [l for l in open("/proc/self/status") if l.startswith("SigIgn")][0].split()[1]
assert int(ignored, 16) & ~((1 << 12) | (1 << 24)) == 0, ignored  # Python itself ignores SIGPIPE and SIGXFSZ
print("fine")
