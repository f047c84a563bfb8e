"""An orchestrator that traces: sends a task with a traceparent, and looks at what became of its trace.

    traced.py run BROKER PREFIX TASK TRACEPARENT     sends the task and follows it to its end; prints the traceparent of each event, one a line
    traced.py spans FILE HEADERS SESSION TRACE PARENT   checks the spans that a collector wrote and what `run` printed
"""

import json
import os
import re
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import amqp  # noqa: E402

HEADERS = re.compile(rb"traceparentS\x00\x00\x00.(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})", re.S)


class Orchestrator(amqp.Connection):
    """Knows one header of messages."""

    last = None

    def content(self):
        _, header = self.read_frame()
        found = HEADERS.search(header)
        self.last = found[1].decode() if found else None
        (size,) = struct.unpack(">Q", header[4:12])
        body = b""
        while len(body) < size:
            body += self.read_frame()[1]
        return body

    def send(self, queue, body, traceparent):
        self.method(1, 60, 40, struct.pack(">H", 0) + amqp.short("") + amqp.short(queue) + b"\0")
        table = amqp.short("traceparent") + b"S" + amqp.long(traceparent.encode())
        # The flags of content type, headers and delivery mode.
        properties = amqp.short("application/json") + amqp.long(table) + bytes([2])
        self.frame(amqp.HEADER, 1, struct.pack(">HHQH", 60, 0, len(body), 0xB000) + properties)
        self.frame(amqp.BODY, 1, body)
        self.expect(60, 80)


def run(broker, prefix, task, traceparent):
    connection = Orchestrator(broker)
    connection.confirm()
    connection.subscribe(f"{prefix}.events", "session.#")
    connection.send(f"{prefix}.tasks", Path(task).read_bytes(), traceparent)
    for event, _ in connection.deliveries(90 * int(os.environ.get("COFFERDAM_TEST_SLOWNESS", "1"))):
        print(connection.last)
        if event["data"]["event"] == "finished":
            if event["data"]["outcome"]["reason"] != "published":
                sys.exit(f"the session ended with {event['data']['outcome']}")
            return


def spans(file, headers, session, trace, parent):
    found = []
    for line in Path(file).read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            names = {one["key"]: one["value"].get("stringValue") for one in resource["resource"]["attributes"]}
            assert names["service.name"] == "cofferdam", names
            for scope in resource["scopeSpans"]:
                found += scope["spans"]
    by_id = {span["spanId"]: span for span in found}
    attributes = {one["spanId"]: {pair["key"]: next(iter(pair["value"].values())) for pair in one.get("attributes", [])} for one in found}
    [root] = [span for span in found if span["name"] == "session"]
    assert root["traceId"] == trace and root["parentSpanId"] == parent, root
    assert attributes[root["spanId"]]["session"] == session, attributes[root["spanId"]]
    own = [span for span in found if span["traceId"] == trace]

    def leads_home(span):
        while span["spanId"] != root["spanId"]:
            span = by_id[span["parentSpanId"]]
        return True

    assert all(leads_home(span) for span in own)
    names = {span["name"] for span in own}
    for stage in ["grant", "mirror", "sandbox", "clone", "turn", "publish", "cleanup"]:
        assert stage in names, (stage, names)
    forges = [span for span in own if "forge" in attributes[span["spanId"]]]
    assert {attributes[span["spanId"]]["forge"] for span in forges} == {"gitlab", "github"}, names
    assert all(int(attributes[span["spanId"]]["status"]) >= 200 for span in forges)
    # Steps begin and end within the session.
    for span in own:
        assert int(root["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]), span
    told = Path(headers).read_text().split()
    assert told and set(told) == {f"00-{trace}-{root['spanId']}-01"}, (set(told), root["spanId"])
    text = Path(file).read_text()
    for secret in ["test-gitlab-api", "test-github-repo", "a.txt"]:
        assert secret not in text, secret
    print(f"{len(own)} spans of the session's trace, {len(forges)} of them requests to forges; {len(told)} events bear it")


{"run": run, "spans": spans}[sys.argv[1]](*sys.argv[2:])
