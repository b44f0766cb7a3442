# SPDX-License-Identifier: Apache-2.0
"""Reads PyTorch checkpoints without running anything in them.

A pickle is a program: `pickle.load` and `torch.load` call what it names. This is another machine
for the same instructions that never calls, imports or instantiates anything: the few constructors
that a checkpoint of tensors needs are carried out here, settings objects (argparse's Namespace,
omegaconf's containers, fairseq's dataclasses and enums) become inert `Record`s, and any other name
is refused. Tensors are read when they are asked for.

    state = unpickle.load("model.pt")          # raises unpickle.Refused with one sentence
    state["model"]["decoder.version"].array()  # numpy, float32 for every floating type
"""
import io
import os
import pickletools
import struct
import zipfile

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LARGEST_PICKLE = 1 << 28
ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
        "BOOL": 1}
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
         "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "<u1"}
STORAGE = {"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16",
           "BFloat16Storage": "BF16", "LongStorage": "I64", "IntStorage": "I32",
           "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
           "UntypedStorage": "U8"}
TORCH_DTYPE = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
               "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
               "bool": "BOOL"}

# Names that a checkpoint of fairseq or of Hugging Face has; none is ever looked up.
SETTINGS = ("argparse", "omegaconf", "fairseq", "fairseq_cli", "fairseq_user_dir", "examples",
            "typing", "enum", "pathlib", "datetime", "hydra", "dataclasses", "transformers")
CALLED = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter",
          "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
          "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter",
          "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter",
          "torch.nn.Parameter", "torch.Size", "torch.device", "torch.Tensor",
          "torch._tensor._rebuild_from_type_v2", "torch.FloatTensor", "torch.LongTensor",
          "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
          "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
          "numpy.dtype", "numpy.ndarray", "_codecs.encode", "copyreg._reconstructor",
          "copy_reg._reconstructor"}
BUILTINS = {"dict", "list", "tuple", "set", "frozenset", "str", "int", "float", "bool", "bytes",
            "bytearray", "complex", "object", "NoneType", "unicode", "long", "slice", "range"}


class Refused(Exception):
    """The file is no checkpoint, is damaged, or names what no checkpoint needs."""


class Global:
    """A name in the pickle. It stands for nothing and can do nothing."""

    def __init__(self, name):
        self.name = name


class Record:
    """What an unknown class would have been: its name, the arguments and its fields."""

    def __init__(self, name, args=()):
        self.name, self.args = name, args
        self.fields, self.items, self.entries = {}, [], {}


class Storage:
    """A run of numbers in the file; read() gives its bytes."""

    def __init__(self, dtype, count, read):
        self.dtype, self.count, self.read = dtype, count, read

    def cast(self, dtype):
        """The same bytes as another type: newer files store all of them untyped."""
        size = self.count * ITEM[self.dtype]
        return Storage(dtype, size // ITEM[dtype], self.read)


class Tensor:
    """A view of a storage; `dtype` is one of the keys of NUMPY."""

    def __init__(self, storage, offset, shape, stride):
        numbers = (offset, *shape, *stride)
        if any(type(n) is not int or n < 0 for n in numbers) or len(shape) != len(stride):
            raise Refused("a tensor has an impossible shape")
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride))
        self.count = 1
        for n in shape:
            self.count *= n
        if self.count and (last >= storage.count or self.count > storage.count):
            raise Refused("a tensor reaches beyond its storage")
        self.storage, self.offset, self.stride = storage, offset, tuple(stride)
        self.shape, self.dtype = tuple(shape), storage.dtype

    def key(self):
        """Equal for two names of the same numbers."""
        return id(self.storage), self.offset, self.shape, self.stride

    def array(self):
        flat = np.frombuffer(self.storage.read(), NUMPY[self.dtype], self.storage.count)
        step = flat.itemsize
        if not self.count:
            view = np.zeros(self.shape, flat.dtype)
        else:
            view = np.lib.stride_tricks.as_strided(
                flat[self.offset:], self.shape, [s * step for s in self.stride])
        if self.dtype == "BF16":
            wide = np.ascontiguousarray(view).astype(np.uint32) << np.uint32(16)
            return wide.view(np.float32).reshape(self.shape)
        if self.dtype in ("F64", "F16"):
            return view.astype(np.float32)
        return view.copy()


def is_allowed(name):
    """Names outside these are refused: no checkpoint has them."""
    root, _, last = name.partition(".")
    if name in CALLED or root in SETTINGS:
        return True
    if root in ("builtins", "__builtin__"):
        return last in BUILTINS
    if root == "torch":
        kind = name.rpartition(".")[2]
        return (kind in STORAGE and name in (f"torch.{kind}", f"torch.storage.{kind}")
                or last in TORCH_DTYPE or last == "storage.TypedStorage")
    return root == "numpy" and last in ("float64", "float32", "float16", "int64", "int32", "bool_")


