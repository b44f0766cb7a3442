/* Latency against depth: what this page has measured, over the server's own cost model, with the quality of each
 * depth where the model folder has it. Language models: milliseconds of each further token, of /v1/depths. Others:
 * milliseconds of the whole answer, of /v1/plan for the question as it stands. */

const MOST_DOTS = 60;
const chart = { dots: [], lines: [], asked: "", run: 0 };

/* For two stacks the chart's depth is the decoder's, and there is a line for each of three encoder depths. */
const chartDepth = depth => depth.at(-1);
const perToken = () => model.kind === "decoder";

function chartLane(lane) {
	const t = lane.times, y = t && (perToken() ? t.per : t.total_ms);
	if (!y || lane.problem) return;
	const depth = toDepth(lane.used.used);
	chart.dots = [...chart.dots, { depth, x: chartDepth(depth), y, auto: lane.auto, run: chart.run }].slice(-MOST_DOTS);
}

/* ---- the server's own line ---- */

function linesOfDepths() {
	return [{ name: "", share: "100%", points: depthLists()[0].map(d => ({ x: d.depth, y: d.decode_ms_per_token })) }];
}

/* Each depth's prediction for this question, without the queue. */
async function predictedLine(name, depths, tokens) {
	const points = [];
	for (const depth of depths) {
		const plan = await foresee(question(depth), tokens ? { expected_tokens: tokens } : {});
		points.push({ x: chartDepth(depth), y: plan.predicted_ms - plan.queue_ms });
	}
	return { name, share: `${Math.round(100 * shareOf(depths.at(-1)))}%`, points };
}

async function linesOfPlans() {
	const last = model.stacks.at(-1), tokens = lanes.find(lane => lane.times)?.times.made;
	const each = Array.from({ length: last.layers }, (_, i) => i + 1);
	if (!isPair()) return [await predictedLine("", each.map(d => [d]), 0)];
	const lines = [];
	for (const share of [1, 0.5, 0.25]) {
		const encoder = depthOfShare(share)[0];
		lines.push(await predictedLine(`encoder ${encoder}`, each.map(d => [encoder, d]), tokens));
	}
	return lines;
}

/* The line changes as the server learns, and with the question. */
async function refreshChart() {
	if (perToken()) {
		await refreshDepths();
		chart.lines = linesOfDepths();
	} else if (!isLoading()) {
		const asked = JSON.stringify(question(null));
		if (asked === chart.asked) return;
		chart.lines = await linesOfPlans();
		chart.asked = asked;
	}
	drawChart();
}

/* ---- quality ---- */

/* Of the entries of /v1/depths: [{depth, name, value}], with the whole encoder first. */
function qualities() {
	const entries = isPair() ? model.depths.pairs : model.depths.depths;
	return entries.filter(entry => entry.quality).map(entry => {
		const [name, value] = Object.entries(entry.quality)[0];
		return { depth: toDepth(entry.depth), name, value };
	});
}

/* The quality that the line shows: of the whole encoder, where there is one. */
function qualityLine() {
	const of = model.stacks[0].layers;
	return qualities().filter(q => !isPair() || q.depth[0] === of).map(q => ({ x: chartDepth(q.depth), y: q.value, name: q.name }));
}

/* ---- drawing ---- */

