"""train.py and eval.py from end to end, on a tiny random T5 and small files in GLUE's layout."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import error_of, metrics_of, result_of, same_prompt

import eval
import train
from attempt.answering.answers import score_split
from attempt.answering.backbone import Backbone
from attempt.answering.splits import Split, load_splits
from attempt.checkpoint import load_prompt
from attempt.command.options import Options
from attempt.machine.device import Machine
from attempt.prompt import SoftPrompt
from attempt.runs.folder import Run
from attempt.runs.plan import Plan
from attempt.training.summary import training_lines
from data.batches import bucketed
from data.download import Downloader


def test_a_run_folder_holds_what_the_run_was_and_did(prompt_run: Path) -> None:
    names = {path.name for path in prompt_run.iterdir()}
    checkpoints = {"best.safetensors", "last.safetensors", "state.pt", "state-before.pt"}
    assert names == {"config.json", "metrics.jsonl", "result.json"} | checkpoints
    assert [record["step"] for record in metrics_of(prompt_run)] == [5, 10, 12]
    result = result_of(prompt_run)
    assert [(s["task"], s["split"], s["examples"]) for s in result["scores"]] == [
        ("cola", "dev", 12),
        ("cola", "test", 12),
    ]
    assert set(result["scores"][0]["metrics"]) == {"matthews"} and 0 <= result["scores"][0]["invalid"] <= 100
    assert result["trainable_parameters"] == 6 * 32
    assert result["seed"] == 42 and result["seconds"] > 0 and {"python", "torch"} <= set(result["versions"])


def test_the_best_checkpoint_is_the_one_of_the_best_evaluation(prompt_run: Path) -> None:
    records = metrics_of(prompt_run)
    best = max(record["scores"][0]["metrics"]["matthews"] for record in records)
    first = next(r for r in records if r["scores"][0]["metrics"]["matthews"] == best)
    assert result_of(prompt_run)["best_step"] == first["step"]
    assert result_of(prompt_run)["scores"][0] == first["scores"][0]


def test_of_several_tasks_the_mean_of_their_first_metrics_decides(
    every_task: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cb's first metric is its macro F1, squad's F1; each has a second one, which must not count."""
    dev = iter([(10.0, 20.0), (0.0, 36.0), (16.0, 18.0), (30.0, 4.0)])  # means 15, 18, 17, 17

    def scored(backbone: object, prompt: object, split: Split, options: Plan) -> Any:
        if split.name == "dev" and split.task.name == "cb":
            scored.pair = next(dev)  # type: ignore[attr-defined]
        first = scored.pair[split.task.name == "squad"]  # type: ignore[attr-defined]
        metrics = {split.task.metrics[0]: first, split.task.metrics[1]: 100 - 3 * first}
        return {"task": split.task.name, "split": split.name, "metrics": metrics, "invalid": 0.0, "examples": 1,
                "answers": {}}, []  # fmt: skip

    monkeypatch.setattr("attempt.training.job.score_split", scored)
    flags = ["--task", "cb", "squad", "--method", "prompt", "--splits", "official", "--steps", "4", "--eval-every", "1"]
    flags += ["--model", str(tiny_checkpoint), "--data-dir", str(every_task), "--device", "cpu", "--batch-size", "2"]
    assert train.main([*flags, "--prompt-length", "2", "--out", str(tmp_path / "run")]) == 0
    assert [record["best"] for record in metrics_of(tmp_path / "run")] == [True, True, False, False]
    result = result_of(tmp_path / "run")
    assert result["best_step"] == 2 and result["mean"]["dev"] == 18.0


