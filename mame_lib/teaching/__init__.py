"""What only the book needs: `checks` grades exercises, `figures` draws."""
