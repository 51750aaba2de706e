"""A repository that is read over https: whether a revision is on a branch, and its `.taskcluster.yml`.

The host is believed in both. A mirror's git hashes what it reads, and follows history by itself; here a host says that
a revision is on a branch, and which bytes are in it, and only TLS shows that it was this host. See docs/inputs.md.
"""

import asyncio
import logging
import secrets
import ssl
from dataclasses import dataclass
from typing import Final, final

import aiohttp

from secureworker.artifacts.download import Allowance, NotDownloaded, TooLarge, download
from secureworker.artifacts.mirror import MAX_FILE
from secureworker.core.errors import ServiceError
from secureworker.core.inputs import Source
from secureworker.core.origin import RELEASE, Origin
from secureworker.core.trace import Tree
from secureworker.core.website import Question, Website, agrees, fill
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

_MAX_ANSWER: Final = 4 * 1024 * 1024
"""Of a question. GitHub's comparison of two revisions lists commits and files, where it is not asked for fewer."""
_MAX_BRANCHES: Final = 20
"""Branches that are asked about for one release."""


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """How patient we are with a site."""

    attempts: int = 4
    stall_seconds: float = 30.0
    seconds: float = 60.0
    """For one answer."""


SITE: Final = SiteSettings()


@dataclass(frozen=True, slots=True)
class Found:
    """What a site says of a revision."""

    refs: tuple[str, ...]
    file: bytes


@final
class Site:
    """Asks the site of one repository."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, website: Website, settings: SiteSettings = SITE
    ) -> None:
        """Take a session without credentials: nothing but public repositories can be read."""
        self._session = session
        self._clock = clock
        self._website = website
        self._settings = settings

    async def read(self, origin: Origin) -> Found | Tree:
        """Say what there is of the revision that a decision task names.

        1. A release's tag is the revision.
        2. The revision is on the branch that is named, or, for a release, on one of those that the policy names.
        3. Only then its file is fetched: on GitHub, every fork's revisions can be read by the address of every other.

        Returns:
            what was found, or a tree that says what is missing.

        Raises:
            ServiceError: the site does not answer, after all attempts.
        """
        # The system's CAs, as they are now.
        tls = await asyncio.to_thread(ssl.create_default_context)
        branch, refs = origin.ref.removeprefix("refs/heads/"), [origin.ref]
        # 1.
        if origin.kind == RELEASE:
            branch = ""
            tag, asked = origin.ref.removeprefix("refs/tags/"), self._website.tag
            if asked is None:
                return Tree(missing="the policy does not say how tags are asked for (https.tag); releases need that")
            if not await self._says(asked, origin.revision, tag, tls):
                return Tree(missing=f"the revision {origin.revision} is not the tag {tag}, by {asked.url}")
        # 2.
        names = [branch] if branch else [each for each in origin.repository.branches if not each.endswith("*")]
        on = None
        for name in names[:_MAX_BRANCHES]:
            if await self._says(self._website.branch, origin.revision, name, tls):
                on = name
                break
        if on is None:
            named = ", ".join(names) or "any branch whose name the policy has in full"
            where = self._website.branch.url
            return Tree(missing=f"the revision {origin.revision} is not on {named}, by {where}")
        if not branch:
            refs.append(f"refs/heads/{on}")
        # 3.
        address = fill(self._website.file, origin.revision)
        try:
            return Found(tuple(refs), await self._get(address, MAX_FILE, tls))
        except TooLarge:
            return Tree(refs=tuple(refs), unrendered=f"it has more than the {MAX_FILE} bytes that are read")
        except NotDownloaded as error:
            return Tree(refs=tuple(refs), unrendered=f"{error}, at {address}")

    async def _says(self, question: Question, revision: str, ref: str, tls: ssl.SSLContext) -> bool:
        try:
            answer = await self._get(fill(question.url, revision, ref), _MAX_ANSWER, tls)
        except NotDownloaded as error:
            logger.info("%s: %s", fill(question.url, revision, ref), error)
            return False
        return agrees(question, answer, revision)

    async def _get(self, address: str, limit: int, tls: ssl.SSLContext) -> bytes:
        """GET an address; attempts are made again where that may help.

        Raises:
            NotDownloaded: what is there is no answer, and will be none.
            ServiceError: there is none now.
        """
        number = 1
        while True:
            content = bytearray()
            try:
                async with asyncio.timeout(self._settings.seconds):
                    await download(
                        self._session,
                        Source(address),
                        content.extend,
                        Allowance(limit),
                        plain=False,
                        stall_seconds=self._settings.stall_seconds,
                        tls=tls,
                    )
                return bytes(content)
            except TimeoutError:
                why = f"nothing whole came within {self._settings.seconds:g} s"
            except NotDownloaded as error:
                if not error.again:
                    raise
                why = str(error)
            if number >= self._settings.attempts:
                raise ServiceError(f"{address} cannot be read, attempt {number}: {why}")
            await self._clock.sleep(2.0 ** (number - 1) * (0.5 + secrets.randbelow(512) / 1024))
            number += 1
