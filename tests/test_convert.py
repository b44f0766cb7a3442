#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/convert_fairseq.py and convert_hf.py: what they make of checkpoints. Prints TAP."""
import json
import os
import shutil
import tarfile

from convert_rig import (D, FFN, LM, ROOT, SEQ, WORDS, call, convert, convert_fairseq,
                         convert_folder, encoder_decoder, expect_equal, hostile, language_model,
                         main, place, read_json, read_safetensors, refused, roberta, save, test,
                         write_pair)
import numpy as np
import fairseq_files as files

FIXTURES = os.path.join(ROOT, "..", "shared", "fixtures")


# ---- what is converted ----

@test
def a_plain_language_model_keeps_every_number_and_stores_tied_words_once():
    with place() as where:
        tensors = language_model()
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, tensors, LM)
        status, said, out = convert(where)
        assert status == 0, status
        wanted = {name: value for name, value in tensors.items()
                  if name not in ("decoder.version", "decoder.output_projection.weight")}
        expect_equal(out, wanted)
        config = read_json(out)
        assert config["model_type"] == "fathom_lm" and config["num_hidden_layers"] == 2
        assert config["vocab_size"] == WORDS + 4 and config["intermediate_size"] == FFN
        assert config["norm"] == "pre" and config["final_norm"] is True
        assert config["positions"] == "sinusoidal" and config["max_position_embeddings"] == 20
        assert abs(config["embed_scale"] - D ** 0.5) < 1e-12 and config["tie_word_embeddings"]
        assert read_json(out, "fathom_tokenizer.json") == {
            "kind": "fairseq", "dictionary": "dict.txt", "bpe": "none", "tokenizer": "none",
            "bos": False, "eos": False, "start": "</s>"}


@test
def what_no_option_names_is_what_fairseq_takes_today():
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        options = {name: value for name, value in LM.items()
                   if name not in ("_name", "decoder_normalize_before")}
        save(where, language_model(final=False), {**options, "arch": "transformer_lm"},
             as_args=True)
        status, said, out = convert(where)
        assert status == 0, status
        assert read_json(out)["norm"] == "post"
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, language_model(), {**options, "arch": "transformer_lm_gpt"}, as_args=True)
        status, said, out = convert(where)
        assert status == 0, status
        assert read_json(out)["norm"] == "pre"


@test
def embeddings_of_another_width_take_in_their_projections():
    rng, embed = np.random.default_rng(3), "decoder.embed_tokens.weight"
    words, into, out_of, last = (rng.standard_normal(shape).astype(np.float32) for shape in (
        (WORDS + 4, 5), (D, 5), (6, D), (WORDS + 4, 6)))
    for tied in (False, True):
        tensors = language_model(embed=False)
        tensors.update({embed: words, "decoder.project_in_dim.weight": into,
                        "decoder.project_out_dim.weight": out_of[:5] if tied else out_of,
                        "decoder.output_projection.weight": words if tied else last})
        with place() as where:
            files.write_dictionary(where + "/dict.txt", WORDS)
            save(where, tensors, {**LM, "share_decoder_input_output_embed": tied})
            status, said, out = convert(where)
            assert status == 0, status
            assert "decoder_input_dim and decoder_output_dim" in said
            found = read_safetensors(out)
            assert not read_json(out)["tie_word_embeddings"]
            assert np.allclose(found[embed][1], words.astype(float) @ into.T, atol=1e-5)
            output = words.astype(float) @ out_of[:5] if tied else last.astype(float) @ out_of
            assert np.allclose(found["decoder.output_projection.weight"][1], output, atol=1e-5)


