# SPDX-License-Identifier: Apache-2.0
"""Model folders in the Hugging Face layout: config.json and safetensors, with numpy alone.

Tensors are numpy arrays of float32; the file's dtype ("F32", "F16", "BF16") is chosen on writing
and forgotten on reading.
"""
import json
import os
import shutil

import numpy as np

TOKENIZER_FILES = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]
SIZE = {"F32": 4, "F16": 2, "BF16": 2}


def to_bytes(array, dtype):
    array = np.ascontiguousarray(array, dtype=np.float32)
    if dtype == "F32":
        return array.astype("<f4").tobytes()
    if dtype == "F16":
        return array.astype("<f2").tobytes()
    bits = array.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded.astype("<u2").tobytes()


def from_bytes(data, dtype, shape):
    if dtype == "F32":
        return np.frombuffer(data, "<f4").reshape(shape).copy()
    if dtype == "F16":
        return np.frombuffer(data, "<f2").astype(np.float32).reshape(shape)
    if dtype == "BF16":
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(shape)
    raise ValueError(f"dtype {dtype} is not one of F32, F16, BF16")


def write_safetensors(path, shapes, dtype, produce):
    """Write the tensors of shapes (name -> shape) in name order; produce(name) gives each one."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(shapes):
        size = int(np.prod(shapes[name], dtype=np.int64)) * SIZE[dtype]
        header[name] = {"dtype": dtype, "shape": list(shapes[name]),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(shapes):
            data = to_bytes(produce(name), dtype)
            begin, end = header[name]["data_offsets"]
            if len(data) != end - begin:
                raise ValueError(f"tensor {name} does not have the shape {shapes[name]}")
            out.write(data)


def read_safetensors(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            tensors[name] = from_bytes(file.read(end - begin), entry["dtype"], entry["shape"])
    return tensors


def write_json(value, path):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def read_config(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        return json.load(file)


def read_weights(folder):
    """Every tensor of the folder, from one file or from the shards that the index names."""
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_safetensors(os.path.join(folder, "model.safetensors"))
    with open(index, encoding="utf-8") as file:
        names = sorted(set(json.load(file)["weight_map"].values()))
    tensors = {}
    for name in names:
        tensors.update(read_safetensors(os.path.join(folder, name)))
    return tensors


def write_weights(folder, tensors, dtype):
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_safetensors(os.path.join(folder, "model.safetensors"), shapes, dtype, tensors.get)


def copy_tokenizer(source, folder):
    for name in TOKENIZER_FILES:
        if os.path.exists(os.path.join(source, name)):
            shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))


def even_plan(layers, depth):
    """The layers that the even rule keeps: floor(i * layers / depth)."""
    return [i * layers // depth for i in range(depth)]
