#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes tests/data: tiny random model folders and what the references of tools say about each.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

$python tools/train_bpe.py --vocab-size 300 --max-length 64 --out "$work/opt" tests/data/tiny.txt
$python tools/train_bpe.py --vocab-size 300 --max-length 64 --style fairseq --out "$work/fairseq" \
	tests/data/tiny.txt
$python tools/train_bpe.py --vocab-size 300 --max-length 64 --style gpt2 --out "$work/gpt2" \
	tests/data/tiny.txt

# make NAME TOKENIZER FLAGS...
make() {
	name=$1 tokenizer=$2
	shift 2
	rm -rf "tests/data/$name"
	$python tools/random_checkpoint.py --tokenizer "$work/$tokenizer" --hidden 32 --heads 4 \
		--ffn 64 --positions 64 --out "tests/data/$name" "$@"
	reference=reference goldens=goldens
	[ "$tokenizer" != fairseq ] || reference=reference_seq2seq goldens=seq2seq
	$python "tools/$reference.py" "tests/data/$name" --goldens "tests/data/$name/$goldens.json"
}

make tiny-opt opt --family opt --layers 6 --seed 1
make tiny-opt-bf16 opt --family opt --layers 4 --dtype bf16 --seed 2
make tiny-opt-sharded opt --family opt --layers 2 --untied --sharded --seed 3
make tiny-opt-post opt --family opt --layers 3 --norm post --activation gelu --dtype f16 --seed 4
make tiny-gpt2 gpt2 --family gpt2 --layers 3 --seed 5
make tiny-gpt2-bare gpt2 --family gpt2 --layers 3 --untied --bare --dtype f16 --seed 6
make tiny-fathom-sin-post opt --family fathom_lm --layers 3 --norm post --no-final-norm \
	--embedding-norm --activation gelu --position-kind sinusoidal --embed-scale 5.656854249 \
	--seed 7
make tiny-fathom-pre-nofinal opt --family fathom_lm --layers 3 --no-final-norm --activation relu \
	--position-kind sinusoidal --embed-scale 5.656854249 --seed 8
make tiny-fathom-nopos opt --family fathom_lm --layers 2 --activation gelu_tanh --untied \
	--position-kind none --dtype bf16 --seed 9

make tiny-mt-pre fairseq --family fathom_seq2seq --encoder-layers 4 --layers 3 --hidden 16 --heads 2 \
	--position-kind sinusoidal --embed-scale 4 --layer-gain 2.5 --end-tilt 1.5 --seed 13
make tiny-mt-post fairseq --family fathom_seq2seq --encoder-layers 3 --layers 2 --norm post \
	--no-final-norm --activation gelu --encoder-heads 2 --encoder-ffn 48 --hidden 24 \
	--separate-embeddings --untied --dtype bf16 --layer-gain 1.5 --end-tilt 2 --seed 16

# fairseq's adaptive language models and its encoder, with dictionaries of made-up words.
for name in tiny-lm-adaptive tiny-lm-bands tiny-encoder; do
	rm -rf "tests/data/$name"
	$python tools/random_fairseq.py --preset "$name" --out "tests/data/$name"
	$python tools/reference_fairseq.py "tests/data/$name" --goldens "tests/data/$name/goldens.json"
done

# Hugging Face's other families, without tokenizers.
$python tools/reference_hf.py tests/data
