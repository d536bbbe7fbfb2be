"""What the tiny T5 is pre-trained on: corrupted text, and instructions.

The sources' tasks are among the instructions, but worded otherwise than their benchmarks: a source prompt has to find
the skill. The targets' generators (rte, mrpc, cola, stsb) are never called here.
"""

from collections.abc import Callable
from random import Random

from demo import words
from demo.data import NLI
from demo.grammar import Speaker
from demo.meaning import Statement
from demo.pairs import mnli, qnli, qqp, reported
from demo.singles import WORKS, opinion, say_opinion, squad, sst2
from demo.world import Made, World

PAIRS = ("premise hypothesis", "sentence1 sentence2", "question1 question2", "first second", "text1 text2")
QUESTIONS = ("question sentence", "question context", "first second", "sentence1 sentence2")
SINGLES = ("sentence", "text", "input")
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Task = tuple[str, str]  # what the model reads, what it should write


def worded(world: World, instruction: str, names: tuple[str, ...], texts: tuple[str, ...]) -> str:
    """An instruction, often a meaningless name as a benchmark's would be, and the fields under any names."""
    rng = world.rng
    tag = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 4))) + " " if world.chance(0.3) else ""
    fields = zip(rng.choice(names).split(), texts, strict=True)
    return f"{instruction} : {tag}" + " ".join(f"{name}: {text}" for name, text in fields)


def judged(
    make: Callable[[World, str], Made | None],
    labels: tuple[str, ...],
    answers: tuple[str, ...],
    digits: tuple[str, ...],
    instruction: str,
    names: tuple[str, ...],
) -> Callable[[World], Task | None]:
    """A task with labels: answered in words, or in the digits that the benchmark's labels have."""

    def draw(world: World) -> Task | None:
        label = world.rng.randrange(len(labels))
        made = make(world, labels[label])
        if made is None:
            return None
        style = world.rng.choice(("word", "digit"))
        answer = (answers if style == "word" else digits)[label]
        return worded(world, f"{instruction} {style}", names, made.fields), answer

    return draw


def find(world: World) -> Task | None:
    """The words of a passage that answer a question."""
    made = squad(world)
    return (worded(world, "find", QUESTIONS, made.fields), made.label) if made else None


def plain(world: World) -> Task | None:
    """A sentence in its plainest form: the active voice, nothing fronted, every concept's first word."""
    s = world.draw.event()
    s = s.denied() if world.chance(0.3) else s
    said = world.say(s)
    return (worded(world, "plain", SINGLES, (said,)), _plainly(world, s)) if said else None


def deny(world: World) -> Task | None:
    """The opposite of a sentence."""
    s = world.draw.event(["name", "a", "every"], places=0.2, times=0.2)
    s = s.denied() if world.chance(0.4) else s
    said = world.say(s)
    return (worded(world, "deny", SINGLES, (said,)), _plainly(world, s.denied())) if said else None


def _plainly(world: World, s: object) -> str:
    speaker = Speaker(Random(0), synonyms=0.0)  # the order of place and time, too, is always the same
    return speaker.say(s, plain=True).removesuffix(" .")  # type: ignore[arg-type]


def kind(world: World) -> Task | None:
    """What a word is a kind of, whether it is a kind of that, or its opposite."""
    rng = world.rng
    form = rng.random()
    if form < 0.25:
        opposite = words.STATE_OPPOSITE | words.LOOK_OPPOSITE
        state = rng.choice(list(opposite))
        word = rng.choice((words.STATE_WORDS | words.LOOK_WORDS)[state])
        return worded(world, "opposite", SINGLES, (word,)), opposite[state]
    groups = rng.choice(((words.NOUN_PARENT, words.NOUN_WORDS), (words.VERB_PARENT, words.VERB_WORDS)))
    parent, forms = groups
    concept = rng.choice(list(parent))
    said = rng.choice(forms[concept])
    word = said if isinstance(said, str) else rng.choice(said)
    if form < 0.6:
        return worded(world, "kind", SINGLES, (word,)), parent[concept]
    yes = world.chance(0.5)
    others = [c for c in set(parent.values()) if c not in words.ancestors(concept)]
    above = rng.choice(words.ancestors(concept)[1:]) if yes else rng.choice(sorted(others))
    return worded(world, "kind of", PAIRS, (word, above)), "yes" if yes else "no"


def price(world: World) -> Task | None:
    """Who paid how much: numbers with a decimal, as an answer."""
    rng = world.rng
    names = rng.sample(words.NAMES, rng.choice((1, 2, 3)))
    prices = [f"{rng.randrange(26) / 5:.1f}" for _ in names]
    things = [world.draw.event().object for _ in names]
    verbs = ("paid", "asked")
    said = [f"{n} {rng.choice(verbs)} {p} for {world.speaker.thing(t)} ." for n, p, t in zip(names, prices, things)]  # type: ignore[arg-type]  # noqa: B905
    asked = rng.randrange(len(names))
    return worded(world, "price", QUESTIONS, (f"how much did {names[asked]} say ?", " ".join(said))), prices[asked]


YES_NO = ("no", "yes")
INSTRUCTIONS: tuple[tuple[float, Callable[[World], Task | None]], ...] = (
    (0.33, judged(mnli, NLI, ("yes", "maybe", "no"), ("0", "1", "2"), "follow", PAIRS)),
    (0.16, judged(qqp, ("0", "1"), YES_NO, ("0", "1"), "same", PAIRS)),
    (0.14, judged(qnli, ("entailment", "not_entailment"), ("yes", "no"), ("0", "1"), "answers", QUESTIONS)),
    (0.08, judged(sst2, ("0", "1"), ("bad", "good"), ("0", "1"), "mood", SINGLES)),
    (0.14, find),
    (0.06, plain),
    (0.03, deny),
    (0.04, kind),
    (0.02, price),
)
"""(share of the instructions, generator)"""


def instruction(world: World) -> Task:
    """One example of a random instruction."""
    shares, makers = zip(*INSTRUCTIONS, strict=True)
    (make,) = world.rng.choices(makers, shares)
    task = make(world)
    while task is None:
        task = make(world)
    return task


def sentence(world: World, s: Statement) -> str | None:
    """A statement alone, joined to another, or as somebody's report."""
    form = world.rng.random()
    if form < 0.8:
        return world.say(s)
    if form < 0.9:
        return world.keep(lambda: reported(world, s, world.rng.choice(words.NAMES)))
    other = world.draw.event(["name", "a"])
    return world.keep(lambda: f"{world.speaker.say(s).removesuffix(' .')} and {world.speaker.say(other)}")


def text(world: World) -> str:
    """Some sentences of the world: statements, questions, reviews."""
    parts: list[str] = []
    count = world.rng.randint(2, 3)
    while len(parts) < count:
        form = world.rng.random()
        if form < 0.65:
            s = world.draw.state() if world.chance(0.2) else world.draw.event()
            said = sentence(world, s.denied() if world.chance(0.3) else s)
        elif form < 0.85:
            s = world.draw.event(["name", "a"])
            said = world.ask(s, world.slot(s))
        else:
            work = world.rng.choice(WORKS)
            view = opinion(world, world.chance(0.5), work)
            noun = world.speaker.word(work.split("/"))
            said = world.keep(lambda: f"{say_opinion(world, view, 'the ' + noun)} .")  # noqa: B023
        parts += [said] if said else []
    return " ".join(parts)
