#!/usr/bin/env bash
# tune.sh: searches for the best options under a cap, by successive halving. Use it as
#     make tune CAP=256000 MINUTES=120 FAMILY=recursive
# CAP      bytes of the file                          FAMILY  flat, recursive or any (default)
# MINUTES  the whole budget (60)                      STEPS   of the longest runs (12000)
# DATA     folders, "data/sotu data/sotu1024": the tokenizer is searched, too (data/sotu)
# SEED     of the draw; the runs have 100 + SEED (1)  JOBS    runs at a time, one thread each (all cores)
# OUT      folder (runs/tune/FAMILY-CAP-DATA-SEED)    SPACE   what is drawn from (dev/tune.space)
# TRIALS, REFINE   how many candidates and neighbours, instead of as many as MINUTES allows
# What it does, and what its winner is worth: dev/studies/README.md. Interrupt it as you like, start it again to go on.
set -u
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/.."
fail() { echo "tune.sh: error: $*" >&2; exit 1; }
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "expected bash 5.1 or newer, found $BASH_VERSION"

# ---- settings
cap=${CAP:-} minutes=${MINUTES:-60} family=${FAMILY:-any} longest=${STEPS:-12000} seed=${SEED:-1}
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)} space=${SPACE:-dev/tune.space} trials=${TRIALS:-} refine=${REFINE:-}
whole() { # NAME VALUE LEAST MOST
    [[ $2 =~ ^(0|[1-9][0-9]{0,9})$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] ||
        fail "$1: expected a number from $3 to $4, found '$2'"
}
[ "$cap" ] || fail "expected the bytes of the file, found none: make tune CAP=256000 MINUTES=60 FAMILY=any"
whole CAP "$cap" 1000 2000000000
whole STEPS "$longest" 16 100000000
whole SEED "$seed" 0 1000000000
whole JOBS "$jobs" 1 4096
whole TRIALS "${trials:-1}" 1 100000
whole REFINE "${refine:-0}" 0 100000
[[ $minutes =~ ^[0-9]{1,7}(\.[0-9]+)?$ && $minutes =~ [1-9] ]] || fail "MINUTES: expected a number above 0, found '$minutes'"
[[ $family =~ ^(flat|recursive|any)$ ]] || fail "FAMILY: expected flat, recursive or any, found '$family'"
[ -f "$space" ] || fail "SPACE: expected a table such as dev/tune.space, found no file '$space'"
[ -x ./train_golf ] || fail "no ./train_golf: run make"
read -ra folders <<< "${DATA:-data/sotu}"
for i in "${!folders[@]}"; do
    while [[ ${folders[i]} = ?*/ ]]; do folders[i]=${folders[i]%/}; done
done
names=("${folders[@]##*/}")
[ ${#folders[@]} -gt 0 ] || fail "DATA: expected folders, found none"
IFS=+
out=${OUT:-runs/tune/$family-$cap-${names[*]}-$seed}
unset IFS
mkdir -p "$out/runs" || fail "OUT=$out: cannot make the folder"

. dev/trainers.sh
exec 9> "$out/lock"
flock -n 9 || { echo "waiting for what an earlier start of this search left running"; flock 9; }
SECONDS=$(cat "$out/clock" 2> /dev/null || echo 0) # those of earlier starts are spent, too

# What the program knows: name, tab, default.
tab=$'\t'
./train_golf help | sed -n "s/^  --\([a-z0-9_]*\)=\([^ ]*\)  .*/\1$tab\2/p" > "$out/options.tsv"
ask() { # MODE VARIABLES...: of the table
    local mode=$1 variable given=()
    shift
    for variable; do given+=(-v "$variable"); done
    awk -v mode="$mode" "${given[@]}" -f dev/tune.awk "$out/options.tsv" "$space"
}
faults=$(ask check)
[ -z "$faults" ] || fail "$space: $faults"

# A search goes on as it was started, but for MINUTES and JOBS.
settings="CAP=$cap FAMILY=$family STEPS=$longest DATA='${folders[*]}' SEED=$seed TRIALS=$trials REFINE=$refine"
if [ -f "$out/settings" ]; then
    [ "$(cat "$out/settings")" = "$settings" ] ||
        fail "$out was started with $(cat "$out/settings"); expected the same, found $settings; or give another OUT"
    cmp -s "$space" "$out/space" || fail "$out was started with another table, $out/space; give that as SPACE, or another OUT"
else
    cp "$space" "$out/space" && echo "$settings" > "$out/settings" || fail "$out: cannot write"
fi

# Scores are those of documents held out of the training text: the validation text stays unseen.
for folder in "${folders[@]}"; do
    name=${folder##*/}
    [ -f "$folder/tokenizer.model" ] || case $name in
        sotu | sotu[0-9]* | gcide | gcide[0-9]*)
            OUT=$folder VOCAB=$(tr -dc 0-9 <<< "$name") data/get.sh "${name%%[0-9]*}" > /dev/null || exit 1 ;;
        *) fail "DATA: expected a folder with a tokenizer.model, found '$folder'; see data/get.sh" ;;
    esac
    mkdir -p runs/tune
    { # one search at a time
        flock 8
        OUT=${folder}_dev data/get.sh dev "$folder" > /dev/null || exit 1
    } 8> runs/tune/data.lock
done

fit="--cap=$cap --width=fit --fit=coded" # files near the cap, never over it

# ---- candidates have a number and options; each of their runs is a row of trials.tsv, and a file in its folder before.
steps_of=()                                     # of rungs 0, 1 and 2
dir_of() { echo "$out/runs/$1/$2"; }            # TRIAL RUNG
all_options() { cat "$out"/candidates.tsv "$out"/refined.? "$out"/refined.?? 2> /dev/null; }
options_of() { all_options | awk -F'\t' -v id="$1" '$1 == id { print $NF; exit }'; }
column() { cut -f "$3" "$(dir_of "$1" "$2")/row"; } # TRIAL RUNG COLUMN
value() { sed -n "s/^  \"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$1/result.json"; }
config() { sed -n "s/^  \"config\": {.*\"$2\": \"\([^\"]*\)\".*/\1/p" "$1/result.json"; }
calculate() { awk "BEGIN { printf \"%.4f\\n\", $1 }"; }
is() { awk "BEGIN { exit !($1) }"; }
words_of() { # TRIAL: for a command line; {NAME} is the value of another option
    local options word name value
    local -A given=()
    options=$(options_of "$1")
    for word in $options; do given[${word%%=*}]=${word#*=}; done
    for word in $options; do
        name=${word%%=*} value=${word#*=}
        while [[ $value =~ \{([a-z0-9_]+)\} ]]; do
            value=${value//"${BASH_REMATCH[0]}"/${given[${BASH_REMATCH[1]}]:-$(default_of "${BASH_REMATCH[1]}")}}
        done
        case $name in
            family) ;;
            data) printf '%s ' "--data=${value}_dev" ;;
            *) printf '%s ' "--$name=$value" ;;
        esac
    done
}
default_of() { awk -F'\t' -v name="$1" '$1 == name { print $2 }' "$out/options.tsv"; }
seconds_of() { # DIR: of training, whatever interrupted it
    cat "$1"/*/log.tsv 2> /dev/null | awk -F'\t' '{ ms += $7 } END { printf "%.1f", ms / 1000 }'
}
put_row() { # TRIAL RUNG STATUS BPB BYTES WIDTH HIDDEN REASON
    local dir
    dir=$(dir_of "$1" "$2")
    {
        printf '%s\t' "$2" "${steps_of[$2]}" "$1" "$3" "$4" "$5" "$(seconds_of "$dir")" "$6" "$7" "$(options_of "$1")"
        printf '%s\n' "$8"
    } > "$dir/row.part" && mv "$dir/row.part" "$dir/row"
}

# ---- one trial
no_result() { # TRIAL RUNG: a row that says why; fails when that is no fault of the options
    local dir why
    dir=$(dir_of "$1" "$2")
    why=$(sed -n 's/.*: error: //p' "$dir/log" | tail -n 1 | tr '\t' ' ')
    case $why in
        *"training diverged"*) put_row "$1" "$2" diverged - - - - "$why" ;;
        *) [ "$why" ] && [ ! -f "$dir/run/log.tsv" ] && put_row "$1" "$2" refused - - - - "$why" ;;
    esac
}
put_result() { # TRIAL RUNG
    local dir bytes bpb shape
    dir=$(dir_of "$1" "$2")
    bytes=$(value "$dir/run" bytes_model) bpb=$(value "$dir/run" val_bpb)
    shape="$(config "$dir/run" width) $(config "$dir/run" hidden)"
    if [ "$bytes" -gt "$cap" ]; then
        put_row "$1" "$2" over - "$bytes" $shape "$bytes bytes, over the cap of $cap"
    elif [[ $bpb =~ ^[0-9.]+$ ]]; then
        put_row "$1" "$2" ok "$bpb" "$bytes" $shape -
    else
        put_row "$1" "$2" diverged - "$bytes" $shape "a score of $bpb"
    fi
}
train_trial() { # TRIAL RUNG: a run and its row
    local dir words status
    trap - TERM # SIGINT stays ignored: the search hands on a SIGTERM, and waits for it to have its effect
    dir=$(dir_of "$1" "$2")
    mkdir -p "$dir"
    words="$(words_of "$1")$fit --steps=${steps_of[$2]} --seed=$((100 + seed))"
    if [ ! -f "$dir/run/result.json" ]; then
        train $words --ckpt_every=200 --resume=1 --out="$dir/run" > "$dir/log" 2>&1
        status=$?
        [ $status -lt 128 ] || return $status
        [ $status -eq 0 ] || { no_result "$1" "$2"; return; }
    fi
    rm -f "$dir/run/ckpt.bin"
    echo "$words" > "$dir/words"
    put_result "$1" "$2"
}

# ---- many trials, $jobs at a time
collect() { # all rows, by rung and trial; those of refinement last
    local file=$out/trials.tsv
    {
        printf 'rung\tsteps\ttrial\tstatus\tval_bpb\tbytes\tseconds\twidth\thidden\toptions\treason\n'
        cat "$out"/runs/*/[012]/row 2> /dev/null | awk -F'\t' '{
            number = $3
            sub(/^r/, "", number)
            printf "%d\t%d\t%d\t%s\n", $1, $3 ~ /^r/, number, $0 }' | sort -n -k 1,1 -k 2,2 -k 3,3 | cut -f 4-
    } > "$file.part" && mv "$file.part" "$file"
    echo $SECONDS > "$out/clock.part" && mv "$out/clock.part" "$out/clock"
}
commonest() { sort | uniq -c | sort -rn | sed 's/^ *[0-9]* //; q'; }
rows() { awk -F'\t' -v rung="$1" -v status="$2" 'NR > 1 && $1 ~ rung && $4 ~ status' "$out/trials.tsv"; } # PATTERNS
ranked() { rows "$1" '^ok$' | sort -t "$tab" -k 5,5n -k 3,3 | cut -f 3; }                              # RUNG: the best first
declare -A what=()
broken=0
# A request to stop is heard while runs are waited for, which is nearly always; elsewhere it would find decisions half made.
wait_for_one() { # -> ended, id and rung
    local status
    trap 'stopped 130' INT
    trap 'stopped 143' TERM
    wait -n -p ended
    status=$?
    trap '' INT TERM
    read -r id rung <<< "${what[$ended]}"
    unset "what[$ended]"
    return $status
}
reap() { # waits for one run to end and reports it
    local ended status id rung row
    wait_for_one
    status=$?
    row=$(dir_of "$id" "$rung")/row
    [ $status -ne 130 ] || stopped 130 # Ctrl-C, which the trainer heard, too
    if [ $status -ne 0 ] || [ ! -f "$row" ]; then
        broken=1
        echo "trial $id: failed: $(cat "${row%row}log" | tail -n 1)" >&2
        return
    fi
    collect
    grep -q "${tab}refused$tab" "$row" || done_now=$((done_now + 1))
    printf '[%s/%s] %s steps, trial %s: %s  ETA %s\n' $done_now "$batch" "${steps_of[$rung]}" "$id" \
        "$(awk -F'\t' '{ print $4 == "ok" ? substr($5, 1, 7) " in " $6 " bytes" : $4 ": " $11 }' "$row")" "$(eta "$rung")"
}
drain() { # waits for all of them
    while [ ${#what[@]} -gt 0 ]; do reap; done
    [ $broken = 0 ] || fail "a run failed, see above; what is finished is in $out/trials.tsv; start again to go on"
}
start() { # TRIAL RUNG, unless it is done
    [ ! -f "$(dir_of "$1" "$2")/row" ] || return 0
    while [ ${#what[@]} -ge "$jobs" ]; do reap; done
    [ $broken = 0 ] || drain
    train_trial "$1" "$2" &
    what[$!]="$1 $2"
}
run_batch() { # RUNG TRIALS...
    local rung=$1 id
    shift
    done_now=0 batch=0
    for id; do [ -f "$(dir_of "$id" "$rung")/row" ] || batch=$((batch + 1)); done
    for id; do start "$id" "$rung"; done
    drain
}
stopped() { # Ctrl-C: trainers save what they have
    trap '' INT TERM
    stop_trainers "${!what[@]}"
    collect
    echo "stopped; what is finished is in $out/trials.tsv; start again to go on"
    exit "$1"
}

# ---- the budget, in seconds of one job. A run costs so much per step, and some for reading, exporting, scoring.
planned() { sed -n "s/^$1 //p" "$out/plan"; }
per_step() { # of the runs so far, else of the measured ones
    rows '[012]' '^(ok|over)$' | awk -F'\t' -v measured="$(planned per_step)" '
        { seconds += $7; steps += $2 } END { print steps ? seconds / steps : measured + 0 }'
}
left() { calculate "(60 * $minutes - $SECONDS) * $jobs"; }
cost_of() { # RUNG TRIALS...: from what each took at the rung before
    local rung=$1 id sum=0
    shift
    for id; do
        sum="$sum + $(column "$id" $((rung - 1)) 7) / ${steps_of[rung - 1]} * ${steps_of[rung]} + $(planned per_run)"
    done
    calculate "$sum"
}
eta() { # RUNG: this batch and, while there are rungs to come, those
    local later=0 seconds
    [ -f "$out/finalists" ] || later="($1 < 1) * ${keep[1]} * ${steps_of[1]} + ($1 < 2) * ${keep[2]} * ${steps_of[2]}"
    seconds=$(calculate "(($batch - $done_now) * ${steps_of[$1]} + $later) * $(per_step) / $jobs")
    seconds=${seconds%.*}
    printf '%d:%02d:%02d' $((seconds / 3600)) $((seconds / 60 % 60)) $((seconds % 60))
}

# How many candidates, and for how many steps: as MINUTES allows at the speed of some short runs.
measure_one() { # TRIAL: seconds per step and per run
    trap - TERM
    local dir=$out/speed/$1 start=$EPOCHREALTIME
    train $(words_of "$1") $fit --steps=40 --ckpt_every=0 --overwrite=1 --out="$dir" > "$dir.log" 2>&1 || return 0
    echo "$(calculate "$(value "$dir" seconds) / 40") $(calculate "$EPOCHREALTIME - $start - $(value "$dir" seconds)")" > "$dir.speed"
}
measure() { # -> speed/mean: of both
    local i id rung ended
    mkdir -p "$out/speed"
    for ((i = 1; i <= 4 * jobs; i++)); do
        [ ${#what[@]} -lt "$jobs" ] || wait_for_one
        measure_one $i &
        what[$!]="$i speed"
    done
    while [ ${#what[@]} -gt 0 ]; do wait_for_one; done
    cat "$out"/speed/*.speed 2> /dev/null | awk '{ a += $1; b += $2 } END { if (NR) print a / NR, b / NR }' > "$out/speed/mean"
    [ -s "$out/speed/mean" ] ||
        fail "none of $((4 * jobs)) candidates could be trained: $(tail -qn 1 "$out"/speed/*.log | sed 's/.*: error: //' | commonest)"
}
make_plan() {
    local per_step=0 per_run=0
    if [ -z "$trials" ] || [ -z "$refine" ]; then
        measure
        read -r per_step per_run < "$out/speed/mean"
        rm -rf "$out/speed"
    fi
    awk -v per_step="$per_step" -v per_run="$per_run" -v longest="$longest" -v trials="$trials" \
        -v budget="$(calculate "60 * $minutes * $jobs * (\"$refine\" == \"0\" ? 1 : 0.7)")" '
        function rung1(n) { return n < 8 ? (n < 2 ? n : 2) : int((n + 3) / 4) }
        function rung2(n) { return n < 8 ? 1 : (n < 32 ? 2 : int((n + 15) / 16)) }
        function cost(n, steps) { # of n candidates
            return (n + rung1(n) + rung2(n)) * per_run + (n / 16 + rung1(n) / 4 + rung2(n)) * steps * per_step
        }
        BEGIN {
            steps = longest
            n = trials
            while (!trials && steps >= 160 && cost(16, steps) > budget) steps = int(0.95 * steps)
            if (!trials) for (n = 16; n < 1000 && cost(n + 1, steps) <= budget; ) n++
            print "steps", steps
            print "trials", n
            print "rung1", rung1(n)
            print "rung2", rung2(n)
            print "per_step", per_step
            print "per_run", per_run
            print "least", cost(16, 160) / (budget + 1e-9)
        }' > "$out/plan.part" || fail "$out/plan: cannot write"
    if [ -z "$trials" ] && is "$(sed -n 's/^least //p' "$out/plan.part") > 1"; then
        fail "MINUTES=$minutes: expected $(calculate "$minutes * $(sed -n 's/^least //p' "$out/plan.part") + 0.05" | sed 's/..$//')" \
            "or more: 16 candidates in rungs of 10, 40 and 160 steps"
    fi
    mv "$out/plan.part" "$out/plan"
}

# ---- halving: each rung trains the better quarter of the last for four times the steps, from the start, since the
# rates' way down is part of what is compared.
first_rung() { # candidates in turn, until so many of them were trained, or more than half of the budget is gone
    local id=0 counted
    [ ! -f "$out/rung1" ] || return 0
    done_now=0 batch=$((keep[0] - $(rows 0 '^(ok|over|diverged)$' | wc -l)))
    while :; do
        counted=$(rows 0 '^(ok|over|diverged)$' | wc -l)
        [ "$counted" -lt "${keep[0]}" ] || break
        if [ "$counted" -ge 4 ] && is "$(left) <= 0.4 * 60 * $minutes * $jobs"; then
            echo "note: more than half of MINUTES=$minutes is gone: $counted candidates, not ${keep[0]}"
            break
        fi
        if [ $((counted + ${#what[@]})) -ge "${keep[0]}" ]; then
            reap
            continue
        fi
        id=$((id + 1))
        [ $id -le "$(wc -l < "$out/candidates.tsv")" ] || break
        [ $id != 17 ] || [ "$counted" -gt 0 ] || drain
        [ $id -le 17 ] || [ "$counted" -gt 0 ] || break
        start $id 0
    done
    drain
    [ "$(ranked 0)" ] || fail "none of $((id - 1)) candidates could be trained: $(rows 0 . | cut -f 11 | commonest)"
}
first_start() { # RUNG: the table's first start, if it was trained; short rungs favour what learns fast, it is what to beat
    ! grep -q "^start  *${family/any/}" "$space" || ranked "$1" | grep -x 1
}
promote() { # RUNG FILE: the best of the rung before that the budget has room for, after the first start; what was decided once stays
    local ids first n=${keep[$1]} last
    [ ! -f "$2" ] || return 0
    first=$(first_start $(($1 - 1)))
    ids=($first $(ranked $(($1 - 1)) | head -n "$n" | grep -vx "${first:-none}"))
    n=${#ids[@]}
    while [ $n -gt 1 ]; do
        last=0
        [ "$1" = 2 ] || last=$(calculate "4 * $(cost_of "$1" "${ids[@]:0:$((keep[2] < n ? keep[2] : n))}")")
        is "$(cost_of "$1" "${ids[@]:0:$n}") + $last > $(left)" || break
        n=$((n - 1))
    done
    printf '%s\n' "${ids[@]:0:$n}" > "$2.part" && mv "$2.part" "$2"
}
halve() {
    first_rung
    promote 1 "$out/rung1"
    run_batch 1 $(cat "$out/rung1")
    promote 2 "$out/finalists"
    [ "$(cat "$out/finalists")" ] || fail "no trial of rung 1 came to an end, see $out/trials.tsv"
    run_batch 2 $(cat "$out/finalists")
}

# ---- refinement: the winner with one option changed, for a quarter of the steps; what beats it there is trained in full.
# Again from a new winner, as long as there is one and the budget lasts.
choose_neighbours() { # ROUND WINNER -> refined.ROUND: trial, parent, change, options
    local most used
    used=$(cat "$out"/refined.? "$out"/refined.?? 2> /dev/null | wc -l)
    most=$(calculate "($(left) - $(column "$2" 2 7)) / ($(column "$2" 1 7) + $(planned per_run) + 0.001)")
    most=${most%.*}
    [ -z "$refine" ] || most=$((most < refine - used ? most : refine - used))
    { [ "$most" -le 0 ] || ask neighbours "of=$(options_of "$2")" "data=${folders[*]}"; } |
        awk -F'\t' -v most="$most" -v used="$used" -v parent="$2" '
            FILENAME != "-" { if ($1 == 1) tried[$10] = 1; next }
            !($2 in tried) && n < most { printf "r%d\t%s\t%s\n", used + ++n, parent, $0 }' "$out/trials.tsv" - > "$out/refined.part"
    mv "$out/refined.part" "$out/refined.$1"
}
choose_better() { # ROUND WINNER -> better.ROUND: those that beat it at a quarter of the steps, the best first
    local id ids=() limit
    limit=$(column "$2" 1 5)
    for id in $(ranked 1); do
        [ ${#ids[@]} -lt "$jobs" ] && grep -q "^$id$tab" "$out/refined.$1" && is "$(column "$id" 1 5) < $limit" || continue
        is "$(cost_of 2 "${ids[@]}" "$id") > $(left)" || ids+=("$id")
    done
    printf '%s\n' "${ids[@]}" | grep . > "$out/better.part"
    mv "$out/better.part" "$out/better.$1"
}
refine_winner() {
    local round winner
    for ((round = 1; round <= 99; round++)); do
        winner=$(round_winner "$out/winner.$round")
        [ "$winner" ] || return 0
        [ -f "$out/refined.$round" ] || choose_neighbours $round "$winner"
        [ -s "$out/refined.$round" ] || { rm "$out/refined.$round"; break; } # a start with more MINUTES looks again
        echo "refining trial $winner, $(column "$winner" 2 5 | cut -c 1-7): $(wc -l < "$out/refined.$round" | tr -d ' ') changes"
        run_batch 1 $(cut -f 1 "$out/refined.$round")
        [ -f "$out/better.$round" ] || choose_better $round "$winner"
        run_batch 2 $(cat "$out/better.$round")
        [ "$(ranked 2 | head -n 1)" != "$winner" ] || break
    done
}
round_winner() { # FILE: of the rounds before, kept in it
    [ -f "$1" ] || { ranked 2 | head -n 1 > "$1.part" && mv "$1.part" "$1"; }
    cat "$1"
}

report() {
    local winner words
    winner=$(ranked 2 | head -n 1)
    [ "$winner" ] || fail "no trial of the last rung came to an end, see $out/trials.tsv"
    words=$(cat "$(dir_of "$winner" 2)/words")
    {
        echo "bits per byte of text held out, after ${steps_of[2]} steps:"
        for id in $(ranked 2); do
            printf '  %-5s %s in %s bytes: %s\n' "$id" "$(column "$id" 2 5 | cut -c 1-7)" "$(column "$id" 2 6)" "$(options_of "$id")"
        done
        echo "the winner, trial $winner, $(dir_of "$winner" 2)/run/model.golf, again:"
        echo "  ./train_golf train $words --out=runs/tuned-$winner"
        echo "trained on all of the training text, scored on the validation text:"
        echo "  ./train_golf train $words --out=runs/tuned" | sed 's/_dev / /; s/ --seed=[0-9]*/ --seed=1/'
    } > "$out/winner.part"
    mv "$out/winner.part" "$out/winner.txt"
    cat "$out/winner.txt"
}

search() {
    trap '' INT TERM # until runs are waited for
    collect
    if [ ! -f "$out/candidates.tsv" ]; then
        ask draw "seed=$seed" "family=$family" "n=$((${trials:-250} * 4 + 40))" "data=${folders[*]}" > "$out/candidates.part"
        mv "$out/candidates.part" "$out/candidates.tsv"
    fi
    [ -f "$out/plan" ] || make_plan
    keep=("$(planned trials)" "$(planned rung1)" "$(planned rung2)")
    steps=$(planned steps)
    steps_of=($((steps > 160 ? steps / 16 : 10)) $((steps > 40 ? steps / 4 : 10)) "$steps")
    [ "$steps" -ge "$longest" ] ||
        echo "note: MINUTES=$minutes allows $steps steps in the last rung, not $longest: what is best for more may be something else"
    echo "$out: ${keep[0]} candidates of ${steps_of[0]} steps, ${keep[1]} of ${steps_of[1]}, ${keep[2]} of ${steps_of[2]}, then refinement;" \
        "$jobs at a time, $minutes minutes in all"
    halve
    [ "$refine" = 0 ] || refine_winner
    report
}
search
