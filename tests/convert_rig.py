# SPDX-License-Identifier: Apache-2.0
"""What the tests of the converters share: calling them, small checkpoints, reading what came out,
and TAP. Needs numpy."""
import contextlib
import io
import json
import os
import shutil
import struct
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import packages  # noqa: E402

if packages.prefer("numpy"):
    print("1..0 # SKIP numpy is not installed")
    sys.exit(0)

import numpy as np  # noqa: E402
import convert_fairseq  # noqa: E402
import convert_hf  # noqa: E402
import fairseq_files as files  # noqa: E402

D, FFN, WORDS = 8, 12, 30
LM = {"_name": "transformer_lm", "decoder_attention_heads": 2, "max_target_positions": 20,
      "decoder_normalize_before": True, "share_decoder_input_output_embed": True}
SEQ = {"arch": "transformer", "task": "translation", "source_lang": "xx", "target_lang": "yy",
       "encoder_attention_heads": 2, "decoder_attention_heads": 4}
TESTS = []


def test(function):
    TESTS.append(function)
    return function


@contextlib.contextmanager
def place():
    with tempfile.TemporaryDirectory() as where:
        yield where


def call(program, *flags):
    """(exit status or its sentence, standard output); anything but SystemExit is a fault."""
    out, argv = io.StringIO(), sys.argv
    sys.argv = ["program", *flags]
    try:
        with contextlib.redirect_stdout(out):
            program.main()
        return 0, out.getvalue()
    except SystemExit as stop:
        return stop.code, out.getvalue()
    finally:
        sys.argv = argv


def convert(where, *flags, checkpoint="model.pt"):
    out = os.path.join(where, "out")
    shutil.rmtree(out, ignore_errors=True)
    status, said = call(convert_fairseq, os.path.join(where, checkpoint), "--out", out, *flags)
    if status != 0:
        assert not os.path.exists(out), "a refused checkpoint left a folder behind"
        assert sorted(os.listdir(where)) == [n for n in sorted(os.listdir(where))
                                             if not n.startswith(".")], "a leftover"
    return status, said, out


