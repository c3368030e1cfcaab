"""The prompts of the evaluation, with the descriptions that a judge holds the pictures against.

    python3 prompts.py --out prompts.jsonl [--set held-out|attributes|things|seeds] [--count N] [--seed S]

held-out    "a COLOUR THING" in all phrasings, for pairs of thing and colour that training never named
attributes  two or more of: colour, material, pattern, coloured parts, tall or short
things      every thing once, in turn, plainly ("a thing")
seeds       some things, each with eight seeds, for the variety between them
A line: {"id", "prompt", "seed", "thing", "colour", "description": {thing, colour, material, pattern, pattern_colour, parts, size}}.
"""
import argparse
import json

import objects


def held_out(count, seed):
    pairs, r, out = objects.held_out_pairs(), objects.Random(seed), []
    for i in range(count):
        thing, colour = pairs[i % len(pairs)]
        d = objects.Description(thing, colour=colour)
        out.append((d, objects.caption(d, r)))
    return out


def attributes(count, seed):
    r, out = objects.Random(seed), []
    while len(out) < count:
        d = objects.draw(r)
        if bool(d.colour) + bool(d.material) + bool(d.pattern) + len(d.parts) + (d.size != "normal") >= 2:
            out.append((d, objects.caption(d, r)))
    return out


def things(count, seed):
    names = objects.THING_NAMES
    described = [objects.Description(names[i % len(names)]) for i in range(count)]
    return [(d, f"{'an' if d.thing[0] in 'aeiou' else 'a'} {d.thing}") for d in described]


def seeds(count, seed):
    """Every eighth thing, eight times in a row."""
    names = [n for n in objects.THING_NAMES[::8] for _ in range(8)]
    return [(objects.Description(n), f"{'an' if n[0] in 'aeiou' else 'a'} {n}") for n in names][:count]


SETS = {"held-out": held_out, "attributes": attributes, "things": things, "seeds": seeds}


def lines(name, count, seed):
    for i, (d, text) in enumerate(SETS[name](count, seed)):
        yield {"id": f"{i:04d}", "prompt": text, "seed": seed * 10007 + i, "thing": d.thing, "colour": objects.main_colour(d), "description": d.as_dict()}


def read(path):
    """-> [line], with the descriptions as objects"""
    with open(path, encoding="utf-8") as f:
        found = [json.loads(line) for line in f if line.strip()]
    for line in found:
        line["description"] = objects.Description(**line["description"])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--set", choices=sorted(SETS), default="held-out")
    parser.add_argument("--count", type=int, default=1010)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with open(args.out, "w", encoding="utf-8") as f:
        for line in lines(args.set, args.count, args.seed):
            f.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
