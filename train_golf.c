/* train_golf.c - how good can a language model be for the bytes it stores?
 *
 * Trains a byte-capped language model of few wide transformer blocks, each applied once or many
 * times, exports it to a file under a byte cap, and scores that file in bits per byte (bpb).
 * `./train_golf help` lists the commands; golf.h holds the options, the tensors and the formats.
 *
 * One application ("phase") p of a block:
 *
 *      h ----mix0[p]*----(+)----+--------------------------(+)--+-------------------------(+)--> h
 *      x0 ---mix1[p]*-----^     |                           ^   |                          ^
 *      (embedding)              RMSNorm*g_attn[p]           |   RMSNorm*g_mlp[p]           |
 *                               |                 gate_attn[p]* |                 gate_mlp[p]*
 *                               Wqkv, norm, RoPE            |   Wup                        |
 *                               |                           |   |                          |
 *                               attention                   |   relu^2                     |
 *                               |                           |   |                          |
 *                               RMSNorm*x_attn[p] -> Wo ----+   RMSNorm*x_mlp[p] -> Wdown -+
 *
 * The four W are ternary and shared by all phases; every [p] is a vector of its own per phase in
 * bf16, the compression interface. At small caps the tied embedding is most of the file (`info`).
 *
 * Letters: B batch, T sequence, N = B*T tokens, V vocabulary, C width, H heads, D = C/H,
 * KV key/value heads, F = mlp*C hidden, U unique blocks, R repeats, P phases, K any input width.
 * Gradients are d + name; a shape in a comment is row-major. Reading order: sections 3 and 5 are
 * the model, 4 how its weights get small, 2 why it is fast, 1 and 6-10 the trainer around it. */
#include "golf.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ==== 1. Errors, memory, files, numbers ======================================================= */
_Noreturn void golf_die(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    fprintf(stderr, "%s:%d: error: ", file, line);
    vfprintf(stderr, fmt, ap), fputc('\n', stderr);
    exit(EXIT_FAILURE);
}
enum { HUGE_PAGE = 1 << 21 };
void *xcalloc(size_t n, size_t size) {
    if (size && n > SIZE_MAX / 2 / size)
        die("%zu x %zu bytes: more than memory can address", n, size);
    const size_t align = n * size < HUGE_PAGE ? 64 : HUGE_PAGE;
    const size_t bytes = (n * size / align + 1) * align;
    void *p = aligned_alloc(align, bytes);
    if (!p) die("out of memory at %zu MB; try a smaller --batch, --width or --seq", bytes >> 20);
#ifdef MADV_HUGEPAGE
    if (align > 64) madvise(p, bytes, MADV_HUGEPAGE); /* fewer misses of the page table's cache */
#endif
    return memset(p, 0, bytes);
}
uint8_t *read_file(const char *path, size_t *len) {
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f) die("%s: cannot open: %s; check the path", path, strerror(errno));
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) die("%s: expected a regular file", path);
    uint8_t *data = xcalloc(*len = (size_t)st.st_size, 1);
    if (fread(data, 1, *len, f) != *len) die("%s: cannot read: %s", path, strerror(errno));
    fclose(f);
    return data; /* xcalloc leaves a zero byte behind the last */
}
void write_parts(const char *path, const Part *parts, int n) {
    char tmp[4200];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    FILE *f = fopen(tmp, "wb");
    int ok = f != NULL;
    for (int i = 0; i < n && ok; i++)
        ok = !parts[i].len || fwrite(parts[i].data, 1, parts[i].len, f) == parts[i].len;
    ok = ok && !fflush(f) && !fsync(fileno(f)) && !rename(tmp, path);
    const int why = errno;
    if (f) fclose(f);
    if (ok) return;
    if (f) remove(tmp);
    die("%s: cannot write: %s; the file is as it was: make room or choose another folder", path,
        strerror(why));
}
void write_file(const char *path, const void *data, size_t len) {
    write_parts(path, &(Part){data, len}, 1);
}
uint32_t crc32_of(uint32_t crc, const void *data, size_t len) { /* IEEE 802.3, as in zip and png */
    static uint32_t table[256];
    const uint8_t *p = data;
    for (uint32_t i = 0; !table[255] && i < 256; i++)
        for (int k = (table[i] = i, 0); k < 8; k++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xEDB88320u : table[i] >> 1;
    crc = ~crc;
    for (size_t i = 0; i < len; i++) crc = crc >> 8 ^ table[(crc ^ p[i]) & 255];
    return ~crc;
}
/* dir/file in a buffer that the eighth next call uses again. */
static const char *path_of(const char *dir, const char *file) {
    static char ring[8][2048];
    static int next;
    char *path = ring[next++ % 8];
    if (snprintf(path, sizeof *ring, "%s/%s", dir, file) >= (int)sizeof *ring)
        die("%.60s...: expected a path under 2,000 bytes, found a longer one", dir);
    return path;
}
static void put_u(uint8_t *p, uint64_t x, int bytes) { /* little-endian on every machine */
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(x >> 8 * i);
}
static uint64_t get_u(const uint8_t *p, int bytes) {
    uint64_t x = 0;
    for (int i = bytes; i-- > 0;) x = x << 8 | p[i];
    return x;
}

typedef union { float f; uint32_t u; } Bits; /* a float and its bits */
uint16_t to_bf16(real x) { /* the upper half of a float, rounded to nearest even; NaN stays NaN */
    const uint32_t u = (Bits){.f = (float)x}.u;
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
real from_bf16(uint16_t b) { return (real)(Bits){.u = (uint32_t)b << 16}.f; }

/* Randomness without state: every number is a function of (key, index), so it depends neither on
 * threads nor on what was drawn before, and resuming a run needs no generator state. */
uint64_t hash64(uint64_t a, uint64_t b) { /* the splitmix64 finaliser over a mix of both */
    uint64_t z = a + 0x9E3779B97F4A7C15u * (b + 1);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
double uniform01(uint64_t key, uint64_t i) { /* in (0, 1) */
    return ((double)(hash64(key, i) >> 11) + 0.5) * 0x1p-53;
}
static double normal01(uint64_t key, uint64_t i) { /* Box-Muller */
    const double radius = sqrt(-2 * log(uniform01(key, 2 * i)));
    return radius * cos(6.283185307179586 * uniform01(key, 2 * i + 1));
}
double now(void) {
    struct timespec t;
    return clock_gettime(CLOCK_MONOTONIC, &t), (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
/* Where the time of a step goes, as the first thread sees it. TIMED(WHAT) charges what follows in
 * its scope to WHAT, less what an inner TIMED takes. Costs a test unless `bench` looks. */
#define GOLF_PARTS(X) \
    X(REST, "rest") X(Y, "y matmul") X(DX, "dX matmul") X(DW, "dW matmul") \
    X(HEAD_MATMUL, "head matmul") X(MUON, "Muon matmul") X(ATTENTION, "attention") \
    X(LOSS, "softcap, softmax, loss") \
    X(NORMS, "norms, gates, RoPE, relu^2") X(QUANT, "quantization, packing") \
    X(OPTIMIZER, "optimizer")
#define X(part, name) PART_##part,
enum { GOLF_PARTS(X) PARTS };
#undef X
static double part_seconds[PARTS], part_since;
static int part_now, part_timing;
static int part_enter(int part) {
    if (!part_timing || omp_get_thread_num()) return -1;
    const int before = part_now;
    const double t = now();
    part_seconds[before] += t - part_since;
    part_since = t, part_now = part;
    return before;
}
static void part_leave(const int *before) {
    if (*before >= 0) part_enter(*before);
}
#define TIMED(part) \
    __attribute__((cleanup(part_leave), unused)) const int before_##part = part_enter(PART_##part)

/* exp of x <= 88 for softmax: e^x = 2^k e^r with |r| <= ln2/2, and a polynomial for e^r whose error
 * is below 2e-7. Straight-line, so loops over it vectorise; libm's expf call would not. */
static inline real fast_exp(real x) {
#ifdef GOLF_DOUBLE
    return exp(x); /* finite differences need every digit */
#else
    x = x < -87.0f ? -87.0f : x;
    const Bits shifted = {.f = x * 1.44269504f + 12582912.0f}; /* 1.5*2^23: rounds to an integer */
    const float k = shifted.f - 12582912.0f;
    const float r = x - k * 0.693359375f + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = (p * r + 8.3334519073e-3f) * r + 4.1665795894e-2f;
    p = (p * r + 1.6666665459e-1f) * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (Bits){.u = (shifted.u + 127) << 23}.f; /* the low bits hold k: times 2^k */
#endif
}
/* ----------------------------------------------------------------------------------------- vectors
 * Vector types of gcc and clang, which any machine has; intrinsics only where these fall short. VB:
 * bytes of a vector. ZIP: interleave the lower (h = 0) or upper 32-bit lanes of a and b. */
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif
#define SHUFFLE __builtin_shufflevector
#if defined(__AVX512F__)
#define VB 64
#define ZIP(a, b, h) SHUFFLE(a, b, h, h + 16, h + 1, h + 17, h + 2, h + 18, h + 3, h + 19, h + 4, \
    h + 20, h + 5, h + 21, h + 6, h + 22, h + 7, h + 23)
#elif defined(__AVX__)
#define VB 32
#define ZIP(a, b, h) SHUFFLE(a, b, h, h + 8, h + 1, h + 9, h + 2, h + 10, h + 3, h + 11)
#else /* SSE2, NEON, or whatever the compiler makes of 16 bytes */
#define VB 16
#define ZIP(a, b, h) SHUFFLE(a, b, h, h + 4, h + 1, h + 5)
#endif
enum { WORDS = VB / 4, LANES = VB / sizeof(real) }; /* 32-bit lanes and reals of a vector */
#define VEC(bytes) __attribute__((vector_size(bytes), may_alias))
typedef real vec VEC(VB);
typedef int32_t ivec VEC(VB);
typedef vec uvec __attribute__((aligned(1))); /* the same at any address */
typedef ivec uivec __attribute__((aligned(1)));
typedef real rvec VEC(WORDS * sizeof(real));  /* an ivec turned into reals */
typedef int8_t qvec VEC(LANES);               /* codes on their way to a vec, in two steps: */
typedef int16_t hvec VEC(LANES * 2);          /* gcc 12 makes one big step lane by lane */
typedef int32_t wvec VEC(LANES * 4);
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* LANES numbers or codes, or the `have` that exist and then zeros; touches nothing else. */
INLINE vec load_reals(const real *p, int have) {
    if (have >= LANES) return *(const uvec *)p;
#if defined(__AVX512F__) && !defined(GOLF_DOUBLE)
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << have) - 1), p);
#endif
    vec v = {0};
    return memcpy(&v, p, have * sizeof(real)), v;
}
INLINE void store_reals(real *p, vec v, int have) {
    if (have >= LANES) *(uvec *)p = v;
#if defined(__AVX512F__) && !defined(GOLF_DOUBLE)
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << have) - 1), (__m512)v);
#else
    else memcpy(p, &v, have * sizeof(real));
#endif
}
INLINE real sum_lanes(vec s) {
#if defined(__AVX512F__) && !defined(GOLF_DOUBLE)
    return _mm512_reduce_add_ps((__m512)s);
#endif
    for (int l = LANES / 2; l; l /= 2)
        for (int i = 0; i < l; i++) s[i] += s[i + l];
    return s[0];
}
INLINE qvec load_codes(const int8_t *p, int have) {
    qvec q = {0};
    if (have >= LANES) return memcpy(&q, p, LANES), q;
#if defined(__AVX512VL__) && defined(__AVX512BW__) && !defined(GOLF_DOUBLE)
    return (qvec)_mm_maskz_loadu_epi8((__mmask16)((1u << have) - 1), p);
#endif
    return memcpy(&q, p, have), q;
}
/* Transpose WORDS x WORDS: log2(WORDS) times, interleave the first half with the second. */
INLINE void transpose(ivec *t) {
    for (int s = 1; s < WORDS; s *= 2) {
        ivec u[WORDS];
        for (int i = 0; i < WORDS / 2; i++) {
            u[2 * i] = ZIP(t[i], t[i + WORDS / 2], 0);
            u[2 * i + 1] = ZIP(t[i], t[i + WORDS / 2], WORDS / 2);
        }
        for (int i = 0; i < WORDS; i++) t[i] = u[i];
    }
}
/* Multiplies 4 codes of w by 4 codes of x in each 32-bit lane and adds the products to it. On x86
 * one side is unsigned: w is a code + OFFSET. */
INLINE ivec dot4(ivec s, ivec w, ivec x) {
#if VB == 64 && defined(__AVX512VNNI__)
#define OFFSET 128
    return (ivec)_mm512_dpbusd_epi32((__m512i)s, (__m512i)w, (__m512i)x);
#elif VB == 32 && defined(__AVXVNNI__)
#define OFFSET 128
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)s, (__m256i)w, (__m256i)x);
#elif VB == 32 && defined(__AVX2__)
#define OFFSET 1 /* codes -1, 0, 1 only: two products, at most 2 * 2 * 128, must fit 16 bits */
#define KERNEL_BITS 2
    __m256i pairs = _mm256_maddubs_epi16((__m256i)w, (__m256i)x);
    return s + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif VB == 16 && defined(__ARM_FEATURE_DOTPROD)
#define OFFSET 0
    return (ivec)vdotq_s32((int32x4_t)s, (int8x16_t)w, (int8x16_t)x);
#else
#define OFFSET 0
    typedef uint32_t bits VEC(VB);
    for (int b = 0; b <= 24; b += 8) /* a byte to the top, then down again with its sign */
        s += ((ivec)((bits)w << b) >> 24) * ((ivec)((bits)x << b) >> 24);
    return s;
#endif
}

#ifndef KERNEL_BITS
#define KERNEL_BITS 8 /* of a weight's code */
#endif

/* ==== 2. Matmul =============================================================================== */
/* Every product of the model: c = a b in floating point, y = x w^T in exact integers. The naive
 * twins are the definition. The fast ones pack operands into zero-padded panels read front to back;
 * a tile of MR x NR outputs stays in registers while k runs; the driver cuts C into tasks.
 * An output is ((0 + block 0) + block 1) + ..., a block being KC terms added one by one in order of
 * k (attention: all terms, one block). No lane, edge, task or thread splits or reorders that chain:
 * a row has the same bits alone or among 4096, on 1 thread or on 64. Only k decides the arithmetic.
 * Per step of k a tile loads 2 vectors of b and broadcasts MR values of a for 2 MR multiply-adds.
 * 32 registers hold MR = 14 (28 sums + 2 b + 1 a), 16 hold MR = 6 (12 + 3). An FMA takes 4 cycles,
 * two start per cycle: 8 independent sums or more keep them busy. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define MR 14
#else
#define MR 6
#endif
enum {
    NRI = 2 * WORDS, NR = 2 * LANES,           /* columns of a tile: two vectors of them */
    KC = 256,                                  /* a panel of b: 32 x 256 x 4 = 32 KB, in L1 */
    NC = 512,                                  /* columns of b per packing: 512 KB, half of L2 */
    MC = 18 * MR                               /* rows of a per packing: 288 KB, a quarter of it */
};
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define CEIL(a, b) (((a) + (b) - 1) / (b))

/* c(m,n) = or += (acc) a(m,k) b(k,n); rows of c are ldc apart. */
void gemm_naive(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            real sum = 0, *out = c + i * ldc + j;
            for (int p = 0; p < k; p++) sum += mat_get(a, i, p) * mat_get(b, p, j);
            *out = acc ? *out + sum : sum;
        }
}
/* A vector of a stored row, as numbers. */
INLINE vec load(Mat x, size_t row, size_t col, int have) {
    if (x.f) return load_reals(x.f + row * x.ld + col, have);
    const qvec q = load_codes(x.q + row * x.ld + col, have);
    const wvec w = __builtin_convertvector(__builtin_convertvector(q, hvec), wvec);
    return __builtin_convertvector(w, vec) * x.inv[row];
}
/* Panels of W: panel p starts at p * STRIDE(W, depth); its element k * WIDE(W) + i is element
 * p*W + i across and k down the depth. A line is whole vectors, so that none is split between cache
 * lines; what lies behind its first W, or `have`, is never used. deep: the depth runs along the
 * stored rows, so the copy is a transpose. Else stored rows are read front to back, and twelve rows
 * ahead are asked for: operands of 16 MB would cost dW a tenth. */
#define WIDE(W) (CEIL(W, LANES) * LANES)
#define STRIDE(W, depth) (WIDE(W) * (depth) + LANES) /* no power of two: lines would share sets */
INLINE void pack(real *panel, const int W, Mat x, int deep, int have, int depth) {
    for (int k = 0; !deep && k < depth; k++) {
        real *line = panel + k * WIDE(W);
        for (int p = 0; p < have; p += W, line += STRIDE(W, depth))
            for (int i = 0; i < W; i += LANES) {
                size_t ahead = (k + 12) * x.ld + p + i; /* past the end does no harm */
                __builtin_prefetch(x.f ? (const void *)(x.f + ahead) : x.q + ahead, 0, 2);
                *(vec *)(line + i) = p + i < have ? load(x, k, p + i, have - p - i) : (vec){0};
            }
    }
    for (int p = 0; deep && p < have; p += W, panel += STRIDE(W, depth))
        for (int k = 0; k < depth; k += LANES)
            for (int i = 0; i < W; i += LANES) {
                ivec t[WORDS];
                for (int r = 0; r < LANES; r++)
                    t[r] = i + r < MIN(W, have - p) ? (ivec)load(x, p + i + r, k, depth - k)
                                                    : (ivec){0};
                if (sizeof(real) == 4) transpose(t);
                for (int r = 0; r < MIN(LANES, depth - k); r++) {
                    vec line = (vec)t[r]; /* the double build may be slow: element by element */
                    for (int l = 0; l < (sizeof(real) == 4 ? 0 : LANES); l++)
                        line[l] = ((vec)t[l])[r];
                    *(vec *)(panel + (k + r) * WIDE(W) + i) = line;
                }
            }
}
NOINLINE void pack_a(real *to, Mat a, int m, int k) { pack(to, MR, a, !a.trans, m, k); }
NOINLINE void pack_b(real *to, Mat b, int n, int k) { pack(to, NR, b, b.trans, n, k); }

/* c(rows,cols) = or += a b, where b is a panel of W vectors and a(i,k) is a[i * AI + k * AK].
 * rows <= R <= MR; R, W, AI, AK known to the compiler. Reads R rows of a, W vectors of b. */
INLINE void tile(const int R, const int W, const int AI, const int AK, real *c, size_t ldc,
                 const real *a, const real *b, int rows, int cols, int depth, int add) {
    vec s[MR][2];
    UNROLL for (int i = 0; i < R; i++) {
        s[i][0] = s[i][1] = (vec){0};
        if (i >= rows) continue; /* c into L2: 14 rows a power of two apart collide in L1 */
        __builtin_prefetch(c + i * ldc, 1, 2);
        __builtin_prefetch(c + i * ldc + cols - 1, 1, 2);
    }
    for (int k = 0; k < depth; k++, a += AK, b += NR) {
        const vec b0 = *(const vec *)b, b1 = W > 1 ? *(const vec *)(b + LANES) : b0;
        UNROLL for (int i = 0; i < R; i++) {
            s[i][0] += a[i * AI] * b0;
            if (W > 1) s[i][1] += a[i * AI] * b1;
        }
    }
    UNROLL for (int i = 0; i < R; i++)
        for (int w = 0; w < W && i < rows; w++) {
            real *out = c + i * ldc + w * LANES;
            if (add) s[i][w] += load_reals(out, cols - w * LANES);
            store_reals(out, s[i][w], cols - w * LANES);
        }
}
INLINE void tile_of(const int R, const int AI, const int AK, real *c, size_t ldc, const real *a,
                    const real *b, int rows, int cols, int depth, int add) {
    if (cols > LANES) tile(R, 2, AI, AK, c, ldc, a, b, rows, cols, depth, add);
    else tile(R, 1, AI, AK, c, ldc, a, b, rows, cols, depth, add);
}
/* Four heights of a tile, so that one row does not cost fourteen. Not inlined: the variables of
 * a caller would take registers from the sums, and one sum in memory halves the speed. */
#define HEIGHTS(NAME, PARAMS, TILE, ...) \
    NOINLINE void NAME##_14 PARAMS { TILE(MR, __VA_ARGS__); } \
    NOINLINE void NAME##_8 PARAMS { TILE(MR * 4 / 7, __VA_ARGS__); } \
    NOINLINE void NAME##_4 PARAMS { TILE(MR * 2 / 7, __VA_ARGS__); } \
    NOINLINE void NAME##_1 PARAMS { TILE(1, __VA_ARGS__); } \
    static void (*const NAME[]) PARAMS = {NAME##_1, NAME##_4, NAME##_8, NAME##_14};
#define HEIGHT(rows) (((rows) > MR * 4 / 7) + ((rows) > MR * 2 / 7) + ((rows) > 1))
typedef void (*Tile)(real *c, size_t ldc, const real *a, const real *b, int rows, int cols,
                     int depth, int add);
#define TILE_HEIGHTS(NAME, AI, AK) \
    HEIGHTS(NAME, (real *c, size_t ldc, const real *a, const real *b, int rows, int cols, \
                   int depth, int add), tile_of, AI, AK, c, ldc, a, b, rows, cols, depth, add)
TILE_HEIGHTS(packed, 1, WIDE(MR)) /* a from panels */
TILE_HEIGHTS(by_row, NR, 1)  /* a as it is, rows NR apart */
TILE_HEIGHTS(by_col, 1, NR)  /* a transposed, columns NR apart */

/* All tiles of c(rows,cols): the next MR rows of a are a_step on, the next panel of b b_step. A
 * panel of b stays in L1 (32 KB) while those of a pass by, 64 bytes from L2 for 14 cycles. */
static void sweep(const Tile *tiles, real *c, size_t ldc, const real *a, size_t a_step,
                  const real *b, size_t b_step, int rows, int cols, int depth, int add) {
    for (int j = 0; j < cols; j += NR, b += b_step)
        for (int i = 0; i < rows; i += MR)
            tiles[HEIGHT(rows - i)](c + i * ldc + j, ldc, a + i / MR * a_step, b,
                                    MIN(rows - i, MR), MIN(cols - j, NR), depth, add);
}

static int threads_for(double madds) { /* a start costs microseconds, like 1M multiply-adds */
#ifdef _OPENMP
    if (madds >= 1e6 && !omp_in_parallel()) return omp_get_max_threads();
#endif
    return (void)madds, 1;
}
/* b packed for many products: the weights of a step. */
void panels_pack(Panels *p, Mat b, int k, int n) {
    const size_t block = CEIL(n, NR) * STRIDE(NR, MIN(k, KC));
    if (!p->panel || p->k != k || p->n != n) {
        free(p->panel);
        *p = (Panels){xcalloc(CEIL(k, KC) * block, sizeof(real)), k, n};
    }
    #pragma omp parallel for num_threads(threads_for(8.0 * k * n))
    for (int j = 0; j < n; j += 4 * NR)
        for (int k0 = 0; k0 < k; k0 += KC)
            pack_b(p->panel + k0 / KC * block + j / NR * STRIDE(NR, MIN(k - k0, KC)),
                   mat_at(b, k0, j), MIN(n - j, 4 * NR), MIN(k - k0, KC));
}
/* One thread; b from panels, or packed here, NC columns at a time. */
static void gemm_serial(real *c, size_t ldc, Mat a, Mat b, const Panels *ready, int m, int n,
                        int k, int acc) {
    enum { A_SIZE = MC / MR * STRIDE(MR, KC), B_SIZE = NC / NR * STRIDE(NR, KC) };
    static _Thread_local real *bp; /* allocated once per thread, kept till the end */
    if (!bp) bp = xcalloc(B_SIZE + A_SIZE, sizeof(real));
    const size_t block = CEIL(n, NR) * STRIDE(NR, MIN(k, KC));
    const int nc = ready ? n : NC;
    for (int j = 0; j < n; j += nc)
        for (int k0 = 0; k0 < k; k0 += KC) {
            const int cols = MIN(n - j, nc), depth = MIN(k - k0, KC);
            if (!ready) pack_b(bp, mat_at(b, k0, j), cols, depth);
            for (int i = 0; i < m; i += MC) {
                pack_a(bp + B_SIZE, mat_at(a, i, k0), MIN(m - i, MC), depth);
                sweep(packed, c + i * ldc + j, ldc, bp + B_SIZE, STRIDE(MR, depth),
                      ready ? ready->panel + k0 / KC * block : bp, STRIDE(NR, depth),
                      MIN(m - i, MC), cols, depth, acc || k0);
            }
        }
}
void gemm_panels(real *c, size_t ldc, Mat a, const Panels *b, int m, int acc) {
    gemm_serial(c, ldc, a, (Mat){0}, b, m, b->n, b->k, acc);
}
/* All threads, several products in one parallel loop. A task packs for itself: an element of b
 * serves all its rows, which is cheaper than to wait for another thread. So tasks should be few and
 * near square: a product is halved, the longer side first, until none is over half of a thread's
 * share. */
static int cut(const Gemm *g, double most, int *mb, int *nb) {
    *mb = g->m, *nb = MIN(g->n, NC);
    while ((double)*mb * *nb * g->k > most && (*mb > MR || *nb > NR))
        if (*nb > NR && (*nb >= *mb || *mb <= MR)) *nb = CEIL(*nb, 2 * NR) * NR;
        else *mb = CEIL(*mb, 2 * MR) * MR;
    return CEIL(g->m, *mb) * CEIL(g->n, *nb);
}
void gemm_all(const Gemm *g, int count) {
    int tasks = 0, mb, nb;
    double madds = 0;
    for (int i = 0; i < count; i++) madds += (double)g[i].m * g[i].n * g[i].k;
    const int threads = threads_for(madds);
    const double most = threads > 1 ? madds / (2 * threads) : madds;
    for (int i = 0; i < count; i++) tasks += cut(g + i, most, &mb, &nb);
    #pragma omp parallel for schedule(dynamic) num_threads(threads) private(mb, nb)
    for (int t = 0; t < tasks; t++) {
        const Gemm *x = g;
        int at = t;
        for (int n; at >= (n = cut(x, most, &mb, &nb)); x++) at -= n;
        const int i = at / CEIL(x->n, nb) * mb, j = at % CEIL(x->n, nb) * nb;
        gemm_serial(x->c + i * x->ldc + j, x->ldc, mat_at(x->a, i, 0), mat_at(x->b, 0, j), NULL,
                    MIN(x->m - i, mb), MIN(x->n - j, nb), x->k, x->acc);
    }
}
void gemm(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc) {
    gemm_all(&(Gemm){c, ldc, a, b, m, n, k, acc}, 1);
}
/* Integers: y = x w^T of int8 codes with exact int32 sums. dot4 does the work of 4 FMAs; panels
 * hold w + OFFSET and a sum starts at -OFFSET * sum(x), so that it ends exact.
 * Packed: [rows / NRI][k / 4][NRI outputs][4 of k] bytes, on a little-endian machine. */
void int_pack(IntWeights *w, const int8_t *codes, int rows, int cols) {
    int panels = CEIL(rows, NRI), words = CEIL(cols, 4);
    if (!w->panel || w->rows != rows || w->cols != cols) {
        free(w->panel), free(w->stream);
        *w = (IntWeights){xcalloc((size_t)panels * words, NRI * 4), rows, cols, NULL};
    }
    #pragma omp parallel for num_threads(threads_for((double)rows * cols * 8))
    for (int j = 0; j < panels * NRI; j++) {
        uint8_t *out = w->panel + ((size_t)(j / NRI) * words * NRI + j % NRI) * 4;
        for (int k = 0; k < words * 4; k++) {
            int code = j < rows && k < cols ? codes[(size_t)j * cols + k] : 0;
            if (OFFSET == 1 && (code < -1 || code > 1)) die("code %d: only -1, 0, 1 here", code);
            out[k / 4 * NRI * 4 + k % 4] = (uint8_t)(code + OFFSET);
        }
    }
}
/* Ternary codes again, 16 in a 32-bit lane: byte b of word j is code + 1 in bits 2j + 8b. To decode
 * a token all weights are read for one row of x: where memory is the limit, 2 bits are 4 times
 * faster than 8. */
void int_pack_stream(IntWeights *w) {
    const int words = CEIL(w->cols, 4), quads = CEIL(words, 4);
    free(w->stream);
    w->stream = xcalloc((size_t)CEIL(w->rows, NRI) * quads, NRI * 4);
    const size_t n = (size_t)CEIL(w->rows, NRI) * words * NRI * 4;
    for (size_t i = 0; i < n; i++) { /* panel, word, output, byte */
        const size_t byte = i % 4, output = i / 4 % NRI, word = i / 4 / NRI % words;
        w->stream[(i / 4 / NRI / words * quads + word / 4) * NRI + output] |=
            (uint32_t)(uint8_t)(w->panel[i] - OFFSET + 1) << (word % 4 * 2 + byte * 8);
    }
}
static void stream_int(real *y, const int32_t *x, const IntWeights *w, int32_t start, real scale) {
    typedef uint8_t bytes VEC(VB);
    const uint32_t *in = w->stream;
    for (int j = 0; j < w->rows; j += NRI) {
        ivec s[4] = {(ivec){0} + start, (ivec){0} + start};
        rvec out[2];
        for (int k = 0; k < CEIL(w->cols, 4); k += 4, in += NRI)
            UNROLL for (int i = 0; i < 8; i++) {
                const ivec code1 = *(const ivec *)(in + i % 2 * WORDS) >> i / 2 * 2 & 0x03030303;
                const bytes code = (bytes)code1 + (uint8_t)(OFFSET - 1);
                s[i % 4] = dot4(s[i % 4], (ivec)code, (ivec){0} + x[k + i / 2]);
            }
        for (int i = 0; i < 2; i++) out[i] = __builtin_convertvector(s[i] + s[i + 2], rvec) * scale;
        memcpy(y + j, out, MIN(w->rows - j, NRI) * sizeof(real));
    }
}
/* y(n,m) = (x(n,k) codes(m,k)^T) * (s * inv[row of x]) */
void gemm_int_naive(real *y, size_t ldy, const int8_t *x, const real *inv, const int8_t *codes,
                    real s, int n, int m, int k) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            int32_t sum = 0;
            for (int p = 0; p < k; p++) sum += codes[(size_t)j * k + p] * x[(size_t)i * k + p];
            y[i * ldy + j] = (real)sum * (s * inv[i]);
        }
}
/* panel[word * MR + i] = 4 codes of token i, zeros where there is none. Spills as pack does. */
NOINLINE void pack_codes(int32_t *panel, const int8_t *x, int k, int tokens) {
    for (int w = 0; w < CEIL(k, 4); w += WORDS)
        for (int i = (MR - 1) / WORDS * WORDS; i >= 0; i -= WORDS) {
            ivec t[WORDS];
            int left = k - w * 4;
            for (int r = 0; r < WORDS; r++) {
                const int8_t *in = x + (size_t)(i + r) * k + w * 4;
                t[r] = (ivec){0};
                if (i + r >= MIN(tokens, MR)) continue;
                if (left >= VB) memcpy(&t[r], in, VB);
                else memcpy(&t[r], in, left);
            }
            transpose(t);
            for (int r = 0; r < MIN(WORDS, CEIL(left, 4)); r++)
                *(uivec *)(panel + (w + r) * MR + i) = t[r];
        }
}

