"""The tasks of two sentences: mnli, qqp, qnli and their smaller relatives rte, mrpc, stsb.

For every pair of statements, s implying t, each label is made of the same words: with "not" for what is false,
    entailment     s, t       not t, not s
    contradiction  s, not t   not t, s
    neutral        t, s       not s, not t      t, not s      not s, t
so that counting words tells nothing about the label.
"""

from dataclasses import replace

from demo import words
from demo.meaning import Statement, rivals
from demo.world import Made, World

ANYBODY = ["name", "a"]  # subjects that can be asked about, and moved around


def related(world: World, label: str, s: Statement) -> tuple[Statement, Statement] | None:
    """(premise, hypothesis) of that label, from a statement that is not negated."""
    rng = world.rng
    if label == "neutral" and world.chance(0.5):
        other = world.draw.edit(s, "other")
        return (world_denied(world, s), world_denied(world, other)) if other else None
    same = label != "neutral" and world.chance(0.1)
    t = s if same else world.draw.edit(s, "weaker", 2 if world.chance(0.15) else 1)
    if t is None:
        return None
    if (s.subject.quantifier, s.predicate) != (t.subject.quantifier, t.predicate):
        # "no", "not every" and "did not" would say which of the two is negated
        s, t = replace(s, spelled_out=True), replace(t, spelled_out=True)
    no_s, no_t = s.denied(), t.denied()
    pairs = {
        "entailment": [(s, t), (no_t, no_s)],
        "contradiction": [(s, no_t), (no_t, s)],
        "neutral": [(t, s), (no_s, no_t), (t, no_s), (no_s, t)],
    }
    return rng.choice(pairs[label])


def world_denied(world: World, s: Statement) -> Statement:
    """The statement, or its opposite: as likely one as the other."""
    return s.denied() if world.chance(0.5) else s


def opposed(world: World, label: str) -> tuple[Statement, Statement]:
    """(premise, hypothesis) with opposite states, such as happy and sad."""
    s = world.draw.state(["name", "every", "most"])
    r = rivals(s)
    unclear = [(s.denied(), r), (s.denied(), r.denied())]
    other = world.draw.edit(s, "other")
    if other:
        unclear += [(s, other.denied())]
    pairs = {"entailment": (s, r.denied()), "contradiction": (s, r), "neutral": world.rng.choice(unclear)}
    return pairs[label]


def mnli(world: World, label: str) -> Made | None:
    """Does the premise imply the hypothesis, exclude it, or neither?"""
    if world.chance(0.06):
        pair: tuple[Statement, Statement] | None = opposed(world, label)
    else:
        pair = related(world, label, world.draw.state() if world.chance(0.15) else world.draw.event())
    texts = world.say_pair(*pair) if pair else None
    return Made(texts, label, pair) if texts and pair else None


def rte(world: World, label: str) -> Made | None:
    """mnli with two labels, and often a premise of two clauses, one of which matters.

    What does not follow is mostly neutral, and negated as what does follow: counting negations helps little. (Half of
    the neutral pairs drawn are thrown away for that, hence the 0.85.)
    """
    relation = label if label == "entailment" else "neutral" if world.chance(0.85) else "contradiction"
    pair = related(world, relation, world.draw.event(["name", "name", "a", "every"], places=0.35, times=0.35))
    if pair is None or (relation == "neutral" and pair[0].negated != pair[1].negated):
        return None
    rest = world.draw.event(["name", "a"], places=0.2, times=0.2)
    both = [world.speaker.say(pair[0]), world.speaker.say(rest)]
    if world.chance(0.5):
        both.reverse()
    joined = f"{both[0].removesuffix(' .')} and {both[1]}"
    premise = world.say(pair[0]) if world.chance(0.5) else world.keep(lambda: joined)
    hypothesis = world.say(pair[1], unlike=premise)
    return Made((premise, hypothesis), label, (*pair, rest)) if premise and hypothesis else None


def qqp(world: World, label: str) -> Made | None:
    """Do two questions ask the same? label: "1" or "0"."""
    s = world.draw.event(ANYBODY, places=0.35, times=0.35)
    slot = other = world.slot(s)
    t: Statement | None = s
    if label == "0":
        slots = [name for name in ("place", "time") if getattr(s, name) and name != slot]
        if slots and slot in ("place", "time") and world.chance(0.3):
            other = slots[0]
        else:
            t = world.neighbour(s, slot, ("other", "other", "swap", "weaker", "stronger"))
    if t is None:
        return None
    (s, slot), (t, other) = world.either_way((s, slot), (t, other))
    first = world.ask(s, slot)
    # duplicates must be worded unlike each other: so must the others, or rare words would tell
    shadow = first if label == "1" else world.ask(t, other)
    second = world.ask(t, other, unlike=shadow) if first else None
    return Made((first, second), label, (s, slot, t, other)) if first and second else None


