"""What an object is in words (a Description), drawn at random, and the object that it stands for.

A description may be built many times: each build draws new proportions, so several renders of one description
differ as much as the data does. That is the yardstick for a generated picture of the same prompt.
"""
import bisect
import itertools
import random
import zlib
from dataclasses import asdict, dataclass, field

import numpy as np

from . import figures, home, nature, vehicles  # noqa: F401  (they fill THINGS)
from .palette import FINISH, MAIN_COLOURS, MATERIALS, PATTERN_COLOURS, PATTERNS, RGB, SHADES, TONES, finish_of_tone
from .registry import THINGS
from .shape import HEADER, MATERIAL, OBJECT, PRIMITIVE, PRIMITIVES, Shape
from .shape import MATERIALS as SLOTS

THING_NAMES = sorted(THINGS)
COLOUR_NAMES = list(MAIN_COLOURS)
PATTERN_NAMES = ["plain", *PATTERNS]
SIZE_NAMES = ["normal", "tall", "short"]
PART_NAMES = sorted({part for t in THINGS.values() for part in t.parts})
_CUMULATIVE = list(itertools.accumulate(THINGS[n].weight for n in THING_NAMES))


@dataclass
class Description:
    """thing: a key of THINGS; colour, material: named or None; pattern: a key of PATTERNS with pattern_colour, or None;
    parts: {part: colour}; size: "normal", "tall" or "short"."""
    thing: str
    colour: str = None
    material: str = None
    pattern: str = None
    pattern_colour: str = None
    parts: dict = field(default_factory=dict)
    size: str = "normal"

    def as_dict(self):
        return asdict(self)


class Random(random.Random):
    """Draws proportions: r(a, b) is uniform, r.chance(p) a coin, r.whole(a, b) an integer, both ends included."""

    def __init__(self, seed):
        super().__init__(seed)
        self.wheel = .2

    def __call__(self, low, high):
        return low + (high - low) * self.random()

    def chance(self, probability):
        return self.random() < probability

    def whole(self, low, high):
        return low + int(self.random() * (high - low + 1))

    def sign(self):
        return 1 if self.random() < .5 else -1

    def pick(self, items):
        return items[int(self.random() * len(items))]


def held_out(thing_name, colour):
    """Pairs of thing and main colour that training never names: one in six, never a thing's usual colour."""
    usual = THINGS[thing_name].tones.get(0, [])
    return colour in MAIN_COLOURS and colour not in usual and zlib.crc32(f"{thing_name}/{colour}".encode()) % 6 == 0


def held_out_pairs():
    return [(t, c) for t in THING_NAMES for c in COLOUR_NAMES if held_out(t, c)]


def _draw_part(r, thing, taken):
    part = r.pick(sorted(thing.parts))
    return (part, r.pick(COLOUR_NAMES)) if thing.parts[part] not in taken else None


def draw(r, thing_name=None):
    """A random description of the training distribution; never a held-out pair."""
    if thing_name is None:
        thing_name = THING_NAMES[bisect.bisect(_CUMULATIVE, r.random() * _CUMULATIVE[-1])]
    thing, d = THINGS[thing_name], Description(thing_name)
    if thing.materials and r.chance(.33):
        d.material = r.pick(thing.materials)
    if r.chance(.8):
        colour = r.pick(COLOUR_NAMES) if r.chance(.88) else r.pick(list(SHADES))
        metal = colour in ("golden", "silver")
        if not held_out(thing_name, colour) and not (metal and d.material not in (None, "metal")):
            d.colour = colour
    if thing.pattern and d.material != "glass" and r.chance(.24):
        d.pattern = r.pick(list(PATTERNS))
        d.pattern_colour = r.pick([c for c in PATTERN_COLOURS if c != d.colour])
    if thing.parts and r.chance(.2 if d.pattern else .48):
        taken = {0} if d.colour or d.material or d.pattern else set()
        for _ in range(2 if r.chance(.3) else 1):
            drawn = _draw_part(r, thing, taken)
            if drawn and not (thing.parts[drawn[0]] == 0 and held_out(thing_name, drawn[1])):
                d.parts[drawn[0]] = drawn[1]
                taken.add(thing.parts[drawn[0]])
    if thing.size and r.chance(.2):
        d.size = "tall" if r.chance(.5) else "short"
    return d


