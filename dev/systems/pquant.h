/* pquant.h - pQuant (2602.22592): beside the low-bit MLP a small one in high precision.
 *
 *     y = beta * MLP(u) + alpha * w_e * Small_e(u),   Small_e(u) = D_e relu^2(U_e u)
 *
 * on the same quantized inputs u; each U_e (r,C), D_e (C,r) has r = --ffn_hi hidden
 * numbers and --ffn_hi_bits bits per weight. alpha and beta are learned numbers of each
 * phase that start at 2 and 0.2 ("feature scaling"): at first the small MLP leads, and
 * has the larger gradients.
 *
 * A block has E = --hi_experts small MLPs. --hi_route=phase: the n-th phase of the block
 * uses number e = n mod E, w_e = 1. --hi_route=token: each token uses one, e = argmax of
 * p = softmax(R u) with a router R (E,C) of the phase, and w_e = p_e. Softmax has d(z_j)
 * = p_e ((j == e) - p_j) d(p_e).
 *
 * The hidden numbers become int8 codes with one step per token (numbers as they are with
 * --aq=none), also with --aq=int4. Only the chosen small MLP's decide on the step: the
 * others' are 0.
 *
 * Stored: 2 r C weights for each of blocks * E small MLPs, a scale per row (bf16 numbers
 * with --ffn_hi_bits=16), alpha and beta per phase and, by token, E C numbers of a router
 * per phase, all three bf16. They count as protected and interface bytes. Cost: all E are
 * computed for every token, in floating point, as r is small: 12 r C E FLOPs per token
 * and phase.
 *
 * Differs from the paper, of whose details we know a digest: MLPs are relu^2 ones without
 * a gate; a choice by phase is ours; that p_e multiplies is an assumption; 1-bit weights
 * for the large MLP are an option of its own. */
#ifdef OPTIONS
X(MODEL, INT, ffn_hi, "0", "0 to 65536", "hidden width of a second MLP in high precision")
X(MODEL, INT, ffn_hi_bits, "8", "4 to 8|16", "its weights")
X(MODEL, INT, hi_experts, "1", "1 to 64", "copies of it, one of which each token uses")
X(MODEL, INT, hi_route, "phase", "phase|token",
  "which: its n-th phase, n % N | learned, top-1")

#elif defined MEANINGS
M(hi_route, c->hi_experts > 1, "without --hi_experts")

#elif defined TENSORS
X(hi_up, PER_OTHER, c->ffn_hi, (c->ffn_hi > 0) * c->width, PROJ, MODE_VECTOR, init_in(c))
X(hi_down, PER_OTHER, (c->ffn_hi > 0) * c->width, c->ffn_hi, PROJ, MODE_VECTOR,
  init_out(c, 1) / sqrt(c->ffn_hi + 1e-9))
X(alpha, PER_PHASE, 1, c->ffn_hi > 0, INTERFACE, (c->ffn_hi > 0) * MODE_SCALAR, 2)
X(beta, PER_PHASE, 1, c->ffn_hi > 0, INTERFACE, (c->ffn_hi > 0) * MODE_SCALAR, 0.2)
X(router, PER_PHASE, 1, (c->ffn_hi && c->hi_route) * c->hi_experts * c->width, INTERFACE,
  (c->ffn_hi > 0) * MODE_VECTOR, 0)

#elif defined LIST
X(pquant)

#elif defined CODE
#include "shared/high_bits.h"

enum { ROUTE_PHASE, ROUTE_TOKEN };

/* What the backward pass needs of a phase. */
typedef struct {
    real *large; /* (N,C) the large MLP's output */
    real *f;     /* (N,E,r) before the activation */
    real *small; /* (N,C) the chosen small MLP's output */
    real *prob;  /* (N,E) softmax, or 1: w of the one that is chosen */
    Act in;      /* (N,E,r) hidden numbers, quantized */
} PquantPhase;

typedef struct {
    PquantPhase *phase; /* (phases); all the same buffers unless training */
    real *df;           /* (N,E,r) */
    real *dsmall;       /* (N,E,C) of the small MLPs' outputs: 0 of those not chosen */
    real *dw;           /* (N) w_e d(w_e) */
} Pquant;

static int pquant_on(const Config *c) { return c->ffn_hi > 0; }

