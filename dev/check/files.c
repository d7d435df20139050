/* files.c - the artifact and the checkpoint: every way to store a model, options as
 * text, what is refused, where the bytes go, and the widest model that fits a cap. */
#include "check.h"

static const char *const small_model =
    "vocab=266 width=16 heads=2 seq=16 repeat=2 batch=2 optimizer=muon";

/* A model after one step, as artifact and as checkpoint. */
static void write_files(void) {
    Golf m;
    new_model(&m, small_model, 32);
    run_steps(&m, 0, 1);
    golf_save(&m, IN("artifact"), 1);
    ckpt_save(&m, IN("checkpoint"), 1);
    golf_free(&m);
}

static void load_checkpoint(const char *path) {
    Golf m;
    new_model(&m, small_model, 0);
    ckpt_load(&m, path);
}

/* ------------------------------------------------------------------------------------
 * The artifact */
static void test_exports(void) {
    static const char *const arms[] = {
        "",
        "wq=none",
        "aq=none",
        "wq=none aq=none embed_bits=16",
        "embed_bits=3",
        "embed_bits=4",
        "embed_bits=5",
        "embed_bits=6 width=24",
        "embed_bits=7",
        "gate=scalar gain=none mix=none qgain=scalar",
        "extra_norm=each xgain=scalar phase=0 repeat=3",
        "extra_norm=none",
        "phase_embed=1 mlp=3",
        "unique=2 order=sequence prelude=1 coda=1",
        "heads=1 kv_heads=0",
        "hidden=72 unique=2",
        "width=96 hidden=8 extra_norm=each", /* F < C: no buffer may be F wide alone */
        "wscale=row",
        "wscale=group hidden=200",
        "wq=int3",
        "wq=int4 aq=int4",
        "wq=int5 aq=none wscale=row",
        "wq=int6 wscale=group",
        "wq=int7",
        "wq=int8 unique=2",
        "act=relu rope=half",
        "act=silu wq=none",
        "act=swiglu unique=2 prelude=1",
        "act=swiglu width=96 hidden=8 extra_norm=each wq=int4"};
    for (size_t a = 0; a < COUNT(arms); a++) check_export(arms[a]);
}

/* Field by field, as golf.h describes it. */
static void test_layout(void) {
    static const char *const config =
        "vocab=266\nwidth=16\nheads=2\nmlp=4\nseq=16\nunique=1\nrepeat=2\norder=cycle\n"
        "mix=vector\ngain=vector\ngate=vector\nqgain=vector\nextra_norm=out\n"
        "xgain=vector\n"
        "phase=1\nwq=ternary\naq=int8\nembed_bits=8\n";
    size_t size, sum = 0;

    write_files();
    uint8_t *b = read_file(IN("artifact"), &size);
    const size_t n = strlen(config), tensors = get_u(b + 24, 4);
    uint8_t *table = b + 28 + n, *payload = table + 8 * tensors + 4;
    CHECK(!memcmp(b, "GOLF\r\n\x1a\n", 8) && get_u(b + 8, 4) == 2 &&
              get_u(b + 12, 4) == size && get_u(b + 16, 4) == 1 && get_u(b + 20, 4) == n,
          "the fixed fields");
    CHECK(!memcmp(b + 28, config, n), "its configuration: %.*s", (int)get_u(b + 20, 4),
          b + 28);
    /* embedding, four matrices, nine vectors of a phase */
    CHECK(tensors == 14, "%zu tensors", tensors);
    CHECK(get_u(payload - 4, 4) == crc32_of(0, b, (size_t)(payload - 4 - b)),
          "header's CRC-32");
    for (size_t i = 0; i < tensors; i++) {
        const size_t len = get_u(table + 8 * i, 4);
        CHECK(get_u(table + 8 * i + 4, 4) == crc32_of(0, payload + sum, len),
              "CRC-32 %zu", i);
        sum += len;
    }
    CHECK(payload + sum == b + size, "%zu bytes of payloads", sum);
    free(b);
}

/* The same model with every payload packed, which a reader must take, too. */
static void test_packed_payloads(void) {
    Golf m, back;
    size_t size;

    write_files();
    golf_load(&m, IN("artifact"));
    uint8_t *b = read_file(IN("artifact"), &size);
    uint8_t *row = b + 28 + get_u(b + 20, 4), *payload = row + 8 * get_u(b + 24, 4) + 4;
    const size_t header = (size_t)(payload - b);
    uint8_t *loose = xcalloc(artifact_bytes(&m.config), 1), *to = loose + header;
    int coded = 0;
    memcpy(loose, b, header);
    row = loose + (row - b);
    EACH_TENSOR(t, &m) {
        if (!is_stored(t)) continue;
        coded += t->coded < t->bytes;
        for (int j = 0; j < t->stored_copies; j++)
            t->quant->pack(to + (size_t)j * t->copy_bytes,
                           m.code + t->at + (size_t)j * t->copy_n, scale_of(&m, t, j), t);
        put_u(row, t->bytes, 4);
        put_u(row + 4, crc32_of(0, to, t->bytes), 4);
        to += t->bytes;
        row += 8;
    }
    put_u(loose + 12, (uint64_t)(to - loose), 4);
    put_u(row, crc32_of(0, loose, header - 4), 4);
    put_file(IN("packed"), loose, (size_t)(to - loose));
    golf_load(&back, IN("packed"));
    CHECK(coded > 0 && (size_t)(to - loose) == artifact_bytes(&m.config) &&
              (size_t)(to - loose) > size &&
              !memcmp(m.eff, back.eff, m.n_params * sizeof(real)),
          "%zu bytes packed, %zu coded: another model", (size_t)(to - loose), size);
    golf_free(&m);
    golf_free(&back);
    free(b);
    free(loose);
}

/* ------------------------------------------------------------------------------------
 * Export. That every tensor of every way to store a model is in the file: check_export */
