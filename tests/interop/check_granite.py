#!/usr/bin/env python3
"""Hybrids of random teachers, exported with `tegu convert --arch granitemoehybrid` and `kimi_linear`, as transformers computes them: logits
of a whole text, cached greedy generation, a batch of two lengths padded on the left. Fully softmax exports against the teacher itself.

    python3 tests/interop/check_granite.py [BUILD]

Run from the root of the repository. Needs torch (CPU), numpy, safetensors and transformers, and BUILD/tegu (BUILD: build).
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
SIZES = dict(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, bos_token_id=None, eos_token_id=None, pad_token_id=0)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=32)
EVERYWHERE = "mamba2,groups=1,expand=2,bias=false,conv=4"
KDA = "kda,rotary=false,conv=4"
GRANITE, KIMI = "granitemoehybrid", "kimi_linear"
# architecture, what, teacher, changes of its sizes, mixer, layers kept, dtype
CASES = [
    (GRANITE, "grouped heads", "Llama", {}, EVERYWHERE, "1,3", "f32"),
    (GRANITE, "tied, odd vocabulary, irregular", "Llama", dict(tie_word_embeddings=True, vocab_size=101), EVERYWHERE, "0,1", "f32"),
    (GRANITE, "heads alone", "Mistral", dict(num_key_value_heads=4, sliding_window=None), EVERYWHERE, "2", "f32"),
    (GRANITE, "biases of q, k and v", "Qwen2", {}, EVERYWHERE, "1,3", "f32"),
    (GRANITE, "biases of q, k, v and o and of mamba2", "Llama", dict(attention_bias=True), "mamba2,groups=1,expand=2", "1", "f32"),
    (GRANITE, "as wide as the model, groups", "Llama", {}, "mamba2", "1,3", "f32"),
    (GRANITE, "llama3", "Llama", dict(rope_parameters=LLAMA3), EVERYWHERE, "1,3", "f32"),
    (GRANITE, "yarn", "Llama", dict(rope_parameters=YARN), EVERYWHERE, "1,3", "f32"),
    (GRANITE, "no softmax", "Llama", {}, EVERYWHERE, "none", "f32"),
    (GRANITE, "bf16", "Llama", {}, EVERYWHERE, "1,3", "bf16"),
    (GRANITE, "all softmax", "Llama", {}, EVERYWHERE, "0-3", "f32"),
    (GRANITE, "all softmax with biases", "Qwen2", {}, EVERYWHERE, "0-3", "f32"),
    (KIMI, "all changed", "Llama", {}, KDA, "none", "f32"),
    (KIMI, "all changed, heads alone, tied", "Llama", dict(num_key_value_heads=4, tie_word_embeddings=True), KDA, "none", "f32"),
    (KIMI, "bf16", "Llama", {}, KDA, "none", "bf16"),
]
# checkpoints of transformers, written again
AGAIN = [(GRANITE, "granitemoehybrid"), (KIMI, "kimi_linear"), (KIMI, "kimi_linear__moe")]
counts = {True: 0, False: 0}


def check(what, good, seen=""):
    counts[bool(good)] += 1
    print("ok    " if good else "FAILED", what, seen, flush=True)


def tegu(*args):
    done = subprocess.run([f"{BUILD}/tegu", *map(str, args), "-q", "--threads", "1"], capture_output=True, text=True)
    assert done.returncode == 0, f"tegu {args}: {done.stderr}"


def distance(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)))


def tegu_logits(model, folder, ids):
    save_file({"input_ids": ids.to(torch.int32).contiguous()}, folder / "ids.safetensors")
    tegu("logits", model, "-o", folder / "logits.safetensors", "--force", "--ids", folder / "ids.safetensors")
    return load_file(folder / "logits.safetensors")["logits"].numpy()


def make_teacher(kind, sizes, path):
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **sizes})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.3 if p.dim() == 1 else p.shape[-1] ** -0.5))
            if "norm" in name:
                p.add_(1)
    model.save_pretrained(path)
    return model.eval()


def load(path, what):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager",
                                                                     output_loading_info=True)
    check(f"{what}: every tensor has its place", not any(info.values()), info if any(info.values()) else "")
    return model.eval()


def cache_fails(model, ids):
    try:
        model(ids, use_cache=True)
    except ValueError:
        return True
    return False


@torch.no_grad()
def compare(model, out, folder, what, softmax):
    """The exported model in transformers: its logits. Without a softmax layer it has no cache that works."""
    vocab = model.config.vocab_size
    ids = torch.randint(1, vocab, (2, 70), generator=torch.Generator().manual_seed(4))
    got = model(ids, use_cache=False).logits.numpy()
    d = distance(got, tegu_logits(out, folder, ids))
    check(f"{what}: logits", d < 1e-4, f"{d:.1e}")

    mask = torch.ones_like(ids)
    padded = ids.clone()
    padded[1, :20], mask[1, :20] = 0, 0
    alone = model(ids[1:, 20:], use_cache=False).logits.numpy()
    d = distance(model(padded, attention_mask=mask, use_cache=False).logits[1:, 20:].numpy(), alone)
    check(f"{what}: padded on the left", d < 1e-4, f"{d:.1e}")

    if not softmax:
        check(f"{what}: the cache fails, as the export says", cache_fails(model, ids))
        return ids, got
    grown = model.generate(ids[:1, :9], max_new_tokens=40, do_sample=False, eos_token_id=None)
    best = tegu_logits(out, folder, grown)[0].argmax(-1)
    check(f"{what}: cached generation", grown.shape[1] == 49 and (best[8:-1] == grown[0, 9:].numpy()).all())
    return ids, got


def run(arch, what, kind, sizes, mixer, keep, dtype, folder):
    what = f"{arch}, {kind}, {what}"
    teacher = make_teacher(kind, sizes, folder / "teacher")
    text = torch.randint(1, teacher.config.vocab_size, (4000,), generator=torch.Generator().manual_seed(5), dtype=torch.int32)
    save_file({"input_ids": text}, folder / "text.safetensors")
    name, *options = mixer.split(",")
    flags = [word for o in options for word in ("--" + o.split("=")[0], o.split("=")[1])]
    tegu("linearize", folder / "teacher", folder / "hybrid", "--mixer", name, *flags, "--keep", keep, "--dtype", "f32",
         "--data", folder / "text.safetensors", "--length", 64)
    tegu("convert", folder / "hybrid", folder / "out", "--arch", arch, "--dtype", dtype, "--allow-irregular")
    ids, got = compare(load(folder / "out", what), folder / "out", folder, what, keep != "none")
    if dtype == "f32":
        d = distance(got, tegu_logits(folder / "hybrid", folder, ids))
        check(f"{what}: logits of the hybrid", d < 1e-4, f"{d:.1e}")
    if keep == "0-3":
        with torch.no_grad():
            d = distance(got, teacher(ids).logits.numpy())
        check(f"{what}: logits of the teacher", d < 1e-4, f"{d:.1e}")


def run_again(arch, name, folder):
    source = Path("tests/data/families") / name
    tegu("convert", source, folder / "out", "--arch", arch, "--dtype", "f32", "--allow-irregular")
    compare(load(folder / "out", name), folder / "out", folder, f"{name} again", True)


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            run(*case, Path(folder))
    for case in AGAIN:
        with tempfile.TemporaryDirectory() as folder:
            run_again(*case, Path(folder))
    print(f"{counts[True]} passed, {counts[False]} failed")
    sys.exit(counts[False] > 0)


main()
