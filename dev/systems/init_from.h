/* init_from.h - a run that starts from a trained model, and many blocks that become one,
 * as in Relaxed Recursive Transformers (2410.20672).
 *
 * --init_from=RUN/ckpt.bin takes all tensors that both models have; the others start as
 * always, and a run says which these are. Without --convert both have the same shapes
 * and copies. With it the donor has as many phases, usually each with a block of its
 * own, and a copy that several phases share becomes
 *     average    the mean of what these phases had,
 *     lower      the first blocks: what phase b had becomes block b, also where blocks
 *                are used one after the other (order=sequence),
 *     stepwise   what phases at even intervals had, the first and the last included.
 * So do the vectors of the interface where phases share them. Other systems make what
 * they need of the donor (System.start, System.fit): pairs or factors that keep what
 * sharing loses.
 *
 * What is kept is what the donor computes. A ternary donor multiplies with Q(W), and W
 * without Q is another model. So where a tensor is stored in the same way in both, its
 * masters are taken: the same Q makes the same of them, while Q(Q(W)) has a smaller
 * scale. That holds for the average, too: equal blocks stay as they are, and of blocks
 * that differ neither mean is what they compute. Where it is not, Q(W) is taken, and all
 * that is fitted is fitted to Q(W). A donor that never computed with its codes (rounded
 * at export only, or noise around its masters) computed with W.
 *
 * Nothing of it is stored, and it costs no time but at the start. A run that is
 * resumed reads its donor again if it is still there; it must be there if a system
 * needs it.
 *
 * Differs from the paper: norms have no weights here but the gains of the interface,
 * which stay those of each phase unless --phase=0 ties them as the paper does; what the
 * donor's optimizer knew is not taken over. */
#ifdef OPTIONS
X(TRAIN, STR, init_from, "", "", "ckpt.bin whose weights this run starts from")
X(TRAIN, INT, convert, "none", "none|average|lower|stepwise",
  "how blocks of init_from become shared ones; and pairs")

#elif defined LIST
X(init_from)

#elif defined CODE
#include "shared/donor.h"

enum { CONVERT_NONE, CONVERT_AVERAGE, CONVERT_LOWER, CONVERT_STEPWISE };

static int init_from_on(const Config *c) { return *c->init_from; }

static void init_from_shape(Golf *m) { m->converted = m->config.convert != CONVERT_NONE; }

/* Is copy j of a tensor what its codes say? Not where a system softens the rounding. */
static int is_rounded(const Golf *m, const Tensor *t, int j) {
    const size_t at = t->at + (size_t)j * t->copy_n, bytes = t->copy_n * sizeof(real);
    real *rounded = xcalloc(t->copy_n, sizeof(real));
    t->quant->dequantize(rounded, m->code + at, scale_of(m, t, j), t);
    const int same = !memcmp(rounded, m->eff + at, bytes);
    free(rounded);
    return same;
}

/* Does tensor k of both make the same of the same masters? */
static int stored_alike(const Golf *m, const Golf *from, int k) {
    const Tensor *t = m->tensor + k, *u = from->tensor + k;
    return is_stored(u) && t->quant == u->quant && t->bits == u->bits &&
           t->half == u->half && t->line == u->line && t->group == u->group &&
           !memcmp(t->extra, u->extra, sizeof t->extra) && is_rounded(m, t, 0);
}

/* The donor's numbers of which those of tensor k are made. */
static const real *numbers_for(const Golf *m, const Golf *from, int k) {
    return stored_alike(m, from, k) ? from->master : from->eff;
}

/* w += what phase p of the donor has of tensor k, divided by count */
static void add_of_donor(real *w, const Golf *m, const Golf *from, int k, int p,
                         int count) {
    const real *v = numbers_for(m, from, k) + copy_at(from, k, p);
    for (size_t i = 0; i < from->tensor[k].copy_n; i++) w[i] += v[i] / (real)count;
}

/* The phase whose block becomes block b of U, in either order of blocks. Lower: the b-th
 * of the loop; stepwise, in a loop of P phases: b (P - 1) / (U - 1), rounded. */
static int phase_taken(const Config *c, int j) {
    const int b = j - c->prelude, U = c->unique, last = loop_phases(c) - 1;
    if (c->convert != CONVERT_STEPWISE || U == 1) return c->prelude + b;
    return c->prelude + (b * last + (U - 1) / 2) / (U - 1);
}

