"""What we are compared with: the same T5 and prompt in Hugging Face's transformers and peft."""

import dataclasses
import warnings
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.checkpoint import hugging_face_names
from model.config import T5Config

LR, WEIGHT_DECAY, CLIP = 1e-3, 1e-5, 1.0  # of both programs


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
    return model.requires_grad_(False)


class Peer:
    """A PEFT model that tunes a prompt (L,D), with the optimizer and clipping of our runs."""

    def __init__(
        self, config: T5Config, state: dict[str, Tensor], prompt: Tensor, precision: str, compiled: bool = False
    ) -> None:
        peft: Any = import_module("peft")
        self.device = prompt.device
        t5 = hugging_face_t5(config, state)
        if precision == "bf16":  # as its users have it: frozen weights in bf16, no autocast
            t5 = t5.to(torch.bfloat16)
        settings = peft.PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM", num_virtual_tokens=len(prompt), num_transformer_submodules=1
        )
        self.model = peft.get_peft_model(t5, settings).to(self.device)
        (self.prompt,) = [p for p in self.model.parameters() if p.requires_grad]
        self.prompt.data.copy_(prompt)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW([self.prompt], lr=LR, weight_decay=WEIGHT_DECAY)
        self.attention = t5.config._attn_implementation  # "sdpa" unless told otherwise

    def set_dropout(self, rate: float) -> None:
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
            elif isinstance(getattr(module, "dropout", None), float):  # T5Attention calls the function
                module.dropout = rate

    def loss(self, batch: Inputs) -> Tensor:
        self.model.train()
        loss: Tensor = self.forward(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=batch.labels).loss
        return loss

    def gradient(self) -> Tensor:
        """Of the prompt (L,D), and forget it."""
        found, self.prompt.grad = self.prompt.grad, None
        assert found is not None
        return found

    def step(self, batch: Inputs) -> None:
        torch.autograd.backward(self.loss(batch))
        torch.nn.utils.clip_grad_norm_([self.prompt], CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def generate(self, batch: Inputs, length: int) -> Tensor:
        """Greedy answers (B,T), without the start token."""
        self.model.eval()
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
        found: Tensor = self.model.generate(**inputs, max_new_tokens=length, do_sample=False, num_beams=1)
        return found[:, 1:]

    @torch.inference_mode()
    def label_scores(self, batch: Inputs, labels: Tensor) -> Tensor:
        """The log-probabilities (B,C) of labels (C,T) of one length, a pass for each."""
        self.model.eval()
        scores = []
        for label in labels:
            rows = label.repeat(len(batch.ids), 1)
            logits = self.model(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=rows).logits
            scores.append(logits.float().log_softmax(-1).gather(2, rows[..., None]).sum((1, 2)))
        return torch.stack(scores, dim=1)
