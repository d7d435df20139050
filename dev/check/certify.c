/* certify.c - what `eval --certify` promises: an honest score gets its certificate, and one
 * that breaks a condition does not, and is told which. Those that break one join the model
 * that is scored, as systems do; what none of them can break, bugs.sh breaks. */
#include "check.h"

enum { T = 16, WIDTH = 16 };

static Config how;
static Scoring honest; /* of a model that predicts something */

static void write_inputs(void) {
    Golf m;
    write_data("d", 900, 333, HAND_VOCAB);
    new_model(&m, "vocab=266 width=16 heads=2 mlp=2 seq=16 repeat=2 embed_bits=4", T);
    stir(&m);
    golf_quantize(&m);
    const Tokenizer *tok = tokenizer_load(IN("d/tokenizer.model"));
    golf_save(&m, IN("d/model.golf"), tok->crc);
    golf_free(&m);
    honest = (Scoring){
        .path = strdup(IN("d/model.golf")), .how = &how, .tok = tok, .to = stdout};
    honest.val = shards_open(IN("d"), "val", HAND_VOCAB);
}

static void ask(int seed, int stride, int val_tokens) {
    config_defaults(&how);
    how.certify = seed;
    how.stride = stride;
    how.val_tokens = val_tokens;
}

static Score score_of(const Scoring *w) {
    Golf m;
    golf_load(&m, w->path);
    ready_to_score(&m, w->how);
    if (w->by) w->by->again(&m, w->tok, w->how);
    const Score s = golf_eval(&m, w->tok, w->val, w->how->stride, w->how->val_tokens);
    golf_free(&m);
    return s;
}

/* What a certificate says, line by line; good: its verdict. */
static const char *certificate_of(const Scoring *w, const Score *s, int *good) {
    size_t n;
    const int status =
        STATUS(freopen(IN("said"), "w", stdout) ? 0 : exit(9), exit(!certify(w, s)));
    CHECK((status == 0 || status == 1) && !*message, "status %d: %s", status, message);
    *good = status == 0;
    return (char *)read_file(IN("said"), &n);
}

/* Exactly the conditions in `broken` ('|' between) are not kept. */
static void expect_broken(const char *title, const Scoring *w, const Score *s,
                          const char *broken) {
    static const char *const conditions[] = {"file_alone", "once", "causal",
                                             "normalised"};
    int good;
    const char *name = w->by ? w->by->name : "val", *said = certificate_of(w, s, &good);
    CHECK(good == !*broken, "%s: certified %s:\n%s", title, good ? "yes" : "no", said);
    for (size_t i = 0; i < COUNT(conditions); i++) {
        char line[64];
        const int kept = !strstr(broken, conditions[i]);
        snprintf(line, sizeof line, "%s_%s %s\n", name, conditions[i],
                 kept ? "yes" : "no");
        CHECK(strstr(said, line) != NULL, "%s: expected %s in\n%s", title, line, said);
    }
}

static void expect(const char *title, const System *by, const char *broken) {
    Scoring w = honest;
    w.by = by;
    const Score s = score_of(&w);
    expect_broken(title, &w, &s, broken);
}

/* ---- Honest scores. */
static void test_honest(void) {
    static const int cases[][2] = {{0, 0}, {0, 100}, {1, 40}, {5, 0}, {16, 0}, {3, 9}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char title[64];
        ask(1 + (int)i, cases[i][0], cases[i][1]);
        snprintf(title, sizeof title, "stride %d, %d tokens", how.stride, how.val_tokens);
        expect(title, NULL, "");
    }
}

/* It learns: the interface moves with what was scored. */
static void nudge(Golf *m, int token) {
    for (size_t i = 0; i < m->n_interface; i++)
        m->interface[i] += (real)0.02 * noise(60 + (uint64_t)token, i);
}

static void learn_from_scored(Golf *m, const Rows *r) {
    for (int n = 0; n < r->B * r->T; n++) nudge(m, r->y[n]);
}

