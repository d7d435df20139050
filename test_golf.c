/* test_golf.c - what the core of train_golf.c promises: its layers and the whole model against
 * finite differences and against their definitions, what the grids store, how the optimizers
 * move, that training learns and resumes, how bits per byte are counted, that sampling is the
 * full forward pass.
 *
 * `make test` compiles this file and those of dev/check twice, with double and with float
 * numbers, and runs them; they need no network and no data, work in a folder of their own
 * under $TMPDIR and remove it. dev/check has the kernels, everything that is read from outside,
 * files, command lines, and the further systems.
 *
 * Gradients are checked by central differences in double: relative L2 error per tensor at
 * most 1e-7, quantizers frozen at their residual (a straight-through gradient is not the
 * derivative of the rounding, but of x + constant). */
#include "dev/check/check.h"

MAYBE int same_reals(const real *a, const real *b, size_t n) {
    return !memcmp(a, b, n * sizeof(real));
}

/* A copy that is never freed. */
static real *copied(const real *x, size_t n) {
    return memcpy(reals(n, 0), x, n * sizeof(real));
}

/* The largest difference between n numbers and what they should be. */
static double worst_of(const real *x, const double *want, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs((double)x[i] - want[i]);
        if (!(e <= worst)) worst = e; /* also NaN */
    }
    return worst;
}

/* ------------------------------------------------------------------------------------------
 * Layers by their definitions, in plain loops and doubles
 * ------------------------------------------------------------------------------------------ */
/* out = x / sqrt(mean(x^2) + 1e-6) * g.  out, x, g (K) */
static void naive_rmsnorm(double *out, const double *x, const double *g, int K) {
    double square = 0;
    for (int i = 0; i < K; i++) square += x[i] * x[i] / K;
    for (int i = 0; i < K; i++) out[i] = x[i] / sqrt(square + 1e-6) * g[i];
}

/* Turns the pairs (x[i], x[D/2 + i]) by the angle pos * 10000^(-2i/D).  x (D), in place */
static void naive_rope(double *x, int pos, int D) {
    for (int i = 0; i < D / 2; i++) {
        const double angle = pos * pow(10000, -2.0 * i / D);
        const double x1 = x[i], x2 = x[D / 2 + i];
        x[i] = x1 * cos(angle) + x2 * sin(angle);
        x[D / 2 + i] = -x1 * sin(angle) + x2 * cos(angle);
    }
}

/* Softmax attention of one query over n keys: out = the sum of p[t] v[t], p = softmax(q k[t] /
 * sqrt(D)); returns the log of the sum of exp.  out, q (D); k, v (n,D), rows ld apart */
static double naive_attention(double *out, const double *q, const double *k, const double *v,
                              int ld, int n, int D) {
    double sum = 0;
    for (int i = 0; i < D; i++) out[i] = 0;
    for (int t = 0; t < n; t++) {
        double score = 0;
        for (int i = 0; i < D; i++) score += q[i] * k[t * ld + i] / sqrt(D);
        sum += exp(score);
        for (int i = 0; i < D; i++) out[i] += exp(score) * v[t * ld + i];
    }
    for (int i = 0; i < D; i++) out[i] /= sum;
    return log(sum);
}

/* -log softmax(30 tanh(z/30))[target].  z (V) */
static double naive_loss(const double *z, int target, int V) {
    double sum = 0;
    for (int i = 0; i < V; i++) sum += exp(30 * tanh(z[i] / 30));
    return log(sum) - 30 * tanh(z[target] / 30);
}

static double *doubles(const real *x, size_t n) { /* never freed */
    double *out = xcalloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++) out[i] = (double)x[i];
    return out;
}

static void test_rmsnorm(void) {
    enum { N = 3, MOST = 100 };
    const int widths[] = {1, 2, 7, 16, 33, 64, MOST};
    for (int w = 0; w < 7; w++) {
        const int K = widths[w];
        const size_t n = (size_t)(N * K);
        real *x = reals(n, 1), *g = reals((size_t)K, 2), *out = reals(n, 0), r[N];
        double want[N * MOST];
        x[0] = 1000; /* a row need not be small */
        rmsnorm_forward(out, r, x, g, N, K);
        for (int i = 0; i < N; i++)
            naive_rmsnorm(want + i * K, doubles(x + i * K, (size_t)K), doubles(g, (size_t)K), K);
        CHECK(worst_of(out, want, n) <= 10 * EPS, "RMSNorm of %d numbers: off by %.3g", K,
              worst_of(out, want, n));
    }
}

