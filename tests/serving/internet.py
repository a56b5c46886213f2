"""Plays the internet, and what lies beside it, in a network namespace: answers on every address it has, and writes down who was asked for."""

import os
import socket
import sys
import threading

log = open(sys.argv[1], "a", buffering=1)


def listen(family, address):
    listener = socket.create_server((address, 80), family=family, backlog=64)
    os.write(1, b"listening\n")
    while True:
        connection, _ = listener.accept()
        asked = connection.getsockname()[0]
        log.write(f"{asked}\n")
        connection.sendall(asked.encode())
        connection.close()


threading.Thread(target=listen, args=(socket.AF_INET6, "::"), daemon=True).start()
listen(socket.AF_INET, "0.0.0.0")
