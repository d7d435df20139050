/* moeut.h - MoEUT (2405.16039): a looped transformer whose block holds many small
 * experts, of which each token uses a few. Its parts:
 *
 * sigma-MoE, --experts=E: experts in the MLP, each an MLP of G = expert_size hidden
 * numbers.
 *     z = Wsel u (+ a bias per phase, --moe_bias=1),  S = the topk largest of z,
 *     y = the sum over e in S of sigmoid(z_e) * MLP_e(u)
 *
 * SwitchHead (2312.07987), --attn_experts=A: each head has A value and A output
 * matrices. Logits zv choose attn_topk values for each key/value head, logits zo as many
 * outputs for each head:
 *     v = the sum over the chosen a of sigmoid(zv_a) * V_a u
 *     o = the sum over the heads and their chosen a of sigmoid(zo_a) * O_a att
 * With A = 1 there is nothing to choose: v = V u, and o keeps its gates.
 *
 * Peri-norm, --norm=peri: only what feeds a softmax or a choice is normed. q, k and all
 * logits see u = RMSNorm(h) * g_attn or RMSNorm(mid) * g_mlp; values see h, experts mid.
 *
 * Entropy, --moe_entropy=c: the loss has  c * sum_e P_e log P_e  besides, for each block,
 * where P is the mean of softmax(z) over the tokens of a sequence and the phases of the
 * block. It keeps all experts in use. Of attention's choices it takes c / 10, and the
 * mean over the heads.
 *
 * Start, --init=moeut: N(0, 2 / phases / inputs), where the down projection counts the
 * inputs of all experts, E * G. Rows of Wsel get equal lengths; those of attention's
 * choices are made equal, too, and then multiplied with the deviation that each had, which
 * takes this back but for their means: so the official code does it (renorm_keep_std,
 * renorm_rows).
 *
 * Stored: experts are copies of wup and wdown (copy b * E + e is expert e of block b),
 * V_a further rows of wqkv, O_a further columns of wo, quantized as the core does it;
 * the matrices that choose are integers of 8 bits with a scale per row; biases are part
 * of the interface, in 16 bits.
 *
 * Cost: the MLP's FLOPs are those of topk * G hidden numbers, its bytes those of E * G.
 * Attention computes all A values and multiplies O_a with zeros where a is not chosen, A
 * being small: A times the FLOPs of both. Pairs of token and expert are sorted by
 * expert, so that each expert is a few large products; topk rows per token and phase are
 * kept for the backward pass.
 *
 * What differs from the paper: ReLU and RoPE over half of a head are options of the core,
 * --act=relu --rope=half. RMSNorm with gains for LayerNorm; (unless --extra_norm=none) a
 * norm before the down projections; the core's gates, input injection, normed queries and
 * keys, and a tied head. Inputs are quantized, also those of the choice. The
 * width of a head is that of the model by the heads. The bias per phase, and fewer
 * key/value heads than heads, are additions. */
#ifdef OPTIONS
X(MODEL | QUIET, INT, experts, "0", "0 to 64", "E, of the MLP; 0 = one MLP")
X(MODEL | QUIET, INT, topk, "2", "1 to 64", "K of them that each token uses")
X(MODEL | QUIET, INT, expert_size, "128", "8 to 65536", "their hidden width")
X(MODEL | QUIET, INT, moe_bias, "0", "0|1", "a bias per phase on their choice")
X(MODEL | QUIET, INT, attn_experts, "0", "0 to 16", "A values and outputs for each head")
X(MODEL | QUIET, INT, attn_topk, "2", "1 to 16", "of them, used by each token")
X(MODEL | QUIET, INT, norm, "pre", "pre|peri", "peri: only before a softmax or a choice")
X(TRAIN, INT, init, "own", "own|moeut", "start of the weights")
X(TRAIN, NUM, moe_entropy, "0.01", "0 to 10", "c of the loss that keeps experts in use")

#elif defined MEANINGS
M(moe_entropy, c->experts || c->attn_experts > 1, "with one expert")
M(init, !has_donor(c) || c->experts || c->attn_experts, "with trained weights for all")

#elif defined TENSORS
/* clang-format off */
X(sel_mlp,  PER_BLOCK, c->experts, c->width, FACTOR, MODE_VECTOR, init_in(c))
X(sel_bias, PER_PHASE, 1, c->experts, INTERFACE, c->moe_bias * MODE_VECTOR, 0)
X(sel_v,    PER_BLOCK, (c->attn_experts > 1) * kv_heads(c) * c->attn_experts, c->width,
  FACTOR, MODE_VECTOR, init_in(c))
X(sel_o,    PER_BLOCK, c->heads * c->attn_experts, c->width, FACTOR, MODE_VECTOR,
  init_in(c))
/* clang-format on */

#elif defined LIST
X(moeut)

#elif defined CODE
enum { NORM_PRE, NORM_PERI };
enum { INIT_OWN, INIT_MOEUT };
enum { MOST_EXPERTS = 64 };

/* A token makes three choices in a phase: of MLP experts; for its heads, of values and of
 * outputs. Each has L = groups * size logits. */
enum { OF_MLP, OF_VALUES, OF_OUTPUTS, CHOICES };

typedef struct {
    int tensor;            /* its rows give the logits */
    int reads;             /* the projection whose inputs it sees */
    int groups, size, top; /* in each group, `top` of `size` experts are chosen */
} Choice;

/* Rows [from, from + n) of the sorted pairs belong to expert e; n is at most CHUNK. */
typedef struct {
    int e, from, n;
} ExpertTask;

/* What the backward pass needs of a phase. Sizes as in the core, and K = topk, R = N * K
 * pairs of token and choice, G = expert_size. */
typedef struct {
    real *z[CHOICES];     /* (N,L) logits */
    int *chosen[CHOICES]; /* (N,groups,top) */
    int *row;             /* (N,K) where the pair was sorted to */
    real *f, *r_xd, *o;   /* (R,G), (R), (R,C) of the experts, as in the core's MLP */
    Act in_down;          /* (R,G) */
    Act in_sel;           /* (N,C) with peri, of the MLP's choice */
    Act in_v;             /* (N,C) with peri, of the values */
    real *qkv;            /* (N,rows of wqkv) as projected, with all A values */
    Act in_o;             /* (N,A*C) att times gates, A times */
} MoeutPhase;

typedef struct {
    MoeutPhase *phase;    /* (phases) all the same buffers unless training */
    double *log[CHOICES]; /* (sequences,blocks,L) log P times its rate */
    real *dz[CHOICES];    /* (N,L) */
    int *pair;            /* (R) of each row: token * K + number of the choice */
    ExpertTask *task;     /* (tasks) of the phase at hand */
    int tasks;
    Act x;               /* (R,C) the experts' inputs, sorted */
    real *dx, *d_o, *df; /* (R,C), (R,C), (R,G) */
    real *dqkv;          /* (N,rows of wqkv) with all A values */
} Moeut;

static Moeut *moeut_of(const Golf *m) { return m->own[SYS_moeut]; }

static MoeutPhase *moeut_phase(const Golf *m, int p) { return moeut_of(m)->phase + p; }

static int is_peri(const Golf *m) { return m->config.norm == NORM_PERI; }

/* One value needs no choice, and has no gate; one output has a gate all the same. */
static int values_are_chosen(const Config *c) { return c->attn_experts > 1; }

static Choice choice_of(const Config *c, int which) {
    const int values = values_are_chosen(c) ? c->attn_experts : 0;
    const Choice choices[CHOICES] = {
        [OF_MLP] = {T_sel_mlp, T_wup, 1, c->experts, c->topk},
        [OF_VALUES] = {T_sel_v, T_wqkv, kv_heads(c), values, c->attn_topk},
        [OF_OUTPUTS] = {T_sel_o, T_wqkv, c->heads, c->attn_experts, c->attn_topk}};
    return choices[which];
}

/* L */
static int choice_logits(const Config *c, int which) {
    const Choice choice = choice_of(c, which);
    return choice.groups * choice.size;
}

/* ---- Choosing */
static int is_among(const int *chosen, int count, int e) {
    for (int i = 0; i < count; i++)
        if (chosen[i] == e) return 1;
    return 0;
}

/* The `top` largest of z (size), the largest first; of equal ones the first. */
static void choose_top(int *chosen, const real *z, int size, int top) {
    for (int k = 0; k < top; k++) {
        int best = -1;
        for (int e = 0; e < size; e++) {
            if (is_among(chosen, k, e)) continue;
            if (best < 0 || z[e] > z[best]) best = e;
        }
        chosen[k] = best;
    }
}

static real choice_gate(real z) { return 1 / (1 + (real)exp_of(-(double)z)); }

/* z = Wsel x, + sel_bias of the MLP's; and what is chosen.  x (n,C) */
static void choice_forward(const Golf *m, const Chunk *k, int which, const Act *x) {
    const Choice of = choice_of(&m->config, which);
    const size_t L = (size_t)choice_logits(&m->config, which), n0 = (size_t)k->n0;
    const int copy = copy_of(m, m->tensor + of.tensor, k->p);
    real *z = moeut_phase(m, k->p)->z[which] + n0 * L;
    int *chosen = moeut_phase(m, k->p)->chosen[which] + n0 * of.groups * of.top;

    gemm_panels(z, L, inputs_of(m, x, of.reads), &packed_of(m, of.tensor, copy, 0)->forward,
                k->n, 0);
    if (which == OF_MLP) {
        const real *bias = vec_of(m, T_sel_bias, k);
        for (int n = 0; n < k->n; n++)
            for (int e = 0; e < of.size; e++) z[n * of.size + e] += bias[e];
    }

    for (int i = 0; i < k->n * of.groups; i++)
        choose_top(chosen + i * of.top, z + i * of.size, of.size, of.top);
}

/* ---- Entropy */
/* log P of a choice (L) in a sequence, times its rate: what the backward pass needs. */
static double *balance_log(const Golf *m, int which, int sequence, int block) {
    const size_t i = (size_t)sequence * block_count(&m->config) + block;
    return moeut_of(m)->log[which] + i * choice_logits(&m->config, which);
}

/* P (E) = softmax(z).  z (E) */
static void choice_softmax(double *P, const real *z, int E) {
    double sum = 0;
    for (int e = 0; e < E; e++) {
        P[e] = exp_of((double)(z[e] - z[0]));
        sum += P[e];
    }
    for (int e = 0; e < E; e++) P[e] /= sum;
}

/* Adds softmax(z) of all tokens of a sequence in all phases of a block to sum (size).
 * Returns how many these are. */
static int add_softmaxes(double *sum, const Golf *m, int which, int sequence, int block,
                         int group) {
    const Choice of = choice_of(&m->config, which);
    const size_t L = (size_t)choice_logits(&m->config, which);
    int count = 0;

    for (int r = 0; r < m->n_visits; r++) {
        const int p = m->visits[r];
        const real *z = moeut_phase(m, p)->z[which] + (size_t)sequence * m->T * L;
        if (block_of(&m->config, p) != block) continue;
        for (int t = 0; t < m->T; t++) {
            double P[MOST_EXPERTS];
            choice_softmax(P, z + t * L + group * of.size, of.size);
            for (int e = 0; e < of.size; e++) sum[e] += P[e];
            count++;
        }
    }
    return count;
}

