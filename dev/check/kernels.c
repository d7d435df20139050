/* kernels.c - what is fast against what is plain: numbers and their bits, products of
 * matrices, exp, the range coder. */
#include "check.h"

/* ------------------------------------------------------------------------------------
 * Numbers */
static void test_bits(void) {
    CHECK(crc32_of(0, "123456789", 9) == 0xCBF43926u && crc32_of(0, "", 0) == 0,
          "CRC-32");
    CHECK(crc32_of(crc32_of(0, "1234", 4), "56789", 5) == 0xCBF43926u,
          "CRC-32 in two parts");
    uint8_t raw[8];
    put_u(raw, 0x0123456789ABCDEFu, 8);
    CHECK(raw[0] == 0xEF && raw[7] == 1 && get_u(raw, 8) == 0x0123456789ABCDEFu,
          "little-endian");
}

/* bf16 keeps 8 bits: 1 + 1/256 and 1 + 3/256 are ties, to the even neighbour. */
static void test_bf16(void) {
    CHECK(to_bf16(1 + (real)0x1p-8) == 0x3F80 && to_bf16(1 + 3 * (real)0x1p-8) == 0x3F82,
          "ties");
    CHECK(to_bf16(1 + (real)0x1.02p-8) == 0x3F81 &&
              to_bf16(-1 - (real)0x1.02p-8) == 0xBF81,
          "up");
    CHECK(to_bf16((real)INFINITY) == 0x7F80 && to_bf16((real)3.4e38) == 0x7F80,
          "infinity");
    CHECK(isnan(from_bf16(to_bf16((real)NAN))), "NaN stays NaN");

    int same = 1;
    for (unsigned b = 0; b < 65536; b++) {
        const real x = from_bf16((uint16_t)b);
        if (isnan(x)) same &= isnan(from_bf16(to_bf16(x)));
        else same &= to_bf16(x) == b;
    }
    CHECK(same, "all 65,536 bf16 numbers survive");
}

static void test_randomness(void) {
    enum { DRAWS = 100000 };
    /* hash64(s, i) is output i+1 of splitmix64 seeded with s; these two are published */
    CHECK(hash64(1234567, 0) == 6457827717110365317u &&
              hash64(1234567, 1) == 3203168211198807973u,
          "splitmix64");

    double u1 = 0, u2 = 0, z1 = 0, z2 = 0, lo = 1, hi = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        const double u = uniform01(5, i), z = normal01(6, i);
        u1 += u / DRAWS;
        u2 += u * u / DRAWS;
        z1 += z / DRAWS;
        z2 += z * z / DRAWS;
        lo = fmin(lo, u);
        hi = fmax(hi, u);
    }
    /* standard deviations of these four means: 0.0009, 0.0009, 0.003, 0.0045 */
    CHECK(near(u1, 0.5, 0.005) && near(u2, 1.0 / 3, 0.005) && lo > 0 && hi < 1,
          "uniform %g", u1);
    CHECK(near(z1, 0, 0.015) && near(z2, 1, 0.02), "normal %g %g", z1, z2);
}

static real softcap(real z) { return SOFTCAP - softcap_gap(z); }

static void test_exp(void) {
    double worst = 0, worst_cap = 0;
    for (double x = -87; x <= 88; x += 0.0137)
        worst = worse(worst, fabs((double)fast_exp((real)x) / exp((double)(real)x) - 1));
    CHECK(worst <= (DOUBLE ? 1e-15 : 3e-7), "fast_exp: relative error %.3g", worst);
    CHECK(fast_exp(0) == 1 && fast_exp(-1000) >= 0 && (double)fast_exp(-1000) < 2e-38,
          "ends");

    for (double z = -300; z <= 300; z += 0.0731) {
        const double want = 30 * tanh((double)(real)z / 30);
        worst_cap = worse(worst_cap, fabs((double)softcap((real)z) - want));
    }
    CHECK(worst_cap <= (DOUBLE ? 1e-13 : 1e-5), "softcap: error %.3g", worst_cap);
    CHECK(softcap(0) == 0 && near((double)softcap((real)1e30), 30, 1e-5) &&
              near((double)softcap((real)-1e30), -30, 1e-5),
          "softcap ends");
}

/* How far y is from the exact value, of which libm's is a unit of 2^-53 or two. */
static double units(double y, double libm) {
    return fabs(y - libm) / fmax(fabs(libm), 1e-300) * 0x1p53;
}

static void test_functions(void) {
    double worst[5] = {0};
    for (uint64_t i = 0; i < 200000; i++) {
        const double u = uniform01(31, i), v = uniform01(32, i);
        const double x = i % 2 ? 1400 * u - 700 : 4 * u - 2;
        const double angle = i % 2 ? 14 * u - 7 : 1e6 * (2 * u - 1);
        const double any = i % 2 ? 3 * u : ldexp(0.5 + u / 2, (int)(2090 * v) - 1070);
        worst[0] = worse(worst[0], units(exp_of(x), exp(x)));
        worst[1] = worse(worst[1], units(log_of(any), log(any)));
        worst[2] = worse(worst[2], units(sin_of(angle), sin(angle)));
        worst[3] = worse(worst[3], units(cos_of(angle), cos(angle)));
        worst[4] = worse(worst[4], units(pow_of(2 * u, 100 * v), pow(2 * u, 100 * v)) /
                                       (2 + fabs(100 * v * log(2 * u))));
    }
    printf(
        "functions, units of 2^-53 from libm: exp %.2f, log %.2f, sin %.2f, cos %.2f\n",
        worst[0], worst[1], worst[2], worst[3]);
    CHECK(worst[0] <= 3 && worst[1] <= 3, "exp or log are wrong by more than 3 units");
    CHECK(worst[2] <= 4 && worst[3] <= 4, "sin or cos are wrong by more than 4 units");
    CHECK(worst[4] <= 4, "x^y is wrong by %g units", worst[4]);

    CHECK(exp_of(0) == 1 && exp_of(-800) == 0 && isinf(exp_of(800)), "ends of exp");
    CHECK(isnan(exp_of((double)NAN)) && isnan(log_of((double)NAN)), "NaN stays");
    CHECK(exp_of(-(double)INFINITY) == 0 && isinf(exp_of((double)INFINITY)), "infinite");
    CHECK(log_of(1) == 0 && log_of(0) == -(double)INFINITY && isnan(log_of(-1)),
          "ends of log");
    CHECK(isinf(log_of((double)INFINITY)), "log of infinity");
    CHECK(cos_of(0) == 1 && sin_of(0) == 0 && pow_of(2, 10) == 1024 && pow_of(0, 2) == 0,
          "exact results");
}

