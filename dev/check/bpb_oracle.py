#!/usr/bin/env python3
"""bpb_oracle.py MODEL.golf DATA: bits per byte, counted again without our tokenizer and shard code.
The bytes come from the SentencePiece library; only sum_nll is taken from `./train_golf eval`.
Needs: python3 with sentencepiece (Debian: python3-sentencepiece)."""
import glob, math, re, subprocess, sys
import sentencepiece

model, data = sys.argv[1:3]
sp = sentencepiece.SentencePieceProcessor()
sp.Load(data + "/tokenizer.model")
said = dict(line.split(" ", 1) for line in
            subprocess.check_output(["./train_golf", "eval", model, "--data=" + data], text=True).splitlines())
seq = int(re.search(rb"\nseq=(\d+)\n", open(model, "rb").read()).group(1))
tokens = []
for name in sorted(glob.glob(data + "/*_val_*.bin")):
    raw = open(name, "rb").read()[1024:]
    tokens += [raw[i] | raw[i + 1] << 8 for i in range(0, len(raw), 2)]

def text_bytes(prev, tok):  # the piece without its leading space, and the space after real text
    if sp.is_byte(tok):
        return 1
    if sp.is_control(tok) or sp.is_unknown(tok) or sp.is_unused(tok):
        return 0
    piece = sp.id_to_piece(tok)
    space = piece.startswith("\u2581")
    follows_text = not (sp.is_control(prev) or sp.is_unknown(prev) or sp.is_unused(prev))
    return len(piece[space:].replace("\u2581", " ").encode()) + (space and follows_text)

count = (len(tokens) - 1) // seq * seq  # whole rows of seq targets
total = sum(text_bytes(tokens[i], tokens[i + 1]) for i in range(count))
bpb = float(said["sum_nll"]) / math.log(2) / total
print("tokens %d %s\nbytes  %d %s\nbpb    %.12f %s" %
      (count, said["tokens"], total, said["bytes"], bpb, said["val_bpb"]))
ok = count == int(said["tokens"]) and total == int(said["bytes"])
digits = len(said["val_bpb"].split(".")[1])
ok = ok and abs(bpb - float(said["val_bpb"])) <= 1e-9 + 0.5 * 10.0 ** -digits  # as printed
print("agrees" if ok else "DIFFERS")
sys.exit(not ok)
