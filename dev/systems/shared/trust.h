/* trust.h - the trust mask of QuEST (2502.05003), for any grid: the gradient of a number
 * passes where rounding and clipping moved it by at most half a step. Inside the grid
 * they never move it further; outside, the mask ends half a step beyond the outermost
 * level. With 1 bit that would be at twice the level: there the paper ends it at 1.3
 * times the level, or 1.25 without a rotation (A.2). */
#ifndef GOLF_TRUST_H
#define GOLF_TRUST_H

/* mask, w (n); s: the step. t->extra[0]: how many numbers were rotated together before
 * they were rounded; 0 or 1: none were. */
static __attribute__((unused)) void trust_passes(uint8_t *mask, const real *w, int n,
                                                 real s, const Tensor *t) {
    const real edge = s * ((real)grid_top(t) + (real)t->half / 2); /* outermost level */
    const real narrow = t->extra[0] > 1 ? (real)1.3 : (real)1.25;
    const real inside = t->bits == 1 ? narrow * edge : edge + s / 2;
    FOR_COLUMNS(i, n) mask[i] = fabs(w[i]) <= inside;
}

#endif
