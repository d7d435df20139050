#!/bin/sh
# builds.sh: does every build of the program compute the same bits? Each row below is a build; its selftest
# and the arms of golden.tsv must give what is recorded. A build whose compiler or emulator is not here is
# skipped, and named at the end. No build may call a function of the C library that rounds in its own way,
# nor multiply and add at once where that is not written.
#
# Environment: BUILDS=pattern and ARMS=pattern, regular expressions: only some; all arms in all builds take
# hours, most of them in emulators. Debian: gcc-aarch64-linux-gnu gcc-s390x-linux-gnu qemu-user clang libomp-dev.
set -uf
cd "$(dirname "$0")/../.." || exit 1
mkdir -p build && tmp=$(mktemp -d build/builds.XXXXXX) || exit 1 # not TMPDIR: what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" ASAN_OPTIONS=detect_leaks=0
builds=${BUILDS:-} arms=${ARMS:-} passed=0 failed=0 skipped='' not_here=''

verdict() { # WHAT STATUS: counts it; what failed has its reason in $tmp/log
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    echo "FAILED $1"
    grep -vE ' ok$' "$tmp/log" | tail -n 5
}

# A number must not depend on whose exp and log it came from; sqrt, rint, floor, ceil, fmin and fmax are exact.
calls_none() { # PROGRAM, linked dynamically: what it needs of others can be listed
    names='exp|exp2|expm1|log|log2|log10|log1p|pow|sin|cos|tan|sincos|asin|acos|atan|atan2|sinh|cosh|tanh|erf|erfc|cbrt|hypot|fmod|tgamma|lgamma'
    names="$names|setlocale|newlocale" # numbers are read and printed in the C locale
    nm -u "$1" 2> "$tmp/log" | sed 's/^ *U //; s/@.*//; s/^_//' > "$tmp/needs" # macOS: names alone, _ in front
    grep -qx 'fputs' "$tmp/needs" || return 1
    ! grep -xE "($names)f?" "$tmp/needs" > "$tmp/log"
}

# The tokenizer and the shards of a text are those of the first build.
prepares_the_same() { # RUN PROGRAM
    rm -rf "$tmp/data"
    $1 "$2" prepare --out="$tmp/data" --name=text --vocab=512 --train golf.h test_golf.c --val README.md \
        > "$tmp/log" 2>&1 || return 1
    cat "$tmp"/data/tokenizer.model "$tmp"/data/text_train_000000.bin "$tmp"/data/text_val_000000.bin |
        cksum > "$tmp/prepared"
    [ -f "$tmp/prepared.first" ] || cp "$tmp/prepared" "$tmp/prepared.first"
    cmp "$tmp/prepared" "$tmp/prepared.first" >> "$tmp/log" 2>&1
}

run_arms() { # NAME RUN PROGRAM: golden.sh's counts are added
    RUN=$2 GOLF=$3 dev/check/golden.sh "$arms" > "$tmp/log" 2>&1
    grep -vE ' ok$' "$tmp/log" | sed '/^[0-9]* passed/d'
    counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$tmp/log")
    p=${counts% *} f=${counts#* }
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1}))
    printf '%-18s %s of the arms as recorded, %s not\n' "$1" "${p:-none}" "${f:-unknown}"
}

check_program() { # NAME RUN PROGRAM
    $2 "$3" selftest > "$tmp/log" 2>&1
    verdict "$1: selftest" $?
    if [ -z "$2" ]; then # what runs in an emulator is static
        calls_none "$3"
        verdict "$1: calls functions of libm" $?
    fi
    prepares_the_same "$2" "$3"
    verdict "$1: prepare makes other data" $?
    run_arms "$1" "$2" "$3"
}

build() { # NAME RUN COMPILER FLAGS...
    name=$1 run=$2 compiler=$3
    shift 3
    echo "$name" | grep -qE -- "$builds" || return 0
    if ! command -v "$compiler" > /dev/null || { [ "$run" ] && ! command -v "$run" > /dev/null; }; then
        not_here="$not_here $name"
        return 0
    fi
    if ! "$compiler" -std=gnu11 -ffp-contract=off -w "$@" train_golf.c -o "$tmp/golf" -lm > "$tmp/log" 2>&1; then
        verdict "$name: does not compile" 1
        return 0
    fi
    $run "$tmp/golf" help > "$tmp/log" 2>&1
    status=$?
    if [ $status = 132 ]; then # an instruction that is not here
        skipped="$skipped $name"
        return 0
    fi
    if [ $status != 0 ]; then
        verdict "$name: does not start, status $status" 1
        return 0
    fi
    check_program "$name" "$run" "$tmp/golf"
}

if [ -x ./train_golf ] && echo this | grep -qE -- "$builds"; then
    check_program this '' ./train_golf
fi
case $(uname -m) in
    x86_64)
        build gcc-native '' gcc -O3 -march=native -fopenmp
        build gcc-O2-native '' gcc -O2 -march=native -fopenmp
        build clang-native '' clang -O3 -march=native -fopenmp
        build gcc-avx512 '' gcc -O2 -march=skylake-avx512 -fopenmp
        build gcc-fp16 '' gcc -O2 -march=sapphirerapids -fopenmp
        build gcc-avx2 '' gcc -O3 -mavx2 -mfma -fopenmp
        build clang-avx2 '' clang -O2 -mavx2 -mfma -fopenmp
        build gcc-no-threads '' gcc -O2 -march=native
        build gcc-O0-native '' gcc -O0 -march=native
        build gcc-asan '' gcc -O1 -march=native -fopenmp -fsanitize=address,undefined
        build gcc-avx '' gcc -O2 -mavx -fopenmp
        build gcc-plain '' gcc -O3 -fopenmp
        build clang-plain '' clang -O2
        build gcc-O0-plain '' gcc -O0
        build gcc-11-native '' gcc-11 -O3 -march=native -fopenmp
        ;;
    *)
        build gcc-plain '' gcc -O2
        build clang-plain '' clang -O2
        ;;
esac
# As a user might type it, without an option for it: multiply-adds are then kept apart by the source alone.
build gcc-bare '' gcc -O1 -march=native -ffp-contract=fast
build aarch64 qemu-aarch64 aarch64-linux-gnu-gcc -O2 -static
build aarch64-dotprod qemu-aarch64 aarch64-linux-gnu-gcc -O3 -march=armv8.2-a+dotprod -static
build aarch64-fp16 qemu-aarch64 aarch64-linux-gnu-gcc -O2 -march=armv8.2-a+fp16+dotprod -static
build aarch64-bare qemu-aarch64 aarch64-linux-gnu-gcc -O1 -ffp-contract=fast -static
build s390x qemu-s390x s390x-linux-gnu-gcc -O2 -static

[ -z "$skipped" ] || echo "skipped, as this machine cannot run them:$skipped"
[ -z "$not_here" ] || echo "skipped, without a compiler or emulator:$not_here"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
