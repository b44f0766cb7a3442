#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a GPT-2 model folder as a GGUF file, the format of llama.cpp: header, metadata, table of tensors, data.

    bench/peers/gguf.py FOLDER model.gguf [--depth 12] [--dtype f32|bf16]

--depth keeps that many layers by the even rule, as a pruned model. Quantised files are made of such a file by the peer's own
llama-quantize. Needs numpy only.
"""
import argparse
import json
import os
import struct

import weights

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9  # types of metadata values
TYPES = {"F32": 0, "BF16": 30}
NORMAL, CONTROL = 1, 3  # kinds of tokens


def text(value):
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def encoded(kind, value):
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        of, values = value
        return struct.pack("<IQ", of, len(values)) + b"".join(encoded(of, v) for v in values)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f"}[kind], value)


def vocabulary(path, facts):
    """Metadata of a byte-level BPE: tokens in the order of their ids, and merges."""
    with open(os.path.join(path, "vocab.json"), encoding="utf-8") as file:
        ids = json.load(file)
    tokens = [f"<unused{i}>" for i in range(facts["vocab"])]
    for token, i in ids.items():
        tokens[i] = token
    with open(os.path.join(path, "merges.txt"), encoding="utf-8") as file:
        merges = [line for line in file.read().split("\n") if line and not line.startswith("#version")]
    kinds = [CONTROL if t.startswith("<") and t.endswith(">") and len(t) > 2 else NORMAL for t in tokens]
    return [("tokenizer.ggml.model", STRING, "gpt2"), ("tokenizer.ggml.pre", STRING, "gpt-2"),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
            ("tokenizer.ggml.token_type", ARRAY, (INT32, kinds)),
            ("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
            ("tokenizer.ggml.bos_token_id", UINT32, facts["eos"]),
            ("tokenizer.ggml.eos_token_id", UINT32, facts["eos"])]


def metadata(facts, name, dtype):
    return [("general.architecture", STRING, "gpt2"), ("general.name", STRING, name),
            ("general.file_type", UINT32, {"F32": 0, "BF16": 32}[dtype]),
            ("gpt2.block_count", UINT32, facts["layers"]),
            ("gpt2.context_length", UINT32, facts["context"]),
            ("gpt2.embedding_length", UINT32, facts["dim"]),
            ("gpt2.feed_forward_length", UINT32, facts["ffn"]),
            ("gpt2.attention.head_count", UINT32, facts["heads"]),
            ("gpt2.attention.layer_norm_epsilon", FLOAT32, facts["eps"])]


def named(model):
    """(name of llama.cpp, array [out, in]) of every tensor; the output matrix is there even if tied."""
    yield "token_embd.weight", model["embedding"]
    yield "position_embd.weight", model["positions"]
    yield "output.weight", model["output"]
    yield "output_norm.weight", model["final_norm"][0]
    yield "output_norm.bias", model["final_norm"][1]
    parts = {"attn_norm": "norm1", "attn_qkv": "qkv", "attn_output": "out", "ffn_norm": "norm2", "ffn_up": "up",
             "ffn_down": "down"}
    for i, layer in enumerate(model["layers"]):
        for theirs, ours in parts.items():
            yield f"blk.{i}.{theirs}.weight", layer[ours][0]
            yield f"blk.{i}.{theirs}.bias", layer[ours][1]


def padding(size):
    return b"\0" * (-size % ALIGNMENT)


def write(path, values, tensors, dtype):
    """values: (key, type, value); tensors: (name, float32 array). Matrices are kept as dtype, vectors as F32."""
    table, offset = [], 0
    for name, array in tensors:
        kind = dtype if array.ndim > 1 and not name.startswith("position") else "F32"
        size = array.size * weights.SIZE[kind]
        table.append((name, array, kind, offset))
        offset += size + len(padding(size))
    head = bytearray(MAGIC + struct.pack("<IQQ", VERSION, len(table), len(values)))
    for key, kind, value in values:
        head += text(key) + struct.pack("<I", kind) + encoded(kind, value)
    for name, array, kind, at in table:
        shape = array.shape[::-1]  # the fastest dimension first
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, TYPES[kind], at)
    with open(path, "wb") as file:
        file.write(head + padding(len(head)))
        for _, array, kind, _ in table:
            data = weights.to_bytes(array, kind)
            file.write(data)
            file.write(padding(len(data)))


def convert(source, path, depth=0, dtype="F32"):
    model = weights.read(source, depth)
    facts = model["facts"]
    if facts["kind"] != "gpt2":
        raise SystemExit("gguf: only GPT-2 folders can be written for llama.cpp")
    write(path, metadata(facts, f"{os.path.basename(os.path.normpath(source))}-{facts['layers']}", dtype)
          + vocabulary(source, facts), list(named(model)), dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--depth", type=int, default=0, help="layers kept (0: all)")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    args = parser.parse_args()
    convert(args.folder, args.out, args.depth, args.dtype.upper())


if __name__ == "__main__":
    main()
