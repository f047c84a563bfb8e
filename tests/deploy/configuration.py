"""Asks the worker itself (`cofferdam config check`) what it thinks of the configuration and the variables that rendered pods give it.

    configuration.py COFFERDAM RENDERED.yaml...
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

KEYS = "/etc/cofferdam/keys"
TOKENS = "/etc/cofferdam/tokens"
# What the cluster would put there.
FIELDS = {"status.podIP": "10.1.2.3", "metadata.name": "agents-0", "metadata.uid": "0190c2f0-7c1e-7000-8000-000000000001"}


def worker_of(documents):
    for one in documents:
        template = {"Deployment": ("template",), "ScaledJob": ("jobTargetRef", "template")}.get(one["kind"])
        if template:
            spec = one["spec"]
            for key in template:
                spec = spec[key]
            return next(container for container in spec["spec"]["containers"] if container["name"] == "worker")
    return None


def check(cofferdam, documents, change=lambda environment: None):
    container = worker_of(documents)
    text = next(one for one in documents if one["kind"] == "ConfigMap")["data"]["config.toml"]
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        for name in ("keys", "tokens"):
            (place / name).mkdir(mode=0o700)
        environment = {"PATH": os.environ["PATH"], "HOME": directory}
        for variable in container["env"]:
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            value = variable.get("value") or FIELDS.get(field, "amqp://worker:password@broker/x")
            environment[variable["name"]] = value.replace(KEYS, str(place / "keys")).replace(TOKENS, str(place / "tokens"))
        for key in json.loads(environment.get("COFFERDAM__CREDENTIALS__IDENTITIES", "[]")):
            subprocess.run([cofferdam, "keygen", "-o", key], check=True, capture_output=True, timeout=30)
        change(environment)
        (place / "config.toml").write_text(text)
        asked = [cofferdam, "--config", place / "config.toml", "config", "check"]
        return subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=30)


def main():
    cofferdam, *paths = sys.argv[1:]
    schema = json.loads(subprocess.run([cofferdam, "schema", "config"], check=True, capture_output=True, timeout=30).stdout)
    failed = 0
    for path in paths:
        name = pathlib.Path(path).stem
        documents = list(filter(None, yaml.safe_load_all(pathlib.Path(path).read_text())))
        variables = {one["name"] for one in worker_of(documents)["env"]}
        if "COFFERDAM__SANDBOX__BACKEND" in variables and '"backend"' not in json.dumps(schema):
            print(f"SKIPPED {name}: this worker knows no backend but docker")
            continue
        asked = check(cofferdam, documents)
        if asked.returncode != 0:
            failed += 1
            print(f"FAILED {name}: {asked.stdout}{asked.stderr}")
            continue
        # A variable that the worker did not read would be as good as none.
        unread = check(cofferdam, documents, lambda environment: environment.update(COFFERDAM__DRAIN_SECONDS="1"))
        if unread.returncode != 78:
            failed += 1
            print(f"FAILED {name}: an unknown variable was not refused")
        print(f"ok {name}: the worker takes its configuration")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
