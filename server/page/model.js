/* The model that is served: its stacks, what a depth keeps, and what it can be asked. */

/* `stacks` has one entry, or encoder and decoder; a depth is a list with one number for each. */
const model = { id: "", kind: "decoder", stacks: [], tasks: [], heads: [], mask: "", rule: "even", depths: {} };

async function readModel() {
	const depths = await (await get("v1/depths")).json();
	const { id, meta } = (await (await get("v1/models")).json()).data[0];
	const lists = depths.encoder ? [["encoder", depths.encoder], ["decoder", depths.decoder]] : [["", depths]];
	Object.assign(model, {
		id, meta, depths, kind: meta.kind, tasks: meta.tasks, heads: meta.heads ?? [],
		mask: meta.mask_token ?? "", rule: depths.rule,
		stacks: lists.map(([name, list]) => ({ name, layers: list.layers })),
	});
}

async function refreshDepths() {
	model.depths = await (await get("v1/depths")).json();
}

const isEncoder = () => model.kind === "encoder";
const isPair = () => model.kind === "encoder-decoder";

/* The lists of /v1/depths, one for each stack. */
function depthLists() {
	const { depths } = model;
	return isPair() ? [depths.encoder.depths, depths.decoder.depths] : [depths.depths];
}

/* A number of layers for each stack, from what the API has: a number or an object. */
function toDepth(value) {
	return isPair() ? [value.encoder, value.decoder] : [value];
}

function fromDepth(depth) {
	return isPair() ? { encoder: depth[0], decoder: depth[1] } : depth[0];
}

function toLayers(value) {
	return isPair() ? [value.encoder, value.decoder] : [value];
}

function shareOf(depth) {
	return sum(depth) / sum(model.stacks.map(stack => stack.layers));
}

function depthOfShare(share) {
	return model.stacks.map(stack => Math.max(1, Math.ceil(stack.layers * share)));
}

function depthText(depth) {
	return depth.join(" + ");
}

/* The layers of one stack that a rule keeps; null if only the server knows. */
function ruleLayers(rule, of, kept) {
	const at = {
		even: i => Math.floor(i * of / kept),
		ends: i => kept === 1 ? 0 : Math.floor((2 * i * (of - 1) + kept - 1) / (2 * (kept - 1))),
		prefix: i => i,
	}[rule];
	return at ? Array.from({ length: kept }, (_, i) => at(i)) : null;
}

/* The layers that each stack keeps at a depth; null for a stack whose plan has to be asked for. */
function layersAt(depth) {
	const rule = $("rule").value || model.rule;
	return depth.map((kept, i) => ruleLayers(rule, model.stacks[i].layers, kept)
		?? (rule === model.rule && !isPair() ? depthLists()[i].find(d => d.depth === kept)?.layers : null));
}

/* ---- questions ---- */

const number = (id, otherwise) => Number($(id).value) || otherwise;
const isStreamed = () => model.kind === "decoder" || (isPair() && number("beams", 1) === 1);

function completion() {
	const body = { prompt: $("prompt").value, max_tokens: number("most", 64) };
	if (isPair()) {
		const beams = number("beams", 1);
		body.num_beams = beams;
		if (beams > 1) Object.assign(body, { n: Math.min(3, beams), logprobs: 0 });
	} else {
		body.seed = number("seed", 0);
		body.ignore_eos = $("even-length").checked;
		if ($("heat").value !== "") body.temperature = Number($("heat").value);
	}
	if (isStreamed()) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
	return { path: "v1/completions", body };
}

function encoderQuestion() {
	const text = $("prompt").value, second = $("second").value;
	switch ($("task").value) {
	case "fill-mask":
		return { path: "fill-mask", body: { input: text, top_k: 5 } };
	case "classify": {
		const body = { input: second ? { text, text_pair: second } : text };
		if (model.heads.length > 1) body.head = $("head").value;
		return { path: "classify", body };
	}
	default:
		return { path: "v1/embeddings", body: { input: second ? [text, second] : text } };
	}
}

/* What is asked for at one depth (null: the server chooses). */
function question(depth) {
	const { path, body } = isEncoder() ? encoderQuestion() : completion();
	body.depth = depth ? fromDepth(depth) : "auto";
	if ($("rule").value) body.plan_rule = $("rule").value;
	if (number("budget", 0) > 0) body.latency_budget_ms = number("budget", 0);
	return { path, body };
}
