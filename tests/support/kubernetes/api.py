"""The API stand-in: the routes that the worker uses, with every request checked against the published OpenAPI schemas of Kubernetes.

Holds objects, their history and the faults that a test ordered. Starts nothing: what a pod does is `pods.py`.
"""

import copy
import datetime
import json
import re
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils
from referencing import Registry, Resource

# Objects may have come into the API at different times: the oldest version that is supported, and the newest.
VERSIONS = ("1.33", "1.37")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?\Z")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
QUANTITY = re.compile(r"[0-9]+(m|k|Ki|M|Mi|G|Gi)?\Z")
KINDS = {
    "pods": ("v1", "Pod"), "secrets": ("v1", "Secret"), "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "leases": ("coordination.k8s.io/v1", "Lease"), "resourcequotas": ("v1", "ResourceQuota"), "limitranges": ("v1", "LimitRange"),
}
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired", 422: "Invalid"}


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def status(code, message):
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": REASONS.get(code, "InternalError"), "code": code,
    }


def check_schema(body):
    for version in VERSIONS:
        kubernetes_validate.validate(body, version, strict=True)


def check_options(body):
    """The options of a deletion, whose schema the package brings and does not find by its name."""
    for version in VERSIONS:
        place = f"kubernetes-json-schema/v{version}.0-local-strict"
        schemas = [utils.schema_contents(f"{place}/{name}.json", version) for name in ("deleteoptions-meta-v1", "_definitions")]
        registry = Registry()
        for schema in schemas:
            registry = Resource.from_contents(schema) @ registry
        try:
            jsonschema.Draft202012Validator(schemas[0], registry=registry).validate(body)
        except jsonschema.ValidationError as wrong:
            raise kubernetes_validate.ValidationError(wrong, version=version) from wrong


def check_metadata(metadata):
    if not NAME.match(metadata.get("name", "")):
        raise Refused(422, f"metadata.name: {metadata.get('name')!r} is no name")
    for key, value in metadata.get("labels", {}).items():
        if not LABEL_KEY.match(key) or not LABEL_VALUE.match(value) or len(value) > 63:
            raise Refused(422, f"metadata.labels: {key}={value} is no label")
    for key in metadata.get("annotations", {}):
        if not LABEL_KEY.match(key):
            raise Refused(422, f"metadata.annotations: {key} is no key")