def adaptive(tied):
    tensors = language_model(final=False, embed=False)
    weights = files.Weights(7)
    at = "decoder.embed_tokens.embeddings."
    for band, (size, dim) in enumerate(((10, 8), (10, 4), (14, 2))):
        weights.add(f"{at}{band}.0.weight", size, dim)
        weights.add(f"{at}{band}.1.weight", D, dim)
    if tied:
        softmax = {"head.word_proj": f"{at}0.0", "tail.0.0": f"{at}1.1", "tail.0.2": f"{at}1.0",
                   "tail.1.0": f"{at}2.1", "tail.1.2": f"{at}2.0"}
        for name, source in softmax.items():
            weights.tensors[f"decoder.adaptive_softmax.{name}.weight"] = \
                weights.tensors[source + ".weight"]
        weights.add("decoder.adaptive_softmax.head.class_proj.weight", 2, D)
        weights.tensors["decoder.adaptive_softmax.head._float_tensor"] = np.zeros(1, np.float32)
    else:
        weights.add("decoder.adaptive_softmax.head.weight", 12, D)
        for i, (size, dim) in enumerate(((10, 4), (14, 2))):
            weights.add(f"decoder.adaptive_softmax.tail.{i}.0.weight", dim, D)
            weights.add(f"decoder.adaptive_softmax.tail.{i}.2.weight", size, dim)
    weights.tensors["decoder.adaptive_softmax.version"] = np.array([1], np.int64)
    return {**tensors, **weights.tensors}


BANDS = {"_name": "transformer_lm_wiki103", "decoder_attention_heads": 2, "tokens_per_sample": 16,
         "adaptive_input_cutoff": "10,20", "adaptive_softmax_cutoff": "10,20",
         "adaptive_input_factor": 2.0, "adaptive_softmax_factor": 2.0}


@test
def tied_bands_are_stored_once():
    with place() as where:
        tensors = adaptive(tied=True)
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, tensors, BANDS)
        status, said, out = convert(where)
        assert status == 0, status
        wanted = {n: v for n, v in tensors.items() if "version" not in n and "_float" not in n
                  and not ("adaptive_softmax" in n and "class_proj" not in n)}
        expect_equal(out, wanted)
        config = read_json(out)
        assert config["adaptive_input"] == {"cutoffs": [10, 20], "factor": 2.0}
        assert config["adaptive_softmax"] == {"cutoffs": [10, 20], "factor": 2.0,
                                              "tie_weights": True, "tie_projections": True}
        assert config["final_norm"] is False and config["norm"] == "pre"


@test
def an_untied_softmax_gets_words_and_classes_apart():
    with place() as where:
        tensors = adaptive(tied=False)
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, tensors, {**BANDS, "tie_adaptive_weights": False, "tie_adaptive_proj": False})
        status, said, out = convert(where)
        assert status == 0, status
        found = read_safetensors(out)
        head = tensors["decoder.adaptive_softmax.head.weight"]
        at = "decoder.adaptive_softmax.head."
        assert np.array_equal(found[at + "word_proj.weight"][1], head[:10])
        assert np.array_equal(found[at + "class_proj.weight"][1], head[10:])


@test
def old_names_are_upgraded_in_every_layer_and_halves_stay_halves():
    with place() as where:
        tensors = language_model(layers=5, dtype=np.float16, final=False)
        tensors["decoder.version"] = np.array([2], np.float32)
        wanted = {n: v for n, v in tensors.items()
                  if n not in ("decoder.version", "decoder.output_projection.weight")}
        old = {}
        for name, value in files.fused(tensors).items():
            name = name.replace(".self_attn_layer_norm.", ".layer_norms.0.")
            old[name.replace("final_layer_norm.", "layer_norms.2.")] = value
        files.write_dictionary(where + "/dict.txt", WORDS)
        options = {"arch": "transformer_lm", "task": "language_modeling", "tokens_per_sample": 16,
                   "decoder_attention_heads": 2, "share_decoder_input_output_embed": True,
                   "decoder_normalize_before": True}
        save(where, old, options, as_args=True, legacy=True)
        status, said, out = convert(where)
        assert status == 0, status
        expect_equal(out, wanted, "F16")
        config = read_json(out)
        assert config["norm"] == "pre" and config["final_norm"] is False
        assert config["torch_dtype"] == "float16" and "no norm after its last layer" in said


