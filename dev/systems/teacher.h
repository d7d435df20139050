/* teacher.h - knowledge distillation (1503.02531), as Relaxed Recursive Transformers
 * (2410.20672) use it: a trained model, run on the same tokens, is part of the aim.
 *
 *     loss = (1 - kd) * cross-entropy + kd * KL(p || q)
 *     KL(p || q) = sum over V of p log(p / q)
 *
 * p are the predictions of the teacher, which computes what it computed in training, and
 * q those of the model. With the model's logits l = 30 tanh(z/30), softcap included:
 *
 *     d(loss)/dz = ((1 - kd) (q - onehot) + kd (q - p)) * (1 - (l/30)^2)
 *
 * Nothing of it is stored but, in checkpoints, a checksum of its file: a run that is
 * resumed needs the same one. Cost: the teacher's forward pass at each step, a third of a
 * training step of its size (teacher_flops_per_token in result.json), and the memory of
 * another model.
 *
 * Differs from the papers: no temperature; and where the second one makes the teacher of
 * the model that it converts, here it is any checkpoint with the same tokenizer. */
#ifdef OPTIONS
X(TRAIN, STR, teacher, "", "", "ckpt.bin whose predictions are part of the aim")
X(TRAIN, NUM, kd, "0.5", "0 to 1", "which part")

#elif defined LIST
X(teacher)

#elif defined CODE
#include "shared/distill.h"

static const System teacher_system;

static int teacher_on(const Config *c) { return *c->teacher; }

static int teacher_takes(const Config *c) {
    (void)c;
    return RES_LOSS;
}

static void teacher_shape(Golf *m) { m->loss_of = &teacher_system; }

/* What a system makes of a donor is not in checkpoints: a run that is resumed makes it
 * again. */
static void refuse_donors(const Golf *t, const char *path) {
    EACH_SYSTEM(s, t) {
        if ((*s)->wants & RES_DONOR)
            die("%s: a model with --%s (%s) is not whole in its checkpoint; give another "
                "--teacher",
                path, (*s)->needs, (*s)->name);
    }
}

static void teacher_load(Golf *m, const char *path) {
    const Checkpoint k = ckpt_open(path);
    const Config *c = &k.config;
    Golf *t = owned(m, 1, sizeof(Golf));

    model_check(c);
    if (c->vocab != m->config.vocab || c->seq < m->config.seq)
        die("%s: expected --vocab=%d and --seq=%d or more, found %d and %d", path,
            m->config.vocab, m->config.seq, c->vocab, c->seq);
    golf_layout(t, c);
    refuse_donors(t, path);
    if (k.count != t->n_params)
        die("%s: expected %zu parameters, found %zu", path, t->n_params, k.count);

    golf_init(t, c, 1);
    memcpy(t->master, k.numbers, k.count * sizeof(real));
    free(k.file);
    t->step = c->steps; /* at the end of its training, if that changes how it computes */
    golf_quantize(t);
    t->train = 0;
    golf_buffers(t, m->N);
    m->own[SYS_teacher] = t;
}

static void teacher_open(Golf *m, const Tokenizer *tok, int resumes) {
    (void)resumes;
    same_tokenizer(tok, m->config.teacher);
    depends_on(m, m->config.teacher);
    teacher_load(m, m->config.teacher);
}

static void teacher_release(Golf *m) {
    if (m->own[SYS_teacher]) golf_free(m->own[SYS_teacher]);
}

/* The teacher's stream; its logits follow in the head, chunk by chunk. */
static double teacher_forward(Golf *m, const int *tokens, int B, int T) {
    if (m->own[SYS_teacher]) body(m->own[SYS_teacher], tokens, B, T);
    return 0;
}

/* other (n,V): the teacher's logits of n tokens from `from` on; returns their log-sum-exp
 * (n). The core's head_chunk would overwrite the `scratch` memory of its caller. */
static const real *teacher_logits(const Golf *t, real *other, size_t from, int n) {
    const int C = t->config.width, V = t->config.vocab;
    const real *last = t->prev[t->phases] + from * (size_t)C;
    const Flow f = flow_at(t, from);

    rmsnorm_forward(f.hn, f.r_out, last, t->ones, n, C);
    if (t->adapter) t->adapter->narrow(t, f.z, f.hn, n);
    logits_forward(t, other, &f, n);
    loss_forward(other, f.lse, NULL, NULL, n, V);
    return f.lse;
}

