"""HTML that is safe by construction: every child that is not itself markup is escaped."""

import html
import json
from typing import Any

from thalweg.record.plotting import safe_text


class Markup(str):
    """A piece of finished HTML; made by ``element`` and ``join``, never from data."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return ``<tag attributes>children</tag>``, with children and attributes escaped.

    Attributes are named as in HTML, with ``_`` for ``-`` and a trailing ``_`` where Python reserves the word
    (``class_``); ``True`` stands for an attribute without value, ``None`` and ``False`` for none.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is not None and value is not False:
            key = name.rstrip("_").replace("_", "-")
            parts.append(key if value is True else f'{key}="{escape(value)}"')
    return Markup(f"<{' '.join(parts)}>{join(*children)}</{tag}>")


def join(*children: object) -> Markup:
    """Return the children one after the other, those that are not markup escaped, ``None`` left out."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c) for c in children if c is not None))


def escape(text: object) -> str:
    """Return ``text`` for the inside of an element or of a quoted attribute, control characters replaced."""
    return html.escape(safe_text(text))


def script_json(value: Any) -> Markup:
    """Return JSON that can stand inside a script element: no ``</script``, ``<!--``, U+2028 or U+2029 in it.

    Raises:
        ValueError: ``value`` holds NaN or infinity, which JSON does not know.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
