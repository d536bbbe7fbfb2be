"""Prompts to and from other programs: python -m attempt.exchange export RUN --to FOLDER, or import PATH --model NAME …

Shapes: K tasks, L prompt length, D model width.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attempt.attention import PromptAttention
from attempt.checkpoint import PromptConfig, load_prompt, load_sources, origins, save_prompt
from attempt.command.flags import Parser, above_zero, positive
from attempt.exchange.card import Known, model_card
from attempt.foreign import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    EMBEDDING,
    TASKS,
    Foreign,
    read_foreign,
    read_foreign_origin,
)
from attempt.origin import origin_of_model, warn_of_others
from attempt.prompt import SoftPrompt
from attempt.runs.folder import Run
from attempt.runs.plan import Plan
from model.config import width_of
from model.errors import AttemptError, exit_status, meant
from model.files import write_whole
from model.safetensors import safetensors_bytes

# ---- export ----

CARD = "README.md"  # of the adapter, as Hugging Face's Hub shows it


def export_peft(run: Path, folder: Path) -> PromptConfig:
    """Write the prompts of a run (or checkpoint) as an adapter of Hugging Face's PEFT; returns their configuration.

    One task becomes PROMPT_TUNING, several MULTITASK_PROMPT_TUNING, where task_ids choose among them.
    Raises AttemptError for ATTEMPT's runs, which PEFT cannot express, and for a folder with files in it.
    """
    prompt, config = load_prompt(run)
    known = Known.of(run)
    model = config.model if known.plan is None else known.plan.located().model  # a folder must be found from any other
    config = dataclasses.replace(config, model=os.path.abspath(model) if os.path.isdir(model) else model)
    if config.method == "attempt":
        raise AttemptError(
            f"{run}: expected a run of --method prompt or spot, found --method {config.method}, whose prompt depends "
            "on the instance; PEFT's adapters hold only fixed prompts"
        )
    target = prompt.target.detach()  # (K,L,D)
    if not torch.isfinite(target).all():
        raise AttemptError(f"{run}: expected finite numbers in the prompts, found NaN or infinity")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise AttemptError(f"{folder}: expected an empty or new folder for the adapter, found files; give another --to")
    tensors, fields = _packed(target)
    common = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": target.size(1), "num_transformer_submodules": 1}
    adapter = {**fields, **common, "base_model_name_or_path": config.model, "inference_mode": True}
    metadata = {"format": "pt", TASKS: json.dumps(config.names)}
    if config.embedding is not None:
        metadata[EMBEDDING] = json.dumps(config.embedding)
    card = model_card(known, config, *target.shape[1:])
    write_whole(folder / ADAPTER_FILES[0], safetensors_bytes(tensors, metadata))
    write_whole(folder / CARD, card.encode("utf-8"))
    # the configuration comes last: PEFT looks for it first
    write_whole(folder / ADAPTER_CONFIG, (json.dumps(adapter, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
    return config


def _packed(target: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The adapter's tensors, and the fields of its configuration that depend on the number of tasks."""
    K, L, D = target.shape
    if K == 1:
        return {"prompt_embeddings": target[0]}, {"peft_type": "PROMPT_TUNING"}
    # PEFT computes  prompt_k = E * (columns_k rows_k);  E = 1 and columns_k = I leave rows_k = prompt_k, exactly
    tensors = {
        "prefix_task_cols": torch.eye(L).expand(K, L, L),
        "prefix_task_rows": target,
        "prompt_embeddings": torch.ones(L, D),
    }
    return tensors, {"peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": K, "num_ranks": L}


# ---- import ----


def import_run(
    path: Path,
    model: str,
    tasks: list[str],
    out: Path,
    source_prompts: Sequence[str] = (),
    prompt_length: int | None = None,
    labels: str = "digits",
    temperature: float | None = None,
    pool_pads: bool = False,
) -> Foreign:
    """Make a run folder, as eval.py takes it, of another program's prompts; returns what was read.

    tasks           a name for each prompt; files that have names of their own give the prompts by these
    source_prompts  the mixture's sources, in the order in which the run had them, where its files do not hold them
    temperature     the softmax's (default: the one in the files, else D*e, the authors' own)
    """
    found = read_foreign(path, prompt_length)
    target = _choose(path, found, tasks)  # (K,L,D)
    _check_width(path, model, target.size(2))
    trained, used = read_foreign_origin(path), origin_of_model(model)
    warn_of_others([(path, trained), *origins([Path(source) for source in source_prompts])], used)
    sources, names, attention = _mixture(path, found, source_prompts, temperature, pool_pads)
    prompt = SoftPrompt(target, sources, attention)
    method = "prompt" if attention is None else "attempt"
    plan = Plan(
        task=tasks,
        labels=labels,
        method=method,
        model=model,
        source_prompts=list(source_prompts),
        init=str(path),
        prompt_length=target.size(1),
        bottleneck=found.attention["down.weight"].size(0) if found.attention else Plan.bottleneck,
        temperature=attention.fixed_temperature if attention else None,
        pool_pads=pool_pads,
        out=str(out),
    )
    run = Run(out)
    run.check_empty()
    config = PromptConfig(method, model, tasks, names, labels, embedding=(trained or used).embedding or used.embedding)
    save_prompt(run.best, prompt, config)
    save_prompt(run.last, prompt, config)
    run.create(plan)
    return found


