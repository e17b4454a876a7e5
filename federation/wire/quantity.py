"""Kubernetes quantities and whole numbers as labels and statuses write them, within bounds."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|[eE][0-9]{1,2})?")
_WHOLE = re.compile(r"[0-9]{1,18}")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_UNITS |= {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)}
MIB = 1024**2
GIB = 1024**3


def whole(text: str, *, least: int = 0, most: int) -> int | None:
    """A plain whole number within bounds, or None for anything else."""
    if not _WHOLE.fullmatch(text):
        return None
    value = int(text)
    return value if least <= value <= most else None


def thousandths(text: str) -> int | None:
    """A quantity in thousandths of its unit (500m -> 500, 2 -> 2000, 1Gi -> 1024**3 * 1000), or None."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    digits, fraction, unit = match[1], match[2] or "", match[3] or ""
    number = int(digits + fraction)
    scale = 1000
    if unit == "m":
        scale = 1
    elif unit[:1] in ("e", "E") and unit[1:].isdigit():
        scale = 1000 * int("1" + "0" * int(unit[1:]))
    else:
        scale = 1000 * _UNITS[unit]
    return -(-number * scale // int("1" + "0" * len(fraction)))


def millis(text: str) -> int | None:
    """CPU in thousandths of a core, or None."""
    return thousandths(text)


def mib(text: str, *, up: bool = False) -> int | None:
    """Memory in MiB, cut (or rounded `up`), or None."""
    found = thousandths(text)
    if found is None:
        return None
    return -(-found // (1000 * MIB)) if up else found // (1000 * MIB)


def devices(text: str) -> int | None:
    """The devices of one node, or None: extended resources are whole numbers, `2k` among them."""
    found = thousandths(text)
    if found is None or found % 1000 or found // 1000 > MAX_DEVICES:
        return None
    return found // 1000


MAX_DEVICES = 4096
"""Of one node: sixteen cards shared 256 ways. A higher count is a fault."""
MAX_VRAM_MIB = 4 * 1024 * 1024
