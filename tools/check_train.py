#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check tools/train.py on tiny runs of a decoder and of an encoder-decoder: resuming, export and
pruning keep what was learnt.

    tools/check_train.py
"""
import math
import os
import re
import subprocess
import sys
import tempfile

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import torch

import bpe
import reference
import reference_seq2seq

HERE = os.path.dirname(os.path.abspath(__file__))
TEXT = os.path.join(HERE, "..", "tests", "data", "tiny.txt")
TOKENIZER = os.path.join(HERE, "..", "tests", "data", "tiny-opt")
SHAPE = ["--decoder-layers", "4", "--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "64",
         "--decoder-attention-heads", "2", "--tokens-per-sample", "32", "--max-target-positions",
         "32", "--dropout", "0.1", "--decay-steps", "0", "--log-interval", "1"]
PAIRS = ["--source-lang", "up", "--target-lang", "low", "--encoder-layers", "4",
         "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "48",
         "--encoder-attention-heads", "4", "--max-source-positions", "64", "--batch-size", "3",
         "--max-tokens", "100", "--label-smoothing", "0.1", "--update-freq", "2",
         "--share-all-embeddings", "--max-target-positions", "64"]


def train(*flags, data=TEXT):
    command = [sys.executable, os.path.join(HERE, "train.py"), data, "--valid", data,
               "--tokenizer", TOKENIZER, *SHAPE, *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write_pairs(work):
    """Two line-parallel files of a few words a line; returns what comes before .up and .low."""
    prefix = os.path.join(work, "pairs")
    with open(TEXT, encoding="utf-8") as file:
        words = file.read().split()
    lines = [" ".join(words[at:at + 1 + at % 5]) for at in range(0, len(words), 3)]
    for language, change in (("up", str.upper), ("low", str.lower)):
        with open(f"{prefix}.{language}", "w", encoding="utf-8") as out:
            out.writelines(change(line) + "\n" for line in lines)
    return prefix


def weights(save_dir):
    return torch.load(os.path.join(save_dir, "checkpoint_last.pt"))["model"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def printed_perplexity(output):
    return float(re.findall(r"depth [\dx]+ ppl ([\d.]+)", output)[0])


def folder_perplexity(path):
    return reference.perplexities(reference.Reference(path), path, TEXT, 32, [4], "even")


def pairs_perplexity(path, prefix):
    """Of the folder at full depth, over the pairs that training kept, by the reference."""
    model, tokenizer = reference_seq2seq.Seq2Seq.from_folder(path), bpe.Tokenizer(path)
    plans = [list(range(model.facts[side]["layers"])) for side in ("encoder", "decoder")]
    total, count = 0.0, 0
    with open(prefix + ".up", encoding="utf-8") as up, \
            open(prefix + ".low", encoding="utf-8") as low:
        for pair in zip(up, low):
            source, target = (tokenizer.encode(line.rstrip("\n")) + [2] for line in pair)
            if max(len(source), len(target)) <= 64:
                total -= float(model.log_probabilities(source, target, plans).sum())
                count += len(target)
    return math.exp(total / count)


def check_resume(work, *flags, data=TEXT):
    straight, parts = (os.path.join(work, name + "".join(flags[:2]))
                       for name in ("straight", "parts"))
    for save_dir, end in ((straight, "6"), (parts, "3"), (parts, "6")):
        train("--save-dir", save_dir, "--max-update", end, *flags, data=data)
    return equal(weights(straight), weights(parts))


def check_export(work, *flags):
    """The exported folder, read by the reference, has the perplexity that training printed."""
    out = os.path.join(work, "folder" + "".join(flags))
    printed = printed_perplexity(train("--save-dir", out + "-run", "--max-update", "20",
                                       "--export", out, *flags))
    found = folder_perplexity(out)["depths"][0]["perplexity"]
    return abs(found / printed - 1) < 2e-3  # the folder holds bfloat16 weights


def check_prune(work):
    full, pruned = os.path.join(work, "full"), os.path.join(work, "pruned")
    train("--save-dir", full, "--max-update", "5")
    train("--save-dir", pruned, "--max-update", "0", "--decoder-layers-to-keep", "1,3",
          "--restore-file", os.path.join(full, "checkpoint_last.pt"))
    a, b = weights(full), weights(pruned)
    kept = [name for name in b if ".layers." in name]
    same = all(torch.equal(b[name], a[name.replace(".layers.1.", ".layers.3.")
                                      if ".layers.1." in name
                                      else name.replace(".layers.0.", ".layers.1.")])
               for name in kept)
    return same and len(kept) == sum(".layers." in name for name in a) // 2


def check_export_pairs(work, data, *flags):
    out = os.path.join(work, "pair-folder" + "".join(flags[-2:]))
    printed = printed_perplexity(train("--save-dir", out + "-run", "--max-update", "20",
                                       "--export", out, *PAIRS, *flags, data=data))
    return abs(pairs_perplexity(out, data) / printed - 1) < 2e-3


def check_prune_pairs(work, data):
    """From a checkpoint and from a folder, the layers kept are the ones that were asked for."""
    full, folder = os.path.join(work, "full-pairs"), os.path.join(work, "full-pairs-folder")
    train("--save-dir", full, "--max-update", "5", "--export", folder, *PAIRS, data=data)
    whole, same = weights(full), True
    for source, close in ((os.path.join(full, "checkpoint_last.pt"), 0), (folder, 2 ** -8)):
        pruned = os.path.join(work, "pruned-" + os.path.basename(source))
        train("--save-dir", pruned, "--max-update", "0", "--restore-file", source,
              "--encoder-layers-to-keep", "0,3", "--decoder-layers-to-keep", "2", *PAIRS, data=data)
        part, place = weights(pruned), {"encoder": ["0", "3"], "decoder": ["2"]}
        for name, value in part.items():
            pieces = name.split(".")
            if pieces[1] == "layers":
                pieces[2] = place[pieces[0]][int(pieces[2])]
            same &= torch.allclose(value, whole[".".join(pieces)], rtol=close, atol=0)
        same &= sum(".layers." in n for n in part if n.startswith("encoder")) * 2 == sum(
            ".layers." in n for n in whole if n.startswith("encoder"))
    return same


def main():
    with tempfile.TemporaryDirectory() as work:
        pairs = write_pairs(work)
        checks = {
            "a resumed run equals an unbroken one": check_resume(work),
            "an opt folder scores as the run did": check_export(work),
            "a post-norm sinusoidal folder scores as the run did": check_export(
                work, "--no-decoder-normalize-before", "--no-decoder-learned-pos"),
            "pruning keeps the chosen layers": check_prune(work),
            "a resumed run of pairs equals an unbroken one": check_resume(
                work, *PAIRS, data=pairs),
            "a pre-norm encoder-decoder folder scores as the run did": check_export_pairs(
                work, pairs, "--no-encoder-learned-pos", "--no-decoder-learned-pos"),
            "a post-norm encoder-decoder folder scores as the run did": check_export_pairs(
                work, pairs, "--no-share-all-embeddings", "--activation-fn", "gelu",
                "--no-encoder-normalize-before", "--no-decoder-normalize-before"),
            "pruning keeps the chosen layers of both stacks": check_prune_pairs(work, pairs),
        }
    for name, passed in checks.items():
        print(f"{'ok' if passed else 'FAILED'}: {name}")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