def _choose(path: Path, found: Foreign, tasks: list[str]) -> Tensor:
    """The tasks' prompts (K,L,D): by name where the files have names, else in order."""
    repeated = sorted({name for name in tasks if tasks.count(name) > 1})
    if repeated:
        raise AttemptError(f"--task: expected each task once, found {', '.join(repeated)} again")
    if found.tasks and (len(found.tasks) > 1 or len(tasks) > 1):
        unknown = [name for name in tasks if name not in found.tasks]
        if unknown:
            raise AttemptError(
                f"{path}: expected --task to name some of {', '.join(found.tasks)}, found {unknown[0]}"
                + meant(unknown[0], found.tasks)
            )
        return found.target[[found.tasks.index(name) for name in tasks]]
    if len(tasks) != len(found.target):
        raise AttemptError(
            f"{path}: expected --task to name its {len(found.target)} prompts in their order, found {len(tasks)} names"
        )
    return found.target


def _check_width(path: Path, model: str, D: int) -> None:
    """Where the model's folder is at hand, its width must be the prompts'; else eval.py will see."""
    width = width_of(model)
    if width not in (None, D):
        raise AttemptError(f"{path}: expected prompts of width {width}, --model {model}'s, found width {D}")


def _mixture(
    path: Path, found: Foreign, source_prompts: Sequence[str], temperature: float | None, pool_pads: bool
) -> tuple[Tensor | None, list[str], PromptAttention | None]:
    """The sources (S,L,D), their names, and G; nothing of these for plain prompts."""
    if not found.attention:
        if source_prompts or temperature is not None or pool_pads:
            raise AttemptError(
                f"{path}: expected G's tensors for --source-prompts, --temperature or --pool-pads, found plain prompts"
            )
        return None, [], None
    if found.sources is not None and source_prompts:
        raise AttemptError(f"{path}: expected no --source-prompts, as the file holds its sources, found some")
    if found.sources is not None:
        sources, names = found.sources, [f"source{i}" for i in range(1, len(found.sources) + 1)]
    elif source_prompts:
        sources, names = load_sources([Path(source) for source in source_prompts])
        if sources.shape[1:] != found.target.shape[1:]:
            raise AttemptError(
                f"{source_prompts[0]}: expected a source of shape {tuple(found.target.shape[1:])} like the prompt of "
                f"{path}, found {tuple(sources.shape[1:])}"
            )
    else:
        raise AttemptError(
            f"{path}: expected the source prompts that it was trained with, found only G; "
            "name them by --source-prompts PATH ..., in the order in which the run had them"
        )
    bottleneck, D = found.attention["down.weight"].shape
    attention = PromptAttention(D, bottleneck, temperature or found.temperature, pool_pads)
    attention.load_state_dict(found.attention)
    return sources, names, attention


# ---- the command ----


def _parser() -> Parser:
    parser = Parser(prog="python -m attempt.exchange", description="Prompts to and from other programs' files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="export|import")

    add = commands.add_parser("export", help="write a run as an adapter of Hugging Face's PEFT").add_argument
    add("run", type=Path, metavar="RUN", help="a run folder of --method prompt, or a .safetensors of one")
    add("--to", required=True, type=Path, metavar="FOLDER", help="a new folder for the adapter")

    add = commands.add_parser("import", help="make a run folder of another program's prompts").add_argument
    add("path", type=Path, metavar="PATH", help="a .pt or .npy prompt, an adapter, or a folder of ATTEMPT's program")
    add("--model", required=True, metavar="NAME", help="the frozen T5 it was trained with: a name or a folder")
    add("--task", required=True, nargs="+", metavar="TASK", help="the prompts' tasks, in their order")
    add("--out", required=True, type=Path, metavar="RUN", help="a new folder for the run")
    add("--source-prompts", default=[], nargs="+", metavar="PATH", help="the mixture's sources, in the run's order")
    add("--prompt-length", type=positive, metavar="N", help="rows in use, for adapters that do not say")
    add("--labels", default="digits", choices=["digits", "words"], help="how answers are written (default: digits)")
    add("--temperature", type=above_zero, metavar="X", help="of the mixture (default: the file's, else D*e)")
    add("--pool-pads", action="store_true", help="let G see the padding, as the authors' program does")
    return parser


def _export(given: argparse.Namespace) -> None:
    config = export_peft(given.run, given.to)
    print(f"{', '.join(config.tasks)}: {given.to}/{ADAPTER_FILES[0]}, {ADAPTER_CONFIG} and {CARD}. In Python:")
    print("    from peft import AutoPeftModelForSeq2SeqLM")
    print(f"    model = AutoPeftModelForSeq2SeqLM.from_pretrained({str(given.to)!r})")
    if len(config.tasks) > 1 and not config.shared:
        numbers = ", ".join(f"{i} for {name}" for i, name in enumerate(config.tasks))
        print(f"model.generate(..., task_ids=...) takes each row's task: {numbers}")


def _import(given: argparse.Namespace) -> None:
    found = import_run(
        given.path,
        given.model,
        given.task,
        given.out,
        given.source_prompts,
        given.prompt_length,
        given.labels,
        given.temperature,
        given.pool_pads,
    )
    for note in found.notes:
        print(f"note: {note}")
    L, D = found.target.shape[1:]
    kind = "a mixture" if found.attention else "prompts"
    print(f"{', '.join(given.task)}: {kind} of {L} x {D} in {given.out}; python eval.py --run {given.out}")


def main(argv: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    work = _export if given.command == "export" else _import
    return exit_status("python -m attempt.exchange", lambda: work(given))


if __name__ == "__main__":
    sys.exit(main())
