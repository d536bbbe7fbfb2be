"""What we are compared with: the same T5 and prompt in Hugging Face's transformers and peft, of any version."""

import dataclasses
import warnings
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attempt.baselines import REDUCTION
from model.checkpoint import hugging_face_names
from model.config import T5Config

LR, WEIGHT_DECAY, CLIP = 1e-3, 1e-5, 1.0  # of both programs
SAMPLE = 1 << 20  # numbers of a gradient that are compared
PEERS = {
    "hugging face": "as its users have it",
    "hugging face, compiled": "its forward under torch.compile",
    "hugging face, static": "answers with a static cache",
    "hugging face, static, compiled": "the same, encoder and decoding steps under torch.compile",
}
PEERED = ("prompt", "finetune", "adapter")  # the methods that it has


class Inputs(Protocol):
    """What a peer needs of a batch."""

    ids: Tensor  # (B,S)
    mask: Tensor  # (B,S)
    labels: Tensor  # (B,T)


def hugging_face_t5(config: T5Config, state: dict[str, Tensor]) -> Any:
    """transformers' T5ForConditionalGeneration with our weights: the very tensors where it can have them."""
    transformers: Any = import_module("transformers")
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # it warns of its own calls
    fields = {k: v for k, v in dataclasses.asdict(config).items() if v is not None}
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**fields))
        if not config.tie_word_embeddings:  # transformers 5 ties the head all the same
            model.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
            model.config.tie_word_embeddings = model.config.scale_decoder_outputs = False
    theirs = {name: state[ours] for ours, name in hugging_face_names(config).items()}
    theirs |= {f"{stack}.embed_tokens.weight": theirs["shared.weight"] for stack in ("encoder", "decoder")}
    theirs.setdefault("lm_head.weight", theirs["shared.weight"])
    model.load_state_dict(theirs, assign=True)
    model.encoder.embed_tokens = model.decoder.embed_tokens = model.shared  # one parameter, should it be trained
    if config.tie_word_embeddings:
        model.lm_head.weight = model.shared.weight
    return model.requires_grad_(False)


