/* The beginning: what the model is decides what is asked for, and the page shows something before the first click. */

const MOST_LANES = 5;

/* ---- the form ---- */

const EXAMPLES = {
	"decoder": "Tom said that",
	"fill-mask": () => `The old ${model.mask} stood by the sea.`,
	"classify": "A warm and funny film that never loses its way.",
	"embeddings": "The children are playing in the garden.",
	// The bundled translation model reads German.
	"encoder-decoder": () => model.id.startsWith("demo-translate") ? "Ich habe heute keine Zeit, weil ich arbeiten muss." : "The weather is nice today.",
};

function exampleText() {
	const example = EXAMPLES[isEncoder() ? $("task").value : model.kind];
	return typeof example === "function" ? example() : example;
}

function arrangeTask() {
	const task = $("task").value, mask = isEncoder() && task === "fill-mask";
	$("head-field").hidden = !(isEncoder() && task === "classify" && model.heads.length > 1);
	$("second-field").hidden = !isEncoder() || mask;
	$("second-label").textContent = task === "embeddings" ? "Second text, to compare" : "Second text (may be empty)";
	$("second").value = task === "embeddings" ? "Kids run around on the lawn." : "";
	$("prompt").value = exampleText();
}

function arrange() {
	const names = { "classify": "classify", "fill-mask": "fill in masks", "embeddings": "compare texts" };
	$("prompt-label").textContent = isEncoder() ? "Text" : isPair() ? "Source" : "Prompt";
	$("task").replaceChildren(...Object.keys(names).filter(task => isEncoder() && model.tasks.includes(task))
		.map(task => new Option(names[task], task)));
	$("task-field").hidden = $("task").options.length < 2;
	$("head").replaceChildren(...model.heads.map(head => new Option(head.name)));
	$("most-field").hidden = isEncoder();
	$("beams-field").hidden = !isPair();
	for (const id of ["heat-field", "seed-field", "even-length-field"]) $(id).hidden = model.kind !== "decoder";
	$("slow-field").hidden = isEncoder();
	arrangeTask();
}

function showModel() {
	const { meta } = model, layers = depthText(model.stacks.map(stack => stack.layers));
	const rate = [meta.layerdrop].flatMap(r => r && typeof r === "object" ? [r.encoder, r.decoder] : [r]).filter(Boolean);
	const facts = [model.id, `${layers} layers`, meta.dtype];
	if (rate.length) facts.push(`trained with LayerDrop ${[...new Set(rate)].join(" and ")}`);
	if (meta.note) facts.push(meta.note);
	$("about").textContent = facts.join(" · ");
}

/* ---- lanes ---- */

function addLane(depth, auto = false) {
	const lane = new Lane(depth, auto, removeLane);
	lanes.push(lane);
	$("lanes").append(lane.node);
	$("add").disabled = lanes.length >= MOST_LANES;
	return lane;
}

function removeLane(lane) {
	const at = lanes.indexOf(lane);
	lanes.splice(at, 1);
	lane.node.remove();
	$("add").disabled = false;
	(lanes[Math.min(at, lanes.length - 1)]?.part(".close") ?? $("add")).focus();
}

function firstLanes() {
	lanes.splice(0).forEach(lane => lane.node.remove());
	const depths = [1, 0.5, 0.25].map(depthOfShare);
	const different = depths.filter((depth, i) => depths.findIndex(other => depthText(other) === depthText(depth)) === i);
	for (const depth of different) addLane(depth);
	addLane(depths[0], true);
}

/* ---- foresight ---- */

function budgetSentence(plan) {
	const depth = depthText(toDepth(plan.depth.used)), of = depthText(toDepth(plan.depth.of));
	const wait = plan.queue_ms >= 1 ? `, ${millis(plan.queue_ms)} of it waiting` : "";
	const fits = plan.budget_ms === null ? "" : plan.fits ? " It fits the budget." : " Even that would be late.";
	return `With auto the server would now run ${depth} of ${of} layers: ${millis(plan.predicted_ms)} predicted${wait}.${fits}`;
}

async function foreseeAuto() {
	const plan = await foresee(question(null));
	$("foresight").textContent = budgetSentence(plan);
	for (const lane of lanes) if (lane.auto) lane.foresee(plan);
}

async function foreseeAll() {
	try {
		await foreseeAuto();
		for (const lane of [...lanes]) if (!lane.auto) lane.foresee(await foresee(lane.question));
	} catch (error) {
		$("foresight").textContent = error.message;
	}
}

const foreseeSoon = debounce(250, foreseeAll);

/* A budget for the beginning: one that has room for about half of the layers now. */
async function suggestBudget() {
	const whole = await foresee(question(depthOfShare(1)));
	let budget = whole.predicted_ms;
	for (let i = 0; i < 8; i++) {
		const plan = await foresee(question(null), { latency_budget_ms: budget });
		const share = shareOf(toDepth(plan.depth.used));
		if (share >= 0.5 && share < 0.9) break;
		budget *= share < 0.5 ? 1.25 : 0.85;
	}
	$("budget").value = Number(budget.toPrecision(2));
}

/* ---- life ---- */

function afterRun() {
	if (!isLoading()) refreshChart().catch(() => {}); // the picture keeps what it has
}

async function begin() {
	await readModel();
	$("access").hidden = true;
	complain("");
	showModel();
	arrange();
	firstLanes();
	await suggestBudget();
	await foreseeAll();
	await refreshChart();
	keepLooking();
}

function start() {
	begin().catch(error => {
		complain(error.status === 401 && !sessionStorage.getItem("fathom-key") ? "" : error.message);
		if (error.status === 503) setTimeout(start, 2000); // the model is still loading
	});
}

function stop() {
	running?.abort();
	stopLoad("The load was stopped.");
}

function listen() {
	$("ask").addEventListener("submit", event => {
		event.preventDefault();
		runAll();
	});
	$("ask").addEventListener("input", foreseeSoon);
	$("task").addEventListener("change", arrangeTask);
	$("rule").addEventListener("change", () => lanes.forEach(lane => lane.changed()));
	$("lanes").addEventListener("lane", foreseeSoon);
	$("add").addEventListener("click", () => addLane(depthOfShare(0.75)).stacks[0].input.focus());
	$("stop").addEventListener("click", stop);
	$("load").addEventListener("change", () => $("load").checked ? startLoad() : stopLoad("The load was stopped."));
	$("access").addEventListener("submit", event => {
		event.preventDefault();
		sessionStorage.setItem("fathom-key", $("key").value);
		$("key").value = "";
		start();
	});
	document.addEventListener("keydown", event => {
		if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
		if (event.key === "Escape") stop();
	});
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) stopLoad("The load stopped while the page was hidden.");
		else keepLooking();
	});
	new ResizeObserver(debounce(50, () => model.stacks.length && (drawChart(), drawHistory()))).observe($("chart"));
}

listen();
start();
