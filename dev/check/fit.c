/* fit.c - what --fit=coded promises: the size of a trained model's file is predicted, the
 * run steers to the cap and ends under it, and does so with the same bits on any number of
 * threads and after an interruption. */
#include "check.h"

#define SMALL TO_LEARN "repeat=1 unique=2 fit=coded "
enum { TOKENS = 60 };

static Config small_config(const char *arm, int cap) {
    char text[512];
    snprintf(text, sizeof text, SMALL "%s", arm);
    Config c = config_of(text);
    c.cap = cap;
    return c;
}

static void start_model(Golf *m, const char *arm, int cap) {
    const Config c = small_config(arm, cap);
    golf_init(m, &c, 1);
    golf_buffers(m, TOKENS);
}

static const char *const weights[] = {"", "wq=int4", "wq=int8 embed_bits=6",
                                      "wscale=row embed_bits=8"};

/* ------------------------------------------------------------------------------------
 * The grid */
/* The largest code needs all bits that codes have, and no code is cut by more than half a
 * step: each is the nearest one. */
static void check_grid(int bits, int grid) {
    enum { ROWS = 4, K = 300 };
    Config c = config_of("vocab=1024 width=8 heads=1");
    c.embed_bits = bits;
    c.embed_grid = grid;
    Tensor t = {.role = EMBED, .rows = ROWS, .cols = K, .stored_cols = K};
    t.copy_n = (size_t)ROWS * K;
    choose_quantizer(&c, &t);
    const real *w = reals(t.copy_n, 7);
    int8_t code[ROWS * K];
    real scale[ROWS];
    t.quant->quantize(code, scale, NULL, w, &t);
    const double step = pow(2, (double)grid / OCTAVE), top = (1 << (bits - 1)) - 1;
    double off = 0;
    for (int r = 0; r < ROWS; r++) {
        const real *row = w + (size_t)r * K;
        const double s = (double)scale[r], said = step * (double)absmax_of(row, K) / top;
        CHECK(fabs(s / said - 1) < 0.008, "%d bits, grid %d: step %g, not %g", bits, grid,
              s, said);
        for (int i = 0; i < K; i++)
            off = worse(off, fabs((double)row[i] - s * code[r * K + i]) / s);
    }
    CHECK(off < 0.502 + 0.5 * (step < 1), "%d bits, grid %d: codes are %g steps off",
          bits, grid, off);
    const int least = (int)rint(top / step);
    CHECK(t.bits <= 8 && grid_top(&t) >= least - 1, "%d bits, grid %d: %d", bits, grid,
          t.bits);
    CHECK(t.bits == bits || (1 << (t.bits - 2)) - 1 < least, "%d bits, grid %d: %d", bits,
          grid, t.bits);
}

static void test_grids(void) {
    for (int bits = 3; bits <= 8; bits++) {
        const Config c = {.embed_bits = bits};
        const int least = finest_grid(&c), most = coarsest_grid(&c);
        for (int grid = least; grid <= most; grid += 37) check_grid(bits, grid);
        check_grid(bits, most);
        check_grid(bits, 0);
    }
    Golf m;
    start_model(&m, "", 30000);
    set_embed_grid(&m, coarsest_grid(&m.config));
    golf_quantize(&m);
    int largest = 0;
    for (size_t i = 0; i < m.tensor[T_embed].n; i++)
        largest = MAX(largest, abs(m.code[i]));
    CHECK(largest == 1, "of the coarsest grid the largest code is %d", largest);
    golf_free(&m);
}

/* ------------------------------------------------------------------------------------
 * Prediction */
/* The size of a model after training, to 3 %; and not one of its seed. */
static void test_prediction(void) {
    for (size_t i = 0; i < COUNT(weights); i++) {
        char text[256];
        snprintf(text, sizeof text, "repeat=1 unique=2 seed=7 %s", weights[i]);
        check_expected(text, 0.03);
        Config c = small_config(weights[i], 256000);
        const double expected = expected_bytes(&c);
        c.seed = 7;
        CHECK(expected == expected_bytes(&c), "'%s': sizes depend on the seed",
              weights[i]);
    }
}

