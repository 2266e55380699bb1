"""GGUF exports in llama.cpp itself: the same ids, logits, greedy text and perplexity as tegu.

    venv/bin/pip install numpy safetensors torch transformers llama-cpp-python
    venv/bin/python tests/interop/check_llama_cpp.py [BUILD]

Teachers: the embedded one, and random Qwen2, Qwen3, Qwen3-MoE and llama3-scaled Llama models with its tokenizer. Each is
exported as it is and as an untrained hybrid of the architecture that its plan is made for.
"""

import gzip
import math
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from llama_cpp import GGML_TYPE_F32, Llama
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build")
TEGU = os.path.join(BUILD, "tegu")
TEACHER = os.path.join(ROOT, "examples", "teacher-8m")
PROMPT = "The old man looked at the sea and"
TOKENS, WINDOW = 64, 400
passed = failed = 0


def tegu(*args):
    done = subprocess.run([TEGU, *args, "-q"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"tegu {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def check(name, good, text):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok  ' if good else 'FAIL'}  {name:<44} {text}", flush=True)


def random_model(folder, make, config, **keys):
    torch.manual_seed(5)
    tokens = AutoTokenizer.from_pretrained(TEACHER)
    model = make(config(vocab_size=len(tokens), hidden_size=128, intermediate_size=256, num_hidden_layers=4,
                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=0,
                        eos_token_id=0, initializer_range=0.15, **keys)).float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.2)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        with open(os.path.join(TEACHER, name), "rb") as f, open(os.path.join(folder, name), "wb") as g:
            g.write(f.read())


def shaken(folder):
    """Noise on everything: zero gates and neutral norms would hide a fault."""
    path = os.path.join(folder, "model.safetensors")
    rng = np.random.default_rng(3)
    tensors = {k: v + 0.02 * rng.standard_normal(v.shape).astype(np.float32) for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def perplexity(logits, ids):
    x = logits[:-1].astype(np.float64)
    m = x.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(x - m).sum(axis=-1)) + m[:, 0]
    return math.exp((log_sum - x[np.arange(len(ids) - 1), ids[1:]]).mean())


def engine(path):
    # keys and values in float32: llama.cpp's default cache is float16
    return Llama(model_path=path, n_ctx=1024, n_batch=1024, n_ubatch=1024, logits_all=True, verbose=False, n_threads=2,
                 type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32)


def compare(name, source, gguf, text, work):
    model = engine(gguf)
    ids = model.tokenize(text.encode(), add_bos=False)[:WINDOW]
    own = [int(t) for t in tegu("tokenize", source, "--text", text, "--no-special").split()][:WINDOW]
    check(f"{name}: ids", ids == own, f"{len(ids)} ids")
    save_file({"input_ids": np.array([ids], dtype=np.int32)}, os.path.join(work, "ids.safetensors"))
    out = os.path.join(work, "logits.safetensors")
    tegu("logits", source, "--ids", os.path.join(work, "ids.safetensors"), "-o", out, "--force")
    want = load_file(out)["logits"][0]
    model.eval(ids)
    got = np.array(model.scores[: len(ids)])
    error = math.sqrt(((got - want) ** 2).mean() / (want**2).mean())
    check(f"{name}: logits", error < 1e-4, f"RMS relative error {error:.2e}")
    a, b = perplexity(got, np.array(ids)), perplexity(want, np.array(ids))
    check(f"{name}: perplexity", abs(a / b - 1) < 1e-3, f"{a:.4f} against {b:.4f}")
    model.reset()
    prompt = model.tokenize(PROMPT.encode(), add_bos=False)
    tokens = []
    for t in model.generate(prompt, top_k=1, temp=0.0, repeat_penalty=1.0):
        if t == model.token_eos():
            break
        tokens.append(t)
        if len(tokens) == TOKENS:
            break
    theirs = PROMPT + model.detokenize(tokens).decode(errors="replace")
    ours = tegu("generate", source, "--prompt", PROMPT, "-n", str(TOKENS), "--temperature", "0")
    ours = ours.replace("<|endoftext|>", "")  # with which tegu ends, where llama.cpp prints nothing
    check(f"{name}: greedy text", theirs.strip() == ours.strip(), f"{len(tokens)} tokens: {theirs[len(PROMPT):48]!r}...")
    return a


def main():
    with tempfile.TemporaryDirectory() as work:
        with gzip.open(os.path.join(TEACHER, "calibration.txt.gz"), "rt") as f:
            text = f.read(6000)[1000:]
        rope3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
                 "high_freq_factor": 4.0, "original_max_position_embeddings": 256}
        models = [
            ("llama, embedded teacher", None, None, {}, "granitehybrid"),
            ("llama, llama3 scaling", LlamaForCausalLM, LlamaConfig,
             {"rope_parameters": rope3, "tie_word_embeddings": True}, "granitehybrid"),
            ("qwen2", Qwen2ForCausalLM, Qwen2Config, {}, "granitehybrid"),
            ("qwen3", Qwen3ForCausalLM, Qwen3Config, {"head_dim": 64, "tie_word_embeddings": True}, "qwen35"),
            ("qwen3_moe", Qwen3MoeForCausalLM, Qwen3MoeConfig,
             {"head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
              "norm_topk_prob": True, "decoder_sparse_step": 1}, "qwen35moe"),
        ]
        for name, make, config, keys, arch in models:
            source = TEACHER if make is None else os.path.join(work, "teacher")
            if make:
                random_model(source, make, config, **keys)
            gguf, hybrid = os.path.join(work, "m.gguf"), os.path.join(work, "hybrid")
            if name != "qwen3_moe":
                tegu("convert", source, gguf, "--arch", "auto", "--dtype", "f32", "--force")
                compare(name, source, gguf, text, work)
            plan = os.path.join(work, "plan.json")
            tegu("plan", source, "--for", arch, "--keep", "every:2", "-o", plan, "--force")
            tegu("linearize", source, hybrid, "--plan", plan, "--dtype", "f32", "--force")
            shaken(hybrid)
            tegu("convert", hybrid, gguf, "--arch", "auto", "--dtype", "f32", "--force")
            exact = compare(f"{name} as {arch}", hybrid, gguf, text, work)
            for dtype in ("bf16", "q8_0", "q4_k_m"):
                tegu("convert", hybrid, gguf, "--arch", arch, "--dtype", dtype, "--force")
                model = engine(gguf)
                ids = model.tokenize(text.encode(), add_bos=False)[:WINDOW]
                model.eval(ids)
                ppl = perplexity(np.array(model.scores[: len(ids)]), np.array(ids))
                check(f"{name} as {arch}, {dtype}: loads", math.isfinite(ppl), f"perplexity {ppl:.4f}, f32 {exact:.4f}")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
