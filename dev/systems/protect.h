/* protect.h - projections, or their worst rows, in more bits than the others. Not from a
 * paper: a plain way to spend bytes where low-bit codes hurt most.
 *
 *   --protect=wdown:8       all of wdown as integers of 3 to 8 bits with a scale per
 *                           row, or as bf16 numbers (16)
 *   --protect=wdown:8:10%   so the 10 % of its rows that ternary codes miss most
 *   --protect=wo:4,wup:5:1% a list of these
 *
 * A row's miss is sum (w - s q)^2, s the mean |w| of the whole copy and q =
 * clip(rint(w/s), -1, 1), as if all were ternary. Rows are ranked anew whenever weights
 * are quantized, so that a row can become a protected one, or cease to be, at any step;
 * how many there are is fixed: P % of the rows, rounded up. Gradients pass as they do
 * everywhere, straight through.
 *
 * Stored, a copy of such rows has 1 + rows scales: s, then of each row the step of its
 * integers, or 0. Packed: s in bf16; a bit per row, lowest first, 1 for integers; then
 * row by row, each from a new byte on, either codes in base 3, five to a byte, or a step
 * in bf16 and integers. Coded: the scales, then the codes, which the scales tell how to
 * read; a copy is one stream.
 *
 * Cost: 2 bytes and BITS - 1.6 bits per weight for each protected row. A matrix with rows
 * of both kinds is multiplied in floating point, not as codes: slower, the same FLOPs. */
#ifdef OPTIONS
X(MODEL, STR, protect, "", "", "NAME:BITS[:P%],...: projections, or their worst rows")

#elif defined LIST
X(protect)

#elif defined CODE
#include "shared/high_bits.h"

/* ---- The list: items NAME:BITS or NAME:BITS:P%. */
typedef struct {
    char name[32];
    int bits, rows; /* rows: is there a P? */
    double percent;
} ProtectItem;

/* Reads the item at p. Returns its length, 0 if it is none. */
static int protect_item(const char *p, ProtectItem *item) {
    int n = 0, more = 0;
    *item = (ProtectItem){.percent = 100};
    sscanf(p, "%31[^:,]:%d%n", item->name, &item->bits, &n);
    if (n && p[n] == ':') {
        sscanf(p + n, ":%lf%%%n", &item->percent, &more);
        item->rows = more > 0;
        n = item->rows ? n + more : 0;
    }
    return p[n] && p[n] != ',' ? 0 : n;
}

/* The item behind p's comma, or the end of the list. */
static const char *protect_next(const char *p) {
    p += strcspn(p, ",");
    return *p ? p + 1 : p;
}

/* Is there an item for this tensor? */
static int protect_find(const Config *c, const char *name, ProtectItem *item) {
    for (const char *p = c->protect; *p; p = protect_next(p))
        if (protect_item(p, item) && !strcmp(item->name, name)) return 1;
    return 0;
}

static int protect_on(const Config *c) { return *c->protect != 0; }

static int protect_uses(const Config *c) {
    ProtectItem item;
    for (const char *p = c->protect; *p; p = protect_next(p))
        if (protect_item(p, &item) && item.percent < 100) return RES_PIECES;
    return 0;
}

static int protect_item_fits(const ProtectItem *item) {
    const int whole = item->bits == 16 && !item->rows;
    if (!whole && (item->bits < 3 || item->bits > 8)) return 0;
    return item->percent > 0 && item->percent <= 100;
}

static void protect_check(const Config *c) {
    static const char *const names[] = {"wqkv", "wo", "wup", "wdown", "wgate"};
    const size_t count = is_gated(c) ? COUNT(names) : COUNT(names) - 1;
    int seen[COUNT(names)] = {0};
    for (const char *p = c->protect; *p; p = protect_next(p)) {
        ProtectItem item;
        size_t k = 0;
        const int good = protect_item(p, &item) && protect_item_fits(&item);
        while (k < count && strcmp(names[k], item.name)) k++;
        if (!good || k == count)
            die("--protect=%s: expected NAME:BITS[:P%%][,...] with wqkv, wo, wup or wdown "
                "(--act=swiglu: or wgate), 3 to 8 or 16 bits and P (for up to 8 bits) percent of the rows, found "
                "'%.40s'",
                c->protect, p);
        if (seen[k]) die("--protect=%s: %s is there twice", c->protect, item.name);
        seen[k] = 1;
    }

    if (c->wq == WQ_NONE)
        die("--protect is for --wq=ternary; all weights have 16 bits here");
    if (protect_uses(c) && c->wq != WQ_TERNARY)
        die("--protect=%s: rows are for --wq=ternary", c->protect);
}

