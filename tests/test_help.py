"""What --help says of each flag, and what a run tells at its start and on its way."""

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

import train
from attempt.command.options import MACHINE_FLAGS, Options, spelled
from attempt.runs.parsing import new_parser
from attempt.runs.plan import Plan
from attempt.training.progress import Progress, duration
from data.batches import Batch
from model.checkpoint import load_t5

SOURCE = re.compile(r"et al\.|papers|this program's")
# What is not there unless it is given; the other flags without a value have a default that depends on others.
ONLY_GIVEN = {
    "train_file",
    "dev_file",
    "source_field",
    "target_field",
    "task_field",
    "shots",
    "load_attention",
    "steps",
    "max_steps",
}
ONLY_GIVEN |= {"task", "wandb", "mirror", "data_dir"}
# Defaults that choose nothing that a paper could have chosen.
PLAIN = {"train_examples", "eval_examples", "max_target_length", "source_prompts", "answers", "out"}


def helps() -> dict[str, str]:
    actions = new_parser({})._actions
    return {action.dest: action.help or "" for action in actions}


@pytest.mark.parametrize("option", dataclasses.fields(Options), ids=lambda option: option.name)
def test_each_flag_names_its_default_and_where_that_is_from(option: Any) -> None:
    text = helps()[option.name]
    if isinstance(option.default, bool) or option.name in ONLY_GIVEN:  # a switch is off until it is given
        return
    assert "default:" in text, spelled(option.name)
    if option.default is not None and option.default is not dataclasses.MISSING:
        assert f"default: {option.default}" in text
    if option.name not in PLAIN:
        assert SOURCE.search(text), spelled(option.name)


def test_help_is_in_groups_that_say_whose_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    groups = [name for name in re.findall(r"^(\w+):$", text, re.MULTILINE) if name != "options"]
    assert groups == ["task", "method", "prompt", "sources", "transfer", "mixture", "training", "speed", "run"]
    assert "transfer:\n  only for --method spot" in text


class Clock:
    """time.monotonic, as a test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_expected_time_is_measured_after_the_warm_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    plan = Plan(["rte"], steps=100, eval_every=30, batch_size=8, log_every=10)
    progress = Progress(plan, 0, 6.0)
    for step, seconds in ((10, 50.0), (20, 20.0)):  # the first stretch takes longer
        assert progress.left(step) is None
        clock.now += seconds
        progress.measure(step)
        progress.log(step, 0.5, 0.3)
    assert progress.rate == 10 * 6.0 / 20 and progress.left(20) == 80 * 2.0
    first, second, expected = capsys.readouterr().out.splitlines()
    assert first == "step 10/100: loss 0.5000 nats/token, lr 0.3, 1.2 examples/s"  # nothing invented
    assert second == "step 20/100: loss 0.5000 nats/token, lr 0.3, 3 examples/s, 02:40 left"
    assert expected.startswith(
        "expected   3 min for the steps from 21 to 100 (2 s a step; evaluations are not measured"
    )
    clock.now += 30.0
    progress.measure(30)
    assert progress.left(30) == 70 * 2.5  # none was measured yet
    clock.now += 7.0
    progress.evaluated()
    # evaluations at 60, 90 and 100 are left; the steps took 50 s for 20
    assert progress.left(30) == 70 * 2.5 + 3 * 7.0
    clock.now += 25.0
    progress.measure(40)
    progress.log(40, 0.4, 0.2)
    assert "expected" not in capsys.readouterr().out  # told once
    clock.now += 50.0
    progress.measure(60)  # whose evaluation is still to come: at 60, 90 and 100
    assert progress.left(60) == 40 * 2.5 + 3 * 7.0
    assert [duration(s) for s in (45, 600, 11520)] == ["45 s", "10 min", "3.2 h"]


def test_a_short_run_is_told_no_time_that_was_not_measured(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "cola", "--method", "prompt", "--log-every", "2", "--eval-every", "4", *common]
    assert train.main([*flags, "--steps", "2", "--out", str(tmp_path / "a")]) == 0
    assert "expected" not in capsys.readouterr().out
    assert train.main([*flags, "--steps", "8", "--out", str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("step ") and "/8:" in line]
    pattern = r"step \d/8: loss [\d.]+ nats/token, lr [\d.e-]+, [\d.e+]+ examples/s(, \d\d:\d\d left)?"
    assert len(lines) == 4 and all(re.fullmatch(pattern, line) for line in lines)
    assert text.count("expected   ") == 1 and "left" not in lines[0] and "left" in lines[1]


def test_losses_are_read_at_log_steps_and_evaluations_alone(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading makes a GPU wait."""
    read: list[int] = []
    trainer: list[train.Trainer] = []
    item, tolist, step = torch.Tensor.item, torch.Tensor.tolist, train.Trainer.train_step

    def counted(original: Any) -> Any:
        def count(tensor: torch.Tensor) -> Any:
            if trainer and any(tensor is loss or tensor._base is loss for loss in trainer[0].losses):
                read.append(trainer[0].step)
            return original(tensor)

        return count

    def noted(self: train.Trainer, *parts: Batch) -> None:
        trainer[:] = [self]
        step(self, *parts)
        read.append(-self.step)

    means = train.Trainer.mean_loss
    monkeypatch.setattr(train.Trainer, "mean_loss", lambda self, last=None: read.append(self.step) or means(self, last))
    monkeypatch.setattr(train.Trainer, "train_step", noted)
    monkeypatch.setattr(torch.Tensor, "item", counted(item))
    monkeypatch.setattr(torch.Tensor, "tolist", counted(tolist))
    flags = ["--task", "cola", "--method", "prompt", "--log-every", "3", "--eval-every", "5", "--steps", "7", *common]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    assert [step for step in read if step > 0] == [3, 5, 6, 7]


