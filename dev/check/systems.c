/* systems.c - the tests of the further systems, which stand in their files
 * (dev/systems): for each, gradients and files with its options, error messages, and
 * tests of its own. */
#include "check.h"

#define TESTS
#include "../systems/systems.h"
#undef TESTS

static const struct {
    const char *name;
    const SystemTests *tests;
} systems[] = {
#define X(name) {#name, &name##_tests},
#define LIST
#include "../systems/systems.h"
#undef LIST
#undef X
    {NULL, NULL}};

/* --width=fit: what it picks is not refused, or it says why it can pick nothing. */
static void check_fit(const char *arm) {
    char text[512];
    snprintf(text, sizeof text, "vocab=266 width=32 heads=2 batch=1 cap=60000 %s", arm);
    Config c = config_of(text);
    c.width = 0;
    const int status = STATUS(fit_width(&c), fputs("picked\n", stderr), config_check(&c));
    CHECK(status == 0 || !strstr(message, "picked"), "%s: %s", text, message);
}

static const SystemTests *now_testing;
static const char *now_named;

static void test_gradients(void) {
    for (const char *const *arm = now_testing->gradients; arm && *arm; arm++)
        check_gradients(*arm, now_testing->ready);
}

/* Each model as a file: round trip, and corrupted. */
static void test_files(void) {
    for (const char *const *arm = now_testing->files; arm && *arm; arm++) {
        check_export(*arm);
        check_own_files(*arm);
        check_fit(*arm);
        if (rename(IN("model.golf"), IN("artifact"))) die("rename: %s", strerror(errno));
        if (arm != now_testing->files) continue;
        check_corruption("artifact", IN("bad.golf"), load_artifact, 0);
    }
}

static void test_errors(void) {
    for (const char *const(*row)[2] = now_testing->errors; row && (*row)[0]; row++) {
        char line[512];
        snprintf(line, sizeof line, "train --preset=tiny --data=@/export --out=@/new %s",
                 (*row)[0]);
        expect_message(STATUS(command_line(line)), line, expanded((*row)[1]));
    }
}

/* dev/check/combined.txt: options of several systems together. */
static int
known_options(const char *text) { /* to this build: else a system is not there */
    const int status = STATUS(config_of(text));
    return status == 0 ||
           !(strstr(message, "unknown option") || strstr(message, "expected none"));
}

static void midway(Golf *m, size_t N) { /* where a ramp has begun and not ended */
    (void)N;
    m->step = m->config.steps / 8;
}

/* The loss of a model as it is scored. */
static double scored_loss(Golf *m) {
    const int *x = tokens_below(20, 1024, 80), *y = tokens_below(20, 1024, 81);
    m->train = 0;
    return golf_forward(m, x, y, 64, 16);
}

/* A model made of a donor that loses nothing in it has the donor's loss. */
static void check_lossless(const char *donor, const char *arm) {
    static const char *const small = "vocab=20 width=16 heads=2 mlp=2 seq=16 aq=none";
    char text[600];
    Golf m, from;

    snprintf(text, sizeof text, "%s %s", small, donor);
    new_model(&from, text, 1024);
    for (size_t i = 0; i < from.n_params; i++)
        from.master[i] += (real)0.05 * noise(77, i);
    golf_quantize(&from);
    ckpt_save(&from, IN("donor.bin"), from.config.steps);
    golf_save(&from, IN("donor.golf"), 0);
    golf_free(&from);
    golf_load(&from, IN("donor.golf"));
    golf_buffers(&from, 1024);
    const double want = scored_loss(&from);
    golf_free(&from);

    write_hand_model(IN("hand.model"));
    const Tokenizer *tok = tokenizer_load(IN("hand.model"));
    snprintf(text, sizeof text, "%s %s %s", small, arm,
             expanded("init_from=@/donor.bin"));
    new_model(&m, text, 1024);
    EACH_SYSTEM(s, &m) {
        if ((*s)->open) (*s)->open(&m, tok, 1); /* silently, as when it is resumed */
    }
    const double loss = scored_loss(&m);
    CHECK(near(loss, want, 1e-4), "%s, made of %s: loss %.9g, not %.9g", arm, donor, loss,
          want);
    golf_free(&m);
}

static void test_line(const char *kind, const char *arm, const char *wanted) {
    char line[512];
    const int both = !strcmp(kind, "both");
    if (!strcmp(kind, "errors")) {
        snprintf(line, sizeof line, "train --preset=tiny --data=@/export --out=@/new %s",
                 arm);
        const int status = STATUS(command_line(line));
        const int there =
            !strstr(message, "unknown option") && !strstr(message, "expected none");
        if (there) expect_message(status, line, wanted);
        return;
    }
    if (!known_options(arm)) return;
    if (!strcmp(kind, "lossless")) {
        const int known = known_options(wanted) && known_options("init_from=x");
        if (!DOUBLE && known) check_lossless(arm, wanted);
        return;
    }
    if (DOUBLE && (both || !strcmp(kind, "gradients"))) check_gradients(arm, midway);
    if (DOUBLE || !(both || !strcmp(kind, "files"))) return;
    check_export(arm);
    check_own_files(arm);
    check_fit(arm);
}

static void test_combined(void) {
    size_t len;
    char *save, *rest, *text = (char *)read_file("dev/check/combined.txt", &len);
    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        const char *kind = strtok_r(line, "\t", &rest),
                   *arm = strtok_r(NULL, "\t", &rest);
        if (*kind != '#') test_line(kind, arm, strtok_r(NULL, "\t", &rest));
    }
    free(text);
}

int main(void) {
    start_tests();
    write_data("export", 900, 333, HAND_VOCAB);
    for (int i = 0; systems[i].name; i++) {
        char name[128];
        now_testing = systems[i].tests;
        now_named = systems[i].name;
        snprintf(name, sizeof name, "%s: gradients", now_named);
        if (DOUBLE) run_test(name, test_gradients);
        snprintf(name, sizeof name, "%s: files", now_named);
        run_test(name, test_files);
        snprintf(name, sizeof name, "%s: errors", now_named);
        if (now_testing->errors) run_test(name, test_errors);
        for (const Test *t = now_testing->tests; t && t->name; t++) {
            snprintf(name, sizeof name, "%s: %s", now_named, t->name);
            run_test(name, t->run);
        }
    }
    run_test("combined", test_combined);
    return end_tests("systems");
}
