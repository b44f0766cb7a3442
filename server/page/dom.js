"use strict";
/* SPDX-License-Identifier: Apache-2.0 */
/* Small helpers. The page's files are joined in the order that server/meson.build gives. */

const $ = id => document.getElementById(id);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const sum = numbers => numbers.reduce((a, b) => a + b, 0);
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

/* An element with a class and children; texts are never parsed as HTML. */
function make(tag, name, ...children) {
	const node = document.createElement(tag);
	if (name) node.className = name;
	node.append(...children);
	return node;
}

function drawing(tag, attributes, ...children) {
	const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
	node.append(...children);
	return node;
}

/* About three significant digits, without an exponent. */
function digits(value) {
	if (value === 0) return "0";
	if (value === undefined || value === null || !isFinite(value)) return "–";
	const places = value >= 100 ? 0 : value >= 10 ? 1 : value >= 0.0995 ? 2 : 3;
	return value.toFixed(places);
}

function millis(value) {
	return `${digits(value)} ms`;
}

function count(n, word) {
	return `${n} ${word}${n === 1 ? "" : "s"}`;
}

/* The last call within `ms` wins. */
function debounce(ms, work) {
	let timer = 0;
	return () => {
		clearTimeout(timer);
		timer = setTimeout(work, ms);
	};
}

/* Name and value pairs as a list of definitions. */
function define(list, pairs) {
	list.replaceChildren(...pairs.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value))));
}

/* For people who listen: one sentence when something is complete. */
function say(sentence) {
	$("said").textContent = sentence;
}

function complain(sentence) {
	$("problem").textContent = sentence;
	$("problem").hidden = !sentence;
}
