"""train.py's command line: from words to the options of one run, or of several."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from attempt.command.flags import Parser, seed_number
from attempt.command.options import MACHINE_FLAGS, Options, difference, spelled
from attempt.runs.folder import Run
from attempt.runs.plan import FLAGS, Plan, from_one_place, left_open, sums_of
from model.errors import AttemptError, meant_path

# The methods that have a use for a group of flags; the other groups are everyone's.
USES = {"prompt": {"prompt", "spot", "attempt"}, "sources": {"spot", "attempt"}, "transfer": {"spot"}}
USES["mixture"] = {"attempt"}

# What --change leaves: what a run's state has decided, its best score was measured by, or it was trained on.
SETTLED_GROUPS = {"method", *USES}
SETTLED = {"seed", "optimizer", "epochs", "max_steps", "answer_by", "task", "task_field", "answers", "text_scores"}
SETTLED |= {"labels", "splits", "train_examples", "shots", "eval_examples", "data_seed"}


@dataclass(frozen=True)
class Command:
    """What train.py is to do."""

    options: Options  # a Plan where an earlier run goes on
    dry_run: bool = False
    seeds: tuple[int, ...] = ()
    """Train a run with each; () = one run, with options.seed."""
    separately: bool = False
    """A run for each task, instead of one for all of them."""
    demo: bool = False
    """Compare the methods on the demo's small world (demo/show.py)."""

    @property
    def several(self) -> bool:
        """Whether it takes more than one run; SPoT's candidates do."""
        finds = self.options.method == "spot" and self.options.init is None
        return bool(self.seeds) or self.separately or finds


# Flags of Hugging Face's programs, and of the authors', that are called otherwise here.
OTHER_NAMES = {
    "--learning-rate": "--lr",
    "--output-dir": "--out",
    "--model-name-or-path": "--model",
    "--task-names": "--task",
    "--num-train-epochs": "--epochs",
    "--train-batch-size": "--batch-size",
    "--per-device-train-batch-size": "--batch-size",
    "--per-device-eval-batch-size": "--eval-batch-size",
    "--gradient-accumulation-steps": "--accumulate",
    "--gradient-checkpointing": "--recompute",
    "--torch-compile": "--compile",
    "--lr-scheduler-type": "--schedule",
    "--warmup-steps": "--warmup",
    "--max-grad-norm": "--clip",
    "--optim": "--optimizer",
    "--bf16": "--precision bf16",
    "--fp16": "--precision fp16",
    "--logging-steps": "--log-every",
    "--eval-steps": "--eval-every",
    "--report-to": "--tensorboard or --wandb",
    "--resume-from-checkpoint": "--resume",
}


LONGEST_FILE = 50_000  # bytes: argparse takes the square of the number of words


class CommandParser(Parser):
    """Reads @FILE as if its words stood in the command line; # begins a comment there."""

    other_names = OTHER_NAMES

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        try:
            return shlex.split(arg_line, comments=True)
        except ValueError as e:
            self.error(f"expected words and closed quotes in a file of options, found {arg_line!r} ({e})")

    def words(self, argv: Sequence[str] | None) -> dict[str, Any]:
        """The flags that are given, by their options' names."""
        for word in sys.argv[1:] if argv is None else argv:
            path = Path(word.removeprefix("@"))
            if word.startswith("@") and not path.exists():
                near = meant_path(Path("recipes") / path.with_suffix(".args").name) or meant_path(path)
                self.error(f"{word}: expected a file of options, found none{near}")
            if word.startswith("@") and path.is_file() and path.stat().st_size > LONGEST_FILE:
                self.error(f"{word}: expected a file of options, of at most {LONGEST_FILE:,} bytes, found a longer one")
        try:
            return vars(self.parse_args(argv))
        except UnicodeDecodeError as e:
            self.error(f"expected a file of options in UTF-8, found {e}")
        except RecursionError:
            self.error("expected a file of options, found one that includes itself")


