# SPDX-License-Identifier: Apache-2.0
"""The texts beside a fairseq checkpoint: dictionaries, labels, BPE codes, and what our folder says
about them in fathom_tokenizer.json."""
import json
import os
import shutil

import folder
from unpickle import Refused

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
OVERWRITE = " #fairseq:overwrite"
CODES = ("bpecodes", "bpe.codes", "bpe-codes", "bpe_codes", "codes", "code", "codes.txt",
         "bpe.code", "codes.bpe")
WORD_SPLITTERS = ("subword_nmt", "fastbpe")


class Dictionary:
    """dict.txt: `word count` lines; ids are fairseq's, after its four special symbols."""

    def __init__(self, path):
        self.path, self.name = path, os.path.basename(path)
        with open(path, "rb") as file:
            self.bytes = file.read()
        self.symbols, self.ids = list(SPECIALS), {s: i for i, s in enumerate(SPECIALS)}
        for at, line in enumerate(self.lines(), 1):
            self.add(at, line)

    def lines(self):
        try:
            text = self.bytes.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(f"{self.name} is not UTF-8") from None
        lines = text.split("\n")
        return lines[:-1] if lines and not lines[-1] else lines

    def add(self, at, line):
        overwrite = line.rstrip().endswith(OVERWRITE)
        line = line.rstrip()[:-len(OVERWRITE)] if overwrite else line.rstrip()
        word, space, count = line.rpartition(" ")
        if not space or not count.lstrip("-").isdigit():
            raise Refused(f"{self.name}: line {at} is not a word and its count")
        if word in self.ids and not overwrite:
            raise Refused(f"{self.name}: line {at} has {word!r} a second time")
        self.ids[word] = len(self.symbols)
        self.symbols.append(word)

    def __len__(self):
        return len(self.symbols)

    def words(self):
        return [s for s in self.symbols[len(SPECIALS):] if not s.startswith("madeupword")]

    def is_numeric(self):
        """RoBERTa's: the words are ids of GPT-2's BPE."""
        words = [w for w in self.words() if not (w.startswith("<") and w.endswith(">"))]
        return len(words) > 0 and all(w.isdigit() for w in words)


def find_file(where, names):
    for name in names:
        path = os.path.join(where, name)
        if os.path.isfile(path):
            return path
    return None


def dictionary(where, names):
    path = find_file(where, names)
    if path is None:
        raise Refused(f"{where} has no {' or '.join(names)}: name the folder that has with --data")
    return Dictionary(path)


def languages(where, options):
    """(source, target) as the checkpoint, or the only two dictionaries there, say."""
    source, target = options.get("source_lang"), options.get("target_lang")
    if source and target:
        return source, target
    try:
        names = sorted(name for name in os.listdir(where)
                       if name.startswith("dict.") and name.endswith(".txt") and name != "dict.txt")
    except OSError:
        raise Refused(f"{where} is no folder") from None
    found = [name[len("dict."):-len(".txt")] for name in names]
    if source and len(found) == 2 and source in found:
        return source, found[1 - found.index(source)]
    if target and len(found) == 2 and target in found:
        return found[1 - found.index(target)], target
    return source, target


def dictionaries(where, options, rows):
    """(source, target, languages known or None) of an encoder-decoder with so many rows each."""
    source, target = languages(where, options)
    if source and target:
        if (not find_file(where, [f"dict.{source}.txt"])
                and not find_file(where, [f"dict.{target}.txt"])):
            joint = find_file(where, ["dict.txt"])
            if joint:
                return Dictionary(joint), Dictionary(joint), (source, target)
        return (dictionary(where, [f"dict.{source}.txt"]),
                dictionary(where, [f"dict.{target}.txt"]), (source, target))
    found = [Dictionary(os.path.join(where, name)) for name in sorted(os.listdir(where))
             if name.startswith("dict.") and name.endswith(".txt")]
    if not found:
        raise Refused(f"{where} has no dict.SRC.txt and dict.TGT.txt: name the folder that has "
                      "with --data")
    if all(d.symbols == found[0].symbols for d in found):
        return found[0], found[0], None
    orders = [(a, b) for a in found for b in found if a is not b
              and abs(len(a) - rows[0]) <= 1 and abs(len(b) - rows[1]) <= 1]
    if len(found) == 2 and len(orders) == 1:
        return *orders[0], None
    raise Refused("the checkpoint does not say which dictionary is the source's: give "
                  "--source-lang and --target-lang")


def extra_symbols(words, rows, what):
    """Symbols that the task appended after the dictionary's last; sizes must then agree."""
    if rows == len(words):
        return []
    if rows == len(words) + 1 and "<mask>" not in words.ids:
        return ["<mask>"]
    raise Refused(f"{words.name} has {len(words) - 4} words and 4 special symbols, but the "
                  f"{what} embedding has {rows} rows: it is not this checkpoint's dictionary")


