# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE as GPT-2 defines it: training, encoding, decoding and its two files."""
import collections
import heapq
import json
import os

import regex

PATTERN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def byte_characters():
    """GPT-2's printable character for each of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {b: chr(b) for b in plain}, 256
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(extra)
            extra += 1
    return table


CHARACTER = byte_characters()
BYTE = {c: b for b, c in CHARACTER.items()}


def spell(piece):
    return "".join(CHARACTER[b] for b in piece.encode("utf-8"))


def train(texts, merge_count):
    """The first merge_count merges of a corpus; ties go to the pair that sorts first."""
    counts = collections.Counter()
    for text in texts:
        counts.update(PATTERN.findall(text))
    words = [(list(spell(word)), count) for word, count in sorted(counts.items())]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for index, (symbols, count) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += count
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < merge_count:
        negative, pair = heapq.heappop(heap)
        if -negative != pairs[pair]:  # an old entry: the pair's count has changed since
            continue
        merges.append(pair)
        changed = set()
        for index in where.pop(pair):
            symbols, count = words[index]
            for old in zip(symbols, symbols[1:]):
                pairs[old] -= count
                changed.add(old)
            symbols[:] = merge(symbols, pair)
            for new in zip(symbols, symbols[1:]):
                pairs[new] += count
                changed.add(new)
                where[new].add(index)
        for other in changed:
            if pairs[other] > 0:
                heapq.heappush(heap, (-pairs[other], other))
        pairs.pop(pair, None)
    return merges


def merge(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    """vocab.json and merges.txt of a folder; the config's three special ids when it has them."""

    def __init__(self, folder):
        with open(os.path.join(folder, "vocab.json"), encoding="utf-8") as file:
            self.ids = json.load(file)
        with open(os.path.join(folder, "merges.txt"), encoding="utf-8") as file:
            lines = [line.rstrip("\n") for line in file]
        lines = [line for line in lines if line and not line.startswith("#version")]
        self.ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
        self.pieces = {i: piece for piece, i in self.ids.items()}
        self.cache = {}

    def encode_word(self, word):
        if word not in self.cache:
            symbols = list(spell(word))
            while len(symbols) > 1:
                pair = min(zip(symbols, symbols[1:]), key=lambda p: self.ranks.get(p, 1 << 30))
                if pair not in self.ranks:
                    break
                symbols = merge(symbols, pair)
            self.cache[word] = [self.ids[s] for s in symbols]
        return self.cache[word]

    def encode(self, text):
        """Ids of plain text; nothing in it is read as a special token."""
        return [i for word in PATTERN.findall(text) for i in self.encode_word(word)]

    def decode(self, ids):
        data = bytearray()
        for i in ids:
            data += bytes(BYTE[c] for c in self.pieces.get(i, ""))
        return data.decode("utf-8", errors="replace")