/* The loss c sum_e P_e log P_e of a choice, sequence and block, of B sequences. */
static double entropy_forward(const Golf *m, int which, int sequence, int block, int B) {
    const Choice of = choice_of(&m->config, which);
    const double share = which == OF_MLP ? 1 : 10.0 * of.groups;
    const double rate = m->config.moe_entropy / B / share;
    double *log_p = balance_log(m, which, sequence, block), loss = 0;
    if (!of.size) return 0;

    for (int g = 0; g < of.groups; g++) {
        double sum[MOST_EXPERTS] = {0};
        const int count = add_softmaxes(sum, m, which, sequence, block, g);
        if (!count) continue; /* a block that did not run */
        for (int e = 0; e < of.size; e++) {
            log_p[e] = rate / count * log_of(fmax(sum[e] / count, 1e-30));
            loss += sum[e] * log_p[e];
        }
        log_p += of.size;
    }
    return loss;
}

/* forward: loss = c sum_e P_e log P_e, P the mean of `count` softmaxes. As P sums to 1,
 * of d(P log P) = (log P + 1) dP the 1 falls out. With p = softmax(z) of this token, and
 * log_p as the forward kept it, times c / count:
 *      dz += p * (log_p - sum_e p_e log_p_e)
 * dz (size) <- z, log_p (size) */
static void entropy_backward(real *dz, const real *z, const double *log_p, int size) {
    double P[MOST_EXPERTS], mean = 0;
    choice_softmax(P, z, size);
    for (int e = 0; e < size; e++) mean += P[e] * log_p[e];
    for (int e = 0; e < size; e++) dz[e] += (real)(P[e] * (log_p[e] - mean));
}

/* Sum over blocks and choices, mean over sequences. */
static double moeut_entropy(Golf *m, const int *tokens, int B, int T) {
    const int blocks = block_count(&m->config), parts = CHOICES * B * blocks;
    double *part = xcalloc((size_t)parts, sizeof(double)), loss = 0;
    (void)tokens;
    (void)T;

#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < parts; i++) {
        const int which = i % CHOICES, sequence = i / CHOICES / blocks;
        part[i] = entropy_forward(m, which, sequence, i / CHOICES % blocks, B);
    }
    for (int i = 0; i < parts; i++) loss += part[i];
    free(part);
    return loss;
}

/* forward: z = Wsel x + sel_bias. dz holds what comes through the gates of the chosen;
 * here what the entropy adds, and the bias's gradient. */
static void choice_backward(const Golf *m, const Chunk *k, int which) {
    const Choice of = choice_of(&m->config, which);
    const size_t L = (size_t)choice_logits(&m->config, which), n0 = (size_t)k->n0;
    const real *z = moeut_phase(m, k->p)->z[which] + n0 * L;
    real *dz = moeut_of(m)->dz[which] + n0 * L;
    real *dbias = which == OF_MLP ? dvec_of(m, T_sel_bias, k) : NULL;

    for (int n = 0; n < k->n; n++) {
        const int sequence = (k->n0 + n) / m->T;
        const double *log_p = balance_log(m, which, sequence, block_of(&m->config, k->p));
        for (int g = 0; g < of.groups; g++) {
            const size_t at = n * L + g * of.size;
            entropy_backward(dz + at, z + at, log_p + g * of.size, of.size);
        }
        if (!dbias) continue;
        for (int e = 0; e < of.size; e++) dbias[e] += dz[n * L + e];
    }
}

/* forward: z = Wsel x, so dx = (or, with acc, +=) dz Wsel.  dx (n,C) */
static void choice_dx(const Golf *m, real *dx, const Chunk *k, int which, int acc) {
    const int sel = choice_of(&m->config, which).tensor, C = m->config.width;
    const size_t L = (size_t)choice_logits(&m->config, which);
    const Packed *w = packed_of(m, sel, copy_of(m, m->tensor + sel, k->p), 0);
    const Mat dz = mat(moeut_of(m)->dz[which] + (size_t)k->n0 * L, L);
    gemm_panels(dx, (size_t)C, dz, &w->back, k->n, acc);
}

/* forward: z = Wsel x, so dWsel += dz^T x.  x (N,C) */
static Gemm choice_dw(const Golf *m, const Act *x, int p, int which, int N) {
    const int sel = choice_of(&m->config, which).tensor;
    const int copy = copy_of(m, m->tensor + sel, p);
    const size_t L = (size_t)choice_logits(&m->config, which);
    Gemm w = linear_dw(m, mat(moeut_of(m)->dz[which], L), x, sel, copy, 0, N);
    w.b = inputs_of(m, x, choice_of(&m->config, which).reads);
    return w;
}

/* ---- Experts in the MLP: mid -> out.
 * Each token chooses; then all tokens meet, and each expert takes its rows; then each
 * token adds up what its experts say. */

/* What the choice sees, from token n0 on. */
static Act input_of_choice(const Golf *m, int p, size_t n0) {
    const Act *x = is_peri(m) ? &moeut_phase(m, p)->in_sel : &m->phase[p].in_up;
    return act_at(x, n0, (size_t)m->config.width);
}

/* u = RMSNorm(mid) * g_mlp;  the experts see u, or RMSNorm(u) * x_up; with peri mid */
static void expert_choice_forward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, n = k->n, each = c->extra_norm == XN_EACH;
    real *u = scratch((size_t)2 * CHUNK * C), *room = u + (size_t)CHUNK * C;
    Act sel = input_of_choice(m, k->p, (size_t)k->n0);
    PhaseBuffers s = k->s;

    rmsnorm_forward(u, s.r_mlp, s.mid, vec_of(m, T_g_mlp, k), n, C);
    if (is_peri(m)) input_of(m, &sel, T_wup, 0, NULL, u, NULL, n, C, NULL);
    input_of(m, &s.in_up, T_wup, each, s.r_up, is_peri(m) ? s.mid : u,
             vec_of(m, T_x_up, k), n, C, room);
    choice_forward(m, k, OF_MLP, &sel);
}

/* Row `to` of a = row `from` of x, K numbers. */
static void copy_input(Act *a, size_t to, const Act *x, size_t from, size_t K) {
    if (x->x) memcpy(a->x + to * K, x->x + from * K, sizeof(real) * K);
    if (!x->q) return;
    memcpy(a->q + to * K, x->q + from * K, K);
    a->step[to] = x->step[from];
}

/* A counting sort of the pairs by expert: the row of each pair, the pair of each row, the
 * tasks, the inputs of all rows. */
static void sort_pairs(Golf *m, int p, int N) {
    const int K = m->config.topk, E = m->config.experts, C = m->config.width;
    Moeut *own = moeut_of(m);
    const MoeutPhase *s = own->phase + p;
    const int *chosen = s->chosen[OF_MLP];
    int next[MOST_EXPERTS] = {0}, from = 0; /* next: free row of each expert */

    for (int i = 0; i < N * K; i++) next[chosen[i]]++; /* so far: how many */
    own->tasks = 0;
    for (int e = 0; e < E; e++) {
        const int end = from + next[e];
        next[e] = from;
        for (; from < end; from += MIN(end - from, CHUNK))
            own->task[own->tasks++] = (ExpertTask){e, from, MIN(end - from, CHUNK)};
    }
    for (int i = 0; i < N * K; i++) {
        s->row[i] = next[chosen[i]]++;
        own->pair[s->row[i]] = i;
    }

    PARALLEL((double)N * K * C)
    for (int row = 0; row < N * K; row++)
        copy_input(&own->x, row, &m->phase[p].in_up, own->pair[row] / K, (size_t)C);
}

/* The rows of a task, as in the core's MLP:
 * f = Wup x;  o = Wdown (RMSNorm(act(f)) * x_mlp) */
static void expert_forward(const Golf *m, int p, const ExpertTask *task) {
    const Config *c = &m->config;
    const int C = c->width, G = c->expert_size, n = task->n;
    const int copy = block_of(c, p) * c->experts + task->e;
    const int norm = c->extra_norm >= XN_OUT;
    const size_t at = (size_t)task->from;
    const MoeutPhase *s = moeut_phase(m, p);
    const Act x = act_at(&moeut_of(m)->x, at, (size_t)C);
    Act in_down = act_at(&s->in_down, at, (size_t)G);
    real *f = s->f + at * G, *o = s->o + at * C;
    real *u = scratch((size_t)2 * CHUNK * G), *room = u + (size_t)CHUNK * G;

    linear_forward(m, f, (size_t)G, &x, T_wup, copy, 0, n);
    m->act->forward(u, f, NULL, n, G);
    input_of(m, &in_down, T_wdown, norm, s->r_xd + at, u, phase_vector(m, T_x_mlp, p), n,
             G, room);
    linear_forward(m, o, (size_t)C, &in_down, T_wdown, copy, 0, n);
}

static void experts_forward(Golf *m, int p, int B, int T) {
    const Moeut *own = moeut_of(m);
    sort_pairs(m, p, B * T);
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < own->tasks; i++) expert_forward(m, p, own->task + i);
}

/* y = the sum over the chosen e of sigmoid(z_e) * o, of the pair's row;
 * out = mid + gate_mlp * y */
static void expert_sum_forward(Golf *m, const Chunk *k) {
    const int C = m->config.width, E = m->config.experts, K = m->config.topk;
    const MoeutPhase *s = moeut_phase(m, k->p);

    for (int i = 0; i < k->n; i++) {
        const size_t n = (size_t)(k->n0 + i);
        const real *z = s->z[OF_MLP] + n * E;
        real *y = k->s.y + i * C;
        memset(y, 0, sizeof(real) * (size_t)C);
        for (int j = 0; j < K; j++) {
            const real gate = choice_gate(z[s->chosen[OF_MLP][n * K + j]]);
            const real *o = s->o + (size_t)s->row[n * K + j] * C;
            FOR_COLUMNS(d, C) y[d] += gate * o[d];
        }
    }
    gate_forward(k->s.out, k->s.mid, k->s.y, vec_of(m, T_gate_mlp, k), k->n, C);
}

/* forward: out = mid + gate_mlp * y */
static void expert_sum_backward(Golf *m, const Chunk *k) {
    const int C = m->config.width, E = m->config.experts;
    gate_backward(k->f.dy, dvec_of(m, T_gate_mlp, k), k->f.dh, k->s.y,
                  vec_of(m, T_gate_mlp, k), k->n, C);
    memset(moeut_of(m)->dz[OF_MLP] + (size_t)k->n0 * E, 0,
           sizeof(real) * (size_t)(k->n * E));
}

/* forward: y = the sum of sigmoid(z_e) * o. For the rows of a task:
 *      do = sigmoid(z_e) * dy,  dz_e = (dy . o) * sigmoid'(z_e)
 * for dy of the row's token. */
