#!/bin/sh
# mpi.sh [PATTERN]: does train_golf_mpi give, with any number of ranks and threads, the bits of train_golf? And what
# becomes of a run when a rank fails? All ranks are on this machine. Works in a folder of its own and removes it.
# PATTERN (an extended regular expression): only tests with such names.
# Environment: KILLS (3) of a rank at random moments; GOLF, GOLF_MPI: the programs.
set -u
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
cd "$(dirname "$0")/../.." || exit 1
from_root() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac } # an older macOS has no realpath
golf=$(from_root "${GOLF:-./train_golf}") mpi=$(from_root "${GOLF_MPI:-./train_golf_mpi}") pattern=${1:-}
command -v mpirun > /dev/null || { echo "mpi.sh: no mpirun here; Debian: apt-get install libopenmpi-dev openmpi-bin"; exit 1; }
[ -x "$golf" ] || { echo "mpi.sh: no $golf here: make it first"; exit 1; }
[ -x "$mpi" ] || { echo "mpi.sh: no $mpi here: make MPI=1 first"; exit 1; }
mkdir -p build && tmp=$(mktemp -d "$PWD/build/mpi.XXXXXX") || exit 1
clean_up() {
    kill $(jobs -p) 2> /dev/null
    [ -d "$tmp/disk" ] && umount "$tmp/disk" 2> /dev/null
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
check() { # WHAT COMMAND...
    what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED $what: $* ($(grep error: "$tmp/err" 2> /dev/null | tail -n 1))"
        [ -z "${GOLF_FAIL_FAST:-}" ] || exit 1 # bugs.sh
    fi
}
test_named() { # NAME: is it asked for?
    echo "$1" | grep -Eq "$pattern" || return 1
    echo "== $1"
}

# Ranks that wait give way; two or fewer would be bound to a core each, with all their threads.
launch="mpirun -q --oversubscribe --bind-to none --mca mpi_yield_when_idle 1"
[ "$(id -u)" != 0 ] || launch="$launch --allow-run-as-root"
ranks() { # K PROGRAM ARGUMENTS...; output in $tmp/out and $tmp/err
    k=$1
    shift
    $launch -n "$k" "$@" > "$tmp/out" 2> "$tmp/err" < /dev/null
}

cd "$tmp" || exit 1
name=golf_$$ # of our processes alone
cp "$mpi" "$name" && mpi=$tmp/$name
for i in 1 2 3 4; do # 60 KB of words that look a little like English
    awk -v seed=$i 'BEGIN { srand(seed); split("the of state union and people we shall our nation " \
        "with great peace to congress laws year", w, " ")
        for (i = 0; i < 3000; i++) printf "%s%s", w[1 + int(17 * rand() * rand())], rand() < .1 ? ".\n" : " " }' \
        > "text$i"
done
"$golf" prepare --out=data --name=words --vocab=320 --train text[123] --val text4 > out 2>&1 ||
    { echo "mpi.sh: train_golf prepare failed: $(cat out)"; exit 1; }
common="--preset=tiny --unique=3 --batch=16 --accum=8 --data=data --val_tokens=2000 --out=run"
steps="--steps=12 --val_every=6 --ckpt_every=5"

