"""The server of ../go/main.go in Python: messages are bytes, so that nothing has to be generated."""

import os
import threading
from concurrent import futures

import grpc

GATE = threading.Semaphore(0)
LOCK = threading.Lock()
COUNT = {"ended": 0}


def told(context, name):
    """A value of the call's metadata."""
    return dict(context.invocation_metadata()).get(name)


def fail(context):
    """The status that the caller asks for."""
    if told(context, "fail"):
        code = int(told(context, "fail"))
        context.abort(next(known for known in grpc.StatusCode if known.value[0] == code), f"だめ: {code}")


def count_end(context):
    """Counts the call when it ends before it was answered."""
    gone = threading.Event()
    if not context.add_callback(gone.set):
        gone.set()
    return gone


def more():
    """One more has ended early."""
    with LOCK:
        COUNT["ended"] += 1


def unary(message, context):
    """Sends back the message, and the metadata at both ends."""
    if told(context, "wait"):
        count_end(context).wait()
        more()
        return b""
    fail(context)
    context.send_initial_metadata((("told", told(context, "tell") or ""), ("told-bin", told(context, "tell-bin") or b"")))
    context.set_trailing_metadata((("told-at-last", told(context, "tell") or ""),))
    return message


def open_gate(_, __):
    """Lets the second part of a stream go."""
    GATE.release()
    return b""


def ended(_, __):
    """How many have ended early."""
    return str(COUNT["ended"]).encode()


def server_stream(_, context):
    """Two parts; the second when it is asked for."""
    yield b"first"
    GATE.acquire()
    yield b"last"
    context.set_trailing_metadata((("told-at-last", told(context, "tell") or ""),))
    fail(context)


def client_stream(messages, _):
    """How many bytes came."""
    return str(sum(len(message) for message in messages)).encode()


def bidi(messages, context):
    """Each message back. The last one says so: to grpcio a cancelled call may look like one whose messages have ended."""
    done = threading.Event()
    context.add_callback(lambda: None if done.is_set() else more())
    for message in messages:
        yield message
        if message == b"end" or told(context, "early"):
            done.set()
            break
    fail(context)


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Open": grpc.unary_unary_rpc_method_handler(open_gate),
    "Ended": grpc.unary_unary_rpc_method_handler(ended),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
}

# A HealthCheckResponse that says SERVING: the number 1 in field 1.
HEALTH = {"Check": grpc.unary_unary_rpc_method_handler(lambda _, __: b"\x08\x01")}

if __name__ == "__main__":
    SIZES = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
    SERVER = grpc.server(futures.ThreadPoolExecutor(20), options=SIZES)
    SERVER.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tanebi.Echo", HANDLERS),))
    SERVER.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", HEALTH),))
    SERVER.add_insecure_port(f"[::]:{os.environ['PORT']}")
    SERVER.start()
    SERVER.wait_for_termination()