static void expert_gates_backward(const Golf *m, int p, const ExpertTask *task) {
    const int C = m->config.width, E = m->config.experts, K = m->config.topk;
    const Moeut *own = moeut_of(m);
    const MoeutPhase *s = own->phase + p;

    for (int i = 0; i < task->n; i++) {
        const size_t row = (size_t)(task->from + i), n = (size_t)(own->pair[row] / K);
        const real gate = choice_gate(s->z[OF_MLP][n * E + task->e]);
        const real *dy = m->dy + n * C;
        real *d_o = own->d_o + row * C;
        own->dz[OF_MLP][n * E + task->e] =
            inner(dy, s->o + row * C, C) * gate * (1 - gate);
        FOR_COLUMNS(d, C) d_o[d] = gate * dy[d];
    }
}

/* forward: f = Wup x;  o = Wdown (RMSNorm(act(f)) * x_mlp). A task has a row of sums
 * for x_mlp, as chunks have. */
static void expert_backward(const Golf *m, int p, int number) {
    const Config *c = &m->config;
    const Moeut *own = moeut_of(m);
    const ExpertTask *task = own->task + number;
    const int C = c->width, G = c->expert_size, n = task->n;
    const int copy = block_of(c, p) * c->experts + task->e;
    const size_t at = (size_t)task->from;
    const MoeutPhase *s = own->phase + p;
    real *df = own->df + at * G, *d_o = own->d_o + at * C;
    const real *f = s->f + at * G;

    expert_gates_backward(m, p, task);
    linear_dx(m, df, mat(d_o, (size_t)C), T_wdown, copy, 0, n);
    if (c->extra_norm) {
        real *u = scratch((size_t)CHUNK * G);
        m->act->forward(u, f, NULL, n, G);
        rmsnorm_backward(df, 0, chunk_dvector(m, T_x_mlp, (size_t)number * CHUNK), df, u,
                         s->r_xd + at, phase_vector(m, T_x_mlp, p), n, G);
    }
    m->act->backward(df, NULL, f, NULL, n, G);
    linear_dx(m, own->dx + at * C, mat(df, (size_t)G), T_wup, copy, 0, n);
}

static void experts_backward(Golf *m, int p, int B, int T) {
    const Moeut *own = moeut_of(m);
    sort_pairs(m, p, B * T);
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < own->tasks; i++) expert_backward(m, p, i);
}

/* forward: u = RMSNorm(mid) * g_mlp;  the experts see u, or RMSNorm(u) * x_up; with peri
 * mid. The choice and the token's rows each bring a part of du. */
static void expert_choice_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, K = c->topk, n = k->n;
    const int *row = moeut_phase(m, k->p)->row + (size_t)k->n0 * K;
    real *du = scratch((size_t)2 * CHUNK * C), *u = du + (size_t)CHUNK * C;
    real *dx_sum = is_peri(m) ? k->f.dh : du;
    const PhaseBuffers s = k->s;

    choice_backward(m, k, OF_MLP);
    choice_dx(m, du, k, OF_MLP, 0);
    for (int i = 0; i < n * K; i++) {
        const real *dx = moeut_of(m)->dx + (size_t)row[i] * C;
        real *to = dx_sum + i / K * C;
        FOR_COLUMNS(d, C) to[d] += dx[d];
    }
    if (c->extra_norm == XN_EACH) {
        rmsnorm_forward(u, s.r_mlp, s.mid, vec_of(m, T_g_mlp, k), n, C);
        rmsnorm_backward(du, 0, dvec_of(m, T_x_up, k), du, u, s.r_up,
                         vec_of(m, T_x_up, k), n, C);
    }
    rmsnorm_backward(k->f.dh, 1, dvec_of(m, T_g_mlp, k), du, s.mid, s.r_mlp,
                     vec_of(m, T_g_mlp, k), n, C);
}

/* One product of the choice, and two of each expert over the rows of all its tasks. */
static int experts_dw(const Golf *m, int p, int N, Gemm *to) {
    const Config *c = &m->config;
    const int C = c->width, G = c->expert_size;
    const Moeut *own = moeut_of(m);
    const Act sel = input_of_choice(m, p, 0);
    int count = 0, i = 0;

    to[count++] = choice_dw(m, &sel, p, OF_MLP, N);
    for (int e = 0; e < c->experts; e++) {
        const int copy = block_of(c, p) * c->experts + e;
        const size_t at = i < own->tasks ? (size_t)own->task[i].from : 0;
        const Act x = act_at(&own->x, at, (size_t)C);
        const Act in_down = act_at(&own->phase[p].in_down, at, (size_t)G);
        const real *dy = own->d_o + at * C, *df = own->df + at * G;
        int rows = 0;

        while (i < own->tasks && own->task[i].e == e) {
            rows += own->task[i].n;
            i++;
        }
        if (!rows) continue;
        to[count++] = linear_dw(m, mat(dy, (size_t)C), &in_down, T_wdown, copy, 0, rows);
        to[count++] = linear_dw(m, mat(df, (size_t)G), &x, T_wup, copy, 0, rows);
    }
    return count;
}

static const Sublayer mlp_of_experts = {.before = expert_choice_forward,
                                        .across = experts_forward,
                                        .after = expert_sum_forward,
                                        .after_backward = expert_sum_backward,
                                        .across_backward = experts_backward,
                                        .before_backward = expert_choice_backward,
                                        .dw = experts_dw};

/* ---- Experts in attention, peri-norm, or both: h -> mid.
 * The stages are the core's, but for what v is made of and what Wo multiplies. */

/* What a group of a token has chosen: `top` of A vectors (D) that are `stride` apart. */
typedef struct {
    const real *z;
    const int *chosen;
    int top, stride, D;
} Gated;

/* Group g of token n in phase p. */
static Gated gated_of(const Golf *m, int p, int which, int n, int g) {
    const Config *c = &m->config;
    const Choice of = choice_of(c, which);
    const MoeutPhase *s = moeut_phase(m, p);
    const size_t group = (size_t)n * of.groups + g;
    return (Gated){.z = s->z[which] + group * of.size,
                   .chosen = s->chosen[which] + group * of.top,
                   .top = of.top,
                   .stride = which == OF_VALUES ? kv_heads(c) * head_dim(c) : c->width,
                   .D = head_dim(c)};
}

/* out = the sum over the chosen a of sigmoid(z_a) * x_a.  out (D) <- x (A,D) */
static void gated_sum_forward(real *out, const real *x, const Gated *of) {
    memset(out, 0, sizeof(real) * (size_t)of->D);
    for (int i = 0; i < of->top; i++) {
        const int a = of->chosen[i];
        const real gate = choice_gate(of->z[a]), *xa = x + (size_t)a * of->stride;
        for (int d = 0; d < of->D; d++) out[d] += gate * xa[d];
    }
}

/* forward: out = the sum over the chosen a of sigmoid(z_a) * x_a
 *      dx_a = sigmoid(z_a) * dout,  dz_a += (dout . x_a) * sigmoid'(z_a)
 * dx (A,D), dz (A) <- dout (D), x (A,D) */
static void gated_sum_backward(real *dx, real *dz, const real *dout, const real *x,
                               const Gated *of) {
    for (int i = 0; i < of->top; i++) {
        const int a = of->chosen[i];
        const size_t at = (size_t)a * of->stride;
        const real gate = choice_gate(of->z[a]);
        for (int d = 0; d < of->D; d++) dx[at + d] = gate * dout[d];
        dz[a] += inner(dout, x + at, of->D) * gate * (1 - gate);
    }
}

/* out_a = sigmoid(z_a) * x for the chosen a; others keep their 0.  out (A,D) <- x (D) */
static void gated_copies_forward(real *out, const real *x, const Gated *of) {
    for (int i = 0; i < of->top; i++) {
        const int a = of->chosen[i];
        const real gate = choice_gate(of->z[a]);
        real *out_a = out + (size_t)a * of->stride;
        for (int d = 0; d < of->D; d++) out_a[d] = gate * x[d];
    }
}

/* forward: out_a = sigmoid(z_a) * x for the chosen a
 *      dx = the sum of sigmoid(z_a) * dout_a,  dz_a += (dout_a . x) * sigmoid'(z_a)
 * dx (D), dz (A) <- dout (A,D), x (D) */
static void gated_copies_backward(real *dx, real *dz, const real *dout, const real *x,
                                  const Gated *of) {
    memset(dx, 0, sizeof(real) * (size_t)of->D);
    for (int i = 0; i < of->top; i++) {
        const int a = of->chosen[i];
        const real gate = choice_gate(of->z[a]), *dout_a = dout + (size_t)a * of->stride;
        for (int d = 0; d < of->D; d++) dx[d] += gate * dout_a[d];
        dz[a] += inner(dout_a, x, of->D) * gate * (1 - gate);
    }
}

/* The inputs of q, k and v from token n0 on, and how many there are: one for all three;
 * or with extra_norm=each one for each; or with peri u, u again and h, as the core splits
 * the rows of q, k and v into three ranges or not at all. */
static int qkv_inputs(const Golf *m, int p, size_t n0, Act in[3]) {
    const size_t C = (size_t)m->config.width;
    const PhaseBuffers *s = m->phase + p;
    in[0] = act_at(&s->in_q, n0, C);
    if (is_peri(m)) {
        in[1] = in[0];
        in[2] = act_at(&moeut_phase(m, p)->in_v, n0, C);
    } else if (m->split_qkv) {
        in[1] = act_at(&s->in_k, n0, C);
        in[2] = act_at(&s->in_v, n0, C);
    }
    return m->split_qkv ? 3 : 1;
}

/* Where the values start in a row of qkv, be it the core's or that with A of them. */
static size_t first_value(const Golf *m) { return (size_t)qk_rows(&m->config); }

/* v of token n of the chunk = the sum over the chosen a of sigmoid(zv_a) * V_a u.
 * v (KV,D) <- all (A,KV,D) */
static void chosen_values(const Golf *m, const Chunk *k, int n, real *v,
                          const real *all) {
    const int KV = kv_heads(&m->config), D = head_dim(&m->config);
    for (int g = 0; g < KV; g++) {
        const Gated of = gated_of(m, k->p, OF_VALUES, k->n0 + n, g);
        gated_sum_forward(v + g * D, all + g * D, &of);
    }
}

/* v = the sum over the chosen a, or V u of the only one. It goes to the core's qkv, where
 * `attend` looks for it. */
static void values_forward(const Golf *m, const Chunk *k, const Act *sel) {
    const Config *c = &m->config;
    const size_t one = sizeof(real) * (size_t)(kv_heads(c) * head_dim(c));
    const size_t ld = (size_t)m->tensor[T_wqkv].rows;
    const int chosen = values_are_chosen(c);
    if (chosen) choice_forward(m, k, OF_VALUES, sel);

    for (int n = 0; n < k->n; n++) {
        const real *all = moeut_phase(m, k->p)->qkv + (k->n0 + n) * ld + first_value(m);
        real *v = k->s.qkv + n * qkv_rows(c) + first_value(m);
        if (chosen) chosen_values(m, k, n, v, all);
        else memcpy(v, all, one);
    }
}

