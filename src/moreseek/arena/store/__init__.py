"""What a live arena remembers, in one database: contestants, voters, battles, votes, counts, a ledger."""
