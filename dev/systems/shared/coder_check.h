/* coder_check.h - for the tests of systems with codes of their own: what a file makes of
 * them, packed and through the range coder. */
#ifndef GOLF_CODER_CHECK_H
#define GOLF_CODER_CHECK_H

/* Bytes of n symbols whose frequencies are known. */
static double entropy_bytes(const int *count, int symbols, double n) {
    double bits = 0;
    for (int s = 0; s < symbols; s++)
        if (count[s]) bits -= count[s] * log2(count[s] / n);
    return bits / 8;
}

/* Codes and scales of one matrix: what a file has to keep. */
typedef struct {
    Golf m; /* nothing but code and scale */
    Tensor t;
    int8_t *codes; /* copies of these */
    real *steps;
} Coded;

/* Gaussian numbers in codes. */
static Coded coded_matrix(const char *text, int rows, int cols) {
    Coded k = {.t = tensor_of(text, "wo", rows, cols)};
    const size_t n = k.t.copy_n, scales = k.t.copy_scales;
    k.t.at = 0; /* it is alone */
    k.t.at_scale = 0;
    k.m.code = xcalloc(n, 1);
    k.m.scale = reals(scales, 0);
    k.t.quant->quantize(k.m.code, k.m.scale, k.t.passes ? xcalloc(n, 1) : NULL,
                        reals(n, 90), &k.t);
    k.codes = memcpy(xcalloc(n, 1), k.m.code, n);
    k.steps = memcpy(reals(scales, 0), k.m.scale, scales * sizeof(real));
    return k;
}

static void coded_forget(Coded *k) {
    memset(k->m.code, 0, k->t.copy_n);
    memset(k->m.scale, 0, k->t.copy_scales * sizeof(real));
}

static int coded_as_before(const Coded *k) {
    return !memcmp(k->m.code, k->codes, k->t.copy_n) &&
           !memcmp(k->m.scale, k->steps, k->t.copy_scales * sizeof(real));
}

/* Packed: so many bytes, and back without loss. */
static __attribute__((unused)) void check_packed(const char *text, int rows, int cols,
                                                 size_t bytes) {
    Coded k = coded_matrix(text, rows, cols);
    uint8_t *buf = xcalloc(k.t.bytes, 1);
    CHECK(k.t.bytes == bytes, "%s: packed in %zu bytes, not %zu", text, k.t.bytes, bytes);
    k.t.quant->pack(buf, k.m.code, k.m.scale, &k.t);
    coded_forget(&k);
    CHECK(k.t.quant->unpack(k.m.code, k.m.scale, buf, &k.t) && coded_as_before(&k),
          "%s: not what was packed", text);
}

/* Coded: within 1 % of the entropy, and back without loss. Where that is no shorter than
 * packed (even: all codes are equally frequent), it is not coded. */
static __attribute__((unused)) void check_coder(const char *text, int rows, int cols,
                                                int even) {
    Coded k = coded_matrix(text, rows, cols);
    const size_t n = k.t.copy_n;
    int count[256] = {0};
    for (size_t i = 0; i < n; i++) count[(uint8_t)k.codes[i]]++;
    const double entropy = entropy_bytes(count, 256, (double)n);
    uint8_t *buf = xcalloc(k.t.bytes, 1);
    const size_t bytes = write_coded(&k.m, &k.t, buf, k.t.bytes);
    printf("coder, %s: %zu bytes, packed %zu, entropy of order 0 %.0f\n", text, bytes,
           k.t.bytes, entropy);
    CHECK(even == !bytes, "%s: %zu bytes, packed %zu", text, bytes, k.t.bytes);
    if (!bytes) return;

    CHECK((double)bytes <= 1.01 * entropy + 2.0 * (double)k.t.copy_scales + 8,
          "%s: %zu bytes, entropy %.0f", text, bytes, entropy);
    coded_forget(&k);
    CHECK(read_coded(&k.m, &k.t, buf, bytes) && coded_as_before(&k),
          "%s: not what was coded", text);
    CHECK(!read_coded(&k.m, &k.t, buf, bytes - 1), "%s: a byte less was accepted", text);
}

#endif
