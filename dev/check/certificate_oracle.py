#!/usr/bin/env python3
"""certificate_oracle.py MODEL.golf DATA [ROWS]: each point of `eval --certify` again, without its code. Two scorers: the
program from outside, on texts that are made here, and NumPy (golf_exact.py, golf_numpy.py). ROWS (24) of the validation text.

    file alone  the program, in a folder with nothing but model, tokenizer and validation tokens, and with an empty
                environment, prints the same sum to the last bit; NumPy, from these files, the same mean to 1e-6 nats, in double
                numbers (other files than golf_exact.py reads) to 0.01 / sqrt(tokens)
    causal      NumPy's losses up to a place keep when all tokens behind it are others; so the program, whose score is
                theirs, gains nothing by looking ahead
    normalised  exp(-loss) over the vocabulary sums to 1: of NumPy; of the program, a run for each piece, up to 1,000 pieces
    once        scores and bytes of two halves of the text add up to those of the whole, wherever it is cut between rows;
                the bytes are those of the text that the pieces spell
    lines       the certificate is given, and says of file and text what zlib and NumPy say

Needs: python3 with numpy. Ends with `N passed, N failed`."""
import os, shutil, subprocess, sys, tempfile, zlib
import numpy as np
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import golf_exact, golf_numpy

path, data = sys.argv[1:3]
rows = int(sys.argv[3]) if len(sys.argv) > 3 else 24
program, tmp = os.path.abspath("train_golf"), tempfile.mkdtemp()
failed, passed = 0, 0

def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok: print("FAILED " + what)

def folder(name, tokens):
    """nothing but the model, its tokenizer and these tokens"""
    where = os.path.join(tmp, name)
    os.makedirs(where, exist_ok=True)
    for file, to in ((path, "model.golf"), (data + "/tokenizer.model", "tokenizer.model")):
        if not os.path.exists(os.path.join(where, to)): shutil.copy(file, os.path.join(where, to))
    head = np.zeros(256, "<i4")
    head[:3] = 20240520, 1, len(tokens)
    with open(where + "/x_val_000000.bin", "wb") as f:
        f.write(head.tobytes() + np.asarray(tokens, "<u2").tobytes())
    return where

def score(where, *options):
    """what the program prints, key by key"""
    out = subprocess.run([program, "eval", "model.golf", "--data=."] + list(options), cwd=where, env={}, text=True,
                         stdout=subprocess.PIPE).stdout  # its status is 1, too, when there is no certificate
    if "sum_nll" not in out: sys.exit("FAILED no score in " + where)
    return dict(line.split(" ", 1) for line in out.splitlines())

tokenizer = open(data + "/tokenizer.model", "rb").read()
pieces = [dict(golf_numpy.fields(value)) for key, value in golf_numpy.fields(tokenizer) if key == 1]
kinds = [p.get(3, 1) for p in pieces]
def spelled(ids):
    """bytes of the text that the tokens behind the first one spell, document by document, each without a space at its start"""
    count, start = 0, kinds[ids[0]] == 3
    for i in ids[1:]:
        text = b"x" if kinds[i] == 6 else pieces[i].get(1, b"").replace(b"\xe2\x96\x81", b" ")
        if kinds[i] != 3: count += len(text) - (start and text[:1] == b" ")
        start = kinds[i] == 3
    return count

