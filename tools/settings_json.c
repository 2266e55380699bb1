#include "tools/settings_json.h"

#include "base/file.h"
#include "formats/corpus.h"
#include "linearize/kernels/gemm.h"

void tg_settings_machine(struct tg_json_out *out, const struct tg_tool *t)
{
    tg_jout_object(out, "machine");
    tg_jout_str(out, "version", TG_VERSION);
    tg_jout_str(out, "blas_core", tg_gemm_core());
    tg_jout_str(out, "kernels", t->ctx.k->name);
    tg_jout_end_object(out);
}

int tg_settings_data(struct tg_json_out *out, const struct tg_data_flags *d, bool held_out,
                     struct tg_err *err)
{
    int status = TG_OK;
    tg_jout_object(out, "data");
    tg_jout_array(out, "files");
    for (size_t i = 0; i < d->files.count && status == TG_OK; i++) {
        struct tg_corpus_spec spec = {0};
        char hex[65] = "";
        status = tg_corpus_spec_parse(d->files.items[i], &spec, err);
        if (status == TG_OK)
            status = tg_sha256_file(spec.path, hex, err);
        tg_corpus_spec_release(&spec);
        tg_jout_object(out, NULL);
        tg_jout_str(out, "file", d->files.items[i]);
        tg_jout_str(out, "sha256", hex);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
    if (d->files.count == 0)
        tg_jout_int(out, "sample_tokens", d->sample_tokens);
    tg_jout_int(out, "length", d->length);
    tg_jout_num(out, "recall_mix", d->recall_mix);
    tg_jout_bool(out, "held_out", held_out);
    tg_jout_end_object(out);
    return status;
}

void tg_settings_stages(struct tg_json_out *out, const struct tg_recipe *r)
{
    tg_jout_array(out, "stages");
    for (size_t i = 0; i < r->stage_count; i++)
        tg_stage_write_json(&r->stages[i], out, NULL);
    tg_jout_end_array(out);
}
