/* masked_ste.h - --ste: where the gradient of a weight passes its rounding.
 *
 *   auto      as its quantizer has it: everywhere (BitNet, 2402.17764) or by its own mask
 *   identity  everywhere
 *   clip      inside the grid, the outermost levels included (LSQ, 1902.08153)
 *   trust     where rounding and clipping moved the weight by at most half a step (QuEST,
 *             2502.05003)
 *
 * d(w) = mask * d(eff). It is for projections on a grid, and for inputs whose quantizer
 * has a mask. Memory: a byte for each weight. The file holds the word, nothing else.
 *
 * Differs from LSQ: the step is computed from the weights, as their quantizer has it,
 * and not learned. On the core's integers, whose outermost level is the largest weight,
 * nothing is masked: there the option is refused. */
#ifdef OPTIONS
X(MODEL, INT, ste, "auto", "identity|clip|trust|auto",
  "gradient passes all | inside | near the grid")

#elif defined MEANINGS
M(ste, ste_means(c), "here: no grid of weights or inputs clips")

#elif defined LIST
X(masked_ste)

#elif defined CODE
#include "shared/trust.h"

enum { STE_IDENTITY, STE_CLIP, STE_TRUST, STE_AUTO };

static int masked_ste_on(const Config *c) { return c->ste != STE_AUTO; }

static int masked_ste_uses(const Config *c) {
    return c->ste == STE_IDENTITY ? 0 : RES_ESTIMATOR;
}

/* mask, w (n); s: the step. The largest of the core's integers fits the grid but for the
 * rounding of the step. */
static void clip_passes(uint8_t *mask, const real *w, int n, real s, const Tensor *t) {
    const real edge = s * ((real)grid_top(t) + (real)t->half / 2);
    const int largest = t->bits > 2 && !t->half;
    const real inside = largest ? edge * (real)1.01 : edge;
    FOR_COLUMNS(i, n) mask[i] = fabs(w[i]) <= inside;
}

static void masked_ste_estimator(const Golf *m, Tensor *t) {
    static Passes *const passes_of[] = {
        [STE_IDENTITY] = NULL, [STE_CLIP] = clip_passes, [STE_TRUST] = trust_passes};
    if (t->role != PROJ || t->quant->domain < 0) return; /* no grid */
    t->passes = passes_of[m->config.ste];
}

/* Has some projection, or its input, a grid that clips? The core's integers do not: their
 * outermost level is the largest weight. */
static int ste_means(const Config *c) {
    const Config clip = with_option(c, "ste", "clip");
    Golf m;
    golf_layout(&m, &clip);
    for (const Tensor *t = m.tensor + T_wqkv; t <= m.tensor + T_wdown; t++) {
        if (!t->n) continue;
        if (m.inputs[t - m.tensor]->has_mask) return 1;
        if (t->passes && (t->half || t->bits <= 2)) return 1;
    }
    return 0;
}

static const System masked_ste_system = {.name = "masked_ste",
                                         .needs = "ste",
                                         .on = masked_ste_on,
                                         .uses = masked_ste_uses,
                                         .estimator = masked_ste_estimator};

#elif defined TESTS
/* The mask of Gaussian weights: those up to `inside` steps from zero pass; and d(w). */
static void check_ste_mask(const char *text, double inside) {
    enum { ROWS = 3, K = 300, ALL = ROWS * K };
    const Tensor t = tensor_of(text, "wo", ROWS, K);
    const real *w = reals(ALL, 60);
    real *d = reals(ALL, 70), *was = memcpy(reals(ALL, 0), d, ALL * sizeof(real));
    int8_t code[ALL];
    uint8_t mask[ALL];
    real scale[ROWS * 3];
    int wrong = 0, masked = 0, wrong_gradient = 0;
    CHECK(t.passes != NULL, "%s: no mask", text);
    t.quant->quantize(code, scale, mask, w, &t);
    t.quant->backward(d, mask, &t);
    for (int i = 0; i < ALL; i++) {
        const double s = (double)scale[t.copy_scales > 1 ? i / K : 0];
        wrong += mask[i] != (fabs((double)w[i]) <= inside * s);
        masked += !mask[i];
        wrong_gradient += d[i] != (mask[i] ? was[i] : 0);
    }
    CHECK(!wrong, "%s: %d of the mask", text, wrong);
    CHECK(!wrong_gradient, "%s: %d gradients", text, wrong_gradient);
    CHECK(masked > 0 || inside > 7, "%s: nothing is masked", text);
}