/* Embedding, input injection, relu^2 and the gate, number by number. */
static void test_small_layers(void) {
    enum { N = 5, K = 19, NK = N * K };
    const real *x = reals(NK, 1), *y = reals(NK, 2), *a = reals(K, 3), *b = reals(K, 4);
    const real *e = reals(K, 5);
    const int tokens[N] = {2, 0, 2, 1, 2};
    real out[4][NK];
    double want[4][NK];
    embed_forward(out[0], x, tokens, N, K);
    mix_forward(out[1], x, y, a, b, e, N, K);
    relu2_forward(out[2], x, N, K);
    gate_forward(out[3], x, y, a, N, K);
    for (int i = 0; i < NK; i++) {
        const double xi = (double)x[i], yi = (double)y[i], ai = (double)a[i % K];
        want[0][i] = (double)x[tokens[i / K] * K + i % K];
        want[1][i] = ai * xi + (double)b[i % K] * yi + (double)e[i % K];
        want[2][i] = xi > 0 ? xi * xi : 0;
        want[3][i] = xi + ai * yi;
    }
    const char *const names[] = {"embedding", "input injection", "relu^2", "gate"};
    for (int k = 0; k < 4; k++)
        CHECK(worst_of(out[k], want[k], NK) <= EPS, "%s: off by %.3g", names[k],
              worst_of(out[k], want[k], NK));
}

/* Queries and keys: a norm per head without gain, a gain per query head, RoPE. Tokens n0, n0 + 1,
 * .. of rows of T = 5, with pos0 tokens before each row. */
static void test_rope(void) {
    enum { N = 9, T = 5, POS0 = 3, N0 = 2, H = 3, KV = 1, D = 6, OUT = (H + KV) * D };
    enum { LD = OUT + KV * D };
    Golf m;
    new_model(&m, "vocab=8 width=18 heads=3 kv_heads=1 seq=16 repeat=1 mlp=1", 16);
    const real *x = reals(N * LD, 1), *gain = reals(H, 2);
    real out[N * OUT];
    double want[N * OUT], ones[D] = {1, 1, 1, 1, 1, 1};
    qk_forward(out, x, LD, gain, m.rope, POS0, N0, N, T, H, KV, D);
    for (int n = 0; n < N; n++)
        for (int h = 0; h < H + KV; h++) {
            double *w = want + n * OUT + h * D;
            naive_rmsnorm(w, doubles(x + n * LD + h * D, D), ones, D);
            for (int i = 0; i < D; i++) w[i] *= h < H ? (double)gain[h] : 1;
            naive_rope(w, POS0 + (N0 + n) % T, D);
        }
    CHECK(worst_of(out, want, N * OUT) <= EPS, "q and k: off by %.3g",
          worst_of(out, want, N * OUT));

    /* what RoPE is for: a query times a key depends on their distance alone */
    double q[D] = {1, -2, 3, 0.5, 1.5, -1}, k[D] = {2, 1, -1, 0.25, -3, 1}, dot[2] = {0, 0};
    double q2[D], k2[D];
    memcpy(q2, q, sizeof q);
    memcpy(k2, k, sizeof k);
    naive_rope(q, 7, D);
    naive_rope(k, 2, D);
    naive_rope(q2, 30, D);
    naive_rope(k2, 25, D);
    for (int i = 0; i < D; i++) {
        dot[0] += q[i] * k[i];
        dot[1] += q2[i] * k2[i];
    }
    CHECK(near(dot[0], dot[1], 1e-12), "distance 5: %.9g, then %.9g", dot[0], dot[1]);
    golf_free(&m);
}

/* Query i of Tq sees keys 0 .. Tk-Tq+i; query head h uses key/value head h / (H/KV). */
static void test_attention(void) {
    const int shapes[][6] = {{1, 1, 1, 1, 1, 2},     {2, 5, 5, 4, 2, 4},   {2, 6, 6, 4, 1, 2},
                             {1, 1, 9, 2, 2, 6},     {1, 3, 70, 2, 1, 10}, {1, 64, 64, 1, 1, 2},
                             {1, 130, 130, 2, 1, 16}}; /* B Tq Tk H KV D */
    for (size_t s = 0; s < COUNT(shapes); s++) {
        const int B = shapes[s][0], Tq = shapes[s][1], Tk = shapes[s][2];
        const int H = shapes[s][3], KV = shapes[s][4], D = shapes[s][5];
        const int HD = H * D, KVD = KV * D;
        const size_t n = (size_t)(B * Tq * HD);
        const real *q = reals(n, 1), *k = reals((size_t)(B * Tk * KVD), 2);
        const real *v = reals((size_t)(B * Tk * KVD), 3);
        const double *dq = doubles(q, n), *dk = doubles(k, (size_t)(B * Tk * KVD));
        const double *dv = doubles(v, (size_t)(B * Tk * KVD));
        real *out = reals(n, 4), *lse = reals((size_t)(B * Tq * H), 0);
        double *want = xcalloc(n, sizeof(double)), worst_lse = 0;
        attention_forward(out, lse, q, (size_t)HD, k, (size_t)KVD, v, (size_t)KVD, B, Tq, Tk, H,
                          KV, D);
        for (int row = 0; row < B * Tq; row++)
            for (int h = 0; h < H; h++) {
                const int at = row * HD + h * D, keys = Tk - Tq + row % Tq + 1;
                const int kv = row / Tq * Tk * KVD + h / (H / KV) * D;
                const double l = naive_attention(want + at, dq + at, dk + kv, dv + kv, KVD, keys, D);
                worst_lse = fmax(worst_lse, fabs(l - (double)lse[row * H + h]));
            }
        CHECK(worst_of(out, want, n) <= EPS && worst_lse <= EPS,
              "attention, %d queries, %d keys, %d heads: off by %.3g, lse by %.3g", Tq, Tk, H,
              worst_of(out, want, n), worst_lse);
    }
}

