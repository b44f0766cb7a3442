# SPDX-License-Identifier: Apache-2.0
"""A model folder as numpy arrays under names that all peers' writers share: what gguf.py, onnx_file.py and torch_run.py read.

A model is {"facts": ..., "embedding" [vocab, dim], "positions" [context, dim], "output" [vocab, dim], "final_norm" (gain, bias) or
None, "embedding_norm" or None, "layers": [...]}; a layer has "qkv" (matrix [3 dim, dim], bias), "out", "up", "down" alike, "norm1"
and "norm2". Kinds: "gpt2" and "opt" (decoders, pre-norm) and "roberta" (an encoder of fairseq's shape, post-norm). Needs numpy.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))

import packages

packages.need("numpy")

import numpy as np

import folder

SIZE, to_bytes = folder.SIZE, folder.to_bytes


def pair(tensors, name):
    return tensors[name + ".weight"], tensors[name + ".bias"]


def facts_of(config):
    """What the peers' graphs need to know of config.json."""
    kind = config["model_type"]
    if kind == "gpt2":
        return {"kind": "gpt2", "layers": config["n_layer"], "dim": config["n_embd"], "heads": config["n_head"],
                "ffn": config.get("n_inner") or 4 * config["n_embd"], "context": config["n_positions"],
                "vocab": config["vocab_size"], "activation": "gelu_tanh", "eps": config["layer_norm_epsilon"],
                "eos": config["eos_token_id"]}
    part = config["encoder"] if kind == "fathom_encoder" else config
    facts = {"kind": "opt" if kind == "opt" else "roberta", "layers": part["num_hidden_layers"],
             "dim": part["hidden_size"], "heads": part["num_attention_heads"],
             "ffn": part.get("ffn_dim") or part["intermediate_size"], "context": part["max_position_embeddings"],
             "vocab": config["vocab_size"], "activation": part["activation_function"],
             "eps": part.get("layer_norm_eps", 1e-5), "eos": config["eos_token_id"]}
    if kind not in ("opt", "fathom_encoder") or kind == "opt" and not config.get("do_layer_norm_before", True):
        raise SystemExit(f"weights: folders of gpt2, opt (pre-norm) and fathom_encoder can be read, not {kind}")
    return facts


def gpt2_layer(tensors, i):
    names = {"qkv": "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    layer = {"norm1": pair(tensors, f"h.{i}.ln_1"), "norm2": pair(tensors, f"h.{i}.ln_2")}
    for ours, theirs in names.items():
        matrix, bias = pair(tensors, f"h.{i}.{theirs}")
        layer[ours] = np.ascontiguousarray(matrix.T), bias
    return layer


def fairseq_layer(tensors, prefix, i):
    at = f"{prefix}layers.{i}."
    parts = [pair(tensors, f"{at}self_attn.{name}_proj") for name in "qkv"]
    return {"norm1": pair(tensors, at + "self_attn_layer_norm"), "norm2": pair(tensors, at + "final_layer_norm"),
            "qkv": tuple(np.concatenate([part[j] for part in parts]) for j in range(2)),
            "out": pair(tensors, at + "self_attn.out_proj"),
            "up": pair(tensors, at + "fc1"), "down": pair(tensors, at + "fc2")}


def read(path, depth=0):
    """The folder at `depth` layers by the even rule (0: all)."""
    facts = facts_of(folder.read_config(path))
    tensors = folder.read_weights(path)
    kept = folder.even_plan(facts["layers"], depth or facts["layers"])
    facts["layers"] = len(kept)
    if facts["kind"] == "gpt2":
        tensors = {name.removeprefix("transformer."): array for name, array in tensors.items()}
        embedding = tensors["wte.weight"]
        return {"facts": facts, "embedding": embedding, "positions": tensors["wpe.weight"],
                "output": tensors.get("lm_head.weight", embedding), "final_norm": pair(tensors, "ln_f"),
                "embedding_norm": None, "layers": [gpt2_layer(tensors, i) for i in kept]}
    prefix = "model.decoder." if facts["kind"] == "opt" else "encoder."
    embedding = tensors[prefix + "embed_tokens.weight"]
    has_final, has_first = (prefix + name + ".weight" in tensors for name in ("final_layer_norm", "layernorm_embedding"))
    return {"facts": facts, "embedding": embedding,
            "positions": tensors[prefix + "embed_positions.weight"][2:],  # two rows before the first position
            "output": tensors.get("lm_head.weight", embedding),
            "final_norm": pair(tensors, prefix + "final_layer_norm") if has_final else None,
            "embedding_norm": pair(tensors, prefix + "layernorm_embedding") if has_first else None,
            "layers": [fairseq_layer(tensors, prefix, i) for i in kept]}
