/* qat.h - quantization that sets in, comes at the end only, or is noise.
 *
 *   --qat_ramp=F      lambda rises from 0 to 1 over the first F of the run:
 *                         eff = w + lambda (Q(w) - w),  inputs = x + lambda (Q(x) - x)
 *   --qat_order=each  each kind of matrix in a quarter of that time, one after the other:
 *                     up, down, output, then q, k and v
 *   --qat_order=block each block in its part of that time, the first block first ("An
 *                     Extra RMSNorm is all you need", 2505.08823: layer-wise)
 *   --qat=0           lambda = 0 to the end, for the embedding too: quantized at export
 *   --qat=noise       eff = w + step * u, u uniform in [-1/2, 1/2) and new at each step:
 *                     noise of the size of rounding in place of it (DiffQ, 2104.09987;
 *                     entries of Parameter Golf). Inputs are quantized as ever.
 *
 * Backward: the gradient of eff is that of w, whatever lambda is; with 0 and noise
 * nothing masks it.
 *
 * The file holds Q(w) in any case. While lambda < 1, and with 0 and noise to the end,
 * the model in memory is another one than that in the file; a run reports the scores of
 * both. Until then numbers multiply, where codes would do so faster; but for noise
 * inputs are kept as numbers besides codes.
 *
 * The norms of 2505.08823, one before each linear (q, k and v apart), each with a gain
 * for every input, are --extra_norm=each --xgain=vector; a block that is used several
 * times has them per phase, with --phase=0 once.
 *
 * Differs from 2505.08823: there a trained model is the start; here that is whatever
 * loads weights. Of its schedule the abstract says no more than gradual and layer-wise,
 * so that the order (first to last) and the straight line are guesses; inputs set in
 * with the weights; the embedding takes no part in the ramp. Unlike DiffQ, noise has a
 * given number of bits, that of the grid. */
#ifdef OPTIONS
X(TRAIN, INT, qat, "1", "0|1|noise", "quantize at export only | in training | as noise")
X(TRAIN, NUM, qat_ramp, "0", "0 to 1",
  "fraction of the steps in which quantization sets in")
X(TRAIN, INT, qat_order, "together", "together|each|block",
  "each kind of matrix, or block, after the other")

#elif defined MEANINGS
M(qat_ramp, c->qat != QAT_EXPORT, "with --qat=0: quantization never sets in")
M(qat_order, c->qat_ramp > 0, "without --qat_ramp")
M(qat_order, c->qat_order != QAT_BLOCK || block_count(c) > 1, "with one block")

#elif defined LIST
X(qat)

#elif defined CODE
enum { QAT_EXPORT, QAT_ON, QAT_NOISE };
enum { QAT_TOGETHER, QAT_EACH, QAT_BLOCK };

static int qat_on(const Config *c) { return c->qat != QAT_ON || c->qat_ramp > 0; }

static int qat_takes(const Config *c) {
    const int ramp = c->qat_ramp > 0 ? RES_ESTIMATOR : 0;
    return ramp | (c->qat == QAT_NOISE ? RES_PIECES : 0);
}

/* A mixture of numbers and their codes relies on gradients that pass straight through. */
static int qat_uses(const Config *c) { return c->qat_ramp > 0 ? RES_INPUTS : 0; }

/* The turn of tensor k among kinds of matrices: what is not named has the last one. */
static int qat_turn(int k) {
    if (k == T_wup || k == T_wgate) return 0;
    if (k == T_wdown) return 1;
    return k == T_wo ? 2 : 3;
}

/* The block of copy j, the last one if the copies are not those of blocks or phases. */
static int qat_block(const Golf *m, const Tensor *t, int j) {
    const int blocks = block_count(&m->config), copies = t->stored_copies;
    if (copies == m->phases) return block_of(&m->config, j);
    return copies % blocks ? blocks - 1 : j / (copies / blocks);
}

/* How far quantization has set in at this step for tensor k in this block: 0 not at all,
 * 1 all of what the file will hold. */
