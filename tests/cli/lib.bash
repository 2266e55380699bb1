# Helpers of command-line tests. A test sources it: . "$LIB"
set -u
TEACHER=$ROOT/examples/teacher-8m
FAMILIES=$ROOT/tests/data/families
complain() {
    echo "$*" >&2
    exit 99
}

# Waits until a process that `timeout -s KILL` has killed is gone and has let go of its run: let_go RUN
let_go() {
    [ ! -e "$1/lock" ] || flock -w 60 "$1/lock" true || complain "$1: still locked"
}

# A copy of a tiny checkpoint that may be broken: model FAMILY DIR
model() {
    mkdir "$2"
    cp "$FAMILIES/$1/config.json" "$FAMILIES/$1/model.safetensors" "$2/"
}
# The teacher's folder, by links: teacher DIR
teacher() {
    mkdir "$1"
    for f in "$TEACHER"/*.json "$TEACHER"/model*.safetensors; do ln -s "$f" "$1/"; done
}
# A link in that folder becomes a copy that may be broken: own DIR FILE
own() {
    cp --remove-destination "$(readlink -f "$1/$2")" "$1/$2"
}
# Replaces text by text of any bytes: edit FILE SED-SCRIPT. The file must change.
edit() {
    cp "$1" "$1.before"
    sed -i "$2" "$1"
    cmp -s "$1" "$1.before" && complain "edit of $1 changed nothing: $2"
    rm "$1.before"
}
# Writes bytes (as printf's format) over a file at an offset; from the end if negative: poke FILE OFFSET BYTES
poke() {
    local at=$2
    [ "$at" -ge 0 ] || at=$(($(stat -c %s "$1") + at))
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}

# The command must end with this status, say something that matches the pattern on standard error, nothing on standard output, and
# leave no file behind that was not there: refused STATUS PATTERN command...
refused() {
    local want=$1 pattern=$2 before after rc
    shift 2
    before=$(find . ! -path ./.err ! -path ./.out | sort)
    "$@" >.out 2>.err
    rc=$?
    [ "$rc" = "$want" ] || complain "status $rc, not $want: $*: $(cat .err)"
    # shellcheck disable=SC2053
    [[ $(cat .err) == $pattern ]] || complain "message is not like '$pattern': $*: $(cat .err)"
    [ -s .out ] && complain "printed on standard output: $*: $(head -c 300 .out)"
    after=$(find . ! -path ./.err ! -path ./.out | sort)
    [ "$before" = "$after" ] || complain "left behind: $*: $(diff <(echo "$before") <(echo "$after"))"
    rm -f .out .err
}
# The command must end with this status and say this, word for word, on standard output: found STATUS TEXT command...
found() {
    local want=$1 text=$2 rc
    shift 2
    "$@" >.out 2>.err
    rc=$?
    [ "$rc" = "$want" ] || complain "status $rc, not $want: $*: $(cat .err)"
    grep -qF -- "$text" .out || complain "does not say '$text': $*: $(cat .out)"
    rm -f .out .err
}
# The command must succeed; its standard error is kept for the message: works command...
works() {
    "$@" >.out 2>.err || complain "status $?: $*: $(cat .err)"
    cat .out
    rm -f .out .err
}
# A tiny checkpoint with a tokenizer of single characters (its 96 tokens are printable ASCII, blank and newline), and text for it:
# tiny DIR makes DIR and the file text.
tiny() {
    model llama "$1"
    awk 'BEGIN {
        printf "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,"
        printf "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},"
        printf "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
        printf "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
        printf "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{"
        for (i = 33; i < 127; i++) {
            c = sprintf("%c", i)
            if (c == "\"" || c == "\\") c = "\\" c
            printf "\"%s\":%d,", c, i - 33
        }
        printf "\"\\u0120\":94,\"\\u010a\":95},\"merges\":[]}}\n"
    }' >"$1/tokenizer.json"
    [ -f text ] || zcat "$TEACHER/heldout.txt.gz" | tr -cd ' -~\n' | head -c 60000 >text
}
# The settings of a hybridize run that takes a second
# shellcheck disable=SC2034
QUICK=(--data text --keep 1 --window 16 --length 64 --stage align:tokens=4k kl:tokens=8k --suite ppl,kl,recall,generation
    --windows 4 --items 2 --recall needle:100,kv:2 --prompts 2 --continuation 8)
# Equal weights, bit for bit
same_weights() {
    tegu compare "$1" "$2" --max-rel 0 >.same 2>&1 || complain "weights of $1 and $2 differ: $(cat .same)"
}
