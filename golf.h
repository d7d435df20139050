/* golf.h - the contract of train_golf.c: options, parameter tensors, file formats, declarations.
 *
 * One list per fact. A command-line option is one row of GOLF_OPTIONS; a parameter tensor is one
 * row of GOLF_TENSORS. Parsing, help, config echo, allocation, initialisation, the optimizer, the
 * gradient test, checkpoints, artifacts and the byte ledger are loops over these two lists.
 */
#ifndef GOLF_H
#define GOLF_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h> /* sqrt(real) is sqrtf or sqrt: one source serves the float and double builds */
#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_thread_num(void) { return 0; }
#endif

#ifdef GOLF_DOUBLE /* finite differences need doubles: `make test` builds the program both ways */
typedef double real;
#else
typedef float real;
#endif

/* ---------------------------------------------------------------------------------------------
 * Options: command mask, type, name, default, range, help. A range is a list of words, numbers
 * and spans "lo to hi". The i-th item, counted from 0, is the value of an INT row when it is a
 * word: the enumerators below, or 0 for "fit". MODEL rows are written into every artifact. */
enum {
    MODEL = 1, TRAIN = 2, EVAL = 4, SAMPLE = 8, INFO = 16,
    FIXED = 32, /* set by the program, not by the user */
    RESUME = 64, /* may change when a run is resumed */
    QUIET = 128  /* left out of artifacts while at its default: means nothing, must not change */
};

