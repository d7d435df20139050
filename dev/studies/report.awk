# report.awk: tables of a study. Input: contrasts.tsv, then results.tsv (both with a header or comments); output: markdown;
# -v means=FILE also writes arm means and contrasts as tab-separated rows for gnuplot.
#
# results.tsv: arm, seed, val_bpb, ..., one row per run. A diverged run scores 8 bits per byte, what knowing nothing
# costs, and is counted. contrasts.tsv: name, metric, terms: "+arm" and "-arm" separated by spaces. A contrast is computed
# for every seed that all its arms have and is then treated as one sample: mean, deviation, 95 % interval by Student's t.
# metric: bpb (val_bpb); NAME (a column); per_kB (bpb lost per 1,000 bytes of interface gained); slope:NAME (least squares through the origin of what columns NAME0.1, NAME0.2,
# ... add to val_bpb, against 0.1, 0.2, ...); ratio:NAME (the same, in logarithms: the result is a quotient of slopes).
# With @A-B behind it, seeds A to B alone.
BEGIN { FS = OFS = "\t" }

function mean_of(x, n,   i, s) { for (i = 1; i <= n; i++) s += x[i]; return s / n }
function sd_of(x, n,   i, m, s) { # of the sample: n - 1
    m = mean_of(x, n)
    for (i = 1; i <= n; i++) s += (x[i] - m) ^ 2
    return n > 1 ? sqrt(s / (n - 1)) : 0
}
# P(|t| < x) for df degrees of freedom: Abramowitz and Stegun 26.7.3 and 26.7.4, exact sums for whole df
function t_inside(x, df,   a, c, s, term, k) {
    a = atan2(x, sqrt(df)); c = cos(a) ^ 2
    if (df % 2) {
        term = cos(a)
        for (k = 3; k <= df; k += 2) { s += term; term *= c * (k - 1) / k }
        return (a + sin(a) * s) * 2 / 3.14159265358979312
    }
    term = 1
    for (k = 2; k <= df; k += 2) { s += term; term *= c * (k - 1) / k }
    return sin(a) * s
}
function t_quantile(inside, df,   lo, hi, k) { # bisection
    lo = 0; hi = 1000
    for (k = 0; k < 100; k++) if (t_inside((lo + hi) / 2, df) < inside) lo = (lo + hi) / 2; else hi = (lo + hi) / 2
    return lo
}
function half_width(x, n) { return n > 1 ? t_quantile(0.95, n - 1) * sd_of(x, n) / sqrt(n) : 0 }

# The metric of one run, or "none": one that diverged has a bpb alone.
function metric_of(metric, arm, seed,   name, k, eps, num, den, y) {
    if (metric == "bpb") return value[arm, seed, "val_bpb"]
    if (metric !~ /^(slope|ratio):/) return number_or_none(value[arm, seed, metric])
    name = metric; sub(/^[a-z]*:/, "", name)
    for (k = 1; k <= columns; k++) if (index(head[k], name) == 1 && (eps = substr(head[k], length(name) + 1)) ~ /^[0-9.]+$/) {
        if (number_or_none(value[arm, seed, head[k]]) == "none") return "none"
        num += eps * (value[arm, seed, head[k]] - value[arm, seed, "val_bpb"])
        den += eps * eps
    }
    y = num / den
    return metric ~ /^slope/ ? y : y > 0 ? log(y) : "none"
}
function number_or_none(x) { return x == "-" || x == "" ? "none" : x }
# The contrast of one seed, or "none" where an arm lacks it.
function pair_of(terms, metric, seed,   k, parts, part, y, sum, bytes) {
    if (metric == "per_kB") {
        y = pair_of(terms, "bpb", seed); bytes = pair_of(terms, "interface", seed)
        if (y == "none" || bytes == "none") return "none"
        return bytes ? y / (-bytes / 1000) : 0
    }
    parts = split(terms, part, " ")
    sum = 0
    for (k = 1; k <= parts; k++) {
        if (!((substr(part[k], 2), seed) in runs)) return "none"
        y = metric_of(metric, substr(part[k], 2), seed)
        if (y == "none") return "none"
        sum += (part[k] ~ /^-/ ? -1 : 1) * y
    }
    return sum
}
# x[1..n] = the contrast, for every seed that all its arms have; returns n
function pairs_of(terms, metric, x,   n, s, y, only) {
    if (split(metric, only, "[@-]") == 3) metric = only[1]
    for (s = 1; s <= seeds; s++) {
        if (only[3] && (seed_of[s] < only[2] + 0 || seed_of[s] > only[3] + 0)) continue
        y = pair_of(terms, metric, seed_of[s])
        if (y != "none") x[++n] = y
    }
    return n + 0
}
function signed(x, digits) { return sprintf("%+." digits "f", x) }
function bars(lo, mid, hi, least, most,   i, s, c, w) { # an interval drawn in 32 characters, | is zero
    w = most > least ? 31 / (most - least) : 0
    for (i = 0; i < 32; i++) {
        c = i >= (lo - least) * w - 0.5 && i <= (hi - least) * w + 0.5 ? "-" : " "
        if (least < 0 && most > 0 && i == int((0 - least) * w + 0.5)) c = "|"
        if (i == int((mid - least) * w + 0.5)) c = "o"
        s = s c
    }
    return s
}

