"""Household things: vessels, furniture, small goods. Proportions are in units of about half the object's size."""
from .palette import ANY, BRIGHT, HARD, WOODS
from .registry import thing
from .shape import CORNERS, SIDES, polar


@thing(["mug", "mug", "coffee mug", "cup", "tea cup", "coffee cup"], {"handle": 1, "interior": 2}, {0: BRIGHT, 1: "=", 2: "="},
       ("ceramic",), ANY, pattern="z", size=True, uses=("coffee", "tea"), weight=1.8)
def mug(s, r, tall):
    R, h, wall = r(.42, .64), r(.46, .7) * tall, r(.05, .08)
    if r.chance(.25):  # wider at the rim
        top = R * r(1.05, 1.2)
        s.cone((0, 0, 0), R * .85, top, h)
        loop = min(h * .62, .42)
        s.ring((0, R + r(.02, .1), r(-.05, .05)), loop, r(.065, .1), 1, turn=("y", 90))
        s.cone((0, 0, .09), R * .85 - wall, top - wall, h, 2, carve=True)
    else:
        s.rod((0, 0, 0), R, h, r=.05)
        loop = min(h * r(.5, .7), .44)
        s.ring((0, R + r(.02, .1), r(-.08, .08)), loop, r(.065, .1), 1, turn=("y", 90))
        s.rod((0, 0, .09), R - wall, h, 2, r=.05, carve=True)


@thing(["bowl", "bowl", "soup bowl", "salad bowl"], {"rim": 1, "interior": 2}, {0: BRIGHT, 1: "=", 2: "="}, ("ceramic",), ANY,
       pattern="z", uses=("soup", "salad"))
def bowl(s, r, tall):
    a, c = r(.78, .9), r(.45, .8)
    s.ball((0, 0, .2), (a, a, c))
    s.rod((0, 0, .2 - c + .02), r(.3, .44), .06)
    s.ball((0, 0, .25), (a - .08, a - .08, c - .06), 2, carve=True)
    s.box((0, 0, .7), (1.2, 1.2, .5), 2, carve=True)
    s.ring((0, 0, .2), a - .04, .045, 1)


@thing(["bottle", "bottle", "water bottle", "wine bottle"], {"cap": 1, "label": 2},
       {0: ["green", "dark green", "brown", "blue", "clear", "white"], 1: ["red", "black", "white", "golden", "blue"],
        2: ["white", "beige", "red", "yellow"]},
       ("glass", "glass", "plastic"), ("glass", "plastic", "metal", "ceramic"), size=True, uses=("water", "wine"))
def bottle(s, r, tall):
    R, h, n = r(.24, .38), r(.38, .58) * tall, r(.08, .14)
    z = -.35 + h
    s.rod((0, 0, -.35), R, h, r=.05)
    s.cone((0, 0, z + .12), R * .96, n, .15, blend=.1)
    s.rod((0, 0, z + .36), n, .2)
    s.rod((0, 0, z + .55), n + .03, .09, 1)
    if r.chance(.6):
        s.rod((0, 0, -.38), R + .012, h * r(.35, .5), 2, r=.01)


@thing(["vase", "vase", "flower vase", "urn"], {"rim": 1, "base": 2}, {0: BRIGHT + ["terracotta"], 1: "=", 2: "="}, ("ceramic",),
       ANY, pattern="z", size=True, uses=("flowers",))
def vase(s, r, tall):
    R, h, n = r(.34, .58), r(.4, .62) * tall, r(.15, .28)
    top = h * .95
    s.rod((0, 0, -h - .08), R * .6, .06, 2)
    s.ball((0, 0, -.05), (R, R, h), blend=.1)
    s.rod((0, 0, top), n, .22, blend=.15)
    s.cone((0, 0, top + .25), n, n + r(.05, .2), .09, blend=.08)
    s.ball((0, 0, -.05), (R - .07, R - .07, h - .07), 0, carve=True)
    s.rod((0, 0, h + .1), n * .75, .5, carve=True)
    s.ring((0, 0, top + .34), n + .1, .035, 1)


