/* bench.h - part of train_golf.c: the bench command.
 *
 * What the machine can do, what the kernels make of it, where a training step spends its
 * time. A timing is paired with a probe of the fp32 peak right before it: this machine at
 * that moment. The figures are medians of BENCH_RUNS. */
enum { BENCH_RUNS = 9, WARM_UP = 2, PROBE_SUMS = 2 * 14, PROBE_ROUNDS = 200000 };

static int by_value(const void *a, const void *b) { /* for qsort */
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *x, int n) {
    double sorted[64];
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return sorted[n / 2];
}

/* Multiply-adds per second on all threads, in registers: 28 independent sums hide the
 * latency. */
static double fp32_peak(void) {
    real keep = 0;
    const double t = now();
    int threads = 0;
#pragma omp parallel reduction(+ : keep, threads)
    {
        vec s[PROBE_SUMS], a = (vec){0} + (real)1e-3, b = (vec){0} + (real)0.5;
        for (int i = 0; i < PROBE_SUMS; i++) s[i] = a * (real)i;
        for (int k = 0; k < PROBE_ROUNDS; k++) {
            UNROLL for (int i = 0; i < 14; i++) {
                s[i] = s[i] * b + a;
                s[i + 14] = s[i + 14] * b + a;
            }
        }
        for (int i = 0; i < PROBE_SUMS; i++) keep += s[i][0];
        threads += 1;
    }
    const double rate = 2.0 * LANES * PROBE_SUMS * PROBE_ROUNDS * threads / (now() - t);
    return keep == 1 ? 0 : rate; /* the sums must be wanted */
}

/* The same for 4-term dot products of bytes; an operation is a multiplication or an
 * addition. */
static double int8_peak(void) {
    int keep = 0, threads = 0;
    const double t = now();
#pragma omp parallel reduction(+ : keep, threads)
    {
        ivec s[PROBE_SUMS], a = (ivec){0} + 0x01010101, b = a + a;
        for (int i = 0; i < PROBE_SUMS; i++) s[i] = a * i;
        for (int k = 0; k < PROBE_ROUNDS; k++) {
            UNROLL for (int i = 0; i < 14; i++) {
                s[i] = dot4(s[i], a, b);
                s[i + 14] = dot4(s[i + 14], b, a);
            }
            __asm__ volatile("" : "+r"(k)); /* or all rounds would become one product */
        }
        for (int i = 0; i < PROBE_SUMS; i++) keep += s[i][0] & 1;
        threads += 1;
    }
    const double rate = 2.0 * VB * PROBE_SUMS * PROBE_ROUNDS * threads / (now() - t);
    return keep == -1 ? 0 : rate;
}

/* Bytes per second read by all threads from memory that no cache holds. */
static double read_bandwidth(const real *x, size_t n) {
    const double t = now();
    real keep = 0;
#pragma omp parallel for reduction(+ : keep)
    for (size_t i = 0; i < n; i += 4096) keep += inner(x + i, x + i, 4096);
    return keep < 0 ? 0 : (double)(n * sizeof(real)) / (now() - t);
}

/* ---- Products of BENCH_TOKENS tokens with W (N,K), cut into chunks as the model does. */
enum { BENCH_TOKENS = 4096 };
#define BENCH_PRODUCTS(X) \
    X(Y, "y") \
    X(DX, "dX") \
    X(DW, "dW") X(DX_CODES, "dX, codes") X(DW_CODES, "dW, codes") X(Y_CODES, "y, codes")
#define X(kind, name) BENCH_##kind,
enum { BENCH_PRODUCTS(X) BENCH_KINDS };
#undef X

typedef struct {
    int N, K;
    real *x, *y, *w, *token_step; /* (tokens,K), (tokens,N), (N,K), (tokens) */
    int8_t *q, *code;             /* (tokens,K), (N,K) */
    int16_t *h;                   /* (tokens,N) y in 16 bits, and its steps */
    real *step;
    Panels forward, back;
    IntWeights ints;
    Weights16 back_codes;
} Product;

