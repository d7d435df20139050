/* pquant.h - pQuant (2602.22592): beside the low-bit MLP a small one in high precision.
 *
 *     y = beta * MLP(u) + alpha * w_e * Small_e(u),   Small_e(u) = D_e act(U_e u)
 *
 * on the same quantized inputs u; each U_e (r,C), D_e (C,r) has r = --ffn_hi hidden
 * numbers and --ffn_hi_bits bits per weight. Both MLPs have the activation --act; with
 * swiglu, the paper's, Small_e(u) = D_e (silu(G_e u) * U_e u). alpha and beta are learned numbers of each
 * phase that start at 2 and 0.2 ("feature scaling"): at first the small MLP leads, and
 * has the larger gradients.
 *
 * A block has E = --hi_experts small MLPs. --hi_route=phase: the n-th phase of the block
 * uses number e = n mod E, w_e = 1. --hi_route=token: each token uses one, e = argmax of
 * p = softmax(R u) with a router R (E,C) of the phase, and w_e = p_e. Softmax has d(z_j)
 * = p_e ((j == e) - p_j) d(p_e). So that all of them are used (a router of zeros sends
 * every token to the first, and what is not chosen learns nothing) R starts at N(0,
 * 0.1/C), and the loss has for each phase
 *     c * E * sum_e f_e P_e        c = --hi_balance
 * besides, f_e being the share of the batch's tokens that use e, a constant, and P_e the
 * mean of their p_e: at least c, when all are used alike. Both are those of Switch
 * Transformers (2101.03961, 2.2 and 2.4). log.tsv and result.json have the shares f.
 *
 * The hidden numbers become int8 codes with one step per token (numbers as they are with
 * --aq=none), also with --aq=int4. Only the chosen small MLP's decide on the step: the
 * others' are 0.
 *
 * Stored: 2 r C weights (3 r C with swiglu) for each of blocks * E small MLPs, a scale per row (bf16 numbers
 * with --ffn_hi_bits=16), alpha and beta per phase and, by token, E C numbers of a router
 * per phase, all three bf16. They count as protected and interface bytes. Cost: all E are
 * computed for every token, in floating point, as r is small: 12 r C E FLOPs per token
 * and phase (18 with swiglu).
 *
 * Differs from the paper, of whose details we know a digest: without --act=swiglu MLPs
 * have no gate; a choice by phase is ours; that p_e multiplies is an assumption; how its
 * router starts and is balanced we do not know, hence Switch Transformers' way; 1-bit weights
 * for the large MLP are an option of its own. */
#ifdef OPTIONS
X(MODEL, INT, ffn_hi, "0", "0 to 65536", "hidden width of a second MLP in high precision")
X(MODEL, INT, ffn_hi_bits, "8", "4 to 8|16", "its weights")
X(MODEL, INT, hi_experts, "1", "1 to 64", "copies of it, one of which each token uses")
X(MODEL, INT, hi_route, "phase", "phase|token",
  "which: its n-th phase, n % N | learned, top-1")
X(TRAIN, NUM, hi_balance, "0.01", "0 to 10",
  "c of the loss that keeps all of them in use")

#elif defined MEANINGS
M(hi_route, c->hi_experts > 1, "without --hi_experts")
M(hi_balance, c->hi_experts > 1 && c->hi_route, "without --hi_route=token")

#elif defined TENSORS
X(hi_up, PER_OTHER, c->ffn_hi, (c->ffn_hi > 0) * c->width, PROJ, MODE_VECTOR, init_in(c))
X(hi_gate, PER_OTHER, is_gated(c) * c->ffn_hi, (c->ffn_hi > 0) * c->width, PROJ,
  MODE_VECTOR, init_in(c))
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
    real *gate;  /* (N,E,r) what it multiplies f with, if it is gated */
    real *small; /* (N,C) the chosen small MLP's output */
    real *prob;  /* (N,E) softmax, or 1: w of the one that is chosen; each phase's own */
    real *used;  /* (E) the share of the last batch that used each; each phase's own */
    Act in;      /* (N,E,r) hidden numbers, quantized */
} PquantPhase;

