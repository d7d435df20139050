#!/bin/sh
# make test-bugs: would the tests notice? Each row plants one bug into a copy of the sources (a sed
# script, no hooks in the program), builds the tests and demands that the named group FAILS. A bug
# that goes unnoticed, does not compile, or no longer matches the source is a failure.
# Environment: CC, FLAGS (no -O needed), BUGS=pattern to plant only some, JOBS (2 at a time).
set -u
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc} FLAGS=${FLAGS:--std=gnu11 -march=native -fopenmp} JOBS=${JOBS:-2}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/golf_bugs_XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

sources="train_golf.c golf.h data/tokens.h dev/studies/perturb.h"
# plant NAME double|float GROUP SED-SCRIPT...; verdict in $tmp/NAME.verdict
plant() {
    name=$1 numbers=$2 group=$3 dir=$tmp/$1
    shift 3
    mkdir -p "$dir/dev/check" "$dir/dev/bench" "$dir/dev/studies" "$dir/data"
    for file in $sources test_golf.c dev/bench/bench.h dev/check/test_*.h; do cp "$file" "$dir/$file"; done
    for script; do
        changed=
        for file in $sources; do
            sed "$script" "$dir/$file" > "$dir/new" && mv "$dir/new" "$dir/$file"
            cmp -s "$file" "$dir/$file" || changed=1
        done
        if [ -z "$changed" ] && [ "$name" != none ]; then
            echo "FAILED $name: the substitution no longer matches: $script" > "$dir.verdict"
            return
        fi
    done
    [ "$numbers" = double ] && define=-DGOLF_DOUBLE || define=
    # shellcheck disable=SC2086
    if ! (cd "$dir" && $CC $FLAGS -O1 -w $define -o t test_golf.c -lm) > "$dir.log" 2>&1; then
        echo "FAILED $name: does not compile: $(grep -m 1 error "$dir.log")" > "$dir.verdict"
        return
    fi
    (cd "$dir" && OMP_NUM_THREADS=1 GOLF_FAIL_FAST=1 GOLF_TEST_ONLY=$group timeout 100 ./t) > "$dir.log" 2>&1
    status=$?
    first=$(grep -m 1 '^FAILED' "$dir.log" | cut -c 8-110)
    if [ "$name" = none ] && [ $status = 0 ]; then echo "ok     the untouched source passes"
    elif [ "$name" = none ]; then echo "FAILED the untouched source fails: $first"
    elif [ $status = 1 ] && [ -n "$first" ]; then echo "ok     $name: $first"
    elif [ $status -gt 128 ]; then echo "ok     $name: crashed, status $status"
    else echo "FAILED $name: went unnoticed by '$group' (exit status $status)"
    fi > "$dir.verdict"
    rm -rf "$dir"
}

running=0 planted=0
bug() {
    case $1 in *${BUGS:-}*) ;; *) return ;; esac
    plant "$@" &
    planted=$((planted + 1)) running=$((running + 1))
    if [ $running -ge "$JOBS" ]; then wait; running=0; fi
}

in_() { echo "/^[A-Za-z].* \**$1(/,/^}/"; } # sed address: the body of function $1

bug none double "" ""
# gradients
bug dW-of-last-phase-only double gradients "$(in_ linear_dw)s/rows, K, N, 1}/rows, K, N, 0}/"
bug interface-of-last-phase-only double gradients "$(in_ fold)s/ += m->dix/ = m->dix/"
bug phase-vector-one-early double gradients \
    "$(in_ block_forward)s/IX(gate_attn)/ix_of(m, T_gate_attn, p ? p - 1 : 0)/"
bug rmsnorm-dot-term double "layer gradients" "$(in_ rmsnorm_backward)s/sum_lanes(sum) \*/0 * sum_lanes(sum) */"
bug gate-gradient-2-percent double "layer gradients" \
    "$(in_ gate_backward)s/dg\[i\] += dout/dg[i] += (real)1.02 * dout/"
bug qgain-gradient-2-percent double gradients "$(in_ qk_backward)s/+= dot \* r;/+= (real)0.98 * dot * r;/"
bug masks-ignored double masks "$(in_ ste_identity)s/mask\[i\] ? dw\[i\] : 0/dw[i]/"
bug rope-sign-backward double "layer gradients" "$(in_ qk_backward)s/d1 \* c - d2 \* d/d1 * c + d2 * d/"
bug rope-sign-both double "layer gradients" \
    "$(in_ qk_forward)s/ + x2 \* d/ - x2 * d/; $(in_ qk_forward)s/ - x1 \* d/ + x1 * d/" \
    "$(in_ qk_backward)s/d1 \* c - d2 \* d/d1 * c + d2 * d/; $(in_ qk_backward)s/d1 \* d + d2 \* c/d2 * c - d1 * d/"
