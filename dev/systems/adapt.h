/* adapt.h - score first, then learn: a model that goes on learning from the text that it is
 * scored on, as in dynamic evaluation (Krause et al., 1709.07432, 1904.08378) and the
 * test-time training of Parameter Golf's records.
 *
 *   eval --adapt=WHAT    rows are scored, --adapt_rows at a time; then follows a gradient
 *                        step on their loss, and the next ones are scored with what was
 *                        learnt. WHAT: interface, embedding, both, or all that is stored
 *   --adapt_lr=R         rates, as part of 0.005 for embedding and interface (AdamW), 0.03
 *                        for projections (Muon; 0.004 with --adapt_optimizer=adamw) and
 *                        0.004 for factors of systems: those of training
 *   --adapt_reset=document   what was learnt is forgotten where a document starts
 *
 * It is a score of its own, adapt_bpb, printed besides val_bpb. The file alone is what it
 * starts from. It keeps the conditions of a score, which --certify=1 proves: no token is
 * learnt before it is scored, so that a score depends on tokens before it alone; each is
 * that of a distribution over the whole vocabulary; the text is scored once, in one pass.
 * With --stride a step is on windows that do not overlap: no token is learnt twice.
 *
 * While it learns a weight is a plain number, which starts as what the file's code stands
 * for and is not rounded again: memory is not what a cap is for, and the scale of ternary
 * weights, taken anew as their mean |w|, would shrink. So from the first step on what learns
 * multiplies in floating point; before it codes do, and the first rows have the very scores
 * of val_bpb. Inputs of projections are quantized as ever.
 *
 * The optimizers are those of training without momentum, which comes too late here: AdamW
 * with beta1 = 0, beta2 = 0.99 and an epsilon of 0.001 for gradients whose norm is clipped
 * to 1, which is the papers' RMS-normalised step; Muon with momentum 0. What does not learn
 * has no part in the norm. Moments start at 0, rates are constant.
 *
 * Where a document starts in rows that were scored, the file's weights come back before the
 * step on these rows, whose end is the new document's.
 *
 * With --eval_repeat gradients are those of the phases that are scored; with more uses than
 * were trained, those of the trained ones.
 *
 * Cost: a second model, made for training, and four times the time of an evaluation or
 * more. Differs from the papers: statistics of squares are those of the scored text, as a
 * file brings none of training's, and nothing pulls weights back to where they started. */
#ifdef OPTIONS
X(EVAL, INT, adapt, "none", "none|interface|embedding|both|all",
  "score, then learn: adapt_bpb besides val_bpb")
X(EVAL, NUM, adapt_lr, "0.5", "0 to 10", "its rates, as part of those of training")
X(EVAL, INT, adapt_rows, "1", "1 to 16", "rows that are scored before each step")
X(EVAL, INT, adapt_reset, "never", "never|document", "when to forget what was learnt")
X(EVAL, INT, adapt_optimizer, "muon", "muon|adamw", "of the projections")

#elif defined MEANINGS
M(adapt_lr, c->adapt != ADAPT_NONE, "without --adapt")
M(adapt_rows, c->adapt != ADAPT_NONE, "without --adapt")
M(adapt_reset, c->adapt != ADAPT_NONE, "without --adapt")
M(adapt_optimizer, c->adapt == ADAPT_ALL, "without --adapt=all")

#elif defined LIST
X(adapt)

#elif defined CODE
enum { ADAPT_NONE, ADAPT_INTERFACE, ADAPT_EMBEDDING, ADAPT_BOTH, ADAPT_ALL };
enum { ADAPT_NEVER, ADAPT_DOCUMENT };
enum { ADAPT_MUON, ADAPT_ADAMW };

/* In place of AdamW's epsilon. */
static const double adapt_epsilon = 1e-3;

static const System adapt_system;

typedef struct {
    Golf learner; /* the same model, made for training */
    int what, optimizer;
    int start_token; /* forget where it stands; -1: nowhere */
    real *file;      /* (n_params) the file's weights */
    int *x, *y;      /* (most,seq) scored rows, and their targets, that wait for a step */
    int rows, most;
    int64_t next; /* the token behind the last of them, or of those learnt */
    int step;     /* since the file's weights */
    int64_t steps, resets;
} Adapt;

static int adapt_never_on(const Config *c) {
    (void)c;
    return 0;
}

static int adapt_learns(const Adapt *a, const Tensor *t) {
    const int interface = t->role == INTERFACE, embedding = t->role == EMBED;
    if (!is_stored(t)) return 0;
    if (a->what == ADAPT_ALL) return 1;
    if (a->what == ADAPT_BOTH) return interface || embedding;
    return a->what == ADAPT_INTERFACE ? interface : embedding;
}

/* ---- The learner. */
/* A file says nothing about how it was trained. These numbers are not the defaults of
 * training, which may change, so that a score can be had again. */
static Config adapt_config(const Golf *m, const Config *how) {
    Config c = m->config;
    c.lr = 0.004 * how->adapt_lr;
    c.lr_muon = 0.03 * how->adapt_lr;
    c.lr_embed = c.lr_interface = 0.005 * how->adapt_lr;
    c.optimizer = how->adapt_optimizer == ADAPT_MUON ? OPT_MUON : OPT_ADAMW;
    c.momentum = 0;
    c.beta1 = 0;
    c.beta2 = 0.99;
    c.wd = 0;
    c.clip = 1;
    c.bwd = BWD_INT16;
    c.recompute = 0;
    c.steps = INT32_MAX; /* constant rates, as the end is not known */
    c.schedule = SCHED_LINEAR;
    c.warmup = c.warmdown = 0;
    return c;
}