#define GOLF_OPTIONS(X) \
    X(MODEL | FIXED, INT, vocab, "4096", "1 to 65536", "V, pieces of the tokenizer") \
    X(MODEL, INT, width, "fit", "fit|8 to 16384", "C; fit: widest multiple of 8 in cap, then F") \
    X(MODEL, INT, heads, "2", "1 to 256", "H, attention heads; head_dim = width/heads is even") \
    X(MODEL | QUIET, INT, kv_heads, "0", "0 to 256", "key/value heads (GQA); 0 = heads") \
    X(MODEL, INT, mlp, "13", "1 to 16", "hidden width of the MLP = mlp * width") \
    X(MODEL | QUIET, INT, hidden, "0", "0|8 to 1048576", "F, hidden width; 0 = mlp * width") \
    X(MODEL, INT, seq, "256", "8 to 65536", "T, tokens per sequence") \
    X(MODEL, INT, unique, "3", "1 to 64", "U, distinct blocks in the loop") \
    X(MODEL, INT, repeat, "1", "1 to 64", "R, applications of each; unique=P repeat=1 is flat") \
    X(MODEL, INT, order, "cycle", "cycle|sequence", "phase p uses block p%U or p/R") \
    X(MODEL | QUIET, INT, prelude, "0", "0 to 64", "unshared blocks before the loop") \
    X(MODEL | QUIET, INT, coda, "0", "0 to 64", "unshared blocks after the loop") \
    X(MODEL, INT, mix, "vector", "none|scalar|vector", "input injection h = mix0*h + mix1*x0") \
    X(MODEL, INT, gain, "vector", "none|scalar|vector", "gains of the two block RMSNorms") \
    X(MODEL, INT, gate, "vector", "none|scalar|vector", "gates on the two residual branches") \
    X(MODEL, INT, qgain, "vector", "none|scalar|vector", "query gain per head, or one, or 1.5") \
    X(MODEL, INT, extra_norm, "out", "none|out|each", "RMSNorm before Wo, Wdown | before all") \
    X(MODEL, INT, xgain, "scalar", "none|scalar|vector", "gains of the extra RMSNorms") \
    X(MODEL, INT, phase, "1", "0|1", "interface copies: 1 = per application, 0 = per block") \
    X(MODEL | QUIET, INT, phase_embed, "0", "0|1", "add a learned e[p] to h before application p") \
    X(MODEL, INT, wq, "ternary", "none|ternary|binary|quest|int4|int5|int6|int7|int8", \
      "projection weights; none: bf16") \
    X(MODEL | QUIET, NUM, wbits, "2", "1|1.585|2|3|4|8", "of wq=quest; 1.585 = ternary") \
    X(MODEL | QUIET, INT, hadamard, "1", "0|1", "of quest: rotate rows before rounding") \
    X(MODEL | QUIET, INT, wscale, "tensor", "tensor|row|group", \
      "a scale per; group: 128 of a row") \
    X(MODEL | QUIET, INT, ste, "auto", "identity|clip|trust|auto", \
      "gradient passes all | inside | near the grid (auto: quest)") \
    X(MODEL | QUIET, STR, protect, "", "", "NAME:BITS[:P%],...: projections, or their worst rows") \
    X(MODEL, INT, aq, "int8", "none|int8|int4|quest", "inputs of the projections, per token") \
    X(MODEL | QUIET, NUM, abits, "4", "1|1.585|2|3|4|8", "of aq=quest") \
    X(MODEL | QUIET, STR, cluster, "", "", \
      "G,N,shared|each: N vectors of G weights, per block | matrix") \
    X(MODEL | QUIET, INT, ffn_hi, "0", "0 to 65536", \
      "hidden width of a second MLP in high precision") \
    X(MODEL | QUIET, INT, ffn_hi_bits, "8", "4 to 8|16", "its weights") \
    X(MODEL | QUIET, INT, hi_experts, "1", "1 to 64", \
      "copies of it, one of which each token uses") \
    X(MODEL | QUIET, INT, hi_route, "phase", "phase|token", \
      "which: its n-th application, n % N | learned, top-1") \
    X(MODEL | QUIET, STR, unshare, "", "", "NAME,...: projections with a copy per application") \
    X(MODEL | QUIET, INT, lora, "0", "0 to 64", "rank of the pair that each application adds") \
    X(MODEL | QUIET, INT, lora_on, "all", "ffn|attn|all", "to which projections") \
    X(MODEL | QUIET, INT, lora_bits, "8", "4 to 8|16", "one scale per matrix; bf16") \
    X(MODEL | QUIET, INT, ffn, "dense", "dense|fips", "MLP: two matrices | FiPS's factors") \
    X(MODEL | QUIET, INT, fips_rank, "0", "0 to 16384", "rows of the factor of all phases") \
    X(MODEL | QUIET, NUM, fips_sparse, "0.75", "0 to 0.99", "part of the others that is pruned") \
    X(MODEL | QUIET, INT, fips_ubits, "8", "4 to 8|16", "of the shared factor") \
    X(MODEL | QUIET, INT, fips_vbits, "4", "4 to 8", "of the sparse factors") \
    X(MODEL | QUIET, INT, experts, "0", "0 to 64", "E, of the MLP; 0 = one MLP") \
    X(MODEL | QUIET, INT, topk, "2", "1 to 64", "K of them that each token uses") \
    X(MODEL | QUIET, INT, expert_size, "128", "8 to 65536", "their hidden width") \
    X(MODEL | QUIET, INT, moe_bias, "0", "0|1", "a bias per application on their choice") \
    X(MODEL | QUIET, INT, attn_experts, "0", "0 to 16", "A values and outputs for each head") \
    X(MODEL | QUIET, INT, attn_topk, "2", "1 to 16", "of them, used by each token") \
    X(MODEL | QUIET, INT, norm, "pre", "pre|peri", "peri: only before a softmax or a choice") \
    X(MODEL | QUIET, INT, unet, "0", "0|1", "outputs of the first half skip to the second") \
    X(MODEL, INT, embed_bits, "4", "4 to 8|16", "tied embedding: codes, scale per row; bf16") \
    X(TRAIN | EVAL | RESUME, STR, data, "data/sotu", "", "folder of token shards") \
    X(TRAIN | EVAL | SAMPLE | RESUME, STR, tokenizer, "", "", "default: beside data or model") \
    X(TRAIN | RESUME, STR, out, "", "", "run folder; default runs/PRESET") \
    X(TRAIN | INFO | RESUME, INT, cap, "256000", "1000 to 2000000000", "bytes of model.golf") \
    X(TRAIN | RESUME, NUM, squeeze, "1", "0.1 to 1", "part of the bytes that coding leaves") \
    X(TRAIN | SAMPLE, INT, seed, "1", "0 to 2147483647", "of init, data order, sampling") \
    X(TRAIN, INT, init, "own", "own|moeut|baseline", "start of the weights") \
    X(TRAIN, INT, shuffle, "1", "0|1", "0: the text in its order") \
    X(TRAIN, INT, steps, "12000", "1 to 100000000", "optimizer steps; schedules span them") \
    X(TRAIN | RESUME, NUM, minutes, "0", "0 to 100000", "> 0: fewer steps to fit") \
    X(TRAIN, INT, batch, "8", "1 to 65536", "B, sequences per step") \
    X(TRAIN, STR, init_from, "", "", "ckpt.bin whose weights this run starts from") \
    X(TRAIN, INT, convert, "none", "none|average|lower|stepwise", \
      "how blocks of init_from become shared ones; and pairs") \
    X(TRAIN, STR, teacher, "", "", "ckpt.bin whose predictions are part of the aim") \
    X(TRAIN, NUM, kd, "0.5", "0 to 1", "which part") \
    X(TRAIN, INT, qat, "1", "0|1|noise", "quantize at export only | in training | as noise") \
    X(TRAIN, NUM, qat_ramp, "0", "0 to 1", "fraction of the steps in which quantization sets in") \
    X(TRAIN, INT, qat_order, "together", "together|each", "each matrix after the other") \
    X(TRAIN, NUM, moe_entropy, "0.01", "0 to 10", "c of the loss that keeps experts in use") \
    X(TRAIN, STR, repeat_ramp, "", "", "applications from which fraction of the run: 1@0,3@0.5") \
    X(TRAIN, INT, repeat_random, "0", "0|1", "each step as many as chance says, up to that") \
    X(TRAIN, INT, backprop, "0", "0 to 4096", "> 0: gradients through the last N applications") \
    X(TRAIN, INT, optimizer, "muon", "adamw|muon", "of the projections; the rest: AdamW") \
    X(TRAIN, NUM, lr, "0.004", "0 to 10", "peak rate of the projections with AdamW; of LoRA") \
    X(TRAIN, NUM, lr_muon, "0.03", "0 to 10", "the same with Muon") \
    X(TRAIN, NUM, momentum, "0.95", "0 to 0.9999", "decay of Muon's average of gradients") \
    X(TRAIN, INT, momentum_warmup, "0", "0 to 1000000", "steps in which it rises from 0.85") \
    X(TRAIN, INT, muon_split, "0", "0|1", "q, k and v as three matrices") \
    X(TRAIN, NUM, lr_embed, "0.005", "0 to 10", "of the embedding") \
    X(TRAIN, NUM, lr_interface, "0.005", "0 to 10", "of gates, gains, mixes and phase embeddings") \
    X(TRAIN, NUM, beta1, "0.9", "0 to 0.9999", "AdamW first moment decay") \
    X(TRAIN, NUM, beta2, "0.95", "0 to 0.99999", "AdamW second moment decay") \
    X(TRAIN, NUM, wd, "0", "0 to 10", "decoupled weight decay of the projections") \
    X(TRAIN, INT, schedule, "linear", "linear|two_stage", "constant then linear | BitNet's") \
    X(TRAIN, NUM, warmup, "0.04", "0 to 1", "fraction of the steps with rising rate") \
    X(TRAIN, NUM, warmdown, "0.3", "0 to 1", "fraction of the steps with falling rate (linear)") \
    X(TRAIN, NUM, clip, "1", "0 to 1000000", "global gradient norm limit; 0 = none") \
    X(TRAIN | RESUME, INT, val_every, "0", "0 to 100000000", "steps between; 0 = at the end") \
    X(TRAIN | EVAL | RESUME, INT, val_tokens, "0", "0 to 2000000000", "a prefix; 0 = all") \
    X(TRAIN | RESUME, INT, ckpt_every, "100", "0 to 100000000", "steps between; 0 = at the end") \
    X(TRAIN | RESUME, INT, recompute, "0", "0|1", "keep less of the forward pass, do it twice") \
    X(TRAIN | RESUME, INT, plot, "0", "0|1", "curves.svg in the run folder, by gnuplot") \
    X(TRAIN | RESUME, INT, resume, "0", "0|1", "continue the run in --out") \
    X(TRAIN | RESUME, INT, overwrite, "0", "0|1", "replace the run in --out") \
    X(EVAL, INT, stride, "0", "0 to 65536", "> 0: sliding windows that score STRIDE new tokens") \
    X(EVAL, INT, eval_repeat, "0", "0 to 64", "> 0: applications, more or fewer than trained") \
    X(EVAL, NUM, drift, "0", "-1 to 1", "residual stream * (1 + drift) before each application") \
    X(EVAL, NUM, noise, "0", "0 to 10", "projections + noise * their scale * N(0,1)") \
    X(SAMPLE, STR, prompt, "", "", "text to continue") \
    X(SAMPLE, INT, tokens, "200", "1 to 1000000", "tokens to write") \
    X(SAMPLE, NUM, temperature, "0.8", "0 to 100", "0 = most likely token") \
    X(SAMPLE, NUM, top_p, "0.95", "0 to 1", "smallest set of tokens with this probability")

