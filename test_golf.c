/* test_golf.c - every test of train_golf.c. `make test` compiles this file twice, with double and
 * with float numbers, and runs both; it needs no network and no data, works in a folder of its own
 * under $TMPDIR and removes it.
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

#define CHECK(ok, ...) check(ok, __LINE__, __VA_ARGS__)
__attribute__((format(printf, 3, 4))) static void check(int ok, int line, const char *fmt, ...) {
    va_list ap;
    if (ok) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED test_golf.c:%d: ", line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

enum { DOUBLE = sizeof(real) == 8 };
static const double EPS = DOUBLE ? 1e-12 : 1e-5; /* "equal up to rounding" */

static int near(double a, double b, double tolerance) { return fabs(a - b) <= tolerance; }
static real noise(uint64_t key, size_t i) { return (real)normal01(key, i); }
static int dice(int sides) { /* 0 .. sides-1, the same sequence in every run */
    static uint64_t i;
    return (int)(hash64(99, i++) % (uint64_t)sides);
}

/* Memory for one test: n numbers, noise of this key or zeros, released together. */
static void *kept[4096];
static int n_kept;
static void *keep_(size_t n, size_t size) { return kept[n_kept++] = xcalloc(n, size); }
static real *reals(size_t n, uint64_t key) {
    real *x = keep_(n, sizeof(real));
    for (size_t i = 0; i < n && key; i++) x[i] = noise(key, i);
    return x;
}
static int *ints(size_t n, uint64_t key, int below) {
    int *x = keep_(n, sizeof(int));
    for (size_t i = 0; i < n; i++) x[i] = (int)(hash64(key, i) % (uint64_t)below);
    return x;
}
static void release(void) {
    while (n_kept) free(kept[--n_kept]);
}

static void threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

/* A config from defaults and "key=value key=value". */
static Config config_of(const char *text) {
    Config c;
    char copy[1024], option[256], *save;
    config_defaults(&c);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        snprintf(option, sizeof option, "--%s", w);
        if (!strncmp(w, "vocab=", 6)) c.vocab = atoi(w + 6);
        else parse_option(&c, option, MODEL | TRAIN);
    }
    config_check(&c);
    return c;
}

static Golf *new_model(Golf *m, const char *config, size_t N) {
    const Config c = config_of(config);
    golf_init(m, &c, 1);
    if (N) golf_buffers(m, N);
    return m;
}

/* ---------------------------------------------------------------------------------------------
 * Files and children
 * --------------------------------------------------------------------------------------------- */
static char tmp[512];

static const char *in_tmp(const char *name) { /* eight at a time */
    static char path[8][1024];
    static int k;
    k = (k + 1) & 7;
    snprintf(path[k], sizeof path[k], "%s/%s", tmp, name);
    return path[k];
}

static void put_file(const char *path, const void *data, size_t n) { /* no fsync: tests write a lot */
    FILE *f = fopen(path, "wb");
    if (!f || (n && fwrite(data, 1, n, f) != n) || fclose(f)) die("%s: cannot write", path);
}

static int there(const char *name) { return access(in_tmp(name), F_OK) == 0; }

static int same_file(const char *path, const void *data, size_t n) {
    size_t len;
    uint8_t *now_there = read_file(path, &len);
    const int same = len == n && !memcmp(now_there, data, n);
    free(now_there);
    return same;
}

static void remove_tree(const char *path) {
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
            char inner[2048];
            snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
            remove_tree(inner);
        }
    if (d) closedir(d);
    remove(path);
}

