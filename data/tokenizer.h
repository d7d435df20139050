/* Any SentencePiece .model: text to tokens and back, as the library does it.
 *
 * Part of train_golf.c, which includes this file in section 7: die(), files and crc32_of()
 * come from section 1. Nobody who reads the model needs it.
 *
 * A .model file is one protobuf message: a flat list of (field number, value) pairs in
 * which a value may be a message again. We read the few fields that matter:
 *
 *     1: piece           { 1: text, 2: float score, 3: type }    once for each id
 *     2: trainer_spec    { 3: model_type, 24: whitespace as suffix, 35: byte_fallback,
 *                          44: unk_surface, 46: BOS }
 *     3: normalizer_spec { 2: character map, 3: dummy prefix, 4: trim, 5: escape }
 *
 * Encoding has three steps. The text is normalised: characters are replaced by a map,
 * spaces are trimmed, written as U+2581, and one is put in front or behind. It is cut
 * into symbols or words of the kind of model. Each becomes an id: its own, the unknown
 * piece's, or those of its bytes. User-defined pieces pass all of it whole. */
#define SPACE "\xe2\x96\x81"

static int starts_with_space(const uint8_t *s, size_t n) {
    return n >= 3 && !memcmp(s, SPACE, 3);
}

/* --------------------------------------------------------------------------- protobuf */
/* Wire types: what kind of value follows a field number. 3 and 4 are never used. */
enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };
#define FIELD(number, wire) ((number) << 3 | (wire))

typedef struct {
    const char *path;       /* of the file, for error messages */
    const uint8_t *p, *end; /* [p, end) is unread */
    uint64_t field;         /* FIELD() of the field read last, */
    uint64_t number;        /* its number if it is a VARINT, */
    const uint8_t *value;   /* (len) and its bytes if it is not */
    size_t len;
} Protobuf;

/* Seven bits a byte, the lowest first; the top bit says that more follow. */
static uint64_t protobuf_varint(Protobuf *b) {
    uint64_t number = 0;
    int shift = 0;
    while (shift < 64 && b->p < b->end) {
        const uint8_t byte = *b->p;
        b->p++;
        number |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return number;
        shift += 7;
    }
    die("%s: expected a SentencePiece .model, found a broken number; fetch it again",
        b->path);
}

/* Reads a field, never outside [p, end); 0 at the end of the message. */
static int protobuf_next(Protobuf *b) {
    if (b->p == b->end) return 0;
    b->field = protobuf_varint(b);

    const int wire = b->field & 7;
    uint64_t size = UINT64_MAX; /* of a wire type that is none: longer than any file */
    if (wire == FIXED64) size = 8;
    if (wire == FIXED32) size = 4;
    if (wire == VARINT || wire == BYTES) {
        b->number = protobuf_varint(b);
        size = wire == BYTES ? b->number : 0;
    }
    if (size > (uint64_t)(b->end - b->p) || b->field < FIELD(1, 0))
        die("%s: expected a SentencePiece .model, found another file, or one cut short",
            b->path);

    b->value = b->p;
    b->len = (size_t)size;
    b->p += b->len;
    return 1;
}

/* ------------------------------------------------------------------------------ UTF-8 */
/* How many bytes a character has that starts with byte c; 0 when none does. */
static int utf8_announced(int c) {
    if (c < 0x80) return 1;
    if (c < 0xC2) return 0; /* inside a character, or at the start of an overlong one */
    if (c < 0xE0) return 2;
    if (c < 0xF0) return 3;
    if (c < 0xF5) return 4;
    return 0;
}

