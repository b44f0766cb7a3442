#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fathom inspect, eval, search and prune from the outside. Prints TAP.

What eval measures is held against the PyTorch references of tools/, with fairseq's rules of blocks
written down here as fairseq's own data sets state them; without PyTorch those tests are skipped.
"""
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.environ.get("TEST_FATHOM", os.path.join(ROOT, "build", "fathom"))
DATA = os.path.join(ROOT, "tests", "data")
LM, ENCODER, MT, OPT = (os.path.join(DATA, name) for name in (
    "tiny-lm-adaptive", "tiny-encoder", "tiny-mt-pre", "tiny-opt"))
WORDS = ["ba", "de", "fi", "go", "lu", "ma", "ne", "ri", "so", "tu"]
EOS = 2

sys.path.insert(0, os.path.join(ROOT, "tools"))
import packages

if packages.prefer("torch", "numpy", "regex"):
    torch = None
else:
    import torch
    import reference_fairseq
    import reference_seq2seq
    torch.set_num_threads(1)


class Skip(Exception):
    pass


def need_torch():
    if torch is None:
        raise Skip("PyTorch is not installed")


def fathom(*args):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=120)


def run(*args):
    r = fathom(*args)
    assert r.returncode == 0, (args, r.stderr)
    return r.stdout


def evaluate(*args):
    said = run("eval", *args, "--json", "-")
    return json.loads(said[said.index("{\n"):])["depths"]


def file_with(text):
    handle, path = tempfile.mkstemp(dir=FOLDER, text=True)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
    return path


def near(found, wanted, tolerance=2e-4):
    assert abs(found - wanted) < tolerance, (found, wanted)


def words(path):
    """The dictionary of a folder: word -> id."""
    with open(os.path.join(path, "dict.txt"), encoding="utf-8") as f:
        return {line.rsplit(" ", 1)[0]: 4 + i for i, line in enumerate(f)}


# ---- eval ----

LINES = [[WORDS[(i * k + i) % 10] for k in range(2 + 3 * i % 7)] for i in range(1, 9)] + [[]]


def blocks_of(lines, block_size, mode):
    """token_block_dataset.py: the slices of the row of all tokens."""
    total = sum(map(len, lines))
    if mode == "none":
        return [(at, min(at + block_size, total)) for at in range(0, total, block_size)]
    slices, at = [], 0
    for line in lines:
        join = mode == "complete" and slices and at + len(line) - slices[-1][0] <= block_size
        slices.append((slices.pop()[0] if join else at, at + len(line)))
        at += len(line)
    return slices


def expected_loss(model, lines, tokens_per_sample, context_window, mode, plan):
    """lm_context_window_dataset.py: each block's sources after the last sources before it."""
    row = [token for line in lines for token in line]
    sources, seen, total = [EOS] + row[:-1], [], 0.0
    for begin, end in blocks_of(lines, tokens_per_sample - context_window, mode):
        source = sources[begin:end]
        extra = len(seen) + len(source) - tokens_per_sample
        seen = seen[extra:] if extra > 0 else seen
        tokens = seen + source + [row[end - 1]]
        total -= float(model.log_probabilities(tokens, plan)[len(seen):].sum())
        seen = (seen + source)[-context_window:] if context_window else []
    return total / len(row)


def perplexity_follows_fairseqs_blocks_and_windows():
    need_torch()
    model, ids = reference_fairseq.load(LM), words(LM)
    lines = [[ids[w] for w in line] + [EOS] for line in LINES]
    path = file_with("\n".join(" ".join(line) for line in LINES) + "\n")
    for sample, window, mode in ((12, 0, "none"), (12, 5, "none"), (7, 6, "none"), (24, 0, "complete"),
                                 (16, 7, "complete"), (16, 0, "eos"), (16, 4, "eos")):
        for layers in ([0, 1, 2, 3], [1, 3]):
            found = evaluate(LM, "--data", path, "--tokens-per-sample", str(sample), "--context-window",
                             str(window), "--sample-break-mode", mode,
                             "--layers", ",".join(map(str, layers)))[0]
            wanted = expected_loss(model, lines, sample, window, mode, layers)
            near(found["loss"], wanted)
            near(found["perplexity"] / math.exp(wanted), 1, 1e-4)


