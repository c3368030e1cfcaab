"""Writes open_clip_cases.json: random prompts and the ids that open_clip's tokenizer gives them.

usage: python3 -m venv venv && venv/bin/pip install torch open_clip_torch==2.32.0 && venv/bin/python open_clip_cases.py
Left out are prompts that ftfy repairs as wrongly decoded text or as entities in capitals, which this tokenizer does not.
"""
import html
import json
import pathlib
import random

import ftfy
from open_clip.tokenizer import SimpleTokenizer

WORDS = (
    "a the red mug don't they're it's 3d 4k 1st café naïve ceramic wooden chair's i'll &amp; &lt;b&gt; <start_of_text> <end_of_text> 100% "
    "half-timbered x² ½ ① Ⅷ 你好 日本語 привет ΟΔΟΣ ΣΑΣ İstanbul straße ﬁne ｆｕｌｌ “quoted” ‘single’ — – … 🤖 👍🏽 e\u0301 \u00a0 \u3000 \t \n '' 's 'll "
    "_under_ #tag @you $5.00 ... !!! \u200b \ufeff \u00ad ß ŉ Ǆ ǆ Ǳ ﬄ ￥ ｶﾀｶﾅ \u2028 \x1b[31m \x07 ºª ǅ &notit; &#x80; &copy &eacute;t&eacute; &amp;amp;lt; Ａ１"
).split(" ")
CHARACTERS = [chr(c) for c in [*range(32, 127), *range(0xA0, 0x180), 0x3B1, 0x3C3, 0x3A3, 0x4E2D, 0x1F600, 0x660, 0x2160, 0xE01, 0xE31, 0x5D0, 0x93E]]

random.seed(5)
tokenizer = SimpleTokenizer()
cases = []
while len(cases) < 300:
    if len(cases) % 3:
        text = " ".join(random.choice(WORDS) for _ in range(random.randint(1, 8)))
    else:
        text = "".join(random.choice(CHARACTERS) for _ in range(random.randint(1, 30)))
    if len(cases) % 5 == 0:
        text = text.upper()
    if "&EACUTE" in text or "&NOTIT" in text or ftfy.fix_encoding(html.unescape(text)) != html.unescape(text):
        continue
    cases.append({"text": text, "ids": tokenizer.encode(text)})
out = pathlib.Path(__file__).with_suffix(".json")
out.write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=True) for c in cases) + "\n]\n", encoding="utf-8")
