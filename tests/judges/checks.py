"""What the checks of one client share: each prints a line, and the program's exit code says whether any failed.

Never asks anything but the address that it is given.
"""

import sys
import traceback


class Checks:
    def __init__(self, client):
        self.client = client
        self.failed = 0
        self.count = 0

    def __call__(self, what):
        """Decorator: runs the function at once, as one check."""

        def run(function):
            self.count += 1
            try:
                function()
            except Exception:  # whatever a client raises is a finding
                self.failed += 1
                print(f"FAILED {self.client}: {what}", flush=True)
                traceback.print_exc(limit=4)
            else:
                print(f"ok {self.client}: {what}", flush=True)
            return function

        return run

    def end(self):
        # A program that checks nothing must not look well.
        sys.exit(1 if self.failed or self.count == 0 else 0)


def same(have, want):
    if have != want:
        raise AssertionError(f"have {have!r}, want {want!r}")


def raises(kind, code, function):
    try:
        function()
    except kind as error:
        status = getattr(error, "response_code", None) or getattr(error, "status", None)
        status = status or getattr(getattr(error, "response", None), "status_code", None)
        same(status, code)
        return error
    raise AssertionError(f"no {kind.__name__}")
