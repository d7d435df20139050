/* test_systems.h - part of test_golf.c: Part II's systems and the range coder against their
 * definitions. Their gradients are among the arms of test_model_gradients, their files among those
 * of test_export. */

/* Mean squared error on N(0,1) of the best codes on a grid whose outermost levels are -a and a: the
 * sum over cells of the integral of (x - level)^2 phi(x), which is (1 + l^2) Phi + (2l - x) phi. */
static double grid_error(double bits, double a) {
    const int levels = bits == 1.585 ? 3 : 1 << (int)bits;
    const double step = 2 * a / (levels - 1);
    double sum = 0;
    for (int k = 0; k < levels; k++) {
        const double level = -a + k * step, edge[] = {k ? level - step / 2 : -40,
                                                      k < levels - 1 ? level + step / 2 : 40};
        for (int side = 0; side < 2; side++) {
            const double x = edge[side], phi = exp(-x * x / 2) / sqrt(6.283185307179586);
            const double value = (1 + level * level) * erfc(-x / sqrt(2.0)) / 2 + (2 * level - x) * phi;
            sum += side ? value : -value;
        }
    }
    return sum;
}
static void test_quest(void) {
    const struct { double bits, masked; } rows[] = { /* methods: P(|x| > a + T); 1 bit: 1.3 a */
        {1, 0.2996}, {1.585, 0.0664}, {2, 0.0464}, {3, 0.0191}, {4, 0.00733}, {8, 8.2e-5}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const double bits = rows[i].bits, ratio = 0.6180339887498949;
        double lo = 0.3, hi = 6; /* golden section */
        while (hi - lo > 1e-6) {
            const double a = hi - ratio * (hi - lo), b = lo + ratio * (hi - lo);
            if (grid_error(bits, a) < grid_error(bits, b)) hi = b;
            else lo = a;
        }
        CHECK(near((double)quest_alpha(bits), (lo + hi) / 2, 1e-4), "best grid of %g bits: %.6f, "
              "not %.6f", bits, (lo + hi) / 2, (double)quest_alpha(bits));

        /* rows of Gaussian numbers: what is masked, and the definition of the codes */
        enum { ROWS = 512, K = 384 };
        const size_t n = (size_t)ROWS * K;
        Config c = config_of("wq=quest");
        c.wbits = bits;
        Tensor t = {.name = "wo", .role = PROJ, .rows = ROWS, .cols = K, .stored_cols = K, .copy_n = n};
        choose_quantizer(&t, &c);
        t.copy_scales = t.quant->scales(&t);
        real *w = reals(n, 70 + i), *eff = reals(n, 0), *scale = reals(ROWS, 0);
        for (size_t k = 0; k < n; k++) w[k] = (real)normal01(71, k);
        int8_t *code = (int8_t *)reals(n, 0);
        uint8_t *mask = (uint8_t *)reals(n, 0);
        t.quant->quantize(code, scale, mask, w, &t);
        double masked = 0, worst = 0;
        for (size_t k = 0; k < n; k++) masked += !mask[k] / (double)n;
        const double sigma = sqrt(rows[i].masked * (1 - rows[i].masked) / (double)n);
        CHECK(near(masked, rows[i].masked, 3 * sigma + 0.005 * rows[i].masked), "%g bits: %.5f "
              "masked, not %.5f", bits, masked, rows[i].masked);
        t.quant->dequantize(eff, code, scale, &t);
        for (int r = 0; r < 8; r++) { /* the same from the matrix H, in double */
            double z[K], zq[K], square = 0;
            for (int a = 0; a < K; a++) {
                z[a] = 0;
                for (int b = a / 128 * 128; b < a / 128 * 128 + 128; b++)
                    z[a] += (double)w[r * K + b] * (__builtin_popcount((unsigned)(a & b & 127)) & 1 ? -1 : 1) / sqrt(128);
                square += z[a] * z[a] / K;
            }
            const double A = (double)quest_alpha(bits) * sqrt(square), s = (double)scale[r];
            const double step = bits == 1.585 ? A : 2 * A / (pow(2, bits) - 1);
            CHECK(near(s, step, step / 250), "%g bits: a step of %g, not %g", bits, s, step);
            for (int a = 0; a < K; a++) /* the grid -A..A with that step, rounded to bf16 */
                zq[a] = bits == 1.585 ? s * fmin(fmax(rint(z[a] / s), -1), 1)
                        : s * (fmin(fmax(rint(z[a] / s - 0.5) + 0.5, 0.5 - pow(2, bits - 1)),
                                    pow(2, bits - 1) - 0.5));
            double num = 0, den = 0;
            for (int a = 0; a < K; a++) {
                double back = 0;
                for (int b = a / 128 * 128; b < a / 128 * 128 + 128; b++)
                    back += zq[b] * (__builtin_popcount((unsigned)(a & b & 127)) & 1 ? -1 : 1) / sqrt(128);
                num += (back - (double)eff[r * K + a]) * (back - (double)eff[r * K + a]);
                den += back * back;
            }
            worst = fmax(worst, sqrt(num / den));
        }
        CHECK(worst < (DOUBLE ? 1e-12 : 1e-5), "QuEST, %g bits: off by %.3g from its definition", bits, worst);
        hadamard(w, K, 128), memcpy(eff, w, sizeof(real) * K), hadamard(w, K, 128), hadamard(w, K, 128);
        worst = 0;
        for (int k = 0; k < K; k++) worst = fmax(worst, fabs((double)(w[k] - eff[k])));
        CHECK(worst < 1e-5, "Hadamard is not its own inverse");
    }
    const Config on = config_of(""), off = config_of("wq=quest hadamard=0");
    CHECK(hadamard_block(&on, 384) == 128 && hadamard_block(&on, 96) == 32 && hadamard_block(&on, 5) == 1 &&
              hadamard_block(&on, 1024) == 128 && hadamard_block(&off, 96) == 1, "blocks");
}

