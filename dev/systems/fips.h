/* fips.h - FiPS (2411.09816): a dense factor for a group of MLPs, a sparse one for each.
 *
 *     Wup[p] = V_up[p] U        Wdown[p] = U^T V_down[p]
 *     U (r,C) for the phases of a group, V_up[p] (F,r) and V_down[p] (r,F) sparse
 *
 * Wup and Wdown are neither stored nor trained: they are products, made once a step,
 * and their gradients go on to the factors: dV_up = dWup U^T, dU += V_up^T dWup, and
 * so on. A group is --fips_group phases one after another (0: all); r may exceed C.
 * The sparse factors are pruned by size, those of all phases together, as they are
 * trained: every 50 steps, more and more until three quarters of the steps. A weight that
 * was pruned is 0, gets no gradient and stays 0: the mask needs no memory. How the part s
 * grows, x being the part of the time that has passed:
 *
 *     cubic          s (1 - (1 - x)^3), x from the first step on
 *     accelerated    s/15 from the start; at 7.5 % of the steps 2s/3, and from there
 *                    s - s/3 (1 - x)^3
 *
 * Stored: U in --fips_ubits bits, a scale per row; V in --fips_vbits, codes with a
 * scale per row, where a pruned weight is code 0: no positions, as the range coder
 * makes zeros cheap. All of it counts as protected. Cost: the FLOPs of a dense MLP for
 * each token (sparsity saves none here), and 12 C F r a step and phase for products
 * and their gradients; memory for Wup and Wdown of every phase.
 *
 * In a model made of a trained flat one, U is the r directions that the inputs of all
 * up and the outputs of all down projections of the group share most: eigenvectors of
 * sum (Wup^T Wup + Wdown Wdown^T), which is the singular value decomposition of their
 * matrices side by side. V is what is then best: V_up = Wup U^T, V_down = U Wdown. Beyond
 * C there are no directions: U has zeros there, and V what it has of the first ones, as
 * often as needed, divided by 32.
 *
 * --fips_steps=S: then the factors, all at once, are trained for S steps to minimise the
 * sum of the phases' errors (shared/calibration.h): each phase is given what the donor's
 * is given, and compared with what that puts out. AdamW, decay 0.05; the rate falls in a
 * cosine from --fips_lr to a tenth of it. The pruning belongs to these steps, and
 * training that follows keeps its zeros. This is the paper's method; the official code
 * has these numbers for images (DeiT: rate 1e-4, 3,840 of them, 20 rounds), prunes in the
 * accelerated way, and leaves each block its own attention: here --unique=PHASES
 * --repeat=1 --aq=none --fips_group=4 --fips_prune=accelerated.
 *
 * Differs from the paper, of which abstracts, reviews and the official code could be read:
 * without --fips_steps factors are trained with the model on the loss of its text, from a
 * donor or from nothing, which the paper does not do; they are quantized while they are
 * trained, as all that is stored; the last pruning leaves exactly the part that was asked
 * for (theirs 0.03 points less). Left out: RigL and N:M masks, the choice of r from a
 * budget, another order of the rows in every round, sparse kernels. */
#ifdef OPTIONS
X(MODEL, INT, ffn, "dense", "dense|fips", "MLP: two matrices | FiPS's factors")
X(MODEL, INT, fips_rank, "0", "0 to 16384", "rows of the shared factors")
X(MODEL, INT, fips_group, "0", "0 to 4224", "phases that share one; 0: all")
X(MODEL, NUM, fips_sparse, "0.75", "0 to 0.99", "part of the others that is pruned")
X(MODEL, INT, fips_ubits, "8", "4 to 8|16", "of the shared factors")
X(MODEL, INT, fips_vbits, "4", "4 to 8", "of the sparse factors")
X(TRAIN, INT, fips_prune, "cubic", "cubic|accelerated",
  "how the pruned part grows; FiPS's way")
X(TRAIN, INT, fips_steps, "0", "0 to 1000000",
  "> 0: steps that fit phases to the donor's")
X(TRAIN, INT, fips_rows, "128", "1 to 1000000", "training rows for these")
X(TRAIN, NUM, fips_lr, "0.0001", "0 to 10", "their peak rate")

#elif defined TENSORS
/* ffn is 0 without the system, else 1. FIPS_LEFT: what pruning will leave of a sum over
 * r. Factors start so that products then have the size of a dense MLP's weights. */
#define FIPS_LEFT (c->fips_rank * (1 - c->fips_sparse) + 1e-9)
X(fips_u, ONCE, c->ffn * c->fips_rank, c->ffn * c->width, PROJ, MODE_VECTOR, init_in(c))
X(fips_up, PER_PHASE, c->ffn * hidden_width(c), c->ffn * c->fips_rank, FACTOR,
  MODE_VECTOR, 1 / sqrt(FIPS_LEFT))
X(fips_down, PER_PHASE, c->ffn * c->fips_rank, c->ffn * hidden_width(c), FACTOR,
  MODE_VECTOR,
  1 / sqrt(2.0 * phase_count(c)) * sqrt(c->width / (hidden_width(c) * FIPS_LEFT)))
#undef FIPS_LEFT

#elif defined LIST
X(fips)

#elif defined CODE
#include "shared/calibration.h"
#include "shared/donor.h"
#include "shared/low_rank.h"

enum { FFN_DENSE, FFN_FIPS };
enum { PRUNE_CUBIC, PRUNE_ACCELERATED };

static int fips_on(const Config *c) { return c->ffn == FFN_FIPS; }

static int fips_takes(const Config *c) {
    (void)c;
    return RES_MLP_COPIES;
}

static int fips_uses(const Config *c) {
    (void)c;
    return RES_COPIES;
}

static void fips_check(const Config *c) {
    if (!c->phase) die("--ffn=fips has factors for each phase: expected --phase=1");
    if (is_gated(c))
        die("--ffn=fips has factors of two matrices: expected no --act=swiglu, which has a "
            "third");
    if (c->fips_rank < 1) die("--ffn=fips needs --fips_rank, 1 or more");
    if (c->fips_group > phase_count(c))
        die("--fips_group=%d: expected at most the %d phases; 0 is all of them",
            c->fips_group, phase_count(c));
    option_needs(c, "fips_prune", c->fips_sparse > 0, "fips_sparse");
    option_needs(c, "fips_lr", c->fips_steps > 0, "fips_steps");
    calibration_check(c, c->fips_steps, c->fips_rows, "fips");
}

static int fips_group_size(const Config *c) {
    return c->fips_group ? c->fips_group : phase_count(c);
}