@test
def an_old_roberta_is_renamed_and_its_labels_are_in_its_own_order():
    with place() as where:
        tensors = roberta([("mnli", 3)])
        old = {}
        for name, value in files.fused(tensors).items():
            if name.startswith("encoder.") and "lm_head" not in name:
                name = "decoder.sentence_encoder." + name[len("encoder."):]
            elif name.startswith("encoder."):
                name = "decoder." + name[len("encoder."):]
            old[name.replace("layernorm_embedding", "emb_layer_norm")] = value
        files.write_dictionary(where + "/dict.txt", WORDS)
        with open(where + "/label.dict.txt", "w", encoding="utf-8") as file:
            file.write("contradiction 9\nentailment 8\nneutral 7\nmadeupword0000 0\n")
        options = {"arch": "roberta_large", "encoder_attention_heads": 2, "encoder_layerdrop": 0.2}
        save(where, old, options, as_args=True)
        status, said, out = convert(where)
        assert status == 0, status
        expect_equal(out, {n: v for n, v in tensors.items() if n != "encoder.lm_head.weight"})
        config = read_json(out)
        assert config["classification_heads"] == [
            {"name": "mnli", "activation": "tanh",
             "labels": ["contradiction", "entailment", "neutral"]}]
        assert config["mask_token_id"] == WORDS + 4 and config["mlm_head"] is True
        assert config["encoder"]["norm"] == "post" and config["encoder"]["embedding_norm"] is True
        assert config["encoder"]["max_position_embeddings"] == 16
        assert config["encoder"]["layerdrop"] == 0.2 and config["encoder"]["embed_scale"] == 1
        tokenizer = read_json(out, "fathom_tokenizer.json")
        assert tokenizer["extra_symbols"] == ["<mask>"] and tokenizer["pair"] == ["</s>", "</s>"]
        assert tokenizer["bos"] is True and tokenizer["eos"] is True


@test
def labels_can_be_given_and_are_numbered_where_nothing_names_them():
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, roberta([("a", 2), ("b", 3)], head=False),
             {"arch": "roberta", "encoder_attention_heads": 2}, as_args=True)
        status, said, out = convert(where, "--labels", "b=x,y,z")
        assert status == 0, status
        labels = {h["name"]: h["labels"] for h in read_json(out)["classification_heads"]}
        assert labels == {"a": ["LABEL_0", "LABEL_1"], "b": ["x", "y", "z"]}, labels
        assert "no label.dict.txt" in said and read_json(out)["mlm_head"] is False
        refused(where, "--labels", "b=x,y", mention="3 classes")
        refused(where, "--labels", "c=x,y", mention="no classification head c")


@test
def an_encoder_decoder_of_two_widths_and_two_dictionaries_is_converted():
    with place() as where:
        tensors = encoder_decoder()
        write_pair(where)
        old = dict(tensors)
        old["decoder.embed_out"] = old.pop("decoder.output_projection.weight")
        save(where, old, SEQ, as_args=True)
        status, said, out = convert(where)
        assert status == 0, status
        expect_equal(out, {n: v for n, v in tensors.items() if "version" not in n})
        config = read_json(out)
        assert config["source_vocab_size"] == WORDS + 4 and config["vocab_size"] == WORDS + 14
        assert config["decoder"]["hidden_size"] == 12 and config["encoder"]["hidden_size"] == D
        assert config["encoder"]["num_attention_heads"] == 2
        assert config["decoder"]["num_attention_heads"] == 4
        assert not config["share_embeddings"] and not config["tie_word_embeddings"]
        assert config["encoder"]["max_position_embeddings"] == 1024
        tokenizer = read_json(out, "fathom_tokenizer.json")
        assert (tokenizer["dictionary"], tokenizer["target_dictionary"]) == (
            "dict.xx.txt", "dict.yy.txt")
        assert tokenizer["eos"] is True and tokenizer["bos"] is False
        assert read_json(out, "generation_config.json")["num_beams"] == 5


@test
def languages_that_nothing_names_are_told_apart_by_their_sizes_or_asked_for():
    with place() as where:
        write_pair(where)
        nameless = {k: v for k, v in SEQ.items() if not k.endswith("_lang")}
        save(where, encoder_decoder(), nameless, as_args=True)
        status, said, out = convert(where)
        assert status == 0, status
        assert read_json(out, "fathom_tokenizer.json")["dictionary"] == "dict.xx.txt"
        refused(where, "--tokenizer", "moses", mention="--source-lang")
        refused(where, "--source-lang", "yy", "--target-lang", "xx", mention="dict.yy.txt")


