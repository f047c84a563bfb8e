"""Validates lists of deploy/image.sh by the CycloneDX project's own library, and looks whether what must be in them is.

    sbom.py WORKER.cdx.json ENGINE.cdx.json
"""

import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

WANTED = {
    "worker": {"pkg:cargo/cofferdam@", "pkg:cargo/cofferdam-inside@", "pkg:cargo/rustls@", "pkg:deb/debian/git@", "pkg:deb/debian/tini@"},
    "engine": {"pkg:deb/debian/docker.io@", "pkg:deb/debian/rootlesskit@", "pkg:deb/debian/runc@"},
}
# What only tests and builds need is in no image.
UNWANTED = {"pkg:cargo/criterion@", "pkg:cargo/proptest@"}


def main():
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    failed = 0
    for path in map(pathlib.Path, sys.argv[1:]):
        name = path.name.split(".")[0]
        text = path.read_text()
        error = validator.validate_str(text)
        bill = json.loads(text)
        purls = [one["purl"] for one in bill["components"]]
        missing = [one for one in WANTED[name] if not any(purl.startswith(one) for purl in purls)]
        surplus = [one for one in UNWANTED if any(purl.startswith(one) for purl in purls)]
        # The library's own word on a list that is none.
        blind = validator.validate_str(json.dumps({**bill, "components": [{"type": "libary", "name": "x"}]})) is None
        if error or missing or surplus or blind or len(purls) != len(set(purls)):
            failed += 1
            print(f"FAILED {path}: {error or ''} missing {missing}, surplus {surplus}, blind: {blind}")
        else:
            print(f"ok: {name}: CycloneDX 1.6, {len(purls)} components")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
