"""Follows the README's walk-throughs for compose, Helm and kustomize line by line, as somebody new would, with the real helm, kubectl, docker-compose and
cofferdam where they can work without a cluster, and stand-ins for what starts something.

    walkthrough.py README.md HELM KUBECTL COFFERDAM DEPLOY     runs as root: the walk-through gives files to user 1000

Said by the end: each Secret that a pod asks for was made, with that key; each file that a container mounts is there, is user 1000's and closed.
"""

import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile

import yaml

# By name: what stands in the place of a program. `say` keeps what was asked for.
SHIMS = {
    "docker": """say docker "$@"
case "$1 $2" in
"run --rm") {cofferdam} keygen -o worker/key && chown 1000 worker/key ;;
"compose -f") shift; [ "$3" != up ] || exec docker-compose -f "$2" config >{seen}/compose.yaml ;;
esac
""",
    "kubectl": """say kubectl "$@"
for word in "$@"; do [ "$word" != create ] || {{ {kubectl} "$@" --dry-run=client --output=yaml >>{seen}/made.yaml; echo --- >>{seen}/made.yaml; exit; }}; done
[ "$1 $2" != "apply -k" ] || exec {kubectl} kustomize "$3" >{seen}/rendered.yaml
""",
    "helm": """say helm "$@"
[ "$1" = install ] && shift && exec {helm} template "$@" >{seen}/rendered.yaml
""",
    "cofferdam": """exec {cofferdam} "$@"
""",
}


def blocks(readme, heading):
    """The fenced blocks of a paragraph that begins with these words, until the next such paragraph."""
    after = readme.split(f"**{heading}**", 1)[1]
    section = re.split(r"^\*\*By ", after, flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def follow(script, place, programs):
    seen = place / "seen"
    seen.mkdir()
    (place / "bin").mkdir()
    for name, text in SHIMS.items():
        shim = place / "bin" / name
        shim.write_text(f'#!/bin/sh\nsay() {{ echo "$*" >>{seen}/said; }}\n' + text.format(seen=seen, **programs))
        shim.chmod(0o755)
    for name in ("deploy/image.sh", "sandbox-images/build.sh"):
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{seen}/said\n')
        path.chmod(0o755)
    environment = {"PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": str(place)}
    ran = subprocess.run(["bash", "-euc", script], cwd=place, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}"
    return seen


def compose(readme, place, programs):
    (place / "deploy").mkdir()
    for name in ("compose.yaml", "compose", "prometheus"):
        (place / "deploy" / name).symlink_to(programs["deploy"] / name)
    (place / "deploy" / "compose.yaml").unlink()
    # As tests/deploy.sh does: docker-compose 1 does not know this.
    text = (programs["deploy"] / "compose.yaml").read_text().replace(", bind: {create_host_path: false}", "")
    (place / "deploy" / "compose.yaml").write_text(text)
    (place / "config.toml").write_text(programs["config"])
    (place / "task.json").write_text("{}")
    (script,) = [text for kind, text in blocks(readme, "By compose.") if kind == "sh"]
    seen = follow(script, place, programs)
    services = yaml.safe_load((seen / "compose.yaml").read_text())["services"]
    worker = services["worker"]
    assert worker["environment"]["COFFERDAM_MODEL_KEY"] == "THE_KEY" and len(services["rabbitmq"]["environment"]["RABBITMQ_DEFAULT_PASS"]) == 32
    found = 0
    for name in ("worker", "engine"):
        for volume in services[name]["volumes"]:
            source = pathlib.Path(volume.split(":")[0] if isinstance(volume, str) else volume["source"])
            if not source.is_absolute():
                continue
            found += 1
            about = source.stat()
            assert (about.st_uid, stat.S_IMODE(about.st_mode) & 0o077) == (1000, 0), f"{source}: {about}"
    assert found == 7, found
    for path in ("deploy/.env", "deploy/worker.env"):
        assert stat.S_IMODE((place / path).stat().st_mode) == 0o600, path
    said = (seen / "said").read_text()
    for tag in re.findall(r"cofferdam/\w+:[0-9.]+", said + yaml.dump(services)):
        assert "sandbox" in tag or tag.endswith(":" + programs["version"]), f"{tag} is not of this version"
    print("ok: walk-through: compose: each file is there, user 1000's and closed")


def asked(template):
    """The Secrets that a pod asks for: name and key; any key where it takes the whole."""
    spec = template["spec"]
    for container in spec.get("initContainers", []) + spec["containers"]:
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], reference["key"]
    for volume in spec["volumes"]:
        if "secret" in volume:
            yield volume["secret"]["secretName"], None


