"""Lets jsonschema judge the contract: every schema against the metaschema, and bodies against the schemas.

usage: contract.py DIRECTORY [KIND:FILE]...     (a file has one JSON document a line, or is one)

Each body must be valid, and must not be any more after each of some small harms; a check that never refuses would show nothing.
Prints a line for each check and exits with 1 if any failed.
"""
import copy
import json
import sys
from pathlib import Path

from jsonschema import Draft202012Validator as Validator
from jsonschema.exceptions import SchemaError

failed = 0


def check(what, good, more=""):
    global failed
    print(f"{'ok' if good else 'FAILED'} jsonschema: {what}{'' if good else f': {more}'}")
    failed += not good


def is_schema(schema):
    try:
        Validator.check_schema(schema)
    except SchemaError as error:
        return False, error.message
    return True, ""


def bodies(path):
    text = Path(path).read_text()
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def harmed(kind, body):
    """The body with one harm each: what a version 1 does not allow."""

    def one(name, change):
        other = copy.deepcopy(body)
        change(other)
        return name, other

    if kind == "event":
        yield one("no id", lambda event: event.pop("id"))
        yield one("another kind", lambda event: event["data"].update(event="danced"))
        yield one("seq in words", lambda event: event["data"].update(seq="one"))
        yield one("no attempt", lambda event: event["data"].pop("attempt"))
        if body["data"]["event"] == "finished":
            yield one("a result of its own", lambda event: event["data"]["outcome"].update(result="maybe"))
            yield one("no reason", lambda event: event["data"]["outcome"].pop("reason"))
    elif kind in ("task", "control"):
        yield one("version 2", lambda message: message.update(version=2))
        yield one("an unknown field", lambda message: message.update(colour="red"))
        required = {"task": ["prompt", "session", "projects", "connections"], "control": ["id", "kind"]}[kind]
        for name in ["version", *required]:
            yield one(f"no {name}", lambda message, name=name: message.pop(name))
        if kind == "task":
            yield one("a credential in a wrong place", lambda task: next(iter(task["connections"].values())).update(credential="x"))
            yield one("an empty prompt", lambda task: task.update(prompt=""))
        else:
            yield one("another kind", lambda message: message.update(kind="dance"))
    else:
        yield one("an unknown key", lambda config: config.update(concurency=1))
        yield one("a number in words", lambda config: config.update(concurrency="four"))


directory, rest = Path(sys.argv[1]), sys.argv[2:]
schemas = {kind: json.loads((directory / f"{kind}.json").read_text()) for kind in ("task", "control", "event", "config")}
for kind, schema in schemas.items():
    good, why = is_schema(schema)
    check(f"{kind} is a schema", good, why)
    check(f"{kind} names its metaschema", schema.get("$schema") == Validator.META_SCHEMA["$id"])
    for name, harm in [("a type that is none", {"type": "strnig"}), ("required as a word", {"required": "version"})]:
        check(f"{kind} with {name} is no schema", not is_schema({**schema, **harm})[0])

kinds = set()
for argument in rest:
    kind, path = argument.split(":", 1)
    validator = Validator(schemas[kind], format_checker=Validator.FORMAT_CHECKER)
    found = bodies(path)
    check(f"{path} is not empty", bool(found))
    wrong = [f"{next(validator.iter_errors(body)).message[:300]} in {str(body)[:300]}" for body in found if not validator.is_valid(body)]
    check(f"{len(found)} of {kind} are valid", not wrong, wrong[:3])
    # Once for each kind of event is enough.
    for body in {(body.get("data", {}).get("event", "") or body.get("kind", "")): body for body in found}.values():
        taken = [name for name, other in harmed(kind, body) if validator.is_valid(other)]
        check(f"{kind} {body.get('data', {}).get('event', '')} with a harm is refused", not taken, taken)
    kinds |= {body["data"]["event"] for body in found if kind == "event"}
if kinds:
    print(f"kinds of events seen: {', '.join(sorted(kinds))}")
sys.exit(1 if failed else 0)