/* Weights are what the masters are. Of those that do not learn, these are the file's. */
static void adapt_soften(Golf *l) {
    memcpy(l->eff, l->master, l->n_params * sizeof(real));
}

/* These are no codes from here on, and nothing masks their gradients. */
static void adapt_let_learn(const Adapt *a, Golf *m) {
    EACH_TENSOR(t, m) {
        if (!adapt_learns(a, t)) continue;
        t->float_only = 1;
        t->passes = NULL;
    }
}

/* Back to the file's weights, with nothing learnt. */
static void adapt_restart(Adapt *a) {
    Golf *l = &a->learner;
    const size_t bytes = l->n_params * sizeof(real);
    memcpy(l->master, a->file, bytes);
    memset(l->moment1, 0, bytes);
    memset(l->moment2, 0, bytes);
    a->step = 0;
    a->rows = 0;
    golf_use(l);
}

static void adapt_make_learner(Adapt *a, const Golf *m, const Config *how) {
    const Config c = adapt_config(m, how);
    Golf *l = &a->learner;
    golf_init(l, &c, 1);
    join(l, &adapt_system);
    memcpy(l->code, m->code, m->n_params);
    memcpy(l->scale, m->scale, m->n_scales * sizeof(real));
    for (int k = 0; k < N_TENSORS; k++)
        l->tensor[k].float_only = m->tensor[k].float_only;
    adapt_let_learn(a, l);
    if (m->n_visits < l->n_visits) {
        l->n_visits = m->n_visits;
        memcpy(l->visits, m->visits, sizeof(int) * (size_t)m->n_visits);
    }
    golf_buffers(l, m->N);
    adapt_restart(a);
}

/* ---- The model that is scored. */
/* Before the first step it computes as the file says. */
static void adapt_follow(Golf *m, const Adapt *a) {
    adapt_let_learn(a, m);
    memcpy(m->eff, a->learner.eff, m->n_params * sizeof(real));
    golf_pack(m);
}

/* Of the gradient what is to learn. */
static void adapt_drop_others(const Adapt *a, Golf *l) {
    EACH_TENSOR(t, l) {
        if (!adapt_learns(a, t)) memset(l->grad + t->at, 0, t->n * sizeof(real));
    }
}

/* Of the rows that wait. */
static void adapt_step(Adapt *a) {
    Golf *l = &a->learner;
    const int T = l->config.seq;
    golf_forward(l, a->x, a->y, a->rows, T);
    golf_backward(l, a->x, a->rows, T);
    adapt_drop_others(a, l);
    const double norm = golf_grad_norm(l), most = l->config.clip;
    if (!(norm < 1e18))
        die("--adapt: a gradient of norm %g behind %lld steps: what is learnt diverges; "
            "lower --adapt_lr",
            norm, (long long)a->steps);
    const double scale = norm > most ? most / norm : 1;
    golf_adamw(l, a->step, scale * adamw_epsilon(&l->config, ADAMW_EPSILON) / adapt_epsilon);
    if (a->what == ADAPT_ALL && a->optimizer == ADAPT_MUON)
        golf_muon(l, a->step, scale);
    a->rows = 0;
    a->step++;
    a->steps++;
    golf_use(l);
}

/* Among what is new. */
static int adapt_starts_document(const Golf *m, const Adapt *a, const Rows *r) {
    for (int n = 0; n < r->B * r->T; n++)
        if (r->y[n] == a->start_token && is_new(m, r, n)) return 1;
    return 0;
}

/* Rows wait until there are enough for a step, but for those of which a part did. */
static void adapt_learn(Golf *m, const Rows *r) {
    Adapt *a = m->own[SYS_adapt];
    const int T = r->T;
    if (T < m->config.seq) return; /* the end of the text */
    if (adapt_starts_document(m, a, r)) {
        adapt_restart(a);
        a->resets++;
    }
    for (int b = 0; b < r->B; b++) {
        const int64_t at = place_in_text(r, b * T);
        const size_t row = sizeof(int) * (size_t)T;
        if (at < a->next) continue;
        memcpy(a->x + a->rows * T, r->x + b * T, row);
        memcpy(a->y + a->rows * T, r->y + b * T, row);
        a->rows++;
        a->next = at + T;
        if (a->rows < a->most) continue;
        adapt_step(a);
        adapt_follow(m, a);
    }
}

/* What is packed again from its weights must be what it was. */
static void adapt_refuse_changed(Golf *m) {
    const size_t bytes = (size_t)m->phases * m->n_interface * sizeof(real);
    real *was = memcpy(xcalloc(bytes, 1), m->interface, bytes);
    golf_pack(m);
    if (memcmp(was, m->interface, bytes))
        die("--adapt: expected a model as its file has it, found one that another option "
            "of eval changes; leave that out");
    free(was);
}

static size_t adapt_tokens(const Golf *m, const Config *how) {
    return (size_t)how->adapt_rows * (size_t)m->config.seq;
}

