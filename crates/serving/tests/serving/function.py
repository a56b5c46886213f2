"""A function without a framework: each path does one thing that the router must cope with."""
import json, os, signal, socket, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Function(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, body, status=200, headers=()):
        body = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def pieces(self):
        """The request's body, piece by piece as it comes."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        elif length := int(self.headers.get("Content-Length", 0)):
            yield self.rfile.read(length)

    def piece(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_POST(self):
        self.do_GET()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        getattr(self, "path_" + path.strip("/").replace("-", "_"), self.path_)(query)

    def path_(self, query):
        self.answer(f"Hello World! {self.path}")

    def path_pid(self, query):
        # Inside, all of them are the same small number; the instance's own clock tells them apart.
        self.answer(BORN)

    def path_env(self, query):
        self.answer(json.dumps(dict(os.environ)))

    def path_headers(self, query):
        self.answer(json.dumps([list(pair) for pair in self.headers.items()]), headers=[("Set-Cookie", "a=1"), ("Connection", "keep-alive, X-Mine"), ("X-Mine", "1")])

    def path_sleep(self, query):
        time.sleep(float(query))
        self.answer(BORN)

    def path_echo(self, query):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in self.pieces():
            self.piece(data.upper())
        self.wfile.write(b"0\r\n\r\n")

    def path_length(self, query):
        self.answer(str(sum(len(data) for data in self.pieces())))

    def path_early(self, query):
        # Nothing of the body is read.
        self.close_connection = True
        self.answer("no thanks", 403)

    def path_flood(self, query):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.piece(b"x" * 65536)

    def path_halfway(self, query):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def path_garbage(self, query):
        self.wfile.write(b"this is no HTTP\r\n\r\n")
        self.close_connection = True

    def path_unasked(self, query):
        self.send_response(101)
        self.send_header("Upgrade", "surprise")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.close_connection = True

    def path_headers_many(self, query):
        self.send_response(200)
        for number in range(int(query)):
            self.send_header(f"X-Many-{number}", "y" * 100)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def path_crash(self, query):
        os._exit(3)

    def path_memory(self, query):
        kept = []
        while True:
            kept.append(b"x" * (1 << 20))

    def path_log(self, query):
        print("a plain line", flush=True)
        print(json.dumps({"severity": "WARNING", "message": "a structured one"}), flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        self.answer("logged")

    def path_log_flood(self, query):
        line = b"z" * 99 + b"\n"
        for _ in range(int(query)):
            os.write(1, line * 100)
        self.answer("logged")

    def path_spin(self, query):
        def spin():
            while True:
                pass

        threading.Thread(target=spin, daemon=True).start()
        self.answer("spinning")

    def path_upgrade(self, query):
        self.send_response(101)
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.write(b"welcome\n")
        self.wfile.flush()
        for line in self.rfile:
            self.wfile.write(line.upper())
            self.wfile.flush()
        self.close_connection = True


def http2(connection):
    """Answers every request with 200, `h2c` and a trailer, without understanding its headers."""

    def exactly(size):
        data = b""
        while len(data) < size:
            more = connection.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def frame(kind, flags, stream, payload):
        connection.sendall(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

    def literal(name, value):
        return bytes([0, len(name)]) + name + bytes([len(value)]) + value

    assert exactly(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frame(4, 0, 0, b"")
    while True:
        head = exactly(9)
        size, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        payload = exactly(size)
        if kind == 4 and not flags & 1:
            frame(4, 1, 0, b"")
        elif kind == 6 and not flags & 1:
            frame(6, 1, 0, payload)
        elif kind == 1:
            frame(1, 4, stream, b"\x88" + literal(b"content-type", b"application/grpc"))
            frame(0, 0, stream, b"h2c")
            frame(1, 5, stream, literal(b"grpc-status", b"0"))


def terminate(*_):
    print("got SIGTERM", flush=True)
    os._exit(0)


BORN = str(time.time_ns())
signal.signal(signal.SIGTERM, terminate)
mode = sys.argv[1] if len(sys.argv) > 1 else "http"
if mode == "exit":
    print("cannot go on", file=sys.stderr, flush=True)
    sys.exit(7)
if mode == "deaf":
    print("not listening", flush=True)
    time.sleep(1000)
if mode == "slow":
    time.sleep(2)
address = ("0.0.0.0", int(os.environ["PORT"]))
if mode == "h2c":
    server = socket.create_server(address)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=http2, args=[connection], daemon=True).start()
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(address, Function).serve_forever()
