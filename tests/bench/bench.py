"""The benchmark itself; run.sh beside it sets up what it needs and calls it.

Measures a release build of the daemon over RabbitMQ as an orchestrator sees it: by the events. All clocks are this machine's. Never
changes anything outside of its temporary directory and of queues with a prefix of its own.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from datetime import datetime
from pathlib import Path

import amqp
import compare
import gateway

IMAGE = "cofferdam/sandbox-scripted:test"
PROMPTED_GOAL = 1.6  # times docker run
API_GOAL = 3
MEMORY_GOAL = 60.0  # MB with IDLE sessions
REQUEST_GOAL = 1.0  # ms that the gateway adds to a request to a model
CLONE_GOAL = 1.2  # times a clone from the mirror
IDLE = 10
STEPS = ["claimed", "grant", "connected", "mirror", "granted", "sandbox", "clone", "cloned", "turn", "turn_started"]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--inside", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--kilobytes", type=int, default=2000, help="size of the repository's files")
    parser.add_argument("--peers", type=Path, help="a Python that has peers/requirements.txt: compare with these workers too")
    parser.add_argument("--no-memory", action="store_true", help="leave the idle sessions out")
    return parser.parse_args()


def write_seed(path, kilobytes):
    """One user, one token, one GitLab project with text of about that size. The same bytes each time."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(20000)]
    lines = [
        '[[users]]\nid = 7\nusername = "ada"\nname = "Ada Example"\nemail = "ada@example.org"\n',
        '[[tokens]]\nname = "ada"\nvalue = "bench-token-value"\nuser = "ada"\nforge = "gitlab"\nscopes = ["api"]\n',
        '[[projects]]\nid = 1\nforge = "gitlab"\npath = "bench/project"\nvisibility = "private"\ndefault_branch = "main"\n'
        'members = [{ user = "ada", role = "developer" }]\n[projects.files]\n',
    ]
    for number in range(kilobytes // 10):
        text = "\\n".join(" ".join(chance.choices(words, k=12)) for _ in range(120))
        lines.append(f'"source/{number % 20}/file{number}.txt" = "{text}\\n"\n')
    path.write_text("".join(lines))


class Processes:
    """What was started here, ended in reverse order."""

    def __init__(self):
        self.started = []

    def start(self, command, log, **more):
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more)
        self.started.append(process)
        return process

    def end(self):
        for process in reversed(self.started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                # The second ends sessions at once.
                time.sleep(0.2)
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(what, holds, limit=30):
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"bench: {what} did not happen within {limit} s")
        time.sleep(0.05)


def task(forge, prompt):
    return {
        "version": 1,
        "session": str(uuid.uuid4()),
        "prompt": prompt,
        "title": "Benchmark",
        "projects": [{"connection": "lab", "path": "bench/project"}],
        "connections": {"lab": {"forge": "gitlab", "url": forge["gitlab"], "credential": {"env": "COFFERDAM_TOKEN_LAB"}}},
    }


def at(event):
    """An event's own time, in seconds; the worker writes nanoseconds, which Python does not read."""
    head, _, fraction = event["time"].rstrip("Z").partition(".")
    return datetime.fromisoformat(head + "+00:00").timestamp() + float("0." + (fraction or "0"))


