# SPDX-License-Identifier: Apache-2.0
"""What a fairseq checkpoint says about itself: its options, with fairseq's defaults where old
checkpoints lack newer ones, and the options that our engine cannot honour, refused by name."""
import re

import unpickle
from unpickle import Refused

# Each architecture: the one whose defaults it takes over, and its own.
ARCHITECTURES = {
    "transformer_lm": (None, {
        "decoder_embed_dim": 512, "decoder_ffn_embed_dim": 2048, "decoder_layers": 6,
        "decoder_attention_heads": 8, "decoder_normalize_before": True}),
    "transformer_lm_big": ("transformer_lm", {
        "decoder_layers": 12, "decoder_embed_dim": 1024, "decoder_ffn_embed_dim": 4096,
        "decoder_attention_heads": 16}),
    "transformer_lm_baevski_wiki103": ("transformer_lm_big", {
        "decoder_layers": 16, "decoder_attention_heads": 8, "adaptive_input": True,
        "tie_adaptive_weights": True, "tie_adaptive_proj": True, "no_decoder_final_norm": True,
        "adaptive_input_cutoff": "20000,60000", "adaptive_softmax_cutoff": "20000,60000"}),
    "transformer_lm_wiki103": ("transformer_lm_baevski_wiki103", {}),
    "transformer_lm_baevski_gbw": ("transformer_lm_big", {
        "decoder_embed_dim": 512, "no_decoder_final_norm": True}),
    "transformer_lm_gbw": ("transformer_lm_baevski_gbw", {}),
    "transformer_lm_gpt": ("transformer_lm", {
        "decoder_embed_dim": 768, "decoder_ffn_embed_dim": 3072, "decoder_layers": 12,
        "decoder_attention_heads": 12, "activation_fn": "gelu"}),
    "transformer_lm_gpt2_small": ("transformer_lm", {
        "decoder_layers": 24, "decoder_attention_heads": 16, "activation_fn": "gelu"}),
    "transformer_lm_gpt2_medium": ("transformer_lm", {
        "decoder_layers": 36, "decoder_attention_heads": 20, "activation_fn": "gelu"}),
    "transformer_lm_gpt2_big": ("transformer_lm", {
        "decoder_layers": 48, "decoder_attention_heads": 25, "activation_fn": "gelu"}),
    "transformer_lm_gpt2_big_wide": ("transformer_lm", {
        "decoder_layers": 24, "decoder_attention_heads": 32, "activation_fn": "gelu"}),
    "transformer_lm_gpt2_bigger": ("transformer_lm", {
        "decoder_layers": 48, "decoder_attention_heads": 32, "activation_fn": "gelu"}),
    "transformer_lm_gpt2_tiny": ("transformer_lm", {
        "decoder_layers": 2, "decoder_attention_heads": 1, "activation_fn": "gelu"}),
    "transformer_lm_gpt3": ("transformer_lm", {
        "decoder_learned_pos": True, "activation_fn": "gelu",
        "share_decoder_input_output_embed": True}),
    "transformer": (None, {"encoder_attention_heads": 8, "decoder_attention_heads": 8}),
    "transformer_tiny": ("transformer", {
        "encoder_attention_heads": 2, "decoder_attention_heads": 2}),
    "transformer_iwslt_de_en": ("transformer", {
        "encoder_attention_heads": 4, "decoder_attention_heads": 4}),
    "transformer_wmt_en_de": ("transformer", {}),
    "transformer_vaswani_wmt_en_de_big": ("transformer", {
        "encoder_attention_heads": 16, "decoder_attention_heads": 16}),
    "transformer_vaswani_wmt_en_fr_big": ("transformer_vaswani_wmt_en_de_big", {}),
    "transformer_wmt_en_de_big": ("transformer_vaswani_wmt_en_de_big", {}),
    "transformer_wmt_en_de_big_t2t": ("transformer_vaswani_wmt_en_de_big", {
        "encoder_normalize_before": True, "decoder_normalize_before": True}),
    "bart_large": (None, {
        "encoder_attention_heads": 16, "decoder_attention_heads": 16,
        "encoder_learned_pos": True, "decoder_learned_pos": True,
        "share_decoder_input_output_embed": True, "share_all_embeddings": True,
        "no_scale_embedding": True, "layernorm_embedding": True, "activation_fn": "gelu"}),
    "bart_base": ("bart_large", {"encoder_attention_heads": 12, "decoder_attention_heads": 12}),
    "roberta": (None, {
        "encoder_attention_heads": 12, "encoder_learned_pos": True, "layernorm_embedding": True,
        "no_scale_embedding": True, "activation_fn": "gelu", "pooler_activation_fn": "tanh"}),
    "roberta_base": ("roberta", {}),
    "roberta_prenorm": ("roberta", {"layernorm_embedding": False,
                                    "encoder_normalize_before": True}),
    "roberta_large": ("roberta", {"encoder_attention_heads": 16}),
    "xlm": ("roberta", {"encoder_attention_heads": 16}),
}
for _size, _heads in (("small", 12), ("medium", 16), ("large", 16), ("xl", 32), ("2_7", 32),
                      ("6_7", 32), ("13", 40), ("175", 96)):
    ARCHITECTURES[f"transformer_lm_gpt3_{_size}"] = ("transformer_lm_gpt3", {
        "decoder_attention_heads": _heads})

