#!/usr/bin/env python3
"""The router against nginx as reverse proxy before the same upstream: added median latency and CPU per request.

  router.py [--rounds 20] [--secs 2] [--conns 1,16]

Needs nginx and wrk (apt-get install nginx-light wrk). Three ways to one upstream (an nginx that answers 200), rounds interleaved:
direct; through nginx (proxy_pass, keepalive, access log to a file, as people run it); through tanebi to an instance that is that upstream.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import ROOT, Tanebi, children, cpu_s, median, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=20)
parser.add_argument("--secs", type=int, default=2)
parser.add_argument("--conns", default="1,16")
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()
for tool in ("nginx", "wrk"):
    if not shutil.which(tool, path="/usr/sbin:/usr/bin:/bin"):
        raise SystemExit(f"{tool} is missing: apt-get install nginx-light wrk")

UPSTREAM, PROXY = 19081, 19082
folder = Path(tempfile.mkdtemp())


def nginx(name, server, log):
    config = folder / f"{name}.conf"
    config.write_text(f"""
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log {log}; keepalive_requests 1000000000;
  upstream up {{ server 127.0.0.1:{UPSTREAM}; keepalive 64; keepalive_requests 1000000000; }}
  {server}
}}
""")
    return subprocess.Popen(["/usr/sbin/nginx", "-c", config, "-p", folder, "-e", "stderr"])


UNIT = {"us": 1.0, "ms": 1e3, "s": 1e6}


def wrk(url, conns, host):
    out = subprocess.run(["wrk", "-t1", f"-c{conns}", f"-d{arguments.secs}s", "--latency", "-H", f"Host: {host}", url],
                         capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(out)
    value, unit = re.search(r"^\s+50%\s+([\d.]+)(us|ms|s)$", out, re.M).groups()
    return float(value) * UNIT[unit], int(re.search(r"(\d+) requests in", out).group(1))


upstream = nginx("upstream", f"server {{ listen 127.0.0.1:{UPSTREAM}; location / {{ return 200 \"hello\"; }} }}", "off")
proxy = nginx("proxy", f"server {{ listen 127.0.0.1:{PROXY}; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; "
              "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Host $host; } }", f"{folder}/access.log")
tanebi = Tanebi(profile=arguments.profile)
try:
    tanebi.deploy("up", ROOT / "benches/upstream", "--function", "none", "--allow-unauthenticated")
    ways = {
        "direct": (f"http://127.0.0.1:{UPSTREAM}/", "localhost", None),
        "nginx": (f"http://127.0.0.1:{PROXY}/", "localhost", (children(proxy.pid) or [proxy.pid])[0]),
        "tanebi": (f"http://{tanebi.listen}/", tanebi.host("up"), tanebi.daemon()),
    }
    for url, host, _ in ways.values():
        wrk(url, 1, host)
    for conns in (int(c) for c in arguments.conns.split(",")):
        latency = {name: [] for name in ways}
        cpu = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, (url, host, pid) in ways.items():
                before = cpu_s(pid) if pid else 0
                p50, requests = wrk(url, conns, host)
                latency[name].append(p50)
                if pid:
                    cpu[name].append((cpu_s(pid) - before) / requests * 1e6)
        added = {name: median([v - d for v, d in zip(latency[name], latency["direct"])]) for name in ("nginx", "tanebi")}
        say(measure="router", profile=arguments.profile, conns=conns, rounds=arguments.rounds, direct_us_p50=round(median(latency["direct"]), 1),
            nginx_added_us_p50=round(added["nginx"], 1), tanebi_added_us_p50=round(added["tanebi"], 1), added_ratio=round(added["tanebi"] / added["nginx"], 2),
            nginx_cpu_us=round(median(cpu["nginx"]), 1), tanebi_cpu_us=round(median(cpu["tanebi"]), 1),
            cpu_ratio=round(median(cpu["tanebi"]) / median(cpu["nginx"]), 2))
finally:
    tanebi.close()
    for process in (proxy, upstream):
        process.terminate()
    shutil.rmtree(folder, ignore_errors=True)
