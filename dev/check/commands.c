/* commands.c - the program as its user meets it: command lines in child processes,
 * what they print, and every message when something is wrong: one line, exit status 1,
 * nothing half-written. */
#include "check.h"

#define RUN "train --preset=tiny --width=16 --seq=16 --steps=2 --data=@/d --out=@/run"
#define TINY "train --preset=tiny --data=@/d --out=@/new "

/* A file with one byte changed. */
static void damaged_copy(const char *to, const char *from, size_t at, uint8_t by) {
    size_t n;
    uint8_t *b = read_file(IN(from), &n);
    b[at] ^= by;
    put_file(IN(to), b, n);
    free(b);
}

static void copy_file(const char *to, const char *from) { damaged_copy(to, from, 0, 0); }

/* Folders of data in which something is wrong, and none. */
static void write_inputs(void) {
    static Proto p;
    write_data("d", 900, 100, HAND_VOCAB);
    write_data("wide", 900, 100, 300); /* ids that the tokenizer does not have */
    write_data("few", 20, 10, HAND_VOCAB);
    write_data("cut", 900, 100, HAND_VOCAB);
    if (truncate(IN("cut/x_train_000000.bin"), 1100) ||
        truncate(IN("cut/x_val_000000.bin"), 1100))
        die("truncate: %s", strerror(errno));

    put_file(IN("text"), "some text\n", 10);
    put_file(IN("text.safetensors"), "some text\n", 10);
    mkdir(IN("empty"), 0777);
    mkdir(IN("odd"), 0777);
    mkdir(IN("odd/log.tsv"), 0777);
    pb_start(&p, 1);
    PB_BPE(&p);
    put_file(IN("t2.model"), p.b, p.n);
    write_data("other", 900, 100, 260);
    copy_file("other/tokenizer.model", "t2.model");
    mkdir(IN("nowhere"), 0777); /* a shard that is a link to nothing */
    copy_file("nowhere/tokenizer.model", "d/tokenizer.model");
    if (symlink("gone", IN("nowhere/x_train_000000.bin"))) die("%s", strerror(errno));
    write_data("twin", 900, 100, HAND_VOCAB); /* as many pieces: cd for cc */
    size_t n;
    uint8_t *model = read_file(IN("twin/tokenizer.model"), &n);
    for (size_t i = 0; i + 1 < n; i++)
        if (!memcmp(model + i, "cc", 2)) model[i + 1] = 'd';
    put_file(IN("twin/tokenizer.model"), model, n);
    free(model);
}

/* Copies of what a run wrote, each with a fault of its own. */
static void write_outputs(void) {
    size_t n;
    uint8_t *b = read_file(IN("run/model.golf"), &n);
    const size_t table = ARTIFACT_FIXED + get_u(b + 20, 4);
    const size_t payload = table + 8 * get_u(b + 24, 4) + 4;
    const size_t wqkv = payload + get_u(b + table, 4);

    damaged_copy("bad.golf", "run/model.golf", wqkv + 50, 4);
    damaged_copy("head.golf", "run/model.golf", 40, 4);
    damaged_copy("next.golf", "run/model.golf", 8, 1);
    put_file(IN("cut.golf"), b, n - 1);
    char *seq = strstr((char *)b + ARTIFACT_FIXED, "seq=16"); /* with a good checksum */
    if (!seq) die("no seq=16 in the artifact");
    seq[5] = 'x';
    put_u(b + payload - 4, crc32_of(0, b, payload - 4), 4);
    put_file(IN("other.golf"), b, n);
    free(b);

    b = read_file(IN("run/ckpt.bin"), &n);
    /* a number, the magic, the size of numbers, nothing */
    const size_t at[] = {n / 2, 3, 12, 0};
    const char *const folders[] = {"run3", "run4", "run5", "run6"};
    for (int i = 0; i < 4; i++) {
        char file[32];
        mkdir(IN(folders[i]), 0777);
        snprintf(file, sizeof file, "%s/ckpt.bin", folders[i]);
        damaged_copy(file, "run/ckpt.bin", at[i], i < 3 ? 12 : 0);
    }
    copy_file("run6/tokenizer.model", "t2.model");
    mkdir(IN("run_moved"), 0777); /* without its tokenizer */
    copy_file("run_moved/ckpt.bin", "run/ckpt.bin");
    free(b);
}

