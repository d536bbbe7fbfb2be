"""What G sees of a text, in whole runs: a running mean, pooled padding, how much the mixture depends on the text."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from runs import error_of, metrics_of, result_of

import eval
import train
from attempt.answering.answers import answer, instance_weights, show_pads
from attempt.answering.backbone import Backbone
from attempt.answering.splits import load_splits
from attempt.checkpoint import load_prompt
from attempt.compare import compare
from attempt.machine.device import Machine
from attempt.report_html import report_html
from attempt.runs.plan import Plan
from data.batches import bucketed
from data.download import Downloader
from model.safetensors import read_safetensors, safetensors_bytes


def test_the_running_mean_is_of_the_training_batches_alone(attempt_flags: list[str], tmp_path: Path) -> None:
    """Of every step's whole batch, in one part or in several, empty ones too; dev texts do not move it."""
    flags = [*attempt_flags, "--pool", "centred", "--batch-size", "7", "--steps", "6", "--eval-every", "2"]
    centres = []
    for parts in ("1", "4", "9"):
        out = tmp_path / parts
        assert train.main([*flags, "--accumulate", parts, "--out", str(out)]) == 0
        G = load_prompt(out / "last.safetensors")[0].attention
        assert G is not None and G.seen.item() == 6
        centres.append(G.centre)
    assert torch.equal(centres[0], centres[1]) and torch.equal(centres[0], centres[2])

    job = train.prepare(train.parse([*flags, "--out", str(tmp_path / "again")]).options)
    embedding, m = job.backbone.t5.embedding.weight.double(), torch.zeros(32, dtype=torch.float64)
    for t, rows in enumerate(train.training_rows(job.tokens, job.options, 0), 1):
        x = [embedding[torch.tensor(job.tokens.source(row).tolist())].amax(0) for row in rows]
        m += (torch.stack(x).mean(0) - m) / t
    assert torch.allclose(centres[0].double(), m, rtol=0, atol=1e-6)


def test_pooled_padding_does_not_depend_on_the_batch(attempt_flags: list[str], tmp_path: Path) -> None:
    """Weighed one by one, in batches of any size or by hand, a text of less than the longest length has a pad."""
    out = tmp_path / "run"
    assert train.main([*attempt_flags, "--pool-pads", "--steps", "1", "--out", str(out)]) == 0
    options = Plan.read(out / "config.json")
    downloader = Downloader(data_dir=Path(options.data_dir or ""))
    backbone = Backbone.load(options, downloader)
    split = load_splits("rte", 0, ["dev"], options, downloader, backbone.tokenizer)["dev"]
    prompt, _ = load_prompt(out)
    show_pads(backbone, prompt, options)
    G = prompt.attention
    assert G is not None and G.pad is not None and G.padded_length == 256  # the tasks'
    with torch.no_grad():
        for matrix in (G.down.weight, G.up.weight):
            matrix.normal_(generator=torch.Generator().manual_seed(0))  # so that texts do get different weights
    whole = instance_weights(backbone, prompt, split.tokens)
    for i in range(len(split.tokens)):
        ids = torch.tensor([split.tokens.source(i).tolist()])
        alone = prompt.weights(backbone.t5.embedding(ids), torch.ones_like(ids, dtype=torch.bool), torch.tensor([0]))
        assert torch.allclose(alone[0], whole[i], rtol=0, atol=1e-6)
    G.pool_pads = False
    assert (instance_weights(backbone, prompt, split.tokens) - whole).abs().max() > 1e-4  # the pads do count


@pytest.mark.parametrize("pool", ["max", "centred"])
def test_a_mixture_that_is_the_same_for_all_texts_is_told(
    pool: str, attempt_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*attempt_flags, "--pool", pool, "--temperature", "1e9", "--out", str(tmp_path / "run")]
    assert train.main(flags) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert re.match(r"note: G gives all texts the same weights, .*: rte \(0\.00000\), cola \(0\.00000\); ", line)
    assert ("--pool centred" in line) == (pool == "max") and "--pool mean" in line and "--no-target" in line
    assert train.main([*attempt_flags, "--attention", "constant", "--out", str(tmp_path / "constant")]) == 0
    assert "note: G gives" not in capsys.readouterr().out


