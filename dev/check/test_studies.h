/* test_studies.h - part of test_golf.c: what the studies rest on. */

/* --width=fit: nothing wider fits, and the hidden width takes what is left of the cap. */
static void test_fit(void) {
    const char *arms[] = {"heads=4 repeat=4 mlp=4", "heads=2 unique=4 repeat=1 mlp=4",
                          "heads=3 width=24 mlp=2 protect=wdown:8", "unique=8 repeat=1 hidden=64 heads=1"};
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++)
        for (int cap = 40000; cap <= 256000; cap += 72000) {
            char text[256];
            snprintf(text, sizeof text, "vocab=500 cap=%d %s", cap, arms[a]);
            Config c = config_of(text), *cp = &c;
            c.width = 0;
            fit_width(&c);
            const int fixed = strstr(arms[a], "hidden") != NULL, C = c.width;
            const size_t size = artifact_bytes(&c);
            config_check(&c);
            CHECK(size <= (size_t)cap, "%s: %zu bytes in %d", text, size, cap);
            CHECK(fixed ? c.hidden == 64 : !c.hidden || (c.hidden > c.mlp * C && c.hidden % 8 == 0),
                  "%s: hidden %d at width %d", text, c.hidden, C);
            if (!fixed) {
                c.hidden = (c.hidden ? c.hidden : c.mlp * C) + 8;
                CHECK(artifact_bytes(&c) > (size_t)cap, "%s: 8 more would fit", text);
                c.hidden = 0;
            }
            for (c.width += 8; c.width % c.heads || c.width / c.heads % 2;) c.width += 8;
            CHECK(artifact_bytes(cp) > (size_t)cap, "%s: width %d would fit", text, c.width);
        }
}

/* eval --drift, --noise: drift is what mix0 * (1 + drift) computes; noise has the size of scale *
 * noise, is drawn once per stored matrix, and leaves the embedding and the interface alone. */
static void test_perturb(void) {
    const char *arms[] = {"", "wq=none aq=none", "unique=2 repeat=1 protect=wo:8"};
    for (size_t a = 0; a < sizeof arms / sizeof *arms; a++) {
        char text[256];
        Golf m, twin;
        snprintf(text, sizeof text, "vocab=266 width=64 heads=2 seq=16 repeat=3 mlp=4 %s", arms[a]);
        new_model(&m, text, 16), new_model(&twin, text, 16);
        m.train = twin.train = 0;
        const int *x = tokens_below(266, 16, 80), *y = tokens_below(266, 16, 81);
        const double before = golf_forward(&m, x, y, 1, 16);
        golf_perturb(&m, 0.25, 0);
        for (size_t i = 0; i < twin.t[T_mix0].n; i++) twin.eff[twin.t[T_mix0].at + i] *= (real)1.25;
        golf_pack(&twin);
        const double drift = golf_forward(&m, x, y, 1, 16), want = golf_forward(&twin, x, y, 1, 16);
        CHECK(drift == want && drift != before, "%s: drift %g, not %g", arms[a], drift, want);
        golf_free(&m);
        new_model(&m, text, 16), m.train = 0;
        golf_perturb(&m, 0, 1e-7);
        const double little = golf_forward(&m, x, y, 1, 16);
        CHECK(fabs(little - before) < 1e-3, "%s: noise 1e-7 changes the loss by %g", arms[a],
              little - before);
        golf_free(&m);
        new_model(&m, text, 16), m.train = 0;
        golf_perturb(&m, 0, 0.5);
        const double much = golf_forward(&m, x, y, 1, 16);
        CHECK(fabs(much - before) > 1e-4, "%s: noise 0.5 changes nothing", arms[a]);
        for (const Tensor *t = m.t, *u = twin.t; t < m.t + N_TENSORS; t++, u++) {
            if (t == m.t + T_mix0 || !t->n) continue;
            double sum = 0, sum2 = 0, mean = 0, n = (double)t->copy_n;
            for (size_t i = t->at; i < t->at + t->copy_n; i++) {
                const double d = (double)(m.eff[i] - twin.eff[i]);
                sum += d, sum2 += d * d, mean += fabs((double)twin.eff[i]);
            }
            const double sd = sqrt(sum2 / n), s = u->quant->bits == 2 ? (double)*scale_of(&m, t, 0)
                                                                     : mean / n;
            if (t->role != PROJ) CHECK(sum2 == 0, "%s: %s has noise", arms[a], t->name);
            else CHECK(fabs(sd / (0.5 * s) - 1) < 0.05 && fabs(sum / n) < 4 * sd / sqrt(n),
                       "%s: %s: noise of %g %g, not %g", arms[a], t->name, sum / n, sd, 0.5 * s);
        }
        golf_free(&m), golf_free(&twin);
    }
}
