"""The network against Hugging Face's, on tiny random models: logits, losses, gradients, greedy answers."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hugging_face import COMMON, CONFIGS, oracle, random_batch, save, spread, state_of
from torch import Tensor

from model.checkpoint import load_t5
from model.config import T5Config
from model.decoding import generate
from model.errors import AttemptError
from model.t5 import IGNORED, T5

Pair = tuple[T5, Any]


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our model and Hugging Face's with the same weights, which went through a checkpoint folder."""
    fields = CONFIGS[request.param]
    theirs = oracle(fields)
    spread(theirs, seed=len(request.param))
    folder = tmp_path_factory.mktemp("pair")
    ours = load_t5(save(folder, fields, state_of(theirs, tied=fields.get("tie_word_embeddings", True))))
    return ours.requires_grad_(False), theirs


def random_labels(lengths: tuple[int, ...], vocabulary: int) -> Tensor:
    labels, mask = random_batch(lengths, vocabulary, seed=1)
    return labels.masked_fill(~mask, IGNORED)


def random_prompt(model: T5, tasks: int, length: int = 5) -> Any:
    """A trainable prompt (K,L,D) of the embedding's scale."""
    generator = torch.Generator().manual_seed(2)
    target = 2 * torch.randn(tasks, length, model.config.d_model, generator=generator)
    return SimpleNamespace(target=target.requires_grad_(), sources=None, attention=None)


def prompted(theirs: Any, ids: Tensor, mask: Tensor, prompts: Tensor) -> dict[str, Tensor]:
    """What Hugging Face's model has to be given so that it reads prompts (B,L,D) before the text."""
    embeddings = torch.cat([prompts, theirs.get_input_embeddings()(ids)], dim=1)
    return {
        "inputs_embeds": embeddings,
        "attention_mask": torch.cat([mask.new_ones(prompts.shape[:2]), mask], dim=1).long(),
    }


def check_close(what: str, found: Tensor, expected: Tensor, limit: float) -> None:
    worst = (found - expected).abs().max().item()
    print(f"{what}: largest difference {worst:.1e}, largest value {expected.abs().max().item():.2f}")
    assert worst <= limit


BATCHES = {
    "one": ((7,), (5,)),
    "padded": ((1, 33, 12), (9, 1, 4)),
    "beyond-max-distance": ((331, 171), (5, 310)),  # farther apart than any table's last bucket begins
}


@pytest.mark.parametrize("batch", BATCHES)
def test_logits(pair: Pair, batch: str) -> None:
    ours, theirs = pair
    lengths, answers = BATCHES[batch]
    ids, mask = random_batch(lengths, ours.config.vocab_size)
    labels = random_labels(answers, ours.config.vocab_size)
    expected = theirs(input_ids=ids, attention_mask=mask.long(), labels=labels).logits
    assert expected.std() > 0.5  # else no difference could show
    check_close("logits", ours(ids, mask, labels), expected, 1e-4)