/* Copy j of tensor k. */
static void convert_copy(Golf *m, const Golf *from, int k, int j) {
    const Tensor *t = m->tensor + k;
    real *w = m->master + t->at + (size_t)j * t->copy_n;
    int count = 0, first = m->phases;

    memset(w, 0, t->copy_n * sizeof(real));
    for (int p = 0; p < m->phases; p++) {
        if (copy_of(m, t, p) != j) continue;
        first = MIN(first, p);
        count++;
    }

    if (count == 1) {
        add_of_donor(w, m, from, k, first, 1);
    } else if (m->config.convert != CONVERT_AVERAGE) {
        add_of_donor(w, m, from, k, phase_taken(&m->config, j), 1);
    } else {
        for (int p = first; p < m->phases; p++)
            if (copy_of(m, t, p) == j) add_of_donor(w, m, from, k, p, count);
    }
}

/* Has the tensor a copy for each phase or block? Where a system counts otherwise, as
 * experts do, nothing is converted. */
static int is_convertible(const Tensor *t) {
    return t->per == PER_BLOCK || t->per == PER_PHASE;
}

/* Are the copies of tensor k the same ones? PER_OTHER: as many for each block. */
static int same_copies(const Golf *m, const Golf *from, int k) {
    const Tensor *t = m->tensor + k, *u = from->tensor + k;
    const int other = t->per == PER_OTHER || u->per == PER_OTHER;
    if (t->copy_n != u->copy_n || t->stored_copies != u->stored_copies) return 0;
    if (!other) return 1;
    return t->per == u->per && block_count(&m->config) == block_count(&from->config);
}

static void take_tensor(Golf *m, const Golf *from, int k, const char *path) {
    const Tensor *t = m->tensor + k, *u = from->tensor + k;
    const int fits = t->copy_n == u->copy_n && is_convertible(t) && is_convertible(u);
    if (m->config.convert && fits) {
        if (m->phases != from->phases)
            die("%s: --convert: expected a checkpoint of %d phases, found %d", path,
                m->phases, from->phases);
        for (int j = 0; j < t->stored_copies; j++) convert_copy(m, from, k, j);
        return;
    }

    if (!same_copies(m, from, k))
        die("%s: %s has %d x %zu numbers there and %d x %zu here; --init_from needs "
            "the same --width, --hidden, --heads and, without --convert, --unique",
            path, t->name, u->stored_copies, u->copy_n, t->stored_copies, t->copy_n);
    memcpy(m->master + t->at, numbers_for(m, from, k) + u->at, t->n * sizeof(real));
}

/* A donor that softened the rounding of a tensor to its end computed with the masters, or
 * with noise around them: its eff become these. */
static void donor_unsoftened(Golf *from) {
    EACH_TENSOR(t, from) {
        if (!is_stored(t)) continue;
        for (int j = 0; j < t->stored_copies; j++) {
            const size_t at = t->at + (size_t)j * t->copy_n;
            if (is_rounded(from, t, j)) continue;
            memcpy(from->eff + at, from->master + at, t->copy_n * sizeof(real));
        }
    }
    EACH_SYSTEM(s, from) {
        if ((*s)->expand) (*s)->expand(from);
    }
}

/* The model of a checkpoint as a donor, as it is at the end of its training: masters, and
 * eff, what it computes with. What a system found in a donor of its own is not in the
 * file: it is found in the masters again. */
static void donor_open(Golf *from, const char *path) {
    const Checkpoint k = ckpt_open(path);
    model_check(&k.config);
    golf_layout(from, &k.config);
    if (k.count != from->n_params)
        die("%s: expected %zu parameters, found %zu", path, from->n_params, k.count);

    golf_init(from, &k.config, 1);
    memcpy(from->master, k.numbers, k.count * sizeof(real));
    free(k.file);
    EACH_SYSTEM(s, from) {
        if ((*s)->start && (*s)->wants & RES_DONOR) (*s)->start(from, NULL, 0);
    }
    from->step = k.config.steps;
    golf_quantize(from);
    donor_unsoftened(from);
}

/* Options that say what a weight does: those of the donor. */
static void same_meaning(const Golf *m, const Golf *from, const char *path) {
    static const char *const names[] = {"act", "rope"};
    for (size_t i = 0; i < COUNT(names); i++) {
        const Option *o = option_named(names[i]);
        char here[64], there[64];
        option_text(&m->config, o, here);
        option_text(&from->config, o, there);
        if (strcmp(here, there))
            die("%s: its weights were trained with --%s=%s, found --%s=%s; give the former",
                path, names[i], there, names[i], here);
    }
}