keep() { # NAME: the run under another name
    rm -rf "$1" && mv run "$1"
}
numbers_of() { cut -f 1-6 "$1/log.tsv" && grep -E '"(val_bpb|memory_val_bpb|val_loss|flip_rate|phases|tokens)"' "$1/result.json"; }
state_of() { # weights and moments of a checkpoint: 3 n numbers of 4 bytes (n: 8 bytes at 32), and 4 bytes more
    n=$(od -An -t u8 -j 32 -N 8 "$1/ckpt.bin" | tr -d ' ')
    tail -c $((12 * n + 4)) "$1/ckpt.bin" | head -c $((12 * n))
}
same_run() { # A B: model, state, losses, score
    state_of "$1" > a && state_of "$2" > b && cmp a b && cmp "$1/model.golf" "$2/model.golf" &&
        numbers_of "$1" > a && numbers_of "$2" > b && cmp a b
}
one_error() { # WORDS: one message, with these words
    [ "$(grep -c error: err)" = 1 ] && grep error: err | grep -q -- "$1"
}
rows() { if [ -f run/log.tsv ]; then grep -c '^[0-9]' run/log.tsv; else echo 0; fi; }
await_rows() { # N: until the log has so many, at most 60 s
    tries=1200
    until [ "$(rows)" -ge "$1" ] || [ $((tries -= 1)) = 0 ]; do sleep 0.05; done
}
in_background() { # K ARGUMENTS...: sets $job
    k=$1
    shift
    $launch -n "$k" "$mpi" "$@" > out 2> err < /dev/null &
    job=$!
}
rank_process() { # I: the process of the I-th rank of $job
    cat /proc/[0-9]*/status 2> cat.err | awk -v parent="$job" -v name="$name" '
        /^Name:/ { ours = $2 == name }
        /^Pid:/ { pid = $2 }
        /^PPid:/ { if (ours && $2 == parent) print pid }' | sort -n | sed -n "$1p"
}
ranks_left() { # how many are no zombies
    cat /proc/[0-9]*/status 2> cat.err | awk -v name="$name" '
        /^Name:/ { ours = $2 == name }
        /^State:/ { n += ours && $2 != "Z" }
        END { print n + 0 }'
}

