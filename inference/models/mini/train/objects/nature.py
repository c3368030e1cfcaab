"""Plants, food and things of the sky."""
from .palette import BRIGHT
from .registry import thing
from .shape import SIDES, polar

CARVED = ("wood", "metal", "glass", "stone", "ceramic")


@thing(["tree", "tree", "oak tree", "apple tree"], {"leaves": 0, "trunk": 1}, {0: ["leaf", "green", "dark green", "leaf"], 1: ["brown", "walnut"]},
       ("matte",), (), pattern="z", size=True, weight=1.2)
def tree(s, r, tall):
    h, R = r(.36, .58) * tall, r(.36, .54)
    z = h * .6
    s.cone((0, 0, -.45), r(.12, .18), .1, h, 1)
    s.ball((0, 0, z), R)
    clumps, start = r.whole(3, 5), r(0, 360)
    for i in range(clumps):
        q = R * r(.5, .74)
        s.ball((*polar(R * .75, start + 360 / clumps * i), z + r(-.2, .2)), q, blend=.08)
    s.ball((0, 0, z + R * .7), R * r(.5, .75), blend=.08)


@thing(["pine tree", "pine tree", "fir tree", "christmas tree", "pine"], {"trunk": 1, "star": 2},
       {0: ["dark green", "green", "leaf"], 1: ["brown"], 2: ["golden", "yellow"]}, ("matte",), (), pattern="z", size=True)
def pine_tree(s, r, tall):
    R, tiers = r(.46, .66), r.whole(3, 5)
    step = 1.5 / tiers * tall
    s.rod((0, 0, -.8), r(.08, .12), .2, 1)
    for i in range(tiers):
        q = R * (1 - i * .66 / tiers)
        s.cone((0, 0, -.42 + i * step * .62), q, q * .08, step * .5)
    if r.chance(.6):
        s.ball((0, 0, -.42 + (tiers - 1) * step * .62 + step * .5 + .03), .09, 2)


@thing(["cactus", "cactus", "desert cactus"], {"pot": 1, "flower": 2},
       {0: ["green", "leaf", "dark green"], 1: ["terracotta", "white", "brown", "blue"], 2: ["pink", "red", "yellow"]},
       ("matte",), (), pattern="z", size=True)
def cactus(s, r, tall):
    R, h = r(.16, .25), r(.36, .54) * tall
    s.pill((0, 0, .1), R, h)
    for side, chance in ((1, .75), (-1, .88)):
        if r.chance(chance):
            z, a = r(-.05, .25), r(.28, .4)
            s.pill((0, side * a * .6, z), R * .62, a * .5, turn=("x", 90))
            s.pill((0, side * (a + .08), z + .17), R * .62, r(.12, .2))
    s.cone((0, 0, -.62), .3, .38, .24, 1)
    s.ring((0, 0, -.4), .37, .045, 1)
    if r.chance(.5):
        s.ball((0, 0, .1 + h + R), (.1, .1, .06), 2)


@thing(["mushroom", "mushroom", "toadstool"], {"cap": 0, "stem": 1}, {0: ["red", "red", "brown", "orange", "beige"], 1: ["cream", "white", "beige"]},
       ("plastic", "matte"), ("wood", "stone", "ceramic"), pattern="z", size=True)
def mushroom(s, r, tall):
    R, c, h = r(.52, .8), r(.36, .64), r(.3, .54) * tall
    s.ball((0, 0, .1), (R, R, c))
    s.box((0, 0, -.5), (1.2, 1.2, .52), 1, r=0, carve=True)
    s.cone((0, 0, -h + .12), r(.18, .3), r(.12, .2), h, 1)
    s.ball((0, 0, -2 * h + .16), (.27, .27, .12), 1, blend=.08)


@thing(["apple", "apple", "fresh apple"], {"leaf": 2, "stem": 1}, {0: ["red", "green", "red", "yellow"], 1: ["brown"], 2: ["leaf", "green"]},
       ("ceramic",), CARVED)
def apple(s, r, tall):
    a = r(.58, .72)
    c = a * r(.82, 1.)
    s.ball((0, 0, 0), (a, a, c))
    s.ball((0, 0, c * 1.1), (.3, .3, .22), carve=True)
    s.rod((0, 0, c * 1.06), .035, .2, 1, turn=("x", r(-16, 16)))
    s.ball((0, .18, c * 1.21), (.07, .2, .03), 2, turn=("x", 25))


@thing(["pear", "pear", "fresh pear"], {"leaf": 2, "stem": 1}, {0: ["green", "yellow", "leaf"], 1: ["brown"], 2: ["leaf"]}, ("plastic",), CARVED)
def pear(s, r, tall):
    a, top = r(.46, .58), r(.26, .34)
    s.ball((0, 0, -.25), a)
    s.ball((0, 0, .35), (top, top, r(.36, .48)), blend=.35)
    s.rod((0, 0, .82), .03, .14, 1, turn=("x", 10))
    s.ball((0, .15, .88), (.06, .16, .025), 2, turn=("x", 25))


