/* tokens.h - section 7 of train_golf.c: text to tokens and back, shards, order of training. */

/* ------------------------------------------------------------------------------------- tokenizer
 * A .model file is one protobuf message: a flat list of (field number, value) pairs in which a
 * value may be a message again. We read the few fields that matter and skip the rest:
 *     ModelProto { 1: piece {1: text, 2: float score, 3: type} repeated
 *                  2: trainer_spec    { 3: model_type, 24: whitespace as suffix,
 *                                       35: byte_fallback, 44: unk_surface, 46: BOS }
 *                  3: normalizer_spec { 2: charsmap, 3: dummy prefix, 4: trim, 5: escape } }
 * SentencePiece writes a space as U+2581 and, in BPE, an id's text is all there is to know: two
 * neighbours merge when their joined text is a piece, the best score first. */
#define SPACE "\xe2\x96\x81"
static int starts_with_space(const uint8_t *s, int n) { return n >= 3 && !memcmp(s, SPACE, 3); }

enum { VARINT, FIXED64, BYTES, FIXED32 = 5 }; /* wire types; 3 and 4 are never used */
#define FIELD(number, wire) ((number) << 3 | (wire))
typedef struct {
    const char *path;
    const uint8_t *p, *end, *value; /* [p, end) is unread; the value of the last field, */
    size_t len;                     /* its bytes, */
    uint64_t field, number;         /* its FIELD(), its number if it is a VARINT */
} Pb;

