/* SPDX-License-Identifier: Apache-2.0 */
/* A picture on the page: heading, choice of what to draw, the drawing, what is under the pointer, and its numbers as a table. */
"use strict";

function table(head, rows) {
	return el(
		"table",
		{},
		el(
			"thead",
			{},
			el(
				"tr",
				{},
				head.map(name => el("th", { scope: "col" }, name)),
			),
		),
		el(
			"tbody",
			{},
			rows.map(row =>
				el(
					"tr",
					{},
					row.map((cell, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, cell)),
				),
			),
		),
	);
}

/* Says what is nearest to the pointer; left and right arrows walk through the same places. */
function readable(drawing, plot, width) {
	const svg = plot.svg,
		marks = plot.marks.slice().sort((a, b) => a.x - b.x || a.y - b.y);
	const readout = el("div", { class: "readout", role: "status" }),
		ring = draw("circle", { class: "ring", r: 7 });
	let now = -1;
	const show = index => {
		now = index;
		if (index < 0) {
			readout.remove();
			ring.remove();
			return;
		}
		const { x, y, text } = marks[index],
			scale = svg.getBoundingClientRect().width / width;
		readout.textContent = text;
		readout.style.left = x * scale + "px";
		readout.style.top = y * scale + "px";
		const half = width_of(text) / 2 + 12;
		readout.className = "readout" + (x + half > width ? " left" : x - half < 0 ? " right" : "");
		ring.setAttribute("cx", x);
		ring.setAttribute("cy", y);
		svg.append(ring);
		drawing.append(readout);
	};
	svg.addEventListener("pointermove", event => {
		const area = svg.getBoundingClientRect(),
			scale = width / area.width;
		const x = (event.clientX - area.left) * scale,
			y = (event.clientY - area.top) * scale;
		let best = -1,
			least = 60 * 60;
		marks.forEach((mark, i) => {
			const far = (mark.x - x) ** 2 + (mark.y - y) ** 2;
			if (far < least) [best, least] = [i, far];
		});
		show(best);
	});
	svg.addEventListener("pointerleave", () => show(-1));
	svg.addEventListener("blur", () => show(-1));
	svg.addEventListener("keydown", event => {
		const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
		if (step) {
			event.preventDefault();
			show((now + step + marks.length) % marks.length);
		} else if (event.key === "Escape") {
			show(-1);
		}
	});
}

/* Pictures are drawn when they are on the page, since before they have no width. */
const undrawn = [];
const draw_pictures = () => undrawn.splice(0).forEach(picture => picture());

/*
 * picture: {id, wide, choices: [{name, ...}] or none, show(choice) -> {title, note, draw(width) -> plot, head, rows}}.
 * Redrawn at the width that it gets, so that text is as large on a phone.
 */
function figure(picture) {
	const title = el("h3", { id: picture.id + "-title" }),
		note = el("p"),
		drawing = el("div", { class: "drawing" });
	const numbers = el("div", {
		class: "scroll",
		tabindex: 0,
		role: "region",
		"aria-label": "Numbers of the picture",
	});
	const caption = el("figcaption", {}, title, note);
	let chosen = picture.choices ? picture.choices[0] : null,
		width = 0,
		view = null;
	const redraw = () => {
		const plot = view.draw(width);
		fill(
			plot.svg,
			{
				role: "img",
				"aria-labelledby": title.id,
				"aria-description": "Arrow keys read out its points.",
				tabindex: 0,
			},
			[],
		);
		drawing.replaceChildren(plot.svg);
		readable(drawing, plot, width);
	};
	const update = () => {
		view = picture.show(chosen);
		title.textContent = view.title;
		note.textContent = view.note || "";
		numbers.replaceChildren(table(view.head, view.rows));
		if (width) redraw();
	};
	if (picture.choices && picture.choices.length > 1) {
		caption.append(
			el(
				"fieldset",
				{ class: "choices", "aria-label": "What to draw" },
				picture.choices.map((choice, i) => {
					const input = el("input", {
						type: "radio",
						name: picture.id,
						checked: i === 0 ? "" : null,
					});
					input.addEventListener("change", () => {
						chosen = choice;
						update();
					});
					return el("label", {}, input, choice.name);
				}),
			),
		);
	}
	update();
	const fit = found => {
		if (found && Math.abs(found - width) > 1) {
			width = found;
			redraw();
		}
	};
	undrawn.push(() => fit(drawing.clientWidth));
	new ResizeObserver(([entry]) =>
		requestAnimationFrame(() => fit(Math.round(entry.contentRect.width))),
	).observe(drawing);
	return el(
		"figure",
		{ id: picture.id, class: picture.wide ? "wide" : null },
		caption,
		drawing,
		el("details", {}, el("summary", {}, "Numbers"), numbers),
	);
}

/* On paper every table is open. */
function print_tables() {
	let opened = [];
	addEventListener("beforeprint", () => {
		opened = [...document.querySelectorAll("details:not([open])")];
		opened.forEach(d => (d.open = true));
	});
	addEventListener("afterprint", () => opened.forEach(d => (d.open = false)));
}
