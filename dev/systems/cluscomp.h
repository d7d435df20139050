/* cluscomp.h - ClusComp (2503.13089): weights are entries of codebooks.
 *
 * Vectors of G weights, one below the other in a column of W, are entries of a codebook
 * of N vectors of bf16 numbers: W[i G + e][k] = book[index[i][k]][e]. k-means finds the
 * codebook and the indices on the weights of a trained model (what it multiplies with:
 * of a ternary one, the ternary weights); from then on the indices are fixed, and the
 * codebook is trained. Where the weights have no more different vectors than entries,
 * these are the codebook. --cluster=G,N,each: a codebook for every matrix; G,N,shared:
 * one for every block.
 *
 * Masters of one entry are kept equal: their gradients are averaged, and so are they,
 * once per step. An entry's gradient is the sum over its vectors; the average differs
 * from it by a factor that the size of AdamW's steps does not depend on.
 *
 * --cluster_steps=S, block-wise reconstruction: before training, block after block, its
 * codebooks are trained for S steps to minimise the error of its phases against the
 * donor's (shared/calibration.h). Their input is what the model has there, with the
 * errors of the blocks before, which are trained already; all else stays as it is. AdamW
 * at the constant rate --cluster_fit_lr, decay 0.1. The official code (calibrate/main.py;
 * the paper itself could be read in its abstract alone) has the rate 0.005 and 20 rounds
 * over 128 rows of 2,048 tokens, one at a time: with --batch=1 that is
 * --cluster_rows=128 --cluster_steps=2560. Where phases share a block, the sum of their
 * errors is minimised, and the input of its later phases is what the model had there
 * before the block was trained; the paper's blocks are not shared.
 *
 * Then all of the model is trained on its text. --cluster_lr: the peak rate of codebooks,
 * which AdamW then trains, whatever --optimizer says; 0: they are trained as the
 * projections would be, by default with Muon, whose steps are averaged, too. For this part
 * no rate of the paper's is known: 0.005 is that of the blocks.
 *
 * Weights only, as in the paper: --aq=none keeps inputs in floating point and
 * --embed_bits=16 the embedding in bf16, which the gains are in any case. The donor
 * should be trained so.
 *
 * Stored, packed: the codebook (N G numbers in bf16), with the first matrix that uses it;
 * then of each matrix the indices of ceil(log2 N) bits, lowest bit first, without gaps,
 * vector after vector: the K columns of the first G rows, then of the next. Coded: the
 * same through the range coder, an index as a path down one tree of bits. In memory an
 * index is in the first two codes of its vector.
 *
 * Cost: log2(N)/G bits per weight and 16 N G bits per codebook; the FLOPs of the model.
 * Products are in floating point. k-means takes 20 rounds of N G multiply-adds per
 * vector, at the start.
 *
 * Differs from the paper: all of the model is trained on its text after the blocks, of
 * which the paper trains codebooks alone, to recover; by default blocks are not
 * reconstructed, and inputs and embeddings are quantized, too; N is small, as our
 * matrices are (theirs: 65,500). G must divide the rows, where they pad with zeros. Left
 * out: the second term of the official code's loss, off by default there: the error
 * against the donor's block on the model's own input. --wq and --wscale mean nothing for
 * a matrix that has a codebook. */
#ifdef OPTIONS
X(MODEL, STR, cluster, "", "",
  "G,N,shared|each: N vectors of G weights, per block | matrix")
X(TRAIN, NUM, cluster_lr, "0", "0 to 10",
  "peak rate of codebooks, by AdamW; 0: as others")
X(TRAIN, INT, cluster_steps, "0", "0 to 1000000",
  "> 0: steps that fit a block to the donor's")
X(TRAIN, INT, cluster_rows, "128", "1 to 1000000", "training rows for these")
X(TRAIN, NUM, cluster_fit_lr, "0.005", "0 to 10", "their rate")

#elif defined LIST
X(cluscomp)

#elif defined CODE
#include "shared/calibration.h"

/* ---- The option. */
typedef struct {
    int size, entries, shared; /* G, N */
} ClusterOption;

/* Returns 0 when --cluster says something else. */
static int cluscomp_option(const Config *c, ClusterOption *to) {
    char how[16] = "";
    int end = 0;
    const int count =
        sscanf(c->cluster, "%d,%d,%15s%n", &to->size, &to->entries, how, &end);
    if (count < 3 || c->cluster[end]) return 0;
    if (to->size < 2 || to->size > 16 || to->entries < 2 || to->entries > 65536) return 0;
    to->shared = !strcmp(how, "shared");
    return to->shared || !strcmp(how, "each");
}

static int cluscomp_on(const Config *c) { return *c->cluster != 0; }

static int cluscomp_takes(const Config *c) {
    (void)c;
    return RES_COPIES;
}

static int cluscomp_uses(const Config *c) {
    (void)c;
    return RES_PIECES;
}

static void cluscomp_check(const Config *c) {
    ClusterOption o;
    int good = cluscomp_option(c, &o);
    if (good && c->width)
        good = !(qkv_rows(c) % o.size || c->width % o.size || hidden_width(c) % o.size);
    if (!good)
        die("--cluster=%s: expected G,N,shared or G,N,each, G from 2 to 16 a divisor of "
            "--width and the hidden width, N from 2 to 65536",
            c->cluster);
    option_needs(c, "cluster_fit_lr", c->cluster_steps > 0, "cluster_steps");
    calibration_check(c, c->cluster_steps, c->cluster_rows, "cluster");
}

/* ---- Codebooks. The scales of a copy are the codebook's numbers, (N,G). */
enum { BOOK_SIZE, BOOK_ENTRIES }; /* G and N in t->extra */

/* A vector: where its first weight stands, and how far behind it the next one: a row. */
typedef struct {
    size_t at, step;
} BookVector;

static size_t book_vectors(const Tensor *t) {
    return t->copy_n / (size_t)t->extra[BOOK_SIZE];
}

static BookVector book_vector(const Tensor *t, size_t v) { /* of a copy */
    const size_t K = (size_t)t->cols, G = (size_t)t->extra[BOOK_SIZE];
    return (BookVector){.at = v / K * G * K + v % K, .step = K};
}

