#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train a decoder language model or an encoder-decoder with LayerDrop; write its model folder.

A language model reads UTF-8 files of documents separated by empty lines. The tokens of all
documents, each closed by </s>, are cut into blocks; every block's first input is </s>.
With --source-lang and --target-lang the data are two line-parallel files, DATA.de and DATA.en say,
and the model translates: a source ends with </s>, the decoder's input starts with it.
Flags carry fairseq's names where fairseq has them. A run that finds checkpoint_last.pt in
--save-dir goes on exactly where that one stopped: everything random is a function of the seed and
the update's number. SIGTERM saves and stops.
"""
import argparse
import math
import os
import signal
import time

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import numpy as np
import torch
from torch import nn

import bpe
import folder
import transformer
from transformer import PAD, POSITION_OFFSET

START = 2  # </s>: the start symbol and the end of a document
SIDES = ("encoder", "decoder")
SHAPE = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads", "normalize_before",
         "learned_pos")


class Blocks:
    """The text of a language model, cut into blocks of --tokens-per-sample."""

    def __init__(self, path, tokenizer, args):
        with open(path, encoding="utf-8") as file:
            documents = file.read().split("\n\n")
        ids = []
        for document in documents:
            ids += tokenizer.encode(document.strip("\n")) + [START]
        self.tokens, self.args, self.size = torch.tensor(ids), args, f"{len(ids)} training tokens"

    def block(self, at):
        """The targets are tokens[at:at+length]; the first input is </s>."""
        targets = self.tokens[at:at + self.args.tokens_per_sample]
        return torch.cat([torch.tensor([START]), targets[:-1]]), targets

    def batch(self, number):
        """Batch number of the training: a pure function of the seed and of that number."""
        length, size = self.args.tokens_per_sample, self.args.batch_size
        count = (len(self.tokens) - length) // length
        epoch, index = divmod(number, max(count // size, 1))
        rng = np.random.default_rng([self.args.seed, epoch])
        phase, order = int(rng.integers(length)), rng.permutation(count)
        chosen = order[index * size:(index + 1) * size]
        pairs = [self.block(phase + int(i) * length) for i in chosen]
        return {"inputs": torch.stack([p[0] for p in pairs]),
                "targets": torch.stack([p[1] for p in pairs])}, epoch

    def in_order(self, limit):
        """Batches of one block each, over the whole text or its first limit batches."""
        length = self.args.tokens_per_sample
        for at in range(0, min(len(self.tokens), (limit or len(self.tokens)) * length), length):
            inputs, targets = self.block(at)
            yield {"inputs": inputs[None], "targets": targets[None]}


class Pairs:
    """Two line-parallel files; batches hold pairs of about the same lengths."""

    def __init__(self, prefix, tokenizer, args):
        sides = []
        for language in (args.source_lang, args.target_lang):
            with open(f"{prefix}.{language}", encoding="utf-8") as file:
                sides.append([tokenizer.encode(line.rstrip("\n")) + [START] for line in file])
        if len(sides[0]) != len(sides[1]):
            raise SystemExit(f"{prefix}: {len(sides[0])} source lines, but {len(sides[1])} target "
                             "lines")
        longest = (args.max_source_positions, args.max_target_positions)
        self.pairs = [p for p in zip(*sides) if all(1 < len(t) <= n for t, n in zip(p, longest))]
        self.lengths = np.array([[len(s), len(t)] for s, t in self.pairs])
        self.args, self.size = args, f"{len(self.pairs)} training pairs"
        self.epoch, self.order, self.cuts = None, None, self.cut()

    def cut(self):
        """Where batches begin in the order by length: at most --batch-size pairs, and --max-tokens
        of source or target with pads. All orders by length have the same lengths, so the same cuts.
        """
        by_length = self.lengths[np.lexsort((self.lengths[:, 0], self.lengths[:, 1]))]
        cuts, longest = [0], 0
        for i, lengths in enumerate(by_length):
            longest, count = max(longest, *lengths), i + 1 - cuts[-1]
            if count > 1 and (count > self.args.batch_size
                              or count * longest > self.args.max_tokens):
                cuts.append(i)
                longest = max(lengths)
        return cuts + [len(by_length)]

    def batch_of(self, chosen):
        pairs = [self.pairs[i] for i in chosen]

        def padded(rows):
            longest = max(map(len, rows))
            return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
        return {"source": padded([s for s, _ in pairs]), "targets": padded([t for _, t in pairs]),
                "inputs": padded([[START] + t[:-1] for _, t in pairs])}

    def batch(self, number):
        """Batch number of the training: a pure function of the seed and of that number."""
        epoch, index = divmod(number, len(self.cuts) - 1)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.args.seed, epoch])
            ties = rng.random(len(self.pairs))
            self.order = np.lexsort((ties, self.lengths[:, 0], self.lengths[:, 1]))
            self.epoch, self.batches = epoch, rng.permutation(len(self.cuts) - 1)
        at = self.batches[index]
        return self.batch_of(self.order[self.cuts[at]:self.cuts[at + 1]]), epoch

    def in_order(self, limit):
        order = np.lexsort((self.lengths[:, 0], self.lengths[:, 1]))
        cuts = list(zip(self.cuts, self.cuts[1:]))
        for begin, end in cuts[::max(len(cuts) // (limit or len(cuts)), 1)]:
            yield self.batch_of(order[begin:end])


def on(device, batch):
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.no_grad()
def perplexity(model, data, plans, device, limit=None):
    model.eval()
    total, count = 0.0, 0
    for batch in data.in_order(limit):
        total += model.loss(on(device, batch), plans)[1].item()
        count += batch["targets"].ne(PAD).sum().item()
    model.train()
    return math.exp(total / count)


def learning_rate(args, update):
    """tri_stage: linear warm-up, hold, linear decay that ends at --max-update."""
    left = (args.max_update - update) / max(args.decay_steps, 1)
    return args.lr * min(1.0, (update + 1) / max(args.warmup_steps, 1), max(left, 0.0))


def load_weights(path, keeps):
    """Weights of a training checkpoint or of a model folder, the kept layers renumbered."""
    if os.path.isdir(path):
        state = {}
        for name, value in folder.read_weights(path).items():
            name = name.removeprefix("model.").replace("decoder.final_layer_norm",
                                                       "decoder.layer_norm")
            state[name] = torch.from_numpy(value)
        if folder.read_config(path).get("share_embeddings"):
            state["encoder.embed_tokens.weight"] = state["decoder.embed_tokens.weight"]
    else:
        state = torch.load(path, map_location="cpu")["model"]
    kept = {}
    for name, value in state.items():
        parts = name.split(".")
        keep = keeps.get(parts[0])
        if parts[1] != "layers" or not keep:
            kept[name] = value
        elif int(parts[2]) in keep:
            kept[".".join(parts[:2] + [str(keep.index(int(parts[2])))] + parts[3:])] = value
    return kept


def language_model_config(args, vocab_size):
    common = {"num_hidden_layers": args.decoder_layers, "hidden_size": args.decoder_embed_dim,
              "num_attention_heads": args.decoder_attention_heads, "vocab_size": vocab_size,
              "max_position_embeddings": args.max_target_positions,
              "layerdrop": args.decoder_layerdrop, "tie_word_embeddings": True,
              "bos_token_id": START, "eos_token_id": START, "pad_token_id": PAD}
    if args.decoder_learned_pos:
        activation = {"gelu_accurate": "gelu_new"}.get(args.activation_fn, args.activation_fn)
        return {"architectures": ["OPTForCausalLM"], "model_type": "opt", **common,
                "ffn_dim": args.decoder_ffn_embed_dim, "activation_function": activation,
                "word_embed_proj_dim": args.decoder_embed_dim, "dropout": args.dropout,
                "attention_dropout": 0.0, "do_layer_norm_before": args.decoder_normalize_before,
                "_remove_final_layer_norm": False, "enable_bias": True, "init_std": 0.02,
                "layer_norm_elementwise_affine": True, "torch_dtype": "bfloat16",
                "use_cache": True}
    activation = {"gelu_accurate": "gelu_tanh"}.get(args.activation_fn, args.activation_fn)
    return {"model_type": "fathom_lm", **common, "activation_function": activation,
            "intermediate_size": args.decoder_ffn_embed_dim, "embedding_norm": False,
            "norm": "pre" if args.decoder_normalize_before else "post",
            "final_norm": args.decoder_normalize_before, "layer_norm_eps": 1e-5,
            "positions": "sinusoidal", "position_offset": POSITION_OFFSET,
            "embed_scale": math.sqrt(args.decoder_embed_dim), "torch_dtype": "bfloat16"}


def stack_config(shape):
    activation = {"gelu_accurate": "gelu_tanh"}.get(shape.activation, shape.activation)
    return {"num_hidden_layers": shape.layers, "hidden_size": shape.width,
            "num_attention_heads": shape.heads, "intermediate_size": shape.ffn,
            "norm": "pre" if shape.normalize_before else "post",
            "final_norm": shape.normalize_before, "embedding_norm": False,
            "activation_function": activation, "layer_norm_eps": 1e-5,
            "positions": "learned" if shape.learned_pos else "sinusoidal",
            "position_offset": POSITION_OFFSET, "max_position_embeddings": shape.max_positions,
            "embed_scale": 1.0 if shape.learned_pos else math.sqrt(shape.width),
            "layerdrop": shape.layerdrop}


def seq2seq_config(args, model, vocab_size):
    return {"model_type": "fathom_seq2seq",
            "architectures": ["FathomSeq2SeqForConditionalGeneration"],
            "vocab_size": vocab_size, "source_vocab_size": vocab_size,
            "share_embeddings": args.share_all_embeddings, "tie_word_embeddings": True,
            "bos_token_id": 0, "eos_token_id": START, "pad_token_id": PAD,
            "decoder_start_token_id": START, "torch_dtype": "bfloat16",
            "encoder": stack_config(model.encoder.shape),
            "decoder": stack_config(model.decoder.shape)}


def export(model, args, path, vocab_size, note):
    os.makedirs(path, exist_ok=True)
    tensors = {name: p.detach().cpu().numpy() for name, p in model.named_parameters()}
    if args.source_lang:
        config = seq2seq_config(args, model, vocab_size)
        generation = {"bos_token_id": 0, "eos_token_id": START, "pad_token_id": PAD,
                      "decoder_start_token_id": START, "num_beams": 5, "length_penalty": 1.0,
                      "do_sample": False}
    else:
        config = language_model_config(args, vocab_size)
        generation = {"bos_token_id": START, "eos_token_id": START, "pad_token_id": PAD}
    if config["model_type"] == "opt":
        tensors = {"model." + name.replace("decoder.layer_norm", "decoder.final_layer_norm"): value
                   for name, value in tensors.items()}
    folder.write_weights(path, tensors, "BF16")
    folder.write_json(config, os.path.join(path, "config.json"))
    folder.write_json(generation, os.path.join(path, "generation_config.json"))
    folder.copy_tokenizer(args.tokenizer, path)
    with open(os.path.join(path, "README.md"), "w", encoding="utf-8") as out:
        out.write(note)


def flags_of(args):
    """The command line that these arguments stand for."""
    words = [args.data]
    for name, value in vars(args).items():
        flag = name.replace("_", "-")
        if name.startswith("encoder_") and not args.source_lang:
            continue
        if value is False and name != "bf16":
            words.append("--no-" + flag)
        elif value is True:
            words.append("--" + flag)
        elif name != "data" and value is not False and value not in (None, ""):
            values = value if isinstance(value, (list, tuple)) else [value]
            words += ["--" + flag, *map(str, values)]
    return " ".join(words)


def model_card(args, update, results):
    lines = [f"| {depth} | {value:.2f} |" for depth, value in results]
    kind = "encoder-decoder" if args.source_lang else "decoder language model"
    article = "An" if args.source_lang else "A"
    return (f"# Model card\n\n{article} {kind} trained with `tools/train.py` for "
            f"{update} updates:\n\n    tools/train.py {flags_of(args)}\n\n"
            "Perplexity per token on the validation text, layers kept evenly:\n\n"
            "| depth | perplexity |\n|---|---|\n" + "\n".join(lines) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("data", help="training text; of pairs, what comes before .LANG")
    add("--valid", required=True, help="validation text, likewise")
    add("--tokenizer", required=True, help="folder with vocab.json and merges.txt")
    add("--source-lang", default="", help="train an encoder-decoder on DATA.SOURCE and DATA.TARGET")
    add("--target-lang", default="")
    for side in ("decoder", "encoder"):
        add(f"--{side}-layers", type=int, default=12 if side == "encoder" else None,
            help=None if side == "encoder" else "default: 12, after an encoder 6")
        add(f"--{side}-embed-dim", type=int, default=192)
        add(f"--{side}-ffn-embed-dim", type=int, default=768)
        add(f"--{side}-attention-heads", type=int, default=6)
        add(f"--{side}-layerdrop", type=float, default=0.2, help="chance to skip a whole layer")
        add(f"--{side}-layers-to-keep", default="",
            help="comma list: prune --restore-file to these")
        add(f"--{side}-normalize-before", action=argparse.BooleanOptionalAction, default=True)
        add(f"--{side}-learned-pos", action=argparse.BooleanOptionalAction, default=True)
    add("--share-all-embeddings", action=argparse.BooleanOptionalAction, default=False,
        help="one matrix for the encoder, the decoder and the output")
    add("--activation-fn", choices=sorted(transformer.ACTIVATIONS), default="relu")
    add("--dropout", type=float, default=0.0)
    add("--tokens-per-sample", type=int, default=256)
    add("--max-source-positions", type=int, default=512)
    add("--max-target-positions", type=int, default=512,
        help="positions of the model; those past --tokens-per-sample learn when a later part of "
             "the run uses longer blocks")
    add("--batch-size", type=int, help="blocks (default 4) or pairs (at most, default 128) of a "
                                       "batch")
    add("--max-tokens", type=int, default=2000, help="pairs: most tokens of either side of a batch")
    add("--update-freq", type=int, default=1,
        help="batches of an update, each with layers skipped of its own")
    add("--label-smoothing", type=float, default=0.0)
    add("--lr", type=float, default=2e-3)
    add("--warmup-steps", type=int, default=100)
    add("--decay-steps", type=int, default=1000, help="updates of the decay before --max-update")
    add("--max-update", type=int, default=5000)
    add("--adam-betas", type=float, nargs=2, default=(0.9, 0.98))
    add("--weight-decay", type=float, default=0.1)
    add("--clip-norm", type=float, default=1.0)
    add("--seed", type=int, default=1)
    add("--bf16", action="store_true", help="matrix products in bfloat16")
    add("--save-dir", required=True)
    add("--save-interval-updates", type=int, default=200)
    add("--validate-interval-updates", type=int, default=500)
    add("--log-interval", type=int, default=50)
    add("--restore-file", default="",
        help="checkpoint or model folder to take weights from, and with them the model's shape")
    add("--eval-depths", default="", help="comma list of depths, or of ENCODERxDECODER; "
                                          "default: all, half and a quarter")
    add("--export", default="", help="model folder to write at the end")
    args = parser.parse_args()
    if bool(args.source_lang) != bool(args.target_lang):
        parser.error("--source-lang and --target-lang go together")
    if args.share_all_embeddings and args.encoder_embed_dim != args.decoder_embed_dim:
        parser.error("--share-all-embeddings needs --encoder-embed-dim equal to "
                     "--decoder-embed-dim")
    args.batch_size = args.batch_size or (128 if args.source_lang else 4)
    args.decoder_layers = args.decoder_layers or (6 if args.source_lang else 12)
    return args


def take_shape(args):
    """What --restore-file fixes, whatever the flags say: the numbers of its layers and tables."""
    path = args.restore_file
    if not path:
        return
    if not os.path.isdir(path):
        saved = torch.load(path, map_location="cpu").get("args", {})
        names = [f"{side}_{part}" for side in SIDES for part in SHAPE] + [
            "activation_fn", "share_all_embeddings", "max_source_positions", "max_target_positions"]
        for name in names:
            setattr(args, name, saved.get(name, getattr(args, name)))
        return
    config = folder.read_config(path)
    for side, stack, positions in (("decoder", config.get("decoder", config), "target"),
                                   ("encoder", config.get("encoder"), "source")):
        if not stack:
            continue
        numbers = (stack["num_hidden_layers"], stack["hidden_size"],
                   stack.get("intermediate_size", stack.get("ffn_dim")),
                   stack["num_attention_heads"],
                   stack.get("do_layer_norm_before", stack.get("norm", "pre") == "pre"),
                   stack.get("positions", "learned") == "learned")
        for part, number in zip(SHAPE, numbers):
            setattr(args, f"{side}_{part}", number)
        setattr(args, f"max_{positions}_positions", stack["max_position_embeddings"])
        name = stack["activation_function"]
        args.activation_fn = {"gelu_new": "gelu_accurate", "gelu_tanh": "gelu_accurate"}.get(name, name)
    args.share_all_embeddings = bool(config.get("share_embeddings"))


def kept_layers(args):
    """{side: sorted layers to keep}, empty for all; the flags' numbers of layers follow."""
    keeps = {}
    for side in SIDES:
        text = getattr(args, f"{side}_layers_to_keep")
        keeps[side] = sorted({int(i) for i in text.split(",") if i})
        if keeps[side]:
            setattr(args, f"{side}_layers", len(keeps[side]))
    return keeps


