#!/bin/sh
# make faults: what goes wrong around the program goes wrong here, at every call: the disk is full, a read
# fails, half is written, the process is killed. dev/check/inject.c makes the n-th system call fail; n counts
# up until the run no longer comes so far. After each fault: the exit status is 0, or 1 with one line that
# names the file and the reason; nothing half-written has a final name; what was there before is good; and the
# next run, or --resume=1, ends with the bits of an undisturbed one and leaves no file of its own behind.
# Works in a folder of its own. Environment: CC, GOLF (./train_golf), ONLY="names of sections", TABLE=file (gets
# a row for each kind of fault), EVERY=n (67): only each n-th piece of memory is refused, GOLF_FAIL_FAST=1: a
# section ends with its first failure. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1 LC_ALL=C
GOLF=$(realpath "${GOLF:-./train_golf}")
[ -x "$GOLF" ] || { echo "no $GOLF here: make it first"; exit 1; }
mkdir -p build && tmp=$PWD/$(mktemp -d build/faults.XXXXXX) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
case $(uname -sm) in
"Linux x86_64" | "Linux aarch64") ;;
*)
    echo "skipped: faults (inject.c needs Linux on x86-64 or aarch64)"
    exit 0
    ;;
esac
${CC:-cc} -O1 -Wall -Wextra -shared -fPIC -o "$tmp/inject.so" dev/check/inject.c || exit 1
if ! LD_PRELOAD=$tmp/inject.so INJECT=fsync:1:EIO "$GOLF" help > /dev/null 2> "$tmp/err"; then
    echo "skipped: faults (inject.c needs seccomp): $(head -n 1 "$tmp/err")"
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
bad() {
    echo "FAILED $name: $fault: $*" | tee -a "$d/verdicts" | cut -c 1-400
    [ -z "${GOLF_FAIL_FAST:-}" ] || exit 1
}
check() { # WHAT COMMAND...; $(...) in WHAT is only done when it fails
    said=$1
    shift
    if "$@"; then ok; else eval "bad \"$said\""; fi
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
    EAGAIN) echo "another run" ;;
    alloc) echo "memory" ;;
    *) echo "" ;;
    esac
}
# Did it end as it should: well, by the kill that was asked for, or with one line of why and where?
ended_well() {
    what=${fault##*:}
    [ "$what" != ENOMEM ] || what=alloc
    read -r _ _ path < "$d/said/hit"
    [ "$what" != EAGAIN ] || path=${path%/*} # another run is in the folder
    file=${path##*/} file=${file%.tmp}
    case $what.$status in
    kill.137 | half.137 | killed.137 | hup.129 | *.0) ok && return ;;
    short.*) bad "what comes in parts was refused: $(cat "$d/said/err")" && return ;;
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
        printf '%s\t%s\t%s\t%s\n' "$name" "$1" "$kind" $(((n - 1) / ${step:-1})) >> "$d/table"
    done
}

