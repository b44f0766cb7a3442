#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a model folder with random weights, for tests and for measuring speed. Needs numpy only.

The weights are scaled so that every layer matters and logits are neither flat nor peaked. With
--preset large the folder is a 24 x 1024 OPT, labelled as for speed only: its text is noise.

    tools/random_checkpoint.py --preset large --tokenizer deploy/demo --out large
    tools/random_checkpoint.py --family gpt2 --layers 6 --hidden 32 --tokenizer tiny --out tiny-gpt2
    tools/random_checkpoint.py --family fathom_seq2seq --encoder-layers 4 --layers 3 --untied \
        --separate-embeddings --tokenizer tiny --out tiny-mt

Of an encoder-decoder, the flags without --encoder- are the decoder's.
"""
import argparse
import json
import os
import re
import zlib

if __name__ == "__main__":
    import packages
    packages.need("numpy", "regex")

import numpy as np

import folder

NOTE = "random weights: for speed only"
LARGE = {"family": "opt", "layers": 24, "hidden": 1024, "heads": 16, "ffn": 4096, "vocab": 50257,
         "positions": 2048, "dtype": "bf16"}


def layer_shapes(args, memory_width=0):
    """Tensors of one layer under fairseq's names, [out, in]; gpt2 renames and transposes them."""
    d, ffn = args.hidden, args.ffn
    shapes = {"fc1.weight": (ffn, d), "fc1.bias": (ffn,), "fc2.weight": (d, ffn), "fc2.bias": (d,)}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes[f"self_attn.{name}.weight"], shapes[f"self_attn.{name}.bias"] = (d, d), (d,)
    if memory_width:
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            fan_in = memory_width if name in ("k_proj", "v_proj") else d
            shapes[f"encoder_attn.{name}.weight"] = (d, fan_in)
            shapes[f"encoder_attn.{name}.bias"] = (d,)
        shapes.update(norm_shapes("encoder_attn_layer_norm", d))
    for name in ("self_attn_layer_norm", "final_layer_norm"):
        shapes[name + ".weight"] = shapes[name + ".bias"] = (d,)
    return shapes


def norm_shapes(name, d):
    return {name + ".weight": (d,), name + ".bias": (d,)}


def fairseq_like(args, prefix, final, output, memory_width=0):
    d = args.hidden
    shapes = {prefix + "embed_tokens.weight": (args.vocab, d)}
    if args.position_kind == "learned":
        rows = args.positions + args.position_offset
        shapes[prefix + "embed_positions.weight"] = (rows, d)
    if args.embedding_norm:
        shapes.update(norm_shapes(prefix + "layernorm_embedding", d))
    if args.final_norm:
        shapes.update(norm_shapes(prefix + final, d))
    if args.untied:
        shapes[output] = (args.vocab, d)
    for i in range(args.layers):
        for name, shape in layer_shapes(args, memory_width).items():
            shapes[f"{prefix}layers.{i}.{name}"] = shape
    return shapes


def gpt2_like(args):
    d, ffn = args.hidden, args.ffn
    shapes = {"wte.weight": (args.vocab, d), "wpe.weight": (args.positions, d),
              **norm_shapes("ln_f", d)}
    for i in range(args.layers):
        at = f"h.{i}."
        shapes.update({at + "attn.c_attn.weight": (d, 3 * d), at + "attn.c_attn.bias": (3 * d,),
                       at + "attn.c_proj.weight": (d, d), at + "attn.c_proj.bias": (d,),
                       at + "mlp.c_fc.weight": (d, ffn), at + "mlp.c_fc.bias": (ffn,),
                       at + "mlp.c_proj.weight": (ffn, d), at + "mlp.c_proj.bias": (d,),
                       **norm_shapes(at + "ln_1", d), **norm_shapes(at + "ln_2", d)})
    if not args.bare:
        shapes = {"transformer." + name: shape for name, shape in shapes.items()}
    if args.untied:
        shapes["lm_head.weight"] = (args.vocab, d)
    return shapes


