#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check tools/train.py on a tiny run: resuming, export and pruning keep what was learnt.

    tools/check_train.py
"""
import os
import re
import subprocess
import sys
import tempfile

import torch

import reference

HERE = os.path.dirname(os.path.abspath(__file__))
TEXT = os.path.join(HERE, "..", "tests", "data", "tiny.txt")
TOKENIZER = os.path.join(HERE, "..", "tests", "data", "tiny-opt")
SHAPE = ["--decoder-layers", "4", "--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "64",
         "--decoder-attention-heads", "2", "--tokens-per-sample", "32", "--max-target-positions",
         "32", "--dropout", "0.1", "--decay-steps", "0", "--log-interval", "1"]


def train(*flags, shape=SHAPE):
    command = [sys.executable, os.path.join(HERE, "train.py"), TEXT, "--valid", TEXT,
               "--tokenizer", TOKENIZER, *shape, *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def weights(save_dir):
    return torch.load(os.path.join(save_dir, "checkpoint_last.pt"))["model"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def printed_perplexity(output):
    return float(re.findall(r"depth \d+ ppl ([\d.]+)", output)[0])


def folder_perplexity(path):
    return reference.perplexities(reference.Reference(path), path, TEXT, 32, [4], "even")


def check_resume(work):
    straight, parts = os.path.join(work, "straight"), os.path.join(work, "parts")
    train("--save-dir", straight, "--max-update", "6")
    train("--save-dir", parts, "--max-update", "3")
    train("--save-dir", parts, "--max-update", "6")
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


def main():
    with tempfile.TemporaryDirectory() as work:
        checks = {
            "a resumed run equals an unbroken one": check_resume(work),
            "an opt folder scores as the run did": check_export(work),
            "a post-norm sinusoidal folder scores as the run did": check_export(
                work, "--no-decoder-normalize-before", "--no-decoder-learned-pos"),
            "pruning keeps the chosen layers": check_prune(work),
        }
    for name, passed in checks.items():
        print(f"{'ok' if passed else 'FAILED'}: {name}")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
