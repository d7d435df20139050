/* test_golf.c - what the core of train_golf.c promises: its layers and the whole model
 * against their definitions and against finite differences, what the grids store, how the
 * optimizers move, that training learns and resumes, how bits per byte are counted, that
 * sampling is the full forward pass.
 *
 * `make test` compiles this file and those of dev/check with float numbers and, where that
 * tells more, with double ones, and runs them; they need no network and no data, work in a folder of their own
 * under $TMPDIR and remove it. dev/check has the kernels, all that is read from outside,
 * files, command lines, and the further systems.
 *
 * Gradients are checked by central differences in double: relative L2 error per tensor at
 * most 1e-7, quantizers frozen at their residual (a straight-through gradient is not the
 * derivative of the rounding, but of x + constant). */
#include "dev/check/check.h"

static int same_reals(const real *a, const real *b, size_t n) {
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
        worst = worse(worst, fabs((double)x[i] - want[i]));
    }
    return worst;
}

/* ------------------------------------------------------------------------------------
 * Layers by their definitions, in plain loops and doubles */
/* out = x / sqrt(mean(x^2) + 1e-6) * g.  out, x, g (K) */
static void naive_rmsnorm(double *out, const double *x, const double *g, int K) {
    double square = 0;
    for (int i = 0; i < K; i++) square += x[i] * x[i] / K;
    for (int i = 0; i < K; i++) out[i] = x[i] / sqrt(square + 1e-6) * g[i];
}

/* Turns the first pairs (x[i], x[D/2 + i]), `turned` numbers in all, by the angle
 * pos * 10000^(-2i/turned).  x (D) */
static void naive_rope(double *x, int pos, int D, int turned) {
    for (int i = 0; i < turned / 2; i++) {
        const double angle = pos * pow(10000, -2.0 * i / turned);
        const double x1 = x[i], x2 = x[D / 2 + i];
        x[i] = x1 * cos(angle) + x2 * sin(angle);
        x[D / 2 + i] = -x1 * sin(angle) + x2 * cos(angle);
    }
}

/* Softmax attention of one query over n keys: out = the sum of p[t] v[t] with
 * p = softmax(q k[t] / sqrt(D)). Returns the log of the sum of exp.
 * out, q (D); k, v (n,D), rows ld apart */
static double naive_attention(double *out, const double *q, const double *k,
                              const double *v, int ld, int n, int D) {
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
            naive_rmsnorm(want + i * K, doubles(x + i * K, (size_t)K),
                          doubles(g, (size_t)K), K);
        CHECK(worst_of(out, want, n) <= 10 * EPS, "RMSNorm of %d numbers: off by %.3g", K,
              worst_of(out, want, n));
    }
}

static double naive_silu(double x) { return x / (1 + exp(-x)); }

/* The activation as --act says it.  gate: of swiglu */
static double naive_act(int act, double f, double gate) {
    if (act == ACT_SILU) return naive_silu(f);
    if (act == ACT_SWIGLU) return naive_silu(gate) * f;
    if (f <= 0) return 0;
    return act == ACT_RELU2 ? f * f : f;
}

/* Embedding, input injection and the gate, number by number. */
static void test_small_layers(void) {
    enum { N = 5, K = 19, NK = N * K };
    const real *x = reals(NK, 1), *y = reals(NK, 2), *a = reals(K, 3), *b = reals(K, 4);
    const real *e = reals(K, 5);
    const int tokens[N] = {2, 0, 2, 1, 2};
    real out[3][NK];
    double want[3][NK];

    embed_forward(out[0], x, tokens, N, K);
    mix_forward(out[1], x, y, a, b, e, N, K);
    gate_forward(out[2], x, y, a, N, K);
    for (int i = 0; i < NK; i++) {
        const double xi = (double)x[i], yi = (double)y[i], ai = (double)a[i % K];
        want[0][i] = (double)x[tokens[i / K] * K + i % K];
        want[1][i] = ai * xi + (double)b[i % K] * yi + (double)e[i % K];
        want[2][i] = xi + ai * yi;
    }
    const char *const names[] = {"embedding", "input injection", "gate"};
    for (int k = 0; k < 3; k++)
        CHECK(worst_of(out[k], want[k], NK) <= EPS, "%s: off by %.3g", names[k],
              worst_of(out[k], want[k], NK));
}

/* Number by number, large ones too, whose e^-x is no number. */
static void test_activations(void) {
    enum { N = 5, F = 19, NF = N * F };
    real *f = reals(NF, 1), *gate = reals(NF, 2), *out = reals(NF, 0);
    double want[NF];
    const real large[] = {0, -0.0, 50, -50, 100, -100, 1e4, -1e4};
    for (int i = 0; i < 8; i++) f[3 * i] = gate[3 * i + 1] = large[i];

    for (int act = ACT_RELU2; act <= ACT_SWIGLU; act++) {
        double most = 0;
        activations[act].forward(out, f, gate, N, F);
        for (int i = 0; i < NF; i++)
            want[i] = naive_act(act, (double)f[i], (double)gate[i]);
        for (int i = 0; i < NF; i++) {
            const double off = fabs((double)out[i] - want[i]);
            most = worse(most, off / (1 + fabs(want[i])));
        }
        CHECK(most <= EPS, "activation %d: off by %.3g", act, most);
    }
}

/* Queries and keys: a norm per head without gain, a gain per query head, RoPE. Tokens
 * n0, n0 + 1, .. of rows of T = 5, with pos0 tokens before each row. */
static void check_rope(const char *arm, int turned) {
    enum { N = 9, T = 5, POS0 = 3, N0 = 2, H = 3, KV = 1, D = 12, OUT = (H + KV) * D };
    enum { LD = OUT + KV * D };
    Golf m;
    char text[200];
    snprintf(text, sizeof text, "vocab=8 width=36 heads=3 kv_heads=1 seq=16 repeat=1 %s",
             arm);
    new_model(&m, text, 16);
    const real *x = reals(N * LD, 1), *gain = reals(H, 2);
    real out[N * OUT];
    double want[N * OUT], ones[D];
    for (int i = 0; i < D; i++) ones[i] = 1;
    qk_forward(out, x, LD, gain, m.rope, POS0, N0, N, T, H, KV, D);
    for (int n = 0; n < N; n++)
        for (int h = 0; h < H + KV; h++) {
            double *w = want + n * OUT + h * D;
            naive_rmsnorm(w, doubles(x + n * LD + h * D, D), ones, D);
            for (int i = 0; i < D; i++) w[i] *= h < H ? (double)gain[h] : 1;
            naive_rope(w, POS0 + (N0 + n) % T, D, turned);
        }
    CHECK(worst_of(out, want, N * OUT) <= EPS, "%s: q and k: off by %.3g", arm,
          worst_of(out, want, N * OUT));
    golf_free(&m);
}

static void test_rope(void) {
    enum { D = 6 };
    check_rope("rope=full", 12);
    check_rope("rope=half", 6);

    /* what RoPE is for: a query times a key depends on their distance alone */
    double q[D] = {1, -2, 3, 0.5, 1.5, -1}, k[D] = {2, 1, -1, 0.25, -3, 1};
    double q2[D], k2[D], dot[2] = {0, 0};
    memcpy(q2, q, sizeof q);
    memcpy(k2, k, sizeof k);
    naive_rope(q, 7, D, D);
    naive_rope(k, 2, D, D);
    naive_rope(q2, 30, D, D);
    naive_rope(k2, 25, D, D);
    for (int i = 0; i < D; i++) {
        dot[0] += q[i] * k[i];
        dot[1] += q2[i] * k2[i];
    }
    CHECK(near(dot[0], dot[1], 1e-12), "distance 5: %.9g, then %.9g", dot[0], dot[1]);
}

