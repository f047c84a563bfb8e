#!/usr/bin/env python3
"""A whole orchestrator: sends a task, follows it, adds a project, steers it, and prints how it ended.

usage: orchestrator.py TASK.json CONNECTION PATH PROMPT     (pip install pika; the broker's address is in COFFERDAM_AMQP_URL)
"""
import json, os, sys, uuid
import pika

PREFIX = os.environ.get("COFFERDAM_PREFIX", "cofferdam")  # queue.prefix of the workers; TRACE: the session's events and logs have it too
MAILBOX = {"x-expires": 86400000, "x-max-length": 1000, "x-overflow": "reject-publish"}
TRACE = os.environ.get("TRACEPARENT") or f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"
KEPT = pika.BasicProperties(delivery_mode=2, content_type="application/json", headers={"traceparent": TRACE})
path, connection, project, prompt = sys.argv[1:]
task = json.load(open(path))
session = task["session"]

# What no queue takes, and what the broker does not confirm, raises an error.
channel = pika.BlockingConnection(pika.URLParameters(os.environ["COFFERDAM_AMQP_URL"])).channel()
channel.confirm_delivery()

# The events first, so that none is missed; then the mailbox, so that the session can be spoken to from now on; then the task.
events = channel.queue_declare(f"{PREFIX}.follow.{uuid.uuid4()}", exclusive=True).method.queue
channel.queue_bind(events, f"{PREFIX}.events", f"session.{session}.#")
mailbox = f"{PREFIX}.session.{session}.in"
channel.queue_declare(mailbox, durable=True, arguments=MAILBOX)
channel.queue_bind(mailbox, f"{PREFIX}.session.in", session)
channel.basic_publish("", f"{PREFIX}.tasks", json.dumps(task), KEPT, mandatory=True)


def say(kind, **fields):
    message = {"version": 1, "id": str(uuid.uuid4()), "kind": kind, **fields}
    channel.basic_publish(f"{PREFIX}.session.in", session, json.dumps(message), KEPT, mandatory=True)
    return message["id"]


added, newest = None, (0, 0)
for method, properties, body in channel.consume(events):
    event = json.loads(body)["data"]
    channel.basic_ack(method.delivery_tag)
    place = (event["attempt"], event["seq"])
    if event["attempt"] < newest[0] or (place <= newest and event["event"] not in ("finished", "rejected")):
        continue  # a worker that lost the session, or an event that came twice
    newest = place
    if event["event"] == "turn_started" and added is None:
        added = say("add_project", connection=connection, path=project)
    elif event["event"] == "control_answered":
        print("answered:", event["message"])
        if event["in_reply_to"] == added and event["applied"]:
            say("prompt", text=prompt, mode="steer")
    elif event["event"] == "rejected" or (event["event"] == "suspended" and not event["queued"]):
        sys.exit(f"{event['event']}: {event['message']}")
    elif event["event"] == "finished":
        break

outcome = event["outcome"]
print("trace:", (properties.headers or {}).get("traceparent", "-none").split("-")[1])
print(outcome["result"], outcome["reason"])  # decide by the result: it has five words, and there will never be another
for one in outcome["projects"]:
    print(one["project"]["path"], one["reason"], one.get("change_request", {}).get("url", ""))
sys.exit(outcome["result"] != "success")