/* Length 1..4 of the UTF-8 character at p[0..n), n > 0; 0 when there is none. */
static int utf8_len(const uint8_t *p, size_t n) {
    const int c = p[0], len = utf8_announced(c);
    if ((size_t)len > n) return 0;
    for (int i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;

    if (c == 0xE0 && p[1] < 0xA0) return 0; /* overlong: fewer bytes would do */
    if (c == 0xF0 && p[1] < 0x90) return 0;
    if (c == 0xED && p[1] > 0x9F) return 0; /* half of a surrogate pair: no character */
    if (c == 0xF4 && p[1] > 0x8F) return 0; /* above U+10FFFF */
    return len;
}

/* --------------------------------------------------------------------------- the tables */
enum { UNIGRAM = 1, BPE, WORD, CHARACTER }; /* model_type */

/* Where two characters of a piece meet: a space and another one, or two spaces. */
enum { BEFORE_SPACE = 1, AFTER_SPACE = 2, BETWEEN_SPACES = 4 };

/* Texts that start like a text. Node 0 is the empty text; an edge is a slot of a hash
 * table. */
typedef struct {
    uint64_t *edge;        /* (slots) node << 8 | byte, plus 1; 0: free */
    uint32_t *to;          /* (slots) the node it leads to */
    int *id;               /* (nodes) of the piece that ends here, or -1 */
    uint32_t slots, nodes; /* slots: a power of two; 0: no texts at all */
} Trie;

/* A precompiled character map: what stands for the longest text that it knows. */
typedef struct {
    uint32_t *unit;   /* (units) a Darts double array; NULL: no map */
    const char *text; /* (len) what is written instead, each with a NUL behind it */
    size_t units, len;
} CharacterMap;

struct EncodingTables {
    int model_type;
    int *slot; /* (slots, a power of two) hash table: text -> id, -1: empty */
    uint32_t slots;
    int byte_id[256]; /* of byte piece <0xNN>, -1 without byte fallback */
    int meets;        /* BEFORE_SPACE, ...: what some piece has inside */
    int unused;       /* how many pieces are unused */
    int keeps_bytes;  /* are bytes that are no UTF-8 encoded as they are? */
    Part map_blob;
    CharacterMap map;
    Trie user, all;        /* user-defined pieces; of a unigram model all but reserved */
    float lowest, highest; /* scores of normal pieces */
};

/* The library keeps two tables, so that "<0x41>" typed in a text never becomes that byte
 * piece: one of what text can be made of, one of the reserved names. */
static int is_reserved(int type) {
    return type == PIECE_UNKNOWN || type == PIECE_CONTROL || type == PIECE_BYTE;
}

/* Where the id of a text (n) is, in one of the two tables; -1 stands where it would go.
 * There are at least four slots for every piece: the search always ends. */
static int *find_piece(const Tokenizer *t, const void *text, size_t n, int reserved) {
    uint32_t i = crc32_of(0, text, n);
    for (;; i++) {
        int *id = &t->own->slot[i & (t->own->slots - 1)];
        if (*id < 0) return id;
        const Piece *x = &t->piece[*id];
        if ((size_t)x->len != n || is_reserved(x->type) != reserved) continue;
        if (!memcmp(x->text, text, n)) return id;
    }
}

/* ---- Tries. */
/* The slot of the edge for byte from node, or the free one where it would go. At most half
 * of the slots are taken: the search always ends. */
static uint32_t trie_slot(const Trie *x, uint32_t node, uint8_t byte) {
    const uint64_t edge = ((uint64_t)node << 8 | byte) + 1;
    uint32_t i = (uint32_t)(edge * 0x9E3779B97F4A7C15u >> 32) & (x->slots - 1);
    while (x->edge[i] && x->edge[i] != edge) i = (i + 1) & (x->slots - 1);
    return i;
}

/* The node that byte leads to; 0, to which nothing leads, when there is none. */
static uint32_t trie_next(const Trie *x, uint32_t node, uint8_t byte) {
    const uint32_t i = trie_slot(x, node, byte);
    return x->edge[i] ? x->to[i] : 0;
}

static void trie_add(Trie *x, const Piece *piece, int id) {
    uint32_t node = 0;
    for (int k = 0; k < piece->len; k++) {
        const uint32_t i = trie_slot(x, node, piece->text[k]);
        if (!x->edge[i]) {
            x->edge[i] = ((uint64_t)node << 8 | piece->text[k]) + 1;
            x->to[i] = x->nodes;
            x->id[x->nodes] = -1;
            x->nodes++;
        }
        node = x->to[i];
    }
    x->id[node] = id;
}

/* Is the piece one of those that the trie holds? */
static int is_for_trie(const Piece *x, int user_alone) {
    return user_alone ? x->type == PIECE_USER : !is_reserved(x->type);
}

static void build_trie(const Tokenizer *t, Trie *x, int user_alone) {
    size_t most = 0; /* edges */
    for (int id = 0; id < t->vocab; id++)
        if (is_for_trie(&t->piece[id], user_alone)) most += (size_t)t->piece[id].len;
    if (!most) return;
    if (most > 1 << 28)
        die("%s: expected pieces of at most 2^28 bytes, found %zu", t->path, most);

    x->slots = 16;
    while (x->slots < 2 * most) x->slots *= 2;
    x->edge = xcalloc(x->slots, sizeof *x->edge);
    x->to = xcalloc(x->slots, sizeof *x->to);
    x->id = xcalloc(most + 1, sizeof *x->id);
    x->id[0] = -1;
    x->nodes = 1;
    for (int id = 0; id < t->vocab; id++)
        if (is_for_trie(&t->piece[id], user_alone)) trie_add(x, &t->piece[id], id);
}

/* The length of the longest text of the trie that s (n) starts with, or 0. */
static size_t trie_longest(const Trie *x, const uint8_t *s, size_t n) {
    size_t longest = 0, i = 0;
    uint32_t node = 0;
    if (!x->slots) return 0;
    while (i < n) {
        node = trie_next(x, node, s[i]);
        if (!node) break;
        i++;
        if (x->id[node] >= 0) longest = i;
    }
    return longest;
}

/* ---- The character map: u32 size of the double array in bytes, its units (u32 each, all
 * little-endian), then the texts. A unit has a label, the byte that leads to it, and an
 * offset: from unit i, byte c leads to unit i ^ offset ^ c if that has the label c. Where
 * a text ends, unit i ^ offset is a leaf, and holds a place among the texts. */
#define UNIT_LEAF (1u << 31)
enum { UNIT_ENDS = 1 << 8, MAP_KEY_MOST = 255, MAP_NESTED_MOST = 32 };

static uint32_t unit_label(uint32_t unit) { return unit & (UNIT_LEAF | 0xFF); }

/* 22 bits, or 22 bits that stand 8 higher. */
static uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & 1 << 9) >> 6);
}

