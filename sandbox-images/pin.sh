#!/usr/bin/env bash
#
# Writes sandbox-images/NAME/package-lock.json anew from the versions in its package.json: what build.sh installs, with digests.
#
#   sandbox-images/pin.sh NAME...        after a version in NAME/package.json was changed
#
# Kept is what npm installs on this machine, a linux-x64 one with glibc; the addresses of the registry are left out. Look at the difference before
# you commit it: whoever takes a new version takes whatever its authors put in.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -gt 0 ] || { sed -n '3,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
"$here/../deploy/packages.sh" npm jq

# shellcheck disable=SC2016 # These are jq's variables.
{
    # Platforms are lists that may also say what is excluded: ["!win32"].
    fitting='
        def fits(list; value): (list // []) as $list | ($list | length == 0)
            or ($list | index(value)) != null or ($list | all(startswith("!")) and (index("!" + value) == null));
        .packages | map_values(select(fits(.os; "linux") and fits(.cpu; "x64") and fits(.libc; "glibc"))) | keys'
    # Only these packages, and no wish for an optional one that is not among them.
    only='
        .packages |= with_entries(select(.key as $key | $kept | index($key)))
        | ($kept | map(sub("^.*node_modules/"; ""))) as $names
        | .packages |= map_values(if .optionalDependencies then
            .optionalDependencies |= with_entries(select(.key as $name | $names | index($name))) else . end)'
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in "$@"; do
    [ -f "$here/$name/package.json" ] || { printf 'pin.sh: there is no %s/package.json\n' "$name" >&2; exit 1; }
    scratch=$work/$name
    mkdir "$scratch"
    cp "$here/$name/package.json" "$scratch/"
    (cd "$scratch" && npm install --package-lock-only --ignore-scripts --no-audit --no-fund --silent \
        --omit-lockfile-registry-resolved)
    keep() { jq --argjson kept "$1" "$only" "$scratch/package-lock.json" >"$scratch/kept.json" && mv "$scratch/kept.json" "$scratch/package-lock.json"; }
    keep "$(jq "$fitting" "$scratch/package-lock.json")"
    # Some are optional and fit nowhere near here for reasons that only npm knows.
    (cd "$scratch" && npm ci --ignore-scripts --no-audit --no-fund --omit=dev --silent)
    keep "$(jq -r '.packages | keys[]' "$scratch/package-lock.json" | while IFS= read -r path; do
        [ ! -e "$scratch/$path/package.json" ] || printf '%s\n' "$path"
    done | jq -Rn '[inputs]')"
    # What has no digest could be anything.
    jq -e '[.packages | to_entries[] | select(.key != "" and (.value.integrity == null))] == []' "$scratch/package-lock.json" >/dev/null || {
        printf 'pin.sh: %s: a package has no digest\n' "$name" >&2
        exit 1
    }
    mv "$scratch/package-lock.json" "$here/$name/package-lock.json"
done
