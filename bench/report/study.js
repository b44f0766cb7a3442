/* SPDX-License-Identifier: Apache-2.0 */
/* What a result holds: its runs, what was varied between them, the series to draw, measured quality. */
"use strict";

const SHARES = [
	["p50", 0.5],
	["p75", 0.75],
	["p90", 0.9],
	["p95", 0.95],
	["p99", 0.99],
	["p99_9", 0.999],
];
const TIMES = [
	{ key: "latency_ms", name: "whole answer" },
	{ key: "ttft_ms", name: "first token" },
	{ key: "tpot_ms", name: "per further token" },
	{ key: "itl_ms", name: "between tokens" },
	{ key: "queue_ms", name: "queue" },
];

const measured = q => q && known(q.p50) && q.count !== 0;
const times_of = runs => TIMES.filter(t => runs.some(run => measured(run[t.key])));
const distinct = values => [...new Set(values)];
const attained = run => (run.budget && run.budget.asked > 0 ? run.budget.met / run.budget.asked : null);
/* A percentile needs that many answers beyond it. */
const percentile_known = (q, share) => q.count === undefined || q.count * (1 - share) >= 0.999;

/* "12x6" is 12 encoder and 6 decoder layers. */
const depth_text = name => String(name).replace("x", "×");
function depth_layers(name) {
	const parts = String(name).split("x").map(Number);
	return parts.every(known) ? parts : null;
}
const depth_total = name => (depth_layers(name) || [0]).reduce((a, b) => a + b, 0);
function by_depth(a, b) {
	const x = depth_layers(a) || [0],
		y = depth_layers(b) || [0];
	return depth_total(a) - depth_total(b) || x[0] - y[0];
}
const layers_word = name =>
	depth_text(name) + (/^\d+$/.test(name) ? (name === "1" ? " layer" : " layers") : "");

/* Layers of the model as {text, total}; null if unknown. */
function model_layers(result) {
	const layers =
		result.server && (result.server.layers || (result.server.depths && result.server.depths.layers));
	if (known(layers)) return { text: String(layers), total: layers };
	if (layers && known(layers.decoder))
		return { text: `${layers.encoder}×${layers.decoder}`, total: layers.encoder + layers.decoder };
	return null;
}

/* Measured quality of each depth: {key: "perplexity", of: {"6": 132}}; null if there is none. */
function quality_of(result) {
	const listed = result.server && result.server.depths;
	if (!listed) return null;
	const of = {},
		entries = listed.pairs || listed.depths || [];
	let key = null;
	for (const entry of entries) {
		const found = entry.quality ? Object.keys(entry.quality).find(k => known(entry.quality[k])) : null;
		if (!found || (key && found !== key)) continue;
		key = found;
		const depth =
			entry.depth && known(entry.depth.decoder)
				? `${entry.depth.encoder}x${entry.depth.decoder}`
				: String(entry.depth);
		of[depth] = entry.quality[found];
	}
	return key ? { key, of, less_is_better: /perplexity|loss/.test(key) } : null;
}
const QUALITY = { bleu: "BLEU", perplexity: "perplexity", accuracy: "accuracy" };
const quality_name = quality => QUALITY[quality.key] || quality.key;

/* A run's depth if it was the same for all requests by intent: asked for, or by the policy "fixed:D" of the simulator. */
function fixed_depth(run) {
	const { depth, policy } = run.parameter || {};
	if (depth !== undefined && depth !== null && depth_layers(depth)) return String(depth);
	const ran = Object.keys((run.depth && run.depth.histogram) || {});
	return /^fixed/.test(policy || "") && ran.length === 1 ? ran[0] : null;
}

/*
 * Latencies of each depth: from runs at one depth each, or from the depths inside the only run. `chosen`: the server chose them by
 * what time there was, so that they do not tell what depth costs.
 */