_Noreturn static void refuse_map(const char *path, const char *what) {
    die("%s: expected a character map as SentencePiece compiles it, found %s; fetch it "
        "again",
        path, what);
}

static void check_leaf(const CharacterMap *m, const char *path, uint32_t leaf) {
    const uint32_t place = leaf & ~UNIT_LEAF;
    if (!(leaf & UNIT_LEAF)) refuse_map(path, "an end that is no leaf");
    if (place >= m->len) refuse_map(path, "a place behind its texts");
    if ((m->text[place] & 0xC0) == 0x80) refuse_map(path, "a text inside a character");
}

/* What can follow the key that leads to a unit: so many bytes; so many keys, each the start
 * of the next, of which the library looks at 32. */
typedef struct {
    uint8_t is_known, bytes, keys;
} Below;

/* Checks all that can be reached from the unit that a key of `depth` bytes leads to. below
 * (units): of those that were checked before. */
static Below check_units(const CharacterMap *m, const char *path, Below *below,
                         uint32_t node, int depth) {
    Below x = below[node];
    if (depth + x.bytes > MAP_KEY_MOST)
        refuse_map(path, "a key of over 255 bytes, or a circle");
    if (x.is_known) return x;
    const uint32_t unit = m->unit[node], base = node ^ unit_offset(unit);
    if ((base | 0xFF) >= m->units) refuse_map(path, "an offset that leads outside");

    for (uint32_t c = 0; c < 256; c++) {
        if (unit_label(m->unit[base ^ c]) != c) continue;
        const Below child = check_units(m, path, below, base ^ c, depth + 1);
        x.bytes = MAX(x.bytes, (uint8_t)(child.bytes + 1));
        x.keys = MAX(x.keys, child.keys);
    }
    if (unit & UNIT_ENDS) {
        check_leaf(m, path, m->unit[base]);
        x.keys++;
    }
    if (x.keys > MAP_NESTED_MOST) refuse_map(path, "over 32 keys inside each other");
    x.is_known = 1;
    below[node] = x;
    return x;
}

static void check_map(const CharacterMap *m, const char *path) {
    if (!m->len || m->text[m->len - 1]) refuse_map(path, "a last text without its end");
    size_t i = 0;
    while (i < m->len) {
        const int len = utf8_len((const uint8_t *)m->text + i, m->len - i);
        if (!len) refuse_map(path, "a text that is no UTF-8");
        i += (size_t)len;
    }
    if (m->unit[0] & (UNIT_LEAF | UNIT_ENDS)) refuse_map(path, "a root that is a leaf");
    Below *below = xcalloc(m->units, sizeof *below);
    check_units(m, path, below, 0, 0);
    free(below);
}

static void load_map(CharacterMap *m, const char *path, Part blob) {
    const uint8_t *p = blob.data;
    const uint64_t size = blob.len < 4 ? 0 : get_u(p, 4);
    if (!size || size % 4 || size > blob.len - 4)
        refuse_map(path, "a double array of another size than it says");
    m->units = (size_t)size / 4;
    m->unit = xcalloc(m->units, sizeof *m->unit);
    for (size_t i = 0; i < m->units; i++) m->unit[i] = (uint32_t)get_u(p + 4 + 4 * i, 4);
    m->text = (const char *)p + 4 + size;
    m->len = blob.len - 4 - (size_t)size;
    check_map(m, path);
}

/* The length of the longest key that s (n) starts with, or 0, and what stands for it. */
static size_t map_longest(const CharacterMap *m, const uint8_t *s, size_t n,
                          const char **to) {
    size_t longest = 0;
    if (!m->unit) return 0;
    uint32_t at = unit_offset(m->unit[0]);
    for (size_t i = 0; i < n; i++) {
        at ^= s[i];
        const uint32_t unit = m->unit[at];
        if (unit_label(unit) != s[i]) break;
        at ^= unit_offset(unit);
        if (!(unit & UNIT_ENDS)) continue;
        longest = i + 1;
        *to = m->text + (m->unit[at] & ~UNIT_LEAF);
    }
    return longest;
}

/* ----------------------------------------------------------------- loading the pieces */
enum { PIECE_MOST = 4095 }; /* bytes */

/* The piece that a message describes. */
static Piece read_piece(Protobuf b) {
    Piece x = {.type = PIECE_NORMAL};
    while (protobuf_next(&b)) {
        if (b.field == FIELD(1, BYTES)) {
            x.text = b.value;
            x.len = (int)b.len;
        }
        if (b.field == FIELD(2, FIXED32)) {
            const uint32_t bits = (uint32_t)get_u(b.value, 4);
            memcpy(&x.score, &bits, 4);
        }
        if (b.field == FIELD(3, VARINT)) x.type = (int)b.number;
    }
    return x;
}

/* NN of a byte piece's text "<0xNN>", as the library writes it; -1 when it is another. */
static int byte_of_piece(const Piece *x) {
    static const char digits[] = "0123456789ABCDEF";
    if (x->len != 6 || memcmp(x->text, "<0x", 3) || x->text[5] != '>') return -1;
    const char *high = memchr(digits, x->text[3], 16);
    const char *low = memchr(digits, x->text[4], 16);
    return high && low ? (int)(16 * (high - digits) + (low - digits)) : -1;
}

