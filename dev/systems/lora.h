/* lora.h - relaxed recursion (Relaxed Recursive Transformers, 2410.20672): for each phase
 * p a pair of low rank r says how it differs from the shared projection W:
 *
 *     y = W x + B[p] (A[p] x)            A (r,K), B (rows,r)
 *
 * The pair stands outside the quantizer of W and takes the inputs that W takes,
 * rounded ones. A starts random and B at 0, so that all phases start alike. In a model
 * made of a trained one by sharing its blocks, the pair is the best approximation of
 * rank r of what sharing took away: of what the donor multiplies with in phase p, less
 * Q(W). Its singular value decomposition, B = U S, A = V^T. The norms' gains and the
 * other vectors are those of a phase, or with --phase=0 tied like W, as in the paper.
 * Ranks may differ between projections: --lora=4 --lora_ranks=wup:8,wqkv:0 has pairs of
 * rank 8 on wup, none on wqkv, and of rank 4 on the others.
 *
 * Stored: r (K + rows) numbers for each projection and phase, in --lora_bits bits with
 * one scale for a whole matrix, counted as protected. AdamW trains them with --lr,
 * without weight decay. Cost for each projection and phase: 8 r (K + rows) FLOPs a
 * token, where a weight of W costs 6: A x and its gradient are computed twice. With
 * extra_norm=each q, k and v have inputs of their own: A of wqkv costs three times that.
 * Memory for the pairs, their gradients and moments, and 2 r numbers a token.
 *
 * Differs from the paper: W, its inputs and the pairs are quantized; a model may be
 * trained with pairs from scratch; q, k and v are one projection, with one A, and so
 * have one rank. */
#ifdef OPTIONS
X(MODEL, INT, lora, "0", "0 to 64", "rank of the pair that each phase adds")
X(MODEL, INT, lora_on, "all", "ffn|attn|all", "to which projections")
X(MODEL, STR, lora_ranks, "", "",
  "NAME:RANK,...: projections of another rank than --lora")
X(MODEL, INT, lora_bits, "8", "4 to 8|16", "one scale per matrix; bf16")

#elif defined TENSORS
/* LORA: n if there are pairs on the MLP (part 0) or on attention (part 1), else 0;
 * lora_on is 0, 1, or 2 for both. In the order of the projections: see pair_of. */
#define LORA(part, n) (c->lora && (c->lora_on == 2 || c->lora_on == (part)) ? (n) : 0)
X(la_qkv, PER_PHASE, c->lora, LORA(1, c->width), FACTOR, MODE_VECTOR, init_in(c))
X(lb_qkv, PER_PHASE, qkv_rows(c), LORA(1, c->lora), FACTOR, MODE_VECTOR, 0)
X(la_o, PER_PHASE, c->lora, LORA(1, c->width), FACTOR, MODE_VECTOR, init_in(c))
X(lb_o, PER_PHASE, c->width, LORA(1, c->lora), FACTOR, MODE_VECTOR, 0)
X(la_up, PER_PHASE, c->lora, LORA(0, c->width), FACTOR, MODE_VECTOR, init_in(c))
X(lb_up, PER_PHASE, hidden_width(c), LORA(0, c->lora), FACTOR, MODE_VECTOR, 0)
X(la_gate, PER_PHASE, c->lora, LORA(0, is_gated(c) * c->width), FACTOR, MODE_VECTOR,
  init_in(c))
X(lb_gate, PER_PHASE, gate_width(c), LORA(0, c->lora), FACTOR, MODE_VECTOR, 0)
X(la_down, PER_PHASE, c->lora, LORA(0, hidden_width(c)), FACTOR, MODE_VECTOR,
  1 / sqrt((double)hidden_width(c)))
X(lb_down, PER_PHASE, c->width, LORA(0, c->lora), FACTOR, MODE_VECTOR, 0)
#undef LORA

#elif defined LIST
X(lora)

#elif defined CODE
#include "shared/donor.h"
#include "shared/low_rank.h"

enum { LORA_FFN, LORA_ATTN, LORA_ALL };
enum { LORA_MOST = 64 }; /* the largest rank */