@thing(["teapot", "teapot", "tea pot", "kettle"], {"lid": 1, "handle": 2, "spout": 3}, {0: BRIGHT, 1: "=", 2: "=", 3: "="},
       ("ceramic", "metal"), ("ceramic", "metal", "glass", "stone"), pattern="z", uses=("tea",))
def teapot(s, r, tall):
    R, c = r(.48, .62), r(.38, .56)
    s.ball((0, 0, 0), (R, R, c))
    s.rod((0, 0, -c + .03), R * .6, .06)
    s.ball((0, 0, c * .8), (R * .55, R * .55, .16), 1)
    s.ball((0, 0, c + .14), r(.07, .11), 1)
    s.cone((0, R + .12, .1), .15, .07, r(.26, .34), 3, turn=("x", -r(40, 58)))
    s.ring((0, -R - .04, .03), r(.23, .32), .06, 2, turn=("y", 90))


@thing(["goblet", "wine glass", "wine glass", "chalice"], {"stem": 1, "base": 1}, {0: ["clear", "golden", "steel"], 1: "="},
       ("glass", "metal"), ("glass", "metal", "wood", "ceramic"), size=True, uses=("wine",))
def goblet(s, r, tall):
    R, c, stem = r(.34, .48), r(.42, .58), .35 * tall
    s.ball((0, 0, .4), (R, R, c))
    s.ball((0, 0, .44), (R - .06, R - .06, c - .05), carve=True)
    s.box((0, 0, 1.2), (1, 1, r(.56, .66)), r=0, carve=True)
    s.rod((0, 0, -.35), r(.045, .06), stem, 1)
    s.cone((0, 0, -.35 - stem * .95), r(.3, .4), .06, .05, 1)


@thing(["bucket", "bucket", "pail"], {"handle": 1, "rim": 2, "interior": 3}, {0: BRIGHT + ["steel"], 1: ["steel", "charcoal"], 2: "=", 3: "="},
       ("plastic", "metal"), ("wood", "metal", "plastic"), pattern="z", uses=("water", "sand"))
def bucket(s, r, tall):
    top, h = r(.52, .64), r(.42, .56)
    low = top * r(.68, .82)
    s.cone((0, 0, 0), low, top, h)
    s.cone((0, 0, .08), low - .06, top - .05, h, 3, carve=True)
    s.ring((0, 0, h), top - .02, .045, 2)
    lean = r(-50, 50)
    s.ring((0, 0, h), top + .02, .03, 1, turn=[("x", 90), ("y", lean)])


@thing(["barrel", "barrel", "wine barrel", "keg"], {"bands": 1, "hoops": 1}, {0: WOODS + ["brown"], 1: ["charcoal", "steel", "black"]},
       ("wood",), ("wood", "metal", "plastic", "stone"), size=True, uses=("wine", "beer"))
def barrel(s, r, tall):
    R, h = r(.48, .64), r(.56, .76) * tall
    rim = R * .935
    s.ball((0, 0, 0), (R, R, h * 1.75))
    s.box((0, 0, 0), (1, 1, h), r=0, clip=True)
    for z in (-.62, .62):
        s.rod((0, 0, z * h), rim + .02, .055, 1, r=.01)
    s.rod((0, 0, h), rim * .82, .05 if r.chance(.6) else h * 1.2, carve=True)


@thing(["candle", "candle", "burning candle"], {"flame": 1, "holder": 2},
       {0: ["white", "cream", "red", "pink", "purple", "green", "blue"], 1: ["flame"], 2: ["golden", "steel", "brown"], 3: ["black"]},
       ("plastic",), (), pattern="z", size=True)
