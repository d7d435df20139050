#!/bin/sh
# names.sh: the core names no further system. For every file of dev/systems: its name, the names of its
# options (as fields, as --option, in quotes), its words and its tensors must not be in the core, nor in
# another system's file. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
core="train_golf.c golf.h test_golf.c"
passed=0 failed=0
section() { # FILE SECTION: the lines of one section
    awk -v want="$2" '/^#(ifdef|elif defined|endif)/ { on = $NF == want; next } on' "$1"
}
free_of() { # PATTERN WHAT FILES...: no line of these matches
    pattern=$1 what=$2
    shift 2
    if found=$(grep -nE -e "$pattern" "$@" /dev/null); then
        failed=$((failed + 1))
        echo "FAILED $what is named:"
        echo "$found" | head -n 3
    else
        passed=$((passed + 1))
    fi
}
for file in dev/systems/*.h; do
    name=$(basename "$file" .h)
    [ "$name" = systems ] && continue
    others=$(ls dev/systems/*.h | grep -vxF -e "$file" -e dev/systems/systems.h)
    options=$(section "$file" OPTIONS | sed -n 's/^ *X([^,]*, *[A-Z]*, *\([a-z_0-9]*\),.*/\1/p')
    words=$(section "$file" WORDS | sed -n 's/^ *W(\([a-z_]*\), *\([a-z_0-9]*\)).*/\1_\2/p')
    tensors=$(section "$file" TENSORS | sed -n 's/^ *X(\([a-z_0-9]*\),.*/\1/p')
    free_of "\\b$name\\b" "$name" $core
    free_of "\\b(SYS_$name|${name}_system)\\b" "$name" $others
    for option in $options; do
        free_of "(c|config|how)(->|\\.)$option\\b|--$option\\b|\"$option\"" "option $option of $name" $core
        # a preset is a recipe: it may set options of others
        free_of "(c|config|how)(->|\\.)$option\\b" "option $option of $name" $others
    done
    for word in $words; do
        free_of "\\b$word\\b" "word $word of $name" $core $others
    done
    for tensor in $tensors; do
        free_of "\\bT_$tensor\\b|\"$tensor\"" "tensor $tensor of $name" $core $others
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
