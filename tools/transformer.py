# SPDX-License-Identifier: Apache-2.0
"""The trained models: a decoder language model and an encoder-decoder, with fairseq's semantics and
parameter names (decoder.layers.N.fc1, encoder.layers.N.self_attn.q_proj, ...).

A plan is the list of layers that run. Positions count from row 2, sinusoids are sines then cosines.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

PAD = 1
POSITION_OFFSET = 2  # the row of the first position, as in fairseq and OPT
MASKED = -30000.0
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu,
               "gelu_accurate": lambda x: 0.5 * x * (1 + torch.tanh(
                   math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))}


class Shape:
    """One stack's numbers, taken from the flags --encoder-... or --decoder-..."""

    def __init__(self, args, side, max_positions):
        def flag(name):
            return getattr(args, f"{side}_{name}")
        self.side, self.layers, self.heads = side, flag("layers"), flag("attention_heads")
        self.width, self.ffn = flag("embed_dim"), flag("ffn_embed_dim")
        self.normalize_before, self.learned_pos = flag("normalize_before"), flag("learned_pos")
        self.layerdrop, self.max_positions = flag("layerdrop"), max_positions
        self.activation, self.dropout = args.activation_fn, args.dropout
        self.dtype = torch.bfloat16 if args.bf16 else torch.float32


def linear(x, dtype, *maps):
    """x under one linear map, or under several side by side."""
    weight = torch.cat([m.weight for m in maps]) if len(maps) > 1 else maps[0].weight
    bias = torch.cat([m.bias for m in maps]) if len(maps) > 1 else maps[0].bias
    return F.linear(x.to(dtype), weight.to(dtype), bias.to(dtype))


