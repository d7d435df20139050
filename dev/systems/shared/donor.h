/* donor.h - for systems that start from a trained model: its weights, phase by phase. */
#ifndef GOLF_DONOR_H
#define GOLF_DONOR_H

/* Tensor k of a model or of its donor: the masters (rows,cols) of the copy that phase p
 * uses. */
static __attribute__((unused)) real *masters_of(const Golf *m, int k, int p) {
    const Tensor *t = m->tensor + k;
    return m->master + t->at + (size_t)copy_of(m, t, p) * t->copy_n;
}

#endif