static int pquant_takes(const Config *c) {
    (void)c;
    return RES_MLP;
}

static void pquant_check(const Config *c) {
    const int phases_of_a_block = c->prelude || c->coda ? 1 : c->repeat;
    if (c->hi_route == ROUTE_PHASE && c->hi_experts > phases_of_a_block)
        die("--hi_experts by phase: expected up to --repeat of them, no prelude and no "
            "coda");
}

static const Sublayer pquant_mlp;

static void pquant_shape(Golf *m) {
    const Config *c = &m->config;
    for (Tensor *t = m->tensor + T_hi_up; t <= m->tensor + T_hi_down; t++) {
        t->stored_copies = block_count(c) * c->hi_experts; /* block * E + e */
        t->ledger = LEDGER_PROTECTED;
        t->float_only = 1;
    }
    m->inputs[T_hi_down] = c->aq == AQ_NONE ? &inputs_kept : &inputs_int8;
    m->mlp = &pquant_mlp;
}

static int pquant_store(const Golf *m, Tensor *t) {
    if (t != m->tensor + T_hi_up && t != m->tensor + T_hi_down) return 0;
    store_in_high_bits(&m->config, t, m->config.ffn_hi_bits);
    return 1;
}

static void pquant_buffers(Golf *m, size_t N) {
    const Config *c = &m->config;
    const size_t C = (size_t)c->width, E = (size_t)c->hi_experts;
    const size_t hidden = E * (size_t)c->ffn_hi;
    Pquant *all = owned(m, 1, sizeof(Pquant));
    m->own[SYS_pquant] = all;
    all->phase = owned(m, (size_t)m->phases, sizeof(PquantPhase));
    for (PquantPhase *s = all->phase; s < all->phase + m->phases; s++) {
        if (s > all->phase && (!m->train || c->recompute)) {
            *s = *all->phase;
            continue;
        }
        s->large = owned_reals(m, N * C);
        s->f = owned_reals(m, N * hidden);
        s->small = owned_reals(m, N * C);
        s->prob = owned_reals(m, N * E);
        act_alloc(m, &s->in, T_hi_down, N, hidden);
    }
    if (!m->train) return;
    all->df = owned_reals(m, N * hidden);
    all->dsmall = owned_reals(m, N * E * C);
    all->dw = owned_reals(m, N);
}

/* The buffers of a chunk. */
static PquantPhase pquant_phase(const Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const size_t n0 = (size_t)k->n0, C = (size_t)c->width, E = (size_t)c->hi_experts;
    const size_t hidden = E * (size_t)c->ffn_hi;
    const Pquant *all = m->own[SYS_pquant];
    const PquantPhase *s = all->phase + k->p;
    return (PquantPhase){.large = s->large + n0 * C,
                         .f = s->f + n0 * hidden,
                         .small = s->small + n0 * C,
                         .prob = s->prob + n0 * E,
                         .in = act_at(&s->in, n0, hidden)};
}

static Pquant pquant_flow(const Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const size_t n0 = (size_t)k->n0, E = (size_t)c->hi_experts;
    const Pquant *all = m->own[SYS_pquant];
    return (Pquant){.df = all->df + n0 * E * (size_t)c->ffn_hi,
                    .dsmall = all->dsmall + n0 * E * (size_t)c->width,
                    .dw = all->dw + n0};
}

/* Small MLP e of the block that phase p uses: its T_hi_up or its T_hi_down. */
static const Packed *small_packed(const Golf *m, int tensor, int p, int e) {
    const Config *c = &m->config;
    return packed_of(m, tensor, block_of(c, p) * c->hi_experts + e, 0);
}

/* The quantized hidden numbers of small MLP e: every E-th stretch of r. */
static Mat small_hidden(const Golf *m, const Act *in, int e) {
    const size_t E = (size_t)m->config.hi_experts, r = (size_t)m->config.ffn_hi;
    Mat all = inputs_of(m, in, T_hi_down);
    all.ld = E * r;
    return mat_at(all, 0, (size_t)e * r);
}

