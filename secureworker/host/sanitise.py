"""Making output of a hostile script harmless in a public log, whatever pieces it comes in.

What a reader sees is what was written: characters that move the cursor, colour, hide, reorder or join text are
written as escapes, and no line of a script can look like one of the worker's own.
"""

import codecs
import re

MARK = b"[taskcluster"
"""How every line of the worker's own begins, and no other line of a log."""
_ESCAPED_MARK_START = b"\\x5b"

_KEPT_CONTROLS = b"\t\n"
_CONTROLS = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in _KEPT_CONTROLS)
_ASCII = bytes(range(0x80))
_OTHER_BYTES = bytes(byte for byte in range(256) if byte not in _CONTROLS)
_ESCAPES = {byte: b"\\r" if byte == ord("\r") else f"\\x{byte:02x}".encode() for byte in _CONTROLS}

# Unicode 15: categories Cc (C1), Cf, Zl and Zp, and characters that are drawn as nothing without being of these.
_HIDDEN = re.compile(
    "["
    "\x80-\x9f"  # C1: CSI and its kin as one character
    "\xad"  # soft hyphen
    "\u034f"  # combining grapheme joiner
    "\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"  # Arabic and Syriac format characters
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # fillers
    "\u180b-\u180f"  # Mongolian selectors and vowel separator
    "\u200b-\u200f"  # zero-width, left-to-right and right-to-left marks
    "\u2028-\u202e"  # line and paragraph separators, bidi embeddings and overrides
    "\u2060-\u206f"  # word joiner, bidi isolates
    "\ufe00-\ufe0f\ufeff"  # variation selectors, byte order mark
    "\ufff0-\ufffb"  # interlinear annotation
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"  # tags, more variation selectors
    "]"
)
_FORGED = re.compile(rb"^([ \t]*)\[(?=taskcluster)", re.IGNORECASE | re.MULTILINE)
_FORGED_INSIDE = re.compile(rb"(\n[ \t]*)\[(?=taskcluster)", re.IGNORECASE)


def first_hidden(text: str) -> int | None:
    """Give the place of the first character that hides, reorders or joins others; None where there is none."""
    found = _HIDDEN.search(text)
    return None if found is None else found.start()


def _escape_hidden(text: str) -> bytes:
    encoded = text.encode("utf-8", "backslashreplace")
    # The distinct characters that are not ASCII: few in any log, and found at memory speed. A regular expression
    # over the whole text costs three quarters of the speed.
    for character in set(encoded.translate(None, _ASCII).decode()):
        if _HIDDEN.match(character):
            encoded = encoded.replace(character.encode(), character.encode("ascii", "backslashreplace"))
    return encoded


def _escape_controls(text: bytes) -> bytes:
    # translate() and replace() run at memory speed; a regular expression here would cost two thirds of the log's.
    for byte in set(text.translate(None, _OTHER_BYTES)):
        text = text.replace(bytes((byte,)), _ESCAPES[byte])
    return text


def sanitise_line(text: str) -> str:
    """Make one harmless line of the worker's own words, which may quote a task's: line ends are escaped too."""
    escaped = _escape_controls(_escape_hidden(text))
    return escaped.replace(b"\n", b"\\n").decode()


class Sanitiser:
    """A stream of a script's output made harmless. The pieces it comes in make no difference to the result.

    CR LF becomes LF; every other carriage return is escaped. Invalid UTF-8 is escaped byte by byte.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held_return = b""
        """A carriage return at the end of a piece, until it is known whether a line feed follows."""
        self._held_mark = b""
        """The beginning of what may become a forged mark; at most ten bytes."""
        self._blank = True
        """Whether the line so far is blank, `_held_mark` left out."""

    def feed(self, chunk: bytes) -> bytes:
        """Give what is certain after `chunk`; a few bytes at its end may be held back."""
        return self._guard(self._clean(chunk, final=False), final=False)

    def end(self) -> bytes:
        """Give what was held back. The next piece starts a new stream, at the start of a line."""
        rest = self._guard(self._clean(b"", final=True), final=True)
        self._blank = True
        return rest

    def _clean(self, chunk: bytes, *, final: bool) -> bytes:
        chunk = self._held_return + chunk
        self._held_return = b""
        if not final and chunk.endswith(b"\r"):
            self._held_return = b"\r"
            chunk = chunk[:-1]
        if not chunk.isascii() or self._decoder.getstate()[0] or final:
            chunk = _escape_hidden(self._decoder.decode(chunk, final))
        if b"\r\n" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        return _escape_controls(chunk)

    def _guard(self, text: bytes, *, final: bool) -> bytes:
        """Break what looks like a line of the worker's own."""
        text = self._held_mark + text
        self._held_mark = b""
        if not text:
            return b""
        if MARK in text.lower():
            text = (_FORGED if self._blank else _FORGED_INSIDE).sub(self._break, text)
        start = text.rfind(b"\n")
        blank_before = self._blank or start >= 0
        line = text[start + 1 :].lstrip(b" \t") if blank_before else text
        if blank_before and not final and 0 < len(line) < len(MARK) and MARK.startswith(line.lower()):
            self._held_mark = line
            text = text[: -len(line)]
            line = b""
        self._blank = blank_before and not line
        return text

    @staticmethod
    def _break(found: re.Match[bytes]) -> bytes:
        return found[1] + _ESCAPED_MARK_START
