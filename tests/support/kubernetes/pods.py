"""What a pod of the stand-in does: a real container of the local Docker engine for each of its containers, with its file systems and limits.

The network is what the namespace's policies leave: a container has none, and one address in it leads to one port of this machine's loopback
where a policy lets it out there. Stands for kubelet and network at once, and knows no more of pods than these tests need.
"""

import base64
import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from api import amount, now

CLONE_NEWNET = 0x40000000
LABEL = "dev.cofferdam.standin"
# As a kubelet's `seccomp` directory: with the profile that goes onto nodes.
PROFILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../deploy/seccomp")


def docker(*arguments, check=True, limit=120):
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=limit, check=False)
    if check and ran.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout.strip()


def listen_in(pid, address):
    """A listening socket in the network of a process."""
    made = {}

    def make():
        try:
            subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", "addr", "add", f"{address[0]}/32", "dev", "lo"], check=True)
            space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            # This thread's own, and no other's.
            if ctypes.CDLL(None, use_errno=True).setns(space, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(space)
            listener = socket.socket()
            listener.bind(address)
            listener.listen(128)
            made["socket"] = listener
        except (OSError, subprocess.CalledProcessError) as error:
            made["error"] = error

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if "error" in made:
        raise made["error"]
    return made["socket"]


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def forward(listener, target):
    """Everything that comes goes to a port of this machine's loopback."""
    while True:
        try:
            theirs, _ = listener.accept()
        except OSError:
            return
        try:
            ours = socket.create_connection(target)
        except OSError:
            theirs.close()
            continue
        for one, other in ((theirs, ours), (ours, theirs)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=pump, args=(one, other), daemon=True).start()


class Pods:
    """All that run."""

    def __init__(self, identity):
        self.identity, self.store, self.unplaced = identity, None, None
        self.running, self.lock = {}, threading.Lock()

    def begin(self, pod):
        one = Running(self, pod)
        with self.lock:
            self.running[pod["metadata"]["name"]] = one
        one.thread.start()

    def end(self, name, grace):
        with self.lock:
            one = self.running.get(name)
        if one:
            one.end(grace)
            with self.lock:
                self.running.pop(name, None)

    def evict(self, name, message):
        with self.lock:
            one = self.running.get(name)
        if one:
            one.fail("Evicted", message)
            one.kill()

    def mark(self, name, reason, message):
        with self.lock:
            one = self.running.get(name)
        if one:
            one.say(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}])

    def lose(self, name):
        """Its node is gone, and nobody says so: what was last said of it stands."""
        with self.lock:
            one = self.running.get(name)
        if one:
            one.lost.set()
            one.kill()

    def end_all(self):
        for name in list(self.running):
            self.end(name, 0)


