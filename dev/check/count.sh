#!/bin/sh
# count.sh FILE...: shows what test programs said and adds up their counts: the last line is
# `N passed, N failed`. A program that ended without its count has failed.
set -u
for file; do
    echo "== $(basename "$file" .said)"
    cat "$file"
done | awk -v programs=$# '{ print }
    / numbers: [0-9]+ passed, [0-9]+ failed$/ { p += $(NF - 3); f += $(NF - 1); ended++ }
    END { f += programs - ended; printf "%d passed, %d failed\n", p, f; exit f > 0 }'
