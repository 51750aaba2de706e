"""`secureworker schema`: the JSON schemas, for editors and for authors of tasks."""

import json
from typing import Any

import click


@click.group("schema")
def command() -> None:
    """Print JSON schemas, for editors and for authors of tasks."""


@command.command("policy")
@click.option("--markdown", is_flag=True, help="Print the reference of the policy language instead.")
def of_policy(*, markdown: bool) -> None:
    r"""Print the schema of policy files.

    \b
    Example, for editors that use yaml-language-server:
      secureworker schema policy > policy.schema.json
      # first line of release.yml:   # yaml-language-server: $schema=policy.schema.json
    """
    if markdown:
        from secureworker.policyfile.load import read_schema
        from secureworker.policyfile.reference import as_markdown

        click.echo(as_markdown(read_schema("policy")), nl=False)
        return
    _print_shipped("policy")


@command.command("cases")
def of_cases() -> None:
    """Print the schema of files with test cases (see `secureworker policy test`)."""
    _print_shipped("policy-cases")


@command.command("trust")
def of_trust() -> None:
    """Print the schema of trust files (see `secureworker verify --trust`)."""
    _print_shipped("trust")


@command.command("status")
def of_status() -> None:
    """Print the schema of what `secureworker status --json` prints."""
    _print_shipped("status")


@command.command("provenance")
@click.option("--parameters", is_flag=True, help="Print the schema of its external parameters instead.")
def of_provenance(*, parameters: bool) -> None:
    """Print the schema of provenance statements."""
    _print_shipped("release-script-parameters" if parameters else "provenance")


@command.command("payload")
@click.argument("script")
@click.option("--policy", "path", required=True, envvar="SECUREWORKER_POLICY", metavar="FILE", help="The policy.")
def of_payload(script: str, path: str) -> None:
    r"""Print the schema of the payloads that SCRIPT of a policy takes.

    \b
    Example:
      secureworker schema payload sign --policy release.yml > sign.schema.json
    """
    # Here and not above: `--help` of the whole program must not load YAML and schemas.
    from secureworker.core.errors import PolicyError
    from secureworker.host.documents import nearest
    from secureworker.policyfile import load

    try:
        policy = load(path, host=False)
    except PolicyError as error:
        raise click.ClickException(str(error)) from error
    rules = {str(rule.name): rule for rule in policy.scripts}
    if script not in rules:
        near = nearest(script, rules)
        meant = f"did you mean {near!r}?" if near else f"there are {', '.join(rules)}"
        raise click.ClickException(f"{path} has no script {script!r}; {meant}")
    _print(dict(rules[script].payload_schema.document))


def _print_shipped(name: str) -> None:
    from secureworker.policyfile.load import read_schema

    _print(read_schema(name))


def _print(schema: dict[str, Any]) -> None:
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))
