#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fathom generate from the outside: its texts, its flags, its exit statuses. Prints TAP."""
import json
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.environ.get("TEST_FATHOM", os.path.join(ROOT, "build", "fathom"))
TINY = os.path.join(ROOT, "tests", "data", "tiny-opt")
PROMPT = "the cat sat"


def generate(*flags, stdin=""):
    return subprocess.run(
        [BINARY, "generate", "--model", TINY, *flags],
        input=stdin, capture_output=True, text=True, timeout=60)


def several_depths_give_one_result_each():
    r = generate("--depth", "6,3,fast", "--max-tokens", "5", "--temperature", "0", "--json", PROMPT)
    assert r.returncode == 0, r.stderr
    results = json.loads(r.stdout)["results"]
    assert [x["layers"] for x in results] == [[0, 1, 2, 3, 4, 5], [0, 2, 4], [0, 3]], results
    assert all(x["of"] == 6 and x["tokens"] == 5 and x["finish_reason"] == "length" for x in results)
    assert all(x["ms_per_token"] > 0 for x in results)


def the_same_seed_gives_the_same_text():
    flags = ["--max-tokens", "20", "--temperature", "1.5", "--json", PROMPT]
    texts = [json.loads(generate("--seed", seed, *flags).stdout)["results"][0]["text"]
             for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2], texts


def one_depth_is_streamed_after_its_prompt():
    r = generate("--depth", "2", "--max-tokens", "5", "--temperature", "0", PROMPT)
    one = generate("--depth", "2", "--max-tokens", "5", "--temperature", "0", "--json", PROMPT)
    text = json.loads(one.stdout)["results"][0]["text"]
    assert r.returncode == 0 and r.stdout == PROMPT + text + "\n", r.stdout
    assert "depth 2 of 6" in r.stderr and "layers 0 3" in r.stderr, r.stderr


def several_depths_are_shown_with_their_layers_and_times():
    r = generate("--depth", "6,3", "--max-tokens", "5", "--temperature", "0", PROMPT)
    lines = r.stdout.splitlines()
    assert "depth 6 of 6" in lines[0] and "depth 3 of 6" in lines[0], r.stdout
    assert "layers 0 2 4" in lines[1] and lines[2].count("ms per token") == 2, r.stdout


def the_prompt_may_come_from_standard_input():
    flags = ["--max-tokens", "5", "--temperature", "0", "--json"]
    given = generate(*flags, PROMPT)
    piped = generate(*flags, "-", stdin=PROMPT + "\n")
    texts = [json.loads(r.stdout)["results"][0]["text"] for r in (given, piped)]
    assert texts[0] == texts[1], texts


def layers_are_kept_as_listed():
    r = generate("--layers", "1,4", "--max-tokens", "2", "--json", PROMPT)
    assert json.loads(r.stdout)["results"][0]["layers"] == [1, 4], r.stdout


def wrong_flags_end_with_2_and_one_sentence():
    for flags in (["--dept", "3", PROMPT], ["--depth", "7", PROMPT], ["--depth", "", PROMPT],
                  ["--depth", "deep", PROMPT], ["--layers", "4,1", PROMPT], ["--layers", "a", PROMPT],
                  ["--layers", "1", "--depth", "2", PROMPT], ["--rule", "odd", PROMPT], [],
                  ["--max-tokens", "x", PROMPT], ["--max-tokens", "100", PROMPT],
                  ["--threads", "x", PROMPT], ["two", "prompts"], [PROMPT, "--seed"]):
        r = generate(*flags)
        assert r.returncode == 2 and not r.stdout, (flags, r.returncode, r.stdout)
        assert r.stderr.startswith("fathom generate: ") and r.stderr.count("\n") == 1, (flags, r.stderr)


def a_missing_model_is_told():
    r = subprocess.run([BINARY, "generate", "--model", "/nowhere", PROMPT], capture_output=True, text=True)
    assert r.returncode == 1 and "/nowhere" in r.stderr, r.stderr


def help_lists_the_flags():
    r = generate("--help")
    assert r.returncode == 0 and "--depth LIST" in r.stdout


TESTS = [several_depths_give_one_result_each, the_same_seed_gives_the_same_text,
         one_depth_is_streamed_after_its_prompt, several_depths_are_shown_with_their_layers_and_times,
         the_prompt_may_come_from_standard_input, layers_are_kept_as_listed,
         wrong_flags_end_with_2_and_one_sentence, a_missing_model_is_told, help_lists_the_flags]


def main():
    failed = 0
    print(f"TAP version 13\n1..{len(TESTS)}")
    for number, test in enumerate(TESTS, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}")
        except Exception as e:
            failed += 1
            print(f"not ok {number} - {test.__name__}\n# " + repr(e).replace("\n", "\n# "))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