def parse(
    argv: Sequence[str] | None,
    lists: dict[str, str] | None = None,
    expand: Callable[[list[str]], list[str]] = list,
) -> Command:
    """The command line -> what is to be done. Ends the program, with status 2 and a line, where it makes no sense.

    lists: for each key, `--list-KEY` prints the text and ends the program. expand: puts the tasks of a group in the
    place of its name.
    """
    parser = new_parser(lists or {})
    given = parser.words(argv)
    if "task" in given:
        given["task"] = expand(given["task"])
    resume, seeds = given.pop("resume", None), tuple(given.pop("seeds", ()))
    separately, change = given.pop("separately", False), given.pop("change", False)
    demo, dry_run = given.pop("demo", False), given.pop("dry_run", False)
    if change and resume is None:
        parser.error("expected --resume with --change")
    if "shots" in given and "train_examples" in given:
        parser.error("expected --shots or --train-examples, found both")
    if seeds and "seed" in given:
        parser.error("expected --seed or --seeds, found both")
    if len(set(seeds)) < len(seeds):
        parser.error(f"expected each of --seeds once, found {' '.join(map(str, seeds))}")
    if resume is None:
        if "task" not in given:
            parser.error("expected --task TASK")
        check_uses(parser, given)
        check_files(parser, given)
        for flag, reason in without_effect(given):
            print(f"train.py: note: {flag} has no effect {reason}", file=sys.stderr)
        return Command(Options(**given), dry_run, seeds, separately, demo)
    if seeds or separately:
        parser.error("expected --resume of one run; to go on with --seeds or --separately, give the same command again")
    if isinstance(resume, str) and Path(given.get("out", resume)) != Path(resume):
        parser.error(f"expected --resume {resume} without --out, found --out {given['out']}: a run stays in its folder")
    if resume is True and not given.keys() & {"task", "out"}:
        parser.error("expected --resume DIR")
    folder = Path(resume) if isinstance(resume, str) else Options(**{"task": [], **given}).folder()
    return Command(resumed(folder, given, change), dry_run)


def new_parser(lists: dict[str, str]) -> CommandParser:
    parser = CommandParser(
        prog="train.py",
        description="Train soft prompts, mixtures of them, and what they are compared with, for a T5. "
        "@FILE stands for the options in a file: recipes/ has the papers' settings.",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the lines of `lists`
        allow_abbrev=False,
        fromfile_prefix_chars="@",
    )
    groups: dict[str, Callable[..., Any]] = {}
    for option in dataclasses.fields(Options):
        settings = dict(option.metadata)
        name = settings.pop("group")
        if name not in groups:
            only = f"only for --method {', '.join(sorted(USES[name]))}" if name in USES else None
            groups[name] = parser.add_argument_group(name, only).add_argument
        default = option.default
        if default is not MISSING and default is not None and "action" not in settings:
            settings["help"] += f" (default: {default}{whose(settings['help'])})" * ("default:" not in settings["help"])
        groups[name](settings.pop("option", spelled(option.name)), dest=option.name, **settings)
    add = groups["run"]
    add(
        "--seeds",
        nargs="+",
        type=seed_number,
        metavar="N",
        help="train a run with each seed; report mean and deviation",
    )
    add("--separately", action="store_true", help="train a run for each task, one after the other, not one for all")
    add(
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="go on with an interrupted run, with the options in its folder (DIR, or --out)",
    )
    add(
        "--change",
        action="store_true",
        help="with --resume: allow other options, which change the result: "
        "those that the remaining steps can follow, such as --lr, --steps and --batch-size",
    )
    add(
        "--demo",
        action="store_true",
        help="use a small world and a tiny T5 that come with the program: --method attempt compares methods there, "
        "and with --task stream it shows the weights of each kind of row",
    )
    add("--dry-run", action="store_true", help="load everything, show a batch and an example of each task, and stop")
    for name, text in lists.items():
        add(f"--list-{name}", action="version", version=text, help=f"print the known {name} and stop")
    return parser


def whose(text: str) -> str:
    """Where a default comes from, if the help's text names no paper beside it."""
    return "" if "et al." in text or "papers" in text else ", this program's"


def check_uses(parser: Parser, given: dict[str, Any]) -> None:
    """Refuse flags that the method would pass over in silence."""
    method = given.get("method", "attempt")
    for option in dataclasses.fields(Options):
        group = option.metadata["group"]
        if option.name in given and method not in USES.get(group, {method}):
            flag = option.metadata.get("option", spelled(option.name))
            parser.error(f"{flag}: expected --method {' or '.join(sorted(USES[group]))}, found --method {method}")
    found = [f.name for f in dataclasses.fields(Options) if f.metadata["group"] in ("sources", "transfer")]
    choosing = [spelled(name) for name in found if name in given]
    if method == "spot" and "init" in given and choosing:
        parser.error(f"expected --init, the prompt to start from, or {', '.join(choosing)} to choose one, found both")
    if given.keys() >= {"early_prompt", "early_steps"}:
        parser.error("expected --early-prompt or --early-steps, found both")
    if given.keys() >= {"temperature", "learn_temperature"}:
        parser.error("expected --temperature or --learn-temperature, found both")
    if given.get("pool") == "mean" and "pool_pads" in given:
        parser.error("expected --pool max or centred with --pool-pads, where padding counts once, found --pool mean")