INLINE void tile_int(const int R, real *y, size_t ldy, const int32_t *x, const int32_t *w,
                     int words, const int32_t *start, const real *scale, int rows, int cols) {
    ivec s[MR][2];
    rvec out[MR][2];
    int full = rows == R && cols == NRI;
    UNROLL for (int i = 0; i < R; i++) s[i][0] = s[i][1] = (ivec){0} + start[i];
    for (int k = 0; k < words; k++, x += MR, w += NRI) {
        ivec w0 = *(const ivec *)w, w1 = *(const ivec *)(w + WORDS);
        UNROLL for (int i = 0; i < R; i++) {
            ivec xi = (ivec){0} + x[i];
            s[i][0] = dot4(s[i][0], w0, xi), s[i][1] = dot4(s[i][1], w1, xi);
        }
    }
    UNROLL for (int i = 0; i < R; i++) {
        out[i][0] = __builtin_convertvector(s[i][0], rvec) * scale[i];
        out[i][1] = __builtin_convertvector(s[i][1], rvec) * scale[i];
        if (full) memcpy(y + i * ldy, out[i], sizeof out[i]);
    }
    for (int i = 0; i < rows && !full; i++) memcpy(y + i * ldy, out[i], cols * sizeof(real));
}
#define INT_PARAMS (real *y, size_t ldy, const int32_t *x, const int32_t *w, int words, \
                    const int32_t *start, const real *scale, int rows, int cols)
HEIGHTS(packed_int, INT_PARAMS, tile_int, y, ldy, x, w, words, start, scale, rows, cols)

/* One thread, MR tokens at a time: 14 cycles of work per 128 bytes of weights from L2. No k-blocks:
 * integer sums are exact in any order. */
void gemm_int(real *y, size_t ldy, const int8_t *x, const real *inv, const IntWeights *w, real s,
              int n) {
    static _Thread_local int32_t *xp;
    static _Thread_local int room;
    const int m = w->rows, k = w->cols, words = CEIL(k, 4);
    if (room < words) free(xp), xp = xcalloc((size_t)(room = words) * MR + WORDS, 4);
    for (int i = 0; i < n; i += MR) {
        const int rows = MIN(n - i, MR);
        int32_t start[MR + WORDS] = {0};
        real scale[MR] = {0};
        if (n == 1 && w->stream) {
            for (int q = 0; q < k; q++) start[0] -= OFFSET * x[q];
            memset((int8_t *)memcpy(xp, x, k) + k, 0, CEIL(k, 16) * 16 - k);
            stream_int(y, xp, w, start[0], s * *inv);
            return;
        }
        for (int r = 0; r < rows; r++) scale[r] = s * inv[i + r];
        pack_codes(xp, x + (size_t)i * k, k, rows);
        ivec sum = {0}, offset = (ivec){0} + (int32_t)(0x01010101u * OFFSET);
        for (int q = 0; OFFSET && q < words; q++)
            sum = dot4(sum, offset, *(const uivec *)(xp + q * MR));
        *(uivec *)start = -sum;
        for (int j = 0; j < m; j += NRI)
            packed_int[HEIGHT(rows)](y + i * ldy + j, ldy, xp, (const int32_t *)w->panel
                + (size_t)j * words, words, start, scale, rows, MIN(m - j, NRI));
    }
}

/* ==== 3. Layers =============================================================================== */
/* Every x_forward is followed by its x_backward. A layer runs on one thread over the N tokens it is
 * given, a chunk small enough to stay in the cache while layer follows layer; section 5 hands the
 * chunks to the threads. Only attention and the gradient of the embedding see all tokens at once.
 * Gradients of inputs are overwritten unless `acc`, those of parameters accumulate; a NULL
 * parameter gradient is not computed. */
#define PRAGMA(text) _Pragma(#text)
/* Loops. FOR_ROWS: n over rows of K numbers, row n starts `at`. FOR_COLUMNS: i over the columns; no
 * iteration depends on another, which spares short rows the compiler's checks for overlap.
 * FOR_RANGE: i over n numbers, on several threads when that pays for waking them. */
enum { SMALL = 50000 };
#define PARALLEL(work) PRAGMA(omp parallel for if ((double)(work) > SMALL))
#define FOR_RANGE(i, from, n) PARALLEL(n) for (size_t i = (from); i < (from) + (n); i++)
#define FOR_ROWS(n, N, K) for (size_t n = 0, at = 0; n < (size_t)(N); n++, at += (size_t)(K))
#define FOR_COLUMNS(i, K) PRAGMA(omp simd) for (int i = 0; i < (K); i++)

static inline real larger(real a, real b) { return a > b ? a : b; }

static inline real absmax_of(const real *x, int n) {
    real top = 0;
#pragma omp simd reduction(max : top)
    for (int i = 0; i < n; i++) top = larger(fabs(x[i]), top);
    return top;
}

static inline real inner(const real *x, const real *y, int K) { /* sum of x*y */
    vec s = {0};
    for (int i = 0; i < K; i += LANES) s += load_reals(x + i, K - i) * load_reals(y + i, K - i);
    return sum_lanes(s);
}
/* Memory of this thread for one caller at a time; grows, never shrinks. */
static real *scratch(size_t n) {
    static _Thread_local real *mem;
    static _Thread_local size_t size;
    if (n > size) free(mem), mem = xcalloc(size = n, sizeof(real));
    return mem;
}
/* RMSNorm with gain: out = x * r * g, r = 1/sqrt(mean(x^2) + 1e-6).  x, out (N,K), r (N), g (K) */
void rmsnorm_forward(real *out, real *r, const real *x, const real *g, int N, int K) {
    TIMED(NORMS);
    FOR_ROWS(n, N, K) {
        const real rn = r[n] = 1 / sqrt(inner(x + at, x + at, K) / (real)K + (real)1e-6);
        FOR_COLUMNS(i, K) out[at + i] = x[at + i] * rn * g[i];
    }
}
/* With xh = x*r:  dg += sum_n dout*xh;  dx = r * (dout*g - xh * mean(dout*g*xh)). dx may be dout */
void rmsnorm_backward(real *dx, int acc, real *dg, const real *dout, const real *x, const real *r,
                      const real *g, int N, int K) {
    TIMED(NORMS);
    FOR_ROWS(n, N, K) {
        const real rn = r[n];
        vec sum = {0};
        for (int i = 0; i < K; i += LANES)
            sum += load_reals(dout + at + i, K - i) * load_reals(g + i, K - i)
                   * load_reals(x + at + i, K - i);
        const real dot = sum_lanes(sum) * rn * rn / (real)K; /* x * dot = xh * mean(dout*g*xh) */
        if (dg) FOR_COLUMNS(i, K) dg[i] += dout[at + i] * x[at + i] * rn;
        if (acc) FOR_COLUMNS(i, K) dx[at + i] += rn * (dout[at + i] * g[i] - x[at + i] * dot);
        else FOR_COLUMNS(i, K) dx[at + i] = rn * (dout[at + i] * g[i] - x[at + i] * dot);
    }
}
/* Embedding: e = E[token].  E (V,C), e (N,C) */
void embed_forward(real *e, const real *E, const int *tokens, int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) memcpy(e + at, E + (size_t)tokens[n] * C, sizeof(real) * (size_t)C);
}
void embed_backward(real *dE, const real *de, const int *tokens, int N, int C) {
    TIMED(NORMS);
    PARALLEL((double)N * C)
    for (int c0 = 0; c0 < C; c0 += 16) /* a thread owns 16 columns, so no two meet in a row */
        FOR_ROWS(n, N, C)
            for (int i = c0; i < MIN(C, c0 + 16); i++) dE[(size_t)tokens[n] * C + i] += de[at + i];
}
/* Input injection and phase embedding: h = a*prev + b*x0 + e.  all (N,C), a, b, e (C) */
void mix_forward(real *h, const real *prev, const real *x0, const real *a, const real *b,
                 const real *e, int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C)
        FOR_COLUMNS(i, C) h[at + i] = a[i] * prev[at + i] + b[i] * x0[at + i] + e[i];
}
/* dh becomes dprev in place; dx0 accumulates over the phases */
void mix_backward(real *dh, real *dx0, real *da, real *db, real *de, const real *prev,
                  const real *x0, const real *a, const real *b, int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) {
        if (da) FOR_COLUMNS(i, C) da[i] += dh[at + i] * prev[at + i];
        if (db) FOR_COLUMNS(i, C) db[i] += dh[at + i] * x0[at + i];
        if (de) FOR_COLUMNS(i, C) de[i] += dh[at + i];
        FOR_COLUMNS(i, C) dx0[at + i] += dh[at + i] * b[i];
        FOR_COLUMNS(i, C) dh[at + i] *= a[i];
    }
}
/* Queries and keys: RMSNorm per head without gain, a gain per query head, RoPE over all D
 * dimensions in halves: (x1, x2) -> (x1 cos + x2 sin, -x1 sin + x2 cos).
 * qkv (N,(H+2KV)*D) -> qk (N,(H+KV)*D); rope (seq,D) = D/2 cosines, then D/2 sines. The first token
 * is number n0 of rows of T; pos0 tokens stand before each row. */
void qk_forward(real *qk, const real *qkv, int ld, const real *q_gain, const real *rope, int pos0,
                int n0, int N, int T, int H, int KV, int D) {
    TIMED(NORMS);
    for (int n = 0; n < N; n++) {
        const real *cs = rope + (size_t)(pos0 + (n0 + n) % T) * D, *sn = cs + D / 2;
        for (int j = 0; j < H + KV; j++) {
            const real *x = qkv + (size_t)n * ld + j * D, *y = x + D / 2;
            real *out = qk + ((size_t)n * (H + KV) + j) * D;
            const real s = (j < H ? q_gain[j] : 1) / sqrt(inner(x, x, D) / (real)D + (real)1e-6);
            for (int i = 0, left; (left = D / 2 - i) > 0; i += LANES) {
                const vec x1 = load_reals(x + i, left) * s, x2 = load_reals(y + i, left) * s;
                const vec c = load_reals(cs + i, left), d = load_reals(sn + i, left);
                store_reals(out + i, x1 * c + x2 * d, left);
                store_reals(out + D / 2 + i, x2 * c - x1 * d, left);
            }
        }
    }
}
/* dqk (N,(H+KV)*D) -> the first H+KV heads of dqkv; dq_gain (H) accumulates */
void qk_backward(real *dqkv, real *dq_gain, const real *dqk, const real *qkv, int ld,
                 const real *q_gain, const real *rope, int n0, int N, int T, int H, int KV, int D) {
    TIMED(NORMS);
    for (int n = 0; n < N; n++) {
        const real *cs = rope + (size_t)((n0 + n) % T) * D, *sn = cs + D / 2;
        for (int k = 0; k < H + KV; k++) {
            const real *x = qkv + (size_t)n * ld + k * D;
            const real *dout = dqk + ((size_t)n * (H + KV) + k) * D, *dy = dout + D / 2;
            real *dx = dqkv + (size_t)n * ld + k * D;
            const real r = 1 / sqrt(inner(x, x, D) / (real)D + (real)1e-6);
            const real gain = (k < H ? q_gain[k] : 1) * r;
            real dot = 0;
            vec sum = {0};
            /* The rotation is orthogonal: its backward is the rotation by the other angle. Done
             * twice, first for the inner product with x. */
            for (int write = 0; write < 2; write++) {
                for (int i = 0, left; (left = D / 2 - i) > 0; i += LANES) {
                    const vec x1 = load_reals(x + i, left), x2 = load_reals(x + D / 2 + i, left);
                    const vec d1 = load_reals(dout + i, left), d2 = load_reals(dy + i, left);
                    const vec c = load_reals(cs + i, left), d = load_reals(sn + i, left);
                    const vec dx1 = d1 * c - d2 * d, dx2 = d1 * d + d2 * c;
                    if (write) store_reals(dx + i, (dx1 - x1 * dot) * gain, left);
                    if (write) store_reals(dx + D / 2 + i, (dx2 - x2 * dot) * gain, left);
                    else sum += dx1 * x1 + dx2 * x2;
                }
                if (write) break;
                dot = sum_lanes(sum);
                if (k < H && dq_gain) dq_gain[k] += dot * r;
                dot *= r * r / (real)D;
            }
        }
    }
}
/* Causal attention in blocks of NR queries against all keys they may see: memory grows with T, not
 * T*T. A block holds its scores transposed, S^T (keys,NR): a query is a lane, so the softmax runs
 * down the keys without sums across lanes, and S^T is an operand of the next products as it stands.
 * Query i of Tq sees keys 0 .. Tk-Tq+i (Tk > Tq: a cache holds the first). Queries of head h use
 * key/value head h / (H/KV) (GQA), whose panels are packed once. A query's arithmetic does not
 * depend on its block, so decoding from a cache gives what the full forward gives. */
static void scores(real *s, const real *panels, const real *q, real *room, size_t ldq, int rows,
                   int keys, int D) { /* s(keys,NR) = packed keys times q(rows,D)^T */
    pack_b(room, mat_t(q, ldq), rows, D);
    sweep(packed, s, NR, panels, STRIDE(MR, D), room, 0, keys, NR, D, 0);
}
/* Sets what the block's queries must not see: lane l sees key t when l >= t - (keys - rows). A
 * score of UNLIKELY has a weight that vanishes in any sum; then it is set to 0. */
#define UNLIKELY ((real)-1e30)
static void unseen(real *s, int rows, int keys, real value) {
    for (int t = keys - rows + 1; t < keys; t++)
        for (int l = 0; l < t - keys + rows; l++) s[t * NR + l] = value;
}
void attention_forward(real *out, real *lse, const real *q, size_t ldq, const real *k, size_t ldk,
                       const real *v, size_t ldv, int B, int Tq, int Tk, int H, int KV, int D) {
    TIMED(ATTENTION);
    const real scale = 1 / sqrt((real)D);
    const size_t a_size = CEIL(Tk, MR) * STRIDE(MR, D), b_size = CEIL(D, NR) * STRIDE(NR, Tk);
#pragma omp parallel for if ((double)B * H * Tq * Tk > SMALL) schedule(dynamic)
    for (int bk = 0; bk < B * KV; bk++) {
        const int b = bk % B, kv = bk / B, group = H / KV; /* neighbours write to other lines */
        real *s = scratch((size_t)(Tk + MR) * NR + a_size + b_size + STRIDE(NR, D));
        real *vp = s + (size_t)(Tk + MR) * NR, *room = vp + b_size, *kp = room + STRIDE(NR, D);
        pack_a(kp, mat(k + (size_t)b * Tk * ldk + kv * D, ldk), Tk, D);
        pack_b(vp, mat(v + (size_t)b * Tk * ldv + kv * D, ldv), D, Tk);
        for (int h = kv * group; h < (kv + 1) * group; h++)
            for (int i0 = 0; i0 < Tq; i0 += NR) {
                const int rows = MIN(Tq - i0, NR), keys = Tk - Tq + i0 + rows;
                const size_t n0 = (size_t)b * Tq + i0;
                real top[NR], sum[NR] = {0}, *o = out + (n0 * H + h) * D;
                scores(s, kp, q + n0 * ldq + h * D, room, ldq, rows, keys, D);
                unseen(s, rows, keys, UNLIKELY);
                for (int l = 0; l < NR; l++) top[l] = s[l];
                for (int t = 0; t < keys; t++)
                    for (int l = 0; l < NR; l++) top[l] = larger(s[t * NR + l], top[l]);
                for (int t = 0; t < keys; t++)
                    for (int l = 0; l < NR; l++)
                        sum[l] += s[t * NR + l] = fast_exp(scale * (s[t * NR + l] - top[l]));
                unseen(s, rows, keys, 0);
                sweep(by_col, o, (size_t)H * D, s, MR, vp, STRIDE(NR, Tk), rows, D, keys, 0);
                for (int i = 0; i < rows; i++) {
                    const real inv = 1 / sum[i];
                    for (int d = 0; d < D; d++) o[(size_t)i * H * D + d] *= inv;
                    lse[(n0 + i) * H + h] = scale * top[i] + log(sum[i]);
                }
            }
    }
}
/* P = softmax(scale * Q K^T) again from lse. dV += P^T dO; dP = dO V^T;
 * dS = scale * P * (dP - rowsum(P*dP)); dQ = dS K; dK += dS^T Q */
void attention_backward(real *dq, size_t lddq, real *dk, size_t lddk, real *dv, size_t lddv,
                        const real *dout, const real *lse, const real *q, size_t ldq,
                        const real *k, size_t ldk, const real *v, size_t ldv, int B, int T, int H,
                        int KV, int D) {
    TIMED(ATTENTION);
    const real scale = 1 / sqrt((real)D);
    const size_t s_size = (size_t)(T + MR) * NR, a_size = CEIL(T, MR) * STRIDE(MR, D);
    const size_t b_size = CEIL(D, NR) * STRIDE(NR, T), row_size = CEIL(D, NR) * STRIDE(NR, NR);
    const size_t HD = (size_t)H * D;
#pragma omp parallel for if ((double)B * H * T * T > SMALL) schedule(dynamic)
    for (int bk = 0; bk < B * KV; bk++) { /* one thread owns dK and dV of a key/value head */
        const int b = bk % B, kv = bk / B, group = H / KV; /* neighbours write to other lines */
        const size_t row = (size_t)b * T;
        const real *kh = k + row * ldk + kv * D, *vh = v + row * ldv + kv * D;
        real *dkh = dk + row * lddk + kv * D, *dvh = dv + row * lddv + kv * D;
        real *s = scratch(2 * s_size + 2 * a_size + b_size + row_size + STRIDE(NR, D));
        real *ds = s + s_size, *kb = ds + s_size, *rows_b = kb + b_size;
        real *room = rows_b + row_size, *kp = room + STRIDE(NR, D), *vp = kp + a_size;
        pack_a(kp, mat(kh, ldk), T, D);
        pack_a(vp, mat(vh, ldv), T, D);
        pack_b(kb, mat(kh, ldk), D, T);
        for (int t = 0; t < T; t++)
            for (int i = 0; i < D; i++) dkh[t * lddk + i] = dvh[t * lddv + i] = 0;
        for (int h = kv * group; h < (kv + 1) * group; h++)
            for (int i0 = 0; i0 < T; i0 += NR) {
                const int rows = MIN(T - i0, NR), keys = i0 + rows;
                const real *qh = q + (row + i0) * ldq + h * D;
                const real *doh = dout + (row + i0) * HD + h * D;
                real l_of[NR] = {0}, dot[NR] = {0};
                for (int i = 0; i < rows; i++) l_of[i] = lse[(row + i0 + i) * H + h];
                scores(s, kp, qh, room, ldq, rows, keys, D);
                scores(ds, vp, doh, room, HD, rows, keys, D);
                unseen(s, rows, keys, UNLIKELY), unseen(ds, rows, keys, 0);
                for (int t = 0; t < keys; t++)
                    for (int l = 0; l < NR; l++) {
                        s[t * NR + l] = fast_exp(scale * s[t * NR + l] - l_of[l]);
                        dot[l] += s[t * NR + l] * ds[t * NR + l];
                    }
                unseen(s, rows, keys, 0);
                for (int t = 0; t < keys; t++)
                    for (int l = 0; l < NR; l++)
                        ds[t * NR + l] = scale * s[t * NR + l] * (ds[t * NR + l] - dot[l]);
                pack_b(rows_b, mat(doh, HD), D, rows);
                sweep(by_row, dvh, lddv, s, MR * NR, rows_b, STRIDE(NR, rows), keys, D, rows, 1);
                pack_b(rows_b, mat(qh, ldq), D, rows);
                sweep(by_row, dkh, lddk, ds, MR * NR, rows_b, STRIDE(NR, rows), keys, D, rows, 1);
                sweep(by_col, dq + (row + i0) * lddq + h * D, lddq, ds, MR, kb, STRIDE(NR, T), rows,
                      D, keys, 0);
            }
    }
}
/* relu(f)^2.  f, out (N,F) */
void relu2_forward(real *out, const real *f, int N, int F) {
    TIMED(NORMS);
    FOR_ROWS(n, N, F) FOR_COLUMNS(i, F) out[at + i] = f[at + i] > 0 ? f[at + i] * f[at + i] : 0;
}
void relu2_backward(real *df, const real *f, int N, int F) { /* in place */
    TIMED(NORMS);
    FOR_ROWS(n, N, F) FOR_COLUMNS(i, F) df[at + i] *= f[at + i] > 0 ? 2 * f[at + i] : 0;
}
/* Gated residual: out = h + g*y.  (N,C), g (C) */
void gate_forward(real *out, const real *h, const real *y, const real *g, int N, int C) {
    TIMED(NORMS);
    FOR_ROWS(n, N, C) FOR_COLUMNS(i, C) out[at + i] = h[at + i] + g[i] * y[at + i];
}
void gate_backward(real *dy, real *dg, const real *dout, const real *y, const real *g, int N,
                   int C) { /* dh = dout: the caller goes on with the same buffer */
    TIMED(NORMS);
    FOR_ROWS(n, N, C) {
        if (dg) FOR_COLUMNS(i, C) dg[i] += dout[at + i] * y[at + i];
        FOR_COLUMNS(i, C) dy[at + i] = dout[at + i] * g[i];
    }
}
/* Softcap and cross-entropy: l = 30*tanh(z/30), loss = lse(l) - l[target].
 * logits (N,V) holds z on entry, l after forward, dz after backward: one buffer of this size. */
#define SOFTCAP ((real)30)

static inline real softcap(real z) { /* 30*tanh(z/30), tanh(x) = sign(x) (1-t)/(1+t), t = e^-2|x| */
    const real t = fast_exp(-2 / SOFTCAP * fabs(z)), y = SOFTCAP * (1 - t) / (1 + t);
    return z < 0 ? -y : y;
}

void loss_forward(real *logits, real *lse, real *loss, const int *targets, int N, int V) {
    TIMED(LOSS);
    FOR_ROWS(n, N, V) {
        real *l = logits + at, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < V; i++) /* l <= 30: no search for the largest is needed */
            sum += fast_exp((l[i] = softcap(l[i])) - SOFTCAP);
        lse[n] = SOFTCAP + log(sum);
        if (targets) loss[n] = lse[n] - l[targets[n]];
    }
}
void loss_backward(real *logits, const real *lse, const int *targets, real dloss, int N, int V) {
    TIMED(LOSS);
    FOR_ROWS(n, N, V) { /* dloss: gradient of every token's loss */
        real *l = logits + at;
        const real lt = l[targets[n]], ls = lse[n], cap2 = 1 / (SOFTCAP * SOFTCAP);
        FOR_COLUMNS(i, V) l[i] = dloss * fast_exp(l[i] - ls) * (1 - l[i] * l[i] * cap2);
        l[targets[n]] -= dloss * (1 - lt * lt * cap2);
    }
}

/* ==== 4. Quantizers: what is stored, and therefore what the forward pass uses ================= */
/* Sum of |x| or x^2 in blocks of 4096 that are added in order: the same bits for any threads. */
static double block_sum(const real *x, size_t n, int squares) {
    enum { BLOCK = 4096 };
    const size_t blocks = CEIL(n, BLOCK);
    double *part = (double *)scratch(blocks * 2), total = 0;
#pragma omp parallel for if ((double)n > SMALL)
    for (size_t b = 0; b < blocks; b++) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = b * BLOCK; i < MIN(n, (b + 1) * BLOCK); i++)
            sum += squares ? (double)x[i] * (double)x[i] : (double)fabs(x[i]);
        part[b] = sum;
    }
    for (size_t b = 0; b < blocks; b++) total += part[b];
    return total;
}
/* Codes on a grid, with one step per group of weights: eff = step * (code + half/2). A group is a
 * whole copy, a row, or t->group weights of a row; steps are bf16. Rules for the step s:
 *   ternary  max(mean|w|, 1e-5), codes -1, 0, 1 (BitNet b1.58, 2402.17764), 5 of them in a byte
 *   int      max(max|w|, 1e-5) / top, codes -top..top, top = 2^(bits-1) - 1
 * The straight-through estimator of BitNet's FAQ: the gradient of eff is that of w, through
 * rounding, clipping and step; nothing is masked. */
static int is_ternary(const Tensor *t) { return t->bits == 2 && !t->half; }
static size_t grid_scales(const Tensor *t) {
    return t->copy_n / (size_t)t->line * CEIL((size_t)t->line, (size_t)t->group);
}
static size_t grid_bytes(const Tensor *t) { /* 3^5 = 243 <= 256: 1.6 bits for 1.585 */
    return 2 * grid_scales(t) +
           (is_ternary(t) ? CEIL(t->copy_n, 5) : CEIL(t->copy_n * (size_t)t->bits, 8));
}
static size_t pieces(const Tensor *t) { /* groups, or rows when these are one group */
    return grid_scales(t) > 1 ? grid_scales(t) : t->copy_n / (size_t)t->stored_cols;
}
/* Where piece p of a copy starts, and how long it is. */
static size_t piece_at(const Tensor *t, size_t p, int *n) {
    const size_t line = (size_t)t->stored_cols, group = MIN((size_t)t->group, line);
    const size_t per_line = CEIL(line, group), at = p % per_line * group;
    *n = (int)MIN(group, line - at);
    return p / per_line * line + at;
}
#define FOR_PIECES(g, at, n, t) /* g: whose scale it has */ \
    PRAGMA(omp parallel for if ((double)(t)->copy_n > SMALL)) \
    for (size_t p_ = 0; p_ < pieces(t); p_++) \
        for (int n, once_ = 1; once_;) \
            for (size_t at = piece_at(t, p_, &n), g = grid_scales(t) > 1 ? p_ : 0; once_; once_ = 0)
static int grid_top(const Tensor *t) { return is_ternary(t) ? 1 : (1 << (t->bits - 1)) - 1; }

/* The code of z at step s: ties to even, as torch.round; s may have been rounded down: clip. */
INLINE real grid_code(real z, real s, const Tensor *t) {
    const real top = (real)grid_top(t), low = -top - (real)t->half;
    const real q = rint(z / s - (real)t->half / 2);
    return q > top ? top : q > low ? q : low;
}
static void grid_codes(int8_t *code, const real *z, int n, real s, const Tensor *t) {
    FOR_COLUMNS(i, n) code[i] = (int8_t)grid_code(z[i], s, t);
}
static real grid_step(const real *w, size_t n, const Tensor *t) {
    const double mean = is_ternary(t) || t->bits == 1 ? block_sum(w, n, 0) / (double)n : 0;
    const double size = t->bits == 1 ? 2 * mean : mean > 0 ? mean : (double)absmax_of(w, (int)n);
    const real least = (real)(size > 1e-5 ? size : 1e-5);
    return from_bf16(to_bf16(t->bits == 1 ? least : least / (real)grid_top(t)));
}
/* The steps, then the codes of z, which is w or w - mean w. */
static void grid_quantize_as(int8_t *code, real *scale, uint8_t *mask, const real *w, const real *z,
                             const Tensor *t) {
    const int one = grid_scales(t) == 1; /* threads within threads cost more than they gain */
    if (one) *scale = grid_step(w, t->copy_n, t);
    FOR_PIECES(g, at, n, t) {
        if (!one) scale[g] = grid_step(w + at, (size_t)n, t);
        grid_codes(code + at, z + at, n, scale[g], t);
        if (mask) ste_mask(mask + at, z + at, n, scale[g], t);
    }
}
static void grid_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                          const Tensor *t) {
    grid_quantize_as(code, scale, mask, w, w, t);
}
static void grid_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t) {
    const real shift = (real)t->half / 2;
    FOR_PIECES(g, at, n, t) FOR_COLUMNS(i, n) eff[at + i] = scale[g] * ((real)code[at + i] + shift);
}
static void ste_identity(real *dw, const uint8_t *mask, const Tensor *t) {
    for (size_t i = 0; mask && i < t->copy_n; i++) dw[i] = mask[i] ? dw[i] : 0;
}
static void grid_pack(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t) {
    const size_t bits = (size_t)t->bits, S = grid_scales(t), n = t->copy_n, trits = is_ternary(t);
    for (size_t g = 0; g < S; g++, out += 2) put_u(out, to_bf16(scale[g]), 2);
    memset(out, 0, grid_bytes(t) - 2 * S);
    for (size_t i = n; trits && i-- > 0;) out[i / 5] = (uint8_t)(3 * out[i / 5] + code[i] + 1);
    for (size_t i = 0; !trits && i < n * bits; i++) {
        const int u = code[i / bits] + (1 << (bits - 1));
        out[i / 8] |= (uint8_t)((u >> i % bits & 1) << i % 8);
    }
}
static int grid_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    const size_t bits = (size_t)t->bits, S = grid_scales(t), trits = is_ternary(t);
    for (size_t g = 0; g < S; g++, in += 2) {
        scale[g] = from_bf16((uint16_t)get_u(in, 2));
        if (!(scale[g] > 0) || !isfinite(scale[g])) return 0;
    }
    for (size_t i = 0, byte = 0; i < t->copy_n && trits; i++, byte /= 3) {
        if (i % 5 == 0 && (byte = in[i / 5]) >= 243) return 0;
        code[i] = (int8_t)((int)(byte % 3) - 1);
    }
    for (size_t i = 0; i < t->copy_n && !trits; i++) {
        int u = 0;
        for (size_t b = 0, at = i * bits; b < bits; b++, at++) u |= (in[at / 8] >> at % 8 & 1) << b;
        if (u == 0 && !t->half) return 0; /* -2^(bits-1) is never written */
        code[i] = (int8_t)(u - (1 << (bits - 1)));
    }
    return 1;
}
/* bf16: every number is its own scale; there are no codes. */
static size_t bf16_scales(const Tensor *t) { return t->copy_n; }
static size_t bf16_bytes(const Tensor *t) { return 2 * t->copy_n; }
static void bf16_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                          const Tensor *t) {
    (void)code, (void)mask;
    FOR_RANGE(i, 0, t->copy_n) scale[i] = from_bf16(to_bf16(w[i]));
}
static void bf16_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t) {
    (void)code, memcpy(eff, scale, sizeof(real) * t->copy_n);
}
static void bf16_pack(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t) {
    (void)code;
    for (size_t i = 0; i < t->copy_n; i++) put_u(out + 2 * i, to_bf16(scale[i]), 2);
}
static int bf16_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    (void)code;
    for (size_t i = 0; i < t->copy_n; i++)
        if (!isfinite(scale[i] = from_bf16((uint16_t)get_u(in + 2 * i, 2)))) return 0;
    return 1;
}