def test_the_bar_of_a_terminal_has_all_facts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(Plan(["rte"], steps=10, eval_every=10), 0, 8.0)
    progress.bar.update(5)
    progress.measure(5)
    progress.log(5, 0.25, 0.3)
    progress.bar.refresh()
    progress.bar.close()
    found = capsys.readouterr()
    assert "step 5/10: loss" not in found.out and isinstance(progress.bar, tqdm)
    assert re.search(r"50% .* 5/10 steps \[.*<.*, loss 0.250, lr 0.3, [\d.e+]+ examples/s\]", found.err)


def test_the_summary_has_what_a_run_is_in_aligned_lines(
    attempt_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = train.prepare(train.parse([*attempt_flags, "--out", str(tmp_path / "run")]).options)
    capsys.readouterr()
    job.summarize()
    lines = capsys.readouterr().out.splitlines()
    names = [line[:11].strip() for line in lines]
    assert all(line[10] == " " != line[11] for line in lines) and len(lines) <= 14
    assert names[:4] == ["run", "task", "task", "method"]
    assert [n for n in names[4:] if n] == ["sources", "model", "device", "trainable", "training"]
    t5 = load_t5(Path(job.options.model))
    everything = sum(p.numel() for p in t5.parameters()) + 2 * 6 * 32 + 2 * 100 * 32 + 2 * 32
    assert any(f"6,848 of {everything:,} parameters ({6848 / everything:.2%})" in line for line in lines)


def test_a_dry_run_shows_positions_padding_and_ids(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "cola", "rte", "--method", "prompt", "--prompt-length", "7", *common]
    job = train.prepare(train.parse([*flags, "--out", str(tmp_path / "run")]).options)
    batch = next(train.training_batches(job.tokens, job.options, 0))[0]  # the first one, as it is trained on
    assert train.main([*flags, "--dry-run", "--out", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    (B, S), lengths = batch.ids.shape, batch.mask.sum(1)
    assert f"encoder: {7 + S} positions, 7 of the prompt and {S} of text" in text and (7 + S) % 8 == 0
    assert f"texts of {min(lengths)} to {max(lengths)} tokens" in text
    assert f"{1 - lengths.sum() / (B * S):.1%} are padding on the right" in text
    tasks = ["cola" if row < 40 else "rte" for row in batch.index]
    assert all(f"{tasks.count(name)} of {name}" in text for name in set(tasks))
    assert f"row 1      prompt of {tasks[0]}, 7 positions" in text
    ids = batch.ids[0, : lengths[0]].tolist()
    assert f"{len(ids)} ids, EOS (1) the last, {S - len(ids)} of padding (0): {ids[0]} {ids[1]} " in text
    label = [i for i in batch.labels[0].tolist() if i >= 0]
    assert f"{len(label)} ids, EOS (1) the last" in text and label[-1] == 1
    for name in ("cola", "rte"):
        assert re.search(rf"^{name} +source '{name} sentence.*' \(\d+ tokens\)$", text, re.MULTILINE)


def test_runs_of_before_a_flag_that_changes_nothing_go_on(prompt_run: Path, tmp_path: Path) -> None:
    config = json.loads((prompt_run / "config.json").read_text())
    for name in ("tensorboard", "wandb", "log_every", "text_scores"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Plan.read(tmp_path / "config.json") == dataclasses.replace(
        Plan.read(prompt_run / "config.json"), log_every=Options.log_every
    )
    assert {"tensorboard", "wandb"} <= MACHINE_FLAGS
