/* SPDX-License-Identifier: Apache-2.0 */
/* What pictures are made of: elements, numbers as text, scales, and a plot of lines and dots. Nothing here knows fathom. */
"use strict";

function fill(node, attributes, children) {
	for (const [name, value] of Object.entries(attributes)) {
		if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
	}
	node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
	return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
	fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const known = value => typeof value === "number" && Number.isFinite(value);
const grouped = value => Math.round(value).toLocaleString("en-US");

/* Three digits that count. */
function number(value) {
	if (!known(value)) return "–";
	const size = Math.abs(value);
	if (size >= 1000) return grouped(value);
	if (size >= 100) return value.toFixed(0);
	if (size >= 10) return value.toFixed(1);
	if (size >= 0.995) return value.toFixed(2);
	if (size === 0) return "0";
	return value.toPrecision(2);
}
/* No more digits than the number needs: 40, 2.5. */
const short = value => (known(value) ? String(Number(value.toPrecision(4))) : "–");
const milliseconds = value =>
	!known(value) ? "–" : value < 10000 ? number(value) + " ms" : number(value / 1000) + " s";
function percent(share) {
	if (!known(share)) return "–";
	const value = 100 * share;
	const digits = value >= 100 || value === 0 ? 0 : value > 99 || value < 1 ? 2 : 1;
	return value.toFixed(digits).replace(/^100\.0+$/, "99.99") + " %";
}

/* A scale maps values to places: {at, ticks, format}. */
function linear(low, high, format = short, count = 5) {
	if (!(high > low)) high = low + 1;
	const raw = (high - low) / count,
		power = 10 ** Math.floor(Math.log10(raw));
	const step = power * [1, 2, 2.5, 5, 10].find(s => s * power >= raw * 0.999);
	const first = Math.floor(low / step + 1e-9) * step,
		last = Math.ceil(high / step - 1e-9) * step,
		ticks = [];
	for (let i = 0; first + i * step <= last + step / 2; i++)
		ticks.push(Number((first + i * step).toPrecision(12)));
	return { at: v => (v - first) / (last - first), ticks, format };
}
function logarithmic(low, high, format = short) {
	const ticks = [];
	for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
		for (const lead of [1, 2, 5]) ticks.push(Number((lead * 10 ** power).toPrecision(6)));
	}
	while (ticks.length > 2 && ticks[1] <= low) ticks.shift();
	while (ticks.length > 2 && ticks[ticks.length - 2] >= high) ticks.pop();
	const start = Math.log(ticks[0]),
		end = Math.log(ticks[ticks.length - 1]);
	const few = ticks.length > 9 ? ticks.filter(t => /^1/.test(t.toExponential())) : ticks;
	return { at: v => (Math.log(Math.max(v, ticks[0] / 10)) - start) / (end - start), ticks: few, format };
}
/* For counts: no ticks between whole numbers. */
function counting(high, count) {
	const scale = linear(0, high, short, count);
	return { ...scale, ticks: scale.ticks.filter(Number.isInteger) };
}
/* From zero where the values are of one order, else logarithmic. */
function fitting(values, format = short) {
	const seen = values.filter(v => known(v) && v > 0);
	if (!seen.length) return linear(0, 1, format);
	const low = Math.min(...seen),
		high = Math.max(...seen);
	return high / low > 25 ? logarithmic(low, high, format) : linear(0, high, format);
}
/* Named places, evenly spaced. */
function places(names) {
	const n = names.length;
	return { at: i => (i + 0.5) / n, ticks: names.map((_, i) => i), format: i => names[i] };
}
/* Given places: percentiles, for one. */
const placed = (ticks, low, high, format) => ({ at: v => (v - low) / (high - low), ticks, format });

const width_of = text => 6.7 * String(text).length;

