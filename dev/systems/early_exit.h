/* early_exit.h - predictions after fewer applications than a model has, as in CALM
 * (2207.07061) and Relaxed Recursive Transformers (2410.20672): the head reads the stream
 * behind any phase.
 *
 *   eval --exit=CONFIDENCE   a token is predicted behind the first phase whose confidence
 *                            reaches this, else behind the last one; confidence: the
 *                            largest probability of the softmax. Prints how many
 *                            applications (phases) tokens take on average, how many
 *                            tokens leave where, and what the score would be if all did
 *   --exit_loss=L            trains for it: L times the sum of the other phases' losses
 *                            is added to that of the last, whose coefficient is 1
 *   --exit_kd=K              of which K is KL(p || q) from the last phase's predictions
 *                            p, which no gradient reaches, and 1 - K cross-entropy
 *
 * The score is a normalised one: a token is scored with the distribution where it leaves,
 * which depends on it and on tokens before it alone. The score if all did is CALM's
 * static exit.
 *
 * No time is saved here. All phases are computed for all tokens, and the exit chooses
 * which of them predicts: later tokens attend to the keys and values that every phase
 * made. What is printed is how many applications a prediction waits for. A decoder that
 * fills in the later phases' keys and values when they are needed has these scores, and
 * saves waiting, not work. One that copies the state of a token that left into the phases
 * to come (CALM's state propagation) saves work, but has other keys and values there, and
 * so other exits and another score, which is not measured.
 *
 * Nothing of it is stored. Cost of training: the head once more for each phase, forward
 * and backward, and a gradient of the stream for each; with --exit_kd the head once more
 * and N V numbers. Of an evaluation: a head for each phase.
 *
 * Differs from the papers. Relaxed Recursive leaves at the end of a loop, which is a
 * phase if one block is shared (--unique=1), and else several. Its speed-up is that of an
 * oracle, which leaves where the prediction is that of the last loop; for a confidence it
 * refers to CALM. There it is the difference of the two largest probabilities, or how
 * little the state changes, or a trained classifier, and its threshold is calibrated and
 * falls along the text; here it is the largest probability, and the threshold is given.
 * The training is that of 2410.20672, 3.7 and J: a small coefficient, 0.1, and
 * distillation from the detached last output; how cross-entropy and distillation add up
 * it does not say, and here they share the coefficient. It is done there on a model that
 * is trained already, as it cost the last output much from the start: --init_from does
 * that here, which the option does not demand. `sample` takes all phases. */
#ifdef OPTIONS
X(EVAL, NUM, exit, "0", "0 to 1",
  "> 0: tokens leave behind the first phase of this confidence")
X(TRAIN, NUM, exit_loss, "0", "0 to 10",
  "of the predictions behind the other phases; 0.1")
X(TRAIN, NUM, exit_kd, "0", "0 to 1", "part of it: distilled from the last phase")

#elif defined LIST
X(early_exit)

#elif defined CODE
#include "shared/distill.h"

static const System early_exit_system;

typedef struct {
    /* evaluation */
    double confidence; /* 0: not now */
    int visit;         /* phases that were entered in this pass */
    real *kept;        /* (phases run - 1, m->N, C) the streams behind all but the last */
    real *chosen;      /* (m->N,C) the stream where a token leaves */
    real *nll;         /* (phases run, m->N) losses behind each */
    int *exit;         /* (m->N) the phases that a token takes */
    double *sum;       /* (phases run) of losses of scored tokens */
    int64_t *leave;    /* (phases run) scored tokens that leave there */
    int64_t scored;
    /* training */
    real *dstream; /* (phases,m->N,C) gradients of the streams */
    real *last;    /* (m->N,V) logits of the last phase */
    real *lse;     /* (m->N) and their log-sum-exps */
    real *room;    /* (min(m->N,HEAD),V) a copy of some of them */
    int hold;      /* keep `last`: for tests, as no gradient passes it */
} Exits;