static void fips_shape(Golf *m) {
    Tensor *u = m->tensor + T_fips_u;
    for (int k = T_wup; k <= T_wdown; k++) {
        Tensor *t = m->tensor + k;
        t->role = VIRTUAL;
        t->per = PER_PHASE;
        t->stored_copies = m->phases;
    }
    u->float_only = 1; /* no layer multiplies with it */
    u->ledger = LEDGER_PROTECTED;
    u->stored_copies = CEIL(m->phases, fips_group_size(&m->config));
    if (u->stored_copies > 1) u->per = PER_OTHER;
}

/* A run without its donor would do without these steps. */
static void fips_open(Golf *m, const Tokenizer *tok, int resumes) {
    (void)tok;
    (void)resumes;
    if (m->config.fips_steps && !m->converted)
        die("--fips_steps=%d fits phases to those of a trained model: it needs "
            "--init_from and --convert",
            m->config.fips_steps);
}

/* Another system may ask about a grid of its own, which has no name. */
static int is_named(const Tensor *t, const char *name) {
    return t->name && !strcmp(t->name, name);
}

static int is_sparse_factor(const Tensor *t) {
    return is_named(t, "fips_up") || is_named(t, "fips_down");
}

static int is_shared_factor(const Tensor *t) { return is_named(t, "fips_u"); }

static int is_factor(const Tensor *t) {
    return is_sparse_factor(t) || is_shared_factor(t);
}

static int fips_store(const Golf *m, Tensor *t) {
    const Config *c = &m->config;
    const int per = c->wscale == SCALE_GROUP ? SCALE_GROUP : SCALE_ROW;
    const int bf16 = c->fips_ubits == 16;

    if (is_sparse_factor(t)) store_as(t, quantizers + Q_INT, c->fips_vbits, SCALE_ROW);
    if (is_shared_factor(t))
        store_as(t, quantizers + (bf16 ? Q_BF16 : Q_INT), c->fips_ubits, per);
    return is_factor(t);
}

/* The estimator of the sparse factors: what was pruned learns nothing. */
static void passes_nonzero(uint8_t *mask, const real *w, int n, real s, const Tensor *t) {
    (void)s;
    (void)t;
    FOR_COLUMNS(i, n) mask[i] = w[i] != 0;
}

static void fips_estimator(const Golf *m, Tensor *t) {
    (void)m;
    if (is_sparse_factor(t)) t->passes = passes_nonzero;
}

/* Tokens meet the products alone. */
static double fips_flops(const Golf *m, const Tensor *t) {
    (void)m;
    return is_factor(t) ? 0 : -1;
}

/* Where the products and the factors of phase p stand among all numbers. */
typedef struct {
    size_t up, down, u, v_up, v_down;
} FipsPhase;

static FipsPhase fips_at(const Golf *m, int p) {
    const Tensor *up = m->tensor + T_wup, *down = m->tensor + T_wdown;
    const Tensor *v_up = m->tensor + T_fips_up, *v_down = m->tensor + T_fips_down;
    const Tensor *u = m->tensor + T_fips_u;
    const size_t group = (size_t)(p / fips_group_size(&m->config));
    return (FipsPhase){.up = up->at + (size_t)p * up->copy_n,
                       .down = down->at + (size_t)p * down->copy_n,
                       .u = u->at + group * u->copy_n,
                       .v_up = v_up->at + (size_t)p * v_up->copy_n,
                       .v_down = v_down->at + (size_t)p * v_down->copy_n};
}

/* Wup = V_up U,  Wdown = U^T V_down, of all phases */
static void fips_expand(Golf *m) {
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), r = c->fips_rank;

    for (int p = 0; p < m->phases; p++) {
        const FipsPhase at = fips_at(m, p);
        const real *U = m->eff + at.u;
        gemm(m->eff + at.up, C, mat(m->eff + at.v_up, r), mat(U, C), F, C, r, 0);
        gemm(m->eff + at.down, F, mat_t(U, C), mat(m->eff + at.v_down, F), C, F, r, 0);
    }
}

/* forward: Wup = V_up U,  Wdown = U^T V_down
 *      dV_up = dWup U^T,  dV_down = U dWdown,  dU += V_up^T dWup + V_down dWdown^T
 * The products themselves have no masters: their gradients end here. */
static void fips_fold(Golf *m) {
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), r = c->fips_rank;

    for (int p = 0; p < m->phases; p++) {
        const FipsPhase at = fips_at(m, p);
        const real *U = m->eff + at.u;
        real *dU = m->grad + at.u, *dup = m->grad + at.up, *ddown = m->grad + at.down;
        gemm(m->grad + at.v_up, r, mat(dup, C), mat_t(U, C), F, r, C, 0);
        gemm(m->grad + at.v_down, F, mat(U, C), mat(ddown, F), r, F, C, 0);
        gemm(dU, C, mat_t(m->eff + at.v_up, r), mat(dup, C), r, C, F, 1);
        gemm(dU, C, mat(m->eff + at.v_down, F), mat_t(ddown, F), r, C, F, 1);
        memset(dup, 0, (size_t)F * C * sizeof(real));
        memset(ddown, 0, (size_t)F * C * sizeof(real));
    }
}

/* The part that is pruned after so many of `steps` steps; see the head. */
static double fips_cubic(const Config *c, int step, int steps) {
    const int end = steps * 3 / 4;
    const double x = end > 0 ? fmin((double)step / end, 1) : 1;
    return c->fips_sparse * (1 - (1 - x) * (1 - x) * (1 - x));
}

static double fips_accelerated(const Config *c, int step, int steps) {
    const int end = steps * 3 / 4;
    const double jump = 0.075 * steps, s = c->fips_sparse;
    const double x = end > jump ? fmin((step - jump) / (end - jump), 1) : 1;
    return step < jump ? s / 15 : s - s / 3 * (1 - x) * (1 - x) * (1 - x);
}

/* Gradual magnitude pruning: every 50 steps, and at 3/4 of them for the last time. -1: not
 * at this step. */
static double fips_sparsity(const Config *c, int step, int steps) {
    const int end = steps * 3 / 4;
    if (step > end || (step < end && step % 50)) return -1;
    if (c->fips_prune == PRUNE_CUBIC) return fips_cubic(c, step, steps);
    return fips_accelerated(c, step, steps);
}

static int by_size(const void *a, const void *b) { /* for qsort */
    const real x = *(const real *)a, y = *(const real *)b;
    return (x > y) - (x < y);
}

/* The smallest weights of all sparse factors together become 0, for good; as multiples
 * of the size that each factor started with, unless both come from trained matrices. */