def _slot_colours(r, d, thing):
    """The colour name of every slot: named parts first, then the thing's own palettes."""
    named = {thing.parts[part]: colour for part, colour in d.parts.items()}
    base = named.get(0) or d.colour or (r.pick(MATERIALS[d.material][2]) if d.material else r.pick(thing.tones[0]))
    if d.pattern and base == d.pattern_colour:
        choices = [c for c in thing.tones[0] if c != base] or ["blue"]
        base = r.pick(choices)
    slots = [base]
    whole = d.material in ("wood", "metal", "stone", "glass")  # carved from one piece, now and then
    for slot in range(1, SLOTS):
        palette = thing.tones.get(slot, ["charcoal"])
        choice = palette if isinstance(palette, str) else r.pick(palette)
        tone = slots[int(choice)] if choice.isdigit() else base if choice == "=" else choice
        if whole and slot in thing.parts.values() and choice != "=" and r.chance(.3):
            tone = base
        slots.append(named.get(slot, tone))
    return slots


def _slot_finish(r, d, thing, slots):
    """The finish of every slot, as a name."""
    base = "metal" if slots[0] in ("golden", "silver") else d.material or r.pick(thing.finish)
    if base == "wood" and d.material is None and finish_of_tone(slots[0], "wood") != "wood":
        base = "plastic"  # a red chair is painted, not grained
    finishes = [base]
    for tone in slots[1:]:
        finishes.append(base if tone == slots[0] else finish_of_tone(tone, base))
    return finishes


def build(d, seed):
    """-> (object [OBJECT] float32 as render.cu reads it, slot colour names)"""
    r = Random(seed)
    thing = THINGS[d.thing]
    r.wheel = r(.15, .23)
    slots = _slot_colours(r, d, thing)
    finishes = _slot_finish(r, d, thing, slots)
    tall = {"normal": 1., "tall": r(1.32, 1.6), "short": r(.52, .72)}[d.size]
    shape = Shape()
    thing.build(shape, r, tall)
    if len(shape.primitives) > PRIMITIVES:
        raise ValueError(f"{d.thing}: {len(shape.primitives)} primitives, at most {PRIMITIVES}")
    o = np.zeros(OBJECT, np.float32)
    o[0], o[4], o[5] = len(shape.primitives), 1., .94 * r(.9, 1.)
    side, up = r(.92, 1.08), {"normal": r(.88, 1.12), "tall": r(1., 1.1), "short": r(.9, 1.)}[d.size]
    o[6:9] = side, side * r(.94, 1.06), up  # stretch of the whole object
    number, frequency = 0, 0.
    if d.pattern:
        number = PATTERNS[d.pattern][0]
        frequency = r(1.4, 2.5) if number == 1 else r(1.6, 2.3) if number == 2 else r(1.1, 1.7)
    drift = [r(-.045, .045) for _ in range(3)]
    for slot in range(SLOTS):
        q = HEADER + slot * MATERIAL
        patterned = slots[slot] == slots[0] and (slot == 0 or thing.tones.get(slot) == "=")
        for k in range(3):
            o[q + k] = min(1., max(0., RGB[slots[slot]][k] + drift[k] + r(-.025, .025)))
            o[q + 3 + k] = RGB[d.pattern_colour][k] if d.pattern else 0
        o[q + 6:q + 11] = number if patterned else 0, frequency, r.random(), FINISH[finishes[slot]], "zyx".index(thing.pattern or "z")
    at = HEADER + SLOTS * MATERIAL
    for i, p in enumerate(shape.primitives):
        o[at + i * PRIMITIVE:at + i * PRIMITIVE + len(p)] = p
    return o, slots


def main_colour(d):
    """The main colour that a prompt names: the colour word, or a coloured part that is the thing's main surface."""
    named = [c for part, c in d.parts.items() if THINGS[d.thing].parts[part] == 0]
    return d.colour or (named[0] if named else None)


__all__ = ["Description", "Random", "THINGS", "THING_NAMES", "COLOUR_NAMES", "PATTERN_NAMES", "SIZE_NAMES", "PART_NAMES", "TONES",
           "OBJECT", "build", "draw", "held_out", "held_out_pairs", "main_colour"]
