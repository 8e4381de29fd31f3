"""How a table can be printed."""

from typing import Literal

Format = Literal["text", "markdown", "csv", "spreadsheet"]