static const char *in_memory(void (*put)(FILE *f, const void *p, size_t n), const void *p,
                             size_t n) {
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    put(f, p, n);
    fclose(f);
    return text;
}

static void as_json(FILE *f, const void *p, size_t n) {
    (void)n;
    put_json(f, p);
}

static void as_base64(FILE *f, const void *p, size_t n) { put_base64(f, p, n); }

static void test_json(void) {
    static const char *const cases[][2] = {
        {"", "\"\""},
        {"a=b\n", "\"a=b\\u000a\""},
        {"\"\\\t\x01", "\"\\\"\\\\\\u0009\\u0001\""},
        {"\xc3\xa9", "\"\xc3\xa9\""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *json = in_memory(as_json, cases[i][0], 0);
        CHECK(!strcmp(json, cases[i][1]), "%s, not %s", json, cases[i][1]);
    }
}

/* RFC 4648, section 10; and bytes that need all digits. */
static void test_base64(void) {
    static const char *const cases[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"\xff\xfe\xfb\xef", "//777w=="},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *text = cases[i][0],
                   *digits = in_memory(as_base64, text, strlen(text));
        CHECK(!strcmp(digits, cases[i][1]), "%s, not %s", digits, cases[i][1]);
    }
}

/* The text of a key of __metadata__, without escapes. */
static const char *metadata_of(const char *json, const char *key) {
    static char out[1 << 17];
    const char *at = json_value(json, key);
    size_t n = 0;
    if (!at || *at != '"') return "";
    for (at++; *at && *at != '"'; at++) {
        const int escaped = !strncmp(at, "\\u000a", 6);
        out[n++] = escaped ? '\n' : *at;
        at += escaped ? 5 : 0;
    }
    out[n] = 0;
    return out;
}

static void export_as(const char *dtype) {
    char line[256];
    snprintf(line, sizeof line,
             "export @/run/model.golf --to=@/run/%s.safetensors --dtype=%s", dtype,
             dtype);
    CHECK(STATUS(command_line(line)) == 0, "%s: %s", line, message);
}

/* Vectors, single numbers, what is not there, copies of blocks and of phases. */
static void test_safetensors(void) {
    Golf m, b;
    char config[CONFIG_TEXT], crc[16];
    size_t n, size;
    mkdir(IN("run"), 0777);
    write_hand_model(IN("run/tokenizer.model"));
    const Tokenizer *tok = tokenizer_load(IN("run/tokenizer.model"));
    new_model(&m,
              "vocab=266 width=16 heads=2 seq=16 unique=2 repeat=2 coda=1 order=sequence "
              "gain=scalar mix=none phase_embed=1",
              0);
    stir(&m);
    golf_quantize(&m);
    golf_save(&m, IN("run/model.golf"), tok->crc);
    golf_load(&b, IN("run/model.golf"));
    export_as("float32");
    export_as("bf16");
    check_safetensors("float32", &b, IN("run/float32.safetensors"));
    check_safetensors("bf16", &b, IN("run/bf16.safetensors"));

    const char *json = (char *)read_file(IN("run/float32.safetensors"), &n) + 8;
    static const char start[] = "{\"__metadata__\": {\"format\": \"pt\", ";
    CHECK(!strncmp(json, start, strlen(start)), "%.60s", json);
    config_text(&b.config, MODEL, config);
    CHECK(!strcmp(metadata_of(json, "config"), config), "%s",
          metadata_of(json, "config"));
    CHECK(!strcmp(metadata_of(json, "block_of_phase"), "0 0 1 1 2"), "blocks: %s",
          metadata_of(json, "block_of_phase"));
    uint8_t *file = read_file(IN("run/model.golf"), &size);
    snprintf(crc, sizeof crc, "%08x", crc32_of(0, file, size));
    CHECK(!strcmp(metadata_of(json, "model_crc32"), crc), "%s, not %s",
          metadata_of(json, "model_crc32"), crc);
    const char *digits = in_memory(as_base64, tok->file, tok->size);
    CHECK(!strcmp(metadata_of(json, "tokenizer"), digits), "another tokenizer");
    CHECK(strstr(json, "\"wqkv.2\"") && !strstr(json, "\"wqkv.3\"") &&
              strstr(json, "\"g_mlp.4\": {\"dtype\": \"F32\", \"shape\": [1],") &&
              strstr(json, "\"phase_embed.4\"") && !strstr(json, "mix0"),
          "names: %s", json);
    golf_free(&m);
    golf_free(&b);
}

/* Of numbers that bf16 cannot hold it is said how many; ternary ones it holds. */
static void test_rounded_numbers(void) {
    const real x[] = {1, -0.5, 0, (real)1.00390625, 3, (real)0.1};
    uint8_t to[4 * COUNT(x)] = {0};
    size_t rounded = put_numbers(to, x, COUNT(x), DTYPE_BF16);
    CHECK(rounded == 2 && get_u(to + 6, 2) == 0x3f80,
          "%zu rounded; 1 + 1/256, a tie, becomes %04x", rounded,
          (unsigned)get_u(to + 6, 2));
    rounded = put_numbers(to, x, COUNT(x), DTYPE_FLOAT32);
    CHECK(rounded == 0 && get_u(to + 12, 4) == 0x3f808000,
          "%zu rounded; 1 + 1/256 becomes %08x", rounded, (unsigned)get_u(to + 12, 4));
}

static void test_header_size(void) {
    DIES("a header for no reader", "x.golf|100000001|safetensors|100000000",
         check_header("x.golf", MOST_HEADER + (size_t)1));
    CHECK(STATUS(check_header("x.golf", MOST_HEADER)) == 0, "%s", message);
}

/* ------------------------------------------------------------------------------------
 * Options as text */
static int same_option(const Config *a, const Config *b, const Option *o) {
    const void *x = (const char *)a + o->at, *y = (const char *)b + o->at;
    if (o->type == TYPE_STR) return !strcmp(x, y);
    return !memcmp(x, y, o->type == TYPE_NUM ? sizeof(double) : sizeof(int));
}