/* Query i of Tq sees keys 0 .. Tk-Tq+i; query head h uses key/value head h / (H/KV). */
static void test_attention(void) {
    const int shapes[][6] = {{1, 1, 1, 1, 1, 2},     {2, 5, 5, 4, 2, 4},
                             {2, 6, 6, 4, 1, 2},     {1, 1, 9, 2, 2, 6},
                             {1, 3, 70, 2, 1, 10},   {1, 64, 64, 1, 1, 2},
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
        attention_forward(out, lse, q, (size_t)HD, k, (size_t)KVD, v, (size_t)KVD, B, Tq,
                          Tk, H, KV, D);
        for (int row = 0; row < B * Tq; row++)
            for (int h = 0; h < H; h++) {
                const int at = row * HD + h * D, keys = Tk - Tq + row % Tq + 1;
                const int kv = row / Tq * Tk * KVD + h / (H / KV) * D;
                const double l =
                    naive_attention(want + at, dq + at, dk + kv, dv + kv, KVD, keys, D);
                worst_lse = worse(worst_lse, fabs(l - (double)lse[row * H + h]));
            }
        CHECK(worst_of(out, want, n) <= EPS && worst_lse <= EPS,
              "attention, %d queries, %d keys, %d heads: off by %.3g, lse by %.3g", Tq,
              Tk, H, worst_of(out, want, n), worst_lse);
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

/* ------------------------------------------------------------------------------------
 * Gradients of layers, by differences */
/* A layer alone: out = f(in[0], in[1], ..), the loss is the sum of out * coef, so that
 * d(out) is coef. Gradients that add to what is there (`adds`) start at 1/4, others at
 * noise, which they must overwrite. */
typedef struct Layer {
    const char *name;
    void (*forward)(struct Layer *l);
    void (*backward)(struct Layer *l); /* d from in and coef */
    int N, K;                          /* rows and columns */
    int B, T, H, KV, D;                /* of attention and RoPE */
    int act;
    size_t n_out, n[5]; /* numbers of out and of each input */
    int adds[5];
    real *in[5], *d[5], *out, *coef, *r, *rope, *room;
    int *tokens;
} Layer;

enum { LAYER_N = 70, LAYER_K = 6, LAYER_V = 9, LAYER_NK = LAYER_N * LAYER_K };

static void layer_rmsnorm(Layer *l) {
    rmsnorm_forward(l->out, l->r, l->in[0], l->in[1], l->N, l->K);
}

static void layer_rmsnorm_d(Layer *l) { /* dx adds or not */
    rmsnorm_backward(l->d[0], l->adds[0], l->d[1], l->coef, l->in[0], l->r, l->in[1],
                     l->N, l->K);
}

static void layer_embed(Layer *l) {
    embed_forward(l->out, l->in[0], l->tokens, l->N, l->K);
}

static void layer_embed_d(Layer *l) {
    embed_backward(l->d[0], l->coef, NULL, l->tokens, l->N, l->K);
}

static void layer_mix(Layer *l) {
    mix_forward(l->out, l->in[0], l->in[1], l->in[2], l->in[3], l->in[4], l->N, l->K);
}

static void layer_mix_d(Layer *l) {
    memcpy(l->d[0], l->coef, l->n_out * sizeof(real));
    mix_backward(l->d[0], l->d[1], l->d[2], l->d[3], l->d[4], l->in[0], l->in[1],
                 l->in[2], l->in[3], l->N, l->K);
}

static void layer_qk(Layer *l) {
    const int QKV = (l->H + 2 * l->KV) * l->D;
    qk_forward(l->out, l->in[0], QKV, l->in[1], l->rope, 0, 0, l->N, l->T, l->H, l->KV,
               l->D);
}

/* The values do not pass through here: their columns must stay as they are. */
static void layer_qk_d(Layer *l) {
    const int QK = (l->H + l->KV) * l->D, QKV = QK + l->KV * l->D;
    const real *before = copied(l->d[0], l->n[0]);
    int untouched = 1;

    qk_backward(l->d[0], l->d[1], l->coef, l->in[0], QKV, l->in[1], l->rope, 0, l->N,
                l->T, l->H, l->KV, l->D);
    for (size_t i = 0; i < l->n[0]; i++) {
        if ((int)(i % (size_t)QKV) < QK) continue;
        untouched &= l->d[0][i] == before[i];
        l->d[0][i] = 0;
    }
    CHECK(untouched, "qk_backward wrote to the values");
}

static void layer_attention(Layer *l) {
    const size_t q = (size_t)(l->H * l->D), kv = (size_t)(l->KV * l->D);
    attention_forward(l->out, l->r, l->in[0], q, l->in[1], kv, l->in[2], kv, l->B, l->T,
                      l->T, l->H, l->KV, l->D);
}

static void layer_attention_d(Layer *l) {
    const size_t q = (size_t)(l->H * l->D), kv = (size_t)(l->KV * l->D);
    attention_backward(l->d[0], q, l->d[1], kv, l->d[2], kv, l->coef, l->r, l->in[0], q,
                       l->in[1], kv, l->in[2], kv, l->B, l->T, l->H, l->KV, l->D);
}

static void layer_act(Layer *l) {
    activations[l->act].forward(l->out, l->in[0], l->in[1], l->N, l->K);
}

static void layer_act_d(Layer *l) {
    memcpy(l->d[0], l->coef, l->n_out * sizeof(real));
    activations[l->act].backward(l->d[0], l->d[1], l->in[0], l->in[1], l->N, l->K);
}

/* coef stands for h, to which g * y is added. */
static void layer_gate(Layer *l) {
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
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK, LAYER_K},
     .adds = {0, 1}},
    {.name = "RMSNorm, added", .forward = layer_rmsnorm, .backward = layer_rmsnorm_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK, LAYER_K},
     .adds = {1, 1}},
    {.name = "embedding", .forward = layer_embed, .backward = layer_embed_d,
     .N = LAYER_N, .K = 20, .n_out = LAYER_N * 20, .n = {LAYER_V * 20}, .adds = {1}},
    {.name = "input injection", .forward = layer_mix, .backward = layer_mix_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK,
     .n = {LAYER_NK, LAYER_NK, LAYER_K, LAYER_K, LAYER_K}, .adds = {0, 1, 1, 1, 1}},
    {.name = "relu^2", .forward = layer_act, .backward = layer_act_d, .act = ACT_RELU2,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK}},
    {.name = "relu", .forward = layer_act, .backward = layer_act_d, .act = ACT_RELU,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK}},
    {.name = "silu", .forward = layer_act, .backward = layer_act_d, .act = ACT_SILU,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK}},
    {.name = "swiglu", .forward = layer_act, .backward = layer_act_d, .act = ACT_SWIGLU,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK, LAYER_NK}},
    {.name = "gate", .forward = layer_gate, .backward = layer_gate_d,
     .N = LAYER_N, .K = LAYER_K, .n_out = LAYER_NK, .n = {LAYER_NK, LAYER_K},
     .adds = {0, 1}},
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
    Layer qk = {
        .name = "q and k", .forward = layer_qk, .backward = layer_qk_d, .rope = m.rope};
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
    const int shapes[][5] = {{1, 1, 1, 1, 2},  {2, 5, 4, 2, 4},
                             {2, 6, 4, 1, 2},  {1, 64, 1, 1, 2},
                             {1, 67, 2, 1, 2}, {1, 130, 1, 1, 2}}; /* B T H KV D */

    for (size_t i = 0; i < COUNT(shapes); i++) {
        const int *s = shapes[i], n = s[0] * s[1];
        Layer l = {.name = "attention",
                   .forward = layer_attention,
                   .backward = layer_attention_d};
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

    freeze_rows(m, LIVE); /* what training computes, with codes in integers */
    const double live = projection_sum(l);
    freeze_rows(m, RECORD);
    const double recorded = projection_sum(l);
    CHECK(near(live, recorded, 1e-9), "%s: frozen projection differs", text);
    freeze_rows(m, REPLAY);
    projection_sum(l);

    real *dx = reals((size_t)(N * C), 13);
    const size_t at = m->tensor[T_wqkv].at + (size_t)(QKV + first) * (size_t)C;
    const size_t n = (size_t)(rows * C);
    set_all(m->grad, m->n_params, 0.25);
    linear_dx(m, dx, mat(l->coef, (size_t)QKV), T_wqkv, 1, l->range, N);
    const Gemm dw = linear_dw(m, mat(l->coef, (size_t)QKV), in, T_wqkv, 1, l->range, N);
    gemm_all(&dw, 1);
    for (size_t i = 0; i < n; i++) m->grad[at + i] -= (real)0.25;

    const double ex = grad_error(l->x, dx, (size_t)(N * C), projection_sum, l);
    const double ew = grad_error(m->master + at, m->grad + at, n, projection_sum, l);
    CHECK(ex <= GRAD_TOL && ew <= GRAD_TOL, "%s: errors %.3g %.3g", text, ex, ew);
}

static void test_projection_gradient(void) {
    const char *const arms[] = {
        "wq=none aq=none",    "wq=ternary aq=none",         "wq=none aq=int8",
        "wq=ternary aq=int8", "wq=int5 aq=int4 wscale=row", "extra_norm=each kv_heads=1"};

    for (size_t a = 0; a < COUNT(arms); a++) {
        char text[256];
        Projection l = {.N = 6};
        int first;
        snprintf(text, sizeof text, "vocab=8 width=8 heads=2 seq=8 unique=2 repeat=1 %s",
                 arms[a]);
        new_frozen_model(&l.m, text, (size_t)l.N);
        l.n_out = (size_t)l.N * (size_t)l.m.tensor[T_wqkv].rows;
        for (l.range = 0; l.range < 3; l.range++) {
            const int rows = row_range(&l.m, T_wqkv, l.range, &first);
            if (rows) check_projection(&l, first, rows, arms[a]);
        }
        golf_free(&l.m);
    }
}

/* ------------------------------------------------------------------------------------
 * The whole model */
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
        "gain=scalar extra_norm=none", /* a norm behind it takes its gradient to 0 */
        "gate=none",
        "gate=scalar",
        "qgain=none",
        "qgain=scalar",
        "xgain=none",
        "xgain=scalar",
        "extra_norm=none",
        "extra_norm=each",
        "extra_norm=each kv_heads=1 unique=2 repeat=1 wq=none aq=none",
        "embed_bits=3",
        "embed_bits=4",
        "embed_bits=16 repeat=3 extra_norm=each phase_embed=1",
        "phase=0 repeat=3",
        "phase=0 unique=2 repeat=2 gate=scalar",
        "phase_embed=1",
        "heads=4 kv_heads=2",
        "heads=4 kv_heads=1 wq=none",
        "hidden=24 unique=2 repeat=1",
        "act=relu",
        "act=relu extra_norm=none wq=none aq=none unique=2 repeat=1",
        "act=silu extra_norm=each",
        "act=swiglu",
        "act=swiglu extra_norm=each unique=2 prelude=1 wscale=row",
        "act=swiglu extra_norm=none hidden=16 wq=int4 aq=none recompute=1",
        "rope=half",
        "rope=half heads=1 kv_heads=1 act=relu",
        "wq=none aq=none",
        "wq=none",
        "aq=none",
        "aq=int4",
        "wq=int3 unique=2",
        "wq=int4",
        "wq=int8 aq=none",
        "wscale=row extra_norm=each",
        "wscale=group unique=2 repeat=1",
        ("wq=none aq=none extra_norm=none gain=none gate=none mix=none qgain=none "
         "embed_bits=16"),
        "seq=24 mlp=1 phase_embed=1", /* 48 tokens: two chunks, two of the head */
    };
    for (size_t a = 0; a < COUNT(arms); a++) check_gradients(arms[a], NULL);
}

