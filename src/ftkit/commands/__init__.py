"""One module for each command that is neither LightningCLI's nor a task's own."""
