#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write folders of fairseq's shapes with random weights, for tests and for measuring speed.

    tools/random_fairseq.py --preset wiki103 --out wiki103            (246,933,504 parameters)
    tools/random_fairseq.py --preset wiki103 --layers 8 --out half    (146,163,712)
    tools/random_fairseq.py --preset roberta-base --out roberta
    tools/random_fairseq.py --preset wmt-big --out wmt
    tools/random_fairseq.py --preset tiny-lm-adaptive --out tests/data/tiny-lm-adaptive

The presets other than tiny ones are for speed only: their text is noise. Needs numpy only.
"""
import argparse
import os
import zlib

if __name__ == "__main__":
    import packages
    packages.need("numpy")

import numpy as np

import folder
from fairseq_tensors import linear_shapes, norm_shapes, stack_shapes

NOTE = "random weights: for speed only"
BLOCK = 1 << 20  # random numbers are drawn once and reused from a place that the name decides


def stack(layers, d, ffn, heads, **other):
    facts = {"num_hidden_layers": layers, "hidden_size": d, "num_attention_heads": heads,
             "intermediate_size": ffn, "norm": "post", "final_norm": False,
             "embedding_norm": False, "activation_function": "relu", "layer_norm_eps": 1e-5,
             "positions": "sinusoidal", "position_offset": 2, "max_position_embeddings": 512,
             "embed_scale": d ** 0.5, "layerdrop": 0.2}
    return {**facts, **other}


def adaptive_lm(part, vocab, cutoffs, tied=True, factor=4):
    """transformer_lm_wiki103: adaptive input and softmax, weights and projections tied; or a
    plain embedding and an adaptive softmax of its own."""
    d, ends = part["hidden_size"], [*cutoffs, vocab]
    softmax = "decoder.adaptive_softmax."
    shapes = {**stack_shapes("decoder", part),
              softmax + "head.class_proj.weight": (len(cutoffs), d)}
    config = {"model_type": "fathom_lm", "vocab_size": vocab, **part, "tie_word_embeddings": tied,
              "adaptive_softmax": {"cutoffs": cutoffs, "factor": factor, "tie_weights": tied,
                                   "tie_projections": tied},
              "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    if tied:
        config["adaptive_input"] = {"cutoffs": cutoffs, "factor": factor}
    else:
        shapes["decoder.embed_tokens.weight"] = (vocab, d)
        shapes[softmax + "head.word_proj.weight"] = (ends[0], d)
    for band, (begin, end) in enumerate(zip([0, *ends], ends)):
        dim, at = int(d // factor ** band), f"decoder.embed_tokens.embeddings.{band}."
        if tied:
            shapes[at + "0.weight"], shapes[at + "1.weight"] = (end - begin, dim), (d, dim)
        elif band:
            shapes[f"{softmax}tail.{band - 1}.0.weight"] = (dim, d)
            shapes[f"{softmax}tail.{band - 1}.2.weight"] = (end - begin, dim)
    return config, shapes


def roberta(part, vocab, heads=()):
    d = part["hidden_size"]
    shapes = {**stack_shapes("encoder", part), "encoder.embed_tokens.weight": (vocab, d),
              **linear_shapes("encoder.lm_head.dense", d, d),
              **norm_shapes("encoder.lm_head.layer_norm", d), "encoder.lm_head.bias": (vocab,)}
    for head in heads:
        at = f"classification_heads.{head['name']}."
        shapes.update(linear_shapes(at + "dense", d, d))
        shapes.update(linear_shapes(at + "out_proj", len(head["labels"]), d))
    return {"model_type": "fathom_encoder", "vocab_size": vocab, "encoder": part, "mlm_head": True,
            "tie_word_embeddings": True, "mlm_activation": "gelu",
            "classification_heads": list(heads), "fathom_pooling": "mean", "bos_token_id": 0,
            "pad_token_id": 1, "eos_token_id": 2, "mask_token_id": vocab - 1}, shapes


def translator(encoder, decoder, vocab):
    d = decoder["hidden_size"]
    shapes = {**stack_shapes("encoder", encoder),
              **stack_shapes("decoder", decoder, encoder["hidden_size"]),
              "decoder.embed_tokens.weight": (vocab, d)}
    return {"model_type": "fathom_seq2seq", "vocab_size": vocab, "source_vocab_size": vocab,
            "encoder": encoder, "decoder": decoder, "share_embeddings": True,
            "tie_word_embeddings": True, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
            "unk_token_id": 3, "decoder_start_token_id": 2}, shapes


LEARNED = {"positions": "learned", "embedding_norm": True, "embed_scale": 1.0,
           "activation_function": "gelu"}
PRE = {"norm": "pre"}
TEXT_HEADS = ({"name": "sentence_classification_head", "labels": ["good", "bad"],
               "activation": "tanh"},
              {"name": "mnli", "labels": ["contradiction", "neutral", "entailment"],
               "activation": "tanh"})


def preset(name, layers):
    if name == "wiki103":
        part = stack(layers or 16, 1024, 4096, 8, max_position_embeddings=3072, **PRE)
        return adaptive_lm(part, 267744, [20000, 60000])
    if name == "roberta-base":
        return roberta(stack(layers or 12, 768, 3072, 12, **LEARNED), 50265)
    if name == "wmt-big":
        sides = [stack(n, 1024, 4096, 16, max_position_embeddings=1024)
                 for n in (layers or 12, (layers or 12) // 2)]
        return translator(*sides, 32768)
    if name == "tiny-lm-adaptive":
        part = stack(layers or 5, 32, 48, 4, max_position_embeddings=64, **PRE)
        return adaptive_lm(part, 200, [20, 72])
    if name == "tiny-lm-bands":
        part = stack(layers or 3, 24, 40, 2, max_position_embeddings=48, positions="learned",
                     activation_function="gelu_tanh", final_norm=True, **PRE)
        return adaptive_lm(part, 96, [12, 40, 72], tied=False, factor=2.5)
    part = stack(layers or 5, 32, 80, 4, **{**LEARNED, "max_position_embeddings": 40})
    return roberta(part, 120, TEXT_HEADS)


def random_tensor(numbers, name, shape):
    """A function of the seed and the name alone, so that no tensor depends on another."""
    size = int(np.prod(shape))
    begin = zlib.crc32(name.encode()) % (len(numbers) // 2) if size <= len(numbers) // 2 else 0
    values = np.resize(numbers[begin:], size).reshape(shape)
    if len(shape) == 1:
        is_gain = "norm" in name and name.endswith("weight")
        return values * np.float32(0.1) + np.float32(1 if is_gain else 0)
    return values * np.float32((2 if "embed" in name else 1) / np.sqrt(shape[1]))


def words_of(count):
    """Made-up words, each once."""
    parts = ["ba", "de", "fi", "go", "lu", "ma", "ne", "ri", "so", "tu", "va", "we", "ka", "pe",
             "zi", "ho"]
    for i in range(count):
        word = ""
        while True:
            word += parts[i % len(parts)]
            i //= len(parts)
            if not i:
                break
            i -= 1
        yield word


def write_texts(out, config):
    """A dictionary of made-up words and what fathom_tokenizer.json says of it."""
    family = config["model_type"]
    extra = ["<mask>"] if family == "fathom_encoder" else []
    count = config["vocab_size"] - 4 - len(extra)
    with open(os.path.join(out, "dict.txt"), "w", encoding="utf-8") as file:
        file.writelines(f"{word} {count - i}\n" for i, word in enumerate(words_of(count)))
    entry = {"kind": "fairseq", "dictionary": "dict.txt", "bpe": "none", "tokenizer": "none"}
    if extra:
        entry["extra_symbols"] = extra
    if family == "fathom_lm":
        entry.update({"bos": False, "eos": False, "start": "</s>"})
    elif family == "fathom_encoder":
        entry.update({"bos": True, "eos": True, "pair": ["</s>", "</s>"]})
    else:
        entry.update({"bos": False, "eos": True, "source_lang": "en", "target_lang": "de"})
        folder.write_json({"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
                           "decoder_start_token_id": 2, "do_sample": False, "num_beams": 5,
                           "length_penalty": 1.0, "max_new_tokens": 200},
                          os.path.join(out, "generation_config.json"))
    folder.write_json(entry, os.path.join(out, "fathom_tokenizer.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--preset", required=True, choices=["wiki103", "roberta-base", "wmt-big",
                                            "tiny-lm-adaptive", "tiny-lm-bands", "tiny-encoder"])
    add("--layers", type=int, default=0, help="default: the preset's (wmt-big: the encoder's)")
    add("--dtype", choices=["f32", "bf16", "f16"], help="default: bf16, of tiny ones f32")
    add("--seed", type=int, default=1)
    add("--out", required=True)
    args = parser.parse_args()
    config, shapes = preset(args.preset, args.layers)
    is_tiny = args.preset.startswith("tiny")
    dtype = args.dtype or ("f32" if is_tiny else "bf16")
    config["torch_dtype"] = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[dtype]
    if not is_tiny:
        config["fathom_note"] = NOTE
    os.makedirs(args.out, exist_ok=True)
    folder.write_json(config, os.path.join(args.out, "config.json"))
    write_texts(args.out, config)
    numbers = np.random.default_rng(args.seed).standard_normal(2 * BLOCK, dtype=np.float32)
    folder.write_safetensors(os.path.join(args.out, "model.safetensors"), shapes, dtype.upper(),
                             lambda name: random_tensor(numbers, name, shapes[name]))
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    with open(os.path.join(args.out, "README.md"), "w", encoding="utf-8") as file:
        file.write(f"# Random weights\n\n`{config['model_type']}`, {count} random parameters, seed "
                   f"{args.seed}, written by `tools/random_fairseq.py --preset {args.preset}`.\nIt "
                   "was never trained: it serves tests and measurements of speed, and its text is "
                   "noise.\n")
    print(f"{args.out}: {count} parameters, {dtype}")


if __name__ == "__main__":
    main()
