/* prepare: text files -> a BPE tokenizer and token shards, a folder that train_golf reads.

       prepare --out=DIR --name=NAME [--vocab=1024] [--tokenizer=FILE] [--seed=1]
               --train FILES... --val FILES...        one document per file; --train=@LIST reads
                                                      the file names from LIST, one a line

   The tokenizer is trained on the training text alone, or taken from --tokenizer. DIR appears,
   complete, when everything in it has been written and checked, or not at all. Its layout and the
   bytes of its files are drawn in README.md. */
#define GOLF_NO_MAIN
#include "../train_golf.c"

enum { FIRST_PIECE = 260,             /* pad, bos, eos, unk, 256 bytes: then what is learnt  */
       MIN_VOCAB = 300, MAX_VOCAB = 65535, SHARD_TOKENS = 100000000,
       MAX_PIECE = 64,                /* bytes of a learnt piece                             */
       MAX_WORD = 256 };              /* characters; longer words are cut, to bound the work */

#define PUSH(a, n, cap, x) do { \
        if ((n) == (cap)) (a) = grow((a), &(cap), sizeof *(a)); \
        (a)[(n)++] = (x); \
    } while (0)

static void *grow(void *a, size_t *cap, size_t size) {
    *cap = *cap ? 2 * *cap : 16;
    a = realloc(a, *cap * size);
    if (!a) die("out of memory: %zu x %zu bytes", *cap, size);
    return a;
}

typedef struct { const char *path; char *text; size_t len; } Doc;
typedef struct { Doc *doc; size_t n, cap; } Docs;

static void add_doc(Docs *d, const char *path) {
    Doc x = { .path = path };
    x.text = (char *)read_file(path, &x.len);
    PUSH(d->doc, d->n, d->cap, x);
}

static void add_list(Docs *d, const char *list) {
    size_t len;
    char *names = (char *)read_file(list, &len);        /* kept: the paths point into it */
    for (char *s = strtok(names, "\n"); s; s = strtok(NULL, "\n")) add_doc(d, s);
}

static size_t total_bytes(const Docs *d) {
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++) n += d->doc[i].len;
    return n;
}

/* ---------------------------------------------------------------------------- BPE training
   Byte pair encoding on the distinct words of the text, each with its count. The pair of
   neighbours that occurs most often becomes a piece, everywhere; repeat. A word starts at a space
   and holds no other; digits stay single.

   Only what earns its place becomes a piece. ASCII characters have one already, their byte; a
   character of b bytes saves b-1 tokens per occurrence and competes with the merges on that. */
typedef struct { char *s; int len; int sealed; } Sym;             /* sealed: merges with nothing */
typedef struct { int *sym; int n; int64_t count; } Word;
typedef struct { int left, right; size_t *word, n, cap; } Pairing; /* word[n]: words it is in     */

static struct {
    Sym *sym; size_t nsym, sym_cap;
    Word *word; size_t nword, word_cap;
    Pairing *pair; size_t npair, pair_cap;
    int64_t *count; size_t ncount, count_cap;                      /* of each pair: scanned often */
} bpe;

/* One hash table for three kinds of keys: index + 1 of a symbol, word or pair; 0 is free. */
typedef struct { size_t *slot, n, size; } Index;
static Index sym_index, word_index, pair_index;

static uint64_t hash_bytes(const void *p, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001B3u;
    return h ^ h >> 29;
}

static uint64_t hash_of(const Index *x, size_t i) {
    if (x == &sym_index) return hash_bytes(bpe.sym[i].s, (size_t)bpe.sym[i].len);
    if (x == &word_index)
        return hash_bytes(bpe.word[i].sym, (size_t)bpe.word[i].n * sizeof(int));
    return hash_bytes(&bpe.pair[i], 2 * sizeof(int));
}