static uint64_t pb_varint(Pb *b) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && b->p < b->end; shift += 7) {
        const uint8_t c = *b->p++;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128) return v;
    }
    die("%s: expected a SentencePiece .model, found a broken number; fetch it again", b->path);
}
static int pb_next(Pb *b) { /* reads a field, never outside [p, end); 0 at the end of the message */
    if (b->p == b->end) return 0;
    b->field = pb_varint(b);
    const int wire = b->field & 7;
    uint64_t size = wire == FIXED64 ? 8 : wire == FIXED32 ? 4 : UINT64_MAX;
    if (wire == VARINT || wire == BYTES) size = b->number = pb_varint(b);
    if (wire == VARINT) size = 0;
    if (size > (uint64_t)(b->end - b->p) || b->field < FIELD(1, 0))
        die("%s: expected a SentencePiece .model, found another file, or one cut short", b->path);
    b->value = b->p;
    b->p += b->len = (size_t)size;
    return 1;
}
/* Length 1..4 of the UTF-8 character at p[0..n), n > 0; 0 when there is none. */
static int utf8_len(const uint8_t *p, size_t n) {
    const int c = p[0];
    const int len = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if ((size_t)len > n) return 0;
    for (int i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((c == 0xE0 && p[1] < 0xA0) || (c == 0xF0 && p[1] < 0x90)) return 0; /* overlong */
    if ((c == 0xED && p[1] > 0x9F) || (c == 0xF4 && p[1] > 0x8F)) return 0; /* no character */
    return len;
}
/* The library keeps two tables, so that "<0x41>" typed in a text never becomes that byte piece:
 * one of what merges can make, one of the reserved names. */
static int is_reserved(int type) { return type != PIECE_NORMAL && type != PIECE_USER; }

/* Where the id of a text is, in one of the two tables; -1 stands where it would go. */
static int *find_piece(const Tokenizer *t, const void *text, size_t n, int reserved) {
    for (uint32_t i = crc32_of(0, text, n);; i++) {
        int *id = &t->slot[i & (t->slots - 1)];
        if (*id < 0) return id;
        const Piece *x = &t->piece[*id];
        if ((size_t)x->len == n && is_reserved(x->type) == reserved && !memcmp(x->text, text, n))
            return id;
    }
}
/* Piece id from its message, checked, entered in all tables: the row of bytes per token, too. */
static void read_piece(Tokenizer *t, int id, Pb b) {
    Piece *x = &t->piece[id];
    *x = (Piece){.type = PIECE_NORMAL};
    while (pb_next(&b)) {
        const uint32_t word = b.field == FIELD(2, FIXED32) ? (uint32_t)get_u(b.value, 4) : 0;
        if (b.field == FIELD(1, BYTES)) x->text = b.value, x->len = (int)b.len;
        if (b.field == FIELD(2, FIXED32)) memcpy(&x->score, &word, 4);
        if (b.field == FIELD(3, VARINT)) x->type = (int)b.number;
    }
    const int n = x->len, type = x->type, is_byte = type == PIECE_BYTE;
    int is_unk = type == PIECE_UNKNOWN, end = 0;
    unsigned value = 0;
    if (is_byte && n == 6) sscanf((const char *)x->text, "<0x%2X>%n", &value, &end);
    if (n < 1 || n > 255 || type < 1 || type > PIECE_BYTE || !(fabsf(x->score) <= 3e38f)
        || (is_byte && (end != 6 || value > 255 || t->byte_id[value] >= 0)))
        die("%s: piece %d: expected 1..255 bytes (one <0xNN> a byte), a finite score and a type "
            "of 1..6, found %d, score %g, %d bytes", t->path, id, type, (double)x->score, n);
    int *slot = find_piece(t, x->text, (size_t)n, is_reserved(type));
    if (*slot >= 0 || (is_unk && t->unk >= 0))
        die("%s: expected distinct pieces and one unknown piece, found both %d and %d", t->path,
            *slot >= 0 ? *slot : t->unk, id);
    *slot = id;
    if (is_unk) t->unk = id;
    if (is_byte) t->byte_id[value] = id;
    for (int i = 1; i < n; i++) t->inner_space |= starts_with_space(x->text + i, n - i);
    if (type == PIECE_USER || type == PIECE_UNUSED) t->refuses = "user-defined or unused pieces";
    x->boundary = is_reserved(type) && !is_byte;
    x->leading_space = !is_reserved(type) && starts_with_space(x->text, n);
    x->base_bytes = x->boundary ? 0 : is_byte ? 1 : n - 3 * x->leading_space;
}

Tokenizer *tokenizer_load(const char *path) {
    Tokenizer *t = xcalloc(1, sizeof *t);
    t->file = read_file(path, &t->size);
    t->path = strcpy(xcalloc(strlen(path) + 1, 1), path);
    t->crc = crc32_of(0, t->file, t->size);
    const Pb whole = {.path = t->path, .p = t->file, .end = t->file + t->size};
    for (Pb b = whole; pb_next(&b);) t->vocab += b.field == FIELD(1, BYTES);
    if (t->vocab < 1 || t->vocab > 1 << 24)
        die("%s: expected a SentencePiece model, 1..2^24 pieces, found %d pieces", path, t->vocab);
    for (t->slots = 16; t->slots < 4 * (uint32_t)t->vocab;) t->slots *= 2;
    t->slot = memset(xcalloc(t->slots, sizeof(int)), 0xff, t->slots * sizeof(int)); /* all -1 */
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    t->piece = xcalloc((size_t)t->vocab, sizeof *t->piece);
    /* protobuf writes no field that has its default value: these are SentencePiece's defaults */
    int id = 0, byte_fallback = 0;
    Part bos = {"<s>", 3};
    t->unk = -1;
    Piece *unk = &t->shown_unk;
    *unk = (Piece){.text = (const uint8_t *)" \xe2\x81\x87 ", .len = 5};
    t->model_type = t->dummy_prefix = t->trim_spaces = 1;
    for (Pb b = whole; pb_next(&b);) {
        Pb s = {.path = t->path, .p = b.value, .end = b.value + b.len};
        if (b.field == FIELD(1, BYTES)) read_piece(t, id++, s);
        while (b.field == FIELD(2, BYTES) && pb_next(&s)) { /* trainer_spec */
            if (s.field == FIELD(3, VARINT)) t->model_type = (int)(s.number & 255);
            if (s.field == FIELD(24, VARINT) && s.number) t->refuses = "spaces as suffixes";
            if (s.field == FIELD(35, VARINT)) byte_fallback = s.number != 0;
            if (s.field == FIELD(44, BYTES)) unk->text = s.value, unk->len = (int)s.len;
            if (s.field == FIELD(46, BYTES) && s.len) bos = (Part){s.value, s.len};
        }
        while (b.field == FIELD(3, BYTES) && pb_next(&s)) { /* normalizer_spec */
            if (s.field == FIELD(2, BYTES) && s.len) t->refuses = "a character map, like nmt_nfkc";
            if (s.field == FIELD(3, VARINT)) t->dummy_prefix = s.number != 0;
            if (s.field == FIELD(4, VARINT)) t->trim_spaces = s.number != 0;
            if (s.field == FIELD(5, VARINT) && !s.number) t->refuses = "spaces as they are";
        }
    }
    if (t->model_type != 2) t->refuses = "another kind than BPE, 2";
    if (t->unk < 0) die("%s: expected an unknown piece (type 2), found none", path);
    for (int i = 0; i < 256; i++)
        if ((t->byte_id[i] >= 0) != byte_fallback)
            die("%s: byte_fallback=%d, yet the piece of byte 0x%02X is %s", path, byte_fallback,
                (unsigned)i, byte_fallback ? "missing" : "there");
    id = *find_piece(t, bos.data, bos.len, 1);
    t->bos = id >= 0 && t->piece[id].type == PIECE_CONTROL ? id : -1;
    return t;
}
/* The library's Normalizer without a character map: spaces are trimmed, escaped, prefixed. */
static uint8_t *normalize(const Tokenizer *t, const uint8_t *s, size_t n, size_t *n_out) {
    uint8_t *out = xcalloc(3 * n + 4, 1), *o = out;
    size_t i = 0;
    while (t->trim_spaces && i < n && s[i] == ' ') i++;
    if (i < n && t->dummy_prefix) o = memcpy(o, SPACE, 3), o += 3;
    for (; i < n; i++) {
        if (s[i] != ' ') *o++ = s[i];
        else if (!t->trim_spaces || s[i - 1] != ' ') o = memcpy(o, SPACE, 3), o += 3;
    }
    while (t->trim_spaces && o - out >= 3 && !memcmp(o - 3, SPACE, 3)) o -= 3;
    *n_out = (size_t)(o - out);
    return out;
}

typedef struct {
    int at, len, prev, next; /* text[at, at + len) and its neighbours, -1 at the ends */
    float score;             /* of merging it with the next one; -INFINITY: no such piece */
} Symbol;
typedef struct {
    const Tokenizer *t;
    const uint8_t *text; /* normalised */
    int cap, leaves;     /* leaves <= cap: a power of two */
    Symbol *sym;         /* (cap) */
    int *best;           /* (2 * cap) binary tree, leaves last: the symbol with the best score */
} Encoder;
static void rescore(Encoder *e, int i) { /* symbol i or its right neighbour has changed */
    Symbol *s = &e->sym[i];
    const int len = s->next < 0 ? 0 : s->len + e->sym[s->next].len;
    const int id = len ? *find_piece(e->t, e->text + s->at, (size_t)len, 0) : -1;
    s->score = id < 0 ? -INFINITY : e->t->piece[id].score;
    for (int k = (e->leaves + i) / 2; k > 0; k /= 2) { /* of equals the leftmost */
        const int l = e->best[2 * k], r = e->best[2 * k + 1];
        e->best[k] = e->sym[r].score > e->sym[l].score ? r : l;
    }
}
/* Merges the characters of text[from, to) into pieces: the list that starts at sym[0]. */
static void merge_stretch(Encoder *e, size_t from, size_t to) {
    for (e->leaves = 1; (size_t)e->leaves < to - from;) e->leaves *= 2;
    if (e->cap < e->leaves) {
        free(e->sym);
        e->cap = e->leaves;
        e->sym = xcalloc((size_t)e->cap, sizeof *e->sym + 2 * sizeof *e->best);
        e->best = (int *)(e->sym + e->cap);
    }
    int n = 0;
    for (size_t i = from; i < to; n++) {
        const int len = utf8_len(e->text + i, to - i);
        e->sym[n] = (Symbol){(int)i, len + !len, n - 1, n + 1, 0};
        i += (size_t)e->sym[n].len;
    }
    for (int i = n - 1; i < e->leaves; i++) e->sym[i].next = -1;
    for (int i = 0; i < e->leaves; i++) e->best[e->leaves + i] = i, rescore(e, i);
    for (int i; e->sym[i = e->best[1]].score > -INFINITY;) {
        Symbol *l = &e->sym[i], *r = &e->sym[l->next];
        l->len += r->len;
        l->next = r->next;
        r->next = -1;
        if (l->next >= 0) e->sym[l->next].prev = i;
        rescore(e, (int)(r - e->sym));
        rescore(e, i);
        if (l->prev >= 0) rescore(e, l->prev);
    }
}
int *tokenizer_encode(const Tokenizer *t, const char *text, size_t len, size_t *n_out) {
    if (t->refuses)
        die("%s: cannot encode: it has model_type %d, %s; use ready-made shards or another model",
            t->path, t->model_type, t->refuses);
    if (len > 1 << 28) die("expected at most %d bytes of text, found %zu; split it", 1 << 28, len);
    size_t n, end, o = 0;
    uint8_t *s = normalize(t, (const uint8_t *)text, len, &n);
    Encoder e = {.t = t, .text = s};
    int after_unk = 0, *out = xcalloc(n + 1, sizeof *out);
    /* Where U+2581 only ever starts a piece, no merge crosses one: words are encoded one by one. */
    for (size_t from = 0; from < n; from = end) {
        for (end = t->inner_space ? n : from + 1; end < n && memcmp(s + end, SPACE, 3);) end++;
        merge_stretch(&e, from, end);
        for (const Symbol *x = e.sym; x; x = x->next < 0 ? NULL : &e.sym[x->next]) {
            int id = *find_piece(t, s + x->at, (size_t)x->len, 1);
            if (id < 0) id = *find_piece(t, s + x->at, (size_t)x->len, 0);
            const int unk = id < 0 || id == t->unk, bytes = unk && t->byte_id[0] >= 0;
            for (int k = 0; bytes && k < x->len; k++) out[o++] = t->byte_id[s[x->at + k]];
            if (!bytes && !(unk && after_unk)) out[o++] = unk ? t->unk : id; /* a run is one unk */
            after_unk = unk;
        }
    }
    free(s), free(e.sym);
    *n_out = o;
    return out;
}

char *tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, size_t *len_out) {
    size_t o = 0, cap = 1;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab)
            die("%s: expected token ids of 0..%d, found %d", t->path, t->vocab - 1, ids[i]);
        cap += (size_t)(ids[i] == t->unk ? t->shown_unk.len : t->piece[ids[i]].len);
    }
    char *out = xcalloc(cap, 1);
    int drops = t->dummy_prefix || t->trim_spaces; /* the first space is the dummy prefix */
    for (size_t i = 0; i < n; i++) {
        const Piece *x = ids[i] == t->unk ? &t->shown_unk : &t->piece[ids[i]];
        if (x->type == PIECE_BYTE) out[o++] = (char)strtol((const char *)x->text + 3, NULL, 16);
        if (x->type == PIECE_BYTE || x->type == PIECE_CONTROL) continue;
        for (int k = 0, space; k < x->len; k += space ? 3 : 1) {
            space = starts_with_space(x->text + k, x->len - k);
            if (space && drops && o == 0 && k == 0) drops = t->trim_spaces; /* it drops all */
            else out[o++] = space ? ' ' : (char)x->text[k];
        }
    }
    *len_out = o;
    return out;
}

