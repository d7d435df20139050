/* input.c - what is read from outside: tokenizers, shards of tokens, the order of
 * training; and both kinds of file with bytes changed at random. */
#include "check.h"

/* ------------------------------------------------------------------------------------
 * Tokenizer */
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
    {"user-defined", "t.model|user-defined|ready-made", 1, {{"a", 0, 4}}, NULL},
    {"map", "t.model|character map|ready-made", 1, {{NULL, 0, 0}}, "\5\x1A\x03\x12\x01x"},
    {"spaces", "t.model|spaces as they are", 1, {{NULL, 0, 0}}, "\4\x1A\x02\x28\x00"},
    {"suffix", "t.model|spaces as suffixes", 1, {{NULL, 0, 0}}, "\5\x12\x03\xC0\x01\x01"},
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
    pb_start(&p, 0);
    pb_piece(&p, "a", 0, 1);
    put_file(path, p.b, p.n);
    DIES("unigram", "t.model|model_type 1", load_and_encode(path));
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

/* Every line of a file: ids, and the text that the library decodes them to. */
static void check_decoded_lines(const Tokenizer *t, const char *path) {
    char line[8192], want[4096] = "\"decoded\": ";
    int rows = 0, ids[512];
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof line, f)) {
        size_t len;
        const int n = ids_of_line(line, ids, 512);
        char *text = tokenizer_decode(t, ids, (size_t)n, &len);
        as_json(want + strlen("\"decoded\": "), text);
        CHECK(n > 0 && strstr(line, want), "expected %s in %s", want, line);
        free(text);
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
    DIES("encoding with fineweb", "character map|fineweb",
         load_and_encode(FINEWEB ".model"));
    check_byte_table(t, FINEWEB ".bytes.tsv");
    check_decoded_lines(t, FINEWEB ".encode.jsonl");
}

/* ------------------------------------------------------------------------------------
 * Shards and the order of training */
static void read_all(const char *dir, int vocab) {
    const Shards *s = shards_open(dir, "train", vocab);
    shards_read(s, 0, (int)s->tokens, tokens_below(2, (size_t)s->tokens, 1));
}

/* 1,000 tokens, each its own position, in three files; others lie about. Returns the
 * folder. */
static const char *write_positions(void) {
    static char dir[600];
    int t[1000];

    snprintf(dir, sizeof dir, "%s", IN("s"));
    mkdir(dir, 0777);
    for (int i = 0; i < 1000; i++) t[i] = i;
    write_shard(path_of(dir, "x_train_000000.bin"), t, 400);
    write_shard(path_of(dir, "x_train_000001.bin"), t, 0);
    write_shard(path_of(dir, "x_train_000002.bin"), t + 400, 600);
    write_shard(path_of(dir, "x_val_000000.bin"), t, 5);
    put_file(path_of(dir, "x_train_000003.bin.tmp"), "x", 1); /* not a shard */
    return dir;
}

static void test_shards(void) {
    const Shards *s = shards_open(write_positions(), "train", 1000);
    int all[1000], part[10], good = 1;

    CHECK(s->count == 3 && s->tokens == 1000, "%d shards, %d tokens", s->count,
          (int)s->tokens);
    shards_read(s, 0, 1000, all);
    shards_read(s, 395, 10, part);
    for (int i = 0; i < 1000; i++) good &= all[i] == i;
    for (int i = 0; i < 10; i++) good &= part[i] == 395 + i;
    CHECK(good, "tokens across shards");
}

/* An epoch visits each window once, whole, all of them moved by the same shift;
 * without shuffling it is the file's order; asked again, a row is the same. */
static void check_epoch(const Shards *s, int64_t epoch, int seq, int *other_order) {
    int row[1001], again[1001], good = 1, shift = -1;
    const int windows = 999 / seq;
    char seen[1000] = {0};
    for (int w = 0; w < windows; w++) {
        const int64_t number = epoch * windows + w;
        shards_train_row(s, 7, number, seq, 1, row);
        for (int i = 0; i < seq; i++) good &= row[i + 1] == row[i] + 1;
        if (shift < 0) shift = row[0] % seq;
        good &= row[0] % seq == shift && !seen[row[0] / seq];
        seen[row[0] / seq] = 1;
        shards_train_row(s, 7, number, seq, 1, again);
        good &= !memcmp(again, row, sizeof(int) * ((size_t)seq + 1));
        shards_train_row(s, 7, number, seq, 0, again);
        good &= again[0] == w * seq;

        other_order[0] +=
            row[0] / seq != w; /* than the file's, another seed's, the next epoch's */
        shards_train_row(s, 8, number, seq, 1, again);
        other_order[1] += again[0] != row[0];
        shards_train_row(s, 7, number + windows, seq, 1, again);
        other_order[2] += again[0] != row[0];
    }
    CHECK(good, "seq %d epoch %d: each window once, whole", seq, (int)epoch);
}

