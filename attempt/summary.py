"""What a run is about to do, in lines for the terminal."""

from collections.abc import Sequence

from attempt import distributed
from attempt.baselines import METHODS
from attempt.plan import Plan
from attempt.trainer import Trainer, count


def run_lines(options: Plan, trainer: Trainer, sources: list[str], frozen: str, sizes: Sequence[int]) -> list[str]:
    """The method, what is trained, how long and on what. sizes: of the tasks' training sets."""
    lines = [f"method     {options.method}"]
    if options.method not in METHODS:
        lines[0] += f", prompt of {options.prompt_length} x {trainer.t5.config.d_model}, first value {options.init}"
    if sources:
        lines.append(f"sources    {', '.join(sources)}")
    lines.append(f"model      {options.model}, {frozen}")
    groups = [
        f"{group['name']} {sum(p.numel() for p in group['params']):,} (lr {group['peak_lr']:g})"
        for group in trainer.optimizer.param_groups
    ]
    lines.append(f"trainable  {count(trainer.trained):,} parameters: {', '.join(groups)}")
    epochs = options.steps * options.batch_size / options.epoch_examples(sizes)
    lines.append(f"training   {options.steps} steps of {options.batch_size} examples ({epochs:.2g} epochs)")
    lines.append(f"           {options.optimizer}, {options.schedule} rate, warm-up {options.warmup} steps")
    if options.warmup > options.steps:
        peak = options.lr * options.steps / options.warmup
        lines.append(
            f"           the warm-up is longer than the run: the rate rises to {peak:.3g}, not to {options.lr:g}"
        )
    lines.append(f"           evaluation every {options.eval_every} steps")
    lines.append(f"device     {trainer.machine}")
    ways = [f"{distributed.size()} processes at once"] * (distributed.size() > 1)
    ways += [f"{options.accumulate} parts one after the other"] * (options.accumulate > 1)
    if ways:
        lines.append(f"           each batch is computed in {' and '.join(ways)}")
    return lines
