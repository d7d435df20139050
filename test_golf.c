/* test_golf.c - every test of train_golf.c. `make test` compiles this file twice, with double and
 * with float numbers, and runs both; it needs no network and no data, works in a folder of its own
 * under $TMPDIR and removes it. What comes from outside (tokenizers, shards, files, command lines,
 * and everything that can be wrong with them) is tested in dev/check/test_input.h, included below.
 *
 * Gradients are checked by central differences in double: relative L2 error per tensor at most
 * 1e-7, quantizers frozen at their residual (a straight-through gradient is not the derivative of
 * the rounding, but of x + constant). Expected numbers are worked by hand beside the test, or come
 * from a second, naive way to compute them. Every check is written so that NaN fails it.
 *
 *     GOLF_TEST_ONLY=gradients    run the groups whose names contain this
 *     GOLF_CORRUPT=1000           corruptions of each kind of file
 */
#define GOLF_NO_MAIN
#include "train_golf.c"
#include <sys/resource.h>
#include <sys/wait.h>

static int passed, failed;

#define CHECK(ok, ...) check(ok, __FILE__, __LINE__, __VA_ARGS__)
__attribute__((format(printf, 4, 5))) static void
check(int ok, const char *file, int line, const char *fmt, ...) {
    va_list ap;
    passed += ok != 0, failed += !ok;
    if (ok) return;
    printf("FAILED %s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    if (getenv("GOLF_FAIL_FAST")) exit(1); /* dev/check/bugs.sh */
}

enum { DOUBLE = sizeof(real) == 8 };
static const double EPS = DOUBLE ? 1e-12 : 1e-5; /* "equal up to rounding" */

static int near(double a, double b, double tolerance) { return fabs(a - b) <= tolerance; }
static real noise(uint64_t key, size_t i) { return (real)normal01(key, i); }
static int dice(int sides) { /* 0 .. sides-1, the same sequence in every run */
    static uint64_t i;
    return (int)(hash64(99, i++) % (uint64_t)sides);
}
static real *reals(size_t n, uint64_t key) { /* noise, zeros for key 0; small, never freed */
    real *x = xcalloc(n, sizeof(real));
    for (size_t i = 0; i < n && key; i++) x[i] = noise(key, i);
    return x;
}
static int *tokens_below(int vocab, size_t n, uint64_t key) {
    int *x = xcalloc(n, sizeof(int));
    for (size_t i = 0; i < n; i++) x[i] = (int)(hash64(key, i) % (uint64_t)vocab);
    return x;
}
static void set_all(real *x, size_t n, double to) {
    for (size_t i = 0; i < n; i++) x[i] = (real)to;
}
static void threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

/* A config from defaults and "key=value key=value"; a model of it. */
static Config config_of(const char *text) {
    Config c;
    char copy[1024], option[256], *save;
    config_defaults(&c);
    c.width = 256, c.unique = 1, c.repeat = 4, c.embed_bits = 8; /* not pocket's */
    c.xgain = MODE_VECTOR, c.heads = c.mlp = 4;
    c.batch = 16, c.steps = 500, c.optimizer = OPT_ADAMW, c.lr = 0.002;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        snprintf(option, sizeof option, "--%s", w);
        if (!strncmp(w, "vocab=", 6)) c.vocab = atoi(w + 6);
        else parse_option(&c, option, MODEL | TRAIN);
    }
    config_check(&c);
    return c;
}
static void new_model(Golf *m, const char *text, size_t N) {
    const Config c = config_of(text);
    golf_init(m, &c, 1);
    if (N) golf_buffers(m, N);
}
static void run_steps(Golf *m, int from, int to) {
    const int *x = tokens_below(m->c.vocab, m->N, 21), *y = tokens_below(m->c.vocab, m->N, 22);
    double norm;
    for (int s = from; s < to; s++) golf_step(m, x, y, s, &norm);
}

#include "dev/check/test_input.h"   /* tests of everything that is read from outside */
#include "dev/check/test_systems.h" /* of the systems of Part II */
#include "dev/check/test_sharing.h"
#include "dev/check/test_studies.h" /* and of what comparisons rest on: equal bytes, perturbation */
/* ---------------------------------------------------------------------------------------------
 * Numbers
 * --------------------------------------------------------------------------------------------- */
static int bf16_exact(real x) { return from_bf16(to_bf16(x)) == x; }

static void test_numbers(void) {
    CHECK(crc32_of(0, "123456789", 9) == 0xCBF43926u && crc32_of(0, "", 0) == 0, "CRC-32");
    CHECK(crc32_of(crc32_of(0, "1234", 4), "56789", 5) == 0xCBF43926u, "CRC-32 in two parts");
    /* bf16 keeps 8 bits: 1 + 1/256 and 1 + 3/256 are ties, to the even neighbour */
    CHECK(to_bf16(1 + (real)0x1p-8) == 0x3F80 && to_bf16(1 + 3 * (real)0x1p-8) == 0x3F82, "ties");
    CHECK(to_bf16(1 + (real)0x1.02p-8) == 0x3F81 && to_bf16(-1 - (real)0x1.02p-8) == 0xBF81, "up");
    CHECK(to_bf16((real)INFINITY) == 0x7F80 && to_bf16((real)3.4e38) == 0x7F80, "infinity");
    CHECK(isnan(from_bf16(to_bf16((real)NAN))), "NaN stays NaN");
    int same = 1;
    for (unsigned b = 0; b < 65536; b++) {
        const real x = from_bf16((uint16_t)b);
        same &= isnan(x) ? isnan(from_bf16(to_bf16(x))) : to_bf16(x) == b;
    }
    CHECK(same, "all 65,536 bf16 numbers survive");
    /* hash64(s, i) is output i+1 of splitmix64 seeded with s; these two are published */
    CHECK(hash64(1234567, 0) == 6457827717110365317u && hash64(1234567, 1) == 3203168211198807973u,
          "splitmix64");
    enum { DRAWS = 100000, N = 3, V = 40 };
    double s1 = 0, s2 = 0, n1 = 0, n2 = 0, lo = 1, hi = 0, worst = 0, worst_cap = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        const double u = uniform01(5, i), z = normal01(6, i);
        s1 += u / DRAWS, s2 += u * u / DRAWS, n1 += z / DRAWS, n2 += z * z / DRAWS;
        lo = u < lo ? u : lo, hi = u > hi ? u : hi;
    }
    /* standard deviations of these four means: 0.0009, 0.0009, 0.003, 0.0045 */
    CHECK(near(s1, 0.5, 0.005) && near(s2, 1.0 / 3, 0.005) && lo > 0 && hi < 1, "uniform %g", s1);
    CHECK(near(n1, 0, 0.015) && near(n2, 1, 0.02), "normal %g %g", n1, n2);
    uint8_t raw[8];
    put_u(raw, 0x0123456789ABCDEFu, 8);
    CHECK(raw[0] == 0xEF && raw[7] == 1 && get_u(raw, 8) == 0x0123456789ABCDEFu, "little-endian");

    for (double x = -87; x <= 88; x += 0.0137)
        worst = fmax(worst, fabs((double)fast_exp((real)x) / exp((double)(real)x) - 1));
    CHECK(worst <= (DOUBLE ? 1e-15 : 3e-7), "fast_exp: relative error %.3g", worst);
    CHECK(fast_exp(0) == 1 && fast_exp(-1000) >= 0 && (double)fast_exp(-1000) < 2e-38, "ends");
    for (double z = -300; z <= 300; z += 0.0731)
        worst_cap = fmax(worst_cap,
                         fabs((double)softcap((real)z) - 30 * tanh((double)(real)z / 30)));
    CHECK(worst_cap <= (DOUBLE ? 1e-13 : 1e-5), "softcap: error %.3g", worst_cap);
    CHECK(softcap(0) == 0 && near((double)softcap((real)1e30), 30, 1e-5) &&
              near((double)softcap((real)-1e30), -30, 1e-5), "softcap ends");

    real *l = reals((size_t)N * V, 8), lse[N], loss[N]; /* cross-entropy by its definition */
    double want[N];
    const int y[N] = {0, 17, 39};
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int i = 0; i < V; i++) sum += exp(30 * tanh((double)(l[n * V + i] *= 20) / 30));
        want[n] = log(sum) - 30 * tanh((double)l[n * V + y[n]] / 30);
    }
    loss_forward(l, lse, loss, y, N, V);
    for (int n = 0; n < N; n++)
        CHECK(near((double)loss[n], want[n], DOUBLE ? 1e-12 : 3e-5), "loss %.9g, want %.9g",
              (double)loss[n], want[n]);
}

/* ---------------------------------------------------------------------------------------------
 * Matmul: the fast code against the definition, in memory of exactly the right size
 * --------------------------------------------------------------------------------------------- */
static void *exactly(size_t n, size_t size) { /* not rounded up, so that ASan sees the end */
    void *p = malloc(n * size);
    if (!p) die("out of memory");
    return p;
}