typedef struct {
    PquantPhase *phase; /* (phases); all the same buffers unless training */
    real *df, *dgate;   /* (N,E,r) */
    real *dsmall;       /* (N,E,C) of the small MLPs' outputs: 0 of those not chosen */
    real *dw;           /* (N) w_e d(w_e) */
    real *dz;           /* (N,E) of the router's outputs */
    int tokens;         /* of the last batch */
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

static int is_of_small(const Golf *m, const Tensor *t) {
    return t >= m->tensor + T_hi_up && t <= m->tensor + T_hi_down;
}

static int pquant_store(const Golf *m, Tensor *t) {
    if (!is_of_small(m, t)) return 0;
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
        const int shared = s > all->phase && (!m->train || c->recompute);
        if (shared) *s = *all->phase;
        s->prob = owned_reals(m, N * E);
        s->used = owned_reals(m, E);
        if (shared) continue;
        s->large = owned_reals(m, N * C);
        s->f = owned_reals(m, N * hidden);
        s->gate = owned_reals(m, N * hidden * is_gated(c));
        s->small = owned_reals(m, N * C);
        act_alloc(m, &s->in, T_hi_down, N, hidden);
    }
    if (!m->train) return;
    all->df = owned_reals(m, N * hidden);
    all->dgate = owned_reals(m, N * hidden * is_gated(c));
    all->dsmall = owned_reals(m, N * E * C);
    all->dw = owned_reals(m, N);
    all->dz = owned_reals(m, N * E);
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
                         .gate = s->gate + n0 * hidden * is_gated(c),
                         .small = s->small + n0 * C,
                         .prob = s->prob + n0 * E,
                         .used = s->used,
                         .in = act_at(&s->in, n0, hidden)};
}

static Pquant pquant_flow(const Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const size_t n0 = (size_t)k->n0, E = (size_t)c->hi_experts;
    const Pquant *all = m->own[SYS_pquant];
    const size_t hidden = E * (size_t)c->ffn_hi;
    return (Pquant){.df = all->df + n0 * hidden,
                    .dgate = all->dgate + n0 * hidden * is_gated(c),
                    .dsmall = all->dsmall + n0 * E * (size_t)c->width,
                    .dw = all->dw + n0,
                    .dz = all->dz + n0 * E,
                    .tokens = all->tokens};
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
        prob[e] = (real)exp_of((double)(prob[e] - most));
        sum += prob[e];
    }
    for (int e = 0; e < E; e++) prob[e] = prob[e] / sum;
}

/* Of the small MLPs: f, who is chosen with which weight, quantized hidden numbers. */
static void fill_small_hidden(Golf *m, const Chunk *k, PquantPhase *x, real *hidden) {
    const Config *c = &m->config;
    const int E = c->hi_experts, r = c->ffn_hi, n = k->n;
    const Mat in = inputs_of(m, &k->s.in_up, T_wup);

    for (int e = 0; e < E; e++) {
        const Packed *up = small_packed(m, T_hi_up, k->p, e);
        const Packed *gate = small_packed(m, T_hi_gate, k->p, e);
        gemm_panels(x->f + e * r, E * r, in, &up->forward, n, 0);
        if (is_gated(c)) gemm_panels(x->gate + e * r, E * r, in, &gate->forward, n, 0);
    }
    m->act->forward(hidden, x->f, x->gate, n, E * r);
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
    /* small = D_e act(f) */
    for (int e = 0; e < E; e++)
        gemm_panels(d.df + e * r, E * r, mat(d.dsmall + e * C, (size_t)(E * C)),
                    &small_packed(m, T_hi_down, k->p, e)->back, n, 0);
    m->act->backward(d.df, d.dgate, x.f, x.gate, n, E * r);
}

/* ---- The router. */
static void pquant_start(Golf *m, const Golf *from, int convert) {
    const Tensor *t = m->tensor + T_router;
    const double size = sqrt(0.1 / m->config.width);
    (void)convert;
    if (from) return;
    for (size_t i = 0; i < t->n; i++)
        m->master[t->at + i] = (real)(size * normal01(init_key(m, t), i));
}

/* used (E): f_e of N tokens. Returns sum_e f_e P_e. */
static double router_shares(const Config *c, const PquantPhase *s, int p, int N) {
    const int E = c->hi_experts;
    double sum = 0;
    memset(s->used, 0, sizeof(real) * (size_t)E);
    for (int i = 0; i < N; i++)
        s->used[small_chosen(c, s->prob + i * E, p)] += 1 / (real)N;
    for (int i = 0; i < N; i++) sum += (double)inner(s->used, s->prob + i * E, E) / N;
    return sum;
}

