# tune.awk: what dev/tune.sh asks of the table (dev/tune.space), which comes as the second file; the first has the
# program's options, name and default with a tab between. Variables:
#   mode=check                              what is wrong with the table, one fault a line
#   mode=draw seed= family= n= data=        n candidates: number, tab, options
#   mode=neighbours of="OPTIONS" data=      the candidate with one option changed: the change, tab, options

function fault(text) { print "line " FNR ": " text }
function is_number(x) { return x ~ /^[0-9.]+$/ }

# ---- the program's options, then the table
FILENAME == ARGV[1] { split($0, part, "\t"); program[part[1]] = part[2]; next }
{ sub(/#.*/, ""); gsub(/\t/, " ") }
NF == 0 { next }
$1 == "start" {
    if ($2 != "flat" && $2 != "recursive") fault("start: expected flat or recursive, found '" $2 "'")
    for (i = 3; i <= NF; i++) {
        name = $i
        sub(/=.*/, "", name)
        if ($i !~ /=./ || !(name in program)) fault("expected OPTION=VALUE of the program, found '" $i "'")
    }
    starts++
    start_family[starts] = $2
    start_options[starts] = $0
    sub(/^ *start +[^ ]+ */, "", start_options[starts])
    next
}
{ add_row() }

function add_row(    i, list, name) {
    rows++
    row_option[rows] = $1
    if (!($1 in program)) fault("the program has no option --" $1)
    for (i = 2; i <= NF && $i != "when"; i++) list = list (i > 2 ? " " : "") $i
    if (list == "") fault("expected values of " $1 ", found none")
    row_values[rows] = list
    for (i++; i <= NF; i++) {
        name = $i
        if (!sub(/(!=|[=<>]).+/, "", name)) fault("expected a condition such as repeat>1, found '" $i "'")
        else if (name != "family" && !(name in program)) fault("the program has no option --" name)
        row_when[rows] = row_when[rows] " " $i
    }
}

# ---- a candidate: chosen[option], in the order order[1..chosen_n]
function clear_candidate() {
    split("", chosen)
    chosen_n = 0
}
function choose(name, value) {
    if (!(name in chosen)) order[++chosen_n] = name
    chosen[name] = value
}
function read_candidate(text,    n, i, word, name) {
    clear_candidate()
    n = split(text, word, " ")
    for (i = 1; i <= n; i++) {
        name = word[i]
        sub(/=.*/, "", name)
        choose(name, substr(word[i], length(name) + 2))
    }
}
function written(    i, text) {
    for (i = 1; i <= chosen_n; i++)
        if (order[i] in chosen && chosen[order[i]] != "-")
            text = text (text == "" ? "" : " ") order[i] "=" chosen[order[i]]
    return text
}
function value_of(name) { return name in chosen && chosen[name] != "-" ? chosen[name] : program[name] }

function condition_holds(text,    name, sign, list, word, n, i, found) {
    name = text
    sub(/(!=|[=<>]).*/, "", name)
    list = substr(text, length(name) + 1)
    sign = list ~ /^!=/ ? "!=" : substr(list, 1, 1)
    list = substr(list, length(sign) + 1)
    if (sign == ">") return value_of(name) + 0 > list + 0
    if (sign == "<") return value_of(name) + 0 < list + 0
    n = split(list, word, "|")
    for (i = 1; i <= n; i++) found += word[i] "" == value_of(name) ""
    return sign == "=" ? found > 0 : found == 0
}
function holds(row,    word, n, i) {
    n = split(row_when[row], word, " ")
    for (i = 1; i <= n; i++)
        if (!condition_holds(word[i])) return 0
    return 1
}

# ---- drawing. The minimal standard generator of Park and Miller: every awk has the same numbers.
function chance() { # 0 <= chance() < 1
    state = state * 16807 % 2147483647
    return state / 2147483647
}
function one_of(list,    word, n) {
    n = split(list, word, " ")
    return word[1 + int(n * chance())]
}
function draw_one(which,    row) {
    clear_candidate()
    choose("family", which)
    for (row = 1; row <= rows; row++)
        if (!(row_option[row] in chosen) && holds(row)) choose(row_option[row], one_of(row_values[row]))
    if (!("data" in chosen)) choose("data", one_of(data))
    return written()
}
function emit(text) { # unless there is one like it
    if (text in drawn) return 0
    drawn[text] = 1
    print ++emitted "\t" text
    return 1
}
function draw(    i, which, tries) {
    state = seed * 48271 % 2147483646 + 1
    for (i = 0; i < 20; i++) chance()
    split(data, folder, " ")
    for (i = 1; i <= starts && emitted < n; i++) {
        if (family != "any" && family != start_family[i]) continue
        read_candidate("family=" start_family[i] " " start_options[i])
        if (!("data" in chosen)) choose("data", folder[1])
        emit(written())
    }
    while (emitted < n && tries < 100 * n) {
        which = family == "any" ? (tries % 2 ? "recursive" : "flat") : family
        emit(draw_one(which))
        tries++
    }
}

# ---- neighbours
function middle(list,    word, n) {
    n = split(list, word, " ")
    return word[int((n + 1) / 2)]
}
# With another value of an option others may gain or lose their meaning.
function change_to(name, value,    row, option, meant) {
    read_candidate(of)
    split("", meant)
    for (row = 1; row <= rows; row++)
        if (holds(row)) meant[row_option[row]] = 1
    choose(name, value)
    split("", means)
    for (row = 1; row <= rows; row++) {
        option = row_option[row]
        if (!holds(row)) continue
        means[option] = 1
        if (!(option in chosen) && !(option in meant)) choose(option, middle(row_values[row]))
    }
    for (row = 1; row <= rows; row++)
        if (row_option[row] in meant && !(row_option[row] in means)) delete chosen[row_option[row]]
    print name "=" value "\t" written()
}
function next_numbers(name, list,    word, n, i, now, below, above) {
    now = value_of(name) + 0
    n = split(list, word, " ")
    for (i = 1; i <= n; i++) {
        if (word[i] < now && (below == "" || word[i] > below + 0)) below = word[i]
        if (word[i] > now && (above == "" || word[i] < above + 0)) above = word[i]
    }
    if (below != "") change_to(name, below)
    if (above != "") change_to(name, above)
}
function other_words(name, list,    word, n, i, now, seen) {
    now = name in chosen ? chosen[name] : (list ~ /(^| )-( |$)/ ? "-" : program[name])
    seen[now] = 1
    n = split(list, word, " ")
    for (i = 1; i <= n; i++)
        if (!(word[i] in seen)) {
            seen[word[i]] = 1
            change_to(name, word[i])
        }
}
function neighbours(    row, list, done, numbers) {
    for (row = 1; row <= rows; row++) {
        read_candidate(of)
        if (row_option[row] in done || !holds(row)) continue
        done[row_option[row]] = 1
        list = row_values[row]
        numbers = list
        gsub(/ /, "", numbers)
        if (is_number(numbers)) next_numbers(row_option[row], list)
        else other_words(row_option[row], list)
    }
    read_candidate(of)
    if (split(data, word, " ") > 1) other_words("data", data)
}

END {
    if (mode == "check" && !rows) print "no option in it"
    if (mode == "draw") draw()
    if (mode == "neighbours") neighbours()
}
