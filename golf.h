/* golf.h - the contract of train_golf.c: options, parameter tensors, file formats,
 * declarations, and the seams at which further systems join.
 *
 * One list per fact. A command-line option is one row of GOLF_OPTIONS, a parameter tensor
 * one row of GOLF_TENSORS. Parsing, help, config echo, allocation, initialisation, the
 * optimizer, the gradient test, checkpoints, artifacts and the byte ledger are loops over
 * these two lists. */
#ifndef GOLF_H
#define GOLF_H

/* On machines of 32 bits: files over 2 GB, folders on disks with more than 2^32 places. */
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h> /* sqrt(real) is sqrtf or sqrt: one source for the float and double builds */
#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_thread_num(void) { return 0; }
static inline void omp_set_num_threads(int n) { (void)n; }
#endif

#ifdef GOLF_DOUBLE /* finite differences need doubles: the tests build the program both ways */
typedef double real;
#else
typedef float real;
#endif

/* The same bits on every machine: each sum, product, quotient and root is rounded by itself to
 * its type, as IEEE 754 says; a multiply-add is one where it is written (fused, section 1).
 * What would round otherwise is refused, here or at the start (check_rounding). */
#if defined __FAST_MATH__ || defined __ASSOCIATIVE_MATH__ || \
    defined __RECIPROCAL_MATH__ || \
    (defined __FINITE_MATH_ONLY__ && __FINITE_MATH_ONLY__)
#error \
    "-ffast-math, or a part of it, leaves it to the compiler how numbers are rounded: compile without"
#endif
/* 16: halves, which are not used here, are computed as halves */
_Static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16,
               "floats would be computed with other digits: on 32-bit x86 compile with "
               "-msse2 -mfpmath=sse");
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off") /* as the Makefile says, too */
#endif

/* ------------------------------------------------------------------------------------------
 * Options: command mask, type, name, default, range, help. A range is a list of words,
 * numbers and spans "lo to hi". An INT option
 * given as a word has as its value the word's place in the range, from 0 on: the
 * enumerators below. MODEL rows are written into
 * every artifact. */
enum {
    MODEL = 1,
    TRAIN = 2,
    EVAL = 4,
    SAMPLE = 8,
    INFO = 16,
    FIXED = 32, /* set by the program, not by the user; with RESUME: a system's count that
                   checkpoints keep */
    RESUME = 64, /* may change when a run is resumed */
    QUIET = 128, /* for options that come later: left out of files while at its default,
                   which must mean "off" and never change, so that old files stay valid */
    TEXT = 256,  /* encode, decode */
    EXPORT = 512
};

/* clang-format off */
#define GOLF_OPTIONS(X) \
    X(MODEL | FIXED, INT, vocab, "4096", "1 to 65536", "V, pieces of the tokenizer") \
    X(MODEL, INT, width, "fit", "fit|8 to 16384", "C; fit: widest multiple of 8 (or more) in cap, then F") \
    X(MODEL, INT, heads, "2", "1 to 256", "H, attention heads; head_dim = width/heads is even") \
    X(MODEL | QUIET, INT, kv_heads, "0", "0 to 256", "key/value heads (GQA); 0 = heads") \
    X(MODEL, INT, mlp, "4", "1 to 16", "hidden width of the MLP = mlp * width") \
    X(MODEL | QUIET, INT, hidden, "0", "0|8 to 1048576", \
      "F, hidden width; 0 = mlp * width (swiglu: 2/3 of it)") \
    X(MODEL | QUIET, INT, act, "relu2", "relu2|relu|silu|swiglu", \
      "of the MLP; swiglu: silu(Wgate u) * Wup u, a third matrix") \
    X(MODEL | QUIET, INT, rope, "full", "full|half", "how much of a head turns with the position") \
    X(MODEL, INT, seq, "256", "8 to 65536", "T, tokens per sequence") \
    X(MODEL, INT, unique, "1", "1 to 64", "U, distinct blocks in the loop") \
    X(MODEL, INT, repeat, "4", "1 to 64", "R, uses of each; unique=P repeat=1 is flat") \
    X(MODEL, INT, order, "cycle", "cycle|sequence", "phase p uses block p%U or p/R") \
    X(MODEL | QUIET, INT, prelude, "0", "0 to 64", "unshared blocks before the loop") \
    X(MODEL | QUIET, INT, coda, "0", "0 to 64", "unshared blocks after the loop") \
    X(MODEL, INT, mix, "vector", "none|scalar|vector", "input injection h = mix0*h + mix1*x0") \
    X(MODEL, INT, gain, "vector", "none|scalar|vector", "gains of the two block RMSNorms") \
    X(MODEL, INT, gate, "vector", "none|scalar|vector", "gates on the two residual branches") \
    X(MODEL, INT, qgain, "vector", "none|scalar|vector", "query gain per head, or one, or 1.5") \
    X(MODEL, INT, extra_norm, "out", "none|out|each", "RMSNorm before Wo, Wdown | before all") \
    X(MODEL, INT, xgain, "scalar", "none|scalar|vector", "gains of the extra RMSNorms") \
    X(MODEL, INT, phase, "1", "0|1", "interface copies: 1 = per phase, 0 = per block") \
    X(MODEL | QUIET, INT, phase_embed, "0", "0|1", "add a learned e[p] to h before phase p") \
    X(MODEL, INT, wq, "int4", "none|ternary|int3|int4|int5|int6|int7|int8", \
      "projection weights; none: bf16") \
    X(MODEL | QUIET, INT, wscale, "auto", "tensor|row|group|auto", \
      "a scale per copy, row, 128 of a row; auto: copy, integers: row") \
    X(MODEL, INT, aq, "int8", "none|int8|int4", "inputs of projections, per token; int4: down has int8") \
    X(MODEL, INT, embed_bits, "4", "3 to 8|16", "tied embedding: codes, scale per row; bf16") \
    X(TRAIN | EVAL | RESUME, STR, data, "data/sotu", "", "folder of token shards") \
    X(TRAIN | EVAL | SAMPLE | TEXT | EXPORT | RESUME, STR, tokenizer, "", "", "default: beside data or model") \
    X(TRAIN | RESUME, STR, out, "", "", "run folder; default runs/PRESET") \
    X(TRAIN | INFO | RESUME, INT, cap, "256000", "1000 to 2000000000", "bytes of model.golf") \
    X(TRAIN | RESUME, NUM, squeeze, "1", "0.1 to 1", "coded size / packed size that fit reckons with") \
    X(TRAIN | QUIET, INT, fit, "packed", "packed|coded", \
      "coded: --squeeze is predicted, the embedding's step then steered to the cap") \
    X(TRAIN | QUIET | FIXED | RESUME, INT, embed_grid, "0", "-1280 to 1792", \
      "the embedding's step is 2^(embed_grid/256) of that of --embed_bits") \
    X(TRAIN | SAMPLE, INT, seed, "1", "0 to 2147483647", "of init, data order, sampling") \
    X(TRAIN, INT, shuffle, "1", "0|1", "0: the text in its order") \
    X(TRAIN, INT, steps, "6000", "1 to 100000000", "optimizer steps; schedules span them") \
    X(TRAIN | RESUME, NUM, minutes, "0", "0 to 100000", "> 0: fewer steps to fit") \
    X(TRAIN, INT, batch, "8", "1 to 65536", "B, sequences per step") \
    X(TRAIN | QUIET, INT, accum, "1", "1|2|4|8|16|32|64|128|256|512|1024", \
      "G, groups that a step's B sequences go through the model in: memory for B/G") \
    X(TRAIN, INT, optimizer, "muon", "adamw|muon", "of the projections; the rest: AdamW") \
    X(TRAIN, NUM, lr, "0.004", "0 to 10", "peak rate of matrices that AdamW trains") \
    X(TRAIN, NUM, lr_muon, "0.03", "0 to 10", "peak rate of the projections with Muon") \
    X(TRAIN, NUM, momentum, "0.95", "0 to 0.9999", "decay of Muon's average of gradients") \
    X(TRAIN, NUM, lr_embed, "0.005", "0 to 10", "of the embedding") \
    X(TRAIN, NUM, lr_interface, "0.005", "0 to 10", "of gates, gains, mixes, phase embeddings") \
    X(TRAIN, NUM, beta1, "0.9", "0 to 0.9999", "AdamW first moment decay") \
    X(TRAIN, NUM, beta2, "0.95", "0 to 0.99999", "AdamW second moment decay") \
    X(TRAIN | QUIET, NUM, eps_embed, "1e-08", "1e-9 to 1", "AdamW's epsilon for the embedding") \
    X(TRAIN, NUM, wd, "0", "0 to 10", "decoupled weight decay of the projections") \
    X(TRAIN, INT, schedule, "linear", "linear|two_stage", "constant then linear | BitNet's") \
    X(TRAIN, NUM, warmup, "0.04", "0 to 1", "fraction of the steps with rising rate") \
    X(TRAIN, NUM, warmdown, "0.3", "0 to 1", "fraction of the steps with falling rate (linear)") \
    X(TRAIN, INT, bwd, "int16", "int16|fp32", "backward products: floats, or codes of 16 bits (Muon: 12), 1.5 times as fast") \
    X(TRAIN, NUM, clip, "1", "0|1e-9 to 1000000", "global gradient norm limit; 0 = none") \
    X(TRAIN | RESUME, INT, val_every, "0", "0 to 100000000", "steps between; 0 = at the end") \
    X(TRAIN | EVAL | RESUME, INT, val_tokens, "0", "0 to 2000000000", "a prefix; 0 = all") \
    X(TRAIN | RESUME, INT, ckpt_every, "100", "0 to 100000000", "steps between; 0 = at the end") \
    X(TRAIN | RESUME, INT, recompute, "0", "0|1", "keep less of the forward pass, do it twice") \
    X(TRAIN | RESUME, INT, resume, "0", "0|1", \
      "continue the run in --out, after SIGINT, SIGTERM, SIGHUP, a kill or a fault") \
    X(TRAIN | EXPORT | RESUME, INT, overwrite, "0", "0|1", "replace the run in --out, the file --to") \
    X(EVAL, INT, stride, "0", "0 to 65536", "> 0: sliding windows that score STRIDE new tokens") \
    X(TRAIN | EVAL | RESUME | QUIET, INT, certify, "0", "0 to 2147483647", \
      "> 0: proves the score, at places of this seed; train: in result.json") \
    X(SAMPLE, STR, prompt, "", "", "text to continue") \
    X(SAMPLE, INT, tokens, "200", "1 to 1000000", "tokens to write") \
    X(SAMPLE, NUM, temperature, "0.8", "0 to 100", "0 = most likely token") \
    X(SAMPLE, NUM, top_p, "0.95", "0 to 1", "smallest set of tokens with this probability") \
    X(TEXT, INT, lines, "0", "0|1", "0: all input is one text; 1: each line is one") \
    X(EXPORT, STR, to, "", "", "file to write, NAME.safetensors") \
    X(EXPORT, INT, dtype, "float32", "float32|bf16", "of its numbers; bf16: rounded")