static const Quantizer quantizers[] = { /* bits 0: those of the tensor */
    {"bf16", 16, bf16_scales, bf16_bytes, bf16_quantize, bf16_dequantize, ste_identity,
     bf16_pack, bf16_unpack},
    {"ternary", 2, grid_scales, grid_bytes, grid_quantize, grid_dequantize, ste_identity,
     grid_pack, grid_unpack},
    {"int", 0, grid_scales, grid_bytes, grid_quantize, grid_dequantize, ste_identity, grid_pack,
     grid_unpack},
    {"binary", 1, grid_scales, grid_bytes, binary_quantize, grid_dequantize, ste_identity,
     grid_pack, grid_unpack},
    {"mixed", 0, mixed_scales, mixed_bytes, mixed_quantize, mixed_dequantize, ste_identity,
     mixed_pack, mixed_unpack},
    {"codebook", 0, book_scales, book_bytes, book_quantize, book_dequantize, ste_identity,
     book_pack, book_unpack},
    {"quest", 0, grid_scales, grid_bytes, quest_quantize, quest_dequantize, quest_backward,
     grid_pack, grid_unpack},
};
enum { Q_BF16, Q_TERNARY, Q_INT, Q_BINARY, Q_MIXED, Q_BOOK, Q_QUEST };

/* Bits that an item NAME:BITS or NAME:BITS:P% of --protect gives to a tensor, or 0; and P. */
static int protected_bits(const Config *c, const char *name, double *percent) {
    const size_t len = strlen(name);
    *percent = 100;
    if (!strncmp(name, "hi_", 3)) return c->ffn_hi_bits;
    if (!strcmp(name, "fips_u")) return c->fips_ubits;
    for (const char *p = c->protect; *p; p += strcspn(p, ","), p += *p == ',') {
        if (strncmp(p, name, len) || p[len] != ':') continue;
        const char *colon = strchr(p + len + 1, ':');
        if (colon && colon < p + strcspn(p, ",")) *percent = atof(colon + 1);
        return atoi(p + len + 1);
    }
    return 0;
}
/* How a tensor is stored: quantizer, bits, what shares a scale. */
static void choose_quantizer(Tensor *t, const Config *c) {
    static const int of_wq[] = {Q_BF16, Q_TERNARY, Q_BINARY, Q_QUEST, Q_INT};
    double percent = 100;
    const int factor = t->role == FACTOR, lora = factor && *t->name == 'l';
    const int fips = factor && *t->name == 'f';
    const int protect = t->role == PROJ ? protected_bits(c, t->name, &percent)
                        : lora ? c->lora_bits : fips ? c->fips_vbits : factor ? 8 : 0;
    int q = t->role == PROJ && !protect ? of_wq[MIN(c->wq, WQ_INT4)] : Q_INT;
    t->bits = t->role == EMBED ? c->embed_bits : t->role == INTERFACE ? 16 : protect ? protect
              : q == Q_QUEST ? (int)ceil(c->wbits) : q == Q_INT ? 4 + c->wq - WQ_INT4
              : quantizers[q].bits;
    if (t->bits == 16) q = Q_BF16;
    int g, n, book = t->role == PROJ && !protect ? cluster_of(c, &g, &n) : 0;
    if (book > 0) {
        t->quant = quantizers + Q_BOOK, t->line = 1;
        t->vector = g, t->group = n, t->shared = book == 2;
        for (t->bits = 1; 1 << t->bits < n;) t->bits++;
    } else if (protect && percent < 100) {
        t->quant = quantizers + Q_MIXED, t->line = t->stored_cols;
        t->group = (int)ceil(t->rows * percent / 100);
    }
    if (book > 0 || (protect && percent < 100)) return;
    const int wide = lora || ((q == Q_TERNARY || q == Q_BINARY) && c->wscale == SCALE_TENSOR);
    t->quant = quantizers + q;
    t->line = wide ? (int)t->copy_n : t->stored_cols;
    t->group = c->wscale == SCALE_GROUP && t->role == PROJ && q != Q_QUEST ? 128 : t->line;
    t->half = q == Q_BINARY || (q == Q_QUEST && c->wbits != 1.585);
    t->ste = t->role == PROJ && q != Q_BF16 ? ste_of(c, q == Q_QUEST) : STE_IDENTITY;
    if (fips) t->ste = STE_NONZERO;
    t->had = q == Q_QUEST ? hadamard_block(c, t->stored_cols) : 0;
}

/* Inputs of the projections as integers -top..top, 127 of them for int8, with one step per token:
 * q = rint(x * top/absmax), which stands for q * inv, inv = max(absmax, 1e-5)/top. The gradient
 * passes as if nothing was rounded. top 0: the numbers are kept as they are; lambda < 1: they are
 * x + lambda * (Q(x) - x). A frozen pass (gradient tests) records the residual Q(x) - x once, then
 * computes x + residual: a smooth function with the same derivative.  (N,K) */
void act_quant(Act *a, const real *x, int N, int K, int top, real lambda, int freeze) {
    TIMED(QUANT);
    FOR_ROWS(n, N, K) {
        if (top && freeze != REPLAY) {
            const real absmax = larger(absmax_of(x + at, K), (real)1e-5), s = (real)top / absmax;
            int8_t *q = a->q + at;
            a->inv[n] = absmax / (real)top;
            FOR_COLUMNS(i, K) q[i] = (int8_t)rint(x[at + i] * s);
        }
        for (int i = 0; i < K && freeze == RECORD; i++)
            a->res[at + i] = top ? lambda * (a->q[at + i] * a->inv[n] - x[at + i]) : 0;
        for (int i = 0; i < K && (!top || freeze); i++)
            a->x[at + i] = x[at + i] + (freeze ? a->res[at + i] : 0);
        for (int i = 0; i < K && top && !freeze && lambda < 1; i++)
            a->x[at + i] = x[at + i] + lambda * (a->q[at + i] * a->inv[n] - x[at + i]);
    }
}
/* ==== 5. The model ============================================================================ */
static void *owned(Golf *m, size_t n, size_t size) {
    m->owned = realloc(m->owned, sizeof(void *) * (size_t)(m->n_owned + 1));
    if (!m->owned) die("out of memory");
    return m->owned[m->n_owned++] = xcalloc(n, size);
}
static real *owned_reals(Golf *m, size_t n) { return owned(m, n, sizeof(real)); }

void golf_free(Golf *m) {
    for (int i = 0; m->packed && i < 3 * N_TENSORS * m->copies; i++) {
        free(m->packed[i].codes.panel), free(m->packed[i].codes.stream);
        free(m->packed[i].forward.panel), free(m->packed[i].back.panel);
    }
    free(m->head.panel), free(m->head_back.panel);
    if (m->teacher) golf_free(m->teacher);
    for (int i = 0; i < m->n_owned; i++) free(m->owned[i]);
    free(m->owned);
    memset(m, 0, sizeof *m);
}

/* The tensor table of a config: shapes, sizes, places. Everything else loops over this. */
static void golf_layout(Golf *m, const Config *c) {
    const int stored_of[] = {1, BLOCKS, c->phase ? PHASES : BLOCKS, BLOCKS * c->hi_experts,
                             BLOCKS * c->experts};
    *m = (Golf){.c = *c, .phases = PHASES};
    Tensor *t = m->t;
#define X(name_, of, rows_, cols_, role_, mode_, init_) \
    *t++ = (Tensor){.name = #name_, .role = role_, .rows = rows_, \
                    .cols = cols_, .mode = mode_, .stored_copies = stored_of[of], .init = init_, \
                    .per = of, .experts = of == PER_MOE ? c->experts : 0};
    GOLF_TENSORS(X)
#undef X
    for (t = m->t; t < m->t + N_TENSORS; t++) {
        t->stored_cols = t->mode == MODE_VECTOR ? t->cols : t->mode == MODE_SCALAR ? 1 : 0;
        t->copy_n = (size_t)t->rows * t->stored_cols;
        if (unshared(c, t->name)) t->stored_copies = PHASES;
        if (t->stored_copies > m->copies) m->copies = t->stored_copies;
        choose_quantizer(t, c);
        t->n = t->stored_copies * t->copy_n;
        t->at = m->n_params, m->n_params += t->n;
        t->at_x = m->n_x, m->n_x += t->role == INTERFACE ? (size_t)t->cols : 0;
        t->copy_scales = STORED(t) ? t->quant->scales(t) : 0;
        t->copy_bytes = STORED(t) ? t->quant->bytes(t) : 0;
        t->bytes = t->stored_copies * t->copy_bytes;
        t->at_scale = m->n_scales, m->n_scales += t->stored_copies * t->copy_scales;
    }
}

/* Phase p uses this block, and this copy of a tensor. */
static int block_of(const Config *c, int p) {
    const int q = p - c->prelude;
    if (q < 0) return p;
    if (q >= LOOP_PHASES) return c->prelude + c->unique + (q - LOOP_PHASES);
    return c->prelude + (c->order == ORDER_CYCLE ? q % c->unique : q / c->repeat);
}
static int copy_of(const Golf *m, const Tensor *t, int p) { /* of experts: p * E + e */
    if (t->experts) return block_of(&m->c, p / t->experts) * t->experts + p % t->experts;
    return t->stored_copies == m->phases ? p : block_of(&m->c, p);
}

void golf_init(Golf *m, const Config *c, int train) {
    golf_layout(m, c);
    m->train = train;
    m->eff = owned_reals(m, m->n_params), m->code = owned(m, m->n_params, 1);
    m->scale = owned_reals(m, m->n_scales), m->ix = owned_reals(m, PHASES * m->n_x);
    m->packed = owned(m, (size_t)3 * N_TENSORS * m->copies, sizeof(Packed));
    m->phase = owned(m, (size_t)PHASES, sizeof(Phase));
    m->prev = owned(m, (size_t)PHASES + 1, sizeof(real *));
    m->run = owned(m, (size_t)(BLOCKS + c->unique * MOST_REPEATS), sizeof(int));
    golf_depth(m, c->repeat);
    if (!train) return;
    m->w = owned_reals(m, m->n_params), m->g = owned_reals(m, m->n_params);
    m->m = owned_reals(m, m->n_params), m->v = owned_reals(m, m->n_params);
    m->mask = owned(m, m->n_params, 1);
    m->before = owned(m, m->n_params, 1), m->dix = owned_reals(m, PHASES * m->n_x);
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++) {
        /* keyed by name: arms that differ in one tensor share the start of all others */
        const uint64_t key = hash64((uint64_t)c->seed, crc32_of(0, t->name, strlen(t->name)));
        FOR_RANGE(i, 0, t->n)
            m->w[t->at + i] = (real)(t->role == INTERFACE ? t->init
                                     : t->init * (c->init == INIT_BASELINE && t->role == PROJ
                                                  ? 2 * uniform01(key, i) - 1 : normal01(key, i)));
    }
    cluster_fit(m), ramp_init(m);
    golf_quantize(m);
    m->first_scale = memcpy(owned_reals(m, m->n_scales), m->scale, m->n_scales * sizeof(real));
}

/* The largest code of a projection's inputs, 0 = no codes. int4 leaves the down projection, where
 * the outliers are, 8 bits (BitNet's FAQ). */
static int act_top(const Config *c, int k) {
    if (k == T_hi_down || (k == T_wdown && c->aq == AQ_INT4)) return c->aq ? 127 : 0;
    return c->aq == AQ_INT8 ? 127 : c->aq == AQ_INT4 ? 7 : 0;
}
static void act_alloc(Golf *m, Act *a, size_t N, size_t K) {
    if (m->c.aq) a->q = owned(m, N * K, 1), a->inv = owned_reals(m, N);
    if (!act_top(&m->c, 0) || m->freeze || may_mix(&m->c)) a->x = owned_reals(m, N * K);
    if (m->c.aq == AQ_QUEST) a->mask = owned(m, N * K, 1);
    if (m->freeze) a->res = owned_reals(m, N * K);
}

void golf_buffers(Golf *m, size_t N) {
    const Config *c = &m->c;
    const int C = c->width, D = HEAD_DIM, F = HIDDEN;
    if (m->freeze && c->recompute) die("a frozen pass needs --recompute=0: residuals per phase");
    m->N = N;
#define PHASE_REAL(name, n) s->name = owned_reals(m, N * (size_t)(n));
#define PHASE_ACT(name, n, rows) act_alloc(m, &s->name, N * (rows), (size_t)(n));
#define MODEL_REAL(name, n) m->name = owned_reals(m, N * (size_t)(n));
    for (Phase *s = m->phase; s < m->phase + PHASES; s++)
        if ((m->train && !c->recompute) || s == m->phase) {
            PHASE_REALS(PHASE_REAL)
            PHASE_ACTS(PHASE_ACT)
        } else { /* what is not kept for a backward pass shares the buffers of the first phase */
            *s = *m->phase;
            if (m->train || c->unet) s->out = owned_reals(m, N * (size_t)c->width);
        }
    FORWARD_REALS(MODEL_REAL)
    m->logits = owned_reals(m, MIN(N, HEAD) * (size_t)c->vocab);
    m->rope = owned_reals(m, (size_t)c->seq * D), m->ones = owned_reals(m, (size_t)(C + F));
    for (int i = 0; i < C + F; i++) m->ones[i] = 1;
    for (int t = 0; t < c->seq; t++)
        for (int i = 0; i < D / 2; i++) {
            const double angle = t * pow(10000, -2.0 * i / D);
            m->rope[(size_t)t * D + i] = (real)cos(angle);
            m->rope[(size_t)t * D + D / 2 + i] = (real)sin(angle);
        }
    moe_buffers(m, N);
    m->dout = owned(m, (size_t)PHASES, sizeof(real *));
    m->grad_rms = owned(m, (size_t)PHASES, sizeof(double));
    for (int p = 0; p < (c->unet ? PHASES / 2 : 0); p++) m->dout[p] = owned_reals(m, N * C);
    if (!m->train) return;
    BACKWARD_REALS(MODEL_REAL)
    m->partial = owned_reals(m, (CEIL(N * TOPK, CHUNK) + (size_t)c->experts) * m->n_x);
}

/* The same buffers from token n0 on. */
static Act act_at(const Act *a, size_t n0, size_t K) {
    return (Act){a->x ? a->x + n0 * K : NULL, a->inv ? a->inv + n0 : NULL,
                 a->res ? a->res + n0 * K : NULL, a->q ? a->q + n0 * K : NULL,
                 a->mask ? a->mask + n0 * K : NULL};
}
static Phase phase_at(const Golf *m, int p, size_t n0) {
    const Config *c = &m->c;
    const Phase *s = m->phase + p;
#define REAL_AT(name, n) .name = s->name + n0 * (size_t)(n),
#define ACT_AT(name, n, rows) .name = act_at(&s->name, n0 * (rows), (size_t)(n)),
    return (Phase){PHASE_REALS(REAL_AT) PHASE_ACTS(ACT_AT)};
}
static Flow flow_at(const Golf *m, size_t n0) {
    const Config *c = &m->c;
#define FLOW_AT(name, n) .name = m->name ? m->name + n0 * (size_t)(n) : NULL,
    return (Flow){FORWARD_REALS(FLOW_AT) BACKWARD_REALS(FLOW_AT)};
}

void golf_cache(Golf *m) {
    const Config *c = &m->c;
    const size_t n = (size_t)PHASES * c->seq * KV_HEADS * HEAD_DIM;
    m->kcache = owned_reals(m, n), m->vcache = owned_reals(m, n);
}

/* The interface has three modes and per-phase or per-block copies; layers know nothing of this.
 * expand: what is stored -> a full vector for every phase. fold: its adjoint, for gradients. */
static size_t stored_at(const Golf *m, const Tensor *t, int p, int i) {
    return t->at + (size_t)copy_of(m, t, p) * t->stored_cols + (t->mode == MODE_VECTOR ? i : 0);
}

static void expand(Golf *m, const Tensor *t) {
    for (int p = 0; p < (t->role == INTERFACE ? m->phases : 0); p++)
        for (int i = 0; i < t->cols; i++)
            m->ix[p * m->n_x + t->at_x + i] =
                t->mode ? m->eff[stored_at(m, t, p, i)] : (real)t->init;
}
static void fold(Golf *m, const Tensor *t) {
    for (int p = 0; p < (t->role == INTERFACE && t->mode ? m->phases : 0); p++)
        for (int i = 0; i < t->cols; i++)
            m->g[stored_at(m, t, p, i)] += m->dix[p * m->n_x + t->at_x + i];
}

static real *scale_of(const Golf *m, const Tensor *t, int copy) {
    if (t->shared) t = m->t + T_wqkv;
    return m->scale + t->at_scale + copy * t->copy_scales;
}
/* Row ranges of projection k that have an input of their own: all rows are range 0, unless q, k
 * and v have an own norm each. Returns the number of rows, 0 for a range that does not exist. */
static int row_range(const Golf *m, int k, int r, int *first) {
    const Config *c = &m->c;
    const int q = c->width, kv = KV_HEADS * HEAD_DIM, start[] = {0, q, q + kv, QKV_ROWS};
    const int split = (k == T_wqkv || k == T_lb_qkv) && SPLIT;
    *first = split ? start[r] : 0;
    return split ? start[r + 1] - start[r] : r ? 0 : m->t[k].rows;
}
/* Panels of row range r of copy j of projection k. */
static Packed *packed_of(const Golf *m, int k, int j, int r) {
    return m->packed + (k * m->copies + j) * 3 + r;
}
static int ternary(const Tensor *t) { return t->quant == quantizers + Q_TERNARY; }
/* Is y = x W^T exact in integers? Both sides have codes, of the same domain, that the kernel takes:
 * with a half grid 2 code + 1. A scale per row multiplies afterwards. */
static int in_integers(const Golf *m, const Tensor *t) {
    const int k = (int)(t - m->t), one = is_ternary(t) || t->bits == 1;
    if (t->quant == quantizers + Q_QUEST ? m->c.aq != AQ_QUEST || m->c.abits > 7
                                         : !act_top(&m->c, k)) return 0;
    return t->role == PROJ && k <= T_wdown && !t->vector && t->quant != quantizers + Q_MIXED &&
           t->bits < 16 && t->group == t->line && (t->half ? t->bits < 8 : 1) &&
           (KERNEL_BITS == 8 || one) && !m->freeze && lambda_of(m, k) == 1 &&
           (m->c.qat == QAT_ON || !m->w);
}

/* Codes and eff to panels, stored interface to full vectors: for the layers. */
static void golf_pack(Golf *m) {
    const int V = m->c.vocab, C = m->c.width;
    const real *E = m->eff + m->t[T_embed].at;
    for (int k = 0; k < N_TENSORS; k++) {
        const Tensor *t = m->t + k;
        expand(m, t);
        for (int jr = 0, first; MATRIX(t) && jr < 3 * t->stored_copies; jr++) {
            const int rows = row_range(m, k, jr % 3, &first), K = t->cols;
            const size_t at = t->at + ((size_t)(jr / 3) * t->rows + first) * K;
            Packed *w = packed_of(m, k, jr / 3, jr % 3);
            if (!rows) continue;
            if (in_integers(m, t)) {
                const size_t n = (size_t)rows * K;
                int8_t *codes = memcpy(xcalloc(n, 1), m->code + at, n);
                for (size_t i = 0; t->half && i < n; i++) codes[i] = (int8_t)(2 * codes[i] + 1);
                int_pack(&w->codes, codes, rows, K), free(codes);
                if (!m->w && (is_ternary(t) || t->bits == 1)) int_pack_stream(&w->codes);
            } else panels_pack(&w->forward, mat_t(m->eff + at, K), K, rows);
            if (m->train) panels_pack(&w->back, mat(m->eff + at, K), rows, K);
        }
    }
    panels_pack(&m->head, mat_t(E, C), C, V);
    if (m->train) panels_pack(&m->head_back, mat(E, C), V, C);
}
static void each_copy_backward(Golf *m, real *g) { /* d(eff) to d(w) */
    if (g == m->g) fips_fold(m);
    cluster_average(m, g);
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
        for (int j = 0; t->ste && j < t->stored_copies; j++) {
            if (m->c.qat != QAT_ON && t->ste != STE_NONZERO) break;
            const size_t at = t->at + j * t->copy_n;
            t->quant->backward(g + at, m->mask + at, t);
        }
}
void golf_use(Golf *m) {
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
        for (int j = 0; j < (STORED(t) ? t->stored_copies : 0); j++) {
            const size_t at = t->at + j * t->copy_n;
            t->quant->dequantize(m->eff + at, m->code + at, scale_of(m, t, j), t);
            if (m->train && t->role != INTERFACE) soften(m, t, j);
        }
    if (m->freeze) { /* eff = (what the gradient passes of w) + residual */
        real *w = memcpy(xcalloc(m->n_params, sizeof(real)), m->w, m->n_params * sizeof(real));
        each_copy_backward(m, w);
        for (size_t i = 0; i < m->n_params; i++) {
            if (m->freeze == RECORD) m->res[i] = m->eff[i] - w[i];
            m->eff[i] = w[i] + m->res[i];
        }
        free(w);
    }
    fips_expand(m);
    golf_pack(m);
}
/* Once per optimizer step; all phases then share the result. */
void golf_quantize(Golf *m) {
    TIMED(QUANT);
    memcpy(m->before, m->code, m->n_params);
    if (m->freeze != REPLAY) cluster_average(m, m->w);
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++) {
        for (int j = 0; j < (STORED(t) && m->freeze != REPLAY ? t->stored_copies : 0); j++)
            t->quant->quantize(m->code + t->at + j * t->copy_n, scale_of(m, t, j),
                               t->ste ? m->mask + t->at + j * t->copy_n : NULL,
                               m->w + t->at + j * t->copy_n, t);
        for (size_t i = t->at; t->role == PROJ && m->quantized && i < t->at + t->n; i++)
            m->flips += m->before[i] != m->code[i];
    }
    m->quantized = 1;
    golf_use(m);
}
/* A projection's inputs, as codes or numbers. */
static Mat inputs_of(const Golf *m, const Act *x, int k) {
    const size_t K = (size_t)m->t[k].cols;
    return act_top(&m->c, k) && !m->freeze && lambda_of(m, k) == 1 ? mat_q(x->q, x->inv, K)
                                                                   : mat(x->x, K);
}
/* y = x W^T for row range r of projection k in phase p, in integers when both sides have codes;
 * its gradients dx = dy W and, over all tokens at once, dW += dy^T x.  y (N,..) with stride ldy */
static void linear_forward(const Golf *m, real *y, size_t ldy, const Act *x, int k, int p, int r,
                           int N) {
    TIMED(Y);
    const Tensor *t = m->t + k;
    const int j = copy_of(m, t, p);
    const Packed *w = packed_of(m, k, j, r);
    int first;
    row_range(m, k, r, &first);
    if (in_integers(m, t)) {
        const real *scale = scale_of(m, t, j), whole = t->half ? (real)0.5 : 1;
        const int wide = t->copy_scales == 1;
        gemm_int(y + first, ldy, x->q, x->inv, &w->codes, wide ? *scale * whole : whole, N);
        for (int n = 0; n < N && !wide; n++)
            FOR_COLUMNS(i, w->codes.rows) y[n * ldy + first + i] *= scale[first + i];
    } else
        gemm_panels(y + first, ldy, inputs_of(m, x, k), &w->forward, N, 0);
    lora_forward(m, y + first, ldy, inputs_of(m, x, k), k, p, r, N);
}
static void linear_dx(const Golf *m, real *dx, const real *dy, size_t ldy, const Act *x, int k,
                      int p, int r, int N) {
    TIMED(DX);
    int first, j = copy_of(m, m->t + k, p);
    row_range(m, k, r, &first);
    gemm_panels(dx, m->t[k].cols, mat(dy + first, ldy), &packed_of(m, k, j, r)->back, N, 0);
    lora_dx(m, dx, mat(dy + first, ldy), k, p, r, N);
    if (m->c.aq == AQ_QUEST && lambda_of(m, k) > 0)
        quest_inputs_backward(&m->c, x, dx, N, m->t[k].cols);
}
static Gemm linear_dw(const Golf *m, const real *dy, size_t ldy, const Act *x, int k, int p, int r,
                      int N) { /* for gemm_all */
    const Tensor *t = m->t + k;
    int first, rows = row_range(m, k, r, &first), K = t->cols, j = copy_of(m, t, p);
    return (Gemm){m->g + t->at + ((size_t)j * t->rows + first) * K, (size_t)K,
                  mat_t(dy + first, ldy), inputs_of(m, x, k), rows, K, N, 1};
}

/* Interface vector k of phase p, and its gradient: NULL (not computed) where the mode is none.
 * A chunk sums its gradients in a row of its own; the rows are added in order when the phase is
 * done: the same bits for any number of threads. */
static const real *ix_of(const Golf *m, int k, int p) {
    return m->ix + p * m->n_x + m->t[k].at_x;
}
static real *dix_of(const Golf *m, int k, size_t n0) {
    return m->t[k].mode ? m->partial + n0 / CHUNK * m->n_x + m->t[k].at_x : NULL;
}
#define IX(name) ix_of(m, T_##name, p)
#define DIX(name) dix_of(m, T_##name, n0)

static void add_chunks(Golf *m, int p, size_t chunks) {
    TIMED(NORMS);
    real *sum = m->dix + p * m->n_x;
    for (size_t j = 0; j < chunks; j++)
        for (size_t i = 0; i < m->n_x; i++) sum[i] += m->partial[j * m->n_x + i];
    memset(m->partial, 0, chunks * m->n_x * sizeof(real));
}

/* A projection's input: RMSNorm(x) * g if `norm`, or x; quantized. x, room (N,K), r (N), g (K) */
static void input_of(const Golf *m, Act *a, int k, int norm, real *r, const real *x, const real *g,
                     int N, int K, real *room) {
    if (norm) rmsnorm_forward(room, r, x, g, N, K);
    if (norm) x = room;
    const real lambda = lambda_of(m, k);
    if (m->c.aq == AQ_QUEST && lambda > 0) quest_inputs(&m->c, a, x, N, K, m->freeze);
    else act_quant(a, x, N, K, act_top(&m->c, k), lambda, m->freeze);
}

/* From token n0, n tokens at a time, on all threads when there is more than one chunk. */
#define FOR_CHUNKS(n0, n, N, CHUNK) \
    PRAGMA(omp parallel for schedule(dynamic) if ((N) > CHUNK)) \
    for (int n0 = 0; n0 < (N); n0 += CHUNK) \
        for (int n = MIN((N) - n0, CHUNK), once_ = 1; once_; once_ = 0)

static void matmul_dw(const Gemm *g, int count) {
    TIMED(DW);
    gemm_all(g, count);
}

/* One application of a block: prev (N,C) -> s->out (N,C). */
static void block_forward(Golf *m, int p, int B, int T) {
    const Config *c = &m->c;
    const int N = B * T, C = c->width, F = HIDDEN, H = c->heads, KV = KV_HEADS, D = HEAD_DIM;
    const int b = block_of(c, p), QKV = QKV_ROWS, pos = m->cached;
    const int norm_out = c->extra_norm >= XN_OUT, each = c->extra_norm == XN_EACH;
    const size_t wide = (size_t)CHUNK * (size_t)(F > O_COLS ? F : O_COLS);
    const Phase *all = m->phase + p;

    FOR_CHUNKS(n0, n, N, CHUNK) {
        Phase s = phase_at(m, p, n0);
        const Flow f = flow_at(m, n0);
        Act *in[] = {&s.in_q, &s.in_k, &s.in_v};
        real *u = scratch((size_t)2 * CHUNK * C), *room = u + (size_t)CHUNK * C;
        mix_forward(s.h, unet_join(m, &s, p, n0, n), f.x0, IX(mix0), IX(mix1), IX(phase_embed),
                    n, C);
        rmsnorm_forward(u, s.r_attn, s.h, IX(g_attn), n, C);
        for (int i = 0; i < (SPLIT ? 3 : 1); i++) { /* q, k and v, or all three from in_q */
            input_of(m, in[i], T_wqkv, each, s.r_each, c->norm && i == 2 ? s.h : u,
                     ix_of(m, T_x_q + i, p), n, C, room);
            linear_forward(m, s.qkv, QKV, in[i], T_wqkv, p, i, n);
        }
        qk_forward(s.qk, s.qkv, QKV, IX(q_gain), m->rope, pos, n0, n, T, H, KV, D);
        switch_values(m, &s, p, n);
    }
    const int own_v = c->attn_experts > 0; /* v and its gradient have buffers of their own */
    const real *k = all->qk + H * D, *v = own_v ? all->v_mix : all->qkv + (H + KV) * D;
    size_t ldq = (size_t)(H + KV) * D, ldk = ldq, ldv = (size_t)(own_v ? KV * D : QKV);
    if (m->kcache) { /* append this call's keys and values, then attend to all of them */
        const size_t ld = (size_t)KV * D, at = (size_t)p * c->seq * ld;
        for (int n = 0; n < N; n++) {
            memcpy(m->kcache + at + (pos + n) * ld, k + n * ldk, ld * sizeof(real));
            memcpy(m->vcache + at + (pos + n) * ld, v + n * ldv, ld * sizeof(real));
        }
        k = m->kcache + at, v = m->vcache + at, ldk = ldv = ld;
    }
    attention_forward(all->att, all->lse, all->qk, ldq, k, ldk, v, ldv, B, T, pos + T, H, KV, D);
    FOR_CHUNKS(n0, n, N, CHUNK) {
        Phase s = phase_at(m, p, n0);
        real *u = scratch(2 * wide + CHUNK * (size_t)HI(HI_COLS + C)), *room = u + wide;
        if (!switch_output(m, &s, p, n, u, room))
            input_of(m, &s.in_o, T_wo, norm_out, s.r_xo, s.att, IX(x_attn), n, C, room);
        linear_forward(m, s.o, C, &s.in_o, T_wo, p, 0, n);
        gate_forward(s.mid, s.h, s.o, IX(gate_attn), n, C);

        rmsnorm_forward(u, s.r_mlp, s.mid, IX(g_mlp), n, C);
        if (c->norm) input_of(m, &s.in_sel, T_wup, 0, NULL, u, NULL, n, C, NULL);
        input_of(m, &s.in_up, T_wup, each, s.r_up, c->norm ? s.mid : u, IX(x_up), n, C, room);
        if (c->experts) continue;
        linear_forward(m, s.f, F, &s.in_up, T_wup, p, 0, n);
        relu2_forward(u, s.f, n, F);
        input_of(m, &s.in_down, T_wdown, norm_out, s.r_xd, u, IX(x_mlp), n, F, room);
        linear_forward(m, s.y, C, &s.in_down, T_wdown, p, 0, n);
        hi_forward(m, &s, p, b, n, u);
        gate_forward(s.out, s.mid, s.y, IX(gate_mlp), n, C);
    }
    if (c->experts) moe_forward(m, p, N);
}

