#!/bin/sh
# report.sh [STUDY [RESULTS]]: from a study's results.tsv its table.md, means.tsv and figure.svg, and the table on
# the screen. Without arguments: of all studies that have results. With RESULTS elsewhere (QUICK runs): table and
# means.tsv beside it. gnuplot draws figure.gp, which reads means.tsv; without it the table's bars must do.
set -eu
cd "$(dirname "$0")/../.."
if [ $# = 0 ]; then
    for results in dev/studies/*/results.tsv dev/records/*/results.tsv; do
        [ ! -f "$results" ] || "$0" "$(dirname "$results")"
    done
    exit
fi
study=${1%/} results=${2:-$study/results.tsv}
to=$(dirname "$results")
[ -s "$results" ] || { echo "report.sh: error: no $results: run make study first" >&2; exit 1; }
contrasts=$study/contrasts.tsv
[ -f "$contrasts" ] || contrasts=/dev/null
awk -v means="$to/means.tsv.part" -f dev/studies/report.awk "$contrasts" "$results" > "$to/table.md.part"
mv "$to/table.md.part" "$to/table.md"
mv "$to/means.tsv.part" "$to/means.tsv"
cat "$to/table.md"
[ -f "$study/figure.gp" ] || exit 0
if command -v gnuplot > /dev/null; then
    gnuplot -e "means='$to/means.tsv'" "$study/figure.gp" > "$to/figure.svg.part" || { rm -f "$to/figure.svg.part"; exit 1; }
    mv "$to/figure.svg.part" "$to/figure.svg"
    echo "figure: $to/figure.svg"
else
    echo "no gnuplot here: figure.svg is as it was (Debian: gnuplot-nox); the table above has the same figures"
fi
