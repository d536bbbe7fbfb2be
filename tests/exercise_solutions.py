"""Right and plausible wrong solutions of docs/exercises, for the test of its tests. Students: look away."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x**2).mean(-1, keepdim=True).add(eps).sqrt() * weight


def relative_bucket(distance: int) -> int:
    first, distance = (16, distance) if distance > 0 else (0, -distance)
    if distance < 8:
        return first + distance
    return first + min(15, 8 + int(8 * math.log(distance / 8) / math.log(128 / 8)))


def pool(E: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([text[own].max(0).values for text, own in zip(E, mask, strict=True)])


def mixture_weights(h: Tensor, sources: Tensor, Q: Tensor, temperature: float) -> Tensor:
    scores = torch.stack([h @ prompt.max(0).values for prompt in [*sources, Q]], dim=1)
    return (scores / temperature).softmax(1)


def instance_prompt(a: Tensor, sources: Tensor, Q: Tensor) -> Tensor:
    return torch.stack([sum(w * P for w, P in zip(row, [*sources, Q], strict=True)) + Q for row in a])


def score_gradient(a: Tensor, g: Tensor, prompts: Tensor) -> Tensor:
    gain = g.flatten(1) @ prompts.flatten(1).T
    return a * (gain - (a * gain).sum(1, keepdim=True))


def token_similarity(a: Tensor, b: Tensor) -> float:
    return sum(F.cosine_similarity(x, y, dim=0).item() for x in a for y in b) / (len(a) * len(b))


def factored(square: Tensor) -> Tensor:
    return square.mean(1)[:, None] * square.mean(0)[None] / square.mean()


def layer_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, None, eps)


def rms_norm_eps_outside(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / ((x**2).mean(-1, keepdim=True).sqrt() + eps) * weight


def bucket_of_the_other_side(distance: int) -> int:
    return relative_bucket(-distance)


def bucket_of_all_32(distance: int) -> int:
    return distance if 0 <= distance < 16 else min(31, 16 + abs(distance) // 8)


def mean_pool(E: Tensor, mask: Tensor) -> Tensor:
    return (E * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def pool_with_zeros(E: Tensor, mask: Tensor) -> Tensor:
    return (E * mask[:, :, None]).amax(1)


def weights_without_target(h: Tensor, sources: Tensor, Q: Tensor, temperature: float) -> Tensor:
    return mixture_weights(h, sources[:-1], sources[-1], temperature)


def weights_without_temperature(h: Tensor, sources: Tensor, Q: Tensor, temperature: float) -> Tensor:
    return mixture_weights(h, sources, Q, 1.0)


def target_once(a: Tensor, sources: Tensor, Q: Tensor) -> Tensor:
    return instance_prompt(a, sources, Q) - Q


def target_unweighed(a: Tensor, sources: Tensor, Q: Tensor) -> Tensor:
    return instance_prompt(torch.cat([a[:, :-1], torch.zeros(len(a), 1)], dim=1), sources, Q)


def gradient_of_the_weights(a: Tensor, g: Tensor, prompts: Tensor) -> Tensor:
    return g.flatten(1) @ prompts.flatten(1).T


def gradient_without_the_mean(a: Tensor, g: Tensor, prompts: Tensor) -> Tensor:
    return a * gradient_of_the_weights(a, g, prompts)


def similarity_of_means(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a.mean(0), b.mean(0), dim=0).item()


def similarity_row_by_row(a: Tensor, b: Tensor) -> float:
    shorter = min(len(a), len(b))
    return F.cosine_similarity(a[:shorter], b[:shorter], dim=1).mean().item()


def factored_without_the_mean(square: Tensor) -> Tensor:
    return square.mean(1)[:, None] * square.mean(0)[None]


def factored_by_sums(square: Tensor) -> Tensor:
    return square.sum(1)[:, None] * square.sum(0)[None] / square.mean()


RIGHT: dict[str, Callable[..., Any]] = {
    solution.__name__: solution
    for solution in (
        rms_norm,
        relative_bucket,
        pool,
        mixture_weights,
        instance_prompt,
        score_gradient,
        token_similarity,
        factored,
    )
}
WRONG: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "rms_norm": (layer_norm, rms_norm_eps_outside),
    "relative_bucket": (bucket_of_the_other_side, bucket_of_all_32),
    "pool": (mean_pool, pool_with_zeros),
    "mixture_weights": (weights_without_target, weights_without_temperature),
    "instance_prompt": (target_once, target_unweighed),
    "score_gradient": (gradient_of_the_weights, gradient_without_the_mean),
    "token_similarity": (similarity_of_means, similarity_row_by_row),
    "factored": (factored_without_the_mean, factored_by_sums),
}