static void product_chunk(const Product *b, int kind, size_t n0, int n) {
    const size_t N = (size_t)b->N, K = (size_t)b->K;
    real *x = b->x + n0 * K, *y = b->y + n0 * N;
    if (kind == BENCH_Y) gemm_panels(y, N, mat(x, K), &b->forward, n, 0);
    if (kind == BENCH_DX) gemm_panels(x, K, mat(y, N), &b->back, n, 0);
    if (kind == BENCH_DX_CODES) {
        round_rows(b->h + n0 * N, b->step + n0, y, N, n, b->N, TOP16);
        gemm_16(x, K, mat_h(b->h + n0 * N, b->step + n0, N), &b->back_codes, n);
    }
    if (kind == BENCH_Y_CODES)
        gemm_int(y, N, b->q + n0 * K, b->token_step + n0, &b->ints, (real)1e-4, n);
}

static void product(const Product *b, int kind) {
    if (kind == BENCH_DW) {
        gemm(b->w, b->K, mat_t(b->y, b->N), mat(b->x, b->K), b->N, b->K, BENCH_TOKENS, 0);
        return;
    }
    if (kind == BENCH_DW_CODES) {
        const Mat y = transposed(mat_h(b->h, b->step, (size_t)b->N));
        const Mat x = mat_q(b->q, b->token_step, (size_t)b->K);
        gemm_all(
            &(Gemm){b->w, (size_t)b->K, y, x, b->N, b->K, BENCH_TOKENS, 0, &inputs_8}, 1);
        return;
    }
#pragma omp parallel for schedule(dynamic)
    for (int n0 = 0; n0 < BENCH_TOKENS; n0 += CHUNK)
        product_chunk(b, kind, (size_t)n0, MIN(BENCH_TOKENS - n0, CHUNK));
}

static Product product_new(int N, int K) {
    const size_t M = BENCH_TOKENS, in = M * (size_t)K, weights = (size_t)N * (size_t)K;
    Product b = {.N = N, .K = K};
    b.x = xcalloc(in, sizeof(real));
    b.y = xcalloc(M * (size_t)N, sizeof(real));
    b.w = xcalloc(weights, sizeof(real));
    b.token_step = xcalloc(M, sizeof(real));
    b.q = xcalloc(in, 1);
    b.code = xcalloc(weights, 1);
    b.h = xcalloc(M * (size_t)N, sizeof *b.h);
    b.step = xcalloc(M, sizeof(real));
    for (size_t i = 0; i < M; i++) b.token_step[i] = (real)1e-2;
    for (size_t i = 0; i < in; i++) b.q[i] = (int8_t)(hash64(1, i) % 255 - 127);
    for (size_t i = 0; i < weights; i++) {
        b.code[i] = (int8_t)(hash64(2, i) % 3 - 1);
        b.w[i] = (real)1e-2 * b.code[i];
    }
    panels_pack(&b.forward, mat_t(b.w, (size_t)K), K, N);
    panels_pack(&b.back, mat(b.w, (size_t)K), N, K);
    int_pack(&b.ints, b.code, N, K);
    weights_16_pack(&b.back_codes, mat_q(b.code, NULL, (size_t)K), N, K, 1, (real)1e-2);
    return b;
}

static void product_free(Product *b) {
    free(b->x);
    free(b->y);
    free(b->token_step);
    free(b->w);
    free(b->q);
    free(b->code);
    free(b->forward.panel);
    free(b->back.panel);
    free(b->ints.panel);
    free(b->h);
    free(b->step);
    weights_16_free(&b->back_codes);
}

static void bench_products(const char *name, int N, int K) {
    Product b = product_new(N, K);
    printf("%-10s %5d %5d", name, N, K);
    for (int kind = BENCH_KINDS; kind-- > 0;) { /* codes first: they fill y */
        double rate[BENCH_RUNS], share[BENCH_RUNS];
        for (int run = 0; run < BENCH_RUNS; run++) {
            const double peak = fp32_peak(), t = now();
            int times = 0;
            do {
                product(&b, kind);
                times++;
            } while (now() - t < 0.02);
            rate[run] = 2e-9 * times * BENCH_TOKENS * N * K / (now() - t);
            share[run] = 1e11 * rate[run] / peak;
        }
        printf("   %7.0f %4.0f%%", median(rate, BENCH_RUNS), median(share, BENCH_RUNS));
    }
    puts("");
    product_free(&b);
}

