/* low_rank_embedding.h - --embed_rank=r: a factorised embedding, as in ALBERT
 * (1909.11942, section 3.1).
 *
 * The tied embedding E (V,C) becomes codes (V,r) times a matrix A (C,r): V r + C r
 * numbers for V C, so that the shared block may be as wide as its own weights allow. At
 * small caps the embedding is half of the file.
 *
 *     in    x = A e,           e (r) the row of the token
 *     out   logits = E z,      z = A^T hn
 *
 * Stored: E as always (--embed_bits), A in 8 bits with a scale per row, counted as
 * protected; AdamW trains A with --lr. Cost: 4 C r FLOPs per token more in the forward
 * pass, and V (C - r) multiply-adds fewer.
 *
 * Differs from ALBERT: the output is tied to both factors (there a projection and a layer
 * norm of its own stand before the logits), nothing has a bias, and E is quantized. */
#ifdef OPTIONS
X(MODEL, INT, embed_rank, "0", "0 to 16384",
  "rank of the embedding: (V,r) times (r,C); 0: full")

#elif defined TENSORS
X(embed_up, ONCE, c->embed_rank ? c->width : 0, c->embed_rank, FACTOR, MODE_VECTOR,
  1 / sqrt((double)c->width))

#elif defined LIST
X(low_rank_embedding)

#elif defined CODE
static int embed_rank_on(const Config *c) { return c->embed_rank; }

static int embed_rank_takes(const Config *c) {
    (void)c;
    return RES_EMBEDDING;
}

/* The two sides of A: y = x A^T is its forward panels, y = x A its other ones. */
static void low_rank_up(const Golf *m, real *x, const real *e, int n) {
    const Tensor *a = m->tensor + T_embed_up;
    gemm_panels(x, (size_t)a->rows, mat(e, (size_t)a->cols),
                &packed_of(m, T_embed_up, 0, 0)->forward, n, 0);
}

static void low_rank_down(const Golf *m, real *z, const real *hn, int n) {
    const Tensor *a = m->tensor + T_embed_up;
    gemm_panels(z, (size_t)a->cols, mat(hn, (size_t)a->rows),
                &packed_of(m, T_embed_up, 0, 0)->back, n, 0);
}

/* z = A^T hn: dA += hn dz^T, for tokens from n0 on, n of them */
static void low_rank_narrow_dw(Golf *m, int n0, int n) {
    const Tensor *a = m->tensor + T_embed_up;
    const size_t C = (size_t)a->rows, r = (size_t)a->cols, from = (size_t)n0;
    gemm(m->grad + a->at, r, mat_t(m->hn + from * C, C), mat(m->dz + from * r, r),
         a->rows, a->cols, n, 1);
}

/* x = A e: de = A^T dx, dA += dx e^T */
static void low_rank_widen_backward(Golf *m, int N) {
    const Tensor *a = m->tensor + T_embed_up;
    const size_t C = (size_t)a->rows, r = (size_t)a->cols;
#pragma omp parallel for schedule(dynamic)
    for (int n0 = 0; n0 < N; n0 += CHUNK)
        low_rank_down(m, m->de + (size_t)n0 * r, m->dy + (size_t)n0 * C,
                      MIN(N - n0, CHUNK));
    gemm(m->grad + a->at, r, mat_t(m->dy, C), mat(m->e, r), a->rows, a->cols, N, 1);
}

static const Adapter low_rank_adapter = {.widen = low_rank_up,
                                         .narrow = low_rank_down,
                                         .narrow_backward = low_rank_up,
                                         .narrow_dw = low_rank_narrow_dw,
                                         .widen_backward = low_rank_widen_backward};

static void embed_rank_shape(Golf *m) {
    m->tensor[T_embed].cols = m->config.embed_rank;
    m->tensor[T_embed_up].both_ways = 1;
    m->adapter = &low_rank_adapter;
}

static double embed_rank_flops(const Golf *m,
                               const Tensor *t) { /* on the way in and out */
    return t == m->tensor + T_embed_up ? 2 : -1;
}

static const System low_rank_embedding_system = {.name = "low_rank_embedding",
                                                 .needs = "embed_rank",
                                                 .on = embed_rank_on,
                                                 .takes = embed_rank_takes,
                                                 .shape = embed_rank_shape,
                                                 .flops = embed_rank_flops};

#elif defined TESTS
/* x0 and logits by their definition, in double: x = A e, logits = E A^T hn. */
static void test_definition(void) {
    enum { V = 20, C = 16, R = 6, N = 8 };
    Golf m;
    const int *x = tokens_below(V, N, 80);
    new_model(&m, "vocab=20 width=16 heads=2 seq=8 repeat=1 embed_rank=6", N);
    m.train = 0;
    golf_forward(&m, x, NULL, 1, N);
    const real *E = m.eff, *A = m.eff + m.tensor[T_embed_up].at;
    double worst = 0;
    for (int n = 0; n < N; n++) {
        double wide[C], square = 0;
        for (int i = 0; i < C; i++) {
            wide[i] = 0;
            for (int k = 0; k < R; k++)
                wide[i] += (double)A[i * R + k] * (double)E[x[n] * R + k];
            square += wide[i] * wide[i] / C;
        }
        for (int i = 0; i < C; i++)
            worst = worse(worst,
                         fabs(wide[i] / sqrt(square + 1e-6) - (double)m.x0[n * C + i]));
        for (int v = 0; v < V; v++) {
            double z = 0;
            for (int i = 0; i < C; i++)
                for (int k = 0; k < R; k++)
                    z += (double)E[v * R + k] * (double)A[i * R + k] *
                         (double)m.hn[n * C + i];
            worst = worse(worst, fabs(30 * tanh(z / 30) - (double)m.logits[n * V + v]));
        }
    }
    CHECK(worst < (DOUBLE ? 1e-12 : 1e-4), "off by %.3g from its definition", worst);
    golf_free(&m);
}

/* Fewer bytes buy width: at the same cap the block is wider than with a full
 * embedding. */
static void test_width(void) {
    Config full = config_of("vocab=4096 cap=256000"),
           low = config_of("vocab=4096 cap=256000 "
                           "embed_rank=32");
    full.width = 0;
    low.width = 0;
    fit_width(&full);
    fit_width(&low);
    CHECK(low.width > full.width && artifact_bytes(&low) <= 256000, "width %d, full %d",
          low.width, full.width);
}

static const SystemTests low_rank_embedding_tests = {
    .gradients = (const char *const[]){"embed_rank=5",
                                       "embed_rank=3 embed_bits=16 aq=none repeat=3",
                                       "embed_rank=13 seq=24 mlp=1",
                                       "embed_rank=4 unique=2 mix=none", NULL},
    .files = (const char *const[]){"embed_rank=12", "embed_rank=40 embed_bits=8", NULL},
    .errors = (const char *const[][2]){{"--embed_rank=x", "--embed_rank|0 to 16384"},
                                       {NULL, NULL}},
    .tests = (const Test[]){
        {"definition", test_definition}, {"width", test_width}, {NULL, NULL}}};
#elif defined BUGS
bug matrix-without-the-head double grad "$(in_ low_rank_narrow_dw)s/a->cols, n, 1)/a->cols, n * 0, 1)/"
bug matrix-without-the-input double grad "$(in_ low_rank_widen_backward)s/a->cols, N, 1)/a->cols, N * 0, 1)/"
bug codes-not-widened double definition "$(in_ low_rank_up)s/->forward, n, 0/->forward, n - 1, 0/"
#endif