static int book_index(const int8_t *code, BookVector v) {
    return (uint8_t)code[v.at] | (uint8_t)code[v.at + v.step] << 8;
}

static void set_book_index(int8_t *code, BookVector v, int index) {
    code[v.at] = (int8_t)index;
    code[v.at + v.step] = (int8_t)(index >> 8);
}

static size_t book_scales(const Tensor *t) {
    return t->shares ? 0 : (size_t)t->extra[BOOK_ENTRIES] * (size_t)t->extra[BOOK_SIZE];
}

static size_t book_bytes(const Tensor *t) {
    return 2 * book_scales(t) + CEIL(book_vectors(t) * (size_t)t->bits, 8);
}

/* Indices stay; an entry becomes what the masters of its vectors are, which are equal. */
static void book_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                          const Tensor *t) {
    const size_t G = (size_t)t->extra[BOOK_SIZE];
    for (size_t i = 0; i < book_vectors(t); i++) {
        const BookVector v = book_vector(t, i);
        real *entry = scale + (size_t)book_index(code, v) * G;
        for (size_t e = 0; e < G; e++)
            entry[e] = from_bf16(to_bf16(w[v.at + e * v.step]));
    }
    if (mask) memset(mask, 1, t->copy_n); /* nothing is rounded but to bf16 */
}

static void book_dequantize(real *eff, const int8_t *code, const real *scale,
                            const Tensor *t) {
    const size_t G = (size_t)t->extra[BOOK_SIZE];
    for (size_t i = 0; i < book_vectors(t); i++) {
        const BookVector v = book_vector(t, i);
        const real *entry = scale + (size_t)book_index(code, v) * G;
        for (size_t e = 0; e < G; e++) eff[v.at + e * v.step] = entry[e];
    }
}

static void book_pack(uint8_t *out, const int8_t *code, const real *scale,
                      const Tensor *t) {
    const size_t bits = (size_t)t->bits, S = book_scales(t);
    for (size_t s = 0; s < S; s++) put_u(out + 2 * s, to_bf16(scale[s]), 2);
    out += 2 * S;
    memset(out, 0, book_bytes(t) - 2 * S);
    for (size_t i = 0; i < book_vectors(t) * bits; i++) {
        const int index = book_index(code, book_vector(t, i / bits));
        out[i / 8] |= (uint8_t)((index >> i % bits & 1) << i % 8);
    }
}

static int book_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    const size_t bits = (size_t)t->bits, S = book_scales(t);
    for (size_t s = 0; s < S; s++) {
        scale[s] = from_bf16((uint16_t)get_u(in + 2 * s, 2));
        if (!isfinite(scale[s])) return 0;
    }
    in += 2 * S;
    for (size_t v = 0; v < book_vectors(t); v++) {
        int index = 0;
        for (size_t b = 0; b < bits; b++) {
            const size_t at = v * bits + b;
            index |= (in[at / 8] >> at % 8 & 1) << b;
        }
        if (index >= t->extra[BOOK_ENTRIES]) return 0;
        set_book_index(code, book_vector(t, v), index);
    }
    return 1;
}

/* Indices of vectors [from,to) of a copy. Returns 0 when what was read cannot be. */
static int book_coded_indices(Coder *r, const Tensor *t, int8_t *code, size_t from,
                              size_t to) {
    const int first = 1 << t->bits; /* leaf of index 0 */
    Node *tree = xcalloc((size_t)first, sizeof(Node));
    int good = 1;
    for (size_t i = from; i < to; i++) {
        if (r->full) break;
        const BookVector v = book_vector(t, i);
        const int index = coded_bits(r, tree, 1, t->bits, book_index(code, v)) - first;
        good &= index < t->extra[BOOK_ENTRIES];
        set_book_index(code, v, index);
    }
    free(tree);
    return good;
}

static int book_coded(struct Coder *r, const Tensor *t, int8_t *code, real *scale,
                      size_t part, size_t parts) {
    const size_t S = t->copy_scales, V = book_vectors(t);
    int good = coded_numbers(r, scale, S * part / parts, S * (part + 1) / parts, 0);
    good &= book_coded_indices(r, t, code, V * part / parts, V * (part + 1) / parts);
    return good;
}

static const Quantizer book_quantizer = {.name = "codebook",
                                         .domain = -1,
                                         .scales = book_scales,
                                         .bytes = book_bytes,
                                         .quantize = book_quantize,
                                         .dequantize = book_dequantize,
                                         .backward = ste_backward,
                                         .pack = book_pack,
                                         .unpack = book_unpack,
                                         .coded = book_coded};

/* For t->shares: the number + 1 of the first tensor that has codebooks, 0 if it is t. */
static int first_book(const Golf *m, const Tensor *t) {
    for (int k = 0; k < N_TENSORS; k++) {
        if (m->tensor[k].quant != &book_quantizer) continue;
        return strcmp(m->tensor[k].name, t->name) ? k + 1 : 0;
    }
    return 0;
}

static int cluscomp_store(const Golf *m, Tensor *t) {
    ClusterOption o;
    if (t->role != PROJ || !t->n) return 0;
    if (t->ledger != LEDGER_CORE) return 0; /* what is protected has no codebook */
    if (!cluscomp_option(&m->config, &o)) return 0;
    int bits = 1;
    while (1 << bits < o.entries) bits++;
    store_as(t, &book_quantizer, bits, SCALE_ROW);
    t->extra[BOOK_SIZE] = o.size;
    t->extra[BOOK_ENTRIES] = o.entries;
    t->shares = o.shared ? first_book(m, t) : 0;
    t->own_rate = m->config.cluster_lr;
    return 1;
}

/* ---- All vectors of one codebook, that of copy `copy` of its owner, in the arenas. */
typedef struct {
    BookVector *vector;
    size_t count;
} BookList;

static int has_books(const Tensor *t) { return t->n && t->quant == &book_quantizer; }

static int owns_books(const Tensor *t) {
    return has_books(t) && !t->shares;
}

