#!/usr/bin/env python3
"""Ten times what can be served, and thousands of slow and idle connections: what refused, served and normal callers see.

  overload.py [--rounds 5] [--secs 15] [--concurrency 10] [--held 2000]

Open-loop: requests come at their time whether or not the earlier ones were answered, each on a connection of its own. Each round has its
own unloaded part, so that ratios are of one run; a line a measure, medians of the rounds.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from common import Tanebi, median, resident_mib, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--secs", type=int, default=15)
parser.add_argument("--concurrency", type=int, default=10)
parser.add_argument("--held", type=int, default=2000)
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()

SERVICE_S, OVER, HOLD_S = 0.2, 10, 10
FUNCTION = """
import time

import functions_framework


@functions_framework.http
def stamp(request):
    began = time.time()
    time.sleep(float(request.args["s"]))
    return str(began)
"""


async def call(target):
    """Status, seconds from send to reply, seconds from the function's beginning to the reply."""
    sent = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
    finally:
        writer.close()
    now, took = time.time(), time.perf_counter() - sent
    status = int(answer.split(" ", 2)[1])
    return status, took, now - float(answer.rsplit("\r\n\r\n", 1)[1]) if status == 200 else 0.0


def quantile(times, share):
    times = sorted(times)
    return times[min(len(times) - 1, int(len(times) * share))]


async def overload():
    target, capacity = f"/stamp?s={SERVICE_S}", arguments.concurrency / SERVICE_S
    rows = []
    for _ in range(arguments.rounds):
        unloaded = [await call(target) for _ in range(40)]
        began, calls, rate = time.perf_counter(), [], capacity * OVER
        for n in range(int(rate * arguments.secs)):
            wait = began + n / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            calls.append(asyncio.create_task(call(target)))
        loaded = time.perf_counter() - began
        resident = resident_mib(daemon)
        told = [task.result() for task in calls if task.done() and not task.exception()]
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        ended = time.perf_counter()
        while (await call(target))[1] > 1.5 * SERVICE_S:
            pass
        recovery = time.perf_counter() - ended - SERVICE_S
        served = [one for one in told if one[0] == 200]
        at_once = [one[1] for one in told if one[0] == 429 and one[1] < HOLD_S / 2]
        if len(served) + sum(one[0] == 429 for one in told) != len(told):
            raise SystemExit(f"other answers than 200 and 429: {sorted({one[0] for one in told})}")
        rows.append({
            "goodput": len(served) / (capacity * loaded), "refused_ms_p50": quantile(at_once, 0.5) * 1e3, "refused_ms_p99": quantile(at_once, 0.99) * 1e3,
            "slot_p99_ratio": quantile([one[2] for one in served], 0.99) / quantile([one[2] for one in unloaded], 0.99), "recovery_s": max(0.0, recovery),
            "resident_mib": resident, "refused": len(at_once), "served": len(served),
        })
    say(measure="overload", profile=arguments.profile, over=OVER, capacity_rps=capacity, secs=arguments.secs, rounds=arguments.rounds,
        **{name: round(median([row[name] for row in rows]), 3) for name in rows[0]}, refused_ms_p99_worst=round(max(row["refused_ms_p99"] for row in rows), 2))


async def slow():
    while True:
        try:
            _, writer = await asyncio.open_connection(*address)
            writer.write(f"GET /stamp?s=0 HTTP/1.1\r\nHost: {host}\r\nX-Slow: ".encode())
            while not writer.is_closing():
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            pass


async def idle():
    while True:
        try:
            reader, writer = await asyncio.open_connection(*address)
            await reader.read()
            writer.close()
        except OSError:
            pass


async def beside():
    normal = lambda: asyncio.gather(*[caller() for _ in range(2)])

    async def caller():
        return [(await call("/stamp?s=0"))[1] for _ in range(150)]

    rows = []
    for _ in range(arguments.rounds):
        before = sum(await normal(), [])
        held = [asyncio.create_task(kind()) for _ in range(arguments.held) for kind in (slow, idle)]
        await asyncio.sleep(3)
        during = sum(await normal(), [])
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        rows.append([quantile(during, share) / quantile(before, share) for share in (0.5, 0.99)] + [quantile(during, 0.5) * 1e3])
        await asyncio.sleep(1)
    say(measure="held_connections", profile=arguments.profile, slow=arguments.held, idle=arguments.held, rounds=arguments.rounds,
        normal_ms_p50=round(median([row[2] for row in rows]), 3), p50_ratio=round(median([row[0] for row in rows]), 3), p99_ratio=round(median([row[1] for row in rows]), 3))


tanebi = Tanebi(profile=arguments.profile)
try:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(FUNCTION)
        (Path(folder) / "requirements.txt").write_text("functions-framework==3.*\n")
        tanebi.deploy("o", folder, "--function", "stamp", "--allow-unauthenticated", "--concurrency", arguments.concurrency, "--max-instances", 1, "--memory", "1Gi")
    listen, port = tanebi.listen.rsplit(":", 1)
    address, host, daemon = (listen, int(port)), tanebi.host("o"), tanebi.daemon()
    asyncio.run(overload())
    asyncio.run(beside())
finally:
    tanebi.close()