def candle(s, r, tall):
    R, h = r(.2, .36), r(.36, .62) * tall
    s.rod((0, 0, 0), R, h)
    s.rod((0, 0, h + .05), .02, .07, 3)
    s.ball((0, 0, h + .22), (.09, .09, r(.14, .18)), 1)
    s.rod((0, 0, -h), .54, .05, 2)
    s.ring((0, 0, -h + .03), .5, .04, 2)


@thing(["lamp", "lamp", "table lamp", "desk lamp"], {"shade": 0, "base": 1},
       {0: ["cream", "white", "yellow", "red", "beige", "light blue"], 1: ["golden", "black", "steel", "oak", "white"]},
       ("matte",), ("metal", "ceramic", "wood"), pattern="z", size=True, uses=("reading",))
def lamp(s, r, tall):
    h = r(.46, .64) * tall
    s.rod((0, 0, -h - .1), r(.28, .4), .06, 1)
    if r.chance(.5):
        s.ball((0, 0, -h * .45), (.24, .24, h * .5), 1)
    s.rod((0, 0, -.1), .045, h, 1)
    R = r(.4, .58)
    s.cone((0, 0, h * .75), R, R * r(.4, .85), r(.26, .36), 0)


@thing(["light bulb", "light bulb", "bulb"], {"base": 1}, {0: ["yellow", "white", "clear", "cream"], 1: ["steel"], 2: ["charcoal"]},
       ("glass", "ceramic"), ("glass", "metal", "plastic"))
def light_bulb(s, r, tall):
    R = r(.44, .54)
    s.ball((0, 0, .3), (R, R, R * r(1., 1.15)))
    s.cone((0, 0, -.22), .2, R * .78, .22, blend=.15)
    for i in range(3):
        s.rod((0, 0, -.48 - i * .12), .21, .05, 1, r=.04)
    s.cone((0, 0, -.84), .08, .17, .06, 2)


@thing(["chair", "chair", "dining chair", "kitchen chair"], {"legs": 1, "seat": 2, "backrest": 3},
       {0: WOODS + ["red", "blue", "white", "black", "green"], 1: "=", 2: "=", 3: "="}, ("wood", "plastic", "wood"), HARD, weight=1.3)
def chair(s, r, tall):
    w, leg, h, back = r(.38, .52), r(.045, .07), r(.34, .5), r(.38, .6)
    for x, y in CORNERS:
        s.box((x * (w - leg), y * (w - leg), -h), (leg, leg, h), 1)
    s.box((0, 0, .04), (w, w, .06), 2)
    if r.chance(.5):
        s.box((-w + .05, 0, back + .08), (.045, w, back), 3)
        return
    for y in SIDES:
        s.box((-w + .05, y * (w - leg), back + .05), (leg, leg, back), 3)
    for k in range(3):
        s.box((-w + .05, 0, .3 + k * (back * 2 - .25) / 2.2), (.035, w - .05, .07), 3)


@thing(["stool", "stool", "bar stool"], {"legs": 1, "seat": 2}, {0: WOODS + ["red", "black", "white"], 1: "=", 2: "="},
       ("wood", "plastic"), HARD, size=True)
def stool(s, r, tall):
    R, h = r(.38, .54), r(.46, .64) * tall
    s.rod((0, 0, h), R, .08, 2, r=.05)
    legs, start = (3 if r.chance(.4) else 4), r(0, 90)
    for i in range(legs):
        a = start + 360 / legs * i
        s.rod((*polar(R * .82, a), -.02), .055, h, 1, turn=[("y", -11), ("z", a)])
    s.ring((0, 0, -h * .35), R * .9, .03, 1)


@thing(["table", "table", "dining table", "coffee table", "desk"], {"legs": 1, "top": 2}, {0: WOODS + ["white", "black"], 1: "=", 2: "="},
       ("wood",), HARD + ("glass",), weight=1.2)