/* Ticks that fit side by side. */
function sparse(scale, room) {
	const widest = Math.max(...scale.ticks.map(t => width_of(scale.format(t)))) + 12;
	let ticks = scale.ticks;
	for (let every = 1; every <= scale.ticks.length && (ticks.length - 1) * widest > room; every++) {
		ticks = scale.ticks.filter((_, i) => i % every === 0);
	}
	return ticks;
}

/* What the numbers at the left of a plot need. */
const room_for = scale => Math.ceil(Math.max(...scale.ticks.map(t => width_of(scale.format(t))))) + 10;

/* The frame of a plot: horizontal grid, numbers, titles. Returns where things go and what can be pointed at. */
function frame({ width, height = 260, x, y, left = room_for(y), right = 12, x_title, y_title }) {
	const box = { left, right: width - right, top: y_title ? 26 : 10, bottom: height - (x_title ? 40 : 22) };
	const plot = {
		box,
		marks: [],
		svg: draw("svg", { viewBox: `0 0 ${width} ${height}` }),
		x: v => box.left + x.at(v) * (box.right - box.left),
		y: v => box.bottom - y.at(v) * (box.bottom - box.top),
	};
	for (const tick of y.ticks) {
		const place = plot.y(tick);
		plot.svg.append(
			draw("line", { class: "grid", x1: box.left, x2: box.right, y1: place, y2: place }),
			draw("text", { x: box.left - 8, y: place + 4, "text-anchor": "end" }, y.format(tick)),
		);
	}
	plot.svg.append(
		draw("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
	);
	for (const tick of sparse(x, box.right - box.left)) {
		const place = plot.x(tick);
		plot.svg.append(
			draw("line", { class: "axis", x1: place, x2: place, y1: box.bottom, y2: box.bottom + 4 }),
			draw("text", { x: place, y: box.bottom + 17, "text-anchor": "middle" }, x.format(tick)),
		);
	}
	if (y_title) plot.svg.append(draw("text", { class: "title", x: 0, y: 11 }, y_title));
	if (x_title) {
		plot.svg.append(
			draw("text", { class: "title", x: box.right, y: height - 5, "text-anchor": "end" }, x_title),
		);
	}
	return plot;
}

const SHAPES = {
	circle: (x, y) => draw("circle", { cx: x, cy: y, r: 4.5 }),
	square: (x, y) => draw("rect", { x: x - 4, y: y - 4, width: 8, height: 8 }),
	diamond: (x, y) =>
		draw("path", { d: `M${x} ${y - 5.5}L${x + 5.5} ${y}L${x} ${y + 5.5}L${x - 5.5} ${y}Z` }),
	triangle: (x, y) => draw("path", { d: `M${x} ${y - 5}L${x + 5} ${y + 4}L${x - 5} ${y + 4}Z` }),
	small: (x, y) => draw("circle", { cx: x, cy: y, r: 2.75 }),
};
const SHAPE_NAMES = ["circle", "square", "diamond", "triangle", "circle", "square"];

function dot(plot, x, y, text, shape = "circle", classes = "") {
	const node = SHAPES[shape](x, y);
	node.setAttribute("class", "dot " + classes);
	plot.svg.append(node);
	plot.marks.push({ x, y, text });
	return node;
}
const path = points => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/* Names beside points, where neither a point nor another name is; the first of `points` come first. */
function point_names(plot, points) {
	const taken = points.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
	for (const { x, y, name } of points) {
		const w = width_of(name);
		const beside = [
			[x + 7, y - 7],
			[x - 7 - w, y - 7],
			[x + 7, y + 16],
			[x - 7 - w, y + 16],
			[x - w / 2, y - 11],
		];
		const free = beside.find(
			([left, base]) =>
				left > plot.box.left &&
				taken.every(
					([x0, y0, x1, y1]) => left > x1 || left + w < x0 || base - 10 > y1 || base + 1 < y0,
				),
		);
		if (!free) continue;
		taken.push([free[0], free[1] - 10, free[0] + w, free[1] + 1]);
		plot.svg.append(draw("text", { class: "name", x: free[0], y: free[1] }, name));
	}
}

/* Names at the right end of lines, pushed apart so that none hides another. */
function end_names(plot, names) {
	const gap = 14,
		sorted = names.slice().sort((a, b) => a.y - b.y);
	let low = plot.box.top - 4;
	for (const name of sorted) low = (name.place = Math.max(name.y, low)) + gap;
	let high = plot.box.bottom + 4;
	for (const name of sorted.slice().reverse()) high = (name.place = Math.min(name.place, high)) - gap;
	for (const { text, place, classes, opacity } of sorted) {
		plot.svg.append(
			draw(
				"text",
				{ class: "toned " + classes, x: plot.box.right + 12, y: place + 4, "fill-opacity": opacity },
				text,
			),
		);
	}
}

/* Lines over a common axis; each series {name, points: [{x, y, text}], look: {classes, shape, opacity}}. */
function lines(options) {
	const { series, names = series.length > 1 } = options;
	const right = names ? Math.max(...series.map(s => width_of(s.name))) + 22 : 12;
	const plot = frame({ ...options, right: Math.max(right, options.right || 0) }),
		ends = [];
	if (options.goal !== undefined) {
		plot.svg.append(
			draw("line", {
				class: "goal",
				x1: plot.box.left,
				x2: plot.box.right,
				y1: plot.y(options.goal),
				y2: plot.y(options.goal),
			}),
		);
	}
	for (const { name, points, look } of series) {
		const seen = points.filter(p => known(p.x) && known(p.y));
		if (!seen.length) continue;
		const at = seen.map(p => [plot.x(p.x), plot.y(p.y)]);
		plot.svg.append(
			draw("path", { class: `path ${look.classes}`, d: path(at), "stroke-opacity": look.opacity }),
		);
		seen.forEach((p, i) =>
			dot(plot, ...at[i], p.text, look.shape, look.classes).setAttribute("fill-opacity", look.opacity),
		);
		ends.push({
			text: name,
			y: at[at.length - 1][1],
			classes: look.classes,
			opacity: Math.max(look.opacity, 0.8),
		});
	}
	if (names) end_names(plot, ends);
	return plot;
}

/* Horizontal bars; each row {name, parts: [{share, text, classes, opacity}], value}. */
function bars({ width, rows, x, x_title, bar = 16, gap = 10 }) {
	const left = Math.min(width * 0.4, Math.max(...rows.map(r => width_of(r.name))) + 12);
	const right = Math.max(...rows.map(r => width_of(r.value || ""))) + 14;
	const height = rows.length * (bar + gap) + (x_title ? 24 : 4);
	const plot = { marks: [], svg: draw("svg", { viewBox: `0 0 ${width} ${height}` }) };
	const span = width - left - right;
	rows.forEach((row, i) => {
		const top = i * (bar + gap) + 2;
		plot.svg.append(
			draw(
				"text",
				{ class: "name", x: left - 10, y: top + bar / 2 + 4, "text-anchor": "end" },
				row.name,
			),
		);
		let from = left;
		for (const part of row.parts) {
			const length = Math.max(0, x.at(part.share) * span);
			plot.svg.append(
				draw("rect", {
					class: `fill ${part.classes || ""}`,
					x: from,
					y: top,
					width: Math.max(length - (row.parts.length > 1 ? 1 : 0), 0.5),
					height: bar,
					"fill-opacity": part.opacity,
				}),
			);
			plot.marks.push({ x: from + length / 2, y: top + bar / 2, text: part.text });
			from += length;
		}
		if (row.value) plot.svg.append(draw("text", { x: from + 7, y: top + bar / 2 + 4 }, row.value));
	});
	if (x_title) plot.svg.append(draw("text", { class: "title", x: left, y: height - 4 }, x_title));
	return plot;
}
