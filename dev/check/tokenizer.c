/* tokenizer.c - tokenizers of every kind that SentencePiece has: text to ids and back, the
 * table of bytes per token, models that are refused, what `encode` and `decode` do. The
 * facts about models made by hand are the library's; dev/check/tokenizers.py compares with
 * the library itself. */
#include "check.h"

/* ------------------------------------------------------------------------------------
 * A model that gives every text back */
static void expect_ids(const Tokenizer *t, const char *text, const char *want) {
    char got[1024] = "";
    size_t n, at = 0;
    int *ids = tokenizer_encode(t, text, strlen(text), &n);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%d", i ? " " : "", ids[i]);
    CHECK(!strcmp(got, want), "\"%s\": expected %s, found %s", text, want, got);
    free(ids);
}

/* Text comes back, and the divisor of bits per byte counts each of its bytes once. */
static void round_trip(const Tokenizer *t, const char *s, size_t n) {
    size_t k, len, sum = 0;
    int *ids = tokenizer_encode(t, s, n, &k);
    char *back = tokenizer_decode(t, ids, k, &len);

    for (size_t i = 0; i < k; i++)
        sum += (size_t)tokenizer_bytes(t, i ? ids[i - 1] : t->bos, ids[i]);
    if (k) sum += (size_t)t->piece[ids[0]].leading_space; /* not counted after BOS */
    CHECK(len == n && !memcmp(back, s, n) && sum == n, "%zu bytes: %zu, counted %zu", n,
          len, sum);
    free(ids);
    free(back);
}

/* Any bytes; few letters; what looks like UTF-8. */
static char odd_byte(int kind) {
    if (kind == 0) return (char)dice(256);
    if (kind == 1) return " abc\n\x81\xe2"[dice(7)];
    return "\xc3\xa9\xe2\x82\xac\xf0\x9f a"[dice(9)];
}

static void round_trips(const Tokenizer *t) {
    char s[2048];
    for (int i = 0; i < 256; i++) {
        s[0] = (char)i;
        round_trip(t, s, 1);
    }
    for (int i = 0; i < 256; i++) s[i] = (char)i;
    round_trip(t, s, 256);
    for (int r = 0; r < 60; r++) {
        const size_t n = (size_t)dice(2000);
        for (size_t i = 0; i < n; i++) s[i] = odd_byte(r % 3);
        for (size_t i = 0; i + 3 <= n; i++)
            if (!memcmp(s + i, SPACE, 3)) s[i] = '_'; /* it is written as a space */
        round_trip(t, s, n);
    }
}

static void test_encoding(void) {
    static const char *const rows[][2] = {
        {"", ""},
        {"bc", "261"},
        {"abab", "260 260"},
        {" a b", "263 264 102"},
        {"  a", "264 263"},
        {"abc", "262"},       /* ab first (score 0), then abc */
        {" abc", "264 262"},  /* ab (0) before _a (-3) */
        {"ccc", "265 103"},   /* of equal merges the left one; byte c is 4 + 0x63 = 103 */
        {"<s>", "64 119 66"}, /* control pieces are not made from text */
        {"\xc3\xa9", "199 173"}};

    write_hand_model(IN("t.model"));
    const Tokenizer *t = tokenizer_load(IN("t.model"));
    CHECK(t->vocab == HAND_VOCAB && t->bos == 1 && t->unk == 3, "special ids");
    for (size_t i = 0; i < COUNT(rows); i++) expect_ids(t, rows[i][0], rows[i][1]);
    round_trips(t);
}

/* The id of a text among normal pieces, looked up one by one; -1 when there is none. */
static int naive_id(const Tokenizer *t, const uint8_t *text, int len) {
    for (int id = 0; id < t->vocab; id++) {
        const Piece *x = t->piece + id;
        if (x->type == PIECE_NORMAL && x->len == len &&
            !memcmp(x->text, text, (size_t)len))
            return id;
    }
    return -1;
}

/* BPE by its definition: again and again, of all neighbours that make a piece, the
 * pair with the best score merges, the first of equals. Letters are one byte here;
 * returns how many symbols. */
static int naive_bpe(const Tokenizer *t, const uint8_t *s, int n, int *at, int *len) {
    int count = 0, next = 0;
    while (next < n) {
        at[count] = next;
        len[count] = starts_with_space(s + next, n - next) ? 3 : 1;
        next += len[count];
        count++;
    }

    for (;;) {
        int best = -1;
        float score = -INFINITY;
        for (int i = 0; i + 1 < count; i++) {
            const int id = naive_id(t, s + at[i], len[i] + len[i + 1]);
            if (id < 0 || !(t->piece[id].score > score)) continue;
            score = t->piece[id].score;
            best = i;
        }
        if (best < 0) return count;
        len[best] += len[best + 1];
        count--;
        for (int i = best + 1; i < count; i++) {
            at[i] = at[i + 1];
            len[i] = len[i + 1];
        }
    }
}

static void test_encoding_naively(void) {
    enum { MOST = 60 };
    write_hand_model(IN("t.model"));
    const Tokenizer *t = tokenizer_load(IN("t.model"));
    for (int round = 0; round < 100; round++) {
        char text[MOST];
        uint8_t escaped[3 * MOST];
        int at[3 * MOST], len[3 * MOST], n = 0, good = 1;
        const int letters = dice(MOST);

        for (int i = 0; i < letters; i++) {
            text[i] = " abcc"[dice(5)];
            if (text[i] == ' ') memcpy(escaped + n, SPACE, 3);
            else escaped[n] = (uint8_t)text[i];
            n += text[i] == ' ' ? 3 : 1;
        }

        const int count = naive_bpe(t, escaped, n, at, len);
        size_t found;
        int *ids = tokenizer_encode(t, text, (size_t)letters, &found);
        for (int i = 0; i < MIN(count, (int)found); i++) {
            int want = naive_id(t, escaped + at[i], len[i]);
            if (want < 0) want = 4 + escaped[at[i]]; /* no piece: the letter's byte */
            good &= ids[i] == want;
        }
        CHECK(good && (int)found == count, "\"%.*s\": %zu pieces, naively %d", letters,
              text, found, count);
        free(ids);
    }
}

/* The divisor of bpb: bytes of the piece, its leading space only after real text. */
static void test_byte_counts(void) {
    static const struct {
        int before, token, bytes;
    } rows[] = {{1, SP_A, 1}, {AB, SP_A, 2}, {AB, SP, 1},  {1, SP, 0},
                {AB, 1, 0},   {AB, 3, 0},    {SP_A, 4, 1}, {4, ABC, 3},
                {2, SP_A, 1}, {3, SP_A, 1},  {0, AB, 2},   {99, 259, 1}};
    write_hand_model(IN("t.model"));
    const Tokenizer *t = tokenizer_load(IN("t.model"));
    for (size_t i = 0; i < COUNT(rows); i++) {
        const int got = tokenizer_bytes(t, rows[i].before, rows[i].token);
        CHECK(got == rows[i].bytes, "bytes of %d after %d: %d", rows[i].token,
              rows[i].before, got);
    }
}

