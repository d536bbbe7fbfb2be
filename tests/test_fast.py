"""The faster forms against the plain ones: the same logits, gradients and answers, in every combination."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from hugging_face import CONFIGS, oracle, random_batch, save, spread, state_of
from torch import Tensor, nn

from attempt.attention import PromptAttention
from attempt.baselines import METHODS, TunedWeights
from attempt.prompt import SoftPrompt
from model import t5 as plain_file
from model.checkpoint import load_t5
from model.decoding import generate, label_scores
from model.fast import (
    PLAIN,
    AbsorbedAttention,
    Forms,
    FusedAttention,
    QuickDropout,
    SequenceDropout,
    UnitScale,
    kept,
    quicken,
    relu_dropout,
)
from model.t5 import IGNORED, T5

NAMES = ("kernel", "absorb", "fuse", "dropout")
COMBINATIONS = [Forms(*flags) for flags in itertools.product((False, True), repeat=len(NAMES))]


def new_t5(name: str, folder: Path) -> T5:
    """A T5 with weights of a real one's spread, norms included."""
    fields = CONFIGS[name]
    theirs = oracle(fields)
    spread(theirs, seed=3)
    return load_t5(save(folder, fields, state_of(theirs, fields.get("tie_word_embeddings", True)))).requires_grad_(
        False
    )