def a_model_trained_with_bos_sees_it_before_every_block():
    need_torch()
    model, ids = reference_fairseq.load(LM), words(LM)
    folder = os.path.join(tempfile.mkdtemp(dir=FOLDER), "bos")
    shutil.copytree(LM, folder)
    for name, key, value in (("fathom_tokenizer.json", "start", "<s>"), ("config.json", "bos_token_id", 0)):
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            changed = {**json.load(f), key: value}
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(changed, f)
    lines = [[ids[w] for w in line] + [EOS] for line in LINES]
    path = file_with("\n".join(" ".join(line) for line in LINES) + "\n")
    row = [token for line in lines for token in line]
    sources, total = [0, EOS] + row[:-1], 0.0
    for begin, end in blocks_of(lines, 12, "none"):
        tokens = [0] + sources[begin + 1:end + 1] + [row[end - 1]]
        total -= float(model.log_probabilities(tokens, [0, 1, 2, 3])[1:].sum())
    found = evaluate(folder, "--data", path, "--tokens-per-sample", "12",
                     "--layers", "0,1,2,3")[0]
    near(found["loss"], total / len(row))


def accuracy_counts_the_labels_of_the_highest_score():
    need_torch()
    model, ids = reference_fairseq.load(ENCODER), words(ENCODER)
    head = model.config["classification_heads"][1]
    rows, right, loss = [], 0, 0.0
    for i in range(40):
        a, b = ([WORDS[(i * 3 + k * k) % 10] for k in range(n)] for n in (1 + i % 6, 1 + i % 3))
        tokens = [0, *(ids[w] for w in a), EOS, EOS, *(ids[w] for w in b), EOS]
        scores = model.classify(model.encode(tokens, [0, 2]), head)
        label = i % 3
        right += int(scores.argmax()) == label
        loss -= float(torch.log_softmax(scores, -1)[label])
        rows.append(f"{' '.join(a)}\t{' '.join(b)}\t{head['labels'][label]}")
    path = file_with("premise\thypothesis\tlabel\n" + "\n".join(rows) + "\n")
    found = evaluate(ENCODER, "--data", path, "--head", head["name"], "--layers", "0,2")[0]
    assert found["accuracy"] == right / 40, (found, right)
    near(found["loss"], loss / 40)


def translations_are_scored_and_compared():
    need_torch()
    model = reference_seq2seq.Seq2Seq.from_folder(MT)
    pairs = [("the cat sat", "sat cat the"), ("a", "the the the"), ("cat cat the sat a", "a sat")]
    path = file_with("".join(f"{a}\t{b}\n" for a, b in pairs))
    out = os.path.join(FOLDER, "out.txt")
    found = evaluate(MT, "--data", path, "--depth", "2x2", "--output", out, "--max-len-b", "12")[0]
    loss, count = 0.0, 0
    for a, b in pairs:
        source, target = (reference_seq2seq.encode(MT, text) for text in (a, b))
        source, target = ([t for t in ids if t != EOS] + [EOS] for ids in (source, target))
        loss -= float(model.log_probabilities(source, target, ([0, 2], [0, 1])).sum())
        count += len(target)
    near(found["loss"], loss / count)
    with open(out, encoding="utf-8") as f:  # well-formed, whatever the model says
        lines = f.read().split("\n")[:-1]
    assert len(lines) == 3, lines
    # A text compared with itself.
    sources = file_with("".join(a + "\n" for a, _ in pairs))
    again = evaluate(MT, "--data", sources, "--target", out, "--depth", "2x2", "--max-len-b", "12")[0]
    enough = sum(len(line.split()) > 3 for line in lines) > 0
    assert again["bleu"] > 99.99 if enough else again["bleu"] >= 0, again


