#!/bin/sh
# make check: ./train_golf from the outside. Uses data/sotu, or a text generated here when that has
# not been fetched; works in a folder of its own and removes it.
# Environment: KILLS (50) tries of kill -9 while saving.
set -u
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin are slow beside other work
cd "$(dirname "$0")/../.." || exit 1
[ -x ./train_golf ] || { echo "no ./train_golf here: make it first"; exit 1; }
mkdir -p build && tmp=$(mktemp -d build/cli.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
clean_up() {
    kill $(jobs -p) 2> /dev/null
    [ -d "$tmp/disk" ] && umount "$tmp/disk" 2> /dev/null
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAILED $*"; }
check() { # WHAT COMMAND...
    what=$1
    shift
    if "$@"; then ok; else bad "$what: $* ($(tail -n 1 "$tmp/err" 2> /dev/null))"; fi
}
status() { # WANTED COMMAND...; output in $tmp/out and $tmp/err
    wanted=$1
    shift
    "$@" > "$tmp/out" 2> "$tmp/err"
    got=$?
    if [ $got = "$wanted" ]; then ok; else bad "exit status $got, not $wanted: $* ($(tail -n 1 "$tmp/err"))"; fi
}
await() { # CONDITION ARGUMENTS...: until it holds, at most 20 s
    condition=$1
    shift
    tries_left=1000
    until eval "$condition" || [ $((tries_left -= 1)) = 0 ]; do sleep 0.02; done
}
says() { check "message" grep -q "$1" "$tmp/err"; }

data=data/sotu
if [ ! -f $data/tokenizer.model ]; then
    data=$tmp/data
    for i in 1 2 3 4; do # 60 KB of words that look a little like English
        awk -v seed=$i 'BEGIN { srand(seed); split("the of state union and people we shall our nation " \
            "with great peace to congress laws year", w, " ")
            for (i = 0; i < 3000; i++) printf "%s%s", w[1 + int(17 * rand() * rand())], rand() < .1 ? ".\n" : " " }' \
            > "$tmp/text$i"
    done
    ./train_golf prepare --out="$data" --name=words --vocab=400 --train "$tmp"/text[123] --val "$tmp/text4" > /dev/null ||
        { echo "./train_golf prepare failed"; exit 1; }
fi
golf="./train_golf train --preset=tiny --cap=256000 --data=$data --val_tokens=2000 --out=$tmp" # + /OUT OPTION...
train() {
    out=$1
    shift
    $golf/"$out" "$@"
}
column() { awk -F '\t' -v c="$2" 'NR > 1 { print $c }' "$tmp/$1/log.tsv"; }

echo "== threads"
for t in 1 2 3; do OMP_NUM_THREADS=$t status 0 train threads$t --steps=30; done
for t in 2 3; do
    check "$t threads" cmp "$tmp/threads1/model.golf" "$tmp/threads$t/model.golf"
    column threads1 3 > "$tmp/a"
    column threads$t 3 > "$tmp/b"
    check "train_loss with $t threads" cmp "$tmp/a" "$tmp/b"
done
status 0 train recompute --steps=30 --recompute=1
check "--recompute=1" cmp "$tmp/threads1/model.golf" "$tmp/recompute/model.golf"
check "30 rows in log.tsv" [ "$(column threads1 1 | wc -l)" -eq 30 ]

echo "== waiting threads"
quiet="env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT -u KMP_BLOCKTIME OMP_NUM_THREADS=2"
spins() { # SETTING...: what GNU's runtime says when the command itself runs
    $quiet OMP_DISPLAY_ENV=verbose "$@" ./train_golf help 2>&1 > /dev/null |
        sed -n "s/.*GOMP_SPINCOUNT = '\(.*\)'.*/\1/p" | tail -n 1
}
if [ "$(spins)" ]; then
    check "spins $(spins) times" [ "$(spins)" = 2000 ]
    check "the user's number of spins" [ "$(spins GOMP_SPINCOUNT=77)" = 77 ]
    check "the user's policy" [ "$(spins OMP_WAIT_POLICY=passive)" = 0 ]
    check "one thread waits for none" [ "$(spins OMP_NUM_THREADS=1)" != 2000 ]
else
    echo "skipped: how long threads spin (not GNU's OpenMP)"
fi
status 0 $quiet $golf/anew --steps=30
check "started anew, the same model" cmp "$tmp/threads1/model.golf" "$tmp/anew/model.golf"
$quiet $golf/stopped --steps=100000 --ckpt_every=0 > /dev/null 2>&1 &
pid=$!
await '[ "$(column stopped 1 2> /dev/null | wc -l)" -ge 2 ]'
kill -TERM $pid
wait $pid
check "started anew, stopped by a signal to the same process" [ $? = 143 ]
check "started anew, stopped and saved" [ -f "$tmp/stopped/ckpt.bin" ]

echo "== stop and resume"
status 0 train straight --steps=400
interrupt() { # SIGNAL OUT: after about 30 steps
    $golf/"$2" --steps=400 > /dev/null 2>&1 &
    pid=$!
    await '[ "$(column "$2" 1 2> /dev/null | wc -l)" -ge 30 ]' "$1" "$2"
    kill -"$1" $pid 2> /dev/null
    wait $pid
}
for signal in TERM:143 INT:130; do
    interrupt ${signal%:*} stop${signal#*:}
    got=$?
    steps=$(column stop${signal#*:} 1 | wc -l)
    check "exit status $got of SIG${signal%:*}" [ $got = ${signal#*:} ]
    check "stopped after $steps steps of 400" [ "$steps" -lt 400 ]
    check "no model yet" [ ! -f "$tmp/stop${signal#*:}/model.golf" ]
    status 0 train stop${signal#*:} --steps=400 --resume=1
    check "resumed is straight" cmp "$tmp/straight/model.golf" "$tmp/stop${signal#*:}/model.golf"
    column straight 3 > "$tmp/a"
    column stop${signal#*:} 3 > "$tmp/b"
    check "resumed train_loss" cmp "$tmp/a" "$tmp/b"
done

echo "== systems: threads, stop and resume, the file"
train flat --steps=50 --unique=4 --repeat=1 > /dev/null
system=0
while read -r options; do # one system a line
    system=$((system + 1)) options="--steps=600 --repeat=4 $(echo "$options" | sed "s|FLAT|$tmp/flat|g")"
    # shellcheck disable=SC2086
    $golf/probe --steps=1 --overwrite=1 $options > "$tmp/probe" 2>&1 < /dev/null
    if grep -qE 'unknown option|: expected none' "$tmp/probe"; then
        echo "skipped, not part of this program: $options"
        continue
    fi
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=1 status 0 train system$system.1 $options
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=3 $golf/system$system.3 $options > /dev/null 2>&1 < /dev/null &
    pid=$!
    await '[ "$(column "$1" 1 2> /dev/null | wc -l)" -ge 30 ]' system$system.3
    kill -TERM $pid 2> /dev/null
    wait $pid
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=2 status 0 train system$system.3 $options --resume=1
    check "other threads, resumed: $options" cmp "$tmp/system$system.1/model.golf" "$tmp/system$system.3/model.golf"
    check "a table: $options" awk -F '\t' 'NR == 1 { n = NF; next } NF > n { exit 1 }
        { for (i = 1; i <= NF; i++) if ($i !~ /^([-+0-9.e]+( [-+0-9.e]+)*)?$/) exit 1 }' "$tmp/system$system.3/log.tsv"
    case $options in *--qat=noise*) continue ;; esac # the file is not what was trained
    check "the file: $options" grep -q '"roundtrip_gap": 0,' "$tmp/system$system.1/result.json"
done << 'END'
--wq=quest --wbits=2 --aq=quest --abits=4
--wq=ternary --wscale=row --ste=clip --aq=int4
--wq=binary --ffn_hi=8 --hi_experts=2 --hi_route=token
--protect=wdown:8:20% --qat_ramp=0.5 --qat_order=each
--init_from=FLAT/ckpt.bin --convert=average --cluster=4,30,shared
--init_from=FLAT/ckpt.bin --convert=average --cluster=4,30,each --cluster_lr=0.01 --cluster_steps=20 --cluster_rows=16
--init_from=FLAT/ckpt.bin --convert=average --lora=4 --teacher=FLAT/ckpt.bin --kd=0.3
--unshare=wdown --repeat_ramp=1@0,2@0.3,4@0.5
--repeat_random=1 --backprop=2 --momentum_warmup=50
--ffn=fips --fips_rank=16
--init_from=FLAT/ckpt.bin --convert=average --ffn=fips --fips_rank=70 --fips_group=2 --fips_steps=60 --fips_rows=16 --fips_prune=accelerated
--experts=4 --expert_size=32 --moe_bias=1 --norm=peri --init=moeut --act=relu
--attn_experts=3 --act=swiglu --rope=half
--unet=1 --baseline_init=1 --shuffle=0 --muon_split=1
--embed_rank=16
--qat=noise --wq=int4 --aq=none
--fit=coded --width=fit --cap=40000 --wq=int4
END

echo "== a signal during validation, data of another tokenizer"
$golf/val --steps=100000 --ckpt_every=0 --val_every=1 > /dev/null 2>&1 &
pid=$!
await '[ "$(column val 1 2> /dev/null | wc -l)" -ge 2 ]'
kill -TERM $pid
wait $pid
check "exit status of a stop while validating" [ $? = 143 ]
check "what stops also saves" [ -f "$tmp/val/ckpt.bin" ]
rm "$tmp/val/ckpt.bin"
touch "$tmp/val/model.golf"
status 1 train val --resume=1
says "nothing to resume"
mkdir "$tmp/other"
cp "$data"/*.bin "$tmp/other"
echo other > "$tmp/other/tokenizer.model"
status 1 train other_run --data="$tmp/other" --tokenizer=$data/tokenizer.model
says "belong together"

echo "== kill -9 while saving every step"
tries=0 loaded=0
while [ $tries -lt "${KILLS:-50}" ]; do
    rm -rf "$tmp/kill"
    $golf/kill --steps=100000 --ckpt_every=1 > /dev/null 2>&1 &
    pid=$!
    await '[ -f "$tmp/kill/ckpt.bin" ]'
    sleep "0.$(awk -v s=$tries 'BEGIN { srand(s); printf "%03d", int(150 * rand()) }')"
    kill -9 $pid 2> /dev/null
    wait $pid 2> /dev/null
    tries=$((tries + 1))
    [ -f "$tmp/kill/ckpt.bin" ] || continue
    # another option than the run had: the checkpoint is read, its checksum checked, then refused
    train kill --steps=100000 --ckpt_every=1 --resume=1 --lr=0.5 > /dev/null 2> "$tmp/err"
    grep -q 'started with --lr' "$tmp/err" && loaded=$((loaded + 1))
done
check "$loaded of $tries checkpoints loaded" [ $loaded = $tries ]
steps=$(column kill 1 | tail -n 1)
$golf/kill --steps=100000 --ckpt_every=1 --resume=1 > "$tmp/out" 2>&1 & # and really goes on
pid=$!
sleep 1
kill -TERM $pid
wait $pid
check "resumed after kill -9" [ $? = 143 ]
check "went on from $steps" [ "$(column kill 1 | tail -n 1)" -gt "${steps:-0}" ]
check "steps in order" sh -c "awk -F '\t' 'NR > 1 && \$1 != NR - 1 { exit 1 }' '$tmp/kill/log.tsv'"

echo "== refusals"
status 1 train threads1 --steps=30
says 'holds a run'
status 1 train threads1 --steps=30 --resume=1 --lr=0.1
says 'lr'
status 1 train threads1 --steps=31 --resume=1
says 'steps'
cp -r "$tmp/threads1" "$tmp/moved" && printf x >> "$tmp/moved/tokenizer.model"
status 1 train moved --steps=30 --resume=1
says 'found another'
$golf/busy --steps=100000 > /dev/null 2>&1 &
pid=$!
await '[ -s "$tmp/busy/log.tsv" ]'
status 1 train busy --steps=100000 --overwrite=1
says 'another run'
kill -TERM $pid
wait $pid
status 1 ./train_golf fly
says 'unknown command'
status 1 ./train_golf
says '^usage: ./train_golf train'
status 1 ./train_golf prepare
says 'usage: ./train_golf prepare'
status 1 ./train_golf eval
says 'usage'
status 1 train new --widht=3
says 'width'
status 0 ./train_golf help
status 0 ./train_golf --help

if mkdir "$tmp/disk" && mount -t tmpfs -o size=300k tmpfs "$tmp/disk" 2> /dev/null; then
    status 1 train disk/run --steps=3
    says 'cannot write'
    check "no half file" [ ! -f "$tmp/disk/run/ckpt.bin.tmp" ]
    umount "$tmp/disk"
else
    rmdir "$tmp/disk"
    echo "skipped: a full disk (cannot mount a small tmpfs)"
fi
if [ -c /dev/full ]; then
    for command in help --help selftest; do
        status 1 sh -c "./train_golf $command > /dev/full"
        says 'cannot write'
    done
else
    echo "skipped: output that cannot be written (there is no /dev/full)"
fi
if [ "$(id -u)" = 0 ]; then
    echo "skipped: an unwritable folder (root may write everywhere)"
else
    mkdir -m 555 "$tmp/locked"
    status 1 train locked/run --steps=1
    says 'cannot'
fi

echo "== eval, sample, info, result.json"
run=$tmp/threads1
status 0 ./train_golf eval "$run/model.golf" --data=$data --val_tokens=2000
value() { sed -n "s/^ *\"$1\": \([^,]*\),*\$/\1/p" "$run/result.json"; }
check "eval prints the bpb of result.json" awk -v a="$(awk '$1 == "val_bpb" { print $2 }' "$tmp/out")" \
    -v b="$(value val_bpb)" 'BEGIN { exit !(a != "" && b != "" && a - b < 1e-8 && b - a < 1e-8) }'
check "no gap between memory and file" [ "$(value roundtrip_gap)" = 0 ]
check "bytes_model" [ "$(value bytes_model)" = "$(wc -c < "$run/model.golf" | tr -d ' ')" ]
for t in 1 3; do
    OMP_NUM_THREADS=$t status 0 ./train_golf eval "$run/model.golf" --data=$data --val_tokens=1500 --certify=1
    check "a certificate" grep -q '^certified yes$' "$tmp/out"
    cp "$tmp/out" "$tmp/certificate$t"
done
check "the same certificate with 3 threads" cmp "$tmp/certificate1" "$tmp/certificate3"
status 0 ./train_golf info "$run/model.golf" --cap=256000
check "info adds up" grep -q "^total $(value bytes_model)" "$tmp/out"
check "info fits" grep -q '^FITS' "$tmp/out"
for seed in 1 1 2; do
    status 0 ./train_golf sample "$run/model.golf" --prompt="the " --tokens=60 --seed=$seed --temperature=1
    cp "$tmp/out" "$tmp/sample$seed.$((n = ${n:-0} + 1))"
done
check "the same seed, the same text" cmp "$tmp/sample1.1" "$tmp/sample1.2"
check "another seed, another text" [ "$(cksum < "$tmp/sample1.1")" != "$(cksum < "$tmp/sample2.3")" ]
check "the text starts with the prompt" grep -q '^the ' "$tmp/sample1.1"
status 0 ./train_golf bench --preset=tiny --vocab=300
for line in '^fp32 peak [0-9]* GFLOP/s' '^wdown  *32  *64  *[0-9]' ' tokens/s$' '^  attention  *[0-9.]* ms  *[0-9.]*%$'; do
    check "bench prints $line" grep -q "$line" "$tmp/out"
done
status 0 ./train_golf bench shapes --preset=tiny --vocab=300 --cap=12000
check "bench shapes: all lines within the cap" awk '$1 + 0 > 0 && NF > 10 { n++; if ($5 > 12000 || $7 <= 0) bad = 1 }
    END { exit bad || n < 4 }' "$tmp/out"
check "bench shapes: what train takes" grep -q '^ *32  *2  *16  *64 .*<- what train takes$' "$tmp/out"
keys="name preset seed steps tokens seconds tok_per_s peak_memory_mb threads val_loss val_bpb val_tokens val_bytes memory_val_bpb
      roundtrip_gap bytes_model bytes_code bytes_total cap fits params_stored params_ternary flops_per_token bytes
      phases zero_fraction flip_rate config git_rev compiler isa"
if command -v python3 > /dev/null; then
    for key in $keys; do echo "$key"; done > "$tmp/keys"
    check "result.json" python3 -c "
import json, sys
r = json.load(open('$run/result.json'))
missing = [k for k in open('$tmp/keys').read().split() if k not in r]
missing += [k for k in 'core embedding interface protected header'.split() if k not in r['bytes']]
if missing or sum(r['bytes'].values()) != r['bytes_model'] or len(r['phases']) != 2 or r['fits'] is not True:
    sys.exit('result.json: missing %s' % missing)"
else
    for key in $keys; do check "key $key" grep -q "\"$key\": " "$run/result.json"; done
    echo "skipped: parsing result.json (no python3)"
fi

echo "$passed passed, $failed failed"
[ $failed = 0 ]
