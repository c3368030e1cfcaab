"""Animals, toys, tools and what people wear or play with."""
from .palette import ANY, BRIGHT, HARD
from .registry import thing
from .shape import SIDES, polar

TOY = ("wood", "ceramic", "plastic", "stone")


@thing(["robot", "robot", "toy robot", "android"], {"eyes": 2, "arms": 1, "head": 3},
       {0: ["steel", "white", "red", "blue", "yellow", "orange"], 1: "=", 2: ["light blue", "yellow", "red", "black"], 3: "=", 4: ["red", "yellow"],
        5: ["charcoal"]}, ("metal", "plastic"), ("metal", "plastic", "wood"), weight=1.3)
def robot(s, r, tall):
    w, h, head = r(.28, .44), r(.28, .44), r(.22, .34)
    s.box((0, 0, 0), (.24, w, h), r=.06)
    s.box((0, 0, h + .3), (.22, head, .22), 3, r=.05)
    s.rod((0, 0, h + .05), .09, .08, 1)
    for y in SIDES:
        s.ball((.22, y * head * .45, h + .33), (.05, .075, .075), 2)
        s.pill((0, y * (w + .1), .02), .085, r(.22, .3), 1)
        s.box((.03, y * w * .5, -h - .24), (.14, .12, .26), 1, r=.04)
    s.rod((0, 0, h + .6), .02, .1, 1)
    s.ball((0, 0, h + .72), .06, 4)
    s.box((.23, 0, .08), (.03, w * .55, .11), 5)


@thing(["teddy bear", "teddy bear", "teddy", "toy bear", "bear"], {"nose": 2, "belly": 1, "eyes": 2},
       {0: ["brown", "oak", "beige", "white", "pink"], 1: ["beige", "cream"], 2: ["black"]}, ("matte",), TOY, weight=1.2)
def teddy_bear(s, r, tall):
    R, h, z = r(.33, .44), r(.28, .36), .45
    s.ball((0, 0, -.25), (R, R * 1.05, R * 1.1))
    s.ball((0, 0, z), (h, h * 1.08, h))
    s.ball((.26, 0, z - .07), (.14, .16, .13), 1)
    s.ball((.39, 0, z - .03), (.04, .06, .045), 2)
    s.ball((.14, 0, -.25), (R * .72, R * .72, R * .8), 1)
    ear, arm = r(.1, .15), r(20, 50)
    for y in SIDES:
        s.ball((0, y * h * .85, z + h * .8), (.09, ear, ear))
        s.ball((.27, y * .13, z + .1), .04, 2)
        s.pill((.1, y * (R + .05), -.1), .12, .14, turn=[("x", y * arm), ("y", 25)])
        s.pill((.25, y * .26, -.56), .15, .13, turn=("y", 80))


@thing(["penguin", "penguin", "toy penguin"], {"beak": 2, "feet": 2, "belly": 1}, {0: ["black", "black", "charcoal"], 1: ["white"], 2: ["orange"],
       3: ["black"]}, ("plastic", "matte"), TOY)
def penguin(s, r, tall):
    R, h = r(.37, .48), r(.6, .74)
    s.ball((0, 0, 0), (R, R, h))
    s.ball((.1, 0, -.08), (R * .84, R * .76, h * .8), 1)
    z = h * .92
    s.ball((0, 0, z), (.28, .28, .27))
    s.cone((.36, 0, z - .02), .08, .01, .12, 2, turn=("y", 90))
    for y in SIDES:
        s.ball((.23, y * .12, z + .08), .06, 1)
        s.ball((.275, y * .12, z + .08), .03, 3)
        s.ball((0, y * (R + .02), -.02), (.14, .06, .38), turn=("x", y * r(12, 26)))
        s.ball((.15, y * .18, -h + .02), (.22, .14, .06), 2)


@thing(["rubber duck", "rubber duck", "duck", "toy duck"], {"beak": 1, "eyes": 2}, {0: ["yellow"], 1: ["orange"], 2: ["black"]}, ("plastic",),
       TOY + ("metal",))
