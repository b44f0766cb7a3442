// SPDX-License-Identifier: Apache-2.0
// Writes ../data/tokenizer-golden.json: texts and the ids that other tokenizers give them, for tests
// that run without these packages. Run it again when the demo's vocabulary changes.
import { writeFileSync } from "node:fs";
import { addedToken, folderVocabulary, huggingFaceOracle, sameUnicode, tiktokenOracle, tokenizerJson } from "./oracles.mjs";
import { strings } from "./strings.mjs";

const FOLDERS = [["deploy/demo", 300], ["tests/data/tiny-opt", 100]];
const LONGEST = 120;

const known = sameUnicode();
// ASCII only, so that no editor or terminal stumbles over what the file is for.
const ascii = (value) => JSON.stringify(value)
	.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

function cases(folder, count) {
	const vocabulary = folderVocabulary(`../../${folder}`);
	const json = tokenizerJson(vocabulary, {
		added_tokens: vocabulary.specials.map((token) => addedToken(token, vocabulary.vocab[token])),
	});
	const [one, other] = [tiktokenOracle(vocabulary), huggingFaceOracle(json)];
	return strings(4 * count, 7, vocabulary.specials)
		.filter((text) => known(text) && !text.includes("\0") && Buffer.byteLength(text) <= LONGEST)
		.slice(0, count)
		.map((text) => {
			const ids = one(text);
			if (ids.join() !== other(text).join())
				throw new Error(`the oracles differ: ${ascii(text)}`);
			return `[${ascii(text)},${JSON.stringify(ids)}]`;
		});
}

const parts = FOLDERS.map(([folder, count]) =>
	`{"folder":${JSON.stringify(folder)},"cases":[\n${cases(folder, count).join(",\n")}\n]}`);
writeFileSync("../data/tokenizer-golden.json", `[\n${parts.join(",\n")}\n]\n`);