/* Everything else looks at this run. */
static void test_run(void) {
    const int status = STATUS(command_line(RUN));
    CHECK(status == 0 && !*message, "a tiny run: exit status %d: %s", status, message);
    if (status) exit(end_tests("commands"));
    CHECK(exists("run/model.golf") && exists("run/ckpt.bin") &&
              exists("run/result.json") && exists("run/log.tsv") &&
              exists("run/tokenizer.model"),
          "a run folder lacks a file");
}

/* ------------------------------------------------------------------------------------
 * What cannot work */
static const char *const errors[][2] = {
    /* a line, and words of its message; @/: our folder */
    /* data and tokenizer */
    {"train --data=@/none", "@/none|tokenizer.model|found none|data/get.sh"},
    {"train --data=@/none --tokenizer=@/d/tokenizer.model", "@/none|data folder|get.sh"},
    {"train --data=@/empty --tokenizer=@/d/tokenizer.model", "@/empty|found none|get.sh"},
    {"train --data=@/d --tokenizer=@/text", "@/text|SentencePiece"},
    {"train --data=@/d --tokenizer=@/d", "@/d|regular file"},
    {"train --data=@/d --tokenizer=@/t2.model", "@/d|t2.model|belong together"},
    {TINY "--data=@/cut", "cut/x_train_000000.bin|expected|found|get.sh"},
    {TINY "--data=@/nowhere", "nowhere/x_train_000000.bin|cannot open|No such file"},
    {TINY "--data=@/few", "@/few|--seq=32|found 20"},
    {TINY "--seq=500", "@/d|--seq=500|found 900|100"},
    /* sizes that do not fit */
    {TINY "--cap=1000 --width=fit", "--cap=1000|no multiple of 8|needs|raise --cap"},
    {TINY "--cap=5000", "would have|--cap=5000|--width=fit"},
    {TINY "--cap=3000 --fit=coded", "would have about|coarsest embedding|--cap=3000"},
    {TINY "--cap=1000 --fit=coded --width=fit",
     "--cap=1000|no multiple of 8|raise --cap"},
    {TINY "--fit=coded --squeeze=0.9", "--squeeze=0.9|--fit=coded|leave it out"},
    {TINY "--fit=coded --embed_bits=16", "--fit=coded|--embed_bits=3 to 8|found 16"},
    {TINY "--fit=coded --cap=32000 --wq=none --width=48 --heads=2",
     "--fit=coded|cannot promise|--cap=32000|--wq=none|--fit=packed"},
    {"bench --fit=coded --squeeze=0.9", "--squeeze=0.9|--fit=coded|leave it out"},
    {TINY "--embed_grid=5", "unknown option --embed_grid"},
    {TINY "--width=36 --heads=4", "--width=36|--heads=4|head_dim 9|--rope|multiple of 2"},
    {TINY "--width=24 --heads=4 --rope=half", "head_dim 6|--rope|multiple of 4"},
    {TINY "--width=34 --heads=4", "--width=34|--heads=4|multiple"},
    {TINY "--heads=4 --kv_heads=3", "--kv_heads=3|divisor|--heads=4"},
    {TINY "--batch=65536 --seq=65536", "--batch=65536|--seq=65536"},
    {TINY "--cap=2000000000 --width=16384 --hidden=1048576",
     "--width=16384|1048576|2^30"},
    /* options */
    {"train --widht=3", "unknown option --widht|nearest|--width|8 to 16384"},
    {"train --vocab=3", "unknown option --vocab"},
    {"train --stride=3", "unknown option --stride"},
    {"eval @/run/model.golf --width=3", "unknown option --width"},
    {"info @/run/model.golf --lr=3", "unknown option --lr|--cap"},
    {"export", "usage|export MODEL.golf"},
    {"export @/run/model.golf", "--to=NAME.safetensors"},
    {"export @/run/model.golf --to=@/run/model.golf",
     "--to|.safetensors|found|model.golf"},
    {"export @/run/model.golf --to=.safetensors", "--to|ends in .safetensors"},
    {"export @/run/model.golf --to=@/text.safetensors", "there already|--overwrite=1"},
    {"export @/run/model.golf --to=@/none/a.safetensors",
     "none/a.safetensors|cannot write"},
    {"export @/run/model.golf --to=@/a.safetensors --dtype=fp16", "--dtype|float32|bf16"},
    {"export @/bad.golf --to=@/a.safetensors --tokenizer=@/run/tokenizer.model",
     "bad.golf|tensor|damaged"},
    {"export @/run/model.golf --to=@/a.safetensors --tokenizer=@/t2.model",
     "expected the tokenizer|give --tokenizer"},
    {"eval @/run/model.golf --to=@/a.safetensors", "unknown option --to"},
    {"train --width=7", "--width|8 to 16384|'7'"},
    {"train --width=banana", "--width|8 to 16384|banana"},
    {"train --width=32.5", "--width|32.5"},
    {"train --lr=nan", "--lr|0 to 10|nan"},
    {"train --lr=", "--lr|0 to 10"},
    {"train --wq=foo", "--wq|none|ternary|foo"},
    {"train --embed_bits=9", "--embed_bits|3 to 8|16|'9'"},
    {"train width=3", "--key=value|width=3|help"},
    {"train --width", "--key=value|--width"},
    {"--width", "--key=value|--width"}, /* without a command: train */
    {"train --preset=pokcet", "unknown preset|pokcet|tiny"},
    {"eval @/run/model.golf --preset=tiny", "unknown option --preset"},
    /* folders and checkpoints */
    {RUN, "@/run|holds a run|--resume=1|--overwrite=1"},
    {RUN " --resume=1 --lr=0.1", "ckpt.bin|--lr=0.004|now it is 0.1|same options"},
    {RUN " --resume=1 --wq=none", "ckpt.bin|--wq=ternary|now it is none"},
    {RUN " --resume=1 --wq=none --cap=300000", "--wq=ternary|same options (and --cap)"},
    {RUN " --resume=1 --fit=coded", "ckpt.bin|--fit=packed|now it is coded"},
    {RUN "3 --resume=1", "run3/ckpt.bin|checksum|damaged"},
    {RUN "4 --resume=1", "run4/ckpt.bin|expected a checkpoint"},
    {RUN "5 --resume=1", "run5/ckpt.bin|-byte numbers"},
    {RUN "6 --resume=1", "run6/ckpt.bin|tokenizer of this data|found another"},
    {RUN " --resume=1 --data=@/other",
     "run/ckpt.bin|tokenizer of this data|found another"},
    {RUN "_moved --resume=1 --data=@/twin",
     "run_moved/ckpt.bin|tokenizer of this data|found another|--data"},
    {TINY "--out=@/text/x", "@/text|cannot make the folder|--out"},
    {TINY "--out=@/odd --overwrite=1", "odd/log.tsv|cannot write|--out"},
    /* artifacts */
    {"eval @/none.golf", "none.golf|cannot open"},
    {"eval @/text", "@/text|expected a model.golf"},
    {"eval @/bad.golf", "bad.golf|checksum of tensor wqkv"},
    {"sample @/bad.golf", "bad.golf|wqkv"},
    {"info @/bad.golf", "bad.golf|wqkv"},
    {"eval @/head.golf", "head.golf|checksum of its header"},
    {"eval @/cut.golf", "cut.golf|its header says|cut"},
    {"eval @/next.golf", "next.golf|version 2, found 3"},
    {"eval @/other.golf", "other.golf|seq=1x|another version"},
    {"eval @/run/model.golf --data=@/d --tokenizer=@/t2.model",
     "t2.model|CRC-32|--tokenizer"},
    {"eval @/run/model.golf --data=@/other",
     "other/tokenizer.model|run/tokenizer.model|together"},
    {"eval @/run/model.golf --data=@/d --stride=17", "--stride=17|16"},
    {"eval @/run/model.golf --data=@/few", "--seq=16|found 9"},
    {"eval @/run/model.golf --data=@/cut", "cut/x_val_000000.bin|expected|found"},
    /* commands */
    {"fly", "unknown command 'fly'|train|eval|help"},
    {"bench shape", "bench|'step'|'shapes'|found 'shape'"},
    {"bench shapes --cap=1000", "--cap=1000|no multiple of 8|raise --cap"},
    {"bench shapes --cap=x", "--cap|1000 to 2000000000|'x'"},
    {"bench shapes --width=96 --cap=50000", "would have|--cap=50000|--width"},
    {"eval", "usage|eval MODEL.golf"},
    {"sample --tokens=3", "usage|sample MODEL.golf"},
    {"info", "usage|info MODEL.golf"},
    {"prepare", "usage|--out=DIR|--train FILES"},
    {"prepare --out=@/p --name=n --train @/text", "usage|--val FILES"},
    {"prepare --out=@/p --name=n --vocab=9 --train @/text --val @/text",
     "--vocab=9|300..65535"},
    {"prepare --out=@/p --name=n --fly --train @/text", "--fly|--tokenizer="},
    {"prepare --out=@/d --name=n --train @/text --val @/text",
     "@/d|exists already|--out"},
    {"prepare --hold_out=@/d", "usage|--hold_out=FOLDER"},
    {"prepare --out=@/p --hold_out=@/d --seed=2", "--seed=2|means nothing|@/d"},
    {"prepare --out=@/p --hold_out=@/d --train @/text", "text|means nothing|--hold_out"},
    {"prepare --out=@/p --hold_out=@/d --every=1", "--every=1|2..1000000"},
    {"prepare --out=@/p --name=n --every=3 --train @/text --val @/text",
     "--every=3|means nothing|--hold_out"},
    {"prepare --out=@/p --name=n --train @/text --val @/text",
     "vocabulary of 1024|10 bytes"},
    {TINY "--data=@/d --order=sequence", "--order=sequence|means nothing|--unique"},
    {TINY "--data=@/d --repeat=1 --phase=0", "--phase=0|means nothing|--repeat=1"},
    {TINY "--data=@/d --wq=int4 --wscale=tensor", "--wscale=tensor|means nothing"},
    {TINY "--data=@/d --wq=none --wscale=group", "--wscale=group|means nothing|leave it"},
    {TINY "--val_tokens=20", "--val_tokens|--seq=32|found 20"},
    {TINY "--data=@/d --lr=0.01", "--lr=0.01|means nothing|--lr_muon"},
    {TINY "--data=@/d --extra_norm=none --xgain=vector", "--xgain=vector|--extra_norm"},
    {"sample @/run/model.golf --temperature=0 --seed=2", "--seed=2|--temperature=0"},
    {"sample @/run/model.golf --temperature=0 --top_p=0.5", "--top_p|--temperature=0"},
};

