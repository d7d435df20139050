#!/bin/sh
# numpy.sh: every way of the core to store a model, scored by dev/check/golf_numpy.py and, where it can, golf_exact.py,
# and by ./train_golf: within 1e-6 bpb (golf_numpy.py with int8 inputs: 1e-3; a few codes round the other way).
# Files that are damaged, or need a system, are refused. Needs python3 with numpy. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
[ -x ./train_golf ] || { echo "no ./train_golf here: make it first"; exit 1; }
mkdir -p build && tmp=$(mktemp -d build/numpy.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED $*"; }
./train_golf prepare --out="$tmp/data" --name=code --vocab=1100 --train train_golf.c test_golf.c --val golf.h > /dev/null || exit 1
value() { awk -v key="$1" '$1 == key { print $2 }' "$2"; }
near() { # TOLERANCE PROGRAM OPTIONS
    if ! python3 "dev/check/$2.py" "$tmp/run/model.golf" "$tmp/data" 16 > "$tmp/theirs" 2>&1; then
        bad "$2.py with $3: $(tail -n 1 "$tmp/theirs")"
    elif awk -v a="$(value val_bpb "$tmp/theirs")" -v b="$(value val_bpb "$tmp/ours")" -v most="$1" \
        'BEGIN { d = a - b; exit !(a > 0 && b > 0 && d <= most && -d <= most) }' &&
        [ "$(value bytes "$tmp/theirs")" = "$(value bytes "$tmp/ours")" ]; then ok
    else
        bad "$2.py with $3: $(value val_bpb "$tmp/theirs") bpb, ours $(value val_bpb "$tmp/ours")"
    fi
}
while read -r options; do
    # shellcheck disable=SC2086
    ./train_golf train --preset=tiny --steps=20 --data="$tmp/data" --out="$tmp/run" --overwrite=1 --val_tokens=512 $options > "$tmp/said" 2>&1 ||
        { bad "$options: $(tail -n 1 "$tmp/said")" && continue; }
    ./train_golf eval "$tmp/run/model.golf" --data="$tmp/data" --val_tokens=512 > "$tmp/ours" || { bad "eval with $options" && continue; }
    case $options in
    *aq=none*) near 1e-6 golf_numpy "$options" ;;
    *) near 1e-3 golf_numpy "$options" ;;
    esac
    case $options in *aq=* | *wq=* | *wscale=* | *act=s*) ;; *) near 1e-6 golf_exact "$options" ;; esac
done << 'END'
--unique=3 --repeat=1
--unique=2 --repeat=2 --order=sequence --prelude=1 --coda=1 --gain=scalar --gate=none --mix=none --qgain=scalar
--extra_norm=each --xgain=vector --phase=0 --repeat=3 --phase_embed=1
--extra_norm=none --act=relu --rope=half --heads=4 --kv_heads=2
--width=56 --hidden=72 --heads=2
--aq=none --embed_bits=16
--aq=none --wq=none --act=silu --embed_bits=3
--aq=none --wq=int3 --wscale=group --width=160 --mlp=1 --embed_bits=8
--aq=none --wq=int4 --act=swiglu
--aq=none --wq=int8 --embed_bits=6
--aq=none --wscale=row --embed_bits=5
--aq=none --wscale=group --hidden=200 --rope=half
--aq=int4 --embed_bits=7
--wq=int5
END

# ---- damaged, in the header, in a payload, cut; and with a system
model=$tmp/run/model.golf
size=$(wc -c < "$model" | tr -d ' ')
for at in 3 40 200 $((size / 2)) $((size - 1)); do
    cp "$model" "$tmp/bad.golf"
    printf '\377' | dd of="$tmp/bad.golf" bs=1 seek="$at" conv=notrunc 2> /dev/null
    if python3 dev/check/golf_numpy.py "$tmp/bad.golf" "$tmp/data" 1 > "$tmp/said" 2>&1; then bad "byte $at of $size changed, and scored"
    elif grep -q '^golf_numpy.py: error: ' "$tmp/said"; then ok
    else bad "byte $at of $size changed: $(tail -n 1 "$tmp/said")"
    fi
done
head -c $((size - 1)) "$model" > "$tmp/bad.golf"
if python3 dev/check/golf_numpy.py "$tmp/bad.golf" "$tmp/data" 1 2>&1 | grep -q '^golf_numpy.py: error: .*no whole'; then ok; else bad "a cut file"; fi
if ./train_golf train --preset=tiny --steps=1 --lora=2 --data="$tmp/data" --out="$tmp/lora" > /dev/null 2>&1; then
    if python3 dev/check/golf_numpy.py "$tmp/lora/model.golf" "$tmp/data" 1 2>&1 | grep -q 'needs the systems lora'; then ok; else bad "a system"; fi
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
