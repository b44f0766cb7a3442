#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a model folder as ONNX for ONNX Runtime: a decoder with its cache, or an encoder.

    bench/peers/onnx_model.py FOLDER model.onnx [--graph plain|fused|attention] [--weights f32|int8|int4]

plain     ONNX's own operators only; ONNX Runtime fuses what it recognises
fused     ONNX Runtime's operators for transformers: MultiHeadAttention, SkipLayerNormalization, BiasGelu or FastGelu
attention the same with Attention, which projects by itself (QAttention at int8)
int8      dynamic quantisation as onnxruntime.quantization.quantize_dynamic writes it: weights symmetric in 8 bits per channel,
          activations by DynamicQuantizeLinear, MatMulInteger
int4      MatMulNBits: blocks of 32 inputs, products in 8 bits (accuracy_level 4)
"""
import argparse

import weights

import numpy as np

from onnx_file import FLOAT, INT64, Graph

MICROSOFT = "com.microsoft"
BLOCK = 32  # inputs that share a scale at int4


def int8_of(matrix):
    """[n_in, n_out] to int8 and a scale per column."""
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-30) / np.float32(127)
    return np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def int4_of(matrix):
    """[n_in, n_out] to MatMulNBits' bytes [n_out, blocks, BLOCK / 2] and scales [n_out * blocks]; zero is 8."""
    blocks = matrix.T.reshape(matrix.shape[1], -1, BLOCK)
    at = np.abs(blocks).argmax(axis=2, keepdims=True)
    scale = np.take_along_axis(blocks, at, axis=2) / np.float32(-8)
    scale[scale == 0] = 1e-30
    codes = np.clip(np.rint(blocks / scale) + 8, 0, 15).astype(np.uint8)
    return codes[:, :, 0::2] | codes[:, :, 1::2] << 4, scale.astype(np.float32).reshape(-1)


