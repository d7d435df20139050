/* test_sharing.h - part of test_golf.c: what shares and unshares weights over depth. Gradients of
 * these systems are among the arms of test_model_gradients, their files among those of test_export. */

/* Rank-r approximations of a matrix with known singular values 1, 1/2, 1/3, ...: what is left is
 * what the others say, and rank n leaves nothing. */
static void test_low_rank(void) {
    const int shapes[][2] = {{30, 20}, {20, 30}, {1, 7}, {12, 12}};
    for (int s = 0; s < 4; s++) {
        const int rows = shapes[s][0], cols = shapes[s][1], n = MIN(rows, cols);
        double *w = xcalloc((size_t)rows * cols, sizeof(double)), x[2][30 * 30] = {{0}};
        for (int side = 0; side < 2; side++) { /* orthonormal vectors by Gram-Schmidt, twice */
            const int len = side ? cols : rows;
            for (int i = 0; i < n; i++) {
                double *v = x[side] + i * len;
                for (int k = 0; k < len; k++) v[k] = (double)noise(5 + (uint64_t)side, (size_t)(i * len + k));
                for (int turn = 0; turn < 2; turn++) {
                    double norm = 0;
                    for (int j = 0; j < i; j++) {
                        double dot = 0, *u = x[side] + j * len;
                        for (int k = 0; k < len; k++) dot += u[k] * v[k];
                        for (int k = 0; k < len; k++) v[k] -= dot * u[k];
                    }
                    for (int k = 0; k < len; k++) norm += v[k] * v[k];
                    for (int k = 0; k < len; k++) v[k] /= sqrt(norm);
                }
            }
        }
        for (int i = 0; i < n; i++)
            for (int a = 0; a < rows; a++)
                for (int b = 0; b < cols; b++)
                    w[a * cols + b] += x[0][i * rows + a] * x[1][i * cols + b] / (i + 1);
        for (int r = 1; r <= n + 3; r += r < 4 ? 1 : 5) {
            real *b = reals((size_t)(rows * r), 0), *a = reals((size_t)(r * cols), 0);
            double left = 0, tail = 0;
            low_rank(b, a, w, rows, cols, r);
            for (int i = 0; i < rows; i++)
                for (int k = 0; k < cols; k++) {
                    double d = w[i * cols + k];
                    for (int e = 0; e < r; e++) d -= (double)b[i * r + e] * (double)a[e * cols + k];
                    left += d * d;
                }
            for (int i = r; i < n; i++) tail += 1.0 / (i + 1) / (i + 1);
            CHECK(near(sqrt(left), sqrt(tail), 1e-5), "%dx%d, rank %d: %.9g is left, not %.9g", rows, cols, r,
                  sqrt(left), sqrt(tail));
        }
        free(w);
    }
}

static double loss_of(Golf *m) {
    const int *x = tokens_below(20, 32, 80), *y = tokens_below(20, 32, 81), train = m->train;
    m->train = 0;
    golf_quantize(m);
    const double loss = golf_forward(m, x, y, 2, 16);
    m->train = train;
    return loss;
}
/* Unlike random ones, blocks of a flat model whose blocks are equal make the same model when they
 * are shared, whichever is taken; pairs of full rank give unequal ones back. */
static void test_convert(void) {
    const char *flat = "vocab=20 width=16 heads=2 mlp=2 seq=16 prelude=1 unique=4 repeat=1";
    const char *how[] = {"average", "lower", "stepwise"};
    const char *to[] = {"unique=2 repeat=2", "unique=1 repeat=4", "unique=1 repeat=4 order=sequence", "unique=2 repeat=2 unshare=wo"};
    Golf m, b;
    char text[300];
    for (int equal = 0; equal < 2; equal++) {
        new_model(&m, flat, 32);
        for (size_t i = 0; i < m.n_params; i++) m.w[i] += (real)0.1 * noise(77, i);
        for (const Tensor *t = m.t + T_wqkv; t < m.t + N_TENSORS; t++)
            for (int j = 2; equal && t->n && j < 5; j++) /* 0 is the prelude */
                memcpy(m.w + t->at + j * t->copy_n, m.w + t->at + t->copy_n, t->copy_n * sizeof(real));
        golf_quantize(&m);
        const double want = loss_of(&m);
        ckpt_save(&m, IN("flat.bin"), 1);
        for (int h = 0; h < 3; h++)
            for (int k = 0; k < 4; k++) {
                snprintf(text, sizeof text, "%s %s convert=%s %s", flat, to[k], how[h], equal ? "" : "lora=16 lora_bits=16");
                new_model(&b, text, 32), golf_init_from(&b, IN("flat.bin"));
                const double loss = loss_of(&b);
                if (equal) CHECK(near(loss, want, 1e-6), "%s: loss %.9g, not %.9g", text, loss, want);
                for (int p = 0; !equal && p < 5; p++)
                    for (int t = T_wqkv; t <= T_wdown; t++) {
                        const Tensor *w = b.t + t, *a = b.t + T_la_qkv + 2 * (t - T_wqkv);
                        double miss = 0;
                        for (int i = 0; i < w->rows; i++)
                            for (int c = 0; c < w->cols; c++) {
                                double sum = (double)b.w[w->at + copy_of(&b, w, p) * w->copy_n + (size_t)(i * w->cols + c)];
                                for (int r = 0; r < 16; r++)
                                    sum += (double)(b.w[a[1].at + p * a[1].copy_n + (size_t)(i * 16 + r)] *
                                                    b.w[a->at + p * a->copy_n + (size_t)(r * w->cols + c)]);
                                miss = fmax(miss, fabs(sum - (double)m.w[m.t[t].at + p * w->copy_n + (size_t)(i * w->cols + c)]));
                            }
                        CHECK(miss < 1e-5, "%s: %s of phase %d is off by %.3g", text, w->name, p, miss);
                    }
                golf_free(&b);
            }
        golf_free(&m);
    }
    /* which blocks are taken: of 4, with 2 left, the first and the last or the first two */
    new_model(&m, flat, 0);
    for (int h = 0; h < 3; h++) {
        snprintf(text, sizeof text, "%s unique=2 repeat=2 convert=%s", flat, how[h]);
        new_model(&b, text, 0), golf_init_from(&b, IN("flat.bin"));
        uint8_t *file = read_file(IN("flat.bin"), &(size_t){0});
        const real *w = (const real *)(file + CKPT_FIXED + get_u(file + 40, 4)) + m.t[T_wo].at;
        const size_t n = m.t[T_wo].copy_n;
        const real *is = b.w + b.t[T_wo].at;
        const real want[] = {h == 0 ? (w[n] + w[3 * n]) / 2 : w[n], h == 0 ? (w[2 * n] + w[4 * n]) / 2 : w[(h == 1 ? 2 : 4) * n]};
        CHECK(is[0] == w[0] && near((double)is[n], (double)want[0], 1e-7) && near((double)is[2 * n], (double)want[1], 1e-7),
              "%s takes other blocks", how[h]);
        free(file), golf_free(&b);
    }
    golf_free(&m);
}