def find(module, name):
    full = f"{module}.{name}"
    if not is_allowed(full):
        raise Refused(f"the file names {full}, which no checkpoint needs; nothing of it was run")
    return Global(full)


def numpy_scalar(args):
    """numpy.core.multiarray.scalar(dtype, bytes), of the plain number types."""
    kinds = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "u8": "<Q", "b1": "<?"}
    if len(args) == 2 and isinstance(args[0], Record) and isinstance(args[1], bytes):
        kind = kinds.get(args[0].args[0] if args[0].args else None)
        if kind and struct.calcsize(kind) == len(args[1]):
            return struct.unpack(kind, args[1])[0]
    return Record("numpy.scalar")


def tensor(storage, offset, shape, stride, *rest):
    if not isinstance(storage, Storage) or not isinstance(shape, tuple):
        raise Refused("a tensor is not built from a storage")
    return Tensor(storage, offset, shape, stride if isinstance(stride, tuple) else (None,))


def tensor_v3(storage, offset, shape, stride, grad, hooks, dtype, *rest):
    kind = TORCH_DTYPE.get(getattr(dtype, "name", "").rpartition(".")[2])
    if not isinstance(storage, Storage) or kind is None:
        raise Refused("a tensor has a type that is not known")
    return tensor(storage.cast(kind), offset, shape, stride)


def pairs(*args):
    """dict(), dict(mapping) or dict(list of pairs); a defaultdict's factory is left out."""
    if args and (args[0] is None or isinstance(args[0], Global)):
        args = args[1:]
    if not args:
        return {}
    if isinstance(args[0], dict):
        return dict(args[0])
    return {plain_key(key): value for key, value in args[0]}


BUILD = {
    "collections.OrderedDict": pairs, "collections.defaultdict": pairs, "builtins.dict": pairs,
    "__builtin__.dict": pairs, "collections.Counter": pairs,
    "torch._utils._rebuild_tensor": tensor, "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
    "torch.nn.parameter.Parameter": lambda data, *rest: data,
    "torch.nn.Parameter": lambda data, *rest: data,
    "torch.Size": lambda items=(): tuple(items),
    "builtins.list": lambda items=(): list(items), "__builtin__.list": lambda items=(): list(items),
    "builtins.tuple": lambda items=(): tuple(items),
    "builtins.set": lambda items=(): [plain_key(i) for i in items],
    "__builtin__.set": lambda items=(): [plain_key(i) for i in items],
    "numpy.core.multiarray.scalar": lambda *args: numpy_scalar(args),
    "numpy._core.multiarray.scalar": lambda *args: numpy_scalar(args),
    "_codecs.encode": lambda text, *rest: text.encode("latin-1"),
}


def plain_key(key):
    """Keys must be plain: hashing anything nested is left alone."""
    if key is None or isinstance(key, (str, bytes, int, float)):
        return key
    if isinstance(key, tuple) and all(isinstance(k, (str, int, type(None))) for k in key):
        return key
    if isinstance(key, Record) and len(key.args) == 1 and isinstance(key.args[0], (str, int)):
        return key.args[0]  # a member of an enum
    if isinstance(key, Global):
        return key.name
    raise Refused("a dictionary in the file has a key that is neither text nor a number")


