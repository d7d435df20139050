#!/bin/sh
# baseline.sh PRESET: trains a preset that has a record, recursive (make baseline) or flat (make flat), into
# runs/baseline or runs/flat, and sets its result beside the recorded one. It goes on with an interrupted run,
# and keeps a finished one.
set -eu
cd "$(dirname "$0")/.."
preset=${1:-recursive}
record=dev/records/$preset
run=runs/$preset
[ "$preset" != recursive ] || run=runs/baseline
[ -f "$record/model.cksum" ] || { echo "baseline.sh: error: expected recursive or flat, found '$preset'" >&2; exit 1; }
if [ -f "$run/result.json" ]; then
    echo "$run is finished; remove it to train again"
else
    ./train_golf train --preset="$preset" --out="$run" --resume=1
fi
value() { sed -n "s/^  \"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$1/result.json"; }
printf '\n%-14s %20s %20s\n' "" "this run" recorded
for key in val_bpb val_loss roundtrip_gap bytes_model steps tokens seconds tok_per_s threads isa compiler; do
    printf '%-14s %20.20s %20.20s\n' $key "$(value "$run" $key)" "$(value "$record" $key)"
done
if [ "$(cksum < "$run/model.golf")" = "$(cat "$record/model.cksum")" ]; then
    echo "model.golf is the recorded file, bit for bit"
else
    echo "model.golf is NOT the recorded file. Every machine should compute it: ./train_golf selftest says where" >&2
    echo "this build differs; please report it with that output and the compiler's command line" >&2
    exit 1
fi
