#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a model folder of a fairseq checkpoint: transformer_lm*, roberta*, transformer*, bart*.

    tools/convert_fairseq.py checkpoint_best.pt --data data-bin/wikitext-103 --out wiki103
    tools/convert_fairseq.py layerdrop_wmt_en_de_12_6.tar.gz --tokenizer moses --out wmt
    tools/convert_fairseq.py model.pt --gpt2-bpe gpt2 --out roberta

CHECKPOINT is a .pt file, a folder with one, or a release archive (.tar.gz, .tar.bz2) as
downloaded. --data (default: where the checkpoint is) is a folder with dict.txt, or dict.SRC.txt and
dict.TGT.txt, and for classifiers label.dict.txt; BPE codes, or GPT-2's encoder.json and vocab.bpe,
are taken from there too. Nothing in the checkpoint is run. What the engine cannot honour is refused
by the name of its option.
"""
import argparse
import json
import os
import shutil
import sys
import tarfile
import tempfile

if __name__ == "__main__":
    import packages
    packages.need("numpy")

import fairseq_card
import fairseq_options
import fairseq_tensors
import fairseq_text
import folder
import unpickle
from fairseq_tensors import (Product, Transposed, drop_tied, linear_shapes, norm_shapes, shape_of,
                             stack_shapes)
from unpickle import Refused

CHECKPOINTS = ("model.pt", "checkpoint_best.pt", "checkpoint.pt", "checkpoint_last.pt")
OFFSET = 2  # the row of the first token's position: fairseq's padding index and one
LONGEST = 100000


class Converted:
    """What one family makes of a checkpoint: config.json, the tensors, and how texts become ids."""

    def __init__(self, config, tensors, words):
        self.config, self.tensors, self.words, self.notes = config, tensors, words, []
        self.bos = self.eos = False
        self.target, self.languages, self.extra = None, None, []
        self.start = self.pair = None


def positions(options, tensors, side, name):
    """(kind, most tokens of a text): a learned table's rows, else what the options say."""
    if fairseq_options.is_set(options["no_token_positional_embeddings"]):
        kind = "none"
    else:
        kind = "learned" if options[f"{side}_learned_pos"] else "sinusoidal"
    most = options.get(name)
    if most is None:
        most = options.get("tokens_per_sample") or 1024
    if not isinstance(most, (int, float)) or not 1 <= most:
        raise Refused(f"the option {name} ({most}) is no length")
    most = min(int(most), LONGEST)
    if kind != "learned":
        return kind, most
    rows = shape_of(tensors, f"{side}.embed_positions.weight", 2)[0]
    if rows <= OFFSET:
        raise Refused(f"the tensor {side}.embed_positions.weight has only {rows} rows")
    return kind, rows - OFFSET


def stack_of(options, tensors, side, most_name, notes):
    """A stack's part of config.json."""
    layers = fairseq_tensors.layer_count(tensors, side)
    ffn, d = shape_of(tensors, f"{side}.layers.0.fc1.weight", 2)
    heads = options.get(f"{side}_attention_heads")
    if not isinstance(heads, int) or heads < 1 or d % heads:
        raise Refused(f"the option {side}_attention_heads ({heads}) does not divide {d}")
    pre = bool(options[f"{side}_normalize_before"])
    final = pre and not (side == "decoder" and options["no_decoder_final_norm"])
    if final and f"{side}.layer_norm.weight" not in tensors:
        final = False  # before version 3 there was none
        notes.append(f"the {side} has no norm after its last layer: an old version of fairseq's")
    kind, most = positions(options, tensors, side, most_name)
    stack = {
        "num_hidden_layers": layers, "hidden_size": d, "num_attention_heads": heads,
        "intermediate_size": ffn, "norm": "pre" if pre else "post", "final_norm": final,
        "embedding_norm": bool(options["layernorm_embedding"]),
        "activation_function": fairseq_options.ACTIVATIONS[options["activation_fn"]],
        "layer_norm_eps": 1e-5, "positions": kind, "position_offset": OFFSET,
        "max_position_embeddings": most,
        "embed_scale": 1.0 if options["no_scale_embedding"] else d ** 0.5,
        "layerdrop": fairseq_options.number(options[f"{side}_layerdrop"]) or 0.0}
    pruned(options, side, layers, stack, notes)
    return stack


