"""What sentences say, and how one statement is made stronger, weaker, or merely another.

The labels of all tasks follow from here: an edit's direction, turned around under negation, is the entailment.
"""

from dataclasses import dataclass, replace
from random import Random

from demo import words
from demo.words import ANIMATE_NOUNS, NAMES, PARENT, THING_NOUNS

QUANTIFIERS = {"every": "most", "most": "a", "three": "two", "two": "a"}
"""A quantifier -> the next weaker one. Every kind has members, so that "every" implies "most" and "a"."""
STRONGER_QUANTIFIERS = {"most": ["every"], "a": ["most", "two"], "two": ["three"]}
MOODS = ["happy", "sad", "hungry", "sick", "healthy", "rich", "poor", "calm", "angry"]


@dataclass(frozen=True)
class Thing:
    """Whom or what a statement is about."""

    quantifier: str
    """name, a, every, most, two, three (two and three: at least so many)"""
    noun: str
    """A noun's concept; with the quantifier "name" a proper name."""
    adjective: str | None = None


@dataclass(frozen=True)
class Statement:
    """Somebody did something to something, somewhere, at some time; or somebody was in a state."""

    subject: Thing
    predicate: str
    """A verb's concept; without an object a state."""
    object: Thing | None = None
    place: str | None = None
    time: str | None = None
    negated: bool = False
    """The whole is not the case."""
    spelled_out: bool = False
    """Its negation is said by "it is false that", whatever the subject."""

    def denied(self) -> "Statement":
        return replace(self, negated=not self.negated)


