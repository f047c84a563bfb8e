#!/usr/bin/env bash
#
# Prints the path of a Python that has packages, from a virtual environment under target/ that is made where it is missing.
#
#   tests/python.sh NAME==VERSION...
#
# It reaches the package registry of pip as that is set up on the machine, once for each list. Whoever asks meanwhile waits.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -gt 0 ] || {
    printf 'usage: tests/python.sh NAME==VERSION...\n' >&2
    exit 2
}
name=$(printf '%s\n' "$@" | sha256sum | cut -c 1-16)
base=${CARGO_TARGET_DIR:-$root/target}/python
mkdir -p "$base"
exec 9>"$base/$name.lock"
flock --wait 300 9
if [ ! -e "$base/$name/whole" ]; then
    {
        # No command shows whether virtual environments can be made: an absent one by the package's name stands for it.
        python3 -c 'import ensurepip, venv' || "$root/deploy/packages.sh" python3 python3-venv
        rm -rf "${base:?}/$name"
        python3 -m venv "$base/$name"
        timeout 300 "$base/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
        touch "$base/$name/whole"
    } >&2
fi
printf '%s\n' "$base/$name/bin/python"