static void test_cross_entropy(void) {
    enum { N = 3, V = 40 };
    const int target[N] = {0, 17, 39};
    real *z = reals((size_t)N * V, 8), lse[N], loss[N];
    for (int i = 0; i < N * V; i++) z[i] *= 20; /* the cap of 30 is felt */
    const double *logits = doubles(z, (size_t)N * V);
    loss_forward(z, lse, loss, target, N, V);
    for (int n = 0; n < N; n++) {
        const double want = naive_loss(logits + n * V, target[n], V);
        CHECK(near((double)loss[n], want, DOUBLE ? 1e-12 : 3e-5), "loss %.9g, want %.9g",
              (double)loss[n], want);
    }
}

/* ------------------------------------------------------------------------------------------
 * Gradients of layers, by differences
 * ------------------------------------------------------------------------------------------ */
/* A layer alone: out = f(in[0], in[1], ..), the loss is the sum of out * coef, so that d(out) is
 * coef. Gradients that add to what is there (`adds`) start at 1/4, others at noise, which they
 * must overwrite. */
typedef struct Layer {
    const char *name;
    void (*forward)(struct Layer *l);
    void (*backward)(struct Layer *l); /* d from in and coef */
    int N, K;                          /* rows and columns */
    int B, T, H, KV, D;                /* of attention and RoPE */
    size_t n_out, n[5];                /* numbers of out and of each input */
    int adds[5];
    real *in[5], *d[5], *out, *coef, *r, *rope, *room;
    int *tokens;
} Layer;

enum { LAYER_N = 70, LAYER_K = 6, LAYER_V = 9, LAYER_NK = LAYER_N * LAYER_K };

static void layer_rmsnorm(Layer *l) {
    rmsnorm_forward(l->out, l->r, l->in[0], l->in[1], l->N, l->K);
}

static void layer_rmsnorm_d(Layer *l) { /* dx adds or not */
    rmsnorm_backward(l->d[0], l->adds[0], l->d[1], l->coef, l->in[0], l->r, l->in[1], l->N, l->K);
}

static void layer_embed(Layer *l) { embed_forward(l->out, l->in[0], l->tokens, l->N, l->K); }

static void layer_embed_d(Layer *l) {
    embed_backward(l->d[0], l->coef, l->tokens, l->N, l->K);
}

static void layer_mix(Layer *l) {
    mix_forward(l->out, l->in[0], l->in[1], l->in[2], l->in[3], l->in[4], l->N, l->K);
}

static void layer_mix_d(Layer *l) {
    memcpy(l->d[0], l->coef, l->n_out * sizeof(real));
    mix_backward(l->d[0], l->d[1], l->d[2], l->d[3], l->d[4], l->in[0], l->in[1], l->in[2],
                 l->in[3], l->N, l->K);
}

static void layer_qk(Layer *l) {
    const int QKV = (l->H + 2 * l->KV) * l->D;
    qk_forward(l->out, l->in[0], QKV, l->in[1], l->rope, 0, 0, l->N, l->T, l->H, l->KV, l->D);
}

/* The values do not pass through here: their columns must stay as they are. */
static void layer_qk_d(Layer *l) {
    const int QK = (l->H + l->KV) * l->D, QKV = QK + l->KV * l->D;
    const real *before = copied(l->d[0], l->n[0]);
    int untouched = 1;
    qk_backward(l->d[0], l->d[1], l->coef, l->in[0], QKV, l->in[1], l->rope, 0, l->N, l->T, l->H,
                l->KV, l->D);
    for (size_t i = 0; i < l->n[0]; i++) {
        if ((int)(i % (size_t)QKV) < QK) continue;
        untouched &= l->d[0][i] == before[i];
        l->d[0][i] = 0;
    }
    CHECK(untouched, "qk_backward wrote to the values");
}

static void layer_attention(Layer *l) {
    const size_t q = (size_t)(l->H * l->D), kv = (size_t)(l->KV * l->D);
    attention_forward(l->out, l->r, l->in[0], q, l->in[1], kv, l->in[2], kv, l->B, l->T, l->T,
                      l->H, l->KV, l->D);
}

static void layer_attention_d(Layer *l) {
    const size_t q = (size_t)(l->H * l->D), kv = (size_t)(l->KV * l->D);
    attention_backward(l->d[0], q, l->d[1], kv, l->d[2], kv, l->coef, l->r, l->in[0], q,
                       l->in[1], kv, l->in[2], kv, l->B, l->T, l->H, l->KV, l->D);
}

static void layer_relu2(Layer *l) { relu2_forward(l->out, l->in[0], l->N, l->K); }

static void layer_relu2_d(Layer *l) {
    memcpy(l->d[0], l->coef, l->n_out * sizeof(real));
    relu2_backward(l->d[0], l->in[0], l->N, l->K);
}

static void layer_gate(Layer *l) { /* coef stands for h, of which out is the sum with g * y */
    gate_forward(l->out, l->coef, l->in[0], l->in[1], l->N, l->K);
}