static void test_messages(void) {
    for (size_t i = 0; i < COUNT(errors); i++)
        expect_message(STATUS(command_line(errors[i][0])), errors[i][0],
                       expanded(errors[i][1]));
    CHECK(!exists("new") && !exists("p"), "a command that cannot work made its folder");
    DIES("token", "found 2|vocabulary of 266|tokenizer",
         command_line(TINY "--data=@/wide --steps=9 --tokenizer=@/d/tokenizer.model"));
    /* Weights that a decay of 99 times themselves leaves too large to be squared. */
    DIES("the last step", "val_bpb is |diverged|no model is written|--lr",
         command_line(TINY
                      "--steps=10 --warmup=0 --warmdown=0 --lr_muon=10 --wd=10 --wq=none "
                      "--aq=none"));
    CHECK(!exists("a.safetensors") && !exists("a.safetensors.tmp") &&
              same_file(IN("text.safetensors"), "some text\n", 10),
          "an export that was refused has written");
    CHECK(!exists("new/model.golf") && !exists("new/result.json"),
          "a failed run left a result");
    DIES("overflow", "more than memory can address", xcalloc(SIZE_MAX / 2, 16));
}

/* While a run is going on, its log is locked. */
static void test_locks(void) {
    size_t n;
    uint8_t *before = read_file(IN("run/ckpt.bin"), &n);
    const int log = open(IN("run/log.tsv"), O_RDWR);

    CHECK(log >= 0 && !flock(log, LOCK_EX), "lock");
    DIES("second run", "another run|--out", command_line(RUN " --overwrite=1"));
    DIES("second run", "another run|--out", command_line(RUN " --resume=1"));
    close(log);
    CHECK(same_file(IN("run/ckpt.bin"), before, n),
          "a refused run changed the checkpoint");
    free(before);
}

