/* fuzz.c - libFuzzer targets for everything that reads what others wrote: `make fuzz`.
 *
 *     GOLF_FUZZ=artifact build/fuzz/fuzz FILE      run one input again
 *     GOLF_FUZZ=artifact build/fuzz/fuzz -seeds=DIR     what the corpus started from
 *
 * The program is included as in the tests. It ends at an error by exit(1): here that is a
 * jump back into the fuzz_target. What it had allocated, opened, said is then thrown away, so
 * that sanitizers look at all of it, leaks too.
 *
 * A fuzz_target is more than "does not crash": what loads must survive a round trip, and so on;
 * `demand` says what. Mutators know the formats and repair checksums, since a byte changed
 * at random is found by these, and nothing behind them would be reached. */
#include "../../golf.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------
 * What the program takes from the C library, with a list of it. */
enum { KEPT = 1 << 16 };
static void *held[KEPT];          /* a hash table; what was freed is `was_freed` */
static int kept_at[KEPT], n_kept; /* the slots in use */
static FILE *kept_file[64];
static int n_files;
static char freed_mark, *const was_freed = &freed_mark;
static int armed, outlives; /* is an input being run? does the next memory outlive it? */
static jmp_buf escape;
static const char *must; /* what may not fail now, or NULL */

_Noreturn static void fault(const char *fmt, ...);

static int slot_of(const void *p) {
    uint64_t i = (uint64_t)(uintptr_t)p * 0x9E3779B97F4A7C15u >> 48;
    while (held[i] && held[i] != p) i = (i + 1) % KEPT;
    return (int)i;
}

static void *keep(void *p) {
    if (!p || !armed) return p;
    if (outlives) {
        outlives = 0;
        return p;
    }
    if (n_kept > KEPT / 2) fault("more than %d pieces of memory", n_kept);
    const int i = slot_of(p);
    held[i] = p;
    kept_at[n_kept] = i;
    n_kept++;
    return p;
}

/* Memory from before this input that is freed now is that of a thread, which grows: what
 * takes its place outlives the input, too. Such memory is made first with another model. */
static void fuzz_free(void *p) {
    if (p && armed) {
        const int i = slot_of(p);
        if (held[i]) held[i] = was_freed;
        else outlives = 1;
    }
    free(p);
}

static void *fuzz_aligned_alloc(size_t align, size_t n) {
    return keep(aligned_alloc(align, n));
}

static void *fuzz_realloc(void *p, size_t n) {
    if (p && armed && held[slot_of(p)]) held[slot_of(p)] = was_freed;
    return keep(realloc(p, n));
}

static FILE *fuzz_fopen(const char *path, const char *mode) {
    FILE *f = fopen(path, mode);
    if (f && armed && n_files < 64) kept_file[n_files++] = f;
    return f;
}

/* A stream into memory, which is there once it is closed. */
static FILE *memory_stream;
static char **memory_text;

static FILE *fuzz_open_memstream(char **text, size_t *n) {
    memory_text = text;
    memory_stream = open_memstream(text, n);
    return memory_stream;
}

static int fuzz_fclose(FILE *f) {
    if (f == memory_stream) {
        const int status = fclose(f);
        memory_stream = NULL;
        keep(*memory_text);
        return status;
    }
    for (int i = 0; i < n_files; i++) {
        if (kept_file[i] != f) continue;
        n_files--;
        kept_file[i] = kept_file[n_files];
        break;
    }
    return fclose(f);
}

static int fuzz_scandir(const char *dir, struct dirent ***names, void *none,
                        int (*order)(const struct dirent **, const struct dirent **)) {
    const int n = scandir(dir, names, none, order);
    for (int i = 0; i < n; i++) keep((*names)[i]);
    if (n >= 0) keep(*names);
    return n;
}

static int no_fsync(int fd) { /* of files that nobody will read after a crash */
    (void)fd;
    return 0;
}

static void throw_away(void) {
    for (int i = 0; i < n_kept; i++) {
        if (held[kept_at[i]] != (void *)was_freed) free(held[kept_at[i]]);
    }
    for (int i = 0; i < n_kept; i++) held[kept_at[i]] = NULL;
    for (int i = 0; i < n_files; i++) fclose(kept_file[i]);
    n_kept = n_files = 0;
    outlives = 0;
}

/* What the program says to stderr: of the last input. */
static FILE *fuzz_said;
static char fuzz_text[1 << 16];

_Noreturn static void fuzz_exit(int status) {
    fflush(fuzz_said);
    if (!armed) {
        fputs(fuzz_text, stderr);
        _exit(status);
    }
    if (must) fault("%s, yet: %s", must, fuzz_text);
    longjmp(escape, 1);
}