static void layer_gate_d(Layer *l) {
    gate_backward(l->d[0], l->d[1], l->coef, l->in[0], l->in[1], l->N, l->K);
}

/* out (N): losses. The gradient is that of their mean: coef is 1/N. */
static void layer_loss(Layer *l) {
    memcpy(l->room, l->in[0], l->n[0] * sizeof(real));
    loss_forward(l->room, l->r, l->out, l->tokens, l->N, l->K);
    for (int n = 0; n < l->N; n++) l->coef[n] = 1 / (real)l->N;
}

static void layer_loss_d(Layer *l) {
    memcpy(l->d[0], l->room, l->n[0] * sizeof(real));
    loss_backward(l->d[0], l->r, l->tokens, 1 / (real)l->N, l->N, l->K);
}

static double layer_sum(void *arg) {
    Layer *l = arg;
    double sum = 0;
    l->forward(l);
    for (size_t i = 0; i < l->n_out; i++) sum += (double)l->out[i] * (double)l->coef[i];
    return sum;
}

static void check_layer(Layer *l, double size) { /* size: of the first input's numbers */
    const int first = l->T == 1 ? 2 : 0; /* one key has weight 1, whatever q and k */
    l->out = reals(l->n_out, 0);
    l->coef = reals(l->n_out, 6);
    l->r = reals(4 * (size_t)l->N, 0);
    l->room = reals(l->n[0], 0);
    l->tokens = tokens_below(LAYER_V, (size_t)l->N, 2);
    for (int i = 0; i < 5; i++) {
        l->in[i] = reals(l->n[i], (uint64_t)(10 + i));
        l->d[i] = reals(l->n[i], 30);
        if (l->adds[i]) set_all(l->d[i], l->n[i], 0.25);
    }
    for (size_t i = 0; i < l->n[0]; i++) l->in[0][i] *= (real)size;
    layer_sum(l);
    l->backward(l);
    for (int i = first; i < 5; i++) {
        if (!l->n[i]) continue;
        for (size_t k = 0; k < l->n[i]; k++) l->d[i][k] -= l->adds[i] ? (real)0.25 : 0;
        const double e = grad_error(l->in[i], l->d[i], l->n[i], layer_sum, l);
        CHECK(e <= GRAD_TOL, "%s, T %d: gradient of input %d: %.3g", l->name, l->T, i, e);
    }
}

/* clang-format off */
static Layer layers[] = {
    {.name = "RMSNorm", .forward = layer_rmsnorm, .backward = layer_rmsnorm_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK, LAYER_K}, .adds = {0, 1}},
    {.name = "RMSNorm, added", .forward = layer_rmsnorm, .backward = layer_rmsnorm_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK, LAYER_K}, .adds = {1, 1}},
    {.name = "embedding", .forward = layer_embed, .backward = layer_embed_d,
     .N = LAYER_N, .K = 20, .n_out = LAYER_N * 20, .n = {LAYER_V * 20}, .adds = {1}},
    {.name = "input injection", .forward = layer_mix, .backward = layer_mix_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK,
     .n = {LAYER_NK, LAYER_NK, LAYER_K, LAYER_K, LAYER_K}, .adds = {0, 1, 1, 1, 1}},
    {.name = "relu^2", .forward = layer_relu2, .backward = layer_relu2_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK}},
    {.name = "gate", .forward = layer_gate, .backward = layer_gate_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK, LAYER_K}, .adds = {0, 1}},
};
/* clang-format on */

static void test_layer_gradients(void) {
    enum { H = 4, KV = 2, D = 6, QK = (H + KV) * D, QKV = QK + KV * D };
    for (size_t i = 0; i < COUNT(layers); i++) check_layer(layers + i, 1);

    Layer loss = {.name = "loss", .forward = layer_loss, .backward = layer_loss_d};
    loss.N = LAYER_N;
    loss.K = LAYER_V;
    loss.n_out = LAYER_N;
    loss.n[0] = LAYER_N * LAYER_V;
    check_layer(&loss, 25); /* so that the cap is felt */

    Golf m; /* for its table of turns */
    new_model(&m, "vocab=8 width=24 heads=4 kv_heads=2 seq=35 repeat=1 mlp=1", 35);
    Layer qk = {.name = "q and k", .forward = layer_qk, .backward = layer_qk_d, .rope = m.rope};
    qk.N = LAYER_N;
    qk.T = LAYER_N / 2;
    qk.H = H;
    qk.KV = KV;
    qk.D = D;
    qk.n_out = LAYER_N * QK;
    qk.n[0] = LAYER_N * QKV;
    qk.n[1] = H;
    qk.adds[1] = 1;
    check_layer(&qk, 1);
    golf_free(&m);
}

