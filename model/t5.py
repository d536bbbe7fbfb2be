"""T5 v1.0 and v1.1 in plain PyTorch, leaf to root (Raffel et al. 2020; Shazeer 2020 for the gated units).

Shapes, here and in every file of the project:
    B batch                S text positions of the encoder     L prompt length       D model width (d_model)
    T decoder positions    N = L+S encoder positions in all    P prompts in a mixture (sources + target)
    H heads                d width of a head (d_kv)            K target tasks        V vocabulary

On a first reading skip what is marked [later]. It is there for speed, for answers written token by token, and for the
baselines. Begin with Encoder.forward, which has the method, and come back for the rest.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.cache import KVCache
from model.config import ACTIVATIONS, T5Config

IGNORED = -100  # the label of target padding: takes no part in the loss
ALIGNED = 16  # [later] rows of a bias take a multiple of so many numbers in memory, as fused attention kernels need
LONG = 256  # [later] keys from which the CPU's attention kernel, which has no dropout, is as fast as the products


class PromptProvider(Protocol):
    """What the encoder needs of a soft prompt (attempt/prompt.py has one)."""

    @property
    def target(self) -> Tensor:
        """One trainable prompt per task, (K,L,D)."""

    @property
    def sources(self) -> Tensor | None:
        """The frozen source prompts of a mixture, (P-1,L,D); None for plain prompt tuning."""

    @property
    def attention(self) -> Callable[[Tensor, Tensor | None, Tensor, Tensor | None], Tensor] | None:
        """Maps (E, mask, sources, Q) to the mixture's weights, (B,P,1) or one per position, (B,P,L); None for
        plain prompt tuning. Without Q the mixture is of the sources alone."""

    @property
    def use_target(self) -> bool:
        """Whether Q takes part in a mixture: as a candidate, and added once more."""


class RMSNorm(nn.Module):
    """Scale by the root of the mean square: no mean is subtracted."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.bias: nn.Parameter | None = None  # [later] no T5 has one; BitFit adds it (attempt/baselines.py)
        self.eps = config.layer_norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        # x / sqrt(mean(x^2) + eps) * weight, the mean in fp32 whatever the dtype of x
        mean_square = x.float().square().mean(-1, keepdim=True)
        normed = (x * torch.rsqrt(mean_square + self.eps)).type_as(x) * self.weight
        return normed if self.bias is None else normed + self.bias


class RelativeBias(nn.Module):
    """One learned number per head and bucket of distances, added to the scores in every layer of a stack."""

    def __init__(self, config: T5Config, bidirectional: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)
        self.max_distance = config.relative_attention_max_distance
        self.bidirectional = bidirectional

    def buckets(self, distance: Tensor) -> Tensor:
        """Key position minus query position -> bucket: exact when near, log-spaced up to max_distance."""
        count = self.table.num_embeddings
        first: Tensor | int = 0
        if self.bidirectional:  # half of the buckets for keys behind the query, half for keys ahead
            count //= 2
            first = (distance > 0).long() * count
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = count // 2
        ratio = torch.log(distance.float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (ratio * (count - exact)).clamp(min=0).long()).clamp(max=count - 1)
        return first + torch.where(distance < exact, distance, far)

    def forward(self, queries: Tensor, keys: Tensor, seen: Tensor | None = None) -> Tensor:
        """The positions of queries (q,) and keys (k,) -> what is added to their scores, (1,H,q,k).

        seen: false where a query must not see a key, (B or 1,1,q or 1,k): there the result, now (B or 1,H,q,k), is the
        lowest number, of which softmax makes 0. A stack that writes sees no position ahead of the query's, either.
        """
        distance = keys[None, :] - queries[:, None]  # (q,k)
        bias = self.table(self.buckets(distance)).permute(2, 0, 1)[None]  # (1,H,q,k)
        hidden = self.hidden(distance, seen)
        return bias if hidden is None else bias.masked_fill(hidden, torch.finfo(bias.dtype).min)

    def hidden(self, distance: Tensor, seen: Tensor | None) -> Tensor | None:
        """Which keys a query must not see; None where it sees them all."""
        ahead = None if self.bidirectional else distance > 0
        if seen is None or ahead is None:
            return ahead if seen is None else ~seen
        return ahead | ~seen


