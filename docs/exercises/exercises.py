"""Eight functions to write. docs/exercises.md says how; python -m pytest docs/exercises checks them.

Shapes: B examples, S positions of a text, L rows of a prompt, D width of the model, P prompts in a mixture.
"""

from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """T5's norm: x (...,D) divided by the root of its mean square (plus eps), times weight (D)."""
    raise NotImplementedError("exercise 1, rms_norm,")


def relative_bucket(distance: int) -> int:
    """The encoder's bucket, 0 to 31, of a key at this distance from the query (key position minus query position).

    There are 16 buckets for keys at 0 or behind, and 16 more for keys ahead. The first 8 of each have one distance
    each. The others follow a logarithmic scale up to a distance of 128; all keys from there on share the last bucket.
    """
    raise NotImplementedError("exercise 2, relative_bucket,")


def pool(E: Tensor, mask: Tensor) -> Tensor:
    """A text in one vector: embeddings E (B,S,D), mask (B,S) true on text -> the maximum over the text, (B,D)."""
    raise NotImplementedError("exercise 3, pool,")


def mixture_weights(h: Tensor, sources: Tensor, Q: Tensor, temperature: float) -> Tensor:
    """a_j = softmax_j(p_j . h / temperature), p_j the maximum over P_j's rows.

    h (B,D), sources (P-1,L,D), the target Q (L,D) as the last prompt -> (B,P).
    """
    raise NotImplementedError("exercise 4, mixture_weights,")


def instance_prompt(a: Tensor, sources: Tensor, Q: Tensor) -> Tensor:
    """P_instance = sum_j a_j P_j + Q, where the last P_j is Q: weights (B,P), (P-1,L,D), (L,D) -> (B,L,D)."""
    raise NotImplementedError("exercise 5, instance_prompt,")


def score_gradient(a: Tensor, g: Tensor, prompts: Tensor) -> Tensor:
    """The gradient of the loss for the scores s_j, of which a = softmax(s) are the weights.

    Weights a (B,P), the loss's gradient g (B,L,D) for P_instance, all prompts (P,L,D), the target's the last -> (B,P).
    """
    raise NotImplementedError("exercise 6, score_gradient,")


def token_similarity(a: Tensor, b: Tensor) -> float:
    """SPoT's second similarity of two prompts (L,D) and (M,D): the mean cosine over all pairs of their rows."""
    raise NotImplementedError("exercise 7, token_similarity,")


def factored(square: Tensor) -> Tensor:
    """Adafactor's second moment, from nothing but the means of its rows and columns: v (n,m) -> about v, (n,m).

    Exact where v is an outer product.
    """
    raise NotImplementedError("exercise 8, factored,")
