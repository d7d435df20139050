#!/bin/sh
# make faults: what goes wrong around the program goes wrong here, at every call: the disk is full, a read
# fails, half is written, the process is killed. dev/check/inject.c makes the n-th system call fail; n counts
# up until the run no longer comes so far. After each fault: the exit status is 0, or 1 with one line that
# names the file and the reason; nothing half-written has a final name; what was there before is good; and the
# next run, or --resume=1, ends with the bits of an undisturbed one and leaves no file of its own behind.
# Works in a folder of its own. Environment: CC, GOLF (./train_golf), ONLY=pattern of sections, TABLE=file (gets
# a row for each kind of fault). Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1 LC_ALL=C
GOLF=$(realpath "${GOLF:-./train_golf}")
[ -x "$GOLF" ] || { echo "no $GOLF here: make it first"; exit 1; }
mkdir -p build && tmp=$PWD/$(mktemp -d build/faults.XXXXXX) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
if ! ${CC:-cc} -O1 -Wall -Wextra -shared -fPIC -o "$tmp/inject.so" dev/check/inject.c 2> "$tmp/err" ||
    ! LD_PRELOAD=$tmp/inject.so INJECT=fsync:1:EIO "$GOLF" help > /dev/null 2>> "$tmp/err"; then
    echo "skipped: faults (inject.c needs Linux with seccomp, x86-64 or aarch64): $(head -n 1 "$tmp/err")"
    exit 0
fi

# ---- a text, and one of hundreds of shards
mkdir "$tmp/text" "$tmp/refs"
for i in 1 2 3; do
    awk -v seed=$i 'BEGIN { srand(seed); n = split("the of state union and people we shall our nation with great " \
        "peace to congress laws year", w, " ")
        for (i = 0; i < 700; i++) printf "%s%s", w[1 + int(n * rand() * rand())], rand() < .1 ? ".\n" : " " }' \
        > "$tmp/text/$i"
done
prepare="$GOLF prepare --name=words --vocab=300 --train $tmp/text/1 $tmp/text/2 --val $tmp/text/3"
$prepare --out="$tmp/refs/data" > /dev/null || exit 1
train="$GOLF train --preset=tiny --width=16 --seq=16 --batch=2 --steps=2 --ckpt_every=1 --val_tokens=64 --data=$tmp/refs/data --out=run"

# ---- one fault
# Every section works in a folder $d of its own: $d/x holds what may be hit, $d/said what was said.
section() { # NAME
    d=$tmp/$1 name=$1
    mkdir -p "$d/x" "$d/said"
    : > "$d/verdicts"
    cd "$d/x" || exit 1
}
undisturbed() { # but fsync costs nothing
    (
        export LD_PRELOAD="$tmp/inject.so" INJECT=none:1:EIO
        "$@"
    )
}
ok() { echo "ok $what" >> "$d/verdicts"; }
bad() { echo "FAILED $name: $fault: $*" | tee -a "$d/verdicts" | cut -c 1-400; }
check() { # WHAT COMMAND...
    said=$1
    shift
    if "$@"; then ok; else bad "$said"; fi
}
inject() { # CALL:N:WHAT COMMAND...: status in $status; false if the run did not come so far
    fault=$1
    shift
    rm -f "$d/said/hit"
    (
        export LD_PRELOAD="$tmp/inject.so" INJECT="$fault" INJECT_AT="$hit" INJECT_SAID="$d/said/hit"
        "$@"
    ) > "$d/said/out" 2> "$d/said/err"
    status=$?
    [ -f "$d/said/hit" ]
}
reason() { # what the C library calls an error
    case $1 in
    EIO) echo "Input/output error" ;;
    ENOSPC) echo "No space left on device" ;;
    EINTR) echo "Interrupted system call" ;;
    EROFS) echo "Read-only file system" ;;
    EACCES) echo "Permission denied" ;;
    EMFILE) echo "Too many open files" ;;
    *) echo "" ;;
    esac
}
# Did it end as it should: well, by the kill that was asked for, or with one line of why and where?
ended_well() {
    what=${fault##*:}
    path=$(sed -n '1s/^[a-z]* [0-9]* //p' "$d/said/hit")
    file=$(basename "${path%.tmp}")
    case $what.$status in
    kill.137 | half.137 | killed.137 | *.0) ok && return ;;
    esac
    if [ $status != 1 ]; then bad "exit status $status ($(tail -n 1 "$d/said/err"))"
    elif [ "$(grep -c . "$d/said/err")" != 1 ]; then bad "not one line: $(cat "$d/said/err")"
    elif [ "$file" != memory ] && ! grep -qF "$file" "$d/said/err"; then bad "$file is not named: $(cat "$d/said/err")"
    elif ! grep -qF "$(reason "$what")" "$d/said/err"; then bad "no reason: $(cat "$d/said/err")"
    elif grep -qF "Success" "$d/said/err"; then bad "failed with success: $(cat "$d/said/err")"
    else ok; fi
}
sweep() { # CALL "WHAT..." BEFORE COMMAND AFTER: functions; until the run no longer comes so far
    for kind in $2; do
        n=1 later=
        case $kind in ENOSPC | EROFS) later=+ ;; esac
        $3
        while inject "$1:$n$later:$kind" $4; do
            ended_well
            $5
            n=$((n + ${step:-1}))
            $3
        done
        what=$kind
        check "$1 is never reached" [ $n -gt 1 ]
        printf '%s\t%s\t%s\t%s\n' "$name" "$1" "$kind" $((n - 1)) >> "$d/table"
    done
}

