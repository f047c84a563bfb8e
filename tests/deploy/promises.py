"""What the chart promises, asserted on what helm rendered; and each promise seen broken: a file is changed so that it does not hold, and the
check has to say so. Reads rendered YAML only; knows nothing of the templates.

    promises.py RENDERED.yaml...
"""

import copy
import pathlib
import re
import sys

import yaml

# What a rootless engine needs in a user name space; no other container may have any of it.
ENGINE_CAPABILITIES = {"SETUID", "SETGID"}
# src/worker.rs, TEARDOWN.
TEARDOWN = 120
# Names of secrets, and addresses with a password in them.
SECRET = re.compile("(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)S?$", re.IGNORECASE)
PASSWORD = re.compile("://[^/@]*:[^/@]*@")
# What the engine mounts into sandboxes, and its own socket.
SHOWN = ("engine", "state/sandboxes", "state/inside")
# What a worker may do among its sandboxes. Who could read a Secret there could be another sandbox.
RIGHTS = {
    "pods": {"create", "delete", "list", "watch"},
    "secrets": {"create", "delete"},
    "networkpolicies": {"list"},
    "leases": {"create", "delete", "list", "patch"},
    "resourcequotas": {"list"},
    "limitranges": {"list"},
    "namespaces": {"get"},
}


class Rendered:
    """One rendering, by what the promises ask for."""

    def __init__(self, documents):
        self.documents = [one for one in documents if one]

    def of(self, *kinds):
        return [one for one in self.documents if one["kind"] in kinds]

    def templates(self):
        """The workers' pod templates."""
        for one in self.of("Deployment"):
            yield one["spec"]["template"]
        for one in self.of("ScaledJob"):
            yield one["spec"]["jobTargetRef"]["template"]

    def containers(self):
        for template in self.templates():
            spec = template["spec"]
            for one in spec.get("initContainers", []) + spec["containers"]:
                yield spec, one

    def worker(self):
        return next(one for _, one in self.containers() if one["name"] == "worker")

    def environment(self):
        return {one["name"]: one for one in self.worker()["env"]}

    def backend(self):
        return "kubernetes" if "COFFERDAM__SANDBOX__BACKEND" in self.environment() else "docker"