/* ---- A training step, and what its parts take. */
typedef struct {
    double all[BENCH_RUNS], share[BENCH_RUNS], part[PARTS][BENCH_RUNS];
} StepTimes;

/* Medians need `runs` of them, at most BENCH_RUNS. */
static void time_steps(Golf *m, StepTimes *s, int runs) {
    const Config *c = &m->config;
    const size_t tokens = step_tokens(c);
    const double flops = flops_per_token(c) * (double)tokens;
    int *x = xcalloc(2 * tokens, sizeof(int)), *y = x + tokens;
    double norm;
    for (int run = -WARM_UP; run < runs; run++) { /* to find memory and clock */
        for (size_t i = 0; i < 2 * tokens; i++)
            x[i] = (int)(hash64((uint64_t)(run + 9), i) % (uint64_t)c->vocab);
        const double peak = fp32_peak(), t = now();
        part_since = t;
        memset(part_seconds, 0, sizeof part_seconds);
        part_timing = 1;
        golf_step(m, x, y, run + WARM_UP, &norm);
        part_timing = 0;
        if (run < 0) continue;
        s->all[run] = now() - t;
        s->share[run] = 100 * flops / s->all[run] / peak;
        part_seconds[PART_REST] += now() - part_since;
        for (int p = 0; p < PARTS; p++) s->part[p][run] = part_seconds[p];
    }
    free(x);
}

static const char *const part_names[] = {
#define X(part, name) name,
    GOLF_PARTS(X)
#undef X
};

static void bench_step(const Config *c) {
    Golf m;
    StepTimes s;
    golf_init(&m, c, 1);
    golf_buffers(&m, group_tokens(c));
    time_steps(&m, &s, BENCH_RUNS);
    const double ms = 1e3 * median(s.all, BENCH_RUNS), tokens = (double)step_tokens(c);
    printf("\na training step of %.0f tokens: %.2f ms, %.0f tokens/s\n", tokens, ms,
           1e3 * tokens / ms);
    printf("%.2f MFLOP per token: %.0f GFLOP/s, %.0f%% of the fp32 peak\n",
           1e-6 * flops_per_token(c), 1e-6 * flops_per_token(c) * tokens / ms,
           median(s.share, BENCH_RUNS));
    double sum = 0;
    for (int p = 1; p <= PARTS; p++) { /* the rest last */
        const double part_ms = 1e3 * median(s.part[p % PARTS], BENCH_RUNS);
        printf("  %-28s %8.2f ms %5.1f%%\n", part_names[p % PARTS], part_ms,
               100 * part_ms / ms);
        if (p > PART_ATTENTION) sum += part_ms;
    }
    printf("not a matmul, nor attention: %.1f%% of the step\n", 100 * sum / ms);
    ranks_report();
    golf_free(&m);
}

/* ---- The same on 1, 2, 4, ... threads, up to all: which parts gain from more of them. */
enum { SCALING_MOST = 16 };