_Noreturn static void fault(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("\nFINDING: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}
#define demand(ok, ...) \
    do { \
        if (!(ok)) fault(__VA_ARGS__); \
    } while (0)

/* What is made before the first input is there till the end. */
#if defined __has_feature
#if __has_feature(address_sanitizer)
#include <sanitizer/lsan_interface.h>
#define LEAKS(what) __lsan_##what()
#endif
#endif
#ifndef LEAKS
#define LEAKS(what)
#endif

#define aligned_alloc(align, n) fuzz_aligned_alloc(align, n)
#define realloc(p, n) fuzz_realloc(p, n)
#define free(p) fuzz_free(p)
#define fopen(path, mode) fuzz_fopen(path, mode)
#define fclose(f) fuzz_fclose(f)
#define open_memstream(text, n) fuzz_open_memstream(text, n)
#define scandir(dir, names, which, order) fuzz_scandir(dir, names, which, order)
#define fsync(fd) no_fsync(fd)
#define exit(status) fuzz_exit(status)
#undef stderr
#define stderr fuzz_said
/* Leaks are looked for here. */
#define __asan_default_options test_asan_options
#define __ubsan_default_options test_ubsan_options
#include "../check/check.h"
#undef __asan_default_options
#undef __ubsan_default_options

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

typedef struct {
    const uint8_t *p;
    size_t n;
} Input;

/* Runs f; 0 if the program ended at an error. */
static int runs_through(void (*f)(void *), void *arg) {
    int through = 0;
    rewind(fuzz_said);
    *fuzz_text = 0;
    if (!setjmp(escape)) {
        armed = 1;
        f(arg);
        through = 1;
    }
    armed = 0;
    must = NULL;
    for (int i = 0; i < MOST_OPEN;
         i++) { /* the program keeps shards open until it ends */
        if (open_shards[i]) close_shard(open_shards[i]);
    }
    throw_away();
    return through;
}

/* What follows may not fail. */
static void from_here(const char *what) { must = what; }

static void demand_same_files(const char *a, const char *b, const char *what) {
    size_t n;
    uint8_t *file = read_file(IN(a), &n);
    demand(same_file(IN(b), file, n), "%s: saved, loaded and saved again: other bytes",
           what);
    free(file);
}

/* ------------------------------------------------------------------------------------------
 * Numbers for mutators */
static uint64_t die_key, die_count;

static size_t roll(size_t sides) { /* 0 .. sides - 1 */
    return (size_t)(hash64(die_key, die_count++) % sides);
}

static uint64_t odd_number(void) {
    static const uint64_t edges[] = {
        0,        1,          2,          127,       128,       255,
        256,      32767,      65535,      65536,     1 << 20,   INT32_MAX,
        1u << 31, UINT32_MAX, 1ull << 32, INT64_MAX, UINT64_MAX};
    return edges[roll(COUNT(edges))] + roll(3) - 1;
}

/* A value that the option may have, or nearly. */
static void odd_value(const Option *o, char *out) {
    char value[24][64];
    const int n = values_of(o, value);
    const size_t kind = roll(16);
    if (kind < 7) snprintf(out, 64, "%s", value[roll((size_t)n)]);
    else if (kind < 11) snprintf(out, 64, "%zu", roll(5));
    else if (kind < 14) snprintf(out, 64, "%zu", 8 * roll(6));
    else if (kind < 15) snprintf(out, 64, "%g", 1.5 / (double)(1 + roll(1000)));
    else snprintf(out, 64, "%lld", (long long)odd_number());
    if (o->type != TYPE_STR) return;
    if (!strcmp(o->name, "protect"))
        snprintf(out, 64, "w%s:%zu:%zu%%", roll(2) ? "up" : "o", roll(10), roll(110));
    if (!strcmp(o->name, "cluster"))
        snprintf(out, 64, "%zu,%zu,%s", roll(5), roll(20), roll(2) ? "each" : "shared");
    if (!strcmp(o->name, "unshare")) snprintf(out, 64, "wo,%s", roll(2) ? "wup" : "wqkv");
}

static const Option *odd_option(int mask) {
    for (;;) {
        const Option *o = options + roll(COUNT(options));
        if (o->mask & mask) return o;
    }
}

/* Lines key=value: one of them gets another value, goes, or comes. text has room. */
static size_t mutate_config(char *text, size_t len, int mask) {
    char copy[CONFIG_TEXT], value[64], key[64], *save;
    const size_t kind = roll(8);
    const Option *o = odd_option(mask);
    size_t n = 0;
    if (len >= CONFIG_TEXT - 256) len = CONFIG_TEXT - 256;
    snprintf(copy, sizeof copy, "%.*s", (int)len, text);
    odd_value(o, value);
    snprintf(key, sizeof key, "%s=", o->name);
    for (char *w = strtok_r(copy, "\n", &save); w; w = strtok_r(NULL, "\n", &save)) {
        if (kind < 7 && !strncmp(w, key, strlen(key))) continue;
        if (kind == 1 && !strncmp(w, "systems=", 8)) continue;
        n += (size_t)sprintf(text + n, "%s\n", w);
    }
    if (kind) n += (size_t)sprintf(text + n, "%s%s\n", key, value);
    if (kind == 2)
        n += (size_t)sprintf(text + n, "systems=%s\n", roll(2) ? "lora" : "no");
    return n;
}

/* ------------------------------------------------------------------------------------------
 * Models: as small as they can be, of every kind that a file can be of. */
#define SMALLEST "vocab=12 width=8 heads=1 mlp=1 seq=8 repeat=1 batch=1 steps=4 "
static const char *const arms[] = {
    "mix=none gain=none gate=none qgain=none extra_norm=none",
    "wq=none mix=none gain=none gate=none qgain=none extra_norm=none",
    "wq=int3 mix=scalar embed_bits=3 extra_norm=each",
    "wq=int5 gate=scalar embed_bits=16 wscale=group repeat=2",
    "wq=int8 act=swiglu unique=2 wscale=row gain=none",
    "vocab=1040 wq=int4 embed_bits=4 gain=none mix=none gate=none extra_norm=none",
#ifndef GOLF_CORE
    "wq=binary mix=none gain=none gate=none",
    "wq=quest mix=none gain=none gate=none",
    "wq=quest wbits=1.585 aq=quest",
    "lora=2 repeat=2 mix=none",
    "cluster=2,5,shared mix=none gain=none",
    "cluster=4,16,each unique=2",
    "protect=wup:5:30%,wo:16 mix=none",
    "protect=wdown:6:60% act=swiglu",
    "embed_rank=4 gate=none",
    "experts=2 topk=1 expert_size=8",
    "attn_experts=2 attn_topk=1",
    "ffn_hi=8 hi_experts=2 repeat=2",
    "ffn=fips fips_rank=8",
    "unshare=wo repeat=2 unet=1",
#endif
};

/* The model that these options describe, trained by nobody. */
typedef struct {
    Config config;
    const char *path;
    int checkpoint;
} Made;

static void make_model(void *arg) {
    const Made *x = arg;
    Golf m;
    model_check(&x->config);
    check_embed_grid(&x->config, x->path); /* as whoever reads one does */
    golf_layout(&m, &x->config);
    if (m.n_params > 12000 || m.phases > 8) die("too large");
    golf_init(&m, &x->config, 1);
    if (x->checkpoint) ckpt_save(&m, x->path, x->config.steps / 2);
    else golf_save(&m, x->path, 1);
    golf_free(&m);
}

typedef struct {
    const char *text;
    size_t len;
    Config config;
    int mask;
} Parsed;

static void parse_text(void *arg) {
    Parsed *x = arg;
    config_parse(&x->config, "text", x->text, x->len, x->mask);
}

/* The file of a new model with these options into data; its size, 0 if there is none. */
static size_t model_of_text(uint8_t *data, size_t most, const char *text, size_t len,
                            int checkpoint) {
    const int mask = checkpoint ? MODEL | TRAIN : MODEL;
    Parsed x = {.text = text, .len = len, .mask = mask};
    size_t n;
    if (!runs_through(parse_text, &x)) return 0;
    Made made = {.config = x.config, .path = IN("made"), .checkpoint = checkpoint};
    made.config.seed = (int)roll(1000);
    if (!runs_through(make_model, &made)) return 0;
    uint8_t *file = read_file(IN("made"), &n);
    const size_t size = n <= most ? n : 0;
    memcpy(data, file, size);
    free(file);
    return size;
}

static void options_of_words(void *arg) {
    Parsed *x = arg;
    x->config = config_of(x->text);
}

static size_t model_of_arm(uint8_t *data, size_t most, size_t arm, int checkpoint) {
    char line[512], text[CONFIG_TEXT];
    snprintf(line, sizeof line, SMALLEST "%s", arms[arm]);
    Parsed x = {.text = line};
    if (!runs_through(options_of_words, &x)) return 0;
    const int mask = checkpoint ? MODEL | TRAIN : MODEL;
    const size_t len = config_text(&x.config, mask, text);
    return model_of_text(data, most, text, len, checkpoint);
}

/* ------------------------------------------------------------------------------------------
 * artifact */
enum { MOST_PARTS = 256 };

/* An artifact in its parts, however wrong their lengths are. */
typedef struct {
    uint8_t head[ARTIFACT_FIXED];
    char config[CONFIG_TEXT];
    size_t len, parts, part[MOST_PARTS];
    uint8_t *payload[MOST_PARTS];
} Parts;

static int take_apart(Parts *a, const uint8_t *data, size_t size) {
    if (size < ARTIFACT_FIXED + 4) return 0;
    memcpy(a->head, data, ARTIFACT_FIXED);
    a->len = get_u(data + 20, 4);
    a->parts = get_u(data + 24, 4);
    if (a->len >= CONFIG_TEXT || a->parts > MOST_PARTS) return 0;
    if (ARTIFACT_FIXED + a->len + 8 * a->parts + 4 > size) return 0;
    memcpy(a->config, data + ARTIFACT_FIXED, a->len);
    const uint8_t *row = data + ARTIFACT_FIXED + a->len;
    size_t at = ARTIFACT_FIXED + a->len + 8 * a->parts + 4;
    for (size_t i = 0; i < a->parts; i++) {
        a->part[i] = MIN(get_u(row + 8 * i, 4), size - at);
        a->payload[i] = xcalloc(a->part[i] + 64, 1);
        memcpy(a->payload[i], data + at, a->part[i]);
        at += a->part[i];
    }
    return 1;
}

/* With lengths and checksums that fit. Returns the size, 0: no room. */
static size_t put_together(const Parts *a, uint8_t *data, size_t most) {
    size_t at = ARTIFACT_FIXED + a->len + 8 * a->parts + 4, size = at;
    uint8_t *row = data + ARTIFACT_FIXED + a->len;
    for (size_t i = 0; i < a->parts; i++) size += a->part[i];
    if (size > most) return 0;
    memcpy(data, a->head, ARTIFACT_FIXED);
    memcpy(data, GOLF_MAGIC, 8);
    put_u(data + 8, GOLF_VERSION, 4);
    put_u(data + 12, size, 4);
    put_u(data + 20, a->len, 4);
    put_u(data + 24, a->parts, 4);
    memcpy(data + ARTIFACT_FIXED, a->config, a->len);
    for (size_t i = 0; i < a->parts; i++) {
        put_u(row, a->part[i], 4);
        put_u(row + 4, crc32_of(0, a->payload[i], a->part[i]), 4);
        memcpy(data + at, a->payload[i], a->part[i]);
        at += a->part[i];
        row += 8;
    }
    put_u(row, crc32_of(0, data, (size_t)(row - data)), 4);
    return size;
}

/* The packed form of a part of the model instead of what is there, if it has one. */
typedef struct {
    Parts *parts;
    Config config;
} Repacked;

/* The packed form of codes and scales at random. */
static void pack_new(const Golf *m, const Tensor *t, uint8_t *p) {
    const Tensor *owner = t->shares ? m->tensor + t->shares - 1 : t;
    int8_t *code = xcalloc(t->copy_n, 1);
    uint8_t *mask = xcalloc(t->copy_n, 1);
    real *w = xcalloc(t->copy_n, sizeof(real));
    real *scale = xcalloc(owner->copy_scales, sizeof(real));
    for (int j = 0; j < t->stored_copies; j++) {
        for (size_t i = 0; i < t->copy_n; i++)
            w[i] = (real)((double)roll(2000) / 1000 - 1);
        t->quant->quantize(code, scale, t->passes ? mask : NULL, w, t);
        t->quant->pack(p + (size_t)j * t->copy_bytes, code, scale, t);
    }
}

/* Payloads of the lengths that packed ones have, numbers at random. */
static void pack_at_random(void *arg) {
    Repacked *x = arg;
    Golf m;
    size_t i = 0;
    model_check(&x->config);
    golf_layout(&m, &x->config);
    if (m.n_params > 20000) die("too large");
    EACH_TENSOR(t, &m) {
        if (!is_stored(t)) continue;
        uint8_t *p = xcalloc(t->bytes + 64, 1);
        const size_t kind = roll(4);
        for (size_t k = 0; k < t->bytes; k++)
            p[k] = (uint8_t)(k % 2 ? 0x3C : 0x11 + roll(200));
        if (kind) pack_new(&m, t, p);
        held[slot_of(p)] = was_freed; /* the mutator frees it */
        x->parts->payload[i] = p;
        x->parts->part[i] = t->bytes;
        i++;
    }
    x->parts->parts = i;
}

static void mutate_payload(Parts *a) {
    if (!a->parts) return;
    const size_t i = roll(a->parts), size = a->part[i];
    uint8_t *p = a->payload[i];
    const size_t kind = roll(6);
    if (kind == 0 && size > 4) put_u(p, odd_number(), 4);
    else if (kind == 1 && size) a->part[i] = roll(size);
    else if (kind == 2 && size) p[roll(size)] = (uint8_t)(roll(2) ? 0xFF : 0x7F);
    else if (kind == 3) a->part[i] = size + roll(60);
    else if (size) a->part[i] = LLVMFuzzerMutate(p, size, roll(2) ? size : size + 60);
}

static size_t new_artifact(uint8_t *data, size_t most) {
    size_t n = 0;
    for (int tries = 0; !n && tries < 20; tries++)
        n = model_of_arm(data, most, roll(COUNT(arms)), 0);
    return n;
}

static size_t mutate_artifact(uint8_t *data, size_t size, size_t most) {
    static Parts a;
    const size_t kind = roll(40);
    size_t n = 0;
    if (kind == 0) return LLVMFuzzerMutate(data, size, most);
    if (kind == 1 || !take_apart(&a, data, size)) return new_artifact(data, most);
    size_t parts = a.parts;
    if (kind < 16) {
        for (size_t times = 1 + roll(3); times; times--)
            a.len = mutate_config(a.config, a.len, MODEL);
        if (kind < 9) n = model_of_text(data, most, a.config, a.len, 0);
        if (kind == 9) {
            Parsed x = {.text = a.config, .len = a.len, .mask = MODEL};
            if (runs_through(parse_text, &x)) {
                for (size_t i = 0; i < parts; i++) free(a.payload[i]);
                parts = a.parts = 0;
                Repacked r = {&a, x.config};
                runs_through(pack_at_random, &r);
                parts = a.parts;
            }
        }
    } else if (kind < 37) {
        mutate_payload(&a);
    } else if (kind == 37) {
        a.len = LLVMFuzzerMutate((uint8_t *)a.config, a.len, CONFIG_TEXT - 1);
    } else if (kind == 38 && parts) {
        a.parts = roll(parts + 1);
    } else {
        mutate_payload(&a);
        mutate_payload(&a);
    }
    if (!n) n = put_together(&a, data, most);
    for (size_t i = 0; i < parts; i++) free(a.payload[i]);
    return n ? n : LLVMFuzzerMutate(data, size, most);
}

/* What golf_load let in. */
static void check_loaded(const Golf *m) {
    const double bytes = (double)m->n_params * (sizeof(real) + 1);
    demand(bytes < 1e9 && m->phases > 0, "a model of %g bytes", bytes);
    for (size_t i = 0; i < m->n_scales; i++)
        demand(bf16_exact(m->scale[i]) && isfinite(m->scale[i]), "scale %zu is %g", i,
               (double)m->scale[i]);
    for (size_t i = 0; i < m->n_params; i++)
        demand(isfinite(m->eff[i]), "weight %zu is %g", i, (double)m->eff[i]);
    const size_t most = artifact_bytes(&m->config);
    demand(ledger_of(m).total <= most, "a ledger of %zu bytes, at most %zu",
           ledger_of(m).total, most);
}

/* A few tokens through it. */
static void try_model(Golf *m) {
    const Config *c = &m->config;
    const int n = MIN(c->seq, 5);
    if (m->n_params * (size_t)m->phases > 20000 || c->seq > 64) return;
    int *x = xcalloc((size_t)n, sizeof(int));
    for (int i = 0; i < n; i++) x[i] = (7 * i + 3) % c->vocab;
    golf_buffers(m, (size_t)n);
    golf_forward(m, x, x, 1, n);
    free(x);
}

static void load_twice(void *arg) {
    Golf m, n;
    (void)arg;
    const uint32_t crc = golf_load(&m, IN("a.golf"));
    from_here("a model that loads is saved and loads again");
    check_loaded(&m);
    golf_save(&m, IN("b.golf"), crc);
    demand(golf_load(&n, IN("b.golf")) == crc, "another tokenizer");
    demand(m.n_params == n.n_params && !memcmp(m.eff, n.eff, m.n_params * sizeof(real)),
           "other weights after a round trip");
    golf_save(&n, IN("c.golf"), crc);
    demand_same_files("b.golf", "c.golf", "artifact");
    golf_free(&m);
    if (n.tensor->crc % 8 == 0) try_model(&n);
    golf_free(&n);
}

static void run_artifact(Input in) {
    put_file(IN("a.golf"), in.p, in.n);
    runs_through(load_twice, NULL);
}

static void save_seed(const char *dir, size_t i, const uint8_t *data, size_t n) {
    char name[32];
    snprintf(name, sizeof name, "seed%02zu", i);
    if (n) put_file(path_of(dir, name), data, n);
}

static void seeds_artifact(const char *dir) {
    static uint8_t data[1 << 16];
    for (size_t i = 0; i < COUNT(arms); i++) {
        const size_t n = model_of_arm(data, sizeof data, i, 0);
        if (!n) printf("no model: %s: %s", arms[i], fuzz_text);
        save_seed(dir, i, data, n);
        static Parts a;
        if (!take_apart(&a, data, n)) continue;
        Parsed x = {.text = a.config, .len = a.len, .mask = MODEL};
        Repacked r = {&a, x.config};
        for (int tries = 0; tries < 3 && runs_through(parse_text, &x); tries++) {
            r.config = x.config;
            if (!runs_through(pack_at_random, &r)) break;
            save_seed(dir, COUNT(arms) * (size_t)(1 + tries) + i, data,
                      put_together(&a, data, sizeof data));
        }
    }
}

/* ------------------------------------------------------------------------------------------
 * checkpoint */
/* Sizes and checksum as they should be. Returns the size, 0: no room. */
static size_t repair_checkpoint(uint8_t *data, size_t len, size_t size, size_t most) {
    const size_t fixed = get_u(data + 8, 4) == 1 ? CKPT_FIXED_1 : CKPT_FIXED;
    if (size < fixed + len + 4) return 0;
    const size_t count = (size - fixed - len - 4) / (3 * sizeof(real));
    size = fixed + len + 3 * count * sizeof(real) + 4;
    if (size > most) return 0;
    put_u(data + 32, count, 8);
    put_u(data + 40, len, 4);
    put_u(data + size - 4, crc32_of(0, data, size - 4), 4);
    return size;
}

static size_t new_checkpoint(uint8_t *data, size_t most) {
    size_t n = 0;
    for (int tries = 0; !n && tries < 20; tries++)
        n = model_of_arm(data, most, roll(COUNT(arms)), 1);
    return n;
}

static size_t mutate_checkpoint(uint8_t *data, size_t size, size_t most) {
    static char text[CONFIG_TEXT];
    const size_t kind = roll(40);
    if (kind == 0) return LLVMFuzzerMutate(data, size, most);
    if (kind == 1 || size < CKPT_FIXED + 4) return new_checkpoint(data, most);
    size_t len = get_u(data + 40, 4);
    if (len > size - CKPT_FIXED - 4 || len >= CONFIG_TEXT)
        return new_checkpoint(data, most);
    memcpy(text, data + CKPT_FIXED, len);
    const size_t numbers = size - CKPT_FIXED - len;
    if (kind < 20) {
        const size_t was = len;
        len = mutate_config(text, len, MODEL | TRAIN);
        if (kind < 10) {
            const size_t n = model_of_text(data, most, text, len, 1);
            if (n) return n;
        }
        if (CKPT_FIXED + len + numbers > most) return LLVMFuzzerMutate(data, size, most);
        memmove(data + CKPT_FIXED + len, data + CKPT_FIXED + was, numbers);
        memcpy(data + CKPT_FIXED, text, len);
        size += len - was;
    } else if (kind < 26) {
        put_u(data + 16 + 8 * roll(3), odd_number(), 8);
    } else if (kind < 29) {
        static const size_t fields[] = {8, 12, 40, 44, 48};
        put_u(data + fields[roll(5)], roll(4), 4);
    } else if (kind < 36 && numbers > 8) {
        put_u(data + CKPT_FIXED + len + roll(numbers - 8), odd_number(), 4);
    } else {
        size = LLVMFuzzerMutate(data, size, most);
        if (size < CKPT_FIXED + 4) return size;
    }
    if (roll(16) == 0) { /* sizes stay wrong, the checksum is right */
        put_u(data + size - 4, crc32_of(0, data, size - 4), 4);
        return size;
    }
    const size_t repaired = repair_checkpoint(data, len, size, most);
    return repaired ? repaired : size;
}

static void resume_twice(void *arg) {
    Golf m, n;
    (void)arg;
    const Checkpoint k = ckpt_open(IN("a.bin"));
    Config c = k.config;
    config_check(&c);
    golf_layout(&m, &c);
    if (m.n_params > 5000 || m.phases > 64) return;
    golf_init(&m, &c, 1);
    m.files_crc = k.files_crc;
    m.tokenizer_crc = k.tokenizer_crc;
    const int64_t step = ckpt_load(&m, IN("a.bin"));
    from_here("a checkpoint that loads is saved and loads again");
    demand(step >= 0 && step <= c.steps && m.step == step, "step %lld of %d",
           (long long)step, c.steps);
    ckpt_save(&m, IN("b.bin"), step);
    golf_init(&n, &c, 1);
    n.files_crc = k.files_crc;
    n.tokenizer_crc = k.tokenizer_crc;
    demand(ckpt_load(&n, IN("b.bin")) == step, "another step");
    ckpt_save(&n, IN("c.bin"), step);
    demand_same_files("b.bin", "c.bin", "checkpoint");
    golf_free(&m);
    golf_free(&n);
}

/* By a run with other options, or other files. */
static void resume_otherwise(void *arg) {
    const Input *in = arg;
    const Checkpoint k = ckpt_open(IN("a.bin"));
    Config c = k.config;
    Golf m;
    config_check(&c);
    if (in->n % 3 == 0) c.lr = c.lr == 1 ? 2 : 1;
    if (in->n % 3 == 1) c.vocab = 13;
    golf_layout(&m, &c);
    if (m.n_params > 5000 || m.phases > 64) return;
    golf_init(&m, &c, 1);
    m.files_crc = k.files_crc + 1;
    ckpt_load(&m, IN("a.bin"));
    demand(k.version == 1 && in->n % 3 == 2, "resumed with other options or files");
}

/* Its tokenizer is the one that stands beside it, or another. */
static void ask_for_tokenizer(void *arg) {
    (void)arg;
    same_tokenizer(tokenizer_load(IN("tokenizer.model")), IN("a.bin"));
}

static void run_checkpoint(Input in) {
    put_file(IN("a.bin"), in.p, in.n);
    if (in.n % 8 == 0) runs_through(ask_for_tokenizer, NULL);
    if (in.n % 8 == 1) runs_through(resume_otherwise, &in);
    runs_through(resume_twice, NULL);
}

/* Of small models alone: they come with three numbers for each weight. */
static void seeds_checkpoint(const char *dir) {
    static uint8_t data[1 << 16];
    for (size_t i = 0; i < COUNT(arms); i++) {
        const size_t n = model_of_arm(data, sizeof data, i, 1);
        if (n < 9000) save_seed(dir, i, data, n);
    }
}

/* ------------------------------------------------------------------------------------------
 * Character maps: of keys and what stands for them, then broken. */
typedef struct {
    uint32_t unit[4096];
    uint8_t taken[4096], based[4096];
    size_t units, len;
    char text[1024];
} Map;

typedef struct {
    const char *from, *to;
} Pair;

static const Pair pairs[] = {{"a", "b"},
                             {"ab", ""},
                             {"\xef\xbc\xa1", "A"},
                             {"\t", " "},
                             {"\n", " "},
                             {"e\xcc\x81", "\xc3\xa9"},
                             {"\xe2\x80\x83", " "},
                             {"abc", "x y"},
                             {"z", "  "},
                             {"\xff", "?"},
                             {"q", SPACE},
                             {"abcd", "\xf0\x9f\x98\x80"}};

/* Units of all keys that start with prefix, whose unit is `node`. */
static void place_keys(Map *m, const Pair *const *pair, size_t n, const char *prefix,
                       uint32_t node) {
    const size_t depth = strlen(prefix);
    uint8_t next[256] = {0};
    const char *to = NULL;
    for (size_t i = 0; i < n; i++) {
        const char *s = pair[i]->from;
        if (strncmp(s, prefix, depth)) continue;
        if (s[depth]) next[(uint8_t)s[depth]] = 1;
        else to = pair[i]->to;
    }
    uint32_t base = 0;
    for (uint32_t b = 1; b < 2048 && !base; b++) {
        int room = !m->based[b] && !(to && m->taken[b]);
        for (uint32_t c = 1; c < 256; c++) room &= !(next[c] && m->taken[b ^ c]);
        if (room) base = b;
    }
    m->based[base] = 1;
    m->unit[node] |= (base ^ node) << 10 | (to ? UNIT_ENDS : 0);
    if (to) {
        m->taken[base] = 1;
        m->unit[base] = UNIT_LEAF | (uint32_t)m->len;
        m->len += (size_t)sprintf(m->text + m->len, "%s", to) + 1;
    }
    for (uint32_t c = 1; c < 256; c++) {
        if (!next[c]) continue;
        m->taken[base ^ c] = 1;
        m->unit[base ^ c] = c;
    }
    for (uint32_t c = 1; c < 256; c++) {
        char longer[64];
        if (!next[c]) continue;
        snprintf(longer, sizeof longer, "%s%c", prefix, (char)c);
        place_keys(m, pair, n, longer, base ^ c);
    }
}

/* The blob of some of the pairs; its size. */
static size_t make_blob(uint8_t *out, size_t most) {
    static Map m;
    const Pair *chosen[COUNT(pairs)];
    size_t n = 0;
    memset(&m, 0, sizeof m);
    for (size_t i = 0; i < COUNT(pairs); i++)
        if (roll(3) == 0) chosen[n++] = pairs + i;
    if (!n) chosen[n++] = pairs;
    m.taken[0] = 1;
    place_keys(&m, chosen, n, "", 0);
    for (size_t i = 0; i < 2048; i++)
        if (m.taken[i] || m.based[i]) m.units = (i | 0xFF) + 1;
    for (size_t i = 0; i < m.units; i++)
        if (!m.taken[i]) m.unit[i] = UNIT_LEAF; /* which no byte leads to */
    const size_t size = 4 + 4 * m.units + m.len;
    if (size > most) return 0;
    put_u(out, 4 * m.units, 4);
    for (size_t i = 0; i < m.units; i++) put_u(out + 4 + 4 * i, m.unit[i], 4);
    memcpy(out + 4 + 4 * m.units, m.text, m.len);
    return size;
}

static void mutate_blob(uint8_t *blob, size_t size) {
    if (size < 8) return;
    const size_t units = MIN(get_u(blob, 4), size - 4) / 4, kind = roll(8);
    if (kind == 0) put_u(blob, odd_number(), 4);
    else if (kind == 1 || !units)
        blob[size - 1 - roll(MIN(size, 16))] ^= (uint8_t)(1 << roll(8));
    else {
        uint8_t *unit = blob + 4 + 4 * roll(roll(2) ? units : MIN(units, 8));
        for (int tries = 0; tries < 40 && get_u(unit, 4) == UNIT_LEAF; tries++)
            unit = blob + 4 + 4 * roll(units);
        const uint32_t was = (uint32_t)get_u(unit, 4);
        const uint32_t bit = 1u << (roll(2) ? 8 + roll(24) : roll(32));
        put_u(unit, kind == 2 ? roll(units) << 10 | (was & 0x3FF) : was ^ bit, 4);
    }
}

/* The input: length of a text (one byte), the blob, the text. */
static size_t mutate_charsmap(uint8_t *data, size_t size, size_t most) {
    const size_t kind = roll(16);
    if (kind < 2 || size < 8) {
        static const char text[] = "abcdA\xef\xbc\xa1 e\xcc\x81z\xff\tq\n";
        const size_t n = make_blob(data + 1, most - 64);
        *data = sizeof text - 1;
        memcpy(data + 1 + n, text, sizeof text - 1);
        return 1 + n + sizeof text - 1;
    }
    const size_t text = MIN(*data, size - 1);
    if (kind < 4) return LLVMFuzzerMutate(data, size, most);
    if (kind < 6 && text) {
        const size_t n =
            LLVMFuzzerMutate(data + size - text, text, MIN(most - size + text, 255));
        *data = (uint8_t)n;
        return size - text + n;
    }
    for (size_t times = 1 + roll(4); times; times--)
        mutate_blob(data + 1, size - 1 - text);
    return size;
}

/* The longest key of the map that s (n) starts with, each tried by itself. */
static size_t naive_longest(const CharacterMap *m, const uint8_t *s, size_t n) {
    size_t longest = 0;
    for (size_t len = 1; len <= n; len++) {
        size_t node = 0;
        int there = 1;
        for (size_t i = 0; i < len; i++) {
            const uint32_t u = m->unit[node];
            const uint32_t offset = u & 1 << 9 ? u >> 10 << 8 : u >> 10;
            const size_t at = node ^ offset ^ s[i];
            if (at >= m->units || (m->unit[at] & 0x800000FF) != s[i]) there = 0;
            if (!there) break;
            node = at;
        }
        if (!there) break;
        if (m->unit[node] & 1 << 8) longest = len;
    }
    return longest;
}

static void demand_utf8(const uint8_t *s, size_t n, const char *what) {
    size_t i = 0;
    while (i < n) {
        const int len = utf8_len(s + i, n - i);
        demand(len, "%s is no UTF-8 at byte %zu of %zu", what, i, n);
        i += (size_t)len;
    }
}

static void use_map(void *arg) {
    const Input *in = arg;
    const size_t text = in->n ? MIN(*in->p, in->n - 1) : 0;
    const size_t size = in->n ? in->n - 1 - text : 0;
    uint8_t *blob = xcalloc(size, 1), *s = xcalloc(text, 1);
    struct EncodingTables own = {.model_type = CHARACTER};
    Tokenizer t = {
        .own = &own, .path = tmp, .escapes = text & 1, .dummy_space = text & 2};
    t.trim_spaces = text & 4;
    t.suffix = text & 8;
    if (in->n) memcpy(blob, in->p + 1, size);
    if (in->n) memcpy(s, in->p + 1 + size, text);
    load_map(&own.map, "map", (Part){blob, size});
    from_here("a map that loads maps");
    for (size_t i = 0; i < text; i++) {
        const char *to = "";
        const size_t n = map_longest(&own.map, s + i, text - i, &to);
        const size_t naive = naive_longest(&own.map, s + i, text - i);
        demand(n == naive, "a key of %zu bytes, not %zu", n, naive);
        demand(!n || to + strlen(to) < own.map.text + own.map.len,
               "a text behind the map");
    }
    Normalised x = normalise_text(&t, s, text);
    demand_utf8(x.text, x.n, "normalised text");
    free(x.text);
}

static void run_charsmap(Input in) { runs_through(use_map, &in); }

static void seeds_charsmap(const char *dir) {
    static uint8_t data[1 << 16];
    for (size_t i = 0; i < 12; i++) {
        die_key = i;
        save_seed(dir, i, data, mutate_charsmap(data, 0, 20000));
    }
}

/* ------------------------------------------------------------------------------------------
 * Tokenizers: a list of protobuf fields, the inner ones of pieces known. */
enum { MOST_FIELDS = 1024 };

typedef struct {
    const uint8_t *p; /* tag and all */
    size_t n;
} Field;

typedef struct {
    Field field[MOST_FIELDS];
    size_t n;
} Fields;

/* A varint at p (n): its length, 0 when it is broken. */
static size_t varint_at(const uint8_t *p, size_t n, uint64_t *x) {
    *x = 0;
    for (size_t i = 0; i < n && i < 10; i++) {
        *x |= (uint64_t)(p[i] & 127) << (7 * i);
        if (p[i] < 128) return i + 1;
    }
    return 0;
}

/* The fields up to the first that is broken. */
static void split_fields(Fields *f, const uint8_t *p, size_t n) {
    f->n = 0;
    while (n && f->n < MOST_FIELDS) {
        uint64_t tag, x;
        const size_t head_len = varint_at(p, n, &tag);
        const size_t more = head_len ? varint_at(p + head_len, n - head_len, &x) : 0;
        size_t len = head_len + more;
        if ((tag & 7) == BYTES && x < n) len += (size_t)x;
        if ((tag & 7) == FIXED32) len = head_len + 4;
        if ((tag & 7) == FIXED64) len = head_len + 8;
        if (!head_len || !len || len > n) return;
        f->field[f->n++] = (Field){p, len};
        p += len;
        n -= len;
    }
}

static size_t put_varint(uint8_t *out, uint64_t x) {
    size_t n = 0;
    while (x > 127) {
        out[n++] = (uint8_t)(x | 128);
        x >>= 7;
    }
    out[n++] = (uint8_t)x;
    return n;
}

static size_t put_bytes_field(uint8_t *out, uint64_t number, const void *p, size_t len) {
    size_t n = put_varint(out, FIELD(number, BYTES));
    n += put_varint(out + n, len);
    memcpy(out + n, p, len);
    return n + len;
}

static size_t put_number_field(uint8_t *out, uint64_t number, uint64_t x) {
    const size_t n = put_varint(out, FIELD(number, VARINT));
    return n + put_varint(out + n, x);
}

static const char *const letters[] = {"a",    "b",        "c",  "ab",      "bc",
                                      "abc",  SPACE,      "\n", "\xc3",    " ",
                                      "\xff", "\xc3\xa9", "0",  "\xe2\x96"};

static size_t odd_piece_text(char *out) {
    size_t n = 0;
    if (roll(12) == 0)
        return (size_t)sprintf(out, roll(3) ? "<0x%02zX>" : "<0x%2zx>", roll(256));
    if (roll(40) == 0) return (size_t)sprintf(out, "<s>");
    if (roll(60) == 0) return 0;
    for (size_t k = 1 + roll(3); k; k--) {
        const char *s = letters[roll(COUNT(letters))];
        memcpy(out + n, s, strlen(s) + 1);
        n += strlen(s);
    }
    if (roll(60) == 0) out[roll(n)] = 0;
    return n;
}

static size_t odd_piece(uint8_t *out) {
    static const float scores[] = {0, -1, -2.5f, -1e30f, 3e38f, INFINITY, NAN, 1};
    static const uint64_t types[] = {1, 1, 1, 1, 2, 3, 4, 5, 6, 6, 0, 7};
    uint8_t inner[256];
    char text[64];
    size_t n = put_bytes_field(inner, 1, text, odd_piece_text(text));
    const float score = roll(6) ? -(float)roll(9) : scores[roll(COUNT(scores))];
    inner[n++] = FIELD(2, FIXED32);
    memcpy(inner + n, &score, 4);
    n += 4;
    if (roll(3)) n += put_number_field(inner + n, 3, types[roll(COUNT(types))]);
    return put_bytes_field(out, 1, inner, n);
}

static size_t odd_spec(uint8_t *out) {
    static uint8_t inner[16384];
    size_t n = 0;
    if (roll(2)) {
        if (roll(2)) n += put_number_field(inner + n, 3, roll(6));
        if (roll(4) == 0) n += put_number_field(inner + n, 24, roll(2));
        if (roll(2)) n += put_number_field(inner + n, 35, roll(2));
        if (roll(4) == 0) n += put_bytes_field(inner + n, 44, " ?" SPACE, roll(6));
        if (roll(4) == 0) n += put_bytes_field(inner + n, 46, "ab<s>", roll(6));
        return put_bytes_field(out, 2, inner, n);
    }
    for (uint64_t k = 3; k < 6; k++)
        if (roll(2)) n += put_number_field(inner + n, k, roll(2));
    if (roll(4) == 0) {
        static uint8_t blob[12000];
        const size_t size = make_blob(blob, sizeof blob);
        if (roll(4) == 0) mutate_blob(blob, size);
        n += put_bytes_field(inner + n, 2, blob, size);
    }
    return put_bytes_field(out, 3, inner, n);
}

static size_t join_fields(const Fields *f, uint8_t *out, size_t most) {
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) {
        if (n + f->field[i].n > most) break;
        memcpy(out + n, f->field[i].p, f->field[i].n);
        n += f->field[i].n;
    }
    return n;
}

/* A model from nothing: unknown, control, some pieces, byte pieces perhaps. */
static size_t new_tokenizer(uint8_t *data, size_t most) {
    static Proto p;
    pb_start(&p, roll(2) == 0);
    for (size_t k = roll(12); k; k--) p.n += odd_piece(p.b + p.n);
    if (p.n > 2000) PB_BPE(&p);
    p.n += odd_spec(p.b + p.n);
    if (p.n > most) return 1;
    memcpy(data, p.b, p.n);
    return p.n;
}

static size_t mutate_tokenizer(uint8_t *data, size_t size, size_t most) {
    static uint8_t copy[1 << 16], made[1 << 15];
    static Fields f;
    const size_t kind = roll(20);
    if (kind == 0 || size > sizeof copy) return LLVMFuzzerMutate(data, size, most);
    if (kind == 1 || size < 4) return new_tokenizer(data, most);
    memcpy(copy, data, size);
    split_fields(&f, copy, size);
    if (!f.n || f.n >= MOST_FIELDS) return new_tokenizer(data, most);
    const size_t i = f.n > 250 && roll(2) ? f.n - 1 - roll(12) : roll(f.n), j = roll(f.n);
    const Field was = f.field[i];
    if (kind < 4) f.field[i].n = 0;
    else if (kind < 5) f.field[i] = f.field[j];
    else if (kind < 7) {
        f.field[i] = f.field[j];
        f.field[j] = was;
    } else if (kind < 10) f.field[i] = (Field){made, odd_piece(made)};
    else if (kind < 13) f.field[f.n++] = (Field){made, odd_piece(made)};
    else if (kind < 16) f.field[f.n++] = (Field){made, odd_spec(made)};
    else if (was.n > 2 && was.n < 8000) { /* inside, its length repaired */
        uint64_t tag, len;
        const size_t a = varint_at(was.p, was.n, &tag),
                     b = varint_at(was.p + a, was.n - a, &len);
        const size_t inner = was.n - a - b;
        static uint8_t room[16384];
        memcpy(room, was.p + a + b, inner);
        const size_t now_len = inner ? LLVMFuzzerMutate(room, inner, inner + 16) : 0;
        f.field[i] = (Field){made, put_bytes_field(made, tag >> 3, room, now_len)};
    }
    const size_t n = join_fields(&f, data, most);
    return n ? n : 1;
}

/* What the ids say, byte by byte, is the normalised text. */
static void demand_spelled(const Tokenizer *t, const int *id, size_t n,
                           const uint8_t *text, size_t len) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const Piece *x = &t->piece[id[i]];
        const uint8_t byte = (uint8_t)(x->type == PIECE_BYTE ? byte_of_piece(x) : 0);
        const uint8_t *s = x->type == PIECE_BYTE ? &byte : x->text;
        const size_t k = x->type == PIECE_BYTE ? 1 : (size_t)x->len;
        if (id[i] == t->unk) return; /* what it stands for is lost */
        /* A word, or a piece, may be called as a byte piece is: it becomes that, as in the
         * library. */
        const int twin = x->type == PIECE_BYTE && *find_piece(t, x->text, 6, 0) >= 0;
        if (twin || t->own->model_type == WORD) return;
        demand(at + k <= len && !memcmp(text + at, s, k),
               "id %zu of %zu, piece %d, is not what the text has at byte %zu", i, n,
               id[i], at);
        at += k;
    }
    demand(at == len, "%zu of %zu bytes are spelled", at, len);
}

