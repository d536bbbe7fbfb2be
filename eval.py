"""Score the prompts of a run, and write its answers: python eval.py --run runs/sst2-prompt-t5-base"""

import argparse
import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from attempt.answering.answers import instance_weights, score_split
from attempt.answering.backbone import Backbone, new_downloader
from attempt.answering.interactive import converse
from attempt.answering.question import numbered
from attempt.answering.runner import Runner, check_trained, ready
from attempt.answering.splits import load_splits
from attempt.answering.unlabelled import answer_rows
from attempt.checkpoint import Trained, change_sources, load_prompt, load_trained, origins, save_prompt
from attempt.command.flags import Parser, positive
from attempt.command.options import spelled
from attempt.machine import distributed
from attempt.machine.device import memory_told
from attempt.origin import Origin, fingerprint, warn_of_others
from attempt.plots.pictures import attention_map
from attempt.plots.plots import picture_file, show
from attempt.runs.folder import Run
from attempt.runs.plan import Plan, from_one_place, sums_of
from attempt.runs.report import describe
from data.tasks import expand
from model.errors import exit_status, meant, meant_path, note
from model.files import write_whole


def new_parser() -> Parser:
    parser = Parser(prog="eval.py", description="Score what a run has trained, and write its answers.")
    add = parser.add_argument
    add("--run", required=True, type=Path, metavar="DIR", help="folder that train.py wrote")
    add("--task", nargs="+", metavar="TASK", help="tasks to score (default: the run's)")
    add("--split", default="test", choices=["train", "dev", "test"], help="default: %(default)s")
    add("--checkpoint", default="best", metavar="best|last|FILE", help="which one (default: %(default)s)")
    add("--predictions", type=Path, metavar="FILE", help="write a JSON line for each example: its text and answer")
    add("--attention-map", type=picture_file, metavar="FILE", help="draw each prompt's weights: .png, .svg or .pdf")
    add(
        "--answer",
        metavar="FILE|-",
        help="answer the rows of a .tsv, .csv or .jsonl, or lines, in JSON; --eval-batch-size 1 does so as each comes",
    )
    add("--interactive", action="store_true", help="answer lines typed by hand or piped in, with the mixture's weights")
    add("--add-sources", nargs="+", type=Path, default=[], metavar="PATH", help="mix these prompts too, untrained")
    add("--remove-sources", nargs="+", default=[], metavar="NAME", help="leave these sources out of the mixture")
    add("--save-checkpoint", type=Path, metavar="FILE", help="write the mixture with its changed sources")
    add("--train-file", metavar="FILE", help="the user's training file, if it has moved since (default: the run's)")
    add("--dev-file", metavar="FILE", help="the same for dev, or other examples (default: the run's)")
    add("--test-file", metavar="FILE", help="the same for test, or other examples (default: the run's)")
    add("--text-scores", choices=["plain", "squad"], help="how to compare free text (default: the run's)")
    add("--model", metavar="NAME", help="the T5, if it has moved since (default: the run's)")
    add("--answer-by", choices=["generate", "labels"], help="write the answer, or choose a label (default: the run's)")
    add("--eval-batch-size", type=positive, metavar="N", help="examples answered at once (default: the run's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--precision", choices=["auto", "fp32", "bf16", "fp16"], help="default: the run's")
    add("--shard", action="store_true", help="divide the T5 among torchrun's processes, if it is too large for one")
    add("--mirror", metavar="URL", help="server that has the files of all hosts (default: the run's)")
    add("--data-dir", metavar="DIR", help="folder that has them (default: the run's)")
    return parser