def encoder_decoder(args):
    """(config, shapes) of a fathom_seq2seq folder."""
    encoder = argparse.Namespace(**vars(args))
    encoder.layers, encoder.heads = args.encoder_layers, args.encoder_heads or args.heads
    encoder.ffn, encoder.untied = args.encoder_ffn or args.ffn, False
    stacks = {}
    for side, stack in (("encoder", encoder), ("decoder", args)):
        stacks[side] = {"num_hidden_layers": stack.layers, "hidden_size": stack.hidden,
                        "num_attention_heads": stack.heads, "intermediate_size": stack.ffn,
                        "norm": stack.norm, "final_norm": stack.final_norm,
                        "embedding_norm": stack.embedding_norm,
                        "activation_function": stack.activation or "relu",
                        "layer_norm_eps": 1e-5, "positions": stack.position_kind,
                        "position_offset": stack.position_offset,
                        "max_position_embeddings": args.positions,
                        "embed_scale": stack.embed_scale, "layerdrop": 0.0}
    shapes = fairseq_like(args, "decoder.", "layer_norm", "decoder.output_projection.weight",
                          args.hidden)
    shapes.update(fairseq_like(encoder, "encoder.", "layer_norm", ""))
    if not args.separate_embeddings:
        del shapes["encoder.embed_tokens.weight"]
    return {"model_type": "fathom_seq2seq",
            "architectures": ["FathomSeq2SeqForConditionalGeneration"],
            "vocab_size": args.vocab, "source_vocab_size": args.vocab,
            "share_embeddings": not args.separate_embeddings,
            "tie_word_embeddings": not args.untied, "bos_token_id": 0, "eos_token_id": 2,
            "pad_token_id": 1, "decoder_start_token_id": 2, **stacks}, shapes


def random_tensor(args, name, shape):
    """With --end-tilt, the norm before the output and the row of </s> lean the same way."""
    values = noise(args, name, shape)
    last_norm = ("decoder.layer_norm.bias" if args.final_norm else ".final_layer_norm.bias")
    output = "decoder.output_projection" if args.untied else "decoder.embed_tokens"
    if args.end_tilt and name.startswith("decoder.") and name.endswith(last_norm):
        values[0] += 2
    elif args.end_tilt and name.startswith(output):
        values[2, 0] += args.end_tilt
    return values


def noise(args, name, shape):
    """A function of the seed and the name alone, so that no tensor depends on another."""
    rng = np.random.default_rng([args.seed, zlib.crc32(name.encode())])
    values = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        is_gain = name.endswith("weight")
        return values * np.float32(0.1) + np.float32(1 if is_gain else 0)
    if any(part in name for part in ("embed", "wte", "wpe", "lm_head", "output_projection")):
        return values * np.float32(2 / np.sqrt(args.hidden))
    fan_in = shape[0] if args.family == "gpt2" else shape[1]
    return values * np.float32(args.layer_gain * layer_share(args, name) / np.sqrt(fan_in))