# ---- train
column() { awk -F '\t' 'NR > 1 { print $1, $2, $3, $5, $6 }' "$1"; }
numbers() { grep -vE '"(seconds|tok_per_s|peak_memory_mb|name|config)"' "$1"; }
checkpoint() { head -c -4 "$1" | sed 's/resume=1/resume=0/'; } # it is part of its text, and of the CRC-32 at its end
one_of() { # FILE OTHERS...: absent, or the same as one of them
    one=$1
    [ -e "$one" ] || return 0
    shift
    for other; do cmp -s "$one" "$other" && return 0; done
    return 1
}
references() { # $r/1: stopped after a step, with a row too many in its log; $r/2 finished; $r/other: of another seed
    r=$tmp/refs
    for i in 1 2 other; do mkdir "$r/$i"; done
    (cd "$r/2" && undisturbed $train > /dev/null) || exit 1
    (cd "$r/other" && undisturbed $train --seed=7 > /dev/null) || exit 1
    (cd "$r/1" && LD_PRELOAD=$tmp/inject.so INJECT=rename:2:kill INJECT_AT=ckpt.bin $train > /dev/null 2>&1)
    for i in 1 2 other; do mv "$r/$i"/run/* "$r/$i" && rmdir "$r/$i/run"; done
    rm -f "$r"/*/*.tmp
    [ -f "$r/1/ckpt.bin" ] && [ ! -f "$r/1/model.golf" ] || exit 1
    column "$r/2/log.tsv" > "$r/rows"
    checkpoint "$r/2/ckpt.bin" > "$r/weights"
    checkpoint "$r/1/ckpt.bin" > "$r/weights1"
    numbers "$r/2/result.json" > "$r/numbers"
    ls "$r/2" > "$r/names"
}
whole_files() { # nothing half-written, nothing lost
    f=$d/x/run
    check "model.golf is no model" one_of "$f/model.golf" "$r/2/model.golf" $old_model
    if [ -e "$f/ckpt.bin" ]; then
        checkpoint "$f/ckpt.bin" > "$d/said/weights"
        check "ckpt.bin is no checkpoint" one_of "$d/said/weights" "$r/weights1" "$r/weights" $old_ckpt
    fi
    check "tokenizer.model is another" one_of "$f/tokenizer.model" "$r/2/tokenizer.model"
    if [ -e "$f/result.json" ]; then check "result.json is half" [ "$(tail -n 1 "$f/result.json")" = "}" ]; fi
    if [ -s "$had/ckpt.bin" ]; then check "the checkpoint is gone" [ -s "$f/ckpt.bin" ]; fi
    if [ -s "$had/log.tsv" ]; then check "rows of the log are gone" [ "$(grep -c . "$f/log.tsv")" -ge 2 ]; fi
}
same_as_undisturbed() {
    column "$f/log.tsv" > "$d/said/rows"
    numbers "$f/result.json" > "$d/said/numbers"
    ls "$f" > "$d/said/names"
    checkpoint "$f/ckpt.bin" > "$d/said/weights"
    check "other model" cmp -s "$f/model.golf" "$r/2/model.golf"
    check "other checkpoint" cmp -s "$d/said/weights" "$r/weights"
    check "other log: $(diff "$d/said/rows" "$r/rows" | head -n 3)" cmp -s "$d/said/rows" "$r/rows"
    check "other result" cmp -s "$d/said/numbers" "$r/numbers"
    check "other files: $(tr '\n' ' ' < "$d/said/names")" cmp -s "$d/said/names" "$r/names"
}
train_fresh() { rm -rf "$d/x/run"; }
train_half() { rm -rf "$d/x/run" && cp -r "$r/1" "$d/x/run"; }
train_now() { $train; }
train_resume() { $train --resume=1; }
then_resumed() {
    whole_files
    undisturbed train_resume > "$d/said/out" 2> "$d/said/err"
    check "not resumed: $(tail -n 1 "$d/said/err")" [ $? = 0 ]
    same_as_undisturbed
}
train_faults() {
    section train
    had=/nowhere old_model= old_ckpt= hit=$d/x/
    sweep write "kill half ENOSPC EIO EINTR short" train_fresh train_now then_resumed
    sweep rename "kill killed EIO" train_fresh train_now then_resumed
    sweep fsync "EIO ENOSPC" train_fresh train_now then_resumed
    sweep close "EIO EINTR" train_fresh train_now then_resumed
    sweep open "EMFILE EROFS" train_fresh train_now then_resumed
    sweep truncate "EIO kill killed" train_fresh train_now then_resumed
    sweep mkdir "ENOSPC EROFS kill" train_fresh train_now then_resumed
    sweep read "EIO short" train_fresh train_now then_resumed
}
resume_faults() {
    section resume
    had=$tmp/refs/1 old_model= old_ckpt= hit=$d/x/
    sweep write "kill half ENOSPC short" train_half train_resume then_resumed
    sweep rename "kill killed EIO" train_half train_resume then_resumed
    sweep truncate "EIO kill killed" train_half train_resume then_resumed
    sweep read "EIO short EINTR" train_half train_resume then_resumed
    sweep open "EMFILE" train_half train_resume then_resumed
}

references
for s in ${ONLY:-train resume}; do (${s}_faults); done
cat "$tmp"/*/verdicts > "$tmp/verdicts"
[ -z "${TABLE:-}" ] || cat "$tmp"/*/table > "$TABLE"
failed=$(grep -c '^FAILED' "$tmp/verdicts")
echo "$(grep -c '^ok' "$tmp/verdicts") passed, $failed failed"
[ "$failed" = 0 ]