/* A float at random: of any size or, for sums that nearly cancel, near 1. */
MAYBE float any_float(uint64_t key, uint64_t i) {
    const uint64_t bits = hash64(key, i);
    const float x = (float)(int32_t)(bits >> 40) * 0x1p-20f;
    return ldexpf(bits & 1 ? x : -x, (int)(bits >> 1 & 63) - (bits & 128 ? 150 : 32));
}

/* Multiply-adds are rounded once: with an instruction for it or from doubles, one by one or
 * in vectors, as libm's fmaf. */
static void test_fused(void) {
    check_rounding();
#ifndef GOLF_DOUBLE
    long wrong = 0;
    for (uint64_t i = 0; i < 400000; i++) {
        /* of every four: any, a sum that cancels, a product half a unit from a float */
        const float half = 1 + (float)(2 * (i % 500) + 1) * 0x1p-12f;
        const float a = i % 4 < 3 ? any_float(41, i) : half;
        const float b = i % 4 < 3 ? any_float(42, i) : 1 + 0x1p-12f;
        const float c = i % 4 == 1 ? -a * b + any_float(43, i) * 0x1p-30f
                                   : any_float(44, i) * (i % 4 < 3 ? 1 : 0x1p-40f);
        const vec one = (vec){0} + 1;
        const Bits want = {.f = fmaf(a, b, c)};
        const float got[] = {
            fused(a, b, c), fused_by_doubles(a, b, c),
            fused_lanes(one * a, one * b, one * c)[i % LANES],
            fused_lanes_by_doubles(one * a, one * b, one * c)[i % LANES]};
        for (int k = 0; k < 4; k++) wrong += (Bits){.f = got[k]}.u != want.u;
    }
    CHECK(wrong == 0, "%ld multiply-adds are not rounded once", wrong);
    /* Just above, at and just below half a unit: an odd last bit decides. */
    CHECK(fused_by_doubles(1 + 0x1p-12f, 1 + 0x1p-12f, 0x1p-60f) ==
              1 + 0x1p-11f + 0x1p-23f,
          "just above half a unit");
    CHECK(fused_by_doubles(1 + 0x1p-12f, 1 + 0x1p-12f, -0x1p-60f) == 1 + 0x1p-11f,
          "just below half a unit");
    CHECK(isinf(fused_by_doubles(FLT_MAX, FLT_MAX, 1)), "infinity");
    CHECK(isnan(fused_by_doubles((float)INFINITY, 0, 1)), "NaN");
#endif
}

/* The order of sums is written here once more, lane by lane: it is part of what every machine
 * computes. */
static real sum_by_hand(const real *x, const real *y, int K) {
    real lane[16] = {0};
    for (int i = 0; i < K; i++) lane[i % 16] += x[i] * y[i];
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[half + i];
    return lane[0];
}

/* A row of c = a b: blocks of 256 terms, each a chain of multiply-adds. */
static real product_by_hand(const real *a, const real *b, int k) {
    real sum = 0;
    for (int block = 0; block < k; block += 256) {
        real chain = 0;
        for (int i = block; i < MIN(k, block + 256); i++)
            chain = fused(a[i], b[i], chain);
        sum = block ? chain + sum : chain;
    }
    return sum;
}

static void test_order(void) {
    enum { MOST = 700, N = 45 };
    const real *x = reals(MOST, 51), *y = reals(MOST * N, 52);
    for (int K = 1; K <= MOST; K += K < 70 ? 1 : 63) {
        real got[N], want[N];
        CHECK(inner(x, y, K) == sum_by_hand(x, y, K), "inner, %d numbers", K);
        gemm(got, N, mat(x, MOST), mat_t(y, MOST), 1, N, K, 0);
        for (int j = 0; j < N; j++) want[j] = product_by_hand(x, y + j * MOST, K);
        CHECK(!memcmp(got, want, sizeof got), "gemm, %d terms", K);
    }
    double lane[16] = {0};
    for (int i = 0; i < MOST - 3; i++) lane[i % 16] += (double)x[i] * (double)x[i];
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[half + i];
    CHECK(sum_of_sizes(x, MOST - 3, 1) == lane[0], "sum of squares");
}

/* Short trainings have the recorded bits, in any build. */
static void test_selftest(void) {
    if (!DOUBLE) CHECK(selftest_main() == 0, "see above");
}

/* ------------------------------------------------------------------------------------
 * Products against their definitions, in memory of exactly the right size */
static const int sizes[] = {1,  2,  3,  4,  5,  7,  8,  9,  13, 14,  15,  16,  17,
                            28, 29, 31, 32, 33, 47, 63, 64, 65, 100, 257, 300, 530};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Not rounded up, so that ASan sees the end. */
static void *exactly(size_t n, size_t size) {
    void *p = malloc(n * size);
    if (!p) die("out of memory");
    return p;
}

static void fill(real *x, size_t n) { /* -1 .. 1 */
    for (size_t i = 0; i < n; i++) x[i] = (real)(dice(20001) - 10000) / 10000;
}

static void fill_steps(real *x, int n) {
    for (int i = 0; i < n; i++) x[i] = (real)(1 + dice(100)) / 6000;
}

