"""Plays servers of the world for pushes and jobs, on every address that the namespace has: writes down what each was asked.

  webhook.py LOG CERTIFICATE KEY

A line is: address, method, host, path, and the audience of the token, or what else stands in Authorization.
"""

import base64
import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

log = open(sys.argv[1], "a", buffering=1)


def told(authorization):
    scheme, _, token = (authorization or "").partition(" ")
    if scheme != "Bearer" or token.count(".") != 2:
        return authorization or "-"
    part = token.split(".")[1]
    return "aud=" + json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["aud"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        asked = self.connection.getsockname()[0].removeprefix("::ffff:")
        log.write(f"{asked} {self.command} {self.headers['host']} {self.path} {told(self.headers.get('authorization'))}\n")
        url = urlsplit(self.path)
        if url.path == "/redirect":
            self.send_response(307)
            self.send_header("location", parse_qs(url.query)["to"][0])
        elif url.path == "/endless":
            self.send_response(200)
            self.send_header("connection", "close")
            self.end_headers()
            while True:
                self.wfile.write(b"x" * 65536)
        else:
            self.send_response(204)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def handle_error(self, *_):
        pass


plain, secure = Server(("::", 80), Handler), Server(("::", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
for server in (plain, secure):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)
threading.Event().wait()