def test_a_pretrained_g_keeps_its_pooling_or_is_refused(
    attempt_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*attempt_flags, "--steps", "3", "--fix-attention"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert train.main([*flags, "--pool", "centred", "--out", str(first)]) == 0
    more = ["--load-attention", str(first)]
    assert train.main([*flags, *more, "--pool", "centred", "--out", str(second)]) == 0
    G, H = (load_prompt(run / "last.safetensors")[0].attention for run in (first, second))
    assert G is not None and H is not None and (G.seen.item(), H.seen.item()) == (3, 6)  # the mean goes on
    capsys.readouterr()
    assert train.main([*flags, *more, "--out", str(tmp_path / "third")]) == 2
    assert "--pool of that run" in error_of(capsys)


def test_padding_counts_in_a_maximum_alone(attempt_flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main([*attempt_flags, "--pool", "mean", "--pool-pads"])
    assert "--pool max or centred with --pool-pads" in error_of(capsys)


def test_runs_from_before_are_taken_for_max(attempt_flags: list[str], tmp_path: Path) -> None:
    """Neither their config.json nor their checkpoints' say how texts were pooled."""
    out = tmp_path / "run"
    assert train.main([*attempt_flags, "--out", str(out)]) == 0
    kept = metrics_of(out), result_of(out)["scores"]
    old = json.loads((out / "config.json").read_text())
    assert old.pop("pool") == "max"
    (out / "config.json").write_text(json.dumps(old))
    for name in ("best.safetensors", "last.safetensors"):
        tensors, metadata = read_safetensors(out / name)
        config = json.loads(metadata["config"])
        assert config.pop("pooling") == "max" and not any("centre" in tensor for tensor in tensors)
        (out / name).write_bytes(safetensors_bytes(tensors, {**metadata, "config": json.dumps(config)}))
    prompt, config = load_prompt(out)
    assert prompt.attention is not None and prompt.attention.pooling == config.pooling == "max"
    assert Plan.read(out / "config.json").pool == "max"
    assert eval.main(["--run", str(out), "--device", "cpu"]) == 0
    assert (metrics_of(out), result_of(out)["scores"]) == kept


def test_how_much_a_mixture_depends_on_the_text_is_shown_beside_other_runs(
    attempt_flags: list[str], prompt_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "mixture"
    assert train.main([*attempt_flags, "--out", str(run)]) == 0
    result = result_of(run)
    texts = sum(mixed["deviation"] for mixed in result["mixture"].values()) / 2
    shown = [f"{texts:.4f}", f"{result['mixture_between_tasks']:.4f}"]
    capsys.readouterr()
    assert compare.main([str(run), str(prompt_run)]) == 0
    head, *rows = (line.split() for line in capsys.readouterr().out.splitlines()[:3])
    ends = {row[0]: row[-2:] for row in rows}
    assert head[-4:] == ["over", "texts", "between", "tasks"]
    assert ends == {str(run): shown, str(prompt_run): ["-", "-"]}
    assert compare.main([str(prompt_run)]) == 0
    assert "over texts" not in capsys.readouterr().out

    assert report_html.main([str(tmp_path / "runs")]) == 0
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "deviation over texts" in page and all(f">{value}<" in page for value in shown)
    result["mixture"]["rte"]["deviation"] = "much"
    (run / "result.json").write_text(json.dumps(result))
    capsys.readouterr()
    assert compare.main([str(run)]) == 2
    assert "scores that are no numbers" in error_of(capsys)


@pytest.mark.parametrize("pool", ["max", "centred"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_weights_that_are_shown_are_those_that_answered(
    pool: str, precision: str, attempt_flags: list[str], tmp_path: Path
) -> None:
    """Whatever the batches, with pooled padding, and in lower precision, where 8 bits would leave 0.004 of a weight."""
    out = tmp_path / "run"
    flags = ["--pool", pool, "--pool-pads", "--steps", "2", "--eval-every", "2", "--out", str(out)]
    assert train.main([*attempt_flags, *flags]) == 0
    options = Plan.read(out / "config.json")
    downloader = Downloader(data_dir=Path(options.data_dir or ""))
    backbone = Backbone.load(options, downloader)
    backbone = dataclasses.replace(backbone, machine=Machine(torch.device("cpu"), precision, "for this test"))
    split = load_splits("cola", 1, ["dev"], options, downloader, backbone.tokenizer)["dev"]
    prompt, _ = load_prompt(out)
    show_pads(backbone, prompt, options)
    assert prompt.attention is not None
    used: list[torch.Tensor] = []
    hook = prompt.attention.register_forward_hook(lambda module, inputs, output: used.append(output[:, :, 0]))
    answer(backbone, prompt, split.tokens, 2, 5)
    hook.remove()
    order = [i for rows in bucketed(split.tokens.lengths, 5, seed=None) for i in rows]
    shown = instance_weights(backbone, prompt, split.tokens)[order]
    assert used[0].dtype == torch.float32 and len(used) == 3
    assert torch.allclose(torch.cat(used), shown, rtol=0, atol=1e-6)