def test_loss(pair: Pair) -> None:
    ours, theirs = pair
    ids, mask = random_batch((4, 9, 17), ours.config.vocab_size)
    labels = random_labels((3, 1, 8), ours.config.vocab_size)
    expected = theirs(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
    check_close("loss", ours.loss(ids, mask, labels), expected, 1e-5)


@pytest.mark.parametrize("batch", BATCHES)
def test_logits_with_prompt(pair: Pair, batch: str) -> None:
    ours, theirs = pair
    lengths, answers = BATCHES[batch]
    ids, mask = random_batch(lengths, ours.config.vocab_size)
    labels = random_labels(answers, ours.config.vocab_size)
    prompt = random_prompt(ours, tasks=1)
    inputs = prompted(theirs, ids, mask, prompt.target.detach().expand(len(lengths), -1, -1))
    expected = theirs(**inputs, labels=labels).logits
    check_close("logits with a prompt", ours(ids, mask, labels, prompt).detach(), expected, 1e-4)
    assert (expected - theirs(input_ids=ids, attention_mask=mask.long(), labels=labels).logits).abs().max() > 0.1


def test_gradient_of_prompt(pair: Pair) -> None:
    ours, theirs = pair
    ids, mask = random_batch((4, 9, 17), ours.config.vocab_size)
    labels = random_labels((3, 1, 8), ours.config.vocab_size)
    prompt = random_prompt(ours, tasks=1)
    loss = ours.loss(ids, mask, labels, prompt)
    loss.backward()

    twin = prompt.target.detach().clone().requires_grad_()
    expected = theirs(**prompted(theirs, ids, mask, twin.expand(3, -1, -1)), labels=labels).loss
    expected.backward()
    check_close("loss with a prompt", loss.detach(), expected.detach(), 1e-5)
    relative = ((prompt.target.grad - twin.grad).norm() / twin.grad.norm()).item()
    print(f"gradient of the prompt: relative difference {relative:.1e}")
    assert relative <= 1e-5
    assert (prompt.target.grad.abs().amax(dim=-1) > 0).all()  # every row of the prompt is used


def test_each_task_has_its_own_prompt(pair: Pair) -> None:
    ours, theirs = pair
    ids, mask = random_batch((6, 3, 8), ours.config.vocab_size)
    labels = random_labels((3, 4, 2), ours.config.vocab_size)
    tasks = torch.tensor([1, 0, 1])
    prompt = random_prompt(ours, tasks=2)
    found = ours(ids, mask, labels, prompt, tasks)
    expected = theirs(**prompted(theirs, ids, mask, prompt.target.detach()[tasks]), labels=labels).logits
    check_close("logits with two prompts", found.detach(), expected, 1e-4)
    found[0].sum().backward()
    assert prompt.target.grad[0].abs().max() == 0 and prompt.target.grad[1].abs().max() > 0


def test_mixture_enters_as_the_weighted_sum_plus_target(pair: Pair) -> None:
    ours, theirs = pair
    ids, mask = random_batch((6, 3), ours.config.vocab_size)
    labels = random_labels((3, 4), ours.config.vocab_size)
    tasks = torch.tensor([1, 0])
    targets = random_prompt(ours, tasks=2).target.detach()
    sources = torch.randn(3, 5, ours.config.d_model, generator=torch.Generator().manual_seed(3))
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.1, 0.2]])
    prompt = SimpleNamespace(
        target=targets, sources=sources, attention=lambda E, mask, sources, Q: weights[:, :, None], use_target=True
    )
    by_hand = torch.stack(
        [
            sum((a * P for a, P in zip(row, [*sources, targets[task]], strict=True)), targets[task])
            for row, task in zip(weights, tasks, strict=True)
        ]
    )
    expected = theirs(**prompted(theirs, ids, mask, by_hand), labels=labels).logits
    check_close("logits with a mixture", ours(ids, mask, labels, prompt, tasks), expected, 1e-4)


def cut(answer: Tensor, eos: int) -> list[int]:
    """The tokens up to EOS and with it: programs differ in what they put after it."""
    tokens = answer.tolist()
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens


def use_eos(model: T5, eos: int) -> T5:
    """The same weights with another end of answers: random models hardly ever say 1."""
    twin = T5(replace(model.config, eos_token_id=eos))
    twin.load_state_dict(model.state_dict())
    return twin.eval()


@pytest.mark.parametrize("with_prompt", [False, True])
def test_greedy_answers(pair: Pair, with_prompt: bool) -> None:
    ours, theirs = pair
    ids, mask = random_batch((5, 40, 1, 13), ours.config.vocab_size)
    prompt = random_prompt(ours, tasks=1) if with_prompt else None
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    if prompt:
        inputs = prompted(theirs, ids, mask, prompt.target.detach().expand(4, -1, -1))

    # without a cache: theirs fails where the stacks differ in depth, and so ours is checked against none
    greedy = inputs | {"max_new_tokens": 40, "do_sample": False, "num_beams": 1, "use_cache": False}

    never = ours.config.vocab_size  # no such token: all answers have the full length
    answers = generate(use_eos(ours, never), ids, mask, 40, prompt)
    assert answers.shape == (4, 40)
    # not one token again and again, which a wrong program would find too
    assert max(len(row.unique()) for row in answers) >= 5
    expected = theirs.generate(**greedy, eos_token_id=never)
    assert answers.tolist() == expected[:, 1:].tolist()  # theirs begins with the start token

    eos = int(answers[1, 20])  # now some answers stop early, at different places
    stopped = generate(use_eos(ours, eos), ids, mask, 40, prompt)
    expected = theirs.generate(**greedy, eos_token_id=eos)
    assert [cut(row, eos) for row in stopped] == [cut(row, eos) for row in expected[:, 1:]]
    assert [cut(row, eos) for row in stopped] == [cut(row, eos) for row in answers]


