"""That what the command line says reaches the place where it counts: scores of the tiny model are all alike, so these
tests look at what is passed on, not at what comes out."""

import dataclasses
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from runs import error_of, metrics_of, result_of

import eval
import train
from attempt.answering.answers import mixture_weights
from attempt.answering.backbone import Backbone
from attempt.answering.splits import Split, load_splits
from attempt.baselines import TunedWeights
from attempt.checkpoint import load_prompt, save_prompt
from attempt.prompt import SoftPrompt
from attempt.runs.parsing import parse
from data.batches import Batch
from data.download import Downloader
from model.t5 import T5


def prepared(*flags: str) -> train.Job:
    return train.prepare(train.parse(flags).options)


def prompt_of(job: train.Job) -> SoftPrompt:
    assert isinstance(job.trainer.trained, SoftPrompt)
    return job.trainer.trained


def test_a_step_trains_the_prompt_of_the_batchs_task_alone(common: list[str], tmp_path: Path) -> None:
    flags = ["--task", "cola", "rte", "--method", "prompt", "--weight-decay", "0"]
    job = prepared(*flags, *common, "--out", str(tmp_path))
    before = prompt_of(job).target.detach().clone()
    rows = [i for i in range(len(job.tokens)) if job.tokens.parts[i] == 1][:4]
    batch = train.collate(job.tokens, rows)
    job.trainer.train_step(batch)
    changed = (prompt_of(job).target != before).flatten(1).any(1).tolist()
    assert changed == [False, True]


def test_the_log_shows_each_tasks_own_mixture(attempt_flags: list[str], tmp_path: Path) -> None:
    """Two targets that lie far apart have different weights on the same text."""
    job = prepared(*attempt_flags, "--out", str(tmp_path), "--bottleneck", "3", "--temperature", "1")
    prompt = prompt_of(job)
    assert prompt.attention is not None and prompt.sources is not None
    with torch.no_grad():
        prompt.attention.up.weight.normal_()
        prompt.target[1] = 40 * torch.randn(prompt.target[1].shape, generator=torch.Generator().manual_seed(0))
    for number, task in enumerate(job.splits):
        tokens = task["dev"].tokens
        found, _ = mixture_weights(job.backbone, prompt, tokens)
        weights = []
        for i in range(len(tokens)):
            E = job.backbone.t5.embedding(torch.tensor(tokens.source(i).tolist()))[None]
            mask = torch.ones(E.shape[:2], dtype=torch.bool)
            weights.append(prompt.attention(E, mask, prompt.sources, prompt.target[number][None])[0, :, 0])
        torch.testing.assert_close(found, torch.stack(weights).mean(0), atol=1e-4, rtol=1e-4)
    record = job.mixture()
    rte, cola = (record["mixture"][task]["weights"] for task in ("rte", "cola"))
    assert (rte["target"] - cola["target"]) ** 2 > 1e-6
    between = np.array([list(rte.values()), list(cola.values())]).std(0).mean()
    assert record["mixture_between_tasks"] == pytest.approx(between, rel=1e-5)