def layer_share(args, name):
    """With --lead, the decoder's other layers add little to what these do: a plan of them alone foretells the whole."""
    layer = re.search(r"(?:^|\.)(?:h|layers)\.(\d+)\.", name)
    adds = any(part in name for part in ("out_proj", "fc2", "c_proj"))
    if not args.lead or not layer or not adds or name.startswith("encoder."):
        return 1
    leads = {i * args.layers // args.lead for i in range(args.lead)}
    return 1 if int(layer[1]) in leads else args.rest_gain


def config_of(args):
    """(config.json, shapes of all tensors)."""
    tied = not args.untied
    if args.family == "fathom_seq2seq":
        return encoder_decoder(args)
    if args.family == "gpt2":
        return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": args.hidden,
                "n_layer": args.layers, "n_head": args.heads, "n_inner": args.ffn,
                "n_positions": args.positions, "n_ctx": args.positions, "vocab_size": args.vocab,
                "activation_function": args.activation or "gelu_new", "layer_norm_epsilon": 1e-5,
                "tie_word_embeddings": tied, "bos_token_id": args.vocab - 1,
                "eos_token_id": args.vocab - 1}, gpt2_like(args)
    common = {"hidden_size": args.hidden, "num_hidden_layers": args.layers,
              "num_attention_heads": args.heads, "vocab_size": args.vocab,
              "max_position_embeddings": args.positions, "layerdrop": 0.0,
              "activation_function": args.activation or "relu", "tie_word_embeddings": tied,
              "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    if args.family == "opt":
        args.position_kind, args.position_offset = "learned", 2
        args.final_norm, args.embedding_norm = args.norm == "pre", False
        return {"architectures": ["OPTForCausalLM"], "model_type": "opt", **common,
                "ffn_dim": args.ffn, "word_embed_proj_dim": args.hidden, "enable_bias": True,
                "do_layer_norm_before": args.norm == "pre", "_remove_final_layer_norm": False,
                "layer_norm_elementwise_affine": True}, \
            fairseq_like(args, "model.decoder.", "final_layer_norm", "lm_head.weight")
    return {"model_type": "fathom_lm", **common, "intermediate_size": args.ffn, "norm": args.norm,
            "final_norm": args.final_norm, "embedding_norm": args.embedding_norm,
            "layer_norm_eps": 1e-5, "positions": args.position_kind,
            "position_offset": args.position_offset, "embed_scale": args.embed_scale}, \
        fairseq_like(args, "decoder.", "layer_norm", "decoder.output_projection.weight")


def write_tokenizer(source, out, vocab):
    """Copy the tokenizer; ids that it does not know become <unusedN>."""
    folder.copy_tokenizer(source, out)
    path = os.path.join(out, "vocab.json")
    with open(path, encoding="utf-8") as file:
        ids = json.load(file)
    if len(ids) > vocab:
        raise SystemExit(f"the tokenizer has {len(ids)} tokens, more than the vocabulary's {vocab}")
    for i in range(len(ids), vocab):
        ids[f"<unused{i}>"] = i
    with open(path, "w", encoding="utf-8") as file:
        json.dump(ids, file, ensure_ascii=False)


def write(args, config, shapes):
    os.makedirs(args.out, exist_ok=True)
    if args.preset:
        config["fathom_note"] = NOTE
    config["torch_dtype"] = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[args.dtype]
    folder.write_json(config, os.path.join(args.out, "config.json"))
    if args.tokenizer:
        write_tokenizer(args.tokenizer, args.out, args.vocab)
    names = sorted(shapes)
    shards = [names[:len(names) // 2], names[len(names) // 2:]] if args.sharded else [names]
    files = ["model.safetensors"] if not args.sharded else [
        f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, part in zip(files, shards):
        folder.write_safetensors(os.path.join(args.out, file), {n: shapes[n] for n in part},
                                 args.dtype.upper(), lambda n: random_tensor(args, n, shapes[n]))
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    if args.sharded:
        size = count * folder.SIZE[args.dtype.upper()]
        folder.write_json({"metadata": {"total_size": size}, "weight_map": {
            n: file for file, part in zip(files, shards) for n in part}},
            os.path.join(args.out, "model.safetensors.index.json"))
    layers = (f"{args.encoder_layers} + {args.layers}" if args.family == "fathom_seq2seq"
              else f"{args.layers}")
    with open(os.path.join(args.out, "README.md"), "w", encoding="utf-8") as out:
        out.write(f"# Random weights\n\nA {layers} x {args.hidden} `{args.family}` checkpoint "
                  f"of {count} random parameters, seed {args.seed}, written by "
                  "`tools/random_checkpoint.py`.\nIt was never trained: it serves tests and "
                  "measurements of speed, and its text is noise.\n")
    print(f"{args.out}: {count} parameters, {args.dtype}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--preset", choices=["large"])
    add("--family", choices=["opt", "gpt2", "fathom_lm", "fathom_seq2seq"], default="opt")
    add("--layers", type=int, default=6)
    add("--hidden", type=int, default=32)
    add("--heads", type=int, default=4)
    add("--ffn", type=int, default=0, help="default: four times --hidden")
    add("--encoder-layers", type=int, default=6)
    add("--encoder-heads", type=int, default=0, help="default: --heads")
    add("--encoder-ffn", type=int, default=0, help="default: --ffn")
    add("--separate-embeddings", action="store_true", help="an embedding of the encoder's own")
    add("--vocab", type=int, default=0, help="default: the tokenizer's size")
    add("--positions", type=int, default=64, help="max_position_embeddings")
    add("--activation", default="", help="relu, gelu, gelu_new; default: the family's own")
    add("--norm", choices=["pre", "post"], default="pre")
    add("--final-norm", action=argparse.BooleanOptionalAction, default=True)
    add("--embedding-norm", action="store_true")
    add("--position-kind", choices=["learned", "sinusoidal", "none"], default="learned")
    add("--position-offset", type=int, default=2)
    add("--embed-scale", type=float, default=1.0)
    add("--layer-gain", type=float, default=1.0, help="scale of the layers' matrices")
    add("--lead", type=int, default=0, help="so many evenly spaced layers do most of the work")
    add("--rest-gain", type=float, default=0.1, help="with --lead, what the others add beside them")
    add("--end-tilt", type=float, default=0.0, help="fathom_seq2seq: make </s> likelier")
    add("--untied", action="store_true", help="an output matrix of its own")
    add("--bare", action="store_true", help="gpt2 names without the transformer. prefix")
    add("--dtype", choices=["f32", "bf16", "f16"], default="f32")
    add("--sharded", action="store_true", help="two files and an index")
    add("--tokenizer", default="", help="folder to copy the tokenizer files from")
    add("--seed", type=int, default=1)
    add("--out", required=True)
    args = parser.parse_args()
    if args.preset:
        for name, value in LARGE.items():
            setattr(args, name, value)
    args.ffn = args.ffn or 4 * args.hidden
    if not args.vocab:
        with open(os.path.join(args.tokenizer, "vocab.json"), encoding="utf-8") as file:
            args.vocab = len(json.load(file))
    write(args, *config_of(args))


if __name__ == "__main__":
    main()