typedef struct {
    real *u, *du; /* (N,r) A x, and its gradient */
} Lora;

static int lora_is_on(const Config *c) { return c->lora; }

/* An item NAME:RANK of --lora_ranks: its length with the comma behind it, or 0. */
static int ranks_item(const char *p, char name[16], int *rank) {
    int n = 0;
    if (sscanf(p, "%15[a-z]:%d%n", name, rank, &n) != 2) return 0;
    if (*rank < 0 || *rank > LORA_MOST || (p[n] && p[n] != ',')) return 0;
    return n + (p[n] == ',');
}

/* What the list says of a projection: its rank, or -1. */
static int listed_rank(const Config *c, const char *projection) {
    char name[16];
    int rank, n;
    for (const char *p = c->lora_ranks; *p; p += n) {
        n = ranks_item(p, name, &rank);
        if (!n) return -1; /* see lora_check */
        if (!strcmp(name, projection)) return rank;
    }
    return -1;
}

static int has_pairs(const Config *c, const char *projection) {
    const int gate = !strcmp(projection, "wgate");
    const int ffn = gate || !strcmp(projection, "wup") || !strcmp(projection, "wdown");
    if (gate && !is_gated(c)) return 0;
    return c->lora_on == LORA_ALL || (c->lora_on == LORA_FFN) == ffn;
}

/* The rank of a projection's pairs, 0: it has none. */
static int rank_of(const Config *c, const char *projection) {
    const int listed = listed_rank(c, projection);
    if (!has_pairs(c, projection)) return 0;
    return listed < 0 ? c->lora : listed;
}

static void lora_check(const Config *c) {
    static const char *const names[] = {"wqkv", "wo", "wup", "wgate", "wdown"};
    enum { NAMES = COUNT(names) };
    char name[16];
    int rank, n, seen[NAMES] = {0}, most = 0;
    for (const char *p = c->lora_ranks; *p; p += n) {
        int k = 0;
        n = ranks_item(p, name, &rank);
        while (n && k < NAMES && strcmp(names[k], name)) k++;
        if (!n || k == NAMES || !has_pairs(c, name) || seen[k])
            die("--lora_ranks=%s: expected NAME:RANK,... each NAME once, of wqkv, wo, "
                "wup, wgate (swiglu), wdown and of --lora_on, RANK from 0 to %d; found '%.20s'",
                c->lora_ranks, LORA_MOST, p);
        seen[k] = 1;
    }
    for (int k = 0; k < NAMES; k++) most = MAX(most, rank_of(c, names[k]));
    if (!most) die("--lora_ranks=%s: no projection has a pair", c->lora_ranks);
}

static int lora_uses(const Config *c) {
    const int on_ffn = rank_of(c, "wup") + rank_of(c, "wgate") + rank_of(c, "wdown");
    const int on_attn = rank_of(c, "wqkv") + rank_of(c, "wo");
    return (on_ffn ? RES_MLP_ADDITIONS : 0) | (on_attn ? RES_ATTENTION_ADDITIONS : 0);
}

static int is_of_pair(const Tensor *t) {
    return !strncmp(t->name, "la_", 3) || !strncmp(t->name, "lb_", 3);
}

static int lora_store(const Golf *m, Tensor *t) {
    const int bits = m->config.lora_bits;
    if (!is_of_pair(t)) return 0;
    store_as(t, quantizers + (bits == 16 ? Q_BF16 : Q_INT), bits, SCALE_TENSOR);
    return 1;
}

static void lora_buffers(Golf *m, size_t N) {
    int rank = 0;
    if (!m->train) return;

    for (int k = T_la_qkv; k <= T_la_down; k += 2) rank = MAX(rank, m->tensor[k].rows);
    const size_t n = N * (size_t)rank;

    Lora *l = owned(m, 1, sizeof(Lora));
    l->u = owned_reals(m, n);
    l->du = owned_reals(m, n);
    m->own[SYS_lora] = l;
}

