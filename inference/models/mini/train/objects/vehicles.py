"""Vehicles, buildings and street furniture."""
from .palette import BRIGHT
from .registry import thing
from .shape import CORNERS, SIDES, polar


@thing(["car", "car", "toy car", "sedan", "sports car"], {"wheels": 1, "roof": 4}, {0: BRIGHT, 1: ["black", "charcoal"], 2: ["window"], 3: ["cream"],
       4: "=", 5: ["dark red"]}, ("plastic", "ceramic"), ("wood", "metal", "plastic"), weight=1.5)
def car(s, r, tall):
    long, w, h = r(.8, 1.02), r(.37, .48), r(.14, .2)
    cabin_x, cabin_h, cabin = r(-.24, .02), r(.14, .24), r(.36, .54)
    wheel = r(.16, .23)
    s.box((0, 0, 0), (long, w, h), r=.1)
    s.wedge((cabin_x, 0, h + cabin_h), (cabin + .06, w * .9, cabin_h), .66, .86, 2)
    s.wedge((cabin_x, 0, h + 2 * cabin_h), (cabin * .7, w * .8, .035), .95, .95, 4)
    for x, y in CORNERS:
        s.rod((x * long * .58, y * w * .92, -h * .9), wheel, .085, 1, turn=("x", 90))
    for y in SIDES:
        s.ball((long - .01, y * w * .62, .03), (.05, .08, .06), 3)
    s.box((-long + .01, 0, .03), (.03, w * .8, .04), 5, r=.01)


@thing(["truck", "truck", "lorry", "toy truck", "delivery truck"], {"wheels": 1, "cab": 3}, {0: BRIGHT, 1: ["black", "charcoal"], 2: ["window"],
       3: ["white", "red", "yellow", "blue", "="], 4: ["cream"]}, ("plastic",), ("wood", "metal", "plastic"), weight=1.2)
def truck(s, r, tall):
    long, w, h, cab = r(.5, .62), r(.34, .42), r(.32, .44), r(.24, .3)
    front = long + cab * .9
    s.box((-cab, 0, h * .5), (long, w, h), r=.03)
    s.box((front - cab * .1, 0, h * .22), (cab, w * .94, h * .72), 3, r=.06)
    s.box((front + cab * .88, 0, h * .42), (.05, w * .8, h * .28), 2, r=.02)
    s.box((.1, 0, -h * .62), (long + cab * .9, w * .8, .06), 1)
    for x in (-long * .95, -long * .35, front - .05):
        for y in SIDES:
            s.rod((x, y * w * .88, -h * .75), r.wheel, .09, 1, turn=("x", 90))
    for y in SIDES:
        s.ball((front + cab * .9, y * w * .62, -h * .2), (.04, .07, .06), 4)


@thing(["bus", "bus", "school bus", "city bus"], {"wheels": 1, "roof": 3}, {0: ["yellow", "red", "blue", "green", "white", "orange"], 1: ["black", "charcoal"], 2: ["window"],
       3: ["=", "white"], 4: ["cream"]}, ("plastic",), ("wood", "metal", "plastic"))
def bus(s, r, tall):
    long, w, h = r(.86, 1.), r(.28, .36), r(.28, .38)
    s.box((0, 0, 0), (long, w, h), r=.07)
    s.box((0, 0, h), (long * .95, w * .88, .05), 3, r=.04)
    for i in range(3):  # windows right through, with posts between
        s.box((long * (-.62 + .5 * i), 0, h * .3), (long * .21, w + .012, h * .32), 2, r=.02)
    s.box((long, 0, h * .25), (.012, w * .78, h * .38), 2, r=.005)
    s.box((-long, 0, h * .35), (.012, w * .7, h * .28), 2, r=.005)
    for x, y in CORNERS:
        s.rod((x * long * .6, y * w * .9, -h), r.wheel, .08, 1, turn=("x", 90))
    for y in SIDES:
        s.ball((long, y * w * .66, -h * .55), (.03, .07, .06), 4)


@thing(["rocket", "rocket", "space rocket", "spaceship", "rocket ship"], {"fins": 1, "nose": 2, "window": 3},
       {0: ["white", "white", "steel", "red", "blue"], 1: ["red", "orange", "blue", "black"], 2: "1", 3: ["window", "light blue"], 4: ["charcoal"]},
       ("plastic", "metal"), ("metal", "plastic", "wood"), pattern="z", size=True, uses=("space",))
