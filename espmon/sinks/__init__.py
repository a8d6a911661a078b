"""Level 3: where events go: console, JSON lines, files, hooks; one file each."""
