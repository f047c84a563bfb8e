"""What the benchmark's workers work in: the test forge with its repositories, and the processes that were started. Measures nothing.

The repositories are the same bytes each time. Large ones are kept where --cache says, for the next run.
"""

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

IMAGE = "cofferdam/sandbox-scripted:test"
TOKEN = "bench-token-value"
SMALL, LARGE, HUGE = "bench/small", "bench/large", "bench/huge"
# The same again for whoever works beside what is measured: a mirror is warm where nobody else pushed since.
WITHOUT_POOL, PEERS = "unpooled", "peers"
VERSION = 1  # of what `history` makes: a cached one of another version is not used


def of(project, whose):
    """The same project, for somebody else alone."""
    return f"{project}-{whose}"


class Processes:
    """What was started here, ended in reverse order."""

    def __init__(self):
        self.started = []

    def start(self, command, log, **more):
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more)
        self.started.append(process)
        return process

    def end_one(self, process):
        if process in self.started:
            self.started.remove(process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            # The second ends sessions at once.
            deadline = time.monotonic() + 0.3
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()

    def end(self):
        for process in list(reversed(self.started)):
            self.end_one(process)


def wait_for(what, holds, limit=30):
    """The limit, in seconds, is a quiet machine's: tests/run.sh says by how much longer it may take."""
    limit *= int(os.environ.get("COFFERDAM_TEST_SLOWNESS", "1"))
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"bench: {what} did not happen within {limit} s")
        time.sleep(0.02)


def timed(command, **more):
    before = time.monotonic()
    # Without a time limit: with one Python looks only every 50 ms whether it is over.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **more)
    return (time.monotonic() - before) * 1000


def docker_run():
    """The measure of most things: a container that does nothing."""
    return timed(["docker", "run", "--rm", "--network", "none", IMAGE, "true"])


