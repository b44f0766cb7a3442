#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that fairseq trained, converted and served, against what fairseq computed from them.

The checkpoints are not part of the project: TEST_FAIRSEQ names their folder (default
../shared/fixtures beside the source tree), TEST_FAIRSEQ_DATA the texts for whole-data figures.
Without them, or without numpy for the converter, the tests are skipped.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from harness import BINARY, ROOT, Server, main, same, test

SHARED = os.path.join(os.path.dirname(ROOT), "shared")
FIXTURES = os.environ.get("TEST_FAIRSEQ", os.path.join(SHARED, "fixtures"))
DATA = os.environ.get("TEST_FAIRSEQ_DATA", os.path.join(SHARED, "data"))
LM, MT, ROBERTA = "lm16-wikitext2", "mt12x6-multi30k", "roberta12-sst2"
CLOSE, TIED = 2e-4, 5e-5
FOLDERS = tempfile.mkdtemp(prefix="fathom-fairseq-")


def python_with_numpy():
    for python in ("python3", "/usr/bin/python3"):
        if shutil.which(python) and subprocess.run(
                [python, "-c", "import numpy"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return python
    return None


def convert(name):
    """The fixture as a model folder; made once."""
    out = os.path.join(FOLDERS, name)
    if not os.path.exists(out):
        flags = ["--gpt2-bpe", os.path.join(DATA, "gpt2")] if name == ROBERTA else []
        subprocess.run([PYTHON, os.path.join(ROOT, "tools", "convert_fairseq.py"),
                        os.path.join(FIXTURES, name, "checkpoint.pt"), "--out", out, *flags],
                       check=True, stdout=subprocess.DEVNULL)
    return out


def expected(name):
    with open(os.path.join(FIXTURES, name, "expected.json"), encoding="utf-8") as f:
        return json.load(f)["cases"]


def layers_of(text, count):
    return list(range(count)) if text is None else [int(i) for i in text.split(",")]


def ask(server, path, **fields):
    answer = server.ask("POST", path, fields)
    assert answer.status == 200, answer.body
    return answer.json()


def close(found, wanted, what, tolerance=CLOSE):
    same(len(found), len(wanted))
    worst = max(abs(a - b) for a, b in zip(found, wanted))
    assert worst < tolerance, (what, worst)


@test
def language_model_scores_every_target_as_fairseq_does():
    with Server(model=convert(LM)) as server:
        for case in expected(LM):
            layers = layers_of(case["decoder_layers_to_keep"], 16)
            for sequence in case["sequences"]:
                ids = sequence["input_ids"] + sequence["target_ids"][-1:]
                result = ask(server, "/v1/loglikelihood", input=ids, layers=layers)["results"][0]
                close(result["logprobs"][1:], sequence["target_logprobs"], layers)


@test
def language_model_offers_the_same_next_tokens():
    with Server(model=convert(LM)) as server:
        for case in expected(LM):
            layers = layers_of(case["decoder_layers_to_keep"], 16)
            for sequence in case["sequences"]:
                choice = ask(server, "/v1/completions", prompt=sequence["input_ids"], layers=layers,
                             max_tokens=1, temperature=0, logprobs=10,
                             return_token_ids=True)["choices"][0]
                top = sorted(choice["logprobs"]["top_logprobs"][0].values(), reverse=True)
                close(top, sequence["last_top10_logprobs"], layers)
                best = [i for i, p in zip(sequence["last_top10_ids"], sequence["last_top10_logprobs"])
                        if p > top[0] - TIED]
                assert choice["token_ids"][0] in best, (choice, best)


@test
def encoder_features_and_classes_are_fairseqs():
    with Server(model=convert(ROBERTA)) as server:
        for case in expected(ROBERTA):
            layers = layers_of(case["encoder_layers_to_keep"], 12)
            texts = [o["text"] for o in case["outputs"]]
            for pooling, key in (("cls", "cls_features"), ("mean", "mean_features")):
                found = ask(server, "/v1/embeddings", input=texts, layers=layers, pooling=pooling,
                            normalize=False)["data"]
                for item, output in zip(found, case["outputs"]):
                    close(item["embedding"], output[key], (layers, pooling))
            found = ask(server, "/classify", input=texts, layers=layers, return_logits=True)["data"]
            for item, output in zip(found, case["outputs"]):
                close(item["logits"], output["class_logits"], layers)


@test
def encoder_texts_become_fairseqs_ids():
    with Server(model=convert(ROBERTA)) as server:
        for output in expected(ROBERTA)[0]["outputs"]:
            same(ask(server, "/tokenize", prompt=output["text"])["tokens"], output["input_ids"])


def check_search(server, output, plan):
    """The same hypotheses; another order only where fairseq's scores are as good as equal."""
    wanted = output["hypotheses"]
    answer = ask(server, "/v1/completions", prompt=output["source_ids"], layers=plan,
                 num_beams=output["beam"], length_penalty=output["lenpen"], n=len(wanted),
                 max_tokens=100, logprobs=0, return_token_ids=True)
    same(len(answer["choices"]), len(wanted))
    for choice, hypothesis in zip(answer["choices"], wanted):
        assert abs(choice["score"] - hypothesis["score"]) < CLOSE, (plan, choice, hypothesis)
        equals = [h for h in wanted if abs(h["score"] - hypothesis["score"]) < TIED]
        match = [h for h in equals if h["ids"] == choice["token_ids"]
                 or h["ids"][:-1] == choice["token_ids"]]
        assert match, (plan, output["beam"], choice["token_ids"], hypothesis["ids"])
        scores = choice["logprobs"]["token_logprobs"]
        close(scores, match[0]["positional_scores"][:len(scores)], plan)


@test
def beams_find_fairseqs_hypotheses():
    with Server(model=convert(MT)) as server:
        for case in expected(MT):
            plan = {"encoder": layers_of(case["encoder_layers_to_keep"], 12),
                    "decoder": layers_of(case["decoder_layers_to_keep"], 6)}
            for output in case["outputs"]:
                check_search(server, output, plan)


@test
def sources_become_fairseqs_ids_and_answers_its_text():
    with Server(model=convert(MT)) as server:
        for output in expected(MT)[0]["outputs"]:
            plain = output["source"].replace("@@ ", "")
            same(ask(server, "/tokenize", prompt=plain)["tokens"], output["source_ids"])
            best = output["hypotheses"][0]
            answer = ask(server, "/v1/completions", prompt=plain, depth="full", max_tokens=100,
                         num_beams=output["beam"], length_penalty=output["lenpen"])
            same(answer["choices"][0]["text"], best["text"].replace("@@ ", ""))


@test
def parameters_are_counted_as_fairseq_counts():
    for name, flags in ((LM, ["--layers"]), (ROBERTA, ["--layers"]),
                        (MT, ["--encoder-layers", "--decoder-layers"])):
        for case in expected(name):
            keys = {"--layers": ("decoder_layers_to_keep", "encoder_layers_to_keep"),
                    "--encoder-layers": ("encoder_layers_to_keep",),
                    "--decoder-layers": ("decoder_layers_to_keep",)}
            kept = [(flag, case[key]) for flag in flags for key in keys[flag] if case.get(key)]
            said = subprocess.run([BINARY, "inspect", convert(name), *sum(map(list, kept), [])],
                                  check=True, capture_output=True, text=True).stdout
            same(re.search(r"num. model params: (\d+)", said).group(1), str(case["num_params"]))


def evaluate(name, *flags):
    said = subprocess.run([BINARY, "eval", convert(name), *flags, "--json", "-"], check=True,
                          capture_output=True, text=True).stdout
    return json.loads(said[said.index("{\n"):])["depths"]


@test
def perplexity_on_whole_data_is_fairseqs():
    depths = evaluate(LM, "--data", os.path.join(DATA, "wikitext-2", "valid.txt"),
                      "--tokens-per-sample", "128", "--depth", "16,8,4,2")
    same([round(d["perplexity"], 2) for d in depths], [204.61, 223.52, 332.32, 886.47])


@test
def accuracy_on_whole_data_is_fairseqs():
    depths = evaluate(ROBERTA, "--data", os.path.join(DATA, "sst-2", "dev.tsv"),
                      "--depth", "12,6,3,2")
    same([round(d["accuracy"], 6) for d in depths], [0.782110, 0.790138, 0.784404, 0.689220])


PYTHON = python_with_numpy()
if not os.path.isdir(FIXTURES):
    print(f"1..0 # SKIP no checkpoints of fairseq's at {os.path.basename(FIXTURES)}/")
    sys.exit(0)
if PYTHON is None:
    print("1..0 # SKIP the converter needs numpy (python3-numpy)")
    sys.exit(0)
try:
    main()
finally:
    shutil.rmtree(FOLDERS, ignore_errors=True)