/* The tensor A of projection k, before B in the table, or NULL. */
static const Tensor *pair_of(const Golf *m, int k) {
    const Tensor *a = m->tensor + T_la_qkv + 2 * (k - T_wqkv);
    return k >= T_wqkv && k <= T_wdown && a->n ? a : NULL;
}

/* Panels of a tensor of the pair: as W, B has row ranges for q, k and v. */
static Packed *pair_packed(const Golf *m, const Tensor *t, int p, int r) {
    return packed_of(m, (int)(t - m->tensor), copy_of(m, t, p), r);
}

/* u = A x,  y += B u.  y (n,..) with stride ldy, u (n,r) */
static void lora_y(const Golf *m, real *y, size_t ldy, Mat x, int k, int p, int r,
                   int n) {
    const Tensor *a = pair_of(m, k);
    real u[CHUNK * LORA_MOST];
    int first;
    if (!a) return;

    row_range(m, k, r, &first);
    gemm_panels(u, a->rows, x, &pair_packed(m, a, p, 0)->forward, n, 0);
    y += first;
    gemm_panels(y, ldy, mat(u, a->rows), &pair_packed(m, a + 1, p, r)->forward, n, 1);
}

/* forward: u = A x,  y += B u;  du = dy B,  dx += du A.  dx (n,K) */
static void lora_dx(const Golf *m, real *dx, Mat dy, int k, int p, int r, int n) {
    const Tensor *a = pair_of(m, k);
    real du[CHUNK * LORA_MOST];
    int first;
    if (!a) return;

    row_range(m, k, r, &first);
    dy = mat_at(dy, 0, (size_t)first);
    gemm_panels(du, a->rows, dy, &pair_packed(m, a + 1, p, r)->back, n, 0);
    gemm_panels(dx, a->cols, mat(du, a->rows), &pair_packed(m, a, p, 0)->back, n, 1);
}

/* The projection to whose gradient the product w = dy^T x adds, or -1. */
static int projection_of(const Golf *m, const Gemm *w) {
    for (int k = T_wqkv; k <= T_wdown; k++) {
        const real *dw = m->grad + m->tensor[k].at;
        if (w->c >= dw && w->c < dw + m->tensor[k].n) return k;
    }
    return -1;
}

/* forward: u = A x,  y += B u;  dB += dy^T u,  dA += du^T x, over all N tokens; u and du
 * (N,r). w is the product dW += dy^T x of the same rows. */
static void lora_dw(const Golf *m, const Gemm *w, int p) {
    const Lora *l = m->own[SYS_lora];
    const int k = projection_of(m, w);
    const Tensor *a = pair_of(m, k);
    if (!a) return;

    const Tensor *t = m->tensor + k, *b = a + 1;
    const int rank = a->rows, rows = w->m, K = a->cols, N = w->k;
    const size_t first = ((size_t)(w->c - m->grad) - t->at) % t->copy_n / (size_t)K;
    const size_t A = a->at + (size_t)copy_of(m, a, p) * a->copy_n;
    const size_t B = b->at + (size_t)copy_of(m, b, p) * b->copy_n + first * (size_t)rank;
    Mat dy = w->a; /* of which it is the transpose */
    dy.trans = 0;
    gemm(l->u, rank, w->b, mat_t(m->eff + A, K), N, rank, K, 0);
    gemm(l->du, rank, dy, mat(m->eff + B, rank), N, rank, rows, 0);
    gemm(m->grad + B, rank, w->a, mat(l->u, rank), rows, rank, N, 1);
    gemm(m->grad + A, K, mat_t(l->du, rank), w->b, rank, K, N, 1);
}

static const Addition lora_addition = {.y = lora_y, .dx = lora_dx, .dw = lora_dw};

/* A pair for each phase, also where phases share the interface (--phase=0). */
static void lora_shape(Golf *m) {
    for (int k = T_wqkv; k <= T_wdown; k++) {
        Tensor *a = m->tensor + T_la_qkv + 2 * (k - T_wqkv), *b = a + 1;
        a->stored_copies = b->stored_copies = m->phases;
        a->rows = b->cols = rank_of(&m->config, m->tensor[k].name);
    }
    m->tensor[T_lb_qkv].split = 1;
    m->addition = &lora_addition;
}