static BookList book_list(const Golf *m, const Tensor *owner, int copy) {
    const int number = (int)(owner - m->tensor) + 1;
    BookList list = {0};

    EACH_TENSOR(t, m) {
        if (t == owner || t->shares == number) list.count += book_vectors(t);
    }
    list.vector = xcalloc(list.count, sizeof(BookVector));
    BookVector *to = list.vector;
    EACH_TENSOR(t, m) {
        if (t != owner && t->shares != number) continue;
        for (size_t i = 0; i < book_vectors(t); i++) {
            *to = book_vector(t, i);
            to->at += t->at + (size_t)copy * t->copy_n;
            to++;
        }
    }
    return list;
}

/* x of all vectors := the mean over the vectors of their entry. */
static void average_entries(const Golf *m, real *x, const Tensor *owner, int copy) {
    const size_t G = (size_t)owner->extra[BOOK_SIZE];
    const size_t N = (size_t)owner->extra[BOOK_ENTRIES];
    const BookList list = book_list(m, owner, copy);
    double *sum = xcalloc(N * (G + 1), sizeof(double)), *members = sum + N * G;

    for (size_t i = 0; i < list.count; i++) {
        const BookVector v = list.vector[i];
        const size_t k = (size_t)book_index(m->code, v);
        for (size_t e = 0; e < G; e++) sum[k * G + e] += (double)x[v.at + e * v.step];
        members[k]++;
    }
    for (size_t i = 0; i < list.count; i++) {
        const BookVector v = list.vector[i];
        const size_t k = (size_t)book_index(m->code, v);
        for (size_t e = 0; e < G; e++)
            x[v.at + e * v.step] = (real)(sum[k * G + e] / members[k]);
    }
    free(sum);
    free(list.vector);
}

/* Masters, or their gradients. The mean is linear, and its own adjoint. */
static void cluscomp_average(Golf *m, real *x) {
    EACH_TENSOR(t, m) {
        if (!owns_books(t)) continue;
        for (int j = 0; j < t->stored_copies; j++) average_entries(m, x, t, j);
    }
}

/* ---- k-means, from vectors drawn at random. An entry that no vector chooses stays. */
typedef struct {
    int size, entries; /* G, N */
    size_t count;
    real *x, *book, *square; /* (count,G), (N,G), (N): |entry|^2/2 */
    int *chosen;             /* (count) */
} KMeans;

/* The entry with the least |x - entry|^2, which has the most x.entry - |entry|^2/2. */
static int nearest_entry(const KMeans *k, const real *x) {
    real most = -(real)INFINITY;
    int best = 0;
    for (int i = 0; i < k->entries; i++) {
        const real *entry = k->book + (size_t)i * (size_t)k->size;
        real score = -k->square[i];
        for (int e = 0; e < k->size; e++) score += x[e] * entry[e];
        if (score > most) {
            most = score;
            best = i;
        }
    }
    return best;
}

static void choose_entries(KMeans *k) {
    for (int i = 0; i < k->entries; i++) {
        const real *entry = k->book + (size_t)i * (size_t)k->size;
        k->square[i] = inner(entry, entry, k->size) / 2;
    }
#pragma omp parallel for
    for (size_t v = 0; v < k->count; v++)
        k->chosen[v] = nearest_entry(k, k->x + v * (size_t)k->size);
}

/* Each entry := the mean of the vectors that chose it. */
static void move_entries(KMeans *k) {
    const size_t G = (size_t)k->size, N = (size_t)k->entries;
    double *sum = xcalloc(N * G, sizeof(double));
    int *members = xcalloc(N, sizeof(int));

    for (size_t v = 0; v < k->count; v++) {
        const size_t entry = (size_t)k->chosen[v];
        members[entry]++;
        for (size_t e = 0; e < G; e++) sum[entry * G + e] += (double)k->x[v * G + e];
    }
    for (size_t i = 0; i < N * G; i++) {
        if (members[i / G]) k->book[i] = (real)(sum[i] / members[i / G]);
    }
    free(sum);
    free(members);
}

/* Which of the first `count` entries is x, or -1. */
static int entry_of(const KMeans *k, const real *x, int count) {
    for (int i = 0; i < count; i++) {
        const real *entry = k->book + (size_t)i * (size_t)k->size;
        int e = 0;
        while (e < k->size && entry[e] == x[e]) e++;
        if (e == k->size) return i;
    }
    return -1;
}

/* Does the codebook hold all vectors, as those of a donor with few different weights?
 * Then it does; k-means, which draws some of them twice, would lose others. */
static int holds_all(KMeans *k) {
    int found = 0;
    for (size_t v = 0; v < k->count; v++) {
        const real *x = k->x + v * (size_t)k->size;
        int entry = entry_of(k, x, found);
        if (entry < 0 && found == k->entries) return 0;
        if (entry < 0) {
            entry = found++;
            memcpy(k->book + (size_t)entry * (size_t)k->size, x,
                   sizeof(real) * (size_t)k->size);
        }
        k->chosen[v] = entry;
    }
    return 1;
}

/* k-means over the vectors, from some of them. */
static void find_entries(KMeans *k, uint64_t key) {
    const size_t G = (size_t)k->size;
    for (size_t i = 0; i < (size_t)k->entries; i++)
        memcpy(k->book + i * G, k->x + hash64(key, i) % k->count * G, sizeof(real) * G);
    for (int round = 0; round < 20; round++) {
        choose_entries(k);
        move_entries(k);
    }
}

/* The indices of one codebook. */
static void fit_indices(Golf *m, const Tensor *owner, int copy) {
    const BookList list = book_list(m, owner, copy);
    const size_t G = (size_t)owner->extra[BOOK_SIZE];
    const size_t N = (size_t)owner->extra[BOOK_ENTRIES];
    const uint64_t key = (uint64_t)m->config.seed + 77;
    KMeans k = {.size = (int)G, .entries = (int)N, .count = list.count};
    k.x = xcalloc(list.count * G, sizeof(real));
    k.book = xcalloc(N * G, sizeof(real));
    k.square = xcalloc(N, sizeof(real));
    k.chosen = xcalloc(list.count, sizeof(int));

    for (size_t i = 0; i < list.count; i++) {
        const BookVector v = list.vector[i];
        for (size_t e = 0; e < G; e++) k.x[i * G + e] = m->master[v.at + e * v.step];
    }
    if (!holds_all(&k)) find_entries(&k, key);
    for (size_t i = 0; i < list.count; i++)
        set_book_index(m->code, list.vector[i], k.chosen[i]);

    free(k.x);
    free(k.book);
    free(k.square);
    free(k.chosen);
    free(list.vector);
}

