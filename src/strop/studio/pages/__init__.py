"""The studio's pages, a file each."""
