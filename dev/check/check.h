/* check.h - what every test program shares: CHECK, small models, a folder for files,
 * children that may die, a tokenizer written by hand, and the two checks that each system
 * repeats with its own options: gradients of the whole model and the export round trip.
 *
 * A test program includes it first; it includes train_golf.c. Expected numbers are worked
 * by hand beside the test, or come from a second, naive way to compute them. Every check
 * is written so that NaN fails it.
 *
 *     GOLF_TEST_ONLY=gradients    run the tests whose names contain this
 *     GOLF_CORRUPT=1000           corruptions of each kind of file
 */
#define main golf_main /* the program's own: command_line() below calls it */
int main(int argc, char **argv);
#include "../../train_golf.c"
#undef main
#include <sys/wait.h>

static int passed, failed;

#define CHECK(ok, ...) check(ok, __FILE__, __LINE__, __VA_ARGS__)
__attribute__((format(printf, 4, 5))) static void check(int ok, const char *file,
                                                        int line, const char *fmt, ...) {
    va_list ap;
    if (ok) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED %s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    if (getenv("GOLF_FAIL_FAST")) exit(1); /* dev/check/bugs.sh */
}

/* Helpers that some test programs do not need. */
#define MAYBE __attribute__((unused)) static

enum { DOUBLE = sizeof(real) == 8 };
MAYBE const double EPS = DOUBLE ? 1e-12 : 1e-5; /* "equal up to rounding" */

MAYBE int near(double a, double b, double tolerance) { return fabs(a - b) <= tolerance; }
/* The larger, NaN if one is: fmax would forget that. */
MAYBE double worse(double a, double b) { return isnan(a) || a >= b ? a : b; }
MAYBE real noise(uint64_t key, size_t i) { return (real)normal01(key, i); }
MAYBE int bf16_exact(real x) { return from_bf16(to_bf16(x)) == x; }

MAYBE int dice(int sides) { /* 0 .. sides-1, the same sequence in every run */
    static uint64_t i;
    return (int)(hash64(99, i++) % (uint64_t)sides);
}

MAYBE real *reals(size_t n,
                  uint64_t key) { /* noise, zeros for key 0; small, never freed */
    real *x = xcalloc(n, sizeof(real));
    if (!key) return x;
    for (size_t i = 0; i < n; i++) x[i] = noise(key, i);
    return x;
}

MAYBE int *tokens_below(int vocab, size_t n, uint64_t key) {
    int *x = xcalloc(n, sizeof(int));
    for (size_t i = 0; i < n; i++) x[i] = (int)(hash64(key, i) % (uint64_t)vocab);
    return x;
}

MAYBE void set_all(real *x, size_t n, double to) {
    for (size_t i = 0; i < n; i++) x[i] = (real)to;
}

#ifdef _OPENMP
enum { TRIED_THREADS = 4 }; /* results are compared for 1 to so many */
#else
enum { TRIED_THREADS = 1 };
#endif

MAYBE void threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

/* ------------------------------------------------------------------------------------------
 * Models */
/* A config from defaults and "key=value key=value"; the model of the tests is not the
 * preset. */
MAYBE Config config_of(const char *text) {
    static const char *const base =
        "width=256 unique=1 repeat=4 wq=ternary embed_bits=8 xgain=vector heads=4 mlp=4 batch=16 "
        "steps=500 optimizer=adamw lr=0.002 lr_muon=0.03 lr_embed=0.005 bwd=fp32";
    Config c;
    char copy[2048], option[256], *save;
    config_defaults(&c);
    snprintf(copy, sizeof copy, "%s %s", base, text);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        snprintf(option, sizeof option, "--%s", w);
        if (!strncmp(w, "vocab=", 6)) c.vocab = atoi(w + 6);
        else parse_option(&c, option, MODEL | TRAIN);
    }
    config_check(&c);
    return c;
}

MAYBE void new_model(Golf *m, const char *text, size_t N) {
    const Config c = config_of(text);
    golf_init(m, &c, 1);
    if (N) golf_buffers(m, N);
}

MAYBE void run_steps(Golf *m, int from, int to) {
    const int *x = tokens_below(m->config.vocab, m->N, 21);
    const int *y = tokens_below(m->config.vocab, m->N, 22);
    double norm;
    for (int s = from; s < to; s++) golf_step(m, x, y, s, &norm);
}

/* Steps on a language: small numbers are frequent, and what follows one is near its half. */
MAYBE void learn(Golf *m, int from, int to) {
    const int V = m->config.vocab, N = (int)m->N;
    int *x = xcalloc(m->N + 1, sizeof(int));
    double norm;
    for (int step = from; step < to; step++) {
        const uint64_t key = hash64(77, (uint64_t)step);
        for (int i = 1; i <= N; i++) {
            const int any = (int)(V * pow_of(uniform01(key, (uint64_t)i), 3));
            x[i] = (any + x[i - 1] / 2) % V;
        }
        golf_step(m, x, x + 1, step, &norm);
    }
    free(x);
}