/* The small MLP that a token uses in phase p. prob (E) */
static int small_chosen(const Config *c, const real *prob, int p) {
    int best = 0;
    if (c->hi_route == ROUTE_PHASE) {
        const int cycle = c->order == ORDER_CYCLE;
        const int turn = cycle ? (p - c->prelude) / c->unique : p % c->repeat;
        return turn % c->hi_experts;
    }
    for (int e = 1; e < c->hi_experts; e++)
        if (prob[e] > prob[best]) best = e;
    return best;
}

/* prob (E) = softmax(R u) of token i of `in`, or 1. */
static void small_probabilities(const Config *c, real *prob, const real *router, Mat in,
                                size_t i) {
    const int C = c->width, E = c->hi_experts;
    real sum = 0, most = 0;
    if (c->hi_route == ROUTE_PHASE) {
        for (int e = 0; e < E; e++) prob[e] = 1;
        return;
    }
    for (int e = 0; e < E; e++) {
        prob[e] = 0;
        for (int k = 0; k < C; k++)
            prob[e] += router[e * C + k] * mat_get(in, i, (size_t)k);
        most = e ? larger(most, prob[e]) : prob[e];
    }
    for (int e = 0; e < E; e++) {
        prob[e] = exp(prob[e] - most);
        sum += prob[e];
    }
    for (int e = 0; e < E; e++) prob[e] = prob[e] / sum;
}

/* Of the small MLPs: f, who is chosen with which weight, quantized hidden numbers. */
static void fill_small_hidden(Golf *m, const Chunk *k, PquantPhase *x, real *hidden) {
    const Config *c = &m->config;
    const int E = c->hi_experts, r = c->ffn_hi, n = k->n;
    const Mat in = inputs_of(m, &k->s.in_up, T_wup);

    for (int e = 0; e < E; e++)
        gemm_panels(x->f + e * r, E * r, in, &small_packed(m, T_hi_up, k->p, e)->forward,
                    n, 0);
    relu2_forward(hidden, x->f, n, E * r);
    for (int i = 0; i < n; i++) {
        real *prob = x->prob + i * E;
        small_probabilities(c, prob, vec_of(m, T_router, k), in, (size_t)i);
        const int chosen = small_chosen(c, prob, k->p);
        for (int e = 0; e < E; e++)
            if (e != chosen)
                memset(hidden + (i * E + e) * r, 0, sizeof(real) * (size_t)r);
    }
    m->inputs[T_hi_down]->quantize(m, &x->in, hidden, n, E * r, T_hi_down);
}

/* y = beta * large + alpha * w_e * small, from y = large */
static void small_forward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts, r = c->ffn_hi, n = k->n;
    const real alpha = *vec_of(m, T_alpha, k), beta = *vec_of(m, T_beta, k);
    real *hidden = scratch((size_t)CHUNK * (size_t)(E * r + C));
    real *out = hidden + CHUNK * E * r;
    PquantPhase x = pquant_phase(m, k);
    real *y = k->s.y;

    memcpy(x.large, y, sizeof(real) * (size_t)n * (size_t)C);
    fill_small_hidden(m, k, &x, hidden);
    for (int e = 0; e < E; e++) {
        gemm_panels(out, C, small_hidden(m, &x.in, e),
                    &small_packed(m, T_hi_down, k->p, e)->forward, n, 0);
        for (int i = 0; i < n; i++) {
            const size_t at = (size_t)i * (size_t)C;
            const real w = alpha * x.prob[i * E + e];
            if (small_chosen(c, x.prob + i * E, k->p) != e) continue;
            memcpy(x.small + at, out + at, sizeof(real) * (size_t)C);
            FOR_COLUMNS(j, C) y[at + j] = beta * x.large[at + j] + w * out[at + j];
        }
    }
}

