/* calibration.h - block-wise reconstruction, for systems that compress a trained model:
 * the numbers that they store are trained so that, on rows of the training text, each
 * phase puts out what that of the donor does. The loss of the text plays no part.
 *
 *     error of phase p = mean over the rows' tokens of |block_p(in_p) - out_p|^2
 *
 * out_p is what the donor's phase p puts out when all phases before it are the donor's.
 * in_p is what it was given for that, or what the model itself has there, with all errors
 * of its phases so far: the caller says which. Papers take the mean over columns as well;
 * AdamW's steps do not depend on such a factor.
 *
 * The rows are the first ones of the run, as seed and order of --data have them; a step
 * takes a group of them (--batch / --accum), round after round in the same order. All
 * else is that of a
 * training step: the same kernels, the same straight-through gradients of what is
 * quantized, the same bits for any number of threads. AdamW has moments and a count of
 * steps of its own (beta 0.9 and 0.999, as in both papers' code); training then starts
 * with none.
 *
 * Cost: a step is that of training on the phases it sees, without the head; --minutes
 * does not count it. Memory: rows times seq times width numbers, twice for each phase,
 * and the donor. A run that is stopped before its first step begins again. */
#ifndef GOLF_CALIBRATION_H
#define GOLF_CALIBRATION_H

typedef struct {
    int rows, batches, *tokens; /* (rows,seq); batches of N tokens */
    size_t N, stream;           /* numbers of a stream: (rows seq,C) */
    real *x0, **in, **out;      /* x0; of each phase what goes in, and is to come out */
} Calibration;

/* A run that goes on has in its checkpoint what calibration had found. */
static inline int calibration_is_over(const Config *c) {
    return c->resume && run_has(c, "ckpt.bin");
}

static inline void calibration_alloc(Calibration *k, const Golf *m, int rows) {
    const Config *c = &m->config;
    k->rows = rows;
    k->batches = rows / group_rows(c);
    k->N = group_tokens(c);
    k->stream = (size_t)rows * (size_t)c->seq * (size_t)c->width;
    k->tokens = xcalloc((size_t)rows * (size_t)c->seq + 1, sizeof(int));
    k->x0 = xcalloc(k->stream, sizeof(real));
    k->in = xcalloc((size_t)m->phases, sizeof(real *));
    k->out = xcalloc((size_t)m->phases, sizeof(real *));
    for (int p = 0; p < m->phases; p++) {
        k->in[p] = xcalloc(k->stream, sizeof(real));
        k->out[p] = xcalloc(k->stream, sizeof(real));
    }
}

/* Training starts without moments. */
static inline void calibration_close(Calibration *k, Golf *m) {
    for (int p = 0; p < m->phases; p++) {
        free(k->in[p]);
        free(k->out[p]);
    }
    free(k->in);
    free(k->out);
    free(k->x0);
    free(k->tokens);
    memset(m->moment1, 0, m->n_params * sizeof(real));
    memset(m->moment2, 0, m->n_params * sizeof(real));
}

static inline void calibration_rows(Calibration *k, const Config *c) {
    Shards *train = shards_open(c->data, "train", c->vocab);
    for (int row = 0; row < k->rows; row++) /* the last target is overwritten */
        shards_train_row(train, (uint64_t)c->seed, row, c->seq, c->shuffle,
                         k->tokens + (size_t)row * (size_t)c->seq);
    shards_close(train);
}

/* Where batch b starts in a stream. */
static inline size_t batch_in(const Calibration *k, int b) {
    return k->stream / (size_t)k->batches * (size_t)b;
}

/* What every phase of m starts from, and what it puts out, on all rows. NULL: not asked
 * for. */
static inline void calibration_streams(const Calibration *k, Golf *m, real **in,
                                       real **out, int B, int T) {
    const size_t bytes = k->N * (size_t)m->config.width * sizeof(real);
    for (int b = 0; b < k->batches; b++) {
        const size_t at = batch_in(k, b);
        body(m, k->tokens + (size_t)b * k->N, B, T);
        if (in) memcpy(k->x0 + at, m->x0, bytes);
        for (int p = 0; p < m->phases; p++) {
            if (in) memcpy(in[p] + at, m->prev[p], bytes);
            if (out) memcpy(out[p] + at, m->phase[p].out, bytes);
        }
    }
}

/* The donor, with buffers of its own in which every phase keeps what it puts out. */
static inline Golf calibration_donor(const Golf *from, size_t N) {
    Golf donor = *from;
    donor.owned = NULL;
    donor.n_owned = 0;
    donor.phase = owned(&donor, (size_t)donor.phases, sizeof(PhaseBuffers));
    donor.prev = owned(&donor, (size_t)donor.phases + 1, sizeof(real *));
    donor.config.recompute = 1;
    golf_buffers(&donor, N);
    golf_pack(&donor); /* from->eff, whatever it was made of */
    donor.train = 0;
    return donor;
}