static void test_attention_gradient(void) {
    const int shapes[][5] = {{1, 1, 1, 1, 2},  {2, 5, 4, 2, 4},  {2, 6, 4, 1, 2},
                             {1, 64, 1, 1, 2}, {1, 67, 2, 1, 2}, {1, 130, 1, 1, 2}}; /* B T H KV D */
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const int *s = shapes[i], n = s[0] * s[1];
        Layer l = {.name = "attention", .forward = layer_attention, .backward = layer_attention_d};
        l.N = n;
        l.B = s[0];
        l.T = s[1];
        l.H = s[2];
        l.KV = s[3];
        l.D = s[4];
        l.n[0] = (size_t)(n * l.H * l.D);
        l.n[1] = (size_t)(n * l.KV * l.D);
        l.n[2] = l.n[1];
        l.n_out = l.n[0];
        check_layer(&l, 1);
    }
}

/* A projection: row range `range` of the second block's wqkv. */
typedef struct {
    Golf m;
    int N, range;
    size_t n_out;
    real *x, *out, *coef;
} Projection;

static double projection_sum(void *arg) {
    Projection *l = arg;
    Golf *m = &l->m;
    Act *in = &m->phase->in_q;
    double sum = 0;
    golf_quantize(m);
    input_of(m, in, T_wqkv, 0, NULL, l->x, NULL, l->N, m->config.width, NULL);
    linear_forward(m, l->out, l->n_out / (size_t)l->N, in, T_wqkv, 1, l->range, l->N);
    for (size_t i = 0; i < l->n_out; i++) sum += (double)l->out[i] * (double)l->coef[i];
    return sum;
}

static void check_projection(Projection *l, int first, int rows, const char *text) {
    Golf *m = &l->m;
    const int C = m->config.width, QKV = m->tensor[T_wqkv].rows, N = l->N;
    const Act *in = &m->phase->in_q;
    l->x = reals((size_t)(N * C), 11);
    l->out = reals(l->n_out, 0);
    l->coef = reals(l->n_out, 12);
    for (int i = 0; i < N * QKV; i++) /* only this range's columns are written */
        if (i % QKV < first || i % QKV >= first + rows) l->coef[i] = 0;

    freeze_rows(m, LIVE);
    const double live = projection_sum(l); /* what training computes, with codes in integers */
    freeze_rows(m, RECORD);
    const double recorded = projection_sum(l);
    CHECK(near(live, recorded, 1e-9), "%s: frozen projection differs", text);
    freeze_rows(m, REPLAY);
    projection_sum(l);

    real *dx = reals((size_t)(N * C), 13);
    const size_t at = m->tensor[T_wqkv].at + (size_t)(QKV + first) * (size_t)C;
    const size_t n = (size_t)(rows * C);
    set_all(m->grad, m->n_params, 0.25);
    linear_dx(m, dx, l->coef, (size_t)QKV, T_wqkv, 1, l->range, N);
    const Gemm dw = linear_dw(m, l->coef, (size_t)QKV, in, T_wqkv, 1, l->range, N);
    gemm_all(&dw, 1);
    for (size_t i = 0; i < n; i++) m->grad[at + i] -= (real)0.25;
    const double ex = grad_error(l->x, dx, (size_t)(N * C), projection_sum, l);
    const double ew = grad_error(m->master + at, m->grad + at, n, projection_sum, l);
    CHECK(ex <= GRAD_TOL && ew <= GRAD_TOL, "projection, %s: errors %.3g %.3g", text, ex, ew);
}

static void test_projection_gradient(void) {
    const char *const arms[] = {"wq=none aq=none", "wq=ternary aq=none", "wq=none aq=int8",
                                "wq=ternary aq=int8", "wq=int5 aq=int4 wscale=row",
                                "extra_norm=each kv_heads=1"};
    for (size_t a = 0; a < COUNT(arms); a++) {
        char text[256];
        Projection l = {.N = 6};
        int first;
        snprintf(text, sizeof text, "vocab=8 width=8 heads=2 seq=8 unique=2 repeat=1 %s", arms[a]);
        new_frozen_model(&l.m, text, (size_t)l.N);
        l.n_out = (size_t)l.N * (size_t)l.m.tensor[T_wqkv].rows;
        for (l.range = 0; l.range < 3; l.range++) {
            const int rows = row_range(&l.m, T_wqkv, l.range, &first);
            if (rows) check_projection(&l, first, rows, arms[a]);
        }
        golf_free(&l.m);
    }
}

/* ------------------------------------------------------------------------------------------
 * The whole model
 * ------------------------------------------------------------------------------------------ */
static void test_model_gradients(void) {
    static const char *const arms[] = {
        "repeat=1",
        "repeat=3",
        "unique=3 repeat=1",
        "unique=2 repeat=2 order=cycle",
        "unique=2 repeat=2 order=sequence",
        "prelude=1 coda=1 repeat=2",
        "prelude=2 repeat=1",
        "mix=none",
        "mix=scalar",
        "gain=none",
        "gain=scalar",
        "gate=none",
        "gate=scalar",
        "qgain=none",
        "qgain=scalar",
        "xgain=none",
        "xgain=scalar",
        "extra_norm=none",
        "extra_norm=each",
        "extra_norm=each kv_heads=1 unique=2 repeat=1 wq=none aq=none",
        "embed_bits=4",
        "embed_bits=16 repeat=3 extra_norm=each phase_embed=1",
        "phase=0 repeat=3",
        "phase=0 unique=2 repeat=2 gate=scalar",
        "phase_embed=1",
        "heads=4 kv_heads=2",
        "heads=4 kv_heads=1 wq=none",
        "hidden=24 unique=2 repeat=1",
        "wq=none aq=none",
        "wq=none",
        "aq=none",
        "aq=int4",
        "wq=int4",
        "wq=int8 aq=none",
        "wscale=row extra_norm=each",
        "wscale=group unique=2 repeat=1",
        "wq=none aq=none extra_norm=none gain=none gate=none mix=none qgain=none embed_bits=16",
        "seq=40 mlp=1 phase_embed=1", /* 80 tokens: two chunks, three of the head */
    };
    for (size_t a = 0; a < COUNT(arms); a++) check_gradients(arms[a], NULL);
}