def check_files(parser: Parser, given: dict[str, Any]) -> None:
    """A user's files come with all that is needed to read them, or not at all."""
    needed = ("train_file", "dev_file", "source_field", "target_field")
    found = [spelled(name) for name in (*needed, "test_file", "task_field", "answers", "text_scores") if name in given]
    missing = [spelled(name) for name in needed if name not in given]
    if found and missing:
        parser.error(f"expected {', '.join(missing)} too, found only {', '.join(found)}")


def without_effect(given: dict[str, Any]) -> list[tuple[str, str]]:
    """Flags that change nothing beside the others, and why: an ablation of a recipe is given beside its flags."""
    attention = f"--attention {given.get('attention', 'sub')}"
    idle = {
        "--attention constant": ("bottleneck", "temperature", "learn_temperature", "fix_attention", "freeze_norm",
                                 "pool", "pool_pads", "attention_lr"),
        "--attention dot": ("bottleneck", "freeze_norm"),
        "--attention linear": ("bottleneck",),
        "--fix-attention": ("freeze_norm", "attention_lr"),
        "--no-target": ("init", "shared_prompt"),
    }  # fmt: skip
    if "learn_temperature" not in given:  # which is all that this G could train
        idle["--attention dot"] += ("fix_attention", "attention_lr")
    if "load_attention" not in given:  # whose temperature is not the first value
        idle["--fix-attention"] += ("learn_temperature",)
    flags = [attention, *["--fix-attention"] * ("fix_attention" in given), *["--no-target"] * ("use_target" in given)]
    found: dict[str, str] = {}
    for flag in flags:
        for name in idle.get(flag, ()):
            if name in given:
                found.setdefault(spelled(name), f"with {flag}")
    return list(found.items())


def resumed(folder: Path, given: dict[str, Any], change: bool = False) -> Plan:
    """The plan of the run in a folder. Raises AttemptError where options are given that are not the run's.

    change: take them all the same, if the rest of the run can follow them.
    """
    stored = Plan.read(folder / "config.json").located()
    others = {n: value for n, value in given.items() if n not in MACHINE_FLAGS and not stored.has(n, value)}
    if change:
        refuse_settled(folder, stored, others)
    different = [difference(name, value, getattr(stored, name)) for name, value in others.items()]
    different = different or stored.changed_files()
    if change and different:
        print(f"changed    {', '.join(different)}", flush=True)
    else:
        refuse(folder, different)
    taken = {name: value for name, value in given.items() if name != "out" and (change or name in MACHINE_FLAGS)}
    plan = dataclasses.replace(stored, out=str(folder), **from_one_place(taken))
    return followed(plan, given) if change else plan


def followed(plan: Plan, given: dict[str, Any]) -> Plan:
    """A changed plan with what follows: the attention's rate is --lr's where no other was asked for, now or before."""
    asked = left_open({*plan.asked, *given})
    rate = plan.lr if "lr" in given and "attention_lr" not in asked else plan.attention_lr
    # of other files or columns the formats may be others: the training set tells them anew
    return dataclasses.replace(plan, asked=asked, attention_lr=rate, sums=sums_of(plan), formats={})


def refuse_settled(folder: Path, plan: Plan, others: dict[str, Any]) -> None:
    """Raises AttemptError at options that would change nothing any more, though config.json would tell of them."""
    found = [name for name, value in others.items() if settled(plan, name, value)]
    if found:
        lengths = {"epochs", "max_steps"} & set(found)
        advice = ["start another run with another --out"] * (len(lengths) < len(found))
        advice += ["give --steps for its length"] * bool(lengths)
        told = ", ".join(difference(name, others[name], getattr(plan, name)) for name in found)
        raise AttemptError(
            f"{folder}: expected --change of options that the remaining steps can follow, "
            f"found {told}; {', '.join(advice)}"
        )
    if others and Run(folder).result.exists() and others.get("steps", 0) <= plan.steps:
        raise AttemptError(
            f"{folder}: expected steps to come, found a complete run; give --steps of more than {plan.steps}"
        )


def settled(plan: Plan, name: str, value: Any) -> bool:
    """Whether the rest of a run cannot follow an option any more."""
    if name == "model":  # which may lie in another folder by now
        return Path(value).name != plan.model_name
    if name == "attention_lr":
        return plan.method != "attempt"
    if name in ("train_file", "dev_file", "test_file", "source_field", "target_field"):
        return plan.train_file is None
    return name in SETTLED or FLAGS[name]["group"] in SETTLED_GROUPS


def refuse(folder: Path, differences: list[str]) -> None:
    """A run, or its result, is only taken for that of a command with the same options."""
    if differences:
        raise AttemptError(
            f"{folder}: expected the options that the run was started with, found {', '.join(differences)}; "
            "leave them out, start another run with another --out, or take what can be changed by --resume and --change"
        )
