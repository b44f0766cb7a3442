#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a safetensors folder of a Hugging Face folder that ships only pytorch_model.bin.

    tools/convert_hf.py opus-mt-de-en --out opus-mt-de-en-safetensors

Reads one pytorch_model.bin, or the shards that pytorch_model.bin.index.json names, without running
the pickle; tied tensors are stored once, integer buffers are left out, other small files are
copied. Whether the engine can run the result is for `fathom inspect` to say.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

if __name__ == "__main__":
    import packages
    packages.need("numpy")

import fairseq_tensors
import folder
import unpickle
from unpickle import Refused, Tensor

INDEX = "pytorch_model.bin.index.json"
LEFT = (".bin", ".h5", ".msgpack", ".ot", ".onnx", ".pt", ".pth", ".ckpt", ".tflite", ".gguf",
        ".safetensors", ".bin.index.json")


def shards(path):
    """The checkpoint's files."""
    index = os.path.join(path, INDEX)
    if os.path.isfile(index):
        try:
            with open(index, encoding="utf-8") as file:
                names = sorted(set(json.load(file)["weight_map"].values()))
            wrong = [n for n in names if not isinstance(n, str) or os.path.basename(n) != n]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refused(f"{INDEX} is no index of shards") from None
        if wrong or not names:
            raise Refused(f"{INDEX} names a file outside the folder")
        return [os.path.join(path, name) for name in names]
    if os.path.isfile(os.path.join(path, "pytorch_model.bin")):
        return [os.path.join(path, "pytorch_model.bin")]
    if any(name.endswith(".safetensors") for name in os.listdir(path)):
        raise Refused("the folder has safetensors already: it needs no conversion")
    raise Refused("the folder has no pytorch_model.bin")


def read(path):
    """Every floating tensor by name, each of several tied ones once."""
    tensors, seen = {}, set()
    for shard in shards(path):
        try:
            state = unpickle.load(shard)
        except Refused as error:
            raise Refused(f"{os.path.basename(shard)}: {error}") from None
        if not isinstance(state, dict) or not state:
            raise Refused(f"{os.path.basename(shard)} holds no tensors")
        for name, value in state.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise Refused(f"{os.path.basename(shard)} has {name!r}, which is no tensor")
            if name in tensors:
                raise Refused(f"the tensor {name} is there twice")
            if value.dtype in fairseq_tensors.FLOATS and value.key() not in seen:
                seen.add(value.key())
                tensors[name] = value
    if not tensors:
        raise Refused("the checkpoint holds no weights")
    return tensors


def convert(path, out, dtype):
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise Refused(f"{out} exists already")
    if not os.path.isfile(os.path.join(path, "config.json")):
        raise Refused("the folder has no config.json: it is no model folder")
    tensors = read(path)
    dtype = dtype.upper() if dtype else fairseq_tensors.common_dtype(tensors)
    parent = os.path.dirname(os.path.abspath(out))
    os.makedirs(parent, exist_ok=True)
    work = tempfile.mkdtemp(prefix=".converting-", dir=parent)
    try:
        folder.write_safetensors(os.path.join(work, "model.safetensors"),
                                 {name: tensor.shape for name, tensor in tensors.items()}, dtype,
                                 lambda name: tensors[name].array())
        for name in sorted(os.listdir(path)):
            source = os.path.join(path, name)
            if os.path.isfile(source) and not name.startswith(".") and not name.endswith(LEFT):
                shutil.copyfile(source, os.path.join(work, name))
        os.chmod(work, 0o755)
        if os.path.isdir(out):
            os.rmdir(out)
        os.rename(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    print(f"{out}: {len(tensors)} tensors, {dtype}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    parser.add_argument("folder")
    parser.add_argument("--out", required=True, help="the folder to make")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"],
                        help="default: the checkpoint's own")
    args = parser.parse_args()
    try:
        if not os.path.isdir(args.folder):
            raise Refused("there is no such folder")
        convert(args.folder, args.out, args.dtype)
    except (Refused, OSError) as error:
        detail = error if isinstance(error, Refused) else error.strerror or error
        sys.exit(f"{args.folder}: {detail}")


if __name__ == "__main__":
    main()
