"""Level 3: raw segments and their index, SQLite, the ELF and image stores."""
