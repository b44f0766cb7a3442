#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The encoder-decoder in plain PyTorch: what the C engine is checked against.

Reads fathom_seq2seq folders and runs any sub-network of both stacks. There is no cache and no
padding: each answer comes from the whole source and the whole target. Beam search is fairseq's.

    tools/reference_seq2seq.py deploy/demo-translate --text "Wie geht es dir?" --beam 5
    tools/reference_seq2seq.py deploy/demo-translate --encoder-layers 0,4,8 --text "Ja." --beam 1
    tools/reference_seq2seq.py FOLDER --translate test.de --encoder-depth 6 --decoder-depth 3
    tools/reference_seq2seq.py tests/data/tiny-mt-pre --goldens tests/data/tiny-mt-pre/seq2seq.json
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
from reference import activate, digits, even, ends

PAD, END = 1, 2


def facts_of(config):
    """{"encoder": {...}, "decoder": {...}} of a fathom_seq2seq config."""
    if config.get("model_type") != "fathom_seq2seq":
        raise SystemExit(f"config.json: model_type {config.get('model_type')} is not "
                         "fathom_seq2seq")
    facts = {}
    for side in ("encoder", "decoder"):
        stack = config[side]
        facts[side] = {"layers": stack["num_hidden_layers"], "dim": stack["hidden_size"],
                       "heads": stack["num_attention_heads"],
                       "activation": stack["activation_function"], "pre": stack["norm"] == "pre",
                       "final_norm": stack["final_norm"],
                       "embedding_norm": stack["embedding_norm"], "eps": stack["layer_norm_eps"],
                       "positions": stack["positions"], "offset": stack["position_offset"],
                       "scale": stack["embed_scale"], "context": stack.get(
                           "max_position_embeddings", config.get("max_position_embeddings"))}
    return facts


