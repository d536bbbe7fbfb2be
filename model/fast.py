"""Faster forms of a T5's parts. model/t5.py has the plain ones; `quicken` puts these in their place.

Each computes the same function; what each gains stands in docs/performance.md. Shapes as in model/t5.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model.cache import KVCache
from model.checkpoint import moved
from model.t5 import T5, Attention, FeedForward, RelativeBias, RMSNorm, row_aligned


@dataclass(frozen=True)
class Forms:
    """Which parts take a faster form."""

    kernel: bool = True
    """Softmax and both products of attention in one kernel, which keeps no scores for the way back."""
    absorb: bool = True
    """Cross-attention in the space of the encoder's states, without keys and values of them all."""
    fuse: bool = True
    """q, k and v as one product, wi_0 and wi_1 too, each matrix with the scale of the norm before it."""
    dropout: bool = True
    """On a CPU: four 16-bit random numbers from each 64-bit draw, where PyTorch draws for each element."""
    sequence_dropout: bool = False
    """One draw for all positions of a sequence: another, cheaper regularisation, T5's own. Without `kernel`."""


PLAIN = Forms(kernel=False, absorb=False, fuse=False, dropout=False)


def quicken(t5: T5, forms: Forms, dtype: torch.dtype = torch.float32) -> T5:
    """Put the chosen forms in the place of the plain ones, in this T5.

    dtype: keep frozen matrices in it. Autocast would cast an fp32 one anew at each use. Where weights are trained,
    these stay what they are and have no use for `fuse` and `dtype`.
    """
    frozen = not any(p.requires_grad for p in t5.parameters())
    for block in (*t5.encoder.blocks, *t5.decoder.blocks):
        if forms.absorb and hasattr(block, "cross_attention") and block.cross_attention.k.bias is None:
            block.cross_attention = AbsorbedAttention(block.cross_attention)
        if forms.fuse and frozen:
            block.attention = FusedAttention(block.attention, block.attention_norm, dtype)
            block.attention_norm = UnitNorm(block.attention_norm)
            block.feed_forward = FusedFeedForward(block.feed_forward, block.feed_forward_norm, dtype)
            block.feed_forward_norm = UnitNorm(block.feed_forward_norm)
            if hasattr(block, "cross_attention"):
                block.cross_attention.q = Joined(block.cross_attention_norm, (block.cross_attention.q,), dtype)
                block.cross_attention_norm = UnitNorm(block.cross_attention_norm)
    if forms.kernel:
        for stack in (t5.encoder, t5.decoder):
            stack.relative_bias = KernelBias(stack.relative_bias)
    for module in list(t5.modules()):
        if isinstance(module, Attention):
            module.kernel = forms.kernel and not forms.sequence_dropout
        for name, child in module.named_children():
            if type(child) is nn.Dropout and (forms.dropout or forms.sequence_dropout):
                setattr(module, name, SequenceDropout(child.p) if forms.sequence_dropout else QuickDropout(child.p))
    t5.train(t5.training)  # the new parts too
    return cast(t5, dtype) if frozen and dtype != torch.float32 else t5


def cast(t5: T5, dtype: torch.dtype) -> T5:
    """Keep the matrices and the bias tables in another dtype; embeddings and norms stay fp32, as the states do.

    One matrix after the other: each may come from a mapped file, and another device (`load_t5`).
    """
    E = t5.embedding.weight
    if t5.head is None:
        t5.head, t5.head_scale = linear(E if t5.head_scale is None else E * t5.head_scale), None
    for module in list(t5.modules()):
        if dtype == torch.float16 and isinstance(module, Attention):
            module.o = WideLinear(module.o, E.device)
        if dtype == torch.float16 and isinstance(module, FeedForward):
            module.wo = WideLinear(module.wo, E.device)
    for module in t5.modules():
        if type(module) is nn.Linear:  # the others are made in it
            module.weight = nn.Parameter(moved(module.weight, E.device, dtype), requires_grad=False)
        elif isinstance(module, RelativeBias):
            module.to(dtype)
    t5.encoder.norm = NarrowNorm(t5.encoder.norm, dtype)
    return t5


def linear(weight: Tensor) -> nn.Linear:
    """A frozen matrix (n,D) as a module."""
    module = nn.Linear(weight.size(1), weight.size(0), bias=False, device="meta")
    module.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return module


