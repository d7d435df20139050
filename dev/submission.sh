#!/bin/sh
# make submission RUN=runs/mine AUTHOR="..." GITHUB_ID=...: a records folder of Parameter Golf from a finished run,
# by default RUN/records/track_non_record_16mb/DATE_NAME: README.md, submission.json, the log, the code, the model.
# Sizes are decimal bytes; code (every file that the program is built from) and model may have 16,000,000 together,
# else it is refused. The tokenizer is there, and not counted, as in Parameter Golf. Then the folder is checked: its
# JSON, its sizes, and that the program built from it gives its model the score that is in it.
# Environment: RUN, AUTHOR, GITHUB_ID; NAME (the run's), BLURB, DATE (today), TRACK (non_record_16mb), HARDWARE,
# OUT, DATA (the run's), BUILD=0 (the program is not built, nor the score checked), SOURCES (make knows them), CC.
set -eu
cd "$(dirname "$0")/.."
die() { echo "submission.sh: error: $*" >&2; exit 1; }
most=16000000
run=${RUN:-}
run=${run%/}
[ -n "$run" ] || die "expected RUN=, the folder of a finished run"
for file in result.json model.golf log.tsv tokenizer.model; do
    [ -f "$run/$file" ] || die "no $run/$file: expected the folder of a finished run"
done
[ -n "${AUTHOR:-}" ] && [ -n "${GITHUB_ID:-}" ] || die "expected AUTHOR= and GITHUB_ID=, which submission.json names"
[ -n "${SOURCES:-}" ] || die "expected SOURCES=: call it as make submission"

value() { sed -n "s/^  \"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$run/result.json"; }
config() { sed -n "s/^  \"config\": {.*\"$1\": \"\([^\"]*\)\".*/\1/p" "$run/result.json"; }
certificate() { sed -n "s/^  \"certificate\": {.*\"$1\": \"\([^\"]*\)\".*/\1/p" "$run/result.json"; }
bytes() { cat "$@" | wc -c | tr -d ' '; }
json() { # TEXT in quotes
    printf '%s' "$1" | LC_ALL=C tr '\n\t' '  ' | LC_ALL=C tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g; s/^/"/; s/$/"/'
}

name=${NAME:-$(value name)} date=${DATE:-$(date -u +%Y-%m-%d)} track=${TRACK:-non_record_16mb}
echo "$date" | grep -qE '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' || die "DATE=$date: expected YYYY-MM-DD"
echo "$name" | grep -qE '^[A-Za-z0-9_.-]+$' || die "NAME=$name: expected letters, digits, _ . -: it is part of a folder's name"
data=${DATA:-$(config data)}
out=${OUT:-$run/records/track_$track/${date}_$name}
out=${out%/}
[ ! -e "$out" ] || die "$out is there already: remove it, or give another OUT= or NAME="
[ "$(config val_tokens)" = 0 ] || die "$run was scored on a prefix (--val_tokens=$(config val_tokens)): a record is of all validation tokens"
model=$(bytes "$run/model.golf")
[ "$model" = "$(value bytes_model)" ] || die "$run/model.golf has $model bytes, result.json says $(value bytes_model): not the same run's"
# shellcheck disable=SC2086
code=$(bytes $SOURCES) total=$((model + code))
[ $total -le $most ] || die "$model bytes of model.golf and $code of code are $total, $((total - most)) over $most"

# ---- the folder, which appears complete or not at all
part=$out.part
rm -rf "$part"
mkdir -p "$part/code"
trap 'rm -rf "$part"' EXIT
trap 'exit 1' HUP INT TERM
cp "$run/model.golf" "$run/tokenizer.model" "$run/log.tsv" "$run/result.json" "$part"
for file in $SOURCES; do
    mkdir -p "$part/code/$(dirname "$file")" && cp "$file" "$part/code/$file"
done