/* clang-format on */

enum { MODE_NONE, MODE_SCALAR, MODE_VECTOR }; /* mix, gain, gate, qgain, xgain */
enum { ORDER_CYCLE, ORDER_SEQUENCE };
enum { ACT_RELU2, ACT_RELU, ACT_SILU, ACT_SWIGLU };
enum { ROPE_FULL, ROPE_HALF };
enum { XN_NONE, XN_OUT, XN_EACH };
enum { WQ_NONE, WQ_TERNARY, WQ_INT3 };
enum { AQ_NONE, AQ_INT8, AQ_INT4 };
enum { SCALE_TENSOR, SCALE_ROW, SCALE_GROUP, SCALE_AUTO };
enum { FIT_PACKED, FIT_CODED };
enum { OCTAVE = 256 }; /* of embed_grid: so many make a step twice as large */
enum { OPT_ADAMW, OPT_MUON };
enum { BWD_INT16, BWD_FP32 };
enum { SCHED_LINEAR, SCHED_TWO_STAGE };
enum { DTYPE_FLOAT32, DTYPE_BF16 };

/* Where an option means something: option, condition, and what is missing elsewhere. The
 * command line may not ask for what means nothing; a file may hold it, since it can be
 * older than a row. */
/* clang-format off */
#define GOLF_MEANINGS(M) \
    M(order, c->unique > 1 && c->repeat > 1, "unless --unique and --repeat are above 1") \
    M(phase, c->repeat > 1, "with --repeat=1: each block has one phase") \
    M(xgain, c->extra_norm || !c->xgain, "without --extra_norm") \
    M(wq, wq_means(c), "here: no projection is stored by it") \
    M(wscale, wscale_means(c), "here: no projection is stored with other scales") \
    M(lr, trained_at_lr(c), "here: Muon trains all matrices, see --lr_muon") \
    M(lr_muon, c->optimizer == OPT_MUON, "without --optimizer=muon") \
    M(momentum, c->optimizer == OPT_MUON, "without --optimizer=muon") \
    M(lr_interface, stores_role(c, INTERFACE), "without gates, gains, mixes or the like") \
    M(warmdown, c->schedule == SCHED_LINEAR, "without --schedule=linear") \
    M(seed, c->temperature > 0, "with --temperature=0") \
    M(top_p, c->temperature > 0, "with --temperature=0")
/* clang-format on */

/* Words that systems add to options of the core: wq_NAME is the value of --wq=NAME. */
enum {
    FIRST_WORD = 1000,
#define W(option, word) option##_##word,
#define WORDS
#include "dev/systems/systems.h"
#undef WORDS
#undef W
    END_WORDS
};

#define FIELD_INT(name) int name;
#define FIELD_NUM(name) double name;
#define FIELD_STR(name) char name[1024];
#define X(mask, type, name, def, range, help) FIELD_##type(name)
typedef struct Config {
    GOLF_OPTIONS(X)
#define OPTIONS
#include "dev/systems/systems.h"
#undef OPTIONS
} Config;
#undef X

enum { TYPE_INT, TYPE_NUM, TYPE_STR };

typedef struct {
    int mask, type;
    const char *name, *def, *range, *help;
    size_t at;        /* in Config */
    const char *file; /* where its row stands: the core's, or a system's */
} Option;

/* Ranks: processes that train one model together. The plain program is one of one; see the end
 * of this file. */
#ifdef GOLF_MPI
static int my_rank, n_ranks;
#else
enum { my_rank = 0, n_ranks = 1 };
#endif

/* Sizes that follow from the options. */
static inline int head_dim(const Config *c) { return c->width / c->heads; }
/* --accum: a step's batch goes through the model in groups of rows, one after another. */
static inline int group_rows(const Config *c) { return c->batch / c->accum; }
static inline size_t group_tokens(const Config *c) {
    return (size_t)group_rows(c) * (size_t)c->seq;
}
static inline size_t step_tokens(const Config *c) {
    return (size_t)c->batch * (size_t)c->seq;
}
/* The groups of a rank are halved so often down to one: they are a power of two. */
static inline int halvings(const Config *c) {
    int count = 0;
    for (int groups = c->accum / n_ranks; groups > 1; groups /= 2) count++;
    return count;
}
/* RoPE turns numbers in pairs, all or half of them. */
static inline int rope_step(const Config *c) { return c->rope == ROPE_HALF ? 4 : 2; }
static inline int kv_heads(const Config *c) {
    return c->kv_heads ? c->kv_heads : c->heads;
}
static inline int qk_rows(const Config *c) {
    return (c->heads + kv_heads(c)) * head_dim(c);
}
static inline int qkv_rows(const Config *c) {
    return (c->heads + 2 * kv_heads(c)) * head_dim(c);
}
static inline int is_gated(const Config *c) { return c->act == ACT_SWIGLU; }
/* The three matrices of a gated MLP are together as large as the two of another: 2/3 of
 * the hidden width, in steps of 8. */
static inline int hidden_width(const Config *c) {
    const int wide = c->mlp * c->width;
    if (c->hidden) return c->hidden;
    if (!is_gated(c)) return wide;
    return wide < 12 ? 8 : wide / 12 * 8;
}
static inline int gate_width(const Config *c) {
    return is_gated(c) ? hidden_width(c) : 0;
}
static inline int loop_phases(const Config *c) { return c->unique * c->repeat; }
static inline int phase_count(const Config *c) {
    return c->prelude + loop_phases(c) + c->coda;
}
static inline int block_count(const Config *c) {
    return c->prelude + c->unique + c->coda;
}

/* ------------------------------------------------------------------------------------------
 * Parameter tensors: name, copies, rows, cols, role, mode, initial value. Rows may use
 * the Config c. Matrices start as N(0, init^2); INTERFACE tensors are vectors that start
 * at (and, with mode none, stay at) init. Stored numbers of an INTERFACE row: mode none
 * 0, scalar 1, vector cols, for each copy. */
