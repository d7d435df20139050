/* certify.h - `eval --certify=SEED`: is the score one, of this file and this text? Every
 * evaluation here is golf_eval's, a black box, with a model that is read from the file
 * anew. What is found is printed, a key and a value a line, the keys behind the name of the
 * score; the last line is `certified yes`, or `certified no` with exit status 1. `train
 * --certify=SEED` does the same with the score that a run ends with; the lines are
 * "certificate" in its result.json.
 *
 *   file_alone  the file, read again, gives the printed score to the last bit
 *   once        every target is scored once, from the tokens before it, and the score is
 *               their sum; no more than a last partial row is left out; the bytes that it is
 *               divided by are those of the decoded text (where files give the bytes of
 *               each token: theirs)
 *   causal      a score depends on the tokens before it alone: behind a place all tokens
 *               become others, a document starts, the text ends elsewhere, and every score
 *               up to that place keeps its bits. Places: the first target, the last but
 *               one, the ends of the first row and of the rows that are scored first, and
 *               PLACES more by chance
 *   normalised  of a row by chance and the last one: exp(-score), had every piece of the
 *               vocabulary been the target in turn, sums to 1, and the score that counted
 *               is one of these, to the bit. Up to PASSES / vocabulary tokens of a row, as
 *               each piece is a forward pass
 *
 * What learns from scored text (System.learn) is in the box, and has lines of its own. */
enum { PLACES = 12, FIRST_PLACES = 4, ROWS_TO_SUM = 2, PASSES = 1 << 18 };
#define SUM_TOLERANCE 1e-5

typedef struct {
    const Scoring *what;
    uint64_t key;
    int *text; /* (tokens) the first of them is no target */
    int64_t tokens;
    int seq;
    /* of the evaluation that is going on */
    const int *given; /* its text */
    int64_t given_tokens;
    real *loss;                  /* (tokens) of each target */
    uint8_t *times;              /* (tokens) how often it was scored */
    int64_t misread;             /* inputs and targets that are not those of the text */
    int64_t first_end;           /* the last target of the rows that are scored first */
    int64_t row_of[ROWS_TO_SUM]; /* targets whose rows are summed; 0: none */
    int sum_row[ROWS_TO_SUM];    /* these rows in the last pass, from 1; 0: not there */
    /* what was found of rows */
    int64_t positions, other_scores;
    double worst;
} Certificate;

/* ---- What an evaluation tells: as a system, which joins its model. */
static void certificate_scored(Golf *m, int n, int64_t target) {
    Certificate *c = m->own[N_SYSTEMS];
    if (target < 1 || target >= c->given_tokens) {
        c->misread++;
        return;
    }
    c->loss[target] = m->loss[n];
    if (c->times[target] < UINT8_MAX) c->times[target]++;
    for (int k = 0; k < ROWS_TO_SUM; k++)
        if (target == c->row_of[k]) c->sum_row[k] = n / m->T + 1;
}

/* Sums exp(-score) over the vocabulary, for the first tokens of row b, whose scores start
 * at `scored`. */
static void sum_row(Golf *m, Certificate *c, const Rows *r, int b, const real *scored) {
    const int V = m->config.vocab, n = MIN(r->T, MAX(1, PASSES / V));
    const size_t from = (size_t)b * (size_t)r->T;
    double *sum = xcalloc((size_t)n, sizeof(double));
    int *target = xcalloc((size_t)n, sizeof(int));

    for (int v = 0; v < V; v++) {
        for (int i = 0; i < n; i++) target[i] = v;
        golf_forward(m, r->x + from, target, 1, n);
        for (int i = 0; i < n; i++) {
            sum[i] += exp_of(-(double)m->loss[i]);
            if (r->y[from + (size_t)i] != v) continue;
            c->other_scores += memcmp(m->loss + i, scored + i, sizeof(real)) != 0;
        }
    }
    for (int i = 0; i < n; i++) {
        const double off = fabs(sum[i] - 1);
        const int worse = !(off <= c->worst) && !isnan(c->worst); /* NaN is, and stays */
        if (worse) c->worst = off;
    }
    c->positions += n;
    free(sum);
    free(target);
}