static int same_config(const Config *a, const Config *b) {
    int same = 1;
    EACH_OPTION(o) {
        if (o->mask & (MODEL | TRAIN)) same &= same_option(a, b, o);
    }
    return same;
}

/* Is there such a line? */
static int has_line(const char *text, const char *line) {
    char want[256];
    snprintf(want, sizeof want, "\n%s\n", line);
    return !strncmp(text, want + 1, strlen(want + 1)) || strstr(text, want) != NULL;
}

/* Every value of every option: as text, and back; what is at its default and a
 * system's is not mentioned, what is not is there with its system. */
static void test_options_as_text(void) {
    char text[CONFIG_TEXT], line[256], value[24][64], name[64];
    Config c, back;

    EACH_OPTION(o) {
        if (!(o->mask & (MODEL | TRAIN))) continue;
        const int n = values_of(o, value);
        for (int k = 0; k < n; k++) {
            config_defaults(&c);
            CHECK(option_set(&c, o, value[k]), "--%s=%s is refused", o->name, value[k]);
            const size_t len = config_text(&c, MODEL | TRAIN, text);
            config_parse(&back, "text", text, len, MODEL | TRAIN);
            CHECK(same_config(&c, &back), "--%s=%s becomes another option", o->name,
                  value[k]);
            snprintf(line, sizeof line, "%s=%s", o->name, option_text(&c, o, name));
            const int left = at_default(&c, o) && (o->mask & QUIET || of_system(o));
            CHECK(has_line(text, line) == !left, "--%s=%s: %s", o->name, value[k], text);
            const char *needs = system_of_value(&c, o, name);
            snprintf(line, sizeof line, "systems=%s", needs);
            CHECK(*needs ? has_line(text, line) : !strstr(text, "systems="),
                  "--%s=%s needs '%s': %s", o->name, value[k], needs, text);
        }
    }
}

/* Files of the core alone do not tell which systems the program has. */
static void test_defaults_unmentioned(void) {
    char text[CONFIG_TEXT], copy[CONFIG_TEXT], *save;
    const Config c = config_of(small_model);

    config_text(&c, MODEL | TRAIN, text);
    CHECK(!strstr(text, "systems="), "the core needs systems: %s", text);
    strcpy(copy, text);
    for (char *line = strtok_r(copy, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(line, "="), line);
        const Option *o = option_named(name);
        CHECK(o && !of_system(o), "'%s' is a system's", line);
    }
}

/* The configuration in a file, at byte `at`, with its length before it in the field
 * `len_at`. */
static char *config_in(const char *file, size_t at, size_t len_at) {
    size_t size;
    uint8_t *b = read_file(IN(file), &size);
    char *text = strndup((char *)b + at, get_u(b + len_at, 4));
    free(b);
    return text;
}

/* A copy of the artifact with another configuration; lengths and checksums are those
 * of the new one, so that only its text can be wrong. */
static void artifact_with(const char *text) {
    size_t size;
    const uint8_t *b = read_file(IN("artifact"), &size);
    const size_t len = strlen(text), old = get_u(b + 20, 4), tail = size - 28 - old;
    const size_t table = 8 * get_u(b + 24, 4);
    uint8_t *out = xcalloc(size + len, 1);

    memcpy(out, b, 28);
    memcpy(out + 28, text, len);
    memcpy(out + 28 + len, b + 28 + old, tail);
    put_u(out + 12, 28 + len + tail, 4);
    put_u(out + 20, len, 4);
    put_u(out + 28 + len + table, crc32_of(0, out, 28 + len + table), 4);
    put_file(IN("edited"), out, 28 + len + tail);
    free(out);
}

static void checkpoint_with(const char *text) {
    size_t size;
    const uint8_t *b = read_file(IN("checkpoint"), &size);
    const size_t len = strlen(text), old = get_u(b + 40, 4);
    const size_t numbers = size - CKPT_FIXED - old - 4;
    uint8_t *out = xcalloc(size + len, 1);

    memcpy(out, b, CKPT_FIXED);
    put_u(out + 40, len, 4);
    memcpy(out + CKPT_FIXED, text, len);
    memcpy(out + CKPT_FIXED + len, b + CKPT_FIXED + old, numbers);
    put_u(out + CKPT_FIXED + len + numbers, crc32_of(0, out, CKPT_FIXED + len + numbers),
          4);
    put_file(IN("edited"), out, CKPT_FIXED + len + numbers + 4);
    free(out);
}

/* The lines of text in reverse order, with a line instead of number `at`, which goes:
 * NULL, or both: "a\nb". at -1: added at the end. */
static char *edited(const char *text, int reverse, int at, const char *instead) {
    char *copy = strdup(text), *lines[256], *save;
    char *out = xcalloc(strlen(text) + 256, 1);
    int n = 0;

    for (char *w = strtok_r(copy, "\n", &save); w; w = strtok_r(NULL, "\n", &save))
        lines[n++] = w;
    for (int i = 0; i < n; i++) {
        const char *line = lines[reverse ? n - 1 - i : i];
        if (i == at) line = instead;
        if (line) sprintf(out + strlen(out), "%s\n", line);
    }
    if (at < 0 && instead) sprintf(out + strlen(out), "%s\n", instead);
    free(copy);
    return out;
}

/* One kind of file: how it is written with another text, and how it is used. */
typedef struct {
    const char *file;
    size_t config_at, len_at;
    void (*write_with)(const char *text);
    void (*use)(const char *path);
} Kind;

static const Kind kinds[] = {
    {"artifact", 28, 20, artifact_with, load_artifact},
    {"checkpoint", CKPT_FIXED, 40, checkpoint_with, load_checkpoint}};