enum { /* roles: each has its own learning rate and way to be stored */
       EMBED,
       PROJ,
       FACTOR, /* of systems: small matrices that AdamW trains */
       INTERFACE,
       VIRTUAL /* of systems: products of others, neither trained nor stored */
};
enum { ONCE, PER_BLOCK, PER_PHASE, PER_OTHER }; /* OTHER: a system counts its copies */

/* Initial sizes: output projections start smaller by the depth that is applied. */
static inline double init_in(const Config *c) { return 1 / sqrt((double)c->width); }
static inline double init_out(const Config *c, int inputs) {
    return 1 / sqrt(2.0 * phase_count(c)) / sqrt((double)inputs);
}
static inline int xn_mode(const Config *c, int least) { /* gains of the extra RMSNorms */
    return c->extra_norm >= least ? c->xgain : MODE_NONE;
}

/* clang-format off */
#define GOLF_TENSORS(X) \
    X(embed,       ONCE,      c->vocab, c->width, EMBED, MODE_VECTOR, 0.02) \
    X(wqkv,        PER_BLOCK, qkv_rows(c), c->width, PROJ, MODE_VECTOR, init_in(c)) \
    X(wo,          PER_BLOCK, c->width, c->width, PROJ, MODE_VECTOR, init_out(c, c->width)) \
    X(wup,         PER_BLOCK, hidden_width(c), c->width, PROJ, MODE_VECTOR, init_in(c)) \
    X(wgate,       PER_BLOCK, gate_width(c), c->width, PROJ, MODE_VECTOR, init_in(c)) \
    X(wdown,       PER_BLOCK, c->width, hidden_width(c), PROJ, MODE_VECTOR, \
      init_out(c, hidden_width(c))) \
    X(mix0,        PER_PHASE, 1, c->width, INTERFACE, c->mix, 1) \
    X(mix1,        PER_PHASE, 1, c->width, INTERFACE, c->mix, 0) \
    X(phase_embed, PER_PHASE, 1, c->width, INTERFACE, c->phase_embed * MODE_VECTOR, 0) \
    X(g_attn,      PER_PHASE, 1, c->width, INTERFACE, c->gain, 1) \
    X(x_q,         PER_PHASE, 1, c->width, INTERFACE, xn_mode(c, XN_EACH), 1) \
    X(x_k,         PER_PHASE, 1, c->width, INTERFACE, xn_mode(c, XN_EACH), 1) \
    X(x_v,         PER_PHASE, 1, c->width, INTERFACE, xn_mode(c, XN_EACH), 1) \
    X(q_gain,      PER_PHASE, 1, c->heads, INTERFACE, c->qgain, 1.5) \
    X(x_attn,      PER_PHASE, 1, c->width, INTERFACE, xn_mode(c, XN_OUT), 1) \
    X(gate_attn,   PER_PHASE, 1, c->width, INTERFACE, c->gate, 1) \
    X(g_mlp,       PER_PHASE, 1, c->width, INTERFACE, c->gain, 1) \
    X(x_up,        PER_PHASE, 1, c->width, INTERFACE, xn_mode(c, XN_EACH), 1) \
    X(x_mlp,       PER_PHASE, 1, hidden_width(c), INTERFACE, xn_mode(c, XN_OUT), 1) \
    X(gate_mlp,    PER_PHASE, 1, c->width, INTERFACE, c->gate, 1)
/* clang-format on */

#define X(name, copies, rows, cols, role, mode, init) T_##name,
enum {
    GOLF_TENSORS(X)
#define TENSORS
#include "dev/systems/systems.h"
#undef TENSORS
        N_TENSORS
};
#undef X

enum { LEDGER_CORE, LEDGER_EMBEDDING, LEDGER_INTERFACE, LEDGER_PROTECTED, LEDGER_LINES };

typedef struct Tensor Tensor;
struct Quantizer;
/* Where the gradient of n weights w passes: mask 1, else 0; scale s, codes as t has
 * them. */
typedef void Passes(uint8_t *mask, const real *w, int n, real s, const Tensor *t);

/* A parameter tensor at run time. Every stored copy is (rows, cols), row-major. */
struct Tensor {
    const char *name;
    int role, mode, per; /* a row of the table */
    int rows, cols;      /* what layers see */
    int stored_copies,
        stored_cols; /* what is trained and stored: see expand, section 5 */
    double init;
    size_t n, at;        /* stored numbers, and where they start in the arenas of Golf */
    size_t at_interface; /* INTERFACE: where it starts in a phase of m->interface */
    size_t at_scale;     /* where the scales start */
    const struct Quantizer *quant;
    int bits;
    size_t line, group; /* a scale per group of weights; a group is (part of) a line */
    int half;           /* weight = scale * (code + half/2) */
    real coarse;        /* > 0: its steps are so many times what its quantizer says */
    Passes *passes;     /* NULL: the gradient passes everywhere */
    int float_only;     /* not to be multiplied as codes */
    int both_ways;      /* packed for x W too, also when nothing is trained */
    int split;          /* rows of q, k and v: with m->split_qkv three ranges */
    int muon_parts;     /* 3: Muon takes the rows of q, k and v apart */
    int shares;         /* > 0: uses the scales of tensor number shares - 1 */
    double own_rate;    /* > 0: AdamW trains it, at this peak rate, never Muon */
    int extra[4];       /* what a system's quantizer wants to know */
    int ledger;         /* LEDGER_*: the purpose of its bytes */
    /* per stored copy: numbers, scales and bytes; from copy to copy; bytes of all
     * copies */
    size_t copy_n, copy_scales, copy_bytes, scale_stride, bytes;
    size_t coded; /* bytes in the file, once it is saved or loaded */
    uint32_t crc; /* of these */
};

static inline int is_matrix(const Tensor *t) {
    return t->role != EMBED && t->role != INTERFACE;
}
static inline int is_stored(const Tensor *t) { return t->n && t->role != VIRTUAL; }

/* ------------------------------------------------------------------------------------------
 * Section 4, quantizers. A row says how one stored copy w (rows, cols) becomes codes and
 * scales, how these become what the forward pass uses (eff), and how they become bytes
 * and come back. eff is a function of codes and scales alone: the number that trains is
 * the number that ships. Domain: codes multiply only with inputs of the same domain; 0 is
 * the plain one, in which codes stand for scale * (code + half/2); -1: there are no
 * codes. */
struct Coder;
typedef struct Quantizer {
    const char *name;
    int bits; /* nominal, per weight; 0: those of the tensor */
    int domain;
    size_t (*scales)(const Tensor *t); /* scales of a copy */
    size_t (*bytes)(const Tensor *t);  /* stored bytes of a copy, scales included */
    void (*quantize)(int8_t *code, real *scale, uint8_t *mask, const real *w,
                     const Tensor *t);
    void (*dequantize)(real *eff, const int8_t *code, const real *scale, const Tensor *t);
    /* d(eff) to d(w), in place; mask NULL: the identity, straight through */
    void (*backward)(real *dw, const uint8_t *mask, const Tensor *t);
    void (*pack)(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t);
    int (*unpack)(int8_t *code, real *scale, const uint8_t *in,
                  const Tensor *t); /* 0: impossible */
    /* part of parts of a copy through the range coder, either way; 0: impossible (section
     * 8) */
    int (*coded)(struct Coder *r, const Tensor *t, int8_t *code, real *scale, size_t part,
                 size_t parts);
    int one_stream; /* parts is 1, however large the copy is */
} Quantizer;

