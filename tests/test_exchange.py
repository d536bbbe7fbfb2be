"""Prompts to and from PEFT: equal logits and answers there and here; and the command, from end to end."""

import json
import re
from pathlib import Path
from typing import Any

import naive
import pytest
import torch
from hugging_face import COMMON, CONFIGS, V10, V11, oracle, random_batch, random_state, save, spread, state_of
from torch import Tensor

import eval
from attempt.checkpoint import BEST, PromptConfig, load_prompt, load_sources, save_prompt
from attempt.exchange import exchange
from attempt.exchange.exchange import export_peft, import_run
from attempt.prompt import SoftPrompt
from attempt.runs.plan import Plan
from model.checkpoint import load_t5
from model.decoding import generate
from model.errors import AttemptError
from model.safetensors import read_safetensors
from model.t5 import T5
from model.tokenizer import Tokenizer

L = 5
LENGTHS = (9, 3, 7, 1)
TASKS = ["rte", "cola", "mnli"]


@pytest.fixture(scope="module", params=["v1.0", "v1.1"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[T5, Any, Path]:
    """The same random T5 as ours and as Hugging Face's, and its folder."""
    fields = CONFIGS[request.param]
    theirs = oracle(fields)
    spread(theirs, seed=1)
    folder = tmp_path_factory.mktemp("model")
    save(folder, fields, state_of(theirs, fields.get("tie_word_embeddings", True)), "safetensors")
    return load_t5(folder), theirs, folder


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft")


def prompts(K: int, D: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(K, L, D, generator=torch.Generator().manual_seed(seed))


def run_of(folder: Path, target: Tensor, model: str = "t5-base") -> Path:
    save_prompt(folder / BEST, SoftPrompt(target), PromptConfig("prompt", model, TASKS[: len(target)], [], "digits"))
    return folder


def compare(ours: T5, wrapped: Any, target: Tensor, tasks: Tensor | None = None) -> Tensor:
    """Checks logits and greedy answers of a padded batch, each row with its own prompt; returns the answers (B,T)."""
    ids, mask = random_batch(LENGTHS, ours.config.vocab_size)
    labels = torch.randint(2, ours.config.vocab_size, (len(ids), 6), generator=torch.Generator().manual_seed(5))
    more = {} if tasks is None else {"task_ids": tasks}
    prompt = SoftPrompt(target)
    with torch.no_grad():
        expected = wrapped(input_ids=ids, attention_mask=mask.long(), labels=labels, **more).logits
        found = ours(ids, mask, labels, prompt, tasks)
        assert (found - expected).abs().max() < 1e-5
        assert (found - ours(ids, mask, labels)).abs().max() > 0.1  # the prompt matters
    answers = generate(ours, ids, mask, 12, prompt, tasks)
    theirs = wrapped.generate(
        input_ids=ids, attention_mask=mask.long(), max_new_tokens=12, do_sample=False, num_beams=1, **more
    )[:, 1:]
    assert torch.equal(answers, theirs)
    assert len(answers.unique(dim=0)) > 1
    return answers


# ---- export ----


def test_one_prompt_answers_in_peft_as_it_does_here(models: tuple[T5, Any, Path], peft: Any, tmp_path: Path) -> None:
    ours, theirs, _ = models
    target = prompts(1, ours.config.d_model)
    export_peft(run_of(tmp_path / "run", target), tmp_path / "adapter")
    wrapped = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    assert torch.equal(wrapped.get_prompt(1)[0], target[0])
    compare(ours, wrapped, target)


def test_several_prompts_answer_in_peft_each_for_its_own_rows(
    models: tuple[T5, Any, Path], peft: Any, tmp_path: Path
) -> None:
    ours, theirs, _ = models
    target = prompts(3, ours.config.d_model)
    export_peft(run_of(tmp_path / "run", target), tmp_path / "adapter")
    wrapped = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    first = compare(ours, wrapped, target, torch.tensor([2, 0, 1, 2]))
    second = compare(ours, wrapped, target, torch.tensor([0, 0, 2, 1]))
    changed = [not torch.equal(*pair) for pair in zip(first[:, :9], second[:, :9], strict=True)]
    assert not changed[1] and any(changed)


@pytest.mark.parametrize("K", [1, 3])
def test_adapter_holds_no_more_than_peft_needs(K: int, tmp_path: Path) -> None:
    export_peft(run_of(tmp_path / "run", prompts(K, 8), "google/flan-t5-small"), tmp_path / "adapter")
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == names
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    expected = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": L, "num_transformer_submodules": 1}
    expected |= {"base_model_name_or_path": "google/flan-t5-small", "inference_mode": True}
    if K == 1:
        assert config == expected | {"peft_type": "PROMPT_TUNING"}
    else:
        assert config == expected | {"peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": K, "num_ranks": L}


@pytest.mark.parametrize("K", [1, 3])
def test_export_and_import_give_back_every_bit(K: int, tmp_path: Path) -> None:
    target = prompts(K, 8)
    target[0, 0, :3] = torch.tensor([1e-42, 3e38, -1e-30])
    export_peft(run_of(tmp_path / "run", target), tmp_path / "adapter")
    import_run(tmp_path / "adapter", "t5-base", TASKS[:K], tmp_path / "again")
    before, after = load_prompt(tmp_path / "run"), load_prompt(tmp_path / "again")
    assert torch.equal(before[0].target.view(torch.int32), after[0].target.view(torch.int32))
    assert before[1] == after[1]
    assert Plan.read(tmp_path / "again/config.json").prompt_length == L


def test_exported_prompts_are_known_by_their_tasks(tmp_path: Path) -> None:
    target = prompts(3, 8)
    export_peft(run_of(tmp_path / "run", target), tmp_path / "adapter")
    assert load_sources([tmp_path / "adapter"])[1] == TASKS
    import_run(tmp_path / "adapter", "t5-base", ["mnli", "rte"], tmp_path / "two")
    assert torch.equal(load_prompt(tmp_path / "two")[0].target, target[[2, 0]])
    with pytest.raises(AttemptError, match="rte, cola, mnli, found qqp"):
        import_run(tmp_path / "adapter", "t5-base", ["rte", "qqp"], tmp_path / "other")


def test_attempt_cannot_be_exported(tmp_path: Path) -> None:
    save_prompt(
        tmp_path / BEST, naive.mixture(), PromptConfig("attempt", "t5-base", ["rte"], ["mnli", "sst2"], "digits")
    )
    with pytest.raises(AttemptError, match="depends on the instance"):
        export_peft(tmp_path, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_prompt_that_diverged_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match="NaN"):
        export_peft(run_of(tmp_path / "run", prompts(1, 8) / 0), tmp_path / "adapter")


@pytest.mark.parametrize("occupied", ["file", "folder"])
def test_nothing_is_overwritten(occupied: str, tmp_path: Path) -> None:
    run, place = run_of(tmp_path / "run", prompts(1, 8)), tmp_path / "adapter"
    torch.save(prompts(1, 8)[0], tmp_path / "prompt.pt")
    if occupied == "folder":
        place.mkdir()
    (place / "mine" if occupied == "folder" else place).write_text("x")
    with pytest.raises(AttemptError, match="empty or new folder"):
        export_peft(run, place)
    with pytest.raises(AttemptError, match="folder"):
        import_run(tmp_path / "prompt.pt", "t5-base", ["rte"], place)
    assert (place / "mine" if occupied == "folder" else place).read_text() == "x"


# ---- what PEFT itself writes ----


def peft_adapter(peft: Any, theirs: Any, folder: Path, safetensors: bool, **options: Any) -> Any:
    """An adapter made and saved by PEFT, with default options as far as possible; returns PEFT's model."""
    kind = peft.MultitaskPromptTuningConfig if "num_tasks" in options else peft.PromptTuningConfig
    config = kind(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=L, **options)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(theirs, config).eval()
    if "num_tasks" in options:  # PEFT's first values would all give prompts near 0
        for parameter in wrapped.prompt_encoder.parameters():
            torch.nn.init.normal_(parameter)
    wrapped.save_pretrained(folder, safe_serialization=safetensors)
    assert (folder / ("adapter_model.safetensors" if safetensors else "adapter_model.bin")).exists()
    return wrapped


@pytest.mark.parametrize("safetensors", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("stacks", [None, 1], ids=["rows doubled", "rows not doubled"])
def test_adapter_of_peft_answers_here_as_it_does_there(
    models: tuple[T5, Any, Path], peft: Any, safetensors: bool, stacks: int | None, tmp_path: Path
) -> None:
    ours, theirs, folder = models
    wrapped = peft_adapter(peft, theirs, tmp_path / "adapter", safetensors, num_transformer_submodules=stacks)
    assert wrapped.get_prompt(1).size(1) == L * (stacks or 2)  # the trap
    import_run(tmp_path / "adapter", str(folder), ["rte"], tmp_path / "run")
    target = load_prompt(tmp_path / "run")[0].target
    assert target.shape == (1, L, ours.config.d_model)
    compare(ours, wrapped, target)


@pytest.mark.parametrize("safetensors", [True, False], ids=["safetensors", "bin"])
def test_multitask_adapter_of_peft_answers_here_as_it_does_there(
    models: tuple[T5, Any, Path], peft: Any, safetensors: bool, tmp_path: Path
) -> None:
    ours, theirs, folder = models
    options = {"num_tasks": 3, "num_ranks": 2, "num_transformer_submodules": 1}
    wrapped = peft_adapter(peft, theirs, tmp_path / "adapter", safetensors, **options)
    import_run(tmp_path / "adapter", str(folder), TASKS, tmp_path / "run")
    compare(ours, wrapped, load_prompt(tmp_path / "run")[0].target, torch.tensor([2, 0, 1, 2]))


def test_multitask_adapter_with_a_decoders_prompt_keeps_the_encoders(
    models: tuple[T5, Any, Path], peft: Any, tmp_path: Path
) -> None:
    # by default PEFT trains the decoder with a prompt too, and then generates without it
    ours, theirs, folder = models
    wrapped = peft_adapter(peft, theirs, tmp_path / "adapter", True, num_tasks=2, num_ranks=3)
    found = import_run(tmp_path / "adapter", str(folder), TASKS[:2], tmp_path / "run")
    assert len(found.notes) == 1 and "decoder" in found.notes[0]
    ids, mask = random_batch(LENGTHS, ours.config.vocab_size)
    tasks = torch.tensor([1, 0, 0, 1])
    expected = wrapped.generate(input_ids=ids, attention_mask=mask.long(), task_ids=tasks, max_new_tokens=8)[:, 1:]
    assert torch.equal(generate(ours, ids, mask, 8, load_prompt(tmp_path / "run")[0], tasks), expected)


def test_adapters_of_peft_are_sources(models: tuple[T5, Any, Path], peft: Any, tmp_path: Path) -> None:
    _, theirs, _ = models
    wrapped = peft_adapter(peft, theirs, tmp_path / "sst2-v1.1", True)
    expected = wrapped.get_prompt(1)[:, :L]
    file = tmp_path / "sst2-v1.1/adapter_model.safetensors"
    found, names = load_sources([tmp_path / "sst2-v1.1", file])
    assert torch.equal(found, torch.cat([expected, expected])) and names == ["sst2-v1.1", "sst2-v1.1"]


# ---- the command ----


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that Hugging Face loads by itself without a mistake."""
    fields = COMMON | V10
    return save(tmp_path_factory.mktemp("tied"), fields, random_state(fields), "safetensors")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "error: " in text, text
    return text


def test_an_adapter_s_base_is_found_from_any_folder(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tied.parent)
    export_peft(run_of(tmp_path / "run", prompts(1, 32), tied.name), tmp_path / "adapter")
    adapter = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(tied)


@pytest.mark.parametrize("K", [1, 2])
def test_printed_lines_load_the_adapter(
    K: int, tied: Path, peft: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = prompts(K, 32)
    run = run_of(tmp_path / "run", target, str(tied))
    assert exchange.main(["export", str(run), "--to", str(tmp_path / "it's")]) == 0
    lines = re.findall("^    (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(lines) == 2
    found: dict[str, Any] = {}
    exec("\n".join(lines), found)
    compare(load_t5(tied), found["model"].eval(), target, None if K == 1 else torch.tensor([1, 0, 0, 1]))


def test_imported_prompt_is_scored(
    glue: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # what eval.py answers with an imported prompt is what the model answers with that prompt
    target = prompts(1, 32)
    torch.save(target[0], tmp_path / "prompt.pt")
    out = tmp_path / "run"
    flags = ["--model", str(tiny_checkpoint), "--task", "cola", "--out", str(out), "--labels", "words"]
    assert exchange.main(["import", str(tmp_path / "prompt.pt"), *flags]) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "best.safetensors", "last.safetensors"}
    assert f"eval.py --run {out}" in capsys.readouterr().out
    plan = Plan.read(out / "config.json")
    assert (plan.method, plan.labels, plan.prompt_length, plan.steps) == ("prompt", "words", L, 0)
    t5, tokenizer = load_t5(tiny_checkpoint), Tokenizer(tiny_checkpoint / "spiece.model")
    length = 1 + max(map(len, tokenizer.encode_batch(["acceptable", "unacceptable"])))
    for checkpoint in ("best", "last"):
        rows = scored(out, glue, tmp_path / f"{checkpoint}.jsonl", "--checkpoint", checkpoint)
        ids = torch.tensor([[*tokenizer.encode_batch([rows[0]["source"]])[0], 1]])
        answer = generate(t5, ids, ids > 0, length, SoftPrompt(target))
        assert rows[0]["prediction"] == tokenizer.decode(answer[0].tolist())


def scored(run: Path, glue: Path, file: Path, *flags: str) -> list[dict[str, Any]]:
    arguments = ["--run", str(run), "--data-dir", str(glue), "--device", "cpu", "--predictions", str(file)]
    assert eval.main([*arguments, *flags]) == 0
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_imported_mixture_is_scored(glue: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    # ATTEMPT's run of two tasks: the sources are files apart
    folder, made = tmp_path / "saved", naive.mixture(K=2, L=L, D=32, sources=2)
    folder.mkdir()
    assert made.sources is not None and made.attention is not None
    for name, prompt in zip(("cola", "rte"), made.target.detach(), strict=True):
        torch.save(prompt, folder / f"prefix_embeddings_{name}.pt")
    torch.save(made.attention.down.weight, folder / "attn_W_down.pt")
    torch.save(made.attention.up.weight, folder / "attn_W_up.pt")
    torch.save(made.attention.norm.weight, folder / "layer_norm_weight.pt")
    torch.save(made.attention.norm.bias, folder / "layer_norm_bias.pt")
    sources = [tmp_path / "mnli_prompt.pt", tmp_path / "sst2_prompt.pt"]
    for path, source in zip(sources, made.sources, strict=True):
        torch.save(source.clone(), path)
    out = tmp_path / "run"
    flags = ["--task", "rte", "cola", "--model", str(tiny_checkpoint), "--out", str(out)]
    assert exchange.main(["import", str(folder), *flags, "--source-prompts", *map(str, sources)]) == 0
    prompt, config = load_prompt(out)
    assert config.tasks == ["rte", "cola"] and config.sources == ["mnli", "sst2"] and config.method == "attempt"
    assert torch.equal(prompt.target, made.target[[1, 0]])
    for path in (*sources, *folder.iterdir()):
        path.unlink()  # the run is all that is needed
    rows = scored(out, glue, tmp_path / "answers.jsonl")
    assert {row["task"] for row in rows} == {"rte", "cola"}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "--source-prompts PATH"),
        (["--source-prompts", "S", "wide"], "shape"),
        (["--source-prompts", "wide"], "(5, 48)"),
        (["--source-prompts", "S", "--prompt-length", "4"], "length 4"),
        (["--source-prompts", "S", "--task", "rte", "cola"], "1 prompts"),
        (["--source-prompts", "S", "--task", "rte", "rte"], "again"),
        (["--source-prompts", "S", "--temperature", "0"], "above 0"),
        (["--source-prompts", "S", "--model", "wide-model"], "width 48"),
        (["--source-prompts", "none.pt"], "none.pt"),
        (["--labels", "letters"], "letters"),
    ],
    ids=str,
)
def test_import_complains_on_one_line(
    flags: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(L, 32), "S")
    torch.save(torch.randn(L, 48), "wide")
    save(Path("wide-model"), COMMON | V11 | {"d_model": 48}, {})
    Path("saved").mkdir()
    for name, shape in {"prefix_embeddings": (L, 32), "attn_W_down": (4, 32), "attn_W_up": (32, 4)}.items():
        torch.save(torch.randn(shape), f"saved/{name}.pt")
    try:
        status = exchange.main(["import", "saved", "--model", "t5-base", "--task", "rte", "--out", "run", *flags])
    except SystemExit as e:  # argparse's own
        status = int(str(e.code))
    assert status == 2 and complaint in error_of(capsys)
    assert not Path("run").exists()


@pytest.mark.parametrize("flag", [["--pool-pads"], ["--temperature", "5"], ["--source-prompts", "S"]], ids=str)
def test_mixtures_flags_are_refused_for_plain_prompts(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(L, 32), "S")
    arguments = ["--model", "t5-base", "--task", "rte", "--out", "run"]
    assert exchange.main(["import", "S", *arguments, *flag]) == 2
    assert "plain prompts" in error_of(capsys)


@pytest.mark.parametrize("arguments", [[], ["export"], ["import", "x"], ["export", "none", "--to", "x"], ["other"]])
def test_bad_commands_are_refused_on_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = exchange.main(arguments)
    except SystemExit as e:
        status = int(str(e.code))
    assert status == 2 and error_of(capsys)


# ---- real prompts ----

REAL = {
    "attempt_record_t5_base.pt": 768,
    "attempt_record_width1024.pt": 1024,
    "google_mrpc_t5_1_1_lm100k_base.npy": 768,
    "google_rte_t5_1_1_lm100k_base.npy": 768,
    "google_sst2_t5_1_1_lm100k_base.npy": 768,
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Random T5s of the real prompts' widths, small otherwise."""
    folders = {}
    for width in (768, 1024):
        fields = COMMON | V11 | {"d_model": width, "d_kv": 16, "num_heads": 2}
        folders[width] = save(tmp_path_factory.mktemp(f"t5-{width}"), fields, random_state(fields))
    return folders


@pytest.mark.parametrize("name", REAL)
def test_real_prompts_are_imported_and_run(name: str, fixtures: Path, wide: dict[int, Path], tmp_path: Path) -> None:
    import_run(fixtures / "prompts" / name, str(wide[REAL[name]]), ["record"], tmp_path / "run")
    prompt, _ = load_prompt(tmp_path / "run")
    assert prompt.target.shape == (1, 100, REAL[name]) and prompt.target.isfinite().all()
    t5 = load_t5(wide[REAL[name]])
    ids, mask = random_batch(LENGTHS, 101)
    labels = torch.randint(2, 101, (4, 3))
    with torch.no_grad():
        logits = t5(ids, mask, labels, prompt)
        assert logits.isfinite().all() and (logits - t5(ids, mask, labels)).abs().max() > 0.01
    assert generate(t5, ids, mask, 4, prompt).shape[0] == 4


@pytest.mark.parametrize("name", REAL)
def test_real_prompts_are_refused_for_a_model_of_another_width(name: str, flan: Path, tmp_path: Path) -> None:
    path = flan.parent / "prompts" / name
    with pytest.raises(AttemptError, match=f"width 512, .* found width {REAL[name]}") as caught:
        import_run(path, str(flan), ["record"], tmp_path / "run")
    assert str(path) in str(caught.value) and not (tmp_path / "run").exists()


def test_real_prompt_goes_through_peft_unchanged(
    fixtures: Path, wide: dict[int, Path], peft: Any, tmp_path: Path
) -> None:
    import_run(fixtures / "prompts/google_rte_t5_1_1_lm100k_base.npy", str(wide[768]), ["rte"], tmp_path / "run")
    export_peft(tmp_path / "run", tmp_path / "adapter")
    theirs = oracle(COMMON | V11 | {"d_model": 768, "d_kv": 16, "num_heads": 2})
    wrapped = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter"))
    assert torch.equal(wrapped.get_prompt(1)[0], load_prompt(tmp_path / "run")[0].target[0])


def test_file_is_complete_for_other_readers(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    export_peft(run_of(tmp_path / "run", prompts(2, 8)), tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_model.safetensors"
    ours, metadata = read_safetensors(file)
    theirs = safetensors.load_file(file)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert metadata["format"] == "pt"