def rocket(s, r, tall):
    R, h, nose, fin = r(.22, .34), r(.4, .58) * tall, r(.16, .32), r(.14, .26)
    s.rod((0, 0, 0), R, h)
    s.cone((0, 0, h + nose), R, .02, nose, 2)
    s.cone((0, 0, -h - .07), .2, .13, .08, 4)
    fins = 3 if r.chance(.35) else 4
    for i in range(fins):
        a = 360 / fins * i + (45 if fins == 4 else 0)
        s.wedge((*polar(R + fin * .6, a), -h + .12), (fin, .035, .26), .45, 1, 1, turn=[("y", -14), ("z", a)])
    s.rod((R - .01, 0, h * .42), .12, .03, 3, turn=("y", 90))


@thing(["airplane", "airplane", "plane", "toy airplane", "aeroplane"], {"wings": 1, "tail": 2},
       {0: ["white", "steel", "red", "yellow", "blue"], 1: "=", 2: "1", 3: ["window"], 4: ["charcoal"]}, ("plastic", "metal"), ("wood", "metal", "plastic"),
       weight=1.2)
def airplane(s, r, tall):
    long, R, span = r(.64, .82), r(.12, .19), r(.7, .94)
    s.ball((0, 0, 0), (long + .15, R, R * 1.05))
    for y in SIDES:
        s.wedge((.1, 0, 0), (.2, .03, span), .5, 1, 1, turn=("x", y * 90))
        s.rod((.16, y * span * .42, -.09), .07, .15, 4, turn=("y", 90))
    s.wedge((-long + .05, 0, R + .14), (.17, .03, r(.16, .23)), .55, 1, 2)
    s.box((-long + .04, 0, .06), (.11, r(.28, .38), .028), 2)
    s.ball((long * .55, 0, R * .72), (.16, .09, .08), 3)


@thing(["sailboat", "sailboat", "boat", "sail boat", "ship"], {"sail": 1, "hull": 0, "mast": 2}, {0: ["brown", "oak", "red", "blue", "white"],
       1: ["white", "cream", "red", "white"], 2: ["oak", "walnut"]}, ("wood", "plastic"), ("wood", "metal", "plastic"))
def sailboat(s, r, tall):
    long, w, high = r(.64, .84), r(.26, .34), r(.34, .48)
    s.ball((0, 0, -.28), (long, w, .36))
    s.box((0, 0, .2), (1.2, 1, .42), r=0, carve=True)
    s.rod((.05, 0, .3), .035, .62, 2)
    s.wedge((-.27, 0, -.04 + high), (r(.46, .64), .025, high), .03, 1, 1)
    s.box((-.25, 0, -.07), (.3, .03, .025), 2)


@thing(["house", "house", "small house", "cottage", "cabin"], {"roof": 1, "door": 2, "walls": 0},
       {0: ["white", "cream", "beige", "light blue", "yellow", "oak", "pink"], 1: ["red", "dark red", "brown", "charcoal", "terracotta", "blue"],
        2: ["brown", "red", "blue", "green", "walnut"], 3: ["window"], 4: ["brown", "rock"]}, ("matte",), ("wood", "stone"), uses=("a family",), weight=1.5)
def house(s, r, tall):
    a, b, h, roof = r(.46, .68), r(.52, .78), r(.34, .54), r(.2, .38)
    s.box((0, 0, 0), (a, b, h))
    half = (a + .1, b + .1, roof)
    if r.chance(.25):
        s.wedge((0, 0, h + roof), half, .05, .05, 1)
    elif r.chance(.5):
        s.wedge((0, 0, h + roof), half, 1, .04, 1)
    else:
        s.wedge((0, 0, h + roof), half, .04, 1, 1)
    s.box((a, 0, -h + .24), (.03, .13, .24), 2)
    for y in SIDES:
        s.box((a, y * b * .6, .08), (.025, .12, .12), 3)
        s.box((0, y * b, .05), (.14, .025, .13), 3)
    s.box((-a, 0, .05), (.025, .18, .13), 3)
    if r.chance(.7):
        s.box((-a * .5, b * .5, h + roof * 1.35), (.09, .09, roof), 4)