/* ------------------------------------------------------------------------------------------
 * Files, all little-endian. The artifact (model.golf):
 *
 *     0   8  "GOLF\r\n\x1a\n"           a text-mode copy or a cut file shows at once
 *     8   4  version, 2
 *    12   4  size of the whole file
 *    16   4  CRC-32 of the tokenizer's .model file
 *    20   4  n, bytes of config
 *    24   4  t, number of tensors that hold numbers
 *    28   n  config: key=value lines in any order: the MODEL options of the core but the QUIET
 *            ones at their defaults; of systems what is not at its default, and then a line
 *            systems=NAME,... : what a reader must have
 *     .  8t  per tensor that holds numbers: payload length, CRC-32 of the payload
 *     .   4  CRC-32 of all bytes above
 *     .   .  payloads in the order of the tensor table, systems behind the core in the order of
 *            dev/systems/systems.h; copies one after another
 *
 * CRC-32 is that of zip and PNG, a bf16 number the upper half of a float. A weight on a grid
 * is scale * code; a scale is that of the copy, of a row, or of 128 weights of a row (the last
 * ones may be fewer), as wscale says, of integers in any case no more than a row.
 *
 * A payload as long as the tensor's packed size is packed, a shorter one is coded. Packed, a
 * copy on a grid is its bf16 scales, then its codes: ternary ones 5 to a byte, base 3, lowest
 * first, value code + 1; others as code + 2^(bits-1), lowest bit first, without gaps. Without
 * codes (the interface, weights in 16 bits) it is bf16 numbers. Systems describe what they
 * add.
 *
 * Coded, a copy of n weights is 1 + n / 2^20 streams, part i of k of its scales (from S i / k
 * on, of S) and, behind them, of its codes; without codes, of its numbers. The payload is the
 * lengths of all streams (u32), then these, copy after copy. A stream is an adaptive binary
 * range coder's. Its decoder has range = 2^32 - 1 and code = the first four bytes, the
 * highest first. A bit has a node (p, n), which starts as (2^15, 0):
 *
 *     bound = (range >> 16) * p,  rate = 131072 / (2 n + 3)        integers, as everything
 *     bit 0 (code < bound):  range = bound,                   p += (65535 - p) * rate >> 16
 *     bit 1:                 range -= bound, code -= bound,   p -= p * rate >> 16
 *     then p into 36 .. 65500, n + 1 up to 255, and while range < 2^24:
 *     range <<= 8, code = code << 8 | next byte
 *
 * A symbol is a path down a tree of nodes, its highest bit first: from node 1 to 2 node + bit.
 * Trees are new in each stream.
 *     bf16        the upper byte in one tree, then the lower one in a tree of that upper byte
 *     ternary     two bits: 0, or 2 for -1, 3 for 1
 *     integers    code + 2^(bits-1), of which the first four bits have a tree for each column
 *                 where the tensor has 1,000 rows or more (a column of the embedding has a
 *                 mean and a size of its own: 2.8 bits for 3.2 without, of 4), else one for
 *                 all; the others go on, from the node reached, in one for all
 *
 * What a reader computes is the drawing at the head of train_golf.c, and:
 *     phase_embed=1: h = mix0*prev + mix1*x0 + phase_embed; extra_norm=each: Wq, Wk, Wv and Wup
 *     have an RMSNorm with the gain x_q, x_k, x_v or x_up before them, behind the block's; none:
 *     Wo and Wdown have none. A vector that is not stored is what it starts as (GOLF_TENSORS)
 *     RMSNorm(x) = x / sqrt(mean(x^2) + 1e-6), also without a gain behind the embedding, before
 *     the head and, per head, of q and k; x0 is the embedding's row, normed
 *     inputs of projections: of each token codes round(x * (127 / m)), ties to even, that stand
 *     for code * (m / 127), m = max(|x|, 1e-5) (int4: 7 for 127, but for Wdown); of the head,
 *     where the embedding has codes, with 32767 and 1e-20
 *     rows of Wqkv: the heads of q, those of k, those of v; query head h sees key head
 *     h / (heads / kv_heads); scores are q k / sqrt(D), causal in the row
 *     RoPE, behind norm and gain: of a head (x[i], x[i + D/2]) = (a, b) becomes (a cos + b sin,
 *     b cos - a sin), angle position * 10000^(-2i/D); rope=half: D/2 for D, and 0 from i = D/4 on
 *     logits = 30 tanh(E h / 30), loss = -log softmax in nats; rows of seq tokens
 *
 * The checkpoint (ckpt.bin): "GOLFCKPT", version u32, sizeof(real) u32, step u64, flips
 * u64, n u64 parameters, config length u32, CRC-32 u32 of the tokenizer's .model file and
 * u32 of the files that the run depends on (see depends_on; 0: none; version 1 lacks these
 * two), config (MODEL and TRAIN options, as above), then the master weights, the first and
 * the second moments (n reals each), then the CRC-32 of all bytes above. */
#define GOLF_MAGIC "GOLF\r\n\x1a\n"
#define CKPT_MAGIC "GOLFCKPT"
enum { GOLF_VERSION = 2, CKPT_VERSION = 2 };

/* Section 1: errors, memory, numbers. */
_Noreturn void golf_die(const char *file, int line, const char *fmt, ...);
#define die(...) golf_die(__FILE__, __LINE__, __VA_ARGS__) /* on stderr, exit status 1 */
/* zeroed, on a cache line, or dies; release with free() */
void *xcalloc(size_t n, size_t size);
uint8_t *read_file(const char *path, size_t *len); /* the whole file and a NUL, or dies */

typedef struct {
    const void *data;
    size_t len;
} Part;

/* Writes the parts to path.tmp, flushes, fsyncs and renames: path is the old or the new
 * file, never half of one. Dies on any error and removes path.tmp. */
void write_parts(const char *path, const Part *parts, int n);
void write_file(const char *path, const void *data, size_t len);
uint32_t crc32_of(uint32_t crc, const void *data, size_t len); /* start with 0; chains */
uint32_t crc_of_file(const char *path); /* of the whole file, or dies */
uint16_t to_bf16(real x);               /* round to nearest even */
real from_bf16(uint16_t b);
uint64_t hash64(uint64_t a,
                uint64_t b); /* the only source of randomness: pure functions */
double uniform01(uint64_t key, uint64_t i);
/* In place of the C library's, each of which rounds in its own way. */
double exp_of(double x);
double log_of(double x);
double pow_of(double x, double y); /* x > 0, or x = 0 and y > 0 */
double sin_of(double x);           /* |x| up to 2^20 */
double cos_of(double x);
double now(void); /* seconds, monotonic */

/* Section 2: matmul. One operand of a product: element (i, j) stands at stored row i,
 * column j, or with trans at stored row j, column i; stored rows are ld apart. Either f
 * holds numbers, or q codes of 8 bits (inputs), or h codes of up to 16 bits (gradients of
 * outputs, and what else is rounded for a product). A code stands for code *
 * row_step[stored row]; or, with `steps`, code * steps[stored row / STEP_ROWS * ld +
 * column] (operands of gemm_codes alone); or else for code * step. */
enum { STEP_ROWS = 28 };
typedef struct {
    const real *f;
    const int8_t *q;
    const int16_t *h;
    const real *row_step, *steps;
    real step;
    size_t ld;
    int trans;
} Mat;

static inline Mat mat(const real *f, size_t ld) { return (Mat){.f = f, .ld = ld}; }
static inline Mat mat_q(const int8_t *q, const real *row_step, size_t ld) {
    return (Mat){.q = q, .row_step = row_step, .ld = ld};
}
static inline Mat mat_h(const int16_t *h, const real *row_step, size_t ld) {
    return (Mat){.h = h, .row_step = row_step, .ld = ld};
}
static inline real mat_step(Mat x, size_t row) {
    return x.row_step ? x.row_step[row] : x.step;
}

static inline Mat transposed(Mat x) {
    x.trans = !x.trans;
    return x;
}
static inline Mat mat_t(const real *f, size_t ld) { return transposed(mat(f, ld)); }

/* The view that starts at element (i,j); with steps, at the first of STEP_ROWS rows. */
static inline Mat mat_at(Mat x, size_t i, size_t j) {
    const size_t row = x.trans ? j : i;
    const size_t col = x.trans ? i : j;
    if (x.f) {
        x.f += row * x.ld + col;
        return x;
    }
    if (x.q) x.q += row * x.ld + col;
    if (x.h) x.h += row * x.ld + col;
    if (x.row_step) x.row_step += row;
    if (x.steps) x.steps += row / STEP_ROWS * x.ld + col;
    return x;
}

static inline int mat_code(Mat x, size_t i, size_t j) {
    x = mat_at(x, i, j);
    return x.q ? *x.q : *x.h;
}

static inline real mat_get(Mat x, size_t i, size_t j) {
    x = mat_at(x, i, j);
    if (x.f) return *x.f;
    if (x.steps) return (real)*x.h * *x.steps;
    return (real)(x.q ? *x.q : *x.h) * mat_step(x, 0);
}

/* Codes (rows, cols) packed for the integer product, once per optimizer step. */
typedef struct {
    uint8_t *panel;
    int rows, cols;
    uint32_t *stream; /* 2 bits per code, for one token at a time */
} IntWeights;

