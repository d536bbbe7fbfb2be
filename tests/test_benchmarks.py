"""The benchmarks on tiny shapes: that both programs find the same, and that no row is missing. Never how fast."""

import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hugging_face import CONFIGS
from runs import error_of

from benchmarks import end_to_end, evaluate, harness, loading, step, worker
from benchmarks.machine import REPOSITORY
from benchmarks.ours import FORMS, METHODS, Ours
from benchmarks.peer_tokenizer import hugging_face_tokenizer
from benchmarks.peers import PEERED, PEERS, Peer
from benchmarks.shapes import SHAPES, operations, random_state
from model.config import T5Config
from model.t5 import T5
from model.tokenizer import Tokenizer

CPU = torch.device("cpu")
TINY = ["--text-tokens", "9", "--batch-size", "3", "--prompt-length", "5", "--product", "16", "--rounds", "2"]
TINY += ["--programs", "hugging face", "ours, plain"]


@pytest.fixture(autouse=True)
def extras() -> None:
    for name in ("transformers", "peft"):
        pytest.importorskip(name)


def written(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def names(result: Any) -> list[str]:
    return [row["name"] for row in result["rows"]]


@pytest.mark.long
def test_a_step_is_measured_where_losses_and_gradients_agree(tmp_path: Path) -> None:
    flags = ["--model", "tiny", "--ragged", "--dropout", "0.1", "--programs", "hugging face", "ours, all"]
    assert step.main(step.STEP, [*TINY, *flags, "--out", str(tmp_path / "step.json")]) == 0
    found = written(tmp_path / "step.json")
    (case,) = found["cases"]
    assert names(case) == ["hugging face", "ours, all"] and "ours, all" in case["agreement"]
    assert all(len(row["seconds"]) == 2 and 1e7 < row["peak_bytes"] < 4e9 for row in case["rows"])
    assert "benchmarks.step --text-tokens" in found["command"] and found["machine"]["commit"]


def test_every_form_agrees_with_the_peer() -> None:
    """The check that comes before the samples, in all forms."""
    case = harness.Case("tiny-v1_1", 7, 3, 0.1, "fp32", 5, 2, True)
    forms = [f"ours, {form}" for form in FORMS if form != "compiled"]
    for benchmark, more in ((step.STEP, []), (evaluate.EVALUATE, ["hugging face, static"])):
        _, agreement = benchmark.prepare(case, ["hugging face", *more, *forms], CPU, True)
        assert list(agreement) == [*more, *forms]
    assert set(harness.PROGRAMS) == {*PEERS, *(f"ours, {form}" for form in FORMS)}


@pytest.mark.parametrize("model", ["tiny", "tiny-v1_1"])
def test_every_method_agrees_with_the_peer_or_the_plain_form(model: str) -> None:
    """Fine-tuning and adapters with transformers', and after a step too; the mixtures among themselves."""
    case = harness.Case(model, 7, 9, 0.1, "fp32", 5, 2, True)
    ours = ("ours, plain", "ours, all")
    names = [harness.named(program, method) for method in METHODS for program in ("hugging face", *ours)]
    names = [name for name in names if name not in ("attempt: hugging face", "tasks: hugging face")]
    for benchmark in (step.STEP, evaluate.EVALUATE):
        _, agreement = benchmark.prepare(case, names, CPU, True)
        assert len(agreement) == len(names) - len(METHODS)  # all but the first one of each
    programs = case.programs(names, CPU)
    firsts, after = {name: p for name, p in programs.items() if "hugging face" in name}, {}
    for name, program in {**firsts, **{name: p for name, p in programs.items() if name not in firsts}}.items():
        batch, method = case.batch(CPU, name), harness.parts_of(name)[1]
        program.step(batch)
        loss = program.loss(batch).item()
        assert loss == pytest.approx(after.setdefault(method, loss), rel=1e-4), name


def test_methods_train_what_they_say() -> None:
    config, counts = SHAPES["tiny"], {}
    for method in METHODS:
        ours = Ours(config, random_state(config, CPU), torch.randn(4, config.d_model), "fp32", "all", method)
        counts[method] = sum(p.numel() for p in ours.trainer.parameters)
        if method in PEERED:
            peer = Peer(config, random_state(config, CPU), torch.randn(4, config.d_model), "fp32", method=method)
            assert sum(p.numel() for p in peer.trained.values()) == counts[method]
            assert {n for n, p in peer.trained.items()} == {n for n, p in ours.parameters.items() if p.requires_grad}
    assert counts["prompt"] == 4 * 32 and counts["tasks"] == counts["attempt"] + 7 * 4 * 32
    assert ours.trainer.options.method == "adapter" and counts["finetune"] > counts["adapter"] > counts["prompt"]


def test_forms_are_what_is_measured() -> None:
    """The checks of agreement cannot tell them apart."""
    config = SHAPES["tiny"]

    def t5_of(form: str, precision: str = "fp32") -> T5:
        return Ours(config, random_state(config, CPU), torch.randn(4, config.d_model), precision, form).t5

    kinds = {form: {type(m).__name__ for m in t5_of(form).modules()} for form in FORMS if form != "compiled"}
    assert kinds["plain"] == kinds["memory"] and kinds["kernel"] - kinds["plain"] == {"KernelBias"}
    assert t5_of("kernel").encoder.blocks[0].attention.kernel and not t5_of("plain").encoder.blocks[0].attention.kernel
    for form, part in (("absorb", "AbsorbedAttention"), ("fuse", "FusedAttention"), ("draws", "QuickDropout")):
        assert part in kinds[form] & kinds["all"] and part not in kinds["plain"]
    assert "SequenceDropout" in kinds["sequence"] and t5_of("recompute").encoder.recompute
    assert t5_of("all", "bf16").encoder.blocks[0].feed_forward.wo.weight.dtype == torch.bfloat16


def test_a_worker_that_fails_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.sys, "executable", "false")
    assert harness.main(step.STEP, ["--model", "tiny", "--dropout", "0", *TINY]) == 2
    assert "expected its figures" in error_of(capsys)


