# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of bench/attainment.py, by numbers worked out by hand; its traces are the same everywhere. Prints TAP."""
import contextlib
import io
import json
import os
import sys
import tempfile
import xml.etree.ElementTree

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import attainment  # noqa: E402
import attainment_picture  # noqa: E402


def near(a, b):
    return abs(a - b) < 1e-9


def between_two_depths_lies_the_straight_line():
    points = [(3, 0.1), (6, 0.4), (9, 0.7)]
    assert near(attainment.between(points, 4), 0.2)
    assert near(attainment.between(points, 9), 0.7)
    assert near(attainment.between(points, 2), 0.1) and near(attainment.between(points, 20), 0.7)


def the_deepest_depth_with_a_share_is_found_between_two():
    points = [(3, 1.0), (6, 0.8), (9, 0.2)]
    assert near(attainment.deepest_with(points, 0.9), 4.5)
    assert near(attainment.deepest_with(points, 0.2), 9)
    assert attainment.deepest_with([(3, 0.5), (6, 0.4)], 0.9) is None


def no_miss_counts_as_one():
    auto = {"depth": 4.5, "share": 1.0, "missed": 0, "asked": 200}
    fixed = [{"depth": 3, "share": 1.0}, {"depth": 6, "share": 0.8}]
    found = attainment.against_fixed(auto, fixed)
    assert near(found["fixed_missed_share"], 0.1) and near(found["times_fewer_misses"], 20)
    assert near(found["fixed_depth_at_equal_share"], 3)


def a_plane_through_idle_times_is_found():
    points = [(10, 5), (20, 5), (10, 40), (50, 30)]
    a, b, c = attainment.plane(points, [2 + 0.25 * x + 0.5 * y for x, y in points])
    assert all(abs(found - meant) < 1e-6 for found, meant in ((a, 2), (b, 0.25), (c, 0.5)))


def layers_of_both_stacks_count_by_tokens():
    seen = [{"tokens": "10", "mean_depth": "3", "depth": "6x3"}, {"tokens": "30", "mean_depth": "6", "depth": "12x6"},
            {"tokens": "0", "mean_depth": "", "depth": ""}]
    assert near(attainment.layers_by_tokens(seen), (10 * 9 + 30 * 18) / 40)
    assert near(attainment.layers_by_answers({"mean": 2, "histogram": {"12x6": 3, "4x2": 1}}), 15)
    assert attainment.layers_by_answers({"mean": 2, "by_tokens_mean": 3, "histogram": {"2": 1}}) == 3


def perplexities_are_averaged_by_their_logarithms():
    depths = {"depths": [{"depth": 1, "quality": {"perplexity": 400}}, {"depth": 2, "quality": {"perplexity": 100}}]}
    assert near(attainment.mean_quality({"1": 1, "2": 1}, depths), 200)
    assert attainment.mean_quality({"1": 1, "3": 1}, depths) is None


def traces_are_what_the_script_makes():
    for shape, seed in (("lm", 1), ("translation", 2)):
        made = io.StringIO()
        with contextlib.redirect_stdout(made):
            attainment.make_trace(shape, 2000, 4, seed)
        with open(os.path.join(ROOT, "bench", "traces", f"{shape}-bursts.csv"), encoding="utf-8") as file:
            assert file.read() == made.getvalue(), shape


def a_part_of_a_trace_has_the_same_rate():
    rows = attainment.read_trace(os.path.join(ROOT, "bench", "traces", "lm-bursts.csv"), 500)
    assert len(rows) == 500 and near(rows[-1]["arrival_ms"], 500 * 1000)


def a_budget_that_an_idle_server_misses_is_raised():
    class Site:
        half, lowest = "6", "3"
    trace = [{"arrival_ms": 1000.0, "class": "a", "prompt_tokens": 8.0, "max_tokens": 4.0, "latency_budget_ms": 500.0},
             {"arrival_ms": 2000.0, "class": "a", "prompt_tokens": 8.0, "max_tokens": 4.0, "latency_budget_ms": 20000.0}]
    rows = attainment.scaled(trace, [{"6": 10, "3": 8}] * 2, Site, 50)
    assert [r["latency_budget_ms"] for r in rows] == ["10.000", "200.000"]  # 8 ms / 0.8; 20 x 10 ms
    assert [r["arrival_ms"] for r in rows] == ["20.000", "40.000"]


def the_picture_is_well_formed_and_says_what_it_shows():
    fixed = [{"name": str(d), "depth": d, "share": 1 - 0.01 * d * d / 2} for d in (3, 6, 9)]
    part = {"load": 0.9, "fixed": fixed, "auto": {"depth": 8, "share": 0.98, "missed": 4, "asked": 200},
            "against_fixed": {"fixed_missed_share": 0.3, "times_fewer_misses": 15, "fixed_depth_at_equal_share": None}}
    with tempfile.TemporaryDirectory() as folder:
        result, svg = os.path.join(folder, "r.json"), os.path.join(folder, "r.svg")
        with open(result, "w", encoding="utf-8") as file:
            json.dump({"model": "a<b>&\"c", "natural": False, "layers": 12, "loads": [part]}, file)
        attainment_picture.write([result], 0.9, svg)
        root = xml.etree.ElementTree.parse(svg).getroot()
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a<b>&\"c, 90 % load in bursts, fixed lengths" in texts and "fathom: 98.0 % at 8.0 layers" in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4


TESTS = [between_two_depths_lies_the_straight_line, the_deepest_depth_with_a_share_is_found_between_two, no_miss_counts_as_one,
         a_plane_through_idle_times_is_found, layers_of_both_stacks_count_by_tokens, perplexities_are_averaged_by_their_logarithms,
         traces_are_what_the_script_makes, a_part_of_a_trace_has_the_same_rate, a_budget_that_an_idle_server_misses_is_raised,
         the_picture_is_well_formed_and_says_what_it_shows]


def main():
    failed = 0
    print(f"1..{len(TESTS)}")
    for number, test in enumerate(TESTS, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}")
        except Exception as problem:  # a test that breaks has failed
            failed += 1
            print(f"not ok {number} - {test.__name__}\n# {type(problem).__name__}: {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
