"""Checks rules, alerts and the dashboard against a running Prometheus that scrapes a running worker.

    check.py PROMETHEUS_URL SCRAPE_FILE [--dashboard FILE] [--runbook FILE] [--tests FILE]

Every expression must be one that Prometheus takes, and every metric, label and label value in it must be in the worker's scrape (or be
recorded by a rule). Every alert must have a heading in the runbook and a test that sees it fire. Prints what is wrong, one a line; exits 1 then.
"""

import argparse
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# Of these the values are seen only once something happened.
OPEN_VALUES = {"cofferdam_forge_requests_total"}
# Every series that was scraped has these.
OF_THE_SCRAPE = {"instance", "job"}
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool", "inf", "nan"}
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", re.I)
NAME = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?")
MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
PLACEHOLDERS = {"$__rate_interval": "1m", "$instance": ".*"}


def selectors(expression):
    """The metrics of an expression with their matchers, and the labels that it groups by."""
    grouped = {label.strip() for _, list_ in GROUPING.findall(expression) for label in list_.split(",") if label.strip()}
    rest = GROUPING.sub(" ", expression)
    found = []
    for match in NAME.finditer(rest):
        name, matchers = match.groups()
        if name.lower() in WORDS or (not matchers and rest[match.end() :].lstrip().startswith("(")):
            continue
        # Inside a matcher's text or a range nothing is a metric.
        before = rest[: match.start()]
        if before.count('"') % 2 or before.count("{") > before.count("}") or before.count("[") > before.count("]"):
            continue
        found.append((name, MATCHER.findall(matchers or "")))
    return found, grouped


class Checker:
    def __init__(self, url, scrape):
        self.url, self.wrong = url, []
        self.labels = {}  # of each metric that there is
        for line in scrape.splitlines():
            match = re.match(r"([a-zA-Z_:][\w:]*)(\{.*\})? ", line)
            if match and not line.startswith("#"):
                self.labels.setdefault(match[1], set()).update(label for label, _, _ in MATCHER.findall(match[2] or ""))
        self.scraped = len(self.labels)
        self.labels["up"] = set()

    def ask(self, path, **parameters):
        query = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(query, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            return json.load(error).get("error", "refused")

    def learn(self, name, expression):
        """What a rule records: its labels are those that it shows, or may show."""
        shown = self.ask("query", query=name)["result"]
        metrics, grouped = selectors(expression)
        by = "without" not in expression and " by " in f" {expression} "
        labels = set(grouped) if by else set().union(*(self.labels.get(metric, set()) for metric, _ in metrics)) - grouped
        self.labels[name] = labels.union(*(set(series["metric"]) for series in shown)) - {"__name__"}

    def expression(self, where, expression, legend=""):
        for placeholder, value in PLACEHOLDERS.items():
            expression = expression.replace(placeholder, value)
        answer = self.ask("query", query=expression)
        if isinstance(answer, str):
            self.wrong.append(f"{where}: {answer}")
            return
        metrics, grouped = selectors(expression)
        if not metrics:
            self.wrong.append(f"{where}: names no metric: {expression}")
        known = set(OF_THE_SCRAPE)
        for metric, matchers in metrics:
            if metric not in self.labels:
                self.wrong.append(f"{where}: there is no metric {metric}")
                continue
            known |= self.labels[metric]
            for label, sign, value in matchers:
                self.matcher(where, metric, label, sign, value)
        used = grouped | set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))
        for label in used - known - {"le"}:
            self.wrong.append(f"{where}: none of its metrics has a label {label}")

    def matcher(self, where, metric, label, sign, value):
        if label not in self.labels[metric] | OF_THE_SCRAPE:
            self.wrong.append(f"{where}: {metric} has no label {label}")
        elif metric not in OPEN_VALUES and metric in self.labels and ":" not in metric and label not in OF_THE_SCRAPE:
            for one in value.split("|") if "~" in sign else [value]:
                if one == "3xx":  # models do not redirect
                    continue
                answer = self.ask("query", query=f'count({metric}{{{label}="{one}"}})')
                if isinstance(answer, str) or not answer["result"]:
                    self.wrong.append(f'{where}: no series of {metric} has {label}="{one}"')


def expressions(dashboard):
    for panel in dashboard["panels"]:
        yield from expressions({"panels": panel.get("panels", [])})
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target.get("legendFormat", "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("scrape", type=Path)
    home = Path(__file__).resolve().parents[2] / "deploy/prometheus"
    for name, file in [("dashboard", "dashboard.json"), ("runbook", "RUNBOOK.md"), ("tests", "tests.yml")]:
        parser.add_argument(f"--{name}", type=Path, default=home / file)
    options = parser.parse_args()
    checker = Checker(options.url, options.scrape.read_text())
    rules = [rule for group in checker.ask("rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["type"] == "recording":
            checker.learn(rule["name"], rule["query"])
    runbook = options.runbook.read_text()
    headings = re.findall(r"^## (\S+)$", runbook, re.M)
    for metric in set(re.findall(r"\bcofferdam_\w+", runbook)) - set(checker.labels):
        checker.wrong.append(f"the runbook names {metric}, which is no metric")
    tests = options.tests.read_text()
    alerts = 0
    for rule in rules:
        name = rule["name"]
        if rule["health"] != "ok":
            checker.wrong.append(f"{name}: {rule['health']} {rule.get('lastError', '')}")
        checker.expression(name, rule["query"])
        if rule["type"] == "recording":
            if not re.search(rf"^ +- expr: {re.escape(name)}$", tests, re.M):
                checker.wrong.append(f"{name}: no test asks for it")
            continue
        alerts += 1
        if name not in headings:
            checker.wrong.append(f"{name}: the runbook has no heading for it")
        if not rule["annotations"].get("runbook", "").endswith(f"#{name.lower()}"):
            checker.wrong.append(f"{name}: its runbook leads elsewhere: {rule['annotations'].get('runbook')}")
        if not re.search(rf"^ +- alertname: {name}\n.*\n +exp_alerts:\n +- exp_labels", tests, re.M):
            checker.wrong.append(f"{name}: no test sees it fire")
    for heading in set(headings) - {rule["name"] for rule in rules}:
        checker.wrong.append(f"the runbook has a heading for {heading}, which is no alert")
    asked = list(expressions(json.loads(options.dashboard.read_text())))
    for title, expression, legend in asked:
        checker.expression(f"dashboard, {title}", expression, legend)
    print(f"{checker.scraped} metrics, {len(rules) - alerts} recording rules, {alerts} alerts, {len(asked)} expressions of the dashboard")
    for line in checker.wrong:
        print(f"WRONG: {line}")
    if not rules or not asked:
        sys.exit("there is nothing to check: are rules and panels there?")
    sys.exit(1 if checker.wrong else 0)


main()