def table(s, r, tall):
    h, x0, y0 = r(.26, .52), r(.45, .68), r(.72, .98)
    if r.chance(.6):
        s.box((0, 0, h), (x0, y0, .06), 2)
        for x, y in CORNERS:
            s.box((x * (x0 - .1), y * (y0 - .1), -.03), (.06, .06, h), 1)
    else:
        R = r(.66, .88)
        s.rod((0, 0, h), R, .06, 2)
        s.rod((0, 0, 0), r(.07, .12), h, 1)
        s.rod((0, 0, -h), R * .5, .05, 1)


@thing(["bench", "bench", "park bench"], {"legs": 1, "seat": 0}, {0: WOODS + ["green", "white"], 1: ["charcoal", "black", "walnut"]},
       ("wood",), HARD)
def bench(s, r, tall):
    w, h, back = r(.8, .98), r(.2, .3), r(.22, .34)
    for x in (-.2, 0, .2):
        s.box((x, 0, 0), (.085, w, .04), r=.02)
    for z in (.4, .85):
        s.box((-.3, 0, z * back * 2), (.035, w, back * .36), r=.02, turn=("y", -8))
    for y in SIDES:
        s.box((0, y * w * .78, -h), (.28, .06, h), 1)
        s.box((-.29, y * w * .78, back), (.04, .05, back), 1, turn=("y", -8))


@thing(["bed", "bed", "double bed", "single bed"], {"blanket": 0, "pillow": 2, "frame": 1},
       {0: BRIGHT, 1: WOODS + ["white"], 2: ["white", "cream"], 3: ["white"]}, ("matte",), (), pattern="y")
def bed(s, r, tall):
    w = r(.46, .74)
    s.box((0, 0, -.22), (.9, w, .1), 1)
    s.box((0, 0, -.06), (.86, w - .03, .11), 3, r=.06)
    s.box((.2, 0, -.02), (.66, w + .01, .115), 0, r=.06)
    s.box((-.9, 0, .08), (.045, w, r(.34, .5)), 1)
    for y in (SIDES if w > .6 else (0,)):
        s.box((-.66, y * w * .48, .09), (.16, w * (.36 if w > .6 else .6), .07), 2, r=.06)
    for x, y in CORNERS:
        s.box((x * .83, y * (w - .07), -.38), (.05, .05, .1), 1)


@thing(["sofa", "sofa", "couch", "armchair"], {"legs": 1, "cushions": 2, "pillows": 3},
       {0: BRIGHT + ["brown", "beige"], 1: ["walnut", "black", "steel"], 2: "=", 3: ["white", "yellow", "red"]}, ("matte",), ())
def sofa(s, r, tall):
    w = r(.46, .54) if r.chance(.3) else r(.72, .96)
    pair = w > .6
    s.box((0, 0, -.15), (.4, w, .15), 0, r=.06)
    s.box((-.33, 0, .18), (.13, w, r(.3, .42)), 0, r=.08)
    for y in SIDES:
        s.box((0, y * (w - .02), 0), (.4, .12, r(.22, .3)), 0, r=.08)
    for y in (SIDES if pair else (0,)):
        s.box((.08, y * (w - .12) * .5, .04), (.32, (w - .16) * (.5 if pair else 1), .08), 2, r=.06)
    for x, y in CORNERS:
        s.rod((x * .3, y * (w - .12), -.36), .045, .09, 1)
    if r.chance(.5):
        s.box((-.12, w * .5, .24), (.06, .15, .15), 3, r=.05, turn=("y", -20))


@thing(["bookshelf", "bookshelf", "bookcase", "shelf"], {"books": 1}, {0: WOODS + ["white", "black"], 1: ["red", "blue", "green"], 2: ["yellow", "blue", "red"],
       3: ["green", "brown", "purple"]}, ("wood",), ("wood", "metal", "plastic"), size=True, uses=("books",))