/* forward: v = the sum over the chosen a of sigmoid(zv_a) * V_a u.
 * Of token n of the chunk: dall (A,KV,D), and dz <- dv (KV,D), all (A,KV,D) */
static void chosen_values_backward(const Golf *m, const Chunk *k, int n, real *dall,
                                   const real *dv, const real *all) {
    const Config *c = &m->config;
    const int KV = kv_heads(c), D = head_dim(c), A = c->attn_experts;
    const size_t L = (size_t)choice_logits(c, OF_VALUES);
    real *dz = moeut_of(m)->dz[OF_VALUES] + (size_t)(k->n0 + n) * L;

    memset(dall, 0, sizeof(real) * (size_t)(A * KV * D));
    memset(dz, 0, sizeof(real) * L);
    for (int g = 0; g < KV; g++) {
        const Gated of = gated_of(m, k->p, OF_VALUES, k->n0 + n, g);
        gated_sum_backward(dall + g * D, dz + g * A, dv + g * D, all + g * D, &of);
    }
}

/* forward: v = the sum over the chosen a, or V u of the only one. d(v) is in the core's
 * dqkv, where attend_backward left it. */
static void values_backward(const Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const size_t one = sizeof(real) * (size_t)(kv_heads(c) * head_dim(c));
    const size_t ld = (size_t)m->tensor[T_wqkv].rows, from = first_value(m);
    const Moeut *own = moeut_of(m);
    const int chosen = values_are_chosen(c);

    for (int n = 0; n < k->n; n++) {
        const size_t at = (size_t)(k->n0 + n) * ld + from;
        const real *dv = k->f.dqkv + n * qkv_rows(c) + from;
        const real *all = own->phase[k->p].qkv + at;
        if (chosen) chosen_values_backward(m, k, n, own->dqkv + at, dv, all);
        else memcpy(own->dqkv + at, dv, one);
    }
    if (chosen) choice_backward(m, k, OF_VALUES);
}

/* u = RMSNorm(h) * g_attn;  q,k,v = Wqkv u, or each W (RMSNorm(u) * x); with peri
 * v = Wv h;  q, k normed and rotated;  both choices see the input of q */
static void moeut_qkv_forward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, n = k->n, each = c->extra_norm == XN_EACH;
    const size_t ld = (size_t)m->tensor[T_wqkv].rows;
    real *u = scratch((size_t)2 * CHUNK * C), *room = u + (size_t)CHUNK * C;
    real *qkv = moeut_phase(m, k->p)->qkv + (size_t)k->n0 * ld;
    const PhaseBuffers s = k->s;
    Act in[3];
    const int ranges = qkv_inputs(m, k->p, (size_t)k->n0, in);

    rmsnorm_forward(u, s.r_attn, s.h, vec_of(m, T_g_attn, k), n, C);
    for (int r = 0; r < ranges; r++) {
        const int again = is_peri(m) && r == 1; /* the input of q is there already */
        const real *x = is_peri(m) && r == 2 ? s.h : u;
        if (!again)
            input_of(m, in + r, T_wqkv, each, s.r_each, x, vec_of(m, T_x_q + r, k), n, C,
                     room);
        project(m, qkv, ld, in + r, T_wqkv, k->p, r, n);
    }
    qk_forward(s.qk, qkv, (int)ld, vec_of(m, T_q_gain, k), m->rope, m->cached, k->n0, n,
               m->T, c->heads, kv_heads(c), head_dim(c));
    if (!c->attn_experts) return;
    values_forward(m, k, in);
    choice_forward(m, k, OF_OUTPUTS, in);
}

/* forward: the input of range r is RMSNorm(u) * x; with peri u, u and h. From its
 * gradient dx onto du, or onto d(h). For one range nothing is to be done: dx is du. */
static void qkv_input_backward(Golf *m, const Chunk *k, int r, real *du, const real *dx,
                               const real *u) {
    const int C = m->config.width, n = k->n;
    if (m->config.extra_norm == XN_EACH) {
        rmsnorm_backward(du, r > 0, dvec_of(m, T_x_q + r, k), dx, u, k->s.r_each,
                         vec_of(m, T_x_q + r, k), n, C);
        return;
    }
    if (!is_peri(m)) return;
    if (r == 0) {
        memcpy(du, dx, sizeof(real) * (size_t)(n * C));
        return;
    }
    real *to = r == 2 ? k->f.dh : du;
    FOR_COLUMNS(i, n * C) to[i] += dx[i];
}

/* forward: u = RMSNorm(h) * g_attn;  q,k,v = Wqkv u, or each W (RMSNorm(u) * x); with
 * peri v = Wv h;  q, k normed and rotated;  both choices see the input of q */
static void moeut_qkv_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, n = k->n;
    const size_t ld = (size_t)m->tensor[T_wqkv].rows;
    const real *qkv = moeut_phase(m, k->p)->qkv + (size_t)k->n0 * ld;
    real *dqkv = c->attn_experts ? moeut_of(m)->dqkv + (size_t)k->n0 * ld : k->f.dqkv;
    real *du = scratch((size_t)3 * CHUNK * C), *u = du + (size_t)CHUNK * C;
    real *dx = m->split_qkv ? u + (size_t)CHUNK * C : du;
    Act in[3];
    const int ranges = qkv_inputs(m, k->p, (size_t)k->n0, in);

    qk_backward(dqkv, dvec_of(m, T_q_gain, k), k->f.dqk, qkv, (int)ld,
                vec_of(m, T_q_gain, k), m->rope, k->n0, n, m->T, c->heads, kv_heads(c),
                head_dim(c));
    if (c->attn_experts) values_backward(m, k);
    if (c->extra_norm == XN_EACH)
        rmsnorm_forward(u, k->s.r_attn, k->s.h, vec_of(m, T_g_attn, k), n, C);

    for (int r = 0; r < ranges; r++) {
        project_dx(m, dx, mat(dqkv, ld), in + r, T_wqkv, k->p, r, n);
        if (r == 0 && values_are_chosen(c)) choice_dx(m, dx, k, OF_VALUES, 1);
        if (r == 0 && c->attn_experts) choice_dx(m, dx, k, OF_OUTPUTS, 1);
        qkv_input_backward(m, k, r, du, dx, u);
    }
    rmsnorm_backward(k->f.dh, 1, dvec_of(m, T_g_attn, k), du, k->s.h, k->s.r_attn,
                     vec_of(m, T_g_attn, k), n, C);
}

/* u = RMSNorm(att) * x_attn, or att.  u (n,C) */
static void normed_heads(const Golf *m, const Chunk *k, real *u) {
    const int C = m->config.width;
    if (m->config.extra_norm)
        rmsnorm_forward(u, k->s.r_xo, k->s.att, vec_of(m, T_x_attn, k), k->n, C);
    else memcpy(u, k->s.att, sizeof(real) * (size_t)(k->n * C));
}

/* u = RMSNorm(att) * x_attn;  x: A copies of u, a head's part times its gate, or 0 where
 * a is not chosen;  mid = h + gate_attn * Wo x */
static void outputs_forward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, D = head_dim(c), n = k->n, AC = c->attn_experts * C;
    real *u = scratch((size_t)CHUNK * (C + AC)), *copies = u + (size_t)CHUNK * C;
    Act in_o = act_at(&moeut_phase(m, k->p)->in_o, (size_t)k->n0, (size_t)AC);

    normed_heads(m, k, u);
    memset(copies, 0, sizeof(real) * (size_t)(n * AC));
    for (int i = 0; i < n; i++)
        for (int h = 0; h < c->heads; h++) {
            const Gated of = gated_of(m, k->p, OF_OUTPUTS, k->n0 + i, h);
            gated_copies_forward(copies + i * AC + h * D, u + i * C + h * D, &of);
        }
    input_of(m, &in_o, T_wo, 0, NULL, copies, NULL, n, AC, NULL);
    project(m, k->s.o, (size_t)C, &in_o, T_wo, k->p, 0, n);
    gate_forward(k->s.mid, k->s.h, k->s.o, vec_of(m, T_gate_attn, k), n, C);
}

/* forward: u = RMSNorm(att) * x_attn;  x: A gated copies;  mid = h + gate_attn * Wo x */
static void outputs_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, A = c->attn_experts, H = c->heads, D = head_dim(c), n = k->n;
    const Act in_o = act_at(&moeut_phase(m, k->p)->in_o, (size_t)k->n0, (size_t)(A * C));
    real *u = scratch((size_t)CHUNK * (C + A * C)), *dcopies = u + (size_t)CHUNK * C;
    real *dz = moeut_of(m)->dz[OF_OUTPUTS] + (size_t)k->n0 * H * A;
    const PhaseBuffers s = k->s;
    const Flow f = k->f;

    gate_backward(f.d_o, dvec_of(m, T_gate_attn, k), f.dh, s.o, vec_of(m, T_gate_attn, k),
                  n, C);
    project_dx(m, dcopies, mat(f.d_o, (size_t)C), &in_o, T_wo, k->p, 0, n);
    normed_heads(m, k, u);
    memset(dz, 0, sizeof(real) * (size_t)(n * H * A));
    for (int i = 0; i < n; i++)
        for (int h = 0; h < H; h++) {
            const Gated of = gated_of(m, k->p, OF_OUTPUTS, k->n0 + i, h);
            const int at = i * C + h * D;
            gated_copies_backward(f.datt + at, dz + (i * H + h) * A,
                                  dcopies + i * A * C + h * D, u + at, &of);
        }
    choice_backward(m, k, OF_OUTPUTS);
    if (c->extra_norm)
        rmsnorm_backward(f.datt, 0, dvec_of(m, T_x_attn, k), f.datt, s.att, s.r_xo,
                         vec_of(m, T_x_attn, k), n, C);
}

static int moeut_attention_dw(const Golf *m, int p, int N, Gemm *to) {
    const int A = m->config.attn_experts, C = m->config.width;
    const Act *in_o = A ? &moeut_phase(m, p)->in_o : &m->phase[p].in_o;
    const real *dqkv = A ? moeut_of(m)->dqkv : m->dqkv;
    const size_t ld = (size_t)m->tensor[T_wqkv].rows;
    Act in[3];
    const int ranges = qkv_inputs(m, p, 0, in);
    int count = 0;

    for (int r = 0; r < ranges; r++)
        to[count++] = project_dw(m, mat(dqkv, ld), in + r, T_wqkv, p, r, N);
    to[count++] = project_dw(m, mat(m->d_o, (size_t)C), in_o, T_wo, p, 0, N);
    if (!A) return count;
    if (A > 1) to[count++] = choice_dw(m, in, p, OF_VALUES, N);
    to[count++] = choice_dw(m, in, p, OF_OUTPUTS, N);
    return count;
}

static const Sublayer attention_of_experts = {.before = moeut_qkv_forward,
                                              .across = attend,
                                              .after = outputs_forward,
                                              .after_backward = outputs_backward,
                                              .across_backward = attend_backward,
                                              .before_backward = moeut_qkv_backward,
                                              .dw = moeut_attention_dw};