static void check_piece(const Tokenizer *t, int id) {
    const Piece *x = &t->piece[id];
    int valid = x->len >= 1 && x->len <= PIECE_MOST && x->type >= 1;
    if (x->type > PIECE_BYTE) valid = 0;
    if (!(fabsf(x->score) <= 3e38f)) valid = 0; /* NaN fails every comparison */
    if (valid && x->type == PIECE_BYTE) {
        const int byte = byte_of_piece(x);
        valid = byte >= 0 && t->own->byte_id[byte] < 0;
    }
    if (valid) return;
    die("%s: piece %d: expected 1..%d bytes (one <0xNN> a byte), a finite score and a "
        "type of 1..6, found %d, score %g, %d bytes",
        t->path, id, PIECE_MOST, x->type, (double)x->score, x->len);
}

/* Where a space of the piece, written as U+2581, meets another character. */
static int spaces_meet(const Piece *x) {
    int meets = 0, before = -1; /* was there a space? -1: nothing yet */
    for (int i = 0; i < x->len; i++) {
        const int space = starts_with_space(x->text + i, (size_t)(x->len - i));
        if (before == 1) meets |= space ? BETWEEN_SPACES : AFTER_SPACE;
        if (before == 0 && space) meets |= BEFORE_SPACE;
        before = space;
        i += space ? 2 : 0;
    }
    return meets;
}

/* The library has such texts in lists that end at a NUL, and finds characters in them. */
static int is_plain_text(const Piece *x) {
    int i = 0;
    if (memchr(x->text, 0, (size_t)x->len)) return 0;
    while (i < x->len) {
        const int len = utf8_len(x->text + i, (size_t)(x->len - i));
        if (!len) return 0;
        i += len;
    }
    return 1;
}

/* Its row of the table of bytes per token: the divisor of bits per byte. */
static void count_piece(Piece *x) {
    for (int i = 1; i < x->len; i++)
        x->inner_spaces += starts_with_space(x->text + i, (size_t)(x->len - i));
    x->boundary =
        x->type == PIECE_UNKNOWN || x->type == PIECE_CONTROL || x->type == PIECE_UNUSED;
    x->leading_space = !x->boundary && x->type != PIECE_BYTE &&
                       starts_with_space(x->text, (size_t)x->len);
    x->base_bytes = x->len - 3 * x->leading_space - 2 * x->inner_spaces;
    if (x->boundary) x->base_bytes = 0;
    if (x->type == PIECE_BYTE) x->base_bytes = 1;
}

/* Piece id from its message: checked, and entered in all tables. */
static void add_piece(Tokenizer *t, int id, Protobuf message) {
    Piece *x = &t->piece[id];
    *x = read_piece(message);
    check_piece(t, id);

    const int reserved = is_reserved(x->type);
    int *slot = find_piece(t, x->text, (size_t)x->len, reserved);
    int other = *slot;
    if (other < 0 && x->type == PIECE_UNKNOWN) other = t->unk;
    if (other >= 0)
        die("%s: expected distinct pieces and one unknown piece, found both %d and %d",
            t->path, other, id);
    *slot = id;
    count_piece(x);
    if (x->type == PIECE_UNKNOWN) t->unk = id;
    if (x->type == PIECE_BYTE) t->own->byte_id[byte_of_piece(x)] = id;
    if (reserved) return;

    t->own->meets |= spaces_meet(x);
    t->own->unused += x->type == PIECE_UNUSED;
    if (x->type == PIECE_USER && !is_plain_text(x))
        t->refuses = "a user-defined piece with a NUL, or that is no UTF-8";
    if (x->type != PIECE_NORMAL) return;
    t->own->lowest = MIN(t->own->lowest, x->score);
    t->own->highest = MAX(t->own->highest, x->score);
}

/* ------------------------------------------------------------------ loading the model */
static void read_trainer_spec(Tokenizer *t, Protobuf b, int *byte_fallback, Part *bos) {
    while (protobuf_next(&b)) {
        if (b.field == FIELD(3, VARINT)) t->own->model_type = (int)MIN(b.number, 255);
        if (b.field == FIELD(24, VARINT)) t->suffix = b.number != 0;
        if (b.field == FIELD(35, VARINT)) *byte_fallback = b.number != 0;
        if (b.field == FIELD(44, BYTES)) {
            t->shown_unk.text = b.value;
            t->shown_unk.len = (int)b.len;
        }
        if (b.field == FIELD(46, BYTES) && b.len) *bos = (Part){b.value, b.len};
    }
}

static void read_normalizer_spec(Tokenizer *t, Protobuf b) {
    while (protobuf_next(&b)) {
        if (b.field == FIELD(2, BYTES)) t->own->map_blob = (Part){b.value, b.len};
        if (b.field == FIELD(3, VARINT)) t->dummy_space = b.number != 0;
        if (b.field == FIELD(4, VARINT)) t->trim_spaces = b.number != 0;
        if (b.field == FIELD(5, VARINT)) t->escapes = b.number != 0;
    }
}

/* Empty tables for as many pieces as the message holds, and SentencePiece's defaults:
 * protobuf writes no field that has its default value. */
