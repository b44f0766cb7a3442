// SPDX-License-Identifier: Apache-2.0
// Tokenizers that others wrote, made from a model folder's files or from tiktoken's own tables.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { Tiktoken, get_encoding } from "tiktoken";

export const GPT2_PATTERN =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// GPT-2's printable character for each of the 256 bytes (openai/gpt-2, src/encoder.py).
const CHARACTER = [];
for (let byte = 0, extra = 256; byte < 256; byte++) {
	const plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
	CHARACTER.push(String.fromCodePoint(plain ? byte : extra++));
}
const BYTE = new Map(CHARACTER.map((character, byte) => [character, byte]));
const spell = (bytes) => Array.from(bytes, (byte) => CHARACTER[byte]).join("");

// GPT-2's vocabulary and merges, worked out from the ranks of its tokens in tiktoken's tables: a
// token's last merge joins the two parts that lower-ranked tokens make of it.
export function gpt2Vocabulary() {
	const tables = createRequire(import.meta.url).resolve("tiktoken/encoders/gpt2.json");
	const gpt2Tables = JSON.parse(readFileSync(tables, "utf8"));
	const ids = new Map();
	for (const line of gpt2Tables.bpe_ranks.split("\n")) {
		const [, first, ...tokens] = line.split(" ");
		tokens.forEach((token, i) => ids.set(Buffer.from(token, "base64").toString("latin1"), Number(first) + i));
	}
	const partsBelow = (token, limit) => {
		const parts = [...token];
		for (;;) {
			let best = limit, at = -1;
			for (let i = 0; i + 1 < parts.length; i++) {
				const rank = ids.get(parts[i] + parts[i + 1]) ?? Infinity;
				if (rank < best)
					[best, at] = [rank, i];
			}
			if (at < 0)
				return parts;
			parts.splice(at, 2, parts[at] + parts[at + 1]);
		}
	};
	const vocab = {}, merges = [];
	for (const [token, id] of [...ids].sort((a, b) => a[1] - b[1])) {
		vocab[spell(Buffer.from(token, "latin1"))] = id;
		if (token.length > 1)
			merges.push(partsBelow(token, id).map((part) => spell(Buffer.from(part, "latin1"))));
	}
	vocab["<|endoftext|>"] = 50256;
	return { vocab, merges, specials: ["<|endoftext|>"] };
}

export function gpt2Oracle() {
	const tiktoken = get_encoding("gpt2");
	return (text) => Array.from(tiktoken.encode(text, "all"));
}

const readJson = (folder, name) =>
	existsSync(join(folder, name)) ? JSON.parse(readFileSync(join(folder, name), "utf8")) : {};

// Vocabulary, merges and special tokens of a folder with vocab.json and merges.txt.
export function folderVocabulary(folder) {
	const vocab = readJson(folder, "vocab.json");
	const merges = readFileSync(join(folder, "merges.txt"), "utf8").split("\n")
		.filter((line) => line && !line.startsWith("#version")).map((line) => line.split(" "));
	const named = { ...readJson(folder, "special_tokens_map.json"), ...readJson(folder, "tokenizer_config.json") };
	const specials = new Set();
	for (const role of ["bos", "eos", "unk", "pad", "sep", "cls", "mask"]) {
		const token = named[`${role}_token`];
		if (token)
			specials.add(token.content ?? token);
	}
	if (["bos_token", "eos_token", "unk_token"].some((role) => !named[role]) && "<|endoftext|>" in vocab)
		specials.add("<|endoftext|>");
	return { vocab, merges, specials: [...specials] };
}

// tiktoken over a vocabulary whose ids are in the order of the merges.
export function tiktokenOracle({ vocab, specials }) {
	const lines = Object.entries(vocab)
		.filter(([token]) => !specials.includes(token) && [...token].every((c) => BYTE.has(c)))
		.map(([token, id]) => {
			const bytes = Buffer.from(Array.from(token, (c) => BYTE.get(c)));
			return `! ${id} ${bytes.toString("base64")}`;
		});
	const special = Object.fromEntries(specials.map((token) => [token, vocab[token]]));
	const tiktoken = new Tiktoken(lines.join("\n"), special, GPT2_PATTERN);
	return (text) => Array.from(tiktoken.encode(text, "all"));
}

// The pieces of tokenizer.json that fathom's tests vary.
export function tokenizerJson({ vocab, merges }, changes = {}) {
	const { model, ...rest } = changes;
	return {
		version: "1.0", truncation: null, padding: null, added_tokens: [], normalizer: null,
		pre_tokenizer: splitBy(GPT2_PATTERN), post_processor: null,
		decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
		...rest,
		model: {
			type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null,
			end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, vocab, merges, ...model,
		},
	};
}

// ByteLevel's own pattern is written in JavaScript's dialect in the oracle, where \s differs at
// U+0085 and U+FEFF; as a Split it is translated rightly.
export const splitBy = (pattern, behavior = "Isolated", invert = false) => ({
	type: "Sequence",
	pretokenizers: [
		{ type: "Split", pattern: { Regex: pattern }, behavior, invert },
		{ type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
	],
});

export const addedToken = (content, id, flags = {}) =>
	({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...flags });

// Hugging Face's tokenizers over a tokenizer.json.
export function huggingFaceOracle(json, addSpecial = false) {
	const tokenizer = new Tokenizer(json, {});
	return (text) => tokenizer.encode(text, { add_special_tokens: addSpecial }).ids;
}

// Whether this JavaScript engine and tiktoken know the same letters and numbers in a text: they may
// be built on different versions of Unicode.
export function sameUnicode() {
	const bytes = Array.from({ length: 256 }, (_, byte) => Buffer.from([byte]).toString("base64"));
	const differ = new Set();
	for (const property of ["L", "N"]) {
		const only = new Tiktoken(`! 0 ${bytes.join(" ")}`, {}, `\\p{${property}}`);
		const here = new RegExp(`\\p{${property}}`, "u");
		for (let base = 0; base < 0x110000; base += 0x800) {
			if (base >= 0xd800 && base < 0xe000)
				continue;
			const block = Array.from({ length: 0x800 }, (_, i) => String.fromCodePoint(base + i));
			const theirs = new Set(Buffer.from(only.encode_ordinary(block.join(""))).toString("utf8"));
			for (const character of block) {
				if (theirs.has(character) !== here.test(character))
					differ.add(character);
			}
		}
		only.free();
	}
	return (text) => ![...text].some((character) => differ.has(character));
}
