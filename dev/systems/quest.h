/* quest.h - QuEST (2502.05003): weights and inputs on grids that fit Gaussian numbers.
 *
 *   --wq=quest    a row w of K weights is rotated, z = H w, where H has Hadamard matrices
 *                 of up to 128 numbers along its diagonal: z is nearly Gaussian whatever w
 *                 is. Its grid has the least mean squared error for such numbers:
 *                     step = 2 alpha(bits) RMS(z) / (levels - 1)
 *                     code = clip(round(z / step - 1/2))
 *                     eff = H (step * (code + 1/2)),  as H is its own inverse
 *                 with 2^bits levels and no zero; or, with bits = 1.585, codes -1, 0, 1
 *                 and no 1/2.
 *   --aq=quest    the same for the inputs of projections, a step for each token.
 *   --hadamard=0  nothing is rotated.
 *
 * Backward, the trust mask: d(w) = H (mask * H d(eff)), where the mask is 0 if rounding
 * and clipping moved z by more than half a step (shared/trust.h); likewise for inputs.
 * The step counts as a constant.
 *
 * Rotated codes multiply with rotated codes, W x = (W H)(H x): with both options, and
 * up to 7 bits on both sides, y is an exact sum of integers. Otherwise numbers multiply,
 * rotated back.
 *
 * --width=fit takes widths and hidden widths that are multiples of 32, so that no fewer
 * numbers are rotated together; a run prints how many are.
 *
 * Stored: wbits bits for a weight (1.585: five weights in a byte), 16 for the step of a
 * row; coding makes it less. Time: 7 additions for each weight, once a step, and for
 * each input in every phase, there and back, forward and backward. Memory of --aq=quest:
 * a number, a code and a byte of mask for each input.
 *
 * Differs from the paper: H has blocks of the largest power of two, up to 128, that
 * divides K, which is a multiple of 128 there; with a width of one's own that can be 8. alpha is minimised here, and is not the
 * authors' at 8 bits (3.9222; theirs 3.8849). Their formula has four levels at 1.585
 * bits, this one three. Steps of weights are rounded to bf16 before they are used.
 * Embedding, interface and optimizer are those of the core. */
#ifdef OPTIONS
X(MODEL, NUM, wbits, "2", "1|1.585|2|3|4|5|6|7|8", "of wq=quest; 1.585 = ternary")
X(MODEL, INT, hadamard, "1", "0|1", "of quest: rotate rows before rounding")
X(MODEL, NUM, abits, "4", "1|1.585|2|3|4|5|6|7|8", "of aq=quest")

#elif defined MEANINGS
M(wbits, c->wq == wq_quest, "without --wq=quest")
M(abits, c->aq == aq_quest, "without --aq=quest")

#elif defined WORDS
W(wq, quest)
W(aq, quest)

#elif defined LIST
X(quest)

#elif defined CODE
#include "shared/trust.h"

/* Codes of rotated numbers multiply with one another only. */
enum { QUEST_DOMAIN = 1 + SYS_quest };

static int quest_on(const Config *c) { return c->wq == wq_quest || c->aq == aq_quest; }

static int quest_takes(const Config *c) { return c->aq == aq_quest ? RES_INPUTS : 0; }

static int quest_uses(const Config *c) {
    (void)c;
    return RES_ESTIMATOR;
}

/* ---- The rotation. */
/* How many of n numbers are rotated together: the largest power of two up to 128 that
 * divides n. */
static int hadamard_block(const Config *c, int n) {
    return c->hadamard ? MIN(128, n & -n) : 1;
}

enum { QUEST_FEWEST = 32 }; /* that are rotated together when fit chooses */

static int quest_multiple(const Config *c) { return c->hadamard ? QUEST_FEWEST : 1; }

/* For each projection, how many of its inputs are rotated together. */
static const char *quest_blocks(const Golf *m, char text[256]) {
    size_t n = (size_t)snprintf(text, 256, "rotated together:");
    int least = 128;
    for (int k = T_wqkv; k <= T_wdown; k++) {
        const Tensor *t = m->tensor + k;
        const int block = hadamard_block(&m->config, t->cols);
        if (!t->n) continue;
        n += (size_t)snprintf(text + n, 256 - n, " %d of %d (%s)", block, t->cols,
                              t->name);
        least = MIN(least, block);
    }
    if (least < QUEST_FEWEST)
        snprintf(text + n, 256 - n,
                 "; below %d they are hardly Gaussian: make --width and --hidden multiples",
                 QUEST_FEWEST);
    return text;
}