FILENAME != ARGV[ARGC - 1] {
    if ($0 !~ /^#/ && NF >= 3) { contrasts++; c_name[contrasts] = $1; c_metric[contrasts] = $2; c_terms[contrasts] = $3 }
    next
}
!columns { columns = NF; for (k = 1; k <= NF; k++) head[k] = $k; next }
{
    if (!($1 in of_arm)) arm[++arms] = $1
    if (!($2 in seed_seen)) { seed_seen[$2] = 1; seed_of[++seeds] = $2 }
    of_arm[$1]++; runs[$1, $2] = 1
    if ($3 == "diverged") { lost[$1]++; $3 = 8 }
    for (k = 1; k <= NF; k++) value[$1, $2, head[k]] = $k
}
END {
    print "| arm | runs | bpb | deviation | against " arm[1] ", 95 % | bytes | tokens | tokens/s |"
    print "|---|---|---|---|---|---|---|---|"
    if (means) print "#arm", "runs", "bpb", "deviation", "ci_of_bpb", "difference", "ci_of_difference", "bytes", "tokens", "tok_per_s" > means
    for (a = 1; a <= arms; a++) {
        delete x; delete y
        n = pairs_of("+" arm[a], "bpb", x)
        pairs = a > 1 ? pairs_of("+" arm[a] " -" arm[1], "bpb", y) : 0
        speed = bytes = tokens = rate = files = 0
        for (s = 1; s <= seeds; s++) if ((arm[a], seed_of[s]) in runs && value[arm[a], seed_of[s], "bytes"] != "-") {
            files++; bytes += value[arm[a], seed_of[s], "bytes"]; tokens = value[arm[a], seed_of[s], "tokens"]
            if (value[arm[a], seed_of[s], "tok_per_s"] > 0) { # 0: resumed after its last step
                rate++; speed += value[arm[a], seed_of[s], "tok_per_s"]
            }
        }
        printf "| %s | %d%s | %.4f | %s | %s | %d | %.2fM | %.0f |\n", arm[a], n, (lost[arm[a]] ? " (" lost[arm[a]] " diverged)" : ""),
            mean_of(x, n), (n > 1 ? sprintf("%.4f", sd_of(x, n)) : ""), (pairs ? signed(mean_of(y, pairs), 4) (pairs > 1 ? " ± " sprintf("%.4f", half_width(y, pairs)) : "") : ""),
            (files ? bytes / files : 0), tokens / 1e6, (rate ? speed / rate : 0)
        if (means) printf "%s\t%d\t%.6f\t%.6f\t%.6f\t%.6f\t%.6f\t%d\t%d\t%.0f\n", arm[a], n, mean_of(x, n), sd_of(x, n), half_width(x, n),
            (pairs ? mean_of(y, pairs) : 0), (pairs ? half_width(y, pairs) : 0), (files ? bytes / files : 0), tokens, (rate ? speed / rate : 0) > means
    }
    for (c = 1; c <= contrasts; c++) {
        delete x
        c_n[c] = pairs_of(c_terms[c], c_metric[c], x)
        if (!c_n[c]) continue
        c_mean[c] = mean_of(x, c_n[c]); c_ci[c] = half_width(x, c_n[c]); c_sd[c] = sd_of(x, c_n[c])
        if (c_metric[c] !~ /^bpb/) continue
        if (c_mean[c] - c_ci[c] < least) least = c_mean[c] - c_ci[c]
        if (c_mean[c] + c_ci[c] > most) most = c_mean[c] + c_ci[c]
    }
    if (means) for (k = 1; k <= columns; k++) if (match(head[k], /^[a-z]+[0-9]/)) { # extra scores, at 0 nothing is added
        if (!block++) print "\n\n#arm", "what", "eps", "added_bpb", "ci" > means
        for (a = 1; a <= arms; a++) {
            delete x
            n = 0
            for (s = 1; s <= seeds; s++) if ((arm[a], seed_of[s]) in runs && value[arm[a], seed_of[s], head[k]] != "-")
                x[++n] = value[arm[a], seed_of[s], head[k]] - value[arm[a], seed_of[s], "val_bpb"]
            if (n) printf "%s\t%s\t%s\t%.6f\t%.6f\n", arm[a], substr(head[k], 1, RLENGTH - 1), substr(head[k], RLENGTH),
                mean_of(x, n), half_width(x, n) > means
        }
    }
    if (!contrasts) exit
    print "\n| contrast | metric | pairs | mean | deviation | 95 % interval | |\n|---|---|---|---|---|---|---|"
    if (means) print "\n\n#contrast", "pairs", "mean", "low", "high" > means
    for (c = 1; c <= contrasts; c++) {
        if (!c_n[c]) { print "| " c_name[c] " | " c_metric[c] " | 0 | | | | |"; continue }
        lo = c_mean[c] - c_ci[c]; hi = c_mean[c] + c_ci[c]; quotient = c_metric[c] ~ /^ratio:/
        plain = c_metric[c] !~ /^bpb/
        if (quotient) shown = sprintf("%.3f | | %.3f to %.3f", exp(c_mean[c]), exp(lo), exp(hi))
        else if (c_metric[c] == "interface") shown = signed(c_mean[c], 0) " | | "
        else shown = signed(c_mean[c], 4) " | " (c_n[c] > 1 ? sprintf("%.4f", c_sd[c]) : "") " | " signed(lo, 4) " to " signed(hi, 4)
        if (c_n[c] == 1) sub(/[^|]*$/, " ", shown)
        print "| " c_name[c] " | " c_metric[c] " | " c_n[c] " | " shown " | `" (plain ? " " : bars(lo, c_mean[c], hi, least, most)) "` |"
        if (means) printf "%s\t%d\t%.6f\t%.6f\t%.6f\n", c_name[c], c_n[c], c_mean[c], lo, hi > means
    }
}
