"""What a study rests on, as references."""