def test_answers_may_be_as_long_as_the_task_allows(
    every_task: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def generate(t5: T5, ids: torch.Tensor, mask: object, max_length: int, *_: object) -> torch.Tensor:
        lengths.append(max_length)
        return ids[:, :1]

    monkeypatch.setattr("attempt.answering.backbone.generate", generate)
    flags = ["--task", "squad", "--method", "prompt", "--splits", "official", "--model", str(tiny_checkpoint)]
    flags += ["--data-dir", str(every_task), "--device", "cpu", "--steps", "1", "--max-target-length", "37"]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    assert eval.main(["--run", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert set(lengths) == {37}


def test_the_attention_network_has_a_rate_of_its_own(attempt_flags: list[str], tmp_path: Path, capsys: Any) -> None:
    job = prepared(*attempt_flags, "--lr", "0.3", "--attention-lr", "0.1", "--warmup", "0", "--out", str(tmp_path))
    groups = job.trainer.optimizer.param_groups
    assert [(group["name"], group["lr"]) for group in groups] == [("prompt", 0.3), ("attention", 0.1)]
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    assert sizes == [2 * 6 * 32, 2 * 100 * 32 + 2 * 32]
    job.summarize()
    assert "prompt 384 (lr 0.3), attention 6,464 (lr 0.1)" in capsys.readouterr().out
    job.trainer.train_step(train.collate(job.tokens, [0, 1]))
    assert [group["lr"] for group in groups] == [0.3, 0.1]


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared("--task", "cola", "--method", "prompt", *common, "--clip", "1e-6", "--out", str(tmp_path))
    norms = []
    step = job.trainer.optimizer.step

    def recorded(*arguments: Any) -> Any:
        norms.append(float(torch.stack([p.grad.norm() for p in job.trainer.parameters]).norm()))
        return step(*arguments)

    monkeypatch.setattr(job.trainer.optimizer, "step", recorded)
    for batch in list(train.training_batches(job.tokens, job.options, 0))[:2]:
        job.trainer.train_step(*batch)
    assert len(norms) == 2 and all(norm == pytest.approx(1e-6, rel=1e-3) for norm in norms)


def test_the_tasks_name_can_be_left_out(common: list[str], tmp_path: Path, capsys: Any) -> None:
    for more, first in (([], "cola sentence: "), (["--no-task-name"], "sentence: ")):
        assert train.main(["--task", "cola", "--method", "prompt", *common, *more, "--dry-run"]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("cola "))
        assert line.split("source ")[1].startswith(f"'{first}")


def test_examples_to_score_do_not_tear_questions_apart(every_task: Path, tiny_checkpoint: Path) -> None:
    flags = [
        "--task",
        "multirc",
        "--splits",
        "official",
        "--model",
        str(tiny_checkpoint),
        "--data-dir",
        str(every_task),
    ]
    options = train.parse([*flags, "--device", "cpu"]).options
    downloader = Downloader(data_dir=every_task)
    tokenizer = Backbone.load(options, downloader).tokenizer
    whole = load_splits("multirc", 0, ["dev"], options, downloader, tokenizer)["dev"].examples
    sizes = {group: [e.group for e in whole].count(group) for group in {e.group for e in whole}}
    assert max(sizes.values()) > 1
    for count in range(2, 5):
        some = dataclasses.replace(options, eval_examples=count)
        taken = load_splits("multirc", 0, ["dev"], some, downloader, tokenizer)["dev"].examples
        groups = [e.group for e in taken]
        assert 0 < len(taken) <= count and all(groups.count(group) == sizes[group] for group in groups)


def test_adapters_start_from_the_runs_seed(common: list[str], tmp_path: Path) -> None:
    first, again, other = (
        prepared("--task", "cola", "--method", "adapter", *common, "--seed", seed, "--out", str(tmp_path))
        for seed in ("1", "1", "2")
    )
    weights = [job.trainer.trained.state_dict() for job in (first, again, other)]
    name = next(name for name in weights[0] if name.endswith("adapter.down.weight"))
    assert torch.equal(weights[0][name], weights[1][name]) and not torch.equal(weights[0][name], weights[2][name])
    assert isinstance(first.trainer.trained, TunedWeights) and weights[0][name].std() == pytest.approx(0.01, rel=0.3)


def test_a_run_from_the_vocabulary_begins_with_rows_of_the_checkpoints_embedding(
    common: list[str], tmp_path: Path
) -> None:
    job = prepared("--task", "cola", "--method", "prompt", *common, "--prompt-length", "9", "--out", str(tmp_path))
    rows = {tuple(row.tolist()) for row in job.backbone.t5.embedding.weight}
    assert all(tuple(row.tolist()) in rows for row in prompt_of(job).target[0])


def test_the_best_checkpoint_is_the_one_that_is_tested(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev, tested = iter([10.0, 30.0, 20.0]), []

    def scored(backbone: object, prompt: SoftPrompt, split: Split, options: object) -> Any:
        if split.name == "test":
            tested.append(prompt.target.detach().clone())
        value = next(dev) if split.name == "dev" else 1.0
        metrics = {"matthews": value}
        return {
            "task": "cola",
            "split": split.name,
            "metrics": metrics,
            "invalid": 0.0,
            "examples": 1,
            "answers": {},
        }, []

    monkeypatch.setattr("attempt.training.job.score_split", scored)
    flags = ["--task", "cola", "--method", "prompt", "--steps", "6", "--eval-every", "2", "--prompt-length", "3"]
    assert train.main([*flags, *common, "--out", str(tmp_path / "run")]) == 0
    best, last = (load_prompt(tmp_path / f"run/{name}.safetensors")[0].target for name in ("best", "last"))
    assert torch.equal(tested[0], best) and not torch.equal(tested[0], last)
    assert result_of(tmp_path / "run")["best_step"] == 4
    assert [record["best"] for record in metrics_of(tmp_path / "run")] == [True, True, False]


def test_a_fixed_attention_network_stays_fixed_on_resume(
    attempt_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*attempt_flags, "--fix-attention", "--out", str(tmp_path / "run")]
    whole = train.Trainer.train_step

    def interrupted(self: train.Trainer, batch: Batch) -> None:
        if self.step == 4:
            raise KeyboardInterrupt
        whole(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_step", interrupted)
        assert train.main(flags) == 130
    before = load_prompt(tmp_path / "run/last.safetensors")[0]
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    after = load_prompt(tmp_path / "run/last.safetensors")[0]
    assert before.attention is not None and after.attention is not None
    pairs = zip(before.attention.parameters(), after.attention.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) and not torch.equal(before.target, after.target)


BAD = [
    (["--task", "cola", "--seed", "1" * 23], "below 2^63"),
    (["--task", "cola", "--seeds", "1", "--seed", "2"], "expected --seed or --seeds, found both"),
    (["--task", "cola", "--method", "spot", "--early-prompt", "x", "--early-steps", "1"], "--early-prompt or --early"),
    (["--task", "cola", "--temperature", "1", "--learn-temperature"], "--temperature or --learn-temperature"),
    (["--resume", "a", "--out", "b"], "expected --resume a without --out, found --out b"),
    (["@{quote}"], "closed quotes"),
    (["@{itself}"], "includes itself"),
    (["@{latin}"], "in UTF-8"),
]


@pytest.mark.parametrize(("flags", "told"), BAD)
def test_flags_that_contradict_each_other_are_told(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / name for name in ("quote", "itself", "latin")}
    files["quote"].write_text("--init text:it's\n")
    files["itself"].write_text(f"@{files['itself']}\n")
    files["latin"].write_bytes(b"--task caf\xe9\n")
    with pytest.raises(SystemExit) as stop:
        train.main([flag.format(**files) for flag in flags])
    assert stop.value.code == 2 and told in error_of(capsys)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--init", "text:" + "long " * 100, "--prompt-length", "3"], ""),
        (["--init", "no/such"], "--init no/such: expected vocab, uniform"),
        (["--method", "attempt", "--source-prompts", "no/such.pt"], "no/such.pt: expected a run folder or a prompt's"),
        (["--method", "attempt", "--source-prompts", "{code}"], "it holds more than tensors"),
        (
            ["--method", "attempt", "--source-prompts", "{file}", "--load-attention", "no/such"],
            "no/such: expected a run",
        ),
        (["--out", "{file}/x"], "expected a folder for the run, found a file"),
    ],
)
def test_paths_that_are_not_there_are_told(
    flags: list[str], told: str, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, code = tmp_path / "file.pt", tmp_path / "code.pt"
    torch.save(torch.randn(6, 32), file)
    torch.save({"run": print}, code)
    arguments = ["--task", "cola", "--method", "prompt", *common, "--out", str(tmp_path / "o"), "--steps", "1"]
    status = train.main([*arguments, *(flag.format(file=file, code=code) for flag in flags)])
    assert status == (2 if told else 0)
    if told:
        message = error_of(capsys)
        assert told in message and "weights_only" not in message


def test_a_folder_named_like_a_keyword_is_not_taken_for_it(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vocab").mkdir()
    monkeypatch.chdir(tmp_path)
    assert train.main(["--task", "cola", "--method", "prompt", "--init", "vocab", *common, "--dry-run"]) == 0


def test_flags_without_effect_are_told(attempt_flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*attempt_flags, "--attention", "constant", "--bottleneck", "7", "--dry-run"]
    assert train.main(flags) == 0
    assert "note: --bottleneck has no effect with --attention constant" in capsys.readouterr().err
    assert train.main([*attempt_flags, "--no-target", "--init", "vocab", "--dry-run"]) == 0
    assert "note: --init has no effect with --no-target" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--fix-attention --attention-lr 1", ["--attention-lr"]),
        ("--fix-attention --freeze-norm --learn-temperature", ["--freeze-norm", "--learn-temperature"]),
        ("--fix-attention --learn-temperature --load-attention x", []),
        ("--attention dot --fix-attention --attention-lr 1", ["--fix-attention", "--attention-lr"]),
        ("--attention dot --fix-attention --learn-temperature --load-attention x", []),
        ("--attention dot --attention-lr 1 --learn-temperature", []),
        ("--attention constant --load-attention x", []),
    ],
)
def test_what_nothing_of_g_is_left_for_is_told(flags: str, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parse(["--task", "cola", *flags.split()])
    notes = [line.partition("note: ")[2] for line in capsys.readouterr().err.splitlines()]
    assert [note.partition(" has no effect with ")[0] for note in notes] == told


@pytest.mark.parametrize("variant", ["constant", "dot"])
def test_no_g_is_loaded_where_there_is_none(
    variant: str, attempt_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*attempt_flags, "--steps", "1", "--out", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    flags = ["--load-attention", str(tmp_path / "a"), "--attention", variant, "--dry-run"]
    assert train.main([*attempt_flags, *flags]) == 2
    text = capsys.readouterr().err
    assert f"found --attention {variant}, which has none" in text and "no effect" not in text


def test_the_smaller_number_of_steps_counts(common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "cola", "--method", "prompt", *common, "--dry-run", "--steps", "8", "--max-steps", "4"]
    assert train.main(flags) == 0
    assert "training   4 steps" in capsys.readouterr().out


def test_a_run_named_by_its_group_goes_on(
    every_task: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "MRQA", "--method", "prompt", "--splits", "official", "--steps", "2", "--prompt-length", "2"]
    flags += ["--model", str(tiny_checkpoint), "--data-dir", str(every_task), "--device", "cpu", "--batch-size", "2"]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert train.main([*flags, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "resumed    " in capsys.readouterr().out
    assert train.main(["--task", "GLUE", "--out", str(tmp_path / "run"), "--resume"]) == 2
    assert "--task mnli qqp" in (text := error_of(capsys)) and "(was nq hotpotqa" in text


def test_a_folder_of_runs_names_them(common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "cola", "--method", "prompt", "--steps", "1", "--seeds", "1", "2", *common]
    assert train.main([*flags, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    for argv, program in ((["--run", str(tmp_path)], eval), (["--resume", str(tmp_path)], train)):
        assert program.main(argv) == 2
        assert "its folder holds the runs seed-1, seed-2: name one of them" in error_of(capsys)


def test_eval_refuses_what_it_would_pass_over(prompt_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        eval.main(["--run", str(prompt_run), "--test-file", "none.tsv"])
    assert "--test-file: expected a run on a user's files, found one on cola" in error_of(capsys)
    assert eval.main(["--run", str(prompt_run), "--task", "cola", "cola"]) == 2
    assert "expected each task once" in error_of(capsys)
    best = str(prompt_run / "best.safetensors")
    assert eval.main(["--run", str(prompt_run), "--device", "cpu", "--checkpoint", best]) == 0


def test_eval_finds_the_prompts_of_a_given_file_by_their_tasks(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "run", tmp_path / "other.safetensors"
    flags = ["--task", "cola", "rte", "--method", "prompt", "--steps", "4", "--eval-every", "2", *common]
    assert train.main([*flags, "--out", str(out)]) == 0

    def scored(file: Path) -> int:
        return eval.main(["--run", str(out), "--split", "dev", "--device", "cpu", "--checkpoint", str(file)])

    prompt, config = load_prompt(out / "best.safetensors")
    swapped = dataclasses.replace(config, tasks=["rte", "cola"])
    assert eval.numbered(["cola", "rte"], swapped) == {"cola": 1, "rte": 0}
    alone = dataclasses.replace(config, tasks=["rte"])
    assert eval.numbered(["cola", "rte"], alone) == {"cola": 0, "rte": 0}  # one prompt can be tried on any task
    save_prompt(other, SoftPrompt(prompt.target[1:].detach()), alone)
    assert scored(other) == 0
    save_prompt(other, prompt, dataclasses.replace(config, tasks=["rte", "mrpc"]))
    assert scored(other) == 2
    assert "--task cola: expected one of the checkpoint's tasks, rte, mrpc" in error_of(capsys)
    save_prompt(other, prompt, dataclasses.replace(config, labels="words"))
    assert scored(other) == 2
    assert "expected answers that are digits, as the run's, found words" in error_of(capsys)


def test_out_of_memory_is_a_line_wherever_it_happens(
    prompt_run: Path, common: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(Backbone, "load", full)
    flags = ["--task", "cola", "--method", "prompt", "--dry-run", *common]
    for program, words in ((eval, ["--run", str(prompt_run), "--device", "cpu"]), (train, flags)):
        assert program.main(words) == 2
        assert "out of memory with what was asked for; halve the batch sizes" in error_of(capsys)


def test_a_mirrors_password_is_not_stored(common: list[str], tmp_path: Path) -> None:
    job = prepared("--task", "cola", "--method", "prompt", *common, "--out", str(tmp_path / "run"))
    plan = dataclasses.replace(job.options, mirror="https://me:secret@example.org/files/a@b")
    assert plan.stored()["mirror"] == "https://example.org/files/a@b"
    assert job.options.stored() == dataclasses.asdict(job.options)