/* ---- Block-wise reconstruction. */
/* Trains the codebooks of a block, whose input stands in k, for some steps. */
static void fit_block(Golf *m, const Calibration *k, int block) {
    const Config *c = &m->config;
    for (int step = 0; step < c->cluster_steps; step++) {
        calibration_gradient(m, k, block, step % k->batches);
        calibration_adamw(m, has_books, block, step, c->cluster_fit_lr, 0.1);
        golf_quantize(m);
    }
}

static void fit_blocks(Golf *m, const Golf *from) {
    const Config *c = &m->config;
    Calibration k;

    golf_quantize(m);
    calibration_open(&k, m, from, c->cluster_rows, 0, "cluster_steps");
    for (int block = 0; block < block_count(c); block++) {
        calibration_streams(&k, m, k.in, NULL, group_rows(c), c->seq);
        const double before = calibration_error(m, &k, block);
        fit_block(m, &k, block);
        printf("--cluster_steps=%d: the squared error a token of block %d is %.4g, and with "
               "k-means alone %.4g\n",
               c->cluster_steps, block, calibration_error(m, &k, block), before);
    }
    calibration_close(&k, m);
}

/* Of random masters, for tests; of a trained model's, which were copied before: what it
 * computes with, as it has no such codebooks; of its own checkpoint's, if it is a donor.
 * The next quantization averages the masters. */
static void cluscomp_start(Golf *m, const Golf *from, int convert) {
    const Config *c = &m->config;
    (void)convert;
    EACH_TENSOR(t, m) {
        if (!owns_books(t)) continue;
        for (int j = 0; j < t->stored_copies; j++) fit_indices(m, t, j);
    }
    if (from && c->cluster_steps && !calibration_is_over(c)) fit_blocks(m, from);
}

/* Checkpoints have no indices: k-means finds them again. To average the masters of a
 * checkpoint of these codebooks, which are equal, changes nothing. */
static void cluscomp_loaded(Golf *m, const char *path) {
    const size_t bytes = m->n_params * sizeof(real);
    real *was = memcpy(xcalloc(m->n_params, sizeof(real)), m->master, bytes);
    cluscomp_average(m, m->master);
    if (memcmp(was, m->master, bytes))
        die("%s: its codebooks are not those of the weights that --cluster starts from "
            "now: these have changed; start again",
            path);
    free(was);
}

static const System cluscomp_system = {.name = "cluscomp",
                                       .needs = "cluster",
                                       .on = cluscomp_on,
                                       .takes = cluscomp_takes,
                                       .uses = cluscomp_uses,
                                       .wants = RES_DONOR,
                                       .check = cluscomp_check,
                                       .store = cluscomp_store,
                                       .start = cluscomp_start,
                                       .loaded = cluscomp_loaded,
                                       .masters = cluscomp_average};

#elif defined TESTS
#include "shared/calibration_check.h"

/* Two models: with codebooks, and the same in floating point. */
static void new_clustered(Golf *m, Golf *fp, const char *text, const char *unique) {
    static const char *const small = "vocab=50 width=32 heads=2 hidden=128 act=swiglu seq=16 repeat=1";
    char options_text[300];
    snprintf(options_text, sizeof options_text, "%s %s cluster=%s", small, unique, text);
    new_model(m, options_text, 0);
    snprintf(options_text, sizeof options_text, "%s %s wq=none", small, unique);
    new_model(fp, options_text, 0);
}

/* Fewer misses than at the start, one value per entry, bits per index. */
static void test_codebooks(void) {
    static const struct {
        const char *text, *unique;
        int bits, numbers, shared;
        double miss; /* at most; Gaussian numbers leave about 0.37 and 0.1 */
    } arms[] = {{"4,50,each", "", 6, 200, 0, 0.5},
                {"2,20,shared", "unique=2", 5, 40, 1, 0.16}};
    for (size_t a = 0; a < COUNT(arms); a++) {
        Golf m, fp;
        double miss = 0, power = 0;
        new_clustered(&m, &fp, arms[a].text, arms[a].unique);
        for (int k = T_wqkv; k <= T_wdown; k++) {
            const Tensor *t = m.tensor + k;
            const real *w = fp.master + fp.tensor[k].at, *eff = m.eff + t->at;
            for (size_t i = 0; i < t->n; i++) {
                const double d = (double)(eff[i] - w[i]);
                miss += d * d;
                power += (double)w[i] * (double)w[i];
            }
            const int own = k == T_wqkv || !arms[a].shared;
            CHECK(t->copy_scales == (size_t)(own ? arms[a].numbers : 0), "%s: codebook",
                  t->name);
            CHECK(t->copy_bytes == 2 * t->copy_scales +
                                       (book_vectors(t) * (size_t)arms[a].bits + 7) / 8,
                  "%s: %zu bytes", t->name, t->copy_bytes);
        }
        CHECK(miss / power < arms[a].miss, "%s: misses %.3f of the power", arms[a].text,
              miss / power);
        golf_free(&m);
        golf_free(&fp);
    }
}

/* Weights are their vectors' entries, in every matrix of a shared codebook; and nearly
 * every vector has the nearest one: k-means is cut off after 20 rounds. */
