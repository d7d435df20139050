/* ./train_golf prepare: text files -> a BPE tokenizer and token shards in one folder; and
 * encode and decode, for the shell, at the end.
 *
 *     ./train_golf prepare --out=DIR --name=NAME [--vocab=1024] [--tokenizer=FILE]
 *                          [--seed=1] --train FILES... --val FILES...
 *     ./train_golf prepare --out=DIR --hold_out=FOLDER [--every=20]
 *
 * One document per file; --train=@LIST reads the file names from LIST, one a line.
 *
 * The tokenizer is trained on the training text alone, or taken from --tokenizer. With
 * --hold_out, the training text of a prepared FOLDER is split again: to choose options
 * without a look at its validation text. DIR
 * appears, complete, when everything in it has been written and checked, or not at all.
 * Its layout and the bytes of its files are drawn in README.md.
 *
 * Part of train_golf.c, which includes this file at its end: die() and files come from
 * section 1, the tokenizer from section 7. */
enum {
    FIRST_LEARNT_PIECE = 260, /* after pad, bos, eos, unk and the 256 bytes */
    PREPARE_MIN_VOCAB = 300,
    PREPARE_MAX_VOCAB = 65535,
    SHARD_MAX_TOKENS = 100000000,
    LEARNT_PIECE_MAX = 64, /* bytes */
    BPE_WORD_MAX = 256     /* characters; longer words are cut, to bound the work */
};

/* Lists grow at their end. Each is a struct {item, n, cap}: the items, how many there are
 * and how many there is room for. */
#define LIST_OF(type) \
    struct { \
        type *item; \
        size_t n, cap; \
    }
#define LIST_PUSH(list, x) \
    do { \
        if ((list)->n == (list)->cap) \
            (list)->item = list_grow((list)->item, &(list)->cap, sizeof *(list)->item); \
        (list)->item[(list)->n] = (x); \
        (list)->n++; \
    } while (0)

static void *list_grow(void *item, size_t *cap, size_t size) {
    *cap = *cap ? 2 * *cap : 16;
    item = realloc(item, *cap * size);
    if (!item) die("out of memory: %zu x %zu bytes", *cap, size);
    return item;
}

typedef LIST_OF(uint8_t) ByteList;

static void push_bytes(ByteList *list, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++) LIST_PUSH(list, p[i]);
}

/* ------------------------------------------------------------------------- documents */
typedef struct {
    const char *path;
    char *text; /* (len) */
    size_t len;
} Document;

typedef LIST_OF(Document) Corpus;

static void corpus_add(Corpus *corpus, const char *path) {
    Document d = {.path = path};
    d.text = (char *)read_file(path, &d.len);
    LIST_PUSH(corpus, d);
}

/* Adds the files whose names are in a file, one a line. */
static void corpus_add_list(Corpus *corpus, const char *list) {
    size_t len;
    char *names = (char *)read_file(list, &len); /* kept: the paths point into it */
    char *name = strtok(names, "\n");
    while (name) {
        corpus_add(corpus, name);
        name = strtok(NULL, "\n");
    }
}

static size_t corpus_bytes(const Corpus *corpus) {
    size_t sum = 0;
    for (size_t i = 0; i < corpus->n; i++) sum += corpus->item[i].len;
    return sum;
}

static void corpus_shuffle(Corpus *corpus, uint64_t seed) {
    for (size_t i = corpus->n; i > 1; i--) {
        const size_t other = (size_t)(hash64(i, seed - 1) % i);
        const Document last = corpus->item[i - 1];
        corpus->item[i - 1] = corpus->item[other];
        corpus->item[other] = last;
    }
}

static int document_by_path(const void *a, const void *b) {
    const Document *x = a, *y = b;
    return strcmp(x->path, y->path);
}

/* SentencePiece cannot tell a U+2581 in the text from a space: it is made one beforehand.
 * Returns whether there was one. */
static int document_plain_spaces(Document *d) {
    const size_t len = d->len;
    size_t i = 0, kept = 0;
    while (i < len) {
        const int space = i + 3 <= len && !memcmp(d->text + i, SPACE, 3);
        d->text[kept] = space ? ' ' : d->text[i];
        kept++;
        i += space ? 3 : 1;
    }
    d->len = kept;
    return kept < len;
}

/* ---------------------------------------------------------------------- BPE training */
/* Byte pair encoding on the distinct words of the text, each with its count. The pair of
 * neighbours that occurs most often becomes a piece, everywhere; repeat. A word starts at
 * a space and holds no other; digits stay single.
 *
 * Only what earns its place becomes a piece. ASCII characters have one already, their
 * byte; a character of b bytes saves b-1 tokens per occurrence and competes with the
 * merges on that. */
typedef struct {
    char *text; /* (len) and a NUL; none inside */
    int len;
    int sealed; /* merges with nothing */
} BpeSymbol;

typedef struct {
    int *sym; /* (n) */
    int n;
    int64_t count; /* how often the text has it */
} BpeWord;

typedef struct {
    int left, right;       /* symbols */
    LIST_OF(size_t) words; /* that it is, or was, in */
} BpePair;

/* All that training knows. Nothing enters the first three lists twice: see BpeIndex. */
static struct {
    LIST_OF(BpeSymbol) symbols;
    LIST_OF(BpeWord) words; /* all are known before merges begin to shorten them */
    LIST_OF(BpePair) pairs;
    LIST_OF(int64_t) counts; /* of each pair: apart, since they are scanned often */
} bpe;

