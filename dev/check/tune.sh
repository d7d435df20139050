#!/usr/bin/env bash
# dev/tune.sh in seconds: its draws with every awk, its table after interruptions, its winner trained again, its errors; and
# the folders that it scores on. Makes its own text; needs ./train_golf. Ends with `N passed, N failed`.
set -u
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
cd "$(dirname "$0")/../.." || exit 1
[ -x ./train_golf ] || { echo "no ./train_golf here: make it first"; exit 1; }
mkdir -p build && tmp=$(mktemp -d build/tune.XXXXXX) || exit 1 # not TMPDIR: what a search is called has no space
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
check() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@" > /dev/null 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $what"; fi
}
same() { [ "$1" = "$2" ] || { echo "FAILED $3: expected '$1', found '$2'"; false; } && passed=$((passed + 1)) || failed=$((failed + 1)); }
says() { # WHAT FILE
    grep -qF -- "$1" "$2" && passed=$((passed + 1)) && return
    failed=$((failed + 1))
    echo "FAILED: expected '$1', found: $(tail -n 1 "$2")"
}

# ---- the table: draws and neighbours, worked by hand
printf '%s\t%s\n' lr 0.5 wq ternary bits 2 unique 3 repeat 1 ramp "" > "$tmp/options.tsv"
cat > "$tmp/space" << 'END'
lr      0.1 0.2 0.5 # rates
wq      ternary quest int4
bits    2 3 4           when wq=quest
bits    8               when wq=int4
unique  2 3             when family=flat
unique  1               when family!=flat
repeat  1               when unique>1
repeat  2 3             when family=recursive unique<2
ramp    - 1@0,{repeat}@0.5      when repeat>1 wq=quest|ternary
start   flat lr=0.3 wq=quest bits=5
END
ask() { # MODE VARIABLES...
    local mode=$1 variable given=()
    shift
    for variable; do given+=(-v "$variable"); done
    $awk -v mode="$mode" "${given[@]}" -f dev/tune.awk "$tmp/options.tsv" "${table:-$tmp/space}"
}
printf '#!/bin/sh\nexec busybox awk "$@"\n' > "$tmp/busybox_awk"
chmod +x "$tmp/busybox_awk"
command -v busybox > /dev/null && extra=$tmp/busybox_awk
for awk in awk mawk original-awk gawk ${extra:-}; do
    command -v $awk > /dev/null || { echo "skipped: $awk is not installed"; continue; }
    ask draw seed=3 family=any n=40 data="a b" > "$tmp/drawn" 2>&1
    [ -f "$tmp/drawn.first" ] || cp "$tmp/drawn" "$tmp/drawn.first"
    check "$awk draws the same" cmp "$tmp/drawn" "$tmp/drawn.first"
    ask neighbours of="family=recursive lr=0.2 wq=quest bits=4 unique=1 repeat=3 ramp=1@0,{repeat}@0.5 data=a" data="a b" > "$tmp/near"
    [ -f "$tmp/near.first" ] || cp "$tmp/near" "$tmp/near.first"
    check "$awk: the same neighbours" cmp "$tmp/near" "$tmp/near.first"
done
awk=awk
ask draw seed=3 family=any n=40 data="a b" > "$tmp/drawn"
same "1	family=flat lr=0.3 wq=quest bits=5 data=a" "$(head -n 1 "$tmp/drawn")" "what is known to be good comes first"
same 40 "$(cut -f 2 "$tmp/drawn" | sort -u | wc -l | tr -d ' ')" "no candidate twice"
check "flat and recursive in turn" awk '{ n[$2]++ } END { exit !(n["family=flat"] > 15 && n["family=recursive"] > 15) }' "$tmp/drawn"
check "conditions hold" awk '
    NR > 1 && (/flat/ != /unique=[23] / || /flat/ != /repeat=1/ || /recursive/ != /unique=1 repeat=[23]/) { exit 1 }
    (/quest/ != /bits=[2-5]/ || /int4/ != /bits=8/ || (/ramp/ && (/int4/ || /repeat=1/))) { exit 1 }' "$tmp/drawn"
for value in lr=0.1 lr=0.2 lr=0.5 wq=ternary bits=2 bits=3 bits=4 bits=8 repeat=3 ramp= data=b; do
    check "$value is drawn" grep -q " $value" "$tmp/drawn"
