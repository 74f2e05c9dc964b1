"""The command line: reads arguments, calls the library, prints."""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from ..errors import SparsecError
from . import compile as compiling
from . import run as running
from . import show


class _Group(click.Group):
    """The one place where an exception becomes a line on stderr and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except SparsecError as error:
            text = str(error)
        except BrokenPipeError:
            raise  # the reader of a pipe has left, which click ends without a message
        except OSError as error:
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        except ModuleNotFoundError as error:
            if not error.name or error.name.partition(".")[0] == __package__.partition(".")[0]:
                raise
            text = f"the package {error.name} is not installed; pip install 'sparsec[compiler]'"
        click.echo(f"error: {text}", err=True)
        ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="sparsec")
def cli() -> None:
    """Compiles ONNX models, dense or sparse, ahead of time to native shared libraries, and runs them."""


for _command in (
    compiling.build,
    compiling.analyze,
    compiling.sparsify,
    running.run,
    compiling.verify,
    running.bench,
    show.inspect,
    show.targets,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the `sparsec` command."""
    cli(prog_name="sparsec")