static void fips_prune(Golf *m, double sparsity) {
    const Tensor *up = m->tensor + T_fips_up, *down = up + 1; /* side by side */
    const size_t n = up->n + down->n, from = up->at;
    const size_t drop = sparsity > 0 ? (size_t)(sparsity * (double)n) : 0;
    const real unit_up = m->converted ? 1 : (real)up->init;
    const real unit_down = m->converted ? 1 : (real)down->init;
    if (!drop) return;

    real *size = xcalloc(2 * n, sizeof(real)), *order = size + n;
    for (size_t i = 0; i < n; i++)
        size[i] = fabs(m->master[from + i]) / (i < up->n ? unit_up : unit_down);
    memcpy(order, size, n * sizeof(real));
    qsort(order, n, sizeof(real), by_size);

    const real largest = order[drop - 1];
    for (size_t i = 0; i < n; i++) {
        if (!(size[i] <= largest)) continue;
        m->master[from + i] = 0;
        m->moment1[from + i] = 0;
        m->moment2[from + i] = 0;
    }
    free(size);
}

static void fips_update(Golf *m, int step) {
    const Config *c = &m->config;
    if (c->fips_steps) return; /* done before */
    fips_prune(m, fips_sparsity(c, step + 1, c->steps));
}

/* U (r,C): the directions that the donor's MLPs of phases [first,last) share most, and
 * zeros where there are no more. */
static void fips_directions(real *U, const Golf *from, int r, int first, int last) {
    const int C = from->config.width, F = hidden_width(&from->config);
    double *s = xcalloc((size_t)C * C * 2, sizeof(double)), *v = s + (size_t)C * C;
    int *pick = xcalloc((size_t)r, sizeof(int));

    for (int p = first; p < last; p++) {
        const real *up = weights_of(from, T_wup, p);
        const real *down = weights_of(from, T_wdown, p);
        for (int f = 0; f < F; f++)
            for (int i = 0; i < C; i++)
                for (int j = 0; j < C; j++)
                    s[i * C + j] += (double)(up[f * C + i] * up[f * C + j] +
                                             down[i * F + f] * down[j * F + f]);
    }

    eigenvectors(s, v, C);
    pick_largest(s, C, MIN(r, C), pick);
    for (int e = 0; e < r; e++)
        for (int i = 0; i < C; i++) U[e * C + i] = e < C ? (real)v[i * C + pick[e]] : 0;
    free(s);
    free(pick);
}

/* V has no use for directions that U does not have: it gets a little of what it has of the
 * first ones, so that they learn something else than these.
 * v_up (F,r), v_down (r,F) */
static void fips_pad(real *v_up, real *v_down, int C, int F, int r) {
    for (int e = C; e < r; e++) {
        const int like = (e - C) % C;
        for (int f = 0; f < F; f++) {
            v_up[f * r + e] = v_up[f * r + like] / 32;
            v_down[e * F + f] = v_down[like * F + f] / 32;
        }
    }
}

/* U of all groups, then what V needs with it. */
static void fips_fit(Golf *m, const Golf *from) {
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), r = c->fips_rank;
    const int group = fips_group_size(c);

    for (int p = 0; p < m->phases; p += group) {
        real *U = m->master + fips_at(m, p).u;
        fips_directions(U, from, r, p, MIN(p + group, m->phases));
    }
    for (int p = 0; p < m->phases; p++) {
        const FipsPhase at = fips_at(m, p);
        const real *U = m->master + at.u;
        const Mat donor_up = mat(weights_of(from, T_wup, p), C);
        const Mat donor_down = mat(weights_of(from, T_wdown, p), F);
        gemm(m->master + at.v_up, r, donor_up, mat_t(U, C), F, r, C, 0);
        gemm(m->master + at.v_down, F, mat(U, C), donor_down, r, F, C, 0);
        fips_pad(m->master + at.v_up, m->master + at.v_down, C, F, r);
    }
}

/* Of step `step` of those before training: a cosine to a tenth of the peak. */
static double fips_rate(const Config *c, int step) {
    const double way = cos_of(3.141592653589793 * step / c->fips_steps);
    return c->fips_lr * (0.1 + 0.9 * (1 + way) / 2);
}

/* Trains the factors until each phase puts out what the donor's does. */
static void fips_minimise(Golf *m, const Calibration *k) {
    const Config *c = &m->config;
    for (int step = 0; step < c->fips_steps; step++) {
        calibration_gradient(m, k, -1, step % k->batches);
        calibration_adamw(m, is_factor, -1, step, fips_rate(c, step), 0.05);
        fips_prune(m, fips_sparsity(c, step + 1, c->fips_steps));
        golf_quantize(m);
    }
}

static void fips_calibrate(Golf *m, const Golf *from) {
    const Config *c = &m->config;
    Calibration k;

    golf_quantize(m);
    calibration_open(&k, m, from, c->fips_rows, 1, "fips_steps");
    const double before = calibration_error(m, &k, -1);
    fips_minimise(m, &k);
    printf("--fips_steps=%d: the phases' squared errors a token sum up to %.4g, and with "
           "factors as fitted, before these steps and their pruning, to %.4g\n",
           c->fips_steps, calibration_error(m, &k, -1), before);
    calibration_close(&k, m);
}

/* What is pruned at the end. */
static void fips_foresee(Golf *m) {
    fips_prune(m, m->config.fips_sparse);
    golf_quantize(m);
}

/* The first part is pruned before the first step: of what is random, or fitted. */
static void fips_start_pruning(Golf *m) {
    const Config *c = &m->config;
    if (c->fips_prune == PRUNE_CUBIC) return;
    fips_prune(m, fips_accelerated(c, 0, c->fips_steps ? c->fips_steps : c->steps));
}

/* From a trained flat model: factors, and then their calibration. */
static void fips_start(Golf *m, const Golf *from, int convert) {
    const Config *c = &m->config;
    const int F = hidden_width(c);
    if (!from) fips_start_pruning(m);
    if (!from || !convert) return;
    const Tensor *up = from->tensor + T_wup;
    const int fits = m->phases == from->phases && (size_t)F * c->width == up->copy_n &&
                     up->per != PER_OTHER;
    if (!up->n && !c->fips_steps) return;
    if (!up->n || !fits)
        die("--ffn=fips from a trained model: expected one of %d phases, with MLPs of "
            "F=%d",
            m->phases, F);

    fips_fit(m, from);
    fips_start_pruning(m);
    if (c->fips_steps && !calibration_is_over(c)) fips_calibrate(m, from);
}

static const System fips_system = {.name = "fips",
                                   .needs = "ffn=fips",
                                   .on = fips_on,
                                   .takes = fips_takes,
                                   .uses = fips_uses,
                                   .check = fips_check,
                                   .shape = fips_shape,
                                   .store = fips_store,
                                   .estimator = fips_estimator,
                                   .start = fips_start,
                                   .foresee = fips_foresee,
                                   .open = fips_open,
                                   .fold = fips_fold,
                                   .update = fips_update,
                                   .expand = fips_expand,
                                   .flops = fips_flops};

