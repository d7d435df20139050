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
 * --preset=bitnet: how BitNet b1.58 (2402.17764), whose ternary weights are the core's, is
 * trained ("The Era of 1-bit LLMs: Training Tips, Code and FAQ"): AdamW with the betas 0.9
 * and 0.95 and one rate for all, of which the first half of the run has 0.0015 (1 - t/T),
 * the second 0.001 (1 - t/T); 375 steps of warm-up, of 12,000; weight decay 0.1 in the
 * first half, none in the second, in which weights settle; MLPs with SwiGLU.
 *
 * Differs from BitNet: mean|w| is rounded to bf16 before it is used; a weight that equals
 * the mean becomes +, not -; inputs have a step for each token, not one for all; the norm
 * before a projection is the core's (--extra_norm), RMSNorm for LayerNorm; the activation
 * is that of --act, GELU there. Embedding, interface and optimizer are those of the core.
 * From b1.58's recipe: its rate is that of 700 million parameters and a million tokens a
 * step; only projections decay; the embedding is quantized, and tied to the head; the
 * block has the core's input injection, gates and normed queries and keys. */
#ifdef WORDS
W(wq, binary)

#elif defined PRESETS
{"bitnet",
 "unique=3 repeat=1 mlp=13 wq=ternary bwd=fp32 optimizer=adamw lr=0.0015 lr_embed=0.0015 "
 "lr_interface=0.0015 schedule=two_stage steps=12000 warmup=0.03125 wd=0.1 act=swiglu",
 "how BitNet b1.58 is trained, for ternary weights or --wq=binary"},

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

/* The recipe's rates and decay, of 12,000 steps: after 375 of them 0.0015 (1 - t/T), from
 * the middle on 0.001 (1 - t/T) without decay. */
static void test_bitnet_recipe(void) {
    static const struct {
        int step;
        double rate, decay;
    } rows[] = {{0, 0.0015 / 375, 0.1},
                {374, 0.0015 * (1 - 374.0 / 12000), 0.1},
                {5999, 0.0015 * 6001 / 12000, 0.1},
                {6000, 0.0005, 0},
                {11999, 0.001 / 12000, 0}};
    char text[300];
    snprintf(text, sizeof text, "steps=12000 %s", preset_named("bitnet")->options);
    const Config c = config_of(text);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const double f = lr_factor(&c, rows[i].step), decay = wd_at(&c, rows[i].step);
        CHECK(near(c.lr * f, rows[i].rate, 1e-12) && decay == rows[i].decay,
              "step %d: rate %g, decay %g", rows[i].step, c.lr * f, decay);
    }
    CHECK(c.lr == c.lr_embed && c.lr == c.lr_interface, "one rate for all");
    CHECK(c.optimizer == OPT_ADAMW && c.beta1 == 0.9 && c.beta2 == 0.95, "AdamW");
    CHECK(is_gated(&c) && c.wq == WQ_TERNARY, "SwiGLU, ternary");
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
                            {"recipe", test_bitnet_recipe},
                            {NULL, NULL}}};
#elif defined BUGS
bug binary-without-mean float formula "$(in_ binary_quantize)s/w\[i\] - (real)mean/w[i]/"
bug binary-of-half-the-size float formula "$(in_ binary_scale)s/2 \* (/(/"
bug binary-with-a-zero float formula "$(in_ binary_store)s/t->half = 1;//"
bug group-of-the-next-row float formula "$(in_ span_at)s/i \/ per_line \* line + at/i * group/"
bug recipe-of-one-stage float recipe "s/schedule=two_stage /schedule=linear /"
bug recipe-that-decays-on float recipe "$(in_ wd_at)s/2.0 \* step >= c->steps/0/"
bug binary-step-zero float zeros "$(in_ binary_scale)s/size > 1e-5 ? size : 1e-5/size/"
#endif
