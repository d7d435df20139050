/* fips.h - FiPS (2411.09816): one dense factor for all MLPs, a sparse one for each.
 *
 *     Wup[p] = V_up[p] U        Wdown[p] = U^T V_down[p]
 *     U (r,C) for all phases, V_up[p] (F,r) and V_down[p] (r,F) sparse
 *
 * Wup and Wdown are neither stored nor trained: they are products, made once a step,
 * and their gradients go on to the factors: dV_up = dWup U^T, dU += V_up^T dWup, and
 * so on. The sparse factors are pruned by size as they are trained, more and more
 * until three quarters of the run (gradual magnitude pruning). A weight that was
 * pruned is 0, gets no gradient and stays 0: the mask needs no memory.
 *
 * Stored: U in --fips_ubits bits, a scale per row; V in --fips_vbits, codes with a
 * scale per row, where a pruned weight is code 0: no positions, as the range coder
 * makes zeros cheap. All of it counts as protected. Cost: the FLOPs of a dense MLP for
 * each token (sparsity saves none here), and 12 C F r a step and phase for products
 * and their gradients; memory for Wup and Wdown of every phase.
 *
 * In a model made of a trained flat one, U is the r directions that the inputs of all
 * up and the outputs of all down projections share most: eigenvectors of sum (Wup^T
 * Wup + Wdown Wdown^T). V is what is then best: V_up = Wup U^T, V_down = U Wdown.
 *
 * Differs from the paper: factors are trained with the model on the loss of its text,
 * where FiPS compresses a trained one by the errors of its blocks; one U is for all
 * phases, not for groups of four blocks; its rank is at most C; sparsity rises with
 * 1 - (1 - x)^3, x from 0 to 1; and factors, as all that is stored, are quantized in
 * training. */
#ifdef OPTIONS
X(MODEL, INT, ffn, "dense", "dense|fips", "MLP: two matrices | FiPS's factors")
X(MODEL, INT, fips_rank, "0", "0 to 16384", "rows of the factor of all phases")
X(MODEL, NUM, fips_sparse, "0.75", "0 to 0.99", "part of the others that is pruned")
X(MODEL, INT, fips_ubits, "8", "4 to 8|16", "of the shared factor")
X(MODEL, INT, fips_vbits, "4", "4 to 8", "of the sparse factors")

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
#include "shared/donor.h"
#include "shared/low_rank.h"

enum { FFN_DENSE, FFN_FIPS };

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
    if (c->fips_rank < 1) die("--ffn=fips needs --fips_rank, 1 to --width");
    if (c->width && c->fips_rank > c->width)
        die("--fips_rank=%d: expected 1 to --width=%d", c->fips_rank, c->width);
}

static void fips_shape(Golf *m) {
    for (int k = T_wup; k <= T_wdown; k++) {
        Tensor *t = m->tensor + k;
        t->role = VIRTUAL;
        t->per = PER_PHASE;
        t->stored_copies = m->phases;
    }
    m->tensor[T_fips_u].float_only = 1; /* no layer multiplies with it */
    m->tensor[T_fips_u].ledger = LEDGER_PROTECTED;
}

static int is_sparse_factor(const Tensor *t) {
    return !strcmp(t->name, "fips_up") || !strcmp(t->name, "fips_down");
}

static int is_shared_factor(const Tensor *t) { return !strcmp(t->name, "fips_u"); }

static int fips_store(const Golf *m, Tensor *t) {
    const Config *c = &m->config;
    const int per = c->wscale == SCALE_GROUP ? SCALE_GROUP : SCALE_ROW;
    const int bf16 = c->fips_ubits == 16;

    if (is_sparse_factor(t)) store_as(t, quantizers + Q_INT, c->fips_vbits, SCALE_ROW);
    if (is_shared_factor(t))
        store_as(t, quantizers + (bf16 ? Q_BF16 : Q_INT), c->fips_ubits, per);
    return is_sparse_factor(t) || is_shared_factor(t);
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
    return is_sparse_factor(t) || is_shared_factor(t) ? 0 : -1;
}

/* Where the products and the sparse factors of phase p stand among all numbers. */
typedef struct {
    size_t up, down, v_up, v_down;
} FipsPhase;

static FipsPhase fips_at(const Golf *m, int p) {
    const Tensor *up = m->tensor + T_wup, *down = m->tensor + T_wdown;
    const Tensor *v_up = m->tensor + T_fips_up, *v_down = m->tensor + T_fips_down;
    return (FipsPhase){.up = up->at + (size_t)p * up->copy_n,
                       .down = down->at + (size_t)p * down->copy_n,
                       .v_up = v_up->at + (size_t)p * v_up->copy_n,
                       .v_down = v_down->at + (size_t)p * v_down->copy_n};
}

