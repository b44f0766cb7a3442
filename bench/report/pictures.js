/* SPDX-License-Identifier: Apache-2.0 */
/* The pictures. Each function returns what figure() shows, or null where the result has nothing for it. */
"use strict";

const PLAIN = { classes: "t0", shape: "circle", opacity: 1 };
const time_row = q => [q.min, q.p50, q.p90, q.p95, q.p99, q.max].map(number);
const TIME_HEAD = ["least", "median", "p90", "p95", "p99", "most"];

/* Medians against depth with the spread around each, and a straight line where depth is one number. */
function latency_against_depth({ list: depths, chosen }) {
	const kinds = times_of(depths.map(d => d.part)).filter(t => t.key !== "itl_ms" && t.key !== "queue_ms");
	if (depths.length < 2 || !kinds.length) return null;
	const single = depths.every(d => depth_layers(d.name).length === 1);
	const show = kind => {
		const seen = depths
			.filter(d => measured(d.part[kind.key]))
			.map(d => ({ name: d.name, q: d.part[kind.key], layers: depth_total(d.name) }));
		const low = q => (known(q.p5) ? q.p5 : q.min);
		const fit =
			single && !chosen && seen.length > 2 ? line_fit(seen.map(d => [d.layers, d.q.p50])) : null;
		const least = seen.some(d => known(d.q.p5)) ? "p5" : "least";
		return {
			title:
				fit && fit.worst <= 0.15
					? `Each layer costs ${milliseconds(fit.b)}`
					: chosen
						? "Latency at each depth"
						: "Latency against depth",
			note:
				`${kind.name[0].toUpperCase() + kind.name.slice(1)}: dot, the median; bar, ${least} to p95.` +
				(fit
					? ` Line: ${milliseconds(fit.a)} + ${milliseconds(fit.b)} × depth, at most ${percent(fit.worst)} off.`
					: "") +
				(chosen ? " The server chose the depth by the time that there was." : ""),
			draw: width => {
				const top = Math.max(...seen.map(d => d.q.p95 || d.q.p50)),
					names = seen.map(d => depth_text(d.name));
				const x = single
					? placed(
							seen.map(d => d.layers),
							seen[0].layers - 0.6,
							seen[seen.length - 1].layers + 0.6,
							short,
						)
					: places(names);
				const plot = frame({
					width,
					x,
					y: linear(0, top),
					y_title: `ms, ${kind.name}`,
					x_title: single ? "layers that ran" : "layers that ran, encoder × decoder",
				});
				const at = i => plot.x(single ? seen[i].layers : i);
				if (fit) {
					const ends = [seen[0].layers - 0.4, seen[seen.length - 1].layers + 0.4];
					plot.svg.append(
						draw("path", {
							class: "path thin dashed fixed",
							d: path(ends.map(v => [plot.x(v), plot.y(fit.a + fit.b * v)])),
						}),
					);
				}
				seen.forEach(({ name, q }, i) => {
					plot.svg.append(
						draw("line", {
							class: "band t0",
							"stroke-width": 7,
							x1: at(i),
							x2: at(i),
							y1: plot.y(low(q)),
							y2: plot.y(q.p95),
						}),
					);
					dot(
						plot,
						at(i),
						plot.y(q.p50),
						`${layers_word(name)}: median ${milliseconds(q.p50)}, p95 ${milliseconds(q.p95)}`,
						"circle",
						"t0",
					);
				});
				return plot;
			},
			head: ["depth", "requests", ...TIME_HEAD, ...(fit ? ["line"] : [])],
			rows: seen.map(d => [
				depth_text(d.name),
				grouped(d.q.count),
				...time_row(d.q),
				...(fit ? [number(fit.a + fit.b * d.layers)] : []),
			]),
		};
	};
	return { id: "latency-depth", choices: kinds, show };
}