enum { NORM_PRE, NORM_PERI };
enum { INIT_OWN, INIT_MOEUT, INIT_BASELINE };
enum { MODE_NONE, MODE_SCALAR, MODE_VECTOR }; /* mix, gain, gate, qgain, xgain */
enum { ORDER_CYCLE, ORDER_SEQUENCE };
enum { XN_NONE, XN_OUT, XN_EACH };
enum { WQ_NONE, WQ_TERNARY, WQ_BINARY, WQ_QUEST, WQ_INT4 };
enum { AQ_NONE, AQ_INT8, AQ_INT4, AQ_QUEST };
enum { QAT_EXPORT, QAT_ON, QAT_NOISE };
enum { ROUTE_PHASE, ROUTE_TOKEN };
enum { CONVERT_NONE, CONVERT_AVERAGE, CONVERT_LOWER, CONVERT_STEPWISE };
enum { FFN_DENSE, FFN_FIPS };
enum { LORA_FFN, LORA_ATTN, LORA_ALL };
enum { SCALE_TENSOR, SCALE_ROW, SCALE_GROUP };
enum { STE_IDENTITY, STE_CLIP, STE_TRUST, STE_AUTO, STE_NONZERO };
enum { OPT_ADAMW, OPT_MUON };
enum { SCHED_LINEAR, SCHED_TWO_STAGE };

/* Options that mean nothing without another one: name, is that there? (Config c), which. */
#define GOLF_NEEDS(X) \
    X(wbits, c->wq == WQ_QUEST, "wq=quest") X(abits, c->aq == AQ_QUEST, "aq=quest") \
    X(hadamard, c->wq == WQ_QUEST || c->aq == AQ_QUEST, "wq=quest or --aq=quest") \
    X(qat_order, c->qat_ramp > 0, "qat_ramp") X(ffn_hi_bits, c->ffn_hi, "ffn_hi") \
    X(hi_experts, c->ffn_hi, "ffn_hi") X(hi_route, c->hi_experts > 1, "hi_experts") \
    X(lora_on, c->lora, "lora") X(lora_bits, c->lora, "lora") X(kd, *c->teacher, "teacher") \
    X(convert, *c->init_from, "init_from") X(fips_rank, c->ffn == FFN_FIPS, "ffn=fips") \
    X(fips_sparse, c->ffn == FFN_FIPS, "ffn=fips") X(fips_ubits, c->ffn == FFN_FIPS, "ffn=fips") \
    X(fips_vbits, c->ffn == FFN_FIPS, "ffn=fips") X(topk, c->experts, "experts") \
    X(expert_size, c->experts, "experts") X(moe_bias, c->experts, "experts") \
    X(attn_topk, c->attn_experts, "attn_experts") \
    X(moe_entropy, c->experts || c->attn_experts, "experts or --attn_experts")
/* Options that do not go together, and why. */
#define GOLF_CLASHES(X) \
    X(strstr(c->cluster, "shared") && strstr(c->protect, "wqkv:"), \
      "--cluster: wqkv holds the shared codebook and cannot be protected") \
    X(*c->cluster && c->qat == QAT_NOISE, "--cluster and --qat=noise do not go together") \
    X(c->qat_ramp > 0 && (c->aq == AQ_QUEST || ste_of(c, c->wq == WQ_QUEST)), \
      "--qat_ramp mixes what is straight through: no --aq=quest, --ste=identity") \
    X(c->hi_experts > (c->prelude || c->coda ? 1 : c->repeat) && c->hi_route == ROUTE_PHASE, \
      "--hi_experts by application: expected up to --repeat of them, no prelude and no coda") \
    X(*c->unshare && *c->cluster, "--unshare and --cluster do not go together") \
    X(c->lora && !c->phase, "--lora is per application: expected --phase=1") \
    X(c->ffn == FFN_FIPS && !c->phase, "--ffn=fips is per application: expected --phase=1") \
    X(c->ffn == FFN_FIPS && (*c->cluster || unshared(c, "wup") || unshared(c, "wdown")), \
      "--ffn=fips: expected no --cluster and no --unshare of the MLP") \
    X(c->attn_experts && c->attn_topk > c->attn_experts, \
      "--attn_topk: at most --attn_experts; give both") \
    X(c->attn_experts && (*c->cluster || c->lora || c->aq == AQ_QUEST || c->recompute || \
                          unshared(c, "wqkv") || unshared(c, "wo")), \
      "--attn_experts: no --cluster, --lora, --recompute, --aq=quest, --unshare of attention") \
    X(c->norm && (!c->experts || c->extra_norm == XN_EACH), \
      "--norm=peri is for the MLP's experts: expected --experts, and no --extra_norm=each") \
    X(c->experts && c->topk > c->experts, "--topk: at most --experts; give both") \
    X(c->experts && (double)c->batch * c->seq * c->topk > 1 << 24, /* rows are kept as floats */ \
      "--batch x --seq x --topk: at most 2^24 with --experts") \
    X(c->experts && (c->ffn || c->ffn_hi || c->recompute || *c->cluster || c->aq == AQ_QUEST), \
      "--experts: expected no --ffn, --ffn_hi, --recompute, --cluster, --aq=quest") \
    X(c->experts && c->lora && c->lora_on != LORA_ATTN, \
      "--experts: no --lora of the MLP; give --lora_on=attn") \
    X(c->experts && c->hidden, "--experts have --expert_size, no --hidden") \
    X(c->experts && (unshared(c, "wup") || unshared(c, "wdown")), \
      "--experts: expected no --unshare of the MLP") \
    X(c->unet && (*c->repeat_ramp || c->repeat_random), \
      "--unet=1 needs all applications: no --repeat_ramp, no --repeat_random") \
    X(*c->repeat_ramp && (!c->gate || !c->phase), \
      "--repeat_ramp closes gates per application: expected --gate and --phase=1")

#define FIELD_INT(name) int name;
#define FIELD_NUM(name) double name;
#define FIELD_STR(name) char name[1024];
#define X(mask, type, name, def, range, help) FIELD_##type(name)
typedef struct {
    GOLF_OPTIONS(X)
} Config;
#undef X

enum { TYPE_INT, TYPE_NUM, TYPE_STR };
typedef struct {
    int mask, type;
    const char *name, *def, *range, *help;
    size_t at; /* in Config */
} Option;

/* ---------------------------------------------------------------------------------------------
 * Parameter tensors: name, copies, rows, cols, role, mode, initial value.
 * Shapes may use the Config c and the macros below. PROJ and EMBED tensors start as
 * N(0, init^2); INTERFACE tensors are vectors that start at (and, with mode none, stay at) init.
 * Stored size of an INTERFACE row: mode none 0, scalar 1, vector cols numbers per copy. */
/* Roles: each has its own learning rate and quantizer. FACTOR and VIRTUAL are Part II's: small
 * matrices that AdamW trains, and products of such. */
enum { EMBED, PROJ, FACTOR, INTERFACE, VIRTUAL };
enum { ONCE, PER_BLOCK, PER_PHASE, PER_EXPERT, PER_MOE };

