#!/usr/bin/env python3
"""Pub/Sub beside Google's emulator, in turns: publish one by one, publish in batches, publish to streaming pull.

  pubsub.py [--rounds 5] [--messages 200] [--batched 5000] [--size 256] [--profile release]

Needs the packages of tests/clients/requirements.txt. The emulator is that of gcloud (google-cloud-cli-pubsub-emulator); without it
tanebi is measured alone. tanebi syncs each answered publish to disk, the emulator keeps everything in memory.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import namedtuple

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

    def __init__(self, name, address, project, token=None):
        def channel():
            plain = grpc.insecure_channel(address)
            return grpc.intercept_channel(plain, Token(token)) if token else plain

        self.name, self.project = name, project
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


tanebi = Tanebi(profile=arguments.profile)
emulator = emulator_start()
try:
    servers = [Server("tanebi", tanebi.listen, "tanebi-local", tanebi_token(tanebi))]
    if emulator:
        servers.append(Server("google-emulator", emulator[1], "bench"))
    figures = {server.name: ([], [], []) for server in servers}
    for _ in range(arguments.rounds):
        for server in servers:
            alone, batched, stream = figures[server.name]
            alone.append(server.publish_alone())
            batched.append(server.publish_batched())
            stream.append(server.publish_to_stream())
    for name, (alone, batched, stream) in figures.items():
        say(
            measure="pubsub", name=name, rounds=arguments.rounds, messages=arguments.messages, batched=arguments.batched, bytes=arguments.size,
            publish_ms_p50=round(median(median(round_) for round_ in alone), 2),
            publish_ms_p99=round(median(percentile(round_, 99) for round_ in alone), 2),
            batched_per_s=round(median(batched)),
            stream_ms_p50=round(median(median(round_) for round_ in stream), 2),
            stream_ms_p99=round(median(percentile(round_, 99) for round_ in stream), 2),
        )
finally:
    tanebi.close()
    if emulator:
        os.killpg(emulator[0].pid, signal.SIGTERM)
os._exit(0)
