#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turn Tatoeba's English-German pairs into line-parallel text for the translation demo.

Writes train, valid and test, each as .de and .en: plain UTF-8, line n of one is the translation of
line n of the other; valid.tsv and test.tsv hold the same pairs as `fathom eval` and `fathom search`
read them, German, a tab, English. The English sentences of valid and test are drawn with a fixed
seed from all unique ones, each with one of its translations. A pair is in train only if neither of
its sides occurs in valid or test, compared in case-folded letters and digits alone.

    tools/prepare_translation_data.py --tatoeba deu-eng.zip --out translate-data
"""
import argparse
import os
import random
import zipfile


def key(sentence):
    """What two spellings of the same sentence share."""
    return "".join(c for c in sentence.casefold() if c.isalnum()) or sentence.strip()


def read_pairs(path):
    """Unique (German, English) pairs in the file's order."""
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("deu.txt").decode("utf-8").splitlines()
    pairs = [line.split("\t")[:2] for line in lines]
    return list(dict.fromkeys((" ".join(german.split()), " ".join(english.split()))
                              for english, german in pairs))


def held_out(pairs, count, rng):
    """count pairs for valid and count for test: no sentence of either language occurs twice."""
    by_english = {}
    for german, english in pairs:
        by_english.setdefault(key(english), []).append((german, english))
    chosen, seen = [], set()
    for english in rng.sample(sorted(by_english), len(by_english)):
        pair = rng.choice(by_english[english])
        if key(pair[0]) not in seen:
            seen.add(key(pair[0]))
            chosen.append(pair)
        if len(chosen) == 2 * count:
            break
    return chosen[:count], chosen[count:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tatoeba", required=True, help="deu-eng.zip of manythings.org/anki")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--held-out", type=int, default=1000, help="pairs of valid, and of test")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    pairs = read_pairs(args.tatoeba)
    valid, test = held_out(pairs, args.held_out, random.Random(args.seed))
    german, english = ({key(pair[side]) for pair in valid + test} for side in (0, 1))
    train = [p for p in pairs if key(p[0]) not in german and key(p[1]) not in english]
    os.makedirs(args.out, exist_ok=True)
    for name, part in (("train", train), ("valid", valid), ("test", test)):
        for side, language in enumerate(("de", "en")):
            with open(os.path.join(args.out, f"{name}.{language}"), "w", encoding="utf-8") as out:
                out.writelines(pair[side] + "\n" for pair in part)
        if name != "train":
            with open(os.path.join(args.out, name + ".tsv"), "w", encoding="utf-8") as out:
                out.writelines("\t".join(pair) + "\n" for pair in part)
        words = [sum(len(pair[side].split()) for pair in part) for side in (0, 1)]
        print(f"{name}: {len(part)} pairs, {words[0]} German and {words[1]} English words")


if __name__ == "__main__":
    main()
