"""The tokens that coordinates are told in, by kind, and what else may stand between them. Only patterns:
what follows from their order is `attempts`'s.
"""

from __future__ import annotations

import re

READ = "\0"  # stands in the place of each character that has been read
QUOTES = "\"'`*"  # and marks of emphasis; they part nothing
PARTS = "[xy](?:_?[0-3])?|w|h|c|l|t|r|b|min|max|left|top|right|bottom|upper|lower|width|height"
PARTS += "|cent(?:er|re)|corner|start|end"
SIDE = rf"(?:{PARTS})(?:[_-]?(?:{PARTS}))*"
BOX = r"bbox(?:es)?|b?box(?:es)?_?2d|bounding[ _-]?box(?:es)?|coord(?:inate)?s?|xyxy|xywh"
NAMED = rf"[\[(]\s?{SIDE}(?:,\s?{SIDE}){{3}}\s?[\])]"  # (x1, y1, x2, y2): 1, 2, 3, 4
THING = r"box(?:es)?|region|rect(?:angle)?|roi|loc(?:ation)?"  # is measured in numbers of other kinds too
SIDE_TAG = rf"(?![bclrt]>)(?:{SIDE})>"  # <b> is a word in bold
TAG = rf"(?:{BOX}|{THING}|object|quad|det)(?:_start|_end)?"
TOKEN = re.compile(
    rf"""
    (?P<read>{READ}+)
  | (?P<cell><(?:(?P<pair>patch_index)|loc|bin|coord|x|y)_?\d+>)
  | (?P<tag><[/|]*{TAG}\|?> | \[/?{TAG}\])
  | (?P<side_tag><{SIDE_TAG})
  | (?P<unit></{SIDE_TAG} | (?:px|pixels?|points?|pts?|[cm]m)\b)
  | (?P<other_tag><[/|]*[^\W\d]\w*\|?>)
  | (?P<named>{NAMED})
  | (?P<opening>\\?[\[({{] | <(?=\s?[-+]?\.?\d|[^\W\d]))
  | (?P<closing>\\?[\])}}] | /?>)
    # a time or date is one number
  | (?P<number>\b\d\d?:\d\d(?::\d\d)?\b | (?<![\d/])\d+/\d+/\d+\b(?!/) | \b(?:19|20)\d\d-\d\d?-\d\d?\b
              | [-+−]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+\b)? | \b(?:nan|inf|infinity|null|none)\b)
  | (?P<box>\b(?:(?:{BOX})|(?P<thing>{THING}))(?:[ _#]?\d{{1,3}}(?=\s?[:=]))?(?![^\W_]))
  | (?P<side>\b{SIDE}\b)
  | (?P<is>\b(?:is|are|equals)\b)
  | (?P<from>\b(?:from|between)\b)
  | (?P<told>\b(?:and|to|at|the|through|thru|until|till|by|about|around|roughly)\b | [^\W\d_](?![^\W\d_]))
  | (?P<word>[^\W\d_]+)
  | (?P<equals>[:=])
  | (?P<next>;)
  | (?P<mark>[^\s{QUOTES}])
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Without a number and one of these there is no attempt; most answers end here.
MARK = re.compile(r"[][(){}<>:=]|\bis\b|\bare\b|equals|\b[xy]_?(?:\d|m[ia])", re.IGNORECASE)
NUMERIC = re.compile(r"\d|\bnan\b|\binf|\bnull\b|\bnone\b", re.IGNORECASE)
