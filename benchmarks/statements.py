"""How long it takes to make and to verify the statements of a run: `python benchmarks/statements.py [ARTIFACTS]`.

Hashing is not in it: the artifacts' digests are known when statements are made, and `benchmarks/artifacts.py` has it.
"""

import hashlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from secureworker.core.claim import Json
from secureworker.core.evidence import read_bundle, read_chain_of_trust, read_provenance
from secureworker.core.outcome import ExitCode
from secureworker.host.trustfile import provenance_schema
from secureworker.ports import Statement
from secureworker.signing.keys import create_signing_key
from secureworker.signing.statements import build, sign
from secureworker.signing.verify import Expected, verify_directory
from secureworker.testing import ROOT_URL, SHA256, a_claim, an_artifact, an_execution

ROUNDS = 15


def median(action: Callable[[], object]) -> float:
    """Give the median time in milliseconds."""
    times = []
    for _ in range(ROUNDS):
        begun = perf_counter()
        action()
        times.append((perf_counter() - begun) * 1000)
    return statistics.median(times)


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        key = create_signing_key(f"{made}/key")
        published = Path(made, "published", "public")
        published.mkdir(parents=True)
        artifacts = []
        for number in range(count):
            content = hashlib.sha256(str(number).encode()).digest() * 32
            (published / f"file-{number:06}.bin").write_bytes(content)
            artifacts.append(an_artifact(f"public/file-{number:06}.bin", content))
        request = Statement(a_claim(), an_execution(ExitCode(0)), tuple(artifacts), SHA256, "build", SHA256, ROOT_URL)
        bodies = build(request)
        assert bodies.provenance is not None
        files = {str(file.name): file.content for file in sign(bodies, key)}
        for name, content in files.items():
            Path(made, "published", name).write_bytes(content)

        print(f"{count} artifacts of 1 KiB; medians of {ROUNDS}")
        print(f"  make both statements             {median(lambda: build(request)):8.2f} ms")
        print(f"  sign them                        {median(lambda: sign(bodies, key)):8.2f} ms")
        chain, provenance = files["public/chain-of-trust.json"], files["public/provenance.sigstore.json"]
        print(f"  read the chain of trust          {median(lambda: read_chain_of_trust(chain, {})):8.2f} ms")
        schema = provenance_schema()

        def read() -> object:
            return read_provenance(read_bundle(provenance).payload, schema)

        print(f"  read the provenance              {median(read):8.2f} ms")

        def verify() -> object:
            verdict = verify_directory(f"{made}/published", key.public, Expected())
            assert verdict.verified, verdict.steps[-1]
            return verdict

        print(f"  verify the directory, all steps  {median(verify):8.2f} ms")
        payload: dict[str, Json] = {f"key-{number}": [number, "x" * 40] for number in range(15_000)}
        large = replace(request, claim=a_claim(payload=payload))
        print(f"  make both for a task of 1 MB     {median(lambda: build(large)):8.2f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
