/* parameter_golf.h - the first baseline of OpenAI's Parameter Golf (train_gpt.py,
 * 2026-03-17), what it has beyond the core.
 *
 *   --unet=1             skips as in a U-Net. The first half of the phases hand their
 *                        outputs to the second, last in, first out: before phase
 *                        p = P/2 + i    prev += skip[p] * out[P/2 - 1 - i]
 *   --baseline_init=1    the embedding N(0, 0.005^2), output projections 0, the other
 *                        projections uniform within 1/sqrt(inputs), PyTorch's default
 *   --momentum_warmup=N  Muon's momentum rises from 0.85 in the first N steps
 *   --muon_split=1       Muon takes the rows of q, k and v of Wqkv as three matrices, as
 *                        they are there
 *   --preset=golf_baseline  all of it, with weights that are quantized at export only
 *
 * Stored: skip, a bf16 vector of the width for every phase. Memory of the skips: an
 * output and a gradient of the stream for half of the phases.
 *
 * Differs from the original: fp32 for its bf16 products, RMSNorm eps 1e-6, and coded
 * int8 rows for its zlib; its wallclock schedule is one of steps here. */
#ifdef OPTIONS
X(MODEL, INT, unet, "0", "0|1",
  "outputs of the first half of the phases skip to the second")
X(TRAIN, INT, baseline_init, "0", "0|1",
  "start of the weights as Parameter Golf's baseline")
X(TRAIN, INT, momentum_warmup, "0", "0 to 1000000", "steps in which it rises from 0.85")
X(TRAIN, INT, muon_split, "0", "0|1", "Muon takes q, k and v as three matrices")

#elif defined MEANINGS
M(unet, phase_count(c) > 1, "with one phase")
M(baseline_init, !has_donor(c), "with trained weights to start from")
M(momentum_warmup, c->optimizer == OPT_MUON, "without --optimizer=muon")
M(muon_split, c->optimizer == OPT_MUON, "without --optimizer=muon")

#elif defined TENSORS
X(skip, PER_PHASE, 1, c->width, INTERFACE, c->unet ? MODE_VECTOR : MODE_NONE, 1)

#elif defined PRESETS
{"golf_baseline",
 "width=512 heads=8 kv_heads=4 mlp=2 seq=1024 unique=9 repeat=1 unet=1 extra_norm=none gain=none "
 "wq=int8 qat=0 aq=none embed_bits=8 baseline_init=1 muon_split=1 lr_muon=0.04 lr_embed=0.05 "
 "lr_interface=0.04 momentum_warmup=500 clip=0 warmup=0 warmdown=0 shuffle=0 steps=200 "
 "bwd=fp32 cap=16000000 squeeze=0.93",
 "Parameter Golf's first baseline, its smoke run; data of 1,024 pieces"},

#elif defined LIST
X(parameter_golf)

#elif defined CODE
typedef struct {
    real **joined; /* (phases) inputs of the second half (N,C) */
    real **dout;   /* (phases) gradients along skips (N,C) */
} Skips;

static int parameter_golf_on(const Config *c) {
    return c->unet || c->baseline_init || c->momentum_warmup || c->muon_split;
}

static int parameter_golf_takes(const Config *c) { return c->unet ? RES_DEPTH : 0; }

static void parameter_golf_shape(Golf *m) {
    const Config *c = &m->config;
    if (c->muon_split) m->tensor[T_wqkv].muon_parts = 3;
    if (!c->baseline_init) return;
    m->tensor[T_embed].init = 0.005;
    m->tensor[T_wo].init = 0;
    m->tensor[T_wdown].init = 0;
}

static void parameter_golf_start(Golf *m, const Golf *from, int convert) {
    (void)convert;
    if (from || !m->config.baseline_init) return;
    EACH_TENSOR(t, m) {
        const uint64_t key = init_key(m, t);
        if (t->role != PROJ) continue;
        for (size_t i = 0; i < t->n; i++)
            m->master[t->at + i] = (real)(t->init * (2 * uniform01(key, i) - 1));
    }
}

