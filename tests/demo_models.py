"""Small random worlds in which the demo's statements are true or false: a check of its labels by brute force.

Nothing here knows how the generator edits statements. A world has a few individuals, each of a most special kind, with
adjectives and states, and a set of events; a statement is evaluated in it by its definition.
"""

from dataclasses import dataclass, field
from random import Random

from demo import words
from demo.meaning import Statement, Thing

AT_LEAST = {"a": 1, "two": 2, "three": 3}
ELSEWHERE, OTHER_TIME = "nowhere in particular", "some other time"


@dataclass
class Model:
    """Individuals are numbers."""

    kind: dict[int, str] = field(default_factory=dict)  # the most special noun, or a person's own name
    traits: dict[int, set[str]] = field(default_factory=dict)
    events: set[tuple[str, int, int, str, str]] = field(default_factory=set)  # verb, agent, patient, place, time

    def members(self, thing: Thing) -> list[int]:
        return [
            x
            for x, kind in self.kind.items()
            if is_a(kind, thing.noun) and (thing.adjective is None or thing.adjective in self.traits[x])
        ]

    def did(self, x: int, s: Statement) -> bool:
        if s.object is None:
            return s.predicate in self.traits[x]
        patients = self.members(s.object)
        return any(
            agent == x
            and patient in patients
            and s.predicate in words.ancestors(verb)
            and (s.place is None or s.place in words.ancestors(place))
            and (s.time is None or s.time == time)
            for verb, agent, patient, place, time in self.events
        )

    def true(self, s: Statement) -> bool:
        who = self.members(s.subject)
        count = sum(self.did(x, s) for x in who)
        quantifier = s.subject.quantifier
        if quantifier in ("every", "name"):
            found = count == len(who)
        else:
            found = 2 * count > len(who) if quantifier == "most" else count >= AT_LEAST[quantifier]
        return found != s.negated


def is_a(kind: str, noun: str) -> bool:
    if kind in words.NAMES:
        return noun in (kind, "person")
    return noun in words.ancestors(kind)


def random_model(rng: Random, statements: list[Statement]) -> Model:
    """A world in which everybody and everything that is mentioned exists, three of each kind."""
    model, pools = Model(), []
    for s in statements:
        pools.append([_people(rng, model, thing) if thing else [] for thing in (s.subject, s.object)])
    for x in model.kind:
        for opposite in (words.STATE_OPPOSITE, words.LOOK_OPPOSITE):
            for one, other in opposite.items():
                if one < other:
                    model.traits[x] |= {rng.choice((one, other, "neither"))}
    for s, pool in zip(statements, pools, strict=True):
        for thing, individuals in zip((s.subject, s.object), pool, strict=True):
            if thing and thing.adjective:  # at least three with that adjective
                for x in individuals[:3]:
                    model.traits[x] -= {opposites(thing.adjective)}
                    model.traits[x] |= {thing.adjective}
        share = rng.choice((0.0, 0.2, 0.6, 1.0))
        for x in list(model.kind):
            if rng.random() < share:
                _act(rng, model, s, x)
    return model


def _people(rng: Random, model: Model, thing: Thing) -> list[int]:
    """Makes individuals for a noun phrase."""
    if thing.quantifier == "name":
        known = [x for x, kind in model.kind.items() if kind == thing.noun]
        kinds = [] if known else [thing.noun]
    else:
        kinds = rng.choices(words.leaves(thing.noun), k=3)
    new = list(range(len(model.kind), len(model.kind) + len(kinds)))
    model.kind |= dict(zip(new, kinds, strict=True))
    model.traits |= {x: set() for x in new}
    return new


def opposites(adjective: str) -> str:
    return (words.STATE_OPPOSITE | words.LOOK_OPPOSITE)[adjective]


def _act(rng: Random, model: Model, s: Statement, x: int) -> None:
    """Makes the statement's predicate true of x, and no more than that by chance."""
    if s.object is None:
        model.traits[x] -= {words.STATE_OPPOSITE[s.predicate]}
        model.traits[x] |= {s.predicate}
        return
    patients = model.members(s.object)
    if not patients:
        return
    places = words.leaves(s.place) if s.place else [ELSEWHERE, *words.PLACE_PARENT]
    time = s.time or rng.choice([OTHER_TIME, *words.TIME_LIST])
    model.events.add((rng.choice(words.leaves(s.predicate)), x, rng.choice(patients), rng.choice(places), time))


def relation(rng: Random, premise: Statement, hypothesis: Statement, tries: int = 60) -> set[bool]:
    """The hypothesis's truth values in the worlds where the premise is true: {True} where it follows."""
    found: set[bool] = set()
    worlds = 0
    for _ in range(tries * 10):
        model = random_model(rng, [premise, hypothesis])
        if model.true(premise):
            found.add(model.true(hypothesis))
            worlds += 1
            if worlds == tries or len(found) == 2:
                break
    return found
