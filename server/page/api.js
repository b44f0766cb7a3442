/* The server's routes, and its refusals as sentences. */

/* `retry` is in seconds, 0 if the same request would be refused again. */
class Refusal extends Error {
	constructor(status, message, retry = 0) {
		super(message);
		this.status = status;
		this.retry = retry;
	}
}

function headers(more) {
	const key = sessionStorage.getItem("fathom-key");
	return key ? { ...more, "Authorization": "Bearer " + key } : { ...more };
}

function askForKey() {
	if (!$("access").hidden) return;
	$("access").hidden = false;
	$("key").focus();
}

function retrySeconds(response) {
	const ms = Number(response.headers.get("retry-after-ms"));
	return ms ? ms / 1000 : Number(response.headers.get("retry-after")) || 0;
}

async function refusal(response) {
	const retry = [429, 503].includes(response.status) ? retrySeconds(response) : 0;
	let message = `The server answered ${response.status}.`;
	if (response.status === 401) askForKey();
	try {
		message = (await response.json()).error.message;
	} catch { /* The status has to do. */ }
	if (retry) message += ` Try again in ${digits(retry)} s.`;
	return new Refusal(response.status, message, retry);
}

/* Answers that are refusals throw. */
async function ask(path, options) {
	let response;
	try {
		response = await fetch(path, options);
	} catch (error) {
		if (error.name === "AbortError") throw error;
		throw new Refusal(0, "The server does not answer; is it still running?");
	}
	if (!response.ok) throw await refusal(response);
	return response;
}

function get(path) {
	return ask(path, { headers: headers() });
}

function post(path, body, signal) {
	return ask(path, {
		method: "POST", signal, body: JSON.stringify(body),
		headers: headers({ "Content-Type": "application/json" }),
	});
}

/* What the server would do with a question now; nothing is run. */
async function foresee({ path, body }, fields) {
	const { stream, stream_options, ...rest } = body;
	const response = await post("v1/plan", { route: "/" + path, ...rest, ...fields });
	return response.json();
}

/* Yields the JSON of each event of a stream. */
async function* events(response) {
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	for (;;) {
		const { done, value } = await reader.read();
		if (done) return;
		const parts = (rest + value).split("\n\n");
		rest = parts.pop();
		for (const part of parts)
			if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
	}
}

function curl({ path, body }) {
	const json = JSON.stringify(body).replaceAll("'", "'\\''");
	return `curl ${new URL(path, location.href)} \\\n  --json '${json}'`;
}