/* Codes b(k,n) packed for gemm_16, once per optimizer step. */
typedef struct {
    int32_t *panel;     /* two codes a word */
    int16_t *ratio;     /* (k) what the codes of a are multiplied by first, or NULL */
    const real *column; /* (n) steps of b's columns, or NULL */
    real scale;
    int k, n, terms; /* terms: how many fit a sum */
} Weights16;

/* b(k,n) packed for gemm_panels, once per optimizer step. */
typedef struct {
    real *panel;
    int k, n;
} Panels;

/* Largest codes of a and b such that `most` of their products fit an int32. */
typedef struct {
    int a, b, most;
} Terms;

typedef struct { /* one product of gemm_all: c(m,n) = or += (acc) a(m,k) b(k,n) */
    real *c;
    size_t ldc;
    Mat a, b;
    int m, n, k, acc;
    const Terms *terms; /* NULL: in floating point */
} Gemm;

/* c(m,n) = or += (acc) a(m,k) b(k,n), in floating point; rows of c are ldc apart. */
void gemm_naive(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc);
void gemm(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc); /* fast */
void gemm_all(const Gemm *g, int count); /* independent products, by all threads */

/* p = b(k,n), allocated where its shape is new; then c(m,n) = or += (acc) a(m,k) b, by the
 * thread that calls. */
void panels_pack(Panels *p, Mat b, int k, int n);
void gemm_panels(real *c, size_t ldc, Mat a, const Panels *b, int m, int acc);

/* w = codes (rows,cols), allocated where their shape is new; and of codes -1, 0, 1 once more
 * in 2 bits, which one token alone reads. */
void int_pack(IntWeights *w, const int8_t *codes, int rows, int cols);
void int_pack_stream(IntWeights *w);
/* y(n,m) = (x(n,k) codes(m,k)^T) * (s * step[row of x]), the sum of codes exact; rows of y
 * are ldy apart. By the thread that calls. */
void gemm_int_naive(real *y, size_t ldy, const int8_t *x, const real *step,
                    const int8_t *codes, real s, int n, int m, int k);
void gemm_int(real *y, size_t ldy, const int8_t *x, const real *step, const IntWeights *w,
              real s, int n);

/* One block: c(m,n) = or += (acc) (sum over k of fraction(a, ratio[k]) * b) * scale[row] *
 * column[col]; a(m,k) and b(k,n) are codes of 16 or 8 bits; no ratio or column: 1. */
void gemm_codes_naive(real *c, size_t ldc, Mat a, const int16_t *ratio, Mat b,
                      const real *scale, const real *column, int m, int n, int k,
                      int acc);
/* w = b(k,n), codes up to top, allocated where their shape is new. They stand for code *
 * scale * b.row_step[stored row], or code * scale where row_step is NULL. */
void weights_16_pack(Weights16 *w, Mat b, int k, int n, int top, real scale);
void weights_16_free(Weights16 *w);
/* c(m,n) = a(m,k) b: a codes of 16 bits, b packed; by the thread that calls. */
void gemm_16(real *c, size_t ldc, Mat a, const Weights16 *w, int m);
/* g of two operands in codes, as many terms to a sum as g->terms says; likewise. */
void gemm_codes(const Gemm *g);

/* Section 4. Numbers as codes of -top..top, one step per row (a token; Muon: a matrix): q =
 * rint(x / step), step = absmax / top, absmax at least 1e-20. x (N,K), its rows ld apart -> q
 * (N,K), step (N). A row in which a number is none, or infinite, has the step NaN: so has what
 * is computed from it. */
void round_rows(int16_t *q, real *step, const real *x, size_t ld, int N, int K, int top);

/* ------------------------------------------------------------------------------------------
 * Section 5, the model. N = B*T tokens, K = width of the input. The input of a
 * projection, as the matmul sees it: codes q (N,K) with step (N), one for each token,
 * or numbers x (N,K); mask (N,K), of inputs that have one: where the gradient passes. */
typedef struct {
    real *x, *step;
    int8_t *q;
    uint8_t *mask;
} Act;

typedef struct Golf Golf;

/* How the inputs of a projection are quantized. */
typedef struct Inputs {
    void (*quantize)(const Golf *m, Act *a, const real *x, int N, int K, int tensor);
    /* d(quantized) to d(x), in place; NULL: the gradient passes as if nothing was
     * rounded */
    void (*backward)(const Golf *m, const Act *a, real *dx, int N, int K, int tensor);
    int top;    /* the largest code, 0: none */
    int domain; /* as of quantizers; -1: the product must not read codes */
    int has_x, has_q, has_mask; /* the buffers that it fills */
} Inputs;

/* clang-format off */
/* Buffers: name, numbers per token. What the backward pass needs of one phase; r_* hold
 * 1/rms per token. With recompute=1 only `out` is kept per phase. */
#define PHASE_REALS(X) \
    X(h, c->width)             /* after input injection */ \
    X(r_attn, 1) X(r_each, 1)  /* of h; of the norms before q, k, v */ \
    X(qkv, qkv_rows(c))        /* as projected */ \
    X(qk, qk_rows(c))          /* q, k after norm, gain and RoPE */ \
    X(att, c->width)           /* heads side by side */ \
    X(lse, c->heads)           /* log-sum-exp of the scores */ \
    X(r_xo, 1)                 /* of att */ \
    X(o, c->width)             /* att, projected */ \
    X(mid, c->width)           /* the stream after attention */ \
    X(r_mlp, 1) X(r_up, 1)     /* of mid; of the norm before up */ \
    X(f, hidden_width(c))      /* before the activation */ \
    X(f_gate, gate_width(c))   /* what it multiplies f with, if it is gated */ \
    X(r_xd, 1)                 /* of the norm before down */ \
    X(y, c->width)             /* the MLP's output */ \
    X(out, c->width)           /* the stream after the MLP */
#define PHASE_ACTS(X)          /* in_q serves q, k and v unless extra_norm=each */ \
    X(in_q, wqkv, c->width) \
    X(in_k, wqkv, c->extra_norm == XN_EACH ? c->width : 0) \
    X(in_v, wqkv, c->extra_norm == XN_EACH ? c->width : 0) \
    X(in_o, wo, c->width) \
    X(in_up, wup, c->width) \
    X(in_down, wdown, hidden_width(c))
#define FORWARD_REALS(X) \
    X(e, m->tensor[T_embed].cols)  /* rows of the embedding */ \
    X(r_e, 1) X(x0, c->width)      /* normed: what the first phase starts from */ \
    X(hn, c->width) X(r_out, 1)    /* the last stream, normed */ \
    X(lse, 1) X(loss, 1)           /* of the logits */
#define FORWARD_CODES(X) \
    X(z_h, m->tensor[T_embed].cols) /* what the head multiplies by the embedding */
#define BACKWARD_REALS(X) \
    X(dh, c->width)                /* of the stream, whatever phase it is in */ \
    X(dx0, c->width) \
    X(dqk, qk_rows(c)) X(dqkv, qkv_rows(c)) X(datt, c->width) X(d_o, c->width) \
    X(df, hidden_width(c)) X(df_gate, gate_width(c)) X(dy, c->width)
#define BACKWARD_CODES(X)          /* of bwd=int16 */ \
    X(dqkv_h, qkv_rows(c)) X(d_o_h, c->width) X(df_h, hidden_width(c)) \
    X(df_gate_h, gate_width(c)) X(dy_h, c->width)
#define ADAPTER_REALS(X)           /* with an adapter (see below); else x = e, z = hn, de = dy */ \
    X(x, c->width) X(z, m->tensor[T_embed].cols) \
    X(de, m->tensor[T_embed].cols) X(dz, m->tensor[T_embed].cols)
/* clang-format on */

/* Gradients of outputs, rounded: h (N,n), and the step of each token, (N), or of each
 * column of STEP_ROWS tokens, (CEIL(N,STEP_ROWS),n). */
typedef struct {
    int16_t *h;
    real *step;
} Rounded;

#define CODES_FIELD(name, n) Rounded name;
#define REAL_FIELD(name, n) real *name;
#define ACT_FIELD(name, tensor, n) Act name;
typedef struct {
    PHASE_REALS(REAL_FIELD)
    PHASE_ACTS(ACT_FIELD)
} PhaseBuffers;

typedef struct { /* buffers that exist once, whatever phase it is */
    FORWARD_REALS(REAL_FIELD)
    FORWARD_CODES(CODES_FIELD)
    BACKWARD_REALS(REAL_FIELD)
    BACKWARD_CODES(CODES_FIELD)
    ADAPTER_REALS(REAL_FIELD)
} Flow;