static int same(const Index *x, size_t i, size_t j) {
    if (x == &sym_index)
        return bpe.sym[i].len == bpe.sym[j].len
            && !memcmp(bpe.sym[i].s, bpe.sym[j].s, (size_t)bpe.sym[i].len);
    if (x == &word_index)
        return bpe.word[i].n == bpe.word[j].n
            && !memcmp(bpe.word[i].sym, bpe.word[j].sym, (size_t)bpe.word[i].n * sizeof(int));
    return bpe.pair[i].left == bpe.pair[j].left && bpe.pair[i].right == bpe.pair[j].right;
}

/* Element i has just been pushed: the index of its equal, or i itself, now entered. */
static size_t intern(Index *x, size_t i) {
    if (2 * x->n >= x->size) {
        free(x->slot);
        x->size = x->size ? 2 * x->size : 1024;
        x->slot = xcalloc(x->size, sizeof *x->slot);
        x->n = 0;
        for (size_t k = 0; k < i; k++) intern(x, k);
    }
    size_t at = hash_of(x, i) & (x->size - 1);
    for (; x->slot[at]; at = (at + 1) & (x->size - 1))
        if (same(x, x->slot[at] - 1, i)) return x->slot[at] - 1;
    x->slot[at] = i + 1;
    x->n++;
    return i;
}

static int add_sym(const char *a, int na, const char *b, int nb) {
    Sym s = { .s = xcalloc((size_t)(na + nb) + 1, 1), .len = na + nb };
    memcpy(s.s, a, (size_t)na);
    memcpy(s.s + na, b, (size_t)nb);
    s.sealed = s.len == 1 && s.s[0] >= '0' && s.s[0] <= '9';
    PUSH(bpe.sym, bpe.nsym, bpe.sym_cap, s);
    size_t id = intern(&sym_index, bpe.nsym - 1);
    if (id != bpe.nsym - 1) { free(s.s); bpe.nsym--; }
    return (int)id;
}

static void add_word(const int *sym, int n) {
    if (n == 0) return;
    Word w = { (int *)(uintptr_t)sym, n, 0 };
    PUSH(bpe.word, bpe.nword, bpe.word_cap, w);
    size_t id = intern(&word_index, bpe.nword - 1);
    if (id == bpe.nword - 1) {
        bpe.word[id].sym = xcalloc((size_t)n, sizeof *sym);
        memcpy(bpe.word[id].sym, sym, (size_t)n * sizeof *sym);
    } else bpe.nword--;
    bpe.word[id].count++;
}

/* Cuts a document into words: before each space, after newlines (they close a word, as in ".\n"),
   and at what cannot be in a piece (NUL, bytes that are not UTF-8). */
static void add_words(const Doc *d) {
    int sym[MAX_WORD], n = 0;
    int newline = 0;
    for (size_t i = 0, len; i < d->len; i += len) {
        const char *p = d->text + i;
        const size_t n_utf8 = (size_t)utf8_len((const uint8_t *)p, d->len - i);
        len = n_utf8 + !n_utf8;
        int space = *p == ' ' || (len == 3 && !memcmp(p, SPACE, 3)), usable = n_utf8 && *p != 0;
        if (space || !usable || n == MAX_WORD || (newline && *p != '\n')) {
            add_word(sym, n);
            n = 0;
        }
        newline = *p == '\n';
        if (usable) sym[n++] = space ? add_sym(SPACE, 3, "", 0) : add_sym(p, (int)len, "", 0);
    }
    add_word(sym, n);
}

/* The pair (left, right) occurs `times` more (or fewer) in word w. */
static void count_pair(int left, int right, size_t w, int64_t times) {
    const Sym *l = &bpe.sym[left], *r = &bpe.sym[right];
    if (l->sealed || r->sealed || l->len + r->len > MAX_PIECE) return;
    PUSH(bpe.pair, bpe.npair, bpe.pair_cap, ((Pairing){ .left = left, .right = right }));
    size_t id = intern(&pair_index, bpe.npair - 1);
    if (id == bpe.npair - 1) PUSH(bpe.count, bpe.ncount, bpe.count_cap, 0);
    else bpe.npair--;
    Pairing *p = &bpe.pair[id];
    bpe.count[id] += times;
    if (times > 0 && (p->n == 0 || p->word[p->n - 1] != w)) PUSH(p->word, p->n, p->cap, w);
}

