/* What the server is doing, from /metrics; and some load, for people who want to see what it does to automatic depth.
 * Both only while the page is visible. */

const IDLE_MS = 2500, BUSY_MS = 1000, SAMPLES = 90;
const LOAD_MS = 60000, RAMP_MS = 15000, CONNECTIONS = 2; // a browser has six connections to a server; the lanes need some
const watch = { timer: 0, last: null, history: [] };
const load = { stop: null, sent: 0 };
const isLoading = () => load.stop !== null;

/* ---- reading /metrics ---- */

/* The samples of the text that the page shows, as [name, labels, value]. */
function parseMetrics(text) {
	const wanted = /^fathom_(requests_total|requests_running|requests_waiting|kv_cache_usage_ratio|predicted_wait_seconds|engine_busy_seconds_total|depth_selected_total)(?:{(.*)})? (\S+)$/gm;
	return [...text.matchAll(wanted)].map(([, name, labels, value]) =>
		[name, Object.fromEntries([...(labels ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, key, of]) => [key, of])), Number(value)]);
}

const WORK = ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/classify", "/fill-mask", "/v1/loglikelihood"];

function sampleOf(text) {
	const rows = parseMetrics(text), sample = { at: performance.now(), requests: 0, automatic: 0, layers: 0 };
	for (const [name, labels, value] of rows) {
		if (name === "requests_total") sample.requests += WORK.includes(labels.route) ? value : 0;
		else if (name !== "depth_selected_total") sample[name] = value;
		else if (labels.reason === "budget" || labels.reason === "overload") {
			sample.automatic += value;
			sample.layers += value * (Number(labels.depth) + Number(labels.encoder_depth ?? 0));
		}
	}
	return sample;
}

/* Two samples make rates. A server that was started again begins at 0. */
function ratesOf(last, now) {
	const seconds = (now.at - last.at) / 1000, more = name => Math.max(0, now[name] - last[name]);
	return {
		perSecond: more("requests") / seconds,
		busy: Math.min(1, more("engine_busy_seconds_total") / seconds),
		depth: more("automatic") ? more("layers") / more("automatic") : null,
	};
}

function drawNow(now, rates) {
	const percent = share => `${Math.round(100 * share)} %`;
	const rows = [
		["requests / s", rates ? digits(rates.perSecond) : "–"], ["engine busy", rates ? percent(rates.busy) : "–"],
		["running", now.requests_running], ["waiting", now.requests_waiting],
		["predicted wait", millis(1000 * now.predicted_wait_seconds)],
	];
	if (!isEncoder()) rows.push(["KV in use", percent(now.kv_cache_usage_ratio)]);
	define($("figures"), rows);
}

/* ---- the last minutes as a picture ---- */

function drawHistory() {
	const width = Math.max(240, Math.round($("history").clientWidth)), height = 110, top = 8, floor = height - 4, left = 28;
	const most = sum(model.stacks.map(stack => stack.layers)), samples = watch.history;
	const x = i => width - 4 - (samples.length - 1 - i) * (width - left - 4) / (SAMPLES - 1);
	const y = share => floor - share * (floor - top);
	const busy = samples.map((sample, i) => [x(i), y(sample.busy)]);
	const depths = samples.map((sample, i) => [x(i), y((sample.depth ?? 0) / most), sample.depth]).filter(point => point[2] !== null);
	const nodes = [drawing("line", { class: "grid", x1: left, x2: width, y1: y(0), y2: y(0) }),
		drawing("line", { class: "grid", x1: left, x2: width, y1: y(1), y2: y(1) }),
		drawing("text", { x: left - 6, y: y(1) + 6, "text-anchor": "end" }, String(most)),
		drawing("text", { x: left - 6, y: y(0), "text-anchor": "end" }, "0")];
	if (busy.length > 1) {
		const edges = [[busy[0][0], floor], ...busy, [busy.at(-1)[0], floor]];
		nodes.push(drawing("path", { class: "busy-area", d: pathOf(edges) + "Z" }));
	}
	if (depths.length) nodes.push(drawing("path", { class: "depth-line", d: pathOf(depths) }));
	nodes.push(...depths.map(([cx, cy, depth]) => drawing("circle", { class: "depth-dot", cx, cy, r: 2.5 }, drawing("title", {}, `${digits(depth)} layers`))));
	$("history").replaceChildren(drawing("svg", {
		viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
		"aria-label": "How busy the engine was and the mean depth of automatic answers, over the last minutes.",
	}, ...nodes));
	$("history-legend").replaceChildren(make("span", "", make("i", "mark busy-mark"), "engine busy"),
		make("span", "", make("i", "mark depth-mark"), "mean depth of automatic answers"));
}

