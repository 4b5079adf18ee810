"""The command `pgolf`: a click group that loads each subcommand only when it is called."""
