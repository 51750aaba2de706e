"""A SLSA verification summary (VSA v1) of a run's inputs: what the worker verified before the script saw it.

It says nothing that the provenance does not: it is made from the provenance statement alone, so that whoever has
verified that one can make this one and compare. It is there for tools that gate on summaries and read nothing else.

Source: https://slsa.dev/spec/v1.1/verification_summary.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from secureworker.core.ids import ArtifactName
from secureworker.core.provenance import STATEMENT_TYPE

SUMMARY: Final = ArtifactName("public/provenance-inputs.sigstore.json")
SUMMARY_TYPE: Final = "https://slsa.dev/verification_summary/v1"
_INPUTS: Final = 2
"""Of the resolved dependencies, the task and the script come first."""
_STATEMENT: Final = "statement/"
"""How names of those begin that vouched for the others."""


def verification_summary(statement: Mapping[str, Any]) -> bytes | None:
    """Write the summary of the inputs that a provenance statement names; None where it names none.

    The level is `UNEVALUATED`: that the inputs are what the policy's trusted pools signed was verified, and how those
    pools build was not.

    Args:
        statement: of our build type, as it was signed.
    """
    build, details = (statement["predicate"][part] for part in ("buildDefinition", "runDetails"))
    others = build["resolvedDependencies"][_INPUTS:]
    inputs = [each for each in others if not each["name"].startswith(_STATEMENT)]
    if not inputs:
        return None
    # The schema lets an address be absent; ours never is.
    attested = [{key: each[key] for key in ("uri", "digest") if key in each} for each in others if each not in inputs]
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": each["name"], "digest": each["digest"]} for each in inputs],
        "predicateType": SUMMARY_TYPE,
        "predicate": {
            "verifier": {"id": details["builder"]["id"]},
            # The inputs were verified before the script could see them.
            "timeVerified": details["metadata"]["startedOn"],
            "resourceUri": details["metadata"]["invocationId"],
            "policy": {"digest": build["internalParameters"]["policy"]},
            **({"inputAttestations": attested} if attested else {}),
            "verificationResult": "PASSED",
            "verifiedLevels": ["SLSA_BUILD_LEVEL_UNEVALUATED"],
            "slsaVersion": "1.1",
        },
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")
