# SPDX-License-Identifier: Apache-2.0
"""A fairseq state dict under today's names, at full depth, and as the tensors of our folders."""
import re

import numpy as np

from unpickle import Refused, Tensor

FLOATS = ("F64", "F32", "F16", "BF16")
NORMS = {"encoder": {"0": "self_attn_layer_norm", "1": "final_layer_norm"},
         "decoder": {"0": "self_attn_layer_norm", "1": "encoder_attn_layer_norm",
                     "2": "final_layer_norm"}}
DROPPED = re.compile(r"(^|\.)(version|_float_tensor|embed_positions\.weights|_future_mask)$")
# Tensors that only an unsupported option makes, and that option.
TRACES = (("project_in_dim", "decoder_input_dim"), ("project_out_dim", "decoder_output_dim"),
          ("centroids", "product quantisation"), ("assignments", "product quantisation"),
          ("counts", "product quantisation"),
          ("quant_noise", "quant_noise_pq"), ("weight_orig", "spectral_norm_classification_head"),
          ("attn_ln", "scale_attn"), ("ffn_layernorm", "scale_fc"), ("c_attn", "scale_heads"),
          ("head_scale", "scale_heads"), ("w_resid", "scale_resids"), ("bias_k", "add_bias_kv"),
          ("bias_v", "add_bias_kv"), ("char_embeddings", "character_embeddings"),
          ("convolutions", "character_embeddings"), ("scale", "quant_noise_scalar"),
          ("zero_point", "quant_noise_scalar"), ("segment_embeddings", "num_segments"),
          ("expert_network", "base_layers"), ("expert_centroids", "base_layers"))


class Rows:
    """Rows [begin, end) of a tensor: one of the parts of a fused projection."""

    def __init__(self, tensor, begin, end):
        self.tensor, self.begin, self.end, self.dtype = tensor, begin, end, tensor.dtype
        self.shape = (end - begin, *tensor.shape[1:])

    def array(self):
        return self.tensor.array()[self.begin:self.end]


class Product:
    """a times b, both matrices: a linear map folded into the one beside it."""

    dtype = "F32"

    def __init__(self, a, b):
        self.a, self.b, self.shape = a, b, (a.shape[0], b.shape[1])

    def array(self):
        return self.a.array().astype(np.float32) @ self.b.array().astype(np.float32)


class Transposed:
    """A matrix with rows and columns exchanged."""

    def __init__(self, tensor):
        self.tensor, self.dtype, self.shape = tensor, tensor.dtype, tensor.shape[::-1]

    def array(self):
        return self.tensor.array().T


def model_tensors(state):
    """The model's floating tensors by name; what is no weight is left out."""
    model = state.get("model") if isinstance(state, dict) else None
    if not isinstance(model, dict) or not model:
        raise Refused("the file has no model: it is no checkpoint of fairseq")
    tensors = {}
    for name, value in model.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise Refused(f"the model has {name!r}, which is no tensor")
        if DROPPED.search(name):
            continue
        if value.dtype not in FLOATS:
            raise Refused(f"the tensor {name} holds {value.dtype} numbers: "
                          f"{option_of(name) or 'quantised weights'} is not supported")
        tensors[name] = value
    return tensors


def option_of(name):
    parts = re.split(r"[._](?=\d)|\.", name)
    for trace, option in TRACES:
        if trace in parts or parts[-1].startswith(trace + "_"):
            return option
    return None


def one_stack_name(name):
    """RoBERTa's encoder has been called decoder, and its body sentence_encoder."""
    if name.startswith("decoder."):
        name = "encoder." + name[len("decoder."):]
    if name.startswith("encoder.classification_heads."):
        name = name[len("encoder."):]
    name = name.replace("encoder.sentence_encoder.", "encoder.", 1)
    return name.replace(".emb_layer_norm.", ".layernorm_embedding.")


def modern_name(name, family):
    if family == "encoder":
        name = one_stack_name(name)
    if name == "decoder.embed_out":
        return "decoder.output_projection.weight"
    old = re.fullmatch(r"(encoder|decoder)(\.layers\.\d+)\.layer_norms\.(\d)(\.\w+)", name)
    if old and old.group(3) in NORMS[old.group(1)]:
        return f"{old.group(1)}{old.group(2)}.{NORMS[old.group(1)][old.group(3)]}{old.group(4)}"
    return name