static void adapt_check(Golf *m, const Tokenizer *tok, const Config *how) {
    if (how->adapt == ADAPT_NONE) return;
    if (adapt_tokens(m, how) > m->N)
        die("--adapt_rows=%d: expected at most %zu rows of %d tokens; lower it",
            how->adapt_rows, m->N / (size_t)m->config.seq, m->config.seq);
    if (how->adapt_reset == ADAPT_DOCUMENT && tok->bos < 0)
        die("--adapt_reset=document: %s has no piece that starts a document; leave it out",
            tok->path);
    adapt_refuse_changed(m);
}

static int adapt_again(Golf *m, const Tokenizer *tok, const Config *how) {
    const size_t N = adapt_tokens(m, how);
    if (how->adapt == ADAPT_NONE) return 0;
    Adapt *a = owned(m, 1, sizeof(Adapt));
    m->N = N; /* rows that are scored together */
    m->own[SYS_adapt] = a;
    a->what = how->adapt;
    a->optimizer = how->adapt_optimizer;
    a->start_token = how->adapt_reset == ADAPT_DOCUMENT ? tok->bos : -1;
    a->most = how->adapt_rows;
    a->x = owned(m, 2 * N, sizeof(int));
    a->y = a->x + N;
    a->file = owned_reals(m, m->n_params);
    memcpy(a->file, m->eff, m->n_params * sizeof(real));
    adapt_make_learner(a, m, how);
    join(m, &adapt_system);
    return 1;
}

static void adapt_release(Golf *m) { /* the learner has no learner */
    Adapt *a = m->own[SYS_adapt];
    if (a) golf_free(&a->learner);
}

static void adapt_report(const Golf *m, const Score *s, FILE *f) {
    const Adapt *a = m->own[SYS_adapt];
    size_t numbers = 0;
    (void)s;
    EACH_TENSOR(t, m) numbers += adapt_learns(a, t) ? t->n : 0;
    fprintf(f, "adapt_numbers %zu\nadapt_steps %lld\nadapt_resets %lld\n", numbers,
            (long long)a->steps, (long long)a->resets);
}

static const System adapt_system = {.name = "adapt",
                                    .needs = "adapt",
                                    .on = adapt_never_on,
                                    .check_again = adapt_check,
                                    .again = adapt_again,
                                    .soften = adapt_soften,
                                    .learn = adapt_learn,
                                    .report = adapt_report,
                                    .release = adapt_release};

#elif defined TESTS
enum { ADAPT_V = HAND_VOCAB, ADAPT_T = 16, ADAPT_MOST = 400 };

/* The scores that an evaluation gave its targets. */
static real adapt_heard[ADAPT_MOST];
static void adapt_hear(Golf *m, int n, int64_t target) {
    adapt_heard[target] = m->loss[n];
}
static const System adapt_hearing = {.name = "hearing", .scored = adapt_hear};

/* A file: adapt.golf. */
static void adapt_write(const char *options_text) {
    char text[512];
    Golf m;
    snprintf(text, sizeof text, "vocab=266 width=16 heads=2 mlp=2 seq=16 %s%s",
             strstr(options_text, "repeat") ? "" : "repeat=2 ", options_text);
    new_model(&m, text, 0);
    stir(&m);
    golf_quantize(&m);
    golf_save(&m, IN("adapt.golf"),
              tokenizer_load(IN("export/tokenizer.model"))->crc);
    golf_free(&m);
}

/* The model of the file, ready to be scored with options of `eval`. Returns 1 if it is to
 * learn. */
static int adapt_open(Golf *m, Config *how, const char *options_text) {
    char *argv[16], *save, *text = strdup(options_text);
    int argc = 0;
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    parse_options(how, argc, argv, EVAL);
    golf_load(m, IN("adapt.golf"));
    ready_to_score(m, how);
    join(m, &adapt_hearing);
    adapt_check(m, tokenizer_load(IN("export/tokenizer.model")), how);
    return adapt_again(m, tokenizer_load(IN("export/tokenizer.model")), how);
}

/* Scores the text of folder `data`; the model is left to be looked at. */
static Score adapt_score(Golf *m, const char *data, const char *options_text) {
    Config how;
    adapt_open(m, &how, options_text);
    memset(adapt_heard, 0, sizeof adapt_heard);
    return golf_eval(m, tokenizer_load(IN("export/tokenizer.model")),
                     shards_open(IN(data), "val", ADAPT_V), how.stride, how.val_tokens);
}

static double adapt_nll(const char *data, const char *options_text) {
    Golf m;
    const double nll = adapt_score(&m, data, options_text).nll;
    golf_free(&m);
    return nll;
}

/* How many of the targets [from, to) have the scores of `loss`. */
static int adapt_same(const real *loss, int from, int to) {
    int same = 0;
    for (int i = from; i < to; i++) same += loss[i] == adapt_heard[i];
    return same;
}

/* The first rows have the scores of the file, to the bit; those behind have others. */
static void test_adapt_first_rows(void) {
    static const char *const arms[] = {"", "wq=int4 aq=int4 embed_bits=4",
                                       "wq=none aq=none embed_bits=16",
                                       "unique=2 act=swiglu extra_norm=each"};
    static const char *const with[] = {
        "--adapt=interface", "--adapt=embedding", "--adapt=both", "--adapt=all",
        "--adapt=all --adapt_optimizer=adamw --adapt_rows=5"};
    static const int ends[] = {17, 17, 17, 17, 81};
    real plain[ADAPT_MOST];
    for (size_t a = 0; a < COUNT(arms); a++) {
        adapt_write(arms[a]);
        const double nll = adapt_nll("export", "");
        memcpy(plain, adapt_heard, sizeof plain);
        for (size_t w = 0; w < COUNT(with); w++) {
            const int end = ends[w];
            const double learnt = adapt_nll("export", with[w]);
            CHECK(adapt_same(plain, 1, end) == end - 1, "'%s' %s: %d of the first %d",
                  arms[a], with[w], adapt_same(plain, 1, end), end - 1);
            CHECK(adapt_same(plain, end, 321) < 100 && learnt != nll,
                  "'%s' %s: it learns nothing", arms[a], with[w]);
        }
    }
}