static int early_exit_on(const Config *c) { return c->exit_loss > 0; }

static void early_exit_check(const Config *c) {
    if (phase_count(c) < 2)
        die("--exit_loss is of the phases before the last: expected more than one phase "
            "(--repeat, --unique)");
}

static void early_exit_buffers(Golf *m, size_t N) {
    const Config *c = &m->config;
    const size_t V = (size_t)c->vocab;
    Exits *e = owned(m, 1, sizeof(Exits));

    m->own[SYS_early_exit] = e;
    if (!m->train) return;
    e->dstream = owned_reals(m, (size_t)m->phases * N * (size_t)c->width);
    if (c->exit_kd <= 0) return;
    e->last = owned_reals(m, N * V);
    e->lse = owned_reals(m, N);
    e->room = owned_reals(m, MIN(N, HEAD) * V);
}

/* ---- Training: loss = last + exit_loss * sum of the others. */
/* The head reads n tokens of a stream (..,C) from h0 on, n <= HEAD: their logits are the
 * first rows of m->logits, and m->lse and, with targets y, m->loss are theirs. */
static void read_stream(Golf *m, const real *stream, const int *y, int h0, int n) {
    const real *last = m->prev[m->phases];
    m->prev[m->phases] = stream + (size_t)h0 * (size_t)m->config.width;
    head(m, y ? y + h0 : NULL, n, 0);
    m->prev[m->phases] = last;
}

/* The predictions of the last phase, to learn from. */
static void keep_last(Golf *m, Exits *e, int N) {
    const size_t V = (size_t)m->config.vocab;
    for (int h0 = 0; h0 < N; h0 += HEAD) {
        const int n = MIN(N - h0, HEAD);
        read_stream(m, m->prev[m->phases], NULL, h0, n);
        memcpy(e->last + (size_t)h0 * V, m->logits, (size_t)n * V * sizeof(real));
        memcpy(e->lse + h0, m->lse, (size_t)n * sizeof(real));
    }
}

/* n tokens from `from` on: the losses become those of the aim, other (n,V) what
 * distillation adds to the gradients of logits l (n,V). */
static void distill_tokens(const Golf *m, real *other, const real *l, const Flow *f,
                           const int *y, size_t from, int n, real part) {
    const Exits *e = m->own[SYS_early_exit];
    const int V = m->config.vocab;
    const real K = (real)m->config.exit_kd;

    memcpy(other, e->last + from * (size_t)V, (size_t)n * (size_t)V * sizeof(real));
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)i * (size_t)V;
        const real kl = teach_token(other + at, e->lse[from + (size_t)i], l + at,
                                    f->lse[i], y[i], K, part, V);
        f->loss[i] = (1 - K) * f->loss[i] + K * kl;
    }
}

/* For the core's head: l (n,V), logits behind one of the other phases, to gradients of
 * that phase's part of the aim; its losses. */
static void early_exit_loss(const Golf *m, real *l, const Flow *f, const int *y,
                            size_t from, size_t row, int n, real dloss) {
    const Exits *e = m->own[SYS_early_exit];
    const int V = m->config.vocab;
    const real part = dloss * (real)m->config.exit_loss;
    if (!e->last) {
        loss_backward(l, f->lse, y, part, n, V);
        return;
    }

    real *other = e->room + row * (size_t)V;
    distill_tokens(m, other, l, f, y, from, n, part);
    loss_backward(l, f->lse, y, part, n, V);
    for (size_t i = 0; i < (size_t)n * (size_t)V; i++) l[i] += other[i];
}

