/* high_bits.h - projections in more bits than the others, for the systems that have such. */
#ifndef HIGH_BITS_H
#define HIGH_BITS_H

/* Integers of 3 to 8 bits with a scale per row (with --wscale=group per group), or bf16
 * numbers: 16. They count as protected bytes. */
static __attribute__((unused)) void store_in_high_bits(const Config *c, Tensor *t,
                                                       int bits) {
    const int per = c->wscale == SCALE_GROUP ? SCALE_GROUP : SCALE_ROW;
    t->ledger = LEDGER_PROTECTED;
    if (bits == 16) store_as(t, quantizers + Q_BF16, bits, per);
    else store_as(t, quantizers + Q_INT, bits, per);
}

#endif
