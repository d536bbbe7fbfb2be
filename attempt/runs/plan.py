"""What a run does, with nothing left open: its options, and what the data and the sources decide."""

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from attempt import baselines
from attempt.command.options import MACHINE_FLAGS, Options, difference, spelled
from attempt.command.source import code_sum
from attempt.runs.kept import text_of
from model.errors import AttemptError, briefly, meant_path, note
from model.files import sha256_of

# What a file of a run of before may lack: such a run had the default, or it changes nothing.
NEWER: dict[str, Any] = {name: getattr(Options, name) for name in MACHINE_FLAGS if name != "out"}
NEWER |= {
    "skip_bad_steps": False,
    "sums": [],
    "code": [],
    "task_field": None,
    "ignore_added_tokens": False,
    "pool": "max",
    "formats": {},
    "where": "",
}
# What a run's answers need of a task, should its files be gone by then: the values' kinds.
FORMAT: dict[str, type] = {"fields": list, "labels": list, "source_tokens": int, "answer_tokens": int}
PATHS = ("model", "data_dir", "train_file", "dev_file", "test_file")


@dataclass(frozen=True)
class Plan(Options):
    """The options with nothing left open: what a run's config.json holds."""

    init: str = ""
    prompt_length: int = 0
    steps: int = 0
    lr: float = 0.0
    attention_lr: float = 0.0
    schedule: str = ""
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float = 0.0
    eval_every: int = 0
    out: str = ""
    text_scores: str = ""
    asked: list[str] = field(default_factory=list)
    """Which of the options that may be left open the user gave."""
    sums: list[str] = field(default_factory=list)
    """The user's own files: "train_file SHA-256" and so on."""
    code: list[str] = field(default_factory=list)
    """The sums over the program's sources that its steps were computed with (attempt/command/source.py)."""

    formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each task its fields, its labels as they are written (none: free text), the most tokens of text and answer,
    EOS included."""
    where: str = ""
    """The folder that relative paths start from."""

    @classmethod
    def complete(cls, options: Options, examples: int, source_length: int | None, answers: str | None = None) -> "Plan":
        """Fill in what depends on other options, on the number of an epoch's examples, or on the sources.

        answers: what those of the user's files were found to be, labels or text.
        """
        method, adamw, baseline = options.method, options.optimizer == "adamw", options.method in baselines.METHODS
        epoch = math.ceil(examples / options.batch_size)  # in steps
        passes = 20 if examples <= 10_000 else 5 if method == "prompt" else 10
        steps = min(options.steps or epoch * (options.epochs or passes), options.max_steps or sys.maxsize)
        schedule = options.schedule or ("linear" if adamw else "constant")
        lr = options.lr if options.lr is not None else 3e-4 if baseline else 0.3
        derived = {
            "init": "" if baseline else "source" if method == "attempt" else "vocab",
            "prompt_length": 0 if baseline else source_length or 100,
            "steps": steps,
            "lr": lr,
            "attention_lr": lr,
            "schedule": schedule,
            # 500 steps are longer than the whole run on small sets: the rate would never reach its peak
            "warmup": min(500, steps // 10) if schedule == "linear" else 0,
            "weight_decay": 1e-5 if method == "prompt" or not (adamw or baseline) else 0.0,
            "clip": 1.0 if adamw else 0.0,
            "eval_every": min(epoch, steps),
            "out": str(options.folder()),
            "answers": answers,
            "text_scores": "plain",
        }
        given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
        made = {"asked": left_open(given), "sums": sums_of(options), "code": [code_sum()], "where": os.getcwd()}
        return cls(**{**derived, **given, "steps": steps, **made})

    def going_on(self) -> "Plan":
        """The plan of the steps to come, by the code that runs now. A line reports code that has changed."""
        if self.code[-1:] == [code_sum()]:
            return self
        print("note       the code has changed since the run was started; from here on the new code runs", flush=True)
        return dataclasses.replace(self, code=[*(self.code or ["unknown"]), code_sum()])

    def located(self) -> "Plan":
        """With paths that hold here: what is not found from this folder lies where the run was started.

        A note reports what is in both places: a copied project has files of its own.
        """
        here, there = os.getcwd(), dict[str, Any]()
        for name in PATHS:
            path = getattr(self, name)
            place = os.path.join(self.where, path or "")
            if not path or not os.path.exists(place):
                continue
            if not os.path.exists(path):
                there[name] = place
            elif not os.path.samefile(path, place):
                note(f"{path}: read from this folder; the run was started in {self.where}, which has another")
        return dataclasses.replace(self, where=here, **there)

    def has(self, name: str, value: Any) -> bool:
        """Whether an option has this value; a path may be spelled from another folder."""
        own = getattr(self, name)
        if value == own or name not in PATHS or not own or not value:
            return bool(value == own)
        return os.path.realpath(value) == os.path.realpath(os.path.join(self.where, own))

    def without_data(self) -> "Plan":
        """The plan where only texts are to be answered: a folder of data that is gone is needed no longer."""
        gone = self.data_dir is not None and not Path(self.data_dir).is_dir()
        return dataclasses.replace(self, data_dir=None) if gone else self

    def differences(self, options: Options) -> list[str]:
        """What other options than this run's would change in its results: "--lr 0.1 (was 0.3)"."""
        found = []
        for option in dataclasses.fields(Options):
            name, value = option.name, getattr(options, option.name)
            same = name not in self.asked if value is None else self.has(name, value)
            if name not in MACHINE_FLAGS and not same:
                found.append(difference(name, value, getattr(self, name)))
        return found or self.changed_files()

    def changed_files(self) -> list[str]:
        """Which of the user's files are others than when the run was started, or gone."""
        now, found = sums_of(self), []
        for name in (was.partition(" ")[0] for was in self.sums if was not in now):
            gone = not any(one.startswith(f"{name} ") for one in now)
            found.append(f"{spelled(name)} " + (f"{getattr(self, name)} missing" if gone else "with another content"))
        return found

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan of an earlier run, from its config.json."""
        try:
            found = json.loads(text_of(path))
            hints = get_type_hints(cls)
            found = {**NEWER, **found} if isinstance(found, dict) else {}
            # when free text of a user's files was always compared as SQuAD's, there was no choice
            squad = found.get("train_file") and found.get("answers") != "labels"
            found.setdefault("text_scores", "squad" if squad else "plain")
            # of a run of before, which does not say: where its --out leads to this folder from
            place, out = str(path.parent.resolve()), f"{os.sep}{found.get('out')}"
            found["where"] = found.get("where") or place.removesuffix(out) * place.endswith(out)
            if found.keys() != hints.keys():
                raise ValueError("other options than this version of the program has")
            for name, value in found.items():
                check_value(name, value)
            if found["steps"] and not found["eval_every"]:
                raise ValueError("eval_every: 0")
        except (OSError, ValueError, RecursionError) as e:
            runs = sorted(config.parent.name for config in path.parent.glob("*/config.json"))
            hint = f"; its folder holds the runs {', '.join(runs)}: name one of them" if runs else ""
            near = "" if path.parent.exists() else meant_path(path.parent)
            near += "; name the run's folder" * path.parent.is_file()
            problem = "none" if isinstance(e, (FileNotFoundError, NotADirectoryError)) else briefly(e)
            raise AttemptError(f"{path}: expected the config.json of a run, found {problem}{near}{hint}") from None
        return cls(**found)


def from_one_place(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of options, where a mirror takes the place of a folder of data that the run had, or this of that."""
    other = {"mirror": "data_dir", "data_dir": "mirror"}
    return {**{other[name]: None for name in other if changes.get(name)}, **changes}


