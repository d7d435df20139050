/* instruments.h - what a run's log tells about depth and quantization. Not from a paper.
 *
 * Every --watch=N steps (0: never) log.tsv has, of that step:
 *   zero            the part of the projections' codes that is 0
 *   flips_per_100   codes that changed since the last such row, per code
 *   masked          the part of the projections' weights whose gradient is masked
 *   scale_drift     how far their steps moved since the start: the mean of |log2|
 *   rms             of each phase: RMS of the stream behind it
 *   grad            RMS of its gradient
 *   cosine          of what the phase added with what the next one added; 0 for phases
 *                   that did not run
 *
 * Nothing of it is stored or changes a number of the training. Cost: under 1 % of such a
 * step. */
#ifdef OPTIONS
X(TRAIN | RESUME, INT, watch, "100", "0 to 1000000",
  "steps between measurements in log.tsv")
X(TRAIN | FIXED | RESUME, NUM, watched_flips, "0", "0 to 1e18", "flips at the last one")

#elif defined LIST
X(instruments)

#elif defined CODE
typedef struct {
    double *rms, *grad, *cosine; /* (phases) */
    real *first_scale;           /* (n_scales) at the start of training */
    double flips;                /* at the row before this one */
    int watching, fresh; /* is this step measured?; are masters new, and their scales? */
    int row; /* steps done where the next row stands, until flips are counted */
} Instruments;

static int instruments_on(const Config *c) { return c->watch > 0; }

/* Masters are new: random, or from a donor. Their scales come with the next
 * quantization. */
static void instruments_start(Golf *m, const Golf *from, int convert) {
    (void)from;
    (void)convert;
    if (!m->own[SYS_instruments]) {
        Instruments *s = owned(m, 1, sizeof(Instruments));
        s->rms = owned(m, (size_t)m->phases, sizeof(double));
        s->grad = owned(m, (size_t)m->phases, sizeof(double));
        s->cosine = owned(m, (size_t)m->phases, sizeof(double));
        s->first_scale = owned_reals(m, m->n_scales);
        m->own[SYS_instruments] = s;
    }
    ((Instruments *)m->own[SYS_instruments])->fresh = 1;
}

/* So are those that were fitted to the rest of a donor. */
static void instruments_fit(Golf *m, const Golf *from) {
    (void)from;
    ((Instruments *)m->own[SYS_instruments])->fresh = 1;
}

/* Called whenever masters were quantized. The flips of the last row are in the
 * configuration, so that they are in checkpoints. */
static void instruments_soften(Golf *m) {
    Instruments *s = m->own[SYS_instruments];
    if (s->row && m->step == s->row) {
        s->flips = m->config.watched_flips;
        m->config.watched_flips = (double)m->flips;
        s->row = 0;
    }
    if (!s->fresh) return;
    memcpy(s->first_scale, m->scale, m->n_scales * sizeof(real));
    m->config.watched_flips = 0;
    s->fresh = 0;
}

static void instruments_step(Golf *m, int step) {
    const Config *c = &m->config;
    Instruments *s = m->own[SYS_instruments];
    if (step < 0) return;
    s->watching = (step + 1) % c->watch == 0 || step + 1 == c->steps;
    s->row = s->watching ? step + 1 : 0;
}

static void instruments_leave_backward(Golf *m, int p, int N) { /* m->dh is d(out) */
    Instruments *s = m->own[SYS_instruments];
    if (s->watching)
        s->grad[p] = (double)rms_of(m->dh, (size_t)N * (size_t)m->config.width);
}

