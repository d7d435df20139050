#!/bin/sh
# golden.sh [-r] [PATTERN]: does the program still train the same models, bit for bit? Every arm of
# golden.tsv, or those with PATTERN (a regular expression) in their names, trains for 25 steps in a
# temporary folder. Four things are compared with the table; -r writes them there instead:
#   tensors   checksum of what `info` says of each in model.golf: name, bytes, crc32; by name
#   numbers   sum of the weights and moments in ckpt.bin, taken as 32-bit integers: model.golf
#             rounds, this sees the last bit
#   losses    checksum of the loss and the norm of the gradient at each step, to the last digit
#   bpb       the score of model.golf
# An arm with --eval=@ARM trains nothing, but scores the file of that arm with its other options: all that is
# printed is compared (as tensors), and the last score (as bpb).
# Environment: GOLF=./train_golf, the program (from the project's folder); RUN=qemu-aarch64, what
# it runs in; SUBSET=1: arms with options that this build lacks are skipped, not failed.
#
# golden.tsv: arm, options, tensors, numbers, losses, bpb, with tabs between. A row * starts a
# group: its options come before those of the arms below it. =@ARM: the run folder of an arm
# further up. The table is that of every machine, compiler, optimization and number of threads:
# builds.sh compares many.
set -uf
cd "$(dirname "$0")/../.." || exit 1
golf=${GOLF:-./train_golf} run=${RUN:-}
table=dev/check/golden.tsv
little=$(od --endian=little < /dev/null > /dev/null 2>&1 && echo --endian=little) # else this machine had better be
common="--steps=25 --val_tokens=4096 --ckpt_every=0"
tab=$(printf '\t')
# Threads that spin while they wait are slow beside other work.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

fail() {
    echo "golden.sh: error: $*" >&2
    exit 1
}

record=
if [ "${1:-}" = -r ]; then
    record=1
    shift
fi
pattern=${1:-}
[ -x "$golf" ] || fail "no $golf here: make it first"
mkdir -p build && tmp=$(mktemp -d build/golden.XXXXXX) || exit 1 # not TMPDIR: its name has no space
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# The arms to train, one a line: arm, 1 if PATTERN asks for it (0: another arm starts from it),
# options, what to expect.
awk -F'\t' -v OFS='\t' -v pattern="$pattern" '
    /^#/ || NF < 2 { next }
    $1 == "*" { group = $2; next }
    {
        row[$1] = ++n
        arm[n] = $1
        options[n] = group " " $2
        expected[n] = $3 OFS $4 OFS $5 OFS $6
        asked[n] = $1 ~ pattern
    }
    END {
        for (i = n; i > 0; i--) { # upwards: an arm stands above those that start from it
            needed[i] += asked[i]
            if (!needed[i]) continue
            rest = options[i]
            while (match(rest, /=@[^ \/]*/)) {
                needed[row[substr(rest, RSTART + 2, RLENGTH - 2)]] = 1
                rest = substr(rest, RSTART + RLENGTH)
            }
        }
        for (i = 1; i <= n; i++)
            if (needed[i]) print arm[i], asked[i], options[i], expected[i]
    }' $table > "$tmp/plan"
[ -s "$tmp/plan" ] || fail "no arm of $table has '$pattern' in its name"

need_data() { # OPTIONS
    data=$(echo "$1" | sed -n 's/.*--data=\([^ ]*\).*/\1/p')
    [ -f "$data/tokenizer.model" ] && return
    case $data in
        *1024) fail "no $data here: run VOCAB=1024 OUT=$data data/get.sh sotu" ;;
        *) fail "no $data here: run OUT=$data data/get.sh sotu" ;;
    esac
}

score() { # ARM OPTIONS: what `eval` prints, in $tmp/ARM.log
    of=$(echo "$2" | sed -n 's/.*--eval=@\([^ ]*\).*/\1/p')
    $run "$golf" eval "$tmp/$of/model.golf" $(echo "$2" | sed 's/--eval=@[^ ]*//') > "$tmp/$1.log" 2>&1 < /dev/null
}

train() { # ARM OPTIONS: into $tmp/ARM, which has a result.json when all went well
    case $2 in *--eval=@*)
        score "$1" "$2"
        return
        ;;
    esac
    # The options are words: no quotes.
    $run "$golf" train $common $(echo "$2" | sed "s|=@|=$tmp/|g") --out="$tmp/$1" \
        > "$tmp/$1.log" 2>&1 < /dev/null
    [ -f "$tmp/$1/result.json" ]
}

