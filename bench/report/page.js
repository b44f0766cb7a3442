/* SPDX-License-Identifier: Apache-2.0 */
/* The page: what was run, the main numbers, pictures across runs, pictures of one run, and all runs as a table. */
"use strict";

const join = parts => parts.filter(part => part).join(", ");
const run_name = (runs, axis) => run => {
	const depth = fixed_depth(run),
		value = axis && known(axis.of(run)) ? short(axis.of(run)) + axis.unit : null;
	if (runs.length > 1 && distinct(runs.map(r => r.label)).length === runs.length)
		return String(run.label).replace(/(\d)x(\d)/, "$1×$2");
	return (
		join([
			run.label,
			depth && !String(run.label).includes(depth) ? "depth " + depth_text(depth) : null,
			value,
		]) || "run"
	);
};

/* "64", "8..64" and "lognormal:64:0.4" in words. */
function amount(value) {
	const log = /^lognormal:([^:]+):(.+)$/.exec(value);
	return log ? `about ${log[1]} (lognormal, σ ${log[2]})` : String(value).replace("..", " to ");
}
const WORDS = {
	poisson: "Poisson arrivals",
	uniform: "evenly spaced arrivals",
	trace: "arrivals as in a trace",
	gamma: "gamma-distributed arrivals",
};

function arrivals_text(load) {
	if (load.arrivals === "closed" || (!load.arrivals && load.clients)) {
		return (
			`${short(load.clients)} client${load.clients === 1 ? "" : "s"}, each waiting for its answer` +
			(load.think_ms && String(load.think_ms) !== "0"
				? `, then thinking ${amount(load.think_ms)} ms`
				: "")
		);
	}
	const phases =
		Array.isArray(load.phases) && load.phases.length
			? load.phases.map(p => `${short(p.rate)}/s for ${short(p.seconds)} s`).join(", then ")
			: null;
	return join([
		WORDS[load.arrivals] || load.arrivals,
		load.arrivals === "gamma" && load.cv ? `coefficient of variation ${short(load.cv)}` : null,
		load.trace ? String(load.trace).split("/").pop() : null,
		phases || (known(load.rate) && load.rate > 0 ? `${short(load.rate)} per second` : null),
	]);
}

/* One class of requests as a sentence without a verb. */
function class_text(parts) {
	const given = key =>
		parts[key] !== undefined && parts[key] !== null && parts[key] !== "" && String(parts[key]) !== "0";
	const times = [
		["latency_budget_ms", "ms for the answer"],
		["ttft_budget_ms", "ms for the first token"],
		["tpot_budget_ms", "ms for each further token"],
		["deadline_ms", "ms at most"],
	];
	return join([
		given("depth")
			? /^[0-9x]+$/.test(parts.depth)
				? "depth " + depth_text(parts.depth)
				: `depth “${parts.depth}”`
			: null,
		...times.map(([key, text]) => (given(key) ? `${amount(parts[key])} ${text}` : null)),
		given("prompt_tokens") ? `${amount(parts.prompt_tokens)} tokens in` : null,
		given("max_tokens")
			? `${amount(parts.max_tokens)} tokens out${parts.ignore_eos === false ? " at most" : ""}`
			: null,
		given("min_depth") ? `at least depth ${depth_text(parts.min_depth)}` : null,
		given("max_depth") ? `at most depth ${depth_text(parts.max_depth)}` : null,
		given("on_miss") && parts.on_miss !== "degrade" ? `on a miss: ${parts.on_miss}` : null,
		given("num_beams") ? `${parts.num_beams} beams` : null,
		parts.stream === true ? "streamed" : null,
	]);
}

function facts(result) {
	const { load = {}, server = {} } = result,
		layers = model_layers(result),
		mix = load.mix || load.classes || [];
	const list = [["Server", join([server.model, layers ? `${layers.text} layers` : null, server.url])]];
	if (load.arrivals || load.clients)
		list.push([
			"Load",
			join([
				arrivals_text(load),
				load.seconds ? `${short(load.seconds)} s` : null,
				load.seed !== undefined ? `seed ${load.seed}` : null,
			]),
		]);
	const classes = Array.isArray(mix) ? mix.filter(part => part && typeof part === "object") : [];
	if (classes.length > 1 || (classes.length === 1 && class_text(classes[0]))) {
		const total = classes.reduce((sum, part) => sum + (known(part.weight) ? part.weight : 1), 0);
		classes.forEach((part, i) =>
			list.push([
				i ? "" : "Requests",
				(classes.length > 1
					? percent((known(part.weight) ? part.weight : 1) / total).replace(/\.0 /, " ") + " "
					: "") +
					(part.name && part.name !== "all" ? part.name + ": " : "") +
					class_text({ ...load, ...part }),
			]),
		);
	} else if (class_text(load)) {
		list.push(["Requests", class_text(load)]);
	}
	if (result.note) list.push(["Note", String(result.note)]);
	list.push([
		"Made by",
		join([
			result.tool ? `${result.tool.name} ${result.tool.version || ""}`.trim() : null,
			result.started,
		]),
	]);
	return el(
		"dl",
		{ class: "facts" },
		list.filter(([, text]) => text).map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]),
	);
}

