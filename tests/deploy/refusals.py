"""Values that the chart must refuse, each for a reason of its own: what helm says has to name it.

    refusals.py HELM CHART VALUES.yaml...     the values files are accepted without the change

A reason that two share would not show which check refused it, so that is an error, too.
"""

import json
import subprocess
import sys

# (what is set, what helm's refusal has to say)
REFUSED = [
    ({"replica": 3}, "additional properties 'replica' not allowed"),
    ({"engine": {"docker": True}}, "'/engine': additional properties 'docker' not allowed"),
    ({"form": "daemonset"}, "'/form': value must be one of"),
    ({"backend": "podman"}, "'/backend': value must be one of"),
    ({"replicas": -1}, "'/replicas': minimum"),
    ({"replicas": "three"}, "'/replicas': got string, want integer"),
    ({"concurrency": 0}, "'/concurrency': minimum"),
    ({"image": {"digest": "sha256:abc"}}, "'/image/digest': 'sha256:abc' does not match pattern"),
    ({"image": {"pullPolicy": "Sometimes"}}, "'/image/pullPolicy': value must be one of"),
    ({"engine": {"walls": "none"}}, "'/engine/walls': value must be one of"),
    ({"engine": {"arguments": ["--host=tcp://0.0.0.0 --tls=false"]}}, "'/engine/arguments/0'"),
    ({"engine": {"resources": {"limits": {"memory": None}}}}, "'/engine/resources/limits': missing property 'memory'"),
    ({"resources": {"limits": {"memory": "lots"}}}, "'/resources/limits/memory': 'lots' does not match pattern"),
    ({"state": {"size": "20 GB"}}, "'/state/size'"),
    ({"drain": {"seconds": -5}}, "'/drain/seconds': minimum"),
    ({"drain": {"marginSeconds": 0}}, "'/drain/marginSeconds': minimum"),
    ({"listen": "127.0.0.1"}, "'/listen': value must be one of"),
    ({"secrets": {"environment": [{"variable": "COFFERDAM_MODEL_KEY", "value": "sk-1"}]}}, "additional properties 'value' not allowed"),
    ({"secrets": {"environment": [{"variable": "model-key", "name": "a", "key": "b"}]}}, "'/secrets/environment/0/variable'"),
    ({"secrets": {"tokens": "No_Such/Name"}}, "'/secrets/tokens'"),
    ({"secrets": {"broker": {"url": "amqp://a:b@c"}}}, "'/secrets/broker': additional properties 'url' not allowed"),
    ({"secrets": {"broker": {"name": ""}}}, "secrets.broker.name: name the Secret"),
    ({"variables": {"model-key": "x"}}, "at '': invalid propertyName 'model-key'"),
    ({"variables": {"COFFERDAM__SANDBOX__CPUS": 4}}, "'/variables/COFFERDAM__SANDBOX__CPUS': got number, want string"),
    ({"variables": {"COFFERDAM__DRAIN_S": "5"}}, "variables.COFFERDAM__DRAIN_S: the chart sets it"),
    ({"variables": {"COFFERDAM_MODEL_KEY": "sk-1"}}, "variables.COFFERDAM_MODEL_KEY: it looks like a secret"),
    ({"variables": {"HTTPS_PROXY": "http://ada:hunter2@proxy.example.org"}}, "variables.HTTPS_PROXY: it looks like a secret"),
    (
        {"variables": {"A": "x"}, "secrets": {"environment": [{"variable": "A", "name": "a", "key": "b"}]}},
        "variables.A: it is in secrets.environment too",
    ),
    ({"traces": {"endpoint": "collector:4318"}}, "'/traces/endpoint'"),
    ({"traces": {"endpoint": "http://collector:4318"}}, "networkPolicy.exits.traces: say where the collector"),
    ({"sandboxes": {"seccompProfile": "/etc/sandbox.json"}}, "'/sandboxes/seccompProfile'"),
    ({"config": ""}, "config: give the worker its config.toml"),
    ({"config": '[queue]\nurl = "amqps://worker:hunter2@broker.example.org/x"\n'}, "the broker's address with its password stands there"),
    ({"config": "drain_s = 5\n"}, "config: drain_s is set by the chart"),
    ({"config": 'state_dir = "/x"\n'}, "config: state_dir is set by the chart"),
    ({"form": "scaledjob", "scaledjob": {"lanes": []}}, "'/scaledjob/lanes': minItems"),
    ({"form": "scaledjob", "scaledjob": {"deadlineSeconds": 60, "idleSeconds": 60}}, "scaledjob.deadlineSeconds: must be more than"),
    ({"form": "scaledjob", "scaledjob": {"minReplicas": 3, "maxReplicas": 2}}, "scaledjob.maxReplicas: must not be less"),
    ({"networkPolicy": {"exits": {"models": {"to": [], "ports": [443]}}}}, "'/networkPolicy/exits/models/to': minItems"),
    ({"networkPolicy": {"exits": {"models": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}}}}, "'/networkPolicy/exits/models': missing property 'ports'"),
    ({"networkPolicy": {"exits": {"models": {"to": [{}], "ports": [443]}}}}, "'/networkPolicy/exits/models/to/0': minProperties"),
    ({"backend": "kubernetes"}, "networkPolicy.exits.kubernetes: say where the API server is"),
    (
        {
            "backend": "kubernetes",
            "sandboxes": {"namespace": "cofferdam"},
            "networkPolicy": {"exits": {"kubernetes": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [443]}}},
        },
        "sandboxes.namespace: must not be the workers' own",
    ),
    ({"monitoring": {"podMonitor": True}}, "networkPolicy.scrapers: name the namespace of your Prometheus"),
    ({"podDisruptionBudget": {"maxUnavailable": "some"}}, "'/podDisruptionBudget/maxUnavailable'"),
    ({"monitoring": {"interval": "often"}}, "'/monitoring/interval'"),
    ({"sandboxes": {"gatewayPort": 80}}, "'/sandboxes/gatewayPort': minimum"),
]

# The same without any values file.
REFUSED_ALONE = [({"config": "# none", "secrets": {"broker": {"name": "a"}}}, "networkPolicy.exits.broker: say where the broker is")]


def template(helm, chart, files, values):
    command = [helm, "template", "agents", chart, "--namespace", "cofferdam", "--values", "-"]
    # What is tried comes last, from standard input.
    command[6:6] = [word for file in files for word in ("--values", file)]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60)


def main():
    helm, chart, *files = sys.argv[1:]
    failed = 0
    accepted = template(helm, chart, files, {})
    if accepted.returncode != 0:
        sys.exit(f"FAILED: what is to be changed is refused itself: {accepted.stderr}")
    tried = [(values, reason, files) for values, reason in REFUSED] + [(values, reason, []) for values, reason in REFUSED_ALONE]
    reasons = [reason for _, reason, _ in tried]
    for values, reason, over in tried:
        refused = template(helm, chart, over, values)
        if refused.returncode == 0:
            failed += 1
            print(f"FAILED: accepted: {json.dumps(values)}")
        elif reason not in refused.stderr:
            failed += 1
            print(f"FAILED: {json.dumps(values)} is refused for another reason than {reason!r}: {refused.stderr.strip()}")
        elif sum(other in refused.stderr for other in reasons) != 1:
            failed += 1
            print(f"FAILED: {json.dumps(values)} is refused for more than one reason: {refused.stderr.strip()}")
    if not failed:
        print(f"ok: {len(tried)} bad values are refused, each for its own reason")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