function depths_of(runs, load) {
	const fixed = runs.filter(run => fixed_depth(run) !== null && measured(run.latency_ms)),
		list = (names, part_of, chosen) => ({
			chosen,
			list: names.sort(by_depth).map(name => ({ name, part: part_of(name) })),
		});
	if (
		fixed.length > 1 &&
		distinct(fixed.map(run => JSON.stringify({ ...run.parameter, depth: null, policy: null }))).length ===
			1
	) {
		return list(fixed.map(fixed_depth), name => fixed.find(run => fixed_depth(run) === name), false);
	}
	const inside = (runs.length === 1 && runs[0].by_depth) || {},
		seen = Object.keys(inside).filter(name => depth_layers(name) && measured(inside[name].latency_ms));
	return list(seen, name => inside[name], /"auto"/.test(JSON.stringify(load || {})));
}

/* What was varied from run to run besides depth: {key, title}, or null. */
function varied(runs) {
	const axes = [
		{ key: "rate", title: "requests offered per second", unit: "/s" },
		{ key: "clients", title: "clients at once", unit: " clients" },
		{ key: "replicas", title: "servers behind the balancer", unit: " servers" },
		{ key: "load", title: "load, share of capacity", unit: "" },
	];
	for (const axis of axes) {
		const values = runs.map(run => run.parameter && run.parameter[axis.key]);
		if (distinct(values.filter(known)).length > 1)
			return { ...axis, of: run => (run.parameter ? run.parameter[axis.key] : null) };
	}
	return null;
}

/* Series over the varied axis: one per depth or policy. Fixed depths are shades of one colour, others have colours. */
function series_of(runs, axis) {
	const labels = distinct(runs.map(run => run.label)),
		shared = labels.length < runs.length;
	const groups = new Map();
	for (const run of runs.filter(run => known(axis.of(run)))) {
		const depth = fixed_depth(run),
			policy = run.parameter.policy || (run.parameter.depth && !depth ? run.parameter.depth : null);
		const name = depth
			? "depth " + depth_text(depth)
			: policy
				? String(policy)
				: shared
					? run.label
					: "all";
		if (!groups.has(name)) groups.set(name, { name, depth, runs: [] });
		groups.get(name).runs.push(run);
	}
	const series = [...groups.values()];
	const fixed = series.filter(s => s.depth).sort((a, b) => by_depth(a.depth, b.depth));
	fixed.forEach(
		(s, i) =>
			(s.look = {
				classes: "fixed thin",
				shape: "small",
				opacity: fixed.length > 1 ? 0.4 + (0.6 * i) / (fixed.length - 1) : 1,
			}),
	);
	series
		.filter(s => !s.depth)
		.forEach(
			(s, i) =>
				(s.look = {
					classes: `t${i % 6}${fixed.length ? " thick" : ""}`,
					shape: SHAPE_NAMES[i % 6],
					opacity: 1,
				}),
		);
	for (const s of series) s.runs.sort((a, b) => axis.of(a) - axis.of(b));
	return series.sort((a, b) => (a.depth ? 0 : 1) - (b.depth ? 0 : 1));
}

/* Least squares of the relative error, so that shallow depths count as much as deep ones. */
function line_fit(points) {
	let total = 0,
		mean_x = 0,
		mean_y = 0,
		xy = 0,
		xx = 0;
	const weighted = points.map(([x, y]) => [x, y, 1 / (y * y)]);
	for (const [x, y, w] of weighted) {
		total += w;
		mean_x += w * x;
		mean_y += w * y;
	}
	mean_x /= total;
	mean_y /= total;
	for (const [x, y, w] of weighted) {
		xy += w * (x - mean_x) * (y - mean_y);
		xx += w * (x - mean_x) ** 2;
	}
	const b = xy / xx,
		a = mean_y - b * mean_x;
	return { a, b, worst: Math.max(...points.map(([x, y]) => Math.abs(y / (a + b * x) - 1))) };
}
