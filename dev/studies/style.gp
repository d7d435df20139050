# What the figures share. Each figure.gp reads rows of means.tsv by the name of the arm.
set terminal svg size 760,420 font "sans,13" background "white"
set datafile separator "\t"
set border 3
set tics nomirror out
set grid ytics lc rgb "#dddddd"
set key top right reverse Left samplen 2
arms(pattern) = sprintf("< awk -F'\\t' '$1 ~ /%s/' %s", pattern, means)
set style line 1 lc rgb "#1b5e9e" lw 2 pt 7 ps 0.8
set style line 2 lc rgb "#c0562b" lw 2 pt 5 ps 0.8
set style line 3 lc rgb "#8ab8e0" lw 1.5 pt 6 ps 0.8   # paler: the same structure, less of it
set style line 4 lc rgb "#eeb095" lw 1.5 pt 4 ps 0.8