/* A hash table of the elements of a list, so that equals are found. A slot holds 1 + the
 * place of an element in its list; 0 is free. */
typedef struct {
    uint64_t (*hash)(size_t i);
    int (*same)(size_t i, size_t j);
    size_t *slot; /* (size) a power of two */
    size_t n, size;
} BpeIndex;

static uint64_t bpe_hash_bytes(const void *bytes, size_t n) { /* FNV-1a */
    const uint8_t *p = bytes;
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001B3u;
    return h ^ h >> 29;
}

static uint64_t bpe_symbol_hash(size_t i) {
    const BpeSymbol *s = &bpe.symbols.item[i];
    return bpe_hash_bytes(s->text, (size_t)s->len);
}

static int bpe_symbol_same(size_t i, size_t j) {
    const BpeSymbol *s = &bpe.symbols.item[i], *t = &bpe.symbols.item[j];
    return s->len == t->len && !memcmp(s->text, t->text, (size_t)s->len);
}

static uint64_t bpe_word_hash(size_t i) {
    const BpeWord *w = &bpe.words.item[i];
    return bpe_hash_bytes(w->sym, (size_t)w->n * sizeof *w->sym);
}

static int bpe_word_same(size_t i, size_t j) {
    const BpeWord *v = &bpe.words.item[i], *w = &bpe.words.item[j];
    return v->n == w->n && !memcmp(v->sym, w->sym, (size_t)v->n * sizeof *v->sym);
}

static uint64_t bpe_pair_hash(size_t i) {
    const BpePair *p = &bpe.pairs.item[i];
    return bpe_hash_bytes((const int[]){p->left, p->right}, 2 * sizeof(int));
}

static int bpe_pair_same(size_t i, size_t j) {
    const BpePair *p = &bpe.pairs.item[i], *q = &bpe.pairs.item[j];
    return p->left == q->left && p->right == q->right;
}

static BpeIndex bpe_symbol_index = {.hash = bpe_symbol_hash, .same = bpe_symbol_same};
static BpeIndex bpe_word_index = {.hash = bpe_word_hash, .same = bpe_word_same};
static BpeIndex bpe_pair_index = {.hash = bpe_pair_hash, .same = bpe_pair_same};

/* The slot that holds an equal of element i, or the free one where i would go. */
static size_t *bpe_index_slot(const BpeIndex *x, size_t i) {
    size_t at = x->hash(i) & (x->size - 1);
    while (x->slot[at] && !x->same(x->slot[at] - 1, i)) at = (at + 1) & (x->size - 1);
    return &x->slot[at];
}

/* Element i has just been pushed: the place of its equal, or i itself, now entered. */
static size_t bpe_index_find(BpeIndex *x, size_t i) {
    if (2 * x->n >= x->size) { /* at most half full: enter all again in a larger one */
        free(x->slot);
        x->size = x->size ? 2 * x->size : 1024;
        x->slot = xcalloc(x->size, sizeof *x->slot);
        for (size_t k = 0; k < i; k++) *bpe_index_slot(x, k) = k + 1;
    }

    size_t *slot = bpe_index_slot(x, i);
    if (*slot) return *slot - 1;
    *slot = i + 1;
    x->n++;
    return i;
}

/* The symbol with the text of a (na) and then b (nb). */
static int bpe_symbol_of(const char *a, int na, const char *b, int nb) {
    BpeSymbol s = {.text = xcalloc((size_t)(na + nb) + 1, 1), .len = na + nb};
    memcpy(s.text, a, (size_t)na);
    memcpy(s.text + na, b, (size_t)nb);
    s.sealed = s.len == 1 && s.text[0] >= '0' && s.text[0] <= '9';

    LIST_PUSH(&bpe.symbols, s);
    const size_t last = bpe.symbols.n - 1;
    const size_t found = bpe_index_find(&bpe_symbol_index, last);
    if (found != last) {
        free(s.text);
        bpe.symbols.n--;
    }
    return (int)found;
}

/* One more word of these symbols (n). */
static void bpe_count_word(int *sym, int n) {
    if (n == 0) return;
    const BpeWord w = {.sym = sym, .n = n};
    LIST_PUSH(&bpe.words, w);
    const size_t last = bpe.words.n - 1;
    const size_t found = bpe_index_find(&bpe_word_index, last);
    if (found == last) { /* a new word keeps symbols of its own */
        bpe.words.item[last].sym = xcalloc((size_t)n, sizeof *sym);
        memcpy(bpe.words.item[last].sym, sym, (size_t)n * sizeof *sym);
    } else {
        bpe.words.n--;
    }
    bpe.words.item[found].count++;
}

/* Cuts a document into words: before each space, after newlines (they close a word, as in
 * ".\n"), and at what cannot be in a piece (NUL, bytes that are not UTF-8). */
static void bpe_count_words(const Document *d) {
    int sym[BPE_WORD_MAX], n = 0, newline = 0;
    size_t i = 0;
    while (i < d->len) {
        const char *p = d->text + i;
        const int utf8 = utf8_len((const uint8_t *)p, d->len - i);
        const int len = utf8 ? utf8 : 1, usable = utf8 && *p != 0;
        const int space = *p == ' ' || starts_with_space((const uint8_t *)p, len);
        if (space || !usable || n == BPE_WORD_MAX || (newline && *p != '\n')) {
            bpe_count_word(sym, n);
            n = 0;
        }
        newline = *p == '\n';
        if (usable) {
            if (space) {
                sym[n] = bpe_symbol_of(SPACE, 3, "", 0);
            } else {
                sym[n] = bpe_symbol_of(p, len, "", 0);
            }
            n++;
        }
        i += (size_t)len;
    }
    bpe_count_word(sym, n);
}