class Running:
    """One pod."""

    def __init__(self, pods, pod):
        self.pods, self.pod, self.name = pods, pod, pod["metadata"]["name"]
        self.directory = tempfile.mkdtemp(prefix="cd-pod-", dir="/tmp")
        self.mounted, self.containers, self.listeners = [], [], []
        self.ending = threading.Lock()
        self.over, self.starved, self.lost = threading.Event(), threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def say(self, **status):
        """A change of the pod's status, as long as it is not over."""
        with self.pods.store.changed:
            if self.lost.is_set() or self.pod["status"].get("phase") in ("Failed", "Succeeded") or self.name not in self.pods.store.objects["pods"]:
                return False
            self.pod["status"].update(status)
            self.pods.store.note("MODIFIED", "pods", self.pod)
            return True

    def fail(self, reason, message):
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message}
        self.say(phase="Failed", reason=reason, message=message, conditions=[disrupted])

    def state(self, container, state, init=False):
        entry = {"name": container["name"], "image": container["image"], "imageID": "", "ready": "running" in state,
                 "restartCount": 0, "state": state}
        return {"initContainerStatuses" if init else "containerStatuses": [entry]}

    def run(self):
        try:
            self.live()
        except Exception as error:  # pylint: disable=broad-except
            if not self.over.is_set():
                self.say(phase="Failed", reason="StandIn", message=str(error)[:500])

    def live(self):
        spec = self.pod["spec"]
        while self.pods.unplaced and not self.over.is_set():
            self.say(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": self.pods.unplaced}])
            time.sleep(0.2)
        self.say(conditions=[{"type": "PodScheduled", "status": "True"}], startTime=now())
        if "activeDeadlineSeconds" in spec:
            late = "Pod was active on the node longer than the specified deadline"
            timer = threading.Timer(spec["activeDeadlineSeconds"], lambda: (self.fail("DeadlineExceeded", late), self.kill()))
            timer.daemon = True
            timer.start()
        volumes = {volume["name"]: self.volume(volume) for volume in spec.get("volumes", [])}
        for container in spec.get("initContainers", []):
            if not self.pull(container, init=True):
                return
            made = self.create(container, volumes)
            self.say(**self.state(container, {"running": {"startedAt": now()}}, init=True))
            docker("start", made)
            code = int(docker("wait", made, limit=600))
            ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": docker("logs", made, check=False)[-500:]}
            docker("rm", "-f", made, check=False)
            failed = {"phase": "Failed"} if code else {}
            self.say(**failed, **self.state(container, {"terminated": ended}, init=True))
            if code:
                return
        container = spec["containers"][0]
        if not self.pull(container, init=False):
            return
        self.say(**self.state(container, {"waiting": {"reason": "ContainerCreating"}}))
        made = self.create(container, volumes)
        watch = self.watch_memory(made)
        try:
            self.work(made, container)
        finally:
            watch.kill()

    def work(self, made, container):
        docker("start", made)
        self.connect(int(docker("inspect", "-f", "{{.State.Pid}}", made)), container)
        self.say(phase="Running", **self.state(container, {"running": {"startedAt": now()}}))
        code = int(docker("wait", made, limit=24 * 3600))
        if self.over.is_set():
            return
        starved = self.starved.wait(0.5) or docker("inspect", "-f", "{{.State.OOMKilled}}", made, check=False) == "true"
        reason = "OOMKilled" if starved else "Completed" if code == 0 else "Error"
        ended = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}}
        self.say(phase="Succeeded" if code == 0 else "Failed", **self.state(container, ended))

    def pull(self, container, init):
        """Whether the image is there: this node reaches no registry."""
        image = container["image"]
        while not self.over.is_set():
            if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0:
                return True
            if container.get("imagePullPolicy") == "Never":
                reasons = [("ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never')]
            else:
                reasons = [("ErrImagePull", f'failed to pull and unpack image "{image}": not found'),
                           ("ImagePullBackOff", f'Back-off pulling image "{image}"')]
            for reason, message in reasons:
                self.say(**self.state(container, {"waiting": {"reason": reason, "message": message}}, init=init))
                time.sleep(0.3)
        return False

    def volume(self, volume):
        path = os.path.join(self.directory, volume["name"])
        os.mkdir(path)
        group = self.pod["spec"]["securityContext"]["fsGroup"]
        if "emptyDir" in volume:
            size = int(amount(volume["emptyDir"]["sizeLimit"]))
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=2777,gid={group},nosuid,nodev", "standin", path], check=True)
            self.mounted.append(path)
            return path
        # No container of a pod starts before what its volumes name is there.
        secret = volume["secret"]
        self.say(**self.state(self.pod["spec"]["containers"][0], {"waiting": {"reason": "PodInitializing"}}))
        while True:
            try:
                found = self.pods.store.get("secrets", secret["secretName"])
                break
            except Exception:  # pylint: disable=broad-except
                if self.over.is_set():
                    raise
                time.sleep(0.2)
        # As a kubelet does: it never comes to a disk.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755,nosuid,nodev", "standin", path], check=True)
        self.mounted.append(path)
        for name, content in found["data"].items():
            file = os.path.join(path, name)
            with open(file, "wb") as target:
                target.write(base64.b64decode(content))
            os.chown(file, 0, group)
            os.chmod(file, secret["defaultMode"])
        return path

    def create(self, container, volumes):
        if self.over.is_set():
            raise RuntimeError("it was deleted meanwhile")
        spec, security = self.pod["spec"], container["securityContext"]
        general, limits = spec["securityContext"], container["resources"]["limits"]
        options = ["--network", "none", "--hostname", spec["hostname"], "--label", f"{LABEL}={self.pods.identity}", "--restart", "no",
                   "--user", f"{general['runAsUser']}:{general['runAsGroup']}", "--workdir", container.get("workingDir", "/"),
                   "--memory", str(int(amount(limits["memory"]))), "--memory-swap", str(int(amount(limits["memory"]))),
                   "--cpus", str(amount(limits["cpu"])), "--no-healthcheck", "--entrypoint", container["command"][0]]
        # As a node's `podPidsLimit`.
        options += ["--pids-limit", "1024"]
        profile = general["seccompProfile"]
        if profile["type"] == "Localhost":
            options.append(f"--security-opt=seccomp={os.path.join(PROFILES, profile['localhostProfile'])}")
        options += [f"--cap-drop={name}" for name in security["capabilities"]["drop"]]
        if security["readOnlyRootFilesystem"]:
            options.append("--read-only")
        if not security["allowPrivilegeEscalation"]:
            options.append("--security-opt=no-new-privileges")
        if "runtimeClassName" in spec:
            options += ["--runtime", spec["runtimeClassName"]]
        for mount in container["volumeMounts"]:
            ending = ":ro" if mount.get("readOnly") else ""
            options += ["-v", f"{volumes[mount['name']]}:{mount['mountPath']}{ending}"]
        made = docker("create", *options, container["image"], *container["command"][1:], *container.get("args", []))
        self.containers.append(made)
        return made

    def watch_memory(self, made):
        """The kernel kills all of a pod's container where it kills in it; an engine of old control groups has to be told."""
        events = subprocess.Popen(["docker", "events", "--filter", f"container={made}", "--filter", "event=oom", "--format", "oom"],
                                  stdout=subprocess.PIPE, text=True)

        def follow():
            for _ in events.stdout:
                self.starved.set()
                docker("kill", made, check=False)

        threading.Thread(target=follow, daemon=True).start()
        return events

    def connect(self, pid, container):
        """Lets the container out to where it wants to go, if the policies do."""
        arguments = container["command"]
        host, _, port = arguments[arguments.index("--worker") + 1].rpartition(":")
        allowed = [
            one["port"]
            for policy in self.pods.store.objects["networkpolicies"].values()
            for rule in policy["spec"].get("egress", [])
            for one in rule.get("ports", [])
        ]
        if int(port) not in allowed:
            return
        # Each worker has its own: its address in pods ends as its address on loopback does.
        target = ("127.0.0." + host.rpartition(".")[2], int(port))
        listener = listen_in(pid, (host, int(port)))
        self.listeners.append(listener)
        threading.Thread(target=forward, args=(listener, target), daemon=True).start()

    def kill(self):
        for made in self.containers:
            docker("kill", made, check=False)

    def end(self, grace):
        # Whoever comes second waits for the first.
        with self.ending:
            if self.directory:
                self.remove(grace)
                self.directory = None

    def remove(self, grace):
        self.over.set()
        # What was just being made is made, and then removed as well.
        for _ in range(2):
            for made in self.containers:
                if grace:
                    docker("stop", "-t", str(grace), made, check=False)
                docker("rm", "-f", "-v", made, check=False)
            self.thread.join(10)
        for listener in self.listeners:
            listener.close()
        for path in self.mounted:
            subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