/* Without a rate nothing is learnt. The interface is made of numbers, anyway; weights
 * multiply as numbers where codes did, and round elsewhere. */
static void test_adapt_rate_0(void) {
    real plain[ADAPT_MOST];
    adapt_write("");
    const double nll = adapt_nll("export", "");
    memcpy(plain, adapt_heard, sizeof plain);
    adapt_nll("export", "--adapt=interface --adapt_lr=0");
    CHECK(adapt_same(plain, 1, 321) == 320, "interface: %d of 320 scores",
          adapt_same(plain, 1, 321));
    const double all = adapt_nll("export", "--adapt=all --adapt_lr=0");
    CHECK(fabs(all / nll - 1) < 1e-4, "all: %.9g nats, not %.9g", all, nll);
}

/* What learns is what was asked for. */
static void test_adapt_tensors(void) {
    static const char *const sets[] = {"interface", "embedding", "both", "all"};
    Golf m, file;
    adapt_write("wq=int4");
    golf_load(&file, IN("adapt.golf"));
    for (int w = 0; w < 4; w++) {
        char with[64];
        snprintf(with, sizeof with, "--adapt=%s", sets[w]);
        adapt_score(&m, "export", with);
        EACH_TENSOR(t, &m) {
            const int learns[] = {t->role == INTERFACE, t->role == EMBED,
                                  t->role == INTERFACE || t->role == EMBED, 1};
            size_t moved = 0;
            if (!is_stored(t)) continue;
            for (size_t i = t->at; i < t->at + t->n; i++) moved += m.eff[i] != file.eff[i];
            CHECK((moved > t->n / 2) == learns[w] && (moved > 0) == learns[w],
                  "%s: %zu numbers of %zu of %s move", sets[w], moved, t->n, t->name);
            CHECK(!learns[w] || t->float_only, "%s: %s is still multiplied as codes",
                  sets[w], t->name);
        }
        golf_free(&m);
    }
    golf_free(&file);
}

/* The first step of AdamW: rate * g / (|g| + epsilon), with g clipped by the norm of what
 * learns. */
static void test_adapt_first_step(void) {
    static const struct {
        const char *options;
        int tensor;
        double rate;
    } rows[] = {{"--adapt=embedding", T_embed, 0.005},
                {"--adapt=interface", T_gate_mlp, 0.005},
                {"--adapt=both", T_q_gain, 0.005},
                {"--adapt=all --adapt_optimizer=adamw", T_wup, 0.004}};
    adapt_write("");
    for (size_t i = 0; i < COUNT(rows); i++) {
        char with[128];
        double worst = 0;
        Golf m;
        snprintf(with, sizeof with, "%s --adapt_lr=0.1 --val_tokens=16", rows[i].options);
        adapt_score(&m, "export", with);
        const Adapt *a = m.own[SYS_adapt];
        const Tensor *t = m.tensor + rows[i].tensor;
        const double norm = golf_grad_norm(&a->learner);
        for (size_t k = t->at; k < t->at + t->n; k++) {
            const double g = (double)a->learner.grad[k] / fmax(1, norm);
            const double want = -0.1 * rows[i].rate * g / (fabs(g) + 1e-3);
            const double moved = (double)(m.eff[k] - a->file[k]);
            worst = worse(worst, fabs(moved - want) / rows[i].rate);
        }
        CHECK(a->step == 1 && norm > 1 && worst < 1e-4, "%s: norm %g, off by %g", with, norm,
              worst);
        golf_free(&m);
    }
}

/* It is the same however long the text is. */
static void test_adapt_constant_rate(void) {
    Golf m;
    Config how;
    adapt_write("");
    adapt_open(&m, &how, "--adapt=all");
    const Adapt *a = m.own[SYS_adapt];
    for (int step = 0; step < 1000000000; step = 10 * step + 1)
        CHECK(lr_factor(&a->learner.config, step) == 1, "step %d: %g", step,
              lr_factor(&a->learner.config, step));
    golf_free(&m);
}

/* The learner goes through the phases that are scored, if it has them. */
static void test_adapt_depth(void) {
    static const int scored[] = {2, 0}, more[] = {0, 1, 2, 2, 2};
    for (int i = 0; i < 2; i++) {
        Golf m;
        Config how;
        adapt_write("repeat=3");
        adapt_open(&m, &how, "");
        m.n_visits = i ? 5 : 2;
        m.visits = owned(&m, 5, sizeof(int));
        memcpy(m.visits, i ? more : scored, sizeof(int) * (size_t)m.n_visits);
        how.adapt = ADAPT_ALL;
        adapt_again(&m, tokenizer_load(IN("export/tokenizer.model")), &how);
        const Golf *l = &((Adapt *)m.own[SYS_adapt])->learner;
        const int same = !memcmp(l->visits, i ? more : scored, 2 * sizeof(int));
        CHECK(same && l->n_visits == (i ? 3 : 2), "%d phases", l->n_visits);
        golf_free(&m);
    }
}