/* l (n,V): logits, whose losses and log-sum-exps f has, to their gradients; the losses
 * become those of the aim. Without a teacher (bench) they are the core's. */
static void teacher_loss(const Golf *m, real *l, const Flow *f, const int *y, size_t from,
                         size_t row, int n, real dloss) {
    const Golf *t = m->own[SYS_teacher];
    const int V = m->config.vocab;
    const real W = (real)m->config.kd;
    if (!t) {
        loss_backward(l, f->lse, y, dloss, n, V);
        return;
    }

    real *other = t->logits + row * (size_t)V;
    const real *other_lse = teacher_logits(t, other, from, n);
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)i * (size_t)V;
        const real kl =
            teach_token(other + at, other_lse[i], l + at, f->lse[i], y[i], W, dloss, V);
        f->loss[i] = (1 - W) * f->loss[i] + W * kl;
    }
    loss_backward(l, f->lse, y, dloss, n, V);
    for (size_t i = 0; i < (size_t)n * (size_t)V; i++) l[i] += other[i];
}

/* What its forward pass costs beside flops_per_token, which is the model's alone. */
static void teacher_result(const Golf *m, FILE *f) {
    Golf *t = m->own[SYS_teacher];
    fprintf(f, "  \"teacher_flops_per_token\": %.17g,\n", flops_at(t, t->phases) / 3);
}

static const System teacher_system = {.name = "teacher",
                                      .needs = "teacher",
                                      .on = teacher_on,
                                      .takes = teacher_takes,
                                      .shape = teacher_shape,
                                      .open = teacher_open,
                                      .forward = teacher_forward,
                                      .loss = teacher_loss,
                                      .result = teacher_result,
                                      .release = teacher_release};

#elif defined TESTS
/* A model that was not trained will do. */
static void give_teacher(Golf *m, const char *text, size_t N) {
    Golf *t = owned(m, 1, sizeof(Golf));
    new_model(t, text, N);
    t->train = 0;
    m->own[SYS_teacher] = t;
}

static void give_small_teacher(Golf *m, size_t N) {
    give_teacher(m, "vocab=11 width=16 heads=2 mlp=1 seq=24 repeat=1", N);
}

static void shake(Golf *m, double size, uint64_t key) {
    for (size_t i = 0; i < m->n_params; i++) m->master[i] += (real)size * noise(key, i);
    golf_quantize(m);
}

static double teacher_log_sum(const real *l, int V) {
    double sum = 0;
    for (int k = 0; k < V; k++) sum += exp((double)l[k]);
    return log(sum);
}

/* The aim by its definition, in double: logits l of the model, o of its teacher (n,V). */
static double aim_of(const real *l, const real *o, const int *y, int n, int V,
                     double kd) {
    double sum = 0;
    for (int i = 0; i < n; i++, l += V, o += V) {
        const double lse = teacher_log_sum(l, V), other = teacher_log_sum(o, V);
        sum += (1 - kd) * (lse - (double)l[y[i]]);
        for (int k = 0; k < V; k++) {
            const double log_p = (double)o[k] - other, log_q = (double)l[k] - lse;
            sum += kd * exp(log_p) * (log_p - log_q);
        }
    }
    return sum / n;
}

static void test_teacher_aim(void) {
    enum { V = 20, N = 32 };
    static const char *const big =
        "vocab=20 width=24 heads=2 mlp=1 seq=20 repeat=1 embed_bits=16 seed=5";
    static const double parts[] = {0, 0.3, 1};
    const int *x = tokens_below(V, N, 80), *y = tokens_below(V, N, 81);

    for (int i = 0; i < 3; i++) {
        const double kd = parts[i];
        char with[200];
        Golf m;
        snprintf(with, sizeof with,
                 "vocab=20 width=16 heads=2 mlp=2 seq=16 repeat=2 teacher=x kd=%g", kd);
        new_model(&m, with, N);
        shake(&m, 0.5, 7);
        const double plain = golf_forward(&m, x, y, 2, 16);
        give_teacher(&m, big, N);
        Golf *t = m.own[SYS_teacher];
        shake(t, 0.5, 8);

        golf_forward(&m, x, NULL, 2, 16);
        golf_forward(t, x, NULL, 2, 16);
        const double want = aim_of(m.logits, t->logits, y, N, V, kd);
        const double aim = golf_forward(&m, x, y, 2, 16);
        CHECK(near(aim, want, DOUBLE ? 1e-12 : 1e-5), "kd=%g: loss %.9g, not %.9g", kd,
              aim, want);
        m.train = 0;
        const double scored = golf_forward(&m, x, y, 2, 16);
        CHECK(near(scored, plain, EPS), "kd=%g: scored with %.9g, not %.9g", kd, scored,
              plain);
        golf_free(&m);
    }
}

