#!/usr/bin/env python3
"""From an object that is finalized to the function that is called: an upload, a bucket's notification, a push to a warm function.

  finalized.py [--uploads 200] [--profile release]

Each upload is made when the one before it has been heard of. The beginning is the event's own time, which the server sets while it
writes the object; the end is when the function's first line runs. Printed beside: how long an upload's answer took.
"""

import argparse
import http.client
import json
import tempfile
import time
from datetime import datetime
from pathlib import Path

from common import Tanebi, median, say

MAIN = """
import time


def told(request):
    now = time.time()
    attributes = request.get_json()["message"]["attributes"]
    with open("/tmp/heard", "a") as heard:
        heard.write(f"{attributes['objectId']} {attributes['eventTime']} {now:.6f}\\n")
    return "", 204


def heard(request):
    try:
        return open("/tmp/heard").read()
    except FileNotFoundError:
        return ""


def function(request):
    return told(request) if request.method == "POST" else heard(request)
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--uploads", type=int, default=200)
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()

tanebi = Tanebi(profile=arguments.profile)
try:
    source = Path(tempfile.mkdtemp(prefix="tanebi-bench-source-"))
    (source / "main.py").write_text(MAIN)
    (source / "requirements.txt").write_text("functions-framework==3.*\n")
    tanebi.deploy("f", source, "--function", "function", "--allow-unauthenticated", "--max-instances", "1")
    connection = http.client.HTTPConnection(tanebi.listen)

    def ask(method, host, path, body=None, kind="application/json", good=(200,)):
        headers = {"Host": host, "Authorization": f"Bearer {token}", "Content-Type": kind}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status in good, (answer.status, text)
        return text

    secret = (Path(tanebi.data) / "client/secret").read_text()
    connection.request("POST", "/_tanebi/v1/sessions", '{"email":"developer@tanebi.local"}', {"Authorization": f"Bearer {secret}"})
    token = json.loads(connection.getresponse().read())["accessToken"]
    topic = "projects/tanebi-local/topics/finalized"
    ask("PUT", "pubsub.googleapis.com", f"/v1/{topic}", "{}")
    push = {"topic": topic, "pushConfig": {"pushEndpoint": f"https://{tanebi.host('f').replace('.localhost', '.app')}/"}}
    ask("PUT", "pubsub.googleapis.com", "/v1/projects/tanebi-local/subscriptions/finalized", json.dumps(push))
    ask("POST", "storage.googleapis.com", "/storage/v1/b?project=tanebi-local", '{"name":"finalized-1"}')
    ask("POST", "storage.googleapis.com", "/storage/v1/b/finalized-1/notificationConfigs", json.dumps({"topic": f"//pubsub.googleapis.com/{topic}", "payload_format": "JSON_API_V1", "event_types": ["OBJECT_FINALIZE"]}))

    def heard():
        connection.request("GET", "/", headers={"Host": tanebi.host("f")})
        return [line.split(" ") for line in connection.getresponse().read().decode().splitlines()]

    answers = []
    for number in range(arguments.uploads):
        started = time.perf_counter()
        ask("POST", "storage.googleapis.com", f"/upload/storage/v1/b/finalized-1/o?uploadType=media&name=o{number}", "x", "text/plain")
        answers.append((time.perf_counter() - started) * 1e3)
        end = time.monotonic() + 30
        while len(heard()) <= number:
            assert time.monotonic() < end, f"upload {number} was not heard of"
            time.sleep(0.005)
    delays = sorted((float(now) - datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()) * 1e3 for _, at, now in heard())
    say(measure="finalized", uploads=len(delays), finalized_to_called_ms_p50=round(median(delays), 2), finalized_to_called_ms_p99=round(delays[int(len(delays) * 0.99) - 1], 2), upload_ms_p50=round(median(answers), 2))
finally:
    tanebi.close()
