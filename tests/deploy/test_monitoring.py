#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rules, dashboard and autoscaling rules of deploy/: promtool accepts them, and they name no metric and no
label that a running server does not have."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "http"))
import yaml  # noqa: E402
from harness import ROOT, TINY, Server, main, same, test  # noqa: E402

DEPLOY = os.path.join(ROOT, "deploy")
PAIR = os.path.join(ROOT, "tests", "data", "tiny-mt-pre")
PROMTOOL = shutil.which("promtool")
FROM_PROMETHEUS = {"up": set()}  # made by Prometheus itself for every scrape
FROM_SCRAPE = {"job", "instance", "namespace", "pod"}


def load(path):
    with open(os.path.join(DEPLOY, path), encoding="utf-8") as f:
        return yaml.safe_load(f)


def rules():
    return [rule for group in load("prometheus/fathom.rules.yml")["groups"]
            for rule in group["rules"]]


def dashboard_queries():
    dashboard = load("grafana/fathom.json")
    return [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]] \
        + [re.sub(r"label_values\((.*), \w+\)", r"\1", v["definition"])
           for v in dashboard["templating"]["list"] if "definition" in v]


def adapter_queries():
    """What the adapter for autoscaling asks, with its placeholders filled in."""
    queries = []
    for rule in load("kubernetes/autoscaling/adapter-values.yaml")["rules"]["custom"]:
        series = rule["seriesQuery"]
        name = re.match(r"\w+", series).group(0)
        filled = rule["metricsQuery"].replace("<<.Series>>", name) \
            .replace("<<.LabelMatchers>>", 'namespace="a",pod="b"').replace("<<.GroupBy>>", "pod")
        queries += [series, filled]
    return queries


def queries():
    """Every query, with Grafana's variables exchanged for values."""
    for query in [r["expr"] for r in rules()] + dashboard_queries() + adapter_queries():
        yield re.sub(r"\$__(rate_interval|range)", "5m", query).replace("$job", "a") \
            .replace("$instance", "b")


def promtool(*arguments):
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False,
                          cwd=os.path.join(DEPLOY, "prometheus"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_promtool(function):
    if PROMTOOL:
        return test(function)

    def skipped():
        pass
    skipped.__name__ = f"{function.__name__} # SKIP promtool is not installed"
    return test(skipped)


def live_labels():
    """Metric -> names of its labels, from servers with one stack and with two that have done some work
    and have refused some."""
    labels = {}
    for model in (TINY, PAIR):
        with Server(model=model) as server:
            same(server.complete(prompt="a", max_tokens=4, latency_budget_ms=9000).status, 200)
            late = {"x-envoy-expected-rq-timeout-ms": "0"}
            same(server.complete(late, prompt="a", max_tokens=4).status, 504)
            text = server.ask("GET", "/metrics", admin=True).body.decode()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
                    labels.setdefault(name + suffix, set())
            elif not line.startswith("#"):
                name, inside = re.match(r"(\w+)(?:{(.*)})?", line).groups()
                labels[name] |= set(re.findall(r'(\w+)="', inside or ""))
    return labels


@with_promtool
def promtool_accepts_the_rules():
    promtool("check", "rules", "fathom.rules.yml")


@with_promtool
def promtool_accepts_the_configuration():
    promtool("check", "config", "prometheus.yml")


@with_promtool
def the_rules_do_what_their_tests_say():
    promtool("test", "rules", "fathom.test.yml")


@with_promtool
def promtool_parses_every_query():
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as f:
        yaml.safe_dump({"groups": [{"name": "queries", "rules": [
            {"record": f"query:{i}", "expr": q} for i, q in enumerate(queries())]}]}, f)
        f.flush()
        promtool("check", "rules", f.name)


@test
def every_alert_is_tested_and_explained():
    alerts = {r["alert"] for r in rules() if "alert" in r}
    tested = {a["alertname"] for t in load("prometheus/fathom.test.yml")["tests"]
              for a in t.get("alert_rule_test", []) if a["exp_alerts"]}
    same(sorted(alerts), sorted(tested))
    with open(os.path.join(DEPLOY, "README.md"), encoding="utf-8") as f:
        guide = f.read()
    same([a for a in alerts if f"`{a}`" not in guide], [])


@test
def every_metric_and_label_of_a_query_is_a_servers():
    known = {**live_labels(), **FROM_PROMETHEUS}
    recorded = {r["record"]: set() for r in rules() if "record" in r}
    everywhere = set.union(FROM_SCRAPE, {"le"}, *known.values())
    wrong = []
    for query in queries():
        names = re.findall(r"\b((?:fathom|process)[_:][\w:]+|up)\b", re.sub(r'"[^"]*"', "", query))
        assert names, query
        wrong += [name for name in names if name not in known and name not in recorded]
        for name, inside in re.findall(r"([\w:]+){([^}]*)}", query):
            used = set(re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', "", inside)))
            wrong += [f"{name}: {label}" for label in used - FROM_SCRAPE - known.get(name, set())]
        for inside in re.findall(r"\b(?:by|without) \(([^)]*)\)", query):
            wrong += [label for label in re.split(r",\s*", inside) if label not in everywhere]
    same(wrong, [])


@test
def the_queries_would_miss_a_metric_that_is_not_there():
    names = live_labels()
    assert "fathom_step_seconds_bucket" in names and "fathom_step_seconds" not in names, names
    assert "reason" in names["fathom_rejected_total"], names["fathom_rejected_total"]
    assert "stack" in names["fathom_layer_rows_total"]


@test
def the_dashboard_is_what_its_program_writes():
    made = subprocess.run([sys.executable, os.path.join(DEPLOY, "grafana", "dashboard.py")],
                          capture_output=True, check=True).stdout
    with open(os.path.join(DEPLOY, "grafana", "fathom.json"), "rb") as f:
        same(made == f.read(), True)


@test
def the_panels_of_the_dashboard_do_not_overlap():
    taken = set()
    for panel in json.loads(json.dumps(load("grafana/fathom.json")))["panels"]:
        g = panel["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"])
                 for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


@test
def kubernetes_gets_the_same_rules():
    (rule,) = [d for path in glob.glob(os.path.join(DEPLOY, "kubernetes", "monitoring", "*.yaml"))
               for d in [load(path)] if d["kind"] == "PrometheusRule"]
    same(rule["spec"]["groups"], load("prometheus/fathom.rules.yml")["groups"])


if __name__ == "__main__":
    sys.exit(main())
