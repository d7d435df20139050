/* unshare.h - selective unsharing: some projections have a copy for each phase, the
 * others stay shared. It stands between one block for all phases and a block for each,
 * and is the plain alternative to low-rank pairs (Relaxed Recursive Transformers,
 * 2410.20672); not itself from a paper.
 *
 *     --unshare=wup,wdown      y = Wdown[p] x    instead of    y = Wdown[block of p] x
 *
 * Stored like every projection, phases / blocks times as many of these bytes. Costs no
 * FLOPs: a token meets as many weights as before. Memory grows with the copies. */
#ifdef OPTIONS
X(MODEL, STR, unshare, "", "", "NAME,...: projections with a copy per phase")

#elif defined MEANINGS
M(unshare, c->repeat > 1, "with --repeat=1: every phase has its own")

#elif defined LIST
X(unshare)

#elif defined CODE
static int unshare_on(const Config *c) { return *c->unshare; }

/* Has the list an item of this name? */
static int unshared(const Config *c, const char *name) {
    const char *p = c->unshare;
    while (*p) {
        const size_t len = strcspn(p, ",");
        if (len == strlen(name) && !strncmp(p, name, len)) return 1;
        p += len;
        if (*p) p++;
    }
    return 0;
}

static int unshare_takes(const Config *c) {
    int what = 0;
    if (unshared(c, "wqkv") || unshared(c, "wo")) what |= RES_ATTENTION_COPIES;
    if (unshared(c, "wup") || unshared(c, "wgate") || unshared(c, "wdown"))
        what |= RES_MLP_COPIES;
    return what;
}

static int unshare_uses(const Config *c) {
    (void)c;
    return RES_COPIES;
}

static void unshare_check(const Config *c) {
    static const char *const names[] = {"wqkv", "wo", "wup", "wdown", "wgate"};
    const size_t count = is_gated(c) ? COUNT(names) : COUNT(names) - 1;
    const char *p = c->unshare;

    while (*p) {
        const size_t len = strcspn(p, ",");
        int known = 0;
        for (size_t i = 0; i < count; i++)
            known |= strlen(names[i]) == len && !strncmp(names[i], p, len);
        if (!known)
            die("--unshare=%s: expected wqkv, wo, wup, wdown and, with --act=swiglu, wgate, "
                "with commas between, found '%.*s'",
                c->unshare, (int)len, p);
        p += len;
        if (*p) p++;
    }
}

static void unshare_shape(Golf *m) {
    for (int k = T_wqkv; k <= T_wdown; k++)
        if (unshared(&m->config, m->tensor[k].name))
            m->tensor[k].stored_copies = m->phases;
}

static const System unshare_system = {.name = "unshare",
                                      .needs = "unshare",
                                      .on = unshare_on,
                                      .takes = unshare_takes,
                                      .uses = unshare_uses,
                                      .check = unshare_check,
                                      .shape = unshare_shape};

#elif defined TESTS
static double unshare_loss(Golf *m) {
    golf_quantize(m);
    return golf_forward(m, tokens_below(20, 32, 80), tokens_below(20, 32, 81), 2, 16);
}

/* A model whose copies are all the same is the shared one. */
static void test_unshare_copies(void) {
    static const char *const text =
        "vocab=20 width=16 heads=2 mlp=2 seq=16 prelude=1 repeat=3";
    Golf m, b;
    char with[200];

    new_model(&m, text, 32);
    snprintf(with, sizeof with, "%s unshare=wdown,wqkv", text);
    new_model(&b, with, 32);
    for (int k = T_wqkv; k <= T_wdown; k++) {
        const Tensor *t = m.tensor + k, *u = b.tensor + k;
        const int own = k == T_wqkv || k == T_wdown;
        CHECK(t->stored_copies == 2 && u->stored_copies == (own ? 4 : 2),
              "%s: %d copies of %s", with, u->stored_copies, u->name);
        for (int p = 0; p < 4; p++)
            memcpy(b.master + u->at + (size_t)copy_of(&b, u, p) * u->copy_n,
                   m.master + t->at + (size_t)copy_of(&m, t, p) * t->copy_n,
                   t->copy_n * sizeof(real));
    }
    const double shared = unshare_loss(&m), equal = unshare_loss(&b);
    CHECK(equal == shared, "equal copies: loss %.9g, shared %.9g", equal, shared);
    golf_free(&m);
    golf_free(&b);
}

static void negate_copy(Golf *m, int k, int j) {
    const Tensor *t = m->tensor + k;
    real *w = m->master + t->at + (size_t)j * t->copy_n;
    for (size_t i = 0; i < t->copy_n; i++) w[i] = -w[i];
}

/* What phase p computes changes when copy p does, not when that of a later phase does. */
static void test_unshare_phases(void) {
    enum { SIZE = 32 * 16 * sizeof(real) };
    Golf m;
    real *was = reals(SIZE, 0);

    new_model(&m, "vocab=20 width=16 heads=2 mlp=2 seq=16 repeat=4 unshare=wdown", 32);
    unshare_loss(&m);
    for (int p = 0; p < 4; p++) {
        memcpy(was, m.phase[p].y, SIZE);
        if (p < 3) negate_copy(&m, T_wdown, p + 1);
        unshare_loss(&m);
        CHECK(!memcmp(was, m.phase[p].y, SIZE), "phase %d uses copy %d", p, p + 1);
        negate_copy(&m, T_wdown, p);
        unshare_loss(&m);
        CHECK(memcmp(was, m.phase[p].y, SIZE), "phase %d does not use its copy", p);
    }
    free(was);
    golf_free(&m);
}

static const SystemTests unshare_tests = {
    .gradients =
        (const char *const[]){"unshare=wup,wdown repeat=3",
                              "unshare=wqkv extra_norm=each unique=2 prelude=1",
                              "unshare=wgate act=swiglu repeat=3", NULL},
    .files = (const char *const[]){"unshare=wup,wo repeat=3", NULL},
    .errors = (const char *const[][2]){{"--unshare=wup,wx", "--unshare=wup,wx|'wx'"},
                                       {"--unshare=wupx", "'wupx'"},
                                       {"--unshare=w", "'w'"},
                                       {"--unshare=embed", "'embed'"},
                                       {"--unshare=wgate", "'wgate'|--act=swiglu"},
                                       {"--unshare=wo --repeat=1", "--unshare=wo|nothing"},
                                       {NULL, NULL}},
    .tests = (const Test[]){
        {"copies", test_unshare_copies}, {"phases", test_unshare_phases}, {NULL, NULL}}};
#elif defined BUGS
bug unshared-though-nothing-is-shared float errors "s/M(unshare, c->repeat > 1/M(unshare, 1/"
bug unshared-by-block double "unshare: copies" "$(in_ unshare_shape)s/= m->phases;/= block_count(\&m->config);/"
bug unshared-by-prefix double "unshare: copies" "$(in_ unshared)s/len == strlen(name) \&\& !strncmp(p, name, len)/*p == *name/"
bug copy-of-the-next-phase float "unshare: phases" "$(in_ copy_of)s/== m->phases ? p/== m->phases ? (p + 1) % m->phases/"
bug any-name-unshared float "unshare: errors" "$(in_ unshare_check)s/strlen(names\[i\]) == len \&\& //"
#endif
