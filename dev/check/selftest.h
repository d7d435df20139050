/* selftest.h - `./train_golf selftest`: does this machine compute the recorded bits? Its output is
 * what to attach to a report that it does not.
 *
 * Functions, then short trainings on synthetic tokens, which between them use the kernels of
 * all kinds. Each ends in a checksum. A change that means to change bits changes them here
 * (they are printed), in golden.tsv and in the records. */
typedef struct {
    const char *name, *options; /* of training; or NULL: functions alone */
    uint32_t crc;
} SelfTest;

/* clang-format off */
static const SelfTest self_tests[] = {
    {"functions", NULL, 0x94e18e9b},
    {"codes", "--width=72 --unique=2 --mlp=3 --bwd=int16", 0xe04ef33c},
    {"back", "--width=72 --unique=1 --repeat=2 --mlp=3 --bwd=fp32", 0x8bf6aa9d},
    {"wide codes", "--width=64 --heads=4 --kv_heads=2 --mlp=3 --wq=int8 --aq=int8 --embed_bits=8 "
                   "--unique=1 --repeat=2 --optimizer=adamw --act=relu --bwd=int16", 0x0ab71aff},
    {"numbers", "--width=72 --mlp=3 --unique=2 --act=swiglu --wq=none --aq=none --embed_bits=16 "
                "--bwd=fp32 --extra_norm=each --rope=half --wd=0.1", 0x900dddf7},
};
/* clang-format on */
enum { SELF_VOCAB = 1000, SELF_STEPS = 6 };

/* Checksum of numbers, little-endian on any machine. */
static uint32_t crc_of_reals(uint32_t crc, const real *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t bytes[4];
        put_u(bytes, (Bits){.f = (float)x[i]}.u, 4);
        crc = crc32_of(crc, bytes, 4);
    }
    return crc;
}

static uint32_t crc_of_double(uint32_t crc, double x) {
    uint8_t bytes[8];
    put_u(bytes, (LongBits){.d = x}.u, 8);
    return crc32_of(crc, bytes, 8);
}

static uint32_t self_functions(void) {
    uint32_t crc = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        const double x = uniform01(1, i), y = uniform01(2, i);
        const double all[] = {exp_of(200 * x - 100), log_of(x / y),  pow_of(x, 10 * y),
                              sin_of(1000 * x),      cos_of(10 * x), normal01(3, i)};
        for (size_t k = 0; k < COUNT(all); k++) crc = crc_of_double(crc, all[k]);
        const real single =
            fused((real)x, (real)y, -(real)(x * y)) + fast_exp((real)(-20 * x));
        crc = crc_of_reals(crc, &single, 1);
    }
    return crc;
}

static Config self_config(const char *settings) {
    Config c = preset_config("pocket");
    char copy[512];
    c.vocab = SELF_VOCAB;
    c.seq = 120;
    c.batch = 2;
    c.steps = SELF_STEPS;
    snprintf(copy, sizeof copy, "%s", settings);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        parse_option(&c, word, MODEL | TRAIN);
    config_check(&c);
    return c;
}

/* Losses, weights, moments, codes and scales of a short training. */
static uint32_t self_training(const char *settings) {
    const Config c = self_config(settings);
    const size_t N = (size_t)c.batch * (size_t)c.seq;
    int *x = xcalloc(N + 1, sizeof(int));
    uint32_t crc = 0;
    Golf m;
    golf_init(&m, &c, 1);
    golf_buffers(&m, N);
    for (int step = 0; step < SELF_STEPS; step++) {
        for (size_t i = 0; i <= N; i++) { /* low ones are frequent */
            const double u = uniform01((uint64_t)step, i);
            x[i] = (int)(u * u * u * SELF_VOCAB);
        }
        double norm;
        crc = crc_of_double(crc, golf_step(&m, x, x + 1, step, &norm));
        crc = crc_of_double(crc, norm);
    }
    crc = crc_of_reals(crc, m.master, m.n_params);
    crc = crc_of_reals(crc, m.moment1, m.n_params);
    crc = crc_of_reals(crc, m.moment2, m.n_params);
    crc = crc_of_reals(crc, m.scale, m.n_scales);
    crc = crc32_of(crc, m.code, m.n_params);
    golf_free(&m);
    free(x);
    return crc;
}

int selftest_main(void) {
    int differ = 0;
    printf("program   %s, compiled by %s\n", GOLF_GIT_REV, __VERSION__);
    printf("machine   %s, %s multiply-adds, %s-endian, %d threads\n", GOLF_ISA,
           GOLF_FMA ? "fused" : "emulated", BIG_ENDIAN_MACHINE ? "big" : "little",
           omp_get_max_threads());
    for (size_t i = 0; i < COUNT(self_tests); i++) {
        const SelfTest *t = self_tests + i;
        const uint32_t crc = t->options ? self_training(t->options) : self_functions();
        const int same = crc == t->crc;
        printf("%-10s %08x %s\n", t->name, crc, same ? "ok" : "DIFFERS");
        if (!same) printf("%10s %08x is recorded\n", "", t->crc);
        differ += !same;
    }
    puts(
        differ
            ? "selftest: other bits than recorded; please report this with how it was built"
            : "selftest: the recorded bits");
    return differ > 0;
}