/* ---- Rows of both kinds. t->extra[0]: how many are protected. */
static size_t rows_scales(const Tensor *t) { return 1 + (size_t)t->rows; }

/* A row as a tensor of its own. */
static Tensor row_tensor(const Tensor *t, int high) {
    const int K = t->stored_cols;
    Tensor row = {.rows = 1,
                  .cols = K,
                  .stored_cols = K,
                  .stored_copies = 1,
                  .copy_n = (size_t)K,
                  .copy_scales = 1};
    if (high) store_as(&row, quantizers + Q_INT, t->bits, SCALE_ROW);
    else store_as(&row, quantizers + Q_TERNARY, 2, SCALE_ROW);
    return row;
}

/* Its bytes in the file: a ternary row has no scale of its own. */
static size_t row_bytes(const Tensor *row) {
    return is_ternary(row) ? row->quant->bytes(row) - 2 : row->quant->bytes(row);
}

static size_t rows_bytes(const Tensor *t) {
    const Tensor low = row_tensor(t, 0), high = row_tensor(t, 1);
    const size_t rows = (size_t)t->rows, many = (size_t)t->extra[0];
    return 2 + CEIL(rows, 8) + many * row_bytes(&high) + (rows - many) * row_bytes(&low);
}

typedef struct {
    double error;
    int row;
} Miss;

static int by_miss(const void *a, const void *b) { /* for qsort: the largest first */
    const Miss *x = a, *y = b;
    if (x->error != y->error) return x->error < y->error ? 1 : -1;
    return x->row - y->row;
}

/* The rows of w, those that ternary codes at step s miss most first. */
static Miss *rank_rows(const real *w, real s, const Tensor *t) {
    const Tensor low = row_tensor(t, 0);
    const int K = t->stored_cols;
    Miss *miss = xcalloc((size_t)t->rows, sizeof(Miss));

    for (int r = 0; r < t->rows; r++) {
        const real *row = w + (size_t)r * (size_t)K;
        miss[r].row = r;
        for (int i = 0; i < K; i++) {
            const double e = (double)(row[i] - s * grid_code(row[i], s, &low));
            miss[r].error += e * e;
        }
    }
    qsort(miss, (size_t)t->rows, sizeof(Miss), by_miss);
    return miss;
}

static void rows_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w,
                          const Tensor *t) {
    const Tensor low = row_tensor(t, 0), high = row_tensor(t, 1);
    const int K = t->stored_cols;
    const real s = ternary_scale(w, t->copy_n, t);
    Miss *miss = rank_rows(w, s, t);

    scale[0] = s;
    for (int rank = 0; rank < t->rows; rank++) {
        const int r = miss[rank].row;
        const size_t at = (size_t)r * (size_t)K;
        scale[1 + r] = 0;
        if (rank < t->extra[0]) {
            int_quantize(code + at, scale + 1 + r, NULL, w + at, &high);
        } else {
            grid_codes(code + at, w + at, K, s, &low);
        }
    }
    if (mask) memset(mask, 1, t->copy_n); /* no estimator masks these: see above */
    free(miss);
}

static void rows_dequantize(real *eff, const int8_t *code, const real *scale,
                            const Tensor *t) {
    for (size_t i = 0; i < t->copy_n; i++) {
        const real s = scale[1 + i / (size_t)t->stored_cols];
        eff[i] = (s > 0 ? s : scale[0]) * (real)code[i];
    }
}

static void rows_pack(uint8_t *out, const int8_t *code, const real *scale,
                      const Tensor *t) {
    uint8_t *map = out + 2, *one = xcalloc(2 + (size_t)t->stored_cols, 1);

    put_u(out, to_bf16(scale[0]), 2);
    memset(map, 0, CEIL((size_t)t->rows, 8));
    out = map + CEIL(t->rows, 8);
    for (int r = 0; r < t->rows; r++) {
        const int high = scale[1 + r] > 0;
        const Tensor row = row_tensor(t, high);
        map[r / 8] |= (uint8_t)(high << r % 8);
        row.quant->pack(one, code, high ? scale + 1 + r : scale, &row);
        memcpy(out, high ? one : one + 2, row_bytes(&row));
        out += row_bytes(&row);
        code += t->stored_cols;
    }
    free(one);
}

