/* Patterns of llama.cpp's pre-tokenizers, in the spelling of the tokenizer.json that they are made
 * after. */
#include "formats/tokenizer/splits.h"

#include <string.h>

#include "formats/tokenizer/chars.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char llama3[] =
    CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES;
static const char qwen2[] =
    CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES;
static const char qwen35[] = CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
                                          "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES;
static const char deepseek_v3[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES;
#define CASED "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define UNCASED "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"
static const char tekken[] = BEFORE CASED "*" UNCASED "+|" BEFORE CASED "+" UNCASED
                                          "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES;
#define SUFFIX "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
static const char gpt_4o[] = BEFORE CASED "*" UNCASED "+" SUFFIX BEFORE CASED "+" UNCASED "*" SUFFIX
                                          "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES;
/* Ideographs, and kana. */
static const char cjk_kana[] = "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+";
static const char cjk_hangul[] = "[\\x{4e00}-\\x{9fa5}\\x{0800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+";

/* What llama.cpp does with files that do not say how text is cut */
static const char default_punctuation[] = "[\\p{P}\\$\\+<=>\\^~\\|]+";

const struct tg_split tg_splits[] = {
    {"gpt-2", {tg_gpt2_pattern}, false, false},
    {"phi-2", {tg_gpt2_pattern}, false, false},
    {"gigachat", {tg_gpt2_pattern}, false, false},
    {"exaone4", {tg_gpt2_pattern}, false, false},
    {"mpt", {tg_gpt2_pattern}, false, false},
    {"olmo", {tg_gpt2_pattern}, false, false},
    {"jais", {tg_gpt2_pattern}, false, false},
    {"trillion", {tg_gpt2_pattern}, false, false},
    {"granite-docling", {tg_gpt2_pattern}, false, false},
    {"llama-bpe", {llama3}, true, true},
    {"llama3", {llama3}, true, true},
    {"llama-v3", {llama3}, true, true},
    {"falcon3", {llama3}, true, true},
    {"falcon-h1", {llama3}, true, true},
    {"pixtral", {llama3}, true, true},
    {"midm-2.0", {llama3}, true, true},
    {"lfm2", {llama3}, true, true},
    {"smaug-bpe", {llama3}, false, false},
    {"dbrx", {llama3}, false, false},
    {"chatglm-bpe", {llama3}, false, false},
    {"qwen2", {qwen2}, false, false},
    {"deepseek-r1-qwen", {qwen2}, false, false},
    {"megrez", {qwen2}, false, false},
    {"stablelm2", {qwen2}, false, false},
    {"hunyuan", {qwen2}, false, false},
    {"qwen35", {qwen35}, false, false},
    {"smollm", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"starcoder", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"refact", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"command-r", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"codeshell", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"exaone", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"minerva-7b", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", tg_gpt2_pattern, "[0-9][0-9][0-9]"}, false, false},
    {"tekken", {tekken}, true, true},
    {"gpt-4o", {gpt_4o}, false, false},
    {"llama4", {gpt_4o}, false, false},
    {"deepseek-coder",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", cjk_hangul, "\\p{N}"},
     false,
     false},
    {"deepseek-v3", {"\\p{N}{1,3}", cjk_kana, deepseek_v3}, false, false},
    {"glm4", {llama3}, true, false},
    {"default", {default_punctuation, tg_gpt2_pattern, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false},
    {0},
};

const struct tg_split *tg_split_find(const char *name)
{
    for (const struct tg_split *s = tg_splits; s->name; s++)
        if (strcmp(name, s->name) == 0)
            return s;
    return NULL;
}
