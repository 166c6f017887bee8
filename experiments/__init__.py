"""Entry points: flags -> config -> data -> library."""
