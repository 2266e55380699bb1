#!/usr/bin/env python3
"""Hybrids of random Qwen3 and Qwen3-MoE teachers, exported with `tegu convert --arch qwen3_5(_moe)`, as transformers computes them: logits
of a whole text, of cached greedy generation, and of a batch of two lengths padded on the left. Fully softmax exports against the teacher.
   check_qwen3_5.py [OUT]     OUT: the build folder; run from the root of the repository"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

OUT = sys.argv[1] if len(sys.argv) > 1 else "build"
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
passed = failed = 0

SIZES = dict(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
             head_dim=16, max_position_embeddings=256, eos_token_id=None, bos_token_id=None, pad_token_id=0)
MOE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=True)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)
# name, teacher, changes of its sizes, --keep, options of convert
CASES = [
    ("every:4", "Qwen3", {}, "every:4", []),
    ("every:2, untied, odd sizes", "Qwen3", dict(vocab_size=101, hidden_size=48, num_attention_heads=6, tie_word_embeddings=False), "every:2", []),
    ("one kv head, tied", "Qwen3", dict(num_key_value_heads=1, tie_word_embeddings=True), "every:4", []),
    ("irregular", "Qwen3", {}, "0,3,4", ["--allow-irregular"]),
    ("yarn", "Qwen3", dict(rope_parameters=YARN), "every:4", []),
    ("bf16", "Qwen3", {}, "every:4", ["--dtype", "bf16"]),
    ("all softmax", "Qwen3", {}, "0-7", []),
    ("experts, every:4", "Qwen3Moe", MOE, "every:4", []),
    ("experts, bf16", "Qwen3Moe", MOE, "every:2", ["--dtype", "bf16"]),
    ("experts, all softmax", "Qwen3Moe", MOE, "0-7", []),
]


def check(what, good, seen=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print("ok    " if good else "FAILED", what, seen)


def tegu(*args):
    run = subprocess.run([os.path.join(OUT, "tegu"), *args], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"tegu {' '.join(args)}: {run.stderr}")
    return run.stdout


def difference(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))


def logits(model, folder, ids):
    source, path = os.path.join(folder, "ids.safetensors"), os.path.join(folder, "logits.safetensors")
    save_file({"input_ids": ids.to(torch.int32)}, source)
    tegu("logits", model, "-o", path, "--force", "-q", "--ids", source)
    return load_file(path)["logits"].numpy()


def random_value(name, shape, generator):
    """Matrices that keep the size of what they read; norms as trained models have them, and stranger ones where a linear follows"""
    if "q_norm" in name or "k_norm" in name:
        return 0.5 + 1.5 * torch.rand(shape, generator=generator)
    if "norm" in name:
        w = 0.3 + torch.rand(shape, generator=generator)
        w[:5] = torch.tensor([0.01, -0.3, 0.0, 4.0, 0.12])
        return w
    return torch.randn(shape, generator=generator) * 0.7 / shape[-1] ** 0.5


def make_teacher(kind, sizes, folder):
    config = getattr(transformers, kind + "Config")(**{**SIZES, **sizes})
    model = getattr(transformers, kind + "ForCausalLM")(config).float()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(random_value(name, p.shape, generator).to(torch.bfloat16))
    model.save_pretrained(folder)
    return model.eval()


def stir(folder):
    """What a new layer begins with is regular, and would hide how it is read."""
    path, generator = os.path.join(folder, "model.safetensors"), torch.Generator().manual_seed(6)
    tensors = load_file(path)
    for name in sorted(tensors):
        t = tensors[name]
        if any(part in name for part in (".a.", ".b.", ".z.", ".conv.", "A_log", "dt_bias", "mixer.norm")):
            tensors[name] = (t + 0.3 * torch.randn(t.shape, generator=generator)).to(t.dtype)
    save_file(tensors, path, {"format": "pt"})


def compare(name, model, folder, source):
    """A model in transformers against a checkpoint in tegu"""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(1, model.config.vocab_size, (2, 70), generator=generator)
    with torch.no_grad():
        whole = model(ids).logits.numpy()
    ours = logits(source, folder, ids)
    check(f"{name}: logits of a text", difference(whole, ours) < 1e-4, difference(whole, ours))

    out = model.generate(ids[:, :20], max_new_tokens=24, do_sample=False, return_dict_in_generate=True, output_logits=True,
                         attention_mask=torch.ones(2, 20, dtype=torch.long))
    steps = torch.stack(out.logits, 1).numpy()
    ours = logits(source, folder, out.sequences)[:, 19:-1]
    check(f"{name}: cached generation", steps.shape == ours.shape and difference(steps, ours) < 1e-4, difference(steps, ours))

    mask = torch.ones(2, 40, dtype=torch.long)
    mask[1, :17] = 0
    padded = torch.where(mask == 1, ids[:, :40], 0)
    with torch.no_grad():
        whole = model(padded, attention_mask=mask).logits.numpy()
    long, short = logits(source, folder, ids[:1, :40]), logits(source, folder, ids[1:, 17:40])
    worst = max(difference(whole[:1], long), difference(whole[1:, 17:], short))
    check(f"{name}: a batch of two lengths", worst < 1e-4, worst)


for name, kind, sizes, keep, options in CASES:
    with tempfile.TemporaryDirectory() as folder:
        teacher, hybrid, export = (os.path.join(folder, d) for d in ("teacher", "hybrid", "export"))
        original = make_teacher(kind, sizes, teacher)
        target = "qwen3_5_moe" if kind == "Qwen3Moe" else "qwen3_5"
        softmax = keep == "0-7"
        if not softmax:
            plan = os.path.join(folder, "plan.json")
            how = ["--mixer", "gated_deltanet", "--rotary", "false"] if "--allow-irregular" in options else ["--for", target]
            tegu("plan", teacher, *how, "--keep", keep, "-o", plan, "-q")
            tegu("linearize", teacher, hybrid, "--plan", plan, "--dtype", "f32", "-q")
            stir(hybrid)
        if "--dtype" not in options:
            options = options + ["--dtype", "f32"]
        tegu("convert", teacher if softmax else hybrid, export, "--arch", target, "-q", *options)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32, output_loading_info=True)
        model.eval()
        wanted = "Qwen3_5MoeForCausalLM" if kind == "Qwen3Moe" else "Qwen3_5ForCausalLM"
        check(f"{name}: loads whole as {wanted}", type(model).__name__ == wanted and not any(info.values()), {k: v for k, v in info.items() if v})
        # rounded to bf16 the export is what must agree, else the model that it was made from
        compare(name, model, folder, export if "bf16" in options else teacher if softmax else hybrid)
        if softmax:
            ids = torch.arange(1, 61)[None]
            with torch.no_grad():
                d = difference(model(ids).logits.numpy(), original(ids).logits.numpy())
            check(f"{name}: logits of the teacher in transformers", d < 1e-5, d)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