# What was asked for: the options that `help` shows with other defaults, but for those of folders and of watching.
./train_golf help > "$part/help"
options=$(sed -n 's/^  "config": {\(.*\)}$/\1/p' "$run/result.json" | sed 's/", "/"\
"/g' | awk 'NR == FNR { if ($1 ~ /^--/) { at = index($1, "="); default_of[substr($1, 3, at - 3)] = substr($1, at + 1) } next }
    { at = index($0, "\": \""); key = substr($0, 2, at - 2); text = substr($0, at + 4, length($0) - at - 4) }
    key !~ /^(data|tokenizer|out|minutes|val_every|ckpt_every|recompute|resume|overwrite|certify|watch)$/ &&
        key in default_of && text != default_of[key] { printf " --%s=%s", key, text }' "$part/help" -)
rm "$part/help"
blurb=${BLURB:-"Golf: a C program that trains, exports and scores a model of $model bytes; preset $(value preset), $(value steps) steps on CPUs"}
hardware=${HARDWARE:-"CPU, threads: $(value threads), $(value isa)"}
certified=$(certificate certified)
cat > "$part/submission.json" << END
{
  "author": $(json "$AUTHOR"),
  "github_id": $(json "$GITHUB_ID"),
  "name": $(json "$name"),
  "blurb": $(json "$blurb"),
  "date": "$date",
  "track": $(json "$track"),
  "val_loss": $(value val_loss),
  "val_bpb": $(value val_bpb),
  "val_tokens": $(value val_tokens),
  "val_bytes": $(value val_bytes),
  "data": $(json "$(config data)"),
  "seeds": [$(value seed)],
  "step_stop": $(value steps),
  "wallclock_seconds": $(value seconds),
  "hardware": $(json "$hardware"),
  "bytes_model": $model,
  "bytes_code": $code,
  "bytes_total": $total,
  "bytes_tokenizer": $(bytes "$run/tokenizer.model"),
  "certified": $(json "${certified:-not asked for}"),
  "git_rev": $(json "$(value git_rev)")
}
END
case $(basename "$data") in
*fineweb*) scored="the validation text of $data" ;;
*) scored="the validation text of $data, which is not FineWeb: not comparable with the leaderboard" ;;
esac
cat > "$part/README.md" << END
# $name

$blurb.

| | |
|---|---|
| val_bpb | $(value val_bpb), of the file as it is read back |
| val_loss | $(value val_loss) nats a token |
| scored on | $(value val_tokens) tokens, $(value val_bytes) bytes: $scored |
| model.golf | $model bytes |
| code/ | $code bytes: every file that the program is built from |
| together | $total of $most bytes |
| steps | $(value steps), $(value tokens) tokens, $(value seconds) s on $hardware |
| certificate | ${certified:-not asked for (train --certify=1, or eval --certify=1)} |
| program | $(value git_rev), $(value compiler); the code here is that of $(git describe --always --dirty 2> /dev/null || echo "an unknown revision") |

tokenizer.model ($(bytes "$run/tokenizer.model") bytes) is not counted. Same seed, same bits: on every machine, with every compiler, any number of threads.

To score the file, with the validation shards in DATA (a C compiler and make are all it needs):

    make -C code train_golf
    code/train_golf eval model.golf --data=DATA              # val_bpb as above
    code/train_golf eval model.golf --data=DATA --certify=1  # causal, normalised, every byte once, from the file alone

To train it again:

    code/train_golf train$options --data=DATA --out=run

log.tsv has a row for each step, result.json every option and figure of the run.
END

# ---- is it what it says?
field() { sed -n "s/^  \"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$part/submission.json"; }
if command -v python3 > /dev/null; then
    python3 -m json.tool "$part/submission.json" > /dev/null || die "its submission.json is no JSON"
else
    echo "skipped: parsing submission.json (no python3)"
fi
counted=$(find "$part/code" -type f -exec cat {} + | wc -c | tr -d ' ')
[ "$counted" = "$(field bytes_code)" ] || die "its code has $counted bytes, submission.json says $(field bytes_code)"
[ "$(bytes "$part/model.golf")" = "$(field bytes_model)" ] && [ "$(field bytes_total)" = $((counted + model)) ] ||
    die "its sizes are not those of submission.json"
if [ "${BUILD:-1}" = 0 ]; then
    echo "skipped: the program and the score (BUILD=0)"
elif [ ! -d "$data" ]; then
    echo "skipped: the score (no folder $data: give DATA=)"
else
    cp -r "$part" "$part.check"
    trap 'rm -rf "$part" "$part.check"' EXIT
    make -s -C "$part.check/code" ${CC:+CC="$CC"} ${OPT:+OPT="$OPT"} train_golf || die "the program of its code does not build"
    again=$("$part.check/code/train_golf" eval "$part.check/model.golf" --data="$data" | awk '$1 == "val_bpb" { print $2 }')
    awk -v a="$again" -v b="$(field val_bpb)" 'BEGIN { d = a - b; exit !(a > 0 && d < 1e-11 && d > -1e-11) }' ||
        die "the program of its code gives its model $again bpb, not $(field val_bpb)"
    echo "built from its code: $again bpb"
fi
mv "$part" "$out"
trap - EXIT
rm -rf "$part.check"
echo "$out: $model bytes of model, $code of code, $total of $most"