#elif defined TESTS
#include "shared/calibration_check.h"

static void prune_some(Golf *m, size_t N) { /* a mask to be frozen */
    (void)N;
    fips_prune(m, 0.4);
}

/* How far the products of factors among x, masters or eff, are from up (F,C) and
 * down (C,F). */
static double fips_misses(const Golf *m, const real *x, int p, const real *up,
                          const real *down) {
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), R = c->fips_rank;
    const FipsPhase at = fips_at(m, p);
    const real *U = x + at.u, *v_up = x + at.v_up, *v_down = x + at.v_down;
    double worst = 0;

    for (int f = 0; f < F; f++)
        for (int i = 0; i < C; i++) {
            double is_up = 0, is_down = 0;
            for (int r = 0; r < R; r++) {
                is_up += (double)v_up[f * R + r] * (double)U[r * C + i];
                is_down += (double)v_down[r * F + f] * (double)U[r * C + i];
            }
            worst = worse(worst, fabs(is_up - (double)up[f * C + i]));
            worst = worse(worst, fabs(is_down - (double)down[i * F + f]));
        }
    return worst;
}

static size_t zeros_of(const Golf *m) {
    const Tensor *t = m->tensor + T_fips_up;
    const size_t n = t[0].n + t[1].n;
    size_t zeros = 0;
    for (size_t i = t->at; i < t->at + n; i++) zeros += m->master[i] == 0;
    return zeros;
}

#define SMALL_FIPS \
    "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=1 repeat=3 ffn=fips fips_rank=12 " \
    "steps=1000 fips_sparse=0.8 batch=3 "

/* Pruning leaves the largest weights, as multiples of what each factor started with
 * or, in a converted model, as they are; they stay 0 when the others are trained. */
static void test_fips_pruning(void) {
    Golf m;
    for (int converted = 0; converted < 2; converted++) {
        new_model(&m, SMALL_FIPS, 0);
        m.converted = converted;
        const Tensor *t = m.tensor + T_fips_up;
        const size_t n = t[0].n + t[1].n;
        double kept = HUGE_VAL, gone = 0;
        real *was = memcpy(reals(n, 0), m.master + t->at, n * sizeof(real));

        fips_prune(&m, 0.5);
        for (size_t i = 0; i < n; i++) {
            const double unit = converted ? 1 : t[i >= t[0].n].init;
            const double size = fabs((double)was[i]) / unit;
            if (m.master[t->at + i] == 0) gone = fmax(gone, size);
            else kept = fmin(kept, size);
        }
        CHECK(zeros_of(&m) == n / 2 && gone < kept,
              "%zu of %zu pruned, up to %g; kept from %g", zeros_of(&m), n, gone, kept);

        golf_quantize(&m);
        golf_buffers(&m, 48);
        run_steps(&m, 0, 3);
        CHECK(zeros_of(&m) == n / 2, "%zu of %zu are 0 after 3 steps", zeros_of(&m), n);
        fips_prune(&m, -1);
        CHECK(zeros_of(&m) == n / 2, "pruned at a step that does not");
        fips_prune(&m, 0.6);
        golf_quantize(&m);
        run_steps(&m, 3, 6);
        CHECK(zeros_of(&m) == (size_t)(0.6 * (double)n), "%zu of %zu are 0 after 6 steps",
              zeros_of(&m), n);
        golf_free(&m);
    }
}

static void test_fips_schedule(void) {
    const Config c = config_of(SMALL_FIPS), short_run = config_of(SMALL_FIPS "steps=2");
    Golf m;
    CHECK(fips_sparsity(&c, 49, 1000) < 0 && fips_sparsity(&c, 800, 1000) < 0 &&
              near(fips_sparsity(&c, 750, 1000), 0.8, 1e-9) &&
              near(fips_sparsity(&c, 150, 1000), 0.8 * (1 - 0.512), 1e-9),
          "sparsity %g", fips_sparsity(&c, 150, 1000));
    CHECK(near(fips_sparsity(&short_run, 1, 2), 0.8, 1e-9), "a run of two steps");

    new_model(&m, SMALL_FIPS "steps=20", 48); /* 3/4 of it: behind step 14 */
    const size_t n = m.tensor[T_fips_up].n + m.tensor[T_fips_down].n;
    run_steps(&m, 0, 14);
    const size_t before = zeros_of(&m);
    run_steps(&m, 14, 15);
    CHECK(before < n / 100 && zeros_of(&m) == (size_t)(0.8 * (double)n),
          "%zu are 0 before the end of pruning, %zu of %zu behind it", before,
          zeros_of(&m), n);
    golf_free(&m);
}

/* The paper's numbers: 0.05 from the start, 0.5 at 240 of 3,200 steps, 0.75 at 2,400;
 * every 50 steps. In training the first part is pruned before the first step. */
static void test_fips_accelerated(void) {
    const struct {
        int step;
        double part;
    } rows[] = {{50, 0.05},   {200, 0.05}, {250, 0.75 - 0.25 * pow(215.0 / 216, 3)},
                {1300, 0.75 - 0.25 * pow(110.0 / 216, 3)}, {2400, 0.75},
                {240, -1},    {2450, -1}};
    const Config c =
        config_of(SMALL_FIPS "fips_prune=accelerated fips_sparse=0.75 steps=3200");
    Golf m;
    CHECK(near(fips_accelerated(&c, 240, 3200), 0.5, 1e-12), "%.9g at 7.5 %%",
          fips_accelerated(&c, 240, 3200));
    for (size_t i = 0; i < COUNT(rows); i++) {
        const double part = fips_sparsity(&c, rows[i].step, 3200);
        CHECK(near(part, rows[i].part, 1e-12), "%.9g after %d steps", part, rows[i].step);
    }

    new_model(&m, SMALL_FIPS "fips_prune=accelerated fips_sparse=0.75", 0);
    const size_t n = m.tensor[T_fips_up].n + m.tensor[T_fips_down].n;
    CHECK(zeros_of(&m) == (size_t)(0.05 * (double)n), "%zu of %zu are 0 at the start",
          zeros_of(&m), n);
    golf_free(&m);
}

/* What layers multiply with are the products of what is stored, and have no gradients of
 * their own. */
