#!/bin/sh
# plot.sh RUN: RUN/curves.svg from RUN/log.tsv: loss and bpb; per phase the RMS of the stream, that of its
# gradient, and the cosine between what two successive ones add. Phases that did not run have gaps.
# plot.sh RUN RUN...: runs.svg beside the first one: their losses (means of a hundredth of the run), bpb over the
# steps, and bpb of each finished one over the bytes of its file. OUT=FILE: another file.
# `make plot RUN=...` calls it. Needs gnuplot.
set -eu
die() { echo "plot.sh: error: $*" >&2; exit 1; }
[ $# -gt 0 ] && [ -n "$1" ] || die "usage: dev/plot.sh RUN..."
for run; do
    [ -s "$run/log.tsv" ] || die "no $run/log.tsv: expected a run folder"
done
command -v gnuplot > /dev/null || die "no gnuplot here (Debian: gnuplot-nox)"
column() {  # RUN NAME: "step value value ..." of the rows that have it
    awk -F'\t' -v want="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) c = i; next } c && $c != "" { print $1, $c }' \
        "$1/log.tsv"
}
value() { sed -n "s/^  \"$2\": \([-0-9.e+]*\),\{0,1\}\$/\1/p" "$1/result.json" 2> /dev/null || true; }
bpb() {  # RUN: of the log, then of the file
    column "$1" val_bpb
    [ -z "$(value "$1" val_bpb)" ] || echo "$(value "$1" steps) $(value "$1" val_bpb)"
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
style='set terminal svg size 1000,HEIGHT font "sans,12" background "white"
set border 3; set tics nomirror out; set grid lc rgb "#dddddd"; set key top right noenhanced
set datafile missing "?"'

one_run() {  # RUN OUT
    run=$1
    column "$run" train_loss > "$tmp/train_loss"
    bpb "$run" > "$tmp/val_bpb"
    for name in rms grad cosine; do column "$run" $name | awk '{ for (i = 2; i <= NF; i++) if ($i == 0) $i = "?" } 1' > "$tmp/$name"; done
    phases=$(awk '{ n = NF - 1 } END { print n + 0 }' "$tmp/rms")
    [ "$phases" -gt 0 ] || die "$run/log.tsv has no row of measurements yet (every 100 steps)"
    gnuplot > "$2.part" << END
$(echo "$style" | sed 's/HEIGHT/640/')
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
}

plots() {  # KIND USING WITH: "FILE using ... title ..." of each run that has such points
    i=0 line=
    for name in $names; do
        i=$((i + 1))
        [ -s "$tmp/$1.$i" ] && line="$line${line:+, }'$tmp/$1.$i' using $2 with $3 lc $i title '$name'"
    done
    echo "plot ${line:-0 notitle}"
}

several_runs() {  # OUT RUN...
    out=$1 i=0 names=
    shift
    for run; do
        i=$((i + 1)) names="$names $(basename "$run" | sed 's/[^A-Za-z0-9._-]/-/g')"
        column "$run" train_loss | awk '{ step[NR] = $1; loss[NR] = $2 } END {
            size = NR > 100 ? int(NR / 100) : 1
            for (i = 1; i + size - 1 <= NR; i += size) { s = 0; for (k = i; k < i + size; k++) s += loss[k]; print step[k - 1], s / size } }' > "$tmp/loss.$i"
        bpb "$run" > "$tmp/bpb.$i"
        [ -z "$(value "$run" val_bpb)" ] || echo "$(value "$run" bytes_model) $(value "$run" val_bpb)" > "$tmp/size.$i"
    done
    gnuplot > "$out.part" << END
$(echo "$style" | sed 's/HEIGHT/380/')
set multiplot layout 1,3
set title "training loss, nats per token"
$(plots loss 1:2 lines)
set title "validation, bits per byte"
$(plots bpb 1:2 'linespoints pt 7 ps 0.5')
set title "bits per byte, kB of the file"; set xrange [0:*]
$(plots size '(column(1)/1000):2' 'points pt 7 ps 1')
END
}

if [ $# = 1 ]; then
    out=${OUT:-$1/curves.svg}
    one_run "$1" "$out"
else
    out=${OUT:-$(dirname "$1")/runs.svg}
    several_runs "$out" "$@"
fi
mv "$out.part" "$out"
echo "$out"
