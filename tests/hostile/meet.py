"""Looks for another instance of the same revision that does the same at this moment. Writes a JSON object of what was seen."""

import json
import os
import socket
import time
import uuid

own = uuid.uuid4().hex
with open(f"/tmp/mark-{own}", "w"):
    pass
seen = {"host": socket.gethostname()}
sockets = []
for name, family, address in [("port", socket.AF_INET, ("127.0.0.1", 7777)), ("abstract", socket.AF_UNIX, "\0meet")]:
    listener = socket.socket(family)
    try:
        listener.bind(address)
        listener.listen()
        seen[name] = "own"
    except OSError as error:
        seen[name] = str(error)
    sockets.append(listener)
# The other one has begun by now and has not ended.
time.sleep(1)
seen["marks"] = sum(name.startswith("mark-") for name in os.listdir("/tmp"))


def command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            return line.read()
    except OSError:
        return b""


seen["processes"] = sum(b"meet.py" in command(pid) for pid in os.listdir("/proc") if pid.isdigit())
time.sleep(1)
print(json.dumps(seen))
