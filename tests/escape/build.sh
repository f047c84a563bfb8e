#!/usr/bin/env bash
#
# Builds cofferdam/sandbox-escape:test: the base image, the program that tries to get out, and a copy of it that is root's with the setuid bit.
#
#   tests/escape/build.sh
#
# An image whose inputs have not changed is left as it is. It never pushes an image anywhere.
#
# CARGO and STATIC_TARGET_DIR are those of sandbox-images/static.sh; ESCAPE_TAG is another name for the image.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tag=${ESCAPE_TAG:-cofferdam/sandbox-escape:test}
base_tag=cofferdam/sandbox-base:12
label=io.cofferdam.inputs

exec 9>"${TMPDIR:-/tmp}/cofferdam-escape-image.lock"
flock -w 1200 9 || {
    printf 'build.sh: another build of this image is still under way\n' >&2
    exit 1
}

"$root/sandbox-images/build.sh" base 9>&-
binary=$("$root/sandbox-images/static.sh" cofferdam-escape escape 9>&-)

hash=$({
    cat "${BASH_SOURCE[0]}" "$here/Dockerfile" "$binary"
    docker image inspect --format '{{.Id}}' "$base_tag"
} | sha256sum | cut -d' ' -f1)
current=$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$tag" 2>/dev/null || true)
if [ "$current" = "$hash" ]; then
    printf 'build.sh: %s is current\n' "$tag" >&2
    exit 0
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
install -m 0755 "$binary" "$context/escape"
# The mode comes from here, so that the build runs no program.
install -m 4755 "$binary" "$context/escape-setuid"
printf 'build.sh: building %s\n' "$tag" >&2
docker build --quiet --network none --build-arg "BASE=$base_tag" --label "$label=$hash" --tag "$tag" \
    --file "$here/Dockerfile" "$context" >/dev/null
