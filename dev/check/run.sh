#!/bin/sh
# run.sh PROGRAM...: runs test programs, two at a time, prints what they say in order, and adds up their
# counts: the last line is `N passed, N failed`. A program that ends without its count has failed.
set -u
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin are slow beside other work
tmp=$(mktemp -d "${TMPDIR:-/tmp}/golf_run_XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
printf '%s\n' "$@" | xargs -P 2 -I {} sh -c \
    '"$1" > "$2/$(basename "$1")" 2>&1 || echo "$1: exit status $?" >> "$2/$(basename "$1")"' - {} "$tmp"
for program; do
    echo "== $(basename "$program")"
    cat "$tmp/$(basename "$program")"
done | awk -v programs=$# '{ print }
    / numbers: [0-9]+ passed, [0-9]+ failed$/ { p += $(NF - 3); f += $(NF - 1); ended++ }
    END { f += programs - ended; printf "%d passed, %d failed\n", p, f; exit f > 0 }'
