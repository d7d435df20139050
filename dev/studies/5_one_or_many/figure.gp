# bpb against bytes for every way to spend them on blocks; side by side around each cap, which all of them share.
load "dev/studies/style.gp"
set logscale x 2
set xtics (64000, 128000, 256000)
set xrange [56000:295000]
set xlabel "bytes of model.golf"
set ylabel "bits per byte"
line(shape) = arms("^".shape."-(64|128|256)$")
plot line("1x8") using ($8*0.94):3:5 with yerrorlines ls 1 title "1 block x 8", \
     line("2x4") using ($8*0.96):3:5 with yerrorlines lc rgb "#5a9bd4" lw 1.5 pt 7 ps 0.6 title "2 x 4", \
     line("4x2") using ($8*0.98):3:5 with yerrorlines lc rgb "#e39a6f" lw 1.5 pt 5 ps 0.6 title "4 x 2", \
     line("8x1") using ($8*1.00):3:5 with yerrorlines ls 2 title "8 blocks x 1", \
     line("1x4") using ($8*1.02):3:5 with yerrorlines ls 3 title "1 x 4", \
     line("4x1") using ($8*1.04):3:5 with yerrorlines ls 4 title "4 x 1", \
     line("pc") using ($8*1.06):3:5 with yerrorlines lc rgb "#777777" lw 1.5 pt 2 title "first, 1 x 4, last"
