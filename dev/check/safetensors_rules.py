#!/usr/bin/env python3
"""safetensors_rules.py FILE...: does each file keep the rules of the safetensors format? Those of its README and of its
reference reader, which takes two things that are refused here: a name that is there twice, and numbers that do not
start at a multiple of 8, as the reference writer's do.
safetensors_rules.py --break FILE DIR: writes a broken copy for each rule into DIR, which must all be refused.
Needs: python3."""
import json, os, sys

SIZE = dict(BOOL=1, U8=1, I8=1, F8_E5M2=1, F8_E4M3=1, I16=2, U16=2, F16=2, BF16=2, I32=4, U32=4, F32=4, F64=8, I64=8, U64=8)

def no_twins(pairs):
    if len(dict(pairs)) < len(pairs): raise ValueError("a key is there twice")
    return dict(pairs)

def no_constant(text): raise ValueError("%s is no JSON" % text)

def count_of(shape):
    n = 1
    for k in shape:
        if type(k) is not int or k < 0: raise ValueError("a shape is none: %s" % shape)
        n *= k
    return n

def check(raw):
    """Raises ValueError with the rule that is broken; returns names and __metadata__."""
    if len(raw) < 8: raise ValueError("under 8 bytes")
    n = int.from_bytes(raw[:8], "little")
    if n > 100000000 or 8 + n > len(raw): raise ValueError("a header of %d bytes in %d" % (n, len(raw)))
    if n % 8: raise ValueError("numbers start at byte %d" % (8 + n))
    text = raw[8:8 + n].decode("utf-8")
    if text[:1] != "{" or text.rstrip(" ")[-1:] != "}": raise ValueError("a header from { to }, then spaces alone")
    header = json.loads(text, object_pairs_hook=no_twins, parse_constant=no_constant)
    about = header.pop("__metadata__", {})
    if type(about) is not dict or any(type(v) is not str for v in about.values()): raise ValueError("__metadata__: text to text")
    at = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1].get("data_offsets", [])):
        if set(tensor) != {"dtype", "shape", "data_offsets"}: raise ValueError("%s has keys %s" % (name, sorted(tensor)))
        size, (begin, end) = SIZE.get(tensor["dtype"], 0), tensor["data_offsets"]
        if not size: raise ValueError("%s: dtype %s" % (name, tensor["dtype"]))
        if begin != at or begin % size: raise ValueError("%s starts at %d, not %d" % (name, begin, at))
        at = begin + size * count_of(tensor["shape"])
        if at != end: raise ValueError("%s ends at %d, its shape says %d" % (name, end, at))
    if 8 + n + at != len(raw): raise ValueError("%d bytes behind the last tensor" % (len(raw) - 8 - n - at))
    return list(header), about

def broken(raw):
    """name -> a copy that breaks one rule"""
    n = int.from_bytes(raw[:8], "little")
    text, data = raw[8:8 + n].decode(), raw[8 + n:]
    first = text.index('"embed"')
    entry = text[first:text.index("}", first) + 1]
    begin, end = (int(x) for x in entry[entry.rindex("[") + 1:entry.rindex("]")].split(","))
    with_ = lambda header, data=data: (len(header.encode()) // 8 * 8 + 8).to_bytes(8, "little") + \
        header.encode() + b" " * (8 - len(header.encode()) % 8) + data
    offsets = lambda a, b: text.replace("[%d, %d]" % (begin, end), "[%d, %d]" % (a, b), 1)
    yield "cut", raw[:-1]
    yield "longer", raw + b"\0"
    yield "empty", raw[:7]
    yield "header_behind_the_end", (len(raw)).to_bytes(8, "little") + raw[8:]
    yield "huge_header", (1 << 62).to_bytes(8, "little") + raw[8:]
    yield "no_object", with_("[" + text.rstrip()[1:])
    yield "no_utf8", raw[:8] + raw[8:8 + n].replace(b'"pt"', b'"\xff\xfe"', 1) + data
    yield "hole", with_(offsets(begin, end + 8), data + b"\0" * 8)
    yield "overlap", with_(offsets(begin, end - 4))
    yield "backwards", with_(offsets(end, begin))
    yield "other_dtype", with_(text.replace('"F32"', '"F33"').replace('"BF16"', '"BF17"'))
    yield "other_shape", with_(text.replace(entry, entry.replace('"shape": [', '"shape": [2, ', 1), 1))
    yield "negative_shape", with_(text.replace(entry, entry.replace('"shape": [', '"shape": [-', 1), 1))
    yield "number_in_metadata", with_(text.replace('"format": "pt"', '"format": 1', 1))
    yield "twice", with_(text.replace(entry, entry + ", " + entry, 1))
    yield "unaligned", (n + 1).to_bytes(8, "little") + raw[8:8 + n] + b" " + data

def main(words):
    if words[:1] == ["--break"] and len(words) == 3:
        raw = open(words[1], "rb").read()
        for name, copy in broken(raw):
            open(os.path.join(words[2], name + ".safetensors"), "wb").write(copy)
        return 0
    bad = 0
    for path in words:
        try:
            names, about = check(open(path, "rb").read())
            print("%s: %d tensors, __metadata__: %s" % (path, len(names), " ".join(about)))
        except ValueError as why:
            print("%s: BROKEN: %s" % (path, why))
            bad += 1
    return bad > 0 or not words

sys.exit(main(sys.argv[1:]))
