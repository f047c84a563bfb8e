"""Whole sessions under measurement: warm, without a warm sandbox, cold, in parallel, over a slow forge, and many after each other.

Everything that is compared alternates, so that a machine that gets slower in between makes all of it slower.
"""

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

from compare import Peer
from report import Report, head, row
from world import LARGE, PEERS, SMALL, WITHOUT_POOL, Forge, Processes, Tree, docker_run, of
from worker import UNPOOLED, Worker

STEPS = ["claimed", "grant", "connected", "mirror", "granted", "sandbox", "clone", "cloned", "turn", "turn_started", "publish", "cleanup"]
PARTS = {SMALL: ("2 MB", "small"), LARGE: ("28 MB", "large")}
OPEN = "change_request_opened"  # what a user waits for, and what a peer is timed to
DELAY = 80  # milliseconds that a forge far away takes for an answer
LANES = 4


@dataclass
class Run:
    """What all scenarios share."""

    options: object
    processes: Processes
    directory: Path
    memory: Path
    forge: Forge
    broker: str
    report: Report
    rounds: int

    def worker(self, name, **more):
        return Worker(self.processes, self.options, self.directory, self.forge, self.broker, name, **more)

    def peer(self, name, lanes=1):
        return Peer(name, self.processes, self.options.peers, self.directory, self.forge, self.broker, lanes)


def warm(run, worker, peers, unpooled):
    """One session after the other, warm, over each repository; beside them a container of nothing, the peers, and clones."""
    for project, (size, key) in PARTS.items():
        tree = Tree(run.forge, project, run.memory)
        # What is cold at first is not what is measured.
        worker.session(project)
        unpooled.session(of(project, WITHOUT_POOL))
        for peer in peers:
            peer.sessions(of(project, PEERS))
        base, ours, cool, clones, floors = [], [], [], [], []
        others = {peer.name: [] for peer in peers}
        for _ in range(run.rounds):
            base.append(docker_run())
            ours.append(worker.session(project))
            clones.append(run.forge.clone(project, run.memory))
            floors.append(tree.unpack())
            cool.append(unpooled.session(of(project, WITHOUT_POOL)))
            for peer in peers:
                others[peer.name].append(peer.sessions(of(project, PEERS)))
        head(f"one session after the other, {size}; {run.rounds} rounds, alternating; warm image, warm mirror")
        docker = row("docker run --rm --network none IMAGE true", base)
        row("session: task published -> agent prompted", [one["turn_started"] for one in ours], docker)
        whole = row("session: task published -> merge request open", [one[OPEN] for one in ours], docker)
        row("session: task published -> sandbox removed, told", [one["finished"] for one in ours], docker)
        row("session: task published -> branch published", [one["branch_published"] for one in ours], docker)
        late = row("merge request open, no warm sandbox", [one[OPEN] for one in cool], docker)
        theirs = {name: row(f"{name} worker: message -> merge request", spent, docker) for name, spent in others.items()}
        inside = row("clone inside the sandbox", [one["cloned"] - one["clone"] for one in ours], docker)
        cloned = row("git clone over HTTP", clones, docker)
        floor = row("untarring the same work tree", floors, docker)
        steps = "  ".join(f"{step} {statistics.median(one[step] for one in ours):.0f}" for step in STEPS)
        print(f"steps, median ms since the task was published: {steps}")
        run.report.value(f"{key}_docker", whole / docker)
        if project == LARGE:
            run.report.value("unpooled_docker", late / docker)
            run.report.value("clone_git", inside / cloned)
            run.report.value("clone_untar", inside / floor)
        else:
            # Taking a session in does not depend on a repository's size; the clone does.
            run.report.value("prompted", statistics.median(one["turn_started"] for one in ours) / docker, "2 MB")
        if "celery" in theirs:
            run.report.value(f"{key}_celery", whole / theirs["celery"])
            if project == LARGE:
                run.report.value("unpooled_celery", late / theirs["celery"])


def cold(run, peers):
    """A worker's first session: no mirror, no warm sandbox. Its start is not counted."""
    ours, theirs = [], []
    for number in range(run.rounds if peers else 2):
        worker = run.worker(f"cold{number}")
        ours.append(worker.session(LARGE)[OPEN])
        worker.end()
        theirs += [peer.sessions(of(LARGE, PEERS)) for peer in peers if peer.name == "celery"]
    head("the first session of a new worker, 28 MB: nothing is there")
    spent = row("session: task published -> merge request", ours)
    if theirs:
        run.report.value("cold_celery", spent / row("celery worker", theirs))