/* A teacher from its checkpoint predicts what the model did; one that does not fit is
 * refused. */
static void test_teacher_opened(void) {
    enum { V = 20, N = 32 };
    static const struct {
        const char *options, *says;
    } rows[] = {{"vocab=20 seq=24", "t.bin|--seq=24 or more|found 20 and 16"},
                {"vocab=21 seq=16", "t.bin|--vocab=21"}};
    const int *x = tokens_below(V, N, 80);
    Golf m, t;
    char text[200];

    new_model(&t, "vocab=20 width=24 heads=2 mlp=1 seq=16 repeat=3", N);
    shake(&t, 0.1, 8);
    golf_forward(&t, x, NULL, 2, 16);
    ckpt_save(&t, IN("t.bin"), 3);
    new_model(&m, "vocab=20 width=16 heads=2 mlp=2 seq=16 repeat=1 teacher=x", N);
    teacher_load(&m, IN("t.bin"));
    const Golf *opened = m.own[SYS_teacher];
    golf_forward(m.own[SYS_teacher], x, NULL, 2, 16);
    CHECK(!memcmp(opened->logits, t.logits, N * V * sizeof(real)),
          "it predicts something else");
    golf_free(&m);

    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof text, "width=16 heads=2 repeat=1 teacher=x %s",
                 rows[i].options);
        new_model(&m, text, N);
        DIES(text, rows[i].says, teacher_load(&m, IN("t.bin")));
        golf_free(&m);
    }
    golf_free(&t);
}

/* Nor one that is not whole in its file, or was trained with another tokenizer. */
static void test_teacher_refused(void) {
    static const System wanting = {
        .name = "wanting", .needs = "thing", .on = never_on, .wants = RES_DONOR};
    Golf m, t;
    char text[200];

    new_model(&t, "vocab=20 width=16 heads=2 seq=16", 0);
    mkdir(IN("elsewhere"), 0777);
    ckpt_save(&t, IN("elsewhere/t.bin"), 3);
    put_file(IN("elsewhere/tokenizer.model"), "x", 1);
    t.systems[0] = &wanting;
    DIES("a teacher made of a donor", "t.bin|--thing|another --teacher",
         refuse_donors(&t, IN("t.bin")));
    t.systems[0] = NULL;
    mkdir(IN("moved"), 0777); /* away from its tokenizer, which it knows */
    t.tokenizer_crc = 77;
    ckpt_save(&t, IN("moved/t.bin"), 3);
    golf_free(&t);

    write_hand_model(IN("hand.model"));
    const Tokenizer *tok = tokenizer_load(IN("hand.model"));
    snprintf(text, sizeof text, "vocab=20 width=16 heads=2 seq=16 teacher=%s",
             expanded("@/elsewhere/t.bin"));
    new_model(&m, text, 32);
    DIES("another tokenizer", "elsewhere/t.bin|tokenizer", teacher_open(&m, tok, 0));
    golf_free(&m);
    snprintf(text, sizeof text, "vocab=20 width=16 heads=2 seq=16 teacher=%s",
             expanded("@/moved/t.bin"));
    new_model(&m, text, 32);
    DIES("moved", "moved/t.bin|tokenizer|0000004d", teacher_open(&m, tok, 0));
    golf_free(&m);
}

/* Nor, when the run goes on, one that is not what it started with. */
static void test_teacher_exchanged(void) {
    static const char *const first = "train --preset=tiny --width=16 --seq=16 --steps=2 "
                                     "--data=@/export --out=@/taught_by --overwrite=1 ";
    static const char *const taught =
        "train --preset=tiny --width=16 --seq=16 --steps=3 --data=@/export --out=@/taught "
        "--teacher=@/taught_by/ckpt.bin --resume=1";
    size_t n;

    CHECK(STATUS(command_line(first)) == 0 && STATUS(command_line(taught)) == 0,
          "a run with a teacher: %s", message);
    const char *result = (char *)read_file(IN("taught/result.json"), &n);
    CHECK(strstr(result, "\"teacher_flops_per_token\": ") != NULL, "its cost: %s", result);
    CHECK(STATUS(command_line(taught)) == 0, "the same teacher: %s", message);
    char *other = strdup(first);
    memcpy(strstr(other, "--steps=2"), "--steps=1", 9);
    CHECK(STATUS(command_line(other)) == 0, "another teacher: %s", message);
    DIES("an exchanged teacher", "taught/ckpt.bin|taught_by/ckpt.bin|put the old file back",
         command_line(taught));
    free(other);
}