static void certificate_rows(Golf *m, const Rows *r) {
    Certificate *c = m->own[N_SYSTEMS];
    const int N = r->B * r->T;
    real *scored =
        memcpy(xcalloc((size_t)N, sizeof(real)), m->loss, sizeof(real) * (size_t)N);
    for (int n = 0; n < N; n++) {
        const int64_t at = place_in_text(r, n);
        const int known = at >= 0 && at + 1 < c->given_tokens;
        c->misread += !known || r->x[n] != c->given[at] || r->y[n] != c->given[at + 1];
    }
    if (!r->at) c->first_end = (int64_t)(r->B - 1) * r->step + r->T;
    for (int k = 0; k < ROWS_TO_SUM; k++) {
        const int b = c->sum_row[k] - 1;
        c->sum_row[k] = 0;
        if (b >= 0) sum_row(m, c, r, b, scored + (size_t)b * (size_t)r->T);
    }
    free(scored);
}

static const System certificate_system = {
    .name = "certificate", .scored = certificate_scored, .learn = certificate_rows};

/* ---- Evaluations. */
/* Before what learns from rows, which then are not as they were scored any more. */
static Score certificate_eval(Certificate *c, Shards *val, const int *text,
                              int64_t tokens, int64_t limit) {
    const Scoring *what = c->what;
    Golf m;
    c->given = text;
    c->given_tokens = tokens;
    c->misread = 0;
    memset(c->times, 0, (size_t)c->tokens);

    golf_load(&m, what->path);
    ready_to_score(&m, what->how);
    c->seq = m.config.seq;
    m.own[N_SYSTEMS] = c;
    join(&m, &certificate_system);
    if (what->by) what->by->again(&m, what->tok, what->how);
    const Score s = golf_eval(&m, what->tok, val, what->how->stride, limit);
    golf_free(&m);
    return s;
}

/* The same of a text that is in no shard. */
static Score eval_of_text(Certificate *c, const int *text, int64_t tokens) {
    FILE *f = tmpfile();
    uint8_t head[SHARD_HEADER] = {0}, *ids = xcalloc((size_t)tokens, 2);
    put_u(head, SHARD_MAGIC, 4);
    put_u(head + 4, 1, 4);
    put_u(head + 8, (uint64_t)tokens, 4);
    for (int64_t i = 0; i < tokens; i++) put_u(ids + 2 * i, (uint64_t)text[i], 2);
    const Part parts[] = {{head, sizeof head}, {ids, 2 * (size_t)tokens}};
    if (!f || !put_parts(f, parts, 2))
        die("--certify needs a temporary file of %lld bytes: %s; make room in /tmp",
            SHARD_HEADER + 2 * (long long)tokens, strerror(errno));

    Shard one = {.path = "a text with other tokens", .fd = fileno(f), .tokens = tokens};
    Shards val = {.shard = &one, .count = 1, .vocab = c->what->tok->vocab};
    val.tokens = tokens;
    val.bytes = c->what->val->bytes;
    const Score s = certificate_eval(c, &val, text, tokens, 0);
    fclose(f);
    free(ids);
    return s;
}

/* ---- Every byte once. */
/* Bytes of the text of a document: tokens [from, to), none of them a control piece. */
static int64_t document_bytes(const Tokenizer *tok, const int *text, int64_t from,
                              int64_t to) {
    size_t len = 0;
    if (from == to) return 0;
    free(tokenizer_decode(tok, text + from, (size_t)(to - from), &len));
    const int drops = tok->dummy_space || tok->trim_spaces; /* decoding does, then */
    return (int64_t)len - (!drops && tok->piece[text[from]].leading_space);
}

/* Bytes of the text that tokens [1, total] stand for: decoded, document by document. The
 * space that a document starts with does not count, as in Parameter Golf. */
static int64_t decoded_bytes(const Tokenizer *tok, const int *text, int64_t total) {
    int64_t from = 0, sum = 0;
    for (int64_t i = 0; i <= total; i++) {
        if (tok->piece[text[i]].type != PIECE_CONTROL) continue;
        sum += document_bytes(tok, text, from, i);
        from = i + 1;
    }
    sum += document_bytes(tok, text, from, total + 1);
    if (tok->piece[text[0]].type == PIECE_CONTROL) return sum;
    return sum - document_bytes(tok, text, 0, 1); /* it is no target */
}