@test
def omegaconf_settings_are_read_without_omegaconf():
    def node(value):
        return files.Named("omegaconf.nodes.AnyNode", {"_metadata": None, "_val": value})

    def tree(mapping):
        return files.Named("omegaconf.dictconfig.DictConfig", {
            "_metadata": files.Named("omegaconf.base.ContainerMetadata", {"key_type": None}),
            "_content": {k: tree(v) if isinstance(v, dict) else node(v)
                         for k, v in mapping.items()}})
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        activation = files.Named("fairseq.dataclass.constants.Choices", None, ("gelu",))
        model = {**LM, "activation_fn": activation,
                 "max_target_positions": "${task.max_target_positions}"}
        cfg = tree({"model": model, "task": {"_name": "language_modeling",
                                             "max_target_positions": 17}})
        files.write_zip(where + "/model.pt", {"args": None, "cfg": cfg, "model": language_model()})
        status, said, out = convert(where)
        assert status == 0, status
        config = read_json(out)
        assert config["activation_function"] == "gelu" and config["max_position_embeddings"] == 17


@test
def nested_settings_of_an_encoder_decoder_are_read():
    with place() as where:
        write_pair(where)
        weights = encoder_decoder()
        model = {"_name": "transformer", "max_source_positions": 33, "max_target_positions": 44,
                 "encoder": {"attention_heads": 4, "layerdrop": 0.1, "layers_to_keep": None},
                 "decoder": {"attention_heads": 3, "embed_dim": 12, "layerdrop": 0.3,
                             "output_dim": "${model.decoder.embed_dim}"},
                 "quant_noise": {"pq": 0.0}}
        save(where, weights, model, task={"_name": "translation", "source_lang": "xx",
                                          "target_lang": "yy"})
        status, said, out = convert(where)
        assert status == 0, status
        config = read_json(out)
        for side, heads, drop, most in (("encoder", 4, 0.1, 33), ("decoder", 3, 0.3, 44)):
            assert config[side]["num_attention_heads"] == heads
            assert config[side]["layerdrop"] == drop
            assert config[side]["max_position_embeddings"] == most


@test
def a_pruned_checkpoint_is_converted_as_it_is_and_says_so():
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, language_model(layers=3), {**LM, "decoder_layers_to_keep": "0,2,5",
                                               "decoder_layerdrop": 0.3})
        status, said, out = convert(where)
        assert status == 0, status
        assert "already pruned" in said and "0, 2, 5" in said
        config = read_json(out)
        assert config["num_hidden_layers"] == 3 and config["layers_kept"] == [0, 2, 5]
        with open(out + "/README.md", encoding="utf-8") as file:
            card = file.read()
        assert "LayerDrop 0.3" in card and "p* = 1 - r/3" in card and "already pruned" in card


@test
def views_into_one_storage_are_read_in_place():
    with place() as where:
        tensors = language_model()
        flat = np.arange(200, dtype=np.float32)
        tensors["decoder.layers.0.fc1.weight"] = flat[7:7 + FFN * D].reshape(FFN, D)
        tensors["decoder.layers.0.fc2.weight"] = flat[90:90 + FFN * D].reshape(FFN, D).T
        wanted = {n: np.array(v) for n, v in tensors.items()}
        files.write_dictionary(where + "/dict.txt", WORDS)
        for legacy in (False, True):
            save(where, tensors, LM, legacy=legacy)
            status, said, out = convert(where)
            assert status == 0, status
            found = read_safetensors(out)
            for part in ("fc1", "fc2"):
                name = f"decoder.layers.0.{part}.weight"
                assert np.array_equal(found[name][1], wanted[name]), name


# ---- texts ----