/* --minutes measures steps with the teacher's part. */
static int teacher_was_there;
static void see_teacher(Golf *m, int step) {
    teacher_was_there = step >= 0 && m->own[SYS_teacher];
}

static void test_teacher_in_minutes(void) {
    static const System seeing = {.name = "seeing", .on = never_on, .step = see_teacher};
    Golf m, t;
    char text[300];

    new_model(&t, "vocab=266 width=16 heads=2 seq=16", 0);
    ckpt_save(&t, IN("t.bin"), 3);
    golf_free(&t);
    const Tokenizer *tok = tokenizer_load(IN("export/tokenizer.model"));
    Shards *train = shards_open(IN("export"), "train", HAND_VOCAB);
    snprintf(text, sizeof text,
             "vocab=266 width=16 heads=2 seq=16 batch=2 minutes=0.01 teacher=%s",
             expanded("@/t.bin"));
    new_model(&m, text, 32);
    const System **s = m.systems;
    while (*s) s++;
    *s = &seeing;
    int *x = xcalloc(33, sizeof(int)), *y = xcalloc(32, sizeof(int));
    teacher_was_there = 0;
    fit_minutes(&m, tok, train, x, y);
    CHECK(teacher_was_there, "--minutes counts steps without the teacher");
    CHECK(!m.own[SYS_teacher], "the run starts with what measured");
    golf_free(&m);
}

static const SystemTests teacher_tests = {
    .gradients =
        (const char *const[]){"kd=0.3 teacher=x", "kd=1 teacher=x wq=none aq=none",
                              "kd=0.6 teacher=x repeat=3 seq=24 mlp=1", NULL},
    .ready = give_small_teacher,
    .files = (const char *const[]){"teacher=x kd=0.7", NULL},
    .errors = (const char *const[][2]){{"--kd=0.3", "--kd|--teacher"},
                                       {"--teacher=@/none.bin", "none.bin|cannot open"},
                                       {"--teacher=x --kd=1.5", "--kd|0 to 1"},
                                       {NULL, NULL}},
    .tests = (const Test[]){{"aim", test_teacher_aim},
                            {"opened", test_teacher_opened},
                            {"refused", test_teacher_refused},
                            {"exchanged", test_teacher_exchanged},
                            {"in minutes", test_teacher_in_minutes},
                            {NULL, NULL}}};
#elif defined BUGS
bug teacher-exchanged float exchanged "$(in_ teacher_open)s/depends_on(m, .*;//"
bug minutes-without-the-teacher float minutes "$(in_ fit_minutes)s/open_systems(m, tok, 0);/(void)tok;/"
bug teacher-without-softcap double "teacher: grad" "$(in_ teach_token)s/ \* (1 - l\[k\] \* l\[k\] \* cap2)//"
bug teacher-twice double "teacher: grad" "$(in_ teacher_loss)s/(1 - W) \* f->loss/f->loss/"
bug teacher-of-the-first-row double "teacher: aim" "$(in_ teacher_loss)s/f->lse\[i\], y\[i\]/f->lse[0], y[i]/"
bug teacher-not-taught double "teacher: grad" "$(in_ teacher_loss)s/l\[i\] += other\[i\]/l[i] += 0 * other[i]/"
bug teacher-of-any-length float "teacher: opened" "$(in_ teacher_load)s/ || c->seq < m->config.seq//"
bug teacher-of-the-start double "teacher: opened" "$(in_ teacher_load)s/memcpy(t->master.*;//"
bug teacher-of-a-donor float "teacher: refused" "$(in_ refuse_donors)s/wants & RES_DONOR/wants \& RES_MLP/"
bug reverse-kl double "teacher: aim" "$(in_ teach_token)s/kl += p \*/kl -= exp(l[k] - lse) */"
#endif
