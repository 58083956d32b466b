"""Reading and rewriting of text that nobody meant as an answer: seconds for a megabyte of it, and whether
time grows linearly.

    python benchmarks/hostile_text.py --json benchmarks/results/hostile_text.json

For every family and every kind of text below: parse, take out all coordinates, and the words, in CPU seconds
of one thread, on
100 kB and on 1 MB. Keys: ``worst_s_per_mb``, ``worst_growth`` (time on 1 MB / time on 100 kB; 10 is linear),
``worst_10_kb_ms`` (of brackets), and the seconds of each family's slowest text.
"""

import argparse
import time
from pathlib import Path

from spr_plugin.files import write_json
from spr_plugin.formats import FAMILIES, box_format

UNITS = {
    "brackets": "[",
    "nested": "[[1, ",
    "closing": "]",
    "unfinished": "[0.1, 0.2, ",
    "boxes": "a dog [0.1, 0.2, 0.3, 0.4] and ",
    "tags": "<box>",
    "nested tags": "<ref><box><object>",
    "tagged boxes": "<ref>a dog</ref><box>(1,2),(3,4)</box>",
    "patches": "<object><patch_index_0044><patch_index_0863></object>",
    "braces": "{",
    "quotes": '{"',
    "entries": '{"bbox_2d": [1, 2, 3, 4], "label": "a dog"}, ',
    "open entries": '{"bbox_2d": [1, 2, ',
    "spaces": " ",
    "digits": "1",
    "prose": "A dog and, with (some) a cat; ",
}


def seconds(form, text: str) -> float:
    """CPU seconds of reading `text` and taking its boxes out."""
    start = time.process_time()
    parsed = form.parse(text, 640, 480)
    form.rewrite(text, parsed, dict.fromkeys(range(len(parsed.boxes))), drop_failures=True)
    form.words(text, parsed)
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, brackets = {}, {}
    for family in FAMILIES:
        form = box_format(family)
        brackets[family] = 1000 * min(seconds(form, "[" * 10_000) for _ in range(3))
        for name, unit in UNITS.items():
            small, large = (unit * (size // len(unit)) for size in (100_000, 1_000_000))
            rows[family, name] = tuple(min(seconds(form, text) for _ in range(2)) for text in (small, large))
        slowest = max((key for key in rows if key[0] == family), key=lambda key: rows[key][1])
        print(
            f"{family:11} {rows[slowest][1]:6.2f} s for 1 MB of {slowest[1]:12}  10 kB of brackets"
            f" {brackets[family]:6.2f} ms",
            flush=True,
        )
    # Of times under 10 ms on 100 kB the ratio says nothing.
    growth = {key: large / small for key, (small, large) in rows.items() if small > 0.01}
    worst = max(growth, key=growth.get)
    results = {
        "worst_s_per_mb": max(large for _, large in rows.values()),
        "worst_growth": growth[worst],
        "worst_growth_of": list(worst),
        "worst_10_kb_ms": max(brackets.values()),
        "s_per_mb_by_family": {
            family: max(rows[key][1] for key in rows if key[0] == family) for family in FAMILIES
        },
    }
    print(
        f"1 MB takes at most {results['worst_s_per_mb']:.2f} s; ten times the text at most"
        f" {growth[worst]:.1f} times as long ({', '.join(worst)})"
    )
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