static const System learner_system;
static int learner_again(Golf *m, const Tokenizer *tok, const Config *with) {
    (void)tok;
    (void)with;
    m->N = 2 * T;
    join(m, &learner_system);
    return 1;
}
static const System learner_system = {
    .name = "learner", .again = learner_again, .learn = learn_from_scored};

static void test_honest_learner(void) {
    Scoring w = honest;
    ask(1, 0, 0);
    const Score plain = score_of(&w);
    w.by = &learner_system;
    CHECK(score_of(&w).nll != plain.nll, "it learns nothing");
    expect("score first, then learn", &learner_system, "");
    ask(2, 5, 0);
    expect("score first, then learn, stride 5", &learner_system, "");
}

/* ---- Scores that are none. */
/* The stream that enters the head knows a token of those it is to predict. */
static void hint(Golf *m, int N, const int *token) {
    static real stream[16 * T * WIDTH];
    memcpy(stream, m->prev[m->phases], sizeof(real) * (size_t)N * WIDTH);
    for (int n = 0; n < N; n++) stream[n * WIDTH + token[n] % WIDTH] += 3;
    m->prev[m->phases] = stream;
}

static double peek_ahead(Golf *m, const int *y, int N, int learn) {
    int next[16 * T];
    (void)learn;
    for (int n = 0; n < N; n++) next[n] = y[MIN(N - 1, n + 1)];
    hint(m, N, next);
    return 0;
}

static double know_the_target(Golf *m, const int *y, int N, int learn) {
    (void)learn;
    hint(m, N, y);
    return 0;
}

/* Only where many rows are scored, as those of a score are. */
static double know_it_in_many(Golf *m, const int *y, int N, int learn) {
    (void)learn;
    if (N > T) hint(m, N, y);
    return 0;
}

/* What is about to be scored together has been learnt. */
static double learn_too_early(Golf *m, const int *y, int N, int learn) {
    int sum[16 * T] = {0}, all = 0;
    (void)learn;
    for (int n = 0; n < N; n++) all += y[n];
    for (int n = 0; n < N; n++) sum[n] = all;
    hint(m, N, sum);
    return 0;
}

/* Rows that were scored are learnt from, and the next ones, too. */
static void learn_from_next(Golf *m, const Rows *r) {
    const Certificate *c = m->own[N_SYSTEMS];
    const int64_t next = r->at + (int64_t)r->B * r->step + T / 2;
    learn_from_scored(m, r);
    if (c && next < c->given_tokens) nudge(m, c->given[next]);
}

/* Something that is in no file. */
static void remember(Golf *m) {
    static int times;
    times++;
    nudge(m, times);
}

#define BREAKS(name_, init, ...) \
    static const System name_##_system; \
    static int name_##_again(Golf *m, const Tokenizer *tok, const Config *with) { \
        (void)tok; \
        (void)with; \
        init; \
        join(m, &name_##_system); \
        return 1; \
    } \
    static const System name_##_system = { \
        .name = #name_, .again = name_##_again, __VA_ARGS__}
BREAKS(peeking, (void)0, .before_head = peek_ahead);
BREAKS(knowing, (void)0, .before_head = know_the_target);
BREAKS(sly, (void)0, .before_head = know_it_in_many);
BREAKS(early, (void)0, .before_head = learn_too_early);
BREAKS(greedy, m->N = 2 * T, .learn = learn_from_next);
BREAKS(remembering, remember(m), .learn = NULL);

static void test_not_causal(void) {
    ask(1, 0, 0);
    expect("sees the next token", &peeking_system, "causal|normalised");
    expect("learns before it scores", &early_system, "causal|normalised");
    ask(1, 5, 0);
    expect("learns before it scores, stride 5", &early_system, "causal|normalised");
    ask(3, 0, 0);
    Scoring w = honest;
    w.by = &learner_system; /* whose name and first rows these are */
    const Score s = score_of(&w);
    w.by = &greedy_system;
    int good;
    const char *said = certificate_of(&w, &s, &good);
    CHECK(!good && strstr(said, "greedy_causal no"), "learns from the next rows: %s",
          said);
}