/* Adds to dE, and leaves the gradients of the streams. */
static double exit_losses(Golf *m, Exits *e, const int *y, int N) {
    const size_t stream_n = m->N * (size_t)m->config.width;
    const System *loss_of = m->loss_of;
    const real *last = m->prev[m->phases];
    real *dh = m->dh;
    double sum = 0;

    if (e->last && !e->hold) keep_last(m, e, N);
    m->loss_of = &early_exit_system;
    for (int i = 0; i < m->n_visits - 1; i++) {
        const int p = m->visits[i];
        m->prev[m->phases] = m->phase[p].out;
        m->dh = e->dstream + (size_t)p * stream_n;
        head(m, y, N, 1);
        for (int n = 0; n < N; n++) sum += (double)m->loss[n];
    }
    m->loss_of = loss_of;
    m->prev[m->phases] = last;
    m->dh = dh;
    return m->config.exit_loss * sum / N;
}

/* d(out) of a phase has come along the stream, and from its own predictions. */
static void early_exit_leave_backward(Golf *m, int p, int N) {
    const Exits *e = m->own[SYS_early_exit];
    const int C = m->config.width;
    if (p == m->visits[m->n_visits - 1]) return;
    gate_forward(m->dh, m->dh, e->dstream + (size_t)p * m->N * (size_t)C, m->ones, N, C);
}

/* Each phase has a head; forward alone is a third of one. */
static double early_exit_flops(const Golf *m, const Tensor *t) {
    if (t != m->tensor + T_embed) return -1;
    return m->phases + (m->config.exit_kd > 0 ? 1.0 / 3 : 0);
}

/* ---- Evaluation. */
/* The system joins a model that is evaluated. */
static void early_exit_eval(Golf *m, const Config *how) {
    const size_t n = (size_t)m->n_visits, C = (size_t)m->config.width;
    if (how->exit <= 0) return;

    Exits *e = owned(m, 1, sizeof(Exits));
    m->own[SYS_early_exit] = e;
    e->confidence = how->exit;
    e->kept = owned_reals(m, n * m->N * C);
    e->chosen = owned_reals(m, m->N * C);
    e->nll = owned_reals(m, n * m->N);
    e->exit = owned(m, m->N, sizeof(int));
    e->sum = owned(m, n, sizeof(double));
    e->leave = owned(m, n, sizeof(int64_t));
    join(m, &early_exit_system);
}

/* Keeps what the phase before this one left: phases share that buffer now. */
static void early_exit_enter(Golf *m, int p, int N) {
    Exits *e = m->own[SYS_early_exit];
    const size_t C = (size_t)m->config.width;
    const int before = e->visit - 1;
    (void)p;
    if (e->confidence <= 0) return;

    e->visit++;
    if (before < 0) return;
    memcpy(e->kept + (size_t)before * m->N * C, m->phase[m->visits[before]].out,
           (size_t)N * C * sizeof(real));
}

/* The largest probability of logits l (V). */
static double confidence_of(const real *l, double lse, int V) {
    real most = l[0];
    for (int k = 1; k < V; k++) most = larger(most, l[k]);
    return exp_of((double)most - lse);
}

/* n tokens from h0 on behind run i of a phase, whose predictions were just read: who has
 * not left before leaves if confidence is high enough, or i is the last. */
static void leave_at(Golf *m, Exits *e, const real *stream, int i, int h0, int n) {
    const size_t C = (size_t)m->config.width, V = (size_t)m->config.vocab;
    for (int k = 0; k < n; k++) {
        const size_t at = (size_t)(h0 + k), row = (size_t)k;
        const double sure =
            confidence_of(m->logits + row * V, (double)m->lse[k], m->config.vocab);
        e->nll[(size_t)i * m->N + at] = m->loss[k];
        if (e->exit[at] || (sure < e->confidence && i < m->n_visits - 1)) continue;
        e->exit[at] = i + 1;
        memcpy(e->chosen + at * C, stream + at * C, C * sizeof(real));
    }
}

