"""train.py's command line: from words to the options of one run, or of several."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from attempt.errors import AttemptError
from attempt.flags import Parser, natural
from attempt.options import Options, Plan

# These may differ between a run and its continuation: they do not change what is computed.
MACHINE_FLAGS = {"out", "mirror", "data_dir", "log_every", "device"}
# The methods that have a use for a group of flags; the other groups are everyone's.
USES = {"prompt": {"prompt", "spot", "attempt"}, "sources": {"spot", "attempt"}, "transfer": {"spot"}}
USES["mixture"] = {"attempt"}


@dataclass(frozen=True)
class Command:
    """What train.py is to do."""

    options: Options  # a Plan where an earlier run goes on
    dry_run: bool = False
    seeds: tuple[int, ...] = ()
    """Train a run with each; () = one run, with options.seed."""
    separately: bool = False
    """A run for each task, instead of one for all of them."""

    @property
    def several(self) -> bool:
        """Whether it takes more than one run; SPoT's candidates do."""
        finds = self.options.method == "spot" and self.options.init is None
        return bool(self.seeds) or self.separately or finds


class CommandParser(Parser):
    """Reads @FILE as if its words stood in the command line; # begins a comment there."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return shlex.split(arg_line, comments=True)


def parse(argv: Sequence[str] | None, lists: dict[str, str] | None = None) -> Command:
    """The command line -> what is to be done. Ends the program, with status 2 and a line, where it makes no sense.

    lists: for each key, `--list-KEY` prints the text and ends the program.
    """
    parser = new_parser(lists or {})
    given = vars(parser.parse_args(argv))
    resume, dry_run = given.pop("resume", None), given.pop("dry_run", False)
    seeds, separately = tuple(given.pop("seeds", ())), given.pop("separately", False)
    if "shots" in given and "train_examples" in given:
        parser.error("expected --shots or --train-examples, found both")
    if len(set(seeds)) < len(seeds):
        parser.error(f"expected each of --seeds once, found {' '.join(map(str, seeds))}")
    if resume is None:
        if "task" not in given:
            parser.error("expected --task TASK")
        check_uses(parser, given)
        check_files(parser, given)
        return Command(Options(**given), dry_run, seeds, separately)
    if seeds or separately:
        parser.error("expected --resume of one run; to go on with --seeds or --separately, give the same command again")
    if resume is True and not given.keys() & {"task", "out"}:
        parser.error("expected --resume DIR")
    folder = Path(resume) if isinstance(resume, str) else Options(**{"task": [], **given}).folder()
    return Command(resumed(folder, given), dry_run)


def new_parser(lists: dict[str, str]) -> Parser:
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
            settings["help"] += f" (default: {default})" if "default:" not in settings["help"] else ""
        groups[name](settings.pop("option", spelled(option.name)), dest=option.name, **settings)
    add = groups["run"]
    add("--seeds", nargs="+", type=natural, metavar="N", help="train a run with each seed; report mean and deviation")
    add("--separately", action="store_true", help="train a run for each task, one after the other, not one for all")
    add(
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="go on with an interrupted run, with the options in its folder (DIR, or --out)",
    )
    add("--dry-run", action="store_true", help="load everything, show a batch and an example of each task, and stop")
    for name, text in lists.items():
        add(f"--list-{name}", action="version", version=text, help=f"print the known {name} and stop")
    return parser


def spelled(name: str) -> str:
    """An option's name as a flag."""
    return "--" + name.replace("_", "-")


def check_uses(parser: Parser, given: dict[str, Any]) -> None:
    """Refuse flags that the method would pass over in silence."""
    method = given.get("method", "attempt")
    for option in dataclasses.fields(Options):
        group = option.metadata["group"]
        if option.name in given and method not in USES.get(group, {method}):
            flag = option.metadata.get("option", spelled(option.name))
            parser.error(f"{flag}: expected --method {' or '.join(sorted(USES[group]))}, found --method {method}")
    if method == "spot" and "init" in given and given.keys() & {"transfer", "top_k", "early_prompt", "early_steps"}:
        parser.error(
            "expected --init, the prompt to start from, or the flags that choose one by --transfer, found both"
        )


def check_files(parser: Parser, given: dict[str, Any]) -> None:
    """A user's files come with all that is needed to read them, or not at all."""
    needed = ("train_file", "dev_file", "source_field", "target_field")
    found = [spelled(name) for name in (*needed, "test_file", "answers") if name in given]
    missing = [spelled(name) for name in needed if name not in given]
    if found and missing:
        parser.error(f"expected {', '.join(missing)} too, found {', '.join(found)} alone")


def differences(stored: Plan, given: dict[str, Any]) -> list[str]:
    """Which of the given options are not those that a run was started with."""
    return [
        f"{spelled(name)} {value} (was {getattr(stored, name)})"
        for name, value in given.items()
        if name not in MACHINE_FLAGS and value != getattr(stored, name)
    ]


def resumed(folder: Path, given: dict[str, Any]) -> Plan:
    """The plan of the run in a folder. Raises AttemptError where options are given that are not the run's."""
    stored = Plan.read(folder / "config.json")
    different = differences(stored, given)
    if different:
        raise AttemptError(
            f"{folder}: expected the options that the run was started with, found {', '.join(different)}; "
            "leave them out, or start another run with another --out"
        )
    machine = {name: value for name, value in given.items() if name in MACHINE_FLAGS and name != "out"}
    return dataclasses.replace(stored, out=str(folder), **machine)