static void test_entries(void) {
    Golf m, fp;
    int equal = 1, nearest = 0, count = 0;
    new_clustered(&m, &fp, "2,20,shared", "unique=2");
    const real *book = scale_of(&m, m.tensor + T_wup, 1);
    CHECK(book == scale_of(&m, m.tensor + T_wqkv, 1) &&
              book != scale_of(&m, m.tensor + T_wup, 0),
          "wup has another codebook than wqkv, or that of another block");
    for (int k = T_wqkv; k <= T_wdown; k++) {
        const Tensor *t = m.tensor + k;
        const size_t at = t->at + t->copy_n; /* of copy 1 */
        for (size_t i = 0; i < book_vectors(t); i++) {
            const BookVector v = book_vector(t, i);
            const real *w = fp.master + fp.tensor[k].at + t->copy_n + v.at;
            const int index = book_index(m.code + at, v);
            double far[20];
            int best = 0;
            for (int e = 0; e < 20; e++) {
                const double a = (double)(w[0] - book[2 * e]);
                const double b = (double)(w[v.step] - book[2 * e + 1]);
                far[e] = a * a + b * b;
                if (far[e] < far[best]) best = e;
            }
            nearest += best == index;
            count++;
            equal &= m.eff[at + v.at] == book[2 * index] &&
                     m.eff[at + v.at + v.step] == book[2 * index + 1];
        }
    }
    CHECK(equal, "a vector is not its entry");
    CHECK(nearest > 0.95 * count, "%d of %d vectors have the nearest entry", nearest,
          count);
    golf_free(&m);
    golf_free(&fp);
}

/* Weights with few different vectors, as those of a donor on a coarse grid, are kept. */
static void test_few_vectors(void) {
    static const char *const arms[] = {"4,81,each", "4,200,each", "2,9,shared"};
    for (size_t a = 0; a < COUNT(arms); a++) {
        Golf m, fp;
        new_clustered(&m, &fp, arms[a], "unique=2");
        for (int k = T_wqkv; k <= T_wdown; k++) {
            const Tensor *t = m.tensor + k;
            for (size_t i = t->at; i < t->at + t->n; i++)
                m.master[i] = (real)((double)(hash64(5, i) % 3) / 4 - 0.25);
        }
        real *was = memcpy(reals(m.n_params, 0), m.master, m.n_params * sizeof(real));
        cluscomp_start(&m, NULL, 0);
        golf_quantize(&m);
        const size_t from = m.tensor[T_wqkv].at;
        const size_t n = m.tensor[T_wdown].at + m.tensor[T_wdown].n - from;
        CHECK(!memcmp(m.eff + from, was + from, n * sizeof(real)), "%s: other weights",
              arms[a]);
        free(was);
        golf_free(&m);
        golf_free(&fp);
    }
}

static void load_other_codebooks(void) {
    Golf m;
    new_model(&m, "vocab=20 width=16 heads=2 seq=8 cluster=2,9,each", 0);
    ckpt_save(&m, IN("clustered.bin"), 1);
    if (ckpt_load(&m, IN("clustered.bin")) != 1) die("its own checkpoint");
    for (size_t i = 0; i < m.n_params; i++) m.master[i] = noise(3, i);
    cluscomp_start(&m, NULL, 0); /* as from a donor that is another now */
    ckpt_load(&m, IN("clustered.bin"));
}

/* Training moves entries, never an index; a run goes on with its own codebooks alone. */
static void test_training_codebooks(void) {
    Golf m;
    new_model(&m, "vocab=20 width=16 heads=2 seq=8 batch=2 cluster=2,9,shared", 16);
    int8_t *codes = memcpy(reals(m.n_params, 0), m.code, m.n_params);
    const real *book = scale_of(&m, m.tensor + T_wo, 0), before = book[0];
    run_steps(&m, 0, 3);
    for (int k = T_wqkv; k <= T_wdown; k++) {
        const Tensor *t = m.tensor + k;
        CHECK(!memcmp(m.code + t->at, codes + t->at, t->n), "%s: an index moved",
              t->name);
    }
    CHECK(book[0] != before && m.flips == 0, "entries that do not learn");
    golf_free(&m);
    if (DOUBLE) return; /* the mean of equal doubles may differ in its last bit */
    DIES("other codebooks", "clustered.bin|codebooks|start again",
         load_other_codebooks());
}

/* Two codes hold any index. */
static void test_indices(void) {
    Golf m;
    int good = 1;
    new_model(&m, "vocab=20 width=16 heads=2 seq=8 cluster=2,9,each", 0);
    const BookVector v = book_vector(m.tensor + T_wo, 19);
    for (int index = 0; index < 65536; index++) {
        set_book_index(m.code, v, index);
        good &= book_index(m.code, v) == index;
    }
    CHECK(good, "an index is not what was set");
    golf_free(&m);
}

/* Coded, indices take no more than 1 % over their order-0 entropy; and back. */
static void test_coded_indices(void) {
    Golf m;
    int count[60] = {0};
    double bits = 0;
    new_model(&m, "vocab=20 width=192 heads=2 seq=8 mlp=4 cluster=4,60,each", 0);
    const Tensor *t = m.tensor + T_wup;
    int8_t *code = m.code + t->at, *codes = memcpy(reals(t->n, 0), code, t->n);
    const double vectors = (double)book_vectors(t);
    for (size_t i = 0; i < book_vectors(t); i++)
        count[book_index(code, book_vector(t, i))]++;
    for (int i = 0; i < 60; i++) {
        if (count[i]) bits -= count[i] * log2(count[i] / vectors);
    }
    uint8_t *buf = (uint8_t *)reals(t->bytes, 0);
    const size_t bytes = write_coded(&m, t, buf, t->bytes);
    CHECK(bytes && (double)bytes <= 1.01 * bits / 8 + 2.0 * (double)t->copy_scales + 8,
          "%zu bytes, order-0 entropy %.0f", bytes, bits / 8);
    memset(code, 0, t->n);
    CHECK(read_coded(&m, t, buf, bytes) && !memcmp(code, codes, t->n),
          "not what was coded");
    CHECK(!read_coded(&m, t, buf, bytes - 1), "a byte less was accepted");
    set_book_index(code, book_vector(t, 5), 60); /* an entry that does not exist */
    t->quant->pack(buf, code, scale_of(&m, t, 0), t);
    CHECK(!t->quant->unpack(code, scale_of(&m, t, 0), buf, t),
          "entry 60 of 60 was accepted");
    golf_free(&m);
}

/* Codebooks at a rate of their own are AdamW's, and move by it at the first step, whatever
 * Muon does to a matrix that has none. */