static void limit_files(rlim_t bytes) { /* the disk is full from here on */
    const struct rlimit r = {bytes, bytes};

    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &r)) exit(9);
}

/* What a command prints; it must end well and without complaint. */
static const char *output_of(const char *line) {
    size_t n;
    const int st = STATUS(freopen(IN("stdout"), "w", stdout) ? 0 : exit(9),
                          exit(command_line(line)));
    CHECK(st == 0 && !*message, "%s: exit status %d: %s", line, st, message);
    return (char *)read_file(IN("stdout"), &n);
}

/* The log: a header, a row for each step. */
static void check_log(const char *name, int rows) {
    size_t n;
    char file[64];
    int found = 0;

    snprintf(file, sizeof file, "%s/log.tsv", name);
    const char *log = (char *)read_file(IN(file), &n);
    const char *const head = /* systems may add columns */
        "step\ttokens\ttrain_loss\tval_bpb\tlr\tgrad_norm\tms\ttok_per_s";
    CHECK(!strncmp(log, head, strlen(head)), "the log's header: %.80s", log);
    const char *line = strchr(log, '\n');
    while (line && line[1]) {
        found++;
        CHECK(atoi(line + 1) == found, "step %d in row %d", atoi(line + 1), found);
        line = strchr(line + 1, '\n');
    }
    CHECK(found == rows, "%s: %d rows for %d steps", file, found, rows);
}

