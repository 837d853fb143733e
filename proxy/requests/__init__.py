"""From bytes to a typed request, through an endpoint, and back."""