/* A random operand with elements (i,j), i < r, j < c. */
static Mat operand(int r, int c, int trans, int codes) {
    Mat v = {.trans = trans};
    const int rows = trans ? c : r;
    const int cols = trans ? r : c;

    v.ld = (size_t)cols + (size_t)dice(3) * 5;
    const size_t len = ((size_t)rows - 1) * v.ld + (size_t)cols;
    if (codes) {
        int8_t *q = exactly(len, 1);
        real *row_step = exactly((size_t)rows, sizeof(real));
        for (size_t i = 0; i < len; i++) q[i] = (int8_t)(dice(255) - 127);
        fill_steps(row_step, rows);
        v.q = q;
        v.row_step = row_step;
    } else {
        real *f = exactly(len, sizeof(real));
        fill(f, len);
        v.f = f;
    }
    return v;
}

static void operand_free(Mat v) {
    free((void *)v.f);
    free((void *)v.q);
    free((void *)v.row_step);
}

/* c(m,n) = or += a b, in rows ldc apart: what was there, and the results. */
typedef struct {
    Mat a, b;
    int m, n, k, acc;
    size_t ldc, len;
    real *before, *serial, *other, *naive;
} Twins;

/* Terms are at most 1 in size; between the rows nothing is written. */
static int close_enough(const Twins *p) {
    int good = 1;
    for (size_t i = 0; i < p->len; i++) {
        const double tolerance = (DOUBLE ? 1e-15 : 4e-7) * (p->k + 1);
        if (i % p->ldc < (size_t)p->n)
            good &= near((double)p->serial[i], (double)p->naive[i], tolerance);
        else good &= p->serial[i] == p->before[i];
    }
    return good;
}

/* Any part computed alone has the bits that it has in the whole. */
static int parts_same(const Twins *p) {
    int same = 1;
    for (int z = 0; z < 4; z++) {
        const int i = dice(p->m), j = dice(p->n);
        const int rows = z & 1 ? 1 : 1 + dice(p->m - i);
        const int cols = z & 2 ? 1 : 1 + dice(p->n - j);
        const size_t at = (size_t)i * p->ldc + (size_t)j;
        memcpy(p->other, p->before, p->len * sizeof(real));
        gemm(p->other + at, p->ldc, mat_at(p->a, (size_t)i, 0),
             mat_at(p->b, 0, (size_t)j), rows, cols, p->k, p->acc);
        for (size_t r = at; r < at + (size_t)rows * p->ldc; r += p->ldc)
            same &= !memcmp(p->other + r, p->serial + r, (size_t)cols * sizeof(real));
    }
    return same;
}

/* b packed once for all gives the same bits; packed again it uses the same memory. */
static int panels_same(const Twins *p) {
    Panels panels = {0};
    for (int i = 0; i < 2; i++) panels_pack(&panels, p->b, p->k, p->n);
    memcpy(p->other, p->before, p->len * sizeof(real));
    gemm_panels(p->other, p->ldc, p->a, &panels, p->m, p->acc);
    free(panels.panel);
    return !memcmp(p->other, p->serial, p->len * sizeof(real));
}

/* kind: bits for a transposed, b transposed, codes in a, codes in b. */
static void check_gemm(int m, int n, int k, int kind, int acc) {
    Twins p = {.m = m, .n = n, .k = k, .acc = acc};
    p.a = operand(m, k, kind & 1, kind >> 2 & 1);
    p.b = operand(k, n, kind >> 1 & 1, kind >> 3);
    p.ldc = (size_t)n + (size_t)dice(2) * 7;
    p.len = ((size_t)m - 1) * p.ldc + (size_t)n;
    real **c[] = {&p.before, &p.serial, &p.other, &p.naive};
    for (int j = 0; j < 4; j++) {
        *c[j] = exactly(p.len, sizeof(real));
        if (j == 0) fill(p.before, p.len);
        else memcpy(*c[j], p.before, p.len * sizeof(real));
    }
    gemm_serial(p.serial, p.ldc, p.a, p.b, NULL, m, n, k, acc);
    gemm(p.other, p.ldc, p.a, p.b, m, n, k, acc);
    gemm_naive(p.naive, p.ldc, p.a, p.b, m, n, k, acc);
    CHECK(close_enough(&p), "gemm %d %d %d kind %d acc %d: wrong values", m, n, k, kind,
          acc);
    CHECK(!memcmp(p.serial, p.other, p.len * sizeof(real)) && parts_same(&p) &&
              panels_same(&p),
          "gemm %d %d %d kind %d: bits depend on what else is computed", m, n, k, kind);
    operand_free(p.a);
    operand_free(p.b);
    for (int j = 0; j < 4; j++) free(*c[j]);
}

static void test_gemm(void) {
    for (int z = 0; z < 256; z++)
        check_gemm(sizes[dice(SIZES - 4)], sizes[dice(SIZES - 4)], sizes[dice(SIZES)],
                   z & 15, z >> 4 & 1);
    check_gemm(70, 1100, 260, 2, 1);
    check_gemm(300, 33, 530, 1, 1);
}

/* Relative L2 error against sums in double. */
static void check_precision(int k) {
    enum { M = 30, N = 70 };
    const Mat a = operand(M, k, 0, 0), b = operand(k, N, 0, 0);
    real c[M * N];
    double num = 0, den = 0;

    gemm(c, N, a, b, M, N, k, 0);
    for (int i = 0; i < M * N; i++) {
        double sum = 0;
        for (int p = 0; p < k; p++)
            sum += (double)mat_get(a, (size_t)(i / N), (size_t)p) *
                   (double)mat_get(b, (size_t)p, (size_t)(i % N));
        num += (sum - (double)c[i]) * (sum - (double)c[i]);
        den += sum * sum;
    }
    CHECK(sqrt(num / den) <= (DOUBLE ? 1e-14 : 1e-6), "gemm, k %d: error %.3g", k,
          sqrt(num / den));
    operand_free(a);
    operand_free(b);
}

static void test_precision(void) {
    for (int k = 64; k <= 4096; k *= 4) check_precision(k);
}