@pytest.fixture(scope="module", params=CONFIGS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> T5:
    return new_t5(request.param, tmp_path_factory.mktemp("t5"))


def new_prompt(t5: T5, mixture: bool, seed: int = 5) -> SoftPrompt:
    generator = torch.Generator().manual_seed(seed)
    D = t5.config.d_model
    prompts = 2 * torch.randn(5, 6, D, generator=generator)
    if not mixture:
        return SoftPrompt(prompts[:2])
    return SoftPrompt(prompts[:2], prompts[2:], PromptAttention(D, 4).reset(generator))


def batch(t5: T5, targets: tuple[int, ...] = (2, 1, 3)) -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = random_batch((7, 3, 12), t5.config.vocab_size, seed=0)
    labels, given = random_batch(targets, t5.config.vocab_size, seed=1)
    return ids, mask, labels.masked_fill(~given, IGNORED)


def outcome(t5: T5, prompt: SoftPrompt, targets: tuple[int, ...] = (2, 1, 3)) -> tuple[Tensor, list[Tensor]]:
    """The logits, and the gradients of all that is trained."""
    tasks = torch.tensor([1, 0, 1])
    ids, mask, labels = batch(t5, targets)
    logits = t5(ids, mask, labels, prompt, tasks)
    loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    return logits.detach(), list(torch.autograd.grad(loss, list(prompt.parameters())))


def differ(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("forms", COMBINATIONS, ids=lambda f: "+".join(n for n in NAMES if getattr(f, n)) or "plain")
@pytest.mark.parametrize("mixture", [False, True], ids=["prompt", "mixture"])
def test_logits_and_gradients_are_the_plain_ones(
    plain: T5, forms: Forms, mixture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_file, "LONG", 0)  # the kernel on short texts too
    prompt = new_prompt(plain, mixture)
    expected = outcome(plain, prompt)
    found = outcome(quicken(copy.deepcopy(plain), forms), prompt)
    assert differ(found[0], expected[0]) < 1e-5
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert differ(ours, theirs) < 1e-5


def test_forms_are_put_in_place(plain: T5) -> None:
    fast = quicken(copy.deepcopy(plain), Forms())
    kinds = [type(module) for module in fast.modules()]
    layers, decoder_layers = plain.config.num_layers, plain.config.decoder_layers
    assert kinds.count(FusedAttention) == layers + decoder_layers
    assert kinds.count(AbsorbedAttention) == decoder_layers
    assert nn.Dropout not in kinds and QuickDropout in kinds
    untouched = quicken(copy.deepcopy(plain), PLAIN)
    assert [type(m) for m in untouched.modules()] == [type(m) for m in plain.modules()]


def test_training_and_evaluation_reach_every_part(plain: T5) -> None:
    """A part that is not a child of its module would keep dropping in evaluation."""
    fast = quicken(copy.deepcopy(plain), Forms())
    fast.set_dropout(0.5)
    prompt = new_prompt(plain, mixture=False)
    fast.train()
    assert differ(outcome(fast, prompt)[0], outcome(plain, prompt)[0]) > 0.01
    fast.eval()
    assert differ(outcome(fast, prompt)[0], outcome(plain, prompt)[0]) < 1e-5


def test_long_targets_take_keys_and_values(plain: T5, monkeypatch: pytest.MonkeyPatch) -> None:
    long = plain.config.d_kv // 2 + 1
    targets = (long, 2, 1)
    prompt = new_prompt(plain, mixture=False)
    expected = outcome(plain, prompt, targets)
    seen = []
    whole = plain_file.Attention.forward
    monkeypatch.setattr(plain_file.Attention, "forward", lambda *a, **k: seen.append(1) or whole(*a, **k))
    found = outcome(quicken(copy.deepcopy(plain), Forms()), prompt, targets)
    assert len(seen) == plain.config.decoder_layers
    assert differ(found[0], expected[0]) < 1e-5 and differ(found[1][0], expected[1][0]) < 1e-5


def test_answers_are_the_plain_ones(plain: T5) -> None:
    ids, mask, _ = batch(plain)
    prompt, tasks = new_prompt(plain, mixture=True), torch.tensor([1, 0, 1])
    expected = generate(plain, ids, mask, 12, prompt, tasks)
    for forms in COMBINATIONS:
        assert torch.equal(generate(quicken(copy.deepcopy(plain), forms), ids, mask, 12, prompt, tasks), expected)


@pytest.mark.parametrize("method", METHODS)
def test_trained_weights_keep_their_names_and_gradients(plain: T5, method: str) -> None:
    results = []
    for forms in (PLAIN, Forms()):
        t5 = copy.deepcopy(plain)
        trained = TunedWeights(t5, method)
        quicken(t5, forms, torch.bfloat16)
        ids, mask, labels = batch(t5)
        loss = t5.loss(ids, mask, labels)
        results.append((list(trained.weights), torch.autograd.grad(loss, list(trained.weights.values()))))
        assert all(dict(t5.named_parameters())[name] is weight for name, weight in trained.weights.items())
    (names, expected), (same, found) = results
    assert names == same
    for name, ours, theirs in zip(names, found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.abs().max().item()), name


def test_blocks_computed_again_give_the_same_gradients(plain: T5) -> None:
    prompt = new_prompt(plain, mixture=True)
    for forms in (PLAIN, Forms()):
        t5 = quicken(copy.deepcopy(plain), forms).train()
        t5.set_dropout(0.3)
        torch.manual_seed(0)
        expected = outcome(t5, prompt)
        t5.encoder.recompute = True
        torch.manual_seed(0)  # the draws of dropout are repeated, not drawn anew
        found = outcome(t5, prompt)
        assert torch.equal(found[0], expected[0])
        for ours, theirs in zip(found[1], expected[1], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale_of_what_is_kept(p: float) -> None:
    torch.manual_seed(0)
    mask = kept(torch.empty(1000, 1003), p)  # an odd number of elements: the last draw is used in part
    values = mask.unique().tolist()
    assert values == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    n = mask.numel()
    assert abs((mask == 0).double().mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5
    # the four numbers of a draw, and neighbouring draws, are independent
    flat = (mask.flatten() == 0).double() - p
    for shift in (1, 2, 3, 4, 8):
        assert abs((flat[shift:] * flat[:-shift]).mean().item()) < 5 * p * (1 - p) / n**0.5
    for lane in range(4):
        assert abs(flat[lane::4].mean().item()) < 5 * (p * (1 - p) * 4 / n) ** 0.5


def test_nearly_all_can_be_dropped() -> None:
    torch.manual_seed(0)
    p = 0.999995  # nearer to 1 than to 65535/65536
    assert kept(torch.empty(1000, 1000), p).unique().tolist() == [0, 2**16]
    h = torch.ones(1000, 1000, requires_grad=True)
    y = relu_dropout(h * 1, p)
    (gradient,) = torch.autograd.grad(y.sum(), h)
    assert torch.equal(gradient, y)


def test_dropout_follows_the_seed_and_scales_the_gradient() -> None:
    layer, x = QuickDropout(0.25), torch.randn(8, 31, requires_grad=True)
    torch.manual_seed(1)
    y = layer(x)
    torch.manual_seed(1)
    assert torch.equal(y, layer(x))
    assert not torch.equal(y, layer(x))
    y.sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.where(y == 0, 0, 1 / 0.75), rtol=1e-4)
    assert torch.equal(layer.eval()(x), x)


def test_dropout_of_relu_is_that_of_its_parts() -> None:
    h = torch.randn(40, 50, dtype=torch.float64, requires_grad=True)
    for p in (0.0, 0.4):
        torch.manual_seed(2)
        y = relu_dropout(h * 1, p)
        torch.manual_seed(2)
        expected = torch.relu(h) * (kept(h, p) if p else 1)
        assert torch.equal(y, expected)
        weights = torch.randn(y.shape, dtype=y.dtype)
        (ours,) = torch.autograd.grad((y * weights).sum(), h)
        (theirs,) = torch.autograd.grad((expected * weights).sum(), h)
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_norm_and_its_gradient_are_pytorchs(size: float) -> None:
    x = (size * torch.randn(3, 5, 32, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(x.shape, dtype=x.dtype)
    expected = torch.nn.functional.rms_norm(x, (32,), None, 1e-6)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    for dtype, error in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        low = x.detach().to(dtype).requires_grad_()
        y = UnitScale.apply(low, 1e-6)  # type: ignore[no-untyped-call]
        (found,) = torch.autograd.grad((y * weights.to(dtype)).sum(), low)
        assert y.dtype == found.dtype == dtype
        for ours, theirs in ((y, expected), (found, gradient)):
            assert (ours.double() - theirs).norm() <= error * theirs.norm()


def test_a_draw_for_a_sequence_is_the_same_at_all_its_positions() -> None:
    torch.manual_seed(0)
    y = SequenceDropout(0.5)(torch.ones(3, 7, 200))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert not torch.equal(y[0], y[1])
    assert 0.35 < (y[:, 0] == 0).float().mean() < 0.65 and set(y.unique().tolist()) == {0, 2}
    weights = SequenceDropout(0.5)(torch.ones(2, 4, 5, 50))  # (B,H,T,S): a key is dropped for all queries
    assert torch.equal(weights, weights[:, :, :1].expand_as(weights))
    assert torch.equal(SequenceDropout(0.5).eval()(torch.ones(1, 2, 3)), torch.ones(1, 2, 3))


@pytest.mark.parametrize("least", [0, 256], ids=["kernel", "products"])
def test_bf16_errs_at_most_twice_as_much_as_the_plain_form(
    plain: T5, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against fp32, of the logits and the prompts' gradients, over several prompts: single errors scatter."""
    monkeypatch.setattr(plain_file, "LONG", least)
    fast = quicken(copy.deepcopy(plain), Forms(), torch.bfloat16)
    squares = torch.zeros(2, 2)
    for seed in range(5):
        prompt = new_prompt(plain, mixture=True, seed=seed)
        exact = outcome(plain, prompt)
        for i, t5 in enumerate((plain, fast)):
            with torch.autocast("cpu", torch.bfloat16):
                logits, gradients = outcome(t5, prompt)
            for j, (found, true) in enumerate(((logits.float(), exact[0]), (gradients[0], exact[1][0]))):
                squares[i, j] += (found - true).square().mean() / true.square().mean()
    errors = squares.sqrt()
    print(errors)
    assert (errors[1] > 0).all() and (errors[1] <= 2 * errors[0]).all()


def test_no_matrix_is_cast_at_use(plain: T5) -> None:
    """Autocast casts an fp32 matrix each time: none is left, and the encoder's states are cast once."""
    t5 = quicken(copy.deepcopy(plain), Forms(), torch.bfloat16)
    assert {m.weight.dtype for m in t5.modules() if isinstance(m, nn.Linear)} == {torch.bfloat16}
    assert t5.embedding.weight.dtype == t5.decoder.norm.weight.dtype == torch.float32
    ids, mask, _ = batch(t5)
    with torch.autocast("cpu", torch.bfloat16):
        memory, _ = t5.encoder(t5.embedding(ids), mask, new_prompt(t5, mixture=True))
    assert memory.dtype == torch.bfloat16


def test_fp16_does_not_overflow_where_the_plain_form_does(plain: T5) -> None:
    """The results of wo may be beyond fp16's largest number while the sum of the layers is wanted in fp32."""
    large = copy.deepcopy(plain)
    for block in large.encoder.blocks:
        block.feed_forward.wo.weight.mul_(3e4)
    prompt = new_prompt(plain, mixture=False)
    exact = outcome(large, prompt)
    with torch.autocast("cpu", torch.float16):
        assert not outcome(large, prompt)[0].isfinite().all()
        found = outcome(quicken(copy.deepcopy(large), Forms(), torch.float16), prompt)
    assert differ(found[0].float(), exact[0]) < 0.02
    assert differ(found[1][0], exact[1][0]) < 0.1


@pytest.mark.long
def test_the_compiler_takes_a_block_whole_and_once_for_its_stack(tmp_path: Path) -> None:
    """With fullgraph=True a part that it cannot follow would be an error. One model: it takes long."""
    plain = new_t5("v1.1", tmp_path)
    prompt, tasks = new_prompt(plain, mixture=True), torch.tensor([1, 0, 1])
    ids, mask, _ = batch(plain)
    expected, answers = outcome(plain, prompt), generate(plain, ids, mask, 4, prompt, tasks)
    t5 = quicken(copy.deepcopy(plain), Forms(dropout=False))
    for block in (*t5.encoder.blocks, *t5.decoder.blocks):
        block.compile(dynamic=True, fullgraph=True, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    found = outcome(t5, prompt)
    assert differ(found[0], expected[0]) < 1e-5
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert differ(ours, theirs) < 1e-5
    assert torch.equal(generate(t5, ids, mask, 4, prompt, tasks), answers)


def test_a_batch_without_padding_shares_one_bias(plain: T5, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_batch((9, 9, 9), plain.config.vocab_size, seed=4)[0]
    prompt, mask = new_prompt(plain, mixture=False), torch.ones(3, 9, dtype=torch.bool)
    seen = []
    attend = plain_file.Attention.attend
    monkeypatch.setattr(
        plain_file.Attention,
        "attend",
        lambda self, q, k, v, bias: seen.append(len(bias)) or attend(self, q, k, v, bias),
    )
    shared = plain.encoder(plain.embedding(ids), None, prompt)[0]
    assert set(seen) == {1}
    padded = plain.encoder(
        plain.embedding(torch.nn.functional.pad(ids, (0, 2))), torch.nn.functional.pad(mask, (0, 2)), prompt
    )[0]
    assert 3 in seen
    assert differ(shared, padded[:, :-2]) < 1e-5


@pytest.mark.parametrize("trained", ["prompt", "mixture", "bitfit"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_fused_kernels_can_read_every_mask(
    plain: T5, trained: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ask for rows that are contiguous and begin at a multiple of 16 numbers; for others PyTorch computes in its
    plain form, without a word. Training and answering, padded and not, encoder and decoder."""
    monkeypatch.setattr(plain_file, "LONG", 0)  # the kernel on a CPU too
    fused, masks = nn.functional.scaled_dot_product_attention, []

    def looked_at(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *rest: object, **more: object) -> Tensor:
        if bias is not None:
            masks.append(bias)
            assert bias.dtype == q.dtype and bias.stride(-1) == 1
            places = [stride for stride, size in zip(bias.stride(), bias.shape, strict=True) if size > 1][:-1]
            assert all(place % 16 == 0 for place in places) and bias.data_ptr() % 16 == 0
            assert bias.untyped_storage().nbytes() % (16 * bias.itemsize) == 0  # the last row, too, has all its room
        return fused(q, k, v, bias, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(plain_file.F, "scaled_dot_product_attention", looked_at)
    t5 = copy.deepcopy(plain)
    if trained == "bitfit":
        TunedWeights(t5, "bitfit")
    t5 = quicken(t5.train(), Forms(), precision)
    t5.set_dropout(0.0)  # with which a CPU has a kernel
    prompt = None if trained == "bitfit" else new_prompt(t5, trained == "mixture")
    ids, mask, labels = batch(t5, (2, 1, 3))
    for given in (mask, None):
        for targets in (labels, torch.nn.functional.pad(labels.clamp(min=1), (0, 40), value=7)):  # few, and many
            masks.clear()
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                t5.loss(ids, given, targets, prompt, torch.tensor([1, 0, 1])).backward()
                encoders = [m for m in masks if m.size(-1) == m.size(-2) == ids.size(1) + 6 * (prompt is not None)]
                assert len(encoders) == t5.config.num_layers
                assert {len(m) for m in encoders} == {1 if given is None else 3}  # (1,H,N,N) where nothing is padded
                assert len(masks) >= t5.config.num_layers + t5.config.decoder_layers
                generate(t5.eval(), ids, given, 19, prompt, torch.tensor([1, 0, 1]))
                label_scores(t5, ids, given, labels, prompt, torch.tensor([1, 0, 1]))
            t5.train()
