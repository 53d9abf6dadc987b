"""The nouns that all floors speak of."""
