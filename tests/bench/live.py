"""What sessions cost while they live: memory, the gateway between an agent and what it asks, the way of an event, and a large repository.

Looks into sandboxes by the engine's exec and by the system's own figures of their first process. Never changes a running session.
"""

import statistics
import subprocess
import time

import gateway
from report import head, row
from worker import at
from world import HUGE, SMALL

EVENTS = 30


def memory(run, worker, count):
    """Sessions whose agents do nothing."""
    worker.idle(SMALL, count)
    time.sleep(2)
    resident, share = worker.memory()
    print(f"\nworker with {count} idle sessions: {resident:.1f} MB resident (VmRSS), {share:.1f} MB proportional (Pss)")
    run.report.value("memory", resident, f"{count} sessions")
    weight, share = worker.overhead()
    print(f"`inside` in each sandbox: {weight:.1f} MB resident, {share:.1f} MB proportional (what sandboxes share is counted once)")
    run.report.value("overhead", share, f"{weight:.1f} MB resident")


def requests_and_clones(run, worker, quick, model_port):
    """What the gateway adds, in the sandbox of a session that does nothing."""
    container = worker.containers()[0]
    count, rounds = (100, 3) if quick else (300, 5)
    straight, through = gateway.requests(container, model_port, count, rounds)
    added = statistics.median(through) - statistics.median(straight)
    head(f"the gateway, in a live session's sandbox; {len(through)} requests, {rounds * 3} clones, alternating")
    base = row("request straight to a server on loopback", straight)
    row("the same through inside, socket, gateway", through, base)
    files, mirror, cloned = gateway.clones(worker.state, worker.socket_of(container), f"lab/{SMALL}", rounds * 3)
    base = row("git clone --bare from the mirror over HTTP", mirror)
    ratio = row("git clone --bare through the gateway", cloned, base) / base
    row("git clone --bare from the mirror as a directory", files, base)
    run.report.value("gateway", added)
    run.report.value("gateway_clone", ratio)


def events(run, worker):
    """From what an agent does to who hears of it over the broker: the agent writes a file, whose time is noted by the system, then asks for leave,
    which is an event that is never joined with others. (Words of an agent are, about four times a second.)"""
    lines = [f"!write stamp{number} x\n!permission ask {number}" for number in range(EVENTS)]
    session, _ = worker.publish(SMALL, "\n".join(["Ask.", *lines, "!sleep 6000000"]))
    heard, told = [], []
    for event, came in worker.broker.deliveries(120):
        data = event["data"]
        if data["session"] != session:
            continue
        if data["event"] in ("stage", "agent_permission"):
            told.append((came - at(event)) * 1000)
        if data["event"] == "agent_permission":
            heard.append(came)
        if data["event"] == "finished":
            raise SystemExit(f"bench: the session of the events ended with {data['outcome']}")
        if len(heard) == EVENTS:
            break
    found = in_sandbox(worker.containers(), "find /workspace -name 'stamp*' -printf '%f %T@\n' | sort -V | cut -d' ' -f2")
    # The system's time of files is up to four milliseconds old.
    spent = [(came - float(then)) * 1000 for came, then in zip(heard, found)]
    head(f"events over the broker, {EVENTS} of them")
    row("worker -> subscriber", told)
    run.report.value("event", row("agent (a file, then a question) -> subscriber", spent))


def huge(run, worker):
    """A repository of 300 MB and more: nothing of it is copied for a session but the work tree."""
    clones = [run.forge.clone(HUGE, run.memory) for _ in range(2)]
    worker.session(HUGE)
    ours = [worker.session(HUGE) for _ in range(max(3, run.rounds // 2))]
    worker.idle(HUGE, 1)
    mirrors, sessions = worker.state / "mirrors", worker.state / "sessions"
    size = disk(mirrors)
    # In the sandbox only what git made for it: the objects' directory without the work tree.
    found = 'cd /workspace; for d in */.git; do du -sb "$d" | cut -f1; done'
    inside = sum(int(one) for one in in_sandbox(worker.containers(), found))
    # What is linked to the mirror's files is no copy.
    copied = disk(mirrors, sessions) - size + inside
    head(f"a repository of {size / 1e6:.0f} MB")
    full = row("git clone over HTTP", clones)
    row("session: task published -> merge request", [one["finished"] for one in ours], full)
    inside = row("clone inside the sandbox", [one["cloned"] - one["clone"] for one in ours], full)
    print(f"on disk for a live session beside the mirror: {copied / 1e6:.1f} MB, without its work tree")
    run.report.value("huge_clone", inside / full, f"{size / 1e6:.0f} MB")
    run.report.value("huge_copied", copied / size)


def in_sandbox(containers, script):
    for container in containers:
        done = subprocess.run(["docker", "exec", container, "sh", "-c", script], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()
    raise SystemExit("bench: no sandbox has a project")


def disk(*paths):
    """Bytes under directories; what is linked twice there is counted once."""
    told = subprocess.run(["du", "-sbc", *paths], capture_output=True, text=True, check=True).stdout
    return int(told.splitlines()[-1].split()[0])
