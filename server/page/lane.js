/* A lane: one depth (or the server's choice), the layers that it runs, its answer and its milliseconds. */

const REASONS = {
	explicit: "as asked", default: "the server's default", budget: "chosen for the budget",
	overload: "made shallower, as the server is overloaded",
};

class Lane {
	constructor(depth, auto, remove) {
		this.node = $("lane").content.firstElementChild.cloneNode(true);
		this.part = name => this.node.querySelector(name);
		this.foreseen = null;
		this.stacks = model.stacks.map((stack, i) => this.addStack(stack, depth[i]));
		this.part(".auto").checked = auto;
		this.part(".auto").addEventListener("change", () => this.changed());
		this.part(".close").addEventListener("click", () => remove(this));
		this.clear();
		this.draw();
	}

	addStack({ name, layers }, depth) {
		const node = $("stack").content.firstElementChild.cloneNode(true);
		const input = node.querySelector("input"), id = `depth-${Lane.made = (Lane.made ?? 0) + 1}`;
		const label = node.querySelector("label");
		label.textContent = name ? name[0].toUpperCase() + name.slice(1) : "Depth";
		label.htmlFor = input.id = id;
		input.max = layers; // before the value, which it bounds
		input.value = depth;
		input.addEventListener("input", () => this.changed());
		this.part(".stacks").append(node);
		return { input, layers, output: node.querySelector("output"), strip: node.querySelector(".strip") };
	}

	get auto() {
		return this.part(".auto").checked;
	}

	get depth() {
		return this.auto ? null : this.stacks.map(stack => Number(stack.input.value));
	}

	get question() {
		return question(this.depth);
	}

	get name() {
		if (this.auto) return "Auto";
		const same = share => depthOfShare(share).every((layers, i) => layers === this.depth[i]);
		const known = [["Full", 1], ["Half", 0.5], ["Quarter", 0.25]].find(([, share]) => same(share));
		return known ? known[0] : `${depthText(this.depth)} layers`;
	}

	changed() {
		this.foreseen = null;
		this.used = null;
		this.node.classList.add("stale");
		this.draw();
		this.node.dispatchEvent(new Event("lane", { bubbles: true }));
	}

	/* What /v1/plan says would happen now. */
	foresee(plan) {
		this.foreseen = plan;
		if (!this.busy) this.draw();
	}

	/* ---- layers ---- */

	/* What ran, else what would run. */
	draw() {
		const plan = this.used ?? this.foreseen?.depth;
		const depth = plan ? toDepth(plan.used) : this.depth;
		const layers = plan ? toLayers(plan.layers) : depth && layersAt(depth);
		this.part("h3").textContent = this.name;
		this.node.classList.toggle("is-auto", this.auto);
		if (depth) this.node.style.setProperty("--share", `${Math.round(100 * shareOf(depth))}%`);
		this.stacks.forEach((stack, i) => {
			stack.input.disabled = this.auto;
			if (this.auto && depth) stack.input.value = depth[i];
			stack.output.textContent = depth ? `${depth[i]} of ${stack.layers}` : `? of ${stack.layers}`;
			stack.input.setAttribute("aria-valuetext", stack.output.textContent);
			this.drawStrip(stack, layers?.[i] ?? null, plan?.changes?.map(change => toLayers(change.layers)[i]));
		});
		this.drawReason(plan);
	}

	drawStrip({ strip, layers }, kept, changes) {
		const last = changes?.at(-1) ?? kept;
		strip.classList.toggle("ran", Boolean(this.used));
		strip.classList.toggle("unknown", !kept);
		strip.ariaLabel = kept ? `Layers ${last.join(", ")} of ${layers}` : `${layers} layers`;
		strip.replaceChildren(...Array.from({ length: layers }, (_, layer) => {
			const on = last?.includes(layer), dropped = !on && kept?.includes(layer);
			return make("i", on ? "on" : dropped ? "dropped" : "");
		}));
	}

	drawReason(plan) {
		let text = "";
		if (plan && this.used) text = `${plan.rule} plan, ${REASONS[plan.reason] ?? plan.reason}`;
		else if (this.foreseen) text = `${millis(this.foreseen.predicted_ms)} predicted`;
		for (const change of plan?.changes ?? [])
			text += `; ${depthText(toDepth(change.used))} from token ${change.at_token} on`;
		this.part(".reason").textContent = text;
	}

	/* ---- answers ---- */

	/* Forgets the last answer; what is shown of it stays until there is another. */
	reset() {
		Object.assign(this, { pieces: [], answer: null, timings: null, usage: null, used: null, busy: false });
		this.node.classList.remove("stale");
		this.fail("");
	}

	clear() {
		this.reset();
		this.part(".answer").replaceChildren();
		this.drawFigures();
	}

	fail(message) {
		this.problem = message;
		this.part(".problem").textContent = message;
		this.part(".problem").hidden = !message;
	}

	setBusy(is) {
		this.busy = is;
		this.node.classList.toggle("busy", is);
		this.part(".answer").ariaBusy = is ? "true" : "false";
	}

