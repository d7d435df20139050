# bpb of shared and flat against the norms: ternary, ternary with four times the tokens, fp. Parallel lines: no interaction.
load "dev/studies/style.gp"
set multiplot layout 1,3
set xrange [-0.4:2.4]
set xtics ("none" 0, "out" 1, "each" 2)
set ylabel "bits per byte"
set offsets 0, 0, graph 0.04, graph 0.04
array suffixes[3] = ["", "-4x", "-fp"]
array titles[3] = ["ternary", "ternary, 4 x the tokens", "not compressed"]
do for [i=1:3] {
    suffix = suffixes[i]
    set title titles[i]
    unset key
    if (i == 1) { set key at graph 1, graph 0.46 right }
    set xtics ("none" 0, "out" 1, "each" 2)
    plot arms("^shared-(none|out|each)".suffix."$") using 0:3:5 with yerrorlines ls 1 title "shared", \
         arms("^flat-(none|out|each)".suffix."$") using 0:3:5 with yerrorlines ls 2 title "flat"
}