/* A small model, 60 tokens and 40 steps to train. */
#define TO_LEARN \
    "vocab=1024 width=32 heads=2 mlp=8 seq=20 batch=3 steps=40 embed_bits=4 optimizer=muon " \
    "lr_embed=0.001 "

/* A tensor of one copy, role PROJ, stored as the options say. */
MAYBE Tensor tensor_of(const char *options_text, const char *name, int rows, int cols) {
    const Config c = config_of(options_text);
    static Golf m;
    golf_layout(&m, &c);
    for (int k = 0; k < N_TENSORS; k++) {
        Tensor t = m.tensor[k];
        if (strcmp(t.name, name)) continue;
        t.rows = rows;
        t.cols = t.stored_cols = cols;
        t.stored_copies = 1;
        t.copy_n = t.n = (size_t)rows * (size_t)cols;
        choose_storage(&m, &t);
        t.copy_scales = t.scale_stride = t.quant->scales(&t);
        t.bytes = t.copy_bytes = t.quant->bytes(&t);
        return t;
    }
    die("there is no tensor %s", name);
}

/* ------------------------------------------------------------------------------------------
 * Files and children */
static char tmp[512];
#define IN(name) path_of(tmp, name)

MAYBE void put_file(const char *path, const void *data,
                    size_t n) { /* no fsync: we write a lot */
    FILE *f = fopen(path, "wb");
    if (!f || (n && fwrite(data, 1, n, f) != n) || fclose(f))
        die("%s: cannot write", path);
}

MAYBE int same_file(const char *path, const void *data, size_t n) {
    size_t len;
    uint8_t *there = read_file(path, &len);
    const int same = len == n && !memcmp(there, data, n);
    free(there);
    return same;
}

MAYBE int exists(const char *name) { return access(IN(name), F_OK) == 0; }

static void remove_tree(const char *path) {
    DIR *d = opendir(path);
    if (d) {
        struct dirent *e;
        while ((e = readdir(d))) {
            char inner_path[2048];
            snprintf(inner_path, sizeof inner_path, "%s/%s", path, e->d_name);
            if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
                remove_tree(inner_path);
        }
        closedir(d);
    }
    remove(path);
}

static pid_t parent;
static void clean_up(void) {
    if (getpid() == parent) remove_tree(tmp);
}

/* STATUS(statements) runs them in a child with one thread and a time limit: its exit
 * status, 0 when they run through, 1 after die(), -1 after a signal. What it wrote to
 * stderr is `message`. A sanitizer's finding has an exit status of its own. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99"; }
const char *__ubsan_default_options(void) { return "halt_on_error=1:exitcode=98"; }
static char message[8192];
static int err_pipe[2];
static pid_t child;

#define STATUS(...) (child_start() == 0 ? ((__VA_ARGS__), exit(0), 0) : child_end())

MAYBE pid_t child_start(void) {
    fflush(stdout);
    if (pipe(err_pipe) || (child = fork()) < 0)
        die("cannot start a child: %s", strerror(errno));
    if (child) return child;
    dup2(err_pipe[1], 2);
    close(err_pipe[0]);
    close(err_pipe[1]);
    if (!freopen("/dev/null", "w", stdout)) exit(9);
    threads(1); /* the parent's team of threads does not exist here */
    alarm(10);
    return 0;
}

