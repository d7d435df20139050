/* depth_schedule.h - depth that changes: how many times the blocks of the loop are used,
 * in training and after.
 *
 *   --repeat_ramp=1@0,2@0.3,4@0.5  uses of each block from these fractions of the run on.
 *                                  Phases that are still to come start with closed
 *                                  gates: each begins as the identity (mix starts as 1, 0)
 *   --repeat_random=1              at each step a number from 1 to that
 *   --backprop=N                   gradients through the last N phases only
 *   eval --eval_repeat=R           another number of uses; those beyond --repeat have the
 *                                  interface of the last one
 *
 * From Huginn (2502.05171: random depth, truncated backpropagation) and Parameter Golf's
 * records (loops that are switched on late). Nothing of it is stored; flops_per_token is a
 * mean of the steps. Differs from Huginn: the number is uniform, not log-normal Poisson,
 * and the same for all rows; input injection is that of the core. */
#ifdef OPTIONS
X(TRAIN, STR, repeat_ramp, "", "",
  "uses of a block from which fraction of the run: 1@0,3@0.5")
X(TRAIN, INT, repeat_random, "0", "0|1", "each step as many as chance says, up to that")
X(TRAIN, INT, backprop, "0", "0 to 4096", "> 0: gradients through the last N phases")
X(EVAL, INT, eval_repeat, "0", "0 to 64",
  "> 0: uses of a block, more or fewer than trained")

#elif defined MEANINGS
M(repeat_random, c->repeat > 1, "with --repeat=1: there is one depth")
M(backprop, c->backprop < phase_count(c), "with as many phases or fewer")

#elif defined PRESETS
{"golf_16mb",
 "heads=8 kv_heads=4 mlp=4 seq=1024 prelude=3 unique=3 repeat=3 coda=5 repeat_ramp=1@0,3@0.35 "
 "wq=ternary embed_bits=8 batch=512 accum=128 steps=5000 bwd=int16 lr_muon=0.02 lr_embed=0.005 "
 "warmup=0.02 warmdown=0.5 cap=16000000",
 "16 MB: 11 blocks, of which three in the middle are used three times from 35 % of the run on, "
 "as in Parameter Golf's records; for many machines (make MPI=1), its rates not tuned"},

#elif defined LIST
X(depth_schedule)

#elif defined CODE
static int depth_on(const Config *c) {
    return *c->repeat_ramp || c->repeat_random || c->backprop;
}

static int depth_takes(const Config *c) {
    return *c->repeat_ramp || c->repeat_random ? RES_DEPTH : 0;
}

/* The phases of a forward pass that uses each block of the loop r times. */
static void depth_set(Golf *m, int r) {
    const Config *c = &m->config;
    const int loop = c->unique * r, cycle = c->order == ORDER_CYCLE;
    m->n_visits = 0;
    for (int i = 0; i < c->prelude; i++) m->visits[m->n_visits++] = i;
    for (int q = 0; q < loop; q++) {
        const int turn = MIN(cycle ? q / c->unique : q % r, c->repeat - 1);
        const int at =
            cycle ? turn * c->unique + q % c->unique : q / r * c->repeat + turn;
        m->visits[m->n_visits++] = c->prelude + at;
    }
    for (int i = 0; i < c->coda; i++) m->visits[m->n_visits++] = c->prelude + loop_phases(c) + i;
}

/* An entry "N@FRACTION" of a ramp: its length with the comma behind it, or 0. */
static int ramp_entry(const char *p, int *r, double *from) {
    int n = 0;
    if (sscanf(p, "%d@%lf%n", r, from, &n) != 2 || (p[n] && p[n] != ',')) return 0;
    return n + (p[n] == ',');
}

static int ramp_at(const Config *c, int step) {
    int r = c->repeat, next;
    double from;
    const char *p = c->repeat_ramp;
    while (*p) {
        const int n = ramp_entry(p, &next, &from);
        if (!n) break;
        if (from * c->steps <= step) r = next;
        p += n;
    }
    return r;
}

/* The number of uses at a step. */
static int depth_at(const Config *c, int step) {
    const int most = ramp_at(c, step);
    if (!c->repeat_random) return most;
    return 1 + (int)(hash64((uint64_t)c->seed + 99, (uint64_t)step) % (uint64_t)most);
}