#define HEAD_DIM (c->width / c->heads)
#define KV_HEADS (c->kv_heads ? c->kv_heads : c->heads)
#define A_COPIES (c->attn_experts ? c->attn_experts : 1) /* of values and of outputs */
#define QKV_ROWS ((c->heads + (1 + A_COPIES) * KV_HEADS) * HEAD_DIM)
#define O_COLS (A_COPIES * c->width)
#define SW(n) (c->attn_experts * (n))
#define SW_IF(n) (c->attn_experts ? (n) : 0)
#define QK_ROWS ((c->heads + KV_HEADS) * HEAD_DIM)
#define SPLIT (c->extra_norm == XN_EACH || c->norm == NORM_PERI) /* q, k, v have own inputs */
#define SPLIT_COLS (SPLIT ? c->width : 0)
#define HIDDEN (c->experts ? c->expert_size : c->hidden ? c->hidden : c->mlp * c->width)
#define LOOP_PHASES (c->unique * c->repeat)
#define PHASES (c->prelude + LOOP_PHASES + c->coda)
#define BLOCKS (c->prelude + c->unique + c->coda)
#define DEEP (1 / sqrt(2.0 * PHASES)) /* output projections start smaller by the depth applied */
#define HI(n) (c->ffn_hi ? (n) : 0)
#define HI_COLS (c->hi_experts * c->ffn_hi)
#define ROUTER_COLS (c->hi_route == ROUTE_TOKEN ? HI(c->hi_experts * c->width) : 0)
#define LORA(on, n) (c->lora_on == LORA_ALL || c->lora_on == (on) ? c->lora ? (n) : 0 : 0)
#define XN_IF(least) (c->extra_norm >= (least) ? c->xgain : MODE_NONE)

#define FFN_ROLE (c->ffn == FFN_FIPS ? VIRTUAL : PROJ)
#define FFN_COPIES (c->ffn == FFN_FIPS ? PER_PHASE : c->experts ? PER_MOE : PER_BLOCK)
#define TOPK (size_t)(c->experts ? c->topk : 1) /* rows of the MLP for each token */
#define MOE(n) (c->experts ? (n) : 0)
#define FIPS(n) (c->ffn == FFN_FIPS ? (n) : 0)
#define DENSITY (c->fips_rank * (1 - c->fips_sparse) + 1e-9)
#define FIPS_OUT (DEEP * sqrt(c->width / (HIDDEN * DENSITY)))
#define MAX1(n) ((n) > 1 ? (n) : 1)
/* N(0, s^2), or uniform in -s..s (baseline), for inputs of width C and outputs from n numbers */
#define INIT_EMBED (c->init == INIT_BASELINE ? 0.005 : 0.02)
#define INIT_IN ((c->init == INIT_MOEUT ? sqrt(2.0 / PHASES) : 1) / sqrt((double)c->width))
#define INIT_OUT(n) (c->init == INIT_BASELINE ? 0 : \
                     (c->init == INIT_MOEUT ? sqrt(2.0 / PHASES) : DEEP) / sqrt((double)(n)))
#define LORA_INIT (1 / sqrt((double)c->width))

#define GOLF_TENSORS(X) \
    X(embed, ONCE, c->vocab, c->width, EMBED, MODE_VECTOR, INIT_EMBED) \
    X(wqkv, PER_BLOCK, QKV_ROWS, c->width, PROJ, MODE_VECTOR, INIT_IN) \
    X(wo, PER_BLOCK, c->width, O_COLS, PROJ, MODE_VECTOR, INIT_OUT(c->width)) \
    X(wup, FFN_COPIES, HIDDEN, c->width, FFN_ROLE, MODE_VECTOR, INIT_IN) \
    X(wdown, FFN_COPIES, c->width, HIDDEN, FFN_ROLE, MODE_VECTOR, \
      INIT_OUT(c->init ? HIDDEN * MAX1(c->experts) : HIDDEN)) \
    X(mix0, PER_PHASE, 1, c->width, INTERFACE, c->mix, 1) \
    X(mix1, PER_PHASE, 1, c->width, INTERFACE, c->mix, 0) \
    X(phase_embed, PER_PHASE, 1, c->width, INTERFACE, c->phase_embed * MODE_VECTOR, 0) \
    X(g_attn, PER_PHASE, 1, c->width, INTERFACE, c->gain, 1) \
    X(x_q, PER_PHASE, 1, c->width, INTERFACE, XN_IF(XN_EACH), 1) \
    X(x_k, PER_PHASE, 1, c->width, INTERFACE, XN_IF(XN_EACH), 1) \
    X(x_v, PER_PHASE, 1, c->width, INTERFACE, XN_IF(XN_EACH), 1) \
    X(q_gain, PER_PHASE, 1, c->heads, INTERFACE, c->qgain, 1.5) \
    X(x_attn, PER_PHASE, 1, c->width, INTERFACE, XN_IF(XN_OUT), 1) \
    X(gate_attn, PER_PHASE, 1, c->width, INTERFACE, c->gate, 1) \
    X(g_mlp, PER_PHASE, 1, c->width, INTERFACE, c->gain, 1) \
    X(x_up, PER_PHASE, 1, c->width, INTERFACE, XN_IF(XN_EACH), 1) \
    X(x_mlp, PER_PHASE, 1, HIDDEN, INTERFACE, XN_IF(XN_OUT), 1) \
    X(gate_mlp, PER_PHASE, 1, c->width, INTERFACE, c->gate, 1) \
    X(hi_up, PER_EXPERT, c->ffn_hi, HI(c->width), PROJ, MODE_VECTOR, 1 / sqrt((double)c->width)) \
    X(hi_down, PER_EXPERT, HI(c->width), c->ffn_hi, PROJ, MODE_VECTOR, \
      DEEP / sqrt(c->ffn_hi + 1e-9)) \
    X(alpha, PER_PHASE, 1, 1, INTERFACE, HI(MODE_SCALAR), 2) \
    X(beta, PER_PHASE, 1, 1, INTERFACE, HI(MODE_SCALAR), c->ffn_hi ? 0.2 : 1) \
    X(router, PER_PHASE, 1, ROUTER_COLS, INTERFACE, HI(MODE_VECTOR), 0) \
    X(la_qkv, PER_PHASE, c->lora, LORA(LORA_ATTN, c->width), FACTOR, MODE_VECTOR, LORA_INIT) \
    X(lb_qkv, PER_PHASE, QKV_ROWS, LORA(LORA_ATTN, c->lora), FACTOR, MODE_VECTOR, 0) \
    X(la_o, PER_PHASE, c->lora, LORA(LORA_ATTN, c->width), FACTOR, MODE_VECTOR, LORA_INIT) \
    X(lb_o, PER_PHASE, c->width, LORA(LORA_ATTN, c->lora), FACTOR, MODE_VECTOR, 0) \
    X(la_up, PER_PHASE, c->lora, LORA(LORA_FFN, c->width), FACTOR, MODE_VECTOR, LORA_INIT) \
    X(lb_up, PER_PHASE, HIDDEN, LORA(LORA_FFN, c->lora), FACTOR, MODE_VECTOR, 0) \
    X(la_down, PER_PHASE, c->lora, LORA(LORA_FFN, HIDDEN), FACTOR, MODE_VECTOR, \
      1 / sqrt((double)HIDDEN)) \
    X(lb_down, PER_PHASE, c->width, LORA(LORA_FFN, c->lora), FACTOR, MODE_VECTOR, 0) \
    X(skip, PER_PHASE, 1, c->width, INTERFACE, c->unet * MODE_VECTOR, 1) \
    X(sel_mlp, PER_BLOCK, c->experts, MOE(c->width), FACTOR, MODE_VECTOR, INIT_IN) \
    X(sel_bias, PER_PHASE, 1, c->experts, INTERFACE, MOE(c->moe_bias * MODE_VECTOR), 0) \
    X(sel_v, PER_BLOCK, SW(KV_HEADS), SW_IF(c->width), FACTOR, MODE_VECTOR, INIT_IN) \
    X(sel_o, PER_BLOCK, SW(c->heads), SW_IF(c->width), FACTOR, MODE_VECTOR, INIT_IN) \
    X(fips_u, ONCE, FIPS(c->fips_rank), FIPS(c->width), PROJ, MODE_VECTOR, LORA_INIT) \
    X(fips_up, PER_PHASE, FIPS(HIDDEN), FIPS(c->fips_rank), FACTOR, MODE_VECTOR, \
      1 / sqrt(DENSITY)) \
    X(fips_down, PER_PHASE, FIPS(c->fips_rank), FIPS(HIDDEN), FACTOR, MODE_VECTOR, FIPS_OUT)