# ARM OPTIONS: which option this build lacks to train it; empty when none. A range that holds
# words has a | in it.
lacks() {
    for donor in $(echo "$2" | grep -o '=@[^ /]*' | sed 's/=@//'); do
        case " $skipped " in *" $donor "*) echo "it starts from $donor" ;; esac
    done
    [ ! -f "$tmp/$1.log" ] || sed -n '
        s/.*error: \(unknown option --[^;]*\);.*/\1/p
        s/.*error: \(unknown preset [^;]*\);.*/\1/p
        s/.*error: \(--[^:=]*: expected .*|.*, found .*\); the default is.*/\1/p' "$tmp/$1.log"
}

tensors_of() { # ARM: rows between the line that names the columns and an empty one
    $run "$golf" info "$tmp/$1/model.golf" | awk '
        $1 == "tensor" && $NF == "crc32" { table = 1; next }
        !NF { table = 0 }
        table { print $1, $(NF - 2), $NF }' | LC_ALL=C sort > "$tmp/$1.tensors"
    [ -s "$tmp/$1.tensors" ] || echo "no column crc32 in info"
    cksum < "$tmp/$1.tensors" | tr ' ' -
}

# ARM: ckpt.bin ends with 3 n numbers of 4 bytes (n: 8 bytes at 32) and 4 bytes more. A sum does
# not mind in which order the tensors stand.
numbers_of() {
    n=$(od $little -An -t u8 -j 32 -N 8 "$tmp/$1/ckpt.bin" | tr -d ' ')
    tail -c $((12 * n + 4)) "$tmp/$1/ckpt.bin" | head -c $((12 * n)) | od $little -An -v -t u4 | awk '
        { for (i = 1; i <= NF; i++) sum += $i; sum %= 4294967296 }
        END { printf "%.0f\n", sum }'
}

losses_of() { # ARM: step, loss and norm of every step
    [ "$(wc -l < "$tmp/$1/log.tsv")" -gt 25 ] || echo "steps without a line in log.tsv"
    cut -f 1,3,6 "$tmp/$1/log.tsv" | cksum | tr ' ' -
}

bpb_of() { # ARM
    sed -n 's/^  "val_bpb": \(.*\),$/\1/p' "$tmp/$1/result.json"
}

found() { # ARM OPTIONS: the columns of the table
    case $2 in
        *--eval=@*) echo "$(cksum < "$tmp/$1.log" | tr ' ' -)$tab-$tab-$tab$(sed -n 's/^[a-z]*_bpb //p' "$tmp/$1.log" | tail -n 1)" ;;
        *) echo "$(tensors_of "$1")$tab$(numbers_of "$1")$tab$(losses_of "$1")$tab$(bpb_of "$1")" ;;
    esac
}

passed=0 failed=0 skipped=''
while IFS=$tab read -r arm asked options want; do
    need_data "$options"
    if ! train "$arm" "$options"; then
        why=
        [ -z "${SUBSET:-}" ] || why=$(lacks "$arm" "$options")
        if [ "$why" ]; then
            skipped="$skipped $arm"
            printf '%-16s skipped: %s\n' "$arm" "$why"
        else
            failed=$((failed + asked))
            printf '%-16s FAILED: %s\n' "$arm" "$(tail -n 1 "$tmp/$arm.log")"
        fi
        continue
    fi
    [ "$asked" = 1 ] || continue
    got=$(found "$arm" "$options")
    if [ "$record" ]; then
        passed=$((passed + 1))
        printf '%-16s %s\n' "$arm" "$got"
        printf '%s\t%s\n' "$arm" "$got" >> "$tmp/results"
    elif [ "$got" = "$want" ]; then
        passed=$((passed + 1))
        printf '%-16s ok\n' "$arm"
    else
        failed=$((failed + 1))
        printf '%-16s FAILED: %s\n%16s expected %s\n' "$arm" "$got" '' "$want"
    fi
done < "$tmp/plan"

if [ -f "$tmp/results" ]; then
    awk -F'\t' -v OFS='\t' '
        NR == FNR { got[$1] = $2 OFS $3 OFS $4 OFS $5; next }
        $1 in got { print $1, $2, got[$1]; next }
        { print }' "$tmp/results" $table > "$tmp/table" && cat "$tmp/table" > $table
fi
[ -z "$skipped" ] || echo "skipped, as this build lacks their options:$skipped"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