static real qat_lambda(const Golf *m, int k, int block) {
    const Config *c = &m->config;
    if (!m->master) return 1;
    if (c->qat == QAT_EXPORT) return 0;
    if (c->qat_ramp <= 0 || k == T_embed) return 1;
    const double done = m->step / (c->qat_ramp * c->steps);
    const int turns[] = {[QAT_EACH] = 4, [QAT_BLOCK] = block_count(c)};
    const int turn[] = {[QAT_EACH] = qat_turn(k), [QAT_BLOCK] = block};
    if (c->qat_order == QAT_TOGETHER) return (real)fmin(1, done);
    return (real)fmax(0, fmin(1, turns[c->qat_order] * done - turn[c->qat_order]));
}

/* ---- Inputs: x + lambda (Q(x) - x). */
typedef struct {
    const Inputs *base[N_TENSORS]; /* whose Q it is */
    Inputs row[N_TENSORS];         /* what wraps it */
    int float_only[N_TENSORS];     /* what the tensor says without this system */
} Qat;

/* a->x (N,K) becomes x + lambda (q * step - x) */
static void qat_mix_codes(const Act *a, const real *x, real lambda, int N, int K) {
    FOR_ROWS(n, N, K)
        for (int i = 0; i < K; i++)
            a->x[at + i] = x[at + i] + lambda * (a->q[at + i] * a->step[n] - x[at + i]);
}

/* a->x (N,K), which holds Q(x), becomes x + lambda (Q(x) - x) */
static void qat_mix_numbers(const Act *a, const real *x, real lambda, int N, int K) {
    FOR_ROWS(n, N, K)
        for (int i = 0; i < K; i++)
            a->x[at + i] = x[at + i] + lambda * (a->x[at + i] - x[at + i]);
}

static void qat_inputs(const Golf *m, Act *a, const real *x, int N, int K, int tensor) {
    const Qat *q = m->own[SYS_qat];
    const Inputs *base = q->base[tensor];
    const real lambda = qat_lambda(m, tensor, block_of(&m->config, m->p));
    base->quantize(m, a, x, N, K, tensor);
    if (lambda == 1 && q->row[tensor].domain == base->domain) return;
    TIMED(QUANT);
    if (base->domain == 0) qat_mix_codes(a, x, lambda, N, K);
    else qat_mix_numbers(a, x, lambda, N, K);
}

/* inputs = x + lambda (Q(x) - x): d(x) = d(inputs), unless Q has a mask */
static void qat_inputs_backward(const Golf *m, const Act *a, real *dx, int N, int K,
                                int tensor) {
    const Qat *q = m->own[SYS_qat];
    const Inputs *base = q->base[tensor];
    if (base->backward && qat_lambda(m, tensor, block_of(&m->config, m->p)) > 0)
        base->backward(m, a, dx, N, K, tensor);
}

/* Wraps the rows of inputs, which all systems have chosen by now. */
static void qat_start(Golf *m, const Golf *from, int convert) {
    const Config *c = &m->config;
    const int mixes = c->qat == QAT_EXPORT || c->qat_ramp > 0;
    (void)convert;
    if (from) return; /* it was done when the masters were random */
    Qat *q = owned(m, 1, sizeof(Qat));
    m->own[SYS_qat] = q;
    for (int k = 0; k < N_TENSORS; k++) {
        q->float_only[k] = m->tensor[k].float_only;
        q->base[k] = m->inputs[k];
        q->row[k] = *q->base[k];
        q->row[k].quantize = qat_inputs;
        q->row[k].backward = qat_inputs_backward;
        q->row[k].has_x = 1;
        if (mixes) m->inputs[k] = &q->row[k];
    }
}