bug dW-from-unquantized-input double gradients \
    "$(in_ linear_dw)s/^    return/if (m->freeze) for (int i = 0; i < N * K; i++) x->x[i] -= x->res[i]; &/"
bug codes-without-their-step double gradients \
    "$(in_ inputs_of)s/mat_q(x->q, x->inv,/mat_q(x->q, m->ones,/"
bug embedding-without-x0-path double "model gradients" \
    "$(in_ golf_backward)s/gate_forward(f.dx0, f.dx0, f.dh,.*/memcpy(f.dx0, f.dh, sizeof(real) * (size_t)n * C);/"
bug embedding-without-head double "model gradients" "$(in_ head)s/if (learn) gemm/if (0) gemm/"
bug head-of-the-last-part-only double "large batch" "$(in_ head)s/part, h0 > 0/part, 0/"
bug softcap-derivative double "layer gradients" "$(in_ loss_backward)s/ \* (1 - l\[i\] \* l\[i\] \* cap2)//"
bug gqa-head-mapping double "layer gradients" "$(in_ attention_forward)s|pack_a(kp, mat(k + (size_t)b \* Tk \* ldk + kv|pack_a(kp, mat(k + (size_t)b * Tk * ldk + (kv + 1) % KV|"
bug attention-sees-the-next-token double "layer gradients" \
    "$(in_ unseen)s/l < t - keys + rows/l < t - keys + rows - 1/"
