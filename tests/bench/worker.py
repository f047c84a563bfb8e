"""One daemon under measurement, and the connection to its broker: sessions are asked for and watched as an orchestrator does it, by the events.

Never looks into the worker but by what the system tells of its process and of its containers.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path

import amqp
from world import IMAGE, TOKEN, wait_for

# With git as the peers use it (peers/job.py).
PROMPT = "Add a file.\n!write note.txt a note\n!shell git add note.txt && git commit --quiet -m 'Add a note'\n!say ## Changes\\nA note."
LABEL = "dev.cofferdam.worker"
# What the configuration's table [sandbox] says beside what each of these workers has. None: the defaults.
WARM = ""
UNPOOLED = "warm = 0"


def at(event):
    """An event's own time, in seconds; the worker writes nanoseconds, which Python does not read."""
    head, _, fraction = event["time"].rstrip("Z").partition(".")
    return datetime.fromisoformat(head + "+00:00").timestamp() + float("0." + (fraction or "0"))


def engine(*words):
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=60).stdout


def containers(prefix):
    # A worker's label is its name and something of its state directory.
    listed = engine("ps", "-a", "--filter", f"label={LABEL}", "--format", '{{.ID}} {{.Label "%s"}}' % LABEL).splitlines()
    return [line.split()[0] for line in listed if line.split()[1].startswith(f"{prefix}-")]


def megabytes(process):
    """Megabytes (10^6) of a process: resident, and the share that it does not have in common with others."""
    values = {}
    for name in ["status", "smaps_rollup"]:
        for line in Path(f"/proc/{process}/{name}").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("VmRSS", "Pss"):
                values[key] = int(value.split()[0]) * 1024 / 1e6
    return values["VmRSS"], values["Pss"]


class Worker:
    """A daemon with a queue and a state directory of its own."""

    running = []  # those that were not ended yet

    def __init__(self, processes, options, directory, forge, broker, name, *, lanes=1, model_port=9, sandbox=WARM):
        self.prefix, self.processes, self.forge, self.broker_url = f"{prefix()}-{name}", processes, forge, broker
        self.state = directory / name
        self.sessions_asked = 0
        config, self.log = directory / f"{name}.toml", directory / f"{name}.log"
        config.write_text(
            f'worker = "{self.prefix}"\nstate_dir = "{self.state}"\ndefault_agent = "scripted"\nconcurrency = {lanes}\n'
            f'[sandbox]\ninside = "{options.inside}"\n{sandbox}\n[forge]\nallow_http = true\n[credentials]\nenv_prefix = "COFFERDAM_TOKEN_"\n'
            f'[queue]\nurl = "{broker}"\nprefix = "{self.prefix}"\n[admin]\nlisten = ""\n'
            f'[agents.scripted]\nimage = "{IMAGE}"\ncommand = ["scripted-agent", "acp"]\n'
            'co_author = "Scripted Agent <scripted@agents.example>"\nmodel = "bench"\n'
            f'[models.bench]\nurl = "http://127.0.0.1:{model_port}"\n'
        )
        environment = {**os.environ, "COFFERDAM_TOKEN_LAB": TOKEN}
        with self.log.open("wb") as log:
            Worker.running.append(self)
            self.process = processes.start([options.bin / "cofferdam", "--config", config, "run"], log, env=environment)
        wait_for("the worker's connection to the broker", self.connected)
        # It goes with this process.
        self.broker = amqp.Connection(broker)
        self.broker.confirm()
        self.broker.subscribe(f"{self.prefix}.events", "session.#")

    def connected(self):
        if self.process.poll() is not None:
            sys.exit(f"bench: the worker ended: {self.log.read_text()[-2000:]}")
        return '"connected":true' in self.log.read_text()

    def end(self):
        """Ends it and removes what it declared. Its sessions' queues expire by themselves."""
        Worker.running.remove(self)
        self.processes.end_one(self.process)
        remove(self.broker_url, self.prefix)

    def publish(self, project, prompt=PROMPT):
        body = {
            "version": 1,
            "session": str(uuid.uuid4()),
            "prompt": prompt,
            "title": "Benchmark",
            "projects": [{"connection": "lab", "path": project}],
            "connections": {"lab": {"forge": "gitlab", "url": self.forge.gitlab, "credential": {"env": "COFFERDAM_TOKEN_LAB"}}},
        }
        before = time.time()
        self.broker.publish(f"{self.prefix}.tasks", json.dumps(body).encode())
        self.sessions_asked += 1
        return body["session"], before

    def session(self, project, prompt=PROMPT, reason="published"):
        """One session to its end: milliseconds of each step since it was published, and the whole (`finished`, with the sandbox removed)."""
        session, published = self.publish(project, prompt)
        times = {}
        for event, _ in self.broker.deliveries(300):
            data = event["data"]
            if data["session"] != session:
                continue
            # The stage `clone` has the name of progress in it, which comes later.
            times.setdefault(data.get("stage", data["event"]), (at(event) - published) * 1000)
            if data["event"] == "finished":
                if data["outcome"]["reason"] != reason:
                    sys.exit(f"bench: a session ended with {data['outcome']}")
                return times

    def batch(self, project, count):
        """So many sessions at once: seconds from the first task to the last session's end."""
        before = time.monotonic()
        wanted = {self.publish(project)[0] for _ in range(count)}
        for event, _ in self.broker.deliveries(60 + 10 * count):
            data = event["data"]
            if data["event"] == "finished" and data["session"] in wanted:
                if data["outcome"]["reason"] != "published":
                    sys.exit(f"bench: a session ended with {data['outcome']}")
                wanted.discard(data["session"])
                if not wanted:
                    return time.monotonic() - before

    def idle(self, project, count):
        """Starts so many sessions whose agents do nothing."""
        wanted = {self.publish(project, "!sleep 6000000")[0] for _ in range(count)}
        for event, _ in self.broker.deliveries(60 + 10 * count):
            if event["data"]["event"] == "turn_started":
                wanted.discard(event["data"]["session"])
            if event["data"]["event"] == "finished":
                sys.exit(f"bench: an idle session ended with {event['data']['outcome']}")
            if not wanted:
                return

    def containers(self):
        return containers(self.prefix)

    def socket_of(self, container):
        """The socket of its gateway on this side."""
        mounts = engine("inspect", "--format", "{{range .Mounts}}{{.Source}}\n{{end}}", container).split()
        sockets = [path for path in self.state.glob("sandboxes/**/*") if path.is_socket()]
        return next(path for path in sockets if str(path.parent) in mounts or str(path) in mounts)

    def memory(self):
        return megabytes(self.process.pid)

    def overhead(self):
        """Medians of what `inside` weighs in its sandboxes: PID 1 of each."""
        processes = [engine("inspect", "--format", "{{.State.Pid}}", one).strip() for one in self.containers()]
        weights = [megabytes(process) for process in processes if process != "0"]
        return [statistics.median(column) for column in zip(*weights)]

    def cpu(self):
        """Milliseconds of processor time so far: its own, and that of the children that it waited for."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        tick = 1000 / os.sysconf("SC_CLK_TCK")
        return (int(fields[11]) + int(fields[12])) * tick, (int(fields[13]) + int(fields[14])) * tick


def prefix():
    return f"bench-{os.getpid()}"


def remove(broker, name):
    connection = amqp.Connection(broker)
    for queue in [f"{name}.tasks", f"{name}.dead"]:
        connection.delete_queue(queue)
    for exchange in ["events", "session.in"]:
        connection.delete_exchange(f"{name}.{exchange}")
    connection.close()