def test_answers_are_padded_after_eos(pair: Pair) -> None:
    ours, _ = pair
    ids, mask = random_batch((5, 40, 1, 13), ours.config.vocab_size)
    eos = int(generate(ours, ids, mask, 30)[1, 3])
    for row in generate(use_eos(ours, eos), ids, mask, 30).tolist():
        if eos in row:
            assert not any(row[row.index(eos) + 1 :])


def test_generation_ends_when_all_answers_have_ended(pair: Pair) -> None:
    ours, _ = pair
    ids, mask = random_batch((9,), ours.config.vocab_size)
    eos = int(generate(use_eos(ours, ours.config.vocab_size), ids, mask, 30)[0, 5])
    answer = generate(use_eos(ours, eos), ids, mask, 30)[0].tolist()
    assert answer.count(eos) == 1 and answer[-1] == eos and len(answer) <= 6


@pytest.mark.parametrize("length", [1, 2, 27])
def test_generation_honours_its_length(pair: Pair, length: int) -> None:
    ours, _ = pair
    ids, mask = random_batch((9, 4), ours.config.vocab_size)
    endless = use_eos(ours, ours.config.vocab_size)
    answers = generate(endless, ids, mask, length)
    assert answers.shape == (2, length)
    assert torch.equal(answers, generate(endless, ids, mask, 30)[:, :length])


def test_cached_steps_equal_the_whole_decoder(pair: Pair) -> None:
    ours, _ = pair
    ids, mask = random_batch((9, 4), ours.config.vocab_size)
    tokens, _ = random_batch((150, 150), ours.config.vocab_size, seed=1)
    memory, memory_mask = ours.encoder(ours.embedding(ids), mask)
    E = ours.embedding(tokens)
    whole = ours.decoder(E, memory, memory_mask)
    steps, past = [], 0
    position = torch.zeros(1, dtype=torch.long)
    caches = ours.decoder.new_caches(160, position)
    for size in (1, 1, 3, 1, 60, *[1] * 84):  # one token at a time as in generation, and several
        position.set_(torch.arange(past, past + size))
        steps.append(ours.decoder(E[:, past : past + size], memory, memory_mask, caches))
        past += size
    check_close("cached steps", torch.cat(steps, dim=1), whole, 1e-4)


def test_decoder_does_not_look_ahead(pair: Pair) -> None:
    ours, _ = pair
    ids, mask = random_batch((9,), ours.config.vocab_size)
    labels = random_labels((12,), ours.config.vocab_size)
    changed = labels.clone()
    changed[:, 6:] = 3
    before, after = ours(ids, mask, labels), ours(ids, mask, changed)
    assert torch.equal(before[:, :7], after[:, :7])  # the decoder reads label 6 at position 7
    assert not torch.equal(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("with_prompt", [False, True])
def test_a_row_does_not_depend_on_its_batch(pair: Pair, with_prompt: bool) -> None:
    ours, _ = pair
    ids, mask = random_batch((6, 3, 19), ours.config.vocab_size)
    labels = random_labels((7, 2, 4), ours.config.vocab_size)
    prompt = random_prompt(ours, tasks=1) if with_prompt else None
    alone = ours(ids[:1, :6], mask[:1, :6], labels[:1], prompt)
    batch = ours(ids, mask, labels, prompt)[:1]
    check_close("a row in a batch", batch.detach(), alone.detach(), 1e-5)

    rubbish = ids.masked_fill(~mask, 7)  # what stands under the mask is of no account
    check_close("rubbish under the mask", ours(rubbish, mask, labels, prompt)[:1].detach(), alone.detach(), 1e-5)
    longer = torch.nn.functional.pad(ids, (0, 150)), torch.nn.functional.pad(mask, (0, 150))
    check_close("more padding", ours(*longer, labels, prompt)[:1].detach(), alone.detach(), 1e-5)


def test_evaluation_is_deterministic(pair: Pair) -> None:
    ours, _ = pair
    ids, mask = random_batch((6, 3), ours.config.vocab_size)
    labels = random_labels((7, 2), ours.config.vocab_size)
    assert torch.equal(ours(ids, mask, labels), ours(ids, mask, labels))


def test_dropout_is_where_hugging_face_has_it(pair: Pair) -> None:
    # The same random numbers are drawn in the same order for the same places: then the logits are the same.
    ours, theirs = pair
    ids, mask = random_batch((6, 3), ours.config.vocab_size)
    labels = random_labels((7, 2), ours.config.vocab_size)
    prompt = random_prompt(ours, tasks=1)
    inputs = prompted(theirs, ids, mask, prompt.target.detach().expand(2, -1, -1))
    quiet = ours(ids, mask, labels, prompt).detach()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(4)
            found = ours.train()(ids, mask, labels, prompt).detach()
            torch.manual_seed(4)
            expected = theirs.train()(**inputs, labels=labels).logits
    finally:
        ours.eval()
        theirs.eval()
    assert (found - quiet).abs().max() > 0.1
    check_close("logits in training", found, expected, 1e-4)


REQUIRED = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


def config_file(folder: Path, content: object) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_config_defaults_are_those_of_v10(tmp_path: Path) -> None:
    config = T5Config.from_json(config_file(tmp_path, REQUIRED))
    assert config.decoder_layers == 2 and config.tie_word_embeddings and not config.gated
    assert config.relative_attention_num_buckets == 32 and config.relative_attention_max_distance == 128
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)
    assert config.vocab_size == 32128 and config.dropout_rate == 0.1 and config.layer_norm_epsilon == 1e-6


