"""The table of known things. A thing is a function that fills a Shape; a decorator records its words and habits."""
from collections import namedtuple

# name      the thing's own word, the judge's class
# build     function (shape, r, tall): fills the shape; r(a, b) draws a proportion, tall scales the height
# nouns     words for it, the first one the most usual (repeat a word to make it more frequent)
# parts     {word: slot}: parts whose colour a prompt may name
# tones     {slot: palette}; "=" copies slot 0, "1" copies slot 1
# finish    finishes when the prompt names no material
# materials materials that a prompt may name
# pattern   axis along which stripes follow one another ("x", "y" or "z"), or None where no pattern suits it
# size      whether tall and short suit it
# uses      words after "for" ("mug for coffee")
# weight    how often it is drawn in training
Thing = namedtuple("Thing", "name build nouns parts tones finish materials pattern size uses weight")

THINGS = {}


def thing(nouns, parts=None, tones=None, finish=("plastic",), materials=(), pattern=None, size=False, uses=(), weight=1.0):
    def record(build):
        name = build.__name__.replace("_", " ")
        THINGS[name] = Thing(name, build, nouns, parts or {}, tones or {}, finish, materials, pattern, size, uses, weight)
        return build
    return record