/* ---------------------------------------------------------------- shards, the order of training */
Shards *shards_open(const char *dir, const char *split, int vocab) {
    Shards *s = xcalloc(1, sizeof *s);
    struct dirent **names;
    char want[64];
    const int len = snprintf(want, sizeof want, "_%s_", split);
    const int n = scandir(dir, &names, NULL, alphasort);
    if (n < 0) die("%s: cannot open the data folder: %s; run data/get.sh", dir, strerror(errno));
    s->vocab = vocab;
    s->shard = xcalloc((size_t)n, sizeof *s->shard);
    for (int i = 0; i < n; free(names[i++])) {
        const char *at = strstr(names[i]->d_name, want), *path = path_of(dir, names[i]->d_name);
        for (const char *next; at && (next = strstr(at + 1, want));) at = next; /* the last one */
        const size_t digits = at ? strspn(at + len, "0123456789") : 0;
        if (!digits || strcmp(at + len + digits, ".bin")) continue;
        Shard *x = &s->shard[s->count++];
        uint8_t head[12] = {0};
        x->path = strcpy(xcalloc(strlen(path) + 1, 1), path);
        x->fd = open(path, O_RDONLY);
        const int64_t size = lseek(x->fd, 0, SEEK_END);
        if (size < 0 || pread(x->fd, head, sizeof head, 0) < 0)
            die("%s: cannot read: %s", path, strerror(errno));
        x->first = s->tokens;
        x->tokens = (int64_t)get_u(head + 8, 4);
        s->tokens += x->tokens;
        const int64_t expected = SHARD_HEADER + 2 * x->tokens;
        if (get_u(head, 4) != SHARD_MAGIC || get_u(head + 4, 4) != 1 || size != expected)
            die("%s: expected a token shard (magic %d, version 1) of %lld bytes, found %lld; make "
                "it again: data/get.sh", path, SHARD_MAGIC, (long long)expected, (long long)size);
    }
    free(names);
    if (!s->count)
        die("%s: expected shards NAME_%s_000000.bin, found none; run data/get.sh", dir, split);
    return s;
}
void shards_read(const Shards *s, int64_t pos, int count, int *out) {
    if (pos < 0 || count < 0 || pos > s->tokens - count)
        die("%s: expected positions within %lld tokens, found %lld + %d", s->shard[0].path,
            (long long)s->tokens, (long long)pos, count);
    for (const Shard *x = s->shard; count > 0; x++) {
        const int64_t at = pos - x->first;
        if (at >= x->tokens) continue;
        const int n = count < x->tokens - at ? count : (int)(x->tokens - at);
        uint8_t *raw = (uint8_t *)(out + n) - 2 * n; /* the upper half of out: read in place */
        if (pread(x->fd, raw, 2 * (size_t)n, SHARD_HEADER + 2 * at) != 2 * (ssize_t)n)
            die("%s: cannot read %d tokens at %lld", x->path, n, (long long)at);
        for (int k = 0; k < n; k++) {
            out[k] = (int)get_u(raw + 2 * k, 2);
            if (out[k] >= s->vocab)
                die("%s: expected ids below the vocabulary of %d, found %d at position %lld; give "
                    "another tokenizer", x->path, s->vocab, out[k], (long long)(at + k));
        }
        out += n, pos += n, count -= n;
    }
}
/* A keyed shuffle of [0, n) without a table: a Feistel network permutes the smallest square
 * 4^h >= n; an image outside [0, n) is permuted again until it falls inside. */
static int64_t shuffled(int64_t i, int64_t n, uint64_t key) {
    int h = 1;
    while ((int64_t)1 << 2 * h < n) h++;
    const uint64_t mask = ((uint64_t)1 << h) - 1;
    uint64_t x = (uint64_t)i;
    do
        for (uint64_t round = 1; round <= 6; round++)
            x = (x & mask) << h | ((x >> h) ^ (hash64(key + round, x & mask) & mask));
    while (x >= (uint64_t)n);
    return (int64_t)x;
}
void shards_train_row(const Shards *s, uint64_t seed, int64_t row, int seq, int *out) {
    const int64_t windows = seq < 1 ? 0 : (s->tokens - 1) / seq;
    if (windows < 1)
        die("%s: expected at least %d + 1 tokens, found %lld; use more text or a smaller --seq",
            s->shard[0].path, seq, (long long)s->tokens);
    const int64_t epoch = row / windows, spare = s->tokens - 1 - windows * seq;
    const uint64_t key = hash64(seed, (uint64_t)epoch);
    const int64_t shift = (int64_t)(hash64(key, 0) % (uint64_t)(spare + 1)); /* of all windows */
    shards_read(s, shift + shuffled(row % windows, windows, key) * seq, seq + 1, out);
}