static void test_fips_products(void) {
    const int *x = tokens_below(20, 48, 80), *y = tokens_below(20, 48, 81);
    double squares = 0;
    Golf m;

    new_model(&m, SMALL_FIPS, 48);
    for (int p = 0; p < 3; p++) {
        const FipsPhase at = fips_at(&m, p);
        const double worst = fips_misses(&m, m.eff, p, m.eff + at.up, m.eff + at.down);
        CHECK(worst < (DOUBLE ? 1e-12 : 1e-5), "phase %d: a product is off by %.3g", p,
              worst);
    }

    golf_forward(&m, x, y, 3, 16);
    golf_backward(&m, x, 3, 16);
    EACH_TENSOR(t, &m) {
        if (!is_stored(t)) continue;
        for (size_t i = t->at; i < t->at + t->n; i++)
            squares += (double)m.grad[i] * (double)m.grad[i];
    }
    CHECK(near(golf_grad_norm(&m) / sqrt(squares), 1, 1e-5),
          "a gradient of norm %g, of what is stored %g", golf_grad_norm(&m),
          sqrt(squares));
    golf_free(&m);
}

/* Bytes by their formulas: all of them protected. FLOPs are those of a dense MLP. */
static void test_fips_storage(void) {
    enum { C = 16, F = 32, R = 12, P = 3 };
    static const char *const dense = "vocab=20 width=16 heads=2 mlp=2 seq=16 repeat=3";
    static const struct {
        const char *options;
        size_t u, up, down;
    } rows[] = {
        {"", 2 * R + R * C, 2 * F + F * R / 2, 2 * R + R * F / 2},
        {"fips_ubits=16", 2 * R * C, 2 * F + F * R / 2, 2 * R + R * F / 2},
        {"fips_ubits=4 fips_vbits=8", 2 * R + R * C / 2, 2 * F + F * R, 2 * R + R * F}};
    const Config plain = config_of(dense);
    char text[300];
    Golf m;

    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof text, SMALL_FIPS "%s", rows[i].options);
        new_model(&m, text, 0);
        const Tensor *u = m.tensor + T_fips_u, *up = u + 1, *down = u + 2;
        CHECK(u->bytes == rows[i].u && up->copy_bytes == rows[i].up &&
                  down->copy_bytes == rows[i].down,
              "%s: %zu, %zu and %zu bytes", text, u->bytes, up->copy_bytes,
              down->copy_bytes);
        CHECK(ledger_of(&m).of[LEDGER_PROTECTED] ==
                  rows[i].u + P * (rows[i].up + rows[i].down),
              "%s: %zu bytes are protected", text, ledger_of(&m).of[LEDGER_PROTECTED]);
        CHECK(flops_per_token(&m.config) == flops_per_token(&plain), "%s: FLOPs", text);
        golf_free(&m);
    }
}

/* From a donor: exact with as many directions as its MLPs use; fewer miss something. */
static void test_fips_fit(void) {
    static const char *const flat =
        "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=3 repeat=1";
    static const int ranks[] = {16, 12, 4, 20, 40};
    enum { C = 16, F = 32, USED = 12 };
    Golf from, m;
    char text[300];

    new_model(&from, flat, 0);
    /* up and down use 12 of 16 directions together, once they are rounded */
    for (int p = 0; p < 3; p++) {
        real *up = masters_of(&from, T_wup, p), *down = masters_of(&from, T_wdown, p);
        for (int f = 0; f < F; f++)
            for (int i = 5; i < 10; i++) {
                up[f * C + i] *= (real)0.01;
                down[(i - 1) * F + f] *= (real)0.01;
            }
    }
    golf_quantize(&from);

    for (size_t h = 0; h < COUNT(ranks); h++) {
        snprintf(text, sizeof text, SMALL_FIPS "fips_rank=%d", ranks[h]);
        new_model(&m, text, 0);
        const real was = m.master[m.tensor[T_fips_u].at];
        fips_start(&m, NULL, 0);
        fips_start(&m, &from, 0);
        CHECK(was == m.master[m.tensor[T_fips_u].at],
              "factors change without a conversion");
        fips_start(&m, &from, 1);
        for (int p = 0; p < 3; p++) {
            const double misses =
                fips_misses(&m, m.master, p, weights_of(&from, T_wup, p),
                            weights_of(&from, T_wdown, p));
            CHECK(ranks[h] < USED ? misses > 0.01 : misses < 1e-5,
                  "rank %d, phase %d: misses %.3g", ranks[h], p, misses);
        }
        golf_free(&m);
    }
    golf_free(&from);

    new_model(&from, "vocab=20 width=16 heads=2 mlp=3 seq=16 unique=3 repeat=1", 0);
    new_model(&m, SMALL_FIPS, 0);
    DIES("a donor of another hidden width", "3 phases|F=32", fips_start(&m, &from, 1));
    golf_free(&m);
    golf_free(&from);
}

/* Beyond the width U has zeros, and V what it has of the first directions, by 32. */
static void test_fips_padding(void) {
    enum { C = 16, F = 32, R = 40 };
    Golf from, m;
    int zeros = 1, like = 1;

    new_model(&from, "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=3 repeat=1", 0);
    new_model(&m, SMALL_FIPS "fips_rank=40", 0);
    fips_start(&m, &from, 1);
    for (int p = 0; p < 3; p++) {
        const FipsPhase at = fips_at(&m, p);
        const real *U = m.master + at.u, *v_up = m.master + at.v_up;
        const real *v_down = m.master + at.v_down;
        for (int e = C; e < R; e++)
            for (int f = 0; f < F; f++) {
                const int same = e < 2 * C ? e - C : e - 2 * C;
                zeros &= U[e * C + f % C] == 0;
                like &= v_up[f * R + e] == v_up[f * R + same] / 32;
                like &= v_down[e * F + f] == v_down[same * F + f] / 32;
            }
        like &= v_up[0] != 0;
    }
    CHECK(zeros, "U has more directions than the width");
    CHECK(like, "V is not padded with its first directions");
    golf_free(&m);
    golf_free(&from);
}

/* Phases 0 and 1 of the donor use 8 directions, phases 2 and 3 the 8 others: rank 8 is
 * enough where these are groups, and nowhere else. */