/* The same lines in reverse: m->dh is d(out) on entry and d(prev) on return; dx0 accumulates. */
static void block_backward(Golf *m, int p, int B, int T) {
    const Config *c = &m->c;
    const int N = B * T, C = c->width, F = HIDDEN, H = c->heads, KV = KV_HEADS, D = HEAD_DIM;
    const int b = block_of(c, p), QKV = QKV_ROWS, each = c->extra_norm == XN_EACH;
    const size_t ldqk = (size_t)(H + KV) * D, wide = CHUNK * (size_t)(F > O_COLS ? F : O_COLS);
    const Phase *all = m->phase + p;
    const Act *in[] = {&all->in_q, &all->in_k, &all->in_v};

    if (c->experts) moe_backward(m, p, N);
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Phase s = phase_at(m, p, n0);
        const Flow f = flow_at(m, n0);
        real *du = scratch(2 * wide + CHUNK * (size_t)HI(C)), *u = du + wide;
        /* out = mid + gate_mlp * down(in_down), in_down = RMSNorm(relu2(f)) * x_mlp */
        if (c->experts) memcpy(du, f.moe_du, sizeof(real) * (size_t)n * C);
        else {
            gate_backward(f.dy, DIX(gate_mlp), f.dh, s.y, IX(gate_mlp), n, C);
            hi_backward(m, &s, &f, p, b, n0, n);
            linear_dx(m, f.df, f.dy, C, &s.in_down, T_wdown, p, 0, n);
            if (c->extra_norm) {
                relu2_forward(u, s.f, n, F);
                rmsnorm_backward(f.df, 0, DIX(x_mlp), f.df, u, s.r_xd, IX(x_mlp), n, F);
            }
            /* f = up(in_up), in_up = RMSNorm(u) * x_up, u = RMSNorm(mid) * g_mlp */
            relu2_backward(f.df, s.f, n, F);
            linear_dx(m, du, f.df, F, &s.in_up, T_wup, p, 0, n);
        }
        hi_inputs(m, &s, &f, du, p, b, n, du + 2 * wide);
        if (each) {
            rmsnorm_forward(u, s.r_mlp, s.mid, IX(g_mlp), n, C);
            rmsnorm_backward(du, 0, DIX(x_up), du, u, s.r_up, IX(x_up), n, C);
        }
        rmsnorm_backward(f.dh, 1, DIX(g_mlp), du, s.mid, s.r_mlp, IX(g_mlp), n, C);

        /* mid = h + gate_attn * o(in_o), in_o = RMSNorm(att) * x_attn */
        gate_backward(f.d_o, DIX(gate_attn), f.dh, s.o, IX(gate_attn), n, C);
        linear_dx(m, c->attn_experts ? f.dax : f.datt, f.d_o, C, &s.in_o, T_wo, p, 0, n);
        switch_output_backward(m, &s, &f, p, n0, n, u);
        if (c->extra_norm)
            rmsnorm_backward(f.datt, 0, DIX(x_attn), f.datt, s.att, s.r_xo, IX(x_attn), n, C);
    }
    const int own_v = c->attn_experts > 0, ldv = own_v ? KV * D : QKV;
    attention_backward(m->dqk, ldqk, m->dqk + H * D, ldqk,
                       own_v ? m->dv_mix : m->dqkv + (H + KV) * D, (size_t)ldv, m->datt, all->lse,
                       all->qk, ldqk, all->qk + H * D, ldqk,
                       own_v ? all->v_mix : all->qkv + (H + KV) * D, (size_t)ldv, B, T, H, KV, D);
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Phase s = phase_at(m, p, n0);
        const Flow f = flow_at(m, n0);
        real *du = scratch((size_t)3 * CHUNK * C), *u = du + (size_t)CHUNK * C;
        real *di = SPLIT ? u + (size_t)CHUNK * C : du;
        const Act *s_in[] = {&s.in_q, &s.in_k, &s.in_v};
        qk_backward(f.dqkv, DIX(q_gain), f.dqk, s.qkv, QKV, IX(q_gain), m->rope, n0, n, T, H, KV,
                    D);
        switch_values_backward(m, &s, &f, p, n0, n);
        /* q, k, v from in_q, or each from RMSNorm(u) * x_q, x_k, x_v; u = RMSNorm(h) * g_attn */
        if (each) rmsnorm_forward(u, s.r_attn, s.h, IX(g_attn), n, C);
        for (int i = 0; i < (SPLIT ? 3 : 1); i++) {
            linear_dx(m, di, f.dqkv, QKV, s_in[i], T_wqkv, p, i, n);
            if (i == 0) switch_inputs(m, di, &f, p, n);
            real *to = i == 2 ? f.dh : du; /* norm=peri: v is of h, not of u */
            if (c->norm && i == 0) memcpy(du, di, sizeof(real) * (size_t)(n * C));
            else if (c->norm) gate_forward(to, to, di, m->ones, n, C);
            if (each) rmsnorm_backward(du, i > 0, dix_of(m, T_x_q + i, n0), di, u, s.r_each,
                                       ix_of(m, T_x_q + i, p), n, C);
        }
        rmsnorm_backward(f.dh, 1, DIX(g_attn), du, s.h, s.r_attn, IX(g_attn), n, C);

        /* h = mix0 * prev + mix1 * x0 + phase_embed */
        mix_backward(f.dh, f.dx0, DIX(mix0), DIX(mix1), DIX(phase_embed),
                     c->unet ? s.joined : m->prev[p] + (size_t)n0 * C, f.x0, IX(mix0), IX(mix1), n,
                     C);
        unet_backward(m, &f, p, n0, n);
    }
    static const int of[][2] = {{T_wqkv, 0}, {T_wdown, 0}, {T_wup, 0}, {T_wo, 0}, {T_wqkv, 1},
                                {T_wqkv, 2}};
    const Gemm dw[] = { /* the smallest at the end, where a thread may wait for another */
        linear_dw(m, m->dqkv, QKV, in[0], T_wqkv, p, 0, N),
        linear_dw(m, m->dy, C, &all->in_down, T_wdown, p, 0, c->experts ? 0 : N),
        linear_dw(m, m->df, F, &all->in_up, T_wup, p, 0, c->experts ? 0 : N),
        linear_dw(m, m->d_o, C, &all->in_o, T_wo, p, 0, N),
        linear_dw(m, m->dqkv, QKV, in[1], T_wqkv, p, 1, N),
        linear_dw(m, m->dqkv, QKV, in[2], T_wqkv, p, 2, N)};
    matmul_dw(dw, SPLIT ? 6 : 4);
    for (int i = 0; i < (SPLIT ? 6 : 4); i++) lora_dw(m, dw + i, of[i][0], p, of[i][1]);
    hi_dw(m, all, b, N), moe_dw(m, all, p, N), switch_dw(m, all, p, N);
    add_chunks(m, p, CEIL((size_t)N * TOPK, CHUNK) + (size_t)c->experts);
}

/* Tied head: norm, logits, loss and, to `learn`, its backward on the spot: HEAD tokens at a time,
 * so that logits and their gradients need not leave the cache (16 MB at V = 4096) and never exist
 * for all tokens. dh and dE result. */
static void head(Golf *m, const int *targets, int N, int learn) {
    TIMED(HEAD_MATMUL);
    const int C = m->c.width, V = m->c.vocab;
    const real *last = m->prev[m->phases];
    for (int h0 = 0; h0 < N; h0 += HEAD) {
        const int part = MIN(N - h0, HEAD);
        FOR_CHUNKS(n0, n, part, HEAD_CHUNK) {
            const Flow f = flow_at(m, h0 + n0);
            const int *y = targets ? targets + h0 + n0 : NULL;
            real *l = m->logits + (size_t)n0 * V, *dhn = scratch((size_t)HEAD_CHUNK * C);
            const real *x = last + (size_t)(h0 + n0) * C;
            rmsnorm_forward(f.hn, f.r_out, x, m->ones, n, C);
            gemm_panels(l, V, mat(f.hn, C), &m->head, n, 0);
            loss_forward(l, f.lse, f.loss, y, n, V);
            if (!learn) continue;
            if (m->teacher) teacher_loss(m, l, y, h0 + n0, n0, n, 1 / (real)N);
            loss_backward(l, f.lse, y, 1 / (real)N, n, V);
            for (size_t i = 0; m->teacher && i < (size_t)n * V; i++)
                l[i] += m->teacher->logits[(size_t)n0 * V + i];
            gemm_panels(dhn, C, mat(l, V), &m->head_back, n, 0);
            rmsnorm_backward(f.dh, 0, NULL, dhn, x, f.r_out, m->ones, n, C);
        }
        if (learn) gemm(m->g + m->t[T_embed].at, C, mat_t(m->logits, V),
                        mat(m->hn + (size_t)h0 * C, C), V, C, part, h0 > 0);
    }
}

static void body(Golf *m, const int *tokens, int B, int T) { /* all but the head */
    const int N = B * T, C = m->c.width;
    if ((size_t)N > m->N) die("%d tokens in buffers made for %zu", N, m->N);
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Flow f = flow_at(m, n0);
        embed_forward(f.e, m->eff + m->t[T_embed].at, tokens + n0, n, C);
        rmsnorm_forward(f.x0, f.r_e, f.e, m->ones, n, C);
    }
    m->prev[m->phases] = m->x0;
    for (int i = 0; i < m->runs; i++) {
        const int p = m->run[i];
        m->prev[p] = m->prev[m->phases];
        block_forward(m, p, B, T);
        m->prev[m->phases] = m->phase[p].out;
    }
    if (m->kcache) m->cached += T;
}
double golf_forward(Golf *m, const int *tokens, const int *targets, int B, int T) {
    const int N = B * T;
    body(m, tokens, B, T);
    if (m->teacher && m->train) body(m->teacher, tokens, B, T);
    head(m, targets, N, m->train && targets);
    double sum = m->train && targets ? N * moe_entropy(m, B, T) : 0;
    for (int n = 0; targets && n < N; n++) sum += (double)m->loss[n];
    return sum / N;
}

void golf_backward(Golf *m, const int *tokens, int B, int T) {
    const int N = B * T, C = m->c.width;
    const Tensor *embed = m->t + T_embed;
    memset(m->g + embed->n, 0, (m->n_params - embed->n) * sizeof(real)); /* embed is the first */
    memset(m->dix, 0, m->phases * m->n_x * sizeof(real));
    memset(m->dx0, 0, (size_t)N * C * sizeof(real));
    for (int i = m->runs - 1; i >= 0; i--) {
        if (m->c.recompute && i < m->runs - 1) block_forward(m, m->run[i], B, T);
        unet_add(m, m->run[i], N);
        if (m->watch) m->grad_rms[m->run[i]] = sqrt(block_sum(m->dh, (size_t)N * C, 1) / N / C);
        block_backward(m, m->run[i], B, T);
        if (i > 0 && m->runs - i == m->c.backprop) { /* what came before is taken as given */
            memset(m->dh, 0, (size_t)N * C * sizeof(real));
            break;
        }
    }
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Flow f = flow_at(m, n0);
        gate_forward(f.dx0, f.dx0, f.dh, m->ones, n, C); /* prev of phase 0 is x0 */
        rmsnorm_backward(f.dy, 0, NULL, f.dx0, f.e, f.r_e, m->ones, n, C);
    }
    embed_backward(m->g + embed->at, m->dy, tokens, N, C);
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++) fold(m, t);
    each_copy_backward(m, m->g);
}

/* ==== 6. Optimizer: AdamW (1711.05101), Muon, schedules, clipping ============================= */
/* linear: warm-up, constant, then linear to 0. two_stage (BitNet b1.58 FAQ): both halves aim at 0
 * at the end, the second from 2/3 of the rate, and only the first half decays weights. */
double lr_factor(const Config *c, int step) {
    const double done = (double)step / c->steps, up = c->warmup * c->steps;
    double f = step + 1 < up ? (step + 1) / up : 1;
    if (c->schedule == SCHED_TWO_STAGE) return f * (1 - done) * (done < 0.5 ? 1 : 2.0 / 3);
    if (1 - done < c->warmdown) f *= (1 - done) / c->warmdown;
    return f;
}
double wd_at(const Config *c, int step) {
    return c->schedule == SCHED_TWO_STAGE && 2.0 * step >= c->steps ? 0 : c->wd;
}
double golf_grad_norm(const Golf *m) {
    TIMED(OPTIMIZER);
    return sqrt(block_sum(m->g, m->n_params, 1));
}

/* step counts from 0. grad_scale multiplies every gradient (clipping). */
void golf_adamw(Golf *m, int step, double grad_scale) {
    TIMED(OPTIMIZER);
    const Config *c = &m->c;
    const real b1 = (real)c->beta1, b2 = (real)c->beta2, gs = (real)grad_scale;
    const real c1 = (real)(1 / (1 - pow(c->beta1, step + 1)));
    const real c2 = (real)(1 / (1 - pow(c->beta2, step + 1)));
    const double peak[] = {c->lr_embed, c->lr, c->lr, c->lr_interface}; /* of roles */
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++) {
        if (!STORED(t) || (t->role == PROJ && c->optimizer == OPT_MUON)) continue;
        const double rate = peak[t->role] * lr_factor(c, step);
        const real lr = (real)rate, keep = (real)(t->role == PROJ ? 1 - rate * wd_at(c, step) : 1);
        FOR_RANGE(i, t->at, t->n) {
            const real g = m->g[i] * gs;
            m->m[i] = b1 * m->m[i] + (1 - b1) * g;
            m->v[i] = b2 * m->v[i] + (1 - b2) * g * g;
            m->w[i] = keep * m->w[i] - lr * m->m[i] * c1 / (sqrt(m->v[i] * c2) + (real)1e-8);
        }
    }
}
/* Muon (K. Jordan, 2024): W -= lr * sqrt(max(1, rows/cols)) * O, where O is close to the orthogonal
 * matrix nearest to the momentum U: all singular values become about 1. Five times
 * X <- (a + b A + c A^2) X with A = X X^T, which acts on singular values alone, from U/|U|. The
 * smaller of X X^T and X^T X is used: (a + b A + c A^2) may stand on either side. */
static real *orthogonal(real *x, real *y, real *a, real *b, int rows, int cols) {
    TIMED(MUON);
    const int tall = rows > cols, k = MIN(rows, cols);
    const size_t n = (size_t)rows * cols;
    const real norm = 1 / (sqrt(inner(x, x, rows * cols)) + (real)1e-7);
    for (size_t i = 0; i < n; i++) x[i] *= norm;
    for (int round = 0; round < 5; round++) {
        const Mat X = mat(x, (size_t)cols), Xt = mat_t(x, (size_t)cols);
        gemm(a, k, tall ? Xt : X, tall ? X : Xt, k, k, tall ? rows : cols, 0);
        gemm(b, k, mat(a, k), mat(a, k), k, k, k, 0);
        for (int i = 0; i < k * k; i++)
            b[i] = (real)-4.7750 * a[i] + (real)2.0315 * b[i] + (i % (k + 1) ? 0 : (real)3.4445);
        gemm(y, cols, tall ? X : mat(b, k), tall ? mat(b, k) : X, rows, cols, k, 0);
        real *swap = x;
        x = y, y = swap;
    }
    return x;
}
void golf_muon(Golf *m, int step, double grad_scale) {
    TIMED(OPTIMIZER);
    const Config *c = &m->c;
    const double rate = c->lr_muon * lr_factor(c, step), keep = 1 - rate * wd_at(c, step);
    const double up = c->momentum_warmup ? fmin(1, (double)step / c->momentum_warmup) : 1;
    const real mu = (real)(up * c->momentum + (1 - up) * 0.85), gs = (real)grad_scale;
    #pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < N_TENSORS * m->copies; i++) { /* a matrix per thread: they are small */
        const Tensor *t = m->t + i / m->copies;
        if (t->role != PROJ || !t->n || i % m->copies >= t->stored_copies) continue;
        const size_t n = t->copy_n, at = t->at + i % m->copies * n;
        const int k = MIN(t->rows, t->cols);
        real *x = scratch(2 * n + (size_t)2 * k * k), *a = x + 2 * n, *mom = m->m + at;
        for (size_t e = 0; e < n; e++) { /* Nesterov's momentum, as an average */
            const real g = m->g[at + e] * gs;
            mom[e] = mu * mom[e] + (1 - mu) * g;
            x[e] = mu * mom[e] + (1 - mu) * g;
        }
        const int parts = c->muon_split && t == m->t + T_wqkv ? 3 : 1;
        const int start[] = {0, parts > 1 ? c->width : t->rows, QK_ROWS, t->rows};
        for (int part = 0; part < parts; part++) { /* q, k and v on their own, or all rows */
            const int first = start[part], rows = start[part + 1] - first;
            const size_t from = (size_t)first * t->cols, count = (size_t)rows * t->cols;
            const real *o = orthogonal(x + from, x + n, a, a + (size_t)k * k, rows, t->cols);
            const real lr = (real)(rate * sqrt(fmax(1, (double)rows / t->cols)));
            for (size_t e = 0; e < count; e++)
                m->w[at + from + e] = (real)keep * m->w[at + from + e] - lr * o[e];
        }
    }
}

/* ==== 7. Tokenizer and data =================================================================== */
#include "data/tokens.h" /* SentencePiece models, shards: nothing of the model or its training */

/* ==== 8. Files: options as text, the artifact and its ledger, the checkpoint ================== */
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define X(mask, type, name, def, range, help) \
    {mask, TYPE_##type, #name, def, range, help, offsetof(Config, name)},
static const Option options[] = {GOLF_OPTIONS(X)};
#undef X
#define EACH_OPTION(o, in) \
    for (const Option *o = options; o < options + COUNT(options); o++) if (o->mask & (in))

/* Sets one option from text; returns 0 when the value is outside the row's range. */
static int option_set(Config *c, const Option *o, const char *value) {
    char *field = (char *)c + o->at, *end;
    const int one_line = strlen(value) < sizeof c->data && !strchr(value, '\n');
    if (o->type == TYPE_STR) return one_line && strcpy(field, value);
    double x = strtod(value, &end), lo, hi;
    int number = end != value && !*end && isfinite(x), ok = 0, item = 0;
    for (const char *r = o->range; *r && !ok; item++) {
        const size_t len = strcspn(r, "|");
        if (isalpha((unsigned char)*r)) {
            if ((ok = strlen(value) == len && !strncmp(r, value, len))) x = item;
        } else if (number) {
            const int n = sscanf(r, "%lf to %lf", &lo, &hi);
            ok = x >= lo && x <= (n == 2 ? hi : lo) && (o->type == TYPE_NUM || x == rint(x));
        }
        r += len + (r[len] == '|');
    }
    if (ok && o->type == TYPE_NUM) *(double *)field = x;
    else if (ok) *(int *)field = (int)x;
    return ok;
}
/* The value as option_set would read it again; in text, or in place. */
static const char *option_text(const Config *c, const Option *o, char text[64]) {
    const char *field = (const char *)c + o->at, *r = o->range;
    if (o->type == TYPE_STR) return field;
    if (o->type == TYPE_NUM) {
        const double x = *(const double *)field;
        for (int digits = 6; digits <= 17; digits++) /* the shortest that reads back the same */
            if (snprintf(text, 64, "%.*g", digits, x), strtod(text, NULL) == x) break;
        return text;
    }
    const int code = *(const int *)field;
    for (int i = 0; i < code && *r; i++) r += strcspn(r, "|"), r += *r == '|';
    if (isalpha((unsigned char)*r)) snprintf(text, 64, "%.*s", (int)strcspn(r, "|"), r);
    else snprintf(text, 64, "%d", code);
    return text;
}
static void config_defaults(Config *c) {
    memset(c, 0, sizeof *c);
    EACH_OPTION(o, ~0)
        if (!option_set(c, o, o->def)) die("the default of --%s is outside its range", o->name);
}
/* key=value lines of the options in mask; returns the length. */
enum { CONFIG_TEXT = 16384 };
static size_t config_text(const Config *c, int mask, char out[CONFIG_TEXT]) {
    char text[64];
    size_t n = 0;
    EACH_OPTION(o, mask) {
        const char *value = option_text(c, o, text);
        if (mask == MODEL && o->mask & QUIET && !strcmp(value, o->def)) continue;
        n += (size_t)snprintf(out + n, CONFIG_TEXT - n, "%s=%s\n", o->name, value);
        if (n >= CONFIG_TEXT) die("configuration text over %d bytes", CONFIG_TEXT);
    }
    return n;
}
/* Reads what config_text wrote, into defaults; dies unless it says the same when written again. */
static void config_parse(Config *c, const char *path, const char *text, size_t len, int mask) {
    char copy[CONFIG_TEXT], again[CONFIG_TEXT];
    config_defaults(c);
    if (len >= sizeof copy) die("%s: configuration of %zu bytes: the file is damaged", path, len);
    snprintf(copy, sizeof copy, "%.*s", (int)len, text);
    for (char *line = strtok(copy, "\n"); line; line = strtok(NULL, "\n")) {
        char *value = strchr(line, '=');
        const Option *o = options, *end = options + COUNT(options);
        if (value) *value++ = 0;
        while (o < end && strcmp(o->name, line)) o++;
        if (!value || o == end || !(o->mask & mask) || !option_set(c, o, value))
            die("%s: option '%s=%s' is unknown or out of range: the file was written by another "
                "version of this program, or damaged", path, line, value ? value : "");
    }
    if (config_text(c, mask, again) != len || memcmp(again, text, len))
        die("%s: its configuration lacks options of this one: written by another version", path);
}
/* Options that mean nothing without another one, and pairs that do not go together. */
static void needs_check(const Config *c) {
#define X(name, has, needs) {#name, needs, (has) != 0},
    const struct { const char *name, *needs; int has; } rows[] = {GOLF_NEEDS(X)};
#undef X
#define X(clash, why) if (clash) die(why);
    GOLF_CLASHES(X)
#undef X
    char text[64];
    EACH_OPTION(o, MODEL | TRAIN)
        for (size_t i = 0; i < COUNT(rows); i++)
            if (!rows[i].has && !strcmp(o->name, rows[i].name) &&
                strcmp(option_text(c, o, text), o->def))
                die("--%s means nothing without --%s", o->name, rows[i].needs);
}
/* What option_set cannot see: lists, and relations between options. */
static void config_check(const Config *c) {
    protect_check(c), needs_check(c), unshare_check(c), ramp_check(c);
    const int W = c->width, H = c->heads, KV = KV_HEADS;
    if (W < 8) die("--width=%d: expected at least 8", W);
    if (W % H) die("--width=%d is no multiple of --heads=%d; change one of them", W, H);
    if (HEAD_DIM % 2)
        die("--width=%d / --heads=%d gives head_dim %d, and RoPE needs it even", W, H, HEAD_DIM);
    if (c->ffn == FFN_FIPS && (c->fips_rank < 1 || c->fips_rank > W))
        die("--fips_rank=%d: expected 1 to --width=%d", c->fips_rank, W);
    if (KV > H || H % KV) die("--kv_heads=%d: expected a divisor of --heads=%d", KV, H);
    cluster_check(c);
    if ((double)W * fmax(HIDDEN, fmax(QKV_ROWS, O_COLS)) > 1 << 30)
        die("--width=%d and a hidden width of %d: expected at most 2^30 weights a matrix", W,
            HIDDEN);
    if ((double)c->batch * c->seq > 1e8)
        die("--batch=%d x --seq=%d is over 100 million tokens a step", c->batch, c->seq);
}
/* The last byte: an adaptive binary range coder over codes and scales. A symbol is a path down a
 * tree of bits; every node has a probability that follows what it has seen. Which nodes: the first
 * four bits of a code per column where there are 1,000 rows (a column of the embedding has a mean
 * and a size of its own: 2.8 bits for 3.2 without, of 4), else one tree for all. Ternary: is it
 * zero, then its sign. 16-bit numbers: the upper byte, then the lower one given the upper. The
 * same functions write and read, so that both do the same to every probability. */
typedef struct { uint16_t p, n; } Node; /* P(0) * 65536, or 0: not asked yet; times asked */
typedef struct {
    uint8_t *at, *end;
    uint32_t low, range, code;
    int reading, full;
    uint16_t rate[256]; /* how far a probability moves, by how often it was asked: 1 / (n + 1.5) */
} Coder;
INLINE void coder_shift(Coder *r) { /* a byte more */
    r->full |= r->at == r->end;
    if (r->reading) r->code = r->code << 8 | (r->full ? 0 : *r->at++);
    else if (!r->full) *r->at++ = (uint8_t)(r->low >> 24);
    r->low <<= 8;
}
INLINE int coded_bit(Coder *r, Node *node, int bit) {
    if (!node->p) node->p = 1 << 15;
    const uint32_t p = node->p, bound = (r->range >> 16) * p;
    if (r->reading) bit = r->code >= bound;
    const uint32_t upper = bit ? bound : 0;
    r->range = bit ? r->range - bound : bound;
    r->code -= upper, r->low += upper;
    if (r->low < upper && !r->reading) /* a carry into what is written */
        for (uint8_t *q = r->at - 1; ++*q == 0;) q--;
    const uint32_t rate = r->rate[node->n]; /* integers: every machine decodes alike */
    const uint32_t next = bit ? p - (p * rate >> 16) : p + ((65535 - p) * rate >> 16);
    node->p = (uint16_t)(next < 36 ? 36 : next > 65500 ? 65500 : next);
    node->n += node->n < 255;
    for (; r->range < 1 << 24; r->range <<= 8) coder_shift(r);
    return bit;
}
/* The lower `bits` of a symbol, most significant first, from node `at` of a tree on. */
INLINE int coded_bits(Coder *r, Node *tree, int at, int bits, int symbol) {
    while (bits-- > 0) at = at * 2 | coded_bit(r, tree + at, symbol >> bits & 1);
    return at;
}
static int coded_indices(Coder *r, const Tensor *t, int8_t *code, size_t from, size_t to);
/* Numbers [from,to) of a copy. Returns 0 when what was read cannot be. */
static int coded_codes(Coder *r, const Tensor *t, int8_t *code, const real *scale, size_t from,
                       size_t to) {
    const size_t K = (size_t)t->stored_cols;
    const int own = t->rows >= 1000, mixed = t->quant == quantizers + Q_MIXED;
    Node *ternary = xcalloc(4 + 256 + 16 * K * own, sizeof(Node)), *shared = ternary + 4;
    int good = 1;
    for (size_t i = from; i < to && !r->full; i++) {
        const int trits = mixed ? scale[1 + i / K] == 0 : is_ternary(t), bits = trits ? 2 : t->bits;
        const int c = code[i], top = MIN(bits, 4), half = 1 << (bits - 1);
        const int u = trits ? c ? 2 + (c > 0) : 0 : c + half;
        Node *tree = trits ? ternary : own ? shared + 256 + 16 * (i % K) : shared;
        int node = coded_bits(r, tree, 1, top, u >> (bits - top));
        node = coded_bits(r, shared, node, bits - top, u) - 2 * half;
        good &= trits ? node != 1 : node || t->half; /* integers have no -half, ternary no 1 */
        code[i] = (int8_t)(trits ? node ? 2 * node - 5 : 0 : node - half);
    }
    free(ternary);
    return good;
}
static int coded_scales(Coder *r, const Tensor *t, real *scale, size_t from, size_t to) {
    Node *tree = xcalloc(257 << 8, sizeof(Node));
    int good = 1;
    for (size_t i = from; i < to && !r->full; i++) {
        const int u = to_bf16(scale[i]), upper = coded_bits(r, tree, 1, 8, u >> 8) - 256;
        const int lower = coded_bits(r, tree + 256 * (upper + 1), 1, 8, u) - 256;
        scale[i] = from_bf16((uint16_t)(upper << 8 | lower));
        good &= isfinite(scale[i]) && (t->bits == 16 || t->vector || scale[i] > 0 ||
                                       (t->quant == quantizers + Q_MIXED && scale[i] == 0 && i));
    }
    free(tree);
    return good;
}
/* All copies of a tensor, in streams of about a million numbers that threads take in parallel: the
 * lengths of the streams (4 bytes each), then these. Writes at most t->bytes to buf and returns how
 * many, or reads len of them. 0: does not fit, or is damaged. */
static size_t coded_tensor(const Golf *m, const Tensor *t, uint8_t *buf, size_t len, int reading) {
    const size_t parts = t->quant == quantizers + Q_MIXED ? 1 : 1 + (t->copy_n >> 20);
    const size_t n = parts * (size_t)t->stored_copies;
    const size_t room = t->bytes / n + 4096, S = t->copy_scales, N = t->copy_n;
    uint8_t *out = reading ? buf : xcalloc(n, room);
    size_t *at = xcalloc(n + 1, sizeof(size_t));
    int good = len >= 4 * n;
    at[0] = 4 * n;
    for (size_t i = 0; i < n && good && reading; i++) at[i + 1] = at[i] + get_u(buf + 4 * i, 4);
    good &= !reading || at[n] == len;
#pragma omp parallel for schedule(dynamic) reduction(& : good)
    for (size_t i = 0; i < (good ? n : 0); i++) {
        const size_t j = i / parts, part = i % parts, number = t->at + j * N;
        uint8_t *from = reading ? buf + at[i] : out + i * room;
        Coder r = {from, reading ? buf + at[i + 1] : from + room, 0, ~0u, 0, reading, 0, {0}};
        for (int k = 0; k < 256; k++) r.rate[k] = (uint16_t)(131072 / (2 * k + 3));
        for (int b = 0; b < 4 && reading; b++) coder_shift(&r);
        real *scale = scale_of(m, t, (int)j);
        good &= coded_scales(&r, t, scale, S * part / parts, S * (part + 1) / parts);
        if (t->vector) good &= coded_indices(&r, t, m->code + number, VECTORS(t) * part / parts,
                                             VECTORS(t) * (part + 1) / parts);
        else if (t->bits < 16) good &= coded_codes(&r, t, m->code + number, scale,
                                                   N * part / parts, N * (part + 1) / parts);
        if (t->quant == quantizers + Q_MIXED) {
            int high = 0;
            for (int row = 1; row <= t->rows; row++) high += scale[row] > 0;
            good &= high == t->group;
        }
        for (int b = 0; b < 4 && !reading; b++) coder_shift(&r);
        good &= !r.full && (!reading || r.at == r.end);
        if (!reading) at[i + 1] = (size_t)(r.at - from);
    }
    for (size_t i = 0; i < n && good && !reading; i++) {
        put_u(buf + 4 * i, at[i + 1], 4);
        if ((at[i + 1] += at[i]) >= len) good = 0; /* as long as packed means packed */
        else memcpy(buf + at[i], out + i * room, at[i + 1] - at[i]);
    }
    const size_t bytes = good ? at[n] : 0;
    if (!reading) free(out);
    return free(at), bytes;
}

enum { ARTIFACT_FIXED = 28 };

static size_t rows_of(const Golf *m) { /* of the file's table: tensors that hold numbers */
    size_t rows = 0;
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++) rows += STORED(t);
    return rows;
}
/* Bytes of the file; of a model that was never saved, the most it can take: packed, not coded. */
static Ledger ledger_of(const Golf *m) {
    char text[CONFIG_TEXT];
    double percent;
    Ledger l = {.header = ARTIFACT_FIXED + config_text(&m->c, MODEL, text) + 8 * rows_of(m) + 4};
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
        *(t->role == FACTOR ? &l.protect
          : t->role == PROJ ? protected_bits(&m->c, t->name, &percent) ? &l.protect : &l.core
          : t->role == EMBED ? &l.embedding : &l.interface) += t->coded ? t->coded : t->bytes;
    l.total = l.core + l.embedding + l.interface + l.protect + l.header;
    return l;
}
size_t artifact_bytes(const Config *c) {
    Golf m;
    golf_layout(&m, c);
    return ledger_of(&m).total;
}

