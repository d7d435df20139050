#!/bin/sh
# make fuzz: libFuzzer against everything that reads what others wrote, see fuzz.c. Builds with clang, ASan and
# UBSan, runs the committed corpus, then mutates. What is new goes to build/fuzz/corpus, findings to build/fuzz/findings.
#
#     EACH=60           seconds for each target
#     RUNS=1000000      so many executions for each, instead
#     TARGETS="a b"     some of artifact checkpoint tokenizer charsmap text shards options safetensors
#     PLAIN=1           without sanitizers but optimized: what the targets demand alone, ten times as fast
#     run.sh coverage   lines of the functions of functions.txt that the corpus reaches, see there
#     run.sh merge      the committed corpus again: the fewest files that reach as much as all that was found
set -u
cd "$(dirname "$0")/../.." || exit 1
EACH=${EACH:-60} RUNS=${RUNS:-} CLANG=${CLANG:-clang}
TARGETS=${TARGETS:-artifact checkpoint tokenizer charsmap text shards options safetensors}
FLAGS="-std=gnu11 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra -Wshadow -Wdouble-promotion
    -Wno-unknown-pragmas -Wno-source-uses-openmp -Wno-pass-failed -g1"
out=build/fuzz
mkdir -p $out/findings
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:allocator_may_return_null=1:detect_stack_use_after_return=0"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-}:print_stacktrace=1:halt_on_error=1"
# Files of an input are written and read again: in memory, where the system has such a folder.
[ -d /dev/shm ] && [ -w /dev/shm ] && TMPDIR=/dev/shm
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/golf_fuzz.XXXXXX") && export TMPDIR || exit 1
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 1' HUP INT TERM

command -v "$CLANG" > /dev/null || {
    echo "make fuzz needs clang and its fuzzer, found no $CLANG. Debian: apt-get install clang libclang-rt-14-dev" >&2
    exit 1
}
echo 'int LLVMFuzzerTestOneInput(const char *p, long n); int LLVMFuzzerTestOneInput(const char *p, long n) { return p && n < 0; }' > "$TMPDIR/probe.c"
"$CLANG" -fsanitize=fuzzer,address,undefined "$TMPDIR/probe.c" -o "$TMPDIR/probe" > /dev/null 2>&1 || {
    echo "make fuzz needs clang's fuzzer and sanitizers, which $CLANG ($("$CLANG" --version | head -n 1)) has not. Debian: apt-get install libclang-rt-14-dev" >&2
    exit 1
}

"$CLANG" -march=native -fsanitize=fuzzer "$TMPDIR/probe.c" -o "$TMPDIR/probe" > /dev/null 2>&1 && FLAGS="$FLAGS -march=native"

build() { # PROGRAM FLAGS...: unless it is newer than its sources
    program=$1
    shift
    if [ -x "$program" ] && [ -z "$(find train_golf.c golf.h data dev -maxdepth 3 -name '*.[ch]' -newer "$program")" ] &&
        ! [ dev/fuzz/numbers.txt -nt "$program" ]; then return; fi
    # shellcheck disable=SC2086
    "$CLANG" $FLAGS "$@" dev/fuzz/fuzz.c -o "$program" -lm
}

most() { # TARGET: bytes of an input
    case $1 in
        artifact | safetensors) echo 6000 ;;
        checkpoint) echo 16000 ;;
        tokenizer | charsmap) echo 9000 ;;
        options) echo 4000 ;;
        *) echo 600 ;;
    esac
}

corpus() { # TARGET: where its committed inputs are; what is exported is an artifact
    [ "$1" = safetensors ] && set -- artifact
    mkdir -p "dev/fuzz/corpus/$1" && echo "dev/fuzz/corpus/$1"
}

limits() { # TARGET
    echo "-malloc_limit_mb=200 -rss_limit_mb=1200 -timeout=20 -max_len=$(most "$1") -artifact_prefix=$out/findings/$1-"
}