/* Gives the head each token's stream where it leaves. */
static void choose_exits(Golf *m, Exits *e, const int *y, int N) {
    const size_t stream_n = m->N * (size_t)m->config.width;
    memset(e->exit, 0, (size_t)N * sizeof(int));
    for (int i = 0; i < m->n_visits; i++) {
        const int last = i == m->n_visits - 1;
        const real *stream = last ? m->prev[m->phases] : e->kept + (size_t)i * stream_n;
        for (int h0 = 0; h0 < N; h0 += HEAD) {
            const int n = MIN(N - h0, HEAD);
            read_stream(m, stream, y, h0, n);
            leave_at(m, e, stream, i, h0, n);
        }
    }
    m->prev[m->phases] = e->chosen;
    e->visit = 0;
}

static double early_exit_before_head(Golf *m, const int *y, int N, int learn) {
    Exits *e = m->own[SYS_early_exit];
    if (learn) return exit_losses(m, e, y, N);
    if (e->confidence > 0) choose_exits(m, e, y, N);
    return 0;
}

static void early_exit_scored(Golf *m, int n, int64_t target) {
    Exits *e = m->own[SYS_early_exit];
    (void)target;
    if (e->confidence <= 0) return;
    for (int i = 0; i < m->n_visits; i++)
        e->sum[i] += (double)e->nll[(size_t)i * m->N + (size_t)n];
    e->leave[e->exit[n] - 1]++;
    e->scored++;
}

static double mean_applications(const Golf *m) {
    const Exits *e = m->own[SYS_early_exit];
    double sum = 0;
    for (int i = 0; i < m->n_visits; i++) sum += (i + 1) * (double)e->leave[i];
    return sum / (double)e->scored;
}

static void early_exit_report(const Golf *m, const Score *s, FILE *f) {
    const Exits *e = m->own[SYS_early_exit];
    fprintf(f, "exit %g\nmean_applications %.6f of %d\n", e->confidence,
            mean_applications(m), m->n_visits);
    for (int i = 0; i < m->n_visits; i++)
        fprintf(f, "application %d: %.4f of the tokens leave; val_bpb %.6f if all did\n",
                i + 1, (double)e->leave[i] / (double)e->scored,
                e->sum[i] / log_of(2) / (double)s->bytes);
}

static const System early_exit_system = {.name = "early_exit",
                                         .needs = "exit_loss",
                                         .on = early_exit_on,
                                         .check = early_exit_check,
                                         .buffers = early_exit_buffers,
                                         .eval = early_exit_eval,
                                         .enter = early_exit_enter,
                                         .before_head = early_exit_before_head,
                                         .loss = early_exit_loss,
                                         .leave_backward = early_exit_leave_backward,
                                         .scored = early_exit_scored,
                                         .report = early_exit_report,
                                         .flops = early_exit_flops};

#elif defined TESTS
#define SMALL_EXITS "vocab=20 width=16 heads=2 mlp=2 seq=16 "

/* For finite differences: predictions to learn from stay as they are in a first pass. */
static void hold_last(Golf *m, size_t N) {
    Exits *e = m->own[SYS_early_exit];
    const int *x = tokens_below(11, N, 80), *y = tokens_below(11, N, 81);
    const int T = N % 7 ? 24 : 7; /* as check_gradients has them */
    if (!e->last) return;
    golf_forward(m, x, y, (int)N / T, T);
    e->hold = 1;
}

/* A model away from its start, where gates are 1 and phases much alike. */
static void shaken_model(Golf *m, const char *text, size_t N) {
    new_model(m, text, N);
    EACH_TENSOR(t, m) {
        const double size = t->role == INTERFACE ? 0.3 : 0.1;
        for (size_t i = t->at; i < t->at + t->n; i++)
            m->master[i] += (real)(size * (double)noise(70, i));
    }
    golf_quantize(m);
}

