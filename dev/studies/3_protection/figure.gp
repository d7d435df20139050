# What protecting a part gains or loses against spending the bytes on width; all seeds, paired.
load "dev/studies/style.gp"
set xrange [-0.5:4.5]
set xtics ("embedding, 5 bits" 0, "down, 4 bits" 1, "attention out, 8 bits" 2, "q, k, v, 4 bits" 3, "block, 4 bits" 4)
set ylabel "bpb against width (below 0: better)"
set xzeroaxis lt 1 lc rgb "black"
set key top left
parts = "(embed|down|o|qkv|block)"
# shared is the reference arm of the table; flat arms are set against flat-width by hand
plot arms("^shared-".parts."$") using ($0-0.08):6:7 with yerrorbars ls 1 title "shared", \
     sprintf("< awk -F'\\t' '$1 == \"flat-width\" { base = $3 } $1 ~ /^flat-%s$/ { print $3 - base \"\\t\" $5 }' %s", parts, means) \
     using ($0+0.08):1:2 with yerrorbars ls 2 title "flat"