/* The pair (left, right) occurs `times` more (or fewer) in word w. */
static void bpe_count_pair(int left, int right, size_t w, int64_t times) {
    const BpeSymbol *l = &bpe.symbols.item[left], *r = &bpe.symbols.item[right];
    if (l->sealed || r->sealed || l->len + r->len > LEARNT_PIECE_MAX) return;

    const BpePair fresh = {.left = left, .right = right};
    LIST_PUSH(&bpe.pairs, fresh);
    const size_t last = bpe.pairs.n - 1;
    const size_t found = bpe_index_find(&bpe_pair_index, last);
    if (found == last) {
        LIST_PUSH(&bpe.counts, 0);
    } else {
        bpe.pairs.n--;
    }

    bpe.counts.item[found] += times;
    if (times < 0) return;

    /* If w is listed, it most often comes last. Listed twice it does no harm. */
    BpePair *pair = &bpe.pairs.item[found];
    const size_t listed = pair->words.n;
    if (listed == 0 || pair->words.item[listed - 1] != w) LIST_PUSH(&pair->words, w);
}

/* Among pairs of equal counts the joined text decides, not the order of documents. */
static int bpe_text_before(const BpePair *p, const BpePair *q) {
    const BpeSymbol *s = bpe.symbols.item;
    char x[2 * LEARNT_PIECE_MAX + 1], y[2 * LEARNT_PIECE_MAX + 1];
    snprintf(x, sizeof x, "%s%s", s[p->left].text, s[p->right].text);
    snprintf(y, sizeof y, "%s%s", s[q->left].text, s[q->right].text);
    const int order = strcmp(x, y);
    return order < 0 || (order == 0 && s[p->left].len < s[q->left].len);
}

static size_t bpe_best_pair(void) {
    const BpePair *pair = bpe.pairs.item;
    const int64_t *count = bpe.counts.item;
    size_t best = 0;
    for (size_t i = 1; i < bpe.pairs.n; i++) {
        if (count[i] < count[best]) continue;
        if (count[i] > count[best]) {
            best = i;
        } else if (count[i] > 0 && bpe_text_before(&pair[i], &pair[best])) {
            best = i;
        }
    }
    return best;
}

/* Writes (left, right) as `merged` in word w, leftmost first; recounts its neighbours. */
static void bpe_merge_in_word(size_t w, int left, int right, int merged) {
    BpeWord *word = &bpe.words.item[w];
    const int64_t count = word->count;
    int *s = word->sym, n = 0, i = 0;
    while (i < word->n) {
        if (i + 1 == word->n || s[i] != left || s[i + 1] != right) {
            s[n] = s[i];
            n++;
            i++;
            continue;
        }
        bpe_count_pair(left, right, w, -count);
        if (n > 0) {
            bpe_count_pair(s[n - 1], left, w, -count);
            bpe_count_pair(s[n - 1], merged, w, count);
        }
        if (i + 2 < word->n) {
            bpe_count_pair(right, s[i + 2], w, -count);
            bpe_count_pair(merged, s[i + 2], w, count);
        }
        s[n] = merged;
        n++;
        i += 2;
    }
    word->n = n;
}

/* Makes a pair one symbol in all words, and returns it. The pair is a copy: the list of
 * pairs may move while we count. */
static int bpe_merge_pair(BpePair pair) {
    const BpeSymbol *l = &bpe.symbols.item[pair.left], *r = &bpe.symbols.item[pair.right];
    const int merged = bpe_symbol_of(l->text, l->len, r->text, r->len);
    for (size_t i = 0; i < pair.words.n; i++)
        bpe_merge_in_word(pair.words.item[i], pair.left, pair.right, merged);
    return merged;
}

typedef struct {
    int sym;
    const char *text;
    int64_t gain; /* tokens saved by having a piece instead of its bytes */
} BpeCharacter;

static int bpe_by_gain(const void *a, const void *b) {
    const BpeCharacter *x = a, *y = b;
    if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1;
    return strcmp(x->text, y->text);
}

/* Counts the pairs of all words, and returns the characters (bpe.symbols.n), the one that
 * saves most first. */
static BpeCharacter *bpe_count_all(int space) {
    const size_t n = bpe.symbols.n;
    BpeCharacter *characters = xcalloc(n, sizeof *characters);
    for (size_t i = 0; i < n; i++) {
        characters[i].sym = (int)i;
        characters[i].text = bpe.symbols.item[i].text;
    }

    for (size_t w = 0; w < bpe.words.n; w++) {
        const BpeWord *word = &bpe.words.item[w];
        for (int i = 0; i < word->n; i++) {
            const int sym = word->sym[i];
            characters[sym].gain += (bpe.symbols.item[sym].len - 1) * word->count;
            if (i > 0) bpe_count_pair(word->sym[i - 1], sym, w, word->count);
        }
    }
    characters[space].gain = 0; /* is in anyway */
    qsort(characters, n, sizeof *characters, bpe_by_gain);
    return characters;
}

/* Learns vocab - 260 pieces: piece (vocab) = symbols, merges by rank, then characters,
 * U+2581 first among them. */
