"""The training step, and the state that lies between one step and the next."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attempt.checkpoint import Trained
from attempt.machine import distributed
from attempt.machine.device import Machine
from attempt.machine.graphs import Batch, Graphs
from attempt.runs.plan import Plan
from attempt.training.optimizer import Adafactor, learning_rate_factor, settle_steps
from model.errors import AttemptError, briefly
from model.t5 import IGNORED, T5

MOST_TOLD = 20  # skipped steps whose examples are listed; all are counted


class Trainer:
    """Takes steps; holds the optimizer, losses and gradient norms since the last evaluation, and the best scores.

    `evaluated` is the step of the last evaluation. With graphs, what a step changes stays where it is in memory.
    """

    def __init__(self, options: Plan, t5: T5, machine: Machine, trained: Trained, graphs: Graphs | None = None) -> None:
        self.options, self.t5, self.machine, self.trained, self.graphs = options, t5, machine, trained, graphs
        self.optimizer = new_optimizer(options, trained, capturable=graphs is not None)
        self.total = torch.zeros((), device=machine.device)  # loss of the parts of this step's batch so far
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scaler = machine.scaler()
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []  # of the gradients, before they are clipped
        self.skipped, self.first_skipped = 0, list[tuple[int, str]]()  # steps, and why, by --skip-bad-steps
        self.step, self.evaluated, self.seconds = 0, 0, 0.0
        self.best, self.best_step = -math.inf, 0
        self.best_scores: list[dict[str, Any]] = []

    @property
    def lr(self) -> float:
        """The learning rate of the last step (of the prompts, where the attention network has another)."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def rows(self) -> int:
        """Most examples of a part of a batch."""
        return math.ceil(self.options.batch_size / (self.options.accumulate * distributed.size()))

    def train_step(self, *parts: Batch) -> None:
        """Train on a batch: on the parts of it that are this process's, one after the other."""
        options, graphs = self.options, self.graphs
        factor = learning_rate_factor(self.step, options.steps, options.warmup, options.schedule)
        for group in self.optimizer.param_groups:
            set_rate(group, group["peak_lr"] * factor)
        if graphs and self.parameters[0].grad is None:
            self.settle()
        self.observe(parts)
        for part in parts:  # the sum of their losses, over all processes, is the mean over the batch's target tokens
            if graphs:
                graphs.add(self.add, part.filled(self.rows), self.added_to)
            else:
                self.add(part.to(self.machine.device))
        distributed.add_up(self.added_to())
        total, *norms = self.updated() if graphs else self.update()
        self.step += 1
        if not (options.skip_bad_steps and self._is_bad(total, *norms)):
            self.losses.append(total)  # read later: .item() here would make the GPU wait at every step
            self.norms += norms

    def add(self, part: Batch) -> None:
        """Forward and backward: what a part of a batch adds to the gradients and the loss."""
        loss = self.loss(part)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.total += loss.detach()

    def update(self) -> tuple[Tensor, ...]:
        """Clip the gradients, take the optimizer's step, and begin anew; the loss and the norm of the gradients."""
        self.scaler.unscale_(self.optimizer)
        # what is not clipped is looked at all the same
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.options.clip or math.inf)
        # with fp16 an infinite norm is usual: the scaler skips the step
        figures = (self.total.clone(),) if self.scaler.is_enabled() else (self.total.clone(), norm.detach())
        if self.to_step(figures):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.total.zero_()
        self.optimizer.zero_grad(set_to_none=self.graphs is None)
        return figures

    def to_step(self, figures: tuple[Tensor, ...]) -> bool:
        """Whether the optimizer is to step; in a graph, where nobody can be asked, it leaves a bad step out itself."""
        if not self.options.skip_bad_steps:
            return True
        good = torch.stack(figures).isfinite().all()
        if self.graphs is None:
            return bool(good)
        self.optimizer.found_inf = 1.0 - good.float()  # type: ignore[attr-defined]
        return True

    def updated(self) -> tuple[Tensor, ...]:
        """`update` as a graph."""
        assert self.graphs is not None
        if self.graphs.lacks("update"):
            scale = self.scaler.state_dict()
            self.graphs.record("the optimizer", "update", self.update, changes=self.changed)
            if scale:
                self.scaler.update(scale["scale"])  # ends the step, should it have been broken off
            self.scaler.load_state_dict(scale)
        return self.graphs.run("update", self.update)

    def settle(self) -> None:
        """Give the gradients and the optimizer's state the places where graphs find them."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.scaler.scale(self.total)  # makes the scale's tensor
        self.optimizer.found_inf = torch.ones_like(self.total)  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, that this step is in no graph
            self.optimizer.step()  # a step that is left out: the state is made, and nothing changes
        del self.optimizer.found_inf  # type: ignore[attr-defined]

    def added_to(self) -> list[Tensor]:
        """What `add` changes, but for the random numbers: the loss and the gradients."""
        return [self.total, *(p.grad for p in self.parameters if p.grad is not None)]

    def changed(self) -> list[Tensor]:
        """What `update` changes, but for the scale of fp16."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.added_to(), *self.parameters, *states]

    @torch.no_grad()
    def observe(self, parts: Sequence[Batch]) -> None:
        """Let a G that centres its texts see the whole batch, however it is cut, before any part of it is computed."""
        G = None if self.trained.prompt is None else self.trained.prompt.attention
        if G is None or G.pooling != "centred":
            return
        exact = torch.float32 if self.machine.device.type == "mps" else torch.float64  # no cut changes such a sum
        total = torch.zeros(G.width + 1, dtype=exact, device=self.machine.device)  # of x, and of the texts
        for each in parts:
            part = each.to(self.machine.device)
            x = F.pad(G.pool(self.t5.embedding(part.ids), part.mask).to(exact), (0, 1), value=1)  # (B,D+1)
            total += (part.labels != IGNORED).any(1).to(exact) @ x  # without the rows that fill a part up
        distributed.add_up([total])
        G.observe(total[:-1], total[-1])

    def _is_bad(self, *figures: Tensor) -> bool:
        """Whether a figure of this step is not finite, which is noted. The GPU waits for the answer.

        All processes find the same: the figures are those of the whole batch.
        """
        values = zip(("loss", "norm of the gradient"), torch.stack(figures).tolist(), strict=False)
        bad = [f"{what} {value}" for what, value in values if not math.isfinite(value)]
        if bad:
            self.skipped += 1
            self.first_skipped += [(self.step, bad[0])] if len(self.first_skipped) < MOST_TOLD else []
        return bool(bad)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy in nats, the mean over the batch's target tokens; of a part, what it adds to that mean."""
        with self.machine.autocast():
            return self.t5.loss(batch.ids, batch.seen, batch.labels, self.trained.prompt, batch.tasks, batch.tokens)

    def mean_loss(self, last: int | None = None) -> float:
        """Mean of the last losses, in nats per target token."""
        return torch.stack(self.losses[-last:] if last else self.losses).mean().item() if self.losses else math.nan

    def first_bad(self) -> tuple[int, str] | None:
        """The first step since the last evaluation whose loss or gradient is not finite, and what was found."""
        found = []
        for what, values in (("loss", self.losses), ("norm of the gradient", self.norms)):
            bad = (~torch.stack(values).isfinite()).nonzero().flatten().tolist() if values else []
            if bad:
                found.append((self.step - len(values) + 1 + bad[0], f"{what} {values[bad[0]].item()}"))
        return min(found, default=None)

    def state(self) -> dict[str, Any]:
        """All that decides what the next step does; to be asked for by all processes at once."""
        optimizer = self.optimizer.state_dict()
        for group in optimizer["param_groups"]:
            group["lr"] = float(group["lr"])
        return {
            "step": self.step,
            "evaluated": self.evaluated,
            "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
            "trained": self.trained.state_dict(),
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            "rng": distributed.gather_states(torch.get_rng_state()),  # of every process
            "cuda_rng": distributed.gather_states(self.gpu_random()),
            "best": self.best,
            "best_step": self.best_step,
            "best_scores": self.best_scores,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "first_skipped": self.first_skipped,
        }

    def gpu_random(self) -> Tensor:
        """The state of the GPU's random numbers, in bytes; none without one."""
        device = self.machine.device
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0, dtype=torch.uint8)

    def restore(self, state: dict[str, Any]) -> int:
        """Go back to a state; the number of processes that saved it. Raises AttemptError where it is another run's.

        Another number of processes than that draws other random numbers from here on.
        """
        try:
            state = {"skipped": 0, "first_skipped": [], **state}  # which a run of before did not count
            self._check_state(state)
            self.trained.load_state_dict(state["trained"])
            own = [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, options in zip(self.optimizer.param_groups, own, strict=True):
                set_rate(options, group["lr"])
                group.update(options)  # the options decide these, should they have been changed on purpose
            settle_steps(self.optimizer)
            for parameter in self.parameters:
                check_moments(parameter, self.optimizer.state.get(parameter, {}))
            self.scaler.load_state_dict(state["scaler"])
            self.optimizer.zero_grad()
            if self.graphs:
                self.graphs.clear()  # the state has other places now
            self.restore_random(state["rng"], state["cuda_rng"], state["step"])
            self.step, self.evaluated, self.seconds = state["step"], state["evaluated"], state["seconds"]
            self.losses = list(state["losses"].to(self.machine.device).unbind())
            self.best, self.best_step, self.best_scores = state["best"], state["best_step"], state["best_scores"]
            self.skipped, self.first_skipped = state["skipped"], list(state["first_skipped"])
            return len(state["rng"])
        except (KeyError, IndexError, AttributeError, ValueError, RuntimeError, TypeError) as e:
            problem = f"{type(e).__name__}: {briefly(e)}"
            folder = self.options.folder()
            raise AttemptError(
                f"{folder / 'state.pt'}: expected the state of this run, found another ({problem})"
            ) from None

    def _check_state(self, state: dict[str, Any]) -> None:
        """Raises ValueError or TypeError where a field is not of its kind: the next steps would fail, or go wrong."""
        step, losses = state["step"], state["losses"]
        if not 0 <= state["evaluated"] <= step <= self.options.steps:
            raise ValueError(f"step {step}, evaluated at {state['evaluated']}, in a run of {self.options.steps}")
        if not isinstance(losses, Tensor) or losses.ndim != 1 or losses.dtype != torch.float32:
            raise ValueError("losses that are no list of numbers")
        for name, kinds in (
            ("best", (float, int)),
            ("best_step", (int,)),
            ("seconds", (float, int)),
            ("skipped", (int,)),
        ):
            if type(state[name]) not in kinds:
                raise TypeError(f"{name} {state[name]!r:.50}")
        fields = {"task", "split", "metrics", "invalid", "examples", "answers"}
        if not all(isinstance(score, dict) and score.keys() >= fields for score in state["best_scores"]):
            raise TypeError("best_scores that are no scores")
        if not all(type(step) is int and isinstance(why, str) for step, why in state["first_skipped"]):
            raise TypeError("skipped steps that are none")
        if not all(isinstance(state[name], list) for name in ("rng", "cuda_rng")):
            raise TypeError("random numbers that are no list")
        if not state["rng"] or len(state["rng"]) != len(state["cuda_rng"]):
            raise ValueError(f"random numbers of {len(state['rng'])} and {len(state['cuda_rng'])} processes")

    def restore_random(self, cpu: list[Tensor], gpu: list[Tensor], step: int) -> None:
        if len(cpu) != distributed.size():
            distributed.seed(self.options.seed + step)
            return
        torch.set_rng_state(cpu[distributed.rank()])
        own = gpu[distributed.rank()]
        if self.machine.device.type == "cuda" and len(own):
            torch.cuda.set_rng_state(own, self.machine.device)


def check_moments(parameter: Tensor, state: dict[str, Any]) -> None:
    """Raises ValueError where an optimizer's state cannot be that of this parameter: torch.optim looks at no shapes."""
    shape = tuple(parameter.shape)
    fitting = {"exp_avg": shape, "exp_avg_sq": shape, "v": shape, "step": ()}
    fitting |= {"rows": (*shape[:-1], 1), "columns": (*shape[:-2], 1, *shape[-1:])}
    whole = ({"step", "exp_avg", "exp_avg_sq"}, {"step", "v"}, {"step", "rows", "columns"}, set[str]())
    if state.keys() not in whole:
        raise ValueError(f"an optimizer's state of {', '.join(map(str, state)):.100}")
    for name, value in state.items():
        if isinstance(value, Tensor):
            good = tuple(value.shape) == fitting[name] and value.is_floating_point()
        else:
            good = name == "step" and type(value) is int and value >= 0
        if not good:
            raise ValueError(f"an optimizer's {name} of another shape or kind")


def new_optimizer(options: Plan, trained: Trained, capturable: bool = False) -> torch.optim.Optimizer:
    """capturable: for a graph, in which the learning rate and the number of the step must be tensors."""
    rates = {"prompt": options.lr, "attention": options.attention_lr, "weights": options.lr}
    groups = []
    for name, parameters in trained.parameter_groups().items():
        lr = torch.tensor(rates[name], device=parameters[0].device) if capturable else rates[name]
        groups.append({"params": parameters, "name": name, "lr": lr, "peak_lr": rates[name]})
    if options.optimizer == "adafactor":
        return Adafactor(groups, lr=options.lr, weight_decay=options.weight_decay, capturable=capturable)
    more: dict[str, Any] = {"capturable": True, "fused": True} if capturable else {}
    return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay, **more)


def set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def count(trained: Trained) -> int:
    """Trainable parameters."""
    return sum(p.numel() for group in trained.parameter_groups().values() for p in group)


def frozen(t5: T5) -> tuple[int, int]:
    """How many of the T5's parameters are not trained, and how many of them this process holds: by --shard a part."""
    parameters = [p for p in t5.parameters() if not p.requires_grad]
    own = [p.to_local() if hasattr(p, "to_local") else p for p in parameters]
    return sum(p.numel() for p in parameters), sum(p.numel() for p in own)