@test
def gpt2_files_are_taken_along_and_their_absence_is_said():
    with place() as where:
        save(where, roberta(), {"arch": "roberta", "encoder_attention_heads": 2}, as_args=True)
        files.write_dictionary(where + "/dict.txt", WORDS, "")  # numbers: GPT-2's ids
        status, said, out = convert(where)
        assert status == 0 and "pretokenised text only" in said, (status, said)
        tokenizer = read_json(out, "fathom_tokenizer.json")
        assert tokenizer["bpe"] == "gpt2" and "encoder" not in tokenizer
        os.mkdir(where + "/gpt2")
        refused(where, "--gpt2-bpe", where + "/gpt2", mention="no encoder.json")
        with open(where + "/gpt2/encoder.json", "w", encoding="utf-8") as file:
            json.dump({"a": 0, "b": 1}, file)
        with open(where + "/gpt2/vocab.bpe", "w", encoding="utf-8") as file:
            file.write("#version: 0.2\na b\n")
        status, said, out = convert(where, "--gpt2-bpe", where + "/gpt2")
        assert status == 0 and "pretokenised" not in said, (status, said)
        assert read_json(out, "fathom_tokenizer.json")["encoder"] == "encoder.json"
        assert os.path.exists(out + "/vocab.bpe")
        with open(where + "/gpt2/vocab.bpe", "w", encoding="utf-8") as file:
            file.write("#version: 0.2\na b c\n")
        refused(where, "--gpt2-bpe", where + "/gpt2", mention="vocab.bpe")


@test
def bpe_codes_of_both_kinds_are_taken_along():
    with place() as where:
        write_pair(where)
        save(where, encoder_decoder(), {**SEQ, "bpe": "fastbpe", "tokenizer": "moses"},
             as_args=True)
        status, said, out = convert(where)
        assert status == 0 and "pretokenised text only" in said, (status, said)
        assert read_json(out, "fathom_tokenizer.json")["tokenizer"] == "moses"
        for text, wanted in (("e n</w> 123\na b 5\n", "#version: 0.2\ne n</w>\na b\n"),
                             ("#version: 0.2\ni n\n", "#version: 0.2\ni n\n")):
            with open(where + "/bpecodes", "w", encoding="utf-8") as file:
                file.write(text)
            status, said, out = convert(where)
            assert status == 0, status
            with open(out + "/bpe.codes", encoding="utf-8") as file:
                assert file.read() == wanted
        with open(where + "/bpecodes", "w", encoding="utf-8") as file:
            file.write("#version: 0.2\nonly\n")
        refused(where, mention="bpecodes: line 2")


@test
def dictionaries_that_do_not_fit_are_refused():
    with place() as where:
        save(where, language_model(), LM)
        refused(where, mention="no dict.txt")
        for text, mention in ((b"a 1\n", "1 words"),
                              (b"a 1\na 2\n", "a second time"), (b"a\n", "line 1"),
                              (b"a b\n", "line 1"), (b"\xff 1\n", "not UTF-8"), (b"", "0 words")):
            with open(where + "/dict.txt", "wb") as file:
                file.write(text)
            refused(where, mention=mention)


