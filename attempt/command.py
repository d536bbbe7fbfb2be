"""The command line of train.py: Options from the words of a user, or the Plan of a run that goes on."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from attempt.errors import AttemptError
from attempt.flags import Parser
from attempt.options import Options, Plan

# These may differ between a run and its continuation: they do not change what is computed.
MACHINE_FLAGS = {"out", "mirror", "data_dir", "log_every", "device"}


def parse(argv: Sequence[str] | None, lists: dict[str, str] | None = None) -> tuple[Options, bool]:
    """The command line -> the run's options, a Plan where an earlier run goes on, and whether it is a dry run.

    lists: for each key, `--list-KEY` prints the text and ends the program.
    """
    parser = Parser(
        prog="train.py",
        description="Train soft prompts, and mixtures of them, for a frozen T5.",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the lines of `lists`
        allow_abbrev=False,
    )
    groups: dict[str, Callable[..., Any]] = {}
    for option in dataclasses.fields(Options):
        settings = dict(option.metadata)
        name = settings.pop("group")
        if name not in groups:
            groups[name] = parser.add_argument_group(name).add_argument
        default = option.default
        if default is not MISSING and default is not None and "action" not in settings:
            settings["help"] += f" (default: {default})" if "default:" not in settings["help"] else ""
        spelled = settings.pop("option", "--" + option.name.replace("_", "-"))
        groups[name](spelled, dest=option.name, **settings)
    groups["run"](
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="go on with an interrupted run, with the options in its folder (DIR, or --out)",
    )
    groups["run"]("--dry-run", action="store_true", help="load everything, show one batch and stop")
    for name, text in (lists or {}).items():
        groups["run"](f"--list-{name}", action="version", version=text, help=f"print the known {name} and stop")
    given = vars(parser.parse_args(argv))
    resume, dry_run = given.pop("resume", None), given.pop("dry_run", False)
    if "steps" in given and "epochs" in given:
        parser.error("expected --steps or --epochs, found both")
    if "shots" in given and "train_examples" in given:
        parser.error("expected --shots or --train-examples, found both")
    if resume is None:
        if "task" not in given:
            parser.error("expected --task TASK")
        _check_files(parser, given)
        return Options(**given), dry_run
    if resume is True and not given.keys() & {"task", "out"}:
        parser.error("expected --resume DIR")
    folder = Path(resume) if isinstance(resume, str) else Options(**{"task": [], **given}).folder()
    return _resumed(folder, given), dry_run


def _check_files(parser: Parser, given: dict[str, Any]) -> None:
    """A user's files come with all that is needed to read them, or not at all."""
    needed = ("train_file", "dev_file", "source_field", "target_field")
    found = [f"--{name.replace('_', '-')}" for name in (*needed, "test_file", "answers") if name in given]
    missing = [f"--{name.replace('_', '-')}" for name in needed if name not in given]
    if found and missing:
        parser.error(f"expected {', '.join(missing)} too, found {', '.join(found)} alone")


def _resumed(folder: Path, given: dict[str, Any]) -> Plan:
    stored = Plan.read(folder / "config.json")
    differences = [
        f"--{name.replace('_', '-')} {given[name]} (was {getattr(stored, name)})"
        for name in given
        if name not in MACHINE_FLAGS and given[name] != getattr(stored, name)
    ]
    if differences:
        raise AttemptError(
            f"{folder}: expected the options that the run was started with, found {', '.join(differences)}; "
            "leave them out, or start another run with another --out"
        )
    machine = {name: value for name, value in given.items() if name in MACHINE_FLAGS and name != "out"}
    return dataclasses.replace(stored, out=str(folder), **machine)