/* Muon's operand on many threads is what round_rows makes of one long row; NaN is not lost. */
static void test_operand_of_muon(void) {
    enum { ROWS = 301, K = 90, N = ROWS * K };
    Orthogonal o = orthogonal_new(ROWS, K, 1);
    int16_t *want = xcalloc(N + LANES, sizeof *want);
    real step;
    for (int at = N - 1; at >= 0; at -= N / 5) {
        for (int i = 0; i < N; i++) o.x[i] = noise(3, (size_t)i);
        o.x[at] = 40; /* the largest */
        for (int t = 1; t <= 3; t++) {
            threads(t);
            const Mat a = orthogonal_operand(&o, o.x, ROWS, 0);
            round_rows(want, &step, o.x, 0, 1, N, plain_12.a);
            CHECK(a.step == step && !memcmp(a.h, want, N * sizeof *want),
                  "the largest at %d, %d threads", at, t);
        }
        o.x[at] = (real)NAN;
        CHECK(isnan(orthogonal_operand(&o, o.x, ROWS, 0).step), "NaN at %d", at);
    }
    threads(1);
    free(want);
}

/* Cutting a product into tasks ends, at one tile, and loses nothing; several products
 * in one loop are what they are one by one. */
static void test_tasks(void) {
    enum { M = 50, N = 90, K = 70 };
    for (int m = 1; m < 40; m++)
        for (int n = 1; n < 40; n++) {
            int mb, nb;
            const int tasks = cut(&(Gemm){.m = m, .n = n, .k = 9}, 1, &mb, &nb);
            CHECK(mb > 0 && nb > 0 && mb <= MR && nb <= NR &&
                      tasks == CEIL(m, mb) * CEIL(n, nb),
                  "cut %d %d: %d tasks of %d %d", m, n, tasks, mb, nb);
        }

    const Mat a = operand(M, K, 0, 0), b = operand(K, N, 1, 0), at = operand(N, M, 1, 1);
    static real c[4][N * K];
    const Gemm both[] = {{c[0], N, a, b, M, N, K, 0, NULL},
                         {c[1], K, at, a, N, K, M, 0, NULL}};
    for (int t = 1; t <= 3; t++) {
        threads(t);
        gemm_all(both, 2);
        gemm_serial(c[2], N, a, b, NULL, M, N, K, 0);
        gemm_serial(c[3], K, at, a, NULL, N, K, M, 0);
        CHECK(!memcmp(c[0], c[2], M * N * sizeof(real)) && !memcmp(c[1], c[3], sizeof *c),
              "two products at once, %d threads", t);
    }
    threads(1);
    operand_free(a);
    operand_free(b);
    operand_free(at);
}

/* y = x codes^T for n tokens, m outputs, k inputs: exact. */
static void check_gemm_int(int n, int m, int k, int extreme) {
    int8_t *x = exactly((size_t)n * (size_t)k, 1);
    int8_t *codes = exactly((size_t)m * (size_t)k, 1);
    const size_t ldy = (size_t)m + (size_t)dice(2) * 3;
    const size_t len = ((size_t)n - 1) * ldy + (size_t)m;
    real *step = exactly((size_t)n, sizeof(real)), *y = exactly(len, sizeof(real));
    real *want = exactly(len, sizeof(real)), *one = exactly((size_t)m, sizeof(real));
    const real s = (real)(1 + dice(100)) / 77;
    double sum = 0;

    for (int i = 0; i < n * k; i++) x[i] = (int8_t)(extreme ? -127 : dice(255) - 127);
    for (int i = 0; i < m * k; i++) codes[i] = (int8_t)(extreme ? 1 : dice(3) - 1);
    fill_steps(step, n);
    set_all(want, len, 7);
    set_all(y, len, 7);

    IntWeights w = {0};
    for (int i = 0; i < 2; i++) int_pack(&w, codes, m, k); /* again into the same panel */
    gemm_int_naive(want, ldy, x, step, codes, s, n, m, k);
    gemm_int(y, ldy, x, step, &w, s, n);
    const size_t i = (size_t)dice(n);
    if (dice(2)) int_pack_stream(&w); /* 2 bits a code, for single rows */
    gemm_int(one, ldy, x + i * (size_t)k, step + i, &w, s, 1);
    CHECK(!memcmp(want, y, len * sizeof(real)) &&
              !memcmp(want + i * ldy, one, (size_t)m * sizeof(real)),
          "integer product %d %d %d differs from the exact sum", n, m, k);
    /* the naive twin itself */
    for (int p = 0; p < k; p++) sum += (double)x[p] * (double)codes[p];
    CHECK(want[0] == (real)sum * (s * step[0]), "naive integer product %d %d %d", n, m,
          k);
    free(x);
    free(codes);
    free(step);
    free(y);
    free(want);
    free(one);
    free(w.panel);
    free(w.stream);
}

static void test_gemm_int(void) {
    for (int z = 0; z < 150; z++)
        check_gemm_int(sizes[dice(SIZES - 2)], sizes[dice(SIZES - 4)], sizes[dice(SIZES)],
                       0);
    for (int k = 1; k < 140; k += 3) check_gemm_int(1 + k % 17, 33, k, 1);
    check_gemm_int(20, 40, 4096, 1);
}

/* Codes of 8 bits on both sides, of all sizes. */
static void test_gemm_int8(void) {
    enum { N = 20, M = 70, K = 530 };
    int8_t *x = (int8_t *)reals(N * K, 0), *codes = (int8_t *)reals(M * K, 0);
    real step[N], y[N * M], want[N * M];
    IntWeights w = {0};

    fill_steps(step, N);
    for (int i = 0; i < N * K; i++) x[i] = (int8_t)(dice(255) - 127);
    for (int i = 0; i < M * K; i++) codes[i] = (int8_t)(dice(256) - 128);
    int_pack(&w, codes, M, K);
    gemm_int(y, M, x, step, &w, (real)0.01, N);
    gemm_int_naive(want, M, x, step, codes, (real)0.01, N, M, K);
    CHECK(!memcmp(y, want, sizeof y), "products of 8 bits differ from the exact sum");
    free(w.panel);
}

/* ------------------------------------------------------------------------------------
 * Codes of 16 bits */