/* Among pairs of equal counts the joined text decides: then the order of documents does not. */
static int text_before(const Pairing *p, const Pairing *q) {
    char x[2 * MAX_PIECE + 1], y[2 * MAX_PIECE + 1];
    snprintf(x, sizeof x, "%s%s", bpe.sym[p->left].s, bpe.sym[p->right].s);
    snprintf(y, sizeof y, "%s%s", bpe.sym[q->left].s, bpe.sym[q->right].s);
    int order = strcmp(x, y);
    return order < 0 || (order == 0 && bpe.sym[p->left].len < bpe.sym[q->left].len);
}

static size_t best_pair(void) {
    size_t best = 0;
    for (size_t i = 1; i < bpe.npair; i++)
        if (bpe.count[i] > bpe.count[best]
            || (bpe.count[i] == bpe.count[best] && bpe.count[i] > 0
                && text_before(&bpe.pair[i], &bpe.pair[best]))) best = i;
    return best;
}

/* Writes the pair as one symbol in every word, leftmost first, and recounts its neighbours. */
static void merge_pair(const Pairing *best, int merged) {
    int left = best->left, right = best->right;
    size_t nwords = best->n, *words = best->word;        /* bpe.pair may move while we count     */
    for (size_t k = 0; k < nwords; k++) {
        size_t w = words[k];
        int *s = bpe.word[w].sym, n = bpe.word[w].n, o = 0;
        int64_t count = bpe.word[w].count;
        for (int i = 0; i < n; i++) {
            if (i + 1 == n || s[i] != left || s[i + 1] != right) { s[o++] = s[i]; continue; }
            count_pair(left, right, w, -count);
            int before = o > 0 ? s[o - 1] : -1, after = i + 2 < n ? s[i + 2] : -1;
            if (before >= 0) count_pair(before, left, w, -count);
            if (before >= 0) count_pair(before, merged, w, count);
            if (after >= 0) count_pair(right, after, w, -count);
            if (after >= 0) count_pair(merged, after, w, count);
            s[o++] = merged;
            i++;
        }
        bpe.word[w].n = o;
    }
}

typedef struct { int sym; int64_t gain; } Char;

static int by_gain(const void *a, const void *b) {
    const Char *x = a, *y = b;
    if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1;
    return strcmp(bpe.sym[x->sym].s, bpe.sym[y->sym].s);
}

/* Learns vocab - 260 pieces: piece[] = symbols, merges by rank, then characters, U+2581 first
   among them. */
static void train_bpe(const Docs *docs, int vocab, int *piece) {
    int space = add_sym(SPACE, 3, "", 0), room = vocab - FIRST_PIECE - 1, merges = 0;
    for (size_t i = 0; i < docs->n; i++) add_words(&docs->doc[i]);
    size_t nchar = bpe.nsym, used = 0, take = 0;
    Char *ch = xcalloc(nchar, sizeof *ch);
    for (size_t i = 0; i < nchar; i++) ch[i].sym = (int)i;
    for (size_t w = 0; w < bpe.nword; w++) {
        const Word *x = &bpe.word[w];
        for (int i = 0; i < x->n; i++) {
            ch[x->sym[i]].gain += (bpe.sym[x->sym[i]].len - 1) * x->count;
            if (i) count_pair(x->sym[i - 1], x->sym[i], w, x->count);
        }
    }
    ch[space].gain = 0;                                  /* is in anyway                         */
    qsort(ch, nchar, sizeof *ch, by_gain);
    int *taken = xcalloc(bpe.nsym + (size_t)room + 1, sizeof *taken);
    while (merges + (int)take < room) {
        size_t best = best_pair();
        const Pairing *p = &bpe.pair[best];
        int64_t count = best < bpe.npair ? bpe.count[best] : 0;
        int64_t gain = take < nchar ? ch[take].gain : 0;
        if (count >= 2 && count >= gain) {
            int id = add_sym(bpe.sym[p->left].s, bpe.sym[p->left].len, bpe.sym[p->right].s,
                             bpe.sym[p->right].len);
            if (!taken[id]) piece[merges++] = id;        /* "a"+"bc" may spell an old "ab"+"c"   */
            taken[id] = 1;
            merge_pair(p, id);
        } else if (gain >= 2) take++;
        else
            die("expected enough text for a vocabulary of %d, found %zu bytes, enough for %d; use "
                "more text or a smaller --vocab (VOCAB for get.sh; %d or more)", vocab,
                total_bytes(docs), vocab - room + merges + (int)take, MIN_VOCAB);
    }
    piece[merges] = space;
    for (; used < take; used++) piece[merges + 1 + (int)used] = ch[used].sym;
    printf("tokenizer: %zu distinct words, %d merges, %zu characters of more than one byte\n",
           bpe.nword, merges, take + 1);
}