static int status_of(const Kind *kind, char *text) {
    kind->write_with(text);
    free(text);
    return STATUS(kind->use(IN("edited")));
}

/* Faults of a configuration: a line instead of number `at`, or at the end (-1). */
static const struct {
    int at;
    const char *instead, *wanted;
} bad_lines[] = {
    {-1, "seq=16", "'seq' is there twice"},
    {0, "vocab=266\nvocab=266", "'vocab' is there twice"},
    {-1, "kv_heads=2\nkv_heads=2", "'kv_heads' is there twice"},
    {-1, "none_such=1", "option 'none_such=1' is unknown|system"},
    {-1, "stride=1", "option 'stride=1' is unknown"}, /* it is one of eval */
    {1, "width=7", "option 'width=7' is unknown or out of range"},
    {2, "heads", "option 'heads='"},
    {2, "heads=3", "--heads=3"}, /* readable, but of another model */
};

/* Lines in any order mean the same; a line that is missing, there twice or unknown is
 * refused. */
static void check_lines(const Kind *kind) {
    const char *text = config_in(kind->file, kind->config_at, kind->len_at);
    char line[128], want[256], *save, *copy = strdup(text);
    int number = 0;

    int st = status_of(kind, edited(text, 0, -1, NULL));
    CHECK(st == 0, "%s, written again: status %d: %s", kind->file, st, message);
    st = status_of(kind, edited(text, 1, -1, NULL));
    CHECK(st == 0, "%s, lines in reverse: status %d: %s", kind->file, st, message);

    for (char *w = strtok_r(copy, "\n", &save); w; w = strtok_r(NULL, "\n", &save)) {
        const int len = (int)strcspn(w, "=");
        snprintf(want, sizeof want, "edited|lacks the option '%.*s'|version", len, w);
        snprintf(line, sizeof line, "%s, without %s", kind->file, w);
        expect_message(status_of(kind, edited(text, 0, number, NULL)), line, want);
        number++;
    }
    for (size_t i = 0; i < COUNT(bad_lines); i++) {
        const char *instead = bad_lines[i].instead;
        st = status_of(kind, edited(text, 0, bad_lines[i].at, instead));
        expect_message(st, instead, bad_lines[i].wanted);
    }
}

/* A system that is not there is named, wherever its line stands, and before its
 * options are. */
static void check_systems_line(const Kind *kind) {
    const char *text = config_in(kind->file, kind->config_at, kind->len_at);
    const char *wanted = "edited|it needs the system 'none_such'|systems.h|build again";
    int st = status_of(kind, edited(text, 0, -1, "systems=none_such"));
    expect_message(st, "systems= at the end", wanted);
    st = status_of(kind, edited(text, 0, 0, "systems=none_such\nvocab=266"));
    expect_message(st, "systems= at the start", wanted);
    st = status_of(kind, edited(text, 1, 3, "none_such_rank=4\nsystems=none_such"));
    expect_message(st, "systems= in the middle", wanted);
    st = status_of(kind, edited(text, 0, -1, "systems=\nsystems=none_such"));
    expect_message(st, "systems= twice", wanted);
    st = status_of(kind, edited(text, 0, -1, "systems="));
    CHECK(st == 0, "%s that needs no system: status %d: %s", kind->file, st, message);
    if (!all_systems[0]) return;
    char line[128];
    snprintf(line, sizeof line, "systems=%s,none_such", all_systems[0]->name);
    st = status_of(kind, edited(text, 0, -1, line));
    expect_message(st, "systems= of two", wanted);
}

static void test_lines(void) {
    Golf m, back;
    write_files();
    for (size_t k = 0; k < COUNT(kinds); k++) check_lines(kinds + k);

    artifact_with(edited(config_in("artifact", 28, 20), 1, -1, NULL));
    golf_load(&m, IN("artifact"));
    golf_load(&back, IN("edited"));
    CHECK(same_config(&m.config, &back.config) &&
              !memcmp(m.eff, back.eff, m.n_params * sizeof(real)),
          "lines in reverse: another model");
    golf_free(&m);
    golf_free(&back);
}

static void test_systems_line(void) {
    write_files();
    for (size_t k = 0; k < COUNT(kinds); k++) check_systems_line(kinds + k);
}

/* ------------------------------------------------------------------------------------
 * The checkpoint */
/* A resumed run may change what is marked so, and nothing else. */
static void test_same_options(void) {
    char value[24][64];
    EACH_OPTION(o) {
        Config then, now_wanted;
        if (!(o->mask & (MODEL | TRAIN))) continue;
        config_defaults(&then);
        now_wanted = then;
        const int n = values_of(o, value);
        for (int k = 0; k < n; k++) {
            option_set(&now_wanted, o, value[k]);
            if (!at_default(&now_wanted, o)) break;
        }
        const int st = STATUS(same_options("run/ckpt.bin", &then, &now_wanted));
        CHECK(st == (o->mask & RESUME ? 0 : 1), "--%s: status %d: %s", o->name, st,
              message);
        CHECK(o->mask & (RESUME | FIXED) || strstr(message, o->name), "--%s: %s", o->name,
              message);
    }
}

/* Step, flips, checksums and numbers, field by field. */
static void test_checkpoint_layout(void) {
    Golf m;
    size_t size;

    new_model(&m, small_model, 32);
    run_steps(&m, 0, 1);
    m.flips = 77;
    m.tokenizer_crc = 0x12345678;
    m.files_crc = 0x9abcdef0;
    ckpt_save(&m, IN("checkpoint"), 5);
    uint8_t *b = read_file(IN("checkpoint"), &size);
    const size_t n = get_u(b + 40, 4), bytes = m.n_params * sizeof(real);
    CHECK(!memcmp(b, "GOLFCKPT", 8) && get_u(b + 8, 4) == 2 &&
              get_u(b + 12, 4) == sizeof(real) && get_u(b + 16, 8) == 5 &&
              get_u(b + 24, 8) == 77 && get_u(b + 32, 8) == m.n_params &&
              get_u(b + 44, 4) == 0x12345678 && get_u(b + 48, 4) == 0x9abcdef0,
          "the fixed fields");
    CHECK(size == 52 + n + 3 * bytes + 4 && !memcmp(b + 52 + n, m.master, bytes) &&
              !memcmp(b + 52 + n + bytes, m.moment1, bytes) &&
              !memcmp(b + 52 + n + 2 * bytes, m.moment2, bytes),
          "%zu bytes, or other numbers", size);
    CHECK(get_u(b + size - 4, 4) == crc32_of(0, b, size - 4), "CRC-32");
    golf_free(&m);
    free(b);
}

