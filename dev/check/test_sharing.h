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
    for (int equal = 1; equal >= 0; equal--) {
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
                snprintf(text, sizeof text, "%s %s init_from=x convert=%s %s", flat, to[k], how[h], equal ? "" : "lora=16 lora_bits=16");
                new_model(&b, text, 32), golf_init_from(&b, IN("flat.bin"));
                const double loss = loss_of(&b);
                CHECK(b.t[T_wo].stored_copies == (k == 3 ? 5 : k ? 2 : 3), "%s: %d copies of wo", text, b.t[T_wo].stored_copies);
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
        snprintf(text, sizeof text, "%s unique=2 repeat=2 init_from=x convert=%s", flat, how[h]);
        new_model(&b, text, 0), golf_init_from(&b, IN("flat.bin"));
        uint8_t *file = read_file(IN("flat.bin"), &(size_t){0});
        const size_t n = m.t[T_wo].copy_n;
        real *w = reals(n * 5, 0); /* the file's may lie anywhere */
        memcpy(w, file + CKPT_FIXED + get_u(file + 40, 4) + m.t[T_wo].at * sizeof *w, (n * 4 + 1) * sizeof *w);
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

/* Pruning leaves the largest weights; the products are the definition; skips join last to first. */
static void test_fips(void) {
    Golf m;
    new_model(&m, "vocab=20 width=16 heads=2 mlp=2 seq=16 unique=1 repeat=3 ffn=fips fips_rank=12 steps=1000 fips_sparse=0.8 batch=3", 0);
    const Config *c = &m.c;
    const Tensor *t = m.t + T_fips_up;
    const size_t n = t[0].n + t[1].n;
    CHECK(fips_sparsity(c, 49) < 0 && near(fips_sparsity(c, 750), 0.8, 1e-9) && fips_sparsity(c, 800) < 0 &&
              near(fips_sparsity(c, 150), 0.8 * (1 - 0.512), 1e-9), "sparsity %g", fips_sparsity(c, 150));
    real *was = reals(n, 0), kept = (real)INFINITY, gone = 0; /* sizes, as multiples of the start's */
    for (size_t i = 0; i < n; i++) was[i] = m.w[t->at + i] / (real)t[i >= t[0].n].init;
    fips_prune(&m, 0.5);
    size_t zeros = 0;
    for (size_t i = 0; i < n; i++) {
        if (m.w[t->at + i] == 0) zeros++, gone = (real)fmax((double)gone, fabs((double)was[i]));
        else kept = (real)fmin((double)kept, fabs((double)was[i]));
    }
    CHECK(zeros == n / 2 && gone < kept, "%zu of %zu pruned, up to %g; kept from %g", zeros, n, (double)gone, (double)kept);
    golf_quantize(&m), golf_buffers(&m, 48);
    run_steps(&m, 0, 3);
    for (size_t i = zeros = 0; i < n; i++) zeros += m.w[t->at + i] == 0;
    CHECK(zeros == n / 2, "%zu of %zu are 0 after 3 steps", zeros, n);
    double worst = 0;
    for (int p = 0; p < 3; p++)
        for (int f = 0; f < 32; f++)
            for (int i = 0; i < 16; i++) {
                double up = 0, down = 0;
                for (int r = 0; r < 12; r++) {
                    const double U = (double)m.eff[m.t[T_fips_u].at + (size_t)(r * 16 + i)];
                    up += (double)m.eff[t[0].at + (size_t)((p * 32 + f) * 12 + r)] * U;
                    down += (double)m.eff[t[1].at + (size_t)((p * 12 + r) * 32 + f)] * U;
                }
                worst = fmax(worst, fabs(up - (double)m.eff[m.t[T_wup].at + (size_t)((p * 32 + f) * 16 + i)]));
                worst = fmax(worst, fabs(down - (double)m.eff[m.t[T_wdown].at + (size_t)((p * 16 + i) * 32 + f)]));
            }
    CHECK(worst < (DOUBLE ? 1e-12 : 1e-5), "a product is off by %.3g", worst);
    golf_free(&m);
}
static void test_skips(void) {
    Golf m;
    new_model(&m, "vocab=20 width=16 heads=2 seq=16 unique=5 repeat=1 unet=1", 0);
    const int want[] = {-1, -1, 1, 0, -1}; /* of 5 phases the first 2 hand over, last in, first out */
    for (int p = 0; p < 5; p++) CHECK(unet_from(&m, p) == want[p], "phase %d takes %d, not %d", p, unet_from(&m, p), want[p]);
    golf_free(&m);
}
/* Experts by definition: the K with the largest logits, one token after the other. */
static void test_experts(void) {
    enum { C = 16, G = 8, E = 5, K = 2, N = 32 };
    Golf m;
    new_model(&m, "vocab=20 width=16 heads=2 seq=16 repeat=1 experts=5 topk=2 expert_size=8 wq=none aq=none extra_norm=none "
                  "gate=none gain=none", N);
    for (size_t i = 0; i < m.n_params; i++) m.w[i] += (real)0.3 * noise(31, i);
    golf_quantize(&m), m.train = 0;
    golf_forward(&m, tokens_below(20, N, 80), NULL, 2, 16);
    double worst = 0;
    for (int n = 0; n < N; n++) {
        const real *x = m.phase->mid + n * C, *S = m.eff + m.t[T_sel_mlp].at;
        double u[C], z[E], y[C] = {0}, square = 0;
        for (int i = 0; i < C; i++) square += (double)x[i] * (double)x[i] / C;
        for (int i = 0; i < C; i++) u[i] = (double)x[i] / sqrt(square + 1e-6);
        for (int e = 0; e < E; e++) {
            z[e] = 0;
            for (int i = 0; i < C; i++) z[e] += (double)S[e * C + i] * u[i];
        }
        for (int e = 0; e < E; e++) {
            int larger_ = 0;
            for (int o = 0; o < E; o++) larger_ += z[o] > z[e];
            if (larger_ >= K) continue;
            const real *up = m.eff + m.t[T_wup].at + e * G * C, *down = m.eff + m.t[T_wdown].at + e * C * G;
            for (int g = 0; g < G; g++) {
                double f = 0;
                for (int i = 0; i < C; i++) f += (double)up[g * C + i] * u[i];
                for (int i = 0; i < C; i++) y[i] += (f > 0 ? f * f : 0) * (double)down[i * G + g] / (1 + exp(-z[e]));
            }
        }
        for (int i = 0; i < C; i++) worst = fmax(worst, fabs(y[i] - (double)m.phase->y[n * C + i]));
    }
    CHECK(worst < (DOUBLE ? 1e-12 : 1e-4), "experts: off by %.3g from their definition", worst);
    golf_free(&m);
}
/* RMS and cosine of a step whose streams are known. */
static void test_watch(void) {
    Golf m;
    Run run = {0};
    double out[9];
    new_model(&m, "vocab=20 width=8 heads=2 seq=8 repeat=3 batch=1", 8);
    run.rms = out;
    real *x0 = reals(64, 1), *a = reals(64, 2), *b = reals(64, 3);
    double ab = 0, aa = 0, bb = 0, sum = 0;
    for (int i = 0; i < 64; i++) {
        m.phase[0].out[i] = x0[i] + a[i], m.phase[1].out[i] = x0[i] + a[i] + b[i];
        m.phase[2].out[i] = m.phase[1].out[i] - b[i];
        ab += (double)(a[i] * b[i]), aa += (double)(a[i] * a[i]), bb += (double)(b[i] * b[i]);
        sum += pow((double)m.phase[0].out[i], 2) / 64;
    }
    m.prev[0] = x0, m.prev[1] = m.phase[0].out, m.prev[2] = m.phase[1].out;
    watch(&m, &run);
    CHECK(near(out[0], sqrt(sum), 1e-5) && near(out[6], ab / sqrt(aa * bb), 1e-5) && near(out[7], -1, 1e-5) && out[8] == 0,
          "rms %g, cosines %g %g", out[0], out[6], out[7]);
    golf_free(&m);
}

#ifdef GOLF_DOUBLE
static void give_teacher(Golf *m, size_t N) { /* for arms with kd */
    m->teacher = owned(m, 1, sizeof(Golf));
    new_model(m->teacher, "vocab=11 width=16 heads=2 mlp=1 seq=8 repeat=1", N);
    m->teacher->train = 0;
}
#endif
/* What test_golf.c adds to its lists. */
#define SHARING_ARMS \
    "lora=3", "lora=3 repeat=3", "lora=2 lora_on=ffn lora_bits=16 unique=2", \
    "lora=1 lora_on=attn unique=2 repeat=1", "lora=3 extra_norm=each aq=none repeat=1 prelude=1", \
    "lora=2 aq=quest wq=quest abits=3", "unshare=wup,wdown repeat=3", \
    "unshare=wqkv extra_norm=each unique=2 prelude=1", "unshare=wo lora=2 recompute=0", \
    "kd=0.3 teacher=x", "kd=1 teacher=x wq=none aq=none", "ffn=fips fips_rank=5", \
    "ffn=fips fips_rank=3 repeat=3 extra_norm=each aq=none", \
    "ffn=fips fips_rank=8 fips_vbits=6 fips_ubits=16 unique=2 repeat=1 fips_sparse=0", \
    "experts=4 topk=2 expert_size=8", "experts=4 expert_size=8 prelude=1 coda=1 moe_entropy=0.5 attn_experts=2", "experts=5 expert_size=8 wq=none seq=40 repeat=1", \
    "experts=4 topk=1 expert_size=8 unique=2 moe_bias=1 moe_entropy=0.5", \
    "experts=3 topk=3 expert_size=16 repeat=3 extra_norm=each aq=none moe_bias=1", \
    "attn_experts=3 moe_entropy=0.3", \
    "attn_experts=2 attn_topk=1 heads=4 kv_heads=2 extra_norm=each unique=2", \
    "attn_experts=4 extra_norm=none wq=none aq=none experts=3 expert_size=8 repeat=3", \
    "norm=peri experts=4 expert_size=8 init=moeut", \
    "norm=peri experts=3 expert_size=8 attn_experts=2 moe_bias=1 repeat=3 aq=none", \
    "unet=1 repeat=4", "unet=1 repeat=1 unique=5 gain=none mix=none",
#define SHARING_FILES \
    "lora=4", "lora=8 lora_bits=16 lora_on=ffn unique=2", "unshare=wup,wo repeat=3", \
    "experts=4 expert_size=24 moe_bias=1", "attn_experts=3 repeat=3", \
    "unet=1 unique=5 repeat=1 init=baseline", "norm=peri experts=4 expert_size=16", \
    "attn_experts=2 attn_topk=1 experts=4 expert_size=16 wq=none", "experts=3 topk=1 wq=int4", \
    "ffn=fips fips_rank=12 steps=2", "ffn=fips fips_rank=32 fips_ubits=16 steps=2 unique=2",
#define SHARING_TESTS \
    {"sharing: low rank", test_low_rank}, {"sharing: convert", test_convert}, \
    {"sharing: depth", test_depth}, {"sharing: fips", test_fips}, {"sharing: skips", test_skips}, \
    {"sharing: experts", test_experts}, {"sharing: depth, watched", test_watch},
