"""Answers chosen among labels: their log-probabilities against Hugging Face's, and the option from end to end."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hugging_face import CONFIGS, oracle, random_batch, save, spread, state_of
from runs import error_of, metrics_of, result_of
from torch import Tensor

import eval
import train
from attempt.answering.answers import answer, label_ids
from attempt.answering.backbone import Backbone
from attempt.answering.splits import Split, load_splits
from attempt.checkpoint import load_prompt
from attempt.runs.plan import Plan
from data.download import Downloader
from data.tasks import get_task
from model.checkpoint import load_t5
from model.decoding import label_scores
from model.t5 import IGNORED, T5

Pair = tuple[T5, Any]


@pytest.fixture(scope="module", params=["v1.0", "v1.1", "v1.1-many-buckets"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our model and Hugging Face's with the same weights."""
    fields, theirs = CONFIGS[request.param], oracle(CONFIGS[request.param])
    spread(theirs, seed=len(request.param))
    tied = fields.get("tie_word_embeddings", True)
    ours = load_t5(save(tmp_path_factory.mktemp("pair"), fields, state_of(theirs, tied)))
    return ours.requires_grad_(False), theirs


def padded(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])


LABELS = {
    "one": [[7, 1]],
    "of one length": [[7, 1], [9, 1], [30, 1]],
    "of several": [[7, 1], [7, 9, 1], [40, 7, 9, 11, 1], [1], [9, 9, 9, 9, 9, 9, 1]],
    "a grid": [[i, j, 1] for i in range(3, 9) for j in range(20, 25)][:26],
}


@torch.no_grad()
def one_by_one(theirs: Any, ids: Tensor, mask: Tensor, label: list[int], prompts: Tensor | None = None) -> Tensor:
    """The label's log-probability (B,) by Hugging Face's T5: each text with this label alone."""
    scores = []
    for row, (text, there) in enumerate(zip(ids, mask, strict=True)):
        E = theirs.get_input_embeddings()(text[there][None])  # without the padding
        if prompts is not None:
            E = torch.cat([prompts[row : row + 1], E], dim=1)
        logits = theirs(inputs_embeds=E, labels=torch.tensor([label])).logits[0].double()
        scores.append(logits.log_softmax(-1)[range(len(label)), label].sum())
    return torch.stack(scores)


@pytest.mark.parametrize("labels", LABELS)
def test_scores_are_hugging_faces_log_probabilities(pair: Pair, labels: str) -> None:
    ours, theirs = pair
    ids, mask = random_batch((4, 19, 1), ours.config.vocab_size)
    found = label_scores(ours, ids, mask, padded(LABELS[labels]))
    expected = torch.stack([one_by_one(theirs, ids, mask, label) for label in LABELS[labels]], dim=1)
    assert found.shape == (3, len(LABELS[labels])) and expected.std() > 0.5 * (labels != "one")
    assert (found - expected).abs().max() < 2e-4


def test_each_row_is_scored_with_its_own_tasks_prompt(pair: Pair) -> None:
    ours, theirs = pair
    ids, mask = random_batch((4, 9, 6, 2), ours.config.vocab_size)
    target = 2 * torch.randn(3, 5, ours.config.d_model, generator=torch.Generator().manual_seed(2))
    prompt: Any = SimpleNamespace(target=target, sources=None, attention=None)
    tasks = torch.tensor([2, 0, 2, 1])
    found = label_scores(ours, ids, mask, padded(LABELS["of several"]), prompt, tasks)
    expected = [one_by_one(theirs, ids, mask, label, target[tasks]) for label in LABELS["of several"]]
    assert (found - torch.stack(expected, dim=1)).abs().max() < 2e-4
    swapped = label_scores(ours, ids, mask, padded(LABELS["of several"]), prompt, tasks.flip(0))
    assert (found - swapped).abs().max() > 0.1


def test_a_labels_score_does_not_depend_on_the_others(pair: Pair) -> None:
    ours, _ = pair
    ids, mask = random_batch((4, 9), ours.config.vocab_size)
    together = label_scores(ours, ids, mask, padded(LABELS["of several"]))
    alone = [label_scores(ours, ids, mask, padded([label])) for label in LABELS["of several"]]
    assert (together - torch.cat(alone, dim=1)).abs().max() < 1e-4


def test_encoder_and_decoder_run_once_a_batch(pair: Pair) -> None:
    ours, _ = pair
    ids, mask = random_batch((4, 9), ours.config.vocab_size)
    seen: dict[str, list[tuple[int, ...]]] = {"encoder": [], "decoder": [], "keys": []}
    parts = {"encoder": ours.encoder, "decoder": ours.decoder, "keys": ours.decoder.blocks[0].cross_attention.k}
    hooks = [
        part.register_forward_hook(lambda _, inputs, __, name=name: seen[name].append(tuple(inputs[0].shape[:2])))
        for name, part in parts.items()
    ]
    label_scores(ours, ids, mask, padded(LABELS["of several"]))
    for hook in hooks:
        hook.remove()
    # the encoder's states are projected to keys for 2 texts, not for 2 x 5 pairs of a text and a label
    assert seen == {"encoder": [(2, 9)], "decoder": [(2, 5 * 7)], "keys": [(2, 9)]}