/* From d(y) in f.dy: those of alpha, beta and w, and d(f). Leaves d(large) in f.dy. */
static void small_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts, r = c->ffn_hi, n = k->n;
    const real alpha = *vec_of(m, T_alpha, k), beta = *vec_of(m, T_beta, k);
    real *dalpha = dvec_of(m, T_alpha, k), *dbeta = dvec_of(m, T_beta, k);
    const PquantPhase x = pquant_phase(m, k);
    const Pquant d = pquant_flow(m, k);

    memset(d.dsmall, 0, sizeof(real) * (size_t)n * (size_t)(E * C));
    for (int i = 0; i < n; i++) { /* y = beta * large + alpha * w * small */
        const int chosen = small_chosen(c, x.prob + i * E, k->p);
        real *dy = k->f.dy + i * C, *to = d.dsmall + (i * E + chosen) * C;
        const real w = x.prob[i * E + chosen], dw = inner(dy, x.small + i * C, C);
        *dalpha += dw * w;
        *dbeta += inner(dy, x.large + i * C, C);
        d.dw[i] = alpha * dw * w;
        for (int j = 0; j < C; j++) {
            to[j] = alpha * w * dy[j];
            dy[j] *= beta;
        }
    }
    /* small = D_e relu^2(f) */
    for (int e = 0; e < E; e++)
        gemm_panels(d.df + e * r, E * r, mat(d.dsmall + e * C, (size_t)(E * C)),
                    &small_packed(m, T_hi_down, k->p, e)->back, n, 0);
    relu2_backward(d.df, x.f, n, E * r);
}

/* forward: z = R u,  w = softmax(z)_chosen.  dz_e of a token, from dw = w d(w) */
static real router_dz(real dw, const real *prob, int chosen, int e) {
    return dw * ((e == chosen) - prob[e]);
}

/* dR += dz u^T */
static void router_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts;
    real *drouter = dvec_of(m, T_router, k);
    const Mat in = inputs_of(m, &k->s.in_up, T_wup);
    const PquantPhase x = pquant_phase(m, k);
    const Pquant d = pquant_flow(m, k);

    if (c->hi_route == ROUTE_PHASE) return;
    for (size_t i = 0; i < (size_t)k->n; i++) {
        const real *prob = x.prob + i * (size_t)E;
        const int chosen = small_chosen(c, prob, k->p);
        for (int e = 0; e < E; e++) {
            const real dz = router_dz(d.dw[i], prob, chosen, e);
            for (int j = 0; j < C; j++)
                drouter[e * C + j] += dz * mat_get(in, i, (size_t)j);
        }
    }
}

/* du (n,C) += dz_e R_e */
static void router_dx(const Golf *m, const Chunk *k, real *du, int e) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts;
    const PquantPhase x = pquant_phase(m, k);
    const Pquant d = pquant_flow(m, k);

    if (c->hi_route == ROUTE_PHASE) return;
    const real *row = vec_of(m, T_router, k) + e * C;
    for (int i = 0; i < k->n; i++) {
        const real *prob = x.prob + i * E;
        const real dz = router_dz(d.dw[i], prob, small_chosen(c, prob, k->p), e);
        for (int j = 0; j < C; j++) du[i * C + j] += dz * row[j];
    }
}

/* du += what comes back through the small MLPs, f = U_e u, and the router. */
static void small_inputs_backward(Golf *m, const Chunk *k, real *du, real *room) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts, r = c->ffn_hi, n = k->n;
    const Pquant d = pquant_flow(m, k);

    for (int e = 0; e < E; e++) {
        gemm_panels(room, C, mat(d.df + e * r, (size_t)(E * r)),
                    &small_packed(m, T_hi_up, k->p, e)->back, n, 0);
        router_dx(m, k, room, e);
        inputs_backward(m, &k->s.in_up, room, T_wup, n);
        for (int i = 0; i < n * C; i++) du[i] += room[i];
    }
}

/* out = mid + gate_mlp * y */
static void pquant_forward(Golf *m, const Chunk *k) {
    mlp_output_forward(m, k);
    small_forward(m, k);
    gate_forward(k->s.out, k->s.mid, k->s.y, vec_of(m, T_gate_mlp, k), k->n,
                 m->config.width);
}

static void pquant_backward(Golf *m, const Chunk *k) {
    const int C = m->config.width, n = k->n;
    const size_t wide = (size_t)CHUNK * (size_t)MAX(C, hidden_width(&m->config));
    real *du = scratch(2 * wide + (size_t)CHUNK * (size_t)C), *room = du + wide;

    gate_backward(k->f.dy, dvec_of(m, T_gate_mlp, k), k->f.dh, k->s.y,
                  vec_of(m, T_gate_mlp, k), n, C);
    small_backward(m, k);
    router_backward(m, k);
    mlp_hidden_backward(m, k, du, room);
    small_inputs_backward(m, k, du, room);
    mlp_input_backward(m, k, du, room);
}