typedef struct {
    IntWeights codes;
    Weights16 back_codes;
    Panels forward, back;
} Packed; /* W for y = x W^T and for dx = dy W, each as codes or numbers */

enum { HALVINGS = 10 }; /* of --accum, at most */

enum {
    CHUNK = 42,             /* tokens that one thread takes through layer after layer */
    HEAD_CHUNK = STEP_ROWS, /* 28: the same for the head, whose rows are V long */
    HEAD = 37 * HEAD_CHUNK  /* 1036 tokens, whose logits exist at one time */
};

#define X(name) SYS_##name,
enum {
#define LIST
#include "dev/systems/systems.h"
#undef LIST
    N_SYSTEMS
};
#undef X

struct Golf {
    Config config;
    Tensor tensor[N_TENSORS];
    int phases, copies;                     /* copies: the most that a tensor has */
    size_t n_params, n_scales, n_interface; /* n_interface: vectors' numbers in a phase */
    real *master, *grad, *moment1, *moment2; /* (n_params) absent in a loaded model */
    real *half[HALVINGS];  /* (n_params) as groups_backward needs them */
    real *eff;             /* (n_params) what the forward pass uses */
    int8_t *code, *before; /* (n_params) now, and before the last step (to count flips) */
    real *scale;           /* (n_scales) */
    uint8_t *mask;  /* (n_params) where the gradient passes, of tensors that mask */
    uint64_t flips; /* changes of projections' codes, summed over all steps */
    uint32_t tokenizer_crc, files_crc; /* of the run's tokenizer; see depends_on */
    char files[1024];                  /* the names of the latter */
    Packed *packed;                    /* per copy of a matrix, 3 row ranges (q, k, v) */
    Panels head, head_back;            /* E^T and E, */
    Weights16 head_codes, head_back_codes; /* or as codes, */
    real *head_factor;                     /* (V) with scales as parts of the largest */
    real *interface, *dinterface; /* (phases,n_interface) vectors as layers see them */
    int train, quantized, step;   /* gradients wanted?; codes there?; steps done */
    int converted;                /* do masters come from a model with other copies? */
    double momentum;              /* of Muon, at this step */
    int T, p;                     /* of this pass: tokens of a row; the phase */
    size_t N;                     /* tokens that the buffers hold */
    PhaseBuffers *phase;          /* (phases); all the same buffers unless training */
    const real **prev;     /* (phases+1) what a phase, and the head, starts from (N,C) */
    int *visits, n_visits; /* phases of a forward pass, in order */
    int learn_from;        /* gradients reach visits[] from here on */
    FORWARD_REALS(REAL_FIELD)
    FORWARD_CODES(CODES_FIELD)
    BACKWARD_REALS(REAL_FIELD)
    BACKWARD_CODES(CODES_FIELD)
    ADAPTER_REALS(REAL_FIELD)
    real *logits;      /* (min(N,HEAD),V) */
    Rounded dlogits_h; /* (min(N,HEAD),V) their gradients, steps of columns, but for */
    real *target_dl;   /* (min(N,HEAD)) the part that only targets have */
    real *partial;     /* (rows_partial,n_interface) gradients of one phase, per chunk */
    size_t rows_partial;
    real *rope, *ones;     /* (seq,D) cos | sin; (C+F) */
    real *kcache, *vcache; /* (phases,seq,KV*D), only when sampling */
    int cached;            /* tokens in the cache */
    void **owned;          /* (n_owned) every allocation, for golf_free */
    int n_owned;
    const Inputs *inputs[N_TENSORS];
    int split_qkv; /* q, k and v have inputs of their own */
    const struct Sublayer *attention, *mlp;
    const struct Activation *act;
    const struct Addition *addition; /* NULL, or what is added to every projection */
    const struct Adapter *adapter; /* NULL, or what stands between embedding and stream */
    const struct System *systems[N_SYSTEMS + 2]; /* those that are on, then NULL */
    const struct System *loss_of;                /* NULL, or whose loss it is */
    void *own[N_SYSTEMS + 1]; /* of each system; the last: of what proves a score */
};

/* Sections 3-6. */
void golf_init(Golf *m, const Config *c,
               int train); /* layout; weights from c->seed when train */
void golf_free(Golf *m);
void golf_buffers(Golf *m, size_t N); /* activations for N tokens at a time */
void golf_cache(Golf *m);             /* key/value cache of seq tokens, B = 1 */
void golf_quantize(Golf *m);          /* masters to codes and scales, then golf_use */
void golf_use(Golf *m);               /* codes and scales to eff, panels, interface */
/* tokens (B,T), targets (B,T) or NULL. Where nothing is learnt, token n leaves its logits in
 * row n % HEAD of m->logits until others come; with targets, its loss in m->loss (N), in nats.
 * Returns the mean loss (0 without targets). With a cache: B = 1, T more tokens. In training, with
 * targets, it does the head's backward, too, as logits are not kept: it clears m->grad,
 * adds the head's part of the embedding's gradient, and leaves d(last stream) in m->dh. */
double golf_forward(Golf *m, const int *tokens, const int *targets, int B, int T);
/* Goes on from m->dh: the phases, the embedding; then m->grad is that of the masters. */
void golf_backward(Golf *m, const int *tokens, int B, int T);
double golf_grad_norm(const Golf *m); /* the L2 norm of m->grad */
/* One update of the masters from m->grad * grad_scale (clipping); steps count from 0. */
void golf_adamw(Golf *m, int step, double grad_scale); /* what Muon does not train */
void golf_muon(Golf *m, int step, double grad_scale);  /* --optimizer=muon: projections */
/* What the peak rates are multiplied by in a step (--schedule, --warmup, --warmdown), and
 * its decoupled weight decay. */
double lr_factor(const Config *c, int step);
double wd_at(const Config *c, int step);
/* Section 10. A batch x, targets y (B,T): forward, backward, update, codes. Returns the loss before it,
 * and the norm of its gradient. Dies if the loss is no number. */
double golf_step(Golf *m, const int *x, const int *y, int step, double *grad_norm);
size_t artifact_bytes(const Config *c); /* at most: packed, before coding */

/* For System.open: a run that is resumed needs this file as it is now. Checkpoints hold a
 * checksum of all such files. */
void depends_on(Golf *m, const char *path);

/* Section 8, files (formats: above). A fault leaves the file that was there, and dies. What is
 * read is checked: a file that is damaged, cut or of another version is refused by name.
 * golf_load makes m, for evaluation, and returns the CRC-32 of the tokenizer that it wants.
 * ckpt_load continues m, initialised with the options asked for, and returns the step; with
 * --minutes the run's length is the checkpoint's. */
void golf_save(Golf *m, const char *path, uint32_t tokenizer_crc);
uint32_t golf_load(Golf *m, const char *path);
void ckpt_save(const Golf *m, const char *path, int64_t step);
int64_t ckpt_load(Golf *m, const char *path);

/* Section 7. Tokenizer: any SentencePiece .model, read directly (format:
 * data/README.md). */
enum {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN,
    PIECE_CONTROL,
    PIECE_USER,
    PIECE_UNUSED,
    PIECE_BYTE
};

typedef struct {
    const uint8_t *text;         /* not NUL-terminated; U+2581 for a space */
    int len, type;               /* in bytes, from 1 on; PIECE_* */
    int base_bytes;              /* of text, without a leading space; 0 where boundary */
    int inner_spaces;            /* U+2581 after the first three bytes */
    int leading_space, boundary; /* starts with U+2581? control, unknown or unused? */
    float score;                 /* merges with a higher score are applied first */
} Piece;

typedef struct Tokenizer {
    int vocab;               /* V, number of pieces */
    int bos, unk;            /* ids; bos -1 when the model has none */
    uint32_t crc;            /* CRC-32 of the .model file: names it in artifacts */
    Piece *piece, shown_unk; /* (V); what unk decodes to */
    char *path;
    const char *refuses; /* why tokenizer_encode dies, or NULL */
    uint8_t *file;       /* the .model itself; pieces point into it */
    size_t size;
    int escapes;     /* are the spaces of a text written as U+2581? */
    int trim_spaces; /* do all but single spaces between other characters go? */
    int dummy_space; /* is a space put before the text, or behind it? */
    int suffix;      /* do spaces end pieces: is it put behind it? */
    struct EncodingTables *own;
} Tokenizer;