/* ---- Weights. */
/* eff = w + step * noise, that of copy j of t. */
static void qat_add_noise(Golf *m, const Tensor *t, int j) {
    const size_t from = t->at + (size_t)j * t->copy_n;
    const uint64_t key =
        hash64(hash64((uint64_t)m->config.seed, (uint64_t)m->step), from);
    const real *scale = scale_of(m, t, j);
    PARALLEL(t->copy_n)
    for (size_t g = 0; g < spans(t); g++) {
        const Span span = span_at(t, g);
        const real s = scale[span.scale];
        for (size_t i = span.at; i < span.at + (size_t)span.n; i++)
            m->eff[from + i] = m->master[from + i] + s * (real)(uniform01(key, i) - 0.5);
    }
}

/* eff = w + lambda (Q(w) - w) */
static void qat_mix_weights(Golf *m, const Tensor *t, int j, real lambda) {
    const size_t from = t->at + (size_t)j * t->copy_n;
    FOR_RANGE(i, from, t->copy_n)
        m->eff[i] = m->master[i] + lambda * (m->eff[i] - m->master[i]);
}

/* Noise is for tensors with steps, and not where an estimator is left (see below): that
 * is for zeros which are to stay. */
static void qat_soften_copy(Golf *m, const Tensor *t, int j, real lambda) {
    if (m->config.qat == QAT_NOISE && t->bits < 16 && !t->passes) qat_add_noise(m, t, j);
    else if (lambda < 1) qat_mix_weights(m, t, j, lambda);
}

static void qat_soften(Golf *m) {
    Qat *q = m->own[SYS_qat];
    for (int k = 0; k < N_TENSORS; k++) {
        Tensor *t = m->tensor + k;
        const real least = qat_lambda(m, k, block_count(&m->config) - 1);
        t->float_only = q->float_only[k] || least < 1 || m->config.qat != QAT_ON;
        q->row[k].domain = least < 1 ? -1 : q->base[k]->domain;
        if (!is_stored(t) || t->role == INTERFACE) continue;
        for (int j = 0; j < t->stored_copies; j++)
            qat_soften_copy(m, t, j, qat_lambda(m, k, qat_block(m, t, j)));
    }
}

/* Projections that are not on their grid have nothing to mask. The grid of inputs, a
 * tensor without numbers, keeps its mask: they are rounded all the same. */
static void qat_estimator(const Golf *m, Tensor *t) {
    if (m->config.qat != QAT_ON && t->role == PROJ && t->n) t->passes = NULL;
}

static const System qat_system = {.name = "qat",
                                  .needs = "qat or --qat_ramp",
                                  .on = qat_on,
                                  .takes = qat_takes,
                                  .uses = qat_uses,
                                  .estimator = qat_estimator,
                                  .start = qat_start,
                                  .soften = qat_soften};

#elif defined TESTS
#define QAT_SMALL \
    "vocab=20 width=16 heads=2 hidden=32 act=swiglu seq=8 repeat=2 steps=100 "

/* When each matrix sets in. */
static void test_qat_ramp(void) {
    Golf m;
    new_model(&m, QAT_SMALL "qat_ramp=0.4", 0);
    m.step = 10;
    CHECK(near((double)qat_lambda(&m, T_wo, 0), 0.25, 1e-6) && qat_lambda(&m, T_embed, 0) == 1,
          "together");
    m.config.qat_order = 1;
    const real up = qat_lambda(&m, T_wup, 0), down = qat_lambda(&m, T_wdown, 0);
    CHECK(up == 1 && down == 0, "each: up %g, down %g", (double)up, (double)down);
    CHECK(qat_lambda(&m, T_wgate, 0) == up, "each: a gate that waits for its turn");
    m.step = 15;
    CHECK(near((double)qat_lambda(&m, T_wdown, 0), 0.5, 1e-6) && qat_lambda(&m, T_wqkv, 0) == 0,
          "each: down half, q, k, v not yet");
    m.step = 25;
    CHECK(near((double)qat_lambda(&m, T_wo, 0), 0.5, 1e-6), "each: output half");
    m.step = 40;
    CHECK(qat_lambda(&m, T_wqkv, 0) == 1, "each: q, k, v at the end");
    m.step = 15;
    m.config.qat_order = QAT_BLOCK;
    m.config.unique = 2;
    CHECK(near((double)qat_lambda(&m, T_wo, 0), 0.75, 1e-6) &&
              qat_lambda(&m, T_wo, 1) == 0 && qat_lambda(&m, T_embed, 1) == 1,
          "block: the first at three quarters, the second not yet");
    m.step = 30;
    CHECK(qat_lambda(&m, T_wup, 0) == 1 &&
              near((double)qat_lambda(&m, T_wqkv, 1), 0.5, 1e-6),
          "block: the first at the end, half of the second");
    m.config.qat = 0;
    CHECK(qat_lambda(&m, T_wo, 0) == 0 && qat_lambda(&m, T_embed, 0) == 0, "qat=0");
    golf_free(&m);
}

