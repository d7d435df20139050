#!/bin/sh
# dev/bench/compare.sh [ROUNDS]: tokens/s of train_golf and of PyTorch (golf_torch.py) on the same model,
# in turn, ROUNDS (5) times: the ratio of every pair, their median, smallest and largest.
# PyTorch gets its best number of threads and, on AVX-512 machines, OpenBLAS's AVX-512 kernels, which it
# does not choose by itself everywhere. CONFIGS overrides what is compared: lines of key=value words.
set -eu
cd "$(dirname "$0")/../.."
export PATH="/usr/bin:$PATH" # Debian's python3 knows Debian's packages
python3 -c 'import torch' 2> /dev/null || { echo "expected python3 with torch: apt-get install python3-torch"; exit 1; }
make -s train_golf
rounds=${1:-5} steps=5
shape="width=256 heads=4 mlp=4 repeat=4 seq=256 batch=16 vocab=1024"
configs=${CONFIGS:-"$shape wq=ternary aq=int8
$shape wq=none aq=none"}
if grep -q avx512f /proc/cpuinfo 2> /dev/null; then export OPENBLAS_CORETYPE=SkylakeX; fi
cores=$(nproc)
torch() { python3 dev/bench/golf_torch.py "$@"; }
golf() { # shellcheck disable=SC2046
    ./train_golf bench step --preset=reference $(printf -- '--%s ' "$@") |
        sed -n 's/.* ms, \([0-9.]*\) tokens\/s$/\1/p'
}
echo "$configs" | while read -r config; do
    best=0 threads=1 t=1
    while [ "$t" -le "$cores" ]; do # shellcheck disable=SC2086
        speed=$(torch "$t" 3 $config)
        if awk "BEGIN { exit !($speed > $best) }"; then best=$speed threads=$t; fi
        t=$((t * 2))
    done
    echo "$config"
    echo "PyTorch $(python3 -c 'import torch; print(torch.__version__)'), best with $threads of $cores threads"
    i=0
    while [ $i -lt "$rounds" ]; do # shellcheck disable=SC2086
        echo "$(golf $config) $(torch "$threads" $steps $config)"
        i=$((i + 1))
    done | awk '{ r = $1 / $2; printf "  %8.0f tokens/s, PyTorch %7.0f: %.2f x\n", $1, $2, r
                  for (j = n++; j > 0 && a[j - 1] > r; j--) a[j] = a[j - 1]
                  a[j] = r }
            END { printf "  median %.2f x, from %.2f to %.2f\n", a[int(n / 2)], a[0], a[n - 1] }'
done
