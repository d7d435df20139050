# trainers.sh - what tune.sh and study.sh share: one start at a time, and runs in the background that can be asked to
# stop. They source it; it needs bash.

# Trainers inherit the lock: those that outlived a killed start are waited for.
command -v flock > /dev/null || flock() { # [-n] DESCRIPTOR; macOS has none
    perl -MFcntl=:flock -e 'open(F, ">&=$ARGV[-1]") && flock(F, $ARGV[0] eq "-n" ? LOCK_EX | LOCK_NB : LOCK_EX) or exit 1' -- "$@"
}

train() { # OPTIONS...: one run, one thread; hands a request to stop, SIGTERM, on to the trainer
    local trainer= asked= status
    trap 'asked=1; [ -z "$trainer" ] || kill -TERM "$trainer" 2> /dev/null' TERM
    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive ./train_golf train "$@" &
    trainer=$!
    [ -z "$asked" ] || kill -TERM $trainer
    wait $trainer
    status=$?
    [ -z "$asked" ] || { wait $trainer; status=143; } # the request ended the first wait, the trainer saves yet
    trap - TERM
    return $status
}

stop_trainers() { # PIDS of background functions that call train: ask them, and wait until they have saved
    [ $# = 0 ] || kill -TERM "$@" 2> /dev/null
    wait
}
