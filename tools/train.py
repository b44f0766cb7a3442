#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train a decoder language model with LayerDrop on plain text and write its model folder.

Texts are UTF-8 files of documents separated by empty lines. The tokens of all documents, each
closed by </s>, are cut into blocks; every block's first input is </s>. Flags carry fairseq's names
where fairseq has them. A run that finds checkpoint_last.pt in --save-dir goes on exactly where
that one stopped: everything random is a function of the seed and the update's number. SIGTERM
saves and stops.
"""
import argparse
import math
import os
import signal
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import bpe
import folder

START = 2  # </s>: the start symbol and the end of a document
PAD = 1
POSITION_OFFSET = 2  # the row of the first position, as in fairseq and OPT
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu,
               "gelu_accurate": lambda x: 0.5 * x * (1 + torch.tanh(
                   math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))}


class Layer(nn.Module):
    def __init__(self, args):
        super().__init__()
        d, ffn = args.decoder_embed_dim, args.decoder_ffn_embed_dim
        self.args, self.heads = args, args.decoder_attention_heads
        self.self_attn = nn.ModuleDict(
            {name: nn.Linear(d, d) for name in ("q_proj", "k_proj", "v_proj", "out_proj")})
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.fc1, self.fc2 = nn.Linear(d, ffn), nn.Linear(ffn, d)

    def linear(self, x, *maps):
        dtype = torch.bfloat16 if self.args.bf16 else torch.float32
        weight = torch.cat([m.weight for m in maps]) if len(maps) > 1 else maps[0].weight
        bias = torch.cat([m.bias for m in maps]) if len(maps) > 1 else maps[0].bias
        return F.linear(x.to(dtype), weight.to(dtype), bias.to(dtype))

    def attend(self, x, mask):
        batch, length, d = x.shape
        names = ("q_proj", "k_proj", "v_proj")
        qkv = self.linear(x, *(self.self_attn[n] for n in names))
        qkv = qkv.view(batch, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.heads, length, -1)
        scores = torch.bmm(q * (d // self.heads) ** -0.5, k.transpose(1, 2)) + mask
        out = torch.bmm(torch.softmax(scores, -1), v)
        out = out.view(batch, self.heads, length, -1).transpose(1, 2).reshape(batch, length, d)
        return self.linear(out, self.self_attn["out_proj"])

    def feed_forward(self, x):
        return self.linear(ACTIVATIONS[self.args.activation_fn](self.linear(x, self.fc1)), self.fc2)

    def forward(self, x, mask):
        rate, training = self.args.dropout, self.training and self.args.dropout > 0
        for norm, part in ((self.self_attn_layer_norm, lambda y: self.attend(y, mask)),
                           (self.final_layer_norm, self.feed_forward)):
            y = part(norm(x) if self.args.decoder_normalize_before else x).float()
            x = x + (F.dropout(y, rate, True) if training else y)
            x = x if self.args.decoder_normalize_before else norm(x)
        return x


class TiedCrossEntropy(torch.autograd.Function):
    """Sum of -log p of the targets under x @ weight.T, by chunks of rows to stay in cache.
    The gradients are found on the way forward."""

    @staticmethod
    def forward(ctx, x, weight, targets, dtype):
        rows, total = 256, 0.0
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        low = weight.to(dtype)
        for at in range(0, len(x), rows):
            part, goal = x[at:at + rows].to(dtype), targets[at:at + rows, None]
            p = F.linear(part, low).float()
            p -= p.logsumexp(1, keepdim=True)
            total -= p.gather(1, goal).sum().item()
            if ctx.needs_input_grad[0]:
                p = p.exp_().scatter_add_(1, goal, torch.full_like(goal, -1, dtype=p.dtype))
                p = p.to(dtype)
                grad_x[at:at + rows] = p @ low
                grad_weight += p.t() @ part
        ctx.save_for_backward(grad_x, grad_weight)
        return x.new_tensor(total)

    @staticmethod
    def backward(ctx, grad):
        grad_x, grad_weight = ctx.saved_tensors
        return grad * grad_x, grad * grad_weight, None, None


class Model(nn.Module):
    """Parameter names are fairseq's: decoder.embed_tokens, decoder.layers.N.fc1, ..."""

    def __init__(self, args, vocab_size):
        super().__init__()
        d, self.args = args.decoder_embed_dim, args
        self.decoder = nn.Module()
        self.decoder.embed_tokens = nn.Embedding(vocab_size, d)
        if args.decoder_learned_pos:
            rows = args.max_target_positions + POSITION_OFFSET
            self.decoder.embed_positions = nn.Embedding(rows, d)
        self.decoder.layers = nn.ModuleList(Layer(args) for _ in range(args.decoder_layers))
        if args.decoder_normalize_before:
            self.decoder.layer_norm = nn.LayerNorm(d)
        for name, p in self.named_parameters():
            if "embed" in name:
                nn.init.normal_(p, std=d ** -0.5)
            elif p.dim() == 2:
                nn.init.xavier_uniform_(p)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        half = d // 2
        rate = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        angle = torch.arange(args.max_target_positions + POSITION_OFFSET)[:, None] * rate
        self.register_buffer("sinusoid", torch.cat([angle.sin(), angle.cos()], 1), False)
        if args.decoder_learned_pos:  # learned positions start as sinusoids
            self.decoder.embed_positions.weight.data = self.sinusoid * d ** -0.5

    def loss(self, tokens, targets, plan):
        """Summed -log p of the targets when only the plan's layers run."""
        decoder, length, args = self.decoder, tokens.shape[1], self.args
        rows = slice(POSITION_OFFSET, POSITION_OFFSET + length)
        if args.decoder_learned_pos:
            x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[rows]
        else:
            x = decoder.embed_tokens(tokens) * math.sqrt(args.decoder_embed_dim)
            x = x + self.sinusoid[rows]
        x = F.dropout(x, args.dropout, True) if self.training and args.dropout else x
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        mask = torch.full((length, length), -30000.0, device=x.device).triu(1).to(dtype)
        for i in plan:
            x = decoder.layers[i](x, mask)
        x = decoder.layer_norm(x) if args.decoder_normalize_before else x
        return TiedCrossEntropy.apply(x.reshape(-1, x.shape[-1]), decoder.embed_tokens.weight,
                                      targets.reshape(-1), dtype)