static void test_rate_of_codebooks(void) {
    static const char *const plain =
        "vocab=20 width=16 heads=2 seq=8 batch=2 optimizer=muon lr_muon=0.01 warmup=0 "
        "cluster=2,9,each steps=100";
    Golf m, own;
    char text[300];
    double least = HUGE_VAL, most = 0;

    snprintf(text, sizeof text, "%s cluster_lr=0.25", plain);
    new_model(&own, text, 16);
    const Tensor *t = own.tensor + T_wup, *embed = own.tensor;
    real *before = memcpy(reals(own.n_params, 0), own.master, own.n_params * sizeof(real));
    run_steps(&own, 0, 1);
    for (size_t i = t->at; i < t->at + t->n; i++) {
        const double moved = fabs((double)(own.master[i] - before[i]));
        least = fmin(least, moved);
        most = worse(most, moved);
    }
    CHECK(near(least, 0.25, 0.01) && near(most, 0.25, 0.01),
          "entries moved by %.4g to %.4g", least, most);

    new_model(&m, plain, 16);
    run_steps(&m, 0, 1);
    CHECK(!memcmp(m.master, own.master, embed->n * sizeof(real)),
          "the rate of codebooks is that of others");
    CHECK(memcmp(m.master + t->at, own.master + t->at, t->n * sizeof(real)),
          "the rate of codebooks changes nothing");
    golf_free(&m);
    golf_free(&own);
}

/* Weights only: nothing but what has a codebook is quantized. */
static void test_weights_only(void) {
    Golf m;
    const real *e = reals(16, 4);
    new_model(&m, "vocab=20 width=16 heads=2 seq=8 cluster=2,9,each aq=none embed_bits=16",
              16);
    EACH_TENSOR(t, &m) {
        const int k = (int)(t - m.tensor), is_book = k >= T_wqkv && k <= T_wdown;
        if (!t->n) continue;
        CHECK(is_book ? t->quant == &book_quantizer : t->quant == quantizers + Q_BF16,
              "%s is stored as %s", t->name, t->quant->name);
        if (!is_book) continue;
        Act a = {.x = reals(16, 0)};
        if (m.inputs[k]->has_q) a.q = xcalloc(16, 1);
        m.inputs[k]->quantize(&m, &a, e, 1, 16, k);
        CHECK(!memcmp(a.x, e, 16 * sizeof(real)), "the inputs of %s are rounded", t->name);
    }
    golf_free(&m);
}

/* ---- Block-wise reconstruction. */
static void test_reconstruction_gradients(void) {
    static const struct {
        const char *arm;
        int block;
    } arms[] = {{"unique=2 repeat=1 cluster=2,5,each", 1},
                {"unique=2 repeat=2 cluster=4,7,shared extra_norm=each", 0}};
    for (size_t i = 0; DOUBLE && i < COUNT(arms); i++)
        check_calibration_gradient(arms[i].arm, has_books, arms[i].block, NULL);
}

/* A matrix by its codebook, in doubles: 3 vectors of 4 numbers. */
enum { PLAIN_BOOK = 3 * 4, PLAIN_VECTORS = PLAIN_QKV / 4 };
typedef struct {
    PlainAdam entry[PLAIN_BOOK];
    int index[PLAIN_VECTORS], vectors;
} PlainMatrix;

/* w[i 4 + e][k] = book[index[i][k]][e], in bf16; one number of the book moved by h. */
static void plain_matrix(double *w, const PlainMatrix *x, int moved, double h) {
    for (int v = 0; v < x->vectors; v++)
        for (int e = 0; e < 4; e++) {
            const int number = x->index[v] * 4 + e;
            const real entry = (real)x->entry[number].w;
            const int row = v / PLAIN_C * 4 + e, column = v % PLAIN_C;
            w[row * PLAIN_C + column] =
                (double)from_bf16(to_bf16(entry)) + (number == moved ? h : 0);
        }
}

/* Each entry starts as the mean of the vectors that have its index in m. */
static PlainMatrix plain_matrix_of(const Golf *m, int k, int block, const double *w) {
    const Tensor *t = m->tensor + k;
    PlainMatrix x = {.vectors = t->rows / 4 * PLAIN_C};
    int members[3] = {0};
    for (int v = 0; v < x.vectors; v++) {
        const size_t copy = t->at + (size_t)block * t->copy_n;
        const int row = v / PLAIN_C * 4, column = v % PLAIN_C;
        x.index[v] = book_index(m->code + copy, book_vector(t, (size_t)v));
        members[x.index[v]]++;
        for (int e = 0; e < 4; e++)
            x.entry[x.index[v] * 4 + e].w += w[(row + e) * PLAIN_C + column];
    }
    for (int i = 0; i < PLAIN_BOOK; i++) x.entry[i].w /= members[i / 4];
    return x;
}

/* Three steps of AdamW on the books of a block: in and want (4 rows), 2 of them a step. */
static void plain_reconstruction(PlainMatrix *x, PlainBlock *w, const double *in,
                                 const double *want) {
    double *const matrix[] = {w->qkv, w->o, w->up, w->down};
    double g[4][PLAIN_BOOK];
    for (int step = 0; step < 3; step++) {
        const int at = step % 2 * 2 * PLAIN_T * PLAIN_C;
        const double h = 1e-5;
        for (int i = 0; i < 4 * PLAIN_BOOK; i++) {
            const int k = i / PLAIN_BOOK, number = i % PLAIN_BOOK;
            plain_matrix(matrix[k], x + k, number, h);
            const double more = plain_error(in + at, want + at, w, 2);
            plain_matrix(matrix[k], x + k, number, -h);
            const double less = plain_error(in + at, want + at, w, 2);
            plain_matrix(matrix[k], x + k, -1, 0);
            g[k][number] = (more - less) / (2 * h);
        }
        for (int i = 0; i < 4 * PLAIN_BOOK; i++) {
            const int k = i / PLAIN_BOOK, number = i % PLAIN_BOOK;
            plain_adamw(x[k].entry + number, g[k][number], step + 1, 0.02, 0.1);
        }
        for (int k = 0; k < 4; k++) plain_matrix(matrix[k], x + k, -1, 0);
    }
}

