"""Binary evaluation over prediction files: the ground that everything else stands on."""