class Attention(nn.ModuleDict):
    def __init__(self, shape, memory_width=0):
        d, source = shape.width, memory_width or shape.width
        super().__init__({"q_proj": nn.Linear(d, d), "k_proj": nn.Linear(source, d),
                          "v_proj": nn.Linear(source, d), "out_proj": nn.Linear(d, d)})
        self.shape = shape

    def forward(self, x, mask, memory=None):
        """mask, if any, is added to the scores; memory, if any, gives the keys and values."""
        (batch, length, d), heads, dtype = x.shape, self.shape.heads, self.shape.dtype
        q_proj, k_proj, v_proj = self["q_proj"], self["k_proj"], self["v_proj"]

        def split(y, parts):
            y = y.view(batch, -1, parts, heads, d // heads).permute(2, 0, 3, 1, 4)
            return y.reshape(parts, batch * heads, -1, d // heads)
        if memory is None:
            q, k, v = split(linear(x, dtype, q_proj, k_proj, v_proj), 3)
        else:
            (q,), (k, v) = (split(linear(x, dtype, q_proj), 1),
                            split(linear(memory, dtype, k_proj, v_proj), 2))
        scores = torch.bmm(q * (d // heads) ** -0.5, k.transpose(1, 2))
        if mask is not None and mask.dim() == 3:  # one row of pads for each text of the batch
            scores = (scores.view(batch, heads, length, -1) + mask[:, None]).view_as(scores)
        elif mask is not None:
            scores = scores + mask
        out = torch.bmm(torch.softmax(scores, -1), v)
        out = out.view(batch, heads, length, -1).transpose(1, 2).reshape(batch, length, d)
        return linear(out, dtype, self["out_proj"])


class Layer(nn.Module):
    def __init__(self, shape, memory_width=0):
        super().__init__()
        d, self.shape = shape.width, shape
        self.self_attn = Attention(shape)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        if memory_width:
            self.encoder_attn = Attention(shape, memory_width)
            self.encoder_attn_layer_norm = nn.LayerNorm(d)
        self.fc1, self.fc2 = nn.Linear(d, shape.ffn), nn.Linear(shape.ffn, d)

    def feed_forward(self, x):
        hidden = ACTIVATIONS[self.shape.activation](linear(x, self.shape.dtype, self.fc1))
        return linear(hidden, self.shape.dtype, self.fc2)

    def residual(self, x, norm, part):
        before, rate = self.shape.normalize_before, self.shape.dropout
        y = part(norm(x) if before else x)
        x = x + (F.dropout(y.float(), rate, True) if self.training and rate else y)
        return x if before else norm(x)

    def forward(self, x, mask, memory=None, memory_mask=None):
        x = self.residual(x, self.self_attn_layer_norm, lambda y: self.self_attn(y, mask))
        if memory is not None:
            x = self.residual(x, self.encoder_attn_layer_norm,
                              lambda y: self.encoder_attn(y, memory_mask, memory))
        return self.residual(x, self.final_layer_norm, self.feed_forward)


class TiedCrossEntropy(torch.autograd.Function):
    """Sums over the targets under x @ weight.T, by chunks of rows to stay in cache: the loss with
    label smoothing as fairseq has it, and plain -log p, which carries no gradient.
    The gradients are found on the way forward."""

    @staticmethod
    def forward(ctx, x, weight, targets, dtype, smoothing):
        rows, total, plain, others = 256, 0.0, 0.0, smoothing / (len(weight) - 1)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        low = weight.to(dtype)
        for at in range(0, len(x), rows):
            part, goal = x[at:at + rows].to(dtype), targets[at:at + rows, None]
            p = F.linear(part, low).float()
            p -= p.logsumexp(1, keepdim=True)
            found = -p.gather(1, goal).sum().item()
            plain += found
            total += (1 - smoothing - others) * found - (others * p.sum().item() if others else 0)
            if ctx.needs_input_grad[0]:
                p = p.exp_()
                p = p.sub_(others) if others else p
                p = p.scatter_add_(1, goal, torch.full_like(goal, smoothing + others - 1,
                                                            dtype=p.dtype))
                p = p.to(dtype)
                grad_x[at:at + rows] = p @ low
                grad_weight += p.t() @ part
        ctx.save_for_backward(grad_x, grad_weight)
        losses = x.new_tensor(total), x.new_tensor(plain)
        ctx.mark_non_differentiable(losses[1])
        return losses

    @staticmethod
    def backward(ctx, grad, _):
        grad_x, grad_weight = ctx.saved_tensors
        return grad * grad_x, grad * grad_weight, None, None, None


class Stack(nn.Module):
    """An encoder or a decoder: embeddings, layers and, with pre-norm, the norm after them."""

    def __init__(self, shape, embed_tokens, memory_width=0):
        super().__init__()
        d, self.shape = shape.width, shape
        self.embed_tokens = embed_tokens
        rows = shape.max_positions + POSITION_OFFSET
        if shape.learned_pos:
            self.embed_positions = nn.Embedding(rows, d)
        self.layers = nn.ModuleList(Layer(shape, memory_width) for _ in range(shape.layers))
        if shape.normalize_before:
            self.layer_norm = nn.LayerNorm(d)
        half = d // 2
        rate = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        angle = torch.arange(rows)[:, None] * rate
        self.register_buffer("sinusoid", torch.cat([angle.sin(), angle.cos()], 1), False)

    def start(self):
        """Random weights; learned positions start as sinusoids."""
        d = self.shape.width
        for name, p in self.named_parameters():
            if "embed" in name:
                nn.init.normal_(p, std=d ** -0.5)
            elif p.dim() == 2:
                nn.init.xavier_uniform_(p)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        if self.shape.learned_pos:
            self.embed_positions.weight.data = self.sinusoid * d ** -0.5

    def forward(self, tokens, plan, mask, memory=None, memory_mask=None):
        shape, rows = self.shape, slice(POSITION_OFFSET, POSITION_OFFSET + tokens.shape[1])
        if shape.learned_pos:
            x = self.embed_tokens(tokens) + self.embed_positions.weight[rows]
        else:
            x = self.embed_tokens(tokens) * math.sqrt(shape.width) + self.sinusoid[rows]
        x = F.dropout(x, shape.dropout, True) if self.training and shape.dropout else x
        for i in plan:
            x = self.layers[i](x, mask, memory, memory_mask)
        return self.layer_norm(x) if shape.normalize_before else x


def causal_mask(length, dtype, device):
    return torch.full((length, length), MASKED, device=device).triu(1).to(dtype)


class LanguageModel(nn.Module):
    def __init__(self, args, vocab_size):
        super().__init__()
        shape = Shape(args, "decoder", args.max_target_positions)
        self.decoder = Stack(shape, nn.Embedding(vocab_size, shape.width))
        self.decoder.start()

    def loss(self, batch, plans, smoothing=0.0):
        """Sums of the smoothed loss and of -log p of batch["targets"]."""
        decoder, tokens = self.decoder, batch["inputs"]
        mask = causal_mask(tokens.shape[1], decoder.shape.dtype, tokens.device)
        x = decoder(tokens, plans["decoder"], mask)
        return TiedCrossEntropy.apply(x.reshape(-1, x.shape[-1]), decoder.embed_tokens.weight,
                                      batch["targets"].reshape(-1), decoder.shape.dtype, smoothing)


class EncoderDecoder(nn.Module):
    """The output matrix is the decoder's embedding, with share_all_embeddings the encoder's too."""

    def __init__(self, args, vocab_size):
        super().__init__()
        shape = Shape(args, "decoder", args.max_target_positions)
        source = Shape(args, "encoder", args.max_source_positions)
        embed = nn.Embedding(vocab_size, shape.width)
        self.decoder = Stack(shape, embed, source.width)
        self.encoder = Stack(source, embed if args.share_all_embeddings
                             else nn.Embedding(vocab_size, source.width))
        self.decoder.start()
        self.encoder.start()

    def encode(self, source, plan):
        """The encoder's output and the mask that hides its pads, None where there are none."""
        pads = source.eq(PAD)
        mask = pads[:, None].to(self.encoder.shape.dtype) * MASKED if pads.any() else None
        return self.encoder(source, plan, mask), mask

    def loss(self, batch, plans, smoothing=0.0):
        """Sums of the smoothed loss and of -log p of batch["targets"], pads left out."""
        decoder, tokens = self.decoder, batch["inputs"]
        memory, memory_mask = self.encode(batch["source"], plans["encoder"])
        mask = causal_mask(tokens.shape[1], decoder.shape.dtype, tokens.device)
        x = decoder(tokens, plans["decoder"], mask, memory, memory_mask)
        targets = batch["targets"].reshape(-1)
        x, real = x.reshape(-1, x.shape[-1]), targets.ne(PAD)
        x, targets = (x, targets) if real.all() else (x[real], targets[real])
        return TiedCrossEntropy.apply(x, decoder.embed_tokens.weight, targets,
                                      decoder.shape.dtype, smoothing)
