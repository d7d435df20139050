/* options.c - every option that the program accepts does something.
 *
 * For each model of a list (every word of every option, every system as its gradient
 * tests have it) and each option: either moving the option away from its value there
 * changes what comes out (bytes, stored weights, a loss, the weights after some steps,
 * or the like), or the program refuses it. What it refuses as meaningless must
 * in truth change nothing. Options that never do anything there, since they act on files
 * and reports, are tried with the commands. `excused` has the exceptions and why. */
#include <setjmp.h>
#include <stdlib.h>

static _Noreturn void leave(int status);
#define exit(status) \
    leave(status) /* golf_die comes back here: no process for each refusal */
#include "check.h"
#undef exit

#define TESTS
#include "../systems/systems.h"
#undef TESTS

static const SystemTests *const systems[] = {
#define X(name) &name##_tests,
#define LIST
#include "../systems/systems.h"
#undef LIST
#undef X
    NULL};

static jmp_buf refused_at;
static int may_return;

static _Noreturn void leave(int status) {
    if (may_return) longjmp(refused_at, 1);
    exit(status);
}

/* Does some projection have the scales that --wscale says? */
static int scales_as_said(const Config *c) {
    Golf m;
    golf_layout(&m, c);
    if (c->wscale == SCALE_AUTO) return 1;
    for (const Tensor *t = m.tensor + T_wqkv; t <= m.tensor + T_wdown; t++) {
        const size_t rows = c->wscale == SCALE_TENSOR ? 1 : (size_t)t->rows;
        if (is_stored(t) && t->bits < 16 && t->copy_scales == rows) return 1;
    }
    return 0;
}

/* Is there a mask without --ste? */
static int masked_anyway(const Config *c) {
    const Config plain_ste = with_option(c, "ste", "auto");
    Golf m;
    golf_layout(&m, &plain_ste);
    for (const Tensor *t = m.tensor + T_wqkv; t <= m.tensor + T_wdown; t++) {
        const int masked = t->passes || m.inputs[t - m.tensor]->has_mask;
        if (t->n && masked) return 1;
    }
    return 0;
}

static int is_packed(const Config *c) { return c->fit == FIT_PACKED; }

/* Are there no finer codes than these? */
static int has_finest_codes(const Config *c) { return c->embed_bits == 8; }

static const struct {
    const char *option, *value;     /* NULL: whatever the value */
    int (*really)(const Config *c); /* NULL: in any model */
    const char *why;
} excused[] = {
    {"mlp", NULL, NULL, "part of a recipe; --hidden, --expert_size say instead of it"},
    {"wscale", NULL, scales_as_said, "the word for what auto chooses"},
    {"ste", "identity", NULL, "the word for what auto chooses"},
    {"ste", "trust", masked_anyway, "the word for what auto chooses"},
    {"ste", "clip", masked_anyway, "masks hardly more than trust: models are small here"},
    {"xgain", "none", NULL, "no gains of norms that are not there"},
    {"recompute", NULL, NULL, "time for memory"},
    {"cap", NULL, is_packed, "a limit: commands: train"},
    {"fit", "coded", has_finest_codes, "the cap leaves room, and nothing can take it"},
    {"kv_heads", "1", NULL, "as many as heads"},
    {"qgain", "scalar", NULL, "one head has one gain"},
    {"unet", "1", NULL, "one phase has no skip, but its bytes"},
    {"hi_route", "token", NULL, "nothing to choose from, but bytes"},
    {"fips_steps", NULL, NULL, "calibration begins with a donor: commands: donor"},
    {"ckpt_every", NULL, NULL, "an interrupted run alone shows it"},
};

static int is_excused(const Option *o, const char *value, const Config *c) {
    for (size_t i = 0; i < COUNT(excused); i++) {
        if (strcmp(excused[i].option, o->name)) continue;
        if (excused[i].value && strcmp(excused[i].value, value)) continue;
        if (!excused[i].really || excused[i].really(c)) return 1;
    }
    return 0;
}

