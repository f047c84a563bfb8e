"""The peers of bench.py: home-made workers as people write them (peers/), which do the same session over the same forge and broker.

Each has a worker and a process that asks it; both run for as long as the benchmark and are ended by it.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent / "peers"


class Peer:
    """One peer that is ready."""

    def __init__(self, name, processes, python, directory, environment):
        self.name = name
        # The code is read from where it lies; nothing is written there.
        environment = {**os.environ, **environment, "PYTHONDONTWRITEBYTECODE": "1"}
        commands = {
            "celery": [python, "-m", "celery", "-A", "peer_celery", "worker", "--concurrency", "1", "--loglevel", "WARNING"],
            "dramatiq": [python, "-m", "dramatiq", "peer_dramatiq", "--processes", "1", "--threads", "1"],
        }
        with (directory / f"{name}.log").open("wb") as log:
            processes.start(commands[name], log, env=environment, cwd=HERE)
        self.asking = subprocess.Popen(
            [python, f"peer_{name}.py"], cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        # The first waits for the worker's start.
        self.sessions(1)

    def sessions(self, count):
        """So many at once: milliseconds until the last merge request is open."""
        self.asking.stdin.write(f"{count}\n")
        self.asking.stdin.flush()
        line = self.asking.stdout.readline()
        if not line:
            sys.exit(f"bench: the {self.name} peer gave no answer: see its own words above")
        return float(line)

    def end(self):
        self.asking.stdin.close()
        self.asking.wait(30)


def start(processes, python, directory, forge, image, broker):
    done = directory / "done"
    done.mkdir()
    environment = {
        "PEER_FORGE": forge["gitlab"],
        "PEER_TOKEN": "bench-token-value",
        "PEER_PROJECT": "bench/project",
        "PEER_IMAGE": image,
        "PEER_PREFIX": f"bench-{os.getpid()}",
        "PEER_BROKER": broker,
        "PEER_DONE": str(done),
    }
    return [Peer(name, processes, python, directory, environment) for name in ("celery", "dramatiq")]


def queues(prefix):
    """What peers declare, by their libraries' habits."""
    return [f"{prefix}-celery"] + [f"{prefix}-dramatiq{end}" for end in ("", ".DQ", ".XQ")]