static void start_tables(Tokenizer *t, Protobuf b) {
    while (protobuf_next(&b)) t->vocab += b.field == FIELD(1, BYTES);
    if (t->vocab < 1 || t->vocab > 1 << 24)
        die("%s: expected a SentencePiece model, 1..2^24 pieces, found %d pieces",
            t->path, t->vocab);

    struct EncodingTables *own = xcalloc(1, sizeof *own);
    t->own = own;
    own->slots = 16;
    while (own->slots < 4 * (uint32_t)t->vocab) own->slots *= 2;
    own->slot = xcalloc(own->slots, sizeof *own->slot);
    memset(own->slot, 0xff, own->slots * sizeof *own->slot); /* all -1 */
    memset(own->byte_id, 0xff, sizeof own->byte_id);
    t->piece = xcalloc((size_t)t->vocab, sizeof *t->piece);

    t->unk = -1;
    t->shown_unk = (Piece){.text = (const uint8_t *)" \xe2\x81\x87 ", .len = 5};
    t->dummy_space = 1;
    t->trim_spaces = 1;
    t->escapes = 1;
    own->model_type = UNIGRAM;
    own->lowest = FLT_MAX; /* where there is no normal piece the library has these */
    own->highest = FLT_MIN;
}

static void check_model(const Tokenizer *t, int byte_fallback) {
    if (t->unk < 0) die("%s: expected an unknown piece (type 2), found none", t->path);
    for (int i = 0; i < 256; i++)
        if ((t->own->byte_id[i] >= 0) != byte_fallback)
            die("%s: byte_fallback=%d, yet the piece of byte 0x%02X is %s", t->path,
                byte_fallback, (unsigned)i, byte_fallback ? "missing" : "there");
}

/* The library finds the pieces of a unigram model in a trie, with a NUL behind each. */
static void ready_for_unigrams(Tokenizer *t) {
    build_trie(t, &t->own->all, 0);
    if (!t->own->all.slots) t->refuses = "no piece that text could be made of";
    for (int id = 0; id < t->vocab; id++) {
        const Piece *x = &t->piece[id];
        if (!is_reserved(x->type) && memchr(x->text, 0, (size_t)x->len))
            t->refuses = "a piece with a NUL in a unigram model";
    }
}

/* What only encoding needs. A tokenizer that gives every text back keeps bytes that are no
 * UTF-8, too, where the library has U+FFFD. */
static void ready_to_encode(Tokenizer *t) {
    struct EncodingTables *own = t->own;
    if (own->map_blob.len) load_map(&own->map, t->path, own->map_blob);
    own->keeps_bytes = own->byte_id[0] >= 0 && !own->map.unit && !t->dummy_space &&
                       !t->trim_spaces && t->escapes;
    if (own->model_type < UNIGRAM || own->model_type > CHARACTER)
        t->refuses = "a model_type that is none of 1..4";
    build_trie(t, &own->user, 1);
    if (own->model_type == UNIGRAM) ready_for_unigrams(t);
}

Tokenizer *tokenizer_load(const char *path) {
    Tokenizer *t = xcalloc(1, sizeof *t);
    t->file = read_file(path, &t->size);
    t->path = strcpy(xcalloc(strlen(path) + 1, 1), path);
    t->crc = crc32_of(0, t->file, t->size);

    Protobuf b = {.path = t->path, .p = t->file, .end = t->file + t->size};
    start_tables(t, b);
    int id = 0, byte_fallback = 0;
    Part bos = {"<s>", 3}; /* text of the BOS piece */
    while (protobuf_next(&b)) {
        const Protobuf inner = {.path = t->path, .p = b.value, .end = b.value + b.len};
        if (b.field == FIELD(1, BYTES)) {
            add_piece(t, id, inner);
            id++;
        }
        if (b.field == FIELD(2, BYTES)) read_trainer_spec(t, inner, &byte_fallback, &bos);
        if (b.field == FIELD(3, BYTES)) read_normalizer_spec(t, inner);
    }
    check_model(t, byte_fallback);
    ready_to_encode(t);

    t->bos = *find_piece(t, bos.data, bos.len, 1);
    if (t->bos >= 0 && t->piece[t->bos].type != PIECE_CONTROL) t->bos = -1;
    return t;
}

/* ------------------------------------------------------------------------- normalising */
typedef struct {
    uint8_t *text; /* (n) */
    size_t n, cap;
} Normalised;

static void append(Normalised *to, const void *bytes, size_t n) {
    if (!n) return;
    if (n > INT32_MAX - to->n)
        die("expected text that has less than 2^31 bytes when it is normalised; split it");
    if (to->n + n > to->cap) {
        to->cap = 2 * (to->n + n) + 64;
        to->text = realloc(to->text, to->cap);
        if (!to->text) die("out of memory: %zu bytes", to->cap);
    }
    memcpy(to->text + to->n, bytes, n);
    to->n += n;
}

static void append_space(const Tokenizer *t, Normalised *to) {
    if (t->escapes) append(to, SPACE, 3);
    else append(to, " ", 1);
}

static int ends_with_space(const Tokenizer *t, const Normalised *x) {
    if (!t->escapes) return x->n >= 1 && x->text[x->n - 1] == ' ';
    return x->n >= 3 && !memcmp(x->text + x->n - 3, SPACE, 3);
}

