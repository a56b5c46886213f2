#!/usr/bin/env python3
"""Pub/Sub beside Google's emulator, in turns: publish one by one, publish in batches, publish to streaming pull, publish to push.

  pubsub.py [--rounds 5] [--messages 200] [--batched 5000] [--size 256] [--profile release]

The library in Python takes longer for a message than either server does. So the same is asked with Google's generated client in Go
(publisher/, figures that begin with go_), and of a call that writes nothing: what client and connection cost alone.

Needs Go and the packages of tests/clients/requirements.txt. The emulator is that of gcloud (google-cloud-cli-pubsub-emulator); without it
tanebi is measured alone. tanebi syncs each answered publish to disk, the emulator keeps everything in memory; what one such write costs is
printed beside. tanebi pushes into a deployed function in its sandbox, the emulator to a plain HTTP server outside of any.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import namedtuple
from pathlib import Path

import grpc
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from common import Tanebi, median, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--messages", type=int, default=200)
parser.add_argument("--batched", type=int, default=5000)
parser.add_argument("--size", type=int, default=256)
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()
DATA = b"x" * arguments.size
PATIENCE = 60

Call = namedtuple("Call", "method timeout metadata credentials wait_for_ready compression")


class Token(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Puts an access token on each call of a channel without TLS."""

    def __init__(self, token):
        self.header = ("authorization", f"Bearer {token}")

    def with_token(self, call):
        metadata = [*(call.metadata or []), self.header]
        return Call(call.method, call.timeout, metadata, call.credentials, getattr(call, "wait_for_ready", None), getattr(call, "compression", None))

    def intercept_unary_unary(self, continuation, call, request):
        return continuation(self.with_token(call), request)

    def intercept_stream_stream(self, continuation, call, requests):
        return continuation(self.with_token(call), requests)