/* The balancing loss, c E sum_e f_e P_e of every phase that ran. */
static double router_balance(Golf *m, const int *tokens, int B, int T) {
    const Config *c = &m->config;
    Pquant *all = m->own[SYS_pquant];
    double sum = 0;
    (void)tokens;
    if (c->hi_route == ROUTE_PHASE) return 0;
    all->tokens = B * T;
    for (int i = 0; i < m->n_visits; i++) {
        const int p = m->visits[i];
        sum += router_shares(c, all->phase + p, p, B * T);
    }
    return c->hi_balance * c->hi_experts * sum;
}

/* forward: z = R u,  w = softmax(z)_chosen,  loss += rate * sum_e f_e prob_e of every
 * token.  dz (E) of one, from dw = w d(w) */
static void router_dz(real *dz, real dw, const real *prob, int chosen, const real *used,
                      real rate, int E) {
    const real mean = inner(used, prob, E);
    for (int e = 0; e < E; e++)
        dz[e] = dw * ((e == chosen) - prob[e]) + rate * prob[e] * (used[e] - mean);
}

/* dR += dz u^T */
static void router_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts;
    real *drouter = dvec_of(m, T_router, k);
    const Mat in = inputs_of(m, &k->s.in_up, T_wup);
    const PquantPhase x = pquant_phase(m, k);
    const Pquant d = pquant_flow(m, k);
    const real rate = (real)(c->hi_balance * E / MAX(d.tokens, 1));

    if (c->hi_route == ROUTE_PHASE) return;
    for (size_t i = 0; i < (size_t)k->n; i++) {
        const real *prob = x.prob + i * (size_t)E;
        real *dz = d.dz + i * (size_t)E;
        router_dz(dz, d.dw[i], prob, small_chosen(c, prob, k->p), x.used, rate, E);
        for (int e = 0; e < E; e++)
            for (int j = 0; j < C; j++)
                drouter[e * C + j] += dz[e] * mat_get(in, i, (size_t)j);
    }
}

/* du (n,C) += dz_e R_e */
static void router_dx(const Golf *m, const Chunk *k, real *du, int e) {
    const int C = m->config.width, E = m->config.hi_experts;
    const Pquant d = pquant_flow(m, k);

    if (m->config.hi_route == ROUTE_PHASE) return;
    const real *row = vec_of(m, T_router, k) + e * C;
    for (int i = 0; i < k->n; i++)
        for (int j = 0; j < C; j++) du[i * C + j] += d.dz[i * E + e] * row[j];
}

/* du += what comes back through the small MLPs, f = U_e u and gate = G_e u, and the
 * router. */
