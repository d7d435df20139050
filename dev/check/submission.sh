#!/bin/sh
# submission.sh: `make submission` and `make plot` of several runs: what they write, and what they refuse. Ends with
# `N passed, N failed`. Environment: CC.
set -u
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin are slow beside other work
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc}
make -s CC="$CC" train_golf || exit 1
mkdir -p build && tmp=$(mktemp -d build/submission.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
check() { # WHAT COMMAND...
    what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $what: $(tail -n 1 "$tmp/said")"
    fi
}
submit() { make -s CC="$CC" submission BUILD=0 "$@" > "$tmp/said" 2>&1; } # VARIABLE=VALUE...
refused() { # WORDS VARIABLE=VALUE...
    words=$1
    shift
    ! submit "$@" && grep -q -e "$words" "$tmp/said"
}
edit() { # KEY VALUE RUN: of result.json
    sed "s|^  \"$1\": .*|  \"$1\": $2,|" "$3/result.json" > "$tmp/new" && mv "$tmp/new" "$3/result.json"
}
of() { sed -n "s/^  \"$1\": \(.*[^,]\),*\$/\1/p" "$tmp/out/submission.json"; }

./train_golf prepare --out="$tmp/data" --name=code --vocab=400 --train train_golf.c --val golf.h > /dev/null || exit 1
train() { # OUT OPTION...
    out=$1
    shift
    ./train_golf train --preset=tiny --steps=5 --data="$tmp/data" --out="$tmp/$out" --watch=1 "$@" > /dev/null || exit 1
}
train run --certify=1 --act=silu
train other --seed=2
run=$tmp/run

check "a folder is written" submit RUN="$run" AUTHOR='Ann "A" \ B' GITHUB_ID=ann OUT="$tmp/out" BLURB="one, two: 3" DATE=2026-01-02
for file in README.md submission.json model.golf tokenizer.model log.tsv result.json code/train_golf.c code/dev/export.h code/Makefile; do
    check "$file is in it" [ -s "$tmp/out/$file" ]
done
check "the author, as given" [ "$(of author)" = '"Ann \"A\" \\ B"' ]
check "the score" grep -q "^  \"val_bpb\": $(of val_bpb)," "$run/result.json"
check "the bytes of the model" [ "$(of bytes_model)" = "$(wc -c < "$run/model.golf" | tr -d ' ')" ]
check "the bytes of the code" [ "$(of bytes_code)" = "$(find "$tmp/out/code" -type f -exec cat {} + | wc -c | tr -d ' ')" ]
check "their sum" [ "$(of bytes_total)" = $(($(of bytes_model) + $(of bytes_code))) ]
check "the certificate" [ "$(of certified)" = '"yes"' ]
check "the date" [ "$(of date)" = '"2026-01-02"' ]
if command -v python3 > /dev/null; then
    check "submission.json" python3 -c "
import json, sys
r = json.load(open('$tmp/out/submission.json'))
missing = [k for k in 'author github_id name blurb date track val_loss val_bpb bytes_total bytes_code bytes_model seeds'.split() if k not in r]
sys.exit(bool(missing) or r['author'] != 'Ann \"A\" \\\\ B' or r['blurb'] != 'one, two: 3' or r['seeds'] != [1])"
else
    echo "skipped: parsing submission.json (no python3)"
fi
command=$(sed -n "s|^    code/train_golf \(train .*\) --data=DATA --out=run\$|\1|p" "$tmp/out/README.md")
# shellcheck disable=SC2086
./train_golf $command --data="$tmp/data" --out="$tmp/again" > "$tmp/said" 2>&1
check "the command of its README.md trains the same model" cmp "$run/model.golf" "$tmp/again/model.golf"
check "not FineWeb, and says so" grep -q 'not FineWeb' "$tmp/out/README.md"

check "no run" refused 'expected RUN=' AUTHOR=a GITHUB_ID=b
check "no author" refused 'expected AUTHOR=' RUN="$run" GITHUB_ID=b
check "twice" refused 'there already' RUN="$run" AUTHOR=a GITHUB_ID=b OUT="$tmp/out"
check "a date that is none" refused 'DATE=today' RUN="$run" AUTHOR=a GITHUB_ID=b DATE=today
check "a name that is no folder's" refused 'NAME=../x' RUN="$run" AUTHOR=a GITHUB_ID=b NAME=../x
cp -r "$run" "$tmp/unfinished" && rm "$tmp/unfinished/result.json"
check "an unfinished run" refused 'no .*/result.json' RUN="$tmp/unfinished" AUTHOR=a GITHUB_ID=b
cp -r "$run" "$tmp/changed" && printf x >> "$tmp/changed/model.golf"
check "the model of another run" refused 'not the same run' RUN="$tmp/changed" AUTHOR=a GITHUB_ID=b
train prefix --val_tokens=200
check "a score of a prefix" refused 'scored on a prefix' RUN="$tmp/prefix" AUTHOR=a GITHUB_ID=b
cp -r "$run" "$tmp/large" && head -c 16000000 /dev/zero > "$tmp/large/model.golf"
code=$(of bytes_code)
for size in $((16000000 - code + 1)) $((16000000 - code)); do
    head -c "$size" /dev/zero > "$tmp/large/model.golf" && edit bytes_model "$size" "$tmp/large"
    [ $((size + code)) = 16000000 ] && check "16,000,000 bytes" submit RUN="$tmp/large" AUTHOR=a GITHUB_ID=b
    [ $((size + code)) = 16000000 ] || check "16,000,001 bytes" refused '1 over 16000000' RUN="$tmp/large" AUTHOR=a GITHUB_ID=b
done
check "nothing half-written" [ "$(find "$tmp" -name '*.part' -o -name '*.check' | wc -l | tr -d ' ')" = 0 ]
check "the program of its code scores its model" submit BUILD=1 OPT=-O0 RUN="$run" AUTHOR=a GITHUB_ID=b OUT="$tmp/built"
check "and says so" grep -q 'built from its code' "$tmp/said"
edit val_bpb 1.25 "$run"
check "a score that it does not have" refused 'gives its model .* not 1.25' BUILD=1 OPT=-O0 RUN="$run" AUTHOR=a GITHUB_ID=b OUT="$tmp/wrong"
check "is not written" [ ! -e "$tmp/wrong" ]

if command -v gnuplot > /dev/null; then
    plot() { make -s plot RUN="$1" > "$tmp/said" 2>&1; }
    check "a plot of one run" plot "$tmp/other"
    check "its curves" grep -q '</svg>' "$tmp/other/curves.svg"
    check "a plot of several" plot "$tmp/again $tmp/other $tmp/unfinished"
    for name in again other unfinished 'kB of the file'; do
        check "the plot names $name" grep -q "$name" "$tmp/runs.svg"
    done
    check "a plot of what is no run" sh -c "! make -s plot RUN='$tmp/other $tmp/data' 2>&1 | grep -q svg"
else
    echo "skipped: plots (no gnuplot)"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
