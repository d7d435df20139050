/* eval --noise and --drift (dev/studies/4_drift): errors of the size EPS in a model that was loaded.
 * Part of train_golf.c, which includes it. */
void golf_perturb(Golf *m, double drift, double noise) {
    for (Tensor *t = m->t; noise > 0 && t < m->t + N_TENSORS; t++) {
        const uint64_t key = hash64(0x6E6F697365, crc32_of(0, t->name, strlen(t->name)));
        for (int j = 0; t->role == PROJ && j < t->stored_copies; j++) {
            const size_t at = t->at + j * t->copy_n;
            const double mean = block_sum(m->eff + at, t->copy_n, 0) / (double)t->copy_n;
            const int step = ternary(t) && grid_scales(t) == 1; /* or several, or none */
            const double size = noise * (step ? (double)*scale_of(m, t, j) : mean);
            FOR_RANGE(i, at, t->copy_n) m->eff[i] += (real)(size * normal01(key, i - t->at));
        }
        if (t->role == PROJ) t->quant = quantizers + Q_BF16, t->bits = 16; /* no codes any more */
    }
    golf_pack(m);
    for (int p = 0; p < m->phases; p++) /* h = mix0 * h + ... with the drift in mix0 */
        for (int i = 0; i < m->c.width; i++)
            m->ix[p * m->n_x + m->t[T_mix0].at_x + i] *= (real)(1 + drift);
}