static void quest_announce(const Golf *m) {
    char text[256];
    if (m->config.hadamard) puts(quest_blocks(m, text));
}

/* Each block of x (n) times H[i][j] = (-1)^(ones in i & j) / sqrt(block), in log2(block)
 * rounds of sums and differences. H is symmetric and its own inverse. */
static void hadamard(real *x, int n, int block) {
    for (int size = 1; size < block; size *= 2)
        for (int from = 0; from < n; from += 2 * size)
            for (int i = from; i < from + size; i++) {
                const real a = x[i], b = x[i + size];
                x[i] = a + b;
                x[i + size] = a - b;
            }
    FOR_COLUMNS(i, n) x[i] *= 1 / sqrt((real)block);
}

/* What the mask lets through of the rotated d, rotated back.  d, mask (n) */
static void masked_in_rotation(real *d, const uint8_t *mask, int n, int block) {
    hadamard(d, n, block);
    for (int i = 0; i < n; i++) d[i] = mask[i] ? d[i] : 0;
    hadamard(d, n, block);
}

/* ---- The grid. */
/* Its outermost level is alpha when the numbers are N(0,1): argmin of E (x - q(x))^2. */
static real quest_alpha(double bits) {
    static const double list[][2] = {{1, 0.797885}, {1.585, 1.224006}, {2, 1.493530},
                                     {3, 2.051068}, {4, 2.514005},     {5, 2.916151},
                                     {6, 3.277986}, {7, 3.611102},     {8, 3.922204}};
    int i = 0;
    while (list[i][0] < bits) i++;
    return (real)list[i][1];
}

/* The step for n numbers, square the sum of their squares. */
static real quest_step(double square, int n, const Tensor *t) {
    const double bits = is_ternary(t) ? 1.585 : t->bits;
    const double levels = is_ternary(t) ? 3 : 1 << t->bits;
    return (real)(2 * (double)quest_alpha(bits) * sqrt(square / n) / (levels - 1) + 1e-8);
}

/* ---- Weights. */
static void quest_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                           const Tensor *t) {
    const int n = t->stored_cols;
    PARALLEL(t->copy_n)
    for (int r = 0; r < t->rows; r++) {
        const size_t at = (size_t)r * (size_t)n;
        real *z = memcpy(scratch((size_t)n), w + at, sizeof(real) * (size_t)n);
        hadamard(z, n, t->extra[0]);
        const real s = from_bf16(to_bf16(quest_step((double)inner(z, z, n), n, t)));
        scale[r] = coarser(s, t);
        grid_codes(code + at, z, n, scale[r], t);
        if (mask) t->passes(mask + at, z, n, scale[r], t);
    }
}

static void quest_dequantize(real *eff, const int8_t *code, const real *scale,
                             const Tensor *t) {
    const int n = t->stored_cols;
    grid_dequantize(eff, code, scale, t);
    PARALLEL(t->copy_n)
    for (int r = 0; r < t->rows; r++)
        hadamard(eff + (size_t)r * (size_t)n, n, t->extra[0]);
}

/* eff = H (step * code): d(w) = H (mask * H d(eff)) */
static void quest_backward(real *dw, const uint8_t *mask, const Tensor *t) {
    const int n = t->stored_cols;
    if (!mask) return; /* all of it passes, and two rotations are none */
    PARALLEL(t->copy_n)
    for (int r = 0; r < t->rows; r++) {
        const size_t at = (size_t)r * (size_t)n;
        masked_in_rotation(dw + at, mask + at, n, t->extra[0]);
    }
}

static size_t quest_bytes(const Tensor *t) {
    return is_ternary(t) ? ternary_bytes(t) : int_bytes(t);
}

static void quest_pack(uint8_t *out, const int8_t *code, const real *scale,
                       const Tensor *t) {
    if (is_ternary(t)) ternary_pack(out, code, scale, t);
    else int_packed(out, code, scale, t);
}

static int quest_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    return is_ternary(t) ? ternary_unpack(code, scale, in, t)
                         : int_unpacked(code, scale, in, t);
}

