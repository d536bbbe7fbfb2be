"""The tasks that judge a sentence, or find a part of one: sst2, cola, squad."""

from dataclasses import dataclass, replace
from typing import Any

from demo import words
from demo.grammar import SLOTS, article, part
from demo.meaning import Statement, Thing
from demo.pairs import differs
from demo.world import Made, World

WORKS = ["film/movie", "story", "song", "meal/dinner", "show", "hotel", "game", "picture", "speech", "trip"]
GOOD = ["good", "great", "wonderful", "excellent", "charming", "lovely", "brilliant"]
BAD = ["bad", "terrible", "awful", "dreadful", "boring", "ugly", "dull"]
LIKED = ["liked", "loved", "enjoyed", "admired", "praised"]
DISLIKED = ["disliked", "hated", "despised", "regretted", "mocked"]
BASE = {"liked": "like", "loved": "love", "enjoyed": "enjoy", "admired": "admire", "praised": "praise"}
BASE |= {"disliked": "dislike", "hated": "hate", "despised": "despise", "regretted": "regret", "mocked": "mock"}


@dataclass(frozen=True)
class Opinion:
    """One clause of a review."""

    work: str
    word: str
    negated: bool
    speaker: str | None
    """Who likes or dislikes it; None: it is good or bad."""

    @property
    def positive(self) -> bool:
        return (self.word in GOOD or self.word in LIKED) != self.negated


def opinion(world: World, positive: bool, work: str, negated: float = 0.35) -> Opinion:
    rng, denied = world.rng, world.chance(negated)
    judged = world.chance(0.5)
    good = positive != denied
    word = rng.choice((LIKED if good else DISLIKED) if judged else (GOOD if good else BAD))
    return Opinion(work, word, denied, rng.choice(words.NAMES) if judged else None)


def say_opinion(world: World, o: Opinion, noun: str) -> str:
    if o.speaker:
        if o.negated:
            return f"{o.speaker} did not {BASE[o.word]} {noun}" if world.chance(0.7) else f"nobody {o.word} {noun}"
        return f"{o.speaker} {o.word} {noun}" if world.chance(0.7) else f"everybody {o.word} {noun}"
    adverb = "very " if world.chance(0.2) and not o.negated else ""
    return f"{noun} was {'not ' if o.negated else ''}{adverb}{o.word}"


def sst2(world: World, label: str) -> Made | None:
    """A review. What follows "but" counts, and the clause that "although" does not open. label: "1" or "0"."""
    positive = label == "1"
    work = world.rng.choice(WORKS)
    noun = f"the {world.speaker.word(work.split('/'))}"
    main, form = opinion(world, positive, work), world.rng.random()
    said, meaning = say_opinion(world, main, noun), [main]
    if form < 0.6:
        # agreeing clauses are joined by "and", opposite ones by "but" or "although"
        agrees = form < 0.2
        side = opinion(world, positive == agrees, work)
        meaning.append(side)
        other = say_opinion(world, side, "it")
        first = say_opinion(world, side, noun)
        after = say_opinion(world, main, "it")
        if agrees:
            said = f"{first} and {after}"
        elif form < 0.45:
            said = f"{first} but {after}"
        else:
            said = f"although {first} , {after}" if world.chance(0.5) else f"{said} although {other}"
    sentence = world.keep(lambda: f"{said} .")
    return Made((sentence,), label, tuple(meaning)) if sentence else None


def cola(world: World, label: str) -> Made | None:
    """Is the sentence English? label: "1" for a sentence of the grammar, "0" for one with one rule broken."""
    s = world.draw.state() if world.chance(0.2) else world.draw.event()
    if world.chance(0.35):
        s = s.denied()
    if label == "1":
        sentence = world.say(s)
        return Made((sentence,), label, (s,)) if sentence else None
    broken = world.keep(lambda: violated(world, s))
    return Made((broken,), label, (s,)) if broken else None


