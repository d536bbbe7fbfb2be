"""Pictures of runs: the figures that reach them, the same as text, and what is said where there is nothing to draw."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from recorded import record_run, seeds
from runs import REPOSITORY, error_of, metrics_of, result_of
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

import eval
import train
from attempt.checkpoint import load_sources
from attempt.compare.records import Group, group, read_all
from attempt.plots import plots
from attempt.plots.cluster import leaf_order
from attempt.plots.pictures import (
    AttentionMap,
    attention_map,
    attention_maps,
    learning_curves,
    mixture_curves,
    results,
    similarity_matrix,
)
from attempt.spot import similarity

pytestmark = pytest.mark.filterwarnings("error")  # of a picture that has no room, say
ROOT_HALF = 0.5**0.5  # the sample deviation of two values is their distance times this


@pytest.fixture
def two(tmp_path: Path) -> list[Group]:
    seeds(tmp_path)
    return group(read_all([tmp_path])[0])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("seed", range(5))
def test_the_clustering_orders_as_scipy_does(size: int, seed: int) -> None:
    a = np.random.default_rng(seed).uniform(-1, 1, (size, size))
    similarity = (a + a.T) / 2
    np.fill_diagonal(similarity, 1)
    expected = [0] if size == 1 else leaves_list(linkage(squareform(1 - similarity, checks=False), "average")).tolist()
    assert leaf_order(similarity) == expected


def test_runs_that_differ_in_their_seeds_alone_are_one_group(tmp_path: Path) -> None:
    seeds(tmp_path)
    record_run(tmp_path / "slow", {5: 60}, lr=0.01)
    record_run(tmp_path / "rte", {5: 60}, task="rte")
    record_run(tmp_path / "again", {5: 60}, task="rte")
    record_run(tmp_path / "boolq/seed-1", {5: 60}, task="boolq", seed=1)
    record_run(tmp_path / "boolq/seed-2", {5: 60}, task="boolq", seed=2, lr=0.1)
    groups = [(one.label, one.tasks, len(one.runs)) for one in group(read_all([tmp_path])[0])]
    assert sorted(groups) == [
        ("ATTEMPT, lr 0.01", ["mrpc"], 1),
        ("ATTEMPT, lr 0.1", ["boolq"], 1),
        ("ATTEMPT, lr 0.3", ["boolq"], 1),
        ("ATTEMPT, lr 0.3", ["mrpc"], 2),
        ("ATTEMPT, lr 0.3, again", ["rte"], 1),
        ("ATTEMPT, lr 0.3, rte", ["rte"], 1),
        ("prompt tuning", ["mrpc"], 2),
    ]


def test_what_a_prompt_starts_from_tells_runs_apart_unless_each_seed_has_its_own(tmp_path: Path) -> None:
    record_run(tmp_path / "a", {5: 60}, method="spot", init="runs/mnli", eval_batch_size=8)
    record_run(tmp_path / "b", {5: 60}, method="spot", init="runs/qqp", eval_batch_size=16)
    for seed in (1, 2):
        record_run(tmp_path / f"own/seed-{seed}", {5: 60}, method="spot", seed=seed, init=f"runs/cola/seed-{seed}")
    groups = {one.label: len(one.runs) for one in group(read_all([tmp_path])[0])}
    assert groups == {"SPoT, init runs/mnli": 1, "SPoT, init runs/qqp": 1, "SPoT, init runs/cola/seed-N": 2}


def test_a_prompt_that_all_seeds_start_from_is_one_setting(tmp_path: Path) -> None:
    for seed in (1, 2, 10):
        told = {"method": "prompt", "seed": seed}
        record_run(tmp_path / f"a/seed-{seed}", {5: 60}, init="runs/cola/seed-1", **told)
        record_run(tmp_path / f"b/seed-{seed}", {5: 60}, init=f"runs/cola/seed-{seed}", **told)
    groups = {one.label: len(one.runs) for one in group(read_all([tmp_path])[0])}
    assert groups == {"prompt tuning, init runs/cola/seed-1": 3, "prompt tuning, init runs/cola/seed-N": 3}


def test_a_name_below_a_picture_stands_whole(tmp_path: Path) -> None:
    """Two names may differ at their ends alone, or in their middles."""
    from attempt.plots.draw import drawn  # noqa: PLC0415 - needs the extra

    for optimizer in ("adafactor", "adamw"):
        for length in (20, 100):
            told = {"labels": "words", "prompt_length": length, "optimizer": optimizer, "lr": 1 / length, "warmup": 10}
            record_run(tmp_path / f"{optimizer}-{length}", {5: 60, 10: 70}, method="prompt", **told)
    (picture,) = learning_curves(group(read_all([tmp_path])[0]))
    names = [text.get_text() for text in drawn(picture).legends[0].get_texts()]
    assert len(set(names)) == 4 and max(len(line) for name in names for line in name.split("\n")) <= 60
    whole = {name.replace("\n", " ") for name in names}
    assert whole == {one.label for one in group(read_all([tmp_path])[0])}


def test_parts_of_a_search_are_no_runs_of_their_own(tmp_path: Path) -> None:
    folder = record_run(tmp_path / "spot", {}, method="spot", test=None)
    (folder / "search.json").write_text("{}")
    part = record_run(folder / "from-qqp", {5: 61, 10: 63}, method="spot", test=62)
    (folder / "result.json").write_text(json.dumps({**json.loads((part / "result.json").read_text()), "start": "qqp"}))
    (folder / "metrics.jsonl").unlink()
    records, damaged = read_all([tmp_path])
    assert [record.folder for record in records] == [folder] and not damaged
    assert [e.scores["mrpc"] for e in records[0].evaluations] == [("accuracy", 61.0), ("accuracy", 63.0)]


def test_the_attention_map_shows_means_and_instances() -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415 - needs the extra

    draw = np.random.default_rng(0)
    weights = {task: draw.dirichlet([1, 2, 3], 50) for task in ("mrpc", "rte")}
    axes = drawn(attention_map("test", ["qqp", "sst2", "target"], weights)).axes
    expected = np.stack([weights["mrpc"].mean(0), weights["rte"].mean(0)])
    np.testing.assert_allclose(np.asarray(axes[0].collections[0].get_array()).reshape(2, 3), expected)
    assert [text.get_text() for text in axes[0].texts] == [f"{v:.2f}" for v in expected.ravel()]
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["qqp", "sst2", "target"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["mrpc", "rte"]
    assert axes[0].yaxis_inverted()  # the first row of the map is above the second, as its name is
    for ax, values in zip(axes[1:], weights.values(), strict=True):
        medians = [float(line.get_ydata()[0]) for line in ax.lines if line.get_linewidth() == 1.6]
        np.testing.assert_allclose(medians, np.median(values, axis=0))
        points = next(line for line in ax.lines if line.get_marker() == ".")
        np.testing.assert_array_equal(points.get_ydata(), values.ravel())
        assert [text.get_text() for text in ax.texts] == [f"sd {v:.2g}" for v in values.std(0)]
    assert axes[0].figure.get_suptitle().replace("\n", " ") == (
        "Weights of the prompts on test: mrpc (50 examples), rte (50 examples)"
    )


def test_a_map_of_runs_has_the_best_steps_and_means_of_seeds(two: list[Group]) -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415

    [picture] = attention_maps(two)
    np.testing.assert_allclose(picture.weights, [[0.7, 0.1, 0.2]])  # of step 10, qqp 0.6 and 0.8
    assert (picture.targets, picture.prompts) == (["mrpc"], ["qqp", "sst2", "target"])
    lacking = AttentionMap("", ["a", "b"], ["x", "y"], np.array([[1, np.nan], [0.5, 0.5]]))
    assert [text.get_text() for text in drawn(lacking).axes[0].texts] == ["1.00", "-", "0.50", "0.50"]
    assert "y" not in lacking.text().split("b: mean weights")[0].split("a: mean weights")[1]


def test_learning_curves_have_a_band_over_the_seeds(two: list[Group]) -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415

    [picture] = learning_curves(two)
    score, loss = drawn(picture).axes
    mixed, plain = score.lines
    assert list(mixed.get_xdata()) == [5, 10] and list(mixed.get_ydata()) == [65, 82]
    assert list(plain.get_xdata()) == [5] and list(plain.get_ydata()) == [52]  # the step that both runs have
    band = score.collections[0].get_paths()[0].vertices
    for step, mean, apart in ((5, 65, 10), (10, 82, 4)):
        found = band[band[:, 0] == step][:, 1]
        assert (found.min(), found.max()) == pytest.approx((mean - apart * ROOT_HALF, mean + apart * ROOT_HALF))
    assert list(loss.lines[0].get_ydata()) == pytest.approx([0.2, 0.1])
    assert (score.get_ylabel(), loss.get_ylabel(), loss.get_xlabel()) == (
        "accuracy (%)",
        "loss (nats/token)",
        "training step",
    )
    assert picture.title == "mrpc: learning curves, dev (400 examples)"
    assert "65.000 ± 7.071" in picture.text() and "52.000 ± 2.828" in picture.text()


def test_mixtures_over_training(two: list[Group]) -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415

    [picture] = mixture_curves(two)
    lines = {line.get_label(): list(line.get_ydata()) for line in drawn(picture).axes[0].lines}
    assert lines == {"qqp": pytest.approx([0.3, 0.7]), "sst2": pytest.approx([0.5, 0.1]), "target": [0.2, 0.2]}
    assert picture.title == "mrpc: weights of the prompts on dev (400 examples); ATTEMPT"


def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    record_run(tmp_path / "x", {5: 60, 10: 61}, losses=[float("nan"), 0.5])
    [picture] = learning_curves(group(read_all([tmp_path])[0]))
    assert (picture.panels[0].lines[0].steps, picture.panels[1].lines[0].steps) == ([5, 10], [10])


def test_results_are_bars_with_deviations_and_every_run(two: list[Group]) -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415

    [picture] = results(two, "test")
    ax = drawn(picture).axes[0]
    assert [patch.get_height() for patch in ax.patches] == [74, 50]
    assert ax.get_ylim() == (0, 100) and ax.get_ylabel() == "score (%)"
    whisker = ax.containers[0].lines[2][0].get_segments()[0]
    assert whisker[:, 1] == pytest.approx([74 - 6 * ROOT_HALF, 74 + 6 * ROOT_HALF])
    rings = [list(line.get_ydata()) for line in ax.lines if line.get_marker() == "o"]
    assert rings == [[71, 77]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["mrpc\naccuracy\nn = 400"]
    assert picture.rows()[1:] == [["ATTEMPT", "74.00 ± 4.24 (2)"], ["prompt tuning", "50.00 (1)"]]


def test_similarities_move_with_their_names() -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415

    values = np.array([[1, 0.1, 0.9], [0.1, 1, 0.2], [0.9, 0.2, 1]])
    picture = similarity_matrix(["a", "b", "c"], values, "average")
    assert picture.names == ["b", "a", "c"]
    for i, x in enumerate(picture.names):
        for j, y in enumerate(picture.names):
            assert picture.values[i, j] == values["abc".index(x), "abc".index(y)]
    assert [text.get_text() for text in drawn(picture).axes[0].texts][:3] == ["1.00", "0.10", "0.20"]


@pytest.mark.parametrize("suffix", plots.SUFFIXES)
@pytest.mark.parametrize("kind", plots.OF_RUNS)
def test_the_command_writes_files(kind: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds(tmp_path / "runs")
    to = tmp_path / f"out{suffix}"
    assert plots.main([kind, str(tmp_path / "runs"), "--to", str(to)]) == 0
    assert to.read_bytes().startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    assert str(to) in capsys.readouterr().out


def test_the_command_compares_prompts(prompt_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, _ = load_sources([prompt_run, prompt_run / "last.safetensors"])
    alike = f"{similarity(prompts[0], prompts[1], 'tokens'):.2f}"
    itself = [f"{similarity(prompt, prompt, 'tokens'):.2f}" for prompt in prompts]
    last = str(prompt_run / "last.safetensors")
    assert plots.main(["similarity", str(prompt_run), last, "--similarity", "tokens"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2:5] == [["cola", "cola-2"], ["cola", itself[0], alike], ["cola-2", alike, itself[1]]]


def test_without_matplotlib_there_is_text_and_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    seeds(tmp_path / "runs")
    assert plots.main(["attention-map", str(tmp_path / "runs"), "--to", str(tmp_path / "x.png")]) == 2
    told = capsys.readouterr()
    assert "qqp     0.700  ████████████████████████████\nsst2    0.100  ████\ntarget  0.200  ████████\n" in told.out
    assert told.err.count("\n") == 1 and "pip install -c constraints.txt -e '.[plots]'" in told.err
    assert not (tmp_path / "x.png").exists()
    assert plots.main(["attention-map", str(tmp_path / "runs")]) == 0  # text alone was asked for


def test_names_are_drawn_as_they_are() -> None:
    from attempt.plots.draw import rendered  # noqa: PLC0415

    names = ["$x^", "<b>&", "名前", "\x00\n", "z" * 300]
    weights = np.full((1, 5), 0.2)
    text = rendered(AttentionMap("$_", ["$\\frac"], names, weights), "svg").decode()
    assert all(name in text for name in ("$x^", "&lt;b&gt;&amp;", "名前", "$\\frac", "$_"))
    assert "z" * 30 not in text and "\x00" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["curves", "{empty}"], "expected runs of train.py (folders with a config.json), found none"),
        (["mixture", "{plain}"], "mixture: expected runs of --method attempt with an evaluation, found none in"),
        (["attention-map", "{plain}"], "attention-map: expected finished runs of --method attempt, found none in"),
        (["results", "{open}"], "results: expected complete runs, found none in"),
        (["curves", "{plain}", "--to", "x.jpg"], "--to: expected a name that ends in .png, .svg, .pdf, found 'x.jpg'"),
    ],
)
def test_errors(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {name: str(tmp_path / name) for name in ("empty", "plain", "open")}
    record_run(tmp_path / "plain", {5: 60}, method="prompt")
    record_run(tmp_path / "open", {5: 60}, method="prompt", test=None)
    try:
        status = plots.main([word.format(**places) for word in words])
    except SystemExit as e:
        status = e.code
    assert status == 2 and message in error_of(capsys)


def test_the_map_of_a_run_has_its_weights(
    attempt_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, to = tmp_path / "run", tmp_path / "map.png"
    assert train.main([*attempt_flags, "--method", "attempt", "--out", str(out)]) == 0
    shown = []
    monkeypatch.setattr(eval, "show", lambda pictures, path: (shown.extend(pictures), plots.show(pictures, path)))
    assert eval.main(["--run", str(out), "--split", "dev", "--attention-map", str(to)]) == 0
    assert to.read_bytes().startswith(b"\x89PNG")
    best = next(r for r in metrics_of(out) if r["step"] == result_of(out)["best_step"])
    [picture] = shown
    assert picture.targets == ["rte", "cola"]
    for task, row in zip(picture.targets, picture.weights, strict=True):
        expected = best["mixture"][task]["weights"]
        assert picture.prompts == list(expected)
        assert row == pytest.approx(list(expected.values()), abs=1e-6)
        assert picture.instances[task].sum(1) == pytest.approx(np.ones(len(picture.instances[task])))
    assert eval.main(["--run", str(out), "--task", "rte", "--remove-sources", "cola", "--attention-map", str(to)]) == 0
    assert shown[1].prompts == ["rte", "target"] and shown[1].targets == ["rte"]
    capsys.readouterr()


def test_a_run_without_a_mixture_has_no_map(prompt_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        eval.main(["--run", str(prompt_run), "--attention-map", "x.png"])
    assert "--attention-map: expected prompts of --method attempt" in error_of(capsys)


def test_no_program_loads_matplotlib_unasked() -> None:
    code = "import sys, train, eval, attempt.plots, attempt.report_html; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def drawn_lines(picture: object) -> list[tuple[object, ...]]:
    """Colour, marker and dash of each curve of the first panel; a constant answer is none."""
    from attempt.plots.draw import drawn  # noqa: PLC0415

    lines = [line for line in drawn(picture).axes[0].lines if line.get_label() != "constant answer"]  # type: ignore[arg-type]
    return [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines]


@pytest.mark.parametrize("methods", [["prompt"], ["prompt", "attempt"]])
def test_no_two_of_28_curves_look_the_same(methods: list[str], tmp_path: Path) -> None:
    for method in methods:
        for i in range(28):
            told = {"method": method, "lr": 0.01 * (i + 1)}
            record_run(tmp_path / f"{method}-{i}", {5: 60 + i, 10: 61}, **told)
    [picture] = learning_curves(group(read_all([tmp_path])[0]))
    found = drawn_lines(picture)
    assert len(found) == len(set(found)) == 28 * len(methods)


def test_a_method_keeps_its_colour(tmp_path: Path) -> None:
    from attempt.plots.draw import COLOURS, drawn  # noqa: PLC0415
    from attempt.runs.report import METHODS  # noqa: PLC0415

    for methods in (["attempt", "bitfit"], ["prompt", "bitfit", "attempt"], ["bitfit"]):
        for method in methods:
            record_run(tmp_path / "+".join(methods) / method, {5: 60, 10: 61}, method=method)
        groups = group(read_all([tmp_path / "+".join(methods)])[0])
        [curves], [bars] = learning_curves(groups), results(groups, "test")
        colours = {METHODS[method]: COLOURS[list(METHODS).index(method)] for method in methods}
        assert [one[0] for one in drawn_lines(curves)] == [colours[one.label] for one in curves.panels[0].lines]
        patches = [
            container.patches[0] for container in drawn(bars).axes[0].containers if hasattr(container, "patches")
        ]
        faces = [to_hex(patch.get_facecolor()) for patch in patches]
        assert faces == [colours[label] for label in bars.groups] and len(faces) == len(methods)


def test_a_constant_answer_is_drawn_and_told(tmp_path: Path) -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415

    for folder in seeds(tmp_path):
        path = folder / "result.json"
        if path.exists():
            constant = [
                {"task": "mrpc", "split": s, "metrics": {"accuracy": v}} for s, v in (("dev", 51.5), ("test", 48.25))
            ]
            path.write_text(json.dumps(result_of(folder) | {"constant": constant}))
    groups = group(read_all([tmp_path])[0])
    [curves], [bars] = learning_curves(groups), results(groups, "test")
    score, loss = drawn(curves).axes
    [level] = [line for line in score.lines if line.get_label() == "constant answer"]
    assert set(level.get_ydata()) == {51.5} and "constant answer" not in [line.get_label() for line in loss.lines]
    assert "constant answer: 51.50" in curves.text() and "constant answer" in [
        text.get_text() for text in drawn(curves).legends[0].get_texts()
    ]
    [lines] = [c for c in drawn(bars).axes[0].collections if c.get_label() == "constant answer"]
    assert [segment[:, 1].tolist() for segment in lines.get_segments()] == [[48.25, 48.25]]
    assert bars.rows()[-1] == ["constant answer", "48.25"]


def test_ticks_stand_where_evaluations_are(tmp_path: Path) -> None:
    from attempt.plots.draw import drawn  # noqa: PLC0415

    record_run(tmp_path / "few", {13: 60, 26: 61, 31: 62})
    record_run(tmp_path / "many", {13 * i: 60 + i for i in range(1, 30)}, task="rte")
    few, many = learning_curves(group(read_all([tmp_path])[0]))
    assert drawn(few).axes[1].get_xticks().tolist() == [13, 26, 31]
    ticks = drawn(many).axes[1].get_xticks()
    assert 4 <= len(ticks) <= 7 and all(tick % 13 == 0 for tick in ticks)


def test_an_svg_is_on_white_unless_it_is_part_of_a_page(two: list[Group]) -> None:
    from attempt.plots.draw import rendered  # noqa: PLC0415

    [picture] = results(two, "test")
    first = rendered(picture, "svg").decode().partition('<g id="axes_1">')[0]
    assert re.search(r'<path d="M 0 [\d.]+[^"]*"\s+style="fill: #ffffff"', first)
    assert "#ffffff" not in rendered(picture, "svg", transparent=True).decode().partition('<g id="axes_1">')[0]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "docs").rglob("*.svg")), ids=lambda path: path.name)
def test_the_pages_pictures_are_on_white(path: Path) -> None:
    """Their ink is dark: on a dark page they could not be read."""
    text = path.read_text(encoding="utf-8")
    before = text.partition("<text")[0]  # .paper: of a picture that is dark on a dark page
    assert re.search(r'<rect [^>]*fill="#fff"/>|<rect class="paper"|style="fill: #ffffff"', before)