def read_tokens(path, tokenizer):
    with open(path, encoding="utf-8") as file:
        documents = file.read().split("\n\n")
    ids = []
    for document in documents:
        ids += tokenizer.encode(document.strip("\n")) + [START]
    return torch.tensor(ids)


def block(tokens, at, length):
    """(inputs, targets): the targets are tokens[at:at+length]; the first input is </s>."""
    targets = tokens[at:at + length]
    return torch.cat([torch.tensor([START]), targets[:-1]]), targets


def batch_of_update(tokens, args, update):
    """The blocks of one update: a pure function of the seed and the update's number."""
    length = args.tokens_per_sample
    count = (len(tokens) - length) // length
    per_epoch = max(count // args.batch_size, 1)
    epoch, index = divmod(update, per_epoch)
    rng = np.random.default_rng([args.seed, epoch])
    phase, order = int(rng.integers(length)), rng.permutation(count)
    chosen = order[index * args.batch_size:(index + 1) * args.batch_size]
    pairs = [block(tokens, phase + int(i) * length, length) for i in chosen]
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]), epoch


@torch.no_grad()
def perplexity(model, tokens, args, plan, device, limit=None):
    model.eval()
    length, total, count = args.tokens_per_sample, 0.0, 0
    for at in range(0, min(len(tokens), limit or len(tokens)), length):
        inputs, targets = block(tokens, at, length)
        total += model.loss(inputs[None].to(device), targets[None].to(device), plan).item()
        count += len(targets)
    model.train()
    return math.exp(total / count)


def learning_rate(args, update):
    """tri_stage: linear warm-up, hold, linear decay that ends at --max-update."""
    left = (args.max_update - update) / max(args.decay_steps, 1)
    return args.lr * min(1.0, (update + 1) / max(args.warmup_steps, 1), max(left, 0.0))


def load_weights(path, keep):
    """Weights of a training checkpoint or of a model folder, the kept layers renumbered."""
    if os.path.isdir(path):
        state = {}
        for name, value in folder.read_weights(path).items():
            name = name.removeprefix("model.").replace("decoder.final_layer_norm",
                                                       "decoder.layer_norm")
            state[name] = torch.from_numpy(value)
    else:
        state = torch.load(path, map_location="cpu")["model"]
    if not keep:
        return state
    place = {str(old): str(new) for new, old in enumerate(keep)}
    kept = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[1] != "layers":
            kept[name] = value
        elif parts[2] in place:
            kept[".".join(parts[:2] + [place[parts[2]]] + parts[3:])] = value
    return kept


def config_of(args, vocab_size):
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


def export(model, args, path, vocab_size, note):
    os.makedirs(path, exist_ok=True)
    tensors = {name: p.detach().cpu().numpy() for name, p in model.named_parameters()}
    if args.decoder_learned_pos:
        tensors = {"model." + name.replace("decoder.layer_norm", "decoder.final_layer_norm"): value
                   for name, value in tensors.items()}
    folder.write_weights(path, tensors, "BF16")
    folder.write_json(config_of(args, vocab_size), os.path.join(path, "config.json"))
    folder.write_json({"bos_token_id": START, "eos_token_id": START, "pad_token_id": PAD},
                      os.path.join(path, "generation_config.json"))
    folder.copy_tokenizer(args.tokenizer, path)
    with open(os.path.join(path, "README.md"), "w", encoding="utf-8") as out:
        out.write(note)