static void bpe_train(const Corpus *corpus, int vocab, int *piece) {
    const int space = bpe_symbol_of(SPACE, 3, "", 0); /* a piece in any case */
    const int room = vocab - FIRST_LEARNT_PIECE - 1;  /* for others */
    for (size_t i = 0; i < corpus->n; i++) bpe_count_words(&corpus->item[i]);
    const int n = (int)bpe.symbols.n;
    BpeCharacter *characters = bpe_count_all(space);

    int merges = 0, used = 0; /* used: characters that become pieces */
    int *taken = xcalloc((size_t)(n + room) + 1, sizeof *taken);
    while (merges + used < room) {
        const size_t best = bpe_best_pair();
        const int64_t count = best < bpe.pairs.n ? bpe.counts.item[best] : 0;
        const int64_t gain = used < n ? characters[used].gain : 0;
        if (count >= 2 && count >= gain) {
            const int id = bpe_merge_pair(bpe.pairs.item[best]);
            if (!taken[id]) { /* "a"+"bc" may spell an old "ab"+"c" */
                piece[merges] = id;
                merges++;
            }
            taken[id] = 1;
        } else if (gain >= 2) {
            used++;
        } else {
            die("expected enough text for a vocabulary of %d, found %zu bytes, enough "
                "for %d; use more text or a smaller --vocab (VOCAB for get.sh; "
                "%d or more)",
                vocab, corpus_bytes(corpus), vocab - room + merges + used,
                PREPARE_MIN_VOCAB);
        }
    }

    piece[merges] = space;
    for (int i = 0; i < used; i++) piece[merges + 1 + i] = characters[i].sym;
    printf("tokenizer: %zu distinct words, %d merges, ", bpe.words.n, merges);
    printf("%d characters of more than one byte\n", used + 1);
    free(characters);
    free(taken);
}

/* --------------------------------------------------------- the .model (protobuf) file */
static void push_varint(ByteList *list, uint64_t v) {
    while (v > 127) {
        LIST_PUSH(list, (uint8_t)(v | 128));
        v >>= 7;
    }
    LIST_PUSH(list, (uint8_t)v);
}

static void push_number_field(ByteList *list, int field, uint64_t v) {
    push_varint(list, (uint64_t)FIELD(field, VARINT));
    push_varint(list, v);
}

static void push_bytes_field(ByteList *list, int field, const void *bytes, size_t n) {
    push_varint(list, (uint64_t)FIELD(field, BYTES));
    push_varint(list, n);
    push_bytes(list, bytes, n);
}

static void push_piece(ByteList *model, const char *text, int len, float score,
                       int type) {
    ByteList piece = {0};
    uint32_t bits;
    uint8_t score_bytes[4];
    memcpy(&bits, &score, 4);
    put_u(score_bytes, bits, 4);

    push_bytes_field(&piece, 1, text, (size_t)len);
    push_varint(&piece, FIELD(2, FIXED32));
    push_bytes(&piece, score_bytes, 4);
    if (type != PIECE_NORMAL) push_number_field(&piece, 3, (uint64_t)type);
    push_bytes_field(model, 1, piece.item, piece.n);
    free(piece.item);
}

static void push_trainer_spec(ByteList *model, int vocab) {
    ByteList spec = {0};
    push_number_field(&spec, 3, 2); /* model_type: BPE */
    push_number_field(&spec, 4, (uint64_t)vocab);
    push_number_field(&spec, 25, 1); /* split_digits */
    push_number_field(&spec, 35, 1); /* byte_fallback */
    push_number_field(&spec, 43, 0); /* id of <pad> */
    push_number_field(&spec, 41, 1); /* of <s> */
    push_number_field(&spec, 42, 2); /* of </s> */
    push_number_field(&spec, 40, 3); /* of <unk> */
    push_bytes_field(model, 2, spec.item, spec.n);
    free(spec.item);
}

static void push_normalizer_spec(ByteList *model) {
    ByteList spec = {0};
    push_bytes_field(&spec, 1, "identity", 8);
    push_number_field(&spec, 3, 0); /* no dummy prefix */
    push_number_field(&spec, 4, 0); /* keep extra spaces */
    push_number_field(&spec, 5, 1); /* space -> U+2581 */
    push_bytes_field(model, 3, spec.item, spec.n);
    free(spec.item);
}

/* A model of the special pieces, the bytes and what was learnt: symbols (vocab - 260). */
static void write_tokenizer_model(const char *path, int vocab, const int *piece) {
    ByteList model = {0};
    push_piece(&model, "<pad>", 5, 0, PIECE_CONTROL);
    push_piece(&model, "<s>", 3, 0, PIECE_CONTROL);
    push_piece(&model, "</s>", 4, 0, PIECE_CONTROL);
    push_piece(&model, "<unk>", 5, 0, PIECE_UNKNOWN);
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        push_piece(&model, name, 6, 0, PIECE_BYTE);
    }
    for (int i = 0; i < vocab - FIRST_LEARNT_PIECE; i++) {
        const BpeSymbol *s = &bpe.symbols.item[piece[i]];
        push_piece(&model, s->text, s->len, (float)-i, PIECE_NORMAL);
    }
    push_trainer_spec(&model, vocab);
    push_normalizer_spec(&model);
    write_file(path, model.item, model.n);
    free(model.item);
}