# What counts where neither the checkpoint nor its architecture says anything.
COMMON = {
    "activation_fn": "relu", "encoder_normalize_before": False, "decoder_normalize_before": False,
    "no_decoder_final_norm": False, "encoder_learned_pos": False, "decoder_learned_pos": False,
    "no_token_positional_embeddings": False, "layernorm_embedding": False,
    "no_scale_embedding": False, "share_all_embeddings": False,
    "share_decoder_input_output_embed": False, "untie_weights_roberta": False,
    "adaptive_input": False, "adaptive_input_factor": 4, "adaptive_input_cutoff": None,
    "adaptive_softmax_cutoff": None, "adaptive_softmax_factor": 4, "tie_adaptive_weights": False,
    "tie_adaptive_proj": False, "pooler_activation_fn": "tanh", "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0, "add_bos_token": False,
}

# True, a number or a text here changes what is computed in a way that the engine does not know.
REFUSED = ("character_embeddings", "char_inputs", "no_cross_attention", "cross_self_attention",
           "layer_wise_attention", "scale_fc", "scale_attn", "scale_heads", "scale_resids",
           "spectral_norm_classification_head", "encoder_xformers_att_config",
           "decoder_xformers_att_config", "base_layers", "moe_freq", "alibi", "use_alibi",
           "encoder_langtok", "decoder_langtok", "merge_src_tgt_embed", "regression_target")
PRUNED_INSIDE = ("mha_heads_to_keep", "ffn_blocks_to_remove")  # -1: not
REFUSED_TASKS = ("multilingual", "translation_multi_simple_epoch", "translation_from_pretrained",
                 "speech", "audio", "hubert", "simul", "semisupervised", "translation_moe",
                 "translation_lev", "online_backtranslation")
# Translators of the same tensors that attend in another way, and what is none.
OTHER_TRANSFORMERS = ("transformer_ulm", "transformer_from_pretrained", "transformer_monotonic",
                      "transformer_unidirectional", "transformer_modular")
HEAD_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_accurate": "gelu_tanh",
                    "gelu_fast": "gelu_tanh", "tanh": "tanh"}
ACTIVATIONS = {name: ours for name, ours in HEAD_ACTIVATIONS.items() if name != "tanh"}


def family_of(arch):
    """lm, encoder or seq2seq; other architectures are refused by name."""
    if arch.startswith("transformer_lm") and "megatron" not in arch:
        return "lm"
    if (arch.startswith(("roberta", "xlmr", "camembert", "gottbert")) or arch == "xlm") \
            and "enc_dec" not in arch:
        return "encoder"
    if arch.startswith("transformer") and not arch.startswith(OTHER_TRANSFORMERS):
        return "seq2seq"
    if arch.startswith("bart"):
        return "seq2seq"
    raise Refused(f"the architecture {arch} is not supported: transformer_lm*, roberta*, "
                  "transformer* and bart* are")


def resolve(value, root, depth=0):
    """omegaconf's ${a.b}, looked up in the whole configuration."""
    found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if not found or depth > 8:
        return value
    at = root
    for part in found.group(1).split("."):
        at = at.get(part) if isinstance(at, dict) else None
    return resolve(at, root, depth + 1)


def section(root, name):
    """One part of a configuration, flat: decoder: {layers} becomes decoder_layers."""
    part = root.get(name)
    if isinstance(part, str):
        part = {"_name": part}
    flat = {}
    for key, value in (part if isinstance(part, dict) else {}).items():
        if isinstance(value, dict) and key in ("encoder", "decoder", "quant_noise"):
            flat.update({f"{key}_{k}": resolve(v, root) for k, v in value.items()})
        else:
            flat[key] = resolve(value, root)
    return flat