/* The old file stays, nothing else does. */
static void test_full_disk(void) {
    Golf m;

    new_model(&m, "vocab=266 width=32", 0);
    put_file(IN("full.bin"), "what was there before", 21);
    DIES("full disk", "full.bin|cannot write|too large|make room", limit_files(4000),
         ckpt_save(&m, IN("full.bin"), 1));
    DIES("full disk", "full.bin|cannot write|make room", limit_files(100),
         golf_save(&m, IN("full.bin"), 1));
    CHECK(same_file(IN("full.bin"), "what was there before", 21),
          "the old file is damaged");
    DIES("full disk", "cannot write", limit_files(9000),
         command_line(TINY "--out=@/full --steps=2"));
    CHECK(!exists("full.bin.tmp") && !exists("full/ckpt.bin") &&
              !exists("full/ckpt.bin.tmp"),
          "a full disk left files");
    output_of(TINY "--out=@/rows --steps=4 --ckpt_every=2");
    remove(IN("rows/result.json"));
    DIES("full disk", "cannot write", limit_files(50),
         command_line(TINY "--out=@/rows --steps=4 --ckpt_every=2 --resume=1"));
    check_log("rows", 4);
    golf_free(&m);
}

static void test_locked_folder(void) {
    if (geteuid() == 0) {
        puts("skipped: unwritable folder (root may write everywhere)");
        return;
    }
    mkdir(IN("locked"), 0555);
    DIES("unwritable", "locked|cannot|--out",
         command_line(TINY "--out=@/locked --steps=1"));
    DIES("unwritable", "locked/x|cannot write", write_file(IN("locked/x"), "x", 1));
}

/* ------------------------------------------------------------------------------------
 * What works, and what it prints */
/* Waiting threads do not spin for long, unless the user says how they wait. With GNU's
 * runtime the program starts anew for it: dev/check/cli.sh. */
static void test_waiting(void) {
    static const char *const names[] = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
                                        "KMP_BLOCKTIME"};
    for (size_t i = 0; i < COUNT(names); i++) unsetenv(names[i]);
    CHECK(!wait_is_chosen(), "nobody chose how to wait");
    for (size_t i = 0; i < COUNT(names); i++) {
        setenv(names[i], "1", 1);
        CHECK(wait_is_chosen(), "%s is not heard", names[i]);
        unsetenv(names[i]);
    }
#if defined _OPENMP && defined __clang__
    threads(2);
    kmp_set_blocktime(200);
    setenv("KMP_BLOCKTIME", "200", 1);
    bound_spinning(NULL);
    CHECK(kmp_get_blocktime() == 200, "the user's choice is overwritten");
    unsetenv("KMP_BLOCKTIME");
    bound_spinning(NULL);
    CHECK(kmp_get_blocktime() == 0, "threads spin for %d ms", kmp_get_blocktime());
    threads(1);
#endif
    setenv("OMP_WAIT_POLICY", "passive", 1);
}

