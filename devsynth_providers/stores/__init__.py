"""What outlives a call: answers that are kept, and the ledger. Each foreign library for that has its door here."""
