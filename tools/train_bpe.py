#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train a byte-level BPE on plain text and write the tokenizer files of a Hugging Face folder.

Ids of --style opt: 0 <s>, 1 <pad>, 2 </s>, 3 <unk> (fairseq's and OPT's), the 256 bytes, the merges
in order. Ids of --style fairseq: the same, but no start symbol is put before a text, and every
special token has its own role. Ids of --style gpt2: the 256 bytes in GPT-2's order, the merges,
<|endoftext|>.

    tools/train_bpe.py --vocab-size 8000 --out demo-tokenizer demo-data/train.txt
"""
import argparse
import json
import os

if __name__ == "__main__":
    import packages
    packages.need("regex")

import bpe

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
FIRST = {"opt": SPECIAL, "fairseq": SPECIAL, "gpt2": []}
LAST = {"opt": [], "fairseq": [], "gpt2": ["<|endoftext|>"]}
ROLES = {"opt": {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>",
                 "pad_token": "<pad>"},
         "fairseq": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                     "pad_token": "<pad>"},
         "gpt2": {role: "<|endoftext|>" for role in ("bos_token", "eos_token", "unk_token")}}


def dump(value, folder, name):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, indent=None if name == "vocab.json" else 2)
        out.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--max-length", type=int, default=512, help="model_max_length to declare")
    parser.add_argument("--style", choices=sorted(FIRST), default="opt")
    parser.add_argument("texts", nargs="+")
    args = parser.parse_args()
    texts = [open(path, encoding="utf-8").read() for path in args.texts]
    first, last = FIRST[args.style], LAST[args.style]
    alphabet = ([bpe.CHARACTER[b] for b in range(256)] if first
                else list(bpe.CHARACTER.values()))
    merges = bpe.train(texts, args.vocab_size - len(first) - len(alphabet) - len(last))
    pieces = first + alphabet + [a + b for a, b in merges] + last
    os.makedirs(args.out, exist_ok=True)
    dump({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, args.out, "vocab.json")
    with open(os.path.join(args.out, "merges.txt"), "w", encoding="utf-8") as out:
        out.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    dump({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": args.style == "opt",
          "add_prefix_space": False, "errors": "replace", "model_max_length": args.max_length,
          **ROLES[args.style]}, args.out, "tokenizer_config.json")
    dump(ROLES[args.style], args.out, "special_tokens_map.json")
    print(f"{len(dict.fromkeys(pieces))} tokens, {len(merges)} merges")


if __name__ == "__main__":
    main()
