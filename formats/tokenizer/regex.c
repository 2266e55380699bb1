#include "formats/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/tokenizer/chars.h"

enum { MATCH_LIMIT = 10000000, HEAP_LIMIT_KIB = 65536, JIT_STACK = 1 << 20, MAX_PATTERN = 1 << 16 };

struct tg_regex {
    pcre2_code *code;
    char *name, *pattern;
};

static void *take(PCRE2_SIZE n, void *ud)
{
    (void)ud;
    return tg_alloc(n);
}

static void give(void *p, void *ud)
{
    (void)ud;
    tg_free(p);
}

/* What the class escapes mean in Oniguruma with Unicode: the inside of a bracket. PCRE2's own \s
 * has U+180E, its \w no marks. */
static const char *class_escape(char c)
{
    switch (c) {
    case 's':
        return "\\p{Z}\\t-\\r\\x{85}";
    case 'w':
        return "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{"
               "24e9}"
               "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";
    case 'd':
        return "\\p{Nd}";
    case 'h':
        return "0-9a-fA-F";
    default:
        return NULL;
    }
}

static int refuse(const char *name, const char *pattern, const char *at, size_t n,
                  struct tg_err *err)
{
    return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: pattern '%s': '%.*s' at byte %zu is not supported",
                   name, pattern, (int)n, at, (size_t)(at - pattern));
}

/* One escape at p[0] == '\\'; returns its length, or 0 if it is not supported. */
static size_t rewrite_escape(struct tg_strbuf *out, const char *p, bool in_class)
{
    char c = p[1];
    const char *inside = class_escape(c);
    if (inside) {
        tg_strbuf_printf(out, in_class ? "%s" : "[%s]", inside);
        return 2;
    }
    inside = c >= 'A' && c <= 'Z' ? class_escape((char)(c + 32)) : NULL;
    if (inside && !in_class) {
        tg_strbuf_printf(out, "[^%s]", inside);
        return 2;
    }
    if ((c == 'b' || c == 'B') && !in_class) {
        const char *w = class_escape('w');
        tg_strbuf_printf(out,
                         c == 'b' ? "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))"
                                  : "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))",
                         w, w, w, w);
        return 2;
    }
    if (c == 'v') {
        tg_strbuf_puts(out, "\\x0b");
        return 2;
    }
    if (c == 'u' && strspn(p + 2, "0123456789abcdefABCDEF") >= 4) {
        tg_strbuf_printf(out, "\\x{%.4s}", p + 2);
        return 6;
    }
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (c == '\0' || (letter && !strchr("pPntrfx", c) && (in_class || !strchr("Az", c))))
        return 0;
    size_t n = 2;
    if ((c == 'p' || c == 'P' || c == 'x') && p[2] == '{')
        n = strcspn(p, "}") + 1; /* the engine reports a missing brace */
    n = n > strlen(p) ? strlen(p) : n;
    tg_strbuf_add(out, p, n);
    return n;
}

/* Length of the "(?..." opening at p that means the same in both engines, 0: of none of them. */
static size_t group_opening(const char *p)
{
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (strncmp(p, same[i], strlen(same[i])) == 0)
            return strlen(same[i]);
    return 0;
}

static int rewrite(struct tg_strbuf *out, const char *pattern, const char *name, struct tg_err *err)
{
    bool in_class = false, first = false;
    const char *p = pattern;
    while (*p) {
        size_t n = 1;
        if (*p == '\\') {
            n = rewrite_escape(out, p, in_class);
            if (n == 0)
                return refuse(name, pattern, p, p[1] ? 2 : 1, err);
            first = false;
            p += n;
            continue;
        }
        if (in_class) {
            if (*p == '[' || (*p == '&' && p[1] == '&') || (*p == ']' && first))
                return refuse(name, pattern, p, *p == ']' ? 1 : 2, err);
            in_class = *p != ']';
            first = false;
        } else if (*p == '[') {
            in_class = first = true;
            n = p[1] == '^' ? 2 : 1;
        } else if (strncmp(p, "(?m:", 4) == 0) {
            tg_strbuf_puts(out, "(?s:"); /* Ruby's m lets a dot match a line end */
            p += 4;
            continue;
        } else if (*p == '(' && (p[1] == '?' || p[1] == '*')) {
            n = p == pattern && strncmp(p, "(?i)", 4) == 0 ? 4 : group_opening(p);
            if (n == 0)
                return refuse(name, pattern, p, 3, err);
        } else if (*p == '{' && p[1] == ',') {
            tg_strbuf_puts(out, "{0,"); /* {,n} means {0,n} */
            p += 2;
            continue;
        } else if (*p == '}' && p[1] == '+') {
            return refuse(name, pattern, p, 2, err); /* possessive in PCRE2, a second + in Ruby */
        }
        tg_strbuf_add(out, p, n);
        p += n;
    }
    return TG_OK;
}

