#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turn WikiText-2 and the English side of Tatoeba into plain text for the demo model.

Writes train.txt, valid.txt and test.txt: UTF-8, one paragraph a line, documents separated by an
empty line. WikiText's tokenisation is undone, its headings go, and so does every sentence that
holds an <unk>. Tatoeba's sentences are made unique, shuffled with a fixed seed and joined into
documents of one to eight; one sentence in a hundred goes to valid and one to test, so no English
sentence is in two of the files.

    tools/prepare_demo_data.py --wikitext wikitext-2 --tatoeba deu-eng.zip --out demo-data
"""
import argparse
import os
import random
import re
import zipfile

CLEAN = [(re.compile(a), b) for a, b in [
    (r" @([-,.])@ ", r"\1"),
    (r"(?<=\w) '(?=(?:s|t|re|ve|ll|d|m)\b)", "'"),
    (r"\b([OD]) '(?=[A-Z])", r"\1'"),
    (r"(?<=s) ' ", "' "),
    (r"(?<=\d) – (?=\d)", "–"),
    (r" ([,.;:!?%)\]])", r"\1"),
    (r"([(\[$£€]) ", r"\1"),
    (r"(?<=\d): (?=\d\d)", ":"),
    (r" / ", "/"),
    (r" n't\b", "n't"),
    (r"(\. ){2,}\.", "..."),
    (r"\(\s*[,;]?\s*\)", ""),
    (r" {2,}", " "),
]]


def detokenise(text):
    """One sentence of WikiText as people write it."""
    text = " " + text + " "
    for pattern, replacement in CLEAN:
        text = pattern.sub(replacement, text)
    parts = text.split('"')
    if len(parts) % 2 == 0:  # an unpaired quotation mark
        return "".join(parts).strip()
    inside = False
    out = parts[0]
    for part in parts[1:]:
        inside = not inside
        out = out.rstrip() + ' "' + part.lstrip() if inside else out.rstrip() + '"' + part
    return re.sub(r'([(\[]) "', r'\1"', re.sub(r'" ([,.;:!?)])', r'"\1', out)).strip()


def wikitext_documents(path):
    """Sections of the articles, each a list of paragraphs."""
    documents, paragraphs = [], []
    for line in open(path, encoding="utf-8"):
        line = line.strip()
        if line.startswith("= "):
            documents.append(paragraphs)
            paragraphs = []
        elif line:
            sentences = re.split(r'(?<= [.!?])(?: "(?= |$))? ', line + " ")
            kept = [detokenise(s) for s in sentences if "<unk>" not in s]
            kept = [s for s in kept if len(s) > 20]
            if kept:
                paragraphs.append(" ".join(kept))
    documents.append(paragraphs)
    return [d for d in documents if sum(map(len, d)) >= 80]


def tatoeba_documents(path, rng):
    """{"train": documents, "valid": ..., "test": ...}; a document is one line of sentences."""
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("deu.txt").decode("utf-8").splitlines()
    sentences = sorted({line.split("\t")[0].strip() for line in lines})
    rng.shuffle(sentences)
    held = len(sentences) // 100
    splits = {"valid": sentences[:held], "test": sentences[held:2 * held],
              "train": sentences[2 * held:]}
    documents = {}
    for name, part in splits.items():
        documents[name], at = [], 0
        while at < len(part):
            count = rng.randint(1, 8)
            documents[name].append([" ".join(part[at:at + count])])
            at += count
    return documents


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wikitext", required=True, help="folder with train, valid and test.txt")
    parser.add_argument("--tatoeba", required=True, help="deu-eng.zip of manythings.org/anki")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    tatoeba = tatoeba_documents(args.tatoeba, rng)
    os.makedirs(args.out, exist_ok=True)
    for split in ("train", "valid", "test"):
        wiki = wikitext_documents(os.path.join(args.wikitext, split + ".txt"))
        documents = wiki + tatoeba[split]
        rng.shuffle(documents)
        with open(os.path.join(args.out, split + ".txt"), "w", encoding="utf-8") as out:
            out.write("\n\n".join("\n".join(paragraphs) for paragraphs in documents) + "\n")
        words = [sum(len(p.split()) for d in part for p in d) for part in (wiki, tatoeba[split])]
        print(f"{split}: {len(documents)} documents, {words[0]} words of WikiText-2, "
              f"{words[1]} words of Tatoeba")


if __name__ == "__main__":
    main()
