#!/usr/bin/env python3
"""Native hybrids in transformers, by the code that tegu writes beside them: every mixer that a plan gives and every teacher family, with
random weights. Logits against `tegu logits`: whole, token by token and in pieces, padded left, right and between; greedy text; gradients.
   check_native.py [OUT] [NAME...]   OUT: the build folder; NAME: cases whose names contain it. Run from the root of the repository"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

# where transformers copies the code to, before it is imported
CODE = tempfile.mkdtemp(prefix="tegu-code-")
os.environ["HF_MODULES_CACHE"] = CODE

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

OUT = sys.argv[1] if len(sys.argv) > 1 else "build"
ONLY = sys.argv[2:]
FAMILIES = "tests/data/families"
TEACHER = "examples/teacher-8m"
TOKENS, LIMIT, STEP_LIMIT = 75, 1e-5, 1e-5

# name, teacher, options of tegu linearize
MIXERS = [
    ("window", "qwen2", ["--mixer", "window", "--window", "5"]),
    ("window sinks", "llama", ["--mixer", "window", "--window", "7", "--sinks", "2"]),
    ("window 1", "llama", ["--mixer", "window", "--window", "1"]),
    ("gated_window", "llama", ["--mixer", "gated_window", "--window", "4"]),
    ("gated_window one layer", "gemma3_text", ["--mixer", "gated_window", "--window", "6", "--sinks", "3", "--keep", "first"]),
    ("gated_window exp", "qwen3", ["--mixer", "gated_window", "--window", "4", "--feature-map", "hedgehog_exp", "--feature-dim", "5"]),
    ("gated_window relu", "phi", ["--mixer", "gated_window", "--window", "4", "--feature-map", "relu", "--output-gate", "true"]),
    ("gated_window taylor", "llama__headdim",
     ["--mixer", "gated_window", "--window", "4", "--feature-map", "taylor", "--feature-dim", "3"]),
    ("gated_window identity", "llama", ["--mixer", "gated_window", "--window", "4", "--feature-map", "identity"]),
    ("lolcats", "llama", ["--mixer", "lolcats", "--window", "4"]),
    ("lolcats gated", "qwen3", ["--mixer", "lolcats", "--window", "6", "--sinks", "2"]),
    ("lizard", "llama", ["--mixer", "lizard", "--window", "4"]),
    ("lizard elu1", "qwen2", ["--mixer", "lizard", "--window", "9", "--feature-map", "elu1", "--sinks", "0"]),
    ("linear", "llama", ["--mixer", "linear"]),
    ("linear shared plain", "qwen3", ["--mixer", "linear", "--kv", "shared", "--rotary", "false", "--feature-map", "elu1"]),
    ("linear no denominator", "llama", ["--mixer", "linear", "--normalise", "false", "--output-gate", "true"]),
    ("linear joint", "llama", ["--mixer", "linear", "--window", "5", "--sinks", "1"]),
    ("linear parallel", "llama", ["--mixer", "linear", "--window", "5", "--window-form", "parallel", "--kv", "shared"]),
    ("linear series", "llama", ["--mixer", "linear", "--window", "5", "--window-form", "series", "--sinks", "2"]),
    ("based", "llama", ["--mixer", "based", "--feature-dim", "4"]),
    ("based joint", "qwen3", ["--mixer", "based", "--window", "6"]),
    ("retnet", "llama", ["--mixer", "retnet"]),
    ("retnet window", "llama", ["--mixer", "retnet", "--window", "5", "--sinks", "1", "--kv", "shared"]),
    ("lightning", "llama", ["--mixer", "lightning"]),
    ("lightning rotary series", "qwen2", ["--mixer", "lightning", "--rotary", "true", "--window", "4", "--window-form", "series"]),
    ("gla", "llama", ["--mixer", "gla", "--low-rank", "3"]),
    ("gla shared window", "qwen3", ["--mixer", "gla", "--kv", "shared", "--window", "5", "--output-gate", "true"]),
    ("hgrn2", "llama", ["--mixer", "hgrn2"]),
    ("hgrn2 window", "llama", ["--mixer", "hgrn2", "--window", "5", "--kv", "shared"]),
    ("hgrn2 no bound", "llama", ["--mixer", "hgrn2", "--lower-bound", "false", "--rotary", "true"]),
    ("deltanet", "llama", ["--mixer", "deltanet"]),
    ("deltanet no conv", "qwen3", ["--mixer", "deltanet", "--conv", "0", "--negative-eigenvalues", "true", "--kv", "shared"]),
    ("block_causal", "llama", ["--mixer", "block_causal", "--chunk", "7"]),
    ("block_causal sinks", "qwen2", ["--mixer", "block_causal", "--chunk", "5", "--sinks", "0", "--feature-map", "relu"]),
    ("sma", "llama", ["--mixer", "sma", "--window", "5"]),
    ("sma sinks", "qwen3", ["--mixer", "sma", "--window", "3", "--sinks", "2"]),
    ("gated_deltanet", "llama", ["--mixer", "gated_deltanet"]),
    ("gated_deltanet window", "qwen3", ["--mixer", "gated_deltanet", "--window", "5", "--sinks", "1", "--negative-eigenvalues", "true"]),
    ("gated_deltanet series", "llama", ["--mixer", "gated_deltanet", "--window", "5", "--window-form", "series", "--rotary", "false"]),
    ("gated_deltanet shared", "llama", ["--mixer", "gated_deltanet", "--kv", "shared", "--conv", "1"]),
    ("kda", "llama", ["--mixer", "kda"]),
    ("kda shared window", "qwen2", ["--mixer", "kda", "--low-rank", "3", "--kv", "shared", "--window", "4"]),
    ("kda gate bias", "llama", ["--mixer", "kda"]),
    ("rwkv7", "llama", ["--mixer", "rwkv7"]),
    ("rwkv7 plain", "qwen3", ["--mixer", "rwkv7", "--rotary", "false", "--output-gate", "true"]),
    ("sse", "llama", ["--mixer", "sse"]),
    ("sse 2 of 5", "qwen3", ["--mixer", "sse", "--partitions", "5", "--active", "2", "--window", "4", "--kv", "shared"]),
    ("sse_deltanet", "llama", ["--mixer", "sse_deltanet"]),
    ("sse_deltanet plain", "qwen2", ["--mixer", "sse_deltanet", "--partitions", "3", "--active", "3", "--rotary", "false", "--conv", "0"]),
    ("mamba2", "llama", ["--mixer", "mamba2"]),
    ("mamba2 groups", "qwen2", ["--mixer", "mamba2", "--groups", "1"]),
    ("mamba2 expand", "llama", ["--mixer", "mamba2", "--expand", "3", "--bias", "false"]),
    ("latent", "llama", ["--mixer", "latent"]),
    ("latent sinks", "qwen2", ["--mixer", "latent", "--low-rank", "6", "--sinks", "2", "--output-gate", "true"]),
    ("latent norm", "qwen3", ["--mixer", "latent", "--low-rank", "12"]),
    ("hgrn", "llama", ["--mixer", "hgrn"]),
    ("hgrn gate", "qwen2", ["--mixer", "hgrn", "--output-gate", "true"]),
    ("hyena_x", "llama", ["--mixer", "hyena_x"]),
    ("hyena_y", "qwen3", ["--mixer", "hyena_y"]),
    ("hyena_se", "qwen2", ["--mixer", "hyena_se"]),
]


def families():
    """Every teacher as it is, its softmax layers kept but the first; of those without softmax layers as they are"""
    for name in sorted(os.listdir(FAMILIES)):
        yield "family " + name, name, ["--mixer", "gated_window", "--window", "6", "--keep", "none", "--layer", "1=keep"]


def tegu(*args):
    run = subprocess.run([os.path.join(OUT, "tegu"), *args], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"tegu {' '.join(args)}: {run.stderr.strip()}")
    return run.stdout


def perturb(folder, seed):
    path, rng = os.path.join(folder, "model.safetensors"), np.random.default_rng(seed)
    weights = load_file(path)
    with safe_open(path, "np") as f:
        metadata = f.metadata()  # transformers 4 wants its "format"
    for name, w in weights.items():
        size = 0.3 * np.sqrt(np.mean(np.square(w))) + (0.1 if w.ndim < 2 else 0.02)
        weights[name] = (w + size * rng.standard_normal(w.shape)).astype(np.float32)
    save_file(weights, path, metadata)


def add_gate_bias(folder):
    """kda as other software has it: a bias behind its gate's low rank, which no plan gives"""
    path, config_path = os.path.join(folder, "model.safetensors"), os.path.join(folder, "config.json")
    weights = load_file(path)
    for name in [n for n in weights if n.endswith("g_b.weight")]:
        weights[name.replace("weight", "bias")] = np.zeros(weights[name].shape[0], np.float32)
    save_file(weights, path, {"format": "pt"})
    with open(config_path) as f:
        config = json.load(f)
    for layer in config["layers"]:
        layer["recurrent_proj_bias"] = True
    with open(config_path, "w") as f:
        json.dump(config, f)