/* Whatever masks gradients of rounded weights does not mask these. */
static void adapt_masks(uint8_t *mask, const real *w, int n, real s, const Tensor *t) {
    (void)w;
    (void)s;
    (void)t;
    memset(mask, 0, (size_t)n);
}

static void test_adapt_masks(void) {
    Golf m;
    Adapt a = {.what = ADAPT_EMBEDDING};
    new_model(&m, "vocab=266 width=16 heads=2 seq=16", 0);
    EACH_TENSOR(t, &m) t->passes = adapt_masks;
    adapt_let_learn(&a, &m);
    EACH_TENSOR(t, &m) {
        const int learns = t->role == EMBED;
        CHECK((t->passes == NULL) == learns && t->float_only == learns, "%s", t->name);
    }
    golf_free(&m);
}

/* The gradient is that of the loss with plain numbers for weights: finite differences. */
typedef struct {
    Golf *learner;
    const int *x, *y;
} AdaptProbe;

static double adapt_loss(void *arg) {
    const AdaptProbe *p = arg;
    golf_use(p->learner);
    return golf_forward(p->learner, p->x, p->y, 2, ADAPT_T);
}

static void adapt_check_gradients(const char *arm) {
    Golf m;
    Config how;
    adapt_write(arm);
    adapt_open(&m, &how, "--adapt=all --adapt_rows=2");
    Adapt *a = m.own[SYS_adapt];
    Golf *l = &a->learner;
    AdaptProbe p = {l, tokens_below(ADAPT_V, 32, 80), tokens_below(ADAPT_V, 32, 81)};
    /* sums of codes are often exactly 0, where relu^2 has its kink: step off it */
    for (size_t i = 0; i < l->n_params; i++) l->master[i] += (real)1e-2 * noise(5, i);
    adapt_loss(&p);
    golf_backward(l, p.x, 2, ADAPT_T);
    real *g = memcpy(reals(l->n_params, 0), l->grad, l->n_params * sizeof(real));
    EACH_TENSOR(t, l) {
        const size_t n = MIN(t->n, 8); /* where differences do not drown */
        size_t most = t->at;
        if (!is_stored(t)) continue;
        for (size_t i = t->at; i < t->at + t->n; i++)
            if (fabs(g[i]) > fabs(g[most])) most = i;
        const size_t at = MIN(most, t->at + t->n - n);
        const double e = grad_error(l->master + at, g + at, n, adapt_loss, &p);
        CHECK(e <= GRAD_TOL, "gradient of %s of %s: %.3g", t->name, arm, e);
    }
    free(g);
    golf_free(&m);
}

static void test_adapt_gradients(void) {
    if (!DOUBLE) return;
    adapt_check_gradients("aq=none embed_bits=4");
    adapt_check_gradients("aq=none wq=int4 unique=2 act=silu");
}

/* A text that repeats is learnt. */
static void adapt_write_repeating(void) {
    int t[333];
    for (int i = 0; i < 333; i++) t[i] = 4 + (int)(hash64(1, (uint64_t)(i % 24)) % 250);
    mkdir(IN("repeating"), 0777);
    write_shard(IN("repeating/x_val_000000.bin"), t, 333);
}

static void test_adapt_helps(void) {
    static const char *const with[] = {"--adapt=interface", "--adapt=embedding",
                                       "--adapt=both", "--adapt=all",
                                       "--adapt=all --adapt_optimizer=adamw"};
    adapt_write_repeating();
    adapt_write("");
    const double plain = adapt_nll("repeating", "");
    for (size_t i = 0; i < COUNT(with); i++) {
        char line[128];
        snprintf(line, sizeof line, "%s --adapt_lr=1", with[i]);
        const double nll = adapt_nll("repeating", line);
        CHECK(nll < 0.97 * plain, "%s: %g nats, %g without", line, nll, plain);
    }
}

/* Twelve rows, and a target of the fifth starts a document; and the same from the fifth
 * row on. */
enum { ADAPT_DOCUMENT_ROW = 4 * ADAPT_T, ADAPT_DOCUMENT_N = 1 + 12 * ADAPT_T };
static void adapt_write_documents(void) {
    const int at = ADAPT_DOCUMENT_ROW, n = ADAPT_DOCUMENT_N;
    int *t = tokens_below(250, (size_t)n, 5);
    for (int i = 0; i < n; i++) t[i] += 4;
    t[at + 7] = 1;
    mkdir(IN("document"), 0777);
    mkdir(IN("documents"), 0777);
    write_shard(IN("documents/x_val_000000.bin"), t, n);
    write_shard(IN("document/x_val_000000.bin"), t + at, n - at);
    free(t);
}

