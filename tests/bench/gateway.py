"""What the gateway adds: to a request to a model, and to a git clone of a project. Used by bench.py.

Both are measured in the container of a live session. The request goes from there through `inside`, the socket and the gateway to a server on
this machine's loopback, and beside it straight to that server. The clone comes from the gateway, and beside it from a copy of the mirror in the
same container, by git's own transport. Never measures across a network.
"""

import http.server
import subprocess
import threading
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

# Clones alternate, so that a machine that gets slower makes both slower.
CLONES = r"""
url=$(git -C /workspace/* remote get-url origin) || exit 1
for round in $(seq "$1"); do
    for from in "$url" "file:///tmp/bench/mirror.git"; do
        s=$EPOCHREALTIME
        git -c protocol.file.allow=always clone --quiet --bare --no-local "$from" /tmp/bench/clone || exit 1
        e=$EPOCHREALTIME
        echo $(( ${e/./} - ${s/./} ))
        rm -rf /tmp/bench/clone
    done
done
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


def clones(container, state, rounds):
    """Milliseconds of clones: from the mirror, and through the gateway."""
    [mirror] = Path(state).glob("mirrors/*/mirror.git")
    packed = subprocess.run(["tar", "-C", str(mirror.parent), "-cf", "-", "mirror.git"], capture_output=True, check=True, timeout=60).stdout
    unpack = "rm -rf /tmp/bench && mkdir -p /tmp/bench && tar -C /tmp/bench -xof -"
    subprocess.run(["docker", "exec", "-i", container, "sh", "-c", unpack], input=packed, check=True, timeout=60)
    # The first of each is cold.
    microseconds = numbers(["docker", "exec", container, "bash", "-c", CLONES, "clones", str(rounds + 1)])[2:]
    return [one / 1000 for one in microseconds[1::2]], [one / 1000 for one in microseconds[0::2]]
