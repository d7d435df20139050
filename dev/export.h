/* export.h - `./train_golf export MODEL.golf --to=NAME.safetensors`: the model for other
 * programs, as the format of their libraries:
 *
 *     0   8  n, bytes of the header, a multiple of 8 and at most 100,000,000
 *     8   n  the header, a JSON object, spaces behind it: of every tensor its name, dtype,
 *            shape and where its numbers begin and end behind the header; __metadata__
 *     .   .  the numbers, little-endian, row-major, tensor behind tensor without gaps
 *
 * Every tensor of the table that has numbers is there, copy by copy: NAME where the model has
 * one (ONCE), else NAME.j. Matrices are (rows, cols) and the very numbers that the forward pass
 * multiplies with, scale * code; vectors of the interface (cols), or (1) where one number
 * stands for all. What a mode leaves out is not there: it has the value that golf.h says.
 * Phase p uses copy p of what has as many copies as there are phases, of the rest copy
 * block_of_phase[p]. Systems' tensors have their own names, and how many copies the system
 * says; its products of factors are there beside these. So no model is refused; but what a
 * system does with its tensors a reader has to know: config names them in a line systems=.
 *
 * float32 holds every number as it is, bf16 ternary weights, binary ones and vectors; others
 * are rounded to nearest even.
 *
 * __metadata__, text to text: format "pt" (which libraries ask for), config (lines as in the
 * artifact), block_of_phase, tokenizer (the .model file, base64), model_crc32 (of the
 * MODEL.golf file). */
#define EXPORT_ENDING ".safetensors"
enum { MOST_HEADER = 100000000 };

/* ---- Where to. */
static int ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), k = strlen(end);
    return n > k && !strcmp(text + n - k, end);
}

static void check_target(const Config *how) {
    if (!*how->to) die("expected --to=NAME%s, the file to write", EXPORT_ENDING);
    if (!ends_with(how->to, EXPORT_ENDING))
        die("--to: expected a name that ends in %s, the one format so far, found '%s'",
            EXPORT_ENDING, how->to);
    if (!how->overwrite && !access(how->to, F_OK))
        die("%s is there already; give --overwrite=1 or another --to", how->to);
}

/* ---- The header. */
/* A tensor that a mode or an option leaves out has copies, too, but no numbers. */
static int copies_with_numbers(const Tensor *t) { return t->n ? t->stored_copies : 0; }

static void put_base64(FILE *f, const uint8_t *p, size_t n) {
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        const size_t have = MIN(n - i, 3);
        uint32_t bits = 0;
        for (size_t k = 0; k < 3; k++) bits = bits << 8 | (k < have ? p[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            fputc(k <= have ? digits[bits >> (18 - 6 * k) & 63] : '=', f);
    }
}

static void put_metadata(FILE *f, const Golf *m, const Tokenizer *tok, const char *path) {
    char config[CONFIG_TEXT];
    config_text(&m->config, MODEL, config);
    fputs("{\"format\": \"pt\", ", f);
    put_json_pair(f, "config", config);
    fputs(", \"block_of_phase\": \"", f);
    for (int p = 0; p < m->phases; p++)
        fprintf(f, "%s%d", p ? " " : "", block_of(&m->config, p));
    fputs("\", \"tokenizer\": \"", f);
    put_base64(f, tok->file, tok->size);
    fprintf(f, "\", \"model_crc32\": \"%08x\"}", crc_of_file(path));
}

/* A copy whose numbers begin at byte `at`; returns where they end. */
static size_t put_tensor(FILE *f, const Tensor *t, int j, int dtype, size_t at) {
    const size_t end = at + t->copy_n * (dtype == DTYPE_BF16 ? 2 : 4);
    fprintf(f, ", \"%s", t->name);
    if (t->per != ONCE) fprintf(f, ".%d", j);
    fprintf(f, "\": {\"dtype\": \"%s\", \"shape\": [",
            dtype == DTYPE_BF16 ? "BF16" : "F32");
    if (t->role != INTERFACE) fprintf(f, "%d, ", t->rows);
    fprintf(f, "%d], \"data_offsets\": [%zu, %zu]}", t->stored_cols, at, end);
    return end;
}

/* The header in memory, spaces behind it; *data: bytes of the numbers. */
static char *export_header(const Golf *m, const Tokenizer *tok, const char *path,
                           int dtype, size_t *len, size_t *data) {
    char *text;
    FILE *f = open_memstream(&text, len);
    if (!f) die("out of memory");
    *data = 0;
    fputs("{\"__metadata__\": ", f);
    put_metadata(f, m, tok, path);
    EACH_TENSOR(t, m) {
        for (int j = 0; j < copies_with_numbers(t); j++)
            *data = put_tensor(f, t, j, dtype, *data);
    }
    fputc('}', f);
    while (ftell(f) % 8) fputc(' ', f);
    if (fclose(f)) die("out of memory");
    return text;
}

static void check_header(const char *path, size_t len) {
    if (len > MOST_HEADER)
        die("%s: its tokenizer and configuration are a header of %zu bytes, and readers of %s "
            "take %d",
            path, len, EXPORT_ENDING, MOST_HEADER);
}

/* ---- The numbers. */
/* Returns how many of them are rounded. */
static size_t put_numbers(uint8_t *to, const real *x, size_t n, int dtype) {
    size_t rounded = 0;
    for (size_t i = 0; i < n; i++) {
        const uint16_t half = to_bf16(x[i]);
        if (dtype == DTYPE_BF16) put_u(to + 2 * i, half, 2);
        else put_u(to + 4 * i, (Bits){.f = (float)x[i]}.u, 4);
        rounded += dtype == DTYPE_BF16 && from_bf16(half) != x[i];
    }
    return rounded;
}

static size_t export_numbers(uint8_t *to, const Golf *m, int dtype) {
    size_t rounded = 0;
    EACH_TENSOR(t, m) {
        if (!t->n) continue;
        rounded += put_numbers(to, m->eff + t->at, t->n, dtype);
        to += t->n * (dtype == DTYPE_BF16 ? 2 : 4);
    }
    return rounded;
}

static void say_export(const Golf *m, const Config *how, size_t bytes, size_t rounded) {
    char config[CONFIG_TEXT];
    config_text(&m->config, MODEL, config);
    printf("%s: %zu bytes, %zu numbers as %s, with configuration and tokenizer\n",
           how->to, bytes, m->n_params, how->dtype == DTYPE_BF16 ? "bf16" : "float32");
    if (rounded)
        printf("%zu numbers are rounded: they score other than the file does\n", rounded);
    const char *systems = strstr(config, "\nsystems=");
    if (systems)
        printf("a reader has to know what these do with their tensors: %s",
               systems + strlen("\nsystems="));
}

int export_main(const char *path, int argc, char **argv) {
    Config how;
    Golf m;
    size_t len, data;
    uint8_t size[8];
    const Tokenizer *tok = open_model(&m, &how, path, argc, argv, EXPORT);
    check_target(&how);
    char *header = export_header(&m, tok, path, how.dtype, &len, &data);
    check_header(path, len);

    uint8_t *numbers = xcalloc(data, 1);
    const size_t rounded = export_numbers(numbers, &m, how.dtype);
    put_u(size, len, 8);
    const Part parts[] = {{size, 8}, {header, len}, {numbers, data}};
    write_parts(how.to, parts, 3);
    say_export(&m, &how, 8 + len + data, rounded);
    free(numbers);
    free(header);
    golf_free(&m);
    return 0;
}
