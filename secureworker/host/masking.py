"""Keeping known secrets out of a public log, in the forms they are commonly printed in."""

import base64
import json
import urllib.parse
from typing import Any

import re2

_FEW_FORMS = 16
"""Up to so many, a search for each is quicker than one for the beginnings of all (950 against 390 MB/s for 4)."""
_PATTERN_BYTES = 32 * 1024 * 1024
"""At most, for what finds the beginnings of forms: 10,000 of them take 4 MiB."""
MASK = b"[masked]"
MIN_SECRET_BYTES = 6
"""Shorter ones are not masked: they would hit half of any log, and tell by that what they are."""


def forms(secret: bytes) -> frozenset[bytes]:
    """Give what a secret looks like raw, as base64 in each of its three alignments, URL-quoted and as JSON text."""
    text = secret.decode("utf-8", "surrogateescape")
    found = {secret, urllib.parse.quote(secret).encode(), urllib.parse.quote_plus(secret).encode()}
    found.add(urllib.parse.quote(secret, safe="").encode())
    for ascii_only in (True, False):
        found.add(json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogateescape"))
    for skipped in range(3):
        # Within other bytes, base64 of a secret depends on where in a group of three it begins. Characters that
        # are shared with a neighbour are left out: two of the three first bytes' and up to two at the end.
        padded = base64.b64encode(bytes(skipped) + secret).rstrip(b"=")
        start = (skipped * 8 + 5) // 6
        end = (skipped + len(secret)) * 8 // 6
        found.add(padded[start:end])
        found.add(padded[start:end].translate(bytes.maketrans(b"+/", b"-_")))
    return frozenset(form for form in found if len(form) >= MIN_SECRET_BYTES)


def _any_of(texts: frozenset[bytes]) -> Any:
    """Give a pattern that finds any of `texts`."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes as they are
    options.never_capture = True
    options.max_mem = _PATTERN_BYTES
    return re2.compile(b"|".join(map(re2.escape, sorted(texts))), options)


class Masker:
    """A stream of bytes without the secrets. The pieces it comes in make no difference to the result.

    At each place the longest form that fits is replaced. What could still be the beginning of one is held back.
    """

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = secrets
        usable = [secret for secret in secrets if len(secret) >= MIN_SECRET_BYTES]
        all_forms = frozenset[bytes]().union(*map(forms, usable))
        # A form that holds a shorter one begins no later: longest first makes the first hit at a place the longest.
        self._forms = tuple(sorted(all_forms, key=lambda form: (-len(form), form)))
        many = len(self._forms) > _FEW_FORMS
        self._beginnings = _any_of(frozenset(form[:MIN_SECRET_BYTES] for form in self._forms)) if many else None
        self._short = frozenset(form[:length] for form in self._forms for length in range(1, MIN_SECRET_BYTES))
        """Beginnings that are too short to look for."""
        self._held = b""

    def joined_by(self, secrets: tuple[bytes, ...]) -> "Masker":
        """Give a masker of more secrets that goes on where this one is: what is held back goes along."""
        joined = Masker((*self._secrets, *secrets))
        joined._held = self._held
        return joined

    def feed(self, chunk: bytes) -> bytes:
        """Give what is certain after `chunk`."""
        if not self._forms:
            return chunk
        text = self._held + chunk
        done, rest = self._replace(text, self._begun(text))
        self._held = rest
        return done

    def _begun(self, text: bytes) -> int:
        """Find the first place from which on `text` is the beginning of a form; its end where there is none.

        Not simply the length of the longest form before its end: who reads a log while it is written would always be
        behind by a certificate.
        """
        begun = len(text)
        for length in range(1, min(MIN_SECRET_BYTES, len(text) + 1)):
            if text[-length:] in self._short:
                begun = len(text) - length
        tail = max(0, len(text) - len(self._forms[0]) + 1)
        if self._beginnings is not None and not self._beginnings.search(text[tail:]):
            return begun
        for form in self._forms:
            place = text.find(form[:MIN_SECRET_BYTES], max(0, len(text) - len(form) + 1))
            while 0 <= place < begun:
                if form.startswith(text[place:]):
                    begun = place
                    break
                place = text.find(form[:MIN_SECRET_BYTES], place + 1)
        return begun

    def end(self) -> bytes:
        """Give what was held back."""
        text, self._held = self._held, b""
        done, rest = self._replace(text, len(text))
        return done + rest

    def whole(self, text: str) -> str:
        """Give a text that is no part of the stream without the secrets; the stream stays as it is."""
        encoded = text.encode("utf-8", "backslashreplace")
        done, rest = self._replace(encoded, len(encoded))
        return (done + rest).decode("utf-8", "backslashreplace")

    def _replace(self, text: bytes, certain: int) -> tuple[bytes, bytes]:
        """Replace forms that begin before `certain`; give the result, and what is not decided yet."""
        # Most output holds nothing that even begins like a form: one look for all beginnings, not one for each form. A
        # private key has hundreds, and a search for each would cost a hundred times as much.
        if self._beginnings is not None and not self._beginnings.search(text):
            return text[:certain], text[certain:]
        # Per form, where it is found next: each is searched for once per hit, not once per place.
        places = {form: place for form in self._forms if 0 <= (place := text.find(form)) < certain}
        pieces: list[bytes] = []
        position = 0
        while places:
            # min() keeps the first of equals, and dicts their order: the longest.
            form, place = min(places.items(), key=lambda item: item[1])
            pieces.extend((text[position:place], MASK))
            position = place + len(form)
            for other, found in list(places.items()):
                if found >= position:
                    continue
                again = text.find(other, position)
                if 0 <= again < certain:
                    places[other] = again
                else:
                    del places[other]
        end = max(position, certain)
        pieces.append(text[position:end])
        return b"".join(pieces), text[end:]
