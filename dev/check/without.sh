#!/bin/sh
# without.sh [NAME...]: what a reader may do with any system: delete its line from dev/systems/systems.h, then
# `make test`. On copies; all systems, or those named. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
mkdir -p build && tmp=$(mktemp -d build/without.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
[ $# -gt 0 ] || set -- $(sed -n 's/^#include "\([a-z_0-9]*\)\.h".*/\1/p' dev/systems/systems.h)
passed=0 failed=0
mkdir "$tmp/data" "$tmp/dev"
cp -r Makefile train_golf.c golf.h test_golf.c "$tmp"
cp data/*.[ch] "$tmp/data"
cp -r dev/systems dev/check dev/bench dev/mpi.h dev/export.h "$tmp/dev"
for name; do
    sed "/\"$name\.h\"/d" dev/systems/systems.h > "$tmp/dev/systems/systems.h"
    if make -s -C "$tmp" -B CC="${CC:-cc}" test > "$tmp/log" 2>&1 && ! grep 'warning:' "$tmp/log"; then
        passed=$((passed + 1))
        echo "without $name: $(tail -n 1 "$tmp/log")"
    else
        failed=$((failed + 1))
        echo "FAILED without $name:"
        grep -m 5 'FAILED\|error:\|warning:' "$tmp/log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
