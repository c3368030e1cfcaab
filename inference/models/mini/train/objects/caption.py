"""Prompts for a description, in many phrasings: the model must not care about articles, plurals or word order."""
from .palette import COLOUR_SYNONYMS, MATERIALS, PATTERNS
from .registry import THINGS

FILLERS = ["cute", "beautiful", "detailed", "simple", "old", "new", "nice", "small", "big", "little", "large", "stylized", "cartoon",
           "realistic", "shiny", "pretty", "tiny", "elegant", "low poly", "fancy", "lovely", "classic", "modern", "vintage", "medieval",
           "fantasy", "antique", "rustic", "futuristic", "minimalist", "magic", "handmade", "colorful", "photorealistic", "heavy", "giant",
           "huge", "mini", "funny", "traditional", "solid", "single", "one", "my", "plain", "perfect", "low-poly"]
TAILS = ["high quality", "highly detailed", "4k", "studio light", "game asset", "render", "isometric", "clean background",
         "best quality", "3d render", "white background", "centered", "8k", "please"]
OPENINGS = ["a 3d model of {a}", "a render of {a}", "a photo of {a}", "a picture of {a}", "an image of {a}", "3d model of {a}", "make me {a}",
            "i want {a}", "draw {a}", "generate {a}", "create {a}", "show me {a}", "please make {a}"]
SIZES = {"tall": ["tall", "tall", "high"], "short": ["short", "squat", "low"]}
_NO_ARTICLE = ("icing", "frosting", "hair")
_IRREGULAR = {"fish": "fish", "goldfish": "goldfish", "toy fish": "toy fish", "planet with rings": "planets with rings", "weights": "weights",
              "shelf": "shelves", "bookshelf": "bookshelves"}


def article(phrase):
    return "an" if phrase[0] in "aeiou" else "a"


def plural(noun):
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _colour_word(r, colour):
    synonyms = COLOUR_SYNONYMS.get(colour)
    return r.pick(synonyms) if synonyms and r.chance(.25) else colour


def _part_phrase(r, d):
    """"a red handle and blue legs" """
    phrases = []
    for part, colour in d.parts.items():
        word = _colour_word(r, colour)
        bare = part in _NO_ARTICLE or part.endswith("s") or r.chance(.15)
        phrases.append(f"{word} {part}" if bare else f"{article(word)} {word} {part}")
    return " and ".join(phrases)


def _pattern_words(r, d, colours):
    """-> (words before the noun, phrase after "with"); the colour word moves into "red and white striped"."""
    _, before, after = PATTERNS[d.pattern]
    if d.colour and r.chance(.4):
        both = [colours.pop(), d.pattern_colour]
        if r.chance(.3):
            both.reverse()
        return [f"{both[0]} and {both[1]} {r.pick(before)}"], ""
    if d.pattern_colour == "white" and r.chance(.5):
        return [r.pick(before)], ""
    return [], f"{d.pattern_colour} {r.pick(after)}"


def _noun(r, d):
    noun = r.pick(THINGS[d.thing].nouns)
    return plural(noun) if r.chance(.06) else noun


def caption(d, r, plain=False):
    """A prompt for the description. plain leaves out filler words and quality tails."""
    noun = _noun(r, d)
    colours = [_colour_word(r, d.colour)] if d.colour else []
    before, withs, after = [], [], ""
    if d.size != "normal":
        before.append(r.pick(SIZES[d.size]))
    if d.pattern:
        words, phrase = _pattern_words(r, d, colours)
        before += words
        withs += [phrase] if phrase else []
    if d.parts:
        withs.append(_part_phrase(r, d))
    materials = []
    if d.material:
        words, made_of, _ = MATERIALS[d.material]
        style = r.random()
        if style < .2:
            after = f" made of {made_of}"
        elif style < .25:
            after = f" made from {made_of}"
        elif style < .27:
            after = f" in {made_of}"
        else:
            materials = [r.pick(words)]
    middle = colours + materials if r.chance(.7) else materials + colours
    if not plain and r.chance(.28):
        before.insert(0, r.pick(FILLERS))
    uses = THINGS[d.thing].uses
    if uses and r.chance(.07):
        noun += f" for {r.pick(uses)}"
    tail = f" {'with' if r.chance(.94) else 'and'} {' and '.join(withs)}" if withs else ""
    order = r.random()
    if order < .05 and middle:  # "mug, red ceramic" and "mug red ceramic"
        phrase = " ".join(before + [noun]) + r.pick([", ", " "]) + " ".join(middle) + after + tail
    elif order < .09 and colours:  # "a ceramic mug in red"
        phrase = " ".join(before + materials + [noun]) + r.pick([" in ", " that is ", " coloured "]) + colours[0] + after + tail
    else:
        if r.chance(.3):
            r.shuffle(before)
        phrase = " ".join(before + middle + [noun]) + after + tail
    with_article = f"{article(phrase)} {phrase}"
    opening = r.random()
    if opening < .52:
        text = with_article
    elif opening < .8:
        text = phrase
    elif opening < .86:
        text = f"the {phrase}"
    elif opening < .88:
        text = f"{'a' if article(phrase) == 'an' else 'an'} {phrase}"  # the wrong article
    else:
        text = r.pick(OPENINGS).format(a=with_article if r.chance(.85) else phrase)
    if not plain and r.chance(.12):
        text += ", " + r.pick(TAILS)
    if not plain and r.chance(.2):
        text += ", 3d asset"
    return text


def corner_cases():
    """Every noun, plural, colour and synonym once, so that the tokenizer learns them all as whole words."""
    texts = []
    for thing in THINGS.values():
        texts += [n for noun in set(thing.nouns) for n in (noun, plural(noun))] + [f"for {u}" for u in thing.uses] + list(thing.parts)
    texts += [w for words in COLOUR_SYNONYMS.values() for w in words] + FILLERS + TAILS + [o.replace("{a}", "") for o in OPENINGS]
    return texts
