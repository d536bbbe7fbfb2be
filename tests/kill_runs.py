"""Kill runs at random moments, resume them, and compare with the run that nobody disturbed.

    python tests/kill_runs.py --count 100
    python tests/kill_runs.py --count 20 --processes 2

for prompt tuning, ATTEMPT and several tasks. The suite does the same a few times (test_signals.py,
test_distributed.py). Of several processes under torchrun all are killed, or one, or torchrun is sent SIGTERM.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from conftest import make_glue, make_tiny_checkpoint  # noqa: E402
from runs import metrics_of, ranks, result_of, same_prompt, start  # noqa: E402


def complete(flags: Sequence[str], out: Path, kills: int, seed: int, seconds: float = 1.0, processes: int = 1) -> int:
    """Run to the end, killing at most `kills` times, at random moments of the `seconds` after the start; the kills."""
    draw, done = random.Random(seed), 0
    while True:
        begun = any((out / name).exists() for name in ("state.pt", "state-before.pt"))
        process = start(processes, ["train.py", *(["--resume", str(out)] if begun else flags)])
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("run  "):  # everything is loaded, training begins
                break
        if done < kills:
            timer = threading.Timer(draw.uniform(0, seconds), kill, (process, processes, draw.randrange(3)))
            timer.start()
            lines += process.stdout.read().splitlines(keepends=True)
            timer.cancel()
        else:
            lines += process.stdout.read().splitlines(keepends=True)
        status = process.wait()
        if status == 0:
            return done
        if status not in (-9, 1 if processes > 1 else -9) or done == kills:
            raise AssertionError(f"exit status {status} after {done} kills: {''.join(lines)}")
        done += 1


def kill(process: "subprocess.Popen[str]", processes: int, kind: int) -> None:
    if processes == 1:
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has just come to its end
        found = ranks(process)
        if kind == 0:
            process.terminate()
        elif kind == 1:
            os.kill(random.choice(list(found.values())), signal.SIGKILL)
        else:
            for number in [process.pid, *found.values()]:
                os.kill(number, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills of each kind of run")
    parser.add_argument("--kinds", nargs="+", default=["prompt", "attempt", "several"], help="default: all three")
    parser.add_argument("--processes", type=int, default=1, help="of each run, under torchrun (default: 1)")
    given = parser.parse_args()
    count = given.count
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model, data = make_tiny_checkpoint(root), make_glue(root / "data")
        common = ["--model", str(model), "--data-dir", str(data), "--device", "cpu", "--eval-every", "7"]
        # 16 x 80 x 32 numbers: from 32,768 on, PyTorch may add up a gradient in several threads
        common += ["--batch-size", "16", "--prompt-length", "80"]
        for task in ("cola", "rte"):
            out = root / f"source-{task}"
            flags = ["--task", task, "--method", "prompt", *common, "--steps", "2", "--out", str(out)]
            assert complete(flags, out, 0, 0) == 0
        common += ["--steps", "60"]
        mixture = ["--method", "attempt", "--source-prompts", str(root / "source-cola"), str(root / "source-rte")]
        kinds = {
            "prompt": ["--task", "cola", "--method", "prompt"],
            "attempt": ["--task", "cola", *mixture],
            "several": ["--task", "rte", "cola", *mixture, "--optimizer", "adafactor"],
        }
        for kind, flags in ((kind, kinds[kind]) for kind in given.kinds):
            whole, kills, runs = root / f"{kind}-whole", 0, 0
            complete([*flags, *common, "--out", str(whole)], whole, 0, 0, processes=given.processes)
            while kills < count:
                out = root / f"{kind}-{runs}"
                most, words = min(10, count - kills), [*flags, *common, "--out", str(out)]
                kills += complete(words, out, most, seed=runs, processes=given.processes)
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
