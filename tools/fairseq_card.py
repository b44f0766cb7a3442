# SPDX-License-Identifier: Apache-2.0
"""The model card of a converted checkpoint."""


def depth_table(layers, rate):
    """The training rate that suits each depth best, and whether this model's is near."""
    lines = ["| depth | p* |", "|---:|---:|"]
    shown = sorted({layers, *(layers * k // 8 for k in range(1, 8))} - {0}, reverse=True)
    lines += [f"| {depth} | {1 - depth / layers:.2f} |" for depth in shown]
    return "\n".join(lines)


def advice(side, stack):
    layers, rate = stack["num_hidden_layers"], stack["layerdrop"]
    if not rate:
        return (f"The {side} was trained without LayerDrop, or the checkpoint does not say so: "
                "expect its quality to fall quickly when layers are left out.")
    best = max(1, round((1 - rate) * layers))
    return (f"The {side} was trained with LayerDrop {rate:g}. The rate that suits a depth of r of "
            f"its {layers} layers best is p* = 1 - r/{layers}, so it is at its best near "
            f"{best} layers, and was meant to be run at fewer too.\n\n{depth_table(layers, rate)}")


def stack_row(name, stack):
    return (f"| {name} | {stack['num_hidden_layers']} layers, width {stack['hidden_size']}, "
            f"{stack['num_attention_heads']} heads, feed-forward {stack['intermediate_size']}, "
            f"{stack['activation_function']}, {stack['norm']}-norm, {stack['positions']} "
            f"positions, LayerDrop {stack['layerdrop']:g} |")


def stacks(config):
    if config["model_type"] == "fathom_lm":
        return {"decoder": config}
    return {side: config[side] for side in ("encoder", "decoder") if side in config}


def card(result, texts, arch, source, shapes, dtype):
    config, count = result.config, 0
    for shape in shapes.values():
        size = 1
        for n in shape:
            size *= n
        count += size
    rows = [stack_row(name, stack) for name, stack in stacks(config).items()]
    entry = texts.entry
    rows += [f"| parameters | {count:,}, stored as {dtype} |",
             f"| vocabulary | {config['vocab_size']:,} ({entry['dictionary']}) |",
             f"| text | BPE {entry['bpe']}, tokenizer {entry['tokenizer']} |"]
    for head in config.get("classification_heads", []):
        rows.append(f"| classes of {head['name']} | {', '.join(head['labels'])} |")
    notes = "".join(f"* {note}\n" for note in [*result.notes, *texts.notes])
    depth = "\n\n".join(advice(side, stack) for side, stack in stacks(config).items())
    return f"""# Converted from fairseq

| | |
|---|---|
| source | `{source}`, fairseq architecture `{arch}` |
""" + "\n".join(rows) + f"""

## Depth

{depth}

## Licence

The checkpoint does not record one: see where it came from. The conversion changes nothing in it.
""" + (f"\n## Notes\n\n{notes}" if notes else "")