class Attention(nn.Module):
    """Multi-head attention, of a sequence to itself or of the decoder to the encoder's states."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv  # need not equal D
        self.num_heads = config.num_heads
        self.kernel = False  # [later] model/fast.py: take PyTorch's kernel, which computes the same
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)  # (B,n,H*d) -> (B,H,n,d)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Queries (B,H,T,d), keys and values (B,H,S,d), bias (B,H,T,S) -> what the queries find, (B,T,H*d)."""
        p = self.dropout.p if self.training else 0.0
        if self.kernel and (q.device.type != "cpu" or (p == 0 and k.size(2) >= LONG)):
            context = F.scaled_dot_product_attention(q, k, v, bias, p, scale=1.0)  # (B,H,T,d)
        else:
            # softmax(q k^T + bias) v; no 1/sqrt(d): T5 was trained without it
            scores = q @ k.transpose(-1, -2)  # (B,H,T,S)
            scores = scores if bias is None else scores + bias
            context = self.dropout(F.softmax(scores, dim=-1, dtype=torch.float32).type_as(v)) @ v
        return context.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None, cache: KVCache | None = None) -> Tensor:
        """x (B,T,D) looks at memory (B,S,D), x itself in self-attention; bias is added to the scores (B,H,T,S)."""
        if cache and cache.kv and cache.position is None:  # [later] keys and values that earlier tokens have left
            k, v = cache.kv
        else:
            k, v = self.split(self.k(memory)), self.split(self.v(memory))  # (B,H,S,d)
            k, v = cache.update(k, v) if cache else (k, v)
        return self.o(self.attend(self.split(self.q(x)), k, v, bias))


class FeedForward(nn.Module):
    """wo(relu(wi x)) in v1.0, wo(gelu(wi_0 x) * wi_1 x) in v1.1."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        if config.gated:
            self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.gated, self.activation = config.gated, ACTIVATIONS[config.activation]
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.wi_0(x)) * self.wi_1(x) if self.gated else self.activation(self.wi(x))
        return self.wo(self.dropout(h))


class Block(nn.Module):
    """A layer of a stack: self-attention, in the decoder cross-attention too, and a feed-forward network.

    Each reads the normed sum so far and adds to it. The adapters do nothing until attempt/baselines.py puts real ones
    in their place.
    """

    def __init__(self, config: T5Config, decoder: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config)
        self.attention_adapter: nn.Module = nn.Identity()
        if decoder:
            self.cross_attention_norm = RMSNorm(config)
            self.cross_attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_adapter: nn.Module = nn.Identity()
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Tensor | None = None,
        memory_bias: Tensor | None = None,
        caches: tuple[KVCache, KVCache] | tuple[None, None] = (None, None),
    ) -> Tensor:
        h = self.attention_norm(x)
        x = x + self.dropout(self.attention_adapter(self.attention(h, h, bias, caches[0])))
        if memory is not None:
            h = self.cross_attention_norm(x)
            x = x + self.dropout(self.cross_attention(h, memory, memory_bias, caches[1]))
        return x + self.dropout(self.feed_forward_adapter(self.feed_forward(self.feed_forward_norm(x))))


def row_aligned(bias: Tensor) -> Tensor:
    """[later] The same numbers (…,k), each row contiguous and at an address that fused attention kernels can read."""
    return F.pad(bias.contiguous(), (0, -bias.size(-1) % ALIGNED))[..., : bias.size(-1)]


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Which positions exist, (B,N) -> what to add to the scores, (B,1,1,N): 0, or a number that softmax makes 0."""
    missing = ~mask[:, None, None, :]
    return torch.zeros(missing.shape, dtype=dtype, device=mask.device).masked_fill(missing, torch.finfo(dtype).min)


def of_tasks(prompts: Tensor, tasks: Tensor) -> Tensor:
    """The prompts (K,L,D) of these tasks (B,), (B,L,D): prompts[tasks]."""
    # embedding always adds up a prompt's gradient in the same order; indexing and index_select leave it to the threads
    return F.embedding(tasks, prompts.flatten(1)).view(-1, *prompts.shape[1:])


class Encoder(nn.Module):
    """The stack that reads [prompt; text]."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.relative_bias = RelativeBias(config, bidirectional=True)
        self.blocks = nn.ModuleList(Block(config, decoder=False) for _ in range(config.num_layers))
        self.norm: nn.Module = RMSNorm(config)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.recompute = False  # [later] keep only each block's input for the backward pass, and compute the rest again

    def forward(
        self, E: Tensor, mask: Tensor | None, prompt: PromptProvider | None = None, tasks: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Text E (B,S,D), mask (B,S) or none if nothing is padded, tasks (B,) -> states (B,N,D), their mask (B,N)."""
        if prompt is not None:
            tasks = E.new_zeros(E.size(0), dtype=torch.long) if tasks is None else tasks
            P = Q = of_tasks(prompt.target, tasks)  # (B,L,D)
            if prompt.attention is not None and prompt.sources is not None:
                # ATTEMPT:  P_instance = sum_j a_j P_j + Q,  the target Q itself being the last P_j
                a = prompt.attention(E, mask, prompt.sources, Q if prompt.use_target else None)  # (B,P,1) or (B,P,L)
                a = a.expand(-1, -1, Q.size(1))  # (B,P,L)
                with torch.autocast(E.device.type, enabled=False):  # bf16 would make nearly equal weights equal
                    P = torch.einsum("bjl,jld->bld", a[:, : len(prompt.sources)], prompt.sources)  # (B,L,D)
                    if prompt.use_target:
                        P = P + a[:, -1, :, None] * Q + Q
            # Prompt tuning:  the encoder reads [P; E]
            E = torch.cat([P.type_as(E), E], dim=1)  # (B,L+S,D)
            if mask is not None:
                mask = torch.cat([mask.new_ones(mask.size(0), Q.size(1)), mask], dim=1)  # (B,L+S)

        x = self.dropout(E)
        positions = torch.arange(x.size(1), device=x.device)
        seen = None if mask is None else mask[:, None, None, :]  # (B,1,1,N)
        bias = self.relative_bias(positions, positions, seen)  # (1,H,N,N), (B,H,N,N) with a mask
        for block in self.blocks:
            x = checkpoint(block, x, bias, use_reentrant=False) if self.recompute else block(x, bias)
        return self.dropout(self.norm(x)), mask


