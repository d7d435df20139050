/* distill.h - knowledge distillation (1503.02531) of one token: for systems whose aim is in
 * part that a model predicts what another one does. */
#ifndef GOLF_DISTILL_H
#define GOLF_DISTILL_H

/* KL(p || q) of a token with the target y: the model's logits l (V), the teacher's
 * `other` (V), and their log-sum-exps. other becomes what the gradient of the aim adds
 * to that of cross-entropy: W (onehot - p), through the softcap; W the teacher's part,
 * dloss the gradient of a token's loss. */
static __attribute__((unused)) real teach_token(real *other, real other_lse,
                                                const real *l, real lse, int y, real W,
                                                real dloss, int V) {
    const real cap2 = 1 / (SOFTCAP * SOFTCAP);
    real kl = 0;

    for (int k = 0; k < V; k++) {
        const real p = (real)exp_of((double)(other[k] - other_lse));
        kl += p * ((other[k] - other_lse) - (l[k] - lse));
        other[k] = -W * dloss * p * (1 - l[k] * l[k] * cap2);
    }
    other[y] += W * dloss * (1 - l[y] * l[y] * cap2);
    return kl;
}

#endif
