# SPDX-License-Identifier: Apache-2.0
"""Pages of results in headless Chromium: every picture that the data allow is drawn, the console stays empty, nothing is asked
of anybody. Skipped where there is no Chromium.

    test_report.py REPORT_PAGE       (the program tests/report_page.c)
"""
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WORK = tempfile.mkdtemp(prefix="fathom-report-")


def quantiles(middle, count=2000):
    shares = {"min": 0.5, "p50": 1, "p75": 1.2, "p90": 1.5, "p95": 1.8, "p99": 2.5, "p99_9": 4, "max": 5}
    return {"count": count, "mean": middle, **{name: middle * share for name, share in shares.items()}}


def a_run(label, parameter, histogram, budgets=True, middle=20.0):
    """A run with everything that a run can hold."""
    count = sum(histogram.values())
    met = count * 9 // 10
    return {
        "label": label, "parameter": parameter, "seconds": 10, "requests": count, "completed": count - 1,
        "errors": {"server_overloaded": 1}, "status": {"200": count - 1, "503": 1},
        "budget": {"asked": count, "met": met} if budgets else {"asked": 0, "met": 0},
        "goodput_per_s": met / 10, "requests_per_s": count / 10, "tokens_per_s": 3.2 * count,
        "depth": {"mean": 6.5, "by_tokens_mean": 6.4, "histogram": histogram, "changed": 1},
        "latency_ms": quantiles(middle), "ttft_ms": quantiles(middle / 5), "tpot_ms": quantiles(middle / 30),
        "itl_ms": quantiles(middle / 30), "queue_ms": quantiles(0.4),
        "prediction_error": quantiles(0.03) if budgets else None,
        "by_depth": {name: {"requests": n, "latency_ms": quantiles(middle * (1 + i)), "ttft_ms": quantiles(2), "tpot_ms": quantiles(1)}
                     for i, (name, n) in enumerate(histogram.items())},
        "timeline": [{"t_s": t, "arrived": 20, "completed": 19, "met": 18 if budgets else 0, "missed": 1 if budgets else 0, "depth": 6}
                     for t in range(10)],
    }


def a_result(runs, name="demo", quality=True):
    entries = [{"depth": d, "layers": list(range(d)), **({"quality": {"perplexity": 700 / d}} if quality else {})} for d in range(1, 13)]
    return {"format": "fathom-bench-1", "tool": {"name": "fathom bench", "version": "1"}, "started": "2026-01-01T00:00:00Z",
            "server": {"url": "http://127.0.0.1:1", "model": name, "layers": 12, "depths": {"layers": 12, "depths": entries}},
            "load": {"arrivals": "gamma", "cv": 4, "rate": 40, "seconds": 10, "seed": 1}, "runs": runs}


MIX = {"3": 300, "6": 900, "12": 800}


class Page(html.parser.HTMLParser):
    """Of the drawn page: pictures by id with the number of marks in each, tables, all text."""

    def __init__(self, text):
        super().__init__()
        self.figure, self.marks, self.rows, self.text, self.skip = None, {}, {}, "", 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("script", "style"):
            self.skip += 1
        if tag == "figure":
            self.figure = attributes["id"]
            self.marks[self.figure] = self.rows[self.figure] = 0
        if self.figure and re.search(r"\b(dot|fill)\b", attributes.get("class") or ""):
            self.marks[self.figure] += 1
        if self.figure and tag == "tr":
            self.rows[self.figure] += 1
        for value in attributes.values():
            assert "NaN" not in (value or ""), f"{tag} in {self.figure} holds {value}"

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.skip -= 1
        if tag == "figure":
            self.figure = None

    def handle_data(self, data):
        if not self.skip:
            self.text += data


def open_page(result, size="1200,2000"):
    """The page after its script ran, in a browser that notes what is asked for."""
    data, page, notes = (os.path.join(WORK, name) for name in ("result.json", "page.html", "net.json"))
    with open(data, "w", encoding="utf-8") as file:
        file.write(result if isinstance(result, str) else json.dumps(result))
    subprocess.run([sys.argv[1], data, page], check=True)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={WORK}/profile", "--enable-logging=stderr", f"--window-size={size}",
         f"--log-net-log={notes}", "--dump-dom", "file://" + page],
        capture_output=True, text=True, timeout=60, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Page(done.stdout), console, asked_by_page(notes)


def asked_by_page(notes):
    """What a page asked for; the browser's own errands have no origin as their initiator."""
    with open(notes, encoding="utf-8") as file:
        events = [json.loads(line.rstrip().rstrip(",")) for line in file if line.startswith('{"params"') and '"initiator"' in line]
    assert events, "the browser noted nothing"
    return [event["params"]["url"] for event in events
            if event["params"]["initiator"] != "not an origin" and not event["params"].get("url", "").startswith(("file:", "data:"))]