static void test_usage(void) {
    static char *no_words[] = {"train_golf", NULL};
    const int status = STATUS(exit(golf_main(1, no_words)));

    CHECK(status == 1 && strstr(message, "usage: ./train_golf train") == message &&
              strstr(message, "./train_golf prepare") &&
              strstr(message, "./train_golf help"),
          "no command: status %d: %s", status, message);
    const char *help = output_of("help");
    CHECK(!strcmp(help, output_of("--help")) && !strcmp(help, output_of("-h")),
          "other help");
    EACH_OPTION(o) {
        char line[1200], usual[64];
        snprintf(line, sizeof line, "  --%s=%s  ", o->name, usual_value(o, usual));
        CHECK((strstr(help, line) != NULL) == !(o->mask & FIXED), "--%s in help",
              o->name);
    }
    for (size_t i = 0; i < COUNT(presets); i++)
        CHECK(strstr(help, presets[i].name) != NULL, "preset %s in help",
              presets[i].name);
}

/* The number behind a word at the start of a line. */
static double number_after(const char *text, const char *word) {
    char line[128];
    snprintf(line, sizeof line, "\n%s", word);
    const char *at = strstr(text, line);
    return at ? strtod(at + strlen(line), NULL) : (double)NAN;
}

static void test_output(void) {
    size_t n, size;
    struct stat st;

    if (stat(IN("run/model.golf"), &st)) die("no run/model.golf");
    size = (size_t)st.st_size;
    const char *result = (char *)read_file(IN("run/result.json"), &n);
    const char *text = output_of("eval @/run/model.golf --data=@/d");
    CHECK(near(number_after(text, "val_bpb "), number_after(result, "  \"val_bpb\": "),
               1e-9),
          "bpb: %s", text);
    CHECK(near(number_after(text, "tokens "), 96, 0), "96 tokens, six rows of 16: %s",
          text);
    text = output_of("eval @/run/model.golf --data=@/d --stride=3 --val_tokens=50");
    CHECK(strstr(text, "mode sliding, stride 3") &&
              near(number_after(text, "tokens "), 50, 0),
          "sliding: %s", text);

    text = output_of("info @/run/model.golf --cap=100000");
    const double sum = number_after(text, "core ") + number_after(text, "embedding ") +
                       number_after(text, "interface ") +
                       number_after(text, "protected ") + number_after(text, "header ");
    CHECK(near(sum, (double)size, 0) && near(number_after(text, "total "), sum, 0),
          "info: %s", text);
    CHECK(near(number_after(text, "FITS by "), 100000.0 - (double)size, 0), "info: %s",
          text);
    CHECK(near(number_after(text, "used "), (double)size / 1000, 0.006), "info: %s",
          text);
    CHECK(strstr(output_of("info @/run/model.golf --cap=1000"), "\nOVER by ") != NULL,
          "over");
    text = output_of("info @/run/model.golf"); /* the file does not know its cap */
    CHECK(!strstr(text, "FITS") && !strstr(text, "OVER") && !strstr(text, "\ncap ") &&
              strstr(text, "--cap="),
          "info without a cap: %s", text);

    text = output_of("sample @/run/model.golf --prompt=ab --tokens=20");
    CHECK(!strncmp(text, "ab", 2) && text[strlen(text) - 1] == '\n', "a sample: %s",
          text);
    CHECK(!strcmp(text, output_of("sample @/run/model.golf --prompt=ab --tokens=20")),
          "seed 1");
    const char *other =
        output_of("sample @/run/model.golf --prompt=ab --tokens=20 --seed=2");
    CHECK(strcmp(text, other) != 0, "another seed, the same text: %s", text);
    output_of("sample @/run/model.golf");
}

/* The line of result.json with this key, until the next call for another buffer. */
static const char *result_line(const char *file, const char *key, char out[512]) {
    size_t n;
    char want[64];
    snprintf(want, sizeof want, "  \"%s\": ", key);
    const char *at = strstr((char *)read_file(IN(file), &n), want);
    snprintf(out, 512, "%.*s", at ? (int)strcspn(at, "\n") : 0, at ? at : "");
    return out;
}

/* A number of result.json. */
static double result_number(const char *file, const char *key) {
    char line[512];
    const char *colon = strchr(result_line(file, key, line), ':');
    return colon ? strtod(colon + 1, NULL) : (double)NAN;
}

/* What the steps of a run took, by its log; without bpb in between. */
static double logged_seconds(const char *run) {
    char path[64], *row;
    double seconds = 0;
    size_t n;
    snprintf(path, sizeof path, "%s/log.tsv", run);
    char *text = (char *)read_file(IN(path), &n);
    for (row = strchr(text, '\n'); row && row[1]; row = strchr(row + 1, '\n')) {
        double ms = 0;
        if (sscanf(row, "%*d %*s %*s %*s %*s %lf", &ms) < 1) die("%s: %s", path, row);
        seconds += 1e-3 * ms;
    }
    free(text);
    return seconds;
}