class Adapter(nn.Sequential):
    """x + W_up gelu(W_down x + b_down) + b_up, behind a matrix of transformers' T5; first values as ours."""

    def __init__(self, width: int, draw: torch.Generator) -> None:
        bottleneck = max(1, width // REDUCTION)
        down, up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        for linear in (down, up):
            nn.init.normal_(linear.weight, std=0.01, generator=draw)
            nn.init.zeros_(linear.bias)
        super().__init__(down, nn.GELU(approximate="tanh"), up)

    def behind(self, matrix: nn.Module, args: Any, x: Tensor) -> Tensor:
        """A forward hook: what it returns stands in place of the matrix's result."""
        y: Tensor = x + self(x)
        return y


def insert_adapters(t5: Any) -> dict[str, nn.Parameter]:
    """Houlsby et al.'s adapters, which peft has not, and the norms: what is trained, under our names."""
    t5.adapters, trained, draw = nn.ModuleList(), dict[str, nn.Parameter](), torch.Generator().manual_seed(0)
    for stack in ("encoder", "decoder"):
        for i, block in enumerate(getattr(t5, stack).block):
            attention, feed_forward = block.layer[0].SelfAttention.o, block.layer[-1].DenseReluDense.wo
            for place, matrix in (("attention_adapter", attention), ("feed_forward_adapter", feed_forward)):
                adapter = Adapter(t5.config.d_model, draw).to(matrix.weight.device)
                matrix.register_forward_hook(adapter.behind)
                t5.adapters.append(adapter)
                for name, parameter in adapter.named_parameters():
                    part, _, kind = name.partition(".")
                    trained[f"{stack}.blocks.{i}.{place}.{'down' if part == '0' else 'up'}.{kind}"] = parameter
    return trained


class Peer:
    """A T5 of transformers with what a method trains, under our names, and the optimizer and clipping of our runs.

    prompt: peft's prompt tuning of (L,D); finetune: all weights; adapter: see insert_adapters. In bf16 what is frozen
    is kept in it, without autocast; where weights are trained they are fp32, under autocast, as Trainer has them.
    """

    def __init__(
        self,
        config: T5Config,
        state: dict[str, Tensor],
        prompt: Tensor,
        precision: str,
        name: str = "hugging face",
        method: str = "prompt",
    ) -> None:
        self.device, self.name = prompt.device, name
        if method != "prompt":  # a step changes them
            state = {key: weight.clone() for key, weight in state.items()}
        t5 = hugging_face_t5(config, state)
        names = hugging_face_names(config)
        self.trained: dict[str, nn.Parameter] = {}
        if method == "adapter":
            self.trained = insert_adapters(t5)
        if method in ("finetune", "adapter"):
            named = dict(t5.named_parameters(remove_duplicate=False))
            norms = {ours for ours in names if ours.endswith("norm.weight")}
            self.trained |= {ours: named[names[ours]] for ours in (names if method == "finetune" else norms)}
            self.model = t5.to(self.device)
        else:
            self.model = self._with_prompt(t5.to(torch.bfloat16) if precision == "bf16" else t5, prompt)
        for weight in self.trained.values():
            weight.requires_grad_(True)
        mixed = method != "prompt" and precision == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)
        self.forward = torch.compile(self.model) if name == "hugging face, compiled" else self.model
        self.settings: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        if "static" in name:
            self.settings |= {"cache_implementation": "static", "disable_compile": "compiled" not in name}
        if name == "hugging face, static, compiled":
            t5.encoder.compile()  # generate() compiles the decoder's steps alone, by itself
        self.optimizer = torch.optim.AdamW(
            list(self.trained.values()), lr=LR, weight_decay=WEIGHT_DECAY, fused=self.device.type == "cuda"
        )
        self.attention = t5.config._attn_implementation  # "sdpa" unless told otherwise

    def _with_prompt(self, t5: Any, prompt: Tensor) -> Any:
        peft: Any = import_module("peft")
        settings = peft.PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM", num_virtual_tokens=len(prompt), num_transformer_submodules=1
        )
        model = peft.get_peft_model(t5, settings).to(self.device)
        (parameter,) = [p for p in model.parameters() if p.requires_grad]
        parameter.data.copy_(prompt)
        self.trained["target"] = parameter
        return model

    @property
    def prompt(self) -> nn.Parameter:
        return self.trained["target"]

    def set_dropout(self, rate: float) -> None:
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
            elif isinstance(getattr(module, "dropout", None), float):  # T5Attention calls the function
                module.dropout = rate

    def loss(self, batch: Inputs) -> Tensor:
        self.model.train()
        with self.autocast:
            mask = batch.mask.long()
            loss: Tensor = self.forward(input_ids=batch.ids, attention_mask=mask, labels=batch.labels).loss
        return loss

    def gradient(self) -> Tensor:
        """Of what is trained, a sample of it, and forget it."""
        return taken(self.trained)

    def step(self, batch: Inputs) -> None:
        torch.autograd.backward(self.loss(batch))
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def generate(self, batch: Inputs, length: int) -> Tensor:
        """Greedy answers (B,T), without the start token."""
        self.model.eval()
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
        with self.autocast:
            found: Tensor = self.model.generate(**inputs, max_new_tokens=length, **self.settings)
        return found[:, 1:]

    @torch.inference_mode()
    def label_scores(self, batch: Inputs, labels: Tensor) -> Tensor:
        """The log-probabilities (B,C) of labels (C,T) of one length, a pass for each."""
        self.model.eval()
        scores = []
        for label in labels:
            rows = label.repeat(len(batch.ids), 1)
            with self.autocast:
                logits = self.model(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=rows).logits
            scores.append(logits.float().log_softmax(-1).gather(2, rows[..., None]).sum((1, 2)))
        return torch.stack(scores, dim=1)


def sample(tensors: dict[str, Tensor]) -> Tensor:
    """Every n-th number of these, in the order of their names: all of a prompt's, a million of a whole T5's."""
    every = max(1, sum(tensor.numel() for tensor in tensors.values()) // SAMPLE)
    return torch.cat([tensors[name].detach().float().flatten()[::every] for name in sorted(tensors)])


def taken(trained: dict[str, nn.Parameter]) -> Tensor:
    """The gradients, a sample of them; none is left."""
    gradients = {}
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        gradients[name], parameter.grad = parameter.grad, None
    return sample(gradients)