def rubber_duck(s, r, tall):
    R, h, x = r(.46, .58), r(.28, .38), r(.26, .38)
    s.ball((0, 0, -.2), (R * 1.2, R, R * .78))
    s.ball((x, 0, .38), h, blend=.12)
    s.ball((-.58, 0, 0), (.2, .2, .26), blend=.2, turn=("y", -30))
    s.ball((x + h + .04, 0, .33), (.15, .14, .06), 1)
    for y in SIDES:
        s.ball((x + h * .75, y * h * .5, .5), .05, 2)
        s.ball((-.1, y * R * .95, -.15), (.3, .1, .2))


@thing(["fish", "fish", "goldfish", "toy fish"], {"fins": 1, "tail": 1, "eyes": 2},
       {0: ["orange", "red", "blue", "yellow", "teal"], 1: "=", 2: ["black"], 3: ["white"]}, ("plastic", "ceramic"), ("wood", "metal", "glass", "ceramic"),
       pattern="x")
def fish(s, r, tall):
    long, h = r(.54, .7), r(.3, .46)
    s.ball((.1, 0, 0), (long, r(.18, .26), h))
    s.wedge((-long - .08, 0, 0), (.38, .03, .24), .25, 1, 1, turn=("y", 90))
    s.wedge((.05, 0, h + .06), (.3, .03, .14), .4, 1, 1)
    for y in SIDES:
        s.ball((.1 + long * .62, y * .14, .08), (.07, .05, .07), 3)
        s.ball((.1 + long * .65, y * .18, .08), (.035, .03, .035), 2)
        s.ball((.1, y * .25, -.08), (.15, .03, .09), 1, turn=("x", -y * 30))


@thing(["dog", "dog", "puppy", "toy dog"], {"ears": 1, "nose": 2, "collar": 3, "tail": 4}, {0: ["brown", "beige", "white", "black", "oak"], 1: ["brown", "walnut", "="],
       2: ["black"], 3: ["red", "blue", "green"], 4: "="}, ("matte",), TOY, weight=1.2)
def dog(s, r, tall):
    long, R, leg = r(.38, .52), r(.2, .26), r(.24, .34)
    s.ball((-.1, 0, 0), (long, R, R))
    x, z = long * .82, r(.28, .4)
    s.pill((x - .12, 0, z * .5), .13, .16, turn=("y", 35), blend=.08)
    s.ring((x - .1, 0, z * .62), .15, .035, 3, turn=("y", 35))
    s.ball((x, 0, z), (.22, .19, .19))
    s.ball((x + .22, 0, z - .06), (.15, .1, .09), blend=.05)
    s.ball((x + .36, 0, z - .02), .045, 2)
    for y in SIDES:
        s.ball((x + .15, y * .1, z + .1), .035, 2)
        s.ball((x - .06, y * .2, z - .02), (.08, .05, .17), 1, turn=("x", y * 14))
        s.pill((-.1 + long * .62, y * R * .55, -leg), .085, leg * .7)
        s.pill((-.1 - long * .62, y * R * .55, -leg), .085, leg * .7)
    s.pill((-.14 - long, 0, .14), .05, .15, 4, turn=("y", -r(20, 50)))


@thing(["cat", "cat", "kitten", "kitty"], {"ears": 1, "nose": 2, "tail": 4, "belly": 3}, {0: ["orange", "charcoal", "white", "beige", "brown"], 1: "=", 2: ["black"], 3: ["white", "cream"], 4: "="},
       ("matte",), TOY, weight=1.2)
def cat(s, r, tall):
    """Sitting upright, with pointed ears and a long tail round its side."""
    R, h = r(.3, .38), r(.4, .5)
    s.ball((-.05, 0, -.3), (R, R * .95, h))
    s.ball((.16, 0, -.28), (R * .5, R * .55, h * .72), 3)
    z = h - .02
    s.ball((.08, 0, z), (.27, .3, .25))
    s.ball((.33, 0, z - .06), (.05, .06, .04), 2)
    for y in SIDES:
        s.cone((.04, y * .19, z + .26), .12, .005, .13, 1, turn=("x", -y * 12))
        s.ball((.3, y * .12, z + .05), (.035, .045, .055), 2)
        s.pill((.2, y * .13, -.55), .08, .2)
        s.ball((-.02, y * R * .85, -.56), (.24, .12, .2))
    side = r.sign()
    s.pill((-.32, side * .16, -.68), .06, .2, 4, turn=[("x", 90), ("z", side * 30)])
    s.pill((-.36, side * .38, -.45), .055, r(.18, .28), 4, turn=("x", side * -20))