/* ---- What a run says of it. */
enum { OF_DONOR = 1, OF_FIT }; /* a tensor is copied, or fitted to the donor's */

static void print_names(FILE *to, const char *what, const Golf *m, const uint8_t *which) {
    const char *before = what;
    for (int k = 0; k < N_TENSORS; k++) {
        if (!which[k]) continue;
        fprintf(to, "%s %s", before, m->tensor[k].name);
        before = ",";
    }
    if (before != what) fputc('\n', to);
}

/* how: OF_* of every tensor */
static void print_taken(FILE *to, const Golf *m, const Golf *from, const uint8_t *how) {
    uint8_t copied[N_TENSORS], fitted[N_TENSORS], fresh[N_TENSORS], unused[N_TENSORS];
    int any = 0;
    for (int k = 0; k < N_TENSORS; k++) any |= how[k] == OF_FIT;
    for (int k = 0; k < N_TENSORS; k++) {
        const Tensor *t = m->tensor + k, *u = from->tensor + k;
        const int source = any && t->n && !is_stored(t); /* of what was fitted */
        copied[k] = how[k] == OF_DONOR;
        fitted[k] = how[k] == OF_FIT;
        fresh[k] = is_stored(t) && !how[k];
        unused[k] = is_stored(u) && !copied[k] && !source;
    }
    print_names(to, "of the donor:", m, copied);
    print_names(to, "fitted to the donor:", m, fitted);
    print_names(to, "start fresh, as the donor has none:", m, fresh);
    print_names(to, "not used of the donor:", from, unused);
}

/* Marks the tensors that systems made of the donor: other masters than before. */
static void mark_fitted(const Golf *m, const real *before, uint8_t *how) {
    for (int k = 0; k < N_TENSORS; k++) {
        const Tensor *t = m->tensor + k;
        if (!is_stored(t) || how[k]) continue;
        if (memcmp(before + t->at, m->master + t->at, t->n * sizeof(real)))
            how[k] = OF_FIT;
    }
}

/* Tells file `to` what was taken, unless it is NULL. */
static void take_from(Golf *m, const char *path, FILE *to) {
    uint8_t how[N_TENSORS] = {0};
    Golf from;

    donor_open(&from, path);
    same_meaning(m, &from, path);
    for (int k = 0; k < N_TENSORS; k++) {
        if (!is_stored(m->tensor + k) || !from.tensor[k].n) continue;
        take_tensor(m, &from, k, path);
        how[k] = OF_DONOR;
    }
    real *before = xcalloc(m->n_params, sizeof(real));
    memcpy(before, m->master, m->n_params * sizeof(real));
    EACH_SYSTEM(s, m) {
        if ((*s)->start) (*s)->start(m, &from, m->converted);
    }
    golf_quantize(m);
    EACH_SYSTEM(s, m) {
        if ((*s)->fit && m->converted) (*s)->fit(m, &from);
    }
    golf_quantize(m);
    m->flips = 0; /* they count from here on */

    mark_fitted(m, before, how);
    if (to) print_taken(to, m, &from, how);
    free(before);
    golf_free(&from);
}

/* All weights of a resumed run are in its own checkpoint, but not what a system found
 * in the donor. */
static void init_from_open(Golf *m, const Tokenizer *tok, int resumes) {
    const char *path = m->config.init_from;
    int wanted = 0;
    EACH_SYSTEM(s, m) wanted |= (*s)->wants & RES_DONOR;
    if (resumes && !wanted && access(path, R_OK)) return;
    same_tokenizer(tok, path);
    if (wanted) depends_on(m, path);
    take_from(m, path, resumes ? NULL : stdout);
}

static const System init_from_system = {.name = "init_from",
                                        .needs = "init_from",
                                        .on = init_from_on,
                                        .gives = RES_DONOR,
                                        .shape = init_from_shape,
                                        .open = init_from_open};

#elif defined TESTS
#define FLAT_DONOR "vocab=20 width=16 heads=2 mlp=2 seq=16 prelude=1 unique=4 repeat=1"
static const char *const conversions_tested[] = {"average", "lower", "stepwise"};

/* A flat model of 1 + 4 blocks away from its start, saved as flat.bin; equal: these 4
 * are the same. */