static void test_training_order(void) {
    const Shards *s = shards_open(write_positions(), "train", 1000);
    for (int seq = 1; seq < 1000; seq = seq * 3 + 1) {
        int other[3] = {0, 0, 0};
        const int windows = 999 / seq;
        for (int64_t e = 0; e < 4; e++) check_epoch(s, e, seq, other);
        if (windows < 8) continue;
        for (int k = 0; k < 3; k++)
            CHECK(other[k] > 2 * windows, "seq %d: %d of %d rows moved", seq, other[k],
                  4 * windows);
    }
}

static void test_bad_shards(void) {
    const char *dir = write_positions(),
               *last = strdup(path_of(dir, "x_train_000002.bin"));
    const Shards *s = shards_open(dir, "train", 1000);
    int row[1001];
    size_t n;

    DIES("short text", "train_000000.bin|at least 1000 + 1|found 1000|--seq",
         shards_train_row(s, 1, 0, 1000, 1, row));
    DIES("position", "within 1000 tokens|found 999 + 2", shards_read(s, 999, 2, row));
    DIES("negative position", "found -1 + 2", shards_read(s, -1, 2, row));
    DIES("token",
         "train_000002.bin|vocabulary of 999|found 999 at position 599|tokenizer",
         read_all(dir, 999));
    DIES("no folder", "nodir|cannot open|get.sh", shards_open(IN("nodir"), "train", 9));
    DIES("no shards", "NAME_test_|found none|get.sh", shards_open(dir, "test", 9));
    uint8_t *b = read_file(last, &n);
    put_file(last, b, n - 1);
    DIES("cut shard", "train_000002.bin|2224 bytes|found 2223|get.sh",
         read_all(dir, 1000));
    put_file(last, b, 7);
    DIES("cut header", "train_000002.bin|expected a token shard", read_all(dir, 1000));
    b[0] ^= 1;
    put_file(last, b, n);
    DIES("magic", "train_000002.bin|magic 20240520", read_all(dir, 1000));
}

/* ------------------------------------------------------------------------------------
 * Single bytes changed at random: refused or used, never a crash or a hang */
static void use_tokenizer(const char *path) {
    static const char text[] =
        "  The State of the Union: abc ab \xc3\xa9 \xff\xfe a a\n\n";
    const Tokenizer *t = tokenizer_load(path);
    size_t n, len;
    const int *all = tokens_below(t->vocab, (size_t)t->vocab, 1);
    tokenizer_decode(t, all, (size_t)t->vocab, &len);
    tokenizer_decode(t, tokenizer_encode(t, text, sizeof text, &n), 1, &len);
}

static void use_shard(const char *path) {
    (void)path;
    read_all(IN("damaged"), 200);
}

static void test_corruption(void) {
    mkdir(IN("damaged"), 0777);
    write_hand_model(IN("tokenizer"));
    write_shard(IN("shard"), tokens_below(200, 700, 3), 700);
    check_corruption("tokenizer", IN("bad.model"), use_tokenizer, 1);
    check_corruption("shard", strdup(IN("damaged/x_train_000000.bin")), use_shard, 1);
}

int main(void) {
    start_tests();
    run_test("tokenizer: encoding", test_encoding);
    run_test("tokenizer: naively", test_encoding_naively);
    run_test("tokenizer: byte counts", test_byte_counts);
    run_test("tokenizer: default flags", test_default_flags);
    run_test("tokenizer: bad models", test_bad_models);
    run_test("shipped tokenizers", test_shipped_tokenizers);
    run_test("shards", test_shards);
    run_test("order of training", test_training_order);
    run_test("bad shards", test_bad_shards);
    run_test("corruption", test_corruption);
    return end_tests("input");
}