static void test_fips_groups(void) {
    static const struct {
        int group, copies, exact;
    } rows[] = {{0, 1, 0}, {2, 2, 1}, {3, 2, 0}, {1, 4, 1}};
    enum { C = 16, F = 32, P = 4 };
    Golf from, m;
    char text[300];

    new_model(&from, "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=4 repeat=1", 0);
    for (int p = 0; p < P; p++) {
        real *up = masters_of(&from, T_wup, p), *down = masters_of(&from, T_wdown, p);
        for (int f = 0; f < F; f++)
            for (int i = 0; i < C; i++) {
                if (i / 8 == p / 2) continue;
                up[f * C + i] = 0;
                down[i * F + f] = 0;
            }
    }
    golf_quantize(&from);
    for (size_t g = 0; g < COUNT(rows); g++) {
        double misses = 0;
        snprintf(text, sizeof text, SMALL_FIPS "repeat=4 fips_rank=8 fips_group=%d",
                 rows[g].group);
        new_model(&m, text, 0);
        fips_start(&m, &from, 1);
        for (int p = 0; p < P; p++)
            misses = worse(misses,
                           fips_misses(&m, m.master, p, weights_of(&from, T_wup, p),
                                       weights_of(&from, T_wdown, p)));
        CHECK(m.tensor[T_fips_u].stored_copies == rows[g].copies &&
                  (rows[g].exact ? misses < 1e-5 : misses > 0.01),
              "groups of %d: %d factors, misses %.3g", rows[g].group,
              m.tensor[T_fips_u].stored_copies, misses);
        golf_free(&m);
    }
    golf_free(&from);
}

/* ---- Calibration. */
static void test_fips_calibration_gradients(void) {
    static const char *const arms[] = {
        "repeat=3 ffn=fips fips_rank=5", "repeat=2 ffn=fips fips_rank=11 fips_group=1",
        "unique=2 repeat=1 ffn=fips fips_rank=4 extra_norm=each wq=int4 fips_ubits=16"};
    for (size_t i = 0; DOUBLE && i < COUNT(arms); i++)
        check_calibration_gradient(arms[i], is_factor, -1, prune_some);
}

/* The steps by their definition, in doubles: factors of two phases of rank 3. */
enum { PLAIN_R = 3, PLAIN_V = PLAIN_R * PLAIN_C, PLAIN_FACTORS = 5 * PLAIN_V };
typedef struct {
    PlainAdam number[PLAIN_FACTORS]; /* U, both V_up, both V_down */
    double eff[PLAIN_FACTORS];
    PlainBlock block[2];
    double in[2][8 * PLAIN_T * PLAIN_C], out[2][8 * PLAIN_T * PLAIN_C];
} PlainFips;

/* U in bf16; the others in 8 bits, a scale for each of their rows. */
static void plain_fips_quantize(PlainFips *s) {
    for (int i = 0; i < PLAIN_V; i++)
        s->eff[i] = (double)from_bf16(to_bf16((real)s->number[i].w));
    for (int which = 1; which < 5; which++) {
        const int cols = which < 3 ? PLAIN_R : PLAIN_C, from = which * PLAIN_V;
        for (int at = from; at < from + PLAIN_V; at += cols) {
            double top = 1e-5;
            for (int i = 0; i < cols; i++) top = fmax(top, fabs(s->number[at + i].w));
            const double scale = (double)from_bf16(to_bf16((real)(top / 127)));
            for (int i = 0; i < cols; i++) {
                const double code = rint(s->number[at + i].w / scale);
                s->eff[at + i] = scale * fmin(fmax(code, -127), 127);
            }
        }
    }
}

/* The sum of both phases' errors on rows from `first` on. */
static double plain_fips_error(PlainFips *s, int first, int rows) {
    const double *U = s->eff;
    const int at = first * PLAIN_T * PLAIN_C;
    double sum = 0;
    for (int p = 0; p < 2; p++) {
        const double *up = s->eff + (1 + p) * PLAIN_V, *down = s->eff + (3 + p) * PLAIN_V;
        for (int f = 0; f < PLAIN_F; f++)
            for (int i = 0; i < PLAIN_C; i++) {
                double a = 0, b = 0;
                for (int r = 0; r < PLAIN_R; r++) {
                    a += up[f * PLAIN_R + r] * U[r * PLAIN_C + i];
                    b += U[r * PLAIN_C + i] * down[r * PLAIN_F + f];
                }
                s->block[p].up[f * PLAIN_C + i] = a;
                s->block[p].down[i * PLAIN_F + f] = b;
            }
        sum += plain_error(s->in[p] + at, s->out[p] + at, s->block + p, rows);
    }
    return sum;
}

static void plain_fips_step(PlainFips *s, int step, double rate) {
    double g[PLAIN_FACTORS];
    plain_fips_quantize(s);
    for (int i = 0; i < PLAIN_FACTORS; i++) {
        const double was = s->eff[i], h = 1e-5;
        s->eff[i] = was + h;
        const double more = plain_fips_error(s, step % 2 * 2, 2);
        s->eff[i] = was - h;
        const double less = plain_fips_error(s, step % 2 * 2, 2);
        s->eff[i] = was;
        g[i] = i >= PLAIN_V && s->number[i].w == 0 ? 0 : (more - less) / (2 * h);
    }
    for (int i = 0; i < PLAIN_FACTORS; i++)
        plain_adamw(s->number + i, g[i], step + 1, rate, 0.05);
}

/* The `drop` smallest of the sparse ones become 0. */
static void plain_fips_prune(PlainFips *s, int drop) {
    for (int n = 0; n < drop; n++) {
        int least = -1;
        for (int i = PLAIN_V; i < PLAIN_FACTORS; i++) {
            if (s->number[i].w == 0) continue;
            if (least < 0 || fabs(s->number[i].w) < fabs(s->number[least].w)) least = i;
        }
        s->number[least] = (PlainAdam){0, 0, 0};
    }
}

/* Where number i of PlainFips is a master of m. */
static size_t plain_fips_at(const Golf *m, int i) {
    const int which = i / PLAIN_V, p = (which + 1) % 2;
    const FipsPhase at = fips_at(m, p);
    const size_t from = which == 0 ? at.u : which < 3 ? at.v_up : at.v_down;
    return from + (size_t)(i % PLAIN_V);
}

static void plain_fips_start(PlainFips *s, const Golf *m, const Golf *from,
                             const int *tokens) {
    for (int i = 0; i < PLAIN_FACTORS; i++)
        s->number[i] = (PlainAdam){(double)m->master[plain_fips_at(m, i)], 0, 0};
    plain_embedding(s->in[0], from, tokens, 4);
    for (int p = 0; p < 2; p++) {
        const PlainBlock donor = plain_block(from, from->eff, p);
        s->block[p] = plain_block(m, m->eff, p);
        plain_rows(s->out[p], s->in[p], &donor, 4);
        if (p == 0) memcpy(s->in[1], s->out[0], sizeof s->in[1]);
    }
}

