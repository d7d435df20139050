#!/usr/bin/env python3
"""pytorch_parity.py MODEL.golf DATA [ROWS [MODEL.safetensors]]: the model in PyTorch with 64-bit numbers, from the
file as dev/check/golf_numpy.py reads it or, with the last argument, from what `./train_golf export` made of it.
Compares the mean loss of the first ROWS (64) validation rows with `./train_golf eval` to 1e-4: float rounding moves a
few int8 codes, hence not to 1e-9. The numbers of the safetensors file must be those of MODEL.golf, in bf16 its nearest,
and the tokenizer in it the one beside MODEL.golf. Needs: python3 with torch and numpy (Debian: python3-torch)."""
import base64, glob, json, os, subprocess, sys, zlib
import numpy as np
import torch
import torch.nn.functional as F
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import golf_numpy

path, data = sys.argv[1:3]
rows = int(sys.argv[3]) if len(sys.argv) > 3 else 64
exported = sys.argv[4] if len(sys.argv) > 4 else None
model = golf_numpy.load(path)
cfg = model["config"]
w = {name: [torch.tensor(np.array(x)) for x in copies] for name, copies in model.items() if isinstance(copies, list)}

def read_safetensors(name):
    """name -> tensor, and what is in __metadata__"""
    raw = open(name, "rb").read()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    text = header.pop("__metadata__")
    dtype = {"F32": torch.float32, "BF16": torch.bfloat16}
    tensors = {}
    for key, about in header.items():
        at, end = about["data_offsets"]
        numbers = torch.frombuffer(bytearray(raw[start + at:start + end]), dtype=dtype[about["dtype"]])
        tensors[key] = numbers.reshape(about["shape"])
    return tensors, text

if exported:
    tensors, text = read_safetensors(exported)
    if golf_numpy.read_config(text["config"]) != cfg: sys.exit("another configuration: " + text["config"])
    if [int(b) for b in text["block_of_phase"].split()] != cfg["block_of"]: sys.exit("other blocks: " + text["block_of_phase"])
    if int(text["model_crc32"], 16) != zlib.crc32(open(path, "rb").read()): sys.exit("made of another file")
    beside = open(os.path.join(os.path.dirname(path), "tokenizer.model"), "rb").read()
    if base64.b64decode(text["tokenizer"], validate=True) != beside: sys.exit("another tokenizer")
    for name, copies in w.items():
        for j, was in enumerate(copies):
            key = name if name == "embed" else "%s.%d" % (name, j)
            if key not in tensors and was.dim() == 1 and (was == was[0]).all(): continue  # the mode none: not stored
            is_ = tensors.pop(key)
            expected = was.to(is_.dtype) if is_.shape == was.shape else was[:1].to(is_.dtype)
            if not torch.equal(is_, expected): sys.exit("%s of %s is not that of %s" % (key, exported, path))
            copies[j] = is_.double().expand(was.shape)
    if tensors: sys.exit("%s has more tensors than the model: %s" % (exported, " ".join(tensors)))

V, C, H, KV, T = (cfg[k] for k in "vocab width heads kv_heads seq".split())
D, gated, xn = C // H, cfg["act"] == "swiglu", {"none": 0, "out": 1, "each": 2}[cfg["extra_norm"]]
if cfg["aq"] == "int4": sys.exit("only --aq=int8 and none are read here")

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
    for p in range(cfg["phases"]):
        g = lambda name: w[name][p if len(w[name]) == cfg["phases"] else cfg["block_of"][p]]
        h = g("mix0") * h + g("mix1") * x0 + g("phase_embed")
        u = norm(h) * g("g_attn")
        wq, wk, wv = g("wqkv").split((H * D, KV * D, KV * D))
        each = lambda name: norm(u) * g(name) if xn == 2 else u
        heads = lambda y, k: y.reshape(B, T, k, D).transpose(1, 2)
        q = norm(heads(linear(each("x_q"), wq), H)) * g("q_gain")[:, None, None]
        k = norm(heads(linear(each("x_k"), wk), KV)).repeat_interleave(H // KV, 1)
        v = heads(linear(each("x_v"), wv), KV).repeat_interleave(H // KV, 1)
        s = rope(q) @ rope(k).transpose(-1, -2) / D ** 0.5
        s = s.masked_fill(torch.ones(T, T).triu(1).bool(), -float("inf"))
        a = (s.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C)
        h = h + g("gate_attn") * linear(norm(a) * g("x_attn") if xn else a, g("wo"))
        u = norm(h) * g("g_mlp")
        f = linear(each("x_up"), g("wup"))
        if cfg["act"] == "silu": f = F.silu(f)
        elif gated: f = F.silu(linear(each("x_up"), g("wgate"))) * f
        else: f = F.relu(f) ** (2 if cfg["act"] == "relu2" else 1)
        h = h + g("gate_mlp") * linear(norm(f) * g("x_mlp") if xn else f, g("wdown"))
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
tolerance = 2e-2 if exported and is_.dtype == torch.bfloat16 else 1e-4
print("%s: loss of %d rows %.8f here, %.8f by ./train_golf, difference %.2e" % (exported or path, rows, ref, ours, ours - ref))
sys.exit(not abs(ours - ref) <= tolerance)
