// SPDX-License-Identifier: Apache-2.0
// Compares fathom's token ids with other tokenizers' on thousands of odd strings.
//
//	node compare.mjs HELPER FOLDER...
//
// HELPER is the built tests/tokenize_lines; each FOLDER has vocab.json and merges.txt. GPT-2's own
// vocabulary comes out of the tiktoken package. Exits 1 at the first string that differs in a case.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import {
	addedToken, folderVocabulary, gpt2Oracle, gpt2Vocabulary, huggingFaceOracle, sameUnicode,
	splitBy, tiktokenOracle, tokenizerJson,
} from "./oracles.mjs";
import { strings } from "./strings.mjs";

const COUNT = 6000, SEED = 20190925;
const LLAMA3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
	+ "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const [helper, ...folders] = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), "fathom-oracle-"));
const known = sameUnicode();
let failures = 0, compared = 0;

function fathomIds(folder, texts, option) {
	const input = Buffer.concat(texts.flatMap((text) => {
		const bytes = Buffer.from(text);
		return [Buffer.from(`${bytes.length}\n`), bytes];
	}));
	const ran = spawnSync(helper, option ? [folder, option] : [folder], { input, maxBuffer: 1 << 30 });
	if (ran.status !== 0)
		throw new Error(`${helper} ${folder}: ${ran.stderr || ran.error || ran.signal}`);
	const lines = ran.stdout.toString().split("\n");
	return texts.map((_, i) => lines[i]);
}

function compare(name, folder, oracle, texts, option) {
	const got = fathomIds(folder, texts, option);
	const wrong = texts.findIndex((text, i) => oracle(text).join(" ") !== got[i]);
	compared += texts.length;
	if (wrong < 0) {
		console.log(`ok: ${name}: ${texts.length} strings`);
		return;
	}
	failures++;
	console.log(`not ok: ${name}: string ${wrong}: ${JSON.stringify(texts[wrong])}`);
	console.log(`  theirs ${oracle(texts[wrong]).join(" ")}\n  ours   ${got[wrong]}`);
}

function writeFolder(name, files) {
	const folder = join(scratch, name);
	mkdirSync(folder);
	for (const [file, contents] of Object.entries(files))
		writeFileSync(join(folder, file), typeof contents === "string" ? contents : JSON.stringify(contents));
	return folder;
}

function compareJson(name, json, texts, addSpecial = false) {
	const folder = writeFolder(name.replaceAll(" ", "-"), { "tokenizer.json": json });
	compare(name, folder, huggingFaceOracle(json, addSpecial), texts.filter(known), addSpecial ? "--add-special" : undefined);
}

// Every code point between letters, spaces, digits and punctuation, 64 to a string.
function everyCodePoint() {
	const texts = [""];
	for (let code = 0, n = 0; code < 0x110000; code++) {
		if (code >= 0xd800 && code < 0xe000)
			continue;
		const x = String.fromCodePoint(code);
		texts[texts.length - 1] += `a${x}1${x}!${x} `;
		if (++n % 64 === 0)
			texts.push("");
	}
	return texts;
}

const mergesText = (merges) => `#version: 0.2\n${merges.map((pair) => pair.join(" ")).join("\n")}\n`;

// The same merges in an order that no training gives: tokens are merged before they can be made.
function shuffled(merges) {
	let state = SEED;
	const random = () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) / 4294967296;
	const list = [...merges];
	for (let i = list.length - 1; i > 0; i--) {
		const j = Math.floor(random() * (i + 1));
		[list[i], list[j]] = [list[j], list[i]];
	}
	return list;
}

