"""The floor under the wings: checkpoints, storage and callbacks."""