/* A model at this step, and its twin of the same masters, quantized as ever. */
static void qat_twins(Golf *m, Golf *twin, const char *arm, int step) {
    char text[256];
    snprintf(text, sizeof text, QAT_SMALL "%s", arm);
    new_model(m, text, 16);
    new_model(twin, QAT_SMALL, 16);
    m->step = step;
    for (size_t i = 0; i < m->n_params; i++) { /* no gain stays a bf16 number */
        m->master[i] += (real)0.1 * noise(50, i);
        twin->master[i] = m->master[i];
    }
    golf_quantize(m);
    golf_quantize(twin);
}

static void qat_free(Golf *m, Golf *twin) {
    golf_free(m);
    golf_free(twin);
}

/* Is every weight of tensor k at this point between w and Q(w)? */
static void qat_check_between(const Golf *m, const Golf *twin, int k, double lambda) {
    const Tensor *t = m->tensor + k;
    double worst = 0;
    for (size_t i = t->at; i < t->at + t->n; i++) {
        const double w = (double)m->master[i], q = (double)twin->eff[i];
        worst = worse(worst, fabs((double)m->eff[i] - (w + lambda * (q - w))));
    }
    CHECK(worst < EPS, "%s, lambda %g: off by %g", t->name, lambda, worst);
}

/* Copy j of tensor k by the same definition. */
static void qat_check_copy(const Golf *m, int k, int j, double lambda) {
    const Tensor *t = m->tensor + k;
    const size_t from = t->at + (size_t)j * t->copy_n;
    real *q = reals(t->copy_n, 0);
    double worst = 0;
    t->quant->dequantize(q, m->code + from, scale_of(m, t, j), t);
    for (size_t i = 0; i < t->copy_n; i++) {
        const double w = (double)m->master[from + i];
        const double want = w + lambda * ((double)q[i] - w);
        worst = worse(worst, fabs((double)m->eff[from + i] - want));
    }
    CHECK(worst < EPS, "%s, copy %d, lambda %g: off by %g", t->name, j, lambda, worst);
}

/* Block after block, also of what has a copy per phase, several per block, or one. */
static void test_qat_blocks(void) {
    const int *x = tokens_below(20, 16, 52), *y = tokens_below(20, 16, 53);
    Golf m;
    new_model(&m, QAT_SMALL "unique=2 qat_ramp=0.4 qat_order=block", 16);
    m.step = 25;
    golf_quantize(&m);
    for (int k = T_wqkv; k <= T_wdown; k++) {
        qat_check_copy(&m, k, 0, 1);
        qat_check_copy(&m, k, 1, 0.25);
    }
    CHECK(!in_integers(&m, m.tensor + T_wo), "codes while a block has none");
    const Tensor phases = {.stored_copies = 4}, parts = {.stored_copies = 6},
                 once = {.stored_copies = 1};
    CHECK(qat_block(&m, &phases, 2) == 0 && qat_block(&m, &phases, 3) == 1, "phases");
    CHECK(qat_block(&m, &parts, 2) == 0 && qat_block(&m, &parts, 3) == 1, "parts");
    CHECK(qat_block(&m, &once, 0) == 1, "once");

    /* inputs: those of phases 0 and 2 are on their grid, of 1 and 3 a quarter of the way */
    golf_forward(&m, x, y, 2, 8);
    for (int p = 0; p < 4; p++) {
        const Act *a = &m.phase[p].in_o;
        int off = 0;
        for (int i = 0; i < 16 * 16; i++) {
            const double on = (double)a->q[i] * (double)a->step[i / 16];
            off += fabs((double)a->x[i] - on) > 1e-6;
        }
        CHECK((off > 0) == p % 2, "phase %d: %d inputs off their grid", p, off);
    }
    golf_free(&m);
}