/* The library's default flags, a dummy prefix and trimmed spaces; unknown letters. */
static void test_default_flags(void) {
    static Proto p;
    size_t len;

    pb_start(&p, 0);
    pb_piece(&p, SPACE "a", 0, 1); /* 4 */
    pb_piece(&p, SPACE, -1, 1);
    pb_piece(&p, "a", -2, 1);
    pb_raw(&p, "\x12\x02\x18\x02", 4);
    put_file(IN("t.model"), p.b, p.n);
    const Tokenizer *t = tokenizer_load(IN("t.model"));
    expect_ids(t, "a", "4");
    expect_ids(t, "  axyz  a ", "4 3 4");
    char *s = tokenizer_decode(t, (int[]){4, 3, 4}, 3, &len);
    CHECK(!strcmp(s, "a \xe2\x81\x87  a"), "decoded \"%s\"", s);
}

/* ------------------------------------------------------------------------------------
 * Character maps, made as simply as they can be: first fit */
typedef struct {
    const char *key, *to;
} Rule;

enum { MAP_UNITS = 4096 };

typedef struct {
    uint32_t unit[MAP_UNITS], units;
    uint8_t taken[MAP_UNITS], is_base[MAP_UNITS];
    char text[2048];
    size_t len;
    uint32_t first, first_base; /* the unit where the first key ends, and its leaf */
} MadeMap;

static int starts(const Rule *rule, const char *prefix, size_t len) {
    return strlen(rule->key) >= len && !memcmp(rule->key, prefix, len);
}

/* Is there room at base for a leaf, if one is needed, and for these labels? */
static int is_room(const MadeMap *m, uint32_t base, const uint8_t *label, int ends) {
    if (m->is_base[base] || (ends && m->taken[base])) return 0;
    for (uint32_t c = 1; c < 256; c++)
        if (label[c] && m->taken[base ^ c]) return 0;
    return 1;
}

/* Unit `node`, to which the first len bytes of prefix lead, and all below it. */
static void place_node(MadeMap *m, const Rule *rule, int rules, char *prefix, size_t len,
                       uint32_t node) {
    uint8_t label[256] = {0};
    int end = -1;
    uint32_t base = len % 2 ? node ^ 0x100 : 1; /* far, so that offsets have both forms */
    for (int i = 0; i < rules; i++) {
        if (!starts(rule + i, prefix, len)) continue;
        label[(uint8_t)rule[i].key[len]] = 1;
        if (!rule[i].key[len]) end = i;
    }
    while (!is_room(m, base, label, end >= 0)) base++;
    m->is_base[base] = 1;

    const uint32_t offset = node ^ base;
    m->unit[node] |= offset & 0xFF || !offset ? offset << 10 : offset >> 8 << 10 | 1 << 9;
    m->units = MAX(m->units, (base | 0xFF) + 1);
    if (end >= 0) {
        m->unit[node] |= UNIT_ENDS;
        m->unit[base] = UNIT_LEAF | (uint32_t)m->len;
        m->taken[base] = 1;
        m->len += (size_t)sprintf(m->text + m->len, "%s", rule[end].to) + 1;
    }
    if (end == 0) {
        m->first = node;
        m->first_base = base;
    }
    for (uint32_t c = 1; c < 256; c++) {
        if (!label[c]) continue;
        m->unit[base ^ c] = c;
        m->taken[base ^ c] = 1;
    }
    for (uint32_t c = 1; c < 256; c++) {
        if (!label[c]) continue;
        prefix[len] = (char)c;
        place_node(m, rule, rules, prefix, len + 1, base ^ c);
    }
}

static MadeMap *make_map(const Rule *rule, int rules) {
    static MadeMap m;
    char prefix[512];
    memset(&m, 0, sizeof m);
    for (int i = 0; i < MAP_UNITS; i++) m.unit[i] = UNIT_LEAF; /* where nothing leads */
    m.unit[0] = 0;
    m.taken[0] = 1;
    place_node(&m, rule, rules, prefix, 0, 0);
    return &m;
}

/* ------------------------------------------------------------------------------------
 * Models made by hand */
typedef struct {
    const char *text;
    float score;
    int type;
} MadePiece;

typedef struct {
    int kind, bytes;     /* model_type; has it byte pieces? */
    MadePiece piece[16]; /* from id 4 or, behind byte pieces, 260 on */
    int plain;           /* no dummy space, nothing trimmed */
    int suffix, unescaped;
    const MadeMap *map;
} MadeModel;

static void pb_varint(Proto *p, size_t n) {
    while (n > 127) {
        pb_raw(p, (const char[]){(char)(n | 128)}, 1);
        n >>= 7;
    }
    pb_raw(p, (const char[]){(char)n}, 1);
}

static void pb_bytes(Proto *p, size_t field, const void *bytes, size_t n) {
    pb_varint(p, field << 3 | 2);
    pb_varint(p, n);
    pb_raw(p, bytes, n);
}

static void pb_number(Proto *p, size_t field, int n) {
    pb_varint(p, field << 3);
    pb_varint(p, (size_t)n);
}

static void pb_map(Proto *p, const MadeMap *m) {
    static uint8_t blob[4 + 4 * MAP_UNITS + sizeof m->text];
    put_u(blob, 4 * m->units, 4);
    for (size_t i = 0; i < m->units; i++) put_u(blob + 4 + 4 * i, m->unit[i], 4);
    memcpy(blob + 4 + 4 * m->units, m->text, m->len);
    pb_bytes(p, 2, blob, 4 + 4 * m->units + m->len);
}

static void write_model(const char *path, const MadeModel *x) {
    static Proto p, part;
    pb_start(&p, x->bytes);
    for (int i = 0; i < 16 && x->piece[i].text; i++)
        pb_piece(&p, x->piece[i].text, x->piece[i].score,
                 x->piece[i].type ? x->piece[i].type : PIECE_NORMAL);
    part.n = 0;
    pb_number(&part, 3, x->kind);
    pb_number(&part, 24, x->suffix);
    pb_number(&part, 35, x->bytes);
    pb_bytes(&p, 2, part.b, part.n);
    part.n = 0;
    if (x->map) pb_map(&part, x->map);
    pb_number(&part, 3, !x->plain);
    pb_number(&part, 4, !x->plain);
    pb_number(&part, 5, !x->unescaped);
    pb_bytes(&p, 3, part.b, part.n);
    put_file(path, p.b, p.n);
}

