# SPDX-License-Identifier: Apache-2.0
"""A small writer of ONNX files: protocol buffers by hand, tensors in a second file beside the graph. Needs numpy.

Field numbers are those of onnx.proto (IR version 8).
"""
import os
import struct

import numpy as np

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
TYPES = {np.dtype("f4"): FLOAT, np.dtype("u1"): UINT8, np.dtype("i1"): INT8, np.dtype("i4"): INT32, np.dtype("i8"): INT64}
EXTERNAL, ALIGNMENT = 1 << 10, 64  # larger tensors go to the second file


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def data(field, value):
    value = value.encode("utf-8") if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def attribute(name, value):
    """AttributeProto of an int, float, str, or list of ints."""
    if isinstance(value, bool) or isinstance(value, int):
        return data(1, name) + number(3, int(value)) + number(20, 2)
    if isinstance(value, float):
        return data(1, name) + varint(2 << 3 | 5) + struct.pack("<f", value) + number(20, 1)
    if isinstance(value, str):
        return data(1, name) + data(4, value) + number(20, 3)
    return data(1, name) + b"".join(number(8, v) for v in value) + number(20, 7)


def value_info(name, kind, shape):
    """ValueInfoProto; a dimension is a number or a name."""
    dims = b"".join(data(1, number(1, d) if isinstance(d, int) else data(2, d)) for d in shape)
    return data(1, name) + data(2, data(1, number(1, kind) + data(2, dims)))


class Graph:
    """Nodes in order; every method that adds one returns the name of its result."""

    def __init__(self, name):
        self.name, self.nodes, self.tensors = name, [], {}
        self.inputs, self.outputs, self.count = [], [], 0

    def fresh(self, stem):
        self.count += 1
        return f"{stem}_{self.count}"

    def input(self, name, kind, shape):
        self.inputs.append(value_info(name, kind, shape))
        return name

    def output(self, name, kind, shape):
        self.outputs.append(value_info(name, kind, shape))

    def tensor(self, array, stem="w"):
        name = self.fresh(stem)
        self.tensors[name] = np.ascontiguousarray(array)
        return name

    def node(self, op, inputs, outputs=1, domain="", **attributes):
        """outputs: how many, or their names. The result is one name, or a list of them."""
        names = [self.fresh(op.lower()) for _ in range(outputs)] if isinstance(outputs, int) else outputs
        body = b"".join(data(1, i) for i in inputs) + b"".join(data(2, o) for o in names)
        body += data(3, self.fresh("node")) + data(4, op)
        body += b"".join(data(5, attribute(*item)) for item in attributes.items())
        self.nodes.append(body + (data(7, domain) if domain else b""))
        return names[0] if len(names) == 1 else names

    def write(self, path):
        """path (a name.onnx) and name.data beside it."""
        beside = os.path.splitext(path)[0] + ".data"
        graph = [data(1, node) for node in self.nodes] + [data(2, self.name)]
        with open(beside, "wb") as file:
            for name, array in self.tensors.items():
                graph.append(data(5, self.tensor_proto(file, os.path.basename(beside), name, array)))
        graph += [data(11, i) for i in self.inputs] + [data(12, o) for o in self.outputs]
        opsets = [data(8, data(1, "") + number(2, 17)), data(8, data(1, "com.microsoft") + number(2, 1))]
        with open(path, "wb") as file:
            file.write(number(1, 8) + data(2, "fathom bench/peers") + data(7, b"".join(graph)) + b"".join(opsets))

    @staticmethod
    def tensor_proto(file, beside, name, array):
        head = b"".join(number(1, d) for d in array.shape) + number(2, TYPES[array.dtype]) + data(8, name)
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        if len(raw) < EXTERNAL:
            return head + data(9, raw)
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        facts = {"location": beside, "offset": str(file.tell()), "length": str(len(raw))}
        file.write(raw)
        return head + b"".join(data(13, data(1, k) + data(2, v)) for k, v in facts.items()) + number(14, 1)