static void small_inputs_backward(Golf *m, const Chunk *k, real *du, real *room) {
    const Config *c = &m->config;
    const int C = c->width, E = c->hi_experts, r = c->ffn_hi, n = k->n;
    const Pquant d = pquant_flow(m, k);

    for (int e = 0; e < E; e++) {
        const Packed *up = small_packed(m, T_hi_up, k->p, e);
        const Packed *gate = small_packed(m, T_hi_gate, k->p, e);
        const size_t ld = (size_t)(E * r);
        gemm_panels(room, C, mat(d.df + e * r, ld), &up->back, n, 0);
        if (is_gated(c)) gemm_panels(room, C, mat(d.dgate + e * r, ld), &gate->back, n, 1);
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
    real *du = scratch(3 * wide), *room = du + wide;

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
    real *dW_gate = m->grad + m->tensor[T_hi_gate].at; /* copies as large as those of up */
    const Mat in = inputs_of(m, &m->phase[p].in_up, T_wup);
    const Pquant *all = m->own[SYS_pquant];
    int count = mlp_dw(m, p, N, to);
    for (int e = 0; e < E; e++) {
        const size_t copy = (size_t)(block_of(c, p) * E + e) * up->copy_n;
        const Mat dy = mat_t(all->dsmall + e * C, (size_t)(E * C));
        const Mat df = mat_t(all->df + e * r, (size_t)(E * r));
        const Mat hidden = small_hidden(m, &all->phase[p].in, e);
        real *ddown = m->grad + down->at + copy, *dup = m->grad + up->at + copy;
        to[count++] = (Gemm){ddown, (size_t)r, dy, hidden, C, r, N, 1, NULL};
        to[count++] = (Gemm){dup, (size_t)C, df, in, r, C, N, 1, NULL};
        if (!is_gated(c)) continue;
        const Mat dgate = mat_t(all->dgate + e * r, (size_t)(E * r));
        to[count++] = (Gemm){dW_gate + copy, (size_t)C, dgate, in, r, C, N, 1, NULL};
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

/* The shares of the last batch, phase after phase: "0.3 0.7 0.5 0.5" in the log, as in the lists
 * of others, "0.3,0.7], [0.5,0.5" in JSON; or nothing. */
static void print_used(const Golf *m, FILE *f, const char *comma, const char *between) {
    const Pquant *all = m->own[SYS_pquant];
    const int E = m->config.hi_experts;
    if (m->config.hi_route == ROUTE_PHASE) return;
    for (int p = 0; p < m->phases; p++)
        for (int e = 0; e < E; e++)
            fprintf(f, "%s%.4f", e ? comma : p ? between : "",
                    (double)all->phase[p].used[e]);
}

static void pquant_log_row(const Golf *m, FILE *f) { /* of some steps: it takes time */
    const int measured = m->step % 100 == 0 || m->step == m->config.steps;
    fputc('\t', f);
    if (measured) fprintf(f, "%.4f", small_share(m));
    fputc('\t', f);
    if (measured) print_used(m, f, " ", " ");
}

static void pquant_result(const Golf *m, FILE *f) {
    fprintf(f, "  \"hi_share\": %.17g,\n", small_share(m));
    if (m->config.hi_route == ROUTE_PHASE) return;
    fputs("  \"hi_used\": [[", f);
    print_used(m, f, ",", "], [");
    fputs("]],\n", f);
}

static double pquant_flops(const Golf *m, const Tensor *t) {
    if (!is_of_small(m, t)) return -1;
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
                                     .start = pquant_start,
                                     .forward = router_balance,
                                     .columns = "\thi_share\thi_used",
                                     .log_row = pquant_log_row,
                                     .result = pquant_result,
                                     .flops = pquant_flops};

#elif defined TESTS
/* y (C) += scale * D act(U u), from u (C), U (F,C), D (C,F); gate (F,C) of swiglu. */
static void add_naive_mlp(double *y, const double *u, const real *up, const real *gate,
                          const real *down, double scale, int act, int C, int F) {
    for (int f = 0; f < F; f++) {
        double sum = 0, z = 0, active;
        for (int i = 0; i < C; i++) sum += (double)up[f * C + i] * u[i];
        active = sum > 0 ? sum * sum : 0;
        if (act == ACT_RELU) active = sum > 0 ? sum : 0;
        if (act == ACT_SWIGLU) {
            for (int i = 0; i < C; i++) z += (double)gate[f * C + i] * u[i];
            active = z / (1 + exp(-z)) * sum;
        }
        for (int i = 0; i < C; i++) y[i] += scale * active * (double)down[i * F + f];
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

/* u (C) = RMSNorm(mid), without a gain. */
static void naive_norm(double *u, const real *mid, int C) {
    double square = 0;
    for (int k = 0; k < C; k++) square += (double)mid[k] * (double)mid[k] / C;
    for (int k = 0; k < C; k++) u[k] = (double)mid[k] / sqrt(square + 1e-6);
}

/* y of all tokens and phases by its definition, in floating point; phase p uses block[p],
 * and by phase small MLP turn[p] of it. */
static void check_small_mlps(const char *arm, const int *block, const int *turn) {
    enum { C = 16, F = 32, R = 5, E = 3, N = 32, P = 6 };
    Golf m;
    char text[300];
    double worst = 0;
    snprintf(text, sizeof text,
             "vocab=20 width=16 heads=2 hidden=32 seq=16 unique=2 repeat=3 ffn_hi=5 "
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
        double u[C], want[C] = {0}, weight = 1;
        int e = turn[p];
        naive_norm(u, mid, C);
        if (m.config.hi_route == ROUTE_TOKEN)
            weight = naive_choice(&e, u, eff_of(&m, T_router, p), E, C);
        add_naive_mlp(want, u, eff_of(&m, T_wup, b), eff_of(&m, T_wgate, b),
                      eff_of(&m, T_wdown, b), (double)*eff_of(&m, T_beta, p),
                      m.config.act, C, F);
        add_naive_mlp(want, u, eff_of(&m, T_hi_up, b * E + e),
                      eff_of(&m, T_hi_gate, b * E + e), eff_of(&m, T_hi_down, b * E + e),
                      (double)*eff_of(&m, T_alpha, p) * weight, m.config.act, C, R);
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
    check_small_mlps("act=swiglu", cycle, cycle_turn);
    check_small_mlps("act=relu hi_route=token", cycle, cycle_turn);
    check_small_mlps("hi_route=token wq=int4 ffn_hi_bits=8", cycle, cycle_turn);
}

#define BALANCE_MODEL \
    "vocab=20 width=16 heads=2 mlp=2 seq=16 batch=4 repeat=2 steps=40 ffn_hi=4 " \
    "hi_experts=4 hi_route=token wq=none aq=none extra_norm=none gain=none "

/* c E sum_e f_e P_e of a phase from what its tokens see, and the shares f. */
static double naive_balance(const Golf *m, int p, double *f, int N) {
    enum { C = 16, E = 4 };
    const real *R = eff_of(m, T_router, p);
    double mean[E] = {0}, sum = 0;
    memset(f, 0, E * sizeof(double));
    for (int n = 0; n < N; n++) {
        double u[C], z[E], all = 0;
        int chosen = 0;
        naive_norm(u, m->phase[p].mid + n * C, C);
        naive_choice(&chosen, u, R, E, C);
        f[chosen] += 1.0 / N;
        for (int e = 0; e < E; e++) {
            z[e] = 0;
            for (int k = 0; k < C; k++) z[e] += (double)R[e * C + k] * u[k];
            all += exp(z[e]);
        }
        for (int e = 0; e < E; e++) mean[e] += exp(z[e]) / all / N;
    }
    for (int e = 0; e < E; e++) sum += f[e] * mean[e];
    return m->config.hi_balance * E * sum;
}

/* The balancing loss by its definition, in a batch smaller than the buffers; and it is
 * part of what training minimises. */
static void test_router_balance(void) {
    enum { N = 64, PART = 32, E = 4 };
    const int *x = tokens_below(20, N, 80), *y = tokens_below(20, N, 81);
    Golf m;
    new_model(&m, BALANCE_MODEL "hi_balance=0.3", N);
    for (size_t i = 0; i < m.n_params; i++) m.master[i] += (real)0.3 * noise(31, i);
    golf_quantize(&m);
    const double loss = golf_forward(&m, x, y, 2, 16);
    const Pquant *all = m.own[SYS_pquant];
    double want = 0, plain = 0, worst = 0;
    for (int p = 0; p < 2; p++) {
        double f[E];
        want += naive_balance(&m, p, f, PART);
        for (int e = 0; e < E; e++)
            worst = worse(worst, fabs(f[e] - (double)all->phase[p].used[e]));
    }
    for (int n = 0; n < PART; n++) plain += (double)m.loss[n] / PART;
    CHECK(near(router_balance(&m, x, 2, 16), want, 10 * EPS), "%.9g, not %.9g",
          router_balance(&m, x, 2, 16), want);
    CHECK(near(loss - plain, want, 100 * EPS), "%.9g of the loss", loss - plain);
    CHECK(worst < EPS, "shares off by %g", worst);
    golf_free(&m);
}

static double least_used(const Golf *m) {
    const Pquant *all = m->own[SYS_pquant];
    double least = 1;
    for (int p = 0; p < m->phases; p++)
        for (int e = 0; e < m->config.hi_experts; e++)
            least = fmin(least, (double)all->phase[p].used[e]);
    return least;
}

/* No small MLP is left out, neither at the start nor after training; without the loss
 * some are. */
static void test_router_uses_all(void) {
    enum { N = 64 };
    const int *x = tokens_below(20, N, 80);
    Golf m, with;
    new_model(&m, BALANCE_MODEL, N);
    golf_forward(&m, x, x, 4, 16);
    CHECK(least_used(&m) > 0.02, "at the start one has %.3f", least_used(&m));
    golf_free(&m);
    new_model(&m, BALANCE_MODEL "lr_interface=0.05 hi_balance=0", N);
    new_model(&with, BALANCE_MODEL "lr_interface=0.05 hi_balance=0.1", N);
    run_steps(&m, 0, 40);
    run_steps(&with, 0, 40);
    CHECK(least_used(&with) > 0.05 && least_used(&with) > least_used(&m),
          "after training one has %.3f, without the loss %.3f", least_used(&with),
          least_used(&m));
    golf_free(&m);
    golf_free(&with);
}

/* With --recompute the shares of a phase outlive its other buffers. */
static void test_router_recompute(void) {
    const int *x = tokens_below(20, 64, 80), *y = tokens_below(20, 64, 81);
    Golf m, again;
    new_model(&m, BALANCE_MODEL "hi_balance=0.5", 64);
    new_model(&again, BALANCE_MODEL "hi_balance=0.5 recompute=1", 64);
    golf_forward(&m, x, y, 4, 16);
    golf_backward(&m, x, 4, 16);
    golf_forward(&again, x, y, 4, 16);
    golf_backward(&again, x, 4, 16);
    CHECK(!memcmp(m.grad, again.grad, m.n_params * sizeof(real)), "other gradients");
    CHECK(least_used(&m) == least_used(&again), "other shares");
    golf_free(&m);
    golf_free(&again);
}

/* The shares as the log and result.json have them. */
static void test_router_log(void) {
    Golf m;
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    new_model(&m, BALANCE_MODEL, 64);
    const Pquant *all = m.own[SYS_pquant];
    for (int i = 0; i < 8; i++) all->phase[i / 4].used[i % 4] = (real)0.01 * (real)i;
    print_used(&m, f, " ", " ");
    fputc('|', f);
    print_used(&m, f, ",", "], [");
    fclose(f);
    CHECK(!strcmp(text, "0.0000 0.0100 0.0200 0.0300 0.0400 0.0500 0.0600 0.0700|"
                        "0.0000,0.0100,0.0200,0.0300], [0.0400,0.0500,0.0600,0.0700"),
          "%s", text);
    free(text);
    golf_free(&m);
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
                              "ffn_hi=4 act=swiglu",
                              "ffn_hi=3 hi_experts=3 hi_route=token act=swiglu unique=2",
                              "ffn_hi=3 hi_experts=2 hi_route=token phase=0 seq=24 mlp=1",
                              "ffn_hi=3 hi_experts=3 hi_route=token hi_balance=2",
                              "ffn_hi=4 hi_experts=2 hi_route=token hi_balance=1 repeat=3",
                              "ffn_hi=4 hi_experts=4 hi_route=token hi_balance=0 aq=none",
                              NULL},
    .files = (const char *const[]){"ffn_hi=8 hi_experts=2 hi_route=token", "ffn_hi=8",
                                   "ffn_hi=8 hi_experts=3 hi_route=token ffn_hi_bits=4",
                                   "ffn_hi=8 ffn_hi_bits=16 hi_experts=2 aq=none",
                                   "ffn_hi=8 hi_experts=2 act=swiglu", NULL},
    .errors =
        (const char *const[][2]){
            {"--ffn_hi=8 --hi_experts=3 --repeat=2", "--hi_experts|--repeat"},
            {"--ffn_hi=8 --hi_experts=2 --repeat=2 --prelude=1",
             "--hi_experts|no prelude"},
            {"--ffn_hi=8 --hi_route=token", "--hi_route|--hi_experts"},
            {"--hi_experts=2", "--hi_experts|--ffn_hi"},
            {"--ffn_hi=8 --hi_experts=2 --hi_balance=1", "--hi_balance=1|--hi_route=token"},
            {"--ffn_hi_bits=4", "--ffn_hi_bits|--ffn_hi"},
            {"--ffn_hi=8 --ffn_hi_bits=9", "--ffn_hi_bits|4 to 8|16|'9'"},
            {NULL, NULL}},
    .tests = (const Test[]){{"small MLPs", test_small_mlps},
                            {"router balance", test_router_balance},
                            {"router uses all", test_router_uses_all},
                            {"router recompute", test_router_recompute},
                            {"router log", test_router_log},
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
bug router-without-dx double "pquant: grad" "$(in_ router_dx)s/du\[i \* C + j\] += d.dz/du[i * C + j] += 0 * d.dz/"
bug balance-forgotten-backward double "pquant: grad" "$(in_ router_dz)s/ + rate \* prob.*/;/"
bug balance-without-softmax double "pquant: grad" "$(in_ router_dz)s/(used\[e\] - mean)/used[e]/"
bug balance-of-all-buffers double "pquant: router balance" "$(in_ router_balance)s/p, B \* T)/p, (int)m->N)/"
bug shares-of-the-last-phase float "pquant: router recompute" "$(in_ pquant_buffers)s/if (shared) \*s = \*all->phase;/if (shared) { *s = *all->phase; continue; }/"
bug router-starts-at-zero float "pquant: router uses" "$(in_ pquant_start)s/size \*/0 * size */"
bug one-phase-for-all-shares float "pquant: router balance" "$(in_ router_balance)s/all->phase + p, p/all->phase, p/"
bug small-gate-without-dx double "pquant: grad" \
    "$(in_ small_inputs_backward)s/if (is_gated(c)) gemm_panels(room/if (0) gemm_panels(room/"
bug small-gate-of-the-first float "pquant: small MLPs" \
    "$(in_ fill_small_hidden)s/T_hi_gate, k->p, e)/T_hi_gate, k->p, 0)/"
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