@thing(["rabbit", "rabbit", "bunny", "toy rabbit"], {"ears": 1, "nose": 2, "tail": 3}, {0: ["white", "beige", "brown", "grey", "pink"], 1: "=", 2: ["pink", "black"], 3: ["white"], 4: ["black"]},
       ("matte",), TOY)
def rabbit(s, r, tall):
    R, h = r(.34, .42), r(.24, .3)
    s.ball((-.08, 0, -.3), (R * 1.1, R, R))
    z = r(.08, .16)
    s.ball((.22, 0, z), (h, h * .95, h))
    s.ball((.22 + h, 0, z - .02), (.04, .05, .04), 2)
    s.ball((-.08 - R * 1.1, 0, -.32), .13, 3)
    ear, lean = r(.24, .36), r(6, 22)
    for y in SIDES:
        s.ball((.16, y * (.11 + ear * .12), z + h + ear * .75), (.055, .085, ear), 1, turn=("x", -y * lean))
        s.ball((.22 + h * .82, y * h * .48, z + .08), .045, 4)
        s.ball((.22, y * .15, -.6), (.17, .09, .08))
        s.ball((-.12, y * R * .8, -.46), (.24, .12, .2))


@thing(["turtle", "turtle", "tortoise", "toy turtle"], {"shell": 1, "head": 0}, {0: ["light green", "green", "leaf"], 1: ["dark green", "brown", "walnut", "green"], 2: ["black"], 3: ["beige"]},
       ("matte", "plastic"), TOY + ("metal",))
def turtle(s, r, tall):
    R, c = r(.54, .66), r(.3, .46)
    s.ball((0, 0, 0), (R, R * r(.82, .95), c), 1)
    s.box((0, 0, -.6), (1.2, 1.2, .58), 3, r=0, carve=True)
    s.rod((0, 0, -.02), R * .92, .05, 3)
    s.pill((R + .06, 0, .02), .11, .12, turn=("y", 70))
    s.ball((R + .2, 0, .1), (.17, .14, .13))
    for y in SIDES:
        s.ball((R + .29, y * .09, .15), .035, 2)
        for x in SIDES:
            s.ball((x * R * .68, y * R * .72, -.12), (.17, .13, .12))
    s.cone((-R - .06, 0, -.04), .06, .01, .1, turn=("y", -90))


@thing(["ball", "ball", "beach ball", "toy ball"], {}, {0: BRIGHT}, ("plastic", "ceramic"), ANY, pattern="z")
def ball(s, r, tall):
    s.ball((0, 0, 0), .8)


@thing(["chess pawn", "chess pawn", "pawn", "chess piece"], {"base": 1}, {0: ["white", "black", "cream", "walnut"], 1: "="}, ("plastic", "wood"),
       HARD + ("glass",), size=True)
def chess_pawn(s, r, tall):
    h, head = r(.42, .56) * tall, r(.23, .31)
    s.rod((0, 0, -h - .12), r(.4, .5), .1, 1, r=.05)
    s.cone((0, 0, -.08), r(.3, .4), r(.12, .18), h, blend=.08)
    s.rod((0, 0, h - .08), .27, .04, r=.03)
    s.ball((0, 0, h + .14), head)


@thing(["guitar", "acoustic guitar", "guitar", "electric guitar"], {"neck": 1}, {0: ["oak", "walnut", "red", "black", "blue", "pine wood"],
       1: ["walnut", "brown"], 2: ["black"], 3: ["walnut"]}, ("wood", "plastic"), ("wood", "metal", "plastic"))
def guitar(s, r, tall):
    R, q, thick = r(.33, .44), r(.24, .33), r(.08, .13)
    s.rod((0, 0, -.5), R, thick, turn=("y", 90))
    s.rod((0, 0, -.12), q, thick, turn=("y", 90), blend=.15)
    s.rod((thick, 0, -.2), .12, .012, 2, turn=("y", 90), r=0)
    s.box((thick - .01, 0, .42), (.035, .055, .5), 1)
    s.box((thick - .02, 0, .98), (.035, .09, .12), 3)
    s.box((thick + .01, 0, -.55), (.03, .15, .03), 2)


@thing(["dumbbell", "dumbbell", "weights"], {"bar": 1, "handle": 1}, {0: ["charcoal", "black", "red", "blue", "steel"], 1: ["steel"]},
       ("metal", "plastic"), ("metal", "plastic", "stone", "wood"))