/* The drawing at the top of train_golf.c as plain loops over one sequence of T tokens:
 * T*C numbers of the stream h, of x0 and of what a branch computes. Weights are what
 * is stored (eff). */
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
    if (p >= c->unique * c->repeat)
        return c->prelude + c->unique + p - c->unique * c->repeat;
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
static void naive_project(const Naive *s, double *y, const double *x, int tensor,
                          int first, int rows) {
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

/* h = mix0*h + mix1*x0 + phase_embed;  qkv = Wqkv (RMSNorm(h) * g_attn), q and k
 * normed, turned */
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
        naive_project(s, s->qkv[t] + first[r], normed, T_wqkv, first[r],
                      first[r + 1] - first[r]);
    }

    for (int i = 0; i < D; i++) ones[i] = 1;
    for (int j = 0; j < c->heads + kv_heads(c); j++) {
        double *x = s->qkv[t] + j * D;
        naive_rmsnorm(x, x, ones, D);
        if (j < c->heads)
            for (int i = 0; i < D; i++) x[i] *= naive_vector(s, T_q_gain)[j];
        naive_rope(x, t, D, c->rope == ROPE_HALF ? D / 2 : D);
    }
}

/* h += gate_attn * Wo (RMSNorm(att) * x_attn) */
static void naive_output(Naive *s, int t) {
    const Config *c = &s->m->config;
    double o[NAIVE_C];
    if (c->extra_norm >= XN_OUT) naive_norm(s, s->att[t], T_x_attn);
    naive_project(s, o, s->att[t], T_wo, 0, c->width);
    for (int i = 0; i < c->width; i++)
        s->h[t][i] += naive_vector(s, T_gate_attn)[i] * o[i];
}

/* h += gate_mlp * Wdown (RMSNorm(act(Wup (RMSNorm(h) * g_mlp))) * x_mlp) */
static void naive_mlp(Naive *s, int t) {
    const Config *c = &s->m->config;
    const int C = c->width, F = hidden_width(c);
    double u[NAIVE_C], f[NAIVE_F], gate[NAIVE_F] = {0}, y[NAIVE_C];

    memcpy(u, s->h[t], sizeof u);
    naive_norm(s, u, T_g_mlp);
    if (c->extra_norm == XN_EACH) naive_norm(s, u, T_x_up);
    naive_project(s, f, u, T_wup, 0, F);
    if (c->act == ACT_SWIGLU) naive_project(s, gate, u, T_wgate, 0, F);
    for (int i = 0; i < F; i++) f[i] = naive_act(c->act, f[i], gate[i]);
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
    const char *const arms[] = {
        "wq=none aq=none embed_bits=16",
        "aq=none",
        "wq=int4 aq=int4 wscale=row",
        "extra_norm=each unique=2 repeat=2 order=sequence prelude=1",
        "extra_norm=none gain=none phase=0 unique=2 coda=1 gate=scalar aq=none",
        "phase_embed=1 qgain=none mix=scalar kv_heads=1 hidden=40",
        "act=relu aq=none",
        "act=silu extra_norm=none aq=none rope=half",
        "act=swiglu aq=none unique=2 repeat=2",
        "act=swiglu extra_norm=each rope=half kv_heads=1"};
    enum { B = 3, T = NAIVE_T, V = 31 };
    const int *x = tokens_below(V, B * T, 1), *y = tokens_below(V, B * T, 2);

    for (size_t a = 0; a < COUNT(arms); a++) {
        char text[512];
        double want = 0;
        Golf m;
        snprintf(text, sizeof text, "vocab=31 width=16 heads=2 mlp=2 seq=12 repeat=2 %s",
                 arms[a]);
        new_model(&m, text, B * T);
        stir(&m);
        golf_quantize(&m);
        const double loss = golf_forward(&m, x, y, B, T);
        for (int b = 0; b < B; b++)
            want += naive_model(&m, x + b * T, y + b * T, T) / (B * T);
        double tolerance = 10 * EPS;
        /* a float at the edge between two codes may fall on either side */
        if (!DOUBLE && m.inputs[T_wo]->top) tolerance = 3e-3;
        CHECK(near(loss, want, tolerance), "%s: loss %.9g, by definition %.9g", arms[a],
              loss, want);
        golf_free(&m);
    }
}

