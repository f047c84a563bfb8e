"""The celery peer: its worker (`celery -A peer_celery worker`), and `python peer_celery.py`, which asks it, for each line with a
project and a number that it reads, for so many sessions, and prints how many milliseconds they took from the first message to the last merge request."""

import os
import sys
import time

import job
from celery import Celery

PREFIX = os.environ["PEER_PREFIX"]
app = Celery("peer", broker=os.environ["PEER_BROKER"], backend="rpc://")
app.conf.update(task_default_queue=f"{PREFIX}-celery", task_acks_late=True, worker_prefetch_multiplier=1, worker_enable_remote_control=False)


@app.task(name="session")
def run(project):
    return job.session(project)


def ask(project, count):
    before = time.monotonic()
    results = [run.delay(project) for _ in range(count)]
    for result in results:
        result.get(timeout=300)
    return (time.monotonic() - before) * 1000


if __name__ == "__main__":
    for line in sys.stdin:
        project, count = line.split()
        print(f"{ask(project, int(count)):.1f}", flush=True)
