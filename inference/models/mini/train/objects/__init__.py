"""Procedural objects: what they are (description), how they are put (caption) and what they are made of (shape)."""
from .caption import caption
from .description import (COLOUR_NAMES, PART_NAMES, PATTERN_NAMES, SIZE_NAMES, THING_NAMES, Description, Random, build, draw, held_out,
                          held_out_pairs, main_colour)
from .registry import THINGS
from .shape import OBJECT

__all__ = ["COLOUR_NAMES", "PART_NAMES", "PATTERN_NAMES", "SIZE_NAMES", "THING_NAMES", "THINGS", "OBJECT", "Description", "Random", "build",
           "caption", "draw", "held_out", "held_out_pairs", "main_colour"]