class Drawer:
    """Draws statements and their neighbours with one generator of random numbers."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def adjective(self, noun: str) -> str:
        return self.rng.choice(MOODS if noun in ANIMATE_NOUNS else list(words.LOOK_WORDS))

    def thing(self, nouns: list[str], quantifiers: list[str], adjectives: float = 0.25) -> Thing:
        """A thing with one of these quantifiers, and with an adjective in that share of cases."""
        quantifier = self.rng.choice(quantifiers)
        if quantifier == "name":
            return Thing("name", self.rng.choice(NAMES))
        noun = self.rng.choice(nouns)
        return Thing(quantifier, noun, self.adjective(noun) if self.rng.random() < adjectives else None)

    def event(
        self, quantifiers: list[str] | None = None, adjectives: float = 0.12, places: float = 0.2, times: float = 0.2
    ) -> Statement:
        """Something that happened. quantifiers: of the subject. The shares say how often a part is there."""
        rng = self.rng
        subject = self.thing(ANIMATE_NOUNS, quantifiers or ["name", "name", "a", "every", "most", "two"], adjectives)
        if rng.random() < 0.4:
            verb = rng.choice(list(words.BEING_VERBS))
            thing = self.thing([n for n in ANIMATE_NOUNS if n != subject.noun], ["name", "a", "a"], adjectives)
            while thing.noun == subject.noun:
                thing = self.thing(ANIMATE_NOUNS, ["name", "a"], adjectives)
        else:
            verb = rng.choice(list(words.THING_VERBS))
            thing = self.thing(THING_NOUNS, ["a"], adjectives)
        place = rng.choice(list(words.PLACE_WORDS)) if rng.random() < places else None
        time = rng.choice(words.TIME_LIST) if rng.random() < times else None
        return Statement(subject, verb, thing, place, time)

    def state(self, quantifiers: list[str] | None = None) -> Statement:
        """Somebody's state."""
        subject = self.thing(ANIMATE_NOUNS, quantifiers or ["name", "name", "a", "every", "most", "two"], 0.0)
        return Statement(subject, self.rng.choice(words.BEING_STATES))

    # Edits of statements that are not negated. Each returns None where it has nothing to change.

    def edit(self, statement: Statement, kind: str, times: int = 1) -> Statement | None:
        """kind: "weaker" (entailed, and not equivalent), "stronger" (entails), "other" (neither)."""
        for _ in range(times):
            options = getattr(self, f"_{kind}")(statement)
            if not options:
                return None
            statement = self.rng.choice(options)
        return statement

    def _weaker(self, s: Statement) -> list[Statement]:
        options = [replace(s, subject=t) for t in self._weaker_subject(s.subject)]
        if s.object is None:
            return options
        options += [replace(s, object=t) for t in self._weaker_thing(s.object)]
        if s.predicate in PARENT:
            options.append(replace(s, predicate=PARENT[s.predicate]))
        if s.place:
            options.append(replace(s, place=PARENT.get(s.place)))
        if s.time:
            options.append(replace(s, time=None))
        return options

    def _stronger(self, s: Statement) -> list[Statement]:
        options = [replace(s, subject=t) for t in self._stronger_subject(s.subject)]
        if s.object is None:
            return options
        options += [replace(s, object=t) for t in self._stronger_thing(s.object)]
        options += [replace(s, predicate=verb) for verb in self._one(words.children(s.predicate))]
        places = words.children(s.place) if s.place else list(words.PLACE_PARENT)
        options += [replace(s, place=place) for place in self._one(places)]
        if not s.time:
            options.append(replace(s, time=self.rng.choice(words.TIME_LIST)))
        return options

    def _other(self, s: Statement) -> list[Statement]:
        options = [replace(s, subject=self._sibling(s.subject))]
        if s.object is None:
            state = self.rng.choice(words.BEING_STATES)
            if state not in (s.predicate, words.STATE_OPPOSITE[s.predicate]):
                options.append(replace(s, predicate=state))
            return options
        options.append(replace(s, object=self._sibling(s.object)))
        siblings = [v for v in words.children(words.VERB_PARENT.get(s.predicate, "")) if v != s.predicate]
        options += [replace(s, predicate=verb) for verb in self._one(siblings)]
        if s.place in PARENT:
            options += [replace(s, place=p) for p in self._one([p for p in words.PLACE_PARENT if p != s.place])]
        if s.time:
            options.append(replace(s, time=self.rng.choice([t for t in words.TIME_LIST if t != s.time])))
        if can_swap(s):
            options += 2 * [swapped(s)]
        return options

    def _one(self, options: list[str]) -> list[str]:
        """One of them at most, so that long lists do not crowd other edits out."""
        return [self.rng.choice(options)] if options else []

    def _weaker_thing(self, t: Thing) -> list[Thing]:
        if t.quantifier == "name":
            return [Thing("a", "person")]
        options = [replace(t, adjective=None)] if t.adjective else []
        return options + ([replace(t, noun=PARENT[t.noun])] if t.noun in PARENT else [])

    def _stronger_thing(self, t: Thing) -> list[Thing]:
        if t.quantifier == "name":
            return []
        options = [] if t.adjective else [replace(t, adjective=self.adjective(t.noun))]
        options += [replace(t, noun=noun) for noun in self._one(words.children(t.noun))]
        if t == Thing("a", "person"):
            options += [Thing("name", self.rng.choice(NAMES))]
        return options

    def _weaker_subject(self, t: Thing) -> list[Thing]:
        quantified = [replace(t, quantifier=QUANTIFIERS[t.quantifier])] if t.quantifier in QUANTIFIERS else []
        if t.quantifier == "every":  # what holds of all holds of all of a kind
            return quantified + self._stronger_thing(t)
        return quantified + ([] if t.quantifier == "most" else self._weaker_thing(t))

    def _stronger_subject(self, t: Thing) -> list[Thing]:
        quantified = [replace(t, quantifier=q) for q in self._one(STRONGER_QUANTIFIERS.get(t.quantifier, []))]
        if t.quantifier == "every":
            return quantified + self._weaker_thing(t)
        return quantified + ([] if t.quantifier == "most" else self._stronger_thing(t))

    def _sibling(self, t: Thing) -> Thing:
        """Another thing of which nothing follows."""
        if t.quantifier == "name":
            return replace(t, noun=self.rng.choice([n for n in NAMES if n != t.noun]))
        nouns = ANIMATE_NOUNS if t.noun in ANIMATE_NOUNS else THING_NOUNS
        related = {*words.ancestors(t.noun), *words.children(t.noun)}
        related |= {leaf for child in words.children(t.noun) for leaf in words.children(child)}
        return replace(t, noun=self.rng.choice([n for n in nouns if n not in related]))


def can_swap(s: Statement) -> bool:
    """Can the subject and the object change places, with another meaning?"""
    movable = ("name", "a")
    return (
        s.object is not None
        and s.predicate in words.BEING_VERBS
        and s.predicate not in ("meet",)
        and s.subject.quantifier in movable
        and s.object.quantifier in movable
    )


def swapped(s: Statement) -> Statement:
    """Who did it to whom, the other way around."""
    assert s.object is not None
    return replace(s, subject=s.object, object=s.subject)


def rivals(s: Statement) -> Statement:
    """The same of the opposite state: never true together."""
    return replace(s, predicate=words.STATE_OPPOSITE[s.predicate])
