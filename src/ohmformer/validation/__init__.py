"""Other people's numbers: reported, modeled, verdict."""
