#!/usr/bin/env python3
"""golf_torch.py THREADS STEPS [key=value ...]: the model of train_golf.c as one would write it in
PyTorch, for a comparison of speed: fp32 matmuls (mode=bf16: autocast's), ternary weights and int8 activations by fake
quantization (once per step for the weights, as the C program does), AdamW, random tokens. Prints the
median tokens/s of STEPS steps after 3 to warm up. Keys: width heads mlp repeat seq batch vocab
wq (ternary|none) aq (int8|none) mode (fp32|bf16). Needs python3-torch."""
import math, statistics, sys, time
import torch
import torch.nn.functional as F

cfg = dict(width=256, heads=4, mlp=4, repeat=4, seq=256, batch=16, vocab=1024, wq="ternary", aq="int8", mode="fp32")
for word in sys.argv[3:]:
    key, value = word.split("=")
    if key == "bwd":  # train_golf's alone
        continue
    assert key in cfg, key
    cfg[key] = type(cfg[key])(value)
assert cfg["mode"] in ("fp32", "bf16"), "mode=fp32 or bf16, not " + cfg["mode"]
C, H, T, B, V, P = (cfg[k] for k in ("width", "heads", "seq", "batch", "vocab", "repeat"))
D, HID = C // H, cfg["mlp"] * C
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(1)

def parameter(rows, cols, scale):
    return torch.nn.Parameter(torch.randn(rows, cols) * scale)

deep = 1 / math.sqrt(2 * P)
embed = parameter(V, C, 0.02)
w = dict(qkv=parameter(3 * C, C, C ** -0.5), o=parameter(C, C, deep * C ** -0.5),
         up=parameter(HID, C, C ** -0.5), down=parameter(C, HID, deep * HID ** -0.5))
vectors = dict(mix0=(C, 1.0), mix1=(C, 0.0), g_attn=(C, 1.0), q_gain=(H, 1.5), x_attn=(C, 1.0),
               gate_attn=(C, 1.0), g_mlp=(C, 1.0), x_mlp=(HID, 1.0), gate_mlp=(C, 1.0))
phase = {name: torch.nn.Parameter(torch.full((P, n), start)) for name, (n, start) in vectors.items()}

pos, freq = torch.arange(T)[:, None], 10000 ** (-torch.arange(0, D, 2) / D)
cos, sin = torch.cos(pos * freq), torch.sin(pos * freq)

def norm(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

def weights():
    if cfg["wq"] == "none": return w
    out = {}
    for name, x in w.items():
        s = x.detach().abs().mean().clamp_(min=1e-5)
        out[name] = x + ((x.detach() / s).round_().clamp_(-1, 1).mul_(s) - x.detach())
    return out

def linear(x, weight):
    if cfg["aq"] == "int8":
        with torch.no_grad():
            s = 127 / x.abs().amax(-1, keepdim=True).clamp_(min=1e-5)
            rest = (x * s).round_().div_(s).sub_(x)
        x = x + rest
    return F.linear(x, weight)

def rope(x):  # (B,T,H,D) -> (B,H,T,D)
    x1, x2 = x.transpose(1, 2).chunk(2, -1)
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], -1)

mask = torch.full((T, T), -math.inf).triu_(1)
def step(x, y):
    q8 = embed.detach().abs().amax(1, keepdim=True).clamp_(min=1e-5) / 127
    e = embed + ((embed.detach() / q8).round_().mul_(q8) - embed.detach())
    ws = weights()
    x0 = h = norm(F.embedding(x, e))
    for p in range(P):
        v = {name: t[p] for name, t in phase.items()}
        h = v["mix0"] * h + v["mix1"] * x0
        q, k, val = linear(norm(h) * v["g_attn"], ws["qkv"]).view(B, T, 3, H, D).unbind(2)
        q, k = rope(norm(q) * v["q_gain"][:, None]), rope(norm(k))
        s = torch.baddbmm(mask, q.reshape(B * H, T, D), k.reshape(B * H, T, D).transpose(1, 2),
                          alpha=D ** -0.5).softmax(-1)
        a = torch.bmm(s, val.transpose(1, 2).reshape(B * H, T, D))
        a = a.view(B, H, T, D).transpose(1, 2).reshape(B, T, C)
        h = h + v["gate_attn"] * linear(norm(a) * v["x_attn"], ws["o"])
        f = F.relu(linear(norm(h) * v["g_mlp"], ws["up"])).square()
        h = h + v["gate_mlp"] * linear(norm(f) * v["x_mlp"], ws["down"])
    logits = 30 * torch.tanh(F.linear(norm(h), e) / 30)
    return F.cross_entropy(logits.view(-1, V), y.view(-1))

params = [embed, *w.values(), *phase.values()]
opt = torch.optim.AdamW([dict(params=[embed], lr=5e-3), dict(params=list(w.values()), lr=2e-3),
                         dict(params=list(phase.values()), lr=5e-3)], betas=(0.9, 0.95),
                        weight_decay=0, foreach=True)
times = []
for i in range(3 + int(sys.argv[2])):
    x, y = torch.randint(V, (2, B, T))
    t = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cfg["mode"] == "bf16"):
        loss = step(x, y)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1)
    opt.step()
    times.append(time.perf_counter() - t)
print(f"{B * T / statistics.median(times[3:]):.1f}")
