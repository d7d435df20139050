#!/usr/bin/env bash
# study.sh N: runs the study dev/studies/N_*, or that in folder N: every arm of its plan.tsv with every seed, in turn of
# seeds, so that a study that is cut short still has pairs. Use it as `make study N=1`. Settings are environment variables:
#   SEEDS=7   seeds 1..7 for every arm; 4-6: these (default: the plan's own column)     JOBS=2   runs at a time, one thread each
#   ARMS="a b"   these arms alone, with those that they start from; results stay under runs/
#   KEEP=1    what results.tsv has already is not run again; without, its rows stay until their runs are done here, too
#   QUICK=1   a fiftieth of the steps, two seeds, a part of the validation text; results stay under runs/
# A run with a result.json is done and kept, others are resumed: interrupt it as you like, start it again to go on.
#
# plan.tsv: arm, seeds (5: 1 to 5; or 101-102), options, separated by tabs; arm * stands for all and comes first. A later
# option wins. --init_from=@ARM (or another option): the last checkpoint of that arm, same seed; ARM stands before those that need it.
# evals.tsv (optional): column, options of `train_golf eval`: what each finished model.golf is scored with besides.
set -u
cd "$(dirname "$0")/../.."
fail() { echo "study.sh: error: $*" >&2; exit 1; }
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "expected bash 5.1 or newer, found $BASH_VERSION"
[ "${1:-}" ] || fail "expected the number of a study: make study N=1; there are: $(cd dev/studies && ls -d [0-9]*_* | tr '\n' ' ')"
study=$([ -f "$1/plan.tsv" ] && echo "${1%/}" || ls -d dev/studies/"$1"_* 2> /dev/null | head -n 1)
[ -f "$study/plan.tsv" ] || fail "no dev/studies/$1_*/plan.tsv and no $1/plan.tsv; there are: $(cd dev/studies && ls -d [0-9]*_* | tr '\n' ' ')"
[ -x ./train_golf ] || fail "no ./train_golf: run make"
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)} quick=${QUICK:+-quick}
[[ "$jobs ${SEEDS:-1}" =~ ^[1-9][0-9]*" "[0-9]+(-[0-9]+)?$ ]] || fail "expected numbers JOBS and SEEDS (or 4-6), found '$jobs' and '${SEEDS:-}'"
runs=runs/studies/$(basename "$study")$quick
mkdir -p "$runs"

. dev/trainers.sh
exec 9> "$runs/lock"
flock -n 9 || { echo "waiting for what an earlier start of this study left running"; flock 9; }

column() { awk -F'\t' -v want="$2" '!/^#/ && NF > 1 && $1 != "*" { print $want }' "$1"; }
options_of() {  # of an arm: what * says, then its own, then what QUICK shortens
    awk -F'\t' -v arm="$1" '!/^#/ && ($1 == "*" || $1 == arm) { printf "%s ", $3 }' "$study/plan.tsv"
}
donor_of() { options_of "$1" | sed -n 's/.*--init_from=@\([^ ]*\).*/\1/p'; }
value() { sed -n "s/^  \"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$1/result.json"; }
config() { sed -n "s/^  \"config\": {.*\"$2\": \"\([^\"]*\)\".*/\1/p" "$1/result.json"; }

