/* low_rank.h - the best approximation of a matrix by one of lower rank, for systems that
 * start from trained weights. In double; it runs once, on matrices that are small.
 *
 * Every matrix is W = U S V^T, its singular value decomposition: the columns of U and
 * of V are orthonormal, S is diagonal, and no number of it is negative. What is left
 * of the product after the r largest of these is the nearest matrix of rank r (Eckart
 * and Young, 1936). As W^T W = V S^2 V^T and W W^T = U S^2 U^T, one side is the
 * eigenvectors of a symmetric matrix, the smaller of these two, and the other side is
 * W V = U S or U^T W = S V^T. Eigenvectors are found by Jacobi's rotations (1846):
 * simple, exact to rounding, and n^3 work for each of about ten sweeps. */
#ifndef GOLF_LOW_RANK_H
#define GOLF_LOW_RANK_H

/* Rotates two rows or columns of n numbers, `step` apart:
 * x' = a x - b y,  y' = b x + a y */
static inline void rotate_pair(double *x, double *y, int n, int step, double a,
                               double b) {
    for (int i = 0; i < n; i++) {
        const double was = x[i * step];
        x[i * step] = a * was - b * y[i * step];
        y[i * step] = b * was + a * y[i * step];
    }
}

/* Is what stands beside the diagonal of s (n,n) no more than rounding? */
static inline int is_diagonal(const double *s, int n) {
    double beside = 0, all = 0;
    for (int i = 0; i < n * n; i++) {
        const double square = s[i] * s[i];
        all += square;
        if (i % (n + 1)) beside += square;
    }
    return beside <= 1e-28 * all;
}

/* Turns axes p and q of s (n,n), and those of v, so that s[p][q] and s[q][p] become 0. */
static inline void jacobi_rotate(double *s, double *v, int n, int p, int q) {
    const double theta = (s[q * n + q] - s[p * n + p]) / (2 * s[p * n + q]);
    const double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    const double a = 1 / sqrt(t * t + 1), b = t * a;
    rotate_pair(s + p * n, s + q * n, n, 1, a, b); /* rows */
    rotate_pair(s + p, s + q, n, n, a, b);         /* columns */
    rotate_pair(v + p, v + q, n, n, a, b);
}

/* Eigenvectors of the symmetric matrix s (n,n), as columns of v (n,n); the eigenvalues
 * are left on the diagonal of s. A sweep turns every pair of axes once. What one turn
 * made 0 another may fill again, but the sum of squares beside the diagonal shrinks
 * with every turn, in the end very fast. */
static __attribute__((unused)) void eigenvectors(double *s, double *v, int n) {
    for (int i = 0; i < n * n; i++) v[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < 40; sweep++) {
        if (is_diagonal(s, n)) return;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++)
                if (s[p * n + q] != 0) jacobi_rotate(s, v, n, p, q);
    }
}

/* pick (count): which of the n numbers on the diagonal of s (n,n) are the largest, the
 * largest first. count <= n */
static __attribute__((unused)) void pick_largest(const double *s, int n, int count,
                                                 int *pick) {
    uint8_t *used = xcalloc((size_t)n, 1);

    for (int k = 0; k < count; k++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            if (used[i]) continue;
            if (best < 0 || s[i * (n + 1)] > s[best * (n + 1)]) best = i;
        }
        used[best] = 1;
        pick[k] = best;
    }
    free(used);
}

/* A matrix with its smaller side first: element (i,k) is w[i * step + k * across]. */
typedef struct {
    const double *w;
    int n, other; /* i < n, k < other */
    size_t step, across;
} SmallerFirst;

/* s (n,n) = the products of each two rows of w */
static inline void products_of_rows(double *s, const SmallerFirst *w) {
    const int n = w->n;

#pragma omp parallel for
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            const double *x = w->w + (size_t)i * w->step;
            const double *y = w->w + (size_t)j * w->step;
            for (size_t k = 0; k < (size_t)w->other; k++)
                s[i * n + j] += x[k * w->across] * y[k * w->across];
        }
}

/* Column k of w times eigenvector e, a column of v (n,n). */
static inline double product_along(const SmallerFirst *w, const double *v, int e,
                                   size_t k) {
    double sum = 0;
    for (int i = 0; i < w->n; i++)
        sum += w->w[(size_t)i * w->step + k * w->across] * v[i * w->n + e];
    return sum;
}

/* b (rows,r) = U S and a (r,cols) = V^T of the r largest singular values of w
 * (rows,cols). Where there are no r of them, b has zeros and a stays as it was. */
static __attribute__((unused)) void low_rank(real *b, real *a, const double *w, int rows,
                                             int cols, int r) {
    const int wide = cols > rows, n = MIN(rows, cols);
    const size_t step = wide ? (size_t)cols : 1;
    const size_t across = wide ? 1 : (size_t)cols;
    const SmallerFirst x = {w, n, MAX(rows, cols), step, across};
    double *s = xcalloc((size_t)n * (size_t)n * 2, sizeof(double)); /* (n,n) */
    double *v = s + (size_t)n * (size_t)n;                          /* (n,n) */
    int *pick = xcalloc((size_t)r, sizeof(int));

    products_of_rows(s, &x);
    eigenvectors(s, v, n);
    pick_largest(s, n, MIN(r, n), pick);

    for (int i = 0; i < rows * r; i++) b[i] = 0;
    for (int e = 0; e < MIN(r, n); e++) {
        const int column = pick[e];
        const double sigma = sqrt(fmax(s[column * n + column], 0));
        for (int i = 0; i < n; i++) { /* the side of the eigenvectors */
            const double at = v[i * n + column];
            if (wide) b[i * r + e] = (real)(at * sigma);
            else a[e * cols + i] = (real)at;
        }
        for (int k = 0; k < x.other; k++) { /* the other one */
            const double sum = product_along(&x, v, column, (size_t)k);
            if (!wide) b[k * r + e] = (real)sum;
            else if (sigma > 0) a[e * cols + k] = (real)(sum / sigma);
        }
    }
    free(s);
    free(pick);
}

#endif