static const Quantizer quest_quantizer = {.name = "quest",
                                          .domain = QUEST_DOMAIN,
                                          .scales = grid_scales,
                                          .bytes = quest_bytes,
                                          .quantize = quest_quantize,
                                          .dequantize = quest_dequantize,
                                          .backward = quest_backward,
                                          .pack = quest_pack,
                                          .unpack = quest_unpack,
                                          .coded = grid_coded};

/* The grid for rows of n numbers; extra[0]: how many of them are rotated together. */
static void quest_grid(const Config *c, Tensor *t, double bits, int n) {
    store_as(t, &quest_quantizer, (int)ceil(bits), SCALE_ROW);
    t->half = bits != 1.585;
    t->extra[0] = hadamard_block(c, n);
}

/* All projections, but for those that a system asked before this one stores. */
static int quest_store(const Golf *m, Tensor *t) {
    const Config *c = &m->config;
    if (t->role != PROJ || c->wq != wq_quest) return 0;
    quest_grid(c, t, c->wbits, t->stored_cols);
    return 1;
}

static void quest_estimator(const Golf *m, Tensor *t) {
    (void)m;
    if (t->quant == &quest_quantizer) t->passes = trust_passes;
}

/* ---- Inputs. */
/* Per projection: the grid of its inputs, as a tensor without numbers. */
typedef struct {
    Tensor grid[T_wdown + 1];
} Quest;

/* Whatever changes how gradients pass the rounding of weights does so for inputs too. */
static void quest_buffers(Golf *m, size_t N) {
    const Config *c = &m->config;
    Quest *q = owned(m, 1, sizeof(Quest));
    (void)N;
    m->own[SYS_quest] = q;
    for (int k = T_wqkv; k <= T_wdown; k++) {
        Tensor *t = q->grid + k;
        t->name = "inputs"; /* an estimator may ask for it */
        t->role = PROJ;
        quest_grid(c, t, c->abits, m->tensor[k].cols);
        EACH_SYSTEM(s, m) {
            if ((*s)->estimator) (*s)->estimator(m, t);
        }
    }
}

static const Tensor *quest_grid_of(const Golf *m, int tensor) {
    const Quest *q = m->own[SYS_quest];
    return q->grid + tensor;
}

/* Rotated numbers z (K) of token n to what their codes stand for. The codes of a grid
 * without zero are kept as 2 code + 1, in halves of a step; with 8 bits these do not fit
 * an int8, and z alone is kept. */
static void quest_round(Act *a, real *z, size_t n, int K, real s, const Tensor *grid) {
    const int half = grid->half;
    if (a->step) a->step[n] = half ? s / 2 : s;
    for (int i = 0; i < K; i++) {
        const int code = (int)grid_code(z[i], s, grid);
        if (a->q) a->q[n * (size_t)K + (size_t)i] = (int8_t)(half ? 2 * code + 1 : code);
        z[i] = s * ((real)code + (real)half / 2);
    }
}

/* x (N,K) -> a->x (N,K), rounded and rotated back; a->q (N,K), a->step (N) and a->mask
 * (N,K) of the rotated numbers. */
static void quest_inputs(const Golf *m, Act *a, const real *x, int N, int K, int tensor) {
    TIMED(QUANT);
    const Tensor *grid = quest_grid_of(m, tensor);
    const int block = grid->extra[0];
    FOR_ROWS(n, N, K) {
        real *z = memcpy(a->x + at, x + at, sizeof(real) * (size_t)K);
        hadamard(z, K, block);
        const real s = quest_step((double)inner(z, z, K), K, grid);
        if (grid->passes) grid->passes(a->mask + at, z, K, s, grid);
        else memset(a->mask + at, 1, (size_t)K); /* all of it */
        quest_round(a, z, n, K, s, grid);
        hadamard(z, K, block);
    }
}

/* x' = H (round(H x)): d(x) = H (mask * H d(x')) */
static void quest_inputs_backward(const Golf *m, const Act *a, real *dx, int N, int K,
                                  int tensor) {
    const int block = quest_grid_of(m, tensor)->extra[0];
    FOR_ROWS(n, N, K) masked_in_rotation(dx + at, a->mask + at, K, block);
}

static const Inputs quest_inputs_codes = {.quantize = quest_inputs,
                                          .backward = quest_inputs_backward,
                                          .domain = QUEST_DOMAIN,
                                          .has_x = 1,
                                          .has_q = 1,
                                          .has_mask = 1};