@pytest.mark.long
def test_answers_are_measured_where_they_are_equal(tmp_path: Path) -> None:
    flags = ["--model", "tiny-v1_1", "--ragged", "--dropout", "0", "--programs", "ours, plain", "ours, all"]
    assert evaluate.main(evaluate.EVALUATE, [*TINY, *flags, "--out", str(tmp_path / "evaluate.json")]) == 0
    case = written(tmp_path / "evaluate.json")["cases"][0]
    rows = ("10 tokens", "2 tokens", "2 labels")
    assert names(case) == [f"ours, {form}: {what}" for form in ("plain", "all") for what in rows]
    assert case["agreement"]["ours, all"].startswith("100.0 % of the tokens")


@pytest.mark.parametrize("part", ["loss", "gradient", "generate", "label_scores"])
def test_what_does_not_agree_is_not_measured(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = getattr(Ours, part)
    monkeypatch.setattr(Ours, part, lambda *given: right(*given) * 1.1 + 1)
    benchmark = step.STEP if part in ("loss", "gradient") else evaluate.EVALUATE
    words = ["--model", "tiny", "--dropout", "0", *TINY, "--worker"]  # which runs before all samples
    assert harness.main(benchmark, words) == 2
    assert "ours, plain" in error_of(capsys)


def test_what_a_worker_says_of_its_error_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho 'prog: error: expected A to agree with B' >&2\nexit 2\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(worker.sys, "executable", str(program))
    assert harness.main(step.STEP, ["--model", "tiny", "--dropout", "0", *TINY]) == 2
    assert error_of(capsys).endswith("error: expected A to agree with B")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_peer_is_the_same_network(name: str) -> None:
    """Of every architecture, also after steps with dropout switched on and off; both programs make the same step."""
    fields = {k: v for k, v in CONFIGS[name].items() if k in T5Config.__dataclass_fields__}
    config = T5Config(**fields)
    state, draw = random_state(config, CPU), torch.Generator().manual_seed(0)
    prompt = torch.randn(4, config.d_model, generator=draw)
    programs = Peer(config, state, prompt, "fp32"), Ours(config, state, prompt, "fp32", "plain")
    batch = harness.random_batch(config, [3, 11, 6], [2, 1, 4])
    losses, prompts = [], []
    for program in programs:
        program.set_dropout(0.3)
        noisy = program.loss(batch).item()
        program.set_dropout(0.0)
        first = program.loss(batch).item()
        program.step(batch)
        losses.append((first, program.loss(batch).item()))
        prompts.append(program.prompt.reshape(prompt.shape))
        assert noisy != first != losses[-1][1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert (prompts[0] - prompts[1]).abs().max() < 1e-3  # AdamW's first step is 1e-3 long, whatever the gradient
    assert (prompts[0] - prompt).abs().max() > 5e-4


def test_operations_are_those_of_the_published_table() -> None:
    """GFLOP an example, forward and backward, with a prompt of 100 and targets of 2 tokens."""
    table = {"t5-small": (13.4, 21.5, 36.4), "t5-base": (58.7, 93.6, 156), "t5-large": (206, 328, 542)}
    table["t5-3b"] = (824, 1309, 2169)
    frozen, trained = (operations(SHAPES["t5-base"], 100, 40, 2, True, flag) for flag in (False, True))
    assert 1.45 < trained / frozen < 1.5  # fine-tuning costs three forwards, a frozen T5 little more than two
    for name, expected in table.items():
        found = [operations(SHAPES[name], 100, n, 2, backward=True) / 1e9 for n in (40, 120, 256)]
        assert found == pytest.approx(expected, rel=5e-3)


def test_operations_are_those_that_pytorch_counts() -> None:
    """But for what the formula leaves out: the few products between the decoder's own positions."""
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode(display=False)
    config = SHAPES["tiny-v1_1"]
    ours = Ours(config, random_state(config, CPU), torch.randn(20, config.d_model), "fp32", "plain")
    batch = harness.random_batch(config, [30, 30], [2, 2])
    with counter:
        torch.autograd.backward(ours.loss(batch))
    assert counter.get_total_flops() == pytest.approx(2 * operations(config, 20, 30, 2, backward=True), rel=0.02)


def test_both_tokenizers_agree(tiny_checkpoint: Path) -> None:
    texts = [
        "sst2 sentence: a charming film",
        "RTE, in 1984 (the U.S.): 25 dollars!",
        "positive",
        "x" * 30,
        "e\u0301 \ufb01",
    ]
    ours, theirs = (read(tiny_checkpoint / "spiece.model") for read in (Tokenizer, hugging_face_tokenizer))
    assert [[*ids, 1] for ids in ours.encode_batch(texts)] == theirs(texts)["input_ids"]
    assert theirs.decode([*ours.encode("positive"), 1, 0], skip_special_tokens=True) == "positive"


def test_end_to_end(glue: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    flags = ["--model", str(tiny_checkpoint), "--data-dir", str(glue), "--task", "rte", "--prompt-length", "5"]
    flags += ["--examples", "16", "--eval-examples", "4", "--batch-size", "4", "--rounds", "2"]
    flags += ["--dropout", "0.2"]  # train.py's, for both programs
    assert end_to_end.main([*flags, "--out", str(tmp_path / "found.json")]) == 0
    found = written(tmp_path / "found.json")
    trained = [f"train: {name}" for name in ("usual recipe", "ours")]
    assert names(found) == [*trained, *(f"score: {n}" for n in ("usual recipe", "ours", "ours, --answer-by labels"))]
    assert found["equal_answers"] >= 0.95 and found["dropout"] == 0.2 and found["text_tokens"]["padded"] == 256
    assert all(len(row["seconds"]) == 2 for row in found["rows"])


def test_end_to_end_compares_answers_first(
    glue: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Peer, "generate", lambda self, batch, length: torch.full((len(batch.ids), length), 7))
    flags = ["--model", str(tiny_checkpoint), "--data-dir", str(glue), "--task", "rte", "--prompt-length", "5"]
    assert end_to_end.main([*flags, "--examples", "16", "--eval-examples", "4", "--batch-size", "4"]) == 2
    assert "same answers" in error_of(capsys)


def test_loading(glue: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(loading, "start", started.append)  # four processes a round would take most of a minute
    flags = ["--model", str(tiny_checkpoint), "--data-dir", str(glue), "--task", "rte", "--rounds", "1"]
    assert loading.main([*flags, "--out", str(tmp_path / "found.json")]) == 0
    found = written(tmp_path / "found.json")
    what = ("import", "start to first loss", "tokenise", "epoch of batches")
    assert names(found) == [f"{w}: {name}" for w in what for name in ("hugging face", "ours")]
    assert found["equal_tokens"] >= 0.99
    # what the other two rows start does run: ours is train.py's dry run, the other this module's own
    theirs = next(words for words in started if "--only" in words)
    assert loading.main(theirs[theirs.index("--only") :]) == 0


@pytest.mark.parametrize("program", ["step", "evaluate", "end_to_end", "loading"])
def test_a_dry_run_says_what_would_be_measured(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    if program in ("step", "evaluate"):
        benchmark = step.STEP if program == "step" else evaluate.EVALUATE
        flags = ["--model", "t5-base", "t5-3b", "--batch-size", "32", "128", "--precision", "bf16", "--device", "cuda"]
        assert harness.main(benchmark, [*flags, "--dropout", "0.1", "--dry-run"]) == 0
        printed = capsys.readouterr().out
        for case in ("t5-base, 40 text tokens, batch 32", "t5-3b, 40 text tokens, batch 128"):
            assert case in printed
        peers = "hugging face, compiled" if program == "step" else "hugging face, static, compiled"
        assert peers in printed and "ours, plain" in printed and "ours, compiled" in printed
    else:
        main = end_to_end.main if program == "end_to_end" else loading.main
        assert main(["--model", "folder", "--task", "rte", "--dry-run"]) == 0
        assert "rte" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["ours, al", "hugging face, static"])
def test_a_program_that_is_not_there_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main(step.STEP, ["--programs", wrong, "--dry-run"]) == 2
    assert "--programs: expected" in error_of(capsys)


@pytest.mark.long
def test_a_program_that_fails_is_left_out_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = worker.Worker.__init__

    def broken(self: worker.Worker, *given: Any) -> None:
        right(self, *given)
        if self.names == ["ours, all"]:
            self.process.kill()

    monkeypatch.setattr(worker.Worker, "__init__", broken)
    flags = ["--model", "tiny", "--dropout", "0", *TINY, "--programs", "ours, plain", "ours, all", "--unchecked"]
    assert harness.main(step.STEP, [*flags, "--keep-going", "--out", str(tmp_path / "step.json")]) == 0
    (case,) = written(tmp_path / "step.json")["cases"]
    assert names(case) == ["ours, plain"] and "status -9" in case["failed"]["ours, all"]
    assert harness.main(step.STEP, flags) == 2


class Timer:
    """One that runs out when the test says so, if it has not been cancelled."""

    made: ClassVar[list["Timer"]] = []

    def __init__(self, seconds: float, function: Callable[..., None], given: Sequence[Any] = ()) -> None:
        self.out, self.over = partial(function, *given), threading.Event()
        self.made.append(self)

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        self.over.set()


def test_a_program_that_is_slow_to_its_first_step_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, where all make their kernels at once; and one that fails later is left out too."""
    begin, sample, samples = worker.Worker.begin, worker.Worker.sample, list[str]()

    def slow(self: worker.Worker) -> dict[str, str]:
        if self.names == ["hugging face"]:  # as long as the others take, and then its time is over
            for _ in range(600):
                if sum(timer.over.wait(0.05) for timer in Timer.made) == 2:
                    break
            for timer in Timer.made:
                if not timer.over.is_set():
                    timer.out()
        return begin(self)

    def failing(self: worker.Worker, row: str) -> float:
        samples.append(row)
        if row == "ours, eager" and samples.count(row) == 2:
            self.process.kill()
        return sample(self, row)

    monkeypatch.setattr(Timer, "made", [])
    monkeypatch.setattr(worker.threading, "Timer", Timer)
    monkeypatch.setattr(worker.Worker, "begin", slow)
    monkeypatch.setattr(worker.Worker, "sample", failing)
    case, given = harness.Case("tiny", 9, 3, 0.0, "fp32", 5, 2, False), harness.new_parser(step.STEP).parse_args(TINY)
    names = ["hugging face", "ours, plain", "ours, eager"]
    workers, failed = [worker.Worker(step.STEP, case, given, [name]) for name in names], dict[str, str]()
    group = worker.Group(workers, True, failed, 20)
    *_, (rows, _) = harness.rounds(step.STEP, case, given, group, harness.Product(16, "fp32", CPU))
    group.kill()
    assert [row["name"] for row in rows] == ["ours, plain"], failed
    assert rows[0]["peak_bytes"] > 1e7
    assert "within 20 s" in failed["hugging face"] and "status -9" in failed["ours, eager"]


def test_ratios_are_to_the_peer_that_does_the_same() -> None:
    samples = {"product": [1.0]}
    for i, name in enumerate(("hugging face", "hugging face, static, compiled", "ours, all")):
        samples |= {f"{name}: 10 tokens": [8.0 / (i + 1)], f"{name}: 2 tokens": [4.0 / (i + 1)]}
    samples |= {"finetune: hugging face: 2 tokens": [1.0], "finetune: ours, all: 2 tokens": [0.5]}
    samples["attempt: ours, all: 2 tokens"] = [0.5]
    for name, own in (("ours, all", 4.0), ("finetune: ours, all", 1.0), ("attempt: ours, all", 4.0)):
        assert harness.beside(f"{name}: 2 tokens", samples)["hugging face"] == [own], name
    assert harness.beside("ours, all: 10 tokens", samples)["hugging face, static, compiled"] == [4.0]
    assert harness.beside("ours, all: 2 labels", samples) == {}


def test_programs_are_placed_by_the_memory_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group begins with the peer, so that ratios are of one run."""
    case = harness.Case("t5-large", 40, 128, 0.1, "bf16", 100, 2, False)
    programs = ["hugging face", "ours, plain", "ours, eager", "ours, all", "ours, compiled"]
    for gigabytes, expected in ((300, [5]), (84, [2, 2, 2, 2]), (150, [3, 3])):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=gigabytes: (free * 1e9, free * 1e9))
        groups = harness.groups_of(step.STEP, case, programs, torch.device("cuda"))
        assert [len(group) for group in groups] == expected and {group[0] for group in groups} == {"hugging face"}
        assert [name for group in groups for name in group[1:]] == programs[1:]
    assert harness.groups_of(step.STEP, case, programs, CPU) == [programs]


def test_the_page_names_every_program() -> None:
    text = (REPOSITORY / "benchmarks/README.md").read_text(encoding="utf-8")
    for name in ("step", "evaluate", "end_to_end", "loading", "forms", "resumes", "kernels", "gpu"):
        assert f"python -m benchmarks.{name}" in text
