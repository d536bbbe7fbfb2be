"""Kill runs at random moments, resume them, and compare with the run that nobody disturbed.

    python tests/kill_runs.py --count 100

for prompt tuning, ATTEMPT and several tasks. The suite does the same a few times (test_signals.py).
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from conftest import make_glue, make_tiny_checkpoint  # noqa: E402
from runs import metrics_of, result_of, same_prompt  # noqa: E402


def start(words: Sequence[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", str(REPOSITORY / "train.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=REPOSITORY
    )


def complete(flags: Sequence[str], out: Path, kills: int, seed: int, seconds: float = 1.0) -> int:
    """Run to the end, killing at most `kills` times, at random moments of the `seconds` after the start; the kills."""
    draw, done = random.Random(seed), 0
    while True:
        begun = any((out / name).exists() for name in ("state.pt", "state-before.pt"))
        process = start(["--resume", str(out)] if begun else flags)
        assert process.stdout is not None
        lines = [process.stdout.readline()]  # the first line: everything is loaded, training begins
        if done < kills:
            timer = threading.Timer(draw.uniform(0, seconds), process.kill)
            timer.start()
            lines += process.stdout.read().splitlines(keepends=True)
            timer.cancel()
        else:
            lines += process.stdout.read().splitlines(keepends=True)
        status = process.wait()
        if status == 0:
            return done
        if status != -9:
            raise AssertionError(f"exit status {status} after {done} kills: {''.join(lines)}")
        done += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills of each kind of run")
    parser.add_argument("--kinds", nargs="+", default=["prompt", "attempt", "several"], help="default: all three")
    given = parser.parse_args()
    count = given.count
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model, data = make_tiny_checkpoint(root), make_glue(root / "data")
        common = ["--model", str(model), "--data-dir", str(data), "--batch-size", "8", "--device", "cpu"]
        common += ["--prompt-length", "4", "--steps", "60", "--eval-every", "7"]
        for task in ("cola", "rte"):
            flags = [
                "--task",
                task,
                "--method",
                "prompt",
                *common,
                "--steps",
                "2",
                "--out",
                str(root / f"source-{task}"),
            ]
            assert complete(flags, root / f"source-{task}", 0, 0) == 0
        mixture = ["--method", "attempt", "--source-prompts", str(root / "source-cola"), str(root / "source-rte")]
        kinds = {
            "prompt": ["--task", "cola", "--method", "prompt"],
            "attempt": ["--task", "cola", *mixture],
            "several": ["--task", "rte", "cola", *mixture, "--optimizer", "adafactor"],
        }
        for kind, flags in ((kind, kinds[kind]) for kind in given.kinds):
            whole, kills, runs = root / f"{kind}-whole", 0, 0
            complete([*flags, *common, "--out", str(whole)], whole, 0, 0)
            while kills < count:
                out = root / f"{kind}-{runs}"
                kills += complete([*flags, *common, "--out", str(out)], out, min(10, count - kills), seed=runs)
                same = all(same_prompt(whole / name, out / name) for name in ("best.safetensors", "last.safetensors"))
                assert same and metrics_of(whole) == metrics_of(out), f"{kind}: run {runs} differs, see {out}"
                assert result_of(whole)["scores"] == result_of(out)["scores"]
                runs += 1
            print(
                f"{kind}: {kills} kills in {runs} runs; every prompt, metric and score is the undisturbed run's",
                flush=True,
            )


if __name__ == "__main__":
    main()