/* New applications of a ramp are the identity; a backward pass cut short has the gradients of the
 * applications that it passed, and none of the others. */
static void test_depth(void) {
    Golf m, b;
    new_model(&m, "vocab=20 width=16 heads=2 mlp=2 seq=16 prelude=1 coda=1 unique=2 repeat=4 steps=100 "
                  "repeat_ramp=1@0,2@0.25,4@0.5", 32);
    const Config *c = &m.c;
    for (const Tensor *t = m.t; t < m.t + N_TENSORS; t++) /* all but gates and mixes, which are closed */
        for (size_t i = t->at; t->role != INTERFACE && i < t->at + t->n; i++) m.w[i] += (real)0.1 * noise(70, i);
    CHECK(depth_at(c, 0) == 1 && depth_at(c, 24) == 1 && depth_at(c, 25) == 2 && depth_at(c, 50) == 4 &&
              depth_at(c, 99) == 4, "ramp: %d %d %d", depth_at(c, 0), depth_at(c, 25), depth_at(c, 50));
    golf_depth(&m, 1);
    const double one = loss_of(&m);
    for (int r = 2; r <= 4; r++) {
        golf_depth(&m, r);
        const double now_ = loss_of(&m);
        CHECK(near(now_, one, 1e-6), "%d applications: loss %.9g, not %.9g", r, now_, one);
    }
    golf_free(&m);

    const int want[][12] = {{0, 1, 2, 9}, {0, 1, 2, 3, 4, 5, 6, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 9},
                            {0, 1, 5, 9}, {0, 1, 2, 3, 5, 6, 7, 9}, {0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9}};
    for (int i = 0; i < 6; i++) {
        const int r[] = {1, 3, 5}, n = 2 + 2 * r[i % 3];
        new_model(&m, i < 3 ? "vocab=20 width=16 heads=2 seq=16 prelude=1 coda=1 unique=2 repeat=4"
                            : "vocab=20 width=16 heads=2 seq=16 prelude=1 coda=1 unique=2 repeat=4 order=sequence", 0);
        golf_depth(&m, r[i % 3]);
        CHECK(m.runs == n && !memcmp(m.run, want[i], sizeof(int) * (size_t)n), "%d applications, order %d", r[i % 3], i / 3);
        golf_free(&m);
    }

    const char *flat = "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=4 repeat=1";
    char text[200];
    const int *x = tokens_below(20, 32, 80), *y = tokens_below(20, 32, 81);
    new_model(&m, flat, 32);
    golf_forward(&m, x, y, 2, 16), golf_backward(&m, x, 2, 16);
    for (int k = 1; k <= 4; k++) {
        snprintf(text, sizeof text, "%s backprop=%d", flat, k);
        new_model(&b, text, 32);
        golf_forward(&b, x, y, 2, 16), golf_backward(&b, x, 2, 16);
        int same = 1, none = 1;
        for (const Tensor *t = m.t + T_wqkv; t < m.t + N_TENSORS; t++)
            for (size_t i = 0; i < t->n; i++) {
                const int inside = (int)(i / t->copy_n) >= 4 - k;
                same &= !inside || b.g[t->at + i] == m.g[t->at + i];
                none &= inside || b.g[t->at + i] == 0;
            }
        CHECK(same && none, "backprop=%d: %s", k, same ? "a gradient of the others" : "another gradient");
        golf_free(&b);
    }
    golf_free(&m);

    int seen[5] = {0};
    const Config random = config_of("repeat=4 repeat_random=1");
    for (int step = 0; step < 4000; step++) seen[depth_at(&random, step)]++;
    for (int r = 1; r <= 4; r++) CHECK(seen[r] > 850 && seen[r] < 1150, "%d applications: %d times of 4000", r, seen[r]);
}
