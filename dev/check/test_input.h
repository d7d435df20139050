/* test_input.h - part of test_golf.c: tests of everything that the program reads. Tokenizers and
 * shards; then every error message, full disks, locks, and bytes changed at random. Children are
 * forked, so that what dies can be looked at. */

/* ---------------------------------------------------------------------------------------------
 * Files and children
 * --------------------------------------------------------------------------------------------- */
static char tmp[512];
#define IN(name) path_of(tmp, name)

static void put_file(const char *path, const void *data, size_t n) { /* no fsync: we write a lot */
    FILE *f = fopen(path, "wb");
    if (!f || (n && fwrite(data, 1, n, f) != n) || fclose(f)) die("%s: cannot write", path);
}
static int same_file(const char *path, const void *data, size_t n) {
    size_t len;
    uint8_t *there = read_file(path, &len);
    const int same = len == n && !memcmp(there, data, n);
    free(there);
    return same;
}
static int exists(const char *name) { return access(IN(name), F_OK) == 0; }

static void remove_tree(const char *path) {
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char inner[2048];
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) remove_tree(inner);
    }
    if (d) closedir(d);
    remove(path);
}
static pid_t parent;
static void clean_up(void) {
    if (getpid() == parent) remove_tree(tmp);
}

/* STATUS(statements) runs them in a child with one thread and a time limit: its exit status, 0
 * when they run through, 1 after die(), -1 after a signal. What it wrote to stderr is `message`.
 * A sanitizer's finding has an exit status of its own. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99"; }
const char *__ubsan_default_options(void) { return "halt_on_error=1:exitcode=98"; }
static char message[8192];
static int err_pipe[2];
static pid_t child;

#define STATUS(...) (child_start() == 0 ? ((__VA_ARGS__), exit(0), 0) : child_end())
static pid_t child_start(void) {
    fflush(stdout);
    if (pipe(err_pipe) || (child = fork()) < 0) die("cannot start a child: %s", strerror(errno));
    if (child) return child;
    dup2(err_pipe[1], 2);
    close(err_pipe[0]), close(err_pipe[1]);
    if (!freopen("/dev/null", "w", stdout)) exit(9);
    threads(1); /* the parent's team of threads does not exist here */
    alarm(10);
    return 0;
}
static int child_end(void) {
    int status;
    size_t n = 0;
    const size_t room = sizeof message - 1;
    close(err_pipe[1]);
    for (ssize_t k; n < room && (k = read(err_pipe[0], message + n, room - n)) > 0;) n += (size_t)k;
    message[n] = 0;
    close(err_pipe[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* One line on stderr with all of the words ('|' between them), exit status 1. */
static void expect_message(int status, const char *what, const char *words) {
    char copy[512], *save;
    const size_t len = strlen(message);
    snprintf(copy, sizeof copy, "%s", words);
    CHECK(status == 1, "%s: exit status %d instead of 1: %s", what, status, message);
    CHECK(len && strchr(message, '\n') == message + len - 1, "%s: not one line: %s", what, message);
    for (char *w = strtok_r(copy, "|", &save); w; w = strtok_r(NULL, "|", &save))
        CHECK(strstr(message, w) != NULL, "%s: expected '%s' in: %s", what, w, message);
}
#define DIES(what, words, ...) expect_message(STATUS(__VA_ARGS__), what, words)

/* A tokenizer model written by hand: fields of a protobuf message. */
typedef struct {
    uint8_t b[32768];
    size_t n;
} Proto;

static void pb_raw(Proto *p, const char *s, size_t n) { memcpy(p->b + p->n, s, n), p->n += n; }
static void pb_piece(Proto *p, const char *s, float score, int type) { /* field 1: {1, 2, 3} */
    const size_t n = strlen(s);
    const char head[] = {1 << 3 | 2, (char)(n + 9), 1 << 3 | 2, (char)n};
    const char tail[] = {3 << 3, (char)type};
    pb_raw(p, head, 4), pb_raw(p, s, n), pb_raw(p, "\x15", 1); /* 2 << 3 | 5 */
    pb_raw(p, (const char *)&score, 4), pb_raw(p, tail, 2);
}
#define PB_BPE(p) pb_raw(p, "\x12\x05\x18\x02\x98\x02\x01", 7) /* 2: {3: BPE, 35: byte fallback} */
static void pb_start(Proto *p, int bytes) { /* 0..3, and the bytes as 4..259 */
    char name[8];
    p->n = 0;
    pb_piece(p, "<pad>", 0, PIECE_CONTROL), pb_piece(p, "<s>", 0, PIECE_CONTROL);
    pb_piece(p, "</s>", 0, PIECE_CONTROL), pb_piece(p, "<unk>", 0, PIECE_UNKNOWN);
    for (unsigned i = 0; i < 256 && bytes; i++) {
        snprintf(name, sizeof name, "<0x%02X>", i);
        pb_piece(p, name, 0, PIECE_BYTE);
    }
}

enum { AB = 260, BC, ABC, SP_A, SP, CC, HAND_VOCAB }; /* pieces of this model */
static void write_hand_model(const char *path) {
    static Proto p;
    pb_start(&p, 1);
    pb_piece(&p, "ab", -0, 1), pb_piece(&p, "bc", -1, 1), pb_piece(&p, "abc", -2, 1);
    pb_piece(&p, SPACE "a", -3, 1), pb_piece(&p, SPACE, -4, 1), pb_piece(&p, "cc", -5, 1);
    PB_BPE(&p), pb_raw(&p, "\x1A\x04\x18\x00\x20\x00", 6); /* 3: {3: no prefix, 4: no trim} */
    put_file(path, p.b, p.n);
}
static void write_shard(const char *path, const int *tokens, int n) {
    uint8_t *b = xcalloc(SHARD_HEADER + 2 * (size_t)n, 1);
    put_u(b, SHARD_MAGIC, 4), put_u(b + 4, 1, 4), put_u(b + 8, (uint64_t)n, 4);
    for (int i = 0; i < n; i++) put_u(b + SHARD_HEADER + 2 * i, (uint64_t)tokens[i], 2);
    put_file(path, b, SHARD_HEADER + 2 * (size_t)n);
    free(b);
}
static void write_data(const char *name, int n_train, int n_val, int vocab) { /* a data folder */
    const char *dir = strdup(IN(name));
    const int *t = tokens_below(vocab, (size_t)(n_train + n_val), 17);
    mkdir(dir, 0777);
    write_hand_model(path_of(dir, "tokenizer.model"));
    write_shard(path_of(dir, "x_train_000000.bin"), t, n_train);
    write_shard(path_of(dir, "x_val_000000.bin"), t + n_train, n_val);
}

/* ---------------------------------------------------------------------------------------------
 * Tokenizer and shards
 * --------------------------------------------------------------------------------------------- */
static void expect_ids(const Tokenizer *t, const char *text, const char *want) {
    char got[1024] = "";
    size_t n, at = 0;
    const int *ids = tokenizer_encode(t, text, strlen(text), &n);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%d", i ? " " : "", ids[i]);
    CHECK(!strcmp(got, want), "\"%s\": expected %s, found %s", text, want, got);
}

static void round_trip(const Tokenizer *t, const char *s, size_t n) {
    size_t k, len, sum = 0;
    int *ids = tokenizer_encode(t, s, n, &k);
    char *back = tokenizer_decode(t, ids, k, &len);
    for (size_t i = 0; i < k; i++)
        sum += (size_t)tokenizer_bytes(t, i ? ids[i - 1] : t->bos, ids[i]);
    sum += k && t->piece[ids[0]].leading_space; /* not counted after BOS */
    CHECK(len == n && !memcmp(back, s, n) && sum == n, "%zu bytes: %zu, counted %zu", n, len, sum);
    free(ids), free(back);
}

static void test_round_trip(const Tokenizer *t) {
    static const char *const like_utf8 = "\xc3\xa9\xe2\x82\xac\xf0\x9f a";
    char s[2048];
    for (int i = 0; i < 256; i++) s[0] = (char)i, round_trip(t, s, 1);
    for (int i = 0; i < 256; i++) s[i] = (char)i;
    round_trip(t, s, 256);
    for (int r = 0; r < 60; r++) { /* any bytes; few letters; what looks like UTF-8 */
        const size_t n = (size_t)dice(2000);
        for (size_t i = 0; i < n; i++)
            s[i] = r % 3 == 0   ? (char)dice(256)
                   : r % 3 == 1 ? " abc\n\x81\xe2"[dice(7)] : like_utf8[dice(9)];
        for (size_t i = 0; i + 3 <= n; i++)
            if (!memcmp(s + i, SPACE, 3)) s[i] = '_'; /* it is written as a space */
        round_trip(t, s, n);
    }
}

static void test_tokenizer(void) {
    static Proto p;
    char path[600];
    size_t len;
    snprintf(path, sizeof path, "%s", IN("t.model"));
    write_hand_model(path);
    const Tokenizer *t = tokenizer_load(path);
    CHECK(t->vocab == HAND_VOCAB && t->bos == 1 && t->unk == 3, "special ids");
    const char *encoded[][2] = {
        {"", ""}, {"bc", "261"}, {"abab", "260 260"}, {" a b", "263 264 102"}, {"  a", "264 263"},
        {"abc", "262"},       /* ab first (score 0), then abc */
        {" abc", "264 262"},  /* ab (0) before _a (-3) */
        {"ccc", "265 103"},   /* of equal merges the left one; byte c is 4 + 0x63 = 103 */
        {"<s>", "64 119 66"}, /* control pieces are not made from text */
        {"\xc3\xa9", "199 173"}};
    for (size_t i = 0; i < sizeof encoded / sizeof *encoded; i++)
        expect_ids(t, encoded[i][0], encoded[i][1]);
    /* the divisor of bpb: bytes of the piece, its leading space only after real text */
    const int rows[][3] = {{1, SP_A, 1}, {AB, SP_A, 2}, {AB, SP, 1},  {1, SP, 0},
                           {AB, 1, 0},   {AB, 3, 0},    {SP_A, 4, 1}, {4, ABC, 3},
                           {2, SP_A, 1}, {3, SP_A, 1},  {0, AB, 2},   {99, 259, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK(tokenizer_bytes(t, rows[i][0], rows[i][1]) == rows[i][2], "bytes of %d after %d: %d",
              rows[i][1], rows[i][0], tokenizer_bytes(t, rows[i][0], rows[i][1]));
    test_round_trip(t);
    pb_start(&p, 0); /* the library's default flags: dummy prefix, spaces trimmed; runs of unk */
    pb_piece(&p, SPACE "a", 0, 1), pb_piece(&p, SPACE, -1, 1), pb_piece(&p, "a", -2, 1); /* 4..6 */
    pb_raw(&p, "\x12\x02\x18\x02", 4), put_file(path, p.b, p.n);
    t = tokenizer_load(path);
    expect_ids(t, "a", "4"), expect_ids(t, "  axyz  a ", "4 3 4");
    char *s = tokenizer_decode(t, (int[]){4, 3, 4}, 3, &len);
    CHECK(!strcmp(s, "a \xe2\x81\x87  a"), "decoded \"%s\"", s);

#define MODEL_DIES(what, words, ...) \
    pb_start(&p, 1), PB_BPE(&p), __VA_ARGS__, put_file(path, p.b, p.n); \
    DIES(what, words, tokenizer_encode(tokenizer_load(path), "a", 1, &len))
    DIES("no tokenizer", "nothere.model|cannot open", tokenizer_load(IN("nothere.model")));
    MODEL_DIES("empty model", "t.model|found 0 pieces", p.n = 0);
    MODEL_DIES("text as model", "t.model|SentencePiece", p.n = 0, pb_raw(&p, "hello, world\n", 13));
    MODEL_DIES("cut model", "t.model|cut short", p.n -= 20);
    MODEL_DIES("bytes missing", "t.model|byte 0x00|missing", pb_start(&p, 0), PB_BPE(&p));
    MODEL_DIES("odd byte", "t.model|piece 260|<0xNN>", pb_piece(&p, "<0x0a>", 0, 6));
    MODEL_DIES("signed byte", "t.model|piece 260|<0xNN>", pb_piece(&p, "<0x-1>", 0, 6));
    MODEL_DIES("two unknowns", "t.model|one unknown piece", pb_piece(&p, "<unk2>", 0, 2));
    MODEL_DIES("twins", "t.model|260|261", pb_piece(&p, "a", 0, 1), pb_piece(&p, "a", 0, 1));
    MODEL_DIES("score", "t.model|finite score", pb_piece(&p, "a", (float)INFINITY, 1));
    MODEL_DIES("type", "t.model|a type of 1..6, found 9", pb_piece(&p, "a", 0, 9));
    MODEL_DIES("unigram", "t.model|model_type 1", pb_start(&p, 0), pb_piece(&p, "a", 0, 1));
    MODEL_DIES("map", "t.model|character map|ready-made", pb_raw(&p, "\x1A\x03\x12\x01x", 5));
    DIES("decoding", "t.model|0..259|found 260",
         tokenizer_decode(tokenizer_load(path), (int[]){260}, 1, &len));
}

/* Facts from the SentencePiece library, where the folder with them is there. */
static void test_shipped_tokenizers(void) {
    const char *fineweb = "../shared/data/fineweb_1024_bpe", *sotu = "data/sotu/tokenizer.model";
    char path[256], line[8192];
    size_t n, rows = 0;
    if (access(sotu, R_OK)) printf("skipped: there is no %s\n", sotu);
    else test_round_trip(tokenizer_load(sotu));
    snprintf(path, sizeof path, "%s.model", fineweb);
    if (access(path, R_OK)) {
        printf("skipped: there is no %s\n", path);
        return;
    }
    const Tokenizer *t = tokenizer_load(path);
    DIES("encoding with fineweb", "character map|fineweb", tokenizer_encode(t, "a", 1, &n));
    snprintf(path, sizeof path, "%s.bytes.tsv", fineweb);
    FILE *f = fopen(path, "r");
    for (int id, b, l, c; f && fgets(line, sizeof line, f);) {
        if (sscanf(line, "%d %d %d %d", &id, &b, &l, &c) != 4) continue;
        const Piece *x = t->piece + id;
        CHECK(x->base_bytes == b && x->leading_space == l && x->boundary == c, "piece %d", id);
        rows++;
    }
    CHECK(rows == (size_t)t->vocab, "%zu rows of the table for %d pieces", rows, t->vocab);
    snprintf(path, sizeof path, "%s.encode.jsonl", fineweb);
    f = fopen(path, "r");
    for (rows = 0; f && fgets(line, sizeof line, f); rows++) {
        int ids[512], k = 0;
        char want[4096] = "\"decoded\": \"", *o = want + strlen(want);
        char *s = strstr(line, "\"ids\": [");
        for (s = s ? s + 8 : line; k < 512 && isdigit((unsigned char)*s); s += strspn(s, ", "))
            ids[k++] = (int)strtol(s, &s, 10);
        char *text = tokenizer_decode(t, ids, (size_t)k, &n);
        for (uint8_t *c = (uint8_t *)text; *c; c++) { /* as JSON: \uXXXX of two or three bytes */
            unsigned u = *c < 0xE0 ? *c & 31 : *c & 15;
            if (*c < 0x80) {
                *o++ = (char)*c;
                continue;
            }
            for (int more = *c < 0xE0 ? 1 : 2; more > 0; more--) u = u << 6 | (*++c & 63);
            o += sprintf(o, "\\u%04x", u);
        }
        strcpy(o, "\"");
        CHECK(k > 0 && strstr(line, want), "expected %s in %s", want, line);
    }
    CHECK(rows > 0, "no lines in %s", path);
}

static void read_all(const char *dir, int vocab) {
    const Shards *s = shards_open(dir, "train", vocab);
    shards_read(s, 0, (int)s->tokens, tokens_below(2, (size_t)s->tokens, 1));
}

static void test_shards(void) {
    int t[1000], out[1001], row[1001], ok = 1;
    const char *dir = strdup(IN("s")), *file = path_of(dir, "x_train_000002.bin");
    for (int i = 0; i < 1000; i++) t[i] = i;
    mkdir(dir, 0777);
    write_shard(path_of(dir, "x_train_000000.bin"), t, 400);
    write_shard(path_of(dir, "x_train_000001.bin"), t, 0);
    write_shard(file, t + 400, 600);
    write_shard(path_of(dir, "x_val_000000.bin"), t, 5);
    put_file(path_of(dir, "x_train_000003.bin.tmp"), "x", 1); /* not a shard */
    const Shards *s = shards_open(dir, "train", 1000);
    CHECK(s->count == 3 && s->tokens == 1000, "%d shards, %d tokens", s->count, (int)s->tokens);
    shards_read(s, 0, 1000, out), shards_read(s, 395, 10, row);
    for (int i = 0; i < 1000; i++) ok &= out[i] == i && (i >= 10 || row[i] == 395 + i);
    CHECK(ok, "tokens across shards");
    for (int seq = 1; seq < 1000; seq = seq * 3 + 1) {
        const int windows = 999 / seq;
        int seed = 0, epoch = 0, moved = 0; /* rows that differ by seed, epoch, from file order */
        for (int64_t e = 0; e < 4; e++) {
            char seen[1000] = {0};
            int shift = -1;
            ok = 1;
            for (int w = 0; w < windows; w++) {
                shards_train_row(s, 7, e * windows + w, seq, row);
                for (int i = 0; i < seq; i++) ok &= row[i + 1] == row[i] + 1;
                if (shift < 0) shift = row[0] % seq;
                ok &= row[0] % seq == shift && !seen[row[0] / seq];
                seen[row[0] / seq] = 1;
                moved += row[0] / seq != w;
                shards_train_row(s, 8, e * windows + w, seq, out), seed += out[0] != row[0];
                shards_train_row(s, 7, (e + 1) * windows + w, seq, out), epoch += out[0] != row[0];
                shards_train_row(s, 7, e * windows + w, seq, out); /* again: a pure function */
                ok &= !memcmp(out, row, sizeof(int) * ((size_t)seq + 1));
            }
            CHECK(ok, "seq %d epoch %d: each window once, whole", seq, (int)e);
        }
        const int most = 2 * windows; /* of the 4 epochs' rows */
        CHECK(windows < 8 || (seed > most && epoch > most && moved > most), "seq %d: order", seq);
    }
    DIES("short text", "train_000000.bin|at least 1000 + 1|found 1000|--seq",
         shards_train_row(s, 1, 0, 1000, row));
    DIES("position", "within 1000 tokens|found 999 + 2", shards_read(s, 999, 2, row));
    DIES("token", "train_000002.bin|vocabulary of 999|found 999 at position 599|tokenizer",
         read_all(dir, 999));
    DIES("no folder", "nodir|cannot open|get.sh", shards_open(IN("nodir"), "train", 9));
    DIES("no shards", "NAME_test_|found none|get.sh", shards_open(dir, "test", 9));
    size_t n;
    file = path_of(dir, "x_train_000002.bin");
    uint8_t *b = read_file(file, &n);
    put_file(file, b, n - 1);
    DIES("cut shard", "train_000002.bin|2224 bytes|found 2223|get.sh", read_all(dir, 1000));
    put_file(file, b, 7);
    DIES("cut header", "train_000002.bin|expected a token shard", read_all(dir, 1000));
    b[0] ^= 1, put_file(file, b, n);
    DIES("magic", "train_000002.bin|magic 20240520", read_all(dir, 1000));
}

/* ---------------------------------------------------------------------------------------------
 * Errors: one line, exit status 1, nothing half-written
 * --------------------------------------------------------------------------------------------- */
/* text with the folder of the tests for each @. */
static const char *expanded(const char *text) {
    static char out[2][4096];
    static int k;
    char *o = out[k ^= 1];
    for (; *text; text++)
        if (*text == '@') o += sprintf(o, "%s", tmp);
        else *o++ = *text;
    *o = 0;
    return out[k];
}

static int command_line(const char *line) { /* what main does with it */
    char *argv[64], *save, *text = strdup(expanded(line));
    int argc = 0;
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) argv[argc++] = w;
    if (!strcmp(argv[0], "train")) return train_main(argc - 1, argv + 1);
    if (!strcmp(argv[0], "eval")) return eval_main(argv[1], argc - 2, argv + 2);
    if (!strcmp(argv[0], "sample")) return sample_main(argv[1], argc - 2, argv + 2);
    if (!strcmp(argv[0], "info")) return info_main(argv[1], argc - 2, argv + 2);
    return help_main();
}

#define TINY "train --preset=tiny --data=@/d --out=@/new "
#define RUN "train --preset=tiny --width=16 --seq=16 --steps=2 --data=@/d --out=@/run"
static const char *const command_errors[][2] = {
    {"train --data=@/none", "@/none|tokenizer.model|found none|data/get.sh"},
    {"train --data=@/none --tokenizer=@/d/tokenizer.model", "@/none|data folder|get.sh"},
    {"train --data=@/empty --tokenizer=@/d/tokenizer.model", "@/empty|found none|get.sh"},
    {"train --data=@/d --tokenizer=@/text", "@/text|SentencePiece"},
    {"train --data=@/d --tokenizer=@/d", "@/d|regular file"},
    {TINY "--data=@/cut", "cut/x_train_000000.bin|expected|found|get.sh"},
    {TINY "--data=@/few", "@/few|--seq=32|found 20"},
    {TINY "--seq=500", "@/d|--seq=500|found 900|100"},
    {TINY "--cap=1000 --width=fit", "--cap=1000|no multiple of 8|needs|raise --cap"},
    {TINY "--cap=5000", "would have|--cap=5000|--width=fit"},
    {TINY "--width=36 --heads=4", "--width=36|--heads=4|head_dim 9|even"},
    {TINY "--width=34 --heads=4", "--width=34|--heads=4|multiple"},
    {TINY "--heads=4 --kv_heads=3", "--kv_heads=3|divisor|--heads=4"},
    {TINY "--batch=65536 --seq=65536", "--batch=65536|--seq=65536"},
    {"train --widht=3", "unknown option --widht|nearest|--width|8 to 16384"},
    {"train --vocab=3", "unknown option --vocab"},
    {"train --stride=3", "unknown option --stride"},
    {"eval @/run/model.golf --width=3", "unknown option --width"},
    {"info @/run/model.golf --lr=3", "unknown option --lr|--cap"},
    {"train --width=7", "--width|8 to 16384|'7'"},
    {"train --width=banana", "--width|8 to 16384|banana"},
    {"train --width=32.5", "--width|32.5"},
    {"train --lr=nan", "--lr|0 to 10|nan"},
    {"train --lr=", "--lr|0 to 10"},
    {TINY "--protect=wo:3", "wqkv, wo, wup or wdown|4 to 8 or 16 bits|found 'wo:3'"},
    {TINY "--protect=wo:8,embed:8", "found 'embed:8'"},
    {TINY "--protect=wo:8,wo:4", "wo is there twice"},
    {TINY "--protect=wo:8 --wq=none", "--protect is for --wq=ternary"},
    {"train --wq=foo", "--wq|none|ternary|foo"},
    {"train --embed_bits=9", "--embed_bits|4 to 8|16|'9'"},
    {"train width=3", "--key=value|width=3|help"},
    {"train --width", "--key=value|--width"},
    {"train --preset=pokcet", "unknown preset|pokcet"},
    {RUN, "@/run|holds a run|--resume=1|--overwrite=1"},
    {RUN " --resume=1 --lr=0.1", "ckpt.bin|--lr=0.004|now it is 0.1|same options"},
    {RUN " --resume=1 --wq=none", "ckpt.bin|--wq=ternary|now it is none"},
    {RUN "3 --resume=1", "run3/ckpt.bin|checksum|damaged"},
    {RUN "4 --resume=1", "run4/ckpt.bin|expected a checkpoint"},
    {RUN "5 --resume=1", "run5/ckpt.bin|-byte numbers"},
    {TINY "--out=@/text/x", "@/text|cannot make the folder|--out"},
    {TINY "--out=@/odd --overwrite=1", "odd/log.tsv|cannot write|--out"},
    {TINY "--out=@/new --abits=2", "--abits|--aq=quest"},
    {TINY "--out=@/new --wq=int4 --protect=wo:8:10%", "wo:8:10%|--wq=ternary"},
    {TINY "--out=@/new --protect=wo:8,wo:8", "wo is there twice"},
    {TINY "--out=@/new --cluster=4,16,each", "--cluster|--init_from"},
    {TINY "--out=@/new --cluster=4,16,shared --init_from=x --protect=wqkv:8", "wqkv|codebook"},
    {TINY "--out=@/new --cluster=4,16,each --init_from=x --qat=noise", "--cluster|--qat=noise"},
    {TINY "--out=@/new --qat_ramp=0.5 --wq=quest", "--qat_ramp|--ste=identity"},
    {TINY "--out=@/new --ffn_hi=8 --hi_experts=3 --repeat=2", "--hi_experts|--repeat"},
    {"eval @/none.golf", "none.golf|cannot open"},
    {"eval @/text", "@/text|expected a model.golf"},
    {"eval @/bad.golf", "bad.golf|checksum of tensor wqkv"},
    {"sample @/bad.golf", "bad.golf|wqkv"},
    {"info @/bad.golf", "bad.golf|wqkv"},
    {"eval @/head.golf", "head.golf|checksum of its header"},
    {"eval @/cut.golf", "cut.golf|its header says|cut"},
    {"eval @/next.golf", "next.golf|version 2, found 3"},
    {"eval @/other.golf", "other.golf|seq=1x|another version"},
    {"eval @/run/model.golf --data=@/d --tokenizer=@/t2.model", "t2.model|CRC-32|--tokenizer"},
    {"eval @/run/model.golf --data=@/d --stride=17", "--stride=17|16"},
    {"eval @/run/model.golf --data=@/few", "--seq=16|10 tokens"},
    {"eval @/run/model.golf --data=@/cut", "cut/x_val_000000.bin|expected|found"},
};

static void limit_files(rlim_t bytes) { /* the disk is full from here on */
    const struct rlimit r = {bytes, bytes};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &r)) exit(9);
}

/* Runs a tiny training, then breaks copies of what it read and wrote. */
static void test_errors(void) {
    size_t n;
    static Proto p;
    write_data("d", 900, 100, HAND_VOCAB), write_data("wide", 900, 100, 300);
    write_data("few", 20, 10, 266), write_data("cut", 900, 100, HAND_VOCAB);
    if (truncate(IN("cut/x_train_000000.bin"), 1100) || truncate(IN("cut/x_val_000000.bin"), 1100))
        die("truncate: %s", strerror(errno));
    put_file(IN("text"), "some text\n", 10);
    mkdir(IN("empty"), 0777), mkdir(IN("odd"), 0777), mkdir(IN("odd/log.tsv"), 0777);
    pb_start(&p, 1), PB_BPE(&p), put_file(IN("t2.model"), p.b, p.n);
    const int status = STATUS(command_line(RUN));
    CHECK(status == 0, "a tiny run: exit status %d: %s", status, message);
    if (status) return;
    uint8_t *b = read_file(IN("run/model.golf"), &n);
    const size_t table = ARTIFACT_FIXED + get_u(b + 20, 4), payload = table + 8 * get_u(b + 24, 4) + 4;
    const size_t wqkv = payload + get_u(b + table, 4) + 50;
    b[wqkv] ^= 4, put_file(IN("bad.golf"), b, n), b[wqkv] ^= 4;
    b[40] ^= 4, put_file(IN("head.golf"), b, n), b[40] ^= 4;
    put_file(IN("cut.golf"), b, n - 1);
    b[8] = 3, put_file(IN("next.golf"), b, n), b[8] = 2;
    char *seq = strstr((char *)b + ARTIFACT_FIXED, "seq=16"); /* with a good checksum */
    if (seq) seq[5] = 'x', put_u(b + payload - 4, crc32_of(0, b, payload - 4), 4);
    put_file(IN("other.golf"), b, n);
    b = read_file(IN("run/ckpt.bin"), &n);
    for (int i = 3; i <= 5; i++) {
        const size_t at = i == 3 ? n / 2 : i == 4 ? 3 : 12;
        char file[] = "run0/ckpt.bin";
        file[3] = (char)('0' + i), file[4] = 0, mkdir(IN(file), 0777), file[4] = '/';
        b[at] ^= 12, put_file(IN(file), b, n), b[at] ^= 12;
    }
    for (size_t i = 0; i < sizeof command_errors / sizeof *command_errors; i++) {
        const char *const *row = command_errors[i];
        expect_message(STATUS(command_line(row[0])), row[0], expanded(row[1]));
    }
    CHECK(!exists("new"), "a command that cannot work made its folder");
    DIES("token", "found 2|vocabulary of 266|tokenizer",
         command_line(TINY "--data=@/wide --steps=9"));
    CHECK(!exists("new/model.golf") && !exists("new/result.json"), "a failed run left a result");
    DIES("overflow", "more than memory can address", xcalloc(SIZE_MAX / 2, 16));

    const int log = open(IN("run/log.tsv"), O_RDWR); /* as a run that is going on holds it */
    CHECK(log >= 0 && !flock(log, LOCK_EX), "lock");
    DIES("second run", "another run|--out", command_line(RUN " --overwrite=1"));
    DIES("second run", "another run|--out", command_line(RUN " --resume=1"));
    close(log);
    CHECK(same_file(IN("run/ckpt.bin"), b, n), "a refused run changed the checkpoint");

    Golf m; /* a full disk: the old file stays, nothing else does */
    new_model(&m, "vocab=266 width=32", 0);
    put_file(IN("full.bin"), "what was there before", 21);
    DIES("full disk", "full.bin|cannot write|too large|make room", limit_files(4000),
         ckpt_save(&m, IN("full.bin"), 1));
    DIES("full disk", "full.bin|cannot write|make room", limit_files(100),
         golf_save(&m, IN("full.bin"), 1));
    CHECK(same_file(IN("full.bin"), "what was there before", 21), "the old file is damaged");
    DIES("full disk", "cannot write", limit_files(9000),
         command_line(TINY "--out=@/full --steps=2"));
    CHECK(!exists("full.bin.tmp") && !exists("full/ckpt.bin") && !exists("full/ckpt.bin.tmp"),
          "a full disk left files");
    golf_free(&m);
    if (geteuid() == 0) puts("skipped: unwritable folder (root may write everywhere)");
    else {
        mkdir(IN("locked"), 0555);
        DIES("unwritable", "locked|cannot|--out", command_line(TINY "--out=@/locked --steps=1"));
        DIES("unwritable", "locked/x|cannot write", write_file(IN("locked/x"), "x", 1));
    }
    const char *fine[] = {RUN " --resume=1", RUN " --overwrite=1", "help", "info @/run/model.golf",
                          "eval @/run/model.golf --data=@/d --stride=3",
                          "sample @/run/model.golf --prompt=ab", "sample @/run/model.golf"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        const int st = STATUS(command_line(fine[i]));
        CHECK(st == 0 && !*message, "%s: exit status %d: %s", fine[i], st, message);
    }
}

/* Single bytes changed at random: refused or used, never a crash, a hang, or a changed model. */
static void use_tokenizer(const char *path) {
    static const char text[] = "  The State of the Union: abc ab \xc3\xa9 \xff\xfe a a\n\n";
    const Tokenizer *t = tokenizer_load(path);
    size_t n, len;
    int *all = tokens_below(t->vocab, (size_t)t->vocab, 1);
    tokenizer_decode(t, all, (size_t)t->vocab, &len);
    tokenizer_decode(t, tokenizer_encode(t, text, sizeof text, &n), 1, &len);
}

static void test_corruption(void) {
    const char *wanted = getenv("GOLF_CORRUPT"), *dir = strdup(IN("c"));
    const char *bad = strdup(path_of(dir, "x_train_000000.bin"));
    const char *names[] = {"artifact", "checkpoint", "tokenizer", "shard", "quest", "binary",
                           "codebook", "int4", "rows", "pquant"};
    const int times = wanted ? atoi(wanted) : DOUBLE ? 60 : 250;
    Golf m, loaded;
    mkdir(dir, 0777);
    const char *others[] = {"wq=quest wbits=3", "wq=binary", "cluster=4,20,each", "wq=int4 wscale=row",
                            "protect=wdown:8:30%", "ffn_hi=8 hi_experts=2 hi_route=token"};
    for (int i = 0; i < 6; i++) { /* artifacts of other systems */
        char text[200];
        snprintf(text, sizeof text, "vocab=266 width=16 heads=2 seq=16 repeat=2 batch=2 %s", others[i]);
        new_model(&m, text, 32);
        golf_save(&m, path_of(tmp, names[4 + i]), 1);
        golf_free(&m);
    }
    new_model(&m, "vocab=266 width=16 heads=2 seq=16 repeat=2 batch=2", 32);
    run_steps(&m, 0, 1);
    golf_save(&m, IN("artifact"), 1), ckpt_save(&m, IN("checkpoint"), 1);
    write_hand_model(IN("tokenizer")), write_shard(IN("shard"), tokens_below(200, 700, 3), 700);
    for (int kind = 0; kind < 10; kind++) {
        size_t len;
        uint8_t *b = read_file(IN(names[kind]), &len);
        int refused = 0, good = 1;
        for (int i = 0; i < times && good; i++) { /* every other one in the first 600 bytes */
            const size_t at = (size_t)dice((int)(i & 1 || len < 600 ? len : 600));
            const size_t n = i % 10 == 9 ? (size_t)dice((int)len) : len; /* some are cut short */
            const uint8_t was = b[at];
            b[at] ^= (uint8_t)(1 + dice(255));
            put_file(bad, b, n);
            b[at] = was;
            const int st = kind == 0 || kind > 3 ? STATUS(golf_load(&loaded, bad))
                           : kind == 1 ? STATUS(ckpt_load(&m, bad))
                           : kind == 2 ? STATUS(use_tokenizer(bad)) : STATUS(read_all(dir, 200));
            refused += st == 1;
            good = st == 1 ? strstr(message, bad) != NULL : st == 0 && (kind == 2 || kind == 3);
            CHECK(good, "%s, byte %zu of %zu: status %d %s", names[kind], at, n, st, message);
        }
        printf("%s: %d corruptions, %d refused\n", names[kind], times, refused);
    }
    golf_free(&m);
}