class WideLinear(nn.Linear):
    """A frozen matrix whose result, in fp16, may exceed fp16's 65504: computed 2^-8 times as large, and scaled back."""

    def __init__(self, plain: nn.Linear, device: torch.device) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        small = moved(plain.weight, device, torch.float32).mul_(2**-8)
        self.weight = nn.Parameter(small.to(torch.float16), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = Wide.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return y


class Wide(torch.autograd.Function):
    """2^8 W x in fp32, for a small W; the gradient is scaled after its product too, before which it would overflow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight).float() * 2**8

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return (dy.to(weight.dtype) @ weight) * 2**8, None


class UnitNorm(nn.Module):
    """RMSNorm whose scale stands in the matrix that reads it."""

    def __init__(self, plain: RMSNorm) -> None:
        super().__init__()
        self.eps = plain.eps

    def forward(self, x: Tensor) -> Tensor:
        # x / sqrt(mean(x^2) + eps)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            y: Tensor = UnitScale.apply(x, self.eps)  # type: ignore[no-untyped-call]
            return y
        return F.rms_norm(x, x.shape[-1:], None, self.eps)


class UnitScale(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) and its gradient, in half as many passes over memory as PyTorch makes on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        r = norm.square_().div_(x.size(-1)).add_(eps).rsqrt_()  # (…,1)
        y = (x * r).type_as(x)
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        # dx = r (dy - y mean(dy y))
        y, r = ctx.saved_tensors
        return torch.addcmul(dy, y, (dy * y).mean(-1, keepdim=True).neg_()).mul_(r), None


class KernelBias(RelativeBias):
    """The bias as attention's fused kernels take it: in the products' dtype, its rows contiguous and aligned.

    One that is laid out otherwise sends PyTorch to its plain path without a word. The buckets of all distances are
    found once; those beyond `max_distance` share the last.
    """

    bucket_of: Tensor  # (2*M+1,), of the distances -M … M

    def __init__(self, plain: RelativeBias) -> None:
        nn.Module.__init__(self)
        self.table, self.max_distance, self.bidirectional = plain.table, plain.max_distance, plain.bidirectional
        distances = torch.arange(-self.max_distance, self.max_distance + 1, device=plain.table.weight.device)
        self.register_buffer("bucket_of", self.buckets(distances), persistent=False)

    def forward(self, queries: Tensor, keys: Tensor, seen: Tensor | None = None) -> Tensor:
        M, device = self.max_distance, keys.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.table.weight.dtype
        distance = keys[None, :] - queries[:, None]  # (q,k)
        bias = self.table(self.bucket_of[distance.clamp(-M, M) + M]).to(dtype)  # (q,k,H)
        bias = bias.permute(2, 0, 1)[None].contiguous()  # (1,H,q,k)
        hidden = self.hidden(distance, seen)
        return row_aligned(bias if hidden is None else bias.masked_fill(hidden, torch.finfo(dtype).min))


class NarrowNorm(nn.Module):
    """A norm whose result is cast once, not by each matrix that reads it."""

    def __init__(self, plain: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.plain, self.dtype = plain, dtype

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.plain(x)
        return y.to(self.dtype)


class Joined(nn.Linear):
    """Frozen matrices (n_i,D) that read a norm's result, as one (n_1+n_2+…,D) that reads it without its scale g."""

    def __init__(self, norm: RMSNorm, matrices: Sequence[nn.Linear], dtype: torch.dtype) -> None:
        g, heights = norm.weight.detach(), [matrix.out_features for matrix in matrices]
        super().__init__(len(g), sum(heights), bias=False, device="meta")
        whole = g.new_empty(sum(heights), len(g), dtype=g.dtype if dtype == torch.float32 else dtype)
        for matrix, rows in zip(matrices, torch.split(whole, heights), strict=True):
            # W_i (g * x) = (W_i diag(g)) x, computed in fp32, then cast
            rows.copy_(moved(matrix.weight, g.device, g.dtype).mul_(g))
        self.weight = nn.Parameter(whole, requires_grad=False)


class FusedAttention(Attention):
    """Self-attention with one product for queries, keys and values."""

    def __init__(self, plain: Attention, norm: RMSNorm, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.qkv = Joined(norm, (plain.q, plain.k, plain.v), dtype)  # (3*H*d,D)
        self.num_heads, self.o, self.dropout = plain.num_heads, plain.o, plain.dropout

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None, cache: KVCache | None = None) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B,H,T,d) each
        k, v = cache.update(k, v) if cache else (k, v)
        return self.o(self.attend(q, k, v, bias))