class Decoder(nn.Module):
    """The stack that writes the answer, one token after the other."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.relative_bias = RelativeBias(config, bidirectional=False)
        self.blocks = nn.ModuleList(Block(config, decoder=True) for _ in range(config.decoder_layers))
        self.norm = RMSNorm(config)
        self.dropout = nn.Dropout(config.dropout_rate)

    def new_caches(self, length: int, position: Tensor) -> list[tuple[KVCache, KVCache]]:
        """[later] Room for `length` tokens; a step's are put at `position` (T,), which may move from step to step."""
        return [(KVCache(length, position), KVCache()) for _ in self.blocks]

    def forward(
        self,
        E: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        caches: list[tuple[KVCache, KVCache]] | None = None,
        answers: int = 1,
    ) -> Tensor:
        """Embeddings E (B,T,D) of tokens, the encoder's states (B,N,D) and their mask (B,N) or none -> (B,T,D).

        caches: [later] the tokens are those at the caches' position, and see what was put in before.
        answers: [later] E holds so many of equal length in a row, (B,answers*T,D); each sees only its own tokens.
        """
        queries = keys = torch.arange(E.size(1) // answers, device=E.device).repeat(answers)
        seen = None
        if caches and (position := caches[0][0].position) is not None:
            queries, keys = position, torch.arange(caches[0][0].length, device=E.device)
        if answers > 1:
            own = torch.arange(answers, device=E.device).repeat_interleave(E.size(1) // answers)
            seen = own[None, None, :, None] == own
        bias = self.relative_bias(queries, keys, seen)
        memory_bias = None if memory_mask is None else row_aligned(mask_bias(memory_mask, bias.dtype))
        x = self.dropout(E)
        for i, block in enumerate(self.blocks):
            x = block(x, bias, memory, memory_bias, caches[i] if caches else (None, None))
        return self.dropout(self.norm(x))


class T5(nn.Module):
    """The whole encoder-decoder. Built with PyTorch's initial values; model/checkpoint.py loads real ones."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head_bias: nn.Parameter | None = None  # [later] only BitFit's
        untied = not config.tie_word_embeddings
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False) if untied else None
        self.head_scale = config.d_model**-0.5 if config.scaled else None
        # [later] whether generation may stop; processes that share the weights must agree (attempt/machine/shard.py)
        self.all_done: Callable[[Tensor], bool] = lambda done: bool(done.all())

    def set_dropout(self, rate: float) -> None:
        """Replace the checkpoint's dropout rate, everywhere."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate

    def logits(self, x: Tensor) -> Tensor:
        """Decoder states (B,T,D) -> scores of the next token (B,T,V)."""
        # v1.0: the embedding is the head, its input scaled by D^-0.5. v1.1: a head of its own, nothing is scaled
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(x if self.head_scale is None else x * self.head_scale, weight, self.head_bias)

    def shift_right(self, labels: Tensor) -> Tensor:
        """What the decoder reads to predict labels (B,T): a start token, then all labels but the last."""
        inputs = labels.masked_fill(labels == IGNORED, self.config.pad_token_id)
        return F.pad(inputs[:, :-1], (1, 0), value=self.config.decoder_start_token_id)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        labels: Tensor,
        prompt: PromptProvider | None = None,
        tasks: Tensor | None = None,
    ) -> Tensor:
        """ids (B,S), mask (B,S) true on text, labels (B,T) padded with -100, tasks (B,) -> logits (B,T,V).

        Without a mask no position is padding.
        """
        memory, memory_mask = self.encoder(self.embedding(ids), mask, prompt, tasks)
        return self.logits(self.decoder(self.embedding(self.shift_right(labels)), memory, memory_mask))

    def loss(
        self,
        ids: Tensor,
        mask: Tensor | None,
        labels: Tensor,
        prompt: PromptProvider | None = None,
        tasks: Tensor | None = None,
        tokens: int | Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy in nats, the mean over the batch's target tokens; shapes as in forward.

        tokens: divide the sum by this number instead: where these rows are a part of a batch, by its target tokens.
        """
        logits = self(ids, mask, labels, prompt, tasks).float().flatten(0, 1)
        if tokens is None:
            return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED)
        return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum") / tokens