static const Tokenizer *made_tokenizer(const MadeModel *x) {
    write_model(IN("made.model"), x);
    return tokenizer_load(IN("made.model"));
}

/* ------------------------------------------------------------------------------------
 * Facts: what the library makes of a text */
typedef struct {
    const char *what;
    MadeModel model;
    const char *rows[8][2]; /* text, ids */
} Facts;

#define FFFD "\xef\xbf\xbd"
#define USER PIECE_USER
#define UNUSED PIECE_UNUSED

static const Facts facts[] = {
    {"unigrams",
     {UNIGRAM, 0,
      .piece = {{"ab", -3, 0},
                {"a", -1, 0},
                {"b", -1, 0},
                {"abc", -9, 0},
                {"c", -8, 0},
                {SPACE, -2, 0}}},
     {{"ab", "9 5 6"},     /* -2 beats -3 */
      {"abc", "9 7"},      /* -9 beats -10 */
      {"axb", "9 5 3 6"},  /* unknown */
      {"axyb", "9 5 3 6"}, /* a run of them is one */
      {"a  b ", "9 5 9 6"},
      {"", ""},
      {"  ", ""}}},
    {"ties: the piece that starts first stays",
     {UNIGRAM, 0, .piece = {{"ab", -2, 0}, {"a", -1, 0}, {"b", -1, 0}, {"ba", -2, 0}},
      .plain = 1},
     {{"ab", "4"}, {"aba", "5 7"}, {"baba", "7 7"}}},
    {"sums in floats, compared in doubles",
     {UNIGRAM, 0,
      .piece = {{"a", -16777216, 0}, {"bc", -3, 0}, {"ab", -16777216, 0}, {"c", -3, 0}},
      .plain = 1},
     {{"abc", "6 7"}}},
    {"the unknown penalty",
     {UNIGRAM, 0, .piece = {{"ab", -9, 0}, {"c", -9, 0}, {"bc", -1, 0}}, .plain = 1},
     {{"abc", "4 5"}, {"bc", "6"}, {"xbc", "3 6"}, {"xxabb", "3 4 3"}}},
    {"bytes of what is unknown",
     {UNIGRAM, 1, .piece = {{SPACE "a", -1, 0}, {"b", -2, 0}}},
     {{"ab\xc3\xa9", "260 261 199 173"}, {"a\xff", "260 243 195 193"}}},
    {"bytes that are kept",
     {UNIGRAM, 1, .piece = {{SPACE "a", -1, 0}, {"b", -2, 0}}, .plain = 1},
     {{" a\xff", "260 259"}}},
    {"user-defined unigrams",
     {UNIGRAM, 0,
      .piece = {{"abc", -1, 0},
                {"bc", -50, USER},
                {"a", -5, 0},
                {"b", -1, 0},
                {SPACE, -1, 0},
                {"bca", 0, USER}}},
     {{"abc", "8 4"}, {"abca", "8 6 9"}, {"bcbca", "8 5 9"}}},
    {"unused unigrams",
     {UNIGRAM, 0,
      .piece = {{"ab", -1, UNUSED}, {"a", -2, 0}, {"b", -2, UNUSED}, {"c", -1, 0}},
      .plain = 1},
     {{"abc", "5 3 7"}, {"ab", "5 3"}}},
    {"pairs: user-defined pieces merge with nothing",
     {BPE, 0,
      .piece = {{"ab", 0, 0},
                {"abc", -1, 0},
                {"c", 0, USER},
                {"a", -2, 0},
                {"b", -3, 0},
                {SPACE, -4, 0},
                {"cd", 0, USER}}},
     {{"abc", "9 4 6"}, {"abcd", "9 4 10"}, {"ccd", "9 6 10"}}},
    {"pairs: unused pieces fall apart",
     {BPE, 0,
      .piece = {{"ab", -1, UNUSED},
                {"abc", -2, 0},
                {"a", -3, 0},
                {"b", -4, 0},
                {"c", -5, 0},
                {"abcc", -6, UNUSED},
                {"d", -7, UNUSED}},
      .plain = 1},
     {{"ab", "6 7"}, {"abc", "5"}, {"abcc", "5 8"}, {"dab", "10 6 7"}}},
    {"pairs without pieces for letters",
     {BPE, 0, .piece = {{"ab", -1, 0}, {"a", -3, 0}, {SPACE "a", -2, 0}, {FFFD, -5, 0}}},
     {{"xab", "3 4"}, {"a\xff\xfe", "6 7 7"}, {"\xe2\x82", "3 7 7"}}},
    {"suffixes",
     {BPE, 0,
      .piece = {{"a" SPACE, -1, 0},
                {"b" SPACE, -2, 0},
                {"a", -3, 0},
                {"b", -4, 0},
                {SPACE, -5, 0}},
      .suffix = 1},
     {{"a b", "4 5"}, {" a  ", "4"}, {"aab", "6 6 5"}, {" ", ""}}},
    {"spaces as they are",
     {BPE, 0, .piece = {{" a", -1, 0}, {"a", -3, 0}, {" ", -5, 0}, {"  ", -6, 0}},
      .unescaped = 1},
     {{"a  a", "4 4"}, {" a ", "4"}}},
    {"characters",
     {CHARACTER, 0,
      .piece = {{"a", 0, 0},
                {"\xc3\xa9", 0, 0},
                {SPACE, 0, 0},
                {"aa", 0, 0},
                {"aab", 0, USER}}},
     {{"aa\xc3\xa9", "6 4 4 5"}, {"aaab", "6 4 8"}}},
    {"words",
     {WORD, 0, .piece = {{SPACE "a", 0, 0}, {SPACE "b", 0, 0}, {SPACE, 0, 0}}},
     {{"a b a", "4 5 4"}, {"a ab c b", "4 3 5"}}},
};

static void test_facts(void) {
    for (size_t i = 0; i < COUNT(facts); i++) {
        const int before = failed;
        const Tokenizer *t = made_tokenizer(&facts[i].model);
        for (int k = 0; k < 8 && facts[i].rows[k][0]; k++)
            expect_ids(t, facts[i].rows[k][0], facts[i].rows[k][1]);
        if (failed > before) printf("  of: %s\n", facts[i].what);
    }
    const Tokenizer *t = made_tokenizer(
        &(MadeModel){WORD, 0, .piece = {{"<s>", 0, 0}, {"a", 0, 0}}, .plain = 1});
    DIES("a control piece in a text", "made.model|<s>|control piece 1",
         expect_ids(t, "<s>", "1"));
}

