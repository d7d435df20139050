#!/usr/bin/env python3
"""golf_exact.py MODEL.golf DATA [ROWS]: golf_numpy.py computes in double numbers, so that now and then an int8 code of an
input rounds the other way, and the score differs in the sixth digit. Here every sum up to the head has the program's
single precision and its order ("The order of the sums" and Sums in train_golf.c), in NumPy: what is rounded is rounded
alike, and `./train_golf eval` is met to 1e-6 bpb, whatever the row; the head and its loss stay in double. For files of
the default family: ternary weights with a scale for each matrix, int8 inputs, relu2 or relu. A few times as slow.
Needs: python3 with numpy."""
import os, sys
import numpy as np
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from golf_numpy import demand, main, rounded
f32 = np.float32

def fused(a, b, c):  # one rounding; a double holds the product of two floats
    return (a.astype(float) * b + c).astype(f32)

def total(x):  # number i is added to lane i % 16; then lanes in pairs, i + 8 to i, ...
    lanes = np.zeros(x.shape[:-1] + (16,), f32)
    for i in range(0, x.shape[-1], 16):
        part = x[..., i:i + 16]
        lanes[..., :part.shape[-1]] += part
    for half in (8, 4, 2, 1): lanes = lanes[..., :half] + lanes[..., half:]
    return lanes

root = lambda x: np.sqrt(total(x * x) / f32(x.shape[-1]) + f32(1e-6))
norm = lambda x, g: x * (f32(1) / root(x)) * g

def linear(x, w, step):  # y = the sum of codes, exact, times both steps
    absmax = np.maximum(np.abs(x).max(-1, keepdims=True), f32(1e-5))
    codes = np.rint(x * (f32(127) / absmax))
    return (codes.astype(float) @ np.sign(w).T).astype(f32) * (step * (absmax / f32(127)))

def exp(x):  # of x <= 0: 2^k e^r, with a polynomial for e^r
    shifted = fused(np.maximum(x, f32(-87)), f32(1.44269504), f32(12582912))
    k, x = shifted - f32(12582912), np.maximum(x, f32(-87))
    r = fused(k, f32(2.12194440e-4), fused(k, f32(-0.693359375), x))
    p = np.full_like(r, f32(1.9875691500e-4))
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1): p = fused(p, r, f32(c))
    return np.ldexp(fused(p * r, r, r) + f32(1), k.astype(int))

def attention(q, k, v):  # (B, heads, T, D)
    s, out, T = np.zeros(q.shape[:3] + k.shape[2:3], f32), np.zeros_like(q), q.shape[2]
    for d in range(q.shape[3]): s = fused(q[..., d, None], k[..., None, :, d], s)
    s = np.where(np.tril(np.ones((T, T), bool)), s, f32(-np.inf))
    p = np.tril(exp(f32(1) / np.sqrt(f32(q.shape[3])) * (s - s.max(-1, keepdims=True))))
    sums = np.zeros(q.shape[:3] + (1,), f32)
    for t in range(T):  # the queries that see key t
        sums[:, :, t:, 0] += p[:, :, t:, t]
        out[:, :, t:] = fused(p[:, :, t:, t, None], v[:, :, t, None], out[:, :, t:])
    return out * (f32(1) / sums)

def is_exact(c):
    return c["wq"] == "ternary" and c["wscale"] in ("auto", "tensor") and c["aq"] == "int8" and c["act"] in ("relu2", "relu")

def losses(m, x, y):  # -log P, in nats, of every target y (rows, T) behind the tokens x (rows, T) up to it
    c, (B, T) = m["config"], x.shape
    demand(is_exact(c), "only ternary weights with one scale a matrix: --wq=ternary --wscale=tensor --aq=int8 --act=relu2 or relu")
    H, KV, extra, one = c["heads"], c["kv_heads"], c["extra_norm"], f32(1)
    D = c["width"] // H
    pair, turned = np.arange(D // 2), D // (2 if c["rope"] == "half" else 1)
    angle = np.arange(T)[:, None] * 10000.0 ** (-2.0 * pair / turned) * (pair < turned // 2)
    cos, sin = np.cos(angle).astype(f32), np.sin(angle).astype(f32)
    heads = lambda u, n: u.reshape(B, T, n, D).transpose(0, 2, 1, 3)

    def turn(u, gain):  # a head normed, with its gain, and turned
        u = u * (gain / root(u))
        a, b = u[..., :D // 2], u[..., D // 2:]
        return np.concatenate((a * cos + b * sin, b * cos - a * sin), -1)

    h = x0 = norm(m["embed"][0][x].astype(f32), one)
    for p in range(c["phases"]):
        v = lambda name: m[name][p if len(m[name]) == c["phases"] else c["block_of"][p]].astype(f32)
        each = lambda u, name: norm(u, v(name)) if extra == "each" else u
        out = lambda u, name: norm(u, v(name)) if extra != "none" else u
        h = v("mix0") * h + v("mix1") * x0 + v("phase_embed")
        u, step = norm(h, v("g_attn")), lambda name: np.abs(v(name)).max()  # of the whole matrix
        q, k, value = (linear(each(u, name), w, step("wqkv")) for name, w in
                       zip(("x_q", "x_k", "x_v"), np.split(v("wqkv"), [H * D, (H + KV) * D])))
        q, k = turn(heads(q, H), v("q_gain")[:, None, None]), turn(heads(k, KV), one)
        k, value = (np.repeat(z, H // KV, 1) for z in (k, heads(value, KV)))
        a = attention(q, k, value).transpose(0, 2, 1, 3).reshape(B, T, H * D)
        h = h + v("gate_attn") * linear(out(a, "x_attn"), v("wo"), step("wo"))
        f = np.maximum(linear(each(norm(h, v("g_mlp")), "x_up"), v("wup"), step("wup")), f32(0))
        h = h + v("gate_mlp") * linear(out(f * f if c["act"] == "relu2" else f, "x_mlp"), v("wdown"), step("wdown"))
    z = norm(h, one).astype(float)
    logits = 30 * np.tanh((rounded(z, 32767, 1e-20) if c["embed_bits"] < 16 else z) @ m["embed"][0].T / 30)
    return np.log(np.exp(logits - 30).sum(-1)) + 30 - np.take_along_axis(logits, y[..., None], -1)[..., 0]

if __name__ == "__main__": main(losses)