static int pquant_dw(const Golf *m, int p, int N, Gemm *to) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts, r = c->ffn_hi;
    const Tensor *up = m->tensor + T_hi_up, *down = m->tensor + T_hi_down;
    const Mat in = inputs_of(m, &m->phase[p].in_up, T_wup);
    const Pquant *all = m->own[SYS_pquant];
    int count = mlp_dw(m, p, N, to);
    for (int e = 0; e < E; e++) {
        const size_t copy = (size_t)(block_of(c, p) * E + e) * up->copy_n;
        const Mat dy = mat_t(all->dsmall + e * C, (size_t)(E * C));
        const Mat df = mat_t(all->df + e * r, (size_t)(E * r));
        const Mat hidden = small_hidden(m, &all->phase[p].in, e);
        real *ddown = m->grad + down->at + copy, *dup = m->grad + up->at + copy;
        to[count++] = (Gemm){ddown, (size_t)r, dy, hidden, C, r, N, 1};
        to[count++] = (Gemm){dup, (size_t)C, df, in, r, C, N, 1};
    }
    return count;
}

static const Sublayer pquant_mlp = {
    .after = pquant_forward, .after_backward = pquant_backward, .dw = pquant_dw};

/* The small MLPs' share of the power of both parts of y, in the last batch. Not with
 * recompute, which does not keep the parts. */
static double small_share(const Golf *m) {
    const Pquant *all = m->own[SYS_pquant];
    const size_t n = m->N * (size_t)m->config.width;
    double small = 0, both = 0;
    if (m->config.recompute) return 0;
    for (int p = 0; p < m->phases; p++) {
        const double beta = (double)*phase_vector(m, T_beta, p);
        for (size_t i = 0; i < n; i++) {
            const double y = (double)m->phase[p].y[i];
            const double high = y - beta * (double)all->phase[p].large[i];
            small += high * high;
            both += high * high + (y - high) * (y - high);
        }
    }
    return small / fmax(both, 1e-30);
}

static void pquant_log_row(const Golf *m, FILE *f) { /* of some steps: it takes time */
    const int measured = m->step % 100 == 0 || m->step == m->config.steps;
    fputc('\t', f);
    if (measured) fprintf(f, "%.4f", small_share(m));
}

static void pquant_result(const Golf *m, FILE *f) {
    fprintf(f, "  \"hi_share\": %.17g,\n", small_share(m));
}

static double pquant_flops(const Golf *m, const Tensor *t) {
    if (t != m->tensor + T_hi_up && t != m->tensor + T_hi_down) return -1;
    return (double)m->phases * m->config.hi_experts;
}

static const System pquant_system = {.name = "pquant",
                                     .needs = "ffn_hi",
                                     .on = pquant_on,
                                     .takes = pquant_takes,
                                     .check = pquant_check,
                                     .shape = pquant_shape,
                                     .store = pquant_store,
                                     .buffers = pquant_buffers,
                                     .columns = "\thi_share",
                                     .log_row = pquant_log_row,
                                     .result = pquant_result,
                                     .flops = pquant_flops};

#elif defined TESTS
/* y (C) += scale * D relu^2(U u), from u (C), U (F,C), D (C,F). */
static void add_naive_mlp(double *y, const double *u, const real *up, const real *down,
                          double scale, int C, int F) {
    for (int f = 0; f < F; f++) {
        double sum = 0;
        for (int i = 0; i < C; i++) sum += (double)up[f * C + i] * u[i];
        for (int i = 0; i < C; i++)
            y[i] += scale * (sum > 0 ? sum * sum : 0) * (double)down[i * F + f];
    }
}

/* The largest of softmax(R u), R (E,C), and which it is. */
static double naive_choice(int *chosen, const double *u, const real *R, int E, int C) {
    double sum = 0, most = 0;
    for (int e = 0; e < E; e++) {
        double z = 0;
        for (int i = 0; i < C; i++) z += (double)R[e * C + i] * u[i];
        sum += exp(z);
        if (exp(z) <= most) continue;
        most = exp(z);
        *chosen = e;
    }
    return most / sum;
}

/* What the file would hold of copy j of a tensor. */
static const real *eff_of(const Golf *m, int tensor, int j) {
    return m->eff + m->tensor[tensor].at + (size_t)j * m->tensor[tensor].copy_n;
}

