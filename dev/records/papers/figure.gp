# bpb of every arm under 256,000 bytes, 95 % intervals, best first.
load "dev/studies/style.gp"
set terminal svg size 760,1080
set yrange [*:*] reverse
set offsets 0, 0, 0.5, 0.5
set grid xtics lc rgb "#dddddd"
set xlabel "bits per byte"
unset key
sorted = sprintf("< awk -F'\\t' 'NR > 1 && $1 !~ /^(donor|fp)/' %s | sort -t '\t' -k3,3g", means)
plot sorted using 3:0:5:ytic(1) with xerrorbars ls 1