static void test_not_normalised(void) {
    ask(1, 0, 0);
    expect("knows the target", &knowing_system, "normalised");
    expect("knows the target where it counts", &sly_system, "normalised");
}

static void test_not_of_the_file(void) {
    ask(1, 0, 0);
    const Score s = score_of(&honest);
    const Score others[] = {{s.nll * (1 + 1e-15), s.loss, s.bpb, s.tokens, s.bytes},
                            {s.nll, s.loss, s.bpb, s.tokens - 1, s.bytes},
                            {s.nll, s.loss, s.bpb, s.tokens, s.bytes + 1}};
    for (size_t i = 0; i < COUNT(others); i++)
        expect_broken("another score was printed", &honest, others + i, "file_alone");

    Scoring w = honest;
    int good;
    w.by = &remembering_system;
    const Score other = score_of(&w);
    const char *said = certificate_of(&w, &other, &good);
    CHECK(!good && strstr(said, "remembering_file_alone no"), "it is not alone: %s",
          said);
}

/* ---- Every target once. */
/* Tokens that are not those of the text. */
static void test_misread(void) {
    int text[3 * T + 1], x[2 * T], y[2 * T];
    real loss[2 * T] = {0};
    Golf m = {.loss = loss};
    Certificate c = {.given = text, .given_tokens = 3 * T + 1};
    m.own[N_SYSTEMS] = &c;
    for (int i = 0; i <= 3 * T; i++) text[i] = 1000 + i;
    const Rows r = {.x = x, .y = y, .B = 2, .T = T, .step = T / 2, .at = 4};
    for (int n = 0; n < 2 * T; n++) {
        x[n] = text[4 + n / T * (T / 2) + n % T];
        y[n] = x[n] + 1;
    }
    certificate_rows(&m, &r);
    CHECK(c.misread == 0, "%d tokens of the text are misread", (int)c.misread);
    x[3]++;
    certificate_rows(&m, &r);
    CHECK(c.misread == 1, "%d tokens are misread, not one", (int)c.misread);
    y[T + 5]++;
    certificate_rows(&m, &r);
    CHECK(c.misread == 3, "%d tokens are misread, not three", (int)c.misread);
    const Rows behind = {.x = x, .y = y, .B = 1, .T = T, .step = T, .at = 3 * T};
    certificate_rows(&m, &behind);
    CHECK(c.misread == 3 + T, "%d tokens are misread", (int)c.misread);
    certificate_scored(&m, 0, 3 * T + 1);
    certificate_scored(&m, 0, 0);
    CHECK(c.misread == 5 + T, "%d targets are in no text", (int)c.misread);
}

/* A text of 40 tokens, of which `total` were scored; and what is changed in it. */
enum { NOTHING, MISREAD, TWICE, NEVER, TOO_MANY, A_BYTE, NLL, LOSS, BPB };
static int once_in(int total, int stride, int changed) {
    int text[40];
    uint8_t often[40] = {0};
    real loss[40];
    Certificate c = {.what = &honest, .tokens = 40, .seq = T, .text = text};
    Score s = {.tokens = total, .bytes = 2 * total};
    for (int i = 0; i < 40; i++) text[i] = AB;
    for (int i = 0; i < 40; i++) loss[i] = noise(3, (size_t)i);
    for (int i = 1; i <= total; i++) often[i] = 1;
    for (int i = 1; i <= total; i++) s.nll += (double)loss[i];
    s.bytes += changed == A_BYTE;
    s.loss = s.nll / total;
    s.bpb = s.nll / log_of(2) / (double)s.bytes;
    s.nll *= 1 + 1e-15 * (changed == NLL);
    s.loss *= 1 + 1e-15 * (changed == LOSS);
    s.bpb *= 1 + 1e-15 * (changed == BPB);
    if (changed == TWICE) often[9] = 2;
    if (changed == NEVER) often[9] = 0;
    if (changed == TOO_MANY) often[total + 1] = 1;
    c.times = often;
    c.loss = loss;
    c.misread = changed == MISREAD;
    ask(1, stride, 0);
    return STATUS(exit(certify_once(&c, &s)));
}