/* What the time buys: measured quality of the model folder against the median of what was just measured. */
function quality_against_latency({ list: depths, chosen }, quality) {
	if (!quality || chosen) return null;
	const seen = depths
		.filter(d => known(quality.of[d.name]))
		.map(d => ({ name: d.name, ms: d.part.latency_ms.p50, value: quality.of[d.name] }));
	if (seen.length < 2) return null;
	const single = seen.every(d => depth_layers(d.name).length === 1),
		name = quality_name(quality),
		better = quality.less_is_better ? "lower is better" : "higher is better";
	const show = () => ({
		title: "What the time buys",
		note: `${name[0].toUpperCase() + name.slice(1)} as the server lists it for each depth, against the median latency of this run; ${better}.`,
		draw: width => {
			const values = seen.map(d => d.value),
				y = quality.less_is_better
					? fitting(values)
					: linear(Math.min(...values) * 0.9, Math.max(...values));
			const plot = frame({
				width,
				x: linear(0, Math.max(...seen.map(d => d.ms))),
				y,
				right: 28,
				y_title: `${name} (${better})`,
				x_title: "ms, whole answer, median",
			});
			const at = seen.map(d => [plot.x(d.ms), plot.y(d.value)]);
			if (single)
				plot.svg.append(draw("path", { class: "path thin t0", d: path(at), "stroke-opacity": 0.5 }));
			seen.forEach((d, i) =>
				dot(
					plot,
					...at[i],
					`${layers_word(d.name)}: ${milliseconds(d.ms)}, ${name} ${number(d.value)}`,
					"circle",
					"t0",
				),
			);
			const named = seen.map((d, i) => ({ x: at[i][0], y: at[i][1], name: depth_text(d.name) }));
			point_names(plot, [named[named.length - 1], ...named.slice(0, -1)]);
			return plot;
		},
		head: ["depth", "median ms", name],
		rows: seen.map(d => [depth_text(d.name), number(d.ms), number(d.value)]),
	});
	return { id: "quality-latency", show };
}

/* Budgets met against depth: every fixed depth, and beside them what chooses by itself. */
function attainment_against_depth(runs, axis) {
	const depth = run => (run.depth ? (run.depth.by_tokens_mean ?? run.depth.mean) : null);
	const seen = runs.filter(run => attained(run) !== null && known(depth(run))),
		loads = axis ? distinct(seen.map(axis.of)) : [null];
	const at = load => seen.filter(run => !axis || axis.of(run) === load);
	const choices = loads
		.filter(load => at(load).filter(fixed_depth).length > 1 && at(load).some(run => !fixed_depth(run)))
		.sort((a, b) => b - a)
		.map(load => ({ load, name: axis ? short(load) + axis.unit : "" }));
	if (!choices.length) return null;
	const show = ({ load }) => {
		const fixed = at(load)
				.filter(fixed_depth)
				.sort((a, b) => depth(a) - depth(b)),
			free = at(load).filter(run => !fixed_depth(run));
		const name = run =>
			fixed_depth(run)
				? "depth " + depth_text(fixed_depth(run))
				: (run.parameter || {}).policy || run.label;
		const text = run => `${name(run)}: ${percent(attained(run))} met, mean depth ${number(depth(run))}`;
		return {
			title: "Budgets met against depth",
			note: "Every fixed depth on a line, and what chooses depths itself; up and to the right is better.",
			draw: width => {
				const all = [...fixed, ...free],
					shares = all.map(attained),
					deepest = Math.max(...all.map(depth));
				const y = linear(Math.min(...shares) > 0.8 ? 0.8 : 0, 1, v => `${Math.round(100 * v)} %`);
				const plot = frame({
					width,
					x: linear(0, deepest),
					y,
					right: 20,
					y_title: "budgets met",
					x_title: "mean depth",
				});
				const place = run => [plot.x(depth(run)), plot.y(attained(run))];
				plot.svg.append(draw("path", { class: "path thin fixed", d: path(fixed.map(place)) }));
				fixed.forEach(run => dot(plot, ...place(run), text(run), "circle", "fixed"));
				free.forEach((run, i) =>
					dot(plot, ...place(run), text(run), SHAPE_NAMES[i % 6], `t${i % 6}`),
				);
				point_names(
					plot,
					[...free, ...fixed].map(run => ({
						x: place(run)[0],
						y: place(run)[1],
						name: fixed_depth(run) ? depth_text(fixed_depth(run)) : name(run),
					})),
				);
				return plot;
			},
			head: ["", "budgets met", "mean depth"],
			rows: [...free, ...fixed].map(run => [name(run), percent(attained(run)), number(depth(run))]),
		};
	};
	return { id: "attainment-depth", choices, show };
}