/* A checkpoint of version 1 has no checksums at 44: it goes on as it always did. */
static void test_checkpoint_of_version_1(void) {
    Golf m, back;
    size_t size;

    new_model(&m, small_model, 32);
    run_steps(&m, 0, 1);
    ckpt_save(&m, IN("checkpoint"), 5);
    uint8_t *b = read_file(IN("checkpoint"), &size);
    memmove(b + 44, b + 52, size - 52);
    size -= 8;
    put_u(b + 8, 1, 4);
    put_u(b + size - 4, crc32_of(0, b, size - 4), 4);
    put_file(IN("old"), b, size);
    new_model(&back, small_model, 32);
    back.files_crc = 7; /* of which it knows nothing */
    CHECK(ckpt_load(&back, IN("old")) == 5 && back.flips == m.flips &&
              !memcmp(back.master, m.master, m.n_params * sizeof(real)) &&
              !memcmp(back.moment2, m.moment2, m.n_params * sizeof(real)),
          "version 1: other numbers");
    put_u(b + 36, 1, 4); /* 2^32 parameters more: more than 32 bits can say */
    put_u(b + size - 4, crc32_of(0, b, size - 4), 4);
    put_file(IN("long"), b, size);
    DIES("2^32 parameters more", "long|configuration of|parameters in|damaged",
         load_checkpoint(IN("long")));
    put_u(b + 36, 0, 4);
    put_u(b + 8, 3, 4);
    put_u(b + size - 4, crc32_of(0, b, size - 4), 4);
    put_file(IN("next"), b, size);
    DIES("version 3", "next|version 1 to 2|found version 3", load_checkpoint(IN("next")));
    golf_free(&m);
    golf_free(&back);
    free(b);
}

/* What a run depends on is the same file when it goes on, whatever else is new. */
static void test_exchanged_files(void) {
    Golf m, back;
    put_file(IN("first"), "what it was", 11);
    put_file(IN("second"), "another", 7);
    new_model(&m, small_model, 32);
    depends_on(&m, IN("first"));
    depends_on(&m, IN("second"));
    ckpt_save(&m, IN("checkpoint"), 5);

    new_model(&back, small_model, 32);
    depends_on(&back, IN("first"));
    depends_on(&back, IN("second"));
    CHECK(STATUS(ckpt_load(&back, IN("checkpoint"))) == 0, "the same files: %s", message);
    golf_free(&back);
    put_file(IN("second"), "Another", 7);
    new_model(&back, small_model, 32);
    depends_on(&back, IN("first"));
    depends_on(&back, IN("second"));
    DIES("an exchanged file", "checkpoint|first or |second|put the old file back",
         ckpt_load(&back, IN("checkpoint")));
    golf_free(&back);
    golf_free(&m);
}

static void test_corruption(void) {
    write_files();
    check_corruption("artifact", strdup(IN("bad.golf")), load_artifact, 0);
    check_corruption("checkpoint", strdup(IN("bad.bin")), load_checkpoint, 0);
}

/* A few bytes that claim gigabytes are refused before any memory is taken: codes that are
 * always the same cost nothing when they are coded, vectors of a mode `none` nothing at all,
 * and buffers follow from sizes alone. */
static void test_claims(void) {
    static const char *const claims[] = {
        "vocab=65536 width=512 heads=2 seq=16", "hidden=1048576 width=16",
        "hidden=400000 unique=1 repeat=64 width=8 mix=none gain=none gate=none extra_norm=none"};
    char text[CONFIG_TEXT];
    Golf m;

    write_files();
    for (size_t i = 0; i < COUNT(claims); i++) {
        size_t size;
        const Config c = config_of(claims[i]);
        free(read_file(IN("artifact"), &size));
        config_text(&c, MODEL, text);
        golf_layout(&m, &c);
        /* lengths of its tensors, if there are as many, are those of a small model */
        if (stored_tensors(&m) == get_u(read_file(IN("artifact"), &size) + 24, 4)) {
            artifact_with(text);
            DIES(claims[i], "edited|it claims|damaged", load_artifact(IN("edited")));
        }
        DIES(claims[i], "small.golf|it claims|damaged",
             check_claim(&m, "small.golf", 6000));
    }
    const Config huge =
        config_of("vocab=266 width=64 heads=1 seq=65536 unique=64 repeat=64 batch=1");
    golf_layout(&m, &huge);
    DIES("a cache", "keys and values|need|this machine has", golf_cache(&m));
    DIES("buffers", "activations need|this machine has",
         golf_buffers(&m, (size_t)1 << 40));
}

/* Scales are numbers, and so are codes: their product may be none. */
static void test_infinite_weights(void) {
    Golf m;
    new_model(&m, small_model, 32);
    run_steps(&m, 0, 1);
    m.scale[m.tensor[T_embed].at_scale + 1] = from_bf16(0x7F7F);
    golf_save(&m, IN("infinite"), 1);
    DIES("infinite weights", "infinite|tensor embed|impossible scale",
         load_artifact(IN("infinite")));
    golf_free(&m);
}

