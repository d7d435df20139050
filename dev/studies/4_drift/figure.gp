# What an error of size EPS adds to the bpb: noise in the weights (left), drift of the residual stream (right).
load "dev/studies/style.gp"
set multiplot layout 1,2
set xrange [0:0.21]
set xlabel "EPS"
set ylabel "added bits per byte"
set key top left
curve(arm, what) = sprintf("< awk -F'\\t' 'BEGIN { print \"0\\t0\\t0\" } $1 == \"%s\" && $2 == \"%s\" { print $3 \"\\t\" $4 \"\\t\" $5 }' %s", arm, what, means)
do for [what in "noise drift"] {
    set title what
    plot curve("shared8-out", what) with yerrorlines ls 1 title "shared, 8", \
         curve("shared4-out", what) with yerrorlines ls 3 title "shared, 4", \
         curve("shared1-out", what) with yerrorlines lc rgb "#777777" lw 1.5 pt 2 title "one application", \
         curve("flat4-out", what) with yerrorlines ls 4 title "flat, 4", \
         curve("flat8-out", what) with yerrorlines ls 2 title "flat, 8"
}