def tegu_logits(folder, ids):
    ids_path, path = os.path.join(folder, "ids.st"), os.path.join(folder, "logits.st")
    save_file({"input_ids": ids.astype(np.int32)}, ids_path)
    tegu("logits", folder, "--ids", ids_path, "-o", path, "--force", "-q", "--threads", "1")
    return torch.from_numpy(load_file(path)["logits"])


def error(got, want):
    return float((got.double() - want.double()).square().mean().sqrt() / want.double().square().mean().sqrt())


def load(folder, **kwargs):
    dtype = "dtype" if transformers.__version__ >= "5" else "torch_dtype"
    kwargs = {dtype if k == "dtype" else k: v for k, v in kwargs.items()}
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **kwargs)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise RuntimeError(f"{kind}: {sorted(info[kind])[:5]}")
    return model.eval()


def cached(model, ids, cuts, mask=None):
    past, out, at = None, [], 0
    for n in cuts:
        m = None if mask is None else mask[:, : at + n]
        r = model(input_ids=ids[:, at : at + n], attention_mask=m, past_key_values=past, use_cache=True)
        past, at = r.past_key_values, at + n
        out.append(r.logits)
    return torch.cat(out, 1)


def padded(model, ids, want, where, cuts=None):
    """The second text at the places `where` of the batch, as many tokens of it as there are places; the rest is padding"""
    x, mask = ids.clone(), torch.ones_like(ids)
    x[1], mask[1], n = 7, where.long(), int(where.sum())
    x[1, where] = ids[1, :n]
    got = cached(model, x, cuts, mask) if cuts else model(input_ids=x, attention_mask=mask).logits
    return max(error(got[0], want[0]), error(got[1, where], want[1, :n]))


