#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/convert_fairseq.py: options it refuses, and damaged and hostile files. Prints TAP."""
import os
import pickle
import zipfile

from convert_rig import (D, LM, SEQ, WORDS, call, convert, convert_fairseq, encoder_decoder,
                         hostile, language_model, main, place, refused, roberta, save, test,
                         write_pair)
import numpy as np
import fairseq_files as files


# ---- what is refused ----

@test
def options_that_the_engine_cannot_honour_are_refused_by_name():
    cases = [("character_embeddings", True), ("scale_heads", True), ("scale_attn", True),
             ("scale_fc", True), ("scale_resids", True), ("base_layers", 2),
             ("activation_fn", "swish"), ("activation_fn", "linear"),
             ("decoder_xformers_att_config", "{}x"), ("decoder_attention_heads", 3),
             ("adaptive_softmax_cutoff", "20,10")]
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        for name, value in cases:
            save(where, language_model(), {**LM, name: value})
            refused(where, mention=name)
        for arch in ("lightconv_iwslt_de_en", "transformer_ulm", "wav2vec2", "fconv", 7):
            save(where, language_model(), {**LM, "_name": arch})
            refused(where, mention=str(arch) if isinstance(arch, str) else "architecture")
    with place() as where:
        write_pair(where)
        for name, value in (("adaptive_input", True), ("no_cross_attention", True),
                            ("cross_self_attention", True), ("adaptive_softmax_cutoff", "5"),
                            ("layer_wise_attention", True), ("encoder_langtok", "src")):
            save(where, encoder_decoder(), {**SEQ, name: value}, as_args=True)
            refused(where, mention=name)
        for arch in ("mbart_large", "transformer_unidirectional_iwslt_de_en",
                     "transformer_monotonic"):
            save(where, encoder_decoder(), {**SEQ, "arch": arch}, as_args=True)
            refused(where, mention=arch)


@test
def tensors_of_unsupported_options_are_refused_by_the_option():
    extra = {"decoder.layers.0.w_resid": "scale_resids", "decoder.layers.0.c_attn": "scale_heads",
             "decoder.layers.0.attn_ln.weight": "scale_attn",
             "decoder.layers.0.ffn_layernorm.weight": "scale_fc",
             "decoder.project_in_dim.weight": "decoder_input_dim",
             "decoder.quant_noise.weight": "quant_noise_pq",
             "decoder.layers.0.fc1.centroids": "product quantisation",
             "decoder.something_new.weight": "decoder.something_new.weight"}
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        for name, mention in extra.items():
            tensors = language_model()
            tensors[name] = np.zeros((D, D), np.float32)
            save(where, tensors, LM)
            refused(where, mention=mention)
        for name in ("decoder.layers.1.fc1.weight", "decoder.embed_tokens.weight",
                     "decoder.layers.0.self_attn.q_proj.bias"):
            tensors = language_model()
            del tensors[name]
            save(where, tensors, LM)
            refused(where)
        tensors = language_model()
        tensors["decoder.output_projection.weight"] = \
            tensors["decoder.output_projection.weight"] + 1
        save(where, tensors, LM)
        refused(where, mention="differs from")
        tensors = language_model()
        tensors["decoder.layers.1.fc2.bias"] = np.zeros(D + 1, np.float32)
        save(where, tensors, LM)
        refused(where, mention="shape")


@test
def a_head_of_one_class_is_refused():
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, roberta([("score", 1)]), {"arch": "roberta", "encoder_attention_heads": 2},
             as_args=True)
        refused(where, mention="regression")


@test
def hostile_pickles_are_refused_in_one_sentence_and_run_nothing():
    with place() as where:
        for name, data in hostile(where):
            files.write_raw(where + "/model.pt", data)
            sentence = refused(where)
            if "." in name:
                assert name in sentence, (name, sentence)
            with open(where + "/model.pt", "wb") as file:
                file.write(data if data[:1] == b"\x80" else b"\x80\x02" + data)
            refused(where)
            assert os.listdir(where) == ["model.pt"], (name, os.listdir(where))


