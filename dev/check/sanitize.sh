#!/bin/sh
# sanitize.sh tsan|memcheck|integer: the program under a tool that watches every access or every integer.
#
#   tsan      (make tsan) clang's ThreadSanitizer with its OpenMP, whose tool libarcher tells it where threads
#             wait for each other: train, stop, resume, eval, adapt, sample with 2 to 4 threads, and the tests of
#             what threads share. Silent, with the same file for each number of threads.
#   memcheck  (make memcheck) valgrind: train, eval, export, encode, decode, sample read nothing that nobody
#             wrote, and nothing outside. Built for AVX2: valgrind has no AVX-512.
#   integer   clang's -fsanitize=integer over such runs and tests: no integer wraps or loses bits but where that
#             is meant, a list below.
#
# Each proves itself: a fault planted into a copy of the source has to be noticed.
# Environment: CC. Ends with `N passed, N failed`. Debian: clang libomp-dev libclang-rt-14-dev valgrind.
set -u
what=${1:-}
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
die() { echo "sanitize.sh: error: $*" >&2; exit 1; }
mkdir -p build && tmp=$root/$(mktemp -d build/sanitize.XXXXXX) || exit 1 # not TMPDIR: what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
check() { # WHAT STATUS: what failed has its reason in $tmp/said or in the tool's report
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    echo "FAILED $1"
    tail -n 3 "$tmp/said"
    cat "$tmp/report" 2> "$tmp/none" | head -n 30
}
common="-std=gnu11 -ffp-contract=off -w -g -O1"