def saved_options(state):
    """(options, architecture) of a loaded checkpoint."""
    if state.get("cfg") is not None:
        root = unpickle.plain(state["cfg"])
        if not isinstance(root, dict):
            raise Refused("the checkpoint's cfg is no configuration")
        model, task = section(root, "model"), section(root, "task")
        options = {**{k: v for k, v in task.items() if k != "_name"}, **model}
        for name in ("source_lang", "target_lang"):  # the model's own copy may be older
            options[name] = task.get(name) or options.get(name)
        options["task"] = task.get("_name") or options.get("task")
        for name in ("bpe", "tokenizer"):
            options[name] = section(root, name).get("_name") or (
                options.get(name) if isinstance(options.get(name), str) else None)
        return options, model.get("_name") or model.get("arch")
    if state.get("args") is not None:
        options = unpickle.plain(state["args"])
        if isinstance(options, dict):
            return options, options.get("arch")
    raise Refused("the checkpoint has neither cfg nor args: it does not say what model it is")


def defaults_of(arch):
    merged = {}
    while arch is not None:
        arch, own = ARCHITECTURES[arch]
        merged = {**own, **merged}
    return merged


def upgrade(options):
    """Options that have changed their names or their meaning."""
    if "no_tie_adaptive_proj" in options:  # before the final norm became an option
        options["no_decoder_final_norm"] = True
        if options["no_tie_adaptive_proj"] is False:
            options["tie_adaptive_proj"] = True
    if "decoder_final_norm" in options:
        options["no_decoder_final_norm"] = not options["decoder_final_norm"]
    for name in ("max_source_positions", "max_target_positions"):
        if options.get(name) is None and options.get("max_positions") is not None:
            options[name] = options["max_positions"]


def number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def is_set(value):
    return value not in (None, False, 0, 0.0, "", "0", "None", "False", [], {})


def refuse_unknown(options, family):
    for name in REFUSED:
        if is_set(options.get(name)):
            raise Refused(f"the option {name} ({options[name]}) is not supported")
    for name in PRUNED_INSIDE:
        if number(options.get(name, -1)) not in (None, -1.0):
            raise Refused(f"the option {name} ({options[name]}) is not supported")
    if family != "lm":
        for name in ("adaptive_input", "adaptive_softmax_cutoff"):
            if is_set(options.get(name)):
                raise Refused(f"the option {name} is supported in language models only")
    if str(options.get("task") or "").startswith(REFUSED_TASKS):
        raise Refused(f"the task {options['task']} is not supported")
    if options["activation_fn"] not in ACTIVATIONS:
        raise Refused(f"the option activation_fn ({options['activation_fn']}) is not supported")


def read(state):
    """(options with every default, architecture, family) of a loaded checkpoint."""
    options, arch = saved_options(state)
    if not isinstance(arch, str):
        raise Refused("the checkpoint does not name its architecture")
    family = family_of(arch)
    upgrade(options)
    defaults = defaults_of(arch if arch in ARCHITECTURES else
                           {"lm": "transformer_lm", "encoder": "roberta",
                            "seq2seq": "transformer"}[family])
    if arch not in ARCHITECTURES:  # somebody's own name for sizes: heads must have been saved
        defaults = {k: v for k, v in defaults.items() if not k.endswith("_heads")}
    if arch == "transformer_lm":  # what old versions forced on it, they saved; now nothing is
        defaults["decoder_normalize_before"] = False
    options = {**COMMON, **defaults, **{k: v for k, v in options.items() if v is not None}}
    if family == "lm" and arch != "transformer_lm":
        options["decoder_normalize_before"] = True  # every architecture function insists
    if arch.startswith("transformer_lm_gpt3"):
        options["share_decoder_input_output_embed"] = True
    if options["share_all_embeddings"]:
        options["share_decoder_input_output_embed"] = True
    refuse_unknown(options, family)
    return options, arch, family


def kept(options, side):
    """The list of layers that a pruned checkpoint says it has, or None."""
    value = options.get(f"{side}_layers_to_keep")
    if not is_set(value):
        return None
    try:
        parts = value.split(",") if isinstance(value, str) else list(value)
        return sorted(int(part) for part in parts)
    except (TypeError, ValueError):
        raise Refused(f"the option {side}_layers_to_keep ({value}) is no list of layers") from None


def cutoffs(options, name):
    value = options[name]
    try:
        parts = value.split(",") if isinstance(value, str) else list(value)
        ends = [int(part) for part in parts]
    except (TypeError, ValueError):
        raise Refused(f"the option {name} ({value}) is no list of cutoffs") from None
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0:
        raise Refused(f"the option {name} ({value}) does not rise")
    return ends