bug chunk-edge-lost double "model gradients" "$(in_ add_chunks)s/j < chunks; j++)/j < MIN(1, chunks); j++)/"
bug recompute-of-another-phase double "large batch" "$(in_ golf_backward)s/block_forward(m, m->run\[i\], B, T)/block_forward(m, m->run[i + 1], B, T)/"
bug muon-of-the-wide-side double muon "$(in_ orthogonal)s/tall = rows > cols/tall = rows < cols/"
bug muon-without-nesterov double muon "$(in_ golf_muon)s/x\[e\] = mu \* mom\[e\] + (1 - mu) \* g/x[e] = mom[e]/"
# everything else
bug scale-not-bf16 float quantizers "$(in_ grid_step)s/from_bf16(to_bf16(\(.*\)));/(\1);/"
bug ties-away-from-zero float quantizers "$(in_ grid_code)s/rint(/round(/"
bug adamw-without-bias-correction float adamw "$(in_ golf_adamw)s/real c1 = [^;]*;/real c1 = 1;/"
bug decay-of-everything float adamw "$(in_ golf_adamw)s/t->role == PROJ ? 1 - rate/1 ? 1 - rate/"
bug clipping-ignored float adamw "s|c->clip / norm : 1|1 : 1|"
bug epochs-in-file-order float shards "s/shuffled(row % windows, windows, key)/(row % windows)/"
bug space-counted-after-bos float bpb "$(in_ tokenizer_bytes)s/ && !t->piece\[prev\].boundary//"
bug sliding-counts-twice float bpb "$(in_ golf_eval)s/if (n % len < T - step/if (0/"
bug resume-forgets-a-moment float training "$(in_ ckpt_load)s/i < 3; i++) memcpy/i < 2; i++) memcpy/"
bug cache-rotates-from-0 float sampling "$(in_ block_forward)s/m->rope, pos, n0/m->rope, 0, n0/"
bug merge-rightmost-first float tokenizer "s/e->sym\[r\].score > e->sym/e->sym[r].score >= e->sym/"
bug row-scale-of-another-row double gradients "$(in_ linear_forward)s/\*= scale\[first + i\]/*= scale[i]/"
bug rotated-codes-on-plain-weights double gradients "$(in_ in_integers)s/t->quant == quantizers + Q_QUEST ? m->c.aq != AQ_QUEST || m->c.abits > 7/0 ? 0/"
# systems
bug quest-mask-at-the-edge float quest "$(in_ ste_mask)s| + s / 2;|;|"
bug quest-gradient-not-rotated double masks "/^void quest_backward(/,/^}/s/hadamard(d, n, t->had);\$/;/"
bug quest-without-half-step float quest "$(in_ choose_quantizer)s/(q == Q_QUEST \&\& c->wbits != 1.585)/0/"
bug inputs-mask-forgotten double gradients "/^void quest_inputs_backward(/,/^}/s/quest_pass(dx + at, a->mask + at, K, block);/hadamard(dx + at, K, block);/"
bug binary-without-mean float bitnet "/^void binary_quantize(/,/^}/s/w\[i\] - (real)mean/w[i]/"
bug group-of-the-next-row float bitnet "$(in_ piece_at)s/return p \/ per_line \* line + at;/return p * group;/"
bug alpha-without-its-weight double gradients "/^void hi_backward(/,/^}/s/\*DIX(alpha) += dw \* w;/*DIX(alpha) += dw;/"
bug router-softmax-diagonal double gradients "/^void hi_backward(/,/^}/s/((e == chosen) - prob\[e\])/(e == chosen)/"
bug codebook-sums-not-means double gradients "/^void cluster_average(/,/^}/s| / count\[k\]||"
bug ramp-at-once float ramp "/^real lambda_of(/,/^}/s/each ? 4 \* x - turn : x/x/"
bug coder-forgets-a-carry float coder "$(in_ coded_bit)s/for (uint8_t \*q = r->at - 1; ++\*q == 0;) q--;/;/"
bug coder-never-learns float coder "$(in_ coded_bit)s/node->n += node->n < 255;/node->n = 0;/"
bug noise-of-another-size float perturb "$(in_ golf_perturb)s/(double)\*scale_of(m, t, j) : mean/mean : mean/"
bug fit-leaves-room float fit "$(in_ fit_width)s/c->hidden += 8)/c->hidden += 16)/"
bug damaged-tensor-accepted float corruption "$(in_ golf_load)s/ || get_u(row + 4, 4) != crc32_of([^)]*)//"
bug full-disk-leaves-tmp float errors "s/if (f) remove(tmp);//"
# sharing
body() { echo "/^[a-z].* \**$1(/,/^}/"; } # of a function that others declare
bug unshared-by-block double "sharing: convert" "$(body unshared)s/return 1;/return 0;/"
bug pair-of-another-phase double gradients "$(in_ lora_packed)s/copy_of(m, t, p)/0/"
bug pair-without-dx double gradients "$(body lora_dx)s/->back, N, 1);/->back, N * 0, 1);/"
bug pair-only-B-learns double gradients "$(body lora_dw)s/gemm(m->g + A, K.*;/;/"
bug svd-without-singular-values double "low rank" "$(body low_rank)s/(x \* sigma)/x/; $(body low_rank)s/b\[k \* r + e\] = (real)sum;/b[k * r + e] = (real)(sum \/ sigma);/"
bug average-of-the-first double "sharing: convert" "$(body convert)s/count = 1, last = first/last = first/; $(body convert)s/p <= last/p <= first/"
bug stepwise-is-lower double "sharing: convert" "$(body convert)s/c->convert == CONVERT_STEPWISE/0/"
bug pairs-of-the-average double "sharing: convert" "$(body lora_fit)s/v\[i\] - w\[i\]/v[i]/"
bug teacher-without-softcap double gradients "$(body teacher_loss)s/ \* (1 - l\[k\] \* l\[k\] \* cap2)//"
bug teacher-twice double gradients "$(body teacher_loss)s/(1 - W) \* m->loss/m->loss/"
bug fips-U-from-up-alone double gradients "$(body fips_fold)s/gemm(m->g + at, C, mat(m->eff + v_down.*;/;/"
bug pruned-weights-learn double "sharing: fips" "$(body ste_mask)s/nonzero ? z\[i\] != 0/nonzero ? 1/"
bug prune-the-largest float "sharing: fips" "$(in_ by_size)s/(x > y) - (x < y)/(x < y) - (x > y)/"
bug expert-of-the-first-choice double gradients "$(body moe_backward)s/z = token \* E + g->e/z = token * E/"
bug expert-gate-not-learned double gradients "$(body moe_backward)s/ \* w \* (1 - w);/ * 0;/"
bug experts-uneven double gradients "$(in_ sel_backward)s/log_p\[e\] - mean/log_p[e]/"
bug rows-of-another-expert float "sharing: experts" "$(in_ moe_plan)s/const int row = at\[(int)s->moe_e\[i\]\]++;/const int row = i; (void)at;/"
bug values-not-gated double gradients "$(body switch_values_backward)s/= w \* dv\[d\]/= dv[d]/"
bug output-choice-not-learned double gradients "$(body switch_output_backward)s/inner(dx, u + i \* C + g \* D, D)/0/"
bug skip-forgotten-backward double gradients "$(body unet_add)s/m->c.unet/0/"
bug skips-in-order double "sharing: skips" "$(in_ unet_from)s/half - 1 - i/i/"
bug new-phases-open double "sharing: depth" "$(body ramp_init)s/!used\[p\]/0/"
bug backprop-one-more double "sharing: depth" "$(body golf_backward)s/m->runs - i == m->c.backprop/m->runs - i == m->c.backprop + 1/"
bug cosine-of-streams double "sharing: depth" "$(body watch)s/ - m->prev\[p\]\[k\]//"
wait

cat "$tmp"/*.verdict
failed=$(cat "$tmp"/*.verdict | grep -vc '^ok')
echo "$((planted - failed)) passed, $failed failed"
[ "$failed" = 0 ]