/* ---------------------------------------------------------------------------- shards */
typedef struct {
    const char *dir, *name, *split; /* of the files DIR/NAME_SPLIT_000000.bin, ... */
    uint8_t *bytes; /* (1024 + 2 cap) header and tokens of the present shard */
    int64_t cap;
    int64_t n, total; /* tokens in it, and in all before it */
    int shards;       /* before it */
} ShardWriter;

/* Room for twice as many tokens. */
static void shard_writer_grow(ShardWriter *w) {
    w->cap = MIN(MAX(2 * w->cap, 1 << 16), SHARD_MAX_TOKENS);
    const size_t size = SHARD_HEADER + 2 * (size_t)w->cap;
    uint8_t *bytes = realloc(w->bytes, size);
    if (!bytes) die("out of memory: %zu bytes", size);
    if (!w->bytes) memset(bytes, 0, SHARD_HEADER);
    w->bytes = bytes;
}

static void shard_writer_flush(ShardWriter *w) {
    char file[1024];
    if (!w->bytes) shard_writer_grow(w); /* a shard without tokens */
    put_u(w->bytes, SHARD_MAGIC, 4);
    put_u(w->bytes + 4, 1, 4);
    put_u(w->bytes + 8, (uint64_t)w->n, 4);
    snprintf(file, sizeof file, "%s_%s_%06d.bin", w->name, w->split, w->shards);
    write_file(path_of(w->dir, file), w->bytes, (size_t)(SHARD_HEADER + 2 * w->n));
    w->shards++;
    w->total += w->n;
    w->n = 0;
}

static void shard_writer_put(ShardWriter *w, int id) {
    if (w->n == w->cap) shard_writer_grow(w);
    put_u(w->bytes + SHARD_HEADER + 2 * w->n, (uint64_t)id, 2);
    w->n++;
    if (w->n == SHARD_MAX_TOKENS) shard_writer_flush(w);
}

/* What is to be said of a split. */
typedef struct {
    TextBytes bytes;
    size_t spaced;  /* documents in which U+2581 became a space, */
    size_t changed; /* which decoding does not give back exactly, */
    size_t parts;   /* and what the longest were cut into */
} SplitFacts;

/* The end of a part of text (len) that starts at `from` and has at most `most` bytes:
 * behind a line, else before a space, else before a character. */
static size_t part_end(const char *text, size_t len, size_t from, size_t most) {
    if (len - from <= most) return len;
    const size_t end = from + most;
    size_t cut = end;
    while (cut > from && text[cut - 1] != '\n') cut--;
    if (cut > from) return cut;

    cut = end;
    while (cut > from && text[cut] != ' ') cut--;
    if (cut > from) return cut;

    cut = end;
    while (cut > from + 1 && cut > end - 3 && (text[cut] & 0xC0) == 0x80) cut--;
    return cut;
}

/* Tokenizes text (len) of a document, BOS before it, and checks it: decoding gives it
 * back, and the bytes-per-token table adds up to its length. */
static void prepare_part(ShardWriter *w, const Tokenizer *t, const char *path,
                         const char *text, size_t text_len, int exact,
                         SplitFacts *facts) {
    size_t n, len;
    int *ids = tokenizer_encode(t, text, text_len, &n);
    char *back = tokenizer_decode(t, ids, n, &len);
    const int same = len == text_len && !memcmp(back, text, len);
    if (exact && !same)
        die("%s: expected the text back after encoding it; please report", path);
    facts->changed += !same;

    const int64_t earlier = facts->bytes.counted;
    count_token(&facts->bytes, t->bos);
    shard_writer_put(w, t->bos);
    for (size_t i = 0; i < n; i++) {
        count_token(&facts->bytes, ids[i]);
        shard_writer_put(w, ids[i]);
    }
    const int lead = n > 0 && t->piece[ids[0]].leading_space; /* after BOS: not counted */
    if (exact && facts->bytes.counted - earlier + lead != (int64_t)len)
        die("%s: its bytes are not those of the table; please report", path);
    free(ids);
    free(back);
}

static void prepare_document(ShardWriter *w, const Tokenizer *t, Document *d, int exact,
                             SplitFacts *facts) {
    size_t from = 0;
    facts->spaced += (size_t)document_plain_spaces(d);
    do { /* an empty document, too, is one part */
        const size_t end = part_end(d->text, d->len, from, encode_most);
        prepare_part(w, t, d->path, d->text + from, end - from, exact, facts);
        from = end;
        facts->parts += from < d->len;
    } while (from < d->len);
}

static void print_notes(const SplitFacts *facts, size_t bytes) {
    if (facts->spaced)
        printf("note: U+2581 became a space in %zu documents\n", facts->spaced);
    if (facts->changed)
        printf(
            "note: this tokenizer does not give %zu documents back exactly; what it makes "
            "of them has %lld bytes, not %zu, and scores are of that\n",
            facts->changed, (long long)facts->bytes.counted, bytes);
    if (facts->parts)
        printf("note: documents of more than %zu bytes were cut, at ends of lines where "
               "there are any, into %zu more\n",
               encode_most, facts->parts);
    if (facts->bytes.unknown)
        printf("note: %lld unknown pieces, whose text is lost\n",
               (long long)facts->bytes.unknown);
}

/* A line of info.txt, which is said aloud, too. */
static void report_split(ByteList *info, const char *split, size_t documents, size_t size,
                         int64_t tokens, int64_t counted) {
    char line[256];
    snprintf(line, sizeof line,
             "%-5s %6zu documents %11zu bytes %10lld tokens  %.4f bytes per token\n",
             split, documents, size, (long long)tokens, (double)counted / (double)tokens);
    printf("%s", line);
    push_bytes(info, line, strlen(line));
}