/* Scales per row and per group, binary codes, masks: by their formulas. */
static void test_bitnet_options(void) {
    enum { ROWS = 3, K = 300 };
    const char *arms[] = {"wscale=row", "wscale=group", "wq=binary", "wq=binary wscale=row",
                          "wq=binary wscale=group", "ste=clip", "ste=trust wscale=row", "wq=int4 ste=clip"};
    const real *w = reals(ROWS * K, 60);
    double mean = 0;
    for (int i = 0; i < ROWS * K; i++) mean += (double)w[i] / (ROWS * K);
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        const Config c = config_of(arms[a]);
        Tensor t = {.name = "wo", .role = PROJ, .rows = ROWS, .cols = K, .stored_cols = K,
                    .copy_n = ROWS * K};
        int8_t code[ROWS * K];
        uint8_t mask[ROWS * K];
        real scale[ROWS * 3], eff[ROWS * K];
        choose_quantizer(&t, &c);
        t.copy_scales = t.quant->scales(&t);
        const int binary = c.wq == WQ_BINARY, ints = c.wq == WQ_INT4;
        const int per = c.wscale == SCALE_GROUP ? 128 : c.wscale == SCALE_ROW || ints ? K : ROWS * K;
        CHECK(t.copy_scales == (size_t)(per == 128 ? 9 : per == K ? 3 : 1), "%s: %zu scales", arms[a],
              t.copy_scales);
        t.quant->quantize(code, scale, mask, w, &t), t.quant->dequantize(eff, code, scale, &t);
        int good = 1;
        for (int i = 0; i < ROWS * K; i++) {
            const int first = per == ROWS * K ? 0 : per == K ? i / K * K : i / K * K + i % K / 128 * 128;
            const int last = MIN(first + per, per == ROWS * K ? ROWS * K : i / K * K + K);
            double sum = 0, most = 0;
            for (int k = first; k < last; k++) sum += fabs((double)w[k]), most = fmax(most, fabs((double)w[k]));
            const double s = ints ? most / 7 : sum / (last - first), x = (double)w[i];
            const double want = binary ? (x > mean ? s : -s) : s * fmax(-(ints ? 7 : 1), fmin(ints ? 7 : 1, rint(x / s)));
            const double edge = ints ? 7 * s : s, inside = t.ste == STE_CLIP ? edge : 1.5 * edge;
            good &= near((double)eff[i], want, fabs(want) / 200 + (fabs(fabs(x / s) - floor(fabs(x / s)) - 0.5) < 0.01 ? s : 0));
            if (t.ste && fabs(fabs(x) - inside) > 0.01 * inside) good &= mask[i] == (fabs(x) <= inside);
        }
        CHECK(good, "%s: a weight is not what its formula says", arms[a]);
    }
}

