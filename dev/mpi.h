/* mpi.h - part of train_golf.c built with make MPI=1: ranks, processes that train one model
 * together, on one machine or on many.
 *
 *     mpirun -n K ./train_golf_mpi train ... --accum=G        K: a power of two, at most G
 *
 * The gradient of a step is a binary tree over its G groups (groups_backward). Rank k computes
 * the k-th of the K subtrees that are as large as G / K groups; here ranks go on with the same
 * means, neighbours first. So every number is that of one process, to the last bit, whatever K.
 *
 * Every rank has the whole model and does all that a run does. Shared are the groups; the
 * products of Muon, which are as much work for any batch; and the rows of an evaluation, whose
 * losses are added by all ranks, in the order of the text. AdamW takes less time on all numbers
 * than it takes to send a part of them: every rank does it all.
 *
 * Numbers sent and received by a rank in a step, of n: 2 n (K-1)/K for the gradient, and one
 * time those of Muon's matrices, (K-1)/K. Messages: 3 log2 K, and log2 K for the loss.
 * Nothing is sent before the backward pass is over: the gradient of a block is complete only
 * with its first application, that of the embedding at the very end, and of G / K groups only
 * the last could hide it.
 *
 * An error ends all ranks: MPI_Abort, or mpirun when a rank is killed. Files are those of the
 * last checkpoint then. A signal that one rank gets (SIGINT, SIGTERM, SIGUSR1) stops all after
 * the same step, with a checkpoint. mpirun passes SIGUSR1 on; what ends mpirun itself leaves
 * ranks a second, which is enough for small models. --resume=1 goes on with any K. */
#include <mpi.h>

#define NUMBER MPI_FLOAT
_Static_assert(sizeof(real) == sizeof(float), "ranks send floats");

enum { MOST_RANKS = 1024, MOST_SENT = 1 << 20 }; /* MOST_SENT: numbers in a message */

/* For `bench`: in all, and the steps that they are of. */
static struct {
    double bytes, messages, seconds, waiting;
    int steps;
} rank_costs;

/* ---- The end of a rank. */
static int rank_failed;

static void ranks_end(void) {
    if (rank_failed && n_ranks > 1) MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    MPI_Finalize();
}

/* Rank 0 ends the others before they have waited so long, even if they heed no signal for a
 * second; of those with an error that it has not, the first does. */
static void ranks_error(void) {
    const double until = now() + (my_rank ? 2 + (double)my_rank / n_ranks : 0);
    rank_failed = 1;
    while (now() < until) usleep(10000);
    if (n_ranks > 1) fprintf(stderr, "rank %d of %d: ", my_rank, n_ranks);
}

