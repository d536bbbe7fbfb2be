"""Soft prompts and their attentional mixture (ATTEMPT, Asai et al., EMNLP 2022).

    runner = attempt.load("runs/mine")                    # a finished run
    runner.answer(["a text", "another"], task="mine")     # N answers: labels or texts
    runner.weights(["a text", "another"])                 # the mixture: its P names, and (N,P) weights

T5, SoftPrompt (the prompts and their sources) and PromptAttention (G) are the parts that compute this.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attempt.answering.runner import Answer, Runner, Weights, load
    from attempt.attention import PromptAttention
    from attempt.prompt import SoftPrompt
    from model.errors import AttemptError
    from model.t5 import T5

__version__ = "0.1.0"
__all__ = ["T5", "Answer", "AttemptError", "PromptAttention", "Runner", "SoftPrompt", "Weights", "load"]
PLACES = {
    **dict.fromkeys(("Answer", "Runner", "Weights", "load"), "attempt.answering.runner"),
    "AttemptError": "model.errors",
    "PromptAttention": "attempt.attention",
    "SoftPrompt": "attempt.prompt",
    "T5": "model.t5",
}


def __dir__() -> list[str]:
    return [*globals(), *__all__]


if not TYPE_CHECKING:  # a checker of types knows the names above, and no others

    def __getattr__(name: str) -> Any:
        """The front door's parts, each imported when it is first asked for: a part does not wait for all."""
        if name not in PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(PLACES[name]), name)
        except ModuleNotFoundError as e:
            package = str(e.name).partition(".")[0]
            if package not in ("data", "model"):
                raise
            found = getattr(sys.modules.get(package), "__file__", None) or "none"
            raise ImportError(
                f"expected attempt's own package {package}, found {found} in its place; rename that, or start Python "
                "in another folder"
            ) from e