/* What the gradient passes, by its definition: dw where the mask is 1, for QuEST between two rotations
 * by H[i][j] = (-1)^(ones in i & j) / sqrt(size). (Frozen forward passes use the same function, so
 * that finite differences alone would not see it forget the mask.) */
static void test_masked_gradients(void) {
    enum { ROWS = 3, K = 96 };
    const char *arms[] = {"ste=clip", "ste=trust wscale=row", "wq=int4 ste=clip", "wq=quest", "wq=quest hadamard=0"};
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        const Config c = config_of(arms[a]);
        Tensor t = {.name = "wo", .role = PROJ, .rows = ROWS, .cols = K, .stored_cols = K, .copy_n = ROWS * K};
        uint8_t mask[ROWS * K];
        real *d = reals(ROWS * K, 70);
        double want[ROWS * K], worst = 0;
        choose_quantizer(&t, &c);
        const int b = !strcmp(arms[a], "wq=quest") ? 32 : 1;
        for (int i = 0; i < ROWS * K; i++) mask[i] = hash64(71, (uint64_t)i) % 4 > 0, want[i] = (double)d[i];
        for (int pass = 0; pass < 2; pass++) {
            for (int from = 0; from < ROWS * K; from += b) {
                double y[32] = {0};
                for (int i = 0; i < b; i++)
                    for (int j = 0; j < b; j++)
                        y[i] += want[from + j] * (__builtin_parity((unsigned)(i & j)) ? -1 : 1) / sqrt(b);
                memcpy(want + from, y, (size_t)b * sizeof(double));
            }
            for (int i = 0; i < ROWS * K && !pass; i++) want[i] *= mask[i];
        }
        t.quant->backward(d, mask, &t);
        for (int i = 0; i < ROWS * K; i++) worst = fmax(worst, fabs((double)d[i] - want[i]));
        CHECK(worst < 1e-5, "%s: off by %g", arms[a], worst);
    }
}

/* ClusComp: fewer misses than at the start, one value per entry, bits per index. */
static void test_codebooks(void) {
    const char *arms[] = {"cluster=4,50,each", "cluster=2,20,shared unique=2"};
    for (int a = 0; a < 2; a++) {
        char text[200];
        Golf m, fp;
        snprintf(text, sizeof text, "vocab=50 width=32 heads=2 seq=16 repeat=1 %s", arms[a]);
        new_model(&m, text, 0);
        snprintf(text, sizeof text, "vocab=50 width=32 heads=2 seq=16 repeat=1 wq=none %s", a ? "unique=2" : "");
        new_model(&fp, text, 0);
        double miss = 0, power = 0;
        size_t bits = 0;
        for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++) {
            if (t->role != PROJ || !t->n) continue;
            for (size_t i = t->at; i < t->at + t->n; i++) {
                const double d = (double)(m.eff[i] - fp.w[fp.t[t - m.t].at + i - t->at]);
                miss += d * d, power += (double)fp.w[fp.t[t - m.t].at + i - t->at] * (double)fp.w[fp.t[t - m.t].at + i - t->at];
            }
            bits = (size_t)t->bits;
            CHECK(t->copy_bytes == 2 * t->copy_scales + (VECTORS(t) * bits + 7) / 8, "%s", t->name);
            CHECK(t->copy_scales == (a && t != m.t + T_wqkv ? 0 : a ? 40 : 200), "%s: codebook", t->name);
        }
        /* of 4 or 2 Gaussian numbers, 50 or 20 entries leave about 0.37 and 0.1 of the power */
        CHECK(bits == (a ? 5 : 6) && miss / power < (a ? 0.16 : 0.5), "%s: misses %.3f of the power",
              arms[a], miss / power);
        golf_free(&m), golf_free(&fp);
    }
}

