"""Malformed and merely odd JSON records, made here: the categories of a JSON minefield, each as one line of NDJSON.

``documents()`` yields (name, line, verdict): ``good`` is valid JSON (RFC 8259) that must be profiled, ``bad`` must be
rejected, ``either`` is what the RFC leaves to the implementation (lone surrogate escapes, numbers beyond a double).
The verdict comes from the category, and ``oracle`` checks it with Python's own parser.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

Document = tuple[str, bytes, str]

RESOURCE = {"resourceType": "Observation", "id": "hostile", "status": "final", "subject": {"reference": "Patient/p1"}}
#: Where a fragment is put: as a value, in a list, as a property's name, instead of a whole record.
PLACES = {
    "value": b'{"resourceType":"Observation","note":%s}',
    "nested": b'{"resourceType":"Observation","component":[{"x":[1,%s,{}]}]}',
    "first": b'{"x":%s,"resourceType":"Observation"}',
    "code": b'{"resourceType":"Observation","code":{"coding":[{"code":%s}]}}',
}
#: Fragments that are no JSON value wherever they stand.
BAD = {
    "trailing-comma-list": b"[1,]",
    "trailing-comma-object": b'{"a":1,}',
    "leading-comma": b"[,1]",
    "double-comma": b"[1,,2]",
    "only-comma": b"[,]",
    "no-colon": b'{"a" 1}',
    "two-colons": b'{"a"::1}',
    "comma-for-colon": b'{"a",1}',
    "no-value": b'{"a":}',
    "no-comma": b'{"a":1 "b":2}',
    "number-key": b"{1:1}",
    "bare-key": b"{a:1}",
    "single-quotes": b"{'a':1}",
    "single-quoted-value": b"'a'",
    "list-for-object": b"{[1]}",
    "colon-in-list": b'["a":1]',
    "close-mixed": b'["a"}',
    "close-mixed-2": b'{"a":1]',
    "unclosed-list": b"[1",
    "unclosed-object": b'{"a":1',
    "unclosed-string": b'"abc',
    "extra-close": b"[1]]",
    "extra-brace": b"{}}",
    "nan": b"NaN",
    "nan-lower": b"nan",
    "nan-minus": b"-NaN",
    "infinity": b"Infinity",
    "minus-infinity": b"-Infinity",
    "inf": b"inf",
    "true-upper": b"TRUE",
    "true-cut": b"tru",
    "true-long": b"truee",
    "false-capital": b"False",
    "null-capital": b"Null",
    "none": b"None",
    "undefined": b"undefined",
    "plus": b"+1",
    "leading-zero": b"01",
    "minus-leading-zero": b"-01",
    "lone-minus": b"-",
    "two-minus": b"--1",
    "lone-dot": b".",
    "dot-first": b".5",
    "dot-last": b"5.",
    "dot-exponent": b"1.e1",
    "exponent-empty": b"1e",
    "exponent-plus": b"1e+",
    "exponent-twice": b"1e1e1",
    "exponent-dot": b"1e1.5",
    "two-dots": b"1.2.3",
    "hex": b"0x1F",
    "octal": b"0o17",
    "underscore": b"1_000",
    "thousands": b"1 000",
    "fullwidth-digit": "\uff11".encode(),
    "expression": b"1+2",
    "minus-space": b"- 1",
    "letter-after-number": b"1a",
    "comment-block": b"1/* c */",
    "comment-line": b"1 // c",
    "comment-hash": b"1 # c",
    "escape-x": rb'"\x41"',
    "escape-a": rb'"\a"',
    "escape-upper-u": rb'"\U0041"',
    "escape-quote": rb'"\'"',
    "escape-zero": rb'"\0"',
    "escape-space": rb'"\ "',
    "escape-cut": rb'"\u00"',
    "escape-cut-1": rb'"\u"',
    "escape-no-hex": rb'"\u00G0"',
    "escape-fullwidth": '"\\u\uff10041"'.encode(),
    "escape-end": b'"\\',
    "control-tab": b'"a\tb"',
    "control-1f": b'"a\x1fb"',
    "control-01": b'"a\x01b"',
    "control-cr": b'"a\rb"',
    "control-esc": b'"a\x1b[31mb"',
    "control-nul": b'"a\x00b"',
    "nul-outside": b"1\x00",
    "nul-before": b"\x00 1",
    "formfeed": b"\x0c1",
    "vertical-tab": b"\x0b1",
    "nbsp": "\u00a01".encode(),
    "line-separator": "\u20281".encode(),
    "zero-width": "\u200b1".encode(),
    "bom-inside": b"\xef\xbb\xbf1",
    "star": b"*",
    "ampersand": b"&",
    "angle": b"<a>",
    "backtick": b"`a`",
    "smart-quotes": "\u201ca\u201d".encode(),
    "unquoted": b"abc",
    "json5-multiline": b'"a\\\rb"',
    "utf8-lone-continuation": b'"\x80"',
    "utf8-ff": b'"\xff"',
    "utf8-fe": b'"\xfe"',
    "utf8-cut-2": b'"\xc3"',
    "utf8-cut-3": b'"\xe2\x82"',
    "utf8-cut-4": b'"\xf0\x9f\x98"',
    "utf8-overlong-2": b'"\xc0\xaf"',
    "utf8-overlong-3": b'"\xe0\x80\xaf"',
    "utf8-overlong-nul": b'"\xc0\x80"',
    "utf8-surrogate": b'"\xed\xa0\x80"',
    "utf8-surrogate-pair": b'"\xed\xa0\xbd\xed\xb8\x80"',
    "utf8-beyond": b'"\xf4\x90\x80\x80"',
    "utf8-six-bytes": b'"\xfc\x83\xbf\xbf\xbf\xbf"',
    "latin-1": b'"M\xfcller"',
    "utf8-in-number": b"1\xe5",
    "utf8-in-escape": b'"\\\xe5"',
    "utf8-in-literal": b"tru\xe9",
}
#: Fragments that are values.
GOOD = {
    "null": b"null",
    "zero": b"0",
    "minus-zero": b"-0",
    "exponent": b"1E+2",
    "small-exponent": b"1e-2",
    "fraction": b"0.000000000000000001",
    "big-int": b"123456789012345678901234567890",
    "digits-5000": b"9" * 5000,
    "fraction-5000": b"0." + b"7" * 5000,
    "empty-string": b'""',
    "escapes": rb'"\"\\\/\b\f\n\r\t\u00e9"',
    "escaped-nul": rb'"\u0000"',
    "escaped-mark": rb'"\u0001unknown"',
    "escaped-pair": rb'"\ud83d\ude00"',
    "emoji": '"\U0001f600"'.encode(),
    "del": b'"\x7f"',
    "line-separator-in-string": '"\u2028\u2029"'.encode(),
    "noncharacter": '"\uffff"'.encode(),
    "bom-in-string": '"\ufeff"'.encode(),
    "rtl": '"\u202egnp.exe"'.encode(),
    "empty-list": b"[]",
    "empty-object": b"{}",
    "duplicate-key": b'{"a":1,"a":2}',
    "empty-key": b'{"":1}',
    "nul-key": rb'{"\u0000":1}',
    "spaces": b" \t 1 \t ",
    "brackets-in-string": b'"' + b"[{" * 2000 + b'"',
    "long-string": b'"' + b"x" * 100_000 + b'"',
    "many-keys": b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(5000)) + b"}",
    "wide-list": b"[" + b",".join([b"{}"] * 5000) + b"]",
    "deep-400": b"[" * 400 + b"]" * 400,
    "words-nan-in-string": b'"values: NaN, Infinity,]"',
}
#: The RFC leaves these to the implementation.
EITHER = {
    "lone-high": rb'"\ud800"',
    "lone-low": rb'"\udc00"',
    "pair-reversed": rb'"\ude00\ud83d"',
    "high-then-text": rb'"\ud83dx"',
    "number-1e400": b"1e400",
    "number-minus-1e400": b"-1e400",
    "number-1e-400": b"1e-400",
    "number-huge-exponent": b"1e" + b"9" * 30,
    "digits-100000": b"1" * 100_000 + b"e3",
}
#: Whole records.
WHOLE_BAD = {
    "null": b"null",
    "true": b"true",
    "number": b"42",
    "string": b'"Observation"',
    "list": b'[{"resourceType":"Observation"}]',
    "empty-list": b"[]",
    "empty-object": b"{}",
    "no-type": b'{"id":"x"}',
    "type-null": b'{"resourceType":null}',
    "type-empty": b'{"resourceType":""}',
    "type-number": b'{"resourceType":5}',
    "type-true": b'{"resourceType":true}',
    "type-list": b'{"resourceType":["Patient"]}',
    "type-object": b'{"resourceType":{"Patient":1}}',
    "type-later-number": b'{"id":"a","resourceType":5}',
    "bundle-entry-object": b'{"resourceType":"Bundle","entry":{"resource":{}}}',
    "bundle-entry-text": b'{"resourceType":"Bundle","entry":"x"}',
    "two-records": b'{"resourceType":"Observation"}{"resourceType":"Observation"}',
    "two-records-space": b'{"resourceType":"Observation"} {"resourceType":"Observation"}',
    "two-records-comma": b'{"resourceType":"Observation"},{"resourceType":"Observation"}',
    "trailing-comma": b'{"resourceType":"Observation"},',
    "xml": b'<?xml version="1.0"?><Observation xmlns="http://hl7.org/fhir"/>',
    "html": b"<html><script>alert(1)</script></html>",
    "csv": b"id,code,value",
    "hl7": rb"MSH|^~\&|A|B|C|D|20240101||ADT^A01|1|P|2.5",
    "rs-separated": b'\x1e{"resourceType":"Observation"}',
    "nul-only": b"\x00",
    "nul-many": b"\x00" * 4096,
    "bom-record": b'\xef\xbb\xbf{"resourceType":"Observation"}',
    "bom-twice": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "open-brackets-100000": b"[" * 100_000,
    "open-braces-100000": b'{"a":' * 100_000,
    "open-mixed-50000": b'[{"a":' * 50_000,
    "close-100000": b"]" * 100_000,
    "gzip-magic": b"\x1f\x8b\x08\x00 rest",
    "parquet-magic": b"PAR1",
    "yaml": b"resourceType: Observation",
    "python-repr": b"{'resourceType': 'Observation', 'x': None}",
    "jsonp": b'callback({"resourceType":"Observation"})',
    "hex-dump": b"7b227265736f75726365",
}
DEEP = {
    "lists": (b"[", b"", b"]"),
    "objects": (b'{"a":', b"1", b"}"),
    "mixed": (b'[{"a":', b"null", b"}]"),
    "spread": (b'{"b":[1],"a":', b"1", b',"c":{}}'),
}


def oracle(line: bytes) -> bool:
    """Say by Python's parser whether a line is a JSON object with a resourceType (depth is not its business)."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        found = json.loads(line.decode("utf-8"), parse_constant=refuse, parse_int=float, strict=True)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("resourceType"), str) and bool(found["resourceType"])