/* Behind rows with the start of a document all is as if the text started with these rows. */
static void test_adapt_documents(void) {
    enum { N = ADAPT_DOCUMENT_N, AT = ADAPT_DOCUMENT_ROW };
    real whole[ADAPT_MOST] = {0};
    adapt_write_documents();
    adapt_write("");
    for (int stride = 0; stride <= ADAPT_T; stride += ADAPT_T) { /* the same rows */
        char with[128];
        snprintf(with, sizeof with,
                 "--adapt=all --adapt_rows=2 --adapt_reset=document --stride=%d", stride);
        adapt_nll("documents", with);
        memcpy(whole, adapt_heard, sizeof whole);
        adapt_nll("document", with);
        CHECK(adapt_same(whole + AT, 1 + 2 * ADAPT_T, N - AT) == 6 * ADAPT_T,
              "stride %d: %d of %d scores", stride,
              adapt_same(whole + AT, 1 + 2 * ADAPT_T, N - AT), 6 * ADAPT_T);
        CHECK(adapt_same(whole + AT, 1, 1 + 2 * ADAPT_T) < ADAPT_T,
              "stride %d: it forgets before it has scored", stride);
    }
    Golf m;
    adapt_score(&m, "documents", "--adapt=all --adapt_rows=2 --adapt_reset=document");
    const Adapt *a = m.own[SYS_adapt];
    CHECK(a->resets == 1 && a->steps == 6 && a->step == 4, "%d resets, %d steps, %d of them",
          (int)a->resets, (int)a->steps, a->step);
    golf_free(&m);
    adapt_nll("documents", "--adapt=all --adapt_rows=2");
    CHECK(adapt_same(whole, AT + 1 + 2 * ADAPT_T, N) < ADAPT_T, "it forgets, unasked");
}

/* In windows that overlap a document starts once. */
static void test_adapt_documents_once(void) {
    Golf m;
    adapt_write("");
    adapt_write_documents();
    adapt_score(&m, "documents", "--adapt=all --adapt_reset=document --stride=3");
    const Adapt *a = m.own[SYS_adapt];
    CHECK(a->resets == 1 && a->step < a->steps, "%d resets, %d steps", (int)a->resets,
          (int)a->steps);
    golf_free(&m);
}

/* Rows of the last document that wait for a step are forgotten: windows at 0, 8, 16, ..., in
 * steps of two that do not overlap, and a start that is scored when the one at 32 waits. */
static void test_adapt_waiting(void) {
    enum { AT = 48, N = ADAPT_DOCUMENT_N };
    static const char *const with =
        "--adapt=all --adapt_rows=2 --adapt_reset=document --stride=8";
    real whole[ADAPT_MOST];
    adapt_write("");
    adapt_write_documents();
    int *t = xcalloc(N, sizeof(int));
    shards_read(shards_open(IN("documents"), "val", ADAPT_V), 0, N, t);
    mkdir(IN("waiting"), 0777);
    write_shard(IN("waiting/x_val_000000.bin"), t + AT, N - AT);
    adapt_nll("documents", with);
    memcpy(whole, adapt_heard, sizeof whole);
    adapt_nll("waiting", with);
    CHECK(adapt_same(whole + AT, 49, N - AT) == N - AT - 49, "%d of %d scores",
          adapt_same(whole + AT, 49, N - AT), N - AT - 49);
    CHECK(adapt_same(whole + AT, 1, 49) < 49, "it forgets nothing");
    free(t);
}

/* Windows that overlap are not learnt from: of those at 0, 3, 6, ... of 16 tokens the ones
 * at 0, 18, 36, ... are. */
static void test_adapt_windows(void) {
    static const int rows[] = {1, 2, 4}, steps[] = {18, 9, 4};
    real one[ADAPT_MOST];
    adapt_write("");
    for (int i = 0; i < 3; i++) {
        char with[128];
        Golf m;
        snprintf(with, sizeof with, "--adapt=all --stride=3 --adapt_rows=%d", rows[i]);
        adapt_score(&m, "export", with);
        const Adapt *a = m.own[SYS_adapt];
        CHECK(a->steps == steps[i], "%s: %d steps, not %d", with, (int)a->steps, steps[i]);
        golf_free(&m);
    }
    adapt_nll("export", "--stride=3");
    memcpy(one, adapt_heard, sizeof one);
    adapt_nll("export", "--adapt=all --stride=3"); /* learns from window 0, and then from 6 */
    CHECK(adapt_same(one, 1, 17) == 16 && adapt_same(one, 17, 20) < 3, "the first window");
    adapt_nll("export", "--adapt=all --stride=3 --adapt_rows=2");
    CHECK(adapt_same(one, 1, 35) == 34 && adapt_same(one, 38, 41) < 3, "two windows: %d",
          adapt_same(one, 1, 35));
}

/* Any number of threads gives the same bits, and so does another evaluation. */
static void test_adapt_threads(void) {
    static const char *const with = "--adapt=all --adapt_rows=16";
    adapt_write("width=48 heads=2 mlp=4");
    const double one = adapt_nll("export", with);
    for (int n = 1; n <= 3; n++) {
        threads(n);
        const double nll = adapt_nll("export", with);
        CHECK(nll == one, "%d threads: %.17g nats, not %.17g", n, nll, one);
    }
    threads(1);
}

/* ---- The command. */
static int adapt_command(const char *options_text) { /* in a child */
    char line[512];
    snprintf(line, sizeof line,
             "eval @/adapt.golf --data=@/export --tokenizer=@/export/tokenizer.model %s",
             options_text);
    return command_line(line);
}

static const char *adapt_says(const char *options_text) {
    size_t n;
    const int status = STATUS(freopen(IN("said"), "w", stdout) ? 0 : exit(9),
                              exit(adapt_command(options_text)));
    CHECK(status == 0 && !*message, "%s: status %d: %s", options_text, status, message);
    return (char *)read_file(IN("said"), &n);
}