/* Wup = V_up U,  Wdown = U^T V_down, of all phases */
static void fips_expand(Golf *m) {
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), r = c->fips_rank;
    const real *U = m->eff + m->tensor[T_fips_u].at;

    for (int p = 0; p < m->phases; p++) {
        const FipsPhase at = fips_at(m, p);
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
    const real *U = m->eff + m->tensor[T_fips_u].at;
    real *dU = m->grad + m->tensor[T_fips_u].at;

    for (int p = 0; p < m->phases; p++) {
        const FipsPhase at = fips_at(m, p);
        real *dup = m->grad + at.up, *ddown = m->grad + at.down;
        gemm(m->grad + at.v_up, r, mat(dup, C), mat_t(U, C), F, r, C, 0);
        gemm(m->grad + at.v_down, F, mat(U, C), mat(ddown, F), r, F, C, 0);
        gemm(dU, C, mat_t(m->eff + at.v_up, r), mat(dup, C), r, C, F, 1);
        gemm(dU, C, mat(m->eff + at.v_down, F), mat_t(ddown, F), r, C, F, 1);
        memset(dup, 0, (size_t)F * C * sizeof(real));
        memset(ddown, 0, (size_t)F * C * sizeof(real));
    }
}

/* Gradual magnitude pruning: every 50 steps, and at 3/4 of the run for the last time,
 * the part s (1 - (1 - x)^3) that is to be 0, x the part of this time that has passed.
 * -1: not at this step. */
static double fips_sparsity(const Config *c, int step) {
    const int end = c->steps * 3 / 4;
    const double x = end > 0 ? fmin((double)step / end, 1) : 1;
    if (step > end || (step < end && step % 50)) return -1;
    return c->fips_sparse * (1 - pow(1 - x, 3));
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
    fips_prune(m, fips_sparsity(&m->config, step + 1));
}

/* U (r,C): the directions that the donor's MLPs share most. */
static void fips_directions(real *U, const Golf *from, int r) {
    const int C = from->config.width, F = hidden_width(&from->config);
    double *s = xcalloc((size_t)C * C * 2, sizeof(double)), *v = s + (size_t)C * C;
    int *pick = xcalloc((size_t)r, sizeof(int));

    for (int p = 0; p < from->phases; p++) {
        const real *up = masters_of(from, T_wup, p);
        const real *down = masters_of(from, T_wdown, p);
        for (int f = 0; f < F; f++)
            for (int i = 0; i < C; i++)
                for (int j = 0; j < C; j++)
                    s[i * C + j] += (double)(up[f * C + i] * up[f * C + j] +
                                             down[i * F + f] * down[j * F + f]);
    }

    eigenvectors(s, v, C);
    pick_largest(s, C, r, pick);
    for (int e = 0; e < r; e++)
        for (int i = 0; i < C; i++) U[e * C + i] = (real)v[i * C + pick[e]];
    free(s);
    free(pick);
}

/* From a trained flat model: U, then what V needs with it. */
static void fips_start(Golf *m, const Golf *from, int convert) {
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), r = c->fips_rank;
    if (!from || !convert || !is_stored(from->tensor + T_wup)) return;

    const Tensor *up = from->tensor + T_wup;
    if (m->phases != from->phases || (size_t)F * C != up->copy_n || up->per == PER_OTHER)
        die("--ffn=fips from a trained model: expected one of %d phases, with MLPs of "
            "F=%d",
            m->phases, F);
    real *U = m->master + m->tensor[T_fips_u].at;
    fips_directions(U, from, r);
    for (int p = 0; p < m->phases; p++) {
        const FipsPhase at = fips_at(m, p);
        const Mat donor_up = mat(masters_of(from, T_wup, p), C);
        const Mat donor_down = mat(masters_of(from, T_wdown, p), F);
        gemm(m->master + at.v_up, r, donor_up, mat_t(U, C), F, r, C, 0);
        gemm(m->master + at.v_down, F, mat(U, C), donor_down, r, F, C, 0);
    }
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
                                   .fold = fips_fold,
                                   .update = fips_update,
                                   .expand = fips_expand,
                                   .flops = fips_flops};