/* B A of phase p: at this rank the nearest to what the donor multiplies with there, less
 * what this model does. */
static void fit_pair(Golf *m, const Golf *from, int k, int p) {
    const Tensor *t = m->tensor + k, *a = pair_of(m, k);
    const int A = (int)(a - m->tensor), B = A + 1;
    const real *w = weights_of(m, k, p), *v = weights_of(from, k, p);
    double *rest = xcalloc(t->copy_n, sizeof(double));
    for (size_t i = 0; i < t->copy_n; i++) rest[i] = (double)v[i] - (double)w[i];
    low_rank(masters_of(m, B, p), masters_of(m, A, p), rest, t->rows, t->cols, a->rows);
    free(rest);
}

/* In uses of 6 FLOPs, forward, dx and dw: u = A x and du = dy B are computed once more
 * for dw. Each range of q, k and v takes its input through A. */
static double lora_flops(const Golf *m, const Tensor *t) {
    const int ranges = t == m->tensor + T_la_qkv ? qkv_ranges(&m->config) : 1;
    return is_of_pair(t) ? ranges * m->phases * 8.0 / 6 : -1;
}

/* The pairs of a converted model give phases back what sharing took from them. */
static void lora_fit(Golf *m, const Golf *from) {
    for (int k = T_wqkv; k <= T_wdown; k++) {
        const Tensor *t = m->tensor + k, *u = from->tensor + k;
        if (!pair_of(m, k) || !t->n || t->copy_n != u->copy_n) continue;
        for (int p = 0; p < m->phases; p++) fit_pair(m, from, k, p);
    }
}

static const System lora_system = {.name = "lora",
                                   .needs = "lora",
                                   .on = lora_is_on,
                                   .uses = lora_uses,
                                   .check = lora_check,
                                   .shape = lora_shape,
                                   .store = lora_store,
                                   .buffers = lora_buffers,
                                   .fit = lora_fit,
                                   .flops = lora_flops};

#elif defined TESTS
/* v (n,len): orthonormal rows, by Gram-Schmidt, twice. */
static void orthonormal_rows(double *v, int n, int len, uint64_t key) {
    for (int i = 0; i < n * len; i++) v[i] = (double)noise(key, (size_t)i);
    for (int i = 0; i < n; i++)
        for (int turn = 0; turn < 2; turn++) {
            double *row = v + i * len, square = 0;
            for (int j = 0; j < i; j++) {
                double dot = 0;
                for (int k = 0; k < len; k++) dot += v[j * len + k] * row[k];
                for (int k = 0; k < len; k++) row[k] -= dot * v[j * len + k];
            }
            for (int k = 0; k < len; k++) square += row[k] * row[k];
            for (int k = 0; k < len; k++) row[k] /= sqrt(square);
        }
}

/* What b a (rank r) leaves of w. */
static double low_rank_left(const double *w, const real *b, const real *a, int rows,
                            int cols, int r) {
    double left = 0;
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < cols; k++) {
            double d = w[i * cols + k];
            for (int e = 0; e < r; e++)
                d -= (double)b[i * r + e] * (double)a[e * cols + k];
            left += d * d;
        }
    return sqrt(left);
}

/* Rank-r approximations of a matrix with known singular values 1, 1/2, 1/3, ...: what
 * is left is what the others say, and rank n leaves nothing. */
static void test_lora_low_rank(void) {
    enum { MOST = 30 };
    static const int shapes[][2] = {{30, 20}, {20, 30}, {1, 7}, {12, 12}};
    static const int ranks[] = {1, 2, 3, 4, 9, 14, 19, 23};
    static double w[MOST * MOST], x[MOST * MOST], y[MOST * MOST];

    for (int s = 0; s < 4; s++) {
        const int rows = shapes[s][0], cols = shapes[s][1], n = MIN(rows, cols);
        orthonormal_rows(x, n, rows, 5);
        orthonormal_rows(y, n, cols, 6);
        memset(w, 0, sizeof w);
        for (int i = 0; i < n; i++)
            for (int at = 0; at < rows * cols; at++)
                w[at] += x[i * rows + at / cols] * y[i * cols + at % cols] / (i + 1);

        for (int i = 0; i < 8; i++) {
            const int r = ranks[i];
            real *b = reals((size_t)(rows * r), 0), *a = reals((size_t)(r * cols), 0);
            double tail = 0;
            if (r > n + 3) continue;
            low_rank(b, a, w, rows, cols, r);
            for (int k = r; k < n; k++) tail += 1.0 / (k + 1) / (k + 1);
            const double left = low_rank_left(w, b, a, rows, cols, r);
            CHECK(near(left, sqrt(tail), 1e-5), "%dx%d, rank %d: %.9g is left, not %.9g",
                  rows, cols, r, left, sqrt(tail));
        }
    }
}

