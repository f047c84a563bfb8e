#!/usr/bin/env bash
#
# Builds sandbox images and drives a whole session with each agent in its own: a real worker, a real sandbox, the test forge, and the scripted
# model in the provider's place. What is configured is the entry in NAME/README.md. It reaches no forge and no model provider.
#
#   sandbox-images/check.sh [--seconds N] [--remove] [NAME...]      (default: all of `build.sh list`)
#
#   --seconds N   begins no further image N seconds after the start, and says which it left out; the first is always taken
#   --remove      removes the images that were not there before
#
# It needs Docker, the static `inside` (sandbox-images/static.sh; COFFERDAM_TEST_INSIDE names another) and cargo (CARGO, default cargo).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
seconds='' remove=false names=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2:?} && shift ;;
    --remove) remove=true ;;
    -*) sed -n '6,9s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    *) names+=("$1") ;;
    esac
    shift
done
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(sandbox-images/build.sh list)

say() { printf 'check.sh: %s\n' "$*"; }
is_present() { docker image inspect "$1" >/dev/null 2>&1; }

made=()
finish() {
    local tag
    $remove || return 0
    for tag in "${made[@]}"; do
        if is_present "$tag"; then docker image rm "$tag" >/dev/null && say "removed $tag" || true; fi
    done
}
trap finish EXIT

code=0 tests=() left=()
node=$(sandbox-images/build.sh tag node)
is_present "$node" || made+=("$node")
for name in "${names[@]}"; do
    if [ -n "$seconds" ] && [ ${#tests[@]} -gt 0 ] && [ "$SECONDS" -ge "$seconds" ]; then
        left+=("$name")
        continue
    fi
    tag=$(sandbox-images/build.sh tag "$name")
    # Before the image that it is built on, which is removed last.
    is_present "$tag" || made=("$tag" "${made[@]}")
    if sandbox-images/build.sh "$name"; then
        say "$tag: $(($(docker image inspect --format '{{.Size}}' "$tag") / 1000000)) MB"
        tests+=("real_agents::$name")
    else
        code=1
    fi
done
if [ ${#tests[@]} -gt 0 ]; then
    "${CARGO:-cargo}" test --locked --workspace --test path -- --include-ignored "${tests[@]}" || code=1
fi
[ ${#left[@]} -eq 0 ] || say "not checked, for lack of time: ${left[*]}"
exit "$code"