#define X(name, copies, rows, cols, role, mode, init) T_##name,
enum { GOLF_TENSORS(X) N_TENSORS };
#undef X

/* A parameter tensor at run time. Every stored copy is (rows, cols), row-major. */
typedef struct {
    const char *name;
    int role, rows, cols; /* what layers see */
    int mode;
    int stored_copies, stored_cols; /* what is trained and stored (see expand in section 5) */
    double init;
    size_t n, at;      /* stored numbers, and where they start in the arenas of Golf */
    size_t at_x;       /* INTERFACE: where it starts in a phase of ix and dix */
    size_t at_scale;   /* where the scales start */
    int bits, line, group; /* a scale per group of weights; a group is (part of) a line */
    int per, experts;      /* whose copies: PER_*; Part II: E, copies are b * E + e; or 0 */
    int vector, shared;    /* Part II: numbers of a codebook vector, or 0; codebook of wqkv */
    int half, ste, had;    /* eff = scale * (code + half/2); Part II: mask, Hadamard block or 0 */
    /* per stored copy: numbers, scales and bytes; bytes of all copies */
    size_t copy_n, copy_scales, copy_bytes, bytes;
    size_t coded;              /* bytes in the file, once it is saved or loaded */
    const struct Quantizer *quant;
} Tensor;
#define MATRIX(t) ((t)->role == PROJ || (t)->role == FACTOR || (t)->role == VIRTUAL)
#define STORED(t) ((t)->n && (t)->role != VIRTUAL)

/* ---------------------------------------------------------------------------------------------
 * Section 4, quantizers. A row says how one stored copy w (rows, cols) becomes what the forward
 * pass uses (eff), codes and scales, and how codes and scales become bytes and come back.
 * eff is a function of codes and scales alone: the number that trains is the number that ships
 * (but for --qat=0, noise and ramps, which say so). BitNet b1.58 (2402.17764) for ternary. */
typedef struct Quantizer {
    const char *name;
    int bits;                          /* nominal, per weight */
    size_t (*scales)(const Tensor *t); /* scales of a copy */
    size_t (*bytes)(const Tensor *t);  /* stored bytes of a copy, scales included */
    void (*quantize)(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t);
    void (*dequantize)(real *eff, const int8_t *code, const real *scale, const Tensor *t);
    void (*backward)(real *dw, const uint8_t *mask, const Tensor *t); /* d(eff) to d(w), in place */
    void (*pack)(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t);
    int (*unpack)(int8_t *code, real *scale, const uint8_t *in, const Tensor *t);
} Quantizer; /* unpack: 0 = not a possible pack */

/* ---------------------------------------------------------------------------------------------
 * Files, all little-endian. The artifact (model.golf):
 *
 *     0   8  "GOLF\r\n\x1a\n"           a text-mode copy or a cut file shows at once
 *     8   4  version, 2
 *    12   4  size of the whole file
 *    16   4  CRC-32 of the tokenizer's .model file
 *    20   4  n, bytes of config
 *    24   4  t, number of tensors that hold numbers
 *    28   n  config: MODEL options as key=value lines
 *     .  8t  per such row of GOLF_TENSORS: payload length, CRC-32 of the payload
 *     .   4  CRC-32 of all bytes above
 *     .   .  payloads in the order of GOLF_TENSORS, copies one after another
 *
 * A payload as long as the tensor's packed size is packed, a shorter one is coded (section 8).
 * Packed, a copy on a grid is its bf16 scales, then its codes: ternary ones 5 to a byte, base 3,
 * lowest first, value code + 1; others as code + 2^(bits-1), lowest bit first, without gaps. For a
 * codebook it is the entries in bf16, then the indices; for protected rows see section 16.
 * Everything else is bf16.
 *
 * The checkpoint (ckpt.bin): "GOLFCKPT", version u32, sizeof(real) u32, step u64, flips u64,
 * n u64 parameters, config length u32, config (MODEL and TRAIN options), then the master weights,
 * the first and the second moments (n reals each), then the CRC-32 of all bytes above. */
#define GOLF_MAGIC "GOLF\r\n\x1a\n"
#define CKPT_MAGIC "GOLFCKPT"
enum { GOLF_VERSION = 2, CKPT_VERSION = 1 };

/* Section 1: errors, memory, numbers. */
_Noreturn void golf_die(const char *file, int line, const char *fmt, ...);
#define die(...) golf_die(__FILE__, __LINE__, __VA_ARGS__) /* message on stderr, exit status 1 */
void *xcalloc(size_t n, size_t size); /* zeroed, on a cache line, or dies; release with free() */
uint8_t *read_file(const char *path, size_t *len); /* the whole file and a NUL, or dies */
typedef struct {
    const void *data;
    size_t len;
} Part;
/* Writes the parts to path.tmp, flushes, fsyncs and renames: path is the old or the new file,
 * never half of one. Dies on any error and removes path.tmp. */
void write_parts(const char *path, const Part *parts, int n);
void write_file(const char *path, const void *data, size_t len);
uint32_t crc32_of(uint32_t crc, const void *data, size_t len); /* start with 0; chains */
uint16_t to_bf16(real x);   /* round to nearest even */
real from_bf16(uint16_t b);
uint64_t hash64(uint64_t a, uint64_t b); /* the only source of randomness: pure functions */
double uniform01(uint64_t key, uint64_t i);
double now(void); /* seconds, monotonic */

