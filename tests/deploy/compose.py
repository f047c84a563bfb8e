"""What deploy/compose.yaml promises, asserted on what docker-compose made of it.

    compose.py RENDERED.yaml
"""

import pathlib
import re
import sys

import yaml

TEARDOWN = 120
# What the engine mounts into sandboxes, and its socket.
SHOWN = ("engine", "state/sandboxes", "state/inside")


def seconds(text):
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def source(volume):
    return volume.split(":")[0] if isinstance(volume, str) else volume["source"]


def target(volume):
    return volume.split(":")[1] if isinstance(volume, str) else volume["target"]


def check(services):
    for name, one in services.items():
        for volume in one.get("volumes", []):
            assert "docker.sock" not in source(volume), f"{name}: the machine's Docker socket"
        assert not one.get("privileged") and one.get("network_mode") != "host", name
        for port in one.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name}: open to others: {port}"
    for name in ("worker", "engine", "prometheus"):
        assert services[name]["read_only"] is True and services[name]["cap_drop"] == ["ALL"], name
    for name in ("worker", "engine"):
        assert services[name]["user"] == "1000:1000" and services[name]["mem_limit"], name
    assert services["engine"]["cap_add"] == ["SETUID", "SETGID"]
    worker = services["worker"]
    assert "no-new-privileges:true" in worker["security_opt"] and "cap_add" not in worker
    assert seconds(worker["stop_grace_period"]) >= int(worker["environment"]["COFFERDAM__DRAIN_S"]) + TEARDOWN
    state = worker["environment"]["COFFERDAM__STATE_DIR"]
    shared = {name: {target(one): source(one) for one in services[name]["volumes"]} for name in ("worker", "engine")}
    whole = shared["worker"]["/var/lib/cofferdam"]
    # The engine mounts what the worker names, by the same path, and sees no more of it.
    for path in SHOWN:
        assert shared["engine"][f"/var/lib/cofferdam/{path}"] == f"{whole}/{path}", path
    assert set(shared["engine"]) - {f"/var/lib/cofferdam/{path}" for path in SHOWN} == {"/var/lib/engine"}, "the engine sees more of the worker"
    socket = pathlib.PurePath(worker["environment"]["COFFERDAM__SANDBOX__DOCKER_SOCKET"])
    assert str(socket.parent) in shared["engine"]
    assert state.startswith("/var/lib/cofferdam/")


def check_written(services):
    """What docker-compose 1 does not render: nothing is made as root where a directory is missing."""
    for name in ("worker", "engine"):
        for volume in services[name]["volumes"]:
            if isinstance(volume, dict) and volume["type"] == "bind":
                assert volume["bind"]["create_host_path"] is False, f"{name}: {volume}"


def main():
    written = pathlib.Path(__file__).parent.parent.parent / "deploy/compose.yaml"
    check_written(yaml.safe_load(written.read_text())["services"])
    services = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())["services"]
    assert set(services) == {"rabbitmq", "engine", "worker", "prometheus"}, set(services)
    check(services)
    for service, key, value in (
        ("worker", "stop_grace_period", "10s"),
        ("worker", "volumes", ["/var/run/docker.sock:/var/run/docker.sock:rw"]),
        ("rabbitmq", "ports", ["5672:5672/tcp"]),
        ("engine", "privileged", True),
        ("engine", "volumes", ["/s:/var/lib/cofferdam:rw", "engine:/var/lib/engine:rw"]),
        ("engine", "volumes", services["engine"]["volumes"] + ["/s/state/kept:/var/lib/cofferdam/state/kept:rw"]),
        ("worker", "read_only", False),
    ):
        try:
            check({**services, service: {**services[service], key: value}})
        except (AssertionError, KeyError):
            continue
        sys.exit(f"FAILED: {service}.{key} = {value} was not noticed")
    print("ok: compose: four services keep their promises, and seven ways to break them are noticed")


if __name__ == "__main__":
    main()