class AbsorbedAttention(Attention):
    """Cross-attention for few queries: the matrices of keys and values are applied to these, not to the many states.

    For each element of the states this costs 2*H*T multiplications, keys and values 2*H*d.
    """

    def __init__(self, plain: Attention) -> None:
        nn.Module.__init__(self)
        self.q, self.k, self.v, self.o = plain.q, plain.k, plain.v, plain.o
        self.num_heads, self.dropout = plain.num_heads, plain.dropout

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None, cache: KVCache | None = None) -> Tensor:
        W_k, W_v = (m.weight.view(self.num_heads, -1, memory.size(2)) for m in (self.k, self.v))  # (H,d,D)
        if 2 * x.size(1) > W_k.size(1):
            return super().forward(x, memory, bias, cache)
        # q (W_k m)^T = (q W_k) m^T
        q = torch.einsum("bhtd,hde->bhte", self.split(self.q(x)), W_k)  # (B,H,T,D)
        scores = (q.flatten(1, 2) @ memory.transpose(1, 2)).view(*q.shape[:3], -1)  # (B,H,T,S)
        scores = scores if bias is None else scores + bias
        a = self.dropout(F.softmax(scores, dim=-1, dtype=torch.float32).type_as(q))
        # sum_s a_s (W_v m_s) = W_v (sum_s a_s m_s)
        context = (a.flatten(1, 2) @ memory).view_as(q)  # (B,H,T,D)
        return self.o(torch.einsum("bhte,hde->bthd", context, W_v).flatten(2))


class FusedFeedForward(FeedForward):
    """wo(relu(wi x)) or wo(gelu(wi_0 x) * wi_1 x), with one product for wi_0 and wi_1."""

    def __init__(self, plain: FeedForward, norm: RMSNorm, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.gated, self.activation = plain.gated, plain.activation
        self.wi = Joined(norm, (plain.wi_0, plain.wi_1) if plain.gated else (plain.wi,), dtype)
        self.wo, self.dropout = plain.wo, plain.dropout

    def forward(self, x: Tensor) -> Tensor:
        h = self.wi(x)
        if self.gated:
            g, h = h.chunk(2, dim=-1)
            return self.wo(self.dropout(self.activation(g) * h))
        if self.activation is F.relu and isinstance(self.dropout, QuickDropout) and h.device.type == "cpu":
            return self.wo(relu_dropout(h, self.dropout.p if self.training else 0.0))
        return self.wo(self.dropout(self.activation(h)))


class QuickDropout(nn.Dropout):
    """Zero a share p of the elements, scale the others by 1/(1-p)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)  # a GPU draws fast enough
        return x * kept(x, self.p)


def rounded(p: float) -> tuple[int, float]:
    """How many of 65536 numbers drop an element, at most all but one, and by what the others are scaled: 1/(1-p)."""
    dropped = min(round(p * 2**16), 2**16 - 1)
    return dropped, 2**16 / (2**16 - dropped)


def kept(like: Tensor, p: float) -> Tensor:
    """A tensor shaped like another: 0 with probability p, to the nearest 1/65536; what is kept has 1/(1-p)."""
    n, (dropped, scale) = like.numel(), rounded(p)
    bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits are random
    mask = torch.empty(like.shape, dtype=like.dtype)
    torch.ge(bits.view(torch.int16)[:n].view(like.shape), dropped - 2**15, out=mask)  # 0 and 1, without a bool between
    return mask.mul_(scale)


def relu_dropout(h: Tensor, p: float) -> Tensor:
    result: Tensor = ReluDropout.apply(h, p)  # type: ignore[no-untyped-call]
    return result


class ReluDropout(torch.autograd.Function):
    """Dropout of relu(h) in h's own memory. What was kept shows in the result, so no mask is kept with it."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, p: float) -> Tensor:
        h.relu_()
        if p:
            h.mul_(kept(h, p))
        ctx.mark_dirty(h)
        ctx.save_for_backward(h)
        ctx.p = p
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        # dh = dy / (1-p) where y > 0, in the memory of y, which only a frozen matrix has read
        (y,) = ctx.saved_tensors
        dropped, scale = rounded(ctx.p)
        torch.ops.aten.threshold_backward.grad_input(dy, y, 0, grad_input=y)
        return y.mul_(scale) if dropped else y, None


class SequenceDropout(nn.Dropout):
    """One draw for all positions of a sequence, and for all queries of a head, as T5's own code has it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.dropout(x.new_ones(*x.shape[:-2], 1, x.size(-1)), self.p, self.training)