def pruned(options, side, layers, stack, notes):
    """Say which layers a pruned checkpoint has left."""
    keep, named = fairseq_options.kept(options, side), options.get(f"{side}_layers")
    if keep is not None and len(keep) == layers:
        stack["layers_kept"] = keep
        notes.append(f"the checkpoint was already pruned: its {layers} {side} layers were "
                     f"{', '.join(map(str, keep))} of the trained model")
    elif keep is not None or isinstance(named, int) and named != layers:
        notes.append(f"the options name {named if keep is None else len(keep)} {side} layers, the "
                     f"checkpoint has {layers}: what is there was converted")


def band_ends(options, name, vocab):
    """Where the bands of the vocabulary end; the last with it."""
    ends = fairseq_options.cutoffs(options, name)
    if ends[-1] > vocab:
        raise Refused(f"the option {name} ({options[name]}) is beyond the vocabulary's {vocab}")
    return ends if ends[-1] == vocab else ends + [vocab]


def band_width(options, name, d, band):
    factor = fairseq_options.number(options[name])
    if factor is None or factor < 1 or d // factor ** band < 1:
        raise Refused(f"the option {name} ({options[name]}) leaves band {band} no width")
    return int(d // factor ** band)


def adaptive_input(options, stack, vocab):
    """(config, shapes) of an embedding in bands."""
    ends = band_ends(options, "adaptive_input_cutoff", vocab)
    factor, d, shapes, begin = options["adaptive_input_factor"], stack["hidden_size"], {}, 0
    for band, end in enumerate(ends):
        dim = band_width(options, "adaptive_input_factor", d, band)
        shapes[f"decoder.embed_tokens.embeddings.{band}.0.weight"] = (end - begin, dim)
        shapes[f"decoder.embed_tokens.embeddings.{band}.1.weight"] = (d, dim)
        begin = end
    return {"cutoffs": ends[:-1], "factor": factor}, shapes


def adaptive_softmax(options, tensors, stack, vocab):
    """(config, shapes) of an output in bands; tied duplicates are dropped from the tensors."""
    ends = band_ends(options, "adaptive_softmax_cutoff", vocab)
    at, d = "decoder.adaptive_softmax.", stack["hidden_size"]
    tied = bool(options["tie_adaptive_weights"])
    tied_projections = tied and bool(options["tie_adaptive_proj"])
    head = tensors.pop(at + "head.weight", None)
    if head is not None and not tied:  # words and classes are one matrix where nothing is tied
        tensors[at + "head.word_proj.weight"] = fairseq_tensors.Rows(head, 0, ends[0])
        tensors[at + "head.class_proj.weight"] = fairseq_tensors.Rows(head, ends[0], head.shape[0])
    shapes = {at + "head.class_proj.weight": (len(ends) - 1, d)}
    if tied:
        drop_tied(tensors, at + "head.word_proj.weight",
                  "decoder.embed_tokens.embeddings.0.0.weight")
    else:
        shapes[at + "head.word_proj.weight"] = (ends[0], d)
    for i, (begin, end) in enumerate(zip(ends, ends[1:])):
        dim = band_width(options, "adaptive_softmax_factor", d, i + 1)
        source = f"decoder.embed_tokens.embeddings.{i + 1}."
        if tied_projections:
            drop_tied(tensors, f"{at}tail.{i}.0.weight", source + "1.weight")
        else:
            shapes[f"{at}tail.{i}.0.weight"] = (dim, d)
        if tied:
            drop_tied(tensors, f"{at}tail.{i}.2.weight", source + "0.weight")
        else:
            shapes[f"{at}tail.{i}.2.weight"] = (end - begin, dim)
    return {"cutoffs": ends[:-1], "factor": options["adaptive_softmax_factor"],
            "tie_weights": tied, "tie_projections": tied_projections}, shapes


def language_model(options, tensors, where):
    words = fairseq_text.dictionary(where, ["dict.txt"])
    notes, embed = [], "decoder.embed_tokens.weight"
    stack = stack_of(options, tensors, "decoder", "max_target_positions", notes)
    d, vocab = stack["hidden_size"], len(words)
    shapes = stack_shapes("decoder", stack)
    adaptive = fairseq_options.is_set(options["adaptive_input"])
    if adaptive:
        rows = sum(shape_of(tensors, name, 2)[0] for name in tensors
                   if name.startswith("decoder.embed_tokens.embeddings.")
                   and name.endswith(".0.weight"))
    else:
        fold_projections(options, tensors, embed, d, notes)
        rows = shape_of(tensors, embed, 2)[0]
        shapes[embed] = (rows, d)
    extra = fairseq_text.extra_symbols(words, rows, "decoder's")
    vocab = rows
    config = {"model_type": "fathom_lm", "vocab_size": vocab, **stack}
    if adaptive:
        for name in ("decoder_input_dim", "decoder_output_dim"):
            if isinstance(options.get(name), int) and options[name] != d:
                raise Refused(f"the option {name} ({options[name]}) must be the width, {d}")
        config["adaptive_input"], more = adaptive_input(options, stack, vocab)
        shapes.update(more)
    tied = bool(options["share_decoder_input_output_embed"])
    if fairseq_options.is_set(options["adaptive_softmax_cutoff"]):
        check_tied_bands(options)
        config["adaptive_softmax"], more = adaptive_softmax(options, tensors, stack, vocab)
        shapes.update(more)
        tied = config["adaptive_softmax"]["tie_weights"]
    elif tied:
        if adaptive:
            raise Refused("share_decoder_input_output_embed with adaptive_input is not supported")
        drop_tied(tensors, "decoder.output_projection.weight", embed)
    else:
        shapes["decoder.output_projection.weight"] = (vocab, d)
    start = "<s>" if options["add_bos_token"] else "</s>"
    config.update({"tie_word_embeddings": tied, "bos_token_id": words.ids[start],
                   "eos_token_id": 2, "pad_token_id": 1})
    fairseq_tensors.check(tensors, shapes)
    result = Converted(config, tensors, words)
    result.start, result.extra, result.notes = start, extra, notes
    return result


def fold_projections(options, tensors, embed, d, notes):
    """fairseq may embed in another width than the layers' (decoder_input_dim) and read the words
    from a third (decoder_output_dim), by a linear map each: it becomes part of the matrix."""
    output, names = "decoder.output_projection.weight", []
    into, out = "decoder.project_in_dim.weight", "decoder.project_out_dim.weight"
    words, last = tensors.get(embed), None
    if fairseq_options.is_set(options["adaptive_softmax_cutoff"]):
        pass  # the words are read in bands
    elif options["share_decoder_input_output_embed"]:
        drop_tied(tensors, output, embed)
        last = words
    else:
        last = tensors.get(output)
    if into in tensors and words is not None:
        inner = shape_of(tensors, embed, 2)[1]
        if inner != d and tuple(tensors[into].shape) == (d, inner):
            tensors[embed] = Product(words, Transposed(tensors.pop(into)))
            names.append("decoder_input_dim")
    if out in tensors and last is not None:
        inner = last.shape[-1]
        if inner != d and tuple(tensors[out].shape) == (inner, d):
            tensors[output] = Product(last, tensors.pop(out))
            names.append("decoder_output_dim")
    if not names:
        return
    options["share_decoder_input_output_embed"] = False
    if last is not None:
        tensors.setdefault(output, last)
    notes.append(f"the projections of {' and '.join(names)} were multiplied into the embedding and "
                 "the output, so that there are more parameters, in float32")


def check_tied_bands(options):
    """Tied bands must be the same bands."""
    if not options["tie_adaptive_weights"]:
        return
    if not fairseq_options.is_set(options["adaptive_input"]):
        raise Refused("the option tie_adaptive_weights needs adaptive_input")
    if (fairseq_options.cutoffs(options, "adaptive_input_cutoff")
            != fairseq_options.cutoffs(options, "adaptive_softmax_cutoff")
            or options["adaptive_input_factor"] != options["adaptive_softmax_factor"]):
        raise Refused("the option tie_adaptive_weights needs equal bands of input and softmax")


def heads_of(options, tensors, d, notes, args, where):
    """(classification_heads of config.json, shapes)."""
    names = sorted({name.split(".")[1] for name in tensors
                    if name.startswith("classification_heads.")})
    own, heads, shapes = options.get("classification_head_name"), [], {}
    given = dict(part.split("=", 1) for part in args.labels if "=" in part)
    for name in names:
        at = f"classification_heads.{name}."
        inner = shape_of(tensors, at + "dense.weight", 2)[0]
        if at + "out_proj.weight_orig" in tensors:
            raise Refused("the option spectral_norm_classification_head is not supported")
        classes = shape_of(tensors, at + "out_proj.weight", 2)[0]
        if classes < 2:
            raise Refused(f"the head {name} has one class: a regression is not supported")
        if inner != d:
            raise Refused(f"the head {name} has the inner width {inner}; {d} is called for")
        shapes.update(linear_shapes(at + "dense", d, d))
        shapes.update(linear_shapes(at + "out_proj", classes, d))
        heads.append({"name": name, "activation": head_activation(options),
                      "labels": labels_of(name, classes, given, len(names) == 1 or name == own,
                                          where, notes)})
    for name in sorted(set(given) - set(names)):
        raise Refused(f"the checkpoint has no classification head {name}")
    return heads, shapes


def head_activation(options):
    name = options["pooler_activation_fn"]
    if name not in fairseq_options.HEAD_ACTIVATIONS:
        raise Refused(f"the option pooler_activation_fn ({name}) is not supported")
    return fairseq_options.HEAD_ACTIVATIONS[name]


def labels_of(name, classes, given, has_file, where, notes):
    if name in given:
        labels = given[name].split(",")
    else:
        labels = fairseq_text.labels(where, classes) if has_file else None
    if labels is None:
        labels = [f"LABEL_{i}" for i in range(classes)]
        notes.append(f"no label.dict.txt names the {classes} classes of {name}: they are called "
                     f"{labels[0]} to {labels[-1]} (--labels {name}=FIRST,SECOND,... names them)")
    if len(labels) != classes or len(set(labels)) != classes:
        raise Refused(f"the head {name} has {classes} classes, not {len(labels)} labels")
    return labels


def encoder(options, tensors, where, args):
    words = fairseq_text.dictionary(where, ["dict.txt"])
    notes, embed = [], "encoder.embed_tokens.weight"
    stack = stack_of(options, tensors, "encoder", "max_source_positions", notes)
    d, rows = stack["hidden_size"], shape_of(tensors, embed, 2)[0]
    extra = fairseq_text.extra_symbols(words, rows, "encoder's")
    shapes = {**stack_shapes("encoder", stack), embed: (rows, d)}
    has_head, tied = "encoder.lm_head.dense.weight" in tensors, True
    if has_head:
        tied = not options["untie_weights_roberta"]
        shapes.update({**linear_shapes("encoder.lm_head.dense", d, d),
                       **norm_shapes("encoder.lm_head.layer_norm", d),
                       "encoder.lm_head.bias": (rows,)})
        if tied:
            drop_tied(tensors, "encoder.lm_head.weight", embed)
        else:
            shapes["encoder.lm_head.weight"] = (rows, d)
    heads, more = heads_of(options, tensors, d, notes, args, where)
    fairseq_tensors.check(tensors, {**shapes, **more})
    mask = words.ids.get("<mask>", len(words) if extra else -1)
    config = {"model_type": "fathom_encoder", "vocab_size": rows, "encoder": stack,
              "mlm_head": has_head and mask >= 0, "tie_word_embeddings": tied,
              "mlm_activation": stack["activation_function"], "classification_heads": heads,
              "fathom_pooling": "mean", "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    if mask >= 0:
        config["mask_token_id"] = mask
    result = Converted(config, tensors, words)
    result.extra, result.notes, result.eos = extra, notes, True
    result.bos, result.pair = around(options, words)
    return result


def around(options, words):
    """Whether a text starts with <s>, and what stands between two: </s></s>, unless the task that
    the classifier was trained with says otherwise."""
    task = options.get("task") in ("sentence_prediction", "sentence_ranking")
    init, separator = options.get("init_token", None), options.get("separator_token", None)
    if not task or "init_token" not in options and "separator_token" not in options:
        return True, ["</s>", "</s>"]
    if init not in (None, 0):
        raise Refused(f"the option init_token ({init}) is not supported")
    if separator is None:
        return init == 0, ["</s>"]
    if not isinstance(separator, int) or not 0 <= separator < len(words):
        raise Refused(f"the option separator_token ({separator}) is no symbol")
    return init == 0, ["</s>", words.symbols[separator]]


def encoder_decoder(options, tensors, where, arch):
    notes, source, target = [], "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    if any(name.startswith("classification_heads.") for name in tensors):
        raise Refused("the classification heads of an encoder-decoder are not supported")
    sides = {side: stack_of(options, tensors, side, f"max_{which}_positions", notes)
             for side, which in (("encoder", "source"), ("decoder", "target"))}
    shared = bool(options["share_all_embeddings"])
    if shared and source not in tensors:
        tensors[source] = tensors.get(target)
    if options["share_decoder_input_output_embed"] and target not in tensors:
        if "decoder.output_projection.weight" in tensors:
            tensors[target] = tensors["decoder.output_projection.weight"]
    fold_projections(options, tensors, target, sides["decoder"]["hidden_size"], notes)
    rows = [shape_of(tensors, source, 2)[0], shape_of(tensors, target, 2)[0]]
    first, second, languages = fairseq_text.dictionaries(where, options, rows)
    extra = [fairseq_text.extra_symbols(words, count, what + "'s")
             for words, count, what in ((first, rows[0], "encoder"), (second, rows[1], "decoder"))]
    shapes = {**stack_shapes("encoder", sides["encoder"]),
              **stack_shapes("decoder", sides["decoder"], sides["encoder"]["hidden_size"]),
              target: (rows[1], sides["decoder"]["hidden_size"])}
    if shared:
        drop_tied(tensors, source, target)
    else:
        shapes[source] = (rows[0], sides["encoder"]["hidden_size"])
    tied = bool(options["share_decoder_input_output_embed"])
    if tied:
        drop_tied(tensors, "decoder.output_projection.weight", target)
    else:
        shapes["decoder.output_projection.weight"] = (rows[1], sides["decoder"]["hidden_size"])
    fairseq_tensors.check(tensors, shapes)
    config = {"model_type": "fathom_seq2seq", "vocab_size": rows[1], "source_vocab_size": rows[0],
              **sides, "share_embeddings": shared, "tie_word_embeddings": tied, "bos_token_id": 0,
              "pad_token_id": 1, "eos_token_id": 2, "unk_token_id": 3, "decoder_start_token_id": 2}
    result = Converted(config, tensors, first)
    result.extra, result.notes, result.eos = extra[0], notes, True
    if extra[0] != extra[1]:
        raise Refused("only one of the dictionaries lacks the symbol <mask>")
    result.languages = languages
    result.target = second if second.symbols != first.symbols else None
    if arch.startswith("bart") and options.get("task") != "translation":
        config["forced_bos_token_id"], result.bos = 0, True  # as BART's hub interface does
    return result


def tokenizer(result, options, where, args):
    texts = fairseq_text.Texts(where, options, args)
    texts.add_dictionary("dictionary", result.words)
    if result.target is not None:
        texts.add_dictionary("target_dictionary", result.target)
    if result.extra:
        texts.entry["extra_symbols"] = result.extra
    texts.choose_bpe(result.words)
    languages = result.languages or (options.get("source_lang"), options.get("target_lang"))
    for key, language in zip(("source_lang", "target_lang"), languages):
        if language:
            texts.entry[key] = language
    texts.choose_tokenizer(result.words, result.config["model_type"] == "fathom_seq2seq")
    texts.entry.update({"bos": result.bos, "eos": result.eos})
    if result.start:
        texts.entry["start"] = result.start
    if result.pair:
        texts.entry["pair"] = result.pair
    return texts


def generation(config):
    """fairseq's defaults, where text is generated."""
    if config["model_type"] == "fathom_encoder":
        return None
    common = {"bos_token_id": config["bos_token_id"], "eos_token_id": 2, "pad_token_id": 1,
              "max_new_tokens": 200}
    if config["model_type"] == "fathom_lm":
        return common
    return {**common, "decoder_start_token_id": 2, "do_sample": False, "num_beams": 5,
            "length_penalty": 1.0}


def convert(path, where, args):
    """Read the checkpoint at path and the texts in `where`; write args.out."""
    state = unpickle.load(path)
    if not isinstance(state, dict):
        raise Refused("the file is no checkpoint of fairseq")
    raw = fairseq_tensors.model_tensors(state)
    options, arch, family = fairseq_options.read(state)
    for name in ("source_lang", "target_lang"):
        options[name] = getattr(args, name) or options.get(name)
    if args.max_positions:
        options["max_source_positions"] = options["max_target_positions"] = args.max_positions
    tensors = fairseq_tensors.modern(raw, family)
    if family == "lm":
        result = language_model(options, tensors, where)
    elif family == "encoder":
        result = encoder(options, tensors, where, args)
    else:
        result = encoder_decoder(options, tensors, where, arch)
    texts = tokenizer(result, options, where, args)
    dtype = args.dtype.upper() if args.dtype else fairseq_tensors.common_dtype(tensors)
    result.config["torch_dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    write(args.out, result, texts, dtype, arch, os.path.basename(args.checkpoint.rstrip("/")))
    count = sum(int(t.size) for t in map(Size, tensors.values()))
    print(f"{args.out}: {result.config['model_type']} from {arch}, {count} parameters, "
          f"{result.config['torch_dtype']}")
    for note in [*result.notes, *texts.notes]:
        print(f"note: {note}")


class Size:
    """The number of elements of a tensor."""

    def __init__(self, tensor):
        self.size = 1
        for n in tensor.shape:
            self.size *= n


def write(out, result, texts, dtype, arch, source):
    """Everything into a new folder beside, which becomes `out` when it is complete."""
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise Refused(f"{out} exists already")
    parent = os.path.dirname(os.path.abspath(out))
    os.makedirs(parent, exist_ok=True)
    work = tempfile.mkdtemp(prefix=".converting-", dir=parent)
    try:
        shapes = {name: tensor.shape for name, tensor in result.tensors.items()}
        folder.write_safetensors(os.path.join(work, "model.safetensors"), shapes, dtype,
                                 lambda name: result.tensors[name].array())
        folder.write_json(result.config, os.path.join(work, "config.json"))
        if generation(result.config):
            folder.write_json(generation(result.config),
                              os.path.join(work, "generation_config.json"))
        texts.write(work)
        with open(os.path.join(work, "README.md"), "w", encoding="utf-8") as file:
            file.write(fairseq_card.card(result, texts, arch, source, shapes, dtype))
        os.chmod(work, 0o755)
        if os.path.isdir(out):
            os.rmdir(out)
        os.rename(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def is_wanted(name):
    return (name.endswith(".pt") or name.startswith("dict.") and name.endswith(".txt")
            or name in ("label.dict.txt", "encoder.json", "vocab.bpe", *fairseq_text.CODES))


def extract(archive, into):
    """The plain files that matter, by their names alone: links and paths are ignored."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = os.path.basename(member.name)
                if not member.isfile() or not is_wanted(name):
                    continue
                with tar.extractfile(member) as source, \
                        open(os.path.join(into, name), "wb") as target:
                    shutil.copyfileobj(source, target)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else \
            "the archive is damaged or truncated"
        raise Refused(detail) from None


def choose(where):
    """The checkpoint in a folder."""
    found = fairseq_text.find_file(where, CHECKPOINTS)
    if found:
        return found
    names = sorted(name for name in os.listdir(where) if name.endswith(".pt"))
    if len(names) != 1:
        raise Refused(f"there are {len(names)} checkpoints ({', '.join(names)}): unpack them and "
                      "name one" if names else "there is no checkpoint (*.pt) in it")
    return os.path.join(where, names[0])


def run(args):
    if os.path.exists(args.out) and (not os.path.isdir(args.out) or os.listdir(args.out)):
        raise Refused(f"{args.out} exists already")
    path = args.checkpoint
    if os.path.isdir(path):
        return convert(choose(path), args.data or path, args)
    if not os.path.isfile(path):
        raise Refused("there is no such file")
    with open(path, "rb") as file:
        head = file.read(512)
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[257:262] == b"ustar":
        parent = os.path.dirname(os.path.abspath(args.out))
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".extracting-", dir=parent) as into:
            extract(path, into)
            return convert(choose(into), args.data or into, args)
    return convert(path, args.data or os.path.dirname(path) or ".", args)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("checkpoint")
    add("--out", required=True, help="the folder to make")
    add("--data", default="", help="folder with the dictionaries; default: the checkpoint's")
    add("--bpe-codes", default="", help="subword-nmt or fastBPE codes")
    add("--gpt2-bpe", default="", help="folder with GPT-2's encoder.json and vocab.bpe")
    add("--tokenizer", choices=["moses", "none"], help="default: as the checkpoint says, or none")
    add("--source-lang", default="")
    add("--target-lang", default="")
    add("--labels", action="append", default=[], metavar="HEAD=A,B,...",
        help="names of a classification head's classes, in the model's order")
    add("--max-positions", type=int, default=0,
        help="longest text, where positions are computed; default: as trained")
    add("--dtype", choices=["f32", "f16", "bf16"], help="default: the checkpoint's own")
    args = parser.parse_args()
    try:
        run(args)
    except (Refused, OSError) as error:
        detail = error if isinstance(error, Refused) else error.strerror or error
        sys.exit(f"{args.checkpoint}: {detail}")


if __name__ == "__main__":
    main()
