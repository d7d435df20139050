/* cluscomp.h - ClusComp (2503.13089): weights are entries of codebooks.
 *
 * Vectors of G weights, one below the other in a column of W, are entries of a codebook
 * of N vectors of bf16 numbers: W[i G + e][k] = book[index[i][k]][e]. k-means finds the
 * codebook and the indices on the weights of a trained model; from then on the indices
 * are fixed, and the codebook is trained. --cluster=G,N,each: a codebook for every
 * matrix; G,N,shared: one for every block.
 *
 * Masters of one entry are kept equal: their gradients are averaged, and so are they,
 * once per step. An entry's gradient is the sum over its vectors; the average differs
 * from it by a factor that the size of AdamW's steps does not depend on.
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
 * Differs from the paper: all of the model is trained, not a block at a time on its
 * outputs, and embeddings are quantized, too; N is small, as our matrices are (theirs:
 * 65,500). --wq and --wscale mean nothing for a matrix that has a codebook. */
#ifdef OPTIONS
X(MODEL, STR, cluster, "", "",
  "G,N,shared|each: N vectors of G weights, per block | matrix")

#elif defined LIST
X(cluscomp)

#elif defined CODE
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
    return 1;
}

/* ---- All vectors of one codebook, that of copy `copy` of its owner, in the arenas. */
typedef struct {
    BookVector *vector;
    size_t count;
} BookList;

static int owns_books(const Tensor *t) {
    return t->n && t->quant == &book_quantizer && !t->shares;
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
    for (size_t i = 0; i < N; i++)
        memcpy(k.book + i * G, k.x + hash64(key, i) % list.count * G, sizeof(real) * G);
    for (int round = 0; round < 20; round++) {
        choose_entries(&k);
        move_entries(&k);
    }
    for (size_t i = 0; i < list.count; i++)
        set_book_index(m->code, list.vector[i], k.chosen[i]);

    free(k.x);
    free(k.book);
    free(k.square);
    free(k.chosen);
    free(list.vector);
}

/* Of random masters, for tests; of a trained model's, which were copied before. The next
 * quantization averages the masters. */
static void cluscomp_start(Golf *m, const Golf *from, int convert) {
    (void)from;
    (void)convert;
    EACH_TENSOR(t, m) {
        if (!owns_books(t)) continue;
        for (int j = 0; j < t->stored_copies; j++) fit_indices(m, t, j);
    }
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
            {NULL, NULL}},
    .tests = (const Test[]){{"codebooks", test_codebooks},
                            {"entries", test_entries},
                            {"training", test_training_codebooks},
                            {"indices in codes", test_indices},
                            {"coded indices", test_coded_indices},
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
bug codebook-indices-cut float "cluscomp: indices" "$(in_ set_book_index)s/(index >> 8)/0/"
bug codebook-entry-beyond-the-last float "cluscomp: coded" \
    "$(in_ book_unpack)s/index >= /index > /"
bug codebook-of-another-run float "cluscomp: training" \
    "$(in_ cluscomp_loaded)s/if (memcmp/if (0 \&\& memcmp/"
#endif
