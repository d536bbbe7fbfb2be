"""Pictures of runs, with the extra [plots], or as text: python -m attempt.plots curves runs --to curves.png

    attention-map  how much of each prompt the targets get, at the best steps   (of one run's instances: eval.py)
    mixture        how that changes over training steps
    curves         score and loss over training steps, with a band over the seeds
    results        bars of the scores, with deviations over the seeds
    similarity     how alike prompts are, in the order of clustering

Runs are folders of train.py, or folders that have such folders in them; or files of runs, FILE.jsonl, or some runs of
such a file by their names, 'FILE.jsonl/sst2-*'.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from attempt.checkpoint import load_sources, warn_of_mixed
from attempt.command.flags import Parser
from attempt.compare.records import Group, group, read_all
from attempt.plots.pictures import Picture, attention_maps, learning_curves, mixture_curves, results, similarity_matrix
from attempt.spot import SIMILARITIES, file_names, matrix
from model.errors import AttemptError, exit_status
from model.files import write_whole

SUFFIXES = (".png", ".svg", ".pdf")
INSTALL = "pip install -c constraints.txt -e '.[plots]'"
OF_RUNS: dict[str, tuple[Callable[[Sequence[Group]], Sequence[Picture]], str]] = {
    "attention-map": (attention_maps, "finished runs of --method attempt"),
    "mixture": (mixture_curves, "runs of --method attempt with an evaluation"),
    "curves": (learning_curves, "runs with an evaluation"),
    "results": (lambda groups: results(groups, "test"), "complete runs"),
}


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def picture_file(text: str) -> Path:
    """A name of a file that a picture can be written to, for argparse."""
    path = Path(text)
    if path.suffix.lower() not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a name that ends in {', '.join(SUFFIXES)}, found {text!r}")
    return path


def show(pictures: Sequence[Picture], path: Path | None) -> None:
    """Write pictures to files, or print them as text: where no file is named, and where there is nothing to draw with.

    Raises AttemptError, after the text, where a file was asked for and matplotlib is missing.
    """
    drawing = path is not None and can_draw()
    for picture, place in zip(pictures, numbered(path, len(pictures)), strict=True):
        if drawing and place is not None:
            from attempt.plots.draw import rendered  # noqa: PLC0415 - matplotlib is loaded only to draw

            write_whole(place, rendered(picture, place.suffix.lower()[1:]))
            print(f"{picture.title}: {place}", flush=True)
        else:
            print(f"{picture.text()}\n", flush=True)
    if path is not None and not drawing:
        raise AttemptError(f"{path}: expected matplotlib to draw with, found none (the text says the same); {INSTALL}")


def numbered(path: Path | None, count: int) -> list[Path | None]:
    """A name for each of several pictures: x.png, x-2.png, …"""
    more = [None if path is None else path.with_stem(f"{path.stem}-{i}") for i in range(2, count + 1)]
    return [path, *more][:count]


def of_runs(kind: str, paths: Sequence[Path]) -> Sequence[Picture]:
    records, damaged = read_all(paths)
    for folder, reason in damaged.items():
        print(f"left out   {folder}: {reason}", file=sys.stderr)
    make, needed = OF_RUNS[kind]
    pictures = make(group(records))
    if not pictures:
        raise AttemptError(f"{kind}: expected {needed}, found none in {', '.join(map(str, paths))}")
    return pictures


def run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m attempt.plots",
        description="Pictures of runs; without --to, the same as text.",
        epilog=__doc__.split("\n\n", 1)[1] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=[*OF_RUNS, "similarity"], help="what to show")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="runs (for similarity, also prompt files)")
    parser.add_argument("--to", type=picture_file, metavar="FILE", help="a .png, .svg or .pdf (x-2.png … of several)")
    parser.add_argument("--similarity", choices=SIMILARITIES, default="average", help="as attempt.spot has it")
    given = parser.parse_args(argv)
    if given.kind == "similarity":
        prompts, names = load_sources(given.paths)
        warn_of_mixed(given.paths)
        values = matrix(prompts, given.similarity).double().numpy()
        pictures: Sequence[Picture] = [similarity_matrix(file_names(names), values, given.similarity)]
    else:
        pictures = of_runs(given.kind, given.paths)
    show(pictures, given.to)


def main(argv: Sequence[str] | None = None) -> int:
    return exit_status("python -m attempt.plots", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