/* A random operand of codes, its largest code `top`; extreme: all codes are that. */
static Mat coded_operand(int r, int c, int trans, int bits, int top, int extreme) {
    Mat v = {.trans = trans};
    const int rows = trans ? c : r, cols = trans ? r : c;

    v.ld = (size_t)cols + (size_t)dice(3) * 5;
    const size_t len = ((size_t)rows - 1) * v.ld + (size_t)cols;
    int8_t *q = exactly(len, 1);
    int16_t *h = exactly(len, sizeof *h);
    real *row_step = exactly((size_t)rows, sizeof(real));
    for (size_t i = 0; i < len; i++) {
        const int code = extreme ? top : dice(2 * top + 1) - top;
        h[i] = (int16_t)code;
        q[i] = (int8_t)code;
    }
    fill_steps(row_step, rows);
    v.row_step = row_step;
    if (bits == 8) v.q = q;
    else v.h = h;
    if (bits == 8) free(h);
    else free(q);
    return v;
}

static void coded_free(Mat v) {
    operand_free(v);
    free((void *)v.h);
}

/* c = a b, where b is packed, equals its blocks by definition, added in order. */
static void check_gemm_16(int m, int n, int k, int top, int kind, int extreme) {
    Mat a = coded_operand(m, k, 0, 16, TOP16, extreme);
    Mat b = coded_operand(k, n, kind == 1, 8, top, extreme);
    const size_t ldc = (size_t)n + (size_t)dice(2) * 3,
                 len = ((size_t)m - 1) * ldc + (size_t)n;
    real *c = exactly(len, sizeof(real)), *want = exactly(len, sizeof(real));
    real *scale = exactly((size_t)m, sizeof(real));
    const real *column = kind == 1 ? b.row_step : NULL;
    Weights16 w = {0};

    if (kind == 2) { /* one scale */
        free((void *)b.row_step);
        b.row_step = NULL;
    }
    set_all(c, len, 7);
    set_all(want, len, 7);
    for (int i = 0; i < 2; i++) weights_16_pack(&w, b, k, n, top, (real)0.5);
    for (int i = 0; i < m; i++) scale[i] = a.row_step[i] * w.scale;
    gemm_16(c, ldc, a, &w, m);
    for (int k0 = 0; k0 < k; k0 += w.terms)
        gemm_codes_naive(want, ldc, mat_at(a, 0, (size_t)k0),
                         w.ratio ? w.ratio + k0 : NULL, mat_at(b, (size_t)k0, 0), scale,
                         column, m, n, MIN(k - k0, w.terms), k0 > 0);
    CHECK(!memcmp(c, want, len * sizeof(real)),
          "gemm_16 %d %d %d top %d kind %d: not the exact sums", m, n, k, top, kind);
    coded_free(a);
    coded_free(b);
    weights_16_free(&w);
    free(c);
    free(want);
    free(scale);
}

static void test_gemm_16(void) {
    static const int tops[] = {1, 3, 7, 127, 255};
    for (int z = 0; z < 150; z++)
        check_gemm_16(sizes[dice(SIZES - 3)], sizes[dice(SIZES - 3)], sizes[dice(SIZES)],
                      tops[z % 4], z % 3, 0);
    for (int i = 0; i < 4; i++) check_gemm_16(3, 40, 1100, tops[i], 2, 1);
}

/* 16-bit codes b(k,n) as fractions `ratio` (k) of them: what is multiplied. */
static Mat cut_codes(Mat b, const int16_t *ratio, int k, int n) {
    int16_t *h = exactly((size_t)k * b.ld, sizeof *h);
    for (int i = 0; i < k; i++)
        for (int j = 0; j < n; j++)
            h[(size_t)i * b.ld + (size_t)j] =
                fraction_of((int16_t)mat_code(b, (size_t)i, (size_t)j), ratio[i]);
    b.h = h;
    return b;
}

/* One block of terms of g, by definition. */
static void block_by_definition(const Gemm *g) {
    const Terms *t = g->terms;
    int16_t ratio[2 * KC];
    real *scale = exactly((size_t)g->m, sizeof(real));
    real factor = g->a.step * g->b.step;
    Mat b = g->b;
    if (t == &inputs_8) factor = block_fractions(ratio, g->a, b, g->k);
    if (t == &head_16) {
        factor = fractions(ratio, b.row_step, g->k, 2048);
        b = cut_codes(b, ratio, g->k, g->n);
    }
    for (int i = 0; i < g->m; i++)
        scale[i] = g->a.steps ? factor * g->a.steps[i] : factor;
    gemm_codes_naive(g->c, g->ldc, g->a, t == &inputs_8 ? ratio : NULL, b, scale, NULL,
                     g->m, g->n, g->k, g->acc);
    if (t == &head_16) free((void *)b.h);
    free(scale);
}

/* c (+)= a b, both in codes, in blocks of terms. */
static void check_gemm_codes(int m, int n, int k, const Terms *t, int trans, int acc,
                             int extreme) {
    const int plain = t == &plain_12, bits = t == &inputs_8 ? 8 : 16;
    Mat a = coded_operand(m, k, trans, 16, plain ? t->a : TOP16, extreme);
    Mat b = coded_operand(k, n, 0, bits, t == &head_16 ? TOP16 : t->b, extreme);
    const real *row_step[] = {a.row_step, b.row_step};
    const size_t blocks = CEIL((size_t)k, (size_t)t->most);
    real *steps = exactly(blocks * a.ld, sizeof(real));
    fill_steps(steps, (int)(blocks * a.ld));
    if (t == &head_16) a.steps = steps;
    if (plain) { /* one step */
        a.step = *a.row_step;
        b.step = *b.row_step;
        a.row_step = b.row_step = NULL;
    }
    if (extreme)
        set_all((real *)row_step[1], (size_t)k, 1); /* no fraction makes a code less */
    const size_t ldc = (size_t)n + (size_t)dice(2) * 3;
    const size_t len = ((size_t)m - 1) * ldc + (size_t)n;
    real *c = exactly(len, sizeof(real)), *want = exactly(len, sizeof(real));

    fill(c, len);
    memcpy(want, c, len * sizeof(real));
    Gemm g = {c, ldc, a, b, m, n, k, acc, t};
    gemm_all(&g, 1);
    g.c = want;
    for (int k0 = 0; k0 < k; k0 += t->most) {
        g.a = mat_at(a, 0, (size_t)k0);
        g.b = mat_at(b, (size_t)k0, 0);
        g.k = MIN(k - k0, t->most);
        g.acc = acc || k0 > 0;
        block_by_definition(&g);
    }
    CHECK(!memcmp(c, want, len * sizeof(real)),
          "gemm_codes %d %d %d, terms of %d and %d: not the exact sums", m, n, k, t->a,
          t->b);
    a.row_step = row_step[0];
    b.row_step = row_step[1];
    coded_free(a);
    coded_free(b);
    free(steps);
    free(c);
    free(want);
}