/* Which block a phase uses: with other weights in block b the first phase that uses it
 * computes something else, and none before it. */
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
        snprintf(text, sizeof text, "vocab=16 width=16 heads=2 seq=8 %s",
                 rows[r].options);
        new_model(&m, text, T);
        golf_forward(&m, x, NULL, 1, T);
        CHECK(m.phases == rows[r].phases, "%s: %d phases", text, m.phases);
        real *before[8];
        for (int p = 0; p < m.phases; p++) before[p] = copied(m.phase[p].out, T * C);
        for (int b = block_count(&m.config) - 1; b >= 0; b--) {
            const Tensor *t = m.tensor + T_wup;
            int first = 0;
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
    const char *text =
        "vocab=16 width=16 heads=2 seq=8 repeat=3 phase_embed=1 extra_norm=each";
    new_model(&m, text, T);
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

/* Gradients of float numbers, by the codes that they have in training and in fp32. */
static void check_gradients_in_codes(const char *arm) {
    enum { N = 96 };
    const int *x = tokens_below(300, N, 1), *y = tokens_below(300, N, 2);
    char text[300];
    Golf m, exact;

    for (int i = 0; i < 2; i++) {
        Golf *g = i ? &exact : &m;
        snprintf(text, sizeof text,
                 "vocab=300 width=40 heads=2 mlp=2 seq=32 repeat=2 unique=2 %s bwd=%s",
                 arm, i ? "fp32" : "int16");
        new_model(g, text, N);
        for (size_t k = 0; k < g->n_params; k++) g->master[k] += (real)0.05 * noise(7, k);
        golf_quantize(g);
        golf_forward(g, x, y, 3, 32);
        golf_backward(g, x, 3, 32);
    }
    EACH_TENSOR(t, &m) {
        if (!is_stored(t)) continue;
        const double apart = distance(exact.grad + t->at, m.grad + t->at, t->n);
        CHECK(apart > 0 && apart < 1e-3, "%s: gradient of %s, in codes and in fp32: %.3g",
              arm, t->name, apart);
    }
    golf_free(&m);
    golf_free(&exact);
}

static void test_gradients_in_codes(void) {
    static const char *const arms[] = {
        "", "wq=int4 extra_norm=each kv_heads=1", "wq=int8 embed_bits=8 wscale=row",
        "act=swiglu aq=int4 wscale=row", "aq=none extra_norm=none"};
    for (size_t i = 0; i < COUNT(arms); i++) check_gradients_in_codes(arms[i]);
}

/* Gradients of 1,300 tokens, more than the head takes at a time, are the mean of those
 * of their two halves; recomputing the forward pass on the way back changes no bit. */
static void test_large_batch(void) {
    enum { N = 1300, B = 20, T = 65 };
    const char *text =
        "vocab=300 width=24 heads=2 mlp=2 seq=65 repeat=3 unique=2 prelude=1 "
        "extra_norm=each phase_embed=1 ";
    char again[256];
    Golf m, r;
    const int *x = tokens_below(300, N, 1), *y = tokens_below(300, N, 2);

    new_model(&m, text, N);
    snprintf(again, sizeof again, "%s recompute=1", text);
    new_model(&r, again, N);
    const double loss = golf_forward(&m, x, y, B, T);
    const double loss_r = golf_forward(&r, x, y, B, T);
    golf_backward(&m, x, B, T);
    golf_backward(&r, x, B, T);
    CHECK(loss == loss_r && same_reals(m.grad, r.grad, m.n_params),
          "recompute=1 differs");

    real *halves = reals(m.n_params, 0);
    double loss_halves = 0;
    for (int half = 0; half < 2; half++) {
        const int at = half * N / 2;
        loss_halves += golf_forward(&r, x + at, y + at, B / 2, T) / 2;
        golf_backward(&r, x + at, B / 2, T);
        for (size_t i = 0; i < m.n_params; i++) halves[i] += r.grad[i] / 2;
    }
    const double apart = distance(m.grad, halves, m.n_params);
    /* In codes a half has fractions of its own: those of its largest step. */
    CHECK(near(loss, loss_halves, EPS) && apart < (DOUBLE ? EPS : 1e-4),
          "1,300 tokens against two halves: loss %.3g, gradients %.3g",
          loss - loss_halves, apart);
    golf_free(&m);
    golf_free(&r);
}

/* ------------------------------------------------------------------------------------
 * Quantizers: what is stored */
/* mean|w| = 8/8 = 1: the codes are rint(w) clipped; 0.5 is a tie, to the even 0. */
static void test_ternary(void) {
    const Tensor t = tensor_of("wq=ternary", "wo", 2, 4);
    const Tensor big = tensor_of("wq=ternary", "wo", 64, 64);
    const Quantizer *q = t.quant;
    const real w[] = {0.5, -0.5, 1.5, -1.5, 2, -2, 0, 0};
    static real huge[4096];
    int8_t code[4096];
    real s;
    int nonzero = 0;

    q->quantize(code, &s, NULL, w, &t);
    CHECK(s == 1 && !memcmp(code, "\0\0\1\377\1\377\0\0", 8), "ternary values: scale %g",
          (double)s);
    q->quantize(code, &s, NULL, huge, &big);
    CHECK(s == from_bf16(to_bf16((real)1e-5)) && !code[0] && !code[5], "all zero: %g",
          (double)s);

    for (int i = 0; i < 4096; i++) huge[i] = (real)(i == 77 ? 1e6 : 1e-3 * (i % 3 - 1));
    q->quantize(code, &s, NULL, huge, &big);
    for (int i = 0; i < 4096; i++) nonzero += code[i] != 0;
    CHECK(code[77] == 1 && nonzero == 1 && near((double)s, 1e6 / 4096, 1),
          "one huge value");
    /* NaN: codes and scale stay finite; golf_step stops a run before this matters */
    huge[5] = (real)NAN;
    q->quantize(code, &s, NULL, huge, &big);
    CHECK(abs(code[5]) <= 1 && isfinite(s) && s > 0, "NaN: scale %g", (double)s);
}

/* The rule, and ragged lengths through packing and back. */
static void check_ternary_of(int n) {
    const Tensor t = tensor_of("wq=ternary", "wo", 1, n);
    const Quantizer *q = t.quant;
    const real *w = reals((size_t)n, (uint64_t)n);
    int8_t code[64], back[64];
    real s, s2, eff[64];
    uint8_t raw[64];
    double mean = 0;

    for (int i = 0; i < n; i++) mean += fabs((double)w[i]) / n;
    q->quantize(code, &s, NULL, w, &t);
    int good = near((double)s, mean, mean / 256) && bf16_exact(s);
    for (int i = 0; i < n; i++) {
        int want = w[i] > 0 ? 1 : -1;
        if (fabs((double)w[i] / (double)s) <= 0.5) want = 0;
        good &= code[i] == want;
    }

    memset(raw, 0xEE, sizeof raw);
    memset(back, 9, sizeof back);
    q->pack(raw, code, &s, &t);
    const size_t bytes = q->bytes(&t);
    good &= bytes == 2 + ((size_t)n + 4) / 5 && raw[bytes] == 0xEE && q->scales(&t) == 1;
    good &= q->unpack(back, &s2, raw, &t) && s2 == s && !memcmp(code, back, (size_t)n);
    q->dequantize(eff, back, &s2, &t);
    for (int i = 0; i < n; i++) good &= eff[i] == s * (real)code[i];
    good &= back[n] == 9;
    /* again: the same codes, but a smaller scale, so that files keep the scale */
    q->quantize(back, &s2, NULL, eff, &t);
    CHECK(good && !memcmp(code, back, (size_t)n) && s2 <= s, "ternary of %d numbers", n);
}

static void test_ternary_packing(void) {
    const Tensor t = tensor_of("wq=ternary", "wo", 1, 5);
    int8_t code[5];
    real s;
    uint8_t raw[8];
    int good = 1;

    for (int n = 1; n <= 40; n++) check_ternary_of(n);
    for (int b = 0; b < 256; b++) {
        const uint8_t in[] = {0x80, 0x3F, (uint8_t)b}; /* a scale of 1, then 5 trits */
        const int possible = t.quant->unpack(code, &s, in, &t);
        int value = 0; /* lowest trit first */
        for (int i = 5; i-- > 0;) value = 3 * value + code[i] + 1;
        good &= possible == (b < 243);
        if (!possible) continue;
        t.quant->pack(raw, code, &s, &t);
        good &= value == b && raw[2] == b && s == 1;
    }
    CHECK(good, "all bytes of 5 trits");

    /* 0, -0, -1, infinity, -infinity, NaN */
    const uint16_t bad[] = {0, 0x8000, 0xBF80, 0x7F80, 0xFF80, 0x7FC0};
    for (int i = 0; i < 6; i++) {
        const uint8_t in[] = {(uint8_t)bad[i], (uint8_t)(bad[i] >> 8), 121};
        CHECK(!t.quant->unpack(code, &s, in, &t), "a scale of %04x was accepted", bad[i]);
    }
}

/* Rows of integers, as the embedding is stored: one of zeros, one with a huge number,
 * one all -1. */
static void check_integers_of(int bits, int cols) {
    enum { ROWS = 5 };
    char text[32];
    snprintf(text, sizeof text, "embed_bits=%d", bits);
    const Tensor t = tensor_of(text, "embed", ROWS, cols);
    const Quantizer *q = t.quant;
    const int top = (1 << (bits - 1)) - 1;
    const size_t n = t.copy_n, bytes = q->bytes(&t);
    real *w = reals(n, (uint64_t)(cols + 100 * bits)), s[8], s2[8], eff[256];
    int8_t code[256], back[256];
    uint8_t raw[512];

    set_all(w + cols, (size_t)cols, 0);
    w[2 * cols] = (real)1e6;
    set_all(w + 3 * cols, (size_t)cols, -1);

    q->quantize(code, s, NULL, w, &t);
    memset(raw, 0xEE, sizeof raw);
    memset(back, 99, sizeof back);
    q->pack(raw, code, s, &t);
    int good = bytes == 2 * ROWS + (n * (size_t)bits + 7) / 8 && raw[bytes] == 0xEE;
    good &= q->scales(&t) == ROWS && q->unpack(back, s2, raw, &t);
    good &= !memcmp(code, back, n) && same_reals(s, s2, ROWS) && back[n] == 99;

    q->dequantize(eff, code, s, &t);
    for (size_t i = 0; i < n; i++) { /* half a step, and 2^-8 for the scale's rounding */
        const real scale = s[i / (size_t)cols];
        const double far = 0.5001 * (double)scale + fabs((double)w[i]) / 256;
        good &=
            abs(code[i]) <= top && eff[i] == scale * (real)code[i] && bf16_exact(scale);
        good &= near((double)eff[i], (double)w[i], far);
    }
    good &= code[2 * cols] == top && code[cols] == 0 && code[3 * cols] == -top;
    q->quantize(back, s2, NULL, eff, &t); /* nothing left to round */
    good &= !memcmp(code, back, n);
    for (int i = 0; i < ROWS; i++) good &= i == 1 || s2[i] == s[i];
    CHECK(good, "%d bits, rows of %d", bits, cols);

    for (size_t at = (n - 1) * (size_t)bits; at < n * (size_t)bits; at++)
        raw[2 * ROWS + at / 8] &= (uint8_t) ~(1 << at % 8); /* the code -2^(bits-1) */
    CHECK(!q->unpack(back, s2, raw, &t), "%d bits: the code 0 was accepted", bits);
}

/* Bits without gaps, the lowest first: -15, 0, 15 of 5 bits are 1, 16, 31, which is
 * 1 + 16 * 32 + 31 * 1024 = 0x7E01; the step of 1 stands before them as bf16. */
static void test_integers_by_hand(void) {
    const Tensor t = tensor_of("embed_bits=5", "embed", 1, 3);
    const real w[] = {-15, 0, 15};
    int8_t code[3];
    uint8_t raw[4];
    real s;

    t.quant->quantize(code, &s, NULL, w, &t);
    t.quant->pack(raw, code, &s, &t);
    CHECK(!memcmp(raw, "\x80\x3F\x01\x7E", 4), "-15, 0, 15: %02x %02x %02x %02x", raw[0],
          raw[1], raw[2], raw[3]);
}

static void test_integers(void) {
    int8_t code[8];
    real s;
    const real w[] = {127, 0.5, 1.5, 2.5, -0.5, -2.5}; /* absmax/127 = 1; ties to even */
    const real nan_row[] = {(real)NAN, 1, -2};         /* codes and scale stay finite */
    Tensor t = tensor_of("embed_bits=8", "embed", 1, 6);

    test_integers_by_hand();
    t.quant->quantize(code, &s, NULL, w, &t);
    CHECK(s == 1 && !memcmp(code, "\177\0\2\2\0\376", 6), "8 bits: scale %g", (double)s);
    t = tensor_of("embed_bits=8", "embed", 1, 3);
    t.quant->quantize(code, &s, NULL, nan_row, &t);
    CHECK(isfinite(s) && code[2] == -127 && code[1] == 64, "NaN: %g %d", (double)s,
          code[2]);
    for (int bits = 3; bits <= 8; bits++)
        for (int cols = 1; cols <= 41; cols += 1 + cols / 3)
            check_integers_of(bits, cols);
}

/* The interface, and weights in 16 bits. */
static void test_bf16(void) {
    enum { N = 35 };
    const Tensor t = tensor_of("embed_bits=16", "embed", 5, 7);
    const real *w = reals(N, 9);
    real x[N], y[N];
    uint8_t raw[2 * N];

    t.quant->quantize(NULL, x, NULL, w, &t);
    t.quant->pack(raw, NULL, x, &t);
    int good = t.quant->bytes(&t) == 2 * N && t.quant->unpack(NULL, y, raw, &t);
    good &= same_reals(x, y, N);
    for (int i = 0; i < N; i++)
        good &= bf16_exact(x[i]) &&
                near((double)x[i], (double)w[i], fabs((double)w[i]) / 256);
    put_u(raw + 20, 0x7F80, 2);
    CHECK(good && !t.quant->unpack(NULL, y, raw, &t), "bf16");
}

/* What shares a step: numbers [first, last) around number i of rows of K. */
static void group_around(const char *arm, int i, int rows, int K, int *first, int *last) {
    const int row = i / K * K;
    *first = row;
    *last = row + K;
    if (strstr(arm, "wscale=group")) {
        *first = row + i % K / 128 * 128;
        *last = MIN(*first + 128, row + K);
    } else if (strstr(arm, "ternary") && !strstr(arm, "wscale=row")) {
        *first = 0;
        *last = rows * K;
    }
}

/* Every grid that --wq and --wscale choose: weights by the formula,
 *     ternary:  mean|w| * clip(round(w / mean|w|), -1, 1)
 *     integers: max|w|/top * round(w * top/max|w|) */
static void test_grids(void) {
    enum { ROWS = 3, K = 300, N = ROWS * K };
    static const struct {
        const char *options;
        int top, scales;
    } rows[] = {{"wq=ternary", 1, 1},
                {"wq=ternary wscale=row", 1, 3},
                {"wq=ternary wscale=group", 1, 9},
                {"wq=int3", 3, 3},
                {"wq=int4", 7, 3},
                {"wq=int5 wscale=row", 15, 3},
                {"wq=int6 wscale=group", 31, 9},
                {"wq=int7", 63, 3},
                {"wq=int8 wscale=tensor", 127, 3}};
    const real *w = reals(N, 60);

    for (size_t a = 0; a < COUNT(rows); a++) {
        const char *arm = rows[a].options;
        const Tensor t = tensor_of(arm, "wo", ROWS, K);
        const int top = rows[a].top;
        int8_t code[N];
        real scale[16], eff[N];
        int good = t.copy_scales == (size_t)rows[a].scales;
        t.quant->quantize(code, scale, NULL, w, &t);
        t.quant->dequantize(eff, code, scale, &t);
        for (int i = 0; i < N; i++) {
            int first, last;
            double mean = 0, most = 0;
            group_around(arm, i, ROWS, K, &first, &last);
            for (int k = first; k < last; k++)
                mean += fabs((double)w[k]) / (last - first);
            for (int k = first; k < last; k++) most = fmax(most, fabs((double)w[k]));
            const double step = top == 1 ? mean : most / top, x = (double)w[i] / step;
            const double want = step * fmax(-top, fmin(top, rint(x)));
            /* the step is rounded to bf16: near an edge the code is free */
            const int edge = fabs(fabs(x) - floor(fabs(x)) - 0.5) < 0.004 * fabs(x);
            good &= near((double)eff[i], want, fabs(want) / 200 + (edge ? step : 0));
        }
        CHECK(good, "%s: a weight is not what its formula says, or %zu scales", arm,
              t.copy_scales);
    }
}

/* Inputs of projections: a step per token, ties to even; zeros; huge values. */
static void test_inputs(void) {
    const real a[12] = {127, 0.5, 1.5, -2.5, 0, 0, 0, 0, 1e6, 1, -1e6, (real)1e-3};
    int8_t code[480];
    real steps[40];

    act_quant(&(Act){.q = code, .step = steps}, a, 3, 4, 127);
    CHECK(!memcmp(code, "\177\0\2\376\0\0\0\0\177\0\201\0", 12), "input codes %d",
          code[3]);
    CHECK(steps[0] == 1 && near((double)steps[1] * 127, 1e-5, 1e-11) &&
              near((double)steps[2] * 127, 1e6, 1),
          "input steps %g", (double)steps[1]);

    const real *r = reals(480, 31);
    const int tops[] = {127, 7};
    for (int k = 0; k < 2; k++) {
        int good = 1;
        act_quant(&(Act){.q = code, .step = steps}, r, 40, 12, tops[k]);
        for (int i = 0; i < 480; i++) {
            const double step = (double)steps[i / 12];
            good &= abs(code[i]) <= tops[k] &&
                    near(code[i] * step, (double)r[i], 0.501 * step);
        }
        CHECK(good, "codes to %d: input error over half a step", tops[k]);
    }

    Golf m; /* aq=int4 leaves the down projection 8 bits */
    new_model(&m, "vocab=8 width=16 heads=2 seq=8 aq=int4", 0);
    CHECK(m.inputs[T_wqkv]->top == 7 && m.inputs[T_wup]->top == 7 &&
              m.inputs[T_wdown]->top == 127,
          "aq=int4: %d for wup, %d for wdown", m.inputs[T_wup]->top,
          m.inputs[T_wdown]->top);
    golf_free(&m);
}

/* The straight-through estimator is the identity, or what a mask leaves of it: d(w) =
 * d(eff) where the mask is 1. (Frozen forward passes use the same function: finite
 * differences alone would not see it forget the mask.) */
static void test_straight_through(void) {
    enum { N = 96 };
    const char *const arms[][2] = {{"wq=ternary", "wo"},
                                   {"wq=int3", "wo"},
                                   {"wq=int4", "wo"},
                                   {"wq=none", "wo"},
                                   {"embed_bits=5", "embed"}};
    uint8_t mask[N];
    const real *before = reals(N, 70);

    for (int i = 0; i < N; i++) mask[i] = hash64(71, (uint64_t)i) % 4 > 0;
    for (size_t a = 0; a < COUNT(arms); a++) {
        const Tensor t = tensor_of(arms[a][0], arms[a][1], 3, 32);
        real *d = copied(before, N);
        int good = 1;
        t.quant->backward(d, NULL, &t);
        CHECK(same_reals(d, before, N), "%s: the gradient is not passed on", arms[a][0]);
        t.quant->backward(d, mask, &t);
        for (int i = 0; i < N; i++) good &= d[i] == (mask[i] ? before[i] : 0);
        CHECK(good, "%s: the mask is not that of the gradient", arms[a][0]);
    }
}

/* ------------------------------------------------------------------------------------
 * Optimizers */
/* One round of Newton and Schulz on x (r,c), r <= c:
 * x <- (a + b A + c A^2) x with A = x x^T. */
static void naive_round(double *x, int r, int c) {
    static double a[64 * 64], b[64 * 64];
    double column[64];

    for (int i = 0; i < r; i++)
        for (int j = 0; j < r; j++) {
            a[i * r + j] = 0;
            for (int k = 0; k < c; k++) a[i * r + j] += x[i * c + k] * x[j * c + k];
        }
    for (int i = 0; i < r; i++)
        for (int j = 0; j < r; j++) {
            b[i * r + j] = -4.7750 * a[i * r + j] + (i == j ? 3.4445 : 0);
            for (int k = 0; k < r; k++)
                b[i * r + j] += 2.0315 * a[i * r + k] * a[k * r + j];
        }
    for (int j = 0; j < c; j++) {
        for (int i = 0; i < r; i++) column[i] = x[i * c + j];
        for (int i = 0; i < r; i++) {
            x[i * c + j] = 0;
            for (int k = 0; k < r; k++) x[i * c + j] += b[i * r + k] * column[k];
        }
    }
}

/* u (rows,cols): singular vectors stay, singular values become about 1. */
static void naive_orthogonal(double *u, int rows, int cols) {
    static double x[64 * 64];
    const int r = MIN(rows, cols), c = MAX(rows, cols);
    const int down = rows > cols ? 1 : cols; /* from row to row of x, in u */
    const int across = rows > cols ? cols : 1;
    double norm = 0;

    for (int i = 0; i < rows * cols; i++) norm += u[i] * u[i];
    for (int i = 0; i < r; i++)
        for (int j = 0; j < c; j++) x[i * c + j] = u[i * down + j * across] / sqrt(norm);
    for (int round = 0; round < 5; round++) naive_round(x, r, c);
    for (int i = 0; i < r; i++)
        for (int j = 0; j < c; j++) u[i * down + j * across] = x[i * c + j];
}

/* One tensor after a step of Muon from `before`: u is its momentum, made orthogonal
 * copy by copy, and (parts) rows of q, k and v apart. */
static void check_muon(const Golf *m, const Tensor *t, const real *before, double *u,
                       int parts) {
    const int C = m->config.width, side = MIN(t->rows / parts, t->cols);
    double worst = 0, trace = 0;

    for (int j = 0; j < t->stored_copies * parts; j++) {
        const int rows = t->rows / parts;
        const size_t n = (size_t)(rows * t->cols), at = t->at + (size_t)j * n;
        const double lr = 0.1 * sqrt(fmax(1, (double)rows / t->cols));
        naive_orthogonal(u + at, rows, t->cols);
        for (size_t i = at; i < at + n; i++) {
            const double want = (double)before[i] * 0.95 - lr * u[i];
            worst = worse(worst, fabs(want - (double)m->master[i]));
            trace += u[i] * u[i] / (t->stored_copies * parts * side);
        }
    }
    const double bound = m->config.bwd == BWD_INT16 ? 2e-3 : DOUBLE ? 1e-12 : 2e-5;
    CHECK(worst < bound, "Muon of %s, width %d: off by %.3g", t->name, C, worst);
    /* the mean square of the singular values */
    CHECK(trace > 0.6 && trace < 1.3, "Muon of %s: singular values %.3g", t->name, trace);
}

/* Two steps against their definition in plain loops. */
static void check_muon_steps(const char *bwd, int parts) {
    char text[256];
    Golf m;
    snprintf(text, sizeof text,
             "vocab=16 width=16 heads=2 mlp=3 unique=2 repeat=1 optimizer=muon "
             "lr_muon=0.1 momentum=0.9 warmup=0 warmdown=0 steps=9 wd=0.5 bwd=%s",
             bwd);
    new_model(&m, text, 8);
    m.tensor[T_wqkv].muon_parts = parts;
    double *momentum = xcalloc(m.n_params, sizeof(double));
    double *u = xcalloc(m.n_params, sizeof(double));
    for (int step = 0; step < 2; step++) {
        const real *before = copied(m.master, m.n_params);
        const real *second = copied(m.moment2, m.n_params);
        const double clipped = step ? 0.5 : 1;
        for (size_t i = 0; i < m.n_params; i++)
            m.grad[i] = noise((uint64_t)(90 + step), i);
        for (size_t i = 0; i < m.n_params; i++) {
            const double g = (double)m.grad[i] * clipped;
            momentum[i] = 0.9 * momentum[i] + 0.1 * g;
            u[i] = 0.9 * momentum[i] + 0.1 * g; /* Nesterov */
        }
        golf_muon(&m, step, clipped);
        EACH_TENSOR(t, &m) {
            if (!t->n) continue;
            if (t->role == PROJ)
                check_muon(&m, t, before, u, t == m.tensor + T_wqkv ? parts : 1);
            if (t->role != PROJ)
                CHECK(same_reals(before + t->at, m.master + t->at, t->n), "Muon moved %s",
                      t->name);
        }
        CHECK(same_reals(second, m.moment2, m.n_params), "Muon has no second moment");
    }
    free(momentum);
    free(u);
    golf_free(&m);
}

/* In numbers, and in codes of 12 bits. */
static void test_muon(void) {
    for (int parts = 1; parts <= 3; parts += 2) {
        check_muon_steps("fp32", parts);
        check_muon_steps("int16", parts);
    }
}

/* The weights after three steps on gradients of this size, with as small a --clip. */
static const real *steps_of_size(const char *text, double size) {
    Golf m;
    new_model(&m, text, 8);
    if (size < 1) m.config.clip = size;
    for (int step = 0; step < 3; step++) {
        for (size_t i = 0; i < m.n_params; i++)
            m.grad[i] = noise((uint64_t)(90 + step), i) / (real)sqrt((double)m.n_params);
        memset(m.grad + m.tensor[T_wup].at, 0, m.tensor[T_wup].n * sizeof(real));
        golf_adamw(&m, step, size);
        if (m.config.optimizer == OPT_MUON) golf_muon(&m, step, size);
    }
    const real *masters = copied(m.master, m.n_params);
    golf_free(&m);
    return masters;
}

/* What a step does depends on the direction of the gradient and not on its size, from
 * the least --clip to what float numbers hold; zeros (of wup) stay zeros. */
static void test_sizes_of_gradients(void) {
    static const struct {
        const char *optimizer;
        double size, tolerance;
    } rows[] = {{"adamw", 1e-3, 2e-5},
                {"adamw", 1e-6, 2e-5},
                {"adamw", 1e-9, 2e-5},
                {"adamw", 1e15, 1e-3}, /* without a limit epsilon is 1e-8 */
                {"muon bwd=fp32", 1e-3, 2e-5},
                {"muon bwd=fp32", 1e-6, 2e-5},
                {"muon bwd=fp32", 1e-30, 2e-5},
                {"muon bwd=fp32", 1e30, 2e-5},
                {"muon", 1e-9, 2e-3}, /* of products of 12 bits */
                {"muon", 1e15, 2e-3}};
    Golf m;

    for (size_t k = 0; k < COUNT(rows); k++) {
        char text[256];
        double worst = 0;
        snprintf(text, sizeof text,
                 "vocab=16 width=16 heads=2 mlp=3 repeat=2 warmup=0 warmdown=0 steps=9 "
                 "lr=0.1 lr_embed=0.1 lr_interface=0.1 lr_muon=0.1 optimizer=%s",
                 rows[k].optimizer);
        new_model(&m, text, 0);
        const int muon = m.config.optimizer == OPT_MUON;
        const Tensor *up = m.tensor + T_wup, *down = m.tensor + T_wdown;
        const size_t first = muon ? m.tensor[T_wqkv].at : 0;
        const size_t last = muon ? down->at + down->n : m.n_params;
        const real *one = steps_of_size(text, 1);
        const real *other = steps_of_size(text, rows[k].size);
        for (size_t i = first; i < last; i++)
            worst = worse(worst, fabs((double)(one[i] - other[i])));
        CHECK(worst < rows[k].tolerance, "%s, gradients of size %g: off by %.3g",
              rows[k].optimizer, rows[k].size, worst);
        CHECK(same_reals(other + up->at, m.master + up->at, up->n),
              "%s: a gradient of zeros moved its weights", rows[k].optimizer);
        golf_free(&m);
    }
}

static void test_muon_and_adamw(void) {
    Golf m;
    new_model(&m, "vocab=16 width=16 heads=2 unique=2 repeat=1 optimizer=muon", 8);
    const real *before = copied(m.master, m.n_params);
    for (size_t i = 0; i < m.n_params; i++) m.grad[i] = noise(90, i);
    golf_adamw(&m, 0, 1);
    EACH_TENSOR(t, &m) {
        if (!t->n) continue;
        const int same = same_reals(before + t->at, m.master + t->at, t->n);
        CHECK(same == (t->role == PROJ), "with optimizer=muon AdamW trains the rest: %s",
              t->name);
    }
    golf_free(&m);
}

static const char *const adamw_model =
    "vocab=8 width=8 heads=2 mlp=1 seq=8 repeat=1 batch=2 steps=100 warmup=0 warmdown=0 "
    "wd=0.1 lr=0.1 lr_embed=0.2 lr_interface=0.05 beta1=0.9 beta2=0.99";

/* g = 0.5, then -0.25, from w = 1:
 *   m = 0.1*0.5 = 0.05              v = 0.01*0.25 = 0.0025
 *   m/(1-0.9) = 0.5                 v/(1-0.99) = 0.25           step 0.5/0.5 = 1
 *   m = 0.9*0.05 - 0.025 = 0.02     v = 0.99*0.0025 + 0.01*0.0625 = 0.0031
 *   m/(1-0.81) = 0.1052632          v/(1-0.9801) = 0.1557789    step 0.26669943
 * Projections decay by 1 - 0.1*0.1 first:  0.99 - 0.1 = 0.89, then
 * 0.99*0.89 - 0.1*0.26669943 = 0.85443006. Embedding: 1 - 0.2 = 0.8, then
 * 0.8 - 0.2*0.26669943 = 0.74666011. Interface: 0.95, then
 * 0.95 - 0.05*0.26669943 = 0.93666503. */
static void test_adamw(void) {
    const double want[2][4] = {
        {[EMBED] = 0.8, [PROJ] = 0.89, [INTERFACE] = 0.95},
        {[EMBED] = 0.746660114, [PROJ] = 0.854430057, [INTERFACE] = 0.936665029}};
    Golf m;

    new_model(&m, adamw_model, 16);
    set_all(m.master, m.n_params, 1);
    for (int step = 0; step < 2; step++) {
        const double clipped = step ? 0.5 : 1;
        double worst = 0;
        set_all(m.grad, m.n_params, step ? -0.5 : 0.5);
        golf_adamw(&m, step, clipped);
        EACH_TENSOR(t, &m) {
            for (size_t i = t->at; i < t->at + t->n; i++)
                worst = worse(worst, fabs((double)m.master[i] - want[step][t->role]));
        }
        CHECK(worst <= (DOUBLE ? 1e-8 : 1e-6), "AdamW step %d: error %.3g", step, worst);
    }
    set_all(m.grad, m.n_params, 0.5);
    CHECK(near(golf_grad_norm(&m), 0.5 * sqrt((double)m.n_params), 1e-5),
          "gradient norm");
    golf_free(&m);
}

/* A row of the embedding moves when its token is there; the softmax alone, which pushes all
 * rows a little, moves it only as far as epsilon lets it. */
static void test_epsilon_of_embedding(void) {
    enum { V = 512, SEEN = 8, N = 64, C = 8 };
    static const char *const epsilon[] = {"1e-8", "0.1"};
    double moved[2][2] = {
        {0}}; /* by epsilon: rows of tokens that are there; that are not */
    for (int k = 0; k < 2; k++) {
        Golf m;
        char text[256];
        double norm;
        snprintf(
            text, sizeof text,
            "vocab=512 width=8 heads=2 mlp=1 seq=64 repeat=1 batch=1 steps=1 warmup=0 "
            "warmdown=0 eps_embed=%s",
            epsilon[k]);
        new_model(&m, text, N);
        real *before = xcalloc(V * C, sizeof(real));
        memcpy(before, m.master, V * C * sizeof(real));
        golf_step(&m, tokens_below(SEEN, N, 1), tokens_below(SEEN, N, 2), 0, &norm);
        for (int i = 0; i < V * C; i++)
            moved[k][i >= SEEN * C] += fabs((double)(m.master[i] - before[i])) /
                                       (i >= SEEN * C ? V - SEEN : SEEN);
        free(before);
        golf_free(&m);
    }
    CHECK(moved[0][1] > 0.9 * moved[0][0], "1e-8: %.3g for %.3g", moved[0][1],
          moved[0][0]);
    CHECK(moved[1][1] < 0.2 * moved[1][0], "0.1: %.3g for %.3g", moved[1][1],
          moved[1][0]);
}

/* First moments show the norm of the gradient: |m| = (1 - beta1) |g|. */
static void test_clipping(void) {
    for (int clip = 0; clip < 2; clip++) {
        Golf m;
        double norm, seen = 0;
        new_model(&m, adamw_model, 16);
        m.config.clip = clip ? 1e-3 : 0;
        golf_step(&m, tokens_below(8, 16, 1), tokens_below(8, 16, 2), 0, &norm);
        for (size_t i = 0; i < m.n_params; i++)
            seen += 100 * (double)m.moment1[i] * (double)m.moment1[i];
        CHECK(norm > 1e-3 && near(sqrt(seen) / (clip ? 1e-3 : norm), 1, 1e-5),
              "clip %d: norm %g became %g", clip, norm, sqrt(seen));
        golf_free(&m);
    }
}

static void test_schedules(void) {
    static const struct {
        int step;
        double linear, two_stage;
    } rows[] = {{0, 1.0 / 4, 1.0 / 4},
                {2, 3.0 / 4, 0.75 * 0.98},
                {3, 1, 0.97},
                {49, 1, 0.51},
                {50, 1, 0.5 * 2 / 3},
                {70, 1, 0.3 * 2 / 3},
                {71, 0.29 / 0.3, 0.29 * 2 / 3},
                {99, 0.01 / 0.3, 0.01 * 2 / 3}};
    Config c = config_of("steps=100 warmup=0.04 warmdown=0.3 wd=0.1");

    for (size_t i = 0; i < COUNT(rows); i++) {
        const int s = rows[i].step;
        c.schedule = SCHED_LINEAR;
        CHECK(near(lr_factor(&c, s), rows[i].linear, 1e-12), "linear at %d", s);
        CHECK(wd_at(&c, s) == 0.1, "linear decay at %d", s);
        c.schedule = SCHED_TWO_STAGE;
        CHECK(near(lr_factor(&c, s), rows[i].two_stage, 1e-12), "two_stage at %d", s);
        CHECK(wd_at(&c, s) == (s < 50 ? 0.1 : 0), "two_stage decay at %d", s);
    }

    c = config_of("steps=5 warmup=0 warmdown=0 wd=0.1 schedule=two_stage");
    CHECK(wd_at(&c, 2) == 0.1 && wd_at(&c, 3) == 0 && lr_factor(&c, 0) == 1, "odd steps");
    c.schedule = SCHED_LINEAR;
    CHECK(lr_factor(&c, 0) == 1 && lr_factor(&c, 4) == 1, "no warm-up, no warm-down");
    c = config_of("steps=1 warmup=1 warmdown=1");
    CHECK(lr_factor(&c, 0) == 1, "one step");
}

/* ------------------------------------------------------------------------------------
 * Training */
static void test_learning(void) {
    Golf m;
    int *x = tokens_below(512, 256, 1), *y = tokens_below(512, 256, 2), s = 0;
    double loss = 9, norm;

    new_model(&m, "vocab=512 width=64 seq=64 batch=4", 256);
    const double start = golf_forward(&m, x, y, 4, 64);
    CHECK(near(start / log(512), 1, 0.02), "initial loss %.4f, ln V = %.4f", start,
          log(512));
    golf_free(&m);

    new_model(&m,
              "vocab=32 width=32 heads=2 seq=16 batch=2 repeat=2 lr=0.01 lr_embed=0.02 "
              "lr_interface=0.02 warmup=0 warmdown=0 steps=600",
              32);
    x = tokens_below(32, 32, 1);
    y = tokens_below(32, 32, 2);
    while (s < 600 && !(loss < 0.05)) {
        loss = golf_step(&m, x, y, s, &norm);
        s++;
    }
    CHECK(loss < 0.05, "one batch is not learnt by heart: loss %.4f after %d steps", loss,
          s);
    CHECK(m.flips > 0, "no ternary code ever changed");

    m.master[m.tensor[T_embed].at] = (real)INFINITY;
    golf_quantize(&m);
    DIES("divergence", "training diverged|checkpoint|--lr", run_steps(&m, s, s + 1));
    DIES("a huge gradient", "norm 1e+19|diverged", stop_if_diverged(3, 1, 1e19, 1));
    DIES("no loss", "loss inf|diverged", stop_if_diverged(3, (double)INFINITY, 1, 1));
    DIES("no gradient", "norm nan|diverged", stop_if_diverged(3, 1, (double)NAN, 1));
    CHECK(STATUS(stop_if_diverged(3, 1, 1e19, 1e-19)) == 0, "clipped: %s", message);
    m.master[m.n_params - 1] = (real)NAN;
    m.master[m.tensor[T_embed].at] = 1;
    DIES("the last update", "step 7 |no numbers|diverged", stop_if_broken(&m, 7));
    m.master[m.n_params - 1] = 1;
    CHECK(STATUS(stop_if_broken(&m, 7)) == 0, "sound weights: %s", message);
    golf_free(&m);
}

/* The same bits whatever the number of threads. In the last arm all of them work at one matrix of
 * Muon's, from four on, and at the sums of the chunks. */
static void test_threads(void) {
    const char *const arms[] = {
        "width=64 heads=4 kv_heads=2 mlp=2 seq=128 repeat=2 batch=8 optimizer=adamw",
        "width=64 heads=4 kv_heads=2 mlp=2 seq=128 repeat=2 batch=8 optimizer=muon",
        "width=264 heads=4 mlp=4 seq=64 unique=1 repeat=1 batch=12 optimizer=muon",
        "width=64 heads=4 kv_heads=2 mlp=2 seq=64 repeat=2 batch=8 accum=4 optimizer=muon"};
    for (size_t a = 0; a < COUNT(arms); a++) {
        char text[256];
        const real *one = NULL;
        snprintf(text, sizeof text, "vocab=266 steps=10 %s", arms[a]);
        for (int t = 1; t <= TRIED_THREADS; t++) {
            Golf m;
            threads(t);
            new_model(&m, text, 1024);
            run_steps(&m, 0, 2);
            if (t == 1) one = copied(m.master, m.n_params);
            CHECK(same_reals(one, m.master, m.n_params), "%s: %d threads: other weights",
                  text, t);
            CHECK(omp_get_max_threads() < t || muon_one_by_one(&m) == (a == 2 && t == 4),
                  "%s: %d threads", text, t);
            golf_free(&m);
        }
    }
    threads(1);
}

/* By definition: the gradient of each of G groups, and their loss; then means of two neighbours,
 * until one is left. */
static double tree_of_groups(Golf *m, const int *x, const int *y, real **tree) {
    const Config *c = &m->config;
    const int rows = c->batch / c->accum, n = rows * c->seq;
    double loss[64];
    for (int g = 0; g < c->accum; g++) {
        loss[g] = golf_forward(m, x + g * n, y + g * n, rows, c->seq);
        golf_backward(m, x + g * n, rows, c->seq);
        tree[g] = copied(m->grad, m->n_params);
    }
    for (int left = c->accum / 2; left > 0; left /= 2)
        for (int g = 0; g < left; g++) {
            for (size_t i = 0; i < m->n_params; i++)
                tree[g][i] = (tree[2 * g][i] + tree[2 * g + 1][i]) * (real)0.5;
            loss[g] = (loss[2 * g] + loss[2 * g + 1]) * 0.5;
        }
    return loss[0];
}

/* A step in groups, in buffers for one, has the gradient of the tree, bit for bit, and up to
 * rounding that of the whole batch. */
static void test_groups(void) {
    enum { B = 16, T = 20, N = B * T };
    const int *x = tokens_below(266, N, 1), *y = tokens_below(266, N, 2);
    real *whole = NULL, *tree[B];
    double norm, loss_whole = 0;
    for (int groups = 1; groups <= B; groups *= 2) {
        char text[256];
        Golf m, twin;
        snprintf(
            text, sizeof text,
            "vocab=266 width=32 heads=2 mlp=2 seq=20 unique=2 repeat=2 batch=16 steps=9 "
            "optimizer=muon bwd=fp32 accum=%d",
            groups);
        threads(1 + groups % 3);
        new_model(&m, text, (size_t)(N / groups));
        new_model(&twin, text, (size_t)(N / groups));
        const double want = tree_of_groups(&twin, x, y, tree);
        const double loss = golf_step(&m, x, y, 0, &norm);
        if (groups == 1) {
            whole = tree[0];
            loss_whole = loss;
        }
        const double e = distance(m.grad, whole, m.n_params);
        CHECK(loss == want && same_reals(m.grad, tree[0], m.n_params),
              "--accum=%d: not the tree's gradient: loss %.17g, not %.17g", groups, loss,
              want);
        CHECK(e <= EPS && near(loss, loss_whole, EPS),
              "--accum=%d: the gradient of the batch is missed by %.3g", groups, e);
        golf_free(&m);
        golf_free(&twin);
    }
    threads(1);
    DIES("groups of unequal size", "--batch=6|multiple of --accum=4",
         config_of("batch=6 accum=4"));
    DIES("groups that no tree has", "--accum|1|2|4|8|16", config_of("batch=6 accum=3"));
}

/* Small and large tensors are quantized apart: every copy of each is, by its own rule. */
static void test_every_copy(void) {
    Golf m;
    new_model(&m, "vocab=266 width=264 heads=4 mlp=4 unique=2 repeat=1 phase_embed=1",
              64);
    for (size_t i = 0; i < m.n_params; i++) m.master[i] += (real)0.01 * noise(1, i);
    int8_t *code = xcalloc(m.n_params, 1);
    real *scale = reals(m.n_scales, 0), *eff = reals(m.n_params, 0);
    uint64_t flips = 0;
    EACH_TENSOR(t, &m) {
        const int copies = is_stored(t) ? t->stored_copies : 0;
        for (int j = 0; j < copies; j++) {
            const size_t at = t->at + (size_t)j * t->copy_n;
            real *s = scale + (scale_of(&m, t, j) - m.scale);
            t->quant->quantize(code + at, s, NULL, m.master + at, t);
            t->quant->dequantize(eff + at, code + at, s, t);
            for (size_t i = at; i < at + t->copy_n; i++)
                flips += t->role == PROJ && m.code[i] != code[i];
        }
    }
    m.flips = 0;
    golf_quantize(&m);
    CHECK(m.tensor[T_wup].copy_n >= LARGE && m.tensor[T_wqkv].copy_n < LARGE, "sizes");
    CHECK(!memcmp(code, m.code, m.n_params), "a code is not its rule's");
    CHECK(same_reals(scale, m.scale, m.n_scales), "a scale is not its rule's");
    CHECK(same_reals(eff, m.eff, m.n_params), "a weight is not its code");
    CHECK(flips > 0 && m.flips == flips, "%llu new codes of %llu",
          (unsigned long long)m.flips, (unsigned long long)flips);
    golf_free(&m);
    free(code);
}

/* Three steps, a checkpoint, three steps are six. */
static void test_resume(void) {
    const char *const optimizers[] = {"adamw", "muon", "muon accum=2"};
    for (size_t o = 0; o < COUNT(optimizers); o++) {
        char text[256];
        Golf m, b;
        snprintf(text, sizeof text,
                 "vocab=266 width=32 heads=2 mlp=2 seq=20 repeat=2 batch=4 "
                 "steps=10 optimizer=%s",
                 optimizers[o]);
        new_model(&m, text, 80);
        new_model(&b, text, 80);
        run_steps(&m, 0, 3);
        ckpt_save(&m, IN("ckpt.bin"), 3);
        run_steps(&m, 3, 6);
        const int step = (int)ckpt_load(&b, IN("ckpt.bin"));
        run_steps(&b, 3, 6);
        CHECK(step == 3 && m.flips == b.flips &&
                  same_reals(m.master, b.master, m.n_params) &&
                  same_reals(m.moment1, b.moment1, m.n_params) &&
                  same_reals(m.moment2, b.moment2, m.n_params),
              "%s, resumed from step %d: differs", optimizers[o], step);
        golf_free(&m);
        golf_free(&b);
    }
}

/* The model of the file is that in memory; all ways to store one: dev/check/files.c. */
static void test_export(void) {
    check_export("");
    check_export("wq=none aq=none unique=2 embed_bits=16");
}

/* ------------------------------------------------------------------------------------
 * Bits per byte, sampling */
static Shards *validation_of(const int *tokens, int n) {
    mkdir(IN("bpb"), 0777);
    write_shard(IN("bpb/x_val_000000.bin"), tokens, n);
    return shards_open(IN("bpb"), "val", HAND_VOCAB);
}

/* No space is counted after <s>, and <s> has no bytes, but its loss counts:
 *
 *     target:  _a  ab  _a  _a  <s> _a  ab  byte | _a  c  cc
 *     bytes:    1   2   2   2   0   1   2   1   |  2  1   2 */
static void test_bpb(void) {
    const int t[] = {1, SP_A, AB, SP_A, SP_A, 1, SP_A, AB, 4, SP_A, 103, CC};
    Golf m;

    write_hand_model(IN("b.model"));
    const Tokenizer *tok = tokenizer_load(IN("b.model"));
    Shards *val = validation_of(t, 12);
    new_model(&m, "vocab=266 width=16 heads=2 seq=8 repeat=2", 40);
    const double nll = 8 * golf_forward(&m, t, t + 1, 1, 8);

    Score s = golf_eval(&m, tok, val, 0, 0);
    CHECK(s.tokens == 8 && s.bytes == 11 && near(s.nll, nll, EPS) &&
              near(s.loss, nll / 8, EPS) &&
              near(s.bpb, nll / 0.69314718055994531 / 11, EPS),
          "a row of 8: %d tokens, %d bytes, %.9g nats", (int)s.tokens, (int)s.bytes,
          s.nll);
    s = golf_eval(&m, tok, val, 2, 0);
    CHECK(s.tokens == 11 && s.bytes == 16, "sliding: %d, %d bytes", (int)s.tokens,
          (int)s.bytes);
    golf_free(&m);
}

/* n tokens in windows of 8: every target once, from the first window that holds it. */
static void check_windows(Golf *m, Golf *one, const Tokenizer *tok, int n, int stride) {
    const int *r = tokens_below(HAND_VOCAB, (size_t)n, (uint64_t)n);
    const int step = stride ? stride : 8;
    const int total = stride ? n - 1 : (n - 1) / 8 * 8;
    Shards *val = validation_of(r, n);
    double sum = 0;
    int64_t bytes = 0;

    if (!total) {
        DIES("text under a row", "--seq=8", golf_eval(m, tok, val, 0, 0));
        return;
    }
    for (int i = 0; i < total; i++) { /* target i + 1 */
        const int from = i < 8 ? 0 : (i - 8) / step * step + step;
        golf_forward(m, r + from, r + from + 1, 1, i - from + 1);
        sum += (double)m->loss[i - from];
        bytes += tokenizer_bytes(tok, r[i], r[i + 1]);
    }

    Score s = golf_eval(m, tok, val, stride, 0);
    CHECK(s.tokens == total && s.bytes == bytes && near(s.nll, sum, EPS * total),
          "%d tokens, stride %d: %d of %d tokens, nll %.9g of %.9g", n, stride,
          (int)s.tokens, total, s.nll, sum);
    CHECK(s.nll == golf_eval(one, tok, val, stride, 0).nll,
          "stride %d: the loss depends on the rows per forward pass", stride);
    if (total < 16) return;
    s = golf_eval(m, tok, val, stride, 13);
    CHECK(s.tokens == (stride ? 13 : 8), "a prefix of 13: %d tokens", (int)s.tokens);
}

static void test_sliding_windows(void) {
    const int strides[] = {0, 1, 3, 8};
    Golf m, one; /* buffers for five rows, for one */

    write_hand_model(IN("b.model"));
    const Tokenizer *tok = tokenizer_load(IN("b.model"));
    new_model(&m, "vocab=266 width=16 heads=2 seq=8 repeat=2", 40);
    new_model(&one, "vocab=266 width=16 heads=2 seq=8 repeat=2", 8);
    for (int k = 0; k < 4; k++)
        for (int n = 2; n < 36; n += n < 20 ? 1 : 5)
            check_windows(&m, &one, tok, n, strides[k]);
    golf_free(&m);
    golf_free(&one);
}

/* A cache fed with a few tokens at a time gives the logits of the full forward pass. */
static double cached_decode_error(const char *arm) {
    enum { T = 16, V = HAND_VOCAB };
    char text[256];
    double worst = 0;
    Golf m, full;

    snprintf(text, sizeof text, "vocab=266 width=32 heads=2 seq=16 repeat=2 %s", arm);
    new_model(&full, text, T);
    new_model(&m, text, T);
    golf_cache(&m);
    for (int round = 0; round < 2; round++) { /* the second starts an emptied cache */
        const int *x = tokens_below(V, T, (uint64_t)(50 + round));
        int at = 0;
        m.cached = 0;
        while (at < T) {
            const int wanted = at ? 1 + at % 3 : 1 + 4 * round, n = MIN(wanted, T - at);
            golf_forward(&m, x + at, NULL, 1, n);
            golf_forward(&full, x, NULL, 1, at + n);
            for (int i = 0; i < n * V; i++) {
                const real e = m.logits[i] - full.logits[at * V + i];
                worst = worse(worst, fabs((double)e));
            }
            at += n;
        }
    }
    golf_free(&full);
    golf_free(&m);
    return worst;
}

static void test_cached_decode(void) {
    const char *const arms[] = {"", "wq=none aq=none",
                                "extra_norm=each kv_heads=1 phase_embed=1",
                                "act=swiglu rope=half"};
    for (size_t a = 0; a < COUNT(arms); a++) {
        const double e = cached_decode_error(arms[a]);
        CHECK(e <= 1e-4, "%s: cached decode: logits differ by %.3g", arms[a], e);
    }
}

/* What the program writes after "abc ab", 50 tokens drawn at temperature 1. */
static char *sample_of(Golf *m, const Tokenizer *tok, size_t *len) {
    char *out;
    FILE *f = open_memstream(&out, len);
    Config how = config_of("");
    strcpy(how.prompt, "abc ab");
    how.tokens = 50;
    how.temperature = 1;
    how.top_p = 1;
    how.seed = 4;
    golf_cache(m);
    golf_sample(m, tok, &how, f);
    fclose(f);
    return out;
}

/* The same from the full forward pass. That is three times the context: when it is full
 * its last half is kept. */
static void test_sampling(void) {
    enum { T = 16, V = HAND_VOCAB };
    Golf m, full, loaded;

    write_hand_model(IN("t.model"));
    const Tokenizer *tok = tokenizer_load(IN("t.model"));
    new_model(&m, "vocab=266 width=32 heads=2 seq=16 repeat=2 seed=3", T);
    new_model(&full, "vocab=266 width=32 heads=2 seq=16 repeat=2 seed=3", T);
    for (size_t i = 0; i < m.n_params; i++) m.master[i] += (real)0.3 * noise(60, i);
    memcpy(full.master, m.master, m.n_params * sizeof(real));
    golf_quantize(&m);
    golf_quantize(&full);

    int ids[64] = {1, ABC, SP, AB}, n = 4, from = 0;
    while (n < 54) {
        if (n - from > T) from = n - T / 2;
        golf_forward(&full, ids + from, NULL, 1, n - from);
        const double u = uniform01(4, (uint64_t)(n - 4));
        ids[n] = pick(full.logits + (size_t)(n - from - 1) * V, V, 1, 1, u);
        if (ids[n] == tok->bos) break;
        n++;
    }
    size_t want_len, len;
    const char *want = tokenizer_decode(tok, ids, (size_t)n, &want_len);
    const char *text = sample_of(&m, tok, &len);
    CHECK(n > 30 && len == want_len + 1 && !memcmp(text, want, want_len),
          "%d tokens: %s, not %s", n, text, want);

    golf_save(&m, IN("sample.golf"), tok->crc); /* from the file: weights of 2 bits */
    golf_load(&loaded, IN("sample.golf"));
    golf_buffers(&loaded, T);
    const char *again = sample_of(&loaded, tok, &len);
    CHECK(!strcmp(text, again), "the file says %s, memory %s", again, text);
    golf_free(&m);
    golf_free(&full);
    golf_free(&loaded);
}

/* p = .1 .2 .3 .4, best first: .4 up to u = .4, .3 up to .7, .2 up to .9 */
static void test_pick(void) {
    static const struct {
        double temperature, top_p, u;
        int want;
    } rows[] = {{0, 1, 0.99, 3}, {1, 1, 0.05, 3},  {1, 1, 0.45, 2},  {1, 1, 0.75, 1},
                {1, 1, 0.95, 0}, {1, 0.5, 0.5, 3}, {1, 0.5, 0.6, 2}, {1, 0.5, 0.99, 2},
                {1, 0, 0.99, 3}, {0.01, 1, 0.9, 3}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        real l[4];
        for (int k = 0; k < 4; k++) l[k] = (real)log(0.1 * (k + 1));
        const int got = pick(l, 4, rows[i].temperature, rows[i].top_p, rows[i].u);
        CHECK(got == rows[i].want, "pick, row %zu: %d instead of %d", i, got,
              rows[i].want);
    }
}

int main(void) {
    start_tests();
    run_test("RMSNorm", test_rmsnorm);
    run_test("small layers", test_small_layers);
    run_test("activations", test_activations);
    run_test("RoPE", test_rope);
    run_test("attention", test_attention);
    run_test("cross-entropy", test_cross_entropy);
    if (DOUBLE) {
        run_test("gradients: layers", test_layer_gradients);
        run_test("gradients: attention", test_attention_gradient);
        run_test("gradients: projections", test_projection_gradient);
        run_test("gradients: the model", test_model_gradients);
    }
    if (!DOUBLE) run_test("gradients in codes", test_gradients_in_codes);
    run_test("the model by definition", test_model_by_definition);
    run_test("order of blocks", test_block_order);
    run_test("order of phases", test_phase_order);
    run_test("large batch, recompute", test_large_batch);
    run_test("quantizers: ternary", test_ternary);
    run_test("quantizers: trits", test_ternary_packing);
    run_test("quantizers: integers", test_integers);
    run_test("quantizers: bf16", test_bf16);
    run_test("quantizers: grids", test_grids);
    run_test("quantizers: inputs", test_inputs);
    run_test("straight-through", test_straight_through);
    run_test("AdamW", test_adamw);
    run_test("AdamW: epsilon of the embedding", test_epsilon_of_embedding);
    run_test("Muon", test_muon);
    run_test("Muon and AdamW", test_muon_and_adamw);
    run_test("sizes of gradients", test_sizes_of_gradients);
    run_test("clipping", test_clipping);
    run_test("schedules", test_schedules);
    run_test("learning by heart", test_learning);
    run_test("threads", test_threads);
    run_test("groups", test_groups);
    run_test("quantize: every copy", test_every_copy);
    run_test("resume", test_resume);
    run_test("export", test_export);
    run_test("bits per byte", test_bpb);
    run_test("sliding windows", test_sliding_windows);
    run_test("cached decode", test_cached_decode);
    run_test("sampling", test_sampling);
    run_test("pick", test_pick);
    return end_tests("golf");
}
