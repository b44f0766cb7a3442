#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The decoder language model in plain PyTorch: what the C engine is checked against.

Reads Hugging Face opt and gpt2 folders and our own fathom_lm, and runs any sub-network. There is
no cache, no batching and no fused step: each answer comes from the whole sequence.

    tools/reference.py deploy/demo --prompt "The city" --depth 6 --max-tokens 20
    tools/reference.py deploy/demo --layers 0,4,8 --prune-to pruned
    tools/reference.py deploy/demo --perplexity test.txt --tokens-per-sample 512
    tools/reference.py tests/data/tiny-opt --goldens tests/data/tiny-opt/goldens.json
"""
import argparse
import json
import math
import os

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import torch

import bpe
import folder

TANH_GELU = ("gelu_tanh", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")


def opt_facts(config):
    for key, wanted in (("word_embed_proj_dim", config["hidden_size"]), ("enable_bias", True),
                        ("layer_norm_elementwise_affine", True)):
        if config.get(key, wanted) != wanted:
            raise SystemExit(f"config.json: {key} must be {wanted}")
    pre = config.get("do_layer_norm_before", True)
    return {"layers": config["num_hidden_layers"], "dim": config["hidden_size"],
            "heads": config["num_attention_heads"],
            "context": config["max_position_embeddings"],
            "activation": config.get("activation_function", "relu"), "pre": pre,
            "final_norm": pre and not config.get("_remove_final_layer_norm", False),
            "embedding_norm": False, "eps": 1e-5, "positions": "learned", "offset": 2,
            "scale": 1.0, "tied": config.get("tie_word_embeddings", True),
            "bos": config.get("bos_token_id", 2)}


def gpt2_facts(config):
    return {"layers": config["n_layer"], "dim": config["n_embd"], "heads": config["n_head"],
            "context": config["n_positions"],
            "activation": config.get("activation_function", "gelu_new"), "pre": True,
            "final_norm": True, "embedding_norm": False,
            "eps": config.get("layer_norm_epsilon", 1e-5), "positions": "learned", "offset": 0,
            "scale": 1.0, "tied": config.get("tie_word_embeddings", True),
            "bos": config.get("bos_token_id")}


def fathom_facts(config):
    return {"layers": config["num_hidden_layers"], "dim": config["hidden_size"],
            "heads": config["num_attention_heads"],
            "context": config["max_position_embeddings"],
            "activation": config["activation_function"], "pre": config["norm"] == "pre",
            "final_norm": config["final_norm"], "embedding_norm": config["embedding_norm"],
            "eps": config["layer_norm_eps"], "positions": config["positions"],
            "offset": config["position_offset"], "scale": config["embed_scale"],
            "tied": config["tie_word_embeddings"], "bos": config.get("bos_token_id")}


def opt_name(name):
    name = name.removeprefix("model.").replace("decoder.final_layer_norm.", "decoder.layer_norm.")
    return "decoder.output_projection.weight" if name == "lm_head.weight" else name


def gpt2_weights(tensors):
    """Under fairseq's names, [out, in], the fused projection split."""
    renamed = {"wte.weight": "embed_tokens.weight", "wpe.weight": "embed_positions.weight",
               "ln_f.weight": "layer_norm.weight", "ln_f.bias": "layer_norm.bias",
               "lm_head.weight": "output_projection.weight"}
    parts = {"attn.c_proj": "self_attn.out_proj", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2",
             "ln_1": "self_attn_layer_norm", "ln_2": "final_layer_norm"}
    weights = {}
    for name, value in tensors.items():
        name = name.removeprefix("transformer.")
        if name in renamed:
            weights["decoder." + renamed[name]] = value
            continue
        if not name.startswith("h.") or name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        value = value.t() if value.dim() == 2 else value  # Conv1D keeps [in, out]
        if part == "attn.c_attn":
            for target, third in zip("qkv", value.chunk(3)):
                weights[f"decoder.layers.{layer}.self_attn.{target}_proj.{kind}"] = third
        else:
            weights[f"decoder.layers.{layer}.{parts[part]}.{kind}"] = value
    return weights


def activate(name, x):
    if name == "relu":
        return x.clamp(min=0)
    if name == "gelu":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    if name in TANH_GELU:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
    raise SystemExit(f"config.json: activation_function {name} is not supported")


