#!/bin/sh
# tools.sh: the Makefile and the scripts with other machines' tools, folders and file names: numbers padded (macOS),
# busybox, another awk, TMPDIR with a space or without the right to run programs; file names with spaces,
# backslashes and dashes. Tools that are not installed are skipped. Environment: CC. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc}
root=$PWD
make -s CC="$CC" train_golf || exit 1
mkdir -p build && tmp=$root/$(mktemp -d build/tools.XXXXXX) || exit 1
clean_up() {
    umount "$tmp/noexec" 2> /dev/null
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
check() { # WHAT COMMAND...
    what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED $what"; fi
}
has() { grep -q -e "$1" "$tmp/out" || { tail -n 3 "$tmp/out" && false; }; }
words() { # SEED: 16 KB that look a little like English; one text has a U+2581
    awk -v seed="$1" 'BEGIN { srand(seed); n = split("the of state union and people we shall our nation " \
        "with great peace to congress laws year", w, " "); if (seed == 3) printf "\342\226\201"
        for (i = 0; i < 3000; i++) printf "%s%s", w[1 + int(n * rand() * rand())], rand() < .1 ? ".\n" : " " }'
}

# ---- names of files: the same shards as from plain names of the same order
mkdir "$tmp/plain" "$tmp/odd"
i=0
while read -r name; do
    i=$((i + 1))
    words $i > "$tmp/plain/$i"
    cp "$tmp/plain/$i" "$tmp/odd/$name"