/* What no run has written: a step behind the last one, an embedding of codes over 8 bits. */
static void test_impossible_checkpoints(void) {
    static const int64_t steps[] = {501, INT64_MAX, -1};
    Golf m;
    new_model(&m, small_model, 32);
    for (size_t i = 0; i < COUNT(steps); i++) {
        ckpt_save(&m, IN("checkpoint"), steps[i]);
        DIES("a step behind the end", "checkpoint|step of 0 to 500|damaged",
             load_checkpoint(IN("checkpoint")));
    }
    ckpt_save(&m, IN("checkpoint"), 500);
    CHECK(STATUS(load_checkpoint(IN("checkpoint"))) == 0, "the last step: %s", message);
    m.config.embed_grid = -300;
    ckpt_save(&m, IN("checkpoint"), 1);
    DIES("codes of 10 bits", "checkpoint|at most 8 bits|embed_grid=-300",
         load_checkpoint(IN("checkpoint")));
    golf_free(&m);
}

/* ------------------------------------------------------------------------------------
 * Bytes */
/* Where they go, counted by hand: 2 bytes a scale; 266 rows of 16 codes of 8 bits;
 * five trits a byte of 48x16, 16x16, 64x16 and 16x64; and two phases of 178 numbers in
 * bf16: eight vectors of 16 but one of 64 (the norm before down) and a gain for each
 * of 2 heads. */
static void test_ledger(void) {
    Golf m;
    new_model(&m, small_model, 0);
    Ledger l = ledger_of(&m);
    CHECK(l.of[LEDGER_CORE] == 4 * 2 + 154 + 52 + 205 + 205, "core %zu",
          l.of[LEDGER_CORE]);
    CHECK(l.of[LEDGER_EMBEDDING] == 266 * (2 + 16), "embedding %zu",
          l.of[LEDGER_EMBEDDING]);
    CHECK(l.of[LEDGER_INTERFACE] == 2 * 178 * 2, "interface %zu", l.of[LEDGER_INTERFACE]);
    CHECK(l.of[LEDGER_PROTECTED] == 0, "protected %zu", l.of[LEDGER_PROTECTED]);
    CHECK(l.total == artifact_bytes(&m.config), "packed, in all: %zu", l.total);

    golf_save(&m, IN("artifact"), 1); /* coded: what the file's own table says */
    l = ledger_of(&m);
    size_t size, of[LEDGER_LINES] = {0};
    uint8_t *b = read_file(IN("artifact"), &size);
    const size_t config = get_u(b + 20, 4),
                 header = 28 + config + 8 * get_u(b + 24, 4) + 4;
    const uint8_t *row = b + 28 + config;
    EACH_TENSOR(t, &m) {
        if (!is_stored(t)) continue;
        if (t->role == EMBED) of[LEDGER_EMBEDDING] += get_u(row, 4);
        if (t->role == PROJ) of[LEDGER_CORE] += get_u(row, 4);
        if (t->role == INTERFACE) of[LEDGER_INTERFACE] += get_u(row, 4);
        row += 8;
    }
    CHECK(!memcmp(of, l.of, sizeof of) && l.header == header && l.total == size,
          "coded: core %zu, embedding %zu, interface %zu, header %zu of %zu",
          l.of[LEDGER_CORE], l.of[LEDGER_EMBEDDING], l.of[LEDGER_INTERFACE], l.header,
          size);
    golf_free(&m);
    free(b);
}

/* --width=fit: nothing wider fits, and the hidden width takes what is left of the cap. */
static void check_fit(const char *arm, int cap) {
    char text[256];
    snprintf(text, sizeof text, "vocab=500 cap=%d %s", cap, arm);
    Config c = config_of(text);
    c.width = 0;
    fit_width(&c);
    const int fixed = strstr(arm, "hidden") != NULL, C = c.width;
    const size_t size = artifact_bytes(&c);
    config_check(&c);
    CHECK(size <= (size_t)cap, "%s: %zu bytes in %d", text, size, cap);
    if (fixed) {
        CHECK(c.hidden == 64, "%s: hidden %d", text, c.hidden);
    } else {
        Config least = c;
        least.hidden = 0;
        CHECK(!c.hidden || (c.hidden > hidden_width(&least) && c.hidden % 8 == 0),
              "%s: hidden %d at width %d", text, c.hidden, C);
        c.hidden = hidden_width(&c) + 8;
        CHECK(artifact_bytes(&c) > (size_t)cap, "%s: 8 more would fit", text);
        c.hidden = 0;
    }
    do {
        c.width += 8;
    } while (c.width % c.heads || head_dim(&c) % rope_step(&c));
    CHECK(artifact_bytes(&c) > (size_t)cap, "%s: width %d would fit", text, c.width);
}

static void test_fit(void) {
    static const char *const arms[] = {"heads=4 repeat=4 mlp=4",
                                       "heads=2 unique=4 repeat=1 mlp=4",
                                       "heads=3 width=24 mlp=2 wq=int4 wscale=row",
                                       "unique=8 repeat=1 hidden=64 heads=1",
                                       "heads=4 rope=half mlp=4 repeat=1",
                                       "heads=2 unique=3 repeat=1 act=swiglu mlp=5"};
    for (size_t a = 0; a < COUNT(arms); a++)
        for (int cap = 40000; cap <= 256000; cap += 72000) check_fit(arms[a], cap);
}

/* bench shapes: the first is what train takes; all fit, none twice; of each the hidden width is
 * fixed, or its largest, or the largest of whole vectors with heads of whole tiles. */
