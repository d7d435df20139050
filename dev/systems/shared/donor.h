/* donor.h - for systems that start from a trained model: its weights, phase by phase. */
#ifndef GOLF_DONOR_H
#define GOLF_DONOR_H

/* Where the copy (rows,cols) of tensor k that phase p uses starts in the arenas. */
static inline size_t copy_at(const Golf *m, int k, int p) {
    const Tensor *t = m->tensor + k;
    return t->at + (size_t)copy_of(m, t, p) * t->copy_n;
}

/* What phase p of a model multiplies with: what is fitted to a donor is fitted to this,
 * not to its masters, of which it computes with what a quantizer made. Also of VIRTUAL
 * tensors, which have no masters. */
static __attribute__((unused)) const real *weights_of(const Golf *m, int k, int p) {
    return m->eff + copy_at(m, k, p);
}

/* The masters of a model in training. */
static __attribute__((unused)) real *masters_of(const Golf *m, int k, int p) {
    return m->master + copy_at(m, k, p);
}

#endif