/* The cosine of two differences a1 - a0 and b1 - b0 of n numbers. */
static double cosine_of(const real *a1, const real *a0, const real *b1, const real *b0,
                        size_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (size_t k = 0; k < n; k++) {
        const double a = (double)(a1[k] - a0[k]), b = (double)(b1[k] - b0[k]);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static void measure_phases(const Golf *m, Instruments *s) {
    const size_t n = m->N * (size_t)m->config.width;
    memset(s->rms, 0, sizeof(double) * (size_t)m->phases);
    memset(s->cosine, 0, sizeof(double) * (size_t)m->phases);
    for (int i = 0; i < m->n_visits; i++) {
        const int p = m->visits[i];
        s->rms[p] = (double)rms_of(m->phase[p].out, n);
        if (i + 1 == m->n_visits) continue;
        const int q = m->visits[i + 1];
        s->cosine[p] =
            cosine_of(m->phase[p].out, m->prev[p], m->phase[q].out, m->prev[q], n);
    }
}

/* Of the projections that have codes on a grid: parts of all codes; mean |log2| of the
 * steps. */
typedef struct {
    double codes, zero, masked, drift;
} CodeCensus;

static CodeCensus measure_codes(const Golf *m, const Instruments *s) {
    CodeCensus d = {0};
    double scales = 0;
    EACH_TENSOR(t, m) {
        if (t->role != PROJ || t->quant->domain < 0) continue;
        d.codes += (double)t->n;
        for (size_t i = t->at; i < t->at + t->n; i++) {
            d.zero += !m->code[i] && !t->half;
            d.masked += t->passes && !m->mask[i];
        }
        const size_t end = t->at_scale + t->copy_scales * (size_t)t->stored_copies;
        for (size_t i = t->at_scale; i < end; i++) {
            if (!(m->scale[i] > 0 && s->first_scale[i] > 0)) continue; /* none there */
            d.drift += fabs(log_of((double)(m->scale[i] / s->first_scale[i]))) / log_of(2);
            scales++;
        }
    }
    d.zero /= fmax(d.codes, 1);
    d.masked /= fmax(d.codes, 1);
    d.drift /= fmax(scales, 1);
    return d;
}

static void log_list(FILE *f, const double *x, int n) {
    fputc('\t', f);
    for (int p = 0; p < n; p++) fprintf(f, "%s%.4g", p ? " " : "", x[p]);
}

static void instruments_log_row(const Golf *m, FILE *f) {
    Instruments *s = m->own[SYS_instruments];
    if (!s->watching) {
        fputs("\t\t\t\t\t\t\t", f);
        return;
    }
    const CodeCensus d = measure_codes(m, s);
    measure_phases(m, s);
    fprintf(f, "\t%.4f\t%.6f\t%.5f\t%.4f", d.zero,
            ((double)m->flips - s->flips) / fmax(d.codes, 1), d.masked, d.drift);
    log_list(f, s->rms, m->phases);
    log_list(f, s->grad, m->phases);
    log_list(f, s->cosine, m->phases);
    memset(s->grad, 0, sizeof(double) * (size_t)m->phases);
}

static void instruments_result(const Golf *m, FILE *f) {
    const CodeCensus d = measure_codes(m, m->own[SYS_instruments]);
    fprintf(f, "  \"masked_fraction\": %.17g,\n  \"scale_drift\": %.17g,\n", d.masked,
            d.drift);
}

static const System instruments_system = {
    .name = "instruments",
    .needs = "watch",
    .on = instruments_on,
    .start = instruments_start,
    .fit = instruments_fit,
    .soften = instruments_soften,
    .step = instruments_step,
    .leave_backward = instruments_leave_backward,
    .columns = "\tzero\tflips_per_100\tmasked\tscale_drift\trms\tgrad\tcosine",
    .log_row = instruments_log_row,
    .result = instruments_result};

#elif defined TESTS
/* RMS and cosine of a step whose streams are known. */
static void test_streams(void) {
    Golf m;
    new_model(&m, "vocab=20 width=8 heads=2 seq=8 repeat=3 batch=1 watch=1", 8);
    Instruments *s = m.own[SYS_instruments];
    real *x0 = reals(64, 1), *a = reals(64, 2), *b = reals(64, 3);
    double ab = 0, aa = 0, bb = 0, sum = 0;
    for (int i = 0; i < 64; i++) {
        m.phase[0].out[i] = x0[i] + a[i];
        m.phase[1].out[i] = x0[i] + a[i] + b[i];
        m.phase[2].out[i] = m.phase[1].out[i] - b[i];
        ab += (double)(a[i] * b[i]);
        aa += (double)(a[i] * a[i]);
        bb += (double)(b[i] * b[i]);
        sum += pow((double)m.phase[0].out[i], 2) / 64;
    }
    m.prev[0] = x0;
    m.prev[1] = m.phase[0].out;
    m.prev[2] = m.phase[1].out;
    measure_phases(&m, s);
    CHECK(near(s->rms[0], sqrt(sum), 1e-5), "rms %g, not %g", s->rms[0], sqrt(sum));
    CHECK(near(s->cosine[0], ab / sqrt(aa * bb), 1e-5) && near(s->cosine[1], -1, 1e-5) &&
              s->cosine[2] == 0,
          "cosines %g %g", s->cosine[0], s->cosine[1]);
    golf_free(&m);
}

/* Codes at 0, and steps that doubled. */
static void test_codes(void) {
    Golf m;
    new_model(&m, "vocab=20 width=8 heads=2 seq=8 repeat=1 batch=1 watch=1", 8);
    const Tensor *t = m.tensor + T_wo;
    double codes = 0, zeros = 0;
    for (int k = T_wqkv; k <= T_wdown; k++) codes += (double)m.tensor[k].n;
    memset(m.code, 1, m.n_params);
    memset(m.code + t->at, 0, t->n);
    for (size_t i = 0; i < m.n_scales; i++) m.scale[i] *= 2;
    const CodeCensus d = measure_codes(&m, m.own[SYS_instruments]);
    zeros = (double)t->n / codes;
    CHECK(d.codes == codes && near(d.zero, zeros, 1e-12), "%g of %g at 0", d.zero,
          d.codes);
    CHECK(near(d.drift, 1, 1e-6) && d.masked == 0, "drift %g", d.drift);
    golf_free(&m);
}

/* Scales are measured from those that a conversion left, not from those it found. */
static void test_scales_of_a_conversion(void) {
    Golf m;
    new_model(&m, "vocab=20 width=8 heads=2 seq=8 repeat=1 batch=1 watch=1", 8);
    for (size_t i = 0; i < m.n_params; i++) m.master[i] *= 2;
    instruments_fit(&m, NULL);
    golf_quantize(&m);
    const CodeCensus d = measure_codes(&m, m.own[SYS_instruments]);
    CHECK(d.drift == 0, "drift %g", d.drift);
    golf_free(&m);
}

/* The gradient's RMS is that of m->dh when its phase is left. */
static void test_gradient_rms(void) {
    Golf m;
    new_model(&m, "vocab=20 width=8 heads=2 seq=8 repeat=2 batch=1 watch=5 steps=100", 8);
    Instruments *s = m.own[SYS_instruments];
    const int *x = tokens_below(20, 8, 80), *y = tokens_below(20, 8, 81);
    instruments_step(&m, 3);
    CHECK(!s->watching, "step 3 of every 5");
    instruments_step(&m, 4);
    CHECK(s->watching, "step 4 of every 5");
    golf_forward(&m, x, y, 1, 8);
    const double want = (double)rms_of(m.dh, 64);
    golf_backward(&m, x, 1, 8);
    CHECK(near(s->grad[1], want, 1e-9) && s->grad[0] > 0, "gradient %g, not %g",
          s->grad[1], want);
    golf_free(&m);
}

/* The row of the log after this many steps. */
static char *row_after(Golf *m, int from, int to) {
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    run_steps(m, from, to);
    instruments_log_row(m, f);
    fclose(f);
    return text;
}

/* A run that was interrupted, between two rows or at one, logs what it would have logged:
 * its flips count from the same row. */
static void test_resumed_rows(void) {
    const char *text = "vocab=20 width=16 heads=2 seq=8 repeat=2 batch=2 watch=4 steps=100 "
                       "lr=0.02 warmup=0";
    for (int stop = 6; stop <= 8; stop++) {
        Golf m, b;
        new_model(&m, text, 16);
        new_model(&b, text, 16);
        row_after(&m, 0, 4);
        row_after(&m, 4, stop);
        ckpt_save(&m, IN("watched.bin"), stop);
        const char *straight = row_after(&m, stop, stop < 8 ? 8 : 12);
        ckpt_load(&b, IN("watched.bin"));
        const char *resumed = row_after(&b, stop, stop < 8 ? 8 : 12);
        CHECK(m.flips > 0 && m.flips == b.flips && !strcmp(straight, resumed),
              "resumed from step %d: %s, without: %s", stop, resumed, straight);
        golf_free(&m);
        golf_free(&b);
    }
}

static void run_watched(const char *how) {
    char line[256];
    snprintf(line, sizeof line,
             "train --preset=tiny --width=16 --seq=16 --steps=2 --data=@/d --out=@/table %s",
             how);
    CHECK(STATUS(command_line(line)) == 0, "%s: %s", line, message);
}

/* Rows of a run that goes on with another setting keep their columns, and their names;
 * a new run has its own. */
static void test_columns(void) {
    write_data("d", 900, 100, HAND_VOCAB);
    run_watched("--watch=1");
    check_table("table", 15, 15);
    remove(IN("table/result.json"));
    run_watched("--watch=0 --resume=1");
    check_table("table", 15, 15);
    run_watched("--watch=0 --overwrite=1");
    check_table("table", 8, 8);
    remove(IN("table/result.json"));
    run_watched("--watch=1 --resume=1");
    check_table("table", 15, 8);
}

static const SystemTests instruments_tests = {
    .tests = (const Test[]){{"columns", test_columns},
                            {"streams", test_streams},
                            {"codes", test_codes},
                            {"conversion", test_scales_of_a_conversion},
                            {"gradients of phases", test_gradient_rms},
                            {"resumed rows", test_resumed_rows},
                            {NULL, NULL}}};
#elif defined BUGS
bug header-of-fewer-columns float columns "$(in_ keep_rows)s/as_now = end &&/as_now = 0 \&\&/"
bug header-of-the-run-before float columns "$(in_ keep_rows)s/run->steps ? rows_to_keep(log, path, run) : 0/rows_to_keep(log, path, run)/"
bug header-as-it-was float columns "$(in_ keep_rows)s/ && !strncmp(text, columns, strlen(columns))//"
bug off-is-refused float columns "$(in_ check_systems)s/if (!strcmp(o->name, (\*s)->needs)) continue;.*//"
bug flips-since-the-checkpoint float resumed "s/TRAIN | FIXED | RESUME, NUM, watched/TRAIN | FIXED, NUM, watched/; $(in_ same_options)s/if (o->mask & FIXED)/continue;/"
bug flips-since-the-start float resumed "$(in_ take_counts)s/option_set(c, o, /(void)(/"
bug cosine-of-streams float streams "$(in_ cosine_of)s/a1\[k\] - a0\[k\]/a1[k]/"
bug drift-of-the-scales-now float codes "$(in_ measure_codes)s/s->first_scale\[i\]/m->scale[i]/"
bug drift-since-the-donor float conversion "$(in_ instruments_fit)s/fresh = 1/fresh = 0/"
bug rms-of-every-step float phases "$(in_ instruments_step)s/(step + 1) % c->watch == 0/1/"
#endif