done
ask draw seed=4 family=any n=40 data="a b" > "$tmp/other"
check "another seed, other candidates" [ "$(sort "$tmp/other" "$tmp/drawn" | uniq -d | wc -l)" -lt 8 ]
ask draw seed=3 family=recursive n=1000 data=a > "$tmp/all"
same 54 "$(wc -l < "$tmp/all" | tr -d ' ')" "all there are: 3 rates x (ternary 2 x 2, quest 3 x 2 x 2, int4 2)"
check "recursive alone" sh -c "! grep -q flat '$tmp/all'"
cat > "$tmp/want" << 'END'
lr=0.1	family=recursive lr=0.1 wq=quest bits=4 unique=1 repeat=3 ramp=1@0,{repeat}@0.5 data=a
lr=0.5	family=recursive lr=0.5 wq=quest bits=4 unique=1 repeat=3 ramp=1@0,{repeat}@0.5 data=a
wq=ternary	family=recursive lr=0.2 wq=ternary unique=1 repeat=3 ramp=1@0,{repeat}@0.5 data=a
wq=int4	family=recursive lr=0.2 wq=int4 bits=4 unique=1 repeat=3 data=a
bits=3	family=recursive lr=0.2 wq=quest bits=3 unique=1 repeat=3 ramp=1@0,{repeat}@0.5 data=a
repeat=2	family=recursive lr=0.2 wq=quest bits=4 unique=1 repeat=2 ramp=1@0,{repeat}@0.5 data=a
ramp=-	family=recursive lr=0.2 wq=quest bits=4 unique=1 repeat=3 data=a
data=b	family=recursive lr=0.2 wq=quest bits=4 unique=1 repeat=3 ramp=1@0,{repeat}@0.5 data=b
END
check "neighbours: $(diff "$tmp/near.first" "$tmp/want")" cmp "$tmp/near.first" "$tmp/want"
ask neighbours of="family=recursive lr=0.2 wq=ternary unique=1 repeat=2 data=a" data=a > "$tmp/near"
says "wq=quest	family=recursive lr=0.2 wq=quest unique=1 repeat=2 data=a bits=3" "$tmp/near"
same 6 "$(wc -l < "$tmp/near" | tr -d ' ')" "two rates, two quantizers, one repeat, one ramp"
rm "$tmp/want"
printf 'lr 1 2\nrate 1 when wq=quest\nlr\nbits 2 when wq\nbits 2 when q=2\nstart tree lr=1\nstart flat lr\n' > "$tmp/wrong"
table=$tmp/wrong ask check > "$tmp/faults"
for fault in "line 2: the program has no option --rate" "line 3: expected values of lr" "line 4: expected a condition such as" \
    "line 5: the program has no option --q" "line 6: start: expected flat or recursive, found 'tree'" "line 7: expected OPTION=VALUE"; do
    says "$fault" "$tmp/faults"
done

# ---- text, and the folder that scores are from
for i in $(seq 10 33); do
    awk -v seed="$i" 'BEGIN { srand(seed); n = split("the of state union and people we shall our nation with great peace to " \
        "congress laws year", w, " ")
        for (i = 0; i < 700; i++) printf "%s%s", w[1 + int(n * rand() * rand())], rand() < .1 ? ".\n" : " " }' > "$tmp/text$i"
done
OUT=$tmp/words VOCAB=320 data/get.sh text "$tmp"/text?? > "$tmp/out" 2>&1 || cat "$tmp/out"
data/get.sh dev "$tmp/words/" > "$tmp/out" 2>&1
check "dev: $(tail -n 1 "$tmp/out")" [ -f "$tmp/words_dev/info.txt" ]
check "the same tokenizer" cmp "$tmp/words/tokenizer.model" "$tmp/words_dev/tokenizer.model"
documents() { # FILE: one a line; BOS is token 1
    od -An -v -t u2 -j 1024 "$1" | tr -s ' \n' '\n\n' | awk 'NF { if ($1 == 1) print line; line = ($1 == 1 ? "" : line " " $1) }
        END { print line }' | grep .
}
for split in train val; do
    documents "$tmp/words/text_${split}_000000.bin" | sort > "$tmp/whole.$split"
    documents "$tmp/words_dev/text_${split}_000000.bin" | sort > "$tmp/dev.$split"
done
same "22 2 20 2" "$(echo $(cat "$tmp/whole.train" | wc -l) $(cat "$tmp/whole.val" | wc -l) $(cat "$tmp/dev.train" | wc -l) \
    $(cat "$tmp/dev.val" | wc -l))" "documents"
