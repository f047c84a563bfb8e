"""Holds rendered objects against published schemas, strictly: a field that no schema knows is an error, in pod templates of custom resources too.

Kubernetes' own kinds: kubernetes-validate, for each version that is named. KEDA's and the Prometheus operator's: the models that cloudcoil makes
from their published definitions; what a model does not give back was unknown to it.

    schemas.py VERSIONS RENDERED.yaml...      for example: schemas.py 1.31,1.37 a.yaml
"""

import copy
import pathlib
import sys

import cloudcoil.models.keda.v1alpha1 as keda
import cloudcoil.models.prometheus_operator.v1 as operator
import kubernetes_validate
import pydantic
import yaml

CUSTOM = {
    "ScaledJob": keda.ScaledJob,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "PodMonitor": operator.PodMonitor,
    "PrometheusRule": operator.PrometheusRule,
}


def lost(given, back, path=""):
    """The first place of `given` that `back` does not have."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(back, dict) or key not in back:
                return f"{path}/{key}"
            deeper = lost(value, back[key], f"{path}/{key}")
            if deeper:
                return deeper
    elif isinstance(given, list):
        if not isinstance(back, list) or len(back) != len(given):
            return path
        for number, (one, other) in enumerate(zip(given, back)):
            deeper = lost(one, other, f"{path}/{number}")
            if deeper:
                return deeper
    return None


def custom(document):
    """What is wrong with a custom resource."""
    document = copy.deepcopy(document)
    # A job is Kubernetes' own kind: it is looked at below.
    document.get("spec", {}).get("jobTargetRef", {}).pop("template", None)
    if document["kind"] == "ScaledJob":
        document["spec"]["jobTargetRef"]["template"] = {"spec": {"containers": [{"name": "x"}]}}
    try:
        model = CUSTOM[document["kind"]].model_validate(document)
    except pydantic.ValidationError as error:
        return str(error).splitlines()[1]
    gone = lost(document, model.model_dump(mode="json", by_alias=True, exclude_none=True))
    return gone and f"no such field: {gone}"


def ours(document, version):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'/'.join(map(str, error.path))}: {error.message[:200]}"
    return None


def faults(document, versions):
    if document["kind"] not in CUSTOM:
        return [(version, fault) for version in versions if (fault := ours(document, version))]
    found = [("published", fault)] if (fault := custom(document)) else []
    if document["kind"] == "ScaledJob":
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": document["spec"]["jobTargetRef"]}
        found += faults(job, versions)
    return found


# What must be found: (kind, how it is broken).
BROKEN = [
    ("Deployment", lambda one: one["spec"].update(replica=1)),
    ("Deployment", lambda one: one["spec"]["template"]["spec"]["containers"][0].update(imag="x")),
    ("NetworkPolicy", lambda one: one["spec"].update(policyTypes="Egress")),
    ("ScaledJob", lambda one: one["spec"].update(maxReplicas=1)),
    ("ScaledJob", lambda one: one["spec"]["triggers"][0]["metadata"].update(value=1)),
    ("ScaledJob", lambda one: one["spec"].pop("triggers")),
    ("ScaledJob", lambda one: one["spec"]["jobTargetRef"]["template"]["spec"]["containers"][0].update(imag="x")),
    ("ScaledJob", lambda one: one["spec"]["rollout"].update(strategies="gradual")),
    ("TriggerAuthentication", lambda one: one["spec"]["secretTargetRef"][0].pop("key")),
    ("PodMonitor", lambda one: one["spec"].update(podMetricsEndpoint=[])),
    ("PodMonitor", lambda one: one["spec"]["podMetricsEndpoints"][0].update(interval=30)),
    ("PrometheusRule", lambda one: one["spec"]["groups"][0].update(rule=[])),
]


def main():
    versions = sys.argv[1].split(",")
    kinds = {}
    failed = 0
    for path in sys.argv[2:]:
        for document in filter(None, yaml.safe_load_all(pathlib.Path(path).read_text())):
            kinds.setdefault(document["kind"], document)
            for version, fault in faults(document, versions):
                failed += 1
                print(f"FAILED {pathlib.Path(path).stem}: {document['kind']} {document['metadata']['name']} ({version}): {fault}")
    for number, (kind, change) in enumerate(BROKEN, 1):
        if kind not in kinds:
            print(f"SKIPPED: no {kind} was rendered")
            continue
        document = copy.deepcopy(kinds[kind])
        change(document)
        if not faults(document, versions):
            failed += 1
            print(f"FAILED: the {number}. broken object, a {kind}, was found good")
    if not failed:
        print(f"ok: {len(sys.argv) - 2} renderings are good for {', '.join(versions)}: {', '.join(sorted(kinds))}")
        print(f"ok: {sum(kind in kinds for kind, _ in BROKEN)} broken objects are found out")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