/* The drawing at the top of train_golf.c as plain loops over one sequence of T tokens: T*C numbers
 * of the stream h, of x0 and of what a branch computes. Weights are what is stored (eff). */
enum { NAIVE_T = 12, NAIVE_C = 16, NAIVE_F = 40, NAIVE_ROWS = 3 * NAIVE_C };

typedef struct {
    const Golf *m;
    int p, block; /* the phase, and the block that it uses */
    double x0[NAIVE_T][NAIVE_C], h[NAIVE_T][NAIVE_C];
    double qkv[NAIVE_T][NAIVE_ROWS], att[NAIVE_T][NAIVE_C];
} Naive;

/* Blocks by hand: those of the prelude, the loop, those of the coda. */
static int naive_block(const Config *c, int p) {
    if (p < c->prelude) return p;
    p -= c->prelude;
    if (p >= c->unique * c->repeat) return c->prelude + c->unique + p - c->unique * c->repeat;
    return c->prelude + (c->order == ORDER_CYCLE ? p % c->unique : p / c->repeat);
}

/* The interface vector of this phase: none, one number for all, or its own. */
static const double *naive_vector(const Naive *s, int tensor) {
    static double out[NAIVE_F];
    const Golf *m = s->m;
    const Tensor *t = m->tensor + tensor;
    const int copy = m->config.phase ? s->p : s->block;
    for (int i = 0; i < t->cols; i++) {
        if (t->mode == MODE_NONE) out[i] = t->init;
        if (t->mode == MODE_SCALAR) out[i] = (double)m->eff[t->at + (size_t)copy];
        if (t->mode == MODE_VECTOR)
            out[i] = (double)m->eff[t->at + (size_t)(copy * t->cols + i)];
    }
    return out;
}

/* RMSNorm with the gain of this phase, in place. */
static void naive_norm(const Naive *s, double *x, int tensor) {
    naive_rmsnorm(x, x, naive_vector(s, tensor), s->m->tensor[tensor].cols);
}

/* y = rows [first, first + rows) of W times what is left of x after rounding to codes. */
static void naive_project(const Naive *s, double *y, const double *x, int tensor, int first,
                          int rows) {
    const Golf *m = s->m;
    const Tensor *t = m->tensor + tensor;
    const int K = t->cols, top = m->inputs[tensor]->top;
    const size_t at = t->at + (size_t)s->block * t->copy_n;
    double absmax = 1e-5, rounded[NAIVE_F];
    for (int i = 0; i < K; i++) absmax = fmax(absmax, fabs(x[i]));
    for (int i = 0; i < K; i++)
        rounded[i] = top ? rint(x[i] * top / absmax) * absmax / top : x[i];
    for (int r = 0; r < rows; r++) {
        y[r] = 0;
        for (int i = 0; i < K; i++)
            y[r] += (double)m->eff[at + (size_t)((first + r) * K + i)] * rounded[i];
    }
}

/* h = mix0*h + mix1*x0 + phase_embed;  qkv = Wqkv (RMSNorm(h) * g_attn), q and k normed, turned */
static void naive_qkv(Naive *s, int t) {
    const Config *c = &s->m->config;
    const int C = c->width, D = C / c->heads, each = c->extra_norm == XN_EACH;
    const int kv = kv_heads(c) * D, first[] = {0, C, C + kv, C + 2 * kv};
    double u[NAIVE_C], normed[NAIVE_C], ones[NAIVE_C];
    for (int i = 0; i < C; i++) s->h[t][i] *= naive_vector(s, T_mix0)[i];
    for (int i = 0; i < C; i++) s->h[t][i] += naive_vector(s, T_mix1)[i] * s->x0[t][i];
    for (int i = 0; i < C; i++) s->h[t][i] += naive_vector(s, T_phase_embed)[i];

    memcpy(u, s->h[t], sizeof u);
    naive_norm(s, u, T_g_attn);
    for (int r = 0; r < 3; r++) {
        memcpy(normed, u, sizeof u);
        if (each) naive_norm(s, normed, T_x_q + r);
        naive_project(s, s->qkv[t] + first[r], normed, T_wqkv, first[r], first[r + 1] - first[r]);
    }
    for (int i = 0; i < D; i++) ones[i] = 1;
    for (int j = 0; j < c->heads + kv_heads(c); j++) {
        double *x = s->qkv[t] + j * D;
        naive_rmsnorm(x, x, ones, D);
        if (j < c->heads)
            for (int i = 0; i < D; i++) x[i] *= naive_vector(s, T_q_gain)[j];
        naive_rope(x, t, D);
    }
}

