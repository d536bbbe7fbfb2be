"""What benchmarks/gpu.sh runs: its parts, in the order of their importance, with what each may take."""

from dataclasses import dataclass
from typing import Any

from benchmarks.machine import REPOSITORY

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
    together: bool = False
    """It runs beside the others that may: nothing in it is timed, or only roughly."""
    last: bool = False
    writes: bool = True
    """It takes --out FILE."""

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "correctness": self.correctness, "words": self.words}


def check(name: str, words: list[str], limit: float, writes: bool = True) -> Part:
    return Part(name, words, limit, correctness=True, together=True, writes=writes)


def plan(device: str, tiny: bool) -> list[Part]:
    return tiny_plan(device) if tiny else full_plan(device)


def tiny_plan(device: str) -> list[Part]:
    """A part of each kind, with few programs."""
    place = ["--device", device]
    shape = ["--model", "tiny", "--batch-size", "3", "--text-tokens", "9", "--prompt-length", "5"]
    rounds = ["--rounds", "2", "--product", "64", "--ragged", "--dropout", "0.1", "--unchecked", "--keep-going", *place]
    forms = ["--model", "tiny", "--methods", "prompt", "--precisions", "fp32", "bf16", "--programs", HF, DEFAULT]
    disturbed = ["--kinds", "prompt", "--ways", "killed", "--steps", "9"]
    return [
        check("forms", ["benchmarks.forms", *forms, *place], 100),
        check("resumes", ["benchmarks.resumes", *disturbed, *place], 100),
        Part("step", ["benchmarks.step", *shape, *rounds, "--programs", HF, DEFAULT], 60, "tiny"),
        Part("answers", ["benchmarks.evaluate", *shape, *rounds, "--programs", DEFAULT], 60, "answers, tiny"),
        Part("kernels", ["benchmarks.kernels", *shape, "--programs", DEFAULT, *place], 60, correctness=True, last=True),
    ]


def full_plan(device: str) -> list[Part]:
    """The whole of it, for bf16, a prompt of 100 and dropout 0.1."""
    place = ["--device", device]
    forms = ["--model", "t5-small", "--precisions", "fp32", "bf16", "fp16", *place]
    checks = [
        check("forms", ["benchmarks.forms", *forms], 180),
        check("resumes", ["benchmarks.resumes", "--steps", "300", *place], 150),
        check("tests", ["pytest", "-q", "-m", "gpu", *gpu_tests()], 180, writes=False),
    ]

    def measured(name: str, what: str, programs: list[str], limit: float, methods: str = "prompt") -> Part:
        program, model, batch, tokens = what.split()
        words = [f"benchmarks.{program}", "--model", model, "--batch-size", batch, "--text-tokens", tokens]
        words += ["--precision", "bf16", "--dropout", "0.1", "--unchecked", "--keep-going", *place]
        words += ["--methods", *methods.split(), "--programs", *programs]
        title = f"{model}, batch {batch}, n = {tokens}"
        if name.startswith("first"):  # a compiler's own files are kept, so that it is as slow as this but once
            return Part(name, [*words, "--rounds", "1", "--warmup", "1"], limit, title, together=True)
        return Part(name, [*words, "--rounds", "10", "--warmup", "3"], limit, title)

    some = [HF, EAGER, DEFAULT, COMPILE]
    every = [HF, COMPILED, PLAIN, EAGER, DEFAULT, COMPILE]
    return [
        *checks,
        measured("first-32", "step t5-base 32 40", [COMPILED, COMPILE, DEFAULT], 180),
        measured("first-128", "step t5-base 128 40", [COMPILED, COMPILE, DEFAULT], 180),
        measured("first-answers", "evaluate t5-base 128 40", [STATIC_COMPILED, DEFAULT], 180),
        measured("base-32", "step t5-base 32 40", every, 80),
        measured("answers", "evaluate t5-base 128 40", [HF, STATIC, STATIC_COMPILED, EAGER, DEFAULT], 70),
        measured("base-128", "step t5-base 128 40", every, 80),
        measured("methods", "step t5-base 32 40", [HF, DEFAULT, COMPILE], 60, "prompt attempt tasks"),
        measured("large-128", "step t5-large 128 40", some, 70),
        measured("base-256", "step t5-base 32 256", some, 50),
        measured("small-32", "step t5-small 32 40", some, 45),
        measured("weights", "step t5-base 32 40", some, 70, "finetune adapter"),
        measured("3b-32", "step t5-3b 32 40", [HF, DEFAULT], 60),
        Part(
            "kernels",
            ["benchmarks.kernels", "--model", "t5-base", "--precision", "bf16", *place],
            90,
            "",
            True,
            last=True,
        ),
    ]


def gpu_tests() -> list[str]:
    """The files with tests that want a GPU."""
    files = (REPOSITORY / "tests").glob("test_*.py")
    return sorted(str(path.relative_to(REPOSITORY)) for path in files if "mark.gpu" in path.read_text(encoding="utf-8"))
