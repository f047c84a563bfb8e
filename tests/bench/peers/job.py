"""What the usual home-made worker does for one session: a container by the Docker SDK, a full clone over HTTP in it, a change, a commit, a
push, and then the merge request by the forge's API. No mirror, no pool, no walls beyond the container's own.

Both peers run this; they differ in the queue's library alone. Measured by bench.py beside this folder, never shipped.
"""

import functools
import os
import uuid

import docker
import requests

SCRIPT = """
set -e
git clone --quiet "$CLONE" /tmp/work
cd /tmp/work
git config user.name "Ada Example"
git config user.email ada@example.org
git checkout --quiet -b "$BRANCH"
printf 'a note\\n' > note.txt
git add note.txt
git commit --quiet -m "Add a note" -m "Co-authored-by: Scripted Agent <scripted@agents.example>"
git push --quiet origin "$BRANCH"
"""

# One for the process, as everybody does it: connections are kept.
client = functools.cache(docker.from_env)
api = functools.cache(requests.Session)


def session(path):
    """One session over the project of that path; the address of its merge request."""
    forge, token = os.environ["PEER_FORGE"], os.environ["PEER_TOKEN"]
    branch = f"peer-{uuid.uuid4().hex[:12]}"
    clone = forge.replace("http://", f"http://oauth2:{token}@") + f"/{path}.git"
    client().containers.run(
        os.environ["PEER_IMAGE"],
        ["-c", SCRIPT],
        entrypoint="/bin/sh",
        environment={"CLONE": clone, "BRANCH": branch, "HOME": "/tmp"},
        network_mode="host",
        remove=True,
    )
    answer = api().post(
        f"{forge}/api/v4/projects/{path.replace('/', '%2F')}/merge_requests",
        headers={"PRIVATE-TOKEN": token},
        json={"source_branch": branch, "target_branch": "main", "title": "Add a note"},
        timeout=60,
    )
    answer.raise_for_status()
    return answer.json()["web_url"]
