"""The peers of the benchmark: home-made workers as people write them (peers/), which do the same session over the same forge and broker.

Each has a worker and a process that asks it; both run until they are ended here, or by the benchmark's end.
"""

import os
import subprocess
import sys
from pathlib import Path

import amqp
from world import IMAGE, TOKEN

HERE = Path(__file__).parent / "peers"


class Peer:
    """One peer that is ready."""

    def __init__(self, name, processes, python, directory, forge, broker, lanes=1):
        self.name, self.processes = name, processes
        done = directory / f"done-{name}-{lanes}"
        done.mkdir()
        # The code is read from where it lies; nothing is written there.
        environment = {
            **os.environ,
            "PEER_FORGE": forge.gitlab,
            "PEER_TOKEN": TOKEN,
            "PEER_IMAGE": IMAGE,
            "PEER_PREFIX": f"bench-{os.getpid()}-{lanes}",
            "PEER_BROKER": broker,
            "PEER_DONE": str(done),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        celery = [python, "-m", "celery", "-A", "peer_celery", "worker", "--concurrency", str(lanes), "--loglevel", "WARNING"]
        dramatiq = [python, "-m", "dramatiq", "peer_dramatiq", "--processes", "1", "--threads", str(lanes)]
        with (directory / f"{name}-{lanes}.log").open("wb") as log:
            self.worker = processes.start({"celery": celery, "dramatiq": dramatiq}[name], log, env=environment, cwd=HERE)
        self.asking = subprocess.Popen(
            [python, f"peer_{name}.py"], cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def sessions(self, project, count=1):
        """So many at once: milliseconds until the last merge request is open."""
        self.asking.stdin.write(f"{project} {count}\n")
        self.asking.stdin.flush()
        line = self.asking.stdout.readline()
        if not line:
            sys.exit(f"bench: the {self.name} peer gave no answer: see its own words above")
        return float(line)

    def end(self):
        self.asking.stdin.close()
        self.asking.wait(30)
        self.processes.end_one(self.worker)


def remove(broker, lanes):
    """What peers declare, by their libraries' habits."""
    connection = amqp.Connection(broker)
    prefix = f"bench-{os.getpid()}-{lanes}"
    for name in [f"{prefix}-celery"] + [f"{prefix}-dramatiq{end}" for end in ("", ".DQ", ".XQ")]:
        connection.delete_queue(name)
    connection.close()