@thing(["banana", "banana", "ripe banana"], {"tips": 1}, {0: ["peel", "yellow", "peel"], 1: ["brown", "walnut"]}, ("plastic",), CARVED)
def banana(s, r, tall):
    bow, thick = r(34, 48), r(.16, .2)
    R = 1.0
    for i in range(7):  # pills along an arc, thinner towards the tips
        a = -90 + bow * (i - 3) / 2
        y, z = polar(R, a)
        tube = thick * (1 - .045 * (i - 3) ** 2)
        s.pill((0, y, z + .6), tube, .14, blend=0. if i == 0 else .12, turn=("x", a))
    for i in (-1, 1):
        a = -90 + bow * 1.86 * i
        y, z = polar(R, a)
        s.pill((0, y, z + .6), .06, .05, 1, turn=("x", a))


@thing(["carrot", "carrot", "fresh carrot"], {"leaves": 1, "top": 1}, {0: ["carrot", "orange"], 1: ["leaf", "green"]}, ("matte", "plastic"), ("wood", "metal", "stone", "ceramic"))
def carrot(s, r, tall):
    R, h = r(.24, .34), r(.5, .62)
    s.cone((0, 0, -.15), .03, R, h)
    s.ball((0, 0, h - .15), (R, R, .1), blend=.06)
    for i in range(4):
        a = 90 * i + r(0, 60)
        x, y = polar(.12, a)
        s.ball((x, y, h + .14), (.07, .05, r(.24, .34)), 1, turn=[("y", 16), ("z", a)])


@thing(["pumpkin", "pumpkin", "halloween pumpkin"], {"stem": 1}, {0: ["orange"], 1: ["brown", "dark green"]}, ("plastic",), CARVED)
def pumpkin(s, r, tall):
    c, wide = r(.4, .58), r(.36, .44)
    for i in range(8):
        s.ball((*polar(.4, 45 * i), 0), (wide, wide * .8, c), blend=.03, turn=("z", 45 * i))
    s.cone((0, 0, c + .06), .09, .06, r(.1, .18), 1, turn=("x", r(-20, 20)))


@thing(["cake", "cake", "birthday cake", "layer cake"], {"icing": 1, "frosting": 1, "candles": 3},
       {0: ["dough", "chocolate", "pink", "white"], 1: ["white", "pink", "chocolate", "cream"], 2: ["red"], 3: ["red", "blue", "yellow"],
        4: ["white"], 5: ["flame"]}, ("matte",), (), pattern="z")
def cake(s, r, tall):
    R, h, z = r(.54, .72), r(.17, .3), -.4
    s.rod((0, 0, z - h), R + .15, .03, 4)
    s.rod((0, 0, z), R, h)
    s.rod((0, 0, z + h), R + .02, .06, 1, r=.05)
    z += 2 * h
    if r.chance(.6):
        R *= .62
        s.rod((0, 0, z), R, h * .9)
        s.rod((0, 0, z + h * .9), R + .02, .05, 1, r=.04)
        z += 2 * h
    z -= h
    if r.chance(.4):
        s.ball((0, 0, z + .1), .11, 2)
        return
    for i in range(3):
        x, y = polar(R * .5, 120 * i + 30)
        s.rod((x, y, z + .15), .035, .14, 3)
        s.ball((x, y, z + .34), (.045, .045, .07), 5)


@thing(["cupcake", "cupcake", "muffin"], {"icing": 0, "frosting": 0, "cup": 1, "cherry": 2}, {0: ["pink", "white", "chocolate", "light blue"], 1: ["dough", "white", "teal"], 2: ["red"]},
       ("matte",), (), pattern="z")
def cupcake(s, r, tall):
    R, h = r(.4, .48), r(.26, .34)
    s.cone((0, 0, -.35), R * r(.66, .78), R, h, 1)
    z, q = -.35 + h + .05, R * 1.06
    for i in range(r.whole(2, 3)):
        s.ball((0, 0, z), (q, q, .2), blend=.06)
        z, q = z + r(.17, .23), q * .7
    s.ball((0, 0, z + .02), .11, 2)


@thing(["ice cream", "ice cream", "ice cream cone"], {"cone": 1, "scoop": 0},
       {0: ["pink", "chocolate", "white", "light blue", "cream", "green"], 1: ["waffle"], 2: ["red"]}, ("matte",), (), pattern="z")
def ice_cream(s, r, tall):
    R, h = r(.34, .44), r(.4, .54)
    s.cone((0, 0, .03 - h), .03, R * .92, h, 1)
    s.ball((0, 0, .18), R)
    s.ring((0, 0, .06), R * .88, .07)
    top = .24 + R
    if r.chance(.5):
        s.ball((0, 0, .18 + R * 1.1), R * .82)
        top = .18 + R * 2
    s.ball((0, 0, top), .1, 2)