@thing(["tower", "castle tower", "tower", "castle"], {"roof": 1, "door": 2}, {0: ["rock", "beige", "white", "rock"], 1: ["red", "blue", "brown", "purple"],
       2: ["brown"], 3: ["charcoal"]}, ("stone", "stone", "matte"), ("stone", "wood"), size=True)
def tower(s, r, tall):
    R, h = r(.3, .44), r(.5, .66) * tall
    z = h + .18
    s.cone((0, 0, 0), R * r(1.05, 1.25), R * .95, h)
    s.rod((0, 0, h + .08), R * 1.2, .1)
    if r.chance(.6):
        roof = r(.18, .36)
        s.cone((0, 0, z + roof), R * 1.3, .02, roof, 1)
    else:
        for a in (0, 60, 120):
            s.box((0, 0, z + .04), (R * 1.17, .1, .09), turn=("z", a), r=.01)
        s.rod((0, 0, z + .1), R * .95, .3, carve=True)
    s.box((R * 1.1, 0, -h + .2), (.08, .12, .2), 2)
    s.box((R, 0, h * .35), (.08, .06, .11), 3)


@thing(["lighthouse", "lighthouse", "light house"], {"stripes": 1, "roof": 2, "top": 2, "door": 3}, {0: ["white", "white", "cream"], 1: ["red", "blue", "black", "green"], 2: ["red", "black", "blue"], 3: ["brown"],
       4: ["flame"], 5: ["charcoal"]}, ("matte", "plastic"), (), size=True)
def lighthouse(s, r, tall):
    low, top, h = r(.3, .38), r(.17, .22), r(.6, .74) * tall
    s.cone((0, 0, 0), low, top, h)
    for z in (-.35, .35):  # bands that follow the taper
        mid = low + (top - low) * (z + 1) / 2
        slope = (top - low) / (2 * h)
        half = h * .17
        s.cone((0, 0, z * h), mid - slope * half + .012, mid + slope * half + .012, half, 1)
    s.rod((0, 0, h + .03), top * 1.45, .04, 5)
    s.rod((0, 0, h + .16), top * .72, .12, 4)
    s.cone((0, 0, h + .38), top * 1.15, .02, r(.1, .16), 2)
    s.box((low * .98, 0, -h + .17), (.06, .09, .16), 3)


@thing(["windmill", "windmill", "wind mill"], {"blades": 2, "sails": 2, "roof": 1, "door": 3}, {0: ["white", "cream", "rock", "oak"], 1: ["red", "brown", "charcoal", "blue"], 2: ["walnut", "white", "brown", "red"],
       3: ["brown", "green"]}, ("matte",), ("wood", "stone"))
def windmill(s, r, tall):
    low, top, h = r(.34, .44), r(.22, .28), r(.48, .58)
    s.cone((0, 0, -.15), low, top, h)
    s.cone((0, 0, h + .0), top * 1.25, .03, .17, 1)
    s.box((low * .96, 0, -.15 - h + .17), (.06, .1, .17), 3)
    hub, start, arm = (top + .16, 0, h - .2), r(0, 90), r(.34, .42)
    s.rod((hub[0] - .1, 0, hub[2]), .05, .16, 2, turn=("y", 90))
    for i in range(4):
        a = start + 90 * i
        y, z = polar(arm + .04, a)
        s.box((hub[0], y, hub[2] + z), (.022, .1, arm), 2, r=.01, turn=("x", a - 90))


@thing(["traffic cone", "traffic cone", "road cone", "safety cone"], {"base": 1, "stripe": 2}, {0: ["orange"], 1: "=", 2: ["white"]}, ("plastic",), (),
       size=True)
def traffic_cone(s, r, tall):
    h, w = r(.56, .76) * tall, r(.34, .44)
    radius = lambda z: w + (.07 - w) * (z + 1) / 2
    s.box((0, 0, -h), (w + .1, w + .1, .05), 1, r=.04)
    s.cone((0, 0, 0), w, .07, h)
    for z, half in ((.1, .2), (.6, .1)):
        s.cone((0, 0, z * h), radius(z - half) + .012, radius(z + half) + .012, half * h, 2)