/* Two blocks, one after the other, each on what the model has before it. */
static void test_reconstruction_by_definition(void) {
    enum { ROWS = 4, N = ROWS * PLAIN_T * PLAIN_C };
    static double in[N], next[N], donor_in[N], want[N];
    Golf from, m;
    Calibration k;
    double worst = 0;
    if (!DOUBLE) return;

    write_data("plain", 300, 50, 20);
    new_model(&from, PLAIN_BLOCKS "unique=2", 0);
    new_model(&m,
              expanded(PLAIN_BLOCKS "unique=2 cluster=4,3,each cluster_steps=3 "
                                    "cluster_rows=4 cluster_fit_lr=0.02 data=@/plain"),
              PLAIN_N);
    memcpy(m.master, from.eff, from.n_params * sizeof(real));
    cluscomp_start(&m, &from, 0);
    calibration_alloc(&k, &m, ROWS);
    calibration_rows(&k, &m.config);
    plain_embedding(in, &m, k.tokens, ROWS);
    plain_embedding(donor_in, &from, k.tokens, ROWS);
    for (int block = 0; block < 2; block++) {
        PlainMatrix x[4];
        PlainBlock w = plain_block(&from, from.eff, block);
        double *const matrix[] = {w.qkv, w.o, w.up, w.down};
        plain_rows(want, donor_in, &w, ROWS);
        for (int i = 0; i < 4; i++) {
            x[i] = plain_matrix_of(&m, plain_tensor[i], block, matrix[i]);
            plain_matrix(matrix[i], x + i, -1, 0);
        }
        plain_reconstruction(x, &w, in, want);
        for (int i = 0; i < 4; i++) {
            const Tensor *t = m.tensor + plain_tensor[i];
            const size_t copy = t->at + (size_t)block * t->copy_n;
            for (int v = 0; v < x[i].vectors; v++)
                for (int e = 0; e < 4; e++) {
                    const BookVector b = book_vector(t, (size_t)v);
                    const real is = m.master[copy + b.at + (size_t)e * b.step];
                    const double off = (double)is - x[i].entry[x[i].index[v] * 4 + e].w;
                    worst = worse(worst, fabs(off));
                }
        }
        plain_rows(next, in, &w, ROWS);
        memcpy(in, next, sizeof in);
        memcpy(donor_in, want, sizeof in);
    }
    CHECK(worst < 1e-5, "three steps a block by their definition: off by %.3g", worst);
    golf_free(&m);
    golf_free(&from);
}

/* The sum of all phases' errors, on what the model has before each. */
static double reconstruction_error(Golf *m, const Golf *from) {
    const Config *c = &m->config;
    Calibration k;
    golf_quantize(m);
    calibration_open(&k, m, from, c->cluster_rows, 0, "cluster_steps");
    calibration_streams(&k, m, k.in, NULL, group_rows(c), c->seq);
    const double error = calibration_error(m, &k, -1);
    const double by_block = calibration_error(m, &k, 0) + calibration_error(m, &k, 1);
    CHECK(near(by_block / error, 1, 1e-6), "errors of blocks sum up to %g, not %g",
          by_block, error);
    calibration_close(&k, m);
    return error;
}

/* With quantized inputs and shared blocks: the error falls, and nothing but codebooks
 * changes; the same bits with other threads. */
static void test_reconstruction(void) {
    static const char *const options_text =
        "vocab=20 width=16 heads=2 seq=16 batch=2 unique=2 repeat=2 cluster=4,12,shared "
        "cluster_rows=8 cluster_steps=30 data=@/plain";
    Golf from, m[3];
    double error[3], moments = 0;

    write_data("plain", 300, 50, 20);
    new_model(&from, "vocab=20 width=16 heads=2 seq=16 unique=2 repeat=2 wq=none", 0);
    for (int i = 0; i < 3; i++) {
        new_model(m + i, expanded(options_text), 32);
        if (!i) m->config.cluster_steps = 0;
        memcpy(m[i].master, from.eff, from.n_params * sizeof(real));
        threads(i == 2 ? 3 : 1);
        cluscomp_start(m + i, &from, 0);
        for (size_t at = 0; at < m[i].n_params; at++)
            moments += fabs((double)m[i].moment1[at]) + fabs((double)m[i].moment2[at]);
        error[i] = reconstruction_error(m + i, &from);
    }
    threads(1);
    CHECK(error[1] < 0.8 * error[0], "error %g; %g without", error[1], error[0]);
    CHECK(!memcmp(m[1].master, m[2].master, m[1].n_params * sizeof(real)),
          "other bits with other threads");
    CHECK(moments == 0, "training starts with moments");
    EACH_TENSOR(t, m) {
        const int same = !memcmp(m[0].master + t->at, m[1].master + t->at,
                                 t->n * sizeof(real));
        CHECK(!t->n || same == !has_books(t), "%s: trained or not", t->name);
        CHECK(!has_books(t) || !memcmp(m[0].code + t->at, m[1].code + t->at, t->n),
              "%s: an index moved", t->name);
    }
    for (int i = 0; i < 3; i++) golf_free(m + i);
    golf_free(&from);
}

/* Not in a run that goes on: its checkpoint has the result. */
static void test_reconstruction_resumed(void) {
    Golf from, m;
    write_data("plain", 300, 50, 20);
    new_model(&from, "vocab=20 width=16 heads=2 seq=8 repeat=1 wq=none", 0);
    new_model(&m,
              expanded("vocab=20 width=16 heads=2 seq=8 batch=2 repeat=1 cluster=2,9,each "
                       "cluster_rows=4 cluster_steps=3 resume=1 data=@/plain"),
              16);
    snprintf(m.config.out, sizeof m.config.out, "%s", tmp);
    const Tensor *t = m.tensor + T_wup;
    real *was = memcpy(reals(t->n, 0), m.master + t->at, t->n * sizeof(real));
    put_file(IN("ckpt.bin"), "x", 1);
    cluscomp_start(&m, &from, 0);
    CHECK(!memcmp(was, m.master + t->at, t->n * sizeof(real)), "calibrated again");
    remove(IN("ckpt.bin"));
    cluscomp_start(&m, &from, 0);
    CHECK(memcmp(was, m.master + t->at, t->n * sizeof(real)), "never calibrated");
    golf_free(&m);
    new_model(&m, "vocab=20 width=16 heads=2 seq=8 repeat=3 cluster=2,9,each", 16);
    m.config.cluster_steps = 1;
    DIES("a donor of other phases", "cluster_steps|3 phases|found 1",
         cluscomp_start(&m, &from, 0));
    golf_free(&m);
    golf_free(&from);
}

