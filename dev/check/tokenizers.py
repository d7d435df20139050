#!/usr/bin/env python3
"""tokenizers.py [--bytes=N] [--only=PATTERN] [MODEL...]: `encode` and `decode` against the SentencePiece library.

Trains models of every kind, on generated text in 24 scripts, and edits some of them: pieces that are unused or
user-defined, spaces as they are. Then other text, N bytes for each model (30,000): lines that look like words; awkward
ones, with bytes that are no UTF-8, control characters, combining marks, names of pieces; and all of it as one line. The
ids must be those of the library, and so must the text that they decode to. MODELs are compared, too. Prints a row for
each model; exit status 1 on any difference. Needs ./train_golf and python3-sentencepiece."""
import io, os, random, struct, subprocess, sys, tempfile
try:
    import sentencepiece
except ImportError:
    sys.exit("tokenizers.py: needs the SentencePiece library; Debian: python3-sentencepiece, with /usr/bin/python3")

SCRIPTS = [(0x61, 0x7A), (0xE0, 0x17F), (0x3B1, 0x3C9), (0x430, 0x44F), (0x561, 0x586), (0x5D0, 0x5EA), (0x621, 0x64A),
           (0x905, 0x939), (0x985, 0x9B9), (0xB85, 0xBB9), (0xC05, 0xC39), (0xE01, 0xE2E), (0xE81, 0xEAE),
           (0x10D0, 0x10F0), (0x1200, 0x1248), (0x13A0, 0x13F4), (0x1780, 0x17B3), (0x1000, 0x102A), (0x3041, 0x3093),
           (0x30A1, 0x30F3), (0x4E00, 0x4F80), (0xAC00, 0xAD00), (0x10400, 0x1044F), (0x1F600, 0x1F64F)]
# What normalisers replace, and what is invisible: compatibility forms, spaces, marks, controls, private use.
ODD = [(0x300, 0x36F), (0x1D400, 0x1D4FF), (0xFB00, 0xFB06), (0xFDF0, 0xFDFC), (0xFF01, 0xFF9F), (0x2460, 0x24FF),
       (0x3300, 0x33FF), (0x2000, 0x200F), (0x2028, 0x202F), (0, 0x1F), (0x7F, 0xA0), (0xAC, 0xB9), (0x3000, 0x3000),
       (0x2581, 0x2581), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFD), (0xE000, 0xE010), (0x1E00, 0x1EFF), (0xA64C, 0xA64D),
       (0x1100, 0x1112), (0x1161, 0x1175), (0x130, 0x131), (0xDF, 0xDF), (0x1E9E, 0x1E9E), (0x10FFFE, 0x10FFFF)]
NAMES = ["<s>", "</s>", "<unk>", "<pad>", "<0x41>", "<0x0A>", " ", "  ", "   ", "\u2581", "\u2581\u2581", "ab", "abc", "aaaa",
         "[SEP]", "e\u0301", "\uFB01", "\u2460", " x", "123", "1,000.50", "\t", "\r"]
USER = ["[SEP]", "ab", "abcd", "aa", "\uFB01", "\u2460", "e\u0301", "\u4E00\u4E01", "x\u2581y", "\u2581\u2581"]
BROKEN = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x96"]

options = [a for a in sys.argv[1:] if a.startswith("--")]
given = [a for a in sys.argv[1:] if not a.startswith("--")]
size, only = 30000, ""
for o in options:
    if o.startswith("--bytes="): size = int(o[8:])
    elif o.startswith("--only="): only = o[7:]
    else: sys.exit(__doc__)
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
golf = os.path.join(root, "train_golf")
tmp = tempfile.TemporaryDirectory()


