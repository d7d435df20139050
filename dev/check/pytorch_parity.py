#!/usr/bin/env python3
"""pytorch_parity.py MODEL.golf DATA [ROWS]: a second, independent reading of the file format and of
the model, in PyTorch with 64-bit numbers. Compares the mean loss of the first ROWS (64) validation
rows with `./train_golf eval` to 1e-4: float rounding moves a few int8 codes, hence not to 1e-9.
Needs: python3 with torch and numpy (Debian: python3-torch)."""
import glob, subprocess, sys, zlib
import numpy as np
import torch
import torch.nn.functional as F

path, data = sys.argv[1:3]
rows = int(sys.argv[3]) if len(sys.argv) > 3 else 64

# ---- the file, from the drawing in golf.h
raw = open(path, "rb").read()
u32 = lambda at: int.from_bytes(raw[at:at + 4], "little")
assert raw[:8] == b"GOLF\r\n\x1a\n" and u32(8) == 2 and u32(12) == len(raw), "not a model.golf"
n, n_tensors = u32(20), u32(24)
cfg = dict(kv_heads="0", hidden="0", prelude="0", coda="0", phase_embed="0", wscale="tensor",
           act="relu2", rope="full", protect="", cluster="", ffn_hi="0")  # left out of files at these values
cfg.update(line.split("=") for line in raw[28:28 + n].decode().splitlines())
num = lambda key: int(cfg[key])
V, C, H, T, bits = (num(k) for k in "vocab width heads seq embed_bits".split())
KV, D, gated = num("kv_heads") or H, C // H, cfg["act"] == "swiglu"
hidden = num("hidden") or (max(8, num("mlp") * C // 12 * 8) if gated else num("mlp") * C)
assert not cfg["protect"] and not cfg["cluster"] and cfg["ffn_hi"] == "0" and cfg["wscale"] == "tensor" and \
    cfg["wq"] in ("ternary", "none") and cfg["aq"] in ("int8", "none"), "only the default systems are read here"
U, R, pre, coda = (num(k) for k in "unique repeat prelude coda".split())
phases, blocks = pre + U * R + coda, pre + U + coda

def block_of(p):
    q = p - pre
    if q < 0: return p
    if q >= U * R: return pre + U + q - U * R
    return pre + (q % U if cfg["order"] == "cycle" else q // R)

xn = {"none": 0, "out": 1, "each": 2}[cfg["extra_norm"]]
x_mode = lambda least: cfg["xgain"] if xn >= least else "none"
proj, inter = "proj", "interface"
tensors = [  # name, copies, rows, cols, role, mode, value when absent
    ("embed", 1, V, C, "embed", "vector", 0), ("wqkv", blocks, (H + 2 * KV) * D, C, proj, "vector", 0),
    ("wo", blocks, C, C, proj, "vector", 0), ("wup", blocks, hidden, C, proj, "vector", 0)] + [
    ("wgate", blocks, hidden, C, proj, "vector", 0)] * gated + [
    ("wdown", blocks, C, hidden, proj, "vector", 0)] + [
    (name, phases, 1, cols, inter, mode, init) for name, cols, mode, init in (
        ("mix0", C, cfg["mix"], 1), ("mix1", C, cfg["mix"], 0),
        ("phase_embed", C, "vector" if num("phase_embed") else "none", 0),
        ("g_attn", C, cfg["gain"], 1), ("x_q", C, x_mode(2), 1), ("x_k", C, x_mode(2), 1),
        ("x_v", C, x_mode(2), 1), ("q_gain", H, cfg["qgain"], 1.5), ("x_attn", C, x_mode(1), 1),
        ("gate_attn", C, cfg["gate"], 1), ("g_mlp", C, cfg["gain"], 1), ("x_up", C, x_mode(2), 1),
        ("x_mlp", hidden, x_mode(1), 1), ("gate_mlp", C, cfg["gate"], 1))]
assert sum(t[5] != "none" for t in tensors) == n_tensors

def bf16(b):
    return (np.frombuffer(b, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)

def copy_of(b, r, c, role):
    """One stored copy at the start of b -> its numbers, its size in bytes."""
    k = r * c
    if role == proj and cfg["wq"] == "ternary":
        packed = np.frombuffer(b[2:2 + (k + 4) // 5], np.uint8).astype(np.int64)
        trits = packed[:, None] // 3 ** np.arange(5) % 3 - 1
        return bf16(b[:2]) * trits.reshape(-1)[:k], 2 + len(packed)
    if role == "embed" and bits < 16:
        size = (k * bits + 7) // 8
        stream = np.unpackbits(np.frombuffer(b[2 * r:2 * r + size], np.uint8), bitorder="little")
        codes = stream[:k * bits].reshape(r, c, bits) @ (1 << np.arange(bits)) - (1 << (bits - 1))
        return (bf16(b[:2 * r])[:, None] * codes).reshape(-1), 2 * r + size
    return bf16(b[:2 * k]), 2 * k

class Coder:
    """The range decoder of section 8 of train_golf.c, from its description."""
    moved = {}

    def __init__(self, data):
        self.data, self.at, self.range, self.code = data, 4, 0xffffffff, int.from_bytes(data[:4], "big")

    def bit(self, tree, at):
        p, n = tree.get(at, (1 << 15, 0))
        bound = (self.range >> 16) * p
        bit = self.code >= bound
        if bit: self.range, self.code = self.range - bound, self.code - bound
        else: self.range = bound
        key = p, n, bit
        if key not in self.moved:
            rate = 131072 // (2 * n + 3)  # 1 / (n + 1.5), as a part of 65536
            new = p - (p * rate >> 16) if bit else p + ((65535 - p) * rate >> 16)
            self.moved[key] = min(max(new, 36), 65500), min(n + 1, 255)
        tree[at] = self.moved[key]
        while self.range < 1 << 24:
            self.code = self.code << 8 | (self.data[self.at] if self.at < len(self.data) else 0)
            self.at, self.range = self.at + 1, self.range << 8
        return int(bit)

    def bits(self, tree, tag, node, count):
        for _ in range(count): node = node * 2 | self.bit(tree, (tag, node))
        return node

    def numbers(self, count):  # bf16
        tree, out = {}, []
        for _ in range(count):
            upper = self.bits(tree, "upper", 1, 8) & 255
            out += [upper << 8 | self.bits(tree, upper, 1, 8) & 255]
        return bf16(np.array(out, "<u2").tobytes())

def coded_copies(b, copies, r, c, role):
    """All copies of a coded tensor: lengths, then a stream per million numbers of a copy."""
    parts, k = 1 + (r * c >> 20), r * c
    sizes = [int.from_bytes(b[4 * i:4 * i + 4], "little") for i in range(copies * parts)]
    at, out = 4 * len(sizes), []
    for i, size in enumerate(sizes):
        coder, part, tree = Coder(b[at:at + size]), i % parts, {}
        at += size
        if part == 0: out += [[]]
        share = lambda n: n * (part + 1) // parts - n * part // parts
        if role == proj and cfg["wq"] == "ternary":
            scale, start = coder.numbers(share(1)), k * part // parts
            trits = []
            for _ in range(share(k)):
                node = coder.bits(tree, 0, 1, 2)
                trits += [0 if node < 6 else 2 * (node - 4) - 5]
            out[-1] += [(scale, trits)]
        elif role == "embed" and bits < 16:
            scale, top, codes = coder.numbers(share(r)), min(bits, 4), []
            for j in range(k * part // parts, k * (part + 1) // parts):
                node = coder.bits(tree, j % c if r >= 1000 else "all", 1, top)
                codes += [coder.bits(tree, "all", node, bits - top) - (1 << bits) - (1 << bits - 1)]
            out[-1] += [(scale, codes)]
        else:
            out[-1] += [(coder.numbers(share(k)), None)]
        assert coder.at == size
    assert at == len(b)
    for pieces in out:
        scale = np.concatenate([p[0] for p in pieces])
        codes = None if pieces[0][1] is None else np.concatenate([p[1] for p in pieces])
        yield scale if codes is None else (codes.reshape(r, -1) * scale.reshape(-1, 1)).reshape(-1)

def packed_size(r, c, role):
    k = r * c
    if role == proj and cfg["wq"] == "ternary": return 2 + (k + 4) // 5
    return 2 * r + (k * bits + 7) // 8 if role == "embed" and bits < 16 else 2 * k

w, table = {}, 28 + n
at = table + 8 * n_tensors + 4
for name, copies, r, c, role, mode, init in tensors:
    payload, size = b"", 0
    if mode != "none":
        size = u32(table)
        payload = raw[at:at + size]
        assert zlib.crc32(payload) == u32(table + 4), name
        at, table = at + size, table + 8
    stored = blocks if role == inter and cfg["phase"] == "0" else copies
    got = []
    cols = {"vector": c, "scalar": 1, "none": 0}[mode]
    if cols and size < stored * packed_size(r, cols, role):
        got = [torch.tensor(x).reshape(r, cols) for x in coded_copies(payload, stored, r, cols, role)]
        payload = b""
    for _ in range(stored if cols and payload else 0):
        x, used = copy_of(payload, r, cols, role)
        got.append(torch.tensor(x).reshape(r, cols))
        payload = payload[used:]
    assert not payload, name
    if role == inter:  # one full vector for every phase
        pick = lambda p: p if stored == phases else block_of(p)
        w[name] = [got[pick(p)][0].expand(c) if cols else torch.full((c,), float(init), dtype=torch.float64)
                   for p in range(phases)]
    else:
        w[name] = got
assert at == len(raw)

# ---- the model, from its drawing in train_golf.c
norm = lambda x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)

def linear(x, weight):
    if cfg["aq"] == "int8":
        step = x.abs().amax(-1, keepdim=True).clamp_min(1e-5) / 127
        x = torch.round(x / step) * step
    return x @ weight.T

turned = D // 2 if cfg["rope"] == "half" else D  # numbers of a head that turn
angle = torch.arange(T)[:, None] * 10000.0 ** (-2.0 * torch.arange(D // 2, dtype=torch.float64) / turned)
angle[:, turned // 2:] = 0
cos, sin = angle.cos(), angle.sin()

def rope(x):  # (B, heads, T, D)
    a, b = x[..., :D // 2], x[..., D // 2:]
    return torch.cat((a * cos + b * sin, b * cos - a * sin), -1)

def forward(x):
    B = len(x)
    h = x0 = norm(w["embed"][0][x])
    for p in range(phases):
        b, g = block_of(p), lambda name: w[name][p]
        h = g("mix0") * h + g("mix1") * x0 + g("phase_embed")
        u = norm(h) * g("g_attn")
        wq, wk, wv = w["wqkv"][b].split((H * D, KV * D, KV * D))
        each = lambda name: norm(u) * g(name) if xn == 2 else u
        heads = lambda y, k: y.reshape(B, T, k, D).transpose(1, 2)
        q = norm(heads(linear(each("x_q"), wq), H)) * g("q_gain")[:, None, None]
        k = norm(heads(linear(each("x_k"), wk), KV)).repeat_interleave(H // KV, 1)
        v = heads(linear(each("x_v"), wv), KV).repeat_interleave(H // KV, 1)
        s = rope(q) @ rope(k).transpose(-1, -2) / D ** 0.5
        s = s.masked_fill(torch.ones(T, T).triu(1).bool(), -float("inf"))
        a = (s.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C)
        h = h + g("gate_attn") * linear(norm(a) * g("x_attn") if xn else a, w["wo"][b])
        u = norm(h) * g("g_mlp")
        f = linear(each("x_up"), w["wup"][b])
        if cfg["act"] == "silu": f = F.silu(f)
        elif gated: f = F.silu(linear(each("x_up"), w["wgate"][b])) * f
        else: f = F.relu(f) ** (2 if cfg["act"] == "relu2" else 1)
        h = h + g("gate_mlp") * linear(norm(f) * g("x_mlp") if xn else f, w["wdown"][b])
    return 30 * torch.tanh(norm(h) @ w["embed"][0].T / 30)

tokens = np.concatenate([np.fromfile(name, "<u2")[512:] for name in sorted(glob.glob(data + "/*_val_*.bin"))])
rows = min(rows, (len(tokens) - 1) // T)
tokens = torch.tensor(tokens[:rows * T + 1].astype(np.int64))
x, y = tokens[:-1].reshape(rows, T), tokens[1:].reshape(rows, T)
with torch.no_grad():
    total = sum(F.cross_entropy(forward(x[i:i + 4]).reshape(-1, V), y[i:i + 4].reshape(-1), reduction="sum").item()
                for i in range(0, rows, 4))
out = subprocess.check_output(["./train_golf", "eval", path, "--data=" + data, "--val_tokens=%d" % (rows * T)], text=True)
ours, ref = float(out.split()[out.split().index("val_loss") + 1]), total / (rows * T)
print("%s: loss of %d rows %.8f here, %.8f by ./train_golf, difference %.2e" % (path, rows, ref, ours, ours - ref))
sys.exit(not abs(ours - ref) <= 1e-4)