static const Inputs quest_inputs_wide = {.quantize = quest_inputs,
                                         .backward = quest_inputs_backward,
                                         .domain = -1,
                                         .has_x = 1,
                                         .has_mask = 1};

static void quest_shape(Golf *m) {
    const Config *c = &m->config;
    if (c->aq != aq_quest) return;
    for (int k = T_wqkv; k <= T_wdown; k++)
        m->inputs[k] = c->abits > 7 ? &quest_inputs_wide : &quest_inputs_codes;
}

static const System quest_system = {.name = "quest",
                                    .needs = "wq=quest or --aq=quest",
                                    .on = quest_on,
                                    .takes = quest_takes,
                                    .uses = quest_uses,
                                    .multiple = quest_multiple,
                                    .announce = quest_announce,
                                    .shape = quest_shape,
                                    .store = quest_store,
                                    .estimator = quest_estimator,
                                    .buffers = quest_buffers};

#elif defined TESTS
#include "shared/coder_check.h"

/* What is masked of N(0,1): P(|x| > alpha + half a step); 1 bit: P(|x| > 1.3 alpha). */
static const struct {
    double bits, masked;
} quest_rows[] = {{1, 0.2996}, {1.585, 0.0664}, {2, 0.0464},
                  {3, 0.0191}, {4, 0.00733},    {5, 0.00261},
                  {6, 8.68e-4}, {7, 2.73e-4},   {8, 8.2e-5}};
enum { QUEST_ROWS = sizeof quest_rows / sizeof *quest_rows };

/* The integral of (u - level)^2 phi(u) from -infinity to x. */
static double quest_error_below(double x, double level) {
    const double phi = exp(-x * x / 2) / sqrt(6.283185307179586);
    return (1 + level * level) * erfc(-x / sqrt(2.0)) / 2 + (2 * level - x) * phi;
}

/* Mean squared error on N(0,1) of a grid whose outermost levels are -a and a: every
 * level has the numbers that are nearest to it. */
static double quest_grid_error(double bits, double a) {
    const int levels = bits == 1.585 ? 3 : 1 << (int)bits;
    const double step = 2 * a / (levels - 1);
    double sum = 0;
    for (int k = 0; k < levels; k++) {
        const double level = -a + k * step;
        const double low = k ? level - step / 2 : -40;
        const double high = k < levels - 1 ? level + step / 2 : 40;
        sum += quest_error_below(high, level) - quest_error_below(low, level);
    }
    return sum;
}

/* alpha is where that error is least: golden section. */
static void test_quest_best_grid(void) {
    const double ratio = 0.6180339887498949;
    for (int i = 0; i < QUEST_ROWS; i++) {
        const double bits = quest_rows[i].bits;
        double low = 0.3, high = 6;
        while (high - low > 1e-6) {
            const double a = high - ratio * (high - low), b = low + ratio * (high - low);
            if (quest_grid_error(bits, a) < quest_grid_error(bits, b)) high = b;
            else low = a;
        }
        CHECK(near((double)quest_alpha(bits), (low + high) / 2, 1e-4),
              "best grid of %g bits: %.6f, not %.6f", bits, (low + high) / 2,
              (double)quest_alpha(bits));
    }
}

/* y = H x by the matrix.  x, y (n) */
static void hadamard_naive(double *y, const double *x, int n, int block) {
    for (int i = 0; i < n; i++) {
        const int first = i / block * block;
        y[i] = 0;
        for (int j = first; j < first + block; j++) {
            const int odd = __builtin_parity((unsigned)((i - first) & (j - first)));
            y[i] += (odd ? -x[j] : x[j]) / sqrt(block);
        }
    }
}

static void quest_rotated(double *y, const real *x, int n, int block) {
    double *copy = xcalloc((size_t)n, sizeof(double));
    for (int i = 0; i < n; i++) copy[i] = (double)x[i];
    hadamard_naive(y, copy, n, block);
    free(copy);
}

static double quest_worst_of(const real *got, const double *want, int n) {
    double worst = 0;
    for (int i = 0; i < n; i++) worst = worse(worst, fabs((double)got[i] - want[i]));
    return worst;
}