/* It prints a score besides that of the file, which stays. */
static void test_adapt_output(void) {
    Golf m;
    char line[128];
    adapt_write("");
    const char *plain = adapt_says(""), *said = adapt_says("--adapt=both --adapt_rows=3");
    CHECK(!strncmp(said, plain, strlen(plain)), "the file's score changes: %s", said);
    CHECK(!strstr(plain, "adapt"), "unasked: %s", plain);
    const Score s = adapt_score(&m, "export", "--adapt=both --adapt_rows=3");
    snprintf(line, sizeof line, "\nadapt_loss %.12f\nadapt_bpb %.12f\nadapt_sum_nll %.17g\n",
             s.loss, s.bpb, s.nll);
    CHECK(strstr(said, line) != NULL, "expected %s in %s", line, said);
    size_t numbers = m.tensor[T_embed].n;
    EACH_TENSOR(t, &m) numbers += t->role == INTERFACE ? t->n : 0;
    snprintf(line, sizeof line, "\nadapt_numbers %zu\nadapt_steps 6\nadapt_resets 0\n",
             numbers);
    CHECK(strstr(said, line) != NULL, "expected %s in %s", line, said);
    golf_free(&m);
}

/* Every condition of a score is kept, and proved. */
static void test_adapt_certificate(void) {
    static const char *const with[] = {
        "--adapt=interface --adapt_rows=1", "--adapt=all", "--adapt=both --stride=5",
        "--adapt=all --adapt_reset=document --adapt_rows=3 --val_tokens=200"};
    if (DOUBLE) return; /* the same, and slow */
    adapt_write("");
    for (size_t i = 0; i < COUNT(with); i++) {
        char line[200];
        snprintf(line, sizeof line, "%s --certify=%d", with[i], (int)i + 1);
        const char *said = adapt_says(line);
        CHECK(strstr(said, "\nadapt_file_alone yes\n") && strstr(said, "\nval_causal yes\n") &&
                  strstr(said, "\nadapt_causal yes\n") && strstr(said, "\ncertified yes\n"),
              "%s: %s", line, said);
    }
}

/* dev/check/combined.txt: models of other systems, and options of `eval`. */
static void adapt_check_other(const char *arm, const char *with) {
    char line[256];
    const int status = STATUS(config_of(arm));
    if (status) { /* a system is not there */
        CHECK(strstr(message, "unknown option") || strstr(message, "expected none"), "%s: %s",
              arm, message);
        return;
    }
    if (DOUBLE && !*with) adapt_check_gradients(arm);
    if (DOUBLE || !*with) return;
    adapt_write(arm);
    snprintf(line, sizeof line, "%s --val_tokens=100", with);
    const int asked = STATUS(adapt_command(line));
    if (strstr(message, "unknown option")) return;
    CHECK(asked == 0, "%s %s: status %d: %s", arm, line, asked, message);
}

static void test_adapt_others(void) {
    size_t len;
    char *save, *rest, *text = (char *)read_file("dev/check/combined.txt", &len);
    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        const char *kind = strtok_r(line, "\t", &rest);
        const char *arm = strtok_r(NULL, "\t", &rest), *with = strtok_r(NULL, "\t", &rest);
        if (strcmp(kind, "learning")) continue;
        adapt_check_other(arm, with ? with : "");
    }
    free(text);
}

/* ---- What is refused. */
static void adapt_open_without_start(void) {
    Golf m;
    Config how;
    Tokenizer tok = *tokenizer_load(IN("export/tokenizer.model"));
    adapt_open(&m, &how, "");
    tok.bos = -1;
    how.adapt = ADAPT_ALL;
    how.adapt_reset = ADAPT_DOCUMENT;
    adapt_check(&m, &tok, &how);
}

static void adapt_open_changed(void) {
    Golf m;
    Config how;
    adapt_open(&m, &how, "");
    m.interface[3] += 1;
    how.adapt = ADAPT_INTERFACE;
    adapt_check(&m, tokenizer_load(IN("export/tokenizer.model")), &how);
}

static void adapt_diverge(void) {
    Golf m;
    Config how;
    adapt_open(&m, &how, "--adapt=all");
    Adapt *a = m.own[SYS_adapt];
    a->learner.master[a->learner.tensor[T_embed].at] = (real)NAN;
    golf_use(&a->learner);
    a->x[a->rows++] = 5; /* a row, of tokens 5 and 0 */
    adapt_step(a);
}

/* What cannot be done is said before the plain score is computed. */
static void adapt_refused_early(void) {
    size_t n;
    const int status =
        STATUS(freopen(IN("said"), "w", stdout) ? 0 : exit(9),
               exit(adapt_command("--adapt=all --drift=0.1")));
    CHECK(status == 1 || strstr(message, "unknown option"), "status %d: %s", status, message);
    CHECK(!strstr((char *)read_file(IN("said"), &n), "val_bpb"), "a score before: %s", message);
}

