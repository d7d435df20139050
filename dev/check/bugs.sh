#!/bin/sh
# make test-bugs: would the tests notice? Each row plants one bug into a copy of the sources (a sed
# script, no hooks in the program), builds a test program and demands that a test FAILS. A bug that goes
# unnoticed, does not compile, or no longer matches the source is a failure; so is an untouched source
# that does not pass. The rows of a system stand in its file, behind `#elif defined BUGS`, and are built
# with that system alone.
#
#     bug NAME double|float PROGRAM PATTERN SED...    here: PROGRAM is golf, kernels, tokenizer, input, files, fit, options,
#                                                     commands, certify, or mpi: mpi.sh on train_golf_mpi (left out
#                                                     where mpicc or ./train_golf is not), or faults: the sections
#                                                     PATTERN of faults.sh on train_golf (left out where it can do none)
#     bug NAME double|float PATTERN SED...            in a system's file
#
# Environment: CC, FLAGS (no -O needed), BUGS=pattern to plant only some, PART=core for those of the core
# alone, PART=systems for those of the systems, PART=ci for a sixteenth of those of the core, of all of which it
# looks whether they match the source as it is, PART=match to look for that alone, JOBS (2 at a time).
set -u
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc} FLAGS=${FLAGS:--std=gnu11 -march=native -fopenmp} JOBS=${JOBS:-2} BUGS=${BUGS:-} PART=${PART:-all}
export OMP_NUM_THREADS=1
mkdir -p build && tmp=$(mktemp -d build/bugs.XXXXXX) || exit 1 # not TMPDIR: its name has no space, and what is in it runs
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

command -v timeout > /dev/null || timeout() { shift && "$@"; } # macOS has none
in_() { echo "/^\([A-Za-z].* \**\)\{0,1\}$1(/,/^}/"; } # sed address: the body of function $1