void golf_save(Golf *m, const char *path, uint32_t tokenizer_crc) {
    char text[CONFIG_TEXT];
    const size_t len = config_text(&m->c, MODEL, text);
    uint8_t *file = xcalloc(artifact_bytes(&m->c), 1), *table = file + ARTIFACT_FIXED + len;
    uint8_t *row = table, *payload = row + 8 * rows_of(m) + 4;
    for (Tensor *t = m->t; t < m->t + N_TENSORS; t++) {
        if (!STORED(t)) continue;
        size_t bytes = coded_tensor(m, t, payload, t->bytes, 0);
        for (int j = 0; !bytes && j < t->stored_copies; j++)
            t->quant->pack(payload + j * t->copy_bytes, m->code + t->at + j * t->copy_n,
                           scale_of(m, t, j), t);
        t->coded = bytes = bytes ? bytes : t->bytes;
        put_u(row, bytes, 4), put_u(row + 4, crc32_of(0, payload, bytes), 4);
        payload += bytes, row += 8;
    }
    const size_t size = (size_t)(payload - file);
    const uint64_t head[] = {GOLF_VERSION, size, tokenizer_crc, len, rows_of(m)};
    memcpy(file, GOLF_MAGIC, 8), memcpy(file + ARTIFACT_FIXED, text, len);
    for (int i = 0; i < 5; i++) put_u(file + 8 + 4 * i, head[i], 4);
    put_u(row, crc32_of(0, file, (size_t)(row - file)), 4);
    write_file(path, file, size);
    free(file);
}
/* A model for evaluation, from the file alone. Checks everything before it allocates. */
uint32_t golf_load(Golf *m, const char *path) {
    size_t size, n = ARTIFACT_FIXED;
    uint8_t *file = read_file(path, &size);
    if (size < n || memcmp(file, GOLF_MAGIC, 8))
        die("%s: expected a model.golf artifact, found something else; train writes one", path);
    const size_t version = get_u(file + 8, 4), said = get_u(file + 12, 4);
    const size_t crc = get_u(file + 16, 4), len = get_u(file + 20, 4), rows = get_u(file + 24, 4);
    if (version != GOLF_VERSION)
        die("%s: expected artifact version %d, found %zu", path, GOLF_VERSION, version);
    if (said != size)
        die("%s: its header says %zu bytes, found %zu: cut or overwritten", path, said, size);
    if (len > size || size - len < n + 8 * rows + 4)
        die("%s: its header does not fit its size: the file is damaged", path);
    uint8_t *row = file + n + len, *payload = row + 8 * rows + 4;
    if (get_u(payload - 4, 4) != crc32_of(0, file, (size_t)(payload - 4 - file)))
        die("%s: the checksum of its header is wrong: the file is damaged", path);
    Config c;
    config_parse(&c, path, (char *)file + n, len, MODEL);
    config_check(&c);
    golf_layout(m, &c);
    if (rows != rows_of(m))
        die("%s: expected %zu tensors, found %zu: written by another version of this program", path,
            rows_of(m), rows);
    for (size_t i = 0; i < rows; i++) n += get_u(row + 8 * i, 4);
    if ((n += len + 8 * rows + 4) != size || size > artifact_bytes(&c))
        die("%s: its tensors need %zu bytes, at most %zu, the file has %zu", path, n,
            artifact_bytes(&c), size);
    golf_init(m, &c, 0);
    for (Tensor *t = m->t; t < m->t + N_TENSORS; t++) {
        if (!STORED(t)) continue;
        const size_t bytes = t->coded = get_u(row, 4), coded = bytes < t->bytes;
        if (bytes > t->bytes || get_u(row + 4, 4) != crc32_of(0, payload, bytes))
            die("%s: length or checksum of tensor %s is wrong: the file is damaged", path, t->name);
        int good = !coded || coded_tensor(m, t, payload, bytes, 1);
        for (int j = 0; !coded && j < t->stored_copies; j++)
            good &= t->quant->unpack(m->code + t->at + j * t->copy_n, scale_of(m, t, j),
                                     payload + j * t->copy_bytes, t);
        if (!good) die("%s: tensor %s holds an impossible code or scale", path, t->name);
        payload += bytes, row += 8;
    }
    golf_use(m);
    free(file);
    return (uint32_t)crc;
}

enum { CKPT_FIXED = 44 };
void ckpt_save(const Golf *m, const char *path, int64_t step) {
    char text[CONFIG_TEXT];
    uint8_t head[CKPT_FIXED], tail[4];
    const size_t len = config_text(&m->c, MODEL | TRAIN, text), bytes = m->n_params * sizeof(real);
    memcpy(head, CKPT_MAGIC, 8);
    put_u(head + 8, CKPT_VERSION, 4), put_u(head + 12, sizeof(real), 4);
    put_u(head + 16, (uint64_t)step, 8), put_u(head + 24, m->flips, 8);
    put_u(head + 32, m->n_params, 8), put_u(head + 40, len, 4);
    const Part parts[] = {{head, CKPT_FIXED}, {text, len}, {m->w, bytes}, {m->m, bytes},
                          {m->v, bytes},      {tail, 4}};
    uint32_t crc = 0;
    for (int i = 0; i < 5; i++) crc = crc32_of(crc, parts[i].data, parts[i].len);
    put_u(tail, crc, 4);
    write_parts(path, parts, 6);
}
/* The file, its config, its number of parameters and where they start; all checked. */
static uint8_t *ckpt_open(const char *path, Config *c, size_t *count, size_t *at) {
    size_t size;
    uint8_t *file = read_file(path, &size);
    if (size < CKPT_FIXED + 4 || memcmp(file, CKPT_MAGIC, 8))
        die("%s: expected a checkpoint of this program, found something else", path);
    const size_t version = get_u(file + 8, 4), number = get_u(file + 12, 4);
    if (version != CKPT_VERSION || number != sizeof(real))
        die("%s: expected checkpoint version %d with %zu-byte numbers, found version %zu with %zu",
            path, CKPT_VERSION, sizeof(real), version, number);
    if (get_u(file + size - 4, 4) != crc32_of(0, file, size - 4))
        die("%s: its checksum is wrong: the file is damaged or cut", path);
    const size_t n = *count = get_u(file + 32, 8), len = get_u(file + 40, 4);
    if (len > size - CKPT_FIXED - 4 || n > size ||
        size != CKPT_FIXED + len + 3 * n * sizeof(real) + 4)
        die("%s: configuration of %zu bytes and %zu parameters in %zu: the file is damaged", path,
            len, n, size);
    config_parse(c, path, (char *)file + CKPT_FIXED, len, MODEL | TRAIN);
    *at = CKPT_FIXED + len;
    return file;
}
/* Continues m, freshly initialised with the options asked for; returns the step. The run must be
 * the same in every option but the RESUME ones; with --minutes its length is the checkpoint's. */
int64_t ckpt_load(Golf *m, const char *path) {
    Config c;
    size_t n, at;
    uint8_t *file = ckpt_open(path, &c, &n, &at);
    const size_t bytes = n * sizeof(real);
    if (m->c.minutes > 0) m->c.steps = c.steps;
    EACH_OPTION(o, MODEL | TRAIN) {
        char a[64], b[64];
        const char *was = option_text(&c, o, a), *is = option_text(&m->c, o, b);
        if (o->mask & FIXED && strcmp(was, is))
            die("%s: the run was started with a tokenizer of %s pieces, now it has %s; give the "
                "--data it was started with", path, was, is);
        if (!(o->mask & RESUME) && strcmp(was, is))
            die("%s: the run was started with --%s=%s, now it is %s; resume it with the same "
                "options, or use another --out", path, o->name, was, is);
    }
    if (n != m->n_params) die("%s: expected %zu parameters, found %zu", path, m->n_params, n);
    real *const to[] = {m->w, m->m, m->v};
    for (int i = 0; i < 3; i++) memcpy(to[i], file + at + i * bytes, bytes);
    cluster_average(m, m->w); /* of equal masters: changes nothing */
    if (memcmp(m->w, file + at, bytes))
        die("%s: its codebooks are of another checkpoint than %s is now; start again", path,
            m->c.init_from);
    const int64_t step = m->step = (int)get_u(file + 16, 8);
    golf_quantize(m);
    m->flips = get_u(file + 24, 8);
    free(file);
    return step;
}

/* ==== 9. Evaluation and sampling ============================================================== */
/* Scores the validation tokens as Parameter Golf does: rows of T, each token predicted from those
 * before it in its row, loss summed in double over all targets, bytes from the tokenizer's table.
 * bpb = sum(nll) / ln 2 / bytes. Plain (stride 0): rows do not overlap, a last partial row is left
 * out. Sliding: windows advance by stride and score their last `stride` tokens (the first scores
 * all, the last what remains), so that each token is scored once with at least T - stride before
 * it. limit > 0 scores a prefix. */
Score golf_eval(Golf *m, const Tokenizer *tok, Shards *val, int stride, int64_t limit) {
    const int T = m->c.seq, step = stride ? stride : T, rows = (int)(m->N / (size_t)T);
    int64_t total = limit > 0 && limit < val->tokens - 1 ? limit : val->tokens - 1;
    if (!stride) total = total / T * T;
    if (total < 1)
        die("--val_tokens or the validation text (%lld tokens) is shorter than one row of --seq=%d",
            (long long)val->tokens, T);
    if (stride > T) die("--stride=%d is larger than the %d tokens of a window", stride, T);
    int *x = xcalloc(2 * m->N + 1, sizeof(int)), *y = x + m->N + 1;
    const int train = m->train;
    if (m->w) golf_depth(m, m->c.repeat); /* not the training step's */
    Score s = {0};
    m->train = 0; /* no gradients of the head */
    for (int64_t at = 0, left; (left = total - at) > 0 && (at == 0 || left > T - step);) {
        const int64_t start = at;
        const int len = (int)MIN(left, T); /* full windows together, a short last one alone */
        const int B = left < T ? 1 : (int)MIN(rows, (left - T) / step + 1);
        for (int b = 0; b < B; b++, at += step) { /* the last target of a row is overwritten */
            shards_read(val, at, len + 1, x + b * len);
            memcpy(y + b * len, x + b * len + 1, sizeof(int) * (size_t)len);
        }
        golf_forward(m, x, y, B, len);
        for (int n = 0; n < B * len; n++) {
            if (n % len < T - step && (start || n >= len)) continue; /* an earlier window's */
            s.nll += (double)m->loss[n];
            s.bytes += tokenizer_bytes(tok, x[n], y[n]);
            s.tokens++;
        }
        if (isatty(2) && total > 1000000)
            fprintf(stderr, "\rscored %lld of %lld tokens", (long long)s.tokens, (long long)total);
    }
    free(x);
    m->train = train;
    if (!s.bytes) die("the validation tokens stand for no text at all: wrong tokenizer?");
    s.loss = s.nll / (double)s.tokens;
    s.bpb = s.nll / log(2.0) / (double)s.bytes;
    return s;
}
static int by_p(const void *a, const void *b) { /* for qsort: the largest first */
    const real x = **(real *const *)a, y = **(real *const *)b;
    return (x < y) - (x > y);
}
/* The most likely token, or one drawn from the smallest set of tokens that holds top_p. */
static int pick(real *logits, int V, double temperature, double top_p, double u) {
    int best = 0, n = 0, i = 0;
    double sum = 0, cut = 0;
    for (int k = 1; k < V; k++) best = logits[k] > logits[best] ? k : best;
    if (temperature <= 0) return best;
    real **order = xcalloc((size_t)V, sizeof *order), top = logits[best];
    for (int k = 0; k < V; k++) {
        order[k] = logits + k;
        sum += (double)(logits[k] = (real)exp((double)(logits[k] - top) / temperature));
    }
    qsort(order, (size_t)V, sizeof *order, by_p);
    do cut += (double)*order[n++]; while (n < V && cut < top_p * sum);
    for (u *= cut; i < n - 1 && u >= (double)*order[i]; i++) u -= (double)*order[i];
    best = (int)(order[i] - logits);
    free(order);
    return best;
}
void golf_sample(Golf *m, const Tokenizer *tok, const Config *how, FILE *out) {
    const int T = m->c.seq, V = m->c.vocab;
    size_t n = 0, len, skip;
    int *prompt = *how->prompt ? tokenizer_encode(tok, how->prompt, strlen(how->prompt), &n) : NULL;
    int *ids = xcalloc(n + 2 + (size_t)how->tokens, sizeof(int)), fed = 0, have = 0;
    if (tok->bos >= 0) ids[have++] = tok->bos;
    for (size_t i = 0; i < n; i++) ids[have++] = prompt[i];
    free(prompt);
    if (!have) die("the tokenizer has no BOS piece: give --prompt");
    fputs(how->prompt, out);
    for (int i = 0; i < how->tokens; i++, have++) {
        if (m->cached + have - fed > T) /* full: go on with the last half of the context */
            m->cached = 0, fed = have - T / 2;
        golf_forward(m, ids + fed, NULL, 1, have - fed);
        real *last = m->logits + (size_t)((have - fed - 1) % HEAD) * V;
        const double u = uniform01((uint64_t)how->seed, (uint64_t)i);
        ids[have] = pick(last, V, how->temperature, how->top_p, u);
        fed = have;
        if (ids[have] == tok->bos) break; /* the next document */
        /* a piece's text can depend on the one before it: print what the pair adds */
        char *pair = tokenizer_decode(tok, ids + have - 1, 2, &len);
        free(tokenizer_decode(tok, ids + have - 1, 1, &skip));
        fwrite(pair + skip, 1, len - skip, out);
        fflush(out), free(pair);
    }
    fputc('\n', out);
    free(ids);
}

/* ==== 10. Command line and training loop ====================================================== */
static const struct { const char *name, *options, *help; } presets[] = {
    {"pocket", "", "three ternary blocks under 256,000 bytes: the defaults, see dev/LOG.md"},
    {"recursive", "unique=1 repeat=3 heads=3 mlp=10 width=96",
     "one block, applied three times, at about the same bytes"},
    {"reference", "width=256 heads=4 mlp=4 unique=1 repeat=4 embed_bits=8 xgain=vector batch=16 "
     "steps=500 optimizer=adamw lr=0.002 cap=1300000",
     "the recipe that was compared with PyTorch; data of 1,024 pieces"},
    {"golf_baseline", "width=512 heads=8 kv_heads=4 mlp=2 seq=1024 unique=9 repeat=1 unet=1 "
     "extra_norm=none gain=none wq=int8 qat=0 aq=none embed_bits=8 init=baseline muon_split=1 "
     "lr_muon=0.04 lr_embed=0.05 lr_interface=0.04 momentum_warmup=500 clip=0 warmup=0 warmdown=0 "
     "shuffle=0 steps=200 cap=16000000 squeeze=0.93",
     "Parameter Golf's first baseline, its smoke run; data of 1,024 pieces"},
    {"tiny", "width=32 heads=2 unique=1 repeat=2 mlp=2 seq=32 batch=4 steps=30",
     "seconds, for tests"},
};

static int edit_distance(const char *a, const char *b) { /* Levenshtein, one row of the table */
    int row[64], n = (int)strlen(b);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++)
        for (int j = 1, corner = row[0]++; j <= n; j++) {
            const int swap = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            row[j] = MIN(swap, 1 + MIN(row[j - 1], row[j]));
        }
    return row[n];
}
static void parse_option(Config *c, const char *text, int mask) {
    char key[64];
    const char *value = strchr(text, '=');
    const Option *near = options;
    int least = 64;
    if (strncmp(text, "--", 2) || !value || value - text > 60)
        die("expected --key=value, found '%.80s'; see ./train_golf help", text);
    snprintf(key, sizeof key, "%.*s", (int)(value++ - text - 2), text + 2);
    EACH_OPTION(o, mask) {
        const int distance = o->mask & ~mask & FIXED ? 64 : edit_distance(o->name, key);
        if (distance < least) least = distance, near = o;
    }
    if (strcmp(near->name, key))
        die("unknown option --%s; the nearest of this command is --%s [%s], %s", key, near->name,
            near->range, near->help);
    if (!option_set(c, near, value))
        die("--%s: expected %s, found '%s'; the default is '%s'", key, *near->range ? near->range
            : "one line under 1,000 bytes", value, near->def);
}
/* Defaults, then the preset, then the options in order. Returns the preset's name. */
static const char *parse_options(Config *c, int argc, char **argv, int mask) {
    size_t preset = 0;
    char text[1024], option[256];
    config_defaults(c);
    for (int i = 0; i < argc && (mask & TRAIN); i++) {
        if (strncmp(argv[i], "--preset=", 9)) continue;
        for (preset = 0; strcmp(presets[preset].name, argv[i] + 9);)
            if (++preset == COUNT(presets))
                die("unknown preset '%s'; expected pocket, recursive, reference, golf_baseline or "
                    "tiny", argv[i] + 9);
    }
    strcpy(text, presets[preset].options); /* of other commands: none */
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        snprintf(option, sizeof option, "--%s", word);
        parse_option(c, option, mask);
    }
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "--preset=", 9) || !(mask & TRAIN)) parse_option(c, argv[i], mask);
    return presets[preset].name;
}
int help_main(void) {
    const struct { int mask; const char *title; } groups[] = {{TRAIN, "train"}, {EVAL, "eval"},
        {SAMPLE, "sample"}, {INFO, "info"}, {MODEL, "model (train; kept in the artifact)"}};
    puts("usage: ./train_golf [train] [--preset=NAME] [--key=value ...]\n"
         "       ./train_golf eval   MODEL.golf [--data=DIR] [--stride=N]\n"
         "       ./train_golf sample MODEL.golf [--prompt=\"...\"] [--tokens=200]\n"
         "       ./train_golf info   MODEL.golf\n"
         "       ./train_golf bench  [step|file] [--preset=NAME] [--vocab=4096] [--key=value ...]\n"
         "       ./train_golf help\n\npresets:");
    for (size_t k = 0; k < COUNT(presets); k++)
        printf("  %-9s  %s\n  %9s  %s\n", presets[k].name, presets[k].help, "",
               *presets[k].options ? presets[k].options : "the values below");
    for (size_t g = 0; g < COUNT(groups); g++) {
        printf("\n%s:\n", groups[g].title);
        EACH_OPTION(o, groups[g].mask)
            if (!(o->mask & FIXED))
                printf("  --%s=%s  %s\n      %s\n", o->name, o->def, o->range, o->help);
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
/* The widest model whose file fits; its size grows with the width. What is then left of the cap
 * goes to the hidden width of the MLP, unless --hidden fixes it: equal caps are equal bytes. */
static void fit_width(Config *c) {
    const size_t most = (size_t)(c->cap / c->squeeze);
    int best = 0;
    protect_check(c);
    for (c->width = 8; c->width <= 16384; c->width += 8) {
        if (c->width % c->heads || HEAD_DIM % 2) continue;
        if (artifact_bytes(c) > most) break;
        best = c->width;
    }
    if (!best)
        die("--cap=%d: no multiple of 8 and --heads=%d fits, %d needs %zu bytes; raise --cap or "
            "lower --embed_bits", c->cap, c->heads, c->width, artifact_bytes(c));
    c->width = best;
    if (c->hidden || c->experts) return;
    for (c->hidden = HIDDEN + 8; artifact_bytes(c) <= most;)
        if ((double)best * (c->hidden += 8) > 1 << 30) break; /* as config_check says */
    if ((c->hidden -= 8) == c->mlp * best) c->hidden = 0;
}
static const char *json_text(const char *text) { /* quoted, in a buffer the next call reuses */
    static char out[6 * 1024 + 3] = "\"";
    char *o = out + 1;
    for (; *text && o < out + sizeof out - 9; text++) {
        const int c = (unsigned char)*text;
        o += sprintf(o, c < 32 ? "\\u%04x" : c == '"' || c == '\\' ? "\\%c" : "%c", c);
    }
    return strcpy(o, "\""), out;
}
static void write_result(const Golf *m, const Run *r) {
    const Config *c = &m->c;
    const Ledger l = ledger_of(m);
    char text[64], *json;
    size_t len, trits = 0, numbers_stored = 0;
    FILE *f = open_memstream(&json, &len);
    if (!f) die("out of memory");
    double weights = 1e-9, coded = 0, stored = 0; /* of all matrices, with their scales */
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++) {
        trits += ternary(t) && STORED(t) ? t->n : 0, numbers_stored += STORED(t) ? t->n : 0;
        if (!MATRIX(t) || !STORED(t)) continue;
        weights += (double)t->n, coded += (double)t->coded, stored += (double)t->bytes;
    }
    const double total = (double)l.total;
    const Diagnosis d = diagnose(m);
    const struct { const char *key; double value; } numbers[] = {
        {"seed", c->seed}, {"steps", r->steps}, {"tokens", (double)r->steps * c->batch * c->seq},
        {"seconds", r->seconds}, {"tok_per_s", r->tok_per_s}, {"threads", omp_get_max_threads()},
        {"peak_memory_mb", peak_memory_mb()},
        {"val_loss", r->file.loss}, {"val_bpb", r->file.bpb},
        {"val_tokens", (double)r->file.tokens}, {"val_bytes", (double)r->file.bytes},
        {"memory_val_bpb", r->memory.bpb}, {"roundtrip_gap", r->file.bpb - r->memory.bpb},
        {"bytes_model", total}, {"bytes_packed", (double)artifact_bytes(c)},
        {"bytes_code", GOLF_CODE_BYTES}, {"bytes_total", total + GOLF_CODE_BYTES}, {"cap", c->cap},
        {"params_stored", (double)numbers_stored}, {"params_ternary", (double)trits},
        {"weight_bits", 8 * coded / weights}, {"weight_bits_packed", 8 * stored / weights},
        {"flops_per_token", flops_per_token(c)}, {"zero_fraction", d.zero},
        {"flip_rate", (double)m->flips / r->steps / fmax(d.codes, 1)},
        {"masked_fraction", d.masked}, {"scale_drift", d.drift}, {"hi_share", d.hi_share}};
    const struct { const char *key, *value; } texts[] = {
        {"name", r->name}, {"preset", r->preset}, {"git_rev", GOLF_GIT_REV},
        {"compiler", __VERSION__}, {"isa", GOLF_ISA}};
    fputs("{\n", f);
    for (size_t i = 0; i < COUNT(texts); i++)
        fprintf(f, "  \"%s\": %s,\n", texts[i].key, json_text(texts[i].value));
    for (size_t i = 0; i < COUNT(numbers); i++)
        fprintf(f, "  \"%s\": %.17g,\n", numbers[i].key, numbers[i].value);
    fprintf(f, "  \"fits\": %s,\n  \"bytes\": {\"core\": %zu, \"embedding\": %zu, \"interface\": "
            "%zu, \"protected\": %zu, \"header\": %zu},\n  \"phases\": [", total <= c->cap
            ? "true" : "false", l.core, l.embedding, l.interface, l.protect, l.header);
    for (int p = 0; p < m->phases; p++) fprintf(f, "%s%.9g", p ? ", " : "", r->rms[p]);
    fputs("],\n  \"config\": {", f);
    EACH_OPTION(o, MODEL | TRAIN)
        fprintf(f, "%s\"%s\": %s", o == options ? "" : ", ", o->name,
                json_text(option_text(c, o, text)));
    fputs("}\n}\n", f);
    if (fclose(f)) die("out of memory");
    write_file(path_of(c->out, "result.json"), json, len), free(json);
}
/* The shards of a split, which the tokenizer beside them, if there is one, must have made. */
static Shards *open_split(const Config *c, const Tokenizer *tok, const char *split) {
    const char *path = path_of(c->data, "tokenizer.model");
    size_t len = 0;
    uint8_t *file = access(path, F_OK) ? NULL : read_file(path, &len);
    if (file && crc32_of(0, file, len) != tok->crc)
        die("%s: the shards beside it were made with it, not with %s; give the --data and "
            "--tokenizer that belong together", path, tok->path);
    free(file);
    return shards_open(c->data, split, tok->vocab);
}
/* x (B*T + 1) and y (B*T) of a step. */
static void batch_at(Shards *train, const Config *c, int step, int *x, int *y) {
    const size_t T = (size_t)c->seq;
    for (int b = 0; b < c->batch; b++, x += T, y += T) {
        shards_train_row(train, (uint64_t)c->seed, (int64_t)step * c->batch + b, c->seq, c->shuffle,
                         x);
        memcpy(y, x + 1, sizeof(int) * T); /* the next row overwrites x[T] */
    }
}
/* One optimizer step on a batch; returns the loss before it. */
double golf_step(Golf *m, const int *x, const int *y, int step, double *grad_norm) {
    const Config *c = &m->c;
    golf_depth(m, depth_at(c, step));
    m->watch = (step + 1) % 100 == 0 || step + 1 == c->steps;
    const double loss = golf_forward(m, x, y, c->batch, c->seq);
    golf_backward(m, x, c->batch, c->seq);
    const double norm = *grad_norm = golf_grad_norm(m);
    if (!isfinite(loss) || !isfinite(norm))
        die("step %d: loss %g, gradient norm %g: training diverged; the last checkpoint is as it "
            "was; try lower rates (--lr, --lr_muon) or a smaller --clip", step, loss, norm);
    const double scale = c->clip > 0 && norm > c->clip ? c->clip / norm : 1;
    m->step = step + 1;
    golf_adamw(m, step, scale);
    if (c->optimizer == OPT_MUON) golf_muon(m, step, scale);
    fips_prune(m, fips_sparsity(c, step + 1));
    golf_quantize(m);
    return loss;
}
/* The run folder: made as by mkdir -p, refused if it holds a run, locked while its log is open. */
static const char *const run_files[] = {"log.tsv", "ckpt.bin", "model.golf", "result.json"};

static void make_folder(const Config *c) {
    char path[1100];
    for (int i = 0; i < 4 && !c->resume && !c->overwrite; i++)
        if (!access(path_of(c->out, run_files[i]), F_OK))
            die("%s holds a run (%s); give --resume=1, --overwrite=1 or another --out", c->out,
                run_files[i]);
    for (size_t i = 1; i <= strlen(c->out); i++) {
        if (c->out[i] && c->out[i] != '/') continue;
        snprintf(path, sizeof path, "%.*s", (int)i, c->out);
        if (mkdir(path, 0777) && errno != EEXIST)
            die("%s: cannot make the folder: %s; choose another --out", path, strerror(errno));
    }
}
static FILE *open_log(const Config *c, int step) { /* a resumed run keeps the rows up to its step */
    char *keep, *row = NULL;
    size_t len, room = 0;
    const char *path = path_of(c->out, "log.tsv");
    FILE *log = fopen(path, "a+"), *kept = open_memstream(&keep, &len);
    if (!log || !kept) die("%s: cannot write: %s; choose another --out", path, strerror(errno));
    if (flock(fileno(log), LOCK_EX | LOCK_NB))
        die("%s: another run is writing into this folder; choose another --out", c->out);
    fputs("step\ttokens\ttrain_loss\tval_bpb\tlr\tgrad_norm\tms\ttok_per_s\tzero\tflips_per_100\t"
          "masked\tscale_drift\thi_share\trms\tgrad\tcosine\n", kept);
    while (getline(&row, &room, log) > 0)
        if (strchr(row, '\n') && atoll(row) > 0 && atoll(row) <= step) fputs(row, kept);
    if (fclose(kept) || ftruncate(fileno(log), 0) || fwrite(keep, 1, len, log) < len || fflush(log))
        die("%s: cannot write: %s; make room or choose another --out", path, strerror(errno));
    for (int i = 1; i < 4 && !step; i++) /* what an overwritten run left */
        if (remove(path_of(c->out, run_files[i])) && errno != ENOENT)
            die("%s: cannot remove %s: %s", c->out, run_files[i], strerror(errno));
    free(keep), free(row);
    return log;
}
/* --minutes: how many steps fit, measured on a model that is then thrown away. */
static void fit_minutes(Golf *m, Shards *train, int *x, int *y) {
    Config c = m->c;
    double norm, t = 0;
    for (int i = 0; i < 3; i++) {
        if (i == 1) t = now(); /* the first step finds no memory mapped */
        batch_at(train, &c, i, x, y);
        golf_step(m, x, y, c.steps > 3 ? c.steps - 3 + i : i, &norm); /* at its full depth */
    }
    const double ms = 500 * (now() - t), fit = 60000 * c.minutes / ms;
    if (fit < c.steps) c.steps = fit < 1 ? 1 : (int)fit;
    printf("--minutes=%g at %.0f ms a step: the schedule has %d steps instead of %d\n", c.minutes,
           ms, c.steps, m->c.steps);
    golf_free(m);
    golf_init(m, &c, 1), golf_buffers(m, (size_t)c.batch * c.seq);
}

static volatile sig_atomic_t stop_signal;
static void on_signal(int sig) { stop_signal = sig; }
static void train_loop(Golf *m, const Tokenizer *tok, Shards *train, Shards *val, Run *run,
                       FILE *log, int *x, int *y) {
    const Config *c = &m->c;
    const int tty = isatty(1), first = run->steps;
    uint64_t flipped = m->flips;
    const double started = now(), N = (double)m->N;
    signal(SIGINT, on_signal), signal(SIGTERM, on_signal);
    for (int stop = 0; run->steps < c->steps && !stop;) {
        const double t0 = now(), peak = c->optimizer == OPT_MUON ? c->lr_muon : c->lr;
        const double rate = peak * lr_factor(c, run->steps);
        double norm;
        char bpb[32] = "";
        batch_at(train, c, run->steps, x, y);
        const double loss = golf_step(m, x, y, run->steps, &norm), seconds = now() - t0;
        const int step = ++run->steps, end = step == c->steps;
        if (m->watch) watch(m, run);
        if (c->val_every && step % c->val_every == 0 && !end)
            snprintf(bpb, sizeof bpb, "%.6f", golf_eval(m, tok, val, 0, c->val_tokens).bpb);
        const int last = end || (stop = stop_signal); /* read once: what stops also saves */
        fprintf(log, "%d\t%zu\t%.9g\t%s\t%.6g\t%.6g\t%.1f\t%.0f\t", step, step * m->N, loss, bpb,
                rate, norm, 1e3 * seconds, N / seconds);
        if (m->watch) {
            const Diagnosis d = diagnose(m);
            const double flips = (double)(m->flips - flipped) / fmax(d.codes, 1);
            fprintf(log, "%.4f\t%.6f\t%.5f\t%.4f\t%.4f\t", d.zero, flips, d.masked, d.drift,
                    d.hi_share);
            for (int k = 0; k < 3; k++, fputs(k < 3 ? "\t" : "", log))
                for (int p = 0; p < m->phases; p++)
                    fprintf(log, "%s%.4g", p ? " " : "", run->rms[k * m->phases + p]);
            flipped = m->flips;
        } else fputs("\t\t\t\t\t\t\t", log);
        if (fputc('\n', log) == EOF || fflush(log))
            die("%s/log.tsv: cannot write: %s; make room", c->out, strerror(errno));
        if (tty || step % 10 == 0 || last || *bpb) {
            const int eta = (int)((now() - started) / (step - first) * (c->steps - step));
            printf("%sstep %d/%d  loss %.4f  %s%s%.0f tok/s  ETA %d:%02d%s", tty ? "\r\033[K" : "",
                   step, c->steps, loss, bpb, *bpb ? " bpb  " : "", N / seconds, eta / 60, eta % 60,
                   tty && !*bpb && !last ? "" : "\n");
            fflush(stdout);
        }
        if (last || (c->ckpt_every && step % c->ckpt_every == 0))
            ckpt_save(m, path_of(c->out, "ckpt.bin"), step);
    }
    signal(SIGINT, SIG_DFL), signal(SIGTERM, SIG_DFL); /* scoring may be cut short */
    run->seconds = now() - started;
    run->tok_per_s = run->seconds > 0 ? N * (run->steps - first) / run->seconds : 0;
    if (run->steps == c->steps) return;
    printf("stopped by signal %d after step %d, checkpoint saved; --resume=1 goes on\n",
           (int)stop_signal, run->steps);
    exit(128 + stop_signal);
}
int train_main(int argc, char **argv) {
    Config config, *c = &config;
    Golf m, loaded;
    Run run = {0};
    run.preset = parse_options(c, argc, argv, MODEL | TRAIN);
    if (!*c->out) snprintf(c->out, sizeof c->out, "runs/%s", run.preset);
    run.name = strrchr(c->out, '/') ? strrchr(c->out, '/') + 1 : c->out;

    const char *beside = path_of(c->data, "tokenizer.model");
    if (!*c->tokenizer && access(beside, R_OK))
        die("%s: expected data with a tokenizer.model, found none; run data/get.sh", c->data);
    Tokenizer *tok = tokenizer_load(*c->tokenizer ? c->tokenizer : beside);
    if ((c->vocab = tok->vocab) > 65536)
        die("%s: expected at most 65536 pieces (shards: 16 bits), found %d", tok->path, c->vocab);
    if (!c->width) fit_width(c);
    config_check(c), plot(c, 0);
    if (*c->cluster && !*c->init_from)
        die("--cluster needs trained weights: give --init_from=RUN/ckpt.bin");
    const size_t most = artifact_bytes(c), spare = (size_t)(c->cap / c->squeeze);
    if (most > spare)
        die("the artifact would have %zu bytes, --cap=%d --squeeze=%g; lower --width (--width=fit "
            "finds the widest that fits) or raise --cap", most, c->cap, c->squeeze);
    Shards *train = open_split(c, tok, "train"), *val = open_split(c, tok, "val");
    if (MIN(train->tokens, val->tokens) <= c->seq)
        die("%s: expected over --seq=%d tokens, found %lld to train and %lld to validate; use more "
            "text or a smaller --seq", c->data, c->seq, (long long)train->tokens,
            (long long)val->tokens);
    make_folder(c);
    golf_init(&m, c, 1), golf_buffers(&m, (size_t)c->batch * c->seq);
    c = &m.c;
    run.rms = xcalloc(3 * (size_t)m.phases, sizeof(double));
    int *x = xcalloc(m.N + 1, sizeof(int)), *y = xcalloc(m.N, sizeof(int));
    const char *path = path_of(c->out, "ckpt.bin");
    const int resumes = c->resume && !access(path, F_OK);
    if (!resumes && c->minutes > 0) fit_minutes(&m, train, x, y);
    if (*c->init_from && (!resumes || *c->cluster || !access(c->init_from, R_OK)))
        same_tokenizer(tok, c->init_from), golf_init_from(&m, c->init_from);
    if (*c->teacher) same_tokenizer(tok, c->teacher), teacher_open(&m, c->teacher);
    if (resumes) same_tokenizer(tok, path), run.steps = (int)ckpt_load(&m, path);
    else if (c->resume && !access(path_of(c->out, "model.golf"), F_OK))
        die("%s: nothing to resume: a model but no ckpt.bin; --overwrite=1 starts again", c->out);
    const int first = run.steps;
    FILE *log = open_log(c, first);
    if (first == c->steps && !access(path_of(c->out, "result.json"), F_OK))
        return printf("%s is finished: nothing to do\n", c->out), plot(c, 1);
    write_file(path_of(c->out, "tokenizer.model"), tok->file, tok->size);
    printf("%s: C=%d H=%d F=%d, distinct blocks: %d, applications: %d, %zu parameters, %s "
           "weights\n", run.name, c->width, c->heads, HIDDEN, BLOCKS, PHASES, m.n_params,
           m.t[T_wup].quant->name);
    printf("artifact at most %zu bytes of %d / %g; %.2f MFLOP per token; %d threads, %s\n"
           "%lld training tokens, %d steps of %zu from step %d; into %s\n", most, c->cap,
           c->squeeze, flops_per_token(c) / 1e6, omp_get_max_threads(), GOLF_ISA,
           (long long)train->tokens, c->steps, m.N, run.steps, c->out);
    train_loop(&m, tok, train, val, &run, log, x, y);

    path = path_of(c->out, "model.golf");
    golf_save(&m, path, tok->crc);
    run.memory = golf_eval(&m, tok, val, 0, c->val_tokens);
    golf_load(&loaded, path), golf_buffers(&loaded, m.N); /* the number that counts: the file's */
    run.file = golf_eval(&loaded, tok, val, 0, c->val_tokens);
    write_result(&m, &run);
    const size_t bytes = ledger_of(&m).total;
    printf("%s: %zu bytes, %s; val_bpb %.6f from the file, %.6f in memory, on %lld tokens, %lld "
           "bytes%s\n%d steps in %.1f s, %.0f tokens/s, %.0f GFLOP/s; peak memory %.0f MB\n", path,
           bytes, bytes <= (size_t)c->cap ? "FITS" : "OVER", run.file.bpb, run.memory.bpb,
           (long long)run.file.tokens, (long long)run.file.bytes,
           c->val_tokens ? " (a prefix: --val_tokens)" : "", run.steps - first, run.seconds,
           run.tok_per_s, 1e-9 * run.tok_per_s * flops_per_token(c), peak_memory_mb());
    return plot(c, 1);
}
/* Loads an artifact with the options of a command and the tokenizer it was trained with. */
static Tokenizer *open_model(Golf *m, Config *how, const char *path, int argc, char **argv,
                             int mask) {
    char beside[2048];
    const char *slash = strrchr(path, '/');
    parse_options(how, argc, argv, mask);
    const uint32_t crc = golf_load(m, path);
    if (mask == INFO) return printf("tokenizer_crc32=%08x\n", crc), NULL;
    snprintf(beside, sizeof beside, "%.*s/tokenizer.model", slash ? (int)(slash - path) : 1,
             slash ? path : ".");
    Tokenizer *tok = tokenizer_load(*how->tokenizer ? how->tokenizer : beside);
    if (tok->crc != crc || tok->vocab != m->c.vocab)
        die("%s: expected the tokenizer the model was trained with (%d pieces, CRC-32 %08x), found "
            "%d pieces, %08x; give --tokenizer", tok->path, m->c.vocab, crc, tok->vocab, tok->crc);
    return tok;
}
int eval_main(const char *path, int argc, char **argv) {
    Config how;
    Golf m;
    const Tokenizer *tok = open_model(&m, &how, path, argc, argv, EVAL);
    Shards *val = open_split(&how, tok, "val");
    golf_buffers(&m, (size_t)16 * m.c.seq);
    if (how.eval_repeat && m.c.unet)
        die("--eval_repeat: the skips of --unet=1 need all applications");
    if (how.eval_repeat) golf_depth(&m, how.eval_repeat);
    if (how.drift != 0 || how.noise > 0) golf_perturb(&m, how.drift, how.noise);
    const Score s = golf_eval(&m, tok, val, how.stride, how.val_tokens);
    if (how.eval_repeat) printf("applications %d\n", m.runs);
    printf("val_loss %.12f\nval_bpb %.12f\nmode %s %d\ntokens %lld\nbytes %lld\nsum_nll %.17g\n",
           s.loss, s.bpb, how.stride ? "sliding, stride" : "plain, rows of",
           how.stride ? how.stride : m.c.seq, (long long)s.tokens, (long long)s.bytes, s.nll);
    return 0;
}
int sample_main(const char *path, int argc, char **argv) {
    Config how;
    Golf m;
    const Tokenizer *tok = open_model(&m, &how, path, argc, argv, SAMPLE);
    golf_buffers(&m, (size_t)m.c.seq), golf_cache(&m);
    golf_sample(&m, tok, &how, stdout);
    return 0;
}
int info_main(const char *path, int argc, char **argv) {
    Config how;
    Golf m;
    char text[CONFIG_TEXT], as[32], shape[32];
    open_model(&m, &how, path, argc, argv, INFO);
    const Ledger l = ledger_of(&m);
    config_text(&m.c, MODEL, text);
    printf("%s\n%-11s %-9s %6s %11s %9s %9s %9s %7s\n", text, "tensor", "stored as", "copies",
           "shape", "numbers", "packed", "bytes", "bits");
    for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++) {
        snprintf(as, sizeof as, "%s%.0d", t->quant->name, t->quant->bits ? 0 : t->bits);
        snprintf(shape, sizeof shape, "%dx%d", t->rows, t->stored_cols);
        if (STORED(t)) printf("%-11s %-9s %6d %11s %9zu %9zu %9zu %7.3f\n", t->name, as,
                         t->stored_copies, shape, t->n, t->bytes, t->coded,
                         8.0 * (double)t->coded / (double)t->n);
    }
    const long long spare = how.cap - (long long)l.total;
    printf("\ncore %zu\nembedding %zu\ninterface %zu\nprotected %zu\nheader %zu\ntotal %zu\n"
           "cap %d\n%s by %lld bytes\n", l.core, l.embedding, l.interface, l.protect, l.header,
           l.total, how.cap, spare >= 0 ? "FITS" : "OVER", llabs(spare));
    return 0;
}

