#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Greedy text of the server in f32 against PyTorch: every token must be PyTorch's best one after the same beginning, but where PyTorch's
two best logits are closer than 5e-5.

  bench/peers/greedy.py --binary build/fathom [FOLDER...]

Without folders, random ones of GPT-2's and OPT's shape are made (tools/random_checkpoint.py). Needs Debian's python3-torch.
Exit status 1 if a token differs.
"""
import argparse
import os
import random
import sys
import tempfile

import servers
import sides
import weights

CLOSE = 5e-5
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SHAPES = [("gpt2", 2, 32, 2), ("gpt2", 5, 64, 4), ("gpt2", 12, 128, 4), ("opt", 3, 32, 4), ("opt", 6, 64, 2), ("opt", 12, 128, 4)]


def make(folder):
    """Folders of random weights."""
    for i, (family, layers, hidden, heads) in enumerate(SHAPES):
        out = os.path.join(folder, f"{family}-{layers}x{hidden}")
        sides.run([sys.executable, os.path.join(ROOT, "tools/random_checkpoint.py"), "--family", family, "--layers", str(layers),
                   "--hidden", str(hidden), "--heads", str(heads), "--vocab", "1000", "--positions", "128", "--seed", str(i + 1),
                   "--tokenizer", os.path.join(ROOT, "tests/data/tiny-gpt2"), "--out", out])
        yield out


def compare(model, options):
    """(tokens compared, tokens that were too close to call, tokens that differ)"""
    rng, facts = random.Random(1), weights.facts_of(weights.folder.read_config(model))
    peer = sides.Lines("PyTorch", [sys.executable, os.path.join(os.path.dirname(__file__), "torch_run.py"), model, "f32", "1"])
    server = servers.Fathom(options.binary, model, "--weights", "f32", "--threads", "1")
    count = close = wrong = 0
    try:
        for _ in range(options.prompts):
            prompt = [rng.randrange(facts["vocab"]) for _ in range(rng.randint(1, facts["context"] // 2))]
            tokens = server.complete(prompt, min(options.tokens, facts["context"] - len(prompt)))
            best = peer.ask(what="check", ids=prompt + tokens[:-1], **{"from": len(prompt)})
            for ours, theirs, gap in zip(tokens, best["tokens"], best["gaps"]):
                count += 1
                close += gap < CLOSE
                wrong += ours != theirs and gap >= CLOSE
    finally:
        peer.stop()
        server.stop()
    return count, close, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--binary", default="build/fathom")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        for model in options.folders or make(folder):
            count, close, wrong = compare(model, options)
            total += wrong
            print(f"{os.path.basename(os.path.normpath(model))}: {count} tokens, {close} too close to call, {wrong} differ", flush=True)
    sys.exit(total > 0)


if __name__ == "__main__":
    main()
