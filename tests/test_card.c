/* Model cards: metadata of a base model's own card, test_titles, text of others, a way to load for
 * every engine that a target names. */
#include "tests/check.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/export.h"
#include "tools/card.h"
#include "tools/front_matter.h"

static const char whole[] = "---\n"
                            "license: \"apache-2.0\" # a comment\r\n"
                            "license_name: 'my licence'\n"
                            "license_link: https://example.org/a#b\n"
                            "datasets:\n- en\n"
                            "language:\n  - en\n  - \"no\"\n  - 'fr' # too\n"
                            "tags: [language]\n"
                            "---\n"
                            "license: mit\n";

static void test_front_matter_is_read(void **state)
{
    struct tg_front_matter f;

    (void)state;
    tg_front_matter_read(whole, sizeof whole - 1, &f);
    assert_string_equal(f.license, "apache-2.0");
    assert_string_equal(f.license_name, "my licence");
    assert_string_equal(f.license_link, "https://example.org/a#b");
    assert_int_equal(f.language_count, 3);
    assert_string_equal(f.languages[0], "en");
    assert_string_equal(f.languages[1], "no");
    assert_string_equal(f.languages[2], "fr");
    static const char in_line[] = "\xef\xbb\xbf---\nlanguage: [ 'de' , \"no\"]\nlicense: mit\n---";
    tg_front_matter_read(in_line, sizeof in_line - 1, &f);
    assert_string_equal(f.license, "mit");
    assert_int_equal(f.language_count, 2);
    assert_string_equal(f.languages[0], "de");
    assert_string_equal(f.languages[1], "no");
}

/* At every length, in a block of just that length: a sanitizer sees what is read beyond it. A block
 * that does not end is none. */
static void test_front_matter_cut(void **state)
{
    const size_t end = (size_t)(strstr(whole, "---\nlicense: mit") - whole) + 3;

    (void)state;
    for (size_t n = 0; n < sizeof whole; n++) {
        char *text = tg_alloc(n ? n : 1);
        struct tg_front_matter f;
        memcpy(text, whole, n);
        tg_front_matter_read(text, n, &f);
        assert_int_equal(f.license[0] != '\0', n >= end);
        assert_int_equal(f.language_count, n >= end ? 3 : 0);
        tg_free(text);
    }
}

static void test_front_matter_refuses(void **state)
{
    static const char *const odd[] = {
        "license: mit\n",
        "---\nlicense: a b\n---\n",
        "---\nlicense: \"mit\n---\n",
        "---\nlicense: [mit]\n---\n",
        "---\n license: mit\n---\n",
        "--- \nlicense:\n---\n",
        "---\nlicense: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n---\n",
    };
    struct tg_front_matter f;
    struct tg_strbuf many;

    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        tg_front_matter_read(odd[i], strlen(odd[i]), &f);
        assert_string_equal(f.license, "");
    }
    tg_strbuf_init(&many, 1 << 16);
    tg_strbuf_puts(&many, "---\nlanguage:\n- <b>\n");
    for (size_t i = 0; i < 2 * TG_MAX_LANGUAGES; i++)
        tg_strbuf_puts(&many, "- en\n");
    tg_strbuf_puts(&many, "---\n");
    tg_front_matter_read(many.text, many.len, &f);
    tg_strbuf_release(&many);
    assert_int_equal(f.language_count, TG_MAX_LANGUAGES);
}

static void test_titles(void **state)
{
    static const struct {
        const char *path, *title;
    } rows[] = {{"out/hybrid", "hybrid"}, {"hybrid///", "hybrid"}, {"a b\"<c>", "a-b--c-"},
                {"/", "hybrid"},          {"..", "hybrid"},        {"Qwen3.5-x_1", "Qwen3.5-x_1"}};
    char title[16];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tg_card_title(rows[i].path, title, sizeof title);
        assert_string_equal(title, rows[i].title);
    }
    tg_card_title("abcdefghijklmnopqrstuvwxyz", title, sizeof title);
    assert_string_equal(title, "abcdefghijklmno");
}

static void test_text_of_others(void **state)
{
    struct tg_strbuf s;
    char page[1200];

    (void)state;
    tg_strbuf_init(&s, 1 << 16);
    tg_card_text(&s, "a|b\n# `c` <d> [e](http://f) *g*_h_");
    assert_string_equal(s.text, "a\\|b \\# \\`c\\` \\<d\\> \\[e\\](http\\://f) \\*g\\*\\_h\\_");
    memset(page, 'x', sizeof page);
    memcpy(page + 399, "\xe2\x82\xac", 3); /* where the text is cut */
    page[sizeof page - 1] = '\0';
    tg_strbuf_clear(&s);
    tg_card_text(&s, page);
    assert_string_equal(s.text + s.len - 7, "x\xe2\x82\xac...");
    tg_strbuf_release(&s);
}

/* A heading of its own for each engine of the list */
static void test_every_engine_has_a_way(void **state)
{
    (void)state;
    for (size_t i = 0; tg_targets[i]; i++) {
        const struct tg_export_result result = {.target = tg_targets[i]};
        const struct tg_card card = {.file = "model.gguf", .result = &result};
        char names[256], *rest = names, heading[280];
        struct tg_strbuf s;
        tg_strbuf_init(&s, 1 << 16);
        tg_card_engines(&s, &card, "title");
        snprintf(names, sizeof names, "%s", tg_targets[i]->engines);
        for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
            snprintf(heading, sizeof heading, "### %s\n", name + strspn(name, " "));
            if (!strstr(s.text, heading))
                fail_msg("%s: no way to load it in '%s'", tg_targets[i]->name, name);
        }
        assert_int_equal(strchr(s.text, '@') || strchr(s.text, '%'), 0);
        tg_strbuf_release(&s);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_front_matter_is_read), cmocka_unit_test(test_front_matter_cut),
        cmocka_unit_test(test_front_matter_refuses), cmocka_unit_test(test_titles),
        cmocka_unit_test(test_text_of_others),       cmocka_unit_test(test_every_engine_has_a_way),
    };
    return tg_run_tests("card", tests, sizeof tests / sizeof *tests);
}