kept() {  # [ARM SEED]: rows of runs that are not here
    [ ! -f "$runs/kept.tsv" ] || awk -F'\t' -v arm="${1:-}" -v seed="${2:-}" \
        'NR > 1 && (arm == "" || $1 == arm) && (seed == "" || $2 == seed)' "$runs/kept.tsv"
}
finished() {  # ARM SEED
    local dir=$runs/$1/$2
    [ -f "$dir/diverged" ] || { [ -f "$dir/result.json" ] && { [ ! -f "$study/evals.tsv" ] || [ -f "$dir/evals.tsv" ]; }; }
}
train_one() {  # ARM SEED: train, unless done; then the extra scores. Leaves why in $dir/log on failure.
    local arm=$1 seed=$2 dir=$runs/$1/$2 options steps short= name how
    mkdir -p "$dir"
    options=$(options_of "$arm" | sed "s|=@\([^ ]*\)|=$runs/\1/$seed/ckpt.bin|g")
    [ -z "$quick" ] || {
        steps=$(echo "$options" | sed -n 's/.*--steps=\([0-9]*\).*/\1/p')
        short="--steps=$((steps / 50 > 10 ? steps / 50 : 10)) --val_tokens=4096"
    }
    [ -f "$dir/result.json" ] || [ -f "$dir/diverged" ] ||
        train $options $short --seed="$seed" --out="$dir" --resume=1 > "$dir/log" 2>&1 || {
            grep -q "training diverged" "$dir/log" || return 1
            tail -n 1 "$dir/log" > "$dir/diverged"
        }
    ! finished "$arm" "$seed" || return 0
    column "$study/evals.tsv" 1 | while read -r name; do
        how=$(awk -F'\t' -v want="$name" '$1 == want { print $2 }' "$study/evals.tsv")
        printf '%s\t' "$name"
        OMP_NUM_THREADS=1 ./train_golf eval "$dir/model.golf" $(echo "$options" | grep -o -- '--data=[^ ]*' | tail -n 1) \
            $how ${quick:+--val_tokens=4096} 2>> "$dir/log" | sed -n 's/^val_bpb //p' | grep . || return 1
    done > "$dir/evals.part" && mv "$dir/evals.part" "$dir/evals.tsv"
}

row_of() {  # ARM SEED: a row of results.tsv
    local dir=$runs/$1/$2 key
    printf '%s\t%s' "$1" "$2"
    if [ -f "$dir/result.json" ]; then
        for key in val_bpb roundtrip_gap bytes_model; do printf '\t%s' "$(value "$dir" $key)"; done
        for key in interface protected; do
            printf '\t%s' "$(sed -n "s/^  \"bytes\": {.*\"$key\": \([0-9]*\).*/\1/p" "$dir/result.json")"
        done
        for key in steps tokens seconds tok_per_s flops_per_token; do printf '\t%s' "$(value "$dir" $key)"; done
        printf '\t%s\t%s\t%s' "$(config "$dir" width)" "$(config "$dir" hidden)" "$(value "$dir" git_rev)"
        for key in weight_bits weight_bits_packed; do printf '\t%s' "$(value "$dir" $key)"; done
    else
        printf '\tdiverged\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-'
    fi
    [ ! -f "$study/evals.tsv" ] || column "$study/evals.tsv" 1 | while read -r name; do
        printf '\t%s' "$(awk -F'\t' -v want="$name" '$1 == want { print $2 }' "$dir/evals.tsv" 2> /dev/null || echo -)"
    done
    echo
}

header() {
    printf 'arm\tseed\tval_bpb\troundtrip_gap\tbytes\tinterface\tprotected\tsteps\ttokens\tseconds\ttok_per_s\tflops_per_token\twidth\thidden\tgit_rev\tweight_bits\tweight_bits_packed'
    [ ! -f "$study/evals.tsv" ] || printf '\t%s' $(column "$study/evals.tsv" 1)
    echo
}
collect() {  # all finished runs, in the order of the plan
    local to=$1 arm seed
    {
        header
        column "$study/plan.tsv" 1 | while read -r arm; do
            for seed in $({ ls "$runs/$arm" 2> /dev/null; kept "$arm" | cut -f 2; } | sort -nu); do
                if finished "$arm" "$seed"; then row_of "$arm" "$seed"; else kept "$arm" "$seed"; fi
            done
        done
    } > "$to.part" && mv "$to.part" "$to"
}

# The corpora of the plan: data/sotuN is the default text with N pieces, data/gcideN the dictionary.
for data in $(grep -o -- '--data=[^ ]*' "$study/plan.tsv" | sed 's/--data=//' | sort -u); do
    name=$(basename "$data")
    [ -f "$data/tokenizer.model" ] ||
        OUT=$data VOCAB=$(tr -dc 0-9 <<< "$name") data/get.sh "${name%%[0-9]*}" > /dev/null || exit 1
done