@test
def odd_pickles_end_in_one_sentence():
    odd = [b"", b".", b"\x80\x02.", b"\x80\x02}.", b"\x80\x02(((((.", b"\x80\x02N\x85R.",
           b"\x80\x02]q\xff\xff.", b"\x80\x02h\x07.", b"\x80\x02X\xff\xff\xff\x7fab.",
           b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.", b"\x80\x02" + b"(" * 100000 + b".",
           b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", b"\x80\x02N" + b"\x85" * 100000 + b".",
           b"\x80\x02}N" + b"\x85" * 200000 + b"Ns.", b"\x80\x02(K\x01Q.", b"garbage",
           b"PK\x03\x04",
           pickle.dumps({"model": {}, "args": None}), pickle.dumps({"model": {"x": 1}}, 2),
           pickle.dumps([1, 2], 2), pickle.dumps({"model": None}, 4)]
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        for data in odd:
            files.write_raw(where + "/model.pt", data)
            refused(where)
            with open(where + "/model.pt", "wb") as file:
                file.write(data)
            refused(where)
        for settings in ({}, {"model": []}, {"model": {"_name": {}}}, {"model": LM, "task": 3},
                         [1], "x", {"model": {**LM, "decoder_attention_heads": "2"}},
                         {"model": {**LM, "decoder_layers_to_keep": "a,b"}},
                         {"model": {**LM, "max_target_positions": "x"}}):
            files.write_zip(where + "/model.pt", {"cfg": settings, "model": language_model()})
            status, said, out = convert(where)
            assert status == 0 or "\n" not in status, status


@test
def truncated_and_damaged_files_end_in_one_sentence():
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        for legacy in (False, True):
            save(where, language_model(), LM, legacy=legacy)
            with open(where + "/model.pt", "rb") as file:
                data = file.read()
            for end in [*range(0, 200, 7), *range(200, len(data) - 1, len(data) // 60)]:
                with open(where + "/model.pt", "wb") as file:
                    file.write(data[:end])
                refused(where)
            rng = np.random.default_rng(1)
            for _ in range(150):  # a changed byte may go unseen, but never ends in a fault
                damaged = bytearray(data)
                damaged[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
                with open(where + "/model.pt", "wb") as file:
                    file.write(damaged)
                status, said, out = convert(where)
                assert status == 0 or isinstance(status, str) and "\n" not in status, status


@test
def tensors_beyond_their_storage_are_refused():
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        held = files.Storage("0", np.zeros(4, np.float32))
        for offset, shape, strides in ((0, (3, 2), (2, 1)), (0, (2,), (100,)), (3, (2,), (1,)),
                                       (0, (10 ** 9, 10 ** 9), (0, 0)), (-1, (2,), (1,)),
                                       (0, (2, 2), (1,)), (0, (-2,), (1,))):
            tensor = files.Call("torch._utils._rebuild_tensor_v2", held, offset, shape, strides,
                                False, None)
            files.write_raw(where + "/model.pt", files.dump(
                {"model": {"decoder.x": tensor}, "cfg": {"model": LM}})[0])
            with zipfile.ZipFile(where + "/model.pt", "a") as archive:
                archive.writestr("archive/data/0", held.array.tobytes())
            sentence = refused(where)
            assert "beyond its storage" in sentence or "impossible shape" in sentence, sentence


@test
def a_folder_that_is_there_is_left_alone():
    with place() as where:
        files.write_dictionary(where + "/dict.txt", WORDS)
        save(where, language_model(), LM)
        os.mkdir(where + "/taken")
        with open(where + "/taken/file", "w", encoding="utf-8") as file:
            file.write("mine")
        status, said = call(convert_fairseq, where + "/model.pt", "--out", where + "/taken")
        assert "exists already" in status and os.listdir(where + "/taken") == ["file"]


if __name__ == "__main__":
    main()
