/* calibration_check.h - for the tests of systems that calibrate: a block by its definition
 * in doubles, and the gradients of what is minimised against finite differences. */
#ifndef GOLF_CALIBRATION_CHECK_H
#define GOLF_CALIBRATION_CHECK_H

/* A model whose blocks have no vectors of their own and quantize no inputs. */
#define PLAIN_BLOCKS \
    "vocab=20 width=8 heads=2 mlp=1 seq=8 batch=2 repeat=1 mix=none gain=none gate=none " \
    "qgain=none extra_norm=none xgain=none aq=none wq=none "
enum { PLAIN_C = 8, PLAIN_F = 8, PLAIN_H = 2, PLAIN_D = 4, PLAIN_T = 8, PLAIN_N = 16 };
enum { PLAIN_QKV = 3 * PLAIN_C * PLAIN_C, PLAIN_SQUARE = PLAIN_C * PLAIN_C };

/* The weights of a block, as numbers one behind the other. */
typedef struct {
    double qkv[PLAIN_QKV], o[PLAIN_SQUARE], up[PLAIN_SQUARE], down[PLAIN_SQUARE];
} PlainBlock;

static const int plain_tensor[] = {T_wqkv, T_wo, T_wup, T_wdown};

static inline PlainBlock plain_block(const Golf *m, const real *x, int p) {
    PlainBlock w;
    double *const to[] = {w.qkv, w.o, w.up, w.down};
    for (int k = 0; k < 4; k++) {
        const Tensor *t = m->tensor + plain_tensor[k];
        const real *from = x + t->at + (size_t)copy_of(m, t, p) * t->copy_n;
        for (size_t i = 0; i < t->copy_n; i++) to[k][i] = (double)from[i];
    }
    return w;
}

static inline void plain_norm(double *out, const double *x, int n) {
    double square = 0;
    for (int i = 0; i < n; i++) square += x[i] * x[i] / n;
    for (int i = 0; i < n; i++) out[i] = x[i] / sqrt(square + 1e-6);
}

/* y (rows) = W x.  W (rows,C) */
static inline void plain_product(double *y, const double *w, const double *x, int rows) {
    for (int i = 0; i < rows; i++) {
        y[i] = 0;
        for (int k = 0; k < PLAIN_C; k++) y[i] += w[i * PLAIN_C + k] * x[k];
    }
}

/* A head of a query or key: norm, times g, turned by its position. */
static inline void plain_head(double *x, double g, int t) {
    plain_norm(x, x, PLAIN_D);
    for (int i = 0; i < PLAIN_D / 2; i++) {
        const double angle = t * pow(10000, -2.0 * i / PLAIN_D);
        const double a = x[i], b = x[PLAIN_D / 2 + i];
        x[i] = g * (a * cos(angle) + b * sin(angle));
        x[PLAIN_D / 2 + i] = g * (b * cos(angle) - a * sin(angle));
    }
}

/* att (C) of token t: heads side by side.  qkv (T,3 C) */
static inline void plain_attention(double *att, const double *qkv, int t) {
    memset(att, 0, sizeof(double) * PLAIN_C);
    for (int h = 0; h < PLAIN_H; h++) {
        const double *q = qkv + t * 3 * PLAIN_C + h * PLAIN_D;
        double sum = 0;
        for (int s = 0; s <= t; s++) {
            const double *k = qkv + s * 3 * PLAIN_C + PLAIN_C + h * PLAIN_D;
            double score = 0;
            for (int i = 0; i < PLAIN_D; i++) score += q[i] * k[i] / sqrt(PLAIN_D);
            sum += exp(score);
            for (int i = 0; i < PLAIN_D; i++)
                att[h * PLAIN_D + i] += exp(score) * k[PLAIN_C + i];
        }
        for (int i = 0; i < PLAIN_D; i++) att[h * PLAIN_D + i] /= sum;
    }
}

/* out, in (T,C): a row of text through the block. */
static inline void plain_forward(double *out, const double *in, const PlainBlock *w) {
    double qkv[PLAIN_T * 3 * PLAIN_C], u[PLAIN_C], att[PLAIN_C], y[PLAIN_C], f[PLAIN_F];
    for (int t = 0; t < PLAIN_T; t++) {
        double *row = qkv + t * 3 * PLAIN_C;
        plain_norm(u, in + t * PLAIN_C, PLAIN_C);
        plain_product(row, w->qkv, u, 3 * PLAIN_C);
        for (int h = 0; h < 2 * PLAIN_H; h++)
            plain_head(row + h * PLAIN_D, h < PLAIN_H ? 1.5 : 1, t);
    }
    for (int t = 0; t < PLAIN_T; t++) {
        double *mid = out + t * PLAIN_C;
        plain_attention(att, qkv, t);
        plain_product(y, w->o, att, PLAIN_C);
        for (int i = 0; i < PLAIN_C; i++) mid[i] = in[t * PLAIN_C + i] + y[i];
        plain_norm(u, mid, PLAIN_C);
        plain_product(f, w->up, u, PLAIN_F);
        for (int i = 0; i < PLAIN_F; i++) f[i] = f[i] > 0 ? f[i] * f[i] : 0;
        plain_product(y, w->down, f, PLAIN_C);
        for (int i = 0; i < PLAIN_C; i++) mid[i] += y[i];
    }
}

