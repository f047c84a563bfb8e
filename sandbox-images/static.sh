#!/usr/bin/env bash
#
# Builds `inside`, the PID 1 of every sandbox, as one static binary, and prints its path.
#
#   sandbox-images/static.sh                    cofferdam-inside's `inside`
#   sandbox-images/static.sh PACKAGE BINARY     another static binary of this workspace, for an image
#
# CARGO                  the cargo to build with (default cargo)
# STATIC_TARGET_DIR      where static builds are kept (default target/static: apart, or they and the ordinary build, whose flags
#                        differ, would undo each other's work)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target_directory=${STATIC_TARGET_DIR:-${CARGO_TARGET_DIR:-$root/target}/static}
package=${1:-cofferdam-inside}
binary=${2:-inside}

# rustup chooses the toolchain by the current directory.
cd "$root"
triple=$(rustc -vV | sed -n 's/^host: //p')
printf 'static.sh: building %s for %s\n' "$binary" "$triple" >&2
# The target is named, or the flags would reach build scripts and macros too, which cannot be linked statically.
RUSTFLAGS="-C target-feature=+crt-static" "${CARGO:-cargo}" build --quiet --release --locked --target "$triple" \
    --target-dir "$target_directory" -p "$package" --bin "$binary" >&2
printf '%s\n' "$target_directory/$triple/release/$binary"