/* ---------------------------------------------------------------- the .model (protobuf) file */
typedef struct { uint8_t *p; size_t n, cap; } Buf;

static void put_varint(Buf *b, uint64_t v) {
    for (; v > 127; v >>= 7) PUSH(b->p, b->n, b->cap, (uint8_t)(v | 128));
    PUSH(b->p, b->n, b->cap, (uint8_t)v);
}

static void put_number(Buf *b, int field, uint64_t v) {
    put_varint(b, (uint64_t)FIELD(field, VARINT));
    put_varint(b, v);
}

static void put_bytes(Buf *b, int field, const void *s, size_t n) {
    put_varint(b, (uint64_t)FIELD(field, BYTES));
    put_varint(b, n);
    for (size_t i = 0; i < n; i++) PUSH(b->p, b->n, b->cap, ((const uint8_t *)s)[i]);
}

static void put_piece(Buf *b, const char *s, size_t n, float score, int type) {
    Buf m = { 0 };
    uint32_t u;
    memcpy(&u, &score, 4);
    put_bytes(&m, 1, s, n);
    put_varint(&m, FIELD(2, FIXED32));
    for (int i = 0; i < 4; i++) PUSH(m.p, m.n, m.cap, (uint8_t)(u >> 8 * i));
    if (type != PIECE_NORMAL) put_number(&m, 3, (uint64_t)type);
    put_bytes(b, 1, m.p, m.n);
    free(m.p);
}

static void write_model(const char *path, int vocab, const int *piece) {
    static const char *const special[4] = { "<pad>", "<s>", "</s>", "<unk>" };
    static const int id_field[4] = { 43, 41, 42, 40 };
    Buf b = { 0 }, m = { 0 };
    for (int i = 0; i < 4; i++)
        put_piece(&b, special[i], strlen(special[i]), 0, i == 3 ? PIECE_UNKNOWN : PIECE_CONTROL);
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        put_piece(&b, name, 6, 0, PIECE_BYTE);
    }
    for (int i = 0; i < vocab - FIRST_PIECE; i++)
        put_piece(&b, bpe.sym[piece[i]].s, (size_t)bpe.sym[piece[i]].len, (float)-i, PIECE_NORMAL);
    put_number(&m, 3, 2);                                                /* model_type: BPE       */
    put_number(&m, 4, (uint64_t)vocab);
    put_number(&m, 25, 1);                                               /* split_digits          */
    put_number(&m, 35, 1);                                               /* byte_fallback         */
    for (int i = 0; i < 4; i++) put_number(&m, id_field[i], (uint64_t)i);
    put_bytes(&b, 2, m.p, m.n);
    m.n = 0;
    put_bytes(&m, 1, "identity", 8);
    put_number(&m, 3, 0);                                                /* no dummy prefix       */
    put_number(&m, 4, 0);                                                /* keep extra spaces     */
    put_number(&m, 5, 1);                                                /* space -> U+2581       */
    put_bytes(&b, 3, m.p, m.n);
    write_file(path, b.p, b.n);
}

typedef struct { const char *dir, *name, *split; uint8_t *p; int64_t n, total; int shards; } Out;

