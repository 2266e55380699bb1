/* Private to convert: what config.json of the HF decoder families has in common. Each reader takes
 * the text model's object and names file, key, value and limit in its errors. */
#ifndef TG_CONVERT_CONFIG_H
#define TG_CONVERT_CONFIG_H

#include "base/json.h"
#include "convert/spec.h"

/* Largest sizes; with them no product of sizes passes 2^62. */
enum tg_limits {
    TG_MAX_VOCAB = 1 << 24,
    TG_MAX_WIDTH = 1 << 17,
    TG_MAX_LAYERS = 4096,
    TG_MAX_HEADS = 4096,
    TG_MAX_HEAD_DIM = 4096,
    TG_MAX_MLP = 1 << 20,
    TG_MAX_WINDOW = 1 << 30,
    TG_MAX_SINKS = 4096,
};

/* What a transformers config class takes for a key that the file lacks. The sizes that
 * transformers always writes (vocab_size, hidden_size, intermediate_size, num_hidden_layers,
 * num_attention_heads) have no default here: without them the file is not a whole config. */
struct tg_config_defaults {
    int64_t kv_heads; /* 0: as many as heads */
    int64_t head_dim; /* 0: width / heads */
    int64_t max_positions;
    int32_t bos_id, eos_id; /* -1: none */
};

/* Everything but biases, q/k norms and windows: spec gets its layers, all of them softmax. */
int tg_config_decoder(struct tg_json c, const struct tg_config_defaults *d,
                      struct tg_model_spec *spec, struct tg_err *err);
/* The parts of it that a native hybrid shares: vocabulary, width, eps, tied head, positions, rope,
 * special tokens. */
int tg_config_model(struct tg_json c, const struct tg_config_defaults *d,
                    struct tg_model_spec *spec, struct tg_err *err);
int tg_config_activation(struct tg_json c, enum tg_activation *out, struct tg_err *err);
/* TG_OK, or the refusal of a quantised checkpoint by its method's name */
int tg_config_unquantised(struct tg_json c, struct tg_err *err);

/* sliding_window: `absent` when the key is absent, 0 when it is null */
int tg_config_window(struct tg_json c, int64_t absent, size_t *window, struct tg_err *err);
/* use_sliding_window, sliding_window, max_window_layers and layer_types as the Qwen classes read
 * them */
int tg_config_qwen_windows(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err);
/* Softmax over everything, or a window when window > 0 */
void tg_layer_attend(struct tg_layer_spec *l, size_t window);

#endif
