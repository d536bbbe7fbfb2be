"""Soft prompts: what prompt tuning trains (Lester et al. 2021), and its initial values (their sec. 3.2).

Shapes: K target tasks, L prompt length, D model width, P prompts in a mixture (sources + target).
"""

import torch
from torch import Tensor, nn

from attempt.attention import PromptAttention
from model.errors import AttemptError
from model.t5 import of_tasks

COMMON = 5000  # Lester et al. draw from the 5,000 most common pieces, which have the lowest ids


class SoftPrompt(nn.Module):
    """All that is trained: a prompt per task and, for ATTEMPT, the attention network G that all tasks share.

    The backbone's encoder reads the three attributes; how they enter stands in model/t5.py, Encoder.forward.

        target      (K,L,D)    trainable, one prompt per task
        sources     (P-1,L,D)  frozen prompts of other tasks; None for plain prompt tuning
        attention   G          weighs the sources and the target for each instance; None for plain prompt tuning
    """

    sources: Tensor | None

    def __init__(
        self,
        target: Tensor,
        sources: Tensor | None = None,
        attention: PromptAttention | None = None,
        use_target: bool = True,
    ) -> None:
        super().__init__()
        if (sources is None) != (attention is None):
            raise ValueError("a mixture needs both sources and an attention network")
        if sources is not None and sources.shape[1:] != target.shape[1:]:
            raise AttemptError(
                f"expected source prompts of shape {tuple(target.shape[1:])} (prompt length, model width) like the "
                f"target's, found {tuple(sources.shape[1:])}; give sources of the same model and --prompt-length"
            )
        self.target = nn.Parameter(target.detach().clone().float(), requires_grad=use_target)
        self.attention = attention
        self.use_target = use_target
        self.register_buffer("sources", None if sources is None else sources.detach().clone().float())

    @property
    def prompt(self) -> "SoftPrompt":
        """What the encoder is given."""
        return self

    def weights(self, E: Tensor, mask: Tensor, tasks: Tensor) -> Tensor:
        """How much of each prompt a text gets, the target's the last; of variant `token` the mean over positions.

        E (B,S,D), mask (B,S), tasks (B,) -> (B,P). Raises ValueError where nothing is mixed.
        """
        if self.attention is None or self.sources is None:
            raise ValueError("only a mixture has weights")
        Q = of_tasks(self.target, tasks) if self.use_target else None
        return self.attention(E, mask, self.sources, Q).mean(2)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The trainable parameters by the learning rate they follow: the prompts' and the attention network's."""
        groups = {"prompt": [self.target], "attention": list(self.attention.parameters()) if self.attention else []}
        trained = {name: [p for p in parameters if p.requires_grad] for name, parameters in groups.items()}
        return {name: parameters for name, parameters in trained.items() if parameters}


def uniform(length: int, width: int, generator: torch.Generator) -> Tensor:
    """(L,D), each number uniform in [-0.5, 0.5]."""
    return torch.rand(length, width, generator=generator) - 0.5


def sampled_vocabulary(embedding: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """(L,D): rows of the frozen embedding (V,D), drawn without replacement from the most common pieces."""
    population = min(COMMON, embedding.size(0))
    if length > population:
        raise AttemptError(
            f"expected a prompt length up to {population} for --init vocab, which draws without replacement, "
            f"found {length}; use --init uniform or a shorter prompt"
        )
    return embedding[torch.randperm(population, generator=generator)[:length]].detach().clone().float()


def class_labels(embedding: Tensor, labels: list[list[int]], length: int, generator: torch.Generator) -> Tensor:
    """(L,D): each label's row is the mean of its pieces' embeddings, the rest is sampled vocabulary."""
    rows = sampled_vocabulary(embedding, length, generator)
    for row, ids in zip(rows, labels, strict=False):  # more labels than rows: the first ones
        row.copy_(embedding[ids].detach().float().mean(0))
    return rows


def text(embedding: Tensor, ids: list[int], length: int) -> Tensor:
    """(L,D): the embeddings of a text's pieces, repeated from the start until the prompt is full."""
    if not ids:
        raise AttemptError("expected some text after --init text:, found none")
    return embedding[[ids[i % len(ids)] for i in range(length)]].detach().clone().float()