def modern(tensors, family):
    """Every tensor under its name of today, fused projections split; layers are not selected."""
    renamed = {}

    def put(name, value):
        if name in renamed:
            raise Refused(f"the model has {name} under two names")
        renamed[name] = value
    for name, value in tensors.items():
        name = modern_name(name, family)
        fused = re.fullmatch(r"(.*\.(?:self_attn|encoder_attn)\.)in_proj_(weight|bias)", name)
        if not fused:
            put(name, value)
            continue
        if not value.shape or value.shape[0] % 3:
            raise Refused(f"the tensor {name} does not hold three projections")
        third = value.shape[0] // 3
        for at, part in enumerate("qkv"):
            put(f"{fused.group(1)}{part}_proj.{fused.group(2)}",
                Rows(value, at * third, (at + 1) * third))
    return renamed


def layer_count(tensors, side):
    numbers = set()
    for name in tensors:
        found = re.match(rf"{side}\.layers\.(\d{{1,4}})\.", name)
        if found:
            numbers.add(int(found.group(1)))
    if not numbers:
        raise Refused(f"the model has no {side} layers")
    if numbers != set(range(len(numbers))):
        raise Refused(f"the {side} layers are not numbered from 0 without a gap")
    return len(numbers)


def shape_of(tensors, name, rank):
    if name not in tensors:
        raise Refused(f"the tensor {name} is missing")
    if len(tensors[name].shape) != rank or 0 in tensors[name].shape:
        raise Refused(f"the tensor {name} has the shape {list(tensors[name].shape)}")
    return tensors[name].shape


def norm_shapes(name, d):
    return {name + ".weight": (d,), name + ".bias": (d,)}


def linear_shapes(name, rows, columns):
    return {name + ".weight": (rows, columns), name + ".bias": (rows,)}


def layer_shapes(at, d, ffn, memory):
    shapes = {**norm_shapes(at + "self_attn_layer_norm", d),
              **norm_shapes(at + "final_layer_norm", d),
              **linear_shapes(at + "fc1", ffn, d), **linear_shapes(at + "fc2", d, ffn)}
    for part in "qkv":
        shapes.update(linear_shapes(f"{at}self_attn.{part}_proj", d, d))
    shapes.update(linear_shapes(at + "self_attn.out_proj", d, d))
    if memory:
        shapes.update(norm_shapes(at + "encoder_attn_layer_norm", d))
        for part, width in (("q", d), ("k", memory), ("v", memory), ("out", d)):
            shapes.update(linear_shapes(f"{at}encoder_attn.{part}_proj", d, width))
    return shapes


def stack_shapes(side, stack, memory=0):
    """Everything of a stack but its token embedding."""
    d, shapes = stack["hidden_size"], {}
    for i in range(stack["num_hidden_layers"]):
        shapes.update(layer_shapes(f"{side}.layers.{i}.", d, stack["intermediate_size"], memory))
    if stack["positions"] == "learned":
        rows = stack["max_position_embeddings"] + stack["position_offset"]
        shapes[f"{side}.embed_positions.weight"] = (rows, d)
    if stack["embedding_norm"]:
        shapes.update(norm_shapes(f"{side}.layernorm_embedding", d))
    if stack["final_norm"]:
        shapes.update(norm_shapes(f"{side}.layer_norm", d))
    return shapes


def check(tensors, shapes):
    """Exactly the tensors that the configuration calls for, in their shapes."""
    for name in sorted(set(tensors) - set(shapes)):
        option = option_of(name)
        raise Refused(f"the option {option} is not supported (the model has {name})" if option else
                      f"the model has the tensor {name}, which its options do not call for")
    for name, shape in shapes.items():
        if name not in tensors:
            raise Refused(f"the tensor {name} is missing")
        if tuple(tensors[name].shape) != tuple(shape):
            raise Refused(f"the tensor {name} has the shape {list(tensors[name].shape)}; "
                          f"{list(shape)} is called for")


def same(a, b):
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.key() == b.key():
        return True
    return tuple(a.shape) == tuple(b.shape) and np.array_equal(a.array(), b.array())


def drop_tied(tensors, name, source):
    """Forget a duplicate that the options tie to another tensor; it must be equal."""
    copy = tensors.pop(name, None)
    if copy is not None and source in tensors and not same(copy, tensors[source]):
        raise Refused(f"{name} differs from {source} though the options tie them")


def common_dtype(tensors):
    """The narrowest type that holds every weight exactly; doubles become F32."""
    kinds = {tensor.dtype for tensor in tensors.values()}
    return kinds.pop() if kinds in ({"F16"}, {"BF16"}) else "F32"
