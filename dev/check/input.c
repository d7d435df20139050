/* input.c - what is read from outside: shards of tokens, the bytes that their scores divide
 * by, folders that are prepared, the order of training; shards with bytes changed at
 * random. */
#include "check.h"

/* ------------------------------------------------------------------------------------
 * The bytes that a score divides by */
enum { E2 = 4 + 0xE2, X96 = 4 + 0x96, X81 = 4 + 0x81 }; /* the bytes of U+2581 */

/* The bytes of text in ids (n), from what they decode to: U+2581 that bytes spell is one
 * space, and a space that starts a document does not count. */
static int64_t naive_text_bytes(const Tokenizer *t, const int *ids, size_t n) {
    int64_t sum = 0;
    size_t from = 0, len;
    while (from < n) { /* from one control piece to the next */
        size_t to = from + 1;
        while (to < n && t->piece[ids[to]].type != PIECE_CONTROL) to++;
        char *text = tokenizer_decode(t, ids + from, to - from, &len);
        size_t i = 0;
        int first = 1;
        while (i < len) {
            const int spelled = starts_with_space((uint8_t *)text + i, (int)(len - i));
            sum += !(first && (spelled || text[i] == ' '));
            i += spelled ? 3 : 1;
            first = 0;
        }
        free(text);
        from = to;
    }
    return sum;
}

/* Text spelled out is text decoded; and where no bytes spell spaces, the table has it. */
static void test_text_spelled(void) {
    enum { N = 2000 };
    static const int space[] = {E2, X96, X81};
    int ids[N];
    write_hand_model(IN("t.model"));
    const Tokenizer *t = tokenizer_load(IN("t.model"));
    for (int round = 0; round < 20; round++) {
        const int odd = round % 2;
        for (int i = 0; i < N; i++) {
            ids[i] = dice(HAND_VOCAB);
            if (ids[i] == 3 || ids[i] == 4 + ' ')
                ids[i] = SP_A; /* unknown; decodes as SP */
        }
        const int spelled = odd ? N - 3 : 0;
        for (int i = 1; i < spelled; i += 1 + dice(40))
            memcpy(ids + i, space, sizeof space);
        ids[0] = 1;

        TextBytes b = {.t = t, .before = -1};
        for (int i = 0; i < N; i++) count_token(&b, ids[i]);
        const int64_t want = naive_text_bytes(t, ids, N);
        CHECK(b.spelled == want, "spelled %d bytes, decoded %d", (int)b.spelled,
              (int)want);
        CHECK(odd ? b.wrong && b.counted > want : !b.wrong && b.counted == want,
              "table: %d bytes of %d, %d tokens wrong", (int)b.counted, (int)want,
              (int)b.wrong);
    }
}

/* A model that escapes spaces or not, with these pieces from id 260 on; a validation
 * text; the message that refuses it, "" for none, and one that is a note. */
typedef struct {
    const char *what, *wanted;
    struct {
        const char *text;
        int type;
    } piece[3];
    const char *flags; /* more fields of the model, behind their length; or NULL */
    int ids[10];       /* up to a 0 */
} ByteText;

/* Of trainer_spec 2: {24: spaces are suffixes}. Of normalizer_spec 3: {3: none is put before
 * or behind the text, 5: spaces are written as they are}. */
#define SUFFIX "\x12\x03\xC0\x01\x01"
#define BARE "\x1A\x02\x18\x00"
#define UNESCAPED "\x1A\x02\x28\x00"