/* ---- Models. */
#define SMALL "width=8 heads=2 mlp=2 seq=8 batch=1 steps=3 unique=1 repeat=2 "

typedef struct {
    char text[256];                   /* options */
    void (*ready)(Golf *m, size_t N); /* what a system does to such a model first */
    Config config;
} Parent;

static Config plain; /* nothing asked */

/* Is this a model that the program trains? name: NULL, or what it finds meaningless. */
static int accepts(const Config *c, const char **name) {
    const char *why;
    *name = NULL;
    may_return = 1;
    if (setjmp(refused_at)) {
        may_return = 0;
        return 0;
    }
    config_check(c);
    *name = meaningless(c, &plain, &why);
    may_return = 0;
    return !*name;
}

static int read_options(Config *c, const char *text) {
    char copy[1024], *save;
    config_defaults(c);
    snprintf(copy, sizeof copy, "vocab=11 %s%s", SMALL, text);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        char *value = strchr(w, '=');
        *value++ = 0;
        const Option *o = option_named(w);
        if (!o || !option_set(c, o, value)) return 0;
    }
    return 1;
}

static Parent parents[1024];
static int n_parents;

static int add_parent(const char *text, void (*ready)(Golf *, size_t)) {
    Parent *p = parents + n_parents;
    const char *name;
    snprintf(p->text, sizeof p->text, "%s", text);
    p->ready = ready;
    if (!read_options(&p->config, text) || !accepts(&p->config, &name)) return 0;
    n_parents++;
    if (n_parents == COUNT(parents)) die("too many models");
    return 1;
}

/* ---- Values to try: every word, some numbers of each span. */
enum { VALUES = 48 };
typedef struct {
    char text[VALUES][64];
    int count;
} Values;

static void add_value(Values *v, const char *text, int len) {
    if (v->count == VALUES) die("too many values");
    snprintf(v->text[v->count++], 64, "%.*s", len, text);
}

static void add_number(Values *v, const Option *o, double x) {
    char text[64];
    const int small = x <= 64 || !(o->mask & MODEL); /* models stay small */
    if (in_range(o, x) && small)
        add_value(v, number_text(o->type == TYPE_INT ? rint(x) : x, text), 63);
}

static Values values_to_try(const Option *o, const Config *at) {
    Values v = {.count = 0};
    char range[256];
    if (o->type == TYPE_STR) return v;
    for (const char *r = range_text(o, range); *r; r = next_item(r)) {
        double lo, hi;
        if (isalpha((unsigned char)*r)) add_value(&v, r, (int)strcspn(r, "|"));
        else if (sscanf(r, "%lf to %lf", &lo, &hi) == 2) {
            const void *field = (const char *)at + o->at;
            const double now_at =
                o->type == TYPE_INT ? *(const int *)field : *(const double *)field;
            add_number(&v, o, 2 * now_at);
            if (o->type == TYPE_NUM) add_number(&v, o, now_at / 64);
            if (now_at != lo && 2 * now_at != lo) add_number(&v, o, lo);
            add_number(&v, o, lo + (hi - lo) / 2);
            add_number(&v, o, lo + 1);
            add_number(&v, o, lo + 2);
        } else add_number(&v, o, lo);
    }
    return v;
}

/* ---- What comes out of a model, in stages that cost more and more. */
enum { SIZE, START, STEPS, STAGES };
typedef struct {
    int known;
    uint64_t of[STAGES];
} Outcome;

static uint64_t hash_of(uint64_t key, const void *data, size_t n) {
    return hash64(key, crc32_of(0, data, n));
}

static uint64_t bytes_outcome(const Config *c) {
    Golf m;
    uint64_t h = 0;
    golf_layout(&m, c);
    EACH_TENSOR(t, &m) {
        if (is_stored(t)) h = hash64(h, (uint64_t)(t - m.tensor) << 40 | t->bytes);
    }
    return h;
}