def test_config_of_null_is_absent(tmp_path: Path) -> None:
    config = T5Config.from_json(config_file(tmp_path, REQUIRED | {"num_decoder_layers": None}))
    assert config.decoder_layers == 2


def test_config_reads_every_field(tmp_path: Path) -> None:
    fields = COMMON | CONFIGS["v1.1-many-buckets"]
    fields |= {"dense_act_fn": "silu", "is_gated_act": True, "scale_decoder_outputs": True}
    config = T5Config.from_json(config_file(tmp_path, fields))
    assert config.gated and not config.tie_word_embeddings and config.decoder_layers == 2
    for name in T5Config.__dataclass_fields__:
        assert getattr(config, name) == fields[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("d_model", "512"),
        ("d_model", 512.0),
        ("d_model", 0),
        ("d_model", -1),
        ("d_model", True),
        ("d_model", [512]),
        ("num_decoder_layers", 0),
        ("num_decoder_layers", "2"),
        ("vocab_size", {}),
        ("dropout_rate", "0.1"),
        ("dropout_rate", 1.5),
        ("dropout_rate", -0.1),
        ("dropout_rate", float("nan")),
        ("layer_norm_epsilon", []),
        ("tie_word_embeddings", "false"),
        ("tie_word_embeddings", 0),
        ("feed_forward_proj", "gated-tanh"),
        ("dense_act_fn", "mish"),
        ("is_gated_act", "true"),
        ("scale_decoder_outputs", 1),
        ("feed_forward_proj", 1),
        ("feed_forward_proj", ["relu"]),
        ("eos_token_id", [1, 2]),
        ("pad_token_id", -1),
    ],
)
def test_config_names_a_wrong_field(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(AttemptError) as error:
        T5Config.from_json(config_file(tmp_path, REQUIRED | {name: value}))
    assert "config.json" in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("name", REQUIRED)
def test_config_names_a_missing_field(tmp_path: Path, name: str) -> None:
    with pytest.raises(AttemptError, match=rf"config\.json.*\"{name}\""):
        T5Config.from_json(config_file(tmp_path, {k: v for k, v in REQUIRED.items() if k != name}))


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '"t5"', "[" * 100_000, '{"model_type": "bert"}', "\0"])
def test_config_of_something_else(tmp_path: Path, content: str) -> None:
    with pytest.raises(AttemptError, match=r"config\.json"):
        T5Config.from_json(config_file(tmp_path, content))


def test_config_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(AttemptError, match=r"config\.json"):
        T5Config.from_json(path)


def test_config_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match=r"config\.json"):
        T5Config.from_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    "sizes",
    [
        {"relative_attention_num_buckets": 2},  # no bucket is left for distances in the encoder
        {"relative_attention_max_distance": 16},  # the decoder's exact buckets reach as far: nothing to divide by
        {"decoder_start_token_id": 101},
    ],
)
def test_config_that_cannot_work(tmp_path: Path, sizes: dict[str, int]) -> None:
    # a file with such numbers is damaged: say so, instead of dividing by zero at the first batch
    with pytest.raises(AttemptError, match=r"config\.json"):
        T5Config.from_json(config_file(tmp_path, REQUIRED | {"vocab_size": 101} | sizes))