#include "dev/studies/perturb.h" /* golf_perturb */
#include "dev/bench/bench.h"     /* bench_main */

/* ---------------------------------------------------------------------------------------------
 * Part II: further systems of the literature: each is its section, its rows in the tables of golf.h
 * and of section 4, and the hooks in Part I that call it by name (declared in golf.h).
 * ------------------------------------------------------------------------------------------- */
/* ==== 11. BitNet's options (2402.17764): binary weights, masked gradients ===================== */
/* --ste=clip passes the gradient inside the grid (LSQ), trust where rounding and clipping
 * moved a weight by at most half a step (QuEST; for 1 bit, inside 1.3 times the grid). */
int ste_of(const Config *c, int quest) {
    return c->ste == STE_AUTO ? quest ? STE_TRUST : STE_IDENTITY : c->ste;
}
void ste_mask(uint8_t *mask, const real *z, int n, real s, const Tensor *t) {
    const real shift = (real)t->half / 2, edge = s * ((real)grid_top(t) + shift);
    const real narrow = t->had > 1 ? (real)1.3 : (real)1.25; /* QuEST A.2: with rotation, without */
    const int largest = t->bits > 2 && !t->half; /* fits the grid but for the step's rounding */
    const real inside = t->ste == STE_CLIP ? largest ? edge * (real)1.01 : edge
                        : t->bits == 1 ? narrow * edge : edge + s / 2;
    const int nonzero = t->ste == STE_NONZERO;
    FOR_COLUMNS(i, n)
        mask[i] = nonzero ? z[i] != 0 : fabs(z[i]) <= inside || t->ste == STE_IDENTITY;
}
/* b1 (BitNet): sign(w - mean w) * mean|w|, the first mean over the whole copy. */
void binary_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t) {
    real *z = xcalloc(t->copy_n, sizeof(real));
    double mean = 0;
    for (size_t i = 0; i < t->copy_n; i++) mean += (double)w[i] / (double)t->copy_n;
    for (size_t i = 0; i < t->copy_n; i++) z[i] = w[i] - (real)mean;
    grid_quantize_as(code, scale, mask, w, z, t);
    free(z);
}

/* ==== 12. An Extra RMSNorm (2505.08823): quantization that sets in ============================ */
/* How far: 0 = not at all, 1 = all of what the file will hold. The embedding takes part in qat=0
 * alone. Order of each: up, down, output, then q, k, v. */
int may_mix(const Config *c) { return c->qat == 0 || c->qat_ramp > 0; }
real lambda_of(const Golf *m, int k) {
    const int turn = k == T_wup ? 0 : k == T_wdown ? 1 : k == T_wo ? 2 : 3, each = m->c.qat_order;
    if (!m->w || (m->c.qat && (m->c.qat_ramp <= 0 || k == T_embed))) return 1;
    const double x = m->step / (m->c.qat_ramp * m->c.steps), y = each ? 4 * x - turn : x;
    return m->c.qat ? (real)(y > 1 ? 1 : y > 0 ? y : 0) : 0;
}
/* eff = w + lambda * (Q(w) - w); or, with qat=noise, w and noise of the size of rounding. */
void soften(Golf *m, const Tensor *t, int j) {
    const real lambda = lambda_of(m, (int)(t - m->t)), *scale = scale_of(m, t, j);
    const size_t from = t->at + j * t->copy_n;
    const uint64_t key = hash64(hash64((uint64_t)m->c.seed, (uint64_t)m->step), from);
    if (m->c.qat == QAT_NOISE && t->bits < 16 && t->ste != STE_NONZERO) {
        FOR_PIECES(g, at, n, t) for (size_t i = at; i < at + (size_t)n; i++)
            m->eff[from + i] = m->w[from + i] + scale[g] * (real)(uniform01(key, i) - 0.5);
    } else if (lambda < 1) {
        FOR_RANGE(i, from, t->copy_n) m->eff[i] = m->w[i] + lambda * (m->eff[i] - m->w[i]);
    }
}
/* A checkpoint has its tokenizer beside it, unless it was moved. */
void same_tokenizer(const Tokenizer *tok, const char *ckpt) {
    const char *slash = strrchr(ckpt, '/');
    char path[2200];
    size_t n;
    snprintf(path, sizeof path, "%.*stokenizer.model", slash ? (int)(slash - ckpt + 1) : 0, ckpt);
    if (access(path, R_OK)) return;
    uint8_t *file = read_file(path, &n);
    if (n != tok->size || memcmp(file, tok->file, n))
        die("%s: expected the tokenizer of this data, found another, %s", ckpt, path);
    free(file);
}
/* --init_from: the weights of tensors that both models have; the others start as always. */
void golf_init_from(Golf *m, const char *path) {
    Config c;
    Golf from;
    size_t n, at;
    uint8_t *file = ckpt_open(path, &c, &n, &at);
    config_check(&c), golf_layout(&from, &c);
    if (n != from.n_params) die("%s: expected %zu parameters, found %zu", path, from.n_params, n);
    from.w = xcalloc(n, sizeof(real));
    memcpy(from.w, file + at, n * sizeof(real));
    for (const Tensor *t = m->t, *u = from.t; t < m->t + N_TENSORS; t++, u++) {
        if (!STORED(t) || !STORED(u) || convert(m, t, &from, u)) continue;
        if (t->copy_n != u->copy_n || t->stored_copies != u->stored_copies ||
            t->experts != u->experts)
            die("%s: %s has %d x %zu numbers there and %d x %zu here; --init_from needs the same "
                "--width, --hidden, --heads and, without --convert, --unique", path, t->name,
                u->stored_copies, u->copy_n, t->stored_copies, t->copy_n);
        memcpy(m->w + t->at, from.w + u->at, t->n * sizeof(real));
    }
    lora_fit(m, &from), fips_fit(m, &from);
    free(from.w);
    cluster_fit(m), ramp_init(m);
    golf_quantize(m), m->flips = 0;
    memcpy(m->first_scale, m->scale, m->n_scales * sizeof(real));
    free(file);
}

/* ==== 13. QuEST (2502.05003) ================================================================== */
/* A row is rotated by Hadamard matrices of `had` numbers, after which it is
 * nearly Gaussian; the grid is the best one for a Gaussian of its RMS; weights that the grid moved
 * by more than half a step get no gradient. Stored: codes and steps, in the rotated domain. */
int hadamard_block(const Config *c, int n) { /* the largest power of two up to 128 in n */
    return c->hadamard ? MIN(128, n & -n) : 1;
}
static void hadamard(real *x, int n, int block) { /* its own inverse */
    for (int size = 1; size < block; size *= 2)
        for (int i = 0; i < n; i++)
            if (!(i & size)) {
                const real a = x[i], b = x[i + size];
                x[i] = a + b, x[i + size] = a - b;
            }
    FOR_COLUMNS(i, n) x[i] *= 1 / sqrt((real)block);
}
/* Half the width of the best grid of 2^bits levels (ternary: its outer level) for N(0,1): argmin of
 * E (x - q(x))^2. The authors' list has 3.8849 for 8 bits. */
static real quest_alpha(double bits) {
    static const double list[][2] = {{1, 0.797885}, {1.585, 1.224006}, {2, 1.493530},
                                     {3, 2.051068}, {4, 2.514005}, {8, 3.922204}};
    int i = 0;
    while (list[i][0] < bits) i++;
    return (real)list[i][1];
}
/* The step for rows of this RMS. */
static real quest_step(double square, int n, const Tensor *t) {
    const double bits = is_ternary(t) ? 1.585 : t->bits, levels = is_ternary(t) ? 3 : 1 << t->bits;
    return (real)(2 * (double)quest_alpha(bits) * sqrt(square / n) / (levels - 1) + 1e-8);
}
void quest_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t) {
    PARALLEL(t->copy_n)
    for (int r = 0; r < t->rows; r++) {
        const int n = t->stored_cols;
        const size_t at = (size_t)r * n;
        real *z = memcpy(scratch((size_t)n), w + at, sizeof(real) * (size_t)n);
        hadamard(z, n, t->had);
        scale[r] = from_bf16(to_bf16(quest_step((double)inner(z, z, n), n, t)));
        grid_codes(code + at, z, n, scale[r], t);
        if (mask) ste_mask(mask + at, z, n, scale[r], t);
    }
}
void quest_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t) {
    grid_dequantize(eff, code, scale, t);
    PARALLEL(t->copy_n)
    for (int r = 0; r < t->rows; r++)
        hadamard(eff + (size_t)r * t->stored_cols, t->stored_cols, t->had);
}
/* x is rotated: what the mask lets through, rotated back. */
static void quest_pass(real *x, const uint8_t *mask, int n, int block) {
    for (int i = 0; i < n; i++) x[i] = mask[i] ? x[i] : 0;
    hadamard(x, n, block);
}
void quest_backward(real *dw, const uint8_t *mask, const Tensor *t) {
    PARALLEL(t->copy_n)
    for (int r = 0; r < t->rows; r++) {
        const int n = t->stored_cols;
        real *d = dw + (size_t)r * n;
        hadamard(d, n, t->had);
        quest_pass(d, mask + (size_t)r * n, n, t->had);
    }
}
/* Inputs: rotated, put on the Gaussian grid, and back; mask says where the gradient passes. */
void quest_inputs(const Config *c, Act *a, const real *x, int N, int K, int freeze) {
    const Tensor grid = {.bits = (int)ceil(c->abits), .half = c->abits != 1.585,
                         .ste = ste_of(c, 1), .had = hadamard_block(c, K)};
    const int block = grid.had;
    TIMED(QUANT);
    FOR_ROWS(n, N, K) {
        real *z = memcpy(a->x + at, x + at, sizeof(real) * (size_t)K);
        real *q = freeze == RECORD ? a->res + at : z;
        hadamard(z, K, block);
        const real s = quest_step((double)inner(z, z, K), K, &grid);
        if (freeze != REPLAY) ste_mask(a->mask + at, z, K, s, &grid);
        a->inv[n] = grid.half ? s / 2 : s; /* q, for the integer kernel, stays rotated */
        for (int i = 0; i < K && freeze != REPLAY; i++) {
            const int code = (int)grid_code(z[i], s, &grid);
            a->q[at + i] = (int8_t)(grid.half ? 2 * code + 1 : code);
            q[i] = s * ((real)code + (real)grid.half / 2);
        }
        if (freeze != REPLAY) hadamard(q, K, block);
        if (freeze) quest_pass(z, a->mask + at, K, block);
        for (int i = 0; i < K && freeze; i++) {
            if (freeze == RECORD) a->res[at + i] -= z[i];
            z[i] += a->res[at + i];
        }
    }
}
void quest_inputs_backward(const Config *c, const Act *a, real *dx, int N, int K) {
    const int block = hadamard_block(c, K);
    FOR_ROWS(n, N, K) {
        hadamard(dx + at, K, block);
        quest_pass(dx + at, a->mask + at, K, block);
    }
}

/* ==== 14. pQuant (2602.22592) ================================================================= */
/* Beside the MLP a second one, r = ffn_hi wide, in high precision, on the same inputs:
 *     y = beta * MLP(u) + alpha * w_e * MLP_e(u)
 * alpha and beta are learnable, from 2 and 0.2 ("feature scaling"). Of its E copies each phase has
 * its own (e = p % E, w = 1), or each token chooses: e = argmax, w_e = softmax(router u)_e. All E
 * are computed, as r is small. Its hidden numbers are int8 (unless aq=none), one step per token. */
static Mat hi_hidden(const Golf *m, const Act *x, int e) {
    Mat all = inputs_of(m, x, T_hi_down);
    all.ld = (size_t)m->c.hi_experts * m->c.ffn_hi;
    return mat_at(all, 0, (size_t)e * m->c.ffn_hi);
}
static int hi_chosen(const Config *c, const real *prob, int p) {
    int best = 0;
    const int turn = c->order == ORDER_CYCLE ? (p - c->prelude) / c->unique : p % c->repeat;
    if (c->hi_route == ROUTE_PHASE) return turn % c->hi_experts;
    for (int e = 1; e < c->hi_experts; e++) if (prob[e] > prob[best]) best = e;
    return best;
}
void hi_forward(const Golf *m, Phase *s, int p, int b, int n, real *room) {
    const Config *c = &m->c;
    const int C = c->width, E = c->hi_experts, r = c->ffn_hi, token = c->hi_route == ROUTE_TOKEN;
    const real alpha = *IX(alpha), beta = *IX(beta), *router = IX(router);
    const Mat in = inputs_of(m, &s->in_up, T_wup);
    if (!r) return;
    memcpy(s->hi_main, s->y, sizeof(real) * (size_t)n * C);
    for (int e = 0; e < E; e++)
        gemm_panels(s->hi_f + e * r, E * r, in, &packed_of(m, T_hi_up, b * E + e, 0)->forward, n,
                    0);
    relu2_forward(room, s->hi_f, n, E * r);
    for (size_t i = 0; i < (size_t)n; i++) {
        real *prob = s->hi_p + i * E, sum = 0, most = 0;
        for (int e = 0; e < E; e++) {
            prob[e] = 0;
            for (int k = 0; token && k < C; k++) prob[e] += router[e * C + k] * mat_get(in, i, k);
            most = e ? larger(most, prob[e]) : prob[e];
        }
        for (int e = 0; e < E; e++) sum += prob[e] = exp(prob[e] - most);
        for (int e = 0; e < E; e++) prob[e] = token ? prob[e] / sum : 1;
        for (int e = 0; e < E; e++) /* only who is chosen decides on the step */
            if (e != hi_chosen(c, prob, p)) memset(room + (i * E + e) * r, 0, sizeof(real) * r);
    }
    act_quant(&s->hi_in, room, n, E * r, act_top(c, T_hi_down), lambda_of(m, T_hi_down), m->freeze);
    for (int e = 0; e < E; e++) {
        gemm_panels(room, C, hi_hidden(m, &s->hi_in, e),
                    &packed_of(m, T_hi_down, b * E + e, 0)->forward, n, 0);
        for (int i = 0; i < n; i++) {
            const size_t at = (size_t)i * C;
            const real w = alpha * s->hi_p[i * E + e];
            if (hi_chosen(c, s->hi_p + i * E, p) != e) continue;
            memcpy(s->hi_y + at, room + at, sizeof(real) * (size_t)C);
            FOR_COLUMNS(k, C) s->y[at + k] = beta * s->hi_main[at + k] + w * room[at + k];
        }
    }
}
/* From d(y) in f->dy: alpha, beta, the router, d(hidden) of the experts; leaves d(MLP) in f->dy. */
void hi_backward(const Golf *m, const Phase *s, const Flow *f, int p, int b, int n0, int n) {
    const Config *c = &m->c;
    const int C = c->width, E = c->hi_experts, r = c->ffn_hi, token = c->hi_route == ROUTE_TOKEN;
    const real alpha = *IX(alpha), beta = *IX(beta);
    const Mat in = inputs_of(m, &s->in_up, T_wup);
    if (!r) return;
    memset(f->hi_dy, 0, sizeof(real) * (size_t)n * E * C);
    for (size_t i = 0; i < (size_t)n; i++) {
        const real *prob = s->hi_p + i * E;
        const int chosen = hi_chosen(c, prob, p);
        real *dy = f->dy + i * C, *to = f->hi_dy + (i * E + chosen) * C, w = prob[chosen];
        const real dw = inner(dy, s->hi_y + i * C, C);
        *DIX(alpha) += dw * w;
        *DIX(beta) += inner(dy, s->hi_main + i * C, C);
        f->hi_dw[i] = alpha * dw * w; /* d(w_e) * w_e: softmax's backward needs the product */
        for (int e = 0; e < E && token; e++) {
            const real dz = f->hi_dw[i] * ((e == chosen) - prob[e]);
            for (int k = 0; k < C; k++) DIX(router)[e * C + k] += dz * mat_get(in, i, k);
        }
        for (int k = 0; k < C; k++) to[k] = alpha * w * dy[k], dy[k] *= beta;
    }
    for (int e = 0; e < E; e++)
        gemm_panels(f->hi_df + e * r, E * r, mat(f->hi_dy + e * C, (size_t)E * C),
                    &packed_of(m, T_hi_down, b * E + e, 0)->back, n, 0);
    relu2_backward(f->hi_df, s->hi_f, n, E * r);
}
/* du += what reaches the inputs through the experts and the router. */
void hi_inputs(const Golf *m, const Phase *s, const Flow *f, real *du, int p, int b, int n,
               real *room) {
    const Config *c = &m->c;
    const int C = c->width, E = HI(c->hi_experts), r = c->ffn_hi;
    const int token = c->hi_route == ROUTE_TOKEN;
    const int masked = c->aq == AQ_QUEST && lambda_of(m, T_wup) > 0;
    for (int e = 0; e < E; e++) {
        gemm_panels(room, C, mat(f->hi_df + e * r, (size_t)E * r),
                    &packed_of(m, T_hi_up, b * E + e, 0)->back, n, 0);
        for (int i = 0; i < n && token; i++) {
            const real *prob = s->hi_p + i * E, *to = IX(router) + e * C;
            const real dz = f->hi_dw[i] * ((e == hi_chosen(c, prob, p)) - prob[e]);
            for (int k = 0; k < C; k++) room[(size_t)i * C + k] += dz * to[k];
        }
        if (masked) quest_inputs_backward(c, &s->in_up, room, n, C);
        for (size_t i = 0; i < (size_t)n * C; i++) du[i] += room[i];
    }
}
void hi_dw(const Golf *m, const Phase *all, int b, int N) {
    const Config *c = &m->c;
    const int C = c->width, E = HI(c->hi_experts), r = c->ffn_hi;
    const Mat in = inputs_of(m, &all->in_up, T_wup);
    real *up = m->g + m->t[T_hi_up].at, *down = m->g + m->t[T_hi_down].at;
    Gemm dw[2 * 64];
    for (int e = 0; e < E; e++) {
        const size_t copy = (size_t)(b * E + e) * r * C;
        const Mat dy = mat_t(m->hi_dy + e * C, (size_t)E * C);
        const Mat df = mat_t(m->hi_df + e * r, (size_t)E * r);
        dw[2 * e] = (Gemm){down + copy, (size_t)r, dy, hi_hidden(m, &all->hi_in, e), C, r, N, 1};
        dw[2 * e + 1] = (Gemm){up + copy, (size_t)C, df, in, r, C, N, 1};
    }
    matmul_dw(dw, 2 * E);
}

/* ==== 15. ClusComp (2503.13089) =============================================================== */
/* ClusComp (2503.13089): vectors of g weights, one below the other in a column of W, are entries of
 * a codebook of n vectors (bf16), found by k-means on trained weights (--init_from) and then fixed;
 * the codebook is trained. Masters of one entry are kept equal: their gradients are averaged, and
 * the derivative of the average is what AdamW needs, whose steps do not depend on the gradient's
 * size. Stored: the codebook and ceil(log2 n) bits per vector; the index is in two codes. */