static int rows_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t) {
    const uint8_t *map = in + 2, *step = in;
    uint8_t *one = xcalloc(2 + (size_t)t->stored_cols, 1);
    int many = 0;

    for (int r = 0; r < t->rows; r++) many += map[r / 8] >> r % 8 & 1;
    int good = many == t->extra[0]; /* if not, rows are not where the file has them */
    in = map + CEIL(t->rows, 8);
    for (int r = 0; r < t->rows; r++) {
        const int high = map[r / 8] >> r % 8 & 1;
        const Tensor row = row_tensor(t, high);
        if (!good) break;
        memcpy(one, step, 2);
        memcpy(high ? one : one + 2, in, row_bytes(&row));
        scale[1 + r] = 0;
        good = row.quant->unpack(code, high ? scale + 1 + r : scale, one, &row);
        in += row_bytes(&row);
        code += t->stored_cols;
    }
    free(one);
    return good;
}

/* Codes of both kinds, each with the trees that it has elsewhere (section 8). */
static int rows_coded_codes(Coder *r, const Tensor *t, int8_t *code, const real *scale) {
    const size_t K = (size_t)t->stored_cols;
    const int own = t->rows >= 1000; /* trees for each column */
    Node *ternary = xcalloc(4 + 256 + (own ? 16 * K : 0), sizeof(Node));
    Node *shared = ternary + 4, *columns = shared + 256;
    int good = 1;

    for (size_t i = 0; i < t->copy_n; i++) {
        if (r->full) break;
        Node *top = own ? columns + 16 * (i % K) : shared;
        if (scale[1 + i / K] == 0) good &= coded_trit(r, ternary, code + i);
        else good &= coded_int(r, top, shared, code + i, t);
    }
    free(ternary);
    return good;
}

static int rows_coded(struct Coder *r, const Tensor *t, int8_t *code, real *scale,
                      size_t part, size_t parts) { /* part 0 of 1 */
    int many = 0;
    (void)part;
    (void)parts;

    int good = coded_numbers(r, scale, 0, t->copy_scales, 0);
    good &= scale[0] > 0;
    for (int row = 0; row < t->rows; row++) {
        good &= scale[1 + row] >= 0;
        many += scale[1 + row] > 0;
    }
    good &= many == t->extra[0];
    return good & rows_coded_codes(r, t, code, scale);
}

static const Quantizer rows_quantizer = {.name = "mixed",
                                         .scales = rows_scales,
                                         .bytes = rows_bytes,
                                         .quantize = rows_quantize,
                                         .dequantize = rows_dequantize,
                                         .backward = ste_backward,
                                         .pack = rows_pack,
                                         .unpack = rows_unpack,
                                         .coded = rows_coded,
                                         .one_stream = 1};

static int protect_store(const Golf *m, Tensor *t) {
    ProtectItem item;
    if (t->role != PROJ || !protect_find(&m->config, t->name, &item)) return 0;
    if (item.percent == 100) {
        store_in_high_bits(&m->config, t, item.bits);
        return 1;
    }
    store_as(t, &rows_quantizer, item.bits, SCALE_ROW);
    t->ledger = LEDGER_PROTECTED;
    t->extra[0] = (int)ceil(t->rows * item.percent / 100);
    t->float_only = 1; /* its codes are on two grids */
    return 1;
}

static const System protect_system = {.name = "protect",
                                      .needs = "protect",
                                      .on = protect_on,
                                      .uses = protect_uses,
                                      .check = protect_check,
                                      .store = protect_store};

#elif defined TESTS
/* What is stored as NAME:BITS, and what the ledger says of it. */
static void test_protected_sizes(void) {
    static const struct {
        const char *text, *name;
        int bits;
    } rows[] = {{"protect=wdown:8", "wdown", 8},
                {"protect=wo:16,wup:5", "wo", 16},
                {"protect=wo:3,wdown:3", "wdown", 3},
                {"protect=wo:16,wup:5 unique=2", "wup", 5},
                {"protect=wqkv:4 wscale=group width=256", "wqkv", 4}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        Golf m;
        char text[200];
        snprintf(text, sizeof text, "vocab=50 width=32 heads=2 mlp=2 seq=16 %s",
                 rows[i].text);
        const Config c = config_of(text);
        golf_layout(&m, &c);

        size_t listed = 0;
        EACH_TENSOR(t, &m) {
            if (t->ledger == LEDGER_PROTECTED) listed += t->bytes;
            if (strcmp(t->name, rows[i].name)) continue;
            const size_t groups = strstr(text, "group") ? 2 : 1, n = t->copy_n;
            const size_t scales = 2 * groups * (size_t)t->rows;
            const size_t bytes =
                rows[i].bits == 16 ? 2 * n : scales + n * (size_t)rows[i].bits / 8;
            CHECK(t->copy_bytes == bytes && t->bits == rows[i].bits &&
                      t->ledger == LEDGER_PROTECTED,
                  "%s: %s has %zu bytes, not %zu", text, t->name, t->copy_bytes, bytes);
        }
        CHECK(listed && ledger_of(&m).of[LEDGER_PROTECTED] == listed, "%s: ledger", text);
    }
}