/* Dies when path is missing or not a valid model. */
Tokenizer *tokenizer_load(const char *path);
/* Dies if the tokenizer of a checkpoint, or the one beside it, differs. */
void same_tokenizer(const Tokenizer *tok, const char *ckpt);
/* text[0..len) -> malloc'ed ids, *n_out of them, no BOS: exactly the ids of the
 * SentencePiece library. Bytes that are not UTF-8 become U+FFFD, as there, but byte pieces
 * where the tokenizer gives all other text back. Dies on a model with t->refuses: it still
 * decodes and counts bytes. */
int *tokenizer_encode(const Tokenizer *t, const char *text, size_t len, size_t *n_out);
/* ids[0..n) -> bytes to free(), NUL added after *len_out of them. As the library, except
 * that byte pieces always give their raw bytes. Dies on an id outside [0, vocab). */
char *tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, size_t *len_out);
/* Bytes of text that token `tok` stands for when it follows `prev`: the divisor of
 * bpb. */
static inline int tokenizer_bytes(const Tokenizer *t, int prev, int tok) {
    return t->piece[tok].base_bytes +
           (t->piece[tok].leading_space && !t->piece[prev].boundary);
}

/* Shards: tokens on disk (layout: data/README.md). Those of a split are one long
 * sequence. */
enum { SHARD_MAGIC = 20240520, LLAMA3_MAGIC = 20240801, SHARD_HEADER = 1024 };

typedef struct {
    char *path;
    int fd;
    int64_t first, tokens; /* position of its first token; how many it has */
} Shard;

typedef struct Shards {
    Shard *shard; /* (count) in the order of their names */
    int count, vocab;
    int64_t tokens;       /* of all shards */
    struct Shards *bytes; /* bytes of text of each, where files say so; else NULL */
} Shards;

/* All DIR/NAME_SPLIT_*.bin or DIR/NAME_SPLIT.bin, split "train" or "val", and the bytes
 * of their tokens, DIR/NAME_SPLIT_bytes_*.bin. Dies when there is none, one is damaged,
 * or they do not belong together. */
Shards *shards_open(const char *dir, const char *split, int vocab);
/* out[0..count) = tokens [pos, pos+count). Dies on an id >= vocab. */
void shards_read(const Shards *s, int64_t pos, int count, int *out);
/* Gives the files back, not the memory; what is read again opens its file again. */
void shards_close(Shards *s);
/* Dies when a score on these tokens would not count the bytes of their text. */
void check_text_bytes(const Tokenizer *t, const Shards *val);
/* out[0..seq] = training row `row` >= 0 of a run: seq inputs and the last target. There
 * are W = (tokens-1)/seq windows; rows [e*W, (e+1)*W) are epoch e and visit each window
 * once, shuffled. A pure function of (seed, row): to resume a run is to remember a
 * number. */
void shards_train_row(const Shards *s, uint64_t seed, int64_t row, int seq, int shuffle,
                      int *out);

/* Sections 8-10: bytes of an artifact by purpose, a score, what a run ends with. */
typedef struct {
    size_t of[LEDGER_LINES], header, total;
} Ledger;

typedef struct {
    double nll, loss, bpb; /* sum over tokens, per token, in nats; bits per byte */
    int64_t tokens, bytes;
} Score;

/* Scores the validation tokens as Parameter Golf does: rows of seq tokens, each token
 * predicted from those before it in its row, loss summed in double over all targets, bytes
 * from the tokenizer's table. bpb = sum(nll) / ln 2 / bytes. Plain (stride 0): rows do not
 * overlap, a last partial row is left out. Sliding: windows advance by stride and score
 * their last `stride` tokens (the first scores all, the last what remains), so that each
 * token is scored once with at least seq - stride before it. limit > 0 scores a prefix.
 * Dies if there is no row to score. */
Score golf_eval(Golf *m, const Tokenizer *tok, Shards *val, int stride, int64_t limit);

/* Continues how->prompt by how->tokens tokens, or up to the next document, as --temperature,
 * --top_p and --seed say; m has a cache. */
void golf_sample(Golf *m, const Tokenizer *tok, const Config *how, FILE *out);

/* B rows of T tokens that are scored together, row b from token at + b * step of the text
 * on. x (B,T), and the tokens behind each, y (B,T). */
typedef struct {
    const int *x, *y;
    int B, T, step;
    int64_t at;
} Rows;

typedef struct {
    const char *name, *preset;
    double seconds, tok_per_s; /* of `timed` steps: those of a resumed run's log, too */
    int steps, timed;
    Score memory, file;
    char *certificate; /* lines of --certify, or NULL */
} Run;

/* Section 10: the commands; argv without the program, the command and the file. */
int train_main(int argc, char **argv);
int eval_main(const char *path, int argc, char **argv);
int sample_main(const char *path, int argc, char **argv);
int info_main(const char *path, int argc, char **argv);
int encode_main(const char *path, int argc, char **argv); /* path: the tokenizer, too */
int decode_main(const char *path, int argc, char **argv);
int export_main(const char *path, int argc, char **argv);
int bench_main(const char *what, int argc,
               char **argv); /* what: "step", "file" or NULL */
int prepare_main(int argc, char **argv);
int selftest_main(void);
int help_main(void);

/* ------------------------------------------------------------------------------------------
 * Seams: where further systems join. The core is complete without any;
 * dev/systems/systems.h lists those that are compiled in, a line each, and
 * dev/systems/README.md says how one is written. */
typedef struct { /* n tokens from n0 on in phase p, and their buffers */
    int p, n0, n;
    PhaseBuffers s;
    Flow f;
} Chunk;
typedef void Stage(Golf *m, const Chunk *k);      /* one thread, one chunk */
typedef void Whole(Golf *m, int p, int B, int T); /* all tokens, all threads */

enum { MOST_DW = 256 }; /* products dW of a phase */

/* Attention takes h to mid, the MLP mid to out, in stages. Attention has all of them; of
 * the MLP `before` and `across` may be NULL, and then so are their backwards. */
typedef struct Sublayer {
    Stage *before;
    Whole *across; /* where tokens meet */
    Stage *after;
    Stage *after_backward; /* in this order */
    Whole *across_backward;
    Stage *before_backward;
    int (*dw)(const Golf *m, int p, int N,
              Gemm *to); /* appends products, returns how many */
} Sublayer;

/* What stands between the up and the down projection.  out, f (N,F), gate (N,F) of one that
 * is gated; df holds dout on entry. */
typedef struct Activation {
    void (*forward)(real *out, const real *f, const real *gate, int N, int F);
    void (*backward)(real *df, real *dgate, const real *f, const real *gate, int N,
                     int F);
} Activation;

/* What a system adds to projection k (row range r) in phase p: to y, to dx; its own
 * gradients. */
typedef struct Addition {
    void (*y)(const Golf *m, real *y, size_t ldy, Mat x, int k, int p, int r, int N);
    void (*dx)(const Golf *m, real *dx, Mat dy, int k, int p, int r, int N);
    void (*dw)(const Golf *m, const Gemm *w,
               int p); /* w: the product of the projection's dW */
} Addition;

/* Between an embedding of E columns and the stream of C: a linear map and its adjoint. */
typedef struct Adapter {
    void (*widen)(const Golf *m, real *x, const real *e, int n);   /* (n,E) to (n,C) */
    void (*narrow)(const Golf *m, real *z, const real *hn, int n); /* (n,C) to (n,E) */
    void (*narrow_backward)(const Golf *m, real *dhn, const real *dz, int n);
    void (*narrow_dw)(Golf *m, int n0, int n); /* its gradient, from m->hn and m->dz */
    void (*widen_backward)(Golf *m,
                           int N); /* m->dy is d(x): fills m->de, and its gradient */
} Adapter;

/* What two systems cannot change at the same time. One that `takes` a thing excludes all
 * others that take or use it; those that use it get along. */
enum {
    RES_MLP = 1,                  /* the MLP's stages */
    RES_ATTENTION = 2,            /* attention's stages */
    RES_MLP_COPIES = 4,           /* how many copies the MLP's matrices have */
    RES_ATTENTION_COPIES = 8,     /* and attention's */
    RES_COPIES = 16,              /* that copies are those of the core */
    RES_MLP_ADDITIONS = 32,       /* additions to the MLP's projections */
    RES_ATTENTION_ADDITIONS = 64, /* and to attention's */
    RES_ESTIMATOR = 128,          /* how gradients pass the rounding of weights */
    RES_INPUTS = 256,             /* and that of inputs */
    RES_PIECES = 512,             /* that every group of weights has one scale */
    RES_DEPTH = 1024,             /* which phases run */
    RES_DONOR = 2048,             /* a trained model to start from */
    RES_LOSS = 4096,              /* what is minimised */
    RES_EMBEDDING = 8192          /* the embedding's columns */
};