/* ------------------------------------------------------------------------------------
 * Normalising, in one go over the text and step by step */
static const Rule rules[] = {
    {"\xef\xbd\x81", "a"},     {"A", "a"},        {"AB", "ab"},          {"ABCD", "x"},
    {"e\xcc\x81", "\xc3\xa9"}, {"\xc2\xa0", " "}, {"\xe3\x80\x80", " "}, {"\x01", ""},
    {"\xef\xac\x83", "ffi"},   {"_", " _"},       {"\t", " "},           {"-", "- "}};

/* All that a text may be made of: keys, starts of keys, spaces, what is no UTF-8, what
 * stands for spaces, and the pieces of the model. */
static const char *const scraps[] = {"\xef\xbd\x81",
                                     "A",
                                     "AB",
                                     "ABC",
                                     "ABCD",
                                     "e\xcc\x81",
                                     "e",
                                     "\xcc\x81",
                                     "\xc2\xa0",
                                     "\xe3\x80\x80",
                                     "\x01",
                                     "\xef\xac\x83",
                                     "_",
                                     "\t",
                                     "-",
                                     " ",
                                     " ",
                                     "  ",
                                     "b",
                                     "ABb",
                                     "\xff",
                                     "\xe2\x82",
                                     SPACE,
                                     "\xc3\xa9",
                                     "\xf0\x9f\x99\x82"};

/* What s (n) starts with becomes to; returns its length. */
static size_t naive_prefix(const char *s, size_t n, const char **to) {
    static char character[5];
    size_t longest = 0;
    if (n >= 3 && !memcmp(s, "ABb", 3)) { /* user-defined */
        *to = "ABb";
        return 3;
    }
    for (size_t i = 0; i < COUNT(rules); i++) {
        const size_t len = strlen(rules[i].key);
        if (len <= longest || len > n || memcmp(s, rules[i].key, len)) continue;
        longest = len;
        *to = rules[i].to;
    }
    if (longest) return longest;
    const int len = utf8_len((const uint8_t *)s, n);
    snprintf(character, sizeof character, "%.*s", MAX(len, 1), s);
    *to = len ? character : FFFD;
    return (size_t)MAX(len, 1);
}

/* First all is mapped, then spaces are trimmed, then escaped. */
static void naive_normal(const Tokenizer *t, const char *s, size_t n, char *out) {
    static char mapped[8192];
    const char *to, *space = t->escapes ? SPACE : " ", *p = mapped;
    size_t i = 0;
    int spaces = 1; /* alone, so far */
    *mapped = 0;
    *out = 0;
    while (i < n) {
        i += naive_prefix(s + i, n - i, &to);
        spaces &= !strcmp(to, " ");
        strcat(mapped, to);
    }
    if (n == 0 || (t->trim_spaces && spaces)) return;

    if (t->dummy_space && !t->suffix) strcat(out, space);
    while (*p) {
        const int twice = p == mapped || p[-1] == ' ';
        if (*p != ' ') strncat(out, p, 1);
        else if (!t->trim_spaces || !twice) strcat(out, space);
        p++;
    }
    const size_t len = strlen(space);
    while (t->trim_spaces && strlen(out) >= len &&
           !strcmp(out + strlen(out) - len, space))
        out[strlen(out) - len] = 0;
    if (t->dummy_space && t->suffix) strcat(out, space);
}

static void check_normal(const Tokenizer *t, const char *s, const char *what) {
    static char want[16384];
    naive_normal(t, s, strlen(s), want);
    Normalised x = normalise_text(t, (const uint8_t *)s, strlen(s));
    CHECK(x.n == strlen(want) &&
              !memcmp(x.text ? x.text : (const uint8_t *)"", want, x.n),
          "%s: '%s' becomes '%.*s', not '%s'", what, s, (int)x.n, x.text, want);
    free(x.text);
}

static void test_normalising(void) {
    MadeModel x = {BPE, 1, .piece = {{"ABb", 0, USER}, {"a", 0, 0}}};
    x.map = make_map(rules, COUNT(rules));
    for (int flags = 0; flags < 16; flags++) {
        char s[2048], what[80];
        x.plain = flags & 1;
        x.suffix = flags >> 1 & 1;
        x.unescaped = flags >> 2 & 1;
        Tokenizer *t = (Tokenizer *)made_tokenizer(&x);
        t->dummy_space ^= flags >> 3;
        snprintf(what, sizeof what, "flags %d", flags);
        check_normal(t, "", what);
        for (int round = 0; round < 60; round++) {
            *s = 0;
            const int n = 1 + dice(round < 20 ? 4 : 40);
            for (int i = 0; i < n; i++) strcat(s, scraps[dice(COUNT(scraps))]);
            check_normal(t, s, what);
        }
    }
}

/* ------------------------------------------------------------------------------------
 * Character maps that are broken, each in its way */
static void root_is_leaf(MadeMap *m) { m->unit[0] |= UNIT_LEAF; }
static void root_ends(MadeMap *m) { m->unit[0] |= UNIT_ENDS; }
static void root_far(MadeMap *m) { m->unit[0] = m->units << 10; }
static void key_far(MadeMap *m) { m->unit[m->first] |= 1u << 30; }
static void key_very_far(MadeMap *m) { m->unit[m->first] |= 1u << 30 | 1 << 9; }
static void end_no_leaf(MadeMap *m) { m->unit[m->first_base] &= ~UNIT_LEAF; }
static void text_behind(MadeMap *m) {
    m->unit[m->first_base] = UNIT_LEAF | (uint32_t)m->len;
}
static void text_far_behind(MadeMap *m) { m->unit[m->first_base] = ~0u; }
static void text_inside(MadeMap *m) { m->unit[m->first_base]++; }
static void text_unended(MadeMap *m) { m->len--; }
static void no_text(MadeMap *m) { m->len = 0; }
static void text_broken(MadeMap *m) { m->text[2] = 'x'; }
static void circle(MadeMap *m) { /* a byte leads to where it came from */
    const uint32_t c = m->unit[m->first] & 0xFF;
    m->unit[m->first] = c | c << 10; /* its base is its own unit ^ c */
}

static const struct {
    const char *what, *wanted;
    void (*spoil)(MadeMap *m);
} spoilt[] = {
    {"a root that is a leaf", "made.model|a root that is a leaf", root_is_leaf},
    {"a root that ends", "made.model|a root that is a leaf", root_ends},
    {"a root that leads outside", "made.model|leads outside", root_far},
    {"a key that leads outside", "made.model|leads outside", key_far},
    {"a key that leads far outside", "made.model|leads outside", key_very_far},
    {"an end without a leaf", "made.model|an end that is no leaf", end_no_leaf},
    {"a text behind the texts", "made.model|behind its texts", text_behind},
    {"a text far behind", "made.model|behind its texts", text_far_behind},
    {"a text inside a character", "made.model|inside a character", text_inside},
    {"an unended text", "made.model|without its end", text_unended},
    {"no text", "made.model|without its end", no_text},
    {"text that is no UTF-8", "made.model|no UTF-8", text_broken},
    {"a circle", "made.model|circle", circle},
};

