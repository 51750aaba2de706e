"""The program: `secureworker`, or `python -m secureworker`."""

from secureworker.cli.main import cli


def main() -> None:
    """Run the command line."""
    cli(prog_name="secureworker")


if __name__ == "__main__":
    main()
