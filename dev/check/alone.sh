#!/bin/sh
# alone.sh [NAME...]: the core without any system, then with each system alone (or those named): builds it,
# runs the tests that this changes, and trains preset tiny, whose tensors must be those of the full build.
# Works on copies. Environment: CC; QUICK=1: every second system, without its tests. Ends with `N passed, N failed`.
set -u
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin are slow beside other work
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc}
mkdir -p build && tmp=$(mktemp -d build/alone.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
check() { # WHAT STATUS [LOG]
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $1"
        [ -f "${3:-}" ] && tail -n 5 "$3"
    fi
}
data=data/sotu
if [ ! -f $data/tokenizer.model ]; then # any text will do: the builds are compared with each other
    make -s CC="$CC" train_golf || exit 1
    cat train_golf.c golf.h data/prepare.c > "$tmp/train.txt"
    cat test_golf.c > "$tmp/val.txt"
    ./train_golf prepare --out="$tmp/data" --name=code --vocab=1024 --train "$tmp/train.txt" \
        --val "$tmp/val.txt" > /dev/null || exit 1
    data=$tmp/data
fi
copy() { # the sources
    mkdir "$1" && cp -r Makefile train_golf.c golf.h test_golf.c "$1" && mkdir "$1/data" "$1/dev" &&
        cp data/*.[ch] "$1/data" && cp -r dev/systems dev/check dev/bench dev/mpi.h dev/export.h "$1/dev"
}
tensors() { # PROGRAM OUT: checksum of preset tiny's tensors
    "$1" train --preset=tiny --data="$data" --val_tokens=4096 --ckpt_every=0 --out="$2" \
        > "$2.log" 2>&1 && "$1" info "$2/model.golf" | awk 'NF == 9 && $9 ~ /^[0-9a-f]+$/ { print $1, $9 }' | cksum
}
one() { # NAME FLAGS SYSTEM...: a tree of its own with these systems
    name=$1 flags=$2
    shift 2
    dir=$tmp/$name
    copy "$dir"
    { for system; do grep "\"$system.h\"" dev/systems/systems.h; done; } > "$dir/dev/systems/systems.h"
    # shellcheck disable=SC2086
    make -s -C "$dir" CC="$CC" OPT=-O0 $flags > "$dir.log" 2>&1
    check "$name: builds" $? "$dir.log"
    ! grep -q 'warning:' "$dir.log"
    check "$name: without warnings" $? "$dir.log"
    program=$(ls "$dir"/train_golf "$dir"/train_golf_core 2> /dev/null | head -n 1)
    got=$(tensors "$program" "$tmp/run_$name")
    [ -n "$got" ] && [ "$got" = "$want" ]
    check "$name: preset tiny has other bits ($got, not $want)" $? "$tmp/run_$name.log"
    if [ $# -gt 0 ] && [ "${QUICK:-}" ]; then
        : > "$dir.log"
    elif [ $# -gt 0 ]; then
        make -s -C "$dir" CC="$CC" build/tests/systems_float > "$dir.log" 2>&1 &&
            "$dir/build/tests/systems_float" >> "$dir.log" 2>&1
        check "$name: its tests" $? "$dir.log"
    else
        # shellcheck disable=SC2086
        make -s -C "$dir" CC="$CC" $flags test > "$dir.log" 2>&1
        check "$name: make test" $? "$dir.log"
    fi
    ! grep 'warning:' "$dir.log"
    check "$name: its tests without warnings" $? "$dir.log"
    rm -rf "$dir"
    echo "$name: done"
}
copy "$tmp/all"
make -s -C "$tmp/all" CC="$CC" OPT=-O0 || exit 1
want=$(tensors "$tmp/all/train_golf" "$tmp/run_all")
[ -n "$want" ]
check "the full build trains" $? "$tmp/run_all.log"
if [ $# -eq 0 ]; then
    one core CORE=1
    set -- $(sed -n 's/^#include "\([a-z_0-9]*\)\.h".*/\1/p' dev/systems/systems.h |
        awk -v quick="${QUICK:-}" 'quick == "" || NR % 2')
fi
apart() { # a system, beside others
    one "$1" "" "$1" > "$tmp/$1.out"
    echo "$passed $failed" > "$tmp/$1.count"
}
passed_before=$passed failed_before=$failed
passed=0 failed=0
# As many at a time as there are lines in this pipe.
mkfifo "$tmp/slots" && exec 3<> "$tmp/slots" || exit 1
printf '\n\n' >&3
for system; do
    read -r _ <&3
    {
        apart "$system"
        echo >&3
    } &
done
wait
passed=$passed_before failed=$failed_before
for system; do
    cat "$tmp/$system.out"
    read -r p f < "$tmp/$system.count"
    passed=$((passed + p)) failed=$((failed + f))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
