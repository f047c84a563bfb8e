"""The celery peer: its worker (`celery -A peer_celery worker`), and `python peer_celery.py`, which asks it for one session per line that it reads
and prints how many milliseconds each took from the message to the merge request."""

import os
import sys
import time

import job
from celery import Celery

PREFIX = os.environ["PEER_PREFIX"]
app = Celery("peer", broker=os.environ["PEER_BROKER"], backend="rpc://")
app.conf.update(task_default_queue=f"{PREFIX}-celery", task_acks_late=True, worker_prefetch_multiplier=1, worker_enable_remote_control=False)


@app.task(name="session")
def run():
    return job.session()


def ask(lanes):
    before = time.monotonic()
    results = [run.delay() for _ in range(lanes)]
    for result in results:
        result.get(timeout=300)
    return (time.monotonic() - before) * 1000


if __name__ == "__main__":
    for line in sys.stdin:
        print(f"{ask(int(line)):.1f}", flush=True)