/* Keys a, aa, ... of `most` bytes; or the longest alone. */
static const Tokenizer *tokenizer_of_long_keys(int most, int alone) {
    static char key[40][300];
    static Rule rule[40];
    const int n = alone ? 1 : most;
    for (int i = 0; i < n; i++) {
        const size_t len = (size_t)(alone ? most : i + 1);
        memset(key[i], 'a', len);
        key[i][len] = 0;
        rule[i] = (Rule){key[i], i % 2 ? "b" : "c"};
    }
    const MadeModel x = {BPE, 1, .piece = {{"a", 0, 0}}, .map = make_map(rule, n),
                         .plain = 1};
    return made_tokenizer(&x);
}

static uint32_t child_of(const MadeMap *m, uint32_t node, uint8_t c) {
    return node ^ unit_offset(m->unit[node]) ^ c;
}

/* Two keys, of 200 a, and of 100 b and an a, behind which it goes on as behind the first of
 * the others. */
static void model_of_joined_keys(void) {
    static char a[201], b[102];
    memset(a, 'a', 200);
    memset(b, 'b', 100);
    b[100] = 'a';
    const Rule rule[] = {{a, "x"}, {b, "y"}};
    MadeMap *m = make_map(rule, 2);
    const uint32_t first = child_of(m, 0, 'a');
    uint32_t last = 0;
    for (int i = 0; i < 101; i++) last = child_of(m, last, (uint8_t)b[i]);
    m->unit[last] = 'a' | (last ^ child_of(m, first, 0)) << 10;
    const MadeModel x = {BPE, 1, .piece = {{"a", 0, 0}}, .map = m};
    made_tokenizer(&x);
}

static void test_broken_maps(void) {
    const Rule accent[] = {{"\xc3\x89", "\xc3\xa9"}, {"E", "e"}};
    MadeModel x = {BPE, 1, .piece = {{"a", 0, 0}}};
    for (size_t i = 0; i < COUNT(spoilt); i++) {
        MadeMap *m = make_map(accent, COUNT(accent));
        x.map = m;
        expect_ids(made_tokenizer(&x), "E", "230 154 133 105");
        spoilt[i].spoil(m);
        DIES(spoilt[i].what, spoilt[i].wanted, made_tokenizer(&x));
    }
    expect_ids(tokenizer_of_long_keys(32, 0), "aaaaa", "103");
    expect_ids(tokenizer_of_long_keys(255, 1), "aa", "260 260");
    DIES("a key of several ways", "made.model|a key of over 255 bytes",
         model_of_joined_keys());
    DIES("33 keys", "made.model|over 32 keys", tokenizer_of_long_keys(33, 0));
    DIES("a long key", "made.model|a key of over 255 bytes",
         tokenizer_of_long_keys(256, 1));
}

/* Sizes that the blob does not have. */
static void test_map_sizes(void) {
    static Proto p;
    static const uint32_t sizes[] = {0,    1023,       1022,       1028,
                                     1032, 0x7FFFFFFF, 0x80000000, ~0u};
    uint8_t spec[3 + 4 + 1024 + 1] = {2 << 3 | 2, 0x85, 0x08}; /* 1,029 bytes */
    for (size_t i = 0; i < COUNT(sizes); i++) {
        pb_start(&p, 1);
        PB_BPE(&p);
        put_u(spec + 3, sizes[i], 4);
        pb_bytes(&p, 3, spec, sizeof spec);
        put_file(IN("made.model"), p.b, p.n);
        DIES("size of a map", "made.model|character map|another size",
             tokenizer_load(IN("made.model")));
    }
}

/* ------------------------------------------------------------------------------------
 * Unigrams and stretches, naively */
/* All that can be made of the first n letters, by the best way of fewer: of equals the one
 * whose last piece is longest. Scores are whole numbers, so that sums are exact. */
static int naive_unigrams(const Tokenizer *t, const uint8_t *s, int n, int *ids) {
    double best[64] = {0};
    int from[64], last[64], count = 0, turned[64];
    for (int end = 1; end <= n; end++) {
        best[end] = (double)-INFINITY;
        for (int start = 0; start < end; start++) {
            int id = naive_id(t, s + start, end - start);
            double score = id < 0 ? (double)-INFINITY : (double)t->piece[id].score;
            if (id < 0 && end == start + 1) {
                id = t->unk;
                score = -19 - 10; /* the lowest is -19 */
            }
            if (!(best[start] + score > best[end])) continue;
            best[end] = best[start] + score;
            from[end] = start;
            last[end] = id;
        }
    }
    for (int end = n; end > 0; end = from[end]) {
        turned[count] = last[end];
        count++;
    }
    for (int i = 0; i < count; i++) ids[i] = turned[count - 1 - i];
    return count;
}

static void test_unigrams_naively(void) {
    char name[16][8];
    for (int round = 0; round < 60; round++) {
        MadeModel x = {UNIGRAM, 1, .piece = {{"abbabb", -19, 0}}, .plain = 1};
        int n = 1;
        while (n < 12) { /* pieces of a, b and c, no two of them the same */
            const int len = 1 + dice(4);
            int fresh = 1;
            for (int i = 0; i < len; i++) name[n][i] = "abc"[dice(3)];
            name[n][len] = 0;
            for (int i = 1; i < n; i++) fresh &= strcmp(name[i], name[n]) != 0;
            x.piece[n] = (MadePiece){name[n], (float)-dice(12), 0};
            n += fresh;
        }
        const Tokenizer *t = made_tokenizer(&x);
        for (int k = 0; k < 20; k++) {
            uint8_t s[40];
            int want[64], good = 1;
            size_t found;
            const int len = 1 + dice(40);
            for (int i = 0; i < len; i++) s[i] = (uint8_t) "abbacd"[dice(6)];
            const int count = naive_unigrams(t, s, len, want);
            int *ids = tokenizer_encode(t, (char *)s, (size_t)len, &found);
            for (int i = 0; i < count && i < (int)found; i++) {
                const int unk = want[i] == t->unk;
                good &= unk ? ids[i] >= 4 && ids[i] < 260 : ids[i] == want[i];
            }
            CHECK(good && (int)found == count, "'%.*s': %zu pieces, naively %d", len, s,
                  found, count);
            free(ids);
        }
    }
}