static void parameter_golf_step(Golf *m, int step) {
    const Config *c = &m->config;
    if (step < 0 || !c->momentum_warmup) return;
    const double up = fmin(1, (double)step / c->momentum_warmup);
    m->momentum = up * c->momentum + (1 - up) * 0.85;
}

/* Whose output phase p takes, or -1. */
static int skip_from(const Golf *m, int p) {
    const int half = m->phases / 2, i = p - half;
    return m->config.unet && i >= 0 && i < half ? half - 1 - i : -1;
}

static void parameter_golf_buffers(Golf *m, size_t N) {
    const size_t n = N * (size_t)m->config.width;
    Skips *u = owned(m, 1, sizeof(Skips));
    m->own[SYS_parameter_golf] = u;
    u->joined = owned(m, (size_t)m->phases, sizeof(real *));
    u->dout = owned(m, (size_t)m->phases, sizeof(real *));
    for (int p = 0; p < m->phases; p++) {
        if (skip_from(m, p) < 0) continue;
        u->joined[p] = owned_reals(m, n);
        u->dout[skip_from(m, p)] = owned_reals(m, n);
        if (!m->train)
            m->phase[skip_from(m, p)].out = owned_reals(m, n); /* until its skip ends */
    }
}

/* prev += skip * out of the other phase */
static void skip_enter(Golf *m, int p, int N) {
    const Skips *u = m->own[SYS_parameter_golf];
    const int from = skip_from(m, p);
    if (from < 0) return;
    gate_forward(u->joined[p], m->prev[p], m->phase[from].out, phase_vector(m, T_skip, p),
                 N, m->config.width);
    m->prev[p] = u->joined[p];
}

/* m->dh is d(joined): that of prev as it stands, times skip that of the other phase's
 * output */
static void skip_enter_backward(Golf *m, int p, int N) {
    const Skips *u = m->own[SYS_parameter_golf];
    const int from = skip_from(m, p), C = m->config.width;
    if (from < 0) return;
#pragma omp parallel for schedule(dynamic)
    for (int n0 = 0; n0 < N; n0 += CHUNK) {
        const size_t at = (size_t)n0 * (size_t)C;
        gate_backward(u->dout[from] + at, chunk_dvector(m, T_skip, (size_t)n0),
                      m->dh + at, m->phase[from].out + at, phase_vector(m, T_skip, p),
                      MIN(N - n0, CHUNK), C);
    }
}

/* d(out) has come along the stream and along a skip */
static void skip_leave_backward(Golf *m, int p, int N) {
    const Skips *u = m->own[SYS_parameter_golf];
    if (u->dout[p]) gate_forward(m->dh, m->dh, u->dout[p], m->ones, N, m->config.width);
}

static const System parameter_golf_system = {.name = "parameter_golf",
                                             .needs = "unet",
                                             .on = parameter_golf_on,
                                             .takes = parameter_golf_takes,
                                             .shape = parameter_golf_shape,
                                             .start = parameter_golf_start,
                                             .step = parameter_golf_step,
                                             .buffers = parameter_golf_buffers,
                                             .enter = skip_enter,
                                             .enter_backward = skip_enter_backward,
                                             .leave_backward = skip_leave_backward};

#elif defined TESTS
static void test_skips(void) {
    const int want[] = {-1, -1, 1, 0,
                        -1}; /* of 5 phases the first 2 hand over, last in, first out */
    Golf m;
    new_model(&m, "vocab=20 width=16 heads=2 seq=16 unique=5 repeat=1 unet=1", 0);
    for (int p = 0; p < 5; p++)
        CHECK(skip_from(&m, p) == want[p], "phase %d takes %d, not %d", p,
              skip_from(&m, p), want[p]);
    golf_free(&m);
}