/* How far W + B A of phase p is from what its donor multiplies with. */
static double pair_misses(const Golf *m, const Golf *from, int k, int p) {
    const Tensor *t = m->tensor + k, *a = pair_of(m, k);
    const real *w = weights_of(m, k, p), *v = weights_of(from, k, p);
    const real *A = m->master + a->at + (size_t)p * a->copy_n;
    const real *B = m->master + a[1].at + (size_t)p * a[1].copy_n;
    double *rest = xcalloc(t->copy_n, sizeof(double));
    for (size_t i = 0; i < t->copy_n; i++) rest[i] = (double)v[i] - (double)w[i];
    const double left = low_rank_left(rest, B, A, t->rows, t->cols, a->rows);
    free(rest);
    return left;
}

/* Pairs of full rank give every phase of a flat model back what sharing, and rounding
 * what is shared, took; smaller ones do not, but miss less than none. */
static void test_lora_pairs(void) {
    static const char *const text =
        "vocab=20 width=16 heads=2 hidden=32 act=swiglu seq=16 prelude=1 ";
    static const char *const shared[] = {
        "unique=2 repeat=2", "unique=1 repeat=4 phase=0",
        "unique=2 repeat=2 order=sequence wq=none", "unique=1 repeat=4 wq=int4"};
    Golf from, m;
    char with[300];
    snprintf(with, sizeof with, "%sunique=4 repeat=1", text);
    new_model(&from, with, 0);
    for (size_t i = 0; i < from.n_params; i++) from.master[i] += (real)0.1 * noise(77, i);
    golf_quantize(&from);

    for (int i = 0; i < 8; i++) {
        const int rank = i < 4 ? 4 : 16;
        double none[5][5]; /* phases, projections */
        snprintf(with, sizeof with, "%s%s lora=%d", text, shared[i % 4], rank);
        new_model(&m, with, 0);
        for (int k = 0; k < 25; k++)
            none[k / 5][k % 5] = pair_misses(&m, &from, T_wqkv + k % 5, k / 5);
        lora_fit(&m, &from);
        for (int k = 0; k < 25; k++) {
            const double misses = pair_misses(&m, &from, T_wqkv + k % 5, k / 5);
            const double most = rank == 16 ? 1e-4 : 0.9 * none[k / 5][k % 5];
            CHECK(misses < most, "%s: phase %d, projection %d: misses %.3g", with, k / 5,
                  k % 5, misses);
        }
        golf_free(&m);
    }
    golf_free(&from);
}

