"""eval.py's command line."""

from pathlib import Path

from attempt.flags import Parser, positive
from attempt.plots import picture_file


def new_parser() -> Parser:
    parser = Parser(prog="eval.py", description="Score what a run has trained, and write its answers.")
    add = parser.add_argument
    add("--run", required=True, type=Path, metavar="DIR", help="folder that train.py wrote")
    add("--task", nargs="+", metavar="TASK", help="tasks to score (default: the run's)")
    add("--split", default="test", choices=["train", "dev", "test"], help="default: %(default)s")
    add("--checkpoint", default="best", metavar="best|last|FILE", help="which one (default: %(default)s)")
    add("--predictions", type=Path, metavar="FILE", help="write a JSON line for each example: its text and answer")
    add("--attention-map", type=picture_file, metavar="FILE", help="draw each prompt's weights: .png, .svg or .pdf")
    add("--interactive", action="store_true", help="answer lines typed by hand or piped in, with the mixture's weights")
    add("--add-sources", nargs="+", type=Path, default=[], metavar="PATH", help="mix these prompts too, untrained")
    add("--remove-sources", nargs="+", default=[], metavar="NAME", help="leave these sources out of the mixture")
    add("--save-checkpoint", type=Path, metavar="FILE", help="write the mixture with its changed sources")
    add("--train-file", metavar="FILE", help="the user's training file, if it has moved since (default: the run's)")
    add("--dev-file", metavar="FILE", help="the same for dev, or other examples (default: the run's)")
    add("--test-file", metavar="FILE", help="the same for test, or other examples (default: the run's)")
    add("--text-scores", choices=["plain", "squad"], help="compare free text of these files so (default: the run's)")
    add("--model", metavar="NAME", help="the T5, if it has moved since (default: the run's)")
    add("--answer-by", choices=["generate", "labels"], help="write the answer, or choose a label (default: the run's)")
    add("--eval-batch-size", type=positive, metavar="N", help="examples answered at once (default: the run's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--precision", choices=["auto", "fp32", "bf16", "fp16"], help="default: the run's")
    add("--shard", action="store_true", help="share the T5 out among torchrun's processes, if it does not fit")
    add("--mirror", metavar="URL", help="server that has the files of all hosts (default: the run's)")
    add("--data-dir", metavar="DIR", help="folder that has them (default: the run's)")
    return parser
