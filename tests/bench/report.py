"""The goals of the benchmark in one table, and how what was measured is told. Measures nothing.

A goal is a bound on a ratio of two things that were measured side by side in one run, or on a figure that a slow machine does not change much.
"""

import statistics
from dataclasses import dataclass, field

QUICK = 1.5  # by how much --quick lets a ratio miss its goal


@dataclass(frozen=True)
class Goal:
    key: str
    name: str
    goal: float
    unit: str = "x"
    least: bool = False  # the value must reach the goal; otherwise it must not pass it
    full: bool = False  # measured by the full form only

    def holds(self, value, allowed):
        return value * allowed >= self.goal if self.least else value <= self.goal * allowed

    @property
    def is_ratio(self):
        return self.unit == "x"


GOALS = [
    Goal("large_celery", "whole session, 28 MB, warm / celery", 0.20, full=True),
    Goal("large_docker", "whole session, 28 MB, warm / docker run", 1.7),
    Goal("small_celery", "whole session, 2 MB, warm / celery", 0.6, full=True),
    Goal("small_docker", "whole session, 2 MB, warm / docker run", 1.2),
    Goal("prompted", "task received -> agent prompted, warm / docker run", 0.5),
    Goal("unpooled_celery", "no warm sandbox, warm mirror, 28 MB / celery", 0.25, full=True),
    Goal("unpooled_docker", "no warm sandbox, warm mirror, 28 MB / docker run", 2.3),
    Goal("cold_celery", "cold: first session of a worker, 28 MB / celery", 0.7, full=True),
    Goal("throughput", "throughput, 4 lanes, 40 sessions, 28 MB / celery", 5, least=True, full=True),
    Goal("per_core", "sessions a minute and core, 4 lanes, 28 MB", 80, "", least=True),
    Goal("clone_git", "clone inside, 28 MB / git clone over HTTP", 0.1),
    Goal("clone_untar", "clone inside, 28 MB / untarring its work tree", 3),
    Goal("clone_cycles", "clone inside after 30 sessions / the first", 1.5, full=True),
    Goal("cpu", "worker CPU a session", 20, " ms"),
    Goal("memory", "worker memory, 100 idle sessions (--quick: 10)", 40, " MB"),
    Goal("overhead", "sandbox overhead of an idle session", 2, " MB"),
    Goal("gateway", "gateway added to a request, median", 1, " ms"),
    Goal("gateway_clone", "clone through the gateway / over git's own server", 1.2),
    Goal("event", "event from agent to subscriber, median", 10, " ms"),
    Goal("growth", "last sessions / first, as finished ones grow", 1.1, full=True),
    Goal("round_trips", "forge waiting on the critical path, 80 ms a request", 6, " round trips"),
    Goal("api_calls", "API calls before the agent starts", 3, ""),
    Goal("git_talks", "git talks before the agent starts", 1, ""),
    Goal("huge_clone", "clone inside, 300 MB / full clone over HTTP", 0.05, full=True),
    Goal("huge_copied", "bytes of a session on disk, 300 MB / its repository", 0.05, full=True),
]


@dataclass
class Report:
    """What was measured, by the keys of the goals."""

    quick: bool
    values: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    def value(self, key, value, note=""):
        if key not in {goal.key for goal in GOALS}:
            raise KeyError(key)
        self.values[key] = value
        self.notes[key] = note

    def table(self):
        """The table of all goals; whether all that must hold does. `--quick` fails for ratios alone, and only where they miss by far."""
        good = True
        print(f"\n{'goal':<54}{'measured':>14}{'goal':>18}   verdict")
        for goal in GOALS:
            bound = f"{'>=' if goal.least else '<='} {goal.goal:g}{goal.unit}"
            if goal.key not in self.values:
                print(f"{goal.name:<54}{'-':>14}{bound:>18}   not measured")
                continue
            value = self.values[goal.key]
            holds = goal.holds(value, 1.0)
            word = "holds" if holds else "MISSED"
            if self.quick and not goal.is_ratio:
                fails = False
            else:
                fails = not goal.holds(value, QUICK if self.quick else 1.0)
            if not holds and not fails:
                word = "missed (no failure of --quick)"
            note = f" ({self.notes[goal.key]})" if self.notes[goal.key] else ""
            print(f"{goal.name:<54}{f'{value:.2f}{goal.unit}':>14}{bound:>18}   {word}{note}")
            good &= not fails
        return good


def head(title):
    print(f"\n{title}\n{'':<54}{'median ms':>10}{'spread':>18}{'ratio':>9}")


def row(name, values, base=None):
    """One line: median, spread, and the ratio to the median of a base. Returns the median."""
    median = statistics.median(values)
    digits = 2 if median < 10 else 0
    spread = f"{min(values):.{digits}f} - {max(values):.{digits}f}"
    ratio = f"{median / base:>9.2f}" if base else ""
    print(f"{name:<54}{median:>10.{digits}f}{spread:>18}{ratio}", flush=True)
    return median