/* Pairs of which B is not 0 are what is added: y by its definition, in double. */
static void test_lora_addition(void) {
    enum { C = 16, R = 3, N = 8 };
    static const char *const text =
        "vocab=20 width=16 heads=2 hidden=16 act=swiglu seq=8 repeat=2 wq=none aq=none "
        "lora=3 lora_on=ffn lora_bits=16";
    Golf m;
    double worst = 0;

    new_model(&m, text, N);
    for (size_t i = 0; i < m.n_params; i++) m.master[i] += (real)0.1 * noise(31, i);
    golf_quantize(&m);
    golf_forward(&m, tokens_below(20, N, 80), NULL, 1, N);
    for (int i = 0; i < 4; i++) {
        const int p = i / 2, k = i % 2 ? T_wgate : T_wup;
        const Tensor *a = m.tensor + (i % 2 ? T_la_gate : T_la_up);
        const real *f = i % 2 ? m.phase[p].f_gate : m.phase[p].f;
        const real *W = m.eff + m.tensor[k].at, *A = m.eff + a->at + p * R * C;
        const real *B = m.eff + a[1].at + p * C * R, *x = m.phase[p].in_up.x;
        for (int at = 0; at < N * C; at++) {
            const int n = at / C, row = at % C;
            double y = 0;
            for (int j = 0; j < C; j++) {
                double w = (double)W[row * C + j];
                for (int e = 0; e < R; e++)
                    w += (double)B[row * R + e] * (double)A[e * C + j];
                y += w * (double)x[n * C + j];
            }
            worst = worse(worst, fabs(y - (double)f[at]));
        }
    }
    CHECK(!pair_of(&m, T_wqkv) && pair_of(&m, T_wdown), "lora_on=ffn: other projections");
    CHECK(worst < (DOUBLE ? 1e-12 : 1e-4), "off by %.3g from its definition", worst);
    golf_free(&m);
}

/* Ranks of a list, of pairs for each phase; the others have --lora. */
static void test_lora_ranks(void) {
    static const struct {
        const char *options;
        int rank[5]; /* the third and fourth: up, and gate where there is one */
    } rows[] = {{"lora=4", {4, 4, 4, 0, 4}},
                {"lora=4 lora_ranks=wup:8,wqkv:0", {0, 4, 8, 0, 4}},
                {"lora=4 lora_ranks=wgate:2 act=swiglu", {4, 4, 4, 2, 4}},
                {"lora=4 lora_ranks=wdown:1 lora_on=ffn phase=0", {0, 0, 4, 0, 1}},
                {"lora=4 lora_ranks=wo:3,wqkv:5 lora_on=attn", {5, 3, 0, 0, 0}}};
    char text[200];
    Golf m;

    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof text, "vocab=20 width=16 heads=2 seq=16 repeat=3 %s",
                 rows[i].options);
        new_model(&m, text, 32);
        for (int k = T_wqkv; k <= T_wdown; k++) {
            const Tensor *a = m.tensor + T_la_qkv + 2 * (k - T_wqkv);
            const int rank = rows[i].rank[k - T_wqkv], there = pair_of(&m, k) != NULL;
            const size_t R = (size_t)rank, in = (size_t)m.tensor[k].cols;
            CHECK(there == (rank > 0) && a->n == 3 * R * in &&
                      a[1].n == 3 * R * (size_t)m.tensor[k].rows,
                  "%s: pair %d has %zu and %zu numbers", text, k - T_wqkv, a->n, a[1].n);
        }
        golf_free(&m);
    }
}

/* FLOPs of a token: for each phase, 2 for each weight and product: A x twice, dy B
 * twice, B u, du A, dy^T u and du^T x. With extra_norm=each A has three inputs. */
static void test_lora_flops(void) {
    enum { C = 16, F = 64, QKV = 48, P = 3 };
    static const char *const text = "vocab=20 width=16 heads=2 seq=16 repeat=3";
    static const struct {
        const char *options;
        double more;
    } rows[] = {
        {"lora=2", P * 8.0 * 2 * (C + QKV + C + C + C + F + F + C)},
        {"lora=2 lora_ranks=wup:5 lora_on=ffn", P * 8.0 * (5 * (C + F) + 2 * (F + C))},
        {"lora=2 lora_on=attn extra_norm=each",
         P * 8.0 * 2 * (3 * C + QKV + C + C)}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char with[200];
        snprintf(with, sizeof with, "%s %s", text, rows[i].options);
        const Config plain = config_of(text), c = config_of(with);
        const double more = flops_per_token(&c) - flops_per_token(&plain);
        CHECK(near(more / rows[i].more, 1, 1e-12), "%s: %g FLOPs more, not %g", with,
              more, rows[i].more);
    }
}