static void flat_donor(Golf *m, int equal) {
    new_model(m, FLAT_DONOR, 32);
    for (size_t i = 0; i < m->n_params; i++) m->master[i] += (real)0.1 * noise(77, i);
    for (const Tensor *t = m->tensor + T_wqkv; t < m->tensor + N_TENSORS; t++) {
        real *w = m->master + t->at;
        if (!equal || !t->n) continue;
        for (size_t j = 2; j < 5; j++) /* 0 is the prelude */
            memcpy(w + j * t->copy_n, w + t->copy_n, t->copy_n * sizeof(real));
    }
    golf_quantize(m);
    ckpt_save(m, IN("flat.bin"), 1);
}

static double converted_loss(Golf *m) {
    const int *x = tokens_below(20, 32, 80), *y = tokens_below(20, 32, 81);
    const int train = m->train;

    m->train = 0;
    const double loss = golf_forward(m, x, y, 2, 16);
    m->train = train;
    return loss;
}

/* Blocks that are equal make the same model when they are shared, whichever is taken. */
static void test_donor_of_equal_blocks(void) {
    static const struct {
        const char *text;
        int copies;
    } to[] = {{"unique=2 repeat=2", 3},
              {"unique=1 repeat=4", 2},
              {"unique=2 repeat=2 order=sequence phase=0", 3},
              {"unique=4 repeat=1", 5}};
    Golf m, b;
    char text[300];

    flat_donor(&m, 1);
    const double want = converted_loss(&m);
    for (int h = 0; h < 3; h++)
        for (int k = 0; k < 4; k++) {
            snprintf(text, sizeof text, "%s %s init_from=x convert=%s", FLAT_DONOR,
                     to[k].text, conversions_tested[h]);
            new_model(&b, text, 32);
            take_from(&b, IN("flat.bin"), NULL);
            const double loss = converted_loss(&b);
            CHECK(near(loss, want, 1e-6), "%s: loss %.9g, not %.9g", text, loss, want);
            CHECK(b.tensor[T_wo].stored_copies == to[k].copies, "%s: %d copies of wo",
                  text, b.tensor[T_wo].stored_copies);
            CHECK(b.flips == 0, "%s: what is new counts as flipped", text);
            golf_free(&b);
        }
    golf_free(&m);
}

/* Copy j of tensor k, number `at` of it. */
static double donor_number(const Golf *m, int k, int j, size_t at) {
    const Tensor *t = m->tensor + k;
    return (double)m->master[t->at + (size_t)j * t->copy_n + at];
}

/* Which blocks are taken: of 4, with 2 left, those that share one averaged, the first
 * two, or the first and the last; vectors stay those of each phase. */
static void test_donor_blocks(void) {
    static const int taken[][2] = {{0, 0}, {1, 2}, {1, 4}}; /* of average: none */
    static const int with[2][2] = {{3, 4}, {2, 4}};         /* averaged with the latter */
    static const int first[2][2] = {{1, 2}, {1, 3}};
    Golf m, b;
    char text[300];

    flat_donor(&m, 0);
    for (int i = 0; i < 6; i++) {
        const int h = i % 3, sequence = i / 3;
        snprintf(text, sizeof text, "%s unique=2 repeat=2 init_from=x convert=%s%s",
                 FLAT_DONOR, conversions_tested[h], sequence ? " order=sequence" : "");
        new_model(&b, text, 0);
        take_from(&b, IN("flat.bin"), NULL);
        for (size_t at = 0; at < m.tensor[T_wo].copy_n; at += 7) {
            double want[2];
            for (int j = 0; j < 2; j++) {
                const double sum = donor_number(&m, T_wo, first[sequence][j], at) +
                                   donor_number(&m, T_wo, with[sequence][j], at);
                want[j] = h ? donor_number(&m, T_wo, taken[h][j], at) : sum / 2;
            }
            CHECK(donor_number(&b, T_wo, 0, at) == donor_number(&m, T_wo, 0, at) &&
                      near(donor_number(&b, T_wo, 1, at), want[0], 1e-7) &&
                      near(donor_number(&b, T_wo, 2, at), want[1], 1e-7),
                  "%s takes other blocks", text);
        }
        const Tensor *t = m.tensor + T_gate_mlp;
        CHECK(!memcmp(b.master + b.tensor[T_gate_mlp].at, m.master + t->at,
                      t->n * sizeof(real)),
              "%s changes a phase's vectors", text);
        golf_free(&b);
    }
    golf_free(&m);
}