/* What s (n), n > 0, starts with becomes `to`: a user-defined piece stays, the longest text
 * that the map knows is replaced, any other character stays. Returns its length. */
static size_t map_prefix(const Tokenizer *t, const uint8_t *s, size_t n, Part *to) {
    const char *text = "\xef\xbf\xbd"; /* of what is no UTF-8 */
    size_t len = trie_longest(&t->own->user, s, n);
    if (!len) {
        len = map_longest(&t->own->map, s, n, &text);
        if (len) {
            *to = (Part){text, strlen(text)};
            return len;
        }
        len = (size_t)utf8_len(s, n);
    }
    if (!len && !t->own->keeps_bytes) {
        *to = (Part){text, 3};
        return 1;
    }
    len = MAX(len, 1);
    *to = (Part){s, len};
    return len;
}

/* Appends a mapped text, its spaces escaped, without those at its start if there was one
 * before. Returns whether there is one at its end. */
static int append_mapped(const Tokenizer *t, Normalised *to, Part x, int after_space) {
    const char *p = x.data, *end = p + x.len;
    if (after_space)
        while (p < end && *p == ' ') p++;
    if (p == end) return after_space;
    while (p < end) {
        const char *space = memchr(p, ' ', (size_t)(end - p));
        const char *until = space ? space : end;
        append(to, p, (size_t)(until - p));
        if (space) append_space(t, to);
        p = space ? space + 1 : end;
    }
    return end[-1] == ' ';
}

/* The library's Normalizer, step by step. Returns text to free. */
static Normalised normalise_text(const Tokenizer *t, const uint8_t *s, size_t n) {
    Normalised to = {0};
    Part x;
    size_t i = 0;
    while (t->trim_spaces && i < n) {
        const size_t len = map_prefix(t, s + i, n - i, &x);
        if (x.len != 1 || *(const char *)x.data != ' ') break;
        i += len;
    }
    if (i == n) return to;

    if (t->dummy_space && !t->suffix) append_space(t, &to);
    int after_space = t->trim_spaces;
    while (i < n) {
        i += map_prefix(t, s + i, n - i, &x);
        after_space = append_mapped(t, &to, x, after_space) && t->trim_spaces;
    }
    if (t->trim_spaces)
        while (ends_with_space(t, &to)) to.n -= t->escapes ? 3 : 1;
    if (t->dummy_space && t->suffix) append_space(t, &to);
    return to;
}

/* -------------------------------------------------------------------- symbols to ids */
typedef struct {
    const Tokenizer *t;
    int *id; /* (n) with room for one a byte */
    size_t n;
    int after_unk;
} Ids;

/* The id of text (len), where both tables count; the unknown piece if there is none. */
static int id_of_text(const Tokenizer *t, const uint8_t *text, size_t len) {
    int id = *find_piece(t, text, len, 1);
    if (id < 0) id = *find_piece(t, text, len, 0);
    return id < 0 ? t->unk : id;
}

/* Appends what text (len) with this id becomes. */
static void put_id(Ids *to, int id, const uint8_t *text, size_t len) {
    const Tokenizer *t = to->t;
    const int unk = id == t->unk, bytes = t->own->byte_id[0] >= 0;
    if (t->piece[id].type == PIECE_CONTROL)
        die("%s: cannot encode \"%.*s\": it is control piece %d, which no text may "
            "contain, as in SentencePiece; remove it",
            t->path, (int)len, (const char *)text, id);
    if (unk && bytes) {
        for (size_t k = 0; k < len; k++) {
            to->id[to->n] = t->own->byte_id[text[k]];
            to->n++;
        }
    } else if (!unk || !to->after_unk) { /* a run of unknown text is one unk */
        to->id[to->n] = id;
        to->n++;
    }
    to->after_unk = unk;
}

/* The length of the symbol that s (n) starts with: a user-defined piece, a character, or a
 * byte that is in none. */
static size_t symbol_len(const Tokenizer *t, const uint8_t *s, size_t n, int *user) {
    size_t len = trie_longest(&t->own->user, s, n);
    *user = len > 0;
    if (!len) len = (size_t)utf8_len(s, n);
    return MAX(len, 1);
}

static void encode_characters(Ids *to, const uint8_t *s, size_t n) {
    size_t i = 0;
    int user;
    while (i < n) {
        const size_t len = symbol_len(to->t, s + i, n - i, &user);
        put_id(to, id_of_text(to->t, s + i, len), s + i, len);
        i += len;
    }
}

/* A word ends before a space. */
static void encode_words(Ids *to, const uint8_t *s, size_t n) {
    size_t from = 0;
    while (from < n) {
        size_t end = from + 1;
        while (end < n && !starts_with_space(s + end, n - end)) end++;
        put_id(to, id_of_text(to->t, s + from, end - from), s + from, end - from);
        from = end;
    }
}

/* ---------------------------------------------------------------------------- unigrams */
/* The best way to make the text up to a byte: its last piece, and the sum of the scores. */
typedef struct {
    int id, from; /* from -1: no way yet */
    float score;
} Path;

/* Sums are of doubles and kept in floats, as in the library: that decides between paths
 * which are nearly, or quite, as good. Of equals the one that was found first stays. */