/* Section 2: matmul. One operand of a product: element (i, j) stands at stored row i, column j, or
 * with trans at stored row j, column i; stored rows are ld apart. Either f holds numbers, or q
 * holds int8 codes that stand for q * inv[stored row] (activations kept as codes). */
typedef struct {
    const real *f;
    const int8_t *q;
    const real *inv;
    size_t ld;
    int trans;
} Mat;

static inline Mat mat(const real *f, size_t ld) { return (Mat){f, 0, 0, ld, 0}; }
static inline Mat mat_t(const real *f, size_t ld) { return (Mat){f, 0, 0, ld, 1}; }
static inline Mat mat_q(const int8_t *q, const real *v, size_t ld) { return (Mat){0, q, v, ld, 0}; }
static inline Mat mat_at(Mat x, size_t i, size_t j) { /* the view that starts at element (i,j) */
    size_t row = x.trans ? j : i, col = x.trans ? i : j;
    if (x.f) x.f += row * x.ld + col;
    else x.q += row * x.ld + col, x.inv += row;
    return x;
}
static inline real mat_get(Mat x, size_t i, size_t j) {
    x = mat_at(x, i, j);
    return x.f ? *x.f : (real)*x.q * *x.inv;
}

/* Codes (rows, cols) packed for the integer product, once per optimizer step. */
typedef struct {
    uint8_t *panel;
    int rows, cols;
    uint32_t *stream; /* 2 bits per code, for one token at a time */
} IntWeights;

/* b(k,n) packed for gemm_panels, once per optimizer step. */
typedef struct {
    real *panel;
    int k, n;
} Panels;

void gemm_naive(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc);
void gemm(real *c, size_t ldc, Mat a, Mat b, int m, int n, int k, int acc); /* c (+)= a b */
typedef struct {
    real *c; size_t ldc; Mat a, b; int m, n, k, acc;
} Gemm;
void gemm_all(const Gemm *g, int count); /* independent products */
void panels_pack(Panels *p, Mat b, int k, int n);
void gemm_panels(real *c, size_t ldc, Mat a, const Panels *b, int m, int acc); /* c (+)= a b */
void int_pack(IntWeights *w, const int8_t *code, int rows, int cols);
void int_pack_stream(IntWeights *w);
/* y[n][m] = (sum_k code[m][k] * x[n][k]) * (s * inv[n]), the sum exact */
void gemm_int_naive(real *y, size_t ldy, const int8_t *x, const real *inv, const int8_t *code,
                    real s, int n, int m, int k);
void gemm_int(real *y, size_t ldy, const int8_t *x, const real *inv, const IntWeights *w, real s,
              int n);

/* ---------------------------------------------------------------------------------------------
 * Section 5, the model. N = B*T tokens, K = width of the input.
 * The input of a projection, as the matmul sees it: codes q (N,K) with inv (N), the step of each
 * token, when aq=int8; numbers x (N,K) otherwise. res (N,K) exists in gradient tests only. */
typedef struct {
    real *x, *inv, *res;
    int8_t *q;
    uint8_t *mask; /* (N,K) aq=quest: where the gradient passes */
} Act;

/* Buffers: name, numbers per token. First what the backward pass needs of one application of a
 * block; r_* hold 1/rms per token. With recompute=1 only `out` is kept per phase. */
#define PHASE_REALS(X) \
    X(h, c->width) X(r_attn, 1) X(r_each, 1) /* after input injection; r_each: before q, k, v */ \
    X(qkv, QKV_ROWS) X(qk, QK_ROWS) /* as projected; q, k after norm, gain and RoPE */ \
    X(att, c->width) X(lse, c->heads) /* heads side by side, log-sum-exp */ \
    X(r_xo, 1) X(o, c->width) X(mid, c->width) /* of att; projected, residual after attention */ \
    X(r_mlp, 1) X(r_up, 1) X(f, TOPK * HIDDEN) /* of mid, before up; before the activation */ \
    X(r_xd, TOPK) X(y, c->width) X(out, c->width) /* before down; its output; residual */ \
    X(hi_main, HI(c->width)) X(hi_f, HI_COLS) X(hi_y, HI(c->width)) X(hi_p, HI(c->hi_experts)) \
    X(moe_z, c->experts) X(moe_e, MOE(TOPK)) X(moe_row, MOE(TOPK)) X(moe_o, MOE(TOPK * c->width)) \
    X(sw_zv, SW(KV_HEADS)) X(sw_zo, SW(c->heads)) X(sw_cv, SW(KV_HEADS)) X(sw_co, SW(c->heads)) \
    X(v_mix, SW_IF(KV_HEADS * HEAD_DIM)) X(joined, c->unet ? c->width : 0)
#define PHASE_ACTS(X) /* in_q serves q, k and v unless extra_norm=each */ \
    X(in_q, c->width, 1) X(in_k, SPLIT_COLS, 1) X(in_v, SPLIT_COLS, 1) X(in_o, O_COLS, 1) \
    X(in_up, c->width, 1) X(in_down, HIDDEN, TOPK) X(hi_in, HI_COLS, 1) \
    X(in_sel, c->norm ? c->width : 0, 1)
#define FORWARD_REALS(X) \
    X(e, c->width) X(r_e, 1) X(x0, c->width) X(hn, c->width) X(r_out, 1) X(lse, 1) X(loss, 1)
#define BACKWARD_REALS(X) /* d_o, datt, df, dy: of o, att, f, y above */ \
    X(dh, c->width) X(dx0, c->width) X(dqk, QK_ROWS) X(dqkv, QKV_ROWS) X(datt, c->width) \
    X(d_o, c->width) X(df, TOPK * HIDDEN) X(dy, c->width) X(hi_df, HI_COLS) \
    X(hi_dy, HI(c->hi_experts * c->width)) X(hi_dw, HI(1)) X(lora_u, c->lora) X(lora_du, c->lora) \
    X(moe_dz, c->experts) X(moe_du, MOE(c->width)) \
    X(sw_dzv, SW(KV_HEADS)) X(sw_dzo, SW(c->heads)) X(dax, SW(c->width)) \
    X(dv_mix, SW_IF(KV_HEADS * HEAD_DIM))
#define REAL_FIELD(name, n) real *name;
#define ACT_FIELD(name, n, rows) Act name;

typedef struct { PHASE_REALS(REAL_FIELD) PHASE_ACTS(ACT_FIELD) } Phase;
typedef struct { FORWARD_REALS(REAL_FIELD) BACKWARD_REALS(REAL_FIELD) } Flow;
typedef struct { IntWeights codes; Panels forward, back; } Packed; /* W for y, else y and dx */

enum {
    CHUNK = 42,      /* tokens that one thread takes through layer after layer */
    HEAD_CHUNK = 28, /* the same for the head, whose rows are V long */
    HEAD = 1024      /* tokens whose logits exist at one time; a multiple of KC */
};

enum { LIVE, RECORD, REPLAY }; /* freeze: gradient tests fix the residual Q(x) - x */

