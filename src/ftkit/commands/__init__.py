"""The roof: one module for each command that is neither Lightning's nor a wing's own."""