def parallel(run, worker, count, with_peers):
    """Lanes full of sessions, and what one of them costs the worker. The cycles make the disk as old as a busy worker's."""

    def clone():
        times = worker.session(LARGE)
        return times["cloned"] - times["clone"]

    worker.session(LARGE)
    first = [clone() for _ in range(5)]
    before = worker.cpu()
    seconds = worker.batch(LARGE, count)
    own, children = [(now - then) / count for now, then in zip(worker.cpu(), before)]
    last = [clone() for _ in range(5)]
    cores = os.cpu_count()
    print(f"\n{count} sessions over {LANES} lanes, 28 MB: {seconds:.1f} s, {count / seconds * 60:.0f} a minute; {cores} cores")
    print(f"processor time a session: {own:.1f} ms of the worker itself, {children:.0f} ms of its git processes")
    run.report.value("per_core", count / seconds * 60 / cores)
    run.report.value("cpu", own)
    if with_peers:
        peer = run.peer("celery", LANES)
        peer.sessions(of(LARGE, PEERS), LANES)
        theirs = peer.sessions(of(LARGE, PEERS), count) / 1000
        peer.end()
        print(f"celery over {LANES} lanes: {theirs:.1f} s, {count / theirs * 60:.0f} a minute")
        run.report.value("throughput", theirs / seconds)
    if count >= 30:
        head(f"clone inside the sandbox, before and after {count} sessions came and went")
        row("first", first)
        run.report.value("clone_cycles", row("last", last, statistics.median(first)) / statistics.median(first))


def far(run, worker, peers):
    """A forge that takes its time for each answer."""
    near, slow, theirs = [], [], []
    celery = [peer for peer in peers if peer.name == "celery"]
    worker.session(SMALL)
    for _ in range(run.rounds):
        near.append(worker.session(SMALL))
        run.forge.delay(DELAY)
        try:
            slow.append(worker.session(SMALL))
            theirs += [peer.sessions(of(SMALL, PEERS)) for peer in celery]
        finally:
            run.forge.delay(0)
    head(f"a forge that takes {DELAY} ms for each answer, 2 MB")
    quick = row("session -> merge request open, 0 ms", [one[OPEN] for one in near])
    spent = row(f"session -> merge request open, {DELAY} ms", [one[OPEN] for one in slow], quick)
    row(f"until the agent is prompted, {DELAY} ms", [one["turn_started"] for one in slow])
    if theirs:
        row(f"celery worker, {DELAY} ms", theirs)
    run.report.value("round_trips", (spent - quick) / DELAY)


def requests_of_a_session(run, worker):
    """How often the forge's API and git are asked when nothing changed since the last session and nothing is published."""
    # The session before this one must have left nothing new: what it published would be fetched.
    worker.session(SMALL, "!say hi", "nothing_to_publish")
    run.forge.forget_requests()
    worker.session(SMALL, "!say hi", "nothing_to_publish")
    asked = run.forge.requests()
    api = [one for one in asked if ".git/" not in one["path"]]
    talks = [one for one in asked if ".git/" in one["path"] and one["method"] == "POST"]
    print(f"\nasked of the forge when nothing changed: API {len(api)}, git talks {len(talks)} ({len(asked) - len(api)} HTTP requests)")
    run.report.value("api_calls", len(api))
    run.report.value("git_talks", len(talks))


def growth(run, worker, sessions):
    """What a session costs when few and when many are finished, each held against a container of nothing at that time."""

    def some():
        return zip(*[(docker_run(), worker.session(SMALL)["finished"]) for _ in range(20)])

    worker.session(SMALL)
    base, first = some()
    done, weight = worker.sessions_asked, worker.memory()[0]
    while worker.sessions_asked < sessions - 20:
        worker.batch(SMALL, min(40, sessions - 20 - worker.sessions_asked))
    later, last = some()
    head(f"20 sessions after {done - 20}, and 20 after {worker.sessions_asked - 20}; 2 MB, held against docker run")
    before = row("session, first", first, statistics.median(base)) / statistics.median(base)
    after = row("session, last", last, statistics.median(later)) / statistics.median(later)
    print(f"worker memory {weight:.1f} MB, then {worker.memory()[0]:.1f} MB")
    run.report.value("growth", after / before, f"{worker.sessions_asked} sessions")