def documents(seed: int = 8) -> Iterator[Document]:
    """Yield every document; the same for the same seed.  At least 500."""
    for place, template in PLACES.items():
        for verdict, fragments in (("bad", BAD), ("good", GOOD), ("either", EITHER)):
            for name, fragment in fragments.items():
                yield f"{verdict}-{place}-{name}", template.replace(b"%s", fragment), verdict
    for name, line in WHOLE_BAD.items():
        yield f"bad-whole-{name}", line, "bad"
    for name, (before, middle, after) in DEEP.items():
        for depth, verdict in ((300, "good"), (1_100, "bad"), (100_000, "bad")):
            levels = depth // (before.count(b"[") + before.count(b"{") - before.count(b"[1]"))
            nested = before * levels + middle + after * levels
            yield f"{verdict}-deep-{name}-{depth}", b'{"resourceType":"Observation","x":%s}' % nested, verdict
    for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"):
        text = json.dumps(RESOURCE) if codec != "utf-7" else '{"resourceType":"Obs\u00e9"}'
        line = text.encode(codec)
        yield f"bad-encoding-{codec}", line, "either" if oracle(line) else "bad"
    whole = json.dumps(RESOURCE | {"valueString": "Gr\u00fc\u00dfe"}, ensure_ascii=False).encode()
    rng = random.Random(seed)
    for at in sorted(rng.sample(range(1, len(whole) - 1), 40)):
        yield f"bad-cut-{at}", whole[:at], "bad"
    for number in range(40):  # one byte changed: the oracle says what came of it
        at, byte = rng.randrange(len(whole)), rng.choice([b for b in range(256) if b not in (10, 13)])
        line = whole[:at] + bytes([byte]) + whole[at + 1 :]
        yield f"flip-{number}", line, "good" if oracle(line) else "bad"
