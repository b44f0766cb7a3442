# SPDX-License-Identifier: Apache-2.0
"""The files that bench/peers writes for other engines, read back by readers of their own. Prints TAP.

The ONNX tests need the onnx module (Debian's python3-onnx) and are skipped by name without it.
"""
import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "bench", "peers"), os.path.join(ROOT, "tools")]
import packages  # noqa: E402

if packages.prefer("numpy"):
    print("1..0 # SKIP this Python has no numpy")
    sys.exit(0)

import numpy as np  # noqa: E402

import gguf  # noqa: E402
import onnx_model  # noqa: E402
import weights  # noqa: E402

GPT2, OPT, ENCODER = (os.path.join(ROOT, "tests", "data", name) for name in ("tiny-gpt2", "tiny-opt", "tiny-encoder"))


def stored(folder):
    """The f32 tensors of a safetensors file."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        data = file.read()
    size = struct.unpack_from("<Q", data)[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[8 + size + begin:8 + size + end], "<f4").reshape(entry["shape"])
    return tensors


class Gguf:
    """A reader of the format as its description has it."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.at = 4
        version, tensors, values = self.take("IQQ")
        assert self.data[:4] == b"GGUF" and version == 3
        self.values = dict(self.pair() for _ in range(values))
        table = [(self.text(), self.dims(), *self.take("IQ")) for _ in range(tensors)]
        start = -(-self.at // 32) * 32
        self.tensors = {name: self.array(start + offset, dims, kind) for name, dims, kind, offset in table}

    def take(self, kinds):
        found = struct.unpack_from("<" + kinds, self.data, self.at)
        self.at += struct.calcsize("<" + kinds)
        return found

    def text(self):
        size = self.take("Q")[0]
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def dims(self):
        return self.take(f"{self.take('I')[0]}Q")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            of, count = self.take("IQ")
            return [self.value(of) for _ in range(count)]
        return self.take({4: "I", 5: "i", 6: "f"}[kind])[0]

    def pair(self):
        return self.text(), self.value(self.take("I")[0])

    def array(self, at, dims, kind):
        assert at % 32 == 0
        count = int(np.prod(dims))
        if kind == 30:
            wide = np.frombuffer(self.data, "<u2", count, at).astype(np.uint32) << np.uint32(16)
            return wide.view(np.float32).reshape(dims[::-1])
        assert kind == 0
        return np.frombuffer(self.data, "<f4", count, at).reshape(dims[::-1])


def gguf_holds_every_matrix_as_out_by_in(folder):
    path, tensors = os.path.join(folder, "a.gguf"), stored(GPT2)
    gguf.convert(GPT2, path)
    found = Gguf(path)
    of = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    last = sum(name.endswith("ln_1.weight") for name in of) - 1
    assert found.values["general.architecture"] == "gpt2" and found.values["gpt2.block_count"] == last + 1
    assert (found.tensors["token_embd.weight"] == of["wte.weight"]).all()
    assert (found.tensors["output.weight"] == of["wte.weight"]).all()
    assert (found.tensors["position_embd.weight"] == of["wpe.weight"]).all()
    for theirs, ours in (("attn_qkv", "attn.c_attn"), ("attn_output", "attn.c_proj"), ("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")):
        assert (found.tensors[f"blk.{last}.{theirs}.weight"] == of[f"h.{last}.{ours}.weight"].T).all()
        assert (found.tensors[f"blk.{last}.{theirs}.bias"] == of[f"h.{last}.{ours}.bias"]).all()


def half_of_six_layers_are_the_first_third_and_fifth(_):
    model, tensors = weights.read(OPT, 3), stored(OPT)
    assert model["facts"]["layers"] == 3
    for layer, kept in zip(model["layers"], (0, 2, 4)):
        at = next(name for name in tensors if name.endswith(f"layers.{kept}.fc1.bias"))
        assert (layer["up"][1] == tensors[at]).all()
        values = [tensors[at.replace("fc1", f"self_attn.{name}_proj")] for name in "qkv"]
        assert (layer["qkv"][1] == np.concatenate(values)).all()


def gguf_in_bf16_is_off_by_less_than_a_half_of_its_last_place(folder):
    path, tensors = os.path.join(folder, "c.gguf"), stored(GPT2)
    gguf.convert(GPT2, path, 0, "BF16")
    exact = next(t for name, t in tensors.items() if name.endswith("wte.weight"))
    found = Gguf(path).tensors["token_embd.weight"]
    assert (np.abs(found - exact) <= np.abs(exact) * 2.0 ** -8).all() and (found != exact).any()


def gguf_lists_tokens_by_their_ids(folder):
    path = os.path.join(folder, "a.gguf")
    gguf.convert(GPT2, path)
    with open(os.path.join(GPT2, "vocab.json"), encoding="utf-8") as file:
        ids = json.load(file)
    tokens = Gguf(path).values["tokenizer.ggml.tokens"]
    assert all(tokens[i] == token for token, i in ids.items())


def eight_bits_are_off_by_at_most_half_a_step(_):
    matrix = np.random.default_rng(1).standard_normal((48, 5), dtype=np.float32)
    codes, scale = onnx_model.int8_of(matrix)
    assert (np.abs(codes * scale - matrix) <= scale * 0.5001).all() and (np.abs(codes).max(axis=0) == 127).all()


def four_bits_are_off_by_at_most_a_step(_):
    matrix = np.random.default_rng(2).standard_normal((64, 3), dtype=np.float32)
    codes, scale = onnx_model.int4_of(matrix)
    nibbles = np.stack([codes & 15, codes >> 4], axis=-1).reshape(3, 2, 32).astype(np.float32)
    scale = scale.reshape(3, 2, 1)
    back = ((nibbles - 8) * scale).reshape(3, 64).T
    assert (np.abs(back - matrix) <= np.repeat(np.abs(scale), 32, axis=2).reshape(3, 64).T * 1.0001).all()


def onnx_files_pass_its_own_checker(folder):
    import onnx
    from onnx import numpy_helper
    for source in (GPT2, OPT, ENCODER):
        for kind in ("plain", "fused", "attention"):
            path = os.path.join(folder, "model.onnx")
            onnx_model.convert(source, path, kind, "f32")
            model = onnx.load(path)
            onnx.checker.check_model(path)
            written = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
            assert any(w.shape == stored(source)[name].shape and (w == stored(source)[name]).all()
                       for name in stored(source) if name.endswith(("wte.weight", "embed_tokens.weight")) for w in written.values())


def pytorch_gives_the_logits_of_the_reference(_):
    for source in (GPT2, OPT):
        with open(os.path.join(source, "goldens.json"), encoding="utf-8") as file:
            case = max(json.load(file)["cases"], key=lambda c: len(c["layers"]))
        command = json.dumps({"what": "logits", "ids": case["tokens"]})
        done = subprocess.run([sys.executable, os.path.join(ROOT, "bench", "peers", "torch_run.py"), source, "f32", "1"], input=command,
                              capture_output=True, text=True, check=True)
        found = np.array(json.loads(done.stdout.splitlines()[1])["logits"])
        assert np.abs(found - case["logits_last"]).max() < 1e-4


TESTS = [gguf_holds_every_matrix_as_out_by_in, half_of_six_layers_are_the_first_third_and_fifth,
         gguf_in_bf16_is_off_by_less_than_a_half_of_its_last_place, gguf_lists_tokens_by_their_ids,
         eight_bits_are_off_by_at_most_half_a_step, four_bits_are_off_by_at_most_a_step, onnx_files_pass_its_own_checker,
         pytorch_gives_the_logits_of_the_reference]
NEEDS = {onnx_files_pass_its_own_checker: "onnx", pytorch_gives_the_logits_of_the_reference: "torch"}


def main():
    failed = 0
    print(f"1..{len(TESTS)}")
    for number, test in enumerate(TESTS, 1):
        module = NEEDS.get(test)
        if module and importlib.util.find_spec(module) is None:
            print(f"ok {number} - {test.__name__} # SKIP no Python module {module}")
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                test(folder)
            print(f"ok {number} - {test.__name__}")
        except Exception as problem:  # a test that breaks has failed
            failed += 1
            print(f"not ok {number} - {test.__name__}\n# {type(problem).__name__}: {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
