# bpb of shared and flat against the norms, ternary (left) and fp (right): parallel lines are no interaction.
load "dev/studies/style.gp"
set multiplot layout 1,2
set xrange [-0.4:2.4]
set xtics ("none" 0, "out" 1, "each" 2)
set ylabel "bits per byte"
array suffixes[2] = ["", "-fp"]
do for [i=1:2] {
    suffix = suffixes[i]
    set title (suffix eq "" ? "ternary, 128,000 bytes" : "the same shapes, not compressed")
    plot arms("^shared-(none|out|each)".suffix."$") using 0:3:5 with yerrorlines ls 1 title "shared", \
         arms("^flat-(none|out|each)".suffix."$") using 0:3:5 with yerrorlines ls 2 title "flat"
}