static Mat operand(int r, int c, int trans, int codes) { /* element (i,j) of r x c, random */
    Mat v = {.trans = trans};
    const int rows = trans ? c : r, cols = trans ? r : c;
    v.ld = (size_t)cols + (size_t)dice(3) * 5;
    const size_t len = ((size_t)rows - 1) * v.ld + (size_t)cols;
    if (codes) {
        int8_t *q = exactly(len, 1);
        real *inv = exactly((size_t)rows, sizeof(real));
        for (size_t i = 0; i < len; i++) q[i] = (int8_t)(dice(255) - 127);
        for (int i = 0; i < rows; i++) inv[i] = (real)(1 + dice(100)) / 6000;
        v.q = q, v.inv = inv;
    } else {
        real *f = exactly(len, sizeof(real));
        for (size_t i = 0; i < len; i++) f[i] = (real)(dice(20001) - 10000) / 10000;
        v.f = f;
    }
    return v;
}
static void operand_free(Mat v) { free((void *)v.f), free((void *)v.q), free((void *)v.inv); }

static void check_gemm(int m, int n, int k, int kind, int acc) {
    const Mat a = operand(m, k, kind & 1, kind >> 2 & 1);
    const Mat b = operand(k, n, kind >> 1 & 1, kind >> 3);
    const size_t ldc = (size_t)n + (size_t)dice(2) * 7, len = ((size_t)m - 1) * ldc + (size_t)n;
    real *c[4]; /* before, gemm_serial, gemm, gemm_naive */
    int good = 1, bits = 1;
    for (int j = 0; j < 4; j++) c[j] = exactly(len, sizeof(real));
    for (size_t i = 0; i < len; i++) c[0][i] = c[1][i] = c[2][i] = c[3][i] = (real)dice(100) / 100;
    gemm_serial(c[1], ldc, a, b, NULL, m, n, k, acc);
    gemm(c[2], ldc, a, b, m, n, k, acc);
    gemm_naive(c[3], ldc, a, b, m, n, k, acc);
    for (size_t i = 0; i < len; i++) /* terms are at most 1; between the rows nothing is written */
        good &= i % ldc < (size_t)n
                    ? near((double)c[1][i], (double)c[3][i], (DOUBLE ? 1e-15 : 4e-7) * (k + 1))
                    : c[1][i] == c[0][i];
    CHECK(good, "gemm %d %d %d kind %d acc %d: wrong values", m, n, k, kind, acc);
    bits &= !memcmp(c[1], c[2], len * sizeof(real));
    for (int z = 0; z < 4; z++) { /* any part computed alone has the same bits */
        const int i = dice(m), j = dice(n), rows = z & 1 ? 1 : 1 + dice(m - i);
        const int cols = z & 2 ? 1 : 1 + dice(n - j);
        const size_t at = (size_t)i * ldc + (size_t)j;
        memcpy(c[2], c[0], len * sizeof(real));
        gemm(c[2] + at, ldc, mat_at(a, (size_t)i, 0), mat_at(b, 0, (size_t)j), rows, cols, k, acc);
        for (size_t r = 0; r < (size_t)rows; r++)
            bits &= !memcmp(c[2] + at + r * ldc, c[1] + at + r * ldc, (size_t)cols * sizeof(real));
    }
    Panels panels = {0};
    for (int i = 0; i < 2; i++) panels_pack(&panels, b, k, n); /* again into the same memory */
    memcpy(c[2], c[0], len * sizeof(real));
    gemm_panels(c[2], ldc, a, &panels, m, 0);
    if (!acc) bits &= !memcmp(c[2], c[1], len * sizeof(real));
    CHECK(bits, "gemm %d %d %d kind %d: bits depend on what else is computed", m, n, k, kind);
    free(panels.panel);
    operand_free(a), operand_free(b);
    for (int j = 0; j < 4; j++) free(c[j]);
}

static void check_gemm_int(int n, int m, int k, int extreme) {
    int8_t *x = exactly((size_t)n * (size_t)k, 1), *code = exactly((size_t)m * (size_t)k, 1);
    const size_t ldy = (size_t)m + (size_t)dice(2) * 3, len = ((size_t)n - 1) * ldy + (size_t)m;
    real *inv = exactly((size_t)n, sizeof(real)), *y = exactly(len, sizeof(real));
    real *ref = exactly(len, sizeof(real)), *one = exactly((size_t)m, sizeof(real));
    const real s = (real)(1 + dice(100)) / 77;
    double sum = 0;
    for (int i = 0; i < n * k; i++) x[i] = extreme ? -128 : (int8_t)(dice(256) - 128);
    for (int i = 0; i < m * k; i++) code[i] = extreme ? 1 : (int8_t)(dice(3) - 1);
    for (int i = 0; i < n; i++) inv[i] = (real)(1 + dice(100)) / 6000;
    set_all(ref, len, 7), set_all(y, len, 7);
    IntWeights w = {0};
    for (int i = 0; i < 2; i++) int_pack(&w, code, m, k); /* the second time into the same panel */
    gemm_int_naive(ref, ldy, x, inv, code, s, n, m, k);
    gemm_int(y, ldy, x, inv, &w, s, n);
    const int i = dice(n);
    if (dice(2)) int_pack_stream(&w); /* 2 bits a code, for single rows */
    gemm_int(one, ldy, x + (size_t)i * (size_t)k, inv + i, &w, s, 1);
    CHECK(!memcmp(ref, y, len * sizeof(real)) &&
              !memcmp(ref + (size_t)i * ldy, one, (size_t)m * sizeof(real)),
          "integer product %d %d %d differs from the exact sum", n, m, k);
    for (int p = k; p-- > 0;) sum += (double)x[p] * (double)code[p]; /* the naive twin itself */
    CHECK(ref[0] == (real)sum * (s * inv[0]), "naive integer product %d %d %d", n, m, k);
    free(x), free(code), free(inv), free(y), free(ref), free(one);
    free(w.panel), free(w.stream);
}

/* Relative L2 error of the float products against sums in double. */
static void check_precision(int k) {
    enum { M = 30, N = 70 };
    const Mat a = operand(M, k, 0, 0), b = operand(k, N, 0, 0);
    real *c = reals(M * N, 0);
    double num = 0, den = 0;
    gemm(c, N, a, b, M, N, k, 0);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int p = 0; p < k; p++)
                sum += (double)mat_get(a, (size_t)i, (size_t)p)
                       * (double)mat_get(b, (size_t)p, (size_t)j);
            num += (sum - (double)c[i * N + j]) * (sum - (double)c[i * N + j]), den += sum * sum;
        }
    CHECK(sqrt(num / den) <= (DOUBLE ? 1e-14 : 1e-6), "gemm, k %d: error %.3g", k, sqrt(num / den));
    if (k == 4096) printf("relative error of a product with k = 4096: %.2g\n", sqrt(num / den));
    operand_free(a), operand_free(b);
}

static void test_matmul(void) {
    for (int k = 64; k <= 4096; k *= 4) check_precision(k);
    static const int sizes[] = {1,  2,  3,  4,  5,  7,  8,  9,  13, 14, 15,  16,  17,
                                28, 29, 31, 32, 33, 47, 63, 64, 65, 100, 257, 300, 530};
    enum { S = sizeof sizes / sizeof *sizes };
    for (int z = 0; z < 256; z++)
        check_gemm(sizes[dice(S - 4)], sizes[dice(S - 4)], sizes[dice(S)], z & 15, z >> 4 & 1);
    for (int m = 1; m < 40; m++) /* cutting ends, at one tile, and loses nothing */
        for (int n = 1, mb, nb; n < 40; n++) {
            const int tasks = cut(&(Gemm){.m = m, .n = n, .k = 9}, 1, &mb, &nb);
            CHECK(mb > 0 && nb > 0 && mb <= MR && nb <= NR && tasks == CEIL(m, mb) * CEIL(n, nb),
                  "cut %d %d: %d tasks of %d %d", m, n, tasks, mb, nb);
        }
    check_gemm(70, 1100, 260, 2, 1);
    check_gemm(300, 33, 530, 1, 1);
    for (int z = 0; z < 150; z++)
        check_gemm_int(sizes[dice(S - 2)], sizes[dice(S - 4)], sizes[dice(S)], 0);
    for (int k = 1; k < 140; k += 3) check_gemm_int(1 + k % 17, 33, k, 1);
    check_gemm_int(20, 40, 4096, 1);
}

/* ---------------------------------------------------------------------------------------------
 * Gradients
 * --------------------------------------------------------------------------------------------- */
#ifdef GOLF_DOUBLE
/* ||dw - difference|| / ||both||, 1 when the gradient is all zero (an unused tensor). The central
 * difference takes four points: RMSNorm of a few small numbers bends too much for two. */
static double grad_error(real *w, const real *dw, size_t n, double (*loss)(void *), void *arg) {
    const double h = 1e-5, at[] = {h, -h, 2 * h, -2 * h};
    double num = 0, den = 0, l[4];
    for (size_t i = 0; i < n; i++) {
        const real was = w[i];
        for (int k = 0; k < 4; k++) w[i] = was + at[k], l[k] = loss(arg);
        w[i] = was;
        const double g = (8 * (l[0] - l[1]) - (l[2] - l[3])) / (12 * h), e = g - dw[i];
        num += e * e;
        den += g * g + dw[i] * dw[i];
    }
    return den > 0 ? sqrt(num / den) : 1;
}
#define GRAD_TOL 1e-7

/* A layer alone: out = f(in[0], in[1], ...), loss = sum(out * coef), so that d(out) is coef.
 * Bit i of `adds`: the gradient of in[i] accumulates. */