class Seq2Seq:
    """facts: as facts_of gives them; weights: tensors under fairseq's names."""

    def __init__(self, facts, weights, dtype=torch.float64):
        self.facts, self.dtype = facts, dtype
        self.w = {name: value.to(dtype) for name, value in weights.items()}
        if "encoder.embed_tokens.weight" not in self.w:
            self.w["encoder.embed_tokens.weight"] = self.w["decoder.embed_tokens.weight"]
        output = "decoder.output_projection.weight"
        self.output = self.w.get(output, self.w["decoder.embed_tokens.weight"])
        self.positions = {side: self.position_table(side) for side in facts}

    @classmethod
    def from_folder(cls, path, dtype=torch.float64):
        weights = {n: torch.from_numpy(t) for n, t in folder.read_weights(path).items()}
        return cls(facts_of(folder.read_config(path)), weights, dtype)

    def position_table(self, side):
        facts = self.facts[side]
        if facts["positions"] == "learned":
            return self.w[side + ".embed_positions.weight"]
        half = facts["dim"] // 2
        rate = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / (half - 1)))
        rows = torch.arange(facts["context"] + facts["offset"], dtype=torch.float64)
        if facts["positions"] == "none":
            return torch.zeros(len(rows), facts["dim"], dtype=self.dtype)
        angle = rows[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], 1).to(self.dtype)  # fairseq: not interleaved

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].t() + self.w[name + ".bias"]

    def norm(self, x, name, eps):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + eps) * self.w[name + ".weight"] \
            + self.w[name + ".bias"]

    def attention(self, x, memory, name, heads, causal):
        def split(y):
            return y.unflatten(-1, (heads, -1)).transpose(-3, -2)
        q = split(self.linear(x, name + ".q_proj"))
        k, v = (split(self.linear(memory, f"{name}.{part}_proj")) for part in "kv")
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        out = torch.softmax(scores, -1) @ v
        return self.linear(out.transpose(-3, -2).flatten(-2), name + ".out_proj")

    def layer(self, x, side, index, memory):
        facts, at = self.facts[side], f"{side}.layers.{index}."

        def feed_forward(y):
            return self.linear(activate(facts["activation"], self.linear(y, at + "fc1")),
                               at + "fc2")
        parts = [("self_attn_layer_norm", lambda y: self.attention(
            y, y, at + "self_attn", facts["heads"], side == "decoder"))]
        if side == "decoder":
            parts.append(("encoder_attn_layer_norm", lambda y: self.attention(
                y, memory, at + "encoder_attn", facts["heads"], False)))
        parts.append(("final_layer_norm", feed_forward))
        for name, part in parts:
            if facts["pre"]:
                x = x + part(self.norm(x, at + name, facts["eps"]))
            else:
                x = self.norm(x + part(x), at + name, facts["eps"])
        return x

    def stack(self, tokens, side, plan, memory=None):
        """[..., tokens, width]; a layer outside the plan is the identity."""
        facts, length = self.facts[side], tokens.shape[-1]
        if length > facts["context"]:
            raise SystemExit(f"{length} tokens are more than the {side}'s {facts['context']}")
        x = self.w[side + ".embed_tokens.weight"][tokens] * facts["scale"]
        x = x + self.positions[side][facts["offset"]:facts["offset"] + length]
        if facts["embedding_norm"]:
            x = self.norm(x, side + ".layernorm_embedding", facts["eps"])
        for index in plan:
            x = self.layer(x, side, index, memory)
        return self.norm(x, side + ".layer_norm", facts["eps"]) if facts["final_norm"] else x

    @torch.no_grad()
    def encode(self, source, plan):
        """[source, width]; source ends with </s>."""
        return self.stack(torch.tensor(source), "encoder", plan)

    @torch.no_grad()
    def log_p(self, prefixes, memory, plan):
        """[prefixes, vocabulary]: log p of what follows each of the prefixes, all equally long."""
        x = self.stack(torch.tensor(prefixes), "decoder", plan, memory)
        return torch.log_softmax(x[:, -1] @ self.output.t(), -1)

    @torch.no_grad()
    def log_probabilities(self, source, target, plans):
        """log p of each of target's tokens; it ends with </s>."""
        memory = self.encode(source, plans[0])
        x = self.stack(torch.tensor([END] + target[:-1]), "decoder", plans[1], memory)
        log_p = torch.log_softmax(x @ self.output.t(), -1)
        return log_p.gather(1, torch.tensor(target)[:, None])[:, 0]

    def greedy(self, source, plans, max_len):
        """The most probable next token until </s>, which is forced after max_len tokens."""
        memory, tokens = self.encode(source, plans[0]), [END]
        while len(tokens) <= max_len and (len(tokens) == 1 or tokens[-1] != END):
            log_p = self.log_p([tokens], memory, plans[1])[0]
            log_p[PAD] = -math.inf
            log_p[END] = -math.inf if len(tokens) == 1 else log_p[END]
            tokens.append(int(log_p.argmax()))
        return tokens[1:] if tokens[-1] == END and len(tokens) > 1 else tokens[1:] + [END]

    def beam(self, source, plans, beam, lenpen, max_len, min_len=1):
        """fairseq's search: hypotheses as (score, ids, log p of each id), best first."""
        memory = self.encode(source, plans[0])
        alive, finished = [((), ())], []  # (ids, log p of each)
        for step in range(max_len + 1):
            log_p = self.log_p([[END, *ids] for ids, _ in alive], memory, plans[1])
            log_p[torch.isnan(log_p)] = -math.inf
            log_p[:, PAD] = -math.inf
            if step >= max_len:
                end = log_p[:, END].clone()
                log_p[:] = -math.inf
                log_p[:, END] = end
            elif step < min_len:
                log_p[:, END] = -math.inf
            sums = torch.tensor([sum(scores) for _, scores in alive], dtype=self.dtype)
            total = (sums[:, None] + log_p).flatten()
            best = torch.sort(total, descending=True, stable=True)
            going = []
            for rank in range(min(2 * beam, len(total) - 1)):
                score, at = float(best.values[rank]), int(best.indices[rank])
                row, token = divmod(at, log_p.shape[1])
                ids, scores = alive[row]
                grown = ids + (token,), scores + (float(log_p[row, token]),)
                if token == END and score != -math.inf:
                    if rank < beam and len(finished) < beam:
                        finished.append((score / (step + 1) ** lenpen, *map(list, grown)))
                elif len(going) < beam:
                    going.append(grown)
            if len(finished) == beam:
                break
            alive = going
        return sorted(finished, key=lambda found: -found[0])


def prune(source, plans, out):
    """Write a folder that holds only the plans' layers, renumbered."""
    config, kept = folder.read_config(source), {}
    place = {side: {old: new for new, old in enumerate(plan)}
             for side, plan in zip(("encoder", "decoder"), plans)}
    for name, value in folder.read_weights(source).items():
        parts = name.split(".")
        if parts[1] == "layers":
            if int(parts[2]) not in place[parts[0]]:
                continue
            parts[2] = str(place[parts[0]][int(parts[2])])
        kept[".".join(parts)] = value
    for side in place:
        config[side]["num_hidden_layers"] = len(place[side])
    os.makedirs(out, exist_ok=True)
    folder.write_json(config, os.path.join(out, "config.json"))
    dtype = {"float16": "F16", "bfloat16": "BF16"}.get(config.get("torch_dtype"), "F32")
    folder.write_weights(out, kept, dtype)
    folder.copy_tokenizer(source, out)