/* Uniform numbers within the bound, embedding and outputs as said. */
static void test_baseline_init(void) {
    Golf m;
    double square = 0, top = 0;
    new_model(&m, "vocab=500 width=64 heads=2 seq=16 repeat=1 baseline_init=1", 0);
    const Tensor *up = m.tensor + T_wup, *embed = m.tensor;
    for (size_t i = 0; i < up->n; i++)
        top = fmax(top, fabs((double)m.master[up->at + i]));
    for (size_t i = 0; i < up->n; i++)
        square += pow((double)m.master[up->at + i], 2) / up->n;
    CHECK(top <= 0.125 && top > 0.124 && near(sqrt(square), 0.125 / sqrt(3), 0.002),
          "wup: at most %g, RMS %g", top, sqrt(square));
    square = 0;
    for (size_t i = 0; i < embed->n; i++)
        square += pow((double)m.master[i], 2) / embed->n;
    CHECK(near(sqrt(square), 0.005, 0.0002), "embedding: RMS %g", sqrt(square));
    CHECK(m.master[m.tensor[T_wo].at] == 0 && m.master[m.tensor[T_wdown].at + 7] == 0,
          "outputs");
    golf_free(&m);
}

/* Momentum on its way up; q, k and v orthogonal each by itself. */
static void test_split_muon(void) {
    Golf m;
    new_model(&m,
              "vocab=20 width=16 heads=2 seq=16 repeat=1 muon_split=1 momentum_warmup=10 "
              "optimizer=muon lr_muon=0.1 warmup=0 warmdown=0",
              0);
    parameter_golf_step(&m, 5);
    CHECK(near(m.momentum, 0.9, 1e-12), "momentum %g half way from 0.85 to 0.95",
          m.momentum);
    parameter_golf_step(&m, 20);
    CHECK(near(m.momentum, 0.95, 1e-12), "momentum %g at the end", m.momentum);
    const Tensor *t = m.tensor + T_wqkv;
    real *was = memcpy(reals(m.n_params, 0), m.master, m.n_params * sizeof(real));
    for (size_t i = 0; i < t->n; i++)
        m.grad[t->at + i] = noise(5, i) * (i < 256 ? 1000 : 1);
    golf_muon(&m, 0, 1);
    for (int part = 0; part < 3;
         part++) { /* q's gradient is 1000 times that of k and v */
        double size = 0;
        for (size_t i = 0; i < 256; i++) {
            const size_t at = t->at + (size_t)part * 256 + i;
            size += pow((double)(m.master[at] - was[at]), 2);
        }
        CHECK(sqrt(size) > 0.25 && sqrt(size) < 0.5, "part %d moved by %g, not about 0.4",
              part, sqrt(size));
    }
    free(was);
    golf_free(&m);
}

static const SystemTests parameter_golf_tests = {
    .gradients =
        (const char *const[]){"unet=1 repeat=4", "unet=1 repeat=4 recompute=0 aq=none",
                              "unet=1 repeat=1 unique=5 gain=none mix=none", NULL},
    .files = (const char *const[]){"unet=1 unique=5 repeat=1 baseline_init=1", NULL},
    .errors = (const char *const[][2]){{"--unet=2", "--unet|0|1|'2'"},
                                       {"--unet=1 --repeat=1", "--unet=1|one phase"},
                                       {"--muon_split=1 --optimizer=adamw",
                                        "--muon_split=1|--optimizer=muon"},
                                       {NULL, NULL}},
    .tests = (const Test[]){{"skips", test_skips},
                            {"init", test_baseline_init},
                            {"muon", test_split_muon},
                            {NULL, NULL}}};
#elif defined BUGS
bug skip-forgotten-backward double grad "$(in_ skip_leave_backward)s/if (u->dout\[p\])/if (0)/"
bug skips-in-order double skips "$(in_ skip_from)s/half - 1 - i/i/"
bug skip-gradient-of-another-phase double grad "$(in_ skip_enter_backward)s/phase_vector(m, T_skip, p)/phase_vector(m, T_skip, 0)/"
bug init-normal float init "$(in_ parameter_golf_start)s/(2 \* uniform01(key, i) - 1)/normal01(key, i)/"
bug muon-not-split float muon "$(in_ parameter_golf_shape)s/muon_parts = 3/muon_parts = 1/"
#endif
