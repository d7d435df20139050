#!/bin/sh
# dev/bench/compare.sh [ROUNDS]: tokens/s of train_golf and of PyTorch (golf_torch.py) on the same model,
# in turn, ROUNDS (5) times: the ratio of every pair, their median, smallest and largest.
# train_golf's backward products are in codes of 16 bits, and in floats; each twice: with PyTorch in fp32, and in
# autocast to bf16, whatever that costs in accuracy. PyTorch gets the best
# number of threads for itself and for its BLAS and, on AVX-512 machines, OpenBLAS's AVX-512 kernels, which it
# does not choose by itself everywhere. Debian: python3-torch and libopenblas0-pthread (the reference BLAS is
# 30 times slower). CONFIGS overrides what is compared: lines of key=value words, bwd= concerns train_golf alone.
set -eu
cd "$(dirname "$0")/../.."
export PATH="/usr/bin:$PATH" # Debian's python3 knows Debian's packages
python3 -c 'import torch' 2> /dev/null || { echo "expected python3 with torch: apt-get install python3-torch"; exit 1; }
python3 - << 'EOT' || exit 1
import sys, time, torch
a, b, best = torch.ones(1024, 1024), torch.ones(1024, 1024), 0
for _ in range(3):
    t = time.perf_counter()
    a @ b
    best = max(best, 2.0 * 1024**3 / (time.perf_counter() - t) / 1e9)
if best < 20: sys.exit("PyTorch's BLAS makes %.0f GFLOP/s: expected a fast one: apt-get install libopenblas0-pthread" % best)
EOT
make -s train_golf
rounds=${1:-5} steps=5
shape="width=256 heads=4 mlp=4 repeat=4 seq=256 batch=16 vocab=1024"
configs=${CONFIGS:-"$shape wq=ternary aq=int8 bwd=int16
$shape wq=ternary aq=int8 bwd=fp32
$shape wq=none aq=none bwd=int16
$shape wq=none aq=none bwd=fp32"}
if grep -q avx512f /proc/cpuinfo 2> /dev/null; then export OPENBLAS_CORETYPE=SkylakeX; fi
cores=$(getconf _NPROCESSORS_ONLN)
torch() { # BLAS-THREADS THREADS STEPS key=value...
    blas=$1
    shift
    OPENBLAS_NUM_THREADS=$blas python3 dev/bench/golf_torch.py "$@"
}
golf() { # shellcheck disable=SC2046
    ./train_golf bench step --preset=reference $(printf -- '--%s ' "$@") |
        sed -n 's/.* ms, \([0-9.]*\) tokens\/s$/\1/p'
}
best_of() { # MODE key=value...: sets blas, threads
    mode=$1 best=0 t=1
    shift
    while [ "$t" -le "$cores" ]; do
        for b in $(printf '%s\n' "$t" "$cores" | sort -u); do
            speed=$(torch "$b" "$t" 3 "$@" "mode=$mode")
            echo "  tried: PyTorch in $mode, $t threads, $b for the BLAS: $speed tokens/s"
            if awk "BEGIN { exit !($speed > $best) }"; then best=$speed blas=$b threads=$t; fi
        done
        t=$((t * 2))
    done
}
version=$(python3 -c 'import torch; print(torch.__version__)')
echo "$configs" | while read -r config; do
    echo "$config"
    for mode in fp32 bf16; do # shellcheck disable=SC2086
        best_of $mode $config
        echo "PyTorch $version in $mode, best with $threads threads, $blas for the BLAS"
        i=0
        while [ $i -lt "$rounds" ]; do # shellcheck disable=SC2086
            echo "$(golf $config) $(torch "$blas" "$threads" $steps $config mode=$mode)"
            i=$((i + 1))
        done | awk '{ r = $1 / $2; printf "  %8.0f tokens/s, PyTorch %7.0f: %.2f x\n", $1, $2, r; fflush()
                      for (j = n++; j > 0 && a[j - 1] > r; j--) a[j] = a[j - 1]
                      a[j] = r }
                END { printf "  median %.2f x, from %.2f to %.2f\n", a[int(n / 2)], a[0], a[n - 1] }'
    done
done
