"""Runs compared: the paired tests against SciPy, the grouping over seeds, and what sets runs apart."""

import csv
import dataclasses
import json
import random
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from runs import error_of, result_of
from scipy import stats

import eval
from attempt.compare import compare
from attempt.compare.compare import complete, grouped
from attempt.compare.records import group, read_all
from attempt.compare.significance import mcnemar, paired_t, two_sided
from attempt.runs.plan import Plan
from attempt.runs.report import METHODS


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 9, 30])
def test_the_t_test_is_scipys(n: int) -> None:
    draw = random.Random(n)
    a, b = ([draw.gauss(80, 2) for _ in range(n)] for _ in range(2))
    theirs = stats.ttest_rel(a, b)
    ours = paired_t([x - y for x, y in zip(a, b, strict=True)])
    assert ours is not None
    assert ours[0] == pytest.approx(theirs.statistic, rel=1e-9) and ours[1] == pytest.approx(theirs.pvalue, rel=1e-9)
    for t in (0.0, -0.3, 1.0, 4.302652729911275, 50.0):
        assert two_sided(t, n) == pytest.approx(2 * stats.t.sf(abs(t), n), abs=1e-12)


def test_without_noise_there_is_no_t_test() -> None:
    assert paired_t([0.1, 0.1, 0.1]) is None and paired_t([0.0, 0.0]) is None
    assert paired_t([80.3 - 80.2, 70.3 - 70.2]) is None  # the same but for rounding


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 0), (3, 3), (4, 9), (60, 90), (3000, 3200)])
def test_mcnemars_test_is_scipys_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(expected, rel=1e-9)


def add_run(source: Path, out: Path, score: float, **changes: Any) -> Path:
    """A run like another, with other options and scores."""
    shutil.copytree(source, out)
    plan = dataclasses.replace(Plan.read(source / "config.json"), out=str(out), **changes)
    (out / "config.json").write_text(json.dumps(plan.stored()))
    result = result_of(source) | {"mean": {"dev": score + 1, "test": score}, "seed": plan.seed, "method": plan.method}
    (out / "result.json").write_text(json.dumps(result))
    return out


SCORES = {"prompt": (70.0, 72.0, 71.0), "spot": (73.0, 74.0, 75.5)}


@pytest.fixture
def two_methods(prompt_run: Path, tmp_path: Path) -> Path:
    """Two methods, each with three seeds, in folders as --seeds makes them."""
    for method, scores in SCORES.items():
        for seed, score in zip((1, 2, 3), scores, strict=True):
            add_run(prompt_run, tmp_path / f"cola-{method}" / f"seed-{seed}", score, method=method, seed=seed)
    return tmp_path


def test_seeds_are_grouped_and_methods_tested_in_pairs(two_methods: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(two_methods)]) == 0
    text = capsys.readouterr().out
    for method, scores in SCORES.items():
        mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
        line = next(line for line in text.splitlines() if re.split(" {2,}", line)[:3] == [METHODS[method], "cola", "3"])
        assert line.endswith(f"{mean + 1:.2f} ± {deviation:.2f}  {mean:.2f} ± {deviation:.2f}")
        assert sum(f"cola-{method}/seed-" in line for line in text.splitlines()) == 3
    t, p = stats.ttest_rel(*SCORES.values())
    row = next(line for line in text.splitlines() if line.startswith("cola: prompt tuning - SPoT"))
    differences = [a - b for a, b in zip(*SCORES.values(), strict=True)]
    figures = f"{statistics.fmean(differences):+.2f}", f"{statistics.stdev(differences):.2f}", f"{t:.2f}", f"{p:.3f}"
    assert row.split()[5:] == ["3", *figures]
    assert "paired t-test" in text and "With 3 pairs it finds only large differences" in text
    assert (
        "cola  --method: prompt (prompt tuning); spot (SPoT)" in text and "--seed" not in text and "--out" not in text
    )