/* --width=fit: sizes are those that are expected to take 2 % more than the cap. */
static void check_sizes(const char *arm, int cap) {
    Config c = small_config(arm, cap), less = small_config(arm, cap);
    c.width = less.width = 0;
    fit_width(&c);
    less.fit = FIT_PACKED;
    fit_width(&less);
    const double aim = (double)most_bytes(&c) * c.squeeze, expected = expected_bytes(&c);
    CHECK(near(aim / cap, 1.02, 1e-4), "%s: aims at %.0f of %d", arm, aim, cap);
    CHECK(expected < 1.003 * aim, "%s: expected %.0f of %d", arm, expected, cap);
    CHECK(c.width > less.width ||
              (c.width == less.width && hidden_width(&c) > hidden_width(&less)),
          "%s: C=%d F=%d, packed C=%d F=%d", arm, c.width, hidden_width(&c), less.width,
          hidden_width(&less));
    Config wider = c;
    wider.hidden = hidden_width(&c) + 8;
    CHECK(expected_bytes(&wider) > 0.997 * aim, "%s: C=%d F=%d would fit", arm, c.width,
          wider.hidden);
    check_coded_cap(&c);
}

static void test_sizes(void) {
    check_sizes("", 40000);
    check_sizes("wq=int4 unique=2 repeat=1", 64000);
    check_sizes("act=swiglu heads=4 embed_bits=6", 100000);
}

/* A model fits whose packed file would not. */
static void test_coded_alone(void) {
    Config c = small_config("", 0), less;
    c.width = 0;
    for (c.cap = 5000; c.cap < 20000; c.cap += 100) {
        less = c;
        less.fit = FIT_PACKED;
        if (STATUS(fit_width(&less)) == 0) break;
    }
    CHECK(c.cap > 5000 && c.cap < 20000, "packed from %d bytes on", c.cap);
    c.cap -= 500;
    CHECK(STATUS(fit_width(&c), exit(c.width == 8 ? 0 : 2)) == 0, "coded in %d: %s",
          c.cap, message);
}

/* bench shapes: none is over, each takes what is there. */
static void test_shapes(void) {
    Shapes all;
    Config asked = small_config("", 50000);
    asked.width = 0;
    shapes_under_cap(&all, &asked);
    CHECK(all.count >= 4, "%d shapes", all.count);
    for (int i = 0; i < all.count; i++) {
        Config c = asked;
        shape_apply(&c, all.list + i);
        const double part = expected_bytes(&c) / (1.02 * asked.cap);
        CHECK(part < 1.003 && part > 0.97, "C=%d F=%d: %.3f of the cap", c.width,
              c.hidden, part);
    }
}

/* ------------------------------------------------------------------------------------
 * Steering, and the end */
/* The file of a model whose run has ended, and that it is the model in memory. */
static size_t saved_bytes(Golf *m) {
    Golf b;
    golf_save(m, IN("model.golf"), 1);
    golf_load(&b, IN("model.golf"));
    CHECK(!memcmp(m->eff, b.eff, m->n_params * sizeof(real)),
          "the file's weights are others, embedding in %d bits", m->tensor[T_embed].bits);
    golf_free(&b);
    return ledger_of(m).total;
}

/* Caps under and over what the model takes by itself. */
static void test_steering(void) {
    static const double parts[] = {0.85, 1, 1.2};
    for (size_t i = 0; i < COUNT(weights); i++) {
        const Config plain = small_config(weights[i], 256000);
        const double expected = expected_bytes(&plain);
        for (size_t k = 0; k < COUNT(parts); k++) {
            Golf m;
            const int cap = (int)(parts[k] * expected);
            start_model(&m, weights[i], cap);
            learn(&m, 0, 40);
            const int steered = m.config.embed_grid;
            const double before = (double)file_bytes(&m) / cap;
            end_at_cap(&m);
            const double used = (double)saved_bytes(&m) / cap;
            const int room = steered > finest_grid(&m.config);
            CHECK(used <= 1 && (used >= 0.985 || !room), "'%s', %g: %.4f of the cap",
                  weights[i], parts[k], used);
            CHECK(near(before, 1, 0.02) || !room, "'%s', %g: steered to %.4f", weights[i],
                  parts[k], before);
            CHECK((steered != 0 || !room) && matrix_steps(&m) == 1, "'%s', %g: grid %d",
                  weights[i], parts[k], steered);
            golf_free(&m);
        }
    }
}

/* A cap far under what was predicted, as if the prediction had been wrong: the file ends
 * under it all the same. */
static void test_guarantee(void) {
    for (size_t i = 0; i < COUNT(weights); i++) {
        Golf m;
        const Config plain = small_config(weights[i], 256000);
        const int cap = (int)(0.3 * expected_bytes(&plain));
        start_model(&m, weights[i], cap);
        learn(&m, 0, 40);
        CHECK(m.config.embed_grid == coarsest_grid(&m.config), "'%s': grid %d",
              weights[i], m.config.embed_grid);
        end_at_cap(&m);
        const size_t bytes = saved_bytes(&m);
        CHECK(bytes <= (size_t)cap && matrix_steps(&m) > 1,
              "'%s': %zu bytes of %d, matrices' steps %g", weights[i], bytes, cap,
              matrix_steps(&m));
        golf_free(&m);
    }
}