/* Writes one split as shards, and a line about it to the end of info. */
static void prepare_split(const Tokenizer *t, Corpus *corpus, ShardWriter *w, int exact,
                          ByteList *info) {
    SplitFacts facts = {.bytes = {.t = t, .before = -1}};
    for (size_t i = 0; i < corpus->n; i++)
        prepare_document(w, t, &corpus->item[i], exact, &facts);
    if (w->n || !w->shards) shard_writer_flush(w);
    free(w->bytes);
    refuse_wrong_table(&facts.bytes, w->split);
    if (!strcmp(w->split, "val")) refuse_unknown(&facts.bytes, w->split);

    report_split(info, w->split, corpus->n, corpus_bytes(corpus), w->total,
                 facts.bytes.counted);
    print_notes(&facts, corpus_bytes(corpus));
}

/* --------------------------------------------------------------------------- command */
typedef struct {
    const char *out;
    const char *of_text; /* the last option given that means nothing with --hold_out */
    const char *name, *model; /* model: --tokenizer, or NULL */
    int vocab;
    uint64_t seed;
    Corpus train, val;
    const char *hold_out; /* a prepared folder, or NULL */
    int every;            /* 0: not given */
} PrepareOptions;

static long prepare_number(const char *arg, const char *text, long lo, long hi) {
    char *end;
    errno = 0;
    const long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < lo || v > hi)
        die("%s: expected a number of %ld..%ld", arg, lo, hi);
    return v;
}

static int argument_starts(const char *text, const char *start) {
    return !strncmp(text, start, strlen(start));
}

/* An option of folders that are made from text; returns 0 when it is none. */
static int prepare_text_option(PrepareOptions *o, const char *arg, const char *value) {
    if (argument_starts(arg, "--name=")) {
        o->name = value;
    } else if (argument_starts(arg, "--tokenizer=")) {
        o->model = value;
    } else if (argument_starts(arg, "--vocab=")) {
        const long most = PREPARE_MAX_VOCAB;
        o->vocab = (int)prepare_number(arg, value, PREPARE_MIN_VOCAB, most);
    } else if (argument_starts(arg, "--seed=")) {
        o->seed = (uint64_t)prepare_number(arg, value, 0, 1L << 30);
    } else if (argument_starts(arg, "--train=@")) {
        corpus_add_list(&o->train, value + 1);
    } else if (argument_starts(arg, "--val=@")) {
        corpus_add_list(&o->val, value + 1);
    } else {
        return 0;
    }
    o->of_text = arg;
    return 1;
}

static void prepare_options(PrepareOptions *o, int argc, char **argv) {
    Corpus *into = NULL; /* what a file name is added to */
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i], *sign = strchr(arg, '=');
        const char *value = sign ? sign + 1 : "";
        if (prepare_text_option(o, arg, value)) continue;
        if (argument_starts(arg, "--out=")) {
            o->out = value;
        } else if (argument_starts(arg, "--hold_out=")) {
            o->hold_out = value;
        } else if (argument_starts(arg, "--every=")) {
            o->every = (int)prepare_number(arg, value, 2, 1000000);
        } else if (!strcmp(arg, "--train")) {
            into = &o->train;
        } else if (!strcmp(arg, "--val")) {
            into = &o->val;
        } else if (into && !argument_starts(arg, "--")) {
            corpus_add(into, arg);
            o->of_text = arg;
        } else {
            die("%s: expected --out= --name= --vocab= --tokenizer= --seed= --train FILES "
                "--val FILES, or --out= --hold_out= --every=",
                arg);
        }
    }
}

static void prepare_check_options(const PrepareOptions *o) {
    const int out = o->out && *o->out, named = o->name && *o->name;
    const int from_text = named && o->train.n && o->val.n;
    if (!out || (!o->hold_out && !from_text))
        die("usage: ./train_golf prepare --out=DIR --name=NAME [--vocab=%d] "
            "[--tokenizer=FILE] [--seed=1] --train FILES... --val FILES..., or "
            "--out=DIR --hold_out=FOLDER [--every=20]",
            o->vocab);
    if (o->hold_out && o->of_text)
        die("%s means nothing with --hold_out, which takes all from %s; leave it out",
            o->of_text, o->hold_out);
    if (!o->hold_out && o->every)
        die("--every=%d means nothing without --hold_out; leave it out", o->every);
}

/* Removes a folder of files, if it is there. */
static void remove_folder(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return;
    const struct dirent *f = readdir(d);
    while (f) {
        if (f->d_name[0] != '.') unlink(path_of(dir, f->d_name));
        f = readdir(d);
    }
    closedir(d);
    rmdir(dir);
}

/* DIR.part, in which the folder is made; "" when there is none. */
static char unfinished[1500];

static void remove_unfinished(void) {
    if (*unfinished) remove_folder(unfinished);
}

/* Makes DIR.part anew: a killed run may have left one, a run that fails leaves none. */
static void start_folder(const char *out) {
    char dir[1500];
    if (snprintf(dir, sizeof dir, "%s.part", out) >= (int)sizeof dir)
        die("%s: too long", out);
    remove_folder(dir);
    if (mkdir(dir, 0777)) die("%s: cannot make the folder: %s", dir, strerror(errno));
    strcpy(unfinished, dir);
    atexit(remove_unfinished);
}

