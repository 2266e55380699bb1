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
    TG_MAX_PARTITIONS = 64, /* of a state */
    TG_MAX_HEAD_DIM = 4096,
    TG_MAX_MLP = 1 << 20,
    TG_MAX_WINDOW = 1 << 30,
    TG_MAX_SINKS = 4096,
    TG_MAX_EXPERTS = 4096,
    TG_MAX_POSITIONS = 1 << 24, /* learned ones */
};

/* What a config class of transformers takes for a key that the file lacks, and what it calls its
 * keys. Zero is the Llama way throughout. The sizes that transformers always writes have no default
 * at the top: without them the file is not a whole config. In a text_config it may write only what
 * differs from the class, so there `sizes` stand in. */
struct tg_config_defaults {
    int64_t kv_heads; /* 0: as many as heads */
    int64_t head_dim; /* 0: width / heads */
    int64_t max_positions;
    int32_t bos_id, eos_id; /* -1: none */
    struct {
        int64_t vocab, width, mlp_dim, layers, heads; /* 0: none even there */
    } sizes;
    size_t mlp_widths;        /* n: without the key (or with null) the mlp has n times the width */
    struct tg_norm_spec norm; /* eps 0: 1e-6 */
    const char *activation;   /* NULL: "silu" */
    bool tied;
    bool no_rotary;
    double theta;               /* 0: 10000 */
    double rotary_share;        /* of a head that is rotated; 0: 1, and no other value is taken */
    double local_theta;         /* sliding layers have a rope of their own; 0: they do not */
    struct tg_layer_spec layer; /* what every layer starts from; attn_scale 0: K^-0.5 */
    struct {
        const char *width, *layers, *heads, *kv_heads, *mlp_dim, *positions;
        const char *eps; /* "": the class has no such key */
        const char *activation, *theta, *local_theta, *rotary_share;
    } keys; /* NULL: as in Llama */
};

/* The whole of a decoder: spec gets its layers, all of them d->layer with the sizes read, softmax
 * over everything. What remains is what differs from layer to layer. */
int tg_config_decoder(struct tg_json c, const struct tg_config_defaults *d,
                      struct tg_model_spec *spec, struct tg_err *err);
/* Its parts, for configs of another build. Vocabulary, width, norm, tied head, positions, special
 * tokens: */
int tg_config_model(struct tg_json c, const struct tg_config_defaults *d,
                    struct tg_model_spec *spec, struct tg_err *err);
/* heads, kv_heads, head_dim; attn_scale if it is 0 */
int tg_config_heads(struct tg_json c, const struct tg_config_defaults *d, size_t width,
                    struct tg_layer_spec *l, struct tg_err *err);
/* mlp_dim */
int tg_config_mlp(struct tg_json c, const struct tg_config_defaults *d, size_t width,
                  struct tg_layer_spec *l, struct tg_err *err);
/* num_hidden_layers copies of *l, owned by spec */
int tg_config_layers(struct tg_json c, const struct tg_config_defaults *d,
                     const struct tg_layer_spec *l, struct tg_model_spec *spec, struct tg_err *err);
/* attention_bias: of q, k, v and o alike; what l has stays without the key. tg_config_biases:
 * mlp_bias too */
int tg_config_attention_bias(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err);
int tg_config_biases(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err);
/* d->activation when the key is absent */
int tg_config_activation(struct tg_json c, const struct tg_config_defaults *d,
                         enum tg_activation *out, struct tg_err *err);

/* The ropes of a config in either spelling (config_rope.c): spec->ropes[0], and [1] for sliding
 * layers if they have their own; *share of a head that is rotated. After tg_config_model. */
int tg_config_ropes(struct tg_json c, const struct tg_config_defaults *d,
                    struct tg_model_spec *spec, double *share, struct tg_err *err);
/* One rope object; `beside` is where keys may stand that are not inside, positions those of the
 * config. r->theta and *share hold what counts if it says nothing. */
int tg_config_rope(struct tg_json from, struct tg_json beside, double positions, struct tg_rope *r,
                   double *share, struct tg_err *err);
/* The members of a rope object, under the names of transformers: what the rope's kind uses */
void tg_config_rope_write(const struct tg_rope *r, struct tg_json_out *j);

/* Small readers that leave *out as it is when the key is absent or null */
int tg_config_size_or(struct tg_json c, const char *key, int64_t lo, int64_t hi, size_t *out,
                      struct tg_err *err);
/* A soft cap: `absent` without the key, 0 (none) if it is null */
int tg_config_cap(struct tg_json c, const char *key, double absent, double *out,
                  struct tg_err *err);
/* TG_ERR_UNSUPPORTED if a flag is true that would change the arithmetic */
int tg_config_refuse(struct tg_json c, const char *key, struct tg_err *err);
/* A number, Infinity or NaN bare or as {"__float__": "Infinity"}: false if it is none of these */
bool tg_config_number(struct tg_json v, double *out);

/* Windows and layer types (config_layers.c).
 * sliding_window: `absent` when the key is absent, 0 when it is null */
int tg_config_window(struct tg_json c, int64_t absent, size_t *window, struct tg_err *err);
/* layer_types, or without it sliding layers except every `period`-th (0: none slides; 1: none).
 * Sliding layers get the window and their own rope if there is one. */
int tg_config_layer_types(struct tg_json c, size_t window, size_t period,
                          struct tg_model_spec *spec, struct tg_err *err);
/* use_sliding_window, sliding_window, max_window_layers and layer_types as the Qwen classes read
 * them */
int tg_config_qwen_windows(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err);
/* Softmax over everything, or a window when window > 0 */
void tg_layer_attend(struct tg_layer_spec *l, size_t window);
/* The layer's mlp is these experts. */
void tg_layer_experts(struct tg_layer_spec *l, const struct tg_moe_spec *moe);
/* The same for the layers that decoder_sparse_step and mlp_only_layers leave to experts (Qwen) */
int tg_config_sparse_layers(struct tg_json c, const struct tg_moe_spec *moe,
                            struct tg_model_spec *spec, struct tg_err *err);

#endif