/* log q (V) of a token whose stream is `stream` (C), by definition. */
static void naive_log_q(const Golf *m, const real *stream, double *log_q) {
    const int C = m->config.width, V = m->config.vocab;
    const real *E = m->eff + m->tensor[T_embed].at;
    double square = 0, sum = 0;
    for (int i = 0; i < C; i++) square += (double)stream[i] * (double)stream[i] / C;
    for (int v = 0; v < V; v++) {
        double z = 0;
        for (int i = 0; i < C; i++) z += (double)E[v * C + i] * (double)stream[i];
        log_q[v] = 30 * tanh(z / sqrt(square + 1e-6) / 30);
        sum += exp(log_q[v]);
    }
    for (int v = 0; v < V; v++) log_q[v] -= log(sum);
}

/* What is minimised: the last phase's cross-entropy, and of each other phase L times
 * (1 - K) cross-entropy + K KL(last || it). */
static void test_exit_aim(void) {
    enum { V = 20, C = 16, N = 32, P = 4 };
    static const struct {
        const char *options;
        double L, K;
    } rows[] = {{"repeat=4 exit_loss=0.1", 0.1, 0},
                {"unique=2 repeat=2 exit_loss=0.7 exit_kd=0.25", 0.7, 0.25},
                {"repeat=4 exit_loss=0.3 exit_kd=1 recompute=1", 0.3, 1}};
    const int *x = tokens_below(V, N, 80), *y = tokens_below(V, N, 81);
    char text[200];

    for (size_t row = 0; row < COUNT(rows); row++) {
        double want = 0, p[V], q[V];
        Golf m;
        snprintf(text, sizeof text, SMALL_EXITS "%s", rows[row].options);
        shaken_model(&m, text, N);
        const double loss = golf_forward(&m, x, y, 2, 16);
        for (int n = 0; n < N; n++) {
            naive_log_q(&m, m.phase[P - 1].out + n * C, p);
            want -= p[y[n]] / N;
            for (int i = 0; i < P - 1; i++) {
                naive_log_q(&m, m.phase[i].out + n * C, q);
                double kl = 0;
                for (int v = 0; v < V; v++) kl += exp(p[v]) * (p[v] - q[v]);
                want += rows[row].L * (rows[row].K * kl - (1 - rows[row].K) * q[y[n]]) / N;
            }
        }
        CHECK(near(loss, want, DOUBLE ? 1e-11 : 1e-5), "%s: loss %.9g, not %.9g", text,
              loss, want);
        m.train = 0;
        const double scored = golf_forward(&m, x, y, 2, 16);
        CHECK(scored < loss, "%s: scored with %.9g", text, scored);
        golf_free(&m);
    }
}

/* The same gradients, whatever is kept of the forward pass. */
static void test_exit_recompute(void) {
    enum { N = 32 };
    static const char *const text = SMALL_EXITS "repeat=4 exit_loss=0.3 exit_kd=0.5";
    const int *x = tokens_below(20, N, 80), *y = tokens_below(20, N, 81);
    char with[200];
    Golf m, b;

    shaken_model(&m, text, N);
    snprintf(with, sizeof with, "%s recompute=1", text);
    shaken_model(&b, with, N);
    for (int step = 0; step < 2; step++) {
        golf_forward(&m, x, y, 2, 16);
        golf_backward(&m, x, 2, 16);
        golf_forward(&b, x, y, 2, 16);
        golf_backward(&b, x, 2, 16);
        CHECK(!memcmp(m.grad, b.grad, m.n_params * sizeof(real)), "other gradients");
    }
    golf_free(&m);
    golf_free(&b);
}

/* Where depth changes, what is the last phase now has no part left from when it was
 * not. */
static void test_exit_depth(void) {
    enum { N = 32 };
    static const char *const text = SMALL_EXITS "repeat=4 exit_loss=0.3";
    const int *x = tokens_below(20, N, 80), *y = tokens_below(20, N, 81);
    Golf m, b;

    shaken_model(&m, text, N);
    shaken_model(&b, text, N);
    golf_forward(&m, x, y, 2, 16);
    golf_backward(&m, x, 2, 16);
    m.n_visits = b.n_visits = 3;
    golf_forward(&m, x, y, 2, 16);
    golf_backward(&m, x, 2, 16);
    golf_forward(&b, x, y, 2, 16);
    golf_backward(&b, x, 2, 16);
    CHECK(!memcmp(m.grad, b.grad, m.n_params * sizeof(real)), "other gradients");
    golf_free(&m);
    golf_free(&b);
}

