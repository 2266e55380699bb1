/* How each engine loads a model. */
#include <string.h>

#include "tools/card.h"

struct engine {
    const char *name; /* as targets say it */
    const char *tag;  /* of the Hub; NULL: none of its own */
    const char *text; /* Markdown; '@' stands for the model's path, '%' for its GGUF file */
};

static const struct engine engines[] = {
    {"transformers", NULL,
     "```python\n"
     "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
     "tokenizer = AutoTokenizer.from_pretrained(\"@\")\n"
     "model = AutoModelForCausalLM.from_pretrained(\"@\", dtype=\"auto\", device_map=\"auto\")\n"
     "ids = tokenizer(\"Once upon a time\", return_tensors=\"pt\").to(model.device)\n"
     "print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))\n"
     "```\n\n"
     "`dtype=\"auto\"` keeps the type of the file (`torch_dtype` before transformers 4.56).\n"},
    {"flash-linear-attention", "fla",
     "```python\n"
     "import fla  # registers the model type\n"
     "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
     "tokenizer = AutoTokenizer.from_pretrained(\"@\")\n"
     "model = AutoModelForCausalLM.from_pretrained(\"@\", dtype=\"auto\").cuda()\n"
     "```\n\n"
     "Needs a GPU: its kernels are written in Triton.\n"},
    {"vLLM", "vllm",
     "```sh\n"
     "vllm serve @ --max-model-len 4096\n"
     "```\n\n"
     "`--max-model-len` bounds the cache of the layers that kept softmax attention; the state of "
     "the others has one size.\n"},
    {"SGLang", "sglang",
     "```sh\n"
     "python -m sglang.launch_server --model-path @ --context-length 4096\n"
     "```\n"},
    {"llama.cpp", "llama-cpp",
     "```sh\n"
     "llama-cli -m % -p \"Once upon a time\" -n 64 -no-cnv\n"
     "llama-server -m % -c 4096\n"
     "```\n\n"
     "`-c` bounds the cache of the layers that kept softmax attention.\n"},
};
enum { ENGINES = sizeof engines / sizeof *engines };

static const char native[] =
    "### transformers\n\n"
    "```python\n"
    "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    "tokenizer = AutoTokenizer.from_pretrained(\"@\", trust_remote_code=True)\n"
    "model = AutoModelForCausalLM.from_pretrained(\"@\", trust_remote_code=True)\n"
    "```\n\n"
    "`trust_remote_code=True` runs the model's code, the `*_tegu.py` files of this directory.\n\n"
    "### Tegu\n\n"
    "```sh\n"
    "tegu generate @ --prompt \"Once upon a time\"\n"
    "tegu convert @ OUT --arch auto    # as a model that other engines load, if one fits\n"
    "tegu convert @ OUT --arch auto --dry-run\n"
    "```\n\n";

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Does the target's list have the engine, as a word? */
static bool names(const struct tg_target *target, const char *engine)
{
    const size_t n = strlen(engine);

    for (const char *at = target->engines; (at = strstr(at, engine)); at++)
        if ((at == target->engines || !letter(at[-1])) && !letter(at[n]))
            return true;
    return false;
}

static void fill(struct tg_strbuf *out, const char *text, const char *path, const char *file)
{
    for (; *text; text++)
        if (*text == '@')
            tg_strbuf_puts(out, path);
        else if (*text == '%')
            tg_strbuf_puts(out, file ? file : path);
        else
            tg_strbuf_add(out, text, 1);
}

const char *tg_card_library(const struct tg_target *target)
{
    if (!target || names(target, "transformers"))
        return "transformers";
    return target->gguf ? "gguf" : "fla";
}

void tg_card_engine_tags(struct tg_strbuf *out, const struct tg_target *target)
{
    for (size_t i = 0; target && i < ENGINES; i++)
        if (engines[i].tag && names(target, engines[i].name))
            tg_strbuf_printf(out, "- %s\n", engines[i].tag);
}

void tg_card_engines(struct tg_strbuf *out, const struct tg_card *card, const char *title)
{
    const struct tg_target *target = card->result ? card->result->target : NULL;

    tg_strbuf_puts(out, "## Use\n\n");
    if (!target) {
        fill(out, native, title, NULL);
        return;
    }
    for (size_t i = 0; i < ENGINES; i++) {
        if (!names(target, engines[i].name))
            continue;
        tg_strbuf_printf(out, "### %s\n\n", engines[i].name);
        fill(out, engines[i].text, title, card->file);
        tg_strbuf_puts(out, "\n");
    }
}