static void test_gemm_codes(void) {
    static const struct {
        const Terms *terms;
        int trans;
    } kinds[] = {{&inputs_8, 1}, {&head_16, 1}, {&plain_12, 1}, {&plain_12, 0}};
    for (int z = 0; z < 200; z++)
        check_gemm_codes(sizes[dice(SIZES - 3)], sizes[dice(SIZES - 3)],
                         sizes[dice(SIZES)], kinds[z % 4].terms, kinds[z % 4].trans,
                         z / 4 % 2, 0);
    for (int i = 0; i < 4; i++)
        check_gemm_codes(20, 40, 1100, kinds[i].terms, kinds[i].trans, 0, 1);
    check_gemm_codes(2 * MC + 5, 40, 60, &head_16, 1, 1, 0); /* several packings of a */
}

/* Gradients as they come: most are small, one element of a row may be huge; whole rows of
 * zeros, and of numbers that are no longer normal ones. */
static void fill_gradients(real *x, int n, int k) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < k; j++)
            x[i * k + j] = (real)(normal01(31, (uint64_t)(i * k + j)) * 1e-4);
    for (int i = 0; i < n; i += 5) x[i * k + i % k] = 1000;
    if (n > 1) set_all(x + k, (size_t)k, 0);
    if (n > 2) set_all(x + 2 * k, (size_t)k, 1e-39);
}

static double largest_of(const real *x, int n) {
    double most = 0;
    for (int i = 0; i < n; i++) most = fmax(most, fabs((double)x[i]));
    return most;
}

static void test_round_rows(void) {
    enum { N = 20, K = 33 };
    static real x[N * K], step[N];
    static int16_t q[N * K];

    fill_gradients(x, N, K);
    round_rows(q, step, x, K, N, K, TOP16);
    for (int i = 0; i < N; i++) {
        const double most = fmax(largest_of(x + i * K, K), 1e-20);
        double worst = 0;
        for (int j = 0; j < K; j++) {
            const double error = (double)x[i * K + j] - q[i * K + j] * (double)step[i];
            worst = worse(worst, fabs(error));
        }
        CHECK(near((double)step[i] * TOP16 / most, 1, 1e-6) &&
                  worst <= 0x1.001p-16 * most,
              "row %d: step %g, off by %g of %g", i, (double)step[i], worst, most);
    }

    static const real bad[] = {(real)NAN, (real)INFINITY, (real)-INFINITY};
    for (int i = 0; i < 3; i++) {
        x[7] = bad[i];
        round_rows(q, step, x, K, N, K, TOP16);
        CHECK(isnan(step[0]) && !isnan(step[1]), "%g was rounded to a number",
              (double)bad[i]);
    }
}

/* dX = dY W and dW = dY^T X in codes against sums in double of what dY was before it was
 * rounded: the bounds that stand above gemm_codes_naive. */
static void check_bounds(int N, int M, int K) {
    Mat w = coded_operand(M, K, 0, 8, 7, 0), x = coded_operand(N, K, 0, 8, 127, 0);
    real *dy = reals((size_t)(N * M), 0), *dx = reals((size_t)(N * K), 0);
    real *dw = reals((size_t)(M * K), 0), *step = reals((size_t)N, 0);
    int16_t *h = (int16_t *)reals((size_t)(N * M), 0);
    Weights16 w16 = {0};
    double most_dx = 0, most_dw = 0;

    fill_gradients(dy, N, M);
    round_rows(h, step, dy, (size_t)M, N, M, TOP16);
    weights_16_pack(&w16, w, M, K, 7, 1);
    gemm_16(dx, (size_t)K, mat_h(h, step, (size_t)M), &w16, N);
    for (int n = 0; n < N; n++) {
        double largest = 0; /* |d * factor| of the token */
        for (int i = 0; i < M; i++) largest = fmax(largest, (double)w.row_step[i]);
        largest *= fmax(largest_of(dy + n * M, M), 1e-20);
        for (int k = 0; k < K; k++) {
            double sum = 0, bound = 1e-30;
            for (int i = 0; i < M; i++) {
                const double weight = (double)mat_get(w, (size_t)i, (size_t)k);
                sum += (double)dy[n * M + i] * weight;
                bound += 0x1p-14 * largest * abs(mat_code(w, (size_t)i, (size_t)k));
            }
            most_dx = worse(most_dx, fabs(sum - (double)dx[n * K + k]) / bound);
        }
    }

    const Gemm g = {dw, (size_t)K, transposed(mat_h(h, step, (size_t)M)), x, M, K, N,
                    0,  &inputs_8};
    gemm_all(&g, 1);
    double largest = 0;
    for (int n = 0; n < N; n++)
        largest =
            fmax(largest, (double)x.row_step[n] * fmax(largest_of(dy + n * M, M), 1e-20));
    for (int i = 0; i < M; i++)
        for (int k = 0; k < K; k++) {
            double sum = 0, bound = 1e-30;
            for (int n = 0; n < N; n++) {
                sum += (double)dy[n * M + i] * (double)mat_get(x, (size_t)n, (size_t)k);
                bound += 0x1p-14 * largest * abs(mat_code(x, (size_t)n, (size_t)k));
            }
            most_dw = worse(most_dw, fabs(sum - (double)dw[i * K + k]) / bound);
        }
    CHECK(most_dx <= 1 && most_dw <= 1,
          "%d %d %d: dX off by %.3g of its bound, dW by %.3g", N, M, K, most_dx, most_dw);
    coded_free(w);
    coded_free(x);
    weights_16_free(&w16);
}