def model_card(args, update, results):
    flags = " ".join(f"--{k.replace('_', '-')}" + ("" if v is True else f" {v}")
                     for k, v in vars(args).items() if v not in (None, False, ""))
    lines = [f"| {depth} | {value:.2f} |" for depth, value in results]
    return ("# Model card\n\nA decoder language model trained with `tools/train.py` for "
            f"{update} updates:\n\n    tools/train.py {flags}\n\n"
            "Perplexity per token on the validation text, layers kept evenly:\n\n"
            "| depth | perplexity |\n|---|---|\n" + "\n".join(lines) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("data", help="training text")
    add("--valid", required=True, help="validation text")
    add("--tokenizer", required=True, help="folder with vocab.json and merges.txt")
    add("--decoder-layers", type=int, default=12)
    add("--decoder-embed-dim", type=int, default=192)
    add("--decoder-ffn-embed-dim", type=int, default=768)
    add("--decoder-attention-heads", type=int, default=6)
    add("--decoder-layerdrop", type=float, default=0.2, help="chance to skip a whole layer")
    add("--decoder-layers-to-keep", default="", help="comma list: prune --restore-file to these")
    add("--decoder-normalize-before", action=argparse.BooleanOptionalAction, default=True)
    add("--decoder-learned-pos", action=argparse.BooleanOptionalAction, default=True)
    add("--activation-fn", choices=sorted(ACTIVATIONS), default="relu")
    add("--dropout", type=float, default=0.0)
    add("--tokens-per-sample", type=int, default=256)
    add("--max-target-positions", type=int, default=512,
        help="positions of the model; those past --tokens-per-sample learn when a later part of "
             "the run uses longer blocks")
    add("--batch-size", type=int, default=4, help="blocks in an update")
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
    add("--restore-file", default="", help="checkpoint or model folder to take weights from")
    add("--eval-depths", default="", help="comma list; default: all, half and a quarter")
    add("--export", default="", help="model folder to write at the end")
    return parser.parse_args()


def main():
    args = parse_arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keep = sorted({int(i) for i in args.decoder_layers_to_keep.split(",") if i})
    args.decoder_layers = len(keep) or args.decoder_layers
    tokenizer = bpe.Tokenizer(args.tokenizer)
    train, valid = (read_tokens(path, tokenizer) for path in (args.data, args.valid))
    torch.manual_seed(args.seed)
    model = Model(args, len(tokenizer.ids)).to(device).train()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": args.weight_decay},
                                   {"params": vectors, "weight_decay": 0.0}],
                                  lr=args.lr, betas=tuple(args.adam_betas))
    os.makedirs(args.save_dir, exist_ok=True)
    last, update = os.path.join(args.save_dir, "checkpoint_last.pt"), 0
    if os.path.exists(last):
        state = torch.load(last, map_location="cpu")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        update = state["update"]
    elif args.restore_file:
        model.load_state_dict(load_weights(args.restore_file, keep))
    layers = args.decoder_layers
    depths = ([int(d) for d in args.eval_depths.split(",") if d]
              or sorted({layers, max(layers // 2, 1), max(layers // 4, 1)}, reverse=True))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(train)} training tokens, "
          f"device {device}, at update {update}", flush=True)

    def validate(limit=None):
        found = [(d, perplexity(model, valid, args, folder.even_plan(layers, d), device, limit))
                 for d in depths]
        print(f"| valid | update {update} | "
              + " | ".join(f"depth {d} ppl {p:.2f}" for d, p in found), flush=True)
        return found

    def save():
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "update": update, "args": vars(args)}, last + ".new")
        os.replace(last + ".new", last)

    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    began, since, loss_sum, seen = time.time(), update, 0.0, 0
    while update < args.max_update and not stopping:
        torch.manual_seed(args.seed * 1000003 + update)
        inputs, targets, epoch = batch_of_update(train, args, update)
        plan = (torch.rand(layers) >= args.decoder_layerdrop).nonzero().flatten().tolist()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, update)
        optimizer.zero_grad()
        loss = model.loss(inputs.to(device), targets.to(device), plan)
        (loss / targets.numel()).backward()
        for p in model.parameters():  # a skipped layer has a gradient of zero, as in fairseq
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip_norm)
        optimizer.step()
        update += 1
        loss_sum, seen = loss_sum + loss.item(), seen + targets.numel()
        if update % args.log_interval == 0:
            speed = (update - since) * inputs.numel() / (time.time() - began)
            print(f"| epoch {epoch + 1} | update {update} | loss {loss_sum / seen:.3f} | ppl "
                  f"{math.exp(loss_sum / seen):.1f} | gnorm {norm:.2f} | lr "
                  f"{learning_rate(args, update):.2e} | {speed:.0f} tokens/s", flush=True)
            began, since, loss_sum, seen = time.time(), update, 0.0, 0
        if update % args.validate_interval_updates == 0:
            validate(20 * args.tokens_per_sample)
        if update % args.save_interval_updates == 0:
            save()
    save()
    if args.export:
        export(model, args, args.export, len(tokenizer.ids),
               model_card(args, update, validate()))


if __name__ == "__main__":
    main()