class Worker:
    """The daemon, and the connection to its broker."""

    def __init__(self, processes, options, directory, forge, broker):
        self.prefix = f"bench-{os.getpid()}"
        self.state = directory / "state"
        self.model_port = gateway.serve_model()
        self.forge = forge
        self.name = self.prefix
        config = directory / "worker.toml"
        config.write_text(
            f'worker = "{self.name}"\nstate_dir = "{directory}/state"\ndefault_agent = "scripted"\nconcurrency = {IDLE}\n'
            f'[sandbox]\ninside = "{options.inside}"\n[forge]\nallow_http = true\n[credentials]\nenv_prefix = "COFFERDAM_TOKEN_"\n'
            f'[queue]\nurl = "{broker}"\nprefix = "{self.prefix}"\n[admin]\nlisten = ""\n'
            f'[agents.scripted]\nimage = "{IMAGE}"\ncommand = ["scripted-agent", "acp"]\n'
            'co_author = "Scripted Agent <scripted@agents.example>"\nmodel = "bench"\n'
            f'[models.bench]\nurl = "http://127.0.0.1:{self.model_port}"\n'
        )
        environment = {**os.environ, "COFFERDAM_TOKEN_LAB": "bench-token-value"}
        self.log = directory / "worker.log"
        with self.log.open("wb") as log:
            self.process = processes.start([options.bin / "cofferdam", "--config", config, "run"], log, env=environment)
        wait_for("the worker's connection to the broker", self.connected)
        self.broker = amqp.Connection(broker)
        self.broker.confirm()
        self.broker.subscribe(f"{self.prefix}.events", "session.#")

    def connected(self):
        if self.process.poll() is not None:
            sys.exit(f"bench: the worker ended: {self.log.read_text()[-2000:]}")
        return '"connected":true' in self.log.read_text()

    def publish(self, prompt):
        body = task(self.forge, prompt)
        before = time.time()
        self.broker.publish(f"{self.prefix}.tasks", json.dumps(body).encode())
        return body["session"], before

    def session(self, prompt, reason="published"):
        """One session to its end: milliseconds of each step since it was published, and the whole."""
        session, published = self.publish(prompt)
        times = {}
        for event, _ in self.broker.deliveries(120):
            data = event["data"]
            if data["session"] != session:
                continue
            times.setdefault(data.get("stage", data["event"]), (at(event) - published) * 1000)
            if data["event"] == "finished":
                if data["outcome"]["reason"] != reason:
                    sys.exit(f"bench: a session ended with {data['outcome']}")
                return times

    def idle_sessions(self, count):
        wanted = {self.publish("!sleep 600000")[0] for _ in range(count)}
        for event, _ in self.broker.deliveries(120):
            if event["data"]["event"] == "turn_started":
                wanted.discard(event["data"]["session"])
            if event["data"]["event"] == "finished":
                sys.exit(f"bench: an idle session ended with {event['data']['outcome']}")
            if not wanted:
                return

    def containers(self):
        # A worker's label is its name and something of its state directory.
        shown = '{{.ID}} {{.Label "dev.cofferdam.worker"}}'
        command = ["docker", "ps", "--filter", "label=dev.cofferdam.worker", "--format", shown]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
        return [line.split()[0] for line in listed if line.split()[1].startswith(f"{self.prefix}-")]

    def is_of(self, container, path):
        shown = "{{range .Mounts}}{{.Source}}\n{{end}}"
        command = ["docker", "inspect", "--format", shown, container]
        mounts = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()
        return str(path.parent) in mounts or str(path) in mounts

    def memory(self):
        """Megabytes (10^6) of resident memory, and of the share that it does not have in common with others."""
        values = {}
        for name in ["status", "smaps_rollup"]:
            for line in Path(f"/proc/{self.process.pid}/{name}").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in ("VmRSS", "Pss"):
                    values[key] = int(value.split()[0]) * 1024 / 1e6
        return values["VmRSS"], values["Pss"]

def timed(command):
    before = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=120)
    return (time.monotonic() - before) * 1000


def bare_clone(forge, directory):
    target = directory / "clone"
    address = forge["gitlab"].replace("http://", "http://oauth2:bench-token-value@") + "/bench/project.git"
    spent = timed(["git", "clone", "--quiet", "--bare", address, str(target)])
    shutil.rmtree(target)
    return spent


