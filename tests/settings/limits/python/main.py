"""What an instance sees of its limits, and what they do to it: one path a behaviour, the same in four languages."""

import json
import os
import threading
import time

import functions_framework

STATE = {"live": True, "ready": True}
LOCK = threading.Lock()
# Requests now, and the most at a time.
COUNT = {"now": 0, "peak": 0}


@functions_framework.http
def limits(request):
    """Answers by the path."""
    if request.path in ("/live", "/ready"):
        return "", 200 if STATE[request.path[1:]] else 500
    with LOCK:
        COUNT["now"] += 1
        COUNT["peak"] = max(COUNT.values())
    try:
        return PATHS[request.path](request)
    finally:
        with LOCK:
            COUNT["now"] -= 1


def content(path):
    """The text of a file; nothing where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def about(_):
    """What it sees."""
    return {
        "id": os.uname().nodename,
        "heap": 0,
        "processors": len(os.sched_getaffinity(0)),
        "memory": content("/sys/fs/cgroup/memory.max"),
        "cpu": content("/sys/fs/cgroup/cpu.max"),
        "key": os.environ.get("KEY", ""),
        "file": content("/secrets/key"),
        "peak": COUNT["peak"],
        "aborted": 0,
    }


def sleep(request):
    """Answers after the time asked for."""
    time.sleep(int(request.args["ms"]) / 1000)
    return os.uname().nodename


def burn(request):
    """Processor time that one wall-clock stretch gets."""
    wall, before = time.monotonic(), time.thread_time()
    while time.monotonic() - wall < int(request.args["ms"]) / 1000:
        pass
    return str((time.thread_time() - before) / (time.monotonic() - wall))


def eat(request):
    """Takes memory, and keeps it."""
    STATE["eaten"] = b"x" * (int(request.args["mib"]) << 20)
    return "eaten"


def change(request):
    """Changes what probes see."""
    STATE.update({name: json.loads(value) for name, value in request.args.items()})
    return os.uname().nodename


PATHS = {"/about": about, "/sleep": sleep, "/burn": burn, "/eat": eat, "/set": change}