typedef struct Golf {
    Config c;
    Tensor t[N_TENSORS];
    int phases, copies; /* copies: the most that a tensor has */
    size_t n_params, n_x, n_scales; /* n_x: expanded interface numbers of a phase */
    real *w, *g, *m, *v;     /* (n_params) masters, gradients, moments; absent if loaded */
    real *eff, *res;         /* (n_params) what the forward pass uses; frozen residuals (tests) */
    int8_t *code, *before;   /* (n_params) now, and before the last step (to count flips) */
    real *scale;             /* (n_scales) */
    real *first_scale;       /* (n_scales) at the start of training */
    uint8_t *mask;           /* (n_params) where the gradient passes, or NULL: everywhere */
    Packed *packed;          /* per projection copy, 3 row ranges (q, k, v) */
    Panels head, head_back;  /* E^T and E */
    real *ix, *dix;          /* (phases,n_x) interface vectors as layers see them, gradients */
    uint64_t flips;          /* ternary codes that changed since initialisation */
    int quantized, freeze, train, step, watch; /* watch: this step's backward fills grad_rms */
    double *grad_rms;        /* (phases) of the gradient behind each application */
    size_t N;                /* tokens the buffers hold */
    Phase *phase;            /* (phases); all the same buffers unless training */
    const real **prev;       /* (phases+1) what a phase, and the head, starts from (N,C) */
    int *run, runs;          /* phases of a forward pass, in order */
    FORWARD_REALS(REAL_FIELD)
    BACKWARD_REALS(REAL_FIELD)
    real *logits;            /* (min(N,HEAD),V) */
    real *partial;           /* (chunks,n_x) gradients of the interface, of one phase */
    real *rope, *ones;       /* (seq,D) cos | sin, (C+F) */
    real *kcache, *vcache;   /* (phases,seq,KV*D), only when sampling */
    int cached;              /* tokens in the cache */
    void **owned; int n_owned; /* every allocation, for golf_free */
    struct Golf *teacher;    /* or NULL */
    real **dout;             /* section 21: (phases/2) gradients along skips (N,C) */
    Act moe_x;               /* section 19: (rows,C) inputs sorted by expert */
    real *moe_dy, *moe_dx;   /* (rows,C) */
    void *moe_task;          /* (moe_tasks) */
    int *moe_pair, moe_tasks, moe_len; /* (rows); tokens of a sequence */
    double *moe_log;         /* (B,blocks,E) log P times its rate */
} Golf;

/* Sections 3-6. */
void golf_init(Golf *m, const Config *c, int train); /* layout; weights from c->seed when train */
void golf_depth(Golf *m, int r); /* applications of each block of the loop; starts as --repeat */
void golf_free(Golf *m);
void golf_buffers(Golf *m, size_t N);                /* activations for N tokens at a time */
void golf_cache(Golf *m);                            /* key/value cache of seq tokens, B = 1 */
void golf_quantize(Golf *m);                         /* masters to codes, scales and eff */
void golf_use(Golf *m);                              /* codes and scales to eff, panels, ix */
/* tokens (B,T), targets (B,T) or NULL. Token n leaves its logits in row n % HEAD of m->logits until
 * others come and, with targets, its loss in m->loss (N), in nats. Returns the mean loss (0 without
 * targets). With a cache: B = 1, T more tokens. In training logits turn into their gradients. */
double golf_forward(Golf *m, const int *tokens, const int *targets, int B, int T);
void golf_backward(Golf *m, const int *tokens, int B, int T); /* after it: fills m->g */
double golf_grad_norm(const Golf *m);
void golf_adamw(Golf *m, int step, double grad_scale); /* what Muon does not train */
void golf_muon(Golf *m, int step, double grad_scale);  /* with optimizer=muon, the projections */
double lr_factor(const Config *c, int step);
double wd_at(const Config *c, int step);
size_t artifact_bytes(const Config *c);              /* at most: packed, before coding */

/* Section 9. Errors that a model of golf_load is then evaluated with, to see what depth makes of
 * them: h *= 1 + drift before every application; W += noise * scale(W) * N(0,1), one draw per
 * stored matrix, so that a shared block repeats its error. scale(W): ternary's, or mean|W|. */
void golf_perturb(Golf *m, double drift, double noise);

/* ---------------------------------------------------------------------------------------------
 * Part II, sections 11 to 16: what the tables and hooks of Part I name. Quantizers as above. */
void ste_mask(uint8_t *mask, const real *z, int n, real s, const Tensor *t);
void binary_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t);
int may_mix(const Config *c); /* can the forward pass see numbers between w and Q(w)? */
real lambda_of(const Golf *m, int k);
void soften(Golf *m, const Tensor *t, int copy);
int hadamard_block(const Config *c, int n);
int ste_of(const Config *c, int quest);
void quest_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t);
void quest_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t);
void quest_backward(real *dw, const uint8_t *mask, const Tensor *t);
void quest_inputs(const Config *c, Act *a, const real *x, int N, int K, int freeze);
void quest_inputs_backward(const Config *c, const Act *a, real *dx, int N, int K);
void hi_forward(const Golf *m, Phase *s, int p, int b, int n, real *room);
void hi_backward(const Golf *m, const Phase *s, const Flow *f, int p, int b, int n0, int n);
void hi_inputs(const Golf *m, const Phase *s, const Flow *f, real *du, int p, int b, int n,
               real *room);
void hi_dw(const Golf *m, const Phase *all, int b, int N);
enum { LORA_MOST = 64, MOST_REPEATS = 64 };
int convert(Golf *m, const Tensor *t, const Golf *from, const Tensor *u); /* 0: nothing to do */
void low_rank(real *b, real *a, const double *w, int rows, int cols, int r);
void lora_fit(Golf *m, const Golf *from);
void teacher_open(Golf *m, const char *path);
void teacher_loss(const Golf *m, const real *l, const int *y, size_t from, size_t row, int n,
                  real dloss);
void fips_expand(Golf *m);
void fips_fold(Golf *m);
double fips_sparsity(const Config *c, int step);
void fips_prune(Golf *m, double sparsity);
void fips_fit(Golf *m, const Golf *from);
void moe_buffers(Golf *m, size_t N);
void moe_forward(Golf *m, int p, int N);
void moe_backward(Golf *m, int p, int N);
void moe_dw(Golf *m, const Phase *all, int p, int N);
double moe_entropy(Golf *m, int B, int T);
const real *unet_join(const Golf *m, Phase *s, int p, int n0, int n);
void unet_backward(const Golf *m, const Flow *f, int p, int n0, int n);
void unet_add(Golf *m, int p, int N);
void switch_values(const Golf *m, Phase *s, int p, int n);
int switch_output(const Golf *m, Phase *s, int p, int n, real *u, real *room);
void switch_output_backward(const Golf *m, const Phase *s, const Flow *f, int p, int n0, int n,
                            real *u);
