"""Numbers and foreign text as people read them, on a page or in a terminal."""

from typing import Any

Json = dict[str, Any]
_MAX_SHOWN = 3000
"""Characters of one completion on the page; report.json has the whole."""


def percent(estimate: Json | float | None, digits: int = 1) -> str:
    """``99.8 %`` for an estimate or a share; a dash where there is none. 100 % is said only of exactly all."""
    value = estimate["value"] if isinstance(estimate, dict) else estimate
    if value is None:
        return "–"
    text = f"{100 * value:.{digits}f}"
    if value < 1 and float(text) >= 100:
        return "> 99.9\N{NO-BREAK SPACE}%"
    return f"{'100' if value == 1 else text}\N{NO-BREAK SPACE}%"


def times(before: float, after: float) -> str:
    """``×7.7``; a dash when there is nothing to compare with."""
    return f"×{after / before:.1f}" if before else "–"


def interval(estimate: Json | None) -> str:
    """``38.1–46.4``, in per cent."""
    return f"{100 * estimate['ci_low']:.1f}–{100 * estimate['ci_high']:.1f}" if estimate else ""


def duration(seconds: float) -> str:
    """``3 min 4 s``: two units, the largest that are not zero."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: float | None) -> str:
    """``4.1 M``: a count with three significant digits."""
    return _scaled(number, ["", " K", " M", " B", " T"])


def flops(number: float | None) -> str:
    """``18.2 TFLOP``: floating-point operations, not a rate."""
    return _scaled(number, [" FLOP", " KFLOP", " MFLOP", " GFLOP", " TFLOP", " PFLOP", " EFLOP", " ZFLOP"])


def usd(amount: float) -> str:
    """Dollars and cents; four decimals below ten cents, where cents would say nothing."""
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def visible(text: Any) -> str:
    """Text safe to look at: control characters and direction overrides are drawn, very long text is cut."""
    shown = str(text)
    left = len(shown) - _MAX_SHOWN
    if left > 0:
        shown = f"{shown[:_MAX_SHOWN]}\n… ({left:,} more characters)"
    # Half of a character cannot be written as UTF-8.
    return shown.translate(_PICTURES).encode("utf-8", "replace").decode("utf-8")


# C0 controls have pictures at U+2400; overrides of the writing direction could make text read as what it is not.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(
    [*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\N{REPLACEMENT CHARACTER}"
)


def _scaled(number: float | None, units: list[str]) -> str:
    if not number:
        return "–"
    power, scaled = 0, float(number)
    while scaled >= 999.5 and power < len(units) - 1:
        power, scaled = power + 1, scaled / 1000
    return f"{scaled:.{0 if power == 0 or scaled >= 100 else 1}f}{units[power]}"