# ---- text
class Text:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        words = random.Random(1)  # the same in every text
        self.words = [["".join(chr(words.randint(*s)) for _ in range(words.randrange(1, 9))) for _ in range(150)]
                      for s in SCRIPTS]

    def word(self, script):
        return self.words[script][int(150 * self.rng.random() ** 2)]

    def line(self):
        """some words of one script or several"""
        r = self.rng
        main = r.randrange(len(SCRIPTS))
        parts = [self.word(main if r.random() < .8 else r.randrange(len(SCRIPTS))) for _ in range(r.randrange(1, 25))]
        return r.choice([" ", " ", " ", " ", "", "  ", ", "]).join(parts) + r.choice(["", "", ".", " ", "!?"])

    def awkward(self):
        """anything, in bytes"""
        r, out = self.rng, io.BytesIO()
        for _ in range(r.randrange(1, 30)):
            kind = r.random()
            if kind < .25: out.write(self.word(r.randrange(len(SCRIPTS))).encode())
            elif kind < .45: out.write(chr(r.randint(*r.choice(ODD))).encode())
            elif kind < .6: out.write(r.choice(NAMES).encode())
            elif kind < .8: out.write(" abc\u00e9\u4e00"[r.randrange(6)].encode() * r.randrange(1, 5))
            elif kind < .9: out.write(r.choice(BROKEN))
            else: out.write(chr(r.choice([r.randrange(0xD800), r.randrange(0xE000, 0x110000)])).encode())
        return out.getvalue().replace(b"\n", b"\r")

    def lines(self, most):
        out, n = [], 0
        while n < most:
            out.append(self.awkward() if self.rng.random() < .3 else self.line().encode())
            n += len(out[-1]) + 1
        return out


def repaired(line):
    """as the library reads it: each byte that is in no character is U+FFFD"""
    out, i = bytearray(), 0
    while i < len(line):
        for n in range(1, 5):
            try:
                line[i:i + n].decode()
                out += line[i:i + n]
                break
            except UnicodeDecodeError:
                pass
        else:
            n, out = 1, out + b"\xef\xbf\xbd"
        i += n
    return bytes(out)


# ---- models
def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def fields(b):
    i = 0

    def number():
        nonlocal i
        n = shift = 0
        while True:
            n |= (b[i] & 127) << shift
            i, shift = i + 1, shift + 7
            if b[i - 1] < 128: return n
    while i < len(b):
        key = number()
        if key & 7 == 0: yield key >> 3, number()
        else:
            n = {1: 8, 5: 4}.get(key & 7) or number()
            yield key >> 3, b[i:i + n]
            i += n


def edited(model, edit):
    """what edit() adds to each normal piece, of which a later field counts: its text and score are known"""
    out = b""
    for field, value in fields(model):
        if field == 1 and not any(f == 3 for f, _ in fields(value)):
            piece = dict(fields(value))
            value += edit(piece[1].decode(), struct.unpack("<f", piece[2])[0])
        out += varint(field << 3 | 2) + varint(len(value)) + value
    return out


def retyped(*types):
    """a share of the pieces has another type: (type, share, longer than a character?)"""
    rng = random.Random(3)

    def edit(text, score):
        return next((b"\x18" + bytes([kind]) for kind, share, long in types
                     if rng.random() < share and (len(text) > 1 or not long)), b"")
    return edit


def rescored(of):
    return lambda text, score: b"\x15" + struct.pack("<f", of(score))


def rules(path):
    """a map of its own: characters to nothing, to several, to spaces; keys that start alike"""
    rng, rows = random.Random(5), {}
    for n in (1, 1, 1, 2, 3):
        for _ in range(150):
            lo, hi = rng.choice(SCRIPTS + ODD[:8] + [(0x61, 0x66)] * 6)
            key = tuple(rng.randint(lo, hi) for _ in range(n))
            rows[key] = [rng.choice([rng.randint(lo, hi), 0x20, 0x61]) for _ in range(rng.randrange(4))]
    rows.pop((0x20,), None)
    with open(path, "w") as f:
        for key in sorted(rows):
            f.write(" ".join("%X" % c for c in key) + "\t" + " ".join("%X" % c for c in rows[key]) + "\n")
    return path


