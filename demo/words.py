"""The world's words: nouns under more general nouns, verbs likewise, adjectives with opposites, names, places, times.

A concept is named by its first word; the words behind "/" mean the same.
"""

from typing import NamedTuple

NAMES = ["anna", "tom", "maria", "john", "lucy", "peter", "sara", "david", "emma", "paul", "nina", "mark"]

# more general concept: the concepts under it, one level down
KINDS = {
    "person": "doctor/physician teacher/instructor farmer sailor singer soldier baker artist child/kid",
    "artist": "painter poet dancer",
    "animal": "dog/hound cat horse/steed cow goat bird",
    "bird": "crow owl parrot duck",
    "vehicle": "car/automobile truck/lorry bus boat/ship bicycle/bike",
    "tool": "hammer knife saw ladder rope",
    "fruit": "apple pear plum lemon",
    "garment": "coat/jacket hat/cap shirt scarf",
    "instrument": "violin/fiddle piano drum flute",
    "seat": "chair sofa/couch bench stool",
    "text": "book letter/note poem map",
}
ANIMATE = ("person", "animal")
THINGS = ("vehicle", "tool", "fruit", "garment", "instrument", "seat", "text")
PLURALS = {"person": "people", "child": "children", "knife": "knives"}

# more general concept: the concepts under it. Each concept's words as base,past,participle
VERBS_OF_BEINGS = {
    "help,helped,helped/assist,assisted,assisted": "save,saved,saved/rescue,rescued,rescued "
    "teach,taught,taught/instruct,instructed,instructed",
    "follow,followed,followed": "chase,chased,chased/pursue,pursued,pursued hunt,hunted,hunted",
    "notice,noticed,noticed": "watch,watched,watched/observe,observed,observed hear,heard,heard",
    "meet,met,met/encounter,encountered,encountered": "greet,greeted,greeted/welcome,welcomed,welcomed "
    "visit,visited,visited",
}
VERBS_OF_THINGS = {
    "get,got,got/obtain,obtained,obtained": "buy,bought,bought/purchase,purchased,purchased "
    "borrow,borrowed,borrowed steal,stole,stolen",
    "move,moved,moved": "push,pushed,pushed/shove,shoved,shoved pull,pulled,pulled/drag,dragged,dragged "
    "carry,carried,carried",
    "damage,damaged,damaged/harm,harmed,harmed": "break,broke,broken/smash,smashed,smashed cut,cut,cut "
    "burn,burned,burned",
    "clean,cleaned,cleaned": "wash,washed,washed wipe,wiped,wiped",
}

# exclusive pairs: nothing is both, something may be neither
STATES = "happy/glad:sad/unhappy hungry:full awake:asleep sick/ill:healthy rich/wealthy:poor calm/quiet:angry/furious"
LOOKS = "old/ancient:new/modern big/large:small/little clean:dirty/filthy cheap:costly/expensive heavy:light"

PLACES = {  # more general: more special
    "outside/outdoors": "in the park,in the garden,on the beach,near the river,on the farm,in the forest",
    "inside/indoors": "in the kitchen,at the station,in the school,in the shop,at the museum,in the barn",
}
TIMES = "yesterday,on monday,on friday,at night,in the morning,last week,in may,in winter"
TIME_WORDS = {"at night": "during the night", "in winter": "during the winter"}


class Verb(NamedTuple):
    """The forms of a verb."""

    base: str
    past: str
    participle: str


def _concepts(groups: dict[str, str], separator: str = " ") -> tuple[dict[str, str], dict[str, list[str]]]:
    """(concept -> the more general one, concept -> its words)"""
    parent: dict[str, str] = {}
    words: dict[str, list[str]] = {}
    for general, special in groups.items():
        above = general.split("/")
        words.setdefault(above[0], above)
        for entry in special.split(separator):
            below = entry.split("/")
            words[below[0]] = below
            parent[below[0]] = above[0]
    return parent, words


def _verbs(groups: dict[str, str]) -> tuple[dict[str, str], dict[str, list[Verb]]]:
    parent, words = _concepts(groups)
    base = {concept: concept.split(",")[0] for concept in words}
    forms = {base[c]: [Verb(*entry.split(",")) for entry in entries] for c, entries in words.items()}
    return {base[c]: base[p] for c, p in parent.items()}, forms


def _opposites(text: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    opposite: dict[str, str] = {}
    words: dict[str, list[str]] = {}
    for pair in text.split():
        first, second = (side.split("/") for side in pair.split(":"))
        opposite |= {first[0]: second[0], second[0]: first[0]}
        words |= {first[0]: first, second[0]: second}
    return opposite, words


NOUN_PARENT, NOUN_WORDS = _concepts(KINDS)
BEING_VERB_PARENT, BEING_VERBS = _verbs(VERBS_OF_BEINGS)
THING_VERB_PARENT, THING_VERBS = _verbs(VERBS_OF_THINGS)
VERB_PARENT, VERB_WORDS = BEING_VERB_PARENT | THING_VERB_PARENT, BEING_VERBS | THING_VERBS
STATE_OPPOSITE, STATE_WORDS = _opposites(STATES)
LOOK_OPPOSITE, LOOK_WORDS = _opposites(LOOKS)
PLACE_PARENT, PLACE_WORDS = _concepts(PLACES, ",")
TIME_LIST = TIMES.split(",")
TIME_FORMS = {time: [time, *([TIME_WORDS[time]] if time in TIME_WORDS else [])] for time in TIME_LIST}

PARENT = NOUN_PARENT | VERB_PARENT | PLACE_PARENT
"""Every concept -> the next more general one; those at the top are missing."""


def ancestors(concept: str) -> list[str]:
    """The concept and everything more general."""
    chain = [concept]
    while chain[-1] in PARENT:
        chain.append(PARENT[chain[-1]])
    return chain


def children(concept: str) -> list[str]:
    """The concepts one level below."""
    return [c for c, p in PARENT.items() if p == concept]


def leaves(concept: str) -> list[str]:
    """The most special concepts below, or the concept itself."""
    below = children(concept)
    return [leaf for c in below for leaf in leaves(c)] if below else [concept]


ANIMATE_NOUNS = [n for n in NOUN_WORDS if set(ancestors(n)) & set(ANIMATE)]
THING_NOUNS = [n for n in NOUN_WORDS if set(ancestors(n)) & set(THINGS)]
BEING_STATES = list(STATE_OPPOSITE)


def plural(word: str) -> str:
    """The plural of a noun's word."""
    if word in PLURALS:
        return PLURALS[word]
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")
