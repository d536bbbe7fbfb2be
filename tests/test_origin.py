"""Which T5 a prompt is of: told by a fingerprint of the embedding wherever prompts and weights come together."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hugging_face import save
from runs import error_of

import eval
import train
from attempt.checkpoint import load_prompt, load_trained, save_prompt
from attempt.compare import similarity
from attempt.exchange import exchange
from attempt.exchange.exchange import import_run
from attempt.origin import Origin, fingerprint, is_fingerprint, origin_of_model
from attempt.runs.plan import Plan
from model.checkpoint import load_t5
from model.safetensors import read_safetensors

IS, MAY = "which is another T5", "which may be another T5"
STEPS = ["--prompt-length", "6", "--steps", "2", "--device", "cpu", "--method", "prompt", "--task", "rte"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)  # type: ignore[no-any-return]


def copy_of(folder: Path, other: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """The same checkpoint elsewhere, each tensor changed."""
    shutil.copytree(folder, other)
    fields = json.loads((folder / "config.json").read_text())
    return save(other, fields, {name: change(tensor) for name, tensor in weights(folder).items()})


@pytest.fixture(scope="module")
def half(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same T5 under another name, in bf16."""
    return copy_of(tiny_checkpoint, tmp_path_factory.mktemp("half") / "copied", lambda t: t.bfloat16())