void switch_values_backward(const Golf *m, const Phase *s, const Flow *f, int p, int n0, int n);
void switch_inputs(const Golf *m, real *di, const Flow *f, int p, int n);
void switch_dw(const Golf *m, const Phase *all, int p, int N);
int depth_at(const Config *c, int step);
void protect_check(const Config *c);
void ramp_check(const Config *c);
void ramp_init(Golf *m);
void golf_init_from(Golf *m, const char *path); /* a checkpoint */
int unshared(const Config *c, const char *name);
void unshare_check(const Config *c);
void lora_forward(const Golf *m, real *y, size_t ldy, Mat x, int k, int p, int r, int N);
void lora_dx(const Golf *m, real *dx, Mat dy, int k, int p, int r, int N);
void lora_dw(const Golf *m, const Gemm *w, int k, int p, int r);
int cluster_of(const Config *c, int *g, int *n);
void cluster_check(const Config *c);
void cluster_average(Golf *m, real *x);
void cluster_fit(Golf *m);
#define VECTORS(t) ((t)->copy_n / (size_t)(t)->vector)
int index_of(const int8_t *code, const Tensor *t, size_t v);
void set_index(int8_t *code, const Tensor *t, size_t v, int index);
size_t book_scales(const Tensor *t);
size_t book_bytes(const Tensor *t);
void book_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t);
void book_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t);
void book_pack(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t);
int book_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t);
size_t mixed_scales(const Tensor *t);
size_t mixed_bytes(const Tensor *t);
void mixed_quantize(int8_t *code, real *scale, uint8_t *mask, const real *w, const Tensor *t);
void mixed_dequantize(real *eff, const int8_t *code, const real *scale, const Tensor *t);
void mixed_pack(uint8_t *out, const int8_t *code, const real *scale, const Tensor *t);
int mixed_unpack(int8_t *code, real *scale, const uint8_t *in, const Tensor *t);

/* Section 10: the commands; argv without the program, the command and the file. */
int train_main(int argc, char **argv);
int eval_main(const char *path, int argc, char **argv);
int sample_main(const char *path, int argc, char **argv);
int info_main(const char *path, int argc, char **argv);
int bench_main(const char *what, int argc, char **argv); /* what: "step" or NULL */
int help_main(void);

/* Section 7. Tokenizer: any SentencePiece BPE .model, read directly (format: data/README.md). */
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
typedef struct {
    const uint8_t *text; /* not NUL-terminated; U+2581 for a space */
    int len, type;       /* 1..255 bytes, PIECE_* */
    int base_bytes;      /* UTF-8 bytes without one leading U+2581; 0 where boundary */
    int leading_space, boundary; /* starts with U+2581? control, unknown or unused? */
    float score;         /* merges with a higher score are applied first */
} Piece;
typedef struct {
    int vocab;                   /* V, number of pieces */
    int bos, unk;                /* ids; bos -1 when the model has none */
    uint32_t crc;                /* CRC-32 of the .model file: names it in artifacts */
    Piece *piece, shown_unk;     /* (V); what unk decodes to */
    char *path; const char *refuses; /* why tokenizer_encode dies, or NULL */
    uint8_t *file; size_t size;      /* the .model itself; pieces point into it */
    int *slot;                   /* (slots, a power of two) hash table: text -> id, -1: empty */
    uint32_t slots;
    int byte_id[256];            /* of byte piece <0xNN>, -1 without byte fallback */
    int inner_space, model_type, dummy_prefix, trim_spaces; /* inner: U+2581 after a start? */
} Tokenizer;
void same_tokenizer(const Tokenizer *tok, const char *ckpt); /* dies if that beside it differs */
Tokenizer *tokenizer_load(const char *path); /* dies when path is missing or not a valid model */
/* text[0..len) -> malloc'ed ids, *n_out of them, no BOS: exactly the ids of the SentencePiece
 * library. Bytes that are not UTF-8 become byte pieces (the library would write U+FFFD).
 * Dies on a model with t->refuses: it still decodes and counts bytes. */
int *tokenizer_encode(const Tokenizer *t, const char *text, size_t len, size_t *n_out);
/* ids[0..n) -> bytes to free(), NUL added after *len_out of them. As the library, except that byte
 * pieces always give their raw bytes. Dies on an id outside [0, vocab). */
char *tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, size_t *len_out);
/* Bytes of text that token `tok` stands for when it follows `prev`: the divisor of bpb. */
static inline int tokenizer_bytes(const Tokenizer *t, int prev, int tok) {
    return t->piece[tok].base_bytes + (t->piece[tok].leading_space && !t->piece[prev].boundary);
}

/* Shards: tokens on disk (layout: data/README.md). Those of a split are one long sequence. */
enum { SHARD_MAGIC = 20240520, SHARD_HEADER = 1024 };
typedef struct {
    char *path;
    int fd;
    int64_t first, tokens; /* position of its first token; how many it has */
} Shard;
typedef struct {
    Shard *shard; /* (count) in the order of their names */
    int count, vocab;
    int64_t tokens; /* of all shards */
} Shards;

/* All DIR/NAME_SPLIT_*.bin, split "train" or "val". Dies when there is none or one is damaged. */
Shards *shards_open(const char *dir, const char *split, int vocab);
/* out[0..count) = tokens [pos, pos+count). Dies on an id >= vocab. */
void shards_read(const Shards *s, int64_t pos, int count, int *out);
/* out[0..seq] = training row `row` >= 0 of a run: seq inputs and the last target. There are
 * W = (tokens-1)/seq windows; rows [e*W, (e+1)*W) are epoch e and visit each window once, shuffled.
 * A pure function of (seed, row): to resume a run is to remember a number. */
void shards_train_row(const Shards *s, uint64_t seed, int64_t row, int seq, int shuffle, int *out);

/* Sections 8-10: bytes of an artifact by purpose, a score, what a run ends with. */
typedef struct {
    size_t core, embedding, interface, protect, header, total;
} Ledger;

typedef struct {
    double nll, loss, bpb; /* sum over tokens, per token, in nats; bits per byte */
    int64_t tokens, bytes;
} Score;

typedef struct {
    const char *name, *preset;
    double seconds, tok_per_s, *rms; /* rms, gradient, cosine (3,phases): see watch, section 23 */
    int steps;
    Score memory, file;
} Run;
/* Instruments (section 23). Of all projections: the part of their codes that is 0 and whose
 * gradient is masked; how far scales moved, in powers of 2; pQuant's share of the MLPs' output. */
typedef struct { double codes, zero, masked, drift, hi_share; } Diagnosis;
Diagnosis diagnose(const Golf *m);
double flops_per_token(const Config *c);
void watch(const Golf *m, Run *run);
int plot(const Config *c, int run);

#ifndef GOLF_CODE_BYTES /* the Makefile gives both */
#define GOLF_CODE_BYTES 0
#define GOLF_GIT_REV "unknown"
#endif

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

#endif