/* Pieces with spaces at their ends, inside, several of them: a text is cut only where no
 * piece could lie across. */
static void test_stretches(void) {
    static const MadePiece sets[][4] = {
        {{SPACE "a", 0, 0}, {SPACE, -1, 0}, {"ab", -2, 0}, {SPACE "ab", -3, 0}},
        {{"a" SPACE, 0, 0}, {SPACE, -1, 0}, {"ab", -2, 0}, {"ba" SPACE, -3, 0}},
        {{SPACE SPACE, 0, 0},
         {SPACE SPACE SPACE, -1, 0},
         {"ab", -2, 0},
         {SPACE "a", -3, 0}},
        {{SPACE SPACE, 0, 0},
         {"a" SPACE, -1, 0},
         {"ab", -2, 0},
         {"a" SPACE SPACE, -3, 0}},
        {{"a" SPACE, 0, 0}, {SPACE "b", -1, 0}, {"a" SPACE "b", -2, 0}, {"ab", -3, 0}},
        {{"ab", 0, 0}, {"ba", -1, 0}, {"aba", -2, 0}, {SPACE, -3, 0}},
    };
    for (size_t k = 0; k < COUNT(sets); k++) {
        MadeModel x = {BPE, 1, .plain = 1};
        memcpy(x.piece, sets[k], sizeof sets[k]);
        const Tokenizer *t = made_tokenizer(&x);
        for (int round = 0; round < 60; round++) {
            char s[48];
            uint8_t escaped[3 * 48];
            int at[3 * 48], len[3 * 48], n = 0, good = 1;
            size_t found;
            const int letters = dice(48);
            for (int i = 0; i < letters; i++) {
                s[i] = " ab "[dice(4)];
                memcpy(escaped + n, s[i] == ' ' ? SPACE : s + i, s[i] == ' ' ? 3 : 1);
                n += s[i] == ' ' ? 3 : 1;
            }
            const int count = naive_bpe(t, escaped, n, at, len);
            int *ids = tokenizer_encode(t, s, (size_t)letters, &found);
            int *id = ids;
            for (int i = 0; i < count; i++) {
                const int want = naive_id(t, escaped + at[i], len[i]);
                if (want >= 0) good &= id < ids + found && *id == want;
                id += want >= 0 ? 1 : len[i]; /* bytes of a letter */
            }
            CHECK(good && id == ids + found, "set %d: '%.*s'", (int)k, letters, s);
            free(ids);
        }
    }
}

/* A piece as long as may be, and one byte more. */
static void test_long_pieces(void) {
    static Proto p, piece;
    static char text[PIECE_MOST + 2];
    memset(text, 'a', sizeof text);
    for (int more = 0; more < 2; more++) {
        pb_start(&p, 1);
        piece.n = 0;
        pb_bytes(&piece, 1, text, (size_t)(PIECE_MOST + more));
        pb_number(&piece, 3, PIECE_USER);
        pb_bytes(&p, 1, piece.b, piece.n);
        PB_BPE(&p);
        pb_raw(&p, "\x1A\x04\x18\x00\x20\x00", 6);
        put_file(IN("made.model"), p.b, p.n);
        if (more) {
            DIES("a long piece", "made.model|1..4095", tokenizer_load(IN("made.model")));
            continue;
        }
        size_t n;
        const Tokenizer *t = tokenizer_load(IN("made.model"));
        const int *ids = tokenizer_encode(t, text, PIECE_MOST, &n);
        CHECK(n == 1 && ids[0] == 260, "%zu ids", n);
    }
}

/* A model of special pieces, bytes, and these from id 260 on, which is refused. */
typedef struct {
    const char *what, *wanted; /* words of the message */
    int bytes;                 /* has it byte pieces? */
    struct {
        const char *text;
        float score;
        int type;
    } piece[2];
    const char *raw; /* behind them: another field, of raw[0] bytes */
} BadModel;

static const BadModel bad_models[] = {
    {"bytes missing", "t.model|byte 0x00|missing", .bytes = 0},
    {"odd byte", "t.model|piece 260|<0xNN>", 1, {{"<0x0a>", 0, 6}}, NULL},
    {"signed byte", "t.model|piece 260|<0xNN>", 1, {{"<0x-1>", 0, 6}}, NULL},
    {"two unknowns", "t.model|one unknown piece", 1, {{"<unk2>", 0, 2}}, NULL},
    {"twins", "t.model|260|261", 1, {{"a", 0, 1}, {"a", 0, 1}}, NULL},
    {"score", "t.model|finite score", 1, {{"a", INFINITY, 1}}, NULL},
    {"type", "t.model|a type of 1..6, found 9", 1, {{"a", 0, 9}}, NULL},
    {"an unused twin", "t.model|260|261", 1, {{"a", 0, 1}, {"a", 0, 5}}, NULL},
    {"user-defined bytes", "t.model|user-defined|no UTF-8", 1, {{"\xc3", 0, 4}}, NULL},
    {"kind",
     "t.model|model_type that is none of 1..4",
     1,
     {{"a", 0, 1}},
     "\4\x12\2\x18\5"},
    {"no pieces", "t.model|no piece", 1, {{NULL, 0, 0}}, "\4\x12\2\x18\1"},
    {"map", "t.model|character map|size", 1, {{NULL, 0, 0}}, "\5\x1A\x03\x12\x01x"},
};

static void load_and_encode(const char *path) {
    size_t n;
    tokenizer_encode(tokenizer_load(path), "a", 1, &n);
}