/* The range coder: within 1 % of the order-0 entropy, and back. */
static double entropy_bytes(const int *count, int symbols, double n) {
    double bits = 0;
    for (int s = 0; s < symbols; s++) if (count[s]) bits -= count[s] * log2(count[s] / n);
    return bits / 8;
}
static void test_coder(void) {
    const struct { const char *text; int tensor, rows, cols; } rows[] = {
        {"wq=ternary", T_wo, 300, 400}, {"embed_bits=8", T_embed, 3000, 64},
        {"embed_bits=4", T_embed, 4096, 96}, {"wq=int4", T_wo, 200, 200}, {"wq=quest wbits=3", T_wo, 128, 512},
        {"wq=binary", T_wo, 256, 256}, {"wq=ternary", T_wo, 1100, 1000} /* two streams */};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const Config c = config_of(rows[i].text);
        const size_t n = (size_t)rows[i].rows * (size_t)rows[i].cols;
        Golf m = {.c = c};
        Tensor *t = m.t + rows[i].tensor;
        *t = (Tensor){.name = "wo", .role = rows[i].tensor == T_embed ? EMBED : PROJ, .rows = rows[i].rows,
                      .cols = rows[i].cols, .stored_cols = rows[i].cols, .copy_n = n, .n = n, .stored_copies = 1};
        choose_quantizer(t, &c);
        t->copy_scales = t->quant->scales(t), t->bytes = t->copy_bytes = t->quant->bytes(t);
        m.code = (int8_t *)reals(n, 0), m.scale = reals(t->copy_scales, 0);
        real *w = reals(n, 0);
        for (size_t k = 0; k < n; k++) w[k] = (real)normal01(90, k);
        t->quant->quantize(m.code, m.scale, (uint8_t *)reals(n, 0), w, t);
        int count[256] = {0};
        int8_t *was = memcpy(reals(n, 0), m.code, n);
        real *steps = memcpy(reals(t->copy_scales, 0), m.scale, t->copy_scales * sizeof(real));
        for (size_t k = 0; k < n; k++) count[(uint8_t)m.code[k]]++;
        uint8_t *buf = (uint8_t *)reals(t->bytes, 0);
        const size_t bytes = coded_tensor(&m, t, buf, t->bytes, 0);
        const double codes = entropy_bytes(count, 256, (double)n), most = 1.01 * codes + 2.0 * (double)t->copy_scales + 8;
        printf("coder, %s: %zu bytes, packed %zu, order-0 entropy %.0f\n", rows[i].text, bytes, t->bytes, codes);
        CHECK(c.wq == WQ_BINARY || (bytes && (double)bytes <= most), "%s: %zu bytes, entropy %.0f", rows[i].text, bytes, codes);
        if (!bytes) continue; /* no shorter than packed: 1 bit of 1 */
        memset(m.code, 0, n), memset(m.scale, 0, t->copy_scales * sizeof(real));
        CHECK(coded_tensor(&m, t, buf, bytes, 1) == bytes && !memcmp(m.code, was, n) &&
                  !memcmp(m.scale, steps, t->copy_scales * sizeof(real)), "%s: not what was coded", rows[i].text);
        CHECK(!coded_tensor(&m, t, buf, bytes - 1, 1), "%s: a byte less was accepted", rows[i].text);
    }
    Golf m; /* indices of a codebook */
    new_model(&m, "vocab=20 width=192 heads=2 seq=8 mlp=4 cluster=4,60,each", 0);
    cluster_fit(&m), golf_quantize(&m);
    const Tensor *t = m.t + T_wup;
    int count[60] = {0};
    for (size_t v = 0; v < VECTORS(t); v++) count[index_of(m.code + t->at, t, v)]++;
    uint8_t *buf = (uint8_t *)reals(t->bytes, 0);
    const size_t bytes = coded_tensor(&m, t, buf, t->bytes, 0);
    const double codes = entropy_bytes(count, 60, (double)VECTORS(t));
    printf("coder, codebook: %zu bytes with %zu of entries, packed %zu, order-0 entropy of the indices %.0f\n", bytes,
           2 * t->copy_scales, t->bytes, codes);
    CHECK(bytes && (double)bytes <= 1.01 * codes + 2.0 * (double)t->copy_scales + 8, "codebook: %zu bytes", bytes);
    golf_free(&m);
}