check "its two splits are the training text" cmp <(sort "$tmp/dev.train" "$tmp/dev.val") "$tmp/whole.train"
same 0 "$(cat "$tmp"/dev.* "$tmp/whole.val" | sort | uniq -d | wc -l | tr -d ' ')" "documents that two splits share"
data/get.sh dev "$tmp/words" > "$tmp/out" 2>&1
says "words_dev is there already and kept" "$tmp/out"
EVERY=7 OUT=$tmp/seventh data/get.sh dev "$tmp/words" > "$tmp/out" 2>&1
same 4 "$(sed -n 's/^val *\([0-9]*\) documents.*/\1/p' "$tmp/seventh/info.txt")" "every 7th of 22"
cp "$tmp/seventh/info.txt" "$tmp/words_dev/tokenizer.model.other" && cp -r "$tmp/words_dev" "$tmp/made_with"
echo x >> "$tmp/made_with/tokenizer.model"
OUT=$tmp/made_with data/get.sh dev "$tmp/words" > "$tmp/out" 2>&1
says "made_with: expected the tokenizer of" "$tmp/out"
rm "$tmp/words_dev/tokenizer.model.other"
data/get.sh dev "$tmp/nowhere" > "$tmp/out" 2>&1
says "dev: expected the folder of a corpus" "$tmp/out"

# ---- a search: undisturbed, and after interruptions of each kind
cat > "$tmp/small" << 'END'
lr_muon 0.01 0.03 10
wq      ternary int4 int8
aq      none            when wq=int8
aq      int8
wd      10              when lr_muon>9
repeat  1               when family=flat
repeat  2 3             when family=recursive
repeat_ramp - 1@0,{repeat}@0.5  when family=recursive
unique  1 2
mlp     2 4
seq     32
batch   4
start flat wq=int4 kv_heads=7 unique=2 repeat=1
END
# 8 candidates for 20 steps, 2 for 80, 1 for 320
export CAP=14000 TRIALS=8 REFINE=3 STEPS=320 SEED=3 DATA="$tmp/words" SPACE="$tmp/small" JOBS=2
search() { # NAME SETTINGS...
    local name=$1
    shift
    env OUT="$tmp/$name" "$@" dev/tune.sh > "$tmp/out" 2>&1
}
search quiet
check "an undisturbed search ends well: $(tail -n 1 "$tmp/out")" [ $? = 0 -a -s "$tmp/quiet/winner.txt" ]
rows() { awk -F'\t' "$1" "$tmp/quiet/trials.tsv" | wc -l | tr -d ' '; }
same 8 "$(rows '$1 == 0 && $4 != "refused" && NR > 1')" "candidates trained"
same 2 "$(rows '$1 == 1 && $3 !~ /r/')" "a quarter of them goes on"
same 2 "$(rows '$1 == 2 && $3 !~ /r/')" "and two are trained in full"
same 3 "$(rows '$1 == 1 && $3 ~ /r/')" "changes to the winner"
check "refused, with the reason" grep -q "^0	20	1	refused	.*	--kv_heads=7: expected a divisor" "$tmp/quiet/trials.tsv"
check "a ramp up to the candidate's own number of uses" grep -q '"repeat": "3".*"repeat_ramp": "1@0,3@0.5"' "$tmp"/quiet/runs/*/0/run/result.json
check "changes that are better for a quarter of the steps, and they alone, are trained in full" awk -F'\t' -v parent="$(cat "$tmp/quiet/winner.1")" '
    NR > 1 { score[$1, $3] = $5; if ($1 == 1 && $3 ~ /r/ && $4 == "ok") changed[$3] = 1 }
    END { for (id in changed) { better = score[1, id] < score[1, parent]; if (better != ((2, id) in score)) exit 1; n += better } exit !n }
    ' "$tmp/quiet/trials.tsv"
check "diverged, with the reason" grep -q "	diverged	-	-	.*training diverged" "$tmp/quiet/trials.tsv"
check "no file over the cap, none far below" awk -F'\t' '$4 == "ok" && ($6 > 14000 || $6 < 11900) { exit 1 }' "$tmp/quiet/trials.tsv"
check "those with the best scores go on" awk -F'\t' '
    NR > 1 && $3 !~ /r/ && $4 == "ok" { score[$1, $3] = $5; ids[$3] = 1 }
    END {
        for (i in ids) for (j in ids)
            if (((1, i) in score) && ((0, j) in score) && !((1, j) in score) && score[0, j] < score[0, i]) exit 1
    }' "$tmp/quiet/trials.tsv"
winner=$(sed -n 's/^the winner, trial \([^,]*\), .*/\1/p' "$tmp/quiet/winner.txt")
same "$(awk -F'\t' '$1 == 2 && $4 == "ok"' "$tmp/quiet/trials.tsv" | sort -t '	' -k 5,5n | head -n 1 | cut -f 3)" "$winner" "the winner"
check "all of them on the text held out" sh -c "! grep -L '\"data\": \"$tmp/words_dev\"' '$tmp'/quiet/runs/*/?/?/result.json | grep ."
check "all of them with another seed than studies have" sh -c "! grep -L '\"seed\": 103,' '$tmp'/quiet/runs/*/?/?/result.json | grep ."
check "checkpoints of finished runs are gone" sh -c "! find '$tmp/quiet/runs' -name ckpt.bin | grep ."