def requests_of_a_session(forge, worker):
    """How often the forge's API and git are asked when nothing changed since the last session and nothing is published."""
    log = forge["url"] + "/_test/requests"
    # The session before this one must have left nothing new: what it published would be fetched.
    worker.session("!say hi", "nothing_to_publish")
    urllib.request.urlopen(urllib.request.Request(log, method="DELETE"), timeout=10).close()
    worker.session("!say hi", "nothing_to_publish")
    with urllib.request.urlopen(log, timeout=10) as answer:
        asked = [one for one in json.load(answer) if not one["path"].startswith("/_test/")]
    api = [one for one in asked if ".git/" not in one["path"]]
    talks = [one for one in asked if ".git/" in one["path"] and one["method"] == "POST"]
    return len(api), len(talks), len(asked) - len(api)


def row(name, values, base):
    median = statistics.median(values)
    spread = f"{min(values):.0f} - {max(values):.0f}"
    print(f"{name:<52}{median:>9.0f}{spread:>16}{median / base:>9.2f}")
    return median / base


def verdict(name, value, goal, unit, allowed):
    word = "holds" if value <= goal else "MISSED"
    print(f"goal: {name}: {value:.2f}{unit}, at most {goal:g}{unit}: {word}")
    return value <= goal * allowed


def measure(options, directory, processes, broker):
    rounds = options.rounds or (5 if options.quick else 10)
    allowed = 1.5 if options.quick else 1.0
    seed, ready = directory / "seed.toml", directory / "ready.json"
    write_seed(seed, options.kilobytes)
    with (directory / "forge.log").open("wb") as log:
        forge_command = [options.bin / "test-forge", "--seed", seed, "--data", directory / "forge", "--ready-file", ready]
        processes.start(forge_command + ["--parent-pid", str(os.getpid()), "--max-lifetime", "1800"], log)
    wait_for("the test forge's start", ready.exists)
    forge = json.loads(ready.read_text())
    worker = Worker(processes, options, directory, forge, broker)
    prompt = "Add a file.\n!write note.txt a note\n!commit . Add a note\n!say ## Changes\\nA note."

    docker_run = ["docker", "run", "--rm", "--network", "none", IMAGE, "true"]
    # What is cold at first is not what is measured.
    timed(docker_run)
    worker.session(prompt)
    peers = compare.start(processes, options.peers, directory, forge, IMAGE, broker) if options.peers else []
    others = {peer.name: [] for peer in peers}
    base, clones, sessions = [], [], []
    for _ in range(rounds):
        base.append(timed(docker_run))
        sessions.append(worker.session(prompt))
        clones.append(bare_clone(forge, directory))
        for peer in peers:
            others[peer.name].append(peer.sessions(1))
    for peer in peers:
        peer.end()

    api, talks, git = requests_of_a_session(forge, worker)
    docker = statistics.median(base)
    print(f"\n{rounds} rounds, alternating; repository: {options.kilobytes / 1000:g} MB of text in {options.kilobytes // 10} files; warm image, warm mirror")
    print(f"{'':<52}{'median ms':>9}{'spread':>16}{'ratio':>9}")
    row("docker run --rm --network none IMAGE true", base, docker)
    row("git clone --bare from the forge (floor)", clones, docker)
    prompted = row("session: claimed -> agent prompted", [s["turn_started"] - s["claimed"] for s in sessions], docker)
    received = row("session: task published -> agent prompted", [s["turn_started"] for s in sessions], docker)
    whole = row("session: task published -> finished, merge request", [s["finished"] for s in sessions], docker)
    for name, spent in others.items():
        theirs = row(f"{name} worker: message -> merge request", spent, docker)
        print(f"{'  ours, in sessions of the ' + name + ' worker':<77}{whole / theirs:>9.2f}")
    print("\nsteps of a session, median ms since the task was published")
    for step in STEPS:
        print(f"  {step:<14}{statistics.median(s[step] for s in sessions):>7.0f}")
    print(f"\nasked of the forge for one project before the agent starts, nothing changed: API {api}, git talks {talks} ({git} HTTP requests)")
    good = verdict("API calls per project before the agent starts", api, API_GOAL, "", 1.0)
    good &= verdict("git talks per project before the agent starts", talks, 1, "", 1.0)
    good &= verdict("task received to agent prompted, in docker runs", received, PROMPTED_GOAL, "", allowed)
    del prompted
    if not options.no_memory:
        worker.idle_sessions(IDLE)
        time.sleep(2)
        resident, share = worker.memory()
        print(f"worker with {IDLE} idle sessions: {resident:.1f} MB resident (VmRSS), {share:.1f} MB proportional (Pss)")
        good &= verdict(f"worker memory with {IDLE} idle sessions", resident, MEMORY_GOAL, " MB", allowed)
    good &= measure_gateway(worker, options, allowed)
    return good