def greedy(model, ids, folder, count=8):
    """Padded batch of two; every token made must be the best one by tegu. Returns how far below the best the worst choice is."""
    n = min(20, ids.shape[1] - count)
    x, mask = ids[:, :n].clone(), torch.ones_like(ids[:, :n])
    x[1, 6:], x[1, :6], mask[1, :6] = ids[1, : n - 6], 7, 0
    y = model.generate(input_ids=x, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=7, eos_token_id=None)
    alone = model.generate(input_ids=ids[:1, :n], max_new_tokens=count, do_sample=False, pad_token_id=7, eos_token_id=None)
    model.generate(input_ids=x, attention_mask=mask, max_new_tokens=3, do_sample=True, pad_token_id=7, eos_token_id=None)
    if not torch.equal(y[:1], alone):
        return float("nan")
    worst = 0.0
    for row, skip in ((0, 0), (1, 6)):
        text = y[row, skip:]
        logits = tegu_logits(folder, text[None].numpy())[0]
        for t in range(n - skip, len(text)):
            best = logits[t - 1].max()
            worst = max(worst, float(best - logits[t - 1, text[t]]) / float(best.abs()))
    return worst


def gradients(model, ids):
    model.train()
    model.zero_grad()
    model(input_ids=ids[:, :40], labels=ids[:, :40]).loss.backward()
    bad = [name for name, p in model.named_parameters() 
           if p.requires_grad and (p.grad is None or not bool(p.grad.isfinite().all()))]
    model.eval()
    return bad


def run_case(name, teacher, options, folder):
    source = os.path.join(FAMILIES, teacher)
    try:
        tegu("linearize", source, folder, "--dtype", "f32", "-q", *options, *([] if "--keep" in options else ["--keep", "none"]))
    except RuntimeError as e:
        if "can be changed" not in str(e):
            raise
        with open(os.path.join(source, "config.json")) as f:  # a teacher with other layers than softmax: as it is
            last = json.load(f)["num_hidden_layers"] - 1
        tegu("linearize", source, folder, "--dtype", "f32", "-q", "--keep", f"0-{last}")
    if name == "kda gate bias":
        add_gate_bias(folder)
    perturb(folder, len(name))
    model = load(folder)
    c = model.config
    T = TOKENS
    for rope in c.ropes:
        if rope and rope["rope_type"] in ("dynamic", "longrope"):  # their frequencies depend on the length
            T = min(T, int(rope["original_max_position_embeddings"]))
    if c.learned_positions:
        T = min(T, c.learned_positions - c.position_offset)
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, c.vocab_size, (2, T)))
    want, result = tegu_logits(folder, ids.numpy()), {}
    with torch.no_grad():
        result["whole"] = error(model(input_ids=ids).logits, want)
        result["steps"] = error(cached(model, ids, [1] * T), want)
        result["pieces"] = error(cached(model, ids, [5, 1, 2, T - 8]), want)
        at = torch.arange(T)
        result["left"] = padded(model, ids, want, at >= 9)
        result["left, cache"] = padded(model, ids, want, at >= 9, [4, 3, 8, T - 19, 1, 1, 1, 1])
        result["right"] = padded(model, ids, want, at < T - 9)
        holes = (at * 7 % 5 > 0) & (at < T - 4) & ((at < 20) | (at > 23))
        result["holes"] = padded(model, ids, want, holes, [18, 3, 1, 1, 1, T - 30, 1, 5])
        result["greedy"] = greedy(model, ids, folder)
    bad = gradients(model, ids)
    if bad:
        raise RuntimeError("no finite gradient: " + ", ".join(bad[:4]))
    return result