/* STATUS(statements) runs them in a child with one thread and a time limit: its exit status, 0
 * when they run through, 1 after die(), -1 after a signal. What it wrote to stderr is `message`.
 * A sanitizer's finding has an exit status of its own. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99"; }
const char *__ubsan_default_options(void) { return "halt_on_error=1:exitcode=98"; }
static char message[8192];
static int err_pipe[2];

#define STATUS(...) (child_start() == 0 ? ((__VA_ARGS__), exit(0), 0) : child_end())
static pid_t child;
static pid_t child_start(void) {
    fflush(stdout);
    if (pipe(err_pipe) || (child = fork()) < 0) die("cannot start a child: %s", strerror(errno));
    if (child) return child;
    dup2(err_pipe[1], 2);
    close(err_pipe[0]), close(err_pipe[1]);
    if (!freopen("/dev/null", "w", stdout)) exit(9);
    threads(1); /* the parent's team of threads does not exist here */
    alarm(10);
    return 0;
}
static int child_end(void) {
    int status;
    size_t n = 0;
    close(err_pipe[1]);
    for (ssize_t k; n < sizeof message - 1 &&
                    (k = read(err_pipe[0], message + n, sizeof message - 1 - n)) > 0;)
        n += (size_t)k;
    message[n] = 0;
    close(err_pipe[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* One line on stderr with all of the words ('|' between them), exit status 1. */
static void expect_message(int status, const char *what, const char *words) {
    char copy[512], *save;
    const size_t len = strlen(message);
    snprintf(copy, sizeof copy, "%s", words);
    CHECK(status == 1, "%s: exit status %d instead of 1: %s", what, status, message);
    CHECK(len && strchr(message, '\n') == message + len - 1, "%s: expected one line, found: %s", what,
          message);
    for (char *w = strtok_r(copy, "|", &save); w; w = strtok_r(NULL, "|", &save))
        CHECK(strstr(message, w) != NULL, "%s: expected '%s' in: %s", what, w, message);
}
#define DIES(what, words, ...) expect_message(STATUS(__VA_ARGS__), what, words)

/* A tokenizer model written by hand: fields of a protobuf message. */
typedef struct {
    uint8_t b[32768];
    size_t n;
} Proto;

static void pb_raw(Proto *p, const char *s, size_t n) { memcpy(p->b + p->n, s, n), p->n += n; }

static void pb_piece(Proto *p, const char *s, float score, int type) { /* field 1: {1, 2, 3} */
    const size_t n = strlen(s);
    const uint8_t head[] = {1 << 3 | 2, (uint8_t)(n + 9), 1 << 3 | 2, (uint8_t)n};
    memcpy(p->b + p->n, head, 4), memcpy(p->b + p->n + 4, s, n), p->n += 4 + n;
    p->b[p->n++] = 2 << 3 | 5, memcpy(p->b + p->n, &score, 4), p->n += 4;
    p->b[p->n++] = 3 << 3 | 0, p->b[p->n++] = (uint8_t)type;
}
#define PB_BPE(p) pb_raw(p, "\x12\x05\x18\x02\x98\x02\x01", 7) /* 2: {3: BPE, 35: byte fallback} */
#define PB_PLAIN(p) pb_raw(p, "\x1A\x04\x18\x00\x20\x00", 6)   /* 3: {3: no prefix, 4: no trim} */

static void pb_start(Proto *p, int bytes) { /* 0..3, and the bytes as 4..259 */
    char name[8];
    p->n = 0;
    pb_piece(p, "<pad>", 0, PIECE_CONTROL), pb_piece(p, "<s>", 0, PIECE_CONTROL);
    pb_piece(p, "</s>", 0, PIECE_CONTROL), pb_piece(p, "<unk>", 0, PIECE_UNKNOWN);
    for (int i = 0; i < 256 && bytes; i++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        pb_piece(p, name, 0, PIECE_BYTE);
    }
}

enum { HAND_VOCAB = 266, AB = 260, BC, ABC, SP_A, SP, CC }; /* pieces of the model below */
static void write_hand_model(const char *path) {
    static Proto p;
    pb_start(&p, 1);
    pb_piece(&p, "ab", -0, 1), pb_piece(&p, "bc", -1, 1), pb_piece(&p, "abc", -2, 1);
    pb_piece(&p, SPACE "a", -3, 1), pb_piece(&p, SPACE, -4, 1), pb_piece(&p, "cc", -5, 1);
    PB_BPE(&p);
    PB_PLAIN(&p);
    put_file(path, p.b, p.n);
}

static void write_shard(const char *path, const int *tokens, int n) {
    uint8_t *b = xcalloc(SHARD_HEADER + 2 * (size_t)n, 1);
    put_u(b, SHARD_MAGIC, 4), put_u(b + 4, 1, 4), put_u(b + 8, (uint64_t)n, 4);
    for (int i = 0; i < n; i++) put_u(b + SHARD_HEADER + 2 * i, (uint64_t)tokens[i], 2);
    put_file(path, b, SHARD_HEADER + 2 * (size_t)n);
    free(b);
}

/* A data folder: the tokenizer above and random shards of its tokens. */
static void write_data(const char *name, int train_tokens, int val_tokens, int vocab) {
    char path[256];
    int *t = ints((size_t)train_tokens + (size_t)val_tokens, 17, vocab);
    mkdir(in_tmp(name), 0777);
    snprintf(path, sizeof path, "%s/tokenizer.model", name), write_hand_model(in_tmp(path));
    snprintf(path, sizeof path, "%s/x_train_000000.bin", name);
    write_shard(in_tmp(path), t, train_tokens);
    snprintf(path, sizeof path, "%s/x_val_000000.bin", name);
    write_shard(in_tmp(path), t + train_tokens, val_tokens);
}

/* ---------------------------------------------------------------------------------------------
 * Numbers
 * --------------------------------------------------------------------------------------------- */
static void test_numbers(void) {
    CHECK(crc32_of(0, "123456789", 9) == 0xCBF43926u, "CRC-32 check value");
    CHECK(crc32_of(crc32_of(0, "1234", 4), "56789", 5) == 0xCBF43926u, "CRC-32 in two parts");
    CHECK(crc32_of(0, "", 0) == 0, "CRC-32 of nothing");
    /* bf16 keeps 8 bits: 1 + 1/256 and 1 + 3/256 are ties, to the even neighbour */
    CHECK(to_bf16(1 + (real)0x1p-8) == 0x3F80 && to_bf16(1 + 3 * (real)0x1p-8) == 0x3F82, "ties");
    CHECK(to_bf16(1 + (real)0x1.02p-8) == 0x3F81 && to_bf16(-1 - (real)0x1.02p-8) == 0xBF81, "above");
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
    double s1 = 0, s2 = 0, n1 = 0, n2 = 0, lo = 1, hi = 0;
    enum { DRAWS = 100000 };
    for (uint64_t i = 0; i < DRAWS; i++) {
        const double u = uniform01(5, i), z = normal01(6, i);
        s1 += u, s2 += u * u, n1 += z, n2 += z * z;
        lo = u < lo ? u : lo, hi = u > hi ? u : hi;
    }
    /* standard deviations of these four means: 0.0009, 0.0009, 0.003, 0.0045 */
    CHECK(near(s1 / DRAWS, 0.5, 0.005) && near(s2 / DRAWS, 1.0 / 3, 0.005) && lo > 0 && hi < 1,
          "uniform: %g %g %g %g", s1 / DRAWS, s2 / DRAWS, lo, hi);
    CHECK(near(n1 / DRAWS, 0, 0.015) && near(n2 / DRAWS, 1, 0.02), "normal: %g %g", n1 / DRAWS, n2 / DRAWS);
    uint8_t raw[8];
    put_u(raw, 0x0123456789ABCDEFu, 8);
    CHECK(raw[0] == 0xEF && raw[7] == 1 && get_u(raw, 8) == 0x0123456789ABCDEFu, "little-endian");

    double worst = 0, worst_cap = 0;
    for (double x = -87; x <= 88; x += 0.0137)
        worst = fmax(worst, fabs((double)fast_exp((real)x) / exp((double)(real)x) - 1));
    CHECK(worst <= (DOUBLE ? 1e-15 : 3e-7), "fast_exp: relative error %.3g", worst);
    CHECK(fast_exp(0) == 1 && fast_exp(-1000) >= 0 && (double)fast_exp(-1000) < 2e-38, "fast_exp ends");
    for (double z = -300; z <= 300; z += 0.0731) {
        const double want = 30 * tanh((double)(real)z / 30);
        worst_cap = fmax(worst_cap, fabs((double)softcap((real)z) - want));
    }
    CHECK(worst_cap <= (DOUBLE ? 1e-13 : 1e-5), "softcap: error %.3g", worst_cap);
    CHECK(softcap(0) == 0 && near((double)softcap((real)1e30), 30, 1e-5) &&
              near((double)softcap((real)-1e30), -30, 1e-5), "softcap ends");

    /* cross-entropy by its definition */
    enum { N = 3, V = 40 };
    real *l = reals((size_t)N * V, 8), lse[N], loss[N];
    double want[N];
    const int y[N] = {0, 17, 39};
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int i = 0; i < V; i++) {
            l[n * V + i] *= 20;
            sum += exp(30 * tanh((double)l[n * V + i] / 30));
        }
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
typedef struct {
    Mat v;
    void *mem[2];
} Operand;

static Operand operand(int r, int c, int trans, int codes) { /* element (i,j) of r x c, random */
    Operand o = {.v = {.trans = trans}};
    const int rows = trans ? c : r, cols = trans ? r : c;
    o.v.ld = (size_t)cols + (size_t)dice(3) * 5;
    const size_t len = ((size_t)rows - 1) * o.v.ld + (size_t)cols;
    if (codes) {
        int8_t *q = malloc(len);
        real *inv = malloc((size_t)rows * sizeof(real));
        for (size_t i = 0; i < len; i++) q[i] = (int8_t)(dice(255) - 127);
        for (int i = 0; i < rows; i++) inv[i] = (real)(1 + dice(100)) / 6000;
        o.v.q = o.mem[0] = q, o.v.inv = o.mem[1] = inv;
    } else {
        real *f = malloc(len * sizeof(real));
        for (size_t i = 0; i < len; i++) f[i] = (real)(dice(20001) - 10000) / 10000;
        o.v.f = o.mem[0] = f;
    }
    return o;
}
static void operand_free(Operand o) { free(o.mem[0]), free(o.mem[1]); }

static void check_gemm(int m, int n, int k, int kind, int acc) {
    Operand a = operand(m, k, kind & 1, kind >> 2 & 1), b = operand(k, n, kind >> 1 & 1, kind >> 3);
    const size_t ldc = (size_t)n + (size_t)dice(2) * 7, len = ((size_t)m - 1) * ldc + (size_t)n;
    real *c0 = malloc(len * sizeof(real)), *c = malloc(len * sizeof(real));
    real *d = malloc(len * sizeof(real)), *ref = malloc(len * sizeof(real));
    int good = 1, padding = 1, bits = 1;
    for (size_t i = 0; i < len; i++) c0[i] = c[i] = ref[i] = d[i] = (real)dice(100) / 100;
    gemm_naive(ref, ldc, a.v, b.v, m, n, k, acc);
    gemm_serial(c, ldc, a.v, b.v, m, n, k, acc);
    gemm(d, ldc, a.v, b.v, m, n, k, acc);
    for (int i = 0; i < m; i++)
        for (size_t at = (size_t)i * ldc, j = 0; j < ldc && at + j < len; j++)
            if (j < (size_t)n) /* |terms| <= 1 */
                good &= near((double)c[at + j], (double)ref[at + j], (DOUBLE ? 1e-15 : 4e-7) * (k + 1));
            else padding &= c[at + j] == c0[at + j];
    CHECK(good && padding, "gemm %d %d %d kind %d acc %d: values %d padding %d", m, n, k, kind, acc, good,
          padding);
    bits &= !memcmp(c, d, len * sizeof(real));
    for (int z = 0; z < 4; z++) { /* any part computed alone has the same bits */
        const int i = dice(m), j = dice(n), rows = z & 1 ? 1 : 1 + dice(m - i);
        const int cols = z & 2 ? 1 : 1 + dice(n - j);
        memcpy(d, c0, len * sizeof(real));
        gemm(d + (size_t)i * ldc + j, ldc, mat_at(a.v, (size_t)i, 0), mat_at(b.v, 0, (size_t)j), rows,
             cols, k, acc);
        for (size_t at = (size_t)i * ldc + (size_t)j, r = 0; r < (size_t)rows; r++, at += ldc)
            bits &= !memcmp(d + at, c + at, (size_t)cols * sizeof(real));
    }
    CHECK(bits, "gemm %d %d %d kind %d: bits depend on what else is computed", m, n, k, kind);
    operand_free(a), operand_free(b), free(c0), free(c), free(d), free(ref);
}

static void check_gemm_int(int n, int m, int k, int extreme) {
    int8_t *x = malloc((size_t)n * (size_t)k), *code = malloc((size_t)m * (size_t)k);
    const size_t ldy = (size_t)m + (size_t)dice(2) * 3, len = ((size_t)n - 1) * ldy + (size_t)m;
    real *inv = malloc((size_t)n * sizeof(real)), *y = malloc(len * sizeof(real));
    real *ref = malloc(len * sizeof(real)), *one = malloc((size_t)m * sizeof(real));
    const real s = (real)(1 + dice(100)) / 77;
    for (int i = 0; i < n * k; i++) x[i] = extreme ? -128 : (int8_t)(dice(256) - 128);
    for (int i = 0; i < m * k; i++) code[i] = extreme ? 1 : (int8_t)(dice(3) - 1);
    for (int i = 0; i < n; i++) inv[i] = (real)(1 + dice(100)) / 6000;
    for (size_t i = 0; i < len; i++) ref[i] = y[i] = 7;
    IntWeights w = {0};
    for (int i = 0; i < 2; i++) int_pack(&w, code, m, k); /* the second time into the same panel */
    gemm_int_naive(ref, ldy, x, inv, code, s, n, m, k);
    gemm_int(y, ldy, x, inv, &w, s, n);
    const int i = dice(n);
    gemm_int(one, ldy, x + (size_t)i * (size_t)k, inv + i, &w, s, 1);
    CHECK(!memcmp(ref, y, len * sizeof(real)) &&
              !memcmp(ref + (size_t)i * ldy, one, (size_t)m * sizeof(real)),
          "integer product %d %d %d differs from the exact sum", n, m, k);
    double sum = 0; /* the naive twin itself, in another order and type */
    for (int p = k; p-- > 0;) sum += (double)x[p] * (double)code[p];
    CHECK(ref[0] == (real)sum * (s * inv[0]), "naive integer product %d %d %d", n, m, k);
    free(x), free(code), free(inv), free(y), free(ref), free(one), free(w.panel);
}

static void test_matmul(void) {
    static const int sizes[] = {1,  2,  3,  4,  5,  7,  8,  9,  13, 14, 15,  16,  17,
                                28, 29, 31, 32, 33, 47, 63, 64, 65, 100, 257, 300, 530};
    enum { S = sizeof sizes / sizeof *sizes };
    for (int kind = 0; kind < 16; kind++)
        for (int z = 0; z < 16; z++)
            check_gemm(sizes[dice(S - 4)], sizes[dice(S - 4)], sizes[dice(S)], kind, z & 1);
    check_gemm(70, 1100, 260, 2, 1);
    check_gemm(300, 33, 530, 1, 1);
    for (int z = 0; z < 150; z++) check_gemm_int(sizes[dice(S - 2)], sizes[dice(S - 4)], sizes[dice(S)], 0);
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
        for (int k = 0; k < 4; k++) {
            w[i] = was + at[k];
            l[k] = loss(arg);
        }
        w[i] = was;
        const double g = (8 * (l[0] - l[1]) - (l[2] - l[3])) / (12 * h), e = g - dw[i];
        num += e * e;
        den += g * g + dw[i] * dw[i];
    }
    return den > 0 ? sqrt(num / den) : 1;
}
#define GRAD_TOL 1e-7

/* A layer alone: out = f(a, b, c, d, e), loss = sum(out * coef), so that d(out) is coef. Parameter
 * gradients accumulate: they start at 0.25 here. N = 70 tokens are two partial sums. */
typedef struct {
    enum { RMSNORM, EMBEDDING, MIX, QK, ATTENTION, RELU2, GATE, LOSS, LINEAR } kind;
    int N, K, B, T, H, KV, D, slice;
    real *a, *b, *c, *d, *e, *out, *coef, *r;
    size_t n_out;
    int *tokens;
    Golf *m;
} Layer;

static double layer_loss(void *arg) {
    Layer *l = arg;
    const int N = l->N, K = l->K, H = l->H, KV = l->KV, D = l->D;
    double sum = 0;
    switch (l->kind) {
    case RMSNORM: rmsnorm_forward(l->out, l->r, l->a, l->b, N, K); break;
    case EMBEDDING: embed_forward(l->out, l->a, l->tokens, N, K); break;
    case MIX: mix_forward(l->out, l->a, l->b, l->c, l->d, l->e, N, K); break;
    case QK: qk_forward(l->out, l->a, l->b, l->c, 0, N, l->T, H, KV, D); break;
    case ATTENTION:
        attention_forward(l->out, l->r, l->a, (size_t)H * D, l->b, (size_t)KV * D, l->c,
                          (size_t)KV * D, l->B, l->T, l->T, H, KV, D);
        break;
    case RELU2: relu2_forward(l->out, l->a, N, K); break;
    case GATE: gate_forward(l->out, l->a, l->b, l->c, N, K); break;
    case LOSS: /* mean over the tokens, as golf_backward assumes */
        memcpy(l->out, l->a, l->n_out * sizeof(real));
        loss_forward(l->out, l->r, l->b, l->tokens, N, K);
        for (int n = 0; n < N; n++) sum += l->b[n] / N;
        return sum;
    case LINEAR:
        golf_quantize(l->m);
        act_quant(&l->m->phase->in_q, l->a, N, K, l->m->c.aq, l->m->freeze);
        linear_forward(l->m, l->out, (size_t)D, &l->m->phase->in_q, T_wqkv, 1, l->slice, N);
    }
    for (size_t i = 0; i < l->n_out; i++) sum += l->out[i] * l->coef[i];
    return sum;
}

static real *quarter(size_t n) {
    real *x = reals(n, 0);
    for (size_t i = 0; i < n; i++) x[i] = 0.25;
    return x;
}

static void check_grad(Layer *l, const char *name, real *w, real *dw, size_t n, double started_at) {
    for (size_t i = 0; i < n; i++) dw[i] -= started_at;
    const double e = grad_error(w, dw, n, layer_loss, l);
    CHECK(e <= GRAD_TOL, "layer %d, gradient of %s: relative error %.3g", l->kind, name, e);
}

static void test_attention_gradient(int B, int T, int H, int KV, int D) {
    const size_t nq = (size_t)B * T * H * D, nk = (size_t)B * T * KV * D;
    Layer l = {.kind = ATTENTION, .B = B, .T = T, .H = H, .KV = KV, .D = D, .a = reals(nq, 1),
               .b = reals(nk, 2), .c = reals(nk, 3), .out = reals(nq, 0), .coef = reals(nq, 4),
               .r = reals((size_t)B * T * H, 0), .n_out = nq};
    real *dq = reals(nq, 5), *dk = reals(nk, 6), *dv = reals(nk, 7); /* all overwritten */
    const size_t ldq = (size_t)H * D, ldk = (size_t)KV * D;
    layer_loss(&l);
    /* the definition: query i of head h sees keys 0..i of key/value head h / (H/KV) */
    double worst = 0;
    for (int n = 0; n < B * T; n++)
        for (int h = 0; h < H; h++) {
            const int kv = h / (H / KV), first = n - n % T;
            double sum = 0, o = 0;
            for (int t = first; t <= n; t++) {
                double s = 0;
                for (int i = 0; i < D; i++) s += l.a[n * ldq + h * D + i] * l.b[t * ldk + kv * D + i];
                sum += exp(s / sqrt((double)D));
                o += exp(s / sqrt((double)D)) * l.c[t * ldk + kv * D];
            }
            worst = fmax(worst, fabs(o / sum - l.out[n * ldq + h * D]));
        }
    CHECK(worst <= 1e-12, "attention T=%d H=%d KV=%d: error %.3g", T, H, KV, worst);
    attention_backward(dq, ldq, dk, ldk, dv, ldk, l.coef, l.r, l.a, ldq, l.b, ldk, l.c, ldk, B, T, H,
                       KV, D);
    if (T > 1) { /* one key: its weight is 1 whatever q and k are */
        check_grad(&l, "q", l.a, dq, nq, 0);
        check_grad(&l, "k", l.b, dk, nk, 0);
    }
    check_grad(&l, "v", l.c, dv, nk, 0);
}

static void test_linear_gradient(const char *config) {
    enum { N = 6, C = 8 };
    Golf m;
    const Config c = config_of(config);
    golf_init(&m, &c, 1);
    m.freeze = RECORD;
    m.res = owned(&m, m.n_params, sizeof(real));
    golf_buffers(&m, N);
    const int QKV = m.t[T_wqkv].rows;
    for (int s = 0, first, rows; s < 3; s++) {
        if (!(rows = row_range(&c, T_wqkv, s, &first))) continue;
        Layer l = {.kind = LINEAR, .N = N, .K = C, .D = QKV, .slice = s, .a = reals(N * C, 11), .m = &m,
                   .out = reals(N * QKV, 0), .coef = reals(N * QKV, 12), .n_out = N * QKV};
        for (int i = 0; i < N * QKV; i++) /* only this slice's columns are written */
            if (i % QKV < first || i % QKV >= first + rows) l.coef[i] = 0;
        m.freeze = RECORD;
        const double recorded = layer_loss(&l);
        m.freeze = LIVE; /* what training computes, for wq=ternary aq=int8 in integers */
        CHECK(near(layer_loss(&l), recorded, 1e-9), "%s: frozen linear differs", config);
        m.freeze = RECORD;
        layer_loss(&l);
        m.freeze = REPLAY;
        layer_loss(&l);
        real *dx = reals(N * C, 13), *dw = m.g + m.t[T_wqkv].at + (size_t)QKV * C; /* block 1 */
        for (size_t i = 0; i < m.n_params; i++) m.g[i] = 0.25;
        linear_backward(&m, dx, l.coef, (size_t)QKV, &m.phase->in_q, T_wqkv, 1, s, N);
        check_grad(&l, config, l.a, dx, N * C, 0);
        check_grad(&l, "the weight", m.w + m.t[T_wqkv].at + (size_t)(QKV + first) * C,
                   dw + (size_t)first * C, (size_t)rows * C, 0.25);
    }
    golf_free(&m);
}

static void test_layer_gradients(void) {
    enum { N = 70, K = 6, V = 9, H = 4, KV = 2, D = 6, T = 35, QKV = (H + 2 * KV) * D };
    real *part = reals(2 * 3 * 64, 20), *dx, *dg;
    Layer l = {.kind = RMSNORM, .N = N, .K = K, .a = reals(N * K, 1), .b = reals(K, 2), .r = reals(N, 0),
               .out = reals(N * K, 0), .coef = reals(N * K, 3), .n_out = N * K};
    layer_loss(&l);
    for (int acc = 0; acc < 2; acc++) {
        dx = quarter(N * K), dg = quarter(K);
        rmsnorm_backward(dx, acc, dg, l.coef, l.a, l.r, l.b, N, K, part);
        check_grad(&l, "x", l.a, dx, N * K, acc ? 0.25 : 0);
        check_grad(&l, "g", l.b, dg, K, 0.25);
    }

    l = (Layer){.kind = EMBEDDING, .N = N, .K = 20, .a = reals(V * 20, 1), .tokens = ints(N, 2, V),
                .out = reals(N * 20, 0), .coef = reals(N * 20, 3), .n_out = N * 20};
    dx = quarter(V * 20);
    embed_backward(dx, l.coef, l.tokens, N, 20);
    check_grad(&l, "E", l.a, dx, V * 20, 0.25);

    l = (Layer){.kind = MIX, .N = N, .K = K, .a = reals(N * K, 1), .b = reals(N * K, 2), .c = reals(K, 3),
                .d = reals(K, 4), .e = reals(K, 5), .out = reals(N * K, 0), .coef = reals(N * K, 6),
                .n_out = N * K};
    real *dh = reals(N * K, 0), *dx0 = quarter(N * K), *da = quarter(K), *db = quarter(K), *de = quarter(K);
    memcpy(dh, l.coef, N * K * sizeof(real));
    mix_backward(dh, dx0, da, db, de, l.a, l.b, l.c, l.d, N, K, part);
    check_grad(&l, "prev", l.a, dh, N * K, 0), check_grad(&l, "x0", l.b, dx0, N * K, 0.25);
    check_grad(&l, "a", l.c, da, K, 0.25), check_grad(&l, "b", l.d, db, K, 0.25);
    check_grad(&l, "e", l.e, de, K, 0.25);

    Golf m;
    new_model(&m, "vocab=8 width=24 heads=4 kv_heads=2 seq=35 repeat=1 mlp=1", T); /* for its RoPE */
    l = (Layer){.kind = QK, .N = N, .T = T, .H = H, .KV = KV, .D = D, .a = reals(N * QKV, 1),
                .b = reals(H, 2), .c = m.rope, .out = reals(N * (H + KV) * D, 0),
                .coef = reals(N * (H + KV) * D, 3), .n_out = N * (H + KV) * D};
    real *dqkv = reals(N * QKV, 4), *v0 = reals(N * QKV, 4);
    dg = quarter(H);
    qk_backward(dqkv, dg, l.coef, l.a, l.b, l.c, N, T, H, KV, D, part);
    int untouched = 1;
    for (int i = 0; i < N * QKV; i++)
        if (i % QKV >= (H + KV) * D) untouched &= dqkv[i] == v0[i], dqkv[i] = 0;
    CHECK(untouched, "qk_backward wrote to the values");
    check_grad(&l, "qkv", l.a, dqkv, N * QKV, 0), check_grad(&l, "q_gain", l.b, dg, H, 0.25);
    /* RoPE: a dot product of rotated q and k depends on the distance alone; position 0 is unmoved */
    for (int n = 1; n < N; n++) memcpy(l.a + n * QKV, l.a, QKV * sizeof(real));
    layer_loss(&l);
    const real *q = l.out, *k = l.out + H * D;
    const int ld = (H + KV) * D;
    double d5[2] = {0, 0}, d0 = 0, ss = 0;
    for (int i = 0; i < D; i++) {
        d5[0] += q[7 * ld + i] * k[2 * ld + i], d5[1] += q[30 * ld + i] * k[25 * ld + i];
        ss += l.a[i] * l.a[i] / D;
    }
    CHECK(near(d5[0], d5[1], 1e-12), "RoPE: %.9g at distance 5, then %.9g", d5[0], d5[1]);
    for (int i = 0; i < D; i++) d0 = fmax(d0, fabs(q[i] - l.a[i] / sqrt(ss + 1e-6) * l.b[0]));
    CHECK(d0 <= 1e-12, "RoPE moves position 0 by %g", d0);
    /* position 1, first pair: by the angle 1, (x1, x2) -> (x1 cos + x2 sin, x2 cos - x1 sin) */
    CHECK(near(q[ld], q[0] * cos(1.0) + q[3] * sin(1.0), 1e-12), "RoPE turns the other way");
    golf_free(&m);

    test_attention_gradient(1, 1, 1, 1, 2);
    test_attention_gradient(2, 5, 4, 2, 4);
    test_attention_gradient(2, 6, 4, 1, 2);
    test_attention_gradient(1, 64, 1, 1, 2);
    test_attention_gradient(1, 67, 2, 1, 2);
    test_attention_gradient(1, 130, 1, 1, 2);

    l = (Layer){.kind = RELU2, .N = N, .K = K, .a = reals(N * K, 1), .out = reals(N * K, 0),
                .coef = reals(N * K, 2), .n_out = N * K};
    dx = reals(N * K, 2);
    relu2_backward(dx, l.a, N, K);
    check_grad(&l, "f", l.a, dx, N * K, 0);

    l = (Layer){.kind = GATE, .N = N, .K = K, .a = reals(N * K, 1), .b = reals(N * K, 2), .c = reals(K, 3),
                .out = reals(N * K, 0), .coef = reals(N * K, 4), .n_out = N * K};
    dx = reals(N * K, 5), dg = quarter(K);
    gate_backward(dx, dg, l.coef, l.b, l.c, N, K, part);
    check_grad(&l, "h", l.a, l.coef, N * K, 0);
    check_grad(&l, "y", l.b, dx, N * K, 0), check_grad(&l, "g", l.c, dg, K, 0.25);

    l = (Layer){.kind = LOSS, .N = N, .K = V, .a = reals(N * V, 1), .b = reals(N, 0), .r = reals(N, 0),
                .out = reals(N * V, 0), .n_out = N * V, .tokens = ints(N, 2, V)};
    for (int i = 0; i < N * V; i++) l.a[i] *= 25; /* well into the softcap */
    layer_loss(&l);
    dx = reals(N * V, 0);
    memcpy(dx, l.out, N * V * sizeof(real));
    loss_backward(dx, l.r, l.tokens, N, V);
    check_grad(&l, "logits", l.a, dx, N * V, 0);

    const char *linear[] = {"wq=none aq=none", "wq=ternary aq=none", "wq=none aq=int8",
                            "wq=ternary aq=int8", "extra_norm=each kv_heads=1"};
    for (int i = 0; i < 5; i++) {
        char text[256];
        snprintf(text, sizeof text, "vocab=8 width=8 heads=2 seq=8 unique=2 repeat=1 %s", linear[i]);
        test_linear_gradient(text);
    }
}

typedef struct {
    Golf m;
    int x[64], y[64], B, T;
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
        "unique=2 repeat=2 order=sequence", "prelude=1 coda=1 repeat=2", "prelude=2 repeat=1 coda=1",
        "mix=none", "mix=scalar", "gain=none", "gain=scalar", "gate=none", "gate=scalar",
        "qgain=none", "qgain=scalar", "xgain=none", "xgain=scalar", "phase=0 repeat=3",
        "phase=0 unique=2 repeat=2 gate=scalar", "phase_embed=1", "extra_norm=none",
        "extra_norm=each", "extra_norm=each kv_heads=1 unique=2 repeat=1 wq=none aq=none",
        "heads=4 kv_heads=2", "heads=4 kv_heads=1 wq=none", "wq=none aq=none", "wq=none", "aq=none",
        "wq=none aq=none extra_norm=none gain=none gate=none mix=none qgain=none embed_bits=16",
        "embed_bits=4", "embed_bits=16 repeat=3 extra_norm=each phase_embed=1",
    };
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s%s", base, strstr(arms[a], "repeat") ? "" : "repeat=2 ", arms[a]);
        const Config c = config_of(text);
        Probe p = {.B = 2, .T = 7};
        Golf *m = &p.m;
        golf_init(m, &c, 1);
        m->freeze = RECORD;
        m->res = owned(m, m->n_params, sizeof(real));
        golf_buffers(m, 14);
        /* away from the start, where gates are 1 and many terms could hide each other */
        for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
            for (size_t i = 0; i < t->n; i++)
                m->w[t->at + i] += (t->role == INTERFACE ? 0.3 : t->role == EMBED ? 0.5 : 0.1) *
                                   noise(7 + (uint64_t)(t - m->t), i);
        for (int i = 0; i < 14; i++) {
            p.x[i] = (int)(hash64(3, (uint64_t)i) % 11);
            p.y[i] = (int)(hash64(4, (uint64_t)i) % 11);
        }
        real *g = reals(m->n_params, 0);
        /* the straight-through estimator is the identity: the gradient of the live, quantized
         * model is that of the surrogate w + constant, x + constant at the same point */
        m->freeze = LIVE;
        const double live = probe_loss(&p);
        golf_backward(m, p.x, p.y, p.B, p.T);
        memcpy(g, m->g, m->n_params * sizeof(real));
        m->freeze = RECORD;
        const double loss0 = probe_loss(&p);
        golf_backward(m, p.x, p.y, p.B, p.T);
        double num = 0, den = 0;
        for (size_t i = 0; i < m->n_params; i++) {
            num += (g[i] - m->g[i]) * (g[i] - m->g[i]);
            den += g[i] * g[i];
        }
        CHECK(near(live, loss0, 1e-9) && sqrt(num / den) <= 1e-9, "%s: frozen model %.9g %.9g, gradient %.3g",
              arms[a], live, loss0, sqrt(num / den));
        m->freeze = REPLAY;
        CHECK(fabs(probe_loss(&p) - loss0) < 1e-9, "%s: replay changes the loss", arms[a]);
        /* integer products are often exactly 0, where relu^2 has its kink: step off it */
        for (size_t i = 0; i < m->n_params; i++) m->w[i] += 1e-2 * noise(5, i);
        probe_loss(&p);
        golf_backward(m, p.x, p.y, p.B, p.T);
        memcpy(g, m->g, m->n_params * sizeof(real));
        for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
            if (t->n) {
                const double e = grad_error(m->w + t->at, g + t->at, t->n, probe_loss, &p);
                CHECK(e <= GRAD_TOL, "gradient of %s with %s: relative error %.3g", t->name, arms[a], e);
            }
        golf_free(m);
    }
}
#endif

