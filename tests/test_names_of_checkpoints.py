"""What --model is given: names of the hub, folders of every kind, and what is said where none of them is a T5's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from glue_files import no_settings
from hugging_face import COMMON, random_batch, random_state, save
from runs import error_of
from test_hub import COMMIT

import train
from data import hub
from data.download import Downloader
from model.checkpoint import check_folder, check_name, find_checkpoint, load_t5
from model.decoding import generate
from model.errors import AttemptError, NotFound

FILES = ("config.json", "spiece.model", "model.safetensors")


@pytest.mark.parametrize("size", ["small", "base", "large", "3b", "11b"])
def test_todays_names_of_the_first_t5s(size: str, tmp_path: Path) -> None:
    asked = []

    def fetch(address: str) -> Path:
        asked.append(address)
        if not address.endswith(FILES):
            raise NotFound(address)
        return tmp_path / address.rpartition("/")[2]

    for name in (f"t5-{size}", f"google-t5/t5-{size}"):
        find_checkpoint(name, fetch)
    assert asked[: len(asked) // 2] == asked[len(asked) // 2 :] == [
        f"https://huggingface.co/t5-{size}/resolve/main/{file}" for file in FILES
    ]  # fmt: skip
    with pytest.raises(AttemptError, match="expected a folder"):
        check_name("google-t5/google/flan-t5-small")


@pytest.mark.parametrize(
    "name", ["google/mt5-small", "google/byt5-base", "google/umt5-small", "google/long-t5-local-base"]
)
def test_other_families_get_no_hint_to_another_checkpoint(name: str) -> None:
    with pytest.raises(AttemptError, match="another family") as error:
        check_name(name)
    assert "did you mean" not in str(error.value)


def cached(root: Path, name: str, *files: str) -> Path:
    folder = root / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    for file in files:
        path = folder / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    return folder / "snapshots" / COMMIT


@pytest.mark.parametrize("kept", ["t5-small", "google-t5/t5-small"])
@pytest.mark.parametrize("asked", ["t5-small", "google-t5/t5-small"])
def test_cache_of_their_programs_has_either_name(
    kept: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    place = cached(tmp_path / "hub", kept, *FILES)
    assert find_checkpoint(asked, Downloader(tmp_path / "cache").fetch) == place


@pytest.mark.parametrize("lacking", FILES)
def test_snapshot_that_is_passed_over_says_why(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    place = cached(tmp_path / "hub", "google/flan-t5-small", *(file for file in FILES if file != lacking))
    assert hub.cached_snapshot("google/flan-t5-small") is None is hub.cached_snapshot("google/flan-t5-small")
    what = "whole weights" if lacking == FILES[2] else lacking
    assert capsys.readouterr().err == f"note: {place}: without {what}: not used, google/flan-t5-small is downloaded\n"


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def parent(folder: Path) -> None:
    (folder / "checkpoint-500").mkdir()
    (folder / "checkpoint-500/config.json").write_text("{}")


def own_run(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")


def fast_alone(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")


def byt5(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')


def no_vocabulary(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "adapter": (adapter, "an adapter's folder"),
    "parent": (parent, "give one of checkpoint-500"),
    "run": (own_run, "a run of this program"),
    "tokenizer.json": (fast_alone, "only tokenizer.json, as transformers 5 saves it; copy"),
    "byt5": (byt5, "a ByT5"),
    "no vocabulary": (no_vocabulary, "beside config.json, found none; copy"),
    "nothing": (lambda folder: None, "with its config.json, found none"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_folder_of_another_kind_is_named(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, said = KINDS[kind]
    folder = tmp_path / "model"
    folder.mkdir()
    make(folder)
    with pytest.raises(AttemptError, match=said):
        check_folder(folder)
    flags = ["--task", "rte", "--method", "prompt", "--out", str(tmp_path / "run"), "--data-dir", str(tmp_path)]
    assert train.main([*flags, "--model", str(folder)]) == 2
    assert said in error_of(capsys) and not (tmp_path / "run").exists()


def test_vocabulary_in_the_folder_above_is_pointed_at(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "spiece.model").rename(tmp_path / "spiece.model")
    with pytest.raises(AttemptError, match=f"from {tmp_path} or"):
        check_folder(folder)
    check_folder(tiny_checkpoint)


def test_mt5_computes_what_theirs_does(tmp_path: Path) -> None:
    """Gated gelu though its config.json need not say so, a head of its own or the embedding, and never a scale."""
    transformers = pytest.importorskip("transformers")
    for name, tied in (("own", False), ("tied", True)):
        fields = {k: v for k, v in COMMON.items() if k != "architectures"} | {"model_type": "mt5"}
        state = random_state(COMMON | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": tied})
        folder = save(tmp_path / name, fields | {"tie_word_embeddings": tied}, state, "safetensors")
        theirs = transformers.MT5ForConditionalGeneration.from_pretrained(folder).eval()
        theirs.save_pretrained(tmp_path / f"{name}-again")
        ids, mask = random_batch((9, 4), 101)
        labels = random_batch((5, 5), 101, seed=1)[0]
        asked = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1}
        for place in (folder, tmp_path / f"{name}-again"):
            t5 = load_t5(place)
            with torch.no_grad():
                expected = theirs(input_ids=ids, attention_mask=mask.long(), labels=labels).logits
                assert (t5(ids, mask, labels) - expected).abs().max() <= 1e-5 * float(expected.abs().max())
            answers = theirs.generate(input_ids=ids, attention_mask=mask.long(), **asked)[:, 1:]
            assert torch.equal(generate(t5, ids, mask, 8)[:, : answers.size(1)], answers)
    assert json.loads((tmp_path / "own-again/config.json").read_text())["tie_word_embeddings"]
