"""What a training says of the parameters that learn."""

import pytest

from ftkit.training.trainable_line import trainable_line


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "none"),
        (["bias"], "bias (1)"),
        (
            [*(f"net.model.h.11.{part}" for part in ("ln.weight", "ln.bias", "mlp.weight")), "net.model.ln_f.weight",
             "net.model.ln_f.bias", "net.head.weight", "net.head.bias"],
            "h.11 (3), ln_f (2), head (2)",
        ),
        (
            [f"net.h.{block}.attn.lora_{side}.default.weight" for block in range(12) for side in "AB"]
            + ["net.head.base_layer.weight", "net.head.lora_A.default.weight"],
            "h.0-11 (2 each), head (2)",
        ),
        (  # a block that has more ends a run, and so does a gap
            ["h.0.a.w", "h.1.a.w", "h.2.a.w", "h.2.b.w", "h.3.a.w", "h.5.a.w"],
            "h.0-1 (1 each), h.2 (2), h.3 (1), h.5 (1)",
        ),
        (  # two stacks of one name
            ["m.text.layers.0.w", "m.text.layers.1.w", "m.vision.layers.2.w"],
            "m.text.layers.0-1 (1 each), m.vision.layers.2 (1)",
        ),
    ],
)  # fmt: skip
def test_it_names_blocks_and_modules(names: list[str], said: str) -> None:
    assert trainable_line(names, 7, 2000) == f"Trainable: 7 of 2,000 parameters (0.35%): {said}"


def test_a_module_without_parameters_has_no_share() -> None:
    assert trainable_line([], 0, 0) == "Trainable: 0 of 0 parameters (0.00%): none"