typedef struct {
    enum { RMSNORM, RMSNORM_ADD, EMBEDDING, MIX, QK, RELU2, GATE, LOSS, ATTENTION, LINEAR } kind;
    int N, K, adds, B, T, H, KV, D;
    size_t n_out, n[5];
    real *in[5], *d[5], *out, *coef, *r, *rope;
    int *tokens;
    Golf *m;
} Layer;

static double layer_loss(void *arg) {
    Layer *l = arg;
    const int N = l->N, K = l->K, H = l->H, KV = l->KV, D = l->D, QKV = (H + 2 * KV) * D;
    real **in = l->in;
    double sum = 0;
    switch (l->kind) {
    case RMSNORM:
    case RMSNORM_ADD: rmsnorm_forward(l->out, l->r, in[0], in[1], N, K); break;
    case EMBEDDING: embed_forward(l->out, in[0], l->tokens, N, K); break;
    case MIX: mix_forward(l->out, in[0], in[1], in[2], in[3], in[4], N, K); break;
    case QK: qk_forward(l->out, in[0], QKV, in[1], l->rope, 0, 0, N, l->T, H, KV, D); break;
    case RELU2: relu2_forward(l->out, in[0], N, K); break;
    case GATE: gate_forward(l->out, l->coef, in[0], in[1], N, K); break;
    case LOSS: /* the mean over the tokens, as golf_backward assumes */
        memcpy(l->out, in[0], l->n_out * sizeof(real));
        loss_forward(l->out, l->r, in[1], l->tokens, N, K);
        for (int n = 0; n < N; n++) sum += in[1][n] / N;
        return sum;
    case ATTENTION:
        attention_forward(l->out, l->r, in[0], (size_t)H * D, in[1], (size_t)KV * D, in[2],
                          (size_t)KV * D, l->B, l->T, l->T, H, KV, D);
        break;
    case LINEAR: /* row range D of the second block's wqkv */
        golf_quantize(l->m);
        input_of(l->m, &l->m->phase->in_q, T_wqkv, 0, NULL, in[0], NULL, N, K, NULL);
        linear_forward(l->m, l->out, l->n_out / (size_t)N, &l->m->phase->in_q, T_wqkv, 1, D, N);
    }
    for (size_t i = 0; i < l->n_out; i++) sum += l->out[i] * l->coef[i];
    return sum;
}

static void layer_backward(Layer *l) {
    const int N = l->N, K = l->K, H = l->H, KV = l->KV, D = l->D, QKV = (H + 2 * KV) * D;
    const size_t q = (size_t)H * D, kv = (size_t)KV * D;
    real **in = l->in, **d = l->d, *coef = l->coef, *r = l->r;
    switch (l->kind) {
    case RMSNORM:
    case RMSNORM_ADD:
        rmsnorm_backward(d[0], l->kind == RMSNORM_ADD, d[1], coef, in[0], r, in[1], N, K);
        break;
    case EMBEDDING: embed_backward(d[0], coef, l->tokens, N, K); break;
    case MIX:
        memcpy(d[0], coef, l->n_out * sizeof(real));
        mix_backward(d[0], d[1], d[2], d[3], d[4], in[0], in[1], in[2], in[3], N, K);
        break;
    case QK: qk_backward(d[0], d[1], coef, in[0], QKV, in[1], l->rope, 0, N, l->T, H, KV, D); break;
    case RELU2:
        memcpy(d[0], coef, l->n_out * sizeof(real));
        relu2_backward(d[0], in[0], N, K);
        break;
    case GATE: gate_backward(d[0], d[1], coef, in[0], in[1], N, K); break;
    case LOSS:
        memcpy(d[0], l->out, l->n_out * sizeof(real));
        loss_backward(d[0], r, l->tokens, 1.0 / N, N, K);
        break;
    case ATTENTION:
        attention_backward(d[0], q, d[1], kv, d[2], kv, coef, r, in[0], q, in[1], kv, in[2], kv,
                           l->B, l->T, H, KV, D);
        break;
    case LINEAR: break;
    }
}

/* Softmax attention by its definition: query i of head h sees keys 0..i of head h / (H/KV). */
static double attention_error(const Layer *l) {
    const int H = l->H, KV = l->KV, D = l->D, T = l->T;
    double worst = 0;
    for (int n = 0; n < l->N; n++)
        for (int h = 0; h < H; h++) {
            double sum = 0, out = 0;
            for (int t = n - n % T; t <= n; t++) {
                const int kv = (t * KV + h / (H / KV)) * D;
                const real *q = l->in[0] + (n * H + h) * D, *k = l->in[1] + kv;
                double s = 0;
                for (int i = 0; i < D; i++) s += q[i] * k[i];
                s = exp(s / sqrt((double)D));
                sum += s, out += s * l->in[2][kv];
            }
            worst = fmax(worst, fabs(out / sum - l->out[(n * H + h) * D]));
        }
    return worst;
}

/* RoPE, from the first head of each position when all positions hold the same vector: position 0
 * is unmoved; the first pair turns by the angle 1 per position, (x1, x2) -> (x1 cos + x2 sin, ..);
 * the product of a query and a key depends on their distance alone. */
static void check_rope(Layer *l) {
    const int D = l->D, ld = (l->H + l->KV) * D, row = (l->H + 2 * l->KV) * D;
    const real *q = l->out, *k = l->out + l->H * D, *x = l->in[0];
    double dot[2] = {0, 0}, ss = 0, moved = 0;
    for (int n = 1; n < l->N; n++) memcpy(l->in[0] + n * row, x, (size_t)row * sizeof(real));
    layer_loss(l);
    for (int i = 0; i < D; i++) {
        dot[0] += q[7 * ld + i] * k[2 * ld + i], dot[1] += q[30 * ld + i] * k[25 * ld + i];
        ss += x[i] * x[i] / D;
    }
    for (int i = 0; i < D; i++)
        moved = fmax(moved, fabs(q[i] - x[i] / sqrt(ss + 1e-6) * l->in[1][0]));
    CHECK(near(dot[0], dot[1], 1e-12), "RoPE: %.9g at distance 5, then %.9g", dot[0], dot[1]);
    CHECK(moved <= 1e-12, "RoPE moves position 0 by %g", moved);
    CHECK(near(q[ld], q[0] * cos(1.0) + q[D / 2] * sin(1.0), 1e-12), "RoPE turns the other way");
}

static void test_linear_gradient(const char *options_text) {
    enum { N = 6, C = 8 };
    char text[256];
    snprintf(text, sizeof text, "vocab=8 width=8 heads=2 seq=8 unique=2 repeat=1 %s", options_text);
    Golf m;
    const Config c = config_of(text);
    golf_init(&m, &c, 1);
    m.freeze = RECORD, m.res = owned(&m, m.n_params, sizeof(real));
    golf_buffers(&m, N);
    const int QKV = m.t[T_wqkv].rows;
    for (int s = 0, first, rows; s < 3; s++) {
        if (!(rows = row_range(&m, T_wqkv, s, &first))) continue;
        Layer l = {.kind = LINEAR, .N = N, .K = C, .D = s, .in = {reals(N * C, 11)}, .m = &m,
                   .n_out = (size_t)N * QKV, .out = reals((size_t)N * QKV, 0)};
        l.coef = reals(l.n_out, 12);
        for (int i = 0; i < N * QKV; i++) /* only this range's columns are written */
            if (i % QKV < first || i % QKV >= first + rows) l.coef[i] = 0;
        m.freeze = RECORD;
        const double recorded = layer_loss(&l);
        m.freeze = LIVE; /* what training computes, for wq=ternary aq=int8 in integers */
        CHECK(near(layer_loss(&l), recorded, 1e-9), "%s: frozen linear differs", text);
        m.freeze = RECORD, layer_loss(&l);
        m.freeze = REPLAY, layer_loss(&l);
        real *dx = reals(N * C, 13);
        const size_t at = m.t[T_wqkv].at + (size_t)(QKV + first) * C, n = (size_t)rows * C;
        set_all(m.g, m.n_params, 0.25);
        linear_dx(&m, dx, l.coef, (size_t)QKV, &m.phase->in_q, T_wqkv, 1, s, N);
        const Gemm dw = linear_dw(&m, l.coef, (size_t)QKV, &m.phase->in_q, T_wqkv, 1, s, N);
        gemm_all(&dw, 1);
        for (size_t i = 0; i < n; i++) m.g[at + i] -= 0.25;
        const double ex = grad_error(l.in[0], dx, N * C, layer_loss, &l);
        const double ew = grad_error(m.w + at, m.g + at, n, layer_loss, &l);
        CHECK(ex <= GRAD_TOL && ew <= GRAD_TOL, "linear, %s: errors %.3g %.3g", text, ex, ew);
    }
    golf_free(&m);
}

