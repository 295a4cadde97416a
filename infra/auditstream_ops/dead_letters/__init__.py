"""Dead letters: reading, filtering, replaying and dropping them."""
