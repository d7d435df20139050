#!/bin/sh
# plot.sh RUN: RUN/curves.svg from RUN/log.tsv: loss and bpb; per phase the RMS of the stream, that of its
# gradient, and the cosine between what two successive ones add. `make plot RUN=...` calls it. Needs gnuplot.
# Phases that did not run have gaps.
set -eu
run=${1:?usage: dev/plot.sh RUN}
[ -s "$run/log.tsv" ] || { echo "plot.sh: error: no $run/log.tsv: expected a run folder" >&2; exit 1; }
command -v gnuplot > /dev/null || { echo "plot.sh: error: no gnuplot here (Debian: gnuplot-nox)" >&2; exit 1; }
column() {  # NAME: "step value value ..." of the rows that have it
    awk -F'\t' -v want="$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) c = i; next } c && $c != "" { print $1, $c }' \
        "$run/log.tsv"
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for name in train_loss val_bpb; do column $name > "$tmp/$name"; done
for name in rms grad cosine; do column $name | awk '{ for (i = 2; i <= NF; i++) if ($i == 0) $i = "?" } 1' > "$tmp/$name"; done
sed -n 's/^  "steps": \([0-9]*\).*/\1/p; s/^  "val_bpb": \([0-9.]*\).*/\1/p' "$run/result.json" 2> /dev/null | paste -sd' ' - >> "$tmp/val_bpb"
phases=$(awk '{ n = NF - 1 } END { print n + 0 }' "$tmp/rms")
[ "$phases" -gt 0 ] || { echo "plot.sh: error: $run/log.tsv has no row of measurements yet (every 100 steps)" >&2; exit 1; }
gnuplot > "$run/curves.svg.part" << END
set terminal svg size 1000,640 font "sans,12" background "white"
set border 3; set tics nomirror out; set grid lc rgb "#dddddd"; set key top right
set datafile missing "?"
set multiplot layout 2,3
set title "training loss, nats per token"; plot "$tmp/train_loss" every 10 with lines lc rgb "#1b5e9e" notitle
set title "validation, bits per byte"; plot "$tmp/val_bpb" with linespoints pt 7 ps 0.6 lc rgb "#c0562b" notitle
set palette defined (0 "#1b5e9e", 1 "#c0562b"); unset colorbox; set cbrange [0:$phases]
set title "RMS of the stream behind each phase"; plot for [i=1:$phases] "$tmp/rms" using 1:(column(i+1)) with linespoints pt 7 ps 0.3 lc palette cb i-1 title "".i
set logscale y; set format y "10^{%T}"
set title "RMS of its gradient"; plot for [i=1:$phases] "$tmp/grad" using 1:(column(i+1)) with linespoints pt 7 ps 0.3 lc palette cb i-1 notitle
unset logscale y; set format y
set title "cosine with what the next phase adds"; set yrange [-1:1]
plot $( [ "$phases" -gt 1 ] && echo "for [i=1:$((phases - 1))] '$tmp/cosine' using 1:(column(i+1)) with linespoints pt 7 ps 0.3 lc palette cb i-1 notitle" || echo "0 notitle" )
END
mv "$run/curves.svg.part" "$run/curves.svg"
echo "$run/curves.svg"
