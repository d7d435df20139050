# What protecting a part gains over spending the bytes on width; all seeds, paired, 95 % intervals.
load "dev/studies/style.gp"
set key top left
set xrange [-0.5:4.5]
set xtics ("embedding, 5 bits" 0, "down, 4 bits" 1, "attention out, 8 bits" 2, "q, k, v, 4 bits" 3, "block, 4 bits" 4)
set ylabel "bpb gained over width"
set xzeroaxis lt 1 lc rgb "black"
rows(structure) = arms("^".structure.": .* against width, all seeds$")
plot rows("shared") using ($0-0.08):3:4:5 with yerrorbars ls 1 title "shared", \
     rows("flat") using ($0+0.08):3:4:5 with yerrorbars ls 2 title "flat"