static void test_layer_gradients(void) {
    enum { N = 70, K = 6, V = 9, QKV = 48, NK = N * K };
    Golf m;
    new_model(&m, "vocab=8 width=24 heads=4 kv_heads=2 seq=35 repeat=1 mlp=1", 35); /* its RoPE */
    Layer rows[32] = {
        {.kind = RMSNORM, .N = N, .K = K, .n_out = NK, .n = {NK, K}, .adds = 2},
        {.kind = RMSNORM_ADD, .N = N, .K = K, .n_out = NK, .n = {NK, K}, .adds = 3},
        {.kind = EMBEDDING, .N = N, .K = 20, .n_out = N * 20, .n = {V * 20}, .adds = 1},
        {.kind = MIX, .N = N, .K = K, .n_out = NK, .n = {NK, NK, K, K, K}, .adds = 30},
        {.kind = QK, .N = N, .T = 35, .H = 4, .KV = 2, .D = 6, .n_out = N * 36, .n = {N * QKV, 4},
         .adds = 2, .rope = m.rope},
        {.kind = RELU2, .N = N, .K = K, .n_out = NK, .n = {NK}},
        {.kind = GATE, .N = N, .K = K, .n_out = NK, .n = {NK, K}, .adds = 2},
        {.kind = LOSS, .N = N, .K = V, .n_out = N * V, .n = {N * V}},
    };
    int count = 8;
    const int shapes[][5] = {{1, 1, 1, 1, 2},  {2, 5, 4, 2, 4},  {2, 6, 4, 1, 2}, /* B T H KV D */
                             {1, 64, 1, 1, 2}, {1, 67, 2, 1, 2}, {1, 130, 1, 1, 2}};
    for (int i = 0; i < 6; i++) {
        const int *s = shapes[i], n = s[0] * s[1];
        const size_t q = (size_t)(n * s[2] * s[4]), kv = (size_t)(n * s[3] * s[4]);
        rows[count++] = (Layer){.kind = ATTENTION, .N = n, .B = s[0], .T = s[1], .H = s[2],
                                .KV = s[3], .D = s[4], .n_out = q, .n = {q, kv, kv}};
    }
    for (Layer *l = rows; l < rows + count; l++) {
        l->out = reals(l->n_out, 0), l->coef = reals(l->n_out, 6);
        l->r = reals(4 * (size_t)l->N, 0), l->tokens = tokens_below(V, (size_t)l->N, 2);
        for (int i = 0; i < 5; i++) { /* what does not accumulate must overwrite */
            l->in[i] = reals(l->n[i] + N, (uint64_t)(10 + i)), l->d[i] = reals(l->n[i], 30);
            if (l->adds >> i & 1) set_all(l->d[i], l->n[i], 0.25);
        }
        for (size_t i = 0; l->kind == LOSS && i < l->n[0]; i++) l->in[0][i] *= 25; /* capped */
        layer_loss(l);
        if (l->kind == ATTENTION)
            CHECK(attention_error(l) <= 1e-12, "attention T=%d H=%d KV=%d: not by definition", l->T,
                  l->H, l->KV);
        real *before = reals(l->n[0], 30);
        layer_backward(l);
        int untouched = 1; /* the values do not pass through qk */
        for (int i = 0; l->kind == QK && i < N * QKV; i++)
            if (i % QKV >= 36) untouched &= l->d[0][i] == before[i], l->d[0][i] = 0;
        CHECK(untouched, "qk_backward wrote to the values");
        for (int i = 0; i < 5; i++) {
            if (!l->n[i] || (l->kind == ATTENTION && l->T == 1 && i < 2)) continue; /* weight 1 */
            for (size_t k = 0; k < l->n[i]; k++) l->d[i][k] -= (l->adds >> i & 1) * 0.25;
            const double e = grad_error(l->in[i], l->d[i], l->n[i], layer_loss, l);
            CHECK(e <= GRAD_TOL, "layer %d T %d, gradient of in[%d]: %.3g", l->kind, l->T, i, e);
        }
        if (l->kind == QK) check_rope(l);
    }
    golf_free(&m);
    test_linear_gradient("wq=none aq=none"), test_linear_gradient("wq=ternary aq=none");
    test_linear_gradient("wq=none aq=int8"), test_linear_gradient("wq=ternary aq=int8");
    test_linear_gradient("extra_norm=each kv_heads=1");
}

typedef struct {
    Golf m;
    int x[80], y[80], B, T;
} Probe;

static double probe_loss(void *arg) {
    Probe *p = arg;
    golf_quantize(&p->m);
    return golf_forward(&p->m, p->x, p->y, p->B, p->T);
}

static void test_model_gradients(void) {
    const char *base = "vocab=11 width=8 heads=2 mlp=2 seq=8 ";
    const char *arms[] = {
        "repeat=1", "repeat=3", "unique=3 repeat=1", "unique=2 repeat=2 order=cycle",
        "unique=2 repeat=2 order=sequence", "prelude=1 coda=1 repeat=2", "prelude=2 repeat=1",
        "mix=none", "mix=scalar", "gain=none", "gain=scalar", "gate=none", "extra_norm=none",
        "gate=scalar", "qgain=none", "qgain=scalar", "xgain=none", "xgain=scalar", "embed_bits=4",
        "phase=0 repeat=3", "phase=0 unique=2 repeat=2 gate=scalar", "phase_embed=1",
        "extra_norm=each", "extra_norm=each kv_heads=1 unique=2 repeat=1 wq=none aq=none",
        "heads=4 kv_heads=2", "heads=4 kv_heads=1 wq=none", "wq=none aq=none", "wq=none", "aq=none",
        "wq=none aq=none extra_norm=none gain=none gate=none mix=none qgain=none embed_bits=16",
        "protect=wo:4,wdown:8,wqkv:16", "protect=wup:5 hidden=24 unique=2 repeat=1",
        SYSTEM_ARMS SHARING_ARMS "embed_bits=16 repeat=3 extra_norm=each phase_embed=1",
        "seq=40 mlp=1 phase_embed=1" /* 80 tokens: two chunks, three of the head */
    };
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s%s", base, strstr(arms[a], "repeat") ? "" : "repeat=2 ",
                 arms[a]);
        const Config c = config_of(text);
        Probe p = {.B = 2, .T = strstr(arms[a], "seq=40") ? 40 : 7};
        const int N = p.B * p.T;
        Golf *m = &p.m;
        golf_init(m, &c, 1);
        m->freeze = RECORD;
        m->res = owned(m, m->n_params, sizeof(real));
        golf_buffers(m, (size_t)N);
        if (strstr(arms[a], "kd=")) give_teacher(m, (size_t)N);
        /* away from the start, where gates are 1 and many terms could hide each other */
        for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
            for (size_t i = 0; i < t->n; i++)
                m->w[t->at + i] += (t->role == INTERFACE ? 0.3 : t->role == EMBED ? 0.5 : 0.1) *
                                   noise(7 + (uint64_t)(t - m->t), i);
        for (int i = 0; i < N; i++) {
            p.x[i] = (int)(hash64(3, (uint64_t)i) % 11);
            p.y[i] = (int)(hash64(4, (uint64_t)i) % 11);
        }
        fips_prune(m, 0.4); /* a mask to be frozen, with ffn=fips */
        /* the straight-through estimator is the identity: the gradient of the live, quantized
         * model is that of the surrogate w + constant, x + constant at the same point */
        real *g = reals(m->n_params, 0);
        m->freeze = LIVE;
        const double live = probe_loss(&p);
        golf_backward(m, p.x, p.B, p.T);
        memcpy(g, m->g, m->n_params * sizeof(real));
        m->freeze = RECORD;
        const double loss0 = probe_loss(&p);
        golf_backward(m, p.x, p.B, p.T);
        double num = 0, den = 0;
        for (size_t i = 0; i < m->n_params; i++) {
            num += (g[i] - m->g[i]) * (g[i] - m->g[i]);
            den += g[i] * g[i];
        }
        CHECK(near(live, loss0, 1e-9) && sqrt(num / den) <= 1e-9, "%s: loss %.9g, frozen %.9g; "
              "gradients differ by %.3g", arms[a], live, loss0, sqrt(num / den));
        m->freeze = REPLAY;
        CHECK(near(probe_loss(&p), loss0, 1e-9), "%s: replay changes the loss", arms[a]);
        /* integer products are often exactly 0, where relu^2 has its kink: step off it */
        for (size_t i = 0; i < m->n_params; i++) m->w[i] += 1e-2 * noise(5, i);
        probe_loss(&p);
        golf_backward(m, p.x, p.B, p.T);
        memcpy(g, m->g, m->n_params * sizeof(real));
        for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
            if (STORED(t)) {
                const double e = grad_error(m->w + t->at, g + t->at, t->n, probe_loss, &p);
                CHECK(e <= GRAD_TOL, "gradient of %s with %s: %.3g", t->name, arms[a], e);
            }
        golf_free(m);
    }
}
#endif

/* Gradients of 1,300 tokens, more than the head takes at a time, are the mean of those of their two
 * halves; recomputing the forward pass on the way back changes no bit. */
