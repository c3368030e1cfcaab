"""Colours and finishes of the procedural objects, and the words for them.

Neutral tones carry a slight tint, so that no lit surface has exactly the grey of the background (0.5): masks are
cut from the colour at the border of a view.
"""

# The colours that a prompt names, that the held-out split counts and that the judge tells apart.
MAIN_COLOURS = {
    "red": (.84, .12, .10), "orange": (.96, .48, .08), "yellow": (.96, .84, .14), "green": (.16, .60, .20),
    "blue": (.12, .27, .84), "purple": (.50, .17, .70), "pink": (.98, .54, .72), "brown": (.44, .26, .13),
    "black": (.08, .08, .10), "white": (.95, .94, .89), "teal": (.08, .62, .62), "golden": (.93, .70, .22),
    "grey": (.60, .64, .72),
}

# Further colours that a prompt may name; the judge does not score them.
SHADES = {
    "light blue": (.52, .72, .95), "dark green": (.07, .33, .12), "dark red": (.48, .06, .07),
    "dark blue": (.06, .10, .42), "light green": (.55, .85, .38), "beige": (.88, .79, .62), "silver": (.66, .70, .76),
}

# Colours that only palettes use, never captions.
TONES = {
    "steel": (.62, .67, .74), "rock": (.66, .60, .51), "oak": (.66, .43, .22), "walnut": (.40, .24, .12),
    "pine wood": (.80, .60, .36), "skin": (.95, .74, .55), "terracotta": (.74, .38, .22), "waffle": (.82, .58, .28),
    "dough": (.80, .55, .28), "clear": (.72, .88, .86), "window": (.45, .65, .80), "charcoal": (.24, .24, .28),
    "chocolate": (.32, .17, .09), "cream": (.95, .90, .76), "leaf": (.22, .55, .16), "flame": (1., .70, .15),
    "straw": (.88, .76, .40), "peel": (.95, .80, .18), "carrot": (.95, .45, .10), "patty": (.36, .19, .10),
}

RGB = {**MAIN_COLOURS, **SHADES, **TONES}

COLOUR_SYNONYMS = {
    "golden": ["gold"], "grey": ["gray"], "purple": ["violet"], "teal": ["turquoise"], "dark blue": ["navy", "navy blue"],
    "light green": ["lime green"], "red": ["scarlet"], "brown": ["tan brown"],
}

# Finish numbers of render.cu.
FINISH = {"matte": 0, "plastic": 1, "ceramic": 2, "wood": 3, "metal": 4, "stone": 5, "glass": 6}

# material: (words before the noun, word after "made of", tones when no colour is named)
MATERIALS = {
    "ceramic": (["ceramic", "porcelain", "ceramic"], "ceramic", ["white", "cream", "white", "light blue"]),
    "wood": (["wooden", "wooden", "wood"], "wood", ["oak", "oak", "pine wood", "walnut"]),
    "metal": (["metal", "metallic", "steel"], "metal", ["steel"]),
    "stone": (["stone", "stone", "rock"], "stone", ["rock"]),
    "plastic": (["plastic"], "plastic", ["red", "blue", "green", "yellow", "white", "orange"]),
    "glass": (["glass"], "glass", ["clear"]),
}

# pattern: (number of render.cu, words before the noun, words after "with COLOUR")
PATTERNS = {
    "striped": (1, ["striped", "striped", "stripy"], ["stripes"]),
    "spotted": (2, ["spotted", "polka dot", "dotted"], ["spots", "dots", "polka dots"]),
    "checkered": (4, ["checkered", "chequered", "checked"], ["checks", "squares"]),
}
PATTERN_COLOURS = ["white", "black", "yellow", "red", "blue", "green", "pink"]

ANY = ("ceramic", "wood", "metal", "stone", "plastic", "glass")
HARD = ("wood", "metal", "stone", "plastic")
BRIGHT = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "teal", "light blue", "black"]
WOODS = ["oak", "walnut", "pine wood"]


def finish_of_tone(tone, around):
    """Finish of a part that has its own colour: what the colour suggests, else plain beside shiny and matte beside matte."""
    if tone in ("steel", "golden", "silver"):
        return "metal"
    if tone in WOODS:
        return "wood"
    if tone == "rock":
        return "stone"
    if tone == "clear":
        return "glass"
    return "plastic" if around in ("glass", "metal", "ceramic") else "matte"
