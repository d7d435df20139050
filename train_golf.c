/* train_golf.c - how good can a language model be for the bytes it stores?
 *
 * Trains a byte-capped language model around one wide transformer block that is applied
 * many times (or a few blocks, applied once or more), exports it to a file under a
 * byte cap, and scores that file in bits per byte (bpb). `./train_golf help` lists
 * commands and options; golf.h holds the options, the tensors and the file formats.
 *
 * One application of a block is a phase. Phase p:
 *
 *     h ----mix0[p]*----(+)----+--------------------------(+)--+-------------------------(+)--> h
 *     x0 ---mix1[p]*-----^     |                           ^   |                          ^
 *     (embedding)              RMSNorm*g_attn[p]           |   RMSNorm*g_mlp[p]           |
 *                              |                 gate_attn[p]* |                 gate_mlp[p]*
 *                              Wqkv, norm, RoPE            |   Wup                        |
 *                              |                           |   |                          |
 *                              attention                   |   relu^2                     |
 *                              |                           |   |                          |
 *                              RMSNorm*x_attn[p] -> Wo ----+   RMSNorm*x_mlp[p] -> Wdown -+
 *
 * (relu^2: or another --act, of which swiglu has a third matrix before it, Wgate.)
 * The four W are codes of a few bits (--wq, 4 by default) and may be shared by all
 * phases; every [p] is the phase's own, in bf16: the compression interface. At small caps
 * the tied embedding is most of the file (`info`).
 *
 * Letters: B batch, T sequence, N = B*T tokens, V vocabulary, C width, H heads, D = C/H
 * head_dim, KV key/value heads, F hidden width of the MLP, U unique blocks, R repeats, P
 * phases, K any input width. Gradients are d + name; a shape in a comment is row-major.
 *
 * Reading order: sections 3 and 5 are the model, 4 how its weights get small, 6 how they
 * learn, 2 why it is fast; 1 and 7 to 10 are the trainer around it. Further systems of
 * the literature are files of dev/systems, which sections 3 to 10 never mention by name:
 * they join at the seams that the end of golf.h declares. Not here: GPUs, mixed
 * precision, biases, dropout. */
#include "golf.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ==== 1. Errors, memory, files, numbers ============================================= */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CEIL(a, b) (((a) + (b)-1) / (b)) /* a / b rounded up */

/* What the compiler must see whole is inlined; what needs all registers is not. */
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

/* ---- Errors and memory ------------------------------------------------------------ */
/* Where a caller wants to go on that only asks whether something is refused. */
static _Thread_local jmp_buf *instead_of_dying;

_Noreturn void golf_die(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    if (instead_of_dying) longjmp(*instead_of_dying, 1);
    va_start(ap, fmt);
    fflush(stdout);
    ranks_error();
    fprintf(stderr, "%s:%d: error: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(EXIT_FAILURE);
}

enum { CACHE_LINE = 64, HUGE_PAGE = 1 << 21 };

/* Zeros. Of much memory each thread clears a part, as the loops over large arrays are shared: a
 * page of memory lies near the core that touches it first. */
static void *clear(char *p, size_t bytes) {
    if (bytes < 2 * HUGE_PAGE) return memset(p, 0, bytes);
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < bytes; at += HUGE_PAGE)
        memset(p + at, 0, bytes - at < HUGE_PAGE ? bytes - at : HUGE_PAGE);
    return p;
}

void *xcalloc(size_t n, size_t size) {
    if (size && n > SIZE_MAX / 2 / size)
        die("%zu x %zu bytes: more than memory can address", n, size);
    const size_t align = n * size < HUGE_PAGE ? CACHE_LINE : HUGE_PAGE;
    const size_t bytes = (n * size / align + 1) * align;
    void *p = aligned_alloc(align, bytes);
    if (!p)
        die("out of memory at %zu MB; try a smaller --batch, --width or --seq",
            bytes >> 20);

#ifdef MADV_HUGEPAGE
    /* Pages of 2 MB: fewer misses of the page table's cache. */
    if (align == HUGE_PAGE) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return clear(p, bytes);
}

/* ---- Files ------------------------------------------------------------------------ */
/* Why less was read than there is, with errno 0 before: a file may have been cut since its
 * size was asked. */
static const char *read_error(void) { return errno ? strerror(errno) : "it ends early"; }

uint8_t *read_file(const char *path, size_t *len) {
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f) die("%s: cannot open: %s; check the path", path, strerror(errno));
    if (fstat(fileno(f), &st)) die("%s: cannot read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) die("%s: expected a regular file", path);
    if ((uint64_t)st.st_size > SIZE_MAX / 2)
        die("%s: %lld bytes: more than memory can address", path, (long long)st.st_size);

    const size_t size = (size_t)st.st_size;
    uint8_t *data = xcalloc(size, 1);
    errno = 0;
    if (fread(data, 1, size, f) != size) die("%s: cannot read: %s", path, read_error());
    fclose(f);
    *len = size;
    return data; /* xcalloc leaves a zero byte behind the last */
}

/* Puts the parts on the disk, one after another. Returns 0 when that fails. */
static int put_parts(FILE *f, const Part *parts, int n) {
    for (int i = 0; i < n; i++) {
        if (parts[i].len == 0) continue; /* its data may be NULL */
        if (fwrite(parts[i].data, 1, parts[i].len, f) != parts[i].len) return 0;
    }
    return !fflush(f) && !fsync(fileno(f));
}

/* file (PATH_ROOM): what path stands for, which need not exist: a link stays, and what it
 * leads to is replaced. */
enum { PATH_ROOM = 4096, MOST_LINKS = 40 };
static void follow_links(const char *path, char *file) {
    char to[PATH_ROOM];
    int room = PATH_ROOM, needed = snprintf(file, PATH_ROOM, "%s", path);
    for (int links = 0; links < MOST_LINKS; links++) {
        if (needed >= room) break;
        const ssize_t n = readlink(file, to, sizeof to - 1);
        if (n < 0) return; /* no link */
        to[n] = 0;
        char *slash = strrchr(file, '/');
        char *from = *to == '/' || !slash ? file : slash + 1; /* beside the link */
        room = PATH_ROOM - (int)(from - file);
        needed = snprintf(from, (size_t)room, "%s", to);
    }
    die("%s: expected links that lead to a file, found too many or too long ones", path);
}

void write_parts(const char *path, const Part *parts, int n) {
    char file[PATH_ROOM], tmp[PATH_ROOM + 8];
    if (my_rank) return;
    follow_links(path, file);
    snprintf(tmp, sizeof tmp, "%s.tmp", file);
    FILE *f = fopen(tmp, "wb");
    const int ok = f && put_parts(f, parts, n) && !rename(tmp, file);
    const int why = errno;
    if (f) fclose(f);
    if (ok) return;

    if (f) remove(tmp);
    die("%s: cannot write: %s; the file is as it was: make room or choose another folder",
        path, strerror(why));
}

void write_file(const char *path, const void *data, size_t len) {
    write_parts(path, &(Part){data, len}, 1);
}

/* table[byte]: what eight steps of the division make of that byte. */
static void crc32_table(uint32_t *table) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t x = i;
        for (int bit = 0; bit < 8; bit++) x = x & 1 ? x >> 1 ^ 0xEDB88320u : x >> 1;
        table[i] = x;
    }
}

uint32_t crc32_of(uint32_t crc, const void *data, size_t len) {
    static uint32_t table[256]; /* of IEEE 802.3, as in zip and png */
    const uint8_t *p = data;
    if (!table[255]) crc32_table(table);

    crc = ~crc;
    for (size_t i = 0; i < len; i++) crc = crc >> 8 ^ table[(crc ^ p[i]) & 255];
    return ~crc;
}

uint32_t crc_of_file(const char *path) {
    size_t n;
    uint8_t *file = read_file(path, &n);
    const uint32_t crc = crc32_of(0, file, n);
    free(file);
    return crc;
}

/* dir/file in a buffer that the eighth next call uses again. */
static const char *path_of(const char *dir, const char *file) {
    static char ring[8][2048];
    static int next;
    char *path = ring[next % 8];
    next++;
    if (snprintf(path, sizeof *ring, "%s/%s", dir, file) >= (int)sizeof *ring)
        die("%.60s...: expected a path under 2,000 bytes, found a longer one", dir);
    return path;
}

/* Does the run folder, that of rank 0, hold this file? */
static int run_has(const Config *c, const char *file) {
    return ranks_most(!my_rank && !access(path_of(c->out, file), F_OK));
}

/* "runs/mine/" is "runs/mine": names are made by adding to it. */
static void cut_slashes(char *dir) {
    for (size_t len = strlen(dir); len > 1 && dir[len - 1] == '/'; len--)
        dir[len - 1] = 0;
}

/* Numbers in files are little-endian on every machine. */
static void put_u(uint8_t *p, uint64_t x, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(x >> 8 * i);
}

static uint64_t get_u(const uint8_t *p, int bytes) {
    uint64_t x = 0;
    for (int i = bytes - 1; i >= 0; i--) x = x << 8 | p[i];
    return x;
}

/* n numbers from this machine's order of bytes to that of files, or back. */
static void turn_reals(void *numbers, size_t n) {
    uint8_t *p = numbers;
    if (!BIG_ENDIAN_MACHINE) return;
    for (size_t i = 0; i < n; i++) {
        for (size_t b = 0; b < sizeof(real) / 2; b++) {
            const uint8_t byte = p[b];
            p[b] = p[sizeof(real) - 1 - b];
            p[sizeof(real) - 1 - b] = byte;
        }
        p += sizeof(real);
    }
}

/* ---- Numbers ---------------------------------------------------------------------- */
/* A float and its bits. */
typedef union {
    float f;
    uint32_t u;
} Bits;

/* bf16 is the upper half of a float: rounded to nearest even, and NaN stays NaN. */
uint16_t to_bf16(real x) {
    const uint32_t u = (Bits){.f = (float)x}.u;
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

real from_bf16(uint16_t b) { return (real)(Bits){.u = (uint32_t)b << 16}.f; }

/* Randomness without state: every number is a function of (key, index), so it depends
 * neither on threads nor on what was drawn before, and resuming a run needs no generator
 * state. hash64 is the splitmix64 finaliser over a mix of both. */
uint64_t hash64(uint64_t a, uint64_t b) {
    uint64_t z = a + 0x9E3779B97F4A7C15u * (b + 1);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Uniform in (0, 1), both ends excluded. */
double uniform01(uint64_t key, uint64_t i) {
    return ((double)(hash64(key, i) >> 11) + 0.5) * 0x1p-53;
}

/* Functions of our own, since every C library rounds its own in its own way: no number that is
 * stored, trained or scored may depend on which one a machine has. They are sums and
 * products of doubles, each rounded as IEEE 754 says, so all machines get the same bits.
 * The bounds are errors relative to the exact value, in units of 2^-53 (half a unit in the
 * last place); the tests compare with libm's. sqrt, rint, floor, ceil and fabs are exact
 * everywhere, hence the C library's. */

/* A double and its bits. */
typedef union {
    double d;
    uint64_t u;
} LongBits;

/* ln 2, pi/2: a part of few bits, whose product with a small integer is exact, and the rest. */
static const double LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;
static const double HALF_PI[] = {0x1.921fb544p+0, 0x1.0b4611a6p-34,
                                 0x1.3198a2e037073p-69};

/* c[0] + c[1] x + ... + c[n - 1] x^(n - 1) */
static inline double polynomial(const double *c, int n, double x) {
    double sum = c[n - 1];
    for (int i = n - 2; i >= 0; i--) sum = sum * x + c[i];
    return sum;
}

/* e^x: 2^k e^r with |r| <= ln2/2, and the power series of e^r, whose next term is below
 * 2^-57. 0 below -708, where doubles lose digits; infinity above 709. Error: 2 units. */
double exp_of(double x) {
    static const double c[] = {1.0 / 2,        1.0 / 6,         1.0 / 24,
                               1.0 / 120,      1.0 / 720,       1.0 / 5040,
                               1.0 / 40320,    1.0 / 362880,    1.0 / 3628800,
                               1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    if (isnan(x)) return x;
    if (x < -708) return 0;
    if (x > 709) return (double)INFINITY;

    /* Adding 1.5 * 2^52 rounds to an integer, k, and leaves it in the low bits. */
    const LongBits shifted = {.d = x * 1.4426950408889634 + 0x1.8p52};
    const double k = shifted.d - 0x1.8p52;
    const double r = x - k * LN2_HIGH - k * LN2_LOW;
    const double e = 1 + (r + r * r * polynomial(c, 12, r));
    return e * (LongBits){.u = (shifted.u + 1023) << 52}.d;
}

/* ln x: k ln 2 + ln m, m in sqrt(1/2) .. sqrt(2). With f = m - 1 and s = f / (2 + f), ln m is
 * 2 (s + s^3/3 + s^5/5 + ...), of which 2 s = f - f^2/2 + s f^2/2 is exact in f. -infinity
 * for 0, NaN below. Error: 2 units. */
double log_of(double x) {
    static const double c[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                               2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
    if (x == 0) return -(double)INFINITY;
    if (!(x > 0)) return (double)NAN;
    if (x == (double)INFINITY) return x;

    const int tiny = x < 0x1p-1022; /* fewer digits: the exponent is not what it says */
    LongBits m = {.d = tiny ? x * 0x1p54 : x};
    int power = (int)(m.u >> 52) - 1023 - 54 * tiny;
    m.u = (m.u & 0xfffffffffffff) | (uint64_t)1023 << 52;
    if (m.d > 1.4142135623730951) {
        m.d /= 2;
        power++;
    }
    const double k = power, f = m.d - 1, s = f / (2 + f), square = s * s;
    const double half = f * f / 2, rest = square * polynomial(c, 11, square);
    return k * LN2_HIGH - ((half - (s * (half + rest) + k * LN2_LOW)) - f);
}

/* x^y. The error of y ln x, which exp makes one of its result: 2 + 4 |y ln x|
 * units. */
double pow_of(double x, double y) { return exp_of(y * log_of(x)); }

/* sin(r + quarter * pi/2), |r| a little over pi/4 at most. */
static double wave(int64_t quarter, double r) {
    static const double sine[] = {
        -1.0 / 6,        1.0 / 120,        -1.0 / 5040,         1.0 / 362880,
        -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368e3, 1.0 / 355687428096e3};
    static const double cosine[] = {
        1.0 / 24,        -1.0 / 720,         1.0 / 40320,        -1.0 / 3628800,
        1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888e3};
    const double square = r * r;
    double y = r + r * square * polynomial(sine, 8, square);
    if (quarter & 1)
        y = 1 - (square / 2 - square * square * polynomial(cosine, 7, square));
    return quarter & 2 ? -y : y;
}

/* sin(x + quarter * pi/2) of |x| up to 2^20: x = k pi/2 + r, and k pi/2 in three parts. Not
 * inlined: gcc 12 makes a loop over it one of vectors of 64 bytes, with wrong results. */
NOINLINE double sine_of(double x, int64_t quarter) {
    const double k = rint(x * 0.6366197723675814);
    const double r = x - k * HALF_PI[0] - k * HALF_PI[1] - k * HALF_PI[2];
    return wave((int64_t)k + quarter, r);
}

/* Error: 3 units. */
double sin_of(double x) { return sine_of(x, 0); }
double cos_of(double x) { return sine_of(x, 1); }

/* N(0, 1) by Box and Muller's method. */
static double normal01(uint64_t key, uint64_t i) {
    const double radius = sqrt(-2 * log_of(uniform01(key, 2 * i)));
    return radius * cos_of(6.283185307179586 * uniform01(key, 2 * i + 1));
}

/* a * b + c rounded once, without an instruction for it: the product of two floats is exact in
 * double, and so is the error of the sum. Where there is one, the last bit is made odd, as if
 * all further digits were kept in it: the rounding to float is then that of the exact sum. */
static inline __attribute__((unused)) float fused_by_doubles(float a, float b, float c) {
    const double product = (double)a * (double)b, d = (double)c;
    LongBits sum = {.d = product + d};
    const double from_d = sum.d - product;
    const double error = (product - (sum.d - from_d)) + (d - from_d);
    const int is_even = !(sum.u & 1), farther = (error > 0) == (sum.d > 0);
    const uint64_t odd = farther ? sum.u + 1 : sum.u - 1;
    if (is_even && (error > 0 || error < 0)) sum.u = odd;
    return (float)sum.d;
}

/* a * b + c, rounded once. */
static inline real fused(real a, real b, real c) {
#if defined GOLF_DOUBLE /* of tests alone: no bits are promised */
    return a * b + c;
#elif GOLF_FMA
    return __builtin_fmaf(a, b, c);
#else
    return fused_by_doubles(a, b, c);
#endif
}

/* exp of x <= 88 for softmax: e^x = 2^k e^r with |r| <= ln2/2, and a polynomial for e^r
 * whose error is below 2e-7. Straight-line, so loops over it vectorise; libm's expf call
 * would not. */
static inline real fast_exp(real x) {
#ifdef GOLF_DOUBLE
    return exp_of(x); /* finite differences need every digit */
#else
    x = x < -87.0f ? -87.0f : x;
    /* Adding 1.5 * 2^23 rounds to an integer, k, and leaves it in the low bits. */
    const Bits shifted = {.f = fused(x, 1.44269504f, 12582912.0f)};
    const float k = shifted.f - 12582912.0f;
    const float r = fused(k, 2.12194440e-4f, fused(k, -0.693359375f, x));
    float p = fused(1.9875691500e-4f, r, 1.3981999507e-3f);
    p = fused(fused(p, r, 8.3334519073e-3f), r, 4.1665795894e-2f);
    p = fused(fused(p, r, 1.6666665459e-1f), r, 5.0000001201e-1f);
    p = fused(p * r, r, r) + 1.0f;
    return p * (Bits){.u = (shifted.u + 127) << 23}.f; /* the exponent k: times 2^k */
#endif
}

/* Dies if the machine, or the compiler against what it was told, rounds otherwise. */
static void check_rounding(void) {
    /* (1 + 2^-12)^2 - 1 - 2^-11 is 2^-24 in one rounding, 0 in two; in double likewise. */
    volatile float x = 1 + 0x1p-12f, y = -1 - 0x1p-11f, tiny = FLT_MIN;
    volatile double z = 1 + 0x1p-27, w = -1 - 0x1p-26;
    const float small = x * x + y, half = tiny * 0.5f;
    const double smaller = z * z + w;
    if (small != 0 || smaller != 0)
        die("this program was compiled to multiply and add in one rounding where it should not: "
            "compile with -ffp-contract=off");
    if (!(half > 0))
        die("numbers below %g become 0 here: compile without -ffast-math, -Ofast or the like",
            (double)FLT_MIN);
}

/* ---- Time and threads ------------------------------------------------------------- */
double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Where the time of a step goes, as the first thread sees it. TIMED(WHAT) charges what
 * follows in its scope to WHAT, less what an inner TIMED takes. Costs a test unless
 * `bench` looks. */
/* clang-format off */
#define GOLF_PARTS(X) \
    X(REST, "rest") \
    X(Y, "y matmul") \
    X(DX, "dX matmul") \
    X(DW, "dW matmul") \
    X(HEAD_MATMUL, "head matmul") \
    X(MUON, "Muon matmul") \
    X(ATTENTION, "attention") \
    X(LOSS, "softcap, softmax, loss") \
    X(NORMS, "norms, gates, RoPE, activation") \
    X(QUANT, "quantization, packing") \
    X(OPTIMIZER, "optimizer")
/* clang-format on */
#define X(part, name) PART_##part,
enum { GOLF_PARTS(X) PARTS };
#undef X

static double part_seconds[PARTS], part_since;
static int part_now, part_timing;

/* Charges the time since the last change to the part that ends, which it returns. Returns
 * -1, and part_leave does nothing, when this thread's time is not taken. */
static int part_enter(int part) {
    if (!part_timing || omp_get_thread_num()) return -1;
    const int before = part_now;
    const double t = now();
    part_seconds[before] += t - part_since;
    part_since = t;
    part_now = part;
    return before;
}

static void part_leave(const int *before) {
    if (*before >= 0) part_enter(*before);
}

/* A variable whose cleanup, at the end of its scope, goes back to the part before. */
#define TIMED(part) \
    __attribute__((cleanup(part_leave), unused)) const int before_##part = \
        part_enter(PART_##part)

/* ---- What a container grants. Linux shows a process all cores and all memory of the
 * machine; what it may use of them is in the files of its control group and of the groups
 * around that one. */
/* The numbers in a small file, at most two; returns how many. */
static int limits_in(const char *folder, const char *file, double *limit) {
    char path[PATH_ROOM + 64], text[64] = "";
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    const char *line = fgets(text, sizeof text, f);
    fclose(f);
    return line ? sscanf(line, "%lf %lf", &limit[0], &limit[1]) : 0; /* none in "max" */
}

/* Cores, in versions 2 and 1 of control groups; infinity: all of them. */
static double cores_of_group(const char *folder) {
    double us[2] = {0}, period[2] = {0};
    if (limits_in(folder, "cpu.max", us) == 2) {
        period[0] = us[1];
    } else {
        limits_in(folder, "cpu.cfs_quota_us", us); /* -1: none */
        limits_in(folder, "cpu.cfs_period_us", period);
    }
    return us[0] > 0 && period[0] > 0 ? us[0] / period[0] : (double)INFINITY;
}

static double bytes_of_group(const char *folder) {
    double v[2];
    if (limits_in(folder, "memory.max", v) > 0) return *v;
    if (limits_in(folder, "memory.limit_in_bytes", v) > 0) return *v;
    return (double)INFINITY;
}

/* Is the word in a list with commas between? */
static int has_word(const char *list, const char *word) {
    const size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, word, n) && (!at[n] || at[n] == ',')) return 1;
    }
    return 0;
}

/* The least limit of a kind ("cpu" or "memory"). Lines of /proc/self/cgroup are
 * NUMBER:KINDS:PATH, in version 2 without KINDS. root: "", or where tests have these files. */
static double group_limit(const char *root, const char *kind,
                          double (*of)(const char *folder)) {
    char path[PATH_ROOM], line[PATH_ROOM], kinds[256], inner[1024];
    double least = (double)INFINITY;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "r");
    if (!f) return least;
    while (fgets(line, sizeof line, f)) {
        *kinds = 0;
        const int is_2 = sscanf(line, "%*d::%1023[^\n]", inner) == 1;
        if (!is_2 && sscanf(line, "%*d:%255[^:]:%1023[^\n]", kinds, inner) != 2) continue;
        if (!is_2 && !has_word(kinds, kind)) continue;
        /* version 1 has a folder for each kind */
        const int base =
            snprintf(path, sizeof path, "%s/sys/fs/cgroup/%s", root, is_2 ? "." : kind);
        snprintf(path + base, sizeof path - (size_t)base, "%s", inner);
        for (char *end = path + strlen(path); end; end = strrchr(path + base, '/')) {
            *end = 0;
            least = fmin(least, of(path));
        }
    }
    fclose(f);
    return least;
}

/* More threads than cores would wait for each other while none may run. OMP_NUM_THREADS is
 * the user's own word. */
static void follow_quota(const char *root) {
    const double cores = group_limit(root, "cpu", cores_of_group);
    if (getenv("OMP_NUM_THREADS") || cores >= omp_get_max_threads()) return;
    omp_set_num_threads(MAX(1, (int)ceil(cores)));
}

/* Bytes of memory: of the machine, of the control group, of `ulimit -v`; 0 if unknown. */
static double memory_there(const char *root) {
    struct rlimit most;
    double there = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (there <= 0) return 0;
    there = fmin(there, group_limit(root, "memory", bytes_of_group));
    there = fmin(there, (double)(SIZE_MAX / 2)); /* of 32 bits */
    if (getrlimit(RLIMIT_AS, &most) || most.rlim_cur == RLIM_INFINITY) return there;
    return fmin(there, (double)most.rlim_cur);
}

/* How many threads are worth it for so many multiply-adds: to start them costs
 * microseconds, like a million of those. */
static int threads_for(double madds) {
#ifdef _OPENMP
    if (madds >= 1e6 && !omp_in_parallel()) return omp_get_max_threads();
#endif
    (void)madds;
    return 1;
}

/* ---- Vectors ---------------------------------------------------------------------- */
/* gcc and clang have vector types: + and * work on all lanes at once, v[i] is a lane, and
 * (vec){0} + x has x in all lanes. Any machine has these; intrinsics stand only where
 * they fall short.
 *
 * VB: bytes of a vector; 16 are SSE2, NEON, or whatever the compiler makes of them.
 * ZIP: interleaves the lower (h = 0) or the upper (h = WORDS / 2) 32-bit lanes of a and
 * b. */
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

/* gcc before 12 does not know clang's name for it. */
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
/* clang-format off */
#if defined(__AVX512F__)
#define VB 64
#define ZIP(a, b, h) \
    SHUFFLE(a, b, h, h + 16, h + 1, h + 17, h + 2, h + 18, h + 3, h + 19, \
            h + 4, h + 20, h + 5, h + 21, h + 6, h + 22, h + 7, h + 23)
#elif defined(__AVX__)
#define VB 32
#define ZIP(a, b, h) SHUFFLE(a, b, h, h + 8, h + 1, h + 9, h + 2, h + 10, h + 3, h + 11)
#else
#define VB 16
#define ZIP(a, b, h) SHUFFLE(a, b, h, h + 4, h + 1, h + 5)
#endif

enum {
    WORDS = VB / 4,           /* 32-bit lanes of a vector */
    LANES = VB / sizeof(real) /* numbers of a vector */
};

#define VEC(bytes) __attribute__((vector_size(bytes), may_alias))
typedef real vec VEC(VB);
typedef int32_t ivec VEC(VB);
typedef vec uvec __attribute__((aligned(1))); /* the same at any address */
typedef ivec uivec __attribute__((aligned(1)));
typedef real rvec VEC(WORDS * sizeof(real)); /* an ivec turned into numbers */
/* Codes on their way to a vec, in two steps: gcc 12 makes one big step lane by lane. */
typedef int8_t qvec VEC(LANES);
typedef int16_t hvec VEC(LANES * 2);
typedef int32_t wvec VEC(LANES * 4);

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* clang-format on */

/* load_reals, store_reals: LANES numbers, or the first `have` of them where no more
 * exist; a load has zeros in the other lanes. Neither touches memory behind them. */
#if defined(__AVX512F__) && !defined(GOLF_DOUBLE)
INLINE vec load_reals(const real *p, int have) {
    if (have >= LANES) return *(const uvec *)p;
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << have) - 1), p);
}

INLINE void store_reals(real *p, vec v, int have) {
    if (have >= LANES) *(uvec *)p = v;
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << have) - 1), (__m512)v);
}
#else
INLINE vec load_reals(const real *p, int have) {
    if (have >= LANES) return *(const uvec *)p;
    vec v = {0};
    if (have > 0) memcpy(&v, p, have * sizeof(real));
    return v;
}

INLINE void store_reals(real *p, vec v, int have) {
    if (have >= LANES) *(uvec *)p = v;
    else if (have > 0) memcpy(p, &v, have * sizeof(real));
}
#endif

/* Sums have the same order on every machine, whatever its vectors are: number i is added to
 * lane i % SUM, and at the end lanes in pairs, i + 8 to i, i + 4 to i, ... */
enum { SUM = 16, SUM_PARTS = SUM / LANES };
typedef struct {
    vec part[SUM_PARTS];
} Sums;

/* The parts v of the SUM numbers from i on; part v starts at number `at`, perhaps behind the
 * last one. */
#define EACH_PART(v, at, i) \
    UNROLL for (int v = 0, at = (i); v < SUM_PARTS; v++, at += LANES)

#if defined(__AVX__) && !defined(GOLF_DOUBLE)
INLINE real sum_of_8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return s[0] + s[1];
}
#endif
#if defined(__AVX512F__) && !defined(GOLF_DOUBLE)
INLINE real sum_of(const Sums *s) {
    const __m512d v = (__m512d)s->part[0];
    return sum_of_8((__m256)_mm512_castpd512_pd256(v) +
                    (__m256)_mm512_extractf64x4_pd(v, 1));
}
#elif defined(__AVX__) && !defined(GOLF_DOUBLE)
INLINE real sum_of(const Sums *s) { return sum_of_8((__m256)(s->part[0] + s->part[1])); }
#else
INLINE real sum_of(const Sums *s) {
    real lane[SUM];
    memcpy(lane, s, sizeof lane);
    for (int half = SUM / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}
#endif

/* The larger, the smaller of both in each lane: a > b ? a : b, for which compilers find
 * two instructions or three instead of one. */
#if defined(GOLF_DOUBLE) || VB == 16
INLINE vec max_lanes(vec a, vec b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
#elif VB == 64
INLINE vec max_lanes(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
#else
INLINE vec max_lanes(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
#endif
INLINE vec min_lanes(vec a, vec b) { return -max_lanes(-a, -b); }

/* The first `have` lanes; 0 in the others. */
#if defined(__AVX512F__) && !defined(GOLF_DOUBLE)
INLINE vec first_lanes(vec v, int have) {
    if (have >= LANES) return v;
    return (vec)_mm512_maskz_mov_ps((__mmask16)((1u << have) - 1), (__m512)v);
}
#else
INLINE vec first_lanes(vec v, int have) {
    for (int i = MAX(have, 0); i < LANES; i++) v[i] = 0;
    return v;
}
#endif

INLINE real max_of_lanes(vec v) {
    real most = v[0];
    for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}

#ifndef GOLF_DOUBLE
/* fused_by_doubles in each lane. */
INLINE __attribute__((unused)) vec fused_lanes_by_doubles(vec a, vec b, vec c) {
    typedef double doubles VEC(LANES * sizeof(double));
    typedef int64_t longs VEC(LANES * sizeof(double));
    const doubles d = __builtin_convertvector(c, doubles);
    const doubles product =
        __builtin_convertvector(a, doubles) * __builtin_convertvector(b, doubles);
    const doubles sum = product + d, from_d = sum - product;
    const doubles error = (product - (sum - from_d)) + (d - from_d);
    /* A comparison is 0, or -1 where it holds. */
    const longs is_even = ((longs)sum & 1) - 1, nearer = (error > 0) ^ (sum > 0);
    const longs inexact = (error > 0) | (error < 0);
    const longs step = (nearer << 1) + 1; /* 1, or -1 towards 0 */
    return __builtin_convertvector((doubles)((longs)sum + (step & is_even & inexact)),
                                   vec);
}
#endif

/* fused in each lane. */
#if defined(GOLF_DOUBLE)
INLINE vec fused_lanes(vec a, vec b, vec c) { return a * b + c; }
#elif VB == 64
INLINE vec fused_lanes(vec a, vec b, vec c) {
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#elif VB == 32 && GOLF_FMA
INLINE vec fused_lanes(vec a, vec b, vec c) {
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#elif GOLF_FMA
INLINE vec fused_lanes(vec a, vec b, vec c) {
    for (int i = 0; i < LANES; i++) c[i] = fused(a[i], b[i], c[i]);
    return c;
}
#else
INLINE vec fused_lanes(vec a, vec b, vec c) { return fused_lanes_by_doubles(a, b, c); }
#endif

/* fast_exp of every lane. */
INLINE vec exp_lanes(vec x) {
#ifdef GOLF_DOUBLE
    for (int i = 0; i < LANES; i++) x[i] = exp_of(x[i]);
    return x;
#else
    const vec one = (vec){0} + 1;
    x = max_lanes(one * -87.0f, x); /* in this order: NaN stays NaN */
    const vec shifted = fused_lanes(x, one * 1.44269504f, one * 12582912.0f);
    const vec k = shifted - 12582912.0f;
    const vec r =
        fused_lanes(k, one * 2.12194440e-4f, fused_lanes(k, one * -0.693359375f, x));
    vec p = fused_lanes(one * 1.9875691500e-4f, r, one * 1.3981999507e-3f);
    p = fused_lanes(fused_lanes(p, r, one * 8.3334519073e-3f), r, one * 4.1665795894e-2f);
    p = fused_lanes(fused_lanes(p, r, one * 1.6666665459e-1f), r, one * 5.0000001201e-1f);
    p = fused_lanes(p * r, r, r) + 1.0f;
    return p * (vec)(((ivec)shifted + 127) << 23);
#endif
}

/* The nearest integer in each lane, of ties the even one, below 2^22: adding 1.5 * 2^23
 * (2^52 in double) leaves no bits for a fraction. */
INLINE vec rint_lanes(vec x) {
    const real shift = sizeof(real) > 4 ? (real)0x1.8p52 : (real)0x1.8p23;
    return x + shift - shift;
}

/* The first `have` lanes, integers, as codes of 16 bits. */
INLINE void store_halves(int16_t *p, vec x, int have) {
    const hvec h = __builtin_convertvector(__builtin_convertvector(x, wvec), hvec);
    if (have >= LANES) {
        memcpy(p, &h, sizeof h);
        return;
    }
#if defined(__AVX512VL__) && defined(__AVX512BW__) && !defined(GOLF_DOUBLE)
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << have) - 1), (__m256i)h);
#else
    memcpy(p, &h, have * sizeof *p);
#endif
}

/* The same for codes. */
INLINE qvec load_codes(const int8_t *p, int have) {
    qvec q = {0};
    if (have >= LANES) {
        memcpy(&q, p, LANES);
        return q;
    }
#if defined(__AVX512VL__) && defined(__AVX512BW__) && !defined(GOLF_DOUBLE)
    return (qvec)_mm_maskz_loadu_epi8((__mmask16)((1u << have) - 1), p);
#else
    memcpy(&q, p, have);
    return q;
#endif
}

/* Transposes t (WORDS,WORDS): log2(WORDS) times, interleave one half with the other. */
INLINE void transpose(ivec *t) {
    for (int step = 1; step < WORDS; step *= 2) {
        ivec u[WORDS];
        for (int i = 0; i < WORDS / 2; i++) {
            u[2 * i] = ZIP(t[i], t[i + WORDS / 2], 0);
            u[2 * i + 1] = ZIP(t[i], t[i + WORDS / 2], WORDS / 2);
        }
        for (int i = 0; i < WORDS; i++) t[i] = u[i];
    }
}

/* The same for t (LANES,LANES), vectors of numbers. The double build may be slow: element
 * by element. */
INLINE void transpose_reals(ivec *t) {
#ifdef GOLF_DOUBLE
    vec u[LANES];
    for (int r = 0; r < LANES; r++) u[r] = (vec)t[r];
    for (int r = 0; r < LANES; r++) {
        vec row = {0};
        for (int l = 0; l < LANES; l++) row[l] = u[l][r];
        t[r] = (ivec)row;
    }
#else
    transpose(t);
#endif
}

/* dot4 multiplies 4 codes of w by 4 codes of x in each 32-bit lane and adds the products
 * to that lane of s. On x86 one side is unsigned: a byte of w holds a code + OFFSET. No code of
 * x is -128. */
#if VB == 64 && defined(__AVX512VNNI__)
#define OFFSET 128
INLINE ivec dot4(ivec s, ivec w, ivec x) {
    return (ivec)_mm512_dpbusd_epi32((__m512i)s, (__m512i)w, (__m512i)x);
}
#elif VB == 32 && defined(__AVXVNNI__)
#define OFFSET 128
INLINE ivec dot4(ivec s, ivec w, ivec x) {
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)s, (__m256i)w, (__m256i)x);
}
#elif VB == 32 && defined(__AVX2__)
/* The sign of w goes to x, as one side is unsigned. Two products, at most 2 * 128 * 127, fit
 * 16 bits. */
#define OFFSET 0
INLINE ivec dot4(ivec s, ivec w, ivec x) {
    const __m256i size = _mm256_abs_epi8((__m256i)w);
    const __m256i pairs =
        _mm256_maddubs_epi16(size, _mm256_sign_epi8((__m256i)x, (__m256i)w));
    return s + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#elif VB == 16 && defined(__ARM_FEATURE_DOTPROD)
#define OFFSET 0
INLINE ivec dot4(ivec s, ivec w, ivec x) {
    return (ivec)vdotq_s32((int32x4_t)s, (int8x16_t)w, (int8x16_t)x);
}
#else
#define OFFSET 0
INLINE ivec dot4(ivec s, ivec w, ivec x) {
    typedef uint32_t bits VEC(VB);
    /* Each byte goes to the top of its lane, then down again with its sign. */
    for (int up = 0; up <= 24; up += 8)
        s += ((ivec)((bits)w << up) >> 24) * ((ivec)((bits)x << up) >> 24);
    return s;
}
#endif

/* dot2 multiplies 2 codes of 16 bits of a by 2 of b in each 32-bit lane and adds both
 * products to that lane of s. No code is -32768: the sum of two products then fits. */
#if VB == 64 && defined(__AVX512VNNI__)
INLINE ivec dot2(ivec s, ivec a, ivec b) {
    return (ivec)_mm512_dpwssd_epi32((__m512i)s, (__m512i)a, (__m512i)b);
}
#elif VB == 64 && defined(__AVX512BW__)
INLINE ivec dot2(ivec s, ivec a, ivec b) {
    return s + (ivec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}
#elif VB == 32 && defined(__AVXVNNI__)
INLINE ivec dot2(ivec s, ivec a, ivec b) {
    return (ivec)_mm256_dpwssd_avx_epi32((__m256i)s, (__m256i)a, (__m256i)b);
}
#elif VB == 32 && defined(__AVX2__)
INLINE ivec dot2(ivec s, ivec a, ivec b) {
    return s + (ivec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
#elif VB == 16 && defined(__SSE2__)
#include <emmintrin.h>
INLINE ivec dot2(ivec s, ivec a, ivec b) {
    return s + (ivec)_mm_madd_epi16((__m128i)a, (__m128i)b);
}
#else
INLINE ivec dot2(ivec s, ivec a, ivec b) {
    typedef uint32_t bits VEC(VB);
    const ivec low = ((ivec)((bits)a << 16) >> 16) * ((ivec)((bits)b << 16) >> 16);
    return s + low + (a >> 16) * (b >> 16);
}
#endif

/* WORDS codes of 16 bits, and what a fraction r / 2^15 of each is, rounded. */
typedef int16_t codes16 VEC(WORDS * 2);
static inline int16_t fraction_of(int16_t q, int16_t r) {
    return (int16_t)((q * r + (1 << 14)) >> 15);
}

INLINE codes16 fractions_of(codes16 q, codes16 r) {
#if VB == 64
    return (codes16)_mm256_mulhrs_epi16((__m256i)q, (__m256i)r);
#elif VB == 32
    return (codes16)_mm_mulhrs_epi16((__m128i)q, (__m128i)r);
#else
    const ivec a = __builtin_convertvector(q, ivec), b = __builtin_convertvector(r, ivec);
    return __builtin_convertvector((a * b + (1 << 14)) >> 15, codes16);
#endif
}

/* ==== 2. Matmul ===================================================================== */
/* Nearly all time of a step is spent here. The model has products of three kinds:
 * c = a b in floating point; y = x w^T of int8 codes; and, for gradients, the head and
 * Muon, products of codes of 16 bits. Sums of codes are exact. Each kind comes in four
 * pieces, in this order:
 *
 *   naive    three loops: the definition, with which the tests compare the fast code.
 *   packing  copies an operand into panels that are then read from front to back.
 *   tile     MR x NR outputs, which stay in registers while k runs.
 *   driver   cuts an output into blocks whose panels fit the caches, and into tasks.
 *
 * The naive loops are slow because a multiply-add needs two loads, often from far apart.
 * In a tile one loaded number of a serves NR outputs, and one of b MR:
 *
 *                      NR
 *                    +----+
 *                  k | b  |   a panel of b, one line of NR numbers for each k
 *             k      |    |
 *        +---------+ +----+
 *     MR |    a    | | c  |   += the sum over k of (column k of a) x (line k of b)
 *        +---------+ +----+
 */

/* ---- Products in floating point: the definition ----------------------------------- */
void gemm_naive(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            real sum = 0;
            for (int p = 0; p < k; p++) sum += mat_get(a, i, p) * mat_get(b, p, j);
            real *out = c + i * ldc + j;
            *out = acc ? *out + sum : sum;
        }
}

/* ---- The order of the sums, and the size of a tile -------------------------------- */
/* The fast code adds in one order, whatever else is computed. An output is
 * ((0 + block 0) + block 1) + ..., a block being KC terms added one by one in order of k
 * (attention: all terms, one block). No lane, edge, task or thread splits or reorders
 * that chain: a row has the same bits alone or among 4096, on 1 thread or on 64. Only k
 * decides the arithmetic.
 *
 * The size of a tile. Per step of k it loads 2 vectors of b and broadcasts MR values of a
 * for 2 MR multiply-adds. 32 registers hold MR = 14 (28 sums + 2 b + 1 a), 16 hold MR = 6
 * (12 + 3). An FMA takes 4 cycles, two start per cycle: 8 independent sums or more keep
 * them busy. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define MR 14
#else
#define MR 6
#endif
/* clang-format off */
enum {
    NR = 2 * LANES, /* columns of a tile: two vectors of them */
    KC = 256,       /* a panel of b: 32 x 256 x 4 = 32 KB, in L1 */
    NC = 512,       /* columns of b per packing: 512 KB, half of L2 */
    MC = 18 * MR,   /* rows of a per packing: 288 KB, a quarter of it */
    QUERIES = 32    /* that attention takes at a time: a block of its sums */
};
/* clang-format on */

/* ---- Packing ---------------------------------------------------------------------- */
/* An operand is cut into panels of W numbers across: MR rows of a, or NR columns of b.
 * Panel p starts at p * STRIDE(W, depth); its element k * WIDE(W) + i is element p*W + i
 * across and k down the depth. A line is whole vectors, so that none is split between
 * cache lines; what lies behind its first W, or behind the last number that exists, is
 * never used. */
#define WIDE(W) (CEIL(W, LANES) * LANES)
/* No power of two: else the same line of all panels would share a set of the cache. */
#define STRIDE(W, depth) (WIDE(W) * (depth) + LANES)

/* Codes of 16 bits as numbers. */
INLINE vec load_halves(const int16_t *p, int have) {
    hvec q = {0};
    if (have >= LANES) memcpy(&q, p, sizeof q);
    else memcpy(&q, p, have * sizeof *p);
    return __builtin_convertvector(__builtin_convertvector(q, wvec), vec);
}

/* A vector of a stored row, as numbers. */
INLINE vec load_stored(Mat x, size_t row, size_t col, int have) {
    if (x.f) return load_reals(x.f + row * x.ld + col, have);
    if (x.h) return load_halves(x.h + row * x.ld + col, have) * mat_step(x, row);
    const qvec q = load_codes(x.q + row * x.ld + col, have);
    const wvec w = __builtin_convertvector(__builtin_convertvector(q, hvec), wvec);
    return __builtin_convertvector(w, vec) * mat_step(x, row);
}

INLINE const void *address_of(Mat x, size_t at) {
    if (x.f) return x.f + at;
    if (x.h) return x.h + at;
    return x.q + at;
}

/* Packs stored rows that run across the panels, x (depth,have): a copy that reads them
 * front to back. Rows are asked for twelve ahead: else operands of 16 MB would cost dW a
 * tenth. */
INLINE void pack_rows(real *panel, const int W, Mat x, int have, int depth) {
    for (int k = 0; k < depth; k++) {
        real *line = panel + k * WIDE(W);
        for (int p = 0; p < have; p += W) {
            for (int i = 0; i < W; i += LANES) {
                const size_t ahead = (k + 12) * x.ld + p + i; /* past the end: no harm */
                __builtin_prefetch(address_of(x, ahead), 0, 2);
                *(vec *)(line + i) =
                    p + i < have ? load_stored(x, k, p + i, have - p - i) : (vec){0};
            }
            line += STRIDE(W, depth);
        }
    }
}

/* The next `have` numbers of LANES stored rows, transposed. Rows behind number `last` do not
 * exist: the last stands for them. */
INLINE void load_transposed(ivec *t, Mat x, size_t row, int last, size_t col, int have) {
    UNROLL for (int r = 0; r < LANES; r++) {
        t[r] = (ivec)load_stored(x, row + MIN(r, last), col, have);
    }
    transpose_reals(t);
}

/* Packs stored rows that run down the depth, x (have,depth): the copy is a transpose,
 * LANES x LANES at a time. */
INLINE void pack_transposed(real *panel, const int W, Mat x, int have, int depth) {
    for (int p = 0; p < have; p += W) {
        const int last = MIN(W, have - p) - 1;
        for (int i = 0; i < W; i += LANES)
            for (int k = 0; k < depth; k += LANES) {
                ivec t[LANES];
                const int row = MIN(i, last);
                load_transposed(t, x, p + row, last - row, k, depth - k);
                UNROLL for (int r = 0; r < LANES; r++) {
                    if (r < depth - k)
                        *(vec *)(panel + (k + r) * WIDE(W) + i) = (vec)t[r];
                }
            }
        panel += STRIDE(W, depth);
    }
}

/* a(m,k) into panels of MR rows. Branches that call the same differ in an argument that the
 * compiler then knows, so that no loop tests it: here and below. */
NOINLINE void pack_a(real *to, Mat a, int m, int k) {
    if (a.trans) pack_rows(to, MR, a, m, k);
    else if (a.f) pack_transposed(to, MR, mat(a.f, a.ld), m, k);
    else pack_transposed(to, MR, a, m, k);
}

/* b(k,n) into panels of NR columns. */
NOINLINE void pack_b(real *to, Mat b, int n, int k) {
    if (!b.trans) pack_rows(to, NR, b, n, k);
    else if (b.f) pack_transposed(to, NR, mat(b.f, b.ld), n, k);
    else pack_transposed(to, NR, b, n, k);
}

/* ---- The tile --------------------------------------------------------------------- */
/* c(rows,cols) = or += (add) a b, where b is a panel of NR columns of which the tile
 * computes the first 1 or 2 `vectors`, and a(i,k) is a[i * row_step + k * k_step]. Reads
 * `height` rows of a, at most MR and at least `rows`. The compiler knows height, vectors
 * and both steps: the sums are then registers. */
INLINE void tile(const int height, const int vectors, const int row_step,
                 const int k_step, real *c, size_t ldc, const real *a, const real *b,
                 int rows, int cols, int depth, int add) {
    vec s[MR][2];
    UNROLL for (int i = 0; i < height; i++) {
        s[i][0] = (vec){0};
        s[i][1] = (vec){0};
        if (i >= rows) continue;
        /* c into L2: 14 rows a power of two apart collide in L1. */
        __builtin_prefetch(c + i * ldc, 1, 2);
        __builtin_prefetch(c + i * ldc + cols - 1, 1, 2);
    }

    for (int k = 0; k < depth; k++) {
        const vec b0 = *(const vec *)b;
        const vec b1 = vectors > 1 ? *(const vec *)(b + LANES) : b0;
        UNROLL for (int i = 0; i < height; i++) {
            const vec ai = a[i * row_step] - (vec){0}; /* - : -0 stays -0 */
            s[i][0] = fused_lanes(ai, b0, s[i][0]);
            if (vectors > 1) s[i][1] = fused_lanes(ai, b1, s[i][1]);
        }
        a += k_step;
        b += NR;
    }

    UNROLL for (int i = 0; i < height; i++) {
        if (i >= rows) continue;
        for (int v = 0; v < vectors; v++) {
            real *out = c + i * ldc + v * LANES;
            if (add) s[i][v] += load_reals(out, cols - v * LANES);
            store_reals(out, s[i][v], cols - v * LANES);
        }
    }
}

/* A tile has four heights, so that one row does not cost fourteen: 1, 4, 8 and 14 rows
 * where MR is 14; 1, 1, 3 and 6 where it is 6. */
enum { HEIGHTS = 4 };
enum { HEIGHT_0 = 1, HEIGHT_1 = MR * 2 / 7, HEIGHT_2 = MR * 4 / 7, HEIGHT_3 = MR };

/* Which of the four: the least that holds so many rows, or the last. */
static inline int height_of(int rows) {
    return (rows > HEIGHT_0) + (rows > HEIGHT_1) + (rows > HEIGHT_2);
}

/* A tile with all constants but the width, where narrow edges take half the work. Not
 * inlined: the variables of a caller would take registers from the sums, and one sum in
 * memory halves the speed. */
#define TILE(NAME, HEIGHT, ROW_STEP, K_STEP) \
    NOINLINE void NAME(real *c, size_t ldc, const real *a, const real *b, int rows, \
                       int cols, int depth, int add) { \
        if (cols > LANES) \
            tile(HEIGHT, 2, ROW_STEP, K_STEP, c, ldc, a, b, rows, cols, depth, add); \
        else tile(HEIGHT, 1, ROW_STEP, K_STEP, c, ldc, a, b, rows, cols, depth, add); \
    }

typedef void (*Tile)(real *c, size_t ldc, const real *a, const real *b, int rows,
                     int cols, int depth, int add);

/* The table NAME of the four heights, for one layout of a. */
#define TILES(NAME, ROW_STEP, K_STEP) \
    TILE(NAME##_0, HEIGHT_0, ROW_STEP, K_STEP) \
    TILE(NAME##_1, HEIGHT_1, ROW_STEP, K_STEP) \
    TILE(NAME##_2, HEIGHT_2, ROW_STEP, K_STEP) \
    TILE(NAME##_3, HEIGHT_3, ROW_STEP, K_STEP) \
    static const Tile NAME[HEIGHTS] = {NAME##_0, NAME##_1, NAME##_2, NAME##_3};

/* clang-format off */
TILES(packed, 1, WIDE(MR)) /* a from panels */
TILES(by_row, QUERIES, 1)  /* a as it is, rows QUERIES apart: scores of attention */
TILES(by_col, 1, QUERIES)  /* the same transposed, columns QUERIES apart */
/* clang-format on */

/* ---- Drivers ---------------------------------------------------------------------- */
/* All tiles of c(rows,cols): the next MR rows of a are a_step on, the next panel of b
 * b_step. A panel of b stays in L1 (32 KB) while those of a pass by, 64 bytes from L2 for
 * 14 cycles. */
static void sweep(const Tile *tiles, real *c, size_t ldc, const real *a, size_t a_step,
                  const real *b, size_t b_step, int rows, int cols, int depth, int add) {
    for (int j = 0; j < cols; j += NR) {
        for (int i = 0; i < rows; i += MR)
            tiles[height_of(rows - i)](c + i * ldc + j, ldc, a + i / MR * a_step, b,
                                       MIN(rows - i, MR), MIN(cols - j, NR), depth, add);
        b += b_step;
    }
}

/* Numbers of KC rows of b(k,n) in panels. */
static size_t panels_block(int k, int n) { return CEIL(n, NR) * STRIDE(NR, MIN(k, KC)); }

void panels_pack(Panels *p, Mat b, int k, int n) {
    const size_t block = panels_block(k, n);
    if (!p->panel || p->k != k || p->n != n) {
        free(p->panel);
        *p = (Panels){xcalloc(CEIL(k, KC) * block, sizeof(real)), k, n};
    }

#pragma omp parallel for num_threads(threads_for(8.0 * k * n))
    for (int j = 0; j < n; j += 4 * NR)
        for (int k0 = 0; k0 < k; k0 += KC) {
            const int cols = MIN(n - j, 4 * NR), depth = MIN(k - k0, KC);
            pack_b(p->panel + k0 / KC * block + j / NR * STRIDE(NR, depth),
                   mat_at(b, k0, j), cols, depth);
        }
}

/* One thread. b comes from panels (`ready`), or is packed here, NC columns at a time. */
static void gemm_serial(real *c, size_t ldc, Mat a, Mat b, const Panels *ready, int m,
                        int n, int k, int acc) {
    enum { A_SIZE = MC / MR * STRIDE(MR, KC), B_SIZE = NC / NR * STRIDE(NR, KC) };
    static _Thread_local real *room; /* allocated once per thread, kept till the end */
    if (!room) room = xcalloc(B_SIZE + A_SIZE, sizeof(real));
    real *a_panels = room + B_SIZE;
    const int nc = ready ? n : NC;

    for (int j = 0; j < n; j += nc)
        for (int k0 = 0; k0 < k; k0 += KC) {
            const int cols = MIN(n - j, nc), depth = MIN(k - k0, KC);
            const real *b_panels = room;
            if (ready) b_panels = ready->panel + k0 / KC * panels_block(k, n);
            else pack_b(room, mat_at(b, k0, j), cols, depth);

            for (int i = 0; i < m; i += MC) {
                const int rows = MIN(m - i, MC);
                pack_a(a_panels, mat_at(a, i, k0), rows, depth);
                sweep(packed, c + i * ldc + j, ldc, a_panels, STRIDE(MR, depth), b_panels,
                      STRIDE(NR, depth), rows, cols, depth, acc || k0 > 0);
            }
        }
}

void gemm_panels(real *c, size_t ldc, Mat a, const Panels *b, int m, int acc) {
    gemm_serial(c, ldc, a, (Mat){0}, b, m, b->n, b->k, acc);
}

/* ---- Products of codes: the definition -------------------------------------------- */
void gemm_int_naive(real *y, size_t ldy, const int8_t *x, const real *step,
                    const int8_t *codes, real s, int n, int m, int k) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            int32_t sum = 0;
            for (int p = 0; p < k; p++)
                sum += codes[(size_t)j * k + p] * x[(size_t)i * k + p];
            y[i * ldy + j] = (real)sum * (s * step[i]);
        }
}

/* ---- Packing codes ---------------------------------------------------------------- */
/* The same tile, but dot4 takes 4 steps of k at once, a word, and does the work of 4
 * FMAs. Panels hold w + OFFSET, and a sum starts at -OFFSET * sum(x), so that it ends
 * exact. NRI: columns of a tile, outputs of the projection. */
enum { NRI = 2 * WORDS };

/* The first `have` bytes of p, at most a vector; zeros behind them. */
INLINE ivec load_bytes(const char *p, int have) {
    if (have >= VB) return *(const uivec *)p;
#ifdef __AVX512BW__
    return (ivec)_mm512_maskz_loadu_epi8(((__mmask64)1 << have) - 1, p);
#else
    ivec v = {0};
    memcpy(&v, p, have);
    return v;
#endif
}

/* WORDS rows of bytes, `step` bytes apart, of which `have` are left: of each the next WORDS
 * words, transposed. Rows behind number `last` do not exist: the last stands for them. */
INLINE void load_words_transposed(ivec *t, const char *x, size_t step, int last,
                                  int have) {
    UNROLL for (int r = 0; r < WORDS; r++) {
        t[r] = load_bytes(x + MIN(r, last) * step, have);
    }
    transpose(t);
}

/* Rows of `bytes` bytes, `step` bytes apart, at most W of them, to panel[word * W + i] =
 * the next 4 bytes of row i, zeros behind the last. What stands for a row that does not
 * exist is never used. Stores are whole vectors: what they spill over the end of a line is
 * the start of the next one, which is stored later; hence i runs down, and the panel has
 * WORDS more words. */
INLINE void pack_words(int32_t *panel, const int W, const void *x, size_t step, int bytes,
                       const int rows) {
    for (int word = 0; word < CEIL(bytes, 4); word += WORDS) {
        const int left = bytes - word * 4;
        for (int i = (W - 1) / WORDS * WORDS; i >= 0; i -= WORDS) {
            const char *in = (const char *)x + MIN(i, rows - 1) * step + word * 4;
            ivec t[WORDS];
            load_words_transposed(t, in, step, MAX(0, MIN(rows, W) - 1 - i), left);
            UNROLL for (int r = 0; r < WORDS; r++) {
                if (r * 4 < left) *(uivec *)(panel + (word + r) * W + i) = t[r];
            }
        }
    }
}

NOINLINE void pack_rows_of_a(int32_t *panel, const void *x, size_t step, int bytes,
                             int rows) {
    if (rows >= MR) pack_words(panel, MR, x, step, bytes, MR);
    else pack_words(panel, MR, x, step, bytes, rows);
}

/* codes (rows,cols) to panels [rows / NRI][cols / 4][NRI outputs][4 of k] of bytes, as on
 * a little-endian machine. */
void int_pack(IntWeights *w, const int8_t *codes, int rows, int cols) {
    const int panels = CEIL(rows, NRI), words = CEIL(cols, 4);
    if (!w->panel || w->rows != rows || w->cols != cols) {
        free(w->panel);
        free(w->stream);
        w->panel = xcalloc((size_t)panels * words * NRI + WORDS, 4);
        *w = (IntWeights){w->panel, rows, cols, NULL};
    }

#pragma omp parallel for num_threads(threads_for(8.0 * rows * cols))
    for (int j = 0; j < panels; j++) {
        const size_t first = (size_t)j * NRI, size = (size_t)words * NRI * 4;
        uint8_t *out = w->panel + j * size;
        pack_words((int32_t *)out, NRI, codes + first * cols, cols, cols, rows - first);
        for (size_t i = 0; i < size; i++) out[i] = (uint8_t)(out[i] + OFFSET);
    }
}

/* ---- The tile of codes ------------------------------------------------------------ */
/* What a tile of codes computes: y(rows,cols) = or += (add) (start + a b) * scale. */
typedef struct {
    const int32_t *a, *b; /* panels: MR rows, NRI columns; a word is 4 or 2 codes */
    int words;
    const int32_t *start;       /* (height) what sums start from */
    const real *scale, *column; /* (height) per row; (cols) another per column, or NULL */
    int add;
} Codes;

/* The first `have` numbers of p, at most WORDS; zeros behind them. */
INLINE void load_words(rvec *v, const real *p, int have) {
#ifdef GOLF_DOUBLE
    *v = (rvec){0};
    memcpy(v, p, MIN(have, WORDS) * sizeof(real));
#else
    *v = load_reals(p, have);
#endif
}

INLINE void store_words(real *p, const rvec *v, int have) {
#ifdef GOLF_DOUBLE
    memcpy(p, v, MIN(have, WORDS) * sizeof(real));
#else
    store_reals(p, *v, have);
#endif
}

/* Sums s[][half] to where they belong: times scale and, unless NULL, times factor. */
INLINE void put_sums(const int height, real *out, size_t ldy, ivec (*s)[2], int half,
                     const real *scale, const rvec *factor, const int add, int rows,
                     int have) {
    UNROLL for (int i = 0; i < height; i++) {
        if (i >= rows) break;
        rvec before, v = __builtin_convertvector(s[i][half], rvec) * scale[i];
        if (factor) v *= *factor;
        if (add) load_words(&before, out, have);
        if (add) v += before;
        store_words(out, &v, have);
        out += ldy;
    }
}

/* bits: of a code, 8 or 16. height as above. */
INLINE void tile_int(const int height, const int vectors, const int bits, real *y,
                     size_t ldy, const Codes *t, int rows, int cols) {
    const int32_t *a = t->a, *b = t->b;
    ivec s[MR][2];
    UNROLL for (int i = 0; i < height; i++) {
        s[i][0] = (ivec){0} + t->start[i];
        s[i][1] = s[i][0];
    }

    for (int word = 0; word < t->words; word++) {
        const ivec b0 = *(const ivec *)b;
        const ivec b1 = vectors > 1 ? *(const ivec *)(b + WORDS) : b0;
        UNROLL for (int i = 0; i < height; i++) {
            const ivec ai = (ivec){0} + a[i];
            s[i][0] = bits == 8 ? dot4(s[i][0], b0, ai) : dot2(s[i][0], b0, ai);
            if (vectors > 1)
                s[i][1] = bits == 8 ? dot4(s[i][1], b1, ai) : dot2(s[i][1], b1, ai);
        }
        a += MR;
        b += NRI;
    }

    UNROLL for (int half = 0; half < vectors; half++) {
        const int have = cols - half * WORDS;
        real *out = y + half * WORDS;
        rvec column = (rvec){0} + 1;
        if (t->column) load_words(&column, t->column + half * WORDS, have);
        if (t->add) put_sums(height, out, ldy, s, half, t->scale, &column, 1, rows, have);
        else if (t->column)
            put_sums(height, out, ldy, s, half, t->scale, &column, 0, rows, have);
        else put_sums(height, out, ldy, s, half, t->scale, NULL, 0, rows, have);
    }
}

#define TILE_INT(NAME, HEIGHT, BITS) \
    NOINLINE void NAME(real *y, size_t ldy, const Codes *t, int rows, int cols) { \
        if (cols > WORDS) tile_int(HEIGHT, 2, BITS, y, ldy, t, rows, cols); \
        else tile_int(HEIGHT, 1, BITS, y, ldy, t, rows, cols); \
    }

typedef void (*TileInt)(real *y, size_t ldy, const Codes *t, int rows, int cols);

/* The table NAME of the four heights. */
#define TILES_INT(NAME, BITS) \
    TILE_INT(NAME##_0, HEIGHT_0, BITS) \
    TILE_INT(NAME##_1, HEIGHT_1, BITS) \
    TILE_INT(NAME##_2, HEIGHT_2, BITS) \
    TILE_INT(NAME##_3, HEIGHT_3, BITS) \
    static const TileInt NAME[HEIGHTS] = {NAME##_0, NAME##_1, NAME##_2, NAME##_3};

/* clang-format off */
TILES_INT(tiles_of_8, 8)
TILES_INT(tiles_of_16, 16)
/* clang-format on */

/* ---- One token: weights of 2 bits ------------------------------------------------- */
/* To decode a token all weights are read for one row of x: where memory is the limit, 2
 * bits are 4 times faster than 8. So ternary codes are packed again, 16 in a 32-bit lane:
 * byte b of word j is code + 1 in bits 2j + 8b (of a little-endian machine).
 *
 * w->panel to w->stream [rows / NRI][cols / 16][NRI outputs] of lanes. */
void int_pack_stream(IntWeights *w) {
    const int panels = CEIL(w->rows, NRI);
    const int words = CEIL(w->cols, 4), quads = CEIL(words, 4);
    free(w->stream);
    w->stream = xcalloc((size_t)panels * quads, NRI * 4);

    const uint8_t *in = w->panel;
    for (int panel = 0; panel < panels; panel++)
        for (int word = 0; word < words; word++) {
            uint32_t *out = w->stream + ((size_t)panel * quads + word / 4) * NRI;
            for (int i = 0; i < NRI * 4; i++) { /* output i / 4, byte i % 4 */
                const uint32_t field = (uint8_t)(in[i] - OFFSET + 1);
                const int byte = BIG_ENDIAN_MACHINE ? 3 - i % 4 : i % 4;
                out[i / 4] |= field << (word % 4 * 2 + byte * 8);
            }
            in += NRI * 4;
        }
}

/* y (rows) = (start + w x) * scale. x (cols): one token, zeros up to a multiple of 16. */
static void stream_int(real *y, const int32_t *x, const IntWeights *w, int32_t start,
                       real scale) {
    typedef uint8_t bytes VEC(VB);
    const uint32_t *in = w->stream;
    for (int j = 0; j < w->rows; j += NRI) {
        /* Sums of even words in s[0] and s[1], of odd ones in s[2] and s[3]. */
        ivec s[4] = {(ivec){0} + start, (ivec){0} + start};
        for (int k = 0; k < CEIL(w->cols, 4); k += 4) {
            UNROLL for (int i = 0; i < 8; i++) {
                const int word = i / 2, half = i % 2;
                const ivec lanes = *(const ivec *)(in + half * WORDS);
                const bytes field = (bytes)((lanes >> (word * 2)) & 0x03030303);
                const bytes code = field + (uint8_t)(OFFSET - 1);
                s[i % 4] = dot4(s[i % 4], (ivec)code, (ivec){0} + x[k + word]);
            }
            in += NRI;
        }

        rvec out[2];
        for (int half = 0; half < 2; half++) {
            const ivec sum = s[half] + s[half + 2];
            out[half] = __builtin_convertvector(sum, rvec) * scale;
        }
        memcpy(y + j, out, MIN(w->rows - j, NRI) * sizeof(real));
    }
}

/* ---- The driver of codes ---------------------------------------------------------- */
/* Memory of this thread: `words` words of MR tokens, and what pack_words spills. */
static int32_t *codes_room(int words) {
    static _Thread_local int32_t *room;
    static _Thread_local int size;
    if (size < words) {
        free(room);
        room = xcalloc((size_t)words * MR + WORDS, 4);
        size = words;
    }
    return room;
}

/* y (rows) for one token x (cols), from the stream of 2-bit weights. */
static void gemm_int_one(real *y, const int8_t *x, const IntWeights *w, real scale) {
    const int k = w->cols;
    uint32_t start = 0; /* may wrap: the sum that it starts does not */
    for (int q = 0; q < k; q++) start -= (uint32_t)(OFFSET * x[q]);

    int32_t *copy = codes_room(CEIL(k, 4));
    memcpy(copy, x, k);
    memset((int8_t *)copy + k, 0, CEIL(k, 16) * 16 - k);
    stream_int(y, copy, w, (int32_t)start, scale);
}

/* -OFFSET * sum(x), one per token of a panel of x. */
INLINE ivec starts_of(const int32_t *panel, int words) {
    const ivec offset = (ivec){0} + (int32_t)(0x01010101u * OFFSET);
    ivec sum = {0};
    for (int word = 0; word < words; word++)
        sum = dot4(sum, offset, *(const uivec *)(panel + word * MR));
    return -sum;
}
_Static_assert(OFFSET == 0 || MR <= WORDS, "starts_of: one vector for all tokens");

/* Fast gemm_int_naive. One thread, MR tokens at a time: 14 cycles of work per 128 bytes
 * of weights from L2. No blocks of k: integer sums are exact in any order. */
void gemm_int(real *y, size_t ldy, const int8_t *x, const real *step, const IntWeights *w,
              real s, int n) {
    if (n == 1 && w->stream) {
        gemm_int_one(y, x, w, s * *step);
        return;
    }

    const int m = w->rows, k = w->cols, words = CEIL(k, 4);
    int32_t *panel = codes_room(words);
    for (int i = 0; i < n; i += MR) {
        const int rows = MIN(n - i, MR);
        int32_t start[MAX(MR, WORDS)] = {0};
        real scale[MR] = {0};
        for (int r = 0; r < rows; r++) scale[r] = s * step[i + r];
        pack_rows_of_a(panel, x + (size_t)i * k, k, k, rows);
        if (OFFSET) *(uivec *)start = starts_of(panel, words);

        Codes t = {.a = panel, .words = words, .start = start, .scale = scale};
        for (int j = 0; j < m; j += NRI) {
            t.b = (const int32_t *)w->panel + (size_t)j * words;
            tiles_of_8[height_of(rows)](y + i * ldy + j, ldy, &t, rows, MIN(m - j, NRI));
        }
    }
}

/* ---- Codes of 16 bits: the definition --------------------------------------------- */
/* The backward pass, dX = dY W and dW = dY^T X, has exact sums, too: W and X are codes,
 * and dY is rounded to codes of 16 bits with a step per token (round_rows, section 4). A
 * factor that every term has of its own - the step of a row of W; of a token of X and of
 * dY - cannot wait until the sum is done. It goes into the code of dY first, as a
 * fraction, in 1/32768, of the largest such factor. Sums are of int32, over blocks of as
 * many terms as cannot overflow; blocks are added in order, in floating point.
 *
 * The error: each d of dY becomes d + e, |e| a little over half a step, 1.02 * 2^-16 of
 * the largest |d| of its token (or of 1e-20). With fractions, let F be the largest of
 * (a token's largest |d|) * factor over the terms of a sum, for dX: the token's largest
 * |d| times the largest step of W. Then d * factor is wrong by less than 2^-14 F. dX and
 * dW are wrong by at most the sum of these times the other operand. (bf16 rounds a number
 * by up to 2^-8 of it, fp32 by 2^-24.) The head is another case, as most gradients of
 * logits are far smaller than their token's largest: see carried_codes and column_codes. */

enum { TOP16 = 32767 };

/* ratio (n), 0..top, in 1/32768: the fractions of the largest of `factor` (n), none of them
 * negative; a top below 32767 cuts the code to fewer bits, too. Returns what the product of
 * a code and its fraction is to be multiplied by. */
static real fractions(int16_t *ratio, const real *factor, int n, int top) {
    real largest = 0, zero = 0;
    for (int i = 0; i < n; i++) {
        zero += 0 * factor[i]; /* NaN if one is no number */
        largest = factor[i] > largest ? factor[i] : largest;
    }
    const int usable =
        zero == 0 && largest > (real)1e-33; /* else inverse is none, either */
    const real inverse = usable ? (real)top / largest : 0;
    for (int i = 0; i < n; i++)
        ratio[i] = (int16_t)(usable ? rint(factor[i] * inverse) : 0);
    return largest * ((real)32768 / (real)top) + zero;
}

void gemm_codes_naive(real *c, size_t ldc, Mat a, const int16_t *ratio, Mat b,
                      const real *scale, const real *column, int m, int n, int k,
                      int acc) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            int64_t sum = 0;
            for (int p = 0; p < k; p++) {
                const int16_t x = mat_code(a, i, p);
                sum += (ratio ? fraction_of(x, ratio[p]) : x) * mat_code(b, p, j);
            }
            real *out = c + i * ldc + j, y = (real)sum * scale[i];
            if (column) y *= column[j];
            *out = acc ? *out + y : y;
        }
}

/* ---- Packing codes of 16 bits ----------------------------------------------------- */
/* WORDS codes of a stored row, zeros where there are no more. */
INLINE codes16 load_codes16(Mat x, size_t row, size_t col, int have) {
    typedef int8_t codes8 VEC(WORDS);
    const size_t at = row * x.ld + col;
    codes16 h = {0};
    codes8 q = {0};
    if (have <= 0) return h;
    if (have >= WORDS) {
        if (x.h) memcpy(&h, x.h + at, sizeof h);
        else
            h = __builtin_convertvector(*(const codes8 *)memcpy(&q, x.q + at, sizeof q),
                                        codes16);
        return h;
    }
#if defined(__AVX512VL__) && defined(__AVX512BW__)
    const __mmask16 there = (__mmask16)((1 << have) - 1);
    if (x.h) return (codes16)_mm256_maskz_loadu_epi16(there, x.h + at);
    q = (codes8)_mm_maskz_loadu_epi8(there, x.q + at);
#else
    if (x.h) {
        memcpy(&h, x.h + at, have * sizeof *x.h);
        return h;
    }
    memcpy(&q, x.q + at, have);
#endif
    return __builtin_convertvector(q, codes16);
}

/* Stored rows that run across the panels, x (depth,have), their codes times `ratio`
 * (depth) or NULL: a word is a code of one row and of the next. Panels are `step` words
 * apart; vectors spill as in pack_words. */
INLINE void pack_pairs(int32_t *panel, const int W, size_t step, Mat x,
                       const int16_t *ratio, int have, int depth) {
    for (int k = 0; k < depth; k += 2) {
        const int last = k + 1 == depth;
        const int16_t first = ratio ? ratio[k] : 0;
        const int16_t second = ratio && !last ? ratio[k + 1] : 0;
        const codes16 r0 = (codes16){0} + first, r1 = (codes16){0} + second;
        int32_t *line = panel + k / 2 * W;
        for (int p = 0; p < have; p += W) {
            for (int i = 0; i < W; i += WORDS) {
                const int left = have - p - i;
                const size_t ahead = (k + 16) * x.ld + p + i; /* past the end: no harm */
                __builtin_prefetch(address_of(x, ahead), 0, 2);
                __builtin_prefetch(address_of(x, ahead + x.ld), 0, 2);
                codes16 low = load_codes16(x, k, p + i, left);
                codes16 high = load_codes16(x, k + 1, p + i, last ? 0 : left);
                if (ratio) {
                    low = fractions_of(low, r0);
                    high = fractions_of(high, r1);
                }
                /* in memory low stands before high, as where rows run down the depth */
                const codes16 lower = BIG_ENDIAN_MACHINE ? high : low;
                const codes16 upper = BIG_ENDIAN_MACHINE ? low : high;
                *(uivec *)(line + i) = (__builtin_convertvector(lower, ivec) & 0xffff) |
                                       __builtin_convertvector(upper, ivec) << 16;
            }
            line += step;
        }
    }
}

NOINLINE void pack_pairs_of_a(int32_t *panel, size_t step, Mat x, const int16_t *ratio,
                              int have, int depth) {
    if (ratio) pack_pairs(panel, MR, step, x, ratio, have, depth);
    else pack_pairs(panel, MR, step, x, NULL, have, depth);
}

NOINLINE void pack_pairs_of_b(int32_t *panel, size_t step, Mat x, const int16_t *ratio,
                              int have, int depth) {
    if (ratio) pack_pairs(panel, NRI, step, x, ratio, have, depth);
    else pack_pairs(panel, NRI, step, x, NULL, have, depth);
}

/* b.trans: columns of b are stored rows, a word is two codes of one of them. */
static void pack_columns_of_b(int32_t *panel, Mat b, int have, int depth) {
    int16_t *copy = xcalloc((size_t)NRI * depth, sizeof *copy);
    for (int j = 0; j < have; j++)
        for (int k = 0; k < depth; k++) copy[(size_t)j * depth + k] = b.q[j * b.ld + k];
    pack_words(panel, NRI, copy, depth * sizeof *copy, 2 * depth, have);
    free(copy);
}

/* Rows of b that are packed at a time: the head's has V of them and few columns. */
enum { PACK_DEPTH = 512 };

void weights_16_pack(Weights16 *w, Mat b, int k, int n, int top, real scale) {
    const size_t words = CEIL(k, 2);
    const int per_term = b.row_step && !b.trans; /* a step for each term */
    if (!w->panel || w->k != k || w->n != n || (w->ratio != NULL) != per_term) {
        weights_16_free(w);
        *w = (Weights16){.panel = xcalloc(CEIL(n, NRI) * words * NRI, 4),
                         .ratio = per_term ? xcalloc(k, sizeof *w->ratio) : NULL,
                         .k = k,
                         .n = n};
    }
    w->terms = INT32_MAX / TOP16 / top / 2 * 2;
    w->column = b.trans ? b.row_step : NULL;
    w->scale = scale;
    if (w->ratio) w->scale *= fractions(w->ratio, b.row_step, k, TOP16);

    const int deep = b.trans ? k : MIN(k, PACK_DEPTH), blocks = CEIL(k, deep);
#pragma omp parallel for num_threads(threads_for(8.0 * k * n))
    for (int task = 0; task < CEIL(n, NRI) * blocks; task++) {
        const int j = task / blocks * NRI, k0 = task % blocks * deep;
        const int cols = MIN(n - j, NRI), depth = MIN(k - k0, deep);
        int32_t *panel = w->panel + j * words + (size_t)k0 / 2 * NRI;
        if (b.trans) pack_columns_of_b(panel, mat_at(b, 0, j), cols, k);
        else pack_pairs_of_b(panel, 0, mat_at(b, k0, j), NULL, cols, depth);
    }
}

void weights_16_free(Weights16 *w) {
    free(w->panel);
    free(w->ratio);
}

/* ---- Drivers of codes of 16 bits -------------------------------------------------- */
static const int32_t from_0[MR];

/* As sweep: all tiles of c(rows,cols); scale (rows). */
static void sweep_16(real *c, size_t ldc, const int32_t *a, size_t a_step,
                     const int32_t *b, size_t b_step, const real *scale, int rows,
                     int cols, int words, int add) {
    Codes t = {.words = words, .start = from_0, .add = add};
    for (int j = 0; j < cols; j += NRI) {
        t.b = b + j / NRI * b_step;
        for (int i = 0; i < rows; i += MR) {
            t.a = a + i / MR * a_step;
            t.scale = scale + i;
            tiles_of_16[height_of(rows - i)](c + i * ldc + j, ldc, &t, MIN(rows - i, MR),
                                             MIN(cols - j, NRI));
        }
    }
}

/* a (rows,k) to a panel, with the fractions of w. The panel has room for a copy. */
static void pack_a_16(int32_t *panel, Mat a, const Weights16 *w, int rows) {
    const int k = w->k;
    if (!w->ratio) {
        pack_rows_of_a(panel, a.h, a.ld * sizeof *a.h, 2 * k, rows);
        return;
    }
    int16_t *copy = (int16_t *)(panel + CEIL(k, 2) * MR + WORDS);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < k; i++)
            copy[r * k + i] = fraction_of(a.h[r * a.ld + i], w->ratio[i]);
    pack_rows_of_a(panel, copy, k * sizeof *copy, 2 * k, rows);
}

/* MR tokens at a time, as gemm_int. */
void gemm_16(real *c, size_t ldc, Mat a, const Weights16 *w, int m) {
    const int words = CEIL(w->k, 2), block = MIN(w->terms / 2, words);
    int32_t *panel = codes_room(2 * words + 2);
    for (int i = 0; i < m; i += MR) {
        const int rows = MIN(m - i, MR);
        real scale[MR] = {0};
        for (int r = 0; r < rows; r++) scale[r] = a.row_step[i + r] * w->scale;
        pack_a_16(panel, mat_at(a, i, 0), w, rows);

        for (int j = 0; j < w->n; j += NRI)
            for (int word = 0; word < words; word += block) {
                const Codes t = {.a = panel + word * MR,
                                 .b = w->panel + (size_t)j * words + word * NRI,
                                 .words = MIN(words - word, block),
                                 .start = from_0,
                                 .scale = scale,
                                 .column = w->column ? w->column + j : NULL,
                                 .add = word > 0};
                tiles_of_16[height_of(rows)](c + i * ldc + j, ldc, &t, rows,
                                             MIN(w->n - j, NRI));
            }
    }
}

/* Products of two operands in codes, b as it is stored. What codes may be, so that a sum
 * takes `most` terms:
 *   inputs_8    a, transposed: gradients of 16 bits; b: inputs of 8 bits. Each stored row
 *               of both, a token, has a step of its own.
 *   head_16     a, transposed: gradients of logits, of 16 bits; each stored column has a
 *               step of its own for each block of terms (Mat.steps). b: inputs of 16 bits
 *               with a step per token, of which 12 bits are used.
 *   plain_12    both of 12 bits, with one step each (Mat.step). */
static const Terms inputs_8 = {TOP16, 127, 512}, head_16 = {TOP16, 2048, STEP_ROWS},
                   plain_12 = {2047, 2047, 512};
_Static_assert((int64_t)TOP16 * 127 * 512 <= INT32_MAX, "inputs_8");
_Static_assert((int64_t)TOP16 * 2048 * STEP_ROWS <= INT32_MAX, "head_16");
_Static_assert((int64_t)2047 * 2047 * 512 <= INT32_MAX, "plain_12");
_Static_assert(512 <= 2 * KC && HEAD % STEP_ROWS == 0, "blocks of terms");

/* For the k terms of a block of inputs_8: the fractions that go into a's codes. Returns
 * the factor of the sums. */
static real block_fractions(int16_t *ratio, Mat a, Mat b, int k) {
    real factor[2 * KC];
    for (int i = 0; i < k; i++) factor[i] = a.row_step[i] * b.row_step[i];
    return fractions(ratio, factor, k, TOP16);
}

/* a(have,depth) to panels of MR rows, `step` words apart; no ratio unless a.trans. */
static void pack_panels_of_a(int32_t *panel, size_t step, Mat a, const int16_t *ratio,
                             int have, int depth) {
    if (a.trans) {
        pack_pairs_of_a(panel, step, a, ratio, have, depth);
        return;
    }
    for (int i = 0; i < have; i += MR)
        pack_rows_of_a(panel + i / MR * step, a.h + i * a.ld, a.ld * sizeof *a.h,
                       2 * depth, MIN(have - i, MR));
}

/* One thread; panels as in gemm_serial, blocks of terms->most terms. */
void gemm_codes(const Gemm *g) {
    enum { A_STEP = MR * KC + WORDS, B_STEP = NRI * KC };
    enum { A_SIZE = MC / MR * A_STEP, B_SIZE = CEIL(NC, NRI) * B_STEP };
    static _Thread_local int32_t *room;
    if (!room) room = xcalloc(A_SIZE + B_SIZE, 4);
    int32_t *b_panels = room, *a_panels = room + B_SIZE;
    const int most = g->terms->most;
    int16_t ratio[2 * KC];
    const int16_t *a_ratio = g->terms == &inputs_8 ? ratio : NULL;
    const int16_t *b_ratio = g->terms == &head_16 ? ratio : NULL;

    for (int j = 0; j < g->n; j += NC)
        for (int k0 = 0; k0 < g->k; k0 += most) {
            const int cols = MIN(g->n - j, NC), depth = MIN(g->k - k0, most);
            const Mat a = mat_at(g->a, 0, k0), b = mat_at(g->b, k0, j);
            real scale[MC], factor = g->a.step * g->b.step;
            if (a_ratio) factor = block_fractions(ratio, a, b, depth);
            if (b_ratio) factor = fractions(ratio, b.row_step, depth, head_16.b);
            pack_pairs_of_b(b_panels, B_STEP, b, b_ratio, cols, depth);

            for (int i = 0; i < g->m; i += MC) {
                const int rows = MIN(g->m - i, MC);
                for (int r = 0; r < rows; r++)
                    scale[r] = a.steps ? factor * a.steps[i + r] : factor;
                pack_panels_of_a(a_panels, A_STEP, mat_at(a, i, 0), a_ratio, rows, depth);
                sweep_16(g->c + i * g->ldc + j, g->ldc, a_panels, A_STEP, b_panels,
                         B_STEP, scale, rows, cols, CEIL(depth, 2), g->acc || k0 > 0);
            }
        }
}

/* ---- Several products at once ----------------------------------------------------- */
/* All threads, several products in one parallel loop. A task packs for itself: an element
 * of b serves all its rows, which is cheaper than to wait for another thread. So tasks
 * should be few and near square: a product is halved, the longer side first, until none
 * is over `most` multiply-adds, half of a thread's share. Returns its tasks, each of up
 * to mb x nb outputs. */
static int cut(const Gemm *g, double most, int *mb, int *nb) {
    int rows = g->m, cols = MIN(g->n, NC);
    while ((double)rows * cols * g->k > most) {
        const int wide = cols > NR, high = rows > MR;
        if (!wide && !high) break;
        if (wide && (cols >= rows || !high)) cols = CEIL(cols, 2 * NR) * NR;
        else rows = CEIL(rows, 2 * MR) * MR;
    }
    *mb = rows;
    *nb = cols;
    return CEIL(g->m, rows) * CEIL(g->n, cols);
}

/* Computes one task; they are numbered through all products, row by row in each. */
static void gemm_task(const Gemm **order, double most, int task) {
    int mb, nb;
    int tasks = cut(*order, most, &mb, &nb);
    while (task >= tasks) {
        task -= tasks;
        order++;
        tasks = cut(*order, most, &mb, &nb);
    }

    const Gemm *g = *order;
    const int across = CEIL(g->n, nb);
    const int i = task / across * mb, j = task % across * nb;
    Gemm part = *g;
    part.c += i * g->ldc + j;
    part.a = mat_at(g->a, i, 0);
    part.b = mat_at(g->b, 0, j);
    part.m = MIN(g->m - i, mb);
    part.n = MIN(g->n - j, nb);
    if (part.terms) gemm_codes(&part);
    else
        gemm_serial(part.c, part.ldc, part.a, part.b, NULL, part.m, part.n, part.k,
                    part.acc);
}

/* Those with the largest tasks first: the last to be done should be small. Returns the
 * number of all tasks. */
static int sort_by_task(const Gemm **order, const Gemm *g, int count, double most) {
    double size[count];
    int tasks = 0;
    for (int i = 0; i < count; i++) {
        int mb, nb, at = i;
        tasks += cut(g + i, most, &mb, &nb);
        const double madds = (double)mb * nb * g[i].k;
        for (; at > 0 && size[at - 1] < madds; at--) {
            size[at] = size[at - 1];
            order[at] = order[at - 1];
        }
        size[at] = madds;
        order[at] = g + i;
    }
    return tasks;
}

void gemm_all(const Gemm *g, int count) {
    double madds = 0;
    for (int i = 0; i < count; i++) madds += (double)g[i].m * g[i].n * g[i].k;
    const int threads = threads_for(madds);
    const double most = threads > 1 ? madds / (2 * threads) : madds;
    const Gemm *order[count];
    const int tasks = sort_by_task(order, g, count, most);

#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int task = 0; task < tasks; task++) gemm_task(order, most, task);
}

void gemm(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc) {
    gemm_all(&(Gemm){c, ldc, a, b, m, n, k, acc, NULL}, 1);
}

/* ==== 3. Layers ===================================================================== */
/* Every x_forward is followed by its x_backward. A layer runs on one thread over the N
 * tokens it is given, a chunk small enough to stay in the cache while layer follows
 * layer; section 5 hands the chunks to the threads. Only attention and the gradient of
 * the embedding see all tokens at once.
 *
 * Gradients of inputs are overwritten unless `acc`, those of parameters accumulate. A
 * NULL parameter gradient is not computed.
 *
 * Shapes stand as: what a layer writes <- what it reads. */

/* A pragma where # cannot stand: inside a macro. */
#define PRAGMA(text) _Pragma(#text)

/* Less work than this, in numbers to touch, does not pay for waking the other threads. */
enum { SMALL = 50000 };

/* Shares the iterations of the for loop that follows among the threads, if that pays. */
#define PARALLEL(work) PRAGMA(omp parallel for if ((double)(work) > SMALL))

/* Declares size_t i, which runs over the n numbers from `from` on, on several threads
 * when that pays. */
#define FOR_RANGE(i, from, n) PARALLEL(n) for (size_t i = (from); i < (from) + (n); i++)

/* Declares size_t n, which runs over N rows of K numbers, and size_t at = n * K, where
 * row n starts. */
#define FOR_ROWS(n, N, K) \
    for (size_t n = 0, at = 0; n < (size_t)(N); n++, at += (size_t)(K))

/* Declares int i, which runs over the K columns of a row. No iteration may depend on
 * another: saying so spares short rows the compiler's checks for overlap. */
#define FOR_COLUMNS(i, K) PRAGMA(omp simd) for (int i = 0; i < (K); i++)

static inline real larger(real a, real b) { return a > b ? a : b; }

/* The largest |x|, 0 if there is none.  x (n) */
static inline real absmax_of(const real *x, size_t n) {
    real top = 0;
#pragma omp simd reduction(max : top)
    for (size_t i = 0; i < n; i++) top = larger(fabs(x[i]), top);
    return top;
}

/* The largest |x|, NaN where one is NaN: as integers, floats without their sign have the order of their
 * values, with infinity and NaN on top. */
static inline real absmax_or_nan(const real *x, int n) {
#ifdef GOLF_DOUBLE
    real top = 0;
    for (int i = 0; i < n; i++)
        if (!(fabs(x[i]) <= top) && !isnan(top)) top = fabs(x[i]);
    return top;
#else
    int32_t top = 0;
#pragma omp simd reduction(max : top)
    for (int i = 0; i < n; i++) {
        const int32_t bits = (int32_t)((Bits){.f = x[i]}.u & 0x7fffffff);
        top = bits > top ? bits : top;
    }
    return (Bits){.u = (uint32_t)top}.f;
#endif
}

/* The sum of x*y.  x, y (K) */
static inline real inner(const real *x, const real *y, int K) {
    Sums s = {0};
    for (int i = 0; i < K; i += SUM) {
        EACH_PART(v, at, i)
            s.part[v] += load_reals(x + at, K - at) * load_reals(y + at, K - at);
    }
    return sum_of(&s);
}

/* Memory of this thread for n numbers, for one caller at a time: the next call hands out
 * the same memory. It grows and never shrinks. */
static real *scratch(size_t n) {
    static _Thread_local real *memory;
    static _Thread_local size_t size;

    if (n > size) {
        free(memory);
        memory = xcalloc(n, sizeof(real));
        size = n;
    }
    return memory;
}

/* ------------------------------------------------------------------------------- RMSNorm
 * With a gain:  out = x * r * g,  r = 1/sqrt(mean(x^2) + 1e-6).
 * out (N,K), r (N) <- x (N,K), g (K) */
static void rmsnorm_forward(real *out, real *r, const real *x, const real *g, int N,
                            int K) {
    TIMED(NORMS);
    FOR_ROWS(n, N, K) {
        const real rn = 1 / sqrt(inner(x + at, x + at, K) / (real)K + (real)1e-6);
        r[n] = rn;
        FOR_COLUMNS(i, K) out[at + i] = x[at + i] * rn * g[i];
    }
}

/* forward: out = x * r * g, where r depends on x, too. With xh = x * r:
 *      dg += sum_n dout * xh
 *      dx = (or, with acc, +=) r * (dout * g - xh * mean(dout * g * xh))
 * dx (N,K), dg (K) or NULL <- dout, x (N,K), r (N), g (K).  dx may be dout. */
static void rmsnorm_backward(real *dx, int acc, real *dg, const real *dout, const real *x,
                             const real *r, const real *g, int N, int K) {
    TIMED(NORMS);
    FOR_ROWS(n, N, K) {
        const real rn = r[n];
        Sums sum = {0};
        for (int i = 0; i < K; i += SUM) {
            EACH_PART(v, k, i)
                sum.part[v] += load_reals(dout + at + k, K - k) *
                               load_reals(g + k, K - k) * load_reals(x + at + k, K - k);
        }
        /* x * dot = xh * mean(dout * g * xh) */
        const real dot = sum_of(&sum) * rn * rn / (real)K;

        if (dg) {
            FOR_COLUMNS(i, K) dg[i] += dout[at + i] * x[at + i] * rn;
        }
        if (acc) {
            FOR_COLUMNS(i, K) dx[at + i] += rn * (dout[at + i] * g[i] - x[at + i] * dot);
        } else {
            FOR_COLUMNS(i, K) dx[at + i] = rn * (dout[at + i] * g[i] - x[at + i] * dot);
        }
    }
}

/* ----------------------------------------------------------------------------- Embedding
 * A token's row of the table:  e[n] = E[token n].
 * e (N,C) <- E (V,C), tokens (N) */
static void embed_forward(real *e, const real *E, const int *tokens, int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) memcpy(e + at, E + (size_t)tokens[n] * C, sizeof(real) * (size_t)C);
}

/* forward: e[n] = E[token n], so dE[token n] += de[n], or weight[n] * de[n]; a token may
 * occur many times. dE (V,C) <- de (N,C), weight (N) or NULL, tokens (N) */
static void embed_backward(real *dE, const real *de, const real *weight,
                           const int *tokens, int N, int C) {
    TIMED(NORMS);
    /* Rows are far apart: a number costs many multiply-adds. */
    const int owners = threads_for(20.0 * N * C);

    /* A thread owns pairs of rows, which in pairs are whole cache lines, and takes their
     * tokens in order: no two threads meet in a row, and the order of additions does not
     * depend on their number. */
#pragma omp parallel for num_threads(owners)
    for (int owner = 0; owner < owners; owner++)
        FOR_ROWS(n, N, C) {
            if (tokens[n] / 2 % owners != owner) continue;
            real *row = dE + (size_t)tokens[n] * C;
            const real w = weight ? weight[n] : 1;
            FOR_COLUMNS(i, C) row[i] += w * de[at + i];
        }
}

/* ----------------------------------------------------------------------- Input injection
 * Every phase starts from what the one before left, prev, mixed with the embedding x0,
 * and may add a vector of its own, e (the phase embedding):  h = a * prev + b * x0 + e.
 * h (N,C) <- prev, x0 (N,C), a, b, e (C) */
static void mix_forward(real *h, const real *prev, const real *x0, const real *a,
                        const real *b, const real *e, int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) {
        FOR_COLUMNS(i, C) h[at + i] = a[i] * prev[at + i] + b[i] * x0[at + i] + e[i];
    }
}

/* forward: h = a * prev + b * x0 + e
 *      da += sum_n dh * prev,  db += sum_n dh * x0,  de += sum_n dh
 *      dx0 += dh * b, a sum over the phases;  dprev = dh * a, in place of dh
 * dh, dx0 (N,C), da, db, de (C) or NULL <- prev, x0 (N,C), a, b (C) */
static void mix_backward(real *dh, real *dx0, real *da, real *db, real *de,
                         const real *prev, const real *x0, const real *a, const real *b,
                         int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) {
        if (da) {
            FOR_COLUMNS(i, C) da[i] += dh[at + i] * prev[at + i];
        }
        if (db) {
            FOR_COLUMNS(i, C) db[i] += dh[at + i] * x0[at + i];
        }
        if (de) {
            FOR_COLUMNS(i, C) de[i] += dh[at + i];
        }
        FOR_COLUMNS(i, C) dx0[at + i] += dh[at + i] * b[i];
        FOR_COLUMNS(i, C) dh[at + i] *= a[i];
    }
}

/* ---------------------------------------------------------- Queries and keys: norm, RoPE
 * RoPE turns the D dimensions of a head (--rope=half: half of them) in pairs, one from each
 * half, by angles that grow with the token's position. */

/* LANES pairs of a head, (first[i], second[i]); or their turns (cos, sin), from rope. */
typedef struct {
    vec first, second;
} Pairs;

/* A loop over a head takes LANES pairs at a time and counts those that are left, D/2 at
 * first. The next ones are (x[i], x[D/2 + i]) for i = D/2 - left and on.  x (D) */
INLINE Pairs load_pairs(const real *x, int left, int D) {
    return (Pairs){load_reals(x + D / 2 - left, left), load_reals(x + D - left, left)};
}

INLINE void store_pairs(real *x, int left, int D, Pairs p) {
    store_reals(x + D / 2 - left, p.first, left);
    store_reals(x + D - left, p.second, left);
}

/* (x1, x2) -> (x1 cos + x2 sin, -x1 sin + x2 cos).  turn: (cos, sin) */
INLINE Pairs rope_forward(Pairs x, Pairs turn) {
    const vec x1 = x.first, x2 = x.second, c = turn.first, s = turn.second;
    return (Pairs){x1 * c + x2 * s, x2 * c - x1 * s};
}

/* forward: out1 = x1 cos + x2 sin,  out2 = -x1 sin + x2 cos. The rotation is orthogonal:
 * its backward is the rotation by the other angle. */
INLINE Pairs rope_backward(Pairs dout, Pairs turn) {
    const vec d1 = dout.first, d2 = dout.second, c = turn.first, s = turn.second;
    return (Pairs){d1 * c - d2 * s, d1 * s + d2 * c};
}

/* RMSNorm per head without gain, a gain per query head, RoPE:
 * out = RoPE(x * r * gain),  r = 1/sqrt(mean(x^2) + 1e-6), gain = 1 for a key head.
 * qk (N,(H+KV)*D) <- qkv (N,ld), whose first H+KV heads are the queries and keys,
 * q_gain (H), rope (seq,D): D/2 cosines, then D/2 sines. The first token is number n0 of
 * rows of T; pos0 tokens stand before each row. */
static void qk_forward(real *qk, const real *qkv, int ld, const real *q_gain,
                       const real *rope, int pos0, int n0, int N, int T, int H, int KV,
                       int D) {
    TIMED(NORMS);
    for (int n = 0; n < N; n++) {
        const real *turns = rope + (size_t)(pos0 + (n0 + n) % T) * D;

        for (int j = 0; j < H + KV; j++) {
            const real *x = qkv + (size_t)n * ld + j * D;
            real *out = qk + ((size_t)n * (H + KV) + j) * D;
            const real gain = j < H ? q_gain[j] : 1;
            const real scale = gain / sqrt(inner(x, x, D) / (real)D + (real)1e-6);

            for (int left = D / 2; left > 0; left -= LANES) {
                Pairs p = load_pairs(x, left, D);
                const Pairs turn = load_pairs(turns, left, D);
                p.first *= scale;
                p.second *= scale;
                store_pairs(out, left, D, rope_forward(p, turn));
            }
        }
    }
}

/* The two passes of qk_backward over a head: dx needs the whole inner product first. Each
 * computes du, the gradient of RoPE's input, for itself; that is cheaper than to keep it.
 * The sum of du * x.  dout, x, turns (D) */
INLINE real qk_head_dot(const real *dout, const real *x, const real *turns, int D) {
    Sums sum = {0};
    for (int i = 0; i < D / 2; i += SUM)
        EACH_PART(v, at, i) {
            const int left = D / 2 - at;
            const Pairs p = load_pairs(x, left, D);
            const Pairs d = load_pairs(dout, left, D), turn = load_pairs(turns, left, D);
            const Pairs du = rope_backward(d, turn);
            sum.part[v] += du.first * p.first + du.second * p.second;
        }
    return sum_of(&sum);
}

/* dx = (du - x * dot) * gain.  dx, dout, x, turns (D) */
INLINE void qk_head_dx(real *dx, const real *dout, const real *x, const real *turns,
                       real dot, real gain, int D) {
    for (int left = D / 2; left > 0; left -= LANES) {
        const Pairs p = load_pairs(x, left, D);
        const Pairs d = load_pairs(dout, left, D), turn = load_pairs(turns, left, D);
        const Pairs du = rope_backward(d, turn);
        const vec dx1 = (du.first - p.first * dot) * gain;
        const vec dx2 = (du.second - p.second * dot) * gain;
        store_pairs(dx, left, D, (Pairs){dx1, dx2});
    }
}

/* forward: out = RoPE(x * r * gain). With du = RoPE's backward of dout, xh = x * r:
 *      dq_gain += sum_n sum(du * xh)
 *      dx = gain * r * (du - xh * mean(du * xh))
 * dqkv (N,ld), its first H+KV heads only, dq_gain (H) or NULL <- dqk (N,(H+KV)*D),
 * qkv (N,ld), q_gain (H), rope (seq,D); n0 and T as in the forward. */
static void qk_backward(real *dqkv, real *dq_gain, const real *dqk, const real *qkv,
                        int ld, const real *q_gain, const real *rope, int n0, int N,
                        int T, int H, int KV, int D) {
    TIMED(NORMS);
    for (int n = 0; n < N; n++) {
        const real *turns = rope + (size_t)((n0 + n) % T) * D;

        for (int j = 0; j < H + KV; j++) {
            const real *x = qkv + (size_t)n * ld + j * D;
            const real *dout = dqk + ((size_t)n * (H + KV) + j) * D;
            real *dx = dqkv + (size_t)n * ld + j * D;
            const real r = 1 / sqrt(inner(x, x, D) / (real)D + (real)1e-6);
            const real gain = (j < H ? q_gain[j] : 1) * r;

            real dot = qk_head_dot(dout, x, turns, D);
            if (j < H && dq_gain) dq_gain[j] += dot * r;
            dot *= r * r / (real)D; /* x * dot = xh * mean(du * xh) */
            qk_head_dx(dx, dout, x, turns, dot, gain, D);
        }
    }
}

/* ---------------------------------------------------------------------- Causal attention
 * S = Q K^T,  P = softmax(scale * S) over the keys that a query may see,  O = P V;
 * scale = 1/sqrt(D).
 *
 * It goes in blocks of 32 queries against all keys they may see: memory grows with T, not
 * T*T. A block holds its scores transposed, S^T (keys,32): a query is a lane, so the
 * softmax runs down the keys without sums across lanes, and S^T is an operand of the next
 * products as it stands. Query i of Tq sees keys 0 .. Tk-Tq+i (Tk > Tq: a cache holds the
 * first).
 *
 * Queries of head h use key/value head h / (H/KV) (GQA), whose panels are packed once:
 * x_left as the left operand of a product, x_right as the right one (section 2).
 *
 * A query's arithmetic does not depend on its block, so decoding from a cache gives what
 * the full forward gives.
 *
 * First what a block of rows <= QUERIES queries needs: three products, the softmax, the
 * output. */

/* s = x y^T, the scores of keys x against queries y.  s (keys,QUERIES); x_left: panels of x
 * (keys,D); y (rows,D), ldy apart, is packed into y_right, QUERIES / NR * STRIDE(NR,D) numbers of
 * room.
 * Forward S^T = K Q^T; backward dP^T = V dO^T. */
static void block_scores(real *s, const real *x_left, const real *y, size_t ldy,
                         real *y_right, int rows, int keys, int D) {
    pack_b(y_right, mat_t(y, ldy), rows, D);
    sweep(packed, s, QUERIES, x_left, STRIDE(MR, D), y_right, STRIDE(NR, D), keys,
          CEIL(rows, NR) * NR, D, 0);
}

/* out = s^T x, a sum over the keys for each query.  out (rows,D), ldo apart; s (keys,QUERIES);
 * x_right: panels of x, of which all T keys are packed (T,D).
 * Forward O = P V; backward dQ = dS K. */
static void block_sum_over_keys(real *out, size_t ldo, const real *s, const real *x_right,
                                int rows, int keys, int T, int D) {
    sweep(by_col, out, ldo, s, MR, x_right, STRIDE(NR, T), rows, D, keys, 0);
}

/* out += s x, a sum over the queries for each key.  out (keys,D), ldo apart; s (keys,QUERIES);
 * x (rows,D), ldx apart, is packed into x_right, CEIL(D,NR) * STRIDE(NR,QUERIES) numbers of
 * room. Backward dV += P^T dO, dK += dS^T Q. */
static void block_add_to_keys(real *out, size_t ldo, const real *s, const real *x,
                              size_t ldx, real *x_right, int rows, int keys, int D) {
    pack_b(x_right, mat(x, ldx), D, rows);
    sweep(by_row, out, ldo, s, MR * QUERIES, x_right, STRIDE(NR, rows), keys, D, rows, 1);
}

/* A score whose weight vanishes in any sum, until it is set to 0. */
#define UNLIKELY ((real)-1e30)

/* Sets what the block's queries must not see: the last query sees all keys, each before
 * it one key less. Lane l sees key t when l >= t - (keys - rows).  s (keys,QUERIES) */
static void set_unseen(real *s, int rows, int keys, real value) {
    for (int t = keys - rows + 1; t < keys; t++)
        for (int l = 0; l < t - keys + rows; l++) s[t * QUERIES + l] = value;
}

/* P = exp(scale * (S - top)): the softmax, but for the division by its sum, which is
 * cheaper after the next product.  s (keys,QUERIES): S^T, then P^T; top, sum (QUERIES): of each
 * query, its largest score and the sum of its weights. */
INLINE void block_softmax_forward(real *s, real *top, real *sum, real scale, int rows,
                                  int keys) {
    set_unseen(s, rows, keys, UNLIKELY);
    for (int l = 0; l < QUERIES; l++) top[l] = s[l];
    for (int t = 0; t < keys; t++)
        for (int l = 0; l < QUERIES; l++) top[l] = larger(s[t * QUERIES + l], top[l]);

    for (int l = 0; l < QUERIES; l++) sum[l] = 0;
    for (int t = 0; t < keys; t++)
        for (int l = 0; l < QUERIES; l++) {
            s[t * QUERIES + l] = fast_exp(scale * (s[t * QUERIES + l] - top[l]));
            sum[l] += s[t * QUERIES + l];
        }
    set_unseen(s, rows, keys, 0);
}

/* forward: P = softmax(scale * S) over the keys; here P = exp(scale * S - lse).
 *      dS = scale * P * (dP - dot),  dot = the sum of P * dP over the keys
 * s (keys,QUERIES): S^T, then P^T; ds (keys,QUERIES): dP^T, then dS^T; lse (rows), H apart. */
INLINE void block_softmax_backward(real *s, real *ds, const real *lse, int H, real scale,
                                   int rows, int keys) {
    real lse_of[QUERIES] = {0}, dot[QUERIES] = {0};
    for (int i = 0; i < rows; i++) lse_of[i] = lse[(size_t)i * H];

    set_unseen(s, rows, keys, UNLIKELY);
    set_unseen(ds, rows, keys, 0);
    for (int t = 0; t < keys; t++)
        for (int l = 0; l < QUERIES; l++) {
            s[t * QUERIES + l] = fast_exp(fused(scale, s[t * QUERIES + l], -lse_of[l]));
            dot[l] = fused(s[t * QUERIES + l], ds[t * QUERIES + l], dot[l]);
        }
    set_unseen(s, rows, keys, 0);

    for (int t = 0; t < keys; t++)
        for (int l = 0; l < QUERIES; l++)
            ds[t * QUERIES + l] =
                scale * s[t * QUERIES + l] * (ds[t * QUERIES + l] - dot[l]);
}

/* O = P V / sum, and lse = log(sum exp(scale * S)), so that the backward can compute P
 * again. out (rows,D), H*D apart; lse (rows), H apart; s (keys,QUERIES): P^T; v_right: panels
 * of V (Tk,D); top, sum (QUERIES). */
INLINE void block_output(real *out, real *lse, const real *s, const real *v_right,
                         const real *top, const real *sum, real scale, int rows, int keys,
                         int Tk, int H, int D) {
    block_sum_over_keys(out, (size_t)H * D, s, v_right, rows, keys, Tk, D);
    for (int i = 0; i < rows; i++) {
        const real inv = 1 / sum[i];
        for (int d = 0; d < D; d++) out[(size_t)i * H * D + d] *= inv;
        lse[(size_t)i * H] = scale * top[i] + (real)log_of((double)sum[i]);
    }
}

/* out (B*Tq,H*D), lse (B*Tq,H) <- q (B*Tq,H*D), ldq apart, k, v (B*Tk,KV*D), ldk and
 * ldv apart. */
static void attention_forward(real *out, real *lse, const real *q, size_t ldq,
                              const real *k, size_t ldk, const real *v, size_t ldv, int B,
                              int Tq, int Tk, int H, int KV, int D) {
    TIMED(ATTENTION);
    const real scale = 1 / sqrt((real)D);
    const int group = H / KV;
    const size_t s_size = (size_t)(Tk + MR) * QUERIES; /* tiles read past the end */
    const size_t left_size = CEIL(Tk, MR) * STRIDE(MR, D);
    const size_t right_size = CEIL(D, NR) * STRIDE(NR, Tk);
    const size_t block_size = QUERIES / NR * STRIDE(NR, D);

    /* A task is one key/value head of one sequence. Neighbours are heads of different
     * sequences, so that they write to different cache lines. */
#pragma omp parallel for if ((double)B * H * Tq * Tk > SMALL) schedule(dynamic)
    for (int task = 0; task < B * KV; task++) {
        const int b = task % B, kv = task / B;
        real *s = scratch(s_size + right_size + block_size + left_size);
        real *v_right = s + s_size;
        real *q_right = v_right + right_size; /* of a block, transposed */
        real *k_left = q_right + block_size;

        pack_a(k_left, mat(k + (size_t)b * Tk * ldk + kv * D, ldk), Tk, D);
        pack_b(v_right, mat(v + (size_t)b * Tk * ldv + kv * D, ldv), D, Tk);

        for (int h = kv * group; h < (kv + 1) * group; h++)
            for (int i0 = 0; i0 < Tq; i0 += QUERIES) {
                const int rows = MIN(Tq - i0, QUERIES), keys = Tk - Tq + i0 + rows;
                const size_t n0 = (size_t)b * Tq + i0;
                const real *q_block = q + n0 * ldq + h * D;
                real *out_block = out + (n0 * H + h) * D, *lse_block = lse + n0 * H + h;
                real top[QUERIES], sum[QUERIES];

                block_scores(s, k_left, q_block, ldq, q_right, rows, keys, D);
                block_softmax_forward(s, top, sum, scale, rows, keys);
                block_output(out_block, lse_block, s, v_right, top, sum, scale, rows,
                             keys, Tk, H, D);
            }
    }
}

/* Sets x (rows,D), ld apart, to 0. */
static void clear_rows(real *x, size_t ld, int rows, int D) {
    for (int t = 0; t < rows; t++)
        for (int i = 0; i < D; i++) x[t * ld + i] = 0;
}

/* forward: S = Q K^T,  P = softmax(scale * S),  O = P V
 *      dV += P^T dO,  dP = dO V^T
 *      dS = scale * P * (dP - dot),  dot = the sum of P * dP over the keys
 *      dQ = dS K,  dK += dS^T Q
 * dV and dK are sums over the blocks and the heads of a group, from 0.
 * dq (B*T,H*D), dk, dv (B*T,KV*D) <- dout (B*T,H*D), lse (B*T,H), q (B*T,H*D),
 * k, v (B*T,KV*D); rows of dq are lddq apart, and so on. */
static void attention_backward(real *dq, size_t lddq, real *dk, size_t lddk, real *dv,
                               size_t lddv, const real *dout, const real *lse,
                               const real *q, size_t ldq, const real *k, size_t ldk,
                               const real *v, size_t ldv, int B, int T, int H, int KV,
                               int D) {
    TIMED(ATTENTION);
    const real scale = 1 / sqrt((real)D);
    const int group = H / KV;
    const size_t HD = (size_t)H * D;
    const size_t s_size = (size_t)(T + MR) * QUERIES; /* tiles read past the end */
    const size_t left_size = CEIL(T, MR) * STRIDE(MR, D);
    const size_t right_size = CEIL(D, NR) * STRIDE(NR, T);
    const size_t block_size = CEIL(D, NR) * STRIDE(NR, QUERIES),
                 block_t_size = QUERIES / NR * STRIDE(NR, D);
    const size_t size =
        2 * s_size + right_size + block_size + block_t_size + 2 * left_size;

    /* A task is as in the forward: one thread owns dK and dV of a key/value head. */
#pragma omp parallel for if ((double)B * H * T * T > SMALL) schedule(dynamic)
    for (int task = 0; task < B * KV; task++) {
        const int b = task % B, kv = task / B;
        const size_t row = (size_t)b * T;
        const real *k_head = k + row * ldk + kv * D, *v_head = v + row * ldv + kv * D;
        real *dk_head = dk + row * lddk + kv * D, *dv_head = dv + row * lddv + kv * D;
        real *s = scratch(size);
        real *ds = s + s_size;
        real *k_right = ds + s_size;
        real *block = k_right + right_size; /* Q or dO of a block, a right operand; */
        real *block_t = block + block_size; /* the same transposed */
        real *k_left = block_t + block_t_size;
        real *v_left = k_left + left_size;

        pack_a(k_left, mat(k_head, ldk), T, D);
        pack_a(v_left, mat(v_head, ldv), T, D);
        pack_b(k_right, mat(k_head, ldk), D, T);
        clear_rows(dk_head, lddk, T, D);
        clear_rows(dv_head, lddv, T, D);

        for (int h = kv * group; h < (kv + 1) * group; h++)
            for (int i0 = 0; i0 < T; i0 += QUERIES) {
                const int rows = MIN(T - i0, QUERIES), keys = i0 + rows;
                const size_t n0 = row + i0;
                const real *q_block = q + n0 * ldq + h * D;
                const real *dout_block = dout + n0 * HD + h * D;
                real *dq_block = dq + n0 * lddq + h * D;

                block_scores(s, k_left, q_block, ldq, block_t, rows, keys, D);
                block_scores(ds, v_left, dout_block, HD, block_t, rows, keys, D);
                block_softmax_backward(s, ds, lse + n0 * H + h, H, scale, rows, keys);
                block_add_to_keys(dv_head, lddv, s, dout_block, HD, block, rows, keys, D);
                block_add_to_keys(dk_head, lddk, ds, q_block, ldq, block, rows, keys, D);
                block_sum_over_keys(dq_block, lddq, ds, k_right, rows, keys, T, D);
            }
    }
}

/* --------------------------------------------------------------------------- Activations
 * Of --act. Those that are not gated leave gate and dgate alone.
 * out = relu(f)^2.  out (N,F) <- f (N,F) */
static void relu2_forward(real *out, const real *f, const real *gate, int N, int F) {
    TIMED(NORMS);
    (void)gate;
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F) out[at + i] = f[at + i] > 0 ? f[at + i] * f[at + i] : 0;
    }
}

/* forward: out = relu(f)^2, so df = dout * 2 * relu(f).
 * df (N,F), which holds dout on entry <- f (N,F) */
static void relu2_backward(real *df, real *dgate, const real *f, const real *gate, int N,
                           int F) {
    TIMED(NORMS);
    (void)dgate;
    (void)gate;
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F) df[at + i] *= f[at + i] > 0 ? 2 * f[at + i] : 0;
    }
}

/* out = relu(f).  out (N,F) <- f (N,F) */
static void relu_forward(real *out, const real *f, const real *gate, int N, int F) {
    TIMED(NORMS);
    (void)gate;
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F) out[at + i] = f[at + i] > 0 ? f[at + i] : 0;
    }
}

/* forward: out = relu(f).  df (N,F), which holds dout on entry <- f (N,F) */
static void relu_backward(real *df, real *dgate, const real *f, const real *gate, int N,
                          int F) {
    TIMED(NORMS);
    (void)dgate;
    (void)gate;
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F) df[at + i] = f[at + i] > 0 ? df[at + i] : 0;
    }
}

/* 1/(1 + e^-x), for any x: the exponent is never positive. */
static inline real sigmoid(real x) {
    const real t = fast_exp(-fabs(x));
    const real s = 1 / (1 + t);
    return x < 0 ? t * s : s;
}

/* out = silu(f) = f * sigmoid(f).  out (N,F) <- f (N,F) */
static void silu_forward(real *out, const real *f, const real *gate, int N, int F) {
    TIMED(NORMS);
    (void)gate;
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F) out[at + i] = f[at + i] * sigmoid(f[at + i]);
    }
}

/* The derivative of silu: with s = sigmoid(x), s + x s (1 - s). */
static inline real silu_slope(real x) {
    const real s = sigmoid(x);
    return s * (1 + x * (1 - s));
}

/* forward: out = silu(f).  df (N,F), which holds dout on entry <- f (N,F) */
static void silu_backward(real *df, real *dgate, const real *f, const real *gate, int N,
                          int F) {
    TIMED(NORMS);
    (void)dgate;
    (void)gate;
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F) df[at + i] *= silu_slope(f[at + i]);
    }
}

/* out = silu(gate) * f (Shazeer, 2002.05202).  out (N,F) <- f, gate (N,F) */
static void swiglu_forward(real *out, const real *f, const real *gate, int N, int F) {
    TIMED(NORMS);
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F) out[at + i] = gate[at + i] * sigmoid(gate[at + i]) * f[at + i];
    }
}

/* forward: out = silu(gate) * f, so dgate = dout * f * silu'(gate), df = dout * silu(gate)
 * df (N,F), which holds dout on entry, dgate (N,F) <- f, gate (N,F) */
static void swiglu_backward(real *df, real *dgate, const real *f, const real *gate, int N,
                            int F) {
    TIMED(NORMS);
    FOR_ROWS(n, N, F) {
        FOR_COLUMNS(i, F)
            dgate[at + i] = df[at + i] * f[at + i] * silu_slope(gate[at + i]);
        FOR_COLUMNS(i, F) df[at + i] *= gate[at + i] * sigmoid(gate[at + i]);
    }
}

static const Activation activations[] = {
    [ACT_RELU2] = {relu2_forward, relu2_backward},
    [ACT_RELU] = {relu_forward, relu_backward},
    [ACT_SILU] = {silu_forward, silu_backward},
    [ACT_SWIGLU] = {swiglu_forward, swiglu_backward}};

/* ------------------------------------------------------------------------ Gated residual
 * out = h + g * y.  out (N,C) <- h, y (N,C), g (C) */
static void gate_forward(real *out, const real *h, const real *y, const real *g, int N,
                         int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) {
        FOR_COLUMNS(i, C) out[at + i] = h[at + i] + g[i] * y[at + i];
    }
}

/* forward: out = h + g * y
 *      dg += sum_n dout * y,  dy = dout * g
 *      dh = dout: the caller goes on with the same buffer
 * dy (N,C), dg (C) or NULL <- dout, y (N,C), g (C) */
static void gate_backward(real *dy, real *dg, const real *dout, const real *y,
                          const real *g, int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) {
        if (dg) {
            FOR_COLUMNS(i, C) dg[i] += dout[at + i] * y[at + i];
        }
        FOR_COLUMNS(i, C) dy[at + i] = dout[at + i] * g[i];
    }
}

/* ------------------------------------------------------------- Softcap and cross-entropy
 * l = 30 * tanh(z/30),  lse = log(sum exp(l)),  loss = lse - l[target].
 * logits (N,V) holds z, then l, after the backward dz: one buffer of this size. */
#define SOFTCAP ((real)30)

/* 30 * tanh(z/30) as 30 - gap, where gap = 60 / (1 + e^(z/15)): what l falls short of 30,
 * by which softmax may scale, as no l is larger. */
static inline real softcap_gap(real z) {
    const real x = z * (2 / SOFTCAP), most = 80; /* e^80: the gap is 0 */
    return 2 * SOFTCAP / (1 + fast_exp(x > most ? most : x));
}

/* The same of every lane. */
INLINE vec softcap_gaps(vec z) {
    const vec x = z * (2 / SOFTCAP);
    return 2 * SOFTCAP / (1 + exp_lanes(min_lanes((vec){0} + 80, x)));
}

/* logits (N,V) in place, lse, loss (N) <- targets (N), or NULL: then there is no loss. */
static void loss_forward(real *logits, real *lse, real *loss, const int *targets, int N,
                         int V) {
    TIMED(LOSS);
    FOR_ROWS(n, N, V) {
        real *l = logits + at;
        Sums sums = {0};
        for (int i = 0; i < V; i += SUM)
            EACH_PART(v, k, i) {
                const vec gap = softcap_gaps(load_reals(l + k, V - k));
                store_reals(l + k, SOFTCAP - gap, V - k);
                sums.part[v] += first_lanes(exp_lanes(-gap), V - k);
            }
        const real sum = sum_of(&sums);
        lse[n] = SOFTCAP + (real)log_of((double)sum);
        if (targets) loss[n] = lse[n] - l[targets[n]];
    }
}

/* forward: l = 30 * tanh(z/30),  loss = lse - l[target]
 *      dz = dloss * (exp(l - lse) - (1 at the target, else 0)) * (1 - (l/30)^2)
 * logits (N,V) in place <- lse, targets (N); dloss: gradient of every token's loss. */
static void loss_backward(real *logits, const real *lse, const int *targets, real dloss,
                          int N, int V) {
    TIMED(LOSS);
    const real cap2 = 1 / (SOFTCAP * SOFTCAP);
    FOR_ROWS(n, N, V) {
        real *l = logits + at;
        const real l_target = l[targets[n]], lse_n = lse[n];

        FOR_COLUMNS(i, V)
            l[i] = dloss * fast_exp(l[i] - lse_n) * (1 - l[i] * l[i] * cap2);
        l[targets[n]] -= dloss * (1 - l_target * l_target * cap2);
    }
}

/* softcap_gap of a vector of logits, at most LANES, in place. */
INLINE void gap_lanes(real *l, int have) {
    store_reals(l, softcap_gaps(load_reals(l, have)), have);
}

/* From gaps l to dcap in place (see loss_codes); adds exp(l - 30) to sums. */
INLINE void loss_lanes(real *l, int have, vec *sums, vec *most) {
    const vec gap = load_reals(l, have);
    const vec e = exp_lanes(-gap), part = gap * (1 / SOFTCAP);
    const vec dcap = e * part * (2 - part);
    store_reals(l, dcap, have);
    *most = max_lanes(*most, first_lanes(dcap, have));
    *sums += first_lanes(e, have);
}

/* Gradients dl of logits as codes of 16 bits. They are as many as there are pieces in the
 * vocabulary, most of them tiny, and of one sign: if all under half a step became 0, a part
 * of the whole would be missing that no sum brings back. So dz = dl E and dE = dl^T z take
 * codes of their own.
 *
 * For dz, whose sums run along the row of a token: h (n) = rint(x * factor * top /
 * largest), |x| <= largest, factor <= 1, and what a rounding leaves goes on to the number
 * CARRY places further (error diffusion), which is why top is less than TOP16. So the sum of
 * a row's codes is right to CARRY / 2 steps, and errors have no direction in common. */
enum { CARRY = 64, CARRY_TOP = 32766 };

/* `have` numbers, at most CARRY. */
INLINE void carry_on(int16_t *h, const real *x, const real *factor, real inverse,
                     vec *carry, const int have) {
    UNROLL for (int c = 0; c < CARRY / LANES; c++) {
        const int i = c * LANES;
        if (i >= have) break;
        const vec scaled = load_reals(x + i, have - i) * inverse;
        const vec v = scaled * load_reals(factor + i, have - i) + carry[c];
        const vec q = rint_lanes(v);
        carry[c] = v - q;
        store_halves(h + i, q, have - i);
    }
}

static void carried_codes(int16_t *h, const real *x, const real *factor, real largest,
                          int n) {
    const real inverse = (real)CARRY_TOP / largest;
    vec carry[CARRY / LANES] = {{0}};
    int i = 0;
    for (; i + CARRY <= n; i += CARRY)
        carry_on(h + i, x + i, factor + i, inverse, carry, CARRY);
    if (i < n) carry_on(h + i, x + i, factor + i, inverse, carry, n - i);
}

/* largest (V) = the larger of it and |x * size|.  x (V) */
static void raise_to(real *largest, const real *x, real size, int V) {
    for (int i = 0; i < V; i += LANES) {
        const vec v = load_reals(x + i, V - i) * size;
        const vec most = max_lanes(load_reals(largest + i, V - i), max_lanes(v, -v));
        store_reals(largest + i, most, V - i);
    }
}

/* For dE, whose sums run over tokens: a step for each column, from its largest number in
 * these N <= STEP_ROWS rows. h = rint(x * size / step), step = the largest |x * size| of
 * the column, at least 1e-30, / TOP16; NaN if the size of a row is.
 * h (N,V), step (V) <- x (N,V), size (N), step: the largest, from raise_to */
static void column_codes(int16_t *h, real *step, const real *x, const real *size, int N,
                         int V) {
    enum { BLOCK = 16 * LANES };
    vec inverse[BLOCK / LANES];
    real none = 0;
    for (int n = 0; n < N; n++) none += 0 * size[n];
    for (int i = 0; i < V; i += BLOCK) {
        const int have = MIN(V - i, BLOCK);
        for (int k = 0; k < have; k += LANES) {
            const vec most =
                max_lanes((vec){0} + (real)1e-30, load_reals(step + i + k, have - k));
            store_reals(step + i + k, most * (1 / (real)TOP16) + none, have - k);
            inverse[k / LANES] = (real)TOP16 / most;
        }
        FOR_ROWS(n, N, V) {
            for (int k = 0; k < have; k += LANES) {
                const vec v = load_reals(x + at + i + k, have - k) * size[n];
                store_halves(h + at + i + k, rint_lanes(v * inverse[k / LANES]),
                             have - k);
            }
        }
    }
}

/* loss_forward and loss_backward at once, for a head in codes, of N <= STEP_ROWS tokens.
 * dl is dloss * dcap / sum, less target_dl at the target, which stays a number; dcap =
 * exp(l - 30) (1 - (l/30)^2) >= 0 is rounded to codes, for dE and, times factor, for dz:
 *     dl + (target_dl at the target, else 0) = for_dE.h * for_dE.step[v]
 *     the same * factor[v] = for_dz.h * for_dz.step[n]
 * codes (N,V), target_dl, lse, loss (N) <- logits (N,V), which are lost, factor (V),
 * targets (N). */
static void loss_codes(Rounded for_dE, Rounded for_dz, real *target_dl, real *lse,
                       real *loss, real *logits, const real *factor, const int *targets,
                       real dloss, int N, int V) {
    TIMED(LOSS);
    real size[STEP_ROWS] = {0};
    memset(for_dE.step, 0, V * sizeof(real));
    FOR_ROWS(n, N, V) {
        real *l = logits + at;
        const real target_gap = softcap_gap(l[targets[n]]);

        Sums sums = {0};
        vec most = {0};
        for (int i = 0; i < V; i += LANES) gap_lanes(l + i, V - i);
        for (int i = 0; i < V; i += SUM)
            EACH_PART(v, k, i) loss_lanes(l + k, V - k, &sums.part[v], &most);
        const real sum = sum_of(&sums), largest = larger(max_of_lanes(most), (real)1e-30);
        const real target_part = target_gap / SOFTCAP;
        lse[n] = SOFTCAP + (real)log_of((double)sum);
        loss[n] = lse[n] - (SOFTCAP - target_gap);
        target_dl[n] = dloss * target_part * (2 - target_part);
        size[n] = dloss / sum;
        for_dz.step[n] = size[n] * largest / (real)CARRY_TOP;
        carried_codes(for_dz.h + at, l, factor, largest, V);
        raise_to(for_dE.step, l, size[n], V);
    }
    column_codes(for_dE.h, for_dE.step, logits, size, N, V);
}

/* The codes of any gradients x (N,V) of logits, as those of loss_codes; those in which a
 * number is none have the step NaN. */
static void logit_codes(Rounded for_dE, Rounded for_dz, const real *x, const real *factor,
                        int N, int V) {
    real size[STEP_ROWS] = {0};
    memset(for_dE.step, 0, V * sizeof(real));
    FOR_ROWS(n, N, V) {
        const real most = absmax_or_nan(x + at, V);
        const int usable = most < (real)INFINITY;
        const real largest = usable ? larger((real)1e-20, most) : (real)INFINITY;
        size[n] = usable ? 1 : (real)NAN;
        for_dz.step[n] = size[n] * largest / (real)CARRY_TOP;
        carried_codes(for_dz.h + at, x + at, factor, largest, V);
        raise_to(for_dE.step, x + at, size[n], V);
    }
    column_codes(for_dE.h, for_dE.step, x, size, N, V);
}

/* ==== 4. Quantizers: what is stored, and therefore what the forward pass uses ======= */
/* The sum of |x| or x^2, in doubles: SUM lanes, as above.  x (n) */
static double sum_of_sizes(const real *x, size_t n, int squares) {
    enum { WIDE_LANES = VB / sizeof(double), WIDE_PARTS = SUM / WIDE_LANES };
    typedef double wide VEC(VB);
    typedef int64_t longs VEC(VB);
    typedef real narrow VEC(WIDE_LANES * sizeof(real));
    wide part[WIDE_PARTS] = {{0}};
    double lane[SUM];

    for (size_t i = 0; i < n; i += SUM) {
        narrow in[WIDE_PARTS] = {{0}};
        if (n - i >= SUM) memcpy(in, x + i, sizeof in);
        else memcpy(in, x + i, (n - i) * sizeof(real));
        UNROLL for (int v = 0; v < WIDE_PARTS; v++) {
            const wide w = __builtin_convertvector(in[v], wide);
            if (squares) part[v] += w * w;
            else part[v] += (wide)((longs)w & INT64_MAX); /* |w| */
        }
    }
    memcpy(lane, part, sizeof lane);
    for (int half = SUM / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

/* The same in blocks of 4096 that are added in order: the same bits for any number of
 * threads. */
static double block_sum(const real *x, size_t n, int squares) {
    enum { BLOCK = 4096 };
    const size_t blocks = CEIL(n, BLOCK);
    double *part = (double *)scratch(blocks * 2), total = 0;

#pragma omp parallel for if ((double)n > SMALL)
    for (size_t b = 0; b < blocks; b++)
        part[b] = sum_of_sizes(x + b * BLOCK, MIN(n - b * BLOCK, BLOCK), squares);
    for (size_t b = 0; b < blocks; b++) total += part[b];
    return total;
}

/* A weight on a grid is scale * code, and a group of weights has one scale, stored in bf16. A
 * group is a whole copy of a matrix, a row of it, or t->group weights of a row. Systems may
 * shift the grid by half a code (t->half): it then has no zero. */
static int is_ternary(const Tensor *t) { return t->bits == 2 && !t->half; }
static int grid_top(const Tensor *t) {
    return is_ternary(t) ? 1 : (1 << (t->bits - 1)) - 1;
}

/* The largest integer that stands for a code in a product (with a half grid 2 code + 1). */
static int top_of(const Tensor *t) { return t->half ? 2 * grid_top(t) + 1 : grid_top(t); }

/* Ternary, BitNet b1.58 (2402.17764): the scale is the mean |w|, "absmean". */
static real ternary_scale(const real *w, size_t n, const Tensor *t) {
    const double mean = block_sum(w, n, 0) / (double)n; /* 0: all are; NaN: one is */
    const double size = mean > 0 ? mean : (double)absmax_of(w, n);
    (void)t;
    return from_bf16(to_bf16((real)(size > 1e-5 ? size : 1e-5)));
}

/* Integers of t->bits bits: the largest |w| becomes the largest code. */
static real int_scale(const real *w, size_t n, const Tensor *t) {
    const double size = (double)absmax_of(w, n);
    const real least = (real)(size > 1e-5 ? size : 1e-5);
    return from_bf16(to_bf16(least / (real)grid_top(t)));
}

/* The code of w at scale s: rounded (ties to even, as torch.round), clipped. Ternary: -1,
 * 0, 1. */
INLINE real grid_code(real w, real s, const Tensor *t) {
    const real top = (real)grid_top(t), low = -top - (real)t->half;
    real q = rint(w / s - (real)t->half / 2);
    q = q > low ? q : low;
    return q > top ? top : q;
}

static void grid_codes(int8_t *code, const real *w, int n, real s, const Tensor *t) {
    const Tensor grid =
        *t; /* of which no code can be a part: the loop is one of vectors */
    FOR_COLUMNS(i, n) code[i] = (int8_t)grid_code(w[i], s, &grid);
}

static size_t grid_scales(const Tensor *t) {
    return t->copy_n / t->line * CEIL(t->line, t->group);
}

/* A copy as spans of n weights from `at` on that have one scale, number `scale`: its
 * groups or, when it is one group, its rows, so that threads have something to share. */
typedef struct {
    size_t at, scale;
    int n;
} Span;

static size_t spans(const Tensor *t) {
    return grid_scales(t) > 1 ? grid_scales(t) : t->copy_n / (size_t)t->stored_cols;
}

static Span span_at(const Tensor *t, size_t i) {
    const size_t line = (size_t)t->stored_cols, group = MIN(t->group, line);
    const size_t per_line = CEIL(line, group), at = i % per_line * group;
    return (Span){.at = i / per_line * line + at,
                  .scale = grid_scales(t) > 1 ? i : 0,
                  .n = (int)MIN(group, line - at)};
}

/* How the scale of n weights follows from them. */
typedef real ScaleRule(const real *w, size_t n, const Tensor *t);

/* A scale as a coarser grid has it, in bf16 like any other. */
static real coarser(real s, const Tensor *t) {
    return t->coarse > 0 ? from_bf16(to_bf16(s * t->coarse)) : s;
}

/* The scales of w, and the codes of z: w itself, or what a system makes of it. */
static void grid_quantize_as(int8_t *code, real *scale, uint8_t *mask, const real *w,
                             const real *z, const Tensor *t, ScaleRule *scale_rule) {
    const int one =
        grid_scales(t) == 1; /* threads within threads cost more than they gain */
    if (one) *scale = coarser(scale_rule(w, t->copy_n, t), t);
    PARALLEL(t->copy_n)
    for (size_t i = 0; i < spans(t); i++) {
        const Span g = span_at(t, i);
        if (!one) scale[g.scale] = coarser(scale_rule(w + g.at, (size_t)g.n, t), t);
        grid_codes(code + g.at, z + g.at, g.n, scale[g.scale], t);
        if (mask) t->passes(mask + g.at, z + g.at, g.n, scale[g.scale], t);
    }
}

static void ternary_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                             const Tensor *t) {
    grid_quantize_as(code, scale, mask, w, w, t, ternary_scale);
}

static void int_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                         const Tensor *t) {
    grid_quantize_as(code, scale, mask, w, w, t, int_scale);
}

/* eff = scale * code: what the forward pass multiplies with. */
static void grid_dequantize(real *eff, const int8_t *code, const real *scale,
                            const Tensor *t) {
    const real shift = (real)t->half / 2;
    PARALLEL(t->copy_n)
    for (size_t i = 0; i < spans(t); i++) {
        const Span g = span_at(t, i);
        const real s = scale[g.scale];
        FOR_COLUMNS(k, g.n) eff[g.at + k] = s * ((real)code[g.at + k] + shift);
    }
}

/* The straight-through estimator (BitNet's FAQ). Rounding and clipping have derivative 0
 * almost everywhere; the backward pass takes them, and the step, for the identity: the
 * gradient of a master weight is that of its eff. So there is nothing to do here, unless
 * a system masks some of it. */
static void ste_backward(real *dw, const uint8_t *mask, const Tensor *t) {
    if (!mask) return; /* dw = d(eff) already */
    for (size_t i = 0; i < t->copy_n; i++) dw[i] = mask[i] ? dw[i] : 0;
}

/* Ternary codes are packed 5 to a byte in base 3: 3^5 = 243 <= 256, 1.6 bits for log2(3)
 * = 1.585. */
static size_t ternary_bytes(const Tensor *t) {
    return 2 * grid_scales(t) + CEIL(t->copy_n, 5);
}

static uint8_t *pack_scales(uint8_t *out, const real *scale, const Tensor *t) {
    for (size_t g = 0; g < grid_scales(t); g++) put_u(out + 2 * g, to_bf16(scale[g]), 2);
    return out + 2 * grid_scales(t);
}

/* Returns where the codes start, NULL when a scale is none. */
static const uint8_t *unpack_scales(real *scale, const uint8_t *in, const Tensor *t) {
    for (size_t g = 0; g < grid_scales(t); g++, in += 2) {
        scale[g] = from_bf16((uint16_t)get_u(in, 2));
        if (!(scale[g] > 0) || !isfinite(scale[g])) return NULL;
    }
    return in;
}

static void ternary_pack(uint8_t *out, const int8_t *code, const real *scale,
                         const Tensor *t) {
    out = pack_scales(out, scale, t);
    memset(out, 0, CEIL(t->copy_n, 5));
    for (size_t i = t->copy_n; i-- > 0;)
        out[i / 5] = (uint8_t)(3 * out[i / 5] + code[i] + 1);
}

static int ternary_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    size_t byte = 0;
    in = unpack_scales(scale, in, t);
    if (!in) return 0;
    for (size_t i = 0; i < t->copy_n; i++) {
        if (i % 5 == 0) byte = in[i / 5];
        if (byte >= 243) return 0;
        code[i] = (int8_t)((int)(byte % 3) - 1);
        byte /= 3;
    }
    return 1;
}

/* Other codes, t->bits bits each, without gaps. */
static size_t int_bytes(const Tensor *t) {
    return 2 * grid_scales(t) + CEIL(t->copy_n * (size_t)t->bits, 8);
}

static void int_packed(uint8_t *out, const int8_t *code, const real *scale,
                       const Tensor *t) {
    const size_t bits = (size_t)t->bits;
    out = pack_scales(out, scale, t);
    memset(out, 0, CEIL(t->copy_n * bits, 8));
    for (size_t i = 0; i < t->copy_n * bits; i++) {
        const int u = code[i / bits] + (1 << (bits - 1));
        out[i / 8] |= (uint8_t)((u >> i % bits & 1) << i % 8);
    }
}

static int int_unpacked(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    const size_t bits = (size_t)t->bits;
    in = unpack_scales(scale, in, t);
    if (!in) return 0;
    for (size_t i = 0; i < t->copy_n; i++) {
        int u = 0;
        for (size_t b = 0; b < bits; b++) {
            const size_t at = i * bits + b;
            u |= (in[at / 8] >> at % 8 & 1) << b;
        }
        if (u == 0 && !t->half) return 0; /* -2^(bits-1) is never written */
        code[i] = (int8_t)(u - (1 << (bits - 1)));
    }
    return 1;
}

/* bf16, for the interface and for weights in 16 bits: a number is its own scale, without
 * codes. */
static size_t bf16_scales(const Tensor *t) { return t->copy_n; }
static size_t bf16_bytes(const Tensor *t) { return 2 * t->copy_n; }

static void bf16_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                          const Tensor *t) {
    (void)code;
    (void)mask;
    FOR_RANGE(i, 0, t->copy_n) scale[i] = from_bf16(to_bf16(w[i]));
}

static void bf16_dequantize(real *eff, const int8_t *code, const real *scale,
                            const Tensor *t) {
    (void)code;
    memcpy(eff, scale, sizeof(real) * t->copy_n);
}

static void bf16_pack(uint8_t *out, const int8_t *code, const real *scale,
                      const Tensor *t) {
    (void)code;
    for (size_t i = 0; i < t->copy_n; i++) put_u(out + 2 * i, to_bf16(scale[i]), 2);
}

static int bf16_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    (void)code;
    for (size_t i = 0; i < t->copy_n; i++) {
        scale[i] = from_bf16((uint16_t)get_u(in + 2 * i, 2));
        if (!isfinite(scale[i])) return 0;
    }
    return 1;
}

/* How the range coder of section 8 takes their codes and scales. */
static int grid_coded(struct Coder *r, const Tensor *t, int8_t *code, real *scale,
                      size_t part, size_t parts);
static int bf16_coded(struct Coder *r, const Tensor *t, int8_t *code, real *scale,
                      size_t part, size_t parts);

enum { Q_BF16, Q_TERNARY, Q_INT };
static const Quantizer quantizers[] = {
    [Q_BF16] = {.name = "bf16",
                .bits = 16,
                .domain = -1,
                .scales = bf16_scales,
                .bytes = bf16_bytes,
                .quantize = bf16_quantize,
                .dequantize = bf16_dequantize,
                .backward = ste_backward,
                .pack = bf16_pack,
                .unpack = bf16_unpack,
                .coded = bf16_coded},
    [Q_TERNARY] = {.name = "ternary",
                   .bits = 2,
                   .scales = grid_scales,
                   .bytes = ternary_bytes,
                   .quantize = ternary_quantize,
                   .dequantize = grid_dequantize,
                   .backward = ste_backward,
                   .pack = ternary_pack,
                   .unpack = ternary_unpack,
                   .coded = grid_coded},
    [Q_INT] = {.name = "int",
               .scales = grid_scales,
               .bytes = int_bytes,
               .quantize = int_quantize,
               .dequantize = grid_dequantize,
               .backward = ste_backward,
               .pack = int_packed,
               .unpack = int_unpacked,
               .coded = grid_coded},
};

/* Gives a tensor a quantizer; per: what shares a scale, SCALE_*. */
static void store_as(Tensor *t, const Quantizer *q, int bits, int per) {
    t->quant = q;
    t->bits = q->bits ? q->bits : bits;
    t->line = per == SCALE_TENSOR ? t->copy_n : (size_t)t->stored_cols;
    t->group = per == SCALE_GROUP ? 128 : t->line;
}

/* The embedding as integers. --fit=coded makes the step of a row 2^(embed_grid / OCTAVE) of
 * what it is with --embed_bits. Finer ones need codes of more bits, coarser ones keep theirs.
 * int_scale divides by the largest code there is, so t->coarse is what that must be
 * multiplied by. */
static void store_embedding(const Config *c, Tensor *t) {
    const double step = pow_of(2, (double)c->embed_grid / OCTAVE);
    store_as(t, quantizers + Q_INT, c->embed_bits, SCALE_ROW);
    const int top = grid_top(t);
    while (step * (grid_top(t) + 0.5) < top) t->bits++;
    t->coarse = (real)(c->embed_grid ? step * grid_top(t) / top : 0);
}

/* How the core stores a tensor. */
static void choose_quantizer(const Config *c, Tensor *t) {
    if (t->role == EMBED && c->embed_bits < 16) store_embedding(c, t);
    else if (t->role == INTERFACE || t->role == EMBED ||
             (t->role == PROJ && c->wq == WQ_NONE))
        store_as(t, quantizers + Q_BF16, 16, SCALE_ROW);
    else if (t->role == PROJ && c->wq == WQ_TERNARY)
        store_as(t, quantizers + Q_TERNARY, 2,
                 c->wscale == SCALE_AUTO ? SCALE_TENSOR : c->wscale);
    else if (t->role == PROJ)
        store_as(t, quantizers + Q_INT, 3 + c->wq - WQ_INT3,
                 c->wscale == SCALE_GROUP ? SCALE_GROUP : SCALE_ROW);
    else store_as(t, quantizers + Q_INT, 8, SCALE_ROW);
}

/* Inputs of the projections as integers -top..top with one step per token: with m =
 * max(absmax, 1e-5), q = rint(x * (top / m)), which stands for q * step, step = m / top.
 * x (N,K) -> a->q (N,K), a->step (N). The gradient passes straight through: the backward
 * takes dx for d(q * step), as if nothing was rounded. */
static void act_quant(Act *a, const real *x, int N, int K, int top) {
    TIMED(QUANT);
    FOR_ROWS(n, N, K) {
        const real absmax = larger(absmax_of(x + at, K), (real)1e-5),
                   s = (real)top / absmax;
        int8_t *q = a->q + at;
        a->step[n] = absmax / (real)top;
        FOR_COLUMNS(i, K) q[i] = (int8_t)rint(x[at + i] * s);
    }
}

/* The step of codes -top..top for numbers up to `most`; *inverse: what they are multiplied by. */
static real round_step(real most, int top, real *inverse) {
    const real absmax = larger((real)1e-20, most);
    *inverse = most < (real)INFINITY ? (real)top / absmax : 0;
    return most < (real)INFINITY ? absmax / (real)top : (real)NAN;
}

/* q (K) = rint(x * inverse) */
INLINE void round_by(int16_t *q, const real *x, int K, real inverse) {
    for (int i = 0; i < K; i += LANES)
        store_halves(q + i, rint_lanes(load_reals(x + i, K - i) * inverse), K - i);
}

void round_rows(int16_t *q, real *step, const real *x, size_t ld, int N, int K, int top) {
    TIMED(QUANT);
    FOR_ROWS(n, N, K) {
        const real *row = x + n * ld;
        real inverse;
        step[n] = round_step(absmax_or_nan(row, K), top, &inverse);
        round_by(q + at, row, K, inverse);
    }
}

static void quantize_inputs(const Golf *m, Act *a, const real *x, int N, int K,
                            int tensor) {
    act_quant(a, x, N, K, m->inputs[tensor]->top);
}

static void keep_inputs(const Golf *m, Act *a, const real *x, int N, int K, int tensor) {
    TIMED(QUANT);
    (void)m;
    (void)tensor;
    memcpy(a->x, x, sizeof(real) * (size_t)N * (size_t)K);
}

static const Inputs inputs_kept = {.quantize = keep_inputs, .domain = -1, .has_x = 1};
static const Inputs inputs_int8 = {.quantize = quantize_inputs, .top = 127, .has_q = 1};
static const Inputs inputs_int4 = {.quantize = quantize_inputs, .top = 7, .has_q = 1};

/* ==== 5. The model ================================================================== */
#define EACH_TENSOR(t, m) \
    for (__typeof__(&(m)->tensor[0]) t = (m)->tensor; t < (m)->tensor + N_TENSORS; t++)
/* The systems that are switched on: (*s)->hook. In the core alone there is none. */
#define EACH_SYSTEM(s, m) for (const System *const *s = (m)->systems; *s; s++)
static const System
    *const all_systems[N_SYSTEMS + 1]; /* at the end of the file, NULL behind the last */

static void *owned(Golf *m, size_t n, size_t size) { /* zeroed memory until golf_free */
    m->owned = realloc(m->owned, sizeof(void *) * (size_t)(m->n_owned + 1));
    if (!m->owned) die("out of memory");
    void *p = xcalloc(n, size);
    m->owned[m->n_owned++] = p;
    return p;
}

static real *owned_reals(Golf *m, size_t n) { return owned(m, n, sizeof(real)); }

void golf_free(Golf *m) {
    const int count = m->packed ? 3 * N_TENSORS * m->copies : 0;
    EACH_SYSTEM(s, m) {
        if ((*s)->release) (*s)->release(m);
    }
    for (Packed *w = m->packed; w < m->packed + count; w++) {
        free(w->codes.panel);
        free(w->codes.stream);
        free(w->forward.panel);
        weights_16_free(&w->back_codes);
        free(w->back.panel);
    }
    free(m->head.panel);
    free(m->head_back.panel);
    weights_16_free(&m->head_codes);
    weights_16_free(&m->head_back_codes);
    for (int i = 0; i < m->n_owned; i++) free(m->owned[i]);
    free(m->owned);
    memset(m, 0, sizeof *m);
}

/* ---- Layout: the tensor table of a config. Everything else loops over it. */
static const Sublayer attention, mlp;

static const Inputs *inputs_for(const Config *c, int tensor) {
    if (c->aq == AQ_NONE) return &inputs_kept;
    /* int4 leaves the down projection, where the outliers are, 8 bits (BitNet's FAQ) */
    return c->aq == AQ_INT4 && tensor != T_wdown ? &inputs_int4 : &inputs_int8;
}

static void table_rows(Golf *m) {
    const Config *c = &m->config;
    const int copies_of[] = {[ONCE] = 1,
                             [PER_BLOCK] = block_count(c),
                             [PER_PHASE] = c->phase ? m->phases : block_count(c),
                             [PER_OTHER] = 0};
    const int ledger_of_role[] = {[EMBED] = LEDGER_EMBEDDING,
                                  [PROJ] = LEDGER_CORE,
                                  [FACTOR] = LEDGER_PROTECTED,
                                  [INTERFACE] = LEDGER_INTERFACE,
                                  [VIRTUAL] = LEDGER_CORE};
    Tensor *t = m->tensor;
#define X(name_, of, rows_, cols_, role_, mode_, init_) \
    *t++ = (Tensor){.name = #name_, \
                    .per = of, \
                    .stored_copies = copies_of[of], \
                    .rows = rows_, \
                    .cols = cols_, \
                    .role = role_, \
                    .mode = mode_, \
                    .init = init_, \
                    .ledger = ledger_of_role[role_]};
    GOLF_TENSORS(X)
#define TENSORS
#include "dev/systems/systems.h"
#undef TENSORS
#undef X
    m->tensor[T_wqkv].split = 1;
    m->split_qkv = c->extra_norm == XN_EACH;
    for (int k = 0; k < N_TENSORS; k++) m->inputs[k] = inputs_for(c, k);
}

static void choose_storage(Golf *m, Tensor *t) {
    int chosen = 0;
    EACH_SYSTEM(s, m) {
        if ((*s)->store && !chosen) chosen = (*s)->store(m, t);
    }
    if (!chosen) choose_quantizer(&m->config, t);
    EACH_SYSTEM(s, m) {
        if ((*s)->estimator) (*s)->estimator(m, t);
    }
}

static void golf_layout(Golf *m, const Config *c) {
    int on = 0;
    memset(m, 0, sizeof *m);
    m->config = *c;
    m->phases = phase_count(c);
    m->momentum = c->momentum;
    m->attention = &attention;
    m->mlp = &mlp;
    m->act = activations + c->act;
    for (const System *const *s = all_systems; *s; s++)
        if ((*s)->on(c)) m->systems[on++] = *s;
    table_rows(m);
    EACH_SYSTEM(s, m) {
        if ((*s)->shape) (*s)->shape(m);
    }
    EACH_TENSOR(t, m) {
        t->stored_cols = t->mode == MODE_VECTOR ? t->cols : t->mode == MODE_SCALAR;
        t->copy_n = (size_t)t->rows * (size_t)t->stored_cols;
        t->n = (size_t)t->stored_copies * t->copy_n;
        m->copies = MAX(m->copies, t->stored_copies);
        choose_storage(m, t);
        t->at = m->n_params;
        m->n_params += t->n;
        t->at_interface = m->n_interface;
        if (t->role == INTERFACE) m->n_interface += (size_t)t->cols;
        if (!is_stored(t)) continue;
        t->copy_scales = t->quant->scales(t);
        t->copy_bytes = t->quant->bytes(t);
        t->bytes = (size_t)t->stored_copies * t->copy_bytes;
        const Tensor *owner = t->shares ? m->tensor + t->shares - 1 : t;
        t->at_scale = t->shares ? owner->at_scale : m->n_scales;
        t->scale_stride = owner->copy_scales;
        m->n_scales += (size_t)t->stored_copies * t->copy_scales;
    }
}

/* Phase p uses this block, and this copy of a tensor. */
static int block_of(const Config *c, int p) {
    const int loop = p - c->prelude;
    if (loop < 0) return p;
    if (loop >= loop_phases(c)) return c->prelude + c->unique + (loop - loop_phases(c));
    return c->prelude + (c->order == ORDER_CYCLE ? loop % c->unique : loop / c->repeat);
}

static int copy_of(const Golf *m, const Tensor *t, int p) {
    return t->stored_copies == m->phases ? p : block_of(&m->config, p);
}

/* ---- Memory. */
/* Keyed by name: models that differ in one tensor share the start of all others. */
static uint64_t init_key(const Golf *m, const Tensor *t) {
    return hash64((uint64_t)m->config.seed, crc32_of(0, t->name, strlen(t->name)));
}

static void init_masters(Golf *m) {
    EACH_TENSOR(t, m) {
        const uint64_t key = init_key(m, t);
        if (t->role == INTERFACE) {
            FOR_RANGE(i, 0, t->n) m->master[t->at + i] = (real)t->init;
        } else {
            FOR_RANGE(i, 0, t->n)
                m->master[t->at + i] = (real)(t->init * normal01(key, i));
        }
    }
    EACH_SYSTEM(s, m) {
        if ((*s)->start) (*s)->start(m, NULL, 0);
    }
}

/* A size_t of 32 bits may not hold n_params. */
static double parameters_of(const Golf *m) {
    double sum = 0;
    EACH_TENSOR(t, m) sum += (double)t->stored_copies * t->rows * t->stored_cols;
    return sum;
}

/* Dies when what is asked for needs more bytes than the machine has, or a program can have:
 * Linux promises any amount and kills who uses it. */
static void demand_memory(double need, const char *what, const char *instead) {
    const double there = memory_there("");
    if (there > 0 && need > there)
        die("%s need %.0f MB, and this machine has, or grants, %.0f; %s", what,
            need / 1e6, there / 1e6, instead);
}

/* Bytes of a model without buffers. A parameter is 5 numbers and 3 bytes in training, and a
 * number more for each halving of the groups; else 1 and 1. */
static double model_memory(const Golf *m, int train) {
    const int trained = 5 + halvings(&m->config); /* numbers for each that is trained */
    const double each = train ? trained * (int)sizeof(real) + 3 : (int)sizeof(real) + 1;
    const double vectors = (1.0 + train) * m->phases * (double)m->n_interface;
    return each * parameters_of(m) +
           (vectors + (double)m->n_scales) * (double)sizeof(real) +
           3.0 * N_TENSORS * m->copies * (double)sizeof(Packed);
}

static void check_memory(const Golf *m, int train) {
    char what[64];
    snprintf(what, sizeof what, "%.0f parameters", parameters_of(m));
    demand_memory(model_memory(m, train), what, "lower --cap or --width");
}

void golf_init(Golf *m, const Config *c, int train) {
    golf_layout(m, c);
    check_memory(m, train);
    m->train = train;
    m->eff = owned_reals(m, m->n_params);
    m->code = owned(m, m->n_params, 1);
    m->scale = owned_reals(m, m->n_scales);
    m->interface = owned_reals(m, (size_t)m->phases * m->n_interface);
    m->packed = owned(m, (size_t)3 * N_TENSORS * (size_t)m->copies, sizeof(Packed));
    m->phase = owned(m, (size_t)m->phases, sizeof(PhaseBuffers));
    m->prev = owned(m, (size_t)m->phases + 1, sizeof(real *));
    m->visits = owned(m, (size_t)m->phases, sizeof(int));
    m->n_visits = m->phases;
    for (int i = 0; i < m->n_visits; i++) m->visits[i] = i;
    if (!train) return;
    m->master = owned_reals(m, m->n_params);
    m->grad = owned_reals(m, m->n_params);
    for (int i = 0; i < halvings(c); i++) m->half[i] = owned_reals(m, m->n_params);
    m->moment1 = owned_reals(m, m->n_params);
    m->moment2 = owned_reals(m, m->n_params);
    m->mask = owned(m, m->n_params, 1);
    m->before = owned(m, m->n_params, 1);
    m->dinterface = owned_reals(m, (size_t)m->phases * m->n_interface);
    m->head_factor = owned_reals(m, (size_t)c->vocab);
    init_masters(m);
    golf_quantize(m);
}

static void act_alloc(Golf *m, Act *a, int tensor, size_t N, size_t K) {
    const Inputs *in = m->inputs[tensor];
    if (in->has_x) a->x = owned_reals(m, N * K);
    if (in->has_q) a->q = owned(m, N * K, 1);
    if (in->has_q) a->step = owned_reals(m, N);
    if (in->has_mask) a->mask = owned(m, N * K, 1);
}

static Rounded rounded_new(Golf *m, size_t N, size_t K) {
    return (Rounded){owned(m, N * K, sizeof(int16_t)), owned_reals(m, N)};
}

/* rope=half: half of the pairs turn, by the angles of a head of half the size; the others
 * stay as they are. */
static void rope_table(Golf *m) {
    const Config *c = &m->config;
    const int D = head_dim(c), turned = c->rope == ROPE_HALF ? D / 2 : D;
    m->rope = owned_reals(m, (size_t)c->seq * (size_t)D);
    for (int t = 0; t < c->seq; t++)
        for (int i = 0; i < D / 2; i++) {
            const double angle =
                i < turned / 2 ? t * pow_of(10000, -2.0 * i / turned) : 0;
            m->rope[(size_t)t * D + i] = (real)cos_of(angle);
            m->rope[(size_t)t * D + D / 2 + i] = (real)sin_of(angle);
        }
}

#define PHASE_REAL(name, n) s->name = owned_reals(m, N * (size_t)(n));
#define PHASE_ACT(name, tensor, n) act_alloc(m, &s->name, T_##tensor, N, (size_t)(n));
#define MODEL_REAL(name, n) m->name = owned_reals(m, N * (size_t)(n));
#define MODEL_CODES(name, n) m->name = rounded_new(m, N, (size_t)(n));

/* What is not kept for a backward pass shares the buffers of the first phase. */
static void phase_buffers(Golf *m, size_t N) {
    const Config *c = &m->config;
    for (PhaseBuffers *s = m->phase; s < m->phase + m->phases; s++) {
        const int own = s == m->phase || (m->train && !c->recompute);
        if (own) {
            PHASE_REALS(PHASE_REAL)
            PHASE_ACTS(PHASE_ACT)
        } else {
            *s = *m->phase;
            if (m->train) s->out = owned_reals(m, N * (size_t)c->width);
        }
    }
}

/* Bytes of the buffers for N tokens: the larger part of them. */
static double buffer_memory(const Golf *m, size_t N) {
    const Config *c = &m->config;
    const int kept = m->train && !c->recompute ? m->phases : 1;
#define COUNT_REALS(name, n) +(double)(n)
    const double phase = 0 PHASE_REALS(COUNT_REALS);
    const double logits = (double)MIN(N, HEAD) * c->vocab;
    return (double)sizeof(real) *
           ((double)N * phase * kept + logits + (double)c->seq * head_dim(c));
}

void golf_buffers(Golf *m, size_t N) {
    const Config *c = &m->config;
    const size_t ones = (size_t)(c->width + hidden_width(c));
    demand_memory(buffer_memory(m, N), "activations", "lower --batch, --seq or --width");
    m->N = N;
    phase_buffers(m, N);
    FORWARD_REALS(MODEL_REAL)
    FORWARD_CODES(MODEL_CODES)
    m->logits = owned_reals(m, MIN(N, HEAD) * (size_t)c->vocab);
    m->ones = owned_reals(m, ones);
    for (size_t i = 0; i < ones; i++) m->ones[i] = 1;
    rope_table(m);
    m->rows_partial = CEIL(N, CHUNK);
    EACH_SYSTEM(s, m) {
        if ((*s)->buffers) (*s)->buffers(m, N);
    }
    if (m->train) {
        BACKWARD_REALS(MODEL_REAL)
        if (c->bwd == BWD_INT16) {
            const size_t V = (size_t)c->vocab;
            const size_t rows = MIN(N, HEAD);
            BACKWARD_CODES(MODEL_CODES)
            m->dlogits_h.h = owned(m, rows * V, sizeof(int16_t));
            m->dlogits_h.step = owned_reals(m, CEIL(rows, STEP_ROWS) * V);
            m->target_dl = owned_reals(m, MIN(N, HEAD));
        }
        m->partial = owned_reals(m, m->rows_partial * m->n_interface);
    }
    if (m->adapter) {
        ADAPTER_REALS(MODEL_REAL)
    } else {
        m->x = m->e;
        m->z = m->hn;
        m->de = m->dy;
    }
}

void golf_cache(Golf *m) {
    const Config *c = &m->config;
    const size_t row = (size_t)(kv_heads(c) * head_dim(c));
    demand_memory(2.0 * m->phases * c->seq * (double)(row * sizeof(real)),
                  "keys and values of --seq tokens", "the model is too large to sample");
    m->kcache = owned_reals(m, (size_t)(m->phases * c->seq) * row);
    m->vcache = owned_reals(m, (size_t)(m->phases * c->seq) * row);
}

/* The same buffers from token n0 on. */
static Act act_at(const Act *a, size_t n0, size_t K) {
    Act b = *a; /* those that are not there stay NULL */
    if (b.x) b.x += n0 * K;
    if (b.step) b.step += n0;
    if (b.q) b.q += n0 * K;
    if (b.mask) b.mask += n0 * K;
    return b;
}

static PhaseBuffers phase_at(const Golf *m, int p, size_t n0) {
    const Config *c = &m->config;
    const PhaseBuffers *s = m->phase + p;
#define REAL_AT(name, n) .name = s->name + n0 * (size_t)(n),
#define ACT_AT(name, tensor, n) .name = act_at(&s->name, n0, (size_t)(n)),
    return (PhaseBuffers){PHASE_REALS(REAL_AT) PHASE_ACTS(ACT_AT)};
}

static Rounded rounded_at(const Rounded *r, size_t n0, size_t K) {
    if (!r->h) return *r;
    return (Rounded){r->h + n0 * K, r->step + n0};
}

static Flow flow_at(const Golf *m, size_t n0) {
    const Config *c = &m->config;
#define FLOW_AT(name, n) .name = m->name ? m->name + n0 * (size_t)(n) : NULL,
#define CODES_AT(name, n) .name = rounded_at(&m->name, n0, (size_t)(n)),
    return (Flow){FORWARD_REALS(FLOW_AT) FORWARD_CODES(CODES_AT) BACKWARD_REALS(FLOW_AT)
                      BACKWARD_CODES(CODES_AT) ADAPTER_REALS(FLOW_AT)};
}

static Chunk chunk_at(const Golf *m, int p, int n0, int n) {
    return (Chunk){p, n0, n, phase_at(m, p, (size_t)n0), flow_at(m, (size_t)n0)};
}

/* ---- The interface has three modes, and copies per phase or per block; layers know
 * nothing of this. expand: what is stored -> a full vector for every phase. fold: its
 * adjoint, for gradients. */
static size_t stored_at(const Golf *m, const Tensor *t, int p, int i) {
    const size_t copy = t->at + (size_t)copy_of(m, t, p) * (size_t)t->stored_cols;
    return t->mode == MODE_VECTOR ? copy + (size_t)i : copy;
}

static void expand_interface(Golf *m, const Tensor *t) {
    for (int p = 0; p < m->phases; p++) {
        real *to = m->interface + p * m->n_interface + t->at_interface;
        for (int i = 0; i < t->cols; i++)
            to[i] = t->mode ? m->eff[stored_at(m, t, p, i)] : (real)t->init;
    }
}

static void fold_interface(Golf *m, const Tensor *t) {
    if (!t->mode) return;
    for (int p = 0; p < m->phases; p++) {
        const real *from = m->dinterface + p * m->n_interface + t->at_interface;
        for (int i = 0; i < t->cols; i++) m->grad[stored_at(m, t, p, i)] += from[i];
    }
}

/* Vector `tensor` of phase p. */
static const real *phase_vector(const Golf *m, int tensor, int p) {
    return m->interface + p * m->n_interface + m->tensor[tensor].at_interface;
}

/* Where the chunk from token n0 on sums the gradient of its phase's vector: NULL, not
 * computed, where the mode is none. Every chunk has a row of sums of its own; they are
 * added in order when the phase is done: the same bits for any number of threads. */
static real *chunk_dvector(const Golf *m, int tensor, size_t n0) {
    const Tensor *t = m->tensor + tensor;
    return t->mode ? m->partial + n0 / CHUNK * m->n_interface + t->at_interface : NULL;
}

/* The same two for a chunk. */
static const real *vec_of(const Golf *m, int tensor, const Chunk *k) {
    return phase_vector(m, tensor, k->p);
}

static real *dvec_of(const Golf *m, int tensor, const Chunk *k) {
    return chunk_dvector(m, tensor, (size_t)k->n0);
}

static void add_chunks(Golf *m, int p) {
    enum { STRIPE = 4 * CACHE_LINE };
    TIMED(NORMS);
    const size_t n = m->n_interface;
    real *sum = m->dinterface + p * n;

    PARALLEL(m->rows_partial * n)
    for (size_t start = 0; start < n; start += STRIPE) {
        const size_t cols = MIN(n - start, STRIPE);
        for (size_t j = 0; j < m->rows_partial; j++) {
            real *row = m->partial + j * n + start;
            FOR_COLUMNS(i, (int)cols) sum[start + i] += row[i];
            memset(row, 0, cols * sizeof(real));
        }
    }
}

/* ---- Weights: once per optimizer step, masters -> codes and scales -> eff -> panels.
 * All phases then share the result. */
static real *scale_of(const Golf *m, const Tensor *t, int copy) {
    return m->scale + t->at_scale + (size_t)copy * t->scale_stride;
}

/* Row ranges of projection k that have an input of their own: all rows are range 0,
 * unless q, k and v are split. Returns the number of rows, 0 for a range that does not
 * exist. */
static int row_range(const Golf *m, int k, int r, int *first) {
    const Config *c = &m->config;
    const int kv = kv_heads(c) * head_dim(c);
    const int start[] = {0, c->width, c->width + kv, m->tensor[k].rows};
    const int split = m->tensor[k].split && m->split_qkv;
    *first = split ? start[r] : 0;
    if (split) return start[r + 1] - start[r];
    return r ? 0 : m->tensor[k].rows;
}

/* Panels of row range r of copy j of projection k. */
static Packed *packed_of(const Golf *m, int k, int j, int r) {
    return m->packed + (k * m->copies + j) * 3 + r;
}

/* Codes that 2 bits hold: what int_pack_stream packs. */
static int is_narrow(const Tensor *t) { return is_ternary(t) || t->bits == 1; }

/* Is y = x W^T computed exactly, in integers? Both sides have codes, of the same domain,
 * and the kernel takes them (with a half grid 2 code + 1). A scale per row multiplies
 * afterwards. */
static int in_integers(const Golf *m, const Tensor *t) {
    const Inputs *in = m->inputs[t - m->tensor];
    if (t->role != PROJ || t->float_only) return 0;
    if (t->quant->domain < 0 || t->quant->domain != in->domain) return 0;
    if (t->bits > 8 || (t->half && t->bits == 8) || t->group != t->line) return 0;
    return is_narrow(t) || t->cols <= 1 << 17; /* 127 * 128 * 2^17 is still an int32 */
}

/* Is dx = dy W computed in integers, dy in 16 bits? Finite differences need every digit
 * of it. */
static int back_in_integers(const Golf *m, const Tensor *t) {
    const int exact = sizeof(real) > 4 || m->config.bwd == BWD_FP32;
    if (t->role != PROJ || t->float_only || exact) return 0;
    if (t->half && t->bits == 8) return 0;
    return t->quant->domain == 0 && t->bits <= 8 && t->group == t->line;
}

/* Of a half grid the codes of rows of t as integers, 2 code + 1, to be freed: code + 1/2 is
 * half of that. */
static int8_t *whole_codes(const Golf *m, const Tensor *t, size_t at, int rows) {
    const size_t n = (size_t)rows * (size_t)t->cols;
    int8_t *codes = xcalloc(n, 1);
    for (size_t i = 0; i < n; i++) codes[i] = (int8_t)(2 * m->code[at + i] + 1);
    return codes;
}

/* And what an integer stands for, before the scale. */
static real unit_of(const Tensor *t) { return t->half ? (real)0.5 : 1; }

/* Rows `first`, ... of copy j, for both directions. */
static void pack_rows_of(const Golf *m, const Tensor *t, Packed *w, int j, int first,
                         int rows) {
    const int K = t->cols, forward = in_integers(m, t);
    const int wanted = m->train || t->both_ways, back = wanted && back_in_integers(m, t);
    const size_t at = t->at + ((size_t)j * (size_t)t->rows + (size_t)first) * (size_t)K;
    const real *scale = scale_of(m, t, j), unit = unit_of(t);
    int8_t *whole_code = t->half ? whole_codes(m, t, at, rows) : NULL;
    const int8_t *codes = whole_code ? whole_code : m->code + at;

    if (forward) int_pack(&w->codes, codes, rows, K);
    else panels_pack(&w->forward, mat_t(m->eff + at, K), K, rows);
    if (forward && is_narrow(t) && !m->master) int_pack_stream(&w->codes);

    const int one = t->copy_scales == 1;
    const real *steps = one ? NULL : scale + first;
    const real step = one ? unit * *scale : unit;
    if (back)
        weights_16_pack(&w->back_codes, mat_q(codes, steps, K), rows, K, top_of(t), step);
    else if (wanted) panels_pack(&w->back, mat(m->eff + at, K), rows, K);
    free(whole_code);
}

/* Copy j of tensor k. */
static void pack_matrix(const Golf *m, int k, int j) {
    const Tensor *t = m->tensor + k;
    if (!is_matrix(t) || j >= t->stored_copies) return;
    for (int r = 0; r < 3; r++) {
        int first;
        const int rows = row_range(m, k, r, &first);
        if (rows) pack_rows_of(m, t, packed_of(m, k, j, r), j, first, rows);
    }
}

/* From so many numbers on, all threads work at one matrix. */
enum { LARGE = 1 << 18 };

/* Small matrices side by side, large ones with all threads at each. */
static void pack_matrices(const Golf *m) {
    size_t largest = 0;
    EACH_TENSOR(t, m) {
        if (is_matrix(t)) largest = MAX(largest, t->copy_n);
    }
#pragma omp parallel for schedule(dynamic) if (largest < LARGE)
    for (int i = 0; i < N_TENSORS * m->copies; i++)
        pack_matrix(m, i / m->copies, i % m->copies);
}

/* Are logits computed in integers, whatever --bwd says? The stream is then rounded to 16
 * bits, in training and from the file. */
static int head_in_integers(const Golf *m) {
    const Tensor *t = m->tensor + T_embed;
    return sizeof(real) == 4 && !t->float_only && t->quant->domain == 0 && t->bits <= 8;
}

/* And their backward? */
static int head_back_in_integers(const Golf *m) {
    return head_in_integers(m) && m->config.bwd == BWD_INT16;
}

static void pack_head(Golf *m, const Tensor *embed) {
    const int V = embed->rows, E = embed->cols, top = grid_top(embed);
    const real *numbers = m->eff + embed->at;
    const Mat codes = mat_q(m->code + embed->at, scale_of(m, embed, 0), (size_t)E);

    if (head_in_integers(m))
        weights_16_pack(&m->head_codes, transposed(codes), E, V, top, 1);
    else panels_pack(&m->head, mat_t(numbers, (size_t)E), E, V);
    if (!m->train) return;
    if (!head_back_in_integers(m)) {
        panels_pack(&m->head_back, mat(numbers, (size_t)E), V, E);
        return;
    }
    /* dz = dl E: a row's scale, a part of the largest, goes into the codes of dl. */
    const real *scale = scale_of(m, embed, 0);
    const real largest = absmax_or_nan(scale, V);
    for (int v = 0; v < V; v++) m->head_factor[v] = scale[v] / largest;
    weights_16_pack(&m->head_back_codes, mat_q(codes.q, NULL, (size_t)E), V, E, top,
                    largest);
}

static void golf_pack(Golf *m) {
    const Tensor *embed = m->tensor + T_embed;
    EACH_TENSOR(t, m) {
        if (t->role == INTERFACE) expand_interface(m, t);
    }
    pack_matrices(m);
    pack_head(m, embed);
}

/* Gradients of eff to those of the masters, in place: the straight-through estimator. */
static void masters_backward(Golf *m, real *g) {
    EACH_SYSTEM(s, m) {
        if ((*s)->masters) (*s)->masters(m, g);
    }
    EACH_TENSOR(t, m) {
        if (!is_stored(t)) continue;
        for (int j = 0; j < t->stored_copies; j++) {
            const size_t at = t->at + (size_t)j * t->copy_n;
            t->quant->backward(g + at, t->passes ? m->mask + at : NULL, t);
        }
    }
}

static void dequantize_copy(Golf *m, const Tensor *t, int j) {
    const size_t at = t->at + (size_t)j * t->copy_n;
    if (!is_stored(t) || j >= t->stored_copies) return;
    t->quant->dequantize(m->eff + at, m->code + at, scale_of(m, t, j), t);
}

void golf_use(Golf *m) {
#pragma omp parallel for schedule(dynamic) if (m->n_params > SMALL)
    for (int i = 0; i < N_TENSORS * m->copies; i++) {
        const Tensor *t = m->tensor + i / m->copies;
        if (t->copy_n < LARGE) dequantize_copy(m, t, i % m->copies);
    }
    EACH_TENSOR(t, m) {
        if (t->copy_n < LARGE) continue;
        for (int j = 0; j < t->stored_copies; j++) dequantize_copy(m, t, j);
    }
    EACH_SYSTEM(s, m) {
        if ((*s)->soften && m->master) (*s)->soften(m);
    }
    EACH_SYSTEM(s, m) {
        if ((*s)->expand) (*s)->expand(m);
    }
    golf_pack(m);
}

static uint64_t codes_changed(const Golf *m, size_t at, size_t n) {
    uint64_t count = 0;
    PRAGMA(omp parallel for reduction(+ : count) if ((double)n > SMALL))
    for (size_t i = at; i < at + n; i++) count += m->before[i] != m->code[i];
    return count;
}

/* Copy j of tensor t: codes and scales; of a projection, how many codes are new. */
static uint64_t quantize_copy(Golf *m, const Tensor *t, int j) {
    const size_t at = t->at + (size_t)j * t->copy_n;
    if (!is_stored(t) || j >= t->stored_copies) return 0;
    t->quant->quantize(m->code + at, scale_of(m, t, j), t->passes ? m->mask + at : NULL,
                       m->master + at, t);
    return t->role == PROJ ? codes_changed(m, at, t->copy_n) : 0;
}

/* Another step of the embedding's codes, from the next golf_quantize on. */
static void set_embed_grid(Golf *m, int grid) {
    Tensor *t = m->tensor + T_embed;
    m->config.embed_grid = grid;
    choose_storage(m, t);
    t->bytes = t->copy_bytes = t->quant->bytes(t);
}

/* May its copies be quantized beside others? Large ones are not, and who uses the scales of
 * another comes after that. */
static int goes_beside(const Tensor *t) { return t->copy_n < LARGE && !t->shares; }

void golf_quantize(Golf *m) {
    TIMED(QUANT);
    uint64_t flips = 0;
    FOR_RANGE(i, 0, m->n_params) m->before[i] = m->code[i];
    EACH_SYSTEM(s, m) {
        if ((*s)->masters) (*s)->masters(m, m->master);
    }
#pragma omp parallel for schedule(dynamic) reduction(+ : flips) if (m->n_params > SMALL)
    for (int i = 0; i < N_TENSORS * m->copies; i++) {
        const Tensor *t = m->tensor + i / m->copies;
        if (goes_beside(t)) flips += quantize_copy(m, t, i % m->copies);
    }
    EACH_TENSOR(t, m) {
        if (goes_beside(t)) continue;
        for (int j = 0; j < t->stored_copies; j++) flips += quantize_copy(m, t, j);
    }
    if (m->quantized) m->flips += flips;
    m->quantized = 1;
    golf_use(m);
}

/* ---- Projections. The input: RMSNorm(x) * g if `norm`, or x; quantized. x, room (N,K),
 * r (N), g (K) */
static void input_of(const Golf *m, Act *a, int k, int norm, real *r, const real *x,
                     const real *g, int N, int K, real *room) {
    if (norm) rmsnorm_forward(room, r, x, g, N, K);
    m->inputs[k]->quantize(m, a, norm ? room : x, N, K, k);
}

/* The same as an operand, of float products: codes in the plain domain mean q * step. */
static Mat inputs_of(const Golf *m, const Act *x, int k) {
    const size_t K = (size_t)m->tensor[k].cols;
    return m->inputs[k]->domain == 0 ? mat_q(x->q, x->step, K) : mat(x->x, K);
}

/* y = x W^T for row range r of copy j of projection k: on codes, sums are exact integers. The
 * gradients: dx = dy W and, over all tokens at once, dW += dy^T x.
 * y (N,..), its rows ldy apart */
static void linear_forward(const Golf *m, real *y, size_t ldy, const Act *x, int k, int j,
                           int r, int N) {
    TIMED(Y);
    const Tensor *t = m->tensor + k;
    const Packed *w = packed_of(m, k, j, r);
    const real *scale = scale_of(m, t, j), unit = unit_of(t);
    int first;
    row_range(m, k, r, &first);
    y += first;
    if (!in_integers(m, t)) {
        gemm_panels(y, ldy, inputs_of(m, x, k), &w->forward, N, 0);
        return;
    }
    if (t->copy_scales == 1) {
        gemm_int(y, ldy, x->q, x->step, &w->codes, *scale * unit, N);
        return;
    }
    gemm_int(y, ldy, x->q, x->step, &w->codes, unit, N);
    for (int n = 0; n < N; n++) {
        FOR_COLUMNS(i, w->codes.rows) y[n * ldy + i] *= scale[first + i];
    }
}

/* dy (N,..) of projection k as an operand: its codes r, which round_gradient has filled, or
 * numbers, where its products are not of codes. */
static Mat gradient_of(const Golf *m, int k, const real *dy, size_t ldy, Rounded r) {
    if (back_in_integers(m, m->tensor + k)) return mat_h(r.h, r.step, ldy);
    return mat(dy, ldy);
}

/* Fills r, for N tokens. */
static Mat round_gradient(const Golf *m, int k, const real *dy, size_t ldy, Rounded r,
                          int N) {
    if (back_in_integers(m, m->tensor + k))
        round_rows(r.h, r.step, dy, ldy, N, (int)ldy, TOP16);
    return gradient_of(m, k, dy, ldy, r);
}

/* Of a gradient that is not rounded yet, dy (N,w->k): of systems, those of the core are. */
static void linear_dx_of_numbers(real *dx, Mat dy, const Weights16 *w, int N) {
    const size_t n = (size_t)N * (size_t)w->k;
    int16_t *h = xcalloc(n, sizeof *h);
    real *step = xcalloc((size_t)N, sizeof *step);
    round_rows(h, step, dy.f, dy.ld, N, w->k, TOP16);
    gemm_16(dx, (size_t)w->n, mat_h(h, step, (size_t)w->k), w, N);
    free(h);
    free(step);
}

/* forward: y = x W^T, so dx = dy W */
static void linear_dx(const Golf *m, real *dx, Mat dy, int k, int j, int r, int N) {
    TIMED(DX);
    const Tensor *t = m->tensor + k;
    const Packed *w = packed_of(m, k, j, r);
    const size_t K = (size_t)t->cols;
    int first;
    row_range(m, k, r, &first);
    dy = mat_at(dy, 0, (size_t)first);
    if (!back_in_integers(m, t)) gemm_panels(dx, K, dy, &w->back, N, 0);
    else if (dy.h) gemm_16(dx, K, dy, &w->back_codes, N);
    else linear_dx_of_numbers(dx, dy, &w->back_codes, N);
}

/* forward: y = x W^T, so dW += dy^T x */
static Gemm linear_dw(const Golf *m, Mat dy, const Act *x, int k, int j, int r,
                      int N) { /* for gemm_all */
    const Tensor *t = m->tensor + k;
    int first;
    const int rows = row_range(m, k, r, &first), K = t->cols;
    const Mat in = inputs_of(m, x, k);
    real *dw =
        m->grad + t->at + ((size_t)j * (size_t)t->rows + (size_t)first) * (size_t)K;
    return (Gemm){dw, (size_t)K, transposed(mat_at(dy, 0, (size_t)first)), in, rows, K,
                  N,  1,         dy.h && in.q ? &inputs_8 : NULL};
}

/* The gradient through the rounding of inputs: the identity, unless their quantizer says
 * else. */
static void inputs_backward(const Golf *m, const Act *x, real *dx, int k, int N) {
    const Inputs *in = m->inputs[k];
    if (in->backward) in->backward(m, x, dx, N, m->tensor[k].cols, k);
}

/* The same for the copy that phase p uses, with what a system adds to every
 * projection. */
static void project(const Golf *m, real *y, size_t ldy, const Act *x, int k, int p, int r,
                    int N) {
    linear_forward(m, y, ldy, x, k, copy_of(m, m->tensor + k, p), r, N);
    if (m->addition) m->addition->y(m, y, ldy, inputs_of(m, x, k), k, p, r, N);
}

/* forward: y = Q(x) W^T and what a system adds */
static void project_dx(const Golf *m, real *dx, Mat dy, const Act *x, int k, int p, int r,
                       int N) {
    linear_dx(m, dx, dy, k, copy_of(m, m->tensor + k, p), r, N);
    if (m->addition) m->addition->dx(m, dx, dy, k, p, r, N);
    inputs_backward(m, x, dx, k, N);
}

static Gemm project_dw(const Golf *m, Mat dy, const Act *x, int k, int p, int r, int N) {
    return linear_dw(m, dy, x, k, copy_of(m, m->tensor + k, p), r, N);
}

/* ---- Attention: h -> mid, in three stages: qkv_forward (chunk by chunk), attend (all tokens
 * at once), output_forward (chunk by chunk). Q(x) is the quantized input of a projection. */
static int qkv_ranges(const Config *c) { return c->extra_norm == XN_EACH ? 3 : 1; }

/* u = RMSNorm(h) * g_attn;  q,k,v = Wqkv Q(u), or each W Q(RMSNorm(u) * x);  q and k normed
 * per head and rotated. x_q, x_k and x_v are neighbours in the tensor table. */
_Static_assert(T_x_k == T_x_q + 1 && T_x_v == T_x_q + 2, "x_q, x_k, x_v: in this order");
static void qkv_forward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, n = k->n, each = c->extra_norm == XN_EACH;
    PhaseBuffers s = k->s;
    Act *in[] = {&s.in_q, &s.in_k, &s.in_v};
    real *u = scratch((size_t)2 * CHUNK * C), *room = u + (size_t)CHUNK * C;

    rmsnorm_forward(u, s.r_attn, s.h, vec_of(m, T_g_attn, k), n, C);
    for (int r = 0; r < qkv_ranges(c); r++) {
        input_of(m, in[r], T_wqkv, each, s.r_each, u, vec_of(m, T_x_q + r, k), n, C,
                 room);
        project(m, s.qkv, qkv_rows(c), in[r], T_wqkv, k->p, r, n);
    }
    qk_forward(s.qk, s.qkv, qkv_rows(c), vec_of(m, T_q_gain, k), m->rope, m->cached,
               k->n0, n, m->T, c->heads, kv_heads(c), head_dim(c));
}

/* forward: qk = RoPE(RMSNorm per head(W Q(RMSNorm(h) * g_attn))); d(qk) and d(v) wait in m->dqk
 * and m->dqkv */
static void qkv_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, n = k->n, each = c->extra_norm == XN_EACH;
    const PhaseBuffers s = k->s;
    const Flow f = k->f;
    const Act *in[] = {&s.in_q, &s.in_k, &s.in_v};
    real *du = scratch((size_t)3 * CHUNK * C), *u = du + (size_t)CHUNK * C;
    real *dnormed = each ? u + (size_t)CHUNK * C : du;

    qk_backward(f.dqkv, dvec_of(m, T_q_gain, k), f.dqk, s.qkv, qkv_rows(c),
                vec_of(m, T_q_gain, k), m->rope, k->n0, n, m->T, c->heads, kv_heads(c),
                head_dim(c));
    const Mat dqkv = round_gradient(m, T_wqkv, f.dqkv, qkv_rows(c), f.dqkv_h, n);
    if (each) rmsnorm_forward(u, s.r_attn, s.h, vec_of(m, T_g_attn, k), n, C);
    for (int r = 0; r < qkv_ranges(c); r++) {
        project_dx(m, dnormed, dqkv, in[r], T_wqkv, k->p, r, n);
        if (each)
            rmsnorm_backward(du, r > 0, dvec_of(m, T_x_q + r, k), dnormed, u, s.r_each,
                             vec_of(m, T_x_q + r, k), n, C);
    }
    rmsnorm_backward(f.dh, 1, dvec_of(m, T_g_attn, k), du, s.h, s.r_attn,
                     vec_of(m, T_g_attn, k), n, C);
}

/* att = softmax(q k^T / sqrt(D)) v, causal; when sampling, over the keys and values of
 * all tokens so far, to which this call's are appended. */
static void attend(Golf *m, int p, int B, int T) {
    const Config *c = &m->config;
    const int H = c->heads, KV = kv_heads(c), D = head_dim(c);
    const size_t ld = (size_t)(KV * D), old = (size_t)m->cached;
    const PhaseBuffers *s = m->phase + p;
    const real *key = s->qk + H * D, *value = s->qkv + qk_rows(c);
    size_t ldk = qk_rows(c), ldv = qkv_rows(c);
    if (m->kcache) {
        real *keys = m->kcache + (size_t)(p * c->seq) * ld;
        real *values = m->vcache + (size_t)(p * c->seq) * ld;
        for (size_t n = 0; n < (size_t)T; n++) {
            memcpy(keys + (old + n) * ld, key + n * ldk, ld * sizeof(real));
            memcpy(values + (old + n) * ld, value + n * ldv, ld * sizeof(real));
        }
        key = keys;
        value = values;
        ldk = ld;
        ldv = ld;
    }
    attention_forward(s->att, s->lse, s->qk, qk_rows(c), key, ldk, value, ldv, B, T,
                      m->cached + T, H, KV, D);
}

/* forward: att = softmax(q k / sqrt(D)) v */
static void attend_backward(Golf *m, int p, int B, int T) {
    const Config *c = &m->config;
    const int H = c->heads, KV = kv_heads(c), D = head_dim(c);
    const size_t ldqk = qk_rows(c), ldv = qkv_rows(c);
    const PhaseBuffers *s = m->phase + p;
    attention_backward(m->dqk, ldqk, m->dqk + H * D, ldqk, m->dqkv + qk_rows(c), ldv,
                       m->datt, s->lse, s->qk, ldqk, s->qk + H * D, ldqk,
                       s->qkv + qk_rows(c), ldv, B, T, H, KV, D);
}

/* mid = h + gate_attn * Wo Q(RMSNorm(att) * x_attn) */
static void output_forward(Golf *m, const Chunk *k) {
    const int C = m->config.width, n = k->n, norm = m->config.extra_norm >= XN_OUT;
    PhaseBuffers s = k->s;
    real *room = scratch((size_t)CHUNK * C);

    input_of(m, &s.in_o, T_wo, norm, s.r_xo, s.att, vec_of(m, T_x_attn, k), n, C, room);
    project(m, s.o, C, &s.in_o, T_wo, k->p, 0, n);
    gate_forward(s.mid, s.h, s.o, vec_of(m, T_gate_attn, k), n, C);
}

/* forward: mid = h + gate_attn * Wo Q(RMSNorm(att) * x_attn) */
static void output_backward(Golf *m, const Chunk *k) {
    const int C = m->config.width, n = k->n;
    const PhaseBuffers s = k->s;
    const Flow f = k->f;

    gate_backward(f.d_o, dvec_of(m, T_gate_attn, k), f.dh, s.o, vec_of(m, T_gate_attn, k),
                  n, C);
    project_dx(m, f.datt, round_gradient(m, T_wo, f.d_o, C, f.d_o_h, n), &s.in_o, T_wo,
               k->p, 0, n);
    if (m->config.extra_norm)
        rmsnorm_backward(f.datt, 0, dvec_of(m, T_x_attn, k), f.datt, s.att, s.r_xo,
                         vec_of(m, T_x_attn, k), n, C);
}

static int attention_dw(const Golf *m, int p, int N, Gemm *to) {
    const Config *c = &m->config;
    const PhaseBuffers *s = m->phase + p;
    const Act *in[] = {&s->in_q, &s->in_k, &s->in_v};
    const Mat dqkv = gradient_of(m, T_wqkv, m->dqkv, qkv_rows(c), m->dqkv_h);
    int count = 0;
    for (int r = 0; r < qkv_ranges(c); r++)
        to[count++] = project_dw(m, dqkv, in[r], T_wqkv, p, r, N);
    to[count++] = project_dw(m, gradient_of(m, T_wo, m->d_o, c->width, m->d_o_h),
                             &s->in_o, T_wo, p, 0, N);
    return count;
}

static const Sublayer attention = {.before = qkv_forward,
                                   .across = attend,
                                   .after = output_forward,
                                   .after_backward = output_backward,
                                   .across_backward = attend_backward,
                                   .before_backward = qkv_backward,
                                   .dw = attention_dw};

/* ---- MLP: mid -> out.
 * u = RMSNorm(mid) * g_mlp;  f = Wup Q(u), or Wup Q(RMSNorm(u) * x_up);
 * y = Wdown Q(RMSNorm(relu^2(f)) * x_mlp);  out = mid + gate_mlp * y
 * or another activation, of which a gated one has f_gate = Wgate Q(u), too.
 * In pieces that systems use, too. */
static void mlp_output_forward(Golf *m, const Chunk *k) { /* y */
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), n = k->n;
    const int each = c->extra_norm == XN_EACH, norm = c->extra_norm >= XN_OUT;
    const size_t wide = (size_t)CHUNK * (size_t)MAX(C, F);
    real *u = scratch(2 * wide), *room = u + wide;
    PhaseBuffers s = k->s;

    rmsnorm_forward(u, s.r_mlp, s.mid, vec_of(m, T_g_mlp, k), n, C);
    input_of(m, &s.in_up, T_wup, each, s.r_up, u, vec_of(m, T_x_up, k), n, C, room);
    project(m, s.f, F, &s.in_up, T_wup, k->p, 0, n);
    if (is_gated(c)) project(m, s.f_gate, F, &s.in_up, T_wgate, k->p, 0, n);
    m->act->forward(u, s.f, s.f_gate, n, F);
    input_of(m, &s.in_down, T_wdown, norm, s.r_xd, u, vec_of(m, T_x_mlp, k), n, F, room);
    project(m, s.y, C, &s.in_down, T_wdown, k->p, 0, n);
}

static void mlp_forward(Golf *m, const Chunk *k) {
    mlp_output_forward(m, k);
    gate_forward(k->s.out, k->s.mid, k->s.y, vec_of(m, T_gate_mlp, k), k->n,
                 m->config.width);
}

/* From d(y) in f.dy: d(f) in f.df, or as codes alone, and d(u) in du. room: 2 CHUNK rows, each
 * of C or F. */
static void mlp_hidden_backward(Golf *m, const Chunk *k, real *du, real *room) {
    const Config *c = &m->config;
    const int C = c->width, F = hidden_width(c), n = k->n;
    const PhaseBuffers s = k->s;
    Flow f = k->f;

    if (back_in_integers(m, m->tensor + T_wup)) f.df = room + (size_t)CHUNK * MAX(C, F);
    project_dx(m, f.df, round_gradient(m, T_wdown, f.dy, C, f.dy_h, n), &s.in_down,
               T_wdown, k->p, 0, n);
    if (c->extra_norm) {
        m->act->forward(room, s.f, s.f_gate, n, F);
        rmsnorm_backward(f.df, 0, dvec_of(m, T_x_mlp, k), f.df, room, s.r_xd,
                         vec_of(m, T_x_mlp, k), n, F);
    }
    m->act->backward(f.df, f.df_gate, s.f, s.f_gate, n, F);
    project_dx(m, du, round_gradient(m, T_wup, f.df, F, f.df_h, n), &s.in_up, T_wup, k->p,
               0, n);
    if (!is_gated(c)) return;
    project_dx(m, room, round_gradient(m, T_wgate, f.df_gate, F, f.df_gate_h, n),
               &s.in_up, T_wgate, k->p, 0, n);
    FOR_COLUMNS(i, n * C) du[i] += room[i];
}

/* From d(u) in du: through both norms, onto d(mid) in f.dh. */
static void mlp_input_backward(Golf *m, const Chunk *k, real *du, real *room) {
    const int C = m->config.width, n = k->n;
    const PhaseBuffers s = k->s;

    if (m->config.extra_norm == XN_EACH) {
        rmsnorm_forward(room, s.r_mlp, s.mid, vec_of(m, T_g_mlp, k), n, C);
        rmsnorm_backward(du, 0, dvec_of(m, T_x_up, k), du, room, s.r_up,
                         vec_of(m, T_x_up, k), n, C);
    }
    rmsnorm_backward(k->f.dh, 1, dvec_of(m, T_g_mlp, k), du, s.mid, s.r_mlp,
                     vec_of(m, T_g_mlp, k), n, C);
}

/* forward: out = mid + gate_mlp * Wdown Q(RMSNorm(act(Wup Q(RMSNorm(mid) * g_mlp))) * x_mlp) */
static void mlp_backward(Golf *m, const Chunk *k) {
    const Config *c = &m->config;
    const int C = c->width, n = k->n;
    const size_t wide = (size_t)CHUNK * (size_t)MAX(C, hidden_width(c));
    real *du = scratch(3 * wide), *room = du + wide;

    gate_backward(k->f.dy, dvec_of(m, T_gate_mlp, k), k->f.dh, k->s.y,
                  vec_of(m, T_gate_mlp, k), n, C);
    mlp_hidden_backward(m, k, du, room);
    mlp_input_backward(m, k, du, room);
}

static int mlp_dw(const Golf *m, int p, int N, Gemm *to) {
    const PhaseBuffers *s = m->phase + p;
    const int F = hidden_width(&m->config);
    const Mat dy = gradient_of(m, T_wdown, m->dy, m->config.width, m->dy_h);
    const Mat df = gradient_of(m, T_wup, m->df, F, m->df_h);
    to[0] = project_dw(m, dy, &s->in_down, T_wdown, p, 0, N);
    to[1] = project_dw(m, df, &s->in_up, T_wup, p, 0, N);
    if (!is_gated(&m->config)) return 2;
    const Mat dgate = gradient_of(m, T_wgate, m->df_gate, F, m->df_gate_h);
    to[2] = project_dw(m, dgate, &s->in_up, T_wgate, p, 0, N);
    return 3;
}

static const Sublayer mlp = {
    .after = mlp_forward, .after_backward = mlp_backward, .dw = mlp_dw};

/* ---- The block: one phase. */
/* Takes all tokens through these stages, chunk by chunk, on all threads when there is
 * more than one chunk: a chunk stays in the cache from the first stage to the last. NULL
 * stages are none. */
static void each_chunk(Golf *m, int p, int N, Stage *first, Stage *second, Stage *third) {
#pragma omp parallel for schedule(dynamic) if (N > CHUNK)
    for (int n0 = 0; n0 < N; n0 += CHUNK) {
        const Chunk k = chunk_at(m, p, n0, MIN(N - n0, CHUNK));
        if (first) first(m, &k);
        if (second) second(m, &k);
        if (third) third(m, &k);
    }
}

static void inject_forward(Golf *m, const Chunk *k) {
    const int C = m->config.width;
    const real *prev = m->prev[k->p] + (size_t)k->n0 * (size_t)C;
    mix_forward(k->s.h, prev, k->f.x0, vec_of(m, T_mix0, k), vec_of(m, T_mix1, k),
                vec_of(m, T_phase_embed, k), k->n, C);
}

/* forward: h = mix0 * prev + mix1 * x0 + phase_embed */
static void inject_backward(Golf *m, const Chunk *k) {
    const int C = m->config.width;
    const real *prev = m->prev[k->p] + (size_t)k->n0 * (size_t)C;
    mix_backward(k->f.dh, k->f.dx0, dvec_of(m, T_mix0, k), dvec_of(m, T_mix1, k),
                 dvec_of(m, T_phase_embed, k), prev, k->f.x0, vec_of(m, T_mix0, k),
                 vec_of(m, T_mix1, k), k->n, C);
}

/* Phase p: prev (N,C) -> out (N,C), as drawn at the top of this file. */
static void block_forward(Golf *m, int p, int B, int T) {
    const Sublayer *attn = m->attention, *ffn = m->mlp;
    const int N = B * T;
    m->T = T;
    m->p = p;
    /* h = mix0*prev + mix1*x0 + phase_embed;  q,k,v = Wqkv Q(RMSNorm(h) * g_attn) */
    each_chunk(m, p, N, inject_forward, attn->before, NULL);
    /* att = attention(q, k, v) */
    attn->across(m, p, B, T);
    /* mid = h + gate_attn * Wo Q(RMSNorm(att) * x_attn) */
    /* out = mid + gate_mlp * Wdown (RMSNorm(relu^2(Wup (RMSNorm(mid) * g_mlp))) *
     * x_mlp) */
    if (!ffn->across) {
        each_chunk(m, p, N, attn->after, ffn->before, ffn->after);
        return;
    }
    each_chunk(m, p, N, attn->after, ffn->before, NULL);
    ffn->across(m, p, B, T); /* an MLP in which tokens meet: a system's */
    each_chunk(m, p, N, ffn->after, NULL, NULL);
}

/* The same lines in reverse: m->dh is d(out) on entry and d(prev) on return; dx0
 * accumulates. */
static void block_backward(Golf *m, int p, int B, int T) {
    const Sublayer *attn = m->attention, *ffn = m->mlp;
    const int N = B * T;
    Gemm dw[MOST_DW];
    m->T = T;
    m->p = p;
    if (ffn->across_backward) {
        each_chunk(m, p, N, ffn->after_backward, NULL, NULL);
        ffn->across_backward(m, p, B, T);
        each_chunk(m, p, N, ffn->before_backward, attn->after_backward, NULL);
    } else {
        each_chunk(m, p, N, ffn->after_backward, ffn->before_backward,
                   attn->after_backward);
    }
    attn->across_backward(m, p, B, T);
    each_chunk(m, p, N, attn->before_backward, inject_backward, NULL);

    TIMED(DW);
    int count = attn->dw(m, p, N, dw);
    count += ffn->dw(m, p, N, dw + count);
    gemm_all(dw, count); /* dW += dy^T x of all projections in one parallel loop */
    if (!m->addition) return;
    for (int i = 0; i < count; i++) m->addition->dw(m, dw + i, p);
}

/* ---- The head, tied to the embedding: hn = RMSNorm(last), logits = hn E^T, loss and, to
 * `learn`, its backward on the spot: HEAD tokens at a time, so that logits and their
 * gradients need not leave the cache and never exist for all tokens (at V = 4096 codes of
 * gradients are 8.5 MB, numbers with --bwd=fp32 twice as much).
 * Leaves d(last) in m->dh, and adds to dE. */
/* l (n,V) = z E^T, of the tokens of f. */
static void logits_forward(const Golf *m, real *l, const Flow *f, int n) {
    const int V = m->config.vocab, E = m->tensor[T_embed].cols;
    if (!head_in_integers(m)) {
        gemm_panels(l, V, mat(f->z, E), &m->head, n, 0);
        return;
    }
    round_rows(f->z_h.h, f->z_h.step, f->z, E, n, E, TOP16);
    gemm_16(l, V, mat_h(f->z_h.h, f->z_h.step, E), &m->head_codes, n);
}

/* The place for codes of dl for dE, of a chunk of tokens from `row` on. */
static Rounded dlogits_at(const Golf *m, int row) {
    const size_t V = (size_t)m->config.vocab;
    return (Rounded){m->dlogits_h.h + row * V, m->dlogits_h.step + row / STEP_ROWS * V};
}

/* forward: l = z E^T, loss = softmax and cross-entropy of l. dz (n,E) = dl E, in codes, of
 * tokens whose gradients dl wait for logits_dw from `row` on. */
static void head_chunk_codes(const Golf *m, real *dz, const Flow *f, const int *targets,
                             int row, int n, real dloss) {
    const int V = m->config.vocab, E = m->tensor[T_embed].cols;
    const size_t room = (size_t)HEAD_CHUNK * V;
    real *target_dl = m->target_dl + row, *l = scratch(2 * room), step[HEAD_CHUNK];
    const Rounded dl = {(int16_t *)(l + room), step};

    logits_forward(m, l, f, n);
    loss_codes(dlogits_at(m, row), dl, target_dl, f->lse, f->loss, l, m->head_factor,
               targets, dloss, n, V);
    gemm_16(dz, E, mat_h(dl.h, dl.step, V), &m->head_back_codes, n);
    FOR_ROWS(i, n, E) {
        const real *e = m->eff + m->tensor[T_embed].at + (size_t)targets[i] * E;
        FOR_COLUMNS(k, E) dz[at + k] -= target_dl[i] * e[k];
    }
}

/* The same in numbers, or with the loss of a system. */
static void head_chunk_numbers(const Golf *m, real *dz, const Flow *f, const int *targets,
                               int at, int row, int n, real dloss) {
    const int V = m->config.vocab, E = m->tensor[T_embed].cols;
    real *l = m->logits + (size_t)row * V;

    logits_forward(m, l, f, n);
    loss_forward(l, f->lse, f->loss, targets, n, V);
    if (m->loss_of) m->loss_of->loss(m, l, f, targets, at, row, n, dloss);
    else loss_backward(l, f->lse, targets, dloss, n, V);
    if (head_back_in_integers(m)) {
        real step[HEAD_CHUNK];
        const Rounded dl = {(int16_t *)scratch((size_t)HEAD_CHUNK * V), step};
        logit_codes(dlogits_at(m, row), dl, l, m->head_factor, n, V);
        gemm_16(dz, E, mat_h(dl.h, dl.step, V), &m->head_back_codes, n);
        memset(m->target_dl + row, 0, n * sizeof(real));
    } else {
        gemm_panels(dz, E, mat(l, V), &m->head_back, n, 0);
    }
}

/* dE += dl^T z, of the `n` tokens from `at` on. */
static void logits_dw(Golf *m, const int *targets, int at, int n) {
    const int V = m->config.vocab, E = m->tensor[T_embed].cols;
    const Flow f = flow_at(m, (size_t)at);
    real *dE = m->grad + m->tensor[T_embed].at;

    if (!head_back_in_integers(m)) {
        gemm(dE, E, mat_t(m->logits, V), mat(f.z, E), V, E, n, 1);
        return;
    }
    const Mat dl = {.h = m->dlogits_h.h, .steps = m->dlogits_h.step, .ld = V};
    const Mat z = mat_h(f.z_h.h, f.z_h.step, E);
    gemm_all(&(Gemm){dE, E, transposed(dl), z, V, E, n, 1, &head_16}, 1);
    for (int i = 0; i < n; i++) m->target_dl[i] = -m->target_dl[i];
    embed_backward(dE, f.z, m->target_dl, targets + at, n, E);
}

/* Tokens from `at` on, their logits from `row` on. */
static void head_chunk(Golf *m, const int *targets, int at, int row, int n, int learn,
                       real dloss) {
    const int C = m->config.width, V = m->config.vocab;
    const Flow f = flow_at(m, (size_t)at);
    const real *last = m->prev[m->phases] + (size_t)at * (size_t)C;
    const int *y = targets ? targets + at : NULL;

    rmsnorm_forward(f.hn, f.r_out, last, m->ones, n, C);
    if (m->adapter) m->adapter->narrow(m, f.z, f.hn, n);
    if (!learn) {
        real *l = m->logits + (size_t)row * V;
        logits_forward(m, l, &f, n);
        loss_forward(l, f.lse, f.loss, y, n, V);
        return;
    }

    real *dhn = f.dy, *dz = m->adapter ? f.dz : dhn;
    if (head_back_in_integers(m) && !m->loss_of)
        head_chunk_codes(m, dz, &f, y, row, n, dloss);
    else head_chunk_numbers(m, dz, &f, y, at, row, n, dloss);
    if (m->adapter) m->adapter->narrow_backward(m, dhn, dz, n);
    rmsnorm_backward(f.dh, 0, NULL, dhn, last, f.r_out, m->ones, n, C);
}

static void head(Golf *m, const int *targets, int N, int learn) {
    TIMED(HEAD_MATMUL);
    for (int h0 = 0; h0 < N; h0 += HEAD) {
        const int part = MIN(N - h0, HEAD);
#pragma omp parallel for schedule(dynamic) if (part > HEAD_CHUNK)
        for (int n0 = 0; n0 < part; n0 += HEAD_CHUNK)
            head_chunk(m, targets, h0 + n0, n0, MIN(part - n0, HEAD_CHUNK), learn,
                       1 / (real)N);
        if (!learn) continue;
        logits_dw(m, targets, h0, part);
        if (m->adapter) m->adapter->narrow_dw(m, h0, part);
    }
}

/* ---- The whole model. */
static void embed_chunk(Golf *m, const int *tokens, int n0, int n) {
    const int C = m->config.width, E = m->tensor[T_embed].cols;
    const Flow f = flow_at(m, (size_t)n0);
    embed_forward(f.e, m->eff + m->tensor[T_embed].at, tokens + n0, n, E);
    if (m->adapter) m->adapter->widen(m, f.x, f.e, n);
    rmsnorm_forward(f.x0, f.r_e, f.x, m->ones, n, C);
}

/* All but the head: x0 = RMSNorm(E[token]), then phase after phase. Leaves the last
 * stream in m->prev[m->phases]. */
static void body(Golf *m, const int *tokens, int B, int T) {
    const int N = B * T;
    if ((size_t)N > m->N) die("%d tokens in buffers made for %zu", N, m->N);
#pragma omp parallel for schedule(dynamic) if (N > CHUNK)
    for (int n0 = 0; n0 < N; n0 += CHUNK) embed_chunk(m, tokens, n0, MIN(N - n0, CHUNK));
    const real *stream = m->x0;
    for (int i = 0; i < m->n_visits; i++) {
        const int p = m->visits[i];
        m->prev[p] = stream;
        EACH_SYSTEM(s, m) {
            if ((*s)->enter) (*s)->enter(m, p, N);
        }
        block_forward(m, p, B, T);
        stream = m->phase[p].out;
    }
    m->prev[m->phases] = stream;
    if (m->kcache) m->cached += T;
}

double golf_forward(Golf *m, const int *tokens, const int *targets, int B, int T) {
    const int N = B * T, learn = m->train && targets;
    double sum = 0;
    body(m, tokens, B, T);
    if (learn) {
        FOR_RANGE(i, 0, m->n_params) m->grad[i] = 0;
        EACH_SYSTEM(s, m) {
            if ((*s)->forward) sum += N * (*s)->forward(m, tokens, B, T);
        }
    }
    EACH_SYSTEM(s, m) {
        if ((*s)->before_head) sum += N * (*s)->before_head(m, targets, N, learn);
    }
    head(m, targets, N, learn);
    if (!targets) return 0;
    for (int n = 0; n < N; n++) sum += (double)m->loss[n];
    return sum / N;
}

/* forward: x0 = RMSNorm(x), prev of the first phase. d(x0) is what is left in dh behind that
 * phase, and in dx0 from all phases' mix1; then through RMSNorm, to d(x) in dy. */
static void embed_chunk_backward(Golf *m, int n0, int n) {
    const int C = m->config.width;
    const Flow f = flow_at(m, (size_t)n0);
    gate_forward(f.dx0, f.dx0, f.dh, m->ones, n, C);
    rmsnorm_backward(f.dy, 0, NULL, f.dx0, f.x, f.r_e, m->ones, n, C);
}

void golf_backward(Golf *m, const int *tokens, int B, int T) {
    const int N = B * T, C = m->config.width;
    const Tensor *embed = m->tensor + T_embed;
    memset(m->dinterface, 0, m->phases * m->n_interface * sizeof(real));
    FOR_RANGE(i, 0, (size_t)N * (size_t)C) m->dx0[i] = 0;
    for (int i = m->n_visits - 1; i >= m->learn_from; i--) {
        const int p = m->visits[i];
        /* with recompute the buffers that phases share hold the last one */
        if (m->config.recompute && i < m->n_visits - 1) block_forward(m, p, B, T);
        EACH_SYSTEM(s, m) {
            if ((*s)->leave_backward) (*s)->leave_backward(m, p, N);
        }
        block_backward(m, p, B, T);
        EACH_SYSTEM(s, m) {
            if ((*s)->enter_backward) (*s)->enter_backward(m, p, N);
        }
        add_chunks(m, p);
    }
    if (m->learn_from)
        memset(m->dh, 0, (size_t)N * (size_t)C * sizeof(real)); /* no gradient goes on */
#pragma omp parallel for schedule(dynamic) if (N > CHUNK)
    for (int n0 = 0; n0 < N; n0 += CHUNK) embed_chunk_backward(m, n0, MIN(N - n0, CHUNK));
    if (m->adapter) m->adapter->widen_backward(m, N); /* else m->de is m->dy */
    embed_backward(m->grad + embed->at, m->de, NULL, tokens, N, embed->cols);
    EACH_TENSOR(t, m) {
        if (t->role == INTERFACE) fold_interface(m, t);
    }
    EACH_SYSTEM(s, m) {
        if ((*s)->fold) (*s)->fold(m);
    }
    masters_backward(m, m->grad);
}

/* ==== 6. Optimizers: AdamW (1711.05101), Muon, schedules, clipping ================== */
/* linear: warm-up, constant, then linear to 0. two_stage (BitNet b1.58 FAQ): both halves
 * aim at 0 at the end, the second from 2/3 of the rate, and only the first half decays
 * weights. */
double lr_factor(const Config *c, int step) {
    const double done = (double)step / c->steps, up = c->warmup * c->steps;
    const double f = step + 1 < up ? (step + 1) / up : 1;
    if (c->schedule == SCHED_TWO_STAGE)
        return f * (1 - done) * (done < 0.5 ? 1 : 2.0 / 3);
    return 1 - done < c->warmdown ? f * ((1 - done) / c->warmdown) : f;
}

double wd_at(const Config *c, int step) {
    return c->schedule == SCHED_TWO_STAGE && 2.0 * step >= c->steps ? 0 : c->wd;
}

double golf_grad_norm(const Golf *m) {
    TIMED(OPTIMIZER);
    return sqrt(block_sum(m->grad, m->n_params, 1));
}

/* Does Muon train it, if anything does? */
static int is_for_muon(const Config *c, const Tensor *t) {
    return t->role == PROJ && c->optimizer == OPT_MUON && !(t->own_rate > 0);
}

/* AdamW's epsilon damps numbers whose gradient is next to nothing: 1e-8 of what the whole
 * gradient may be, which is 1, or a smaller --clip. So a run with another limit is the
 * same run in other units. A fixed 1e-8 would stop training at a limit of 1e-6, and one
 * near 0 would drive numbers whose gradient is all rounding (a gain before a norm, the
 * row of a token that never occurs) at the full rate. Given up: without clipping,
 * gradients that are all below 1e-8 are damped, as in the paper. At the least limit, 1e-9,
 * its square is still a float with all its digits.
 *
 * The embedding may have a larger one. The softmax pushes every row in every step, rare ones by
 * next to nothing, and AdamW makes full steps of that; with 3e-5, as in preset recursive, a row
 * moves when its token is there to be predicted, and else nearly stands still. */
#define ADAMW_EPSILON 1e-8

static double adamw_epsilon(const Config *c, double epsilon) {
    return epsilon * (c->clip > 0 ? fmin(c->clip, 1) : 1);
}

/* moment1 and moment2 average the gradient and its square; w -= lr * m1 / (sqrt(m2) +
 * epsilon), both divided by what they sum to so far. */
void golf_adamw(Golf *m, int step, double grad_scale) {
    TIMED(OPTIMIZER);
    const Config *c = &m->config;
    const real b1 = (real)c->beta1, b2 = (real)c->beta2, gs = (real)grad_scale;
    const real c1 = (real)(1 / (1 - pow_of(c->beta1, step + 1)));
    const real c2 = (real)(1 / (1 - pow_of(c->beta2, step + 1)));
    const double peak_of_role[] = {[EMBED] = c->lr_embed,
                                   [PROJ] = c->lr,
                                   [FACTOR] = c->lr,
                                   [INTERFACE] = c->lr_interface};

    EACH_TENSOR(t, m) {
        if (!is_stored(t) || is_for_muon(c, t)) continue;
        const double peak = t->own_rate > 0 ? t->own_rate : peak_of_role[t->role];
        const double rate = peak * lr_factor(c, step);
        const real keep = (real)(t->role == PROJ ? 1 - rate * wd_at(c, step) : 1);
        const double damping = t->role == EMBED ? c->eps_embed : ADAMW_EPSILON;
        const real lr = (real)rate, epsilon = (real)adamw_epsilon(c, damping);
        FOR_RANGE(i, t->at, t->n) {
            const real g = m->grad[i] * gs;
            m->moment1[i] = b1 * m->moment1[i] + (1 - b1) * g;
            m->moment2[i] = b2 * m->moment2[i] + (1 - b2) * g * g;
            m->master[i] = keep * m->master[i] -
                           lr * m->moment1[i] * c1 / (sqrt(m->moment2[i] * c2) + epsilon);
        }
    }
}

/* x (n) to a length of 1, however small or large it is: the squares of floats are no
 * floats, but doubles. Zeros stay. */
static void normalise(real *x, size_t n) {
    const double squares = sum_of_sizes(x, n, 1);
    const double inverse = squares > 0 ? 1 / sqrt(squares) : 0;
    FOR_RANGE(i, 0, n) x[i] = (real)((double)x[i] * inverse);
}

/* Muon (K. Jordan, 2024): W -= lr * sqrt(max(1, rows/cols)) * O, where O is close to the
 * orthogonal matrix nearest to the momentum U: all singular values become about 1. X is
 * the tall one of U and its transpose; five times X <- a X + X (b A + c A^2) with A =
 * X^T X, which acts on singular values alone, from U/|U|. Those above 0.003 end between
 * 0.68 and 1.21: not exactly 1, hence products of 12 bits with one step for a matrix. */
typedef struct {
    real *x, *y;   /* (rows,k) */
    real *a, *b;   /* (k,k) */
    int16_t *h[2]; /* (rows,k), (k,k) codes */
    int rows, k, in_codes;
} Orthogonal;

/* Of U (rows,cols), in memory of this thread. */
static Orthogonal orthogonal_new(int rows, int cols, int in_codes) {
    const size_t tall = (size_t)MAX(rows, cols), k = (size_t)MIN(rows, cols);
    const size_t n = tall * k, square = k * k;
    real *room = scratch(3 * n + 3 * square);
    return (Orthogonal){.x = room,
                        .y = room + n,
                        .a = room + 2 * n,
                        .b = room + 2 * n + square,
                        .h = {(int16_t *)(room + 2 * n + 2 * square),
                              (int16_t *)(room + 3 * n + 2 * square)},
                        .rows = (int)tall,
                        .k = (int)k,
                        .in_codes = in_codes};
}

/* x (rows,k) as an operand, codes in buffer `which`: round_rows with one row, on all threads. */
static Mat orthogonal_operand(const Orthogonal *o, const real *x, int rows, int which) {
    enum { BLOCKS = 64 };
    if (!o->in_codes) return mat(x, (size_t)o->k);
    TIMED(QUANT);
    const int n = rows * o->k, block = CEIL(n, BLOCKS * LANES) * LANES;
    int16_t *h = o->h[which];
    real most[BLOCKS] = {0}, inverse;

    PARALLEL(n)
    for (int at = 0; at < n; at += block)
        most[at / block] = absmax_or_nan(x + at, MIN(n - at, block));
    const real step = round_step(absmax_or_nan(most, BLOCKS), plain_12.a, &inverse);
    PARALLEL(n)
    for (int at = 0; at < n; at += block)
        round_by(h + at, x + at, MIN(n - at, block), inverse);
    return (Mat){.h = h, .step = step, .ld = (size_t)o->k};
}

/* to (m,k) = or += (acc) a b, n terms */
static void orthogonal_product(const Orthogonal *o, real *to, Mat a, Mat b, int m, int n,
                               int acc) {
    const Gemm g = {
        to, (size_t)o->k, a, b, m, o->k, n, acc, o->in_codes ? &plain_12 : NULL};
    gemm_all(&g, 1);
}

/* o->x becomes O. */
static void orthogonal(Orthogonal *o) {
    TIMED(MUON);
    const int k = o->k, rows = o->rows;
    const size_t n = (size_t)rows * (size_t)k;
    normalise(o->x, n);
    for (int round = 0; round < 5; round++) {
        const Mat x = orthogonal_operand(o, o->x, rows, 0);
        orthogonal_product(o, o->a, transposed(x), x, k, rows, 0);
        const Mat a = orthogonal_operand(o, o->a, k, 1); /* symmetric */
        orthogonal_product(o, o->b, transposed(a), a, k, k, 0);
        PARALLEL((double)k * k)
        for (int i = 0; i < k * k; i++)
            o->b[i] = (real)-4.7750 * o->a[i] + (real)2.0315 * o->b[i];

        FOR_RANGE(i, 0, n) o->y[i] = (real)3.4445 * o->x[i];
        const Mat b = orthogonal_operand(o, o->b, k, 1);
        orthogonal_product(o, o->y, x, b, rows, k, 1);
        real *swap = o->x;
        o->x = o->y;
        o->y = swap;
    }
}

/* Rows first, ... of a copy of a projection that starts at `at`: all, or those of q, k or
 * v. */
static void muon_rows(Golf *m, const Tensor *t, size_t at, int first, int rows,
                      double rate, double keep, real grad_scale) {
    const int cols = t->cols, tall = rows >= cols;
    const real mu = (real)m->momentum;
    const real lr = (real)(rate * sqrt(fmax(1, (double)rows / cols)));
    const size_t from = at + (size_t)first * (size_t)cols;
    const real *grad = m->grad + from;
    real *moment = m->moment1 + from, *w = m->master + from;
    Orthogonal o = orthogonal_new(rows, cols, m->config.bwd == BWD_INT16);

    PARALLEL((double)rows * cols) /* Nesterov's momentum, as an average */
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            const size_t n = (size_t)i * (size_t)cols + (size_t)j;
            const real g = grad[n] * grad_scale;
            moment[n] = mu * moment[n] + (1 - mu) * g;
            o.x[tall ? n : (size_t)j * (size_t)rows + (size_t)i] =
                mu * moment[n] + (1 - mu) * g;
        }
    orthogonal(&o);
    PARALLEL((double)rows * cols)
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            const size_t n = (size_t)i * (size_t)cols + (size_t)j;
            const real step = o.x[tall ? n : (size_t)j * (size_t)rows + (size_t)i];
            w[n] = (real)keep * w[n] - lr * step;
        }
}

static void muon_matrix(Golf *m, const Tensor *t, int copy, double rate, double keep,
                        real grad_scale) {
    const int parts = t->muon_parts ? t->muon_parts : 1;
    const int start[] = {0, parts > 1 ? m->config.width : t->rows, qk_rows(&m->config),
                         t->rows};
    for (int part = 0; part < parts; part++)
        muon_rows(m, t, t->at + (size_t)copy * t->copy_n, start[part],
                  start[part + 1] - start[part], rate, keep, grad_scale);
}

/* Would a thread per matrix leave others idle, because one is more than a thread's share? Small
 * matrices do not pay for waking all threads for each of their products. */
static int muon_one_by_one(const Golf *m) {
    double largest = 0, all = 0;
    EACH_TENSOR(t, m) {
        if (!is_for_muon(&m->config, t)) continue;
        largest = fmax(largest, (double)t->copy_n);
        all += (double)t->n;
    }
    return largest >= LARGE && largest * omp_get_max_threads() > all;
}

void golf_muon(Golf *m, int step, double grad_scale) {
    TIMED(OPTIMIZER);
    const Config *c = &m->config;
    const double rate = c->lr_muon * lr_factor(c, step), keep = 1 - rate * wd_at(c, step);
    const int matrices = N_TENSORS * m->copies, side_by_side = !muon_one_by_one(m);
    (void)side_by_side; /* without OpenMP */
    /* The last, which are large, first: else one of them may be all that is left to do. */
#pragma omp parallel for schedule(dynamic) if (side_by_side)
    for (int n = 0; n < matrices; n++) {
        const int i = matrices - 1 - n;
        const Tensor *t = m->tensor + i / m->copies;
        const int copy = i % m->copies;
        if (!is_for_muon(c, t) || !t->n || copy >= t->stored_copies) continue;
        if (ranks_own(m, t, copy)) muon_matrix(m, t, copy, rate, keep, (real)grad_scale);
    }
    ranks_share(m);
}

/* ==== 7. Tokenizer and data ========================================================= */
/* Text to tokens and back, shards of tokens, the order of training: nothing of the model. */
#include "data/tokenizer.h" /* any SentencePiece .model */

/* ----------------------------------------------------------------------------- shards */
/* The length of what stands before the digits of NAME_SPLIT_digits.bin, or before .bin in
 * NAME_SPLIT.bin, as llm.c has it; 0 when a file is called otherwise. */
static int shard_prefix(const char *file, const char *split) {
    int end = (int)strlen(file) - 4;
    if (end < 0 || strcmp(file + end, ".bin")) return 0;
    while (end > 0 && isdigit((unsigned char)file[end - 1])) end--;

    const int numbered = file[end] != '.';
    const int from = end - numbered - (int)strlen(split); /* where SPLIT would stand */
    if (from < 1 || file[from - 1] != '_') return 0;
    if (strncmp(file + from, split, strlen(split))) return 0;
    return !numbered || file[end - 1] == '_' ? end : 0;
}

/* There may be hundreds of shards, and a system that lets a program open 256 files: the last
 * few that were read are open. */
enum { MOST_OPEN = 16 };
static Shard *open_shards[MOST_OPEN];

static void close_shard(Shard *x) {
    for (int i = 0; i < MOST_OPEN; i++) {
        if (open_shards[i] == x) open_shards[i] = NULL;
    }
    if (x->fd >= 0) close(x->fd);
    x->fd = -1;
}

static void open_again(Shard *x) {
    static int next;
    Shard **place = &open_shards[next % MOST_OPEN];
    next++;
    if (*place) close_shard(*place);
    x->fd = open(x->path, O_RDONLY);
    if (x->fd < 0) die("%s: cannot open: %s", x->path, strerror(errno));
    *place = x;
}

/* to (n) = the bytes of a shard's file at a position, however many come at a time. Returns 0
 * when they cannot be read; errno is 0 where the file ends. */
static int read_at(const Shard *x, uint8_t *to, size_t n, int64_t at) {
    while (n > 0) {
        errno = 0;
        const ssize_t got = pread(x->fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        to += got;
        at += got;
        n -= (size_t)got;
    }
    return 1;
}

/* x: the shard in file path, whose tokens follow `first` others. */
static void open_shard(Shard *x, const char *path, int64_t first) {
    uint8_t head[12] = {0};
    x->path = strcpy(xcalloc(strlen(path) + 1, 1), path);
    x->first = first;
    open_again(x);
    const int64_t size = lseek(x->fd, 0, SEEK_END);
    if (size < 0 || (!read_at(x, head, sizeof head, 0) && errno))
        die("%s: cannot read: %s", path, strerror(errno));

    if (get_u(head, 4) == LLAMA3_MAGIC)
        die("%s: expected a shard of 16-bit tokens (magic %d, version 1), found one of 32 "
            "bits (magic %d, version %d, as llm.c writes for Llama 3); make it again with "
            "a tokenizer of at most 65,536 pieces",
            path, SHARD_MAGIC, LLAMA3_MAGIC, (int)get_u(head + 4, 4));
    x->tokens = (int64_t)get_u(head + 8, 4);
    const int64_t expected = SHARD_HEADER + 2 * x->tokens;
    if (get_u(head, 4) != SHARD_MAGIC || get_u(head + 4, 4) != 1 || size != expected)
        die("%s: expected a token shard (magic %d, version 1) of %lld bytes, found %lld; "
            "make it again: data/get.sh",
            path, SHARD_MAGIC, (long long)expected, (long long)size);
}

/* The files of a split, none of them if there are none. */
static Shards *open_split_files(const char *dir, const char *split, int vocab) {
    struct dirent **names; /* (n) in alphabetical order */
    const int n = scandir(dir, &names, NULL, alphasort);
    if (n < 0)
        die("%s: cannot open the data folder: %s; run data/get.sh", dir, strerror(errno));

    Shards *s = xcalloc(1, sizeof *s);
    s->vocab = vocab;
    s->shard = xcalloc((size_t)n, sizeof *s->shard);
    const char *first = NULL;
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        const int prefix = shard_prefix(name, split);
        if (!prefix) continue;
        if (!first) first = name;
        if (prefix != shard_prefix(first, split) || strncmp(name, first, (size_t)prefix))
            die("%s: expected the shards of one text, found %s and %s; keep them in "
                "folders of their own",
                dir, first, name);
        open_shard(&s->shard[s->count], path_of(dir, name), s->tokens);
        s->tokens += s->shard[s->count].tokens;
        s->count++;
    }
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    return s;
}

void shards_close(Shards *s) {
    for (int i = 0; i < s->count; i++) close_shard(&s->shard[i]);
    if (s->bytes) shards_close(s->bytes);
}

Shards *shards_open(const char *dir, const char *split, int vocab) {
    char bytes[64];
    Shards *s = open_split_files(dir, split, vocab);
    if (!s->count)
        die("%s: expected shards NAME_%s_000000.bin or NAME_%s.bin, found none; run "
            "data/get.sh",
            dir, split, split);

    snprintf(bytes, sizeof bytes, "%s_bytes", split);
    s->bytes = open_split_files(dir, bytes, 1 << 16);
    if (!s->bytes->count) s->bytes = NULL;
    if (s->bytes && s->bytes->tokens != s->tokens)
        die("%s: expected the bytes of each of %lld tokens, found those of %lld; fetch "
            "all files NAME_%s_*.bin again",
            s->bytes->shard[0].path, (long long)s->tokens, (long long)s->bytes->tokens,
            bytes);
    return s;
}

/* out (n) = tokens [at, at + n) of a shard, 16 bits each in the file. */
static void read_shard(Shard *x, int64_t at, int n, int vocab, int *out) {
    uint8_t *raw = (uint8_t *)(out + n) - 2 * n; /* upper half of out: read in place */
    if (x->fd < 0) open_again(x);
    if (!read_at(x, raw, 2 * (size_t)n, SHARD_HEADER + 2 * at))
        die("%s: cannot read %d tokens at %lld: %s", x->path, n, (long long)at,
            read_error());
    for (int k = 0; k < n; k++) {
        out[k] = (int)get_u(raw + 2 * k, 2);
        if (out[k] >= vocab)
            die("%s: expected ids below the vocabulary of %d, found %d at position %lld; "
                "give another tokenizer",
                x->path, vocab, out[k], (long long)(at + k));
    }
}

void shards_read(const Shards *s, int64_t pos, int count, int *out) {
    if (pos < 0 || count < 0 || pos > s->tokens - count)
        die("%s: expected positions within %lld tokens, found %lld + %d",
            s->shard[0].path, (long long)s->tokens, (long long)pos, count);

    Shard *x = s->shard;
    while (count > 0) {
        const int64_t at = pos - x->first, left = x->tokens - at;
        if (left > 0) {
            const int n = count < left ? count : (int)left;
            read_shard(x, at, n, s->vocab, out);
            out += n;
            pos += n;
            count -= n;
        }
        x++;
    }
}

/* ---------------------------------------------------------------------- bytes of text */
/* bpb divides by bytes of text, which the tokenizer's table gives token by token: the
 * previous one and this. Whether they are those of the text shows when it is spelled out,
 * from the pieces' own characters: a space is one byte of it, however U+2581 is written;
 * the first of a document does not count, as in Parameter Golf. */
typedef struct {
    const Tokenizer *t;
    uint32_t last;                /* three bytes */
    int64_t since;                /* bytes since the last boundary */
    int before;                   /* the token before, -1 at the start */
    int64_t counted, spelled;     /* bytes: of the table, of the text */
    int64_t wrong, unknown;       /* tokens of which both differ; unknown pieces */
    int64_t inner_spaces, shifts; /* spaces inside pieces; marks of upper case */
} TextBytes;

/* One more byte: what it adds to the text. The third one of U+2581 makes two of them go,
 * or all. A space that the tokenizer put in front is no text, however it is written. */
static int spell_byte(TextBytes *b, uint8_t byte) {
    const int in_front = b->t->dummy_space && !b->t->suffix && !b->t->escapes;
    b->last = (b->last << 8 | byte) & 0xFFFFFF;
    b->since++;
    if (in_front && b->since == 1 && byte == ' ') return 0;
    if (b->last != 0xE29681) return 1;
    return b->since == 3 ? -2 : -1;
}

/* A document ends: so does its text, before a space that the tokenizer put behind it. */
static int spell_end(TextBytes *b) {
    const int space = b->last == 0xE29681 || (!b->t->escapes && (b->last & 255) == ' ');
    const int behind = b->t->dummy_space && b->t->suffix && space;
    b->since = 0;
    b->last = 0;
    return -behind;
}

static int spell_token(TextBytes *b, int id) {
    const Piece *x = &b->t->piece[id];
    int sum = 0;
    if (x->type == PIECE_CONTROL || x->type == PIECE_UNKNOWN) {
        sum = spell_end(b);
    } else if (x->type != PIECE_BYTE) {
        for (int i = 0; i < x->len; i++) sum += spell_byte(b, x->text[i]);
    } else {
        if (!b->t->escapes) b->last = 0; /* three bytes that spell U+2581 are no space */
        sum = spell_byte(b, (uint8_t)byte_of_piece(x));
    }
    return sum;
}

/* Tokenizers that keep case apart mark it with characters of private use. */
static int is_shift(const Piece *x) {
    return x->type == PIECE_USER && x->len == 3 && x->text[0] == 0xEE;
}

static void count_token(TextBytes *b, int id) {
    const Piece *x = &b->t->piece[id];
    const int before = b->before, spelled = spell_token(b, id);
    b->before = id;
    b->unknown += x->type == PIECE_UNKNOWN;
    b->shifts += is_shift(x);
    b->inner_spaces += x->inner_spaces;
    if (before < 0) return;

    const int counted = tokenizer_bytes(b->t, before, id);
    b->counted += counted;
    b->spelled += spelled;
    b->wrong += counted != spelled;
}

static void refuse_unknown(const TextBytes *b, const char *path) {
    if (b->unknown)
        die("%s: expected tokens that stand for all of the text, found %lld unknown "
            "pieces: what they stand for is lost, and a score would leave it out; use "
            "shards of a tokenizer with byte pieces (byte_fallback), not of %s",
            path, (long long)b->unknown, b->t->path);
}

static void refuse_wrong_table(TextBytes *b, const char *path) {
    const int behind = spell_end(b);
    b->spelled += behind;
    b->wrong += behind != 0;
    if (b->wrong)
        die("%s: expected the table of bytes per token to count the text, found %lld "
            "bytes counted for %lld (in %lld tokens): %s spells spaces as bytes, has "
            "unused pieces or counts a space that it adds to each text, and bits per byte "
            "would be wrong; use a tokenizer with U+2581 as a piece",
            path, (long long)b->counted, (long long)b->spelled, (long long)b->wrong,
            b->t->path);
    if (b->inner_spaces)
        fprintf(stderr,
                "note: %s: %lld spaces inside pieces count one byte each; in Parameter "
                "Golf's table they are three\n",
                path, (long long)b->inner_spaces);
}

/* Files of bytes cannot be proved, but a wrong one shows. */
static void check_given_bytes(const TextBytes *b, int64_t given, int64_t bad,
                              const char *path) {
    const int64_t text = b->spelled;
    if (bad || given < text / 2 || given > 2 * text)
        die("%s: expected the bytes of the text that each token stands for, none for "
            "control pieces, about %lld in all, found %lld, and some for %lld control "
            "pieces; fetch it again, or remove it if the tokenizer's own count is right",
            path, (long long)text, (long long)given, (long long)bad);
    fprintf(stderr, "note: bytes of text are those of %s: %lld, by the pieces %lld\n",
            path, (long long)given, (long long)text);
}

void check_text_bytes(const Tokenizer *t, const Shards *val) {
    enum { BLOCK = 1 << 16 };
    TextBytes b = {.t = t, .before = -1};
    int *id = xcalloc(2 * BLOCK, sizeof *id), *bytes = id + BLOCK;
    int64_t given = 0, bad = 0; /* bytes of the files; control pieces that have some */
    for (int64_t at = 0; at < val->tokens; at += BLOCK) {
        const int n = (int)MIN(BLOCK, val->tokens - at);
        shards_read(val, at, n, id);
        if (val->bytes) shards_read(val->bytes, at, n, bytes);
        for (int i = 0; i < n; i++) {
            count_token(&b, id[i]);
            given += bytes[i];
            bad += bytes[i] && t->piece[id[i]].type == PIECE_CONTROL;
        }
    }
    free(id);

    const char *path = val->shard[0].path;
    refuse_unknown(&b, path);
    if (val->bytes) {
        check_given_bytes(&b, given, bad, val->bytes->shard[0].path);
        return;
    }
    if (b.shifts)
        die("%s: found %lld marks of upper case, which are no text, and no bytes of the "
            "tokens; fetch NAME_val_bytes_*.bin, which belong to it",
            path, (long long)b.shifts);
    refuse_wrong_table(&b, path);
}

/* The bytes that files give for tokens [1, n]. */
static int64_t given_bytes(const Shards *bytes, int64_t n) {
    enum { BLOCK = 1 << 12 };
    int block[BLOCK];
    int64_t sum = 0;
    for (int64_t at = 1; at <= n; at += BLOCK) {
        const int count = (int)MIN(BLOCK, n + 1 - at);
        shards_read(bytes, at, count, block);
        for (int i = 0; i < count; i++) sum += block[i];
    }
    return sum;
}

/* ------------------------------------------------------------------ order of training */
/* A keyed shuffle of [0, n) without a table: a Feistel network permutes the smallest
 * square 4^h >= n; an image outside [0, n) is permuted again until it falls inside. */
static int64_t shuffled(int64_t i, int64_t n, uint64_t key) {
    int h = 1;
    while ((int64_t)1 << (2 * h) < n) h++;
    const uint64_t mask = ((uint64_t)1 << h) - 1;
    uint64_t x = (uint64_t)i;
    do {
        for (uint64_t round = 1; round <= 6; round++) {
            const uint64_t low = x & mask, high = x >> h;
            x = low << h | (high ^ (hash64(key + round, low) & mask));
        }
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

void shards_train_row(const Shards *s, uint64_t seed, int64_t row, int seq, int shuffle,
                      int *out) {
    const int64_t windows = seq < 1 ? 0 : (s->tokens - 1) / seq;
    if (windows < 1)
        die("%s: expected at least %d + 1 tokens, found %lld; use more text or a "
            "smaller --seq",
            s->shard[0].path, seq, (long long)s->tokens);
    if (!shuffle) {
        shards_read(s, row % windows * seq, seq + 1, out);
        return;
    }

    /* An epoch has its own order, and moves all windows by part of what is spare. */
    const int64_t epoch = row / windows, spare = s->tokens - 1 - windows * seq;
    const uint64_t key = hash64(seed, (uint64_t)epoch);
    const int64_t shift = (int64_t)(hash64(key, 0) % (uint64_t)(spare + 1));
    shards_read(s, shift + shuffled(row % windows, windows, key) * seq, seq + 1, out);
}
/* ==== 8. Files: options as text, the artifact and its ledger, the checkpoint ======== */
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define X(mask_, type_, name_, def_, range_, help_) \
    {.mask = mask_, \
     .type = TYPE_##type_, \
     .name = #name_, \
     .def = def_, \
     .range = range_, \
     .help = help_, \
     .at = offsetof(Config, name_), \
     .file = __FILE__},
static const Option options[] = {GOLF_OPTIONS(X)
#define OPTIONS
#include "dev/systems/systems.h"
#undef OPTIONS
};
#undef X
#define EACH_OPTION(o) for (const Option *o = options; o < options + COUNT(options); o++)

/* Words that systems add to ranges of the core: the i-th is the value FIRST_WORD + 1 +
 * i. */
typedef struct {
    const char *option, *word, *file;
} Word;
static const Word words[] = {
#define W(option_, word_) {#option_, #word_, __FILE__},
#define WORDS
#include "dev/systems/systems.h"
#undef WORDS
#undef W
    {NULL, NULL, NULL}};

/* NAME of dev/systems/NAME.h, "" for the core. */
static const char *system_name(const char *file, char name[64]) {
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    const size_t len = strlen(base);
    *name = 0;
    if (strstr(file, "systems/") && len > 2 && len < 64)
        snprintf(name, 64, "%.*s", (int)(len - 2), base);
    return name;
}

static int of_system(const Option *o) { return strstr(o->file, "systems/") != NULL; }

/* Is it one of dev/systems/NAME.h? */
static int is_of_system(const Option *o, const char *name) {
    const char *slash = strrchr(o->file, '/');
    const size_t len = strlen(name);
    return of_system(o) && !strncmp(slash + 1, name, len) &&
           !strcmp(slash + 1 + len, ".h");
}

/* A range is items with | between them: the one behind r's first. */
static const char *next_item(const char *r) {
    r += strcspn(r, "|");
    return *r ? r + 1 : r;
}

/* The value of a word of the option's range, or -1. */
static int word_value(const Option *o, const char *value) {
    int item = 0;
    for (const char *r = o->range; *r; r = next_item(r)) {
        const size_t len = strcspn(r, "|");
        if (isalpha((unsigned char)*r) && strlen(value) == len && !strncmp(r, value, len))
            return item;
        item++;
    }
    for (const Word *w = words; w->option; w++)
        if (!strcmp(w->option, o->name) && !strcmp(w->word, value))
            return FIRST_WORD + 1 + (int)(w - words);
    return -1;
}

/* The word of a system that is this value of the option, or NULL. */
static const Word *word_of(const Option *o, int value) {
    const int i = value - FIRST_WORD - 1;
    if (i < 0 || i >= (int)COUNT(words) - 1) return NULL;
    return strcmp(words[i].option, o->name) ? NULL : words + i;
}

/* Is x one of the numbers, or in one of the spans, of the option's range? */
static int in_range(const Option *o, double x) {
    for (const char *r = o->range; *r; r = next_item(r)) {
        double lo, hi;
        const int n = sscanf(r, "%lf to %lf", &lo, &hi);
        if (n == 1 && x == lo) return 1;
        if (n == 2 && x >= lo && x <= hi) return 1;
    }
    return 0;
}

/* Sets one option from text; returns 0 when the value is outside the row's range. */
static int option_set(Config *c, const Option *o, const char *value) {
    char *field = (char *)c + o->at, *end;
    if (o->type == TYPE_STR) {
        if (strlen(value) >= sizeof c->data || strchr(value, '\n')) return 0;
        strcpy(field, value);
        return 1;
    }
    const int word = word_value(o, value);
    if (word >= 0 && o->type == TYPE_INT) {
        *(int *)field = word;
        return 1;
    }
    const double x = strtod(value, &end);
    if (end == value || *end || !isfinite(x) || !in_range(o, x)) return 0;
    if (o->type == TYPE_NUM) {
        *(double *)field = x;
        return 1;
    }
    if (x != rint(x)) return 0;
    *(int *)field = (int)x;
    return 1;
}

static const char *
number_text(double x, char text[64]) { /* the shortest that reads back the same */
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, 64, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    return text;
}

/* The value as option_set would read it again; in text, or in place. */
static const char *option_text(const Config *c, const Option *o, char text[64]) {
    const char *field = (const char *)c + o->at;
    if (o->type == TYPE_STR) return field;
    if (o->type == TYPE_NUM) return number_text(*(const double *)field, text);
    const int code = *(const int *)field;
    const Word *w = word_of(o, code);
    if (w) return w->word;
    const char *r = o->range;
    int item = 0;
    while (item < code && *r) { /* a number is no place in the range: it ends there */
        r = next_item(r);
        item++;
    }
    if (isalpha((unsigned char)*r)) snprintf(text, 64, "%.*s", (int)strcspn(r, "|"), r);
    else snprintf(text, 64, "%d", code);
    return text;
}

static int at_default(const Config *c, const Option *o) {
    char text[64];
    return !strcmp(option_text(c, o, text), o->def);
}

/* The range as a user sees it, with the words that systems add. */
static const char *range_text(const Option *o, char out[256]) {
    size_t n = (size_t)snprintf(out, 256, "%s", o->range);
    for (const Word *w = words; w->option; w++)
        if (!strcmp(w->option, o->name))
            n += (size_t)snprintf(out + n, 256 - n, "|%s", w->word);
    return out;
}

static const Option *option_named(const char *name) {
    EACH_OPTION(o) {
        if (!strcmp(o->name, name)) return o;
    }
    return NULL;
}

static void config_defaults(Config *c) {
    memset(c, 0, sizeof *c);
    EACH_OPTION(o) {
        if (!option_set(c, o, o->def))
            die("the default of --%s is outside its range", o->name);
    }
}

/* Is the option left out of files? So are systems' at their defaults: files do not depend
 * on which systems are compiled in. */
static int left_out(const Config *c, const Option *o) {
    return (o->mask & QUIET || of_system(o)) && at_default(c, o);
}

/* Which system the value of an option needs: its own, or the one whose word it is. */
static const char *system_of_value(const Config *c, const Option *o, char name[64]) {
    if (at_default(c, o)) return "";
    if (o->type != TYPE_INT) return system_name(o->file, name);
    const Word *w = word_of(o, *(const int *)((const char *)c + o->at));
    return system_name(w ? w->file : o->file, name);
}

enum { CONFIG_TEXT = 16384 };

static size_t add_text(char *out, size_t n, const char *fmt, const char *a,
                       const char *b) {
    n += (size_t)snprintf(out + n, CONFIG_TEXT - n, fmt, a, b);
    if (n >= CONFIG_TEXT) die("configuration text over %d bytes", CONFIG_TEXT);
    return n;
}

/* key=value lines of the options in mask, and the systems that they need; returns the
 * length. */
static size_t config_text(const Config *c, int mask, char out[CONFIG_TEXT]) {
    char text[64], name[64], needed[1024] = ",";
    size_t n = 0;
    *out = 0;
    EACH_OPTION(o) {
        char comma[80];
        if (!(o->mask & mask) || left_out(c, o)) continue;
        n = add_text(out, n, "%s=%s\n", o->name, option_text(c, o, text));
        snprintf(comma, sizeof comma, ",%s,", system_of_value(c, o, name));
        if (strcmp(comma, ",,") && !strstr(needed, comma)) strcat(needed, comma + 1);
    }
    if (!needed[1]) return n;
    needed[strlen(needed) - 1] = 0;
    return add_text(out, n, "systems=%s%s\n", needed + 1, "");
}

static void demand_system(const char *path, const char *name) {
    for (const System *const *s = all_systems; *s; s++) {
        if (!strcmp((*s)->name, name)) return;
    }
    die("%s: it needs the system '%s', which is not part of this program; add its line to "
        "dev/systems/systems.h and build again",
        path, name);
}

/* Dies when a system of a line "systems=NAME,NAME" is not compiled in. */
static void demand_systems(const char *path, const char *text) {
    char copy[CONFIG_TEXT], *lines, *names;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *line = strtok_r(copy, "\n", &lines); line;
         line = strtok_r(NULL, "\n", &lines)) {
        if (strncmp(line, "systems=", 8)) continue;
        for (char *name = strtok_r(line + 8, ",", &names); name;
             name = strtok_r(NULL, ",", &names))
            demand_system(path, name);
    }
}

static void config_line(Config *c, const char *path, char *line, int mask) {
    char *value = strchr(line, '=');
    if (value) *value++ = 0;
    const Option *o = option_named(line);
    if (!value || !o || !(o->mask & mask) || !option_set(c, o, value))
        die("%s: option '%s=%s' is unknown or out of range: the file needs a system that is not part "
            "of this program (see dev/systems/systems.h), was written by another version of it "
            "(go on with that one: git_rev in result.json), or is damaged",
            path, line, value ? value : "");
}

/* Reads what config_text wrote, lines in any order, into defaults. */
static void config_parse(Config *c, const char *path, const char *text, size_t len,
                         int mask) {
    char copy[CONFIG_TEXT], seen[COUNT(options)] = {0}, *save;
    config_defaults(c);
    if (len >= sizeof copy)
        die("%s: configuration of %zu bytes: the file is damaged", path, len);
    snprintf(copy, sizeof copy, "%.*s", (int)len, text);
    demand_systems(path, copy); /* first of all, so that their options are known */
    for (char *line = strtok_r(copy, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        if (!strncmp(line, "systems=", 8)) continue;
        config_line(c, path, line, mask);
        const size_t i = (size_t)(option_named(line) - options);
        if (seen[i])
            die("%s: option '%s' is there twice: the file is damaged", path, line);
        seen[i] = 1;
    }
    EACH_OPTION(o) {
        if (!(o->mask & mask) || o->mask & QUIET || of_system(o) || seen[o - options])
            continue;
        die("%s: its configuration lacks the option '%s': written by another version of this "
            "program; go on with that one (git_rev in result.json)",
            path, o->name);
    }
}

/* ---- Checks that the range of an option cannot express. */
/* Dies if an option is set although what it belongs to is not there. */
static void option_needs(const Config *c, const char *name, int has, const char *what) {
    const Option *o = option_named(name);
    if (!has && !at_default(c, o)) die("--%s means nothing without --%s", name, what);
}

static const struct {
    int bit;
    const char *name;
} resources[] = {{RES_MLP, "the MLP"},
                 {RES_ATTENTION, "attention"},
                 {RES_MLP_COPIES, "how many copies the MLP's matrices have"},
                 {RES_ATTENTION_COPIES, "how many copies attention's matrices have"},
                 {RES_COPIES, "how many copies a matrix has"},
                 {RES_MLP_ADDITIONS, "the MLP's projections"},
                 {RES_ATTENTION_ADDITIONS, "attention's projections"},
                 {RES_ESTIMATOR, "how gradients pass the rounding of weights"},
                 {RES_INPUTS, "how gradients pass the rounding of inputs"},
                 {RES_PIECES, "what shares a scale"},
                 {RES_DEPTH, "which phases run"},
                 {RES_LOSS, "the loss"},
                 {RES_EMBEDDING, "the embedding"}};

static int takes(const System *s, const Config *c) { return s->takes ? s->takes(c) : 0; }
static int uses(const System *s, const Config *c) { return s->uses ? s->uses(c) : 0; }

/* Systems that change the same thing do not go together. */
static void check_pair(const System *a, const System *b, const Config *c) {
    const int clash =
        (takes(a, c) & (takes(b, c) | uses(b, c))) | (uses(a, c) & takes(b, c));
    for (size_t i = 0; i < COUNT(resources); i++)
        if (clash & resources[i].bit)
            die("--%s (%s) and --%s (%s) do not go together: both change %s; give one of them",
                a->needs, a->name, b->needs, b->name, resources[i].name);
}

static void check_systems(const Config *c) {
    for (const System *const *s = all_systems; *s; s++) {
        const int on = (*s)->on(c);
        EACH_OPTION(o) {
            if (on || o->mask & (EVAL | FIXED) || !is_of_system(o, (*s)->name)) continue;
            if (!strcmp(o->name, (*s)->needs)) continue; /* itself says off */
            option_needs(c, o->name, 0, (*s)->needs);
        }
        if (!on) continue;
        if ((*s)->check) (*s)->check(c);
        for (const System *const *other = s + 1; *other; other++)
            if ((*other)->on(c)) check_pair(*s, *other, c);
    }
}

/* The tensors of a config, until the next call. */
static const Golf *layout_of(const Config *c) {
    static _Thread_local Golf m;
    golf_layout(&m, c);
    return &m;
}

/* The first tensor with more than 2^30 weights a copy, or NULL: below that the products of
 * its sides, and places in it, are ints. */
static const Tensor *too_large(const Golf *m) {
    EACH_TENSOR(t, m) {
        if ((double)t->rows * t->cols > 1 << 30) return t;
    }
    return NULL;
}

/* With so many parameters, all sizes in bytes are right: of them, 32 bits cannot hold many. */
#define MOST_PARAMETERS ((double)(SIZE_MAX / 16))

/* No wider model is possible than one that is this large. */
static int beyond_reach(const Golf *m) {
    return too_large(m) || parameters_of(m) > MOST_PARAMETERS;
}

/* Dies on a model that cannot be. A file brings the MODEL options alone: nothing here may
 * depend on others. */
static void model_check(const Config *c) {
    const int W = c->width, H = c->heads, KV = kv_heads(c);
    check_systems(c);
    if (W < 8) die("--width=%d: expected at least 8", W);
    if (W % H) die("--width=%d is no multiple of --heads=%d; change one of them", W, H);
    if (head_dim(c) % rope_step(c))
        die("--width=%d / --heads=%d gives head_dim %d, and --rope needs a multiple of %d",
            W, H, head_dim(c), rope_step(c));
    if (KV > H || H % KV) die("--kv_heads=%d: expected a divisor of --heads=%d", KV, H);
    const Tensor *large = too_large(layout_of(c));
    if (large)
        die("--width=%d and a hidden width of %d: expected at most 2^30 weights a matrix, "
            "%s has %d x %d; lower one of them",
            W, hidden_width(c), large->name, large->rows, large->cols);
    const double parameters = parameters_of(layout_of(c));
    if (parameters > MOST_PARAMETERS)
        die("--width=%d: %.0f parameters are more than memory can address; lower --width or --unique",
            W, parameters);
}

/* And on a run that cannot be. */
static void config_check(const Config *c) {
    model_check(c);
    for (const System *const *s = all_systems; *s; s++)
        if ((*s)->check_run && (*s)->on(c)) (*s)->check_run(c);
    if (c->fit == FIT_CODED && c->embed_bits > 8)
        die("--fit=coded steers the steps of the embedding's codes: expected --embed_bits=3 to 8, "
            "found %d",
            c->embed_bits);
    if (c->batch % c->accum)
        die("--batch=%d: expected a multiple of --accum=%d, whose groups are of equally many "
            "sequences",
            c->batch, c->accum);
    if ((double)c->batch * c->seq > 1e8)
        die("--batch=%d x --seq=%d is over 100 million tokens a step; lower one of them",
            c->batch, c->seq);
}

/* Would this check die? */
static int is_refused(void (*check)(const Config *c), const Config *c) {
    jmp_buf refused;
    if (setjmp(refused)) {
        instead_of_dying = NULL;
        return 1;
    }
    instead_of_dying = &refused;
    check(c);
    instead_of_dying = NULL;
    return 0;
}

/* ---- The last byte: an adaptive binary range coder over codes and scales, as golf.h says.
 * The same functions write and read, so that both do the same to every probability. */
typedef struct {
    uint16_t p, n; /* P(0) * 65536, or 0: not asked yet; times asked */
} Node;

typedef struct Coder {
    uint8_t *at, *end;
    uint32_t low, range, code;
    int reading, full;
    uint16_t rate
        [256]; /* how far a probability moves, by how often it was asked: 1/(n + 1.5) */
} Coder;

INLINE void coder_shift(Coder *r) { /* a byte more */
    r->full |= r->at == r->end;
    if (r->reading) r->code = r->code << 8 | (r->full ? 0 : *r->at++);
    else if (!r->full) *r->at++ = (uint8_t)(r->low >> 24);
    r->low <<= 8;
}

static void coder_carry(Coder *r) { /* into what is written */
    uint8_t *q = r->at - 1;
    while (++*q == 0) q--;
}

INLINE int coded_bit(Coder *r, Node *node, int bit) {
    if (!node->p) node->p = 1 << 15;
    const uint32_t p = node->p, bound = (r->range >> 16) * p;
    if (r->reading) bit = r->code >= bound;
    const uint32_t upper = bit ? bound : 0;
    r->range = bit ? r->range - bound : bound;
    r->code -= upper;
    r->low += upper;
    if (r->low < upper && !r->reading) coder_carry(r);
    const uint32_t rate = r->rate[node->n]; /* integers: every machine decodes alike */
    const uint32_t next = bit ? p - (p * rate >> 16) : p + ((65535 - p) * rate >> 16);
    node->p = (uint16_t)MIN(MAX(next, 36), 65500);
    node->n += node->n < 255;
    while (r->range < 1 << 24) {
        r->range <<= 8;
        coder_shift(r);
    }
    return bit;
}

/* The lower `bits` of a symbol, most significant first, from node `at` of a tree on. */
INLINE int coded_bits(Coder *r, Node *tree, int at, int bits, int symbol) {
    for (int b = bits; b-- > 0;) at = at * 2 | coded_bit(r, tree + at, symbol >> b & 1);
    return at;
}

/* A ternary code: 0, or 2 + (is it 1?) in two bits. */
INLINE int coded_trit(Coder *r, Node *tree, int8_t *code) {
    const int symbol = *code ? 2 + (*code > 0) : 0;
    const int node = coded_bits(r, tree, 1, 2, symbol) - 4;
    *code = (int8_t)(node ? 2 * node - 5 : 0);
    return node != 1; /* which nobody writes */
}

/* An integer: its upper four bits in tree `top`, the others in tree `rest`. */
INLINE int coded_int(Coder *r, Node *top, Node *rest, int8_t *code, const Tensor *t) {
    const int bits = t->bits, upper = MIN(bits, 4), half = 1 << (bits - 1);
    const int u = *code + half;
    int node = coded_bits(r, top, 1, upper, u >> (bits - upper));
    node = coded_bits(r, rest, node, bits - upper, u) - 2 * half;
    *code = (int8_t)(node - half);
    return node || t->half; /* integers have no -half */
}

/* Numbers [from,to) of a copy. Returns 0 when what was read cannot be. */
static int coded_codes(Coder *r, const Tensor *t, int8_t *code, size_t from, size_t to) {
    const size_t K = (size_t)t->stored_cols;
    const int own = t->rows >= 1000; /* trees for each column */
    Node *ternary = xcalloc(4 + 256 + (own ? 16 * K : 0), sizeof(Node));
    Node *shared = ternary + 4, *columns = shared + 256;
    int good = 1;
    for (size_t i = from; i < to; i++) {
        if (r->full) break;
        if (is_ternary(t)) good &= coded_trit(r, ternary, code + i);
        else
            good &=
                coded_int(r, own ? columns + 16 * (i % K) : shared, shared, code + i, t);
    }
    free(ternary);
    return good;
}

/* 16-bit numbers [from,to); positive: as steps of a grid must be. */
static int coded_numbers(Coder *r, real *x, size_t from, size_t to, int positive) {
    Node *tree = xcalloc(257 << 8, sizeof(Node));
    int good = 1;
    for (size_t i = from; i < to; i++) {
        if (r->full) break;
        const int u = to_bf16(x[i]), upper = coded_bits(r, tree, 1, 8, u >> 8) - 256;
        const int lower = coded_bits(r, tree + 256 * (upper + 1), 1, 8, u) - 256;
        x[i] = from_bf16((uint16_t)(upper << 8 | lower));
        good &= isfinite(x[i]) && (!positive || x[i] > 0);
    }
    free(tree);
    return good;
}

static int grid_coded(Coder *r, const Tensor *t, int8_t *code, real *scale, size_t part,
                      size_t parts) {
    const size_t S = t->copy_scales, N = t->copy_n;
    int good = coded_numbers(r, scale, S * part / parts, S * (part + 1) / parts, 1);
    good &= coded_codes(r, t, code, N * part / parts, N * (part + 1) / parts);
    return good;
}

static int bf16_coded(Coder *r, const Tensor *t, int8_t *code, real *scale, size_t part,
                      size_t parts) {
    const size_t S = t->copy_scales;
    (void)code;
    return coded_numbers(r, scale, S * part / parts, S * (part + 1) / parts, 0);
}

static Coder coder_on(uint8_t *from, uint8_t *end, int reading) {
    Coder r = {.at = from, .end = end, .range = ~0u, .reading = reading};
    for (int k = 0; k < 256; k++) r.rate[k] = (uint16_t)(131072 / (2 * k + 3));
    if (!reading) return r;
    for (int b = 0; b < 4; b++) coder_shift(&r);
    return r;
}

/* Part of parts of copy j, in [from,end). Returns the bytes written or read, 0:
 * impossible. */
static size_t coded_stream(const Golf *m, const Tensor *t, size_t j, size_t part,
                           size_t parts, uint8_t *from, uint8_t *end, int reading) {
    Coder r = coder_on(from, end, reading);
    int8_t *code = m->code + t->at + j * t->copy_n;
    int good = t->quant->coded(&r, t, code, scale_of(m, t, (int)j), part, parts);
    if (!reading)
        for (int b = 0; b < 4; b++) coder_shift(&r);
    good &= !r.full && (!reading || r.at == r.end);
    return good ? (size_t)(r.at - from) : 0;
}

/* All copies of a tensor, in streams of about a million numbers that threads take in
 * parallel: the lengths of the streams (4 bytes each), then these. */
static size_t stream_parts(const Tensor *t) {
    return t->quant->one_stream ? 1 : 1 + (t->copy_n >> 20);
}

/* Writes to buf, less than room, and returns how many bytes; 0: does not fit. */
static size_t write_coded(const Golf *m, const Tensor *t, uint8_t *buf, size_t room) {
    const size_t parts = stream_parts(t), n = parts * (size_t)t->stored_copies;
    const size_t most = t->bytes / n + 4096;
    uint8_t *out = xcalloc(n, most);
    size_t *len = xcalloc(n, sizeof(size_t)), at = 4 * n;
    int good = room >= 4 * n;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < n; i++)
        len[i] = coded_stream(m, t, i / parts, i % parts, parts, out + i * most,
                              out + (i + 1) * most, 0);
    for (size_t i = 0; i < n; i++) {
        good = good && len[i] && at + len[i] < room; /* as long as packed means packed */
        if (!good) break;
        put_u(buf + 4 * i, len[i], 4);
        memcpy(buf + at, out + i * most, len[i]);
        at += len[i];
    }
    free(out);
    free(len);
    return good ? at : 0;
}

/* Reads all of buf[0..len) into codes and scales; returns 0 when it is damaged. */
static int read_coded(const Golf *m, const Tensor *t, uint8_t *buf, size_t len) {
    const size_t parts = stream_parts(t), n = parts * (size_t)t->stored_copies;
    if (len < 4 * n) return 0;
    size_t *at = xcalloc(n + 1, sizeof(size_t));
    int good = 1;
    at[0] = 4 * n;
    for (size_t i = 0; i < n; i++) { /* of which 32 bits might not hold the sum */
        const uint64_t bytes = get_u(buf + 4 * i, 4), left = len - at[i];
        good &= bytes <= left;
        at[i + 1] = at[i] + (size_t)MIN(bytes, left);
    }
    good &= at[n] == len;
    if (good) {
#pragma omp parallel for schedule(dynamic) reduction(& : good)
        for (size_t i = 0; i < n; i++)
            good &= coded_stream(m, t, i / parts, i % parts, parts, buf + at[i],
                                 buf + at[i + 1], 1) > 0;
    }
    free(at);
    return good;
}

/* ---- The artifact. */
enum { ARTIFACT_FIXED = 28 };

static size_t stored_tensors(const Golf *m) {
    size_t count = 0;
    EACH_TENSOR(t, m) count += is_stored(t);
    return count;
}

/* Bytes of the file; of a model that was never saved, the most it can take: packed, not
 * coded. */
static Ledger ledger_of(const Golf *m) {
    char text[CONFIG_TEXT];
    const size_t len = config_text(&m->config, MODEL, text);
    Ledger l = {.header = ARTIFACT_FIXED + len + 8 * stored_tensors(m) + 4};
    l.total = l.header;
    EACH_TENSOR(t, m) {
        const size_t bytes = t->coded ? t->coded : t->bytes;
        l.of[t->ledger] += bytes;
        l.total += bytes;
    }
    return l;
}

size_t artifact_bytes(const Config *c) { return ledger_of(layout_of(c)).total; }

/* Bytes of a tensor in the file, were it written now. */
static size_t tensor_bytes(const Golf *m, const Tensor *t) {
    uint8_t *payload = xcalloc(t->bytes, 1);
    const size_t coded = write_coded(m, t, payload, t->bytes);
    free(payload);
    return coded ? coded : t->bytes;
}

/* And of all of it. */
static size_t file_bytes(const Golf *m) {
    size_t bytes = ledger_of(m).header;
    EACH_TENSOR(t, m) {
        if (is_stored(t)) bytes += tensor_bytes(m, t);
    }
    return bytes;
}

/* The options as the file says them: of the embedding's grid it knows the bits alone. */
static Config stored_config(const Golf *m) {
    Config c = m->config;
    c.embed_bits = m->tensor[T_embed].bits;
    return c;
}

/* Writes a tensor, coded if that is shorter than packed, and its row of the table. */
static size_t save_tensor(const Golf *m, Tensor *t, uint8_t *row, uint8_t *payload) {
    t->coded = write_coded(m, t, payload, t->bytes);
    if (!t->coded) {
        t->coded = t->bytes;
        for (int j = 0; j < t->stored_copies; j++)
            t->quant->pack(payload + (size_t)j * t->copy_bytes,
                           m->code + t->at + (size_t)j * t->copy_n, scale_of(m, t, j), t);
    }
    t->crc = crc32_of(0, payload, t->coded);
    put_u(row, t->coded, 4);
    put_u(row + 4, t->crc, 4);
    return t->coded;
}

void golf_save(Golf *m, const char *path, uint32_t tokenizer_crc) {
    char text[CONFIG_TEXT];
    const Config stored = stored_config(m);
    const size_t len = config_text(&stored, MODEL, text), tensors = stored_tensors(m);
    uint8_t *file = xcalloc(artifact_bytes(&m->config), 1);
    uint8_t *row = file + ARTIFACT_FIXED + len, *payload = row + 8 * tensors + 4;
    EACH_TENSOR(t, m) {
        if (!is_stored(t)) continue;
        payload += save_tensor(m, t, row, payload);
        row += 8;
    }
    const size_t size = (size_t)(payload - file);
    const uint64_t head[] = {GOLF_VERSION, size, tokenizer_crc, len, tensors};
    memcpy(file, GOLF_MAGIC, 8);
    for (int i = 0; i < 5; i++) put_u(file + 8 + 4 * i, head[i], 4);
    memcpy(file + ARTIFACT_FIXED, text, len);
    put_u(row, crc32_of(0, file, (size_t)(row - file)), 4);
    write_file(path, file, size);
    free(file);
}

/* The fixed fields of an artifact, checked against its size and the checksum of its
 * header. */
typedef struct {
    size_t size, crc, len, tensors;
    uint8_t *file, *config, *row, *payload;
} Artifact;

static Artifact artifact_open(const char *path) {
    Artifact a;
    a.file = ranks_read(path, &a.size);
    if (a.size < ARTIFACT_FIXED || memcmp(a.file, GOLF_MAGIC, 8))
        die("%s: expected a model.golf artifact, found something else; train writes one",
            path);
    const size_t version = get_u(a.file + 8, 4), said = get_u(a.file + 12, 4);
    a.crc = get_u(a.file + 16, 4);
    a.len = get_u(a.file + 20, 4);
    a.tensors = get_u(a.file + 24, 4);
    if (version != GOLF_VERSION)
        die("%s: expected artifact version %d, found %zu: read it with the program that wrote it "
            "(git_rev in result.json)",
            path, GOLF_VERSION, version);
    if (said != a.size)
        die("%s: its header says %zu bytes, found %zu: cut or overwritten", path, said,
            a.size);
    if (a.len > a.size || a.tensors > a.size / 8 ||
        a.size - a.len < ARTIFACT_FIXED + 8 * a.tensors + 4)
        die("%s: its header does not fit its size: the file is damaged", path);
    a.config = a.file + ARTIFACT_FIXED;
    a.row = a.config + a.len;
    a.payload = a.row + 8 * a.tensors + 4;
    if (get_u(a.payload - 4, 4) != crc32_of(0, a.file, (size_t)(a.payload - 4 - a.file)))
        die("%s: the checksum of its header is wrong: the file is damaged", path);
    return a;
}

static void load_tensor(const Golf *m, Tensor *t, const char *path, const uint8_t *row,
                        uint8_t *payload) {
    int good = 1;
    t->coded = get_u(row, 4);
    t->crc = (uint32_t)get_u(row + 4, 4);
    if (t->coded > t->bytes || t->crc != crc32_of(0, payload, t->coded))
        die("%s: length or checksum of tensor %s is wrong: the file is damaged", path,
            t->name);
    if (t->coded < t->bytes) good = read_coded(m, t, payload, t->coded);
    else
        for (int j = 0; j < t->stored_copies; j++)
            good &= t->quant->unpack(m->code + t->at + (size_t)j * t->copy_n,
                                     scale_of(m, t, j),
                                     payload + (size_t)j * t->copy_bytes, t);
    if (!good) die("%s: tensor %s holds an impossible code or scale", path, t->name);
}

/* A trained model needs some 20 bytes of memory for each of its file, but a code that is
 * always the same costs next to nothing in a file, and what is not stored nothing at all: a
 * file could claim any amount. Dies if it does. */
static void check_claim(const Golf *m, const char *path, size_t bytes) {
    enum { ALWAYS = 64 << 20, FOR_A_BYTE = 4096 };
    const double claim = model_memory(m, 0), most = ALWAYS + FOR_A_BYTE * (double)bytes;
    if (claim > most)
        die("%s: expected a model of at most %.0f MB of memory in a file of %zu bytes, it "
            "claims %.0f: the file is damaged",
            path, most / 1e6, bytes, claim / 1e6);
}

/* A scale and a code that are numbers can have a product that is none. */
static void check_weights(const Golf *m, const char *path) {
    EACH_TENSOR(t, m) {
        for (size_t i = t->at; i < t->at + t->n; i++)
            if (!isfinite(m->eff[i]))
                die("%s: tensor %s holds an impossible scale: a weight is %g", path,
                    t->name, (double)m->eff[i]);
    }
}

/* What the header claims is checked before the model is allocated, payloads while they are
 * read, then what they make. */
uint32_t golf_load(Golf *m, const char *path) {
    Artifact a = artifact_open(path);
    Config c;
    config_parse(&c, path, (char *)a.config, a.len, MODEL);
    model_check(&c);
    golf_layout(m, &c);
    if (a.tensors != stored_tensors(m))
        die("%s: expected %zu tensors, found %zu: written by another version of this program; "
            "read it with that one (git_rev in result.json)",
            path, stored_tensors(m), a.tensors);
    uint64_t need = (uint64_t)(a.payload - a.file);
    for (size_t i = 0; i < a.tensors; i++) need += get_u(a.row + 8 * i, 4);
    if (need != a.size || a.size > artifact_bytes(&c))
        die("%s: its tensors need %llu bytes, at most %zu, the file has %zu", path,
            (unsigned long long)need, artifact_bytes(&c), a.size);
    check_claim(m, path, a.size);
    golf_init(m, &c, 0);
    EACH_TENSOR(t, m) {
        if (!is_stored(t)) continue;
        load_tensor(m, t, path, a.row, a.payload);
        a.payload += t->coded;
        a.row += 8;
    }
    golf_use(m);
    check_weights(m, path);
    free(a.file);
    return (uint32_t)a.crc;
}

/* ---- The checkpoint. */
enum { CKPT_FIXED = 52, CKPT_FIXED_1 = 44 }; /* of this version, and of version 1 */

/* The last bytes first: a file that ends with its own CRC-32, as checkpoints do, would
 * have the same one as any other. */
void depends_on(Golf *m, const char *path) {
    const size_t len = strlen(m->files);
    size_t n;
    uint8_t *file = read_file(path, &n);
    const size_t tail = MIN(n, 4);
    m->files_crc = crc32_of(m->files_crc, file + n - tail, tail);
    m->files_crc = crc32_of(m->files_crc, file, n - tail);
    snprintf(m->files + len, sizeof m->files - len, "%s%s", len ? " or " : "", path);
    free(file);
}

static void turn_numbers(const Golf *m) {
    turn_reals(m->master, m->n_params);
    turn_reals(m->moment1, m->n_params);
    turn_reals(m->moment2, m->n_params);
}

void ckpt_save(const Golf *m, const char *path, int64_t step) {
    char text[CONFIG_TEXT];
    uint8_t head[CKPT_FIXED], tail[4];
    const size_t len = config_text(&m->config, MODEL | TRAIN, text);
    const size_t bytes = m->n_params * sizeof(real);
    memcpy(head, CKPT_MAGIC, 8);
    put_u(head + 8, CKPT_VERSION, 4);
    put_u(head + 12, sizeof(real), 4);
    put_u(head + 16, (uint64_t)step, 8);
    put_u(head + 24, m->flips, 8);
    put_u(head + 32, m->n_params, 8);
    put_u(head + 40, len, 4);
    put_u(head + 44, m->tokenizer_crc, 4);
    put_u(head + 48, m->files_crc, 4);
    turn_numbers(m);
    const Part parts[] = {{head, CKPT_FIXED},  {text, len},         {m->master, bytes},
                          {m->moment1, bytes}, {m->moment2, bytes}, {tail, 4}};
    uint32_t crc = 0;
    for (int i = 0; i < 5; i++) crc = crc32_of(crc, parts[i].data, parts[i].len);
    put_u(tail, crc, 4);
    write_parts(path, parts, 6);
    turn_numbers(m);
}

/* --fit=coded moves the embedding's step while its codes fit a byte. */
static void check_embed_grid(const Config *c, const char *path) {
    Tensor t = {.copy_n = 1, .stored_cols = 1};
    if (c->embed_bits > 8) return;
    store_embedding(c, &t);
    if (t.bits > 8)
        die("%s: expected an embedding of at most 8 bits, found %d (embed_bits=%d, "
            "embed_grid=%d): the file is damaged",
            path, t.bits, c->embed_bits, c->embed_grid);
}

typedef struct {
    uint8_t *file, *numbers; /* numbers: masters, first moments, second moments */
    Config config;
    size_t count;         /* parameters */
    uint64_t step, flips; /* as many on machines of 32 bits */
    size_t version;
    uint32_t tokenizer_crc, files_crc; /* 0 in version 1 */
} Checkpoint;

static Checkpoint ckpt_open(const char *path) {
    Checkpoint k;
    size_t size;
    uint8_t *file = k.file = ranks_read(path, &size);
    if (size < CKPT_FIXED_1 + 4 || memcmp(file, CKPT_MAGIC, 8))
        die("%s: expected a checkpoint of this program, found something else", path);
    const size_t version = get_u(file + 8, 4), number = get_u(file + 12, 4);
    const size_t fixed = version == 1 ? CKPT_FIXED_1 : CKPT_FIXED;
    if (version < 1 || version > CKPT_VERSION || number != sizeof(real))
        die("%s: expected checkpoint version 1 to %d with %zu-byte numbers, found version %zu with "
            "%zu",
            path, CKPT_VERSION, sizeof(real), version, number);
    if (get_u(file + size - 4, 4) != crc32_of(0, file, size - 4))
        die("%s: its checksum is wrong: the file is damaged or cut", path);
    const uint64_t count = get_u(file + 32, 8);
    const size_t len = get_u(file + 40, 4);
    k.step = get_u(file + 16, 8);
    k.flips = get_u(file + 24, 8);
    k.count = (size_t)count;
    if (size < fixed + 4 || len > size - fixed - 4 || count > size / (3 * sizeof(real)) ||
        size != fixed + len + 3 * k.count * sizeof(real) + 4)
        die("%s: configuration of %zu bytes and %llu parameters in %zu: the file is damaged",
            path, len, (unsigned long long)count, size);
    k.version = version;
    k.tokenizer_crc = version > 1 ? (uint32_t)get_u(file + 44, 4) : 0;
    k.files_crc = version > 1 ? (uint32_t)get_u(file + 48, 4) : 0;
    config_parse(&k.config, path, (char *)file + fixed, len, MODEL | TRAIN);
    if (k.step > (uint64_t)k.config.steps)
        die("%s: expected a step of 0 to %d, found %llu: the file is damaged", path,
            k.config.steps, (unsigned long long)k.step);
    check_embed_grid(&k.config, path);
    k.numbers = file + fixed + len;
    turn_reals(k.numbers, 3 * k.count);
    return k;
}

/* The run must be the same in every option but the RESUME ones. */
static void same_options(const char *path, const Config *then, const Config *wanted) {
    EACH_OPTION(o) {
        char a[64], b[64];
        const char *was = option_text(then, o, a), *is = option_text(wanted, o, b);
        if (!(o->mask & (MODEL | TRAIN)) || o->mask & RESUME || !strcmp(was, is))
            continue;
        if (o->mask & FIXED)
            die("%s: the run was started with a tokenizer of %s pieces, now it has %s; give the "
                "--data it was started with",
                path, was, is);
        die("%s: the run was started with --%s=%s, now it is %s; resume it with the same "
            "options%s, or use another --out",
            path, o->name, was, is, wanted->cap != then->cap ? " (and --cap)" : "");
    }
}

/* FIXED options that may change are no wish but what a system counts: a resumed run goes on
 * with the counts of the checkpoint. */
static void take_counts(Config *c, const Config *then) {
    EACH_OPTION(o) {
        char text[64];
        if (o->mask & FIXED && o->mask & RESUME)
            option_set(c, o, option_text(then, o, text));
    }
}

int64_t ckpt_load(Golf *m, const char *path) {
    const Checkpoint k = ckpt_open(path);
    const size_t bytes = k.count * sizeof(real);
    if (m->config.minutes > 0) m->config.steps = k.config.steps;
    same_options(path, &k.config, &m->config);
    if (k.count != m->n_params)
        die("%s: expected %zu parameters, found %zu: the run was started by another version of "
            "this program; go on with that one (git_rev in result.json), or use another --out",
            path, m->n_params, k.count);
    if (k.version > 1 && k.files_crc != m->files_crc)
        die("%s: the run was started with another %s than is there now; put the old file back, "
            "or start again in another --out",
            path, m->files);
    memcpy(m->master, k.numbers, bytes);
    memcpy(m->moment1, k.numbers + bytes, bytes);
    memcpy(m->moment2, k.numbers + 2 * bytes, bytes);
    EACH_SYSTEM(s, m) {
        if ((*s)->loaded) (*s)->loaded(m, path);
    }
    m->step = (int)k.step;
    take_counts(&m->config, &k.config);
    set_embed_grid(m, m->config.embed_grid);
    golf_quantize(m);
    m->flips = k.flips;
    free(k.file);
    return (int64_t)k.step;
}

/* A checkpoint knows its tokenizer, but for those of version 1, and has it beside it,
 * unless it was moved. */
void same_tokenizer(const Tokenizer *tok, const char *ckpt) {
    const Checkpoint k = ckpt_open(ckpt);
    free(k.file);
    if (k.tokenizer_crc && k.tokenizer_crc != tok->crc)
        die("%s: expected the tokenizer of this data (CRC-32 %08x), found another (%08x); give the "
            "--data that it was trained on",
            ckpt, tok->crc, k.tokenizer_crc);
    const char *slash = strrchr(ckpt, '/');
    char path[2200];
    size_t n;
    snprintf(path, sizeof path, "%.*stokenizer.model",
             slash ? (int)(slash - ckpt + 1) : 0, ckpt);
    if (access(path, R_OK)) return;
    uint8_t *file = read_file(path, &n);
    if (n != tok->size || memcmp(file, tok->file, n))
        die("%s: expected the tokenizer of this data, found another, %s", ckpt, path);
    free(file);
}

/* ==== 9. Evaluation and sampling ==================================================== */
/* Where token n of some rows stands in the text. */
static int64_t place_in_text(const Rows *r, int n) {
    return r->at + (int64_t)(n / r->T) * r->step + n % r->T;
}

/* Is it new, or had a window before this one it? Of a row the last `step` tokens are; of the
 * first row of the text all. */
static int is_new(const Golf *m, const Rows *r, int n) {
    const int first_row = place_in_text(r, n) == n % r->T;
    return first_row || n % r->T >= m->config.seq - r->step;
}

/* Adds new tokens to s. */
static void score_rows(Golf *m, const Tokenizer *tok, const Rows *r, Score *s) {
    const real *loss = ranks_losses(m, r);
    for (int n = 0; n < r->B * r->T; n++) {
        if (!is_new(m, r, n)) continue;
        s->nll += (double)loss[n];
        s->bytes += tokenizer_bytes(tok, r->x[n], r->y[n]);
        s->tokens++;
        EACH_SYSTEM(sys, m) {
            if ((*sys)->scored && n_ranks == 1) /* else others have some of these rows */
                (*sys)->scored(m, n, place_in_text(r, n) + 1);
        }
    }
}

static int64_t tokens_to_score(const Golf *m, const Shards *val, int stride,
                               int64_t limit) {
    const int T = m->config.seq, least = stride ? 1 : T;
    const int cut = limit > 0 && limit < val->tokens - 1;
    const char *text = cut ? "--val_tokens" : "the validation text";
    const int64_t total = cut ? limit : val->tokens - 1;
    if (total < least)
        die("%s: expected %d tokens or more to predict (--seq=%d), found %lld; give more of them",
            text, least, T, (long long)total);
    if (stride > T)
        die("--stride=%d is larger than a window, --seq=%d; give that or less", stride,
            T);
    return stride ? total : total / T * T;
}

Score golf_eval(Golf *m, const Tokenizer *tok, Shards *val, int stride, int64_t limit) {
    const int T = m->config.seq, step = stride ? stride : T,
              rows = n_ranks * (int)(m->N / (size_t)T);
    const int64_t total = tokens_to_score(m, val, stride, limit);
    const int train = m->train;
    const size_t most = (size_t)n_ranks * m->N;
    int *x = xcalloc(2 * most + 1, sizeof(int)), *y = x + most + 1;
    Score s = {0};
    EACH_SYSTEM(sys, m) {
        if ((*sys)->step && m->master) (*sys)->step(m, -1);
    }
    m->train = 0; /* no gradients of the head */
    int64_t at = 0;
    do { /* full windows together, a short last one alone */
        const int64_t start = at, left = total - at;
        const int len = (int)MIN(left, T);
        const int B = left < T ? 1 : (int)MIN(rows, (left - T) / step + 1);
        for (int b = 0; b < B;
             b++, at += step) { /* the last target of a row is overwritten */
            shards_read(val, at, len + 1, x + b * len);
            memcpy(y + b * len, x + b * len + 1, sizeof(int) * (size_t)len);
        }
        const Rows r = {.x = x, .y = y, .B = B, .T = len, .step = step, .at = start};
        score_rows(m, tok, &r, &s);
        EACH_SYSTEM(sys, m) {
            if ((*sys)->learn) (*sys)->learn(m, &r);
        }
        if (isatty(2) && total > 1000000)
            fprintf(stderr, "\rscored %lld of %lld tokens", (long long)s.tokens,
                    (long long)total);
    } while (total - at > T - step);
    free(x);
    m->train = train;
    if (val->bytes) s.bytes = given_bytes(val->bytes, total);
    if (!s.bytes) die("the validation tokens stand for no text at all: wrong tokenizer?");
    s.loss = s.nll / (double)s.tokens;
    s.bpb = s.nll / log_of(2) / (double)s.bytes;
    return s;
}

/* For qsort: the largest first, of equal ones the first; else qsort may choose. */
static int by_p(const void *a, const void *b) {
    const real *const x = *(const real *const *)a, *const y = *(const real *const *)b;
    if (*x < *y) return 1;
    if (*x > *y) return -1;
    return (x > y) - (x < y);
}

/* The most likely token, or one drawn from the smallest set of tokens that holds
 * top_p. */
static int pick(real *logits, int V, double temperature, double top_p, double u) {
    int best = 0, n = 0, i = 0;
    double sum = 0, cut_at = 0;
    for (int k = 1; k < V; k++)
        if (logits[k] > logits[best]) best = k;
    if (temperature <= 0) return best;

    const real top = logits[best];
    real **order = xcalloc((size_t)V, sizeof *order);
    for (int k = 0; k < V; k++) {
        logits[k] = (real)exp_of((double)(logits[k] - top) / temperature);
        order[k] = logits + k;
        sum += (double)logits[k];
    }
    qsort(order, (size_t)V, sizeof *order, by_p);
    do {
        cut_at += (double)*order[n];
        n++;
    } while (n < V && cut_at < top_p * sum);
    u *= cut_at;
    while (i < n - 1 && u >= (double)*order[i]) {
        u -= (double)*order[i];
        i++;
    }
    best = (int)(order[i] - logits);
    free(order);
    return best;
}

/* A piece's text can depend on the one before it: prints what the second of a pair
 * adds. */
static void print_piece(const Tokenizer *tok, const int pair[2], FILE *out) {
    size_t len, skip;
    char *both = tokenizer_decode(tok, pair, 2, &len);
    free(tokenizer_decode(tok, pair, 1, &skip));
    fwrite(both + skip, 1, len - skip, out);
    fflush(out);
    free(both);
}

void golf_sample(Golf *m, const Tokenizer *tok, const Config *how, FILE *out) {
    const int T = m->config.seq, V = m->config.vocab;
    size_t n = 0;
    int *prompt = NULL, fed = 0, have = 0;
    if (*how->prompt)
        prompt = tokenizer_encode(tok, how->prompt, strlen(how->prompt), &n);
    int *ids = xcalloc(n + 2 + (size_t)how->tokens, sizeof(int));
    if (tok->bos >= 0) ids[have++] = tok->bos;
    for (size_t i = 0; i < n; i++) ids[have++] = prompt[i];
    free(prompt);
    if (!have) die("the tokenizer has no BOS piece: give --prompt");

    fputs(how->prompt, out);
    for (int i = 0; i < how->tokens; i++) {
        if (m->cached + have - fed >
            T) { /* full: go on with the last half of the context */
            m->cached = 0;
            fed = have - T / 2;
        }
        golf_forward(m, ids + fed, NULL, 1, have - fed);
        real *last = m->logits + (size_t)((have - fed - 1) % HEAD) * V;
        const double u = uniform01((uint64_t)how->seed, (uint64_t)i);
        ids[have] = pick(last, V, how->temperature, how->top_p, u);
        fed = have;
        if (ids[have] == tok->bos) break; /* the next document */
        print_piece(tok, ids + have - 1, out);
        have++;
    }
    fputc('\n', out);
    free(ids);
}

/* ==== 10. Command line and training loop ============================================ */
typedef struct {
    const char *name, *options, *help;
} Preset;

#define X(name_, options_, help_) {#name_, options_, help_},
static const Preset presets[] = {
    {"recursive", "fit=coded eps_embed=3e-5",
     "one block, used four times, in 256,000 bytes: the defaults, see dev/LOG.md"},
    {"flat", "fit=coded eps_embed=3e-5 unique=3 repeat=1 mlp=13 wq=ternary",
     "its control, three blocks used once, in as many bytes"},
    {"pocket",
     "unique=3 repeat=1 mlp=13 wq=ternary bwd=fp32 lr_muon=0.03 lr_embed=0.005 steps=12000",
     "three ternary blocks: what studies, records and the systems' table start from"},
    {"reference",
     "width=256 heads=4 mlp=4 unique=1 repeat=4 wq=ternary embed_bits=8 xgain=vector "
     "batch=16 steps=500 optimizer=adamw lr=0.002 lr_embed=0.005 bwd=fp32 cap=1300000",
     "the recipe that was compared with PyTorch; data of 1,024 pieces"},
    {"tiny",
     "width=32 heads=2 unique=1 repeat=2 mlp=2 wq=ternary seq=32 batch=4 steps=30 "
     "lr_muon=0.03 lr_embed=0.005 bwd=fp32",
     "seconds, for tests"},
#define PRESETS
#include "dev/systems/systems.h"
#undef PRESETS
};
#undef X

static int edit_distance(const char *a,
                         const char *b) { /* Levenshtein, one row of the table */
    int row[64];
    const int n = (int)strlen(b);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int corner = row[0];
        row[0]++;
        for (int j = 1; j <= n; j++) {
            const int swap = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            row[j] = MIN(swap, 1 + MIN(row[j - 1], row[j]));
        }
    }
    return row[n];
}

/* The option of the command whose name is nearest to key. */
static const Option *nearest_option(const char *key, int mask) {
    const Option *near = options;
    int least = 64;
    EACH_OPTION(o) {
        if (!(o->mask & mask) || o->mask & ~mask & FIXED) continue;
        const int distance = edit_distance(o->name, key);
        if (distance >= least) continue;
        least = distance;
        near = o;
    }
    return near;
}

static Config preset_config(const char *name);

/* What an option is when it is not asked for: what the first preset says. */
static const char *usual_value(const Option *o, char text[64]) {
    static Config usual;
    usual = preset_config(presets->name);
    return option_text(&usual, o, text);
}

static void parse_option(Config *c, const char *text, int mask) {
    char key[64], range[256], usual[64];
    const char *equals = strchr(text, '=');
    if (strncmp(text, "--", 2) || !equals || equals - text > 60)
        die("expected --key=value, found '%.80s'; see ./train_golf help", text);
    snprintf(key, sizeof key, "%.*s", (int)(equals - text - 2), text + 2);
    const Option *o = nearest_option(key, mask);
    if (strcmp(o->name, key))
        die("unknown option --%s; the nearest of this command is --%s [%s], %s", key,
            o->name, range_text(o, range), o->help);
    if (option_set(c, o, equals + 1)) return;
    die("--%s: expected %s, found '%s'; the default is '%s'", key,
        *o->range ? range_text(o, range) : "one line under 1,000 bytes", equals + 1,
        usual_value(o, usual));
}

static const Preset *preset_named(const char *name) {
    char all[512] = "";
    for (size_t i = 0; i < COUNT(presets); i++) {
        if (!strcmp(presets[i].name, name)) return presets + i;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "",
                 presets[i].name);
    }
    die("unknown preset '%s'; expected one of %s", name, all);
}

/* Defaults, then those of the preset. */
static Config preset_config(const char *name) {
    Config c;
    char text[1024], option[256], *save;
    config_defaults(&c);
    snprintf(text, sizeof text, "%s", preset_named(name)->options);
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        snprintf(option, sizeof option, "--%s", w);
        parse_option(&c, option, MODEL | TRAIN);
    }
    return c;
}

/* Defaults, then the preset, then the options in order. Returns the preset's name. */
static const char *parse_options(Config *c, int argc, char **argv, int mask) {
    const Preset *preset = presets; /* of other commands than train: the defaults */
    if (mask & TRAIN)
        for (int i = 0; i < argc; i++)
            if (!strncmp(argv[i], "--preset=", 9)) preset = preset_named(argv[i] + 9);
    *c = preset_config(preset->name);
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "--preset=", 9) || !(mask & TRAIN))
            parse_option(c, argv[i], mask);
    return preset->name;
}

static void print_usage(FILE *f) {
    fputs(
        "usage: ./train_golf train   [--preset=NAME] [--key=value ...]\n"
        "       ./train_golf eval    MODEL.golf [--data=DIR] [--stride=N]\n"
        "       ./train_golf sample  MODEL.golf [--prompt=\"...\"] [--tokens=200]\n"
        "       ./train_golf info    MODEL.golf\n"
        "       ./train_golf encode  MODEL.golf|TOKENIZER.model [--lines=1] < TEXT\n"
        "       ./train_golf decode  MODEL.golf|TOKENIZER.model [--lines=1] < IDS\n"
        "       ./train_golf export  MODEL.golf --to=NAME.safetensors [--dtype=bf16]\n"
        "       ./train_golf bench   [step|file|scaling|shapes] [--preset=NAME] [--vocab=4096] [--key=value ...]\n"
        "       ./train_golf prepare --out=DIR --name=NAME --train FILES... --val FILES...\n"
        "       ./train_golf prepare --out=DIR --hold_out=FOLDER\n"
        "       ./train_golf selftest        does this machine compute the recorded bits?\n"
        "       ./train_golf help    every option with its range\n"
        "Same seed, same bits: on every machine, with every compiler, any number of threads.\n",
        f);
}

static void print_options(const char *title, int mask, const char *system) {
    char range[256], name[64], usual[64];
    int any = 0;
    EACH_OPTION(o) {
        if (!(o->mask & mask) || o->mask & FIXED) continue;
        if (strcmp(system_name(o->file, name), system)) continue;
        if (!any) printf("\n%s:\n", title);
        any = 1;
        printf("  --%s=%s  %s\n      %s\n", o->name, usual_value(o, usual),
               range_text(o, range), o->help);
    }
}

int help_main(void) {
    print_usage(stdout);
    puts("\npresets:");
    for (size_t k = 0; k < COUNT(presets); k++)
        printf("  %-9s  %s\n  %9s  %s\n", presets[k].name, presets[k].help, "",
               k ? presets[k].options : "the values below");
    print_options("train", TRAIN, "");
    print_options("eval", EVAL, "");
    print_options("sample", SAMPLE, "");
    print_options("info", INFO, "");
    print_options("encode, decode", TEXT, "");
    print_options("export", EXPORT, "");
    print_options("model (train; kept in the artifact)", MODEL, "");
    for (const System *const *s = all_systems; *s; s++) {
        char title[128];
        snprintf(title, sizeof title, "system %s (dev/systems/%s.h)", (*s)->name,
                 (*s)->name);
        print_options(title, ~0, (*s)->name);
    }
    return 0;
}

static double peak_memory_mb(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
#ifdef __APPLE__
    return (double)use.ru_maxrss / 1e6;
#else
    return (double)use.ru_maxrss / 1e3; /* Linux counts in kB */
#endif
}

/* With so many phases: 6 x (weights of the matrices that a token meets, the head's too) +
 * attention's scores and sums; a third of it is the forward pass. */
static double flops_at(Golf *m, int phases) {
    const Config *c = &m->config;
    const int all = m->phases;
    double weights = 0;
    m->phases = phases;
    EACH_TENSOR(t, m) {
        double uses = t->role == EMBED ? 1 : phases; /* by the head; by the phases */
        if (t->role == INTERFACE || !t->n) continue;
        EACH_SYSTEM(s, m) {
            const double own = (*s)->flops ? (*s)->flops(m, t) : -1;
            if (own >= 0) uses = own;
        }
        weights += uses * t->rows * t->cols;
    }
    m->phases = all;
    return 6 * weights + 6.0 * c->seq * c->width * phases;
}

/* Of training, a mean of all its steps. */
static double flops_per_token(const Config *c) {
    Golf m;
    golf_layout(&m, c);
    const double all = flops_at(&m, m.phases);
    const double phase = all - flops_at(&m, m.phases - 1);
    double depth = m.phases;
    EACH_SYSTEM(s, &m) {
        if ((*s)->depth) depth = (*s)->depth(&m);
    }
    return all - (m.phases - depth) * phase;
}

/* Do bytes grow with the hidden width? */
static int hidden_counts(const Config *c) {
    Config wider = *c;
    Golf m, n;
    wider.hidden = hidden_width(c) + 8;
    golf_layout(&m, c);
    golf_layout(&n, &wider);
    return n.tensor[T_wup].rows > m.tensor[T_wup].rows;
}

/* What the widths that fit are multiples of: of what every system asks for. */
static int width_step(const Config *c) {
    int step = 8;
    for (const System *const *s = all_systems; *s; s++) {
        const int multiple = (*s)->multiple && (*s)->on(c) ? (*s)->multiple(c) : 1;
        const int least = step;
        while (step % multiple) step += least;
    }
    return step;
}

/* Bytes that a file may have before it is coded; its fields hold 32 bits. --fit=coded aims 2 %
 * over the cap, as far as predictions err: slightly coarser steps are better than codes of a
 * bit more. */
static size_t most_bytes(const Config *c) {
    const double aim = c->fit == FIT_CODED ? 1.02 * c->cap : c->cap;
    return (size_t)fmin(aim / c->squeeze, UINT32_MAX);
}

/* The largest value of an option, from `least` on in steps, with which the model is not
 * refused and its packed file fits; 0: none. Bytes grow with it. */
static int fit_option(Config *c, int *option, int least, int most, int step) {
    int best = 0;
    for (*option = least; *option <= most && !beyond_reach(layout_of(c));
         *option += step) {
        if (is_refused(config_check, c)) continue;
        if (artifact_bytes(c) > most_bytes(c)) break;
        best = *option;
    }
    return best;
}

/* ---- --fit=coded: the last byte. What coding leaves is known when a run has ended, and its
 * sizes are chosen before. So the coder predicts it from the new model, and training steers
 * to it: the step of the embedding's codes, finer or coarser than that of --embed_bits,
 * follows the size that the file would have (rate control, as in a video coder). At the end
 * the finest step with which the file fits is taken. */

static int is_one_number(const real *w, size_t n) { /* 0 and -0 are one */
    for (size_t i = 1; i < n; i++)
        if (w[i] != w[0]) return 0;
    return 1;
}

/* Tensor t of a new model, in the file of the trained one. What starts as one number says
 * nothing yet: the vectors of the interface get 10 of 16 bits (6 to 10.5 in the records,
 * after 600 to 12,000 steps), others count packed. */
static size_t expected_tensor_bytes(const Golf *m, const Tensor *t) {
    if (t->role == INTERFACE) return t->bytes * 10 / 16;
    if (is_one_number(m->master + t->at, t->n)) return t->bytes;
    return tensor_bytes(m, t);
}

/* Bits of a number of the embedding that training takes off: its columns get means, which the
 * coder learns. Measured: with 1,024 pieces 0.12 after 1,500 steps and 0.2 after 4,000, with
 * 4,096 pieces 0.2 after 1,200, 0.6 to 0.9 after 12,000. */
static double settled_bits(const Config *c) {
    return fmin(0.1 + 7e-5 * c->steps * sqrt(c->vocab / 4096.0), 0.9);
}

/* The file's bytes, not depending on --seed: all seeds are the same model. */
static double expected_bytes(const Config *c) {
    Golf m;
    Config first = *c;
    first.seed = 1;
    golf_init(&m, &first, 1);
    EACH_SYSTEM(s, &m) {
        if ((*s)->foresee) (*s)->foresee(&m);
    }
    double bytes = (double)ledger_of(&m).header;
    EACH_TENSOR(t, &m) {
        if (is_stored(t)) bytes += (double)expected_tensor_bytes(&m, t);
    }
    if (!c->embed_grid) bytes -= settled_bits(c) / 8 * (double)m.tensor[T_embed].n;
    golf_free(&m);
    return bytes;
}

/* The file's bytes as sizes are chosen by them. */
static size_t reckoned_bytes(const Config *c) {
    return c->fit == FIT_CODED ? (size_t)expected_bytes(c) : artifact_bytes(c);
}

static void reckon(Config *c) {
    if (c->fit == FIT_CODED)
        c->squeeze = (double)reckoned_bytes(c) / (double)artifact_bytes(c);
}

/* The widest model whose packed file fits into cap / squeeze; it grows with the width. What
 * is then left goes to the hidden width of the MLP, unless --hidden fixes it: equal caps
 * are equal bytes. */
static void choose_width(Config *c, int step) {
    const int width = fit_option(c, &c->width, step, 16384, step);
    if (!width) {
        c->width = MIN(c->width, 16384);
        config_check(c); /* may say why */
        die("--cap=%d: no multiple of %d and --heads=%d fits, %d needs %zu bytes; raise --cap or "
            "lower --embed_bits",
            c->cap, step, c->heads, c->width, reckoned_bytes(c));
    }
    c->width = width;
    if (c->hidden || !hidden_counts(c)) return;
    c->hidden = fit_option(c, &c->hidden, hidden_width(c) + step, 1 << 20, step);
}

/* Has `choose` find sizes for the cap. What coding leaves depends on them: so again, until
 * it is what they were chosen with, to 0.2 %. */
static void fit_sizes(Config *c, void (*choose)(Config *c, int step), int step) {
    enum { ROUNDS = 5 };
    const Config asked = *c;
    for (int round = 0; round < ROUNDS; round++) {
        const double squeeze = c->squeeze;
        *c = asked;
        c->squeeze = squeeze;
        choose(c, step);
        reckon(c);
        if (fabs(c->squeeze - squeeze) < 0.002) break;
    }
}

static void fit_width(Config *c) {
    check_systems(c);
    if (c->fit == FIT_CODED)
        c->squeeze = 0.6; /* less than any model's: it may still fit */
    fit_sizes(c, choose_width, width_step(c));
}

/* The grids of the embedding: from codes of 8 bits to those of which the largest is 1. */
static int finest_grid(const Config *c) { return -OCTAVE * (8 - c->embed_bits); }
static int coarsest_grid(const Config *c) { return OCTAVE * (c->embed_bits - 1); }

/* Steps of all matrices on grids 2^(grid / OCTAVE) times as large: the last resort. */
enum { COARSEST_MATRICES = 8 * OCTAVE };
static void set_matrix_grids(Golf *m, int grid) {
    EACH_TENSOR(t, m) {
        if (is_matrix(t)) t->coarse = (real)pow_of(2, (double)grid / OCTAVE);
    }
}

/* What the run can come down to, whatever it learns: grids at their coarsest, all else
 * packed. */
static size_t least_bytes(const Config *c) {
    Golf m;
    Config coarse = *c;
    coarse.embed_grid = coarsest_grid(c);
    golf_init(&m, &coarse, 1);
    set_matrix_grids(&m, COARSEST_MATRICES);
    golf_quantize(&m);
    size_t bytes = ledger_of(&m).header;
    EACH_TENSOR(t, &m) {
        const int on_grid = is_stored(t) && t->quant->coded == grid_coded;
        bytes += on_grid ? tensor_bytes(&m, t) : t->bytes;
    }
    golf_free(&m);
    return bytes;
}

/* Dies of sizes that were given, or weights, with which training cannot steer to the cap. */
static void check_coded_cap(Config *c) {
    Config coarse = *c;
    coarse.embed_grid = coarsest_grid(c);
    const double least = expected_bytes(&coarse);
    const size_t promised = least_bytes(c);
    reckon(c);
    if (least > c->cap)
        die("the artifact would have about %.0f bytes, %.0f with the coarsest embedding, --cap=%d; "
            "lower --width (--width=fit finds the widest that fits) or raise --cap",
            c->squeeze * (double)artifact_bytes(c), least, c->cap);
    if (promised > (size_t)c->cap)
        die("--fit=coded cannot promise --cap=%d: %zu bytes with all grids at their coarsest, and bf16 "
            "weights (--wq=none) are on none; lower --width or use --fit=packed",
            c->cap, promised);
}

/* In the second half of the run, about 32 times: what the file is over the cap, in bits per number
 * of the embedding, is how many octaves its next grid is coarser. A matter of the step
 * alone, before it makes its codes: a resumed run does the same. */
static void steer_embed_grid(Golf *m, int step) {
    const Config *c = &m->config;
    const int every = MAX(1, c->steps / 64);
    if (c->fit != FIT_CODED || 2 * step < c->steps || step % every) return;
    const int64_t over = (int64_t)file_bytes(m) - c->cap;
    const int64_t by = over * 8 * OCTAVE / (int64_t)m->tensor[T_embed].n;
    const int64_t grid = MAX(c->embed_grid + by, finest_grid(c));
    set_embed_grid(m, (int)MIN(grid, coarsest_grid(c)));
}

/* The finest grid of [from,to] with which the file fits; `to`, if none does. */
static int finest_that_fits(Golf *m, void (*set)(Golf *m, int grid), int from, int to) {
    while (from < to) {
        const int grid = from + (to - from) / 2;
        set(m, grid);
        golf_quantize(m);
        if (file_bytes(m) > (size_t)m->config.cap) from = grid + 1;
        else to = grid;
    }
    set(m, to);
    golf_quantize(m);
    return to;
}

/* After the last step: the file fits. */
static void end_at_cap(Golf *m) {
    const Config *c = &m->config;
    if (c->fit != FIT_CODED) return;
    finest_that_fits(m, set_embed_grid, finest_grid(c), coarsest_grid(c));
    if (file_bytes(m) > (size_t)c->cap)
        finest_that_fits(m, set_matrix_grids, 1, COARSEST_MATRICES);
}

/* How much larger steps are for the cap than their quantizers say; those of the embedding,
 * than --embed_bits says. */
static double embed_steps(const Golf *m) {
    return pow_of(2, (double)m->config.embed_grid / OCTAVE);
}

static double matrix_steps(const Golf *m) {
    const real coarse = m->tensor[T_wqkv].coarse;
    return coarse > 0 ? (double)coarse : 1;
}

/* What was done for the cap, behind a line of the file's size. */
static void say_fit(const Golf *m, size_t bytes) {
    const Config *c = &m->config;
    const double used = (double)bytes / c->cap, matrices = matrix_steps(m);
    printf("%.2f %% of the cap", 100 * used);
    if (c->fit == FIT_CODED)
        printf("; the embedding's steps are %.4g of those of %d bits, its codes have %d",
               embed_steps(m), c->embed_bits, m->tensor[T_embed].bits);
    if (matrices > 1)
        printf("; that was not enough: steps of the matrices are %.4g of theirs",
               matrices);
    if (c->fit == FIT_CODED && used < 0.99)
        printf("; no finer ones were found that fit: the rest is for a larger model");
    putchar('\n');
}

/* ---- result.json */
static void put_json(FILE *f, const char *text) { /* quoted */
    fputc('"', f);
    for (; *text; text++) {
        const int c = (unsigned char)*text;
        if (c < 32) fprintf(f, "\\u%04x", c);
        else if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

static void put_json_pair(FILE *f, const char *key, const char *value) {
    put_json(f, key);
    fputs(": ", f);
    put_json(f, value);
}

/* What the projections' codes and bytes say. */
typedef struct {
    double stored, ternary, codes,
        zeros; /* numbers: all; ternary; projections' codes; those at 0 */
    double weights, coded,
        packed; /* of all matrices: numbers, bytes in the file, packed */
} Census;

static Census census_of(const Golf *m) {
    Census s = {0};
    EACH_TENSOR(t, m) {
        if (!is_stored(t)) continue;
        s.stored += (double)t->n;
        if (t->quant == quantizers + Q_TERNARY) s.ternary += (double)t->n;
        if (is_matrix(t)) {
            s.weights += (double)t->n;
            s.coded += (double)t->coded;
            s.packed += (double)t->bytes;
        }
        if (t->role != PROJ || t->quant->domain < 0) continue;
        s.codes += (double)t->n;
        for (size_t i = t->at; i < t->at + t->n; i++) s.zeros += !m->code[i] && !t->half;
    }
    return s;
}

static double rms_of(const real *x, size_t n) {
    return sqrt(block_sum(x, n, 1) / (double)n);
}

static void result_numbers(const Golf *m, const Run *r, FILE *f) {
    const Config *c = &m->config;
    const Census s = census_of(m);
    const double total = (double)ledger_of(m).total, weights = fmax(s.weights, 1e-9);
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"seed", c->seed},
        {"steps", r->steps},
        {"tokens", (double)r->steps * c->batch * c->seq},
        {"seconds", r->seconds},
        {"tok_per_s", r->tok_per_s},
        {"threads", omp_get_max_threads()},
        {"peak_memory_mb", peak_memory_mb()},
        {"val_loss", r->file.loss},
        {"val_bpb", r->file.bpb},
        {"val_tokens", (double)r->file.tokens},
        {"val_bytes", (double)r->file.bytes},
        {"memory_val_bpb", r->memory.bpb},
        {"roundtrip_gap", r->file.bpb - r->memory.bpb},
        {"bytes_model", total},
        {"bytes_packed", (double)artifact_bytes(c)},
        {"bytes_code", GOLF_CODE_BYTES},
        {"bytes_total", total + GOLF_CODE_BYTES},
        {"cap", c->cap},
        {"cap_used", total / c->cap},
        {"embed_steps", embed_steps(m)},
        {"matrix_steps", matrix_steps(m)},
        {"params_stored", s.stored},
        {"params_ternary", s.ternary},
        {"weight_bits", 8 * s.coded / weights},
        {"weight_bits_packed", 8 * s.packed / weights},
        {"flops_per_token", flops_per_token(c)},
        {"zero_fraction", s.zeros / fmax(s.codes, 1)},
        {"flip_rate", (double)m->flips / r->steps / fmax(s.codes, 1)},
    };
    for (size_t i = 0; i < COUNT(numbers); i++)
        fprintf(f, "  \"%s\": %.17g,\n", numbers[i].key, numbers[i].value);
}

static void result_texts(const Run *r, FILE *f) {
    const struct {
        const char *key, *value;
    } texts[] = {{"name", r->name},
                 {"preset", r->preset},
                 {"git_rev", GOLF_GIT_REV},
                 {"compiler", __VERSION__},
                 {"isa", GOLF_ISA}};
    for (size_t i = 0; i < COUNT(texts); i++) {
        fputs("  ", f);
        put_json_pair(f, texts[i].key, texts[i].value);
        fputs(",\n", f);
    }
}

/* dev/check/certify.h */
static void put_certificate(FILE *f, const char *lines, int seed);
static char *certificate_of_run(const char *path, const Config *c, const Tokenizer *tok,
                                Shards *val, const Score *s, int *good);

static void write_result(const Golf *m, const Run *r, const real *phase_rms) {
    const Config *c = &m->config;
    const Ledger l = ledger_of(m);
    char text[64], *json;
    size_t len;
    FILE *f = open_memstream(&json, &len);
    if (!f) die("out of memory");
    fputs("{\n", f);
    result_texts(r, f);
    result_numbers(m, r, f);
    EACH_SYSTEM(s, m) {
        if ((*s)->result) (*s)->result(m, f);
    }
    if (r->certificate) put_certificate(f, r->certificate, c->certify);
    fprintf(f, "  \"fits\": %s,\n", l.total <= (size_t)c->cap ? "true" : "false");
    fprintf(
        f,
        "  \"bytes\": {\"core\": %zu, \"embedding\": %zu, \"interface\": %zu, \"protected\": "
        "%zu, \"header\": %zu},\n",
        l.of[LEDGER_CORE], l.of[LEDGER_EMBEDDING], l.of[LEDGER_INTERFACE],
        l.of[LEDGER_PROTECTED], l.header);
    fputs("  \"phases\": [", f);
    for (int p = 0; p < m->phases; p++)
        fprintf(f, "%s%.9g", p ? ", " : "", (double)phase_rms[p]);
    fputs("],\n  \"config\": {", f);
    const char *comma = "";
    EACH_OPTION(o) {
        if (!(o->mask & (MODEL | TRAIN))) continue;
        fputs(comma, f);
        put_json_pair(f, o->name, option_text(c, o, text));
        comma = ", ";
    }
    fputs("}\n}\n", f);
    if (fclose(f)) die("out of memory");
    write_file(path_of(c->out, "result.json"), json, len);
    free(json);
}

/* ---- Training. */
/* The shards of a split, which the tokenizer beside them, if there is one, must have
 * made. */
static Shards *open_split(const Config *c, const Tokenizer *tok, const char *split) {
    const char *path = path_of(c->data, "tokenizer.model");
    if (!access(path, F_OK)) {
        size_t len;
        uint8_t *file = read_file(path, &len);
        if (crc32_of(0, file, len) != tok->crc)
            die("%s: the shards beside it were made with it, not with %s; give the --data and "
                "--tokenizer that belong together",
                path, tok->path);
        free(file);
    }
    Shards *s = shards_open(c->data, split, tok->vocab);
    if (!strcmp(split, "val")) check_text_bytes(tok, s);
    return s;
}

/* x (B*T + 1) and y (B*T) of a step. */
static void batch_at(Shards *train, const Config *c, int step, int *x, int *y) {
    const size_t T = (size_t)c->seq;
    for (int b = 0; b < c->batch; b++) {
        const int64_t row = (int64_t)step * c->batch + b;
        shards_train_row(train, (uint64_t)c->seed, row, c->seq, c->shuffle, x);
        memcpy(y, x + 1, sizeof(int) * T); /* the next row overwrites x[T] */
        x += T;
        y += T;
    }
}

/* Dies when there is nothing to learn from: a loss or a gradient that is no number, or one
 * that, clipped, has a square which is no float. */
static void stop_if_diverged(int step, double loss, double norm, double scale) {
    if (isfinite(loss) && norm * scale < 1e18) return;
    die("step %d: loss %g, gradient norm %g: training diverged; the last checkpoint is as it "
        "was; try lower rates (--lr, --lr_muon) or a smaller --clip",
        step, loss, norm);
}

/* The last update is followed by no loss that would show what it broke: nothing is written of
 * such a model. */
static void stop_if_broken(const Golf *m, int step) {
    for (size_t i = 0; i < m->n_params; i++)
        if (!isfinite(m->master[i]))
            die("step %d made weights that are no numbers: training diverged; the last checkpoint "
                "is as it was; try lower rates (--lr, --lr_muon) or a smaller --clip",
                step);
}

/* The loss of groups first .. first + n - 1 of a batch, and its gradient in m->grad: the means
 * of those of two halves, and so on down to one group. Thus a half has the same numbers whoever
 * computes it. half: for each halving one more gradient. */
static double groups_backward(Golf *m, const int *x, const int *y, int first, int n,
                              real **half) {
    const Config *c = &m->config;
    real *grad = m->grad;
    if (n == 1) {
        const size_t at = (size_t)first * group_tokens(c);
        const double loss = golf_forward(m, x + at, y + at, group_rows(c), c->seq);
        golf_backward(m, x + at, group_rows(c), c->seq);
        return loss;
    }
    const double left = groups_backward(m, x, y, first, n / 2, half + 1);
    m->grad = *half;
    const double right = groups_backward(m, x, y, first + n / 2, n / 2, half + 1);
    m->grad = grad;
    FOR_RANGE(i, 0, m->n_params) grad[i] = (grad[i] + half[0][i]) / 2;
    return (left + right) / 2;
}

double golf_step(Golf *m, const int *x, const int *y, int step, double *grad_norm) {
    const Config *c = &m->config;
    EACH_SYSTEM(s, m) {
        if ((*s)->step) (*s)->step(m, step);
    }
    const int groups = c->accum / n_ranks; /* of this rank */
    const double mine = groups_backward(m, x, y, my_rank * groups, groups, m->half);
    const double loss = ranks_mean(m, mine);
    const double norm = golf_grad_norm(m);
    const double scale = c->clip > 0 && norm > c->clip ? c->clip / norm : 1;
    stop_if_diverged(step, loss, norm, scale);
    m->step = step + 1;
    golf_adamw(m, step, scale);
    if (c->optimizer == OPT_MUON) golf_muon(m, step, scale);
    EACH_SYSTEM(s, m) {
        if ((*s)->update) (*s)->update(m, step);
    }
    steer_embed_grid(m, step);
    golf_quantize(m);
    *grad_norm = norm;
    return loss;
}

/* The run folder: made as by mkdir -p, refused if it holds a run, locked while its log is
 * open. */
static const char *const run_files[] = {"log.tsv", "ckpt.bin", "model.golf",
                                        "result.json"};

static void make_folder(const Config *c) {
    char path[1100];
    for (int i = 0; i < 4; i++)
        if (!c->resume && !c->overwrite && run_has(c, run_files[i]))
            die("%s holds a run (%s); give --resume=1, --overwrite=1 or another --out",
                c->out, run_files[i]);
    if (my_rank) return;
    for (size_t i = 1; i <= strlen(c->out); i++) {
        if (c->out[i] && c->out[i] != '/') continue;
        snprintf(path, sizeof path, "%.*s", (int)i, c->out);
        if (mkdir(path, 0777) && errno != EEXIST)
            die("%s: cannot make the folder: %s; choose another --out", path,
                strerror(errno));
    }
}

/* The names of the log's columns, to free. */
static char *log_columns(const Golf *m) {
    char *columns;
    size_t n;
    FILE *f = open_memstream(&columns, &n);
    if (!f) die("out of memory");
    fputs("step\ttokens\ttrain_loss\tval_bpb\tlr\tgrad_norm\tms\ttok_per_s", f);
    EACH_SYSTEM(s, m) {
        if ((*s)->columns) fputs((*s)->columns, f);
    }
    if (fclose(f)) die("out of memory");
    return columns;
}

/* Column i, from 0, of a row of the log. */
static double log_number(const char *row, int i) {
    for (; i > 0; i--) {
        row = strchr(row, '\t');
        if (!row) return 0;
        row++;
    }
    return strtod(row, NULL);
}

/* Bytes of a log's header and its rows up to the step from which the run goes on. Their time
 * counts, too. */
static off_t rows_to_keep(FILE *log, const char *path, Run *run) {
    char *row = NULL;
    size_t room = 0;
    off_t end = 0;
    rewind(log); /* "a+" starts to read at the end on macOS */
    ssize_t len = getline(&row, &room, log);
    while (len > 0) {
        const int header = end == 0, kept = atoll(row) > 0 && atoll(row) <= run->steps;
        if (!strchr(row, '\n') || !(header || kept)) break;
        end += (off_t)strlen(row);
        run->timed += !header;
        run->seconds += 1e-3 * log_number(row, 6); /* 0 in the header */
        len = getline(&row, &room, log);
    }
    if (len < 0 && !feof(log)) die("%s: cannot read: %s", path, strerror(errno));
    free(row);
    return end;
}

/* The log, locked while it is open. Some network folders know no locks: that is no other run. */
static FILE *locked_log(const char *path, const char *folder) {
    FILE *log = fopen(path, "a+");
    if (!log) die("%s: cannot write: %s; choose another --out", path, strerror(errno));
    if (!flock(fileno(log), LOCK_EX | LOCK_NB)) return log;
    if (errno == EWOULDBLOCK)
        die("%s: another run is writing into this folder; choose another --out", folder);
    fprintf(stderr,
            "note: %s cannot be locked (%s): nothing keeps another run out of %s\n", path,
            strerror(errno), folder);
    return log;
}

/* Cuts off what stands behind that step. What stays is not written again, so that nothing can
 * happen to it, unless the header lacks columns that the run has now: then all of it is, as a
 * new file, and returned; the old one stays open for its lock. */
static FILE *keep_rows(FILE *log, const Golf *m, const char *path, Run *run) {
    const off_t end = run->steps ? rows_to_keep(log, path, run) : 0;
    char *columns = log_columns(m), *text = xcalloc((size_t)end + 1, 1);
    rewind(log);
    errno = 0;
    if (fread(text, 1, (size_t)end, log) < (size_t)end)
        die("%s: cannot read: %s", path, read_error());
    const int as_now = end && !strncmp(text, columns, strlen(columns));
    if (end && !as_now) {
        const char *rows = strchr(text, '\n');
        write_parts(path, (Part[]){{columns, strlen(columns)}, {rows, strlen(rows)}}, 2);
        log = locked_log(path, m->config.out);
    }
    if (as_now || !end) {
        if (ftruncate(fileno(log), end) || fseek(log, 0, SEEK_END))
            die("%s: cannot write: %s; choose another --out", path, strerror(errno));
        if (!end) fprintf(log, "%s\n", columns);
        if (ferror(log) || fflush(log))
            die("%s: cannot write: %s; make room or choose another --out", path,
                strerror(errno));
    }
    free(columns);
    free(text);
    return log;
}

static FILE *open_log(const Golf *m, Run *run) {
    const Config *c = &m->config;
    const char *path = path_of(c->out, "log.tsv");
    if (my_rank) {
        FILE *none = fopen("/dev/null", "w");
        if (!none) die("/dev/null: cannot write: %s", strerror(errno));
        return none;
    }
    FILE *log = keep_rows(locked_log(path, c->out), m, path, run);
    if (run->steps) return log;
    for (int i = 3; i > 0; i--) { /* what was overwritten: a result before its model */
        char file[PATH_ROOM];
        follow_links(path_of(c->out, run_files[i]), file);
        if (remove(file) && errno != ENOENT)
            die("%s: cannot remove %s: %s", c->out, run_files[i], strerror(errno));
    }
    return log;
}

/* Systems read what they need: the same at the start, after --minutes, and on resuming. */
static void open_systems(Golf *m, const Tokenizer *tok, int resumes) {
    m->tokenizer_crc = tok->crc;
    EACH_SYSTEM(s, m) {
        if ((*s)->open) (*s)->open(m, tok, resumes);
    }
}

/* --minutes: how many steps fit, measured on a model that is then thrown away, with all
 * that a step of the run will do. */
static void fit_minutes(Golf *m, const Tokenizer *tok, Shards *train, int *x, int *y) {
    Config c = m->config;
    double norm, t = 0;
    open_systems(m, tok, 0);
    for (int i = 0; i < 3; i++) {
        if (i == 1) t = now(); /* the first step finds no memory mapped */
        batch_at(train, &c, i, x, y);
        golf_step(m, x, y, c.steps > 3 ? c.steps - 3 + i : i,
                  &norm); /* at its full depth */
    }
    const double ms = 500 * (now() - t), fit = 60000 * c.minutes / ms;
    if (fit < c.steps) c.steps = fit < 1 ? 1 : (int)fit;
    c.steps = ranks_most(c.steps);
    printf("--minutes=%g at %.0f ms a step: the schedule has %d steps instead of %d\n",
           c.minutes, ms, c.steps, m->config.steps);
    config_check(&c);
    golf_free(m);
    golf_init(m, &c, 1);
    golf_buffers(m, group_tokens(&c));
}

static volatile sig_atomic_t stop_signal;
static void on_signal(int sig) { stop_signal = sig; }

/* What ends a run: Ctrl-C, a queue's or the system's wish, the end of a terminal unless nohup
 * bears it. */
static void catch_signals(void (*handler)(int)) {
    signal(SIGINT, handler);
    signal(SIGTERM, handler);
    if (signal(SIGHUP, handler) == SIG_IGN) signal(SIGHUP, SIG_IGN);
}

/* What a step did. */
typedef struct {
    double loss, norm, rate, seconds;
    char bpb[32]; /* of the validation text, or empty */
} StepReport;

static void log_step(const Golf *m, FILE *log, int step, const StepReport *r) {
    const size_t tokens = step_tokens(&m->config);
    fprintf(log, "%d\t%zu\t%.17g\t%s\t%.6g\t%.17g\t%.1f\t%.0f", step,
            (size_t)step * tokens, r->loss, r->bpb, r->rate, r->norm, 1e3 * r->seconds,
            (double)tokens / r->seconds);
    EACH_SYSTEM(s, m) {
        if ((*s)->log_row) (*s)->log_row(m, log);
    }
    if (fputc('\n', log) == EOF || fflush(log))
        die("%s/log.tsv: cannot write: %s; make room", m->config.out, strerror(errno));
}

/* One line that is rewritten on a terminal, every tenth step else. */
static void show_step(const Golf *m, int step, int last, double seconds_left,
                      const StepReport *r) {
    const int tty = isatty(1), eta = (int)seconds_left;
    const double tokens = (double)step_tokens(&m->config);
    if (!tty && step % 10 && !last && !*r->bpb) return;
    if (tty) fputs("\r\033[K", stdout);
    printf("step %d/%d  loss %.4f  ", step, m->config.steps, r->loss);
    if (*r->bpb) printf("%s bpb  ", r->bpb);
    printf("%.0f tok/s  ETA %d:%02d", tokens / r->seconds, eta / 60, eta % 60);
    if (!tty || *r->bpb || last) putchar('\n');
    fflush(stdout);
}

static void train_loop(Golf *m, const Tokenizer *tok, Shards *train, Shards *val,
                       Run *run, FILE *log, int *x, int *y) {
    const Config *c = &m->config;
    const int first = run->steps;
    const double started = now();
    int stop = 0;
    catch_signals(on_signal);
    while (run->steps < c->steps) {
        const double t0 = now(), peak = c->optimizer == OPT_MUON ? c->lr_muon : c->lr;
        StepReport r = {.rate = peak * lr_factor(c, run->steps)};
        batch_at(train, c, run->steps, x, y);
        r.loss = golf_step(m, x, y, run->steps, &r.norm);
        r.seconds = now() - t0;
        run->steps++;
        const int step = run->steps, end = step == c->steps;
        if (c->val_every && step % c->val_every == 0 && !end)
            snprintf(r.bpb, sizeof r.bpb, "%.6f",
                     golf_eval(m, tok, val, 0, c->val_tokens).bpb);
        stop = ranks_most(stop_signal); /* read once: what stops also saves */
        log_step(m, log, step, &r);
        show_step(m, step, end || stop,
                  (now() - started) / (step - first) * (c->steps - step), &r);
        if (end || stop || (c->ckpt_every && step % c->ckpt_every == 0)) {
            stop_if_broken(m, step);
            ranks_meet(m);
            ckpt_save(m, path_of(c->out, "ckpt.bin"), step);
        }
        if (stop) break;
    }
    catch_signals(SIG_DFL); /* scoring may be cut short */
    run->seconds += now() - started;
    run->timed += run->steps - first;
    if (run->seconds > 0)
        run->tok_per_s = (double)step_tokens(c) * run->timed / run->seconds;
    if (run->steps == c->steps) return;
    printf("stopped by signal %d after step %d, checkpoint saved; --resume=1 goes on\n",
           stop, run->steps);
    exit(128 + stop);
}

/* ---- Options that mean nothing beside the others. */
/* Do these models store their tensors alike, and round what enters them? */
static int same_storage(const Config *a, const Config *b) {
    Golf m, n;
    golf_layout(&m, a);
    golf_layout(&n, b);
    for (int k = 0; k < N_TENSORS; k++) {
        const Tensor *t = m.tensor + k, *u = n.tensor + k;
        const int same = t->quant == u->quant && t->bits == u->bits &&
                         t->copy_scales == u->copy_scales && t->passes == u->passes;
        if (is_stored(t) != is_stored(u)) return 0;
        if (is_stored(t) && !(same && m.inputs[k] == n.inputs[k])) return 0;
    }
    return 1;
}

/* The same with another value of an option. */
static Config with_option(const Config *c, const char *name, const char *value) {
    Config other = *c;
    if (!option_set(&other, option_named(name), value))
        die("--%s has no value %s", name, value);
    return other;
}

static int wq_means(const Config *c) {
    const Config other = with_option(c, "wq", option_named("wq")->def);
    return !same_storage(c, &other);
}

/* Are scales others than those of `auto`, or (if not) the ones that the word says? */
static int wscale_means(const Config *c) {
    const Config chosen = with_option(c, "wscale", "auto");
    const Config row = with_option(c, "wscale", "row");
    const Config group = with_option(c, "wscale", "group");
    if (!same_storage(c, &chosen)) return 1;
    return !same_storage(c, c->wscale == SCALE_ROW ? &group : &row);
}

static int stores_role(const Config *c, int role) {
    Golf m;
    golf_layout(&m, c);
    EACH_TENSOR(t, &m) {
        if (t->role == role && is_stored(t)) return 1;
    }
    return 0;
}

/* Does the run start from trained weights? */
static int has_donor(const Config *c) {
    for (const System *const *s = all_systems; *s; s++)
        if ((*s)->gives & RES_DONOR && (*s)->on(c)) return 1;
    return 0;
}

static int trained_at_lr(const Config *c) {
    return c->optimizer == OPT_ADAMW || stores_role(c, FACTOR);
}

/* Did the command line, and not the preset, move the option away from its default? */
static int is_asked(const Config *c, const Config *preset, const char *name) {
    const Option *o = option_named(name);
    char text[64], there[64];
    return !at_default(c, o) &&
           strcmp(option_text(c, o, text), option_text(preset, o, there));
}

/* The first option that was asked for and means nothing, or NULL; why: the other half of
 * the sentence. */
static const char *meaningless(const Config *c, const Config *preset, const char **why);

static void check_meanings(const Config *c, const char *preset) {
    const Config from = preset_config(preset);
    const char *why, *name = meaningless(c, &from, &why);
    char text[64];
    if (name)
        die("--%s=%s means nothing %s; leave it out", name,
            option_text(c, option_named(name), text), why);
}

/* Can the run keep its promise about the file's size? */
static void check_cap(Config *c) {
    const size_t most = artifact_bytes(c);
    if (c->fit == FIT_CODED) {
        check_coded_cap(c);
        return;
    }
    if (most > most_bytes(c))
        die("the artifact would have %zu bytes, --cap=%d --squeeze=%g; lower --width (--width=fit "
            "finds the widest that fits) or raise --cap",
            most, c->cap, c->squeeze);
}

/* --fit=coded computes what --squeeze says. */
static void check_squeeze(const Config *c) {
    if (c->fit == FIT_CODED && c->squeeze < 1)
        die("--squeeze=%g is a bet on what --fit=coded predicts; leave it out or, if the preset has "
            "it, give --squeeze=1",
            c->squeeze);
}

/* The options of a run, completed and checked against its tokenizer and the cap. */
static Tokenizer *open_run(Config *c, Run *run) {
    if (!*c->out) snprintf(c->out, sizeof c->out, "runs/%s", run->preset);
    check_squeeze(c);
    cut_slashes(c->out);
    const char *beside = path_of(c->data, "tokenizer.model");
    if (!*c->tokenizer && access(beside, R_OK))
        die("%s: expected data with a tokenizer.model, found none; run data/get.sh",
            c->data);
    Tokenizer *tok = tokenizer_load(*c->tokenizer ? c->tokenizer : beside);
    c->vocab = tok->vocab;
    if (c->vocab > 65536)
        die("%s: expected at most 65536 pieces (shards: 16 bits), found %d", tok->path,
            c->vocab);
    if (!c->width) fit_width(c);
    config_check(c);
    const int resumes = c->resume && run_has(c, "ckpt.bin");
    if (!resumes) check_meanings(c, run->preset); /* else: as it was started */
    check_cap(c);
    return tok;
}

/* A system that starts from a trained model needs one that brings it. */
static void check_donor(const Golf *m) {
    const System *wants = NULL;
    EACH_SYSTEM(s, m) {
        if ((*s)->wants & RES_DONOR) wants = *s;
    }
    if (!wants || has_donor(&m->config)) return;
    for (const System *const *s = all_systems; *s; s++)
        if ((*s)->gives & RES_DONOR)
            die("--%s (%s) starts from trained weights: give --%s (%s)", wants->needs,
                wants->name, (*s)->needs, (*s)->name);
    die("--%s (%s) starts from trained weights, and no system of this program brings them",
        wants->needs, wants->name);
}

static void print_start(const Golf *m, const Run *run, const Shards *train) {
    const Config *c = &m->config;
    char wq[64];
    printf("%s: C=%d H=%d F=%d, distinct blocks: %d, phases: %d, %zu parameters, "
           "--wq=%s\n",
           run->name, c->width, c->heads, m->tensor[T_wup].rows, block_count(c),
           m->phases, m->n_params, option_text(c, option_named("wq"), wq));
    if (c->fit == FIT_CODED)
        printf("artifact about %.0f bytes before it is steered to %d; ",
               c->squeeze * (double)artifact_bytes(c), c->cap);
    else
        printf("artifact at most %zu bytes of %d / %g; ", artifact_bytes(c), c->cap,
               c->squeeze);
    printf("%.2f MFLOP per token; ", flops_per_token(c) / 1e6);
    if (n_ranks > 1) printf("%d ranks, each with ", n_ranks);
    printf("%d threads, %s\n", omp_get_max_threads(), GOLF_ISA);
    printf("%lld training tokens, %d steps of %zu from step %d; into %s\n",
           (long long)train->tokens, c->steps, step_tokens(c), run->steps, c->out);
    if (!GOLF_FMA)
        puts(
            "slow: this build has no fused multiply-add, so they are computed from doubles");
    EACH_SYSTEM(s, m) {
        if ((*s)->announce) (*s)->announce(m);
    }
}

/* RMS of the stream behind each phase, at full depth, on the last batch, or its first group: a
 * run that had nothing left to train has them, too. */
static real *phase_sizes(Golf *m, Shards *train, int *x, int *y) {
    const Config *c = &m->config;
    real *rms = xcalloc((size_t)m->phases, sizeof(real));
    batch_at(train, c, c->steps - 1, x, y);
    EACH_SYSTEM(s, m) {
        if ((*s)->step) (*s)->step(m, -1);
    }
    golf_forward(m, x, NULL, group_rows(c), c->seq);
    for (int i = 0; i < m->n_visits; i++) {
        const int p = m->visits[i];
        rms[p] = (real)rms_of(m->phase[p].out, m->N * (size_t)c->width);
    }
    return rms;
}

/* Exports, scores the file as read back into a fresh model, writes result.json. Returns 0
 * if the score was to be proved and is none. */
static int finish_run(Golf *m, const Tokenizer *tok, Shards *val, Run *run,
                      real *phase_rms) {
    const Config *c = &m->config;
    const char *path = path_of(c->out, "model.golf");
    Golf loaded;
    int good = 1;
    run->memory = golf_eval(m, tok, val, 0, c->val_tokens);
    if (!isfinite(run->memory.bpb))
        die("val_bpb is %g: training diverged, and no model is written; try lower rates (--lr, "
            "--lr_muon) or a smaller --clip",
            run->memory.bpb);
    golf_save(m, path, tok->crc);
    golf_load(&loaded, path);
    golf_buffers(&loaded, m->N);
    run->file =
        golf_eval(&loaded, tok, val, 0, c->val_tokens); /* the number that counts */
    golf_free(&loaded);
    if (c->certify)
        run->certificate = certificate_of_run(path, c, tok, val, &run->file, &good);
    write_result(m, run, phase_rms);
    free(phase_rms);

    const Ledger l = ledger_of(m);
    const size_t bytes = l.total;
    const char *fits = bytes <= (size_t)c->cap ? "FITS" : "OVER";
    const char *prefix = c->val_tokens ? " (a prefix: --val_tokens)" : "";
    printf(
        "%s: %zu bytes, %s; val_bpb %.6f from the file, %.6f in memory, on %lld tokens, %lld "
        "bytes%s\n",
        path, bytes, fits, run->file.bpb, run->memory.bpb, (long long)run->file.tokens,
        (long long)run->file.bytes, prefix);
    printf("core %zu, embedding %zu, interface %zu, protected %zu, header %zu: ",
           l.of[LEDGER_CORE], l.of[LEDGER_EMBEDDING], l.of[LEDGER_INTERFACE],
           l.of[LEDGER_PROTECTED], l.header);
    say_fit(m, bytes);
    printf("%d steps in %.1f s, %.0f tokens/s, %.0f GFLOP/s; peak memory %.0f MB\n",
           run->timed, run->seconds, run->tok_per_s,
           1e-9 * run->tok_per_s * flops_per_token(c), peak_memory_mb());
    if (c->certify) printf("certified %s, see result.json\n", good ? "yes" : "no");
    return good;
}

int train_main(int argc, char **argv) {
    Config config, *c = &config;
    Golf m;
    Run run = {0};
    run.preset = parse_options(c, argc, argv, MODEL | TRAIN);
    Tokenizer *tok = open_run(c, &run);
    run.name = strrchr(c->out, '/') ? strrchr(c->out, '/') + 1 : c->out;
    Shards *train = open_split(c, tok, "train"), *val = open_split(c, tok, "val");
    if (MIN(train->tokens, val->tokens) <= c->seq)
        die("%s: expected over --seq=%d tokens, found %lld to train and %lld to validate; use more "
            "text or a smaller --seq",
            c->data, c->seq, (long long)train->tokens, (long long)val->tokens);
    ranks_compare(c, train, val);
    golf_layout(&m, c);
    tokens_to_score(&m, val, 0, c->val_tokens); /* before the run, not after it */
    check_donor(&m);
    check_memory(&m, 1);
    make_folder(c);

    golf_init(&m, c, 1);
    golf_buffers(&m, group_tokens(c));
    c = &m.config;
    const size_t tokens = step_tokens(c);
    int *x = xcalloc(tokens + 1, sizeof(int)), *y = xcalloc(tokens, sizeof(int));
    const char *ckpt = path_of(c->out, "ckpt.bin");
    const int resumes = c->resume && run_has(c, "ckpt.bin");
    if (c->resume && !resumes && run_has(c, "model.golf"))
        die("%s: nothing to resume: a model but no ckpt.bin; --overwrite=1 starts again",
            c->out);
    if (!resumes && c->minutes > 0) fit_minutes(&m, tok, train, x, y);
    open_systems(&m, tok, resumes);
    if (resumes) {
        same_tokenizer(tok, ckpt);
        run.steps = (int)ckpt_load(&m, ckpt);
    }
    const int first = run.steps;
    ranks_meet(&m);
    FILE *log = open_log(&m, &run);
    if (first == c->steps && run_has(c, "result.json")) {
        printf("%s is finished: nothing to do\n", c->out);
        return 0;
    }
    write_file(path_of(c->out, "tokenizer.model"), tok->file, tok->size);
    print_start(&m, &run, train);
    train_loop(&m, tok, train, val, &run, log, x, y);
    end_at_cap(&m);
    return !finish_run(&m, tok, val, &run, phase_sizes(&m, train, x, y));
}

/* ---- The other commands. */
/* Loads an artifact with the options of a command and the tokenizer it was trained
 * with. */
static Tokenizer *open_model(Golf *m, Config *how, const char *path, int argc,
                             char **argv, int mask) {
    char beside[2048];
    const char *slash = strrchr(path, '/');
    const int folder = slash ? (int)(slash - path + 1) : 0;
    check_meanings(how, parse_options(how, argc, argv, mask));
    const uint32_t crc = golf_load(m, path);
    if (mask == INFO) {
        printf("tokenizer_crc32=%08x\n", crc);
        return NULL;
    }
    snprintf(beside, sizeof beside, "%.*stokenizer.model", folder, path);
    Tokenizer *tok = tokenizer_load(*how->tokenizer ? how->tokenizer : beside);
    if (tok->crc != crc || tok->vocab != m->config.vocab)
        die("%s: expected the tokenizer the model was trained with (%d pieces, CRC-32 %08x), found "
            "%d pieces, %08x; give --tokenizer",
            tok->path, m->config.vocab, crc, tok->vocab, tok->crc);
    return tok;
}

/* 16, or as many as have 65,536 tokens. */
static size_t rows_at_a_time(const Config *c) {
    return (size_t)MAX(1, MIN(16, 65536 / c->seq));
}

/* What is to be scored, and how. by: whose score it is, or NULL for the model's own. */
typedef struct {
    const char *path;
    const Config *how;
    const Tokenizer *tok;
    Shards *val;
    const System *by;
    FILE *to; /* where a certificate goes */
} Scoring;

/* A system that is there for an evaluation: its hooks are called behind those of others. */
static void join(Golf *m, const System *s) {
    const System **at = m->systems;
    while (*at) at++;
    *at = s;
}

/* A model from its file gets buffers, and what the options make of it. */
static void ready_to_score(Golf *m, const Config *how) {
    golf_buffers(m, rows_at_a_time(&m->config) * (size_t)m->config.seq);
    for (const System *const *s = all_systems; *s; s++)
        if ((*s)->eval) (*s)->eval(m, how);
}

#include "dev/check/certify.h" /* certify */

static void print_score(const char *name, const Score *s) {
    printf("%s_loss %.12f\n%s_bpb %.12f\n", name, s->loss, name, s->bpb);
}

/* The score that a system has of the file, if it is asked for. Returns 0 if it is no
 * score. */
static int score_again(const Scoring *what) {
    Golf m;
    int good = 1;
    golf_load(&m, what->path);
    ready_to_score(&m, what->how);
    if (what->by->again(&m, what->tok, what->how)) {
        const Score s =
            golf_eval(&m, what->tok, what->val, what->how->stride, what->how->val_tokens);
        print_score(what->by->name, &s);
        printf("%s_sum_nll %.17g\n", what->by->name, s.nll);
        what->by->report(&m, &s, stdout);
        if (what->how->certify) good = certify(what, &s);
    }
    golf_free(&m);
    return good;
}

int eval_main(const char *path, int argc, char **argv) {
    Config how;
    Golf m;
    const Tokenizer *tok = open_model(&m, &how, path, argc, argv, EVAL);
    Scoring what = {.path = path, .how = &how, .tok = tok, .to = stdout};
    what.val = open_split(&how, tok, "val");
    ready_to_score(&m, &how);
    for (const System *const *by = all_systems; *by; by++)
        if ((*by)->check_again) (*by)->check_again(&m, tok, &how);
    const Score s = golf_eval(&m, tok, what.val, how.stride, how.val_tokens);
    if (m.n_visits != m.phases) printf("phases %d\n", m.n_visits);
    print_score("val", &s);
    if (how.stride) printf("mode sliding, stride %d\n", how.stride);
    else printf("mode plain, rows of %d\n", m.config.seq);
    printf("tokens %lld\nbytes %lld\nsum_nll %.17g\n", (long long)s.tokens,
           (long long)s.bytes, s.nll);
    EACH_SYSTEM(sys, &m) {
        if ((*sys)->report) (*sys)->report(&m, &s, stdout);
    }

    int good = how.certify ? certify(&what, &s) : 1;
    for (const System *const *by = all_systems; *by; by++) {
        what.by = *by;
        if ((*by)->again) good &= score_again(&what);
    }
    if (how.certify) printf("certified %s\n", good ? "yes" : "no");
    return !good;
}

int sample_main(const char *path, int argc, char **argv) {
    Config how;
    Golf m;
    const Tokenizer *tok = open_model(&m, &how, path, argc, argv, SAMPLE);
    golf_buffers(&m, (size_t)m.config.seq);
    golf_cache(&m);
    golf_sample(&m, tok, &how, stdout);
    return 0;
}

static void print_tensor(const Tensor *t) {
    char as[32], shape[32];
    if (t->quant->bits) snprintf(as, sizeof as, "%s", t->quant->name);
    else snprintf(as, sizeof as, "%s%d", t->quant->name, t->bits);
    snprintf(shape, sizeof shape, "%dx%d", t->rows, t->stored_cols);
    printf("%-11s %-9s %6d %11s %9zu %9zu %9zu %7.3f %08x\n", t->name, as,
           t->stored_copies, shape, t->n, t->bytes, t->coded,
           8.0 * (double)t->coded / (double)t->n, t->crc);
}

int info_main(const char *path, int argc, char **argv) {
    Config how;
    Golf m;
    char text[CONFIG_TEXT];
    open_model(&m, &how, path, argc, argv, INFO);
    const Ledger l = ledger_of(&m);
    config_text(&m.config, MODEL, text);
    printf("%s\n%-11s %-9s %6s %11s %9s %9s %9s %7s %8s\n", text, "tensor", "stored as",
           "copies", "shape", "numbers", "packed", "bytes", "bits", "crc32");
    EACH_TENSOR(t, &m) {
        if (is_stored(t)) print_tensor(t);
    }
    printf(
        "\ncore %zu\nembedding %zu\ninterface %zu\nprotected %zu\nheader %zu\ntotal %zu\n",
        l.of[LEDGER_CORE], l.of[LEDGER_EMBEDDING], l.of[LEDGER_INTERFACE],
        l.of[LEDGER_PROTECTED], l.header, l.total);
    if (!argc) { /* which one it was trained for, the file does not say */
        puts("--cap=BYTES says whether it fits");
        return 0;
    }
    const long long spare = how.cap - (long long)l.total;
    printf("cap %d\n%s by %lld bytes\nused %.2f %%\n", how.cap,
           spare >= 0 ? "FITS" : "OVER", llabs(spare), 100.0 * (double)l.total / how.cap);
    return 0;
}

#include "data/prepare.c" /* prepare_main: text to tokenizer and shards; encode, decode */
#include "dev/export.h"   /* export_main: for other programs */
#include "dev/bench/bench.h"    /* bench_main */
#include "dev/check/selftest.h" /* selftest_main */
#ifdef GOLF_MPI
#include "dev/mpi.h" /* ranks */
#endif

/* ---- The further systems of the literature, one file each. */
#define CODE
#include "dev/systems/systems.h"
#undef CODE

#define X(name) &name##_system,
static const System *const all_systems[N_SYSTEMS + 1] = {
#define LIST
#include "dev/systems/systems.h"
#undef LIST
    NULL};
#undef X

static const char *meaningless(const Config *c, const Config *preset, const char **why) {
#define M(name, means, without) \
    if (is_asked(c, preset, #name) && !(means)) { \
        *why = without; \
        return #name; \
    }
    GOLF_MEANINGS(M)
#define MEANINGS
#include "dev/systems/systems.h"
#undef MEANINGS
#undef M
    return NULL;
}

#ifndef GOLF_NO_MAIN
/* ---- How long a thread that waits for the others stays awake. OpenMP's runtimes let it
 * spin for many milliseconds. When other programs want the cores it then keeps a core from
 * the very thread that it waits for, and a step can take ten times as long. A tenth of a
 * millisecond outlasts the usual wait; who waits
 * longer sleeps, and leaves the core. A setting of the user's own stays, and spares the
 * second start below. */
static int wait_is_chosen(void) {
    return getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") ||
           getenv("KMP_BLOCKTIME");
}

#if defined _OPENMP && defined __clang__
/* LLVM's runtime takes whole milliseconds, and one is too long: waiting threads sleep at
 * once. A tiny model lost 40 % by it, the default one nothing that showed, on a
 * machine that was not quiet. */
static void shorten_waits(char **argv) {
    (void)argv;
    kmp_set_blocktime(0);
}
#elif defined _OPENMP && defined __linux__
/* GNU's reads the environment before main, and has no call: so the program starts once
 * more, as the same process. Where it cannot, it goes on as it is. */
static void shorten_waits(char **argv) {
    setenv("GOMP_SPINCOUNT", "2000", 1); /* pauses of 50 ns or less */
    execv("/proc/self/exe", argv);
    unsetenv("GOMP_SPINCOUNT");
}
#else
static void shorten_waits(char **argv) { (void)argv; }
#endif

static void bound_spinning(char **argv) {
    if (omp_get_max_threads() > 1 && !wait_is_chosen()) shorten_waits(argv);
}

static int usage(void) {
    print_usage(stderr);
    return 1;
}

/* Commands for whose files somebody waits: what they print besides may be lost. */
static int is_for_files(const char *command) {
    if (!strcmp(command, "--help")) return 0;
    return !strncmp(command, "--", 2) || !strcmp(command, "train") ||
           !strcmp(command, "prepare");
}

static int run_command(int argc, char **argv) {
    const char *command = argv[1];
    if (!strcmp(command, "help") || !strcmp(command, "--help") || !strcmp(command, "-h"))
        return help_main();
    if (!strncmp(command, "--", 2)) return train_main(argc - 1, argv + 1);
    if (!strcmp(command, "train")) return train_main(argc - 2, argv + 2);
    if (!strcmp(command, "prepare")) return prepare_main(argc - 2, argv + 2);
    if (!strcmp(command, "selftest")) return selftest_main();

    const int named = argc > 2 && strncmp(argv[2], "--", 2);
    const char *file = named ? argv[2] : NULL;
    const int rest = argc - 2 - named;
    char **options_from = argv + 2 + named;
    if (!strcmp(command, "bench")) return bench_main(file, rest, options_from);
    int (*run)(const char *, int, char **) = NULL;
    if (!strcmp(command, "eval")) run = eval_main;
    if (!strcmp(command, "sample")) run = sample_main;
    if (!strcmp(command, "info")) run = info_main;
    if (!strcmp(command, "export")) run = export_main;
    if (!strcmp(command, "encode")) run = encode_main;
    if (!strcmp(command, "decode")) run = decode_main;
    if (!run)
        die("unknown command '%s'; expected train, eval, sample, info, encode, decode, export, "
            "bench, prepare, selftest or help",
            command);
    if (!file) die("usage: ./train_golf %s MODEL.golf [--key=value ...]", command);
    return run(file, rest, options_from);
}

int main(int argc, char **argv) {
    follow_quota("");
    bound_spinning(argv);
    check_rounding();
    if (argc < 2) return usage();
    ranks_start(argv);
    const int status = run_command(argc, argv);
    if (!is_for_files(argv[1])) end_output();
    return status;
}
#endif