same_bits() { # RANKS:THREADS... -- OPTIONS...
    list=
    while [ "$1" != -- ]; do
        list="$list $1"
        shift
    done
    shift
    OMP_NUM_THREADS=1 "$golf" train $common $steps "$@" > out 2>&1
    keep alone
    for of in $list; do
        OMP_NUM_THREADS=${of#*:} ranks "${of%:*}" "$mpi" train $common $steps "$@"
        check "${of%:*} ranks, ${of#*:} threads" [ $? = 0 ]
        keep shared
        check "${of%:*} ranks, ${of#*:} threads" same_run alone shared
    done
}
if test_named "same bits: Muon"; then same_bits 1:2 2:1 2:2 4:1 8:1 --; fi
if test_named "same bits: AdamW"; then same_bits 2:1 4:1 -- --optimizer=adamw --clip=0.01 --wd=0.1; fi
# The core alone lacks these.
if test_named "same bits: systems" && "$mpi" help | grep -q exit_loss; then
    same_bits 4:1 -- --exit_loss=0.1 --exit_kd=0.5 --repeat_ramp=1@0,2@0.5 --repeat=2
    same_bits 2:1 -- --lora=4 --repeat=2 --bwd=int16
fi
export OMP_NUM_THREADS=1

long="--steps=400 --ckpt_every=7 --val_tokens=500"
if test_named "what a run is without interruptions: resumed, killed"; then
    "$golf" train $common $long --resume=1 > out 2>&1
    keep alone400
fi

if test_named "resumed with other ranks, after signals"; then
    in_background 4 train $common $long
    await_rows 20
    kill -TERM "$(rank_process 2)"
    wait "$job"
    check "a signal to one rank" [ $? = 143 ]
    check "is said once" [ "$(grep -c 'stopped by signal 15 after step' out)" = 1 ]
    in_background 2 train $common $long --resume=1
    await_rows 120
    kill -USR1 "$job"
    wait "$job"
    check "a signal that mpirun passes on" [ $? = 138 ]
    check "is said once" [ "$(grep -c 'stopped by signal 10 after step' out)" = 1 ]
    in_background 4 train $common $long --resume=1
    await_rows 200
    kill -TERM "$job"
    wait "$job"
    check "the end of mpirun" [ $? != 0 ]
    "$golf" train $common $long --resume=1 > out 2> err &
    job=$!
    await_rows 250
    kill -TERM "$job"
    wait "$job"
    ranks 8 "$mpi" train $common $long --resume=1
    check "goes on" [ $? = 0 ]
    keep shared
    check "as if it had never stopped" same_run alone400 shared
fi

if test_named "killed"; then
    rm -rf run
    kills=${KILLS:-3} slowest=0
    for i in $(seq "$kills"); do
        in_background $((2 << i % 2)) train $common $long --resume=1
        sleep "$(awk -v seed="$$$i" 'BEGIN { srand(seed); print 0.5 + 1.5 * rand() }')"
        kill -9 "$(rank_process $((1 + i % 2)))" 2> /dev/null
        start=$(date +%s)
        wait "$job"
        took=$(($(date +%s) - start))
        [ $took -le $slowest ] || slowest=$took
    done
    check "no hang: the slowest end took $slowest s" [ "$slowest" -le 10 ]
    ranks 2 "$mpi" train $common $long --resume=1
    check "resumed after $kills kills" [ $? = 0 ]
    keep shared
    check "as if nobody had been killed" same_run alone400 shared
fi

if test_named "faults"; then
    ranks 1 "$mpi" train $common --steps=4
    cp run/ckpt.bin before
    untouched() { cmp before run/ckpt.bin; }

    ranks 1 "$mpi" train $common --steps=4 --overwrite=1 : -n 1 "$mpi" train $common --steps=4 --lr_embed=0.1 --overwrite=1
    check "another option" [ $? = 1 ]
    check "another option" one_error 'rank 1 of 2: .*the arguments of rank 0'
    check "another option" untouched

    cp "$mpi" other && printf x >> other
    ranks 1 "$mpi" train $common --overwrite=1 : -n 3 ./other train $common --overwrite=1
    check "another program" [ $? = 1 ]
    check "another program" one_error 'of 4: .*the program of rank 0'

    mkdir elsewhere && cp -r data elsewhere/
    printf '\1' | dd of="$(ls elsewhere/data/*_train_*.bin | head -n 1)" bs=1 seek=3000 conv=notrunc 2> dd.err
    ranks 3 "$mpi" train $common --overwrite=1 : -n 1 --wdir "$tmp/elsewhere" "$mpi" train $common --overwrite=1
    check "other shards" [ $? = 1 ]
    check "other shards" one_error 'rank 3 of 4: .*the training shards in --data of rank 0'
    check "other shards" untouched

    ranks 1 "$mpi" train $common --resume=1 : -n 1 "$mpi" train $common
    check "another command" one_error 'rank 1 of 2: .*the arguments of rank 0'
    rm -r elsewhere/data
    ranks 1 "$mpi" train $common --resume=1 : -n 1 --wdir "$tmp/elsewhere" "$mpi" train $common --resume=1
    check "no data" one_error 'rank 1 of 2: .*data: expected data'

    ranks 3 "$mpi" train $common --overwrite=1
    check "three ranks" [ $? = 1 ]
    check "three ranks" one_error '--accum=8: 3 ranks cannot share'
    ranks 4 "$mpi" train $common --accum=2 --overwrite=1
    check "too many ranks" one_error '--accum=2: 4 ranks cannot share'
    ranks 2 "$mpi" train $common --width=33
    check "what is wrong for all is said once" one_error '--width=33'
    ranks 2 "$mpi" eval run/model.golf --data=data
    check "what is not shared" one_error "found 'eval'"

    ranks 4 "$mpi" train $common --steps=60 --ckpt_every=2 --overwrite=1 --warmup=0 --lr_muon=10 --wd=10
    check "diverged" [ $? = 1 ]
    check "diverged" one_error 'training diverged'
    ranks 2 "$mpi" train $common --steps=60 --ckpt_every=2 --resume=1 --warmup=0 --lr_muon=10 --wd=10
    check "diverged again, from the checkpoint" one_error 'training diverged'
    tries=100
    until [ "$(ranks_left)" = 0 ] || [ $((tries -= 1)) = 0 ]; do sleep 0.1; done
    check "no rank is left" [ "$tries" -gt 0 ]
fi

if test_named "full disk"; then
    if mkdir disk && mount -t tmpfs -o size=80k tmpfs disk 2> /dev/null; then
        ranks 2 "$mpi" train $common --steps=4 --ckpt_every=2 --out=disk/run
        check "full disk" [ $? = 1 ]
        check "full disk" one_error 'ckpt.bin: cannot write'
        umount disk
    else
        echo "skipped: cannot mount a small tmpfs"
    fi
fi

if test_named "bench"; then
    ranks 2 "$mpi" bench step --preset=tiny --vocab=320 --batch=16 --accum=8
    check "bench step" grep -q '^2 ranks: in a step rank 0 sends [1-9][0-9]* bytes in [1-9][0-9]* messages' out
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