static const Sublayer attention_peri = {.before = moeut_qkv_forward,
                                        .across = attend,
                                        .after = output_forward,
                                        .after_backward = output_backward,
                                        .across_backward = attend_backward,
                                        .before_backward = moeut_qkv_backward,
                                        .dw = moeut_attention_dw};

/* ---- Joining the core */
static int moeut_on(const Config *c) {
    return c->experts || c->attn_experts || c->norm || c->init;
}

static int moeut_takes(const Config *c) {
    int taken = 0;
    if (c->experts) taken |= RES_MLP | RES_MLP_COPIES | RES_MLP_ADDITIONS;
    if (c->attn_experts) taken |= RES_ATTENTION_COPIES | RES_ATTENTION_ADDITIONS;
    if (c->attn_experts) taken |= RES_ATTENTION;
    if (c->norm == NORM_PERI) taken |= RES_ATTENTION;
    return taken;
}

static int moeut_uses(const Config *c) {
    return c->experts || c->attn_experts ? RES_COPIES | RES_INPUTS : 0;
}

static int moeut_wqkv_rows(const Config *c) {
    const int values = MAX(c->attn_experts, 1);
    return qk_rows(c) + values * kv_heads(c) * head_dim(c);
}

static void moeut_check_run(const Config *c) {
    const double pairs = (double)group_tokens(c) * c->topk; /* an int counts them */
    if (c->experts && pairs > 1 << 24)
        die("--batch x --seq x --topk: at most 2^24 with --experts");
}

static void moeut_check(const Config *c) {
    option_needs(c, "topk", c->experts, "experts");
    option_needs(c, "expert_size", c->experts, "experts");
    option_needs(c, "moe_bias", c->experts, "experts");
    option_needs(c, "attn_topk", c->attn_experts, "attn_experts");
    option_needs(c, "moe_entropy", c->experts || c->attn_experts,
                 "experts or --attn_experts");
    if (c->experts && c->topk > c->experts) die("--topk: at most --experts; give both");
    if (c->attn_experts && c->attn_topk > c->attn_experts)
        die("--attn_topk: at most --attn_experts; give both");
    if (c->experts && is_gated(c))
        die("--experts have two matrices: expected no --act=swiglu, which has a third");
    if (c->experts && c->hidden) die("--experts have --expert_size, no --hidden");
    if (c->recompute && (c->experts || c->attn_experts))
        die("--experts and --attn_experts: expected no --recompute");
    if (c->norm == NORM_PERI && (!c->experts || c->extra_norm == XN_EACH))
        die("--norm=peri is for the MLP's experts: expected --experts, and no "
            "--extra_norm=each");
    if ((double)c->width * moeut_wqkv_rows(c) > 1 << 30)
        die("--attn_experts=%d at --width=%d: expected at most 2^30 weights a matrix",
            c->attn_experts, c->width);
}

/* --init=moeut: sizes at the start. */
static void moeut_init(Golf *m) {
    const Config *c = &m->config;
    const double deep = sqrt(2.0 / phase_count(c));
    const int to_hidden[] = {T_wqkv, T_wup, T_sel_mlp, T_sel_v, T_sel_o};
    const int inputs = m->tensor[T_wdown].cols * MAX(c->experts, 1);

    for (size_t i = 0; i < COUNT(to_hidden); i++)
        m->tensor[to_hidden[i]].init = deep / sqrt((double)c->width);
    m->tensor[T_wo].init = deep / sqrt((double)c->width);
    m->tensor[T_wdown].init = deep / sqrt((double)inputs);
}

/* The standard deviation of n numbers, with n - 1. */
static double deviation(const real *x, size_t n) {
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        square += ((double)x[i] - mean) * ((double)x[i] - mean);
    return sqrt(square / (double)(n - 1));
}

/* Rows of what chooses, w (rows,C): made as long as each other, then all multiplied so
 * that the deviation is what it was; of `each` row, or of all together. */
static void renormalise(real *w, int rows, int C, int each) {
    const size_t n = (size_t)rows * (size_t)C;
    const double all = deviation(w, n);
    double *was = xcalloc((size_t)rows, sizeof(double));

    for (int r = 0; r < rows; r++) {
        real *row = w + r * C;
        const real length = sqrt(inner(row, row, C));
        was[r] = each ? deviation(row, (size_t)C) : all;
        for (int i = 0; i < C; i++) row[i] /= length;
    }
    const double unit = deviation(w, n);
    for (size_t i = 0; i < n; i++) w[i] *= (real)(was[i / (size_t)C] / unit);
    free(was);
}

static void moeut_start(Golf *m, const Golf *from, int convert) {
    const int choosing[] = {T_sel_mlp, T_sel_v, T_sel_o};
    (void)convert;
    if (from || m->config.init != INIT_MOEUT) return;
    for (size_t i = 0; i < COUNT(choosing); i++) {
        const Tensor *t = m->tensor + choosing[i];
        if (!t->n) continue;
        for (int j = 0; j < t->stored_copies; j++)
            renormalise(m->master + t->at + (size_t)j * t->copy_n, t->rows, t->cols,
                        choosing[i] != T_sel_mlp);
    }
}

static void moeut_shape(Golf *m) {
    const Config *c = &m->config;
    Tensor *up = m->tensor + T_wup, *down = m->tensor + T_wdown;
    if (c->experts) {
        up->per = PER_OTHER;
        up->stored_copies = block_count(c) * c->experts;
        up->rows = c->expert_size;
        down->per = PER_OTHER;
        down->stored_copies = up->stored_copies;
        down->cols = c->expert_size;
        down->init = init_out(c, c->expert_size);
        m->tensor[T_x_mlp].cols = c->expert_size;
        m->mlp = &mlp_of_experts;
    }
    if (is_peri(m)) {
        m->split_qkv = 1;
        m->attention = &attention_peri;
    }
    if (c->attn_experts) {
        m->tensor[T_wqkv].rows = moeut_wqkv_rows(c);
        m->tensor[T_wo].cols = c->attn_experts * c->width;
        m->attention = &attention_of_experts;
    }
    if (c->init == INIT_MOEUT) moeut_init(m);
}

/* The buffers of phase p for N tokens, R pairs. */
static void moeut_phase_buffers(Golf *m, int p, size_t N, size_t R) {
    const Config *c = &m->config;
    const size_t C = (size_t)c->width, G = (size_t)c->expert_size;
    MoeutPhase *s = moeut_phase(m, p);

    for (int which = 0; which < CHOICES; which++) {
        const Choice of = choice_of(c, which);
        if (!of.size) continue;
        s->z[which] = owned_reals(m, N * choice_logits(c, which));
        s->chosen[which] = owned(m, N * of.groups * of.top, sizeof(int));
    }
    if (c->experts) {
        s->row = owned(m, R, sizeof(int));
        act_alloc(m, &s->in_down, T_wdown, R, G);
        s->f = owned_reals(m, R * G);
        s->r_xd = owned_reals(m, R);
        s->o = owned_reals(m, R * C);
    }
    if (is_peri(m)) {
        act_alloc(m, &s->in_sel, T_wup, N, C);
        act_alloc(m, &s->in_v, T_wqkv, N, C);
    }
    s->qkv = m->phase[p].qkv;
    if (c->attn_experts) {
        s->qkv = owned_reals(m, N * m->tensor[T_wqkv].rows);
        act_alloc(m, &s->in_o, T_wo, N, m->tensor[T_wo].cols);
    }
}

/* Gradients, for N tokens, R pairs. */
static void moeut_gradient_buffers(Golf *m, size_t N, size_t R) {
    const Config *c = &m->config;
    const size_t C = (size_t)c->width, G = (size_t)c->expert_size;
    Moeut *own = moeut_of(m);

    for (int which = 0; which < CHOICES; which++)
        own->dz[which] = owned_reals(m, N * choice_logits(c, which));
    if (c->experts) {
        own->dx = owned_reals(m, R * C);
        own->d_o = owned_reals(m, R * C);
        own->df = owned_reals(m, R * G);
    }
    if (c->attn_experts) own->dqkv = owned_reals(m, N * m->tensor[T_wqkv].rows);
}

static void moeut_buffers(Golf *m, size_t N) {
    const Config *c = &m->config;
    const size_t R = c->experts ? N * c->topk : 0, blocks = (size_t)block_count(c);
    const size_t tasks = CEIL(R, CHUNK) + c->experts; /* each expert's last is not full */
    Moeut *own = owned(m, 1, sizeof(Moeut));

    m->own[SYS_moeut] = own;
    own->phase = owned(m, (size_t)m->phases, sizeof(MoeutPhase));
    moeut_phase_buffers(m, 0, N, R);
    for (int p = 1; p < m->phases; p++) {
        if (m->train) moeut_phase_buffers(m, p, N, R);
        else own->phase[p] = *own->phase;
    }
    /* there are at most as many sequences as tokens */
    for (int which = 0; which < CHOICES; which++)
        own->log[which] = owned(m, N * blocks * choice_logits(c, which), sizeof(double));
    if (c->experts) {
        own->task = owned(m, tasks, sizeof(ExpertTask));
        own->pair = owned(m, R, sizeof(int));
        act_alloc(m, &own->x, T_wup, R, (size_t)c->width);
    }
    m->rows_partial = MAX(m->rows_partial, tasks);
    if (m->train) moeut_gradient_buffers(m, N, R);
}

/* A token meets topk of the experts. */
static double moeut_flops(const Golf *m, const Tensor *t) {
    const Config *c = &m->config;
    const int of_experts = t == m->tensor + T_wup || t == m->tensor + T_wdown;
    return c->experts && of_experts ? (double)m->phases * c->topk : -1;
}

static const System moeut_system = {.name = "moeut",
                                    .needs = "experts or --attn_experts",
                                    .on = moeut_on,
                                    .takes = moeut_takes,
                                    .uses = moeut_uses,
                                    .check = moeut_check,
                                    .check_run = moeut_check_run,
                                    .shape = moeut_shape,
                                    .buffers = moeut_buffers,
                                    .start = moeut_start,
                                    .forward = moeut_entropy,
                                    .flops = moeut_flops};

#elif defined TESTS
/* ---- The definition: the whole model in doubles, one token after the other, from what is
 * stored. Attention and MLP with experts or one of each; extra_norm none or out. */
enum { MOEUT_C = 16, MOEUT_T = 8, MOEUT_B = 2, MOEUT_V = 20, MOEUT_G = 32 };
enum { MOEUT_GROUPS = 4, MOEUT_E = 5 };
static const int moeut_tokens = MOEUT_B * MOEUT_T;