/* Which rows are protected, and what all weights become, by their definitions. */
static void test_worst_rows(void) {
    enum { ROWS = 20, K = 30, HIGH = 7 }; /* 31 % of 20, rounded up */
    const Tensor t = tensor_of("protect=wo:5:31%", "wo", ROWS, K);
    real *w = reals(ROWS * K, 60), *eff = reals(ROWS * K, 0), scale[1 + ROWS];
    int8_t code[ROWS * K];
    uint8_t mask[ROWS * K] = {0};
    double mean = 0, error[ROWS] = {0};
    for (int i = 0; i < ROWS * K; i++) w[i] *= (real)(1 + 0.1 * (i / K * 7 % ROWS));
    for (int i = 0; i < ROWS * K; i++) mean += fabs((double)w[i]) / (ROWS * K);

    t.quant->quantize(code, scale, mask, w, &t);
    t.quant->dequantize(eff, code, scale, &t);
    const double s = (double)scale[0];
    CHECK(near(s, mean, mean / 250) && bf16_exact(scale[0]), "step %g, mean %g", s, mean);

    for (int i = 0; i < ROWS * K; i++) {
        const double x = (double)w[i], e = x - s * fmax(-1, fmin(1, rint(x / s)));
        error[i / K] += e * e;
    }

    int high = 0, passing = 1, good = 1;
    for (int r = 0; r < ROWS; r++) {
        int worse = 0;
        double most = 0;
        for (int o = 0; o < ROWS; o++) worse += error[o] > error[r];
        for (int i = 0; i < K; i++) most = fmax(most, fabs((double)w[r * K + i]));
        const int is_high = worse < HIGH;
        const double step = is_high ? (double)scale[1 + r] : s;
        const double top = is_high ? 15 : 1;
        high += scale[1 + r] > 0;
        CHECK((scale[1 + r] > 0) == is_high, "row %d: %d are worse", r, worse);
        if (is_high)
            CHECK(near(step, most / 15, most / 15 / 250), "row %d: step %g", r, step);
        for (int i = 0; i < K; i++) {
            const double want = fmax(-top, fmin(top, rint((double)w[r * K + i] / step)));
            good &= near((double)eff[r * K + i], step * want, 1e-6 * step);
            passing &= mask[r * K + i];
        }
    }
    CHECK(high == HIGH && good && passing, "%d rows; weights are %sas defined", high,
          good ? "" : "not ");
}

/* Packed and coded, there and back; another number of protected rows is refused. */
static void test_rows_in_files(void) {
    const char *arms[] = {"protect=wup:8:20%", "protect=wup:4:60% hidden=1000"};
    for (size_t a = 0; a < COUNT(arms); a++) {
        Golf m;
        char text[200];
        snprintf(text, sizeof text, "vocab=50 width=16 heads=2 mlp=8 seq=16 %s", arms[a]);
        new_model(&m, text, 0);
        const Tensor *t = m.tensor + T_wup;
        real *scale = scale_of(&m, t, 0), *scales = reals(t->copy_scales, 0);
        int8_t *code = m.code + t->at;
        int8_t *codes = memcpy(reals(t->copy_n, 0), code, t->copy_n);
        uint8_t *plain = (uint8_t *)reals(t->bytes, 0);
        uint8_t *coded = (uint8_t *)reals(t->bytes + 1000, 0);
        memcpy(scales, scale, t->copy_scales * sizeof(real));

        t->quant->pack(plain, code, scale, t);
        const size_t bytes = write_coded(&m, t, coded, t->bytes);
        CHECK(bytes > 0 && bytes < t->bytes, "%s: %zu bytes coded, %zu packed", text,
              bytes, t->bytes);
        for (int turn = 0; turn < 2; turn++) {
            memset(code, 0, t->copy_n);
            memset(scale, 0, t->copy_scales * sizeof(real));
            const int good = turn ? read_coded(&m, t, coded, bytes)
                                  : t->quant->unpack(code, scale, plain, t);
            CHECK(good && !memcmp(code, codes, t->copy_n) &&
                      !memcmp(scale, scales, t->copy_scales * sizeof(real)),
                  "%s: not what was %s", text, turn ? "coded" : "packed");
        }
        CHECK(!read_coded(&m, t, coded, bytes - 1), "%s: a byte less was accepted", text);

        int r = 0; /* a row without a scale of its own gets one */
        while (scale[1 + r] > 0) r++;
        scale[1 + r] = 1;
        const size_t more = write_coded(&m, t, coded, t->bytes + 1000);
        CHECK(!more, "%s: a row more was coded", text);
        plain[2 + r / 8] |= (uint8_t)(1 << r % 8);
        CHECK(!t->quant->unpack(code, scale, plain, t), "%s: a row more was accepted",
              text);
        golf_free(&m);
    }
}

