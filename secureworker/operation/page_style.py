"""How the status page looks: light and dark, from 320 pixels upwards. Constants only."""

import base64
import functools
import hashlib
from collections.abc import Mapping
from typing import Final

LIGHT: Final[Mapping[str, str]] = {
    "ground": "#ffffff",
    "raised": "#f3f4f6",
    "line": "#c4c9d1",
    "text": "#1b1f24",
    "quiet": "#4b5560",
    "link": "#0b57b0",
    "good": "#14662e",
    "busy": "#0b57b0",
    "warn": "#8a4b00",
    "bad": "#a8161f",
}
DARK: Final[Mapping[str, str]] = {
    "ground": "#14181d",
    "raised": "#1f252c",
    "line": "#47515c",
    "text": "#e8ebee",
    "quiet": "#adb7c2",
    "link": "#8cc0ff",
    "good": "#7fd99a",
    "busy": "#8cc0ff",
    "warn": "#f0b060",
    "bad": "#ff9a9a",
}
"""Every colour of text has a contrast of 4.5 to 1 or more against both grounds: WCAG 2.2, level AA."""

SHADES: Final = ("#3d82d0", "#9a68d0", "#2f9080", "#b9702a")
"""Of neighbouring phases, in turn; at least 3 to 1 against both grounds."""

_RULES: Final = """
:root { color-scheme: light dark; %(light)s }
@media (prefers-color-scheme: dark) { :root { %(dark)s } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 0 1rem 3rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 1rem 0 0.25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 0 0 0.25rem; }
a { color: var(--link); } a:focus-visible, pre:focus-visible, .wide:focus-visible { outline: 3px solid var(--link); }
.skip { position: absolute; left: -999rem; } .skip:focus { left: 1rem; background: var(--ground); padding: 0.5rem; }
p { margin: 0.25rem 0; } .quiet { color: var(--quiet); }
.state { font-weight: 700; } .good { color: var(--good); } .busy { color: var(--busy); }
.warn { color: var(--warn); } .bad { color: var(--bad); }
article { background: var(--raised); border: 1px solid var(--line); border-radius: 0.4rem; padding: 0.75rem;
  margin: 0 0 1rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0.15rem 1rem; margin: 0.5rem 0; }
dt { color: var(--quiet); } dd { margin: 0; min-width: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%%; min-width: 34rem; }
caption { text-align: left; color: var(--quiet); padding: 0 0 0.25rem; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; } th, td.time, td.decision, td.kind, td.task code { white-space: nowrap; }
td.resolution { overflow-wrap: normal; }
ul { margin: 0; padding-left: 1.1rem; }
code, pre { font: 0.85rem/1.45 ui-monospace, monospace; }
pre { background: var(--ground); border: 1px solid var(--line); margin: 0.5rem 0 0; padding: 0.5rem;
  max-height: 24rem; overflow: auto; white-space: pre-wrap; direction: ltr; unicode-bidi: isolate; }
svg { display: block; width: 100%%; height: 0.75rem; margin: 0.5rem 0; }
%(shades)s
.steps { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; }
"""


@functools.cache
def rules() -> str:
    """Give the style sheet."""
    named = {
        name: " ".join(f"--{colour}: {value};" for colour, value in colours.items())
        for name, colours in (("light", LIGHT), ("dark", DARK))
    }
    shades = "\n".join(f".shade{number} {{ fill: {shade}; }}" for number, shade in enumerate(SHADES))
    return _RULES % {**named, "shades": shades}


@functools.cache
def source() -> str:
    """Give the style sheet's digest, as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(rules().encode()).digest()).decode()}'"