typedef struct {
    const Golf *m;
    int p, block; /* the phase, and the block that it uses */
    double h[MOEUT_T][MOEUT_C], x0[MOEUT_T][MOEUT_C], u[MOEUT_T][MOEUT_C];
    double q[MOEUT_T][MOEUT_C], k[MOEUT_T][MOEUT_C], v[MOEUT_T][MOEUT_C];
    double o[MOEUT_T][MOEUT_C], y[MOEUT_T][MOEUT_C];
    /* sums of softmax(z) over the tokens and phases of each block */
    double share[CHOICES][3][MOEUT_GROUPS][MOEUT_E];
} Defined;

static const real *defined_copy(const Defined *d, int tensor, int copy) {
    const Tensor *t = d->m->tensor + tensor;
    return d->m->eff + t->at + (size_t)copy * t->copy_n;
}

/* Number i of a vector of this phase. */
static double defined_vector(const Defined *d, int tensor, int i) {
    const Tensor *t = d->m->tensor + tensor;
    const real *w = defined_copy(d, tensor, d->p);
    if (t->mode == MODE_NONE) return t->init;
    return (double)w[t->mode == MODE_VECTOR ? i : 0];
}

/* out (rows) = w x.  w (rows,cols), its rows ld apart, x (cols) */
static void defined_product(double *out, const real *w, int ld, const double *x, int rows,
                            int cols) {
    for (int i = 0; i < rows; i++) {
        out[i] = 0;
        for (int k = 0; k < cols; k++) out[i] += (double)w[i * ld + k] * x[k];
    }
}

/* out (n) = x / RMS */
static void defined_norm(double *out, const double *x, int n) {
    double square = 0;
    for (int i = 0; i < n; i++) square += x[i] * x[i] / n;
    for (int i = 0; i < n; i++) out[i] = x[i] / sqrt(square + 1e-6);
}

/* The same times a gain of this phase. */
static void defined_gained(const Defined *d, double *out, const double *x, int tensor,
                           int n) {
    defined_norm(out, x, n);
    for (int i = 0; i < n; i++) out[i] *= defined_vector(d, tensor, i);
}

/* sigmoid(z) of the `top` largest of z = sel u (+ bias), 0 for the others; 1 where there is
 * none to choose. gate (size) */
static void defined_gates(Defined *d, double *gate, int which, int group, const double *u,
                          int size, int top) {
    static const int tensor[CHOICES] = {T_sel_mlp, T_sel_v, T_sel_o};
    double z[MOEUT_E], sum = 0;
    gate[0] = 1;
    if (!size) return;
    defined_product(z, defined_copy(d, tensor[which], d->block) + group * size * MOEUT_C,
                    MOEUT_C, u, size, MOEUT_C);
    for (int e = 0; e < size; e++) {
        if (which == OF_MLP) z[e] += defined_vector(d, T_sel_bias, e);
        sum += exp(z[e]);
    }
    for (int e = 0; e < size; e++) {
        int larger_ones = 0;
        for (int i = 0; i < size; i++) larger_ones += z[i] > z[e];
        gate[e] = larger_ones < top ? 1 / (1 + exp(-z[e])) : 0;
        d->share[which][d->block][group][e] += exp(z[e]) / sum;
    }
}

/* q or k of a head at position t: D rows of wqkv from `row` on times u, normed, times a
 * gain; then a number of one half and one of the other turn. out (D) */
static void defined_head(const Defined *d, double *out, const double *u, int row,
                         double gain, int t) {
    const int D = head_dim(&d->m->config);
    const int turned = d->m->config.rope == ROPE_HALF ? D / 2 : D;
    double x[MOEUT_C];
    defined_product(x, defined_copy(d, T_wqkv, d->block) + row * MOEUT_C, MOEUT_C, u, D,
                    MOEUT_C);
    defined_norm(x, x, D);
    for (int i = 0; i < D / 2; i++) {
        const double a = gain * x[i], b = gain * x[D / 2 + i];
        const double angle = i < turned / 2 ? t * pow(10000, -2.0 * i / turned) : 0;
        out[i] = a * cos(angle) + b * sin(angle);
        out[D / 2 + i] = b * cos(angle) - a * sin(angle);
    }
}

/* h = mix0*h + mix1*x0 + phase_embed,  u = RMSNorm(h) * g_attn,  q, k and v of position t;
 * v = the sum of gate_a V_a u, with peri of V_a h */
static void defined_qkv(Defined *d, int t) {
    const Config *c = &d->m->config;
    const int D = head_dim(c), H = c->heads, KV = kv_heads(c), A = MAX(c->attn_experts, 1);
    double *h = d->h[t], *u = d->u[t], gate[MOEUT_E], one[MOEUT_C];

    for (int i = 0; i < MOEUT_C; i++)
        h[i] = defined_vector(d, T_mix0, i) * h[i] +
               defined_vector(d, T_mix1, i) * d->x0[t][i] +
               defined_vector(d, T_phase_embed, i);
    defined_gained(d, u, h, T_g_attn, MOEUT_C);
    for (int j = 0; j < H; j++)
        defined_head(d, d->q[t] + j * D, u, j * D, defined_vector(d, T_q_gain, j), t);
    for (int g = 0; g < KV; g++) {
        defined_head(d, d->k[t] + g * D, u, (H + g) * D, 1, t);
        defined_gates(d, gate, OF_VALUES, g, u, A > 1 ? A : 0, c->attn_topk);
        memset(d->v[t] + g * D, 0, sizeof(double) * (size_t)D);
        for (int a = 0; a < A; a++) {
            const int row = (H + KV) * D + (a * KV + g) * D;
            defined_product(one, defined_copy(d, T_wqkv, d->block) + row * MOEUT_C,
                            MOEUT_C, c->norm == NORM_PERI ? h : u, D, MOEUT_C);
            for (int i = 0; i < D; i++) d->v[t][g * D + i] += gate[a] * one[i];
        }
    }
}

/* Values of position t and before, weighted by exp(q k / sqrt(D)).  att (D) of head j */
static void defined_attend(const Defined *d, double *att, int t, int j) {
    const Config *c = &d->m->config;
    const int D = head_dim(c), g = j / (c->heads / kv_heads(c));
    double sum = 0;
    for (int i = 0; i < D; i++) att[i] = 0;
    for (int s = 0; s <= t; s++) {
        double score = 0;
        for (int i = 0; i < D; i++) score += d->q[t][j * D + i] * d->k[s][g * D + i];
        const double weight = exp(score / sqrt((double)D));
        sum += weight;
        for (int i = 0; i < D; i++) att[i] += weight * d->v[s][g * D + i];
    }
    for (int i = 0; i < D; i++) att[i] /= sum;
}

/* o = the sum over heads and a of gate_a O_a att;  h += gate_attn * o */
static void defined_output(Defined *d, int t) {
    const Config *c = &d->m->config;
    const int D = head_dim(c), A = MAX(c->attn_experts, 1);
    double att[MOEUT_C], gate[MOEUT_E], one[MOEUT_C];
    for (int j = 0; j < c->heads; j++) defined_attend(d, att + j * D, t, j);
    if (c->extra_norm) defined_gained(d, att, att, T_x_attn, MOEUT_C);

    memset(d->o[t], 0, sizeof d->o[t]);
    for (int j = 0; j < c->heads; j++) {
        defined_gates(d, gate, OF_OUTPUTS, j, d->u[t], c->attn_experts, c->attn_topk);
        for (int a = 0; a < A; a++) {
            defined_product(one, defined_copy(d, T_wo, d->block) + a * MOEUT_C + j * D,
                            A * MOEUT_C, att + j * D, MOEUT_C, D);
            for (int i = 0; i < MOEUT_C; i++) d->o[t][i] += gate[a] * one[i];
        }
    }
    for (int i = 0; i < MOEUT_C; i++)
        d->h[t][i] += defined_vector(d, T_gate_attn, i) * d->o[t][i];
}

/* u = RMSNorm(h) * g_mlp;  y = the sum of gate_e Wdown_e (RMSNorm(act(Wup_e u)) * x_mlp),
 * with peri of Wup_e h;  h += gate_mlp * y */
static void defined_experts(Defined *d, int t) {
    const Config *c = &d->m->config;
    const int E = MAX(c->experts, 1), G = c->experts ? c->expert_size : hidden_width(c);
    double u[MOEUT_C], f[MOEUT_G], gate[MOEUT_E], one[MOEUT_C];
    defined_gained(d, u, d->h[t], T_g_mlp, MOEUT_C);
    defined_gates(d, gate, OF_MLP, 0, u, c->experts, c->topk);

    memset(d->y[t], 0, sizeof d->y[t]);
    for (int e = 0; e < E; e++) {
        const int copy = d->block * E + e;
        defined_product(f, defined_copy(d, T_wup, copy), MOEUT_C,
                        c->norm == NORM_PERI ? d->h[t] : u, G, MOEUT_C);
        for (int i = 0; i < G; i++) {
            f[i] = fmax(f[i], 0);
            if (c->act == ACT_RELU2) f[i] *= f[i];
        }
        if (c->extra_norm) defined_gained(d, f, f, T_x_mlp, G);
        defined_product(one, defined_copy(d, T_wdown, copy), G, f, MOEUT_C, G);
        for (int i = 0; i < MOEUT_C; i++) d->y[t][i] += gate[e] * one[i];
    }
    for (int i = 0; i < MOEUT_C; i++)
        d->h[t][i] += defined_vector(d, T_gate_mlp, i) * d->y[t][i];
}

/* -log softmax(30 tanh(z/30)) of the target, of position t. */
static double defined_token_loss(const Defined *d, int t, int target) {
    const real *E = d->m->eff + d->m->tensor[T_embed].at;
    double last[MOEUT_C], z[MOEUT_V], sum = 0;
    defined_norm(last, d->h[t], MOEUT_C);
    defined_product(z, E, MOEUT_C, last, MOEUT_V, MOEUT_C);
    for (int i = 0; i < MOEUT_V; i++) sum += exp(30 * tanh(z[i] / 30));
    return log(sum) - 30 * tanh(z[target] / 30);
}

/* c sum_e P_e log P_e of all choices; of attention's a tenth, and the mean over heads. P
 * is the mean over `seen` softmaxes of a block. */
static double defined_entropy(const Defined *d) {
    const Config *c = &d->m->config;
    double sum = 0;
    for (int which = 0; which < CHOICES; which++) {
        const Choice of = choice_of(c, which);
        for (int b = 0; b < block_count(c); b++)
            for (int i = 0; i < of.groups * of.size; i++) {
                const int seen = MOEUT_T * (b < c->prelude ? 1 : c->repeat);
                const double P = d->share[which][b][i / of.size][i % of.size] / seen;
                const double part = which == OF_MLP ? 1 : 0.1 / of.groups;
                sum += c->moe_entropy * part * P * log(P);
            }
    }
    return sum;
}

/* The largest difference between n numbers and what they should be. */
static double defined_misses(const real *got, double want[][MOEUT_C]) {
    double worst = 0;
    for (int i = 0; i < MOEUT_T * MOEUT_C; i++) {
        const double w = want[i / MOEUT_C][i % MOEUT_C];
        worst = worse(worst, fabs((double)got[i] - w));
    }
    return worst;
}

