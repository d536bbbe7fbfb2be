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
    after_first: float = 0.0
    """Seconds of its time that are left when its programs must have their first samples; 0: it does not ask."""
    writes: bool = True
    """It takes --out FILE."""

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "correctness": self.correctness, "words": self.words}


def check(name: str, words: list[str], limit: float, side: str = "checks", writes: bool = True) -> Part:
    return Part(name, words, limit, correctness=True, side=side, writes=writes)


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
    """The whole of it, for bf16, a prompt of 100 and dropout 0.1.

    What needs no compiler comes first. A compiler keeps its files, so that the compiled cases find those of the
    first-... parts.
    """
    return [*checks(device), *tables(device), *compilers(device), kernels(device)]


def checks(device: str) -> list[Part]:
    """On an H200 some 100 s, side by side."""
    place = ["--device", device]
    parts = [*(forms(method, device) for method in METHODS), forms("prompt", device, "short-v1_1")]
    return [*parts, check("resumes", ["benchmarks.resumes", "--steps", "300", *place], 150)]


def forms(method: str, device: str, model: str = "short", compiled: bool = False) -> Part:
    """All forms of a method took 150 s and more side by side, the compiled one most of it: it is a part of its own."""
    name = f"{method}{model.removeprefix('short')}"
    words = ["benchmarks.forms", "--model", model, "--methods", method, "--device", device]
    if compiled:
        words += ["--precisions", "bf16", "--programs", COMPILE]
        return check(f"forms-compiled-{name}", words, 240, "compilers")
    words += ["--precisions", "fp32", "bf16", "fp16", "--programs", HF, EAGER, DEFAULT]
    return check(f"forms-{name}", words, 150)


def tables(device: str) -> list[Part]:
    every, some, answering = [HF, PLAIN, EAGER, DEFAULT], [HF, EAGER, DEFAULT], [HF, STATIC, EAGER, DEFAULT]
    return [
        measured("base-32", "step t5-base 32 40", every, device),
        measured("answers", "evaluate t5-base 128 40", answering, device, "prompt tasks"),
        measured("base-128", "step t5-base 128 40", every, device),
        measured("methods", "step t5-base 32 40", [HF, DEFAULT], device, "prompt attempt tasks"),
        measured("large-128", "step t5-large 128 40", some, device),
        measured("base-256", "step t5-base 32 256", some, device),
        measured("small-32", "step t5-small 32 40", some, device),
        measured("weights", "step t5-base 32 40", some, device, "finetune adapter"),
        measured("3b-32", "step t5-3b 32 40", [HF, DEFAULT], device),
    ]


def measured(name: str, what: str, programs: list[str], device: str, methods: str = "prompt") -> Part:
    program, model, batch, tokens = what.split()
    words = [f"benchmarks.{program}", "--model", model, "--batch-size", batch, "--text-tokens", tokens]
    words += ["--precision", "bf16", "--dropout", "0.1", "--unchecked", "--keep-going", "--device", device]
    words += ["--methods", *methods.split(), "--programs", *programs]
    title = f"{model}, batch {batch}, n = {tokens}"
    if name.startswith("first"):
        return Part(name, [*words, "--rounds", "1", "--warmup", "1"], 240, title, side="first", after_first=20)
    return Part(name, [*words, "--rounds", "10", "--warmup", "3"], 80, title, after_first=25)


def compilers(device: str) -> list[Part]:
    """Each of them takes one to three minutes."""
    first, beside = [COMPILED, COMPILE, DEFAULT], [HF, COMPILED, DEFAULT, COMPILE]
    tests = ["pytest", "-v", "-n", "6", "-m", "gpu", *gpu_tests()]  # -v: a log that is cut names what failed
    return [
        measured("first-32", "step t5-base 32 40", first, device),
        measured("first-128", "step t5-base 128 40", first, device),
        measured("first-answers", "evaluate t5-base 128 40", [STATIC_COMPILED, DEFAULT], device),
        measured("compiled-32", "step t5-base 32 40", beside, device),
        measured("compiled-answers", "evaluate t5-base 128 40", [HF, STATIC_COMPILED, DEFAULT], device),
        measured("compiled-128", "step t5-base 128 40", beside, device),
        measured("compiled-methods", "step t5-base 32 40", [HF, COMPILE], device, "attempt tasks finetune adapter"),
        check("tests", tests, 240, "tests", writes=False),
        *(forms(method, device, compiled=True) for method in METHODS),
        forms("prompt", device, "short-v1_1", compiled=True),
    ]


def kernels(device: str) -> Part:
    words = ["benchmarks.kernels", "--model", "t5-base", "--precision", "bf16", "--device", device]
    return Part("kernels", words, 90, correctness=True, last=True)


def gpu_tests() -> list[str]:
    """The files with tests that want a GPU."""
    files = (REPOSITORY / "tests").glob("test_*.py")
    return sorted(str(path.relative_to(REPOSITORY)) for path in files if "mark.gpu" in path.read_text(encoding="utf-8"))