def check_text(folder, mixers="0,1=gated_deltanet 2=linear 3=mamba2 4=lolcats,window=16 5=kda 6=sse"):
    """The embedded teacher made a hybrid: text by tegu generate; what save_pretrained writes is read by tegu; bf16; a long text"""
    tegu("linearize", TEACHER, folder, "--dtype", "f32", "-q", "--keep", "last", *(a for m in mixers.split() for a in ("--layer", m)))
    # not AutoTokenizer: the teacher's tokenizer_config.json names a class that only version 5 has
    tokenizer, model = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json")), load(folder)
    prompt = "The old lighthouse stood"
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    made = tokenizer.decode(model.generate(ids, max_new_tokens=40, do_sample=False, eos_token_id=None)[0])
    checks = {"text of tegu generate": made.strip() == tegu("generate", folder, "--prompt", prompt, "-n", "40", "--ignore-eos", "-q").strip()}
    x = torch.from_numpy(np.random.default_rng(2).integers(0, model.config.vocab_size, (1, 1024)))
    want, start = tegu_logits(folder, x.numpy()), time.time()
    with torch.no_grad():
        checks["1024 tokens"] = error(model(input_ids=x).logits, want) < 1e-4
    print(f"      1024 tokens in {time.time() - start:.1f} s")
    save_file({"input_ids": x[:, :70].int().numpy()}, folder + "/ids.st")
    tegu("logits", folder, "--ids", folder + "/ids.st", "--hidden", "-o", folder + "/hidden.st", "--force", "-q")
    hidden = load_file(folder + "/hidden.st")
    base = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        out = base(input_ids=x[:, :70], output_hidden_states=True)
    checks["AutoModel, hidden states"] = len(out.hidden_states) == len(base.layers) + 1 and all(
        error(h, torch.from_numpy(hidden[f"hidden.{i}"])) < 1e-4 for i, h in enumerate(out.hidden_states))
    again = folder + "-again"
    model.save_pretrained(again)
    checks["save_pretrained, tegu logits"] = error(tegu_logits(again, x.numpy()), want) == 0
    checks["save_pretrained, from_pretrained"] = torch.equal(load(again)(input_ids=x[:, :50]).logits, model(input_ids=x[:, :50]).logits)
    with torch.no_grad():
        checks["bf16"] = error(load(folder, dtype=torch.bfloat16)(input_ids=x[:, :256]).logits.float(), want[:, :256]) < 0.05
    grown = load(folder)
    grown.resize_token_embeddings(model.config.vocab_size + 8)
    checks["more tokens"] = grown(input_ids=x[:, :9]).logits.shape[-1] == model.config.vocab_size + 8
    beams = model.generate(ids, max_new_tokens=8, num_beams=3, do_sample=False, eos_token_id=None, pad_token_id=0)
    checks["beams"] = beams.shape[1] == ids.shape[1] + 8
    model.train()
    model.gradient_checkpointing_enable()
    loss = model(input_ids=x[:, :64], labels=x[:, :64]).loss
    loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=x[:, :64], labels=x[:, :64]).loss.backward()
    checks["gradient checkpointing, autocast"] = all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    for name, good in checks.items():
        print("ok    " if good else "FAILED", name, flush=True)
    return sum(not good for good in checks.values())


def main():
    cases = [c for c in [*MIXERS, *families()] if not ONLY or any(o in c[0] for o in ONLY)]
    columns = ["whole", "steps", "pieces", "left", "left, cache", "right", "holes", "greedy"]
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{'':34}" + "".join(f"{c:>12}" for c in columns))
    failed = 0
    for case in cases:
        folder = os.path.join(tempfile.mkdtemp(prefix="tegu-native-"), "hybrid" + str(abs(hash(case[0])) % 10**8))
        try:
            r = run_case(*case, folder)
            good = all(r[c] < LIMIT for c in columns)
            print(f"{'ok    ' if good else 'FAILED'} {case[0]:27}" + "".join(f"{r[c]:12.1e}" for c in columns), flush=True)
        except Exception as e:  # a case that breaks must not hide the others
            good = False
            print(f"FAILED {case[0]:27} {type(e).__name__}: {str(e)[:300]}", flush=True)
            if os.environ.get("TRACE"):
                raise
        failed += not good
        shutil.rmtree(os.path.dirname(folder), ignore_errors=True)
    print(f"{len(cases) - failed} of {len(cases)} hybrids agree")
    if not ONLY or "text" in ONLY:
        folder = tempfile.mkdtemp(prefix="tegu-native-")
        failed += check_text(os.path.join(folder, "hybrid_text"))
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(CODE, ignore_errors=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