/* y of all tokens and phases by its definition, in floating point; phase p uses block[p],
 * and by phase small MLP turn[p] of it. */
static void check_small_mlps(const char *arm, const int *block, const int *turn) {
    enum { C = 16, F = 32, R = 5, E = 3, N = 32, P = 6 };
    Golf m;
    char text[300];
    double worst = 0;
    snprintf(text, sizeof text,
             "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=2 repeat=3 ffn_hi=5 "
             "hi_experts=3 ffn_hi_bits=16 wq=none aq=none extra_norm=none gain=none %s",
             arm);
    new_model(&m, text, N);
    for (size_t i = 0; i < m.n_params; i++) m.master[i] += (real)0.3 * noise(31, i);
    golf_quantize(&m);
    m.train = 0;
    golf_forward(&m, tokens_below(20, N, 80), NULL, 2, 16);
    for (int i = 0; i < P * N; i++) {
        const int p = i / N, n = i % N, b = block[p];
        const real *mid = m.phase[p].mid + n * C, *y = m.phase[p].y + n * C;
        double u[C], want[C] = {0}, square = 0, weight = 1;
        int e = turn[p];
        for (int k = 0; k < C; k++) square += (double)mid[k] * (double)mid[k] / C;
        for (int k = 0; k < C; k++) u[k] = (double)mid[k] / sqrt(square + 1e-6);
        if (m.config.hi_route == ROUTE_TOKEN)
            weight = naive_choice(&e, u, eff_of(&m, T_router, p), E, C);
        add_naive_mlp(want, u, eff_of(&m, T_wup, b), eff_of(&m, T_wdown, b),
                      (double)*eff_of(&m, T_beta, p), C, F);
        add_naive_mlp(want, u, eff_of(&m, T_hi_up, b * E + e),
                      eff_of(&m, T_hi_down, b * E + e),
                      (double)*eff_of(&m, T_alpha, p) * weight, C, R);
        for (int k = 0; k < C; k++) worst = worse(worst, fabs(want[k] - (double)y[k]));
    }
    CHECK(worst < (DOUBLE ? 1e-12 : 1e-4), "%s: off by %.3g from its definition", arm,
          worst);
    golf_free(&m);
}

static void test_small_mlps(void) {
    static const int cycle[] = {0, 1, 0, 1, 0, 1}, cycle_turn[] = {0, 0, 1, 1, 2, 2};
    static const int row[] = {0, 0, 0, 1, 1, 1}, row_turn[] = {0, 1, 2, 0, 1, 2};
    check_small_mlps("", cycle, cycle_turn);
    check_small_mlps("order=sequence", row, row_turn);
    check_small_mlps("hi_route=token", cycle, cycle_turn);
}

/* Their hidden numbers are int8 codes even with --aq=int4, and the step is that of the
 * chosen one. */
static void test_small_codes(void) {
    enum { N = 16, E = 3, R = 8 };
    Golf m;
    int most = 0, others = 0;
    new_model(&m, "vocab=20 width=16 heads=2 seq=16 ffn_hi=8 hi_experts=3 aq=int4", N);
    m.train = 0;
    golf_forward(&m, tokens_below(20, N, 80), NULL, 1, N);
    const Pquant *all = m.own[SYS_pquant];
    for (int i = 0; i < N * E * R; i++) { /* of phase 1, which uses number 1 */
        const int q = abs(all->phase[1].in.q[i]);
        if (i / R % E == 1) most = MAX(most, q);
        else others += q != 0;
    }
    CHECK(most == 127 && !others, "largest code %d, %d of others", most, others);
    golf_free(&m);
}