static void test_every_target(void) {
    CHECK(once_in(32, 0, NOTHING) == 1, "two rows of 16, and a rest of 7");
    CHECK(once_in(39, 4, NOTHING) == 1, "windows");
    CHECK(once_in(16, 0, NOTHING) == 0, "a row is left out");
    CHECK(once_in(38, 4, NOTHING) == 0, "windows leave one out");
    for (int changed = MISREAD; changed <= BPB; changed++)
        CHECK(once_in(32, 0, changed) == 0, "change %d is not seen", changed);
}

/* ---- Bytes. */
static void test_bytes_twice(void) {
    Tokenizer tok = *honest.tok;
    const size_t bytes = (size_t)tok.vocab * sizeof(Piece);
    Scoring w = honest;
    tok.piece = memcpy(xcalloc(bytes, 1), tok.piece, bytes);
    tok.piece[AB].base_bytes *= 2;
    w.tok = &tok;
    ask(1, 0, 0);
    const Score s = score_of(&w);
    expect_broken("bytes counted twice", &w, &s, "once");
}

/* No space is counted after <s>, and <s> has no bytes: the text of test_bpb. */
static void test_decoded_bytes(void) {
    static const int t[] = {1, SP_A, AB, SP_A, SP_A, 1, SP_A, AB, 4, SP_A, 103, CC};
    static const int want[] = {0, 1, 3, 5, 7, 7, 8, 10, 11, 13, 14, 16};
    for (int n = 0; n < 12; n++)
        CHECK(decoded_bytes(honest.tok, t, n) == want[n], "%d tokens: %d bytes, not %d",
              n, (int)decoded_bytes(honest.tok, t, n), want[n]);
    CHECK(decoded_bytes(honest.tok, t + 3, 3) == 3, "a text that starts with no <s>: %d",
          (int)decoded_bytes(honest.tok, t + 3, 3));

    for (uint64_t key = 0; key < 20; key++) { /* the table's way */
        int *x = tokens_below(HAND_VOCAB, 300, key), sum = 0;
        for (int i = 0; i < 300; i++) x[i] = x[i] == 3 || x[i] % 5 == 0 ? SP_A : x[i];
        for (int i = 1; i < 300; i++) sum += tokenizer_bytes(honest.tok, x[i - 1], x[i]);
        CHECK(decoded_bytes(honest.tok, x, 299) == sum, "%d bytes, by the table %d",
              (int)decoded_bytes(honest.tok, x, 299), sum);
    }
}

/* Files that give the bytes of each token. */
static void test_given_bytes(void) {
    Scoring w = honest;
    int bytes[333];
    for (int i = 0; i < 333; i++) bytes[i] = i % 3;
    mkdir(IN("given"), 0777);
    write_shard(IN("given/x_val_bytes_000000.bin"), bytes, 333);
    Shards with = *honest.val;
    with.bytes = open_split_files(IN("given"), "val_bytes", 1 << 16);
    w.val = &with;
    ask(1, 0, 0);
    const Score s = score_of(&w);
    CHECK(s.bytes == 321 && s.tokens == 320, "%d bytes", (int)s.bytes);
    expect_broken("bytes of files", &w, &s, "");
}

/* ---- Where a certificate looks. */
static void test_places(void) {
    const Certificate c = {.key = 5, .seq = 16, .first_end = 256};
    static const int first[] = {1, 16, 256, 319};
    int64_t seen = 0;
    for (int k = 0; k < FIRST_PLACES; k++)
        CHECK(place_of(&c, k, 320) == first[k], "place %d: %d", k,
              (int)place_of(&c, k, 320));
    for (int k = 0; k < FIRST_PLACES + 100; k++) {
        const int64_t far = place_of(&c, k, 320), near_by = place_of(&c, k, 9);
        CHECK(far >= 1 && far <= 319 && near_by >= 1 && near_by <= 8, "%d, %d", (int)far,
              (int)near_by);
        seen |= (int64_t)1 << far / 8;
    }
    CHECK(__builtin_popcountll((uint64_t)seen) > 30, "places in few parts of the text");
    CHECK(place_of(&c, 0, 1) == 1, "one target");
}