static void test_quest_rotation(void) {
    enum { K = 384 };
    real *x = reals(K, 72);
    double was[K], want[K];
    for (int k = 0; k < K; k++) was[k] = (double)x[k];
    hadamard_naive(want, was, K, 128);
    hadamard(x, K, 128);
    CHECK(quest_worst_of(x, want, K) < EPS, "H x is off by %g",
          quest_worst_of(x, want, K));
    hadamard(x, K, 128);
    CHECK(quest_worst_of(x, was, K) < EPS, "H is not its own inverse: off by %g",
          quest_worst_of(x, was, K));

    const Config on = config_of("wq=quest"), off = config_of("wq=quest hadamard=0");
    const int n[] = {384, 96, 5, 1024}, block[] = {128, 32, 1, 128};
    for (int i = 0; i < 4; i++)
        CHECK(hadamard_block(&on, n[i]) == block[i], "%d numbers: blocks of %d", n[i],
              hadamard_block(&on, n[i]));
    CHECK(hadamard_block(&off, 96) == 1, "hadamard=0");
}

/* The step of the best grid for z (K), never 0. */
static double quest_best_step(const double *z, int K, double bits) {
    double square = 0;
    for (int k = 0; k < K; k++) square += z[k] * z[k] / K;
    const double edge = (double)quest_alpha(bits) * sqrt(square);
    return 1e-8 + (bits == 1.585 ? edge : 2 * edge / (pow(2, bits) - 1));
}

/* z on the grid of 2^bits levels (ternary: -1, 0, 1) with this step. */
static double quest_on_grid(double z, double bits, double step) {
    if (bits == 1.585) return step * fmin(fmax(rint(z / step), -1), 1);
    const double top = pow(2, bits - 1) - 0.5;
    return step * fmin(fmax(rint(z / step - 0.5) + 0.5, -top), top);
}

/* How far eff (K) is from z (K) on its grid, rotated back. */
static double quest_row_error(const real *eff, const double *z, double step, int K,
                              double bits) {
    double on[512] = {0}, want[512], num = 0, den = 0;
    for (int k = 0; k < K; k++) on[k] = quest_on_grid(z[k], bits, step);
    hadamard_naive(want, on, K, 128);
    for (int k = 0; k < K; k++) {
        num += pow(want[k] - (double)eff[k], 2);
        den += want[k] * want[k];
    }
    return sqrt(num / den);
}

/* The first rows (K) by their definition: the step, which is rounded to bf16, and eff. */
static void quest_check_rows(const real *w, const real *eff, const real *scale, int K,
                             double bits) {
    double z[512], worst = 0;
    for (int r = 0; r < 8; r++) {
        const double step = (double)scale[r];
        quest_rotated(z, w + r * K, K, 128);
        const double want = quest_best_step(z, K, bits);
        CHECK(near(step, want, want / 250), "%g bits: a step of %g, not %g", bits, step,
              want);
        worst = worse(worst, quest_row_error(eff + r * K, z, step, K, bits));
    }
    CHECK(worst < EPS, "%g bits: off by %.3g from the definition", bits, worst);
}

/* Rows of Gaussian numbers: how many are masked, and what they become. */
static void test_quest_gaussian_rows(void) {
    enum { ROWS = 512, K = 384 };
    const size_t n = (size_t)ROWS * K;
    const real *w = reals(n, 71);
    real *eff = reals(n, 0), *scale = reals(ROWS, 0);
    int8_t *code = xcalloc(n, 1);
    uint8_t *mask = xcalloc(n, 1);
    for (int i = 0; i < QUEST_ROWS; i++) {
        const double bits = quest_rows[i].bits, want = quest_rows[i].masked;
        const double sigma = sqrt(want * (1 - want) / (double)n);
        double masked = 0;
        char text[64];
        snprintf(text, sizeof text, "wq=quest wbits=%g", bits);
        const Tensor t = tensor_of(text, "wo", ROWS, K);
        t.quant->quantize(code, scale, mask, w, &t);
        t.quant->dequantize(eff, code, scale, &t);
        for (size_t k = 0; k < n; k++) masked += !mask[k] / (double)n;
        CHECK(near(masked, want, 3 * sigma + 0.005 * want),
              "%g bits: %.5f masked, not %.5f", bits, masked, want);
        quest_check_rows(w, eff, scale, K, bits);
    }
}

/* What the gradient passes, by its definition: dw where the mask is 1, between two
 * rotations. Frozen forward passes use the same function: finite differences alone would
 * not see it forget the mask. */
