"""What the benches share: a tanebi of their own, CPU and memory of its processes, medians."""

import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def program(profile="release"):
    path = TARGET / profile / "tanebi"
    if not path.exists():
        raise SystemExit(f"{path} is missing: cargo build --release -p tanebi")
    return path


class Tanebi:
    """A running server with a data folder of its own."""

    def __init__(self, data=None, profile="release"):
        self.program = program(profile)
        self.data = data or Path(tempfile.mkdtemp(prefix="tanebi-bench-"))
        self.start()

    def start(self):
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [self.program, "serve", "--data-dir", self.data, "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for line in self.process.stdout:
            if line.startswith("ready "):
                self.ready_ms = (time.perf_counter() - started) * 1e3
                self.listen = line.split()[1].removeprefix("http://")
            if line.startswith("project "):
                self.number = re.search(r"number (\d+)", line).group(1)
                break
        else:
            raise SystemExit("tanebi serve ended before it was ready")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def close(self):
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def run(self, *arguments, **more):
        command = [str(a) for a in (self.program, *arguments)]
        return subprocess.run(command, env={**os.environ, "TANEBI_DATA_DIR": str(self.data)}, capture_output=True, text=True, check=True, **more)

    def deploy(self, name, folder, *flags, base_image="python312"):
        return self.run("run", "deploy", name, "--source", folder, "--base-image", base_image, *flags)

    def host(self, name, region="asia-northeast1"):
        return f"{name}-{self.number}.{region}.run.localhost"

    def daemon(self):
        """The process that serves: the supervisor's child."""
        return children(self.process.pid)[0]


def children(parent):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(entry))
    return found


def cpu_s(pid):
    """CPU seconds of a process, all its threads."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        except OSError:
            pass
    return total / 1e9


def resident_mib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} is gone")


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(), "load1": round(os.getloadavg()[0], 2)}


def say(**row):
    print(json.dumps({**row, **machine()}), flush=True)


def median(values):
    return statistics.median(values)


EXAMPLE = ROOT / "examples/python/hello_http"


class Language(typing.NamedTuple):
    """How examples/LANGUAGE/hello_http is deployed."""

    function: str
    base_image: str
    #: the file that holds the greeting
    file: str


LANGUAGES = {
    "python": Language("hello_http", "python312", "main.py"),
    "nodejs": Language("helloHttp", "nodejs20", "index.js"),
    "go": Language("HelloHTTP", "go126", "function.go"),
    "java": Language("functions.HelloHttp", "java17", "src/main/java/functions/HelloHttp.java"),
}
