#!/usr/bin/env bash
#
# Lets another implementation of age seal, and `cofferdam` open: pyrage (a library of another language's world), and the age command where the
# machine has it. Prints `ok CLIENT: what` or `FAILED CLIENT: what` for each; exits with 1 if any failed. Reaches no forge: what was opened is told
# by which refusal comes.
#
#   tests/judges/seal.sh COFFERDAM PYTHON
set -uo pipefail
cofferdam=$1
python=$2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cofferdam-seal.XXXXXX") || exit 70
trap 'rm -rf "$scratch"' EXIT
failed=0

"$cofferdam" keygen -o "$scratch/key" >"$scratch/to" || exit 1
to=$(cat "$scratch/to")
# Nobody listens on port 1 of loopback.
url=http://127.0.0.1:1

# judge NAME SEALED URL WANTED: whether `connection check` says the wanted word of a credential that is sealed for that forge.
judge() {
    jq -rn --arg sealed "$2" --arg url "$3" --arg key "$scratch/key" '
        "[credentials]\nidentities = [\($key | tojson)]\n[forge]\nallow_http = true\n[connections.lab]\nforge = \"gitlab\"\nurl = \($url | tojson)\ncredential = { sealed = \($sealed | tojson) }"
    ' >"$scratch/config.toml"
    local said
    said=$("$cofferdam" -c "$scratch/config.toml" connection check 2>&1)
    if grep -q -- "$4" <<<"$said"; then
        printf 'ok %s: %s\n' "$1" "$4"
    else
        printf 'FAILED %s: %s, but: %s\n' "$1" "$4" "$said"
        failed=$((failed + 1))
    fi
}

content=$(jq -nc --arg url "$url" '{token: "judge-token", url: $url}')
for armored in True False; do
    sealed=$("$python" -c '
import base64, sys, pyrage
to = pyrage.x25519.Recipient.from_str(sys.argv[1])
armored = sys.argv[2] == "True"
sealed = pyrage.encrypt(sys.stdin.read().encode(), [to], armored=armored)
print(sealed.decode() if armored else base64.b64encode(sealed).decode())
' "$to" "$armored" <<<"$content") || failed=$((failed + 1))
    judge "pyrage (armored: $armored)" "$sealed" "$url" 'cannot be reached'
    judge "pyrage (armored: $armored)" "$sealed" http://127.0.0.1:2 'another forge address'
done
# And the other way: what cofferdam sealed, they open.
sealed=$(printf judge-token | "$cofferdam" seal --to "$to" --any-url)
opened=$("$python" -c '
import sys, pyrage
key = [line for line in open(sys.argv[1]) if line.startswith("AGE-")][0].strip()
print(pyrage.decrypt(sys.stdin.read().encode(), [pyrage.x25519.Identity.from_str(key)]).decode())
' "$scratch/key" <<<"$sealed")
if [ "$opened" = judge-token ]; then printf 'ok pyrage: opens what cofferdam sealed\n'; else
    printf 'FAILED pyrage: opens what cofferdam sealed\n'
    failed=$((failed + 1))
fi
if command -v age >/dev/null; then
    sealed=$(printf %s "$content" | age -a -r "$to")
    judge 'age command' "$sealed" "$url" 'cannot be reached'
    judge 'age command' "$sealed" http://127.0.0.1:2 'another forge address'
    opened=$(printf judge-token | "$cofferdam" seal --to "$to" --any-url | age -d -i "$scratch/key")
    if [ "$opened" = judge-token ]; then printf 'ok age command: opens what cofferdam sealed\n'; else
        printf 'FAILED age command: opens what cofferdam sealed\n'
        failed=$((failed + 1))
    fi
else
    printf 'not judged: the age command is not here (apt-get install age)\n'
fi
[ "$failed" -eq 0 ]
