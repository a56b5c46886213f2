"""The function that one table of requests tries in every language: one path a behaviour."""

import atexit
import hashlib
import json
import os
import sys
import time

import flask
import functions_framework

# gunicorn puts its own SIGTERM handler over any that a function installs at import, in its parent and in its worker
# alike. What is left to a function is the end of the worker, which SIGTERM makes a normal one.
os.register_at_fork(after_in_child=lambda: atexit.register(print, "table: SIGTERM", flush=True))


@functions_framework.http
def table(request):
    """Answers by the path."""
    answer = PATHS.get(request.path)
    return answer(request) if answer else text("no such path\n", 404)


def text(body, status=200):
    """Plain text, whole or in parts."""
    return flask.Response(body, status, mimetype="text/plain")


def hello(request):
    """Greets whoever is named, or the world."""
    body = request.get_json(silent=True) or {}
    return text(f"Hello {body.get('name') or request.args.get('name') or 'World'}!")


def size(request):
    """Says how long the body is, and its digest."""
    digest = hashlib.sha256()
    count = 0
    for part in iter(lambda: request.stream.read(65536), b""):
        digest.update(part)
        count += len(part)
    return {"bytes": count, "sha256": digest.hexdigest()}


def stream(request):
    """Sends as many parts as asked for, one every 100 ms."""

    def parts():
        for number in range(int(request.args["parts"])):
            if number:
                time.sleep(0.1)
            yield f"part {number + 1}\n"

    return text(parts())


def slow(request):
    """Answers after the time asked for."""
    ms = int(request.args["ms"])
    time.sleep(ms / 1000)
    return text(f"slept {ms} ms\n")


def cors(request):
    """Lets pages of any origin ask."""
    if request.method == "OPTIONS":
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET",
            "Access-Control-Allow-Headers": "Content-Type",
            "Access-Control-Max-Age": "3600",
        }
        return "", 204, headers
    return text("Hello World!"), {"Access-Control-Allow-Origin": "*"}


def upload(request):
    """Says what a form brought."""
    files = {name: {"filename": file.filename, "bytes": len(file.read())} for name, file in request.files.items()}
    return {"fields": dict(request.form), "files": files}


def environment(request):
    """Says what a variable is set to."""
    return text(os.environ.get(request.args["name"], ""))


def echo(request):
    """Says what arrived."""
    return {
        "method": request.method,
        # As it was sent: request.path is decoded.
        "path": request.environ["RAW_URI"].partition("?")[0],
        "query": request.query_string.decode(),
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": request.get_data(as_text=True),
    }


def fail(request):
    """Fails."""
    raise RuntimeError("failed as asked")


def log(request):
    """Writes a line to stdout, and a structured one to stderr."""
    message = request.args["text"]
    print(message, flush=True)
    print(json.dumps({"severity": "WARNING", "message": message}), file=sys.stderr, flush=True)
    return text("ok")


PATHS = {
    "/hello": hello,
    "/size": size,
    "/stream": stream,
    "/slow": slow,
    "/cors": cors,
    "/upload": upload,
    "/environment": environment,
    "/echo": echo,
    "/fail": fail,
    "/log": log,
}


@functions_framework.cloud_event
def events(event):
    """Writes down a CloudEvent."""
    line = {"kind": "cloudevent", "id": event["id"], "source": event["source"], "type": event["type"]}
    line.update(subject=event.get("subject"), time=event.get("time"), data=event.data)
    print(json.dumps(line, default=bytes.decode), flush=True)


def legacy(data, context):
    """Writes down an event of before CloudEvents."""
    line = {"kind": "event", "id": context.event_id, "timestamp": context.timestamp, "eventType": context.event_type}
    line.update(resource=context.resource, data=data)
    print(json.dumps(line, default=bytes.decode), flush=True)