/* Stored in another way, a tensor gets what the donor multiplies with; in the same way,
 * its masters, of which its quantizer makes the same, as it would not of what it made. */
static void test_donor_storage(void) {
    static const struct {
        const char *donor, *model;
        int masters;
    } rows[] = {{"", "", 1},
                {"", "wq=none", 0},
                {"", "wq=int4", 0},
                {"", "wscale=row", 0},
                {"wq=int4", "wq=int4", 1},
                {"wq=int4", "wq=int5", 0},
                {"wq=none", "", 0},
                {"wscale=group", "wscale=group convert=average", 1},
                {"", "wq=none convert=average", 0},
                {"", "wq=none convert=lower unique=2 repeat=2", 0}};
    Golf m, b;
    char text[300];

    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof text, "%s %s", FLAT_DONOR, rows[i].donor);
        new_model(&m, text, 0);
        ckpt_save(&m, IN("flat.bin"), 1);
        snprintf(text, sizeof text, "%s init_from=x %s", FLAT_DONOR, rows[i].model);
        new_model(&b, text, 0);
        take_from(&b, IN("flat.bin"), NULL);
        const real *want = rows[i].masters ? m.master : m.eff;
        for (int k = T_wqkv; k <= T_wdown; k++)
            for (int p = 0; p < 2; p++) /* which both have */
                CHECK(!memcmp(masters_of(&b, k, p), want + copy_at(&m, k, p),
                              m.tensor[k].copy_n * sizeof(real)),
                      "'%s' made of '%s': another %s", rows[i].model, rows[i].donor,
                      m.tensor[k].name);
        golf_free(&b);
        golf_free(&m);
    }
}

/* A tensor that is not on its grid to the end is what its masters are, not noise around
 * them. */
static void test_donor_softened(void) {
    Golf m;
    new_model(&m, FLAT_DONOR, 0);
    const size_t up = copy_at(&m, T_wup, 1), down = copy_at(&m, T_wdown, 1);
    const size_t size = m.tensor[T_wup].copy_n * sizeof(real);
    real *was = memcpy(reals(size, 0), m.eff + down, size);
    m.eff[up + 3] += (real)0.01;
    donor_unsoftened(&m);
    CHECK(!memcmp(m.eff + up, m.master + up, size), "wup is not what its masters are");
    CHECK(!memcmp(m.eff + down, was, size), "wdown is not what its codes say");
    free(was);
    golf_free(&m);
}

/* What is taken, fitted, fresh and not used stands in the run's first lines. */
static void fit_embedding(Golf *m, const Golf *from) {
    (void)from;
    m->master[m->tensor[T_phase_embed].at] += 1;
}

static const System fits_one = {.name = "fitting", .on = never_on, .fit = fit_embedding};

static void switch_on(Golf *m, const System *s) {
    const System **at = m->systems;
    while (*at) at++;
    *at = s;
}

static void test_donor_report(void) {
    static const struct {
        const char *options;
        int fits;
        const char *says;
    } rows[] = {
        {"", 0,
         "of the donor: embed, wqkv, wo, wup, wdown, mix0, mix1, g_attn, q_gain, x_attn, "
         "gate_attn, g_mlp, x_mlp, gate_mlp\n"},
        {"phase_embed=1 gate=none", 0,
         "of the donor: embed, wqkv, wo, wup, wdown, mix0, mix1, g_attn, q_gain, x_attn, "
         "g_mlp, x_mlp\nstart fresh, as the donor has none: phase_embed\n"
         "not used of the donor: gate_attn, gate_mlp\n"},
        {"phase_embed=1 mix=none convert=average", 1,
         "of the donor: embed, wqkv, wo, wup, wdown, g_attn, q_gain, x_attn, gate_attn, "
         "g_mlp, x_mlp, gate_mlp\nfitted to the donor: phase_embed\n"
         "not used of the donor: mix0, mix1\n"}};
    Golf m;
    char text[300];

    flat_donor(&m, 0);
    golf_free(&m);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char *said = NULL;
        size_t len = 0;
        FILE *to = open_memstream(&said, &len);
        snprintf(text, sizeof text, "%s init_from=x %s", FLAT_DONOR, rows[i].options);
        new_model(&m, text, 0);
        if (rows[i].fits) switch_on(&m, &fits_one);
        take_from(&m, IN("flat.bin"), to);
        fclose(to);
        CHECK(!strcmp(said, rows[i].says), "%s: it says: %s", text, said);
        free(said);
        golf_free(&m);
    }
}