@pytest.fixture(scope="module")
def another(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another T5 of the same sizes: trained on, so that each weight is some percent off."""
    folder = tmp_path_factory.mktemp("another") / "trained-on"
    generator = torch.Generator().manual_seed(0)
    return copy_of(tiny_checkpoint, folder, lambda t: t * (1 + 0.03 * torch.randn(t.shape, generator=generator)))


def without_fingerprint(path: Path, out: Path) -> Path:
    """The checkpoint as an earlier version of the program wrote it."""
    prompt, config = load_prompt(path)
    save_prompt(out, prompt, replace(config, embedding=None))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(5))
def test_rounding_makes_no_other_t5_and_training_does(dtype: torch.dtype, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embedding = size * torch.randn(32128, 64, generator=generator)
    own = Origin("a", fingerprint(embedding))
    assert is_fingerprint(own.embedding)
    for low in (embedding.to(dtype), embedding.half().to(dtype), embedding.bfloat16().to(dtype)):
        assert not own.differs(Origin("b", fingerprint(low)))
    more = torch.cat([embedding, torch.zeros(72, 64)])  # tokens were added
    assert not own.differs(Origin("b", fingerprint(more.to(dtype))))
    trained = embedding * (1 + 0.02 * torch.randn(embedding.shape, generator=generator))
    assert size < 1e-3 or own.differs(Origin("a", fingerprint(trained.to(dtype)))) == "is"
    assert own.differs(Origin("a", fingerprint(torch.randn(32128, 64, generator=generator)))) == "is"


def test_names_can_only_say_may() -> None:
    known = Origin("models/T5-base", [0.5] * 16)
    assert Origin("google-t5/t5-base").differs(known) == "" == known.differs(Origin("t5-base"))
    assert Origin("google/flan-t5-base").differs(known) == "may be" == known.differs(Origin("x"))


def test_every_checkpoint_has_it(prompt_run: Path, tiny_checkpoint: Path, tmp_path: Path, common: list[str]) -> None:
    own = fingerprint(load_t5(tiny_checkpoint).embedding.weight)
    assert load_prompt(prompt_run)[1].embedding == own == load_prompt(prompt_run / "last.safetensors")[1].embedding
    assert origin_of_model(str(tiny_checkpoint)) == Origin(str(tiny_checkpoint), own)
    assert origin_of_model("t5-base") == Origin("t5-base") and origin_of_model(str(tmp_path)).embedding is None
    assert exchange.main(["export", str(prompt_run), "--to", str(tmp_path / "adapter")]) == 0
    metadata = read_safetensors(tmp_path / "adapter/adapter_model.safetensors")[1]
    assert json.loads(metadata["attempt.embedding"]) == own
    import_run(tmp_path / "adapter", "t5-base", ["cola"], tmp_path / "imported")
    assert load_prompt(tmp_path / "imported")[1].embedding == own
    flags = ["--task", "rte", "--method", "finetune", "--steps", "1", "--out", str(tmp_path / "tuned"), *common]
    assert train.main(flags) == 0
    config = load_trained(tmp_path / "tuned/best.safetensors", "finetune", load_t5(tiny_checkpoint))[1]
    assert config.embedding == own  # of the T5 that was tuned, not of what came of it


@pytest.mark.parametrize("model", ["same", "half", "another"])
@pytest.mark.parametrize("use", ["init", "sources", "transfer", "attention"])
def test_training_from_prompts_of_another_t5_is_told(
    use: str, model: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    prompt_run, common = (request.getfixturevalue(name) for name in ("prompt_run", "common"))
    folder = request.getfixturevalue({"same": "tiny_checkpoint"}.get(model, model))
    given, where = ["--steps", "1", "--out", str(tmp_path / "run"), "--task", "rte"], prompt_run
    if use == "init":
        given += ["--method", "prompt", "--init", str(prompt_run)]
    elif use == "sources":
        given += ["--method", "attempt", "--source-prompts", str(prompt_run)]
    elif use == "transfer":
        given += ["--method", "spot", "--source-prompts", str(prompt_run), "--early-prompt", str(prompt_run)]
    else:
        where = tmp_path / "mixed"
        mixed = ["--method", "attempt", "--source-prompts", str(prompt_run), "--steps", "1", "--out", str(where)]
        assert train.main(["--task", "rte", *mixed, *common]) == 0
        given += ["--method", "attempt", "--source-prompts", str(prompt_run), "--load-attention", str(where)]
    capsys.readouterr()
    assert train.main([*given, *common, "--model", str(folder)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    if model != "another":
        assert not told
    else:
        (line,) = [line for line in told if f" {where}:" in line]
        assert IS in line and str(folder) in line and str(common[1]) in line


@pytest.mark.parametrize("model", ["half", "another"])
def test_evaluation_with_another_t5_is_told(
    model: str, prompt_run: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = request.getfixturevalue(model)
    asked = ["--run", str(prompt_run), "--device", "cpu", "--model", str(folder)]
    assert eval.main(asked) == 0
    found = capsys.readouterr().err
    assert (IS in found and str(folder) in found) if model == "another" else "warning" not in found
    old = without_fingerprint(prompt_run / "best.safetensors", tmp_path / "old.safetensors")
    assert eval.main([*asked, "--checkpoint", str(old)]) == 0
    found = capsys.readouterr().err
    assert MAY in found and "known only from the names" in found and str(folder) in found


def test_added_sources_of_another_t5_are_told(
    attempt_flags: list[str], prompt_run: Path, another: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main([*attempt_flags, "--steps", "1", "--out", str(out)]) == 0
    foreign = tmp_path / "foreign.safetensors"
    prompt, config = load_prompt(prompt_run)
    save_prompt(foreign, prompt, replace(config, embedding=fingerprint(load_t5(another).embedding.weight)))
    asked = ["--run", str(out), "--device", "cpu", "--task", "rte", "--add-sources"]
    capsys.readouterr()
    assert eval.main([*asked, str(prompt_run)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert eval.main([*asked, str(foreign)]) == 0
    assert f"warning: {foreign}" in capsys.readouterr().err
    assert similarity.main([str(prompt_run), "--target", str(foreign)]) == 0
    assert f"warning: {foreign}" in capsys.readouterr().err


def test_import_of_another_t5s_adapter_is_told(
    prompt_run: Path, half: Path, another: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapter"
    assert exchange.main(["export", str(prompt_run), "--to", str(adapter)]) == 0
    capsys.readouterr()
    for model, told in ((str(half), ""), (str(another), IS), ("t5-base", MAY)):
        out = tmp_path / f"run{len(told)}"
        assert exchange.main(["import", str(adapter), "--model", model, "--task", "cola", "--out", str(out)]) == 0
        found = capsys.readouterr().err
        assert (told in found and model in found) if told else not found
    fields = json.loads((adapter / "adapter_config.json").read_text())
    for name, told in (("t5-base", False), ("google-t5/T5-base", False), ("google/flan-t5-base", True)):
        (adapter / "adapter_config.json").write_text(json.dumps(fields | {"base_model_name_or_path": name}))
        run = tmp_path / name.replace("/", "-")
        assert exchange.main(["import", str(adapter), "--model", "t5-base", "--task", "cola", "--out", str(run)]) == 0
        assert (MAY in capsys.readouterr().err) == told


def test_run_does_not_go_on_with_other_weights(
    tiny_checkpoint: Path,
    half: Path,
    another: Path,
    common: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    out = tmp_path / "run"
    assert train.main([*STEPS, "--out", str(out), *common, "--model", str(model)]) == 0
    for other, refused in ((half, False), (another, True)):
        shutil.copy(other / "pytorch_model.bin", model)
        more = ["--resume", str(out), "--change", "--steps", "3" if not refused else "4"]
        assert train.main(more) == (2 if refused else 0)
        if refused:
            assert "expected the T5 that the run began with" in error_of(capsys)
        capsys.readouterr()
    assert Plan.read(out / "config.json").steps == 3