static void bench_scaling(const Config *c) {
    const int all = omp_get_max_threads();
    int threads[SCALING_MOST], count = 0;
    double step[SCALING_MOST], part[PARTS][SCALING_MOST];
    Golf m;

    golf_init(&m, c, 1);
    golf_buffers(&m, group_tokens(c));
    for (int n = 1; n < all && count < SCALING_MOST - 1; n *= 2) threads[count++] = n;
    threads[count++] = all;

    printf("\n\n%28s", "ms of a step, threads:");
    for (int i = 0; i < count; i++) {
        StepTimes s;
        omp_set_num_threads(threads[i]);
        time_steps(&m, &s, BENCH_RUNS);
        step[i] = 1e3 * median(s.all, BENCH_RUNS);
        for (int p = 0; p < PARTS; p++) part[p][i] = 1e3 * median(s.part[p], BENCH_RUNS);
        printf(" %8d", threads[i]);
    }
    printf("   times as fast\n");
    for (int p = 1; p <= PARTS; p++) { /* the rest last */
        const double *ms = part[p % PARTS];
        printf("  %-26s", part_names[p % PARTS]);
        for (int i = 0; i < count; i++) printf(" %8.2f", ms[i]);
        printf("   %.2f\n", ms[0] / ms[count - 1]);
    }
    printf("  %-26s", "the step");
    for (int i = 0; i < count; i++) printf(" %8.2f", step[i]);
    printf("   %.2f\n  %-26s", step[0] / step[count - 1], "efficiency, %");
    for (int i = 0; i < count; i++)
        printf(" %8.0f", 100 * step[0] / step[i] / threads[i]);
    printf("\n  %-26s", "waiting, ms a thread");
    for (int i = 0; i < count; i++) printf(" %8.2f", step[i] - step[0] / threads[i]);
    puts(
        "\n(waiting: what a thread's share of the work on one thread does not explain, so memory "
        "and clock are in it)");
    golf_free(&m);
}

/* ---- Shapes for the same bytes: what train would take, and wider and narrower ones whose hidden
 * width takes what is left of the cap, with the heads asked for and with sizes that are whole
 * vectors. */
enum { SHAPES_MOST = 64, SHAPE_STEPS = 5, SHAPES_SECONDS = 60, SHAPES_ACROSS = 12 };

typedef struct {
    int width, heads, hidden;
} Shape;

typedef struct {
    Shape list[SHAPES_MOST]; /* the first is what train would take */
    int count;
} Shapes;

static void shape_apply(Config *c, const Shape *s) {
    c->width = s->width;
    c->heads = s->heads;
    c->hidden = s->hidden;
}

static int is_listed(const Shapes *all, const Config *c) {
    for (const Shape *s = all->list; s < all->list + all->count; s++) {
        const int same = s->width == c->width && s->heads == c->heads;
        if (same && s->hidden == hidden_width(c)) return 1;
    }
    return 0;
}

/* The largest multiple of `step`, at least C, that fits; or 0. */
static void choose_hidden(Config *c, int step) {
    c->hidden = fit_option(c, &c->hidden, CEIL(c->width, step) * step, 1 << 20, step);
}

/* Does c fit? A hidden width of 0 is chosen. */
static int shape_fits(Config *c, int step) {
    if (c->hidden || !hidden_counts(c)) {
        reckon(c);
        return artifact_bytes(c) <= most_bytes(c);
    }
    fit_sizes(c, choose_hidden, step);
    return c->hidden > 0;
}

/* Adds c, unless it cannot be, does not fit, or is there. */
static void shapes_add(Shapes *to, Config c, int step) {
    if (to->count == SHAPES_MOST || is_refused(config_check, &c)) return;
    if (!shape_fits(&c, step) || is_listed(to, &c)) return;
    to->list[to->count++] = (Shape){c.width, c.heads, hidden_width(&c)};
}

/* Heads whose head_dim is whole tiles and nearest to D; 0: there are none. */
static int heads_that_fill(const Config *c, int D) {
    int best = 0;
    for (int dim = NR; dim <= c->width; dim += NR) {
        if (c->width % dim) continue;
        if (best && abs(dim - D) >= abs(c->width / best - D)) continue;
        best = c->width / dim;
    }
    return best;
}

/* asked: as the user has it, its width and hidden width maybe still to be chosen. */
static void shapes_under_cap(Shapes *all, const Config *asked) {
    Config c = *asked, start = *asked;
    all->count = 0;
    if (!start.width) fit_width(&start);
    config_check(&start);
    check_cap(&start);
    c.squeeze = start.squeeze;
    const int D = head_dim(&start), least = start.width * 3 / 4;
    const int most = MIN(start.width * 3 / 2, 16384);
    all->list[all->count++] = (Shape){start.width, start.heads, hidden_width(&start)};

    const int any = width_step(&start);
    int whole = any, step = any;
    while (whole % LANES) whole *= 2;
    while ((most - least) / step >= SHAPES_ACROSS) step *= 2;
    for (c.width = CEIL(least, step) * step; c.width <= most; c.width += step) {
        c.heads = asked->heads;
        shapes_add(all, c, any);
        c.heads = heads_that_fill(&c, D);
        if (c.heads) shapes_add(all, c, whole);
    }
}

