#!/usr/bin/env python3
"""From a client's send, on a new connection, to the reply's first byte when no instance runs.

  coldstart.py [--samples 100] [--idle 5] [--language python|nodejs|go|java] [--profile release]

For each language three ways in turn: a clone that waited armed, a start without clones (--start off) of the same source, and a
request that finds its instance warm. How an instance came to be is read from `tanebi instances list`, and a sample that came to be
in another way than it is counted for ends the bench. Also the memory that an armed clone has to itself.
"""

import argparse
import socket
import time
from pathlib import Path

from common import LANGUAGES, ROOT, Tanebi, children, median, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--samples", type=int, default=100)
parser.add_argument("--idle", type=float, default=5)
parser.add_argument("--language", choices=LANGUAGES)
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()


def first_byte_ms(tanebi, name):
    address, port = tanebi.listen.split(":")
    with socket.create_connection((address, int(port))) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = f"GET / HTTP/1.1\r\nHost: {tanebi.host(name)}\r\nConnection: close\r\n\r\n".encode()
        started = time.perf_counter()
        client.sendall(request)
        answer = client.recv(4096)
        took = time.perf_counter() - started
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{name} answered {answer[:200]!r}")
    return took * 1e3


def lines(tanebi, what, name):
    return [line.split("\t") for line in tanebi.run("instances", what).stdout.splitlines() if line.startswith(f"{name}\t")]


def armed_wait(tanebi, name):
    for _ in range(600):
        template = lines(tanebi, "templates", name)
        if template and template[0][2] == "refused":
            raise SystemExit(f"{name}: {template[0][5]}")
        if template and template[0][2:4] == ["ready", "1 armed"]:
            return
        time.sleep(0.05)
    raise SystemExit(f"{name} has no armed clone")


def sample(tanebi, name, rung):
    tanebi.run("instances", "stop", name)
    if rung == "armed":
        armed_wait(tanebi, name)
    time.sleep(arguments.idle)
    took = first_byte_ms(tanebi, name)
    was = lines(tanebi, "list", name)[-1][5]
    if was != rung:
        raise SystemExit(f"a sample of {rung} was {was}")
    return took


def private_mib(tanebi):
    """Of the processes that are stopped, which are armed clones and, larger, their templates: the smallest."""
    found = []
    waiting = children(tanebi.process.pid)
    while waiting:
        pid = waiting.pop()
        waiting += children(pid)
        status = Path(f"/proc/{pid}/status").read_text()
        inner = next(line for line in status.splitlines() if line.startswith("NSpid")).split()[1:]
        if "State:\tt" in status and len(inner) == 3:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found.append(int(next(line for line in rollup.splitlines() if line.startswith("Private_Dirty")).split()[1]) / 1024)
    return min(found)


for name, language in LANGUAGES.items():
    if arguments.language not in (None, name):
        continue
    tanebi = Tanebi(profile=arguments.profile)
    try:
        source = ROOT / "examples" / name / "hello_http"
        flags = ["--function", language.function, "--no-invoker-iam-check"]
        tanebi.deploy("clones", source, *flags, base_image=language.base_image)
        tanebi.deploy("ordinary", source, *flags, "--start", "off", base_image=language.base_image)
        armed_wait(tanebi, "clones")
        # From the first ones it is learnt what memory a request touches.
        for _ in range(4):
            tanebi.run("instances", "stop", "clones")
            armed_wait(tanebi, "clones")
            first_byte_ms(tanebi, "clones")
            time.sleep(0.5)
        armed, ordinary, warm = [], [], []
        for number in range(arguments.samples):
            armed.append(sample(tanebi, "clones", "armed"))
            warm.append(first_byte_ms(tanebi, "clones"))
            if number % 5 == 0:
                ordinary.append(sample(tanebi, "ordinary", "ordinary"))
        armed_wait(tanebi, "clones")
        p99 = sorted(armed)[int(len(armed) * 0.99)]
        say(measure="cold start", language=name, profile=arguments.profile, samples=arguments.samples, idle_s=arguments.idle,
            armed_ms_p50=round(median(armed), 2), armed_ms_p99=round(p99, 2), ordinary_ms_p50=round(median(ordinary), 1),
            warm_ms_p50=round(median(warm), 2), times_faster=round(median(ordinary) / median(armed), 1), armed_private_mib=round(private_mib(tanebi), 2))
    finally:
        tanebi.close()
