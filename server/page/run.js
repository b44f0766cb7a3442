/* Running the lanes: one after another (each alone on the server, so that their times compare) or together
 * (in one batch, where they share each step). Quick answers are then replayed in slow motion. */

const HOLD_MS = 600;   // answers that take longer are shown as they come
const REPLAY_MS = 4000; // how long the slowest lane takes in slow motion
const lanes = [];
let running = null;

const isReplayed = quiet => !quiet && $("slow").checked && isStreamed() && !reducedMotion.matches;

/* A button that is disabled loses the focus: the other one takes it over. */
function setRunning(controller) {
	const [off, on] = controller ? [$("run"), $("stop")] : [$("stop"), $("run")];
	const focused = document.activeElement === off;
	running = controller;
	on.disabled = false;
	off.disabled = true;
	if (focused) on.focus();
}

/* The longest time that a bar has to hold. */
function timeScale() {
	return Math.max(0, ...lanes.map(lane => Math.max(lane.timings?.total_ms ?? 0, lane.timings?.budget_ms ?? 0)));
}

function showAll() {
	const scale = timeScale();
	const deepest = lanes.find(lane => lane.answer?.data?.[0]?.embedding && shareOf(toDepth(lane.used.used)) === 1);
	for (const lane of lanes) {
		lane.show(deepest?.answer.data[0].embedding);
		lane.drawFigures(scale);
	}
}

/* Draws what has come at most once a frame, and nothing while it is held back for the replay. */
function makeScreen(held) {
	let asked = false;
	const draw = () => {
		asked = false;
		if (!screen.held) for (const lane of lanes) if (lane.busy) lane.show();
	};
	const screen = {
		held,
		moved() {
			if (!asked) requestAnimationFrame(draw);
			asked = true;
		},
	};
	return screen;
}

async function runLanes(signal, moved) {
	const run = lane => signal.aborted ? lane.fail("Stopped.") : lane.run(signal, moved);
	if ($("order").value === "together") return Promise.all(lanes.map(run));
	for (const lane of [...lanes]) await run(lane);
}

/* When each piece of a lane's text came, from the times that the server measured. */
function piecesAt(lane, ms) {
	const { first, per } = lane.times;
	return ms < first ? 0 : 1 + Math.floor((ms - first) / (per || 1));
}

/* Lets all lanes start at the same time again, at a pace that eyes can follow. */
function replay(signal) {
	const scale = timeScale(), slower = Math.max(1, REPLAY_MS / scale), timed = lanes.filter(lane => lane.times);
	const start = performance.now();
	return new Promise(resolve => {
		const frame = () => {
			const ms = (performance.now() - start) / slower;
			const over = signal.aborted || document.hidden || ms >= scale;
			for (const lane of timed) {
				lane.showText(over ? Infinity : piecesAt(lane, ms));
				lane.drawFigures(scale, over ? Infinity : ms);
				lane.node.classList.toggle("busy", !over && ms < lane.timings.total_ms);
			}
			$("pace").textContent = over ? "" : `slow motion, 1 : ${Math.round(slower)} · ${digits(ms)} ms`;
			if (over) resolve();
			else requestAnimationFrame(frame);
		};
		frame();
	});
}

function summary() {
	return lanes.map(lane => lane.problem || !lane.timings ? `${lane.name}: ${lane.problem}`
		: `${lane.name}: ${millis(lane.timings.total_ms)}, ${answerSentence(lane)}`).join(". ");
}

/* `quiet` is for runs that nobody asked for: no slow motion, nothing said. */
async function runAll(quiet = false) {
	if (running || !lanes.length) return;
	const controller = new AbortController(), screen = makeScreen(isReplayed(quiet));
	const release = setTimeout(() => screen.held = false, HOLD_MS);
	setRunning(controller);
	complain("");
	if (!quiet) say("");
	lanes.forEach(lane => quiet ? lane.reset() : lane.clear());
	await runLanes(controller.signal, screen.moved);
	clearTimeout(release);
	if (screen.held && lanes.some(lane => lane.times)) await replay(controller.signal);
	showAll();
	chart.run++;
	lanes.forEach(chartLane);
	setRunning(null);
	drawChart();
	if (!quiet) say(summary());
	afterRun();
}