# ---- what is run: $watch PROGRAM, whose findings are the files $tmp/found.*
compile() { # OUT SOURCE FLAGS...
    out=$1 source=$2
    shift 2
    $CC $common "$@" -o "$out" "$source" -lm > "$tmp/said" 2>&1
}
findings() { # what the tool found since the last time, in $tmp/report; fails where it found something
    find "$tmp" -maxdepth 1 -name 'found.*' -exec cat {} + > "$tmp/report"
    find "$tmp" -maxdepth 1 -name 'found.*' -exec rm {} +
    [ ! -s "$tmp/report" ]
}
golf() { # NAME WORDS...: it does what it should, and the tool is silent
    name=$1
    shift
    $watch "$program" "$@" > "$tmp/said" 2>&1 < "$tmp/input"
    status=$?
    findings && [ $status = 0 ]
    check "$name: status $status" $?
}
tiny="--preset=tiny --data=$tmp/data --val_tokens=1500 --steps=6 --cap=256000"
train() { # OUT OPTIONS...
    out=$1
    shift
    # shellcheck disable=SC2086
    golf "train: $*" train $tiny --out="$tmp/$out" "$@"
}
prepare() { # tokens to train on
    head -c 60000 train_golf.c > "$tmp/train.txt"
    head -c 12000 golf.h > "$tmp/val.txt"
    head -c 3000 golf.h > "$tmp/input"
    golf prepare prepare --out="$tmp/data" --name=code --vocab=320 --train "$tmp/train.txt" --val "$tmp/val.txt"
    [ -f "$tmp/data/tokenizer.model" ] || die "prepare failed: $(tail -n 1 "$tmp/said")"
}
a_test() { # PROGRAM PATTERN
    GOLF_CORRUPT=20 GOLF_TEST_ONLY=$2 $watch "$tmp/$1" > "$tmp/said" 2>&1 < "$tmp/input"
    status=$?
    findings && [ $status = 0 ]
    check "test $2 of $1: status $status" $?
}
planted() { # WHAT SED FLAGS...: the tool notices this fault in a copy of the source
    what=$1 edit=$2 copy=$tmp/planted
    shift 2
    mkdir -p "$copy/data" "$copy/dev/check"
    cp golf.h "$copy" && cp data/*.[ch] "$copy/data" && cp dev/check/*.h "$copy/dev/check" &&
        cp -r dev/systems dev/bench dev/mpi.h dev/export.h "$copy/dev"
    sed "$edit" train_golf.c > "$copy/train_golf.c"
    ! cmp -s train_golf.c "$copy/train_golf.c" && compile "$copy/golf" "$copy/train_golf.c" "$@"
    check "planted $what: it no longer matches the source, or does not compile" $?
    for _ in 1 2 3 4 5; do # where others work, one thread may do the work of all: then there is no race
        # shellcheck disable=SC2086
        $watch "$copy/golf" train $tiny --batch=16 --out="$tmp/planted_run" --overwrite=1 > "$tmp/said" 2>&1
        findings
        grep -q "$noticed" "$tmp/report" && break
    done
    grep -q "$noticed" "$tmp/report"
    check "planted $what: went unnoticed" $?
}

# ---- the tools
tsan() {
    CC=${CC:-clang}
    command -v "$CC" > /dev/null || die "expected clang, found no $CC; Debian: apt-get install clang libomp-dev libclang-rt-14-dev"
    archer=
    for folder in "$("$CC" -print-resource-dir)/../.." "$(dirname "$("$CC" -print-file-name=libomp.so)")" /usr/lib/llvm-*/lib; do
        [ ! -f "$folder/libarcher.so" ] || [ "$archer" ] || archer=$folder/libarcher.so
    done
    [ "$archer" ] || die "expected libarcher.so, by which OpenMP tells ThreadSanitizer of its threads, found none; Debian: libomp-dev"
    watch='' program=$tmp/golf noticed='data race'
    export OMP_TOOL_LIBRARIES="$archer" TSAN_OPTIONS="ignore_noninstrumented_modules=1 log_path=$tmp/found exitcode=66"
    export OMP_NUM_THREADS=3 OMP_WAIT_POLICY=passive
    compile "$program" train_golf.c $native -fopenmp -fsanitize=thread ||
        die "$CC cannot build with -fopenmp -fsanitize=thread: $(grep -m 1 error "$tmp/said"); Debian: libomp-dev libclang-rt-14-dev"
    ARCHER_OPTIONS=verbose=1 "$program" help 2>&1 | grep -q 'Archer detected'
    check "OpenMP loads libarcher: without it every wait would be a race" $?

    prepare
    for threads in 2 4; do
        OMP_NUM_THREADS=$threads
        train "of_$threads" --batch=8 --seq=64 --width=64 --heads=4 --mlp=4
    done
    cmp "$tmp/of_2/model.golf" "$tmp/of_4/model.golf" > "$tmp/said" 2>&1
    check "2 and 4 threads: the same file" $?
    OMP_NUM_THREADS=3
    tsan_resume
    golf eval eval "$tmp/of_2/model.golf" --data="$tmp/data" --val_tokens=1500 --stride=32
    golf adapt eval "$tmp/of_2/model.golf" --data="$tmp/data" --val_tokens=600 --adapt=all
    golf certify eval "$tmp/of_2/model.golf" --data="$tmp/data" --val_tokens=600 --certify=1
    golf sample sample "$tmp/of_2/model.golf" --prompt="int " --tokens=80
    golf export export "$tmp/of_2/model.golf" --to="$tmp/of_2.safetensors"
    # Systems with loops of their own on several threads.
    large="--batch=8 --width=64 --heads=4 --steps=3"
    for options in "--bwd=int16 --fit=coded --width=fit --cap=40000 --steps=3" "--optimizer=adamw --accum=2 --recompute=1 $large" \
        "--experts=4 --expert_size=32 --attn_experts=2 $large" "--embed_rank=16 $large" "--qat_ramp=0.5 $large" \
        "--wq=quest --wbits=3 --aq=quest --abits=4 $large" "--unet=1 --muon_split=1 --baseline_init=1 $large" "--watch=1 --exit_loss=0.1 $large"; do
        # shellcheck disable=SC2086
        train "system" $options --overwrite=1
    done
    for options in "--lora=4" "--cluster=4,30,each --cluster_steps=3 --cluster_rows=16" "--teacher=$tmp/flat/ckpt.bin --kd=0.3"; do
        [ -d "$tmp/flat" ] || train flat --unique=2 --repeat=1 --steps=3
        # shellcheck disable=SC2086
        train "system" --unique=1 --repeat=2 --init_from="$tmp/flat/ckpt.bin" --convert=average $options --steps=3 --overwrite=1
    done
    compile "$tmp/test_golf" test_golf.c $native -fopenmp -fsanitize=thread &&
        compile "$tmp/kernels" dev/check/kernels.c $native -fopenmp -fsanitize=thread
    check "test programs compile" $?
    # Not those whose children die: there libarcher falls over the threads that only the parent had.
    for pattern in threads large; do a_test test_golf $pattern; done
    for pattern in tasks operand "16 bits" dX; do a_test kernels "$pattern"; done
    planted "race: chunks add to one sum" 's|m->partial + n0 / CHUNK \* m->n_interface|m->partial + 0 * n0|' \
        $native -fopenmp -fsanitize=thread
}
tsan_resume() { # stopped by a signal, then resumed: the same file
    options="--batch=8 --seq=64 --width=64 --heads=4 --mlp=4"
    # shellcheck disable=SC2086
    "$program" train $tiny $options --steps=40 --out="$tmp/stopped" > "$tmp/said" 2>&1 &
    pid=$!
    tries=600
    until [ "$(cat "$tmp/stopped/log.tsv" 2> "$tmp/none" | wc -l)" -gt 3 ] || [ $((tries -= 1)) = 0 ]; do sleep 0.1; done
    kill -TERM $pid
    wait $pid
    status=$?
    findings && [ $status = 143 ]
    check "stopped by a signal: status $status" $?
    # shellcheck disable=SC2086
    train stopped $options --steps=40 --resume=1
    # shellcheck disable=SC2086
    train straight $options --steps=40
    cmp "$tmp/stopped/model.golf" "$tmp/straight/model.golf" > "$tmp/said" 2>&1
    check "stopped and resumed: the same file" $?
}
memcheck() {
    CC=${CC:-cc}
    command -v valgrind > /dev/null || die "expected valgrind, found none; Debian: apt-get install valgrind"
    watch="valgrind -q --error-exitcode=99 --track-origins=yes --log-file=$tmp/found.%p" program=$tmp/golf
    noticed='uninitialised'
    compile "$program" train_golf.c $avx2 || die "$CC cannot compile: $(grep -m 1 error "$tmp/said")"
    prepare
    train run
    train codes --bwd=int16 --fit=coded --width=fit --cap=40000 --wq=int3 --steps=3
    golf eval eval "$tmp/run/model.golf" --data="$tmp/data" --val_tokens=1500 --stride=16
    golf certify eval "$tmp/run/model.golf" --data="$tmp/data" --val_tokens=300 --certify=1
    golf info info "$tmp/codes/model.golf"
    golf export export "$tmp/codes/model.golf" --to="$tmp/codes.safetensors"
    golf encode encode "$tmp/run/model.golf"
    mv "$tmp/said" "$tmp/input"
    golf decode decode "$tmp/run/model.golf"
    golf sample sample "$tmp/run/model.golf" --prompt="int " --tokens=20
    train run --resume=1 --overwrite=1 --steps=6
    planted "read of what nobody wrote" '/^Score golf_eval(/,/^}/s/Score s = {0};/Score s;/' $avx2
}
# Where an integer is meant to wrap, or to lose its upper bits: all that was found, and read. No other function may.
meant() {
    cat << 'END'
# random numbers and hashes: products and sums modulo 2^64
fun:hash64
fun:bpe_hash_bytes
fun:trie_slot
# e^x: an integer in the low bits of a number is moved to its exponent, the others go
fun:exp_of
fun:fast_exp
# the range coder: `low` loses its top byte, which was written; a sum beyond it is the carry, which goes on through
# bytes of 255; `code` means nothing while it writes
fun:coder_shift
fun:coder_carry
fun:coded_bit
# counts down to 0 with i-- > 0
fun:ternary_pack
END
}
integer() {
    CC=${CC:-clang}
    command -v "$CC" > /dev/null || die "expected clang, found no $CC; Debian: apt-get install clang libclang-rt-14-dev"
    meant > "$tmp/meant"
    watch='' program=$tmp/golf noticed='runtime error'
    set -- -fsanitize=integer "-fsanitize-ignorelist=$tmp/meant" $avx2
    export UBSAN_OPTIONS="halt_on_error=0 log_path=$tmp/found"
    compile "$program" train_golf.c "$@" || die "$CC cannot build with -fsanitize=integer: $(grep -m 1 error "$tmp/said")"
    prepare
    train run
    train codes --bwd=int16 --fit=coded --width=fit --cap=40000 --wq=int3 --steps=3
    golf eval eval "$tmp/run/model.golf" --data="$tmp/data" --val_tokens=1500 --stride=16
    golf certify eval "$tmp/run/model.golf" --data="$tmp/data" --val_tokens=300 --certify=1
    golf adapt eval "$tmp/run/model.golf" --data="$tmp/data" --val_tokens=600 --adapt=all
    golf export export "$tmp/codes/model.golf" --to="$tmp/codes.safetensors"
    golf encode encode "$tmp/run/model.golf"
    golf sample sample "$tmp/run/model.golf" --prompt="int " --tokens=20
    for name in files kernels tokenizer; do
        compile "$tmp/$name" dev/check/$name.c "$@"
        check "$name compiles" $?
        a_test $name ""
    done
    planted "bytes that lose bits" 's/p\[i\] = (uint8_t)(x >> 8 \* i)/p[i] = x >> 8 * i/' "$@"
}

native=$(printf 'int main(void) { return 0; }' > "$tmp/a.c" && cc -march=native "$tmp/a.c" -o "$tmp/a" 2> "$tmp/none" && "$tmp/a" && echo -march=native)
avx2=$(grep -qw avx2 /proc/cpuinfo 2> "$tmp/none" && grep -qw fma /proc/cpuinfo && echo -mavx2 -mfma)
case $what in
    tsan | memcheck | integer) $what ;;
    *) die "expected tsan, memcheck or integer, found '$what'" ;;
esac
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
