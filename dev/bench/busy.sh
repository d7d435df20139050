#!/bin/sh
# dev/bench/busy.sh [ROUNDS]: tokens/s beside 0, 1, 2 and 4 busy processes, with OpenMP's own way of
# waiting (before) and with the program's (after), in turn, ROUNDS (5) times; medians, and the part of
# the fair share that is reached: of C cores T threads beside B busy processes are due C / (T + B), if
# that is under 1, of what they do alone. Run it on a quiet machine; all cores will be busy.
# Environment: GOLF=./train_golf; STEPS=40 of a run, OPTIONS more options of it; BUSY="0 1 2 4";
# LIMIT=600 seconds after which a busy process ends, whatever happens.
set -u
cd "$(dirname "$0")/../.." || exit 1
golf=${GOLF:-./train_golf} rounds=${1:-5} steps=${STEPS:-40} limit=${LIMIT:-600}
[ -x "$golf" ] || { echo "no $golf here: make it first"; exit 1; }
[ -f data/sotu/tokenizer.model ] || { echo "no data/sotu here: data/get.sh sotu"; exit 1; }
unset OMP_WAIT_POLICY GOMP_SPINCOUNT KMP_BLOCKTIME
command -v timeout > /dev/null || timeout() { shift && "$@"; } # macOS has none
tmp=$(mktemp -d "${TMPDIR:-/tmp}/golf_busy_XXXXXX") || exit 1
busy=
end_busy() {
    [ -z "$busy" ] || kill $busy 2> /dev/null
    for pid in $busy; do wait "$pid" 2> /dev/null; done
    busy=
}
trap 'end_busy; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

start_busy() { # N
    while [ "$(echo $busy | wc -w)" -lt "$1" ]; do
        timeout "$limit" awk 'BEGIN { for (;;) n++ }' &
        busy="$busy $!"
    done
}
rate() { # SETTING...: tokens/s of a short run
    # OPTIONS are words: no quotes.
    env "$@" "$golf" train --steps="$steps" --val_tokens=300 --ckpt_every=0 --overwrite=1 \
        ${OPTIONS:-} --out="$tmp/run" > "$tmp/log" 2>&1 || { tail -n 1 "$tmp/log" >&2; exit 1; }
    sed -n 's/^  "tok_per_s": \(.*\),$/\1/p' "$tmp/run/result.json"
}

for b in ${BUSY:-0 1 2 4}; do
    round=0
    while [ $round -lt "$rounds" ]; do
        start_busy "$b"
        # The defaults of GNU's runtime and of LLVM's.
        before=$(rate GOMP_SPINCOUNT=300000 KMP_BLOCKTIME=200) || exit 1
        after=$(rate) || exit 1
        end_busy
        echo "$b $before $after" >> "$tmp/rates"
        round=$((round + 1))
    done
done
threads=$(sed -n 's/^  "threads": \(.*\),$/\1/p' "$tmp/run/result.json")
echo "$threads threads on $(nproc) cores, medians of $rounds: tokens/s"
sort -n "$tmp/rates" | awk -v threads="$threads" -v cores="$(nproc)" '
    function median(x, n,    i, j, t) {
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && x[j] < x[j - 1]; j--) { t = x[j]; x[j] = x[j - 1]; x[j - 1] = t }
        return n % 2 ? x[(n + 1) / 2] : (x[n / 2] + x[n / 2 + 1]) / 2
    }
    function row(    fair, was, is, gain) {
        gain = median(ratio, n)
        was = median(old, n)
        is = median(new, n)
        if (busy == 0) alone = is
        fair = cores / (threads + busy)
        if (fair > 1) fair = 1
        printf "%5d %9.0f %9.0f %8.2f", busy, was, is, gain
        if (alone) printf " %11.0f %7.0f%% %7.0f%%", fair * alone, 100 * was / (fair * alone), 100 * is / (fair * alone)
        print ""
    }
    BEGIN { printf "%5s %9s %9s %8s %11s %8s %8s\n", "busy", "before", "after", "ratio", "fair share", "before", "after" }
    n && $1 != busy { row(); n = 0 }
    { busy = $1; n++; old[n] = $2; new[n] = $3; ratio[n] = $3 / $2 }
    END { if (n) row() }'