class Server:
    """A Pub/Sub at an address, with the clients of one library."""

    def __init__(self, name, address, project, push, token=None):
        def channel():
            plain = grpc.insecure_channel(address)
            return grpc.intercept_channel(plain, Token(token)) if token else plain

        self.address, self.token = address, token
        #: the endpoint of pushes, and its address and Host for a question
        self.name, self.project, (self.endpoint, self.endpoint_address, self.endpoint_host) = name, project, push
        one = pubsub_v1.types.BatchSettings(max_messages=1)
        many = pubsub_v1.types.BatchSettings(max_messages=100, max_latency=0.005)
        self.one = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=channel()), batch_settings=one)
        self.many = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=channel()), batch_settings=many)
        self.subscriber = pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel()))

    def topic(self):
        return self.one.create_topic(name=f"projects/{self.project}/topics/t-{uuid.uuid4().hex}").name

    def publish_alone(self):
        """Milliseconds of each of the messages, published one after the other."""
        topic, took = self.topic(), []
        for n in range(arguments.messages + 10):
            begun = time.perf_counter()
            self.one.publish(topic, DATA).result(PATIENCE)
            if n >= 10:
                took.append((time.perf_counter() - begun) * 1e3)
        return took

    def publish_batched(self):
        """Messages per second, all handed to the library at once."""
        topic, begun = self.topic(), time.perf_counter()
        for future in [self.many.publish(topic, DATA) for _ in range(arguments.batched)]:
            future.result(PATIENCE)
        return arguments.batched / (time.perf_counter() - begun)

    def publish_in_go(self):
        """What the publisher in Go has measured."""
        flags = [f"--address={self.address}", f"--project={self.project}", f"--messages={arguments.messages}", f"--size={arguments.size}"]
        run = subprocess.run([PUBLISHER, *flags], env={**os.environ, "TOKEN": self.token or ""}, check=True, capture_output=True, text=True)
        return json.loads(run.stdout)

    def publish_to_stream(self):
        """Milliseconds from the call of publish to the call of the subscriber, one message after the other."""
        topic = self.topic()
        subscription = self.subscriber.create_subscription(name=topic.replace("/topics/", "/subscriptions/"), topic=topic).name
        came, took = threading.Event(), []

        def on_message(message):
            took.append((time.perf_counter() - begun) * 1e3)
            message.ack()
            came.set()

        stream = self.subscriber.subscribe(subscription, on_message)
        for _ in range(arguments.messages + 10):
            came.clear()
            begun = time.perf_counter()
            self.one.publish(topic, DATA)
            if not came.wait(PATIENCE):
                raise SystemExit(f"{self.name}: a message did not come")
        stream.cancel()
        stream.result(PATIENCE)
        return took[10:]


    def publish_to_push(self):
        """Milliseconds from the call of publish to the call of the function, one message after the other."""
        topic = self.topic()
        push = {"push_endpoint": self.endpoint}
        self.subscriber.create_subscription(request={"name": topic.replace("/topics/", "/subscriptions/"), "topic": topic, "push_config": push})
        took = []
        for n in range(arguments.messages // 2 + 10):
            begun = time.monotonic()
            self.one.publish(topic, DATA, n=f"{topic}-{n}")
            took.append((self.pushed(f"{topic}-{n}") - begun) * 1e3)
        return took[10:]

    def pushed(self, wanted):
        """When the message came to the endpoint, by the clock that all processes of this machine share."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            connection = http.client.HTTPConnection(self.endpoint_address)
            connection.request("GET", "/", headers={"Host": self.endpoint_host})
            came = json.load(connection.getresponse())
            if came.get("n") == wanted:
                return came["at"]
            time.sleep(0.002)
        raise SystemExit(f"{self.name}: a message was not pushed")


#: Remembers the message that came last, and when.
FUNCTION = """
import time

last = {}


def take(request):
    if request.method == "POST":
        at = time.monotonic()
        last.update(n=request.get_json()["message"]["attributes"]["n"], at=at)
        return "", 204
    return last
"""
SERVER = """
import http.server
import json
import time

last = {}


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        at = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        last.update(n=body["message"]["attributes"]["n"], at=at)
        self.send_response(204)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(last).encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def sync_ms():
    """Milliseconds of one small write that is synced, where tanebi has its data: the least that an answered publish costs."""
    took = []
    with tempfile.NamedTemporaryFile(dir=tanebi.data) as file:
        for _ in range(200):
            begun = time.perf_counter()
            os.write(file.fileno(), DATA)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - begun) * 1e3)
    return round(median(took), 2)


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def tanebi_token(tanebi):
    secret = (tanebi.data / "client/secret").read_text()
    connection = http.client.HTTPConnection(tanebi.listen)
    body = json.dumps({"email": "developer@tanebi.local"})
    connection.request("POST", "/_tanebi/v1/sessions", body, {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"})
    return json.load(connection.getresponse())["accessToken"]


def emulator_start():
    gcloud = shutil.which("gcloud")
    if not gcloud:
        return None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [gcloud, "beta", "emulators", "pubsub", "start", "--project", "bench", f"--host-port={address}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if "Server started" in line:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, address
    return None


PUBLISHER = Path(tempfile.gettempdir()) / "tanebi-bench-publisher"
subprocess.run(["go", "build", "-o", PUBLISHER, "."], cwd=Path(__file__).parent / "publisher", check=True)
tanebi = Tanebi(profile=arguments.profile)
emulator = emulator_start()
endpoint = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
try:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(FUNCTION)
        (Path(folder) / "requirements.txt").write_text("functions-framework==3.*\n")
        tanebi.deploy("take", folder, "--function", "take", "--no-invoker-iam-check", "--min-instances", "1", "--max-instances", "1")
    host = tanebi.host("take")
    servers = [Server("tanebi", tanebi.listen, "tanebi-local", (f"http://{host}/", tanebi.listen, host), tanebi_token(tanebi))]
    if emulator:
        plain = f"127.0.0.1:{endpoint.stdout.readline().strip()}"
        servers.append(Server("google-emulator", emulator[1], "bench", (f"http://{plain}/", plain, plain)))
    figures = {server.name: ([], [], [], [], []) for server in servers}
    for _ in range(arguments.rounds):
        for server in servers:
            alone, batched, go, stream, push = figures[server.name]
            alone.append(server.publish_alone())
            batched.append(server.publish_batched())
            go.append(server.publish_in_go())
            stream.append(server.publish_to_stream())
            push.append(server.publish_to_push())
    for name, (alone, batched, go, stream, push) in figures.items():
        say(
            measure="pubsub", name=name, rounds=arguments.rounds, messages=arguments.messages, batched=arguments.batched, bytes=arguments.size,
            publish_ms_p50=round(median(median(round_) for round_ in alone), 2),
            publish_ms_p99=round(median(percentile(round_, 99) for round_ in alone), 2),
            batched_per_s=round(median(batched)),
            go_publish_ms_p50=round(median(round_["publish_ms"] for round_ in go), 2),
            go_get_ms_p50=round(median(round_["get_ms"] for round_ in go), 2),
            go_batched_per_s=round(median(round_["batched_per_s"] for round_ in go)),
            stream_ms_p50=round(median(median(round_) for round_ in stream), 2),
            stream_ms_p99=round(median(percentile(round_, 99) for round_ in stream), 2),
            push_ms_p50=round(median(median(round_) for round_ in push), 2),
            push_ms_p99=round(median(percentile(round_, 99) for round_ in push), 2),
            sync_ms=sync_ms(),
        )
finally:
    endpoint.kill()
    tanebi.close()
    if emulator:
        os.killpg(emulator[0].pid, signal.SIGTERM)
os._exit(0)
