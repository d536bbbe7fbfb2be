"""Several runs for one command: seeds, tasks one by one, SPoT; and runs that build on others' G and sources."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import error_of, metrics_of, result_of, same_prompt

import eval
import train
from attempt import spot
from attempt.answering.splits import Split
from attempt.baselines import METHODS
from attempt.checkpoint import PromptConfig, load_prompt, load_sources, save_prompt
from attempt.command.options import Options
from attempt.prompt import SoftPrompt
from attempt.training.build import SOURCES
from attempt.training.series import candidates, early_prompt
from attempt.training.trainer import Trainer
from data.download import Downloader
from model.safetensors import read_safetensors

SMALL = ["--method", "prompt", "--prompt-length", "4", "--steps", "4", "--eval-every", "2"]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def interrupt_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Ctrl-C before the count-th step of the process."""
    steps = 0
    whole = Trainer.train_step

    def step(self: Trainer, batch: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == count:
            raise KeyboardInterrupt
        whole(self, batch)

    monkeypatch.setattr(Trainer, "train_step", step)


def test_seeds_are_trained_each_and_summarized(
    common: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--task", "cola", *SMALL, *common, "--seeds", "1", "2", "5", "--out", str(tmp_path)]
    assert train.main(flags) == 0
    runs = [result_of(tmp_path / f"seed-{seed}") for seed in (1, 2, 5)]
    assert [run["seed"] for run in runs] == [1, 2, 5]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["seeds"] == [1, 2, 5]
    assert [(s["task"], s["split"]) for s in summary["scores"]] == [
        ("cola", "dev"),
        ("cola", "test"),
        ("mean", "dev"),
        ("mean", "test"),
    ]
    for i, score in enumerate(summary["scores"][:2]):
        values = [run["scores"][i]["metrics"]["matthews"] for run in runs]
        assert score["values"] == values and score["mean"] == pytest.approx(np.mean(values))
        assert score["deviation"] == pytest.approx(np.std(values, ddof=1))
    printed = capsys.readouterr().out
    deviation = summary["scores"][1]["deviation"]
    assert f"cola test: matthews  {summary['scores'][1]['mean']:.2f}".replace(" ", "") in printed.replace(" ", "")
    assert f"{deviation:.2f}" in printed


def test_a_dry_run_of_a_series_shows_each_task_by_itself(
    common: list[str], sources: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "cola", "rte", *SMALL, *common, "--separately", "--seeds", "1", "2", "--dry-run"]
    assert train.main([*flags, "--out", str(tmp_path / "x")]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("task ")] == ["cola:", "rte:"]
    assert train.main([*spot_flags(sources, common, tmp_path / "x"), "--dry-run"]) == 0
    assert "starts from what --transfer best makes of rte, mnli; here from vocab" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()


def test_a_complete_series_is_kept_and_other_options_are_refused(
    common: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--task", "cola", "rte", *SMALL, *common, "--separately", "--out", str(tmp_path)]
    assert train.main(flags) == 0
    printed = capsys.readouterr().out.splitlines()
    results = {name: result_of(tmp_path / name)["mean"] for name in ("cola", "rte")}
    mean = {split: (results["cola"][split] + results["rte"][split]) / 2 for split in ("dev", "test")}
    rows = [line.split() for line in printed[-3:]]
    assert rows[0] == [str(tmp_path / "cola"), *(f"{results['cola'][s]:.2f}" for s in ("dev", "test"))]
    assert rows[2] == ["mean", f"{mean['dev']:.2f}", f"{mean['test']:.2f}"]
    before = contents(tmp_path)
    assert train.main(flags) == 0
    assert contents(tmp_path) == before
    assert f"kept       {tmp_path / 'rte'}: it is complete" in capsys.readouterr().out
    assert train.main([*flags, "--lr", "0.2"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("--lr 0.2 (was 0.3)") == 2 and "found 2 that failed: cola, rte" in errors


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--train-examples", "8"], "--train-examples left out (was 8)"),
        (["--lr", "0.1"], "--lr left out (was 0.1)"),
        (["--max-target-length", "3"], "--max-target-length left out (was 3)"),
    ],
)
def test_leaving_an_option_out_is_a_difference_too(
    more: list[str], told: str, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "cola", *SMALL, *common, "--seeds", "1", "--out", str(tmp_path)]
    assert train.main([*flags, *more]) == 0
    capsys.readouterr()
    assert train.main(flags) == 2
    assert told in error_of(capsys)
    assert train.main([*flags, *more]) == 0


def test_the_table_of_tasks_is_of_this_command(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not of the summary that another command's seeds left in the same folder."""
    flags = ["--task", "cola", *SMALL, *common, "--separately", "--out", str(tmp_path)]
    assert train.main(flags) == 0
    (tmp_path / "cola/summary.json").write_text('{"scores": [{"task": "mean", "split": "dev", "mean": 77.0}]}')
    capsys.readouterr()
    assert train.main(flags) == 0 and "77" not in capsys.readouterr().out


def test_a_task_that_fails_does_not_stop_the_others(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "rte", "cola", *SMALL, *common, "--separately", "--shots", "14", "--out", str(tmp_path)]
    assert train.main(flags) == 2
    text = capsys.readouterr()
    assert "train.py: error: rte: --shots: expected 14" in text.err and "found 1 that failed: rte" in text.err
    assert result_of(tmp_path / "cola")["task"] == ["cola"] and str(tmp_path / "cola") in text.out


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"scores": [], "mean": {"dev": "x", "test": 1.0}}'])
def test_a_damaged_result_is_told(
    content: str, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "cola", *SMALL, *common, "--seeds", "1", "--out", str(tmp_path)]
    assert train.main(flags) == 0
    (tmp_path / "seed-1/result.json").write_text(content)
    assert train.main(flags) == 2
    assert "result.json: expected the result of a complete run" in error_of(capsys)


def test_an_interrupted_series_goes_on_as_if_nothing_had_happened(
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--task", "cola", *SMALL, *common, "--seeds", "1", "2", "--out"]
    assert train.main([*flags, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8)  # the second run's step 4, after its evaluation at step 2
        assert train.main([*flags, str(tmp_path / "cut")]) == 130
    assert "the same command" in capsys.readouterr().err and not (tmp_path / "cut/seed-2/result.json").exists()
    assert train.main([*flags, str(tmp_path / "cut")]) == 0
    assert "resumed    " in capsys.readouterr().out
    for seed in ("seed-1", "seed-2"):
        assert same_prompt(tmp_path / "whole" / seed / "last.safetensors", tmp_path / "cut" / seed / "last.safetensors")
        assert metrics_of(tmp_path / "whole" / seed) == metrics_of(tmp_path / "cut" / seed)
    whole, cut = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut"))
    assert whole == cut


@pytest.fixture(scope="module")
def sources(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Prompts of three tasks, two of which have data."""
    out = tmp_path_factory.mktemp("sources")
    flags = ["--method", "prompt", "--prompt-length", "6", "--steps", "3", *common]
    for task, seed in (("rte", 1), ("cola", 2)):
        assert train.main(["--task", task, *flags, "--seed", str(seed), "--out", str(out / task)]) == 0
    torch.save(torch.randn(6, 32, generator=torch.Generator().manual_seed(1)), out / "mnli_prompt.pt")
    return [str(out / "rte"), str(out / "cola"), str(out / "mnli_prompt.pt")]


def spot_flags(sources: list[str], common: list[str], out: Path, *more: str) -> list[str]:
    flags = ["--task", "cola", "--method", "spot", "--source-prompts", *sources, "--steps", "4", "--eval-every", "2"]
    return [*flags, *common, *more, "--out", str(out)]


def test_spot_trains_from_the_nearest_sources_and_keeps_the_best(
    sources: list[str],
    common: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = spot_flags(sources, common, tmp_path / "spot", "--early-steps", "4", "--top-k", "2")
    assert train.main(flags) == 0
    out = tmp_path / "spot"
    # the target's own prompt after four steps, not its best, ranks the others; cola's own source is none
    early = load_prompt(out / "early/last.safetensors")[0].target[0]
    prompts, names = load_sources([Path(path) for path in (sources[0], sources[2])])
    ranking = spot.rank(early, prompts, "average")
    rows = [line.split("\t") for line in (out / "ranking.tsv").read_text().splitlines()]
    assert [(row[0], row[1]) for row in rows[1:]] == [(names[i], f"{value:.4f}") for i, value in ranking]
    best = load_prompt(out / "early/best.safetensors")[0].target[0]
    assert not torch.equal(best, early) and len(result_of(out)["candidates"]) == 2
    # each candidate started from its source's prompt, with the same options
    for i, name in enumerate(names):
        start = load_prompt(out / f"sources/{name}.safetensors")[0].target[0]
        assert torch.equal(start, prompts[i])
        config = json.loads((out / f"from-{name}/config.json").read_text())
        assert config["init"] == str(out / f"sources/{name}.safetensors") and config["prompt_length"] == 6
    dev = {name: result_of(out / f"from-{name}")["mean"]["dev"] for name in names}
    result = result_of(out)
    assert dev[result["start"]] == max(dev.values()) and result["method"] == "spot"
    assert same_prompt(out / "best.safetensors", out / f"from-{result['start']}/best.safetensors")
    # the folder of the whole is a run like any other
    capsys.readouterr()
    assert eval.main(["--run", str(out), "--device", "cpu"]) == 0
    assert eval.describe(result["scores"][1]) in capsys.readouterr().out
    before = contents(out)
    assert train.main(flags) == 0 and contents(out) == before


def test_the_prompt_to_compare_with_is_hardly_scored(tmp_path: Path) -> None:
    """Its last step counts, whatever dev says."""
    told: list[Options] = []

    def train_run(options: Options) -> None:
        told.append(options)
        save_prompt(tmp_path / "early/last.safetensors", *untrained)

    untrained = SoftPrompt(torch.zeros(1, 6, 32)), PromptConfig("prompt", "t5-base", ["cola"], [], "digits")
    for asked, expected in ((None, 64), (1000, 64), (8, 8)):
        options = Options(["cola"], method="spot", out=str(tmp_path), eval_examples=asked, patience=2)
        early_prompt(options, 6, train_run)
        assert told[-1].eval_examples == expected and told[-1].patience is None


def test_spot_keeps_the_candidate_with_the_best_dev_score(
    sources: list[str], common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three candidates the second has the best dev score, the first and the third have better test scores."""
    chosen = {"rte": (10.0, 90.0), "mnli": (30.0, 20.0), "other": (20.0, 95.0)}

    def scored(backbone: object, prompt: object, split: Split, options: Any) -> Any:
        start = next((name for name in chosen if f"from-{name}" in options.out), "rte")
        value = chosen[start][split.name == "test"]
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
    other = tmp_path / "other_prompt.pt"
    torch.save(torch.randn(6, 32), other)
    flags = spot_flags([*sources[::2], str(other)], common, tmp_path / "s", "--early-prompt", sources[1])
    assert train.main(flags) == 0
    result = result_of(tmp_path / "s")
    assert result["start"] == "mnli" and result["mean"] == {"dev": 30.0, "test": 20.0}
    assert result["candidates"] == {name: {"dev": dev, "test": test} for name, (dev, test) in chosen.items()}


def test_a_search_keeps_to_its_own_folder(
    sources: list[str], common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = ["--task", "cola", "--method", "spot", "--steps", "2", *common, "--out", str(out)]
    assert train.main([*flags, "--init", sources[0]]) == 0
    (out / "result.json").unlink()
    before = contents(out)
    assert train.main([*flags, "--source-prompts", *sources]) == 2
    assert "expected an empty or new folder" in error_of(capsys) and contents(out) == before
    search = spot_flags(sources[:1], common, tmp_path / "s", "--early-prompt", sources[1])
    assert train.main(search) == 0
    assert train.main([*search, "--init", "x"][:6] + search[6:] + ["--top-k", "1"]) == 2
    assert "--top-k 1 (was 3)" in error_of(capsys)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--prompt-length", "5"], "--prompt-length 5: expected the sources' length 6"),
        (["--transfer", "mixture"], "unknown task 'mnli_prompts'"),
        (["--source-prompts", "{wide}"], "expected prompts of width 32, found width 9"),
    ],
)
def test_a_search_that_cannot_end_does_not_begin(
    more: list[str],
    told: str,
    sources: list[str],
    common: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide, odd = tmp_path / "wide.pt", tmp_path / "mnli_prompts.pt"
    torch.save(torch.randn(6, 9), wide)
    shutil.copyfile(sources[2], odd)
    flags = spot_flags([sources[0], str(odd)], common, tmp_path / "s", *(flag.format(wide=wide) for flag in more))
    assert train.main(flags) == 2
    assert told in error_of(capsys) and not (tmp_path / "s").exists()


def test_names_of_strangers_prompts_stay_in_the_folder(sources: list[str], common: list[str], tmp_path: Path) -> None:
    prompt, config = load_prompt(Path(sources[0]))
    evil = tmp_path / "evil.safetensors"
    save_prompt(evil, prompt, dataclasses.replace(config, tasks=["../../../evil"]))
    out = tmp_path / "a/b/run"
    assert train.main(spot_flags([str(evil)], common, out, "--early-prompt", sources[1])) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "evil.safetensors"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}
    assert spot.file_names(["a", "a-2", "a", "../a", ".."]) == ["a", "a-2", "a-3", "_a", "prompt"]


def test_none_of_several_prompts_of_a_task_is_another_tasks(sources: list[str]) -> None:
    paths = [sources[0], f"{sources[0]}/last.safetensors", sources[1], f"{sources[1]}/last.safetensors"]
    found, names = candidates(Options(["rte"], method="spot", source_prompts=paths))
    assert names == ["cola", "cola-2"] and len(found) == 2


def test_a_mixture_has_each_task_once(sources: list[str], common: list[str], tmp_path: Path) -> None:
    flags = spot_flags(sources[:2], common, tmp_path / "m", "--task", "rte", "--transfer", "mixture")
    assert train.main([*flags, "--early-prompt", sources[0]]) == 0
    config = json.loads((tmp_path / "m/mixture/config.json").read_text())
    assert config["task"] == ["rte", "cola"] and config["mixing_cap"] == 2**19


def test_spot_averages_by_similarity(sources: list[str], common: list[str], tmp_path: Path) -> None:
    flags = spot_flags(sources[::2], common, tmp_path / "a", "--transfer", "average", "--similarity", "tokens")
    assert train.main([*flags, "--early-prompt", sources[0]]) == 0
    prompts, _ = load_sources([Path(path) for path in sources[::2]])
    target = load_sources([Path(sources[0])])[0][0]
    similarities = [spot.similarity(target, prompt, "tokens") for prompt in prompts]
    expected = sum(max(s, 0) * prompt for s, prompt in zip(similarities, prompts, strict=True))
    expected = expected / sum(max(s, 0) for s in similarities)
    start = load_prompt(tmp_path / "a/sources/average.safetensors")[0].target[0]
    torch.testing.assert_close(start, expected)
    assert not (tmp_path / "a/early").exists()


def test_spot_starts_from_a_prompt_for_a_mixture_of_tasks(
    sources: list[str],
    common: list[str],
    tmp_path: Path,
) -> None:
    flags = spot_flags(sources[:2], common, tmp_path / "m", "--transfer", "mixture", "--early-prompt", sources[1])
    assert train.main(flags) == 0
    prompt, config = load_prompt(tmp_path / "m/mixture")
    assert prompt.target.shape == (1, 6, 32) and config.tasks == ["cola", "rte"] and config.shared
    scores = result_of(tmp_path / "m/mixture")["scores"]
    assert [score["task"] for score in scores] == ["cola", "rte"] * 2
    init = json.loads((tmp_path / "m/config.json").read_text())["init"]
    assert init == str(tmp_path / "m/mixture")


def test_a_shared_prompt_learns_from_all_tasks(common: list[str], tmp_path: Path) -> None:
    flags = ["--task", "cola", "rte", *SMALL, "--shared-prompt", "--mixing-cap", "8", *common]
    job = train.prepare(train.parse([*flags, "--out", str(tmp_path / "x")]).options)
    assert set(job.tokens.tasks) == {0} and set(job.tokens.parts) == {0, 1}
    batches = [part for (part,) in train.training_batches(job.tokens, job.options, 0)]
    seen = {int(job.tokens.parts[i]) for batch in batches for i in batch.index.tolist()}
    assert seen == {0, 1} and job.trainer.trained.state_dict()["target"].shape[0] == 1
    assert train.main([*flags, "--out", str(tmp_path / "x")]) == 0
    assert eval.main(["--run", str(tmp_path / "x"), "--task", "rte", "--device", "cpu"]) == 0


def test_spot_from_a_given_prompt_is_one_run(sources: list[str], common: list[str], tmp_path: Path) -> None:
    flags = ["--task", "cola", "--method", "spot", "--init", sources[0], "--lr", "0", "--steps", "1", *common]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    found, config = load_prompt(tmp_path / "run")
    assert torch.equal(found.target, load_prompt(Path(sources[0]))[0].target) and config.method == "spot"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--task", "cola", "rte"], "expected one task to choose sources for, found cola, rte"),
        (["--source-prompts", "{cola}"], "expected prompts of other tasks than cola, found only its own"),
    ],
)
def test_spot_says_what_it_cannot_choose(
    change: list[str],
    expected: str,
    sources: list[str],
    common: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change = [flag.format(cola=sources[1]) for flag in change]
    assert train.main([*spot_flags(sources, common, tmp_path / "s"), *change]) == 2
    assert expected in error_of(capsys)


@pytest.mark.parametrize("method", METHODS)
def test_a_baseline_from_end_to_end_and_resumed(
    method: str,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--task", "rte", "cola", "--method", method, "--steps", "4", "--eval-every", "2", *common, "--out"]
    assert train.main([*flags, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        assert train.main([*flags, str(tmp_path / "cut")]) == 130
    assert train.main(["--resume", str(tmp_path / "cut")]) == 0
    for name in ("best.safetensors", "last.safetensors"):
        whole, cut = (read_safetensors(tmp_path / folder / name)[0] for folder in ("whole", "cut"))
        assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)
    assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "cut")
    config = json.loads((tmp_path / "whole/config.json").read_text())
    assert (config["lr"], config["weight_decay"]) == (3e-4, 0.0)
    capsys.readouterr()
    assert eval.main(["--run", str(tmp_path / "whole"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for score in result_of(tmp_path / "whole")["scores"][2:]:
        assert eval.describe(score) in printed


def test_g_is_loaded_from_an_earlier_run(attempt_flags: list[str], tmp_path: Path, capsys: Any) -> None:
    first, still = [*attempt_flags, "--out", str(tmp_path / "a")], ["--lr", "0", "--weight-decay", "0"]
    assert train.main([*first, "--bottleneck", "7"]) == 0
    G = load_prompt(tmp_path / "a/last.safetensors")[0].attention.state_dict()  # type: ignore[union-attr]
    again = [*attempt_flags, *still, "--load-attention", str(tmp_path / "a/last.safetensors")]
    assert train.main([*again, "--bottleneck", "7", "--out", str(tmp_path / "b")]) == 0
    loaded = load_prompt(tmp_path / "b/last.safetensors")[0].attention.state_dict()  # type: ignore[union-attr]
    assert loaded.keys() == G.keys() and all(torch.equal(loaded[name], G[name]) for name in G)
    capsys.readouterr()
    assert train.main([*again, "--out", str(tmp_path / "c")]) == 2
    assert "--load-attention" in (text := error_of(capsys)) and "--bottleneck" in text
    prompt = attempt_flags[attempt_flags.index("--source-prompts") + 1]
    assert train.main([*attempt_flags, "--load-attention", prompt, "--out", str(tmp_path / "d")]) == 2
    assert "expected a run of --method attempt, whose G to start from" in error_of(capsys)


def test_g_is_loaded_from_the_authors_files(attempt_flags: list[str], tmp_path: Path) -> None:
    folder, draw = tmp_path / "attn_pretrain_nlu", torch.Generator().manual_seed(0)
    folder.mkdir()
    shapes = {"attn_W_down": (100, 32), "attn_W_up": (32, 100), "layer_norm_weight": (32,), "layer_norm_bias": (32,)}
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        torch.save(tensor, folder / f"{name}.pt")
    flags = [*attempt_flags, "--lr", "0", "--load-attention", str(folder), "--steps", "1"]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    G = load_prompt(tmp_path / "run")[0].attention
    assert G is not None
    for ours, theirs in zip((G.down.weight, G.up.weight, G.norm.weight, G.norm.bias), tensors.values(), strict=True):
        assert torch.equal(ours, theirs)


def test_sources_are_added_and_removed_without_training(
    attempt_flags: list[str],
    sources: list[str],
    tmp_path: Path,
    capsys: Any,
) -> None:
    run = tmp_path / "run"
    assert train.main([*attempt_flags, "--out", str(run)]) == 0
    before, saved = load_prompt(run), tmp_path / "changed.safetensors"
    capsys.readouterr()
    flags = ["--run", str(run), "--device", "cpu", "--save-checkpoint", str(saved)]
    assert eval.main([*flags, "--remove-sources", "cola", "--add-sources", sources[2]]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sources rte, mnli\n") and "rte test: " in printed and "cola test: " in printed
    after = load_prompt(saved)
    assert before[1].sources == ["cola", "rte"] and after[1].sources == ["rte", "mnli"]
    assert torch.equal(after[0].sources[0], before[0].sources[1])  # type: ignore[index]
    assert torch.equal(after[0].sources[1], load_sources([Path(sources[2])])[0][0])  # type: ignore[index]
    theirs, ours = before[0].state_dict(), after[0].state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs if name != "sources")
    assert eval.main(["--run", str(run), "--device", "cpu", "--remove-sources", "squad"]) == 2
    assert "expected sources of the run, cola, rte; found squad" in error_of(capsys)
    assert eval.main(["--run", str(run), "--device", "cpu", "--remove-sources", "cola", "rte"]) == 2
    assert "expected at least one source to be left" in error_of(capsys)


def test_training_goes_on_from_a_run_with_other_sources(
    attempt_flags: list[str],
    sources: list[str],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    assert train.main([*attempt_flags, "--out", str(run)]) == 0
    at = attempt_flags.index("--source-prompts")
    flags = [*attempt_flags[: at + 3], sources[2], *attempt_flags[at + 3 :], "--lr", "0", "--steps", "1"]
    flags += ["--init", str(run), "--load-attention", str(run), "--out", str(tmp_path / "more")]
    assert train.main(flags) == 0
    (old, _), (new, config) = load_prompt(run), load_prompt(tmp_path / "more")
    assert config.sources == ["cola", "rte", "mnli"] and torch.equal(old.target, new.target)
    assert all(torch.equal(a, b) for a, b in zip(old.attention.parameters(), new.attention.parameters(), strict=True))  # type: ignore[union-attr]


def test_a_run_that_never_saved_a_state_starts_again(common: list[str], tmp_path: Path) -> None:
    flags = ["--task", "cola", *SMALL, *common, "--seeds", "1", "--out", str(tmp_path / "s")]
    assert train.main(flags) == 0
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    for path in list((tmp_path / "t/seed-1").iterdir()):
        if path.name != "config.json":
            path.unlink()
    (tmp_path / "t/seed-1/.state.pt.tmp").write_bytes(b"half")
    assert train.main([*flags[:-1], str(tmp_path / "t")]) == 0
    assert same_prompt(tmp_path / "s/seed-1", tmp_path / "t/seed-1")


def test_a_series_goes_on_from_the_state_before_where_a_kill_left_that_alone(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "cola", *SMALL, *common, "--seeds", "1", "--out"]
    assert train.main([*flags, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        assert train.main([*flags, str(tmp_path / "cut")]) == 130
    (tmp_path / "cut/seed-1/state.pt").unlink()
    assert (tmp_path / "cut/seed-1/state-before.pt").exists()
    assert train.main([*flags, str(tmp_path / "cut")]) == 0
    assert "going on from the one before" in capsys.readouterr().err
    assert same_prompt(tmp_path / "whole/seed-1/last.safetensors", tmp_path / "cut/seed-1/last.safetensors")


def test_a_search_does_not_store_a_mirrors_password(
    sources: list[str], common: list[str], glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Downloader(data_dir=glue)
    monkeypatch.setattr("attempt.answering.backbone.Downloader", lambda **_: files)
    flags = spot_flags(sources[:1], common, tmp_path / "s", "--early-prompt", sources[1])
    at = flags.index("--data-dir")
    assert train.main([*flags[:at], *flags[at + 2 :], "--mirror", "http://me:secret@127.0.0.1:9"]) == 0
    texts = [path.read_text() for path in (tmp_path / "s").rglob("*.json")]
    assert len(texts) >= 4 and not any("secret" in text for text in texts)


def test_an_error_of_all_tasks_is_told_once(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint without its files, say, which each of them needs."""
    (tmp_path / "no-model").mkdir()
    flags = ["--task", "cola", "rte", "--separately", *SMALL, *common, "--model", str(tmp_path / "no-model")]
    assert train.main([*flags, "--out", str(tmp_path / "x")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("train.py: error: cola: ") and "no-model" in lines[0]
    assert lines[1:] == [
        "train.py: error: rte: the same",
        "train.py: error: expected 2 tasks to be trained, found 2 that failed: cola, rte",
    ]


def test_a_note_is_told_once_for_all_runs(
    common: list[str], sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of the paper's six sources one is there; each of three runs looks for them."""
    monkeypatch.chdir(tmp_path)
    words = ["--model", str(Path(common[1])), *common[2:]]
    shutil.copytree(sources[0], tmp_path / f"runs/qnli-prompt-{Path(common[1]).name}")
    flags = ["--task", "cola", "--method", "attempt", "--steps", "1", *words, "--seeds", "1", "2", "3"]
    assert train.main([*flags, "--out", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().err.count("sources from 1 of the paper's six tasks") == 1


def test_the_command_that_makes_sources_has_the_runs_flags(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my data"
    flags = [
        "--task",
        "rte",
        "--method",
        "attempt",
        *common,
        "--data-dir",
        str(folder),
        "--labels",
        "words",
        "--shots",
        "4",
    ]
    assert train.main([*flags, "--no-task-name", "--splits", "official"]) == 2
    (command,) = (line.strip() for line in capsys.readouterr().err.splitlines() if "python train.py" in line)
    found = train.parse(shlex.split(command)[2:])
    options = found.options
    assert found.separately and options.method == "prompt" and options.task == list(SOURCES)
    assert (options.model, options.data_dir, options.device) == (common[1], str(folder), "cpu")
    assert (options.labels, options.splits, options.task_name) == ("words", "official", False)
    assert options.shots is None  # of the target: the sources have more


def test_a_search_of_before_a_flag_goes_on(
    common: list[str], sources: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = spot_flags(sources, common, tmp_path / "s")
    assert train.main(flags) == 0
    asked = json.loads((tmp_path / "s/search.json").read_text())
    for name in ("task_field", "skip_bad_steps", "shard"):
        del asked[name]
    (tmp_path / "s/search.json").write_text(json.dumps(asked))
    capsys.readouterr()
    assert train.main(flags) == 0
    assert f"kept       {tmp_path / 's'}: it is complete" in capsys.readouterr().out
    assert train.main([*flags, "--skip-bad-steps"]) == 2
    assert "--skip-bad-steps True (was False)" in error_of(capsys)