/* Streams of the donor: out, and (in_of_donor) in. `what` is the option that asked. */
static __attribute__((unused)) void calibration_open(Calibration *k, const Golf *m,
                                                     const Golf *from, int rows,
                                                     int in_of_donor, const char *what) {
    const Config *c = &m->config, *d = &from->config;
    if (m->phases != from->phases || c->width != d->width || c->vocab != d->vocab ||
        c->seq > d->seq)
        die("--%s compares phases with the donor's: expected one of %d phases, "
            "--width=%d, --vocab=%d and --seq=%d or more, found %d, %d, %d and %d",
            what, m->phases, c->width, c->vocab, c->seq, from->phases, d->width, d->vocab,
            d->seq);
    calibration_alloc(k, m, rows);
    calibration_rows(k, c);
    Golf donor = calibration_donor(from, k->N);
    calibration_streams(k, &donor, in_of_donor ? k->in : NULL, k->out, group_rows(c),
                        c->seq);
    for (int i = 0; i < donor.n_owned; i++) free(donor.owned[i]);
    free(donor.owned);
}

/* The error of phase p on batch b; to learn, adds to m->grad that of what it computes
 * with. m->dh = d(error)/d(out) = 2 (out - that of the donor) / N */
static inline double calibration_phase(Golf *m, const Calibration *k, int p, int b,
                                       int learn) {
    const Config *c = &m->config;
    const size_t n = k->N * (size_t)c->width, at = batch_in(k, b);
    const real *want = k->out[p] + at, two = 2 / (real)k->N;
    double error = 0;
    memcpy(m->x0, k->x0 + at, n * sizeof(real));
    m->prev[p] = k->in[p] + at;
    block_forward(m, p, group_rows(c), c->seq);
    for (size_t i = 0; i < n; i++) {
        const real off = m->phase[p].out[i] - want[i];
        error += (double)off * (double)off;
        m->dh[i] = two * off;
    }
    if (learn) {
        memset(m->dx0, 0, n * sizeof(real));
        block_backward(m, p, group_rows(c), c->seq);
        add_chunks(m, p);
    }
    return error / (double)k->N;
}

/* Over the phases that use a block, or (-1) all of them. */
static inline double calibration_phases(Golf *m, const Calibration *k, int block, int b,
                                        int learn) {
    double error = 0;
    for (int p = 0; p < m->phases; p++) {
        if (block >= 0 && block_of(&m->config, p) != block) continue;
        error += calibration_phase(m, k, p, b, learn);
    }
    return error;
}

/* The sum of their errors on all rows. */
static __attribute__((unused)) double calibration_error(Golf *m, const Calibration *k,
                                                        int block) {
    double error = 0;
    for (int b = 0; b < k->batches; b++) error += calibration_phases(m, k, block, b, 0);
    return error / k->batches;
}

/* m->grad becomes that of the masters, of their errors on batch b. */
static __attribute__((unused)) void calibration_gradient(Golf *m, const Calibration *k,
                                                         int block, int b) {
    memset(m->grad, 0, m->n_params * sizeof(real));
    calibration_phases(m, k, block, b, 1);
    EACH_SYSTEM(s, m) {
        if ((*s)->fold) (*s)->fold(m);
    }
    masters_backward(m, m->grad);
}

/* A step, counted from 0, of AdamW for copy `copy` (-1: all) of the tensors of which
 * `trains` says so; the decay is decoupled, as in the core's golf_adamw. */
static __attribute__((unused)) void calibration_adamw(Golf *m,
                                                      int (*trains)(const Tensor *t),
                                                      int copy, int step, double rate,
                                                      double decay) {
    const double beta1 = 0.9, beta2 = 0.999;
    const real b1 = (real)beta1, b2 = (real)beta2;
    const real c1 = (real)(1 / (1 - pow_of(beta1, step + 1)));
    const real c2 = (real)(1 / (1 - pow_of(beta2, step + 1)));
    const real lr = (real)rate, keep = (real)(1 - rate * decay);

    EACH_TENSOR(t, m) {
        if (!is_stored(t) || !trains(t)) continue;
        const size_t at = t->at + (copy < 0 ? 0 : (size_t)copy * t->copy_n);
        FOR_RANGE(i, at, copy < 0 ? t->n : t->copy_n) {
            const real g = m->grad[i];
            m->moment1[i] = b1 * m->moment1[i] + (1 - b1) * g;
            m->moment2[i] = b2 * m->moment2[i] + (1 - b2) * g * g;
            m->master[i] =
                keep * m->master[i] -
                lr * m->moment1[i] * c1 / (sqrt(m->moment2[i] * c2) + (real)1e-8);
        }
    }
}

/* What --NAME_steps and --NAME_rows say must fit together. */
static __attribute__((unused)) void calibration_check(const Config *c, int steps,
                                                      int rows, const char *name) {
    char option[64], parent[64];
    snprintf(option, sizeof option, "%s_rows", name);
    snprintf(parent, sizeof parent, "%s_steps", name);
    option_needs(c, option, steps > 0, parent);
    /* a group may have no rows: config_check has not refused that yet */
    if (steps && (c->batch % c->accum || rows % group_rows(c)))
        die("--%s=%d: expected a multiple of --batch=%d / --accum=%d", option, rows,
            c->batch, c->accum);
}

#endif
