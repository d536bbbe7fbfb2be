"""Score the prompts of a run, and write its answers: python eval.py --run runs/sst2-prompt-t5-base"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from attempt.answering.answers import instance_weights, label_ids, score_split, show_pads
from attempt.answering.backbone import Backbone, new_downloader
from attempt.answering.interactive import FREE_TEXT, Model, Question, converse
from attempt.answering.splits import check_answers, find_task, load_splits
from attempt.checkpoint import (
    PromptConfig,
    Trained,
    change_sources,
    load_prompt,
    load_trained,
    origins,
    save_prompt,
)
from attempt.command.flags import Parser, positive
from attempt.command.options import Options, spelled
from attempt.machine import distributed
from attempt.machine.device import memory_told
from attempt.origin import Origin, fingerprint, warn_of_others
from attempt.plots.pictures import attention_map
from attempt.plots.plots import picture_file, show
from attempt.runs.folder import Run
from attempt.runs.plan import Plan
from attempt.runs.report import describe
from data.tasks import expand, source_text
from model.errors import AttemptError, exit_status, meant, meant_path
from model.files import write_whole
from model.t5 import T5


def new_parser() -> Parser:
    parser = Parser(prog="eval.py", description="Score what a run has trained, and write its answers.")
    add = parser.add_argument
    add("--run", required=True, type=Path, metavar="DIR", help="folder that train.py wrote")
    add("--task", nargs="+", metavar="TASK", help="tasks to score (default: the run's)")
    add("--split", default="test", choices=["train", "dev", "test"], help="default: %(default)s")
    add("--checkpoint", default="best", metavar="best|last|FILE", help="which one (default: %(default)s)")
    add("--predictions", type=Path, metavar="FILE", help="write a JSON line for each example: its text and answer")
    add("--attention-map", type=picture_file, metavar="FILE", help="draw each prompt's weights: .png, .svg or .pdf")
    add("--interactive", action="store_true", help="answer lines typed by hand or piped in, with the mixture's weights")
    add("--add-sources", nargs="+", type=Path, default=[], metavar="PATH", help="mix these prompts too, untrained")
    add("--remove-sources", nargs="+", default=[], metavar="NAME", help="leave these sources out of the mixture")
    add("--save-checkpoint", type=Path, metavar="FILE", help="write the mixture with its changed sources")
    add("--train-file", metavar="FILE", help="the user's training file, if it has moved since (default: the run's)")
    add("--dev-file", metavar="FILE", help="the same for dev, or other examples (default: the run's)")
    add("--test-file", metavar="FILE", help="the same for test, or other examples (default: the run's)")
    add("--text-scores", choices=["plain", "squad"], help="compare free text of these files so (default: the run's)")
    add("--model", metavar="NAME", help="the T5, if it has moved since (default: the run's)")
    add("--answer-by", choices=["generate", "labels"], help="write the answer, or choose a label (default: the run's)")
    add("--eval-batch-size", type=positive, metavar="N", help="examples answered at once (default: the run's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--precision", choices=["auto", "fp32", "bf16", "fp16"], help="default: the run's")
    add("--shard", action="store_true", help="share the T5 out among torchrun's processes, if it does not fit")
    add("--mirror", metavar="URL", help="server that has the files of all hosts (default: the run's)")
    add("--data-dir", metavar="DIR", help="folder that has them (default: the run's)")
    return parser


def options_of(parser: Parser, given: argparse.Namespace) -> Plan:
    """The run's options, with what is asked for otherwise; ends the program where that cannot be."""
    if given.interactive and (given.predictions or given.attention_map or distributed.size() > 1):
        parser.error("expected --interactive in one process, without --predictions and --attention-map")
    if given.save_checkpoint and not (given.add_sources or given.remove_sources):
        parser.error("expected --add-sources or --remove-sources with --save-checkpoint")
    files = ("train_file", "dev_file", "test_file", "text_scores")
    names = (*files, "model", "answer_by", "eval_batch_size", "device", "precision", "mirror", "data_dir")
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    plan = Plan.read(Run(given.run).config)
    if plan.train_file is None and (moved := [spelled(name) for name in files if name in changes]):
        parser.error(f"{', '.join(moved)}: expected a run on a user's files, found one on {', '.join(plan.task)}")
    return dataclasses.replace(plan, shard=given.shard, compile=False, **changes)  # too short for a compiler