def options_of(parser: Parser, given: argparse.Namespace) -> Plan:
    """The run's options, with what is asked for otherwise; ends the program where that cannot be."""
    by_hand = ["--interactive"] * given.interactive + ["--answer"] * (given.answer is not None)
    if by_hand and (by_hand[1:] or given.predictions or given.attention_map or distributed.size() > 1):
        others = f"{'--answer' if given.interactive else '--interactive'}, --predictions and --attention-map"
        parser.error(f"expected {by_hand[0]} in one process, without {others}")
    if given.save_checkpoint and not (given.add_sources or given.remove_sources):
        parser.error("expected --add-sources or --remove-sources with --save-checkpoint")
    files = ("train_file", "dev_file", "test_file", "text_scores")
    names = (*files, "model", "answer_by", "eval_batch_size", "device", "precision", "mirror", "data_dir")
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    plan = Plan.read(Run(given.run).config).located()
    if plan.train_file is None and (moved := [spelled(name) for name in files if name in changes]):
        parser.error(f"{', '.join(moved)}: expected a run on a user's files, found one on {', '.join(plan.task)}")
    if by_hand and given.data_dir is None:
        plan = plan.without_data()
    for told in sums_of(plan) if plan.sums and not by_hand else ():
        name = told.partition(" ")[0]
        if told not in plan.sums and name not in changes:
            note(f"{getattr(plan, name)}: not the content that the run was started with; scored all the same")
    if "train_file" in changes:
        changes["formats"] = {}  # the labels are those of the file that is given
    changes = from_one_place(changes)
    return dataclasses.replace(plan, shard=given.shard, compile=False, **changes)  # too short for a compiler


def load_evaluated(parser: Parser, given: argparse.Namespace, plan: Plan, backbone: Backbone) -> Runner:
    """What is to be scored: a checkpoint of the run, or its mixture with other sources."""
    run = Run(given.run)
    path = {"best": run.best, "last": run.last}.get(given.checkpoint, Path(given.checkpoint))
    if given.checkpoint not in ("best", "last") and not path.exists():
        near = meant(given.checkpoint, ["best", "last"]) or meant_path(path)
        parser.error(f"--checkpoint {path}: expected best, last or a file, found none{near}")
    used = Origin(plan.model, fingerprint(backbone.t5.embedding.weight))  # before a baseline's weights are put in
    warn_of_others(origins(given.add_sources), used)
    trained: Trained
    if given.add_sources or given.remove_sources:
        trained, config = change_sources(*load_prompt(path), given.add_sources, given.remove_sources)
        print(f"sources {', '.join(config.sources)}")
        if given.save_checkpoint and distributed.is_main():
            save_prompt(given.save_checkpoint, trained, config)
    else:
        trained, config = load_trained(path, plan.method, backbone.t5)
    if given.attention_map and config.method != "attempt":
        parser.error(f"--attention-map: expected prompts of --method attempt, found {path} of {config.method}")
    check_trained(path, trained, config, plan, backbone, used)
    return ready(plan, backbone, trained, config, numbered(expand(given.task or plan.task), config))


@memory_told()
def evaluate(argv: Sequence[str] | None) -> None:
    parser = new_parser()
    given = parser.parse_args(argv)
    plan = options_of(parser, given)
    out, answering = sys.stdout, given.answer is not None
    for stream in (sys.stdin, out) if answering or given.interactive else ():
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # as files are
    # the answers have the standard output for themselves
    with contextlib.redirect_stdout(sys.stderr) if answering else contextlib.nullcontext():
        runner = load_evaluated(parser, given, plan, Backbone.load(plan, new_downloader(plan)))
        if answering:
            answer_rows(runner, given.answer, out)
        elif given.interactive:
            converse(runner)
        else:
            score(runner, given)


def score(runner: Runner, given: argparse.Namespace) -> None:
    """Score a split of each task; write the answers, and draw the mixture, where that is asked for."""
    plan, backbone, prompt = runner.plan, runner.backbone, runner.prompt
    lines, instances = list[str](), {}
    for name, question in runner.questions.items():
        loaded = load_splits(name, question.number, [given.split], plan, new_downloader(plan), backbone.tokenizer)
        split = loaded[given.split]
        record, answers = score_split(backbone, prompt, split, plan)
        print(describe(record))
        if given.attention_map:
            instances[name] = instance_weights(backbone, prompt, split.tokens).double().cpu().numpy()
        for i, (example, prediction) in enumerate(zip(split.examples, answers, strict=True)):
            row = {"task": name, "split": given.split, "index": i, "source": example.source, "target": example.target}
            more = {"references": example.references} if example.references else {}
            lines.append(json.dumps({**row, **more, "prediction": prediction}, ensure_ascii=False) + "\n")
    if given.predictions and distributed.is_main():
        write_whole(given.predictions, "".join(lines).encode("utf-8"))
        print(f"{len(lines)} answers in {given.predictions}")
    if given.attention_map and distributed.is_main():
        show([attention_map(given.split, runner.config.mixed, instances)], given.attention_map)


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("eval.py", lambda: distributed.together(lambda: evaluate(argv), "give the same command again"))


if __name__ == "__main__":
    sys.exit(main())
