"""Text of strangers, made safe to show: no control character, no escape sequence, no forged line."""

from __future__ import annotations

LINE_LIMIT = 500

# C0, DEL, C1, line and paragraph separators, bidi controls, invisible tag characters, BOM.
_HARMFUL = [
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xD800, 0xE000),
    *range(0xE0000, 0xE0080),
]
_SHORT = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x1B: "\\e"}


def _escape(code: int) -> str:
    if code in _SHORT:
        return _SHORT[code]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_TABLE = {code: _escape(code) for code in _HARMFUL}
_BLOCK_TABLE = {code: shown for code, shown in _TABLE.items() if code not in (0x09, 0x0A)}


def one_line(text: str) -> str:
    """The text as one physical line: everything that could break or colour a line becomes visible."""
    return text if text.isprintable() else text.translate(_TABLE)


def block(text: str) -> str:
    """The text with its line breaks and tabs kept, every other control made visible."""
    return text if text.isprintable() else text.translate(_BLOCK_TABLE)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis if something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
