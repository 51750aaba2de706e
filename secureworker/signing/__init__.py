"""Keys, signatures and their verification: the only package that sees private keys."""