def complete(seen, count):
    """The Deployment, all of whose Secrets were made before, in its namespace, which was made as well."""
    made, rendered = ([one for one in yaml.safe_load_all((seen / name).read_text()) if one] for name in ("made.yaml", "rendered.yaml"))
    namespaces = {one["metadata"]["name"] for one in made if one["kind"] == "Namespace"}
    (deployment,) = [one for one in rendered if one["kind"] == "Deployment"]
    namespace = deployment["metadata"].get("namespace", "cofferdam")
    assert namespace in namespaces, f"{namespace} was not made: {namespaces}"
    secrets = {one["metadata"]["name"]: set(one.get("data", {})) for one in made if one["kind"] == "Secret" and one["metadata"]["namespace"] == namespace}
    wanted = list(asked(deployment["spec"]["template"]))
    assert len({name for name, _ in wanted}) == count, wanted
    for name, key in wanted:
        assert name in secrets and (key is None or key in secrets[name]), f"{name}/{key} was not made: {secrets}"
    return deployment


def by_kustomize(readme, place, programs):
    (place / "deploy").mkdir()
    (place / "deploy" / "kustomize").symlink_to(programs["deploy"] / "kustomize")
    script = next(text for kind, text in blocks(readme, "By kustomize.") if kind == "sh")
    first, rest = script.split("\n", 1)
    overlays = (first.split("#")[0], "overlay={0} namespace={1}".format(*first.split("session:")[1].replace(" ", "").split(",")))
    for number, beginning in enumerate(overlays):
        part = place / str(number)
        part.mkdir()
        (part / "TOKEN_FILE").write_text("token")
        (part / "deploy").symlink_to(place / "deploy")
        seen = follow(f"{beginning}\n{rest}", part, programs)
        complete(seen, 4)
    assert len(set(overlays)) == 2, overlays
    print("ok: walk-through: kustomize: each Secret that a pod asks for is made, in both overlays")


def by_helm(readme, place, programs):
    (place / "deploy").mkdir()
    (place / "deploy" / "helm").symlink_to(programs["deploy"] / "helm")
    # As the text says: without what the chart sets.
    (place / "config.toml").write_text(re.sub(r"^(state_dir|drain_s|concurrency) *=.*\n", "", programs["config"], flags=re.MULTILINE))
    (place / "TOKEN_FILE").write_text("token")
    found = blocks(readme, "By Helm.")
    (script,) = [text for kind, text in found if kind == "sh"]
    (values,) = [text for kind, text in found if kind == "yaml"]
    (place / "my-values.yaml").write_text(values)
    seen = follow(script, place, programs)
    deployment = complete(seen, 4)
    said = (seen / "said").read_text()
    assert f"deployment/{deployment['metadata']['name']}" in said, said
    pushed = set(re.findall(r"^docker push (\S+)", said, flags=re.MULTILINE))
    spec = deployment["spec"]["template"]["spec"]
    assert {one["image"] for one in spec["initContainers"] + spec["containers"]} == pushed, pushed
    print("ok: walk-through: Helm: each Secret that a pod asks for is made, each image pushed")


def main():
    readme, helm, kubectl, cofferdam, deploy = (pathlib.Path(one).resolve() for one in sys.argv[1:])
    text = readme.read_text()
    (config,) = re.findall(r"^```toml\n(default_agent.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    version = yaml.safe_load((deploy / "helm/cofferdam/Chart.yaml").read_text())["appVersion"]
    programs = {"helm": helm, "kubectl": kubectl, "cofferdam": cofferdam, "deploy": deploy, "config": config, "version": version}
    for walk in (compose, by_helm, by_kustomize):
        with tempfile.TemporaryDirectory() as directory:
            walk(text, pathlib.Path(directory), programs)
    # A step that is left out is noticed.
    for line, walk in (
        ("worker/data/engine worker/data/state ", compose),
        ("kubectl -n cofferdam create secret generic cofferdam-model ", by_helm),
        ("kubectl -n $namespace create secret generic cofferdam-broker ", by_kustomize),
        ("kubectl create namespace $namespace", by_kustomize),
    ):
        (whole,) = [one for one in text.splitlines() if line in one]
        with tempfile.TemporaryDirectory() as directory:
            try:
                walk(text.replace(whole + "\n", ""), pathlib.Path(directory), programs)
            except (AssertionError, OSError):
                continue
        sys.exit(f"FAILED: nobody missed: {whole}")
    print("ok: walk-through: steps that are left out are noticed")


if __name__ == "__main__":
    main()
