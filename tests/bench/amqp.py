"""The little of AMQP 0-9-1 that the benchmark needs: publish into a queue, read what an exchange hands out.

Written against the protocol and not with the product's client, so that it measures as an outsider. Never used outside of tests: it has
no TLS, no reconnection, and one channel.
"""

import json
import socket
import struct
import time
import urllib.parse

METHOD, HEADER, BODY, HEARTBEAT, END = 1, 2, 3, 8, 0xCE


def short(text):
    data = text.encode()
    return bytes([len(data)]) + data


def long(data):
    return struct.pack(">I", len(data)) + data


class Connection:
    """A connection with one channel."""

    def __init__(self, url, limit=30):
        parts = urllib.parse.urlsplit(url)
        user = urllib.parse.unquote(parts.username or "guest")
        password = urllib.parse.unquote(parts.password or "guest")
        host = urllib.parse.unquote(parts.path[1:]) or "/"
        self.socket = socket.create_connection((parts.hostname, parts.port or 5672), timeout=limit)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = []
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.expect(10, 10)
        start = long(b"") + short("PLAIN") + long(b"\0" + user.encode() + b"\0" + password.encode()) + short("en_US")
        self.method(0, 10, 11, start)
        channels, size, _ = struct.unpack(">HIH", self.expect(10, 30))
        self.method(0, 10, 31, struct.pack(">HIH", channels, size, 0))
        self.method(0, 10, 40, short(host) + short("") + b"\0")
        self.expect(10, 41)
        self.method(1, 20, 10, short(""))
        self.expect(20, 11)

    def close(self):
        self.socket.close()

    def frame(self, kind, channel, payload):
        self.socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([END]))

    def method(self, channel, family, number, arguments):
        self.frame(METHOD, channel, struct.pack(">HH", family, number) + arguments)

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return bytes(data)

    def read_frame(self):
        while True:
            kind, _, size = struct.unpack(">BHI", self.exactly(7))
            payload = self.exactly(size)
            if self.exactly(1)[0] != END:
                raise ConnectionError("a frame without its end")
            if kind != HEARTBEAT:
                return kind, payload

    def expect(self, family, number):
        """The arguments of the awaited method; deliveries that come first wait for `deliveries`."""
        while True:
            kind, payload = self.read_frame()
            if kind != METHOD:
                raise ConnectionError("content where a method was awaited")
            found = struct.unpack(">HH", payload[:4])
            if found == (family, number):
                return payload[4:]
            if found == (60, 60):
                self.pending.append(self.content())
            elif found[1] == 50 and found[0] == 10 or found == (20, 40):
                raise ConnectionError(f"the broker refused: {payload[7:200]!r}")

    def content(self):
        _, header = self.read_frame()
        (size,) = struct.unpack(">Q", header[4:12])
        body = b""
        while len(body) < size:
            body += self.read_frame()[1]
        return body

    def confirm(self):
        self.method(1, 85, 10, b"\0")
        self.expect(85, 11)

    def publish(self, queue, body):
        """Into a queue by its name; returns when the broker has it."""
        self.method(1, 60, 40, struct.pack(">H", 0) + short("") + short(queue) + b"\0")
        kind, mode = "application/json", 2
        # The flags of content type and delivery mode.
        self.frame(HEADER, 1, struct.pack(">HHQH", 60, 0, len(body), 0x9000) + short(kind) + bytes([mode]))
        self.frame(BODY, 1, body)
        self.expect(60, 80)

    def subscribe(self, exchange, key):
        """What this exchange hands out under that key, from now on."""
        self.method(1, 50, 10, struct.pack(">H", 0) + short("") + bytes([0b1100]) + long(b""))
        answer = self.expect(50, 11)
        queue = answer[1 : 1 + answer[0]].decode()
        self.method(1, 50, 20, struct.pack(">H", 0) + short(queue) + short(exchange) + short(key) + b"\0" + long(b""))
        self.expect(50, 21)
        # Without acknowledgements.
        self.method(1, 60, 20, struct.pack(">H", 0) + short(queue) + short("") + bytes([0b10]) + long(b""))
        self.expect(60, 21)

    def delete_queue(self, name):
        self.method(1, 50, 40, struct.pack(">H", 0) + short(name) + b"\0")
        self.expect(50, 41)

    def delete_exchange(self, name):
        self.method(1, 40, 20, struct.pack(">H", 0) + short(name) + b"\0")
        self.expect(40, 21)

    def deliveries(self, limit):
        """JSON bodies as they come, with the time of their arrival; an error when the limit (in seconds) is over."""
        deadline = time.monotonic() + limit
        while True:
            if self.pending:
                yield json.loads(self.pending.pop(0)), time.time()
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no more events in time")
            self.socket.settimeout(left)
            kind, payload = self.read_frame()
            if kind == METHOD and struct.unpack(">HH", payload[:4]) == (60, 60):
                self.pending.append(self.content())