/* decode(encode(s)) is s where the tokenizer gives every text back, but for U+2581. */
static void demand_back(const Tokenizer *t, const int *id, size_t n, const uint8_t *s,
                        size_t len) {
    size_t back, at = 0;
    char *out = tokenizer_decode(t, id, n, &back);
    for (size_t i = 0; i < len; i++) {
        const int space = starts_with_space(s + i, len - i);
        demand(at < back && (uint8_t)out[at] == (space ? ' ' : s[i]),
               "byte %zu of %zu does not come back", i, len);
        at++;
        i += space ? 2 : 0;
    }
    demand(at == back, "%zu bytes come back of %zu", back, at);
    free(out);
}

/* Spaces are a piece, not three byte pieces, which stay U+2581 as in the library. */
static int gives_back(const Tokenizer *t) {
    const int space = *find_piece(t, SPACE, 3, 0);
    return t->own->keeps_bytes && t->own->model_type == BPE && !t->own->user.slots &&
           space >= 0 && t->piece[space].type == PIECE_NORMAL;
}

static void encode_and_back(const Tokenizer *t, const uint8_t *s, size_t len) {
    size_t n, back;
    int *id = tokenizer_encode(t, (const char *)s, len, &n);
    for (size_t i = 0; i < n; i++)
        demand(id[i] >= 0 && id[i] < t->vocab, "id %d of %d", id[i], t->vocab);
    Normalised x = normalise_text(t, s, len);
    demand_spelled(t, id, n, x.text, x.n);
    free(x.text);
    const char *was = must;
    if (gives_back(t)) demand_back(t, id, n, s, len);
    free(tokenizer_decode(t, id, n, &back));
    must = was;
    free(id);
}