def depths_to_evaluate(args, layers):
    """(name, {side: plan}) of each depth of --eval-depths."""
    names = [name for name in args.eval_depths.split(",") if name]
    if not names:
        parts = sorted({tuple(max(n // d, 1) for n in layers.values()) for d in (1, 2, 4)},
                       reverse=True)
        names = ["x".join(map(str, part)) for part in parts]
    return [(name, {side: folder.even_plan(n, int(depth))
                    for (side, n), depth in zip(layers.items(), name.split("x"))})
            for name in names]


def make_optimizer(model, args):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": args.weight_decay},
                              {"params": vectors, "weight_decay": 0.0}],
                             lr=args.lr, betas=tuple(args.adam_betas))


def one_update(model, optimizer, data, layers, args, update, device):
    """Returns (summed -log p, target tokens, input tokens, gradient's norm, epoch)."""
    torch.manual_seed(args.seed * 1000003 + update)
    batches = [data.batch(update * args.update_freq + i) for i in range(args.update_freq)]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(args, update)
    optimizer.zero_grad()
    loss_sum, read = 0.0, 0
    seen = sum(batch["targets"].ne(PAD).sum().item() for batch, _ in batches)
    for batch, epoch in batches:
        plans = {}
        for side, count in layers.items():
            rate = getattr(args, f"{side}_layerdrop")
            plans[side] = (torch.rand(count) >= rate).nonzero().flatten().tolist()
        loss, plain = model.loss(on(device, batch), plans, args.label_smoothing)
        (loss / seen).backward()
        loss_sum += plain.item()
        read += batch.get("source", batch["inputs"]).numel()
    for p in model.parameters():  # a skipped layer has a gradient of zero, as in fairseq
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip_norm)
    optimizer.step()
    return loss_sum, seen, read, norm, epoch