static void evaluate_with(Golf *m, double confidence) {
    m->train = 0;
    early_exit_eval(m, &(Config){.exit = confidence});
}

/* A token leaves behind the first phase that is sure, and is scored with what is
 * predicted there. */
static void test_exit_choice(void) {
    enum { V = 20, C = 16, N = 1200, P = 5 }; /* more than HEAD */
    static const double bars[] = {0.1, 0.15, 0.3};
    const int *x = tokens_below(V, N, 80), *y = tokens_below(V, N, 81);

    for (int b = 0; b < 3; b++) {
        int at_phase[P + 1] = {0}, wrong = 0;
        double q[V], worst = 0;
        Golf m;
        shaken_model(&m, SMALL_EXITS "prelude=1 unique=2 repeat=2", N);
        evaluate_with(&m, bars[b]);
        golf_forward(&m, x, y, 75, 16);
        const Exits *e = m.own[SYS_early_exit];
        for (int n = 0; n < N; n++) {
            int i = 0;
            while (i < P) { /* the last of five is never kept: m.phase has its stream */
                const real *stream = i < P - 1 ? e->kept + (i * N + n) * C
                                               : m.phase[P - 1].out + n * C;
                double most = -HUGE_VAL;
                naive_log_q(&m, stream, q);
                for (int v = 0; v < V; v++) most = fmax(most, q[v]);
                i++;
                if (exp(most) >= bars[b]) break;
            }
            wrong += e->exit[n] != i;
            at_phase[i]++;
            worst = worse(worst, fabs((double)m.loss[n] + q[y[n]]));
        }
        CHECK(wrong <= (DOUBLE ? 0 : 2), "%g: %d of %d leave elsewhere", bars[b], wrong,
              N);
        CHECK(wrong || worst < (DOUBLE ? 1e-11 : 1e-4), "%g: a loss is off by %.3g",
              bars[b], worst);
        CHECK(b == 2 || at_phase[P] < N, "%g: none leaves early", bars[b]);
        golf_free(&m);
    }
}

/* Whoever leaves behind phase k is predicted as by a model of k phases. */
static void test_exit_of_shorter_models(void) {
    enum { N = 32, P = 4 };
    const int *x = tokens_below(20, N, 80), *y = tokens_below(20, N, 81);
    Golf m, b;
    char text[200];

    shaken_model(&m, SMALL_EXITS "repeat=4", N);
    evaluate_with(&m, 1);
    golf_forward(&m, x, y, 2, 16);
    const Exits *e = m.own[SYS_early_exit];
    for (int k = 1; k <= P; k++) {
        int same = 1;
        snprintf(text, sizeof text, SMALL_EXITS "repeat=%d", k);
        new_model(&b, text, N);
        EACH_TENSOR(t, &b) {
            const Tensor *u = m.tensor + (t - b.tensor);
            memcpy(b.master + t->at, m.master + u->at, t->n * sizeof(real));
        }
        golf_quantize(&b);
        b.train = 0;
        golf_forward(&b, x, y, 2, 16);
        for (int n = 0; n < N; n++) same &= e->nll[(k - 1) * N + n] == b.loss[n];
        CHECK(same, "%d phases predict something else", k);
        golf_free(&b);
    }
    golf_free(&m);
}