static int same_run(const Golf *a, const Golf *b) {
    const size_t n = a->n_params;
    return a->config.embed_grid == b->config.embed_grid &&
           !memcmp(a->master, b->master, n * sizeof(real)) &&
           !memcmp(a->code, b->code, n) &&
           !memcmp(a->scale, b->scale, a->n_scales * sizeof(real)) &&
           a->flips == b->flips;
}

/* A checkpoint with every grid that steering may end at. */
static void test_all_grids(void) {
    for (int bits = 3; bits <= 8; bits++) {
        char text[64];
        Golf m, b;
        snprintf(text, sizeof text, "embed_bits=%d", bits);
        start_model(&m, text, 100000);
        start_model(&b, text, 100000);
        const int ends[] = {finest_grid(&m.config), coarsest_grid(&m.config)};
        for (int i = 0; i < 2; i++) {
            set_embed_grid(&m, ends[i]);
            golf_quantize(&m);
            ckpt_save(&m, IN("ckpt.bin"), 5);
            const int status = STATUS(ckpt_load(&b, IN("ckpt.bin")));
            CHECK(status == 0, "%d bits, grid %d: %s", bits, ends[i], message);
        }
        golf_free(&m);
        golf_free(&b);
    }
}

/* Interrupted between two adjustments, both before the last one. */
static void test_resume(void) {
    Golf m, b;
    start_model(&m, "", 26000);
    start_model(&b, "", 26000);
    learn(&m, 0, 25);
    ckpt_save(&m, IN("ckpt.bin"), 25);
    const int grid = m.config.embed_grid;
    learn(&m, 25, 40);
    CHECK(ckpt_load(&b, IN("ckpt.bin")) == 25 && b.config.embed_grid == grid && grid != 0,
          "grid %d, resumed %d", grid, b.config.embed_grid);
    learn(&b, 25, 40);
    CHECK(m.config.embed_grid != grid, "grid %d is the last one", grid);
    CHECK(same_run(&m, &b), "resumed at grid %d: ends at %d, not %d", grid,
          b.config.embed_grid, m.config.embed_grid);
    end_at_cap(&m);
    end_at_cap(&b);
    CHECK(same_run(&m, &b), "the end differs");
    golf_free(&m);
    golf_free(&b);
}

static void test_threads(void) {
    Golf m[2];
    for (int i = 0; i < 2; i++) {
        threads(i ? 3 : 1);
        start_model(m + i, "wq=int4", 30000);
        learn(m + i, 0, 40);
        end_at_cap(m + i);
    }
    CHECK(same_run(m, m + 1), "3 threads: grid %d, one: %d", m[1].config.embed_grid,
          m->config.embed_grid);
    threads(1);
    golf_free(m);
    golf_free(m + 1);
}

/* Without it nothing moves. */
static void test_packed(void) {
    Golf m;
    start_model(&m, "fit=packed", 26000);
    learn(&m, 0, 40);
    end_at_cap(&m);
    CHECK(m.config.embed_grid == 0 && !m.tensor[T_embed].coarse, "grid %d",
          m.config.embed_grid);
    golf_free(&m);
}

/* ------------------------------------------------------------------------------------
 * What is refused before the run */
static void test_refused(void) {
    Config c = small_config("", 30000);
    c.embed_bits = 16;
    DIES("numbers of 16 bits", "--fit=coded|--embed_bits=3 to 8|found 16",
         config_check(&c));
    c = small_config("", 30000);
    c.squeeze = 0.9;
    DIES("a bet", "--squeeze=0.9|--fit=coded|--squeeze=1", check_squeeze(&c));

    c = small_config("", 256000);
    const double expected = expected_bytes(&c);
    c.cap = (int)(0.5 * expected);
    DIES("far over the cap", "would have about|coarsest embedding|--width",
         check_cap(&c));
    c.cap = (int)(0.9 * expected);
    CHECK(STATUS(check_cap(&c)) == 0, "a little over the cap: %s", message);

    c = small_config("wq=none aq=none", 256000);
    c.cap = (int)expected_bytes(&c);
    DIES("no grid", "cannot promise|--wq=none|--fit=packed", check_cap(&c));
}

int main(void) {
    start_tests();
    run_test("grids", test_grids);
    run_test("prediction", test_prediction);
    run_test("sizes", test_sizes);
    run_test("coded alone", test_coded_alone);
    run_test("all grids", test_all_grids);
    run_test("shapes", test_shapes);
    run_test("steering", test_steering);
    run_test("guarantee", test_guarantee);
    run_test("resume", test_resume);
    run_test("threads", test_threads);
    run_test("packed", test_packed);
    run_test("refused", test_refused);
    return end_tests("fit");
}