/* Their bytes are the protected ones of the ledger; AdamW trains them with --lr and no
 * decay. Gradients 0.5, then -0.25, from w = 1:
 *     m = 0.1*0.5 = 0.05            v = 0.01*0.25 = 0.0025
 *     m/(1-0.9) = 0.5               v/(1-0.99) = 0.25          step 0.5/0.5 = 1
 *     m = 0.9*0.05 - 0.025 = 0.02   v = 0.99*0.0025 + 0.01*0.0625 = 0.0031
 *     m/(1-0.81) = 0.1052632        v/(1-0.9801) = 0.1557789   step 0.26669943
 * so that w = 1 - 0.1 = 0.9, then 0.9 - 0.1*0.26669943 = 0.87333006. */
static void test_lora_storage(void) {
    static const char *const text =
        "vocab=8 width=8 heads=2 mlp=1 seq=8 repeat=2 batch=2 steps=100 warmup=0 "
        "warmdown=0 wd=0.1 lr=0.1 beta1=0.9 beta2=0.99 optimizer=muon lora=2 lora_bits=5";
    static const double want[] = {0.9, 0.873330057};
    Golf m;
    size_t bytes = 0;

    new_model(&m, text, 16);
    EACH_TENSOR(t, &m) {
        if (!is_of_pair(t) || !t->n) continue;
        bytes += t->bytes;
        CHECK(t->stored_copies == 2 && t->copy_bytes == 2 + (t->copy_n * 5 + 7) / 8,
              "%s: %d copies of %zu bytes", t->name, t->stored_copies, t->copy_bytes);
    }
    CHECK(ledger_of(&m).of[LEDGER_PROTECTED] == bytes, "ledger: pairs of %zu bytes",
          bytes);

    set_all(m.master, m.n_params, 1);
    for (int step = 0; step < 2; step++) {
        double worst = 0;
        set_all(m.grad, m.n_params, step ? -0.25 : 0.5);
        golf_adamw(&m, step, 1);
        EACH_TENSOR(t, &m) {
            if (!is_of_pair(t)) continue;
            for (size_t i = t->at; i < t->at + t->n; i++)
                worst = worse(worst, fabs((double)m.master[i] - want[step]));
        }
        CHECK(worst <= (DOUBLE ? 1e-8 : 1e-6), "step %d: off by %.3g", step, worst);
    }
    golf_free(&m);
}

/* --fit=coded: B starts at 0, and does not stay there. */
static void test_lora_expected(void) { check_expected("lora=4 repeat=3", 0.04); }

static const SystemTests lora_tests = {
    .gradients =
        (const char *const[]){
            "lora=3", "lora=3 repeat=3", "lora=2 lora_on=ffn lora_bits=16 unique=2",
            "lora=1 lora_on=attn unique=2 repeat=1",
            "lora=3 extra_norm=each aq=none repeat=1 prelude=1",
            "lora=2 extra_norm=each kv_heads=1", "lora=2 seq=24 mlp=1",
            "lora=2 phase=0 repeat=3 unique=2", "lora=2 lora_ranks=wqkv:3,wdown:1,wo:0",
            "lora=2 act=swiglu lora_on=ffn", NULL},
    .files = (const char *const[]){"lora=4", "lora=3 phase=0 unique=2 repeat=3",
                                   "lora=2 lora_ranks=wup:5,wqkv:0 repeat=3",
                                   "lora=8 lora_bits=16 lora_on=ffn unique=2",
                                   "lora=3 extra_norm=each lora_on=attn",
                                   "lora=4 act=swiglu lora_ranks=wgate:2", NULL},
    .errors =
        (const char *const[][2]){{"--lora=65", "--lora|0 to 64"},
                                 {"--lora_bits=4", "--lora_bits|without --lora"},
                                 {"--lora_ranks=wup:4", "--lora_ranks|without --lora"},
                                 {"--lora=2 --lora_ranks=wup", "--lora_ranks=wup|'wup'"},
                                 {"--lora=2 --lora_ranks=wup:3,wx:4", "'wx:4'"},
                                 {"--lora=2 --lora_ranks=wup:3,wup:4", "once|'wup:4'"},
                                 {"--lora=2 --lora_ranks=wup:65", "0 to 64|'wup:65'"},
                                 {"--lora=2 --lora_ranks=wup:3x", "'wup:3x'"},
                                 {"--lora=2 --lora_on=attn --lora_ranks=wup:3",
                                  "of --lora_on|'wup:3'"},
                                 {"--lora=2 --lora_on=ffn --lora_ranks=wup:0,wdown:0",
                                  "no projection has a pair"},
                                 {"--lora_on=ffn", "--lora_on|without --lora"},
                                 {"--lora=2 --lora_bits=9", "--lora_bits|4 to 8|16"},
                                 {NULL, NULL}},
    .tests = (const Test[]){{"low rank", test_lora_low_rank},
                            {"pairs", test_lora_pairs},
                            {"addition", test_lora_addition},
                            {"ranks", test_lora_ranks},
                            {"FLOPs", test_lora_flops},
                            {"storage", test_lora_storage},
                            {"expected", test_lora_expected},
                            {NULL, NULL}}};
