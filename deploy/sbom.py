"""Writes what an image of deploy/image.sh holds, as CycloneDX 1.6 in JSON: the distribution's packages, and the crates of its programs.

It lists what it is given (the output of dpkg-query and of cargo metadata) and asks nobody. Crates are those that cargo resolves for the
programs' normal dependencies on this platform; which of their features are compiled in is not told.
"""

import argparse
import json
import pathlib
import urllib.parse

PROGRAMS = ("cofferdam", "cofferdam-inside")


def debian(path):
    for line in pathlib.Path(path).read_text().splitlines():
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{name}@{urllib.parse.quote(version, safe='')}?arch={architecture}&distro=debian-12"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def crates(path):
    """The crates below our programs, each with those that it needs."""
    metadata = json.loads(pathlib.Path(path).read_text())
    packages = {one["id"]: one for one in metadata["packages"]}
    nodes = {one["id"]: one for one in metadata["resolve"]["nodes"]}
    waiting = [one["id"] for one in metadata["packages"] if one["name"] in PROGRAMS and one["source"] is None]
    needs = {}
    while waiting:
        crate = waiting.pop()
        if crate in needs:
            continue
        normal = (one for one in nodes[crate]["deps"] if any(kind["kind"] is None for kind in one["dep_kinds"]))
        needs[crate] = [one["pkg"] for one in normal]
        waiting.extend(needs[crate])
    purl = {one: f"pkg:cargo/{packages[one]['name']}@{packages[one]['version']}" for one in needs}
    for one in sorted(needs, key=purl.get):
        package = packages[one]
        component = {
            "type": "application" if package["name"] in PROGRAMS else "library",
            "bom-ref": purl[one],
            "name": package["name"],
            "version": package["version"],
            "purl": purl[one],
        }
        if package.get("license"):
            component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        yield component, {"ref": purl[one], "dependsOn": sorted({purl[other] for other in needs[one]})}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--name", required=True)
    arguments.add_argument("--version", required=True)
    arguments.add_argument("--image-id", required=True)
    arguments.add_argument("--packages", required=True, help="lines of name, version, architecture")
    arguments.add_argument("--metadata", help="the output of cargo metadata")
    given = arguments.parse_args()
    found = list(crates(given.metadata)) if given.metadata else []
    print(
        json.dumps(
            {
                "bomFormat": "CycloneDX",
                "specVersion": "1.6",
                "version": 1,
                "metadata": {
                    "component": {
                        "type": "container",
                        "bom-ref": given.image_id,
                        "name": given.name,
                        "version": given.version,
                    }
                },
                "components": [component for component, _ in found] + list(debian(given.packages)),
                "dependencies": [needs for _, needs in found],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
