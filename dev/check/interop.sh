#!/bin/sh
# make interop: what others read. A model is exported as safetensors, in float32 and bf16; its rules are checked
# (safetensors_rules.py), files that break one are refused, and programs that are not ours read it: the safetensors
# library, where python3 has it, and @jax-js/loaders from npm. Their numbers must be those that golf_numpy.py reads
# from model.golf. With PyTorch: the same score. RUN=runs/mine: of this run, else of a tiny one, trained here.
# What is not installed is skipped. Needs python3 with numpy. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
[ -x ./train_golf ] || { echo "no ./train_golf here: make it first"; exit 1; }
mkdir -p build && tmp=$(mktemp -d build/interop.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
check() { # WHAT COMMAND...
    what=$1
    shift
    if "$@" > "$tmp/said" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $what"
        tail -n 3 "$tmp/said"
    fi
}
refused() { ! "$@"; }

run=${RUN:-} data=${DATA:-data/sotu}
if [ -z "$run" ]; then
    run=$tmp/tiny
    if [ ! -f "$data/tokenizer.model" ]; then # any text will do
        data=$tmp/data
        ./train_golf prepare --out="$data" --name=code --vocab=400 --train train_golf.c --val golf.h > /dev/null || exit 1
    fi
    ./train_golf train --preset=tiny --data="$data" --unique=2 --repeat=2 --gain=scalar --steps=3 --val_tokens=2000 \
        --out="$run" > /dev/null || exit 1
fi
for dtype in float32 bf16; do
    check "export as $dtype" ./train_golf export "$run/model.golf" --to="$tmp/$dtype.safetensors" --dtype=$dtype
    check "$dtype: the rules of the format" python3 dev/check/safetensors_rules.py "$tmp/$dtype.safetensors"
    mkdir "$tmp/broken_$dtype" && python3 dev/check/safetensors_rules.py --break "$tmp/$dtype.safetensors" "$tmp/broken_$dtype"
    for file in "$tmp/broken_$dtype"/*; do
        check "$(basename "$file") of $dtype is refused" refused python3 dev/check/safetensors_rules.py "$file"
    done
done
check "as many broken files as rules" [ "$(ls "$tmp"/broken_*/* | wc -l)" -eq 32 ]

# name, shape and MD5 of the float32 numbers, as the reader of model.golf has them
cat > "$tmp/ours.py" << 'END'
import hashlib, sys
import numpy as np
sys.path.insert(0, "dev/check")
import golf_numpy
m = golf_numpy.load(sys.argv[1])
for name, copies, r, k, *_ in golf_numpy.table(m["config"]):
    for j, x in enumerate(m[name] if r * k else []):
        x = x.astype("<f4") if r > 1 else x[:k].astype("<f4")
        print(name if name == "embed" else "%s.%d" % (name, j), *x.shape, hashlib.md5(np.ascontiguousarray(x).tobytes()).hexdigest())
END
python3 "$tmp/ours.py" "$run/model.golf" | sort > "$tmp/ours" || exit 1
check "numbers to compare" [ "$(wc -l < "$tmp/ours")" -gt 10 ]

cat > "$tmp/library.py" << 'END'
import hashlib, sys
from safetensors.numpy import load_file
for name, x in load_file(sys.argv[1]).items():
    print(name, *x.shape, hashlib.md5(x.tobytes()).hexdigest())
END
if python3 -c 'import safetensors' 2> /dev/null; then
    python3 "$tmp/library.py" "$tmp/float32.safetensors" | sort > "$tmp/theirs"
    check "the safetensors library reads the same" cmp "$tmp/ours" "$tmp/theirs"
else
    echo "skipped: the safetensors library (no such module of python3)"
fi

mkdir "$tmp/npm"
cat > "$tmp/npm/read.mjs" << 'END'
import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { safetensors } from "@jax-js/loaders";
const { tensors } = safetensors.parse(new Uint8Array(readFileSync(process.argv[2])));
for (const [name, t] of Object.entries(tensors)) {
    const bytes = new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength);
    console.log(name, ...t.shape, createHash("md5").update(bytes).digest("hex"));
}
END
if command -v node > /dev/null && command -v npm > /dev/null &&
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$tmp/npm" @jax-js/loaders@0.1.1 > "$tmp/npm.log" 2>&1; then
    node "$tmp/npm/read.mjs" "$tmp/float32.safetensors" 2> "$tmp/npm.log" | sort > "$tmp/theirs"
    check "@jax-js/loaders reads the same: $(tail -n 1 "$tmp/npm.log")" cmp "$tmp/ours" "$tmp/theirs"
else
    echo "skipped: @jax-js/loaders (no node, no npm, or it cannot be fetched)"
fi

if python3 -c 'import torch' 2> /dev/null; then
    for dtype in float32 bf16; do
        check "PyTorch, $dtype" python3 dev/check/pytorch_parity.py "$run/model.golf" "$data" 8 "$tmp/$dtype.safetensors"
    done
else
    echo "skipped: PyTorch (no such module of python3)"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