static void test_large_batch(void) {
    enum { N = 1300 };
    const char *text = "vocab=300 width=24 heads=2 mlp=2 seq=65 repeat=3 unique=2 prelude=1 "
                       "extra_norm=each phase_embed=1 ";
    char again[256];
    Golf m, r;
    int *x = tokens_below(300, N, 1), *y = tokens_below(300, N, 2);
    new_model(&m, text, N);
    snprintf(again, sizeof again, "%s recompute=1", text);
    new_model(&r, again, N);
    double loss = golf_forward(&m, x, y, 20, 65);
    const double loss_r = golf_forward(&r, x, y, 20, 65);
    golf_backward(&m, x, 20, 65), golf_backward(&r, x, 20, 65);
    CHECK(loss == loss_r && !memcmp(m.g, r.g, m.n_params * sizeof(real)), "recompute=1 differs");
    real *all = memcpy(reals(m.n_params, 0), m.g, m.n_params * sizeof(real));
    double num = 0, den = 0;
    for (int half = 0; half < 2; half++) {
        const int at = half * N / 2;
        loss -= golf_forward(&r, x + at, y + at, 10, 65) / 2;
        golf_backward(&r, x + at, 10, 65);
        for (size_t i = 0; i < m.n_params; i++) {
            den += half ? 0 : (double)all[i] * (double)all[i];
            all[i] -= r.g[i] / 2;
        }
    }
    for (size_t i = 0; i < m.n_params; i++) num += (double)all[i] * (double)all[i];
    CHECK(near(loss, 0, DOUBLE ? 1e-12 : 1e-5) && sqrt(num / den) < (DOUBLE ? 1e-12 : 1e-5),
          "1,300 tokens against two halves: loss %.3g, gradients %.3g", loss, sqrt(num / den));
    golf_free(&m), golf_free(&r);
}

/* Without differences: the vectors of application 1 act there, and not before. */
static void test_phase_order(void) {
    Golf m;
    new_model(&m, "vocab=16 width=16 heads=2 seq=8 repeat=3", 8);
    const int *x = tokens_below(16, 8, 1);
    const size_t n = 8 * 16 * sizeof(real);
    real *before[2] = {reals(8 * 16, 0), reals(8 * 16, 0)};
    golf_forward(&m, x, NULL, 1, 8);
    for (int p = 0; p < 2; p++) memcpy(before[p], m.phase[p].out, n);
    for (const Tensor *t = m.t + T_mix0; t < m.t + N_TENSORS; t++) {
        for (int i = 0; i < t->stored_cols; i++)
            m.w[t->at + t->copy_n + (size_t)i] += (real)(0.5 + 0.1 * i);
        golf_quantize(&m);
        golf_forward(&m, x, NULL, 1, 8);
        set_all(m.w + t->at, t->n, t->init);
        CHECK(!t->n || (!memcmp(before[0], m.phase[0].out, n) &&
                        memcmp(before[1], m.phase[1].out, n)),
              "%s of phase 1 acts in another phase", t->name);
    }
    golf_free(&m);
}

/* ---------------------------------------------------------------------------------------------
 * Quantizers
 * --------------------------------------------------------------------------------------------- */
/* A tensor of one copy, as the quantizers see it. Four at a time. */
static const Tensor *shape(int quantizer, int rows, int cols, int bits) {
    static Tensor t[4];
    static int k;
    k = (k + 1) & 3;
    t[k] = (Tensor){.rows = rows, .cols = cols, .stored_cols = cols, .bits = bits,
                    .line = bits == 2 ? rows * cols : cols, .group = bits == 2 ? rows * cols : cols,
                    .copy_n = (size_t)rows * (size_t)cols, .quant = quantizers + quantizer};
    return &t[k];
}

static void test_ternary(void) {
    const Quantizer *q = quantizers + Q_TERNARY;
    const Tensor *t = shape(Q_TERNARY, 2, 4, 2), *big = shape(Q_TERNARY, 64, 64, 2);
    int8_t code[4096], back[4096];
    real s, s2, eff[40], huge[4096] = {0};
    uint8_t raw[64];
    int nonzero = 0, ok = 1;
    /* mean|w| = 8/8 = 1: the codes are rint(w) clipped; 0.5 is a tie, to the even 0 */
    const real w[] = {0.5, -0.5, 1.5, -1.5, 2, -2, 0, 0};
    q->quantize(code, &s, NULL, w, t);
    CHECK(s == 1 && !memcmp(code, "\0\0\1\377\1\377\0\0", 8), "ternary values: scale %g",
          (double)s);
    q->quantize(code, &s, NULL, huge, big);
    CHECK(s == from_bf16(to_bf16((real)1e-5)) && !code[0] && !code[5], "all zero: %g", (double)s);
    for (int i = 0; i < 4096; i++) huge[i] = (real)(i == 77 ? 1e6 : 1e-3 * (i % 3 - 1));
    q->quantize(code, &s, NULL, huge, big);
    for (int i = 0; i < 4096; i++) nonzero += code[i] != 0;
    CHECK(code[77] == 1 && nonzero == 1 && near((double)s, 1e6 / 4096, 1), "one huge value");
    /* NaN: codes stay codes and the scale finite; golf_step stops a run before this matters */
    huge[5] = (real)NAN;
    q->quantize(code, &s, NULL, huge, big);
    CHECK(abs(code[5]) <= 1 && isfinite(s) && s > 0, "NaN: scale %g", (double)s);
    for (int n = 1; n <= 40; n++) { /* the rule, and ragged lengths */
        const real *r = reals((size_t)n, (uint64_t)n);
        double mean = 0;
        for (int i = 0; i < n; i++) mean += fabs((double)r[i]) / n;
        t = shape(Q_TERNARY, 1, n, 2);
        q->quantize(code, &s, NULL, r, t);
        int good = near((double)s, mean, mean / 256) && bf16_exact(s);
        for (int i = 0; i < n; i++)
            good &= code[i] == (fabs((double)r[i] / (double)s) <= 0.5 ? 0 : r[i] > 0 ? 1 : -1);
        memset(raw, 0xEE, sizeof raw), memset(back, 9, sizeof back);
        q->pack(raw, code, &s, t);
        const size_t bytes = q->bytes(t);
        good &= bytes == 2 + ((size_t)n + 4) / 5 && raw[bytes] == 0xEE && q->scales(t) == 1;
        good &= q->unpack(back, &s2, raw, t) && s2 == s && !memcmp(code, back, (size_t)n);
        q->dequantize(eff, back, &s2, t);
        for (int i = 0; i < n; i++) good &= eff[i] == s * (real)code[i];
        good &= back[n] == 9;
        q->quantize(back, &s2, NULL, eff, t); /* the same codes; a smaller scale: files keep it */
        CHECK(good && !memcmp(code, back, (size_t)n) && s2 <= s, "ternary of %d numbers", n);
    }
    t = shape(Q_TERNARY, 1, 5, 2);
    for (int b = 0; b < 256; b++) {
        const uint8_t in[] = {0x80, 0x3F, (uint8_t)b};
        const int possible = q->unpack(code, &s, in, t);
        int value = 0; /* lowest trit first */
        for (int i = 5; i-- > 0;) value = 3 * value + code[i] + 1;
        if (possible) q->pack(raw, code, &s, t);
        ok &= possible == (b < 243) && (!possible || (value == b && raw[2] == b && s == 1));
    }
    CHECK(ok, "all bytes of 5 trits");
    const uint16_t bad[] = {0, 0x8000, 0xBF80, 0x7F80, 0xFF80, 0x7FC0}; /* 0 -0 -1 inf -inf NaN */
    for (int i = 0; i < 6; i++) {
        const uint8_t in[] = {(uint8_t)bad[i], (uint8_t)(bad[i] >> 8), 121};
        CHECK(!q->unpack(code, &s, in, t), "a scale of %04x was accepted", bad[i]);
    }
}

