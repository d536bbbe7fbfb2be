"""Steps and answers that are recorded and replayed are those that are not: the same prompts, scores and answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import metrics_of, result_of, same_prompt
from stand_in import StandIn
from torch import Tensor

import train
from attempt.answering.answers import answer, evaluation_batches, label_ids
from attempt.answering.backbone import Backbone
from attempt.command.options import Options
from attempt.machine.device import Machine
from attempt.machine.graphs import Graph, Graphs, new_graphs
from attempt.training.trainer import Trainer
from data.batches import Batch


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Graphs]:
    """Give every run graphs of the stand-in's; the list of them."""
    made: list[Graphs] = []

    def new_graphs(*_: object) -> Graphs:
        made.append(Graphs(StandIn()))
        return made[-1]

    monkeypatch.setattr("attempt.answering.backbone.new_graphs", new_graphs)
    return made


def trained(flags: list[str], graphs: bool, steps: int = 20) -> tuple[Trainer, dict[str, Tensor], list[float]]:
    """After some steps: the trainer, what it has trained, and the losses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attempt.answering.backbone.new_graphs", lambda *_: Graphs(StandIn()) if graphs else None)
        job = train.prepare(train.parse([*flags, "--steps", str(steps), "--dropout", "0"]).options)
    trainer = job.trainer
    trainer.t5.train()
    for parts in train.training_batches(job.tokens, job.options, 0, graphs):
        trainer.train_step(*parts)
    return trainer, trainer.trained.state_dict(), torch.stack(trainer.losses).tolist()


VARIANTS: dict[str, list[str]] = {
    "attempt": [],
    "accumulated": ["--accumulate", "3"],
    "adafactor": ["--optimizer", "adafactor"],
    "warm-up": ["--warmup", "10", "--attention-lr", "0.01", "--weight-decay", "0.01"],
    "linear": ["--attention", "linear", "--learn-temperature"],
    "token": ["--attention", "token", "--no-target"],
    "constant": ["--attention", "constant"],
    "dot": ["--attention", "dot", "--freeze-norm"],
    "skip": ["--skip-bad-steps"],
    "centred": ["--pool", "centred", "--accumulate", "2"],
    "mean": ["--pool", "mean", "--no-target"],
    "pads": ["--pool-pads"],
    "plain": ["--plain"],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_recorded_steps_are_the_steps(name: str, attempt_flags: list[str], tmp_path: Path) -> None:
    """Two tasks of other lengths, and batches that are smaller than the others."""
    flags = [*attempt_flags, *VARIANTS[name], "--batch-size", "7", "--out", str(tmp_path)]
    _, expected, losses = trained(flags, graphs=False)
    trainer, found, same = trained(flags, graphs=True)
    assert trainer.graphs and not trainer.graphs.failed
    assert same == pytest.approx(losses, rel=1e-5)
    for key, value in expected.items():
        # with graphs AdamW is the fused one, and where a gradient is nearly 0 it makes the rounding large
        close = {"rtol": 1e-3, "atol": 3e-4} if name == "centred" else {"rtol": 2e-5, "atol": 2e-5}
        torch.testing.assert_close(found[key], value, **close, msg=lambda text, k=key: f"{k}: {text}")
    kinds = {key[0] for key in trainer.graphs.graphs if isinstance(key, tuple)}
    assert kinds == {"add"} and "update" in trainer.graphs.graphs and len(trainer.graphs.graphs) < 20


@pytest.mark.parametrize("method", ["prompt", "finetune", "adapter", "bitfit"])
def test_the_other_methods_are_recorded_too(method: str, common: list[str], tmp_path: Path) -> None:
    flags = ["--task", "cola", "--method", method, *common, "--out", str(tmp_path)]
    flags += ["--lr", "1e-3"] if method != "prompt" else []
    _, expected, losses = trained(flags, graphs=False, steps=6)
    trainer, found, same = trained(flags, graphs=True, steps=6)
    assert trainer.graphs and not trainer.graphs.failed
    assert same == pytest.approx(losses, rel=1e-5)
    for key, value in expected.items():
        if not key.endswith(".k.bias"):  # softmax cancels it: its gradient is rounding alone, which AdamW makes large
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, k=key: f"{k}: {text}")


def test_what_a_step_changes_stays_where_it_is(attempt_flags: list[str], tmp_path: Path) -> None:
    trainer, *_ = trained([*attempt_flags, "--out", str(tmp_path)], graphs=True, steps=2)
    places = [tensor.data_ptr() for tensor in trainer.changed()]
    state = trainer.state()
    assert [group["lr"] for group in state["optimizer"]["param_groups"]] == [pytest.approx(trainer.lr)] * 2
    count = len(trainer.graphs.graphs)  # type: ignore[union-attr]
    rows = Batch(*(torch.ones(7, 8, dtype=torch.long) for _ in range(3)), *torch.zeros(2, 7, dtype=torch.long), 7)
    rows.mask = torch.ones(7, 8, dtype=torch.bool)
    for _ in range(3):
        trainer.train_step(rows)
    assert places == [tensor.data_ptr() for tensor in trainer.changed()]
    assert len(trainer.graphs.graphs) == count + 1  # type: ignore[union-attr]  # one for three steps of one new shape


def test_a_bad_step_leaves_nothing(common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer's count and moments, too: a run with a bad step goes on as one that never had it."""
    loss = Trainer.loss

    def poisoned(self: Trainer, batch: Any) -> Tensor:
        return loss(self, batch) / (1 - self.poison)  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setattr(Trainer, "loss", poisoned)
    for optimizer in ("adamw", "adafactor"):
        flags = ["--task", "cola", "--method", "prompt", "--skip-bad-steps", "--optimizer", optimizer, *common]
        finals = []
        for graphs in (True, False):
            for bad in ((), (0, 2)):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(
                        "attempt.answering.backbone.new_graphs", lambda *_, on=graphs: Graphs(StandIn()) if on else None
                    )
                    options = train.parse([*flags, "--schedule", "constant", "--warmup", "0", "--dropout", "0"]).options
                    job = train.prepare(options)
                trainer, poison = job.trainer, torch.zeros(())
                trainer.poison = poison  # type: ignore[attr-defined]
                batches = train.training_batches(job.tokens, job.options, 0, graphs)
                first = next(batches)
                for number in range(5 + len(bad)):
                    poison.fill_(number in bad)
                    trainer.train_step(*first)
                assert trainer.skipped == len(bad) and trainer.step == 5 + len(bad) and len(trainer.losses) == 5
                finals.append(trainer.trained.state_dict()["target"].clone())
        assert torch.equal(finals[0], finals[1]) and torch.equal(finals[2], finals[3])
        torch.testing.assert_close(finals[0], finals[2], rtol=1e-5, atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(
    attempt_flags: list[str], tmp_path: Path, recorded: list[Graphs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout: its random numbers are those after the last step, whatever recording drew."""
    flags = [*attempt_flags, "--steps", "12", "--eval-every", "4"]
    assert train.main([*flags, "--out", str(tmp_path / "whole")]) == 0
    step = Trainer.train_step

    def killed(self: Trainer, *parts: Any) -> None:
        if self.step == 6:
            raise KeyboardInterrupt
        step(self, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", killed)
        train.main([*flags, "--out", str(tmp_path / "cut")])
    assert not (tmp_path / "cut" / "result.json").exists()
    assert train.main(["--resume", str(tmp_path / "cut")]) == 0
    assert same_prompt(tmp_path / "cut", tmp_path / "whole") and len(recorded) == 3
    assert metrics_of(tmp_path / "cut") == metrics_of(tmp_path / "whole")
    assert result_of(tmp_path / "cut")["scores"] == result_of(tmp_path / "whole")["scores"]


def test_a_run_goes_on_with_and_without_graphs(
    attempt_flags: list[str], tmp_path: Path, recorded: list[Graphs]
) -> None:
    flags = [*attempt_flags, "--steps", "4", "--eval-every", "2", "--out", str(tmp_path / "run")]
    assert train.main(flags) == 0
    assert train.main(["--resume", str(tmp_path / "run"), "--change", "--steps", "6"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attempt.answering.backbone.new_graphs", lambda *_: None)
        assert train.main(["--resume", str(tmp_path / "run"), "--change", "--steps", "8"]) == 0
    assert train.main(["--resume", str(tmp_path / "run"), "--change", "--steps", "10"]) == 0
    assert result_of(tmp_path / "run")["steps"] == 10


@pytest.mark.parametrize("length", [1, 5, 8, 9, 21])
def test_recorded_answers_are_the_answers(length: int, attempt_flags: list[str], tmp_path: Path) -> None:
    job = train.prepare(train.parse([*attempt_flags, "--out", str(tmp_path)]).options)
    graphed = Backbone(job.backbone.t5.eval(), job.backbone.tokenizer, job.backbone.machine, Graphs(StandIn()))
    prompt = job.trainer.trained.prompt
    for task in job.splits:
        expected = answer(job.backbone, prompt, task["dev"].tokens, length, 5)
        for _ in range(2):
            assert answer(graphed, prompt, task["dev"].tokens, length, 5) == expected
    assert graphed.graphs and not graphed.graphs.failed


def test_recorded_label_scores_are_the_scores(attempt_flags: list[str], tmp_path: Path) -> None:
    job = train.prepare(train.parse([*attempt_flags, "--out", str(tmp_path)]).options)
    graphs = Graphs(StandIn())
    graphed = Backbone(job.backbone.t5.eval(), job.backbone.tokenizer, job.backbone.machine, graphs)
    labels = label_ids(job.backbone, ["0", "1", "entailment or not"])
    prompt = job.trainer.trained.prompt
    for task in job.splits:
        for batch in evaluation_batches(job.backbone, prompt, task["dev"].tokens, 5, ""):
            expected = job.backbone.label_scores(prompt, batch, labels, 5)
            torch.testing.assert_close(graphed.label_scores(prompt, batch, labels, 5), expected, rtol=1e-5, atol=1e-5)
    assert not graphs.failed and {key[0] for key in graphs.graphs} == {"scores"}  # type: ignore[index]


def test_an_error_while_recording_is_told_and_the_run_goes_on(
    attempt_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the first graph, and at a later one, when others have been replayed already."""
    flags = [*attempt_flags, "--steps", "6", "--eval-every", "3", "--dropout", "0"]
    assert train.main([*flags, "--out", str(tmp_path / "expected")]) == 0
    for good in (0, 1, 3):

        class Failing(StandIn):
            left = good

            def record(self, function: Any, warm_ups: int) -> Any:
                self.left -= 1
                if self.left < 0:
                    function()  # it fails after it has changed what it changes
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
                return super().record(function, warm_ups)

        monkeypatch.setattr("attempt.answering.backbone.new_graphs", lambda *_: Graphs(Failing()))
        capsys.readouterr()
        assert train.main([*flags, "--out", str(tmp_path / f"run-{good}")]) == 0
        out = capsys.readouterr().out
        assert out.count("no graphs  of ") == 1 and "CUDA out of memory" in out and "Traceback" not in out
        losses = [[record["loss"] for record in metrics_of(tmp_path / name)] for name in ("expected", f"run-{good}")]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_no_history_of_another_stream_is_held_while_a_graph_is_recorded(common: list[str], tmp_path: Path) -> None:
    """A node that adds up a parameter's gradient belongs to the stream on which it was made, and as long as something
    holds it, it is used again: in a capture on another stream that is an error."""
    held = []

    def node(parameter: Tensor) -> Any:
        return parameter.view_as(parameter).grad_fn.next_functions[0][0]  # type: ignore[union-attr]

    class Looking(StandIn):
        def record(self, function: Any, warm_ups: int) -> Any:
            with torch.enable_grad():
                for parameter in job.trainer.parameters:
                    node(parameter).metadata["seen"] = True  # gone with the node, unless something else holds it
                    held.append("seen" in node(parameter).metadata)
            return function, function()  # the stand-in's own recordings would hold some

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attempt.answering.backbone.new_graphs", lambda *_: Graphs(Looking()))
        job = train.prepare(train.parse(["--task", "cola", "--method", "prompt", *common]).options)
    job.trainer.t5.train()
    for parts in list(train.training_batches(job.tokens, job.options, 0, True))[:2]:
        job.trainer.train_step(*parts)
    assert len(held) >= 2 and not any(held) and len(job.trainer.graphs.graphs) >= 2  # type: ignore[union-attr]


def test_fp16_goes_on_where_recording_breaks_off_within_a_step(
    attempt_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = torch.nn.utils.clip_grad_norm_
    calls = []

    def breaking(*given: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("operation not permitted when stream is capturing")
        return clip(*given)

    monkeypatch.setattr(
        "attempt.answering.backbone.choose_machine", lambda *_: Machine(torch.device("cpu"), "fp16", "test")
    )
    monkeypatch.setattr("attempt.answering.backbone.new_graphs", lambda *_: Graphs(StandIn()))
    job = train.prepare(train.parse([*attempt_flags, "--steps", "3", "--out", str(tmp_path / "run")]).options)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", breaking)
    job.trainer.t5.train()
    for parts in train.training_batches(job.tokens, job.options, 0, True):
        job.trainer.train_step(*parts)
    assert job.trainer.step == 3 and "not permitted" in capsys.readouterr().out and job.trainer.scaler.get_scale() > 1


def test_a_graph_puts_back_what_recording_changed() -> None:
    value, noise = torch.arange(3.0), torch.zeros(3)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        value.add_(x)
        noise.normal_()
        return (value + noise,)

    torch.manual_seed(3)
    state = torch.get_rng_state()
    graph = Graph(StandIn(), function, [torch.ones(3)], [value])
    assert value.tolist() == [0, 1, 2] and torch.equal(torch.get_rng_state(), state)
    (first,), (second,) = graph([torch.ones(3)]), graph([torch.full((3,), 10.0)])
    torch.set_rng_state(state)
    expected = torch.tensor([1.0, 2, 3]) + torch.empty(3).normal_()
    assert torch.equal(first, expected)  # a copy, which the next replay leaves alone
    torch.testing.assert_close(second, torch.tensor([11.0, 12, 13]) + torch.empty(3).normal_())


def test_rows_that_fill_a_batch_do_not_count() -> None:
    ids = torch.tensor([[5, 6, 1], [7, 1, 0]])
    batch = Batch(ids, ids > 0, torch.tensor([[3, 1, -100], [4, 4, 1]]), torch.tensor([1, 0]), torch.tensor([8, 9]), 5)
    filled = batch.filled(4)
    assert filled.ids.tolist() == [*ids.tolist(), [5, 6, 1], [5, 6, 1]] and filled.mask[2].all()
    assert filled.labels.tolist() == [[3, 1, -100, -100], [4, 4, 1, -100], *[[-100] * 4] * 2]
    assert filled.tasks.tolist() == [1, 0, 1, 1] and filled.tokens == 5
    widths = []
    for batch.labels in (torch.ones(2, n) for n in (1, 2, 3, 5, 16, 17, 33)):
        widths.append(batch.filled(2).labels.size(1))
    assert widths == [1, 2, 4, 8, 16, 32, 48]


@pytest.mark.parametrize(
    ("flags", "why"),
    [("--recompute", "random numbers"), ("--shard", "send each other"), ("--no-graphs", ""), ("--plain", "")],
)
def test_where_no_graph_can_be_it_is_told(flags: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = flags[2:].replace("-", "_")
    options = Options(["rte"], **({"graphs": False} if name == "no_graphs" else {name: True}))  # type: ignore[arg-type]
    assert new_graphs(Machine(torch.device("cuda"), "bf16", "test"), options) is None
    out = capsys.readouterr().out
    assert (why in out and out.count("\n") == 1) if why else not out
    assert new_graphs(Machine(torch.device("cpu"), "fp32", "test"), Options(["rte"])) is None
