#!/usr/bin/env python3
"""Compare the program's tokenizer with the SentencePiece library.

    tokenizer_oracle.py [--driver=PROGRAM] MODEL [TEXT...]

Compares, for every piece, the bytes-per-token table; for every TEXT file and for some hundred
awkward strings, the ids and the text decoded from them; for random ids, the decoding. PROGRAM is
a built tokenizer_ids.c; without it the script builds one. Exit status 1 on any difference.
Needs python3-sentencepiece."""
import os, random, subprocess, sys, tempfile
import sentencepiece

args = sys.argv[1:]
driver = args.pop(0)[9:] if args and args[0].startswith("--driver=") else None
if not args:
    sys.exit(__doc__)
model, texts = args[0], args[1:]
lib = sentencepiece.SentencePieceProcessor(model_file=model)
tmp = tempfile.TemporaryDirectory()
if not driver:
    driver = os.path.join(tmp.name, "tokenizer_ids")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer_ids.c")
    subprocess.run(["cc", "-O2", "-o", driver, source, "-lm"], check=True)
bad = 0
SPACE = "\u2581"


def ours(*a):
    r = subprocess.run([driver, model, *a], capture_output=True)
    return r.returncode, r.stdout.decode().split("\n")[:-1], r.stderr.decode().strip()


def differ(what, ours, library):
    global bad
    bad += 1
    if bad > 10:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, library)) if a != b),
              min(len(ours), len(library)))
    print(f"DIFFERENT {what}: at {at} of {len(ours)}/{len(library)}: ours "
          f"{ours[max(0, at - 3):at + 5]!r}, library {library[max(0, at - 3):at + 5]!r}")


# 1. the table, by the rule of Parameter Golf's train_gpt.py; a space inside a piece is one byte
status, lines, error = ours()
if status:
    sys.exit(error)
table = []
for i in range(lib.get_piece_size()):
    piece, space = lib.id_to_piece(i), 0
    if lib.is_control(i) or lib.is_unknown(i) or lib.is_unused(i):
        table.append("0 0 1")
    elif lib.is_byte(i):
        table.append("1 0 0")
    else:
        space = piece.startswith("\u2581")
        rest = piece[space:].replace(SPACE, " ").encode()
        table.append(f"{len(rest)} {space:d} 0")
if lines != table:
    differ("table", lines, table)
print(f"table: {len(table)} pieces")

# 2. ids and decoding of the files, and of awkward strings
rng = random.Random(1)
strings = ["", " ", "  ", "a", " a", "a ", "  a  b  ", "\n", "\n\n", "a\nb", "\t", "\0", "a\0b",
           "\u2581", "a\u2581b", " \u2581 x", "<s>", "</s>", "<unk>", "<0x41>", "<pad>", "x" * 300,
           " " * 50, "na\u00efve caf\u00e9", "\u65e5\u672c\u8a9e", "\U0001f98a\U0001f525",
           "1234567890",
           "In 1969, $1,000.50", "e\u0301", "\u00a0\u3000", "\ufffd", "\u00e9" * 40, "a.b,c;d!e?f"]
sample = "".join(open(t, encoding="utf-8", errors="ignore", newline="").read(20000)
                 for t in texts[:3]) or "the cat "
alphabets = [sample, "ab ", " \u2581e", "the and of \n", sample + "\u00e9\u4e00\U0001f600\t\0"]
strings += ["".join(rng.choice(a) for _ in range(rng.randrange(1, 400)))
            for a in alphabets for _ in range(100)]
files = list(texts)
for k, s in enumerate(strings):
    files.append(os.path.join(tmp.name, f"s{k}"))
    with open(files[-1], "w", encoding="utf-8", newline="") as f:
        f.write(s)
status, lines, error = ours(*files)
total = 0
if status:
    print("encoding not compared:", error)
else:
    for k, name in enumerate(files):
        text = open(name, encoding="utf-8", newline="").read()
        ids, want = list(map(int, lines[2 * k].split())), lib.encode(text)
        total += len(want)
        label = name if k < len(texts) else repr(text[:40])
        if ids != want:
            differ("ids of " + label, ids, want)
        elif bytes.fromhex(lines[2 * k + 1]) != lib.decode(want).encode():
            differ("text of " + label, bytes.fromhex(lines[2 * k + 1]), lib.decode(want).encode())
    print(f"encode, decode: {len(texts)} files and {len(strings)} strings, {total} ids")

# 3. decoding of random ids; of the byte pieces only the ASCII ones, for which no rule about
# malformed UTF-8 is needed (the library writes U+FFFD, we write the byte)
pool = [i for i in range(lib.get_piece_size())
        if not lib.is_byte(i) or int(lib.id_to_piece(i)[3:5], 16) < 128]
rows = [[rng.choice(pool if rng.random() < .8 else pool[:8]) for _ in range(rng.randrange(0, 30))]
        for _ in range(2000)]
with open(os.path.join(tmp.name, "ids"), "w") as f:
    f.writelines(" ".join(map(str, r)) + "\n" for r in rows)
status, lines, error = ours("--ids", f.name)
for r, line in zip(rows, lines):
    if bytes.fromhex(line) != lib.decode(r).encode():
        differ(f"text of ids {r[:8]}", bytes.fromhex(line), lib.decode(r).encode())
if status or len(lines) != len(rows):
    differ("decoding: " + error, lines, rows)
print(f"decode: {len(rows)} rows of random ids")
print("FAILED" if bad else "agrees with the library", bad or "")
sys.exit(bad > 0)