def even(layers, depth):
    return [i * layers // depth for i in range(depth)]


def ends(layers, depth):
    """Evenly spaced with the first and the last layer kept."""
    if depth == 1:
        return [0]
    return [(2 * i * (layers - 1) + depth - 1) // (2 * (depth - 1)) for i in range(depth)]


RULES = {"even": even, "ends": ends, "prefix": lambda layers, depth: list(range(depth))}


class Reference:
    def __init__(self, path, dtype=torch.float64):
        config = folder.read_config(path)
        family = config.get("model_type")
        tensors = {n: torch.from_numpy(t).to(dtype) for n, t in folder.read_weights(path).items()}
        if family == "opt":
            self.facts, self.w = opt_facts(config), {opt_name(n): t for n, t in tensors.items()}
        elif family == "gpt2":
            self.facts, self.w = gpt2_facts(config), gpt2_weights(tensors)
        elif family == "fathom_lm":
            self.facts, self.w = fathom_facts(config), tensors
        else:
            raise SystemExit(f"config.json: model_type {family} is not opt, gpt2 or fathom_lm")
        self.dtype = dtype
        self.positions = self.position_table()

    def position_table(self):
        facts = self.facts
        rows = facts["context"] + facts["offset"]
        if facts["positions"] == "learned":
            return self.w["decoder.embed_positions.weight"]
        if facts["positions"] == "none":
            return torch.zeros(rows, facts["dim"], dtype=self.dtype)
        half = facts["dim"] // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / (half - 1)))
        angle = torch.arange(rows, dtype=torch.float64)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], 1).to(self.dtype)  # fairseq: not interleaved

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].t() + self.w[name + ".bias"]

    def norm(self, x, name):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.facts["eps"])
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def attention(self, x, name):
        length, heads = len(x), self.facts["heads"]
        q, k, v = (self.linear(x, f"{name}.{part}_proj").view(length, heads, -1).transpose(0, 1)
                   for part in "qkv")
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = torch.softmax(scores.masked_fill(later, -math.inf), -1)
        return self.linear((weights @ v).transpose(0, 1).reshape(length, -1), name + ".out_proj")

    def layer(self, x, index):
        at = f"decoder.layers.{index}."
        attention = at + "self_attn"

        def feed_forward(y):
            return self.linear(activate(self.facts["activation"], self.linear(y, at + "fc1")),
                               at + "fc2")

        if self.facts["pre"]:
            x = x + self.attention(self.norm(x, at + "self_attn_layer_norm"), attention)
            return x + feed_forward(self.norm(x, at + "final_layer_norm"))
        x = self.norm(x + self.attention(x, attention), at + "self_attn_layer_norm")
        return self.norm(x + feed_forward(x), at + "final_layer_norm")

    @torch.no_grad()
    def logits(self, tokens, plan):
        """[tokens, vocabulary]; a layer outside the plan is the identity."""
        facts = self.facts
        if len(tokens) > facts["context"]:
            raise SystemExit(f"{len(tokens)} tokens are more than the context of "
                             f"{facts['context']}")
        x = self.w["decoder.embed_tokens.weight"][torch.tensor(tokens)] * facts["scale"]
        x = x + self.positions[facts["offset"]:facts["offset"] + len(tokens)]
        if facts["embedding_norm"]:
            x = self.norm(x, "decoder.layernorm_embedding")
        for index in plan:
            x = self.layer(x, index)
        if facts["final_norm"]:
            x = self.norm(x, "decoder.layer_norm")
        output = "embed_tokens" if facts["tied"] else "output_projection"
        return x @ self.w[f"decoder.{output}.weight"].t()

    def greedy(self, tokens, plan, count):
        tokens = list(tokens)
        for _ in range(count):
            tokens.append(int(self.logits(tokens, plan)[-1].argmax()))
        return tokens[-count:] if count else []

    def log_probabilities(self, tokens, plan):
        """log p of tokens[1:], each given what stands before it."""
        log_p = torch.log_softmax(self.logits(tokens, plan), -1)
        return log_p[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def prune(source, plan, out):
    """Write a folder that holds only the plan's layers, renumbered."""
    config, tensors = folder.read_config(source), folder.read_weights(source)
    mark = ".h." if config["model_type"] == "gpt2" else ".layers."
    place, kept = {str(old): str(new) for new, old in enumerate(plan)}, {}
    for name, value in tensors.items():
        head, found, rest = ("." + name).partition(mark)
        if not found:
            kept[name] = value
            continue
        index, _, rest = rest.partition(".")
        if index in place:
            kept[(head + mark + place[index] + "." + rest)[1:]] = value
    config["n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"] = len(plan)
    os.makedirs(out, exist_ok=True)
    folder.write_json(config, os.path.join(out, "config.json"))
    dtype = {"float16": "F16", "bfloat16": "BF16"}.get(config.get("torch_dtype"), "F32")
    folder.write_weights(out, kept, dtype)
    folder.copy_tokenizer(source, out)
    generation = os.path.join(source, "generation_config.json")
    if os.path.exists(generation):
        with open(generation, encoding="utf-8") as file:
            folder.write_json(json.load(file), os.path.join(out, "generation_config.json"))


def encode(path, text):
    """Ids of a prompt as a server would read it: the start symbol first if the folder says so."""
    tokenizer = bpe.Tokenizer(path)
    with open(os.path.join(path, "tokenizer_config.json"), encoding="utf-8") as file:
        add_bos = json.load(file).get("add_bos_token", False)
    bos = [folder.read_config(path)["bos_token_id"]] if add_bos else []
    return bos + tokenizer.encode(text)


def digits(values):
    return [float(f"{v:.9g}") for v in values]


def answer(model, tokens, plan, count):
    logits = model.logits(tokens, plan)
    return {"layers": plan, "tokens": tokens, "logits_last": digits(logits[-1].tolist()),
            "logprobs": digits(model.log_probabilities(tokens, plan).tolist()),
            "greedy": model.greedy(tokens, plan, count)}


def goldens(model, prompts, count):
    """Every depth by the even rule, the other rules at half depth, and an uneven explicit list."""
    layers = model.facts["layers"]
    plans = [even(layers, depth) for depth in range(1, layers + 1)]
    extra = [ends(layers, max(layers // 2, 1)), list(range(max(layers // 2, 1))),
             [i for i in range(layers) if i % 3 != 1]]
    plans += [plan for plan in extra if plan not in plans]
    return {"cases": [answer(model, tokens, plan, count) for tokens in prompts for plan in plans]}


def perplexities(model, path, text, block, depths, rule):
    """Perplexity per token at each depth: documents (separated by empty lines) are joined, each
    closed by the start symbol, and cut into blocks; each block is scored after the start symbol."""
    tokenizer, start, stream = bpe.Tokenizer(path), model.facts["bos"], []
    with open(text, encoding="utf-8") as file:
        for document in file.read().split("\n\n"):
            stream += tokenizer.encode(document.strip("\n")) + [start]
    table = []
    for depth in depths:
        plan, total = RULES[rule](model.facts["layers"], depth), 0.0
        for at in range(0, len(stream), block):
            part = [start] + stream[at:at + block]
            logits = model.logits(part[:-1], plan)
            goal = torch.tensor(part[1:])[:, None]
            total -= float((logits.gather(1, goal)[:, 0] - logits.logsumexp(1)).sum())
        table.append({"depth": depth, "layers": plan,
                      "perplexity": round(math.exp(total / len(stream)), 4)})
    return {"tokens": len(stream), "metric": "perplexity", "rule": rule, "depths": table}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("folder")
    add("--prompt", default="")
    add("--tokens", default="", help="comma list of ids instead of --prompt, taken as they are")
    add("--layers", default="", help="comma list of the layers to run")
    add("--depth", type=int, help="how many layers to run; default: all")
    add("--rule", choices=sorted(RULES), default="even")
    add("--max-tokens", type=int, default=0, help="greedy tokens to add")
    add("--dtype", choices=["f32", "f64"], default="f64")
    add("--prune-to", default="", help="folder to write with the chosen layers only")
    add("--perplexity", default="", help="text file to score at --depths")
    add("--depths", default="", help="comma list; default: every depth")
    add("--tokens-per-sample", type=int, default=256)
    add("--goldens", default="", help="file to write: both prompts of tests at every depth")
    args = parser.parse_args()
    model = Reference(args.folder, torch.float32 if args.dtype == "f32" else torch.float64)
    layers = model.facts["layers"]
    plan = ([int(i) for i in args.layers.split(",")] if args.layers
            else RULES[args.rule](layers, args.depth or layers))
    if args.prune_to:
        prune(args.folder, plan, args.prune_to)
    elif args.perplexity:
        depths = [int(d) for d in args.depths.split(",") if d] or range(1, layers + 1)
        print(json.dumps(perplexities(model, args.folder, args.perplexity, args.tokens_per_sample,
                                      depths, args.rule), indent=2))
    elif args.goldens:
        prompts = [encode(args.folder, "The river runs past the old mill."),
                   encode(args.folder, "Tom saw 3 ships; naïve?\n\nYes")]
        with open(args.goldens, "w", encoding="utf-8") as out:
            text = json.dumps(goldens(model, prompts, 8), separators=(",", ":"))
            out.write(text.replace('{"layers"', '\n{"layers"') + "\n")
    else:
        tokens = ([int(i) for i in args.tokens.split(",")] if args.tokens
                  else encode(args.folder, args.prompt))
        result = answer(model, tokens, plan, args.max_tokens)
        result["text"] = bpe.Tokenizer(args.folder).decode(result["greedy"])
        print(json.dumps(result))


if __name__ == "__main__":
    main()