def labels(where, count):
    """The first `count` symbols of label.dict.txt, or None where there is none."""
    path = find_file(where, ["label.dict.txt", "label/dict.txt", "dict.label.txt"])
    if path is None:
        return None
    words = Dictionary(path)
    if len(words) - len(SPECIALS) < count:
        raise Refused(f"{words.name} has {len(words) - len(SPECIALS)} labels, the checkpoint's "
                      f"head {count} classes")
    return words.symbols[len(SPECIALS):len(SPECIALS) + count]


def read_codes(path):
    """subword-nmt's codes; fastBPE's third column, a count, is left out."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError:
        raise Refused(f"{os.path.basename(path)} is not UTF-8") from None
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    lines = lines[:-1] if lines and not lines[-1] else lines
    head = lines[:1] if lines and lines[0].startswith("#version:") else []
    merges = []
    for at, line in enumerate(lines[len(head):], len(head) + 1):
        parts = line.rstrip("\r ").split(" ")
        if len(parts) == 3 and parts[2].isdigit():
            head = head or ["#version: 0.2"]
            parts = parts[:2]
        if len(parts) != 2 or not all(parts):
            raise Refused(f"{os.path.basename(path)}: line {at} is not a pair of symbols")
        merges.append(" ".join(parts))
    if not merges:
        raise Refused(f"{os.path.basename(path)} has no merges")
    return "\n".join(head + merges) + "\n"


def check_gpt2(encoder, merges):
    try:
        with open(encoder, encoding="utf-8") as file:
            ids = json.load(file)
        with open(merges, encoding="utf-8") as file:
            pairs = [line for line in file.read().split("\n")
                     if line and not line.startswith("#version")]
    except (ValueError, UnicodeDecodeError, OSError):
        pairs, ids = [], None
    if not isinstance(ids, dict) or any(len(pair.split(" ")) != 2 for pair in pairs):
        raise Refused(f"{encoder} and {merges} are not GPT-2's encoder.json and vocab.bpe")


class Texts:
    """Chooses how texts become ids, writes the files, and keeps what there is to tell."""

    def __init__(self, where, options, args):
        self.where, self.options, self.args = where, options, args
        self.notes, self.entry, self.files = [], {"kind": "fairseq"}, {}

    def add_dictionary(self, key, words):
        self.entry[key] = words.name
        self.files[words.name] = words.bytes

    def choose_bpe(self, words):
        named = self.options.get("bpe")
        if named == "gpt2" or words.is_numeric():
            return self.gpt2()
        codes = self.args.bpe_codes or find_file(self.where, CODES)
        has_marks = any(word.endswith("@@") for word in words.words())
        if self.args.bpe_codes or named in WORD_SPLITTERS or has_marks:
            return self.subword_nmt(codes)
        self.entry["bpe"] = "none"
        if named:
            self.notes.append(f"the checkpoint's BPE is {named}, which is not supported: the "
                              "folder takes texts already cut into the dictionary's pieces")
        return None

    def gpt2(self):
        self.entry["bpe"] = "gpt2"
        where = self.args.gpt2_bpe or self.where
        encoder, merges = (find_file(where, [name]) for name in ("encoder.json", "vocab.bpe"))
        if encoder and merges:
            check_gpt2(encoder, merges)
            self.entry.update({"encoder": "encoder.json", "merges": "vocab.bpe"})
            self.files["encoder.json"], self.files["vocab.bpe"] = encoder, merges
        elif self.args.gpt2_bpe:
            raise Refused(f"{where} has no encoder.json and vocab.bpe")
        else:
            self.notes.append("GPT-2's encoder.json and vocab.bpe are not there: the folder takes "
                              "pretokenised text only (--gpt2-bpe adds them)")

    def subword_nmt(self, codes):
        self.entry["bpe"] = "subword_nmt"
        if codes:
            self.entry["codes"] = "bpe.codes"
            self.files["bpe.codes"] = read_codes(codes).encode("utf-8")
        else:
            self.notes.append("the BPE codes are not there: the folder takes pretokenised text "
                              "only (--bpe-codes adds them)")

    def choose_tokenizer(self, words, says_so):
        named = self.args.tokenizer or self.options.get("tokenizer") or "none"
        if named not in ("moses", "none", "space"):
            self.notes.append(f"the checkpoint's tokenizer is {named}, which is not supported: the "
                              "folder takes texts that are already tokenised by it")
        self.entry["tokenizer"] = "moses" if named == "moses" else "none"
        if named == "moses" and "source_lang" not in self.entry:
            raise Refused("the moses tokenizer needs --source-lang and --target-lang")
        if self.args.tokenizer or self.options.get("tokenizer") or not says_so:
            return
        self.notes.append("tokenizer: none; the checkpoint does not say" + (
            ", and its dictionary has Moses' escapes such as &apos;: give --tokenizer moses unless "
            "texts will come tokenised" if "&apos;" in words.ids else ""))

    def write(self, out):
        for name, value in self.files.items():
            path = os.path.join(out, name)
            if isinstance(value, bytes):
                with open(path, "wb") as file:
                    file.write(value)
            else:
                shutil.copyfile(value, path)
        folder.write_json(self.entry, os.path.join(out, "fathom_tokenizer.json"))
