/* The globals of PyTorch's weights-only unpickler, and what Tegu makes of each. */
#include <string.h>

#include "formats/torch.h"

#define STORAGE(name, dtype)                                                                       \
    {"torch." name "Storage", TG_TORCH_STORAGE + dtype, false},                                    \
    {                                                                                              \
        "torch.cuda." name "Storage", TG_TORCH_STORAGE + dtype, false                              \
    }
#define OTHER_STORAGE(name)                                                                        \
    {                                                                                              \
        "torch." name "Storage", TG_TORCH_OTHER_STORAGE, false                                     \
    }
#define DTYPE(name, dtype)                                                                         \
    {                                                                                              \
        "torch." name, TG_TORCH_DTYPE + dtype, false                                               \
    }
#define OTHER_DTYPE(name)                                                                          \
    {                                                                                              \
        "torch." name, TG_TORCH_OTHER_DTYPE, false                                                 \
    }
#define REFUSED(name)                                                                              \
    {                                                                                              \
        name, TG_TORCH_REFUSED, false                                                              \
    }
#define DATA(name)                                                                                 \
    {                                                                                              \
        name, TG_TORCH_DATA, false                                                                 \
    }

const struct tg_pickle_global tg_torch_globals[] = {
    {"collections.OrderedDict", TG_TORCH_DATA, true},
    {"torch._utils._rebuild_tensor", TG_TORCH_TENSOR, false},
    {"torch._utils._rebuild_tensor_v2", TG_TORCH_TENSOR_V2, false},
    {"torch._utils._rebuild_tensor_v3", TG_TORCH_TENSOR_V3, false},
    {"torch._utils._rebuild_parameter", TG_TORCH_PARAMETER, false},
    {"torch._utils._rebuild_parameter_with_state", TG_TORCH_PARAMETER, false},
    {"torch._tensor._rebuild_from_type_v2", TG_TORCH_FROM_TYPE, false},
    {"torch.Tensor", TG_TORCH_CLASS, false},
    {"torch.nn.parameter.Parameter", TG_TORCH_CLASS, false},
    {"torch.Size", TG_TORCH_SIZE, false},
    REFUSED("torch._utils._rebuild_sparse_tensor"),
    REFUSED("torch._utils._rebuild_qtensor"),
    REFUSED("torch._utils._rebuild_nested_tensor"),
    REFUSED("torch._utils._rebuild_wrapper_subclass"),
    REFUSED("torch._utils._rebuild_meta_tensor_no_storage"),
    REFUSED("torch._utils._rebuild_device_tensor_from_numpy"),
    REFUSED("torch._utils._rebuild_device_tensor_from_cpu_tensor"),
    DATA("collections.Counter"),
    DATA("torch.device"),
    DATA("torch.serialization._get_layout"),
    DATA("_codecs.encode"),
    DATA("builtins.bytearray"),
    DATA("builtins.set"),
    DATA("builtins.complex"),
    DATA("torch.per_tensor_affine"),
    DATA("torch.per_tensor_symmetric"),
    DATA("torch.per_channel_affine"),
    DATA("torch.per_channel_symmetric"),
    DATA("torch.per_channel_affine_float_qparams"),
    {"torch.storage.UntypedStorage", TG_TORCH_UNTYPED, false},
    {"torch.UntypedStorage", TG_TORCH_UNTYPED, false},
    STORAGE("Double", TG_F64),
    STORAGE("Float", TG_F32),
    STORAGE("Half", TG_F16),
    STORAGE("BFloat16", TG_BF16),
    STORAGE("Long", TG_I64),
    STORAGE("Int", TG_I32),
    STORAGE("Short", TG_I16),
    STORAGE("Char", TG_I8),
    STORAGE("Byte", TG_U8),
    STORAGE("Bool", TG_BOOL),
    STORAGE("ComplexFloat", TG_C64),
    OTHER_STORAGE("ComplexDouble"),
    OTHER_STORAGE("QInt8"),
    OTHER_STORAGE("QInt32"),
    OTHER_STORAGE("QUInt8"),
    OTHER_STORAGE("QUInt4x2"),
    OTHER_STORAGE("QUInt2x4"),
    {"torch.storage.TypedStorage", TG_TORCH_OTHER_STORAGE, false},
    DTYPE("float64", TG_F64),
    DTYPE("float32", TG_F32),
    DTYPE("float16", TG_F16),
    DTYPE("bfloat16", TG_BF16),
    DTYPE("int64", TG_I64),
    DTYPE("int32", TG_I32),
    DTYPE("int16", TG_I16),
    DTYPE("int8", TG_I8),
    DTYPE("uint64", TG_U64),
    DTYPE("uint32", TG_U32),
    DTYPE("uint16", TG_U16),
    DTYPE("uint8", TG_U8),
    DTYPE("bool", TG_BOOL),
    DTYPE("complex64", TG_C64),
    DTYPE("float8_e4m3fn", TG_F8_E4M3),
    DTYPE("float8_e5m2", TG_F8_E5M2),
    DTYPE("float8_e4m3fnuz", TG_F8_E4M3FNUZ),
    DTYPE("float8_e5m2fnuz", TG_F8_E5M2FNUZ),
    DTYPE("float8_e8m0fnu", TG_F8_E8M0),
    OTHER_DTYPE("float4_e2m1fn_x2"),
    OTHER_DTYPE("complex32"),
    OTHER_DTYPE("complex128"),
    OTHER_DTYPE("qint8"),
    OTHER_DTYPE("qint32"),
    OTHER_DTYPE("quint8"),
    OTHER_DTYPE("quint4x2"),
    OTHER_DTYPE("quint2x4"),
    OTHER_DTYPE("bits8"),
    OTHER_DTYPE("bits16"),
    OTHER_DTYPE("bits1x8"),
    OTHER_DTYPE("bits2x4"),
    OTHER_DTYPE("bits4x2"),
    OTHER_DTYPE("int1"),
    OTHER_DTYPE("int2"),
    OTHER_DTYPE("int3"),
    OTHER_DTYPE("int4"),
    OTHER_DTYPE("int5"),
    OTHER_DTYPE("int6"),
    OTHER_DTYPE("int7"),
    OTHER_DTYPE("uint1"),
    OTHER_DTYPE("uint2"),
    OTHER_DTYPE("uint3"),
    OTHER_DTYPE("uint4"),
    OTHER_DTYPE("uint5"),
    OTHER_DTYPE("uint6"),
    OTHER_DTYPE("uint7"),
    {NULL, 0, false},
};

const char *tg_torch_name(enum tg_dtype t, bool *storage)
{
    for (int pass = 0; pass < 2; pass++) /* a storage class is preferred */
        for (const struct tg_pickle_global *g = tg_torch_globals; g->name; g++) {
            *storage = pass == 0;
            if (g->what == (pass ? TG_TORCH_DTYPE : TG_TORCH_STORAGE) + (int)t)
                return g->name + strlen("torch.");
        }
    return NULL;
}