coverage() {
    build $out/covered -O0 -fsanitize=fuzzer -fprofile-instr-generate -fcoverage-mapping || return 1
    version=$("$CLANG" --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
    cov=llvm-cov-$version data=llvm-profdata-$version
    command -v "$cov" > /dev/null || cov=llvm-cov data=llvm-profdata
    command -v $cov > /dev/null || { echo "make fuzz-coverage needs llvm-cov. Debian: apt-get install llvm" >&2; return 1; }
    passed=0 failed=0
    for target in $TARGETS; do
        # shellcheck disable=SC2046
        GOLF_FUZZ=$target LLVM_PROFILE_FILE=$out/$target.profraw $out/covered $(limits "$target") -runs=0 "$(corpus "$target")" \
            > "$out/$target.log" 2>&1 || { tail -n 20 "$out/$target.log"; return 1; }
        $data merge -o "$out/$target.profdata" "$out/$target.profraw" || return 1
        $cov report $out/covered "-instr-profile=$out/$target.profdata" -show-functions train_golf.c data/tokenizer.h dev/export.h \
            dev/systems/*.h > "$out/$target.functions" || return 1
        awk -v target="$target" -v least="${LEAST:-90}" -v missed="${MISSED:-}" '
            NR == FNR { if ($1 == target ":") for (i = 2; i <= NF; i++) wanted[$i] = 1; next }
            NF >= 7 && $5 ~ /^[0-9]+$/ {
                name = $1; sub(/.*:/, "", name)
                if (!(name in wanted)) next
                seen[name] = 1; lines += $5; miss += $6; n++
                if (missed && $6) printf "    %-24s %3d of %3d lines missed\n", name, $6, $5
            }
            END {
                for (name in wanted) if (!(name in seen)) { printf "%s: no function %s\n", target, name; bad = 1 }
                share = lines ? 100 * (lines - miss) / lines : 0
                printf "%-12s %3d functions, %4d lines, %5.1f %% reached by the corpus\n", target, n, lines, share
                exit bad || share < least
            }' dev/fuzz/functions.txt "$out/$target.functions" && passed=$((passed + 1)) || failed=$((failed + 1))
    done
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ]
}

merge() {
    for target in $TARGETS; do
        [ "$target" = safetensors ] && continue
        rm -rf "$out/merged/$target" && mkdir -p "$out/merged/$target" "$out/corpus/$target"
        # shellcheck disable=SC2046
        GOLF_FUZZ=$target $program $(limits "$target") -set_cover_merge=1 -use_counters=0 "$out/merged/$target" "$(corpus "$target")" \
            "$out/corpus/$target" > "$out/$target.log" 2>&1 || { tail -n 20 "$out/$target.log"; return 1; }
        rm -rf "dev/fuzz/corpus/$target" && cp -r "$out/merged/$target" "dev/fuzz/corpus/$target"
        echo "$target: $(find "dev/fuzz/corpus/$target" -type f | wc -l) files, $(cat "dev/fuzz/corpus/$target"/* | wc -c) bytes"
    done
}

if [ "${1:-}" = coverage ]; then
    coverage
    exit
fi
# Optimized, sanitizers take minutes to build; without, the program is built in seconds.
program=$out/fuzz
if [ -n "${PLAIN:-}" ]; then
    program=$out/plain
    build $program -O1 -fsanitize=fuzzer || exit 1
else
    build $program -O0 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fsanitize-ignorelist=dev/fuzz/numbers.txt || exit 1
fi
if [ "${1:-}" = merge ]; then
    merge
    exit
fi

passed=0 failed=0
for target in $TARGETS; do
    mkdir -p "$out/corpus/$target"
    before=$(ls $out/findings | wc -l)
    long="-max_total_time=$EACH"
    [ -n "$RUNS" ] && long="-runs=$RUNS"
    # shellcheck disable=SC2046
    GOLF_FUZZ=$target $program $(limits "$target") "$long" -print_final_stats=1 "$out/corpus/$target" "$(corpus "$target")" \
        > "$out/$target.log" 2>&1
    status=$? n=$(($(ls $out/findings | wc -l) - before))
    runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$out/$target.log")
    if [ $status -eq 0 ] && [ $n -eq 0 ]; then
        passed=$((passed + 1))
        printf '%-12s %9s executions, 0 findings\n' "$target" "$runs"
        continue
    fi
    failed=$((failed + 1))
    found=$(ls -t $out/findings | head -n 1)
    printf '%-12s %9s executions, FOUND something: %s/findings/%s\n' "$target" "${runs:-?}" $out "$found"
    grep -aE '^FINDING|ERROR|runtime error|SUMMARY' "$out/$target.log" | head -n 4
    echo "    again: GOLF_FUZZ=$target $program $out/findings/$found"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