static void offer(Path *to, int id, int from, double score) {
    if (to->from >= 0 && !(score > (double)to->score)) return;
    *to = (Path){.id = id, .from = from, .score = (float)score};
}

/* User-defined pieces have nearly the best score, or many times that. */
static double piece_score(const Tokenizer *t, const Piece *x) {
    if (x->type != PIECE_USER) return (double)x->score;
    return (double)((float)x->len * t->own->highest) - 0.1;
}

/* Offers all pieces that start at a character of s (n). */
static void offer_pieces(const Tokenizer *t, Path *path, const uint8_t *s, int n, int at,
                         int character) {
    const Trie *x = &t->own->all;
    const float so_far = path[at].score;
    uint32_t node = 0;
    int single = 0; /* is the character a piece? */
    for (int i = at; i < n; i++) {
        node = trie_next(x, node, s[i]);
        if (!node) break;
        const int id = x->id[node];
        if (id < 0 || t->piece[id].type == PIECE_UNUSED) continue;
        offer(&path[i + 1], id, at, piece_score(t, &t->piece[id]) + (double)so_far);
        single |= i + 1 - at == character;
    }
    const float unknown = t->own->lowest - 10;
    if (!single) offer(&path[at + character], t->unk, at, (double)(unknown + so_far));
}

/* Viterbi's algorithm: the pieces with the largest sum of scores. */
static void encode_unigrams(Ids *to, const uint8_t *s, size_t size) {
    const int n = (int)size;
    Path *path = xcalloc(size + 1, sizeof *path);
    for (int i = 0; i <= n; i++) path[i].from = -1;
    int at = 0;
    while (at < n) {
        const int character = MAX(1, utf8_len(s + at, (size_t)(n - at)));
        offer_pieces(to->t, path, s, n, at, character);
        at += character;
    }

    int *end = xcalloc(size + 1, sizeof *end); /* (pieces) the last one first */
    int pieces = 0;
    for (int i = n; i > 0; i = path[i].from) {
        end[pieces] = i;
        pieces++;
    }
    for (int k = pieces - 1; k >= 0; k--) {
        const Path *x = &path[end[k]];
        put_id(to, x->id, s + x->from, (size_t)(end[k] - x->from));
    }
    free(end);
    free(path);
}

/* ----------------------------------------------------------------- byte pair encoding */
/* A stretch of text on its way from characters to pieces: a linked list of symbols, and a
 * tournament among them. Every node of a binary tree names the symbol below it whose
 * merge scores best, so that a merge costs log2(symbols) comparisons, three times. */
typedef struct {
    int at, len;    /* it is text[at, at + len) */
    int prev, next; /* its neighbours, -1 at the ends */
    float score;    /* of merging it with the next one; -INFINITY: no such piece */
    int user;       /* a user-defined piece merges with nothing */
} Symbol;

typedef struct {
    const Tokenizer *t;
    const uint8_t *text; /* normalised */
    int cap, leaves;     /* leaves <= cap: a power of two, one leaf a symbol */
    Symbol *sym;         /* (cap) the list starts at sym[0] */
    int *best;           /* (2 * cap) the tree: root 1, children 2k and 2k + 1 */
    int *split;          /* (V) of unused pieces: bytes of the left of the two parts */
} Encoder;

/* The score of merging symbol s with the one after it. */
static float merge_score(const Encoder *e, const Symbol *s) {
    const Symbol *next = &e->sym[s->next];
    if (s->user || next->user) return -INFINITY;
    const size_t len = (size_t)(s->len + next->len);
    const int id = *find_piece(e->t, e->text + s->at, len, 0);
    if (id < 0) return -INFINITY;
    if (e->t->piece[id].type == PIECE_UNUSED) e->split[id] = s->len;
    return e->t->piece[id].score;
}

/* Symbol i, or the one after it, has changed: its score, and the tree above it. */
static void rescore(Encoder *e, int i) {
    Symbol *s = &e->sym[i];
    s->score = s->next < 0 ? -INFINITY : merge_score(e, s);
    for (int k = (e->leaves + i) / 2; k > 0; k /= 2) { /* of equals the leftmost */
        const int left = e->best[2 * k], right = e->best[2 * k + 1];
        e->best[k] = e->sym[right].score > e->sym[left].score ? right : left;
    }
}

/* Symbol i takes in the one after it, which leaves the list. */
static void merge_with_next(Encoder *e, int i) {
    Symbol *left = &e->sym[i];
    const int gone = left->next;
    Symbol *right = &e->sym[gone];
    left->len += right->len;
    left->next = right->next;
    right->next = -1;
    if (left->next >= 0) e->sym[left->next].prev = i;

    rescore(e, gone);
    rescore(e, i);
    if (left->prev >= 0) rescore(e, left->prev);
}

/* Makes the symbols of text[from, to). */
static void split_symbols(Encoder *e, size_t from, size_t to) {
    int n = 0, user;
    size_t i = from;
    while (i < to) {
        const int len = (int)symbol_len(e->t, e->text + i, to - i, &user);
        e->sym[n] = (Symbol){.at = (int)i, .len = len, .prev = n - 1, .next = n + 1};
        e->sym[n].user = user;
        i += (size_t)len;
        n++;
    }
    for (int k = n - 1; k < e->leaves; k++) e->sym[k].next = -1; /* unused leaves, too */
}