/* The rows of a log that is opened to append to, which some C libraries begin to read at its
 * end. */
static void check_log_from_its_end(void) {
    Run run = {.steps = 1};
    FILE *log = fopen(IN("run/log.tsv"), "a+");
    if (!log || fseek(log, 0, SEEK_END)) die("%s", strerror(errno));
    const long all = ftell(log), kept = (long)rows_to_keep(log, "log.tsv", &run);
    CHECK(run.timed == 1 && kept > 0 && kept < all, "%d rows in %ld bytes of %ld",
          run.timed, kept, all);
    fclose(log);
}

/* A run that was cut short while it was scored ends with what it would have ended with. */
static void check_scoring_again(void) {
    static const char *const keys[] = {"phases", "flip_rate", "val_bpb", "zero_fraction",
                                       "bytes_model"};
    char before[512], after[512];
    output_of(RUN "9");
    copy_file("straight.json", "run9/result.json");
    if (remove(IN("run9/result.json"))) die("remove: %s", strerror(errno));
    output_of(RUN "9 --resume=1");
    for (size_t i = 0; i < COUNT(keys); i++) {
        result_line("straight.json", keys[i], before);
        result_line("run9/result.json", keys[i], after);
        CHECK(*before && !strcmp(before, after), "scored again: %s, not %s", after,
              before);
    }
    CHECK(!strstr(result_line("run9/result.json", "phases", after), "[0,"), "%s", after);
    const double logged = logged_seconds("run9"),
                 told = result_number("run9/result.json", "seconds");
    CHECK(logged > 0 && told >= 0.999 * logged, "%g s, but the log has %g", told, logged);
}

/* Tokens are counted by steps, however many groups a step has. */
static void check_groups(void) {
    size_t n;
    output_of(RUN "10 --batch=4 --accum=2");
    const char *log = (char *)read_file(IN("run10/log.tsv"), &n);
    CHECK(strstr(log, "\n1\t64\t") && strstr(log, "\n2\t128\t"), "tokens: %s", log);
    CHECK(near(result_number("run10/result.json", "tokens"), 128, 0),
          "tokens of the run");
    CHECK(strstr(output_of(RUN "10 --batch=4 --accum=2 --overwrite=1"),
                 "2 steps of 64") != NULL,
          "tokens of a step");
    DIES("other groups", "started with --accum=2, now it is 4",
         exit(command_line(RUN "10 --batch=4 --accum=4 --resume=1")));
}

static void test_training(void) {
    size_t n;
    uint8_t *model = read_file(IN("run/model.golf"), &n);

    check_log("run", 2);
    check_table("run", 0, 0);
    CHECK(strstr(output_of(RUN " --resume=1"), "is finished: nothing to do") != NULL,
          "finished");
    check_log("run", 2);
    output_of(RUN " --overwrite=1");
    CHECK(same_file(IN("run/model.golf"), model, n), "the same run gives another model");
    check_log("run", 2);
    output_of(RUN "7 --resume=1"); /* nothing there: starts */
    CHECK(same_file(IN("run7/model.golf"), model, n), "in another folder: another model");
    output_of(RUN "8 --recompute=1 --val_every=1 --ckpt_every=1");
    CHECK(same_file(IN("run8/model.golf"), model, n),
          "recomputed, looked at: another model");
    check_log("run8", 2);

    check_log_from_its_end();
    check_scoring_again();
    check_groups();

    /* 12 ms: the schedule is cut to what fits */
    const char *text = output_of("train --preset=tiny --width=16 --seq=16 --steps=100000 "
                                 "--minutes=0.0002 --data=@/d --out=@/minutes");
    CHECK(strstr(text, "--minutes=0.0002 at") &&
              !strstr(text, "the schedule has 100000 steps"),
          "minutes: %.400s", text);
    free(model);
}

/* --fit=coded: the file takes all of its cap, which the command says, and is what trained;
 * scored again, it is the same. A model that is too large for its cap ends under it, too. */