# The lines to paste.
line=$(grep -A1 '^the winner' "$tmp/quiet/winner.txt" | sed -n "2s|runs/|$tmp/|p")
(eval "$line") > "$tmp/out" 2>&1
check "the winner's line, $line: $(tail -n 1 "$tmp/out")" cmp "$tmp/tuned-$winner/model.golf" "$tmp/quiet/runs/$winner/2/run/model.golf"
same "$(awk -F'\t' -v id="$winner" '$1 == 2 && $3 == id { print $5 }' "$tmp/quiet/trials.tsv")" \
    "$(sed -n 's/^  "val_bpb": \(.*\),/\1/p' "$tmp/tuned-$winner/result.json")" "its score"
line=$(grep -A1 '^trained on all' "$tmp/quiet/winner.txt" | sed -n "2s|runs/|$tmp/|p")
check "all of the training text: $line" grep -q -- "--data=$tmp/words .*--seed=1 " <<< "$line"
(eval "$line") > "$tmp/out" 2>&1
says "FITS; val_bpb" "$tmp/out"

sed '/^start/d' "$tmp/small" > "$tmp/slow" && echo 'start flat wq=int8 aq=none unique=1 mlp=2 lr_muon=1e-06 lr_embed=1e-06' >> "$tmp/slow"
search learner SPACE="$tmp/slow" FAMILY=flat TRIALS=4 REFINE=0 STEPS=160
same "0 1 2" "$(awk -F'\t' '$3 == 1 { print $1 }' "$tmp/learner/trials.tsv" | xargs)" "rungs of the first start, which learns slowly"
check "others learnt more" awk -F'\t' '$1 == 0 && $4 == "ok" && $3 > 1 { n++; bad += ($5 > first) } $3 == 1 && $1 == 0 { first = $5 }
    END { exit !n || bad }' "$tmp/learner/trials.tsv"

search quiet
check "finished: nothing is done again" [ "$(grep -c '^\[' "$tmp/out")" = 0 ]
check "and says the same" cmp <(sed -n '/^bits per byte/,$p' "$tmp/out") "$tmp/quiet/winner.txt"
search quiet FAMILY=flat
says "quiet was started with CAP=14000 FAMILY=any" "$tmp/out"
cp "$tmp/small" "$tmp/smaller" && echo "heads 1" >> "$tmp/smaller"
search quiet SPACE="$tmp/smaller"
says "quiet was started with another table" "$tmp/out"

# Ctrl-C, SIGTERM, the shell killed, all killed; in turn, until it is done.
turns=0 codes= left=
until [ -s "$tmp/disturbed/winner.txt" ] || [ $turns -ge 60 ]; do
    set -m # a group of its own, and SIGINT not ignored
    OUT=$tmp/disturbed dev/tune.sh > "$tmp/out" 2>&1 &
    pid=$!
    set +m
    sleep $((turns / 8)).$((turns * 7 % 9 + 1))
    case $((turns % 4)) in # the first two again, if not heard: runs of a tenth of a second are seldom waited for
    0) until ! kill -INT -- -$pid; do sleep 0.1; done ;;
    1) until ! kill -TERM $pid; do sleep 0.1; done ;;
    2) kill -KILL $pid ;;
    3) kill -KILL -- -$pid ;;
    esac 2> /dev/null
    wait $pid 2> /dev/null
    codes="$codes $((turns % 4)):$?"
    grep -q "^stopped" "$tmp/out" && pgrep -f "train_golf train .*$tmp/disturbed/" > /dev/null && left="$left $turns"
    turns=$((turns + 1))
