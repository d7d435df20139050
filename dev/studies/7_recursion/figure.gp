# What sharing gains in bpb, with 95 % intervals: every contrast of three pairs or more.
load "dev/studies/style.gp"
contrasts = sprintf("< awk -F'\\t' '$1 ~ /^flat - rec|^the whole/ && $2 > 2' %s", means)
set terminal svg size 760,300 font "sans,13" background "white"
set grid noytics xtics
set arrow from first 0, graph 0 to first 0, graph 1 nohead lc rgb "#888888"
set xlabel "bits per byte, to the right: for sharing (the last row: for the claim)"
set offsets graph 0, graph 0, 0.5, 0.5
set yrange [*:*] reverse
unset key
plot contrasts using 3:0:4:5:ytic(1) with xerrorbars ls 1