def mrpc(world: World, label: str) -> Made | None:
    """Do two longer sentences say the same? label: "1" or "0"."""
    s = world.draw.event(ANYBODY, adjectives=0.2, places=0.5, times=0.5)
    t = s if label == "1" else world.neighbour(s, None, ("other", "other", "swap", "weaker", "stronger"))
    if t is None:
        return None
    s, t = world.either_way(s, t)
    who = world.rng.choice(words.NAMES) if world.chance(0.4) else None
    first = world.keep(lambda: reported(world, s, who))
    second = world.keep(lambda: reported(world, t, who), unlike=first) if first else None
    return Made((first, second), label, (s, t)) if first and second else None


def reported(world: World, s: Statement, who: str | None) -> str:
    """The statement as somebody's report, or bare where there is nobody."""
    said = world.speaker.say(s)
    if who is None:
        return said
    return f"{who} said that {said}" if world.chance(0.5) else f"{said.removesuffix(' .')} , {who} said ."


def qnli(world: World, label: str) -> Made | None:
    """Does the sentence answer the question? label: "entailment" or "not_entailment".

    From s, and t with a part more general or left out: half of the questions are about t, and a quarter of the
    sentences say t, under either label.
    """
    s = world.draw.event(ANYBODY, places=0.35, times=0.35)
    slot = world.slot(s)
    t = world.neighbour(s, slot, ("weaker",))
    if t is None:
        return None
    form = world.rng.randrange(4)
    if label == "entailment":
        asked, said = ((t, s), (t, t), (s, s), (s, s))[form]
    elif form == 0:
        asked, said = s, t  # t leaves something open that a question about s is particular about
    else:
        said = s
        other = world.neighbour(s if form == 1 else t, slot, ("other", "other", "swap"))
        if other is None or not differs(s, other, slot):
            return None
        asked = other
    question, sentence = world.ask(asked, slot), world.say(said)
    return Made((question, sentence), label, (asked, slot, said)) if question and sentence else None


def differs(s: Statement, u: Statement, slot: str) -> bool:
    """Is some part of the question about u, besides the asked one, unrelated to what s says there?"""
    for name in ("subject", "object", "predicate", "place", "time"):
        mine, theirs = getattr(s, name), getattr(u, name)
        if name == slot or theirs is None:
            continue
        if mine is None:
            return True
        if not isinstance(mine, str):
            mine, theirs = mine.noun, theirs.noun
        person = mine in words.NAMES and theirs == "person"
        if theirs not in (words.ancestors(mine) if mine not in words.NAMES else [mine]) and not person:
            return True
    return False


RELATED, SAME = 0.6, 1.0  # points for a part that is more general or special, and for an equal one


def stsb(world: World, label: str) -> Made | None:
    """How alike are two sentences? The points of five parts, in all from 0 to 5; label: about how many, "0" … "5"."""
    s = world.draw.event(ANYBODY, adjectives=0.0, places=1.0, times=1.0)
    t, total = s, 0.0
    kept = set(world.rng.sample(range(5), int(label)))
    for i, name in enumerate(("subject", "predicate", "object", "place", "time")):
        if i in kept:
            total += SAME
            continue
        kind = "weaker" if world.chance(0.35) and name != "time" else "other"
        edited = changed(world, t, name, kind)
        if edited is None:
            return None
        t = edited
        total += RELATED if kind == "weaker" else 0.0
    s, t = world.either_way(s, t)
    texts = world.say_pair(s, t)
    return Made(texts, f"{total:.2f}", (s, t)) if texts else None


def changed(world: World, s: Statement, name: str, kind: str) -> Statement | None:
    """The statement with that part alone made more general, or replaced by an unrelated one."""
    if name == "predicate" and kind == "other":  # a verb of another family, for the same sort of object
        family = words.BEING_VERBS if s.predicate in words.BEING_VERBS else words.THING_VERBS
        mine = words.ancestors(s.predicate)[-1]
        verbs = [verb for verb in family if words.ancestors(verb)[-1] != mine]
        return replace(s, predicate=world.rng.choice(verbs))
    for _ in range(30):
        edited = world.draw.edit(s, kind)
        if edited and getattr(edited, name) != getattr(s, name) and getattr(edited, name) is not None:
            unchanged = replace(edited, **{name: getattr(s, name)})
            if unchanged == s:
                return edited
    return None