static void quest_check_gradient(const char *text, int block) {
    enum { ROWS = 3, K = 96, ALL = ROWS * K };
    const Tensor t = tensor_of(text, "wo", ROWS, K);
    real *d = reals(ALL, 70), *was = memcpy(reals(ALL, 0), d, ALL * sizeof(real));
    uint8_t mask[ALL];
    double z[ALL], want[ALL];
    for (int i = 0; i < ALL; i++) mask[i] = hash64(71, (uint64_t)i) % 4 > 0;
    quest_rotated(z, d, ALL, block);
    for (int i = 0; i < ALL; i++) z[i] *= mask[i];
    hadamard_naive(want, z, ALL, block);

    t.quant->backward(d, mask, &t);
    CHECK(quest_worst_of(d, want, ALL) < EPS, "%s: off by %g", text,
          quest_worst_of(d, want, ALL));
    memcpy(d, was, ALL * sizeof(real));
    t.quant->backward(d, NULL, &t);
    CHECK(!memcmp(d, was, ALL * sizeof(real)), "%s: no mask, but not all passes", text);
}

static void test_quest_masks(void) {
    quest_check_gradient("wq=quest", 32);
    quest_check_gradient("wq=quest hadamard=0", 1);
}

/* ---- Inputs x (IN_ROWS,IN_K) of Wo, and what became of them. */
enum { IN_ROWS = 3, IN_K = 256, IN_ALL = IN_ROWS * IN_K };

/* Numbers and mask by their definition. */
static void quest_check_input_numbers(const Act *a, const real *x, double bits) {
    int wrong = 0;
    for (int n = 0; n < IN_ROWS; n++) {
        double z[IN_K];
        quest_rotated(z, x + n * IN_K, IN_K, 128);
        const double step = quest_best_step(z, IN_K, bits);
        const double edge = quest_on_grid(1e9, bits, step);
        const double inside = bits == 1 ? 1.3 * edge : edge + step / 2;
        const double error = quest_row_error(a->x + n * IN_K, z, step, IN_K, bits);
        CHECK(error < EPS, "%g bits: numbers off by %.3g", bits, error);
        for (int k = 0; k < IN_K; k++)
            wrong += a->mask[n * IN_K + k] != (fabs(z[k]) <= inside);
    }
    CHECK(!wrong, "%g bits: %d of the mask", bits, wrong);
}

/* Codes mean the numbers, rotated. */
static void quest_check_input_codes(const Act *a, double bits) {
    double z[IN_ALL], numbers[IN_ALL];
    for (int i = 0; i < IN_ALL; i++) z[i] = (double)a->q[i] * (double)a->step[i / IN_K];
    hadamard_naive(numbers, z, IN_ALL, 128);
    const double worst = quest_worst_of(a->x, numbers, IN_ALL);
    CHECK(worst < 10 * EPS, "%g bits: codes off by %g", bits, worst);
}

/* The gradient between two rotations. */
static void quest_check_input_gradient(const Golf *m, const Act *a, double bits) {
    real *dx = reals(IN_ALL, 74);
    double z[IN_ALL], want[IN_ALL];
    quest_rotated(z, dx, IN_ALL, 128);
    for (int i = 0; i < IN_ALL; i++) z[i] *= a->mask[i];
    hadamard_naive(want, z, IN_ALL, 128);
    m->inputs[T_wo]->backward(m, a, dx, IN_ROWS, IN_K, T_wo);
    const double worst = quest_worst_of(dx, want, IN_ALL);
    CHECK(worst < EPS, "%g bits: gradient off by %g", bits, worst);
}

static void test_quest_inputs(void) {
    const real *x = reals(IN_ALL, 73);
    for (int i = 0; i < QUEST_ROWS; i++) {
        const double bits = quest_rows[i].bits;
        char text[128];
        Golf m;
        snprintf(text, sizeof text, "vocab=20 seq=8 repeat=1 aq=quest abits=%g", bits);
        new_model(&m, text, 8);
        const Inputs *in = m.inputs[T_wo];
        Act *a = &m.phase[0].in_o;
        in->quantize(&m, a, x, IN_ROWS, IN_K, T_wo);
        quest_check_input_numbers(a, x, bits);
        quest_check_input_gradient(&m, a, bits);
        CHECK(in->has_q == (bits < 8) && (in->domain > 0) == (bits < 8),
              "%g bits: codes?", bits);
        if (a->q) quest_check_input_codes(a, bits);
        golf_free(&m);
    }
}

