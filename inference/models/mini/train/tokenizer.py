"""CLIP's byte-pair tokenizer (open_clip/tokenizer.py) over a small merge list that is learnt from the training captions."""
import collections
import re

_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+", re.I)


def _byte_characters():
    """The printable character that stands for each byte, in the order of the ids."""
    order = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    code = {b: chr(b) for b in order}
    for b in range(256):
        if b not in code:
            code[b] = chr(256 + len(code) - len(order))  # bytes without a printable form follow in increasing order
    return code


def _symbols(word, code):
    symbols = [code[b] for b in word.encode()]
    symbols[-1] += "</w>"
    return symbols


def _join(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i:i + 2]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    def __init__(self, merges, length):
        """merges: pairs in order of rank; length: tokens of a sequence, start and end included."""
        self.merges, self.length, self._code, self._known = [tuple(m) for m in merges], length, _byte_characters(), {}
        names = list(self._code.values())
        names += [c + "</w>" for c in names] + ["".join(m) for m in self.merges] + ["<start_of_text>", "<end_of_text>"]
        self._ids, self._rank, self.size = {n: i for i, n in enumerate(names)}, {m: i for i, m in enumerate(self.merges)}, len(names)

    def _word(self, word):
        if word not in self._known:
            symbols = _symbols(word, self._code)
            while len(symbols) > 1:
                pair = min(zip(symbols, symbols[1:]), key=lambda p: self._rank.get(p, len(self._rank)))
                if pair not in self._rank:
                    break
                symbols = _join(symbols, pair)
            self._known[word] = [self._ids[s] for s in symbols]
        return self._known[word]

    def __call__(self, text):
        """-> ids, padded with 0 to the length"""
        ids = [self.size - 2]
        for word in _WORDS.findall(" ".join(text.split()).lower()):
            ids += self._word(word)
        ids = ids[:self.length - 1] + [self.size - 1]
        return ids + [0] * (self.length - len(ids))

    @staticmethod
    def read(path, length):
        with open(path, encoding="utf-8") as f:
            return Tokenizer([line.split() for line in f.read().splitlines()[1:] if line], length)

    def write(self, path):
        with open(path, "w", encoding="utf-8") as f:
            f.write("#version: dreamcad mini\n" + "".join(f"{a} {b}\n" for a, b in self.merges))

    @staticmethod
    def learn(texts, length, floor=1):
        """Merges until every word that occurs at least `floor` times is one token."""
        code = _byte_characters()
        counts = collections.Counter(w for t in texts for w in _WORDS.findall(t.lower()))
        words = [[_symbols(w, code), n] for w, n in counts.items() if n >= floor]
        merges = []
        while True:
            pairs = collections.Counter()
            for symbols, n in words:
                for pair in zip(symbols, symbols[1:]):
                    pairs[pair] += n
            if not pairs:
                return Tokenizer(merges, length)
            best = max(pairs.items(), key=lambda p: (p[1], p[0]))[0]
            merges.append(best)
            for entry in words:
                entry[0] = _join(entry[0], best)
