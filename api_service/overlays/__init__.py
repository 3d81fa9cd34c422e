"""Networks that span nodes: how they are cut, who is on them, and what each node is told of the others."""