/* Encoding may be refused: control pieces that a text spells, for one. */
static void use_tokenizer_file(void *arg) {
    const Tokenizer *t = tokenizer_load(arg);
    const int vocab = MIN(t->vocab, 600);
    int *all = xcalloc((size_t)vocab, sizeof *all);
    size_t n;
    demand(t->vocab >= 1 && t->unk >= 0 && t->bos < t->vocab, "a model without pieces");
    from_here("a model that loads decodes");
    for (int i = 0; i < vocab; i++) {
        const Piece *x = &t->piece[i];
        char name[16];
        all[i] = i;
        demand(x->text >= t->file && x->text + x->len <= t->file + t->size, "piece %d",
               i);
        demand(tokenizer_bytes(t, MAX(i - 1, 0), i) >= 0, "piece %d has %d bytes", i,
               tokenizer_bytes(t, MAX(i - 1, 0), i));
        if (x->type != PIECE_BYTE) continue;
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte_of_piece(x));
        demand(x->len == 6 && !memcmp(x->text, name, 6), "byte piece %d is called '%.*s'",
               i, x->len, (const char *)x->text);
    }
    char *text = tokenizer_decode(t, all, (size_t)vocab, &n);
    must = NULL;
    encode_and_back(t, (const uint8_t *)text, n);
    encode_and_back(t, (const uint8_t *)"ab  abc\xc3\xa9\xff a\n<0x41>", 19);
    for (int i = MAX(0, vocab - 8); i < vocab; i++)
        encode_and_back(t, t->piece[i].text, (size_t)t->piece[i].len);
}