def test_only_common_seeds_are_paired(two_methods: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(two_methods / "cola-spot/seed-2")
    assert compare.main([str(two_methods / "cola-prompt"), str(two_methods / "cola-spot")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("cola: prompt tuning - SPoT"))
    t, p = stats.ttest_rel([70.0, 71.0], [73.0, 75.5])
    assert row.split()[5:] == ["2", "-3.75", f"{1.5 / 2**0.5:.2f}", f"{t:.2f}", f"{p:.3f}"]
    shutil.rmtree(two_methods / "cola-spot/seed-1")
    assert compare.main([str(two_methods)]) == 0
    text = capsys.readouterr().out
    assert "no paired test" in text and "p-value" not in text and "t-test" not in text


def test_each_seed_may_start_from_prompts_of_its_own(prompt_run: Path, tmp_path: Path) -> None:
    """SPoT finds for each seed what it starts from, and is compared with that seed's own prompt."""
    for seed, start in ((1, "mnli"), (2, "qnli")):
        paths = {"init": f"x/sources/{start}.safetensors", "early_prompt": f"y/prompt/seed-{seed}"}
        run = add_run(prompt_run, tmp_path / f"seed-{seed}", 70.0, method="spot", seed=seed, **paths)
        (run / "result.json").write_text(json.dumps({**result_of(run), "start": start}))
    add_run(prompt_run, tmp_path / "other", 71.0, method="spot", init="z", seed=1)
    groups = grouped(complete([tmp_path]))
    assert sorted(len(group) for group in groups) == [1, 2]
    names = ["found" if len(group) == 2 else "given" for group in groups]
    (line,) = (line for line in compare.setting_lines(groups, names) if "--init" in line)
    assert set(line.partition(": ")[2].split("; ")) == {"z (given)", "found for each seed (found)"}


def test_a_prompt_of_one_seed_may_be_the_source_of_all(
    prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside a series whose seeds have sources of their own, and in folders that are no series."""
    for seed in (1, 2, 10):
        fixed, own = "runs/mnli/seed-1/best.safetensors", f"runs/mnli/seed-{seed}/best.safetensors"
        told = {"method": "attempt", "seed": seed, "init": "source"}
        add_run(prompt_run, tmp_path / f"fixed/seed-{seed}", 70.0, source_prompts=[fixed], **told)
        add_run(prompt_run, tmp_path / f"own/seed-{seed}", 71.0, source_prompts=["x/seed-1", own], **told)
        add_run(prompt_run, tmp_path / f"loose-{seed}", 72.0, source_prompts=[fixed], bottleneck=9, **told)
    groups = grouped(complete([tmp_path]))
    assert [len(group) for group in groups] == [3, 3, 3]
    assert compare.main([str(tmp_path / "fixed"), str(tmp_path / "own")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "--source-prompts: " in line)
    assert "runs/mnli/seed-1/best.safetensors (ATTEMPT A)" in line
    assert "x/seed-1 runs/mnli/seed-N/best.safetensors (ATTEMPT B)" in line
    assert compare.main([str(tmp_path / "loose-1"), str(tmp_path / "loose-2")]) == 0
    assert "settings that differ" not in capsys.readouterr().out


def test_unlike_runs_are_told_apart(prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another rate is another group; another --log-every, device or folder is not."""
    add_run(prompt_run, tmp_path / "a", 70.0, seed=1)
    add_run(prompt_run, tmp_path / "b", 71.0, seed=2, log_every=7, device="auto", plain=True)
    add_run(prompt_run, tmp_path / "c", 72.0, seed=1, lr=0.05)
    groups = grouped(complete([tmp_path]))
    assert [[run.folder.name for run in group] for group in groups] == [["a", "b"], ["c"]]
    assert compare.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "cola  --lr: 0.3 (prompt tuning A); 0.05 (prompt tuning B)" in text and "--log-every" not in text
    result = result_of(tmp_path / "b")
    for score in result["scores"]:
        score["examples"] = 5
    (tmp_path / "b/result.json").write_text(json.dumps(result))
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert (
        "scored test: 12 examples by generate (prompt tuning A); 5 examples by generate (prompt tuning B)"
        in capsys.readouterr().out
    )


def test_answers_to_the_same_examples_are_tested(
    prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert eval.main(["--run", str(prompt_run), "--predictions", str(first), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in first.read_text().splitlines()]
    changed = [row | {"prediction": row["target"] if i < 9 else "x"} for i, row in enumerate(rows)]
    second.write_text("".join(json.dumps(row) + "\n" for row in changed))
    assert compare.main([str(prompt_run), "--predictions", str(first), str(second)]) == 0
    right = [row["prediction"] == row["target"] for row in rows]
    b, c = sum(r and i >= 9 for i, r in enumerate(right)), sum(not r and i < 9 for i, r in enumerate(right))
    text = capsys.readouterr().out
    assert f"only the first is right {b} times, only the second {c} times" in text
    assert f"p = {stats.binomtest(b, b + c).pvalue:.3g}" in text and "McNemar's exact test" in text
    for path in (first, second):  # separators of lines to Python, but not to JSON
        path.write_text("".join(json.dumps(rows[0] | {"source": "a\u2028b\x85"}, ensure_ascii=False) + "\n"))
    assert compare.main([str(prompt_run), "--predictions", str(first), str(second)]) == 0
    second.write_text("".join(json.dumps(row) + "\n" for row in changed[1:]))
    assert compare.main([str(prompt_run), "--predictions", str(first), str(second)]) == 2
    assert "expected answers to the examples of" in error_of(capsys)


def test_what_cannot_be_compared_is_told(prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(prompt_run, tmp_path / "runs" / "a", 70.0)
    add_run(prompt_run, tmp_path / "runs" / "b", 71.0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "answers").write_text('{"task": 1}\n')
    answers = ["--predictions", str(tmp_path / "answers"), str(tmp_path / "answers")]
    for words, expected in (
        ([str(tmp_path / "rusn")], f"(did you mean {tmp_path}/runs?)"),
        ([str(tmp_path / "empty")], "expected a complete run"),
        ([str(tmp_path / "runs/a"), *answers], "expected the answers that eval.py --predictions wrote"),
    ):
        assert compare.main(words) == 2
        assert expected in error_of(capsys)


def test_the_same_seeds_in_two_folders_are_a_and_b(
    prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after an edit: told by the code where that is known, else by the folders alone."""
    for name, score in (("before", 70.0), ("after", 80.0)):
        for seed in (1, 2):
            add_run(prompt_run, tmp_path / name / f"seed-{seed}", score + seed, seed=seed)
    folders = [str(tmp_path / name) for name in ("before", "after")]
    assert compare.main(folders) == 0
    text = capsys.readouterr().out
    assert f"cola  only the folder: {folders[0]} (prompt tuning A); {folders[1]} (prompt tuning B)" in text
    assert "cola: prompt tuning A - prompt tuning B      2  -10.00" in text
    for seed in (1, 2):
        path = tmp_path / "after" / f"seed-{seed}/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"code": ["0123456789ab"]}))
    assert compare.main([*folders, "--names", "mean pooling", "max pooling"]) == 0
    text = capsys.readouterr().out
    assert "only the folder" not in text
    assert re.search(r"^cola  the code: \w{12} \(mean pooling\); 0123456789ab \(max pooling\)$", text, re.MULTILINE)


def test_names_keep_folders_apart(prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2, 3, 4):
        add_run(prompt_run, tmp_path / str(seed // 3) / f"seed-{seed}", 70.0, seed=seed)
    runs = [str(tmp_path / "0"), str(tmp_path / "1")]
    assert compare.main([*runs, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["prompt tuning,cola,4,71.00,0.00,70.00,0.00"]
    assert compare.main([*runs, "--format", "csv", "--names", "old", "new, and better"]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert [row[:3] for row in rows[1:]] == [["old", "cola", "2"], ["new, and better", "cola", "2"]]
    with pytest.raises(SystemExit, match="2"):
        compare.main([*runs, "--names", "old"])
    assert "--names: expected one for each RUN, 2, found 1" in error_of(capsys)


def test_tables_for_other_programs(two_methods: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--names", "a_b & 50% #1|~^\\"]
    assert compare.main([str(two_methods), "--format", "markdown", *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    mean, deviation = statistics.fmean(SCORES["prompt"]), statistics.stdev(SCORES["prompt"])
    assert lines[:2] == ["| settings | task | seeds | dev | test |", "| --- | ---: | ---: | ---: | ---: |"]
    assert lines[2].endswith(f"| cola | 3 | {mean + 1:.2f} ± {deviation:.2f} | {mean:.2f} ± {deviation:.2f} |")
    assert all(len(re.split(r"(?<!\\)\|", line)) == 7 for line in lines)
    assert compare.main([str(two_methods), "--format", "latex", *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrr}" and lines[-1] == r"\end{tabular}"
    escaped = r"a\_b \& 50\% \#1|\textasciitilde{}\textasciicircum{}\textbackslash{} A"
    assert (
        lines[4]
        == rf"{escaped} & cola & 3 & {mean + 1:.2f} $\pm$ {deviation:.2f} & {mean:.2f} $\pm$ {deviation:.2f} \\"
    )
    assert compare.main([str(two_methods / "cola-spot/seed-1"), "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "SPoT,cola,1,74.00,,73.00,"


def test_compare_and_pictures_pool_the_same_runs(prompt_run: Path, tmp_path: Path) -> None:
    """Seeds in folders of any name; the same seeds again in another folder; other code; scored on other examples."""
    for seed in (1, 2):
        add_run(prompt_run, tmp_path / f"a-{seed}", 70.0, seed=seed)
        add_run(prompt_run, tmp_path / f"again/a-{seed}", 71.0, seed=seed)
        add_run(prompt_run, tmp_path / f"again/b-{seed}", 71.0, seed=seed)
        add_run(prompt_run, tmp_path / f"edited/x{seed}", 71.0, seed=seed, code=["0"])
        run = add_run(prompt_run, tmp_path / f"few/seed-{seed}", 71.0, seed=seed)
        scores = [score | {"examples": 5} for score in result_of(run)["scores"]]
        (run / "result.json").write_text(json.dumps(result_of(run) | {"scores": scores}))
    (tmp_path / "again/b-2/result.json").unlink()  # interrupted
    drawn = [sorted(str(r.folder.relative_to(tmp_path)) for r in one.runs) for one in group(read_all([tmp_path])[0])]
    expected = [
        [f"{name}{seed}" for seed in (1, 2)] for name in ("a-", "again/a-", "again/b-", "edited/x", "few/seed-")
    ]
    assert sorted(drawn) == expected
    compared = [sorted(str(r.folder.relative_to(tmp_path)) for r in one) for one in grouped(complete([tmp_path]))]
    expected[2].remove("again/b-2")
    assert sorted(compared) == expected


def test_results_without_their_checkpoints_are_compared(two_methods: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in two_methods.rglob("*.safetensors"):
        path.unlink()
    assert compare.main([str(two_methods)]) == 0
    assert "cola: prompt tuning - SPoT" in capsys.readouterr().out
    (two_methods / "cola-spot/seed-1/result.json").write_text("{}")
    assert compare.main([str(two_methods)]) == 2
    told = error_of(capsys)
    assert "mend it, or leave its run out" in told and "delete" not in told
