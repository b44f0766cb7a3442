# SPDX-License-Identifier: Apache-2.0
"""Writes .pt files as PyTorch and fairseq write them, with numpy alone: tests make checkpoints of
many shapes and ages without either being installed.

The names that a pickle mentions (torch._utils._rebuild_tensor_v2, argparse.Namespace, ...) are
stood in for by empty functions and classes of modules that exist only while the file is written.
"""
import collections
import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

STORAGE = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage",
           "int64": "LongStorage", "uint16": "BFloat16Storage", "int8": "CharStorage"}


class Named:
    """Something whose class the pickle calls `name`, with fields."""

    def __init__(self, name, fields=None, args=()):
        self.name, self.fields, self.args = name, fields, args


class Call:
    """A call that the pickle asks for."""

    def __init__(self, name, *args):
        self.name, self.args = name, args


@contextlib.contextmanager
def stand_ins():
    """Gives a function that makes any global; modules are put back afterwards."""
    before = dict(sys.modules)

    def make(name):
        module, _, last = name.rpartition(".")
        parts = module.split(".")
        for i in range(len(parts)):
            path = ".".join(parts[:i + 1])
            sys.modules[path] = sys.modules[path] if getattr(
                sys.modules.get(path), "is_stand_in", False) else types.ModuleType(path)
            sys.modules[path].is_stand_in = True
        found = getattr(sys.modules[module], last, None)
        if found is None:
            found = type(last, (), {"__module__": module, "__qualname__": last})
            setattr(sys.modules[module], last, found)
        return found
    try:
        yield make
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
        sys.modules.update(before)


class Pickler(pickle._Pickler):
    """numpy arrays become tensors, everything else what its stand-in says."""

    def __init__(self, file, make, storages, protocol=2):
        super().__init__(file, protocol, fix_imports=False)
        self.make, self.storages, self.known = make, storages, {}

    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", self.make("torch." + STORAGE[value.array.dtype.name]), value.key,
                    "cpu", value.array.size, *self.tail())
        return None

    def tail(self):
        return ()

    def tensor(self, array):
        base = array if array.base is None else array.base
        key = id(base)
        if key not in self.known:
            self.known[key] = Storage(str(len(self.known)), np.ascontiguousarray(base).ravel())
            self.storages.append(self.known[key])
        offset = 0 if array.base is None else (
            array.__array_interface__["data"][0] - base.__array_interface__["data"][0])
        strides = tuple(s // array.itemsize for s in array.strides)
        return (self.make("torch._utils._rebuild_tensor_v2"), (
            self.known[key], offset // array.itemsize, array.shape, strides, False,
            collections.OrderedDict()))

    def reducer_override(self, value):
        if isinstance(value, np.ndarray):
            return self.tensor(value)
        if isinstance(value, Named):
            made = (self.make(value.name), value.args)
            return made if value.fields is None else (*made, value.fields)
        if isinstance(value, Call):
            return self.make(value.name), value.args
        return NotImplemented

    def save(self, value, save_persistent_id=True):
        """The Python pickler asks reducer_override only for what it does not know: arrays."""
        if isinstance(value, (np.ndarray, Named, Call)) and self.memo.get(id(value)) is None:
            self.save_reduce(*self.reducer_override(value), obj=value)
            return
        super().save(value, save_persistent_id)


class Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


class LegacyPickler(Pickler):
    def tail(self):
        return (None,)


def dump(value, protocol=2, kind=Pickler):
    """(the pickle's bytes, its storages)."""
    file, storages = io.BytesIO(), []
    with stand_ins() as make:
        kind(file, make, storages, protocol).dump(value)
    return file.getvalue(), storages


def write_zip(path, value, protocol=2):
    """PyTorch 1.6 and later."""
    data, storages = dump(value, protocol)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
        archive.writestr("archive/version", "3\n")


def write_legacy(path, value):
    """Before: a magic number, a protocol, the system, the value, the keys, the storages."""
    data, storages = dump(value, kind=LegacyPickler)
    system = {"protocol_version": 1001, "little_endian": True,
              "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, system):
            file.write(pickle.dumps(part, protocol=2))
        file.write(data)
        file.write(pickle.dumps([storage.key for storage in storages], protocol=2))
        for storage in storages:
            file.write(struct.pack("<q", storage.array.size) + storage.array.tobytes())


def write_raw(path, data):
    """A zip checkpoint whose pickle is these bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)


# ---- state dicts ----

class Weights:
    """Random tensors under fairseq's names of today."""

    def __init__(self, seed=0, dtype=np.float32):
        self.rng, self.dtype, self.tensors = np.random.default_rng(seed), dtype, {}

    def add(self, name, *shape):
        self.tensors[name] = self.rng.standard_normal(shape).astype(self.dtype)
        return self.tensors[name]

    def norm(self, name, d):
        self.add(name + ".weight", d)
        self.add(name + ".bias", d)

    def linear(self, name, rows, columns):
        self.add(name + ".weight", rows, columns)
        self.add(name + ".bias", rows)

    def attention(self, name, d, memory):
        for part, width in (("q", d), ("k", memory), ("v", memory), ("out", d)):
            self.linear(f"{name}.{part}_proj", d, width)

    def layers(self, side, count, d, ffn, memory=0):
        for i in range(count):
            at = f"{side}.layers.{i}."
            self.attention(at + "self_attn", d, d)
            self.norm(at + "self_attn_layer_norm", d)
            if memory:
                self.attention(at + "encoder_attn", d, memory)
                self.norm(at + "encoder_attn_layer_norm", d)
            self.linear(at + "fc1", ffn, d)
            self.linear(at + "fc2", d, ffn)
            self.norm(at + "final_layer_norm", d)


def fused(tensors):
    """q, k and v in one tensor, as before 2019."""
    old = {}
    for name, value in tensors.items():
        if ".q_proj." in name:
            old[name.replace("q_proj.", "in_proj_")] = np.concatenate(
                [tensors[name.replace("q_proj", part + "_proj")] for part in "qkv"])
        elif ".k_proj." not in name and ".v_proj." not in name:
            old[name] = value
    return old


def write_dictionary(path, count, prefix="w"):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{prefix}{i} {count - i}\n" for i in range(count))
