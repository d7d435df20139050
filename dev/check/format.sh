#!/bin/sh
# format.sh FILE...: clang-format over C files, but for the planted bugs at the end of a system's file, which
# are lines for the shell.
set -eu
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
for file; do
    sed '/^#elif defined BUGS/,$d' "$file" | clang-format --assume-filename="$file" > "$tmp"
    sed -n '/^#elif defined BUGS/,$p' "$file" >> "$tmp"
    cmp -s "$tmp" "$file" || cp "$tmp" "$file"
done
