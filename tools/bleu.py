# SPDX-License-Identifier: Apache-2.0
"""Corpus BLEU with one reference each, as sacrebleu computes it by default: 13a tokens, up to four of
them in a row, exponential smoothing. `fathom eval` prints the same number."""
import collections
import html
import math
import re

SEPARATIONS = [(re.compile(pattern), replacement) for pattern, replacement in (
    (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 "), (r"([^0-9])([\.,])", r"\1 \2 "),
    (r"([\.,])([^0-9])", r" \1 \2"), (r"([0-9])(-)", r"\1 \2 "))]


def tokens_13a(text):
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    text = f" {html.unescape(text)} "
    for pattern, replacement in SEPARATIONS:
        text = pattern.sub(replacement, text)
    return text.split()


def grams(tokens, n):
    return collections.Counter(tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1))


def corpus_bleu(answers, references):
    matched, total, length, wanted = [0] * 4, [0] * 4, 0, 0
    for answer, reference in zip(answers, references):
        said, right = tokens_13a(answer), tokens_13a(reference)
        length, wanted = length + len(said), wanted + len(right)
        for n in range(4):
            found = grams(said, n + 1)
            matched[n] += sum((found & grams(right, n + 1)).values())
            total[n] += sum(found.values())
    smooth, log_sum = 1.0, 0.0
    for hits, tried in zip(matched, total):
        if not tried:
            return 0.0
        if not hits:
            smooth *= 2
        log_sum += math.log(hits / tried if hits else 1 / (smooth * tried)) / 4
    return 100 * math.exp(log_sum + (1 - wanted / length if length < wanted else 0))