def main():
    args = parse_arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_flush_denormal(True)
    take_shape(args)
    keeps = kept_layers(args)
    tokenizer = bpe.Tokenizer(args.tokenizer)
    read = Pairs if args.source_lang else Blocks
    train, valid = (read(path, tokenizer, args) for path in (args.data, args.valid))
    torch.manual_seed(args.seed)
    kind = transformer.EncoderDecoder if args.source_lang else transformer.LanguageModel
    model = kind(args, len(tokenizer.ids)).to(device).train()
    optimizer = make_optimizer(model, args)
    os.makedirs(args.save_dir, exist_ok=True)
    last, update = os.path.join(args.save_dir, "checkpoint_last.pt"), 0
    if os.path.exists(last):
        state = torch.load(last, map_location="cpu")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        update = state["update"]
    elif args.restore_file:
        model.load_state_dict(load_weights(args.restore_file, keeps))
    layers = {side: getattr(args, f"{side}_layers") for side in SIDES
              if side == "decoder" or args.source_lang}
    depths = depths_to_evaluate(args, layers)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {train.size}, "
          f"device {device}, at update {update}", flush=True)

    def validate(limit=None):
        found = [(name, perplexity(model, valid, plans, device, limit)) for name, plans in depths]
        print(f"| valid | update {update} | "
              + " | ".join(f"depth {name} ppl {p:.2f}" for name, p in found), flush=True)
        return found

    def save():
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "update": update, "args": vars(args)}, last + ".new")
        os.replace(last + ".new", last)

    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    began, loss_sum, seen, read = time.time(), 0.0, 0, 0
    while update < args.max_update and not stopping:
        loss, targets, inputs, norm, epoch = one_update(model, optimizer, train, layers, args,
                                                        update, device)
        update += 1
        loss_sum, seen, read = loss_sum + loss, seen + targets, read + inputs
        if update % args.log_interval == 0:
            print(f"| epoch {epoch + 1} | update {update} | loss {loss_sum / seen:.3f} | ppl "
                  f"{math.exp(loss_sum / seen):.1f} | gnorm {norm:.2f} | lr "
                  f"{learning_rate(args, update):.2e} | "
                  f"{read / (time.time() - began):.0f} tokens/s", flush=True)
            began, loss_sum, seen, read = time.time(), 0.0, 0, 0
        if update % args.validate_interval_updates == 0:
            validate(20)
        if update % args.save_interval_updates == 0:
            save()
    save()
    if args.export:
        export(model, args, args.export, len(tokenizer.ids),
               model_card(args, update, validate()))


if __name__ == "__main__":
    main()