/* The loss of the model in the file. */
static double file_loss(const Golf *m, const int *x, const int *y) {
    const Config *c = &m->config;
    Golf b;
    golf_init(&b, c, 0);
    memcpy(b.code, m->code, m->n_params);
    memcpy(b.scale, m->scale, m->n_scales * sizeof(real));
    golf_use(&b);
    golf_buffers(&b, m->N);
    const double loss = golf_forward(&b, x, y, c->batch, c->seq);
    golf_free(&b);
    return loss;
}

/* Up to this stage. */
static Outcome outcome_of(const Config *c, const Parent *p, int stage) {
    Outcome o = {.known = 1, .of = {[SIZE] = bytes_outcome(c)}};
    const size_t N = (size_t)c->batch * (size_t)c->seq;
    int *x = tokens_below(c->vocab, N, 21), *y = tokens_below(c->vocab, N, 22);
    double norm, loss[2];
    Golf m;
    golf_init(&m, c, 1);
    golf_buffers(&m, N);
    if (p->ready) p->ready(&m, N);
    golf_quantize(&m);
    loss[0] = golf_forward(&m, x, y, c->batch, c->seq);
    loss[1] = file_loss(&m, x, y);
    o.of[START] =
        hash_of(hash_of(0, m.eff, m.n_params * sizeof(real)), loss, sizeof loss);
    for (int step = 0; step < c->steps && stage == STEPS; step++) {
        loss[0] = golf_step(&m, x, y, step, &norm);
        o.of[STEPS] = hash_of(o.of[STEPS], loss, sizeof loss);
    }
    o.of[STEPS] = hash_of(o.of[STEPS], m.master, m.n_params * sizeof(real));
    golf_free(&m);
    free(x);
    free(y);
    return o;
}

/* The outcome of the parent is computed once, when it is needed. */
static int changes(const Config *c, const Parent *p, Outcome *before, int of_model) {
    if (!before->known) *before = outcome_of(&p->config, p, STEPS);
    if (bytes_outcome(c) != before->of[SIZE]) return 1;
    if (of_model && outcome_of(c, p, START).of[START] != before->of[START]) return 1;
    return outcome_of(c, p, STEPS).of[STEPS] != before->of[STEPS];
}

/* ---- The two promises. */
typedef struct {
    int acts, idle;  /* in how many models it does something, and nothing */
    char where[400]; /* the first model in which it does nothing */
} Record;

static Record records[COUNT(options)];

enum { REFUSED, ACTS, IDLE };

/* Does c, which is refused because of an option, differ from c without it? */
static int matters(const Option *o, const Config *c, const Parent *p) {
    Parent without = *p;
    Outcome none = {.known = 0};
    without.config = with_option(c, o->name, o->def);
    return changes(c, &without, &none, o->mask & MODEL);
}

/* Config c is the parent with another value of the option. */
static int judge(const Option *o, const Config *c, const Parent *p, Outcome *before) {
    char is[64], was[64];
    const char *name, *text = option_text(c, o, is);
    const int accepted = accepts(c, &name), blamed = name && !strcmp(name, o->name);
    const int fine =
        is_excused(o, text, c) || is_excused(o, option_text(&p->config, o, was), c);
    if (accepted && changes(c, p, before, o->mask & MODEL)) return ACTS;
    if (accepted) return fine ? REFUSED : IDLE;
    CHECK(!blamed || fine || !matters(o, c, p),
          "--%s=%s is refused as meaningless, but is not, with '%s'", o->name, text,
          p->text);
    return REFUSED;
}

/* One option of one model. A number may be without effect, if another has some. */
static void try_option(const Option *o, const Parent *p, Outcome *before) {
    const Values v = values_to_try(o, &p->config);
    Record *record = records + (o - options);
    int count[3] = {0}, idle_word = 0;
    const char *last = "";
    for (int i = 0; i < v.count; i++) {
        const int word = isalpha((unsigned char)*v.text[i]);
        char is[64], was[64];
        Config c = p->config;
        if (!option_set(&c, o, v.text[i]) || (count[ACTS] && !word)) continue;
        if (!strcmp(option_text(&c, o, is), option_text(&p->config, o, was))) continue;
        const int verdict = judge(o, &c, p, before);
        count[verdict]++;
        if (verdict == IDLE) last = v.text[i];
        idle_word |= word && verdict == IDLE;
    }
    record->acts += count[ACTS];
    if (!idle_word && (count[ACTS] || !count[IDLE])) return;
    if (!record->idle++)
        snprintf(record->where, sizeof record->where, "%s with '%.200s'", last, p->text);
}

