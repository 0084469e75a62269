"""The HTML report of a registration: what it shows, and the page from its templates."""