m = golf_numpy.load(path)
c, (tokens, size) = m["config"], golf_numpy.text_of(data, m)
V, T = c["vocab"], c["seq"]
rows = min(rows, (len(tokens) - 1) // T)
text = tokens[:rows * T + 1]
x, y = (text[i:rows * T + i].reshape(rows, T) for i in (0, 1))
rng = np.random.default_rng(1)

# ---- file alone
there = dict(line.split(" ", 1) for line in subprocess.check_output(
    [program, "eval", path, "--data=" + data, "--val_tokens=%d" % (rows * T)], text=True).splitlines())
alone = score(folder("whole", text))
check(alone["sum_nll"] == there["sum_nll"], "alone: %s, with its folder: %s" % (alone["sum_nll"], there["sum_nll"]))
exact = golf_exact.is_exact(c)
losses_of = golf_exact.losses if exact else golf_numpy.losses
losses = np.concatenate([losses_of(m, x[i:i + 4], y[i:i + 4]) for i in range(0, rows, 4)])
off = losses.mean() - float(alone["val_loss"])
print("%d targets: %.9f by NumPy, %s by the program, %.1e apart" % (losses.size, losses.mean(), alone["val_loss"], off))
check(abs(off) <= (1e-6 if exact else 1e-2 / losses.size ** 0.5), "NumPy's score is another")

# ---- causal
for place in sorted({0, 1, T // 2, T - 2, int(rng.integers(T - 1))}):
    row, other = int(rng.integers(rows)), x[:1].copy()
    before, other[0] = losses_of(m, x[row:row + 1], y[row:row + 1]), x[row]
    other[0, place + 1:] = (other[0, place + 1:] + 1 + rng.integers(V - 1, size=T - 1 - place)) % V
    after = losses_of(m, other, y[row:row + 1])
    check(np.abs(after - before)[0, :place + 1].max() < 1e-9, "losses up to place %d know what follows" % place)
    check(place > T - 3 or np.abs(after - before)[0, place + 1:].max() > 1e-3, "losses behind place %d know nothing" % place)

# ---- normalised
short = min(T, 4)
at = x[int(rng.integers(rows)), :short]
sums = np.zeros(short)
for v in range(0, V, 64):
    n = min(64, V - v)
    sums += np.exp(-losses_of(m, np.repeat(at[None], n, 0), np.repeat(np.arange(v, v + n)[:, None], short, 1))).sum(0)
check(np.abs(sums - 1).max() < 1e-9, "NumPy's probabilities sum to %s" % sums)
if V <= 1000:
    start = float(score(folder("start", at), "--stride=%d" % T)["sum_nll"])
    end = lambda v: float(score(folder("piece", list(at) + [v]), "--stride=%d" % T)["sum_nll"])
    lost = [v for v in range(V) if kinds[v] == 2]  # unknown pieces are refused in a text: as NumPy has them
    total = sum(np.exp(start - end(v)) for v in range(V) if v not in lost)
    total += sum(np.exp(-losses_of(m, at[None], np.array([[0] * (short - 1) + [v]])))[0, -1] for v in lost)
    check(abs(total - 1) < 1e-5, "the program's probabilities sum to %.9f" % total)
else:
    print("skipped: a run for each of %d pieces" % V)

# ---- once
whole = {key: float(alone[key]) for key in ("sum_nll", "tokens", "bytes")}
for cut in sorted({1, rows - 1, int(rng.integers(1, rows))}):
    parts = [score(folder("part%d" % i, part)) for i, part in enumerate((text[:cut * T + 1], text[cut * T:]))]
    for key, value in whole.items():
        added = sum(float(part[key]) for part in parts)
        check(abs(added - value) <= 1e-12 * value, "%s of halves, cut at row %d: %r, of all: %r" % (key, cut, added, value))
check(whole["tokens"] == rows * T, "%d targets of %d" % (whole["tokens"], rows * T))
check(whole["bytes"] == spelled(text), "%d bytes, the pieces spell %d" % (whole["bytes"], spelled(text)))

# ---- lines
said = score(folder("whole", text), "--certify=1")
raw = open(path, "rb").read()
wanted = dict(model_bytes=len(raw), model_crc32="%08x" % zlib.crc32(raw), text_tokens=len(text), certified="yes",
              text_crc32="%08x" % zlib.crc32(text.astype("<u2").tobytes()), val_targets=rows * T, val_left_out=0,
              val_bytes=int(size[:rows * T].sum()), val_text_bytes=int(size[:rows * T].sum()), val_file_alone="yes",
              val_once="yes", val_causal="yes", val_normalised="yes")
for key, value in wanted.items():
    check(said.get(key) == str(value), "the certificate says %s %s, not %s" % (key, said.get(key), value))
shutil.rmtree(tmp)
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)