/* About four round numbers from 0 to the largest. */
function ticks(most) {
	const rough = most / 4, ten = 10 ** Math.floor(Math.log10(rough));
	const step = [1, 2, 5, 10].map(n => n * ten).find(n => n >= rough);
	return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

const pathOf = points => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/* The most that the picture holds: all of it, but for outliers, which stay at its upper edge. */
function highest() {
	const dots = chart.dots.map(dot => dot.y).sort((a, b) => a - b), middle = dots[dots.length >> 1] ?? 0;
	const line = Math.max(1e-6, ...chart.lines.flatMap(({ points }) => points.map(p => p.y)));
	return Math.min(Math.max(line, ...dots), 3 * Math.max(line, middle));
}

function frameOf(width) {
	const box = { width, height: 280, left: 44, right: qualityLine().length ? 48 : 14, top: 12, bottom: 34 };
	const most = 1.1 * highest();
	const layers = model.stacks.at(-1).layers;
	box.x = depth => box.left + (depth - 0.5) / layers * (width - box.left - box.right);
	box.y = value => box.height - box.bottom - value / most * (box.height - box.top - box.bottom);
	return Object.assign(box, { most, layers });
}

function axes(box) {
	const nodes = [], text = (x, y, anchor, content) => drawing("text", { x, y, "text-anchor": anchor }, content);
	for (const tick of ticks(box.most)) {
		nodes.push(drawing("line", { class: "grid", x1: box.left, x2: box.width - box.right, y1: box.y(tick), y2: box.y(tick) }));
		nodes.push(text(box.left - 6, box.y(tick) + 4, "end", String(Number(tick.toPrecision(3)))));
	}
	const every = Math.ceil(box.layers / 12);
	for (let depth = box.layers; depth > 0; depth -= every)
		nodes.push(text(box.x(depth), box.height - box.bottom + 16, "middle", String(depth)));
	nodes.push(text((box.left + box.width - box.right) / 2, box.height - 4, "middle", isPair() ? "decoder layers" : "layers"));
	return nodes;
}

function qualityNodes(box) {
	const line = qualityLine();
	if (!line.length) return [];
	const values = line.map(p => p.y), log = Math.max(...values) > 5 * Math.min(...values);
	const scale = value => log ? Math.log(value) : value;
	const low = scale(Math.min(...values)), span = scale(Math.max(...values)) - low || 1;
	const y = value => box.height - box.bottom - 10 - (scale(value) - low) / span * (box.height - box.top - box.bottom - 24);
	const points = line.map(p => [box.x(p.x), y(p.y)]);
	const nodes = [drawing("path", { class: "quality", d: pathOf(points) })];
	for (const value of new Set([Math.min(...values), Math.max(...values)]))
		nodes.push(drawing("text", { class: "quality-text", x: box.width - box.right + 6, y: y(value) + 4 }, digits(value)));
	for (const [i, [cx, cy]] of points.entries())
		nodes.push(drawing("circle", { class: "quality-dot", cx, cy, r: 2.5 },
			drawing("title", {}, `${line[i].name} ${digits(line[i].y)} at ${line[i].x} layers`)));
	return nodes;
}

function lineNodes(box) {
	let above = -Infinity; // names that would touch are left out
	return chart.lines.flatMap(({ name, share, points }) => {
		const path = drawing("path", { class: "cost", d: pathOf(points.map(p => [box.x(p.x), box.y(p.y)])) });
		path.style.setProperty("--share", share);
		const y = box.y(points.at(-1).y) - 6;
		if (!name || y - above < 12) return [path];
		above = y;
		return [path, drawing("text", { "text-anchor": "end", x: box.x(points.at(-1).x) - 4, y }, name)];
	});
}

function dotNodes(box) {
	return chart.dots.map(({ depth, x, y, auto, run }) => {
		const title = drawing("title", {}, `${depthText(depth)} layers${auto ? " (auto)" : ""}: ${millis(y)}`);
		const dot = drawing("circle", { class: auto ? "dot auto-dot" : "dot", cx: box.x(x), cy: Math.max(box.top, box.y(y)), r: 5 }, title);
		dot.style.setProperty("--share", `${Math.round(100 * shareOf(depth))}%`);
		dot.style.opacity = Math.max(0.2, 0.8 ** (chart.run - run)); // older runs fade
		return dot;
	});
}

function drawChart() {
	const width = Math.max(240, Math.round($("chart").clientWidth)), box = frameOf(width);
	const picture = drawing("svg", {
		viewBox: `0 0 ${width} ${box.height}`, width, height: box.height, role: "img",
		"aria-label": `Milliseconds ${perToken() ? "per token" : "of an answer"} at each depth; the table below has the numbers.`,
	}, ...axes(box), ...qualityNodes(box), ...lineNodes(box), ...dotNodes(box));
	$("chart").replaceChildren(picture);
	drawLegend();
	drawTable();
}

function drawLegend() {
	const unit = perToken() ? "ms per token" : "ms of the answer", quality = qualityLine();
	const entry = (mark, text) => make("span", "", make("i", `mark ${mark}`), text);
	const entries = [entry("cost-mark", `${unit}, the server's model`), entry("dot-mark", "measured here"), entry("auto-mark", "auto")];
	if (quality.length) entries.push(entry("quality-mark", `${quality[0].name}${isPair() ? ", whole encoder" : ""}`));
	$("legend").replaceChildren(...entries);
}

/* ---- the same as a table ---- */

function measuredAt(depth) {
	const values = chart.dots.filter(dot => depthText(dot.depth) === depthText(depth)).map(dot => dot.y).sort((a, b) => a - b);
	return values.length ? digits(values[values.length >> 1]) : "–";
}

function drawTable() {
	const entries = isPair() ? model.depths.pairs : model.depths.depths;
	const cost = isEncoder() ? ["ms per token of a long text", d => d.prefill_ms_per_token] : ["ms per token", d => d.decode_ms_per_token];
	const quality = qualities()[0]?.name;
	const names = ["depth", "parameters", cost[0], ...(quality ? [quality] : []), perToken() ? "measured here, ms per token" : "measured here, ms"];
	const row = entry => [depthText(toDepth(entry.depth)), entry.parameters.toLocaleString("en"), digits(cost[1](entry)),
		...(quality ? [digits(entry.quality?.[quality])] : []), measuredAt(toDepth(entry.depth))];
	$("table").replaceChildren(
		make("thead", "", make("tr", "", ...names.map(name => make("th", "", name)))),
		make("tbody", "", ...entries.map(entry => make("tr", "", ...row(entry).map(cell => make("td", "", cell))))));
}