done
check "interrupted $turns times, ends well" [ -s "$tmp/disturbed/winner.txt" ]
check "it was interrupted: $codes" [ $turns -ge 5 ]
for code in 0:130 1:143 2:137 3:137; do check "exit status $code in $codes" grep -q " $code" <<< "$codes"; done
check "one that is asked to stop leaves no trainer: turns$left of $codes" [ -z "$left" ]
OUT=$tmp/orphans STEPS=16000000 dev/tune.sh > "$tmp/out" 2>&1 & # runs of a million steps
pid=$!
for try in $(seq 300); do
    pgrep -f "train_golf train .*$tmp/orphans/" > /dev/null && break
    sleep 0.1
done
kill -KILL $pid
wait $pid 2> /dev/null
OUT=$tmp/orphans STEPS=16000000 dev/tune.sh > "$tmp/out" 2>&1 &
pid=$!
for try in $(seq 100); do
    [ -s "$tmp/out" ] && break
    sleep 0.1
done
says "waiting for what an earlier start of this search left running" "$tmp/out"
kill -KILL $pid
pkill -KILL -f "train_golf train .*$tmp/orphans/"
wait $pid 2> /dev/null
table_of() { cut -f 1-6,8- "$tmp/$1/trials.tsv"; } # without seconds
check "the same table: $(diff <(table_of quiet) <(table_of disturbed) | head -n 3)" cmp <(table_of quiet) <(table_of disturbed)
check "the same winner" cmp <(sed "s|/quiet/|/disturbed/|" "$tmp/quiet/winner.txt") "$tmp/disturbed/winner.txt"

# Parts of it, with numbers worked by hand.
function_of() { sed -n "/^$1() {.*}\$/p; /^$1() {/,/^}/p" dev/tune.sh; }
for name in value config calculate is left planned column rows ranked cost_of per_step eta first_start promote make_plan put_result; do
    eval "$(function_of $name)"
done
# A score that is no number is none, a file over the cap is no candidate.
dir_of() { echo "$tmp/fake"; }
put_row() { echo "$*"; }
verdict() { # BPB BYTES; a cap of 100
    mkdir -p "$tmp/fake/run"
    printf '{\n  "val_bpb": %s,\n  "bytes_model": %s,\n  "config": {"width": "8", "hidden": "16"}\n}\n' "$1" "$2" > "$tmp/fake/run/result.json"
    cap=100 put_result 7 0
}
same "7 0 ok 1.25 100 8 16 -" "$(verdict 1.25 100)" "a result"
same "7 0 over - 101 8 16 101 bytes, over the cap of 100" "$(verdict 1.25 101)" "a file over the cap"
same "7 0 diverged - 100 8 16 a score of -nan" "$(verdict -nan 100)" "a score that is no number"
same "7 0 diverged - 100 8 16 a score of inf" "$(verdict inf 100)" "an infinite score"

# 50 ms a step, 1 s a run, two jobs. 120 minutes, 0.7 of them: 10080 s; 84 candidates cost 111 + (84/16 + 21/4 + 6) 600 s.
out=$tmp/planned jobs=2 refine= trials= longest=12000
measure() { mkdir -p "$out/speed" && echo "0.05 1" > "$out/speed/mean"; }
plan_for() { (minutes=$1 && make_plan && echo $(planned trials) $(planned rung1) $(planned rung2) $(planned steps)); }
same "84 21 6 12000" "$(plan_for 120)" "two hours"
same "124 31 8 12000" "$(refine=0 plan_for 120)" "two hours without refinement: 14400 s; 163 + (124/16 + 31/4 + 8) 600"
same "16 4 2 4081" "$(plan_for 10)" "ten minutes: 840 s; 22 + (1 + 1 + 2) 204"
same "5 2 1 12000" "$(trials=5 plan_for 10)" "as many as one says"