static const ByteText byte_texts[] = {
    {"a piece for the space", "", {{SPACE, 1}, {SPACE "a", 1}}, NULL, {1, 260, 101, 261}},
    {"a prefix at the start", "", {{SPACE "a", 1}}, NULL, {1, 260, 260, 1, 260}},
    {"spaces as bytes",
     "x_val_000000.bin|5 bytes counted for 3|t.model|U+2581 as a piece",
     {{"a", 1}},
     NULL,
     {1, 260, E2, X96, X81, 260}},
    {"spaces as bytes at the start",
     "4 bytes counted for 1",
     {{"a", 1}},
     NULL,
     {1, E2, X96, X81, 260}},
    {"U+2581 that is no space",
     "",
     {{" ", 1}},
     "\4" UNESCAPED,
     {1, 101, E2, X96, X81, 101}},
    {"several spaces",
     "note: |val_000000.bin: 3 spaces inside pieces",
     {{SPACE SPACE SPACE, 1}, {"a" SPACE "b", 1}},
     NULL,
     {1, 101, 260, 261, 101}},
    {"a user's spaces",
     "note: |1 spaces inside",
     {{SPACE SPACE, 4}},
     NULL,
     {1, 101, 260}},
    {"an unused piece", "1 bytes counted for 3|unused", {{"ab", 5}}, NULL, {1, 101, 260}},
    {"an unknown piece",
     "val_000000.bin|1 unknown pieces|byte_fallback",
     {{"ab", 1}},
     NULL,
     {1, 260, 3}},
    {"a space in front",
     "4 bytes counted for 2",
     {{" a", 1}},
     "\4" UNESCAPED,
     {1, 260, 1, 260}},
    {"a byte in front",
     "2 bytes counted for 1",
     {{"a", 1}},
     "\4" UNESCAPED,
     {1, 36, 260}},
    {"a text's first space", "", {{" a", 1}}, "\x8" UNESCAPED BARE, {1, 260, 260}},
    {"a space behind",
     "3 bytes counted for 2",
     {{"a" SPACE, 1}, {"a", 1}},
     "\5" SUFFIX,
     {1, 260, 1, 261}},
    {"a space behind the last",
     "2 bytes counted for 1",
     {{"a" SPACE, 1}},
     "\5" SUFFIX,
     {1, 260}},
    {"a space as it is behind",
     "2 bytes counted for 1",
     {{"a ", 1}},
     "\x9" SUFFIX UNESCAPED,
     {1, 260, 1}},
    {"a text's last space",
     "note: |1 spaces",
     {{"a" SPACE, 1}},
     "\x9" SUFFIX BARE,
     {1, 260, 1}},
    {"marks of upper case",
     "1 marks of upper case|NAME_val_bytes_",
     {{"\xEE\x80\x81", 4}},
     NULL,
     {1, 260, 101}},
};

static Tokenizer *byte_text_tokenizer(const ByteText *x) {
    static Proto p;
    pb_start(&p, 1);
    PB_BPE(&p);
    for (int i = 0; i < 3 && x->piece[i].text; i++)
        pb_piece(&p, x->piece[i].text, (float)-i, x->piece[i].type);
    if (x->flags) pb_raw(&p, x->flags + 1, (size_t)x->flags[0]);
    put_file(IN("t.model"), p.b, p.n);
    return tokenizer_load(IN("t.model"));
}

static void test_text_bytes(void) {
    mkdir(IN("bytes"), 0777);
    for (size_t i = 0; i < COUNT(byte_texts); i++) {
        const ByteText *x = byte_texts + i;
        const Tokenizer *t = byte_text_tokenizer(x);
        int n = 0;
        while (n < 10 && x->ids[n]) n++;
        write_shard(IN("bytes/x_val_000000.bin"), x->ids, n);
        const int status =
            STATUS(check_text_bytes(t, shards_open(IN("bytes"), "val", t->vocab)));
        if (!*x->wanted) {
            CHECK(!status && !*message, "%s: %s", x->what, message);
        } else if (!strncmp(x->wanted, "note: ", 6)) {
            CHECK(!status, "%s: %s", x->what, message);
            expect_message(1, x->what, x->wanted);
        } else {
            expect_message(status, x->what, x->wanted);
        }
    }

    /* a space is a byte, inside a piece as well */
    const Tokenizer *t = byte_text_tokenizer(byte_texts + 5);
    CHECK(tokenizer_bytes(t, 1, 260) == 2 && tokenizer_bytes(t, 101, 260) == 3 &&
              tokenizer_bytes(t, 101, 261) == 3,
          "bytes of pieces with several spaces");
}