static void check_shape(const Config *asked, const Shapes *all, int i) {
    Config c = *asked;
    Shape same = all->list[i];
    shape_apply(&c, all->list + i);
    config_check(&c);
    const size_t cap = most_bytes(&c);
    const int step = width_step(&c), F = c.hidden;
    const int whole = F % LANES == 0 && head_dim(&c) % NR == 0;
    CHECK(artifact_bytes(&c) <= cap, "C=%d H=%d F=%d: %zu bytes in %zu", c.width, c.heads,
          F, artifact_bytes(&c), cap);
    for (int j = 0; j < i; j++)
        CHECK(memcmp(&same, all->list + j, sizeof same) != 0, "shape %d again", i);
    if (i == 0) return;
    if (asked->hidden) {
        CHECK(F == asked->hidden, "C=%d F=%d of --hidden=%d", c.width, F, asked->hidden);
        return;
    }
    CHECK(F >= c.width && (whole || c.heads == asked->heads), "C=%d H=%d F=%d", c.width,
          c.heads, F);
    c.hidden = F + (whole ? MAX(step, (int)LANES) : step);
    CHECK(artifact_bytes(&c) > cap, "C=%d H=%d: F=%d would fit, not only %d", c.width,
          c.heads, c.hidden, F);
}

static void check_shapes(const char *arm, int least, int width) {
    char text[256];
    Shapes all;
    int fill = 0;
    snprintf(text, sizeof text, "vocab=500 %s", arm);
    Config asked = config_of(text);
    asked.width = width;
    shapes_under_cap(&all, &asked);
    Config taken = asked;
    if (!width) fit_width(&taken);
    CHECK(all.count >= least && all.list[0].width == taken.width &&
              all.list[0].heads == taken.heads &&
              all.list[0].hidden == hidden_width(&taken),
          "%s: %d shapes, from C=%d H=%d F=%d on", arm, all.count, all.list[0].width,
          all.list[0].heads, all.list[0].hidden);
    for (int i = 0; i < all.count; i++) {
        Config c = asked;
        check_shape(&asked, &all, i);
        shape_apply(&c, all.list + i);
        fill += !strcmp(filled_by(&c), "C F D");
    }
    CHECK(fill > 0, "%s: none of %d shapes fills tiles", arm, all.count);
}

static void test_shapes(void) {
    check_shapes("heads=4 repeat=4 mlp=4 unique=1 cap=128000", 6, 0);
    check_shapes("heads=2 unique=3 repeat=1 mlp=13 cap=80000", 6, 0);
    check_shapes("heads=4 kv_heads=2 mlp=4 act=swiglu squeeze=0.8 cap=128000", 6, 0);
    check_shapes("heads=2 hidden=64 unique=2 repeat=1 cap=60000", 3, 0);
    check_shapes("heads=2 unique=1 repeat=2 mlp=2 cap=30000", 3, 32); /* not by fit */

    Config c = config_of("vocab=500 heads=2 unique=1 repeat=2 mlp=2 cap=3000 width=32");
    Shapes all;
    DIES("a shape over the cap", "would have|--cap=3000|raise --cap",
         shapes_under_cap(&all, &c));
}

/* Sizes that leave no lane idle, and those that do. */
static void test_filled(void) {
    static const struct {
        int width, heads, hidden; /* in vectors, heads, vectors */
        const char *fills;
    } rows[] = {{4, 2, 20, "C F D"}, {5, 1, 20, "C F -"}, {4, 4, 20, "C F -"}};
    Config c = config_of("");
    for (size_t i = 0; i < COUNT(rows); i++) {
        c.width = rows[i].width * LANES;
        c.heads = rows[i].heads;
        c.hidden = rows[i].hidden * LANES;
        CHECK(!strcmp(filled_by(&c), rows[i].fills), "C=%d H=%d F=%d: %s", c.width,
              c.heads, c.hidden, filled_by(&c));
    }
    c.width = 4 * LANES + LANES / 2;
    c.hidden += LANES / 2;
    c.heads = 1;
    CHECK(!strcmp(filled_by(&c), "- - -"), "half vectors: %s", filled_by(&c));
    CHECK(heads_that_fill(&c, NR) == 0, "heads at C=%d", c.width);
    c.width = 6 * NR;
    CHECK(heads_that_fill(&c, 1) == 6 && heads_that_fill(&c, 2 * NR + 1) == 3 &&
              heads_that_fill(&c, 100 * NR) == 1,
          "heads at C=%d: %d, %d, %d", c.width, heads_that_fill(&c, 1),
          heads_that_fill(&c, 2 * NR + 1), heads_that_fill(&c, 100 * NR));
}

/* A tensor of 2^32 weights has sizes, where 64 bits hold them, though no model may have it: it
 * is refused, and --width=fit does not pick it. */
static void test_large_sizes(void) {
    const char *text =
        "vocab=4096 cap=2000000000 unique=1 repeat=1 mlp=16 heads=1 batch=1";
    Config c = config_of(text);

    c.width = 16384;
#if SIZE_MAX > UINT32_MAX
    const size_t weights = (size_t)1 << 32;
    Golf m;
    golf_layout(&m, &c);
    const Tensor *t = m.tensor + T_wup;
    CHECK(t->copy_n == weights && t->copy_scales == 1 &&
              t->copy_bytes == 2 + CEIL(weights, 5),
          "wup of 2^32 weights: %zu, %zu scales, %zu bytes", t->copy_n, t->copy_scales,
          t->copy_bytes);
#endif
    DIES("2^32 weights", "--width=16384|262144|2^30", config_check(&c));
    c.width = 0;
    const int status =
        STATUS(fit_width(&c), config_check(&c),
               exit(sizeof(size_t) == 4 || (c.width == 8192 && !c.hidden) ? 0 : 2));
    CHECK(status == 0, "fit in 2 GB: status %d: %s", status, message);

    c = config_of("vocab=65536 cap=2000000000 squeeze=0.1 unique=64 mlp=13 repeat=1");
    const int huge = STATUS(c.width = 0, fit_width(&c),
                            exit(artifact_bytes(&c) <= UINT32_MAX ? 0 : 2));
    CHECK(huge == 0, "fit beyond the 32 bits of a file's size: %d %s", huge, message);
}

/* Sums of codes are ints of 32 bits: rows of wide codes that could leave them are
 * multiplied as numbers. */