def no_token_but_where_it_is_needed(seen):
    for account in seen.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False, account["metadata"]["name"]
    for template in seen.templates():
        assert template["spec"]["automountServiceAccountToken"] is False
        tokens = [
            volume["name"]
            for volume in template["spec"]["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        ]
        assert len(tokens) == (1 if seen.backend() == "kubernetes" else 0), tokens
        for _, container in seen.containers():
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert container["name"] == "worker" or not mounts & set(tokens), container["name"]


def every_root_is_read_only_and_nobody_is_root(seen):
    for spec, container in seen.containers():
        whole, own = spec["securityContext"], container["securityContext"]
        assert own["readOnlyRootFilesystem"] is True, container["name"]
        for key in ("runAsNonRoot", "runAsUser"):
            assert own.get(key, whole[key]) not in (0, False), (container["name"], key)


def nothing_is_privileged_but_what_the_engine_needs(seen):
    for spec, container in seen.containers():
        own, name = container["securityContext"], container["name"]
        rights = own.get("capabilities", {})
        profile = own.get("seccompProfile", spec["securityContext"]["seccompProfile"])["type"]
        assert name == "engine" or "appArmorProfile" not in own, name
        if name != "engine":
            assert not own.get("privileged") and own["allowPrivilegeEscalation"] is False, name
            assert rights == {"drop": ["ALL"]} and profile == "RuntimeDefault", name
        elif own.get("privileged"):
            # Chosen (engine.walls): then the pod has no name space of its own.
            assert "hostUsers" not in spec
        else:
            assert set(rights["add"]) == ENGINE_CAPABILITIES and rights["drop"] == ["ALL"]
            # A /proc without masks is refused by the API server where root of the pod is root of the node.
            assert own["procMount"] == "Unmasked" and spec["hostUsers"] is False


def nothing_of_the_node_is_seen(seen):
    for template in seen.templates():
        spec = template["spec"]
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert not spec.get(key), key
        for volume in spec["volumes"]:
            assert "hostPath" not in volume, volume["name"]
    for _, container in seen.containers():
        assert not any("docker.sock" in mount["mountPath"] for mount in container.get("volumeMounts", []))
        assert not any("hostPort" in port for port in container.get("ports", []))


def secrets_are_only_named(seen):
    assert not seen.of("Secret")
    for _, container in seen.containers():
        for variable in container.get("env", []):
            plain = "value" in variable and not variable["name"].startswith("COFFERDAM__")
            assert not plain or not SECRET.search(variable["name"]), variable["name"]
            assert not PASSWORD.search(variable.get("value", "")), variable["name"]
    assert "secretKeyRef" in seen.environment()["COFFERDAM_AMQP_URL"]["valueFrom"]
    for config in seen.of("ConfigMap"):
        assert "amqp://" not in config["data"]["config.toml"]


def a_pod_has_time_to_drain(seen):
    drain = int(seen.environment()["COFFERDAM__DRAIN_S"]["value"])
    for template in seen.templates():
        assert template["spec"]["terminationGracePeriodSeconds"] >= drain + TEARDOWN + 30
    stop = seen.worker()["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["/usr/local/bin/cofferdam", "drain", "--wait"], stop


def the_engine_outlives_the_worker_and_speaks_by_a_file(seen):
    if seen.backend() != "docker":
        assert not any(one["name"] == "engine" for _, one in seen.containers())
        return
    for spec, container in seen.containers():
        if container["name"] != "engine":
            continue
        assert container["restartPolicy"] == "Always" and container in spec["initContainers"]
        assert not container.get("ports"), "a socket is a file, not a port"
    socket = pathlib.PurePath(seen.environment()["COFFERDAM__SANDBOX__DOCKER_SOCKET"]["value"])
    assert str(socket.parent) == "/var/lib/cofferdam/engine"


def the_engine_sees_of_the_worker_only_what_it_mounts(seen):
    if seen.backend() != "docker":
        return
    names = [one["name"] for one in spec_of(seen)["initContainers"]]
    assert names.index("directories") < names.index("engine"), "the kubelet would make them, as root"
    made = next(one for _, one in seen.containers() if one["name"] == "directories")["args"]
    whole = [mount for mount in seen.worker()["volumeMounts"] if mount["name"] == "state"]
    assert [mount["mountPath"] for mount in whole] == ["/var/lib/cofferdam"] and "subPath" not in whole[0]
    assert next(one for one in spec_of(seen)["volumes"] if one["name"] == "state")["emptyDir"]["sizeLimit"]
    mounts = [mount for mount in engine_of(seen)["volumeMounts"] if mount["name"] == "state"]
    assert sorted(mount.get("subPath", "") for mount in mounts) == sorted(SHOWN)
    for mount in mounts:
        assert mount["mountPath"] == f"/var/lib/cofferdam/{mount['subPath']}" and mount["mountPath"] in made, mount
    # What is the worker's alone is in no volume of the engine's.
    others = {mount["name"] for mount in engine_of(seen)["volumeMounts"]} - {"state"}
    assert not others & {mount["name"] for mount in seen.worker()["volumeMounts"] if mount["name"] != "tmp"}


def probes_ask_what_they_are_for(seen):
    worker = seen.worker()
    assert worker["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    port = next(one for one in worker["ports"] if one["name"] == "admin")["containerPort"]
    assert seen.environment()["COFFERDAM__ADMIN__LISTEN"]["value"].endswith(f":{port}")
    for monitor in seen.of("PodMonitor"):
        # deploy/prometheus asks for this job.
        assert next(seen.templates())["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "cofferdam"
        assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == ["admin"]


def scaling_ends_no_busy_pod(seen):
    kinds = {one["kind"] for one in seen.documents}
    assert not kinds & {"ScaledObject", "HorizontalPodAutoscaler"}
    for template in seen.templates():
        assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    for job in seen.of("ScaledJob"):
        target = job["spec"]["jobTargetRef"]
        assert job["spec"]["rollout"]["strategy"] == "gradual" and target["backoffLimit"] == 0
        assert target["template"]["spec"]["restartPolicy"] == "Never"
        arguments = seen.worker()["args"]
        assert arguments[:3] == ["run", "--max-sessions", "1"] and "--idle-timeout" in arguments
        assert seen.environment()["COFFERDAM__CONCURRENCY"]["value"] == "1"
        budget = seen.of("PodDisruptionBudget")[0]["spec"]
        assert budget["minAvailable"] >= job["spec"]["maxReplicaCount"]
        prefix = seen.environment()["COFFERDAM__QUEUE__PREFIX"]["value"]
        for trigger in job["spec"]["triggers"]:
            assert trigger["metadata"]["queueName"].startswith(prefix + ".") and "host" not in trigger["metadata"]
    for deployment in seen.of("Deployment"):
        update = deployment["spec"]["strategy"]["rollingUpdate"]
        assert update["maxUnavailable"] == 0 and seen.of("PodDisruptionBudget")


def selectors_find_the_pods(seen):
    for template in seen.templates():
        labels = template["metadata"]["labels"]
        namespace = next(one["metadata"]["namespace"] for one in seen.of("Deployment", "ScaledJob"))
        for one in seen.of("Deployment", "PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
            selector = one["spec"].get("selector") or one["spec"]["podSelector"]
            if one["metadata"]["namespace"] == namespace:
                wanted = selector["matchLabels"]
                assert wanted and wanted.items() <= labels.items(), (one["kind"], one["metadata"]["name"])


def nothing_goes_out_but_by_a_name(seen):
    policies = seen.of("NetworkPolicy")
    shut = [one for one in policies if set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"} and not one["spec"].get("egress")]
    assert shut and not shut[0]["spec"].get("ingress")
    for policy in policies:
        for rule in policy["spec"].get("egress", []):
            assert rule["to"] and rule["ports"], policy["metadata"]["name"]
            for peer in rule["to"]:
                block = peer.get("ipBlock", {})
                if block.get("cidr") == "0.0.0.0/0":
                    assert "169.254.0.0/16" in block["except"], "metadata services"
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"] and rule["ports"], policy["metadata"]["name"]


def workers_may_only_make_sandboxes(seen):
    roles = seen.of("Role", "ClusterRole")
    if seen.backend() == "docker":
        assert not roles and not seen.of("RoleBinding", "ClusterRoleBinding")
        return
    home = seen.of("Deployment", "ScaledJob")[0]["metadata"]["namespace"]
    assert [one["kind"] for one in roles] == ["Role"] and not seen.of("ClusterRoleBinding")
    assert roles[0]["metadata"]["namespace"] != home, "who may make pods beside the workers could mount their Secrets"
    for rule in roles[0]["rules"]:
        for resource in rule["resources"]:
            assert set(rule["verbs"]) <= RIGHTS.get(resource, set()), (resource, rule["verbs"])
    for namespace in seen.of("Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    there = [one for one in seen.of("NetworkPolicy", "ResourceQuota") if one["metadata"]["namespace"] != home]
    assert sorted(one["kind"] for one in there) == ["NetworkPolicy", "ResourceQuota"]
    policy = next(one for one in there if one["kind"] == "NetworkPolicy")["spec"]
    assert policy["podSelector"] == {} and "ingress" not in policy and len(policy["egress"]) == 1
    tools = seen.environment()["COFFERDAM__SANDBOX__KUBERNETES__TOOLS_IMAGE"]["value"]
    assert tools == seen.worker()["image"], "sandboxes get another version of `inside`"
    gateway = next(one for one in seen.worker()["ports"] if one["name"] == "gateway")["containerPort"]
    assert [port["port"] for port in policy["egress"][0]["ports"]] == [gateway]


def spec_of(seen):
    return next(seen.templates())["spec"]


def engine_of(seen):
    return next(one for _, one in seen.containers() if one["name"] == "engine")


def set_in(target, value, *path):
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value


# Each promise, and ways in which it is broken: it has to notice each in at least one of the renderings.
PROMISES = {
    no_token_but_where_it_is_needed: [
        lambda seen: set_in(spec_of(seen), True, "automountServiceAccountToken"),
        lambda seen: set_in(seen.of("ServiceAccount")[0], True, "automountServiceAccountToken"),
    ],
    every_root_is_read_only_and_nobody_is_root: [
        lambda seen: set_in(seen.worker(), False, "securityContext", "readOnlyRootFilesystem"),
        lambda seen: set_in(spec_of(seen), 0, "securityContext", "runAsUser"),
    ],
    nothing_is_privileged_but_what_the_engine_needs: [
        lambda seen: set_in(seen.worker(), True, "securityContext", "privileged"),
        lambda seen: engine_of(seen)["securityContext"]["capabilities"]["add"].append("SYS_ADMIN"),
        lambda seen: set_in(spec_of(seen), True, "hostUsers"),
        lambda seen: set_in(spec_of(seen), "Unconfined", "securityContext", "seccompProfile", "type"),
    ],
    nothing_of_the_node_is_seen: [
        lambda seen: spec_of(seen)["volumes"].append({"name": "node", "hostPath": {"path": "/var/run/docker.sock"}}),
        lambda seen: set_in(spec_of(seen), True, "hostNetwork"),
    ],
    secrets_are_only_named: [
        lambda seen: seen.worker()["env"].append({"name": "COFFERDAM_MODEL_KEY", "value": "secret"}),
        lambda seen: seen.worker()["env"].append({"name": "HTTPS_PROXY", "value": "http://ada:word@proxy.example.org"}),
        lambda seen: seen.documents.append({"kind": "Secret"}),
    ],
    a_pod_has_time_to_drain: [
        lambda seen: set_in(spec_of(seen), 30, "terminationGracePeriodSeconds"),
        lambda seen: seen.worker().pop("lifecycle"),
    ],
    the_engine_outlives_the_worker_and_speaks_by_a_file: [
        lambda seen: engine_of(seen).pop("restartPolicy"),
        lambda seen: set_in(engine_of(seen), [{"containerPort": 2375}], "ports"),
    ],
    the_engine_sees_of_the_worker_only_what_it_mounts: [
        lambda seen: engine_of(seen)["volumeMounts"].append({"name": "state", "mountPath": "/all"}),
        lambda seen: engine_of(seen)["volumeMounts"].append({"name": "tokens", "mountPath": "/tokens"}),
        lambda seen: set_in(spec_of(seen), spec_of(seen)["initContainers"][::-1], "initContainers"),
        lambda seen: next(one for _, one in seen.containers() if one["name"] == "directories")["args"].pop(),
    ],
    probes_ask_what_they_are_for: [
        lambda seen: set_in(seen.worker(), "/readyz", "livenessProbe", "httpGet", "path"),
        lambda seen: seen.of("PodMonitor")[0]["spec"].pop("jobLabel"),
    ],
    scaling_ends_no_busy_pod: [
        lambda seen: set_in(seen.of("ScaledJob")[0], "default", "spec", "rollout", "strategy"),
        lambda seen: set_in(seen.of("PodDisruptionBudget")[0], 1, "spec", "minAvailable"),
        lambda seen: seen.documents.append({"kind": "HorizontalPodAutoscaler"}),
    ],
    selectors_find_the_pods: [
        lambda seen: next(seen.templates())["metadata"]["labels"].pop("app.kubernetes.io/instance"),
    ],
    nothing_goes_out_but_by_a_name: [
        lambda seen: set_in(seen.of("NetworkPolicy")[0], [{}], "spec", "egress"),
        lambda seen: seen.of("NetworkPolicy")[-1]["spec"].update(egress=[{"to": [], "ports": []}]),
    ],
    workers_may_only_make_sandboxes: [
        lambda seen: seen.of("Role")[0]["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}),
        lambda seen: seen.of("Role")[0]["rules"].append({"apiGroups": [""], "resources": ["*"], "verbs": ["list"]}),
        lambda seen: set_in(seen.worker(), "x:1", "image") if seen.of("Role") else {}["docker"],
        lambda seen: set_in(seen.of("Role")[0], seen.of("Deployment")[0]["metadata"]["namespace"], "metadata", "namespace"),
    ],
}


def broken(promise, seen):
    try:
        promise(seen)
    except (AssertionError, KeyError, IndexError, StopIteration, TypeError) as what:
        return f"{type(what).__name__} {what}"
    return None


def main():
    renderings = {path: list(yaml.safe_load_all(pathlib.Path(path).read_text())) for path in sys.argv[1:]}
    assert renderings
    failed = 0
    for promise, changes in PROMISES.items():
        name, before = promise.__name__.replace("_", " "), failed
        for path, documents in renderings.items():
            why = broken(promise, Rendered(documents))
            if why:
                failed += 1
                print(f"FAILED {pathlib.Path(path).stem}: {name}: {why}")
        for number, change in enumerate(changes, 1):
            noticed = applied = 0
            for documents in renderings.values():
                seen = Rendered(copy.deepcopy(documents))
                try:
                    change(seen)
                except (IndexError, KeyError, StopIteration):
                    # There is nothing of the kind in this one.
                    continue
                applied += 1
                noticed += broken(promise, seen) is not None
            if not noticed:
                failed += 1
                print(f"FAILED {name}: the {number}. way to break it was not noticed, of {applied} that were tried")
        if failed == before:
            print(f"ok: {name}, and seen broken in {len(changes)} ways")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
