"""A function that takes all it can get: one path a bomb."""

import multiprocessing.shared_memory
import os
import socket
import sys
import threading
import time

import functions_framework


def fork():
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)


def threads():
    while True:
        try:
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        except RuntimeError:
            time.sleep(0.01)


def memory():
    kept = []
    while True:
        kept.append(bytearray(b"x" * (16 << 20)))


def shared_memory():
    kept = []
    while True:
        kept.append(multiprocessing.shared_memory.SharedMemory(create=True, size=16 << 20))
        kept[-1].buf[:] = b"x" * (16 << 20)


def descriptors():
    kept = []
    while True:
        try:
            kept.extend(socket.socketpair())
            kept.extend(os.pipe())
        except OSError:
            time.sleep(0.01)


def files():
    with open("/tmp/large", "wb") as file:
        while True:
            file.write(b"x" * (1 << 20))
            file.flush()


def names():
    n = 0
    while True:
        open(f"/tmp/{n}", "w").close()
        n += 1


def log():
    line = "x" * 1000 + "\n"
    while True:
        sys.stdout.write(line * 1000)


def long_line():
    while True:
        sys.stderr.write("x" * (1 << 20))


def spin():
    for _ in range(16):
        threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
    os.fork()
    while True:
        pass


def orphans():
    """Processes that leave the request behind."""
    for _ in range(50):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    time.sleep(0.001)
            os._exit(0)
    return "left behind"


def headers():
    return "x", 200, {f"X-{n}": "y" * 8000 for n in range(1000)}


def endless():
    def parts():
        while True:
            yield b"x" * 65536

    return parts()


BOMBS = {bomb.__name__: bomb for bomb in (fork, threads, memory, shared_memory, descriptors, files, names, log, long_line, spin, orphans, headers, endless)}


@functions_framework.http
def function(request):
    bomb = BOMBS.get(request.path[1:])
    return bomb() if bomb else "quiet"
