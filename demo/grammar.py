"""From a meaning to sentences: synonyms, active and passive voice, fronted adjuncts, clefts, negation, questions."""

from dataclasses import dataclass
from random import Random

from demo import words
from demo.meaning import Statement, Thing
from demo.words import Verb

QUANTIFIER_WORDS = {
    "a": ["a", "some"],
    "every": ["every", "each"],
    "most": ["most"],
    "two": ["two"],
    "three": ["three"],
}
MANY = ("most", "two", "three")
ADJECTIVE_WORDS = words.STATE_WORDS | words.LOOK_WORDS
ASKED = {"place": ["where", "in which place"], "time": ["when", "at what time"]}
SLOTS = ("subject", "object", "place", "time")


@dataclass
class Phrases:
    """A statement's parts in words, chosen once: every form of the sentence uses the same."""

    subject: str
    verb: Verb | None
    state: str | None
    object: str | None
    place: str | None
    time: str | None

    @property
    def adjuncts(self) -> list[str]:
        return [part for part in (self.place, self.time) if part]


class Speaker:
    """Puts statements and questions into words. synonyms: how often a word other than a concept's first is taken."""

    def __init__(self, rng: Random, synonyms: float = 0.15) -> None:
        self.rng, self.synonyms = rng, synonyms

    def word(self, options: list[str]) -> str:
        return options[0] if self.rng.random() >= self.synonyms else self.rng.choice(options)

    def thing(self, thing: Thing, quantifier: str | None = None) -> str:
        """A noun phrase; `quantifier` replaces its first word."""
        if thing.quantifier == "name":
            return thing.noun
        noun = self.word(words.NOUN_WORDS[thing.noun])
        if thing.quantifier in MANY:
            noun = words.plural(noun)
        rest = f"{self.word(ADJECTIVE_WORDS[thing.adjective])} {noun}" if thing.adjective else noun
        first = quantifier or self.word(QUANTIFIER_WORDS[thing.quantifier])
        return f"{article(rest) if first == 'a' else first} {rest}"

    def phrases(self, s: Statement, quantifier: str | None = None) -> Phrases:
        """Words for every part; `quantifier` is that of the subject."""
        deny = s.negated and s.object is not None and s.object.quantifier == "a"  # "not some dog" would be ambiguous
        return Phrases(
            self.thing(s.subject, quantifier),
            self._verb(s.predicate) if s.object else None,
            None if s.object else self.word(words.STATE_WORDS[s.predicate]),
            self.thing(s.object, "a" if deny else None) if s.object else None,
            self.word(words.PLACE_WORDS[s.place]) if s.place else None,
            self.word(words.TIME_FORMS[s.time]) if s.time else None,
        )

    def _verb(self, concept: str) -> Verb:
        forms = words.VERB_WORDS[concept]
        return forms[0] if self.rng.random() >= self.synonyms else self.rng.choice(forms)

    def say(self, s: Statement, plain: bool = False) -> str:
        """A sentence. plain: the active voice, nothing fronted."""
        return self.sentence(s, *self.choose(s), plain)

    def choose(self, s: Statement) -> tuple[Phrases, str]:
        """The words, and how a negated statement is negated: "" where the subject's first word says it."""
        if not s.negated:
            return self.phrases(s), ""
        if s.subject.quantifier == "name" and not s.spelled_out:
            return self.phrases(s), "verb"
        if not s.spelled_out and s.subject.quantifier in ("a", "every"):
            return self.phrases(s, {"a": "no", "every": "not every"}[s.subject.quantifier]), ""
        return self.phrases(s), "it is false that"

    def sentence(self, s: Statement, p: Phrases, negation: str, plain: bool = False) -> str:
        front, adjuncts = "", p.adjuncts
        if self.rng.random() < 0.25:
            adjuncts = adjuncts[::-1]
        if adjuncts and not plain and negation != "it is false that" and self.rng.random() < 0.2:
            front, adjuncts = f"{adjuncts[0]} , ", adjuncts[1:]
        clause = " ".join([self._clause(s, p, negation, plain or bool(front)), *adjuncts])
        opening = f"{negation} " if negation.startswith("it") else ""
        return f"{opening}{front}{clause} ."

    def _clause(self, s: Statement, p: Phrases, negation: str, plain: bool) -> str:
        was = "were" if s.subject.quantifier in MANY else "was"
        if p.verb is None:
            return f"{p.subject} {was} not {p.state}" if negation == "verb" else f"{p.subject} {was} {p.state}"
        if negation == "verb":
            return f"{p.subject} did not {p.verb.base} {p.object}"
        simple = not s.negated and s.subject.quantifier in ("name", "a")  # the quantifiers' order does not matter
        form = self.rng.random()
        if simple and form < 0.2:
            return f"{p.object} was {p.verb.participle} by {p.subject}"
        if simple and not plain and form < 0.25:
            return f"it was {p.subject} who {p.verb.past} {p.object}"
        return f"{p.subject} {p.verb.past} {p.object}"

    def ask(self, s: Statement, slot: str) -> str:
        """The question for a part (one of SLOTS) of an event that is not negated."""
        p = self.phrases(s)
        assert p.verb is not None
        rest = [part for name, part in (("place", p.place), ("time", p.time)) if part and name != slot]
        being = s.predicate in words.BEING_VERBS
        what = "who" if being else "what"
        passive = self.rng.random() < 0.2
        if slot == "subject":
            main = f"by whom was {p.object} {p.verb.participle}" if passive else f"who {p.verb.past} {p.object}"
        elif slot == "object":
            main = f"{what} was {p.verb.participle} by {p.subject}"
            main = main if passive else f"{what} did {p.subject} {p.verb.base}"
        else:
            main = f"did {p.subject} {p.verb.base} {p.object}"
            main = f"was {p.object} {p.verb.participle} by {p.subject}" if passive else main
            main = f"{self.word(ASKED[slot])} {main}"
        return " ".join([main, *rest, "?"])


def article(rest: str) -> str:
    """a or an, by the next word's first letter."""
    return "an" if rest[0] in "aeiou" else "a"


def part(p: Phrases, slot: str) -> str | None:
    """The words of one of SLOTS."""
    return {"subject": p.subject, "object": p.object, "place": p.place, "time": p.time}[slot]
