"""The benchmark itself; run.sh beside it sets up what it needs and calls it.

Measures a release build of the daemon over RabbitMQ as an orchestrator sees it: by the events. All clocks are this machine's. Never
changes anything outside of its temporary directory, its cache, and queues with a prefix of its own. The goals are in report.py.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import compare
import gateway
import live
import scenarios
import worker
from report import Report
from world import Forge, Processes


PARTS = ["warm", "cold", "parallel", "far", "live", "growth", "huge"]


def arguments():
    parser = argparse.ArgumentParser()
    # Without following links: the Python of an environment is one.
    absolute = lambda text: Path(os.path.abspath(text))
    parser.add_argument("--bin", type=absolute, required=True)
    parser.add_argument("--inside", type=absolute, required=True)
    parser.add_argument("--quick", action="store_true", help="5 rounds, 10 idle sessions, no peers; fails only where a ratio misses by half")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peers", type=absolute, help="a Python that has peers/requirements.txt: compare with these workers too")
    parser.add_argument("--cache", type=absolute, help="where made-up repositories are kept for the next run")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts alone; what is not measured is no failure")
    parser.add_argument("--idle", type=int, help="how many idle sessions (100; --quick: 10)")
    parser.add_argument("--grow", type=int, default=2000, help="sessions of the part growth")
    return parser.parse_args()


def measure(run, options):
    parts = options.only or (PARTS[:5] if options.quick else PARTS)
    began = time.monotonic()

    def does(part):
        if part in parts:
            print(f"\n--- {part}, {time.monotonic() - began:.0f} s after the start", flush=True)
        return part in parts

    if {"warm", "far", "cold"} & set(parts):
        one = run.worker("one")
        peers = [run.peer(name) for name in ("celery", "dramatiq")] if options.peers else []
        if does("warm"):
            unpooled = run.worker("unpooled", sandbox=worker.UNPOOLED)
            scenarios.warm(run, one, peers, unpooled)
            unpooled.end()
            scenarios.requests_of_a_session(run, one)
        if does("far"):
            scenarios.far(run, one, peers)
        one.end()
        if does("cold"):
            scenarios.cold(run, peers)
        for peer in peers:
            peer.end()
    if {"parallel", "growth"} & set(parts):
        lanes = run.worker("lanes", lanes=scenarios.LANES)
        if does("parallel"):
            scenarios.parallel(run, lanes, 12 if options.quick else 40, options.peers)
        if does("growth"):
            scenarios.growth(run, lanes, options.grow)
        lanes.end()
    if does("live"):
        count = options.idle or (10 if options.quick else 100)
        port = gateway.serve_model()
        # A lane more for the session that tells the time. No sandbox that waits: each of its containers is to be a session's.
        idle = run.worker("idle", lanes=count + 1, model_port=port, sandbox=worker.UNPOOLED)
        live.memory(run, idle, count)
        live.requests_and_clones(run, idle, options.quick, port)
        live.events(run, idle)
        idle.end()
    if does("huge"):
        large = run.worker("huge", lanes=2)
        live.huge(run, large)
        large.end()
    print(f"\nmeasured in {time.monotonic() - began:.0f} s", flush=True)
    return run.report.table()


def remaining(prefix):
    """Containers that a worker of ours left, which none may."""
    left = worker.containers(prefix)
    if left:
        print(f"bench: {len(left)} containers were left behind", file=sys.stderr)
        subprocess.run(["docker", "rm", "-f", *left], check=False, stdout=subprocess.DEVNULL)
    return bool(left)


def main():
    options = arguments()
    broker = os.environ["COFFERDAM_TEST_AMQP"]
    processes, good = Processes(), False
    directory = Path(tempfile.mkdtemp(prefix="cofferdam-bench-"))
    # Work trees are compared in memory, where sandboxes have theirs: ext4 makes files up to 20 times slower after many were removed.
    shared = Path("/dev/shm")
    memory = Path(tempfile.mkdtemp(prefix="cofferdam-bench-", dir=shared if shared.is_dir() else None))
    cache = options.cache or directory
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with_huge = "huge" in (options.only or ([] if options.quick else PARTS))
        forge = Forge(processes, options.bin / "test-forge", directory, cache, with_huge)
        rounds = options.rounds or (5 if options.quick else 10)
        run = scenarios.Run(options, processes, directory, memory, forge, broker, Report(options.quick), rounds)
        good = measure(run, options)
    finally:
        for one in list(worker.Worker.running):
            one.end()
        processes.end()
        for lanes in (1, scenarios.LANES):
            compare.remove(broker, lanes)
        good &= not remaining(worker.prefix())
        for one in (directory, memory):
            shutil.rmtree(one, ignore_errors=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