static void test_integers(void) {
    enum { ROWS = 5 };
    const Quantizer *q = quantizers + Q_INT, *h = quantizers + Q_BF16;
    int8_t code[512], back[512];
    real s[8], s2[8], eff[512];
    uint8_t raw[1024];
    const real w[] = {127, 0.5, 1.5, 2.5, -0.5, -2.5}; /* absmax/127 = 1; ties to even */
    q->quantize(code, s, NULL, w, shape(Q_INT, 1, 6, 8));
    CHECK(s[0] == 1 && !memcmp(code, "\177\0\2\2\0\376", 6), "8 bits: scale %g", (double)s[0]);
    for (int bits = 4; bits <= 8; bits++)
        for (int cols = 1; cols <= 41; cols += 1 + cols / 3) {
            const int top = (1 << (bits - 1)) - 1;
            const Tensor *t = shape(Q_INT, ROWS, cols, bits);
            const size_t n = t->copy_n, bytes = q->bytes(t);
            real *r = reals(n, (uint64_t)(cols + 100 * bits));
            for (int i = 0; i < cols; i++) r[cols + i] = 0, r[3 * cols + i] = -1; /* whole rows */
            r[2 * cols] = (real)1e6;                                              /* one huge */
            q->quantize(code, s, NULL, r, t);
            memset(raw, 0xEE, sizeof raw), memset(back, 99, sizeof back);
            q->pack(raw, code, s, t);
            int good = bytes == 2 * ROWS + (n * (size_t)bits + 7) / 8 && raw[bytes] == 0xEE;
            good &= q->scales(t) == ROWS && q->unpack(back, s2, raw, t);
            good &= !memcmp(code, back, n) && !memcmp(s, s2, sizeof(real) * ROWS) && back[n] == 99;
            q->dequantize(eff, code, s, t);
            for (size_t i = 0; i < n; i++) { /* half a step, and 2^-8 for the scale's rounding */
                const real scale = s[i / (size_t)cols];
                good &= abs(code[i]) <= top && eff[i] == scale * (real)code[i] && bf16_exact(scale);
                good &= near((double)eff[i], (double)r[i],
                             0.5001 * (double)scale + fabs((double)r[i]) / 256);
            }
            good &= code[2 * cols] == top && code[cols] == 0 && code[3 * cols] == -top;
            q->quantize(back, s2, NULL, eff, t); /* nothing left to round */
            good &= !memcmp(code, back, n);
            for (int i = 0; i < ROWS; i++) good &= i == 1 || s2[i] == s[i];
            CHECK(good, "%d bits, rows of %d", bits, cols);
            for (size_t at = (n - 1) * (size_t)bits; at < n * (size_t)bits; at++)
                raw[2 * ROWS + at / 8] &= (uint8_t) ~(1 << at % 8); /* the code -2^(bits-1) */
            CHECK(!q->unpack(back, s2, raw, t), "%d bits: the code 0 was accepted", bits);
        }
    const real nan_row[] = {(real)NAN, 1, -2}; /* as for ternary: finite codes and scale */
    q->quantize(code, s, NULL, nan_row, shape(Q_INT, 1, 3, 8));
    CHECK(isfinite(s[0]) && code[2] == -127 && code[1] == 64, "NaN: %g %d", (double)s[0], code[2]);

    const Tensor *t = shape(Q_BF16, 5, 7, 16);
    real *r = reals(35, 9), x[35], y[35];
    h->quantize(NULL, x, NULL, r, t), h->pack(raw, NULL, x, t);
    int good = h->bytes(t) == 70 && h->unpack(NULL, y, raw, t) && !memcmp(x, y, sizeof x);
    for (int i = 0; i < 35; i++)
        good &= bf16_exact(x[i]) && near((double)x[i], (double)r[i], fabs((double)r[i]) / 256);
    put_u(raw + 20, 0x7F80, 2);
    CHECK(good && !h->unpack(NULL, y, raw, t), "bf16");

    /* activations: a step per token, ties to even; a token of zeros; one huge value */
    real a[12] = {127, 0.5, 1.5, -2.5, 0, 0, 0, 0, 1e6, 1, -1e6, (real)1e-3}, inv[40];
    act_quant(&(Act){.q = code, .inv = inv}, a, 3, 4, 127, 1, LIVE);
    CHECK(!memcmp(code, "\177\0\2\376\0\0\0\0\177\0\201\0", 12), "activation codes %d", code[3]);
    CHECK(inv[0] == 1 && near((double)inv[1] * 127, 1e-5, 1e-11) &&
              near((double)inv[2] * 127, 1e6, 1), "activation steps %g", (double)inv[1]);
    r = reals(480, 31);
    act_quant(&(Act){.q = code, .inv = inv}, r, 40, 12, 127, 1, LIVE);
    for (int i = 0; i < 480; i++)
        good &= near((double)(code[i] * inv[i / 12]), (double)r[i], 0.501 * (double)inv[i / 12]);
    CHECK(good, "activation error over half a step");
}

/* ---------------------------------------------------------------------------------------------
 * Optimizer
 * --------------------------------------------------------------------------------------------- */
/* Muon against its definition in plain loops, and what it is for: singular values near 1. */
static void naive_muon(double *u, int rows, int cols) {
    static double x[64 * 64], a[64 * 64], b[64 * 64];
    const int tall = rows > cols, r = tall ? cols : rows, c = tall ? rows : cols;
    double norm = 0;
    for (int i = 0; i < r * c; i++) norm += u[i] * u[i];
    for (int i = 0; i < r; i++) /* x (r,c) is wide */
        for (int j = 0; j < c; j++)
            x[i * c + j] = (tall ? u[j * cols + i] : u[i * cols + j]) / (sqrt(norm) + 1e-7);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < r; i++)
            for (int j = 0; j < r; j++) {
                a[i * r + j] = 0;
                for (int k = 0; k < c; k++) a[i * r + j] += x[i * c + k] * x[j * c + k];
            }
        for (int i = 0; i < r; i++)
            for (int j = 0; j < r; j++) {
                b[i * r + j] = -4.7750 * a[i * r + j] + (i == j ? 3.4445 : 0);
                for (int k = 0; k < r; k++)
                    b[i * r + j] += 2.0315 * a[i * r + k] * a[k * r + j];
            }
        for (int j = 0; j < c; j++) {
            double column[64];
            for (int i = 0; i < r; i++) column[i] = x[i * c + j];
            for (int i = 0; i < r; i++) {
                x[i * c + j] = 0;
                for (int k = 0; k < r; k++) x[i * c + j] += b[i * r + k] * column[k];
            }
        }
    }
    for (int i = 0; i < r; i++)
        for (int j = 0; j < c; j++) u[tall ? j * cols + i : i * cols + j] = x[i * c + j];
}
static void test_muon(void) {
    Golf m;
    new_model(&m, "vocab=16 width=16 heads=2 mlp=3 unique=2 repeat=1 optimizer=muon lr_muon=0.1 "
                  "momentum=0.9 warmup=0 warmdown=0 steps=9 wd=0.5", 8);
    real *w = reals(m.n_params, 0), *v = reals(m.n_params, 0);
    double *mom = xcalloc(m.n_params, sizeof(double)), *u = xcalloc(m.n_params, sizeof(double));
    for (int step = 0; step < 2; step++) {
        memcpy(w, m.w, m.n_params * sizeof(real)), memcpy(v, m.v, m.n_params * sizeof(real));
        for (size_t i = 0; i < m.n_params; i++) m.g[i] = noise((uint64_t)(90 + step), i);
        const double scale = step ? 0.5 : 1;
        golf_muon(&m, step, scale);
        for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++) {
            double worst = 0, trace = 0;
            int untouched = 1;
            for (size_t i = t->at; i < t->at + t->n; i++) {
                const double g = (double)m.g[i] * scale;
                mom[i] = 0.9 * mom[i] + 0.1 * g, u[i] = 0.9 * mom[i] + 0.1 * g;
                untouched &= m.w[i] == w[i];
            }
            if (!t->n) continue;
            if (t->role != PROJ) {
                CHECK(untouched, "Muon moved %s", t->name);
                continue;
            }
            for (int j = 0; j < t->stored_copies; j++) {
                double *uj = u + t->at + (size_t)j * t->copy_n;
                naive_muon(uj, t->rows, t->cols);
                for (size_t i = 0; i < t->copy_n; i++) trace += uj[i] * uj[i];
            }
            const double lr = 0.1 * sqrt(fmax(1, (double)t->rows / t->cols));
            for (size_t i = t->at; i < t->at + t->n; i++)
                worst = fmax(worst, fabs((double)w[i] * 0.95 - lr * u[i] - (double)m.w[i]));
            /* the mean square of the singular values */
            trace /= t->stored_copies * (t->rows < t->cols ? t->rows : t->cols);
            CHECK(worst < (DOUBLE ? 1e-12 : 2e-5), "Muon of %s: off by %.3g", t->name, worst);
            CHECK(trace > 0.6 && trace < 1.3, "Muon of %s: singular values %.3g", t->name, trace);
        }
        CHECK(!memcmp(v, m.v, m.n_params * sizeof(real)), "Muon has no second moment");
    }
    golf_adamw(&m, 0, 1);
    memcpy(w, m.w, m.n_params * sizeof(real));
    golf_adamw(&m, 1, 1);
    const Tensor *t = m.t + T_wup;
    CHECK(!memcmp(w + t->at, m.w + t->at, t->n * sizeof(real)) && w[0] != m.w[0],
          "with optimizer=muon AdamW trains the rest, and only the rest");
    golf_free(&m);
}