int cluster_of(const Config *c, int *g, int *n) { /* 0 none, 1 each, 2 shared, -1 nonsense */
    char how[16] = "";
    int end = 0;
    *g = *n = 1;
    if (!*c->cluster) return 0;
    if (sscanf(c->cluster, "%d,%d,%15s%n", g, n, how, &end) < 3 || c->cluster[end] || *g < 2 ||
        *g > 16 || *n < 2 || *n > 65536) return -1;
    return !strcmp(how, "each") ? 1 : !strcmp(how, "shared") ? 2 : -1;
}
void cluster_check(const Config *c) {
    int g, n;
    if (cluster_of(c, &g, &n) < 0 || QKV_ROWS % g || c->width % g || HIDDEN % g)
        die("--cluster=%s: expected G,N,shared or G,N,each, G from 2 to 16 a divisor of --width "
            "and the hidden width, N from 2 to 65536", c->cluster);
}
static size_t vector_at(const Tensor *t, size_t v) { /* its first weight; the next is a row below */
    const size_t K = (size_t)t->cols;
    return v / K * t->vector * K + v % K;
}
int index_of(const int8_t *code, const Tensor *t, size_t v) {
    const size_t at = vector_at(t, v);
    return (uint8_t)code[at] | (uint8_t)code[at + t->cols] << 8;
}
void set_index(int8_t *code, const Tensor *t, size_t v, int index) {
    const size_t at = vector_at(t, v);
    code[at] = (int8_t)index, code[at + t->cols] = (int8_t)(index >> 8);
}
size_t book_scales(const Tensor *t) {
    return t->shared && strcmp(t->name, "wqkv") ? 0 : (size_t)t->group * t->vector;
}
size_t book_bytes(const Tensor *t) {
    return 2 * book_scales(t) + CEIL(VECTORS(t) * (size_t)t->bits, 8);
}
void book_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                          const Tensor *t) { /* the entry of each vector is what its masters are */
    (void)mask;
    for (size_t v = 0; v < VECTORS(t); v++)
        for (int e = 0, k = index_of(code, t, v); e < t->vector; e++)
            scale[(size_t)k * t->vector + e] =
                from_bf16(to_bf16(w[vector_at(t, v) + (size_t)e * t->cols]));
}
void book_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t) {
    for (size_t v = 0; v < VECTORS(t); v++)
        for (int e = 0, k = index_of(code, t, v); e < t->vector; e++)
            eff[vector_at(t, v) + (size_t)e * t->cols] = scale[(size_t)k * t->vector + e];
}
void book_pack(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t) {
    const size_t bits = (size_t)t->bits, S = book_scales(t);
    for (size_t s = 0; s < S; s++, out += 2) put_u(out, to_bf16(scale[s]), 2);
    memset(out, 0, book_bytes(t) - 2 * S);
    for (size_t i = 0; i < VECTORS(t) * bits; i++)
        out[i / 8] |= (uint8_t)((index_of(code, t, i / bits) >> i % bits & 1) << i % 8);
}
int book_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    const size_t bits = (size_t)t->bits, S = book_scales(t);
    for (size_t s = 0; s < S; s++, in += 2)
        if (!isfinite(scale[s] = from_bf16((uint16_t)get_u(in, 2)))) return 0;
    for (size_t v = 0; v < VECTORS(t); v++) {
        int index = 0;
        for (size_t b = 0, at = v * bits; b < bits; b++, at++)
            index |= (in[at / 8] >> at % 8 & 1) << b;
        if (index >= t->group) return 0;
        set_index(code, t, v, index);
    }
    return 1;
}
/* Codebooks of block j start at wqkv (shared) or at each tensor; u runs over the tensors of t's. */
#define FOR_BOOKS(m, j, t) \
    for (int j = 0; j < (m)->t[T_wqkv].stored_copies; j++) \
        for (Tensor *t = (m)->t; t < (m)->t + N_TENSORS; t++) \
            if (t->vector && (!t->shared || t == (m)->t + T_wqkv))
#define FOR_VECTORS(m, j, t, u, v, at) \
    for (Tensor *u = t; u < (m)->t + N_TENSORS; u++) \
        for (size_t v = 0, at; u->vector && (u == t || u->shared) && v < VECTORS(u) && \
             (at = u->at + (size_t)j * u->copy_n + vector_at(u, v), 1); v++)

/* x := in each entry of a codebook, the mean over its vectors. Linear, and its own adjoint. */
void cluster_average(Golf *m, real *x) {
    FOR_BOOKS(m, j, t) {
        const int g = t->vector;
        double *sum = xcalloc((size_t)t->group * (g + 1), sizeof(double));
        double *count = sum + (size_t)t->group * g;
        FOR_VECTORS(m, j, t, u, v, at) {
            const int k = index_of(m->code + u->at + (size_t)j * u->copy_n, u, v);
            for (int e = 0; e < g; e++) sum[k * g + e] += (double)x[at + (size_t)e * u->cols];
            count[k]++;
        }
        FOR_VECTORS(m, j, t, u, v, at) {
            const int k = index_of(m->code + u->at + (size_t)j * u->copy_n, u, v);
            for (int e = 0; e < g; e++)
                x[at + (size_t)e * u->cols] = (real)(sum[k * g + e] / count[k]);
        }
        free(sum);
    }
}
/* k-means, 20 rounds from vectors drawn at random; an entry that nobody chooses stays. */
void cluster_fit(Golf *m) {
    FOR_BOOKS(m, j, t) {
        const int g = t->vector, n = t->group;
        size_t count = 0, i = 0;
        FOR_VECTORS(m, j, t, u, v, at) count++, (void)at;
        real *x = xcalloc(count * g, sizeof(real));
        real *book = xcalloc((size_t)n * (g + 1), sizeof(real)), *square = book + (size_t)n * g;
        int *chosen = xcalloc(count + (size_t)n, sizeof(int)), *members = chosen + count;
        FOR_VECTORS(m, j, t, u, v, at) {
            for (int e = 0; e < g; e++) x[i * g + e] = m->w[at + (size_t)e * u->cols];
            i++;
        }
        for (int k = 0; k < n; k++)
            memcpy(book + k * g, x + hash64((uint64_t)m->c.seed + 77, (uint64_t)k) % count * g,
                   sizeof(real) * (size_t)g);
        for (int round = 0; round < 20; round++) {
            for (int k = 0; k < n; k++) square[k] = inner(book + k * g, book + k * g, g) / 2;
#pragma omp parallel for
            for (size_t v = 0; v < count; v++) { /* least |x - c|^2: most x.c - |c|^2/2 */
                real most = -(real)INFINITY;
                for (int k = 0; k < n; k++) {
                    real score = -square[k];
                    for (int e = 0; e < g; e++) score += x[v * g + e] * book[(size_t)k * g + e];
                    if (score > most) most = score, chosen[v] = k;
                }
            }
            double *sum = xcalloc((size_t)n * g, sizeof(double));
            memset(members, 0, sizeof(int) * (size_t)n);
            for (size_t v = 0; v < count; v++) {
                members[chosen[v]]++;
                for (int e = 0; e < g; e++) sum[chosen[v] * g + e] += (double)x[v * g + e];
            }
            for (int k = 0; k < n * g; k++)
                if (members[k / g]) book[k] = (real)(sum[k] / members[k / g]);
            free(sum);
        }
        i = 0;
        FOR_VECTORS(m, j, t, u, v, at)
            set_index(m->code + u->at + (size_t)j * u->copy_n, u, v, chosen[i++]), (void)at;
        free(x), free(book), free(chosen);
    }
    cluster_average(m, m->w);
}
static int coded_indices(Coder *r, const Tensor *t, int8_t *code, size_t from, size_t to) {
    Node *tree = xcalloc((size_t)1 << t->bits, sizeof(Node));
    int good = 1;
    for (size_t v = from; v < to && !r->full; v++) {
        const int k = coded_bits(r, tree, 1, t->bits, index_of(code, t, v)) - (1 << t->bits);
        good &= k < t->group;
        set_index(code, t, v, k);
    }
    return free(tree), good;
}

/* ==== 16. Protected rows ====================================================================== */
/* --protect=NAME:BITS:P%: the P % of the rows that ternary codes miss most have integer codes and a
 * scale of their own. Scales: the ternary one, then of each row the integers' or 0. Packed: scale,
 * a bit per row, then row by row. */
size_t mixed_scales(const Tensor *t) { return 1 + (size_t)t->rows; }
size_t mixed_bytes(const Tensor *t) {
    const size_t rows = (size_t)t->rows, high = (size_t)t->group, K = (size_t)t->stored_cols;
    return 2 + CEIL(rows, 8) + high * (2 + CEIL(K * (size_t)t->bits, 8)) +
           (rows - high) * CEIL(K, 5);
}
static Tensor row_of(const Tensor *t, int high) { /* a row as a tensor of its own */
    const int K = t->stored_cols;
    return (Tensor){.rows = 1, .cols = K, .stored_cols = K, .line = K, .group = K,
                    .copy_n = (size_t)K, .copy_scales = 1, .bits = high ? t->bits : 2};
}
typedef struct { double error; int row; } Miss;
static int by_miss(const void *a, const void *b) { /* for qsort: the largest first */
    const Miss *x = a, *y = b;
    return x->error != y->error ? (x->error < y->error) - (x->error > y->error) : x->row - y->row;
}
void mixed_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t) {
    const int K = t->stored_cols;
    const Tensor low = row_of(t, 0), high = row_of(t, 1);
    Miss *miss = xcalloc((size_t)t->rows, sizeof(Miss));
    const double mean = block_sum(w, t->copy_n, 0) / (double)t->copy_n;
    const real s = *scale = from_bf16(to_bf16((real)(mean > 1e-5 ? mean : 1e-5)));
    (void)mask;
    for (int r = 0; r < t->rows; r++) {
        const real *z = w + (size_t)r * K;
        for (int i = 0; i < K; i++) {
            const double e = (double)(z[i] - s * grid_code(z[i], s, &low));
            miss[r].error += e * e, miss[r].row = r;
        }
    }
    qsort(miss, (size_t)t->rows, sizeof(Miss), by_miss);
    for (int rank = 0; rank < t->rows; rank++) {
        const int r = miss[rank].row;
        const size_t at = (size_t)r * K;
        scale[1 + r] = 0;
        if (rank < t->group) grid_quantize(code + at, scale + 1 + r, NULL, w + at, &high);
        else grid_codes(code + at, w + at, K, s, &low);
    }
    free(miss);
}
void mixed_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t) {
    for (size_t i = 0; i < t->copy_n; i++) {
        const real s = scale[1 + i / (size_t)t->stored_cols];
        eff[i] = (s > 0 ? s : *scale) * (real)code[i];
    }
}
void mixed_pack(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t) {
    uint8_t *map = out + 2, *row = xcalloc(2 + (size_t)t->stored_cols, 1);
    put_u(out, to_bf16(*scale), 2);
    memset(map, 0, CEIL((size_t)t->rows, 8));
    out = map + CEIL(t->rows, 8);
    for (int r = 0; r < t->rows; r++, code += t->stored_cols) {
        const int high = scale[1 + r] > 0, skip = high ? 0 : 2; /* ternary rows have no own scale */
        const Tensor one = row_of(t, high);
        const size_t bytes = grid_bytes(&one) - (size_t)skip;
        map[r / 8] |= (uint8_t)(high << r % 8);
        grid_pack(row, code, scale + (high ? 1 + r : 0), &one);
        memcpy(out, row + skip, bytes), out += bytes;
    }
    free(row);
}
int mixed_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    const uint8_t *map = in + 2, *step = in;
    uint8_t *row = xcalloc(2 + (size_t)t->stored_cols, 1);
    int count = 0, good = 1;
    for (int r = 0; r < t->rows; r++) count += map[r / 8] >> r % 8 & 1;
    in = map + CEIL(t->rows, 8), good = count == t->group;
    for (int r = 0; r < t->rows && good; r++, code += t->stored_cols) {
        const int high = map[r / 8] >> r % 8 & 1, skip = high ? 0 : 2;
        const Tensor one = row_of(t, high);
        const size_t bytes = grid_bytes(&one) - (size_t)skip;
        memcpy(row, step, 2), memcpy(row + skip, in, bytes), in += bytes;
        good = grid_unpack(code, scale + (high ? 1 + r : 0), row, &one);
        if (!high) scale[1 + r] = 0;
    }
    return free(row), good;
}
void protect_check(const Config *c) {
    int seen[4] = {0}, rows = 0;
    for (const char *p = c->protect; *p; p += strcspn(p, ","), p += *p == ',') {
        static const char *const names[] = {"wqkv", "wo", "wup", "wdown"};
        char name[32] = "";
        int bits = 0, n = 0, more = 0, k = 0;
        double percent = 100;
        sscanf(p, "%31[^:,]:%d%n", name, &bits, &n);
        if (n && p[n] == ':') sscanf(p + n, ":%lf%%%n", &percent, &more), n = more ? n + more : 0;
        while (k < 4 && strcmp(names[k], name)) k++;
        if (k == 4 || !n || (p[n] && p[n] != ',') || bits < 4 || (bits > 8 && bits != 16) ||
            !(percent > 0 && percent <= 100) || (more && bits == 16))
            die("--protect=%s: expected NAME:BITS[:P%%][,...] with wqkv, wo, wup or wdown, 4 to 8 "
                "or 16 bits and P (for up to 8 bits) percent of the rows, found '%.40s'",
                c->protect, p);
        if (seen[k]++) die("--protect=%s: %s is there twice", c->protect, name);
        rows |= percent < 100;
    }
    if (*c->protect && !c->wq) die("--protect is for --wq=ternary; all weights have 16 bits here");
    if (rows && (c->wq != WQ_TERNARY || c->qat == QAT_NOISE))
        die("--protect=%s: rows are for --wq=ternary, without --qat=noise", c->protect);
}

/* ==== 17. Relaxed Recursive Transformers (2410.20672): a little of its own for each phase ===== */
/* --unshare: these projections have a copy per phase. */
int unshared(const Config *c, const char *name) {
    const size_t len = strlen(name);
    for (const char *p = c->unshare; *p; p += strcspn(p, ","), p += *p == ',')
        if (!strncmp(p, name, len) && (!p[len] || p[len] == ',')) return 1;
    return 0;
}
void unshare_check(const Config *c) {
    size_t len;
    for (const char *p = c->unshare; *p; p += len, p += *p == ',') {
        const char *names[] = {"wqkv", "wo", "wup", "wdown"};
        int known = 0;
        len = strcspn(p, ",");
        for (int i = 0; i < 4; i++) known |= strlen(names[i]) == len && !strncmp(p, names[i], len);
        if (!known) die("--unshare=%s: expected wqkv, wo, wup, wdown, with commas between, found "
                        "'%.*s'", c->unshare, (int)len, p);
    }
}
/* y = W x + B_p A_p x: a pair A (r,K), B (rows,r) for each phase, outside the weight quantizer, on
 * the inputs that W sees. B starts at 0. The tensor A of projection k, or NULL: */
static const Tensor *lora_of(const Golf *m, int k) {
    const Tensor *a = m->t + T_la_qkv + 2 * (k - T_wqkv);
    return k <= T_wdown && a->n ? a : NULL;
}
static Packed *lora_packed(const Golf *m, const Tensor *t, int p, int r) {
    return packed_of(m, (int)(t - m->t), copy_of(m, t, p), r);
}
void lora_forward(const Golf *m, real *y, size_t ldy, Mat x, int k, int p, int r, int N) {
    const Tensor *a = lora_of(m, k);
    real u[CHUNK * LORA_MOST];
    if (!a) return;
    gemm_panels(u, a->rows, x, &lora_packed(m, a, p, 0)->forward, N, 0);
    gemm_panels(y, ldy, mat(u, a->rows), &lora_packed(m, a + 1, p, r)->forward, N, 1);
}
void lora_dx(const Golf *m, real *dx, Mat dy, int k, int p, int r, int N) {
    const Tensor *a = lora_of(m, k);
    real du[CHUNK * LORA_MOST];
    if (!a) return;
    gemm_panels(du, a->rows, dy, &lora_packed(m, a + 1, p, r)->back, N, 0);
    gemm_panels(dx, a->cols, mat(du, a->rows), &lora_packed(m, a, p, 0)->back, N, 1);
}
/* w: the product dW = dy^T x of projection k. */
void lora_dw(const Golf *m, const Gemm *w, int k, int p, int r) {
    const Tensor *a = lora_of(m, k);
    int first;
    if (!a) return;
    const int rank = a->rows, rows = row_range(m, k, r, &first), K = a->cols, N = w->k;
    const size_t A = a->at + copy_of(m, a, p) * a->copy_n;
    const size_t B = a[1].at + copy_of(m, a, p) * a[1].copy_n + (size_t)first * rank;
    Mat dy = w->a;
    dy.trans = 0;
    gemm(m->lora_u, rank, w->b, mat_t(m->eff + A, K), N, rank, K, 0);
    gemm(m->lora_du, rank, dy, mat(m->eff + B, rank), N, rank, rows, 0);
    gemm(m->g + B, rank, w->a, mat(m->lora_u, rank), rows, rank, N, 1);
    gemm(m->g + A, K, mat_t(m->lora_du, rank), w->b, rank, K, N, 1);
}

/* --convert: from a checkpoint with as many applications, each of a block of its own, say. A copy
 * that phases share becomes the mean of what these had (average), what the first of them had
 * (lower), or what phases at even intervals had, first and last included (stepwise). */
int convert(Golf *m, const Tensor *t, const Golf *from, const Tensor *u) {
    const Config *c = &m->c;
    if (!c->convert || t->copy_n != u->copy_n || t->per == ONCE || t->per > PER_PHASE ||
        u->per == ONCE || u->per > PER_PHASE) return 0;
    if (m->phases != from->phases)
        die("--convert: expected a checkpoint of %d applications, found %d", m->phases,
            from->phases);
    for (int j = 0; j < t->stored_copies; j++) {
        real *w = memset(m->w + t->at + j * t->copy_n, 0, t->copy_n * sizeof(real));
        int count = 0, first = -1, last = m->phases - 1;
        for (int p = 0; p < m->phases; p++) count += copy_of(m, t, p) == j;
        while (copy_of(m, t, ++first) != j) {}
        const int b = j - c->prelude, U = c->unique, R = c->repeat;
        if (count > 1 && c->convert == CONVERT_STEPWISE) /* b of U blocks, over U * R phases */
            first = c->prelude + (U > 1 ? (b * (U * R - 1) + (U - 1) / 2) / (U - 1) : 0);
        if (c->convert != CONVERT_AVERAGE) count = 1, last = first;
        for (int p = first; p <= last; p++) {
            const real *v = from->w + u->at + copy_of(from, u, p) * u->copy_n;
            if (p > first && copy_of(m, t, p) != j) continue;
            for (size_t i = 0; i < t->copy_n; i++) w[i] += v[i] / (real)count;
        }
    }
    return 1;
}
/* Eigenvectors of the symmetric matrix s (n,n), as columns of v, by Jacobi's rotations, which leave
 * the eigenvalues on the diagonal of s. */
static void eigen(double *s, double *v, int n) {
    for (int i = 0; i < n * n; i++) v[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < 40; sweep++) {
        double off = 0, all = 0;
        for (int i = 0; i < n * n; i++) all += s[i] * s[i], off += i % (n + 1) ? s[i] * s[i] : 0;
        if (off <= 1e-28 * all) return;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) {
                if (s[p * n + q] == 0) continue;
                const double theta = (s[q * n + q] - s[p * n + p]) / (2 * s[p * n + q]);
                const double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
                const double a = 1 / sqrt(t * t + 1), b = t * a;
                for (int i = 0; i < 3 * n; i++) { /* rows of s, columns of s, columns of v */
                    double *x = i < n ? s + p * n + i : i < 2 * n ? s + (i - n) * n + p
                                                                  : v + (i - 2 * n) * n + p;
                    double *y = i < n ? s + q * n + i : x + q - p, was = *x;
                    *x = a * was - b * *y, *y = b * was + a * *y;
                }
            }
    }
}
/* The directions of the n largest eigenvalues, largest first. */
static void largest(const double *s, int size, int n, int *pick) {
    for (int k = 0; k < n; k++) {
        pick[k] = -1;
        for (int i = 0; i < size; i++) {
            int used = 0;
            const double best = pick[k] < 0 ? -1 : s[pick[k] * (size + 1)];
            for (int j = 0; j < k; j++) used |= pick[j] == i;
            if (!used && (pick[k] < 0 || s[i * (size + 1)] > best)) pick[k] = i;
        }
    }
}
/* The best rank-r approximation of w (rows,cols): b (rows,r) = U S, a (r,cols) = V^T of its
 * singular value decomposition, from the eigenvectors of the smaller of W^T W and W W^T. */
void low_rank(real *b, real *a, const double *w, int rows, int cols, int r) {
    const int wide = cols > rows, n = wide ? rows : cols, other = wide ? cols : rows;
    double *s = xcalloc((size_t)n * n * 2, sizeof(double)), *v = s + (size_t)n * n;
    int *pick = xcalloc((size_t)r, sizeof(int));
#define W_AT(i, k) w[wide ? (size_t)(i) * cols + (k) : (size_t)(k) * cols + (i)]
#pragma omp parallel for
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            for (int k = 0; k < other; k++) s[i * n + j] += W_AT(i, k) * W_AT(j, k);
    eigen(s, v, n);
    largest(s, n, MIN(r, n), pick);
    for (int e = 0; e < r; e++) {
        const int column = e < n ? pick[e] : 0;
        const double sigma = e < n ? sqrt(fmax(s[column * n + column], 0)) : 0;
        for (int i = 0; i < n; i++) { /* the side of the eigenvectors */
            const double x = e < n ? v[i * n + column] : 0;
            if (wide) b[i * r + e] = (real)(x * sigma);
            else if (e < n) a[e * cols + i] = (real)x;
        }
        for (int k = 0; k < other; k++) { /* the other side: W v, of length sigma */
            double sum = 0;
            for (int i = 0; i < n && e < n; i++) sum += W_AT(i, k) * v[i * n + column];
            if (!wide) b[k * r + e] = (real)sum;
            else if (sigma > 0) a[e * cols + k] = (real)(sum / sigma); /* else as it started */
        }
    }
    free(s), free(pick);
}
/* The pairs of a converted model: the best approximation of what sharing took from each phase. */
void lora_fit(Golf *m, const Golf *from) {
    for (int k = T_wqkv; m->c.convert && k <= T_wdown; k++) {
        const Tensor *t = m->t + k, *u = from->t + k, *a = lora_of(m, k);
        double *rest = xcalloc(t->copy_n, sizeof(double));
        if (!STORED(t) || !STORED(u) || t->copy_n != u->copy_n) a = NULL;
        for (int p = 0; a && p < m->phases; p++) {
            const real *w = m->w + t->at + copy_of(m, t, p) * t->copy_n;
            const real *v = from->w + u->at + copy_of(from, u, p) * u->copy_n;
            for (size_t i = 0; i < t->copy_n; i++) rest[i] = (double)(v[i] - w[i]);
            low_rank(m->w + a[1].at + p * a[1].copy_n, m->w + a->at + p * a->copy_n, rest, t->rows,
                     t->cols, a->rows);
        }
        free(rest);
    }
}

/* --teacher: the logits of a trained model on the same tokens. The loss is (1-W) cross-entropy
 * + W KL(teacher || student), W = --kd. */
void teacher_open(Golf *m, const char *path) {
    Config c;
    size_t n, at;
    uint8_t *file = ckpt_open(path, &c, &n, &at);
    Golf *t = m->teacher = owned(m, 1, sizeof(Golf));
    config_check(&c);
    if (*c.cluster) die("%s: the codebooks of a --cluster run are not in its checkpoint", path);
    if (c.vocab != m->c.vocab || c.seq < m->c.seq)
        die("%s: expected --vocab=%d and --seq=%d or more, found %d and %d", path, m->c.vocab,
            m->c.seq, c.vocab, c.seq);
    golf_init(t, &c, 1);
    if (n != t->n_params) die("%s: expected %zu parameters, found %zu", path, t->n_params, n);
    memcpy(t->w, file + at, n * sizeof(real)), free(file);
    t->step = c.steps, golf_quantize(t); /* as it was trained: with --qat=0 not quantized */
    t->train = 0, golf_buffers(t, m->N);
}
/* Once l (n,V) are logits with their loss: the loss of the mix, and in the teacher's buffer what
 * its gradient adds to that of cross-entropy: W (onehot - p_teacher), through the softcap. */
void teacher_loss(const Golf *m, const real *l, const int *y, size_t from, size_t row, int n,
                  real dloss) {
    const Golf *t = m->teacher;
    const int V = m->c.vocab, C = t->c.width;
    const real W = (real)m->c.kd, cap2 = 1 / (SOFTCAP * SOFTCAP);
    real *q = t->logits + row * V, *hn = t->hn + from * C;
    rmsnorm_forward(hn, t->r_out + from, t->prev[t->phases] + from * C, t->ones, n, C);
    gemm_panels(q, V, mat(hn, C), &t->head, n, 0);
    loss_forward(q, t->lse + from, NULL, NULL, n, V);
    for (int i = 0; i < n; i++, q += V, l += V) {
        real kl = 0, lse = m->lse[from + i], other = t->lse[from + i];
        for (int k = 0; k < V; k++) {
            const real p = exp(q[k] - other);
            kl += p * ((q[k] - other) - (l[k] - lse));
            q[k] = -W * dloss * p * (1 - l[k] * l[k] * cap2);
        }
        q[y[i]] += W * dloss * (1 - l[y[i]] * l[y[i]] * cap2);
        m->loss[from + i] = (1 - W) * m->loss[from + i] + W * kl;
    }
}

/* ==== 18. FiPS (2411.09816): one dense factor, a sparse one for each phase ==================== */
/* The MLP of phase p is up = V_p U, down = U^T V'_p with one U (rank,C) for all phases and
 * sparse V_p (F,rank), V'_p (rank,F). wup and wdown are not stored: they are products, made once a
 * step, and what their gradients say goes on to the factors. Positions of a sparse factor are
 * its codes that are not 0: the coder of section 8 makes them cheap. A weight that is 0 has no
 * gradient and stays 0: the mask needs no memory. */
#define FOR_FIPS(m, p, up, down, at_up, at_down) \
    for (int p = 0; p < (m)->t[T_fips_up].stored_copies && (m)->c.ffn == FFN_FIPS; p++) \
        for (size_t at_up = (m)->t[T_fips_up].at + p * (m)->t[T_fips_up].copy_n, once_ = 1, \
             at_down = (m)->t[T_fips_down].at + p * (m)->t[T_fips_down].copy_n, \
             up = (m)->t[T_wup].at + p * (m)->t[T_wup].copy_n, \
             down = (m)->t[T_wdown].at + p * (m)->t[T_wdown].copy_n; once_; once_ = 0)
void fips_expand(Golf *m) {
    const Config *c = &m->c;
    const int C = c->width, F = HIDDEN, r = c->fips_rank;
    const real *U = m->eff + m->t[T_fips_u].at;
    FOR_FIPS(m, p, up, down, v_up, v_down) {
        gemm(m->eff + up, C, mat(m->eff + v_up, r), mat(U, C), F, C, r, 0);
        gemm(m->eff + down, F, mat_t(U, C), mat(m->eff + v_down, F), C, F, r, 0);
    }
}
void fips_fold(Golf *m) {
    const Config *c = &m->c;
    const int C = c->width, F = HIDDEN, r = c->fips_rank;
    const size_t at = m->t[T_fips_u].at;
    const real *U = m->eff + at;
    FOR_FIPS(m, p, up, down, v_up, v_down) {
        real *dup = m->g + up, *ddown = m->g + down;
        gemm(m->g + v_up, r, mat(dup, C), mat_t(U, C), F, r, C, 0);
        gemm(m->g + v_down, F, mat(U, C), mat(ddown, F), r, F, C, 0);
        gemm(m->g + at, C, mat_t(m->eff + v_up, r), mat(dup, C), r, C, F, 1);
        gemm(m->g + at, C, mat(m->eff + v_down, F), mat_t(ddown, F), r, C, F, 1);
        memset(dup, 0, (size_t)F * C * sizeof(real));
        memset(ddown, 0, (size_t)F * C * sizeof(real));
    }
}
/* Gradual magnitude pruning: every 50 steps until 3/4 of the run, to s (1 - (1 - x)^3); -1: not
 * now. */
double fips_sparsity(const Config *c, int step) {
    const int end = c->steps * 3 / 4;
    const double x = end > 0 ? fmin((double)step / end, 1) : 1;
    if (step > end || (step < end && step % 50)) return -1;
    return c->fips_sparse * (1 - pow(1 - x, 3));
}
static int by_size(const void *a, const void *b) { /* for qsort */
    const real x = *(const real *)a, y = *(const real *)b;
    return (x > y) - (x < y);
}
/* The smallest weights of all sparse factors together become 0, for good; as multiples of the size
 * that each factor started with, unless both come from trained matrices. */
void fips_prune(Golf *m, double sparsity) {
    const Tensor *t = m->t + T_fips_up;
    const size_t n = t[0].n + t[1].n, drop = sparsity > 0 ? (size_t)(sparsity * (double)n) : 0;
    if (!drop) return;
    real *size = xcalloc(2 * n, sizeof(real)), *order = size + n;
    for (size_t i = 0; i < n; i++)
        size[i] = fabs(m->w[t->at + i]) / (real)(m->c.convert ? 1 : t[i >= t[0].n].init);
    qsort(memcpy(order, size, n * sizeof(real)), n, sizeof(real), by_size);
    for (size_t i = 0; i < n; i++)
        if (size[i] <= order[drop - 1])
            m->w[t->at + i] = m->m[t->at + i] = m->v[t->at + i] = 0;
    free(size);
}
/* From a trained flat model: U = the directions that the inputs of all its up and the outputs of
 * all its down projections share most, V_p what they then need. */
void fips_fit(Golf *m, const Golf *from) {
    const Config *c = &m->c;
    const int C = c->width, F = HIDDEN, r = c->fips_rank;
    if (c->ffn != FFN_FIPS || !c->convert || !STORED(from->t + T_wup)) return;
    double *s = xcalloc((size_t)C * C * 2, sizeof(double)), *v = s + (size_t)C * C;
    int *pick = xcalloc((size_t)r, sizeof(int));
    real *U = m->w + m->t[T_fips_u].at;
    if (m->phases != from->phases || (size_t)F * C != from->t[T_wup].copy_n)
        die("--ffn=fips --convert: expected a checkpoint of %d applications and F=%d", m->phases,
            F);
#define DONOR(k, p) (from->w + from->t[k].at + copy_of(from, from->t + k, p) * from->t[k].copy_n)
    for (int p = 0; p < m->phases; p++) {
        const real *up = DONOR(T_wup, p), *down = DONOR(T_wdown, p);
        for (int f = 0; f < F; f++)
            for (int i = 0; i < C; i++)
                for (int j = 0; j < C; j++)
                    s[i * C + j] += (double)(up[f * C + i] * up[f * C + j] +
                                             down[i * F + f] * down[j * F + f]);
    }
    eigen(s, v, C);
    largest(s, C, r, pick);
    for (int e = 0; e < r; e++)
        for (int i = 0; i < C; i++) U[e * C + i] = (real)v[i * C + pick[e]];
    for (int p = 0; p < m->t[T_fips_up].stored_copies; p++) {
        gemm(m->w + m->t[T_fips_up].at + p * m->t[T_fips_up].copy_n, r, mat(DONOR(T_wup, p), C),
             mat_t(U, C), F, r, C, 0);
        gemm(m->w + m->t[T_fips_down].at + p * m->t[T_fips_down].copy_n, F, mat(U, C),
             mat(DONOR(T_wdown, p), F), r, F, C, 0);
    }
    free(s), free(pick);
}