/* Files of bytes say it themselves, where there are some. */
static int64_t bytes_of_text(const Certificate *c, int64_t total) {
    const Shards *bytes = c->what->val->bytes;
    return bytes ? given_bytes(bytes, total)
                 : decoded_bytes(c->what->tok, c->text, total);
}

/* ---- What is found, and its lines. */
static const char *name_of_score(const Scoring *what) {
    return what->by ? what->by->name : "val";
}

static void say_count(const Certificate *c, const char *key, int64_t count) {
    fprintf(c->what->to, "%s_%s %lld\n", name_of_score(c->what), key, (long long)count);
}

static int say_verdict(const Certificate *c, const char *key, int good) {
    fprintf(c->what->to, "%s_%s %s\n", name_of_score(c->what), key, good ? "yes" : "no");
    return good;
}

/* What systems were asked for, in one line, if anything. */
static void say_options(FILE *to, const Config *how) {
    int said = 0;
    EACH_OPTION(o) {
        char text[64];
        if (!(o->mask & EVAL) || !of_system(o) || at_default(how, o)) continue;
        fprintf(to, "%s%s=%s", said ? " " : "options ", o->name,
                option_text(how, o, text));
        said = 1;
    }
    if (said) fputc('\n', to);
}

/* Which file and which tokens, scored how. */
static void say_subject(const Certificate *c) {
    size_t n;
    uint32_t crc = 0;
    uint8_t *file = read_file(c->what->path, &n);
    for (int64_t i = 0; i < c->tokens; i++) {
        uint8_t id[2];
        put_u(id, (uint64_t)c->text[i], 2);
        crc = crc32_of(crc, id, 2);
    }
    FILE *to = c->what->to;
    fprintf(to, "model_bytes %zu\nmodel_crc32 %08x\n", n, crc32_of(0, file, n));
    fprintf(to, "text_tokens %lld\ntext_crc32 %08x\n", (long long)c->tokens, crc);
    say_options(to, c->what->how);
    free(file);
}

/* Is the score what the evaluation that was just made adds up to? */
static int is_their_sum(const Certificate *c, const Score *s, int64_t bytes) {
    double nll = 0;
    for (int64_t i = 1; i <= s->tokens; i++) nll += (double)c->loss[i];
    return s->nll == nll && s->loss == nll / (double)s->tokens && s->bytes == bytes &&
           s->bpb == nll / log_of(2) / (double)bytes;
}

/* Of that evaluation. */
static int certify_once(const Certificate *c, const Score *s) {
    const int64_t last = c->tokens - 1, left = last - s->tokens;
    const int64_t text_bytes = left < 0 ? 0 : bytes_of_text(c, s->tokens);
    const int row = c->what->how->stride ? 1 : c->seq;
    int64_t as_often = 0;
    for (int64_t i = 1; i <= last; i++) as_often += c->times[i] == (i <= s->tokens);
    say_count(c, "targets", s->tokens);
    say_count(c, "left_out", left);
    say_count(c, "bytes", s->bytes);
    say_count(c, "text_bytes", text_bytes);
    const int all = as_often == last && !c->misread && left >= 0 && left < row;
    return say_verdict(c, "once", all && is_their_sum(c, s, text_bytes));
}

/* A place k in the text, of which the score has `total` targets. */
static int64_t place_of(const Certificate *c, int k, int64_t total) {
    const int64_t first[FIRST_PLACES] = {1, c->seq, c->first_end, total - 1};
    const int64_t drawn = 1 + (int64_t)(hash64(c->key, (uint64_t)k) % (uint64_t)total);
    const int64_t place = k < FIRST_PLACES ? first[k] : drawn;
    return MAX(1, MIN(place, total - 1));
}

/* to (n) = the text up to `place`, then other tokens; of every second k a document. */
static void other_text(const Certificate *c, int *to, int64_t n, int64_t place, int k) {
    const Tokenizer *tok = c->what->tok;
    const uint64_t others = (uint64_t)MAX(1, tok->vocab - 1);
    for (int64_t i = 0; i < n; i++) {
        const int shift = 1 + (int)(hash64(c->key + (uint64_t)k, (uint64_t)i) % others);
        to[i] = i <= place ? c->text[i] : (c->text[i] + shift) % tok->vocab;
    }
    if (k % 2 && tok->bos >= 0 && place + 1 < n && c->text[place + 1] != tok->bos)
        to[place + 1] = tok->bos;
}