def read_safetensors(out):
    """{name: (dtype, array)}, by the format's own rules."""
    with open(os.path.join(out, "model.safetensors"), "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header, data = json.loads(file.read(length)), file.read()
    header.pop("__metadata__", None)
    kinds = {"F32": "<f4", "F16": "<f2"}
    return {name: (e["dtype"], np.frombuffer(data[e["data_offsets"][0]:e["data_offsets"][1]],
                                             kinds[e["dtype"]]).reshape(e["shape"]))
            for name, e in header.items()}


def read_json(out, name="config.json"):
    with open(os.path.join(out, name), encoding="utf-8") as file:
        return json.load(file)


def language_model(layers=2, final=True, embed=True, **other):
    weights = files.Weights(**other)
    weights.layers("decoder", layers, D, FFN)
    if final:
        weights.norm("decoder.layer_norm", D)
    if embed:
        words = weights.add("decoder.embed_tokens.weight", WORDS + 4, D)
        weights.tensors["decoder.output_projection.weight"] = words
    weights.tensors["decoder.version"] = np.array([3], np.float32)
    return weights.tensors


def save(where, tensors, options, as_args=False, legacy=False, task=None, name="model.pt"):
    settings = ({"args": files.Named("argparse.Namespace", dict(options)), "cfg": None}
                if as_args else
                {"args": None, "cfg": {"model": dict(options), "task": task or {}, "bpe": None}})
    value = {**settings, "model": tensors, "optimizer_history": [{"num_updates": 3}]}
    (files.write_legacy if legacy else files.write_zip)(os.path.join(where, name), value)


def expect_equal(out, wanted, dtype="F32"):
    found = read_safetensors(out)
    assert sorted(found) == sorted(wanted), (sorted(set(found) ^ set(wanted)))
    for name, value in wanted.items():
        assert found[name][0] == dtype, (name, found[name][0])
        assert np.array_equal(found[name][1], value), name


def refused(where, *flags, mention="", **other):
    status, said, _ = convert(where, *flags, **other)
    assert isinstance(status, str) and "\n" not in status, status
    assert mention in status, (mention, status)
    return status


def roberta(heads=(), dtype=np.float32, head=True):
    weights = files.Weights(3, dtype)
    weights.layers("encoder", 3, D, FFN)
    words = weights.add("encoder.embed_tokens.weight", WORDS + 5, D)
    weights.add("encoder.embed_positions.weight", 18, D)
    weights.norm("encoder.layernorm_embedding", D)
    if head:
        weights.tensors["encoder.lm_head.weight"] = words
        weights.add("encoder.lm_head.bias", WORDS + 5)
        weights.linear("encoder.lm_head.dense", D, D)
        weights.norm("encoder.lm_head.layer_norm", D)
    for name, classes in heads:
        weights.linear(f"classification_heads.{name}.dense", D, D)
        weights.linear(f"classification_heads.{name}.out_proj", classes, D)
    return weights.tensors


def encoder_decoder(encoder=3, decoder=2, width=12, shared=False, seed=5):
    weights = files.Weights(seed)
    weights.layers("encoder", encoder, D, FFN)
    weights.layers("decoder", decoder, width, FFN, memory=D)
    weights.add("encoder.embed_tokens.weight", WORDS + 4, D)
    weights.add("decoder.embed_tokens.weight", WORDS + 14, width)
    weights.add("decoder.output_projection.weight", WORDS + 14, width)
    for side in ("encoder", "decoder"):
        weights.tensors[f"{side}.version"] = np.array([3], np.float32)
    return weights.tensors


def write_pair(where):
    files.write_dictionary(where + "/dict.xx.txt", WORDS)
    files.write_dictionary(where + "/dict.yy.txt", WORDS + 10, "y")


def hostile(where):
    """Pickles that would touch a file, or worse, if they were run."""
    mark = os.path.join(where, "ran")
    command = f"touch {mark}"
    for name in ("posix.system", "os.system", "subprocess.getoutput", "builtins.eval",
                 "builtins.exec", "__builtin__.eval", "builtins.getattr", "torch.load",
                 "torch.hub.load", "numpy.testing._private.utils.runstring", "runpy.run_path",
                 "importlib.import_module", "functools.partial", "operator.attrgetter",
                 "torch.serialization.load", "webbrowser.open", "pickle.loads"):
        for protocol in (2, 4):
            yield name, files.dump({"model": files.Call(name, command)}, protocol)[0]
    yield "inst", b"(S'" + command.encode() + b"'\nios\nsystem\n."
    yield "obj", b"(cos\nsystem\nS'" + command.encode() + b"'\no."
    yield "newobj", b"\x80\x02cos\nsystem\nS'" + command.encode() + b"'\n\x85\x81."
    yield "ext", b"\x80\x02\x82\x01."
    yield "builds", (b"\x80\x02cargparse\nNamespace\n)\x81}(X\x0c\x00\x00\x00__setstate__"
                     b"cposix\nsystem\nub.")


def convert_folder(where, source):
    out = where + "/out"
    shutil.rmtree(out, ignore_errors=True)
    status, said = call(convert_hf, source, "--out", out)
    return status, said, out


def main():
    failed = 0
    for at, function in enumerate(TESTS, 1):
        try:
            note = function()
        except Exception:
            failed += 1
            for line in traceback.format_exc().splitlines()[-12:]:
                print(f"# {line}")
            print(f"not ok {at} - {function.__name__}", flush=True)
        else:
            print(f"ok {at} - {function.__name__}" + (f" # {note}" if note else ""), flush=True)
    print(f"1..{len(TESTS)}")
    sys.exit(1 if failed else 0)