static void run_tokenizer(Input in) {
    put_file(IN("fuzzed.model"), in.p, in.n);
    runs_through(use_tokenizer_file,
                 strcpy(fuzz_text + sizeof fuzz_text / 2, IN("fuzzed.model")));
}

static void seeds_tokenizer(const char *dir) {
    static uint8_t data[1 << 16];
    for (size_t i = 0; i < 16; i++) {
        die_key = i;
        save_seed(dir, i, data, new_tokenizer(data, sizeof data));
    }
}

/* ------------------------------------------------------------------------------------------
 * text: with models of every kind that were made here */
static const Tokenizer *tokenizer[16];
static int n_tokenizers;

static void write_text_model(const char *path, int type, int flags, uint64_t key) {
    static Proto p;
    static const char *const texts[] = {
        "a",       "b",  "c",        "ab",       "bc",          "abc",      SPACE,
        SPACE "a", "cc", "\xc3\xa9", "\xce\xb1", "a" SPACE "b", SPACE SPACE};
    const int bytes = flags & 1;
    uint8_t spec[8];
    size_t n = 0;
    pb_start(&p, bytes);
    for (size_t i = 0; i < COUNT(texts); i++) {
        const int kind = flags & 2 && i % 5 == 3 ? PIECE_USER : PIECE_NORMAL;
        if (type == BPE && i == 10 && flags & 2) pb_piece(&p, texts[i], -5, PIECE_UNUSED);
        else pb_piece(&p, texts[i], -(float)i, kind);
    }
    n += put_number_field(spec + n, 3, (uint64_t)type);
    n += put_number_field(spec + n, 35, (uint64_t)bytes);
    if (flags & 16)
        n = put_number_field(spec, 3, (uint64_t)type),
        n += put_number_field(spec + n, 24, 1);
    p.n += put_bytes_field(p.b + p.n, 2, spec, n);
    static uint8_t inner[16384];
    n = 0;
    n += put_number_field(inner + n, 3, (flags & 4) != 0);
    n += put_number_field(inner + n, 4, (flags & 8) != 0);
    die_key = key;
    if (flags & 32) {
        static uint8_t blob[12000];
        const size_t size = make_blob(blob, sizeof blob);
        n += put_bytes_field(inner + n, 2, blob, size);
    }
    if (flags & 64) n += put_number_field(inner + n, 5, 0);
    p.n += put_bytes_field(p.b + p.n, 3, inner, n);
    put_file(path, p.b, p.n);
}

