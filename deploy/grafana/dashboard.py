#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes fathom.json, the Grafana dashboard (Grafana 9 or later). Usage: deploy/grafana/dashboard.py > deploy/grafana/fathom.json

PANELS below says all that there is to a panel: change it there, not in the JSON."""
import json
import sys

ALL = 'job=~"$job",instance=~"$instance"'
MET = ALL + ',met="true"'
WORK = ALL + ',route=~"/v1/.*|/classify|/fill-mask"'


def rate(metric, labels=ALL):
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def quantile(q, metric, by=""):
    return f"histogram_quantile({q}, sum by (le{by}) ({rate(metric + '_bucket')}))"


def quantiles(metric):
    return [(quantile(q, metric), name) for q, name in
            ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


# (title, what it tells, kind, unit, width of 24, [(query, legend)])
PANELS = [
    ("Budgets met", "Share of the requests with a budget that met it, over the range shown.", "stat", "percentunit", 4,
     [(f'sum(increase(fathom_budget_requests_total{{{ALL},met="true"}}[$__range])) / sum(increase(fathom_budget_requests_total{{{ALL}}}[$__range]))', "")]),
    ("Requests", "Answered requests for work.", "stat", "reqps", 4, [(f"sum({rate('fathom_requests_total', WORK)})", "")]),
    ("Tokens", "Generated tokens.", "stat", "short", 4, [(f"sum({rate('fathom_generation_tokens_total')})", "tokens/s")]),
    ("Predicted wait", "Wait of a request that comes now, at the least loaded replica.", "stat", "s", 4,
     [(f"min(fathom_predicted_wait_seconds{{{ALL}}})", "")]),
    ("Engines busy", "Share of the time that engines spend in steps.", "stat", "percentunit", 4,
     [(f"avg({rate('fathom_engine_busy_seconds_total')})", "")]),
    ("Replicas", "Replicas that are scraped.", "stat", "short", 4, [(f"count(fathom_build_info{{{ALL}}})", "")]),

    ("Attainment of budgets", "Share of the requests with a budget that met it. A refusal is not in it: see the refusals.", "line", "percentunit", 12,
     [(f'sum by (job) ({rate("fathom_budget_requests_total", MET)}) / (sum by (job) ({rate("fathom_budget_requests_total")}) > 0)', "{{job}}")]),
    ("Depth served", "Requests by the depth that they ran.", "stack", "reqps", 12,
     [(f"sum by (encoder_depth, depth) ({rate('fathom_depth_selected_total')})", "{{encoder_depth}} {{depth}}")]),

    ("Why that depth", "explicit: asked for; budget: the deepest that fits; overload: lowered for load; default: nothing was asked.", "stack", "reqps", 8,
     [(f"sum by (reason) ({rate('fathom_depth_selected_total')})", "{{reason}}")]),
    ("Layers of a row", "Mean number of layers that a token runs through.", "line", "short", 8,
     [('fathom:depth:mean_rate5m{job=~"$job"}', "{{job}} {{stack}}")]),
    ("Tokens by depth", "Generated tokens by the depth of their request.", "stack", "short", 8,
     [(f"sum by (encoder_depth, depth) ({rate('fathom_generation_tokens_total')})", "{{encoder_depth}} {{depth}}")]),

    ("Latency", "From the last byte of the request to the last byte of the answer.", "line", "s", 12, quantiles("fathom_request_duration_seconds")),
    ("Latency by depth, p95", "The same, by depth.", "line", "s", 12,
     [(quantile(0.95, "fathom_request_duration_seconds", ", encoder_depth, depth"), "{{encoder_depth}} {{depth}}")]),
    ("First token (TTFT) by depth, p95", "From the last byte of the request to the first token.", "line", "s", 12,
     [(quantile(0.95, "fathom_time_to_first_token_seconds", ", encoder_depth, depth"), "{{encoder_depth}} {{depth}}")]),
    ("Between tokens (ITL) by depth, p95", "Between two tokens of an answer.", "line", "s", 12,
     [(quantile(0.95, "fathom_inter_token_latency_seconds", ", encoder_depth, depth"), "{{encoder_depth}} {{depth}}")]),

    ("Running and waiting", "Requests in the batch and in the queue.", "line", "short", 8,
     [(f"sum(fathom_requests_running{{{ALL}}})", "running"), (f"sum(fathom_requests_waiting{{{ALL}}})", "waiting")]),
    ("Predicted wait by replica", "Wait of a request that comes now.", "line", "s", 8, [(f"fathom_predicted_wait_seconds{{{ALL}}}", "{{instance}}")]),
    ("Time in the queue", "Wait of the requests that joined a batch.", "line", "s", 8, quantiles("fathom_request_queue_seconds")),

    ("Engine busy by replica", "Share of the time that the engine spends in steps; 1 is saturated.", "line", "percentunit", 8,
     [(rate("fathom_engine_busy_seconds_total"), "{{instance}}")]),
    ("Step time, p95", "Duration of a step, by what its rows were.", "line", "s", 8,
     [(quantile(0.95, "fathom_step_seconds", ", phase"), "{{phase}}")]),
    ("Rows in a step", "Mean number of tokens of all requests in a step.", "line", "short", 8,
     [(f"sum by (instance) ({rate('fathom_step_rows_sum')}) / sum by (instance) ({rate('fathom_step_rows_count')})", "{{instance}}")]),

    ("Requests: actual over predicted time", "1 is a perfect prediction.", "line", "short", 6,
     [(quantile(q, "fathom_prediction_error_ratio"), name) for q, name in ((0.05, "p5"), (0.5, "p50"), (0.95, "p95"))]),
    ("Steps: actual over predicted time", "1 is a perfect prediction; p50 and p95, by what the rows were.", "line", "short", 6,
     [(quantile(q, "fathom_step_prediction_error_ratio", ", phase"), name + " {{phase}}") for q, name in ((0.5, "p50"), (0.95, "p95"))]),
    ("Pace of the machine", "Time of the last steps over that of an undisturbed machine: above 1 something else uses the processor.", "line", "short", 6,
     [(f"fathom_machine_pace_ratio{{{ALL}}}", "{{instance}}")]),
    ("KV pool", "Share of the KV pool that is reserved.", "line", "percentunit", 6, [(f"fathom_kv_cache_usage_ratio{{{ALL}}}", "{{instance}}")]),

    ("Refusals by reason", "Requests refused, by error code.", "stack", "reqps", 8,
     [(f"sum by (reason) ({rate('fathom_rejected_total')})", "{{reason}}")]),
    ("Answers by status", "Requests for work, by status.", "stack", "reqps", 8, [(f"sum by (code) ({rate('fathom_requests_total', WORK)})", "{{code}}")]),
    ("Given up", "Deadlines that passed and requests that were cancelled, by how far they had come.", "stack", "reqps", 8,
     [(f"sum by (stage) ({rate('fathom_deadline_exceeded_total')})", "deadline, {{stage}}"),
      (f"sum by (stage) ({rate('fathom_cancelled_total')})", "cancelled, {{stage}}")]),

    ("Processor", "Cores in use.", "line", "short", 8, [(rate("process_cpu_seconds_total"), "{{instance}}")]),
    ("Memory", "Resident memory.", "line", "bytes", 8, [(f"process_resident_memory_bytes{{{ALL}}}", "{{instance}}")]),
    ("Connections", "Open connections.", "line", "short", 8, [(f"fathom_connections{{{ALL}}}", "{{instance}}")]),
]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number, place, title, tells, kind, unit, queries):
    custom = {"lineWidth": 1, "fillOpacity": 25 if kind == "stack" else 0, "showPoints": "never",
              "stacking": {"mode": "normal" if kind == "stack" else "none"}}
    defaults = {"unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": [{"color": "blue", "value": None}]}}
    if kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    else:
        defaults["custom"] = custom
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number, "title": title, "description": tells, "type": "stat" if kind == "stat" else "timeseries",
        "datasource": DATASOURCE, "gridPos": place, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
        "targets": [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend, "range": True}
                    for i, (expr, legend) in enumerate(queries)],
    }


def panels():
    x = y = height = 0
    for number, (title, tells, kind, unit, width, queries) in enumerate(PANELS, 1):
        if x + width > 24:
            x, y = 0, y + height
        height = 4 if kind == "stat" else 8
        yield panel(number, {"x": x, "y": y, "w": width, "h": height}, title, tells, kind, unit, queries)
        x += width


def variable(name, label, metric):
    query = f"label_values({metric}, {name})"
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def dashboard():
    return {
        "uid": "fathom", "title": "fathom", "description": "Depth, latency and load of fathom replicas.", "tags": ["fathom"],
        "schemaVersion": 37, "version": 1, "editable": True, "refresh": "10s", "timezone": "browser",
        "time": {"from": "now-30m", "to": "now"}, "graphTooltip": 1,
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
             "current": {"text": "default", "value": "default"}},
            variable("job", "Job", "fathom_build_info"),
            variable("instance", "Replica", 'fathom_build_info{job=~"$job"}'),
        ]},
        "annotations": {"list": []}, "links": [], "panels": list(panels()),
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    print()
