#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adaptive language models and encoders in plain PyTorch: what the C engine is checked against.

Reads fathom_lm folders with adaptive input or softmax, and fathom_encoder folders with their heads,
and runs any sub-network. Texts are token ids; each answer comes from one whole text, in float64.

    tools/reference_fairseq.py FOLDER --tokens 2,5,9 --layers 0,4,8
    tools/reference_fairseq.py tests/data/tiny-lm-adaptive --goldens GOLDENS.json
    tools/reference_fairseq.py FOLDER --expected EXPECTED.json   (what fairseq computed; compares)
"""
import argparse
import json
import math
import os

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import torch

import folder
from reference import Reference, activate, digits, ends, even
from reference_seq2seq import Seq2Seq

TOP = 10


class AdaptiveLM(Reference):
    """logits() are log-probabilities where the softmax is adaptive."""

    def __init__(self, path, dtype=torch.float64):
        super().__init__(path, dtype)
        config = folder.read_config(path)
        self.vocab = config["vocab_size"]
        self.input, self.softmax = config.get("adaptive_input"), config.get("adaptive_softmax")

    def bands(self, described):
        ends = [*described["cutoffs"], self.vocab]
        return list(zip([0, *ends], ends))

    def embed(self, tokens):
        """[tokens, width]: each word from its own band, brought to the width by the band's map."""
        if not self.input:
            return self.w["decoder.embed_tokens.weight"][tokens]
        x = torch.zeros(len(tokens), self.facts["dim"], dtype=self.dtype)
        for band, (begin, end) in enumerate(self.bands(self.input)):
            at = f"decoder.embed_tokens.embeddings.{band}."
            for i, token in enumerate(tokens.tolist()):
                if begin <= token < end:
                    x[i] = self.w[at + "1.weight"] @ self.w[at + "0.weight"][token - begin]
        return x

    def part(self, name, tied):
        return self.w[tied if name not in self.w else name]

    def output(self, x):
        """[tokens, vocabulary]: log p; a tail's is its class's plus its word's within the class."""
        at, embeddings = "decoder.adaptive_softmax.", "decoder.embed_tokens.embeddings."
        if not self.softmax:
            name = "embed_tokens" if self.facts["tied"] else "output_projection"
            return x @ self.w[f"decoder.{name}.weight"].t()
        bands = self.bands(self.softmax)
        words = self.part(at + "head.word_proj.weight", embeddings + "0.0.weight")
        classes = self.w[at + "head.class_proj.weight"]
        head = torch.log_softmax(torch.cat([x @ words.t(), x @ classes.t()], 1), -1)
        parts = [head[:, :bands[0][1]]]
        for i in range(len(bands) - 1):
            narrow = self.w.get(f"{at}tail.{i}.0.weight")
            if narrow is None:
                narrow = self.w[f"{embeddings}{i + 1}.1.weight"].t()
            words = self.part(f"{at}tail.{i}.2.weight", f"{embeddings}{i + 1}.0.weight")
            tail = torch.log_softmax(x @ narrow.t() @ words.t(), -1)
            parts.append(tail + head[:, bands[0][1] + i, None])
        return torch.cat(parts, 1)

    @torch.no_grad()
    def logits(self, tokens, plan):
        facts = self.facts
        x = self.embed(torch.tensor(tokens)) * facts["scale"]
        x = x + self.positions[facts["offset"]:facts["offset"] + len(tokens)]
        if facts["embedding_norm"]:
            x = self.norm(x, "decoder.layernorm_embedding")
        for index in plan:
            x = self.layer(x, index)
        if facts["final_norm"]:
            x = self.norm(x, "decoder.layer_norm")
        return self.output(x)


class Encoder(Seq2Seq):
    """An encoder alone: features, classes and masked words."""

    def __init__(self, path, dtype=torch.float64):
        self.config, self.dtype = folder.read_config(path), dtype
        stack = self.config["encoder"]
        self.facts = {"encoder": {
            "layers": stack["num_hidden_layers"], "dim": stack["hidden_size"],
            "heads": stack["num_attention_heads"], "activation": stack["activation_function"],
            "pre": stack["norm"] == "pre", "final_norm": stack["final_norm"],
            "embedding_norm": stack["embedding_norm"], "eps": stack["layer_norm_eps"],
            "positions": stack["positions"], "offset": stack["position_offset"],
            "scale": stack["embed_scale"], "context": stack["max_position_embeddings"]}}
        self.w = {name: torch.from_numpy(t).to(dtype)
                  for name, t in folder.read_weights(path).items()}
        self.positions = {"encoder": self.position_table("encoder")}

    def classify(self, features, head):
        at = f"classification_heads.{head['name']}."
        x = self.linear(features[0], at + "dense")
        x = torch.tanh(x) if head["activation"] == "tanh" else activate(head["activation"], x)
        return self.linear(x, at + "out_proj")

    def masked(self, feature):
        """log p of every word at one position."""
        at = "encoder.lm_head."
        x = activate(self.config["mlm_activation"], self.linear(feature, at + "dense"))
        x = self.norm(x, at + "layer_norm", self.facts["encoder"]["eps"])
        words = self.w.get(at + "weight", self.w["encoder.embed_tokens.weight"])
        return torch.log_softmax(x @ words.t() + self.w[at + "bias"], -1)

    @torch.no_grad()
    def answer(self, tokens, plan):
        features = self.encode(tokens, plan)
        case = {"layers": plan, "tokens": tokens, "cls": digits(features[0].tolist()),
                "mean": digits(features.mean(0).tolist()), "logits": {
                    head["name"]: digits(self.classify(features, head).tolist())
                    for head in self.config["classification_heads"]}}
        mask = self.config.get("mask_token_id", -1)
        if self.config["mlm_head"] and mask in tokens:
            case["masks"] = [{"position": at, **top(self.masked(features[at]))}
                             for at, token in enumerate(tokens) if token == mask]
        return case