# ---- the option ----


def scored(run: Path, split: str = "dev") -> tuple[Backbone, Any, Split, Plan]:
    plan = Plan.read(run / "config.json")
    downloader = Downloader(data_dir=Path(plan.data_dir or ""))
    backbone = Backbone.load(plan, downloader)
    loaded = load_splits(plan.task[0], 0, [split], plan, downloader, backbone.tokenizer)[split]
    return backbone, load_prompt(run)[0], loaded, plan


def test_answers_are_the_most_probable_labels(prompt_run: Path) -> None:
    """In text order, though evaluation sorts by length; also with labels of several tokens each."""
    backbone, prompt, split, _ = scored(prompt_run)
    labels = ["positive", "0", "not_entailment", "1"]
    rows = label_ids(backbone, labels)
    assert sorted((rows != IGNORED).sum(1).tolist())[0] < rows.size(1)
    found = answer(backbone, prompt, split.tokens, 2, 5, labels)
    expected = []
    for i in range(len(split.tokens)):
        ids = torch.from_numpy(split.tokens.source(i)).long()[None]
        expected.append(label_scores(backbone.t5, ids, torch.ones_like(ids, dtype=torch.bool), rows, prompt))
    assert found == [labels[i] for i in torch.cat(expected).argmax(1).tolist()]


def test_of_equally_probable_labels_the_first_is_taken(prompt_run: Path) -> None:
    backbone, prompt, split, _ = scored(prompt_run)
    backbone.t5.head.weight.data.zero_()  # every token is as probable as every other
    rows = label_ids(backbone, ["1", "0", "1"])
    assert (rows != IGNORED).sum(1).unique().numel() == 1
    for labels in (["1", "0"], ["0", "1"]):
        assert set(answer(backbone, prompt, split.tokens, 2, 5, labels)) == {labels[0]}
    # of sums: the shorter label has fewer tokens to be improbable in
    assert set(answer(backbone, prompt, split.tokens, 2, 5, ["not_entailment", "0"])) == {"0"}


@pytest.mark.parametrize("task", ["cb", "stsb"])
def test_a_run_says_that_it_chose_among_labels(
    task: str, every_task: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", task, "--method", "prompt", "--splits", "official", "--steps", "2", "--batch-size", "2"]
    flags += ["--model", str(tiny_checkpoint), "--data-dir", str(every_task), "--device", "cpu", "--labels", "words"]
    out = tmp_path / "run"
    assert train.main([*flags, "--prompt-length", "2", "--answer-by", "labels", "--out", str(out)]) == 0
    records = [*result_of(out)["scores"], *metrics_of(out)[-1]["scores"]]
    assert [record["decoding"] for record in records] == ["labels"] * 3
    assert all(record["invalid"] == 0 for record in records)
    assert "chosen among the labels" in capsys.readouterr().out

    answers = tmp_path / "answers.jsonl"
    assert eval.main(["--run", str(out), "--device", "cpu", "--predictions", str(answers)]) == 0
    assert "chosen among the labels" in capsys.readouterr().out
    found = {json.loads(line)["prediction"] for line in answers.read_text(encoding="utf-8").splitlines()}
    assert found <= set(get_task(task).label_texts("words"))
    assert eval.main(["--run", str(out), "--device", "cpu", "--answer-by", "generate"]) == 0
    assert "chosen among" not in capsys.readouterr().out
    # another decoding is another result: the folder is not taken for that of such a run
    assert train.main([*flags, "--prompt-length", "2", "--resume", "--out", str(out)]) == 0
    assert train.main([*flags, "--prompt-length", "2", "--resume", "--answer-by", "generate", "--out", str(out)]) == 2
    assert "--answer-by generate (was labels)" in error_of(capsys)


def test_a_generated_answer_says_so_too(prompt_run: Path) -> None:
    assert {score["decoding"] for score in result_of(prompt_run)["scores"]} == {"generate"}


def test_free_text_has_no_labels(prompt_run: Path, common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--task", "cola", "squad", "--method", "prompt", "--answer-by", "labels", *common]) == 2
    message = error_of(capsys)
    assert "squad" in message and "--answer-by labels" in message
    assert eval.main(["--run", str(prompt_run), "--task", "squad", "--answer-by", "labels", "--device", "cpu"]) == 2
    assert "--answer-by labels" in error_of(capsys)
