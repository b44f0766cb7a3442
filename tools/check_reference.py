#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check tools/reference.py against PyTorch's own TransformerEncoderLayer on model folders.

    tools/check_reference.py tests/data/tiny-*
"""
import sys

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import torch
from torch import nn

import reference


def torch_layer(model, index):
    facts, at = model.facts, f"decoder.layers.{index}."
    layer = nn.TransformerEncoderLayer(
        facts["dim"], facts["heads"], len(model.w[at + "fc1.bias"]), dropout=0.0,
        activation=lambda x: reference.activate(facts["activation"], x) if facts["activation"] in
        reference.TANH_GELU else getattr(nn.functional, facts["activation"])(x),
        layer_norm_eps=facts["eps"], batch_first=True, norm_first=facts["pre"],
        dtype=torch.float64)
    names = {"linear1": "fc1", "linear2": "fc2", "norm1": "self_attn_layer_norm",
             "norm2": "final_layer_norm", "self_attn.out_proj": "self_attn.out_proj"}
    state = {f"{ours}.{kind}": model.w[f"{at}{theirs}.{kind}"]
             for ours, theirs in names.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        state["self_attn.in_proj_" + kind] = torch.cat(
            [model.w[f"{at}self_attn.{part}_proj.{kind}"] for part in "qkv"])
    layer.load_state_dict(state)
    return layer.train()  # the fused path of eval mode is less exact; dropout is 0


@torch.no_grad()
def torch_logits(model, tokens, plan):
    facts, dim = model.facts, model.facts["dim"]

    def norm(x, name):
        return nn.functional.layer_norm(x, (dim,), model.w[name + ".weight"],
                                        model.w[name + ".bias"], facts["eps"])

    x = nn.functional.embedding(torch.tensor(tokens), model.w["decoder.embed_tokens.weight"])
    x = x * facts["scale"] + model.positions[facts["offset"]:][:len(tokens)]
    x = norm(x, "decoder.layernorm_embedding") if facts["embedding_norm"] else x
    mask = nn.Transformer.generate_square_subsequent_mask(len(tokens)).double()
    for index in plan:
        x = torch_layer(model, index)(x[None], mask)[0]
    x = norm(x, "decoder.layer_norm") if facts["final_norm"] else x
    output = "embed_tokens" if facts["tied"] else "output_projection"
    return nn.functional.linear(x, model.w[f"decoder.{output}.weight"])


def main():
    worst = 0.0
    for path in sys.argv[1:]:
        model = reference.Reference(path)
        tokens = [(7 * i * i + 3) % 300 for i in range(40)]
        for depth in range(1, model.facts["layers"] + 1):
            plan = reference.even(model.facts["layers"], depth)
            gap = (model.logits(tokens, plan) - torch_logits(model, tokens, plan)).abs().max()
            worst = max(worst, float(gap))
        print(f"{path}: largest difference so far {worst:.2e}")
    sys.exit(worst > 1e-9)


if __name__ == "__main__":
    main()