static void depth_check(const Config *c) {
    int last = 0;
    double before = -1;
    const char *p = c->repeat_ramp;
    while (*p) {
        int r = 0;
        double from = 0;
        const int n = ramp_entry(p, &r, &from), first = before < 0;
        if (!n || r <= last || r > c->repeat || !(from > before) || from >= 1 ||
            (first && from != 0))
            die("--repeat_ramp=%s: expected N@0,N@FRACTION,... with rising numbers up to "
                "--repeat=%d, found '%.20s'",
                c->repeat_ramp, c->repeat, p);
        last = r;
        before = from;
        p += n;
    }

    if (last && last != c->repeat)
        die("--repeat_ramp=%s: expected to end at --repeat=%d", c->repeat_ramp,
            c->repeat);
    if (last && (!c->gate || !c->phase))
        die("--repeat_ramp closes gates of single phases: expected --gate and --phase=1");
}

/* Of a run alone: the checkpoint of one with such a ramp may still be a donor. */
static void depth_check_run(const Config *c) {
    if (!*c->repeat_ramp) return;
    if (ramp_at(c, 0) == c->repeat)
        die("--repeat_ramp=%s is no ramp: it starts where it ends; leave it out",
            c->repeat_ramp);
    if (ramp_at(c, c->steps - 1) != c->repeat)
        die("--repeat_ramp=%s: expected to end within --steps=%d, the last one is at %.4g of them; "
            "lower its fraction",
            c->repeat_ramp, c->steps, (c->steps - 1) / (double)c->steps);
}

/* Closes the gates of the phases that do not run from the first step on. */
static void depth_start(Golf *m, const Golf *from, int convert) {
    char *used = xcalloc((size_t)m->phases, 1);
    (void)from;
    (void)convert;

    depth_set(m, ramp_at(&m->config, 0));
    for (int i = 0; i < m->n_visits; i++) used[m->visits[i]] = 1;
    depth_set(m, m->config.repeat);

    for (int p = 0; p < m->phases; p++)
        for (int k = 0; k < 2; k++) {
            const Tensor *t = m->tensor + (k ? T_gate_mlp : T_gate_attn);
            if (used[p]) continue;
            memset(m->master + t->at + (size_t)p * t->copy_n, 0,
                   t->copy_n * sizeof(real));
        }
    free(used);
}

static void depth_step(Golf *m, int step) { /* -1: an evaluation, at full depth */
    const Config *c = &m->config;
    depth_set(m, step < 0 ? c->repeat : depth_at(c, step));
    m->learn_from = c->backprop ? MAX(0, m->n_visits - c->backprop) : 0;
}

static void depth_eval(Golf *m, const Config *how) {
    const Config *c = &m->config;
    if (!how->eval_repeat) return;
    EACH_SYSTEM(s, m) {
        if (takes(*s, c) & RES_DEPTH && strcmp((*s)->name, "depth_schedule"))
            die("--eval_repeat: the model's --%s (%s) needs all phases", (*s)->needs,
                (*s)->name);
    }
    const int most = c->prelude + c->unique * how->eval_repeat + c->coda;
    m->visits = owned(m, (size_t)most, sizeof(int));
    depth_set(m, how->eval_repeat);
}

/* Phases of a training step, of up to 100,000 steps that are evenly spaced. The backward
 * pass, through the last ones only with --backprop, is two thirds of a phase's cost. */
static double depth_mean(const Golf *m) {
    const Config *c = &m->config;
    const int every = 1 + c->steps / 100000;
    double sum = 0;
    int steps = 0;
    for (int step = 0; step < c->steps; step += every) {
        const int visits = c->prelude + c->unique * depth_at(c, step) + c->coda;
        const int learned = c->backprop ? MIN(c->backprop, visits) : visits;
        sum += (visits + 2 * learned) / 3.0;
        steps++;
    }
    return sum / steps;
}

static const System depth_schedule_system = {
    .name = "depth_schedule",
    .needs = "repeat_ramp, --repeat_random or --backprop",
    .on = depth_on,
    .takes = depth_takes,
    .check = depth_check,
    .check_run = depth_check_run,
    .start = depth_start,
    .step = depth_step,
    .depth = depth_mean,
    .eval = depth_eval};