static void flush_shard(Out *o) {
    char name[1024];
    put_u(o->p, SHARD_MAGIC, 4);
    put_u(o->p + 4, 1, 4);
    put_u(o->p + 8, (uint64_t)o->n, 4);
    snprintf(name, sizeof name, "%s_%s_%06d.bin", o->name, o->split, o->shards++);
    write_file(path_of(o->dir, name), o->p, (size_t)(SHARD_HEADER + 2 * o->n));
    o->total += o->n;
    o->n = 0;
}

static void put_token(Out *o, int id) {
    put_u(o->p + SHARD_HEADER + 2 * o->n++, (uint64_t)id, 2);
    if (o->n == SHARD_TOKENS) flush_shard(o);
}

/* SentencePiece cannot tell a U+2581 in the text from a space: it is made one beforehand. */
static int plain_spaces(Doc *x) {
    size_t o = 0, len = x->len;
    for (size_t i = 0; i < len; i++) {
        int space = i + 3 <= len && !memcmp(x->text + i, SPACE, 3);
        x->text[o++] = space ? ' ' : x->text[i];
        i += space ? 2 : 0;
    }
    x->len = o;
    return o < len;
}

/* Tokenizes one split into shards, BOS before each document, and checks every document: decoding
   gives its text back, and the bytes-per-token table adds up to its length. */
static void write_split(const Tokenizer *t, const Docs *d, Out *o, int exact, Buf *info) {
    size_t changed = 0, miscounted = 0, spaced = 0;
    int64_t counted = 0;
    size_t bytes = total_bytes(d) + d->n;                /* no token is shorter than a byte, but */
    if (!exact) bytes *= 3;                              /* for other models' prefixes           */
    if (bytes > SHARD_TOKENS) bytes = SHARD_TOKENS;
    o->p = xcalloc(SHARD_HEADER + 2 * bytes, 1);
    for (size_t i = 0; i < d->n; i++) {
        Doc *x = &d->doc[i];
        size_t n, len;
        spaced += plain_spaces(x);
        int *ids = tokenizer_encode(t, x->text, x->len, &n);
        char *back = tokenizer_decode(t, ids, n, &len);
        if (len != x->len || memcmp(back, x->text, len)) {
            if (exact) die("%s: expected the text back after encoding it; please report", x->path);
            changed++;
        }
        put_token(o, t->bos);
        int64_t sum = 0;
        for (size_t k = 0; k < n; k++) {
            sum += tokenizer_bytes(t, k ? ids[k - 1] : t->bos, ids[k]);
            put_token(o, ids[k]);
        }
        int64_t lead = n > 0 && t->piece[ids[0]].leading_space; /* after BOS: not counted */
        if (sum + lead != (int64_t)len) {
            if (exact) die("%s: its bytes are not those of the table; please report", x->path);
            miscounted++;
        }
        counted += sum;
        free(ids);
        free(back);
    }
    if (o->n || !o->shards) flush_shard(o);
    free(o->p);
    char line[256];
    int len = snprintf(line, sizeof line, "%-5s %6zu documents %11zu bytes %10lld tokens  "
                       "%.4f bytes per token\n", o->split, d->n, total_bytes(d),
                       (long long)o->total, (double)counted / (double)o->total);
    printf("%s", line);
    for (int i = 0; i < len; i++) PUSH(info->p, info->n, info->cap, (uint8_t)line[i]);
    if (spaced) printf("note: U+2581 became a space in %zu documents\n", spaced);
    if (changed) printf("note: this tokenizer does not give %zu documents back exactly\n", changed);
    if (miscounted) printf("note: it counts the bytes of %zu documents otherwise\n", miscounted);
}

static void shuffle(Docs *d, uint64_t seed) {
    for (size_t i = d->n; i > 1; i--) {
        size_t j = (size_t)(hash64(i, seed - 1) % i);
        Doc x = d->doc[i - 1];
        d->doc[i - 1] = d->doc[j];
        d->doc[j] = x;
    }
}

