/* What the program's tokenizer does, for tokenizer_oracle.py to compare with the library.
       tokenizer_ids MODEL              one line per piece: bytes, leading space, boundary
       tokenizer_ids MODEL FILES...     two lines per file: its ids; their decoding, in hex
       tokenizer_ids MODEL --ids FILE   one line per line of ids in FILE: their decoding, in hex */
#define GOLF_NO_MAIN
#include "../../train_golf.c"

static void print_hex(const Tokenizer *t, const int *ids, size_t n) {
    size_t len;
    char *text = tokenizer_decode(t, ids, n, &len);
    for (size_t i = 0; i < len; i++) printf("%02x", (unsigned)(uint8_t)text[i]);
    putchar('\n');
    free(text);
}

int main(int argc, char **argv) {
    if (argc < 2) die("usage: tokenizer_ids MODEL [FILES... | --ids FILE]");
    Tokenizer *t = tokenizer_load(argv[1]);
    int decode = argc == 4 && !strcmp(argv[2], "--ids");
    for (int i = 0; argc == 2 && i < t->vocab; i++)
        printf("%d %d %d\n", t->piece[i].base_bytes, t->piece[i].leading_space,
               t->piece[i].boundary);
    for (int i = 2; !decode && i < argc; i++) {
        size_t len, n;
        uint8_t *text = read_file(argv[i], &len);
        int *ids = tokenizer_encode(t, (char *)text, len, &n);
        for (size_t k = 0; k < n; k++) printf("%d ", ids[k]);
        putchar('\n');
        print_hex(t, ids, n);
        free(ids);
        free(text);
    }
    FILE *f = decode ? fopen(argv[3], "r") : NULL;
    if (decode && !f) die("%s: cannot open", argv[3]);
    for (char line[65536]; decode && fgets(line, sizeof line, f);) {
        int ids[4096], n = 0;
        for (char *p = line, *end; n < 4096; p = end) {
            ids[n] = (int)strtol(p, &end, 10);
            if (end == p) break;
            n++;
        }
        print_hex(t, ids, (size_t)n);
    }
    if (f) fclose(f);
    return 0;
}