def amount(quantity):
    """A quantity as a number."""
    if not QUANTITY.match(quantity):
        raise Refused(422, f"{quantity!r} is no quantity")
    units = {"m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    digits = quantity.rstrip("mkKMGi")
    return int(digits) * units.get(quantity[len(digits):], 1)


# The published schemas name no values.
VALUES = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"}, "restartPolicy": {"Always", "OnFailure", "Never"},
    "dnsPolicy": {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"}, "medium": {"", "Memory", "HugePages"},
}


def check_values(part):
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key in VALUES and value not in VALUES[key]:
            raise Refused(422, f"{key}: Unsupported value: {value!r}")
        check_values(value)


def check_pod(pod):
    """What the API server checks of a pod and no schema says; as far as it concerns the pods that are made here."""
    spec = pod["spec"]
    check_values(spec)
    names = [volume["name"] for volume in spec.get("volumes", [])]
    if len(set(names)) != len(names):
        raise Refused(422, "spec.volumes: a name is there twice")
    if spec.get("dnsPolicy") == "None" and not spec.get("dnsConfig", {}).get("nameservers"):
        raise Refused(422, "spec.dnsConfig.nameservers: must provide at least one DNS nameserver when `dnsPolicy` is None")
    if spec.get("activeDeadlineSeconds", 1) < 1:
        raise Refused(422, "spec.activeDeadlineSeconds: must be greater than 0")
    general = spec.get("securityContext", {})
    if general.get("runAsNonRoot") and general.get("runAsUser") == 0:
        raise Refused(422, "spec.securityContext: runAsNonRoot and root")
    for owner in pod["metadata"].get("ownerReferences", []):
        if not all(owner.get(key) for key in ("apiVersion", "kind", "name", "uid")):
            raise Refused(422, "metadata.ownerReferences: incomplete")
    for container in spec.get("initContainers", []) + spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in names:
                raise Refused(422, f"volumeMounts: {mount['name']} is no volume")
        resources = container.get("resources", {})
        for kind, asked in resources.get("requests", {}).items():
            limit = resources.get("limits", {}).get(kind)
            if limit is not None and amount(asked) > amount(limit):
                raise Refused(422, f"resources.requests: {kind} must be less than or equal to its limit")


class Store:
    """All objects, by namespace, kind and name, with what happened to them."""

    def __init__(self, namespace, token, runtimes, pods=None):
        self.namespace, self.token, self.runtimes = namespace, token, runtimes
        self.changed = threading.Condition()
        self.objects = {kind: {} for kind in KINDS}
        self.history, self.version, self.compacted = [], 100, 0
        self.faults, self.denied, self.violations, self.requests = [], set(), [], []
        self.owners = set()
        self.pods = pods
        self.namespace_labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.replace("resourcequotas", [
            {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "sandboxes"}, "spec": {"hard": {"pods": "50"}}}])

    def replace(self, kind, items):
        """All objects of a kind, as somebody else made them."""
        for item in items:
            check_schema(item)
        with self.changed:
            self.objects[kind] = {item["metadata"]["name"]: item for item in items}

    def note(self, event, kind, item):
        with self.changed:
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            if kind == "pods":
                # What the worker is shown is what a cluster could have said.
                kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **item}, VERSIONS[0], strict=True)
            self.history.append((self.version, event, kind, copy.deepcopy(item)))
            self.changed.notify_all()

    def get(self, kind, name):
        with self.changed:
            found = self.objects[kind].get(name)
        if found is None:
            raise Refused(404, f'{kind} "{name}" not found')
        return found

    def create(self, kind, body, dry):
        api, name_of_kind = KINDS[kind]
        if (body.get("apiVersion"), body.get("kind")) != (api, name_of_kind):
            raise Refused(400, "the kind does not fit the address")
        metadata = body["metadata"]
        check_metadata(metadata)
        if metadata.get("namespace", self.namespace) != self.namespace:
            raise Refused(400, "the namespace of the object does not match the namespace on the request")
        if kind == "pods":
            check_pod(body)
            runtime = body["spec"].get("runtimeClassName")
            if runtime is not None and runtime not in self.runtimes:
                raise Refused(403, f'pods "{metadata["name"]}" is forbidden: pod rejected: RuntimeClass "{runtime}" not found')
        with self.changed:
            if metadata["name"] in self.objects[kind]:
                raise Refused(409, f'{kind} "{metadata["name"]}" already exists')
            metadata.update(uid=str(uuid.uuid4()), creationTimestamp=now(), namespace=self.namespace)
            if kind == "pods":
                body["status"] = {"phase": "Pending"}
            if dry:
                return body
            self.objects[kind][metadata["name"]] = body
            self.note("ADDED", kind, body)
        if self.is_orphan(body):
            threading.Timer(0.5, self.collect).start()
        if kind == "pods":
            self.pods.begin(body)
        return body

    def merge(self, kind, name, patch):
        """A JSON merge patch (RFC 7396) of what is there."""
        def merged(target, change):
            if not isinstance(change, dict):
                return change
            target = target if isinstance(target, dict) else {}
            both = {**target, **{key: merged(target.get(key), value) for key, value in change.items()}}
            return {key: value for key, value in both.items() if value is not None}

        with self.changed:
            item = self.get(kind, name)
            uid = patch.get("metadata", {}).get("uid", item["metadata"]["uid"])
            if uid != item["metadata"]["uid"]:
                raise Refused(409, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {item['metadata']['uid']}")
            changed = merged(item, patch)
            check_schema(changed)
            self.objects[kind][name] = changed
            self.note("MODIFIED", kind, changed)
            return changed

    def forget(self, kind, name, grace=0):
        """Deletes; a pod ends before it is gone."""
        with self.changed:
            item = self.objects[kind].get(name)
            if item is None:
                return
            if kind == "pods" and "deletionTimestamp" not in item["metadata"]:
                item["metadata"].update(deletionTimestamp=now(), deletionGracePeriodSeconds=grace)
                self.note("MODIFIED", kind, item)
        if kind == "pods":
            self.pods.end(name, grace)
        with self.changed:
            if self.objects[kind].pop(name, None) is not None:
                self.note("DELETED", kind, item)
        self.collect()

    def is_orphan(self, item):
        """Whether it has owners, and none of them is there."""
        owners = item["metadata"].get("ownerReferences", [])
        there = {one["metadata"].get("uid") for items in self.objects.values() for one in items.values()}
        return bool(owners) and not any(owner["uid"] in self.owners | there for owner in owners)

    def collect(self):
        """The garbage collector: what has lost its owners goes, and then what that owned."""
        with self.changed:
            orphans = [
                (kind, name)
                for kind, items in self.objects.items()
                for name, item in items.items()
                if self.is_orphan(item) and "deletionTimestamp" not in item["metadata"]
            ]
        for kind, name in orphans:
            self.forget(kind, name)

    def owner_gone(self, uid):
        """Something that was told of by `owner`, of another namespace or kind, is gone."""
        self.owners.discard(uid)
        self.collect()


def selected(item, query):
    metadata = item["metadata"]
    for selector in filter(None, query.get("labelSelector", [""])[0].split(",")):
        key, _, value = selector.partition("=")
        if key not in metadata.get("labels", {}) or (value and metadata["labels"][key] != value):
            return False
    for selector in filter(None, query.get("fieldSelector", [""])[0].split(",")):
        key, _, value = selector.partition("=")
        if key != "metadata.name":
            raise Refused(400, f"field label not supported: {key}")
        if metadata["name"] != value:
            return False
    return True


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    store = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer()

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

    def check_preconditions(self, item, wanted):
        for key, value in (wanted or {}).items():
            if item["metadata"][key] != value:
                raise Refused(409, f"Precondition failed: {key} in precondition: {value}, in object meta: {item['metadata'][key]}")

    def answer(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        length = int(self.headers.get("content-length", 0))
        try:
            body = json.loads(self.rfile.read(length) or b"null")
            if url.path.startswith("/_test/"):
                return self.reply(200, self.control(url.path.removeprefix("/_test/"), body))
            self.store.requests.append(f"{self.command} {url.path}")
            if self.headers.get("authorization") != f"Bearer {self.store.token}":
                raise Refused(401, "Unauthorized")
            self.fault(url)
            self.reply(*self.route(url.path, query, body))
        except Refused as refused:
            if refused.code == 422:
                self.store.violations.append(f"{self.command} {url.path}: {refused.message}")
            self.reply(refused.code, status(refused.code, refused.message))
        except kubernetes_validate.ValidationError as wrong:
            where = "/".join(str(part) for part in wrong.absolute_path)
            words = f"{self.command} {url.path}: {where}: {wrong.message}"
            self.store.violations.append(words)
            self.reply(422, status(422, words))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, code, body):
        if body is None:
            return
        with self.store.changed:
            data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fault(self, url):
        for fault in list(self.store.faults):
            if fault["method"] != self.command or not re.search(fault["path"], f"{url.path}?{url.query}"):
                continue
            fault["count"] -= 1
            if fault["count"] <= 0:
                self.store.faults.remove(fault)
            time.sleep(fault.get("stall_s", 0))
            if "code" in fault:
                raise Refused(fault["code"], fault["message"])

    def route(self, path, query, body):
        store = self.store
        if (self.command, path) == ("GET", "/version"):
            return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0-standin", "gitCommit": "0", "gitTreeState": "clean",
                         "buildDate": now(), "goVersion": "none", "compiler": "none", "platform": "linux/amd64"}
        if (self.command, path) == ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"):
            check_schema(body)
            asked = body["spec"]["resourceAttributes"]
            allowed = (asked["namespace"] == store.namespace
                       and f"{asked['verb']} {asked['resource']}" not in store.denied)
            return 201, {**body, "status": {"allowed": allowed}}
        if (self.command, path) == ("GET", f"/api/v1/namespaces/{store.namespace}"):
            if "get namespaces" in store.denied:
                raise Refused(403, f'namespaces "{store.namespace}" is forbidden: User "worker" cannot get resource "namespaces"')
            return 200, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": store.namespace, "labels": store.namespace_labels}}
        found = re.fullmatch(r"/(?:api|apis)/(v1|[a-z.0-9]+/v1)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?", path)
        if not found or KINDS.get(found[3], ("",))[0] != found[1]:
            raise Refused(404, "the server could not find the requested resource")
        _, namespace, kind, name = found.groups()
        verb = {"POST": "create", "DELETE": "delete", "PATCH": "patch",
                "GET": "get" if name else "watch" if "watch" in query else "list"}.get(self.command)
        if namespace != store.namespace or f"{verb} {kind}" in store.denied or verb is None:
            raise Refused(403, f'{kind} is forbidden: User "worker" cannot {verb} resource "{kind}" in the namespace "{namespace}"')
        if verb == "create":
            check_schema(body)
            return 201, store.create(kind, body, query.get("dryRun") == ["All"])
        if verb == "delete":
            body = body or {}
            check_options(body)
            item = store.get(kind, name)
            self.check_preconditions(item, body.get("preconditions"))
            threading.Thread(target=store.forget, args=(kind, name, body.get("gracePeriodSeconds", 30)), daemon=True).start()
            return 200, item
        if verb == "patch":
            if self.headers.get("content-type") != "application/merge-patch+json":
                raise Refused(415, "the body of the request was in an unknown format")
            return 200, store.merge(kind, name, body)
        if verb == "get":
            return 200, store.get(kind, name)
        if verb == "list":
            with store.changed:
                items = [item for item in store.objects[kind].values() if selected(item, query)]
                version = str(store.version)
            api, name_of_kind = KINDS[kind]
            return 200, {"kind": f"{name_of_kind}List", "apiVersion": api, "metadata": {"resourceVersion": version}, "items": items}
        return self.watch(kind, query)

    def watch(self, kind, query):
        store = self.store
        since = int(query.get("resourceVersion", ["0"])[0] or 0)
        until = time.monotonic() + int(query.get("timeoutSeconds", ["300"])[0])
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

        def say(event, item):
            line = json.dumps({"type": event, "object": item}).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()

        while time.monotonic() < until:
            with store.changed:
                new = [one for one in store.history if one[0] > since and one[2] == kind]
                if since < store.compacted:
                    new = None
                elif not new:
                    store.changed.wait(1)
            if new is None:
                say("ERROR", status(410, f"too old resource version: {since} ({store.compacted})"))
                break
            for version, event, _, item in new:
                since = version
                if selected(item, query):
                    api, name_of_kind = KINDS[kind]
                    say(event, {"apiVersion": api, "kind": name_of_kind, **item})
        self.wfile.write(b"0\r\n\r\n")
        return 200, None

    def control(self, act, body):
        store = self.store
        if act == "state":
            return {"pods": list(store.objects["pods"].values()), "secrets": list(store.objects["secrets"]),
                    "leases": list(store.objects["leases"].values()),
                    "secrets_metadata": [item["metadata"] for item in store.objects["secrets"].values()],
                    "violations": store.violations, "requests": store.requests}
        if act == "faults":
            store.faults.append(body)
        elif act == "deny":
            store.denied = set(body)
        elif act == "policies":
            store.replace("networkpolicies", body)
        elif act == "quotas":
            store.replace("resourcequotas", body)
        elif act == "limit-ranges":
            store.replace("limitranges", body)
        elif act == "namespace-labels":
            store.namespace_labels = body
        elif act == "owner":
            store.owners.add(body)
        elif act == "owner-gone":
            store.owner_gone(body)
        elif act == "evict":
            for name in list(store.objects["pods"]):
                store.pods.evict(name, body)
        elif act == "preempt":
            # A pod of more importance takes the place: this one is marked, and deleted with its own grace.
            for name in list(store.objects["pods"]):
                store.pods.mark(name, "PreemptionByScheduler", body)
                threading.Thread(target=store.forget, args=("pods", name, 30), daemon=True).start()
        elif act == "lose-node":
            for name in list(store.objects["pods"]):
                store.pods.lose(name)
        elif act == "compact":
            # Every version up to now is too old from now on, and who watches is told so.
            with store.changed:
                store.version += 1
                store.compacted = store.version
                store.history.clear()
                store.changed.notify_all()
        elif act == "unplaced":
            store.pods.unplaced = body
        else:
            raise Refused(404, "no such control")
        return {}


class Server(ThreadingHTTPServer):
    """Clients that are killed are part of what is tested."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def serve(store):
    """A server on a free port of loopback, not yet running."""
    Handler.store = store
    return Server(("127.0.0.1", 0), Handler)