/* Four steps on two batches of two rows: at the third the half is pruned. */
static void test_fips_by_definition(void) {
    static PlainFips s;
    const char *const options_text =
        PLAIN_BLOCKS "unique=2 ffn=fips fips_rank=3 fips_ubits=16 fips_vbits=8 "
                     "fips_sparse=0.5 data=@/plain";
    char text[600];
    Golf from, fitted, m;
    Calibration k;
    double worst = 0;
    if (!DOUBLE) return;

    write_data("plain", 300, 50, 20);
    new_model(&from, PLAIN_BLOCKS "unique=2", 0);
    new_model(&fitted, expanded(options_text), 0);
    fips_start(&fitted, &from, 1);
    golf_quantize(&fitted);
    snprintf(text, sizeof text, "%s fips_steps=4 fips_rows=4 fips_lr=0.01",
             expanded(options_text));
    new_model(&m, text, PLAIN_N);
    m.converted = 1;
    fips_start(&m, &from, 1);

    calibration_alloc(&k, &m, 4);
    calibration_rows(&k, &m.config);
    plain_fips_start(&s, &fitted, &from, k.tokens);
    for (int step = 0; step < 4; step++) {
        const double rate = 0.01 * (0.1 + 0.45 * (1 + cos(acos(-1.0) * step / 4)));
        plain_fips_step(&s, step, rate);
        if (step == 2) plain_fips_prune(&s, 2 * PLAIN_V);
    }
    for (int i = 0; i < PLAIN_FACTORS; i++)
        worst = worse(worst, fabs((double)m.master[plain_fips_at(&m, i)] - s.number[i].w));
    CHECK(worst < 1e-5 && zeros_of(&m) == 2 * PLAIN_V,
          "four steps by their definition: off by %.3g, %zu zeros", worst, zeros_of(&m));
    golf_free(&m);
    golf_free(&fitted);
    golf_free(&from);
}

/* The error falls, all but the factors stays as it is, training keeps the zeros and
 * starts without moments. */
static void test_fips_calibration(void) {
    const char *const options_text =
        "vocab=20 width=16 heads=2 mlp=2 seq=16 batch=2 unique=3 repeat=1 ffn=fips "
        "fips_rank=12 fips_sparse=0.5 fips_prune=accelerated fips_steps=60 fips_rows=8 "
        "fips_lr=0.003 data=@/plain";
    Golf from, m;
    Calibration k;
    double moments = 0;

    write_data("plain", 300, 50, 20);
    new_model(&from, "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=3 repeat=1", 0);
    new_model(&m, expanded(options_text), 32);
    m.converted = 1;
    fips_fit(&m, &from);
    fips_prune(&m, 0.5);
    golf_quantize(&m);
    calibration_open(&k, &m, &from, 8, 1, "fips_steps");
    const double at_once = calibration_error(&m, &k, -1);
    const Tensor *u = m.tensor + T_fips_u;
    real *others = memcpy(reals(u->at, 0), m.master, u->at * sizeof(real));

    fips_start(&m, &from, 1);
    golf_quantize(&m);
    const double error = calibration_error(&m, &k, -1);
    CHECK(error < 0.7 * at_once, "error %g; %g when pruned at once", error, at_once);
    CHECK(!memcmp(others, m.master, u->at * sizeof(real)), "other tensors changed");
    for (size_t i = 0; i < m.n_params; i++)
        moments += fabs((double)m.moment1[i]) + fabs((double)m.moment2[i]);
    CHECK(moments == 0, "training starts with moments");

    const size_t zeros = zeros_of(&m), n = u[1].n + u[2].n;
    CHECK(zeros == n / 2, "%zu of %zu are 0", zeros, n);
    m.config.fips_sparse = 0.9;
    run_steps(&m, m.config.steps * 3 / 4 - 1, m.config.steps * 3 / 4);
    CHECK(zeros_of(&m) == zeros, "training prunes again: %zu", zeros_of(&m));
    calibration_close(&k, &m);
    golf_free(&m);

    new_model(&m, expanded(options_text), 32);
    m.config.resume = 1; /* and a checkpoint is there */
    snprintf(m.config.out, sizeof m.config.out, "%s", tmp);
    put_file(IN("ckpt.bin"), "x", 1);
    fips_start(&m, &from, 1);
    CHECK(zeros_of(&m) < n / 4, "a run that goes on is calibrated again");
    remove(IN("ckpt.bin"));
    golf_free(&m);
    new_model(&m, expanded(options_text), 32);
    m.config.width = 32;
    DIES("a donor of another width", "fips_steps|--width=32|found 3, 16",
         calibration_open(&k, &m, &from, 8, 1, "fips_steps"));
    golf_free(&m);
    golf_free(&from);
}
#undef SMALL_FIPS

/* --fit=coded: most of the sparse factors will be pruned. */
static void test_fips_expected(void) { check_expected("ffn=fips fips_rank=40", 0.06); }

static const SystemTests fips_tests = {
    .gradients =
        (const char *const[]){"ffn=fips fips_rank=5",
                              "ffn=fips fips_rank=3 repeat=3 extra_norm=each aq=none",
                              "ffn=fips fips_rank=3 act=relu",
                              "ffn=fips fips_rank=8 fips_vbits=6 fips_ubits=16 unique=2 "
                              "repeat=1 fips_sparse=0",
                              "ffn=fips fips_rank=11 fips_group=1",
                              "ffn=fips fips_rank=5 fips_group=2 repeat=3 aq=none", NULL},
    .ready = prune_some,
    .files = (const char *const[]){"ffn=fips fips_rank=12 steps=2",
                                   "ffn=fips fips_rank=32 fips_ubits=16 steps=2 unique=2",
                                   "ffn=fips fips_rank=16 wscale=group steps=2",
                                   "ffn=fips fips_rank=40 fips_group=1 steps=2", NULL},
    .errors =
        (const char *const[][2]){
            {"--ffn=fips", "--ffn=fips|--fips_rank"},
            {"--ffn=fips --fips_rank=8 --fips_group=99", "--fips_group=99|at most"},
            {"--ffn=fips --fips_rank=8 --fips_sparse=0 --fips_prune=accelerated",
             "--fips_prune|without --fips_sparse"},
            {"--ffn=fips --fips_rank=8 --fips_lr=1", "--fips_lr|without --fips_steps"},
            {"--ffn=fips --fips_rank=8 --fips_rows=8", "--fips_rows|without --fips_steps"},
            {"--ffn=fips --fips_rank=8 --batch=8 --fips_steps=1 --fips_rows=12",
             "--fips_rows=12|multiple of --batch=8"},
            {"--ffn=fips --fips_rank=8 --fips_steps=1", "--fips_steps=1|--convert"},
            {"--ffn=fips --fips_rank=8 --act=swiglu", "--ffn=fips|--act=swiglu|third"},
            {"--ffn=fips --fips_rank=8 --phase=0", "--phase=1"},
            {"--fips_rank=8", "--fips_rank|without --ffn=fips"},
            {"--fips_vbits=5", "--fips_vbits|without --ffn=fips"},
            {"--ffn=fips --fips_sparse=1", "--fips_sparse|0 to 0.99"},
            {NULL, NULL}},
    .tests = (const Test[]){{"pruning", test_fips_pruning},
                            {"schedule", test_fips_schedule},
                            {"products", test_fips_products},
                            {"storage", test_fips_storage},
                            {"expected", test_fips_expected},
                            {"fit", test_fips_fit},
                            {"accelerated", test_fips_accelerated},
                            {"padding", test_fips_padding},
                            {"groups", test_fips_groups},
                            {"calibration gradients", test_fips_calibration_gradients},
                            {"by definition", test_fips_by_definition},
                            {"calibration", test_fips_calibration},
                            {NULL, NULL}}};