static void test_adamw(void) {
    const char *text =
        "vocab=8 width=8 heads=2 mlp=1 seq=8 repeat=1 batch=2 steps=100 warmup=0 warmdown=0 wd=0.1 "
        "lr=0.1 lr_embed=0.2 lr_interface=0.05 beta1=0.9 beta2=0.99 lora=2";
    Golf m;
    new_model(&m, text, 16);
    /* g = 0.5, then -0.25, from w = 1:
     *   m = 0.1*0.5 = 0.05              v = 0.01*0.25 = 0.0025
     *   m/(1-0.9) = 0.5                 v/(1-0.99) = 0.25           step 0.5/0.5 = 1
     *   m = 0.9*0.05 - 0.025 = 0.02     v = 0.99*0.0025 + 0.01*0.0625 = 0.0031
     *   m/(1-0.81) = 0.1052632          v/(1-0.9801) = 0.1557789    step 0.26669943
     * projections decay by 1 - 0.1*0.1 first:  0.99 - 0.1 = 0.89;  0.99*0.89 - 0.1*0.26669943
     * = 0.85443006. Embedding: 1 - 0.2 = 0.8; 0.8 - 0.2*0.26669943 = 0.74666011.
     * LoRA, not decayed: 0.9, 0.87333006. Interface: 0.95; 0.95 - 0.05*0.26669943 = 0.93666503. */
    const double want[2][4] = {{0.8, 0.89, 0.9, 0.95},
                               {0.746660114, 0.854430057, 0.873330057, 0.936665029}};
    set_all(m.w, m.n_params, 1);
    for (int step = 0; step < 2; step++) {
        set_all(m.g, m.n_params, step ? -0.5 : 0.5);
        golf_adamw(&m, step, step ? 0.5 : 1); /* the second gradient comes clipped by half */
        double worst = 0;
        for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++)
            for (size_t i = t->at; i < t->at + t->n; i++)
                worst = fmax(worst, fabs((double)m.w[i] - want[step][t->role]));
        CHECK(worst <= (DOUBLE ? 1e-8 : 1e-6), "AdamW step %d: error %.3g", step, worst);
    }
    set_all(m.g, m.n_params, 0.5);
    CHECK(near(golf_grad_norm(&m), 0.5 * sqrt((double)m.n_params), 1e-5), "gradient norm");
    golf_free(&m);
    for (int clip = 0; clip < 2; clip++) { /* first moments show the norm: |m| = (1-beta1) |g| */
        double norm, seen = 0;
        new_model(&m, text, 16);
        m.c.clip = clip ? 1e-3 : 0;
        golf_step(&m, tokens_below(8, 16, 1), tokens_below(8, 16, 2), 0, &norm);
        for (size_t i = 0; i < m.n_params; i++) seen += 100 * (double)m.m[i] * (double)m.m[i];
        CHECK(norm > 1e-3 && near(sqrt(seen) / (clip ? 1e-3 : norm), 1, 1e-5),
              "clip %d: norm %g became %g", clip, norm, sqrt(seen));
        golf_free(&m);
    }
    Config c = config_of("steps=100 warmup=0.04 warmdown=0.3 wd=0.1");
    const struct { int step; double linear, two_stage; } rows[] = {
        {0, 1.0 / 4, 1.0 / 4}, {2, 3.0 / 4, 0.75 * 0.98}, {3, 1, 0.97}, {49, 1, 0.51},
        {50, 1, 0.5 * 2 / 3}, {70, 1, 0.3 * 2 / 3}, {71, 0.29 / 0.3, 0.29 * 2 / 3},
        {99, 0.01 / 0.3, 0.01 * 2 / 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int s = rows[i].step;
        c.schedule = SCHED_LINEAR;
        CHECK(near(lr_factor(&c, s), rows[i].linear, 1e-12), "linear at %d", s);
        c.schedule = SCHED_TWO_STAGE;
        CHECK(near(lr_factor(&c, s), rows[i].two_stage, 1e-12), "two_stage at %d", s);
        CHECK(wd_at(&c, s) == (s < 50 ? 0.1 : 0), "two_stage decay at %d", s);
    }
    c = config_of("steps=5 warmup=0 warmdown=0 wd=0.1 schedule=two_stage");
    CHECK(wd_at(&c, 2) == 0.1 && wd_at(&c, 3) == 0 && lr_factor(&c, 0) == 1, "odd steps");
    c.schedule = SCHED_LINEAR;
    CHECK(lr_factor(&c, 0) == 1 && lr_factor(&c, 4) == 1, "no warm-up, no warm-down");
    c = config_of("steps=1 warmup=1 warmdown=1");
    CHECK(lr_factor(&c, 0) == 1, "one step");
}

/* ---------------------------------------------------------------------------------------------
 * Training, in files and out of them
 * --------------------------------------------------------------------------------------------- */
static void test_training(void) {
    Golf m, b;
    int *x = tokens_below(512, 256, 1), *y = tokens_below(512, 256, 2), s = 0;
    double loss = 9, norm;
    new_model(&m, "vocab=512 width=64 seq=64 batch=4", 256);
    const double begin = golf_forward(&m, x, y, 4, 64);
    CHECK(near(begin / log(512), 1, 0.02), "initial loss %.4f, ln V = %.4f", begin, log(512));
    golf_free(&m);
    new_model(&m, "vocab=32 width=32 heads=2 seq=16 batch=2 repeat=2 lr=0.01 lr_embed=0.02 "
                  "lr_interface=0.02 warmup=0 warmdown=0 steps=600", 32);
    for (int i = 0; i < 32; i++) x[i] %= 32, y[i] %= 32;
    for (; s < 600 && !(loss < 0.05); s++) loss = golf_step(&m, x, y, s, &norm);
    CHECK(loss < 0.05, "one batch is not learnt by heart: loss %.4f after %d steps", loss, s);
    CHECK(m.flips > 0, "no ternary code ever changed");
    m.w[m.t[T_embed].at] = (real)INFINITY;
    golf_quantize(&m);
    DIES("divergence", "training diverged|checkpoint|--lr", run_steps(&m, s, s + 1));
    golf_free(&m);

    real *w = NULL; /* the same bits whatever the number of threads */
    const char *text =
        "vocab=266 width=64 heads=4 kv_heads=2 mlp=2 seq=128 repeat=2 batch=8 steps=10";
    for (int t = 1; t <= 6; t++) { /* AdamW, Muon */
        char how[256];
        snprintf(how, sizeof how, "%s optimizer=%s", text, t <= 3 ? "adamw" : "muon");
        threads((t - 1) % 3 + 1);
        new_model(&m, how, 1024);
        run_steps(&m, 0, 5);
        if (t == 1 || t == 4) w = memcpy(reals(m.n_params, 0), m.w, m.n_params * sizeof(real));
        CHECK(!memcmp(w, m.w, m.n_params * sizeof(real)), "%d threads give other weights",
              (t - 1) % 3 + 1);
        golf_free(&m);
    }
    threads(1);

    text = "vocab=266 width=32 heads=2 mlp=2 seq=20 repeat=2 batch=3 steps=10";
    new_model(&m, text, 60), new_model(&b, text, 60); /* 3 steps, a checkpoint, 3 steps are 6 */
    run_steps(&m, 0, 3);
    ckpt_save(&m, IN("ckpt.bin"), 3);
    run_steps(&m, 3, 6);
    const int step = (int)ckpt_load(&b, IN("ckpt.bin"));
    run_steps(&b, 3, 6);
    const size_t bytes = m.n_params * sizeof(real);
    CHECK(step == 3 && !memcmp(m.w, b.w, bytes) && !memcmp(m.m, b.m, bytes) &&
              !memcmp(m.v, b.v, bytes) && m.flips == b.flips, "resumed from step %d: differs",
          step);
    golf_free(&m), golf_free(&b);
}

/* The model of the file is the model in memory: size as announced, the same weights, the same
 * summed loss to the last bit; the ledger adds up; scales are bf16 numbers. */
static void test_export(void) {
    const char *arms[] = {
        "", "wq=none", "aq=none", "wq=none aq=none embed_bits=16", "embed_bits=4", "embed_bits=5",
        "embed_bits=6 width=24", "embed_bits=7", "gate=scalar gain=none mix=none qgain=scalar",
        "extra_norm=each xgain=scalar phase=0 repeat=3", "extra_norm=none", "phase_embed=1 mlp=3",
        "unique=2 order=sequence prelude=1 coda=1", "heads=1 kv_heads=0",
        "protect=wdown:8", "protect=wo:16,wup:4,wqkv:7 hidden=72 unique=2", "protect=wo:5 aq=none",
        "width=96 hidden=8 extra_norm=each", /* F < C: no buffer may be F wide alone (make asan) */
        SYSTEM_FILES SHARING_FILES};
    write_data("e", 500, 333, HAND_VOCAB);
    const Tokenizer *tok = tokenizer_load(IN("e/tokenizer.model"));
    Shards *val = shards_open(IN("e"), "val", HAND_VOCAB);
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        char text[512];
        struct stat st;
        double percent;
        int bf16 = 1;
        Golf m, b;
        snprintf(text, sizeof text, "vocab=266 width=32 heads=2 kv_heads=1 mlp=2 seq=16 repeat=2 "
                 "batch=3 steps=10 %s", arms[a]);
        new_model(&m, text, 48);
        for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++)
            for (size_t i = t->at; i < t->at + t->n; i++) m.w[i] += (real)0.1 * noise(40, i);
        run_steps(&m, 0, 2);
        golf_save(&m, IN("model.golf"), tok->crc);
        const uint32_t crc = golf_load(&b, IN("model.golf"));
        golf_buffers(&b, 16);
        const Score in_memory = golf_eval(&m, tok, val, 0, 0);
        const Score in_file = golf_eval(&b, tok, val, 0, 0);
        const Ledger l = ledger_of(&m);
        CHECK(!stat(IN("model.golf"), &st) && (size_t)st.st_size == l.total &&
                  l.total <= artifact_bytes(&m.c), "%s: %zu bytes announced, %zu written", arms[a],
              l.total, (size_t)st.st_size);
        CHECK(l.core + l.embedding + l.interface + l.protect + l.header == l.total &&
                  !l.protect == !protects(arms[a]),
              "%s: ledger", arms[a]);
        for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++) /* what is stored as NAME:BITS? */
            CHECK(t->role != PROJ || !t->n || !protected_bits(&m.c, t->name, &percent) ||
                      percent < 100 || t->copy_bytes == (t->bits == 16 ? 2 * t->copy_n
                                        : 2 * (size_t)t->rows + t->copy_n * (size_t)t->bits / 8),
                  "%s: %s has %zu bytes", arms[a], t->name, t->copy_bytes);
        CHECK(in_memory.nll == in_file.nll && in_memory.bpb == in_file.bpb && crc == tok->crc &&
                  in_file.tokens == 320 && !memcmp(m.eff, b.eff, m.n_params * sizeof(real)),
              "%s: %.17g in memory, %.17g from the file", arms[a], in_memory.nll, in_file.nll);
        for (size_t i = 0; i < m.n_scales; i++) bf16 &= bf16_exact(m.scale[i]);
        CHECK(bf16, "%s: a scale is no bf16 number", arms[a]);
        golf_free(&m), golf_free(&b);
    }
}

/* ---------------------------------------------------------------------------------------------
 * Bits per byte, sampling
 * --------------------------------------------------------------------------------------------- */