static void test_other_text(void) {
    enum { N = 40 };
    int text[N], to[N], starts = 0;
    const Certificate c = {.what = &honest, .key = 5, .text = text};
    for (int i = 0; i < N; i++) text[i] = 4 + i;
    for (int k = 0; k < 20; k++) {
        int same = 1, other = 1;
        other_text(&c, to, N, k, k);
        for (int i = 0; i <= k; i++) same &= to[i] == text[i];
        for (int i = k + 1; i < N; i++)
            other &= to[i] != text[i] && to[i] >= 0 && to[i] < HAND_VOCAB;
        starts += to[k + 1] == 1;
        CHECK(same && other, "from %d on: %d %d", k, same, other);
    }
    CHECK(starts >= 10 && starts < 14, "%d documents start", starts);
}

/* ---- The command. */
static const char *command_says(const char *line, int wanted) {
    size_t n;
    const int status =
        STATUS(freopen(IN("said"), "w", stdout) ? 0 : exit(9), exit(command_line(line)));
    CHECK(status == wanted && !*message, "%s: status %d: %s", line, status, message);
    return (char *)read_file(IN("said"), &n);
}

/* Decoding drops the spaces that a text starts with, where a tokenizer says so; tokens that
 * spell two all the same are no text of its. */
static void write_odd_text(void) {
    static Proto p;
    int t[64] = {1, SP, SP_A};
    for (int i = 3; i < 64; i++) t[i] = AB;
    mkdir(IN("odd"), 0777);
    pb_start(&p, 1);
    pb_piece(&p, "ab", -0, 1);
    pb_piece(&p, "bc", -1, 1);
    pb_piece(&p, "abc", -2, 1);
    pb_piece(&p, SPACE "a", -3, 1);
    pb_piece(&p, SPACE, -4, 1);
    pb_piece(&p, "cc", -5, 1);
    PB_BPE(&p);
    pb_raw(&p, "\x1A\x04\x18\x00\x20\x01", 6); /* 3: {3: no prefix, 4: trim} */
    put_file(IN("odd/tokenizer.model"), p.b, p.n);
    write_shard(IN("odd/x_val_000000.bin"), t, 64);
    write_shard(IN("odd/x_train_000000.bin"), t, 64);

    Golf m;
    const Tokenizer *tok = tokenizer_load(IN("odd/tokenizer.model"));
    new_model(&m, "vocab=266 width=16 heads=2 seq=16 repeat=2", 0);
    golf_save(&m, IN("odd/model.golf"), tok->crc);
    golf_free(&m);
}

static void test_command(void) {
    char line[128];
    size_t n;
    uint8_t *file = read_file(honest.path, &n);
    const char *plain = command_says("eval @/d/model.golf --data=@/d", 0);
    const char *said = command_says("eval @/d/model.golf --data=@/d --certify=1", 0);
    snprintf(line, sizeof line, "\nmodel_bytes %zu\nmodel_crc32 %08x\ntext_tokens 333\n",
             n, crc32_of(0, file, n));
    size_t size;
    const uint8_t *shard = read_file(IN("d/x_val_000000.bin"), &size);
    char crc[64];
    snprintf(crc, sizeof crc, "\ntext_crc32 %08x\n",
             crc32_of(0, shard + SHARD_HEADER, size - SHARD_HEADER));
    CHECK(strstr(said, crc) != NULL, "expected %s in %s", crc, said);
    CHECK(!strncmp(said, plain, strlen(plain)), "another score:\n%s\n%s", said, plain);
    CHECK(strstr(said, line) != NULL, "expected %s in %s", line, said);
    CHECK(!strstr(plain, "certified") &&
              strstr(said, "\ncertified yes\n") + 15 == said + strlen(said),
          "the last line: %s", said);
    write_odd_text();
    said = command_says("eval @/odd/model.golf --data=@/odd --certify=1", 1);
    CHECK(strstr(said, "\nval_once no\n") && strstr(said, "\ncertified no\n"), "%s",
          said);
    free(file);
}

