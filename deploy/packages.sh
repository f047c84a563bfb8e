#!/usr/bin/env bash
#
# Installs the distribution's packages for commands that are missing on this machine, and says which.
#
#   deploy/packages.sh COMMAND[=PACKAGE[,PACKAGE]]...     for example: deploy/packages.sh git cc=gcc,libc6-dev
#
# It does nothing when every command is there. It needs root or sudo otherwise, and apt-get: on other systems it names what to
# install and fails. It removes nothing and adds no package source.
set -euo pipefail

say() { printf 'packages.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

missing=()
for wanted in "$@"; do
    if ! command -v "${wanted%%=*}" >/dev/null; then
        IFS=, read -r -a packages <<<"${wanted#*=}"
        missing+=("${packages[@]}")
    fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || die "missing: ${missing[*]}; there is no apt-get here, so install them by hand"
as_root=(env)
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "missing: ${missing[*]}; run as root: apt-get install ${missing[*]}"
    as_root=(sudo env)
fi
say "installing from the distribution: ${missing[*]}"
"${as_root[@]}" apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
"${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
    "${missing[@]}" </dev/null >&2 || die "could not install ${missing[*]}"