static void test_bad_models(void) {
    static Proto p;
    const char *path = strdup(IN("t.model"));
    size_t len;

    for (size_t i = 0; i < COUNT(bad_models); i++) {
        const BadModel *bad = bad_models + i;
        pb_start(&p, bad->bytes);
        PB_BPE(&p);
        for (int k = 0; k < 2; k++)
            if (bad->piece[k].text)
                pb_piece(&p, bad->piece[k].text, bad->piece[k].score, bad->piece[k].type);
        if (bad->raw) pb_raw(&p, bad->raw + 1, (size_t)bad->raw[0]);
        put_file(path, p.b, p.n);
        DIES(bad->what, bad->wanted, load_and_encode(path));
    }

    static const char *const odd_names[] = {"<0x0a>", "<0x A>", "<0x+A>", "<0x0A>"};
    for (size_t i = 0; i < COUNT(odd_names); i++) { /* of byte 10; the last is right */
        pb_start(&p, 1);
        PB_BPE(&p);
        size_t at = 0;
        while (memcmp(p.b + at, "<0x0A>", 6)) at++;
        memcpy(p.b + at, odd_names[i], 6);
        put_file(path, p.b, p.n);
        if (i < 3) DIES(odd_names[i], "t.model|piece 14|<0xNN>", tokenizer_load(path));
        else CHECK(STATUS(tokenizer_load(path)) == 0, "%s: %s", odd_names[i], message);
    }

    DIES("no tokenizer", "nothere.model|cannot open",
         tokenizer_load(IN("nothere.model")));
    put_file(path, "", 0);
    DIES("empty model", "t.model|found 0 pieces", tokenizer_load(path));
    put_file(path, "hello, world\n", 13);
    DIES("text as model", "t.model|SentencePiece", tokenizer_load(path));

    pb_start(&p, 1);
    PB_BPE(&p);
    put_file(path, p.b, p.n - 20);
    DIES("cut model", "t.model|cut short", tokenizer_load(path));
    put_file(path, p.b, p.n);
    DIES("decoding", "t.model|0..259|found 260",
         tokenizer_decode(tokenizer_load(path), (int[]){260}, 1, &len));
    pb_start(&p, 1);
    pb_raw(&p,
           "\x0A\x05\x0A\x03"
           "a\0b"
           "\x12\x05\x18\x01\x98\x02\x01",
           14);
    put_file(path, p.b, p.n);
    DIES("a NUL in a unigram model", "t.model|a NUL", load_and_encode(path));
}

/* ------------------------------------------------------------------------------------
 * Facts from the SentencePiece library, where the folder with them is there */
#define FINEWEB "../shared/data/fineweb_1024_bpe"

/* Every row of a table: id, bytes, leading space?, boundary? */
static void check_byte_table(const Tokenizer *t, const char *path) {
    char line[256];
    int rows = 0, id, bytes, space, boundary;
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%d %d %d %d", &id, &bytes, &space, &boundary) != 4) continue;
        const Piece *x = t->piece + id;
        CHECK(x->base_bytes == bytes && x->leading_space == space &&
                  x->boundary == boundary,
              "piece %d", id);
        rows++;
    }
    if (f) fclose(f);
    CHECK(rows == t->vocab, "%d rows of the table for %d pieces", rows, t->vocab);
}

/* The numbers of "ids": [1, 2, 3]; returns how many. */
static int ids_of_line(char *line, int *ids, int most) {
    char *s = strstr(line, "\"ids\": [");
    int n = 0;

    if (!s) return 0;
    s += 8;
    while (n < most && isdigit((unsigned char)*s)) {
        ids[n] = (int)strtol(s, &s, 10);
        n++;
        s += strspn(s, ", ");
    }
    return n;
}

/* text as a JSON string: characters of two or three bytes become \uXXXX. */
static void as_json(char *out, const char *text) {
    const uint8_t *c = (const uint8_t *)text;
    out += sprintf(out, "\"");
    while (*c) {
        if (*c < 0x80) {
            *out++ = (char)*c++;
            continue;
        }
        int more = *c < 0xE0 ? 1 : 2;
        unsigned u = more == 1 ? *c & 31 : *c & 15;
        c++;
        while (more > 0) {
            u = u << 6 | (*c++ & 63);
            more--;
        }
        out += sprintf(out, "\\u%04x", u);
    }
    sprintf(out, "\"");
}

/* Character u in UTF-8; returns its length. */
static size_t put_utf8(uint8_t *out, unsigned u) {
    const int n = 1 + (u >= 0x80) + (u >= 0x800) + (u >= 0x10000);
    for (int i = n - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (u & 63));
        u >>= 6;
    }
    out[0] = (uint8_t)(n > 1 ? 0xF00 >> n | u : u);
    return (size_t)n;
}

/* The text behind the quote of a JSON string; \\uXXXX, or two of them for a character above
 * U+FFFF, as UTF-8. Returns its length. */
static size_t text_of_json(const char *s, uint8_t *out) {
    size_t n = 0;
    while (*s != '"') {
        unsigned u = (uint8_t)*s, low;
        int len = 1;
        if (sscanf(s, "\\u%4x", &u) == 1) {
            len = 6;
        } else if (*s == '\\') {
            u = (unsigned)s[1];
            if (s[1] == 'n') u = '\n';
            if (s[1] == 't') u = '\t';
            len = 2;
        }
        if (u >> 10 == 0x36 && sscanf(s + 6, "\\u%4x", &low) == 1) {
            u = 0x10000 + ((u & 0x3FF) << 10) + (low & 0x3FF);
            len = 12;
        }
        s += len;
        n += put_utf8(out + n, u);
    }
    return n;
}

/* Every line of a file: a text, the library's ids, and what it decodes them to. */
static void check_lines_of_facts(const Tokenizer *t, const char *path) {
    char line[8192], want[4096] = "\"decoded\": ";
    uint8_t text[4096];
    int rows = 0, ids[512];
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof line, f)) {
        size_t len, found;
        const int n = ids_of_line(line, ids, 512);
        char *back = tokenizer_decode(t, ids, (size_t)n, &len);
        as_json(want + strlen("\"decoded\": "), back);
        CHECK(n > 0 && strstr(line, want), "expected %s in %s", want, line);
        free(back);

        const size_t bytes = text_of_json(strstr(line, "\"text\": \"") + 9, text);
        int *own = tokenizer_encode(t, (char *)text, bytes, &found);
        CHECK((int)found == n && !memcmp(own, ids, found * sizeof *ids),
              "other ids of %s", line);
        free(own);
        rows++;
    }
    if (f) fclose(f);
    CHECK(rows > 0, "no lines in %s", path);
}

static void test_shipped_tokenizers(void) {
    const char *sotu = "data/sotu/tokenizer.model";
    if (access(sotu, R_OK)) printf("skipped: there is no %s\n", sotu);
    else round_trips(tokenizer_load(sotu));
    if (access(FINEWEB ".model", R_OK)) {
        printf("skipped: there is no %s\n", FINEWEB ".model");
        return;
    }
    const Tokenizer *t = tokenizer_load(FINEWEB ".model");
    check_byte_table(t, FINEWEB ".bytes.tsv");
    check_lines_of_facts(t, FINEWEB ".encode.jsonl");
}

/* ------------------------------------------------------------------------------------
 * The commands */
static const char *piped(const char *line, const char *input, size_t n) {
    static char output[1 << 16];
    size_t len;
    put_file(IN("in"), input, n);
    const char *in = strdup(IN("in")), *out = strdup(IN("out"));
    const int status = STATUS(freopen(in, "rb", stdin) && freopen(out, "wb", stdout)
                                  ? exit(command_line(line))
                                  : exit(9));
    CHECK(!status, "%s: %s", line, message);
    char *text = (char *)read_file(out, &len);
    CHECK(len < sizeof output, "%zu bytes", len);
    memcpy(output, text, len);
    output[len] = 0;
    free(text);
    return output;
}

