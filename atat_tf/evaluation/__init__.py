"""How robust a classifier is: attacks, verdicts, and the ledger of them."""