/* --width=fit counts the bytes of protected weights: nothing wider fits. */
static void test_protected_fit(void) {
    for (int cap = 40000; cap <= 256000; cap += 72000) {
        char text[200];
        snprintf(text, sizeof text,
                 "vocab=500 heads=3 width=24 mlp=2 protect=wdown:8 cap=%d", cap);
        Config c = config_of(text);
        c.width = 0;
        fit_width(&c);
        config_check(&c);

        CHECK(artifact_bytes(&c) <= (size_t)cap, "%s: %zu bytes", text,
              artifact_bytes(&c));
        c.hidden = hidden_width(&c) + 8;
        CHECK(artifact_bytes(&c) > (size_t)cap, "%s: 8 hidden numbers more would fit",
              text);
        c.hidden = 0;
        c.width += 24;
        CHECK(artifact_bytes(&c) > (size_t)cap, "%s: width %d would fit", text, c.width);
    }
}

static const SystemTests protect_tests = {
    .gradients = (const char *const[]){"protect=wo:4,wdown:3,wqkv:16",
                                       "protect=wup:5 hidden=24 unique=2 repeat=1",
                                       "protect=wdown:8:30%,wqkv:4:20%",
                                       "protect=wgate:8:30%,wup:4 act=swiglu", NULL},
    .files =
        (const char *const[]){"protect=wdown:8:30%", "protect=wdown:8:10%",
                              "protect=wqkv:3:50%,wup:6:1% unique=2", "protect=wdown:3",
                              "protect=wo:16,wup:4,wqkv:7 hidden=72 unique=2",
                              "protect=wo:5 aq=none", "protect=wgate:8 act=swiglu", NULL},
    .errors =
        (const char *const[][2]){
            {"--protect=wgate:8", "wgate|--act=swiglu|found 'wgate:8'"},
            {"--protect=wo:2", "wqkv, wo, wup or wdown|3 to 8 or 16 bits|found 'wo:2'"},
            {"--protect=wo:8,embed:8", "found 'embed:8'"},
            {"--protect=wo:8:0%", "percent of the rows|found 'wo:8:0%'"},
            {"--protect=wo:16:5%", "found 'wo:16:5%'"},
            {"--protect=wo:8:10", "found 'wo:8:10'"},
            {"--protect=wo:8,wo:4", "wo is there twice"},
            {"--protect=wo:8,wo:8", "wo is there twice"},
            {"--protect=wo:8 --wq=none", "--protect is for --wq=ternary"},
            {"--wq=int4 --protect=wo:8:10%", "wo:8:10%|--wq=ternary"},
            {NULL, NULL}},
    .tests = (const Test[]){{"sizes", test_protected_sizes},
                            {"worst rows", test_worst_rows},
                            {"rows in files", test_rows_in_files},
                            {"width that fits", test_protected_fit},
                            {NULL, NULL}}};
#elif defined BUGS
bug best-rows-protected float "protect: worst" "$(in_ by_miss)s/? 1 : -1/? -1 : 1/"
bug rows-at-the-wrong-step float "protect: worst" \
    "$(in_ rows_dequantize)s/(s > 0 ? s : scale\[0\])/scale[0]/"
bug rows-mask-gradients float "protect: worst" \
    "$(in_ rows_quantize)s/memset(mask, 1,/memset(mask, 0,/"
bug rows-without-their-map float "protect: rows" \
    "$(in_ rows_pack)s/(high << r % 8)/(high << r % 7)/"
bug rows-uncounted float "protect: rows" \
    "$(in_ rows_coded)s/good &= many ==/good |= many ==/"
bug rows-share-a-tree float "protect: rows" \
    "$(in_ rows_coded_codes)s/scale\[1 + i \/ K\] == 0/r->reading/"
bug protected-at-the-core float "protect: sizes" \
    "$(in_ protect_store)s/store_in_high_bits(&m->config, t,/store_as(t, quantizers + Q_INT,/" \
    "$(in_ protect_store)s/item.bits);/item.bits, SCALE_ROW);/"
#endif