/* A measure of each run over what was varied, a line for each policy. */
function over_load(id, series, axis, { title, note, value, text, y_title, scale, goal, heading }) {
	const points = s =>
		s.runs.map(run => ({
			x: axis.of(run),
			y: value(run),
			text: `${s.name === "all" ? "" : s.name + ", "}${short(axis.of(run))}${axis.unit}: ${text(value(run))}`,
		}));
	const all = series.map(s => ({ ...s, points: points(s) })).filter(s => s.points.some(p => known(p.y)));
	if (!all.length) return null;
	const values = all.flatMap(s => s.points.map(p => p.y)).filter(known),
		xs = distinct(all.flatMap(s => s.points.map(p => p.x))).sort((a, b) => a - b);
	return {
		id,
		show: () => ({
			title,
			note,
			draw: width =>
				lines({
					width,
					series: all,
					x: linear(0, xs[xs.length - 1]),
					y: scale(values),
					y_title,
					x_title: axis.title,
					goal,
				}),
			head: [heading || axis.key, ...all.map(s => (s.name === "all" ? y_title : s.name))],
			rows: xs.map(x => [
				short(x),
				...all.map(s => {
					const point = s.points.find(p => p.x === x);
					return point ? text(point.y) : "–";
				}),
			]),
		}),
	};
}

function latency_over_load(series, axis) {
	const kinds = times_of(series.flatMap(s => s.runs));
	if (!kinds.length) return null;
	const show = kind => {
		const one = series.length === 1,
			of = (share, look, name) => s => ({
				...s,
				name: name || s.name,
				look: look || s.look,
				value: run => (run[kind.key] || {})[share],
			});
		const parts = one
			? [
					of("p99", { classes: "t0 thin", shape: "small", opacity: 0.45 }, "p99")(series[0]),
					of("p95", { classes: "t0", shape: "small", opacity: 0.7 }, "p95")(series[0]),
					of("p50", PLAIN, "median")(series[0]),
				]
			: series.map(of("p95"));
		const all = parts.map(s => ({
			...s,
			points: s.runs.map(run => ({
				x: axis.of(run),
				y: s.value(run),
				text: `${s.name}, ${short(axis.of(run))}${axis.unit}: ${milliseconds(s.value(run))}`,
			})),
		}));
		const values = all.flatMap(s => s.points.map(p => p.y)),
			xs = distinct(all.flatMap(s => s.points.map(p => p.x))).sort((a, b) => a - b);
		return {
			title: "Latency against load",
			note: one
				? `Median, p95 and p99 of the ${kind.name}.`
				: `95 of 100 are as fast or faster: ${kind.name}.`,
			draw: width =>
				lines({
					width,
					series: all,
					names: true,
					x: linear(0, xs[xs.length - 1]),
					y: fitting(values),
					y_title: one ? "ms" : "ms, p95",
					x_title: axis.title,
				}),
			head: [axis.key, ...all.map(s => s.name)],
			rows: xs.map(x => [short(x), ...all.map(s => number((s.points.find(p => p.x === x) || {}).y))]),
		};
	};
	return { id: "latency-load", choices: kinds, show };
}

/* Shares of the depths that ran; the deeper, the stronger the colour. */
function depth_mix(runs, name_of) {
	const seen = runs.filter(
		run => run.depth && run.depth.histogram && Object.keys(run.depth.histogram).length,
	);
	if (!seen.length) return null;
	const names = distinct(seen.flatMap(run => Object.keys(run.depth.histogram))).sort(by_depth),
		one = seen.length === 1;
	if (names.length < 2) return null;
	const sum = run => Object.values(run.depth.histogram).reduce((a, b) => a + b, 0);
	const opacity = name => (names.length > 1 ? 0.2 + (0.8 * names.indexOf(name)) / (names.length - 1) : 1);
	const count = (run, name) => run.depth.histogram[name] || 0;
	const most = one ? Math.max(...names.map(name => count(seen[0], name) / sum(seen[0]))) : 1;
	const rows = one
		? names
				.slice()
				.reverse()
				.map(name => ({
					name: layers_word(name),
					value: percent(count(seen[0], name) / sum(seen[0])),
					parts: [
						{
							share: count(seen[0], name) / sum(seen[0]),
							opacity: opacity(name),
							text: `${layers_word(name)}: ${grouped(count(seen[0], name))} requests`,
						},
					],
				}))
		: seen.map(run => ({
				name: name_of(run),
				parts: names.map(name => ({
					share: count(run, name) / sum(run),
					opacity: opacity(name),
					text: `${name_of(run)}: ${layers_word(name)} for ${percent(count(run, name) / sum(run))}`,
				})),
			}));
	const changed = seen.reduce((total, run) => total + (run.depth.changed || 0), 0);
	return {
		id: one ? "depth-mix" : "depth-mix-runs",
		wide: false,
		show: () => ({
			title: "Depths that ran",
			note:
				(one
					? "Share of the answers at each depth."
					: `Share of the answers at each depth; the stronger the colour, the deeper, from ${depth_text(names[0])} to ${layers_word(names[names.length - 1])}.`) +
				(changed ? ` ${grouped(changed)} went on at a shallower depth midway.` : ""),
			draw: width => bars({ width, rows, x: { at: v => v / most } }),
			head: ["", ...names.map(depth_text)],
			rows: seen.map(run => [
				one ? "requests" : name_of(run),
				...names.map(name => grouped(count(run, name))),
			]),
		}),
	};
}