def depths_may_be_listed_in_any_way():
    path = file_with("the cat sat on the mat\n")
    rows = evaluate(OPT, "--data", path, "--depth", "6,1..3,full")
    assert [r["depth"] for r in rows] == [6, 1, 2, 3, 6], rows
    assert len(evaluate(OPT, "--data", path)) == 6
    assert evaluate(OPT, "--data", path, "--layers", "1,4")[0]["layers"] == [1, 4]


def a_picture_and_quality_json_are_written():
    model, svg = os.path.join(FOLDER, "saved"), os.path.join(FOLDER, "chart.svg")
    shutil.copytree(OPT, model)
    path = file_with("the cat sat on the mat\n")
    rows = evaluate(model, "--data", path, "--depth", "6,3", "--save", "--svg", svg)
    with open(os.path.join(model, "quality.json"), encoding="utf-8") as f:
        saved = json.load(f)
    assert saved["metric"] == "perplexity", saved
    for row, kept in zip(rows, saved["depths"]):
        assert kept == {"depth": row["depth"], "perplexity": row["perplexity"]}, (row, kept)
    with open(svg, encoding="utf-8") as f:
        assert f.read().count("<circle") == 4
    assert "perplexity" in run("inspect", model)


# ---- inspect and prune ----

def tensors_of(path):
    with open(os.path.join(path, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
            for name, t in header.items()}


def inspect_counts_what_the_file_holds():
    for path in (OPT, LM, ENCODER, MT):
        count = sum(math.prod(shape) for _, shape, _ in tensors_of(path).values())
        assert f"num. model params: {count}\n" in run("inspect", path), (path, count)
        said = json.loads(run("inspect", path, "--json"))
        assert said["depths"][0]["parameters"] == count, said["depths"][0]


def inspect_shows_the_rate_that_suits_a_depth():
    said = json.loads(run("inspect", MT, "--depth", "2x1", "--json"))["depths"][0]
    assert said["encoder"]["best_layerdrop"] == 0.5, said
    near(said["decoder"]["best_layerdrop"], 1 - 1 / 3)
    assert said["encoder"]["layers"] == [0, 2] and said["decoder"]["layers"] == [0], said


def check_pruned(path, flags, renamed):
    """renamed: stack -> layers kept."""
    out = tempfile.mktemp(dir=FOLDER)
    said = run("prune", path, *flags, "--out", out)
    wanted = {}
    for name, tensor in tensors_of(path).items():
        for stack, kept in renamed.items():
            head, found, rest = name.partition(f"{stack}.layers.")
            if found:
                number, _, rest = rest.partition(".")
                name = (f"{head}{found}{kept.index(int(number))}.{rest}"
                        if int(number) in kept else None)
                break
        if name:
            wanted[name] = tensor
    assert tensors_of(out) == wanted
    count = sum(math.prod(shape) for _, shape, _ in wanted.values())
    assert f"num. model params: {count}\n" in said, said
    return out


def prune_keeps_the_bytes_of_the_layers_that_stay():
    check_pruned(OPT, ["--layers", "1,4"], {"decoder": [1, 4]})
    check_pruned(LM, ["--depth", "2"], {"decoder": [0, 2]})
    check_pruned(ENCODER, ["--layers", "0,3"], {"encoder": [0, 3]})
    check_pruned(MT, ["--depth", "2x1"], {"encoder": [0, 2], "decoder": [0]})
    check_pruned(MT, ["--encoder-layers", "3"], {"encoder": [3], "decoder": [0, 1, 2]})


def prune_leaves_packed_weights_and_costs_behind():
    whole, out = (tempfile.mktemp(dir=FOLDER) for _ in range(2))
    shutil.copytree(OPT, whole)
    for name in ("fathom-f32-c.packed", "fathom-f32-c.cost.json", "notes.txt"):
        with open(os.path.join(whole, name), "w", encoding="utf-8") as f:
            f.write("of the whole")
    run("prune", whole, "--depth", "2", "--out", out)
    assert [n for n in os.listdir(out) if n.startswith(("fathom-", "notes"))] == ["notes.txt"]


def a_pruned_folder_measures_as_its_plan_does():
    path = file_with("\n".join(" ".join(line) for line in LINES) + "\n")
    out = check_pruned(LM, ["--layers", "0,3"], {"decoder": [0, 3]})
    one, other = (evaluate(model, "--data", path, "--layers", layers)[0]["loss"]
                  for model, layers in ((out, "0,1"), (LM, "0,3")))
    assert one == other, (one, other)


def prune_refuses_what_it_would_overwrite():
    r = fathom("prune", OPT, "--depth", "2", "--out", FOLDER)
    assert r.returncode == 1 and "is there already" in r.stderr, r.stderr
    r = fathom("prune", OPT, "--depth", "2,3", "--out", os.path.join(FOLDER, "none"))
    assert r.returncode == 1 and "one depth" in r.stderr, r.stderr
    assert not os.path.exists(os.path.join(FOLDER, "none"))
    r = fathom("prune", OPT, "--depth", "2", "--out", os.path.join(FOLDER, "no", "where"))
    assert r.returncode == 1 and r.stderr.count("\n") == 1, r.stderr


# ---- search ----

def searched(path, data, *flags):
    out = tempfile.mktemp(dir=FOLDER)
    run("search", path, "--data", data, "--out", out, *flags)
    with open(out, encoding="utf-8") as f:
        return json.load(f)["plans"]


def search_finds_the_best_plan_where_it_tries_all():
    path = file_with("\n".join(" ".join(line) for line in LINES) + "\n")
    plans = searched(LM, path, "--exhaustive", "100")
    assert [p["depth"] for p in plans] == [4, 3, 2, 1], plans
    for plan in plans:
        losses = {}
        for kept in itertools.combinations(range(5), plan["depth"]):
            layers = ",".join(map(str, kept))
            losses[kept] = evaluate(LM, "--data", path, "--layers", layers)[0]["loss"]
        assert losses[tuple(plan["layers"])] == min(losses.values()), (plan, losses)


def tuned_plans_are_used_by_eval():
    model = os.path.join(FOLDER, "tuned")
    shutil.copytree(LM, model)
    path = file_with("\n".join(" ".join(line) for line in LINES) + "\n")
    run("search", model, "--data", path)
    with open(os.path.join(model, "plans.json"), encoding="utf-8") as f:
        plans = {p["depth"]: p["layers"] for p in json.load(f)["plans"]}
    rows = evaluate(model, "--data", path, "--depth", "3,2,1", "--rule", "tuned")
    assert [r["layers"] for r in rows] == [plans[3], plans[2], plans[1]], (rows, plans)
    even = evaluate(model, "--data", path, "--depth", "3,2,1", "--rule", "even")
    assert all(t["loss"] <= e["loss"] for t, e in zip(rows, even)), (rows, even)


def search_of_two_stacks_lists_every_pair():
    path = file_with("the cat sat\tsat cat the\na\tthe the\n")
    for strategy in ("valid", "data-driven"):
        plans = searched(MT, path, "--strategy", strategy, "--budget", "20")
        pairs = {(p["depth"]["encoder"], p["depth"]["decoder"]) for p in plans}
        assert pairs == {(e, d) for e in range(1, 5) for d in range(1, 4)} - {(4, 3)}, pairs
        for p in plans:
            for stack in ("encoder", "decoder"):
                layers = p["layers"][stack]
                assert layers == sorted(set(layers)) and len(layers) == p["depth"][stack], p


# ---- what goes wrong ----

def wrong_flags_end_with_2_and_one_sentence():
    path = file_with("the cat\n")
    for args in (["eval"], ["eval", OPT], ["eval", OPT, "--data"], ["eval", OPT, "--date", path],
                 ["eval", OPT, "more", "--data", path], ["eval", OPT, "--data", path, "--limit", "0"],
                 ["inspect"], ["inspect", OPT, "--depht", "3"], ["prune", OPT, "--depth", "2"],
                 ["prune", OPT, "--out", "x"], ["search", OPT],
                 ["search", OPT, "--data", path, "--strategy", "luck"]):
        r = fathom(*args)
        assert r.returncode == 2 and not r.stdout, (args, r.returncode, r.stdout)
        assert r.stderr.startswith("fathom " + args[0] + ": ") and r.stderr.count("\n") == 1, r.stderr


def what_cannot_be_done_ends_with_1_and_one_sentence():
    path, tsv = file_with("the cat\n"), file_with("text\tlabel\nba de\tugly\n")
    empty = file_with("")
    for args in (["eval", OPT, "--data", "/nowhere"], ["eval", "/nowhere", "--data", path],
                 ["eval", OPT, "--data", path, "--depth", "7"], ["eval", OPT, "--data", path, "--depth", "0"],
                 ["eval", OPT, "--data", path, "--depth", "2x1"], ["eval", OPT, "--data", path, "--layers", "3,1"],
                 ["eval", OPT, "--data", path, "--task", "classify"],
                 ["eval", OPT, "--data", path, "--rule", "odd"], ["eval", OPT, "--data", empty],
                 ["eval", OPT, "--data", path, "--tokens-per-sample", "100000"],
                 ["eval", OPT, "--data", path, "--context-window", "64", "--tokens-per-sample", "64"],
                 ["eval", ENCODER, "--data", tsv], ["eval", ENCODER, "--data", path],
                 ["eval", MT, "--data", path], ["eval", OPT, "--data", path, "--json", "/no/where"],
                 ["inspect", "/nowhere"], ["inspect", OPT, "--layers", "9"], ["inspect", MT, "--depth", "0x1"],
                 ["eval", OPT, "--data", path, "--output", path + ".out"],
                 ["eval", MT, "--data", file_with("ba de\t" + "ba " * 64 + "\n")],
                 ["search", OPT, "--data", empty]):
        r = fathom(*args)
        assert r.returncode == 1, (args, r.returncode, r.stderr)
        assert r.stderr.startswith("fathom " + args[0] + ": ") and r.stderr.count("\n") == 1, r.stderr


def help_lists_the_flags():
    for command, flag in (("inspect", "--json"), ("eval", "--context-window"), ("search", "--budget"),
                          ("prune", "--out DIR")):
        assert flag in run(command, "--help")


TESTS = [perplexity_follows_fairseqs_blocks_and_windows,
         a_model_trained_with_bos_sees_it_before_every_block, accuracy_counts_the_labels_of_the_highest_score,
         translations_are_scored_and_compared, depths_may_be_listed_in_any_way,
         a_picture_and_quality_json_are_written, inspect_counts_what_the_file_holds,
         inspect_shows_the_rate_that_suits_a_depth, prune_keeps_the_bytes_of_the_layers_that_stay,
         prune_leaves_packed_weights_and_costs_behind,
         a_pruned_folder_measures_as_its_plan_does, prune_refuses_what_it_would_overwrite,
         search_finds_the_best_plan_where_it_tries_all, tuned_plans_are_used_by_eval,
         search_of_two_stacks_lists_every_pair, wrong_flags_end_with_2_and_one_sentence,
         what_cannot_be_done_ends_with_1_and_one_sentence, help_lists_the_flags]


def main():
    failed = 0
    print(f"TAP version 13\n1..{len(TESTS)}")
    for number, test in enumerate(TESTS, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}", flush=True)
        except Skip as why:
            print(f"ok {number} - {test.__name__} # SKIP {why}")
        except Exception as e:
            failed += 1
            print(f"not ok {number} - {test.__name__}\n# " + repr(e).replace("\n", "\n# "), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    FOLDER = tempfile.mkdtemp(prefix="fathom-commands-")
    try:
        STATUS = main()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    raise SystemExit(STATUS)