class Writer:
    """Parts of a transformer as nodes of a graph."""

    def __init__(self, model, graph, kind, precision):
        self.model, self.facts, self.g = model, model["facts"], graph
        self.kind, self.precision = kind, precision
        self.head_size = self.facts["dim"] // self.facts["heads"]

    def vector(self, array):
        return self.g.tensor(array.astype(np.float32), "v")

    def ints(self, *values):
        return self.g.tensor(np.array(values, np.int64), "i")

    def linear(self, x, matrix, bias=None):
        """matrix [out, in]"""
        g, w = self.g, np.ascontiguousarray(matrix.T)
        if self.precision == "int4":
            codes, scale = int4_of(w)
            y = g.node("MatMulNBits", [x, g.tensor(codes), g.tensor(scale)], domain=MICROSOFT, K=w.shape[0], N=w.shape[1],
                       bits=4, block_size=BLOCK, accuracy_level=4)
        elif self.precision == "int8":
            codes, scale = int8_of(w)
            xq, xs, xz = g.node("DynamicQuantizeLinear", [x], 3)
            zero = g.tensor(np.zeros(w.shape[1], np.int8))
            sums = g.node("Cast", [g.node("MatMulInteger", [xq, g.tensor(codes), xz, zero])], to=FLOAT)
            y = g.node("Mul", [sums, g.node("Mul", [xs, g.tensor(scale)])])
        else:
            y = g.node("MatMul", [x, g.tensor(w)])
        return y if bias is None else g.node("Add", [y, self.vector(bias)])

    def norm(self, x, pair):
        gain, bias = pair
        return self.g.node("LayerNormalization", [x, self.vector(gain), self.vector(bias)], axis=-1, epsilon=self.facts["eps"])

    def add_norm(self, x, skip, pair):
        """(norm(x + skip), x + skip)"""
        if self.kind == "plain":
            total = self.g.node("Add", [x, skip])
            return self.norm(total, pair), total
        gain, bias = pair
        names = [self.g.fresh("skip"), "", "", self.g.fresh("sum")]
        self.g.node("SkipLayerNormalization", [x, skip, self.vector(gain), self.vector(bias)], names, MICROSOFT,
                    epsilon=self.facts["eps"])
        return names[0], names[3]

    def activation(self, x, matrix, bias):
        kind, g = self.facts["activation"], self.g
        if kind == "relu":
            return g.node("Relu", [self.linear(x, matrix, bias)])
        if self.kind != "plain":
            op = "FastGelu" if kind == "gelu_tanh" else "BiasGelu"
            return g.node(op, [self.linear(x, matrix), self.vector(bias)], domain=MICROSOFT)
        y = self.linear(x, matrix, bias)
        half, one = self.scalar(0.5), self.scalar(1)
        if kind == "gelu_tanh":
            cube = g.node("Mul", [g.node("Pow", [y, self.scalar(3)]), self.scalar(0.044715)])
            inner = g.node("Mul", [g.node("Add", [y, cube]), self.scalar(np.sqrt(2 / np.pi))])
            return g.node("Mul", [g.node("Mul", [y, half]), g.node("Add", [g.node("Tanh", [inner]), one])])
        erf = g.node("Erf", [g.node("Div", [y, self.scalar(np.sqrt(2))])])
        return g.node("Mul", [g.node("Mul", [y, g.node("Add", [erf, one])]), half])

    def scalar(self, value):
        return self.g.tensor(np.array(value, np.float32), "c")

    def split_heads(self, x):
        shaped = self.g.node("Reshape", [x, self.ints(0, 0, self.facts["heads"], self.head_size)])
        return self.g.node("Transpose", [shaped], perm=[0, 2, 1, 3])

    def plain_attention(self, x, layer, past, mask):
        g, d = self.g, self.facts["dim"]
        q, k, v = g.node("Split", [self.linear(x, *layer["qkv"]), self.ints(d, d, d)], 3, axis=-1)
        q, k, v = (self.split_heads(part) for part in (q, k, v))
        if past:
            k = g.node("Concat", [past[0], k], [past[2]], axis=2)
            v = g.node("Concat", [past[1], v], [past[3]], axis=2)
        scores = g.node("MatMul", [q, g.node("Transpose", [k], perm=[0, 1, 3, 2])])
        scores = g.node("Div", [scores, self.scalar(np.sqrt(self.head_size))])
        if mask:
            scores = g.node("Add", [scores, mask])
        mixed = g.node("MatMul", [g.node("Softmax", [scores], axis=-1), v])
        mixed = g.node("Transpose", [mixed], perm=[0, 2, 1, 3])
        return g.node("Reshape", [mixed, self.ints(0, 0, d)])

    def fused_attention(self, x, layer, past):
        g, facts, (matrix, bias) = self.g, self.facts, layer["qkv"]
        d = facts["dim"]
        if self.kind == "fused":
            q, k, v = g.node("Split", [self.linear(x, matrix), self.ints(d, d, d)], 3, axis=-1)
            inputs = [q, k, v, self.vector(bias)] + (["", "", past[0], past[1]] if past else [])
            names = [g.fresh("attention"), *(past[2:] if past else [])]
            g.node("MultiHeadAttention", inputs, names, MICROSOFT, num_heads=facts["heads"], unidirectional=int(bool(past)))
            return names[0]
        names = [g.fresh("attention")] + ([past[1]] if past else [])
        last = [past[0]] if past else []
        shape = {"num_heads": facts["heads"], "unidirectional": int(bool(past))}
        if self.precision == "int8":
            codes, scale = int8_of(np.ascontiguousarray(matrix.T))
            xq, xs, xz = g.node("DynamicQuantizeLinear", [x], 3)
            zero = g.tensor(np.zeros(3 * d, np.int8))
            g.node("QAttention", [xq, g.tensor(codes), self.vector(bias), xs, g.tensor(scale), "", xz, zero, *last], names,
                   MICROSOFT, **shape)
        else:
            inputs = [x, g.tensor(np.ascontiguousarray(matrix.T)), self.vector(bias)] + (["", *last] if last else [])
            g.node("Attention", inputs, names, MICROSOFT, **shape)
        return names[0]

    def attention(self, x, layer, past=None, mask=None):
        mixed = self.plain_attention(x, layer, past, mask) if self.kind == "plain" else self.fused_attention(x, layer, past)
        return self.linear(mixed, *layer["out"])

    def feed_forward(self, x, layer):
        return self.linear(self.activation(x, *layer["up"]), *layer["down"])

    def embedded(self, ids, positions):
        rows = self.g.node("Gather", [self.vector(self.model["embedding"]), ids])
        places = self.g.node("Gather", [self.vector(self.model["positions"]), positions])
        return self.g.node("Add", [rows, places])

    def past(self, i):
        """Names of the cached keys and values of a layer before and after: a pair each, or one tensor each for Attention."""
        shape = [2] if self.kind == "attention" else []
        names = ["past"] if shape else ["past_key", "past_value"]
        found = [f"{name}_{i}" for name in names] + [f"{name.replace('past', 'present')}_{i}" for name in names]
        for j, name in enumerate(found):
            dims = [*shape, "batch", self.facts["heads"], "past" if j < len(names) else "total", self.head_size]
            (self.g.input if j < len(names) else self.g.output)(name, FLOAT, dims)
        return found

    def decoder(self):
        """Logits of the last token of each text."""
        g, facts = self.g, self.facts
        ids, positions = (g.input(name, INT64, ["batch", "length"]) for name in ("ids", "positions"))
        mask = g.input("mask", FLOAT, [1, 1, "length", "total"]) if self.kind == "plain" else None
        skip, branch = self.embedded(ids, positions), None
        for i, layer in enumerate(self.model["layers"]):
            x, skip = (self.norm(skip, layer["norm1"]), skip) if branch is None else self.add_norm(branch, skip, layer["norm1"])
            x, skip = self.add_norm(self.attention(x, layer, self.past(i), mask), skip, layer["norm2"])
            branch = self.feed_forward(x, layer)
        x, _ = self.add_norm(branch, skip, self.model["final_norm"])
        last = g.node("Slice", [x, self.ints(-1), self.ints(1 << 40), self.ints(1)])
        logits = self.linear(last, self.model["output"])
        g.node("Identity", [logits], ["logits"])
        g.output("logits", FLOAT, ["batch", 1, facts["vocab"]])

    def encoder(self):
        """Hidden states of every token."""
        g, model = self.g, self.model
        ids, positions = (g.input(name, INT64, ["batch", "length"]) for name in ("ids", "positions"))
        x = self.embedded(ids, positions)
        if model["embedding_norm"]:
            x = self.norm(x, model["embedding_norm"])
        for layer in model["layers"]:
            x, _ = self.add_norm(self.attention(x, layer), x, layer["norm1"])
            x, _ = self.add_norm(self.feed_forward(x, layer), x, layer["norm2"])
        g.node("Identity", [x], ["hidden"])
        g.output("hidden", FLOAT, ["batch", "length", self.facts["dim"]])


def convert(source, path, kind, precision, depth=0):
    model, graph = weights.read(source, depth), Graph("model")
    writer = Writer(model, graph, kind, precision)
    if model["facts"]["kind"] == "roberta":
        writer.encoder()
    else:
        writer.decoder()
    graph.write(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--graph", choices=["plain", "fused", "attention"], default="plain")
    parser.add_argument("--weights", choices=["f32", "int8", "int4"], default="f32")
    parser.add_argument("--depth", type=int, default=0, help="layers kept (0: all)")
    args = parser.parse_args()
    convert(args.folder, args.out, args.graph, args.weights, args.depth)


if __name__ == "__main__":
    main()