/* The paper's norms: before every linear one of its own, with a gain for each input. */
static void test_qat_gains(void) {
    static const int gains[] = {T_x_q, T_x_k, T_x_v, T_x_attn, T_x_up, T_x_mlp};
    const Config c = config_of("unique=3 repeat=1 extra_norm=each xgain=vector");
    Golf m;
    golf_layout(&m, &c);
    for (int i = 0; i < 6; i++) {
        const Tensor *t = m.tensor + gains[i];
        const int inputs = gains[i] == T_x_mlp ? hidden_width(&c) : c.width;
        CHECK(t->stored_copies == 3 && t->stored_cols == inputs, "%s: %d of %d numbers",
              t->name, t->stored_copies, t->stored_cols);
    }
}

static void test_qat_weights(void) {
    Golf m, twin;
    qat_twins(&m, &twin, "qat_ramp=0.4", 10);
    for (int k = T_wqkv; k <= T_wdown; k++) qat_check_between(&m, &twin, k, 0.25);
    qat_check_between(&m, &twin, T_embed, 1);
    qat_check_between(&m, &twin, T_g_mlp, 1);
    CHECK(!in_integers(&m, m.tensor + T_wo), "a product of codes at lambda 0.25");
    qat_free(&m, &twin);

    qat_twins(&m, &twin, "qat_ramp=0.4 qat_order=each", 25);
    qat_check_between(&m, &twin, T_wup, 1);
    qat_check_between(&m, &twin, T_wdown, 1);
    qat_check_between(&m, &twin, T_wo, 0.5);
    qat_check_between(&m, &twin, T_wqkv, 0);
    CHECK(in_integers(&m, m.tensor + T_wup) && !in_integers(&m, m.tensor + T_wo),
          "each: which products are of codes");
    qat_free(&m, &twin);
}

/* Inputs x (2,K) of Wo. */
static void test_qat_inputs(void) {
    enum { K = 16 };
    Golf m, twin;
    const real *x = reals(2 * K, 51);
    qat_twins(&m, &twin, "qat_ramp=0.4", 10);
    Act *a = &m.phase[0].in_o, *b = &twin.phase[0].in_o;
    double worst = 0;
    m.inputs[T_wo]->quantize(&m, a, x, 2, K, T_wo);
    twin.inputs[T_wo]->quantize(&twin, b, x, 2, K, T_wo);
    for (int i = 0; i < 2 * K; i++) {
        const double rounded = (double)b->q[i] * (double)b->step[i / K];
        const double want = (double)x[i] + 0.25 * (rounded - (double)x[i]);
        worst = worse(worst, fabs((double)a->x[i] - want));
    }
    CHECK(worst < EPS, "lambda 0.25: off by %g", worst);
    CHECK(!inputs_of(&m, a, T_wo).q, "codes at lambda 0.25");
    qat_free(&m, &twin);
}

/* When the ramp is over, the model is what it would be without. */
static void test_qat_end_of_ramp(void) {
    Golf m, twin;
    const int *x = tokens_below(20, 16, 52), *y = tokens_below(20, 16, 53);
    qat_twins(&m, &twin, "qat_ramp=0.4 qat_order=each", 40);
    const double loss = golf_forward(&m, x, y, 2, 8);
    const double want = golf_forward(&twin, x, y, 2, 8);
    CHECK(loss == want, "loss %.17g, %.17g without a ramp", loss, want);
    CHECK(in_integers(&m, m.tensor + T_wo) == in_integers(&twin, twin.tensor + T_wo),
          "codes");
    qat_free(&m, &twin);
}

