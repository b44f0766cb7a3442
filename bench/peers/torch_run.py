#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A model folder in PyTorch, with cached keys and values. Reads one JSON object a line and answers with one a line, as onnx_run.js:

  {"what": "prefill", "tokens": 128}                          -> {"seconds": of the whole prompt}
  {"what": "decode", "batch": 16, "context": 32, "turns": 8}  -> {"seconds": of one step}
  {"what": "encode", "batch": 8, "tokens": 128}               -> {"seconds": of one run}
  {"what": "check", "ids": [...], "from": 5}                  -> {"tokens": best after ids[:5], ids[:6], ..., "gaps": to the second}
  {"what": "logits", "ids": [...]}                            -> {"logits": of the last token}
  {"what": "hidden", "ids": [...]}                            -> {"hidden": of all tokens, one after another}

Usage: torch_run.py FOLDER f32|bf16 THREADS [DEPTH]
"""
import json
import sys
import time

import weights  # finds a Python that has numpy

import packages

packages.need("torch")

import torch
import torch.nn.functional as F


def tensor(array, dtype):
    return torch.tensor(array).to(dtype)


class Model:
    def __init__(self, model, dtype):
        self.facts, self.is_decoder = model["facts"], model["facts"]["kind"] != "roberta"

        def of(value):
            if value is None:
                return None
            return tuple(tensor(part, dtype) for part in value) if isinstance(value, tuple) else tensor(value, dtype)

        self.embedding, self.places = of(model["embedding"]), of(model["positions"])
        self.output = self.embedding if model["output"] is model["embedding"] else of(model["output"])
        self.final_norm, self.first_norm = of(model["final_norm"]), of(model["embedding_norm"])
        self.layers = [{name: of(value) for name, value in layer.items()} for layer in model["layers"]]

    def norm(self, x, pair):
        return F.layer_norm(x, (self.facts["dim"],), *pair, self.facts["eps"])

    def attention(self, x, layer, cache, past):
        batch, length, d = x.shape
        heads = self.facts["heads"]
        q, k, v = (part.view(batch, length, heads, d // heads).transpose(1, 2)
                   for part in F.linear(x, *layer["qkv"]).split(d, dim=-1))
        if cache is not None:
            keys, values = cache
            keys[:, :, past:past + length], values[:, :, past:past + length] = k, v
            k, v = keys[:, :, :past + length], values[:, :, :past + length]
        scores = q @ k.transpose(2, 3) * (d // heads) ** -0.5
        if self.is_decoder and length > 1:
            scores = scores + torch.full((length, past + length), float("-inf"), dtype=x.dtype).triu(past + 1)
        mixed = torch.softmax(scores, dim=-1) @ v
        return F.linear(mixed.transpose(1, 2).reshape(batch, length, d), *layer["out"])

    def activation(self, x):
        kind = self.facts["activation"]
        return F.relu(x) if kind == "relu" else F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")

    def feed_forward(self, x, layer):
        return F.linear(self.activation(F.linear(x, *layer["up"])), *layer["down"])

    def hidden(self, ids, caches=None, past=0):
        x = self.embedding[ids] + self.places[past:past + ids.shape[1]]
        x = self.norm(x, self.first_norm) if self.first_norm else x
        for i, layer in enumerate(self.layers):
            cache = caches[i] if caches else None
            if self.is_decoder:
                x = x + self.attention(self.norm(x, layer["norm1"]), layer, cache, past)
                x = x + self.feed_forward(self.norm(x, layer["norm2"]), layer)
            else:
                x = self.norm(x + self.attention(x, layer, cache, past), layer["norm1"])
                x = self.norm(x + self.feed_forward(x, layer), layer["norm2"])
        return self.norm(x, self.final_norm) if self.final_norm else x

    def caches(self, batch, length):
        shape = (batch, self.facts["heads"], length, self.facts["dim"] // self.facts["heads"])
        return [tuple(torch.zeros(shape, dtype=self.embedding.dtype) for _ in range(2)) for _ in self.layers]

    def logits(self, hidden):
        return F.linear(hidden, self.output)


def tokens(model, n, batch=1):
    return (torch.arange(n) * 7919 % model.facts["vocab"]).repeat(batch, 1)


def decode(model, batch, context, turns):
    caches = model.caches(batch, context + turns + 1)
    model.hidden(tokens(model, context, batch), caches)
    start = 0
    for i in range(turns + 1):
        start = time.perf_counter() if i == 1 else start
        token = torch.full((batch, 1), (context + i) * 7919 % model.facts["vocab"])
        model.logits(model.hidden(token, caches, context + i)[:, -1])
    return {"seconds": (time.perf_counter() - start) / turns}


def check(model, ids, first):
    best = model.logits(model.hidden(torch.tensor([ids]))[0, first - 1:]).float().topk(2)
    return {"tokens": best.indices[:, 0].tolist(), "gaps": (best.values[:, 0] - best.values[:, 1]).tolist()}


def answer(model, command):
    what = command["what"]
    if what == "decode":
        return decode(model, command["batch"], command["context"], command["turns"])
    if what == "check":
        return check(model, command["ids"], command["from"])
    if "ids" in command:
        hidden = model.hidden(torch.tensor([command["ids"]]))[0]
        return {what: (model.logits(hidden[-1]) if what == "logits" else hidden.reshape(-1)).tolist()}
    ids = tokens(model, command["tokens"], command.get("batch", 1))
    start = time.perf_counter()
    hidden = model.hidden(ids, model.caches(1, command["tokens"]) if model.is_decoder else None)
    if what == "prefill":
        model.logits(hidden[:, -1])
    return {"seconds": time.perf_counter() - start}


@torch.no_grad()
def main():
    path, dtype, threads = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    depth = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    model = Model(weights.read(path, depth), {"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    print(json.dumps({"ready": True, "version": torch.__version__}), flush=True)
    for line in sys.stdin:
        try:
            reply = answer(model, json.loads(line))
        except RuntimeError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
