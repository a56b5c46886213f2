"""A function for tests: one path a behaviour."""

import os
import time

import flask
import functions_framework

calls = 0


@functions_framework.http
def function(request):
    global calls
    calls += 1
    path = request.path
    if path == "/env":
        return {name: value for name, value in os.environ.items()}
    if path == "/headers":
        return dict(request.headers)
    if path == "/sleep":
        time.sleep(float(request.args["s"]))
        return "slept"
    if path == "/stamp":
        began = time.time()
        time.sleep(float(request.args["s"]))
        return str(began)
    if path == "/burn":
        end = time.time() + float(request.args["s"])
        while time.time() < end:
            pass
        return "burnt"
    if path == "/crash":
        os._exit(3)
    if path == "/eat":
        data = []
        while True:
            data.append(bytearray(b"x" * (16 << 20)))
    if path == "/stream":

        def parts():
            for n in range(int(request.args["n"])):
                yield f"part {n}\n"
                time.sleep(0.2)

        return flask.Response(parts(), mimetype="text/plain")
    if path == "/length":
        return str(len(request.get_data()))
    if path == "/big":
        return b"x" * int(request.args["n"])
    if path == "/status":
        return "told", int(request.args["code"])
    if path == "/pid":
        return f"{os.getpid()} {calls}"
    if path == "/log":
        print('{"severity":"WARNING","message":"from the function","n":1}', flush=True)
        return "logged"
    if path == "/metadata":
        import urllib.request

        question = urllib.request.Request(
            "http://metadata.google.internal/computeMetadata/v1/" + request.args["path"],
            headers={"Metadata-Flavor": "Google"},
        )
        return urllib.request.urlopen(question, timeout=10).read()
    if path == "/fetch":
        import urllib.request

        return urllib.request.urlopen(request.args["url"], timeout=10).read()
    if path == "/connect":
        import socket

        try:
            connection = socket.create_connection((request.args["host"], int(request.args["port"])), timeout=5)
            connection.settimeout(3)
            try:
                # What leads nowhere is accepted and then reset.
                return f"connected: {connection.recv(1)}"
            except TimeoutError:
                return "connected"
        except OSError as error:
            return f"refused: {error}"
    return f"{request.method} {path} {calls}"