/* --qat_ramp: when each matrix sets in. */
static void test_ramp(void) {
    Golf m;
    new_model(&m, "vocab=20 width=8 heads=2 seq=8 steps=100 qat_ramp=0.4", 0);
    m.step = 10;
    CHECK(near((double)lambda_of(&m, T_wo), 0.25, 1e-6) && lambda_of(&m, T_embed) == 1, "together");
    m.c.qat_order = 1;
    const real up = lambda_of(&m, T_wup), down = lambda_of(&m, T_wdown);
    m.step = 15;
    CHECK(up == 1 && down == 0 && near((double)lambda_of(&m, T_wdown), 0.5, 1e-6) && lambda_of(&m, T_wqkv) == 0,
          "each: up %g, down %g", (double)up, (double)down);
    m.step = 40;
    CHECK(lambda_of(&m, T_wqkv) == 1, "each: q, k, v at the end");
    m.c.qat = 0;
    CHECK(lambda_of(&m, T_wo) == 0 && lambda_of(&m, T_embed) == 0, "qat=0");
    golf_free(&m);
}

/* What test_golf.c adds to its lists: models for the gradient test and for the test of files, tests. */
#define SYSTEM_ARMS \
    "protect=wdown:8:30%,wqkv:4:20%", "wscale=row extra_norm=each", "wscale=group unique=2 repeat=1", "wq=binary", \
    "wq=binary wscale=row", "ste=clip", "ste=trust wscale=row", "wq=int4", "wq=int8 aq=none ste=clip", \
    "aq=int4", "wq=quest", "wq=quest wbits=1 unique=2", "wq=quest wbits=1.585 repeat=3", "wq=quest wbits=8", \
    "wq=quest wbits=3 aq=quest abits=3", "wq=quest aq=quest hadamard=0 ste=clip", "wq=quest aq=quest ste=identity", \
    "wq=quest wbits=1 aq=quest abits=1 repeat=3", "aq=quest abits=1.585 extra_norm=each unique=2", \
    "wq=none aq=quest abits=4 extra_norm=none", "cluster=2,9,each", "cluster=4,7,shared unique=2 repeat=2", \
    "cluster=4,5,each protect=wo:8", "ffn_hi=5", "ffn_hi=6 hi_experts=2 repeat=3", \
    "ffn_hi=5 hi_experts=3 hi_route=token unique=2", "ffn_hi=4 ffn_hi_bits=16 aq=none wq=binary", \
    "ffn_hi=6 hi_experts=2 hi_route=token extra_norm=each", "ffn_hi=4 aq=quest abits=1", "wq=none ste=clip", "protect=wo:16 ste=clip",
#define SYSTEM_FILES \
    "protect=wdown:8:10%", "protect=wqkv:4:50%,wup:6:1% unique=2", "wscale=row", "wscale=group", "wq=binary", \
    "wq=binary wscale=group", "wq=int4 aq=int4", "wq=int8 unique=2", "wq=quest wbits=1", "wq=quest wbits=1.585", \
    "wq=quest wbits=2 aq=quest", "wq=quest wbits=4 aq=quest abits=8", "wq=quest wbits=8", \
    "cluster=4,30,each unique=2", "cluster=2,300,shared", "ffn_hi=8", \
    "ffn_hi=8 hi_experts=3 hi_route=token ffn_hi_bits=4",
#define SYSTEM_TESTS \
    {"quantizers: quest", test_quest}, {"quantizers: bitnet", test_bitnet_options}, \
    {"quantizers: masks", test_masked_gradients}, \
    {"quantizers: codebook", test_codebooks}, {"ramp", test_ramp}, {"coder", test_coder},
static int protects(const char *arm) { /* has it bytes that the ledger calls protected? */
    static const char *const with[] = {"protect", "ffn_hi", "lora", "fips", "experts"};
    for (size_t i = 0; i < sizeof with / sizeof *with; i++) if (strstr(arm, with[i])) return 1;
    return 0;
}