/* What other systems are told, by one that was never on. */
static const Golf *told_from;
static int told_convert, told_masters;

static void hear_start(Golf *m, const Golf *from, int convert) {
    told_from = from;
    told_convert = convert;
    told_masters = from && from->master[0] == m->master[0]; /* copied before */
}

static const System hears_start = {
    .name = "hearing", .on = never_on, .start = hear_start};

static const System wants_donor = {.name = "wanting", .on = never_on, .wants = RES_DONOR};

static void test_donor_told(void) {
    static const char *const how[] = {"none", "average"};
    Golf m, b;
    char text[300];

    flat_donor(&m, 0);
    for (int convert = 0; convert < 2; convert++) {
        snprintf(text, sizeof text, "%s init_from=x convert=%s", FLAT_DONOR,
                 how[convert]);
        new_model(&b, text, 0);
        switch_on(&b, &hears_start);
        told_from = NULL;
        take_from(&b, IN("flat.bin"), NULL);
        CHECK(told_from && told_masters && told_convert == convert &&
                  b.converted == convert,
              "%s: start was told %d, masters %d", text, told_convert, told_masters);
        CHECK(!memcmp(b.master, m.master, m.n_params * sizeof(real)), "%s: other masters",
              text);
        golf_free(&b);
    }
    golf_free(&m);
}

/* At resume a donor that is gone is missed only by a system that wants it. */
static void test_donor_at_resume(void) {
    Golf m, b;

    flat_donor(&m, 0);
    write_hand_model(IN("hand.model"));
    const Tokenizer *tok = tokenizer_load(IN("hand.model"));
    const char *text = expanded(FLAT_DONOR " init_from=@/flat.bin");
    new_model(&b, text, 0);
    init_from_open(&b, tok, 1);
    CHECK(!memcmp(b.master, m.master, m.n_params * sizeof(real)),
          "not read again at resume");
    golf_free(&b);

    text = expanded(FLAT_DONOR " init_from=@/gone.bin");
    new_model(&b, text, 0);
    const real was = b.master[0];
    CHECK(STATUS(init_from_open(&b, tok, 1)) == 0, "resumed without its donor: %s",
          message);
    init_from_open(&b, tok, 1);
    CHECK(b.master[0] == was, "resumed without its donor: masters changed");
    DIES("a start without its donor", "gone.bin|cannot open", init_from_open(&b, tok, 0));
    switch_on(&b, &wants_donor);
    DIES("resumed, a donor wanted", "gone.bin|cannot open", init_from_open(&b, tok, 1));
    golf_free(&b);
    golf_free(&m);
}

/* Donors that do not fit, or were trained with another tokenizer. */
static void test_donor_refused(void) {
    static const struct {
        const char *options, *says;
    } rows[] = {{"width=24", "flat.bin|--width|embed has"},
                {"act=relu", "flat.bin|--act=relu2|--act=relu;"},
                {"rope=half", "flat.bin|--rope=full|--rope=half"},
                {"unique=2", "flat.bin|wqkv has 5 x|and 3 x|--convert"},
                {"unique=2 repeat=3 convert=lower", "flat.bin|7 phases, found 5"},
                {"hidden=40 convert=average", "flat.bin|wup has|--hidden"}};
    Golf m, b;
    char text[300];

    flat_donor(&m, 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof text, "%s init_from=x %s", FLAT_DONOR, rows[i].options);
        new_model(&b, text, 0);
        DIES(text, rows[i].says, take_from(&b, IN("flat.bin"), NULL));
        golf_free(&b);
    }

    new_model(&b, FLAT_DONOR " init_from=x convert=average", 0);
    b.tensor[T_wo].per = PER_OTHER; /* as a system might count its copies */
    DIES("copies of another kind", "flat.bin|wo has", take_from(&b, IN("flat.bin"), NULL));
    golf_free(&b);

    mkdir(IN("other"), 0777);
    ckpt_save(&m, IN("other/flat.bin"), 1);
    put_file(IN("other/tokenizer.model"), "x", 1);
    write_hand_model(IN("hand.model"));
    const Tokenizer *tok = tokenizer_load(IN("hand.model"));
    new_model(&b, expanded(FLAT_DONOR " init_from=@/other/flat.bin"), 0);
    DIES("another tokenizer", "other/flat.bin|tokenizer", init_from_open(&b, tok, 0));
    golf_free(&b);
    golf_free(&m);
}
#undef FLAT_DONOR