/* The folder to make, without slashes at its end. An empty one may be there. */
static const char *new_folder(const char *out) {
    char *dir = strcpy(xcalloc(strlen(out) + 1, 1), out);
    cut_slashes(dir);
    struct stat st;
    struct dirent **names;
    const int there = !lstat(dir, &st);
    const int n = there ? scandir(dir, &names, NULL, alphasort) : 0; /* 2: . and .. */
    if (there && (!S_ISDIR(st.st_mode) || n > 2))
        die("%s: exists already; remove it or choose another --out", dir);
    return dir;
}

/* Writes the tokenizer to path, a copy of --tokenizer or a trained one, and loads it. */
static Tokenizer *prepare_tokenizer(const PrepareOptions *o, const char *path) {
    if (o->model) {
        size_t len;
        uint8_t *file = read_file(o->model, &len);
        write_file(path, file, len);
        free(file);
    } else {
        int *piece = xcalloc((size_t)o->vocab, sizeof *piece);
        bpe_train(&o->train, o->vocab, piece);
        write_tokenizer_model(path, o->vocab, piece);
        free(piece);
    }

    Tokenizer *t = tokenizer_load(path);
    if (o->model) t->path = strcpy(xcalloc(strlen(o->model) + 1, 1), o->model);
    if (t->bos < 0 || t->vocab > PREPARE_MAX_VOCAB + 1)
        die("%s: expected a BOS piece and at most 65,536 pieces, found bos %d, %d pieces",
            path, t->bos, t->vocab);
    return t;
}

static void report_vocab(ByteList *info, const Tokenizer *t) {
    char line[64];
    snprintf(line, sizeof line, "vocab %d\n", t->vocab);
    push_bytes(info, line, strlen(line));
}

/* -------------------------------------------------------------------------- held out */
/* One side of training text that is split again. */
typedef struct {
    ShardWriter file;
    TextBytes bytes;
    size_t documents;
} HeldPart;

static void held_put(HeldPart *part, const Tokenizer *t, int id) {
    part->documents += id == t->bos;
    count_token(&part->bytes, id);
    shard_writer_put(&part->file, id);
}

/* The token at a position, read with those beside it. */
static int held_token(const Shards *s, int64_t at) {
    enum { BLOCK = 1 << 16 };
    static int block[BLOCK];
    if (at % BLOCK == 0) shards_read(s, at, (int)MIN(BLOCK, s->tokens - at), block);
    return block[at % BLOCK];
}

static size_t count_documents(const Shards *s, int bos) {
    size_t documents = 0;
    for (int64_t at = 0; at < s->tokens; at++) documents += held_token(s, at) == bos;
    return documents;
}

/* Every 20th document (the 1st, 21st, ...) goes to part[1], the others to part[0]. Of a
 * text of fewer documents it is the last 20th of the tokens, as a document of its own. */
static void split_again(const Shards *s, const Tokenizer *t, int every, HeldPart *part) {
    const int few = count_documents(s, t->bos) < (size_t)every;
    const int64_t cut = few ? s->tokens - s->tokens / every : s->tokens;
    size_t document = 0;
    int side = 0;
    for (int64_t at = 0; at < s->tokens; at++) {
        const int id = held_token(s, at), starts = id == t->bos;
        document += (size_t)starts;
        if (starts && !few) side = document % (size_t)every == 1;
        if (at == cut) side = 1;
        if (at == cut && !starts) held_put(&part[side], t, t->bos);
        held_put(&part[side], t, id);
    }
}

/* The NAME of shards NAME_train_000000.bin or NAME_train.bin. */
static const char *name_of_shards(const Shards *s) {
    char *name = strcpy(xcalloc(strlen(s->shard[0].path) + 1, 1),
                        strrchr(s->shard[0].path, '/') + 1);
    const int end = shard_prefix(name, "train");
    name[end - (int)strlen(name[end] == '.' ? "_train" : "_train_")] = 0;
    return name;
}

static HeldPart held_part(const char *dir, const char *split, const Shards *s,
                          const Tokenizer *t) {
    HeldPart part = {.bytes = {.t = t, .before = -1}};
    part.file.dir = dir;
    part.file.name = name_of_shards(s);
    part.file.split = split;
    return part;
}

/* Makes the folder from the training text of another, with its tokenizer. */
static void hold_out(const PrepareOptions *o, const char *dir, ByteList *info) {
    const Tokenizer *t = tokenizer_load(path_of(o->hold_out, "tokenizer.model"));
    const Shards *s = shards_open(o->hold_out, "train", t->vocab);
    HeldPart part[] = {held_part(dir, "train", s, t), held_part(dir, "val", s, t)};
    if (t->bos < 0)
        die("%s: expected a tokenizer with a BOS piece, found none: nothing says where "
            "documents begin",
            t->path);
    split_again(s, t, o->every ? o->every : 20, part);
    write_file(path_of(dir, "tokenizer.model"), t->file, t->size);
    report_vocab(info, t);
    for (int i = 0; i < 2; i++) {
        ShardWriter *w = &part[i].file;
        const int64_t bytes = part[i].bytes.counted;
        if (w->n || !w->shards) shard_writer_flush(w);
        report_split(info, w->split, part[i].documents, (size_t)bytes, w->total, bytes);
        free(w->bytes);
    }
    check_text_bytes(t, shards_open(dir, "val", t->vocab));
}