def matrix():
    """name, options of the library's trainer, what edits its pieces, bytes to put behind the model"""
    own = dict(normalization_rule_name="identity", byte_fallback=True, add_dummy_prefix=False,
               remove_extra_whitespaces=False)
    for kind in ("bpe", "unigram"):
        for rule in ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"):
            for bytes_ in (False, True):
                yield f"{kind}-{rule}{'-bytes' * bytes_}", dict(model_type=kind, normalization_rule_name=rule,
                                                               byte_fallback=bytes_), None, b""
        fineweb = dict(model_type=kind, byte_fallback=True, split_digits=True, add_dummy_prefix=False,
                       remove_extra_whitespaces=True)
        yield f"{kind}-fineweb", fineweb, None, b""
        yield f"{kind}-exact", dict(own, model_type=kind), None, b""
        yield f"{kind}-exact-user", dict(own, model_type=kind, user_defined_symbols=USER), None, b""
        yield f"{kind}-llama", dict(own, model_type=kind, add_dummy_prefix=True), None, b""
        yield f"{kind}-suffix", dict(model_type=kind, treat_whitespace_as_suffix=True), None, b""
        yield f"{kind}-suffix-bytes-kept", dict(own, model_type=kind, treat_whitespace_as_suffix=True,
                                                add_dummy_prefix=True), None, b""
        yield f"{kind}-user", dict(model_type=kind, user_defined_symbols=USER), None, b""
        yield f"{kind}-user-many", dict(model_type=kind, byte_fallback=True), retyped((4, .2, False)), b""
        yield f"{kind}-unused", dict(model_type=kind, byte_fallback=True), retyped((5, .3, True)), b""
        yield f"{kind}-unused-letters", dict(model_type=kind), retyped((5, .3, False), (4, .05, False)), b""
        yield f"{kind}-ties", dict(model_type=kind), rescored(lambda x: float(round(x / 8))), b""
        yield f"{kind}-large", dict(model_type=kind), rescored(lambda x: round(x) * 3e6 + 1), b""
        yield f"{kind}-spaces-alone", dict(own, model_type=kind, allow_whitespace_only_pieces=True,
                                           normalization_rule_name="nmt_nfkc"), None, b""
        yield f"{kind}-across-words", dict(model_type=kind, split_by_whitespace=False, split_by_unicode_script=False,
                                           remove_extra_whitespaces=False), None, b""
        for prefix in (False, True):  # 3: {5: spaces are not escaped}
            yield f"{kind}-unescaped{'-prefix' * prefix}", dict(own, model_type=kind, add_dummy_prefix=prefix), None, \
                b"\x1a\x02\x28\x00"
        yield f"{kind}-unescaped-trimmed", dict(model_type=kind, treat_whitespace_as_suffix=True), None, b"\x1a\x02\x28\x00"
        yield f"{kind}-rules", dict(model_type=kind, normalization_rule_tsv=True, byte_fallback=True), None, b""
        yield f"{kind}-rules-user", dict(model_type=kind, normalization_rule_tsv=True, user_defined_symbols=USER), None, b""
    for kind in ("char", "word"):
        yield f"{kind}", dict(model_type=kind), None, b""
        yield f"{kind}-user", dict(model_type=kind, user_defined_symbols=USER, normalization_rule_name="nfkc"), None, b""


