# bpb against the rungs of the ladder, ternary (left) and fp (right).
load "dev/studies/style.gp"
set multiplot layout 1,2
set xrange [-0.4:5.4]
set xtics ("nothing" 0, "scalar gates" 1, "vector gates" 2, "gains" 3, "mix" 4, "phase embedding" 5) rotate by -35
set ylabel "bits per byte"
rungs = "(nothing|sgate|vgate|gains|mix|full)"
array suffixes[2] = ["", "-fp"]
do for [i=1:2] {
    suffix = suffixes[i]
    set title (suffix eq "" ? "ternary, 128,000 bytes" : "the same shapes, not compressed")
    plot arms("^shared-".rungs.suffix."$") using 0:3:5 with yerrorlines ls 1 title "shared", \
         arms("^flat-".rungs.suffix."$") using 0:3:5 with yerrorlines ls 2 title "flat"
}