static void test_every_option(void) {
    for (const Parent *p = parents; p < parents + n_parents; p++) {
        Outcome before = {.known = 0};
        EACH_OPTION(o) {
            if (o->mask & (MODEL | TRAIN) && !(o->mask & FIXED))
                try_option(o, p, &before);
        }
    }
    EACH_OPTION(o) {
        const Record *r = records + (o - options);
        if (!r->acts) continue; /* a matter of commands: below */
        CHECK(!r->idle, "--%s=%s changes nothing, and is not refused (%d models)",
              o->name, r->where, r->idle);
    }
}

/* ---- The commands: exit status, message, and what is printed and logged, without the
 * figures of time. */
static const char *const commands[][2] = {
    {"train", "train --preset=tiny --data=@/export --steps=3 --out=@/run"},
    {"eval", "eval @/model/model.golf --data=@/export"},
    {"sample", "sample @/model/model.golf --tokens=8"},
    {"info", "info @/model/model.golf"},
    {"export", "export @/model/model.golf --to=@/out.safetensors"}};
static const int masks[] = {TRAIN | MODEL, EVAL, SAMPLE, INFO, EXPORT};

static int printing(const char *line) { /* in a child */
    may_return = 0;
    if (!freopen(IN("printed"), "w", stdout)) return 9;
    return command_line(line);
}

/* Of a line of the log: step, tokens, losses, rate, norm, and what systems add. */
static uint64_t hash_of_log(uint64_t h, char *line) {
    int column = 0;
    for (char *field = strsep(&line, "\t"); field; field = strsep(&line, "\t"), column++)
        if (column != 6 && column != 7) h = hash_of(h, field, strlen(field));
    return h;
}

/* Of a line on the screen: all of it, unless it has a time or a speed in it. */
static uint64_t hash_of_line(uint64_t h, const char *line) {
    const int timed = strstr(line, "tok/s") || strstr(line, "tokens/s") ||
                      strstr(line, " s,") || strstr(line, " ms ") || strstr(line, " MB");
    return hash_of(h, line, timed ? MIN(strlen(line), 4) : strlen(line));
}

static uint64_t hash_of_lines(uint64_t h, const char *path, int is_log) {
    char line[4096];
    FILE *f = fopen(path, "r");
    if (!f) return hash64(h, 1);
    while (fgets(line, sizeof line, f))
        h = is_log ? hash_of_log(h, line) : hash_of_line(h, line);
    fclose(f);
    return h;
}

static uint64_t command_outcome(const char *line) {
    uint64_t h = (uint64_t)STATUS(exit(printing(line)));
    h = hash_of(h, message, strlen(message));
    h = hash_of_lines(h, IN("printed"), 0);
    return hash_of_lines(h, IN("run/log.tsv"), 1);
}

/* In a new folder and, where that may matter, in one that holds a run. */
static uint64_t command_in_folders(const char *line, int both) {
    remove_tree(IN("run"));
    remove_tree(IN("out.safetensors"));
    const uint64_t first = command_outcome(line);
    return both ? hash64(first, command_outcome(line)) : first;
}

static Values texts_of(const Option *o) {
    Values v = values_to_try(o, &plain);
    if (o->type != TYPE_STR) return v;
    add_value(&v, "@/donor/ckpt.bin", 63);
    add_value(&v, "ab", 63);
    return v;
}

static int command_changes(const Option *o, const char *line) {
    static char with[1024];
    const int both = o->mask & RESUME;
    const uint64_t before = command_in_folders(line, both);
    const Values v = texts_of(o);
    for (int i = 0; i < v.count; i++) {
        snprintf(with, sizeof with, "%s --%s=%s", line, o->name, v.text[i]);
        if (command_in_folders(with, both) != before) return 1;
    }
    return 0;
}