/* ==== 19. MoEUT (2405.16039): experts in the MLP ============================================== */
/* E experts of g hidden numbers, of which each token uses the K with the largest logits
 * z = W_s u + b_p (b: a bias per phase):  y = sum over them of sigmoid(z_e) * MLP_e(u).
 * They are copies of wup and wdown. The N K pairs of token and choice are sorted by expert
 * ("rows"): then each expert is a few large products. The loss has  c sum_e P_e log P_e  besides, P
 * mean softmax(z) of a block over the tokens and applications of a sequence: it keeps experts in
 * use. Chosen experts and rows are kept as numbers in buffers of the phase. */
typedef struct { int e, from, n; } Task; /* rows of one expert, at most CHUNK */
enum { MOE_MOST = 64, SEL_MLP = 0, SEL_V, SEL_O }; /* whose choice: the MLP's, values', outputs' */
static real sigmoid(real z) { return 1 / (1 + exp(-z)); }
static void choose(const Golf *m, real *chosen, const real *z, int E, int K) {
    for (int k = 0; k < K && m->freeze != REPLAY; k++) { /* the largest not yet chosen */
        int best = -1;
        for (int e = 0; e < E; e++) {
            int used = 0;
            for (int j = 0; j < k; j++) used |= (int)chosen[j] == e;
            if (!used && (best < 0 || z[e] > z[best])) best = e;
        }
        chosen[k] = (real)best;
    }
}
/* A choice: logits (groups,E) per token, log of the mean softmax of a group (E) in a sequence. */
static int sel_groups(const Config *c, int which) {
    return which == SEL_MLP ? 1 : which == SEL_V ? KV_HEADS : c->heads;
}
static int sel_size(const Config *c, int which) {
    return which == SEL_MLP ? c->experts : c->attn_experts;
}
static const real *sel_z(const Phase *s, int which) {
    return which == SEL_MLP ? s->moe_z : which == SEL_V ? s->sw_zv : s->sw_zo;
}
static double *sel_log(const Golf *m, int which, int sequence, int block) {
    const Config *c = &m->c;
    const int a = c->experts, b = KV_HEADS * c->attn_experts, d = c->heads * c->attn_experts;
    return m->moe_log + ((size_t)sequence * BLOCKS + block) * (size_t)(a + b + d) +
           (which == SEL_MLP ? 0 : which == SEL_V ? a : a + b);
}
/* dz += of token n's part in the loss that keeps choices even */
static void sel_backward(const Golf *m, real *dz, const Phase *s, int which, int p, size_t n,
                         int i) {
    const int G = sel_groups(&m->c, which), E = sel_size(&m->c, which);
    const real *z = sel_z(s, which) + (size_t)i * G * E;
    const double *log_p = sel_log(m, which, (int)(n / (size_t)m->moe_len), block_of(&m->c, p));
    for (int g = 0; g < G; g++, z += E, dz += E, log_p += E) {
        double P[MOE_MOST], sum = 0, mean = 0;
        for (int e = 0; e < E; e++) sum += P[e] = exp((double)(z[e] - z[0]));
        for (int e = 0; e < E; e++) P[e] /= sum, mean += P[e] * log_p[e];
        for (int e = 0; e < E; e++) dz[e] += (real)(P[e] * (log_p[e] - mean));
    }
}

void moe_buffers(Golf *m, size_t N) {
    const Config *c = &m->c;
    const size_t rows = N * TOPK, logs = (size_t)(c->experts + SW(c->heads + KV_HEADS));
    m->moe_log = owned(m, N * BLOCKS * logs + 1, sizeof(double)); /* N: sequences of one token */
    if (!c->experts) return;
    act_alloc(m, &m->moe_x, rows, (size_t)c->width);
    m->moe_pair = owned(m, rows, sizeof(int));
    m->moe_task = owned(m, CEIL(rows, CHUNK) + (size_t)c->experts, sizeof(Task));
    if (!m->train) return;
    m->moe_dy = owned_reals(m, rows * c->width), m->moe_dx = owned_reals(m, rows * c->width);
}
/* From the chosen experts: the row of each pair, the pair of each row, tasks, gathered inputs. */
static void moe_plan(Golf *m, const Phase *s, int N) {
    const Config *c = &m->c;
    const int K = c->topk, C = c->width;
    int at[MOE_MOST + 1] = {0};
    Task *tasks = m->moe_task;
    m->moe_tasks = 0;
    for (int i = 0; i < N * K; i++) at[(int)s->moe_e[i] + 1]++;
    for (int e = 0; e < c->experts; e++) {
        for (int from = at[e], end = at[e] + at[e + 1]; from < end; from += CHUNK)
            tasks[m->moe_tasks++] = (Task){e, from, MIN(end - from, CHUNK)};
        at[e + 1] += at[e];
    }
    for (int i = 0; i < N * K; i++) {
        const int row = at[(int)s->moe_e[i]]++;
        s->moe_row[i] = (real)row, m->moe_pair[row] = i;
    }
    PARALLEL((double)N * K * C)
    for (int row = 0; row < N * K; row++) {
        const size_t n = (size_t)(m->moe_pair[row] / K), to = (size_t)row * C;
        const Act *x = &s->in_up;
        if (x->q) memcpy(m->moe_x.q + to, x->q + n * C, (size_t)C), m->moe_x.inv[row] = x->inv[n];
        if (x->x) memcpy(m->moe_x.x + to, x->x + n * C, sizeof(real) * (size_t)C);
    }
}
#define FOR_TASKS(t, g) \
    PRAGMA(omp parallel for schedule(dynamic)) \
    for (int t = 0; t < m->moe_tasks; t++) \
        for (const Task *g = (const Task *)m->moe_task + t, *once_ = g; once_; once_ = NULL)

void moe_forward(Golf *m, int p, int N) {
    const Config *c = &m->c;
    const int C = c->width, E = c->experts, K = c->topk, G = HIDDEN;
    const Phase *all = m->phase + p;
    const real *bias = IX(sel_bias);
    const Tensor *sel = m->t + T_sel_mlp;
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Phase s = phase_at(m, p, n0);
        gemm_panels(s.moe_z, E, inputs_of(m, c->norm ? &s.in_sel : &s.in_up, T_wup),
                    &packed_of(m, T_sel_mlp, copy_of(m, sel, p), 0)->forward, n, 0);
        for (int i = 0; i < n; i++) {
            real *z = s.moe_z + i * E;
            for (int e = 0; e < E; e++) z[e] += bias[e];
            choose(m, s.moe_e + i * K, z, E, K);
        }
    }
    moe_plan(m, all, N);
    FOR_TASKS(t, g) {
        const Act x = act_at(&m->moe_x, (size_t)g->from, (size_t)C);
        Act in = act_at(&all->in_down, (size_t)g->from, (size_t)G);
        real *f = all->f + (size_t)g->from * G, *u = scratch((size_t)2 * CHUNK * G);
        linear_forward(m, f, (size_t)G, &x, T_wup, p * E + g->e, 0, g->n);
        relu2_forward(u, f, g->n, G);
        input_of(m, &in, T_wdown, c->extra_norm >= XN_OUT, all->r_xd + g->from, u, IX(x_mlp), g->n,
                 G, u + CHUNK * G);
        linear_forward(m, all->moe_o + (size_t)g->from * C, (size_t)C, &in, T_wdown, p * E + g->e,
                       0, g->n);
    }
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Phase s = phase_at(m, p, n0);
        for (int i = 0; i < n; i++) {
            real *y = memset(s.y + i * C, 0, sizeof(real) * (size_t)C);
            for (int k = 0; k < K; k++) {
                const real w = sigmoid(s.moe_z[i * E + (int)s.moe_e[i * K + k]]);
                const real *o = all->moe_o + (size_t)s.moe_row[i * K + k] * C;
                FOR_COLUMNS(j, C) y[j] += w * o[j];
            }
        }
        gate_forward(s.out, s.mid, s.y, IX(gate_mlp), n, C);
    }
}
/* From d(out) in m->dh: d(y), gradients of gates and of what feeds the experts: m->moe_du. */
void moe_backward(Golf *m, int p, int N) {
    const Config *c = &m->c;
    const int C = c->width, E = c->experts, K = c->topk, G = HIDDEN;
    const Phase *all = m->phase + p;
    const Tensor *sel = m->t + T_sel_mlp;
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Phase s = phase_at(m, p, n0);
        const Flow f = flow_at(m, n0);
        gate_backward(f.dy, DIX(gate_mlp), f.dh, s.y, IX(gate_mlp), n, C);
        memset(f.moe_dz, 0, sizeof(real) * (size_t)n * E);
    }
    moe_plan(m, all, N);
    FOR_TASKS(t, g) {
        const Act x = act_at(&m->moe_x, (size_t)g->from, (size_t)C);
        const Act in = act_at(&all->in_down, (size_t)g->from, (size_t)G);
        const size_t n0 = (size_t)t * CHUNK, at = (size_t)g->from; /* n0: a row of m->partial */
        real *df = m->df + at * G, *dy = m->moe_dy + at * C, *u = scratch((size_t)CHUNK * G);
        for (int i = 0; i < g->n; i++) { /* d(o) = sigmoid(z) dy, dz = dy.o sigmoid'(z) */
            const size_t token = (size_t)(m->moe_pair[at + i] / K), z = token * E + g->e;
            const real w = sigmoid(all->moe_z[z]), *d = m->dy + token * C;
            m->moe_dz[z] = inner(d, all->moe_o + (at + i) * C, C) * w * (1 - w);
            FOR_COLUMNS(j, C) dy[i * C + j] = w * d[j];
        }
        linear_dx(m, df, dy, (size_t)C, &in, T_wdown, p * E + g->e, 0, g->n);
        relu2_forward(u, all->f + at * G, g->n, G);
        if (c->extra_norm)
            rmsnorm_backward(df, 0, DIX(x_mlp), df, u, all->r_xd + at, IX(x_mlp), g->n, G);
        relu2_backward(df, all->f + at * G, g->n, G);
        linear_dx(m, m->moe_dx + at * C, df, (size_t)G, &x, T_wup, p * E + g->e, 0, g->n);
    }
    FOR_CHUNKS(n0, n, N, CHUNK) {
        const Phase s = phase_at(m, p, n0);
        const Flow f = flow_at(m, n0);
        real *dbias = DIX(sel_bias);
        for (int i = 0; i < n; i++) {
            real *dz = f.moe_dz + i * E;
            sel_backward(m, dz, &s, SEL_MLP, p, (size_t)(n0 + i), i);
            for (int e = 0; e < E && dbias; e++) dbias[e] += dz[e];
        }
        gemm_panels(f.moe_du, C, mat(f.moe_dz, E),
                    &packed_of(m, T_sel_mlp, copy_of(m, sel, p), 0)->back, n, 0);
        for (int i = 0; i < n * K; i++) {
            const real *dx = m->moe_dx + (size_t)s.moe_row[i] * C;
            real *du = (c->norm ? f.dh : f.moe_du) + i / K * C; /* the MLP's input is not normed */
            FOR_COLUMNS(j, C) du[j] += dx[j];
        }
    }
}
void moe_dw(Golf *m, const Phase *all, int p, int N) {
    const Config *c = &m->c;
    const int C = c->width, E = c->experts, G = HIDDEN;
    Gemm dw[2 * MOE_MOST + 1];
    int count = 0;
    if (!E) return;
    const Tensor *sel = m->t + T_sel_mlp;
    dw[count++] = (Gemm){m->g + sel->at + copy_of(m, sel, p) * sel->copy_n, (size_t)C,
                         mat_t(m->moe_dz, E),
                         inputs_of(m, c->norm ? &all->in_sel : &all->in_up, T_wup), E, C, N, 1};
    for (int t = 0, e, n; t < m->moe_tasks; t += (n + CHUNK - 1) / CHUNK) { /* all rows of e */
        const Task *g = (const Task *)m->moe_task + t;
        const size_t at = (size_t)g->from;
        for (e = g->e, n = 0; t + n / CHUNK < m->moe_tasks && g[n / CHUNK].e == e;) {
            n += g[n / CHUNK].n;
            if (n % CHUNK) break;
        }
        const Act x = act_at(&m->moe_x, at, (size_t)C), in = act_at(&all->in_down, at, (size_t)G);
        dw[count++] = linear_dw(m, m->moe_dy + at * C, (size_t)C, &in, T_wdown, p * E + e, 0, n);
        dw[count++] = linear_dw(m, m->df + at * G, (size_t)G, &x, T_wup, p * E + e, 0, n);
    }
    matmul_dw(dw, count);
}
/* Sum over blocks and choices, mean over sequences, of c sum_e P_e log P_e; c/10 for the heads', of
 * which the mean is taken. Keeps log P, times its rate, for the backward. */
double moe_entropy(Golf *m, int B, int T) {
    const Config *c = &m->c;
    double total = 0, *part = xcalloc((size_t)(3 * B * BLOCKS), sizeof(double));
    m->moe_len = T;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < 3 * B * BLOCKS; i++) {
        const int which = i % 3, b = i / 3 / BLOCKS, block = i / 3 % BLOCKS, E = sel_size(c, which);
        const int G = sel_groups(c, which);
        double *log_p = sel_log(m, which, b, block);
        for (int g = 0; g < (E ? G : 0); g++, log_p += E) {
            double mean[MOE_MOST] = {0}, x[MOE_MOST];
            int count = 0;
            for (int r = 0; r < m->runs; r++) {
                const real *z = sel_z(m->phase + m->run[r], which) + ((size_t)b * T * G + g) * E;
                if (block_of(c, m->run[r]) != block) continue;
                for (int t = 0; t < T; t++, z += G * E, count++) {
                    double sum = 0;
                    for (int e = 0; e < E; e++) sum += x[e] = exp((double)(z[e] - z[0]));
                    for (int e = 0; e < E; e++) mean[e] += x[e] / sum;
                }
            }
            const double rate = c->moe_entropy / B / (which ? 10.0 * G : 1);
            for (int e = 0; e < E && count; e++) { /* kept as the backward needs it */
                log_p[e] = rate / count * log(fmax(mean[e] / count, 1e-30));
                part[i] += mean[e] * log_p[e];
            }
        }
    }
    for (int i = 0; i < 3 * B * BLOCKS; i++) total += part[i];
    free(part);
    return total;
}

/* ==== 20. SwitchHead (2312.07987), as in MoEUT: experts in attention ========================== */
/* Each head has A value and A output matrices, of which a token uses the K with the largest logits:
 *     v = sum_a sigmoid(zv_a) V_a x      y = sum over heads and a of sigmoid(zo_a) O_a att
 * They are rows of wqkv and columns of wo; all A values are computed, as A is small, and wo sees
 * att times its gates, 0 where not chosen. */
#define FOR_CHOSEN(i, g, k, a, w, n, G, z, chosen) \
    for (int i = 0; i < (n); i++) \
        for (int g = 0; g < (G); g++) \
            for (int k = 0, a; k < K && (a = (int)(chosen)[(i * (G) + g) * K + k], 1); k++) \
                for (real w = sigmoid((z)[(i * (G) + g) * A + a]), once_ = 1; once_ > 0; once_ = 0)
static void switch_choose(const Golf *m, real *z, real *chosen, const Phase *s, int k, int G, int p,
                          int n) {
    const int A = m->c.attn_experts, K = m->c.attn_topk;
    gemm_panels(z, (size_t)(G * A), inputs_of(m, &s->in_q, T_wqkv),
                &packed_of(m, k, copy_of(m, m->t + k, p), 0)->forward, n, 0);
    for (int i = 0; i < n * G; i++) choose(m, chosen + i * K, z + i * A, A, K);
}
void switch_values(const Golf *m, Phase *s, int p, int n) {
    const Config *c = &m->c;
    const int A = c->attn_experts, K = c->attn_topk, H = c->heads, KV = KV_HEADS, D = HEAD_DIM;
    if (!A) return;
    switch_choose(m, s->sw_zv, s->sw_cv, s, T_sel_v, KV, p, n);
    switch_choose(m, s->sw_zo, s->sw_co, s, T_sel_o, H, p, n);
    memset(s->v_mix, 0, sizeof(real) * (size_t)(n * KV * D));
    FOR_CHOSEN(i, g, k, a, w, n, KV, s->sw_zv, s->sw_cv) {
        const real *v = s->qkv + i * QKV_ROWS + QK_ROWS + (a * KV + g) * D;
        for (int d = 0; d < D; d++) s->v_mix[(i * KV + g) * D + d] += w * v[d];
    }
}
void switch_values_backward(const Golf *m, const Phase *s, const Flow *f, int p, int n0, int n) {
    const Config *c = &m->c;
    const int A = c->attn_experts, K = c->attn_topk, KV = KV_HEADS, D = HEAD_DIM, ld = QKV_ROWS;
    if (!A) return;
    memset(f->sw_dzv, 0, sizeof(real) * (size_t)(n * KV * A));
    for (int i = 0; i < n; i++)
        memset(f->dqkv + i * ld + QK_ROWS, 0, sizeof(real) * (size_t)(ld - QK_ROWS));
    FOR_CHOSEN(i, g, k, a, w, n, KV, s->sw_zv, s->sw_cv) {
        const size_t at = (size_t)(i * ld + QK_ROWS + (a * KV + g) * D);
        const real *dv = f->dv_mix + (i * KV + g) * D;
        for (int d = 0; d < D; d++) f->dqkv[at + d] = w * dv[d];
        f->sw_dzv[(i * KV + g) * A + a] += inner(dv, s->qkv + at, D) * w * (1 - w);
    }
    for (int i = 0; i < n; i++)
        sel_backward(m, f->sw_dzv + i * KV * A, s, SEL_V, p, (size_t)(n0 + i), i);
}
/* The input of wo; returns 0 without experts. */
int switch_output(const Golf *m, Phase *s, int p, int n, real *u, real *room) {
    const Config *c = &m->c;
    const int A = c->attn_experts, K = c->attn_topk, C = c->width, H = c->heads, D = HEAD_DIM;
    if (!A) return 0;
    if (c->extra_norm) rmsnorm_forward(u, s->r_xo, s->att, IX(x_attn), n, C);
    else memcpy(u, s->att, sizeof(real) * (size_t)(n * C));
    memset(room, 0, sizeof(real) * (size_t)n * (size_t)(A * C));
    FOR_CHOSEN(i, g, k, a, w, n, H, s->sw_zo, s->sw_co)
        for (int d = 0; d < D; d++) room[(i * A + a) * C + g * D + d] = w * u[i * C + g * D + d];
    input_of(m, &s->in_o, T_wo, 0, NULL, room, NULL, n, A * C, NULL);
    return 1;
}
void switch_output_backward(const Golf *m, const Phase *s, const Flow *f, int p, int n0, int n,
                            real *u) {
    const Config *c = &m->c;
    const int A = c->attn_experts, K = c->attn_topk, C = c->width, H = c->heads, D = HEAD_DIM;
    if (!A) return;
    if (c->extra_norm) rmsnorm_forward(u, s->r_xo, s->att, IX(x_attn), n, C);
    else memcpy(u, s->att, sizeof(real) * (size_t)(n * C));
    memset(f->datt, 0, sizeof(real) * (size_t)(n * C));
    memset(f->sw_dzo, 0, sizeof(real) * (size_t)(n * H * A));
    FOR_CHOSEN(i, g, k, a, w, n, H, s->sw_zo, s->sw_co) {
        const real *dx = f->dax + (i * A + a) * C + g * D;
        for (int d = 0; d < D; d++) f->datt[i * C + g * D + d] += w * dx[d];
        f->sw_dzo[(i * H + g) * A + a] += inner(dx, u + i * C + g * D, D) * w * (1 - w);
    }
    for (int i = 0; i < n; i++)
        sel_backward(m, f->sw_dzo + i * H * A, s, SEL_O, p, (size_t)(n0 + i), i);
}
/* di += what reaches the inputs of q through the choices. */
void switch_inputs(const Golf *m, real *di, const Flow *f, int p, int n) {
    const Config *c = &m->c;
    const int A = c->attn_experts, C = c->width;
    for (int which = 0; which < (A ? 2 : 0); which++) {
        const Tensor *t = m->t + (which ? T_sel_o : T_sel_v);
        gemm_panels(di, (size_t)C, mat(which ? f->sw_dzo : f->sw_dzv, (size_t)t->rows),
                    &packed_of(m, (int)(t - m->t), copy_of(m, t, p), 0)->back, n, 1);
    }
}
void switch_dw(const Golf *m, const Phase *all, int p, int N) {
    const Config *c = &m->c;
    for (int which = 0; which < (c->attn_experts ? 2 : 0); which++) {
        const Tensor *t = m->t + (which ? T_sel_o : T_sel_v);
        gemm(m->g + t->at + copy_of(m, t, p) * t->copy_n, (size_t)c->width,
             mat_t(which ? m->sw_dzo : m->sw_dzv, (size_t)t->rows),
             inputs_of(m, &all->in_q, T_wqkv), t->rows, c->width, N, 1);
    }
}

/* ==== 21. Parameter Golf's baseline: skips, as in a U-Net ===================================== */
/* The first half of the phases hand their outputs to the second, last in, first out:
 * prev += skip[p] * out[P/2 - 1 - i] before phase p = P/2 + i. */
static int unet_from(const Golf *m, int p) { /* or -1 */
    const int half = m->phases / 2, i = p - half;
    return m->c.unet && i >= 0 && i < half ? half - 1 - i : -1;
}
const real *unet_join(const Golf *m, Phase *s, int p, int n0, int n) {
    const int C = m->c.width, from = unet_from(m, p);
    const size_t at = (size_t)n0 * C;
    if (!m->c.unet) return m->prev[p] + at;
    if (from < 0) return memcpy(s->joined, m->prev[p] + at, sizeof(real) * (size_t)(n * C));
    gate_forward(s->joined, m->prev[p] + at, m->phase[from].out + at, IX(skip), n, C);
    return s->joined;
}
void unet_backward(const Golf *m, const Flow *f, int p, int n0, int n) { /* f->dh = d(joined) */
    const int C = m->c.width, from = unet_from(m, p);
    const size_t at = (size_t)n0 * C;
    if (from >= 0) gate_backward(m->dout[from] + at, DIX(skip), f->dh, m->phase[from].out + at,
                                 IX(skip), n, C);
}
void unet_add(Golf *m, int p, int N) { /* d(out) has come along the stream and along a skip */
    if (m->c.unet && p < m->phases / 2)
        gate_forward(m->dh, m->dh, m->dout[p], m->ones, N, m->c.width);
}

/* ==== 22. Depth that changes ================================================================== */
/* The applications of a forward pass: r of each block in the loop; more than --repeat of them use
 * the last one's interface again. */
void golf_depth(Golf *m, int r) {
    const Config *c = &m->c;
    const int loop = c->unique * r, cycle = c->order == ORDER_CYCLE;
    m->runs = 0;
    for (int i = 0; i < c->prelude + loop + c->coda; i++) {
        const int q = i - c->prelude, turn = MIN(cycle ? q / c->unique : q % r, c->repeat - 1);
        const int at = cycle ? turn * c->unique + q % c->unique : q / r * c->repeat + turn;
        m->run[m->runs++] = q < 0 ? i : q < loop ? c->prelude + at : i - loop + LOOP_PHASES;
    }
}
/* --repeat_ramp=1@0,2@0.3,4@0.5: applications from these fractions of the run on. Those that are
 * still to come start with closed gates and mix (1,0): each then begins as the identity. */
static int ramp_entry(const char *p, int *r, double *from) { /* its length, or 0 */
    int n = 0;
    if (sscanf(p, "%d@%lf%n", r, from, &n) != 2 || (p[n] && p[n] != ',')) return 0;
    return n + (p[n] == ',');
}
static int ramp_at(const Config *c, int step) {
    int r = c->repeat, next, n;
    double from;
    for (const char *p = c->repeat_ramp; *p && (n = ramp_entry(p, &next, &from)); p += n)
        if (from * c->steps <= step) r = next;
    return r;
}
/* --repeat_random=1: at each step a number of applications from 1 to that. */
int depth_at(const Config *c, int step) {
    const int r = ramp_at(c, step);
    return c->repeat_random ? 1 + (int)(hash64((uint64_t)c->seed + 99, (uint64_t)step) % r) : r;
}
void ramp_check(const Config *c) {
    int r = 1, last = 0, n;
    double from = 0, before = -1;
    for (const char *p = c->repeat_ramp; *p; p += n, last = r, before = from)
        if (!(n = ramp_entry(p, &r, &from)) || r <= last || r > c->repeat || !(from > before) ||
            from >= 1 || (before < 0 && from != 0))
            die("--repeat_ramp=%s: expected N@0,N@FRACTION,... with rising numbers up to "
                "--repeat=%d, found '%.20s'", c->repeat_ramp, c->repeat, p);
    if (last && last != c->repeat)
        die("--repeat_ramp=%s: expected to end at --repeat=%d", c->repeat_ramp, c->repeat);
}
void ramp_init(Golf *m) {
    const Config *c = &m->c;
    char used[64 * 64 + 128] = "";
    if (!*c->repeat_ramp) return;
    golf_depth(m, ramp_at(c, 0));
    for (int i = 0; i < m->runs; i++) used[m->run[i]] = 1;
    golf_depth(m, c->repeat);
    for (int p = 0; p < m->phases; p++)
        for (int k = 0; k < 2 && !used[p]; k++) {
            const Tensor *t = m->t + (k ? T_gate_mlp : T_gate_attn);
            memset(m->w + t->at + p * t->copy_n, 0, t->copy_n * sizeof(real));
        }
}

/* ==== 23. Instruments ========================================================================= */
/* Of the applications of the last step: RMS of the stream behind each and of its gradient, cosine
 * of what an application added with what the next one added; 0 for those that did not run. */
void watch(const Golf *m, Run *run) {
    const size_t n = m->N * (size_t)m->c.width;
    double *rms = run->rms, *grad = rms + m->phases, *cosine = grad + m->phases;
    memset(rms, 0, sizeof(double) * 3 * (size_t)m->phases);
    for (int i = 0; i < m->runs; i++) {
        const int p = m->run[i], q = i + 1 < m->runs ? m->run[i + 1] : -1;
        double ab = 0, aa = 0, bb = 0;
        rms[p] = sqrt(block_sum(m->phase[p].out, n, 1) / (double)n), grad[p] = m->grad_rms[p];
        for (size_t k = 0; k < n && q >= 0; k++) {
            const double a = (double)(m->phase[p].out[k] - m->prev[p][k]);
            const double b = (double)(m->phase[q].out[k] - m->prev[q][k]);
            ab += a * b, aa += a * a, bb += b * b;
        }
        if (aa > 0 && bb > 0) cosine[p] = ab / sqrt(aa * bb);
    }
}
Diagnosis diagnose(const Golf *m) {
    const Config *c = &m->c;
    Diagnosis d = {0};
    double zeros = 0, masked = 0, scales = 0, drift = 0, hi = 0, all = 0;
    for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++) {
        if (t->role != PROJ || t->bits == 16 || t->vector) continue;
        d.codes += (double)t->n;
        for (size_t i = t->at; i < t->at + t->n; i++) {
            zeros += !m->code[i] && !t->half;
            masked += t->ste && !m->mask[i];
        }
        for (size_t i = t->at_scale; i < t->at_scale + t->copy_scales * t->stored_copies; i++)
            if (m->scale[i] > 0 && m->first_scale[i] > 0)
                drift += fabs(log2((double)(m->scale[i] / m->first_scale[i]))), scales++;
    }
    for (int p = 0; c->ffn_hi && !c->recompute && p < m->phases; p++) /* of the last batch */
        for (size_t i = 0; i < m->N * c->width; i++) {
            const Phase *s = m->phase + p;
            const double beta = (double)*IX(beta), y = (double)s->y[i];
            const double high = y - beta * (double)s->hi_main[i];
            hi += high * high, all += high * high + (y - high) * (y - high);
        }
    d.zero = zeros / fmax(d.codes, 1), d.masked = masked / fmax(d.codes, 1);
    d.drift = drift / fmax(scales, 1), d.hi_share = hi / fmax(all, 1e-30);
    return d;
}
/* 6 x (projection weights at every application + the head) + causal attention scores and values. */
double flops_per_token(const Config *c) {
    Golf m;
    double weights = (double)c->vocab * c->width;
    golf_layout(&m, c);
    for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++)
        if (MATRIX(t) && t->n && strncmp(t->name, "fips", 4)) /* copies that a token meets */
            weights += (double)PHASES * t->rows * t->cols *
                       (t->experts ? c->topk : t->per == PER_EXPERT ? c->hi_experts : 1);
    return 6 * weights + 6.0 * c->seq * c->width * PHASES;
}
int plot(const Config *c, int run) { /* --plot=1, before and after; the exit status of the run */
    if (!c->plot) return 0;
    if (!run && system("command -v gnuplot > /dev/null"))
        die("--plot=1 needs gnuplot (Debian: gnuplot-nox)");
    setenv("RUN", c->out, 1);
    if (run && system("dev/plot.sh \"$RUN\""))
        die("--plot=1: the run is complete, but no curves.svg was made; once what is said above is "
            "mended: dev/plot.sh %s", c->out);
    return 0;
}

#ifndef GOLF_NO_MAIN
int main(int argc, char **argv) {
    const int help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    const int named = argc > 1 && strncmp(argv[1], "--", 2);
    const char *command = help ? "help" : named ? argv[1] : "train";
    const char *file = argc > 2 && strncmp(argv[2], "--", 2) ? argv[2] : NULL;
    if (!strcmp(command, "train")) return train_main(argc - 1 - named, argv + 1 + named);
    if (!strcmp(command, "help")) return help_main();
    if (!strcmp(command, "bench")) return bench_main(file, argc - 2 - !!file, argv + 2 + !!file);
    int (*run)(const char *, int, char **) = !strcmp(command, "eval") ? eval_main
        : !strcmp(command, "sample") ? sample_main : !strcmp(command, "info") ? info_main : NULL;
    if (!run)
        die("unknown command '%s'; expected train, eval, sample, info, bench or help", command);
    if (!file) die("usage: ./train_golf %s MODEL.golf [--key=value ...]", command);
    return run(file, argc - 3, argv + 3);
}
#endif