/* A number with its unit set small. */
const tile = (name, text, beside) => {
	const split = /^([\d.,–-]+)\s*(.*)$/.exec(text) || [null, text, ""];
	return el(
		"div",
		{},
		el("dt", {}, name),
		el(
			"dd",
			{},
			el("div", { class: "figure" }, split[1], split[2] ? el("small", {}, " " + split[2]) : null),
			beside ? el("div", { class: "beside" }, beside) : null,
		),
	);
};

function tiles_of_one(run, result) {
	const layers = model_layers(result),
		list = [],
		share = attained(run),
		depth = run.depth || {};
	if (share !== null)
		list.push(
			tile("Budgets met", percent(share), `${grouped(run.budget.met)} of ${grouped(run.budget.asked)}`),
		);
	if (measured(run.latency_ms))
		list.push(
			tile(
				"Whole answer, median",
				milliseconds(run.latency_ms.p50),
				`p95 ${milliseconds(run.latency_ms.p95)}, p99 ${milliseconds(run.latency_ms.p99)}`,
			),
		);
	if (measured(run.ttft_ms))
		list.push(
			tile(
				"First token, median",
				milliseconds(run.ttft_ms.p50),
				`p95 ${milliseconds(run.ttft_ms.p95)}`,
			),
		);
	if (measured(run.tpot_ms))
		list.push(
			tile("Per further token", milliseconds(run.tpot_ms.p50), `p95 ${milliseconds(run.tpot_ms.p95)}`),
		);
	if (known(depth.mean))
		list.push(
			tile(
				"Mean depth",
				number(depth.mean) + (layers ? ` of ${layers.total}` : ""),
				known(depth.by_tokens_mean) ? `${number(depth.by_tokens_mean)} by tokens` : null,
			),
		);
	list.push(
		tile(
			share !== null ? "Within budget" : "Throughput",
			number(share !== null ? run.goodput_per_s : run.requests_per_s) + " /s",
			join([
				share !== null ? `${number(run.requests_per_s)} answers/s` : null,
				known(run.tokens_per_s) ? `${number(run.tokens_per_s)} tokens/s` : null,
			]),
		),
	);
	return list;
}

function tiles_of_many(result, axis, series, depths) {
	const runs = result.runs,
		list = [],
		total = runs.reduce((sum, run) => sum + (run.requests || 0), 0);
	if (axis) {
		for (const s of series.filter(s => !s.depth || series.length === 1)) {
			const good = s.runs.filter(run => attained(run) >= 0.99),
				best = good[good.length - 1];
			const name = s.name === "all" ? "" : s.name + ": ";
			if (s.runs.some(run => attained(run) !== null))
				list.push(
					tile(
						`${name}99 % of budgets met`,
						best ? short(axis.of(best)) + " " + axis.unit.trim() : "–",
						best ? "highest load tried that kept it" : "at no load that was tried",
					),
				);
		}
		const peak = runs
			.filter(run => known(run.goodput_per_s))
			.sort((a, b) => b.goodput_per_s - a.goodput_per_s)[0];
		if (peak && peak.goodput_per_s > 0)
			list.push(
				tile(
					"Most within budget",
					number(peak.goodput_per_s) + " /s",
					`at ${short(axis.of(peak))}${axis.unit}`,
				),
			);
		const fast = runs
			.filter(run => known(run.tokens_per_s))
			.sort((a, b) => b.tokens_per_s - a.tokens_per_s)[0];
		if (fast)
			list.push(
				tile(
					"Most tokens",
					number(fast.tokens_per_s) + " /s",
					`at ${short(axis.of(fast))}${axis.unit}`,
				),
			);
	}
	const free = runs.filter(run => !fixed_depth(run) && attained(run) !== null);
	if (!axis && free.length < runs.length) {
		for (const run of free.slice(0, 3))
			list.push(
				tile(
					`${run.label}: budgets met`,
					percent(attained(run)),
					`at a mean depth of ${number(run.depth ? (run.depth.by_tokens_mean ?? run.depth.mean) : null)}`,
				),
			);
	}
	const single = free.length ? [] : depths.list;
	if (single.length > 1) {
		for (const d of distinct([
			single[single.length - 1],
			single[Math.floor((single.length - 1) / 2)],
			single[0],
		])) {
			list.push(
				tile(
					layers_word(d.name),
					milliseconds(d.part.latency_ms.p50),
					`p95 ${milliseconds(d.part.latency_ms.p95)}`,
				),
			);
		}
	}
	list.push(tile("Requests", grouped(total), `in ${runs.length} runs`));
	return list;
}