typedef struct System { /* every pointer but `on` may be NULL */
    const char *name;
    const char *needs;             /* the option that turns it on, as text for messages */
    int (*on)(const Config *c);    /* do its options ask for it? */
    int (*takes)(const Config *c); /* RES_* */
    int (*uses)(const Config *c);
    int gives, wants; /* RES_DONOR: it brings one; it cannot train without one */
    /* of one that is on: die on options that do not fit. check: on MODEL options, which
     * are all that a file brings; check_run: on those of training, too */
    void (*check)(const Config *c);
    void (*check_run)(const Config *c);
    int (*multiple)(const Config *c); /* of what widths --width=fit takes, from 1 on */
    /* the model, in this order: shapes, copies, roles, m->attention, m->inputs, ... */
    void (*shape)(Golf *m);
    int (*store)(const Golf *m, Tensor *t); /* 1: this tensor's quantizer is chosen */
    void (*estimator)(const Golf *m,
                      Tensor *t); /* t->passes, once its quantizer is chosen */
    void (*buffers)(Golf *m, size_t N);
    /* masters: after random ones (from NULL), or those of a trained model; convert: it
     * has other copies, and what it computed is to be kept */
    void (*start)(Golf *m, const Golf *from, int convert);
    /* of a converted model, once its own masters are quantized: what makes up for the
     * rest of what the donor computed. The eff of both is what they multiply with. */
    void (*fit)(Golf *m, const Golf *from);
    /* of a new model: masters, and codes, as far as training will certainly change them.
     * --fit=coded predicts the bytes of its file */
    void (*foresee)(Golf *m);
    void (*open)(Golf *m, const Tokenizer *tok, int resumes); /* a run: files it needs */
    void (*release)(Golf *m);                  /* before the model is freed */
    void (*loaded)(Golf *m, const char *path); /* a checkpoint was read */
    void (*eval)(Golf *m, const Config *how);  /* of all systems: before `eval` scores */
    /* of all systems: dies, before `eval` scores, on what `again` could not do with m */
    void (*check_again)(Golf *m, const Tokenizer *tok, const Config *how);
    /* of all systems: does `eval` print another score, NAME_bpb, which is this system's? It
     * joins m, read from the file anew, and needs a report. */
    int (*again)(Golf *m, const Tokenizer *tok, const Config *how);
    /* a training step, in this order; between `step` and `update` once for each group of
     * the batch (--accum), and with several ranks only for those of this one */
    void (*step)(Golf *m, int step);      /* before it; step -1: before an evaluation */
    void (*enter)(Golf *m, int p, int N); /* m->prev[p] is what phase p starts from */
    double (*forward)(Golf *m, const int *tokens, int B,
                      int T); /* before the head: a loss */
    /* the stream of all tokens, m->prev[m->phases], is about to enter the head, which y
     * (N) are the targets of, or NULL. A system may put another one there or, to learn,
     * return a loss (the mean over the tokens) and add its gradients to m->grad. */
    double (*before_head)(Golf *m, const int *y, int N, int learn);
    void (*loss)(
        const Golf *m, real *l, const Flow *f, const int *y, size_t from, size_t row,
        int n, real dloss); /* logits to their gradients, for the core's loss_backward */
    void (*leave_backward)(Golf *m, int p, int N); /* m->dh is d(out) */
    void (*enter_backward)(Golf *m, int p, int N); /* m->dh is d(prev) */
    void (*fold)(Golf *m);                         /* the adjoint of expand */
    void (*update)(Golf *m, int step);             /* after the optimizer */
    void (*masters)(Golf *m, real *x); /* a symmetric projection that masters stay in */
    void (*soften)(Golf *m);           /* eff: not quite what the codes say */
    void (*expand)(Golf *m);           /* eff of VIRTUAL tensors */
    /* what a run tells */
    /* token n of the last pass counts in a score: what it predicts is token `target` of the
     * text */
    void (*scored)(Golf *m, int n, int64_t target);
    void (*learn)(Golf *m, const Rows *r); /* these were scored, and may be learnt from */
    void (*report)(const Golf *m, const Score *s,
                   FILE *f);                 /* lines of `eval`, behind it */
    void (*announce)(const Golf *m);         /* a line at its start */
    const char *columns;                     /* of log.tsv, "\tname" each */
    void (*log_row)(const Golf *m, FILE *f); /* their values, "\tvalue" each */
    void (*result)(const Golf *m,
                   FILE *f); /* of result.json: lines of "  \"key\": value,\n" */
    double (*flops)(const Golf *m,
                    const Tensor *t); /* uses of t by a token, or -1: as any */
    double (*depth)(const Golf *m); /* phases of a training step, a mean of all; one with
                                       no backward pass counts as a third */
} System;

#ifndef GOLF_CODE_BYTES /* the Makefile gives both */
#define GOLF_CODE_BYTES 0
#define GOLF_GIT_REV "unknown"
#endif

/* Does the machine have fused multiply-adds? Else they are computed from doubles. */
#if defined __FMA__ || defined __aarch64__ || defined __FP_FAST_FMAF
#define GOLF_FMA 1
#else
#define GOLF_FMA 0
#endif

enum { BIG_ENDIAN_MACHINE = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ };

#if defined __AVX512VNNI__
#define GOLF_ISA "avx512vnni"
#elif defined __AVX512F__
#define GOLF_ISA "avx512f"
#elif defined __AVXVNNI__
#define GOLF_ISA "avxvnni"
#elif defined __AVX2__
#define GOLF_ISA "avx2"
#elif defined __ARM_FEATURE_DOTPROD
#define GOLF_ISA "neon-dotprod"
#else
#define GOLF_ISA "portable"
#endif

/* ------------------------------------------------------------------------------------------
 * Ranks (make MPI=1, dev/mpi.h): every rank has the whole model and does all that a run does, but
 * for what is shared: the groups of a batch, Muon's matrices, the rows of an evaluation. Rank 0
 * alone writes files and speaks. */
/* Dies unless all have one program and the same arguments. */
static inline void ranks_start(char **argv);
/* Before a message: one that all ranks have is told by the first. */
static inline void ranks_error(void);
/* Dies unless all ranks can share the batch and have these texts (NULL: none). */
static inline void ranks_compare(const Config *c, const Shards *train, const Shards *val);
/* All ranks get all moments; dies unless they have the same model. */
static inline void ranks_meet(const Golf *m);
/* m->grad becomes the mean of all ranks', and so does the loss, which is returned. */
static inline double ranks_mean(Golf *m, double loss);
/* Does this rank compute Muon's step of this matrix? Then all get the weights of all. */
static inline int ranks_own(const Golf *m, const Tensor *t, int copy);
static inline void ranks_share(Golf *m);
/* The losses of up to n_ranks times the tokens that the buffers hold. */
static inline const real *ranks_losses(Golf *m, const Rows *r);
/* The largest of all ranks' numbers. */
static inline int ranks_most(int x);
/* What rank 0 reads there. */
static inline uint8_t *ranks_read(const char *path, size_t *len);
/* What a step of `bench` sent. */
static inline void ranks_report(void);

#ifndef GOLF_MPI /* the plain program is one rank */
static inline void ranks_start(char **argv) { (void)argv; }
static inline void ranks_error(void) {}
static inline void ranks_compare(const Config *c, const Shards *train,
                                 const Shards *val) {
    (void)c;
    (void)train;
    (void)val;
}
static inline void ranks_meet(const Golf *m) { (void)m; }
static inline double ranks_mean(Golf *m, double loss) {
    (void)m;
    return loss;
}
static inline int ranks_own(const Golf *m, const Tensor *t, int copy) {
    (void)m;
    (void)t;
    (void)copy;
    return 1;
}
static inline void ranks_share(Golf *m) { (void)m; }
static inline const real *ranks_losses(Golf *m, const Rows *r) {
    golf_forward(m, r->x, r->y, r->B, r->T);
    return m->loss;
}
static inline int ranks_most(int x) { return x; }
static inline uint8_t *ranks_read(const char *path, size_t *len) {
    return read_file(path, len);
}
static inline void ranks_report(void) {}
#endif

#endif