/* Later tokens change neither where a token leaves nor how it is scored. */
static void test_exit_causality(void) {
    enum { N = 16 };
    int *x = tokens_below(20, N, 80), *y = tokens_below(20, N, 81), exits[N];
    real loss[N];
    Golf m;

    shaken_model(&m, SMALL_EXITS "repeat=4", N);
    evaluate_with(&m, 0.12);
    golf_forward(&m, x, y, 1, N);
    const Exits *e = m.own[SYS_early_exit];
    memcpy(exits, e->exit, sizeof exits);
    memcpy(loss, m.loss, sizeof loss);
    for (int t = N - 1; t > 0; t--) {
        x[t] = (x[t] + 7) % 20;
        golf_forward(&m, x, y, 1, N);
        CHECK(!memcmp(exits, e->exit, (size_t)t * sizeof(int)) &&
                  !memcmp(loss, m.loss, (size_t)t * sizeof(real)),
              "token %d changes one before it", t);
    }
    golf_free(&m);
}

/* What `eval` prints, of scored tokens alone: their mean number of phases, who leaves
 * where, and the score of each phase. */
static void test_exit_report(void) {
    const Tokenizer *tok = tokenizer_load(path_of(IN("export"), "tokenizer.model"));
    Shards *val = shards_open(IN("export"), "val", tok->vocab);
    static const int strides[] = {0, 5};
    for (int i = 0; i < 2; i++) {
        char text[200], *said = NULL;
        size_t len = 0;
        double left = 0, mean = 0, last = 0;
        Golf m;
        snprintf(text, sizeof text,
                 "vocab=%d width=16 heads=2 mlp=2 seq=16 repeat=3 embed_bits=4",
                 tok->vocab);
        shaken_model(&m, text, 64);
        m.train = 0;
        const Score whole = golf_eval(&m, tok, val, strides[i], 0);
        evaluate_with(&m, 0.02);
        const Score s = golf_eval(&m, tok, val, strides[i], 0);
        const Exits *e = m.own[SYS_early_exit];
        for (int p = 0; p < 3; p++) left += (double)e->leave[p];
        for (int p = 0; p < 3; p++) mean += (p + 1) * (double)e->leave[p] / left;
        last = e->sum[2] / log(2.0) / (double)s.bytes;
        CHECK(left == (double)s.tokens && s.tokens == whole.tokens,
              "%g tokens leave, %lld are scored", left, (long long)s.tokens);
        CHECK(near(mean, mean_applications(&m), 1e-12) && mean > 1 && mean < 3,
              "%g applications, not %g", mean_applications(&m), mean);
        CHECK(near(last, whole.bpb, 1e-9) && s.nll != whole.nll,
              "the last phase scores %.9g, the model %.9g", last, whole.bpb);

        FILE *f = open_memstream(&said, &len);
        early_exit_report(&m, &s, f);
        fclose(f);
        snprintf(text, sizeof text, "exit 0.02\nmean_applications %.6f of 3\n", mean);
        CHECK(!strncmp(said, text, strlen(text)), "it prints %s", said);
        snprintf(text, sizeof text, "val_bpb %.6f if all did\n", whole.bpb);
        CHECK(strlen(said) > strlen(text) &&
                  !strcmp(said + strlen(said) - strlen(text), text),
              "it prints %s", said);
        free(said);
        golf_free(&m);
    }
}
/* Each of the other phases has a head: 6 V C, and 2 to predict what is to be learned. */
static void test_exit_flops(void) {
    static const char *const text = SMALL_EXITS "repeat=4";
    static const struct {
        const char *options;
        double more;
    } rows[] = {{"exit_loss=0.1", 3 * 6.0 * 20 * 16},
                {"exit_loss=0.1 exit_kd=0.5", (3 * 6 + 2.0) * 20 * 16}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char with[200];
        snprintf(with, sizeof with, "%s %s", text, rows[i].options);
        const Config plain = config_of(text), c = config_of(with);
        const double more = flops_per_token(&c) - flops_per_token(&plain);
        CHECK(near(more / rows[i].more, 1, 1e-12), "%s: %g FLOPs more, not %g", with,
              more, rows[i].more);
    }
}
#undef SMALL_EXITS

