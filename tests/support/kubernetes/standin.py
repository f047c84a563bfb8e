#!/usr/bin/env python3
"""A stand-in for a Kubernetes cluster of one namespace, for tests: its API on loopback, and pods that are containers of the local Docker engine.

    standin.py --ready-file FILE --kubeconfig FILE --namespace NAME [--max-lifetime SECONDS] [--parent-pid PID]

Needs root, Docker, and the package kubernetes-validate, which brings the published schemas. Writes its address to the ready file. What a test
can order stands in api.py (`/_test/...`). Ends with its parent, or when its time is over, and leaves no container behind.
"""

import argparse
import json
import os
import secrets
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import api  # noqa: E402
import pods  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ready-file", required=True)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--max-lifetime", type=int, default=600)
    parser.add_argument("--parent-pid", type=int, default=os.getppid())
    options = parser.parse_args()

    token = secrets.token_hex(16)
    running = pods.Pods(secrets.token_hex(8))
    runtimes = {"runc", "runsc"}
    store = api.Store(options.namespace, token, runtimes, running)
    running.store = store
    server = api.serve(store)
    url = f"http://127.0.0.1:{server.server_port}"
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "standin",
        "clusters": [{"name": "standin", "cluster": {"server": url}}],
        "users": [{"name": "worker", "user": {"token": token}}],
        "contexts": [{"name": "standin", "context": {"cluster": "standin", "user": "worker", "namespace": options.namespace}}],
    }
    with open(options.kubeconfig, "w", encoding="utf-8") as file:
        json.dump(kubeconfig, file)

    ending = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ending.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    half = options.ready_file + ".half"
    with open(half, "w", encoding="utf-8") as file:
        json.dump({"url": url}, file)
    os.rename(half, options.ready_file)

    until = time.monotonic() + options.max_lifetime
    while not ending.wait(0.5):
        if time.monotonic() > until or not os.path.exists(f"/proc/{options.parent_pid}"):
            break
    server.shutdown()
    running.end_all()


if __name__ == "__main__":
    main()