#elif defined TESTS
/* The loss of a model that is not trained, at the depth that is set. */
static double depth_loss(Golf *m) {
    const int *x = tokens_below(20, 32, 80), *y = tokens_below(20, 32, 81),
              train = m->train;
    m->train = 0;
    golf_quantize(m);
    const double loss = golf_forward(m, x, y, 2, 16);
    m->train = train;
    return loss;
}

/* Phases that a ramp adds are the identity at first. */
static void test_ramp_start(void) {
    Golf m;
    new_model(&m,
              "vocab=20 width=16 heads=2 mlp=2 seq=16 prelude=1 coda=1 unique=2 repeat=4 "
              "steps=100 repeat_ramp=1@0,2@0.25,4@0.5",
              32);
    const Config *c = &m.config;
    EACH_TENSOR(t, &m) { /* all but gates, which are closed, and mixes */
        if (t->role == INTERFACE) continue;
        for (size_t i = t->at; i < t->at + t->n; i++)
            m.master[i] += (real)0.1 * noise(70, i);
    }
    CHECK(depth_at(c, 0) == 1 && depth_at(c, 24) == 1 && depth_at(c, 25) == 2 &&
              depth_at(c, 50) == 4 && depth_at(c, 99) == 4,
          "ramp: %d %d %d", depth_at(c, 0), depth_at(c, 25), depth_at(c, 50));
    depth_set(&m, 1);
    const double one = depth_loss(&m);
    for (int r = 2; r <= 4; r++) {
        depth_set(&m, r);
        const double more = depth_loss(&m);
        CHECK(near(more, one, 1e-6), "%d uses: loss %.9g, not %.9g", r, more, one);
    }
    golf_free(&m);
}

static void test_order_of_phases(void) {
    static const int want[][12] = {
        {0, 1, 2, 9}, {0, 1, 2, 3, 4, 5, 6, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 9},
        {0, 1, 5, 9}, {0, 1, 2, 3, 5, 6, 7, 9}, {0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9}};
    static const int uses[] = {1, 3, 5};
    for (int i = 0; i < 6; i++) {
        const int r = uses[i % 3], n = 2 + 2 * r;
        char text[128];
        Golf m;
        snprintf(
            text, sizeof text,
            "vocab=20 width=16 heads=2 seq=16 prelude=1 coda=1 unique=2 repeat=4 order=%s",
            i < 3 ? "cycle" : "sequence");
        new_model(&m, text, 0);
        depth_eval(&m, &(Config){.eval_repeat = r});
        CHECK(m.n_visits == n && !memcmp(m.visits, want[i], sizeof(int) * (size_t)n),
              "%d uses, order %d", r, i / 3);
        golf_free(&m);
    }
}

/* A backward pass cut short has the gradients of the phases that it passed, and none of
 * others. */
static void test_backprop(void) {
    static const char *const flat =
        "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=4 repeat=1";
    const int *x = tokens_below(20, 32, 80), *y = tokens_below(20, 32, 81);
    Golf m, b;
    new_model(&m, flat, 32);
    golf_forward(&m, x, y, 2, 16);
    golf_backward(&m, x, 2, 16);
    for (int k = 1; k <= 4; k++) {
        char text[128];
        int same = 1, none = 1;
        snprintf(text, sizeof text, "%s backprop=%d", flat, k);
        new_model(&b, text, 32);
        depth_step(&b, 0);
        golf_forward(&b, x, y, 2, 16);
        golf_backward(&b, x, 2, 16);
        for (const Tensor *t = m.tensor + T_wqkv; t < m.tensor + N_TENSORS; t++)
            for (size_t i = 0; i < t->n; i++) {
                const int inside = (int)(i / t->copy_n) >= 4 - k;
                if (inside) same &= b.grad[t->at + i] == m.grad[t->at + i];
                else none &= b.grad[t->at + i] == 0;
            }
        CHECK(same, "backprop=%d: another gradient", k);
        CHECK(none, "backprop=%d: a gradient of the others", k);
        golf_free(&b);
    }
    golf_free(&m);
}

