"""Draws from every generator that a process seeds while it loads, and says what it shares with other instances."""

import os
import random
import secrets
import socket
import tempfile
import threading
import uuid

import functions_framework

print("loading", flush=True)

own = random.Random()
seeded = random.Random(42)
loaded = uuid.uuid4().hex
calls = 0
lock = threading.Lock()


@functions_framework.http
def draw(request):
    """One value of each, and how often this instance was called."""
    global calls
    with lock:
        calls += 1
    return {
        "calls": calls,
        "host": socket.gethostname(),
        "same": {"seeded": seeded.random(), "loaded": loaded},
        "differs": {
            "random": random.random(),
            "own": own.random(),
            "system": random.SystemRandom().random(),
            "secrets": secrets.token_hex(16),
            "uuid1": str(uuid.uuid1()),
            "uuid4": str(uuid.uuid4()),
            "urandom": os.urandom(16).hex(),
            "temporary": os.path.basename(tempfile.mktemp()),
        },
    }