/* Makes the folder from text. */
static void prepare_text(const PrepareOptions *o, const char *dir, ByteList *info) {
    const Tokenizer *t = prepare_tokenizer(o, path_of(dir, "tokenizer.model"));
    const int exact = !o->model; /* our own tokenizers give every text back */
    Corpus train_text = o->train, val_text = o->val;
    corpus_shuffle(&train_text, o->seed);
    qsort(val_text.item, val_text.n, sizeof *val_text.item, document_by_path);

    ShardWriter train = {.dir = dir, .name = o->name, .split = "train"};
    ShardWriter val = {.dir = dir, .name = o->name, .split = "val"};
    report_vocab(info, t);
    prepare_split(t, &train_text, &train, exact, info);
    prepare_split(t, &val_text, &val, exact, info);
}

int prepare_main(int argc, char **argv) {
    PrepareOptions o = {.vocab = 1024, .seed = 1};
    prepare_options(&o, argc, argv);
    prepare_check_options(&o);
    o.out = new_folder(o.out);
    /* Built as DIR.part and renamed: a killed run leaves nothing that looks complete. */
    start_folder(o.out);
    const char *dir = unfinished;
    ByteList info = {0};
    if (o.hold_out) {
        hold_out(&o, dir, &info);
    } else {
        prepare_text(&o, dir, &info);
    }
    write_file(path_of(dir, "info.txt"), info.item, info.n);
    free(info.item);

    if (rename(dir, o.out))
        die("%s: cannot rename to %s: %s", dir, o.out, strerror(errno));
    *unfinished = 0;
    printf("wrote %s\n", o.out);
    return 0;
}

/* --------------------------------------------------------------------- encode, decode */
static int is_artifact(const char *path) {
    char magic[8] = "";
    FILE *f = fopen(path, "rb");
    if (!f) die("%s: cannot open: %s; check the path", path, strerror(errno));
    const size_t n = fread(magic, 1, 8, f);
    if (ferror(f)) die("%s: cannot read: %s", path, strerror(errno));
    fclose(f);
    return n == 8 && !memcmp(magic, GOLF_MAGIC, 8);
}

/* The tokenizer in file path, or that of the model which the file is. */
static const Tokenizer *text_tokenizer(const char *path, Config *how, int argc,
                                       char **argv) {
    Golf m;
    if (is_artifact(path)) {
        const Tokenizer *t = open_model(&m, how, path, argc, argv, TEXT);
        golf_free(&m);
        return t;
    }
    parse_options(how, argc, argv, TEXT);
    if (*how->tokenizer)
        die("--tokenizer=%s means nothing beside the tokenizer %s; leave one out",
            how->tokenizer, path);
    return tokenizer_load(path);
}

/* All of stdin, and a NUL behind it. */
static ByteList read_input(void) {
    ByteList input = {0};
    uint8_t block[1 << 16];
    size_t n = fread(block, 1, sizeof block, stdin);
    while (n) {
        push_bytes(&input, block, n);
        n = fread(block, 1, sizeof block, stdin);
    }
    if (ferror(stdin)) die("standard input: cannot read: %s", strerror(errno));
    LIST_PUSH(&input, 0);
    input.n--;
    return input;
}

static void end_output(void) {
    if (fflush(stdout) || ferror(stdout))
        die("standard output: cannot write: %s", strerror(errno));
}

static void print_ids(const Tokenizer *t, const char *text, size_t len) {
    size_t n;
    int *ids = tokenizer_encode(t, text, len, &n);
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? " " : "", ids[i]);
    putchar('\n');
    free(ids);
}

static const char *behind_spaces(const char *p, const char *end) {
    while (p < end && isspace((unsigned char)*p)) p++;
    return p;
}

/* Decodes the ids in text (len), behind which stands something else or a NUL. */
static void print_text(const Tokenizer *t, const char *text, size_t len) {
    LIST_OF(int) ids = {0};
    const char *end = text + len, *p = behind_spaces(text, end);
    while (p < end) {
        char *after;
        errno = 0;
        const long id = strtol(p, &after, 10);
        if (after == p || errno || labs(id) > INT32_MAX)
            die("standard input: expected ids of tokens with spaces between them, found "
                "'%.20s' behind %zu ids",
                p, ids.n);
        LIST_PUSH(&ids, (int)id);
        p = behind_spaces(after, end);
    }

    size_t n;
    char *out = tokenizer_decode(t, ids.item, ids.n, &n);
    fwrite(out, 1, n, stdout);
    free(out);
    free(ids.item);
}

/* Calls print() with all of the input, or with each of its lines and writes `behind`. */
static void each_text(const Tokenizer *t, const Config *how,
                      void (*print)(const Tokenizer *, const char *, size_t),
                      const char *behind) {
    ByteList input = read_input();
    const char *p = (const char *)input.item, *end = p + input.n;
    if (!how->lines) print(t, p, input.n);
    while (how->lines && p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *line_end = newline ? newline : end;
        print(t, p, (size_t)(line_end - p));
        fputs(behind, stdout);
        p = line_end + 1;
    }
    free(input.item);
}

int encode_main(const char *path, int argc, char **argv) {
    Config how;
    const Tokenizer *t = text_tokenizer(path, &how, argc, argv);
    each_text(t, &how, print_ids, "");
    return 0;
}

int decode_main(const char *path, int argc, char **argv) {
    Config how;
    const Tokenizer *t = text_tokenizer(path, &how, argc, argv);
    each_text(t, &how, print_text, "\n");
    return 0;
}