int tg_regex_compile(struct tg_regex **out, const char *pattern, bool literal, const char *name,
                     struct tg_err *err)
{
    int rc = TG_OK, code = 0;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR why[200];
    struct tg_strbuf text;
    struct tg_regex *r = tg_alloc(sizeof *r);
    pcre2_general_context *general = pcre2_general_context_create(take, give, NULL);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    tg_strbuf_init(&text, 16 * MAX_PATTERN);
    if (strlen(pattern) > MAX_PATTERN)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "%s: a pattern is longer than %d bytes", name,
                     MAX_PATTERN);
    else if (literal)
        tg_strbuf_puts(&text, pattern);
    else
        rc = rewrite(&text, pattern, name, err);
    if (rc == TG_OK && (text.failed || !context || !r || !(r->name = tg_strdup(name)) ||
                        !(r->pattern = tg_strdup(pattern))))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
    if (rc == TG_OK) {
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        r->code = pcre2_compile(
            (PCRE2_SPTR)text.text, text.len,
            PCRE2_UTF |
                (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C),
            &code, &at, context);
        if (!r->code) {
            pcre2_get_error_message(code, why, sizeof why);
            rc = tg_fail(err, code == PCRE2_ERROR_HEAP_FAILED ? TG_ERR_NOMEM : TG_ERR_UNSUPPORTED,
                         "%s: pattern '%s': %s", name, pattern, (char *)why);
        } else {
            pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it the interpreter runs */
        }
    }
    tg_strbuf_release(&text);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (rc != TG_OK) {
        tg_regex_free(r);
        return rc;
    }
    *out = r;
    return TG_OK;
}

void tg_regex_free(struct tg_regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    tg_free(r->name);
    tg_free(r->pattern);
    tg_free(r);
}

static bool prepare(struct tg_regex_run *run)
{
    pcre2_general_context *general = pcre2_general_context_create(take, give, NULL);
    if (!general)
        return false;
    run->general = general;
    run->data = pcre2_match_data_create(1, general);
    run->context = pcre2_match_context_create(general);
    run->jit_stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK, general);
    if (!run->data || !run->context)
        return false;
    pcre2_set_match_limit(run->context, MATCH_LIMIT);
    pcre2_set_heap_limit(run->context, HEAP_LIMIT_KIB);
    if (run->jit_stack)
        pcre2_jit_stack_assign(run->context, NULL, run->jit_stack);
    return true;
}

void tg_regex_run_release(struct tg_regex_run *run)
{
    pcre2_match_data_free(run->data);
    pcre2_match_context_free(run->context);
    pcre2_jit_stack_free(run->jit_stack);
    pcre2_general_context_free(run->general);
    *run = (struct tg_regex_run){0};
}

int tg_regex_find(const struct tg_regex *r, struct tg_regex_run *run, const char *text, size_t len,
                  size_t from, size_t *start, size_t *end, struct tg_err *err)
{
    if (!run->context && !prepare(run)) {
        tg_regex_run_release(run);
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", r->name);
    }
    int n = pcre2_match(r->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, run->data,
                        run->context);
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    if (n < 0) {
        PCRE2_UCHAR why[200];
        pcre2_get_error_message(n, why, sizeof why);
        return tg_fail(err, n == PCRE2_ERROR_NOMEMORY ? TG_ERR_NOMEM : TG_ERR_UNSUPPORTED,
                       "%s: pattern '%s' at byte %zu of the text: %s", r->name, r->pattern, from,
                       (char *)why);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(run->data);
    *start = at[0];
    *end = at[1];
    return 1;
}

int tg_regex_next(const struct tg_regex *r, struct tg_regex_run *run, const char *text, size_t len,
                  struct tg_regex_walk *walk, size_t *start, size_t *end, struct tg_err *err)
{
    while (walk->from <= len) {
        size_t n;
        int rc = tg_regex_find(r, run, text, len, walk->from, start, end, err);
        if (rc <= 0)
            return rc;
        if (*start < *end || *start != walk->last) {
            walk->from = walk->last = *end;
            return 1;
        }
        if (*end >= len)
            return 0;
        tg_char_at(text + *end, &n);
        walk->from = *end + n;
    }
    return 0;
}