@pytest.mark.parametrize("split", ["dev", "test"])
def test_eval_reproduces_the_stored_figure(prompt_run: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    stored = next(score for score in result_of(prompt_run)["scores"] if score["split"] == split)
    assert eval.main(["--run", str(prompt_run), "--split", split, "--device", "cpu"]) == 0
    assert eval.describe(stored) in capsys.readouterr().out


def test_predictions_are_the_answers_that_were_scored(prompt_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    assert eval.main(["--run", str(prompt_run), "--predictions", str(file), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 12 and all(row["source"].startswith("cola sentence: ") for row in rows)
    invalid = 100 * sum(row["prediction"].strip() not in ("0", "1") for row in rows) / len(rows)
    assert invalid == result_of(prompt_run)["scores"][1]["invalid"]


def test_attempt_trains_all_that_it_should_and_shows_its_mixture(attempt_flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main([*attempt_flags, "--out", str(out)]) == 0
    prompt, config = load_prompt(out)
    assert config.sources == ["cola", "rte"] and config.tasks == ["rte", "cola"] and prompt.target.shape == (2, 6, 32)
    assert result_of(out)["trainable_parameters"] == 2 * 6 * 32 + 2 * 100 * 32 + 2 * 32
    mixture = metrics_of(out)[-1]["mixture"]
    for task in ("rte", "cola"):
        assert list(mixture[task]["weights"]) == ["cola", "rte", "target"]
        assert sum(mixture[task]["weights"].values()) == pytest.approx(1, abs=1e-5)
        assert 0 < mixture[task]["entropy"] <= 1.0987  # log 3
        assert 0 < mixture[task]["deviation"] < 0.5
    assert 0 < metrics_of(out)[-1]["mixture_between_tasks"] < 0.5
    best = next(line for line in metrics_of(out) if line["step"] == result_of(out)["best_step"])
    assert {key: result_of(out)[key] for key in ("mixture", "mixture_between_tasks")} == {
        key: best[key] for key in ("mixture", "mixture_between_tasks")
    }
    # both started as copies of the first source; each was trained on its own task's examples
    assert not torch.equal(prompt.target[0], prompt.target[1])


def test_sources_of_one_name_keep_their_weights_apart(
    attempt_flags: list[str], prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, out = tmp_path / "target_prompt.pt", tmp_path / "run"
    torch.save(torch.randn(6, 32), target)
    last, names = prompt_run / "last.safetensors", ["cola", "cola-2", "target-2"]
    assert (
        train.main([*attempt_flags, "--source-prompts", *map(str, (prompt_run, last, target)), "--out", str(out)]) == 0
    )
    weights = metrics_of(out)[-1]["mixture"]["rte"]["weights"]
    assert list(weights) == [*names, "target"] and sum(weights.values()) == pytest.approx(1, abs=1e-5)
    # they are removed by the names under which they are told, and those that stay keep theirs
    capsys.readouterr()
    flags = ["--run", str(out), "--device", "cpu", "--remove-sources", "cola", "--add-sources", str(last), str(target)]
    assert eval.main(flags) == 0
    assert capsys.readouterr().out.startswith("sources cola-2, target-2, cola, target-3\n")


def test_each_task_is_answered_with_its_own_prompt(attempt_flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main([*attempt_flags, "--out", str(out)]) == 0
    plan = Plan.read(out / "config.json")
    downloader = Downloader(data_dir=Path(plan.data_dir or ""))
    backbone = Backbone.load(plan, downloader)
    prompt, _ = load_prompt(out)
    prompt.target.data[1] = torch.randn(6, 32) * 5
    split = load_splits("cola", 1, ["dev"], plan, downloader, backbone.tokenizer)["dev"]
    wrong = load_splits("cola", 0, ["dev"], plan, downloader, backbone.tokenizer)["dev"]
    assert score_split(backbone, prompt, split, plan)[1] != score_split(backbone, prompt, wrong, plan)[1]
    # also where the run has one for all, and the file that --checkpoint names one for each
    shared = dataclasses.replace(plan, shared_prompt=True)
    given = load_splits("cola", 1, ["dev"], shared, downloader, backbone.tokenizer)["dev"]
    assert given.tokens.tasks.tolist() == split.tokens.tasks.tolist()


def test_a_checkpoint_needs_no_source_files(attempt_flags: list[str], prompt_run: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "run"
    shutil.copytree(prompt_run, source)
    flags = [str(source) if flag == str(prompt_run) else flag for flag in attempt_flags]
    assert train.main([*flags, "--out", str(out)]) == 0
    shutil.rmtree(source)
    assert eval.main(["--run", str(out), "--device", "cpu"]) == 0
    assert train.main(["--resume", str(out)]) == 0


def test_the_same_seed_gives_the_same_run(attempt_flags: list[str], tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert train.main([*attempt_flags, "--seed", seed, "--out", str(tmp_path / name)]) == 0
    assert same_prompt(tmp_path / "a", tmp_path / "b") and metrics_of(tmp_path / "a") == metrics_of(tmp_path / "b")
    assert not same_prompt(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("steps", [0, 2, 4, 8])  # before the first evaluation, between, and before the last
@pytest.mark.parametrize(("optimizer", "pool"), [("adamw", "max"), ("adafactor", "centred")])
def test_a_resumed_run_is_the_uninterrupted_run(
    attempt_flags: list[str], steps: int, optimizer: str, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*attempt_flags, "--optimizer", optimizer, "--pool", pool]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train.main([*flags, "--out", str(whole)]) == 0
    step = train.Trainer.train_step

    def killed(self: train.Trainer, batch: Any) -> None:
        if self.step == steps:
            raise RuntimeError("killed")
        step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(train.Trainer, "train_step", killed)
        train.main([*flags, "--out", str(cut)])
    torch.manual_seed(0)  # the continuation is another process: whatever state the generator had is gone
    assert train.main(["--resume", str(cut)]) == 0
    assert same_prompt(whole / "last.safetensors", cut / "last.safetensors")
    assert same_prompt(whole / "best.safetensors", cut / "best.safetensors")
    assert metrics_of(whole) == metrics_of(cut)
    assert result_of(whole)["scores"] == result_of(cut)["scores"]


def test_resume_takes_the_run_named_by_out_too(attempt_flags: list[str], tmp_path: Path) -> None:
    assert train.main([*attempt_flags, "--out", str(tmp_path)]) == 0
    assert train.main(["--out", str(tmp_path), "--resume"]) == 0


def test_resume_refuses_options_that_change_the_run(prompt_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--resume", str(prompt_run), "--lr", "0.1", "--steps", "12"]) == 2
    message = error_of(capsys)
    assert "--lr 0.1 (was 0.3)" in message and "--steps" not in message


DAMAGES: dict[str, tuple[str, bytes]] = {
    "no JSON": ("config.json", b"{"),
    "a list": ("config.json", b"[]"),
    "no options": ("config.json", b"{}"),
    "no state": ("state.pt", b""),
    "cut checkpoint": ("last.safetensors", b"\x10\0\0"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_run_is_told_on_resume(
    kind: str, prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = DAMAGES[kind]
    shutil.copytree(prompt_run, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    for spare in ("state-before.pt", "best.safetensors"):  # what would be taken in the place of a damaged one
        (tmp_path / "run" / spare).unlink()
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    assert name in error_of(capsys)


@pytest.mark.parametrize(("name", "value"), [("task", 5), ("steps", "many"), ("lr", None), ("task_name", 1)])
def test_an_option_of_another_kind_is_told_on_resume(
    name: str, value: object, prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(prompt_run, tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text()) | {name: value}
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    assert f"{name}: {value!r}" in error_of(capsys)


def test_the_state_of_another_run_is_told(prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(prompt_run, tmp_path / "run")
    torch.save({"step": 3, "evaluated": 0}, tmp_path / "run/state.pt")
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    assert "state.pt: expected the state of this run" in error_of(capsys)


def test_a_file_in_the_place_of_the_folder_is_told(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    assert train.main(["--task", "cola", "--method", "prompt", "--out", str(tmp_path / "file"), *common]) == 2
    assert "found a file" in error_of(capsys) and (tmp_path / "file").read_text() == "kept"


def test_a_run_without_progress_stops_early_and_stays_stopped(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "cola", "--method", "prompt", "--lr", "0", "--weight-decay", "0", "--eval-every", "2"]
    assert train.main([*flags, "--steps", "40", "--patience", "3", "--out", str(tmp_path / "run"), *common]) == 0
    assert "stopped early" in capsys.readouterr().out
    assert [record["step"] for record in metrics_of(tmp_path / "run")] == [2, 4, 6, 8]
    assert result_of(tmp_path / "run")["steps"] == 8 and result_of(tmp_path / "run")["best_step"] == 2
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert result_of(tmp_path / "run")["steps"] == 8


def test_an_interruption_says_how_to_go_on(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: train.Trainer, batch: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Trainer, "train_step", interrupted)
    assert train.main(["--task", "cola", "--method", "prompt", "--out", str(tmp_path / "run"), *common]) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_half_written_line_of_metrics_is_passed_over(prompt_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(prompt_run, copy)
    with open(copy / "metrics.jsonl", "a") as file:
        file.write('{"step": 99, "loss": 1}\n{"step": 100, "lo')
    Run(copy).load_state()
    assert [record["step"] for record in metrics_of(copy)] == [5, 10, 12]


def test_a_used_folder_is_refused(prompt_run: Path, common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in prompt_run.iterdir()}
    assert train.main(["--task", "cola", "--method", "prompt", "--out", str(prompt_run), *common]) == 2
    assert "--resume" in error_of(capsys)
    assert before == {path.name: path.read_bytes() for path in prompt_run.iterdir()}


def test_a_dry_run_shows_a_batch_and_writes_nothing(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = ["--task", "cola", "--method", "prompt", "--labels", "words", "--out", str(out), "--dry-run"]
    assert train.main([*flags, *common]) == 0
    text = capsys.readouterr().out
    assert "source 'cola sentence: " in text and "acceptable'" in text and "loss" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--task", "colla"], "did you mean cola?"),
        (["--task", "cola", "cola"], "each task once"),
        (["--task", "cola", "--init", "no-such-file"], "no such file"),
        (["--task", "cola", "--init", "source"], "--method attempt"),
        (["--task", "cola", "--init", "text: "], "some text"),
        (["--task", "cola", "--prompt-length", "5001"], "without replacement"),
        (["--task", "cola", "--precision", "fp16"], "expected a CUDA GPU"),
        (["--task", "cola", "--device", "quantum"], "--device quantum"),
        (["--task", "cola", "--shard", "--compile"], "--shard or --compile"),
        (["--task", "mnli"], "MNLI.zip"),  # not in the folder
    ],
)
def test_a_mistake_is_told_on_one_line(
    flags: list[str], expected: str, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main([*common, "--method", "prompt", "--out", str(out), *flags]) == 2
    assert expected in error_of(capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--task TASK"),
        (
            ["--task", "cola", "--method", "prompt", "--top-k", "1"],
            "--top-k: expected --method spot, found --method prompt",
        ),
        (
            ["--task", "cola", "--method", "adapter", "--init", "vocab"],
            "--init: expected --method attempt or prompt or spot",
        ),
        (["--task", "cola", "--method", "spot", "--no-target"], "--no-target: expected --method attempt, found"),
        (["--task", "cola", "--method", "spot", "--init", "x", "--top-k", "1"], "--init, the prompt to start from, or"),
        (["--task", "cola", "--seeds", "1", "2", "1"], "each of --seeds once, found 1 2 1"),
        (["--resume", "runs/x", "--seeds", "1"], "give the same command again"),
        (["@no/such.args"], "no/such.args"),
        (["--task", "cola", "--steps", "0"], "whole number from 1"),
        (["--task", "cola", "--lr", "nan"], "number from 0"),
        (["--task", "cola", "--method", "magic"], "invalid choice"),
    ],
)
def test_a_wrong_flag_is_told_on_one_line(flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(flags)
    assert stop.value.code == 2 and expected in error_of(capsys)


def test_missing_sources_are_told_with_the_commands_that_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--task", "cola", "--method", "attempt", "--model", "t5-large"]) == 2
    text = capsys.readouterr().err
    assert (
        "python train.py --task mnli qnli qqp sst2 squad record --separately --method prompt --model t5-large" in text
    )
    assert "attempt_large_source.zip" in text and "--source-prompts" in text


def test_sources_of_the_default_place_are_found(
    prompt_run: Path,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Path(common[1]).name
    shutil.copytree(prompt_run, tmp_path / f"runs/sst2-prompt-{model}")
    monkeypatch.chdir(tmp_path)
    assert train.main(["--task", "rte", "--method", "attempt", "--dry-run", *common]) == 0
    assert "sources    cola" in capsys.readouterr().out  # the copied run's own task


def test_sources_of_another_width_are_refused(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torch.randn(6, 48), tmp_path / "wide_prompt.pt")
    flags = ["--source-prompts", str(tmp_path / "wide_prompt.pt"), "--out", str(tmp_path / "run")]
    assert train.main(["--task", "cola", *flags, *common]) == 2
    assert "width 32, found width 48" in error_of(capsys)


def test_without_a_network_the_plain_command_says_what_it_wanted_and_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(*args: object, **settings: object) -> None:
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    assert train.main(["--task", "sst2", "--method", "prompt"]) == 2
    message = error_of(capsys)
    for part in ("https://huggingface.co/t5-base/resolve/main/config.json", "--mirror", "--data-dir"):
        assert part in message
    assert not (tmp_path / "runs").exists()


def bucketed_rows(run: Path, step: int) -> list[int]:
    """The training examples of a step of a run on cola's 40 examples."""
    plan = Plan.read(run / "config.json")
    job = train.prepare(dataclasses.replace(plan, out=str(run)))
    return next(train.training_rows(job.tokens, plan, step - 1))


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])  # the second without clipping
def test_a_gradient_that_is_not_finite_is_named_by_its_step(
    optimizer: str,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loss of two tasks' batch is finite, its gradient is not: the square root of 0."""
    loss = train.Trainer.loss

    def steep(self: train.Trainer, batch: Any) -> torch.Tensor:
        zero = (self.parameters[0] * 0).sum().sqrt() if self.step == 3 else 0
        return loss(self, batch) + zero

    monkeypatch.setattr(train.Trainer, "loss", steep)
    flags = ["--task", "cola", "rte", "--method", "prompt", "--steps", "12", "--eval-every", "4", *common]
    assert train.main([*flags, "--optimizer", optimizer, "--out", str(tmp_path / "run")]) == 2
    assert load_prompt(tmp_path / "run" / "last.safetensors")[0].target.isfinite().all()
    message = error_of(capsys)
    assert "step 4: expected a finite loss and gradient, found norm of the gradient nan" in message
    rows = bucketed_rows(tmp_path / "run", 4)
    assert ", ".join(f"cola {row}" if row < 40 else f"rte {row - 40}" for row in rows) in message


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = train.Trainer.loss

    def overflowing(self: train.Trainer, batch: Any) -> torch.Tensor:
        return loss(self, batch) * (float("nan") if self.step == 6 else 1)

    monkeypatch.setattr(train.Trainer, "loss", overflowing)
    flags = ["--task", "cola", "--method", "prompt", "--steps", "12", "--eval-every", "5", "--log-every", "2"]
    assert train.main([*flags, "--out", str(tmp_path / "run"), *common]) == 2
    message = error_of(capsys)
    assert "step 7: expected a finite loss and gradient, found loss nan" in message
    rows = bucketed_rows(tmp_path / "run", 7)
    assert f"examples: {', '.join(f'cola {row}' for row in rows)}" in message
    # what was saved before it is whole and usable
    assert load_prompt(tmp_path / "run" / "last.safetensors")[0].target.isfinite().all()


def test_a_prompt_to_start_from_is_read_once_and_needed_no_longer_when_the_run_goes_on(
    prompt_run: Path, common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, read, load = tmp_path / "first.safetensors", [], train.given_prompts.__globals__["load_prompts"]
    first.write_bytes((prompt_run / "best.safetensors").read_bytes())
    monkeypatch.setattr("attempt.training.build.load_prompts", lambda path: read.append(path) or load(path))
    flags = ["--task", "rte", "cola", "--method", "prompt", "--init", str(first), "--steps", "2"]
    job = train.prepare(train.parse([*flags, "--out", str(tmp_path / "run"), *common]).options)
    assert read == [first] and torch.equal(job.trainer.trained.prompt.target[1], load(first)[0][0])
    job.run.create(job.options)
    job.save()
    first.unlink()
    assert train.main(["--resume", str(tmp_path / "run")]) == 0


def test_an_init_from_another_run_is_its_prompt(prompt_run: Path, common: list[str], tmp_path: Path) -> None:
    flags = ["--task", "rte", "--method", "prompt", "--init", str(prompt_run), "--prompt-length", "6"]
    assert (
        train.main([*flags, "--lr", "0", "--weight-decay", "0", "--steps", "1", "--out", str(tmp_path / "a"), *common])
        == 0
    )
    assert torch.equal(load_prompt(tmp_path / "a")[0].target, load_prompt(prompt_run)[0].target)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_prompts_stay_fp32_under_autocast_and_learn(
    attempt_flags: list[str], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the refusal of slow precisions on the CPU is not what is tested here
    monkeypatch.setattr(
        "attempt.answering.backbone.choose_machine", lambda *_: Machine(torch.device("cpu"), precision, "test")
    )
    job = train.prepare(train.parse([*attempt_flags, "--steps", "3", "--out", str(tmp_path / "run")]).options)
    trainer, prompt = job.trainer, job.trainer.trained
    assert isinstance(prompt, SoftPrompt)
    before = prompt.target.detach().clone()
    for batch in train.training_batches(job.tokens, job.options, 0):
        trainer.train_step(*batch)
    assert prompt.target.dtype == torch.float32 and prompt.target.grad is None
    assert not torch.equal(before, prompt.target) and trainer.mean_loss() > 0
    assert (trainer.scaler.get_scale() > 1) == (precision == "fp16")


def index_of(job: train.Job, options: Plan, first: int) -> list[list[int]]:
    return list(train.training_rows(job.tokens, options, first))


def test_the_cap_shapes_every_epoch_and_a_resumed_run_meets_the_same_batches(common: list[str]) -> None:
    flags = ["--task", "cola", "--method", "prompt", "--steps", "15", *common]
    job = train.prepare(train.parse(flags).options)  # 40 examples, 8 a batch
    job.tokens.parts[:] = [0] * 30 + [1] * 10
    whole = index_of(job, job.options, 0)
    assert whole == [rows for epoch in range(3) for rows in bucketed(job.tokens.lengths, 8, 42, epoch)]
    capped = dataclasses.replace(job.options, mixing_cap=14)
    batches = index_of(job, capped, 0)
    assert len(batches) == 15 and [len(rows) for rows in batches] == [8, 8, 8] * 5
    for epoch in range(5):
        rows = [i for batch in batches[3 * epoch : 3 * epoch + 3] for i in batch]
        assert len(set(rows)) == 24 and sum(i < 30 for i in rows) == 14
    assert len({i for rows in batches for i in rows}) > 24
    for first in (1, 3, 8, 15):
        assert index_of(job, capped, first) == batches[first:]


def test_the_cap_counts_in_the_length_of_a_run(common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "cola", "rte", "--method", "prompt", "--dry-run", "--epochs", "2", *common]
    assert train.main(flags) == 0
    assert "training   18 steps of 8 examples (2 epochs)" in capsys.readouterr().out  # 40 + 30 examples
    assert train.main([*flags, "--mixing-cap", "32"]) == 0
    assert "training   16 steps of 8 examples (2 epochs)" in capsys.readouterr().out  # 32 + 30
    assert Plan.complete(train.parse([*flags, "--mixing-cap", "3"]).options, 6, None).steps == 2


@pytest.mark.parametrize(
    ("sizes", "more", "told"),
    [
        ([8], {"steps": 3}, "3 steps of 8 examples (3 epochs)"),  # a batch of 32 holds the whole set
        ([33], {"steps": 3}, "3 steps of 32 examples (1.5 epochs)"),
        ([64, 32], {"steps": 3}, "3 steps of 32 examples (1 epochs)"),
        ([64, 32], {"steps": 3, "mixing_cap": 16}, "3 steps of 32 examples (3 epochs)"),
        ([10_000], {"steps": 10}, "10 steps of 32 examples (0.032 epochs)"),
        ([8], {"steps": 1234}, "1234 steps of 8 examples (1,234 epochs)"),
    ],
)
def test_the_epochs_that_are_told_are_passes_over_the_data(sizes: list[int], more: dict[str, Any], told: str) -> None:
    plan = Plan.complete(Options(["a"], method="prompt", **more), sum(sizes), None)
    assert training_lines(plan, sizes)[0] == ("training", told)
    whole = Options(["a"], batch_size=8, epochs=3, mixing_cap=more.get("mixing_cap"))
    steps = Plan.complete(whole, whole.epoch_examples(sizes), 3).steps
    assert steps == 3 * whole.epoch_steps(sizes)


@pytest.mark.long
def test_prompt_tuning_learns_a_real_task(
    flan: Path, fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SST-2 on the real checkpoint: a short prompt and few steps, but the loss must fall by half."""
    flags = ["--task", "sst2", "--method", "prompt", "--labels", "words", "--optimizer", "adafactor", "--lr", "0.3"]
    small = [
        "--prompt-length",
        "10",
        "--batch-size",
        "8",
        "--steps",
        "24",
        "--eval-every",
        "8",
        "--eval-examples",
        "16",
    ]
    place = ["--model", str(flan), "--data-dir", str(fixtures / "mirror"), "--out", str(tmp_path)]
    assert train.main([*flags, *small, *place, "--train-examples", "400", "--dropout", "0", "--device", "cpu"]) == 0
    losses = [record["loss"] for record in metrics_of(tmp_path)]
    assert losses[-1] < losses[0] / 2, losses