/* The share in the log from parts that are known; bytes and FLOPs as announced. */
static void test_small_figures(void) {
    Golf m;
    double large = 0, small = 0;
    new_model(&m, "vocab=20 width=16 heads=2 seq=16 repeat=1 ffn_hi=8 ffn_hi_bits=4", 16);
    Pquant *all = m.own[SYS_pquant];
    const real beta = *phase_vector(&m, T_beta, 0);
    const real *a = reals(256, 1), *b = reals(256, 2);
    for (int i = 0; i < 256; i++) {
        all->phase->large[i] = a[i];
        m.phase->y[i] = beta * a[i] + b[i];
        large += pow((double)(beta * a[i]), 2);
        small += pow((double)b[i], 2);
    }
    CHECK(near(small_share(&m), small / (small + large), 1e-5), "share %g",
          small_share(&m));
    CHECK(ledger_of(&m).of[LEDGER_PROTECTED] == 2 * 16 * 8 / 2 + 2 * (16 + 8),
          "%zu bytes", ledger_of(&m).of[LEDGER_PROTECTED]);
    golf_free(&m);
    const Config none = config_of("repeat=3"),
                 two = config_of("repeat=3 ffn_hi=8 hi_experts=2");
    const double more = flops_per_token(&two) - flops_per_token(&none);
    CHECK(more == 12.0 * 8 * 256 * 2 * 3, "%g FLOPs more", more);
}

static const SystemTests pquant_tests = {
    .gradients =
        (const char *const[]){"ffn_hi=5", "ffn_hi=6 hi_experts=2 repeat=3",
                              "ffn_hi=5 hi_experts=3 hi_route=token unique=2",
                              "ffn_hi=6 hi_experts=2 hi_route=token extra_norm=each",
                              "ffn_hi=4 ffn_hi_bits=16 aq=none", "ffn_hi=4 aq=int4",
                              "ffn_hi=3 hi_experts=2 hi_route=token phase=0 seq=40 mlp=1",
                              NULL},
    .files = (const char *const[]){"ffn_hi=8 hi_experts=2 hi_route=token", "ffn_hi=8",
                                   "ffn_hi=8 hi_experts=3 hi_route=token ffn_hi_bits=4",
                                   "ffn_hi=8 ffn_hi_bits=16 hi_experts=2 aq=none", NULL},
    .errors =
        (const char *const[][2]){
            {"--ffn_hi=8 --hi_experts=3 --repeat=2", "--hi_experts|--repeat"},
            {"--ffn_hi=8 --hi_experts=2 --repeat=2 --prelude=1",
             "--hi_experts|no prelude"},
            {"--ffn_hi=8 --hi_route=token", "--hi_route|--hi_experts"},
            {"--hi_experts=2", "--hi_experts|--ffn_hi"},
            {"--ffn_hi_bits=4", "--ffn_hi_bits|--ffn_hi"},
            {"--ffn_hi=8 --ffn_hi_bits=9", "--ffn_hi_bits|4 to 8|16|'9'"},
            {NULL, NULL}},
    .tests = (const Test[]){{"small MLPs", test_small_mlps},
                            {"small codes", test_small_codes},
                            {"small figures", test_small_figures},
                            {NULL, NULL}}};
#elif defined BUGS
bug alpha-without-its-weight double "pquant: grad" \
    "$(in_ small_backward)s/\*dalpha += dw \* w;/*dalpha += dw;/"
bug beta-of-the-sum double "pquant: grad" \
    "$(in_ small_backward)s/\*dbeta += inner(dy, x.large/*dbeta += inner(dy, k->s.y/"
bug router-softmax-diagonal double "pquant: grad" \
    "$(in_ router_dz)s/((e == chosen) - prob\[e\])/(e == chosen)/"
bug router-without-dx double "pquant: grad" \
    "$(in_ router_dx)s/du\[i \* C + j\] += dz/du[i * C + j] += 0 * dz/"
bug small-dW-of-another-copy double "pquant: grad" \
    "$(in_ pquant_dw)s/block_of(c, p) \* E + e/block_of(c, p) * E/"
bug small-MLP-of-another-block float "pquant: small MLPs" \
    "$(in_ small_packed)s/block_of(c, p) \* c->hi_experts/0/"
bug small-MLP-of-another-turn float "pquant: small MLPs" \
    "$(in_ small_chosen)s/c->prelude) \/ c->unique/c->prelude) % c->unique/"
bug small-step-of-all float "pquant: small codes" \
    "$(in_ fill_small_hidden)s/if (e != chosen)/if (0)/"
bug small-inputs-of-4-bits float "pquant: small codes" \
    "$(in_ pquant_shape)s/inputs_int8/inputs_int4/"
bug small-MLPs-for-free float "pquant: small figures" \
    "$(in_ pquant_flops)s/ \* m->config.hi_experts//"
#endif
