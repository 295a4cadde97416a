"""Files of an export: written whole or not at all, on a disk or in a bucket."""
