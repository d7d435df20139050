#!/bin/sh
# compilers.sh (make compilers): every gcc and clang of Debian 12, musl, -std=c11 -pedantic, and cross compilers of
# other machines under qemu-user: each builds the program and tests without a warning, gives the recorded bits
# (selftest), and passes tests of numbers (kernels), of files and of the model. Ends with a table, compiler x what
# is right, and `N passed, N failed`. What is not installed is skipped by name.
#
# Environment: BUILDS=pattern, a regular expression: only some. Debian: gcc-11 gcc-12 clang-13 clang-14 clang-15
# clang-16 clang-19 clang-22 libomp-dev musl-tools qemu-user gcc-arm-linux-gnueabihf gcc-aarch64-linux-gnu
# gcc-riscv64-linux-gnu gcc-i686-linux-gnu, with libc6-dev-{armhf,arm64,riscv64,i386}-cross.
# Further compilers (gcc-9, clang-11, ...) are used where they are. clang has OpenMP where its own libomp-N-dev is.
set -u
cd "$(dirname "$0")/../.." || exit 1
mkdir -p build && tmp=$(mktemp -d build/compilers.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin are slow beside other work
builds=${BUILDS:-} passed=0 failed=0 not_here=''

verdict() { # WHAT STATUS LOG: a cell of the table
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        row="$row ok"
        return
    fi
    failed=$((failed + 1))
    row="$row FAILED"
    echo "FAILED $name: $1"
    grep -aE 'warning|error|FAILED|DIFFERS' "$3" | head -n 5
    tail -n 2 "$3"
}

# Tests by their names: all of them take minutes in an emulator.
run_tests() { # PROGRAM PATTERN...
    program=$1
    shift
    : > "$tmp/log"
    [ -x "$tmp/$name/$program" ] || return 1
    for pattern; do
        GOLF_TEST_ONLY=$pattern GOLF_CORRUPT=${GOLF_CORRUPT:-100} $run "$tmp/$name/$program" >> "$tmp/log" 2>&1 || return 1
    done
}

build() { # NAME RUN COMPILER VARIABLES OF MAKE...
    name=$1 run=$2 compiler=$3 row='' facts=''
    shift 3
    echo "$name" | grep -qE -e "$builds" || return 0
    if ! command -v "$compiler" > /dev/null || { [ "$run" ] && ! command -v "${run%% *}" > /dev/null; }; then
        not_here="$not_here $name"
        return 0
    fi
    dir=$tmp/$name
    mkdir "$dir"
    # The Makefile's own rules and flags, but for where the programs are.
    make -s CC="$compiler" PROGRAM="$dir/train_golf" TESTS="$dir" "$@" "$dir/train_golf" "$dir/kernels_float" \
        "$dir/files_float" "$dir/golf_float" > "$tmp/build" 2>&1
    verdict "does not build" $? "$tmp/build"
    ! grep -v 'SLOW' "$tmp/build" | grep . > "$tmp/log"
    verdict "warnings" $? "$tmp/log"
    if [ -x "$dir/train_golf" ]; then
        $run "$dir/train_golf" selftest > "$tmp/selftest" 2>&1
        verdict "selftest" $? "$tmp/selftest"
        facts=$(sed -n 's/^machine   \([^,]*\), .*, \([0-9]*\) threads$/\1, threads: \2/p' "$tmp/selftest")
        kernels=$all_kernels model=$all_model
        if [ "$run" ] || grep -q 'emulated multiply-adds' "$tmp/selftest"; then kernels=$few_kernels model=$few_model; fi
        # shellcheck disable=SC2086
        run_tests kernels_float $kernels
        verdict "kernels" $? "$tmp/log"
        # shellcheck disable=SC2086
        run_tests files_float $files
        verdict "files" $? "$tmp/log"
        # shellcheck disable=SC2086
        run_tests golf_float $model
        verdict "golf" $? "$tmp/log"
    fi
    printf '%-18s %s  %s\n' "$name" "$row" "$facts" >> "$tmp/table"
    tail -n 1 "$tmp/table"
    rm -rf "$dir"
}

: > "$tmp/table"
all_kernels='bits bf16 randomness exp functions rounding order gemm muon gradients coder'
all_model='RMSNorm layers RoPE attention cross quantizers straight AdamW Muon schedules export cached threads'
few_kernels='bits bf16 randomness exp functions rounding order operand codes coder' # where all is slow
few_model='RMSNorm layers RoPE quantizers AdamW schedules export'
files='artifact export options checkpoint corruption ledger memory squeeze own fit'
for version in 9 10 11 12 13 14 15; do build gcc-$version '' gcc-$version; done
for version in 11 12 13 14 15 16 17 18; do build clang-$version '' clang-$version; done
# What clang 19 makes of -march=native warns of itself on processors with AVX10.
for version in 19 20 21 22; do build clang-$version '' clang-$version CFLAGS=-Wno-invalid-feature-combination; done
build gcc-portable '' gcc NO_OMP=1 MARCH= OPT=-O2
build musl '' musl-gcc NO_OMP=1
# To a strict c11 nothing but the names of POSIX is added.
build c11-gcc '' gcc CFLAGS='-std=c11 -pedantic -D_DEFAULT_SOURCE'
build c11-clang '' clang CFLAGS='-std=c11 -pedantic -D_DEFAULT_SOURCE'
# Other machines, two of 32 bits; what runs in an emulator is static. Without multiply-adds, which are then made of
# doubles, an emulator takes minutes: i686 has none, armhf is that of ARMv7 with them, but without NEON's vectors, which
# make small numbers 0.
build i686 '' i686-linux-gnu-gcc NO_OMP=1 MARCH='-msse2 -mfpmath=sse' CFLAGS=-static
build armhf qemu-arm arm-linux-gnueabihf-gcc NO_OMP=1 MARCH='-march=armv7-a+vfpv4' CFLAGS=-static OPT=-O2
build aarch64 qemu-aarch64 aarch64-linux-gnu-gcc NO_OMP=1 MARCH= CFLAGS=-static OPT=-O2
build riscv64 qemu-riscv64 riscv64-linux-gnu-gcc NO_OMP=1 MARCH= CFLAGS=-static OPT=-O2

echo
printf '%-18s  %s\n' compiler 'builds, no warnings, selftest, kernels, files, golf'
cat "$tmp/table"
[ -z "$not_here" ] || echo "skipped, not here:$not_here"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