static const SystemTests early_exit_tests = {
    .gradients =
        (const char *const[]){"exit_loss=0.1 repeat=3",
                              "exit_loss=0.7 unique=2 repeat=2 prelude=1",
                              "exit_loss=0.5 exit_kd=0.6 repeat=3",
                              "exit_loss=0.3 exit_kd=1 seq=24 mlp=1 wq=none aq=none",
                              NULL},
    .ready = hold_last,
    .files = (const char *const[]){"exit_loss=0.1 repeat=3",
                                   "exit_loss=0.2 exit_kd=0.5 unique=2", NULL},
    .errors =
        (const char *const[][2]){
            {"--exit_kd=0.5", "--exit_kd|without --exit_loss"},
            {"--exit_loss=0.1 --unique=1 --repeat=1", "--exit_loss|more than one phase"},
            {"--exit_loss=-1", "--exit_loss|0 to 10"},
            {NULL, NULL}},
    .tests = (const Test[]){{"aim", test_exit_aim},
                            {"recompute", test_exit_recompute},
                            {"depth", test_exit_depth},
                            {"choice", test_exit_choice},
                            {"shorter models", test_exit_of_shorter_models},
                            {"causality", test_exit_causality},
                            {"report", test_exit_report},
                            {"FLOPs", test_exit_flops},
                            {NULL, NULL}}};
#elif defined BUGS
bug exits-without-coefficient double "early_exit: grad" "$(in_ early_exit_loss)s/dloss \* (real)m->config.exit_loss/dloss/"
bug exits-without-dx double "early_exit: grad" "$(in_ early_exit_leave_backward)s/gate_forward(.*;/;/"
bug exits-of-the-last-phase-too float "early_exit: depth" "$(in_ early_exit_leave_backward)s/if (p == .*) return;//"
bug exits-of-one-stream double "early_exit: grad" "$(in_ exit_losses)s/e->dstream + (size_t)p \* stream_n/e->dstream/"
bug exits-undistilled double "early_exit: grad" "$(in_ early_exit_loss)s/l\[i\] += other\[i\]/l[i] += 0 * other[i]/"
bug exits-of-the-first-row double "early_exit: aim" "$(in_ distill_tokens)s/e->lse\[from + (size_t)i\]/e->lse[0]/"
bug exits-take-the-aim double "early_exit: aim" "$(in_ exit_losses)s/m->prev\[m->phases\] = last;//"
bug exits-of-the-first-part float "early_exit: choice" "$(in_ read_stream)s/stream + (size_t)h0 \* (size_t)m->config.width/stream/"
bug exit-where-sure-last float "early_exit: choice" "$(in_ leave_at)s/e->exit\[at\] || //"
bug exit-before-it-is-sure float "early_exit: choice" "$(in_ leave_at)s/sure < e->confidence/sure > e->confidence/"
bug exit-of-the-log float "early_exit: choice" "$(in_ confidence_of)s/exp_of((double)most - lse)/exp_of((double)most) \/ exp_of(lse + 0.2)/"
bug exit-of-shared-buffers float "early_exit: shorter" "$(in_ early_exit_enter)s/if (before < 0) return;/if (before != 0) return;/"
bug exit-seen-late float "early_exit: causality" "$(in_ leave_at)s/m->logits + row \* V/m->logits + (row + 1) % (size_t)n * V/"
bug exits-of-unscored-tokens float "early_exit: report" "$(in_ score_rows)s/if (!is_new(m, r, n)) continue;/EACH_SYSTEM(z, m) { if ((*z)->scored \&\& !is_new(m, r, n)) (*z)->scored(m, n, 0); } &/"
bug exits-cost-nothing float "early_exit: FLOPs" "$(in_ early_exit_flops)s/m->phases + /1 + /"
bug exits-counted-from-0 float "early_exit: report" "$(in_ mean_applications)s/(i + 1) \*/i */"
#endif