MAYBE int child_end(void) {
    int status;
    size_t n = 0;
    const size_t room = sizeof message - 1;
    close(err_pipe[1]);
    while (n < room) {
        const ssize_t k = read(err_pipe[0], message + n, room - n);
        if (k <= 0) break;
        n += (size_t)k;
    }
    message[n] = 0;
    close(err_pipe[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* One line on stderr with all of the words ('|' between them), exit status 1. */
MAYBE void expect_message(int status, const char *what, const char *wanted) {
    char copy[512], *save;
    const size_t len = strlen(message);
    snprintf(copy, sizeof copy, "%s", wanted);
    CHECK(status == 1, "%s: exit status %d instead of 1: %s", what, status, message);
    CHECK(len && strchr(message, '\n') == message + len - 1, "%s: not one line: %s", what,
          message);
    for (char *w = strtok_r(copy, "|", &save); w; w = strtok_r(NULL, "|", &save))
        CHECK(strstr(message, w) != NULL, "%s: expected '%s' in: %s", what, w, message);
}
#define DIES(what, wanted, ...) expect_message(STATUS(__VA_ARGS__), what, wanted)

/* ------------------------------------------------------------------------------------------
 * A tokenizer model written by hand: fields of a protobuf message; shards */
typedef struct {
    uint8_t b[32768];
    size_t n;
} Proto;

MAYBE void pb_raw(Proto *p, const char *s, size_t n) {
    memcpy(p->b + p->n, s, n);
    p->n += n;
}

MAYBE void pb_piece(Proto *p, const char *s, float score,
                    int type) { /* field 1: {1, 2, 3} */
    const size_t n = strlen(s);
    const char head_bytes[] = {1 << 3 | 2, (char)(n + 9), 1 << 3 | 2, (char)n};
    const char tail[] = {3 << 3, (char)type};
    pb_raw(p, head_bytes, 4);
    pb_raw(p, s, n);
    pb_raw(p, "\x15", 1); /* 2 << 3 | 5 */
    pb_raw(p, (const char *)&score, 4);
    pb_raw(p, tail, 2);
}
#define PB_BPE(p) \
    pb_raw(p, "\x12\x05\x18\x02\x98\x02\x01", 7) /* 2: {3: BPE, 35: byte fallback} */

MAYBE void pb_start(Proto *p, int bytes) { /* 0..3, and the bytes as 4..259 */
    char name[8];
    p->n = 0;
    pb_piece(p, "<pad>", 0, PIECE_CONTROL);
    pb_piece(p, "<s>", 0, PIECE_CONTROL);
    pb_piece(p, "</s>", 0, PIECE_CONTROL);
    pb_piece(p, "<unk>", 0, PIECE_UNKNOWN);
    if (!bytes) return;
    for (unsigned i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", i);
        pb_piece(p, name, 0, PIECE_BYTE);
    }
}

enum { AB = 260, BC, ABC, SP_A, SP, CC, HAND_VOCAB }; /* pieces of this model */

MAYBE void write_hand_model(const char *path) {
    static Proto p;
    pb_start(&p, 1);
    pb_piece(&p, "ab", -0, 1);
    pb_piece(&p, "bc", -1, 1);
    pb_piece(&p, "abc", -2, 1);
    pb_piece(&p, SPACE "a", -3, 1);
    pb_piece(&p, SPACE, -4, 1);
    pb_piece(&p, "cc", -5, 1);
    PB_BPE(&p);
    pb_raw(&p, "\x1A\x04\x18\x00\x20\x00", 6); /* 3: {3: no prefix, 4: no trim} */
    put_file(path, p.b, p.n);
}

MAYBE void write_shard(const char *path, const int *tokens, int n) {
    uint8_t *b = xcalloc(SHARD_HEADER + 2 * (size_t)n, 1);
    put_u(b, SHARD_MAGIC, 4);
    put_u(b + 4, 1, 4);
    put_u(b + 8, (uint64_t)n, 4);
    for (int i = 0; i < n; i++) put_u(b + SHARD_HEADER + 2 * i, (uint64_t)tokens[i], 2);
    put_file(path, b, SHARD_HEADER + 2 * (size_t)n);
    free(b);
}

MAYBE void write_data(const char *name, int n_train, int n_val,
                      int vocab) { /* a data folder */
    const char *dir = strdup(IN(name));
    int *t = tokens_below(vocab, (size_t)(n_train + n_val), 17);
    for (int i = 0; i < n_train + n_val; i++)
        if (t[i] == 3)
            t[i] = vocab > AB ? AB : 4; /* text with an unknown piece is not scored */
    mkdir(dir, 0777);
    write_hand_model(path_of(dir, "tokenizer.model"));
    write_shard(path_of(dir, "x_train_000000.bin"), t, n_train);
    write_shard(path_of(dir, "x_val_000000.bin"), t + n_train, n_val);
}

/* text with the folder of the tests for each @/. */
MAYBE const char *expanded(const char *text) {
    static char out[2][4096];
    static int turn;
    turn = !turn;
    char *o = out[turn];
    for (; *text; text++) {
        if (text[0] == '@' && text[1] == '/') o += sprintf(o, "%s", tmp);
        else *o++ = *text;
    }
    *o = 0;
    return out[turn];
}

/* ./train_golf with these words: what main returns. */
MAYBE int command_line(const char *line) {
    char *argv[64] = {"train_golf"}, *save, *text = strdup(expanded(line));
    int argc = 1;
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    return golf_main(argc, argv);
}

/* Is it empty, a number, or some with spaces between? */
MAYBE int is_cell(const char *cell) {
    char *end;
    while (*cell) {
        if (*cell == ' ') return 0;
        const double x = strtod(cell, &end);
        if (end == cell || !isfinite(x) || (*end && *end != ' ')) return 0;
        cell = *end ? end + 1 : end;
    }
    return 1;
}

/* As a spreadsheet reads the log: a line of so many names (0: any number), no two the same,
 * then numbers alone, so many in each row (0: no more than there are names). */
MAYBE void check_table(const char *name, int wanted_names, int wanted) {
    size_t n;
    char file[128], *rows, *cells, names[4096] = "\t";
    int columns = 0, line = 0;
    snprintf(file, sizeof file, "%s/log.tsv", name);
    char *log = (char *)read_file(IN(file), &n);
    CHECK(log[n - 1] == '\n' && !strchr(log, '"') && !strchr(log, '\r'), "%s: its end",
          file);
    for (char *row = strtok_r(log, "\n", &rows); row; row = strtok_r(NULL, "\n", &rows)) {
        int count = 0, good = 1;
        cells = row;
        for (char *cell = strsep(&cells, "\t"); cell; cell = strsep(&cells, "\t")) {
            char key[64];
            count++;
            snprintf(key, sizeof key, "\t%.60s\t", cell);
            good &= line ? is_cell(cell) : *cell && !strstr(names, key);
            if (!line) strcat(names, key + 1);
        }
        if (!line++) columns = count;
        const int as_wanted = line > 1 ? wanted : wanted_names;
        CHECK(good && count <= columns && (!as_wanted || count == as_wanted),
              "%s: line %d has %d cells of %d, or one that is none", file, line, count,
              columns);
    }
}

/* ------------------------------------------------------------------------------------------
 * Frozen quantizers. A straight-through gradient is not the derivative of the rounding
 * but that of P(x) + residual, P being what the estimator lets pass (the identity, or a
 * mask). RECORD computes what training computes and keeps every residual Q(x) - P(x);
 * REPLAY computes P(x) + residual, a smooth function whose differences can be taken. It
 * joins a model as a system does. */
enum { LIVE, RECORD, REPLAY };

static struct {
    int mode;
    Golf *m;
    const Inputs *live[N_TENSORS];
    Inputs row[N_TENSORS];
    real *residual; /* (n_params) of weights */
    uint8_t *mask;  /* (n_params) as recorded */
} frozen;

/* The residual of a row of inputs, found by where the row stands. */
enum { FROZEN_ROWS = 1 << 16 };
static struct {
    const real *row;
    real *residual;
} frozen_rows[FROZEN_ROWS];

static real *residual_at(const real *row, size_t K) {
    size_t i = (size_t)(hash64((uint64_t)(uintptr_t)row, 0) % FROZEN_ROWS);
    while (frozen_rows[i].row != row) {
        if (!frozen_rows[i].row) {
            frozen_rows[i].row = row;
            frozen_rows[i].residual = xcalloc(K, sizeof(real));
            break;
        }
        i = (i + 1) % FROZEN_ROWS;
    }
    return frozen_rows[i].residual;
}

/* Another model may have other rows at the same places. */
static void forget_rows(void) {
    for (int i = 0; i < FROZEN_ROWS; i++) free(frozen_rows[i].residual);
    memset(frozen_rows, 0, sizeof frozen_rows);
}

/* A copy of n numbers that the next call overwrites. */
static real *frozen_copy(const real *x, size_t n) {
    static real *room;
    static size_t size;
    if (n > size) {
        free(room);
        room = xcalloc(n, sizeof(real));
        size = n;
    }
    return memcpy(room, x, n * sizeof(real));
}

static void frozen_inputs(const Golf *m, Act *a, const real *x, int N, int K,
                          int tensor) {
    const Inputs *live = frozen.live[tensor];
    real *passed_on = frozen_copy(x, (size_t)N * (size_t)K);
    if (frozen.mode == RECORD) live->quantize(m, a, x, N, K, tensor);
    if (live->backward)
        live->backward(m, a, passed_on, N, K, tensor); /* P is its own adjoint */
    FOR_ROWS(n, N, K) {
        real *residual = residual_at(a->x + at, (size_t)K);
        for (int i = 0; i < K; i++) {
            const real rounded =
                live->domain == 0 ? a->q[at + i] * a->step[n] : a->x[at + i];
            if (frozen.mode == RECORD) residual[i] = rounded - passed_on[at + i];
            a->x[at + i] = passed_on[at + i] + residual[i];
        }
    }
}

static void frozen_weights(Golf *m) {
    if (m != frozen.m || frozen.mode == LIVE) return;
    if (frozen.mode == RECORD) memcpy(frozen.mask, m->mask, m->n_params);
    memcpy(m->mask, frozen.mask, m->n_params);
    real *passed_on = frozen_copy(m->master, m->n_params);
    masters_backward(m, passed_on);
    for (size_t i = 0; i < m->n_params; i++) {
        if (frozen.mode == RECORD) frozen.residual[i] = m->eff[i] - passed_on[i];
        m->eff[i] = passed_on[i] + frozen.residual[i];
    }
    EACH_TENSOR(t, m) t->float_only = 1;
}

/* relu has a kink, which differences would step over: REPLAY computes mask * f, with the
 * mask as recorded. The other activations are smooth enough. */
static void frozen_relu(real *out, const real *f, const real *gate, int N, int F) {
    (void)gate;
    FOR_ROWS(n, N, F) {
        real *mask = residual_at(f + at, (size_t)F);
        for (int i = 0; i < F; i++) {
            if (frozen.mode == RECORD) mask[i] = f[at + i] > 0;
            out[at + i] = mask[i] * f[at + i];
        }
    }
}

static void frozen_relu_backward(real *df, real *dgate, const real *f, const real *gate,
                                 int N, int F) {
    (void)dgate;
    (void)gate;
    FOR_ROWS(n, N, F) {
        const real *mask = residual_at(f + at, (size_t)F);
        for (int i = 0; i < F; i++) df[at + i] *= mask[i];
    }
}

static const Activation frozen_activation = {frozen_relu, frozen_relu_backward};

static int never_on(const Config *c) {
    (void)c;
    return 0;
}
static const System frozen_system = {
    .name = "frozen", .on = never_on, .soften = frozen_weights};

static void freeze_rows(Golf *m, int mode) { /* inputs as they are, or frozen */
    static int float_only[N_TENSORS];
    for (int k = 0; k < N_TENSORS; k++) {
        if (frozen.mode == LIVE) frozen.live[k] = m->inputs[k];
        if (frozen.mode == LIVE) float_only[k] = m->tensor[k].float_only;
        frozen.row[k] = *frozen.live[k];
        frozen.row[k].quantize = frozen_inputs;
        frozen.row[k].domain = -1;
        frozen.row[k].has_x = 1;
        m->inputs[k] = mode == LIVE ? frozen.live[k] : &frozen.row[k];
        m->tensor[k].float_only = float_only[k];
    }
    if (m->config.act == ACT_RELU)
        m->act = mode == LIVE ? activations + ACT_RELU : &frozen_activation;
    frozen.mode = mode;
}

/* A model whose quantizers can be frozen, with buffers for N tokens; it starts LIVE. */
MAYBE void new_frozen_model(Golf *m, const char *text, size_t N) {
    new_model(m, text, 0);
    const System **s = m->systems;
    while (*s) s++;
    *s = &frozen_system;
    frozen.m = m;
    frozen.mode = LIVE;
    forget_rows();
    frozen.residual = owned_reals(m, m->n_params);
    frozen.mask = owned(m, m->n_params, 1);
    freeze_rows(m, RECORD);
    golf_buffers(m, N);
    freeze_rows(m, LIVE);
}

/* ||dw - difference|| / ||both||, 1 when the gradient is all zero (an unused tensor). The
 * central difference takes four points: RMSNorm of a few small numbers bends too much for
 * two. */
#define GRAD_TOL 1e-7

MAYBE double grad_error(real *w, const real *dw, size_t n, double (*loss)(void *),
                        void *arg) {
    const double h = 1e-5, at[] = {h, -h, 2 * h, -2 * h};
    double num = 0, den = 0, l[4];
    for (size_t i = 0; i < n; i++) {
        const real was = w[i];
        for (int k = 0; k < 4; k++) {
            w[i] = was + (real)at[k];
            l[k] = loss(arg);
        }
        w[i] = was;
        const double d = (double)dw[i];
        const double g = (8 * (l[0] - l[1]) - (l[2] - l[3])) / (12 * h), e = g - d;
        num += e * e;
        den += g * g + d * d;
    }
    return den > 0 ? sqrt(num / den) : 1;
}

typedef struct {
    Golf m;
    int x[48], y[48], B, T;
} Probe;

/* A system may move masters when they are quantized; here they stay where the caller put
 * them. */
static double probe_loss(void *arg) {
    Probe *p = arg;
    Golf *m = &p->m;
    const size_t bytes = m->n_params * sizeof(real);
    real *masters = memcpy(xcalloc(m->n_params, sizeof(real)), m->master, bytes);
    golf_quantize(m);
    memcpy(m->master, masters, bytes);
    free(masters);
    return golf_forward(m, p->x, p->y, p->B, p->T);
}

/* Away from the start, where gates are 1 and many terms could hide each other. */
static void stir(Golf *m) {
    const double size[] = {
        [EMBED] = 0.5, [PROJ] = 0.1, [FACTOR] = 0.1, [INTERFACE] = 0.3, [VIRTUAL] = 0};
    EACH_TENSOR(t, m) {
        const uint64_t key = 7 + crc32_of(0, t->name, strlen(t->name));
        for (size_t i = 0; i < t->n; i++)
            m->master[t->at + i] += (real)size[t->role] * noise(key, i);
    }
}

/* The gradient of the live, quantized model is that of the frozen one at the same
 * point. */
static void check_straight_through(Probe *p, const char *arm) {
    Golf *m = &p->m;
    double num = 0, den = 0;
    const double live = probe_loss(p);
    golf_backward(m, p->x, p->B, p->T);
    real *g = memcpy(reals(m->n_params, 0), m->grad, m->n_params * sizeof(real));
    freeze_rows(m, RECORD);
    const double recorded = probe_loss(p);
    golf_backward(m, p->x, p->B, p->T);
    for (size_t i = 0; i < m->n_params; i++) {
        const double d = (double)(g[i] - m->grad[i]);
        num += d * d;
        den += (double)g[i] * (double)g[i];
    }
    CHECK(near(live, recorded, 1e-9) && sqrt(num / den) <= 1e-9,
          "%s: loss %.9g, frozen %.9g; gradients differ by %.3g", arm, live, recorded,
          sqrt(num / den));
    freeze_rows(m, REPLAY);
    const double replayed = probe_loss(p);
    CHECK(near(replayed, recorded, 1e-9), "%s: replay changes the loss", arm);
    free(g);
}

/* Every gradient of a small model with these options against finite differences. ready:
 * what a system does to the model first, or NULL. Doubles only. */
MAYBE void check_gradients(const char *arm, void (*ready)(Golf *m, size_t N)) {
    char text[512];
    Probe p = {.B = 2, .T = strstr(arm, "seq=24") ? 24 : 7};
    const int N = p.B * p.T;
    Golf *m = &p.m;
    snprintf(text, sizeof text, "vocab=11 width=8 heads=2 mlp=2 seq=8 %s%s",
             strstr(arm, "repeat") ? "" : "repeat=2 ", arm);
    new_frozen_model(m, text, (size_t)N);
    stir(m);
    if (ready) ready(m, (size_t)N);
    for (int i = 0; i < N; i++) {
        p.x[i] = (int)(hash64(3, (uint64_t)i) % 11);
        p.y[i] = (int)(hash64(4, (uint64_t)i) % 11);
    }
    check_straight_through(&p, arm);
    /* integer products are often exactly 0, where relu^2 has its kink: step off it */
    for (size_t i = 0; i < m->n_params; i++) m->master[i] += (real)1e-2 * noise(5, i);
    probe_loss(&p);
    golf_backward(m, p.x, p.B, p.T);
    real *g = memcpy(reals(m->n_params, 0), m->grad, m->n_params * sizeof(real));
    EACH_TENSOR(t, m) {
        if (!is_stored(t)) continue;
        const double e = grad_error(m->master + t->at, g + t->at, t->n, probe_loss, &p);
        CHECK(e <= GRAD_TOL, "gradient of %s with %s: %.3g", t->name, arm, e);
    }
    free(g);
    golf_free(m);
}

/* ------------------------------------------------------------------------------------------
 * `export`: a file of safetensors read as the format's own description says, naively. */
/* What stands behind `"name": ` in a header of JSON, or NULL; it must be there once. */
MAYBE const char *json_value(const char *json, const char *name) {
    char key[128];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *at = strstr(json, key);
    if (!at || strstr(at + 1, key)) return NULL;
    return at + strlen(key);
}

/* Is copy j of t there from byte *at on behind the header, with its shape and numbers? Moves
 * *at behind it. */
static int is_exported(const Golf *m, const Tensor *t, int j, const char *json,
                       const uint8_t *numbers, size_t *at) {
    char name[64], about[128];
    const int bf16 = strstr(json, "BF16") != NULL, bytes = bf16 ? 2 : 4;
    const real *x = m->eff + t->at + (size_t)j * t->copy_n;
    const size_t end = *at + (size_t)bytes * t->copy_n;
    int same = 1, n;

    snprintf(name, sizeof name, t->per == ONCE ? "%s" : "%s.%d", t->name, j);
    n = snprintf(about, sizeof about, "{\"dtype\": \"%s\", \"shape\": [",
                 bf16 ? "BF16" : "F32");
    if (t->role != INTERFACE) n += sprintf(about + n, "%d, ", t->rows);
    sprintf(about + n, "%d], \"data_offsets\": [%zu, %zu]}", t->stored_cols, *at, end);
    const char *value = json_value(json, name);
    if (!value || strncmp(value, about, strlen(about))) return 0;
    for (size_t i = 0; i < t->copy_n; i++) {
        const uint8_t *p = numbers + *at + (size_t)bytes * i;
        const uint32_t bits = (uint32_t)get_u(p, bytes) << (bf16 ? 16 : 0);
        const real there = (real)(Bits){.u = bits}.f;
        same &= there == (bf16 ? from_bf16(to_bf16(x[i])) : (real)(float)x[i]);
    }
    *at = end;
    return same;
}

/* Every tensor of m, nothing else, and no gap. */
MAYBE void check_safetensors(const char *arm, const Golf *m, const char *path) {
    size_t size, at = 0, copies = 0, wrong = 0, found = 0;
    uint8_t *file = read_file(path, &size);
    const size_t len = get_u(file, 8);
    char *json = strndup((char *)file + 8, MIN(len, size - 8));
    CHECK(len % 8 == 0 && len + 8 < size && json[0] == '{', "%s: a header of %zu bytes",
          arm, len);
    EACH_TENSOR(t, m) {
        for (int j = 0; j < (t->n ? t->stored_copies : 0); j++) {
            copies++;
            wrong += !is_exported(m, t, j, json, file + 8 + len, &at);
        }
    }
    for (const char *p = json; (p = strstr(p, "\"dtype\"")); p++) found++;
    CHECK(!wrong && found == copies, "%s: %zu of %zu tensors are wrong, %zu are there",
          arm, wrong, copies, found);
    CHECK(8 + len + at == size, "%s: %zu bytes of numbers, %zu behind the header", arm,
          at, size - 8 - len);
    free(json);
    free(file);
}

/* ------------------------------------------------------------------------------------------
 * The model of the file is the model in memory: size as announced, the same weights, the
 * same summed loss to the last bit; the ledger adds up; scales are bf16 numbers. */
MAYBE void check_export(const char *arm) {
    static int once;
    char text[512];
    struct stat st;
    int bf16 = 1;
    size_t sum;
    Golf m, b;
    if (!once) write_data("export", 900, 333, HAND_VOCAB);
    once = 1;
    const Tokenizer *tok = tokenizer_load(IN("export/tokenizer.model"));
    Shards *val = shards_open(IN("export"), "val", HAND_VOCAB);
    snprintf(
        text, sizeof text,
        "vocab=266 width=32 heads=2 kv_heads=1 mlp=2 seq=16 repeat=2 batch=3 steps=10 %s",
        arm);
    new_model(&m, text, 48);
    EACH_TENSOR(t, &m) {
        for (size_t i = t->at; i < t->at + t->n; i++)
            m.master[i] += (real)0.1 * noise(40, i);
    }
    run_steps(&m, 0, 2);
    golf_save(&m, IN("model.golf"), tok->crc);
    const uint32_t crc = golf_load(&b, IN("model.golf"));
    golf_buffers(&b, 16);
    const Score in_memory = golf_eval(&m, tok, val, 0, 0),
                in_file = golf_eval(&b, tok, val, 0, 0);
    const Ledger l = ledger_of(&m);
    CHECK(!stat(IN("model.golf"), &st) && (size_t)st.st_size == l.total &&
              l.total <= artifact_bytes(&m.config),
          "%s: %zu bytes announced, %zu written", arm, l.total, (size_t)st.st_size);
    sum = l.header;
    for (int i = 0; i < LEDGER_LINES; i++) sum += l.of[i];
    CHECK(sum == l.total, "%s: ledger", arm);
    CHECK(in_memory.nll == in_file.nll && in_memory.bpb == in_file.bpb &&
              crc == tok->crc && in_file.tokens == 320 &&
              !memcmp(m.eff, b.eff, m.n_params * sizeof(real)),
          "%s: %.17g in memory, %.17g from the file", arm, in_memory.nll, in_file.nll);
    for (size_t i = 0; i < m.n_scales; i++) bf16 &= bf16_exact(m.scale[i]);
    CHECK(bf16, "%s: a scale is no bf16 number", arm);
    CHECK(
        STATUS(command_line("export @/model.golf --to=@/model.safetensors --overwrite=1 "
                            "--tokenizer=@/export/tokenizer.model")) == 0,
        "%s: export: %s", arm, message);
    check_safetensors(arm, &b, IN("model.safetensors"));
    golf_free(&m);
    golf_free(&b);
}

/* --fit=coded: what such a model is expected to have in its file it has after training. */
MAYBE void check_expected(const char *arm, double tolerance) {
    char text[512];
    Golf m;
    snprintf(text, sizeof text, TO_LEARN "%s", arm);
    new_model(&m, text, 60);
    const double expected = expected_bytes(&m.config);
    learn(&m, 0, 40);
    const double had = (double)file_bytes(&m);
    CHECK(near(expected / had, 1, tolerance), "'%s': expected %.0f bytes, it has %.0f",
          arm, expected, had);
    golf_save(&m, IN("expected.golf"), 1);
    CHECK((double)ledger_of(&m).total == had, "'%s': %zu bytes in the file, not %.0f",
          arm, ledger_of(&m).total, had);
    golf_free(&m);
}

/* Values of an option: words, the ends of spans, and numbers that need all digits.
 * Returns how many. */
MAYBE int values_of(const Option *o, char value[24][64]) {
    char range[256], *save;
    double lo, hi;
    int n = 0;

    if (o->type == TYPE_STR) {
        strcpy(value[0], "a text, with = and spaces");
        return 1;
    }
    range_text(o, range);
    for (char *item = strtok_r(range, "|", &save); item;
         item = strtok_r(NULL, "|", &save)) {
        snprintf(value[n++], 64, "%.*s", (int)strcspn(item, " "), item);
        if (sscanf(item, "%lf to %lf", &lo, &hi) != 2) continue;
        snprintf(value[n++], 64, "%.17g", hi);
        if (o->type == TYPE_NUM) snprintf(value[n++], 64, "%.17g", lo + (hi - lo) / 3);
    }
    return n;
}

/* Does the file of such a model load where all other options are at their defaults, with
 * the same tensors? */
static int loads_own_file(const Config *c, const char *what) {
    static Golf m, b;
    char text[CONFIG_TEXT];
    Config back;
    const size_t len = config_text(c, MODEL, text);
    config_parse(&back, what, text, len, MODEL);
    if (is_refused(model_check, &back)) return 0;
    golf_layout(&m, c);
    golf_layout(&b, &back);
    return m.n_params == b.n_params && m.n_scales == b.n_scales &&
           ledger_of(&m).total == ledger_of(&b).total;
}

/* With these options, and each MODEL option at the ends of its range in turn, where the
 * training options refuse as little as they can: a model that may be trained loads. */
MAYBE void check_own_files(const char *arm) {
    char text[512], value[24][64];
    int tried = 0;
    snprintf(text, sizeof text, "vocab=266 width=32 heads=2 batch=1 %s", arm);
    const Config base = config_of(text);
    EACH_OPTION(o) {
        if (!(o->mask & MODEL) || o->mask & FIXED) continue;
        const int n = values_of(o, value);
        for (int k = 0; k < n; k++) {
            Config c = base;
            if (!option_set(&c, o, value[k]) || is_refused(config_check, &c)) continue;
            tried++;
            CHECK(loads_own_file(&c, arm), "%s --%s=%s: its own file does not load", text,
                  o->name, value[k]);
        }
    }
    CHECK(tried > 20, "%s: only %d models may be trained", text, tried);
}

/* Single bytes of a file changed at random: use() refuses it or works, never a crash or a
 * hang. */
MAYBE void check_corruption(const char *name, const char *to,
                            void (*use)(const char *path), int may_work) {
    const char *wanted = getenv("GOLF_CORRUPT");
    const int times = wanted ? atoi(wanted) : DOUBLE ? 60 : 250;
    size_t len;
    int refused = 0;
    uint8_t *b = read_file(IN(name), &len);
    for (int i = 0; i < times; i++) { /* every other one in the first 600 bytes */
        const size_t at = (size_t)dice((int)(i & 1 || len < 600 ? len : 600));
        const size_t n =
            i % 10 == 9 ? (size_t)dice((int)len) : len; /* some are cut short */
        const uint8_t was = b[at];
        b[at] ^= (uint8_t)(1 + dice(255));
        put_file(to, b, n);
        b[at] = was;
        const int st = STATUS(use(to));
        const int good = st == 1 ? strstr(message, to) != NULL : st == 0 && may_work;
        refused += st == 1;
        CHECK(good, "%s, byte %zu of %zu: status %d %s", name, at, n, st, message);
        if (!good) break;
    }
    printf("%s: %d corruptions, %d refused\n", name, times, refused);
    free(b);
}

MAYBE void load_artifact(const char *path) {
    Golf m;
    golf_load(&m, path);
}

/* ------------------------------------------------------------------------------------------
 * Running */
typedef struct {
    const char *name;
    void (*run)(void);
} Test;

/* What a system's file tells the driver (dev/check/systems.c). Lists end with NULL or
 * {0}. */
typedef struct {
    const char *const *gradients;     /* options for check_gradients */
    void (*ready)(Golf *m, size_t N); /* before each of these, or NULL */
    const char *const *files;         /* options for check_export and check_corruption */
    const char *const (*errors)[2];   /* options of a tiny run, words of its message */
    const Test *tests;                /* of its own */
} SystemTests;

MAYBE void run_test(const char *name, void (*run)(void)) {
    const char *only = getenv("GOLF_TEST_ONLY");
    const int before = failed;
    const double t = now();
    if (only && !strstr(name, only)) return;
    run();
    printf("%-28s %s %6.2f s\n", name, failed == before ? "ok    " : "FAILED", now() - t);
}

MAYBE void start_tests(void) {
    const char *where = getenv("TMPDIR");
    if (!where || !*where || strchr(where, ' ')) where = "/tmp"; /* spaces part options */
    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("OMP_WAIT_POLICY", "passive", 0); /* chosen: main need not start again */
    snprintf(tmp, sizeof tmp, "%s/golf_test_XXXXXX", where);
    if (!mkdtemp(tmp)) die("%s: cannot make a folder: %s", tmp, strerror(errno));
    parent = getpid();
    atexit(clean_up);
    threads(1); /* these models are too small for more, and a forked child has only one */
}

MAYBE int end_tests(const char *what) {
    printf("%s, %s numbers: %d passed, %d failed\n", what, DOUBLE ? "double" : "float",
           passed, failed);
    return failed != 0 || passed == 0;
}
