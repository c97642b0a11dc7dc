"""The studio: everything that strop has on a disk, live in a browser."""
