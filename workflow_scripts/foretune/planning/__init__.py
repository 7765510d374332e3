"""What a study will take, and fetching its data and weights."""