/* Merges the symbols of text[from, to) into pieces: the list that starts at sym[0]. */
static void merge_stretch(Encoder *e, size_t from, size_t to) {
    e->leaves = 1;
    while ((size_t)e->leaves < to - from) e->leaves *= 2;
    if (e->cap < e->leaves) {
        free(e->sym);
        free(e->best);
        e->cap = e->leaves;
        e->sym = xcalloc((size_t)e->cap, sizeof *e->sym);
        e->best = xcalloc(2 * (size_t)e->cap, sizeof *e->best);
    }

    split_symbols(e, from, to);
    for (int i = 0; i < e->leaves; i++) {
        e->best[e->leaves + i] = i;
        rescore(e, i);
    }
    while (e->sym[e->best[1]].score > -INFINITY) merge_with_next(e, e->best[1]);
}

/* Where no piece has what meets here, no merge crosses: words are encoded one by one.
 * Returns the end of the stretch of s (n) that starts at from. */
static size_t stretch_end(const Tokenizer *t, const uint8_t *s, size_t from, size_t n) {
    size_t i = from;
    int before = -1; /* was there a space? */
    while (i < n) {
        const int space = starts_with_space(s + i, n - i);
        int meets = 0;
        if (before == 1) meets = space ? BETWEEN_SPACES : AFTER_SPACE;
        if (before == 0 && space) meets = BEFORE_SPACE;
        if (meets & ~t->own->meets) return i;
        before = space;
        i += space ? 3 : 1;
    }
    return n;
}

/* Appends the id of a symbol; an unused one falls apart into what it was made of, which is
 * the same wherever it stands. */
static void put_symbol(Ids *to, const Encoder *e, const uint8_t *text, size_t len) {
    const int id = id_of_text(e->t, text, len);
    const int left = e->t->piece[id].type == PIECE_UNUSED ? e->split[id] : 0;
    if (!left) {
        put_id(to, id, text, len);
        return;
    }
    put_symbol(to, e, text, (size_t)left);
    put_symbol(to, e, text + left, len - (size_t)left);
}

static void encode_pairs(Ids *to, const uint8_t *s, size_t n) {
    Encoder e = {.t = to->t, .text = s};
    if (to->t->own->unused) e.split = xcalloc((size_t)to->t->vocab, sizeof *e.split);
    size_t from = 0;
    while (from < n) {
        const size_t end = stretch_end(to->t, s, from, n);
        merge_stretch(&e, from, end);
        for (int i = 0; i >= 0; i = e.sym[i].next)
            put_symbol(to, &e, s + e.sym[i].at, (size_t)e.sym[i].len);
        from = end;
    }
    free(e.sym);
    free(e.best);
    free(e.split);
}

/* --------------------------------------------------------------------------- encoding */
static size_t encode_most = 1 << 28; /* bytes at once; a test takes fewer */

static void encode_as(int model_type, Ids *to, const uint8_t *s, size_t n) {
    if (model_type == UNIGRAM) encode_unigrams(to, s, n);
    if (model_type == BPE) encode_pairs(to, s, n);
    if (model_type == WORD) encode_words(to, s, n);
    if (model_type == CHARACTER) encode_characters(to, s, n);
}

int *tokenizer_encode(const Tokenizer *t, const char *text, size_t len, size_t *n_out) {
    if (t->refuses)
        die("%s: cannot encode: it has %s; use ready-made shards or another model",
            t->path, t->refuses);
    if (len > encode_most)
        die("expected at most %zu bytes of text, found %zu; split it", encode_most, len);

    Normalised x = normalise_text(t, (const uint8_t *)text, len);
    Ids ids = {.t = t, .id = xcalloc(x.n + 1, sizeof *ids.id)};
    encode_as(t->own->model_type, &ids, x.text, x.n);
    free(x.text);
    *n_out = ids.n;
    return ids.id;
}

/* --------------------------------------------------------------------------- decoding */
static const Piece *shown_piece(const Tokenizer *t, int id) {
    return id == t->unk ? &t->shown_unk : &t->piece[id];
}

char *tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, size_t *len_out) {
    size_t len = 0, cap = 1;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab)
            die("%s: expected token ids of 0..%d, found %d", t->path, t->vocab - 1,
                ids[i]);
        cap += (size_t)shown_piece(t, ids[i])->len;
    }

    char *out = xcalloc(cap, 1);
    /* does the next space in front of the text go? the first is the dummy prefix */
    int drops = t->dummy_space || t->trim_spaces;
    for (size_t i = 0; i < n; i++) {
        const Piece *x = shown_piece(t, ids[i]);
        if (x->type == PIECE_CONTROL) continue;
        if (x->type == PIECE_BYTE) {
            out[len++] = (char)strtol((const char *)x->text + 3, NULL, 16);
            continue;
        }
        int k = 0;
        while (k < x->len) {
            const int space = starts_with_space(x->text + k, (size_t)(x->len - k));
            if (space && drops && len == 0 && k == 0) {
                drops = t->trim_spaces;
            } else {
                out[len++] = space ? ' ' : (char)x->text[k];
            }
            k += space ? 3 : 1;
        }
    }
    *len_out = len;
    return out;
}
