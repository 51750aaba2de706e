"""`secureworker policy`: sign, verify, compare and test policies, and draft one from a scriptworker's."""

import json
from pathlib import Path

import click

FAILED, UNUSABLE = 1, 2
"""Exit codes."""


@click.group("policy")
def command() -> None:
    """Sign, verify, compare and test policies."""


@command.command("sign")
@click.argument("path", metavar="POLICY", type=click.Path(exists=True, dir_okay=False))
@click.option("--key", required=True, metavar="URI", help="The reviewers' signing key: file:/path.")
@click.pass_context
def sign(context: click.Context, *, path: str, key: str) -> None:
    r"""Sign POLICY and every schema it refers to; the signature is written to POLICY.sig.

    Scripts are covered by their pins. Workers that are started with `--policy-key` take signed policies only.

    \b
    Example:
      secureworker policy sign release.yml --key file:/home/reviewer/policy.key
    """
    # Here and not above: `--help` of the whole program must not load cryptography.
    from secureworker.core.errors import KeyUnusable, PolicyError
    from secureworker.policyfile import load
    from secureworker.policyfile.manifest import manifest
    from secureworker.signing.keys import load_signing_key
    from secureworker.signing.policies import sign_policy

    try:
        policy = load(path, host=False)
        signing_key = load_signing_key(key)
        text = sign_policy(manifest(path, policy), signing_key)
        Path(f"{path}.sig").write_text(text, encoding="ascii")
    except (PolicyError, KeyUnusable, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(UNUSABLE)
    click.echo(f"{path}.sig: signed by {signing_key.public.fingerprint}")
    click.echo(manifest(path, policy).decode(), nl=False)


@command.command("verify")
@click.argument("path", metavar="POLICY", type=click.Path(exists=True, dir_okay=False))
@click.option("--key", required=True, metavar="FILE", help="The reviewers' public key.")
@click.pass_context
def verify(context: click.Context, *, path: str, key: str) -> None:
    r"""Check that POLICY, and the schemas it refers to, are what the reviewers signed.

    Ends with 0 where they are, else with 2, as a worker with `--policy-key` would.

    \b
    Example:
      secureworker policy verify release.yml --key policy.key.pub
    """
    from secureworker.core.errors import PolicyError
    from secureworker.policyfile import load
    from secureworker.policyfile.manifest import manifest, read_signature
    from secureworker.signing.policies import MAX_BYTES, check_policy
    from secureworker.signing.publickeys import read_public_key

    try:
        policy = load(path, host=False)
        public = read_public_key(key)
        check_policy(path, read_signature(path, MAX_BYTES), manifest(path, policy), public)
    except (PolicyError, ValueError) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(UNUSABLE)
    click.echo(f"{path}: signed by {public.fingerprint}")
    click.echo(manifest(path, policy).decode(), nl=False)


@command.command("diff")
@click.argument("old", metavar="OLD", type=click.Path(exists=True, dir_okay=False))
@click.argument("new", metavar="NEW", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def diff(context: click.Context, *, old: str, new: str, as_json: bool) -> None:
    r"""Say what a change of a policy lets through (+), takes away (-) or does differently (~).

    \b
    Exit codes:
      0  nothing is looser
      1  something is looser, or different
      2  a policy is not valid

    \b
    Example:
      secureworker policy diff release.yml new.yml
    """
    from secureworker.core.errors import PolicyError
    from secureworker.policyfile import load
    from secureworker.policyfile.compare import Effect, compare

    try:
        changes = compare(load(old, host=False), load(new, host=False))
    except PolicyError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(UNUSABLE)
    if as_json:
        listed = [{"effect": each.effect.name.lower(), "key": each.key, "message": each.message} for each in changes]
        click.echo(json.dumps(listed, indent=2))
    else:
        for change in changes:
            click.echo(str(change))
        looser = sum(change.effect is Effect.LOOSER for change in changes)
        tighter = sum(change.effect is Effect.TIGHTER for change in changes)
        rest = len(changes) - looser - tighter
        click.echo(f"{looser} looser (+), {tighter} tighter (-), {rest} different (~)")
    context.exit(FAILED if any(change.effect is not Effect.TIGHTER for change in changes) else 0)


@command.command("test")
@click.argument("path", metavar="POLICY", type=click.Path(exists=True, dir_okay=False))
@click.argument("cases", metavar="CASES", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def test(context: click.Context, *, path: str, cases: str, as_json: bool) -> None:
    r"""Try every case in CASES against POLICY: tasks it must admit, and tasks it must refuse, with the reasons.

    \b
    Exit codes:
      0  all cases went as they should
      1  some did not
      2  the policy or the cases cannot be used

    \b
    A file of cases (`secureworker schema cases` has it all):
      cases:
        - name: a release is signed
          task: {scopes: ["project:x:action:sign"], payload: {format: gpg}}
          admit: sign
        - name: nobody else schedules tasks here
          task: {schedulerId: other, scopes: ["project:x:action:sign"], payload: {format: gpg}}
          refuse: [tasks.scheduler-ids]
    """
    from secureworker.core.errors import PolicyError
    from secureworker.policyfile import load
    from secureworker.policyfile.cases import read_cases, try_case

    try:
        policy = load(path, host=False)
        verdicts = [try_case(case, policy) for case in read_cases(cases)]
    except PolicyError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(UNUSABLE)
    failed = sum(not verdict.passed for verdict in verdicts)
    if as_json:
        listed = [{"name": each.case.name, "passed": each.passed, "found": each.found} for each in verdicts]
        click.echo(json.dumps(listed, indent=2))
        context.exit(FAILED if failed else 0)
    for verdict in verdicts:
        click.echo(f"{'ok    ' if verdict.passed else 'FAILED'} {verdict.case.name}")
        if not verdict.passed:
            case = verdict.case
            arguments = "" if case.argv is None else f", with the arguments {json.dumps(case.argv)}"
            wanted = f"admitted as {case.admit}{arguments}" if case.admit else f"refused by {', '.join(case.refuse)}"
            click.echo(f"       wanted: {wanted}")
            click.echo("       found:  " + verdict.found.replace("\n", "\n               "))
    click.echo(f"{len(verdicts) - failed} of {len(verdicts)} cases went as they should")
    context.exit(FAILED if failed else 0)


@command.command("from-scriptworker")
@click.argument("path", metavar="SCRIPTWORKER_YAML", type=click.Path(exists=True, dir_okay=False))
@click.pass_context
def from_scriptworker(context: click.Context, *, path: str) -> None:
    r"""Print a commented draft of a policy that does what a scriptworker with this configuration did.

    It is not valid as it stands: every <TODO> in it is a decision that the configuration does not hold.

    \b
    Example:
      secureworker policy from-scriptworker scriptworker.yaml > signing.yml
    """
    from secureworker.core.errors import PolicyError
    from secureworker.policyfile.migrate import draft_from_scriptworker

    try:
        click.echo(draft_from_scriptworker(Path(path).read_bytes(), path), nl=False)
    except (PolicyError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(UNUSABLE)