#define PIPED(line, input) piped(line, input, strlen(input))

static void test_commands(void) {
    write_hand_model(IN("t.model"));
    CHECK(!strcmp(PIPED("encode @/t.model", "ab abc"), "260 264 262\n"), "encode");
    CHECK(!strcmp(PIPED("encode @/t.model", ""), "\n"), "nothing");
    CHECK(!strcmp(PIPED("encode @/t.model", "abc\nbc\n"), "262 14 261 14\n"), "a text");
    CHECK(!strcmp(PIPED("encode @/t.model --lines=1", "abc\n\nbc"), "262\n\n261\n"),
          "lines");
    CHECK(!strcmp(PIPED("decode @/t.model", " 262\n14  261\t14"), "abc\nbc\n"), "decode");
    CHECK(!strcmp(PIPED("decode @/t.model --lines=1", "262 261\n\n261"), "abcbc\n\nbc\n"),
          "lines of ids");

    char bytes[4096], ids[1 << 16];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)dice(256);
    for (size_t i = 2; i < sizeof bytes; i++)
        if (!memcmp(bytes + i - 2, SPACE, 3)) bytes[i] = 0;
    snprintf(ids, sizeof ids, "%s", piped("encode @/t.model", bytes, sizeof bytes));
    const char *back = PIPED("decode @/t.model", ids);
    CHECK(!memcmp(back, bytes, sizeof bytes), "any bytes come back");

    put_file(IN("in"), "1 2 x", 5);
    const char *in = strdup(IN("in"));
    DIES("words", "standard input|'x'|2 ids",
         (freopen(in, "rb", stdin) ? command_line("decode @/t.model") : 0));
    put_file(in, "1 266", 5);
    DIES("an id too large", "t.model|0..265|found 266",
         (freopen(in, "rb", stdin) ? command_line("decode @/t.model") : 0));
    DIES("two tokenizers", "--tokenizer=x|means nothing",
         command_line("encode @/t.model --tokenizer=x"));
    DIES("no file", "nothere|cannot open", command_line("encode @/nothere"));
    DIES("no name", "usage|encode", command_line("encode"));
    DIES("a full disk", "standard output|cannot write",
         (freopen(in, "rb", stdin) && freopen("/dev/full", "w", stdout)
              ? command_line("encode @/t.model")
              : 0));
}

/* A model's own tokenizer: beside it, or given. */
static void test_commands_of_models(void) {
    write_data("d", 900, 100, HAND_VOCAB);
    CHECK(STATUS(command_line("train --preset=tiny --width=16 --seq=16 --steps=1 "
                              "--data=@/d --out=@/run")) == 0,
          "%s", message);
    CHECK(!strcmp(PIPED("encode @/run/model.golf", "abc"), "262\n"), "of a model");
    CHECK(!strcmp(PIPED("decode @/run/model.golf", "262"), "abc"), "of a model");
    CHECK(!strcmp(PIPED("encode @/run/model.golf --tokenizer=@/d/tokenizer.model", "abc"),
                  "262\n"),
          "of a model, given");
    size_t n; /* of another tokenizer, with as many pieces */
    uint8_t *model = read_file(IN("d/tokenizer.model"), &n);
    for (size_t i = 0; i + 1 < n; i++)
        if (!memcmp(model + i, "cc", 2)) model[i + 1] = 'd';
    put_file(IN("other.model"), model, n);
    free(model);
    DIES("another's tokenizer", "other.model|CRC-32",
         command_line("encode @/run/model.golf --tokenizer=@/other.model"));
}

/* ------------------------------------------------------------------------------------
 * Text of a map prepared, and files with bytes changed at random */
/* A map can make a text longer, in tokens, than the text has bytes. */
static void test_text_that_grows(void) {
    static char text[4001];
    const Rule grow[] = {{"a", "bbbbbbbb"}};
    const MadeModel x = {BPE, 1, .piece = {{SPACE, -1, 0}}, .map = make_map(grow, 1),
                         .plain = 1};
    memset(text, 'a', 4000);
    put_file(IN("a.txt"), text, 4000);
    write_model(IN("grow.model"), &x);
    const char *said = PIPED("prepare --out=@/grown --name=x --tokenizer=@/grow.model "
                             "--train @/a.txt --val @/a.txt",
                             "");
    CHECK(strstr(said, "32000 bytes, not 4000") != NULL, "said: %s", said);
    const Shards *s = shards_open(IN("grown"), "val", 261);
    CHECK(s->tokens == 32001, "%d tokens", (int)s->tokens);
}

static void use_tokenizer(const char *path) {
    static const char text[] =
        "  The State of the Union: ABCD e\xcc\x81 \xef\xac\x83 ABb abc ab \xc3\xa9 \xff\xfe "
        "a a\n\n";
    const Tokenizer *t = tokenizer_load(path);
    size_t n, len;
    const int *all = tokens_below(t->vocab, (size_t)t->vocab, 1);
    tokenizer_decode(t, all, (size_t)t->vocab, &len);
    tokenizer_decode(t, tokenizer_encode(t, text, sizeof text, &n), 1, &len);
}

static void test_corruption(void) {
    MadeModel x = {BPE, 1, .piece = {{"ab", 0, 0}, {"ABb", 0, USER}, {SPACE, -1, 0}}};
    x.map = make_map(rules, COUNT(rules));
    write_hand_model(IN("tokenizer"));
    write_model(IN("charmap"), &x);
    x.kind = UNIGRAM;
    write_model(IN("unigrams"), &x);
    check_corruption("tokenizer", IN("bad.model"), use_tokenizer, 1);
    check_corruption("charmap", IN("bad.model"), use_tokenizer, 1);
    check_corruption("unigrams", IN("bad.model"), use_tokenizer, 1);
}

int main(void) {
    start_tests();
    run_test("encoding", test_encoding);
    run_test("naively", test_encoding_naively);
    run_test("byte counts", test_byte_counts);
    run_test("default flags", test_default_flags);
    run_test("facts", test_facts);
    run_test("normalising", test_normalising);
    run_test("broken maps", test_broken_maps);
    run_test("sizes of maps", test_map_sizes);
    run_test("unigrams, naively", test_unigrams_naively);
    run_test("stretches", test_stretches);
    run_test("long pieces", test_long_pieces);
    run_test("bad models", test_bad_models);
    run_test("shipped tokenizers", test_shipped_tokenizers);
    run_test("commands", test_commands);
    run_test("commands of models", test_commands_of_models);
    run_test("text that grows", test_text_that_grows);
    run_test("corruption", test_corruption);
    return end_tests("tokenizer");
}