def bookshelf(s, r, tall):
    w, h, d = r(.42, .58), r(.62, .8) * tall, r(.16, .24)
    s.box((0, 0, 0), (d, w, h), r=.015)
    s.box((.12, 0, 0), (d + .06, w - .07, h - .07), r=.01, carve=True)
    rows = 3
    step = 2 * (h - .03) / rows
    for i in range(1, rows):
        s.box((0, 0, -h + .03 + step * i), (d, w - .03, .03), r=.01)
    for i in range(rows):
        z = -h + .06 + step * i
        wide, x0 = r(.3, .7) * (w - .1), r(-.3, .3)
        s.box((-.02, x0 * (w - wide), z + step * .34), (d * .8, wide, step * .3), 1 + i, r=.01)


@thing(["umbrella", "umbrella", "open umbrella", "parasol"], {"handle": 1, "pole": 1}, {0: BRIGHT, 1: ["brown", "black", "steel"]},
       ("matte",), (), pattern="z", uses=("rain",))
def umbrella(s, r, tall):
    R, c = r(.76, .92), r(.36, .6)
    s.ball((0, 0, .25), (R, R, c))
    s.ball((0, 0, .2), (R * .97, R * .97, c * .92), carve=True)
    s.box((0, 0, -.35), (1.2, 1.2, .62), r=0, carve=True)
    s.rod((0, 0, 0), .035, .85, 1)
    s.ring((0, .11, -.85), .11, .035, 1, turn=("y", 90))
    s.cone((0, 0, .25 + c), .05, .01, .09, 1)


@thing(["book", "book", "closed book"], {"pages": 1}, {0: BRIGHT + ["brown", "dark red"], 1: ["cream"], 2: ["golden"]}, ("matte",), ())
def book(s, r, tall):
    w, h, t = r(.46, .6), r(.64, .84), r(.09, .22)
    for x in (t, -t):
        s.box((x, 0, 0), (.03, w, h), r=.01)
    s.box((0, -w, 0), (t + .03, .03, h), r=.01)
    s.box((0, 0, 0), (t, w - .04, h - .05), 1, r=.005)
    s.box((t + .03, 0, h * .35), (.012, w * .6, .1), 2, r=.005)


@thing(["treasure chest", "treasure chest", "chest"], {"lid": 1, "bands": 2, "lock": 3},
       {0: ["oak", "walnut", "brown"], 1: "=", 2: ["charcoal", "golden", "steel"], 3: ["golden"]}, ("wood",), ("wood", "metal", "stone"), uses=("gold",))
def treasure_chest(s, r, tall):
    w, h = r(.6, .82), r(.2, .34)
    s.rod((0, 0, h), .45, w, 1, turn=("x", 90))
    s.box((0, 0, 0), (.45, w, h))
    for y in (-.62, .62):
        s.rod((0, y * w, h), .47, .06, 2, turn=("x", 90))
        s.box((0, y * w, 0), (.47, .06, h + .01), 2, r=.01)
    s.box((.46, 0, h), (.04, .09, .11), 3)


@thing(["gift box", "gift box", "gift", "present"], {"ribbon": 1, "bow": 1, "lid": 2}, {0: BRIGHT, 1: ["red", "golden", "white", "yellow", "pink"], 2: "="},
       ("matte", "plastic"), (), pattern="z")
def gift_box(s, r, tall):
    x, y, h = r(.42, .6), r(.42, .6), r(.32, .52)
    s.box((0, 0, 0), (x, y, h), r=.02)
    s.box((0, 0, h), (x + .05, y + .05, .1), 2, r=.02)
    s.box((0, 0, .03), (x + .07, .09, h + .09), 1, r=.01)
    s.box((0, 0, .03), (.09, y + .07, h + .09), 1, r=.01)
    for side in SIDES:
        s.ring((0, side * .17, h + .2), .13, .05, 1, turn=[("y", 90), ("x", side * 35)])
    s.ball((0, 0, h + .16), .08, 1)
