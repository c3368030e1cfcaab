"""Signed distance primitives that an object is composed of, in the number layout that render.cu reads.

Axes: z up, the front of an object faces +x, +y is to the right of somebody who looks at the front.
"""
import math

HEADER, MATERIALS, MATERIAL, PRIMITIVES, PRIMITIVE = 12, 6, 12, 16, 24
OBJECT = HEADER + MATERIALS * MATERIAL + PRIMITIVES * PRIMITIVE  # floats of one object

UNION, CARVE, BLEND, CLIP = 0, 1, 2, 3
_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def _turn(axis, degrees):
    """World-to-local matrix of a body turned counter-clockwise about one axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == "x":
        return (1, 0, 0, 0, c, s, 0, -s, c)
    if axis == "y":
        return (c, 0, -s, 0, 1, 0, s, 0, c)
    return (c, s, 0, -s, c, 0, 0, 0, 1)


def _product(a, b):
    return tuple(sum(a[i * 3 + k] * b[k * 3 + j] for k in range(3)) for i in range(3) for j in range(3))


class Shape:
    """Collects primitives. Each method takes a centre, sizes, a material slot (0 to 5) and options:

    carve: subtract; blend: smooth union of that width; clip: intersect; turn: one ("axis", degrees) or a list of
    them, applied in order (the first one innermost).
    """

    def __init__(self):
        self.primitives = []

    def _add(self, kind, centre, sizes, slot, carve=False, blend=0., clip=False, turn=()):
        matrix = _IDENTITY
        for axis, degrees in ([turn] if turn and isinstance(turn[0], str) else turn):
            matrix = _product(matrix, _turn(axis, degrees))
        operation = CARVE if carve else CLIP if clip else BLEND if blend else UNION
        self.primitives.append([kind, operation, slot, blend or .08, *centre, *matrix, *sizes])

    def ball(self, centre, radii, slot=0, **options):
        """Ellipsoid; radii is one number or three."""
        if not isinstance(radii, tuple):
            radii = (radii,) * 3
        self._add(0, centre, radii, slot, **options)

    def box(self, centre, half, slot=0, r=.03, **options):
        """Box of half sizes, edges rounded by r."""
        self._add(1, centre, (*half, min(r, min(half) * .98)), slot, **options)

    def rod(self, centre, radius, half, slot=0, r=.02, **options):
        """Cylinder along z, edges rounded by r."""
        self._add(2, centre, (radius, half, min(r, radius * .9, half * .9)), slot, **options)

    def cone(self, centre, bottom, top, half, slot=0, **options):
        """Frustum along z with its two radii."""
        self._add(3, centre, (bottom, top, half), slot, **options)

    def ring(self, centre, radius, tube, slot=0, **options):
        """Torus around z."""
        self._add(4, centre, (radius, tube), slot, **options)

    def pill(self, centre, radius, half, slot=0, **options):
        """Capsule along z."""
        self._add(5, centre, (radius, half), slot, **options)

    def wedge(self, centre, half, top_x, top_y, slot=0, **options):
        """Box whose top is scaled by (top_x, top_y): gables, fins, sails."""
        self._add(6, centre, (*half, top_x, top_y), slot, **options)


def polar(radius, degrees):
    """(x, y) at a distance and direction from the axis."""
    return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))


CORNERS = [(x, y) for x in (-1, 1) for y in (-1, 1)]
SIDES = (-1, 1)
