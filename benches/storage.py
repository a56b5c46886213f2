#!/usr/bin/env python3
"""One object up and down: against a plain copy of the same file, in the same run; and how much more memory the server takes.

  storage.py [--mib 1024] [--runs 5] [--profile release]

Both ends write to the same disk and wait until the bytes are on it (fsync): the copy as the upload. A download is read to its end
and dropped, as the copy's source is read. Ratios are of medians.
"""

import argparse
import http.client
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from common import Tanebi, median, resident_mib, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--mib", type=int, default=1024)
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()
PIECE = 1 << 20


def copy(source, target):
    started = time.perf_counter()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while piece := reader.read(PIECE):
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    return time.perf_counter() - started


def read(source):
    started = time.perf_counter()
    with open(source, "rb") as reader:
        while reader.read(PIECE):
            pass
    return time.perf_counter() - started


class Watch(threading.Thread):
    """The most memory that a process had."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.on = pid, 0.0, True
        self.start()

    def run(self):
        while self.on:
            self.most = max(self.most, resident_mib(self.pid))
            time.sleep(0.02)


def call(connection, token, method, path, body=None, headers=None):
    connection.request(method, path, body, {"Host": "storage.googleapis.com", "Authorization": f"Bearer {token}", **(headers or {})})
    return connection.getresponse()


tanebi = Tanebi(profile=arguments.profile)
folder = tempfile.mkdtemp(prefix="tanebi-bench-files-", dir=Path(tanebi.data).parent)
try:
    connection = http.client.HTTPConnection(tanebi.listen, blocksize=PIECE)
    secret = (Path(tanebi.data) / "client/secret").read_text()
    connection.request("POST", "/_tanebi/v1/sessions", '{"email":"developer@tanebi.local"}', {"Authorization": f"Bearer {secret}"})
    token = json.loads(connection.getresponse().read())["accessToken"]
    source = os.path.join(folder, "source")
    with open(source, "wb") as file:
        for _ in range(arguments.mib):
            file.write(os.urandom(PIECE))
    answer = call(connection, token, "POST", "/storage/v1/b?project=tanebi-local", '{"name":"bench-1","softDeletePolicy":{"retentionDurationSeconds":"0"}}', {"Content-Type": "application/json"})
    assert answer.status in (200, 409), answer.read()
    answer.read()
    copies, reads, ups, downs = [], [], [], []
    before = resident_mib(tanebi.daemon())
    watch = Watch(tanebi.daemon())
    for run in range(arguments.runs):
        copies.append(copy(source, os.path.join(folder, "copy")))
        reads.append(read(source))
        started = time.perf_counter()
        with open(source, "rb") as file:
            answer = call(connection, token, "POST", "/upload/storage/v1/b/bench-1/o?uploadType=media&name=o", file, {"Content-Length": str(arguments.mib << 20)})
        assert answer.status == 200, answer.read()
        answer.read()
        ups.append(time.perf_counter() - started)
        started = time.perf_counter()
        answer = call(connection, token, "GET", "/storage/v1/b/bench-1/o/o?alt=media")
        size = 0
        while piece := answer.read(PIECE):
            size += len(piece)
        assert size == arguments.mib << 20
        downs.append(time.perf_counter() - started)
    watch.on = False
    mib_s = lambda seconds: round(arguments.mib / median(seconds))
    say(measure="storage", mib=arguments.mib, runs=arguments.runs, copy_mib_s=mib_s(copies), read_mib_s=mib_s(reads), up_mib_s=mib_s(ups), down_mib_s=mib_s(downs),
        up_of_copy=round(median(copies) / median(ups), 2), down_of_copy=round(median(copies) / median(downs), 2), more_resident_mib=round(watch.most - before, 1))
finally:
    tanebi.close()
    shutil.rmtree(folder, ignore_errors=True)