def check_drawn(result, expected, **options):
    page, console, asked = open_page(result, **options)
    assert not console, console
    assert not asked, asked
    for name in expected:
        assert page.marks.get(name), f"{name} is not drawn: {page.marks}"
        assert page.rows[name] >= 2, f"{name} has no table"
    assert set(page.marks) == set(expected), f"drawn: {sorted(page.marks)}"
    assert not re.search(r"undefined|NaN|\[object|null", page.text), page.text
    return page


def one_run_shows_all_that_it_holds():
    page = check_drawn(a_result([a_run("auto", {}, MIX)]),
                       ["timeline", "latency-depth", "quality-latency", "distribution", "depth-mix", "prediction"])
    assert page.marks["latency-depth"] == 3 and page.marks["quality-latency"] == 3
    for text in ("90.0 %", "1,800 of 2,000", "demo", "gamma-distributed arrivals", "coefficient of variation 4", "server_overloaded"):
        assert text in page.text, text


def a_sweep_over_depth_shows_a_line_and_quality():
    runs = [a_run(f"depth {d}", {"depth": str(d)}, {str(d): 100}, budgets=False, middle=2 + d) for d in (1, 3, 6, 9, 12)]
    page = check_drawn(a_result(runs), ["latency-depth", "quality-latency", "timeline", "distribution"])
    # Medians are 2 + depth exactly.
    assert "Each layer costs 1.00 ms" in page.text and "2.00 ms + 1.00 ms × depth" in page.text


def policies_over_rates_are_lines_of_their_own():
    runs = [a_run(name, {"rate": rate, **depth}, MIX if not depth else {depth["depth"]: 500})
            for name, depth in (("auto", {}), ("depth 6", {"depth": "6"}), ("depth 12", {"depth": "12"})) for rate in (20, 40, 80)]
    page = check_drawn(a_result(runs), ["attainment", "attainment-depth", "depth-load", "goodput", "latency-load", "prediction-load", "depth-mix-runs",
                                        "timeline", "distribution", "depth-mix", "prediction"])
    assert page.marks["attainment"] == 9  # a dot for each rate and policy


def clients_are_an_axis_too():
    runs = [a_run(f"{n} clients", {"clients": n}, MIX, budgets=False) for n in (1, 4, 16)]
    check_drawn(a_result(runs), ["depth-load", "latency-load", "depth-mix-runs", "timeline", "distribution", "depth-mix"])


def pairs_of_depths_are_named():
    runs = [a_run(f"depth {d}", {"depth": d}, {d: 100}, budgets=False) for d in ("3x2", "6x3", "12x6")]
    page = check_drawn(a_result(runs, quality=False), ["latency-depth", "timeline", "distribution"])
    assert "12×6" in page.text


def a_server_without_depths_gets_what_is_known():
    run = a_run("all", {}, MIX, budgets=False)
    run.update(depth=None, by_depth=None, timeline=None, itl_ms=None, queue_ms=None)
    result = a_result([run])
    result["server"].update(layers=None, depths=None)
    check_drawn(result, ["distribution"])


def nothing_in_a_name_becomes_markup():
    result = a_result([a_run("<img src=http://127.0.0.1:9/x onerror=alert(1)>", {}, MIX)], name="a</script><script>throw 1</script><!--<script>")
    page = check_drawn(result, ["timeline", "latency-depth", "quality-latency", "distribution", "depth-mix", "prediction"])
    assert "a</script><script>throw 1</script><!--<script>" in page.text


def a_phone_gets_the_same_pictures():
    check_drawn(a_result([a_run("auto", {}, MIX)]), ["timeline", "latency-depth", "quality-latency", "distribution", "depth-mix", "prediction"],
                size="500,900")


def what_is_no_result_is_told_in_a_sentence():
    page, _, asked = open_page('{"runs": []}')
    assert "cannot be shown: it holds no runs." in page.text and not asked


TESTS = [one_run_shows_all_that_it_holds, a_sweep_over_depth_shows_a_line_and_quality, policies_over_rates_are_lines_of_their_own,
         clients_are_an_axis_too, pairs_of_depths_are_named, a_server_without_depths_gets_what_is_known, nothing_in_a_name_becomes_markup,
         a_phone_gets_the_same_pictures, what_is_no_result_is_told_in_a_sentence]


def main():
    if not CHROMIUM:
        print("1..0 # SKIP there is no Chromium")
        return 0
    failed = 0
    print(f"1..{len(TESTS)}")
    for number, test in enumerate(TESTS, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}", flush=True)
        except Exception as problem:  # a test that breaks has failed
            failed += 1
            print(f"not ok {number} - {test.__name__}\n# {type(problem).__name__}: {problem}", flush=True)
    shutil.rmtree(WORK, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