static const SystemTests init_from_tests = {
    .errors =
        (const char *const[][2]){{"--convert=average", "--convert|--init_from"},
                                 {"--init_from=@/none.bin", "none.bin|cannot open"},
                                 {"--init_from=@/export/tokenizer.model",
                                  "tokenizer.model|expected a checkpoint"},
                                 {"--init_from=x --convert=mean", "--convert|stepwise"},
                                 {NULL, NULL}},
    .tests = (const Test[]){{"equal blocks", test_donor_of_equal_blocks},
                            {"blocks taken", test_donor_blocks},
                            {"storage", test_donor_storage},
                            {"softened", test_donor_softened},
                            {"report", test_donor_report},
                            {"systems", test_donor_told},
                            {"resumed", test_donor_at_resume},
                            {"refused", test_donor_refused},
                            {NULL, NULL}}};
#elif defined BUGS
bug masters-of-another-storage float "init_from: storage" "$(in_ numbers_for)s/stored_alike(m, from, k)/1/"
bug codes-of-the-same-storage float "init_from: storage" "$(in_ numbers_for)s/stored_alike(m, from, k)/0/"
bug storage-of-any-scale float "init_from: storage" "$(in_ stored_alike)s/t->line == u->line/1/" "$(in_ stored_alike)s/t->group == u->group/1/"
bug storage-of-any-bits float "init_from: storage" "$(in_ stored_alike)s/t->bits == u->bits/1/"
bug masters-lose-the-rounding float combined "$(in_ numbers_for)s/stored_alike(m, from, k)/1/"
bug noise-of-the-donor float "init_from: softened" "$(in_ donor_unsoftened)s/memcpy(.*/;/"
bug all-of-the-donor-softened float "init_from: softened" "$(in_ is_rounded)s/return same;/return 0;/"
bug fresh-tensors-unsaid float "init_from: report" "$(in_ print_taken)s/fresh\[k\] = .*/fresh[k] = 0;/"
bug unused-tensors-unsaid float "init_from: report" "$(in_ print_taken)s/unused\[k\] = .*/unused[k] = 0;/"
bug fitted-tensors-unsaid float "init_from: report" "$(in_ mark_fitted)s/how\[k\] = OF_FIT;/;/"
bug average-of-the-first double "blocks taken" "$(in_ convert_copy)s/if (copy_of(m, t, p) == j)/if (p == first)/"
bug mean-not-divided double "blocks taken" "$(in_ add_of_donor)s|v\[i\] / (real)count|v[i]|"
bug stepwise-is-lower double "blocks taken" "$(in_ phase_taken)s/c->convert != CONVERT_STEPWISE/1/"
bug lower-of-each-sequence double "blocks taken" \
    "$(in_ convert_copy)s/phase_taken(&m->config, j)/(m->config.convert == CONVERT_LOWER ? first : phase_taken(\&m->config, j))/"
bug prelude-forgotten double "blocks taken" "$(in_ phase_taken)s/return c->prelude + (b/return (b/"
bug donor-of-the-blocks double "blocks taken" "$(in_ add_of_donor)s/copy_at(from, k, p)/copy_at(from, k, MIN(p, 1))/"
bug donor-of-another-activation float "init_from: refused" "$(in_ take_from)s/same_meaning(m, &from, path);//"
bug others-not-started double "init_from: systems" "$(in_ take_from)s/if ((\*s)->start)/if (0)/"
bug others-not-fitted float "init_from: report" "$(in_ take_from)s/if ((\*s)->fit \&\&/if (0 \&\&/"
bug flips-since-random float "equal blocks" "$(in_ take_from)s/m->flips = 0;//"
bug donor-always-needed float resumed "$(in_ init_from_open)s/resumes && !wanted/0 \&\& !wanted/"
bug donor-never-missed float resumed "$(in_ init_from_open)s/resumes && !wanted/resumes/"
bug donor-of-any-shape float refused "$(in_ same_copies)s/return 0;/return 1;/"
bug experts-as-blocks float refused "$(in_ same_copies)s/if (!other)/if (1)/"
#endif
