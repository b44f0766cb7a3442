#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's encoders and encoder-decoders in plain PyTorch: what the C engine is checked against.

Writes one tiny folder of random weights for each family, under the names that the library writes,
and what the family's formulas give for one input at several plans. Everything is computed in
float64 from the library's definitions, without the library.

    tools/reference_hf.py OUT        OUT/hf-bert-mlm, OUT/hf-marian, ...
"""
import argparse
import json
import math
import os

import packages

packages.need("torch", "numpy")

import numpy as np
import torch
import torch.nn.functional as F

import folder

DIM, HEADS, FFN, VOCAB, LAYERS = 16, 2, 20, 30, 3
README = """# Random weights

A tiny `{family}` checkpoint of random numbers without a tokenizer, and what PyTorch computes from it
(`hf.json`), both written by `tools/reference_hf.py`. It serves tests.
"""
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "swish": F.silu}


class Weights:
    """Tensors by name, kept as the float32 file will hold them and read in float64."""

    def __init__(self, seed):
        self.random, self.arrays = np.random.default_rng(seed), {}

    def __getitem__(self, name):
        return torch.from_numpy(self.arrays[name]).double()

    def __contains__(self, name):
        return name in self.arrays

    def add(self, name, *shape, scale=0.2, middle=0.0):
        values = self.random.standard_normal(shape) * scale + middle
        self.arrays[name] = values.astype(np.float32)

    def add_linear(self, name, outputs, inputs):
        self.add(name + ".weight", outputs, inputs)
        self.add(name + ".bias", outputs)

    def add_norm(self, name):
        self.add(name + ".weight", DIM, middle=1.0)
        self.add(name + ".bias", DIM)

    def linear(self, name, x):
        return F.linear(x, self[name + ".weight"], self[name + ".bias"])

    def norm(self, name, x, eps):
        return F.layer_norm(x, (DIM,), self[name + ".weight"], self[name + ".bias"], eps)

    def write(self, path, config, goldens):
        os.makedirs(path, exist_ok=True)
        note = README.format(family=config["model_type"])
        for name, text in [("config.json", json.dumps(config) + "\n"), ("README.md", note),
                           ("hf.json", json.dumps(goldens) + "\n")]:
            with open(os.path.join(path, name), "w", encoding="utf-8") as file:
                file.write(text)
        shapes = {name: array.shape for name, array in self.arrays.items()}
        folder.write_safetensors(os.path.join(path, "model.safetensors"), shapes, "F32",
                                 lambda name: self.arrays[name])


def attend(queries, keys, values, causal=False):
    q, k, v = (x.view(len(x), HEADS, DIM // HEADS).transpose(0, 1) for x in (queries, keys, values))
    weights = q @ k.transpose(1, 2) / math.sqrt(DIM // HEADS)
    if causal:
        future = torch.ones(len(queries), len(queries), dtype=torch.bool).triu(1)
        weights = weights.masked_fill(future, float("-inf"))
    return (weights.softmax(-1) @ v).transpose(0, 1).reshape(len(queries), DIM)


def rounded(tensor):
    return [round(x, 9) for x in tensor.flatten().tolist()]


# ---- bert and roberta ----

def bert_layer(w, at, x, eps, act):
    """BertLayer: both halves are followed by their norm."""
    own = at + "attention.self."
    y = attend(*(w.linear(own + part, x) for part in ("query", "key", "value")))
    x = w.norm(at + "attention.output.LayerNorm", w.linear(at + "attention.output.dense", y) + x, eps)
    y = w.linear(at + "output.dense", act(w.linear(at + "intermediate.dense", x)))
    return w.norm(at + "output.LayerNorm", y + x, eps)


def add_bert(w, prefix, rows, types):
    at = prefix + "embeddings."
    w.add(at + "word_embeddings.weight", VOCAB, DIM, scale=1)
    w.add(at + "position_embeddings.weight", rows, DIM, scale=0.5)
    w.add(at + "token_type_embeddings.weight", types, DIM, scale=0.7)
    w.add_norm(at + "LayerNorm")
    for i in range(LAYERS):
        at = f"{prefix}encoder.layer.{i}."
        for name in ("query", "key", "value"):
            w.add_linear(at + "attention.self." + name, DIM, DIM)
        w.add_linear(at + "attention.output.dense", DIM, DIM)
        w.add_norm(at + "attention.output.LayerNorm")
        w.add_linear(at + "intermediate.dense", FFN, DIM)
        w.add_linear(at + "output.dense", DIM, FFN)
        w.add_norm(at + "output.LayerNorm")


HEAD_NAMES = {  # masked-LM dense, norm, bias; classifier's dense and output
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
             "cls.predictions.bias", "bert.pooler.dense", "classifier"),
    "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "classifier.dense",
                "classifier.out_proj"),
}


def make_encoder(path, family, masked, activation, seed):
    is_bert = family == "bert"
    w, prefix, eps = Weights(seed), family + ".", 1e-12 if is_bert else 1e-5
    types, first = (2, 0) if is_bert else (1, 2)
    dense, norm, bias, pooler, classifier = HEAD_NAMES[family]
    add_bert(w, prefix, first + 10, types)
    if masked:
        w.add_linear(dense, DIM, DIM)
        w.add_norm(norm)
        w.add(bias, VOCAB)
    else:
        w.add_linear(pooler, DIM, DIM)
        w.add_linear(classifier, 3, DIM)
    config = {
        "model_type": family, "vocab_size": VOCAB, "hidden_size": DIM, "hidden_act": activation,
        "architectures": [family.capitalize() + ("ForMaskedLM" if masked
                                                 else "ForSequenceClassification")],
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": FFN,
        "max_position_embeddings": first + 10, "type_vocab_size": types, "layer_norm_eps": eps,
        "pad_token_id": 0 if is_bert else 1, "id2label": {"0": "no", "1": "yes", "2": "perhaps"},
    }
    tokens, act = [2, 7, 8, 9, 3, 11, 12, 3], ACTIVATIONS[activation]
    segments = [0, 0, 0, 0, 0, 1, 1, 1] if is_bert else [0] * 8
    cases = []
    for plan in ([0, 1, 2], [0, 2]):
        at = prefix + "embeddings."
        x = (w[at + "word_embeddings.weight"][tokens]
             + w[at + "token_type_embeddings.weight"][segments]
             + w[at + "position_embeddings.weight"][first:first + len(tokens)])
        x = w.norm(at + "LayerNorm", x, eps)
        for layer in plan:
            x = bert_layer(w, f"{prefix}encoder.layer.{layer}.", x, eps, act)
        case = {"encoder": plan, "hidden": rounded(x)}
        if masked:  # RobertaLMHead is GELU whatever the layers have
            y = w.norm(norm, (act if is_bert else F.gelu)(w.linear(dense, x)), eps)
            words = w[prefix + "embeddings.word_embeddings.weight"]
            case["logits"] = rounded(F.linear(y, words, w[bias]))
        else:
            case["classes"] = rounded(w.linear(classifier, torch.tanh(w.linear(pooler, x[:1]))))
        cases.append(case)
    w.write(path, config, {"tokens": tokens, "types": segments, "cases": cases})


# ---- bart, fsmt, m2m_100 and marian ----

FAMILIES = {  # activation, pre-norm, scale, source vocabulary, pad id
    "bart": ("gelu", False, False, VOCAB, 1),
    "fsmt": ("relu", False, True, VOCAB + 7, 1),
    "m2m_100": ("relu", True, True, VOCAB, 1),
    "marian": ("swish", False, True, VOCAB, VOCAB - 1),
}


def sinusoids(family, rows):
    """fairseq's frequencies fall to 1/10000 at the last; Marian's are those of 10000^(-2 i / d)."""
    i = torch.arange(DIM // 2, dtype=torch.float64)
    steps = DIM / 2 if family == "marian" else DIM / 2 - 1
    angles = torch.arange(rows, dtype=torch.float64)[:, None] * 10000 ** (-i / steps)
    return torch.cat([angles.sin(), angles.cos()], 1)


def add_side(w, family, side, layers):
    at = f"model.{side}."
    if family == "bart":
        w.add(at + "embed_positions.weight", 14, DIM, scale=0.4)
        w.add_norm(at + "layernorm_embedding")
    if family == "m2m_100":
        w.add_norm(at + "layer_norm")
    for i in range(layers):
        at = f"model.{side}.layers.{i}."
        for kind in ["self_attn"] + ["encoder_attn"] * (side == "decoder"):
            for name in "qkv":
                w.add_linear(f"{at}{kind}.{name}_proj", DIM, DIM)
            w.add_linear(f"{at}{kind}.out_proj", DIM, DIM)
            w.add_norm(f"{at}{kind}_layer_norm")
        w.add_linear(at + "fc1", FFN, DIM)
        w.add_linear(at + "fc2", DIM, FFN)
        w.add_norm(at + "final_layer_norm")


def run_layer(w, at, x, source, family, causal):
    activation, pre = FAMILIES[family][:2]

    def around(x, norm, function):
        if pre:
            return x + function(w.norm(at + norm, x, 1e-5))
        return w.norm(at + norm, x + function(x), 1e-5)

    def attention(kind, of, mask):
        def apply(y):
            z = y if of is None else of
            heads = attend(w.linear(f"{at}{kind}.q_proj", y), w.linear(f"{at}{kind}.k_proj", z),
                           w.linear(f"{at}{kind}.v_proj", z), mask)
            return w.linear(f"{at}{kind}.out_proj", heads)
        return apply

    def feed_forward(y):
        return w.linear(at + "fc2", ACTIVATIONS[activation](w.linear(at + "fc1", y)))

    x = around(x, "self_attn_layer_norm", attention("self_attn", None, causal))
    if source is not None:
        x = around(x, "encoder_attn_layer_norm", attention("encoder_attn", source, False))
    return around(x, "final_layer_norm", feed_forward)


def run_side(w, family, side, words, tokens, source, plan):
    scale, at = FAMILIES[family][2], f"model.{side}."
    first = 0 if family == "marian" else 2
    table = w[at + "embed_positions.weight"] if family == "bart" else sinusoids(family, 20)
    x = words[tokens] * (math.sqrt(DIM) if scale else 1) + table[first:first + len(tokens)]
    if family == "bart":
        x = w.norm(at + "layernorm_embedding", x, 1e-5)
    for layer in plan:
        x = run_layer(w, f"{at}layers.{layer}.", x, source, family, side == "decoder")
    return w.norm(at + "layer_norm", x, 1e-5) if at + "layer_norm.weight" in w else x


def make_seq2seq(path, family, seed):
    activation, _, scale, source_vocab, pad = FAMILIES[family]
    w, start = Weights(seed), pad if family == "marian" else 2
    config = {"model_type": family, "d_model": DIM, "activation_function": activation,
              "max_position_embeddings": 12, "scale_embedding": scale, "is_encoder_decoder": True,
              "pad_token_id": pad, "eos_token_id": 2, "decoder_start_token_id": start}
    for side, layers in [("encoder", LAYERS), ("decoder", 2)]:
        add_side(w, family, side, layers)
        config[side + "_layers"], config[side + "_ffn_dim"] = layers, FFN
        config[side + "_attention_heads"] = HEADS
    if family == "fsmt":
        names = ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"]
        w.add(names[0], source_vocab, DIM, scale=0.3)
        config.update(src_vocab_size=source_vocab, tgt_vocab_size=VOCAB, tie_word_embeddings=False)
    else:
        names = ["model.shared.weight"] * 2
        config["vocab_size"] = VOCAB
    w.add(names[1], VOCAB, DIM, scale=0.3)
    if family in ("bart", "marian"):
        w.add("final_logits_bias", 1, VOCAB)
    source, target = [5, 9, 14, 22, source_vocab - 3, 2], [start, 6, 17, 28, 19]
    cases = []
    for plans in ([0, 1, 2], [0, 1]), ([0, 2], [0, 1]), ([1], [1]):
        states = run_side(w, family, "encoder", w[names[0]], source, None, plans[0])
        x = run_side(w, family, "decoder", w[names[1]], target, states, plans[1])
        logits = x @ w[names[1]].t()
        if "final_logits_bias" in w:
            logits = logits + w["final_logits_bias"]
        cases.append({"encoder": plans[0], "decoder": plans[1], "logits": rounded(logits)})
    w.write(path, config, {"source": source, "target": target, "cases": cases})


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    make_encoder(os.path.join(out, "hf-bert-mlm"), "bert", True, "gelu", 21)
    make_encoder(os.path.join(out, "hf-bert-classes"), "bert", False, "relu", 22)
    make_encoder(os.path.join(out, "hf-roberta-mlm"), "roberta", True, "relu", 23)
    make_encoder(os.path.join(out, "hf-roberta-classes"), "roberta", False, "gelu", 24)
    for seed, family in enumerate(FAMILIES, 25):
        make_seq2seq(os.path.join(out, "hf-" + family), family, seed)


main()
