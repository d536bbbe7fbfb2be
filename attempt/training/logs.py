"""A run's curves for TensorBoard and for Weights & Biases, where a flag asks for them.

Without the flags nothing of either is imported. Rank 0 alone writes. A run that goes on writes on in the same log.
"""

import importlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attempt.command.options import Options
from attempt.machine import distributed
from attempt.runs.plan import Plan
from model.errors import AttemptError, Interrupted, briefly
from model.files import write_whole

TENSORBOARD = "tensorboard"  # the folder of its files, in the run's
WANDB_ID = "wandb-id.txt"  # which of the project's runs is this one


class TensorBoard:
    """Event files in the run's folder: tensorboard --logdir runs."""

    def __init__(self, folder: Path, step: int) -> None:
        module = imported("torch.utils.tensorboard", "tensorboard")
        # what an interrupted run had written of the steps that now come again is not shown
        self.writer = module.SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a killed run keeps them

    def close(self, failed: bool) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of a project at wandb.ai, or under wandb/ in the run's folder with WANDB_MODE=offline.

    Neither the terminal's lines nor the command line are sent: a mirror's password might stand there.
    """

    def __init__(self, folder: Path, options: Plan) -> None:
        module, path = imported("wandb", "wandb"), folder / WANDB_ID
        if not path.exists():
            write_whole(path, f"{secrets.token_hex(8)}\n".encode())
        try:
            self.run = module.init(
                project=options.wandb,
                name=str(folder),
                id=path.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(folder),
                config=options.stored(),
                settings=module.Settings(console="off", x_disable_meta=True),
            )
        except Exception as e:  # its errors are of many classes: no account, no network, no such project
            raise AttemptError(
                f"--wandb {options.wandb}: expected a run at Weights & Biases, found {briefly(e)}; log in by `wandb "
                "login`, or keep the curves here by WANDB_MODE=offline"
            ) from None
        # by its own counter a step that is done again after an interruption would be left out
        self.run.define_metric("*", step_metric="step")

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log({**figures, "step": step})

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise AttemptError(
            f"--{extra}: expected the package {extra}, found none ({briefly(e)}); install it by pip install -e "
            f"'.[{extra}]'"
        ) from None


def check_logs(options: Options) -> None:
    """Raises AttemptError where a package that a flag needs is not there: before anything is loaded."""
    if distributed.is_main() and options.tensorboard:
        imported("torch.utils.tensorboard", "tensorboard")
    if distributed.is_main() and options.wandb is not None:
        imported("wandb", "wandb")


class Logs:
    """All logs of a run: none, unless a flag asks for them."""

    def __init__(self) -> None:
        self.places: list[TensorBoard | WeightsAndBiases] = []

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for place in self.places:
            place.write(step, figures)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """An evaluation's line of metrics.jsonl: scores, and the mixture's weights."""
        self.write(record["step"], figures_of(record))

    @contextmanager
    def opened(self, options: Plan, step: int) -> Iterator[None]:
        """Write on from a step, up to the end of the block."""
        failed = True
        try:
            if distributed.is_main() and options.tensorboard:
                self.places.append(TensorBoard(options.folder(), step))
            if distributed.is_main() and options.wandb is not None:
                self.places.append(WeightsAndBiases(options.folder(), options))
            yield
            failed = False
        except Interrupted:
            failed = False  # it goes on later
            raise
        finally:
            while self.places:
                self.places.pop().close(failed)


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, by names whose parts "/" separates: dev/rte/accuracy, mixture/rte/mnli."""
    found: dict[str, float] = {}
    for score in record["scores"]:
        place = f"{score['split']}/{score['task']}"
        found |= {f"{place}/{name}": value for name, value in score["metrics"].items()}
        found[f"{place}/invalid"] = score["invalid"]
    for task, mixture in record.get("mixture", {}).items():
        found |= {f"mixture/{task}/{name}": weight for name, weight in mixture["weights"].items()}
        found |= {f"mixture {name}/{task}": mixture[name] for name in ("entropy", "deviation")}
    if "mixture_between_tasks" in record:
        found["mixture deviation/between tasks"] = record["mixture_between_tasks"]
    return found