/* h += gate_attn * Wo (RMSNorm(att) * x_attn) */
static void naive_output(Naive *s, int t) {
    const Config *c = &s->m->config;
    double o[NAIVE_C];
    if (c->extra_norm >= XN_OUT) naive_norm(s, s->att[t], T_x_attn);
    naive_project(s, o, s->att[t], T_wo, 0, c->width);
    for (int i = 0; i < c->width; i++) s->h[t][i] += naive_vector(s, T_gate_attn)[i] * o[i];
}

/* h += gate_mlp * Wdown (RMSNorm(relu^2(Wup (RMSNorm(h) * g_mlp))) * x_mlp) */
static void naive_mlp(Naive *s, int t) {
    const Config *c = &s->m->config;
    const int C = c->width, F = hidden_width(c);
    double u[NAIVE_C], f[NAIVE_F], y[NAIVE_C];
    memcpy(u, s->h[t], sizeof u);
    naive_norm(s, u, T_g_mlp);
    if (c->extra_norm == XN_EACH) naive_norm(s, u, T_x_up);
    naive_project(s, f, u, T_wup, 0, F);
    for (int i = 0; i < F; i++) f[i] = f[i] > 0 ? f[i] * f[i] : 0;
    if (c->extra_norm >= XN_OUT) naive_norm(s, f, T_x_mlp);
    naive_project(s, y, f, T_wdown, 0, C);
    for (int i = 0; i < C; i++) s->h[t][i] += naive_vector(s, T_gate_mlp)[i] * y[i];
}

static void naive_phase(Naive *s, int T) {
    const Config *c = &s->m->config;
    const int D = c->width / c->heads, group = c->heads / kv_heads(c);
    for (int t = 0; t < T; t++) naive_qkv(s, t);
    for (int t = 0; t < T; t++)
        for (int h = 0; h < c->heads; h++) {
            const double *k = s->qkv[0] + (c->heads + h / group) * D;
            naive_attention(s->att[t] + h * D, s->qkv[t] + h * D, k, k + kv_heads(c) * D,
                            NAIVE_ROWS, t + 1, D);
        }
    for (int t = 0; t < T; t++) naive_output(s, t);
    for (int t = 0; t < T; t++) naive_mlp(s, t);
}

/* The sum of the losses of one sequence. */
static double naive_model(const Golf *m, const int *x, const int *y, int T) {
    static Naive s;
    const Config *c = &m->config;
    const int C = c->width, V = c->vocab;
    double ones[NAIVE_C], last[NAIVE_C], loss = 0;
    double *z = xcalloc((size_t)V, sizeof(double));
    s.m = m;
    for (int i = 0; i < C; i++) ones[i] = 1;
    for (int t = 0; t < T; t++) {
        naive_rmsnorm(s.x0[t], doubles(m->eff + x[t] * C, (size_t)C), ones, C);
        memcpy(s.h[t], s.x0[t], sizeof s.h[t]);
    }
    for (s.p = 0; s.p < phase_count(c); s.p++) {
        s.block = naive_block(c, s.p);
        naive_phase(&s, T);
    }
    for (int t = 0; t < T; t++) {
        naive_rmsnorm(last, s.h[t], ones, C);
        for (int v = 0; v < V; v++) {
            z[v] = 0;
            for (int i = 0; i < C; i++) z[v] += last[i] * (double)m->eff[v * C + i];
        }
        loss += naive_loss(z, y[t], V);
    }
    free(z);
    return loss;
}

static void test_model_by_definition(void) {
    const char *const arms[] = {"wq=none aq=none embed_bits=16",
                                "aq=none",
                                "wq=int4 aq=int4 wscale=row",
                                "extra_norm=each unique=2 repeat=2 order=sequence prelude=1",
                                "extra_norm=none gain=none phase=0 unique=2 coda=1 gate=scalar",
                                "phase_embed=1 qgain=none mix=scalar kv_heads=1 hidden=40"};
    enum { B = 3, T = NAIVE_T, V = 31 };
    const int *x = tokens_below(V, B * T, 1), *y = tokens_below(V, B * T, 2);
    for (size_t a = 0; a < COUNT(arms); a++) {
        char text[512];
        double want = 0;
        Golf m;
        snprintf(text, sizeof text, "vocab=31 width=16 heads=2 mlp=2 seq=12 repeat=2 %s", arms[a]);
        new_model(&m, text, B * T);
        stir(&m);
        golf_quantize(&m);
        const double loss = golf_forward(&m, x, y, B, T);
        for (int b = 0; b < B; b++) want += naive_model(&m, x + b * T, y + b * T, T) / (B * T);
        /* a float on the edge between two codes may fall on either side */
        const double tolerance = DOUBLE ? 1e-10 : m.inputs[T_wo]->top ? 3e-3 : 1e-5;
        CHECK(near(loss, want, tolerance), "%s: loss %.9g, by definition %.9g", arms[a], loss, want);
        golf_free(&m);
    }
}