def load_evaluated(parser: Parser, given: argparse.Namespace, options: Plan, t5: T5) -> tuple[Trained, PromptConfig]:
    """What is to be scored: a checkpoint of the run, or its mixture with other sources."""
    run = Run(given.run)
    path = {"best": run.best, "last": run.last}.get(given.checkpoint, Path(given.checkpoint))
    if given.checkpoint not in ("best", "last") and not path.exists():
        near = meant(given.checkpoint, ["best", "last"]) or meant_path(path)
        parser.error(f"--checkpoint {path}: expected best, last or a file, found none{near}")
    used = Origin(options.model, fingerprint(t5.embedding.weight))  # before a baseline's weights are put in
    warn_of_others(origins(given.add_sources), used)
    trained: Trained
    if given.add_sources or given.remove_sources:
        trained, config = change_sources(*load_prompt(path), given.add_sources, given.remove_sources)
        print(f"sources {', '.join(config.sources)}")
        if given.save_checkpoint and distributed.is_main():
            save_prompt(given.save_checkpoint, trained, config)
    else:
        trained, config = load_trained(path, options.method, t5)
    if trained.prompt is not None and trained.prompt.target.size(2) != t5.config.d_model:
        raise AttemptError(
            f"{run.folder}: expected a model of width {trained.prompt.target.size(2)}, found {t5.config.d_model} in "
            f"{options.model}; give the run's own by --model"
        )
    if options.method != "finetune":  # whose weights are all in the checkpoint
        warn_of_others([(path, config.origin)], used)
    if given.attention_map and config.method != "attempt":
        parser.error(f"--attention-map: expected prompts of --method attempt, found {path} of {config.method}")
    if config.labels != options.labels:
        raise AttemptError(
            f"{path}: expected answers that are {options.labels}, as the run's, found {config.labels}; "
            "name the run that it is of by --run"
        )
    return trained, config


@memory_told()
def evaluate(argv: Sequence[str] | None) -> None:
    parser = new_parser()
    given = parser.parse_args(argv)
    options = options_of(parser, given)
    downloader = new_downloader(options)
    backbone = Backbone.load(options, downloader)
    trained, config = load_evaluated(parser, given, options, backbone.t5)
    if trained.prompt is not None:
        trained.prompt.to(backbone.machine.device)
    show_pads(backbone, trained.prompt, options)
    backbone.machine.quicken(backbone.t5, options)

    chosen = numbered(expand(given.task or options.task), config)
    if given.interactive:
        model = Model(backbone.t5, backbone.tokenizer, backbone.machine, trained.prompt, config.sources)
        converse([new_question(name, number, options, backbone) for name, number in chosen.items()], model.reply)
        return
    lines: list[str] = []
    instances = {}
    for name, number in chosen.items():
        split = load_splits(name, number, [given.split], options, downloader, backbone.tokenizer)[given.split]
        record, answers = score_split(backbone, trained.prompt, split, options)
        print(describe(record))
        if given.attention_map:
            instances[name] = instance_weights(backbone, trained.prompt, split.tokens).double().cpu().numpy()
        for i, (example, prediction) in enumerate(zip(split.examples, answers, strict=True)):
            row = {"task": name, "split": given.split, "index": i, "source": example.source, "target": example.target}
            more = {"references": example.references} if example.references else {}
            lines.append(json.dumps({**row, **more, "prediction": prediction}, ensure_ascii=False) + "\n")
    if given.predictions and distributed.is_main():
        write_whole(given.predictions, "".join(lines).encode("utf-8"))
        print(f"{len(lines)} answers in {given.predictions}")
    if given.attention_map and distributed.is_main():
        prompts = [*config.sources, *(["target"] if config.use_target else [])]
        show([attention_map(given.split, prompts, instances)], given.attention_map)


def numbered(names: Sequence[str], config: PromptConfig) -> dict[str, int]:
    """The names of tasks to score, each with the number of its prompt in the checkpoint."""
    if len(config.names) == 1:  # one prompt can be tried on any task
        return dict.fromkeys(names, 0)
    for name in names:
        if name not in config.names:
            near = meant(name, config.names)
            raise AttemptError(
                f"--task {name}: expected one of the checkpoint's tasks, {', '.join(config.names)}{near}"
            )
    return {name: config.names.index(name) for name in names}


def new_question(name: str, number: int, options: Options, backbone: Backbone) -> Question:
    """A task to be asked by hand: of its files, only a user's own are needed."""
    task = find_task(name, options)
    check_answers(task, options)
    labels = task.label_texts(options.labels)
    rows = label_ids(backbone, labels).to(backbone.machine.device) if labels else None
    return Question(
        name,
        task.fields,
        lambda values: source_text(task, values, options.task_name),
        number,
        options.max_source_length or task.max_source,
        options.max_target_length or (FREE_TEXT if rows is None else rows.size(1)),
        dict(zip(labels, task.labels or labels, strict=True)),
        rows,
        options.answer_by == "labels",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("eval.py", lambda: distributed.together(lambda: evaluate(argv), "give the same command again"))


if __name__ == "__main__":
    sys.exit(main())
