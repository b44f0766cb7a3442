// SPDX-License-Identifier: Apache-2.0
// Odd strings, the same ones every time: whatever has ever made two tokenizers disagree.

// mulberry32: a small generator with a 32-bit seed.
function generator(seed) {
	return () => {
		seed = (seed + 0x6d2b79f5) | 0;
		let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
		return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
	};
}

const SPACES = [
	0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x20, 0x85, 0xa0, 0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
	0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000,
	// not white space, though some libraries think so
	0x180e, 0x200b, 0x200c, 0x200d, 0x2060, 0xfeff, 0x1c, 0x1d, 0x1e, 0x1f, 0x7f, 0xad,
];
const SCRIPTS = [
	[0x41, 0x5a], [0x61, 0x7a], [0xc0, 0xff], [0x100, 0x24f], [0x250, 0x2ff], [0x370, 0x3ff],
	[0x400, 0x4ff], [0x531, 0x587], [0x5d0, 0x5ea], [0x620, 0x6d5], [0x904, 0x939], [0xe01, 0xe5b],
	[0x10a0, 0x10ff], [0x1200, 0x135a], [0x1780, 0x17e9], [0x1e00, 0x1fff], [0x2150, 0x2188],
	[0x2460, 0x24ff], [0x3041, 0x30ff], [0x3105, 0x312f], [0x4e00, 0x9fff], [0xac00, 0xd7a3],
	[0xf900, 0xfad9], [0xff01, 0xffdc], [0x10330, 0x1034a], [0x12000, 0x12399], [0x1d400, 0x1d7ff],
	[0x20000, 0x2a6df],
];
const DIGITS = [
	0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xe50, 0xf20, 0x1040, 0x17e0, 0x1810, 0xa620,
	0xff10, 0x104a0, 0x11066, 0x1d7ce, 0x1d7f6,
];
const OTHER_NUMBERS = [0xb2, 0xbc, 0xbd, 0x2167, 0x2460, 0x3007, 0x3021, 0x0bf0, 0x10107, 0x1f100];
const EMOJI = [
	"😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇫🇷🇮🇹", "1️⃣", "❤️", "☺︎", "🧑🏿‍🚀", "🫠", "©", "™️",
];
const ENDINGS = ["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "M", "LL", "D", "ſ", "x", ""];
const APOSTROPHES = ["'", "'", "'", "’", "ʼ", "''", "' ", " '"];
const WORDS = [
	"the", "The", "of", "and", "layer", "depth", "don", "I", "you", "it", "Hello", "world", "tokenizer",
	"naïve", "café", "Straße", "façade", "ZÜRICH", "coöperate", "x", "a", "1", "42", "3.14", "2024-01-31",
	"U.S.A.", "e.g.", "http://example.org/a?b=c&d=%20", "foo@example.org", "snake_case", "camelCase",
	"SHOUTING", "antidisestablishmentarianism", "ﬁne", "Ǆ", "ǆ", "İstanbul", "ß",
];
const CODE = [
	"int main(void) {", "\treturn 0;", "}", "\n", "\n\n", "\r\n", "\t\t", "    ", "        ", "#include <stdio.h>",
	"for (size_t i = 0; i < n; i++)", "x = y ** 2", "// comment", "/* ... */", "def f(x, *, y=None):", "->", "=>",
	"!==", "<<=", "${name}", "`${x}`", "\\n", "\"quoted\"", "'c'", "0xDEADBEEF", "1_000_000", "1e-10f", "<div class=\"a\">",
	"</div>", "SELECT * FROM t WHERE a='b''c';", "&amp;", "{{ x|e }}", "a[i++]", "::", "...", ";;", "~!@#$%^&*()_+",
];
const CONTROLS = [...Array(32).keys(), ...Array.from({ length: 33 }, (_, i) => 127 + i)];

const character = (code) => String.fromCodePoint(code);

// `count` strings; `specials` are strings that the tokenizer treats specially.
export function strings(count, seed, specials) {
	const random = generator(seed);
	const below = (n) => Math.floor(random() * n);
	const pick = (list) => list[below(list.length)];
	const repeat = (most, make) => Array.from({ length: 1 + below(most) }, make).join("");
	const inRange = ([low, high]) => character(low + below(high - low + 1));
	const scalar = () => {
		for (;;) {
			const code = random() < 0.5 ? below(0x10000) : below(0x110000);
			if (code < 0xd800 || code > 0xdfff)
				return character(code);
		}
	};
	const space = () => character(pick(SPACES));
	const letter = () => inRange(pick(SCRIPTS));
	const digit = () => random() < 0.2 ? character(pick(OTHER_NUMBERS)) : character(pick(DIGITS) + below(10));
	const kinds = [
		() => repeat(24, scalar),
		() => repeat(12, () => scalar() + pick(["", " ", "  ", "\n", "a", "1", "!"])),
		() => repeat(30, letter),
		() => repeat(8, () => repeat(6, letter) + space()),
		() => repeat(10, () => letter() + repeat(4, () => character(0x300 + below(0x70)))),
		() => repeat(6, () => pick(EMOJI) + pick(["", " ", "\u200d", "\ufe0f", "x"])),
		() => repeat(20, () => character(pick(CONTROLS))),
		() => repeat(16, () => random() < 0.3 ? letter() : character(pick(CONTROLS))),
		() => repeat(20, space),
		() => repeat(12, () => repeat(4, space) + pick(["", "", pick(WORDS), digit(), "!", "é"])),
		() => repeat(20, () => pick(["\r", "\n", "\r\n", "\n\r", " ", "\t", "a", "\u2028", "\u0085"])),
		() => repeat(3, () => pick([" ", "a", "!", "\n", "é", "中", "0", "\u00a0", "\u0300", "😀", "\t", "'", letter()])
			.repeat(1 + below(300)) + pick(["", "b", " ", ".", "\n"])),
		() => repeat(10, () => pick(WORDS) + pick(APOSTROPHES) + pick(ENDINGS) + pick(["", " ", pick(WORDS)])),
		() => repeat(12, () => repeat(5, digit) + pick(["", " ", ".", ",", "x", "\n"])),
		() => repeat(8, () => pick(["", " ", "  ", "\n", pick(WORDS), "<", "<|"]) + pick(specials)
			+ pick(["", " ", "   ", "\n", pick(WORDS), "|>", ">"])),
		() => repeat(6, () => pick(specials).slice(0, 1 + below(12)) + pick(specials).slice(below(4))),
		() => Buffer.from(Array.from({ length: 1 + below(40) }, () => below(256))).toString("utf8"),
		() => repeat(12, () => pick(CODE) + pick(["", "", " ", "\n", "\n\t", "    "])),
		() => repeat(20, () => pick(WORDS) + pick([" ", " ", " ", "", ", ", ". ", "\n", " - ", "; "])),
		() => repeat(30, () => character(32 + below(95))),
	];
	const fixed = ["", " ", "  ", "\n", "a", "é", "😀", "\u180e", "a\u180eb \u180e c", "\u0085", " \u0085 a",
		"\u00a0a", "a \u00a0b", "\ufeffa", "\u0000", "'s", " 's", "'S", "it's  IT'S", ...specials];
	const made = [...fixed];
	while (made.length < count)
		made.push(random() < 0.25 ? pick(kinds)() + pick(kinds)() : pick(kinds)());
	return made.slice(0, Math.max(count, fixed.length));
}