static void test_bounds(void) {
    check_bounds(1, 1, 1);
    check_bounds(3, 47, 33);
    check_bounds(530, 15, 31);
    check_bounds(40, 300, 16);
}

/* Softmax and loss with its gradient in codes, against the two in numbers. */
static void test_loss_of_nan(void) {
    enum { V = 40 };
    const int target = 3;
    real l[V], lse, loss, step, target_dl, steps[V], ones[V];
    int16_t h[2 * V];
    const Rounded for_dE = {h, steps}, for_dz = {h + V, &step};
    set_all(ones, V, 1);
    for (int way = 0; way < 2; way++) {
        set_all(l, V, 1);
        l[7] = (real)NAN;
        if (way)
            loss_codes(for_dE, for_dz, &target_dl, &lse, &loss, l, ones, &target, 1, 1,
                       V);
        else loss_forward(l, &lse, &loss, &target, 1, V);
        CHECK(isnan(loss), "the loss of a logit that is none: %g", (double)loss);
    }
    for (int v = 0; v < V; v++)
        CHECK(isnan(step) && isnan(steps[v]), "gradient %d of it is a number", v);
}

static void test_loss_codes(void) {
    enum { N = 9, V = 177 };
    static real z[N * V], l[N * V], lse[2][N], loss[2][N], step[N], target_dl[N],
        factor[V], steps[V];
    static int16_t h[N * V], factored[N * V];
    const Rounded for_dE = {h, steps}, for_dz = {factored, step};
    int target[N];

    for (int i = 0; i < N * V; i++)
        z[i] = (real)(normal01(33, (uint64_t)i) * (i < V ? 40 : 4));
    for (int i = 0; i < N; i++) target[i] = dice(V);
    for (int i = 0; i < V; i++) factor[i] = (real)(i % 5) / 4;
    memcpy(l, z, sizeof z);
    loss_codes(for_dE, for_dz, target_dl, lse[0], loss[0], l, factor, target, (real)0.125,
               N, V);
    memcpy(l, z, sizeof z);
    loss_forward(l, lse[1], loss[1], target, N, V);
    loss_backward(l, lse[1], target, (real)0.125, N, V);
    for (int n = 0; n < N; n++) {
        double worst = 0, worst_dE = 0;
        for (int i = 0; i < V; i++) {
            const double at_target = i == target[n] ? (double)target_dl[n] : 0;
            const double dz = (double)l[n * V + i] + at_target, s = (double)steps[i];
            const double part = dz * (double)factor[i];
            const double off = fabs(h[n * V + i] * s - dz);
            worst = worse(worst, fabs(factored[n * V + i] * (double)step[n] - part));
            /* what a difference lost: 1 - (l/30)^2 of l ~ 30, p - 1 + 1 */
            const double lost = n && i != target[n] ? 0 : 0.125e-6;
            worst_dE = worse(worst_dE, off / (0.51 * s + 1e-5 * dz + lost));
        }
        CHECK(near((double)loss[0][n], (double)loss[1][n], 2e-5) &&
                  near((double)lse[0][n], (double)lse[1][n], 2e-5),
              "loss %g, not %g", (double)loss[0][n], (double)loss[1][n]);
        CHECK(worst <= 0.125 * 1e-6 + 1.01 * (double)step[n],
              "gradient off by %g, a code is %g", worst, (double)step[n]);
        CHECK(worst_dE <= 1, "gradient for dE off by %g of its bound", worst_dE);
    }
}

/* Thousands of small numbers beside a large one, in the row of each token: none of them
 * makes a code of the row's step, all together are as much as the large one. For dz a sum
 * along the row loses at most half a step per number under way; for dE each has the step
 * of its column, and is right to 16 bits. */
static void test_small_codes(void) {
    enum { V = 4099, N = 3 };
    static real x[N * V], factor[V], steps[V];
    static int16_t h[2][N * V];
    real step[N];
    const Rounded for_dE = {h[0], steps}, for_dz = {h[1], step};

    for (int i = 0; i < V; i++) factor[i] = (real)0.2 * (real)(1 + dice(4));
    for (int i = 0; i < N * V; i++) x[i] = (real)1e-5 * (real)(1 + dice(100) / 100.0);
    for (int n = 0; n < N; n++) x[n * V + 77 + n] = n % 2 ? -1 : 1;
    logit_codes(for_dE, for_dz, x, factor, N, V);
    for (int n = 0; n < N; n++) {
        double sum = 0, want = 0, worst = 0;
        for (int i = 0; i < V; i++) {
            const double dl = (double)x[n * V + i];
            sum += (double)step[n] * h[1][n * V + i];
            want += dl * (double)factor[i];
            worst = worse(worst, fabs(h[0][n * V + i] * (double)steps[i] - dl) /
                                     (0.51 * (double)steps[i]));
        }
        CHECK(fabs(sum - want) <= 32 * (double)step[n] + 1e-6, "sum %g, not %g", sum,
              want);
        CHECK(worst <= 1, "for dE off by %g of half a step", worst);
    }
    CHECK((double)steps[5] < 1e-9, "a column of small numbers has the step %g",
          (double)steps[5]);

    x[V + 78] = (real)NAN;
    logit_codes(for_dE, for_dz, x, factor, N, V);
    CHECK(isfinite(step[0]) && isnan(step[1]) && isnan(steps[5]),
          "a gradient that is none");
}

/* ------------------------------------------------------------------------------------
 * The range coder: within 1 % of the order-0 entropy, and back */