/* Percentiles, the tail stretched: each step to the right is a tenfold rarer answer. */
function distribution(run) {
	const kinds = times_of([run]);
	if (!kinds.length) return null;
	const where = share => -Math.log10(1 - share),
		label = v => `p${short(100 * (1 - 10 ** -v))}`;
	const show = kind => {
		const q = run[kind.key],
			points = SHARES.filter(([key, share]) => known(q[key]) && percentile_known(q, share)).map(
				([key, share]) => ({
					x: where(share),
					y: q[key],
					text: `${percent(share).replace(/\.0+ /, " ")} within ${milliseconds(q[key])}`,
				}),
			);
		if (known(q.min)) points.unshift({ x: 0, y: q.min, text: `fastest: ${milliseconds(q.min)}` });
		return {
			title: `${percent(0.5).replace(".0", "")} within ${milliseconds(q.p50)}, ${points.length > 5 ? `99 % within ${milliseconds(q.p99)}` : `95 % within ${milliseconds(q.p95)}`}`,
			note: `Percentiles of the ${kind.name}, the rare ones stretched. Slowest of ${grouped(q.count)}: ${milliseconds(q.max)}.`,
			draw: width =>
				lines({
					width,
					series: [{ name: kind.name, points, look: PLAIN }],
					y: fitting(points.map(p => p.y)),
					y_title: `ms, ${kind.name}`,
					right: 18,
					x: placed(
						points.map(p => p.x),
						0,
						points[points.length - 1].x,
						v => (v === 0 ? "least" : label(v)),
					),
					x_title: "share of answers that were as fast",
				}),
			head: ["", "count", "mean", "least", "median", "p75", "p90", "p95", "p99", "p99.9", "most"],
			rows: kinds.map(({ key, name }) => [
				`${name}, ms`,
				grouped(run[key].count),
				...["mean", "min", "p50", "p75", "p90", "p95", "p99", "p99_9", "max"].map(k =>
					number(run[key][k]),
				),
			]),
		};
	};
	return { id: "distribution", choices: kinds, show };
}

/* At most `most` bins of the timeline, each the sum of some seconds. */
function merged(timeline, most) {
	const every = Math.ceil(timeline.length / most),
		bins = [];
	for (let i = 0; i < timeline.length; i += every) {
		const part = timeline.slice(i, i + every),
			sum = key => part.reduce((total, t) => total + (t[key] || 0), 0),
			deep = part.filter(t => known(t.depth));
		const weight = deep.reduce((total, t) => total + (t.completed || 0), 0);
		bins.push({
			t_s: part[0].t_s,
			arrived: sum("arrived"),
			completed: sum("completed"),
			met: sum("met"),
			missed: sum("missed"),
			depth: weight
				? deep.reduce((total, t) => total + t.depth * (t.completed || 0), 0) / weight
				: null,
		});
	}
	return { bins, seconds: every * (timeline.length > 1 ? timeline[1].t_s - timeline[0].t_s : 1) };
}