#elif defined BUGS
bug fips-U-from-up-alone double "fips: grad" "$(in_ fips_fold)s/gemm(dU, C, mat(m->eff + at.v_down.*;/;/"
bug fips-gradients-kept double "fips: products" "$(in_ fips_fold)s/memset(dup.*;//"
bug fips-products-of-one-phase double "fips: grad" "$(in_ fips_at)s/(size_t)p \* v_up->copy_n/0/"
bug pruning-not-foreseen float "fips: expected" "$(in_ fips_foresee)s/fips_prune(m, m->config.fips_sparse);//"
bug pruned-weights-learn double "fips: pruning" "$(in_ passes_nonzero)s/w\[i\] != 0;/1;/"
bug prune-the-largest float "fips: pruning" "$(in_ by_size)s/(x > y) - (x < y)/(x < y) - (x > y)/"
bug prune-in-one-unit float "fips: pruning" "$(in_ fips_prune)s/m->converted ? 1 : (real)down->init/unit_up/"
bug prune-a-converted-one-the-same float "fips: pruning" "$(in_ fips_prune)s/m->converted ?/0 ?/"
bug pruned-moments-kept float "fips: pruning" "$(in_ fips_prune)s/m->moment1\[from + i\] = 0;//"
bug pruning-a-step-late float "fips: schedule" "$(in_ fips_update)s/step + 1/step/"
bug fips-flops-of-factors float "fips: storage" "$(in_ fips_flops)s/? 0 : -1/? -1 : -1/"
bug fips-of-the-least-shared float "fips: fit" "$(in_ fips_directions)s/pick\[e\]/C - 1 - pick[e]/"
bug fips-of-the-donors-masters float "fips: fit" "$(in_ fips_fit)s/mat(weights_of(from, T_wup, p), C)/mat(masters_of(from, T_wup, p), C)/"
bug fips-directions-of-masters float "fips: fit" "$(in_ fips_directions)s/weights_of/masters_of/"
bug fips-of-up-alone float "fips: fit" "$(in_ fips_directions)s/down\[i \* F + f\] \*/0 */"
bug fips-U-as-codes float "fips: storage" "$(in_ fips_store)s/Q_BF16/Q_INT/"
bug fips-U-of-the-first-group float "fips: groups" "$(in_ fips_at)s/group \* u->copy_n/0/"
bug fips-groups-one-too-small float "fips: groups" "$(in_ fips_group_size)s/c->fips_group ? c->fips_group :/c->fips_group > 1 ? c->fips_group - 1 :/"
bug fips-group-of-all float "fips: groups" "$(in_ fips_fit)s/MIN(p + group, m->phases)/m->phases/; $(in_ fips_fit)s/r, p, m->phases/r, 0, m->phases/"
bug fips-padding-undivided float "fips: padding" "$(in_ fips_pad)s|like\] / 32|like]|"
bug fips-padding-of-zeros float "fips: padding" "$(in_ fips_pad)s/(e - C) % C/C/"
bug fips-directions-repeated float "fips: padding" "$(in_ fips_directions)s/e < C ? (real)v\[i \* C + pick\[e\]\] : 0/(real)v[i * C + pick[e % C]]/"
bug fips-accelerated-at-once float "fips: accelerated" "$(in_ fips_accelerated)s/step < jump ? s \/ 15 : //"
bug fips-accelerated-from-0 float "fips: accelerated" "$(in_ fips_accelerated)s/(step - jump)/step/"
bug fips-no-first-pruning float "fips: accelerated" "$(in_ fips_start_pruning)s/fips_prune(m,.*/;/; $(in_ fips_start_pruning)s/const Config/__attribute__((unused)) const Config/"
bug fips-minimises-all-but-U double "fips: by def" "$(in_ fips_minimise)s/is_factor/is_sparse_factor/"
bug fips-minimises-at-one-rate double "fips: by def" "$(in_ fips_rate)s/c->fips_lr \* (.*/c->fips_lr;/; $(in_ fips_rate)s/const double way/__attribute__((unused)) const double way/"
bug fips-minimises-the-first-batch double "fips: by def" "$(in_ fips_minimise)s/step % k->batches/0/"
bug fips-minimises-without-decay double "fips: by def" "$(in_ fips_minimise)s/, 0.05)/, 0)/"
bug fips-minimises-unpruned double "fips: by def" "$(in_ fips_minimise)s/fips_prune(m,.*;/;/"
bug fips-minimises-a-stale-product double "fips: by def" "$(in_ fips_minimise)s/golf_quantize(m);/;/"
bug fips-fed-by-itself double "fips: by def" "$(in_ fips_calibrate)s/fips_rows, 1, /fips_rows, 0, /"
bug fips-pruned-twice float "fips: calibration" "$(in_ fips_update)s/if (c->fips_steps) return;//"
bug fips-calibrated-at-resume float "fips: calibration" "$(in_ fips_start)s/ && !calibration_is_over(c)//"
bug fips-calibration-without-fold double "fips: calibration grad" "$(in_ calibration_gradient)s/if ((\*s)->fold) .*/;/"
bug calibration-without-masters double "fips: by def" "$(in_ calibration_gradient)s/masters_backward(m, m->grad);//"
bug calibration-half-the-gradient double "fips: calibration grad" "$(in_ calibration_phase)s/two = 2/two = 1/"
bug calibration-of-the-last-phase double "fips: calibration grad" "$(in_ calibration_phase)s/if (learn) {/if (learn) { if (p + 1 < m->phases) return error;/"
bug calibration-leaves-moments float "fips: calibration" "$(in_ calibration_close)s/memset(m->moment1,.*//"
bug calibration-of-any-donor float "fips: calibration" "$(in_ calibration_open)s/c->width != d->width || //"
bug fips-U-in-the-core float "fips: storage" "$(in_ fips_shape)s/LEDGER_PROTECTED/LEDGER_CORE/"
#endif