/* Without differences: one application changed by its own vector, and only from there on. Also in
 * float, where finite differences say little. */
static void test_phase_order(void) {
    Golf m;
    new_model(&m, "vocab=16 width=16 heads=2 seq=8 repeat=3", 8);
    const int *x = ints(8, 1, 16), C = 16;
    golf_forward(&m, x, NULL, 1, 8);
    static real before[3][8 * 16], after[3][8 * 16];
    /* without training buffers every phase has its own output here, since m.train */
    for (int p = 0; p < 3; p++) memcpy(before[p], m.phase[p].out, sizeof before[p]);
    for (int k = T_mix0; k < N_TENSORS; k++) {
        const Tensor *t = m.t + k;
        if (!t->n) continue;
        real *w = m.w + t->at + (size_t)1 * t->stored_cols; /* of phase 1 */
        for (int i = 0; i < t->stored_cols; i++) w[i] += (real)(0.5 + 0.1 * i);
        golf_quantize(&m);
        golf_forward(&m, x, NULL, 1, 8);
        for (int p = 0; p < 3; p++) memcpy(after[p], m.phase[p].out, sizeof after[p]);
        for (int i = 0; i < t->stored_cols; i++) w[i] = (real)t->init;
        CHECK(!memcmp(before[0], after[0], sizeof *before) && memcmp(before[1], after[1], sizeof *before),
              "%s of phase 1 acts in another phase", t->name);
    }
    CHECK(C == m.c.width, "width");
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
                    .copy_n = (size_t)rows * (size_t)cols, .quant = quantizers + quantizer};
    return &t[k];
}