function over_time(run) {
	if (!run.timeline || run.timeline.length < 2) return null;
	const budgets = run.timeline.some(t => t.met || t.missed),
		deep = run.timeline.some(t => known(t.depth));
	const { bins, seconds } = merged(run.timeline, 180);
	const each = seconds === 1 ? "second" : `${short(seconds)} s`;
	const show = () => ({
		title: "As it went",
		note:
			`${budgets ? "Columns: answers in each " + each + " whose budget was met, and above them those that were missed." : "Columns: answers in each " + each + "."} Line: requests that arrived.` +
			(deep ? " Below: mean depth." : ""),
		draw: width => {
			const high = b => (budgets ? b.met + b.missed : b.completed),
				end = bins[bins.length - 1].t_s + seconds;
			const ticks = linear(0, end, short, width < 500 ? 5 : 10).ticks.filter(t => t <= end),
				x = placed(ticks, 0, end, short);
			const y = counting(Math.max(...bins.map(b => Math.max(high(b), b.arrived))), 4);
			const below = linear(0, Math.max(0, ...bins.map(b => b.depth || 0)), short, 3),
				left = Math.max(room_for(y), room_for(below));
			const plot = frame({
				width,
				height: 240,
				x,
				y,
				left,
				right: 24,
				y_title: `requests in each ${each}`,
				x_title: deep ? null : "seconds",
			});
			const steps = [],
				thick = plot.x(seconds) - plot.x(0);
			const column = (b, from, to, classes) =>
				draw("rect", {
					class: "fill " + classes,
					x: plot.x(b.t_s) + 0.5,
					width: Math.max(thick - 1, 0.7),
					y: plot.y(to),
					height: Math.max(plot.y(from) - plot.y(to), 0),
				});
			for (const b of bins) {
				const met = budgets ? b.met : b.completed,
					from = plot.x(b.t_s),
					to = plot.x(b.t_s + seconds);
				plot.svg.append(
					column(b, 0, met, "t0"),
					...(budgets && b.missed ? [column(b, met, met + b.missed, "warm")] : []),
				);
				steps.push([from, plot.y(b.arrived)], [to, plot.y(b.arrived)]);
				plot.marks.push({
					x: (from + to) / 2,
					y: plot.y(high(b)),
					text:
						`${short(b.t_s)} s: ${b.arrived} arrived, ` +
						(budgets ? `${b.met} met, ${b.missed} missed` : `${b.completed} answered`) +
						(known(b.depth) ? `, depth ${number(b.depth)}` : ""),
				});
			}
			plot.svg.append(draw("path", { class: "path thin fixed", d: path(steps) }));
			return deep ? with_depth(plot, bins, { width, x, y: below, seconds }) : plot;
		},
		head: ["from second", "arrived", "answered", "met", "missed", "mean depth"],
		rows: bins.map(b =>
			[short(b.t_s), b.arrived, b.completed, b.met, b.missed, number(b.depth)].map(String),
		),
	});
	return { id: "timeline", wide: true, show };
}

/* A strip of the mean depth under the columns, over the same seconds. */
function with_depth(upper, bins, { width, x, y, seconds }) {
	const plot = frame({
		width,
		height: 130,
		x,
		y,
		left: upper.box.left,
		right: 24,
		y_title: "mean depth",
		x_title: "seconds",
	});
	const at = bins.filter(b => known(b.depth)).map(b => [plot.x(b.t_s + seconds / 2), plot.y(b.depth)]),
		floor = plot.y(0);
	plot.svg.append(
		draw("path", {
			class: "area t0",
			d: `${path(at)}L${at[at.length - 1][0]} ${floor}L${at[0][0]} ${floor}Z`,
		}),
		draw("path", { class: "path t0", d: path(at) }),
	);
	const svg = draw(
		"svg",
		{ viewBox: `0 0 ${width} 372` },
		draw("g", {}, ...upper.svg.childNodes),
		draw("g", { transform: "translate(0 242)" }, ...plot.svg.childNodes),
	);
	return { svg, marks: upper.marks };
}

/* How far predictions of the finish were off. */
function prediction(run) {
	const q = run.prediction_error;
	if (!measured(q)) return null;
	const seen = SHARES.filter(([key, share]) => known(q[key]) && percentile_known(q, share));
	return {
		id: "prediction",
		show: () => ({
			title: `Half of the predictions were within ${percent(q.p50)}`,
			note: `|actual / predicted − 1| of the finish, over ${grouped(q.count)} answers that carried a prediction.`,
			draw: width =>
				bars({
					width,
					bar: 12,
					x: { at: v => v / seen.map(([key]) => q[key]).reduce((a, b) => Math.max(a, b), 1e-9) },
					rows: seen.map(([key, share]) => ({
						name: `${short(100 * share)} % within`,
						value: percent(q[key]),
						parts: [
							{
								share: q[key],
								opacity: 1,
								text: `${short(100 * share)} % of the predictions were within ${percent(q[key])}`,
							},
						],
					})),
				}),
			head: ["", ...seen.map(([, share]) => `p${short(100 * share)}`), "most"],
			rows: [["error", ...seen.map(([key]) => percent(q[key])), percent(q.max)]],
		}),
	};
}