/* What must not be scored is neither trained on, scored nor prepared. */
static void test_no_wrong_score(void) {
    static Proto p;
    static const int ids[] = {1, 101, E2, X96, X81, 101, E2, X96, X81, 101, E2, X96};
    mkdir(IN("nospace"), 0777);
    pb_start(&p, 1);
    PB_BPE(&p);
    pb_piece(&p, "ab", 0, 1);
    pb_raw(&p, "\x1A\x04\x18\x00\x20\x00", 6);
    put_file(IN("nospace/tokenizer.model"), p.b, p.n);
    write_shard(IN("nospace/x_train_000000.bin"), ids, 12);
    write_shard(IN("nospace/x_val_000000.bin"), ids, 12);
    DIES("training", "x_val_000000.bin|11 bytes counted for 7|U+2581",
         command_line("train --preset=tiny --seq=8 --steps=1 --width=16 "
                      "--data=@/nospace --out=@/nospace/run"));
    CHECK(!exists("nospace/run"), "a run was begun");

    put_file(IN("two.txt"), "ab ab ab\n", 9);
    DIES("preparing", "train: |nospace/tokenizer.model|bytes counted for|U+2581",
         command_line("prepare --out=@/spaced --name=x "
                      "--tokenizer=@/nospace/tokenizer.model --train @/two.txt "
                      "--val @/two.txt"));
    CHECK(!exists("spaced") && !exists("spaced.part"), "something is left");
}

/* Files of bytes: one number for each token, and the score divides by them. */
static void put_bytes(const int *bytes, int n) {
    write_shard(IN("given/x_val_bytes_000000.bin"), bytes, n);
}

static Shards *given_val(const Tokenizer *t) {
    Shards *val = shards_open(IN("given"), "val", HAND_VOCAB);
    check_text_bytes(t, val);
    return val;
}

