"""What `spr doctor` finds: one check a thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from spr_plugin.errors import UserError
from spr_plugin.lines import one_line

# In the doctor's folder: what a command's process has found so far, and what it drew.
CHECKS, PICTURE = "checks.json", "boxes-{}.png"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        detail: what was found.
        fix: what to do, where that is not `ok`; else "".
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


def checked(name: str, fix: str, look: Callable[[], str]) -> Check:
    """The check whose detail is what `look` says; whatever it raises makes it a failed one, to be mended by
    `fix`.
    """
    try:
        return Check(name, True, look())
    except UserError as error:
        return Check(name, False, str(error), fix)
    except Exception as error:  # what is looked at is foreign: a driver, a library, a host, a plugin
        why = next(iter(str(error).strip().splitlines()), "")
        return Check(name, False, f"{type(error).__name__}: {why}", fix)


def as_lines(checks: Iterable[Check]) -> Iterable[str]:
    """Checks for a terminal, what to do below each that failed."""
    for check in checks:
        yield one_line(f"{'ok' if check.ok else 'FAIL':4}  {check.name}: {check.detail}")
        if not check.ok:
            yield one_line(f"      do: {check.fix}")


def as_plain(checks: Iterable[Check]) -> dict[str, list[dict]]:
    """Checks for JSON."""
    return {"checks": [asdict(check) for check in checks]}