static void make_tokenizers(void) {
    static const struct {
        int type, flags;
    } kinds[] = {{BPE, 1},
                 {BPE, 2 | 4 | 8},
                 {BPE, 1 | 2 | 32},
                 {UNIGRAM, 1},
                 {UNIGRAM, 2 | 4 | 8 | 32},
                 {UNIGRAM, 16 | 4},
                 {WORD, 4 | 8},
                 {WORD, 1},
                 {CHARACTER, 2 | 4},
                 {CHARACTER, 1 | 64},
                 {BPE, 4 | 8 | 64},
                 {BPE, 16 | 4 | 8}};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        write_text_model(IN("text.model"), kinds[i].type, kinds[i].flags, i);
        tokenizer[i] = tokenizer_load(IN("text.model"));
        n_tokenizers++;
    }
}

static void use_text(void *arg) {
    const Input *in = arg;
    if (!in->n) return;
    const Tokenizer *t = tokenizer[*in->p % n_tokenizers];
    uint8_t *s = xcalloc(in->n - 1, 1);
    memcpy(s, in->p + 1, in->n - 1);
    from_here("any text is encoded"); /* no piece here is refused, but a control piece */
    if (memchr(s, '<', in->n - 1)) must = NULL;
    encode_and_back(t, s, in->n - 1);
    /* the bytes as ids */
    int *id = xcalloc(in->n, sizeof *id);
    size_t n;
    for (size_t i = 0; i < in->n - 1; i++) id[i] = s[i] % t->vocab;
    char *out = tokenizer_decode(t, id, in->n - 1, &n);
    must = NULL;
    encode_and_back(t, (uint8_t *)out, n);
    for (size_t i = 0; i < in->n - 1; i++) id[i] = s[i] - 1; /* some outside */
    tokenizer_decode(t, id, in->n - 1, &n);
}

static void run_text(Input in) { runs_through(use_text, &in); }

static void seeds_text(const char *dir) {
    static const char *const texts[] = {"",
                                        " ",
                                        "abc ab  cc\xc3\xa9 \xce\xb1\n",
                                        "\xff\xfe" SPACE "a\xe2\x96",
                                        "aaaaabbbbbccccc abcabcabc",
                                        "<s>",
                                        "z\tq e\xcc\x81 abcd"};
    char data[64];
    size_t i = 0;
    for (int k = 0; k < n_tokenizers; k++)
        for (size_t j = 0; j < COUNT(texts); j++) {
            const int n = sprintf(data, "%c%s", k, texts[j]);
            save_seed(dir, i++, (uint8_t *)data, k || j ? (size_t)n : 0);
        }
}

static size_t mutate_text(uint8_t *data, size_t size, size_t most) {
    if (roll(3) || size + 8 > most) return LLVMFuzzerMutate(data, size, most);
    const char *s =
        roll(2) ? letters[roll(COUNT(letters))] : pairs[roll(COUNT(pairs))].from;
    const size_t n = strlen(s), at = size ? 1 + roll(size) : 0;
    if (!size) return LLVMFuzzerMutate(data, size, most);
    memmove(data + at + n, data + at, size - at);
    memcpy(data + at, s, n);
    return size + n;
}

/* ------------------------------------------------------------------------------------------
 * shards: files of a folder, each: its name (one byte), its bytes' number (two), these. Of a
 * name's byte the highest bit asks for a right header. A header's 12 bytes stand for all of it. */
static const char *const shard_names[] = {
    "x_train_000000.bin", "x_train_000001.bin",       "x_val_000000.bin", "x_val.bin",
    "y_train_000000.bin", "x_val_bytes_000000.bin",   "train_1.bin",      "x_train_.bin",
    "x_val_bytes.bin",    "x_train_bytes_000000.bin", "x_val_000001.bin", "notes.txt"};

static void write_fuzzed_shard(uint8_t name, const uint8_t *p, size_t n) {
    static uint8_t file[SHARD_HEADER + (1 << 16)];
    const size_t head_len = MIN(n, 12), tail = n - head_len;
    memset(file, 0, SHARD_HEADER);
    memcpy(file, p, head_len);
    memcpy(file + SHARD_HEADER, p + head_len, tail);
    if (name & 128) {
        put_u(file, SHARD_MAGIC, 4);
        put_u(file + 4, 1, 4);
        put_u(file + 8, tail / 2, 4);
    }
    const size_t size = n < 12 ? n : SHARD_HEADER + (name & 128 ? tail / 2 * 2 : tail);
    put_file(path_of(IN("shards"), shard_names[name % 128 % COUNT(shard_names)]), file,
             size);
}

static void unpack_shards(Input in) {
    for (size_t i = 0; i < COUNT(shard_names); i++)
        unlink(path_of(IN("shards"), shard_names[i]));
    while (in.n > 3) {
        const size_t n = MIN(get_u(in.p + 1, 2), in.n - 3);
        write_fuzzed_shard(*in.p, in.p + 3, n);
        in.p += 3 + n;
        in.n -= 3 + n;
    }
}