static double entropy_bytes(const int *count, int symbols, double n) {
    double bits = 0;
    for (int s = 0; s < symbols; s++)
        if (count[s]) bits -= count[s] * log2(count[s] / n);
    return bits / 8;
}

/* A model that is nothing but this tensor, number 0, quantized from w. */
static void one_tensor(Golf *m, const Tensor *t, const real *w) {
    memset(m, 0, sizeof *m);
    m->tensor[0] = *t;
    m->tensor[0].at = 0;
    m->tensor[0].at_scale = 0;
    m->code = (int8_t *)reals(t->copy_n, 0);
    m->scale = reals(t->copy_scales, 0);
    t->quant->quantize(m->code, m->scale, NULL, w, t);
}

/* What was coded comes back, from all its bytes and from no byte less. */
static void check_decoding(Golf *m, uint8_t *buf, size_t bytes, const char *what) {
    const Tensor *t = m->tensor;
    const size_t n = t->copy_n, S = t->copy_scales;
    const int8_t *codes = memcpy(reals(n, 0), m->code, n);
    const real *scales = memcpy(reals(S, 0), m->scale, S * sizeof(real));

    memset(m->code, 0, n);
    memset(m->scale, 0, S * sizeof(real));
    CHECK(read_coded(m, t, buf, bytes) && !memcmp(m->code, codes, n) &&
              !memcmp(m->scale, scales, S * sizeof(real)),
          "%s: not what was coded", what);
    CHECK(!read_coded(m, t, buf, bytes - 1), "%s: a byte less was accepted", what);
    if (stream_parts(t) != 2) return;
    for (int i = 0; i < 8; i += 4) /* of 32 bits, the sum is what it was */
        put_u(buf + i, get_u(buf + i, 4) ^ 1u << 31, 4);
    CHECK(!read_coded(m, t, buf, bytes), "%s: streams of 2 GB were accepted", what);
}

static void test_coder(void) {
    static const struct {
        const char *options, *name;
        int rows, cols;
    } rows[] = {
        {"wq=ternary", "wo", 300, 400},      {"wq=ternary wscale=group", "wo", 200, 300},
        {"wq=int3", "wo", 200, 300},         {"wq=int4", "wo", 200, 200},
        {"wq=int8", "wo", 300, 300},         {"embed_bits=3", "embed", 4096, 48},
        {"embed_bits=4", "embed", 4096, 48}, {"embed_bits=8", "embed", 3000, 64},
        {"wq=ternary", "wo", 1100, 1000}}; /* two streams */
    const real *w = reals(1100 * 1000, 90);

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *what = rows[i].options;
        const Tensor t = tensor_of(what, rows[i].name, rows[i].rows, rows[i].cols);
        const size_t n = t.copy_n;
        Golf m;
        int count[256] = {0};
        one_tensor(&m, &t, w);
        for (size_t k = 0; k < n; k++) count[(uint8_t)m.code[k]]++;
        uint8_t *buf = (uint8_t *)reals(t.bytes, 0);
        const size_t bytes = write_coded(&m, m.tensor, buf, t.bytes);
        const double entropy = entropy_bytes(count, 256, (double)n);
        printf("coder, %s: %zu bytes, packed %zu, order-0 entropy %.0f\n", what, bytes,
               t.bytes, entropy);
        CHECK(bytes && (double)bytes <= 1.01 * entropy + 2.0 * (double)t.copy_scales + 8,
              "%s: %zu bytes, entropy %.0f", what, bytes, entropy);
        check_decoding(&m, buf, bytes, what);
    }
}

/* 16-bit numbers of few values: two bits each, and what it takes to learn that. */
static void test_coder_numbers(void) {
    enum { N = 20000 };
    const Tensor t = tensor_of("embed_bits=16", "embed", 100, 200);
    real *w = reals(N, 0);
    Golf m;

    for (size_t i = 0; i < N; i++) w[i] = (real)(1 + (int)(hash64(7, i) % 4)) / 8;
    one_tensor(&m, &t, w);
    uint8_t *buf = (uint8_t *)reals(t.bytes, 0);
    const size_t bytes = write_coded(&m, m.tensor, buf, t.bytes);
    CHECK(bytes && bytes < N / 4 * 11 / 10, "numbers of 4 values: %zu bytes for %d",
          bytes, N);
    check_decoding(&m, buf, bytes, "numbers");
}

/* Nothing to gain: as long as packed is no gain either, and is not written. */
static void test_coder_gives_up(void) {
    const Tensor t = tensor_of("wq=int8", "wo", 3, 4);
    Golf m;
    uint8_t buf[64];
    one_tensor(&m, &t, reals(12, 90));
    CHECK(write_coded(&m, m.tensor, buf, t.bytes) == 0, "12 numbers became shorter");
    CHECK(!read_coded(&m, m.tensor, buf, 3), "3 bytes were read");
}

int main(void) {
    start_tests();
    run_test("bits", test_bits);
    run_test("bf16", test_bf16);
    run_test("randomness", test_randomness);
    run_test("exp, softcap", test_exp);
    run_test("functions", test_functions);
    run_test("rounding", test_fused);
    run_test("order of sums", test_order);
    run_test("selftest", test_selftest);
    run_test("gemm", test_gemm);
    run_test("gemm: precision", test_precision);
    run_test("gemm: tasks", test_tasks);
    run_test("muon: operand", test_operand_of_muon);
    run_test("gemm: codes", test_gemm_int);
    run_test("gemm: codes of 8 bits", test_gemm_int8);
    run_test("gemm: 16 bits", test_gemm_16);
    run_test("gemm: 16 bits, a step per term", test_gemm_codes);
    run_test("gradients: rounding", test_round_rows);
    run_test("gradients: dX, dW within their bounds", test_bounds);
    run_test("gradients: of the loss", test_loss_codes);
    run_test("gradients: small ones", test_small_codes);
    run_test("gradients: of no number", test_loss_of_nan);
    run_test("coder", test_coder);
    run_test("coder: numbers", test_coder_numbers);
    run_test("coder: no gain", test_coder_gives_up);
    return end_tests("kernels");
}