/* How many scores up to this place differ when what follows it does. */
static int64_t changed_scores(Certificate *c, const real *loss, int64_t place, int k) {
    const int64_t n = MIN(c->tokens, place + 2 * c->first_end + 1);
    int *other = xcalloc((size_t)n, sizeof(int));
    int64_t changed = 0;
    other_text(c, other, n, place, k);
    eval_of_text(c, other, n);
    for (int64_t i = 1; i <= place; i++)
        changed += c->times[i] != 1 || memcmp(c->loss + i, loss + i, sizeof(real));
    free(other);
    return changed;
}

static int certify_causal(Certificate *c, int64_t total) {
    const size_t bytes = (size_t)c->tokens * sizeof(real);
    real *loss = memcpy(xcalloc((size_t)c->tokens, sizeof(real)), c->loss, bytes);
    int64_t compared = 0, changed = 0;
    for (int k = 0; k < FIRST_PLACES + PLACES; k++) {
        const int64_t place = place_of(c, k, total);
        compared += place;
        changed += changed_scores(c, loss, place, k);
    }
    free(loss);
    say_count(c, "causal_places", FIRST_PLACES + PLACES);
    say_count(c, "causal_scores", compared);
    say_count(c, "causal_changed", changed);
    return say_verdict(c, "causal", !changed);
}

static int certify_normalised(Certificate *c, int64_t total) {
    c->row_of[0] = 1 + (int64_t)(hash64(c->key, PLACES) % (uint64_t)total);
    c->row_of[1] = total;
    certificate_eval(c, c->what->val, c->text, c->tokens, c->what->how->val_tokens);
    const int good = c->positions && c->worst <= SUM_TOLERANCE && !c->other_scores;
    say_count(c, "sums", c->positions);
    fprintf(c->what->to, "%s_sums_off %.2g of %g\n", name_of_score(c->what), c->worst,
            SUM_TOLERANCE);
    return say_verdict(c, "normalised", good);
}

static int same_score(const Score *a, const Score *b) {
    return a->nll == b->nll && a->tokens == b->tokens && a->bytes == b->bytes;
}

/* Is the score that was printed one? Writes the lines. */
static int certify(const Scoring *what, const Score *printed) {
    const int64_t all = what->val->tokens - 1, limit = what->how->val_tokens;
    Certificate c = {.what = what, .key = hash64((uint64_t)what->how->certify, 7)};
    c.tokens = 1 + (limit > 0 && limit < all ? limit : all);
    c.text = xcalloc((size_t)c.tokens, sizeof(int));
    c.loss = xcalloc((size_t)c.tokens, sizeof(real));
    c.times = xcalloc((size_t)c.tokens, 1);
    for (int64_t at = 0; at < c.tokens; at += 1 << 20)
        shards_read(what->val, at, (int)MIN(1 << 20, c.tokens - at), c.text + at);

    if (!what->by) say_subject(&c);
    const Score s = certificate_eval(&c, what->val, c.text, c.tokens, limit);
    int good = say_verdict(&c, "file_alone", same_score(&s, printed));
    good &= certify_once(&c, &s);
    good &= certify_causal(&c, s.tokens);
    good &= certify_normalised(&c, s.tokens);
    free(c.text);
    free(c.loss);
    free(c.times);
    return good;
}

/* ---- Of a run: the lines as result.json has them. */
static void put_certificate(FILE *f, const char *lines, int seed) {
    char *copy = strdup(lines), *save;
    fprintf(f, "  \"certificate\": {\"seed\": \"%d\"", seed);
    for (char *line = strtok_r(copy, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *value = strchr(line, ' ');
        *value++ = 0;
        fputs(", ", f);
        put_json_pair(f, line, value);
    }
    fputs("},\n", f);
    free(copy);
}

/* Proves the score that a run ends with. Returns the lines, the last one the verdict. */
static char *certificate_of_run(const char *path, const Config *c, const Tokenizer *tok,
                                Shards *val, const Score *s, int *good) {
    char *lines;
    size_t len;
    FILE *to = open_memstream(&lines, &len);
    if (!to) die("out of memory");
    const Scoring what = {.path = path, .how = c, .tok = tok, .val = val, .to = to};
    *good = certify(&what, s);
    fprintf(to, "certified %s\n", *good ? "yes" : "no");
    if (fclose(to)) die("out of memory");
    return lines;
}