/* in to out (rows,T,C) through the block. */
static inline void plain_rows(double *out, const double *in, const PlainBlock *w,
                              int rows) {
    for (int r = 0; r < rows; r++)
        plain_forward(out + r * PLAIN_T * PLAIN_C, in + r * PLAIN_T * PLAIN_C, w);
}

/* The paper's error: the mean of squares over tokens and columns. */
static inline double plain_error(const double *in, const double *want,
                                 const PlainBlock *w, int rows) {
    enum { MOST = 8 * PLAIN_T * PLAIN_C };
    const int n = rows * PLAIN_T * PLAIN_C;
    double out[MOST], sum = 0;
    plain_rows(out, in, w, rows);
    for (int i = 0; i < n; i++) sum += (out[i] - want[i]) * (out[i] - want[i]);
    return sum / n;
}

/* What the first phase starts from. x0 (rows,T,C) */
static inline void plain_embedding(double *x0, const Golf *m, const int *tokens,
                                   int rows) {
    const real *E = m->eff + m->tensor[T_embed].at;
    for (int n = 0; n < rows * PLAIN_T; n++) {
        double e[PLAIN_C];
        for (int i = 0; i < PLAIN_C; i++) e[i] = (double)E[tokens[n] * PLAIN_C + i];
        plain_norm(x0 + n * PLAIN_C, e, PLAIN_C);
    }
}

/* AdamW by its definition, of one number; step counts from 1. */
typedef struct {
    double w, m, v;
} PlainAdam;

static inline void plain_adamw(PlainAdam *a, double g, int step, double rate,
                               double decay) {
    a->m = 0.9 * a->m + 0.1 * g;
    a->v = 0.999 * a->v + 0.001 * g * g;
    const double m = a->m / (1 - pow(0.9, step)), v = a->v / (1 - pow(0.999, step));
    a->w -= rate * decay * a->w + rate * m / (sqrt(v) + 1e-8);
}

/* ---- Gradients. */
typedef struct {
    Golf m;
    Calibration k;
    int block;
} CalibrationProbe;

/* Masters stay where the caller put them, as in probe_loss. */
static inline double calibration_probe_error(void *arg) {
    CalibrationProbe *p = arg;
    Golf *m = &p->m;
    const size_t bytes = m->n_params * sizeof(real);
    real *masters = memcpy(xcalloc(m->n_params, sizeof(real)), m->master, bytes);
    golf_quantize(m);
    memcpy(m->master, masters, bytes);
    free(masters);
    return calibration_error(m, &p->k, p->block);
}

/* Streams of noise, on one batch: a row of inputs is frozen where it stands. */
static inline void calibration_noise(Calibration *k, const Golf *m) {
    calibration_alloc(k, m, m->config.batch);
    for (size_t i = 0; i < k->stream; i++) k->x0[i] = noise(50, i);
    for (int p = 0; p < m->phases; p++)
        for (size_t i = 0; i < k->stream; i++) {
            k->in[p][i] = noise(60 + (uint64_t)p, i);
            k->out[p][i] = noise(80 + (uint64_t)p, i);
        }
}

/* The gradients of what `trains` names, of all phases (block -1) or of those of a block,
 * with all quantizers frozen. Doubles only. */
static __attribute__((unused)) void
check_calibration_gradient(const char *arm, int (*trains)(const Tensor *t), int block,
                           void (*ready)(Golf *m, size_t N)) {
    char text[512];
    CalibrationProbe p = {.block = block};
    Golf *m = &p.m;
    int checked = 0;
    snprintf(text, sizeof text, "vocab=11 width=8 heads=2 mlp=2 seq=8 batch=2 %s", arm);
    new_frozen_model(m, text, 16);
    stir(m);
    if (ready) ready(m, 16);
    for (size_t i = 0; i < m->n_params; i++) m->master[i] += (real)1e-2 * noise(5, i);
    calibration_noise(&p.k, m);
    freeze_rows(m, RECORD);
    calibration_probe_error(&p);
    freeze_rows(m, REPLAY);
    calibration_probe_error(&p);
    calibration_gradient(m, &p.k, block, 0);
    real *g = memcpy(reals(m->n_params, 0), m->grad, m->n_params * sizeof(real));
    EACH_TENSOR(t, m) {
        const int copies = block < 0 ? 1 : t->stored_copies;
        const int copy = block < 0 ? 0 : block;
        if (!is_stored(t) || !trains(t)) continue;
        const size_t n = t->n / (size_t)copies, at = t->at + (size_t)copy * n;
        const double e =
            grad_error(m->master + at, g + at, n, calibration_probe_error, &p);
        CHECK(e <= GRAD_TOL, "calibration: gradient of %s with %s: %.3g", t->name, arm,
              e);
        checked++;
    }
    CHECK(checked > 1, "%s: nothing is calibrated", arm);
    free(g);
    calibration_close(&p.k, m);
    golf_free(m);
}

#endif