def is_format(value: object) -> bool:
    """Whether it is an entry of `formats`."""
    if not isinstance(value, dict) or {name: type(one) for name, one in value.items()} != FORMAT:
        return False
    return all(isinstance(text, str) for text in (*value["fields"], *value["labels"]))


def left_open(given: Container[str]) -> list[str]:
    """Which of these options may be left open."""
    return [option.name for option in dataclasses.fields(Options) if option.default is None and option.name in given]


def sums_of(options: Options) -> list[str]:
    """The SHA-256 of each of the user's own files; a missing one is reported where it is read."""
    paths = {name: getattr(options, name) for name in ("train_file", "dev_file", "test_file")}
    return [f"{name} {sha256_of(Path(path))}" for name, path in paths.items() if path and os.path.isfile(path)]


FLAGS = {option.name: option.metadata for option in dataclasses.fields(Options)}


def check_value(name: str, value: Any) -> None:
    """Raises ValueError at a value that is not of the option's kind, or that its flag would not take."""
    hint = get_type_hints(Plan)[name]
    flag: Mapping[str, Any] = FLAGS.get(name, {})
    kinds = get_args(hint) or (hint,)  # int | None, or int
    if get_origin(hint) is dict:
        good = isinstance(value, dict) and all(map(is_format, value.values()))
    elif get_origin(hint) is list:
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
    else:
        good = type(value) in (*kinds, int) if float in kinds else type(value) in kinds
    if not good:
        raise ValueError(f"{name}: {value!r}")
    if value is None or value == getattr(Plan, name, None):  # of a baseline, or of an imported run, which took no step
        return
    if "choices" in flag and value not in flag["choices"]:
        raise ValueError(f"{name}: {value!r}, none of {', '.join(flag['choices'])}")
    if "type" in flag:
        try:
            flag["type"](str(value))
        except argparse.ArgumentTypeError as e:
            raise ValueError(f"{name}: {e}") from None
