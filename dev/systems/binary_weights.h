/* binary_weights.h - BitNet (2310.11453), --wq=binary: projections of one bit.
 *
 *     eff = mean|w| * sign(w - mean(w))
 *
 * The mean of w is that of a copy of a matrix, mean|w| that of what shares a scale
 * (--wscale). On the grid of the core: a step of 2 mean|w|, and codes 0 and -1 that
 * stand for half a step above and below zero. With a scale for a matrix or row the
 * product with int8 inputs is an exact sum of integers.
 *
 * Backward: the gradient of eff is that of w, as in the paper. Stored: 1 bit for a
 * weight, 16 for a scale; codes are as good as random, so that coding saves nothing.
 * Costs no more than the core's ternary weights.
 *
 * Differs from the paper: mean|w| is rounded to bf16 before it is used; a weight that
 * equals the mean becomes +, not -; inputs have a step for each token, not one for all;
 * the norm before a projection is the core's (--extra_norm), RMSNorm for LayerNorm.
 * Embedding, interface and optimizer are those of the core. */
#ifdef WORDS
W(wq, binary)

#elif defined LIST
X(binary_weights)

#elif defined CODE
static int binary_on(const Config *c) { return c->wq == wq_binary; }

static real binary_scale(const real *w, size_t n, const Tensor *t) {
    const double size = 2 * (block_sum(w, n, 0) / (double)n);
    (void)t;
    return from_bf16(to_bf16((real)(size > 1e-5 ? size : 1e-5)));
}

static void binary_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                            const Tensor *t) {
    real *z = xcalloc(t->copy_n, sizeof(real));
    double mean = 0;
    for (size_t i = 0; i < t->copy_n; i++) mean += (double)w[i] / (double)t->copy_n;
    for (size_t i = 0; i < t->copy_n; i++) z[i] = w[i] - (real)mean;
    grid_quantize_as(code, scale, mask, w, z, t, binary_scale);
    free(z);
}

static const Quantizer binary_quantizer = {.name = "binary",
                                           .bits = 1,
                                           .scales = grid_scales,
                                           .bytes = int_bytes,
                                           .quantize = binary_quantize,
                                           .dequantize = grid_dequantize,
                                           .backward = ste_backward,
                                           .pack = int_packed,
                                           .unpack = int_unpacked,
                                           .coded = grid_coded};

/* All projections, but for those that a system asked before this one stores. */
static int binary_store(const Golf *m, Tensor *t) {
    const int per = m->config.wscale;
    if (t->role != PROJ) return 0;
    store_as(t, &binary_quantizer, 1, per == SCALE_AUTO ? SCALE_TENSOR : per);
    t->half = 1;
    return 1;
}

static const System binary_weights_system = {
    .name = "binary_weights", .needs = "wq=binary", .on = binary_on, .store = binary_store};

#elif defined TESTS
#include "shared/coder_check.h"

/* mean|w| of [first,last) */
static double binary_mean_size(const real *w, int first, int last) {
    double sum = 0;
    for (int i = first; i < last; i++) sum += fabs((double)w[i]);
    return sum / (last - first);
}

/* group: how many weights of a row share a scale, 0: all of the matrix. */
static void binary_check_formula(const char *text, int group, size_t scales) {
    enum { ROWS = 3, K = 300, ALL = ROWS * K };
    const Tensor t = tensor_of(text, "wo", ROWS, K);
    const real *w = reals(ALL, 60);
    int8_t code[ALL];
    real scale[ROWS * 3], eff[ALL];
    double mean = 0;
    int wrong = 0;
    CHECK(t.copy_scales == scales, "%s: %zu scales", text, t.copy_scales);
    t.quant->quantize(code, scale, NULL, w, &t);
    t.quant->dequantize(eff, code, scale, &t);

    for (int i = 0; i < ALL; i++) mean += (double)w[i] / ALL;
    for (int i = 0; i < ALL; i++) {
        const int row = i / K * K;
        const int first = group ? row + i % K / group * group : 0;
        const int last = group ? MIN(first + group, row + K) : ALL;
        const double size = binary_mean_size(w, first, last);
        const double want = (double)w[i] > mean ? size : -size;
        wrong += !near((double)eff[i], want, size / 200);
    }
    CHECK(!wrong, "%s: %d weights are not what the formula says", text, wrong);
}

static void test_binary_formula(void) {
    binary_check_formula("wq=binary", 0, 1);
    binary_check_formula("wq=binary wscale=row", 300, 3);
    binary_check_formula("wq=binary wscale=group", 128, 9);
}

/* A matrix of zeros has a step that can be stored, and halves of it. */
static void test_binary_zeros(void) {
    const Tensor t = tensor_of("wq=binary", "wo", 4, 8);
    const real w[32] = {0};
    int8_t code[32];
    real scale[1], eff[32];
    t.quant->quantize(code, scale, NULL, w, &t);
    t.quant->dequantize(eff, code, scale, &t);
    CHECK(near((double)scale[0], 1e-5, 1e-7) && eff[5] == scale[0] / 2,
          "step %g, weight %g", (double)scale[0], (double)eff[5]);
}

static void test_binary_packed(void) {
    check_packed("wq=binary", 16, 51, 2 + 102);
    check_packed("wq=binary wscale=row", 16, 51, 2 * 16 + 102);
    check_coder("wq=binary", 256, 256, 1);
}

static const SystemTests binary_weights_tests = {
    .gradients = (const char *const[]){"wq=binary", "wq=binary wscale=row",
                                       "wq=binary wscale=group aq=none unique=2", NULL},
    .files = (const char *const[]){"wq=binary", "wq=binary wscale=group", NULL},
    .errors = (const char *const[][2]){{"--wq=bits", "--wq|none|ternary|'bits'"},
                                       {NULL, NULL}},
    .tests = (const Test[]){{"formula", test_binary_formula},
                            {"zeros", test_binary_zeros},
                            {"packed", test_binary_packed},
                            {NULL, NULL}}};
#elif defined BUGS
bug binary-without-mean float formula "$(in_ binary_quantize)s/w\[i\] - (real)mean/w[i]/"
bug binary-of-half-the-size float formula "$(in_ binary_scale)s/2 \* (/(/"
bug binary-with-a-zero float formula "$(in_ binary_store)s/t->half = 1;//"
bug group-of-the-next-row float formula "$(in_ span_at)s/i \/ per_line \* line + at/i * group/"
bug binary-step-zero float zeros "$(in_ binary_scale)s/size > 1e-5 ? size : 1e-5/size/"
#endif
