#!/bin/sh
# golden.sh [-r] [PATTERN]: does the program still train the same models, bit for bit? Every arm of golden.tsv, or those
# with PATTERN (a regular expression) in their names, trains for 25 steps in a temporary folder; then the checksum of
# what `info` says of its tensors (name, bytes, crc32; by name) is compared with the table. -r writes it there instead.
# Environment: GOLF=./train_golf, the program; SUBSET=1: arms with options that this build lacks are skipped, not failed.
#
# golden.tsv: arm, options, checksum, separated by tabs. A row * starts a group: its options come before those of the
# arms below it. =@ARM is the run folder of an arm further up. Checksums hold for the instruction set and the kind of
# compiler in the first line, as others round differently; the number of threads does not matter.
set -uf
cd "$(dirname "$0")/../.." || exit 1
golf=${GOLF:-./train_golf} table=dev/check/golden.tsv common="--steps=25 --val_tokens=4096 --ckpt_every=0"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin at barriers are slow beside other work
fail() { echo "golden.sh: error: $*" >&2; exit 1; }
record=
[ "${1:-}" != -r ] || { record=1; shift; }
pattern=${1:-}
[ -x "$golf" ] || fail "no $golf here: make it first"
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# The arms to train: arm, 1 if it was asked for (else another one starts from it), options, checksum.
awk -F'\t' -v OFS='\t' -v pattern="$pattern" '
    /^#/ || NF < 2 { next }
    $1 == "*" { group = $2; next }
    { arm[++n] = $1; row[$1] = n; options[n] = group " " $2; checksum[n] = $3; asked[n] = $1 ~ pattern }
    END {
        for (i = n; i > 0; i--) { # upwards: donors stand above those that start from them
            needed[i] += asked[i]
            if (!needed[i]) continue
            rest = options[i]
            while (match(rest, /=@[^ \/]*/)) {
                needed[row[substr(rest, RSTART + 2, RLENGTH - 2)]] = 1
                rest = substr(rest, RSTART + RLENGTH)
            }
        }
        for (i = 1; i <= n; i++) if (needed[i]) print arm[i], asked[i], options[i], checksum[i]
    }' $table > "$tmp/plan"
[ -s "$tmp/plan" ] || fail "no arm of $table has '$pattern' in its name"

find_data() { # OPTIONS
    data=$(echo "$1" | sed -n 's/.*--data=\([^ ]*\).*/\1/p')
    [ -f "$data/tokenizer.model" ] && return
    case $data in
        *1024) fail "no $data here: run VOCAB=1024 OUT=$data data/get.sh sotu" ;;
        *) fail "no $data here: run OUT=$data data/get.sh sotu" ;;
    esac
}
find_machine() { # FOLDER of a run: sets machine, in the words of the table's first line
    isa=$(sed -n 's/^  "isa": "\(.*\)",$/\1/p' "$1/result.json")
    case $(grep '^  "compiler":' "$1/result.json") in
        *[Cc]lang*) machine="isa=$isa compiler=clang" ;;
        *) machine="isa=$isa compiler=gcc" ;;
    esac
}
# ARM: what this build lacks to train it; nothing when it lacks nothing. A range of words has a | in it.
lacks() {
    sed -n 's/.*error: \(unknown option --[^;]*\);.*/\1/p; s/.*error: \(unknown preset [^;]*\);.*/\1/p
            s/.*error: \(--[^:=]*: expected .*|.*, found .*\); the default is.*/\1/p' "$tmp/$1.log"
}
checksum_of() { # ARM: the tensor rows stand between the line with the names of the columns and an empty one
    "$golf" info "$tmp/$1/model.golf" | awk '
        $1 == "tensor" && $NF == "crc32" { table = 1; next }
        !NF { table = 0 }
        table { print $1, $(NF - 2), $NF }' | LC_ALL=C sort > "$tmp/$1.tensors"
    [ -s "$tmp/$1.tensors" ] && cksum < "$tmp/$1.tensors" | tr ' ' -
}

recorded=$(sed -n '1s/^# \(isa=[^ ]* compiler=[^ ]*\).*/\1/p' $table)
passed=0 failed=0 skipped='' machine=''
tab=$(printf '\t')
while IFS=$tab read -r arm asked options want; do
    find_data "$options"
    why=
    for donor in $(echo "$options" | grep -o '=@[^ /]*' | sed 's/=@//'); do
        case " $skipped " in *" $donor "*) why="it starts from $donor" ;; esac
    done
    if [ -z "$why" ]; then
        # $options is a list of words
        "$golf" train $common $(echo "$options" | sed "s|=@|=$tmp/|g") --out="$tmp/$arm" > "$tmp/$arm.log" 2>&1 < /dev/null
        [ -f "$tmp/$arm/result.json" ] || [ -z "${SUBSET:-}" ] || why=$(lacks "$arm")
    fi
    if [ "$why" ]; then
        skipped="$skipped $arm"
        printf '%-16s skipped: %s\n' "$arm" "$why"
        continue
    fi
    if [ -z "$machine" ] && [ -f "$tmp/$arm/result.json" ]; then
        find_machine "$tmp/$arm"
        [ "$machine" = "$recorded" ] || if [ -z "$record" ]; then
            echo "skipped: the checksums are those of $recorded, $golf has $machine and rounds differently"
            echo "0 passed, 0 failed"
            exit 0
        elif [ "$pattern" ]; then
            fail "$table is of $recorded, $golf has $machine: -r without a PATTERN replaces all checksums"
        fi
    fi
    [ "$asked" = 1 ] || continue
    if [ ! -f "$tmp/$arm/result.json" ] || ! got=$(checksum_of "$arm"); then
        failed=$((failed + 1))
        printf '%-16s FAILED: %s\n' "$arm" "$(tail -n 1 "$tmp/$arm.log")"
    elif [ "$record" ]; then
        passed=$((passed + 1))
        printf '%-16s %s\n' "$arm" "$got"
        printf '%s\t%s\n' "$arm" "$got" >> "$tmp/checksums"
    elif [ "$got" = "$want" ]; then
        passed=$((passed + 1))
        printf '%-16s ok\n' "$arm"
    else
        failed=$((failed + 1))
        printf '%-16s FAILED: checksum %s, expected %s\n' "$arm" "$got" "${want:-none yet (-r)}"
    fi
done < "$tmp/plan"

if [ "$record" ] && [ $passed -gt 0 ]; then
    awk -F'\t' -v OFS='\t' -v machine="$machine" '
        NR == FNR { got[$1] = $2; next }
        FNR == 1 { sub(/isa=[^ ]* compiler=[^ ]*/, machine) }
        $1 in got { $3 = got[$1] }
        { print }' "$tmp/checksums" $table > "$tmp/table" && cat "$tmp/table" > $table
fi
[ -z "$skipped" ] || echo "skipped, as this build lacks their options:$skipped"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