/* The tokens as a naive reader finds them in the files. */
static void demand_tokens(const Shards *s) {
    int *all = xcalloc((size_t)s->tokens, sizeof *all);
    shards_read(s, 0, (int)s->tokens, all);
    size_t k = 0, n;
    for (int i = 0; i < s->count; i++) {
        uint8_t *file = read_file(s->shard[i].path, &n);
        demand(n >= SHARD_HEADER && s->shard[i].first == (int64_t)k, "a cut shard");
        for (size_t at = SHARD_HEADER; at < n; at += 2, k++)
            demand(all[k] == (int)get_u(file + at, 2) && all[k] < s->vocab, "token %zu",
                   k);
        free(file);
    }
    demand((int64_t)k == s->tokens, "%zu tokens of %lld", k, (long long)s->tokens);
    free(all);
}

static void use_shards(void *arg) {
    const Input *in = arg;
    const char *split = in->n & 1 ? "val" : "train";
    const Tokenizer *t = tokenizer[in->n % n_tokenizers];
    Shards *s = shards_open(IN("shards"), split, t->vocab);
    int row[32];
    demand(s->count > 0 && s->tokens >= 0, "no shards");
    demand_tokens(s);
    for (int64_t r = 0; r < 8; r++) {
        if (s->tokens < 6) break;
        from_here("rows are there");
        shards_train_row(s, 3, r * 7, 5, r & 1, row);
        must = NULL;
    }
    if (s->bytes) demand_tokens(s->bytes);
    if (s->bytes && s->tokens > 1) given_bytes(s->bytes, s->tokens - 1);
    if (s->tokens < 6) shards_train_row(s, 3, 0, in->n % 3 ? 8 : 0, 1, row);
    check_text_bytes(t, s);
    shards_read(s, s->tokens - 1, 3, row); /* behind the end */
    fault("three tokens where one is left");
}

static void run_shards(Input in) {
    unpack_shards(in);
    runs_through(use_shards, &in);
}

static size_t put_shard(uint8_t *out, uint8_t name, const uint16_t *tokens, size_t n) {
    memset(out, 0, 15);
    out[0] = name;
    put_u(out + 1, 12 + 2 * n, 2);
    for (size_t i = 0; i < n; i++) put_u(out + 15 + 2 * i, tokens[i], 2);
    return 15 + 2 * n;
}

static void seeds_shards(const char *dir) {
    static uint8_t data[4096];
    uint16_t tokens[40];
    for (size_t i = 0; i < 40; i++) {
        size_t n = 0;
        die_key = i;
        for (size_t k = 0; k < 40; k++)
            tokens[k] = (uint16_t)(roll(30) ? 4 + roll(i % 3 ? 12 : 250) : roll(400));
        n += put_shard(data + n, 128 | 0, tokens, 12);
        n += put_shard(data + n, 128 | (i % 4 ? 1 : 4), tokens + 5, 9);
        n += put_shard(data + n, (uint8_t)(128 | (i % 5 ? 2 : 3)), tokens, 20);
        if (i % 3 == 0) n += put_shard(data + n, 128 | 5, tokens + 20, 20);
        for (size_t k = 0; k < 20; k++) tokens[k] = (uint16_t)(i % 2);
        if (i % 6 == 1) n += put_shard(data + n, 128 | 5, tokens, 20);
        if (i % 7 == 0) data[n++] = 0; /* another parity: another split */
        save_seed(dir, i, data, n);
    }
}

static size_t mutate_shards(uint8_t *data, size_t size, size_t most) {
    const size_t kind = roll(4);
    if (kind || size < 20 || size + 40 > most) {
        size = LLVMFuzzerMutate(data, size, most);
    } else if (roll(2)) {
        const uint16_t some[] = {4, 5, 260, 261, (uint16_t)odd_number(), 3, 0, 7};
        size += put_shard(data + size, (uint8_t)(128 | roll(12)), some, 1 + roll(8));
    } else {
        const size_t at = roll(size - 16);
        put_u(data + at + 3, roll(2) ? SHARD_MAGIC : LLAMA3_MAGIC, 4);
        put_u(data + at + 7, 1, 4);
    }
    return size;
}

/* ------------------------------------------------------------------------------------------
 * options: the first byte says whether as words of a command, or as lines of a file */
static void demand_same_options(const Config *a, const Config *b, int mask) {
    char x[64], y[64];
    EACH_OPTION(o) {
        if (!(o->mask & mask)) continue;
        demand(!strcmp(option_text(a, o, x), option_text(b, o, y)),
               "--%s=%s, written and read: %s", o->name, option_text(a, o, x),
               option_text(b, o, y));
    }
}

/* What was accepted prints, and what is printed is accepted, and the same. */
static void demand_prints(const Config *c, int mask) {
    char text[CONFIG_TEXT], again[CONFIG_TEXT], value[64];
    Config back;
    const size_t len = config_text(c, mask, text);
    config_parse(&back, "printed", text, len, mask);
    demand_same_options(c, &back, mask);
    demand(config_text(&back, mask, again) == len && !strcmp(text, again),
           "printed twice, other text");
    back = *c;
    EACH_OPTION(o) {
        demand(option_set(&back, o, option_text(c, o, value)), "--%s=%s is refused again",
               o->name, option_text(c, o, value));
    }
    demand_same_options(c, &back, ~0);
}

static void use_options(void *arg) {
    const Input *in = arg;
    static const int masks[] = {MODEL | TRAIN, MODEL | TRAIN, EVAL,  SAMPLE,
                                INFO,          TEXT,          EXPORT};
    if (!in->n) return;
    char *text = xcalloc(in->n, 1);
    memcpy(text, in->p + 1, in->n - 1);
    const int kind = *in->p % 10;
    Config c;
    if (kind >= 7) {
        const int mask = kind == 7 ? MODEL | TRAIN : MODEL;
        config_parse(&c, "lines", text, in->n - 1, mask);
        from_here("what was read is written");
        demand_prints(&c, mask);
        must = NULL;
        if (kind == 7) config_check(&c);
        else model_check(&c);
        from_here("a model that may be has a size");
        artifact_bytes(&c);
        return;
    }
    char *argv[64], *save;
    int argc = 0;
    for (char *w = strtok_r(text, " \n", &save); w && argc < 64;
         w = strtok_r(NULL, " \n", &save))
        argv[argc++] = w;
    const char *preset = parse_options(&c, argc, argv, masks[kind]);
    from_here("what was asked for is written");
    demand_prints(&c, MODEL | TRAIN);
    must = NULL;
    check_meanings(&c, preset);
    config_check(&c);
    from_here("a model that may be has a size");
    artifact_bytes(&c);
}

static void run_options(Input in) { runs_through(use_options, &in); }

static size_t mutate_options(uint8_t *data, size_t size, size_t most) {
    static char text[CONFIG_TEXT];
    const size_t kind = roll(8);
    char value[64];
    if (kind < 2 || size < 2 || size > 6000) return LLVMFuzzerMutate(data, size, most);
    if (*data % 10 >= 7) {
        memcpy(text, data + 1, size - 1);
        const size_t n =
            mutate_config(text, size - 1, *data % 10 == 7 ? MODEL | TRAIN : MODEL);
        if (n + 1 > most) return size;
        memcpy(data + 1, text, n);
        return n + 1;
    }
    if (size + 128 > most) return LLVMFuzzerMutate(data, size, most);
    const Option *o = odd_option(~0);
    odd_value(o, value);
    size_t at = 1 + roll(size);
    while (at < size && data[at] != '\n') at++;
    const int n = sprintf(text, "\n--%s=%s%s", o->name, value, at < size ? "" : "\n");
    memmove(data + at + n, data + at, size - at);
    memcpy(data + at, text, (size_t)n);
    if (kind == 2) *data = (uint8_t)roll(10);
    return size + (size_t)n;
}

static void seeds_options(const char *dir) {
    static uint8_t data[CONFIG_TEXT];
    size_t i = 0;
    for (size_t a = 0; a < COUNT(arms); a++)
        for (int kind = 0; kind < 3; kind++) {
            char line[512];
            snprintf(line, sizeof line, SMALLEST "%s", arms[a]);
            Parsed x = {.text = line};
            if (!runs_through(options_of_words, &x)) continue;
            size_t n = 1;
            data[0] = (uint8_t)(kind ? 6 + kind : 0);
            if (kind)
                n += config_text(&x.config, kind == 1 ? MODEL | TRAIN : MODEL,
                                 (char *)data + 1);
            else
                for (const char *w = line + 9; *w;
                     w += strcspn(w, " ") + (strchr(w, ' ') != NULL))
                    n += (size_t)sprintf((char *)data + n, "--%.*s\n",
                                         (int)strcspn(w, " "), w);
            save_seed(dir, i++, data, n);
        }
    for (size_t k = 0; k < COUNT(presets); k++)
        save_seed(dir, i++, data,
                  (size_t)sprintf((char *)data, "%c--preset=%s\n", 1, presets[k].name));
}

/* ------------------------------------------------------------------------------------------
 * safetensors: what export writes of a model that loads, by the rules of the format. The
 * numbers are those of the model, the header a JSON object. */
typedef struct {
    const char *p, *end;
} Json;

static int json_next(Json *j) { /* behind white space */
    while (j->p < j->end && strchr(" \n\r\t", *j->p)) j->p++;
    return j->p < j->end ? *j->p : 0;
}

static void json_expect(Json *j, int c) {
    demand(json_next(j) == c, "JSON: expected '%c' at '%.20s'", c, j->p);
    j->p++;
}

