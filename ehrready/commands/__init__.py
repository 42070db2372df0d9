"""Sub-commands with a module of their own; ehrready.cli registers them."""
