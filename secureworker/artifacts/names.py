"""What the name of an artifact says about it: whether it is allowed, its content type, whether it is compressed."""

import re
from functools import lru_cache

CHAIN_OF_TRUST = "public/chain-of-trust.json"
LOGS = "public/logs"
LIVE_BACKING_LOG = f"{LOGS}/live_backing.log"

_RESERVED = (CHAIN_OF_TRUST, f"{CHAIN_OF_TRUST}.sig", "public/audit.tlog-proof", "public/verification.json", LOGS)
_RESERVED_PREFIX = "public/provenance"

DEFAULT_CONTENT_TYPE = "application/octet-stream"
CONTENT_TYPES: tuple[tuple[str, str], ...] = (
    # Those whose type scriptworker's consumers rely on.
    (".asc", "text/plain"),
    (".beet", "text/plain"),
    (".checksums", "text/plain"),
    (".diff", "text/plain"),
    (".log", "text/plain"),
    (".md", "text/plain"),
    (".md5", "text/plain"),
    (".patch", "text/plain"),
    (".sha256", "text/plain"),
    (".sha256sum", "text/plain"),
    (".sha512", "text/plain"),
    (".sha512sum", "text/plain"),
    (".txt", "text/plain"),
    (".tar.bz2", "application/x-tar"),
    (".tar.gz", "application/x-tar"),
    (".tar.xz", "application/x-tar"),
    (".tar.zst", "application/x-tar"),
    (".tar", "application/x-tar"),
    (".tgz", "application/x-tar"),
    # The rest of what releases are made of (IANA's registry where it has a type).
    (".apk", "application/vnd.android.package-archive"),
    (".css", "text/css"),
    (".csv", "text/csv"),
    (".deb", "application/vnd.debian.binary-package"),
    (".dmg", "application/x-apple-diskimage"),
    (".exe", "application/octet-stream"),
    (".gif", "image/gif"),
    (".gz", "application/gzip"),
    (".html", "text/html"),
    (".jpg", "image/jpeg"),
    (".js", "text/javascript"),
    (".json", "application/json"),
    (".jsonl", "application/json"),
    (".mar", "application/octet-stream"),
    (".msi", "application/x-msi"),
    (".pdf", "application/pdf"),
    (".pkg", "application/octet-stream"),
    (".png", "image/png"),
    (".rpm", "application/x-rpm"),
    (".snap", "application/octet-stream"),
    (".svg", "image/svg+xml"),
    (".xhtml", "application/xhtml+xml"),
    (".xml", "application/xml"),
    (".xpi", "application/x-xpinstall"),
    (".xz", "application/x-xz"),
    (".yaml", "application/yaml"),
    (".yml", "application/yaml"),
    (".zip", "application/zip"),
    (".zst", "application/zstd"),
)

_COMPRESSIBLE = re.compile(r"text/.+|application/(json|xml|yaml|javascript)|[a-z]+/.+\+(json|xml)")


def is_reserved(name: str) -> bool:
    """Whether only the worker may publish `name`.

    Names below a reserved one count too: who downloads both would need one path to be a file and a directory.
    """
    return name.startswith(_RESERVED_PREFIX) or any(name == one or name.startswith(f"{one}/") for one in _RESERVED)


def content_type(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Give the type of the longest suffix that fits; any of `rules` comes before the built-in table."""
    for table in (rules, CONTENT_TYPES):
        fitting = [(len(suffix), kind) for suffix, kind in table if name.endswith(suffix)]
        if fitting:
            return max(fitting)[1]
    return DEFAULT_CONTENT_TYPE


def is_compressible(kind: str) -> bool:
    """Whether content of this type is text in some form, which gzip makes smaller."""
    return _COMPRESSIBLE.fullmatch(kind.partition(";")[0].strip().lower()) is not None


def is_allowed(name: str, globs: tuple[str, ...]) -> bool:
    """Whether one of the globs fits the whole of `name`.

    `?` and `*` stay within a segment; `**` as a segment stands for any number of segments, none included
    (at the end: at least one); `**` inside a segment is as `*`. All else stands for itself, brackets too.
    """
    return any(_pattern(glob).fullmatch(name) for glob in globs)


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    *leading, last = glob.split("/")
    parts = ["(?:[^/]+/)*" if segment == "**" else f"{_segment(segment)}/" for segment in leading]
    parts.append("[^/]+(?:/[^/]+)*" if last == "**" else _segment(last))
    return re.compile("".join(parts))


def _segment(segment: str) -> str:
    pieces = re.split(r"(\*+|\?)", segment)
    return "".join("[^/]" if piece == "?" else "[^/]*" if piece[:1] == "*" else re.escape(piece) for piece in pieces)