done << 'END'
-e
-n
a b  c
back\nslash
back\tail\
it's "quoted" $HOME *
z
END
get() { # OUT FILES...: with $shell and the tools of $PATH; from the folder of the files
    out=$1
    shift
    OUT=$out VOCAB=320 $shell "$root/data/get.sh" text "$@" > "$tmp/out" 2>&1
}
same_data() { # A B
    for file in tokenizer.model text_train_000000.bin text_val_000000.bin info.txt; do
        cmp "$1/$file" "$2/$file" || return 1
    done
}
one_line() { # what get.sh says first: one text of training, one of validation, no notes
    head -n 1 "$tmp/out" | grep -q ': train 6 documents, [0-9]* bytes, [0-9]* tokens; val 1 documents, [0-9]* bytes, [0-9]* tokens; $'
}
get_texts() { # WHAT: odd names, one file, a folder's name with slashes
    rm -rf "$tmp/got" "$tmp/got one"
    cd "$tmp/odd" || exit 1
    mkdir "$tmp/got"
    get "$tmp/got//" *
    check "$1: odd names: $(tail -n 1 "$tmp/out")" same_data "$tmp/got" "$tmp/want"
    check "$1: a summary of the splits alone: $(head -n 1 "$tmp/out")" one_line
    get "$tmp/got one/" -e
    check "$1: one file called -e: $(tail -n 1 "$tmp/out")" same_data "$tmp/got one" "$tmp/want one"
    get "$tmp/got//" *
    check "$1: a second time: kept" has "$tmp/got is there already"
    cd "$root" || exit 1
    rm -rf "$tmp/got one_dev"
    $shell data/get.sh dev "$tmp/got one/" > "$tmp/out" 2>&1
    check "$1: part of it held out: $(tail -n 1 "$tmp/out")" cmp "$tmp/got one_dev/tokenizer.model" "$tmp/want one/tokenizer.model"
    DEB=$tmp/dictionary.deb OUT="$tmp/got dict" $shell data/get.sh gcide > "$tmp/out" 2>&1
    # 44 x 34 bytes, and an empty line and 21 bytes more in the first document; the 40th is validation text
    check "$1: a dictionary" has 'train split: expected 3925 documents of 30464425 bytes, found 44 of 1518;'
}
dictionary() { # a package like dict-gcide, with another text
    {
        printf '00-database-info\n   Not an entry.\n\n'
        i=100
        while [ $((i += 1)) -le 145 ]; do
            word=w${i#1}
            printf '%s \\%s\\ n.\n   A    word of\n   two lines.\n   [1913%sWebster]\n\n' $word $word " "
        done
        printf 'w01s \\w01s\\ n.\n   More. [1913\n   Webster +PJC]\n\n'
    } | gzip > "$1/usr/share/dictd/gcide.dict.dz"
    printf 'Package: dict-gcide\nVersion: 1\nArchitecture: all\nMaintainer: none <none@none>\nDescription: a test\n' > "$1/DEBIAN/control"
    dpkg-deb --build "$1" "$tmp/dictionary.deb" > "$tmp/out" 2>&1
}
shell=sh
mkdir -p "$tmp/dict/DEBIAN" "$tmp/dict/usr/share/dictd"
dictionary "$tmp/dict" || cat "$tmp/out"
cd "$tmp/plain" || exit 1
get "$tmp/want" 1 2 3 4 5 6 7
get "$tmp/want one" 1
cd "$root" || exit 1
check "plain names: $(cat "$tmp/out")" [ -f "$tmp/want/info.txt" ]
get_texts "these tools"
mkdir "$tmp/left"
check "bad text leaves what was there" sh -c "! OUT='$tmp/left/' VOCAB=65535 data/get.sh text '$tmp/odd/z' 2> /dev/null &&
    [ -d '$tmp/left' ] && [ ! -e '$tmp/left/.part' ] && [ ! -e '$tmp/left.part' ]"
nl=$(printf 'a\nb')
words 9 > "$tmp/odd/$nl"
get "$tmp/nl" "$tmp/odd/z" "$tmp/odd/$nl"
check "a line end in a name" has 'rename the file'
rm "$tmp/odd/$nl"

# ---- tools: first of all wc and od that pad, as macOS has them
facts() { make -n -B CC="$CC" train_golf > "$tmp/out" 2>&1; }
with() { # WHAT FOLDER: its tools before the others
    PATH_was=$PATH
    PATH=$2:$PATH
    get_texts "$1"
    facts
    check "$1: the size of the code" has "DGOLF_CODE_BYTES=$(cat train_golf.c golf.h data/tokenizer.h | wc -c | tr -d ' ') "
    check "$1: what make found" has "$found"
    check "$1: names.sh" sh -c "$shell dev/check/names.sh > /dev/null"
    check "$1: golden.sh" sh -c "$shell dev/check/golden.sh '^tiny$' > '$tmp/out' 2>&1"
    PATH=$PATH_was
}
facts
found=$(sed -n 's/.*-std=gnu11 \(.*\) -Wall.*/\1/p' "$tmp/out")
check "make finds something: $found" [ "$found" ]
mkdir "$tmp/padding" "$tmp/busybox" "$tmp/awk"
for tool in wc od; do
    printf '#!/bin/sh\n%s "$@" | sed "s/^/       /; s/$/       /"\n' "$(command -v $tool)" > "$tmp/padding/$tool"
    chmod +x "$tmp/padding/$tool"
done
with "numbers that are padded" "$tmp/padding"
if command -v busybox > /dev/null; then
    for tool in awk basename cat chmod cksum cmp cp cut dirname find grep head ls mkdir mktemp mv od paste printf rm \
        sed sh sort tail tar tr uniq wc xargs; do
        busybox --list | grep -qx $tool && ln -s "$(command -v busybox)" "$tmp/busybox/$tool"
    done
    shell="busybox sh"
    with busybox "$tmp/busybox"
    shell=sh
else
    echo "skipped: busybox is not installed"
fi
for awk in mawk original-awk gawk; do
    command -v $awk > /dev/null || { echo "skipped: $awk is not installed" && continue; }
    ln -sf "$(command -v $awk)" "$tmp/awk/awk"
    with $awk "$tmp/awk"
done

# ---- the folder for temporary files
mkdir "$tmp/a b" "$tmp/noexec"
TMPDIR="$tmp/a b" facts
check "TMPDIR with a space: what make found" has "$found"
(TMPDIR="$tmp/a b" && export TMPDIR && get_texts "TMPDIR with a space" && echo "$passed $failed" > "$tmp/count") # in a shell of its own
read -r passed failed < "$tmp/count"
check "TMPDIR with a space: a test program" sh -c "make -s CC='$CC' build/tests/commands_float &&
    TMPDIR='$tmp/a b' build/tests/commands_float > '$tmp/out' 2>&1"
if mount -t tmpfs -o noexec,size=20m tmpfs "$tmp/noexec" 2> /dev/null; then
    TMPDIR=$tmp/noexec facts
    check "TMPDIR without programs: what make found" has "$found"
    umount "$tmp/noexec"
else
    echo "skipped: a folder without the right to run programs (cannot mount one)"
fi

# ---- what is not found is said aloud, what is declined is not
cat > "$tmp/poor" << END
#!/bin/sh
case " \$* " in *" -fopenmp "* | *" -march=native "* | *" -mcpu=native "*) exit 1 ;; esac
exec $CC "\$@"
END
chmod +x "$tmp/poor"
make -n -B CC="$tmp/poor" train_golf > "$tmp/out" 2>&1
check "no OpenMP, no -march=native: said" has 'SLOW: .* has no -march=native OpenMP here'
# Apple's clang knows OpenMP behind -Xpreprocessor alone, and Homebrew says where it would be.
mkdir -p "$tmp/apple" "$tmp/brew/lib"
cat > "$tmp/apple/clang-of-apple" << END
#!/bin/sh
case " \$* " in
    *" -L$tmp/brew/lib -lomp "*) [ -f "$tmp/brew/lib/libomp.dylib" ] || exit 1 ;;
    *" -fopenmp "*) exit 1 ;;
