"""A client that asks for one path and throws away what comes, so that only the server is measured.

A program of its own, of the standard library alone: ``python drain.py HOST:PORT PATH [--clients N] [--times N]
[--rate BYTES_PER_S --seconds S]``. It prints JSON: bytes received, seconds, when each client had its first byte of a
body, and how many replies were not whole. Linux discards the bytes itself (MSG_TRUNC): they are never copied.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import sys
import time

BUFFER = bytearray(1 << 20)
TICK_S = 0.02
ACCEPT = "application/vnd.oci.image.manifest.v1+json, */*"


class Client:
    """One connection, and how far its present reply is."""

    def __init__(self, host: str, port: int, path: str, times: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setblocking(False)
        self.times = times
        self.received_bytes = 0
        self.first_byte_at: float | None = None
        self.whole = True
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: {ACCEPT}\r\n\r\n".encode()
        self._head: bytes | None = b""
        self._left_bytes = 0

    def ask(self) -> None:
        """Sends the request."""
        self.socket.sendall(self._request)
        self._head = b""

    def read(self, most_bytes: int = len(BUFFER)) -> bool:
        """Takes what is there; False when all replies have been read or the server has gone."""
        count = self._read_head() if self._head is not None else self._discard(most_bytes)
        if count is None:
            return True
        self._left_bytes -= count
        self.received_bytes += count
        if count and self.first_byte_at is None:
            self.first_byte_at = time.perf_counter()
        if self._head is None and self._left_bytes == 0:
            self.times -= 1
            if self.times:
                self.ask()
        elif count == 0 and self._head is None:
            self.whole = False
        return self.whole and self.times > 0

    def _read_head(self) -> int | None:
        """How many bytes of the body came with the end of the head; None while it has not ended."""
        try:
            data = self.socket.recv(4096)
        except BlockingIOError:
            return None
        head, end, body = ((self._head or b"") + data).partition(b"\r\n\r\n")
        if not end and data:
            self._head = head
            return None
        lines = head.decode("latin-1").lower().split("\r\n")
        lengths = [int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")]
        if " 200 " not in lines[0] or not lengths:
            raise SystemExit(f"expected 200 and a length, got {head[:400]!r}")
        self._head, self._left_bytes = None, lengths[0]
        return len(body) or None if lengths[0] else 0

    def _discard(self, most_bytes: int) -> int | None:
        try:
            return self.socket.recv_into(BUFFER, min(most_bytes, self._left_bytes), socket.MSG_TRUNC)
        except BlockingIOError:
            return None


def drain(clients: list[Client]) -> None:
    """Reads as fast as it comes, until all replies have been read."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        for client in clients:
            client.ask()
        reading = len(clients)
        while reading:
            for key, _ in selector.select():
                if not key.data.read():
                    selector.unregister(key.fileobj)
                    reading -= 1


def trickle(clients: list[Client], rate_bytes_s: int, seconds: float) -> None:
    """Lets each client read at most so fast, for at most so long."""
    for client in clients:
        client.ask()
    end = time.perf_counter() + seconds
    reading = clients
    while reading and time.perf_counter() < end:
        reading = [client for client in reading if client.read(max(1, int(rate_bytes_s * TICK_S)))]
        time.sleep(TICK_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("path")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--rate", type=int, default=0, help="bytes per second and client; 0 = as fast as it comes")
    parser.add_argument("--seconds", type=float, default=10.0, help="with --rate: for how long")
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    clients = [Client(host, int(port), options.path, options.times) for _ in range(options.clients)]
    started = time.perf_counter()
    if options.rate:
        trickle(clients, options.rate, options.seconds)
    else:
        drain(clients)
    report = {
        "bytes": sum(client.received_bytes for client in clients),
        "seconds": time.perf_counter() - started,
        "first_bytes_s": sorted(client.first_byte_at - started for client in clients if client.first_byte_at),
        "cut": sum(not client.whole for client in clients),
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