static void test_given_bytes(void) {
    static const int ids[] = {1, SP_A, AB, SP_A, SP_A, 1, SP_A, AB, 4, SP_A, 103, CC};
    int bytes[] = {0, 2, 3, 1, 2, 0, 2, 1, 1, 2, 1, 2};
    Golf m;
    mkdir(IN("given"), 0777);
    write_shard(IN("given/x_val_000000.bin"), ids, 12);
    write_hand_model(IN("t.model"));
    const Tokenizer *t = tokenizer_load(IN("t.model"));
    new_model(&m, "vocab=266 width=16 heads=2 seq=8 repeat=2", 40);
    const Score plain = golf_eval(&m, t, given_val(t), 0, 0);

    put_bytes(bytes, 12);
    CHECK(STATUS(given_val(t)) == 0 && strstr(message, "x_val_bytes_000000.bin: 17"),
          "bytes of files: %s", message);
    Shards *val = shards_open(IN("given"), "val", HAND_VOCAB);
    const Score given = golf_eval(&m, t, val, 0, 0), all = golf_eval(&m, t, val, 2, 0);
    CHECK(plain.bytes == 11 && given.bytes == 12 && all.bytes == 17 &&
              given.nll == plain.nll && near(given.bpb * 12, plain.bpb * 11, EPS),
          "%d bytes by the table, %d and %d of files", (int)plain.bytes, (int)given.bytes,
          (int)all.bytes);
    golf_free(&m);

    DIES("fewer bytes than tokens", "val_bytes_000000.bin|12 tokens|those of 11",
         (put_bytes(bytes, 11), given_val(t)));
    bytes[5] = 1;
    DIES("bytes of <s>", "val_bytes_000000.bin|none for control pieces|for 1 control",
         (put_bytes(bytes, 12), given_val(t)));
    memset(bytes, 0, sizeof bytes);
    DIES("no bytes", "val_bytes_000000.bin|about 16 in all, found 0",
         (put_bytes(bytes, 12), given_val(t)));
    bytes[1] = 40;
    DIES("too many bytes", "val_bytes_000000.bin|about 16 in all, found 40",
         (put_bytes(bytes, 12), given_val(t)));
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

/* What was given back is nobody's: no other file is closed for it, when many are open. */
static void test_closed_shards(void) {
    const char *dir = write_positions();
    int part[10], good = 1;

    for (int k = 0; k < 40; k++) {
        Shards *gone = shards_open(dir, "train", 1000);
        shards_close(gone);
        const Shards *s = shards_open(dir, "train", 1000);
        const Shards *other = shards_open(dir, "val", 1000);
        shards_read(k % 2 ? s : gone, 395, 10, part);
        for (int i = 0; i < 10; i++) good &= part[i] == 395 + i;
        shards_read(other, 0, 5, part);
        for (int i = 0; i < 5; i++) good &= part[i] == i;
    }
    CHECK(good, "tokens of other files");
}

/* llm.c's names: without a number, where there is one file. */
static void test_shard_names(void) {
    static const struct {
        const char *file, *split;
        int prefix;
    } rows[] = {{"x_val_000000.bin", "val", 6},
                {"tiny_val.bin", "val", 8},
                {"x_val_7.bin", "val", 6},
                {"a_train_val_1.bin", "val", 12},
                {"a_val_train_1.bin", "val", 0},
                {"x_val7.bin", "val", 0},
                {"x_val_.bin", "val", 0},
                {"x_val_1.bin.tmp", "val", 0},
                {"x_val_bytes_1.bin", "val", 0},
                {"x_val_bytes_1.bin", "val_bytes", 12},
                {"tiny_val_bytes.bin", "val_bytes", 14},
                {"xval_1.bin", "val", 0},
                {".bin", "val", 0},
                {"val.bin", "val", 0},
                {"7.bin", "val", 0},
                {"x_val_x1.bin", "val", 0}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        const int got = shard_prefix(rows[i].file, rows[i].split);
        CHECK(got == rows[i].prefix, "%s, %s: %d", rows[i].file, rows[i].split, got);
    }

    int ids[40], n = 0;
    for (int i = 0; i < 40; i++) ids[i] = i;
    mkdir(IN("llmc"), 0777);
    write_shard(IN("llmc/tiny_shakespeare_train.bin"), ids, 40);
    write_shard(IN("llmc/tiny_shakespeare_val.bin"), ids, 9);
    const Shards *train = shards_open(IN("llmc"), "train", 40);
    const Shards *val = shards_open(IN("llmc"), "val", 40);
    shards_read(train, 39, 1, &n);
    CHECK(train->tokens == 40 && val->tokens == 9 && n == 39, "%d and %d tokens, last %d",
          (int)train->tokens, (int)val->tokens, n);

    write_shard(IN("llmc/tiny_marlowesaid_val.bin"), ids, 9);
    DIES("two texts", "one text|tiny_marlowesaid_val.bin|tiny_shakespeare_val.bin",
         shards_open(IN("llmc"), "val", 40));
    write_shard(IN("llmc/tiny_shakespeare_train_000000.bin"), ids, 9);
    DIES("a text twice", "one text|train.bin|train_000000.bin",
         shards_open(IN("llmc"), "train", 40));
}

/* ------------------------------------------------------------------------------------
 * Preparing a folder */
/* Every part ends behind a line, or a word, or a character; together they are the text. */
static void test_parts(void) {
    static const struct {
        const char *text;
        size_t most;
        const char *parts; /* with | at each cut */
    } rows[] = {{"ab\ncd\nef\n", 6, "ab\ncd\n|ef\n"},
                {"ab\ncd\nef", 5, "ab\n|cd\nef"},
                {"ab cd ef", 6, "ab cd| ef"},
                {"ab cd ef", 4, "ab| cd| ef"},
                {"abcdefgh", 3, "abc|def|gh"},
                {"ab\xe2\x82\xac\xe2\x82\xac", 4, "ab|\xe2\x82\xac|\xe2\x82\xac"},
                {"\x82\x82\x82\x82\x82\x82", 4, "\x82|\x82|\x82\x82\x82\x82"},
                {"abcdef", 6, "abcdef"}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char got[64] = "";
        const size_t len = strlen(rows[i].text);
        size_t from = 0;
        while (from < len) {
            const size_t end = part_end(rows[i].text, len, from, rows[i].most);
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%.*s",
                     from ? "|" : "", (int)(end - from), rows[i].text + from);
            CHECK(end > from && end - from <= rows[i].most, "a part of %d bytes",
                  (int)(end - from));
            from = end;
        }
        CHECK(!strcmp(got, rows[i].parts), "parts: %s, not %s", got, rows[i].parts);
    }
}

/* The whole text comes back from files that are longer than what is encoded at once. */
static void check_long_files(const char *how) {
    static const char *const said[] = {"state of the",  "union and",     "we shall",
                                       "great nations", "of our people", "congress"};
    static char text[6001], line[512];
    size_t n = 0, len;
    remove_tree(IN("long"));
    while (n + 40 < sizeof text)
        n += (size_t)sprintf(text + n, "%s%c", said[dice(6)], "\n \n"[dice(3)]);
    put_file(IN("long.txt"), text, n);
    snprintf(line, sizeof line,
             "prepare --out=@/long --name=x %s --train @/long.txt --val @/long.txt", how);
    encode_most = 200;
    const int status = STATUS(command_line(line));
    encode_most = 1 << 28;
    CHECK(!status, "a long file: %s", message);
    if (status) return;

    const Tokenizer *t = tokenizer_load(IN("long/tokenizer.model"));
    Shards *val = shards_open(IN("long"), "val", t->vocab);
    int *ids = xcalloc((size_t)val->tokens, sizeof *ids), starts = 0;
    shards_read(val, 0, (int)val->tokens, ids);
    for (int64_t i = 0; i < val->tokens; i++) starts += ids[i] == t->bos;
    const char *back = tokenizer_decode(t, ids, (size_t)val->tokens, &len);
    CHECK(len == n && !memcmp(back, text, n) && starts > (int)n / 200,
          "%s: %zu of %zu bytes in %d parts", how, len, n, starts);
}

