#!/usr/bin/env bash
# The statistics of dev/studies against worked examples, and its runner against kill -9. Needs ./train_golf; the runner's
# part uses data/sotu1024 when it is there or can be fetched, and says so when it cannot.
set -u
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d "${TMPDIR:-/tmp}/golf_studies_XXXXXX") || exit 1
trap 'rm -rf "$tmp" runs/studies/9_check* dev/studies/9_check' EXIT
command -v timeout > /dev/null || timeout() { shift && "$@"; } # macOS has none
passed=0 failed=0
check() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@" > /dev/null 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $what"; fi
}
add() { awk -v x="$1" -v y="$2" 'BEGIN { print x + y }'; }
says() { check "$1: expected '$2' in $3" grep -qF -- "$2" "$3"; }

# Student's t: published 97.5 % points for 1 to 100 degrees of freedom.
functions=$(sed -n '/^function t_inside/,/^}/p; /^function t_quantile/,/^}/p' dev/studies/report.awk)
for row in 1:12.706205 2:4.302653 3:3.182446 4:2.776445 5:2.570582 6:2.446912 9:2.262157 14:2.144787 29:2.045230 100:1.983972; do
    check "t quantile $row" awk -v df=${row%:*} -v want=${row#*:} \
        "$functions"'BEGIN { d = t_quantile(0.95, df) - want; exit !(d < 2e-6 && d > -2e-6) }'
done
check "99 % point, 4 degrees" awk "$functions"'BEGIN { d = t_quantile(0.99, 4) - 4.604095; exit !(d < 2e-6 && d > -2e-6) }'

# Student's own data (Biometrika 1908; Cushny and Peebles: hours of sleep gained under two drugs, 10 patients): mean
# difference 1.58, deviation 1.23, interval 0.7001 to 2.4599 (t = 4.0621, df = 9).
a=(0.7 -1.6 -0.2 -1.2 -0.1 3.4 3.7 0.8 0.0 2.0) b=(1.9 0.8 1.1 0.1 -0.1 4.4 5.5 1.6 4.6 3.4)
{
    printf 'arm\tseed\tval_bpb\tbytes\ttokens\ttok_per_s\tinterface\tnoise0.1\tnoise0.2\n'
    for i in "${!a[@]}"; do
        printf 'a\t%d\t%s\t100\t1000000\t10\t1000\t%s\t%s\n' $((i + 1)) "${a[i]}" "$(add ${a[i]} 0.3)" "$(add ${a[i]} 0.6)"
        printf 'b\t%d\t%s\t%d\t2000000\t20\t3000\t%s\t%s\n' $((i + 1)) "${b[i]}" $((190 + 20 * (i % 2))) "$(add ${b[i]} 0.1)" "$(add ${b[i]} 0.2)"
    done
    printf 'c\t1\tdiverged\t-\t-\t-\t-\t-\t-\n'
    printf 'c\t2\t1.0\t300\t3000000\t30\t0\t1\t1\n'
    printf 'd\t1\t1.5\t300\t3000000\t30\t0\t1\t1\n'
} > "$tmp/results.tsv"
{
    printf 'sleep\tbpb\t+b -a\nfew\tbpb@2-4\t+b -a\nslopes\tratio:noise\t+a -b\nslope\tslope:noise\t+a\n'
    printf 'price\tper_kB\t+a -b\nbytes\tinterface\t+b -a\ndouble\tbpb\t+b -a +b -a\nnobody\tbpb\t+a -z\none\tbpb@2-2\t+b -a\n'
    printf 'lost\tinterface\t+c -a\nlost slope\tslope:noise\t+c -a\nlost price\tper_kB\t+c -a\n'
} > "$tmp/contrasts.tsv"
awk -v means="$tmp/means.tsv" -f dev/studies/report.awk "$tmp/contrasts.tsv" "$tmp/results.tsv" > "$tmp/table.md"
says "a paired difference" '| sleep | bpb | 10 | +1.5800 | 1.2300 | +0.7001 to +2.4599 |' "$tmp/table.md"
says "the same against the first arm" '| b | 10 | 2.3300 | 2.0022 | +1.5800 ± 0.8799 | 200 | 2.00M | 20 |' "$tmp/table.md"
says "the first arm" '| a | 10 | 0.7500 | 1.7890 |' "$tmp/table.md"
says "some seeds only: 2.4 1.3 1.3" '| few | bpb@2-4 | 3 | +1.6667 | 0.6351 | +0.0890 to +3.2443 |' "$tmp/table.md"
says "slopes 3 and 1" '| slopes | ratio:noise | 10 | 3.000 |' "$tmp/table.md"
says "a slope" '| slope | slope:noise | 10 | +3.0000 |' "$tmp/table.md"
says "b costs 2 kB more and is 1.58 worse" '| price | per_kB | 10 | -0.7900 |' "$tmp/table.md"
says "bytes" '| bytes | interface | 10 | +2000 |' "$tmp/table.md"
says "twice the terms, twice the contrast" '| double | bpb | 10 | +3.1600 | 2.4600 | +1.4002 to +4.9198 |' "$tmp/table.md"
says "a diverged run scores 8 and is counted" '| c | 2 (1 diverged) | 4.5000 | 4.9497 |' "$tmp/table.md"
says "nor has it numbers of other kinds" '| lost | interface | 1 | -1000 |' "$tmp/table.md"
says "nor a slope: 1 of 2 pairs" '| lost slope | slope:noise | 1 | -3.0000 |' "$tmp/table.md"
says "nor a price" '| lost price | per_kB | 1 |' "$tmp/table.md"
says "an arm that does not exist" '| nobody | bpb | 0 |' "$tmp/table.md"
says "one pair has no interval" '| one | bpb@2-2 | 1 | +2.4000 |  |  |' "$tmp/table.md"
says "one run has no deviation" '| d | 1 | 1.5000 |  | +0.8000 |' "$tmp/table.md"

# The runner: killed with SIGKILL, started again, it finishes, with the results of a run that was not disturbed.
if [ ! -x ./train_golf ] || ! { [ -d data/sotu1024 ] || OUT=data/sotu1024 VOCAB=1024 data/get.sh sotu; } > /dev/null 2>&1; then
    echo "skipped: the runner (no ./train_golf, or no data/sotu1024 and nothing to fetch it with)"
else
    mkdir -p dev/studies/9_check
    printf '# a comment\n*\t1\t--preset=tiny --data=data/sotu1024 --cap=256000 --val_tokens=2000 --steps=150 --ckpt_every=20\none\t2\t--repeat=1\ntwo\t1-2\t--repeat=2\nlost\t1\t--lr_muon=10 --wd=10 --wq=none --aq=none\n' \
        > dev/studies/9_check/plan.tsv
    printf 'noise0.5\t--noise=0.5 --val_tokens=2000\n' > dev/studies/9_check/evals.tsv
    dev/studies/study.sh 9 > "$tmp/quiet" 2>&1
    check "an undisturbed study ends well" [ $? = 0 ]
    cut -f 1-5,8,9,12-14,16 dev/studies/9_check/results.tsv > "$tmp/quiet.tsv"
    check "one row per run" [ "$(wc -l < dev/studies/9_check/results.tsv)" -eq 6 ]
    check "the arm with a decay of 99 times the weights per step is shown as diverged" grep -q '^| lost | 1 (1 diverged) | 8.0000' dev/studies/9_check/table.md
    check "extra scores differ from the plain one" awk -F'\t' 'NR == 2 { exit !($NF > 1 && $NF != $3) }' dev/studies/9_check/results.tsv
    rm -rf runs/studies/9_check dev/studies/9_check/results.tsv
    for try in 1 2 3; do
        dev/studies/study.sh 9 > "$tmp/killed" 2>&1 &
        pid=$!
        sleep 0.$((try * 3))
        kill -9 $pid 2> /dev/null
        [ $try = 2 ] && pkill -9 -f 'out=runs/studies/9_check/'   # and once its trainers with it
        wait $pid 2> /dev/null
    done
    timeout 120 dev/studies/study.sh 9 > "$tmp/again" 2>&1
    check "after three kills it ends well" [ $? = 0 ]
    cut -f 1-5,8,9,12-14,16 dev/studies/9_check/results.tsv > "$tmp/again.tsv"
    check "the same results as undisturbed" cmp "$tmp/quiet.tsv" "$tmp/again.tsv"
    dev/studies/study.sh 9 > "$tmp/done" 2>&1
    says "what is finished is kept" ' 0 runs to do' "$tmp/done"
    SEEDS=3 dev/studies/study.sh 9 > "$tmp/more" 2>&1
    says "more seeds, only what is missing" ' 4 runs to do' "$tmp/more"
    cp dev/studies/9_check/results.tsv "$tmp/before.tsv"
    printf 'next\t1\t--init_from=@one --repeat=1\n' >> dev/studies/9_check/plan.tsv
    ARMS=next SEEDS=4-4 dev/studies/study.sh 9 > "$tmp/arms" 2>&1
    says "an arm and the one that it starts from, in turn" ' 2 runs to do' "$tmp/arms"
    check "both are done" [ -s runs/studies/9_check/one/4/result.json -a -s runs/studies/9_check/next/4/result.json ]
    check "the results of some arms do not replace those of all" cmp "$tmp/before.tsv" dev/studies/9_check/results.tsv
    check "but are under runs/" grep -q '^next' runs/studies/9_check/results.tsv
    ARMS="one none" dev/studies/study.sh 9 > "$tmp/arms" 2>&1
    says "an arm that is not in the plan" "ARMS: there is no none in" "$tmp/arms"
    check "table and means are there" [ -s dev/studies/9_check/table.md -a -s dev/studies/9_check/means.tsv ]
    cp dev/studies/9_check/table.md "$tmp/before.md"
    dev/studies/report.sh dev/studies/9_check > /dev/null
    check "the same table again from results.tsv" cmp "$tmp/before.md" dev/studies/9_check/table.md
    cut -f 1-5 dev/studies/9_check/results.tsv > "$tmp/before.tsv"
    rm -rf runs/studies/9_check/two
    dev/studies/study.sh 9 > "$tmp/term" 2>&1 &
    pid=$!
    sleep 0.3
    kill -TERM $pid && wait $pid
    check "SIGTERM ends with 143" [ $? = 143 ]
    cut -f 1-5 dev/studies/9_check/results.tsv > "$tmp/now.tsv"
    check "and no row of the record is lost" [ ! "$(grep -vxF -f "$tmp/now.tsv" "$tmp/before.tsv")" ]
    SEEDS=3 dev/studies/study.sh 9 > "$tmp/more" 2>&1
    check "after which it goes on" [ $? = 0 ]
    cp dev/studies/9_check/plan.tsv "$tmp/plan.tsv"
    printf 'long\t1\t--steps=1000000\n' >> dev/studies/9_check/plan.tsv
    ARMS=long dev/studies/study.sh 9 > "$tmp/long" 2>&1 &
    pid=$!
    until [ -s runs/studies/9_check/long/1/log.tsv ] || ! kill -0 $pid 2> /dev/null; do sleep 0.1; done
    kill -TERM $pid && wait $pid
    check "a trainer is asked to stop, too, and has saved" [ ! "$(pgrep -f 'out=runs/studies/9_check/long')" -a -s runs/studies/9_check/long/1/ckpt.bin ]
    pkill -KILL -f 'out=runs/studies/9_check/long' && sleep 0.1
    mv "$tmp/plan.tsv" dev/studies/9_check/plan.tsv
    rm -rf runs/studies/9_check/long
    cp dev/studies/9_check/results.tsv "$tmp/elsewhere.tsv"
    rm -rf runs/studies/9_check/one/1
    KEEP=1 SEEDS=3 dev/studies/study.sh 9 > "$tmp/keep" 2>&1
    says "a row of another machine is kept" ' 0 runs to do' "$tmp/keep"
    check "with what it says" cmp "$tmp/elsewhere.tsv" dev/studies/9_check/results.tsv
    sed -i.before 's/\tseconds\t/\tminutes\t/' dev/studies/9_check/results.tsv
    KEEP=1 SEEDS=3 dev/studies/study.sh 9 > "$tmp/keep" 2>&1
    says "not one with other columns" 'other columns' "$tmp/keep"
    cp dev/studies/9_check/results.tsv "$tmp/before.tsv"
    dev/studies/study.sh 9 > "$tmp/other" 2>&1
    says "without KEEP, too" 'other columns' "$tmp/other"
    check "it stays" cmp "$tmp/before.tsv" dev/studies/9_check/results.tsv
    rm -rf runs/studies/9_check/one/1
    cp "$tmp/elsewhere.tsv" dev/studies/9_check/results.tsv
    SEEDS=3 dev/studies/study.sh 9 > "$tmp/keep" 2>&1
    says "without KEEP it is run again" ' 1 runs to do' "$tmp/keep"
    printf 'bad\t1\t--width=7\n' >> dev/studies/9_check/plan.tsv
    dev/studies/study.sh 9 > "$tmp/bad" 2>&1
    check "a wrong option is an error" [ $? != 0 ]
    says "which says what is wrong" "--width: expected" "$tmp/bad"
fi
dev/studies/study.sh 77 > "$tmp/none" 2>&1
says "a study that does not exist" "there are: 0_rates 1_normalisation" "$tmp/none"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