static void test_bpb(void) {
    /* target:  _a  ab  _a  _a  <s> _a  ab  byte | _a  c  cc    no space after <s>, and <s> has
     * bytes:    1   2   2   2   0   1   2   1   |  2  1   2    no bytes, but its loss counts */
    const int t[] = {1, SP_A, AB, SP_A, SP_A, 1, SP_A, AB, 4, SP_A, 103, CC};
    const int strides[] = {0, 1, 3, 8};
    Golf m, one;
    mkdir(IN("b"), 0777);
    write_hand_model(IN("b.model"));
    write_shard(IN("b/x_val_000000.bin"), t, 12);
    const Tokenizer *tok = tokenizer_load(IN("b.model"));
    Shards *val = shards_open(IN("b"), "val", HAND_VOCAB);
    new_model(&m, "vocab=266 width=16 heads=2 seq=8 repeat=2", 40);
    new_model(&one, "vocab=266 width=16 heads=2 seq=8 repeat=2", 8);
    const double nll = 8 * golf_forward(&m, t, t + 1, 1, 8);
    Score s = golf_eval(&m, tok, val, 0, 0);
    CHECK(s.tokens == 8 && s.bytes == 11 && near(s.nll, nll, EPS) && near(s.loss, nll / 8, EPS) &&
              near(s.bpb, nll / 0.69314718055994531 / 11, EPS),
          "a row of 8: %d tokens, %d bytes, %.9g nats", (int)s.tokens, (int)s.bytes, s.nll);
    s = golf_eval(&m, tok, val, 2, 0);
    CHECK(s.tokens == 11 && s.bytes == 16, "sliding: %d, %d bytes", (int)s.tokens, (int)s.bytes);
    /* every target once, from the window that the rule names, for any length and stride */
    for (int n = 2; n < 36; n += n < 20 ? 1 : 5) {
        const int *r = tokens_below(HAND_VOCAB, (size_t)n, (uint64_t)n);
        write_shard(IN("b/x_val_000000.bin"), r, n);
        val = shards_open(IN("b"), "val", HAND_VOCAB);
        for (int k = 0; k < 4; k++) {
            const int step = strides[k] ? strides[k] : 8;
            const int total = strides[k] ? n - 1 : (n - 1) / 8 * 8;
            if (!total) {
                DIES("text under a row", "--seq=8", golf_eval(&m, tok, val, 0, 0));
                continue;
            }
            double sum = 0;
            int64_t bytes = 0;
            for (int i = 0; i < total; i++) { /* target i + 1 from the first window that holds it */
                const int from = i < 8 ? 0 : (i - 8) / step * step + step;
                golf_forward(&m, r + from, r + from + 1, 1, i - from + 1);
                sum += (double)m.loss[i - from];
                bytes += tokenizer_bytes(tok, r[i], r[i + 1]);
            }
            s = golf_eval(&m, tok, val, strides[k], 0);
            CHECK(s.tokens == total && s.bytes == bytes && near(s.nll, sum, EPS * total),
                  "%d tokens, stride %d: %d of %d tokens, nll %.9g of %.9g", n, strides[k],
                  (int)s.tokens, total, s.nll, sum);
            CHECK(s.nll == golf_eval(&one, tok, val, strides[k], 0).nll,
                  "stride %d: the loss depends on the rows per forward pass", strides[k]);
            if (total < 16) continue;
            s = golf_eval(&m, tok, val, strides[k], 13);
            CHECK(s.tokens == (strides[k] ? 13 : 8), "a prefix of 13: %d tokens", (int)s.tokens);
        }
    }
    golf_free(&m), golf_free(&one);
}

static void test_sampling(void) {
    enum { T = 16, V = HAND_VOCAB };
    const char *arms[] = {"", "wq=none aq=none", "extra_norm=each kv_heads=1 phase_embed=1"};
    double worst = 0;
    Golf m, ref;
    for (int a = 0; a < 3; a++) {
        char text[256];
        snprintf(text, sizeof text, "vocab=266 width=32 heads=2 seq=16 repeat=2 %s", arms[a]);
        new_model(&ref, text, T), new_model(&m, text, T);
        golf_cache(&m);
        const int *x = tokens_below(V, 2 * T, 50);
        for (int round = 0; round < 2; round++) { /* the second starts an emptied cache */
            m.cached = 0;
            for (int at = 0, n; at < T; at += n) {
                n = at == 0 ? 1 + 4 * round : 1 + at % 3, n = n > T - at ? T - at : n;
                golf_forward(&m, x + round * T + at, NULL, 1, n);
                golf_forward(&ref, x + round * T, NULL, 1, at + n);
                for (int i = 0; i < n * V; i++)
                    worst = fmax(worst, fabs((double)(m.logits[i] - ref.logits[at * V + i])));
            }
        }
        golf_free(&ref), golf_free(&m);
    }
    printf("cached decode against the full forward: logits differ by at most %.3g\n", worst);
    CHECK(worst <= 1e-4, "cached decode: logits differ by %.3g", worst);

    /* 50 greedy tokens, three times the context: when it is full its last half is kept */
    write_hand_model(IN("t.model"));
    const Tokenizer *tok = tokenizer_load(IN("t.model"));
    Config how = config_of("");
    strcpy(how.prompt, "abc ab"), how.tokens = 50, how.temperature = 0;
    new_model(&m, "vocab=266 width=32 heads=2 seq=16 repeat=2 seed=3", T);
    new_model(&ref, "vocab=266 width=32 heads=2 seq=16 repeat=2 seed=3", T);
    for (size_t i = 0; i < m.n_params; i++) m.w[i] = ref.w[i] += (real)0.3 * noise(60, i);
    golf_quantize(&m), golf_quantize(&ref), golf_cache(&m);
    int ids[64] = {1, ABC, SP, AB}, n = 4, from = 0;
    for (; n < 54; n++) {
        if (n - from > T) from = n - T / 2;
        golf_forward(&ref, ids + from, NULL, 1, n - from);
        ids[n] = pick(ref.logits + (size_t)(n - from - 1) * V, V, 0, 1, 0);
        if (ids[n] == tok->bos) break;
    }
    size_t len, out_len;
    char *want = tokenizer_decode(tok, ids, (size_t)n, &len), *out;
    FILE *f = open_memstream(&out, &out_len);
    golf_sample(&m, tok, &how, f);
    fclose(f);
    CHECK(n > 30 && out_len == len + 1 && !memcmp(out, want, len), "%d greedy tokens: %s, not %s",
          n, out, want);
    golf_free(&m), golf_free(&ref);

    /* p = .1 .2 .3 .4, best first: .4 up to u = .4, .3 up to .7, .2 up to .9 */
    const struct { double temperature, top_p, u; int want; } rows[] = {
        {0, 1, 0.99, 3}, {1, 1, 0.05, 3}, {1, 1, 0.45, 2}, {1, 1, 0.75, 1}, {1, 1, 0.95, 0},
        {1, 0.5, 0.5, 3}, {1, 0.5, 0.6, 2}, {1, 0.5, 0.99, 2}, {1, 0, 0.99, 3}, {0.01, 1, 0.9, 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        real l[4];
        for (int k = 0; k < 4; k++) l[k] = (real)log(0.1 * (k + 1));
        const int got = pick(l, 4, rows[i].temperature, rows[i].top_p, rows[i].u);
        CHECK(got == rows[i].want, "pick, row %zu: %d instead of %d", i, got, rows[i].want);
    }
}

/* ---------------------------------------------------------------------------------------------
 * All of them
 * ------------------------------------------------------------------------------------------ */
int main(void) {
    const struct { const char *name; void (*run)(void); } groups[] = {
        {"numbers", test_numbers}, {"matmul", test_matmul},
#ifdef GOLF_DOUBLE
        {"layer gradients", test_layer_gradients}, {"model gradients", test_model_gradients},
#endif
        {"large batch", test_large_batch}, {"phases", test_phase_order},
        {"quantizers: ternary", test_ternary},
        {"quantizers: integers", test_integers}, SYSTEM_TESTS SHARING_TESTS
        {"adamw", test_adamw}, {"muon", test_muon},
        {"tokenizer", test_tokenizer}, {"shipped tokenizers", test_shipped_tokenizers},
        {"shards", test_shards},
        {"training", test_training}, {"export", test_export}, {"fit", test_fit},
        {"perturb", test_perturb}, {"bpb", test_bpb},
        {"sampling", test_sampling}, {"errors", test_errors}, {"corruption", test_corruption},
    };
    const char *only = getenv("GOLF_TEST_ONLY"), *where = getenv("TMPDIR");
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(tmp, sizeof tmp, "%s/golf_test_XXXXXX", where && *where ? where : "/tmp");
    if (!mkdtemp(tmp)) die("%s: cannot make a folder: %s", tmp, strerror(errno));
    parent = getpid();
    atexit(clean_up);
    threads(1); /* these models are too small for more, and a forked child has only one */
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (only && !strstr(groups[i].name, only)) continue;
        const double t = now();
        const int before = failed;
        groups[i].run();
        printf("%-22s %s %6.2f s\n", groups[i].name, failed == before ? "ok    " : "FAILED",
               now() - t);
    }
    printf("%s numbers: %d passed, %d failed\n", DOUBLE ? "double" : "float", passed, failed);
    return failed != 0 || passed == 0;
}