/* Pictures across runs: what changes with depth or load. */
function across(result, axis, series, depths) {
	const runs = result.runs,
		name = run_name(runs, axis),
		from_zero = values => linear(0, Math.max(...values, 0));
	const list = [latency_against_depth(depths), quality_against_latency(depths, quality_of(result))];
	const choices = runs.length > 1 ? attainment_against_depth(runs, axis) : null;
	if (!axis) list.push(choices);
	if (axis) {
		list.push(
			over_load("attainment", series, axis, {
				title: "Budgets met against load",
				note: "Share of the requests with a budget that kept it; refused, late or cut short is a miss.",
				value: attained,
				text: percent,
				y_title: "budgets met",
				scale: values =>
					linear(Math.min(...values) > 0.8 ? 0.8 : 0, 1, v => `${Math.round(100 * v)} %`),
				goal: 0.99,
			}),
			choices,
			over_load("depth-load", series, axis, {
				title: "Depth against load",
				note: "Mean number of layers that ran, each token counted once.",
				text: number,
				value: run => (run.depth ? (run.depth.by_tokens_mean ?? run.depth.mean) : null),
				y_title: "mean depth",
				scale: from_zero,
			}),
			over_load("goodput", series, axis, {
				title: "Answers within budget",
				note: "Answers per second that kept their budget.",
				text: number,
				value: run => (run.budget && run.budget.asked ? run.goodput_per_s : null),
				y_title: "per second",
				scale: from_zero,
			}),
			latency_over_load(series, axis),
			runs.some(run => measured(run.prediction_error))
				? over_load("prediction-load", series, axis, {
						title: "Predictions against load",
						note: "95 of 100 predictions of the finish were off by less.",
						text: percent,
						value: run => (run.prediction_error || {}).p95,
						y_title: "prediction error, p95",
						scale: values => linear(0, Math.max(...values, 0.01), v => `${short(100 * v)} %`),
					})
				: null,
		);
	}
	const mixed = runs.filter(run => run.depth && Object.keys(run.depth.histogram || {}).length > 1);
	if (mixed.length > 1) list.push(depth_mix(mixed, name));
	return list;
}

const of_one = (run, result, alone) => [
	over_time(run),
	...(alone ? across({ ...result, runs: [run] }, null, [], depths_of([run], result.load)) : []),
	distribution(run),
	depth_mix([run], () => ""),
	prediction(run),
];

/* Refusals and errors, where there were any. */
function outcomes(run) {
	const seen = counts => Object.entries(counts || {}).filter(([, n]) => n > 0),
		statuses = seen(run.status),
		errors = seen(run.errors);
	const rows = [
		...statuses.map(([code, n]) => [`status ${code}`, grouped(n)]),
		...errors.map(([code, n]) => [code, grouped(n)]),
	];
	return errors.length || statuses.some(([code]) => code !== "200")
		? el(
				"div",
				{ id: "outcomes" },
				el("h3", {}, "Statuses and errors"),
				el("div", { class: "scroll" }, table(["", "requests"], rows)),
			)
		: null;
}

const part = (title, beside, ...children) =>
	el("section", {}, el("div", { class: "head" }, el("h2", {}, title), beside), ...children);
const pictures = (list, ...others) =>
	el("div", { class: "pictures" }, list.filter(p => p).map(figure), others);