/* Which sizes leave no lane of the kernels idle: C and F are columns of products, of which a
 * narrow edge takes a vector, half a tile; RoPE and the norms take both halves of a head in
 * vectors. */
static const char *filled_by(const Config *c) {
    static char text[8];
    snprintf(text, sizeof text, "%c %c %c", c->width % LANES ? '-' : 'C',
             hidden_width(c) % LANES ? '-' : 'F', head_dim(c) % NR ? '-' : 'D');
    return text;
}

/* Tokens/s and the rest of a line. Steps that take seconds differ little: one is enough. */
static void time_shape(const Config *c) {
    Golf m;
    StepTimes s;
    int steps = 1;
    golf_init(&m, c, 1);
    golf_buffers(&m, group_tokens(c));
    time_steps(&m, &s, steps);
    if (s.all[0] < 0.5) {
        steps = SHAPE_STEPS;
        time_steps(&m, &s, steps);
    }
    const double rate = (double)step_tokens(c) / median(s.all, steps);
    printf("%9.0f %8.1f %7.0f%%", rate, 1e-9 * rate * flops_per_token(c),
           median(s.share, steps));
    golf_free(&m);
}

/* A shape is timed unless, taking as long as the longest before it, it would end after
 * SHAPES_SECONDS. They have about the same weights. */
static void bench_shapes(const Config *asked) {
    const double start = now();
    double longest = 0;
    Shapes all;
    puts("");
    fflush(stdout); /* to look for shapes of many megabytes takes seconds */
    shapes_under_cap(&all, asked);
    printf("\n%5s %4s %4s %6s %10s %7s %9s %8s %8s  fills\n", "C", "H", "D", "F", "bytes",
           "MFLOP", "tokens/s", "GFLOP/s", "of peak");
    for (int i = 0; i < all.count; i++) {
        Config c = *asked;
        const double t = now();
        shape_apply(&c, all.list + i);
        printf("%5d %4d %4d %6d %10zu %7.2f ", c.width, c.heads, head_dim(&c), c.hidden,
               reckoned_bytes(&c), 1e-6 * flops_per_token(&c));
        if (t - start + longest > SHAPES_SECONDS) printf("%9s %8s %8s", "-", "-", "-");
        else time_shape(&c);
        printf("  %s%s\n", filled_by(&c), i ? "" : "  <- what train takes");
        fflush(stdout);
        longest = fmax(longest, now() - t);
    }
    if (asked->fit == FIT_CODED)
        printf("(bytes: as predicted, steered to %d; ", asked->cap);
    else printf("(bytes: packed, at most %zu, of cap / squeeze; ", most_bytes(asked));
    printf(
        "MFLOP: of the model, a token; fills: sizes that are\n"
        "whole vectors, C and F of %d, head_dim D of %d; -: not timed, %d s were over; bpb is not "
        "known here)\n",
        (int)LANES, (int)NR, SHAPES_SECONDS);
}

/* ---- The artifact of a fresh model: its bytes, how long it takes to write and to read. */
static double time_decoding(const Golf *loaded, const char *path) {
    size_t at;
    uint8_t *file = read_file(path, &at);
    const double t = now();
    for (const Tensor *u = loaded->tensor + N_TENSORS - 1; u >= loaded->tensor; u--) {
        at -= u->coded; /* a payload as long as packed is not coded */
        if (u->coded < u->bytes) read_coded(loaded, u, file + at, u->coded);
    }
    free(file);
    return now() - t;
}

