#!/bin/sh
# figures.sh: dev/figures/baseline.svg from what is recorded: where the bytes of the file are (result.json) and
# its score over the steps (curve.tsv) beside general compressors (compressors.tsv). Needs gnuplot.
set -eu
cd "$(dirname "$0")/../.."
record=dev/records/recursive
command -v gnuplot > /dev/null || { echo "figures.sh: error: no gnuplot here (Debian: gnuplot-nox)" >&2; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bytes() { sed -n "s/^  \"bytes\": {.*\"$1\": \([0-9]*\).*/\1/p" $record/result.json; }
value() { sed -n "s/^  \"$1\": \([0-9.]*\).*/\1/p" $record/result.json; }
printf 'embedding\t%s\nblocks, %.2f bits a weight\t%s\ninterface, bf16\t%s\nheader\t%s\n' "$(bytes embedding)" "$(value weight_bits)" "$(bytes core)" \
    "$(bytes interface)" "$(bytes header)" > "$tmp/bytes"
awk -F'\t' '/^#/ { next } { print }' $record/compressors.tsv > "$tmp/compressors"
last=$(awk 'END { print $1 }' $record/curve.tsv)
gnuplot > dev/figures/baseline.svg.part << END
set terminal svg size 880,330 font "sans,12" background "white"
set datafile separator "\t"
set multiplot
set border 1; set tics nomirror out; set grid xtics lc rgb "#dddddd"
set origin 0,0; set size 0.42,1
set title "bytes of model.golf"; set xlabel "kB"; unset key
set style fill solid 1.0; set boxwidth 0.6; set yrange [3.6:-0.6]; unset ytics
set xrange [0:220]
array colour[4] = [0x8ab8e0, 0x1b5e9e, 0xc0562b, 0x888888]
do for [i=1:4] { set object i rectangle from 0,i-1.3 to real(system(sprintf("awk -F'\\t' 'NR == %d { print \$2 / 1000 }' $tmp/bytes", i))),i-0.7 fc rgb colour[i] fs solid noborder }
plot "$tmp/bytes" using (\$2/1000 + 2):0:(sprintf("%s: %.1f", stringcolumn(1), \$2/1000)) with labels left notitle
do for [i=1:4] { unset object i }
set origin 0.42,0; set size 0.58,1; set border 3
set title "bits per byte of the validation text, over the steps"; unset xlabel; set xlabel "optimizer steps"
set xrange [0:$last]; set yrange [1.2:2.3]; set ytics 0.2; set grid ytics lc rgb "#dddddd"
plot "$tmp/compressors" using ($last * 0.5):1:($last * 0.5) with xerrorbars pt -1 lw 1.5 lc rgb "#777777" notitle, \
     "$tmp/compressors" using ($last * 0.4):(\$1 - 0.035):2 with labels center textcolor rgb "#555555" font ",10" notitle, \
     "$record/curve.tsv" using 1:2 with linespoints pt 7 ps 0.4 lw 2 lc rgb "#1b5e9e" notitle
END
mv dev/figures/baseline.svg.part dev/figures/baseline.svg
echo dev/figures/baseline.svg