# What a bug may change: the core, and the files of one system.
sources() { # SYSTEM or nothing
    echo train_golf.c golf.h data/tokenizer.h data/prepare.c dev/bench/bench.h dev/mpi.h dev/export.h dev/check/certify.h
    [ -z "$1" ] || { echo "dev/systems/$1.h" && ls dev/systems/shared/*.h 2> /dev/null; }
}
copy() { # DIR SYSTEM: a tree of its own, with this system or none
    mkdir -p "$1/dev" "$1/data"
    cp train_golf.c golf.h test_golf.c "$1" && cp data/*.[ch] "$1/data"
    cp -r dev/systems dev/check dev/bench dev/mpi.h dev/export.h "$1/dev"
    { [ -z "$2" ] || grep "\"$2.h\"" dev/systems/systems.h; } > "$1/dev/systems/systems.h"
}
would_change() { # SYSTEM SED
    for file in $(sources "$1"); do
        sed "$2" "$file" | cmp -s - "$file" || return 0
    done
    return 1
}
substitute() { # DIR SYSTEM SED: fails when nothing changes
    changed=
    for file in $(sources "$2"); do
        sed "$3" "$1/$file" > "$1/new"
        cmp -s "$1/new" "$1/$file" || changed=1
        mv "$1/new" "$1/$file"
    done
    [ -n "$changed" ]
}
build() { # DIR PROGRAM double|float
    source=dev/check/$2.c define= optimize=-O0
    [ "$2" = golf ] && source=test_golf.c
    if [ "$2" = mpi ]; then
        # shellcheck disable=SC2086
        (cd "$1" && OMPI_CC=$CC MPICH_CC=$CC mpicc $FLAGS -O1 -w -DGOLF_MPI -o t train_golf.c -lm) > "$1.log" 2>&1
        return
    fi
    if [ "$2" = faults ]; then
        # shellcheck disable=SC2086
        (cd "$1" && $CC $FLAGS -O1 -w -o t train_golf.c -lm) > "$1.log" 2>&1
        return
    fi
    [ "$3" = double ] && define=-DGOLF_DOUBLE optimize=-O1 # gcc 12 fails at -O0 with vectors of doubles
    # shellcheck disable=SC2086
    (cd "$1" && $CC $FLAGS $optimize -w $define -o t "$source" -lm) > "$1.log" 2>&1
}
run() { # DIR PROGRAM PATTERN; output in DIR.log
    if [ "$2" = mpi ]; then
        GOLF=./train_golf GOLF_MPI=$1/t GOLF_FAIL_FAST=1 timeout 200 dev/check/mpi.sh "$3" > "$1.log" 2>&1
        return
    fi
    if [ "$2" = faults ]; then
        GOLF=$1/t ONLY=$3 GOLF_FAIL_FAST=1 timeout 900 dev/check/faults.sh > "$1.log" 2>&1
        return
    fi
    (cd "$1" && GOLF_FAIL_FAST=1 GOLF_TEST_ONLY=$3 timeout 100 ./t) > "$1.log" 2>&1
}

no_match() { echo "FAILED $name: the substitution no longer matches: $script"; }
verdict_of_bug() { # NAME double|float PROGRAM PATTERN SYSTEM SED...
    name=$1 numbers=$2 program=$3 pattern=$4 system=$5 dir=$tmp/$5.$1
    shift 5
    only_match=
    [ $PART = ci ] && [ $((planted % 16)) != 0 ] && only_match=yes
    [ $PART = match ] && only_match=yes
    case $PART.$program in ci.mpi | ci.faults) only_match=yes ;; esac # these need ./train_golf, or long
    if [ "$only_match" ]; then
        for script; do
            would_change "$system" "$script" && continue
            no_match
            return
        done
        echo "ok     $name: matches, not planted now"
        return
    fi
    copy "$dir" "$system"
    for script; do
        substitute "$dir" "$system" "$script" && continue
        no_match
        return
    done
    if ! build "$dir" "$program" "$numbers"; then
        echo "FAILED $name: does not compile: $(grep -m 1 error "$dir.log")"
        return
    fi
    run "$dir" "$program" "$pattern"
    status=$?
    first=$(LC_ALL=C grep -aE -m 1 '^FAILED|: error: ' "$dir.log" | sed 's/^FAILED //' | cut -c 1-100)
    if [ $status = 1 ] && [ -n "$first" ]; then echo "ok     $name: $first"
    elif [ $status -gt 128 ]; then echo "ok     $name: crashed, status $status"
    else echo "FAILED $name: went unnoticed by '$pattern' of $program (exit status $status)"
    fi
}
verdict_of_none() { # double|float PROGRAM SYSTEM: the untouched source
    dir=$tmp/$3.none.$2.$1 what="${3:-the core}: $2, $1 numbers"
    copy "$dir" "$3"
    if build "$dir" "$2" "$1" && run "$dir" "$2" ""; then echo "ok     $what: untouched, passes"
    else echo "FAILED $what: untouched, fails: $(LC_ALL=C grep -aE -m 1 '^FAILED|error: ' "$dir.log")"
    fi
}

mpi=
command -v mpicc > /dev/null && command -v mpirun > /dev/null && [ -x ./train_golf ] && mpi=yes
faults=
[ -x ./train_golf ] && ONLY=locks dev/check/faults.sh 2>&1 | grep -q ' passed, ' && faults=yes
# As many at a time as there are lines in this pipe.
mkfifo "$tmp/slots" && exec 3<> "$tmp/slots" || exit 1
for _ in $(seq "$JOBS"); do echo >&3; done
planted=0
start() { # NAME VERDICT-FUNCTION ARGUMENTS...
    case $1 in *$BUGS*) ;; *) return ;; esac
    planted=$((planted + 1))
    file=$tmp/$(printf %04d $planted).verdict
    shift
    read -r _ <&3
    { "$@" > "$file"; rm -rf "$dir"; echo >&3; } 2> "$file.err" &
}
untouched() { # double|float PROGRAM SYSTEM: once. CI leaves the longest, which `make test` has just run, to that
    case $PART.$2 in match.* | ci.golf | ci.fit | ci.certify | ci.commands) return ;; esac
    case " $seen " in *" $1.$2.$3 "*) return ;; esac
    seen="$seen $1.$2.$3"
    start "none $2 $3" verdict_of_none "$1" "$2" "$3"
}
seen=
bug() { # of the core: NAME double|float PROGRAM PATTERN SED...
    name=$1 numbers=$2 program=$3 pattern=$4
    shift 4
    case $PART.$program in ci.options | systems.*) return ;; esac
    [ "$program" != mpi ] || [ "$mpi" ] || [ $PART = ci ] || return
    [ "$program" != faults ] || [ "$faults" ] || [ $PART = ci ] || return
    case $PART.$program in
    ci.mpi | ci.faults) ;;
    *) untouched "$numbers" "$program" "" ;;
    esac
    start "$name" verdict_of_bug "$name" "$numbers" "$program" "$pattern" "" "$@"
}

# gradients
bug dW-of-last-phase-only double golf gradients "$(in_ linear_dw)s/^\( *N,  *\)1,/\10,/"
bug dW-from-another-input double golf gradients "$(in_ attention_dw)s/&s->in_o/\&s->in_q/"
bug codes-without-their-step double golf gradients "$(in_ inputs_of)s/mat_q(x->q, x->step,/mat_q(x->q, m->ones,/"
bug interface-of-last-phase-only double golf gradients "$(in_ fold_interface)s/ += from/ = from/"
bug phase-vector-one-early double golf gradients \
    "$(in_ output_forward)s/vec_of(m, T_gate_attn, k)/phase_vector(m, T_gate_attn, k->p ? k->p - 1 : 0)/"
bug rmsnorm-dot-term double golf layers "$(in_ rmsnorm_backward)s/sum_of(&sum) \*/0 * sum_of(\&sum) */"
bug gate-gradient-2-percent double golf layers "$(in_ gate_backward)s/dg\[i\] += dout/dg[i] += (real)1.02 * dout/"
bug qgain-gradient-2-percent double golf layers "$(in_ qk_backward)s/+= dot \* r;/+= (real)0.98 * dot * r;/"
bug relu-without-its-kink double golf layers "$(in_ relu_backward)s/f\[at + i\] > 0 ? df\[at + i\] : 0/df[at + i]/"
bug silu-slope double golf layers "$(in_ silu_slope)s/(1 - s))/s)/"
bug swiglu-of-the-wrong-side float golf activations "$(in_ swiglu_forward)s/gate\[at + i\] \* sigmoid(gate\[at + i\]) \* f\[at + i\]/f[at + i] * sigmoid(f[at + i]) * gate[at + i]/"
bug sigmoid-overflows float golf activations "$(in_ sigmoid)s/fast_exp(-fabs(x))/fast_exp(-x)/; $(in_ sigmoid)s/return x < 0 ? t \* s : s/return s/"
bug third-dW-of-the-second double golf gradients "$(in_ mlp_dw)s/m->df_gate, F/m->df, F/"
bug third-matrix-without-dx double golf gradients "$(in_ mlp_hidden_backward)s/du\[i\] += room\[i\]/du[i] += 0 * room[i]/"
bug rope-sign-backward double golf layers "$(in_ rope_backward)s/d1 \* c - d2 \* s/d1 * c + d2 * s/"
bug embedding-without-x0-path double golf model \
    "$(in_ embed_chunk_backward)s/gate_forward(f.dx0, f.dx0, f.dh,.*;/memcpy(f.dx0, f.dh, sizeof(real) * (size_t)n * C);/"
bug embedding-without-head double golf model "$(in_ logits_dw)s/gemm(dE, E, mat_t.*;/(void)dE;/"
bug softcap-derivative double golf layers "$(in_ loss_backward)s/ \* (1 - l\[i\] \* l\[i\] \* cap2)//"
bug chunk-edge-lost double golf model "$(in_ add_chunks)s/j < m->rows_partial;/j < MIN(1, m->rows_partial);/"
bug row-scale-of-another-row double golf gradients "$(in_ linear_forward)s/\*= scale\[first + i\]/*= scale[i]/"
bug each-norm-of-the-first double golf model "$(in_ qkv_backward)s/du, r > 0,/du, 0,/"
bug masks-ignored float golf straight "$(in_ ste_backward)s/mask\[i\] ? dw\[i\] : 0/dw[i]/"
# layers and the model
bug rope-sign-both float golf RoPE \
    "$(in_ rope_forward)s/x1 \* c + x2 \* s, x2 \* c - x1 \* s/x1 * c - x2 * s, x2 * c + x1 * s/" \
    "$(in_ rope_backward)s/d1 \* c - d2 \* s, d1 \* s + d2 \* c/d1 * c + d2 * s, d2 * c - d1 * s/"
bug rope-half-by-all-angles float golf RoPE "$(in_ rope_table)s|-2.0 \* i / turned|-2.0 * i / D|"
bug rope-of-another-row float golf RoPE "$(in_ qk_forward)s/(pos0 + (n0 + n) % T)/(pos0 + n % T)/"
bug gqa-head-mapping float golf attention "$(in_ attention_forward)s|pack_a(k_left, mat(k + (size_t)b \* Tk \* ldk + kv|pack_a(k_left, mat(k + (size_t)b * Tk * ldk + (kv + 1) % KV|"
bug attention-sees-the-next-token float golf attention \
    "$(in_ set_unseen)s/l < t - keys + rows/l < t - keys + rows - 1/"
bug norm-with-another-floor double golf RMSNorm "$(in_ rmsnorm_forward)s/(real)1e-6/(real)1e-4/"
bug target-of-the-next-token float golf cross "$(in_ loss_forward)s/l\[targets\[n\]\]/l[targets[(n + 1) % N]]/"
bug order-exchanged float golf order "$(in_ block_of)s/c->order == ORDER_CYCLE/c->order != ORDER_CYCLE/"
bug coda-is-the-prelude float golf order "$(in_ block_of)s/c->prelude + c->unique + (loop/(loop/"
bug head-of-the-last-part-only double golf large "$(in_ logits_dw)s/V, E, n, 1);/V, E, n, 0);/"
bug recompute-of-another-phase double golf large \
    "$(in_ golf_backward)s/1) block_forward(m, p, B, T)/1) block_forward(m, m->visits[i + 1], B, T)/"
bug scalar-of-another-phase float golf definition "$(in_ copy_of)s/== m->phases ? p/== m->phases ? 0/"
bug cache-rotates-from-0 float golf cached "$(in_ qkv_forward)s/m->cached/0/"
# quantizers
bug scale-not-bf16 float golf quantizers "$(in_ ternary_scale)s/from_bf16(to_bf16(\(.*\)));/(\1);/"
bug step-not-bf16 float golf quantizers "$(in_ int_scale)s/from_bf16(to_bf16(\(.*\)));/(\1);/"
bug ties-away-from-zero float golf quantizers "$(in_ grid_code)s/rint(/round(/"
bug trits-highest-first float golf quantizers \
    "$(in_ ternary_pack)s|out\[i / 5\] = .*|out[i / 5] += (uint8_t)((code[i] + 1) * (int[]){81, 27, 9, 3, 1}[i % 5]);|" \
    "$(in_ ternary_unpack)s|code\[i\] = .*|code[i] = (int8_t)(byte / (size_t)(int[]){81, 27, 9, 3, 1}[i % 5] % 3) - 1;|; $(in_ ternary_unpack)s|byte /= 3;||"
bug bits-highest-first float golf integers \
    "$(in_ int_packed)s/u >> i % bits/u >> (bits - 1 - i % bits)/" "$(in_ int_unpacked)s/<< b;/<< (bits - 1 - b);/"
bug infinite-scale-accepted float golf trits "$(in_ unpack_scales)s/ || !isfinite(scale\[g\])//"
bug group-of-the-next-row float golf grids "$(in_ span_at)s|i / per_line \* line + at,|i * group,|"
bug three-bits-as-four float golf grids "$(in_ choose_quantizer)s/3 + c->wq/4 + c->wq/"
bug int4-everywhere float golf inputs "$(in_ inputs_for)s/ && tensor != T_wdown//"
bug inputs-of-one-step float golf inputs "$(in_ act_quant)s/absmax_of(x + at, K)/absmax_of(x, K)/"
# optimizers
bug adamw-without-bias-correction float golf AdamW "$(in_ golf_adamw)s/real c1 = [^;]*;/real c1 = 1;/"
bug decay-of-everything float golf AdamW "$(in_ golf_adamw)s/t->role == PROJ ? 1 - rate/1 ? 1 - rate/"
bug adamw-trains-all float golf "Muon and" "$(in_ golf_adamw)s/ || is_for_muon(c, t)//"
bug second-half-again float golf groups "$(in_ groups_backward)s|first + n / 2, n / 2|first, n / 2|"
bug halves-in-one-memory float golf groups "$(in_ groups_backward)s/n \/ 2, half + 1);/n \/ 2, half);/"
bug gradient-of-a-half float golf groups "$(in_ groups_backward)s/m->grad = grad;/grad = half[0];/"
bug groups-added-up float golf groups "$(in_ groups_backward)s|half\[0\]\[i\]) / 2|half[0][i])|"
bug loss-of-a-half float golf groups "$(in_ groups_backward)s|(left + right) / 2|left|"
bug groups-cut-rows float golf groups "$(in_ config_check)s/if (c->batch % c->accum)/if (0)/"
bug tokens-of-a-group float commands training "$(in_ log_step)s/step_tokens/group_tokens/"
bug ranks-compute-the-same-groups float mpi "bits: Muon" "$(in_ golf_step)s/my_rank \* groups/0/"
bug ranks-far-apart-first float mpi "bits: Muon" "$(in_ reversed)s/return r;/return x;/"
bug loss-of-rank-0 float mpi "bits: Muon" "$(in_ ranks_mean)s/loss = (loss + other)/loss = (loss + loss)/"
bug matrices-of-another-part float mpi "bits: Muon" "$(in_ ranks_own)s/== reversed(my_rank)/== my_rank/"
bug matrices-kept float mpi "bits: Muon" "$(in_ ranks_share)s/gather_matrices(m, m->master);//"
bug moments-kept float mpi "bits: Muon" "$(in_ ranks_meet)s/gather_matrices(m, m->moment1);//"
bug losses-kept float mpi "bits: AdamW" "$(in_ ranks_losses)s/gather_parts(loss, row);//"
bug ranks-with-other-options float mpi "faults" "$(in_ same_arguments)s/if (strcmp(mine, first))/if (0)/"
bug ranks-of-another-program float mpi "faults" "$(in_ ranks_start)s/agree(.program.*//"
bug ranks-with-other-shards float mpi "faults" "$(in_ crc_of_shards)s/= crc_of_file(s->shard\[i\].path)/= 0/"
bug all-ranks-speak float mpi "faults" "$(in_ ranks_error)s/now() + (.*/now();/"
bug clipping-ignored float golf clipping "$(in_ golf_step)s|c->clip / norm : 1|1 : 1|"
# products of codes, gradients of 16 bits
bug fraction-cut-off float kernels "16 bits" "$(in_ fraction_of)s/ + (1 << 14)//"
bug sum-of-too-many-terms float kernels "16 bits" "$(in_ weights_16_pack)s|/ top / 2 \* 2|/ top * 2|"
bug odd-term-twice float kernels "16 bits" "$(in_ pack_pairs)s/last ? 0 : left/left/"
bug blocks-not-added float kernels "16 bits" "$(in_ gemm_codes)s/acc || k0 > 0/acc/"
bug column-of-another-panel float kernels "16 bits" "$(in_ gemm_16)s/w->column + j/w->column/"
bug twelve-bits-of-eleven float kernels "a step per" "$(in_ gemm_codes)s/head_16.b);/head_16.b \/ 2);/"
bug steps-of-the-first-panel float kernels "16 bits" "$(in_ gemm_codes)s/a.steps\[i + r\]/a.steps[r]/"
bug nan-rounded float kernels "rounding" "$(in_ round_step)s/most < (real)INFINITY ? absmax/1 ? absmax/"
bug step-of-13-bits float kernels "gradients: rounding" "$(in_ round_step)s/(real)top \/ absmax : 0/(real)top \/ absmax \/ 4 : 0/; $(in_ round_step)s/absmax \/ (real)top :/4 * absmax \/ (real)top :/"
bug tokens-without-their-steps float kernels "bounds" "$(in_ block_fractions)s/a.row_step\[i\] \* b.row_step\[i\]/*a.row_step * b.row_step[i]/"
bug nan-is-a-score float kernels "of no number" "$(in_ softcap_gaps)s/min_lanes((vec){0} + 80, x)/min_lanes(x, (vec){0} + 80)/"
bug nan-has-a-gradient float kernels "of no number" "$(in_ exp_lanes)s/max_lanes(one \* -87.0f, x)/max_lanes(x, one * -87.0f)/"
bug loss-codes-without-softcap float kernels "of the loss" "$(in_ loss_lanes)s/ \* (2 - part)//"
bug small-gradients-are-lost float kernels "small ones" "$(in_ carry_on)s/ + carry\[c\];/;/"
bug columns-of-one-size float kernels "of the loss" "$(in_ column_codes)s/ \* size\[n\];/ * size[0];/"
bug column-of-numbers-after-none float kernels "small ones" "$(in_ column_codes)s/none += 0 \* size\[n\]/none += 0/"
bug scale-without-dz float golf "in codes" "$(in_ pack_head)s|scale\[v\] / largest|1|"
bug target-without-dz float golf "in codes" "$(in_ head_chunk_codes)s/-= target_dl/-= 0 * target_dl/"
bug target-without-dE float golf "in codes" "$(in_ logits_dw)s/= -m->target_dl/= 0 * m->target_dl/"
bug gate-rounded-as-up float golf "in codes" "$(in_ mlp_dw)s/m->df_gate, F, m->df_gate_h/m->df_gate, F, m->df_h/"
bug rows-of-one-scale float golf "in codes" "$(in_ pack_rows_of)s/NULL : scale + first/NULL : scale/; $(in_ weights_16_pack)s/b.row_step \&\& !b.trans/0/"
bug muon-of-the-wide-side double golf Muon "$(in_ muon_rows)s/tall = rows >= cols/tall = rows < cols/"
bug muon-without-nesterov double golf Muon "$(in_ muon_rows)s/^ *mu \* moment\[n\] + (1 - mu) \* g;/moment[n];/"
bug muon-with-an-epsilon float golf sizes "$(in_ normalise)s|1 / sqrt(squares)|1 / (sqrt(squares) + 1e-7)|"
bug muon-overflows float golf sizes "$(in_ sum_of_sizes)s/+= w \* w;/+= __builtin_convertvector(in[v] * in[v], wide);/"
bug adamw-with-one-epsilon float golf sizes "$(in_ adamw_epsilon)s/fmin(c->clip, 1)/1/"
bug embedding-with-the-epsilon-of-all float golf "epsilon of the embedding" "$(in_ golf_adamw)s/c->eps_embed/ADAMW_EPSILON/"
bug muon-of-all-parts double golf Muon "$(in_ muon_matrix)s/parts = t->muon_parts ? t->muon_parts : 1/parts = 1/"
bug decay-to-the-end float golf schedules "$(in_ wd_at)s/2.0 \* step >= c->steps/0/"
bug warm-down-a-step-late float golf schedules "$(in_ lr_factor)s/(1 - done) \/ c->warmdown/(1 - done + 1.0 \/ c->steps) \/ c->warmdown/"
bug divergence-unnoticed float golf learning "$(in_ stop_if_diverged)s/isfinite(loss) && norm/norm/"
bug broken-weights-unnoticed float golf learning "$(in_ stop_if_broken)s/!isfinite/0 \&\& !isfinite/"
bug score-that-is-no-number float commands messages "$(in_ finish_run)s/!isfinite(run->memory.bpb)/0/"
bug resumed-run-in-no-time float commands training "$(in_ rows_to_keep)s/run->seconds += /0 * /"
bug huge-gradient-unnoticed float golf learning "$(in_ stop_if_diverged)s/norm \* scale < 1e18/isfinite(norm)/"
bug flips-uncounted float golf learning "$(in_ golf_quantize)s/m->flips += \(.*\);/m->flips += 0 * (\1);/"
bug sums-of-a-thread float golf threads "$(in_ chunk_dvector)s|n0 / CHUNK|(n0, (size_t)omp_get_thread_num())|"
bug rows-of-two-threads float golf threads "$(in_ embed_backward)s/% owners != owner/% owners < owner/"
bug large-tensors-are-forgotten float golf "every copy" "$(in_ golf_quantize)s/if (goes_beside(t)) continue/if (1) continue/"
bug large-weights-are-forgotten float golf "every copy" "$(in_ golf_use)s/if (t->copy_n < LARGE) continue/if (1) continue/"
bug codes-of-small-tensors-do-not-count float golf "every copy" "$(in_ golf_quantize)s/if (goes_beside(t)) flips += /if (goes_beside(t)) /"
bug step-of-one-block float kernels operand "$(in_ orthogonal_operand)s/absmax_or_nan(most, BLOCKS)/most[0]/"
bug packed-depth-at-the-start float kernels "16 bits" "$(in_ weights_16_pack)s| + (size_t)k0 / 2 \* NRI||"
bug first-stripe-of-sums-is-lost double golf gradients "$(in_ add_chunks)s/size_t start = 0/size_t start = STRIPE/"
bug resume-forgets-a-moment float golf resume "$(in_ ckpt_load)s/memcpy(m->moment2.*;/;/"
# bits per byte, sampling
bug space-counted-after-bos float golf bits "$(in_ tokenizer_bytes)s/ && !t->piece\[prev\].boundary//"
bug sliding-counts-twice float golf sliding "$(in_ is_new)s/return first_row/return 1 || first_row/"
bug prefix-ignored float golf sliding "$(in_ tokens_to_score)s/limit > 0 && /0 \&\& /"
bug temperature-upside-down float golf pick "$(in_ pick)s|/ temperature);|* temperature);|"
bug top-p-cuts-nothing float golf pick "$(in_ pick)s/cut_at < top_p \* sum/1/"
bug context-from-the-start float golf sampling "$(in_ golf_sample)s|have - T / 2;|have - T;|"
# certificates: of a score that is none, by a program that would give one, and of one that looks away
bug seen-ahead-and-certified float certify honest "$(in_ set_unseen)s/l < t - keys + rows/l < t - keys + rows - 1/"
bug unnormalised-and-certified float certify honest "$(in_ loss_forward)s/lse\[n\] = SOFTCAP/lse[n] = (real)0.01 + SOFTCAP - (real)0.02/"
bug bytes-twice-and-certified float certify honest "$(in_ score_rows)s/s->bytes += /s->bytes += 2 * /"
bug targets-twice-and-certified float certify honest "$(in_ is_new)s/return first_row/return 1 || first_row/"
bug targets-shown-and-certified float certify honest "$(in_ golf_eval)s/x + b \* len + 1, sizeof/x + b * len, sizeof/"
bug half-the-text-certified float certify honest "$(in_ golf_eval)s/while (total - at > T - step)/while (total - at > total \/ 2)/"
bug learnt-first-and-certified float certify learner "$(in_ golf_eval)s/score_rows(m, tok, &r, &s);/EACH_SYSTEM(z, m) { if ((*z)->learn) (*z)->learn(m, \&r); } &/"
bug any-order-is-causal float certify causal "$(in_ certify_causal)s/\"causal\", !changed/\"causal\", 1/"
bug the-same-text-twice float certify "other text" "$(in_ other_text)s/(c->text\[i\] + shift)/(c->text[i] + 0 * shift)/"
bug no-document-starts float certify "other text" "$(in_ other_text)s/to\[place + 1\] = tok->bos/(void)tok/"
bug text-ends-at-the-place float certify causal "$(in_ changed_scores)s/2 \* c->first_end + 1/1/"
bug any-sum-is-one float certify normalised "$(in_ certify_normalised)s/c->worst <= SUM_TOLERANCE/1/"
bug other-scores-than-summed float certify normalised "$(in_ certify_normalised)s/ && !c->other_scores//"
bug sums-of-what-was-learnt float certify learner \
    "$(in_ certificate_eval)s/join(&m, &certificate_system);//; $(in_ certificate_eval)s/const Score s = /join(\&m, \&certificate_system); &/"
bug wrong-tokens-unseen float certify misread "$(in_ certificate_rows)s/ || r->y\[n\] != c->given\[at + 1\]//"
bug wrong-inputs-unseen float certify misread "$(in_ certificate_rows)s/ || r->x\[n\] != c->given\[at\]//"
bug misread-is-once float certify "every target" "$(in_ certify_once)s/ && !c->misread//"
bug twice-is-once float certify "every target" "$(in_ certify_once)s/as_often == last && //"
bug any-part-left-out float certify "every target" "$(in_ certify_once)s/ && left < row//"
bug bytes-of-the-table-alone float certify bytes "$(in_ certify_once)s/is_their_sum(c, s, text_bytes)/is_their_sum(c, s, s->bytes)/"
bug sum-of-other-scores float certify "every target" "$(in_ is_their_sum)s/s->nll == nll/1/"
bug part-of-the-score-certified float certify honest "$(in_ score_rows)s/s->nll += /s->nll += 0.99 * /"
bug first-spaces-counted float certify decoded "$(in_ document_bytes)s/!drops && /0 \&\& /"
bug first-token-counted float certify decoded "$(in_ decoded_bytes)s/return sum - document_bytes(tok, text, 0, 1)/return sum/"
bug any-file-will-do float certify "of the file" "$(in_ same_score)s/a->nll == b->nll && //"
bug certificate-not-in-result float certify run "$(in_ write_result)s/if (r->certificate)/if (0)/"
bug certificate-unasked float certify run "$(in_ finish_run)s/if (c->certify)$/if (1)/"
bug certificate-of-another-seed float certify run "$(in_ certificate_of_run)s/.how = c,/.how = (Config[]){with_option(c, \"certify\", \"9\")},/"
bug verdict-not-in-result float certify run "$(in_ certificate_of_run)s/fprintf(to, \"certified/if (0) &/"
bug refuted-with-status-0 float certify run "$(in_ train_main)s/return !finish_run/return 0 * finish_run/"
bug uncertified-with-status-0 float certify command "$(in_ eval_main)s/return !good/return 0 * good/"
# kernels
bug block-overwrites-sum float kernels gemm "$(in_ gemm_serial)s/acc || k0 > 0/acc/"
bug tile-of-the-other-height float kernels gemm "$(in_ height_of)s/(rows > HEIGHT_2)/(rows > HEIGHT_3)/"
bug transposed-panel-cut float kernels gemm "$(in_ pack_transposed)s/depth - k)/depth - k - 1)/"
bug cut-loses-a-row float kernels tasks "$(in_ cut)s/return CEIL(g->m, rows)/return g->m \/ rows/"
bug stream-word-lost float kernels codes "$(in_ int_pack_stream)s/word % 4 \* 2/word % 2 * 2/"
bug exp-one-constant float kernels exp "$(in_ fast_exp)s/2.12194440e-4f/2.12e-4f/"
bug fused-rounded-twice float kernels rounding "$(in_ fused_by_doubles)s/if (is_even/if (0/"
bug fused-lane-rounded-twice float kernels rounding "$(in_ fused_lanes_by_doubles)s/ + (step & is_even & inexact)//"
bug fused-in-two-roundings float kernels rounding "$(in_ fused)s/__builtin_fmaf(a, b, c)/a * b + c/"
bug log-of-the-other-half float kernels functions "$(in_ log_of)s/power++/power--/"
bug sine-of-a-term-less float kernels functions "$(in_ wave)s/polynomial(sine, 8,/polynomial(sine, 6,/"
bug angle-in-one-part float kernels functions "$(in_ sine_of)s/ - k \* HALF_PI\[2\]//"
bug lanes-added-in-another-order float kernels order "s/enum { SUM = 16,/enum { SUM = 32,/"
bug tile-rounded-twice float kernels order "$(in_ tile)s/= fused_lanes(ai, b0, s\[i\]\[0\])/+= ai * b0/"
bug blocks-added-backwards float kernels selftest "$(in_ block_sum)s/total += part\[b\]/total += part[blocks - 1 - b]/"
bug one-multiply-add-contracted float kernels selftest "$(in_ mix_forward)s/a\[i\] \* prev\[at + i\] + b\[i\] \* x0\[at + i\]/fused(a[i], prev[at + i], b[i] * x0[at + i])/"
bug bf16-rounds-up float kernels bf16 "$(in_ to_bf16)s/0x7fff + (u >> 16 & 1)/0x8000/"
bug crc-not-chained float kernels bits "$(in_ crc32_of)s/crc = ~crc;/crc = ~0u;/"
bug normal-of-one-draw float kernels randomness "$(in_ normal01)s/2 \* i + 1/2 * i/"
bug coder-forgets-a-carry float kernels coder "$(in_ coder_carry)s/while (++\*q == 0) q--;/(void)q;/"
bug coder-never-learns float kernels coder "$(in_ coded_bit)s/node->n += node->n < 255;/node->n = 0;/"
bug coder-takes-a-byte-less float kernels coder "$(in_ coded_stream)s/ && (!reading || r.at == r.end)//; $(in_ read_coded)s/int good = at\[n\] == len;/int good = at[n] <= len + 1;/"
# input
bug merge-rightmost-first float tokenizer encoding "$(in_ rescore)s/e->sym\[right\].score > e->sym/e->sym[right].score >= e->sym/"
bug merge-forgets-its-left float tokenizer naively "$(in_ merge_with_next)s/if (left->prev >= 0) rescore(e, left->prev);//"
bug every-unknown-letter float tokenizer default "$(in_ put_id)s/!unk || !to->after_unk/1/"
bug twins-accepted float tokenizer models "$(in_ add_piece)s/if (other >= 0)/if (0)/"
bug unused-twins-accepted float tokenizer models "$(in_ is_reserved)s/type == PIECE_BYTE/type == PIECE_BYTE || type == PIECE_UNUSED/"
bug user-defined-bytes-accepted float tokenizer models "$(in_ add_piece)s/ && !is_plain_text(x)/ \&\& 0/"
bug kinds-of-the-future float tokenizer models "$(in_ ready_to_encode)s/own->model_type > CHARACTER/0/"
bug control-pieces-in-a-text float tokenizer facts "$(in_ put_id)s/if (t->piece\[id\].type == PIECE_CONTROL)/if (0)/"
bug user-defined-merges float tokenizer facts "$(in_ merge_score)s/if (s->user || next->user)/if (0)/"
bug user-defined-shortest float tokenizer facts "$(in_ trie_longest)s/longest = i;/return i;/"
bug user-defined-mapped float tokenizer normalising "$(in_ map_prefix)s/trie_longest(&t->own->user, s, n)/0 * n/"
bug unused-pieces-as-ids float tokenizer facts "$(in_ put_symbol)s/== PIECE_UNUSED ? e->split\[id\] : 0/== PIECE_UNUSED ? 0 : 0/"
bug unused-unigrams-taken float tokenizer facts "$(in_ offer_pieces)s/ || t->piece\[id\].type == PIECE_UNUSED//"
bug sums-compared-as-floats float tokenizer facts "$(in_ offer)s/!(score > (double)to->score)/!((float)score > to->score)/"
bug last-of-equal-paths float tokenizer "unigrams, naively" "$(in_ offer)s/!(score > /!(score >= /"
bug unknown-without-penalty float tokenizer facts "$(in_ offer_pieces)s/lowest - 10/lowest/"
bug bonus-of-a-user-forgotten float tokenizer facts "$(in_ piece_score)s/if (x->type != PIECE_USER)/if (1)/"
bug cut-where-pieces-lie float tokenizer stretches "$(in_ spaces_meet)s/BETWEEN_SPACES : AFTER_SPACE/AFTER_SPACE : AFTER_SPACE/"
bug cut-before-every-space float tokenizer stretches "$(in_ spaces_meet)s/before == 0 \&\& space/0/"
bug cut-behind-every-space float tokenizer stretches "$(in_ spaces_meet)s/BETWEEN_SPACES : AFTER_SPACE/BETWEEN_SPACES : 0/"
bug long-pieces-refused float tokenizer "long pieces" "s/PIECE_MOST = 4095/PIECE_MOST = 255/"
# character maps
bug map-takes-the-shortest float tokenizer normalising "$(in_ map_longest)s/if (!(unit \& UNIT_ENDS)) continue;/if (longest || !(unit \& UNIT_ENDS)) continue;/"
bug map-offsets-unshifted float tokenizer normalising "$(in_ unit_offset)s/<< ((unit \& 1 << 9) >> 6)/<< 0/"
bug broken-bytes-kept float tokenizer normalising "$(in_ map_prefix)s/!len \&\& !t->own->keeps_bytes/0/"
bug broken-bytes-lost float tokenizer "encoding" "$(in_ map_prefix)s/!len \&\& !t->own->keeps_bytes/!len/"
bug spaces-kept float tokenizer default "$(in_ append_mapped)s/if (after_space)/if (0)/"
bug spaces-in-front-kept float tokenizer normalising "$(in_ normalise_text)s/while (t->trim_spaces \&\& i < n)/while (0)/"
bug spaces-behind-kept float tokenizer normalising "$(in_ normalise_text)s/while (ends_with_space(t, &to))/while (0)/"
bug suffix-in-front float tokenizer normalising "$(in_ normalise_text)s/ \&\& !t->suffix//"
bug map-of-any-size float tokenizer "sizes of maps" "$(in_ load_map)s/ || size > blob.len - 4//"
bug map-of-odd-size float tokenizer "sizes of maps" "$(in_ load_map)s/ || size % 4//"
bug map-root-a-leaf float tokenizer "broken maps" "$(in_ check_map)s/m->unit\[0\] \& (UNIT_LEAF | UNIT_ENDS)/0/"
bug map-offsets-unchecked float tokenizer "broken maps" "$(in_ check_units)s/(base | 0xFF) >= m->units/0/"
bug map-block-half-outside float tokenizer "broken maps" "$(in_ check_units)s/(base | 0xFF) >= m->units/base > m->units/"
bug map-circles-accepted float tokenizer "broken maps" "$(in_ check_units)s/if (depth + x.bytes > MAP_KEY_MOST)/if (0)/"
bug map-keys-that-join float tokenizer "broken maps" "$(in_ check_units)s/depth + x.bytes > MAP_KEY_MOST/depth > MAP_KEY_MOST/"
bug map-nested-at-will float tokenizer "broken maps" "$(in_ check_units)s/if (x.keys > MAP_NESTED_MOST)/if (0)/"
bug map-ends-without-leaves float tokenizer "broken maps" "$(in_ check_leaf)s/if (!(leaf \& UNIT_LEAF))/if (0)/"
bug map-texts-behind float tokenizer "broken maps" "$(in_ check_leaf)s/if (place >= m->len)/if (place > m->len)/"
bug map-texts-inside float tokenizer "broken maps" "$(in_ check_leaf)s/if ((m->text\[place\] \& 0xC0) == 0x80)/if (0)/"
bug map-text-unended float tokenizer "broken maps" "$(in_ check_map)s/!m->len || m->text\[m->len - 1\]/!m->len/"
bug map-text-broken float tokenizer "broken maps" "$(in_ check_map)s/if (!len) refuse_map(path, .a text that is no UTF-8.);/if (!len) return;/"
# encode, decode, prepare
bug lines-as-one-text float tokenizer commands "$(in_ each_text)s/if (!how->lines)/if (1)/; $(in_ each_text)s/while (how->lines \&\& /while (0 \&\& /"
bug ids-that-are-words float tokenizer commands "$(in_ print_text)s/after == p || //"
bug full-disk-unsaid float tokenizer commands "$(in_ end_output)s/fflush(stdout) || ferror(stdout)/0/"
bug tokenizer-of-another float tokenizer "of models" "$(in_ open_model)s/tok->crc != crc ||/0 \&\& tok->crc != crc ||/"
bug two-tokenizers-taken float tokenizer commands "$(in_ text_tokenizer)s/if (\*how->tokenizer)/if (0)/"
bug shards-of-one-size float tokenizer grows "$(in_ shard_writer_put)s/if (w->n == w->cap) shard_writer_grow(w);/if (!w->cap) shard_writer_grow(w); if (w->n == 30000) w->n--;/"
bug epochs-in-file-order float input order "$(in_ shards_train_row)s/shuffled(row % windows, windows, key)/(row % windows)/"
bug one-order-for-all-seeds float input order "$(in_ shards_train_row)s/hash64(seed, /hash64(1, /"
bug prefix-of-another-name float input names "$(in_ open_split_files)s/ || strncmp(name, first, (size_t)prefix)//"
bug names-with-numbers-alone float input names "$(in_ shard_prefix)s/const int numbered = .*/const int numbered = 1;/"
bug shards-of-32-bits-unnamed float input shards "$(in_ open_shard)s/== LLAMA3_MAGIC/== 0/"
bug spaces-inside-as-three-bytes float input tables "$(in_ count_piece)s/ - 2 \* x->inner_spaces//"
bug bytes-that-spell-a-space float input bytes "$(in_ spell_byte)s/if (b->last != 0xE29681)/if (1)/"
bug first-space-counted float input bytes "$(in_ spell_byte)s/b->since == 3 ? -2 : -1/-1/"
bug bytes-never-checked float input "no wrong score" "$(in_ open_split)s/if (!strcmp(split, .val.))/if (0)/"
bug table-never-checked float input tables "$(in_ refuse_wrong_table)s/if (b->wrong)/if (0)/"
bug unknown-text-scored float input tables "$(in_ refuse_unknown)s/if (b->unknown)/if (0)/"
bug marks-of-case-scored float input tables "$(in_ check_text_bytes)s/if (b.shifts)/if (0)/"
bug space-as-it-is float input tables "$(in_ spell_token)s/if (!b->t->escapes) b->last = 0;//"
bug space-in-front-counted float input tables "$(in_ spell_byte)s/in_front && b->since == 1/0/"
bug space-behind-counted float input tables "$(in_ spell_end)s/return -behind/return 0 * behind/"
bug last-space-behind-counted float input tables "$(in_ refuse_wrong_table)s/b->wrong += behind != 0;//"
bug prepared-all-the-same float input "no wrong score" "$(in_ prepare_split)s/^ *refuse_wrong_table.*//"
bug files-of-bytes-ignored float input files "$(in_ golf_eval)s/if (val->bytes) s.bytes/if (0) s.bytes/"
bug bytes-a-token-late float input files "$(in_ given_bytes)s/shards_read(bytes, at,/shards_read(bytes, at - 1,/"
bug bytes-of-fewer-tokens float input files "$(in_ shards_open)s/s->bytes->tokens != s->tokens/0/"
bug bytes-of-control-pieces float input files "$(in_ check_given_bytes)s/if (bad ||/if (/"
bug no-bytes-accepted float input files "$(in_ check_given_bytes)s/given < text \/ 2/0/"
bug cut-inside-a-line float input parts "$(in_ part_end)s/if (cut > from) return cut;//"
bug cut-inside-a-character float input parts "$(in_ part_end)s/& 0xC0) == 0x80/\& 0xC0) == 0x01/"
bug long-files-refused float input "long files" "$(in_ prepare_document)s/from, encode_most)/from, (size_t)1 << 28)/"
bug slash-kept float input folders "$(in_ cut_slashes)s/len > 1/0/"
bug empty-folder-removed float input folders "$(in_ start_folder)s/remove_folder(dir);/rmdir(out);/"
bug unfinished-left float input folders "$(in_ remove_unfinished)s/if (\*unfinished)/if (0)/"
bug held-out-and-trained-on float input "held out" "$(in_ split_again)s/held_put(&part\[side\], t, id);/&held_put(\&part[0], t, id);/"
bug held-out-counted-from-none float input "held out" "$(in_ split_again)s/every == 1;/every == 0;/"
bug tail-without-a-start float input "held out" "$(in_ split_again)s/if (at == cut && !starts)/if (0)/"
bug held-text-unchecked float input "held out" "$(in_ hold_out)s/^ *check_text_bytes.*//"
bug blocks-not-read-on float input "held out" "$(in_ held_token)s/at % BLOCK == 0/at == 0/"
bug ids-unchecked float input shards "$(in_ read_shard)s/out\[k\] >= vocab/0/"
# files
bug damaged-tensor-accepted float files corruption "$(in_ load_tensor)s/ || t->crc != crc32_of([^)]*)//"
bug damaged-header-accepted float commands messages "$(in_ artifact_open)s/^    if (get_u(a.payload - 4, 4) != .*/    if (0)/"
bug damaged-checkpoint-accepted float files corruption "$(in_ ckpt_open)s/^    if (get_u(file + size - 4, 4) != .*/    if (0)/"
bug lines-in-one-order float files lines \
    "$(in_ config_parse)s/if (seen\[i\])/if (seen[i] || (i \&\& !seen[i - 1] \&\& options[i - 1].mask \& mask \&\& !(options[i - 1].mask \& QUIET)))/"
bug line-twice float files lines "$(in_ config_parse)s/if (seen\[i\])/if (0)/"
bug quiet-line-twice float files lines "$(in_ config_parse)s/if (seen\[i\])/if (seen[i] \&\& !(options[i].mask \& QUIET))/"
bug line-missing float files lines "$(in_ config_parse)s/ || seen\[o - options\])/ || 1)/"
bug line-of-another-command float files lines "$(in_ config_line)s/ || !(o->mask & mask)//"
bug systems-line-ignored float files systems= "$(in_ demand_systems)s/demand_system(path, name);/(void)path;/"
bug systems-line-of-the-first-only float files systems= \
    "$(in_ demand_systems)s/if (strncmp(line, \(.*\)) continue;/if (line != copy || strncmp(line, \1) continue;/"
bug systems-after-the-options float files systems= \
    "$(in_ config_parse)s/demand_systems(path, copy);.*/char whole[CONFIG_TEXT]; strcpy(whole, copy);/; $(in_ config_parse)s/    EACH_OPTION(o) {/demand_systems(path, whole);\n&/"
bug quiet-options-written float files text "$(in_ left_out)s/at_default(c, o)/0/"
bug option-loses-digits float files text "$(in_ number_text)s/digits <= 17/digits <= 6/"
bug resume-with-any-option float files options "$(in_ same_options)s/o->mask & RESUME/1/"
bug packed-read-as-coded float files packed "$(in_ load_tensor)s/t->coded < t->bytes)/t->coded <= t->bytes)/"
bug ledger-of-packed-bytes float files ledger "$(in_ ledger_of)s/t->coded ? t->coded : t->bytes/t->bytes/"
bug step-not-saved float files checkpoint "$(in_ ckpt_save)s/(uint64_t)step, 8/0, 8/"
bug fit-leaves-room float files fit "$(in_ fit_option)s/\*option += step/*option += 2 * step/"
bug streams-outside float kernels coder "$(in_ read_coded)s/good &= bytes <= left;//; $(in_ read_coded)s/(size_t)MIN(bytes, left)/(uint32_t)bytes/; $(in_ read_coded)s/size_t \*at =/uint32_t *at =/; $(in_ read_coded)s/sizeof(size_t)/sizeof *at/"
bug memory-promised float files memory "$(in_ demand_memory)s/need > there/0/"
bug shapes-over-the-cap float files shapes "$(in_ shape_fits)s/return artifact_bytes(c) <= most_bytes(c)/return 1/"
bug shapes-leave-room float files shapes "$(in_ choose_hidden)s/, step);$/, 4 * step);/"
bug shapes-move-a-fixed-width float files shapes "$(in_ shapes_under_cap)s/if (!start.width) //"
bug shapes-twice float files shapes "$(in_ is_listed)s/return 1/return 0/"
bug shapes-fill-half-tiles float files shapes "$(in_ filled_by)s/% NR/% LANES/"
bug squeeze-ignored float files squeeze "$(in_ most_bytes)s|aim / c->squeeze|aim|"
bug fit-picks-what-is-refused float files fit "$(in_ fit_option)s/if (is_refused(config_check, c)) continue;//; $(in_ fit_option)s/ && !beyond_reach(layout_of(c))//"
bug sizes-in-32-bits float files fit "$(in_ store_as)s/SCALE_TENSOR ? t->copy_n/SCALE_TENSOR ? (size_t)(int)t->copy_n/"
bug loader-checks-the-batch float files own "$(in_ model_check)s/const Tensor \*large = /if ((double)c->batch * c->seq > 5e5) die(\"batch\");\n    &/"
bug exchanged-file-unnoticed float files exchanged "$(in_ depends_on)s/file, n - tail/file, 0/"
bug parameters-in-32-bits float files version "$(in_ ckpt_open)s/ count > size/ (uint32_t)count > size/; $(in_ ckpt_open)s/(size_t)count/(uint32_t)count/"
bug old-checkpoints-refused float files version "$(in_ ckpt_open)s/version == 1 ? CKPT_FIXED_1 : CKPT_FIXED/CKPT_FIXED/"
bug gated-hidden-in-full float files gated "$(in_ hidden_width)s|wide / 12 \* 8|wide|"
bug odd-halves float commands messages "$(in_ model_check)s/head_dim(c) % rope_step(c)/head_dim(c) % 2/"
# the last byte
bug codes-of-too-few-bits float fit grids "$(in_ store_embedding)s/+ 0.5) < top/+ 2.5) < top/"
bug codes-of-too-many-bits float fit grids "$(in_ store_embedding)s/+ 0.5) < top/- 0.5) < top/"
bug step-of-other-bits float fit grids "$(in_ store_embedding)s|step \* grid_top(t) / top|step|"
bug coarse-step-not-bf16 float fit steering "$(in_ coarser)s/from_bf16(to_bf16(\(.*\))) :/(\1) :/"
bug sizes-of-a-seed float fit prediction "$(in_ expected_bytes)s/first.seed = 1;//"
bug prediction-of-packed-bytes float fit prediction "$(in_ expected_tensor_bytes)s/return tensor_bytes(m, t)/return t->bytes/"
bug embedding-settles-too-far float fit prediction "$(in_ settled_bits)s/0.1 +/0.5 +/"
bug fit-aims-below-the-cap float fit sizes "$(in_ most_bytes)s/1.02 \*/0.95 */"
bug fit-of-the-first-guess float fit sizes "$(in_ fit_sizes)s/ROUNDS = 5/ROUNDS = 1/"
bug fit-only-of-what-fits-packed float fit "coded alone" "$(in_ fit_width)s/c->squeeze = 0.6;/;/"
bug shapes-of-one-guess float fit shapes "$(in_ shape_fits)s/fit_sizes(c, choose_hidden, step)/choose_hidden(c, step)/"
bug steering-to-the-other-side float fit steering "$(in_ steer_embed_grid)s/c->embed_grid + by/c->embed_grid - by/"
bug steering-unasked float fit packed "$(in_ steer_embed_grid)s/c->fit != FIT_CODED || //"
bug steering-of-one-thread float fit threads "$(in_ steer_embed_grid)s/- c->cap;/- c->cap + 99 * omp_get_max_threads();/"
bug grid-not-resumed float fit resume "$(in_ ckpt_load)s/set_embed_grid(m, m->config.embed_grid);//"
bug grid-counted-anew float fit resume "$(in_ ckpt_load)s/take_counts(&m->config, &k.config);//"
bug file-of-the-bits-asked-for float fit steering "$(in_ stored_config)s/c.embed_bits = .*//"
bug end-far-under-the-cap float fit steering "$(in_ finest_that_fits)s/> (size_t)m->config.cap/> (size_t)m->config.cap * 19 \/ 20/"
bug end-over-the-cap float fit steering "$(in_ finest_that_fits)s/> (size_t)m->config.cap/> (size_t)m->config.cap + 90/"
bug end-at-the-embedding float fit guarantee "$(in_ end_at_cap)s/if (file_bytes(m) > (size_t)c->cap)/if (0)/"
bug matrices-as-they-are float fit guarantee "$(in_ set_matrix_grids)s/if (is_matrix(t))/if (0)/"
bug far-over-is-trained float fit refused "$(in_ check_coded_cap)s/if (least > c->cap)/if (0)/"
bug promise-of-numbers float fit refused "$(in_ check_coded_cap)s/if (promised > (size_t)c->cap)/if (0)/"
bug bet-on-a-prediction float fit refused "$(in_ check_squeeze)s/c->squeeze < 1/0/"
bug grid-of-numbers float fit refused "$(in_ config_check)s/c->embed_bits > 8/c->embed_bits > 16/"
bug grid-out-of-range float fit "all grids" "s/-1280 to 1792/-1024 to 1792/"
bug cap-over-what-is-used float commands fit "$(in_ result_numbers)s|total / c->cap|c->cap / total|"
bug end-not-said float commands fit "$(in_ say_fit)s/if (c->fit == FIT_CODED)$/if (0)/"
bug percent-of-nothing float commands output "$(in_ info_main)s|100.0 \* (double)l.total|(double)l.total|"
# export
bug export-names-by-their-number float files export "$(in_ put_tensor)s/t->per != ONCE/t->stored_copies > 1/"
bug export-loses-a-copy float files export "$(in_ copies_with_numbers)s/t->n ? t->stored_copies : 0/t->n > 0/"
bug export-transposes float files export "$(in_ put_tensor)s/t->rows);/t->stored_cols);/; $(in_ put_tensor)s/t->stored_cols, at, end/t->rows, at, end/"
bug export-offsets-of-floats float files export "$(in_ put_tensor)s/(dtype == DTYPE_BF16 ? 2 : 4)/4/"
bug export-cuts-numbers float files export "$(in_ put_numbers)s/to_bf16(x\[i\])/(uint16_t)((Bits){.f = (float)x[i]}.u >> 16)/"
bug export-counts-every-number float files export "$(in_ put_numbers)s/ && from_bf16(half) != x\[i\]//"
bug export-unaligned float files export "$(in_ export_header)s/ftell(f) % 8/ftell(f) % 8 % 2/"
bug export-of-any-header float files export "$(in_ check_header)s/len > MOST_HEADER/0 * len/"
bug export-blocks-are-phases float files export "$(in_ put_metadata)s/block_of(&m->config, p)/p/"
bug any-claim float files claims "$(in_ golf_load)s/check_claim(m, path, a.size);//"
bug claims-of-parameters-alone float files claims "$(in_ model_memory)s/(vectors + (double)m->n_scales)/0/"
bug a-cache-of-any-size float files claims "$(in_ golf_cache)s/demand_memory(2.0/demand_memory(0.0/"
bug infinite-weights float files infinite "$(in_ check_weights)s/!isfinite/0 \&\& !isfinite/"
bug any-step-of-a-checkpoint float files impossible "$(in_ ckpt_open)s/k.step > (uint64_t)k.config.steps/0/"
bug closed-shards-remembered float input closed "$(in_ close_shard)s/x->fd = -1;//"
bug codes-of-any-size float files impossible "$(in_ ckpt_open)s/check_embed_grid(&k.config, path);//"
bug byte-pieces-of-any-name float tokenizer "bad models" "$(in_ byte_of_piece)s/ABCDEF\"/ABCDEFabcdef\"/; $(in_ byte_of_piece)s/, 16);/, 22);/"
bug export-of-training-options float files export "$(in_ put_metadata)s/MODEL, config/MODEL | TRAIN, config/"
bug export-cuts-the-tokenizer float files export "$(in_ put_metadata)s/tok->size)/tok->size - 1)/"
bug export-without-padding float files export "$(in_ put_base64)s/: '='/: 'A'/"
bug json-with-line-ends float files export "$(in_ put_json)s/c < 32/c < 9/"
bug json-quotes-in-quotes float files export "$(in_ put_json)s/c == '\"' || //"
bug export-to-any-name float commands messages "$(in_ check_target)s/if (!ends_with(.*/if (0)/"
bug export-over-a-file float commands messages "$(in_ check_target)s/!how->overwrite && /0 \&\& /"
bug export-of-any-tokenizer float commands messages "$(in_ open_model)s/tok->crc != crc || //; $(in_ open_model)s/tok->vocab != m->config.vocab/0/"
# options
bug order-of-one-block float options every "s/M(order, c->unique > 1 \&\& c->repeat > 1,/M(order, 1,/"
bug scales-that-do-not-share float options every "$(in_ wscale_means)s/return !same_storage(c, c->wscale.*/return 1;/"
bug muon-rate-of-adamw float options every "s/M(lr_muon, c->optimizer == OPT_MUON/M(lr_muon, 1/"
bug refused-though-it-matters float options every "s/M(warmdown, c->schedule == SCHED_LINEAR/M(warmdown, 0/"
bug phase-refused-in-a-loop float options every "s/M(phase, c->repeat > 1/M(phase, c->repeat > 2/"
bug presets-are-blamed float options presets "$(in_ is_asked)s/return .*at_default(c, o) &&/return !at_default(c, o) ||/"
bug stride-ignored float options commands "$(in_ eval_main)s/how.stride, how.val_tokens/0, how.val_tokens/; $(in_ eval_main)s/if (how.stride)/if (0)/"
# commands
bug moved-checkpoint-of-any-tokenizer float commands messages "$(in_ ckpt_save)s/m->tokenizer_crc/0/"
bug shard-that-is-not-there float commands messages "$(in_ open_again)s/if (x->fd < 0).*//"
bug streams-of-no-step float commands training "$(in_ phase_sizes)s/golf_forward(m, x, .*;//"
bug info-with-a-cap-of-its-own float commands output "$(in_ info_main)s/if (!argc)/if (0)/"
bug full-disk-leaves-tmp float commands disk "$(in_ write_parts)s/if (f) remove(tmp);//"
bug folder-before-the-checks float commands messages "$(in_ train_main)s/^    Tokenizer \*tok = open_run/    if (*c->out) make_folder(c); Tokenizer *tok = open_run/"
bug lock-ignored float commands locks "$(in_ locked_log)s/if (errno == EWOULDBLOCK)/if (0)/"
bug usage-exits-well float commands usage "$(in_ usage)s/return 1;/return 0;/"
bug fixed-options-in-help float commands usage "$(in_ print_options)s/ || o->mask & FIXED//"
bug nearest-is-the-farthest float commands messages "$(in_ nearest_option)s/if (distance >= least) continue;//"
bug another-tokenizer-resumed float commands messages "$(in_ train_main)s/same_tokenizer(tok, ckpt);//"
bug shards-of-another-tokenizer float commands messages "$(in_ open_split)s/ != tok->crc/ == 0/"
bug log-emptied float commands training "$(in_ keep_rows)s/ftruncate(fileno(log), end)/ftruncate(fileno(log), 0)/"
bug log-loses-a-row float commands training "$(in_ rows_to_keep)s/atoll(row) <= run->steps/atoll(row) < run->steps/"
bug log-read-from-where-it-stands float commands training "$(in_ rows_to_keep)s/rewind(log);//"
bug minutes-ignored float commands training "$(in_ fit_minutes)s/if (fit < c.steps)/if (0)/"
bug info-forgets-the-header float commands output "$(in_ info_main)s/l.header, l.total/l.header * 0, l.total/"

# faults from outside
bug written-in-place float faults "train overwrite" "$(in_ write_parts)s/\"%s.tmp\", file/\"%s\", file/"
bug full-disk-unnoticed float faults train "$(in_ put_parts)s/!fflush(f) \&\&/(fflush(f), 1) \&\&/"
bug never-synced float faults train "$(in_ put_parts)s/ \&\& !fsync(fileno(f))//"
bug rename-unchecked float faults train "$(in_ write_parts)s/!rename(tmp, file)/(rename(tmp, file), 1)/"
bug tmp-left-behind float faults train "$(in_ write_parts)s/if (f) remove(tmp);//; $(in_ write_parts)s/\"%s.tmp\", file/\"%s.%d\", file, (int)getpid()/"
bug links-replaced float faults links "$(in_ follow_links)s/if (n < 0) return;.*/return;/"
bug links-removed float faults links "$(in_ open_log)s/follow_links(path_of(c->out, run_files\[i\]), file);/strcpy(file, path_of(c->out, run_files[i]));/"
bug links-from-elsewhere float faults links "$(in_ follow_links)s/file : slash + 1/file : file/"
bug no-lock-is-a-run float faults locks "$(in_ locked_log)s/if (errno == EWOULDBLOCK)/if (1)/"
bug a-run-is-no-lock float faults locks "$(in_ locked_log)s/if (errno == EWOULDBLOCK)/if (0)/"
bug all-shards-open float faults limit "s/MOST_OPEN = 16/MOST_OPEN = 1600/"
bug closed-shards-read float faults limit "$(in_ read_shard)s/if (x->fd < 0) open_again(x);//"
bug parts-are-the-end float faults reads "$(in_ read_at)s/if (got <= 0)/if (got < (ssize_t)n)/"
bug read-errors-end-the-log float faults resume "$(in_ rows_to_keep)s/if (len < 0 .*)/if (0)/"
bug result-outlives-its-model float faults overwrite "$(in_ open_log)s/int i = 3; i > 0; i--/int i = 1; i < 4; i++/"
bug quotas-of-the-innermost float faults quota "$(in_ group_limit)s/end = strrchr(path + base, '.'))/end = NULL)/"
bug quotas-of-version-2 float faults quota "$(in_ has_word)s/return 1/return 0/"
bug quotas-rounded-down float faults quota "$(in_ follow_quota)s/(int)ceil(cores)/(int)cores/"
bug quotas-over-the-user float faults quota "$(in_ follow_quota)s/getenv(.OMP_NUM_THREADS.) || //"
bug memory-of-the-machine float faults quota "$(in_ memory_there)s/there = fmin(there, group_limit.*//"
bug hangup-unheard float faults hangup "$(in_ catch_signals)s/if (signal(SIGHUP.*//"
bug nohup-unheard float faults hangup "$(in_ catch_signals)s/if (signal(SIGHUP, handler) == SIG_IGN) .*/signal(SIGHUP, handler);/"
bug output-is-lost float faults print "$(in_ main)s/^ *if (!is_for_files.*//"
bug unread-is-no-model float faults print "$(in_ is_artifact)s/if (ferror(f)).*//"

# systems: their own rows
bug() { # NAME double|float PATTERN SED...
    name=$1 numbers=$2 pattern=$3
    shift 3
    untouched "$numbers" systems "$system"
    start "$system: $name" verdict_of_bug "$name" "$numbers" systems "$pattern" "$system" "$@"
}
for file in dev/systems/*.h; do
    case $PART in core | ci) break ;; esac
    system=$(basename "$file" .h)
    awk '/^#e/ { on = 0 } on; /^#elif defined BUGS/ { on = 1 }' "$file" > "$tmp/rows"
    # shellcheck disable=SC1091
    . "$tmp/rows"
done
wait

cat "$tmp"/*.verdict
failed=$(cat "$tmp"/*.verdict | grep -vc '^ok')
echo "$((planted - failed)) passed, $failed failed"
[ "$failed" = 0 ]