def top(log_p):
    best = torch.topk(log_p, min(TOP, len(log_p)))
    return {"ids": best.indices.tolist(), "logprobs": digits(best.values.tolist())}


def load(path, dtype=torch.float64):
    family = folder.read_config(path).get("model_type")
    if family == "fathom_encoder":
        return Encoder(path, dtype)
    if family == "fathom_lm":
        return AdaptiveLM(path, dtype)
    raise SystemExit(f"config.json: model_type {family} is not fathom_lm or fathom_encoder")


def layers_of(model):
    return model.facts["encoder"]["layers"] if isinstance(model, Encoder) \
        else model.facts["layers"]


def answer(model, tokens, plan, count):
    """One case of goldens.json."""
    if isinstance(model, Encoder):
        return model.answer(tokens, plan)
    logits = model.logits(tokens, plan)
    return {"layers": plan, "tokens": tokens, "logits_last": digits(logits[-1].tolist()),
            "logprobs": digits(model.log_probabilities(tokens, plan).tolist()),
            "greedy": model.greedy(tokens, plan, count)}


def samples(path):
    """[(text, pair or None, ids)] from the folder's dictionary: its own words, a word that it does
    not have, for an encoder a mask and a pair."""
    with open(os.path.join(path, "dict.txt"), encoding="utf-8") as file:
        words = [line.rsplit(" ", 1)[0] for line in file]
    config, ids = folder.read_config(path), {word: i + 4 for i, word in enumerate(words)}
    chosen = [words[(7 * i * i + 3 * i) % len(words)] for i in range(11)]
    texts = [(" ".join(chosen), None), (" ".join([words[-1], "unheard-of", words[0]]), None)]
    if config["model_type"] == "fathom_encoder":
        texts = [texts[0], (" ".join([*chosen[:3], "<mask>", chosen[4]]), None),
                 (" ".join(chosen[2:6]), " ".join(chosen[5:8]))]

    def encode(text):
        mask = config.get("mask_token_id", 3)
        return [mask if word == "<mask>" else ids.get(word, 3) for word in text.split()]
    if config["model_type"] == "fathom_lm":
        return [(text, None, [config["bos_token_id"], *encode(text)]) for text, _ in texts]
    return [(text, pair, [0, *encode(text), 2] + ([2, *encode(pair), 2] if pair else []))
            for text, pair in texts]


def goldens(model, path):
    """Every depth by the even rule, `ends` at half depth, and an uneven explicit list."""
    n = layers_of(model)
    plans = [even(n, depth) for depth in range(1, n + 1)]
    extra = [ends(n, max(n // 2, 1)), [i for i in range(n) if i % 3 != 1]]
    plans += [plan for plan in extra if plan not in plans]
    found = samples(path)
    return {"texts": [{"text": text, "pair": pair, "tokens": ids} for text, pair, ids in found],
            "cases": [answer(model, ids, plan, 8) for _, _, ids in found for plan in plans]}


def largest(a, b):
    return max(abs(x - y) for x, y in zip(a, b)) if len(a) == len(b) else math.inf


def compare(model, expected):
    """The largest differences from what fairseq computed, case by case."""
    for case in expected["cases"]:
        keep = case.get("encoder_layers_to_keep") or case.get("decoder_layers_to_keep")
        plan = [int(i) for i in keep.split(",")] if keep else list(range(layers_of(model)))
        worst, wrong = {}, 0
        for text in case.get("sequences") or case["outputs"]:
            for name, difference in differences(model, text, plan).items():
                if name == "ids":
                    wrong += difference
                else:
                    worst[name] = max(worst.get(name, 0), difference)
        print(f"{keep or 'all'}: {len(plan)} layers, {wrong} other ids, " + ", ".join(
            f"{name} within {value:.1e}" for name, value in worst.items()))


def differences(model, text, plan):
    if isinstance(model, Encoder):
        found = model.answer(text["input_ids"], plan)
        logits = next(iter(found["logits"].values()))
        return {"cls": largest(found["cls"], text["cls_features"]),
                "mean": largest(found["mean"], text["mean_features"]),
                "logits": largest(logits, text["class_logits"])}
    log_p = torch.log_softmax(model.logits(text["input_ids"], plan), -1)
    targets = torch.tensor(text["target_ids"])[:, None]
    last = top(log_p[-1])
    return {"targets": largest(log_p.gather(1, targets)[:, 0].tolist(), text["target_logprobs"]),
            "top": largest(last["logprobs"], text["last_top10_logprobs"]),
            "ids": int(last["ids"] != text["last_top10_ids"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("folder")
    add("--tokens", default="", help="comma list of ids, taken as they are")
    add("--layers", default="", help="comma list of the layers to run; default: all")
    add("--max-tokens", type=int, default=0, help="greedy tokens to add")
    add("--goldens", default="", help="file to write")
    add("--expected", default="", help="fairseq's own results to compare with")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.folder)
    plan = ([int(i) for i in args.layers.split(",")] if args.layers
            else list(range(layers_of(model))))
    if args.expected:
        with open(args.expected, encoding="utf-8") as file:
            compare(model, json.load(file))
    elif args.goldens:
        with open(args.goldens, "w", encoding="utf-8") as out:
            text = json.dumps(goldens(model, args.folder), separators=(",", ":"))
            out.write(text.replace('{"layers"', '\n{"layers"') + "\n")
    else:
        tokens = [int(i) for i in args.tokens.split(",")]
        print(json.dumps(answer(model, tokens, plan, args.max_tokens)))


if __name__ == "__main__":
    main()
