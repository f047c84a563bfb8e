"""The dramatiq peer: its worker (`dramatiq peer_dramatiq`), and `python peer_dramatiq.py`, which asks it for sessions like the celery one. dramatiq
has no results without a store, so the worker says in a file that a session is done."""

import os
import sys
import time
import uuid
from pathlib import Path

import dramatiq
import job
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=os.environ["PEER_BROKER"]))
DONE = Path(os.environ["PEER_DONE"])


@dramatiq.actor(queue_name=f"{os.environ['PEER_PREFIX']}-dramatiq", max_retries=0)
def run(name, project):
    (DONE / f"{name}.new").write_text(job.session(project))
    (DONE / f"{name}.new").rename(DONE / name)


def ask(project, count):
    before = time.monotonic()
    wanted = {uuid.uuid4().hex for _ in range(count)}
    for name in wanted:
        run.send(name, project)
    deadline = before + 300
    while not all((DONE / name).exists() for name in wanted):
        if time.monotonic() > deadline:
            sys.exit("peer_dramatiq: a session did not end within 300 s")
        time.sleep(0.001)
    return (time.monotonic() - before) * 1000


if __name__ == "__main__":
    for line in sys.stdin:
        project, count = line.split()
        print(f"{ask(project, int(count)):.1f}", flush=True)