static void test_long_files(void) {
    check_long_files("--vocab=300");
    write_hand_model(IN("t.model"));
    check_long_files("--tokenizer=@/t.model");
}

/* Slashes at the end of a folder's name; an empty folder that is there. */
static void test_folders(void) {
    put_file(IN("ab.txt"), "ab abc bc ab abc\n", 17);
    write_hand_model(IN("t.model"));
    const char *make = "prepare --out=@/made/ --name=x --tokenizer=@/t.model "
                       "--train @/ab.txt --val @/ab.txt";
    CHECK(STATUS(command_line(make)) == 0 && exists("made/info.txt"), "made/: %s",
          message);
    DIES("twice", "made: exists already", command_line(make));
    remove_tree(IN("made"));
    mkdir(IN("made"), 0777);
    CHECK(STATUS(command_line(make)) == 0 && exists("made/info.txt"), "empty made/: %s",
          message);

    mkdir(IN("kept"), 0777);
    DIES("a bad tokenizer", "SentencePiece",
         command_line("prepare --out=@/kept/ --name=x --tokenizer=@/ab.txt "
                      "--train @/ab.txt --val @/ab.txt"));
    CHECK(exists("kept") && !exists("kept.part"), "what was there, and only that, stays");
    put_file(IN("kept/mine"), "x", 1);
    DIES("a full folder", "kept: exists already",
         command_line("prepare --out=@/kept --name=x --tokenizer=@/t.model "
                      "--train @/ab.txt --val @/ab.txt"));
    CHECK(exists("kept/mine"), "a folder that was there");

    Config c = config_of("");
    Run run = {.preset = "tiny"};
    snprintf(c.out, sizeof c.out, "%s//", IN("run"));
    snprintf(c.tokenizer, sizeof c.tokenizer, "%s", IN("t.model"));
    open_run(&c, &run);
    CHECK(!strcmp(c.out, IN("run")), "a run in %s", c.out);
}

/* Tokens that grow at their end. */
typedef struct {
    int id[200000], n;
} Tokens;

/* A document of letters that no other document has, each of them HELD_LEN at least. */
enum { HELD_LEN = 1500 };

static void put_held_document(Tokens *to, int number) {
    const int bos = 1, a = 4 + 'a';
    to->id[to->n] = bos;
    to->n++;
    for (int i = 0; i < HELD_LEN + 37 * number; i++) {
        to->id[to->n] = a + (int)(hash64(number, i) % 26);
        to->n++;
    }
}

static void same_split(const char *dir, const char *split, const Tokens *want) {
    const Shards *s = shards_open(dir, split, HAND_VOCAB);
    Tokens *got = xcalloc(1, sizeof *got);
    CHECK(s->tokens == want->n, "%s: %d tokens, not %d", split, (int)s->tokens, want->n);
    if (s->tokens == want->n) shards_read(s, 0, want->n, got->id);
    CHECK(!memcmp(got->id, want->id, sizeof(int) * (size_t)want->n),
          "%s: other tokens, or in another order", split);
    free(got);
}

/* Training text of so many documents, in one file or two; its parts when every k-th is held
 * out. */