#elif defined TESTS
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
    const real *U = x + m->tensor[T_fips_u].at;
    const real *v_up = x + at.v_up, *v_down = x + at.v_down;
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
    CHECK(fips_sparsity(&c, 49) < 0 && fips_sparsity(&c, 800) < 0 &&
              near(fips_sparsity(&c, 750), 0.8, 1e-9) &&
              near(fips_sparsity(&c, 150), 0.8 * (1 - 0.512), 1e-9),
          "sparsity %g", fips_sparsity(&c, 150));
    CHECK(near(fips_sparsity(&short_run, 1), 0.8, 1e-9), "a run of two steps");

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
    static const int ranks[] = {16, 12, 4};
    enum { C = 16, F = 32, USED = 12 };
    Golf from, m;
    char text[300];

    new_model(&from, flat, 0);
    for (int p = 0; p < 3; p++) { /* up and down use 12 of 16 directions together */
        real *up = masters_of(&from, T_wup, p), *down = masters_of(&from, T_wdown, p);
        for (int f = 0; f < F; f++)
            for (int i = 5; i < 10; i++) {
                up[f * C + i] = 0;
                down[(i - 1) * F + f] = 0;
            }
    }

    for (int h = 0; h < 3; h++) {
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
                fips_misses(&m, m.master, p, masters_of(&from, T_wup, p),
                            masters_of(&from, T_wdown, p));
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
#undef SMALL_FIPS

static const SystemTests fips_tests = {
    .gradients =
        (const char *const[]){"ffn=fips fips_rank=5",
                              "ffn=fips fips_rank=3 repeat=3 extra_norm=each aq=none",
                              "ffn=fips fips_rank=3 act=relu",
                              "ffn=fips fips_rank=8 fips_vbits=6 fips_ubits=16 unique=2 "
                              "repeat=1 fips_sparse=0",
                              NULL},
    .ready = prune_some,
    .files = (const char *const[]){"ffn=fips fips_rank=12 steps=2",
                                   "ffn=fips fips_rank=32 fips_ubits=16 steps=2 unique=2",
                                   "ffn=fips fips_rank=16 wscale=group steps=2", NULL},
    .errors =
        (const char *const[][2]){
            {"--ffn=fips", "--ffn=fips|--fips_rank"},
            {"--ffn=fips --fips_rank=8 --act=swiglu", "--ffn=fips|--act=swiglu|third"},
            {"--ffn=fips --fips_rank=33", "--fips_rank=33|--width=32"},
            {"--ffn=fips --fips_rank=8 --phase=0", "--phase=1"},
            {"--fips_rank=8", "--fips_rank|without --ffn=fips"},
            {"--fips_vbits=5", "--fips_vbits|without --ffn=fips"},
            {"--ffn=fips --fips_sparse=1", "--fips_sparse|0 to 0.99"},
            {NULL, NULL}},
    .tests = (const Test[]){{"pruning", test_fips_pruning},
                            {"schedule", test_fips_schedule},
                            {"products", test_fips_products},
                            {"storage", test_fips_storage},
                            {"fit", test_fips_fit},
                            {NULL, NULL}}};
#elif defined BUGS
bug fips-U-from-up-alone double "fips: grad" "$(in_ fips_fold)s/gemm(dU, C, mat(m->eff + at.v_down.*;/;/"
bug fips-gradients-kept double "fips: products" "$(in_ fips_fold)s/memset(dup.*;//"
bug fips-products-of-one-phase double "fips: grad" "$(in_ fips_at)s/(size_t)p \* v_up->copy_n/0/"
bug pruned-weights-learn double "fips: pruning" "$(in_ passes_nonzero)s/w\[i\] != 0;/1;/"
bug prune-the-largest float "fips: pruning" "$(in_ by_size)s/(x > y) - (x < y)/(x < y) - (x > y)/"
bug prune-in-one-unit float "fips: pruning" "$(in_ fips_prune)s/m->converted ? 1 : (real)down->init/unit_up/"
bug prune-a-converted-one-the-same float "fips: pruning" "$(in_ fips_prune)s/m->converted ?/0 ?/"
bug pruned-moments-kept float "fips: pruning" "$(in_ fips_prune)s/m->moment1\[from + i\] = 0;//"
bug pruning-a-step-late float "fips: schedule" "$(in_ fips_update)s/step + 1/step/"
bug fips-flops-of-factors float "fips: storage" "$(in_ fips_flops)s/? 0 : -1/? -1 : -1/"
bug fips-of-the-least-shared float "fips: fit" "$(in_ fips_directions)s/pick\[e\]/C - 1 - pick[e]/"
bug fips-of-up-alone float "fips: fit" "$(in_ fips_directions)s/down\[i \* F + f\] \*/0 */"
bug fips-U-as-codes float "fips: storage" "$(in_ fips_store)s/Q_BF16/Q_INT/"
bug fips-U-in-the-core float "fips: storage" "$(in_ fips_shape)s/LEDGER_PROTECTED/LEDGER_CORE/"
#endif
