# bpb of every arm at the end of 12,000 steps, with 95 % intervals.
load "dev/studies/style.gp"
set xrange [-0.5:4.5]
set xtics ("shared, 1 x 3" 0, "flat, 3 x 1" 1, "flat, rate 0.005" 2, "one, 1 x 1" 3, "shared, scalar gates" 4)
set ylabel "bits per byte"
unset key
plot arms("^(shared|flat|flat-5|one|sgate)$") using 0:3:5 with yerrorbars ls 1
