"""The executor of a node, as this service sees it: what it is asked and what it tells, in domain types only."""