/* The mean loss of a sequence; off[0], off[1]: how far what attention and MLP computed in
 * any phase is from the definition. */
static double defined_sequence(Defined *d, const int *x, const int *y, int sequence,
                               double off[2]) {
    const Golf *m = d->m;
    const size_t at = (size_t)sequence * MOEUT_T * MOEUT_C;
    double loss = 0, e[MOEUT_C];
    memset(d->share, 0, sizeof d->share);
    for (int t = 0; t < MOEUT_T; t++) {
        for (int i = 0; i < MOEUT_C; i++) e[i] = (double)m->eff[x[t] * MOEUT_C + i];
        defined_norm(d->x0[t], e, MOEUT_C);
        memcpy(d->h[t], d->x0[t], sizeof d->h[t]);
    }
    for (d->p = 0; d->p < m->phases; d->p++) {
        d->block = d->p < m->config.prelude ? d->p
                                            : m->config.prelude + (d->p - m->config.prelude) %
                                                                      m->config.unique;
        for (int t = 0; t < MOEUT_T; t++) defined_qkv(d, t);
        for (int t = 0; t < MOEUT_T; t++) defined_output(d, t);
        for (int t = 0; t < MOEUT_T; t++) defined_experts(d, t);
        off[0] = worse(off[0], defined_misses(m->phase[d->p].o + at, d->o));
        off[1] = worse(off[1], defined_misses(m->phase[d->p].y + at, d->y));
    }
    for (int t = 0; t < MOEUT_T; t++) loss += defined_token_loss(d, t, y[t]) / MOEUT_T;
    return loss + defined_entropy(d);
}

static void check_moeut(const char *arm) {
    const int *x = tokens_below(MOEUT_V, moeut_tokens, 80);
    const int *y = tokens_below(MOEUT_V, moeut_tokens, 81);
    const double most = DOUBLE ? 1e-11 : 1e-3;
    static Defined d;
    char text[400];
    double off[2] = {0}, want = 0;
    Golf m;
    snprintf(text, sizeof text,
             "vocab=20 width=16 heads=2 mlp=2 seq=8 unique=2 repeat=2 prelude=1 "
             "phase_embed=1 wq=none aq=none %s",
             arm);
    new_model(&m, text, moeut_tokens);
    stir(&m);
    golf_quantize(&m);
    const double loss = golf_forward(&m, x, y, MOEUT_B, MOEUT_T);
    d.m = &m;
    for (int s = 0; s < MOEUT_B; s++)
        want += defined_sequence(&d, x + s * MOEUT_T, y + s * MOEUT_T, s, off) / MOEUT_B;
    CHECK(off[0] < most, "%s: attention: off by %.3g from the definition", arm, off[0]);
    CHECK(off[1] < most, "%s: MLP: off by %.3g from the definition", arm, off[1]);
    CHECK(near(loss, want, most), "%s: loss %.12g, by definition %.12g", arm, loss, want);
    golf_free(&m);
}

static void test_moeut_experts(void) {
    check_moeut("experts=5 expert_size=8 moe_entropy=0");
    check_moeut("experts=5 expert_size=8 topk=3 act=relu moe_bias=1 moe_entropy=0");
    check_moeut("experts=3 expert_size=16 norm=peri act=relu extra_norm=none");
}

static void test_moeut_attention(void) {
    check_moeut("attn_experts=3 moe_entropy=0");
    check_moeut("attn_experts=3 attn_topk=1 heads=4 kv_heads=2 rope=half");
    check_moeut("attn_experts=1 attn_topk=1 rope=half");
    check_moeut("norm=peri experts=3 expert_size=8 extra_norm=none");
    check_moeut(
        "norm=peri experts=3 expert_size=8 attn_experts=2 heads=4 kv_heads=1 act=relu");
}

/* In the loss, of several sequences, blocks, phases and heads. */
static void test_moeut_entropy_defined(void) {
    check_moeut("experts=5 expert_size=8 moe_entropy=0.7");
    check_moeut("attn_experts=3 heads=4 kv_heads=2 moe_entropy=5");
    check_moeut("experts=4 expert_size=8 attn_experts=3 moe_bias=1 moe_entropy=2 "
                "norm=peri act=relu rope=half init=moeut");
}

/* Rows of the MLP's choice start at one length, with the deviation that they had; those of
 * attention's as long as that makes them, times their own. Against the numbers of a model
 * that starts otherwise: they are the same but for their size. */
static void check_moeut_rows(const Golf *m, const Golf *raw, int tensor, int each) {
    const Tensor *t = m->tensor + tensor;
    const double size = t->init / raw->tensor[tensor].init;
    const int R = t->rows, C = t->cols;
    double *w = xcalloc(t->copy_n, sizeof(double)), worst = 0, unit = 0, all = 0, mean = 0;
    const real *got = m->master + t->at + t->copy_n, *was = raw->master + t->at + t->copy_n;

    for (int i = 0; i < R * C; i++) mean += size * (double)was[i] / (R * C);
    for (int i = 0; i < R * C; i++)
        all += pow(size * (double)was[i] - mean, 2) / (R * C - 1);
    mean = 0;
    for (int i = 0; i < R * C; i++) {
        double square = 0;
        for (int k = 0; k < C; k++) square += pow((double)was[i / C * C + k], 2);
        w[i] = (double)was[i] / sqrt(square);
        mean += w[i] / (R * C);
    }
    for (int i = 0; i < R * C; i++) unit += pow(w[i] - mean, 2) / (R * C - 1);
    for (int i = 0; i < R * C; i++) {
        double row_mean = 0, row = 0;
        for (int k = 0; k < C; k++) row_mean += size * (double)was[i / C * C + k] / C;
        for (int k = 0; k < C; k++)
            row += pow(size * (double)was[i / C * C + k] - row_mean, 2) / (C - 1);
        const double want = w[i] * sqrt(each ? row : all) / sqrt(unit);
        worst = worse(worst, fabs((double)got[i] - want));
    }
    CHECK(worst < EPS, "%s: off by %.3g", t->name, worst);
    free(w);
}

static void test_moeut_selectors(void) {
    static const char *const text =
        "vocab=20 width=16 heads=2 seq=8 unique=2 repeat=2 experts=5 expert_size=8 "
        "attn_experts=3";
    char with[300];
    Golf m, raw;
    new_model(&raw, text, 0);
    snprintf(with, sizeof with, "%s init=moeut", text);
    new_model(&m, with, 0);
    check_moeut_rows(&m, &raw, T_sel_mlp, 0);
    check_moeut_rows(&m, &raw, T_sel_v, 1);
    check_moeut_rows(&m, &raw, T_sel_o, 1);
    golf_free(&m);
    golf_free(&raw);
}

/* ---- Parts */
static void test_moeut_choice(void) {
    const real z[] = {1, 3, 3, 2};
    int chosen[4];
    choose_top(chosen, z, 4, 4);
    CHECK(chosen[0] == 1 && chosen[1] == 2 && chosen[2] == 3 && chosen[3] == 0,
          "the order of 1, 3, 3, 2: %d %d %d %d", chosen[0], chosen[1], chosen[2],
          chosen[3]);
    choose_top(chosen, z + 2, 2, 1);
    CHECK(chosen[0] == 0, "of 3 and 2 the second");
}

/* Rows are sorted by expert, and by pair within each; tasks cover the rows of each
 * expert, CHUNK at a time. */
static void test_moeut_sort(void) {
    enum { N = 200, K = 2, C = 8 };
    Golf m;
    new_model(
        &m, "vocab=20 width=8 heads=2 seq=8 repeat=1 experts=4 expert_size=8 aq=none", N);
    const Moeut *own = moeut_of(&m);
    int *chosen = own->phase->chosen[OF_MLP], sorted = 1, inverse = 1, end = 0, full = 1;
    for (int i = 0; i < N * C; i++) m.phase->in_up.x[i] = noise(3, (size_t)i);
    for (int n = 0; n < N; n++) { /* nobody takes expert 1 */
        chosen[n * K] = n % 3 ? 3 : 0;
        chosen[n * K + 1] = 2;
    }
    sort_pairs(&m, 0, N);

    for (int row = 0; row < N * K; row++) {
        const int pair = own->pair[row];
        inverse &= own->phase->row[pair] == row;
        inverse &= !memcmp(own->x.x + row * C, m.phase->in_up.x + pair / K * C,
                           C * sizeof(real));
        if (!row) continue;
        const int before = own->pair[row - 1];
        sorted &= chosen[before] < chosen[pair] ||
                  (chosen[before] == chosen[pair] && before < pair);
    }
    for (int i = 0; i < own->tasks; i++) {
        const ExpertTask t = own->task[i];
        const int last = i + 1 == own->tasks || own->task[i + 1].e != t.e;
        full &= t.from == end && (last ? t.n > 0 && t.n <= CHUNK : t.n == CHUNK);
        for (int row = t.from; row < t.from + t.n; row++)
            full &= chosen[own->pair[row]] == t.e;
        end = t.from + t.n;
    }
    CHECK(sorted && inverse, "rows: sorted %d, of their pairs %d", sorted, inverse);
    CHECK(full && end == N * K, "tasks: %d, %d of %d rows", full, end, N * K);
    golf_free(&m);
}

/* Softmaxes (1/4, 3/4) and (1/2, 1/2) of two tokens have the mean (3/8, 5/8); of logits 0
 * all P are equal. */
static void test_moeut_entropy(void) {
    Golf m;
    new_model(&m,
              "vocab=20 width=8 heads=2 seq=8 repeat=1 experts=2 topk=1 expert_size=8 "
              "moe_entropy=0.5",
              2);
    real *z = moeut_phase(&m, 0)->z[OF_MLP];
    z[0] = z[2] = z[3] = 0;
    z[1] = (real)log(3.0);
    m.T = 2;
    const double want = 0.5 * (0.375 * log(0.375) + 0.625 * log(0.625));
    const double got = moeut_entropy(&m, NULL, 1, 2);
    CHECK(near(got, want, EPS), "loss %.9g, not %.9g", got, want);
    golf_free(&m);

    new_model(&m,
              "vocab=20 width=8 heads=2 seq=8 prelude=1 repeat=3 experts=4 expert_size=8 "
              "attn_experts=3 moe_entropy=0.5",
              16);
    for (int k = T_sel_mlp; k <= T_sel_o; k++)
        set_all(m.master + m.tensor[k].at, m.tensor[k].n, 0);
    golf_quantize(&m);
    const int *x = tokens_below(20, 16, 1);
    golf_forward(&m, x, NULL, 2, 8);
    const double even = moeut_entropy(&m, x, 2, 8);
    const double of_two_blocks = -2 * 0.5 * (log(4.0) + 0.1 * (log(3.0) + log(3.0)));
    CHECK(near(even, of_two_blocks, EPS), "even: loss %.9g, not %.9g", even,
          of_two_blocks);
    golf_free(&m);
}