# What is to be done, seed by seed.
todo=() plan=() most=0
for arm in ${ARMS:-}; do
    column "$study/plan.tsv" 1 | grep -qxF -- "$arm" || fail "ARMS: there is no $arm in $study/plan.tsv"
    wanted+=" $arm $(donor_of "$arm") "
done
while read -r arm seeds; do
    [[ ${wanted:- $arm } = *" $arm "* ]] || continue
    seeds=${SEEDS:-$seeds}
    [[ $seeds = *-* ]] || seeds=1-$seeds
    first=${seeds%-*} last=${seeds#*-}
    [ -z "$quick" ] || last=$((first + 1))
    plan+=("$arm $first $last")
    [ "$last" -le $most ] || most=$last
done < <(awk -F'\t' '!/^#/ && NF > 1 && $1 != "*" { print $1, $2 }' "$study/plan.tsv")
results=$study/results.tsv
[ -z "$quick${ARMS:-}" ] || results=$runs/results.tsv
rm -f "$runs/kept.tsv"
if [ -f "$study/results.tsv" ] && [ "${KEEP:-}" -o "$results" = "$study/results.tsv" ]; then
    if [ "$(head -n 1 "$study/results.tsv")" = "$(header)" ]; then
        cp "$study/results.tsv" "$runs/kept.tsv" || exit 1
    elif [ "${KEEP:-}" ]; then
        fail "KEEP=1: $study/results.tsv has other columns than this program gives; remove it to run all again"
    else
        results=$runs/results.tsv
        echo "note: $study/results.tsv has other columns than this program gives, and stays; results go to $results"
    fi
fi
for ((seed = 1; seed <= most; seed++)); do
    for entry in "${plan[@]}"; do
        read -r arm first last <<< "$entry"
        [ "$seed" -ge "$first" ] && [ "$seed" -le "$last" ] || continue
        finished "$arm" "$seed" || [ "${KEEP:+$(kept "$arm" "$seed")}" ] || todo+=("$arm $seed")
    done
done

stopped() {  # Ctrl-C: trainers save what they have, what is finished is written down
    trap '' INT TERM
    stop_trainers "${!what[@]}"
    collect "$results"
    dev/studies/report.sh "$study" "$results" > /dev/null
    echo "stopped; the runs that are finished are in $results"
    exit $1
}
declare -A what=()
trap 'stopped 130' INT
trap 'stopped 143' TERM
echo "$study: ${#plan[@]} arms, ${#todo[@]} runs to do, $jobs at a time, in $runs"
started=$SECONDS done=0 broken=0
reap() {  # waits for one run to end and reports it
    local pid status arm seed
    wait -n -p pid; status=$?
    read -r arm seed <<< "${what[$pid]}"
    unset "what[$pid]"
    done=$((done + 1))
    if [ $status -ne 0 ]; then
        broken=1
        echo "$arm, seed $seed: failed: $(tail -n 1 "$runs/$arm/$seed/log")" >&2
        return
    fi
    local left=$(((SECONDS - started) * (${#todo[@]} - done) / done)) dir=$runs/$arm/$seed
    printf '[%d/%d] %s, seed %s: %s  ETA %d:%02d:%02d\n' $done ${#todo[@]} "$arm" "$seed" \
        "$([ -f "$dir/diverged" ] && echo diverged || value "$dir" val_bpb | cut -c1-7)" \
        $((left / 3600)) $((left / 60 % 60)) $((left % 60))
}
for entry in "${todo[@]}"; do
    [ ${#what[@]} -lt "$jobs" ] || reap
    read -r arm seed <<< "$entry"
    donor=$(donor_of "$arm")
    while [ "$donor" ] && ! finished "$donor" "$seed" && [ ${#what[@]} -gt 0 ]; do reap; done
    [ $broken -eq 0 ] || break
    train_one "$arm" "$seed" &
    what[$!]=$entry
done
while [ ${#what[@]} -gt 0 ]; do reap; done

collect "$results"
[ $broken -eq 0 ] || fail "a run failed, see above; the finished ones are in $results"
dev/studies/report.sh "$study" "$results"