# Four candidates took 10 s for 10 steps, so 40 s for 40; the better two will then take 160 s each.
out=$tmp/promoted jobs=1 family=any space=/dev/null keep=(8 4 2) steps_of=(10 40 160) tab=$'\t'
dir_of() { echo "$out/runs/$1/$2"; }
mkdir -p "$out/runs"/{1,2,3,4,5}/0
echo "per_run 0" > "$out/plan"
echo header > "$out/trials.tsv"
for id in 1 2 3 4 5; do
    printf '0\t10\t%s\tok\t1.%s\t100\t10.0\t8\t16\tno=options\t-\n' $id $((9 - id)) | tee "$out/runs/$id/0/row" >> "$out/trials.tsv"
done
promoted() { (minutes=$1 SECONDS=0 && promote 1 "$out/rung" && echo $(cat "$out/rung") && rm "$out/rung"); }
same "5 4 3 2" "$(promoted 60)" "the best four of five"
same "5 4 3 2" "$(promoted 8.1)" "486 s for 160 and 320"
same "5 4 3" "$(promoted 7.9)" "474 s"
same "5 4" "$(promoted 7)" "420 s"
same "5" "$(promoted 3)" "180 s"
batch=5 done_now=2
same "0:08:30" "$(eta 0)" "three of ten steps, four of 40, two of 160, a second each"
touch "$out/finalists"
same "0:08:00" "$(eta 2)" "three of 160"

# A search as long as it may be, from its own measurements.
search timed TRIALS= REFINE= MINUTES=0.2 STEPS=160 FAMILY=recursive
check "MINUTES alone: $(tail -n 1 "$tmp/out")" [ -s "$tmp/timed/winner.txt" ]

# The budget ends a search; a start with more MINUTES goes on with what it had no time for.
mkdir -p "$tmp/short" && echo 100 > "$tmp/short/clock" # seconds of earlier starts
search short MINUTES=1 FAMILY=recursive DATA="$tmp/words//"
says "note: more than half of MINUTES=1 is gone: 4 candidates, not 8" "$tmp/out"
check "no time for neighbours" [ -s "$tmp/short/winner.txt" -a ! -f "$tmp/short/refined.1" ]
check "slashes behind a folder's name" [ ! -e "$tmp/words/_dev" ]
search short MINUTES=60 FAMILY=recursive
says "refining trial" "$tmp/out"
check "at least 16 candidates are planned" [ "$(sed -n 's/^trials //p' "$tmp/timed/plan")" -ge 16 ]
check "recursive alone" sh -c "! grep -q family=flat '$tmp/timed/trials.tsv'"

# ---- errors
refuses() { # MESSAGE SETTINGS...
    local message=$1
    shift
    if search refused "$@"; then
        failed=$((failed + 1))
        echo "FAILED: accepted: $*"
    else
        says "$message" "$tmp/out"
    fi
    rm -rf "$tmp/refused"
}
refuses "expected the bytes of the file, found none: make tune CAP=256000" CAP=
refuses "CAP: expected a number from 1000 to 2000000000, found '64k'" CAP=64k
refuses "FAMILY: expected flat, recursive or any, found 'tree'" FAMILY=tree
refuses "MINUTES: expected a number above 0, found 'long'" MINUTES=long
refuses "MINUTES: expected a number above 0, found '0.0'" MINUTES=0.0
refuses "STEPS: expected a number from 16 to 100000000, found '5'" STEPS=5
refuses "JOBS: expected a number from 1 to 4096, found '0'" JOBS=0
refuses "none of 17 candidates could be trained: --cap=1000: no multiple of 8 and --heads=2 fits" CAP=1000
refuses "none of 8 candidates could be trained: --cap=1000: no multiple of" CAP=1000 TRIALS= SPACE=dev/tune.space
refuses "MINUTES=0.001: expected" MINUTES=0.001 TRIALS=
refuses "DATA: expected a folder with a tokenizer.model, found '$tmp/nowhere'" DATA="$tmp/nowhere"
refuses "SPACE: expected a table such as dev/tune.space, found no file 'none'" SPACE=none
refuses "line 2: the program has no option --rate" SPACE="$tmp/wrong"
CAP= make -s tune > "$tmp/out" 2>&1
says "expected the bytes of the file" "$tmp/out"
make -s help > "$tmp/out"
says "make tune CAP=256000" "$tmp/out"
./train_golf help | sed -n "s/^  --\([a-z0-9_]*\)=\([^ ]*\)  .*/\1	\2/p" > "$tmp/options.tsv"
table=dev/tune.space ask check > "$tmp/faults"
check "the table that comes with it: $(cat "$tmp/faults")" [ ! -s "$tmp/faults" ]

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
