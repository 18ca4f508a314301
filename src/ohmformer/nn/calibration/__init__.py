"""Choose what is done to K and V before they are written."""