@thing(["donut", "donut", "doughnut"], {"icing": 0, "frosting": 0, "glaze": 0},
       {0: ["pink", "chocolate", "white", "light blue", "pink", "chocolate"], 1: ["dough"]}, ("ceramic",), (), pattern="y", weight=1.2)
def donut(s, r, tall):
    R, q = r(.52, .64), r(.22, .36)
    s.ring((0, 0, 0), R, q, 1)
    s.ring((0, 0, q * .16), R, q * .97)


@thing(["burger", "burger", "hamburger", "cheeseburger"], {"bun": 0, "patty": 1, "lettuce": 2, "cheese": 3}, {0: ["dough", "dough", "waffle"], 1: ["patty"], 2: ["light green", "green"], 3: ["yellow"], 4: ["red"]},
       ("matte", "plastic"), ())
def burger(s, r, tall):
    R, h = r(.6, .72), r(.08, .13)
    z = -.35
    s.rod((0, 0, z), R * .96, .13, r=.1)
    z += .13 + h
    s.rod((0, 0, z), R, h, 1, r=.05)
    z += h
    s.box((0, 0, z + .02), (R * .76, R * .76, .025), 3, r=.01, turn=("z", r(0, 90)))
    if r.chance(.6):
        s.rod((0, 0, z + .1), R * .9, .045, 4)
        z += .08
    s.rod((0, 0, z + .1), R * 1.04, .035, 2, r=.03)
    s.ball((0, 0, z + .12), (R, R, r(.34, .5)))


@thing(["snowman", "snowman", "snow man"], {"hat": 1, "scarf": 2, "nose": 3},
       {0: ["white"], 1: ["black", "red", "blue", "green"], 2: ["red", "blue", "green", "purple"], 3: ["orange"], 4: ["black"], 5: ["brown"]},
       ("matte",), ())
def snowman(s, r, tall):
    a, c, d = r(.38, .54), r(.28, .38), r(.2, .28)
    z1 = a + c - .12
    z2 = z1 + c + d - .1
    s.ball((0, 0, 0), a)
    s.ball((0, 0, z1), c)
    s.ball((0, 0, z2), d)
    s.cone((d + .1, 0, z2), .055, .01, r(.1, .17), 3, turn=("y", 90))
    for y in SIDES:
        s.ball((d * .86, y * .09, z2 + .09), .035, 4)
    for k in (0, 1):
        s.ball((c * .97, 0, z1 + .1 - k * .17), .04, 4)
    s.rod((0, 0, z2 + d * .85), d * 1.15, .03, 1)
    s.rod((0, 0, z2 + d * .85 + .16), d * .75, r(.12, .2), 1)
    s.ring((0, 0, z2 - d * .8), d * .85, .07, 2)
    for y in SIDES:
        s.pill((0, y * (c + .16), z1 + .12), .03, .2, 5, turn=("x", -y * 60))


@thing(["planet", "planet", "planet with rings", "ringed planet", "saturn"], {"rings": 1, "ring": 1},
       {0: ["orange", "beige", "blue", "purple", "pink", "teal"], 1: ["beige", "white", "golden", "brown"]}, ("matte", "stone"),
       ("stone", "metal", "wood", "glass"), pattern="z")
def planet(s, r, tall):
    R, lean, thick = r(.44, .6), ("x", r(4, 26)), r(.02, .035)
    s.rod((0, 0, 0), .98, thick, 1, turn=lean, r=.01)
    s.rod((0, 0, 0), R + r(.1, .18), .1, 1, turn=lean, carve=True)
    s.ball((0, 0, 0), R)


@thing(["heart", "heart", "love heart"], {}, {0: ["red", "pink", "red"]}, ("plastic", "ceramic"), CARVED + ("plastic",), pattern="z")
def heart(s, r, tall):
    thick, R = r(.2, .34), r(.34, .4)
    for y in SIDES:
        s.ball((0, y * .3, .25), (thick, R, R), blend=0. if y < 0 else .05)
        s.ball((0, y * .21, -.12), (thick * .94, .28, .62), blend=.06, turn=("x", y * -38))
    s.ball((0, 0, -.02), (thick, .38, .4), blend=.06)


@thing(["star", "star", "toy star"], {}, {0: ["yellow", "golden", "yellow"]}, ("plastic", "metal"), ("wood", "metal", "glass", "stone", "ceramic", "plastic"))
def star(s, r, tall):
    thick, inner = r(.13, .24), r(.26, .34)
    s.rod((0, 0, 0), inner, thick * .9, r=.05, turn=("y", 90))
    for i in range(5):
        a = 72 * i
        y, z = polar(.5, 90 + a)
        s.wedge((0, y, z), (thick, inner, .42), .5, .06, blend=.04, turn=("x", a))
