#!/bin/bash
# mpi_throttled.sh [OPTION...]: what a network costs. `bench step` of train_golf_mpi on 1, 2 and 4 ranks of one thread, each
# in a network namespace of its own, joined by a bridge; tc bounds the rate at which each sends: so many machines, as far
# as MPI can tell. Prints ms a step, what of it is exchange and waiting, and what the model of dev/SPEED.md, "Ranks",
# predicts from the step of one rank. OPTIONs go to bench. Needs root, iproute2, `make MPI=1`, a quiet machine with as many
# cores as ranks, and nothing outside of this machine.
# Environment: RATES="memory 10gbit 1gbit 100mbit" (memory: no network, ranks of one machine), RANKS="1 2 4", RUNS (3: medians of so many), LATENCY (100,
# microseconds of a message, which here is that of the kernel).
set -u
cd "$(dirname "$0")/../.." || exit 1
golf=$PWD/train_golf_mpi rates=${RATES:-memory 10gbit 1gbit 100mbit} latency=${LATENCY:-100} ranks=${RANKS:-1 2 4} runs=${RUNS:-3}
net=10.77.7 most=$(echo $ranks | tr ' ' '\n' | sort -n | tail -n 1)
fail() {
    echo "mpi_throttled.sh: error: $*" >&2
    exit 1
}
[ -x "$golf" ] || fail "no train_golf_mpi here: make MPI=1 first"
[ "$(id -u)" = 0 ] || fail "network namespaces need root"
command -v ip tc mpirun > /dev/null || fail "expected ip, tc and mpirun; Debian: apt-get install iproute2 openmpi-bin"
tmp=$(mktemp -d) || exit 1
clean_up() {
    for i in $(seq "$most"); do ip netns del golf$i 2> /dev/null; done
    ip link del golfbr 2> /dev/null
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

ip link add golfbr type bridge && ip addr add $net.254/24 dev golfbr && ip link set golfbr up || fail "cannot make a bridge"
for i in $(seq "$most"); do
    ip netns add golf$i && ip link add golfv$i type veth peer name eth0 netns golf$i && ip link set golfv$i master golfbr up &&
        ip -n golf$i addr add $net.$i/24 dev eth0 && ip -n golf$i link set eth0 up && ip -n golf$i link set lo up ||
        fail "cannot make namespace golf$i"
done

# mpirun starts its daemon on host $net.I through this, as through ssh; each has a name of its own, else Open MPI would take
# them for one machine and use its memory.
cat > "$tmp/enter" << 'END'
#!/bin/bash
i=${1##*.}
shift
exec ip netns exec "golf$i" unshare --uts bash -c "hostname golf$i; $*"
END
chmod +x "$tmp/enter"

throttle() { # RATE, of what each sends
    [ "$1" != memory ] || return
    for i in $(seq "$most"); do
        ip netns exec golf$i tc qdisc replace dev eth0 root tbf rate "$1" burst 256kb latency 50ms ||
            fail "tc cannot limit eth0 of golf$i"
    done
}

step_on() { # RATE RANKS OPTIONS...: ms of the step, exchange, waiting; bytes, messages
    where="--oversubscribe"
    [ "$1" = memory ] || where="--host $(seq -s, -f "$net.%g" "$2") --mca plm_rsh_agent $tmp/enter --mca btl tcp,self \
        --mca btl_tcp_if_include $net.0/24 --mca oob_tcp_if_include $net.0/24"
    k=$2
    shift 2
    # shellcheck disable=SC2086
    mpirun -q --allow-run-as-root --bind-to none --mca mpi_yield_when_idle 1 -n "$k" $where -x OMP_NUM_THREADS=1 \
        "$golf" bench step "$@" > "$tmp/out" 2> "$tmp/err" < /dev/null || fail "mpirun: $(tail -n 1 "$tmp/err")"
    awk '/^a training step/ { ms = $7 }
         / ranks: in a step/ { bytes = $9; messages = $12 }
         /^in [0-9.]* ms;|as much, in/ { for (i = 1; i < NF; i++) if ($i == "in" && $(i + 2) == "ms;") exchange = $(i + 1) }
         /it waits/ { waits = $5 }
         END { print ms, exchange + 0, waits + 0, bytes + 0, messages + 0 }' "$tmp/out"
}

median() { # COLUMN FILE
    awk -v c="$1" '{ print $c }' "$2" | sort -g | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'
}

options="--preset=pocket --vocab=4096 --bwd=int16 --batch=32 --accum=4 $*"
few="$options --batch=8 --accum=1" # one of the groups
ms_alone() { # OPTIONS...: median of one rank; the last run's parts in $tmp/out
    for _ in $(seq "$runs"); do step_on memory 1 "$@" || exit 1; done > "$tmp/alone"
    median 1 "$tmp/alone"
}
group=$(ms_alone $few) && alone=$(ms_alone $options) || exit 1
muon=$(awk '/Muon matmul/ { print $3 }' "$tmp/out")
cores=$(nproc)
threads=$(OMP_NUM_THREADS=$cores "$golf" bench step $options | awk '/^a training step/ { print $7 }')

echo "bench step $options; medians of $runs, $cores cores"
echo "one rank, one thread: $alone ms; one rank, $cores threads: $threads ms (once)"
printf '%-8s %5s %9s %9s %9s %11s %9s %10s %7s\n' rate ranks ms exchange waiting bytes messages predicted off
for rate in $rates; do
    throttle "$rate"
    for k in $ranks; do
        : > "$tmp/runs"
        for _ in $(seq "$runs"); do step_on "$rate" "$k" $options >> "$tmp/runs"; done
        for c in 1 2 3 4 5; do median $c "$tmp/runs"; done | tr '\n' ' ' > "$tmp/medians"
        read -r ms exchange waits bytes messages < "$tmp/medians"
        awk -v rate="$rate" -v k="$k" -v ms="$ms" -v x="$exchange" -v w="$waits" -v b="$bytes" -v m="$messages" \
            -v alone="$alone" -v group="$group" -v muon="$muon" -v cores="$cores" -v latency="$latency" 'BEGIN {
                one = (alone - group) / 3 # a group
                own = group - one - muon  # what every rank does
                bits = rate ~ /memory/ ? 1e12 : rate * (rate ~ /gbit/ ? 1e9 : 1e6)
                computed = (own + (alone - own) / k) * (k > cores ? k / cores : 1)
                predicted = computed + 8e3 * b / bits + m * latency / 1e3
                printf "%-8s %5d %9.1f %9.1f %9.1f %11d %9d %10.1f %6.0f%%\n", rate, k, ms, x, w, b, m,
                    predicted, 100 * (ms / predicted - 1)
            }'
    done
done