function runs_table(runs, axis) {
	const time = (key, share) => run => number((run[key] || {})[share]);
	const columns = [
		["run", run_name(runs, axis)],
		["requests", run => grouped(run.requests)],
		["answered", run => grouped(run.completed)],
		["budgets met", run => percent(attained(run))],
		["within budget /s", run => (attained(run) === null ? "–" : number(run.goodput_per_s))],
		["tokens /s", run => number(run.tokens_per_s)],
		["mean depth", run => number((run.depth || {}).mean)],
		["median ms", time("latency_ms", "p50")],
		["p95 ms", time("latency_ms", "p95")],
		["p99 ms", time("latency_ms", "p99")],
		["first token ms", time("ttft_ms", "p50")],
		["per token ms", time("tpot_ms", "p50")],
		["prediction p95", run => percent((run.prediction_error || {}).p95)],
	].filter(([, of]) => runs.some(run => of(run) !== "–"));
	return el(
		"div",
		{ class: "scroll", tabindex: 0, role: "region", "aria-label": "All runs" },
		table(
			columns.map(([name]) => name),
			runs.map(run => columns.map(([, of]) => of(run))),
		),
	);
}

/* Pictures of one of several runs, chosen from a list. */
function one_of(result, axis) {
	const runs = result.runs,
		name = run_name(runs, axis),
		place = el("div"),
		select = el(
			"select",
			{ id: "run", "aria-label": "Run" },
			runs.map((run, i) => el("option", { value: i }, name(run))),
		);
	const show = () =>
		place.replaceChildren(
			pictures(of_one(runs[select.value], result, false), outcomes(runs[select.value])),
		);
	select.addEventListener("change", () => {
		show();
		draw_pictures();
	});
	show();
	return part("One run", select, place);
}

function page(result) {
	const runs = result.runs,
		one = runs.length === 1,
		axis = varied(runs),
		series = axis ? series_of(runs, axis) : [],
		depths = depths_of(runs, result.load);
	const model = (result.server || {}).model,
		simulated = /simul/.test((result.tool || {}).name || "");
	const what = one
		? "A run"
		: axis && series.length > 1
			? "Policies under load"
			: axis
				? "From light load to heavy"
				: runs.every(fixed_depth)
					? "Depth by depth"
					: runs.some(fixed_depth)
						? "Policies side by side"
						: `${runs.length} runs`;
	document.title = `${model ? model + ": " : ""}${what.toLowerCase()} · fathom`;
	const lost = runs[0].requests - runs[0].completed,
		longest = short(Math.max(...runs.map(run => run.seconds)));
	const time = `${longest} ${longest === "1" ? "second" : "seconds"}`;
	const lead = one
		? `${grouped(runs[0].requests)} requests in ${time}${simulated ? ", simulated" : ""}; ${lost > 0 ? grouped(lost) + " got no answer" : "all were answered"}.`
		: `${runs.length} runs of ${time} each at most${simulated ? ", simulated" : ""}.`;
	const tiles = el(
		"dl",
		{ class: "tiles" },
		one ? tiles_of_one(runs[0], result) : tiles_of_many(result, axis, series, depths),
	);
	return [
		el(
			"header",
			{},
			el("p", { class: "kicker" }, simulated ? "fathom simulate" : "fathom bench"),
			el("h1", {}, model ? `${what}: ${model}` : what),
			el("p", { class: "lead" }, lead),
		),
		tiles,
		one
			? el("section", {}, pictures(of_one(runs[0], result, true), outcomes(runs[0])))
			: part(
					"Across the runs",
					null,
					pictures(across(result, axis, series, depths)),
					el("section", {}, el("h3", {}, "All runs"), runs_table(runs, axis)),
				),
		one ? null : one_of(result, axis),
		part("What was run", null, facts(result)),
		el(
			"section",
			{ class: "notes" },
			el(
				"p",
				{},
				"All times are measured from the moment at which a request was to be sent, so that a late sender does not flatter the server. A request whose budget is not met was refused, late, or cut short. Within budget per second counts only the others.",
			),
			el(
				"p",
				{},
				"Point at a picture, or focus it and use the arrow keys, to read its points; its numbers are in the table beneath.",
			),
		),
	].filter(node => node);
}

const main = document.getElementById("report");
try {
	const result = JSON.parse(document.getElementById("result").textContent);
	if (!Array.isArray(result.runs) || !result.runs.length) throw new Error("it holds no runs");
	main.replaceChildren(...page(result));
	draw_pictures();
	print_tables();
} catch (problem) {
	main.replaceChildren(
		el("h1", {}, "fathom"),
		el("p", { class: "problem" }, `The result in this page cannot be shown: ${problem.message}.`),
	);
	throw problem;
}