@test
def archives_are_read_as_downloaded_and_nothing_leaves_their_folder():
    with place() as where:
        inside = where + "/inside"
        os.mkdir(inside)
        files.write_dictionary(inside + "/dict.txt", WORDS)
        save(inside, language_model(), LM)
        os.symlink("/etc/hostname", inside + "/code")
        with tarfile.open(where + "/release.tar.gz", "w:gz") as tar:
            tar.add(inside + "/model.pt", "release/model.pt")
            tar.add(inside + "/dict.txt", "../../dict.txt")
            tar.add(inside + "/code", "release/code")
        shutil.rmtree(inside)
        status, said, out = convert(where, checkpoint="release.tar.gz")
        assert status == 0, status
        assert sorted(os.listdir(where)) == ["out", "release.tar.gz"], os.listdir(where)
        assert read_json(out, "fathom_tokenizer.json")["bpe"] == "none"
        with open(where + "/release.tar.gz", "rb") as file:
            data = file.read()
        with open(where + "/release.tar.gz", "wb") as file:
            file.write(data[:len(data) // 2])
        refused(where, checkpoint="release.tar.gz")


# ---- Hugging Face folders ----

@test
def a_hugging_face_bin_becomes_safetensors_with_tied_tensors_once():
    with place() as where:
        source = where + "/hf"
        os.mkdir(source)
        shared = np.arange(12, dtype=np.float32).reshape(4, 3)
        state = {"model.shared.weight": shared, "lm_head.weight": shared,
                 "model.fc.weight": shared.T, "position_ids": np.arange(5)}
        files.write_zip(source + "/pytorch_model.bin", state)
        for name in ("config.json", "vocab.json", "tf_model.h5", ".hidden"):
            with open(f"{source}/{name}", "w", encoding="utf-8") as file:
                file.write("{}")
        status, said, out = convert_folder(where, source)
        assert status == 0, status
        assert sorted(os.listdir(out)) == ["config.json", "model.safetensors", "vocab.json"]
        found = read_safetensors(out)
        assert sorted(found) == ["model.fc.weight", "model.shared.weight"], sorted(found)
        assert np.array_equal(found["model.fc.weight"][1], shared.T)


@test
def shards_are_joined_and_what_is_no_checkpoint_is_refused():
    with place() as where:
        source = where + "/hf"
        os.mkdir(source)
        status, _, out = convert_folder(where, source)
        assert "config.json" in status
        with open(source + "/config.json", "w", encoding="utf-8") as file:
            file.write("{}")
        status, _, out = convert_folder(where, source)
        assert "no pytorch_model.bin" in status
        a, b = np.ones((2, 2), np.float16), np.zeros(3, np.float16)
        files.write_zip(source + "/pytorch_model-00001-of-00002.bin", {"a": a})
        files.write_legacy(source + "/pytorch_model-00002-of-00002.bin", {"b": b})
        index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin",
                                "b": "pytorch_model-00002-of-00002.bin"}}
        with open(source + "/pytorch_model.bin.index.json", "w", encoding="utf-8") as file:
            json.dump(index, file)
        status, said, out = convert_folder(where, source)
        assert status == 0, status
        expect_equal(out, {"a": a, "b": b}, "F16")
        for text in ('{"weight_map": {"a": "../model.bin"}}', "[]", "{", '{"weight_map": 3}'):
            with open(source + "/pytorch_model.bin.index.json", "w", encoding="utf-8") as file:
                file.write(text)
            status, _, out = convert_folder(where, source)
            assert isinstance(status, str) and "index" in status and "\n" not in status, status
        os.remove(source + "/pytorch_model.bin.index.json")
        for name, data in hostile(where):
            files.write_raw(source + "/pytorch_model.bin", data)
            status, _, out = convert_folder(where, source)
            assert isinstance(status, str) and "\n" not in status and not os.path.exists(out)
            assert not os.path.exists(where + "/ran"), name


# ---- fairseq's own checkpoints ----

@test
def the_fixtures_are_converted_and_agree_with_fairseq():
    if not os.path.isdir(FIXTURES):
        return "SKIP ../shared/fixtures is not there"
    try:
        import torch
        import reference_fairseq
    except ImportError:
        return "SKIP PyTorch is not installed"
    torch.set_num_threads(1)
    with place() as where:
        for name, count in (("lm16-wikitext2", 933248), ("roberta12-sst2", 1449555)):
            out = f"{where}/{name}"
            status, said = call(convert_fairseq, f"{FIXTURES}/{name}/checkpoint.pt", "--out", out)
            assert status == 0 and f" {count} parameters" in said, (status, said)
            model, expected = reference_fairseq.load(out), read_json(f"{FIXTURES}/{name}",
                                                                     "expected.json")
            for case in expected["cases"][:2]:
                keep = case.get("encoder_layers_to_keep") or case.get("decoder_layers_to_keep")
                plan = ([int(i) for i in keep.split(",")] if keep
                        else list(range(reference_fairseq.layers_of(model))))
                for text in (case.get("sequences") or case["outputs"])[:2]:
                    found = reference_fairseq.differences(model, text, plan)
                    assert max(found.values()) < 2e-4, (name, keep, found)
        out = where + "/mt"
        status, said = call(convert_fairseq, f"{FIXTURES}/mt12x6-multi30k/checkpoint.pt", "--out",
                            out, "--source-lang", "en", "--target-lang", "de")
        assert status == 0 and " 1260160 parameters" in said, (status, said)
    return None


if __name__ == "__main__":
    main()