/* Which block a phase uses, and that it is the one whose weights act there. */
static void test_block_order(void) {
    static const struct {
        const char *options;
        int phases, block[8];
    } rows[] = {{"unique=2 repeat=3", 6, {0, 1, 0, 1, 0, 1}},
                {"unique=2 repeat=3 order=sequence", 6, {0, 0, 0, 1, 1, 1}},
                {"unique=2 repeat=2 prelude=1 coda=2", 7, {0, 1, 2, 1, 2, 3, 4}},
                {"unique=1 repeat=3 prelude=2 order=sequence", 5, {0, 1, 2, 2, 2}}};
    enum { T = 8, C = 16 };
    const int *x = tokens_below(16, T, 1);
    for (size_t r = 0; r < COUNT(rows); r++) {
        char text[256];
        Golf m;
        snprintf(text, sizeof text, "vocab=16 width=16 heads=2 seq=8 %s", rows[r].options);
        new_model(&m, text, T);
        golf_forward(&m, x, NULL, 1, T);
        CHECK(m.phases == rows[r].phases, "%s: %d phases", text, m.phases);
        real *before[8];
        for (int p = 0; p < m.phases; p++) before[p] = copied(m.phase[p].out, T * C);
        for (int b = block_count(&m.config) - 1; b >= 0; b--) {
            const Tensor *t = m.tensor + T_wup;
            int first = 0; /* the first phase that uses block b, and none before it, changes */
            while (rows[r].block[first] != b) first++;
            for (size_t i = 0; i < t->copy_n; i++)
                m.master[t->at + (size_t)b * t->copy_n + i] *= -1;
            golf_quantize(&m);
            golf_forward(&m, x, NULL, 1, T);
            for (int p = 0; p <= first; p++)
                CHECK(same_reals(before[p], m.phase[p].out, T * C) == (p < first),
                      "%s: block %d in phase %d", text, b, p);
        }
        golf_free(&m);
    }
}

/* Without differences: the vectors of phase 1 act there, and not before. */
static void test_phase_order(void) {
    enum { T = 8, C = 16 };
    Golf m;
    new_model(&m, "vocab=16 width=16 heads=2 seq=8 repeat=3 phase_embed=1 extra_norm=each", T);
    const int *x = tokens_below(16, T, 1);
    golf_forward(&m, x, NULL, 1, T);
    const real *before[] = {copied(m.phase[0].out, T * C), copied(m.phase[1].out, T * C)};
    EACH_TENSOR(t, &m) {
        if (t->role != INTERFACE || !t->n) continue;
        for (int i = 0; i < t->stored_cols; i++)
            m.master[t->at + t->copy_n + (size_t)i] += (real)(0.5 + 0.1 * i);
        golf_quantize(&m);
        golf_forward(&m, x, NULL, 1, T);
        set_all(m.master + t->at, t->n, t->init);
        CHECK(same_reals(before[0], m.phase[0].out, T * C) &&
                  !same_reals(before[1], m.phase[1].out, T * C),
              "%s of phase 1 acts in another phase", t->name);
    }
    golf_free(&m);
}

/* ||a - b|| / ||a|| */
static double distance(const real *a, const real *b, size_t n) {
    double num = 0, den = 0;
    for (size_t i = 0; i < n; i++) {
        num += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        den += (double)a[i] * (double)a[i];
    }
    return sqrt(num / den);
}

/* Gradients of 1,300 tokens, more than the head takes at a time, are the mean of those of their
 * two halves; recomputing the forward pass on the way back changes no bit. */
static void test_large_batch(void) {
    enum { N = 1300, B = 20, T = 65 };
    const char *text = "vocab=300 width=24 heads=2 mlp=2 seq=65 repeat=3 unique=2 prelude=1 "
                       "extra_norm=each phase_embed=1 ";
    char again[256];
    Golf m, r;
    const int *x = tokens_below(300, N, 1), *y = tokens_below(300, N, 2);
    new_model(&m, text, N);
    snprintf(again, sizeof again, "%s recompute=1", text);
    new_model(&r, again, N);
    const double loss = golf_forward(&m, x, y, B, T), loss_r = golf_forward(&r, x, y, B, T);
    golf_backward(&m, x, B, T);
    golf_backward(&r, x, B, T);
    CHECK(loss == loss_r && same_reals(m.grad, r.grad, m.n_params), "recompute=1 differs");

    real *halves = reals(m.n_params, 0);
    double loss_halves = 0;
    for (int half = 0; half < 2; half++) {
        const int at = half * N / 2;
        loss_halves += golf_forward(&r, x + at, y + at, B / 2, T) / 2;
        golf_backward(&r, x + at, B / 2, T);
        for (size_t i = 0; i < m.n_params; i++) halves[i] += r.grad[i] / 2;
    }
    const double apart = distance(m.grad, halves, m.n_params);
    CHECK(near(loss, loss_halves, EPS) && apart < EPS,
          "1,300 tokens against two halves: loss %.3g, gradients %.3g", loss - loss_halves, apart);
    golf_free(&m);
    golf_free(&r);
}