static int bf16_exact(real x) { return from_bf16(to_bf16(x)) == x; }

static void test_ternary(void) {
    const Quantizer *q = quantizers + Q_TERNARY;
    const Tensor *t = shape(Q_TERNARY, 2, 4, 2), *big = shape(Q_TERNARY, 64, 64, 2);
    int8_t code[4096], back[4096];
    real s, s2, eff[40], huge[4096] = {0};
    uint8_t raw[64];
    /* mean|w| = 8/8 = 1: the codes are rint(w) clipped; 0.5 is a tie, to the even 0 */
    const real w[] = {0.5, -0.5, 1.5, -1.5, 2, -2, 0, 0};
    q->quantize(code, &s, w, t);
    CHECK(s == 1 && !memcmp(code, "\0\0\1\377\1\377\0\0", 8), "ternary values: scale %g", (double)s);
    q->quantize(code, &s, huge, big);
    CHECK(s == from_bf16(to_bf16((real)1e-5)) && !code[0] && !code[5], "all zero: %g", (double)s);
    int nonzero = 0, ok = 1;
    for (int i = 0; i < 4096; i++) huge[i] = (real)(i == 77 ? 1e6 : 1e-3 * (i % 3 - 1));
    q->quantize(code, &s, huge, big);
    for (int i = 0; i < 4096; i++) nonzero += code[i] != 0;
    CHECK(code[77] == 1 && nonzero == 1 && near((double)s, 1e6 / 4096, 1), "one huge value");
    /* NaN: codes stay codes and the scale finite; golf_step stops a run before this matters */
    huge[5] = (real)NAN;
    q->quantize(code, &s, huge, big);
    CHECK(abs(code[5]) <= 1 && isfinite(s) && s > 0, "NaN: scale %g", (double)s);
    for (int n = 1; n <= 40; n++) { /* the rule, and ragged lengths */
        const real *r = reals((size_t)n, (uint64_t)n);
        double mean = 0;
        for (int i = 0; i < n; i++) mean += fabs((double)r[i]) / n;
        t = shape(Q_TERNARY, 1, n, 2);
        q->quantize(code, &s, r, t);
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
        q->quantize(back, &s2, eff, t); /* the same codes; a smaller scale, so files keep it */
        CHECK(good && !memcmp(code, back, (size_t)n) && s2 <= s, "ternary of %d numbers", n);
    }
    t = shape(Q_TERNARY, 1, 5, 2);
    for (int b = 0; b < 256; b++) {
        const uint8_t in[] = {0x80, 0x3F, (uint8_t)b};
        const int possible = q->unpack(code, &s, in, t);
        ok &= possible == (b < 243);
        if (!possible) continue;
        int value = 0; /* lowest trit first */
        for (int i = 5; i-- > 0;) value = 3 * value + code[i] + 1;
        q->pack(raw, code, &s, t);
        ok &= value == b && raw[2] == b && s == 1 && code[0] >= -1 && code[0] <= 1;
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
    q->quantize(code, s, w, shape(Q_INT, 1, 6, 8));
    CHECK(s[0] == 1 && !memcmp(code, "\177\0\2\2\0\376", 6), "8 bits: scale %g", (double)s[0]);
    for (int bits = 4; bits <= 8; bits++)
        for (int cols = 1; cols <= 41; cols += 1 + cols / 3) {
            const int top = (1 << (bits - 1)) - 1;
            const Tensor *t = shape(Q_INT, ROWS, cols, bits);
            const size_t n = t->copy_n, bytes = q->bytes(t);
            real *r = reals(n, (uint64_t)(cols + 100 * bits));
            for (int i = 0; i < cols; i++) r[cols + i] = 0, r[3 * cols + i] = -1; /* whole rows */
            r[2 * cols] = (real)1e6;                                              /* one huge */
            q->quantize(code, s, r, t);
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
            q->quantize(back, s2, eff, t); /* nothing left to round */
            good &= !memcmp(code, back, n);
            for (int i = 0; i < ROWS; i++) good &= i == 1 || s2[i] == s[i];
            CHECK(good, "%d bits, rows of %d", bits, cols);
            for (size_t at = (n - 1) * (size_t)bits; at < n * (size_t)bits; at++)
                raw[2 * ROWS + at / 8] &= (uint8_t) ~(1 << at % 8); /* the code -2^(bits-1) */
            CHECK(!q->unpack(back, s2, raw, t), "%d bits: the code 0 was accepted", bits);
        }
    const real nan_row[] = {(real)NAN, 1, -2}; /* as for ternary: finite codes and scale */
    q->quantize(code, s, nan_row, shape(Q_INT, 1, 3, 8));
    CHECK(isfinite(s[0]) && code[2] == -127 && code[1] == 64, "NaN: %g %d", (double)s[0], code[2]);

    const Tensor *t = shape(Q_BF16, 5, 7, 16);
    real *r = reals(35, 9), x[35], y[35];
    h->quantize(NULL, x, r, t), h->pack(raw, NULL, x, t);
    int good = h->bytes(t) == 70 && h->unpack(NULL, y, raw, t) && !memcmp(x, y, sizeof x);
    for (int i = 0; i < 35; i++)
        good &= bf16_exact(x[i]) && near((double)x[i], (double)r[i], fabs((double)r[i]) / 256);
    CHECK(good, "bf16");
    put_u(raw + 20, 0x7F80, 2);
    CHECK(!h->unpack(NULL, y, raw, t), "infinity was accepted");
}

static void test_activations(void) {
    real x[12] = {127, 0.5, 1.5, -2.5, 0, 0, 0, 0, 1e6, 1, -1e6, 1e-3f}, inv[3];
    int8_t q[12];
    const int8_t want[] = {127, 0, 2, -2, 0, 0, 0, 0, 127, 0, -127, 0};
    Act a = {.q = q, .inv = inv};
    act_quant(&a, x, 3, 4, AQ_INT8, LIVE);
    CHECK(!memcmp(q, want, 12), "activation codes %d %d %d", q[1], q[2], q[3]);
    CHECK(inv[0] == 1 && near((double)inv[1] * 127, 1e-5, 1e-11) && near((double)inv[2] * 127, 1e6, 1),
          "activation steps %g %g %g", (double)inv[0], (double)inv[1], (double)inv[2]);
    const real *r = reals(4000, 31);
    Act b = {.q = keep_(4000, 1), .inv = reals(40, 0)};
    act_quant(&b, r, 40, 100, AQ_INT8, LIVE);
    int good = 1;
    for (int i = 0; i < 4000; i++)
        good &= near((double)(b.q[i] * b.inv[i / 100]), (double)r[i], 0.501 * (double)b.inv[i / 100]);
    CHECK(good, "activation error over half a step");
}

/* ---------------------------------------------------------------------------------------------
 * Optimizer
 * --------------------------------------------------------------------------------------------- */
static void set_all(real *x, size_t n, double to) {
    for (size_t i = 0; i < n; i++) x[i] = (real)to;
}

static void test_adamw(void) {
    Golf m;
    new_model(&m, "vocab=8 width=8 heads=2 mlp=1 seq=8 repeat=1 batch=2 steps=100 warmup=0 warmdown=0 "
                  "lr=0.1 lr_embed=0.2 lr_interface=0.05 beta1=0.9 beta2=0.99 wd=0.1", 16);
    /* g = 0.5, then -0.25, from w = 1:
     *   m = 0.1*0.5 = 0.05              v = 0.01*0.25 = 0.0025
     *   m/(1-0.9) = 0.5                 v/(1-0.99) = 0.25           step 0.5/0.5 = 1
     *   m = 0.9*0.05 - 0.025 = 0.02     v = 0.99*0.0025 + 0.01*0.0625 = 0.0031
     *   m/(1-0.81) = 0.1052632          v/(1-0.9801) = 0.1557789    step 0.26669943
     * projections decay by 1 - 0.1*0.1 first:  0.99 - 0.1 = 0.89;  0.99*0.89 - 0.1*0.26669943
     * = 0.85443006. Embedding: 1 - 0.2 = 0.8; 0.8 - 0.2*0.26669943 = 0.74666011.
     * Interface: 0.95; 0.95 - 0.05*0.26669943 = 0.93666503. */
    const double want[2][3] = {{0.8, 0.89, 0.95}, {0.746660114, 0.854430057, 0.936665029}};
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

    /* the global norm after clipping, seen in the first moments: |m| = (1-beta1) * |g| */
    int *x = ints(16, 1, 8), *y = ints(16, 2, 8);
    double norm, seen[2] = {0, 0};
    for (int clip = 0; clip < 2; clip++) {
        new_model(&m, "vocab=8 width=8 heads=2 mlp=1 seq=8 repeat=1 batch=2 steps=10 clip=0", 16);
        m.c.clip = clip ? 1e-3 : 0;
        golf_step(&m, x, y, 0, &norm);
        for (size_t i = 0; i < m.n_params; i++) seen[clip] += 100 * (double)m.m[i] * (double)m.m[i];
        CHECK(norm > 1e-3 && near(sqrt(seen[clip]) / (clip ? 1e-3 : norm), 1, 1e-5),
              "clip %d: norm %g became %g", clip, norm, sqrt(seen[clip]));
        golf_free(&m);
    }
}

static void test_schedules(void) {
    Config c = config_of("steps=100 warmup=0.04 warmdown=0.3 wd=0.1");
    const struct { int step; double linear, two_stage; } rows[] = {
        {0, 1.0 / 4, 1.0 / 4}, {2, 3.0 / 4, 0.75 * 0.98}, {3, 1, 0.97}, {49, 1, 0.51},
        {50, 1, 0.5 * 2 / 3}, {70, 1, 0.3 * 2 / 3}, {71, 0.29 / 0.3, 0.29 * 2 / 3},
        {99, 0.01 / 0.3, 0.01 * 2 / 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        c.schedule = SCHED_LINEAR;
        CHECK(near(lr_factor(&c, rows[i].step), rows[i].linear, 1e-12), "linear at %d", rows[i].step);
        CHECK(wd_at(&c, rows[i].step) == 0.1, "linear decays throughout");
        c.schedule = SCHED_TWO_STAGE;
        CHECK(near(lr_factor(&c, rows[i].step), rows[i].two_stage, 1e-12), "two_stage at %d", rows[i].step);
        CHECK(wd_at(&c, rows[i].step) == (rows[i].step < 50 ? 0.1 : 0), "decay at %d", rows[i].step);
    }
    c = config_of("steps=5 warmup=0 warmdown=0 wd=0.1 schedule=two_stage");
    CHECK(wd_at(&c, 2) == 0.1 && wd_at(&c, 3) == 0 && lr_factor(&c, 0) == 1, "odd steps");
    c.schedule = SCHED_LINEAR;
    CHECK(lr_factor(&c, 0) == 1 && lr_factor(&c, 4) == 1, "no warm-up, no warm-down");
    c = config_of("steps=1 warmup=1 warmdown=1");
    CHECK(lr_factor(&c, 0) == 1, "one step");
}

/* ---------------------------------------------------------------------------------------------
 * Tokenizer and shards
 * --------------------------------------------------------------------------------------------- */
static void expect_ids(const Tokenizer *t, const char *text, const char *want) {
    char got[1024] = "";
    size_t n, at = 0;
    int *ids = tokenizer_encode(t, text, strlen(text), &n);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%d", i ? " " : "", ids[i]);
    CHECK(!strcmp(got, want), "\"%s\": expected %s, found %s", text, want, got);
    free(ids);
}

static void round_trip(const Tokenizer *t, const char *s, size_t n) {
    size_t k, len, sum = 0;
    int *ids = tokenizer_encode(t, s, n, &k);
    char *back = tokenizer_decode(t, ids, k, &len);
    for (size_t i = 0; i < k; i++) sum += (size_t)tokenizer_bytes(t, i ? ids[i - 1] : t->bos, ids[i]);
    sum += k && t->leading_space[ids[0]]; /* not counted after BOS */
    CHECK(len == n && !memcmp(back, s, n) && sum == n, "%zu bytes came back as %zu, counted %zu", n, len, sum);
    free(ids), free(back);
}

static void test_round_trip(const Tokenizer *t) {
    char s[4096];
    for (int i = 0; i < 256; i++) s[0] = (char)i, round_trip(t, s, 1);
    for (int i = 0; i < 256; i++) s[i] = (char)i;
    round_trip(t, s, 256);
    for (int r = 0; r < 60; r++) { /* any bytes; few letters; what looks like UTF-8 */
        const size_t n = (size_t)dice(2000);
        for (size_t i = 0; i < n; i++)
            s[i] = r % 3 == 0 ? (char)dice(256) : r % 3 == 1 ? " abc\n\x81\xe2"[dice(7)]
                                                             : "\xc3\xa9\xe2\x82\xac\xf0\x9f a"[dice(9)];
        for (size_t i = 0; i + 3 <= n; i++)
            if (!memcmp(s + i, SPACE, 3)) s[i] = '_'; /* it is written as a space */
        round_trip(t, s, n);
    }
}

static void test_tokenizer(void) {
    static Proto p;
    const char *path = in_tmp("t.model");
    size_t len;
    write_hand_model(path);
    Tokenizer *t = tokenizer_load(path);
    CHECK(t->vocab == HAND_VOCAB && t->bos == 1 && t->eos == 2 && t->unk == 3 && t->pad == 0, "special ids");
    expect_ids(t, "", "");
    expect_ids(t, "abc", "262");       /* ab first (score 0), then abc */
    expect_ids(t, "bc", "261");
    expect_ids(t, "abab", "260 260");
    expect_ids(t, " abc", "264 262");  /* ab (0) before _a (-3) */
    expect_ids(t, " a b", "263 264 102");
    expect_ids(t, "ccc", "265 103");   /* two equal merges: the left one; byte c = 4 + 0x63 = 103 */
    expect_ids(t, "<s>", "64 119 66"); /* control pieces are not made from text */
    expect_ids(t, "\xc3\xa9", "199 173");
    expect_ids(t, "  a", "264 263");
    /* the divisor of bpb: bytes of the piece, its leading space only after real text */
    const int rows[][3] = {{1, SP_A, 1}, {AB, SP_A, 2}, {AB, SP, 1}, {1, SP, 0},    {AB, 1, 0}, {AB, 3, 0},
                           {SP_A, 4, 1}, {4, ABC, 3},   {2, SP_A, 1}, {3, SP_A, 1}, {0, AB, 2}, {99, 259, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK(tokenizer_bytes(t, rows[i][0], rows[i][1]) == rows[i][2], "bytes of %d after %d: %d",
              rows[i][1], rows[i][0], tokenizer_bytes(t, rows[i][0], rows[i][1]));
    CHECK(!strcmp(tokenizer_piece(t, SP_A), SPACE "a"), "piece text");
    test_round_trip(t);
    tokenizer_free(t);

    pb_start(&p, 0); /* the library's default flags: dummy prefix, spaces trimmed; runs of unk */
    pb_piece(&p, SPACE "a", 0, 1), pb_piece(&p, SPACE, -1, 1), pb_piece(&p, "a", -2, 1); /* 4..6 */
    pb_raw(&p, "\x12\x02\x18\x02", 4);
    put_file(path, p.b, p.n);
    t = tokenizer_load(path);
    expect_ids(t, "a", "4");
    expect_ids(t, "  axyz  a ", "4 3 4");
    const int ids[] = {4, 3, 4};
    char *s = tokenizer_decode(t, ids, 3, &len);
    CHECK(!strcmp(s, "a \xe2\x81\x87  a"), "decoded \"%s\"", s);
    free(s), tokenizer_free(t);

#define MODEL_DIES(what, words, ...) \
    pb_start(&p, 1), PB_BPE(&p), __VA_ARGS__, put_file(path, p.b, p.n); \
    DIES(what, words, tokenizer_encode(tokenizer_load(path), "a", 1, &len))
    DIES("no tokenizer", "nothere.model|cannot open", tokenizer_load(in_tmp("nothere.model")));
    MODEL_DIES("empty model", "t.model|found 0 pieces", p.n = 0);
    MODEL_DIES("text as model", "t.model|SentencePiece", p.n = 0, pb_raw(&p, "hello, world\n", 13));
    MODEL_DIES("cut model", "t.model|cut short", p.n -= 20);
    MODEL_DIES("bytes missing", "t.model|byte 0x00|missing", pb_start(&p, 0), PB_BPE(&p));
    MODEL_DIES("odd byte piece", "t.model|<0xNN>", pb_piece(&p, "<0x0a>", 0, 6));
    MODEL_DIES("two unknowns", "t.model|one unknown piece", pb_piece(&p, "<unk2>", 0, 2));
    MODEL_DIES("twins", "t.model|both", pb_piece(&p, "a", 0, 1), pb_piece(&p, "a", 0, 1));
    MODEL_DIES("score", "t.model|finite score", pb_piece(&p, "a", (float)INFINITY, 1));
    MODEL_DIES("type", "t.model|a type of 1..6, found 9", pb_piece(&p, "a", 0, 9));
    MODEL_DIES("unigram", "t.model|model_type 1", pb_start(&p, 0), pb_piece(&p, "a", 0, 1));
    MODEL_DIES("character map", "t.model|character map", pb_raw(&p, "\x1A\x03\x12\x01x", 5));
    DIES("decoding an id", "t.model|0..259|found 260",
         tokenizer_decode(tokenizer_load(path), (int[]){260}, 1, &len));
}

/* The JSON string after `key`, unescaped (no surrogates: what these texts need). */
static void json_string(const char *line, const char *key, char *out) {
    const char *s = strstr(line, key);
    for (s = s ? s + strlen(key) : ""; *s && *s != '"'; s++) {
        unsigned u = (uint8_t)*s;
        if (*s == '\\' && *++s == 'u') {
            sscanf(s + 1, "%4x", &u), s += 4;
            if (u >= 0x800) *out++ = (char)(0xE0 | u >> 12), *out++ = (char)(0x80 | (u >> 6 & 63));
            else if (u >= 0x80) *out++ = (char)(0xC0 | u >> 6);
            *out++ = (char)(u >= 0x80 ? 0x80 | (u & 63) : u);
        } else *out++ = *s == 'n' ? (s[-1] == '\\' ? '\n' : 'n') : *s;
    }
    *out = 0;
}

static void test_shipped_tokenizers(void) {
    const char *fineweb = "../shared/data/fineweb_1024_bpe", *sotu = "data/sotu/tokenizer.model";
    char path[256], line[8192], want[4096];
    if (access(sotu, R_OK)) printf("skipped: there is no %s\n", sotu);
    else {
        Tokenizer *t = tokenizer_load(sotu);
        test_round_trip(t);
        tokenizer_free(t);
    }
    snprintf(path, sizeof path, "%s.model", fineweb);
    if (access(path, R_OK)) {
        printf("skipped: there is no %s\n", path);
        return;
    }
    Tokenizer *t = tokenizer_load(path);
    size_t n, rows = 0;
    DIES("encoding with fineweb", "character map|fineweb", tokenizer_encode(t, "a", 1, &n));
    snprintf(path, sizeof path, "%s.bytes.tsv", fineweb);
    FILE *f = fopen(path, "r");
    for (int id, b, l, c, ok; f && fgets(line, sizeof line, f);) {
        if (sscanf(line, "%d %d %d %d", &id, &b, &l, &c) != 4) continue;
        ok = t->base_bytes[id] == b && t->leading_space[id] == l && t->boundary[id] == c;
        CHECK(ok, "bytes of piece %d", id);
        rows++;
    }
    CHECK(rows == (size_t)t->vocab, "%zu rows of the table for %d pieces", rows, t->vocab);
    if (f) fclose(f);
    snprintf(path, sizeof path, "%s.encode.jsonl", fineweb);
    f = fopen(path, "r");
    for (rows = 0; f && fgets(line, sizeof line, f); rows++) {
        int ids[512], k = 0;
        for (char *s = strstr(line, "\"ids\": [") + 8; k < 512 && isdigit((unsigned char)*s);) {
            ids[k++] = (int)strtol(s, &s, 10);
            s += strspn(s, ", ");
        }
        json_string(line, "\"decoded\": \"", want);
        char *s = tokenizer_decode(t, ids, (size_t)k, &n);
        CHECK(!strcmp(s, want), "decoded \"%s\", expected \"%s\"", s, want);
        free(s);
    }
    CHECK(rows > 0, "no lines in %s", path);
    if (f) fclose(f);
    tokenizer_free(t);
}

static void read_all(const char *dir, int vocab) {
    Shards *s = shards_open(dir, "train", vocab);
    shards_read(s, 0, (int)s->tokens, ints((size_t)s->tokens, 1, 2));
}

static void test_shards(void) {
    int t[1000], out[1001], row[1001], ok = 1;
    for (int i = 0; i < 1000; i++) t[i] = i;
    mkdir(in_tmp("s"), 0777);
    write_shard(in_tmp("s/x_train_000000.bin"), t, 400);
    write_shard(in_tmp("s/x_train_000001.bin"), t, 0);
    write_shard(in_tmp("s/x_train_000002.bin"), t + 400, 600);
    write_shard(in_tmp("s/x_val_000000.bin"), t, 5);
    put_file(in_tmp("s/x_train_000003.bin.tmp"), "x", 1); /* not a shard */
    Shards *s = shards_open(in_tmp("s"), "train", 1000);
    CHECK(s->count == 3 && s->tokens == 1000, "%d shards, %lld tokens", s->count, (long long)s->tokens);
    shards_read(s, 0, 1000, out), shards_read(s, 395, 10, row);
    for (int i = 0; i < 1000; i++) ok &= out[i] == i && (i >= 10 || row[i] == 395 + i);
    CHECK(ok, "tokens across shards");
    for (int seq = 1; seq < 1000; seq = seq * 3 + 1) {
        const int windows = 999 / seq;
        int other_seed = 0, other_epoch = 0, shuffled_rows = 0, ascending = 0, last = 0;
        for (int64_t e = 0; e < 4; e++) {
            char seen[1000] = {0};
            int shift = -1;
            ok = 1;
            for (int w = 0; w < windows; w++) {
                shards_train_row(s, 7, e * windows + w, seq, row);
                for (int i = 0; i < seq; i++) ok &= row[i + 1] == row[i] + 1;
                if (shift < 0) shift = row[0] % seq;
                ok &= row[0] % seq == shift && !seen[row[0] / seq];
                seen[row[0] / seq] = 1;
                shuffled_rows += row[0] / seq != w, ascending += row[0] > last, last = row[0];
                shards_train_row(s, 8, e * windows + w, seq, out);
                other_seed += out[0] != row[0];
                shards_train_row(s, 7, (e + 1) * windows + w, seq, out);
                other_epoch += out[0] != row[0];
                shards_train_row(s, 7, e * windows + w, seq, out); /* again: a pure function */
                ok &= !memcmp(out, row, sizeof(int) * ((size_t)seq + 1));
            }
            CHECK(ok, "seq %d epoch %d: each window once, whole", seq, (int)e);
        }
        CHECK(windows < 8 || (other_seed > 2 * windows && other_epoch > 2 * windows &&
                              shuffled_rows > 2 * windows && ascending < 3 * windows), "seq %d: order", seq);
    }
    const char *dir = in_tmp("s"), *file = in_tmp("s/x_train_000002.bin");
    DIES("short text", "train_000000.bin|at least 1000 + 1|found 1000", shards_train_row(s, 1, 0, 1000, row));
    DIES("position", "within 1000 tokens|found 999 + 2", shards_read(s, 999, 2, row));
    DIES("token", "train_000002.bin|vocabulary of 999|found 999 at position 599|tokenizer",
         read_all(dir, 999));
    DIES("no folder", "nodir|cannot open|get.sh", shards_open(in_tmp("nodir"), "train", 9));
    DIES("no shards", "NAME_test_|found none|get.sh", shards_open(dir, "test", 9));
    size_t n;
    uint8_t *b = read_file(file, &n);
    put_file(file, b, n - 1);
    DIES("cut shard", "train_000002.bin|expected 2224|found 2223|again", read_all(dir, 1000));
    put_file(file, b, 7);
    DIES("cut header", "train_000002.bin|expected a token shard", read_all(dir, 1000));
    b[0] ^= 1, put_file(file, b, n);
    DIES("magic", "train_000002.bin|magic 20240520|found", read_all(dir, 1000));
    free(b), shards_close(s);
}

/* ---------------------------------------------------------------------------------------------
 * Training, in files and out of them
 * --------------------------------------------------------------------------------------------- */
static const char *const SMALL = "vocab=266 width=32 heads=2 kv_heads=1 mlp=2 seq=80 repeat=2 batch=3 "
                                 "steps=10 ";

static void run_steps(Golf *m, int from, int to) {
    int *x = ints(m->N, 21, m->c.vocab), *y = ints(m->N, 22, m->c.vocab);
    double norm;
    for (int s = from; s < to; s++) golf_step(m, x, y, s, &norm);
}

static void test_training(void) {
    Golf m, b;
    int *x = ints(256, 1, 512), *y = ints(256, 2, 512);
    new_model(&m, "vocab=512 width=64 seq=64 batch=4", 256);
    const double start = golf_forward(&m, x, y, 4, 64);
    CHECK(near(start / log(512), 1, 0.02), "initial loss %.4f, ln V = %.4f", start, log(512));
    golf_free(&m);

    double loss = 9, norm;
    int s = 0;
    new_model(&m, "vocab=32 width=32 heads=2 seq=16 batch=2 repeat=2 lr=0.01 lr_embed=0.02 "
                  "lr_interface=0.02 warmup=0 warmdown=0 steps=600", 32);
    for (int i = 0; i < 32; i++) x[i] %= 32, y[i] %= 32;
    for (; s < 600 && !(loss < 0.05); s++) loss = golf_step(&m, x, y, s, &norm);
    CHECK(loss < 0.05, "one batch is not learnt by heart: loss %.4f after %d steps", loss, s);
    CHECK(m.flips > 0, "no ternary code ever changed");
    golf_free(&m);

    /* the same bits whatever the number of threads */
    real *w = NULL;
    for (int t = 1; t <= 3; t++) {
        threads(t);
        new_model(&m, SMALL, 240);
        if (t == 1) w = reals(m.n_params, 0);
        run_steps(&m, 0, 5);
        if (t == 1) memcpy(w, m.w, m.n_params * sizeof(real));
        CHECK(!memcmp(w, m.w, m.n_params * sizeof(real)), "%d threads give other weights", t);
        golf_free(&m);
    }
    threads(1);

    /* 3 steps, a checkpoint, 3 steps are 6 steps */
    const char *path = in_tmp("ckpt.bin");
    new_model(&m, SMALL, 240);
    run_steps(&m, 0, 3);
    ckpt_save(&m, path, 3);
    run_steps(&m, 3, 6);
    new_model(&b, SMALL, 240);
    const int64_t step = ckpt_load(&b, path);
    run_steps(&b, 3, 6);
    const size_t bytes = m.n_params * sizeof(real);
    CHECK(step == 3 && !memcmp(m.w, b.w, bytes) && !memcmp(m.m, b.m, bytes) && !memcmp(m.v, b.v, bytes) &&
              m.flips == b.flips, "resumed from step %d: weights, moments or flips differ", (int)step);
    golf_free(&m), golf_free(&b);

    new_model(&m, SMALL, 240);
    m.w[m.t[T_embed].at] = (real)INFINITY;
    golf_quantize(&m);
    DIES("divergence", "training diverged|checkpoint|--lr", run_steps(&m, 0, 1));
    golf_free(&m);
}

/* The model of the file is the model in memory: size as announced, the same tensors, the same
 * summed loss to the last bit; the ledger adds up. */
static void test_export(void) {
    const char *arms[] = {
        "", "wq=none", "aq=none", "wq=none aq=none embed_bits=16", "embed_bits=4", "embed_bits=5",
        "embed_bits=6 width=24", "embed_bits=7 vocab=267", "gate=scalar gain=none mix=none qgain=scalar",
        "extra_norm=each xgain=scalar phase=0 repeat=3", "extra_norm=none", "phase_embed=1 mlp=3",
        "unique=2 order=sequence prelude=1 coda=1", "heads=1 kv_heads=0"};
    write_data("e", 500, 333, HAND_VOCAB);
    Tokenizer *tok = tokenizer_load(in_tmp("e/tokenizer.model"));
    Shards *val = shards_open(in_tmp("e"), "val", HAND_VOCAB);
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        char text[512];
        Golf m, b;
        snprintf(text, sizeof text, "%sseq=16 %s", SMALL, arms[a]);
        new_model(&m, text, 48);
        for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++)
            for (size_t i = 0; i < t->n; i++) m.w[t->at + i] += (real)0.1 * noise(40, t->at + i);
        run_steps(&m, 0, 2);
        golf_save(&m, in_tmp("model.golf"), tok->crc);
        const uint32_t crc = golf_load(&b, in_tmp("model.golf"));
        golf_buffers(&b, 16);
        const Score in_memory = golf_eval(&m, tok, val, 0, 0), in_file = golf_eval(&b, tok, val, 0, 0);
        const Ledger l = ledger_of(&m.c);
        struct stat st;
        CHECK(!stat(in_tmp("model.golf"), &st) && (size_t)st.st_size == artifact_bytes(&m.c),
              "%s: %zu bytes announced, %lld written", arms[a], artifact_bytes(&m.c), (long long)st.st_size);
        CHECK(l.total == artifact_bytes(&m.c) && l.core + l.embedding + l.interface + l.header == l.total,
              "%s: the ledger does not add up", arms[a]);
        CHECK(in_memory.nll == in_file.nll && in_memory.bpb == in_file.bpb && in_file.tokens == 320 &&
                  crc == tok->crc, "%s: %.17g in memory, %.17g from the file", arms[a], in_memory.nll, in_file.nll);
        CHECK(!memcmp(m.eff, b.eff, m.n_params * sizeof(real)), "%s: weights differ", arms[a]);
        for (size_t i = 0; i < m.n_scales; i++)
            if (!bf16_exact(m.scale[i])) {
                CHECK(0, "%s: scale %zu is no bf16 number", arms[a], i);
                break;
            }
        golf_free(&m), golf_free(&b);
    }
    shards_close(val), tokenizer_free(tok);
}

/* ---------------------------------------------------------------------------------------------
 * Bits per byte, sampling
 * --------------------------------------------------------------------------------------------- */
static void test_bpb(void) {
    /* target:      _a  ab  _a  _a  <s> _a  ab  byte | _a  c   cc    the table gives after `prev`:
     * bytes:        1   2   2   2   0   1   2   1   |  2   1   2    no space after <s>, <s> is free */
    const int t[] = {1, SP_A, AB, SP_A, SP_A, 1, SP_A, AB, 4, SP_A, 103, CC};
    Golf m, one;
    mkdir(in_tmp("b"), 0777);
    write_hand_model(in_tmp("b.model"));
    write_shard(in_tmp("b/x_val_000000.bin"), t, 12);
    Tokenizer *tok = tokenizer_load(in_tmp("b.model"));
    Shards *val = shards_open(in_tmp("b"), "val", HAND_VOCAB);
    new_model(&m, "vocab=266 width=16 heads=2 seq=8 repeat=2", 40);
    new_model(&one, "vocab=266 width=16 heads=2 seq=8 repeat=2", 8);
    const double nll = 8 * golf_forward(&m, t, t + 1, 1, 8);
    Score s = golf_eval(&m, tok, val, 0, 0);
    CHECK(s.tokens == 8 && s.bytes == 11 && near(s.nll, nll, EPS) && near(s.loss, nll / 8, EPS) &&
              near(s.bpb, nll / 0.69314718055994531 / 11, EPS),
          "a row of 8: %lld tokens, %lld bytes, %.9g nats", (long long)s.tokens, (long long)s.bytes, s.nll);
    s = golf_eval(&m, tok, val, 2, 0);
    CHECK(s.tokens == 11 && s.bytes == 16, "sliding: %lld tokens, %lld bytes", (long long)s.tokens,
          (long long)s.bytes);
    shards_close(val);

    /* every target once, from the window that the rule names, for any length and stride */
    for (int n = 2; n < 36; n += n < 20 ? 1 : 5) {
        const int *r = ints((size_t)n, (uint64_t)n, HAND_VOCAB), strides[] = {0, 1, 3, 8};
        write_shard(in_tmp("b/x_val_000000.bin"), r, n);
        val = shards_open(in_tmp("b"), "val", HAND_VOCAB);
        for (int k = 0; k < 4; k++) {
            const int step = strides[k] ? strides[k] : 8, total = strides[k] ? n - 1 : (n - 1) / 8 * 8;
            if (!total) {
                DIES("text under a row", "shorter than one row|--seq=8", golf_eval(&m, tok, val, 0, 0));
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
            const Score alone = golf_eval(&one, tok, val, strides[k], 0);
            CHECK(s.tokens == total && s.bytes == bytes && near(s.nll, sum, EPS * total),
                  "%d tokens, stride %d: %lld of %d tokens, nll %.9g of %.9g", n, strides[k],
                  (long long)s.tokens, total, s.nll, sum);
            CHECK(s.nll == alone.nll, "stride %d: the loss depends on the rows per forward pass", strides[k]);
            if (total >= 16) {
                s = golf_eval(&m, tok, val, strides[k], 13);
                CHECK(s.tokens == (strides[k] ? 13 : 8), "a prefix of 13: %lld tokens", (long long)s.tokens);
            }
        }
        shards_close(val);
    }
    golf_free(&m), golf_free(&one), tokenizer_free(tok);
}

static void test_sampling(void) {
    enum { T = 16, V = HAND_VOCAB };
    const char *arms[] = {"", "wq=none aq=none", "extra_norm=each kv_heads=1 phase_embed=1 unique=2"};
    double worst = 0;
    for (int a = 0; a < 3; a++) {
        Golf full, cached;
        char text[256];
        snprintf(text, sizeof text, "vocab=266 width=32 heads=2 seq=16 repeat=2 %s", arms[a]);
        new_model(&full, text, T), new_model(&cached, text, T);
        golf_cache(&cached);
        const int *x = ints(2 * T, 50, V);
        for (int round = 0; round < 2; round++) { /* the second starts an emptied cache */
            cached.cached = 0;
            for (int at = 0, n; at < T; at += n) {
                n = at == 0 ? 1 + 4 * round : 1 + at % 3;
                n = n > T - at ? T - at : n;
                golf_forward(&cached, x + round * T + at, NULL, 1, n);
                golf_forward(&full, x + round * T, NULL, 1, at + n);
                for (int i = 0; i < n * V; i++)
                    worst = fmax(worst, fabs((double)(cached.logits[i] - full.logits[at * V + i])));
            }
        }
        golf_free(&full), golf_free(&cached);
    }
    printf("cached decode against the full forward: largest difference of a logit %.3g\n", worst);
    CHECK(worst <= 1e-4, "cached decode: logits differ by %.3g", worst);

    /* 50 greedy tokens, three times the context: when it is full its last half is kept */
    Golf m, ref;
    write_hand_model(in_tmp("t.model"));
    Tokenizer *tok = tokenizer_load(in_tmp("t.model"));
    Config how = config_of("");
    strcpy(how.prompt, "abc ab");
    how.tokens = 50, how.temperature = 0;
    const char *text = "vocab=266 width=32 heads=2 seq=16 repeat=2 seed=3";
    new_model(&m, text, T), new_model(&ref, text, T);
    for (size_t i = 0; i < m.n_params; i++) m.w[i] = ref.w[i] += (real)0.3 * noise(60, i);
    golf_quantize(&m), golf_quantize(&ref), golf_cache(&m);
    int ids[64] = {1, ABC, SP, AB}, n = 4, from = 0;
    while (n < 54) {
        if (n - from > T) from = n - T / 2;
        golf_forward(&ref, ids + from, NULL, 1, n - from);
        ids[n] = pick(ref.logits + (size_t)(n - from - 1) * V, V, 0, 1, 0);
        if (ids[n] == tok->bos) break;
        n++;
    }
    size_t len, out_len;
    char *want = tokenizer_decode(tok, ids, (size_t)n, &len), *out;
    FILE *f = open_memstream(&out, &out_len);
    golf_sample(&m, tok, &how, f);
    fclose(f);
    CHECK(n > 30 && out_len == len + 1 && !memcmp(out, want, len), "%d greedy tokens: \"%s\", not \"%s\"",
          n, out, want);
    free(out), free(want), golf_free(&m), golf_free(&ref), tokenizer_free(tok);

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
 * Errors: one line, exit status 1, nothing half-written
 * --------------------------------------------------------------------------------------------- */
/* What main does with this command line; @ stands for the folder of the tests. */
static int command_line(const char *line) {
    static char text[4096];
    char *argv[64], *save, *at = text;
    int argc = 0;
    for (; *line; line++)
        if (*line == '@') at += sprintf(at, "%s", tmp);
        else *at++ = *line;
    *at = 0;
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) argv[argc++] = w;
    if (!strcmp(argv[0], "train")) return train_main(argc - 1, argv + 1);
    if (!strcmp(argv[0], "eval")) return eval_main(argv[1], argc - 2, argv + 2);
    if (!strcmp(argv[0], "sample")) return sample_main(argv[1], argc - 2, argv + 2);
    if (!strcmp(argv[0], "info")) return info_main(argv[1], argc - 2, argv + 2);
    return help_main();
}

#define RUN "train --preset=tiny --width=16 --seq=16 --steps=2 --data=@/d --out=@/run"
#define SCORE "eval @/bad.golf --data=@/d --tokenizer=@/d/tokenizer.model"

static void test_command_errors(void) {
    static const char *const rows[][2] = {
        {"train --data=@/none", "none/tokenizer.model|cannot open|No such file"},
        {"train --data=@/none --tokenizer=@/d/tokenizer.model", "@/none|data folder|get.sh"},
        {"train --data=@/empty --tokenizer=@/d/tokenizer.model", "@/empty|found none|get.sh"},
        {"train --data=@/d --tokenizer=@/text", "@/text|SentencePiece"},
        {"train --data=@/d --tokenizer=@/d", "@/d|regular file"},
        {"train --preset=tiny --data=@/cut --out=@/new", "cut/x_train_000000.bin|expected|found|get.sh"},
        {"train --preset=tiny --data=@/wide --out=@/new --steps=9", "found 300|vocabulary of 266|tokenizer"},
        {"train --preset=tiny --data=@/few --out=@/few/run", "few/x_train_000000.bin|at least 32 + 1|found 20"},
        {"train --preset=tiny --data=@/d --out=@/d/run --seq=1000", "at least 1000 + 1|found 900"},
        {"train --data=@/d --out=@/new --cap=1000 --width=fit", "--cap=1000|width 32|needs|raise --cap"},
        {"train --data=@/d --out=@/new --cap=5000", "would have|--cap=5000|--width=fit"},
        {"train --data=@/d --width=36 --heads=4", "--width=36|--heads=4|head_dim 9|even"},
        {"train --data=@/d --width=34 --heads=4", "--width=34|--heads=4|multiple"},
        {"train --data=@/d --kv_heads=3", "--kv_heads=3|divisor|--heads=4"},
        {"train --data=@/d --batch=65536 --seq=65536", "--batch=65536|--seq=65536"},
        {"train --widht=3", "unknown option --widht|nearest|--width"},
        {"train --vocab=3", "unknown option --vocab"},
        {"train --stride=3", "unknown option --stride"},
        {"eval @/bad.golf --width=3", "unknown option --width"},
        {"train --width=7", "--width|8 to 16384|found '7'"},
        {"train --width=banana", "--width|8 to 16384|banana"},
        {"train --width=32.5", "--width|32.5"},
        {"train --lr=nan", "--lr|0 to 10|nan"},
        {"train --lr=", "--lr|0 to 10"},
        {"train --wq=foo", "--wq|none|ternary|foo"},
        {"train --embed_bits=9", "--embed_bits|4 to 8|16|found '9'"},
        {"train width=3", "--key=value|width=3|help"},
        {"train --width", "--key=value|--width"},
        {"train --preset=pokcet", "unknown preset|pokcet|help"},
        {RUN, "@/run|holds a run|--resume=1|--overwrite=1"},
        {RUN " --resume=1 --lr=0.1", "ckpt.bin|--lr=0.002|now it is 0.1|same options"},
        {RUN " --resume=1 --wq=none", "ckpt.bin|--wq=ternary|now it is none"},
        {RUN "3 --resume=1", "run3/ckpt.bin|checksum|damaged"},
        {RUN "4 --resume=1", "run4/ckpt.bin|expected a checkpoint"},
        {RUN "5 --resume=1", "run5/ckpt.bin|-byte numbers"},
        {"train --preset=tiny --data=@/d --out=@/text/x", "@/text|cannot make the folder|--out"},
        {"train --preset=tiny --data=@/d --out=@/odd --overwrite=1", "odd/log.tsv|cannot write|--out"},
        {"eval @/none.golf", "none.golf|cannot open"},
        {"eval @/text", "@/text|expected a model.golf"},
        {SCORE, "bad.golf|checksum of tensor wqkv"},
        {"eval @/head.golf", "head.golf|checksum of its header"},
        {"eval @/cut.golf", "cut.golf|its header says|cut"},
        {"eval @/next.golf", "next.golf|version 1, found 2"},
        {"eval @/other.golf", "other.golf|seq=1x|another version"},
        {"eval @/run/model.golf --data=@/d --tokenizer=@/t2.model", "t2.model|CRC-32|--tokenizer"},
        {"eval @/run/model.golf --data=@/d --stride=17", "--stride=17|16"},
        {"eval @/run/model.golf --data=@/few", "shorter than one row|--seq=16"},
        {"eval @/run/model.golf --data=@/cut", "cut/x_val_000000.bin|expected|found"},
        {"sample @/bad.golf", "bad.golf|wqkv"}, {"info @/bad.golf", "bad.golf|wqkv"},
        {"info @/run/model.golf --lr=3", "unknown option --lr|--cap"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char words[512], *at = words;
        for (const char *s = rows[i][1]; *s; s++)
            if (*s == '@') at += sprintf(at, "%s", tmp);
            else *at++ = *s;
        *at = 0;
        expect_message(STATUS(command_line(rows[i][0])), rows[i][0], words);
    }
    CHECK(!there("new/model.golf") && !there("new/result.json"), "a failed run left a result");
}

static void limit_files(rlim_t bytes) { /* the disk is full from here on */
    const struct rlimit r = {bytes, bytes};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &r)) exit(9);
}

/* Runs a tiny training, then makes broken copies of everything it read and wrote. */
static void test_errors(void) {
    size_t n;
    write_data("d", 900, 100, HAND_VOCAB), write_data("wide", 900, 100, 301), write_data("few", 20, 10, 266);
    write_data("cut", 900, 100, HAND_VOCAB);
    const char *shards[] = {"cut/x_train_000000.bin", "cut/x_val_000000.bin"};
    for (int i = 0; i < 2; i++)
        if (truncate(in_tmp(shards[i]), 1100)) die("truncate");
    int *tokens = ints(900, 1, 266);

    for (int i = 0; i < 900; i += 7) tokens[i] = 300;
    write_shard(in_tmp("wide/x_train_000000.bin"), tokens, 900);
    put_file(in_tmp("text"), "some text\n", 10);
    mkdir(in_tmp("empty"), 0777), mkdir(in_tmp("odd"), 0777), mkdir(in_tmp("odd/log.tsv"), 0777);
    static Proto p;
    pb_start(&p, 1), PB_BPE(&p), put_file(in_tmp("t2.model"), p.b, p.n);
    const int status = STATUS(command_line(RUN));
    CHECK(status == 0, "a tiny run: exit status %d: %s", status, message);
    if (status) return;

    uint8_t *b = read_file(in_tmp("run/model.golf"), &n);
    const size_t len = get_u(b + 20, 4), payload = ARTIFACT_FIXED + len + 8 * N_TENSORS + 4;
    const size_t wqkv = payload + get_u(b + ARTIFACT_FIXED + len, 4) + 50;
    b[wqkv] ^= 4, put_file(in_tmp("bad.golf"), b, n), b[wqkv] ^= 4;
    b[40] ^= 4, put_file(in_tmp("head.golf"), b, n), b[40] ^= 4;
    put_file(in_tmp("cut.golf"), b, n - 1);
    b[8] = 2, put_file(in_tmp("next.golf"), b, n), b[8] = 1;
    char *seq = strstr((char *)b + ARTIFACT_FIXED, "seq=16"); /* with a good checksum */
    if (seq) seq[5] = 'x', put_u(b + payload - 4, crc32_of(0, b, payload - 4), 4);
    put_file(in_tmp("other.golf"), b, n);
    free(b);
    b = read_file(in_tmp("run/ckpt.bin"), &n);
    for (int i = 3; i <= 5; i++) {
        char dir[16], file[32];
        snprintf(dir, sizeof dir, "run%d", i), snprintf(file, sizeof file, "run%d/ckpt.bin", i);
        const size_t at = i == 3 ? n / 2 : i == 4 ? 3 : 12;
        mkdir(in_tmp(dir), 0777);
        b[at] ^= 12, put_file(in_tmp(file), b, n), b[at] ^= 12;
    }
    test_command_errors();
    DIES("overflow", "more than memory can address", xcalloc(SIZE_MAX / 2, 16));

    /* a second run into a folder that is being written */
    int log = open(in_tmp("run/log.tsv"), O_RDWR);
    CHECK(log >= 0 && !flock(log, LOCK_EX), "lock");
    DIES("second run", "another run|--out", command_line(RUN " --overwrite=1"));
    DIES("second run", "another run|--out", command_line(RUN " --resume=1"));
    close(log);
    CHECK(same_file(in_tmp("run/ckpt.bin"), b, n), "a refused run changed the checkpoint");

    /* a full disk: the old file stays, nothing else does */
    Golf m;
    new_model(&m, SMALL, 0);
    const char *path = in_tmp("full.bin");
    put_file(path, "what was there before", 21);
    DIES("full disk", "full.bin|cannot write|too large|make room", limit_files(4000), ckpt_save(&m, path, 1));
    DIES("full disk", "full.bin|cannot write|make room", limit_files(100), golf_save(&m, path, 1));
    CHECK(same_file(path, "what was there before", 21), "a full disk damaged the old file");
    CHECK(!there("full.bin.tmp"), "a full disk left full.bin.tmp");
    DIES("full disk while training", "cannot write", limit_files(9000),
         command_line("train --preset=tiny --data=@/d --out=@/full --steps=2"));
    CHECK(!there("full/ckpt.bin") && !there("full/ckpt.bin.tmp"), "a full disk left files");
    golf_free(&m);

    if (geteuid() == 0) puts("skipped: unwritable folder (root may write everywhere)");
    else {
        mkdir(in_tmp("locked"), 0555);
        DIES("unwritable", "locked|cannot|--out", command_line(
             "train --preset=tiny --data=@/d --out=@/locked --steps=1"));
        DIES("unwritable", "locked/x|cannot write", write_file(in_tmp("locked/x"), "x", 1));
    }

    /* what is not an error: going on with a finished run, help, info, eval, a prompt */
    const char *fine[] = {RUN " --resume=1", RUN " --overwrite=1", "help", "info @/run/model.golf --cap=99999",
                          "eval @/run/model.golf --data=@/d --stride=3", "sample @/run/model.golf --prompt=ab",
                          "sample @/run/model.golf --tokens=50"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        const int st = STATUS(command_line(fine[i]));
        CHECK(st == 0 && !*message, "%s: exit status %d: %s", fine[i], st, message);
    }
    free(b);
}

/* ---------------------------------------------------------------------------------------------
 * Single bytes changed at random: refused or used, never a crash, a hang, or a changed model
 * --------------------------------------------------------------------------------------------- */
static void use_artifact(const char *path) {
    Golf m;
    golf_load(&m, path);
}

static void use_tokenizer(const char *path) {
    static const char text[] = "  The State of the Union: abc ab \xc3\xa9 \xff\xfe a a\n\n";
    Tokenizer *t = tokenizer_load(path);
    size_t n, len;
    int *all = ints((size_t)t->vocab, 1, 2);
    for (int i = 0; i < t->vocab; i++) all[i] = i;
    tokenizer_decode(t, all, (size_t)t->vocab, &len);
    int *ids = tokenizer_encode(t, text, sizeof text, &n);
    tokenizer_decode(t, ids, n, &len);
}

static void test_corruption(void) {
    const char *wanted = getenv("GOLF_CORRUPT");
    const int times = wanted ? atoi(wanted) : DOUBLE ? 60 : 250;
    const char *names[] = {"artifact", "checkpoint", "tokenizer", "shard"};
    Golf m;
    size_t len[4];
    uint8_t *file[4];
    char bad[1024];
    snprintf(bad, sizeof bad, "%s", in_tmp("c/x_train_000000.bin"));
    mkdir(in_tmp("c"), 0777);
    new_model(&m, "vocab=266 width=16 heads=2 seq=16 repeat=2 batch=2", 32);
    run_steps(&m, 0, 1);
    golf_save(&m, in_tmp("c/0"), 1), ckpt_save(&m, in_tmp("c/1"), 1), write_hand_model(in_tmp("c/2"));
    write_shard(in_tmp("c/3"), ints(700, 3, 200), 700);
    for (int kind = 0; kind < 4; kind++) {
        char name[8];
        snprintf(name, sizeof name, "c/%d", kind);
        file[kind] = read_file(in_tmp(name), &len[kind]);
        int refused = 0, good = 1;
        for (int i = 0; i < times && good; i++) { /* every other one in the first 600 bytes */
            uint8_t *b = file[kind];
            const size_t at = (size_t)dice((int)(i & 1 || len[kind] < 600 ? len[kind] : 600));
            const uint8_t was = b[at];
            b[at] ^= (uint8_t)(1 + dice(255));
            const size_t n = i % 10 == 9 ? (size_t)dice((int)len[kind]) : len[kind]; /* or cut short */
            put_file(bad, b, n);
            b[at] = was;
            const int st = kind == 0   ? STATUS(use_artifact(bad))
                           : kind == 1 ? STATUS(ckpt_load(&m, bad))
                           : kind == 2 ? STATUS(use_tokenizer(bad))
                                       : STATUS(read_all(in_tmp("c"), 200));
            refused += st == 1;
            good = st == 1 || (st == 0 && kind > 1);
            if (st == 1 && (!strstr(message, "error: ") || !strstr(message, bad))) good = 0;
            CHECK(good, "%s, byte %zu of %zu, number %d: status %d %s", names[kind], at, n, i, st, message);
        }
        printf("%s: %d corruptions, %d refused\n", names[kind], times, refused);
        free(file[kind]);
    }
    golf_free(&m);
}

static pid_t parent;
static void clean_up(void) {
    if (getpid() == parent) remove_tree(tmp);
}

int main(void) {
    const struct { const char *name; void (*run)(void); } groups[] = {
        {"numbers", test_numbers}, {"matmul", test_matmul},
#ifdef GOLF_DOUBLE
        {"layer gradients", test_layer_gradients}, {"model gradients", test_model_gradients},
#endif
        {"phases", test_phase_order}, {"quantizers: ternary", test_ternary},
        {"quantizers: integers", test_integers}, {"quantizers: activations", test_activations},
        {"adamw", test_adamw}, {"schedules", test_schedules}, {"tokenizer", test_tokenizer},
        {"shipped tokenizers", test_shipped_tokenizers}, {"shards", test_shards},
        {"training", test_training}, {"export", test_export}, {"bpb", test_bpb},
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
        release();
        printf("%-24s %s %6.2f s\n", groups[i].name, failed == before ? "ok    " : "FAILED", now() - t);
    }
    printf("%s numbers: %d passed, %d failed\n", DOUBLE ? "double" : "float", passed, failed);
    return failed != 0 || passed == 0;
}