class Machine:
    """Runs one pickle's instructions over a stack of inert values."""

    def __init__(self, persistent):
        self.stack, self.marks, self.memo, self.persistent = [], [], {}, persistent

    def run(self, file):
        for code, arg, _ in pickletools.genops(file):
            name = code.name
            if name == "STOP":
                return self.stack.pop()
            method = getattr(self, "op_" + name, None)
            if method is not None:
                method(arg)
            elif name in CONSTANTS:
                self.stack.append(arg)
            elif name not in ("PROTO", "FRAME"):
                raise Refused(f"the pickle has the instruction {name}, which no checkpoint needs")
        raise Refused("the pickle has no end")

    def since_mark(self):
        at = self.marks.pop()
        values, self.stack[at:] = self.stack[at:], []
        return values

    def make(self, target, args):
        """What calling `target` would have made, for the few names that are known."""
        if not isinstance(target, Global) or not isinstance(args, tuple):
            raise Refused("the pickle calls something that is not a name")
        if target.name in BUILD:
            try:
                return BUILD[target.name](*args)
            except (TypeError, ValueError, AttributeError):
                raise Refused(f"{target.name} is given arguments that make no sense") from None
        if target.name == "torch._tensor._rebuild_from_type_v2" and len(args) > 2:
            return self.make(args[0], args[2])
        if target.name.endswith("._reconstructor") and args and isinstance(args[0], Global):
            return Record(args[0].name)
        return Record(target.name, args)

    def push_tuple(self, count):
        values = tuple(self.stack[len(self.stack) - count:])
        if len(values) != count:
            raise IndexError
        del self.stack[len(self.stack) - count:]
        self.stack.append(values)

    def op_NONE(self, _):
        self.stack.append(None)

    def op_NEWTRUE(self, _):
        self.stack.append(True)

    def op_NEWFALSE(self, _):
        self.stack.append(False)

    def op_MARK(self, _):
        self.marks.append(len(self.stack))

    def op_POP(self, _):
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def op_POP_MARK(self, _):
        self.since_mark()

    def op_DUP(self, _):
        self.stack.append(self.stack[-1])

    def op_MEMOIZE(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def op_PUT(self, index):
        self.memo[index] = self.stack[-1]

    def op_GET(self, index):
        self.stack.append(self.memo[index])

    op_BINPUT = op_LONG_BINPUT = op_PUT
    op_BINGET = op_LONG_BINGET = op_GET

    def op_EMPTY_TUPLE(self, _):
        self.stack.append(())

    def op_TUPLE1(self, _):
        self.push_tuple(1)

    def op_TUPLE2(self, _):
        self.push_tuple(2)

    def op_TUPLE3(self, _):
        self.push_tuple(3)

    def op_TUPLE(self, _):
        self.stack.append(tuple(self.since_mark()))

    def op_EMPTY_LIST(self, _):
        self.stack.append([])

    op_EMPTY_SET = op_EMPTY_LIST

    def op_LIST(self, _):
        self.stack.append(self.since_mark())

    op_FROZENSET = op_LIST

    def op_APPEND(self, _):
        self.extend([self.stack.pop()])

    def op_APPENDS(self, _):
        self.extend(self.since_mark())

    op_ADDITEMS = op_APPENDS

    def extend(self, values):
        target = self.stack[-1]
        (target.items if isinstance(target, Record) else target).extend(values)

    def op_EMPTY_DICT(self, _):
        self.stack.append({})

    def op_DICT(self, _):
        self.stack.append({})
        self.store(self.stack[-1], self.since_mark())

    def op_SETITEM(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        self.store(self.stack[-1], [key, value])

    def op_SETITEMS(self, _):
        values = self.since_mark()
        self.store(self.stack[-1], values)

    def store(self, target, values):
        entries = target.entries if isinstance(target, Record) else target
        if not isinstance(entries, dict):
            raise Refused("the pickle stores an entry in what is no dictionary")
        for key, value in zip(values[::2], values[1::2]):
            entries[plain_key(key)] = value

    def op_GLOBAL(self, arg):
        self.stack.append(find(*arg.split(" ", 1)))

    def op_STACK_GLOBAL(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("the pickle names something that is no text")
        self.stack.append(find(module, name))

    def op_REDUCE(self, _):
        args, target = self.stack.pop(), self.stack.pop()
        self.stack.append(self.make(target, args))

    op_NEWOBJ = op_REDUCE

    def op_NEWOBJ_EX(self, _):
        keywords, args, target = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(self.make(target, args))

    def op_OBJ(self, _):
        target, *args = self.since_mark()
        self.stack.append(self.make(target, tuple(args)))

    def op_INST(self, arg):
        args = tuple(self.since_mark())
        self.stack.append(self.make(find(*arg.split(" ", 1)), args))

    def op_BUILD(self, _):
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Record):
            return  # an attribute of a dictionary or a tensor, such as _metadata
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        for part in parts:
            if isinstance(part, dict):
                target.fields.update(part)

    def op_BINPERSID(self, _):
        self.stack.append(self.persistent(self.stack.pop()))


CONSTANTS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
             "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
             "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, EOFError,
          zipfile.BadZipFile, NotImplementedError, MemoryError, RecursionError, RuntimeError)


def storage_parts(reference):
    """(dtype, key, count, view) of a persistent id: ("storage", class, key, place, count, view)."""
    if (not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage"
            or not isinstance(reference[1], Global) or type(reference[4]) is not int):
        raise Refused("the pickle refers to something that is no storage")
    dtype = STORAGE.get(reference[1].name.rpartition(".")[2])
    if dtype is None or reference[4] < 0:
        raise Refused(f"the storage {reference[1].name} is not known")
    return dtype, str(reference[2]), reference[4], reference[5] if len(reference) > 5 else None


def load_zip(path):
    """PyTorch 1.6 and later: data.pkl and one entry for each storage."""
    archive = zipfile.ZipFile(path)
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("the file is a zip archive without one data.pkl: no checkpoint of PyTorch")
    root, known = pickles[0][:-len("data.pkl")], {}
    if root + "constants.pkl" in entries:
        raise Refused("the file is a TorchScript program, no checkpoint")
    if root + "byteorder" in entries and archive.read(root + "byteorder") != b"little":
        raise Refused("the file's numbers are not little-endian")
    if entries[pickles[0]].file_size > LARGEST_PICKLE:
        raise Refused("the file's pickle is larger than any checkpoint's")
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise Refused("the file is a compressed zip archive, which PyTorch never writes")

    def entry(info):
        try:
            return archive.read(info)
        except DAMAGE:
            raise Refused(f"{info.filename} is damaged") from None

    def storage(reference):
        dtype, key, count, _ = storage_parts(reference)
        if key not in known:
            info = entries.get(f"{root}data/{key}")
            if info is None or info.file_size < count * ITEM[dtype]:
                raise Refused(f"storage {key} is missing or too short: the file is truncated")
            known[key] = Storage(dtype, count, lambda: entry(info))
        return known[key]
    return Machine(storage).run(io.BytesIO(archive.read(pickles[0])))


class Reader:
    """A file that reads no further than its end, whatever length is asked for."""

    def __init__(self, file, size):
        self.file, self.size = file, size

    def read(self, count):
        return self.file.read(max(0, min(count, self.size - self.file.tell())))

    def readline(self):
        return self.file.readline(1 << 20)

    def tell(self):
        return self.file.tell()


def load_legacy(path):
    """Before PyTorch 1.6: five pickles, then each storage as a count and its numbers."""
    file = open(path, "rb")
    reader = Reader(file, os.path.getsize(path))
    plain = Machine(storage_parts)
    if plain.run(reader) != LEGACY_MAGIC:
        raise Refused("the file is no checkpoint of PyTorch")
    plain.run(reader)
    system = plain.run(reader)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Refused("the file's numbers are not little-endian")
    known, starts = {}, {}

    def at(key):
        def read():
            begin, length = starts[key]
            file.seek(begin)
            return file.read(length)
        return read

    def storage(reference):
        dtype, key, count, view = storage_parts(reference)
        if key not in known:
            known[key] = Storage(dtype, count, at(key))
        whole = known[key]
        if view is None:
            return whole
        _, first, length = view
        if type(first) is not int or not 0 <= first <= first + length <= whole.count:
            raise Refused("a view reaches beyond its storage")
        begin, end = first * ITEM[dtype], (first + length) * ITEM[dtype]
        return Storage(dtype, length, lambda: whole.read()[begin:end])
    value = Machine(storage).run(reader)
    for key in Machine(storage_parts).run(reader):
        head = reader.read(8)
        if len(head) != 8 or key not in known:
            raise Refused("the file is truncated")
        length = int.from_bytes(head, "little", signed=True) * ITEM[known[key].dtype]
        if length < known[key].count * ITEM[known[key].dtype] or file.tell() + length > reader.size:
            raise Refused(f"storage {key} is too short: the file is truncated")
        starts[key] = (file.tell(), length)
        file.seek(length, os.SEEK_CUR)
    if set(known) - set(starts):
        raise Refused("the file is truncated")
    return value


def load(path):
    """The checkpoint's value: dictionaries, lists, texts, numbers, Tensors and inert Records."""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
        if head[:2] == b"PK":
            return load_zip(path)
        if head[:1] != b"\x80":
            raise Refused("the file is no checkpoint of PyTorch")
        return load_legacy(path)
    except Refused:
        raise
    except OSError as error:
        raise Refused(error.strerror or "the file cannot be read") from None
    except DAMAGE:
        raise Refused("the file is damaged, truncated, or no checkpoint of PyTorch") from None


def plain(value, depth=0):
    """Settings as plain dictionaries, lists, texts and numbers, whatever object held them."""
    if depth > 32:
        raise Refused("the settings are nested too deeply")
    if isinstance(value, dict):
        return {str(key): plain(v, depth + 1) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in value]
    if isinstance(value, Record):
        return plain_record(value, depth)
    if isinstance(value, (Global, Tensor, Storage)):
        return getattr(value, "name", None)
    return value


def plain_record(record, depth):
    fields = record.fields
    if record.name.startswith("omegaconf."):
        content = fields.get("_content", fields.get("_val"))
        if record.name.endswith(("DictConfig", "ListConfig")) and "_content" not in fields:
            content = None
        return plain(content, depth + 1)
    if record.name.startswith("pathlib."):
        return "/".join(str(part) for part in record.args)
    if fields or record.entries:
        merged = {**record.entries, **fields}
        return {str(k): plain(v, depth + 1) for k, v in merged.items()}
    if len(record.args) == 1 and isinstance(record.args[0], (str, int, float)):
        return record.args[0]  # a member of an enum
    return plain(record.items, depth + 1) if record.items else None
