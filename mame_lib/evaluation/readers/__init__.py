"""Reader studies: people say how real an image looks, and we say what that shows, and what it cannot."""
