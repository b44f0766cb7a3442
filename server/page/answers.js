/* What an answer looks like. Each function takes the parsed answer and returns nodes. */

/* Rows of a text and a number, with a bar that draws the number. */
function barTable(rows) {
	const most = Math.max(...rows.map(([, value]) => value), 1e-9);
	const body = make("tbody");
	for (const [text, value, shown] of rows) {
		const bar = make("i", "bar-of");
		bar.style.width = `${Math.max(0, 100 * value / most)}%`;
		const cell = make("td", "bar-cell", bar);
		cell.ariaHidden = "true"; // the bar draws the number beside it
		body.append(make("tr", "", make("td", "", text), make("td", "figure", shown), cell));
	}
	return make("table", "bars", body);
}

function classNodes(answer) {
	return [barTable(answer.labels.map((label, i) => {
		const p = answer.data[0].probs[i];
		return [label, p, p.toFixed(3)];
	}))];
}

function fillNodes(answer) {
	return answer.results.map(fills => barTable(fills.map(fill => [fill.token.trim() || "␣", fill.prob, fill.prob.toFixed(3)])));
}

function hypothesisNodes(answer) {
	const items = answer.choices.map(choice => make("li", "", choice.text + " ", make("span", "soft", digitsOfScore(choice.score))));
	return [items.length === 1 ? make("p", "", answer.choices[0].text) : make("ol", "beams", ...items)];
}

function digitsOfScore(score) {
	return score === undefined || score === null ? "" : score.toFixed(2);
}

function cosine(a, b) {
	const dot = (x, y) => sum(x.map((value, i) => value * y[i]));
	return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b) || 1);
}

/* How alike the two texts are at this depth; and how near the text is to what the full depth makes of it. */
function vectorNodes(answer, full) {
	const [first, second] = answer.data.map(item => item.embedding);
	const rows = [];
	if (second) rows.push(["the two texts", cosine(first, second)]);
	if (full) rows.push(["to the full depth", cosine(first, full)]);
	const table = barTable(rows.map(([text, value]) => [text, value, value.toFixed(4)]));
	const numbers = make("p", "soft vector", `${first.length} numbers: ${first.slice(0, 6).map(x => x.toFixed(3)).join(" ")} …`);
	return rows.length ? [make("p", "soft", "Cosine similarity"), table, numbers] : [numbers];
}

function answerNodes(answer, full) {
	if (answer.labels) return classNodes(answer);
	if (answer.results) return fillNodes(answer);
	if (answer.choices) return hypothesisNodes(answer);
	return vectorNodes(answer, full);
}

/* What people who cannot see the lanes hear of an answer. */
function answerSentence(lane) {
	const { answer, pieces } = lane;
	if (!answer) return pieces.join("");
	if (answer.labels) return answer.data[0].label;
	if (answer.results) return answer.results.map(fills => fills[0].token).join(", ");
	return answer.choices ? answer.choices[0].text : "";
}