/* "key": "value" for each of these lines is in the text, in their order. Returns how many
 * lines are not. */
static int lines_missing(const char *json, const char *lines) {
    char copy[4096], *save;
    int missing = 0;
    snprintf(copy, sizeof copy, "%s", lines);
    for (char *line = strtok_r(copy, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char pair[256];
        snprintf(pair, sizeof pair, "\"%.*s\": \"%s\"", (int)strcspn(line, " "), line,
                 strchr(line, ' ') + 1);
        const char *at = strstr(json, pair);
        missing += !at;
        json = at ? at + strlen(pair) : json;
    }
    return missing;
}

/* A run that is to prove its score: what `eval` says of its file is in result.json. */
static void test_of_a_run(void) {
    static const char *const train =
        "train --preset=tiny --steps=2 --seq=16 --width=16 --data=@/d --out=@/";
    char line[256];
    size_t n;
    snprintf(line, sizeof line, "%splain", train);
    command_says(line, 0);
    CHECK(!strstr((char *)read_file(IN("plain/result.json"), &n), "certificate"),
          "a certificate that nobody asked for");
    snprintf(line, sizeof line, "%sproved --certify=5 --val_tokens=200", train);
    const char *said = strdup(command_says(line, 0));
    CHECK(strstr(said, "\ncertified yes, see result.json\n") != NULL, "%s", said);
    const char *json = (char *)read_file(IN("proved/result.json"), &n);
    said = command_says(
        "eval @/proved/model.golf --data=@/d --certify=5 --val_tokens=200", 0);
    const char *lines = strstr(said, "model_bytes "),
               *there = strstr(json, "\"certificate\"");
    CHECK(lines && there && strstr(there, "{\"seed\": \"5\", ") == there + 15 &&
              !lines_missing(there, lines),
          "%s\nis not in %s", said, json);
    CHECK(lines && lines_missing(there, "certified no"), "any verdict is found");

    write_odd_text(); /* whose bytes are not those of the table */
    said = command_says("train --preset=tiny --steps=1 --seq=16 --width=16 --data=@/odd "
                        "--out=@/refuted --certify=1",
                        1);
    json = (char *)read_file(IN("refuted/result.json"), &n);
    CHECK(strstr(said, "\ncertified no, see result.json\n") &&
              strstr(json, "\"val_once\": \"no\"") &&
              strstr(json, "\"certified\": \"no\"},\n"),
          "%s%s", said, json);
}

/* Nothing that is left behind, and no room for the texts. */
static void test_no_room(void) {
    ask(1, 0, 0);
    const Score s = score_of(&honest);
    const struct rlimit none = {100, 100};
    DIES("no room", "--certify|temporary file|make room", signal(SIGXFSZ, SIG_IGN),
         setrlimit(RLIMIT_FSIZE, &none), certify(&honest, &s));
}

int main(void) {
    start_tests();
    write_inputs();
    run_test("honest", test_honest);
    run_test("honest learner", test_honest_learner);
    run_test("not causal", test_not_causal);
    run_test("not normalised", test_not_normalised);
    run_test("not of the file", test_not_of_the_file);
    run_test("misread", test_misread);
    run_test("every target", test_every_target);
    run_test("bytes twice", test_bytes_twice);
    run_test("decoded bytes", test_decoded_bytes);
    run_test("given bytes", test_given_bytes);
    run_test("places", test_places);
    run_test("other text", test_other_text);
    run_test("command", test_command);
    run_test("of a run", test_of_a_run);
    run_test("no room", test_no_room);
    return end_tests("certify");
}