def answer(model, source, target, plans, max_len):
    """One case of seq2seq.json."""
    encoded = model.encode(source, plans[0])[-1]
    case = {"encoder_layers": plans[0], "decoder_layers": plans[1], "source": source,
            "target": target, "max_len": max_len, "encoder_last": digits(encoded.tolist()[:8]),
            "logprobs": digits(model.log_probabilities(source, target, plans).tolist()),
            "greedy": model.greedy(source, plans, max_len), "beams": []}
    for lenpen in (1.0, 0.4):
        found = model.beam(source, plans, 4, lenpen, max_len)
        case["beams"].append({"beam": 4, "lenpen": lenpen, "hypotheses": [
            {"ids": ids, "score": float(f"{score:.9g}")} for score, ids, _ in found]})
    return case


def goldens(model, vocab):
    """Six pairs of depths and lists, each with four sources; targets are taken from the sources."""
    layers = [model.facts[side]["layers"] for side in ("encoder", "decoder")]
    full, half, one = ([even(n, max(n // part, 1) if part else 1) for n in layers]
                       for part in (1, 2, 0))
    plans = [full, half, [half[0], full[1]], [full[0], half[1]], one,
             [ends(layers[0], max(layers[0] - 1, 1)), list(range(max(layers[1] - 1, 1)))]]
    sources = [[4 + (37 * i * i + 11 * i + n) % (vocab - 4) for i in range(n)] + [END]
               for n in (6, 1, 17, 30)]
    cases = [answer(model, source, source[::-1][1:8] + [END], pair, 14)
             for pair in plans for source in sources]
    return {"cases": cases}


def encode(path, text):
    """Ids of a source text: no start symbol, </s> at the end."""
    return bpe.Tokenizer(path).encode(text) + [END]


def plan_of(args, side, layers):
    chosen = getattr(args, side + "_layers")
    if chosen:
        return [int(i) for i in chosen.split(",")]
    return even(layers, getattr(args, side + "_depth") or layers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("folder")
    add("--text", default="", help="source text")
    add("--tokens", default="", help="comma list of source ids instead, with the closing 2")
    add("--translate", default="", help="file of sources, one a line; prints one translation each")
    for side in ("encoder", "decoder"):
        add(f"--{side}-layers", default="", help="comma list of the layers to run")
        add(f"--{side}-depth", type=int, help="how many to run, by the even rule; default: all")
    add("--prune-to", default="", help="folder to write with the chosen layers only")
    add("--beam", type=int, default=5)
    add("--lenpen", type=float, default=1.0)
    add("--max-len-a", type=float, default=1.0, help="most tokens: a * source + b, then </s>")
    add("--max-len-b", type=int, default=50)
    add("--dtype", choices=["f32", "f64"], default="f64")
    add("--goldens", default="", help="file to write")
    args = parser.parse_args()
    model = Seq2Seq.from_folder(args.folder,
                                torch.float32 if args.dtype == "f32" else torch.float64)
    plans = [plan_of(args, side, model.facts[side]["layers"]) for side in ("encoder", "decoder")]

    def search(source):
        most = min(int(args.max_len_a * len(source) + args.max_len_b),
                   model.facts["decoder"]["context"] - 1)
        return model.beam(source, plans, args.beam, args.lenpen, most)
    if args.prune_to:
        prune(args.folder, plans, args.prune_to)
        return
    if args.goldens:
        with open(args.goldens, "w", encoding="utf-8") as out:
            text = json.dumps(goldens(model, len(model.output)))
            out.write(text.replace('{"encoder_layers"', '\n{"encoder_layers"') + "\n")
        return
    tokenizer = bpe.Tokenizer(args.folder)
    if args.translate:
        with open(args.translate, encoding="utf-8") as lines:
            for line in lines:
                best = search(tokenizer.encode(line.rstrip("\n")) + [END])[0]
                print(tokenizer.decode(best[1][:-1]), flush=True)
        return
    source = ([int(i) for i in args.tokens.split(",")] if args.tokens
              else encode(args.folder, args.text))
    for score, ids, scores in search(source):
        print(json.dumps({"score": score, "ids": ids, "positional_scores": digits(scores),
                          "text": tokenizer.decode(ids[:-1])}, ensure_ascii=False))


if __name__ == "__main__":
    main()
