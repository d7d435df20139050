#!/usr/bin/env python3
"""golf_numpy.py MODEL.golf DATA [ROWS]: scores a file of the core with NumPy, in double numbers. Written from golf.h and
data/README.md, not from the program: what they say is enough. Every length, checksum and code is checked. ROWS: so many
validation rows. Refused: files that need a system, texts with files of bytes. Needs: python3 with numpy."""
import glob, sys, zlib
import numpy as np
def demand(ok, what): ok or sys.exit("golf_numpy.py: error: " + what)
# ---- Config and table
LEFT_OUT = dict(kv_heads="0", hidden="0", act="relu2", rope="full", prelude="0", coda="0", phase_embed="0", wscale="auto")
OTHERS = "vocab width heads mlp seq unique repeat order mix gain gate qgain extra_norm xgain phase wq aq embed_bits".split()

def read_config(text):
    pairs = [line.split("=", 1) for line in text.splitlines()]
    c = dict(pairs)
    demand("systems" not in c, "the file needs the systems %s: only the core is read here" % c.get("systems"))
    wrong = [k for k in c if k not in OTHERS and k not in LEFT_OUT] + [k for k in OTHERS if k not in c]
    demand(not wrong and len(c) == len(pairs), "config: %s unknown, missing or twice" % " ".join(wrong))
    c = {k: int(v) if v.isdigit() else v for k, v in {**LEFT_OUT, **c}.items()}
    wide = c["mlp"] * c["width"]
    c["hidden"] = c["hidden"] or (max(8, wide // 12 * 8) if c["act"] == "swiglu" else wide)
    c["kv_heads"] = c["kv_heads"] or c["heads"]
    pre, U, R, coda = (c[k] for k in ("prelude", "unique", "repeat", "coda"))
    loop = [q % U if c["order"] == "cycle" else q // R for q in range(U * R)]
    c["block_of"] = list(range(pre)) + [pre + block for block in loop] + [pre + U + i for i in range(coda)]
    c["blocks"], c["phases"] = pre + U + coda, len(c["block_of"])
    return c

def table(c):  # name, copies, rows, columns stored, bits (16: no codes), weights that share a scale, columns used, value if none
    C, F, H, blocks = c["width"], c["hidden"], c["heads"], c["blocks"]
    matrices = [("wqkv", (H + 2 * c["kv_heads"]) * (C // H), C), ("wo", C, C), ("wup", F, C)] + \
        [("wgate", F, C)] * (c["act"] == "swiglu") + [("wdown", C, F)]
    bits = {"none": 16, "ternary": 2}.get(c["wq"]) or int(c["wq"][3:])
    per = "row" if bits > 2 and c["wscale"] != "group" else c["wscale"].replace("auto", "tensor")
    x = lambda least: c["xgain"] if ["none", "out", "each"].index(c["extra_norm"]) >= least else "none"
    vectors = [("mix0", C, c["mix"], 1), ("mix1", C, c["mix"], 0), ("phase_embed", C, ["none", "vector"][c["phase_embed"]], 0),
               ("g_attn", C, c["gain"], 1), ("x_q", C, x(2), 1), ("x_k", C, x(2), 1), ("x_v", C, x(2), 1),
               ("q_gain", H, c["qgain"], 1.5), ("x_attn", C, x(1), 1), ("gate_attn", C, c["gate"], 1),
               ("g_mlp", C, c["gain"], 1), ("x_up", C, x(2), 1), ("x_mlp", F, x(1), 1), ("gate_mlp", C, c["gate"], 1)]
    copies = c["phases"] if c["phase"] else blocks
    return [("embed", 1, c["vocab"], C, c["embed_bits"], C, C, 0)] + \
        [(n, blocks, r, k, bits, dict(tensor=r * k, row=k, group=min(k, 128))[per], k, 0) for n, r, k in matrices] + \
        [(n, copies, 1, dict(none=0, scalar=1).get(mode, k), 16, 1, k, init) for n, k, mode, init in vectors]

# ---- Payloads: copies of (r, k) numbers, each with S scales (or numbers) and codes (or None)
def bf16(halves):
    x = (np.asarray(halves, np.uint32) << 16).view(np.float32).astype(float)
    demand(np.isfinite(x).all(), "a number is none")
    return x

def packed_copies(b, copies, r, k, bits, S):
    size = len(b) // copies
    for at in range(0, len(b), size):
        scale, packed = bf16(np.frombuffer(b, "<u2", S, at)), np.frombuffer(b, np.uint8, size - 2 * S, at + 2 * S)
        if bits == 2:
            demand((packed < 243).all(), "a byte is no five trits")
            yield scale, (packed[:, None].astype(int) // 3 ** np.arange(5) % 3 - 1).reshape(-1)[:r * k]
            continue
        stream = np.unpackbits(packed, bitorder="little")[:r * k * bits].reshape(-1, bits).astype(int)
        yield scale, stream @ (1 << np.arange(bits)) - (1 << bits - 1) if bits < 16 else None

RATE = [131072 // (2 * n + 3) for n in range(256)]
new_tree = lambda nodes: ([1 << 15] * nodes, [0] * nodes)
class Decoder:
    def __init__(self, data):
        self.data, self.at, self.range, self.code = data, 4, 0xffffffff, int.from_bytes(data[:4], "big")
    def symbol(self, tree, node, bits):
        (p, n), wide, code = tree, self.range, self.code
        for _ in range(bits):
            now, rate = p[node], RATE[n[node]]
            bound, bit = (wide >> 16) * now, 0
            if code < bound: wide, now = bound, now + ((65535 - now) * rate >> 16)
            else: wide, code, now, bit = wide - bound, code - bound, now - (now * rate >> 16), 1
            p[node], n[node] = min(max(now, 36), 65500), min(n[node] + 1, 255)
            while wide < 1 << 24:
                demand(self.at < len(self.data), "a stream ends too early")
                wide, code, self.at = wide << 8, code << 8 | self.data[self.at], self.at + 1
            node = 2 * node + bit
        self.range, self.code = wide, code
        return node
    def numbers(self, count):
        top, rest, out = new_tree(256), {}, []
        for _ in range(count):
            u = self.symbol(top, 1, 8) - 256
            out.append(u << 8 | self.symbol(rest.setdefault(u, new_tree(256)), 1, 8) - 256)
        return list(bf16(out))
    def codes(self, first, last, r, k, bits):
        rest, top = new_tree(1 << bits), min(bits, 4)
        if bits == 2: return [(0, -9, -1, 1)[self.symbol(rest, 1, 2) - 4] for _ in range(first, last)]
        trees = [new_tree(16) for _ in range(k)] if r >= 1000 else [rest] * k
        return [self.symbol(rest, self.symbol(trees[i % k], 1, top), bits - top) - (3 << bits - 1) for i in range(first, last)]

def coded_copies(b, copies, r, k, bits, S):
    n, parts = r * k, 1 + (r * k >> 20)
    sizes = np.frombuffer(b, "<u4", copies * parts).astype(int)
    ends, scales, codes = 4 * len(sizes) + np.cumsum(sizes), [], []
    demand(ends[-1] == len(b), "streams do not fill their payload")
    for j, end in enumerate(ends):
        i, d = j % parts, Decoder(b[end - sizes[j]:end])
        scales += d.numbers(S * (i + 1) // parts - S * i // parts)
        if bits < 16: codes += d.codes(n * i // parts, n * (i + 1) // parts, r, k, bits)
        demand(d.at == len(d.data), "a stream is not read to its end")
        if i + 1 < parts: continue
        yield np.array(scales), np.array(codes) if bits < 16 else None
        scales, codes = [], []

def load(path):
    raw = open(path, "rb").read()
    u32 = lambda at: int.from_bytes(raw[at:at + 4], "little")
    demand(raw[:8] == b"GOLF\r\n\x1a\n" and u32(8) == 2 and u32(12) == len(raw), path + ": no whole artifact of version 2")
    row, left = 28 + u32(20), u32(24)
    at = row + 8 * left + 4
    demand(zlib.crc32(raw[:at - 4]) == u32(at - 4), path + ": the header's checksum is wrong")
    m = dict(config=read_config(raw[28:row].decode()), tokenizer_crc=u32(16))
    for name, copies, r, k, bits, share, cols, init in table(m["config"]):
        m[name] = [] if k else [np.full(cols, float(init))] * copies
        if k == 0: continue
        payload, S = raw[at:at + u32(row)], r * k if bits == 16 else 1 if share == r * k else r * -(-k // share)
        demand(zlib.crc32(payload) == u32(row + 4), "%s: the checksum of %s is wrong" % (path, name))
        at, row, left = at + u32(row), row + 8, left - 1
        size = copies * (2 * S + (0 if bits == 16 else -(-r * k // 5) if bits == 2 else -(-r * k * bits // 8)))
        for x, codes in (packed_copies if len(payload) == size else coded_copies)(payload, copies, r, k, bits, S):
            if bits < 16:
                demand((x > 0).all() and codes.min() > -(1 << bits - 1), "%s: an impossible code or scale" % name)
                x = codes.reshape(r, k) * (x if S == 1 else np.repeat(x.reshape(r, -1), share, 1)[:, :k])
            m[name].append(x.reshape(r, k) if r > 1 else np.broadcast_to(x, cols))
    demand(left == 0 and at == len(raw), path + ": not the tensors of its configuration")
    return m

# ---- The model
norm = lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
silu = lambda x: x / (1 + np.exp(-x))
def rounded(x, top, least):
    step = np.maximum(np.abs(x).max(-1, keepdims=True), least) / top
    return np.rint(x / step) * step

def losses(m, x, y):  # -log P, in nats, of every target y (rows, T) behind the tokens x (rows, T) up to it
    c, (B, T) = m["config"], x.shape
    C, H, KV, extra, top = c["width"], c["heads"], c["kv_heads"], c["extra_norm"], dict(none=0, int8=127, int4=7)[c["aq"]]
    D, pair, turned = C // H, np.arange(C // H // 2), C // H // (2 if c["rope"] == "half" else 1)
    angle = np.arange(T)[:, None] * 10000.0 ** (-2 * pair / turned) * (pair < turned // 2)
    linear = lambda u, w, top: (rounded(u, top, 1e-5) if top else u) @ w.T
    heads = lambda u, n: u.reshape(B, T, n, D).transpose(0, 2, 1, 3)
    def rope(u):
        a, b, cos, sin = u[..., :D // 2], u[..., D // 2:], np.cos(angle), np.sin(angle)
        return np.concatenate((a * cos + b * sin, b * cos - a * sin), -1)
    h = x0 = norm(m["embed"][0][x])
    for p in range(c["phases"]):
        v = lambda name: m[name][p if len(m[name]) == c["phases"] else c["block_of"][p]]
        each = lambda u, name: norm(u) * v(name) if extra == "each" else u
        out = lambda u, name: norm(u) * v(name) if extra != "none" else u
        h = v("mix0") * h + v("mix1") * x0 + v("phase_embed")
        u, w = norm(h) * v("g_attn"), np.split(v("wqkv"), [H * D, (H + KV) * D])
        q, k, value = (linear(each(u, name), w[i], top) for i, name in enumerate(("x_q", "x_k", "x_v")))
        q, k = rope(norm(heads(q, H)) * v("q_gain")[:, None, None]), rope(norm(heads(k, KV)))
        k, value = (np.repeat(z, H // KV, 1) for z in (k, heads(value, KV)))
        s = q @ k.transpose(0, 1, 3, 2) / np.sqrt(D) + np.triu(np.full((T, T), -np.inf), 1)
        s = np.exp(s - s.max(-1, keepdims=True))
        a = (s / s.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(B, T, C)
        h = h + v("gate_attn") * linear(out(a, "x_attn"), v("wo"), top)
        u = each(norm(h) * v("g_mlp"), "x_up")
        f = linear(u, v("wup"), top)
        if c["act"] == "swiglu": f = silu(linear(u, v("wgate"), top)) * f
        else: f = silu(f) if c["act"] == "silu" else np.maximum(f, 0) ** (2 if c["act"] == "relu2" else 1)
        h = h + v("gate_mlp") * linear(out(f, "x_mlp"), v("wdown"), top and 127)
    logits = 30 * np.tanh((rounded(norm(h), 32767, 1e-20) if c["embed_bits"] < 16 else norm(h)) @ m["embed"][0].T / 30)
    return np.log(np.exp(logits - 30).sum(-1)) + 30 - np.take_along_axis(logits, y[..., None], -1)[..., 0]

# ---- Text: the pieces of a SentencePiece model, shards, bytes
def fields(b, at=0):
    def varint(value=0, shift=0):
        nonlocal at
        at += 1
        return value | b[at - 1] << shift if b[at - 1] < 128 else varint(value | (b[at - 1] & 127) << shift, shift + 7)
    while at < len(b):
        key = varint()
        value = varint() if key & 7 in (0, 2) else {1: 8, 5: 4}[key & 7]
        if key & 7: value, at = b[at:at + value], at + value
        yield key >> 3, value

def text_of(data, m):  # the validation tokens; of each but the first its bytes of text, of a leading space only behind text
    model = open(data + "/tokenizer.model", "rb").read()
    demand(zlib.crc32(model) == m["tokenizer_crc"], data + ": not the tokenizer of the model")
    demand(not glob.glob(data + "/*_val_bytes_*.bin"), data + ": files of bytes are not read here")
    pieces = [(p.get(3, 1), p.get(1, b"").replace(b"\xe2\x96\x81", b" ")) for p in
              (dict(fields(value)) for key, value in fields(model) if key == 1)]
    none, space = np.array([(kind in (2, 3, 5), kind not in (2, 3, 5, 6) and text[:1] == b" ") for kind, text in pieces]).T
    base = np.array([0 if kind in (2, 3, 5) else 1 if kind == 6 else len(text) for kind, text in pieces]) - space
    shards = [np.fromfile(name, "<u2") for name in sorted(glob.glob(data + "/*_val_[0-9]*.bin"))]
    demand(shards and all(len(s) == 512 + (int(s[4]) | int(s[5]) << 16) for s in shards), data + ": no whole shards")
    t = np.concatenate([s[512:] for s in shards]).astype(int)
    return t, base[t[1:]] + (space[t[1:]] & ~none[t[:-1]])
def main(losses):
    demand(len(sys.argv) in (3, 4), "usage: %s MODEL.golf DATA [ROWS]" % sys.argv[0])
    m = load(sys.argv[1])
    (tokens, size), T = text_of(sys.argv[2], m), m["config"]["seq"]
    rows = min([(len(tokens) - 1) // T] + [int(n) for n in sys.argv[3:]])
    x, y = (tokens[i:rows * T + i].reshape(rows, T) for i in (0, 1))
    nll, size = sum(losses(m, x[i:i + 4], y[i:i + 4]).sum() for i in range(0, rows, 4)), size[:rows * T].sum()
    print("val_loss %.12f\nval_bpb %.12f\ntokens %d\nbytes %d" % (nll / y.size, nll / np.log(2) / size, y.size, size))
if __name__ == "__main__": main(losses)