static const SystemTests cluscomp_tests = {
    .gradients = (const char *const[]){"cluster=2,9,each",
                                       "cluster=4,7,shared unique=2 repeat=2",
                                       "cluster=2,7,each act=swiglu", NULL},
    .files = (const char *const[]){"cluster=4,20,each", "cluster=4,30,each unique=2",
                                   "cluster=2,300,shared", "cluster=2,40,shared act=swiglu", NULL},
    .errors =
        (const char *const[][2]){
            {"--cluster=4,16", "--cluster=4,16|G,N,shared or G,N,each"},
            {"--cluster=4,16,all", "--cluster=4,16,all|G,N,shared"},
            {"--cluster=17,16,each", "--cluster=17,16,each|from 2 to 16"},
            {"--cluster=4,65537,each", "N from 2 to 65536"},
            {"--cluster=3,16,each", "a divisor of --width"},
            {"--cluster=4,16,each", "--cluster|trained weights"},
            {"--cluster_lr=0.1", "--cluster_lr|without --cluster"},
            {"--cluster=4,16,each --cluster_rows=8",
             "--cluster_rows|without --cluster_steps"},
            {"--cluster=4,16,each --cluster_fit_lr=1",
             "--cluster_fit_lr|without --cluster_steps"},
            {"--cluster=4,16,each --batch=1 --accum=2 --cluster_steps=1",
             "--cluster_rows=128|--batch=1 / --accum=2"},
            {"--cluster=4,16,each --batch=8 --cluster_steps=1 --cluster_rows=12",
             "--cluster_rows=12|multiple of --batch=8"},
            {NULL, NULL}},
    .tests = (const Test[]){{"codebooks", test_codebooks},
                            {"entries", test_entries},
                            {"few vectors", test_few_vectors},
                            {"training", test_training_codebooks},
                            {"indices in codes", test_indices},
                            {"coded indices", test_coded_indices},
                            {"rate", test_rate_of_codebooks},
                            {"weights only", test_weights_only},
                            {"reconstruction gradients", test_reconstruction_gradients},
                            {"by definition", test_reconstruction_by_definition},
                            {"reconstruction", test_reconstruction},
                            {"resumed", test_reconstruction_resumed},
                            {NULL, NULL}}};
#elif defined BUGS
bug codebook-sums-not-means double "cluscomp: grad" \
    "$(in_ average_entries)s| / members\[k\]||"
bug codebook-gradients-not-averaged double "cluscomp: grad" \
    "$(in_ cluscomp_average)s/real \*x) {/real *x) { if (x == m->grad) return;/"
bug codebook-of-each-matrix float "cluscomp: entries" \
    "$(in_ cluscomp_store)s/o.shared ? first_book(m, t) : 0/0/"
bug codebook-farthest-entry float "cluscomp: codebooks" \
    "$(in_ nearest_entry)s/real score = -k->square\[i\]/real score = k->square[i]/"
bug calibration-of-groups-of-none float "cluscomp: errors" "$(in_ calibration_check)s/c->batch % c->accum || //"
bug codebook-indices-cut float "cluscomp: indices" "$(in_ set_book_index)s/(index >> 8)/0/"
bug codebook-entry-beyond-the-last float "cluscomp: coded" \
    "$(in_ book_unpack)s/index >= /index > /"
bug codebook-of-another-run float "cluscomp: training" \
    "$(in_ cluscomp_loaded)s/if (memcmp/if (0 \&\& memcmp/"
bug codebook-loses-vectors float "cluscomp: few" "$(in_ fit_indices)s/if (!holds_all(&k))/holds_all(\&k);/"
bug codebook-of-half-vectors float "cluscomp: few" "$(in_ entry_of)s/e < k->size \&\&/e < k->size - 1 \&\&/; $(in_ entry_of)s/e == k->size)/e >= k->size - 1)/"
bug codebooks-by-muon float "cluscomp: rate" "$(in_ is_for_muon)s/ && !(t->own_rate > 0)//"
bug codebooks-at-the-rate-of-others float "cluscomp: rate" "$(in_ golf_adamw)s/t->own_rate > 0 ? t->own_rate :/0 ? 0 :/"
bug reconstruction-at-once double "cluscomp: by def" "$(in_ fit_blocks)s/calibration_streams(&k, m,.*/if (!block) &/"
bug reconstruction-on-the-donor double "cluscomp: by def" "$(in_ fit_blocks)s/cluster_rows, 0, /cluster_rows, 1, /; $(in_ fit_blocks)s/calibration_streams(&k, m,.*/;/"
bug reconstruction-of-all-blocks double "cluscomp: by def" "$(in_ fit_block)s/has_books, block,/has_books, -1,/"
bug reconstruction-of-the-first-block double "cluscomp: by def" "$(in_ fit_block)s/gradient(m, k, block,/gradient(m, k, 0,/"
bug reconstruction-of-one-batch double "cluscomp: by def" "$(in_ fit_block)s/step % k->batches/0/"
bug reconstruction-without-decay double "cluscomp: by def" "$(in_ fit_block)s/, 0.1)/, 0)/"
bug reconstruction-of-everything float "cluscomp: reconstruction" "$(in_ fit_block)s/has_books/is_stored/"
bug reconstruction-again-at-resume float "cluscomp: resumed" "$(in_ cluscomp_start)s/ && !calibration_is_over(c)//"
bug reconstruction-of-other-phases float "cluscomp: reconstruction" "$(in_ calibration_phases)s/block_of(&m->config, p) != block/p != block/"
bug reconstruction-unlike-adamw double "cluscomp: by def" "$(in_ calibration_adamw)s/step + 1/step + 2/"
bug reconstruction-of-other-rows double "cluscomp: by def" "$(in_ calibration_streams)s/(size_t)b \* k->N/0/"
#endif