/* qat=0: weights as they are in memory, codes in the file. */
static void test_qat_export(void) {
    Golf m, twin, file;
    qat_twins(&m, &twin, "qat=0", 10);
    for (int k = T_embed; k <= T_wdown; k++) qat_check_between(&m, &twin, k, 0);
    qat_check_between(&m, &twin, T_g_mlp, 1);
    golf_save(&m, IN("model.golf"), 1);
    golf_load(&file, IN("model.golf"));
    CHECK(!memcmp(file.eff, twin.eff, m.n_params * sizeof(real)),
          "the file is not quantized");
    golf_free(&file);
    qat_free(&m, &twin);
}

/* Noise of tensor k: up to half a step, as often above as below, uniform by its size. */
static void qat_check_noise(const Golf *m, int k) {
    const Tensor *t = m->tensor + k;
    double most = 0, mean = 0, square = 0;
    for (size_t i = 0; i < t->copy_n; i++) {
        const size_t row = t->copy_scales > 1 ? i / (size_t)t->stored_cols : 0;
        const double s = (double)scale_of(m, t, 0)[row];
        const double u = (double)(m->eff[t->at + i] - m->master[t->at + i]) / s;
        most = fmax(most, fabs(u));
        mean += u / (double)t->copy_n;
        square += u * u / (double)t->copy_n;
    }
    const double sigma = 1 / sqrt(12.0 * (double)t->copy_n);
    CHECK(most < 0.5001 && most > 0.49 && fabs(mean) < 4 * sigma &&
              near(sqrt(12 * square), 1, 0.1),
          "%s: up to %g steps, mean %g, RMS %g", t->name, most, mean, sqrt(square));
}

static void test_qat_noise(void) {
    Golf m, twin;
    const Tensor *gain = m.tensor + T_g_mlp;
    qat_twins(&m, &twin, "qat=noise", 10);
    for (int k = T_embed; k <= T_wdown; k++) qat_check_noise(&m, k);
    CHECK(!memcmp(m.eff + gain->at, twin.eff + gain->at, gain->n * sizeof(real)),
          "interface");
    CHECK(!in_integers(&m, m.tensor + T_wo), "a product of codes");

    const real *was = memcpy(reals(m.n_params, 0), m.eff, m.n_params * sizeof(real));
    golf_quantize(&m);
    CHECK(!memcmp(m.eff, was, m.n_params * sizeof(real)), "other noise at the same step");
    m.step++;
    golf_quantize(&m);
    CHECK(memcmp(m.eff, was, m.n_params * sizeof(real)),
          "the same noise at another step");
    qat_free(&m, &twin);
}

static void qat_all_pass(uint8_t *mask, const real *w, int n, real s, const Tensor *t) {
    (void)w;
    (void)s;
    (void)t;
    memset(mask, 1, (size_t)n);
}