static int doc_by_path(const void *a, const void *b) {
    return strcmp(((const Doc *)a)->path, ((const Doc *)b)->path);
}

static long to_number(const char *arg, const char *text, long lo, long hi) {
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < lo || v > hi)
        die("%s: expected a number of %ld..%ld", arg, lo, hi);
    return v;
}

/* DIR is built as DIR.part and renamed: a killed run leaves nothing that looks complete. */
static void fresh_folder(const char *dir) {
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        const char *path = path_of(dir, f->d_name);
        if (f->d_name[0] != '.' && unlink(path))
            die("%s: cannot remove: %s", path, strerror(errno));
    }
    if (d) closedir(d);
    else if (mkdir(dir, 0777)) die("%s: cannot make the folder: %s", dir, strerror(errno));
}

int main(int argc, char **argv) {
    const char *out = NULL, *name = NULL, *model = NULL;
    int vocab = 1024;
    uint64_t seed = 1;
    static Docs train, val;
    Docs *into = NULL;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = strchr(a, '=') ? strchr(a, '=') + 1 : "";
        if (!strncmp(a, "--out=", 6)) out = v;
        else if (!strncmp(a, "--name=", 7)) name = v;
        else if (!strncmp(a, "--tokenizer=", 12)) model = v;
        else if (!strncmp(a, "--vocab=", 8)) vocab = (int)to_number(a, v, MIN_VOCAB, MAX_VOCAB);
        else if (!strncmp(a, "--seed=", 7)) seed = (uint64_t)to_number(a, v, 0, 1L << 30);
        else if (!strcmp(a, "--train")) into = &train;
        else if (!strcmp(a, "--val")) into = &val;
        else if (!strncmp(a, "--train=@", 9)) add_list(&train, a + 9);
        else if (!strncmp(a, "--val=@", 7)) add_list(&val, a + 7);
        else if (into && strncmp(a, "--", 2)) add_doc(into, a);
        else die("%s: expected --out= --name= --vocab= --tokenizer= --seed= --train FILES --val "
                 "FILES", a);
    }
    if (!out || !*out || !name || !*name || !train.n || !val.n)
        die("usage: prepare --out=DIR --name=NAME [--vocab=%d] [--tokenizer=FILE] [--seed=1] "
            "--train FILES... --val FILES...", vocab);
    if (access(out, F_OK) == 0 && rmdir(out))
        die("%s: exists already; remove it or choose another --out", out);
    char dir[1500];
    if (snprintf(dir, sizeof dir, "%s.part", out) >= (int)sizeof dir) die("%s: too long", out);
    fresh_folder(dir);

    const char *path = path_of(dir, "tokenizer.model");
    if (model) {
        size_t len;
        uint8_t *file = read_file(model, &len);
        write_file(path, file, len);
    } else {
        int *piece = xcalloc((size_t)vocab, sizeof *piece);
        train_bpe(&train, vocab, piece);
        write_model(path, vocab, piece);
    }
    Tokenizer *t = tokenizer_load(path);
    if (t->bos < 0 || t->vocab > MAX_VOCAB + 1)
        die("%s: expected a BOS piece and at most 65,536 pieces, found bos %d, %d pieces", path,
            t->bos, t->vocab);
    Buf info = { 0 };
    char line[64];
    for (int i = 0, n = snprintf(line, sizeof line, "vocab %d\n", t->vocab); i < n; i++)
        PUSH(info.p, info.n, info.cap, (uint8_t)line[i]);
    shuffle(&train, seed);
    qsort(val.doc, val.n, sizeof *val.doc, doc_by_path);
    write_split(t, &train, &(Out){ dir, name, "train", NULL, 0, 0, 0 }, !model, &info);
    write_split(t, &val, &(Out){ dir, name, "val", NULL, 0, 0, 0 }, !model, &info);
    write_file(path_of(dir, "info.txt"), info.p, info.n);
    if (rename(dir, out)) die("%s: cannot rename to %s: %s", dir, out, strerror(errno));
    printf("wrote %s\n", out);
    return 0;
}