def measure_gateway(worker, options, allowed):
    """In the sandbox of a session that does nothing."""
    if not worker.containers():
        worker.idle_sessions(1)
    container = worker.containers()[0]
    count, rounds = (100, 3) if options.quick else (300, 5)
    straight, through = gateway.requests(container, worker.model_port, count, rounds)
    added = statistics.median(through) - statistics.median(straight)
    print(f"\nthe gateway, in a live session's sandbox; {len(through)} requests, {rounds * 3} clones, alternating")
    print(f"{'':<52}{'median ms':>9}{'spread':>16}{'ratio':>9}")
    fine_row("request straight to a server on loopback", straight, straight)
    fine_row("the same through inside, socket, gateway", through, straight)
    socket = next(path for path in worker.state.glob("sandboxes/**/*") if path.is_socket() and worker.is_of(container, path))
    files, mirror, cloned = gateway.clones(worker.state, socket, "lab/bench/project", rounds * 3)
    fine_row("git clone --bare from the mirror over HTTP", mirror, mirror)
    ratio = fine_row("git clone --bare through the gateway", cloned, mirror)
    fine_row("git clone --bare from the mirror as a directory", files, mirror)
    good = verdict("what the gateway adds to a request, median", added, REQUEST_GOAL, " ms", allowed)
    good &= verdict("git clone through the gateway, in clones from the mirror", ratio, CLONE_GOAL, "", allowed)
    return good


def fine_row(name, values, base):
    ratio = statistics.median(values) / statistics.median(base)
    spread = f"{min(values):.2f} - {max(values):.1f}"
    print(f"{name:<52}{statistics.median(values):>9.2f}{spread:>16}{ratio:>9.2f}")
    return ratio


def remove_queues(broker, prefix):
    """What the worker declared. Its sessions' queues are known by their prefix only to the broker's own tools, and expire in a day."""
    connection = amqp.Connection(broker)
    for name in [f"{prefix}.tasks", f"{prefix}.dead", *compare.queues(prefix)]:
        connection.delete_queue(name)
    for name in ["events", "session.in"]:
        connection.delete_exchange(f"{prefix}.{name}")
    connection.close()


def main():
    options = arguments()
    broker = os.environ["COFFERDAM_TEST_AMQP"]
    processes = Processes()
    directory = Path(tempfile.mkdtemp(prefix="cofferdam-bench-"))
    good = False
    try:
        good = measure(options, directory, processes, broker)
    finally:
        processes.end()
        remove_queues(broker, f"bench-{os.getpid()}")
        prefix = f"bench-{os.getpid()}"
        shown = '{{.ID}} {{.Label "dev.cofferdam.worker"}}'
        listed = subprocess.run(
            ["docker", "ps", "-a", "--filter", "label=dev.cofferdam.worker", "--format", shown], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        remaining = [line.split()[0] for line in listed if line.split()[1].startswith(f"{prefix}-")]
        if remaining:
            print(f"bench: {len(remaining)} containers were left behind", file=sys.stderr)
            subprocess.run(["docker", "rm", "-f", *remaining], check=False, stdout=subprocess.DEVNULL)
            good = False
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
