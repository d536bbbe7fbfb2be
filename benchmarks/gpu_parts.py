"""What benchmarks/gpu.sh runs: its parts, in the order of their importance, with what each may take."""

from dataclasses import dataclass
from typing import Any

from benchmarks.machine import REPOSITORY
from benchmarks.ours import METHODS

KEPT = 45  # seconds that are kept for the last part
HF, COMPILED = "hugging face", "hugging face, compiled"
STATIC, STATIC_COMPILED = "hugging face, static", "hugging face, static, compiled"
PLAIN, EAGER, DEFAULT, COMPILE = "ours, plain", "ours, eager", "ours, all", "ours, compiled"


@dataclass(frozen=True)
class Part:
    """A program, without python -m."""

    name: str
    words: list[str]
    limit: float
    """In seconds."""
    title: str = ""
    """Of its table."""
    correctness: bool = False
    side: str = ""
    """It runs beside its neighbours of the same: nothing in them is timed, or only roughly."""
    last: bool = False
    writes: bool = True
    """It takes --out FILE."""

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "correctness": self.correctness, "words": self.words}


def check(name: str, words: list[str], limit: float, writes: bool = True) -> Part:
    return Part(name, words, limit, correctness=True, side="checks", writes=writes)


def plan(device: str, tiny: bool) -> list[Part]:
    return tiny_plan(device) if tiny else full_plan(device)


def tiny_plan(device: str) -> list[Part]:
    """A part of each kind, with few programs."""
    place, limit = ["--device", device], 900.0  # on any machine, whatever else it does
    shape = ["--model", "tiny", "--batch-size", "3", "--text-tokens", "9", "--prompt-length", "5"]
    rounds = ["--rounds", "2", "--product", "64", "--ragged", "--dropout", "0.1", "--unchecked", "--keep-going", *place]
    forms = ["--model", "tiny", "--methods", "prompt", "--precisions", "fp32", "bf16", "--programs", HF, DEFAULT]
    disturbed = ["--kinds", "prompt", "--ways", "killed", "--steps", "9"]
    return [
        check("forms", ["benchmarks.forms", *forms, *place], limit),
        check("resumes", ["benchmarks.resumes", *disturbed, *place], limit),
        Part("step", ["benchmarks.step", *shape, *rounds, "--programs", HF, DEFAULT], limit, "tiny"),
        Part("answers", ["benchmarks.evaluate", *shape, *rounds, "--programs", DEFAULT], limit, "answers, tiny"),
        Part(
            "kernels", ["benchmarks.kernels", *shape, "--programs", DEFAULT, *place], limit, correctness=True, last=True
        ),
    ]


def full_plan(device: str) -> list[Part]:
    """The whole of it, for bf16, a prompt of 100 and dropout 0.1."""
    place = ["--device", device]

    def forms(method: str, model: str = "short") -> Part:
        words = ["--model", model, "--methods", method, "--precisions", "fp32", "bf16", "fp16", *place]
        return check(f"forms-{method}{model.removeprefix('short')}", ["benchmarks.forms", *words], 170)

    def measured(name: str, what: str, programs: list[str], limit: float, methods: str = "prompt") -> Part:
        program, model, batch, tokens = what.split()
        words = [f"benchmarks.{program}", "--model", model, "--batch-size", batch, "--text-tokens", tokens]
        words += ["--precision", "bf16", "--dropout", "0.1", "--unchecked", "--keep-going", *place]
        words += ["--methods", *methods.split(), "--programs", *programs]
        title = f"{model}, batch {batch}, n = {tokens}"
        if name.startswith("first"):
            more = ["--rounds", "1", "--warmup", "1", "--first-limit", str(limit - 20)]
            return Part(name, [*words, *more], limit, title, side="first")
        return Part(name, [*words, "--rounds", "10", "--warmup", "3", "--first-limit", str(limit - 25)], limit, title)

    some = [HF, EAGER, DEFAULT, COMPILE]
    every = [HF, COMPILED, PLAIN, EAGER, DEFAULT, COMPILE]
    answering = [HF, STATIC, STATIC_COMPILED, EAGER, DEFAULT]
    kernels = ["benchmarks.kernels", "--model", "t5-base", "--precision", "bf16", *place]
    return [
        *(forms(method) for method in METHODS),
        forms("prompt", "short-v1_1"),
        check("resumes", ["benchmarks.resumes", "--steps", "300", *place], 150),
        check("tests", ["pytest", "-q", "-n", "6", "-m", "gpu", *gpu_tests()], 170, writes=False),
        # A compiler keeps its files: it is as slow as here only once. The cases below find them.
        measured("first-32", "step t5-base 32 40", [COMPILED, COMPILE, DEFAULT], 160),
        measured("first-128", "step t5-base 128 40", [COMPILED, COMPILE, DEFAULT], 160),
        measured("first-answers", "evaluate t5-base 128 40", [STATIC_COMPILED, DEFAULT], 160),
        measured("base-32", "step t5-base 32 40", every, 80),
        measured("answers", "evaluate t5-base 128 40", answering, 80, "prompt tasks"),
        measured("base-128", "step t5-base 128 40", every, 80),
        measured("methods", "step t5-base 32 40", [HF, DEFAULT, COMPILE], 60, "prompt attempt tasks"),
        measured("large-128", "step t5-large 128 40", some, 70),
        measured("base-256", "step t5-base 32 256", some, 60),
        measured("small-32", "step t5-small 32 40", some, 50),
        measured("weights", "step t5-base 32 40", some, 70, "finetune adapter"),
        measured("3b-32", "step t5-3b 32 40", [HF, DEFAULT], 60),
        Part("kernels", kernels, 90, correctness=True, last=True),
    ]


def gpu_tests() -> list[str]:
    """The files with tests that want a GPU."""
    files = (REPOSITORY / "tests").glob("test_*.py")
    return sorted(str(path.relative_to(REPOSITORY)) for path in files if "mark.gpu" in path.read_text(encoding="utf-8"))