static void test_random_depth(void) {
    int seen[5] = {0};
    const Config c = config_of("repeat=4 repeat_random=1");
    for (int step = 0; step < 4000; step++) seen[depth_at(&c, step)]++;
    for (int r = 1; r <= 4; r++)
        CHECK(seen[r] > 850 && seen[r] < 1150, "%d uses: %d times of 4000", r, seen[r]);
}

/* FLOPs of training are those of the phases that run: a mean over its steps, and a third
 * of a phase's without a backward pass. */
static void test_flops_of_depth(void) {
    static const struct {
        const char *options;
        double phases;
    } rows[] = {{"repeat_ramp=1@0,2@0.3,4@0.5", 0.3 * 1 + 0.2 * 2 + 0.5 * 4},
                {"repeat_ramp=1@0,4@0.9 prelude=1 coda=2", 3 + 0.9 * 1 + 0.1 * 4},
                {"backprop=1", (4 + 2 * 1) / 3.0},
                {"repeat_ramp=1@0,4@0.5 backprop=3", 0.5 * 1 + 0.5 * (4 + 2 * 3) / 3.0},
                {"backprop=9", 4}};
    char text[256];
    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof text, "vocab=20 repeat=4 steps=1000 %s", rows[i].options);
        const Config c = config_of(text), one = config_of("vocab=20 repeat=1"),
                     two = config_of("vocab=20 repeat=2");
        const double phase = flops_per_token(&two) - flops_per_token(&one);
        const double want = flops_per_token(&one) + phase * (rows[i].phases - 1);
        CHECK(near(flops_per_token(&c) / want, 1, 1e-12), "%s: %.9g FLOPs, not %.9g", text,
              flops_per_token(&c), want);
    }
    const Config c = config_of("repeat=4 steps=10000 repeat_random=1");
    const Config three = config_of("repeat=3"), two = config_of("repeat=2");
    const double middle = (flops_per_token(&three) + flops_per_token(&two)) / 2;
    CHECK(near(flops_per_token(&c) / middle, 1, 0.02), "1 to 4 by chance: %g, not %g",
          flops_per_token(&c), middle);
}

static const SystemTests depth_schedule_tests = {
    .gradients = (const char *const[]){"repeat=3 repeat_ramp=1@0,3@0.5", NULL},
    .files =
        (const char *const[]){"repeat=4 repeat_ramp=1@0,4@0.1", "repeat_random=1", NULL},
    .errors =
        (const char *const[][2]){
            {"--repeat_ramp=1@0,3@0.5", "--repeat_ramp|up to --repeat=2"},
            {"--repeat_ramp=1@0.1,2@0.5", "--repeat_ramp|1@0.1"},
            {"--repeat_ramp=1@0,2@0.5 --gate=none", "closes gates"},
            {"--repeat_ramp=2@0", "--repeat_ramp=2@0|no ramp"},
            {"--repeat_ramp=1@0,2@0.9 --steps=5", "--repeat_ramp|within --steps=5"},
            {"--repeat=1 --repeat_random=1", "--repeat_random=1|means nothing"},
            {"--backprop=2", "--backprop=2|means nothing"},
            {NULL, NULL}},
    .tests = (const Test[]){{"ramp", test_ramp_start},
                            {"order", test_order_of_phases},
                            {"backprop", test_backprop},
                            {"random", test_random_depth},
                            {"FLOPs", test_flops_of_depth},
                            {NULL, NULL}}};
#elif defined BUGS
bug flops-of-all-phases float FLOPs "s/^    \.depth = depth_mean,$//"
bug flops-of-a-whole-backward float FLOPs "$(in_ depth_mean)s/MIN(c->backprop, visits)/visits/"
bug new-phases-open double ramp "$(in_ depth_start)s/if (used\[p\])/if (1)/"
bug backprop-one-more double backprop "$(in_ depth_step)s/m->n_visits - c->backprop/m->n_visits - c->backprop - 1/"
bug order-of-the-cycle float order "$(in_ depth_set)s/q % r/q \/ c->unique/"
bug ramp-a-step-late float ramp "$(in_ ramp_at)s/<= step/< step/"
#endif