function compareGpt2() {
	const gpt2 = gpt2Vocabulary();
	const folder = writeFolder("gpt2", { "vocab.json": gpt2.vocab, "merges.txt": mergesText(gpt2.merges) });
	const texts = strings(COUNT, SEED, gpt2.specials);
	compare("gpt2 by tiktoken", folder, gpt2Oracle(), texts, "--round-trip");
	compare("gpt2 by tiktoken, every code point", folder, gpt2Oracle(), everyCodePoint());

	const first = 50257;
	const added = [
		addedToken("<|endoftext|>", 50256), addedToken("<|a|>", first), addedToken("<|a|><|b|>", first + 1),
		addedToken("<mask>", first + 2, { lstrip: true }), addedToken("[TRIM]", first + 3, { rstrip: true }),
		addedToken("Hello wor", first + 4, { special: false, normalized: false }),
		addedToken("x y", first + 5, { special: false, normalized: false }), addedToken("日本", first + 6),
	];
	const odd = strings(COUNT, SEED + 1, added.map((token) => token.content));
	// The oracle strips by JavaScript's white space, which differs at these two.
	const plain = odd.filter((text) => !/[\u0085\ufeff]/.test(text));
	compareJson("added tokens", tokenizerJson(gpt2, { added_tokens: added }), plain);
	const template = {
		type: "TemplateProcessing",
		single: [
			{ SpecialToken: { id: "<|a|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } },
			{ SpecialToken: { id: "<|endoftext|>", type_id: 0 } },
		],
		pair: [],
		special_tokens: {
			"<|a|>": { id: "<|a|>", ids: [first], tokens: ["<|a|>"] },
			"<|endoftext|>": { id: "<|endoftext|>", ids: [50256], tokens: ["<|endoftext|>"] },
		},
	};
	const around = tokenizerJson(gpt2, { added_tokens: added, post_processor: template });
	compareJson("a start and an end token", around, plain.slice(0, 1000), true);
	const spaced = { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true };
	compareJson("a space before", tokenizerJson(gpt2, { added_tokens: added.slice(0, 5), pre_tokenizer: spaced }), plain);
	const joined = { merges: gpt2.merges.map((pair) => pair.join(" ")), ignore_merges: true };
	compareJson("another pattern, whole words first", tokenizerJson(gpt2, { pre_tokenizer: splitBy(LLAMA3), model: joined }), odd);
	compareJson("matches only", tokenizerJson(gpt2, { pre_tokenizer: splitBy(LLAMA3, "Removed", true) }), odd.slice(0, 2000));
	compareJson("merges out of order", tokenizerJson(gpt2, { model: { merges: shuffled(gpt2.merges) } }), odd.slice(0, 2000));
}

// Every character of `texts` alone and going on, and some longer pieces.
function bertVocabulary(texts) {
	const pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
	const characters = new Set(texts.flatMap((text) =>
		[...text, ...text.toLowerCase(), ...text.normalize("NFD").toLowerCase()]));
	let state = SEED;
	for (const c of characters) {
		state = (Math.imul(state, 1103515245) + 12345) >>> 0;
		if (/[\s\0]/u.test(c) || state % 11 === 0)
			continue;
		pieces.push(c);
		if (state % 13 !== 0)
			pieces.push(`##${c}`);
	}
	for (const word of ["the", "th", "wor", "ing", "er", "en", "ab", "12", "un", "re", "hello", "über", "uber"])
		pieces.push(word, `##${word}`);
	return Object.fromEntries([...new Set(pieces)].map((piece, id) => [piece, id]));
}

function compareBert() {
	// The oracle looks for Chinese characters by UTF-16 units and misses those beyond U+FFFF; it knows a final
	// sigma, which BERT does not; and it has letters and marks that are newer than Unicode 14.
	const texts = [...strings(COUNT, SEED + 3, ["[MASK]", "[UNK]"]), ...everyCodePoint().slice(0, 50)]
		.filter((text) => known(text) && !/[\u{20000}-\u{2fa1f}\u03a3\u1b4e\u1b4f\u1b7f]/u.test(text));
	const vocab = bertVocabulary(texts);
	const added_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map((token) => addedToken(token, vocab[token]));
	const post_processor = { type: "BertProcessing", sep: ["[SEP]", vocab["[SEP]"]], cls: ["[CLS]", vocab["[CLS]"]] };
	for (const [name, options] of Object.entries({
		"bert uncased": { lowercase: true, strip_accents: null },
		"bert cased": { lowercase: false, strip_accents: null },
		"bert small letters with accents": { lowercase: true, strip_accents: false },
		"bert without Chinese words": { lowercase: true, strip_accents: true, handle_chinese_chars: false },
	}))
		compareJson(name, {
			version: "1.0", truncation: null, padding: null, added_tokens, post_processor,
			normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, ...options },
			pre_tokenizer: { type: "BertPreTokenizer" },
			decoder: { type: "WordPiece", prefix: "##", cleanup: true },
			model: {
				type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab,
			},
		}, texts, true);
}

function compareFolder(folder) {
	const vocabulary = folderVocabulary(folder);
	const texts = strings(COUNT, SEED + 2, vocabulary.specials);
	compare(`${basename(folder)} by tiktoken`, folder, tiktokenOracle(vocabulary), texts, "--round-trip");
	const json = tokenizerJson(vocabulary, {
		added_tokens: vocabulary.specials.map((token) => addedToken(token, vocabulary.vocab[token])),
	});
	compare(`${basename(folder)} by tokenizers`, folder, huggingFaceOracle(json), texts.filter(known));
}

try {
	compareGpt2();
	compareBert();
	folders.forEach(compareFolder);
} finally {
	rmSync(scratch, { recursive: true });
}
console.log(`${compared} strings compared, ${failures} cases differ`);
process.exit(failures ? 1 : 0);
