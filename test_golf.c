/* test_golf.c - every test of train_golf.c: `make test` builds this file twice, with double and
 * with float numbers, and runs both. Gradients are checked by central differences in double:
 * relative L2 error per tensor at most 1e-7, quantizers frozen at their residual (a straight-
 * through gradient is not the derivative of the rounding, but of x + constant). */
#define GOLF_NO_MAIN
#include "train_golf.c"
#include <sys/resource.h>
#include <sys/wait.h>

static int passed, failed;

#define CHECK(ok, ...) check(ok, __LINE__, __VA_ARGS__)
static void check(int ok, int line, const char *fmt, ...) {
    va_list ap;
    if (ok) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED test_golf.c:%d: ", line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static real noise(uint64_t key, size_t i) { return (real)normal01(key, i); }
static void fill(real *x, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = noise(key, i);
}

/* A config from defaults and "key=value key=value". */
static Config config_of(const char *text) {
    Config c;
    char copy[1024], option[256], *save;
    config_defaults(&c);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        snprintf(option, sizeof option, "--%s", w);
        if (!strncmp(w, "vocab=", 6)) c.vocab = atoi(w + 6);
        else parse_option(&c, option, MODEL | TRAIN);
    }
    config_check(&c);
    return c;
}

/* ---------------------------------------------------------------------------------------------
 * Gradients
 * --------------------------------------------------------------------------------------------- */
#ifdef GOLF_DOUBLE
/* ||dw - difference|| / ||both||, 1 when the gradient is all zero (an unused tensor). The central
 * difference takes four points: RMSNorm of a few small numbers bends too much for two. */
static double grad_error(real *w, const real *dw, size_t n, double (*loss)(void *), void *arg) {
    const double h = 1e-5, at[] = {h, -h, 2 * h, -2 * h};
    double num = 0, den = 0, l[4];
    for (size_t i = 0; i < n; i++) {
        const real was = w[i];
        for (int k = 0; k < 4; k++) {
            w[i] = was + at[k];
            l[k] = loss(arg);
        }
        w[i] = was;
        const double g = (8 * (l[0] - l[1]) - (l[2] - l[3])) / (12 * h), e = g - dw[i];
        num += e * e;
        den += g * g + dw[i] * dw[i];
    }
    return den > 0 ? sqrt(num / den) : 1;
}
#define GRAD_TOL 1e-7

typedef struct {
    Golf m;
    int x[64], y[64], B, T;
} Probe;

static double probe_loss(void *arg) {
    Probe *p = arg;
    golf_quantize(&p->m);
    return golf_forward(&p->m, p->x, p->y, p->B, p->T);
}

static void test_model_gradients(void) {
    const char *base = "vocab=11 width=8 heads=2 mlp=2 seq=8 ";
    const char *arms[] = {
        "repeat=1", "repeat=3", "unique=3 repeat=1", "unique=2 repeat=2 order=cycle",
        "unique=2 repeat=2 order=sequence", "prelude=1 coda=1 repeat=2", "prelude=2 repeat=1 coda=1",
        "mix=none", "mix=scalar", "gain=none", "gain=scalar", "gate=none", "gate=scalar",
        "qgain=none", "qgain=scalar", "xgain=none", "xgain=scalar", "phase=0 repeat=3",
        "phase=0 unique=2 repeat=2 gate=scalar", "phase_embed=1", "extra_norm=none",
        "extra_norm=each", "extra_norm=each kv_heads=1 unique=2 repeat=1 wq=none aq=none",
        "heads=4 kv_heads=2", "heads=4 kv_heads=1 wq=none", "wq=none aq=none", "wq=none", "aq=none",
        "wq=none aq=none extra_norm=none gain=none gate=none mix=none qgain=none embed_bits=16",
        "embed_bits=4", "embed_bits=16 repeat=3 extra_norm=each phase_embed=1",
    };
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s%s", base, strstr(arms[a], "repeat") ? "" : "repeat=2 ", arms[a]);
        const Config c = config_of(text);
        Probe p = {.B = 2, .T = 7};
        Golf *m = &p.m;
        golf_init(m, &c, 1);
        m->freeze = RECORD;
        m->res = owned(m, m->n_params, sizeof(real));
        golf_buffers(m, 14);
        /* away from the start, where gates are 1 and many terms could hide each other */
        for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
            for (size_t i = 0; i < t->n; i++)
                m->w[t->at + i] += (t->role == INTERFACE ? 0.3 : t->role == EMBED ? 0.5 : 0.1) *
                                   noise(7 + (uint64_t)(t - m->t), i);
        for (int i = 0; i < 14; i++) {
            p.x[i] = (int)(hash64(3, (uint64_t)i) % 11);
            p.y[i] = (int)(hash64(4, (uint64_t)i) % 11);
        }
        const double loss0 = probe_loss(&p);
        m->freeze = REPLAY;
        CHECK(fabs(probe_loss(&p) - loss0) < 1e-9, "%s: replay changes the loss", arms[a]);
        /* integer products are often exactly 0, where relu^2 has its kink: step off it */
        for (size_t i = 0; i < m->n_params; i++) m->w[i] += 1e-2 * noise(5, i);
        probe_loss(&p);
        golf_backward(m, p.x, p.y, p.B, p.T);
        real *g = xcalloc(m->n_params, sizeof(real));
        memcpy(g, m->g, m->n_params * sizeof(real));
        for (const Tensor *t = m->t; t < m->t + N_TENSORS; t++)
            if (t->n) {
                const double e = grad_error(m->w + t->at, g + t->at, t->n, probe_loss, &p);
                CHECK(e <= GRAD_TOL, "gradient of %s with %s: relative error %.3g", t->name, arms[a], e);
            }
        free(g);
        golf_free(m);
    }
}
#endif

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
#ifdef GOLF_DOUBLE
    test_model_gradients();
#endif
    printf("%s numbers: %d passed, %d failed\n", sizeof(real) == 8 ? "double" : "float", passed, failed);
    return failed != 0;
}