static void bench_file(const Config *c) {
    char path[] = "/tmp/golf_bench_XXXXXX";
    double save[BENCH_RUNS], load[BENCH_RUNS], decode[BENCH_RUNS];
    Golf m, loaded;
    const int fd = mkstemp(path);
    if (fd < 0) die("%s: cannot make a file there: %s", path, strerror(errno));
    close(fd);
    golf_init(&m, c, 1);
    for (int run = 0; run < BENCH_RUNS; run++) {
        const double started = now();
        golf_save(&m, path, 0);
        const double saved = now();
        golf_load(&loaded, path);
        save[run] = saved - started;
        load[run] = now() - saved;
        decode[run] = time_decoding(&loaded, path);
        golf_free(&loaded);
    }
    remove(path);
    printf(
        "\nthe file: %zu bytes, packed %zu; written in %.2f s, read in %.2f s, of which "
        "the coder %.2f s\n",
        ledger_of(&m).total, artifact_bytes(c), median(save, BENCH_RUNS),
        median(load, BENCH_RUNS), median(decode, BENCH_RUNS));
    golf_free(&m);
}

/* ---- The machine. */
static void bench_machine(void) {
    double fp[BENCH_RUNS], i8[BENCH_RUNS], memory[BENCH_RUNS];
    const size_t n = (size_t)1 << 26;
    real *big = xcalloc(n, sizeof(real));
    for (int run = 0; run < BENCH_RUNS; run++) {
        fp[run] = 1e-9 * fp32_peak();
        i8[run] = 1e-9 * int8_peak();
        memory[run] = 1e-9 * read_bandwidth(big, n);
    }
    free(big);
    printf("fp32 peak %.0f GFLOP/s, int8 peak %.0f GOP/s (%.1f x), memory %.1f GB/s\n",
           median(fp, BENCH_RUNS), median(i8, BENCH_RUNS),
           median(i8, BENCH_RUNS) / median(fp, BENCH_RUNS), median(memory, BENCH_RUNS));
}

static void bench_all_products(const Config *c) {
    static const char *const names[] = {
#define X(kind, name) name,
        BENCH_PRODUCTS(X)
#undef X
    };
    static const int shapes[][2] = {{256, 1024}, {1024, 256}, {768, 256}, {1536, 512}};
    Golf m;
    printf("\nproducts of %d tokens with W (N,K): GFLOP/s or GOP/s, %% of the fp32 peak\n"
           "%-10s %5s %5s",
           BENCH_TOKENS, "", "N", "K");
    for (int kind = BENCH_KINDS; kind-- > 0;) printf("   %12s", names[kind]);
    puts("");
    for (size_t i = 0; i < COUNT(shapes); i++)
        bench_products("", shapes[i][0], shapes[i][1]);
    golf_layout(&m, c);
    EACH_TENSOR(t, &m) {
        if (t->role == PROJ && t->n) bench_products(t->name, t->rows, t->cols);
    }
}

static int bench_is(const char *what, const char *word) {
    return what && !strcmp(what, word);
}

int bench_main(const char *what, int argc, char **argv) {
    Config config, *c = &config;
    const char *preset = parse_options(c, argc, argv, MODEL | TRAIN | FIXED);
    const Config asked = config;
    const int file = bench_is(what, "file"), scaling = bench_is(what, "scaling");
    const int shapes = bench_is(what, "shapes");
    if (what && !bench_is(what, "step") && !file && !scaling && !shapes)
        die("bench: expected nothing, 'step', 'file', 'scaling' or 'shapes', found '%s'",
            what);
    check_squeeze(c);
    if (!c->width) fit_width(c);
    config_check(c);
    check_meanings(c, preset);
    ranks_compare(c, NULL, NULL);
    printf("%d threads, %s, medians of %d\n", omp_get_max_threads(), GOLF_ISA,
           shapes ? SHAPE_STEPS : BENCH_RUNS);
    if (!what) {
        bench_machine();
        bench_all_products(c);
    }
    printf("\n%s: C=%d H=%d F=%d, distinct blocks: %d, phases: %d, V=%d, T=%d", preset,
           c->width, c->heads, hidden_width(c), block_count(c), phase_count(c), c->vocab,
           c->seq);
    if (file) {
        bench_file(c);
        return 0;
    }
    if (scaling) {
        bench_scaling(c);
        return 0;
    }
    if (shapes) {
        bench_shapes(&asked);
        return 0;
    }
    bench_step(c);
    if (what)
        printf("peak memory %.0f MB\n", peak_memory_mb()); /* the others need more */
    return 0;
}
