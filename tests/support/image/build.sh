#!/usr/bin/env bash
#
# Builds cofferdam/sandbox-scripted:test: the base image and the scripted agent, linked statically.
#
#   tests/support/image/build.sh
#
# An image whose inputs have not changed is left as it is; FORCE=1 builds it all the same. It never pushes an image anywhere.
#
# CARGO and STATIC_TARGET_DIR are those of sandbox-images/static.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
tag=cofferdam/sandbox-scripted:test
base_tag=cofferdam/sandbox-base:12
label=io.cofferdam.inputs

say() { printf 'build.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# A build by one caller serves all others that wait for it.
exec 9>"${TMPDIR:-/tmp}/cofferdam-scripted-image.lock"
flock -w 1200 9 || die "another build of this image is still under way"

"$root/sandbox-images/build.sh" base 9>&-

binary=$("$root/sandbox-images/static.sh" cofferdam-test-support scripted-agent 9>&-)

hash=$({
    cat "$here/Dockerfile" "$binary"
    docker image inspect --format '{{.Id}}' "$base_tag"
} | sha256sum | cut -d' ' -f1)
current=$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$tag" 2>/dev/null || true)
if [ "${FORCE:-}" != 1 ] && [ "$current" = "$hash" ]; then
    say "$tag is current"
    exit 0
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
install -m 0755 "$binary" "$context/scripted-agent"
say "building $tag"
docker build --quiet --network none --build-arg "BASE=$base_tag" --label "$label=$hash" --tag "$tag" \
    --file "$here/Dockerfile" "$context" >/dev/null
