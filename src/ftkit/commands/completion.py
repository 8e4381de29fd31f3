"""``ftkit completion``: the completion script of a shell."""

from importlib.util import find_spec
from typing import Literal

from ftkit.errors import EnvironmentFault


def completion(shell: Literal["bash", "zsh", "tcsh"]) -> str:
    """Print the completion script of a shell, such as for `eval "$(ftkit completion bash)"`.

    Args:
        shell: The shell.

    Returns:
        The script; of fit, validate, test and predict it knows the options of the short help.

    Raises:
        EnvironmentFault: shtab is not installed.
    """
    if find_spec("shtab") is None:
        raise EnvironmentFault("shtab is not installed", fix="pip install 'ftkit[completion]'")
    from ftkit.cli import make_parser

    return make_parser(None).get_completion_script(f"shtab-{shell}") + "\n"