/* Token by token with a cache, or all at once. */
static void check_moeut_cached(const char *arm) {
    enum { T = 16, V = 20 };
    const int *x = tokens_below(V, T, 50);
    char text[300];
    double worst = 0;
    Golf m, all;
    snprintf(text, sizeof text, "vocab=20 width=32 seq=16 repeat=2 heads=2 %s", arm);
    new_model(&m, text, T);
    new_model(&all, text, T);
    golf_cache(&m);
    golf_forward(&all, x, NULL, 1, T);
    for (int t = 0; t < T; t++) {
        golf_forward(&m, x + t, NULL, 1, 1);
        for (int i = 0; i < V; i++)
            worst = worse(worst, fabs((double)(m.logits[i] - all.logits[t * V + i])));
    }
    CHECK(worst <= 1e-4, "%s: cached logits differ by %.3g", arm, worst);
    golf_free(&m);
    golf_free(&all);
}

static void test_moeut_sampling(void) {
    check_moeut_cached("experts=4 expert_size=8");
    check_moeut_cached("attn_experts=3 heads=4 kv_heads=2");
    check_moeut_cached(
        "norm=peri experts=4 expert_size=8 attn_experts=2 wq=none aq=none");
}

/* With 8 phases sqrt(2/8) = 1/2, by the root of 16 inputs, or of 8 experts of 8. */
static void test_moeut_start(void) {
    Golf m;
    new_model(&m,
              "vocab=20 width=16 heads=2 seq=8 unique=2 repeat=4 experts=8 expert_size=8 "
              "attn_experts=2 init=moeut",
              0);
    const double size = 1.0 / 8;
    for (int k = T_wqkv; k <= T_wup; k++)
        CHECK(near(m.tensor[k].init, size, 1e-9), "%s: %g", m.tensor[k].name,
              m.tensor[k].init);
    CHECK(near(m.tensor[T_wdown].init, size / 2, 1e-9), "wdown: %g",
          m.tensor[T_wdown].init);
    CHECK(near(m.tensor[T_sel_o].init, size, 1e-9), "sel_o: %g", m.tensor[T_sel_o].init);
    CHECK(m.tensor[T_wdown].stored_copies == 16, "%d experts",
          m.tensor[T_wdown].stored_copies);
    golf_free(&m);

    const Config own = config_of("width=16 expert_size=8 experts=8 unique=2 repeat=4");
    golf_layout(&m, &own); /* 1 / sqrt(2 * 8) / sqrt(8) */
    CHECK(near(m.tensor[T_wdown].init, 0.25 / sqrt(8.0), 1e-9), "own: %g",
          m.tensor[T_wdown].init);
}

/* Two of four experts of 8 cost what an MLP of 16 costs, and the choice. Bytes do not
 * depend on the hidden width of an MLP that is not there, also where both are 16. */
static void test_moeut_costs(void) {
    const Config dense = config_of("vocab=20 width=16 hidden=16 repeat=3");
    const Config moe = config_of("vocab=20 width=16 experts=4 expert_size=8 repeat=3");
    const Config equal = config_of("vocab=20 width=16 mlp=1 experts=4 expert_size=16");
    const double choice = 6.0 * 3 * 4 * 16;
    const double more = flops_per_token(&moe) - flops_per_token(&dense);
    CHECK(near(more, choice, 1e-6), "%g FLOPs more than dense, not %g", more, choice);
    CHECK(!hidden_counts(&equal), "--width=fit would widen an MLP that is not there");
}

static const SystemTests moeut_tests = {
    .gradients =
        (const char *const[]){
            "experts=4 topk=2 expert_size=8",
            "experts=4 expert_size=8 prelude=1 coda=1 moe_entropy=0.5 attn_experts=2",
            "experts=5 expert_size=8 wq=none seq=24 repeat=1",
            "experts=4 topk=1 expert_size=8 unique=2 moe_bias=1 moe_entropy=0.5",
            "experts=3 topk=3 expert_size=16 repeat=3 extra_norm=each aq=none moe_bias=1",
            "attn_experts=3 moe_entropy=0.3",
            "attn_experts=2 attn_topk=1 heads=4 kv_heads=2 extra_norm=each unique=2",
            "attn_experts=4 extra_norm=none wq=none aq=none experts=3 expert_size=8 "
            "repeat=3",
            "norm=peri experts=4 expert_size=8 init=moeut",
            "norm=peri experts=3 expert_size=8 act=relu rope=half extra_norm=none aq=none",
            "attn_experts=1 attn_topk=1 moe_entropy=0.3",
            "attn_experts=1 attn_topk=1 extra_norm=each kv_heads=1 act=swiglu",
            "norm=peri experts=3 expert_size=8 attn_experts=2 moe_bias=1 repeat=3 "
            "aq=none",
            NULL},
    .files =
        (const char *const[]){
            "experts=4 expert_size=24 moe_bias=1", "attn_experts=3 repeat=3",
            "norm=peri experts=4 expert_size=16",
            "attn_experts=2 attn_topk=1 experts=4 expert_size=16 wq=none",
            "experts=3 topk=1 wq=int4", "attn_experts=1 attn_topk=1 act=relu", NULL},
    .errors =
        (const char *const[][2]){
            {"--experts=65", "--experts|0 to 64"},
            {"--attn_experts=17", "--attn_experts|0 to 16"},
            {"--topk=3", "--topk|means nothing|--experts"},
            {"--attn_experts=3 --topk=3", "--topk|means nothing|--experts"},
            {"--attn_experts=3 --expert_size=16",
             "--expert_size|means nothing|--experts"},
            {"--attn_experts=3 --moe_bias=1", "--moe_bias|means nothing|--experts"},
            {"--experts=3 --attn_topk=3", "--attn_topk|means nothing|--attn_experts"},
            {"--init=moeut --moe_entropy=1", "--moe_entropy|means nothing|--experts"},
            {"--experts=4 --topk=5", "--topk|--experts"},
            {"--attn_experts=3 --attn_topk=4", "--attn_topk|--attn_experts"},
            {"--experts=4 --hidden=32", "--expert_size|--hidden"},
            {"--experts=4 --recompute=1", "--experts|--recompute"},
            {"--attn_experts=4 --recompute=1", "--attn_experts|--recompute"},
            {"--experts=4 --topk=4 --batch=65536 --seq=256", "--batch|--seq|--topk|2^24"},
            {"--experts=4 --act=swiglu", "--experts|--act=swiglu|third"},
            {"--norm=peri", "--norm=peri|--experts"},
            {"--norm=peri --experts=4 --extra_norm=each",
             "--norm=peri|--extra_norm=each"},
            {"--attn_experts=16 --width=16384", "--attn_experts|--width|2^30"},
            {NULL, NULL}},
    .tests = (const Test[]){{"choice", test_moeut_choice},
                            {"sort", test_moeut_sort},
                            {"experts by definition", test_moeut_experts},
                            {"attention by definition", test_moeut_attention},
                            {"entropy", test_moeut_entropy},
                            {"entropy by definition", test_moeut_entropy_defined},
                            {"selectors", test_moeut_selectors},
                            {"sampling", test_moeut_sampling},
                            {"start", test_moeut_start},
                            {"costs", test_moeut_costs},
                            {NULL, NULL}}};
#elif defined BUGS
bug loader-checks-the-batch float combined "$(in_ moeut_check)s/^}/    moeut_check_run(c); }/"
bug expert-of-the-first-choice double "moeut: grad" "$(in_ expert_gates_backward)s/dz\[OF_MLP\]\[n \* E + task->e\]/dz[OF_MLP][n * E]/"
bug expert-gate-not-learned double "moeut: grad" "$(in_ expert_gates_backward)s/ \* gate \* (1 - gate);/ * 0;/"
bug experts-uneven double "moeut: grad" "$(in_ entropy_backward)s/log_p\[e\] - mean/log_p[e]/"
bug rows-of-another-expert float "moeut: experts" "$(in_ sort_pairs)s/= next\[chosen\[i\]\]++/= i/"
bug values-not-gated double "moeut: grad" "$(in_ gated_sum_backward)s/= gate \* dout\[d\]/= dout[d]/"
bug output-choice-not-learned double "moeut: grad" "$(in_ gated_copies_backward)s/inner(dout_a, x, of->D)/0/"
bug entropy-of-heads-in-full double "moeut: entropy" "$(in_ entropy_forward)s/10.0 \* of.groups/of.groups/"
bug entropy-of-the-last-phase double "moeut: entropy" "$(in_ add_softmaxes)s/count++;/count = m->T;/"
bug bias-not-learned double "moeut: grad" "$(in_ choice_backward)s/dbias\[e\] += dz/dbias[e] += 0 * dz/"
bug choice-not-in-dx double "moeut: grad" "$(in_ moeut_qkv_backward)s/choice_dx(m, dx, k, OF_VALUES, 1)/(void)0/"
bug peri-norms-values double "moeut: attention" "$(in_ moeut_qkv_forward)s/is_peri(m) \&\& r == 2 ? s.h : u/u/"
bug peri-norms-experts double "moeut: experts" "$(in_ expert_choice_forward)s/is_peri(m) ? s.mid : u/u/"
bug peri-values-to-u double "moeut: grad" "$(in_ qkv_input_backward)s/r == 2 ? k->f.dh : du/du/"
bug peri-experts-to-u double "moeut: grad" "$(in_ expert_choice_backward)s/is_peri(m) ? k->f.dh : du/du/"
bug one-value-gated float "moeut: attention" "s/return c->attn_experts > 1;/return c->attn_experts > 0;/; s/X(sel_v,    PER_BLOCK, (c->attn_experts > 1) \* /X(sel_v, PER_BLOCK, /"
bug one-value-not-learned double "moeut: grad" "$(in_ values_backward)s/else memcpy(own->dqkv + at, dv, one)/else memset(own->dqkv + at, 0, one)/"
bug experts-with-the-core-s-activation float "moeut: experts" "$(in_ expert_forward)s/m->act->forward(u, f/relu2_forward(u, f/"
bug entropy-of-all-sequences float "moeut: entropy by" "$(in_ entropy_forward)s| / B / share| / share|"
bug entropy-of-another-block float "moeut: entropy by" "$(in_ add_softmaxes)s/if (block_of(&m->config, p) != block) continue;//"
bug rows-of-any-length float "moeut: selectors" "$(in_ moeut_start)s/if (!t->n) continue;/continue;/"
bug rows-of-attention-alike float "moeut: selectors" "$(in_ moeut_start)s/choosing\[i\] != T_sel_mlp/0/"
bug tied-logits-twice float "moeut: choice" "$(in_ choose_top)s/if (is_among(chosen, k, e)) continue;//"
bug values-of-another-head float "moeut: attention" "$(in_ chosen_values)s/all + g \* D, &of/all, \&of/"
bug start-of-one-expert float "moeut: start" "$(in_ moeut_init)s/MAX(c->experts, 1)/1/"
bug all-experts-cost float "moeut: costs" "$(in_ moeut_flops)s/c->topk : -1/c->experts : -1/"
bug hidden-fills-the-cap float "moeut: costs" "$(in_ hidden_counts)s/return .*/return 1;/"
#endif