esac
exec $CC \$(echo "\$*" | sed 's/-Xpreprocessor -fopenmp/-fopenmp/; s/-lomp//')
END
printf '#!/bin/sh\necho "%s"\n' "$tmp/brew" > "$tmp/apple/brew"
chmod +x "$tmp/apple/clang-of-apple" "$tmp/apple/brew"
apple() { PATH=$tmp/apple:$PATH make -n -B CC="$tmp/apple/clang-of-apple" train_golf > "$tmp/out" 2>&1; }
apple
check "Homebrew without libomp: said" has 'SLOW: .* has no OpenMP here'
touch "$tmp/brew/lib/libomp.dylib"
apple
check "Homebrew's libomp" has "-Xpreprocessor -fopenmp -I$tmp/brew/include -L$tmp/brew/lib -lomp"
make -n -B CC="$CC" NO_OMP=1 MARCH= train_golf > "$tmp/out" 2>&1
check "NO_OMP=1 MARCH=: not said" sh -c "! grep SLOW '$tmp/out'"

# ---- without flock(1), which macOS has not, perl takes the lock of studies and tuner
if command -v perl > /dev/null; then
    sed -n '/^command -v flock/,/^}/p' dev/trainers.sh | sed 's/.*|| flock() {.*/flock() {/' > "$tmp/locked"
    check "the lock by perl is found" grep -q 'perl -MFcntl' "$tmp/locked"
    printf 'exec 9> "%s/lock"\nflock -n 9 || exit 3\n"$@"\n' "$tmp" >> "$tmp/locked"
    check "a lock" sh "$tmp/locked" [ -f "$tmp/lock" ]
    check "it is held" sh "$tmp/locked" sh -c "! sh '$tmp/locked' true"
else
    echo "skipped: locks by perl (no perl)"
fi

# ---- FineWeb with files of bytes, from a server that is a folder
mkdir "$tmp/bin" "$tmp/server"
cat > "$tmp/bin/curl" << END
#!/bin/sh
# the last word is the address, the file stands behind -o
while [ \$# -gt 1 ]; do
    [ "\$1" = -o ] && to=\$2
    shift
done
cp "$tmp/server/\${1##*/}" "\$to" 2> /dev/null || exit 22
END
chmod +x "$tmp/bin/curl"
cp "$tmp/want/tokenizer.model" "$tmp/server/fineweb_1024_bpe.model"
cp "$tmp/want/text_train_000000.bin" "$tmp/server/fineweb_train_000000.bin"
cp "$tmp/want/text_val_000000.bin" "$tmp/server/fineweb_val_000000.bin"
fineweb() { # OUT
    PATH=$tmp/bin:$tmp/padding:$PATH OUT=$1 data/get.sh fineweb > "$tmp/out" 2>&1
}
check "FineWeb: $(cat "$tmp/out")" fineweb "$tmp/fineweb/"
check "no file of bytes" [ ! -e "$tmp/fineweb/fineweb_val_bytes_000000.bin" ]
head -c 2000 "$tmp/want/text_val_000000.bin" > "$tmp/server/fineweb_val_bytes_000000.bin"
check "FineWeb: a file cut short" sh -c "! PATH='$tmp/bin:$PATH' OUT='$tmp/cut' data/get.sh fineweb > '$tmp/out' 2>&1"
check "FineWeb: a file cut short: $(tail -n 1 "$tmp/out")" has 'val_bytes_000000.bin: expected a shard as long as'
cp "$tmp/server/fineweb_val_000000.bin" "$tmp/server/fineweb_val_bytes_000000.bin"
check "FineWeb with bytes: $(cat "$tmp/out")" fineweb "$tmp/with bytes"
check "a file of bytes" cmp "$tmp/server/fineweb_val_bytes_000000.bin" "$tmp/with bytes/fineweb_val_bytes_000000.bin"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