/* Whose mask is taken away. */
static void test_qat_estimators(void) {
    static const struct {
        const char *text;
        int role, kept;
    } rows[] = {{"qat=0", PROJ, 0},
                {"qat=noise", PROJ, 0},
                {"qat=0", FACTOR, 1},
                {"qat_ramp=0.5", PROJ, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const Config c = config_of(rows[i].text);
        Golf m;
        golf_layout(&m, &c);
        Tensor t = {.role = rows[i].role, .n = 1, .passes = qat_all_pass};
        Tensor grid = {.role = PROJ, .passes = qat_all_pass};
        qat_estimator(&m, &t);
        qat_estimator(&m, &grid);
        CHECK((t.passes != NULL) == rows[i].kept, "%s, role %d", rows[i].text,
              rows[i].role);
        CHECK(grid.passes != NULL, "%s: the grid of inputs", rows[i].text);
    }
}

/* Somewhere on the ramp, where lambda is 0.4: gradients must not depend on it. */
static void qat_ready(Golf *m, size_t N) {
    (void)N;
    m->step = (int)(0.4 * m->config.qat_ramp * m->config.steps);
}

static const SystemTests qat_tests = {
    .gradients = (const char *const[]){"qat_ramp=0.5",
                                       "qat_ramp=0.5 qat_order=each extra_norm=each",
                                       "qat_ramp=0.5 aq=none wq=int4 unique=2",
                                       "qat_ramp=0.5 qat_order=block unique=3 "
                                       "extra_norm=each xgain=vector repeat=1",
                                       "qat_ramp=0.5 qat_order=block unique=2 prelude=1 "
                                       "aq=int4 wq=int4",
                                       "qat_ramp=1 qat=noise", "qat=0", "qat=0 wq=int8",
                                       "qat_ramp=0.5 qat_order=each act=swiglu",
                                       "qat=0 aq=none wscale=group", "qat=noise",
                                       "qat=noise wq=int4 aq=int4 repeat=3", NULL},
    .ready = qat_ready,
    .files = (const char *const[]){"qat_ramp=0.1", "qat_ramp=0.2 qat_order=block unique=3", "qat_ramp=0.1 qat_order=each wq=int6",
                                   NULL},
    .errors =
        (const char *const[][2]){{"--qat_order=each", "--qat_order|--qat or --qat_ramp"},
                                 {"--qat=0 --qat_order=each", "--qat_order|--qat_ramp"},
                                 {"--qat_ramp=0.5 --qat_order=block",
                                  "--qat_order=block|one block"},
                                 {"--qat=0 --qat_ramp=0.5", "--qat_ramp=0.5|--qat=0"},
                                 {"--qat=2", "--qat|0|1|noise|'2'"},
                                 {"--qat_ramp=2", "--qat_ramp|0 to 1|'2'"},
                                 {NULL, NULL}},
    .tests = (const Test[]){{"ramp", test_qat_ramp},
                            {"weights", test_qat_weights},
                            {"blocks", test_qat_blocks},
                            {"gains", test_qat_gains},
                            {"inputs", test_qat_inputs},
                            {"end of the ramp", test_qat_end_of_ramp},
                            {"export", test_qat_export},
                            {"noise", test_qat_noise},
                            {"estimators", test_qat_estimators},
                            {NULL, NULL}}};
#elif defined BUGS
bug ramp-at-once float ramp "$(in_ qat_lambda)s/if (c->qat_order == QAT_TOGETHER) //"
bug ramp-of-the-first-block-only float ramp "$(in_ qat_lambda)s/\[QAT_BLOCK\] = block}/[QAT_BLOCK] = 0}/"
bug inputs-of-another-block float blocks "$(in_ qat_inputs)s/block_of(&m->config, m->p)/0/"
bug phase-not-told float blocks "$(in_ block_forward)s/m->p = p;/m->p = 0;/"
bug copies-of-phases-as-blocks float blocks "$(in_ qat_block)s/if (copies == m->phases) .*//"
bug codes-of-a-block-that-has-none float blocks "$(in_ qat_soften)s/block_count(&m->config) - 1/0/"
bug ramp-of-the-embedding float ramp "$(in_ qat_lambda)s/ || k == T_embed//"
bug ramp-the-wrong-way float weights "$(in_ qat_mix_weights)s/m->eff\[i\] - m->master\[i\])/m->master[i] - m->eff[i])/"
bug ramp-keeps-inputs-rounded float inputs "$(in_ qat_mix_codes)s/lambda \* (/(/"
bug ramp-inputs-still-codes float inputs "$(in_ qat_soften)s/least < 1 ? -1 : q->base/q->base/"
bug ramp-never-ends float end "$(in_ qat_soften)s/least < 1 ? -1 : q->base\[k\]->domain/-1/"
bug noise-of-a-whole-step float noise "$(in_ qat_add_noise)s/s \* (real)/2 * s * (real)/"
bug noise-once-for-all float noise "$(in_ qat_add_noise)s/(uint64_t)m->step/0/"
bug interface-not-rounded float export "$(in_ qat_soften)s/ || t->role == INTERFACE//"
bug mask-of-a-grid-not-used float estimators "$(in_ qat_estimator)s/m->config.qat != QAT_ON/0/"
#endif
