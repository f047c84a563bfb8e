#!/usr/bin/env bash
#
# Checks that opencode, in its image and sealed as a session seals it, completes turns against the scripted model.
#
#   sandbox-images/opencode/check.sh
#
# It needs Docker, and cargo for the scripted model; it reaches no network and no model provider.
#
# CARGO              the cargo to build with (default cargo)
# STATIC_TARGET_DIR  where static builds are kept (default target/static)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cargo=${CARGO:-cargo}
target_directory=${STATIC_TARGET_DIR:-$root/target/static}

"$root/sandbox-images/build.sh" opencode
cd "$root"
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-C target-feature=+crt-static" "$cargo" build --quiet --release --locked --target "$triple" \
    --target-dir "$target_directory" -p cofferdam-test-support --bin scripted-model

OPENCODE_IMAGE=$("$root/sandbox-images/build.sh" tag-opencode)
SCRIPTED_MODEL=$target_directory/$triple/release/scripted-model
export OPENCODE_IMAGE SCRIPTED_MODEL
exec "$cargo" test --locked -p cofferdam-test-support --test agents -- --ignored --exact \
    opencode::opencode_completes_turns_without_any_network