/* Codes multiply with codes only where both sides are rotated. */
static void test_quest_integers(void) {
    static const struct {
        const char *text;
        int exact;
    } rows[] = {{"wq=quest aq=quest", 1},
                {"wq=quest wbits=1.585 aq=quest abits=1", 1},
                {"wq=quest wbits=1 aq=quest abits=4", 1},
                {"wq=quest wbits=7 aq=quest abits=7", 1},
                {"wq=quest wbits=1 aq=quest abits=8", 0},
                {"wq=quest wbits=8 aq=quest", 0},
                {"wq=quest wbits=1", 0},
                {"aq=quest", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const Config c = config_of(rows[i].text);
        Golf m;
        golf_layout(&m, &c);
        CHECK(in_integers(&m, m.tensor + T_wup) == rows[i].exact, "%s: in integers?",
              rows[i].text);
    }
}

static void test_quest_packed(void) {
    for (int bits = 1; bits <= 8; bits++) { /* 16 rows of 51 weights */
        char text[64];
        snprintf(text, sizeof text, "wq=quest wbits=%d", bits);
        check_packed(text, 16, 51, 2 * 16 + 102 * (size_t)bits);
    }
    check_packed("wq=quest wbits=1.585", 16, 51, 2 * 16 + 164);
}

/* No narrow block is chosen in silence: a rotation has widths of whole blocks of 32. */
static void test_quest_fit(void) {
    static const char *const arms[] = {"wq=quest", "aq=quest wq=int4", "wq=quest heads=3"};
    int others = 0;
    for (int i = 0; i < 3; i++)
        for (int cap = i == 2 ? 90000 : 30000; cap <= 300000; cap += 30000) {
            char text[256];
            snprintf(text, sizeof text, "vocab=300 unique=1 repeat=2 cap=%d %s%s", cap,
                     arms[i], i == 2 ? " width=96" : "");
            Config c = config_of(text), free_width = c;
            c.width = free_width.width = 0;
            free_width.hadamard = 0;
            fit_width(&c);
            fit_width(&free_width);
            CHECK(c.width % 32 == 0 && hidden_width(&c) % 32 == 0, "%s: C=%d F=%d", text,
                  c.width, hidden_width(&c));
            CHECK(artifact_bytes(&c) <= (size_t)cap, "%s: over the cap", text);
            others += free_width.width % 32 != 0;
        }
    CHECK(others > 5, "without a rotation, %d widths are no multiples of 32", others);
}

/* --fit=coded: the size after training and, as the last resort, a grid so coarse that a code
 * is little more than a sign. */
static void test_quest_coded(void) {
    Golf m;
    check_expected("wq=quest wbits=3", 0.04);
    check_expected("wq=quest wbits=4 unique=2 repeat=1", 0.04);
    new_model(&m, TO_LEARN "wq=quest wbits=3", 0);
    set_matrix_grids(&m, COARSEST_MATRICES);
    golf_quantize(&m);
    const Tensor *t = m.tensor + T_wup;
    const double coarse = 8.0 * (double)tensor_bytes(&m, t) / (double)t->n;
    CHECK(coarse < 1.6, "%g bits on the coarsest grid", coarse);
    golf_free(&m);
}

static void test_quest_blocks(void) {
    char text[256];
    Golf m;
    Config c = config_of("wq=quest width=56 heads=2 mlp=4");
    golf_layout(&m, &c);
    CHECK(strstr(quest_blocks(&m, text), " 8 of 56 (wqkv)") && strstr(text, "multiples") &&
              strstr(text, " 32 of 224 (wdown)"),
          "C=56: %s", text);
    c = config_of("wq=quest width=64 heads=2 mlp=4");
    golf_layout(&m, &c);
    CHECK(strstr(quest_blocks(&m, text), " 64 of 64 (wo)") && !strstr(text, "multiples") &&
              strstr(text, " 128 of 256 (wdown)"),
          "C=64: %s", text);
}

static void test_quest_coder(void) {
    check_coder("wq=quest wbits=3", 128, 512, 0);
    check_coder("wq=quest wbits=1.585", 128, 512, 0);
}

static const SystemTests quest_tests = {
    .gradients =
        (const char *const[]){
            "wq=quest", "wq=quest wbits=1 unique=2", "wq=quest wbits=1.585 repeat=3",
            "wq=quest wbits=8", "wq=quest wbits=3 aq=quest abits=3",
            "wq=quest aq=quest hadamard=0", "wq=quest wbits=1 aq=quest abits=1 repeat=3",
            "aq=quest abits=1.585 extra_norm=each unique=2",
            "wq=none aq=quest abits=4 extra_norm=none",
            "wq=quest wbits=4 aq=quest abits=8",
            "wq=quest wbits=2 aq=quest abits=2 act=swiglu",
            "wq=quest wbits=4 aq=quest abits=8", "wq=quest wbits=5 aq=quest abits=6",
            "wq=quest wbits=7 aq=quest abits=7 extra_norm=none", NULL},
    .files = (const char *const[]){"wq=quest wbits=3", "wq=quest wbits=1",
                                   "wq=quest wbits=1.585", "wq=quest wbits=2 aq=quest",
                                   "wq=quest wbits=4 aq=quest abits=8",
                                   "wq=quest wbits=5 aq=quest abits=5", "wq=quest wbits=6",
                                   "wq=quest wbits=7 aq=quest abits=7", "wq=quest wbits=8", "aq=quest hadamard=0",
                                   "wq=quest wscale=group", NULL},
    .errors =
        (const char *const[][2]){{"--abits=2", "--abits|--aq=quest"},
                                 {"--wq=quest --abits=2", "--abits|--aq=quest"},
                                 {"--aq=quest --wbits=3", "--wbits|--wq=quest"},
                                 {"--hadamard=0", "--hadamard|--wq=quest or --aq=quest"},
                                 {"--wq=quest --wbits=9", "--wbits|1.585|'9'"},
                                 {"--wq=quest --wscale=group", "--wscale=group|nothing"},
                                 {"--wq=quest --wscale=row", "--wscale=row|nothing"},
                                 {NULL, NULL}},
    .tests = (const Test[]){{"best grid", test_quest_best_grid},
                            {"rotation", test_quest_rotation},
                            {"gaussian rows", test_quest_gaussian_rows},
                            {"masks", test_quest_masks},
                            {"inputs", test_quest_inputs},
                            {"integers", test_quest_integers},
                            {"packed", test_quest_packed},
                            {"fit", test_quest_fit},
                            {"coded", test_quest_coded},
                            {"blocks", test_quest_blocks},
                            {"coder", test_quest_coder},
                            {NULL, NULL}}};
#elif defined BUGS
bug rotated-codes-on-plain-weights double grad "$(in_ in_integers)s/t->quant->domain != in->domain/0/"
bug quest-mask-at-the-edge float gaussian "$(in_ trust_passes)s| + s / 2;|;|"
bug quest-one-bit-not-narrowed float gaussian "$(in_ trust_passes)s|t->bits == 1 ? narrow \* edge : ||"
bug quest-gradient-not-rotated double masks "$(in_ masked_in_rotation)s/^    hadamard(d, n, block);$//"
bug quest-without-half-step float gaussian "$(in_ quest_grid)s/bits != 1.585/0/"
bug quest-step-of-the-whole-matrix float gaussian "$(in_ quest_quantize)s/(double)inner(z, z, n), n/(double)inner(w, w, n), n/"
bug inputs-mask-forgotten double inputs "$(in_ masked_in_rotation)s/mask\[i\] ? d\[i\] : 0/d[i]/"
bug inputs-gradient-as-it-is double inputs "$(in_ quest_inputs_backward)s/FOR_ROWS.*/(void)dx;/"
bug fit-in-narrow-blocks float fit "$(in_ quest_multiple)s/QUEST_FEWEST : 1/8 : 1/"
bug grid-that-stays-fine float coded "$(in_ quest_quantize)s/coarser(s, t)/s/"
bug block-not-told float blocks "$(in_ quest_blocks)s/least = MIN(least, block);//"
bug seven-bits-of-eight float best "$(in_ quest_alpha)s/{7, 3.611102}/{7, 3.922204}/"
bug wide-codes-in-a-byte float integers "$(in_ quest_shape)s/c->abits > 7/0/"
bug trits-packed-as-integers float packed "$(in_ quest_bytes)s/is_ternary(t) ? ternary_bytes(t) : //"
#endif