static void check_held_out(int documents, int every, int one_file) {
    static Tokens all, part[2];
    char line[256], dir[256];
    all.n = part[0].n = part[1].n = 0;
    for (int d = 1; d <= documents; d++) {
        put_held_document(&all, d);
        put_held_document(&part[d % every == 1], d);
    }
    remove_tree(IN("whole"));
    mkdir(IN("whole"), 0777);
    write_hand_model(IN("whole/tokenizer.model"));
    if (one_file) {
        write_shard(IN("whole/two_names_train.bin"), all.id, all.n);
    } else {
        const int third = all.n / 3;
        write_shard(IN("whole/x_train_000000.bin"), all.id, third);
        write_shard(IN("whole/x_train_000001.bin"), all.id + third, all.n - third);
    }

    remove_tree(IN("held"));
    snprintf(line, sizeof line, "prepare --out=@/held --hold_out=@/whole --every=%d",
             every);
    CHECK(STATUS(command_line(line)) == 0, "%s: %s", line, message);
    snprintf(dir, sizeof dir, "%s", IN("held"));
    same_split(dir, "train", &part[0]);
    same_split(dir, "val", &part[1]);
    CHECK(exists(one_file ? "held/two_names_val_000000.bin" : "held/x_val_000000.bin"),
          "the shards have another name");
}

static void check_held_tail(void) {
    static Tokens all, part[2];
    all.n = part[0].n = part[1].n = 0;
    put_held_document(&all, 1);
    const int cut = all.n - all.n / 20;
    part[0] = all;
    part[0].n = cut;
    part[1].id[0] = 1;
    part[1].n = 1 + all.n - cut;
    memcpy(part[1].id + 1, all.id + cut, sizeof(int) * (size_t)(all.n - cut));
    write_data("one", 40, 40, HAND_VOCAB);
    write_shard(IN("one/x_train_000000.bin"), all.id, all.n);
    CHECK(STATUS(command_line("prepare --out=@/tail --hold_out=@/one")) == 0, "%s",
          message);
    same_split(strdup(IN("tail")), "train", &part[0]);
    same_split(strdup(IN("tail")), "val", &part[1]);
}

/* Part of the training text becomes the validation text of another folder; nothing of the
 * validation text does. */
static void test_held_out(void) {
    size_t n;
    check_held_out(45, 20, 0);
    check_held_out(8, 2, 1);
    const uint8_t *model = read_file(IN("whole/tokenizer.model"), &n);
    CHECK(same_file(IN("held/tokenizer.model"), model, n), "another tokenizer");
    const char *info = (char *)read_file(IN("held/info.txt"), &n);
    CHECK(strstr(info, "vocab 266\n") && strstr(info, "train      4 documents") &&
              strstr(info, "val        4 documents        6592 bytes       6596 tokens"),
          "info: %s", info);
    check_held_tail();

    const int unknown[] = {1, 3, 70, 71, 1, 72, 73};
    write_shard(IN("one/x_train_000000.bin"), unknown, 7);
    DIES("text that is lost", "unknown pieces",
         command_line("prepare --out=@/lost --hold_out=@/one --every=2"));
    CHECK(!exists("lost") && !exists("lost.part"), "a folder is left");
    DIES("no folder", "nowhere|tokenizer.model",
         command_line("prepare --out=@/lost --hold_out=@/nowhere"));
    DIES("there already", "held: exists already",
         command_line("prepare --out=@/held --hold_out=@/one"));
}

/* ------------------------------------------------------------------------------------
 * The order of training */
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
    put_u(b, 20240801, 4);
    put_u(b + 4, 7, 4);
    put_file(last, b, n);
    DIES("tokens of 32 bits",
         "train_000002.bin|16-bit|32 bits|20240801|version 7|Llama 3",
         read_all(dir, 1000));
}

/* ------------------------------------------------------------------------------------
 * Single bytes changed at random: refused or used, never a crash or a hang */
static void use_shard(const char *path) {
    (void)path;
    read_all(IN("damaged"), 200);
}

static void test_corruption(void) {
    mkdir(IN("damaged"), 0777);
    write_shard(IN("shard"), tokens_below(200, 700, 3), 700);
    check_corruption("shard", strdup(IN("damaged/x_train_000000.bin")), use_shard, 1);
}

int main(void) {
    start_tests();
    run_test("bytes: text spelled", test_text_spelled);
    run_test("bytes: tables", test_text_bytes);
    run_test("bytes: no wrong score", test_no_wrong_score);
    run_test("bytes: files of them", test_given_bytes);
    run_test("shards", test_shards);
    run_test("shards: closed", test_closed_shards);
    run_test("shards: names", test_shard_names);
    run_test("order of training", test_training_order);
    run_test("bad shards", test_bad_shards);
    run_test("prepare: parts", test_parts);
    run_test("prepare: long files", test_long_files);
    run_test("prepare: folders", test_folders);
    run_test("prepare: held out", test_held_out);
    run_test("corruption", test_corruption);
    return end_tests("input");
}
