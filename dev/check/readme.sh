#!/usr/bin/env bash
# readme.sh: runs every ./train_golf and data/get.sh command of README.md and every command of
# dev/systems/README.md as written, in order, but shortened: few steps, a prefix of the validation text, run
# folders of its own, runs/baseline among them. Needs data/sotu. Ends with `N passed, N failed`.
# AS_WRITTEN=1 (make commands): at full length, in the folders that the READMEs name, after `make baseline`;
# about an hour on two cores.
set -u
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin are slow beside other work
cd "$(dirname "$0")/../.." || exit 1
mkdir -p build && tmp=$(mktemp -d build/readme.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
[ -f data/sotu/tokenizer.model ] || { echo "no data/sotu: run data/get.sh sotu"; exit 1; }
make -s train_golf || exit 1
short="--steps=8 --val_tokens=4096 --ckpt_every=0"
mkdir -p "$tmp/runs" "$tmp/data"
as_written=${AS_WRITTEN:-}
if [ "$as_written" ]; then
    [ -f runs/baseline/model.golf ] || { echo "no runs/baseline: run make baseline"; exit 1; }
else
    ./train_golf train $short --out="$tmp/runs/baseline" > /dev/null || exit 1
fi

# Indented blocks of both files, comments cut off; and what stands in backticks in the table of systems.
commands() {
    sed -n 's/^    \(\.\/train_golf .*\)$/\1/p; s/^    \([A-Z0-9a-z/=_ ]*data\/get\.sh .*\)$/\1/p' README.md
    grep -oE '`\./train_golf (train|eval) [^`]*`' dev/systems/README.md | tr -d '`'
}
while IFS= read -r command; do
    command=$(echo "$command" | sed 's/ *#.*//')
    run=${command//FILES.../README.md train_golf.c}
    [ "$as_written" ] || run=$(echo "$run" | sed "s|runs/|$tmp/runs/|g; s|data/mine|$tmp/data/mine|g")
    case $as_written$command in
    "./train_golf train "*) run="$run $short" ;;
    # A proof takes a forward pass for each piece of the vocabulary: of the small model.
    "./train_golf eval "*certify*) run="${run/baseline/tiny} --val_tokens=4096" ;;
    "./train_golf eval "*) run="$run --val_tokens=4096" ;;
    "./train_golf sample "*) run="$run --tokens=20" ;;
    "./train_golf bench") run="$run step --preset=tiny --vocab=300" ;;
    esac
    if bash -c "$run" > "$tmp/out" 2>&1 < /dev/null; then
        passed=$((passed + 1))
        [ "$as_written" ] && echo "$SECONDS s: $command"
    else
        failed=$((failed + 1))
        echo "FAILED $command"
        tail -n 2 "$tmp/out"
    fi
done < <(commands)
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