# ---- train
column() { awk -F '\t' 'NR > 1 { print $1, $2, $3, $5, $6 }' "$1"; }
numbers() { grep -vE '"(seconds|tok_per_s|peak_memory_mb|name|config)"' "$1"; }
checkpoint() { head -c -4 "$1" | sed 's/resume=1/resume=0/; s/overwrite=1/overwrite=0/'; } # all but how it was started, and its CRC-32
one_of() { # FILE OTHERS...: absent, or the same as one of them
    one=$1
    [ -e "$one" ] || return 0
    shift
    for other; do cmp -s "$one" "$other" && return 0; done
    return 1
}
killed_after_a_step() { # OPTION...: here, with the row of the next step in the log
    (LD_PRELOAD=$tmp/inject.so INJECT=rename:2:kill INJECT_AT=ckpt.bin $train "$@") > /dev/null 2>&1
    mv run/* . && rmdir run && rm ckpt.bin.tmp
}
references() { # $r/1: stopped after a step, with a row too many in its log; $r/2 finished; $r/other: of another seed
    r=$tmp/refs
    for i in 1 2 other; do mkdir "$r/$i"; done
    (cd "$r/2" && undisturbed $train > /dev/null) || exit 1
    (cd "$r/other" && undisturbed $train --seed=7 > /dev/null) || exit 1
    for i in 2 other; do mv "$r/$i"/run/* "$r/$i" && rmdir "$r/$i/run"; done
    (cd "$r/1" && killed_after_a_step) 2> /dev/null
    [ -f "$r/1/ckpt.bin" ] && [ ! -f "$r/1/model.golf" ] || exit 1
    column "$r/2/log.tsv" > "$r/rows"
    checkpoint "$r/2/ckpt.bin" > "$r/weights"
    checkpoint "$r/1/ckpt.bin" > "$r/weights1"
    checkpoint "$r/other/ckpt.bin" > "$r/weights_other"
    numbers "$r/2/result.json" > "$r/numbers"
    undisturbed=$(fingerprint "$r/2")
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
fingerprint() { # of a finished run: all but times and how it was started
    { cat "$1/model.golf" && checkpoint "$1/ckpt.bin" && column "$1/log.tsv" && numbers "$1/result.json" && ls "$1"; } 2>&1 | cksum
}
same_as_undisturbed() {
    column "$f/log.tsv" > "$d/said/rows"
    check 'another run: $(ls $f | tr "\n" " ") $(cmp $f/model.golf $r/2/model.golf) $(diff $d/said/rows $r/rows | head -n 3)' \
        [ "$(fingerprint "$f")" = "$undisturbed" ]
}
train_fresh() { rm -rf "$d/x/run"; }
train_half() { rm -rf "$d/x/run" && cp -r "$r/1" "$d/x/run"; }
train_now() { $train; }
train_resume() { $train --resume=1; }
then_resumed() {
    whole_files
    [ "$status" != 0 ] || same_as_undisturbed
    undisturbed train_resume > "$d/said/out" 2> "$d/said/err"
    check 'not resumed: $(tail -n 1 $d/said/err)' [ $? = 0 ]
    same_as_undisturbed
}
train_faults() { # a first run
    section train
    had=/nowhere old_model= old_ckpt= hit=$d/x/
    sweep write "kill half ENOSPC EIO EINTR short" train_fresh train_now then_resumed
    sweep rename "kill killed EIO" train_fresh train_now then_resumed
    sweep fsync "EIO ENOSPC" train_fresh train_now then_resumed
    sweep close "EIO EINTR" train_fresh train_now then_resumed
    sweep open "EMFILE EROFS" train_fresh train_now then_resumed
    sweep truncate "EIO kill killed" train_fresh train_now then_resumed
    sweep mkdir "ENOSPC EROFS kill" train_fresh train_now then_resumed
}
reads_faults() { # and what it reads
    section reads
    had=/nowhere old_model= old_ckpt= hit=$d/x/
    sweep read "EIO short" train_fresh train_now then_resumed
    hit=$tmp/refs/data/
    sweep read "EIO short EINTR hup" train_fresh train_now then_resumed
    sweep open "EMFILE EACCES" train_fresh train_now then_resumed
    hit=$tmp/refs/data
    sweep list "EIO" train_fresh train_now then_resumed
    step=${EVERY:-67}
    sweep alloc "ENOMEM" train_fresh train_now then_resumed
    step=1
}
resume_faults() { # a run goes on, and has a row too many in its log
    section resume
    had=$tmp/refs/1 old_model= old_ckpt= hit=$d/x/
    sweep write "kill half ENOSPC short" train_half train_resume then_resumed
    sweep rename "kill killed EIO" train_half train_resume then_resumed
    sweep truncate "EIO kill killed" train_half train_resume then_resumed
    sweep read "EIO short EINTR" train_half train_resume then_resumed
    sweep open "EMFILE" train_half train_resume then_resumed
    sweep stat "EIO" train_half train_resume then_resumed
    step=${EVERY:-67}
    sweep alloc "ENOMEM" train_half train_resume then_resumed
    step=1
}

# ---- A run goes on whose log gets more columns: it is written again.
train_plain() { rm -rf "$d/x/run" && cp -r "$r/plain" "$d/x/run"; }
watch_now() { $train --resume=1; }
then_watched() {
    whole_files
    undisturbed watch_now > "$d/said/out" 2> "$d/said/err"
    check 'not resumed: $(tail -n 1 $d/said/err)' [ $? = 0 ]
    column "$f/log.tsv" > "$d/said/rows"
    check "other log" cmp -s "$d/said/rows" "$r/rows"
    check "other model" cmp -s "$f/model.golf" "$r/2/model.golf"
}
columns_faults() {
    section columns
    "$GOLF" help > "$d/said/out"
    if ! grep -q '^ *--watch' "$d/said/out"; then
        echo "skipped: columns (no system of this program adds some)"
        return
    fi
    had=$r/plain old_model= old_ckpt=$r/weights_plain hit=$d/x/run/log.tsv
    mkdir "$r/plain" && cd "$r/plain" && killed_after_a_step --watch=0
    checkpoint "$r/plain/ckpt.bin" > "$r/weights_plain"
    cd "$d/x" || exit 1
    sweep write "kill half ENOSPC" train_plain watch_now then_watched
    sweep open "EMFILE kill" train_plain watch_now then_watched
    sweep rename "kill killed EIO" train_plain watch_now then_watched
}

# ---- --overwrite=1 over a finished run of another seed
train_other() { rm -rf "$d/x/run" && cp -r "$r/other" "$d/x/run"; }
overwrite_now() { $train --overwrite=1; }
then_overwritten() {
    whole_files
    if [ -e "$f/result.json" ]; then
        numbers "$f/result.json" > "$d/said/numbers"
        if cmp -s "$f/model.golf" "$r/other/model.golf"; then numbers "$r/other/result.json" > "$d/said/of"
        else cp "$r/numbers" "$d/said/of"; fi
        check "the result is not the model's" cmp -s "$d/said/numbers" "$d/said/of"
    fi
    undisturbed overwrite_now > "$d/said/out" 2> "$d/said/err"
    check 'not overwritten: $(tail -n 1 $d/said/err)' [ $? = 0 ]
    same_as_undisturbed
}
overwrite_faults() {
    section overwrite
    had=/nowhere old_model=$r/other/model.golf old_ckpt=$r/weights_other hit=$d/x/
    sweep write "kill ENOSPC" train_other overwrite_now then_overwritten
    sweep rename "kill killed" train_other overwrite_now then_overwritten
    sweep unlink "kill EIO" train_other overwrite_now then_overwritten
    sweep truncate "kill EIO" train_other overwrite_now then_overwritten
}

# ---- files that are links, to files that are not there yet
train_links() {
    rm -rf "$d/x/run" "$d/x/disk" && mkdir "$d/x/run" "$d/x/disk"
    for file in ckpt.bin model.golf result.json log.tsv; do ln -s ../disk/$file "$d/x/run/$file"; done
    rm "$d/x/run/ckpt.bin" && ln -s "$d/x/disk/link" "$d/x/run/ckpt.bin" && ln -s ckpt.bin "$d/x/disk/link"
}
still_links() {
    for file in ckpt.bin model.golf result.json log.tsv; do
        check "$file is no link any more" [ -L "$d/x/run/$file" ]
    done
}
then_linked() {
    still_links
    then_resumed
    still_links
    check 'more files: $(echo $d/x/disk/*)' [ "$(ls "$d/x/disk" | wc -l)" = 5 ]
    undisturbed overwrite_now > "$d/said/out" 2> "$d/said/err"
    check "not overwritten" [ $? = 0 ]
    still_links
    same_as_undisturbed
}
links_faults() {
    section links
    had=/nowhere old_model= old_ckpt= hit=$d/x/
    sweep rename "kill EIO" train_links train_now then_linked
    sweep unlink "EIO" train_links train_now then_linked
    train_links
    rm "$d/x/run/ckpt.bin" && ln -s ckpt.bin "$d/x/run/ckpt.bin"
    undisturbed train_now > "$d/said/out" 2> "$d/said/err"
    status=$? fault=links what=loop
    check 'a link to itself: $(cat $d/said/err)' grep -q 'ckpt.bin.*links' "$d/said/err"
    check "a link to itself: status $status" [ $status = 1 ]
}

# ---- locks
then_noted() {
    check "no note" grep -q "^note: .*log.tsv cannot be locked" "$d/said/err"
    check "did not go on" [ "$status" = 0 ]
    same_as_undisturbed
}
then_refused() {
    check "not refused" [ "$status" = 1 ]
    check "who is there?" grep -q "another run" "$d/said/err"
}
locks_faults() {
    section locks
    had=/nowhere old_model= old_ckpt= hit=$d/x/ f=$d/x/run
    sweep flock "ENOSYS ENOLCK EOPNOTSUPP" train_fresh train_now then_noted
    sweep flock "EAGAIN" train_fresh train_now then_refused
}

# ---- other commands: what they write, appears complete or not at all
export_before() { cp "$r/other.safetensors" "$d/x/to.safetensors"; }
export_now() { $GOLF export "$d/x/in/model.golf" --to=to.safetensors --overwrite=1; }
then_exported() {
    [ "$status" != 0 ] || check "no word of the fault, and another file" cmp -s to.safetensors "$r/2.safetensors"
    check "half a file" one_of to.safetensors "$r/other.safetensors" "$r/2.safetensors"
    undisturbed export_now > "$d/said/out" 2> "$d/said/err"
    check 'not again: $(tail -n 1 $d/said/err)' cmp -s to.safetensors "$r/2.safetensors"
    check "more files" [ "$(ls | wc -l)" = 2 ]
}
export_faults() {
    section export
    hit=$d/x/
    for i in other 2; do
        mkdir "$d/x/in" && cp "$r/$i/model.golf" "$r/$i/tokenizer.model" "$d/x/in"
        $GOLF export "$d/x/in/model.golf" --to="$r/$i.safetensors" > /dev/null
        [ $i = 2 ] || rm -r "$d/x/in"
    done
    sweep write "kill half ENOSPC EIO EINTR short" export_before export_now then_exported
    sweep rename "kill killed EIO" export_before export_now then_exported
    sweep fsync "EIO" export_before export_now then_exported
    sweep read "EIO short EINTR" export_before export_now then_exported
    sweep open "EMFILE EACCES" export_before export_now then_exported
}

prepare_before() { rm -rf "$d/x/data"; }
prepare_now() { $prepare --out=data; }
same_folders() { diff -r "$1" "$2" > /dev/null; }
then_prepared() {
    if [ -e data ]; then check "half a folder" same_folders data "$r/data"; fi
    if [ "$status" = 0 ]; then check "no word of the fault, and no folder" [ -e data ]; fi
    if [ "$status" = 1 ]; then check "an unfinished folder" [ ! -e data.part ]; fi
    rm -rf data
    undisturbed prepare_now > "$d/said/out" 2> "$d/said/err"
    check 'not again: $(tail -n 1 $d/said/err)' same_folders data "$r/data"
    check "more files" [ "$(ls)" = data ]
}
prepare_faults() {
    section prepare
    hit=$d/x/
    sweep write "kill half ENOSPC EIO short" prepare_before prepare_now then_prepared
    sweep rename "kill killed EIO" prepare_before prepare_now then_prepared
    sweep fsync "ENOSPC" prepare_before prepare_now then_prepared
    sweep mkdir "EROFS kill" prepare_before prepare_now then_prepared
    sweep open "EMFILE" prepare_before prepare_now then_prepared
    sweep read "EIO short" prepare_before prepare_now then_prepared
    hit=$tmp/text/
    sweep read "EIO short EINTR" prepare_before prepare_now then_prepared
    step=$((6 * ${EVERY:-67}))
    sweep alloc "ENOMEM" prepare_before prepare_now then_prepared
    step=1
}

# What is printed, or an error: never a part that looks like all.
nothing() { :; }
print_now() { $GOLF $print < "$tmp/text/3"; }
then_printed() {
    what=${fault##*:}
    if [ "$status" = 0 ]; then check "other output" cmp -s "$d/said/out" "$d/said/whole"; fi
}
print_faults() {
    section print
    mkdir "$d/x/in" && cp "$r/2/model.golf" "$r/2/tokenizer.model" "$d/x/in"
    for print in "eval in/model.golf --data=$tmp/refs/data --val_tokens=64" "eval in/model.golf --data=$tmp/refs/data --val_tokens=40 --certify=1" \
        "info in/model.golf" "sample in/model.golf --prompt=the --tokens=3" "encode in/model.golf"; do
        name=${print%% *}
        undisturbed print_now > "$d/said/whole" 2> "$d/said/err"
        hit=$d/x/
        sweep read "EIO short EINTR" nothing print_now then_printed
        sweep open "EMFILE" nothing print_now then_printed
        hit=$d/said/out
        sweep write "ENOSPC EIO" nothing print_now then_printed
    done
}

# ---- limits
limit_faults() {
    section limits
    had=/nowhere f=$d/x/run
    mkdir "$d/shards"
    cp "$tmp/refs/data/tokenizer.model" "$tmp/refs/data/words_val_000000.bin" "$d/shards"
    whole=$tmp/refs/data/words_train_000000.bin
    tokens=$((($(wc -c < "$whole") - 1024) / 2)) each=$((tokens / 120 + 1)) i=0
    while [ $((i * each)) -lt "$tokens" ]; do
        here=$((tokens - i * each < each ? tokens - i * each : each))
        { head -c 8 "$whole" && printf "\\$(printf %o $((here % 256)))\\$(printf %o $((here / 256)))" &&
            head -c 1014 /dev/zero && tail -c +$((1025 + 2 * i * each)) "$whole" | head -c $((2 * here)); } \
            > "$d/shards/words_train_$(printf %06d $i).bin"
        i=$((i + 1))
    done
    fault="ulimit -n 32, $i shards" what=files
    (ulimit -n 32 && $train --data="$d/shards") > "$d/said/out" 2> "$d/said/err"
    check '$(cat $d/said/err)' cmp -s "$f/model.golf" "$r/2/model.golf"
    printf 'limits\topen files\t32, %d shards\t1\n' $i >> "$d/table"

    n=0
    for mb in 3 4 5 6 7 8 9 10 11 12 13 14 16 20; do
        (ulimit -v $((mb * 1024)) && "$GOLF" help) > /dev/null 2>&1 || continue # the loader needs some
        rm -rf run
        fault="ulimit -v ${mb} MB" what=memory n=$((n + 1))
        (ulimit -v $((mb * 1024)) && $train) > "$d/said/out" 2> "$d/said/err"
        status=$?
        if [ $status = 0 ]; then check "another model" cmp -s "$f/model.golf" "$r/2/model.golf"
        else check 'status $status, $(cat $d/said/err)' grep -qE 'error: .*(memory|MB)' "$d/said/err"; fi
    done
    fault="ulimit -v" what=memory
    check "no limit was tried" [ $n -gt 3 ]
    printf 'limits\tmemory\t%d sizes\t%d\n' $n $n >> "$d/table"
}

# ---- quotas: how many threads it takes by itself
threads_in() { # ROOT OMP_NUM_THREADS
    (
        rm -rf run
        export OMP_NUM_THREADS="$2" OMP_WAIT_POLICY=passive # not started anew
        [ "$2" ] || unset OMP_NUM_THREADS
        export LD_PRELOAD="$tmp/inject.so" INJECT=none:1:EIO INJECT_ROOT="$1"
        $train
    ) 2> "$d/said/err" | sed -n 's/.*; \([0-9]*\) threads, .*/\1/p'
}
quota() { # WANTED FILE TEXT [FILE TEXT]: below $root, whose group is /a/b
    wanted=$1 fault="quota $*" what=quota
    shift
    rm -rf "$root/sys"
    while [ $# -gt 0 ]; do
        mkdir -p "$root/sys/fs/cgroup/$(dirname "$1")"
        echo "$2" > "$root/sys/fs/cgroup/$1"
        shift 2
    done
    threads=$(threads_in "$root" "$asked")
    check "$threads threads, not $wanted" [ "$threads" = "$wanted" ]
    quotas=$((quotas + 1))
}
quota_faults() {
    section quota
    root=$d/root quotas=0 asked=
    mkdir -p "$root/proc/self" && echo "0::/a/b" > "$root/proc/self/cgroup"
    all=$(threads_in /nowhere "")
    if [ "$all" -lt 2 ]; then
        echo "skipped: quotas of processors (there is one)"
        return
    fi
    quota "$all" a/b/cpu.max "max 100000"
    quota 1 a/b/cpu.max "100000 100000"
    quota 1 a/b/cpu.max "1000 100000"
    quota 2 a/b/cpu.max "150000 100000"
    quota 1 a/cpu.max "50000 100000" a/b/cpu.max "max 100000"
    quota 1 cpu.max "50000 100000"
    quota "$all" a/cpu.max "6400000 100000"
    printf '5:cpuset:/a\n4:cpuacct,cpu:/a/b\n0::/\n' > "$root/proc/self/cgroup"
    quota 1 cpu/a/b/cpu.cfs_quota_us 100000 cpu/a/b/cpu.cfs_period_us 100000
    quota 1 cpu/a/cpu.cfs_quota_us 100000 cpu/a/cpu.cfs_period_us 100000
    quota "$all" cpu/a/b/cpu.cfs_quota_us -1 cpu/a/b/cpu.cfs_period_us 100000
    asked=2
    quota 2 cpu/a/b/cpu.cfs_quota_us 100000 cpu/a/b/cpu.cfs_period_us 100000
    fault="quota of memory"
    mkdir -p "$root/sys/fs/cgroup/memory"
    echo "4:memory:/" > "$root/proc/self/cgroup" && echo 100000 > "$root/sys/fs/cgroup/memory/memory.limit_in_bytes"
    threads_in "$root" "" > /dev/null
    check 'memory of a group: $(cat $d/said/err)' grep -q 'error: .* parameters need .* grants, 0' "$d/said/err"
    printf 'quota\tcontrol groups\tof files\t%d\n' $((quotas + 1)) >> "$d/table"

    group=/sys/fs/cgroup/cpu/golf.$$
    if mkdir "$group" 2> /dev/null && echo 100000 > "$group/cpu.cfs_quota_us"; then
        real=$(echo 0 > "$group/cgroup.procs" && cd "$d/x" && rm -rf run && unset OMP_NUM_THREADS && $train |
            sed -n 's/.*; \([0-9]*\) threads, .*/\1/p')
        check "$real threads in a real group, not 1" [ "$real" = 1 ]
        printf 'quota\tcontrol groups\ta real one\t1\n' >> "$d/table"
        sleep 0.1
    else
        echo "skipped: a real control group (cannot make one)"
    fi
    rmdir "$group" 2> /dev/null
}

# ---- signals: a hangup saves as SIGTERM does (cli.sh), and nohup is heard
hangup_faults() {
    section hangup
    f=$d/x/run fault=SIGHUP what=signal
    long="$train --steps=100000 --ckpt_every=0" heard=
    env --default-signal=HUP true 2> /dev/null && heard="env --default-signal=HUP" # under nohup, too
    for kind in heard ignored; do
        rm -rf run
        if [ $kind = heard ]; then $heard $long > "$d/said/out" 2>&1 &
        else
            (
                trap '' HUP
                exec $long
            ) > "$d/said/out" 2>&1 &
        fi
        pid=$! tries=0
        until [ -s run/log.tsv ] && [ "$(grep -c . run/log.tsv)" -ge 9 ] || [ $((tries += 1)) -gt 500 ]; do sleep 0.02; done
        kill -HUP $pid
        [ $kind = heard ] || { sleep 0.1; rows=$(grep -c . run/log.tsv); sleep 0.4; kill -TERM $pid 2> /dev/null; }
        wait $pid
        status=$?
        if [ $kind = heard ]; then
            check "status $status" [ $status = 129 ]
            check "nothing saved" [ -s run/ckpt.bin ]
            check "nothing said" grep -q "stopped by signal 1 after step" "$d/said/out"
        else
            check "nohup: status $status" [ $status = 143 ]
            check "nohup: stood still" [ "$(grep -c . run/log.tsv)" -gt "$rows" ]
        fi
    done
    printf 'hangup\tSIGHUP\theard, ignored\t2\n' >> "$d/table"
}

# ---- make submission: a command of the script fails or kills it
submit_now() {
    (cd "$root" && PATH=$d/bin:$PATH AT=$1 HOW=$2 COUNT=$d/said/count RUN=$d/x/run OUT=$d/x/record AUTHOR=a GITHUB_ID=b NAME=n \
        BUILD=0 SOURCES="golf.h Makefile" dev/submission.sh)
}
submission_faults() {
    section submission
    root=$(cd "$tmp/../.." && pwd)
    mkdir "$d/bin"
    cat > "$d/bin/cp" << 'END'
#!/bin/sh
# One of cp, mv, mkdir: the AT-th of these does half of its work and fails, or its script is killed.
name=${0##*/}
PATH=${PATH#*:}
echo "$name" >> "$COUNT"
[ "$(grep -c . "$COUNT")" = "$AT" ] || exec "$name" "$@"
case $name in
cp) for to; do :; done; [ ! -d "$to" ] || to=$to/half; echo half > "$to" ;;
esac
[ "$HOW" != kill ] || kill -9 $PPID
echo "$name: No space left on device" >&2
exit 1
END
    chmod +x "$d/bin/cp" && ln -s cp "$d/bin/mv" && ln -s cp "$d/bin/mkdir"
    sed 's/"val_tokens": "64"/"val_tokens": "0"/' "$r/2/result.json" > "$d/result"
    cp -r "$r/2" "$d/x/run" && cp "$d/result" "$d/x/run/result.json"
    submit_now 0 none > "$d/said/out" 2>&1 || { fault=none what=submission && bad "$(cat "$d/said/out")"; }
    mv "$d/x/record" "$d/whole"
    calls=$(grep -c . "$d/said/count")
    for how in fail kill; do
        n=1
        while [ $n -le "$calls" ]; do
            rm -rf "$d/x/record" "$d/said/count"
            fault="submission, call $n of $calls, $how" what=submission
            submit_now $n $how > "$d/said/out" 2> "$d/said/err"
            check "ended well" [ $? != 0 ]
            check "half a folder" [ ! -e "$d/x/record" ]
            [ $how = kill ] || check "an unfinished folder" [ ! -e "$d/x/record.part" ]
            submit_now 0 none > "$d/said/out" 2>&1
            check 'not again: $(tail -n 1 $d/said/out)' same_folders "$d/x/record" "$d/whole"
            check 'more files: $(echo $d/x/*)' [ "$(ls "$d/x" | wc -l)" = 2 ]
            n=$((n + 1))
        done
        printf 'submission\tcp, mv, mkdir\t%s\t%d\n' $how "$calls" >> "$d/table"
    done
}

references
# As many at a time as there are lines in this pipe.
mkfifo "$tmp/slots" && exec 3<> "$tmp/slots" || exit 1
printf '\n\n' >&3
sections=${ONLY:-train reads resume overwrite links prepare export print columns quota limit submission locks hangup}
: > "$tmp/shell"
for s in $sections; do
    command -v "${s}_faults" > /dev/null || { echo "no section $s: expected some of those in faults.sh"; exit 1; }
    read -r _ <&3
    {
        (
            ${s}_faults
            : > "$tmp/$s.ended"
        ) 3>&- 2>> "$tmp/shell"
        echo >&3
    } &
done
wait
grep -v '^Killed' "$tmp/shell" >&2
cat "$tmp"/*/verdicts > "$tmp/verdicts"
[ -z "${TABLE:-}" ] || cat "$tmp"/*/table > "$TABLE"
failed=$(grep -c '^FAILED' "$tmp/verdicts")
passed=$(grep -c '^ok' "$tmp/verdicts")
for s in $sections; do
    [ -f "$tmp/$s.ended" ] && continue
    failed=$((failed + 1))
    echo "FAILED $s: it came to no end"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