#elif defined BUGS
bug pair-expected-to-stay-zero float "lora: expected" "$(in_ is_one_number)s/w\[i\] != w\[0\]/memcmp(w, w + i, sizeof *w)/"
bug pair-of-another-projection float "lora: addition" "$(in_ pair_of)s/2 \* (k - T_wqkv)/2 * (k - T_wqkv - (k > T_wup))/"
bug pair-of-another-phase double "lora: grad" "$(in_ pair_packed)s/copy_of(m, t, p)/0/"
bug pair-without-dx double "lora: grad" "$(in_ lora_dx)s/->back, n, 1);/->back, n * 0, 1);/"
bug pair-only-B-learns double "lora: grad" "$(in_ lora_dw)s/gemm(m->grad + A, K.*;/;/"
bug pair-of-the-first-rows double "lora: grad" "$(in_ lora_dw)s/ + first \* (size_t)rank;/;/"
bug pair-of-all-rows double "lora: grad" "$(in_ lora_shape)s/split = 1/split = 0/"
bug pairs-of-the-average double "lora: pairs" "$(in_ fit_pair)s/(double)v\[i\] - (double)w\[i\]/(double)v[i]/"
bug pairs-of-one-phase double "lora: pairs" "$(in_ fit_pair)s/weights_of(from, k, p)/weights_of(from, k, 0)/"
bug pairs-of-the-donors-masters double "lora: pairs" "$(in_ fit_pair)s/weights_of(from, k, p)/masters_of(from, k, p)/"
bug pairs-beside-masters double "lora: pairs" "$(in_ fit_pair)s/\*w = weights_of(m, k, p)/*w = masters_of(m, k, p)/"
bug pairs-of-one-rank float "lora: ranks" "$(in_ rank_of)s/listed < 0 ? c->lora : listed/c->lora/"
bug rank-of-a-prefix float "lora: errors" "$(in_ ranks_item)s/(p\[n\] \&\& p\[n\] != ',')/0/"
bug rank-twice float "lora: errors" "$(in_ lora_check)s/ || seen\[k\]//"
bug pairs-shared-with-the-interface float "lora: ranks" "$(in_ lora_shape)s/stored_copies = m->phases/stored_copies = a->stored_copies/"
bug pairs-cost-as-weights float "lora: FLOPs" "$(in_ lora_flops)s/ \* 8.0 \/ 6//"
bug pairs-of-one-input-cost float "lora: FLOPs" "$(in_ lora_flops)s/qkv_ranges(&m->config)/1/"
bug pairs-decay float "lora: storage" "$(in_ golf_adamw)s/t->role == PROJ ? 1 - rate/1 ? 1 - rate/"
bug scale-per-row float "lora: storage" "$(in_ lora_store)s/SCALE_TENSOR/SCALE_ROW/"
bug svd-without-singular-values double "low rank" "$(in_ low_rank)s/(at \* sigma)/at/; $(in_ low_rank)s/(real)sum;/(real)(sum \/ sigma);/"
bug svd-smallest-first double "low rank" "$(in_ pick_largest)s/ > s\[best/ < s[best/"
bug svd-half-rotated double "low rank" "$(in_ jacobi_rotate)s/^.*columns.*$//"
#endif