def trained(name, how, edit, tail, corpus):
    prefix, how = os.path.join(tmp.name, name), dict(how)
    if how.get("normalization_rule_tsv"):
        how["normalization_rule_tsv"] = rules(os.path.join(tmp.name, "rules.tsv"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=prefix, vocab_size=2500, character_coverage=.98, num_threads=1,
        hard_vocab_limit=False, minloglevel=2, num_sub_iterations=1, pad_id=3, **how)
    path = prefix + ".model"
    model = open(path, "rb").read()
    with open(path, "wb") as f:
        f.write((edited(model, edit) if edit else model) + tail)
    return path


# ---- comparing
def ours(command, model, lines, *more):
    r = subprocess.run([golf, command, model, *more], input=lines, capture_output=True)
    if r.returncode: sys.exit(f"{command} {model}: {r.stderr.decode()}")
    return r.stdout


def compare(name, model, lines, keeps_bytes):
    lib = sentencepiece.SentencePieceProcessor(model_file=model)
    if keeps_bytes:  # bytes that are no UTF-8 come back, where the library has U+FFFD
        back = ours("decode", model, ours("encode", model, b"\n".join(lines)))
        lost = back != b"\n".join(lines).replace("\u2581".encode(), b" ")
        lines = [repaired(line) for line in lines]
    else:
        lost = False
    lines = lines + [b" ".join(lines), b"a" * 5000, b" " * 500 + b"b" + b" " * 500]
    want = lib.encode(lines, num_threads=1)
    got_text = ours("encode", model, b"\n".join(lines) + b"\n", "--lines=1")
    got = [list(map(int, row.split())) for row in got_text.split(b"\n")[:-1]]
    wrong = [k for k in range(len(lines)) if k >= len(got) or got[k] != want[k]]
    # Any ids decode, too; not bytes above 127, which here come back as they are, nor the end of a line.
    rng = random.Random(4)
    pool = [i for i in range(lib.get_piece_size()) if not lib.is_byte(i) or int(lib.id_to_piece(i)[3:5], 16) not in
            [10, *range(128, 256)]]
    rows = want + [[rng.choice(pool if rng.random() < .8 else pool[:8]) for _ in range(rng.randrange(30))] for _ in range(200)]
    text = [lib.decode(row).encode() for row in rows]
    back = ours("decode", model, b"\n".join(" ".join(map(str, row)).encode() for row in rows) + b"\n", "--lines=1")
    back = back.split(b"\n")[:-1]
    unlike = [k for k in range(len(rows)) if k >= len(back) or back[k] != text[k]]
    whole = b"\n".join(lines[:2000])
    apart = ours("encode", model, whole).split() != [b"%d" % i for i in lib.encode(whole)]
    mismatches = len(wrong) + len(unlike) + lost + apart + (len(got) != len(lines))
    print(f"{name}\t{sum(map(len, lines)) + len(whole)}\t{len(lines)}\t{sum(map(len, want))}\t{mismatches}", flush=True)
    for k in wrong[:2]:
        at = next((i for i, (a, b) in enumerate(zip(got[k], want[k])) if a != b), min(len(got[k]), len(want[k])))
        print(f"  ids of {lines[k][:200]!r}\n  at {at}: {got[k][at:at + 12]}, library {want[k][at:at + 12]}",
              [lib.id_to_piece(i) for i in want[k][max(0, at - 3):at + 9]])
    for k in unlike[:2]:
        print(f"  text of {rows[k][:20]}: {back[k][:200]!r}\n  library {text[k][:200]!r}")
    return mismatches


def main():
    source = Text(1)
    corpus = [source.line() for _ in range(3000)]
    corpus += [repaired(source.awkward()).decode() for _ in range(100)]
    corpus = [line.replace("\0", "") for line in corpus]
    lines, bad, models = Text(2).lines(size), 0, 0
    print("model\tbytes\ttexts\tids\tmismatches")
    for name, how, edit, tail in matrix():
        if only not in name: continue
        model = trained(name, how, edit, tail, corpus)
        keeps = how.get("byte_fallback") and how.get("normalization_rule_name") == "identity" and not tail and \
            not how.get("add_dummy_prefix", True) and not how.get("remove_extra_whitespaces", True)
        bad += compare(name, model, lines, keeps)
        models += 1
    for model in given:
        bad += compare(model, model, lines, False)
        models += 1
    print(f"{models} models, {bad} mismatches" if bad or not models else f"{models} models: the ids and the text of the library")
    return bad > 0 or not models


sys.exit(main())
