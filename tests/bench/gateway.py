"""What the gateway adds: to a request to a model, and to a git clone of a project. Used by bench.py.

The request goes from the container of a live session through `inside`, the socket and the gateway to a server on this machine's loopback, and
beside it straight to that server. The clone comes from the gateway's socket, and beside it from the mirror by git's own HTTP server program, and
as a directory. Never measures across a network.
"""

import http.server
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ANSWER = b'{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":12,"completion_tokens":3}}'
BODY = '{"model":"m","messages":[{"role":"user","content":"hello"}],"tools":[{"type":"function","function":{"name":"x","parameters":{}}}]}'

# One connection that is kept, as agents do; milliseconds of each request. Perl is in git's own images and starts no process for a request.
ASK = r"""
use strict; use IO::Socket::INET; use Time::HiRes qw(time);
my ($port, $path, $count, $body) = @ARGV;
my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $port, Proto => "tcp") or die;
setsockopt($s, 6, 1, pack("i", 1));
my $request = "POST $path HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: " . length($body) . "\r\n\r\n$body";
sub whole {
    my ($head, $rest) = split /\r\n\r\n/, $_[0], 2;
    return 0 unless defined $rest;
    return length($rest) >= $1 if $head =~ /content-length: (\d+)/i;
    return $rest =~ /(^|\r\n)0\r\n\r\n$/;
}
for (1..$count) {
    my $before = time; syswrite($s, $request) or die; my $answer = "";
    until (whole($answer)) { sysread($s, $answer, 65536, length $answer) or die "over: $answer"; }
    $answer =~ m{^HTTP/1.1 200} or die $answer;
    printf "%.3f\n", (time - $before) * 1000;
}
"""

class Model(http.server.BaseHTTPRequestHandler):
    """Answers every request in the same way, on connections that are kept."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


def serve_model():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def numbers(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command[:4]}: {done.stderr[-1000:]}")
    return [float(line) for line in done.stdout.split()]


def requests(container, port, count, rounds):
    """Milliseconds of requests: straight, and through the gateway."""
    straight, through = [], []
    for _ in range(rounds):
        straight += numbers(["perl", "-e", ASK, str(port), "/v1/chat/completions", str(count), BODY])[5:]
        path = "/model/bench/v1/chat/completions"
        through += numbers(["docker", "exec", container, "perl", "-e", ASK, "8470", path, str(count), BODY])[5:]
    return straight, through


class Backend(http.server.BaseHTTPRequestHandler):
    """git's own HTTP server program over a directory of repositories: the same transport as the gateway's, without a gateway."""

    root = None
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def answer(self, body):
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
        }
        pipe = subprocess.PIPE
        with subprocess.Popen(["git", "http-backend"], stdin=pipe, stdout=pipe, env=environment) as git:
            git.stdin.write(body)
            git.stdin.close()
            self.send_response(200)
            while (line := git.stdout.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().strip().partition(": ")
                self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            shutil.copyfileobj(git.stdout, self.wfile, 65536)
        self.close_connection = True

    def log_message(self, *_):
        pass


def copy(source, target):
    while piece := source.recv(65536):
        target.sendall(piece)
    target.shutdown(socket.SHUT_WR)


def relay(unix):
    """What `inside` does in the sandbox, on this side: a loopback port that leads to the gateway's socket."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            inner, _ = listener.accept()
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outer = socket.socket(socket.AF_UNIX)
            outer.connect(str(unix))
            outer.sendall(b"cofferdam/1 relay 8470\n")
            for ends in [(inner, outer), (outer, inner)]:
                threading.Thread(target=copy, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def clones(state, sandbox_socket, project, rounds):
    """Milliseconds of clones by a git on this machine: from the mirror as a directory, from the mirror over HTTP, through the gateway."""
    [mirror] = Path(state).glob("mirrors/*/mirror.git")
    backend = type("MirrorBackend", (Backend,), {"root": mirror.parent})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), backend)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sources = [
        f"file://{mirror}",
        f"http://127.0.0.1:{server.server_port}/mirror.git",
        f"http://127.0.0.1:{relay(sandbox_socket)}/git/{project}.git",
    ]
    spent = [[], [], []]
    with tempfile.TemporaryDirectory() as directory:
        # The first of each is cold. They alternate, so that a machine that gets slower makes all slower.
        for _ in range(rounds + 1):
            for source, all_of_it in zip(sources, spent):
                before = time.monotonic()
                target = f"{directory}/clone"
                # Without a time limit: with one Python looks every 50 ms whether it is over.
                subprocess.run(["git", "clone", "--quiet", "--bare", "--no-local", source, target], check=True)
                all_of_it.append((time.monotonic() - before) * 1000)
                shutil.rmtree(target)
    return [all_of_it[1:] for all_of_it in spent]