	/* Asks and reads the answer; `moved` is called when there is more to show. Refusals become the lane's sentence. */
	async run(signal, moved) {
		this.setBusy(true);
		const asked = this.question;
		this.part("pre").textContent = curl(asked);
		try {
			const response = await post(asked.path, asked.body, signal);
			if (asked.body.stream) await this.follow(response, moved);
			else this.take(await response.json());
		} catch (error) {
			this.fail(error.name === "AbortError" ? "Stopped." : error.message);
		}
		this.setBusy(false);
		this.draw();
		moved();
	}

	async follow(response, moved) {
		for await (const event of events(response)) {
			if (event.error) throw new Error(event.error.message);
			const choice = event.choices[0];
			if (choice?.text) this.pieces.push(choice.text);
			if (event.depth) this.used = event.depth;
			if (event.timings) this.timings = event.timings;
			if (event.usage) this.usage = event.usage;
			moved();
		}
	}

	take(answer) {
		this.answer = answer;
		this.used = answer.depth;
		this.timings = answer.timings;
		this.usage = answer.usage;
	}

	/* ---- what is shown of it ---- */

	/* A streamed text up to a number of its pieces, with a mark where it went on at another depth. */
	showText(upTo) {
		const n = Math.min(upTo, this.pieces.length), nodes = [];
		let from = 0;
		for (const change of this.used?.changes ?? []) {
			if (change.at_token >= n) break;
			nodes.push(this.pieces.slice(from, change.at_token).join(""));
			nodes.push(make("mark", "", `▾ ${depthText(toDepth(change.used))} layers`));
			from = change.at_token;
		}
		nodes.push(this.pieces.slice(from, n).join(""));
		const before = model.kind === "decoder" ? [make("span", "soft", lastOf($("prompt").value, 80))] : [];
		this.part(".answer").replaceChildren(...before, ...nodes);
	}

	show(full) {
		if (this.answer) this.part(".answer").replaceChildren(...answerNodes(this.answer, full));
		else if (this.pieces.length) this.showText(this.pieces.length);
		this.drawFigures();
	}

	/* Tokens of the answer; of several hypotheses, the longest one's, as they are searched at once. */
	get made() {
		const searched = (this.answer?.choices ?? []).map(choice => choice.logprobs?.tokens.length ?? 0);
		return Math.max(0, ...searched) || this.usage?.completion_tokens || this.pieces.length;
	}

	/* Figures that the answer implies; null before it is complete. */
	get times() {
		const t = this.timings;
		if (!t) return null;
		const made = this.made;
		const first = t.queue_ms + t.prefill_ms;
		return { ...t, first, made, per: made > 1 ? t.decode_ms / (made - 1) : null };
	}

	/* The lane's bar and milliseconds, up to a time (for slow motion); `scale` is the longest time of all lanes. */
	drawFigures(scale = 0, upTo = Infinity) {
		const t = this.times, done = t && upTo >= t.total_ms;
		const width = (name, ms) => this.part(name).style.width = scale ? `${100 * ms / scale}%` : "0";
		const between = (from, to) => Math.max(0, Math.min(to, upTo) - from);
		this.part(".total").textContent = t ? digits(Math.min(t.total_ms, upTo)) : "–";
		width(".queue", t ? between(0, t.queue_ms) : 0);
		width(".first", t ? between(t.queue_ms, t.first) : 0);
		width(".rest", t ? between(t.first, t.total_ms) : 0);
		this.drawBudget(t, scale, done);
		define(this.part(".parts"), done ? this.figures(t) : []);
	}

	drawBudget(t, scale, done) {
		const due = this.part(".due"), verdict = this.part(".verdict"), budget = t?.budget_ms;
		due.hidden = !budget || !scale;
		if (!due.hidden) due.style.insetInlineStart = `${Math.min(100, 100 * budget / scale)}%`;
		verdict.className = !done || !budget ? "verdict" : t.budget_met ? "verdict met" : "verdict missed";
		verdict.textContent = !done || !budget ? "" : t.budget_met ? `✓ within ${millis(budget)}` : `✗ over ${millis(budget)}`;
	}

	figures(t) {
		const off = t.predicted_ms ? Math.round(100 * (t.total_ms / t.predicted_ms - 1)) : 0;
		const rows = [["queue", millis(t.queue_ms)]];
		if (isEncoder()) rows.push(["compute", millis(t.prefill_ms)], ["tokens", this.usage.prompt_tokens]);
		else {
			rows.push([isStreamed() ? "first token" : "source", millis(t.first)]);
			if (t.per) rows.push(["per token", millis(t.per)]);
			rows.push(["tokens", t.made]);
		}
		if (t.predicted_ms) rows.push(["predicted", `${millis(t.predicted_ms)} (${off >= 0 ? "+" : "−"}${Math.abs(off)} %)`]);
		return rows;
	}
}

function lastOf(text, most) {
	return text.length > most ? "…" + text.slice(-most) : text;
}