/* ---- looking ---- */

async function look() {
	const now = sampleOf(await (await get("metrics")).text());
	const rates = watch.last && now.at - watch.last.at > 200 ? ratesOf(watch.last, now) : null;
	watch.last = now;
	if (rates) watch.history = [...watch.history, rates].slice(-SAMPLES);
	drawNow(now, rates);
	drawHistory();
	if (isLoading()) await foreseeAuto();
}

async function keepLooking() {
	clearTimeout(watch.timer);
	if (document.hidden || !model.stacks.length) return;
	const started = performance.now();
	try {
		await look();
	} catch (error) {
		$("history-legend").textContent = error.message;
		if (error.status === 401) return;
	}
	// A page that is slow to make is not asked for often.
	const took = performance.now() - started;
	clearTimeout(watch.timer);
	watch.timer = setTimeout(keepLooking, Math.max(isLoading() ? BUSY_MS : IDLE_MS, 10 * took));
}

/* ---- making load ---- */

const WORDS = "tide harbour winter lantern copper meadow engine violin letter canyon orchard signal".split(" ");

function loadText() {
	const word = () => WORDS[load.sent++ * 7 % WORDS.length];
	return `${load.sent}. The ${word()} and the ${word()} ${$("prompt").value}`;
}

/* The question that stands in the form, for many texts, at automatic depth. */
function loadQuestion(texts) {
	const { path, body } = question(null);
	const { stream, stream_options, n, logprobs, ...rest } = body;
	const many = Array.from({ length: texts }, loadText);
	return path === "v1/completions" ? { path, body: { ...rest, prompt: many, cache_prompt: false } } : { path, body: { ...rest, input: many } };
}

/* The load grows to its full size, so that depth can be seen to follow. */
async function loadWorker(signal, texts) {
	const start = performance.now();
	while (!signal.aborted) {
		const grown = Math.min(1, (performance.now() - start) / RAMP_MS);
		const { path, body } = loadQuestion(Math.max(1, Math.ceil(texts * grown)));
		try {
			await (await post(path, body, signal)).arrayBuffer();
		} catch (error) {
			if (error.name === "AbortError") return;
			if (!error.retry) return stopLoad(error.message);
			await pause(1000 * Math.min(5, error.retry));
		}
		await pause(5);
	}
}

/* The lanes are run again and again beside the load, so that the difference shows. */
async function repeatLanes(signal) {
	while (!signal.aborted) {
		await pause(1500);
		if (!signal.aborted) await runAll(true);
	}
}

function startLoad() {
	const controller = new AbortController(), texts = Math.min(64, number("texts", 6));
	const timer = setTimeout(() => stopLoad("The load ended after a minute."), LOAD_MS);
	load.stop = () => {
		clearTimeout(timer);
		controller.abort();
	};
	$("load-said").textContent = "Growing for 15 seconds. Automatic lanes choose with less room; explicit ones keep their depth and take longer.";
	say("The load began.");
	for (let i = 0; i < Math.min(CONNECTIONS, texts); i++)
		loadWorker(controller.signal, Math.ceil((texts - i) / CONNECTIONS));
	repeatLanes(controller.signal);
	keepLooking();
}

function stopLoad(why) {
	if (!isLoading()) return;
	load.stop();
	load.stop = null;
	$("load").checked = false;
	$("load-said").textContent = why;
	say(why);
}