static void test_fit(void) {
    size_t n, again;
    char used[64];
#define CODED \
    "train --preset=tiny --seq=16 --steps=20 --data=@/d --fit=coded --out=@/coded "
    const char *text = output_of(CODED "--width=fit --cap=9000");
    uint8_t *model = read_file(IN("coded/model.golf"), &n);
    CHECK(
        n > 8900 && n <= 9000 &&
            near(result_number("coded/result.json", "cap_used"), (double)n / 9000, 1e-12),
        "%zu bytes of 9000", n);
    CHECK(near(result_number("coded/result.json", "roundtrip_gap"), 0, 0), "gap");
    snprintf(used, sizeof used, ": %.2f %% of the cap; the embedding's steps are",
             (double)n / 90);
    CHECK(strstr(text, "before it is steered to 9000") && strstr(text, used), "%s", text);
    if (remove(IN("coded/result.json"))) die("remove: %s", strerror(errno));
    output_of(CODED "--width=fit --cap=9000 --resume=1");
    CHECK(same_file(IN("coded/model.golf"), model, n), "scored again: another file");
    CHECK(strstr(output_of("info @/coded/model.golf"), "\nembed       int") != NULL,
          "info");

    text = output_of(CODED "--overwrite=1 --width=32 --cap=4700");
    read_file(IN("coded/model.golf"), &again);
    CHECK(again <= 4700 && again > 4600 &&
              result_number("coded/result.json", "embed_steps") > 1.5,
          "%zu bytes of 4700: %s", again, text);
    text = output_of(CODED "--overwrite=1 --width=16 --cap=90000");
    CHECK(strstr(text, "the rest is for a larger model") != NULL, "%s", text);
    free(model);
}

/* eval takes few rows at a time where they are long. */
static void test_rows(void) {
    static const int rows[][2] = {{8, 16}, {256, 16}, {4096, 16}, {8192, 8}, {65536, 1}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        Config c;
        config_defaults(&c);
        c.seq = rows[i][0];
        CHECK(rows_at_a_time(&c) == (size_t)rows[i][1], "rows of %d: %zu at a time",
              c.seq, rows_at_a_time(&c));
    }
}

/* Text to tokenizer and shards, and a run on them. */
static void test_prepare(void) {
    static const char *const said[] = {
        "the ",      "state ",  "of ",    "union ",  "and ",   "people",    ". ",
        "congress ", "nation ", "great ", "country", "laws, ", "between\n", "shall "};
    static char text[20000];
    size_t n = 0;

    while (n + 10 < sizeof text)
        n += (size_t)sprintf(text + n, "%s", said[dice(sizeof said / sizeof *said)]);
    put_file(IN("train.txt"), text, n);
    put_file(IN("val.txt"), text, n / 4);
    output_of("prepare --out=@/prepared --name=words --vocab=310 --train @/train.txt "
              "--val @/val.txt");
    CHECK(exists("prepared/tokenizer.model") &&
              exists("prepared/words_train_000000.bin") &&
              exists("prepared/words_val_000000.bin") && exists("prepared/info.txt") &&
              !exists("prepared.part"),
          "prepare did not write all its files");

    const Tokenizer *tok = tokenizer_load(IN("prepared/tokenizer.model"));
    Shards *val = shards_open(IN("prepared"), "val", tok->vocab);
    int *ids = xcalloc((size_t)val->tokens, sizeof(int));
    size_t len;
    shards_read(val, 0, (int)val->tokens, ids);
    const char *back = tokenizer_decode(tok, ids, (size_t)val->tokens, &len);
    CHECK(tok->vocab == 310 && ids[0] == tok->bos && len == n / 4 &&
              !memcmp(back, text, len),
          "%d pieces; %zu bytes come back of %zu", tok->vocab, len, n / 4);

    output_of("train --preset=tiny --steps=2 --data=@/prepared --out=@/words");
    expect_message(
        STATUS(command_line("prepare --out=@/prepared --name=words --train @/train.txt "
                            "--val @/val.txt")),
        "twice", "prepared|exists already");
}

int main(void) {
    start_tests();
    write_inputs();
    test_run();
    write_outputs();
    run_test("waiting", test_waiting);
    run_test("usage", test_usage);
    run_test("messages", test_messages);
    run_test("locks", test_locks);
    run_test("full disk", test_full_disk);
    run_test("locked folder", test_locked_folder);
    run_test("output", test_output);
    run_test("training", test_training);
    run_test("fit", test_fit);
    run_test("rows", test_rows);
    run_test("prepare", test_prepare);
    return end_tests("commands");
}