static void test_ste_mask(void) {
    check_ste_mask("ste=clip", 1);
    check_ste_mask("ste=trust", 1.5);
    check_ste_mask("ste=trust wscale=row", 1.5);
    check_ste_mask("wq=int4 ste=clip", 7 * 1.01);
    check_ste_mask("wq=int4 ste=trust", 7.5);
}

/* Clipped integers: the step's rounding to bf16 must not mask the largest weight. */
static void test_ste_largest(void) {
    enum { K = 64 };
    const Tensor t = tensor_of("wq=int8 ste=clip", "wo", 1, K);
    for (uint64_t key = 1; key < 50; key++) {
        const real *w = reals(K, key);
        int8_t code[K];
        uint8_t mask[K];
        real scale[1];
        int masked = 0;
        t.quant->quantize(code, scale, mask, w, &t);
        for (int i = 0; i < K; i++) masked += !mask[i];
        CHECK(!masked, "weights %d: %d masked", (int)key, masked);
    }
}

/* The smallest weight that is masked with 1 bit, in steps. */
static real masked_from(const char *text) {
    Tensor t = tensor_of(text, "wo", 1, 1024);
    real w[1024];
    uint8_t mask[1024];
    t.bits = 1;
    t.half = 1;
    for (int i = 0; i < 1024; i++) w[i] = (real)i / 1024;
    t.passes(mask, w, 1024, 1, &t);
    int i = 0;
    while (i < 1023 && mask[i]) i++;
    return w[i];
}

/* One bit: the grid ends at half a step; trust goes on to 1.25 times that. */
static void test_ste_one_bit(void) {
    const double clip = (double)masked_from("ste=clip");
    const double trust = (double)masked_from("ste=trust");
    CHECK(near(clip, 0.5, 0.002), "clip masks from %g steps on", clip);
    CHECK(near(trust, 0.625, 0.002), "trust masks from %g steps on", trust);
}

/* identity takes a mask away; what has no grid never gets one. */
static void test_ste_which(void) {
    static const char *const none[] = {"ste=identity", "ste=auto", "wq=none ste=clip"};
    for (int i = 0; i < 3; i++)
        CHECK(!tensor_of(none[i], "wo", 8, 8).passes, "%s: a mask", none[i]);
    CHECK(!tensor_of("ste=clip", "embed", 8, 8).passes, "the embedding has a mask");
    CHECK(!tensor_of("ste=clip", "g_mlp", 1, 8).passes, "the interface has a mask");

    Golf m;
    const Config c = config_of("ste=identity");
    golf_layout(&m, &c);
    Tensor t = m.tensor[T_wo];
    t.passes = clip_passes;
    masked_ste_estimator(&m, &t);
    CHECK(!t.passes, "identity leaves a mask");
}

static const SystemTests masked_ste_tests = {
    .gradients = (const char *const[]){"ste=clip", "ste=trust wscale=row",
                                       "wq=int8 aq=none ste=clip",
                                       "ste=identity", NULL},
    .files = (const char *const[]){"ste=clip", "wq=int4 ste=trust wscale=group", NULL},
    .errors =
        (const char *const[][2]){{"--ste=some", "--ste|identity|clip|trust|auto|'some'"},
                                 {"--wq=none --ste=clip", "--ste=clip|means nothing"},
                                 {"--wq=int4 --ste=trust", "--ste=trust|no grid|clips"},
                                 {NULL, NULL}},
    .tests = (const Test[]){{"mask", test_ste_mask},
                            {"largest", test_ste_largest},
                            {"one bit", test_ste_one_bit},
                            {"which", test_ste_which},
                            {NULL, NULL}}};
#elif defined BUGS
bug mask-without-a-grid-accepted float errors "$(in_ ste_means)s/return 0;/return 1;/"
bug mask-of-integers-accepted float errors "$(in_ ste_means)s/ && (t->half || t->bits <= 2)//"
bug clip-masks-the-largest float largest "$(in_ clip_passes)s/largest ? edge \* (real)1.01 : edge/edge/"
bug trust-at-the-edge float mask "$(in_ trust_passes)s| + s / 2;|;|"
bug trust-one-bit-wide float one "$(in_ trust_passes)s/(real)1.25/(real)1.3/"
bug mask-ignored double mask "$(in_ ste_backward)s/mask\[i\] ? dw\[i\] : 0/dw[i]/"
bug mask-on-everything float which "$(in_ masked_ste_estimator)s/t->role != PROJ || t->quant->domain < 0/0/"
bug identity-keeps-a-mask float which "$(in_ masked_ste_estimator)s/t->passes = /if (m->config.ste) t->passes = /"
#endif