static void test_adapt_refused(void) {
    adapt_write("");
    DIES("no start", "--adapt_reset=document|leave it out", adapt_open_without_start());
    DIES("changed", "--adapt|another option|leave that out", adapt_open_changed());
    DIES("diverged", "--adapt|norm|lower --adapt_lr", adapt_diverge());
    DIES("rate alone", "--adapt_lr|means nothing|--adapt", adapt_command("--adapt_lr=1"));
    DIES("optimizer", "--adapt_optimizer|means nothing|--adapt=all",
         adapt_command("--adapt=both --adapt_optimizer=adamw"));
    DIES("rows", "--adapt_rows|1 to 16", adapt_command("--adapt=all --adapt_rows=17"));
    DIES("word", "--adapt|interface|all", adapt_command("--adapt=head"));
    adapt_refused_early();
    adapt_write("seq=8192");
    DIES("long rows", "--adapt_rows=9|at most 8 rows of 8192",
         adapt_open(&(Golf){0}, &(Config){0}, "--adapt=all --adapt_rows=9"));
}

static const SystemTests adapt_tests = {
    .tests = (const Test[]){{"first rows", test_adapt_first_rows},
                            {"rate 0", test_adapt_rate_0},
                            {"tensors", test_adapt_tensors},
                            {"first step", test_adapt_first_step},
                            {"constant rate", test_adapt_constant_rate},
                            {"depth", test_adapt_depth},
                            {"masks", test_adapt_masks},
                            {"gradients", test_adapt_gradients},
                            {"helps", test_adapt_helps},
                            {"documents", test_adapt_documents},
                            {"documents once", test_adapt_documents_once},
                            {"waiting", test_adapt_waiting},
                            {"windows", test_adapt_windows},
                            {"threads", test_adapt_threads},
                            {"output", test_adapt_output},
                            {"certificate", test_adapt_certificate},
                            {"others", test_adapt_others},
                            {"refused", test_adapt_refused},
                            {NULL, NULL}}};
#elif defined BUGS
bug learns-before-it-scores float "adapt: first rows" "$(in_ golf_eval)s/score_rows(m, tok, &r, &s);/EACH_SYSTEM(z, m) { if ((*z)->learn) (*z)->learn(m, \&r); } &/"
bug early-learner-certified float "adapt: certificate" "$(in_ golf_eval)s/score_rows(m, tok, &r, &s);/EACH_SYSTEM(z, m) { if ((*z)->learn) (*z)->learn(m, \&r); } &/"
bug learner-of-the-future-certified float "adapt: certificate" "$(in_ adapt_learn)s/adapt_step(a);/const Certificate *c = m->own[N_SYSTEMS]; if (c \&\& at + 40 < c->given_tokens) a->y[0] = c->given[at + 40]; &/"
bug decoded-weights-are-codes float "adapt: tensors" "$(in_ adapt_let_learn)s/t->float_only = 1;//"
bug weights-are-rounded-again float "adapt: tensors" "s/^ *\.soften = adapt_soften,$//"
bug others-learn-too float "adapt: tensors" "$(in_ adapt_drop_others)s/if (!adapt_learns(a, t))/if (0)/"
bug others-in-the-norm float "adapt: first step" "$(in_ adapt_step)s/adapt_drop_others(a, l);//; $(in_ adapt_step)s/golf_adamw(l, /adapt_drop_others(a, l); &/"
bug gradients-are-masked float "adapt: masks" "$(in_ adapt_let_learn)s/t->passes = NULL;//"
bug starts-from-random-weights float "adapt: rate 0" "$(in_ adapt_restart)s/memcpy(l->master, a->file, bytes);//"
bug moments-are-kept float "adapt: documents" "$(in_ adapt_restart)s/memset(l->moment2, 0, bytes);//"
bug rows-of-a-start-are-lost float "adapt: documents" "$(in_ adapt_learn)s/adapt_step(a);/if (a->step || !a->resets) adapt_step(a); else { a->step = 1; a->rows = 0; }/"
bug documents-start-again float "adapt: documents once" "$(in_ adapt_starts_document)s/ && is_new(m, r, n)//"
bug windows-are-learnt-again float "adapt: windows" "$(in_ adapt_learn)s/if (at < a->next) continue;//"
bug rows-do-not-wait float "adapt: windows" "$(in_ adapt_learn)s/if (a->rows < a->most) continue;//"
bug rows-of-the-last-document float "adapt: waiting" "$(in_ adapt_restart)s/a->rows = 0;//"
bug never-forgets float "adapt: documents" "$(in_ adapt_again)s/== ADAPT_DOCUMENT ? tok->bos : -1/== ADAPT_DOCUMENT ? -1 : -1/"
bug ten-times-the-rate float "adapt: first step" "$(in_ adapt_config)s/0.005 \* how/0.05 * how/"
bug epsilon-of-training float "adapt: first step" "$(in_ adapt_step)s/ \* adamw_epsilon(&l->config, ADAMW_EPSILON) \/ adapt_epsilon//"
bug rates-fall float "adapt: constant" "$(in_ adapt_config)s/c.steps = INT32_MAX;//"
bug learns-at-another-depth float "adapt: depth" "$(in_ adapt_make_learner)s/l->n_visits = m->n_visits;//"
bug model-does-not-follow float "adapt: tensors" "$(in_ adapt_follow)s/memcpy(m->eff.*;//"
bug divergence-is-a-score float "adapt: refused" "$(in_ adapt_step)s/if (!(norm < 1e18))/if (0)/"
bug changed-model-accepted float "adapt: refused" "$(in_ adapt_refuse_changed)s/if (memcmp(was, m->interface, bytes))/if (0)/"
bug another-score-of-the-file float "adapt: output" "$(in_ score_again)s/print_score(what->by->name,/print_score(\"val\",/"
#endif