/* ---- Messages. */
static int ranks_most(int x) {
    MPI_Allreduce(MPI_IN_PLACE, &x, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return x;
}

/* Rank 0's bytes, in messages of at most 1 GB. */
static void from_first(void *data, size_t n) {
    for (size_t at = 0; at < n; at += 1 << 30)
        MPI_Bcast((char *)data + at, (int)MIN(n - at, 1 << 30), MPI_BYTE, 0,
                  MPI_COMM_WORLD);
}

static uint8_t *ranks_read(const char *path, size_t *len) {
    uint8_t *file = my_rank ? NULL : read_file(path, len);
    from_first(len, sizeof *len);
    if (my_rank) file = xcalloc(*len, 1);
    from_first(file, *len);
    return file;
}

/* Sends numbers to a rank and receives others from it. */
static void exchange(int with, const real *out, size_t n_out, real *in, size_t n_in) {
    for (size_t at = 0; at < MAX(n_out, n_in); at += MOST_SENT) {
        const int send = at < n_out ? (int)MIN(n_out - at, MOST_SENT) : 0;
        const int receive = at < n_in ? (int)MIN(n_in - at, MOST_SENT) : 0;
        MPI_Sendrecv(out + at, send, NUMBER, with, 0, in + at, receive, NUMBER, with, 0,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        rank_costs.bytes += (double)send * sizeof(real);
        rank_costs.messages++;
    }
}

/* ---- Arrays in `n_ranks` parts: part p is [start[p], start[p + 1]). Its owner is the rank whose
 * bits are those of p in reverse: what neighbours share is then one stretch. */
static int reversed(int x) {
    int r = 0;
    for (int bit = 1; bit < n_ranks; bit *= 2) r = 2 * r + !!(x & bit);
    return r;
}

/* x becomes the mean over all ranks, where this rank's part is. Ranks 2i and 2i + 1 exchange
 * halves of the array, and have the means of two; then 4i and 4i + 2, 4i + 1 and 4i + 3
 * quarters of it; ... */
static void mean_of_parts(real *x, const size_t *start) {
    const int part = reversed(my_rank);
    real *other = xcalloc(start[n_ranks] / 2 + 1, sizeof(real));
    for (int parts = n_ranks / 2; parts > 0; parts /= 2) { /* in a stretch */
        const int mine = part & -parts, theirs = mine ^ parts;
        const size_t n = start[mine + parts] - start[mine];
        real *to = x + start[mine];
        exchange(reversed(part ^ parts), x + start[theirs],
                 start[theirs + parts] - start[theirs], other, n);
        FOR_RANGE(i, 0, n) to[i] = (to[i] + other[i]) / 2;
    }
    free(other);
}

/* Each rank has its part of x; now all have all. */
static void gather_parts(real *x, const size_t *start) {
    const int part = reversed(my_rank);
    for (int parts = 1; parts < n_ranks; parts *= 2) {
        const int mine = part & -parts, theirs = mine ^ parts;
        exchange(reversed(part ^ parts), x + start[mine],
                 start[mine + parts] - start[mine], x + start[theirs],
                 start[theirs + parts] - start[theirs]);
    }
}

/* Of n things, equally many in each part. */
static void equal_parts(size_t *start, size_t n) {
    for (int p = 0; p <= n_ranks; p++)
        start[p] = n / (size_t)n_ranks * (size_t)p +
                   n % (size_t)n_ranks * (size_t)p / (size_t)n_ranks;
}

/* ---- A step. */
/* `bench` asks how long this rank waits for the slowest. Returns when it has waited. */
static double wait_for_all(void) {
    const double t = now();
    if (part_timing) MPI_Barrier(MPI_COMM_WORLD);
    rank_costs.waiting += now() - t;
    return now();
}

static double ranks_mean(Golf *m, double loss) {
    size_t start[MOST_RANKS + 1];
    const double t = wait_for_all();
    equal_parts(start, m->n_params);
    mean_of_parts(m->grad, start);
    gather_parts(m->grad, start);
    for (int apart = 1; apart < n_ranks; apart *= 2) {
        double other;
        MPI_Sendrecv(&loss, 1, MPI_DOUBLE, my_rank ^ apart, 1, &other, 1, MPI_DOUBLE,
                     my_rank ^ apart, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        loss = (loss + other) / 2;
        rank_costs.messages++;
    }
    rank_costs.seconds += now() - t;
    rank_costs.steps++;
    return loss;
}

/* Multiply-adds of a step of Muon's five for a copy, in units that do not matter; 0: it is not
 * Muon's. */
static double muon_work(const Golf *m, const Tensor *t) {
    const int rows = t->muon_parts ? t->rows / t->muon_parts : t->rows;
    const double tall = MAX(rows, t->cols), k = MIN(rows, t->cols);
    if (!is_for_muon(&m->config, t) || !t->n) return 0;
    return k * k * (2 * tall + k) * t->rows / rows;
}

/* The matrices stand one behind another: part p has those of which the middle of the work is
 * in the p-th of `n_ranks` equal parts of all work. */
static int part_of_matrix(const Golf *m, const Tensor *matrix, int copy) {
    double all = 0, before = 0;
    EACH_TENSOR(t, m) {
        if (t == matrix) before = all;
        all += muon_work(m, t) * t->stored_copies;
    }
    before += (copy + 0.5) * muon_work(m, matrix);
    return (int)(before / all * n_ranks);
}

static int ranks_own(const Golf *m, const Tensor *t, int copy) {
    return n_ranks == 1 || part_of_matrix(m, t, copy) == reversed(my_rank);
}

/* What stands between the first matrix of a part and that of the next; there all ranks have
 * the same. */
static void muon_parts(const Golf *m, size_t *start) {
    int part = 0;
    size_t end = 0;
    EACH_TENSOR(t, m) {
        const int copies = muon_work(m, t) > 0 ? t->stored_copies : 0;
        for (int copy = 0; copy < copies; copy++) {
            const size_t at = t->at + (size_t)copy * t->copy_n;
            while (part <= part_of_matrix(m, t, copy)) start[part++] = at;
            end = at + t->copy_n;
        }
    }
    while (part <= n_ranks) start[part++] = end;
}

static void gather_matrices(const Golf *m, real *x) {
    size_t start[MOST_RANKS + 1];
    muon_parts(m, start);
    gather_parts(x, start);
}

static void ranks_share(Golf *m) {
    const double t = wait_for_all();
    gather_matrices(m, m->master);
    rank_costs.seconds += now() - t;
}

static void ranks_report(void) {
    const double steps = rank_costs.steps;
    if (n_ranks == 1) return;
    printf(
        "%d ranks: in a step rank 0 sends %.0f bytes in %.0f messages and receives as much, "
        "in %.2f ms;\nbefore that it waits %.2f ms for the others (both: in the optimizer "
        "and the rest)\n",
        n_ranks, rank_costs.bytes / steps, rank_costs.messages / steps,
        1e3 * rank_costs.seconds / steps, 1e3 * rank_costs.waiting / steps);
}

/* ---- An evaluation. */
static const real *ranks_losses(Golf *m, const Rows *r) {
    static real *loss;
    size_t row[MOST_RANKS + 1];
    const size_t T = (size_t)r->T;
    const int part = reversed(my_rank);

    equal_parts(row, (size_t)r->B);
    const size_t first = row[part], rows = row[part + 1] - first;
    if (rows) golf_forward(m, r->x + first * T, r->y + first * T, (int)rows, r->T);
    free(loss);
    loss = xcalloc((size_t)r->B * T, sizeof(real));
    memcpy(loss + first * T, m->loss, rows * T * sizeof(real));
    for (int p = 0; p <= n_ranks; p++) row[p] *= T;
    gather_parts(loss, row);
    return loss;
}

/* ---- What must be the same. */
/* Those that have another value than rank 0 die; nobody goes on before all have compared. */
static void agree(const char *what, uint64_t mine, const char *advice) {
    uint64_t first = mine;
    from_first(&first, sizeof first);
    if (mine != first)
        die("expected the %s of rank 0 (%llx), found others (%llx); %s", what,
            (unsigned long long)first, (unsigned long long)mine, advice);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* 0 where there is no /proc. */
static uint32_t crc_of_program(void) {
    const char *program = "/proc/self/exe";
    return access(program, R_OK) ? 0 : crc_of_file(program);
}

/* Files in their order, each by one thread. */
static uint64_t crc_of_shards(const Shards *s) {
    uint32_t *crc = xcalloc((size_t)s->count, sizeof *crc);
    uint64_t key = (uint64_t)s->tokens;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < s->count; i++) crc[i] = crc_of_file(s->shard[i].path);
    for (int i = 0; i < s->count; i++) key = hash64(key, crc[i]);
    free(crc);
    return s->bytes ? hash64(key, crc_of_shards(s->bytes)) : key;
}

/* Before anything that the arguments decide: what ranks do together they must all do. */
static void same_arguments(char **argv) {
    char mine[8192] = "", first[8192];
    for (char **word = argv + 1; *word; word++) {
        const size_t len = strlen(mine);
        snprintf(mine + len, sizeof mine - len, " %s", *word);
    }
    memcpy(first, mine, sizeof mine);
    from_first(first, sizeof first);
    if (strcmp(mine, first))
        die("expected the arguments of rank 0,%s, found%s; give all ranks the same",
            first, mine);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void ranks_start(char **argv) {
    int threads;
    const int bench = !strcmp(argv[1], "bench") && argv[2] && !strcmp(argv[2], "step");
    const int train = !strcmp(argv[1], "train") || !strncmp(argv[1], "--", 2);
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &threads);
    MPI_Comm_rank(MPI_COMM_WORLD, &my_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    atexit(ranks_end);
    signal(SIGUSR1, on_signal); /* mpirun passes it on to all ranks */
    if (my_rank && !freopen("/dev/null", "w", stdout)) die("/dev/null: cannot write");
    if (n_ranks == 1) return;
    agree("program", crc_of_program(), "copy one program to all machines");
    same_arguments(argv);
    if (!train && !bench)
        die("%d ranks share `train` and `bench step`, found '%s'; start it without mpirun",
            n_ranks, argv[1]);
    if (n_ranks > MOST_RANKS) die("%d ranks: expected at most %d", n_ranks, MOST_RANKS);
}

static void ranks_compare(const Config *c, const Shards *train, const Shards *val) {
    if (n_ranks == 1) return;
    agree("vocabulary", (uint64_t)c->vocab, "copy the tokenizer to all machines");
    if (c->accum % n_ranks)
        die("--accum=%d: %d ranks cannot share so many groups; start 1, 2, 4, ... ranks, at most "
            "that many, or raise --accum",
            c->accum, n_ranks);
    if (train)
        agree("training shards in --data", crc_of_shards(train),
              "copy them to all machines");
    if (val)
        agree("validation shards in --data", crc_of_shards(val),
              "copy them to all machines");
}

static void ranks_meet(const Golf *m) {
    const size_t bytes = m->n_params * sizeof(real);
    if (n_ranks == 1) return;
    gather_matrices(m, m->moment1);
    uint64_t key = hash64(m->tokenizer_crc, m->files_crc);
    key = hash64(key, (uint64_t)m->step << 32 | crc32_of(0, m->master, bytes));
    key = hash64(key, crc32_of(0, m->moment1, bytes));
    key = hash64(key, crc32_of(0, m->moment2, bytes));
    agree("weights, moments, tokenizer and donors", key,
          "a machine computes other bits (./train_golf selftest) or has other files");
}