static void test_long_rows(void) {
    static const struct {
        const char *options;
        int in_integers;
    } rows[] = {{"wq=int8 hidden=131072", 1},
                {"wq=int8 hidden=131080", 0},
                {"wq=ternary hidden=1048576", 1}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[128];
        Golf m;
        snprintf(text, sizeof text, "vocab=266 width=8 heads=1 %s", rows[i].options);
        const Config c = config_of(text);
        golf_layout(&m, &c);
        CHECK(in_integers(&m, m.tensor + T_wdown) == rows[i].in_integers, "%s", text);
    }
}

/* Sizes that 64 bits hold and 32 do not, where they would look like small ones: 2^32 parameters
 * and some more, as many tokens times their width. */
static void test_32_bits(void) {
    Golf m;
    DIES("parameters beyond 32 bits",
         "--width=2048|parameters|more than memory can address",
         config_of("vocab=266 width=2048 heads=1 hidden=8192 unique=64 prelude=22"));
    new_model(&m, "vocab=266 width=64 mlp=16 heads=1 unique=1 repeat=1", 0);
    DIES("buffers beyond 32 bits", "activations need|--batch",
         golf_buffers(&m, (1 << 22) + 8));
    golf_free(&m);
}

/* More parameters than any machine has memory for are refused before they are made. */
static void test_memory(void) {
    Golf m;
    if (sizeof(size_t) == 4) {
        test_32_bits();
        return;
    }
    const Config c =
        config_of("vocab=266 width=8192 mlp=16 heads=1 unique=64 prelude=64 coda=64");
    DIES("too many parameters", "parameters need|this machine has|--width",
         golf_init(&m, &c, 1));
    DIES("too many to load", "parameters need|this machine has", golf_init(&m, &c, 0));
}

/* What no width can mend is said, and not that none fits. */
static void test_fit_says_why(void) {
    Config c = config_of("vocab=500");
    if (sizeof(size_t) == 4) return; /* there, the widest has too many parameters */
    c.batch = 65536;
    c.seq = 65536;
    c.width = 0;
    DIES("fit with too large a batch", "--batch=65536|--seq=65536", fit_width(&c));
}

/* --squeeze: coding is expected to leave this part of the packed bytes. */
static void test_squeeze(void) {
    Config c = config_of("vocab=500 cap=80000 squeeze=0.8");
    c.width = 0;
    fit_width(&c);
    const size_t size = artifact_bytes(&c);
    CHECK(size > 98000 && size <= 100000, "packed %zu bytes for 80000 / 0.8", size);
}

/* A gated MLP has a third matrix and two thirds of the hidden width, in steps of 8: about
 * the bytes of another. */
static void test_gated_bytes(void) {
    static const struct {
        int width, mlp, hidden;
    } rows[] = {{8, 1, 8}, {16, 1, 8}, {72, 2, 96}, {96, 13, 832}, {256, 4, 680}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[100];
        Golf m;
        snprintf(text, sizeof text, "heads=1 width=%d mlp=%d act=swiglu", rows[i].width,
                 rows[i].mlp);
        const Config c = config_of(text);
        golf_layout(&m, &c);
        CHECK(m.tensor[T_wup].rows == rows[i].hidden &&
                  m.tensor[T_wgate].rows == rows[i].hidden &&
                  m.tensor[T_wdown].cols == rows[i].hidden,
              "%s: hidden width %d, not %d", text, m.tensor[T_wup].rows, rows[i].hidden);
    }
    const Config two = config_of("width=96 mlp=13"),
                 fixed = config_of("width=96 hidden=640"),
                 three = config_of("width=96 mlp=13 act=swiglu");
    const double more = flops_per_token(&three) / flops_per_token(&two);
    CHECK(artifact_bytes(&three) <= artifact_bytes(&two) + 50 && near(more, 1, 0.001),
          "gated: %zu bytes, %zu without; %g times the FLOPs", artifact_bytes(&three),
          artifact_bytes(&two), more);
    CHECK(hidden_width(&fixed) == 640, "--hidden is taken literally");
}

/* A file loads whatever its model was trained with. */
static void test_own_files(void) {
    check_own_files("");
    check_own_files("unique=2 prelude=1 coda=1 heads=4 kv_heads=2 extra_norm=each");
    check_own_files("wq=none aq=none embed_bits=16 gate=none mix=none");
}

int main(void) {
    start_tests();
    run_test("artifact: exports", test_exports);
    run_test("artifact: layout", test_layout);
    run_test("artifact: packed", test_packed_payloads);
    run_test("export: json", test_json);
    run_test("export: base64", test_base64);
    run_test("export: safetensors", test_safetensors);
    run_test("export: rounded", test_rounded_numbers);
    run_test("export: header", test_header_size);
    run_test("options as text", test_options_as_text);
    run_test("options: unmentioned", test_defaults_unmentioned);
    run_test("options: lines", test_lines);
    run_test("options: systems=", test_systems_line);
    run_test("checkpoint: options", test_same_options);
    run_test("checkpoint: layout", test_checkpoint_layout);
    run_test("checkpoint: version 1", test_checkpoint_of_version_1);
    run_test("checkpoint: exchanged files", test_exchanged_files);
    run_test("corruption", test_corruption);
    run_test("artifact: claims", test_claims);
    run_test("artifact: infinite weights", test_infinite_weights);
    run_test("checkpoint: impossible", test_impossible_checkpoints);
    run_test("ledger", test_ledger);
    run_test("fit", test_fit);
    run_test("fit: large sizes", test_large_sizes);
    run_test("fit: says why", test_fit_says_why);
    run_test("shapes", test_shapes);
    run_test("shapes: what fills tiles", test_filled);
    run_test("long rows", test_long_rows);
    run_test("memory", test_memory);
    run_test("squeeze", test_squeeze);
    run_test("gated bytes", test_gated_bytes);
    run_test("loads its own file", test_own_files);
    return end_tests("files");
}