/* A string, as it is written; n: its length. */
static const char *json_string(Json *j, size_t *n) {
    json_expect(j, '"');
    const char *from = j->p;
    while (j->p < j->end && *j->p != '"') {
        demand((uint8_t)*j->p >= 32, "JSON: a control character in a string");
        if (*j->p == '\\') {
            j->p++;
            demand(*j->p && strchr("\"\\/bfnrtu", *j->p), "JSON: \\%c", *j->p);
        }
        j->p++;
    }
    *n = (size_t)(j->p - from);
    json_expect(j, '"');
    return from;
}

static size_t json_number(Json *j) {
    char *end;
    json_next(j);
    demand(isdigit((unsigned char)*j->p), "JSON: no number at '%.20s'", j->p);
    const size_t x = strtoull(j->p, &end, 10);
    j->p = end;
    return x;
}

/* A tensor's entry; *at moves behind its numbers. */
static void check_entry(Json *j, size_t *at) {
    size_t n, count = 1, size = 0;
    json_expect(j, '{');
    demand(!strncmp(json_string(j, &n), "dtype", n) && n == 5, "dtype");
    json_expect(j, ':');
    const char *dtype = json_string(j, &n);
    if (n == 3 && !strncmp(dtype, "F32", 3)) size = 4;
    if (n == 4 && !strncmp(dtype, "BF16", 4)) size = 2;
    demand(size, "a dtype of %zu letters", n);
    json_expect(j, ',');
    demand(!strncmp(json_string(j, &n), "shape", n) && n == 5, "shape");
    json_expect(j, ':');
    json_expect(j, '[');
    while (json_next(j) != ']') {
        count *= json_number(j);
        if (json_next(j) == ',') j->p++;
    }
    json_expect(j, ']');
    json_expect(j, ',');
    demand(!strncmp(json_string(j, &n), "data_offsets", n) && n == 12, "data_offsets");
    json_expect(j, ':');
    json_expect(j, '[');
    demand(json_number(j) == *at, "numbers start elsewhere than at %zu", *at);
    json_expect(j, ',');
    demand(json_number(j) == *at + size * count, "%zu numbers end elsewhere", count);
    *at += size * count;
    json_expect(j, ']');
    json_expect(j, '}');
}

static void check_rules(const char *path) {
    size_t size, at = 0, names = 0, n;
    uint8_t *file = read_file(path, &size);
    const char *name[1024];
    demand(size >= 8, "under 8 bytes");
    const size_t len = get_u(file, 8);
    demand(len % 8 == 0 && len <= size - 8, "a header of %zu bytes in %zu", len, size);
    Json j = {(char *)file + 8, (char *)file + 8 + len};
    demand_utf8(file + 8, len, "the header");
    json_expect(&j, '{');
    while (json_next(&j) != '}') {
        const char *s = json_string(&j, &n);
        demand(names < COUNT(name), "over %zu names", names);
        for (size_t i = 0; i < names; i++)
            demand(strncmp(name[i], s, n + 1), "'%.*s' is there twice", (int)n, s);
        name[names++] = s;
        json_expect(&j, ':');
        if (n == 12 && !strncmp(s, "__metadata__", n)) {
            json_expect(&j, '{');
            while (json_next(&j) != '}') {
                json_string(&j, &n);
                json_expect(&j, ':');
                json_string(&j, &n);
                if (json_next(&j) == ',') j.p++;
            }
            json_expect(&j, '}');
        } else check_entry(&j, &at);
        if (json_next(&j) == ',') j.p++;
    }
    json_expect(&j, '}');
    demand(!json_next(&j) && 8 + len + at == size, "%zu bytes of numbers in %zu", at,
           size);
    free(file);
}

static int vocab_of_file; /* of a.model, which is made anew for another */

/* A tokenizer of as many pieces as the model has, and its checksum in the model. */
static int give_tokenizer(uint8_t *data, size_t size) {
    static uint8_t file[1 << 16];
    static Parts a;
    char config[CONFIG_TEXT], text[16];
    if (!take_apart(&a, data, size)) return 0;
    snprintf(config, sizeof config, "%.*s", (int)a.len, a.config);
    const char *line = strstr(config, "vocab=");
    const int vocab = line ? atoi(line + 6) : 0;
    for (size_t i = 0; i < a.parts; i++) free(a.payload[i]);
    if (vocab < 1 || vocab > 2000) return 0;
    size_t n = 0;
    for (int i = 0; i < vocab; i++) {
        uint8_t inner[64];
        size_t k = put_bytes_field(inner, 1, text, (size_t)sprintf(text, "%d", i));
        if (!i) k += put_number_field(inner + k, 3, PIECE_UNKNOWN);
        n += put_bytes_field(file + n, 1, inner, k);
    }
    if (vocab != vocab_of_file) put_file(IN("tokenizer.model"), file, n);
    vocab_of_file = vocab;
    uint8_t *row = data + ARTIFACT_FIXED + a.len + 8 * a.parts;
    const int right = get_u(row, 4) == crc32_of(0, data, (size_t)(row - data));
    put_u(data + 16, crc32_of(0, file, n), 4);
    if (right) put_u(row, crc32_of(0, data, (size_t)(row - data)), 4);
    return 1;
}

static void export_file(void *arg) {
    char to[600], *argv[] = {to, "--overwrite=1", arg};
    Golf m;
    size_t n;
    snprintf(to, sizeof to, "--to=%s", IN("a.safetensors"));
    golf_load(&m, IN("a.golf"));
    from_here("a model that loads is exported");
    const size_t numbers = m.n_params;
    golf_free(&m);
    export_main(IN("a.golf"), 3, argv);
    check_rules(IN("a.safetensors"));
    uint8_t *file = read_file(IN("a.safetensors"), &n);
    const size_t each = strstr(arg, "bf16") ? 2 : 4;
    demand(n == 8 + get_u(file, 8) + each * numbers, "%zu numbers in %zu bytes", numbers,
           n);
    for (size_t at = 8 + get_u(file, 8); at < n; at += each) {
        const uint32_t bits = (uint32_t)get_u(file + at, (int)each)
                              << (each == 2 ? 16 : 0);
        demand((bits & 0x7F800000) != 0x7F800000, "a number that is none");
    }
}

static void run_safetensors(Input in) {
    static char how[2][32] = {"--dtype=float32", "--dtype=bf16"};
    uint8_t *copy = xcalloc(in.n, 1);
    memcpy(copy, in.p, in.n);
    if (give_tokenizer(copy, in.n)) {
        put_file(IN("a.golf"), copy, in.n);
        runs_through(export_file, how[in.n & 1]);
    }
    free(copy);
}

/* ------------------------------------------------------------------------------------------ */
typedef struct {
    const char *name;
    void (*run)(Input in);
    size_t (*mutate)(uint8_t *data, size_t size, size_t most);
    void (*seeds)(const char *dir);
} Target;

static const Target targets[] = {
    {"artifact", run_artifact, mutate_artifact, seeds_artifact},
    {"checkpoint", run_checkpoint, mutate_checkpoint, seeds_checkpoint},
    {"tokenizer", run_tokenizer, mutate_tokenizer, seeds_tokenizer},
    {"charsmap", run_charsmap, mutate_charsmap, seeds_charsmap},
    {"text", run_text, mutate_text, seeds_text},
    {"shards", run_shards, mutate_shards, seeds_shards},
    {"options", run_options, mutate_options, seeds_options},
    {"safetensors", run_safetensors, mutate_artifact, seeds_artifact}};
static const Target *fuzz_target;

/* Memory that threads keep is made before the first input: see fuzz_free. */
static void fill_rooms(void) {
    static const char *const kinds[] = {"wq=ternary bwd=int16 optimizer=muon",
                                        "wq=none aq=none embed_bits=16",
                                        "wq=int8 vocab=1100"};
    scratch(1 << 20);
    codes_room(4096);
    for (size_t i = 0; i < COUNT(kinds); i++) {
        Golf m;
        char text[128];
        snprintf(text, sizeof text, "vocab=60 width=16 heads=2 seq=8 batch=1 %s",
                 kinds[i]);
        new_model(&m, text, 8);
        run_steps(&m, 0, 1);
        golf_free(&m);
    }
}

static void choose_target(void) {
    const char *name = getenv("GOLF_FUZZ");
    for (size_t i = 0; i < COUNT(targets); i++)
        if (name && !strcmp(name, targets[i].name)) fuzz_target = targets + i;
    if (fuzz_target) return;
    fputs("GOLF_FUZZ=", stdout);
    for (size_t i = 0; i < COUNT(targets); i++)
        printf("%s%s", i ? "|" : "", targets[i].name);
    puts(": name one");
    _exit(2);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_said = fmemopen(fuzz_text, sizeof fuzz_text / 2, "w");
    choose_target();
    LEAKS(disable);
    start_tests();
    make_tokenizers();
    mkdir(IN("shards"), 0777);
    write_hand_model(IN("tokenizer.model"));
    fill_rooms();
    for (int i = 1; i < *argc; i++) {
        if (strncmp((*argv)[i], "-seeds=", 7)) continue;
        fuzz_target->seeds((*argv)[i] + 7);
        remove_tree(tmp);
        _exit(0);
    }
    LEAKS(enable);
    if (!freopen("/dev/null", "w", stdout)) _exit(2);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_target->run((Input){data, size});
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    die_key = seed;
    die_count = 0;
    return fuzz_target->mutate(data, size, most);
}