def text(chance, size):
    """Text as hard to compress as code that is packed: a third of it goes."""
    return base64.encodebytes(chance.randbytes(size * 3 // 4))[:size]


def history(path, files, new, edits, commits, size=10_000):
    """A bare repository: so many files; each commit writes `new` of them anew and changes a line in each of `edits` others."""
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", path], check=True)
    chance, held, mark = random.Random(files + commits), {}, 0
    command = ["git", "-C", path, "fast-import", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as importer:
        out = importer.stdin

        def commit(number, changed):
            message = f"Change {number}\n".encode()
            person = f"Ada Example <ada@example.org> {1_767_323_045 + number} +0000".encode()
            out.write(b"commit refs/heads/main\nauthor %s\ncommitter %s\ndata %d\n%s" % (person, person, len(message), message))
            for name in changed:
                out.write(b"M 100644 inline source/part%d/file%d.txt\ndata %d\n%s\n" % (name % 40, name, len(held[name]), held[name]))

        for name in range(files):
            held[name] = text(chance, size)
        commit(0, range(files))
        for number in range(1, commits):
            changed = chance.sample(range(files), new + edits)
            for place, name in enumerate(changed):
                if place < new:
                    held[name] = text(chance, size)
                else:
                    at = chance.randrange(0, size - 200)
                    held[name] = held[name][:at] + b"line %d of %d\n" % (number, name) + held[name][at + 20 :]
            commit(number, changed)
    if importer.returncode != 0:
        sys.exit("bench: git fast-import failed")
    subprocess.run(["git", "-C", path, "repack", "--quiet", "-a", "-d", "-f", "--window=5", "--depth=20"], check=True)


SIZES = {LARGE: {"files": 868, "new": 3, "edits": 12, "commits": 570}, HUGE: {"files": 4000, "new": 60, "edits": 20, "commits": 600}}


def repository(project, cache):
    """Where the repository of this project lies; made where it is not in the cache."""
    path = cache / f"{project.partition('/')[2]}-v{VERSION}.git"
    if not path.exists():
        print(f"bench: making the repository of {project}", file=sys.stderr, flush=True)
        fresh = path.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        history(fresh, **SIZES[project])
        fresh.rename(path)
    return path


def seed(cache, with_huge):
    """One user, one token, GitLab projects. The small one is text of two megabytes."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(20000)]
    project = '[[projects]]\nid = {}\nforge = "gitlab"\npath = "{}"\nvisibility = "private"\ndefault_branch = "main"\n{}'
    member = 'members = [{ user = "ada", role = "developer" }]\n'
    lines = [
        '[[users]]\nid = 7\nusername = "ada"\nname = "Ada Example"\nemail = "ada@example.org"\n',
        f'[[tokens]]\nname = "ada"\nvalue = "{TOKEN}"\nuser = "ada"\nforge = "gitlab"\nscopes = ["api"]\n',
    ]
    everybody = [None, WITHOUT_POOL, PEERS]
    large = [(LARGE, whose) for whose in everybody] + [(HUGE, None)] * with_huge
    for number, (name, whose) in enumerate(large):
        named = of(name, whose) if whose else name
        lines.append(project.format(number + 10, named, member + f'from_bare = "{repository(name, cache)}"\n'))
    files = []
    for number in range(200):
        content = "\\n".join(" ".join(chance.choices(words, k=12)) for _ in range(120))
        files.append(f'"source/{number % 20}/file{number}.txt" = "{content}\\n"\n')
    for number, whose in enumerate(everybody):
        named = of(SMALL, whose) if whose else SMALL
        lines += [project.format(number + 1, named, member + "[projects.files]\n"), *files]
    return "".join(lines)


class Forge:
    """The test forge. Its answers can be made to wait."""

    def __init__(self, processes, program, directory, cache, with_huge=False):
        given, ready = directory / "seed.toml", directory / "ready.json"
        given.write_text(seed(cache, with_huge))
        command = [program, "--seed", given, "--data", directory / "forge", "--ready-file", ready]
        with (directory / "forge.log").open("wb") as log:
            processes.start(command + ["--parent-pid", str(os.getpid()), "--max-lifetime", "7200"], log)
        wait_for("the test forge's start", ready.exists, 120)
        told = json.loads(ready.read_text())
        self.url, self.gitlab = told["url"], told["gitlab"]

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read()

    def delay(self, milliseconds):
        """From now on every answer waits for so long."""
        self.ask("DELETE", "/_test/faults")
        if milliseconds:
            self.ask("POST", "/_test/faults", {"always": True, "delay_ms": milliseconds})

    def forget_requests(self):
        self.ask("DELETE", "/_test/requests")

    def requests(self):
        return [one for one in json.loads(self.ask("GET", "/_test/requests")) if not one["path"].startswith("/_test/")]

    def address(self, project):
        return self.gitlab.replace("http://", f"http://oauth2:{TOKEN}@") + f"/{project}.git"

    def clone(self, project, directory):
        """Milliseconds of a full clone over HTTP with its work tree."""
        target = directory / "clone"
        # Sessions and peers leave branches; what is compared is what a first clone takes.
        spent = timed(["git", "clone", "--quiet", "--single-branch", "--no-tags", self.address(project), target])
        shutil.rmtree(target)
        return spent


class Tree:
    """The work tree of a project as an archive: the floor of each clone."""

    def __init__(self, forge, project, directory):
        self.archive, self.target = directory / "tree.tar", directory / "tree"
        bare = directory / "tree.git"
        subprocess.run(["git", "clone", "--quiet", "--bare", "--depth=1", forge.address(project), bare], check=True)
        subprocess.run(["git", "-C", bare, "archive", "--output", self.archive, "HEAD"], check=True)
        shutil.rmtree(bare)

    def unpack(self):
        self.target.mkdir()
        spent = timed(["tar", "-xf", self.archive, "-C", self.target])
        shutil.rmtree(self.target)
        return spent