static void test_commands(void) {
    const char *const donor =
        "train --preset=tiny --data=@/export --steps=1 --out=@/%s --unique=%d --repeat=%d";
    char line[256];
    write_data("export", 900, 333, HAND_VOCAB);
    snprintf(line, sizeof line, donor, "donor", 2, 1);
    CHECK(STATUS(exit(printing(line))) == 0, "donor: %s", message);
    snprintf(line, sizeof line, donor, "model", 1, 2);
    CHECK(STATUS(exit(printing(line))) == 0, "model: %s", message);
    EACH_OPTION(o) {
        for (size_t k = 0; k < COUNT(commands); k++) {
            const int tried = k == 0 && records[o - options].acts;
            if (!(o->mask & masks[k]) || o->mask & FIXED || tried) continue;
            CHECK(command_changes(o, commands[k][1]) || is_excused(o, "", &plain),
                  "%s: --%s changes nothing", commands[k][0], o->name);
        }
    }
}

/* Every word and flag; of a span of numbers the first two. */
static void add_parents_of(const Option *o) {
    const Values v = values_to_try(o, &parents->config);
    const int span = strstr(o->range, " to ") != NULL;
    int added = 0;
    for (int i = 0; i < v.count; i++) {
        char text[160];
        snprintf(text, sizeof text, "%s=%s", o->name, v.text[i]);
        if (added < 2 || !span || isalpha((unsigned char)*v.text[i]))
            added += add_parent(text, NULL);
    }
}

/* A run that starts from trained weights: what systems do in training they do there. */
static void test_donor(void) {
    char line[256];
    if (!option_named("init_from")) return;
    snprintf(line, sizeof line, "%s --init_from=@/donor/ckpt.bin --convert=average",
             commands[0][1]);
    CHECK(STATUS(exit(printing(line))) == 0, "%s: %s", line, message);
    EACH_OPTION(o) {
        if (!(o->mask & TRAIN) || o->mask & (MODEL | RESUME) || !of_system(o)) continue;
        CHECK(command_changes(o, line) || is_excused(o, "", &plain),
              "from trained weights: --%s changes nothing", o->name);
    }
}

/* What a preset brings along is not asked for: it may mean nothing beside the command
 * line's options. The same from the command line is refused. */
static void test_presets(void) {
    const Config from = preset_config("reference");
    Config c = with_option(&from, "extra_norm", "none");
    const char *why, *name;
    for (size_t i = 0; i < COUNT(presets); i++) {
        Config known;
        if (!read_options(&known, presets[i].options))
            continue; /* a system is not there */
        Config preset = preset_config(presets[i].name);
        if (!preset.width) preset.width = 32 * preset.heads; /* fit chooses one */
        name = meaningless(&preset, &plain, &why);
        CHECK(!name, "preset %s: --%s means nothing", presets[i].name, name);
    }
    c.vocab = 11;
    CHECK(!meaningless(&c, &from, &why), "what the preset reference brings is refused");
    name = meaningless(&c, &plain, &why);
    CHECK(name && !strcmp(name, "xgain"), "xgain without norms: '%s'", name);
}

static void add_parents(void) {
    config_defaults(&plain);
    add_parent("", NULL);
    EACH_OPTION(o) {
        const int one = o->mask & MODEL || !strstr(o->range, " to ");
        if (o->mask & (MODEL | TRAIN) && !(o->mask & FIXED) && one) add_parents_of(o);
    }
    for (int i = 0; systems[i]; i++)
        for (const char *const *arm = systems[i]->gradients; arm && *arm; arm++)
            add_parent(*arm, systems[i]->ready);
}

int main(void) {
    start_tests();
    if (!freopen("/dev/null", "w", stderr)) return 1; /* what is refused */
    add_parents();
    printf("%d models\n", n_parents);
    run_test("every option", test_every_option);
    run_test("commands", test_commands);
    run_test("commands: donor", test_donor);
    run_test("presets", test_presets);
    return end_tests("options");
}