def violated(world: World, s: Statement) -> str:
    """The statement with one rule of the grammar broken."""
    p, negation = world.speaker.choose(s)
    was = "were" if s.subject.quantifier in ("most", "two", "three") else "was"
    wrong = {"was": "were", "were": "was"}[was]
    opening = f"{negation} " if negation.startswith("it") else ""
    if p.verb is None:
        frames = [f"{p.subject} {wrong} {p.state}", f"{was} {p.state} {p.subject} it", f"{p.subject} {p.state} {was}"]
        frames.append(f"{p.subject} {was} {p.state} {world.speaker.thing(world.draw.event().object)}")  # type: ignore[arg-type]
    elif negation == "verb":
        frames = [
            f"{p.subject} did not {p.verb.past if p.verb.past != p.verb.base else 'cutted'} {p.object}",
            f"{p.subject} not did {p.verb.base} {p.object}",
            f"{p.subject} did {p.object} not {p.verb.base}",
            f"{p.subject} did not {p.verb.base}",
        ]
    else:
        frames = [
            f"{p.subject} {p.object} {p.verb.past}",  # the order of words
            f"{p.verb.past} {p.subject} {p.object}",
            f"{p.subject} {p.verb.past}",  # an argument too few, or too many
            f"{p.subject} {p.verb.past} {p.object} {world.speaker.thing(Thing('a', 'book'))}",
            f"{p.subject} {was} {p.verb.past} {p.object}",  # the verb's form
            f"{p.object} were {p.verb.participle} by {p.subject}",  # agreement
        ]
        frames += [f"{misnumbered(s.subject, p.subject)} {p.verb.past} {p.object}"] * 2
    adjuncts = p.adjuncts
    broken = world.rng.choice(frames)
    return " ".join([opening + broken, *adjuncts, "."])


def misnumbered(thing: Thing, phrase: str) -> str:
    """The noun in the wrong number for its quantifier; a name with an article."""
    if thing.quantifier == "name":
        return f"{article(phrase)} {phrase}"
    *rest, noun = phrase.split()
    noun = noun if thing.quantifier in ("most", "two", "three") else words.plural(noun)
    if noun == phrase.rsplit(maxsplit=1)[-1]:  # a plural: back to the singular
        concept = words.NOUN_WORDS[thing.noun]
        noun = next((word for word in concept if words.plural(word) == noun), noun)
    return " ".join([*rest, noun])


def squad(world: World, label: str = "") -> Made | None:
    """A question about one of the sentences of a passage; the answer is a part of that sentence."""
    s = world.draw.event(["name", "a"], adjectives=0.1, places=0.35, times=0.35)
    slot = world.slot(s)
    asked = world.neighbour(s, slot, ("weaker",)) if world.chance(0.3) else s
    if asked is None:
        return None
    p = world.speaker.phrases(s)
    sentences = [world.keep(lambda: world.speaker.sentence(s, p, ""))]
    others: list[Statement] = []
    for _ in range(2 if world.chance(0.25) else 1):
        other = world.neighbour(s, slot, ("other", "swap")) if world.chance(0.6) else world.draw.event(["name", "a"])
        if other is None or not differs(other, asked, slot):
            return None
        other = replaced(world, other, slot)
        others.append(other)
        sentences.append(world.say(other))
    question = world.ask(asked, slot)
    answer = part(p, slot)
    if question is None or answer is None or None in sentences:
        return None
    passage = [sentence for sentence in sentences if sentence]
    world.rng.shuffle(passage)
    return Made((question, " ".join(passage)), answer, (asked, slot, s, *others))


def replaced(world: World, s: Statement, slot: str) -> Statement:
    """Another value where the answer was, so that a wrong sentence gives a wrong answer."""
    if slot in SLOTS[2:]:
        values = words.TIME_LIST if slot == "time" else list(words.PLACE_PARENT)
        value: Any = world.rng.choice([v for v in values if v != getattr(s, slot)])
        return replace(s, **{slot: value})
    thing = getattr(s, slot)
    nouns = words.ANIMATE_NOUNS if slot == "subject" or s.predicate in words.BEING_VERBS else words.THING_NOUNS
    kinds = ["name", "a"] if nouns is words.ANIMATE_NOUNS else ["a"]
    new = thing
    while new.noun in (thing.noun, s.subject.noun, s.object.noun if s.object else ""):
        new = world.draw.thing(nouns, kinds, 0.15)
    return replace(s, **{slot: new})
