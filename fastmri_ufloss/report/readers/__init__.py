"""Blinded reader studies: pages for readers, their answers, and what follows from them."""
