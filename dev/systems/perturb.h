/* perturb.h - `eval --drift=EPS --noise=EPS`: errors of a chosen size in a loaded model,
 * to see what depth makes of them (dev/studies/4_drift).
 *
 *   drift   the stream times (1 + drift) before every phase: the factor joins mix0
 *   noise   W + noise * scale(W) * N(0,1), one draw per stored matrix, so that a shared
 *           block repeats its error in every phase. scale(W): ternary's step, or mean |W|
 *
 * An instrument of this project, not from a paper. Nothing of it is stored. */
#ifdef OPTIONS
X(EVAL, NUM, drift, "0", "-1 to 1", "residual stream * (1 + drift) before each phase")
X(EVAL, NUM, noise, "0", "0 to 10", "projections + noise * their scale * N(0,1)")

#elif defined LIST
X(perturb)

#elif defined CODE
static int
perturb_on(const Config *c) { /* of a model: never; it acts on one that is evaluated */
    (void)c;
    return 0;
}

static void perturb_matrix(Golf *m, const Tensor *t, double noise) {
    const uint64_t key = hash64(0x6E6F697365, crc32_of(0, t->name, strlen(t->name)));
    const int one_step = t->quant == quantizers + Q_TERNARY && t->copy_scales == 1;
    for (int j = 0; j < t->stored_copies; j++) {
        const size_t at = t->at + (size_t)j * t->copy_n;
        const double mean = block_sum(m->eff + at, t->copy_n, 0) / (double)t->copy_n;
        const double size = noise * (one_step ? (double)*scale_of(m, t, j) : mean);
        FOR_RANGE(i, at, t->copy_n) m->eff[i] += (real)(size * normal01(key, i - t->at));
    }
}

static void perturb_model(Golf *m, double drift, double noise) {
    EACH_TENSOR(t, m) {
        if (noise <= 0 || !is_matrix(t)) continue;
        if (is_stored(t)) perturb_matrix(m, t, noise);
        t->float_only = 1; /* its codes are not the whole truth any more */
    }
    EACH_SYSTEM(s, m) {
        if ((*s)->expand) (*s)->expand(m);
    }
    golf_pack(m);
    for (int p = 0; p < m->phases; p++) {
        real *mix0 = m->interface + p * m->n_interface + m->tensor[T_mix0].at_interface;
        for (int i = 0; i < m->config.width; i++) mix0[i] *= (real)(1 + drift);
    }
}

static void perturb_eval(Golf *m, const Config *how) {
    if (how->drift == 0 && how->noise <= 0) return;
    if (how->certify)
        die("--certify proves the score of a file, which --noise and --drift change; leave them, or "
            "it, out");
    perturb_model(m, how->drift, how->noise);
}

static const System perturb_system = {
    .name = "perturb", .needs = "noise", .on = perturb_on, .eval = perturb_eval};

#elif defined TESTS
static double perturbed_loss(const char *text, double drift, double noise) {
    Golf m;
    const int *x = tokens_below(266, 16, 80), *y = tokens_below(266, 16, 81);
    new_model(&m, text, 16);
    m.train = 0;
    if (drift != 0 || noise != 0) perturb_model(&m, drift, noise);
    const double loss = golf_forward(&m, x, y, 1, 16);
    golf_free(&m);
    return loss;
}

/* Drift is what mix0 * (1 + drift) computes. */
static void check_drift(const char *text) {
    Golf twin;
    const int *x = tokens_below(266, 16, 80), *y = tokens_below(266, 16, 81);
    new_model(&twin, text, 16);
    twin.train = 0;
    for (size_t i = 0; i < twin.tensor[T_mix0].n; i++)
        twin.eff[twin.tensor[T_mix0].at + i] *= (real)1.25;
    golf_pack(&twin);
    const double want = golf_forward(&twin, x, y, 1, 16),
                 drift = perturbed_loss(text, 0.25, 0);
    CHECK(drift == want && drift != perturbed_loss(text, 0, 0), "%s: drift %g, not %g",
          text, drift, want);
    golf_free(&twin);
}

/* Noise has the size scale * noise and leaves the embedding and the interface alone. */
static void check_noise(const char *text) {
    Golf m, twin;
    new_model(&m, text, 16);
    new_model(&twin, text, 16);
    perturb_model(&m, 0, 0.5);
    EACH_TENSOR(t, &m) {
        const double n = (double)t->copy_n;
        double sum = 0, square = 0, mean = 0;
        if (!t->n) continue;
        for (size_t i = t->at; i < t->at + t->copy_n; i++) {
            const double d = (double)(m.eff[i] - twin.eff[i]);
            sum += d;
            square += d * d;
            mean += fabs((double)twin.eff[i]) / n;
        }
        if (t->role != PROJ) {
            CHECK(square == 0, "%s: %s has noise", text, t->name);
            continue;
        }
        const double s = is_ternary(t) ? (double)*scale_of(&m, t, 0) : mean,
                     sd = sqrt(square / n);
        CHECK(fabs(sd / (0.5 * s) - 1) < 0.05 && fabs(sum / n) < 4 * sd / sqrt(n),
              "%s: %s: noise of %g %g, not %g", text, t->name, sum / n, sd, 0.5 * s);
    }
    golf_free(&m);
    golf_free(&twin);
}

static void test_perturb(void) {
    static const char *const arms[] = {"", "wq=none aq=none",
                                       "unique=2 repeat=1 wq=int8"};
    for (int a = 0; a < 3; a++) {
        char text[256];
        snprintf(text, sizeof text, "vocab=266 width=64 heads=2 seq=16 repeat=3 mlp=4 %s",
                 arms[a]);
        check_drift(text);
        check_noise(text);
        const double before = perturbed_loss(text, 0, 0);
        const double little = perturbed_loss(text, 0, 1e-7),
                     much = perturbed_loss(text, 0, 0.5);
        CHECK(fabs(little - before) < 1e-3, "%s: noise 1e-7 changes the loss by %g", text,
              little - before);
        CHECK(fabs(much - before) > 1e-4, "%s: noise 0.5 changes nothing", text);
    }
}

static void test_perturb_uncertified(void) {
    Golf m;
    new_model(&m, "vocab=266 width=16 heads=2 seq=16", 0);
    DIES("noise", "--certify|--noise|leave", perturb_eval(&m, &(Config){.certify = 1, .noise = 1}));
    DIES("drift", "--certify|--drift|leave",
         perturb_eval(&m, &(Config){.certify = 1, .drift = 0.1}));
    golf_free(&m);
}

static const SystemTests perturb_tests = {
    .tests = (const Test[]){{"drift and noise", test_perturb},
                            {"drift uncertified", test_perturb_uncertified},
                            {NULL, NULL}}};
#elif defined BUGS
bug noise-of-another-size float drift "$(in_ perturb_matrix)s/(double)\*scale_of(m, t, j) : mean/mean : mean/"
bug certified-noise float "drift uncertified" "$(in_ perturb_eval)s/if (how->certify)/if (0)/"
bug drift-forgotten float drift "$(in_ perturb_model)s/(real)(1 + drift)/1/"
#endif