def dumbbell(s, r, tall):
    R, t = r(.28, .42), r(.08, .15)
    s.rod((0, 0, 0), .07, .8, 1, turn=("x", 90))
    round_ends = r.chance(.4)
    for y in SIDES:
        if round_ends:
            s.ball((0, y * .6, 0), R)
        else:
            s.rod((0, y * .55, 0), R, t, turn=("x", 90))
            s.rod((0, y * (.55 + t * 1.8), 0), R * .72, t * .8, turn=("x", 90))


@thing(["top hat", "top hat", "hat", "magician hat"], {"band": 1, "ribbon": 1, "brim": 2},
       {0: ["black", "brown", "dark red", "purple", "beige"], 1: ["red", "white", "blue", "golden", "black"], 2: "="}, ("matte",), (), size=True)
def top_hat(s, r, tall):
    R, h = r(.38, .52), r(.28, .48) * tall
    s.rod((0, 0, -h), r(.7, .9), .04, 2, r=.03)
    s.cone((0, 0, 0), R, R * r(.92, 1.15), h)
    s.rod((0, 0, -h + .15), R * 1.03, .08, 1)


@thing(["crown", "crown", "king crown", "royal crown"], {"gems": 1, "jewels": 1}, {0: ["golden", "golden", "silver"], 1: ["red", "blue", "green", "purple"]}, ("metal",),
       ("metal", "wood", "plastic"))
def crown(s, r, tall):
    R, h, peaks = r(.52, .64), r(.2, .28), 5
    s.rod((0, 0, 0), R, h, r=.01)
    for i in range(peaks):
        a = 360 / peaks * i
        s.wedge((*polar(R - .045, a), h + .16), (.05, R * .5, .2), 1, .05, turn=("z", a))
    s.rod((0, 0, .2), R - .09, .9, carve=True, r=.01)
    s.ring((0, 0, -h + .05), R - .02, .06)
    for i in range(peaks):
        s.ball((*polar(R - .045, 360 / peaks * i), h + .37), .08, 1)


@thing(["sword", "sword", "knight sword", "long sword"], {"handle": 1, "hilt": 1, "guard": 2, "blade": 0},
       {0: ["steel", "steel", "golden"], 1: ["brown", "black", "dark red", "blue"], 2: ["golden", "steel", "charcoal"]}, ("metal",),
       ("wood", "metal", "stone", "glass"), uses=("a knight",))
def sword(s, r, tall):
    w, long = r(.08, .14), r(.5, .66)
    s.wedge((0, 0, .3), (.035, w, long), 1, .8)
    s.wedge((0, 0, .3 + long + .1), (.035, w * .8, .1), .3, .05)
    s.box((0, 0, .3 - long), (.07, r(.22, .36), .05), 2)
    s.rod((0, 0, .12 - long), .065, .19, 1)
    s.ball((0, 0, -.1 - long), .095, 2)


@thing(["hammer", "hammer", "mallet"], {"handle": 1, "head": 0}, {0: ["steel", "charcoal", "steel"], 1: ["oak", "walnut", "red", "yellow"]},
       ("metal",), ("wood", "metal", "stone", "plastic"))
def hammer(s, r, tall):
    long = r(.54, .72)
    s.rod((0, 0, -.1), r(.06, .09), long, 1)
    if r.chance(.5):
        s.rod((0, 0, long), r(.14, .22), r(.3, .44), turn=("x", 90))
    else:
        s.box((0, 0, long), (.15, r(.28, .42), r(.13, .19)))


@thing(["axe", "axe", "hatchet", "battle axe"], {"handle": 1, "blade": 0}, {0: ["steel", "charcoal", "steel"], 1: ["oak", "walnut", "red", "brown"]}, ("metal",),
       ("wood", "metal", "stone", "plastic"))
def axe(s, r, tall):
    long, z = r(.68, .8), r(.42, .54)
    s.rod((0, 0, -.05), .065, long, 1)
    s.box((0, 0, z), (.1, .12, .14), r=.03)
    both = r.chance(.25)
    for side in ((1, -1) if both else (1,)):
        s.wedge((0, side * .3, z), (.04, .14, .22), .6, 2.1, turn=("x", -side * 90))
